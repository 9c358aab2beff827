"""What the service counts about itself: requests, predictions, frames, errors, time, and how its inputs are.

A prediction takes a microsecond, so counting it must take less. What happens often is only noted where it happens, and
counted a thousand at once, or after a second: measured, that is half the price of counting each by itself. Nothing
noted is kept for longer. `web.metrics.exposition` makes the text that Prometheus reads of it. Knows no HTTP but
status codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.classifier import Classifier, Prediction
from ml.model.sample import FieldError
from web.metrics import drift
from web.metrics.drift import WATCHED_ROWS, Counts, DriftReport
from web.metrics.ledger import Ledger, Name
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
# So much is noted at most before it is counted, which takes a fifth of a millisecond; and rows of so many values, which
# take some four milliseconds to compare with the training data.
NOTES = 1_024
NOTED_VALUES = 65_536
# With so few labels, looking for each takes a third of the time of NumPy's `bincount`.
FEW_LABELS = 8


class Histogram:
    """Durations by their upper bounds, in a ledger."""

    def __init__(self, ledger: Ledger, name: str, *labels: str, bounds: Sequence[float]) -> None:
        names: list[Name] = [(name, *labels, repr(bound)) for bound in bounds]
        *self._slots, self._sum = ledger.slots([*names, (name, *labels, "+Inf"), (name, *labels, "sum")])
        self._numbers = ledger.numbers
        self._bounds = np.array(bounds)
        self._noted: list[float] = []

    def note(self, seconds: float) -> None:
        """Note a duration."""
        self._noted.append(seconds)
        if len(self._noted) >= NOTES:
            self.settle()

    def settle(self) -> None:
        """Count what was noted."""
        if self._noted:
            noted, self._noted = self._noted, []
            self.add(noted)

    def add(self, seconds: Sequence[float]) -> None:
        """Count durations."""
        values = np.fromiter(seconds, np.float64, len(seconds))
        counts = np.bincount(self._bounds.searchsorted(values))
        for place in np.flatnonzero(counts).tolist():
            self._numbers[self._slots[place]] += int(counts[place])
        self._numbers[self._sum] += float(values.sum())


class Channel:
    """Counts the predictions of one way in."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self._name = name
        self._metrics = metrics
        self._ledger = metrics.ledger
        self._times = Histogram(metrics.ledger, "prediction_model_seconds", name, bounds=MODEL_BOUNDS)
        self._noted: list[tuple[float, Classifier, Sequence[float], Prediction]] = []

    def one(self, model: Classifier, row: Sequence[float], prediction: Prediction, started: float) -> None:
        """Note the answer to one row, which the model was asked for at `started` on the clock `perf_counter`."""
        noted = self._noted
        noted.append((perf_counter() - started, model, row, prediction))
        if len(noted) >= self._metrics.most_noted:
            self.settle()

    def many(self, model: Classifier, rows: NDArray[Any], indices: NDArray[np.intp]) -> None:
        """Count the answers to rows, shape (n, n_features), of finite numbers; `indices` are those of their labels.

        Of the rows at most `WATCHED_ROWS` are compared with the training data, evenly spaced.
        """
        if not len(rows):
            return
        labels = model.labels
        if len(labels) <= FEW_LABELS:
            counts = [int(np.count_nonzero(indices == index)) for index in range(len(labels))]
        else:
            counts = np.bincount(indices, minlength=len(labels)).tolist()
        for label, count in zip(labels, counts, strict=True):
            if count:
                self._count(label, count)
        self._metrics.watch(model, rows[:: -(-len(rows) // min(WATCHED_ROWS, self._metrics.most_noted))])

    def model_time(self, started: float) -> None:
        """Note the time that the model took for a slice of rows, asked for at `started`."""
        self._times.note(perf_counter() - started)

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
        self._ledger.add(1, "prediction_errors", self._name, code)

    def settle(self) -> None:
        """Count what was noted."""
        self._times.settle()
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        seconds, models, rows, predictions = zip(*noted, strict=True)
        self._times.add(seconds)
        # Answers of a decision table are shared objects: there are fewer of them than there were questions.
        for prediction, count in Counter(predictions).items():
            self._count(prediction.label, count)
        model = self._metrics.model
        if models.count(model) < len(models):  # some are of the one before
            rows = tuple(row for row, of in zip(rows, models, strict=True) if of is model)
        if model is not None and rows:
            width = len(model.features)
            values = np.fromiter(chain.from_iterable(rows), np.float32, width * len(rows))
            self._metrics.watch(model, values.reshape(-1, width))

    def _count(self, label: str, count: int) -> None:
        self._ledger.add(count, "predictions", label, self._name)


class Metrics:
    """Everything that one process counts.

    Args:
        folder: where the processes of a service share what they count; without it this one is alone.
        drift_half_life_s: how fast the inputs of the past fade.

    Attributes:
        model: the one that answers.
        most_noted: of how many rows of this model a note is kept at most.
    """

    most_noted = NOTES

    def __init__(self, folder: Path | None = None, *, drift_half_life_s: float = 86_400.0) -> None:
        self.ledger = Ledger(folder)
        self._folder = folder
        self._half_life_s = drift_half_life_s
        self._channels = [Channel(name, self) for name in CHANNELS]
        self.page, self.fragment, self.json, self.stream, self.stream_binary, self.inference, self.score = (
            self._channels
        )
        self._requests: list[tuple[Any, int, float]] = []
        self._request_times: dict[tuple[str, int], Histogram] = {}
        self._frames = {
            kind: Histogram(self.ledger, "stream_frame_duration_seconds", kind, bounds=SERVICE_BOUNDS)
            for kind in ("text", "binary")
        }
        self.model: Classifier | None = None
        self._counts: Counts | None = None
        # Rows that wait to be compared with the training data.
        self._waiting: list[NDArray[np.float32]] = []
        self._n_waiting = 0
        self._shared_at = 0.0
        self._drift_path = self.ledger.path.with_suffix(".drift") if self.ledger.path else Path()
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
        """Note an HTTP request that took from `started` on, and its route; None matched no route."""
        noted = self._requests
        noted.append((route, status, perf_counter() - started))
        if len(noted) >= NOTES:
            self._settle_requests()

    def frame(self, kind: str, started: float) -> None:
        """Note a frame, `text` or `binary`, that was received at `started` and answered by now."""
        self._frames[kind].note(perf_counter() - started)

    def frame_sent(self, kind: str) -> None:
        """Count a frame that was sent and is no prediction: `model` or `error`."""
        self.ledger.add(1, "stream_frames", kind)

    @contextlib.contextmanager
    def socket(self) -> Iterator[None]:
        """Count a websocket for as long as it is open."""
        self.ledger.add(1, "stream_sockets_opened")
        self.ledger.add(1, "stream_sockets")
        try:
            yield
        finally:
            self.ledger.add(-1, "stream_sockets")

    def refused(self, status: int) -> None:
        """Count a connection, request, handshake or frame that was turned away at the door, with this status."""
        self.ledger.add(1, "refusals", str(status))

    def unhandled(self) -> None:
        """Count an exception that nobody expected."""
        self.ledger.add(1, "unhandled_exceptions")

    def model_loaded(self, model: Classifier) -> None:
        """Take note of the model that answers from now on; its inputs are counted anew."""
        self.settle()
        if self.model is not None:
            self.ledger.add(1, "model_replacements")
            self.ledger.set(0, "model", self.model.name, self.model.version)
        self.model = model
        self.most_noted = min(NOTES, max(1, NOTED_VALUES // len(model.features)))
        self._counts = Counts(model.version, model.features, half_life_s=self._half_life_s)
        self._take_over(self._counts)
        for feature in model.features:
            self.ledger.slot("model_input_values_outside", feature.key)
        self.ledger.set(1, "model", model.name, model.version)
        self.ledger.set(time.time(), "model_loaded_timestamp_seconds")

    def model_load_failed(self) -> None:
        """Count a model file that was refused."""
        self.ledger.add(1, "model_load_failures")

    # --- inputs against the training data

    def watch(self, model: Classifier, rows: NDArray[Any]) -> None:
        """Have rows, shape (n, n_features), compared with the training data."""
        if model is self.model:
            # A copy: it may be a view of something large.
            self._waiting.append(rows.astype(np.float32))
            self._n_waiting += len(rows)
            if self._n_waiting >= self.most_noted:
                self._compare()

    def drift(self) -> DriftReport:
        """Return what is known about the inputs of the model, of all processes."""
        assert self._counts is not None
        assert self.model is not None
        self.settle()
        counts = Counts(self.model.version, self.model.features, half_life_s=self._half_life_s)
        counts.take(drift.snapshot(self._counts))
        for path in self._folder.glob("*.drift") if self._folder else ():
            if path != self._drift_path:
                with contextlib.suppress(FileNotFoundError):
                    counts.take(path.read_bytes())
        return drift.report(self.model.card, counts)

    # --- time goes by

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Count once a second what was noted, and once more at the end."""
        ticking = asyncio.create_task(self._tick_on())
        try:
            yield
        finally:
            ticking.cancel()
            self.tick()
            self.ledger.close()

    def tick(self) -> None:
        """Count what was noted, and leave for other processes what they cannot see by themselves."""
        self.settle()
        self.ledger.set(time.process_time(), "process_cpu_seconds")
        if self._folder is not None and self._counts is not None and self._counts.at > self._shared_at:
            self._shared_at = self._counts.at
            new = self._drift_path.with_suffix(".new")
            new.write_bytes(drift.snapshot(self._counts))
            new.replace(self._drift_path)

    def settle(self) -> None:
        """Count what was noted."""
        for channel in self._channels:
            channel.settle()
        for times in self._frames.values():
            times.settle()
        self._settle_requests()
        self._compare()

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def _take_over(self, counts: Counts) -> None:
        """Add what processes have seen of the inputs whose ledgers are folded already; nobody else will."""
        for path in self._folder.glob("*.drift") if self._folder else ():
            if not path.with_suffix(".numbers").exists():
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    claimed = path.rename(self._drift_path.with_suffix(".taken"))
                    counts.take(claimed.read_bytes())
                    claimed.unlink()

    def _settle_requests(self) -> None:
        noted, self._requests = self._requests, []
        by_route: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        for route, status, seconds in noted:
            by_route[template_of(route), status].append(seconds)
        for (template, status), times in by_route.items():
            if (template, status) not in self._request_times:
                self._request_times[template, status] = Histogram(
                    self.ledger, "http_request_duration_seconds", template, str(status), bounds=SERVICE_BOUNDS
                )
            self._request_times[template, status].add(times)

    def _compare(self) -> None:
        if not self._waiting or self._counts is None or self.model is None:
            return
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        watched = self._counts.add(np.concatenate(waiting))
        self.ledger.add(watched.rows, "model_input_samples")
        if watched.rows_outside:
            self.ledger.add(watched.rows_outside, "model_input_samples_outside")
            for index in np.flatnonzero(watched.values_outside).tolist():
                count = int(watched.values_outside[index])
                self.ledger.add(count, "model_input_values_outside", self.model.features[index].key)


def template_of(route: Any) -> str:
    """Return the template of a route's path, which holds nothing that was typed; that of no route is `UNMATCHED`."""
    return UNMATCHED if route is None else str(route.path)
