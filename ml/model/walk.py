"""A forest evaluated by NumPy, where its code cannot be compiled: each row walks from each root to a leaf."""

from __future__ import annotations

from collections.abc import Sequence

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
        self._values = forest.values
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
        self._leaf = np.cumsum(is_leaf) - 1

    def one(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Return the answer to one row of float64 values, shape (n_outputs,)."""
        if ranks is None:
            ranks = self._cuts.ranks_of(row)
        answers: NDArray[np.float64] = self._mean(np.array([ranks], dtype=np.intp))[0]
        return answers

    def batch(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the answers to rows: shape (n, n_features) in, (n, n_outputs) out."""
        ranks = np.empty(rows.shape, dtype=np.intp)
        for feature, column in enumerate(np.ascontiguousarray(rows.T)):
            ranks[:, feature] = self._cuts.ranks(feature, column)
        answers = np.empty((len(rows), self._values.shape[1]))
        for start in range(0, len(rows), self._piece_rows):
            piece = slice(start, start + self._piece_rows)
            answers[piece] = self._mean(ranks[piece])
        return answers

    def _mean(self, ranks: NDArray[np.intp]) -> NDArray[np.float64]:
        leaves = self._leaves(ranks)
        values = self._values.take(leaves, axis=0)
        # Reducing the first axis adds one tree after the other, in scikit-learn's order: the bits depend on it. A lone
        # column of numbers would be added in pairs instead.
        is_lone = values[0].size == 1
        total: NDArray[np.float64] = np.add.accumulate(values)[-1] if is_lone else np.add.reduce(values, axis=0)
        mean: NDArray[np.float64] = total / len(leaves)
        return mean

    def _leaves(self, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the index in `values` of the leaf in each tree: shape (n, n_features) in, (n_trees, n) out."""
        flat = ranks.ravel()
        first = np.arange(len(ranks)) * ranks.shape[1]
        nodes: NDArray[np.integer] = np.broadcast_to(self._roots[:, None], (len(self._roots), len(ranks)))
        for _ in range(self._n_steps):
            rank = flat.take(self._feature.take(nodes) + first)
            if self._first is not None:
                rank = (rank - self._first.take(nodes)).view(np.uintp)
            goes_right = rank > self._rank.take(nodes)
            nodes = self._children.take(nodes * 2 + goes_right)
        return self._leaf.take(nodes)
