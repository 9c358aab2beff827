"""Parts of responses: a body, headers that are encoded once, the entity tag, problems as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ml.model.loaded import LoadedModel
from web.problems import Problem, ProblemDetails
from web.requests import Representation
from web.settings import ROOT, STATIC, TEMPLATES

MEDIA_TYPE = "application/problem+json"
VARY = b"Accept, Accept-Language, HX-Request"
REPRESENTATIONS: tuple[Representation, ...] = ("page", "fragment", "json")
_MEDIA_TYPES: dict[Representation, bytes] = {
    "page": b"text/html; charset=utf-8",
    "fragment": b"text/html; charset=utf-8",
    "json": b"application/json",
}


# An application sends this instead of the end of a response that it cannot complete: the data before it are sent, and
# then the connection ends, so that the client sees an incomplete response.
ABORT = "http.response.abort"
# An application sends this between two pieces of long work: ClientDisconnect is raised if the client has left, which
# sending alone does not show. Nothing is sent.
CHECK = "http.response.check"


# The files that an answer can depend on.
_SOURCES = frozenset({".py", ".po", ".html", ".css", ".js", ".svg", ".png"})


class Content(Response):
    """A body with headers that are encoded once: encoding them again costs more than the prediction."""

    def __init__(self, body: bytes, *, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [*headers, (b"content-length", str(len(body)).encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the server leaves out the body in answer to HEAD."""
        if scope["type"] == "websocket":  # a refused handshake
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def headers_of(
    representation: Representation, tag: bytes = b"", model: LoadedModel | None = None, *, lang: str = "en"
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a representation in a language, with its entity tag and its model if it has them."""
    if model is None:
        return _headers(representation, tag, "", "", lang)
    return _headers(representation, tag, model.version, model.interface, lang)


# By the model's texts and not the model, which would be kept in memory.
@lru_cache(64)
def _headers(
    representation: Representation, tag: bytes, version: str, interface: str, lang: str
) -> list[tuple[bytes, bytes]]:
    headers = [(b"vary", VARY), (b"cache-control", b"no-cache"), (b"content-type", _MEDIA_TYPES[representation])]
    if representation != "json":
        headers.append((b"content-language", lang.encode()))
    if tag:
        headers.append((b"etag", tag))
    if version:
        headers.append((b"x-model-version", version.encode()))
        # A header costs the server 0.6 us, so only fragments get this one: they are shown beside fields.
        if representation == "fragment":
            headers.append((b"x-model-features", interface.encode()))
    return headers


def tag_of(content: bytes) -> bytes:
    """Return the entity tag of a body."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'.encode()


def entity_tag(model: LoadedModel, representation: Representation, lang: str = "en") -> bytes:
    """Return the tag of every prediction in this representation and language.

    It depends on its address, the model and our files alone.
    """
    return _tag(model.version, representation, lang)


@lru_cache(64)
def _tag(version: str, representation: Representation, lang: str) -> bytes:
    return f'"{version}-{_files_digest()}-{representation}-{lang}"'.encode()


@lru_cache(1)
def _files_digest() -> str:
    files = hashlib.sha256()
    for folder in (TEMPLATES, STATIC, ROOT / "web", ROOT / "ml"):
        for path in sorted(folder.rglob("*")):
            # Backups of editors do not count: `.page.html.swp`, `#page.html#`, `page.html~`.
            if path.suffix in _SOURCES and path.name[0] not in ".#":
                files.update(path.read_bytes())
    return files.hexdigest()[:8]


def json_of(details: ProblemDetails, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem as JSON (RFC 9457), with further headers."""
    own = {**problem_headers(), "Content-Type": MEDIA_TYPE, **(headers or {})}
    return Content(msgspec.json.encode(details), status=details.status, headers=raw_headers(own))


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent."""
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def on_the_wire(problem: Problem, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a whole HTTP/1.1 response, after which the connection is closed: for a request that cannot be parsed."""
    details = problem.details
    body = msgspec.json.encode(details)
    own = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-cache"),
        (b"connection", b"close"),
        *raw_headers(problem.headers),
    ]
    lines = [
        f"HTTP/1.1 {details.status} {details.title}".encode(),
        *(b": ".join(header) for header in [*headers, *own]),
    ]
    return b"\r\n".join([*lines, b"", body])


def problem_headers() -> dict[str, str]:
    """Return the headers that every answer with a problem has."""
    return {"Vary": VARY.decode(), "Cache-Control": "no-cache"}
