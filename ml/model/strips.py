"""The answers along each feature of a row, all others held: one strip of pieces a feature."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ml.model.card import TrainedFeature
from ml.model.evaluators import Batch
from ml.model.loaded import MAX_VALUES, LoadedModel

# More pieces of a strip cannot be told apart on a screen.
MOST_PIECES = 128


@dataclass(frozen=True, slots=True)
class Strip:
    """The answers along one feature, from the lowest value in training to the highest, or one for each choice.

    Attributes:
        ends: n + 1 ascending values between which the n pieces lie; a piece has its upper end. Of a category, the
            positions from 0 to the number of its choices.
        indices: n positions of labels; 0 for a quantity.
        answers: n probabilities of that label, or quantities.
        is_coarse: whether cuts were left out, so that an answer may change anywhere in a piece.
    """

    ends: Sequence[float]
    indices: Sequence[int]
    answers: Sequence[float]
    is_coarse: bool = False


def strips(model: LoadedModel, row: Sequence[float]) -> list[Strip]:
    """Return the strip of each feature through `row`, as the validator returns it. Cuts beyond a bound are left out."""
    most = max(2, min(MOST_PIECES, MAX_VALUES // len(row) ** 2))
    ends = [_ends(feature, bounds, most) for feature, bounds in zip(model.features, model.cuts.bounds, strict=True)]
    tried = [
        np.array(found[:-1] if feature.choices else found[1:], dtype=np.float64)
        for feature, (found, _) in zip(model.features, ends, strict=True)
    ]
    batch = _along(model, row, tried)
    answers = batch.outputs[np.arange(len(batch.indices)), batch.indices]  # of a quantity, that is the only one
    starts = np.cumsum([0, *map(len, tried)]).tolist()
    return [
        Strip(found, batch.indices[start:stop].tolist(), answers[start:stop].tolist(), is_coarse)
        for (found, is_coarse), (start, stop) in zip(ends, pairwise(starts), strict=True)
    ]


def _along(model: LoadedModel, row: Sequence[float], tried: Sequence[NDArray[np.float64]]) -> Batch:
    """Return the answers to a row with each of the values tried of a feature, feature after feature."""
    if model.lines and (found := model.lines(row)):
        lines, answers = found
        spans = pairwise(lines.first.tolist())
        places = np.concatenate([
            first + feature + np.searchsorted(lines.cuts[first:stop], values.astype(lines.cuts.dtype))
            for feature, ((first, stop), values) in enumerate(zip(spans, tried, strict=True))
        ])  # fmt: skip
    else:
        features = np.repeat(np.arange(len(row)), [*map(len, tried)])
        is_used = (np.array(model.cuts.sizes) > 0)[features]
        # The row itself comes last: its answer is that to any value of a feature that is not used.
        places = np.where(is_used, np.cumsum(is_used) - 1, -1)
        values = np.append(np.concatenate(tried)[is_used], row[0])
        answers = model.predict_along(row, np.append(features[is_used], 0), values)
    return Batch(answers.indices.take(places), answers.outputs.take(places, axis=0))


def _ends(feature: TrainedFeature, bounds: Sequence[float], most: int) -> tuple[Sequence[float], bool]:
    """Return the ends of the pieces along a feature with these bounds, see `Cuts`, and whether some are left out."""
    if feature.choices:
        return range(len(feature.choices) + 1), False
    inside = bounds[bisect_left(bounds, feature.low) : bisect_left(bounds, feature.high)]
    is_coarse = len(inside) >= most
    if is_coarse:
        places = np.linspace(0, len(inside) - 1, most - 1).round().astype(np.intp)
        inside = [inside[place] for place in places]
    return [feature.low, *inside, feature.high], is_coarse
