"""Drift: the distance of recent inputs from the training data, feature by feature. Keeps counts, never a sample.

Each feature's values are counted between and at its training quantiles (0 %, 10 %, ... 100 %), below and above them.
The population stability index compares the shares of values between quantiles with those of the training data, a tenth
each (Siddiqi, "Credit Risk Scorecards", 2006, who also has the thresholds of 0.1 and 0.25).

A training quantile is often a value that many rows have. Values equal to a quantile are therefore counted apart, and
divided between its two sides as near to the training shares as they can be: inputs like the training data give 0.

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

from ml.model.card import Card, TrainedFeature

# A share below this counts as this: the index takes logarithms of shares, and an empty bin has none. One value in a
# thousand outside the training range then adds nothing, one in twenty 0.19.
LEAST_SHARE = 0.001
# By chance alone the index is about (bins - 1) * (1 / samples + 1 / training rows) (Yurdakul, "Statistical properties
# of population stability index", 2018): with fewer samples they alone would take a fifth of what "stable" allows.
LEAST_SAMPLES = 500
STABLE_BELOW = 0.1
MODERATE_BELOW = 0.25
# At most so many rows of a batch are compared, evenly spaced, so that the comparison does not slow it down.
WATCHED_ROWS = 256

_TINY = 2.0**-1022  # the smallest normal number: nothing divided by it is nothing

Verdict = Literal["too few samples", "stable", "moderate", "shifted"]


class FeatureDrift(msgspec.Struct, frozen=True):
    """One feature's inputs against its training data.

    Attributes:
        psi: the population stability index; None while there are too few samples.
        outside: the share of values outside the training range; None without samples.
        shares: the shares of values below the training range, between each two quantiles, and above the range.
        expected: the same of the training data.
    """

    feature: str
    title: str
    verdict: Verdict
    psi: float | None
    outside: float | None
    shares: tuple[float, ...]
    expected: tuple[float, ...]


class DriftReport(msgspec.Struct, frozen=True):
    """The inputs of a model against its training data.

    Attributes:
        samples: the number of samples in the shares, faded: a sample as old as the half-life counts half.
        least_samples: the number of samples below which there is no index.
        by_chance: the approximate index of as many samples without any drift.
    """

    model: str
    version: str
    samples: float
    least_samples: int
    half_life_s: float
    by_chance: float | None
    verdict: Verdict
    features: tuple[FeatureDrift, ...]


@dataclass(frozen=True)
class BatchCounts:
    """Counts of one batch: its rows, its rows outside the training range, and its values outside by feature."""

    rows: int
    rows_outside: int
    values_outside: NDArray[np.intp]


class Counts:
    """Counts the values of one model's inputs, feature by feature, at and between the training quantiles.

    Attributes:
        version: the model's version.
        counts: shape (n_features, n_places), float64, faded up to `at`, in seconds since the epoch.
    """

    def __init__(self, version: str, features: Sequence[TrainedFeature], *, half_life_s: float) -> None:
        self.version = version
        self.half_life_s = half_life_s
        # The forest compares float32, and clients may send it: 0.1 of either kind is the same value. Place 0 is below
        # all quantiles, 1 at the first, 2 between it and the second: edges are the quantiles and the next number each.
        with np.errstate(over="ignore"):
            quantiles = np.array([feature.quantiles for feature in features], dtype=np.float32)
            edges = np.concatenate([quantiles, np.nextafter(quantiles, np.float32(np.inf))], axis=1)
        self._edges = list(np.sort(edges, axis=1))
        self._last_place = edges.shape[1]
        self._offsets = (np.arange(len(features)) * (self._last_place + 1))[:, None]
        self.counts = np.zeros((len(features), self._last_place + 1))
        self.at = time.time()

    def add(self, rows: NDArray[np.float32]) -> BatchCounts:
        """Count rows, shape (n, n_features), of finite numbers."""
        self.fade(time.time())
        columns = np.ascontiguousarray(rows.T)
        places = np.array(
            [edges.searchsorted(column, "right") for edges, column in zip(self._edges, columns, strict=True)]
        )
        new = np.bincount((places + self._offsets).ravel(), minlength=self.counts.size).reshape(self.counts.shape)
        self.counts += new
        values_outside = new[:, 0] + new[:, -1]
        rows_outside = 0
        if values_outside.any():
            rows_outside = int(((places == 0) | (places == self._last_place)).any(axis=0).sum())
        return BatchCounts(len(rows), rows_outside, values_outside)

    def merge(self, encoded: bytes) -> None:
        """Add the counts of another process, if they are of the same model."""
        other = msgspec.msgpack.decode(encoded, type=Snapshot)
        if other.version == self.version and len(other.counts) == self.counts.nbytes:
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


def snapshot(counts: Counts) -> bytes:
    """Return counts as bytes for other processes."""
    return msgspec.msgpack.encode(Snapshot(counts.version, counts.at, counts.counts.astype("<f8").tobytes()))


def report(card: Card, counts: Counts) -> DriftReport:
    """Return the drift report of counts."""
    samples = float(counts.counts[0].sum())
    has_index = samples >= LEAST_SAMPLES
    shares, expected = shares_of(card.features, counts), _expected(card.features)
    features = tuple(
        FeatureDrift(
            feature=feature.key,
            title=feature.title,
            verdict=verdict_of(psi) if has_index else "too few samples",
            psi=round(psi, 4) if has_index else None,
            outside=round(row[0] + row[-1], 6) if samples else None,
            shares=_rounded(row) if samples else (),
            expected=_rounded(expected.tolist()),
        )
        for feature, row, psi in zip(
            card.features, shares.tolist(), stability_index(shares, expected).tolist(), strict=True
        )
    )
    verdicts: tuple[Verdict, ...] = ("shifted", "moderate", "stable", "too few samples")
    found = {feature.verdict for feature in features}
    training_rows = card.report.train_rows or card.report.test_rows
    chance = (len(expected) - 3) * (1 / samples + 1 / training_rows) if has_index else None
    return DriftReport(
        model=card.name,
        version=counts.version,
        samples=round(samples, 1),
        least_samples=LEAST_SAMPLES,
        half_life_s=counts.half_life_s,
        by_chance=None if chance is None else round(chance, 4),
        verdict=next(verdict for verdict in verdicts if verdict in found),
        features=features,
    )


def shares_of(features: Sequence[TrainedFeature], counts: Counts) -> NDArray[np.float64]:
    """Return the shares of values below, between each two, and above the training quantiles of each feature.

    The shape is (n_features, n_quantiles + 1).
    """
    quantiles = np.array([feature.quantiles for feature in features], dtype=np.float32)
    return shares_between(quantiles, counts.counts / np.maximum(counts.counts.sum(axis=1, keepdims=True), _TINY))


def shares_between(quantiles: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shares by quantile, of those by place.

    Half of the training values here are 2. So are seven of ten inputs: five go to the upper half, and two to the lower
    one, with those between 1 and 2.

    >>> quantiles = np.float32([[1, 2, 2]])
    >>> below, at_1, between, at_2, above = 0.0, 0.1, 0.2, 0.7, 0.0
    >>> shares_between(quantiles, np.array([[below, at_1, between, 0, at_2, 0, above]])).round(6).tolist()
    [[0.0, 0.5, 0.5, 0.0]]

    Args:
        quantiles: shape (n_features, n_quantiles), each row in order.
        places: shape (n_features, 2 * n_quantiles + 1), as in `Counts`; the share of equal quantiles is in the middle
            of their places.
    """
    is_below = quantiles[:, None, :] < quantiles[:, :, None]
    is_upto = quantiles[:, None, :] <= quantiles[:, :, None]
    at = is_below.sum(axis=2) + is_upto.sum(axis=2)  # the place of values that equal the quantile
    most = np.take_along_axis(np.cumsum(places, axis=1), at, axis=1)
    least = most - np.take_along_axis(places, at, axis=1)
    # Values that equal a quantile may lie on either side of it: as in training, if there are as many.
    divided = np.clip(np.linspace(0, 1, quantiles.shape[1]), least, most)
    ends = np.ones((len(quantiles), 1))
    return np.maximum(np.diff(np.concatenate([0 * ends, divided, ends], axis=1), axis=1), 0.0)


def stability_index(shares: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the population stability index of shares, shape (..., n_bins), against the expected ones, (n_bins,)."""
    shares, expected = np.maximum(shares, LEAST_SHARE), np.maximum(expected, LEAST_SHARE)
    return np.asarray(((shares - expected) * np.log(shares / expected)).sum(axis=-1))


def verdict_of(psi: float) -> Verdict:
    """Return the usual reading of the index."""
    return "stable" if psi < STABLE_BELOW else "moderate" if psi < MODERATE_BELOW else "shifted"


def _expected(features: Sequence[TrainedFeature]) -> NDArray[np.float64]:
    steps = len(features[0].quantiles) - 1
    return np.array([0.0, *[1 / steps] * steps, 0.0])


def _rounded(shares: Sequence[float]) -> tuple[float, ...]:
    return tuple([round(share, 6) for share in shares])


def _left_after(seconds: float, half_life_s: float) -> float:
    return math.pow(0.5, max(0.0, seconds) / half_life_s)
