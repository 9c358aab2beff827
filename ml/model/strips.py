"""The answers along each feature of a row, all others held: one strip of pieces a feature."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier

# More pieces of a strip cannot be told apart on a screen.
MOST_PIECES = 128
# Rows of many features are long: this many numbers take 8 MB as float32.
MAX_VALUES = 2_000_000


@dataclass(frozen=True, slots=True)
class Strip:
    """The answers along one feature, from the lowest value in training to the highest, or one for each choice.

    Attributes:
        ends: n + 1 ascending values between which the n pieces lie; a piece has its upper end. Of a category, the
            positions from 0 to the number of its choices.
        indices: n positions of labels; 0 for a quantity.
        answers: n probabilities of that label, or quantities.
    """

    ends: Sequence[float]
    indices: Sequence[int]
    answers: Sequence[float]


def strips(model: Classifier, row: Sequence[float]) -> list[Strip]:
    """Return the strip of each feature through `row`, as the validator returns it. Cuts beyond a bound are left out."""
    most = max(2, min(MOST_PIECES, MAX_VALUES // len(row) ** 2))
    ends = [_ends(feature, bounds, most) for feature, bounds in zip(model.features, model.cuts.bounds, strict=True)]
    sizes = [len(found) - 1 for found in ends]
    rows = np.tile(np.array(row, dtype=np.float64), (sum(sizes), 1))
    starts = np.cumsum([0, *sizes]).tolist()
    for number, (feature, found, start) in enumerate(zip(model.features, ends, starts, strict=False)):
        tried = range(len(feature.choices)) if feature.choices else found[1:]
        rows[start : start + len(tried), number] = tried
    batch = model.predict_batch(rows)
    answers = batch.outputs[np.arange(len(rows)), batch.indices]  # of a quantity, that is the only one
    return [
        Strip(found, batch.indices[start : start + size].tolist(), answers[start : start + size].tolist())
        for found, start, size in zip(ends, starts, sizes, strict=False)
    ]


def _ends(feature: TrainedFeature, bounds: Sequence[float], most: int) -> Sequence[float]:
    """Return the ends of the pieces along a feature with these bounds, see `Cuts`."""
    if feature.choices:
        return range(len(feature.choices) + 1)
    inside = bounds[bisect_left(bounds, feature.low) : bisect_left(bounds, feature.high)]
    if len(inside) >= most:
        inside = [inside[place] for place in _evenly(len(inside), most - 1)]
    return [feature.low, *inside, feature.high]


def _evenly(size: int, most: int) -> NDArray[np.intp]:
    return np.linspace(0, size - 1, most).round().astype(np.intp)
