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
        super().__init__(cuts, values=forest.values, piece_rows=PIECE_PAIRS // forest.n_trees)
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

    def _leaves(self, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
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
