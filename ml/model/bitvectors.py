"""A forest with too many cells for a decision table, evaluated without branches.

Each tree has one bit a leaf, leaves numbered from left to right. A value beyond a node's threshold rules out the
leaves on the node's left, and only the rank of the value among the feature's cuts says which: for each feature and
rank there is one row of bits, all trees side by side. AND-ing one row a feature leaves, in each tree, the lowest set
bit at the leaf that the sample falls into (Lucchese et al., "QuickScorer", SIGIR 2015). Leaf probabilities are then
added in the order of the trees, as scikit-learn adds them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import Cuts
from ml.model.forest import LEAF, Forest
from ml.model.trees import Trees

MAX_BYTES = 128 * 2**20
WORD_BITS = 64
# Bits of a batch are combined in pieces that stay in a core's own cache: measured 3 times as fast as all at once.
PIECE_BYTES = 256 * 2**10


class BitVectors(Trees):
    """Evaluates rows by AND-ing bits."""

    def __init__(self, forest: Forest, cuts: Cuts) -> None:
        layout = _Layout(forest)
        self._bits = _bits_by_rank(forest, cuts, layout)
        super().__init__(cuts, values=layout.values, piece_rows=PIECE_BYTES // self._bits[0].nbytes)
        self._first_rank = np.cumsum([0, *(size + 1 for size in cuts.sizes)])[:-1]
        self._first_leaf = layout.first_leaf
        self._shape = (-1, forest.n_trees, layout.n_words)

    @staticmethod
    def fits(forest: Forest, cuts: Cuts, max_bytes: int = MAX_BYTES) -> bool:
        """Return whether the bits take at most `max_bytes`."""
        n_ranks = sum(size + 1 for size in cuts.sizes)
        return n_ranks * forest.n_trees * _n_words(forest) * WORD_BITS // 8 <= max_bytes

    def _leaves(self, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
        which = ranks + self._first_rank
        if len(which) == 1:
            bits = np.bitwise_and.reduce(self._bits.take(which[0], axis=0), axis=0, keepdims=True)
        else:
            bits = self._bits.take(which[:, 0], axis=0)
            for column in which.T[1:]:
                bits &= self._bits.take(column, axis=0)
        words = bits.reshape(self._shape)
        if words.shape[2] == 1:
            leaves: NDArray[np.intp] = _lowest_bit(words[:, :, 0]) + self._first_leaf
        else:
            word = (words != 0).argmax(axis=2)
            first_word = np.take_along_axis(words, word[:, :, None], axis=2)[:, :, 0]
            leaves = _lowest_bit(first_word) + word * WORD_BITS + self._first_leaf
        return leaves.T


class _Layout:
    """The positions of the leaves of each tree, from left to right.

    Attributes:
        n_words: 64-bit words a tree.
        tree: shape (n_nodes,): the tree of each node.
        start, stop: shape (n_nodes,): the leaves below each node, counted from 0 in its tree.
        first_leaf: shape (n_trees,): the index in `values` of each tree's first leaf.
        values: shape (n_leaves, n_outputs): of the leaves, tree after tree, each from left to right.
    """

    def __init__(self, forest: Forest) -> None:
        levels = forest.levels()
        is_leaf = forest.feature == LEAF
        count = is_leaf.astype(np.int64)
        for level in reversed(levels):
            inner = level[~is_leaf[level]]
            count[inner] = count[forest.left[inner]] + count[forest.right[inner]]
        self.start = np.zeros(len(forest.feature), dtype=np.int64)
        for level in levels:
            inner = level[~is_leaf[level]]
            self.start[forest.left[inner]] = self.start[inner]
            self.start[forest.right[inner]] = self.start[inner] + count[forest.left[inner]]
        self.stop = self.start + count
        self.tree = np.searchsorted(forest.roots, np.arange(len(forest.feature)), side="right") - 1
        leaves = np.flatnonzero(is_leaf)
        self.first_leaf = np.cumsum(count[forest.roots]) - count[forest.roots]
        self.values = np.empty_like(forest.values)
        self.values[self.first_leaf[self.tree[leaves]] + self.start[leaves]] = forest.values
        self.n_words = _n_words(forest)


def _n_words(forest: Forest) -> int:
    leaves = np.add.reduceat(forest.feature == LEAF, forest.roots, dtype=np.int64)
    return -(-int(leaves.max()) // WORD_BITS)


def _bits_by_rank(forest: Forest, cuts: Cuts, layout: _Layout) -> NDArray[np.uint64]:
    """Return one row of bits for each rank of each feature: shape (n_ranks, n_trees * n_words)."""
    n_ranks = sum(size + 1 for size in cuts.sizes)
    bits = np.full((n_ranks, forest.n_trees, layout.n_words), np.iinfo(np.uint64).max, dtype=np.uint64)
    start = 0
    words = np.arange(layout.n_words) * WORD_BITS
    for feature, size in enumerate(cuts.sizes):
        nodes = np.flatnonzero(forest.feature == feature)
        left = forest.left[nodes]
        ruled_out = _ones_below(layout.stop[left][:, None] - words) & ~_ones_below(layout.start[left][:, None] - words)
        ranks = bits[start : start + size + 1]
        beyond = cuts.node_rank[nodes] < size
        np.bitwise_and.at(ranks, (cuts.node_rank[nodes][beyond] + 1, layout.tree[nodes][beyond]), ~ruled_out[beyond])
        np.bitwise_and.accumulate(ranks, axis=0, out=ranks)
        missing_right = cuts.node_first[nodes] == 1
        np.bitwise_and.at(ranks, (0, layout.tree[nodes][missing_right]), ~ruled_out[missing_right])
        start += size + 1
    return bits.reshape(n_ranks, -1)


def _lowest_bit(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the position of the lowest set bit of each word."""
    below: NDArray[np.uint8] = np.bitwise_count(~words & (words - np.uint64(1)))
    return below


def _ones_below(count: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return words with their lowest `count` bits set, `count` cut to 0 to 64."""
    shift = np.clip(WORD_BITS - count, 0, WORD_BITS).astype(np.uint64)
    ones = np.uint64(np.iinfo(np.uint64).max)
    # A shift by all 64 bits is not defined in C, which NumPy follows.
    return np.where(shift == WORD_BITS, np.uint64(0), ones >> np.minimum(shift, np.uint64(WORD_BITS - 1)))
