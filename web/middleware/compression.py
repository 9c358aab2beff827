"""Compression of what is read as a whole: pages, and the files that they load. It knows no models and no routes.

Answers to single samples are not compressed: that would cost many times what they cost, for less than one packet.
Nothing secret stands in a page beside what its caller sent, so its length tells nobody anything (BREACH).
"""

from __future__ import annotations

import gzip
from functools import lru_cache

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.requests import bounded, header_of, qualities

# Less fits into one packet as it is.
LEAST_BYTES = 1_024
# More takes longer than a millisecond or two: a thread does it, and nobody else waits.
MOST_BYTES_IN_PLACE = 65_536
# A page of 25 kB gets 2 % longer than with the best level, in two thirds of the time: half a millisecond.
LEVEL = 4
BEST_LEVEL = 9
_TYPES = ("text/html", "text/css", "text/javascript", "image/svg+xml", "application/json")
_SUFFIX = '-gzip"'


class Compressed:
    """An application whose answers travel as gzip to clients that take it.

    Each answer has to come in one piece, as pages and small files do; what comes in more pieces is sent as it is. A
    strong entity tag names one sequence of bytes, so a compressed answer has one of its own (RFC 9110, section 8.8.1).
    Ranges are those of the answer as it is.

    Args:
        app: whose answers they are; it need not know.
        is_kept: whether the same answers come again and again: they are compressed once, as well as can be.
    """

    def __init__(self, app: ASGIApp, *, is_kept: bool = False) -> None:
        self._app = app
        self._is_kept = is_kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_taken = takes_gzip(bounded(header_of(scope, b"accept-encoding"))) and not header_of(scope, b"range")
        known = header_of(scope, b"if-none-match").decode("latin-1")
        ours = _tags_of_compressed(known) if is_taken else []
        # The answer to HEAD has the headers of the one to GET, of which the length is known only when it is there.
        is_head = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET" if is_head else scope["method"]}
        if ours:
            tags = ", ".join([known, *ours]).encode("latin-1")
            inner["headers"] = [(key, tags if key == b"if-none-match" else value) for key, value in scope["headers"]]
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                headers = MutableHeaders(raw=start["headers"])
                is_unchanged = start["status"] == 304
                if is_unchanged or _is_compressible(headers):
                    headers.add_vary_header("Accept-Encoding")
                    if is_unchanged and headers.get("etag") in ours:
                        _mark(headers)
                    elif is_taken and _is_whole(message):
                        message = {**message, "body": await self._compress(message["body"])}
                        _mark(headers)
                        headers["Content-Encoding"] = "gzip"
                        headers["Content-Length"] = str(len(message["body"]))
                        del headers["Accept-Ranges"]
                await send({**start, "headers": headers.raw})
                start = None
            await send({**message, "body": b""} if is_head else message)

        await self._app(inner, receive, send_compressed)

    async def _compress(self, body: bytes) -> bytes:
        if self._is_kept:
            return _kept(body)
        if len(body) > MOST_BYTES_IN_PLACE:
            return await run_in_threadpool(_gzip, body, LEVEL)
        return _gzip(body, LEVEL)


@lru_cache(256)
def takes_gzip(accept: bytes) -> bool:
    """Tell whether an Accept-Encoding header takes gzip, and no less gladly than the bytes as they are."""
    quality = qualities(accept)
    gzipped = quality.get("gzip", quality.get("*", 0.0))
    return gzipped > 0 and gzipped >= quality.get("identity", 0.0)


def _tags_of_compressed(known: str) -> list[str]:
    """Return, of the tags that a client has, those of compressed answers, as the application knows them."""
    tags = (tag.strip().removeprefix("W/") for tag in known.split(","))
    return [tag.removesuffix(_SUFFIX) + '"' for tag in tags if tag.endswith(_SUFFIX)]


def _is_compressible(headers: MutableHeaders) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type in _TYPES and "content-encoding" not in headers


def _is_whole(message: Message) -> bool:
    is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
    return is_last and len(message.get("body", b"")) >= LEAST_BYTES


def _mark(headers: MutableHeaders) -> None:
    tag = headers.get("etag", "")
    if tag.startswith('"'):
        headers["ETag"] = tag[:-1] + _SUFFIX


@lru_cache(32)
def _kept(body: bytes) -> bytes:
    return _gzip(body, BEST_LEVEL)


def _gzip(body: bytes, level: int) -> bytes:
    return gzip.compress(body, level, mtime=0)
