"""How often a client may ask, in windows of fixed length.

The limits library reads the notation. Its storage in memory starts a thread with nearly every hit, to look for expired
counts, so the windows are counted here. Knows addresses and nothing of HTTP: requests and frames of the stream are
counted alike.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

import limits

# A client pays for so many requests at once, but never for more than a hundredth of its rate: to look at the clock and
# its windows costs 1 us, a dictionary look-up 0.1.
MOST_PREPAID = 64
SHARE_PREPAID = 100
# Clients that are remembered; beyond that the ones that paid least recently start anew.
MAX_CLIENTS = 20_000


class Rates:
    """Counts what each client takes.

    Args:
        notation: as the limits library writes it, e.g. "100/minute" or "10/second; 1000/hour".
    """

    def __init__(self, notation: str) -> None:
        self._limits = [(item.amount, item.get_expiry()) for item in limits.parse_many(notation)]
        self._step = max(1, min(MOST_PREPAID, *(amount // SHARE_PREPAID for amount, _ in self._limits)))
        self._prepaid: dict[str, int] = {}
        self._windows: dict[str, list[_Window]] = {}

    def take(self, client: str) -> int:
        """Count one request of a client, named by its address; return 0, or the seconds to wait if it is one too many.

        Nobody's clock is looked at for what is prepaid, so a window can be exceeded by one percent.
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
    """What one client has taken of one limit until `end`, on the clock `monotonic`."""

    amount: int
    length_s: int
    taken: int = 0
    end: float = 0.0

    def take(self, number: int, now: float) -> bool:
        """Count so many requests; tell whether they are within the limit."""
        if self.end <= now:
            self.taken, self.end = 0, now + self.length_s
        self.taken += number
        return self.taken <= self.amount


@lru_cache(MAX_CLIENTS)
def _network_of(client: str) -> str:
    """Return what counts as one client: an address, or in IPv6 the network of 64 bits that everybody gets at least."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return client
