"""What every request and every websocket handshake passes first and every response passes last, as pure ASGI
middleware: request ids and security headers."""

from __future__ import annotations

import re
import secrets
from itertools import count

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing unsafe, nothing from elsewhere. `connect-src 'self'` admits the page's own websocket.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
# An id that a client or a proxy sends is taken over if it is no more than a word: it goes into headers and logs.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Gateway:
    """Stands around the whole application.

    The id of a request is in `scope["state"]["request_id"]`, and in the header `X-Request-ID` of its response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = b"%s-%x" % (self._prefix.encode(), next(self._numbers))
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    *SECURITY_HEADERS,
                    (b"x-request-id", request_id),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)
