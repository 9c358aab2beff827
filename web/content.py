"""What responses are made of: a body, headers that were encoded once, and the entity tag."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ml.classifier import Classifier
from web.negotiation import Form

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "static"
TEMPLATES = ROOT / "templates"
VARY = b"Accept, Accept-Language, HX-Request"
FORMS: tuple[Form, ...] = ("page", "fragment", "json")
_MEDIA_TYPES: dict[Form, bytes] = {
    "page": b"text/html; charset=utf-8",
    "fragment": b"text/html; charset=utf-8",
    "json": b"application/json",
}


class Content(Response):
    """A body with headers that were encoded once: encoding them anew costs more than the prediction."""

    def __init__(self, body: bytes, *, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [*headers, (b"content-length", str(len(body)).encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the server leaves out the body in answer to HEAD."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def headers_of(
    form: Form, tag: bytes = b"", model: Classifier | None = None, *, lang: str = "en"
) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer in this form and language, with its entity tag and its model if it has them."""
    if model is None:
        return _headers(form, tag, "", "", lang)
    return _headers(form, tag, model.version, model.interface, lang)


# By the model's texts and not the model, which would be kept in memory.
@lru_cache(64)
def _headers(form: Form, tag: bytes, version: str, interface: str, lang: str) -> list[tuple[bytes, bytes]]:
    headers = [(b"vary", VARY), (b"cache-control", b"no-cache"), (b"content-type", _MEDIA_TYPES[form])]
    if form != "json":
        headers.append((b"content-language", lang.encode()))
    if tag:
        headers.append((b"etag", tag))
    if version:
        headers.append((b"x-model-version", version.encode()))
        # A header costs the server 0.6 us, so only those get this one who show the form beside the answer.
        if form == "fragment":
            headers.append((b"x-model-features", interface.encode()))
    return headers


def tag_of(content: bytes) -> bytes:
    """Return the entity tag of what depends on more than that."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'.encode()


def entity_tag(model: Classifier, form: Form, lang: str = "en") -> bytes:
    """Return the tag of every prediction in this form and language.

    It depends on its address, the model and our files alone.
    """
    return _tag(model.version, form, lang)


@lru_cache(64)
def _tag(version: str, form: Form, lang: str) -> bytes:
    return f'"{version}-{_files_digest()}-{form}-{lang}"'.encode()


@lru_cache(1)
def _files_digest() -> str:
    files = hashlib.sha256()
    for folder in (TEMPLATES, STATIC, ROOT / "web", ROOT / "ml"):
        for path in sorted(folder.rglob("*.*")):
            if path.suffix != ".pyc":
                files.update(path.read_bytes())
    return files.hexdigest()[:8]
