"""The metrics of one process: requests, predictions, frames, errors, durations, drift of the inputs.

A prediction takes a microsecond, so counting it must take less: hot paths append to a list, which is flushed every
1,024 entries or every second (measured: half the cost). `web.metrics.exposition` writes the text for Prometheus.
Knows no HTTP but status codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter

from ml.model.loaded import LoadedModel
from web.metrics import drift
from web.metrics.channel import VALUES, Channel
from web.metrics.drift import DriftReport
from web.metrics.histogram import SERVICE_BOUNDS, Histogram, RequestTimes
from web.metrics.inputs import InputRecorder
from web.metrics.shared import SharedCounters

TICK_S = 1.0


class Metrics:
    """All counters of one process.

    Args:
        folder: in which the processes of a service share their counts; None for a single process.
        drift_half_life_s: the half-life of past inputs, in seconds.
    """

    def __init__(self, folder: Path | None = None, *, drift_half_life_s: float = 86_400.0) -> None:
        self.counters = SharedCounters(folder)
        self._half_life_s = drift_half_life_s
        typed = InputRecorder("page", self.counters, half_life_s=drift_half_life_s)
        sent = InputRecorder("programs", self.counters, half_life_s=drift_half_life_s)
        self._inputs = (typed, sent)
        self.page = Channel("page", self.counters, typed)
        self.fragment = Channel("fragment", self.counters, typed)
        self.json = Channel("json", self.counters, sent)
        self.stream = Channel("stream", self.counters, sent)
        self.stream_binary = Channel("stream_binary", self.counters, sent)
        self.inference = Channel("inference", self.counters, sent)
        self.score = Channel("score", self.counters, sent)
        requests = RequestTimes(self.counters)
        self.request = requests.record
        self._frames = {
            kind: Histogram(self.counters, "stream_frame_duration_seconds", kind, bounds=SERVICE_BOUNDS)
            for kind in ("text", "binary")
        }
        self._channels = (
            self.page, self.fragment, self.json, self.stream, self.stream_binary, self.inference, self.score,
        )  # fmt: skip
        self._recorders: tuple[Channel | Histogram | RequestTimes | InputRecorder, ...] = (
            *self._channels, *self._frames.values(), requests, *self._inputs,
        )  # fmt: skip
        self._cpu_s = 0.0
        # These start at 0, since an absent metric would look like an unknown one.
        for name in ("stream_sockets_opened", "unhandled_exceptions", "model_replacements", "model_load_failures"):
            self.counters.add(0, name)
        self.counters.states["stream_sockets",] = 0

    def frame(self, kind: str, started: float) -> None:
        """Record a frame, `text` or `binary`, that was received at `started` and answered by now."""
        self._frames[kind].record(perf_counter() - started)

    def frame_sent(self, kind: str) -> None:
        """Count a frame that was sent and is no prediction: `model` or `error`."""
        self.counters.add(1, "stream_frames", kind)

    @contextlib.contextmanager
    def socket(self) -> Iterator[None]:
        """Count a websocket for as long as it is open."""
        self.counters.add(1, "stream_sockets_opened")
        self.counters.states["stream_sockets",] += 1
        try:
            yield
        finally:
            self.counters.states["stream_sockets",] -= 1

    def refused(self, status: int) -> None:
        """Count a connection, request, handshake or frame that was rejected with this status."""
        self.counters.add(1, "refusals", str(status))

    def unhandled(self) -> None:
        """Count an unexpected exception."""
        self.counters.add(1, "unhandled_exceptions")

    def model_loaded(self, model: LoadedModel) -> None:
        """Record a new served model; its inputs are counted from zero."""
        self.flush()
        before = self._inputs[0].model
        if before is not None:
            self.counters.add(1, "model_replacements")
            del self.counters.states["model", before.name, before.version]
        for channel in self._channels:
            channel.begin()
        # Each model has buckets of its own: without this, every replacement would leave some behind.
        for name in [name for name in self.counters.counts if name[0] == VALUES and name[2] != model.version]:
            del self.counters.counts[name]
        for inputs in self._inputs:
            inputs.begin(model)
        self.counters.inherited.clear()
        self.counters.states["model", model.name, model.version] = 1
        self.counters.states["model_loaded_timestamp_seconds",] = time.time()

    def model_load_failed(self) -> None:
        """Count a rejected model file."""
        self.counters.add(1, "model_load_failures")

    def drift(self) -> DriftReport:
        """Return the drift report over all processes."""
        self.flush()
        _, *others = self.counters.all()
        model = self._inputs[0].model
        assert model is not None
        snapshots = [snapshot for one in others for snapshot in one.extras]
        sources = [inputs.drift(snapshots) for inputs in self._inputs]
        processes = 1 + sum(one.pid is not None for one in others)
        return drift.report(model.card, model.version, sources, half_life_s=self._half_life_s, processes=processes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flush and share the counts once a second, and once more at the end."""
        ticking = asyncio.create_task(self._tick_on())
        try:
            yield
        finally:
            ticking.cancel()
            self.tick()
            self.counters.close()

    def tick(self) -> None:
        """Flush the recorders, and share the counts with the other processes."""
        self.flush()
        cpu_s = time.process_time()
        self.counters.add(cpu_s - self._cpu_s, "process_cpu_seconds")
        self._cpu_s = cpu_s
        self.counters.share(*(snapshot for inputs in self._inputs for snapshot in inputs.snapshots()))

    def flush(self) -> None:
        """Count all recorded events, and compare the waiting rows with the training data."""
        for recorder in self._recorders:
            recorder.flush()

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
