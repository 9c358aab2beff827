"""A forest evaluated by NumPy, where its code cannot be compiled: each row walks from each root to a leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import Cuts
from ml.model.forest import LEAF, Forest

# (row, tree) pairs that walk together, so that their working memory stays in a core's own cache.
PIECE_PAIRS = 2**15


class Walk:
    """Evaluates rows by their ranks among the cuts."""

    def __init__(self, forest: Forest, cuts: Cuts) -> None:
        self._cuts = cuts
        self._starts = forest.starts()
        self._values = forest.values.astype(self._starts.dtype)
        self._output_of = forest.output_of
        self._piece_rows = max(1, PIECE_PAIRS // forest.n_trees)
        is_leaf = forest.feature == LEAF
        nodes = np.arange(len(forest.feature))
        # A leaf leads to itself, so every row may take as many steps as the deepest one.
        self._children = np.column_stack(
            [np.where(is_leaf, nodes, forest.left), np.where(is_leaf, nodes, forest.right)]
        ).ravel()
        self._feature = np.where(is_leaf, 0, forest.feature)
        # Left where first <= rank <= last: one comparison of unsigned numbers, as what is below 0 is larger than all.
        self._first = cuts.node_first if cuts.node_first.any() else None
        self._rank = cuts.node_rank if self._first is None else (cuts.node_rank - cuts.node_first).astype(np.uintp)
        self._n_steps = len(forest.levels()) - 1
        self._roots = forest.roots
        self._forest = forest
        self._leaf = np.cumsum(is_leaf) - 1

    def one(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> NDArray[np.floating[Any]]:
        """Return the sums of one row of float64 values, shape (n_sums,)."""
        if ranks is None:
            ranks = self._cuts.ranks_of(row)
        sums: NDArray[np.floating[Any]] = self._sums(np.array([ranks], dtype=np.intp))[0]
        return sums

    def batch(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return the sums of rows: shape (n, n_features) in, (n, n_sums) out."""
        ranks = np.empty(rows.shape, dtype=np.intp)
        for feature, column in enumerate(np.ascontiguousarray(rows.T)):
            ranks[:, feature] = self._cuts.ranks(feature, column)
        sums = np.empty((len(rows), len(self._starts)), dtype=self._starts.dtype)
        for start in range(0, len(rows), self._piece_rows):
            piece = slice(start, start + self._piece_rows)
            sums[piece] = self._sums(ranks[piece])
        return sums

    def _sums(self, ranks: NDArray[np.intp]) -> NDArray[np.floating[Any]]:
        values = self._values.take(self._leaves(ranks), axis=0)
        if self._output_of is None:
            return _added(self._starts, values)
        sums = np.empty((len(ranks), len(self._starts)), dtype=self._starts.dtype)
        for output, start in enumerate(self._starts):
            sums[:, output] = _added(start, values[self._output_of == output, :, 0])
        return sums

    def _leaves(self, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the index in `values` of the leaf in each tree: shape (n, n_features) in, (n_trees, n) out."""
        flat = ranks.ravel()
        first = np.arange(len(ranks)) * ranks.shape[1]
        nodes: NDArray[np.integer] = np.broadcast_to(self._roots[:, None], (len(self._roots), len(ranks)))
        for _ in range(self._n_steps):
            rank = flat.take(self._feature.take(nodes) + first)
            from_first = rank if self._first is None else (rank - self._first.take(nodes)).view(np.uintp)
            goes_right = from_first > self._rank.take(nodes)
            if self._forest.set_of is not None:
                goes_right = _by_sets(self._forest, nodes, rank, goes_right)
            nodes = self._children.take(nodes * 2 + goes_right)
        return self._leaf.take(nodes)


def _by_sets(
    forest: Forest, nodes: NDArray[np.integer], rank: NDArray[np.intp], goes_right: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which rows go right, as given or, at nodes that have sets, by these: the rank is the cell there."""
    assert forest.set_of is not None
    assert forest.sets is not None
    number = forest.set_of.take(nodes)
    # A rank of a number may be that of no cell; what is found there is not used.
    words = forest.sets.ravel().take(number * 4 + (rank >> 6), mode="clip")
    return np.where(number < 0, goes_right, words >> (rank & 63).astype(np.uint64) & np.uint64(1) == 0)


def _added(start: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return start + values[0] + values[1] + ... along the first axis, one after the other: the bits depend on it."""
    if np.any(start) or not len(values):
        values = np.concatenate([np.broadcast_to(start, (1, *values.shape[1:])), values])
    # Reducing would add a lone column of numbers in pairs.
    is_lone = values[0].size == 1
    added: NDArray[np.floating[Any]] = np.add.accumulate(values)[-1] if is_lone else np.add.reduce(values, axis=0)
    return added
