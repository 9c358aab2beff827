"""The files that the page loads, read and compressed once, when the service starts.

Starlette's StaticFiles opens and compresses a file for every request, and waits for threads in between: a thousand
clients that asked for files at once let all others wait for seconds.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from web.middleware.compression import LEAST_BYTES, takes_gzip
from web.requests import bounded, header_of, is_known
from web.settings import STATIC

HTMX = "htmx-2.min.js"
# What app.js imports, before or after the browser has seen that it does. The modules of a file come with the first one.
MODULES = tuple(f"{name}.js" for name in ("form", "fields", "text", "answer", "address", "gestures", "entry"))
# Pictures are compressed already.
_COMPRESSIBLE = {"text/css", "text/javascript"}


class File:
    """One file, as an ASGI application.

    Attributes:
        address: of the file with its digest, relative to the page: a new file has a new address. Modules import each
            other by their names, so they are in one folder, which has the digest of all of them.
    """

    def __init__(self, file: Path) -> None:
        self._content = file.read_bytes()
        digest = hashlib.sha256(self._content).hexdigest()
        is_module = file.parent == STATIC and file.suffix == ".js"
        self.address = f"static/{_release()}/{file.name}" if is_module else f"static/{file.name}?v={digest[:12]}"
        self._own = f"/{self.address}".encode()
        self._tag = f'"{digest[:16]}"'.encode()
        media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        charset = "; charset=utf-8" if media_type in _COMPRESSIBLE else ""
        self._headers = [
            (b"content-type", f"{media_type}{charset}".encode()),
            (b"etag", b"W/" + self._tag),
            (b"vary", b"Accept-Encoding"),
        ]
        is_large = media_type in _COMPRESSIBLE and len(self._content) >= LEAST_BYTES
        self._packed = gzip.compress(self._content, mtime=0) if is_large else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, compressed to clients that accept it."""
        # Only the address with the digest of this very file: a page of another release asks for another one.
        query = scope["query_string"]
        is_own = (scope["path"].encode() + (b"?" + query if query else b"")).endswith(self._own)
        caching = b"public, max-age=31536000, immutable" if is_own else b"no-cache"
        headers = [*self._headers, (b"cache-control", caching)]
        body = self._content
        if is_known(scope, self._tag):
            status, body = 304, b""
        else:
            status = 200
            if self._packed is not None and takes_gzip(bounded(header_of(scope, b"accept-encoding"))):
                body = self._packed
                headers.append((b"content-encoding", b"gzip"))
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


@cache
def _release() -> str:
    """Return the digest of all modules together."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(STATIC.glob("*.js")))).hexdigest()[:12]


@cache
def file(name: str) -> File:
    """Return a file of the folder `static/`, or htmx."""
    return File((_htmx_folder() if name == HTMX else STATIC) / name)


def _htmx_folder() -> Path:
    package = find_spec("django_htmx")  # importing it would load Django
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "static/django_htmx"


def routes() -> list[Route]:
    """Return a route to each file, and to each module in the folder of any release: a page of another one is served."""
    names = [path.name for path in STATIC.iterdir() if path.name[0] != "." and path.is_file()]
    paths = [*names, HTMX, *(f"{{release}}/{name}" for name in names if name.endswith(".js"))]
    return [Route(f"/static/{path}", file(path.rpartition("/")[2]), methods=["GET"]) for path in paths]


async def favicon(request: Request) -> Response:
    """GET /favicon.ico: the address at which browsers look for the icon of responses other than pages."""
    return RedirectResponse("static/favicon.svg", status_code=308)
