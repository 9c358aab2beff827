"""Histograms of numbers; and the durations of HTTP requests, by route template and status, never by path or query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from web.metrics.shared import Name, SharedCounters

# Upper bounds, in seconds. One answer of the model takes a microsecond, a slice of a batch 2 ms.
MODEL_BOUNDS = (
    1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
)  # fmt: skip
SERVICE_BOUNDS = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
# Hot paths append to a list. It is flushed when it has so many entries, which takes a fifth of a millisecond, or every
# second (measured: half the cost of counting each entry by itself).
MOST_RECORDS = 1_024


class Histogram:
    """Counts numbers of one kind, such as durations in seconds; `bounds` are upper bounds, ascending."""

    def __init__(self, counters: SharedCounters, name: str, *labels: str, bounds: Sequence[float]) -> None:
        self._counters = counters
        self._names: list[Name] = [(name, *labels, bound) for bound in [*map(repr, bounds), "+Inf"]]
        self._sum: Name = (name, *labels, "sum")
        for each in (*self._names, self._sum):
            counters.add(0, *each)
        self._bounds = np.array(bounds)
        self._recorded: list[float] = []

    def record(self, seconds: float) -> None:
        """Record a duration, to be counted by the next flush."""
        self._recorded.append(seconds)
        if len(self._recorded) >= MOST_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Count all recorded durations."""
        if self._recorded:
            recorded, self._recorded = self._recorded, []
            self.add(np.array(recorded))

    def add(self, values: NDArray[np.float64]) -> None:
        """Count numbers, shape (n,)."""
        counts = np.bincount(self._bounds.searchsorted(values))
        for place in np.flatnonzero(counts).tolist():
            self._counters.add(int(counts[place]), *self._names[place])
        self._counters.add(float(values.sum()), *self._sum)


UNMATCHED = "unmatched"


class RequestTimes:
    """Counts the requests of a process."""

    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters
        self._recorded: list[tuple[Any, int, float]] = []
        self._histograms: dict[tuple[str, int], Histogram] = {}

    def record(self, route: Any, status: int, started: float) -> None:
        """Record a request that began at `started`, with its route; None if none matched."""
        recorded = self._recorded
        recorded.append((route, status, perf_counter() - started))
        if len(recorded) >= MOST_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Count all recorded requests."""
        recorded, self._recorded = self._recorded, []
        by_route: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        for route, status, seconds in recorded:
            by_route[template_of(route), status].append(seconds)
        for (template, status), times in by_route.items():
            self._histogram(template, status).add(np.array(times))

    def _histogram(self, template: str, status: int) -> Histogram:
        if (template, status) not in self._histograms:
            self._histograms[template, status] = Histogram(
                self._counters, "http_request_duration_seconds", template, str(status), bounds=SERVICE_BOUNDS
            )
        return self._histograms[template, status]


def template_of(route: Any) -> str:
    """Return the path template of a route, which contains no input; `UNMATCHED` for no route."""
    return UNMATCHED if route is None else str(route.path)
