"""How often a client may ask: the limits library counts, and this keeps its cost off the hot path.

Knows addresses and nothing of HTTP: requests and frames of the stream are counted alike.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

import limits
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

# A client pays for so many requests at once, but never for more than a hundredth of its rate: asking the library costs
# 5 us, a whole dictionary look-up 0.1.
MOST_PREPAID = 64
SHARE_PREPAID = 100
# Clients that are remembered; beyond that the ones that came first start anew.
MAX_CLIENTS = 20_000


class Rates:
    """Counts what each client takes, in windows of fixed length.

    Args:
        notation: as the limits library writes it, e.g. "100/minute" or "10/second; 1000/hour".
    """

    def __init__(self, notation: str) -> None:
        self._items = limits.parse_many(notation)
        self._limiter = FixedWindowRateLimiter(_Counts())
        self._step = max(1, min(MOST_PREPAID, *(item.amount // SHARE_PREPAID for item in self._items)))
        self._prepaid: dict[str, int] = {}

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
        network = _network_of(client)
        refused = [item for item in self._items if not self._limiter.hit(item, network, cost=self._step)]
        if not refused:
            if len(self._prepaid) >= MAX_CLIENTS:
                self._prepaid.clear()
            self._prepaid[client] = self._step - 1
            return 0
        end = max(self._limiter.get_window_stats(item, network).reset_time for item in refused)
        return max(1, math.ceil(end - time.monotonic()))


class _Counts(Storage):
    """The counts of the newest `MAX_CLIENTS` clients, in memory.

    The library's own memory storage starts a thread with every hit, which looks for expired counts in all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.monotonic()
        count, end = self._counts.get(key, (0, 0.0))
        if end <= now:
            self._counts.pop(key, None)  # to the end of the queue
            count, end = 0, now + expiry
            if len(self._counts) >= MAX_CLIENTS:
                del self._counts[next(iter(self._counts))]
        self._counts[key] = count + amount, end
        return count + amount

    def get(self, key: str) -> int:
        count, end = self._counts.get(key, (0, 0.0))
        return count if end > time.monotonic() else 0

    def get_expiry(self, key: str) -> float:
        return self._counts.get(key, (0, time.monotonic()))[1]

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        n = len(self._counts)
        self._counts.clear()
        return n

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)


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
