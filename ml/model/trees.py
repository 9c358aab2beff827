"""The base of the evaluators that evaluate every tree: ranks in, the mean of leaf values out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import Cuts


class Trees(ABC):
    """Evaluates rows tree by tree.

    Args:
        values: shape (n_leaves, n_outputs), float64: the values of each leaf.
        piece_rows: the number of rows evaluated together, so that their working memory stays in a core's own cache.
    """

    def __init__(self, cuts: Cuts, *, values: NDArray[np.float64], piece_rows: int) -> None:
        self._cuts = cuts
        self._values = values
        self._piece_rows = max(1, piece_rows)

    @abstractmethod
    def _leaves(self, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the index in `values` of the leaf in each tree: shape (n, n_features) in, (n_trees, n) out."""

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
