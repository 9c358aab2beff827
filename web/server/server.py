"""uvicorn's server for this service: it says that it will end before it does, and ends within a bound."""

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

from web.server.supervisor import BEAT_S
from web.service import Service
from web.settings import Settings

# How often the end of requests is looked at, and how long a task may take to notice that its connection was cut.
POLL_S = 0.02
CUT_S = 0.1
# Clients that would send more requests on an open connection are told to leave it.
LEAVE = (b"connection", b"close")

logger = logging.getLogger("web")


class Server(uvicorn.Server):
    """A server that drains.

    Told to stop by SIGTERM, it is not ready from then on, but takes requests for a while. Then it closes the door, and
    what has come is answered: requests get their responses, streams the replies to their frames and then the code 1012.
    SIGINT, from a person at a terminal, closes the door at once. A second signal ends it all. SIGHUP looks at the model
    file.

    Args:
        supervisor: a connection to the process that started this one, if any: it is told again and again that
            requests can come, and its end is a reason to stop.
    """

    def __init__(self, config: uvicorn.Config, settings: Settings, supervisor: socket.socket | None = None) -> None:
        super().__init__(config)
        self._settings = settings
        self._supervisor = supervisor
        self._closes_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and from then on listen to signals: before, they end the process as they always do."""
        try:
            await super().startup(sockets)
        except OSError as error:  # another server has begun to listen since the address was taken
            reason = (error.strerror or str(error)).lower()
            logger.error("%s:%d: %s", self._settings.host, self._settings.port, reason)
            await self.lifespan.shutdown()
            sys.exit(1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        service = self._service
        signal.signal(signal.SIGHUP, lambda *_: service.watch.look_now())
        if self._supervisor:
            self._supervisor.setblocking(False)
            loop = asyncio.get_running_loop()
            loop.add_reader(self._supervisor, self._on_supervisor_gone, loop)
            self._beat(loop, self._supervisor)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them again at the end, and the exit status would not be 0."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the second time, stop."""
        if self._closes_at is not None:
            self.should_exit = self.force_exit = True
            return
        drain_s = self._settings.drain_s if sig == signal.SIGTERM else 0.0
        self._closes_at = time.monotonic() + drain_s
        self._service.is_draining = True
        logger.info("told to stop: no longer ready, closing in %g s", drain_s)

    async def on_tick(self, counter: int) -> bool:
        """Do what is done ten times a second; tell whether it is time to close."""
        is_over = await super().on_tick(counter)
        if self._closes_at is None:
            return is_over
        if LEAVE not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, LEAVE]
        return is_over or time.monotonic() >= self._closes_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, let what has come be answered within `shutdown_s`, and cut the rest."""
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        cut_at = time.monotonic() + self._settings.shutdown_s
        # uvicorn keeps plain sets: there is no event to wait for.
        while (state.connections or state.tasks) and not self.force_exit and time.monotonic() < cut_at:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        if state.connections or state.tasks:
            logger.warning("cut off: %d connections, %d of them at work", len(state.connections), len(state.tasks))
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(CUT_S)
        await self.lifespan.shutdown()
        logger.info("stopped")

    @property
    def _service(self) -> Service:
        service: Service = self.lifespan.state["service"]
        return service

    def _beat(self, loop: asyncio.AbstractEventLoop, supervisor: socket.socket) -> None:
        """Say that the event loop runs, now and again and again, to the end."""
        with contextlib.suppress(OSError):  # the supervisor is gone, or has stood still for so long that all is full
            supervisor.send(b"\n")
        loop.call_later(BEAT_S, self._beat, loop, supervisor)

    def _on_supervisor_gone(self, loop: asyncio.AbstractEventLoop) -> None:
        # It never says anything, so there is only its end to be read.
        assert self._supervisor is not None
        loop.remove_reader(self._supervisor)
        if self._closes_at is None:
            logger.warning("the supervisor is gone")
            self.handle_exit(signal.SIGTERM, None)
