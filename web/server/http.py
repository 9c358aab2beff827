"""uvicorn's HTTP protocol, parsed in portions, with bounds for connections, heads, trailers and slow clients."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from web.problems import Problem
from web.server.connections import DeadlineMixin
from web.server.refusing import refusal
from web.server.responding import Cycle
from web.server.transport import MOST_PORTION_BYTES, PacedTransport
from web.settings import Settings

# The shortest header, `a:b` and its line break, takes so many bytes and as long as a chunk.
HEADER_LINE_BYTES = 5
# The memory of a header beside its text: a pair and two bytes objects.
HEADER_BYTES = 128
# The end of a head, and of a chunked body.
END = b"\r\n\r\n"


class HttpProtocol(DeadlineMixin, HttpToolsProtocol):
    """One HTTP connection."""

    transport: Any
    portion_bytes = MOST_PORTION_BYTES
    _in_head = True
    _framing_bytes = 0  # of a head, or of trailers and heads of chunks since the last piece of a body
    _headers_kept = 0  # of the request that came last
    _pieces = 0  # of bodies, in a portion
    _waited_s = 0.0  # for a head, or for the next request
    _ignores_input = False  # the last answer is under way
    _problem: Problem | None = None  # the reason why this connection is not served

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wrap the transport, and register the connection, which may be one too many."""
        super().connection_made(PacedTransport(transport, self.loop, self))  # type: ignore[arg-type]  # it acts as one
        self._problem = self.app_state["connections"].enter(self.transport, self, self.client[0] if self.client else "")

    def data_received(self, data: bytes) -> None:
        """Read bytes: at once if they are few, or else in portions."""
        transport = self.transport
        if self._ignores_input or transport.is_closing():
            return
        if self._problem is not None:
            self.refuse(self._problem)
            return
        self.received_bytes += len(data)
        if (
            len(data) <= self.portion_bytes
            and data.count(END) <= 1
            and transport.is_wanted
            and not transport.held
            and self.is_ready()
        ):
            self.feed(data)
        else:
            transport.hold(data)

    def is_ready(self) -> bool:
        """Return whether more may be parsed: not the next request before the present one is answered.

        Pipelined requests stay bytes until then: parsed, they would take 66 times the memory.
        """
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def end_of_portion(self, held: bytes, place: int) -> int:
        """Return where the next portion ends: with a head, so that a portion has only one."""
        most = min(place + self.portion_bytes, len(held))
        end = held.find(END, place, most)
        return most if end < 0 else end + len(END)

    def feed(self, portion: bytes) -> int:
        """Parse bytes, and refuse invalid HTTP, and heads and trailers that are too long.

        Returns:
            The number of pieces, as a measure of work.
        """
        self._pieces = 0
        try:
            self.parser.feed_data(portion)
        except httptools.HttpParserError:
            self.refuse(Problem(400, "this is not a request in HTTP/1.1"))
            return 1
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            return 1
        if self._pieces:
            self._framing_bytes = 0
            return self._pieces
        if self._in_head or self.cycle.more_body:
            self._framing_bytes += len(portion)
            limit = self._service.settings.max_head_bytes
            if self._framing_bytes > limit:
                part = "head" if self._in_head else "trailer section"
                self.refuse(Problem(431, f"the {part} of the request has more than {limit} bytes"))
            elif not self._in_head:
                self.headers.clear()  # trailers are ignored
        return 1 + len(portion) // HEADER_LINE_BYTES

    def caught_up(self) -> None:
        """Do nothing: all received bytes are parsed."""

    def pending_bytes(self) -> int:
        """Return the size of the data held for this client, in bytes."""
        size: int = self.transport.held_bytes()
        if self._in_head:
            size += self._framing_bytes
        if self.cycle is not None:
            size += len(self.cycle.body)
        return size + (len(self.headers or ()) + self._headers_kept) * HEADER_BYTES

    def refuse(self, problem: Problem) -> None:
        """Answer without the application, and end the connection; if the application answers already, only end it."""
        self._ignores_input = True
        self.transport.drop()
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not (cycle.response_started or self._in_head):
            self.transport.write(refusal(self.app_state, problem, self.client, self.server_state.default_headers))
            self._end()
            return
        self._service.metrics.refused(problem.details.status)
        if cycle.response_started and cycle.more_body:
            self._end()
        else:
            cycle.keep_alive = False

    def _end(self) -> None:
        self.transport.lingering_close = True
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count the bytes and the time of a head."""
        super().on_message_begin()
        self._in_head, self._framing_bytes, self._waited_s = True, 0, 0.0

    def on_headers_complete(self) -> None:
        """End the head of a request."""
        self._in_head = False
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            cycle.__class__ = Cycle  # uvicorn has no setting for this class
            self._headers_kept = len(self.headers)
            self.headers = []  # trailers are no headers of this request

    def on_body(self, body: bytes) -> None:
        """Count and keep a piece of a body: chunks can be as small as a byte."""
        self._pieces += 1
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Continue with the next request. uvicorn would set a timer here, one for each request; see `check_input`."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.transport.parse_soon()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def check_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Answer slow requests with 408, and close idle connections."""
        cycle = self.cycle
        if self._in_head:
            self._waited_s += elapsed_s
            if self._waited_s > (settings.linger_s if self._problem else settings.head_timeout_s):
                if self._framing_bytes:
                    self.refuse(Problem(408, f"the head of the request took more than {settings.head_timeout_s:g} s"))
                else:
                    self.transport.close()  # browsers open spare connections
        elif cycle.more_body:
            if self.flow.read_paused or self.transport.held:
                return
            if cycle.response_complete:
                self._waited_s += elapsed_s
                if self._waited_s > settings.linger_s:
                    self._ignores_input = True
                    self._end()
            elif self.is_too_slow(came, elapsed_s, settings):
                self.refuse(Problem(408, f"the body came in at less than {settings.min_body_rate} bytes a second"))
        elif cycle.response_complete:
            self._slow_s = 0.0
            self._waited_s = 0.0 if came else self._waited_s + elapsed_s
            if self._waited_s > settings.keep_alive_s:
                self.transport.close()
        else:
            self._waited_s = 0.0  # the client waits for the application
