"""A forest compiled to an exact decision table.

Between its cuts a forest is constant. With few features the cells between them can be listed: 26 x 26 x 30 x 21 for
Iris. Painting each leaf's box into the cells in the order of the trees adds the same float64 numbers in the same order
as scikit-learn does, so the sums, and the probabilities after one division, have the same bits. The cells share few
distinct outcomes; an answer is one bisection a feature and one look-up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf, prod
from operator import mul

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import Cuts
from ml.model.forest import LEAF, Forest

MAX_CELLS = 1_000_000
# Painting takes one float64 a cell and label, and as much again while distinct outcomes are found.
MAX_SUMS = 10_000_000
# Every tree paints every cell once: 43 million paintings take 0.1 s for Iris.
MAX_PAINTINGS = 200_000_000


class DecisionTable:
    """Outcomes by cell.

    Attributes:
        probabilities: shape (n_outcomes, n_labels), float64: the distinct answers that the forest can give.
    """

    def __init__(self, forest: Forest, cuts: Cuts) -> None:
        self._cuts = cuts
        shape = tuple(size + 1 for size in cuts.sizes)
        sums = _paint(forest, cuts, shape)
        distinct, outcome = _distinct_columns(sums.reshape(forest.n_labels, -1))
        self.probabilities: NDArray[np.float64] = np.ascontiguousarray(distinct.T) / forest.n_trees
        self._outcome: NDArray[np.int32] = outcome.astype(np.int32)
        strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
        # Lists and a memoryview: reading one element of a NumPy array costs more than a bisection.
        self._strides = strides
        self._bounds = cuts.bounds
        self._outcome_view = memoryview(self._outcome.data)

    @staticmethod
    def fits(forest: Forest, cuts: Cuts, max_cells: int = MAX_CELLS) -> bool:
        """Tell whether the table stays within `max_cells` and can be painted in a moment."""
        cells = prod(size + 1 for size in cuts.sizes)
        return cells <= max_cells and cells * forest.n_trees <= MAX_PAINTINGS and cells * forest.n_labels <= MAX_SUMS

    def outcome(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> int:
        """Return the outcome of one row of finite float64 values, whose ranks may be known already."""
        known = map(bisect_left, self._bounds, row) if ranks is None else ranks
        outcome: int = self._outcome_view[sum(map(mul, known, self._strides))]
        return outcome

    def label_grid(self, indices: NDArray[np.intp]) -> LabelGrid:
        """Return the label of each cell, given the label of each outcome: shape (n_outcomes,)."""
        return LabelGrid(indices.astype(np.uint8).take(self._outcome), [size + 1 for size in self._cuts.sizes])

    def outcomes(self, rows: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the outcome of each row: shape (n_rows, n_features) in, (n_rows,) out."""
        columns = np.ascontiguousarray(rows.T)
        cells = np.zeros(len(rows), dtype=np.int32)
        for feature, stride in enumerate(self._strides):
            cells += self._cuts.ranks(feature, columns[feature]) * np.int32(stride)
        return self._outcome.take(cells)


class LabelGrid:
    """The position of the label in each cell of a decision table, one axis a feature."""

    MAX_LABELS = 256

    def __init__(self, labels: NDArray[np.uint8], shape: Sequence[int]) -> None:
        self._labels = labels.tobytes()
        self._shape = tuple(shape)
        self._strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]

    def lines(self, ranks: Sequence[int]) -> list[bytes]:
        """Return the labels along each axis through the cell with these ranks, one byte each."""
        cell = sum(map(mul, ranks, self._strides))
        lines = []
        for rank, size, stride in zip(ranks, self._shape, self._strides, strict=True):
            first = cell - rank * stride
            lines.append(self._labels[first : first + size * stride : stride])
        return lines

    def nearest_other(
        self,
        row: Sequence[float],
        ranks: Sequence[int],
        *,
        bounds: Sequence[Sequence[float]],
        spans: Sequence[float],
    ) -> tuple[int, int, int] | None:
        """Return the nearest interval with another label along any one axis: axis, rank and label, or None.

        Args:
            row: the values, and `ranks` their ranks.
            bounds: see `Cuts.bounds`.
            spans: what the distance along each axis is a fraction of.
        """
        labels = self._labels
        cell = sum(map(mul, ranks, self._strides))
        own = labels[cell : cell + 1]
        nearest, found = inf, None
        for axis, (value, rank, size, stride) in enumerate(zip(row, ranks, self._shape, self._strides, strict=True)):
            first = cell - rank * stride
            line = labels[first : first + size * stride : stride]
            # Stripping bytes is several times as fast as searching a short array.
            below = line[:rank].rstrip(own)
            if below:
                other = len(below) - 1
                distance = (value - bounds[axis][other]) / spans[axis]
                if distance < nearest:
                    nearest, found = distance, (axis, other, below[-1])
            above = line[rank:].lstrip(own)
            if above:
                other = size - len(above)
                distance = (bounds[axis][other - 1] - value) / spans[axis]
                if distance < nearest:
                    nearest, found = distance, (axis, other, above[0])
        return found

    def plane(self, ranks: Sequence[int], *, x: int, y: int) -> NDArray[np.uint8]:
        """Return the labels over the axes x and y through the cell with these ranks, shape (size of y, size of x)."""
        labels = np.frombuffer(self._labels, dtype=np.uint8).reshape(self._shape)
        index = tuple(slice(None) if axis in (x, y) else rank for axis, rank in enumerate(ranks))
        return labels[index].T if x < y else labels[index]


def _paint(forest: Forest, cuts: Cuts, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the sum of leaf probabilities by label and cell: shape (n_labels, *shape)."""
    sums = np.zeros((forest.n_labels, *shape))
    whole = [(0, size) for size in shape]
    boxes: dict[int, list[tuple[int, int]]] = {int(root): whole for root in forest.roots}
    leaves = iter(forest.probabilities.tolist())
    nodes = zip(
        forest.feature.tolist(), cuts.node_rank.tolist(), forest.left.tolist(), forest.right.tolist(), strict=True
    )
    for node, (feature, rank, left, right) in enumerate(nodes):
        box = boxes.pop(node)
        if feature != LEAF:
            start, stop = box[feature]
            middle = min(max(rank + 1, start), stop)
            boxes[left] = [*box[:feature], (start, middle), *box[feature + 1 :]]
            boxes[right] = [*box[:feature], (middle, stop), *box[feature + 1 :]]
            continue
        where = tuple(slice(start, stop) for start, stop in box)
        for label, probability in enumerate(next(leaves)):
            if probability:  # adding 0.0 changes no bit
                sums[label][where] += probability
    return sums


def _distinct_columns(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the distinct columns of (n_labels, n_cells) and, for each cell, the index of its column.

    Sorting one 64-bit hash a column is ten times as fast as sorting columns; the hash is checked afterwards.
    """
    bits = sums.view(np.uint64)
    hashes = np.zeros(bits.shape[1], dtype=np.uint64)
    for row in bits:
        hashes ^= row
        hashes *= np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, odd: mixes upwards
        hashes ^= hashes >> np.uint64(32)
    _, first, index = np.unique(hashes, return_index=True, return_inverse=True)
    distinct = sums[:, first]
    if all(np.array_equal(distinct[label].take(index), row) for label, row in enumerate(sums)):
        return distinct, index
    distinct, index = np.unique(sums, axis=1, return_inverse=True)  # two columns shared a hash
    return distinct, index
