"""Drift: the distance of recent inputs from the training data, feature by feature.

The population stability index compares the shares of values between quantiles with those of the training data, a tenth
each (Siddiqi, "Credit Risk Scorecards", 2006, who also has the thresholds of 0.1 and 0.25).

The values of a category are counted by choice instead: its most frequent choices have a bin each, the others have one
together. Values that are missing, where that is allowed, and words not seen in training have a last bin.

A training quantile is often a value that many rows have. Values equal to a quantile are therefore counted apart, and
divided between its two sides as near to the training shares as they can be: inputs like the training data give 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.model.card import Card, TrainedFeature
from web.metrics.counts import TINY, Counts, Source, bins_of, frequent_choices

# A share below this counts as this: the index takes logarithms of shares, and an empty bin has none. One value in a
# thousand outside the training range then adds nothing, one in twenty 0.19.
LEAST_SHARE = 0.001
# By chance alone the index is about (bins - 1) * (1 / samples + 1 / training rows) (Yurdakul, "Statistical properties
# of population stability index", 2018): with fewer samples they alone would take a fifth of what "stable" allows.
LEAST_SAMPLES = 500
STABLE_BELOW = 0.1
MODERATE_BELOW = 0.25

Verdict = Literal["too few samples", "stable", "moderate", "shifted", "no training data"]


class FeatureDrift(msgspec.Struct, frozen=True):
    """One feature's inputs against its training data.

    Attributes:
        psi: the population stability index; None while there are too few samples.
        outside: the share of values outside the training range, or of words not seen in training; None without samples.
        missing: the share of samples without a value; None without samples.
        shares: the shares of values below the training range, between each two quantiles, and above the range; or those
            of each of `choices`, and of all other choices if there are any. Where values may be missing, and for a
            category, the last one is the share of missing values and unknown words.
        expected: the same of the training data.
        choices: the choices of a category that have a share each; none for a number.
    """

    feature: str
    title: str
    verdict: Verdict
    psi: float | None
    outside: float | None
    missing: float | None
    shares: tuple[float, ...]
    expected: tuple[float, ...]
    choices: tuple[str, ...]


class InputDrift(msgspec.Struct, frozen=True):
    """The inputs of one source against the training data.

    Attributes:
        source: the page, where people type; or programs, files included.
        samples: the number of samples in the shares, faded: a sample as old as the half-life counts half. Of the page,
            where people enter one value after the other, it is the number of values of the feature with most of them.
        by_chance: the approximate index, without any drift, of the feature with fewest samples of those with an index.
        features: none of a model of which no training rows are known: its samples are not counted.
    """

    source: Source
    samples: float
    by_chance: float | None
    verdict: Verdict
    features: tuple[FeatureDrift, ...]


class DriftReport(msgspec.Struct, frozen=True):
    """The inputs of a model against its training data.

    Attributes:
        processes: the number of processes whose inputs these are: those of this service alone. Another replica of it,
            behind the same proxy, has a report of its own.
        at: when it was made.
        least_samples: the number of samples of a source below which there is no index.
        verdict: the worse one of the sources.
    """

    model: str
    version: str
    processes: int
    at: datetime
    least_samples: int
    half_life_s: float
    verdict: Verdict
    sources: tuple[InputDrift, ...]


def report(
    card: Card, version: str, sources: Sequence[InputDrift], *, half_life_s: float, processes: int = 1
) -> DriftReport:
    """Return the drift report of the sources."""
    return DriftReport(
        model=card.name,
        version=version,
        processes=processes,
        at=datetime.now(UTC).replace(microsecond=0),
        least_samples=LEAST_SAMPLES,
        half_life_s=half_life_s,
        verdict=_worst(sources),
        sources=tuple(sources),
    )


def drift_of(card: Card, counts: Counts) -> InputDrift:
    """Return the drift of counts."""
    if card.report is None:
        return InputDrift(counts.source, 0.0, None, "no training data", ())
    samples = counts.counts.sum(axis=1)
    features = tuple(
        _feature_drift(feature, shares, places)
        for feature, shares, places in zip(card.features, shares_of(card.features, counts), counts.counts, strict=True)
    )
    training_rows = card.report.train_rows or card.report.test_rows
    bins = max(sum(map(bool, feature.expected)) for feature in features)
    fewest = samples[samples >= LEAST_SAMPLES].min(initial=np.inf)
    chance = (bins - 1) * (1 / float(fewest) + 1 / training_rows) if np.isfinite(fewest) else None
    return InputDrift(
        source=counts.source,
        samples=round(float(samples.max()), 1),
        by_chance=None if chance is None else round(chance, 4),
        verdict=_worst(features),
        features=features,
    )


def _worst(found: Sequence[FeatureDrift] | Sequence[InputDrift]) -> Verdict:
    verdicts: tuple[Verdict, ...] = ("shifted", "moderate", "stable", "too few samples", "no training data")
    seen = {one.verdict for one in found}
    return next(verdict for verdict in verdicts if verdict in seen)


def _feature_drift(feature: TrainedFeature, shares: NDArray[np.float64], places: NDArray[np.float64]) -> FeatureDrift:
    has_index = places.sum() >= LEAST_SAMPLES
    expected = expected_of(feature)
    psi = float(stability_index(shares, expected))
    n_values = max(float(places.sum()), TINY)
    outside = places[0] if feature.choices else places[0] + places[2 * len(feature.quantiles)]
    return FeatureDrift(
        feature=feature.key,
        title=feature.title,
        verdict=verdict_of(psi) if has_index else "too few samples",
        psi=round(psi, 4) if has_index else None,
        outside=round(float(outside) / n_values, 6) if places.any() else None,
        missing=round(float(places[-1]) / n_values, 6) if places.any() else None,
        shares=_rounded(shares.tolist()) if places.any() else (),
        expected=_rounded(expected.tolist()),
        choices=tuple(feature.choices[position] for position in frequent_choices(feature)),
    )


def shares_of(features: Sequence[TrainedFeature], counts: Counts) -> list[NDArray[np.float64]]:
    """Return the shares of each feature's values in its bins, as in `FeatureDrift`."""
    quantiles = np.array([feature.quantiles for feature in features], dtype=np.float32)
    n_values = np.maximum(counts.counts.sum(axis=1, keepdims=True), TINY)
    places = counts.counts / n_values
    missing = places[:, -1:]
    present = places[:, : 2 * quantiles.shape[1] + 1] / np.maximum(1 - missing, TINY)
    between = shares_between(quantiles, present) * (1 - missing)
    shares = []
    for feature, inner, own in zip(features, between, places, strict=True):
        if feature.choices:
            n_bins = int(bins_of(feature).max())
            shares.append(np.array([*own[1 : n_bins + 1], own[0] + own[-1]]))
        else:
            shares.append(np.append(inner, own[-1]) if feature.has_gaps else inner)
    return shares


def expected_of(feature: TrainedFeature) -> NDArray[np.float64]:
    """Return the shares of the training rows in a feature's bins."""
    missing, present = feature.gap_share, 1 - feature.gap_share
    if not feature.choices:
        steps = len(feature.quantiles) - 1
        inner = [0.0, *[present / steps] * steps, 0.0]
        return np.array([*inner, missing] if feature.has_gaps else inner)
    counts = np.bincount(bins_of(feature)[1:], weights=feature.counts)[1:]
    return np.array([*(counts * present / max(counts.sum(), TINY)), missing])


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


def _rounded(shares: Sequence[float]) -> tuple[float, ...]:
    return tuple([round(share, 6) for share in shares])
