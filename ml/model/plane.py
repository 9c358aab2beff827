"""The answers over two features of a model, with the others held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.model.classifier import Classifier
from ml.model.ends import between

MAX_PLANE_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Plane:
    """The answers over two features, all others held.

    Attributes:
        x_cuts, y_cuts: ascending, shapes (n_x,) and (n_y,): where the answer can change. Those of a category are in the
            middle between the positions of its choices.
        indices: shape (n_y + 1, n_x + 1): the position of the label in each cell between the cuts.
        values: the quantity in each cell, same shape; None for a classifier.
        exact: False when cuts were left out to keep the plane small.
    """

    x_cuts: NDArray[np.float32]
    y_cuts: NDArray[np.float32]
    indices: NDArray[np.integer]
    values: NDArray[np.float64] | None
    exact: bool


@dataclass(frozen=True, slots=True)
class _Side:
    """One feature of a plane: its cuts, one value in each interval between them, and whether none was left out."""

    cuts: NDArray[np.float32]
    values: NDArray[np.float32]
    exact: bool


def plane(model: Classifier, row: Sequence[float], *, x: int, y: int, max_rows: int = MAX_PLANE_ROWS) -> Plane:
    """Return the answers over the features `x` and `y`, given by position, with the others held at the row's values.

    With more than `max_rows` cells, cuts are left out evenly, and the plane says that it is not exact.
    """
    has_grid = model.grid is not None and model.cuts.sizes[x] * model.cuts.sizes[y] <= max_rows
    reach = math.isqrt(max_rows)
    across, up = (
        # A category has a cell for each choice, whatever the other side has.
        _side(model, one, row, most=max(model.cuts.sizes) if has_grid
              else max(1, max_rows // (len(model.features[other].choices) or reach) - 1))
        for one, other in ((x, y), (y, x))
    )  # fmt: skip
    exact = across.exact and up.exact
    if has_grid:
        assert model.grid is not None
        labels = model.grid.plane(model.cuts.ranks_of(row), x=x, y=y)
        columns, lines = (model.cuts.ranks(feature, side.values) for feature, side in ((x, across), (y, up)))
        return Plane(across.cuts, up.cuts, labels[lines][:, columns], None, exact)
    rows = np.tile(np.array(row, dtype=np.float32), (len(across.values) * len(up.values), 1))
    rows[:, x] = np.tile(across.values, len(up.values))
    rows[:, y] = np.repeat(up.values, len(across.values))
    batch, shape = model.predict_batch(rows), (len(up.values), len(across.values))
    values = batch.values.reshape(shape) if model.quantity else None
    return Plane(across.cuts, up.cuts, batch.indices.reshape(shape), values, exact)


def _side(model: Classifier, feature: int, row: Sequence[float], *, most: int) -> _Side:
    choices = len(model.features[feature].choices)
    if choices:
        positions = np.arange(choices, dtype=np.float32)
        return _Side(positions[:-1] + np.float32(0.5), positions, exact=True)
    lowest = int(model.cuts.has_missing[feature])
    cuts, values = model.cuts.values[feature][lowest:], between(model, feature, row)[lowest:]
    kept = _thinned(len(cuts), most)
    return _Side(cuts[kept], values[[*kept, -1]], exact=len(kept) == len(cuts))


def _thinned(size: int, most: int) -> NDArray[np.intp]:
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(np.intp)
