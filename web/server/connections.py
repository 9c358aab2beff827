"""The open connections of a process: limits of their number, and deadlines for slow clients.

There are no timers: every connection is checked once a second, so a request costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, Protocol

from web import logs
from web.middleware.body_limit import Pending
from web.middleware.forwarded import is_proxy
from web.problems import Problem, too_many
from web.service import Service
from web.settings import Settings

logger = logging.getLogger("web")

# The interval between checks: short enough for the shortest deadline.
LONGEST_INTERVAL_S = 1.0
CHECKS_A_DEADLINE = 4


class Transport(Protocol):
    """The methods of a connection's transport that are used here."""

    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
    def abort(self) -> None: ...


class DeadlineMixin(asyncio.Protocol):
    """A protocol with deadlines for its client; `check_deadlines` is called about once a second.

    Subclasses count received bytes in `received_bytes`, and implement `check_input`.

    Attributes:
        app_state: the state that the application's lifespan yielded: the service and the connections of the process.
    """

    transport: Transport
    app_state: dict[str, Any]
    received_bytes = 0
    _seen_bytes = 0  # received bytes at the last check
    _unread_s = 0.0  # time for which the client has left data unread
    _slow_s = 0.0  # time by which its input is late
    _closing_s = 0.0  # time for which its closing has been awaited

    @property
    def _service(self) -> Service:
        service: Service = self.app_state["service"]
        return service

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the connection."""
        self.app_state["connections"].leave(self.transport)
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Restart the deadline for reading, and continue sending: the client has read."""
        self._unread_s = 0.0
        super().resume_writing()

    def check_deadlines(self, elapsed_s: float, settings: Settings) -> None:
        """Abort the connection if its client is too slow; `elapsed_s` is the time since the last check, in seconds."""
        came = self.received_bytes - self._seen_bytes
        self._seen_bytes = self.received_bytes
        # A client that still sends is alive: many read nothing until they have sent everything.
        if self.transport.get_write_buffer_size() and not came:
            self._unread_s += elapsed_s
            if self._unread_s > settings.send_timeout_s:
                # abort, not close: closing would wait for the client to read the rest.
                self.transport.abort()
                return
        else:
            self._unread_s = 0.0
        if self.transport.is_closing():
            if not self._unread_s:
                self._closing_s += elapsed_s
                if self._closing_s > settings.linger_s:
                    self.transport.abort()
            return
        self.check_input(came, elapsed_s, settings)

    def check_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Refuse a client that sends too slowly; `came` is the number of bytes since the last check."""
        raise NotImplementedError

    def is_too_slow(self, came: int, elapsed_s: float, settings: Settings) -> bool:
        """Return whether a body or message has arrived too slowly for too long."""
        self._slow_s = max(0.0, self._slow_s + elapsed_s - came / settings.min_body_rate)
        return self._slow_s > settings.body_timeout_s

    def pending_bytes(self) -> int:
        """Return the size of the data held for the client, in bytes."""
        return 0

    def give_up(self) -> None:
        """Abort the connection because all connections together hold too much."""
        self.transport.abort()


class Connections:
    """All open connections of a process, by transport: a websocket keeps that of its handshake."""

    def __init__(self, settings: Settings, pending: Pending) -> None:
        self._settings = settings
        self._pending = pending
        self._open: dict[object, DeadlineMixin] = {}
        self._refused: set[object] = set()
        self._unlogged: int | None = None  # refusals since the last log line; None if there was no line
        self._clients: dict[object, str] = {}
        self._of_client: Counter[str] = Counter()
        shortest_s = min(
            settings.head_timeout_s, settings.body_timeout_s, settings.send_timeout_s, settings.linger_s,
            settings.keep_alive_s,
        )  # fmt: skip
        self._every_s = min(LONGEST_INTERVAL_S, shortest_s / CHECKS_A_DEADLINE)

    def enter(self, transport: Transport, connection: DeadlineMixin, address: str) -> Problem | None:
        """Register a new connection; return the problem if it is not served.

        A refused client gets the problem as the answer to its request. When there are as many refused connections as
        may be served, further ones are aborted.
        """
        settings = self._settings
        problem = None
        if len(self._clients) >= settings.max_connections:
            problem = Problem(503, "too many connections are open: try again later", retry_after_s=1)
        elif self._of_client[address] >= settings.max_connections_per_client and not is_proxy(
            address, settings.trusted_proxies
        ):
            problem = too_many(1, "connections")
        if problem is None:
            self._clients[transport] = address
            self._of_client[address] += 1
        elif len(self._refused) >= settings.max_connections:
            transport.abort()
        else:
            self._refused.add(transport)
        self._open[transport] = connection
        return problem

    def hand_over(self, transport: Transport, connection: DeadlineMixin) -> None:
        """Register the new protocol of an open connection in place of the previous one."""
        self._open[transport] = connection

    def leave(self, transport: Transport) -> None:
        """Forget a connection that has ended."""
        self._open.pop(transport, None)
        self._refused.discard(transport)
        address = self._clients.pop(transport, None)
        if address is not None:
            self._of_client[address] -= 1
            if not self._of_client[address]:
                del self._of_client[address]

    def log_refusal(self, problem: Problem, address: str, request_id: str) -> None:
        """Log a refusal before the application; further ones are only counted until the next check."""
        if self._unlogged is not None:
            self._unlogged += 1
            return
        self._unlogged = 0
        token = logs.REQUEST_ID.set(request_id)
        details = problem.details
        logger.warning("refused a request from %s with status %d: %s", address, details.status, details.detail)
        logs.REQUEST_ID.reset(token)

    async def watch(self) -> None:
        """Check all connections again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(self._every_s)
            now = loop.time()
            # Clients are not charged for a delay of this process.
            self.check_deadlines(min(now - before, 2 * self._every_s))
            before = now

    def check_deadlines(self, elapsed_s: float) -> None:
        """Check every connection once."""
        if self._unlogged:
            logger.warning("refused %d more requests within %g s", self._unlogged, elapsed_s)
            self._unlogged = 0
        else:
            self._unlogged = None
        for connection in tuple(self._open.values()):
            try:
                connection.check_deadlines(elapsed_s, self._settings)
            except Exception:
                # A failure on one connection must not stop the checks of the rest.
                logger.exception("unexpected error while checking a connection; connection aborted")
                connection.transport.abort()
        sizes = [(connection.pending_bytes(), connection) for connection in self._open.values()]
        total = self._pending.taken + sum(size for size, _ in sizes)
        if total <= self._settings.max_pending_bytes:
            return
        for size, connection in sorted(sizes, key=lambda pair: pair[0], reverse=True):
            if total <= self._settings.max_pending_bytes or not size:
                break
            connection.give_up()
            total -= size
