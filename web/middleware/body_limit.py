"""How large a request body may be, and how much of all bodies together may be held at once."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.problems import Problem
from web.requests import header_of

# Shorter bodies come with their head, or soon after it: only longer ones can be held back in numbers that matter.
_SHORT_BODY = 65_536


class BodyLimit:
    """Middleware that bounds the body of a request, and those of all clients together: they are kept until whole."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, pending: Pending) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._pending = pending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            Problem: 413, the body is too long; 503, all bodies together are.
        """
        too_long = Problem(413, f"the body has more than {self._max_bytes} bytes")
        declared = header_of(scope, b"content-length")
        if declared.isdigit():
            # A number of thousands of digits is too large as well, and int() would not read it.
            length = int(declared[:20])
            if length > self._max_bytes:
                raise too_long
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
                raise too_long
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._pending.give_back(taken)


class Pending:
    """The bytes of the bodies of all clients that are being read.

    Args:
        most: how many there may be at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    def take(self, size: int) -> None:
        """Count bytes that have come.

        Raises:
            Problem: 503, with them there are too many; they count all the same until they are given back.
        """
        self.taken += size
        if self.taken > self.most:
            detail = "too much is being sent to this server at once: try again later"
            raise Problem(503, detail, retry_after_s=1)

    def give_back(self, size: int) -> None:
        """Count bytes that are not kept any more."""
        self.taken -= size
