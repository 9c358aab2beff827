"""What responses are made of: a body, headers that were encoded once, and the entity tag."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response

from ml.classifier import Classifier
from web.negotiation import Form

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "static"
TEMPLATES = ROOT / "templates"
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


@lru_cache(64)
def headers_of(form: Form, tag: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer in this form, with its entity tag if it has one."""
    headers = [(b"vary", b"Accept, HX-Request"), (b"cache-control", b"no-cache"), (b"content-type", _MEDIA_TYPES[form])]
    return [*headers, (b"etag", tag)] if tag else headers


def tag_of(content: bytes) -> bytes:
    """Return the entity tag of what depends on more than that."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'.encode()


@lru_cache(64)
def entity_tag(model: Classifier, form: Form) -> bytes:
    """Return the tag of every prediction in this form: it depends on its address, the model and our files alone."""
    files = hashlib.sha256()
    for folder in (TEMPLATES, STATIC, ROOT / "web", ROOT / "ml"):
        for path in sorted(folder.rglob("*.*")):
            if path.suffix != ".pyc":
                files.update(path.read_bytes())
    return f'"{model.version}-{files.hexdigest()[:8]}-{form}"'.encode()
