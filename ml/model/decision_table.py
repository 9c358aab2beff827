"""A forest compiled to an exact decision table.

Between its cuts a forest is constant. With few features the cells between them can be listed: 26 x 26 x 30 x 21 for
Iris. Painting each leaf's box into the cells in the order of the trees adds the same numbers in the same order as the
library does, so the sums have the same bits. The cells share few distinct outcomes; an answer is one bisection a
feature and one look-up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise, product
from math import inf, prod
from operator import mul
from typing import Any

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
        sums: shape (n_outcomes, n_sums): the distinct sums that the forest can give.
    """

    def __init__(self, forest: Forest, cuts: Cuts) -> None:
        self._cuts = cuts
        self._features = cuts.features
        sums = _paint(forest, cuts)
        # As float64, which every float32 is.
        distinct, outcome = _distinct_columns(sums.reshape(forest.n_sums, -1).astype(np.float64, copy=False))
        self.sums: NDArray[np.floating[Any]] = np.ascontiguousarray(distinct.T, dtype=sums.dtype)
        self._outcome: NDArray[np.int32] = outcome.astype(np.int32)
        # Lists and a memoryview: reading one element of a NumPy array costs more than a bisection.
        self._strides = _strides(sums.shape[1:])
        self._bounds = [cuts.bounds[feature] for feature in self._features]
        self._outcome_view = memoryview(self._outcome.data)

    @staticmethod
    def fits(forest: Forest, cuts: Cuts, max_cells: int = MAX_CELLS) -> bool:
        """Return whether the table has at most `max_cells` and can be painted quickly."""
        cells = prod(size + 1 for size in cuts.sizes)
        return cells <= max_cells and cells * forest.n_trees <= MAX_PAINTINGS and cells * forest.n_sums <= MAX_SUMS

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
        return LabelGrid(indices.astype(np.uint8).take(self._outcome), self._cuts.bounds)

    def outcomes(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
        """Return the outcome of each row: shape (n_rows, n_features) in, (n_rows,) out."""
        cells = np.zeros(len(rows), dtype=np.int32)
        columns = np.ascontiguousarray(rows.T if len(self._features) == rows.shape[1] else rows[:, self._features].T)
        for feature, column, stride in zip(self._features, columns, self._strides, strict=True):
            # With its type said: NumPy 1 would take that of the ranks, a byte.
            cells += np.multiply(self._cuts.ranks(feature, column), stride, dtype=np.int32)
        return self._outcome.take(cells)


class LabelGrid:
    """The position of the label in each cell of a decision table.

    Args:
        labels: shape (n_cells,), in the order of the features.
        bounds: see `Cuts.bounds`; a feature without cuts has one cell, and is no axis of the table.
    """

    MAX_LABELS = 256

    def __init__(self, labels: NDArray[np.uint8], bounds: Sequence[Sequence[float]]) -> None:
        self._labels = labels.tobytes()
        self._sizes = tuple(len(ends) + 1 for ends in bounds)
        self._strides = _strides(self._sizes)
        axes = enumerate(zip(self._sizes, self._strides, bounds, strict=True))
        self._axes = [(feature, size, stride, ends) for feature, (size, stride, ends) in axes if size > 1]

    def lines(self, ranks: Sequence[int]) -> list[bytes]:
        """Return the labels along each feature through the cell with these ranks, one byte each."""
        cell = sum(map(mul, ranks, self._strides))
        lines = []
        for rank, size, stride in zip(ranks, self._sizes, self._strides, strict=True):
            first = cell - rank * stride
            lines.append(self._labels[first : first + size * stride : stride])
        return lines

    def nearest_other(
        self, row: Sequence[float], ranks: Sequence[int], spans: Sequence[float]
    ) -> tuple[int, int, int] | None:
        """Return the nearest interval with another label along any one feature: feature, rank and label, or None.

        Args:
            row: the values, and `ranks` their ranks.
            spans: the unit of the distance along each feature.
        """
        labels = self._labels
        cell = sum(map(mul, ranks, self._strides))
        own = labels[cell : cell + 1]
        nearest, found = inf, None
        for feature, size, stride, bounds in self._axes:
            rank, value, span = ranks[feature], row[feature], spans[feature]
            first = cell - rank * stride
            line = labels[first : first + size * stride : stride]
            # Stripping bytes is several times as fast as searching a short array.
            below = line[:rank].rstrip(own)
            if below:
                other = len(below) - 1
                distance = (value - bounds[other]) / span
                if distance < nearest:
                    nearest, found = distance, (feature, other, below[-1])
            above = line[rank:].lstrip(own)
            if above:
                other = size - len(above)
                distance = (bounds[other - 1] - value) / span
                if distance < nearest:
                    nearest, found = distance, (feature, other, above[0])
        return found


def _strides(sizes: Sequence[int]) -> list[int]:
    """Return the stride between neighboring cells along each axis, the last one varying fastest."""
    return list(accumulate(reversed(sizes[1:]), mul, initial=1))[::-1] if sizes else []


# The ranks of a box along one axis: ascending stretches, each from the first up to the last but one.
_Ranks = tuple[tuple[int, int], ...]


def _paint(forest: Forest, cuts: Cuts) -> NDArray[np.floating[Any]]:
    """Return the sums of leaf values by cell: shape (n_sums, *cells along each feature with cuts)."""
    # The features with few nodes last: most boxes are whole along them, so that NumPy adds to long runs of memory.
    order = sorted(cuts.features, key=lambda feature: -np.count_nonzero(forest.feature == feature))
    axis_of = {feature: axis for axis, feature in enumerate(order)}
    whole: list[_Ranks] = [((0, len(cuts.values[feature]) + 1),) for feature in order]
    starts = forest.starts()
    sums = np.empty((len(starts), *(stop for ((_, stop),) in whole)), dtype=starts.dtype)
    sums[...] = starts.reshape(-1, *[1] * len(whole))
    boxes: dict[int, list[_Ranks]] = {int(root): whole for root in forest.roots}
    trees = iter(forest.tree_of_nodes().tolist())
    leaves = iter(forest.values.tolist())
    outputs = None if forest.output_of is None else forest.output_of.tolist()
    left, right = forest.left.tolist(), forest.right.tolist()
    for node, (feature, tree) in enumerate(zip(forest.feature.tolist(), trees, strict=True)):
        box = boxes.pop(node, None)
        if feature != LEAF:
            if box is None:
                continue
            if feature not in axis_of:
                # It has no cuts, as its thresholds are above all numbers: no row goes right.
                boxes[left[node]] = box
                continue
            axis = axis_of[feature]
            low, high = _divided(box[axis], _left_ranks(forest, cuts, node))
            boxes[left[node]] = [*box[:axis], low, *box[axis + 1 :]]
            boxes[right[node]] = [*box[:axis], high, *box[axis + 1 :]]
            continue
        first = 0 if outputs is None else outputs[tree]
        values = next(leaves)
        if box is None:
            continue
        for where in product(*([slice(*stretch) for stretch in ranks] for ranks in box)):
            for output, value in enumerate(values, first):
                if value:  # adding 0.0 changes no bit
                    sums[output, ...][where] += value
    return sums.transpose(0, *(1 + axis_of[feature] for feature in cuts.features))


def _left_ranks(forest: Forest, cuts: Cuts, node: int) -> _Ranks:
    """Return the ranks with which a row goes left at a node."""
    number = -1 if forest.set_of is None else int(forest.set_of[node])
    if number < 0 or forest.sets is None:
        return ((int(cuts.node_first[node]), int(cuts.node_rank[node]) + 1),)
    cells = range(cuts.sizes[forest.feature[node]] + 1)
    words = forest.sets[number].tolist()
    is_left = [words[cell >> 6] >> (cell & 63) & 1 for cell in cells]
    edges = [cell for cell, (before, own) in enumerate(pairwise([0, *is_left, 0])) if before != own]
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def _divided(ranks: _Ranks, left: _Ranks) -> tuple[_Ranks, _Ranks]:
    """Return what of some ranks goes left, and what goes right."""
    right = pairwise([(0, 0), *left, (ranks[-1][1], 0)]) if ranks else ()
    return _common(ranks, left), _common(ranks, [(before[1], after[0]) for before, after in right])


def _common(ranks: _Ranks, others: Sequence[tuple[int, int]]) -> _Ranks:
    found = [(max(start, first), min(stop, last)) for start, stop in ranks for first, last in others]
    return tuple((start, stop) for start, stop in found if start < stop)


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
