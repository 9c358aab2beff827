"""What the service counts about itself, in place, where it happens: requests, predictions, frames, errors, time.

A prediction takes a microsecond, so counting it must take less: every count is an addition to a slot of the ledger,
found before. `web.exposition` makes the text that Prometheus reads of it. Knows no HTTP but status codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.classifier import Classifier, Prediction
from ml.sample import FieldError
from web import drift
from web.drift import WATCHED_ROWS, DriftReport
from web.ledger import Ledger, Name
from web.problems import ProblemDetails

CHANNELS = ("page", "fragment", "json", "stream", "stream_binary", "inference", "score")
# Upper bounds of the histograms, in seconds. One answer of the model takes a microsecond, a slice of a batch 2 ms.
MODEL_BOUNDS = (
    1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
)  # fmt: skip
SERVICE_BOUNDS = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
UNMATCHED = "unmatched"
TICK_S = 1.0


class Channel:
    """Counts the predictions of one way in."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self._name = name
        self._metrics = metrics
        self._ledger = metrics.ledger
        self._numbers = metrics.ledger.numbers
        self._seconds = _histogram(metrics.ledger, "prediction_model_seconds", name, bounds=MODEL_BOUNDS)
        self._seconds_sum = self._seconds + len(MODEL_BOUNDS) + 1
        self._labels: tuple[str, ...] = ()
        self._slots: list[int] = []

    def one(self, model: Classifier, row: Sequence[float], prediction: Prediction, started: float) -> None:
        """Count the answer to one row, which the model was asked for at `started` on the clock `perf_counter`."""
        seconds = perf_counter() - started
        numbers = self._numbers
        numbers[self._seconds + bisect_left(MODEL_BOUNDS, seconds)] += 1.0
        numbers[self._seconds_sum] += seconds
        if model.labels is not self._labels:
            self._follow(model.labels)
        numbers[self._slots[prediction.index]] += 1.0
        self._metrics.watch(model, row)

    def many(self, model: Classifier, rows: NDArray[Any], indices: NDArray[np.intp]) -> None:
        """Count the answers to rows, shape (n, n_features), of finite numbers; `indices` are those of their labels.

        Of the rows at most `WATCHED_ROWS` are compared with the training data, evenly spaced.
        """
        if model.labels is not self._labels:
            self._follow(model.labels)
        numbers = self._numbers
        counts = np.bincount(indices, minlength=1)
        for index in np.flatnonzero(counts).tolist():
            numbers[self._slots[index]] += int(counts[index])
        self._metrics.watch_many(model, rows[:: -(-len(rows) // WATCHED_ROWS)] if len(rows) else rows)

    def model_time(self, started: float) -> None:
        """Count the time that the model took for a slice of rows, asked for at `started`."""
        seconds = perf_counter() - started
        self._numbers[self._seconds + bisect_left(MODEL_BOUNDS, seconds)] += 1.0
        self._numbers[self._seconds_sum] += seconds

    def errors(self, errors: Iterable[FieldError]) -> None:
        """Count what was wrong with samples."""
        for error in errors:
            self.error(error.code)

    def problem(self, details: ProblemDetails) -> None:
        """Count what was wrong with samples, or else the status of a problem."""
        if details.errors:
            self.errors(details.errors)
        else:
            self.error(str(details.status))

    def error(self, code: str) -> None:
        """Count a request or a frame that could not be answered."""
        self._numbers[self._ledger.slot("prediction_errors", self._name, code)] += 1.0

    def _follow(self, labels: tuple[str, ...]) -> None:
        # Not the model itself: a channel that is not used would keep a replaced one alive.
        self._labels = labels
        self._slots = self._ledger.slots([("predictions", label, self._name) for label in labels])


class Metrics:
    """Everything that one process counts.

    Args:
        folder: where the processes of a service share what they count; without it this one is alone.
        drift_half_life_s: how fast the inputs of the past fade.
    """

    def __init__(self, folder: Path | None = None, *, drift_half_life_s: float = 86_400.0) -> None:
        self.ledger = Ledger(folder)
        self._numbers = self.ledger.numbers
        self._folder = folder
        self._half_life_s = drift_half_life_s
        self.page, self.fragment, self.json, self.stream, self.stream_binary, self.inference, self.score = (
            Channel(name, self) for name in CHANNELS
        )
        self._requests: dict[tuple[str, int], tuple[int, int, int]] = {}
        self._frames = {
            kind: (_histogram(self.ledger, "stream_frame_duration_seconds", kind, bounds=SERVICE_BOUNDS))
            for kind in ("text", "binary")
        }
        self._model: Classifier | None = None
        self._counts: drift.Counts | None = None
        # The values of rows that wait to be compared with the training data, a second at most: many cost less at once.
        self._waiting: list[float] = []
        self._waiting_values = 0
        self._shared = 0.0
        # Inputs that ended processes have seen are not lost with them.
        self._drift_path = self.ledger.path.with_suffix(".drift") if self.ledger.path else Path()
        self._ended = [path.with_suffix(".drift") for path in self.ledger.ended]
        # What is not there cannot be told from what is not known: these begin at 0.
        for name in (
            "stream_sockets",
            "stream_sockets_opened",
            "unhandled_exceptions",
            "model_replacements",
            "model_load_failures",
            "model_input_samples",
            "model_input_samples_outside",
        ):
            self.ledger.slot(name)

    # --- what is told

    def request(self, route: Any, status: int, started: float) -> None:
        """Count an HTTP request that took from `started` on, by the template of its route; None matched no route."""
        seconds = perf_counter() - started
        key = (template_of(route), status)
        slots = self._requests.get(key)
        if slots is None:
            slots = self._requests[key] = self._request_slots(*key)
        count, buckets, total = slots
        numbers = self._numbers
        numbers[count] += 1.0
        numbers[buckets + bisect_left(SERVICE_BOUNDS, seconds)] += 1.0
        numbers[total] += seconds

    def frame(self, kind: str, started: float) -> None:
        """Count a frame, `text` or `binary`, that was received at `started` and answered by now."""
        seconds = perf_counter() - started
        buckets = self._frames[kind]
        self._numbers[buckets + bisect_left(SERVICE_BOUNDS, seconds)] += 1.0
        self._numbers[buckets + len(SERVICE_BOUNDS) + 1] += seconds

    def frame_sent(self, kind: str) -> None:
        """Count a frame that was sent and is no prediction: `model` or `error`."""
        self._add("stream_frames", 1, kind)

    @contextlib.contextmanager
    def socket(self) -> Iterator[None]:
        """Count a websocket for as long as it is open."""
        self._add("stream_sockets_opened", 1)
        self._add("stream_sockets", 1)
        try:
            yield
        finally:
            self._add("stream_sockets", -1)

    def refused(self, status: int) -> None:
        """Count a connection, request, handshake or frame that was turned away at the door, with this status."""
        self._add("refusals", 1, str(status))

    def unhandled(self) -> None:
        """Count an exception that nobody expected."""
        self._add("unhandled_exceptions", 1)

    def model_loaded(self, model: Classifier) -> None:
        """Take note of the model that answers from now on; its inputs are counted anew."""
        self.compare()
        if self._model is not None:
            self._add("model_replacements", 1)
            self._set("model", 0, self._model.name, self._model.version)
        self._model = model
        self._waiting_values = WATCHED_ROWS * len(model.features)
        self._counts = drift.Counts(model.version, model.features, half_life_s=self._half_life_s)
        for path in self._ended:
            with contextlib.suppress(FileNotFoundError):
                self._counts.take(path.read_bytes())
                path.unlink()
        self._ended = []
        self._set("model", 1, model.name, model.version)
        self._set("model_loaded_timestamp_seconds", time.time())

    def model_load_failed(self) -> None:
        """Count a model file that was refused."""
        self._add("model_load_failures", 1)

    # --- inputs against the training data

    def watch(self, model: Classifier, row: Sequence[float]) -> None:
        """Take a row to be compared with the training data."""
        if model is self._model:
            waiting = self._waiting
            waiting.extend(row)
            if len(waiting) >= self._waiting_values:
                self.compare()

    def watch_many(self, model: Classifier, rows: NDArray[Any]) -> None:
        """Compare rows, shape (n, n_features), with the training data."""
        if model is self._model and len(rows):
            self._watched(rows.astype(np.float32, copy=False))

    def compare(self) -> None:
        """Compare the rows that wait with the training data, and forget them."""
        if self._waiting and self._counts is not None:
            values = np.fromiter(self._waiting, np.float32, len(self._waiting))
            self._waiting.clear()
            self._watched(values.reshape(-1, len(self._counts.counts)))

    def drift(self) -> DriftReport:
        """Return what is known about the inputs of the model, of all processes."""
        assert self._counts is not None
        assert self._model is not None
        self.compare()
        others = []
        if self._folder is not None:
            for path in self._folder.glob("*.drift"):
                if path != self._drift_path:
                    with contextlib.suppress(FileNotFoundError):
                        others.append(path.read_bytes())
        counts = drift.Counts(self._model.version, self._model.features, half_life_s=self._half_life_s)
        for encoded in [drift.snapshot(self._counts), *others]:
            counts.take(encoded)
        return drift.report(self._model.card, counts)

    # --- time goes by

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Once a second, compare what waits and share what was counted; do it once more at the end."""
        ticking = asyncio.create_task(self._tick_on())
        try:
            yield
        finally:
            ticking.cancel()
            self.tick()
            self.ledger.close()

    def tick(self) -> None:
        """Compare what waits, and leave for other processes what they cannot see by themselves."""
        self.compare()
        self._set("process_cpu_seconds", time.process_time())
        if self._folder is not None and self._counts is not None and self._counts.at > self._shared:
            self._shared = self._counts.at
            new = self._drift_path.with_suffix(".new")
            new.write_bytes(drift.snapshot(self._counts))
            new.replace(self._drift_path)

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def _watched(self, rows: NDArray[np.float32]) -> None:
        assert self._counts is not None
        assert self._model is not None
        watched = self._counts.add(rows)
        self._add("model_input_samples", watched.rows)
        if watched.rows_outside:
            self._add("model_input_samples_outside", watched.rows_outside)
            for index in np.flatnonzero(watched.values_outside).tolist():
                self._add(
                    "model_input_values_outside", int(watched.values_outside[index]), self._model.features[index].key
                )

    def _request_slots(self, route: str, status: int) -> tuple[int, int, int]:
        buckets = _histogram(self.ledger, "http_request_duration_seconds", route, bounds=SERVICE_BOUNDS)
        return self.ledger.slot("http_requests", route, str(status)), buckets, buckets + len(SERVICE_BOUNDS) + 1

    def _add(self, name: str, amount: int, *labels: str) -> None:
        self._numbers[self.ledger.slot(name, *labels)] += amount

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._numbers[self.ledger.slot(name, *labels)] = value


def template_of(route: Any) -> str:
    """Return the template of a route's path, which holds nothing that was typed; that of no route is `UNMATCHED`."""
    return UNMATCHED if route is None else route.path


def _histogram(ledger: Ledger, name: str, *labels: str, bounds: Sequence[float]) -> int:
    """Return the first slot of a histogram: a count for each bound, one for what is beyond, then the sum."""
    names: list[Name] = [(name, *labels, repr(bound)) for bound in bounds]
    return ledger.slots([*names, (name, *labels, "+Inf"), (name, *labels, "sum")])[0]
