"""The labels over two features of a model, with the others held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.model.classifier import Classifier
from ml.model.explain import between

MAX_PLANE_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Plane:
    """The labels over two features, all others held.

    Attributes:
        x_cuts, y_cuts: ascending, shapes (n_x,) and (n_y,): where the label can change.
        indices: shape (n_y + 1, n_x + 1): the position of the label in each cell between the cuts.
        exact: False when cuts were left out to keep the plane small.
    """

    x_cuts: NDArray[np.float32]
    y_cuts: NDArray[np.float32]
    indices: NDArray[np.integer]
    exact: bool


def plane(model: Classifier, row: Sequence[float], *, x: int, y: int, max_rows: int = MAX_PLANE_ROWS) -> Plane:
    """Return the labels over the features `x` and `y`, given by position, with the others held at the row's values.

    With more than `max_rows` cells, cuts are left out evenly, and the plane says that it is not exact.
    """
    if model.grid is not None and model.cuts.sizes[x] * model.cuts.sizes[y] <= max_rows:
        ranks = model.cuts.ranks_of(row)
        labels = model.grid.plane(ranks, x=x, y=y)
        return Plane(model.cuts.values[x], model.cuts.values[y], labels, exact=True)
    side = math.isqrt(max_rows)
    x_kept, y_kept = (_thinned(model.cuts.sizes[feature], side - 1) for feature in (x, y))
    x_values, y_values = between(model, x, row), between(model, y, row)
    rows = np.tile(np.array(row, dtype=np.float32), ((len(x_kept) + 1) * (len(y_kept) + 1), 1))
    x_chosen, y_chosen = x_values[[*x_kept, -1]], y_values[[*y_kept, -1]]
    rows[:, x] = np.tile(x_chosen, len(y_chosen))
    rows[:, y] = np.repeat(y_chosen, len(x_chosen))
    return Plane(
        x_cuts=model.cuts.values[x][x_kept],
        y_cuts=model.cuts.values[y][y_kept],
        indices=model.predict_batch(rows).indices.reshape(len(y_chosen), len(x_chosen)),
        exact=len(x_kept) == model.cuts.sizes[x] and len(y_kept) == model.cuts.sizes[y],
    )


def _thinned(size: int, most: int) -> NDArray[np.intp]:
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(np.intp)
