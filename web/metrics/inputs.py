"""The inputs of the served model from one source, compared with its training data. Knows no channels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ml.model.loaded import LoadedModel
from web.metrics import drift
from web.metrics.counts import Counts, Source, snapshot
from web.metrics.drift import InputDrift
from web.metrics.histogram import MOST_RECORDS
from web.metrics.shared import SharedCounters

# To compare rows of so many values takes some four milliseconds.
MOST_VALUES = 65_536


class InputRecorder:
    """Compares rows with the training data of one model, some hundred at a time.

    Args:
        source: where the inputs come from.
        half_life_s: the half-life of past inputs, in seconds.

    Attributes:
        model: the model whose inputs are counted; None before the first.
        most_rows: the largest number of rows that wait for the comparison.
    """

    def __init__(self, source: Source, counters: SharedCounters, *, half_life_s: float) -> None:
        self.source: Source = source
        self._counters = counters
        self._half_life_s = half_life_s
        self.model: LoadedModel | None = None
        self.most_rows = MOST_RECORDS
        self._counts: Counts | None = None
        self._waiting: list[NDArray[np.float32]] = []
        self._n_waiting = 0
        for name in ("model_input_samples", "model_input_samples_outside"):
            counters.add(0, name, source)

    def begin(self, model: LoadedModel) -> None:
        """Count the inputs of another model, starting with the counts of ended processes for this model."""
        self.flush()
        self.model = model
        self.most_rows = min(MOST_RECORDS, max(1, MOST_VALUES // len(model.features)))
        self._counts = self._new_counts(model)
        for inherited in self._counters.inherited:
            self._counts.merge(inherited)
        for feature in model.features:
            self._counters.add(0, "model_input_values_outside", self.source, feature.key)
            if feature.has_gaps:
                self._counters.add(0, "model_input_values_missing", self.source, feature.key)

    def watch(self, model: LoadedModel, rows: NDArray[np.floating]) -> None:
        """Queue rows, shape (n, n_features), for comparison, if they are of the served model."""
        # Without a report there are no training rows to compare with.
        if model is self.model and model.card.report is not None:
            # A copy: it may be a view of something large.
            self._waiting.append(rows.astype(np.float32))
            self._n_waiting += len(rows)
            if self._n_waiting >= self.most_rows:
                self.flush()

    def flush(self) -> None:
        """Compare the waiting rows."""
        if not self._waiting or self._counts is None or self.model is None:
            return
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        watched = self._counts.add(np.concatenate(waiting))
        self._counters.add(watched.rows, "model_input_samples", self.source)
        if watched.rows_outside:
            self._counters.add(watched.rows_outside, "model_input_samples_outside", self.source)
            self._add_by_feature(watched.values_outside, "model_input_values_outside")
        if watched.values_missing.any():
            self._add_by_feature(watched.values_missing, "model_input_values_missing")

    def _add_by_feature(self, counts: NDArray[np.intp], name: str) -> None:
        assert self.model is not None
        for index in np.flatnonzero(counts).tolist():
            self._counters.add(int(counts[index]), name, self.source, self.model.features[index].key)

    def snapshots(self) -> list[bytes]:
        """Return the counts for the reports of other processes."""
        return [] if self._counts is None else [snapshot(self._counts)]

    def drift(self, others: Iterable[bytes]) -> InputDrift:
        """Return the drift of the inputs of this process and of the snapshots of others."""
        assert self.model is not None
        counts = self._new_counts(self.model)
        for other in (*self.snapshots(), *others):
            counts.merge(other)
        return drift.drift_of(self.model.card, counts)

    def _new_counts(self, model: LoadedModel) -> Counts:
        return Counts(model.version, model.features, half_life_s=self._half_life_s, source=self.source)
