"""How large a request body may be, and how much of all bodies together may be held at once."""

from __future__ import annotations

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.problems import Problem
from web.requests import header_of

# Shorter bodies come with their head, or soon after it: only longer ones can be held back in numbers that matter.
_SHORT_BODY = 65_536


class BodyLimit(RequestBodyLimitMiddleware):
    """Starlette's limit, which tells a length that is declared too large in words of its own; here it is a problem.

    Bodies are kept until they are whole, so those of all clients together are bounded as well.
    """

    def __init__(self, app: ASGIApp, *, max_body_size: int, pending: Pending) -> None:
        super().__init__(app, max_body_size=max_body_size)
        self._pending = pending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = header_of(scope, b"content-length")
        # A number of thousands of digits is too large as well, and int() would not read it.
        length = int(declared[:20]) if declared.isdigit() else self.max_body_size
        if length > self.max_body_size:
            raise Problem(413, f"the body has more than {self.max_body_size} bytes")
        if length <= _SHORT_BODY:
            await super().__call__(scope, receive, send)
            return
        taken = 0

        async def receive_counted() -> Message:
            nonlocal taken
            message = await receive()
            size = len(message.get("body", b""))
            taken += size
            self._pending.take(size)
            return message

        try:
            await super().__call__(scope, receive_counted, send)
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
