"""Durations of HTTP requests, by route template and status; never by path or query."""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter
from typing import Any

import numpy as np

from web.metrics.histogram import MOST_RECORDS, SERVICE_BOUNDS, Histogram
from web.metrics.shared import SharedCounters

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
