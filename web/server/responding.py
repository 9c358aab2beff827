"""One request and its response on uvicorn's HTTP protocol: heads of which most is cached, and aborted responses."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from web.responses import ABORT, CHECK

# The number of cached heads; the date in them changes every second.
KEPT_HEADS = 256
# These define the framing of the response: uvicorn reads them itself.
_FRAMING = frozenset({b"transfer-encoding", b"connection", b"content-length"})


class Cycle(RequestResponseCycle):
    """One request and its response, whose head is cached but for its last two headers, its length and its id.

    uvicorn checks every character of every header of every response: a third of the time of a whole response.
    """

    async def send(self, message: Any) -> None:
        """Send the head or a part of the body, or handle a message of our own."""
        kind = message["type"]
        if kind == ABORT:
            self._abort()
        elif kind == CHECK:
            if self.disconnected:
                raise ClientDisconnect
        elif kind != "http.response.start" or not self._start(message):
            await super().send(message)

    def _start(self, message: Any) -> bool:
        """Send a head that ends with the length and the id of the response; return whether it was one."""
        if self.more_body:
            # The client is still sending: let it read the answer before the connection ends.
            self.transport.lingering_close = True  # type: ignore[attr-defined]  # ours
        if self.response_started or self.disconnected or self.flow.write_paused:
            return False
        headers: list[tuple[bytes, bytes]] = [*self.default_headers, *message["headers"]]
        *shared, (length_name, length), (id_name, request_id) = headers
        if length_name != b"content-length" or id_name != b"x-request-id" or HEADER_VALUE_RE.search(request_id):
            return False
        head = _head_of(message["status"], tuple(shared))
        if not head:
            return False
        self.response_started = True
        self.waiting_for_100_continue = False
        self.expected_content_length = int(length)
        self.chunked_encoding = False
        end = b"" if self.keep_alive else b"connection: close\r\n"
        self.transport.write(
            b"%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n"
            % (head, self.expected_content_length, request_id, end)
        )
        return True

    def _abort(self) -> None:
        self.response_complete = True  # the rest of the request is discarded
        self.message_event.set()
        self.transport.lingering_close = self.more_body  # type: ignore[attr-defined]  # ours
        self.transport.close()


@lru_cache(KEPT_HEADS)
def _head_of(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the first lines of a response; empty for headers that uvicorn frames or refuses."""
    for name, value in headers:
        if name.lower() in _FRAMING or HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
            return b""
    return b"".join((STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers)))
