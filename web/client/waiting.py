"""The waiting times of a stream: before it sends or connects again, and for an answer. Knows no connections."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

from web.client.errors import Busy, ConnectionFailed, GaveUp

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
# Is called before waiting for a connection, with why there is none and the seconds to wait.
OnLost = Callable[[str, float], object]
NO_ANSWER = "the server is connected and does not answer"


class Waiting:
    """The clocks of one stream, in the time of its event loop.

    Args:
        give_up_s: seconds without any answer after which it gives up; 0: when the connection is lost; None: never.
    """

    def __init__(self, give_up_s: float | None) -> None:
        self._give_up_s = math.inf if give_up_s is None else give_up_s
        self._give_up_at = math.inf  # while nothing waits for an answer
        self._reason = NO_ANSWER
        self._send_at = 0.0
        self._connected_at = 0.0
        self._delay_s = FIRST_DELAY_S

    def start(self) -> None:
        """Count the time without an answer from now on, if it is not counted yet."""
        self._give_up_at = min(self._give_up_at, _now() + self._give_up_s)

    def answered(self, *, is_idle: bool) -> None:
        """Start anew, since an answer came; if the stream is idle, it waits for no other."""
        self._reason, self._delay_s, self._give_up_at = NO_ANSWER, FIRST_DELAY_S, math.inf
        if not is_idle:
            self.start()

    def connected(self, *, is_idle: bool) -> None:
        """Continue counting, since a connection is no answer; if the stream is idle, it waits for none."""
        self._connected_at = _now()
        if is_idle:
            self._give_up_at = math.inf

    def lost(self) -> None:
        """Count from now on; the first delay is short if the connection was not."""
        self.start()
        if _now() - self._connected_at > LONGEST_DELAY_S:
            self._delay_s = FIRST_DELAY_S

    def postpone(self, reason: str, asked_s: float) -> None:
        """Send nothing for as long as the server asks; frames that were under way together ask one by one."""
        now = _now()
        delay_s = 0.0 if now < self._send_at else self._next_delay_s()
        self._send_at = max(self._send_at, now + max(delay_s, asked_s))
        self._reason = reason

    async def until_connect(self, lost: ConnectionFailed, on_lost: OnLost) -> None:
        """Return when to connect again: no sooner than the server asks, and not beyond the end.

        Raises:
            GaveUp: it has been too long.
        """
        self._reason = str(lost)
        left_s = self._give_up_at - _now()
        if left_s <= 0:
            raise self._end()
        asked_s = lost.retry_after_s if isinstance(lost, Busy) else 0.0
        delay_s = min(max(self._next_delay_s(), asked_s), left_s)
        on_lost(self._reason, delay_s)
        await asyncio.sleep(delay_s)

    async def until_send(self) -> None:
        """Return when something may be sent."""
        while True:
            left_s = self._send_at - _now()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)

    async def watch(self) -> None:
        """Watch over a connection until no answer has come for too long.

        Raises:
            GaveUp: then.
        """
        if not 0 < self._give_up_s < math.inf:
            return
        while True:
            left_s = self._give_up_at - _now()
            if left_s <= 0:
                raise self._end()
            # If the clock starts meanwhile, it does not run out before this has ended.
            await asyncio.sleep(min(left_s, self._give_up_s))

    def _end(self) -> GaveUp:
        return GaveUp(f"gave up after {self._give_up_s:g} s: {self._reason}")

    def _next_delay_s(self) -> float:
        # Jitter keeps all clients of a restarted server from coming back at the same moment.
        delay_s = self._delay_s * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        return delay_s


def _now() -> float:
    return asyncio.get_running_loop().time()
