"""Compression of pages. Knows no models and no routes.

Starlette's own middleware compresses; this module adds weak tags, qualities and HEAD. Answers to single samples are not
compressed: that would cost many times their prediction and save less than one packet. A page contains no secret beside
the input of its caller, so its length reveals nothing (BREACH).

Brotli and zstd would come with starlette-compress, brotli and zstandard, 29 MB installed. At the speed of gzip the page
of Iris and the files become 2 % smaller to 5 % larger; only pages of 64 features and more gain (5 to 28 %). And it
compresses in the event loop: a page of 1,000 features takes 6 ms there with Brotli.
"""

from __future__ import annotations

from functools import lru_cache

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.requests import bounded, header_of, qualities

# Smaller responses fit into one packet without compression.
LEAST_BYTES = 1_024
# Compression of larger responses takes longer than a millisecond, so a thread does it.
MOST_BYTES_IN_PLACE = 65_536
# A page of 64 features is 1 % longer than with the best level and takes 1.4 ms, an eighth of what rendering it takes;
# 6 % longer and 0.6 ms with level 4. A page with 40 kB of the worst input takes 0.04 s, with the best level 0.6 s.
LEVEL = 7


class Compressed:
    """An application whose responses are sent as gzip to clients that accept it.

    Their entity tags are weak: they identify the content, compressed or not (RFC 9110, section 8.8.1).

    Args:
        app: the application whose responses are compressed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = GZipMiddleware(app, LEAST_BYTES, LEVEL, MOST_BYTES_IN_PLACE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                _label(MutableHeaders(raw=message["headers"]))
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        # The response to HEAD has the headers of that to GET, whose length is known only once it is made.
        method = "GET" if is_head else scope["method"]
        await self._app({**scope, "method": method, "headers": _without_qualities(scope)}, receive, send_labelled)


def _without_qualities(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return a request's headers with Accept-Encoding reduced to gzip or nothing, the only test of Starlette."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    if takes_gzip(bounded(header_of(scope, b"accept-encoding"))):
        headers.append((b"accept-encoding", b"gzip"))
    return headers


def _label(headers: MutableHeaders) -> None:
    tag = headers.get("etag", "")
    if tag.startswith('"'):
        headers["ETag"] = f"W/{tag}"
    if "accept-encoding" not in headers.get("vary", "").lower():
        headers.add_vary_header("Accept-Encoding")  # also to 304 and to small responses


@lru_cache(256)
def takes_gzip(accept: bytes) -> bool:
    """Return whether an Accept-Encoding header accepts gzip with at least the quality of the identity."""
    quality = qualities(accept)
    gzipped = quality.get("gzip", quality.get("*", 0.0))
    return gzipped > 0 and gzipped >= quality.get("identity", 0.0)
