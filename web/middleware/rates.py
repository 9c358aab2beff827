"""Rate limits of clients, in windows of fixed length.

Knows addresses and nothing of HTTP: requests and frames of the stream are counted alike.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from web.settings import RATE

SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
# A client pays for so many requests at once, but never for more than a hundredth of its rate: reading the clock and
# the windows costs 1 us, a dictionary look-up 0.1.
MOST_PREPAID = 64
SHARE_PREPAID = 100
# The number of clients with counts; beyond it those that paid least recently are forgotten.
MAX_CLIENTS = 20_000


class Rates:
    """Counts the requests of each client.

    Args:
        notation: e.g. "100/minute" or "10/second; 1000/2 hours".
    """

    def __init__(self, notation: str) -> None:
        self._limits = [
            (int(amount), int(length or 1) * SECONDS[unit]) for amount, length, unit in RATE.findall(notation)
        ]
        self._step = max(1, min(MOST_PREPAID, *(amount // SHARE_PREPAID for amount, _ in self._limits)))
        self._prepaid: dict[str, int] = {}
        self._windows: dict[str, list[_Window]] = {}

    def take(self, client: str) -> int:
        """Count one request of a client, named by its address; return 0, or the seconds to wait if it is one too many.

        Prepaid requests do not read the clock, so a window can be exceeded by one percent.
        """
        left = self._prepaid.get(client)
        if left:
            self._prepaid[client] = left - 1
            return 0
        return self._pay(client)

    def _pay(self, client: str) -> int:
        now = time.monotonic()
        full = [window.end for window in self._windows_of(_network_of(client)) if not window.take(self._step, now)]
        if full:
            return max(1, math.ceil(max(full) - now))
        if len(self._prepaid) >= MAX_CLIENTS:
            self._prepaid.clear()
        self._prepaid[client] = self._step - 1
        return 0

    def _windows_of(self, network: str) -> list[_Window]:
        windows = self._windows.pop(network, None)
        if windows is None:
            windows = [_Window(amount, length_s) for amount, length_s in self._limits]
            if len(self._windows) >= MAX_CLIENTS:
                del self._windows[next(iter(self._windows))]
        self._windows[network] = windows  # last in the queue
        return windows


@dataclass(slots=True)
class _Window:
    """The requests of one client in one window, which ends at `end` on the clock `monotonic`."""

    amount: int
    length_s: int
    taken: int = 0
    end: float = 0.0

    def take(self, number: int, now: float) -> bool:
        """Count requests; return whether they are within the limit."""
        if self.end <= now:
            self.taken, self.end = 0, now + self.length_s
        self.taken += number
        return self.taken <= self.amount


@lru_cache(MAX_CLIENTS)
def _network_of(client: str) -> str:
    """Return the unit of counting: an address, or in IPv6 its network of 64 bits, the smallest that is assigned."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return client
