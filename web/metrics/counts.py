"""Counts of a model's inputs, feature by feature, in the bins of its training rows. Keeps no sample.

Counts fade with a half-life, so that they describe the recent past, however long the service runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.model.card import TrainedFeature
from ml.tables.dataset import UNKNOWN

# As many choices have a bin of their own as there are deciles: more bins would need more samples.
MOST_CHOICES = 10
# At most so many rows of a batch are compared, evenly spaced, so that the comparison does not slow it down.
WATCHED_ROWS = 256

# Where inputs come from: the page, where people type, or programs and files.
Source = Literal["page", "programs"]

# In the place of a value that nobody has entered: it is not counted. A sample has none, since values are finite.
NOT_ENTERED = math.inf

TINY = 2.0**-1022  # the smallest normal number: nothing divided by it is nothing


@dataclass(frozen=True)
class BatchCounts:
    """Counts of one batch: its rows, its rows outside the training range, values outside and missing by feature."""

    rows: int
    rows_outside: int
    values_outside: NDArray[np.intp]
    values_missing: NDArray[np.intp]


class Counts:
    """Counts the values of one model's inputs, feature by feature.

    The places of a number are below, at and between the training quantiles, and above; those of a category are unknown
    words and then each of its bins. Missing values have the last place.

    Args:
        source: where the inputs come from; counts of other sources are not merged.

    Attributes:
        version: the model's version.
        counts: shape (n_features, n_places), float64, faded up to `at`, in seconds since the epoch.
    """

    def __init__(
        self, version: str, features: Sequence[TrainedFeature], *, half_life_s: float, source: Source = "programs"
    ) -> None:
        self.version = version
        self.source = source
        self.half_life_s = half_life_s
        # The forest compares float32, and clients may send it: 0.1 of either kind is the same value. Place 0 is below
        # all quantiles, 1 at the first, 2 between it and the second: edges are the quantiles and the next number each.
        with np.errstate(over="ignore"):
            quantiles = np.array([feature.quantiles for feature in features], dtype=np.float32)
            edges = np.concatenate([quantiles, np.nextafter(quantiles, np.float32(np.inf))], axis=1)
        self._edges = np.sort(edges, axis=1).T[:, :, None]
        self._above = edges.shape[1]
        self._bins = {at: bins_of(feature) for at, feature in enumerate(features) if feature.choices}
        self._categories = np.array([*self._bins], dtype=np.intp)
        self._missing = max([self._above, *(int(bins.max()) for bins in self._bins.values())]) + 1
        self._offsets = (np.arange(len(features)) * (self._missing + 1))[:, None]
        self.counts = np.zeros((len(features), self._missing + 1))
        self.at = time.time()

    def add(self, rows: NDArray[np.float32]) -> BatchCounts:
        """Count rows, shape (n, n_features), as the validator has them, but for values that are `NOT_ENTERED`."""
        self.fade(time.time())
        columns = np.ascontiguousarray(rows.T)
        is_entered = columns != NOT_ENTERED
        places = self._places(np.where(is_entered, columns, np.float32(UNKNOWN)))
        new = np.bincount((places + self._offsets)[is_entered], minlength=self.counts.size).reshape(self.counts.shape)
        self.counts += new
        values_outside = new[:, 0] + new[:, self._above]
        values_outside[self._categories] = new[self._categories, 0]
        rows_outside = 0
        if values_outside.any():
            is_outside = (places == 0) | (places == self._above)
            is_outside[self._categories] = places[self._categories] == 0
            rows_outside = int((is_outside & is_entered).any(axis=0).sum())
        return BatchCounts(len(rows), rows_outside, values_outside, new[:, -1])

    def _places(self, columns: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the places of values, shape (n_features, n): edge by edge, which is faster than feature by feature."""
        is_missing = np.isnan(columns)
        present = np.where(is_missing, np.float32(UNKNOWN), columns)
        places = np.zeros(columns.shape, dtype=np.uint8)
        for edges in self._edges:
            places += present >= edges
        for at, bins in self._bins.items():
            # The first entry is that of unknown words, -1.
            places[at] = bins.take(present[at].astype(np.intp) + 1)
        places[is_missing] = self._missing
        return places

    def merge(self, encoded: bytes) -> None:
        """Add the counts of another process, if they are of the same model and source."""
        other = msgspec.msgpack.decode(encoded, type=Snapshot)
        if (other.version, other.source) == (self.version, self.source) and len(other.counts) == self.counts.nbytes:
            self.fade(max(time.time(), other.at))
            faded = np.frombuffer(other.counts, dtype="<f8") * _left_after(self.at - other.at, self.half_life_s)
            self.counts += faded.reshape(self.counts.shape)

    def fade(self, now: float) -> None:
        """Let the counts fade up to a time in seconds since the epoch."""
        self.counts *= _left_after(now - self.at, self.half_life_s)
        self.at = now


class Snapshot(msgspec.Struct, frozen=True):
    """The counts of one process, as it shares them with the others; `counts` are little-endian float64."""

    version: str
    at: float
    counts: bytes
    source: Source = "programs"  # of the service's last version, too


def snapshot(counts: Counts) -> bytes:
    """Return counts as bytes for other processes."""
    return msgspec.msgpack.encode(
        Snapshot(counts.version, counts.at, counts.counts.astype("<f8").tobytes(), counts.source)
    )


def frequent_choices(feature: TrainedFeature) -> list[int]:
    """Return the positions of the choices that have a bin of their own."""
    by_count = sorted(range(len(feature.choices)), key=lambda position: -feature.counts[position])
    return sorted(by_count[:MOST_CHOICES])


def bins_of(feature: TrainedFeature) -> NDArray[np.intp]:
    """Return the bin of an unknown word, 0, and then of each choice, counted from 1; rare ones share the last."""
    frequent = frequent_choices(feature)
    bins = np.full(len(feature.choices) + 1, len(frequent) + 1)
    bins[0] = 0
    bins[np.array(frequent) + 1] = np.arange(1, len(frequent) + 1)
    return bins


def _left_after(seconds: float, half_life_s: float) -> float:
    return math.pow(0.5, max(0.0, seconds) / half_life_s)
