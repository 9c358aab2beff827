"""uvicorn's protocols on a transport that gathers what is written in one turn of the event loop, with what an
application cannot do from inside: bounds for connections, heads and slow clients, problems as answers to requests that
cannot be read, and no traceback in the log for text that is not UTF-8."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from web import responses
from web.middleware.gateway import SECURITY_HEADERS
from web.problems import Problem
from web.responses import CHECK, CUT
from web.server.connections import Connections, Watched
from web.service import Service
from web.settings import Settings

INVALID_TEXT, TOO_SLOW, SERVICE_RESTART, TRY_AGAIN_LATER = 1007, 1008, 1012, 1013
# How long a client may take to confirm that a stream is closed.
CLOSE_TIMEOUT_S = 2.0
# What is written beyond this goes out at once, so that the transport's own limits keep their meaning.
GATHERED_BYTES = 65_536
# Lines of headers that are kept, checked and joined; the date among them changes every second.
KEPT_LINES = 256
# These say how the response is framed: uvicorn looks at them itself.
_FRAMING = frozenset({b"transfer-encoding", b"connection"})
# These are different in every response.
_UNIQUE = frozenset({b"content-length", b"x-request-id", b"set-cookie"})


class GatheringTransport:
    """A transport that hands on the writes of one turn of the event loop as one.

    The head and the body of a response, or the replies to frames that came together, then take one system call and wake
    the client once: measured 1.5 times as many single samples a second on a stream.

    Attributes:
        is_gentle: whether `close` waits for the client to close as well. What it still sends when a connection is
            simply closed has the operating system reset the connection, and the client may never read the answer.
    """

    is_gentle = False

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []
        self._size = 0
        # Asked for with every message: found here, they do not pass through __getattr__.
        self.is_closing: Callable[[], bool] = transport.is_closing
        self.pause_reading: Callable[[], None] = transport.pause_reading
        self.resume_reading: Callable[[], None] = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Take bytes; they leave at the end of this turn."""
        if not self._parts:
            self._call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand on what was gathered."""
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            if not self.is_closing():
                self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        """Hand on what was gathered, then close."""
        self.flush()
        if not self.is_gentle:
            self._transport.close()
        elif not self.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()  # or the client's end would not be seen
            self.is_closing = _yes


def _yes() -> bool:
    return True


class Cycle(RequestResponseCycle):
    """One request and its response, whose head is put together from lines that were checked before.

    uvicorn looks at every character of every header of every response, which took a third of the time of a whole one.
    """

    async def send(self, message: Any) -> None:
        """Send the head or a part of the body."""
        if (
            message["type"] != "http.response.start"
            or self.response_started
            or self.disconnected
            or self.flow.write_paused
        ):
            if message["type"] == CUT:
                self._cut()
                return
            if message["type"] == CHECK:
                if self.disconnected:
                    raise ClientDisconnect
                return
            await super().send(message)
            return
        if self.more_body:
            # The client is still sending: let it read the answer before the connection ends.
            self.transport.is_gentle = True  # type: ignore[attr-defined]  # ours
        headers = (*self.default_headers, *message["headers"])
        content = [STATUS_LINE[message["status"]], *map(_known_line, headers)]
        length = None
        place = 0
        for _ in range(content.count(None)):
            place = content.index(None, place)
            header = headers[place - 1]
            name = header[0].lower()
            if name in _FRAMING:
                length = None
                break
            content[place] = _line_of(*header)
            if name == b"content-length":
                length = int(header[1])
        if length is None:
            await super().send(message)
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        self.expected_content_length = length
        self.chunked_encoding = False
        if not self.keep_alive:
            content.append(b"connection: close\r\n")
        content.append(b"\r\n")
        self.transport.write(b"".join(content))  # type: ignore[arg-type]  # None is no longer among them

    def _cut(self) -> None:
        self.response_complete = True  # what still comes is not kept
        self.message_event.set()
        self.transport.is_gentle = self.more_body  # type: ignore[attr-defined]  # ours
        self.transport.close()


_lines: dict[tuple[bytes, bytes], bytes] = {}
_known_line = _lines.get


def _line_of(name: bytes, value: bytes) -> bytes:
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


class HttpProtocol(Watched, HttpToolsProtocol):
    """One HTTP connection.

    The state that the application's lifespan yields has the service and the connections of the process.
    """

    transport: Any
    _in_head = True
    _head_bytes = 0
    _waited_s = 0.0  # for a head, or for the next request
    _is_deaf = False  # no more is read: the last answer is under way
    _problem: Problem | None = None  # why this connection is not served

    @property
    def _service(self) -> Service:
        service: Service = self.app_state["service"]
        return service

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Write through a gathering transport, and find out whether the connection is one too many."""
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]  # it acts as one
        connections: Connections = self.app_state["connections"]
        self._problem = connections.enter(self.transport, self, self.client[0] if self.client else "")

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for others."""
        self.app_state["connections"].leave(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read bytes, and give up on a head that is too long."""
        if self._is_deaf:
            return
        if self._problem is not None:
            self.refuse(self._problem)
            return
        self.received_bytes += len(data)
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            limit = self._service.settings.max_head_bytes
            if self._head_bytes > limit:
                self.refuse(Problem(431, f"the head of the request has more than {limit} bytes"))

    def refuse(self, problem: Problem) -> None:
        """Answer without the application, and end the connection; while it answers, only end it."""
        self._is_deaf = True
        self._service.metrics.refused(problem.details.status)
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not (cycle.response_started or self._in_head):
            headers = [*self.server_state.default_headers, *SECURITY_HEADERS]
            self.transport.write(responses.on_the_wire(problem, headers))
            self._end()
        elif cycle.response_started and cycle.more_body:
            self._end()
        else:
            cycle.keep_alive = False

    def _end(self) -> None:
        self.transport.is_gentle = True
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self.refuse(Problem(400, "this is not a request in HTTP/1.1"))

    def on_message_begin(self) -> None:
        """Start to count."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._waited_s = True, 0, 0.0

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._in_head = False
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.__class__ = Cycle  # uvicorn names its own class where it makes one

    def on_response_complete(self) -> None:
        """Go on with the next request. uvicorn would set a timer here, one for each request; see `look_at_input`."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def resume_writing(self) -> None:
        """Go on sending: the client has read."""
        self.has_read()
        super().resume_writing()

    def look_at_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Answer 408 to what comes in too slowly, and close what is idle."""
        cycle = self.cycle
        if self._in_head:
            self._waited_s += elapsed_s
            if self._waited_s > (settings.linger_s if self._problem else settings.head_timeout_s):
                if self._head_bytes:
                    self.refuse(Problem(408, f"the head of the request took more than {settings.head_timeout_s:g} s"))
                else:
                    self.transport.close()  # a browser opens connections that it may never need
        elif cycle.more_body:
            if self.flow.read_paused:
                return
            if cycle.response_complete:
                self._waited_s += elapsed_s
                if self._waited_s > settings.linger_s:
                    self._is_deaf = True
                    self._end()
            elif self.is_too_slow(came, elapsed_s, settings):
                self.refuse(Problem(408, f"the body came in at less than {settings.min_body_rate} bytes a second"))
        elif cycle.response_complete:
            self._slow_s = 0.0
            self._waited_s = 0.0 if came else self._waited_s + elapsed_s
            if self._waited_s > settings.keep_alive_s:
                self.transport.close()
        else:
            self._waited_s = 0.0  # it is our turn


class StreamProtocol(Watched, WebSocketsSansIOProtocol):
    """One websocket, on the transport of the HTTP connection that it began as."""

    transport: Any
    _is_ending = False

    @property
    def _service(self) -> Service:
        service: Service = self.app_state["service"]
        return service

    def connection_made(self, transport: Any) -> None:
        """Go on with a connection that was taken in before."""
        super().connection_made(transport)
        self.app_state["connections"].go_on(transport, self)

    def data_received(self, data: bytes) -> None:
        """Read bytes, and refuse a handshake that the parser gave up on; uvicorn would leave it without an answer."""
        if self.close_sent and self.transport.is_closing():
            return
        self.received_bytes += len(data)
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_complete and not self.transport.is_closing():
            problem = Problem(400, "this is not the handshake of a websocket")
            self._service.metrics.refused(problem.details.status)
            self.transport.write(responses.on_the_wire(problem, [*self.default_headers, *SECURITY_HEADERS]))
            self.transport.is_gentle = True
            self.transport.close()

    def keepalive_timeout(self) -> None:
        """Give up on a client that does not answer pings."""
        super().keepalive_timeout()
        self._part()

    def handle_parser_exception(self) -> None:
        """Give up on a client that does not speak the protocol, and let it read why."""
        self.transport.is_gentle = True
        super().handle_parser_exception()
        self._part()

    def _part(self) -> None:
        # uvicorn has closed, which the application cannot know yet: its next message finds the client gone, where
        # uvicorn would take it for a mistake and log a traceback.
        self.disconnected = self.disconnected or self.close_sent

    async def run_asgi(self) -> None:
        """Run the application, and close for a restart once it has answered what had come."""
        application = self.app
        # A server that is about to end asks to be left after each response, which is not for a handshake to say.
        self.default_headers = [header for header in self.default_headers if header[0] != b"connection"]

        async def run(scope: Any, receive: Any, send: Any) -> None:
            await application(scope, receive, send)
            if self._is_ending and not self.disconnected and not self.close_sent:
                self.close_timeout = CLOSE_TIMEOUT_S
                # With a closing handshake: closing a connection that has unread bytes would take the answers with it.
                await send({"type": "websocket.close", "code": SERVICE_RESTART})
            if self.initial_response is not None and self.close_sent:
                self.handshake_complete = True  # uvicorn would log a refusal as a mistake

        self.app = run
        try:
            await super().run_asgi()
        finally:
            self.app = application

    def shutdown(self) -> None:
        """Close for a restart; a client that does not read would keep everybody waiting."""
        if not self.writable.is_set():
            self.transport.abort()
        elif self.handshake_complete and not self.close_sent:
            self.stop_keepalive()
            self._is_ending = True
            # Behind all that has come: the application answers that first.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVICE_RESTART})
        else:
            super().shutdown()

    def resume_writing(self) -> None:
        """Go on sending: the client has read."""
        self.has_read()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for others."""
        self.app_state["connections"].leave(self.transport)
        super().connection_lost(exc)

    def look_at_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Close a stream on which a message comes in too slowly; between messages it may be silent for long."""
        if self.read_paused or not self.pending_bytes():
            self._slow_s = 0.0
        elif self.is_too_slow(came, elapsed_s, settings):
            self._fail(TOO_SLOW, "the message came in too slowly")

    def pending_bytes(self) -> int:
        """Return how much is kept of a message that is not whole yet."""
        return len(self.conn.reader.buffer) + sum(map(len, self.frames))

    def give_up(self) -> None:
        """Close because all connections together hold too much."""
        self._fail(TRY_AGAIN_LATER, "too much is being sent to this server at once")

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the application, unless it is text that is not UTF-8."""
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self.frames = []
            self.conn.send_close(INVALID_TEXT)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()


def _is_utf8(parts: list[bytes]) -> bool:
    text = parts[0] if len(parts) == 1 else b"".join(parts)
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
