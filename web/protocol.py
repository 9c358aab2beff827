"""uvicorn's websocket protocol with two things that an application cannot do from inside: abort a connection whose
client does not read, and refuse text that is not UTF-8 without a traceback in the log."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

INVALID_TEXT = 1007


class StreamProtocol(WebSocketsSansIOProtocol):
    """One connection. The settings come through the state that the application's lifespan yields."""

    _abort: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Start the clock: what is sent from now on waits for the client to read."""
        super().pause_writing()
        # abort, not close: closing would wait for the client to read what is left.
        self._abort = self.loop.call_later(self.app_state["settings"].send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock: the client has read."""
        self._stop_clock()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock: the client has left."""
        self._stop_clock()
        super().connection_lost(exc)

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the application, unless it is text that is not UTF-8."""
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self.frames = []
            self.conn.send_close(INVALID_TEXT)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()

    def _stop_clock(self) -> None:
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None


def _is_utf8(parts: list[bytes]) -> bool:
    if all(part.isascii() for part in parts):
        return True
    try:
        b"".join(parts).decode()
    except UnicodeDecodeError:
        return False
    return True
