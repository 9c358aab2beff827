"""One request and its response on uvicorn's HTTP protocol: heads made of cached lines, and aborted responses."""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from web.responses import ABORT, CHECK

# The number of cached header lines, checked and encoded; the date among them changes every second.
KEPT_LINES = 256
# These define the framing of the response: uvicorn reads them itself.
_FRAMING = frozenset({b"transfer-encoding", b"connection"})
# These are different in every response.
_UNIQUE = frozenset({b"content-length", b"x-request-id", b"set-cookie"})


class Cycle(RequestResponseCycle):
    """One request and its response, whose head is made of cached lines.

    uvicorn checks every character of every header of every response: a third of the time of a whole response.
    """

    async def send(self, message: Any) -> None:
        """Send the head or a part of the body, or handle a message of our own."""
        kind = message["type"]
        if kind == "http.response.start" and not (self.response_started or self.disconnected or self.flow.write_paused):
            await self._start(message)
        elif kind == ABORT:
            self._abort()
        elif kind == CHECK:
            if self.disconnected:
                raise ClientDisconnect
        else:
            await super().send(message)

    async def _start(self, message: Any) -> None:
        if self.more_body:
            # The client is still sending: let it read the answer before the connection ends.
            self.transport.lingering_close = True  # type: ignore[attr-defined]  # ours
        headers = (*self.default_headers, *message["headers"])
        lines = [_known_line(header) or _line_of(*header) for header in headers]
        length = next((int(value) for name, value in headers if name == b"content-length"), None)
        if length is None or b"" in lines:  # uvicorn frames the response
            await super().send(message)
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        self.expected_content_length = length
        self.chunked_encoding = False
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join((STATUS_LINE[message["status"]], *lines, b"\r\n")))

    def _abort(self) -> None:
        self.response_complete = True  # the rest of the request is discarded
        self.message_event.set()
        self.transport.lingering_close = self.more_body  # type: ignore[attr-defined]  # ours
        self.transport.close()


_lines: dict[tuple[bytes, bytes], bytes] = {}
_known_line = _lines.get


def _line_of(name: bytes, value: bytes) -> bytes:
    """Return the line of a header; empty for those that define the framing of the response."""
    if name.lower() in _FRAMING:
        return b""
    line = b"%b: %b\r\n" % (name, value)
    # Digits and letters need no further check.
    if name in _UNIQUE and value.isalnum():
        return line
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("a header of a response has characters that no header may have")
    if name not in _UNIQUE:
        if len(_lines) >= KEPT_LINES:
            _lines.clear()
        _lines[name, value] = line
    return line
