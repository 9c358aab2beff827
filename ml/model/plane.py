"""The answers over two features of a model, with the others held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.forest import LEAF, Forest
from ml.model.loaded import LoadedModel

MAX_PLANE_ROWS = 16_384
# Of a model without trees.
MAX_SCORES = 150_000


@dataclass(frozen=True, slots=True)
class Plane:
    """The answers over two features, all others held.

    Attributes:
        x_cuts, y_cuts: ascending, shapes (n_x,) and (n_y,): where the answer can change. Those of a category are in the
            middle between the positions of its choices.
        indices: shape (n_y + 1, n_x + 1): the position of the label in each cell between the cuts.
        answers: the probability of that label in each cell, or the quantity, same shape.
        exact: False when cuts were left out to keep the plane small.
    """

    x_cuts: NDArray[np.floating[Any]]
    y_cuts: NDArray[np.floating[Any]]
    indices: NDArray[np.integer]
    answers: NDArray[np.float64]
    exact: bool


def smooth(
    model: LoadedModel, row: Sequence[float], *, x: int, xs: NDArray[np.float64], y: int, ys: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the log odds of each label, or the quantity, over values of two features, all others held.

    Shape (n_labels or 1, n_ys, n_xs). None for a model whose scores are not polynomials along both features.
    """
    scores = model.scores
    if scores is None or any(model.features[side].choices or not scores.is_closed(side) for side in (x, y)):
        return None
    found = scores.log_odds(scores.plane(np.array(row, dtype=np.float64), x, xs, y, ys))
    return found.T.reshape(-1, len(ys), len(xs))


@dataclass(frozen=True, slots=True)
class _Side:
    """One feature of a plane: its cuts, one value in each interval between them, and whether none was left out."""

    cuts: NDArray[np.floating[Any]]
    values: NDArray[np.floating[Any]]
    exact: bool = True
    is_category: bool = False


def plane(model: LoadedModel, row: Sequence[float], *, x: int, y: int, max_rows: int = MAX_PLANE_ROWS) -> Plane:
    """Return the answers over the features `x` and `y`, given by position, with the others held at the row's values.

    With more than `max_rows` cells, only the cuts count that a tree meets with the other values; with still more of
    them, cuts are left out evenly, and the plane says that it is not exact.
    """
    if model.scores is not None:
        return _of_scores(model, row, x=x, y=y)
    whole = [_side(model, side, row) for side in (x, y)]
    if len(whole[0].values) * len(whole[1].values) > max_rows:
        met = _met(model, row, x, y)
        whole = [_side(model, side, row, met=met) for side in (x, y)]
    reach = math.isqrt(max_rows)
    # A category has a cell for each choice, whatever the other side has, and so has a side that is short enough.
    sizes = [len(side.values) if side.is_category else min(len(side.values), reach) for side in whole]
    across, up = (_thinned(side, max(1, max_rows // other - 1)) for side, other in zip(whole, sizes[::-1], strict=True))
    exact = across.exact and up.exact
    rows = np.tile(np.array(row, dtype=model.cuts.dtype), (len(across.values) * len(up.values), 1))
    rows[:, x] = np.tile(across.values, len(up.values))
    rows[:, y] = np.repeat(up.values, len(across.values))
    batch, shape = model.predict_batch(rows), (len(up.values), len(across.values))
    answers = batch.outputs[np.arange(len(rows)), batch.indices]  # of a quantity, that is the only one
    return Plane(across.cuts, up.cuts, batch.indices.reshape(shape), answers.reshape(shape), exact)


def _of_scores(model: LoadedModel, row: Sequence[float], *, x: int, y: int) -> Plane:
    """Return the plane of a model whose scores are sums of one part a feature: they are added, not looked up."""
    scores = model.scores
    assert scores is not None
    most = math.isqrt(MAX_SCORES // (len(model.labels) or 1))
    across, up = (_thinned(_side(model, feature, row), most) for feature in (x, y))
    values = (side.values.astype(np.float64) for side in (across, up))
    sums = scores.plane(np.array(row, dtype=np.float64), x, next(values), y, next(values))
    answers, shape = scores.answers(sums), (len(up.values), len(across.values))
    indices = scores.indices(sums, answers)
    answers = answers[np.arange(len(answers)), indices]
    return Plane(across.cuts, up.cuts, indices.reshape(shape), answers.reshape(shape), across.exact and up.exact)


def _side(model: LoadedModel, feature: int, row: Sequence[float], *, met: NDArray[np.integer] | None = None) -> _Side:
    """Return a side with the cuts of its feature, all or those of the nodes `met`; a category has all of its own."""
    choices = len(model.features[feature].choices)
    if choices:
        positions = np.arange(choices, dtype=np.float32)
        return _Side(positions[:-1] + np.float32(0.5), positions, is_category=True)
    lowest = int(model.cuts.has_missing[feature])
    cuts, values = model.cuts.values[feature][lowest:], model.cuts.between(feature, row[feature])[lowest:]
    if met is None:
        return _Side(cuts, values)
    assert isinstance(model.predictor, Forest)
    ranks = np.unique(model.cuts.node_rank[met[model.predictor.feature[met] == feature]]) - lowest
    ranks = ranks[(ranks >= 0) & (ranks < len(cuts))]  # a threshold of infinity is no cut
    return _Side(cuts[ranks], values[[*ranks, -1]])


def _met(model: LoadedModel, row: Sequence[float], x: int, y: int) -> NDArray[np.integer]:
    """Return the nodes that trees can meet with any values of two features, and the row's values of the others."""
    forest, cuts = model.predictor, model.cuts
    assert isinstance(forest, Forest)
    ranks = np.array(cuts.ranks_of(row))
    # At a node with a set both ways are taken, which adds some nodes and changes no answer.
    goes_both = np.isin(np.arange(forest.n_features), [x, y, *forest.set_features()])
    level: NDArray[np.integer] = forest.roots
    met = []
    while len(level):
        nodes = level[forest.feature[level] != LEAF]
        met.append(nodes)
        rank, both = ranks[forest.feature[nodes]], goes_both[forest.feature[nodes]]
        goes_left = (cuts.node_first[nodes] <= rank) & (rank <= cuts.node_rank[nodes])
        level = np.concatenate([forest.left[nodes[goes_left | both]], forest.right[nodes[~goes_left | both]]])
    return np.concatenate(met)


def _thinned(side: _Side, most: int) -> _Side:
    size = len(side.cuts)
    if size <= most or side.is_category:
        return side
    kept = np.linspace(0, size - 1, most).round().astype(np.intp)
    return _Side(side.cuts[kept], side.values[[*kept, -1]], exact=False)
