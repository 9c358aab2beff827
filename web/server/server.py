"""uvicorn's server for this service: it drains before it ends, and ends within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn

from web.server.supervisor import BEAT_S, address_of
from web.service import Service
from web.settings import Settings

# The interval between checks for open requests, and the time in which a task notices that its connection is aborted.
POLL_S = 0.02
ABORT_S = 0.1
# While the server drains, every response closes its connection.
CLOSE = (b"connection", b"close")

logger = logging.getLogger("web")


class Server(uvicorn.Server):
    """A server that drains.

    After SIGTERM it is not ready, but still accepts requests for a while. Then it closes its listening sockets, and
    answers open requests and received frames; streams are closed with the code 1012. SIGINT, from a person at a
    terminal, skips the draining. A second signal ends everything at once. SIGHUP checks the model file.

    Args:
        supervisor: a connection to the process that started this one, if any: a byte is sent on it every `BEAT_S`, and
            this server stops when it is closed.
    """

    def __init__(self, config: uvicorn.Config, settings: Settings, supervisor: socket.socket | None = None) -> None:
        super().__init__(config)
        self._settings = settings
        self._supervisor = supervisor
        self._closes_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and then handle signals: before, they end the process as usual."""
        try:
            await super().startup(sockets)
        except OSError as error:  # another server has begun to listen on this address since it was bound
            reason = (error.strerror or str(error)).lower()
            logger.error("%s:%d: %s", self._settings.host, self._settings.port, reason)
            await self.lifespan.shutdown()
            sys.exit(1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        service = self._service
        signal.signal(signal.SIGHUP, lambda *_: service.watcher.check_now())
        if self._supervisor:
            self._supervisor.setblocking(False)
            loop = asyncio.get_running_loop()
            loop.add_reader(self._supervisor, self._on_supervisor_end, loop)
            self._beat(loop, self._supervisor)
        elif sockets:
            logger.info("the page is at %s", address_of(sockets))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would raise signals again at the end, and the exit status would not be 0."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; the second time, end at once."""
        if self._closes_at is not None:
            self.should_exit = self.force_exit = True
            return
        drain_s = self._settings.drain_s if sig == signal.SIGTERM else 0.0
        self._closes_at = time.monotonic() + drain_s
        self._service.is_draining = True
        logger.info("%s received: draining for %g s", signal.Signals(sig).name, drain_s)

    async def on_tick(self, counter: int) -> bool:
        """Do the regular work of ten times a second; return whether it is time to shut down."""
        is_over = await super().on_tick(counter)
        if self._closes_at is None:
            return is_over
        if CLOSE not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        return is_over or time.monotonic() >= self._closes_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer open requests within `shutdown_s`, and abort the other connections."""
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        abort_at = time.monotonic() + self._settings.shutdown_s
        # uvicorn keeps plain sets: there is no event to wait for.
        while (state.connections or state.tasks) and not self.force_exit and time.monotonic() < abort_at:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        if state.connections or state.tasks:
            logger.warning("aborted %d connections with %d open requests", len(state.connections), len(state.tasks))
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(ABORT_S)
        await self.lifespan.shutdown()
        logger.info("stopped")

    @property
    def _service(self) -> Service:
        service: Service = self.lifespan.state["service"]
        return service

    def _beat(self, loop: asyncio.AbstractEventLoop, supervisor: socket.socket) -> None:
        """Send the supervisor a sign that the event loop runs, now and every `BEAT_S`."""
        with contextlib.suppress(OSError):  # the supervisor has ended, or is stopped and its buffer is full
            supervisor.send(b"\n")
        loop.call_later(BEAT_S, self._beat, loop, supervisor)

    def _on_supervisor_end(self, loop: asyncio.AbstractEventLoop) -> None:
        # It never sends anything, so a readable connection is a closed one.
        assert self._supervisor is not None
        loop.remove_reader(self._supervisor)
        if self._closes_at is None:
            logger.warning("the supervisor has ended")
            self.handle_exit(signal.SIGTERM, None)
