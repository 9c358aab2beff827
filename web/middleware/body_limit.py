"""Limits of the size of a request body, and of all bodies that are held at once."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.problems import Problem
from web.requests import header_of

# Shorter bodies arrive with their head or soon after it, and are not counted.
_SHORT_BODY = 65_536


class BodyLimit:
    """Middleware that bounds the body of a request, and all bodies together, which are held until complete."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, pending: Pending) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._pending = pending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            Problem: 413, the body is too long; 503, all bodies together are.
        """
        declared = header_of(scope, b"content-length")
        if declared.isdigit():
            # int() refuses a number of thousands of digits, which is too large as well.
            length = int(declared[:20])
            if length > self._max_bytes:
                raise self._too_long()
            if length <= _SHORT_BODY:
                await self._app(scope, receive, send)
                return
        taken = 0

        async def receive_counted() -> Message:
            nonlocal taken
            message = await receive()
            size = len(message.get("body", b""))
            taken += size
            self._pending.take(size)
            if taken > self._max_bytes:
                raise self._too_long()
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._pending.give_back(taken)

    def _too_long(self) -> Problem:
        return Problem(413, f"the body has more than {self._max_bytes} bytes")


class Pending:
    """The bytes of the bodies of all clients that are being read.

    Args:
        most: the largest number of bytes at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    def take(self, size: int) -> None:
        """Count received bytes.

        Raises:
            Problem: 503, they are too many; they count until they are given back.
        """
        self.taken += size
        if self.taken > self.most:
            detail = "too much is being sent to this server at once: try again later"
            raise Problem(503, detail, retry_after_s=1)

    def give_back(self, size: int) -> None:
        """Subtract bytes that are no longer held."""
        self.taken -= size
