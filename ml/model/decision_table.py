"""A forest compiled to an exact decision table.

Between its cuts a forest is constant. With few features the cells between them can be listed: 26 x 26 x 30 x 21 for
Iris. Painting each leaf's box into the cells in the order of the trees adds the same float64 numbers in the same order
as scikit-learn does, so the sums, and the probabilities after one division, have the same bits. The cells share few
distinct outcomes; an answer is one bisection a feature and one look-up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, product
from math import inf, prod
from operator import mul

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import Cuts
from ml.model.forest import LEAF, Forest

MAX_CELLS = 1_000_000
# Painting takes one float64 a cell and label, and as much again while distinct outcomes are found.
MAX_SUMS = 10_000_000
# Every tree paints every cell once: 43 million paintings take 0.03 s for Iris.
MAX_PAINTINGS = 200_000_000


class DecisionTable:
    """Outcomes by cell. Only features with cuts are axes: an array has 64 at most, a table can have many more columns.

    Attributes:
        answers: shape (n_outcomes, n_outputs), float64: the distinct answers that the forest can give.
    """

    def __init__(self, forest: Forest, cuts: Cuts) -> None:
        self._cuts = cuts
        self._features = cuts.features
        sums = _paint(forest, cuts)
        distinct, outcome = _distinct_columns(sums.reshape(forest.n_outputs, -1))
        self.answers: NDArray[np.float64] = np.ascontiguousarray(distinct.T) / forest.n_trees
        self._outcome: NDArray[np.int32] = outcome.astype(np.int32)
        # Lists and a memoryview: reading one element of a NumPy array costs more than a bisection.
        self._strides = _strides(sums.shape[1:])
        self._bounds = [cuts.bounds[feature] for feature in self._features]
        self._outcome_view = memoryview(self._outcome.data)

    @staticmethod
    def fits(forest: Forest, cuts: Cuts, max_cells: int = MAX_CELLS) -> bool:
        """Return whether the table has at most `max_cells` and can be painted quickly."""
        cells = prod(size + 1 for size in cuts.sizes)
        return cells <= max_cells and cells * forest.n_trees <= MAX_PAINTINGS and cells * forest.n_outputs <= MAX_SUMS

    def outcome(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> int:
        """Return the outcome of one row of float64 values, whose ranks may be known already."""
        features = self._features
        if ranks is None:
            own: Iterable[int] = map(bisect_left, self._bounds, map(row.__getitem__, features))
        else:
            own = map(ranks.__getitem__, features)
        outcome: int = self._outcome_view[sum(map(mul, own, self._strides))]
        return outcome

    def label_grid(self, indices: NDArray[np.intp]) -> LabelGrid:
        """Return the label of each cell, given the label of each outcome: shape (n_outcomes,)."""
        return LabelGrid(indices.astype(np.uint8).take(self._outcome), [size + 1 for size in self._cuts.sizes])

    def outcomes(self, rows: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the outcome of each row: shape (n_rows, n_features) in, (n_rows,) out."""
        cells = np.zeros(len(rows), dtype=np.int32)
        columns = np.ascontiguousarray(rows.T if len(self._features) == rows.shape[1] else rows[:, self._features].T)
        for feature, column, stride in zip(self._features, columns, self._strides, strict=True):
            cells += self._cuts.ranks(feature, column) * np.int32(stride)
        return self._outcome.take(cells)


class LabelGrid:
    """The position of the label in each cell of a decision table.

    Args:
        labels: shape (n_cells,), in the order of the features.
        sizes: the number of cells along each feature; a feature without cuts has 1, and is no axis of the table.
    """

    MAX_LABELS = 256

    def __init__(self, labels: NDArray[np.uint8], sizes: Sequence[int]) -> None:
        self._labels = labels.tobytes()
        self._sizes = tuple(sizes)
        self._strides = _strides(sizes)
        axes = enumerate(zip(self._sizes, self._strides, strict=True))
        self._axes = [(feature, size, stride) for feature, (size, stride) in axes if size > 1]

    def lines(self, ranks: Sequence[int]) -> list[bytes]:
        """Return the labels along each feature through the cell with these ranks, one byte each."""
        cell = sum(map(mul, ranks, self._strides))
        lines = []
        for rank, size, stride in zip(ranks, self._sizes, self._strides, strict=True):
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
        """Return the nearest interval with another label along any one feature: feature, rank and label, or None.

        Args:
            row: the values, and `ranks` their ranks.
            bounds: see `Cuts.bounds`.
            spans: the unit of the distance along each feature.
        """
        labels = self._labels
        cell = sum(map(mul, ranks, self._strides))
        own = labels[cell : cell + 1]
        nearest, found = inf, None
        for feature, size, stride in self._axes:
            rank = ranks[feature]
            first = cell - rank * stride
            line = labels[first : first + size * stride : stride]
            # Stripping bytes is several times as fast as searching a short array.
            below = line[:rank].rstrip(own)
            if below:
                other = len(below) - 1
                distance = (row[feature] - bounds[feature][other]) / spans[feature]
                if distance < nearest:
                    nearest, found = distance, (feature, other, below[-1])
            above = line[rank:].lstrip(own)
            if above:
                other = size - len(above)
                distance = (bounds[feature][other - 1] - row[feature]) / spans[feature]
                if distance < nearest:
                    nearest, found = distance, (feature, other, above[0])
        return found

    def plane(self, ranks: Sequence[int], *, x: int, y: int) -> NDArray[np.uint8]:
        """Return the labels over the features x and y through the cell with these ranks: shape (size of y, of x)."""
        held = sum(rank * stride for rank, stride in zip(ranks, self._strides, strict=True))
        first = held - ranks[x] * self._strides[x] - ranks[y] * self._strides[y]
        across, up = (np.arange(self._sizes[feature]) * self._strides[feature] for feature in (x, y))
        plane: NDArray[np.uint8] = np.frombuffer(self._labels, dtype=np.uint8)[first + up[:, None] + across]
        return plane


def _strides(sizes: Sequence[int]) -> list[int]:
    """Return the stride between neighboring cells along each axis, the last one varying fastest."""
    return list(accumulate(reversed(sizes[1:]), mul, initial=1))[::-1] if sizes else []


# The ranks of a box along one axis: from the first up to the last but one, and rank 0 as well if that is apart.
_Stretch = tuple[int, int, bool]


def _paint(forest: Forest, cuts: Cuts) -> NDArray[np.float64]:
    """Return the sum of leaf values by output and cell: shape (n_outputs, *cells along each feature with cuts)."""
    # The features with few nodes last: most boxes are whole along them, so that NumPy adds to long runs of memory.
    order = sorted(cuts.features, key=lambda feature: -np.count_nonzero(forest.feature == feature))
    axis_of = {feature: axis for axis, feature in enumerate(order)}
    whole: list[_Stretch] = [(0, len(cuts.values[feature]) + 1, False) for feature in order]
    sums = np.zeros((forest.n_outputs, *(stop for _, stop, _ in whole)))
    boxes: dict[int, list[_Stretch]] = {int(root): whole for root in forest.roots}
    leaves = iter(forest.values.tolist())
    nodes = zip(
        forest.feature.tolist(), cuts.node_first.tolist(), cuts.node_rank.tolist(),
        forest.left.tolist(), forest.right.tolist(), strict=True,
    )  # fmt: skip
    for node, (feature, first, rank, left, right) in enumerate(nodes):
        box = boxes.pop(node)
        if feature != LEAF:
            axis = axis_of[feature]
            low, high = _divided(box[axis], first, rank)
            boxes[left] = [*box[:axis], low, *box[axis + 1 :]]
            boxes[right] = [*box[:axis], high, *box[axis + 1 :]]
            continue
        values = next(leaves)
        for where in product(*map(_slices, box)):
            for output, value in enumerate(values):
                if value:  # adding 0.0 changes no bit
                    sums[output, ...][where] += value
    return sums.transpose(0, *(1 + axis_of[feature] for feature in cuts.features))


def _divided(box: _Stretch, first: int, rank: int) -> tuple[_Stretch, _Stretch]:
    """Return what of a stretch goes left, where first <= rank of the row <= rank of the node, and what goes right."""
    start, stop, has_zero = box
    middle = min(max(rank + 1, start), stop)
    if not first:
        return (start, middle, has_zero), (middle, stop, False)
    has_zero = has_zero or start == 0
    return (max(start, 1), max(middle, 1), False), (max(middle, 1), stop, has_zero)


def _slices(stretch: _Stretch) -> list[slice]:
    start, stop, has_zero = stretch
    return [slice(0, 1), slice(start, stop)] if has_zero else [slice(start, stop)]


def _distinct_columns(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the distinct columns of (n_outputs, n_cells) and, for each cell, the index of its column.

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
    if all(np.array_equal(distinct[output].take(index), row) for output, row in enumerate(sums)):
        return distinct, index
    distinct, index = np.unique(sums, axis=1, return_inverse=True)  # two columns shared a hash
    return distinct, index
