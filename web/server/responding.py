"""One request and its response on uvicorn's HTTP protocol: heads put together from known lines, and answers cut off."""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from web.responses import CHECK, CUT

# Lines of headers that are kept, checked and joined; the date among them changes every second.
KEPT_LINES = 256
# These say how the response is framed: uvicorn looks at them itself.
_FRAMING = frozenset({b"transfer-encoding", b"connection"})
# These are different in every response.
_UNIQUE = frozenset({b"content-length", b"x-request-id", b"set-cookie"})


class Cycle(RequestResponseCycle):
    """One request and its response, whose head is put together from lines that were checked before.

    uvicorn looks at every character of every header of every response, which took a third of the time of a whole one.
    """

    async def send(self, message: Any) -> None:
        """Send the head or a part of the body, or do what only an application of ours asks for."""
        kind = message["type"]
        if kind == "http.response.start" and not (self.response_started or self.disconnected or self.flow.write_paused):
            await self._start(message)
        elif kind == CUT:
            self._cut()
        elif kind == CHECK:
            if self.disconnected:
                raise ClientDisconnect
        else:
            await super().send(message)

    async def _start(self, message: Any) -> None:
        if self.more_body:
            # The client is still sending: let it read the answer before the connection ends.
            self.transport.is_gentle = True  # type: ignore[attr-defined]  # ours
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

    def _cut(self) -> None:
        self.response_complete = True  # what still comes is not kept
        self.message_event.set()
        self.transport.is_gentle = self.more_body  # type: ignore[attr-defined]  # ours
        self.transport.close()


_lines: dict[tuple[bytes, bytes], bytes] = {}
_known_line = _lines.get


def _line_of(name: bytes, value: bytes) -> bytes:
    """Return the line of a header; none for those that say how the response is framed."""
    if name.lower() in _FRAMING:
        return b""
    line = b"%b: %b\r\n" % (name, value)
    # What is made of digits and letters needs no closer look.
    if name in _UNIQUE and value.isalnum():
        return line
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("a header of a response has characters that no header may have")
    if name not in _UNIQUE:
        if len(_lines) >= KEPT_LINES:
            _lines.clear()
        _lines[name, value] = line
    return line
