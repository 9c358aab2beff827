"""A forest too large for bits or a table, evaluated by walking its trees node by node."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import Cuts
from ml.model.forest import LEAF, Forest
from ml.model.trees import Trees

# (row, tree) pairs that walk together.
PIECE_PAIRS = 2**15


class Walk(Trees):
    """Evaluates rows by walking from each root to a leaf."""

    def __init__(self, forest: Forest, cuts: Cuts) -> None:
        super().__init__(cuts, values=forest.probabilities, piece_rows=PIECE_PAIRS // forest.n_trees)
        is_leaf = forest.feature == LEAF
        nodes = np.arange(len(forest.feature))
        # A leaf leads to itself, so every row may take as many steps as the deepest one.
        self._children = np.column_stack(
            [np.where(is_leaf, nodes, forest.left), np.where(is_leaf, nodes, forest.right)]
        ).ravel()
        self._feature = np.where(is_leaf, 0, forest.feature)
        self._rank = cuts.node_rank
        self._n_steps = len(forest.levels()) - 1
        self._roots = forest.roots
        self._leaf = np.cumsum(is_leaf) - 1

    def _leaves(self, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
        flat = ranks.ravel()
        first = np.arange(len(ranks)) * ranks.shape[1]
        nodes: NDArray[np.integer] = np.broadcast_to(self._roots[:, None], (len(self._roots), len(ranks)))
        for _ in range(self._n_steps):
            goes_right = flat.take(self._feature.take(nodes) + first) > self._rank.take(nodes)
            nodes = self._children.take(nodes * 2 + goes_right)
        return self._leaf.take(nodes)
