"""The base of the evaluators that evaluate every tree: ranks in, the mean of leaf probabilities out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import Cuts


class Trees(ABC):
    """Evaluates rows tree by tree.

    Args:
        values: shape (n_leaves, n_labels), float64: the probabilities of each leaf.
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
        """Return the probabilities of one row of finite float64 values, shape (n_labels,)."""
        if ranks is None:
            ranks = self._cuts.ranks_of(row)
        probabilities: NDArray[np.float64] = self._mean(np.array([ranks], dtype=np.intp))[0]
        return probabilities

    def batch(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities of rows: shape (n, n_features) in, (n, n_labels) out."""
        ranks = np.empty(rows.shape, dtype=np.intp)
        for feature, column in enumerate(np.ascontiguousarray(rows.T)):
            ranks[:, feature] = self._cuts.ranks(feature, column)
        probabilities = np.empty((len(rows), self._values.shape[1]))
        for start in range(0, len(rows), self._piece_rows):
            piece = slice(start, start + self._piece_rows)
            probabilities[piece] = self._mean(ranks[piece])
        return probabilities

    def _mean(self, ranks: NDArray[np.intp]) -> NDArray[np.float64]:
        leaves = self._leaves(ranks)
        # Reducing the first axis adds one tree after the other, in scikit-learn's order: the bits depend on it.
        total: NDArray[np.float64] = np.add.reduce(self._values.take(leaves, axis=0), axis=0)
        mean: NDArray[np.float64] = total / len(leaves)
        return mean
