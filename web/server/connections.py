"""The open connections of a process: how many there may be, and how long a slow client may keep one.

There are no timers: once a second every connection is looked at, which costs those that behave nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

from web import logs
from web.middleware.body_limit import Pending
from web.middleware.forwarded import is_proxy
from web.problems import Problem, too_many
from web.settings import Settings

logger = logging.getLogger("web")

# How often connections are looked at: often enough for the shortest deadline.
LONGEST_LOOK_S = 1.0
LOOKS_A_DEADLINE = 4


class Transport(Protocol):
    """What is asked of a connection's transport."""

    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
    def abort(self) -> None: ...


class Watched:
    """A protocol whose client has deadlines; `look` is called about once a second.

    Subclasses count in `received_bytes` what comes in, and say what they wait for.
    """

    transport: Transport
    received_bytes = 0
    _seen_bytes = 0  # of these, what was there at the last look
    _unread_s = 0.0  # since when the client has not read what was sent
    _slow_s = 0.0  # how far it is behind with what it sends
    _closing_s = 0.0  # since when it has been expected to close

    def look(self, elapsed_s: float, settings: Settings) -> None:
        """Cut the connection if its client is too slow; `elapsed_s` is the time since the last look, in seconds."""
        came = self.received_bytes - self._seen_bytes
        self._seen_bytes = self.received_bytes
        # Who goes on sending is still there: many clients read nothing until they have sent everything.
        if self.transport.get_write_buffer_size() and not came:
            self._unread_s += elapsed_s
            if self._unread_s > settings.send_timeout_s:
                # abort, not close: closing would wait for the client to read what is left.
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
        self.look_at_input(came, elapsed_s, settings)

    def look_at_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Cut the connection if its client sends too slowly; `came` is what it sent since the last look, in bytes."""
        raise NotImplementedError

    def has_read(self) -> None:
        """Start the clock of a client that does not read anew: it has read."""
        self._unread_s = 0.0

    def is_too_slow(self, came: int, elapsed_s: float, settings: Settings) -> bool:
        """Tell whether a body or frame comes in so slowly, for so long, that it must not go on."""
        self._slow_s = max(0.0, self._slow_s + elapsed_s - came / settings.min_body_rate)
        return self._slow_s > settings.body_timeout_s

    def pending_bytes(self) -> int:
        """Return how much is held for the client, in bytes."""
        return 0

    def give_up(self) -> None:
        """Cut the connection because all of them together hold too much."""
        self.transport.abort()


class Connections:
    """All open connections of a process, by transport: a websocket goes on with that of its handshake."""

    def __init__(self, settings: Settings, pending: Pending) -> None:
        self._settings = settings
        self._pending = pending
        self._open: dict[object, Watched] = {}
        self._refused: set[object] = set()
        self._unlogged: int | None = None  # refusals since the last line about one; None when there was no line
        self._clients: dict[object, str] = {}
        self._of_client: Counter[str] = Counter()
        shortest_s = min(
            settings.head_timeout_s, settings.body_timeout_s, settings.send_timeout_s, settings.linger_s,
            settings.keep_alive_s,
        )  # fmt: skip
        self._every_s = min(LONGEST_LOOK_S, shortest_s / LOOKS_A_DEADLINE)

    def enter(self, transport: Transport, connection: Watched, address: str) -> Problem | None:
        """Take in a new connection; return why it is not served, or nothing.

        A client that is refused is told so when it asks; when there are as many of these as may be served, the next
        ones are cut.
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

    def go_on(self, transport: Transport, connection: Watched) -> None:
        """Put the protocol that an open connection goes on with in the place of the one before."""
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
        """Write a line about a client that never came to the application; until the next look, only count more."""
        if self._unlogged is not None:
            self._unlogged += 1
            return
        self._unlogged = 0
        token = logs.REQUEST_ID.set(request_id)
        logger.warning("refused a request of %s with %d: %s", address, problem.details.status, problem.details.detail)
        logs.REQUEST_ID.reset(token)

    async def watch(self) -> None:
        """Look at every connection, again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(self._every_s)
            now = loop.time()
            # A process that was held up is not its clients' fault.
            self.look(min(now - before, 2 * self._every_s))
            before = now

    def look(self, elapsed_s: float) -> None:
        """Look at every connection once."""
        if self._unlogged:
            logger.warning(
                "refused %d more requests within %g s, for the same or other reasons", self._unlogged, elapsed_s
            )
            self._unlogged = 0
        else:
            self._unlogged = None
        for connection in tuple(self._open.values()):
            try:
                connection.look(elapsed_s, self._settings)
            except Exception:
                # One connection must not end the looking after all others.
                logger.exception("a connection is cut, for a mistake of our own")
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
