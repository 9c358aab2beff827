"""uvicorn's protocols on a transport that gathers what is written in one turn of the event loop and bounds what is
parsed in one, with what an application cannot do from inside: bounds for connections, heads, trailers and slow clients,
problems as answers to requests that cannot be read, and no traceback in the log for text that is not UTF-8."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

from web import refusals
from web.connections import CUT, Connections, Watched
from web.gateway import SECURITY_HEADERS
from web.problems import Problem, too_many
from web.settings import Settings

INVALID_TEXT, TOO_SLOW, SERVICE_RESTART, TRY_AGAIN_LATER = 1007, 1008, 1012, 1013
# How long a client may take to confirm that a stream is closed.
CLOSE_TIMEOUT_S = 2.0
# What is written beyond this goes out at once, so that the transport's own limits keep their meaning.
GATHERED_BYTES = 65_536
# After so many pieces (frames, chunks of a body) or bytes of one connection everybody else has a turn. A read brings up
# to 256,000 bytes, and as empty frames these take a third of a second.
PIECES_A_TURN = 128
BYTES_A_TURN = 65_536
# As empty frames the least portion takes about a millisecond.
LEAST_PORTION_BYTES, MOST_PORTION_BYTES = 1_024, 8_192
# The shortest header, `a:b` and its line break, takes so many bytes and as long as a chunk.
HEADER_LINE_BYTES = 5
# What a header takes in memory beside its text: a pair and two texts.
HEADER_BYTES = 128
# The end of a head, and of a chunked body.
END = b"\r\n\r\n"
# Lines of headers that are kept, checked and joined; the date among them changes every second.
KEPT_LINES = 256
# These say how the response is framed: uvicorn looks at them itself.
_FRAMING = frozenset({b"transfer-encoding", b"connection"})
# These are different in every response.
_UNIQUE = frozenset({b"content-length", b"x-request-id", b"set-cookie"})


class PacedTransport:
    """A transport that hands on the writes of one turn of the event loop as one, and bounds what is parsed in one.

    The head and the body of a response, or the replies to frames that came together, then take one system call and wake
    the client once: measured 1.5 times as many single samples a second on a stream.

    What is read is parsed in portions. When the protocol wants no more, or has had its share of a turn, the rest is
    held, nothing more is read, and a later turn goes on. So what a client has sent ahead stays bytes, and most of it
    with the operating system.

    Attributes:
        protocol: what parses: it changes when a connection becomes a websocket.
        held: bytes that were read and are not parsed yet, from `place` on.
        is_wanted: whether the protocol takes more: what uvicorn calls reading. Only while something is held is reading
            from the socket really paused, which would take two system calls with every message.
        is_gentle: whether `close` waits for the client to close as well. What it still sends when a connection is
            simply closed has the operating system reset the connection, and the client may never read the answer.
    """

    is_gentle = False
    is_wanted = True
    held = b""
    place = 0
    _is_scheduled = False
    _is_reading = True
    _pieces = _portions_size = 0  # since the last turn that began with what was held

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, protocol: HttpProtocol | StreamProtocol
    ) -> None:
        self.protocol = protocol
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []
        self._size = 0
        # Asked for with every message: found here, they do not pass through __getattr__.
        self.is_closing: Callable[[], bool] = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        """Hand on no more."""
        self.is_wanted = False

    def resume_reading(self) -> None:
        """Hand on again: first what is held, at once unless the share of a turn is used up."""
        self.is_wanted = True
        if self.held and not self._is_scheduled:
            self._go_on()

    def hold(self, data: bytes) -> None:
        """Take what was read, and hand on of it what may be parsed in this turn."""
        is_first = not self.held
        self.held, self.place = self.held[self.place :] + data, 0
        if is_first:
            self._go_on()

    def drop(self) -> None:
        """Forget what is held."""
        self.held, self.place = b"", 0

    def held_bytes(self) -> int:
        """Return how much is kept of what was read and of what was written."""
        return len(self.held) - self.place + self._size + self._transport.get_write_buffer_size()

    def go_on_soon(self) -> None:
        """Hand on what is held in a later turn, if the protocol then takes it."""
        if self.held and not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_scheduled = False
        self._pieces = self._portions_size = 0
        self._go_on()

    def _go_on(self) -> None:
        while self.held:
            protocol = self.protocol
            if self.is_closing():
                self.drop()
                break
            if not self.is_wanted or not protocol.is_ready():
                break
            if self._pieces > PIECES_A_TURN or self._portions_size > BYTES_A_TURN:
                self.go_on_soon()
                break
            place, self.place = self.place, protocol.end_of_portion(self.held, self.place)
            self._portions_size += self.place - place
            portion = self.held[place : self.place]
            if self.place == len(self.held):
                self.drop()
            self._pieces += protocol.feed(portion)
        if not self.held:
            self.protocol.caught_up()
        if self._is_reading != (not self.held) and not self.is_closing():
            self._is_reading = not self.held
            if self._is_reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

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
        self.drop()
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

    The state that the application's lifespan yields has the settings and the connections of the process.
    """

    transport: Any
    portion_bytes = MOST_PORTION_BYTES
    _in_head = True
    _framing_bytes = 0  # of a head, or of trailers and heads of chunks since the last piece of a body
    _headers_kept = 0  # of the request that came last
    _pieces = 0  # of bodies, in a portion
    _waited_s = 0.0  # for a head, or for the next request
    _ignores_input = False  # the last answer is under way
    _problem: Problem | None = None  # why this connection is not served

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Put our transport in between, and find out whether the connection is one too many."""
        super().connection_made(PacedTransport(transport, self.loop, self))  # type: ignore[arg-type]  # it acts as one
        connections: Connections = self.app_state["connections"]
        self._problem = connections.enter(self.transport, self, self.client[0] if self.client else "")

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for others."""
        self.app_state["connections"].leave(self.transport)
        super().connection_lost(exc)

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
        """Tell whether more may be parsed: not the next request before the one that has come is answered.

        What a client sends ahead then stays bytes: as requests it would take 66 times their memory.
        """
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def end_of_portion(self, held: bytes, place: int) -> int:
        """Return where the next portion ends: with a head, so that a portion has only one."""
        most = min(place + self.portion_bytes, len(held))
        end = held.find(END, place, most)
        return most if end < 0 else end + len(END)

    def feed(self, portion: bytes) -> int:
        """Parse, and give up on what is not HTTP, and on heads and trailers that are too long.

        Returns:
            How many pieces there were, as a measure of work.
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
            limit = self.app_state["settings"].max_head_bytes
            if self._framing_bytes > limit:
                part = "head" if self._in_head else "trailer section"
                self.refuse(Problem(431, f"the {part} of the request has more than {limit} bytes"))
            elif not self._in_head:
                self.headers.clear()  # trailers say nothing that is needed here
        return 1 + len(portion) // HEADER_LINE_BYTES

    def caught_up(self) -> None:
        """Do nothing: all that was read is parsed."""

    def pending_bytes(self) -> int:
        """Return how much is held for this client."""
        size: int = self.transport.held_bytes()
        if self._in_head:
            size += self._framing_bytes
        if self.cycle is not None:
            size += len(self.cycle.body)
        return size + (len(self.headers or ()) + self._headers_kept) * HEADER_BYTES

    def refuse(self, problem: Problem) -> None:
        """Answer without the application, and end the connection; while it answers, only end it."""
        self._ignores_input = True
        self.transport.drop()
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not (cycle.response_started or self._in_head):
            self.transport.write(_refusal(self, problem, self.server_state.default_headers))
            self._end()
            return
        self.app_state["metrics"].refused(problem.details.status)
        if cycle.response_started and cycle.more_body:
            self._end()
        else:
            cycle.keep_alive = False

    def _end(self) -> None:
        self.transport.is_gentle = True
        self.transport.close()

    def on_message_begin(self) -> None:
        """Start to count."""
        super().on_message_begin()
        self._in_head, self._framing_bytes, self._waited_s = True, 0, 0.0

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._in_head = False
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            cycle.__class__ = Cycle  # uvicorn names its own class where it makes one
            self._headers_kept = len(self.headers)
            self.headers = []  # trailers are no headers of this request

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body: in chunks they can be of a byte each."""
        self._pieces += 1
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on with the next request. uvicorn would set a timer here, one for each request; see `look_at_input`."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.transport.go_on_soon()
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
                if self._framing_bytes:
                    self.refuse(Problem(408, f"the head of the request took more than {settings.head_timeout_s:g} s"))
                else:
                    self.transport.close()  # a browser opens connections that it may never need
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
            self._waited_s = 0.0  # it is our turn


class StreamProtocol(Watched, WebSocketsSansIOProtocol):
    """One websocket, on the transport of the HTTP connection that it began as."""

    transport: Any
    frames: Any  # of a message that is not whole yet, as one bytearray
    portion_bytes = LEAST_PORTION_BYTES
    _is_ending = False
    _is_ended = False
    _payload_bytes = 0  # of messages, in whole frames
    _seen_payload_bytes = 0  # of these and of what came of the next frame, what was there at the last look
    _queued_bytes = 0  # of messages that the application has not taken

    def connection_made(self, transport: Any) -> None:
        """Go on with a connection that was taken in before."""
        super().connection_made(transport)
        transport.protocol = self
        transport.drop()  # a client must wait for the answer to its handshake (RFC 6455, section 4.1)
        self.app_state["connections"].go_on(transport, self)

    def data_received(self, data: bytes) -> None:
        """Read bytes: at once if they are few, or else in portions; a handshake is bounded by HTTP."""
        transport = self.transport
        if self.close_sent and transport.is_closing():
            return
        self.received_bytes += len(data)
        if not self.handshake_initiated or (
            len(data) <= self.portion_bytes and transport.is_wanted and not transport.held and self.writable.is_set()
        ):
            self.feed(data)
        else:
            transport.hold(data)

    def is_ready(self) -> bool:
        """Tell whether more may be parsed: not while the client does not read, or answers to pings would pile up."""
        return self.writable.is_set()

    def end_of_portion(self, held: bytes, place: int) -> int:
        """Return where the next portion ends."""
        return min(place + self.portion_bytes, len(held))

    def feed(self, portion: bytes) -> int:
        """Parse, and refuse a handshake that the parser gave up on; uvicorn would leave it without an answer.

        Returns:
            How many frames there were, as a measure of work.
        """
        self.conn.receive_data(portion)
        frames = len(self.conn.events)
        # Within a large frame there is nothing to be counted.
        self.portion_bytes = LEAST_PORTION_BYTES if frames else min(2 * self.portion_bytes, MOST_PORTION_BYTES)
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        elif frames:
            self.handle_events()
        if self.conn.handshake_exc is not None and not self.handshake_complete and not self.transport.is_closing():
            problem = Problem(400, "this is not the handshake of a websocket")
            self.transport.write(_refusal(self, problem, self.default_headers))
            self.transport.is_gentle = True
            self.transport.close()
        return frames

    def handle_events(self) -> None:
        """Handle frames; those that are no message by themselves count for the rate as well.

        The application counts messages, and answers those that are too many. Nothing answers a ping, a pong or a
        fragment that is one too many, so the stream is closed.
        """
        extra = 0
        for frame in self.conn.events:
            if not isinstance(frame, Frame):
                continue
            if frame.opcode is Opcode.PING or frame.opcode is Opcode.PONG:
                extra += 1
            else:
                self._payload_bytes += len(frame.data)
                extra += not frame.fin
        super().handle_events()
        if extra and not self.close_sent:
            take, client = self.app_state["service"].rates.take, self.scope["client"]
            address = client[0] if client else ""
            for _ in range(extra):
                if wait_s := take(address):
                    self.app_state["metrics"].refused(429)
                    self._fail(TRY_AGAIN_LATER, too_many(wait_s, "frames").details.detail)
                    break

    def handle_text(self, event: Frame) -> None:
        """Take a message of text, or its first fragment."""
        super().handle_text(event)
        if not event.fin:
            self.frames = [bytearray(event.data)]

    def handle_bytes(self, event: Frame) -> None:
        """Take a binary message, or its first fragment."""
        super().handle_bytes(event)
        if not event.fin:
            self.frames = [bytearray(event.data)]

    def handle_cont(self, event: Frame) -> None:
        """Take another fragment: in a list of its own each would take 70 bytes beside its text."""
        self.frames[0] += event.data
        if event.fin:
            self.frames = [bytes(self.frames[0])]
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer the pings of a portion, all with one write."""
        if output := self.conn.data_to_send():
            self.transport.write(b"".join(output))

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
            if not self.transport.held:
                self.caught_up()
        else:
            super().shutdown()

    def caught_up(self) -> None:
        """End the stream if it is to end: behind all that has come, which the application answers first."""
        if self._is_ending and not self._is_ended:
            self._is_ended = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVICE_RESTART})

    def resume_writing(self) -> None:
        """Go on sending: the client has read."""
        self.has_read()
        super().resume_writing()
        self.transport.go_on_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for others."""
        self.app_state["connections"].leave(self.transport)
        super().connection_lost(exc)

    def look_at_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Close a stream on which a message comes in too slowly; between messages it may be silent for long.

        What comes is counted by its content: fragments without any, and pings among them, would keep it open for ever.
        """
        before = self._seen_payload_bytes
        self._seen_payload_bytes = self._payload_bytes + len(self.conn.reader.buffer)
        if self.read_paused or not (self.frames or self.conn.reader.buffer):
            self._slow_s = 0.0
        elif self.is_too_slow(max(0, self._seen_payload_bytes - before), elapsed_s, settings):
            self._fail(TOO_SLOW, "the message came in too slowly")

    def pending_bytes(self) -> int:
        """Return how much is held for this client."""
        size: int = self.transport.held_bytes() + len(self.conn.reader.buffer) + sum(map(len, self.frames))
        return size + self._queued_bytes if self.read_paused else size

    def give_up(self) -> None:
        """Close because all connections together hold too much."""
        self._fail(TRY_AGAIN_LATER, "too much is being sent to this server at once")

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        self.transport.drop()
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the application, unless it is text that is not UTF-8."""
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames[0]):
            self.frames = []
            self.conn.send_close(INVALID_TEXT)
            self.handle_parser_exception()
            return
        size = len(self.frames[0])
        self._queued_bytes = self._queued_bytes + size if self.read_paused else size
        super().send_receive_event_to_app()


def _refusal(
    protocol: HttpProtocol | StreamProtocol, problem: Problem, default_headers: list[tuple[bytes, bytes]]
) -> bytes:
    """Return the answer to what never comes to the application; it is counted, gets an id, and is named in the log."""
    state = protocol.app_state
    request_id = state["service"].request_ids.new()
    state["metrics"].refused(problem.details.status)
    state["connections"].log_refusal(problem, protocol.client[0] if protocol.client else "", request_id)
    headers = [*default_headers, *SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
    return refusals.on_the_wire(problem, headers)


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
