"""uvicorn's websocket protocol, parsed in portions, with bounds for frames and slow clients.

Text that is not UTF-8, broken frames and vanished clients leave no traceback in the log.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidHandshake, InvalidHeader, InvalidUpgrade
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from web.problems import Problem, too_many
from web.server.connections import DeadlineMixin
from web.server.refusing import refusal
from web.server.transport import LEAST_PORTION_BYTES, MOST_PORTION_BYTES
from web.settings import Settings

INVALID_TEXT, TOO_SLOW, SERVICE_RESTART, TRY_AGAIN_LATER = 1007, 1008, 1012, 1013
# The longest time for the client's side of a closing handshake.
CLOSE_TIMEOUT_S = 2.0


class StreamProtocol(DeadlineMixin, WebSocketsSansIOProtocol):
    """One websocket, on the transport of the HTTP connection that it began as."""

    transport: Any
    frames: Any  # of an incomplete message, as one bytearray
    portion_bytes = LEAST_PORTION_BYTES
    _is_ending = False
    _is_ended = False
    _payload_bytes = 0  # of messages, in whole frames
    _seen_payload_bytes = 0  # of these and of the incomplete next frame, at the last check
    _queued_bytes = 0  # of messages that the application has not received yet

    def connection_made(self, transport: Any) -> None:
        """Take over a registered connection from its HTTP protocol."""
        super().connection_made(transport)
        transport.protocol = self
        transport.drop()  # a client must wait for the answer to its handshake (RFC 6455, section 4.1)
        self.app_state["connections"].hand_over(transport, self)

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
        """Return whether more may be parsed: not while the client does not read, or answers to pings would pile up."""
        return self.writable.is_set()

    def end_of_portion(self, held: bytes, place: int) -> int:
        """Return where the next portion ends."""
        return min(place + self.portion_bytes, len(held))

    def feed(self, portion: bytes) -> int:
        """Parse bytes, and refuse an invalid handshake, which uvicorn would leave without an answer.

        Returns:
            The number of frames, as a measure of work.
        """
        self.conn.receive_data(portion)
        frames = len(self.conn.events)
        # Within a large frame there is nothing to count.
        self.portion_bytes = LEAST_PORTION_BYTES if frames else min(2 * self.portion_bytes, MOST_PORTION_BYTES)
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        elif frames:
            self.handle_events()
        if self.conn.handshake_exc is not None and not self.handshake_complete and not self.transport.is_closing():
            self._refuse(Problem(400, "this is not the handshake of a websocket"))
        return frames

    def handle_connect(self, event: Request) -> None:
        """Open a stream; the library's own refusal of a handshake would have no id and not be counted."""
        try:
            self.conn.process_request(event)
        except InvalidHandshake as error:
            self._refuse(_handshake_problem(error))
        else:
            super().handle_connect(event)

    def _refuse(self, problem: Problem) -> None:
        self.transport.write(refusal(self.app_state, problem, self.client, self.default_headers))
        self.transport.lingering_close = True
        self.transport.close()

    def handle_events(self) -> None:
        """Handle frames, and count pings, pongs and fragments for the rate limit.

        The application counts messages, and answers surplus ones with an error. Pings, pongs and fragments have no
        such answer, so the stream is closed.
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
            take, client = self._service.rates.take, self.scope["client"]
            address = client[0] if client else ""
            for _ in range(extra):
                if wait_s := take(address):
                    self._service.metrics.refused(429)
                    self._fail(TRY_AGAIN_LATER, too_many(wait_s, "frames").details.detail)
                    break

    def handle_text(self, event: Frame) -> None:
        """Handle a text message, or its first fragment."""
        super().handle_text(event)
        if not event.fin:
            self.frames = [bytearray(event.data)]

    def handle_bytes(self, event: Frame) -> None:
        """Handle a binary message, or its first fragment."""
        super().handle_bytes(event)
        if not event.fin:
            self.frames = [bytearray(event.data)]

    def handle_cont(self, event: Frame) -> None:
        """Append another fragment: in a list each would take 70 bytes beside its content."""
        self.frames[0] += event.data
        if event.fin:
            self.frames = [bytes(self.frames[0])]
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer the pings of a portion, all with one write."""
        if output := self.conn.data_to_send():
            self.transport.write(b"".join(output))

    def keepalive_timeout(self) -> None:
        """Close the stream of a client that does not answer pings."""
        super().keepalive_timeout()
        self._mark_closed()

    def handle_parser_exception(self) -> None:
        """Close the stream of a client that violates the protocol, and let it read the reason."""
        self.transport.lingering_close = True
        super().handle_parser_exception()
        self._mark_closed()

    def _mark_closed(self) -> None:
        # uvicorn has closed, which the application cannot know yet: its next message must find the client disconnected,
        # or uvicorn would log a traceback.
        self.disconnected = self.disconnected or self.close_sent

    async def run_asgi(self) -> None:
        """Run the application, and close for a restart once it has answered all received messages."""
        application = self.app
        # A draining server closes connections after each response; a handshake must not announce that.
        self.default_headers = [header for header in self.default_headers if header[0] != b"connection"]

        async def run(scope: Any, receive: Any, send: Any) -> None:
            # Nothing that it sends shows it during the work for one frame.
            scope["state"]["has_left"] = lambda: self.disconnected
            await application(scope, receive, send)
            if self._is_ending and not self.disconnected and not self.close_sent:
                self.close_timeout = CLOSE_TIMEOUT_S
                # With a closing handshake: closing a connection that has unread bytes would take the answers with it.
                await send({"type": "websocket.close", "code": SERVICE_RESTART})
            if self.initial_response is not None and self.close_sent:
                self.handshake_complete = True  # uvicorn would log a refusal as an error

        self.app = run
        try:
            await super().run_asgi()
        finally:
            self.app = application

    def shutdown(self) -> None:
        """Close for a restart; abort the connection of a client that does not read."""
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
        """End a closing stream after the messages that were received, which the application answers first."""
        if self._is_ending and not self._is_ended:
            self._is_ended = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVICE_RESTART})

    def resume_writing(self) -> None:
        """Continue sending: the client has read."""
        super().resume_writing()
        self.transport.parse_soon()

    def check_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Close a stream on which a message arrives too slowly; silence between messages is allowed.

        Only content counts: empty fragments, and pings among them, would keep the stream open for ever.
        """
        before = self._seen_payload_bytes
        self._seen_payload_bytes = self._payload_bytes + len(self.conn.reader.buffer)
        if self.read_paused or not (self.frames or self.conn.reader.buffer):
            self._slow_s = 0.0
        elif self.is_too_slow(max(0, self._seen_payload_bytes - before), elapsed_s, settings):
            self._fail(TOO_SLOW, "the message came in too slowly")

    def pending_bytes(self) -> int:
        """Return the size of the data held for this client, in bytes."""
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
        """Pass a message to the application, unless it is text that is not UTF-8."""
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames[0]):
            self.frames = []
            self.conn.send_close(INVALID_TEXT)
            self.handle_parser_exception()
            return
        size = len(self.frames[0])
        self._queued_bytes = self._queued_bytes + size if self.read_paused else size
        super().send_receive_event_to_app()


def _handshake_problem(error: InvalidHandshake) -> Problem:
    """Return why a handshake is refused: 426 if another one would do (RFC 6455, section 4.4), or else 400."""
    if not isinstance(error, InvalidHeader):
        return Problem(400, "this is not the handshake of a websocket")
    detail = f"the handshake of a websocket has no valid header {error.name}"
    if isinstance(error, InvalidUpgrade) or error.name == "Sec-WebSocket-Version":
        return Problem(426, detail, headers={"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    return Problem(400, detail)


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
