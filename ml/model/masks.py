"""Small trees as bits: what `ml.model.kernels.masks` needs of a forest whose trees have few leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import cut_of
from ml.model.forest import LEAF, Forest

# One bit a leaf, in words of 32 or 64.
MOST_LEAVES = 64
DE_BRUIJN = 0x03F79D71B4CB0A89
Arrays = tuple[NDArray[np.generic] | int | None, ...]


def masks_of(forest: Forest) -> Arrays | None:
    """Return the arguments of the compiled loop that come before the rows; None for large trees and ones with sets."""
    is_leaf = forest.feature == LEAF
    tree = forest.tree_of_nodes()
    width = int(np.bincount(tree[is_leaf]).max())
    if width > MOST_LEAVES or forest.set_of is not None:
        return None
    word = np.uint32 if width <= 32 else np.uint64
    start, count = _leaves_below(forest, is_leaf)
    inner = np.flatnonzero(~is_leaf)
    below = forest.left[inner]
    kept = ~(((np.uint64(1) << count[below].astype(np.uint64)) - np.uint64(1)) << start[below].astype(np.uint64))
    leaves = np.zeros((forest.n_trees * width, forest.values.shape[1]), dtype=forest.starts().dtype)
    found = np.flatnonzero(is_leaf)
    leaves[tree[found] * width + start[found]] = forest.values
    thresholds = cut_of(forest, inner)
    nodes = _by_feature(forest, inner, np.lexsort((thresholds, forest.feature[inner])))
    missing = _by_feature(forest, inner, np.flatnonzero(~forest.missing_left[inner]))
    return (
        nodes[0], thresholds[nodes[1]], tree[inner][nodes[1]], kept[nodes[1]].astype(word),
        missing[0], tree[inner][missing[1]], kept[missing[1]].astype(word),
        _positions(), width, leaves, forest.output_of,
    )  # fmt: skip


def levels_of(forest: Forest, nodes: NDArray[np.void], position: NDArray[np.int64]) -> NDArray[np.void] | None:
    """Return a node of each level of each tree, shape (n_trees, n_levels); None where those of a level differ.

    Args:
        nodes, position: compact nodes, and where each of the forest's nodes is among them.
    """
    nodes, firsts, tree = nodes.copy(), forest.roots, forest.tree_of_nodes()
    nodes["children"] = nodes["children"] != 0
    found = []
    for level in forest.levels():
        found.append(nodes[position[firsts]])
        if not np.array_equal(nodes[position[level]], found[-1][tree[level]]):
            return None
        firsts = np.where(forest.feature[firsts] == LEAF, firsts, forest.left[firsts])
    # Every row goes left at a leaf: where a tree has fewer levels, leaves stand for zeros before its bits.
    levels = np.column_stack(found)[:, :-1]
    levels = np.take_along_axis(levels, np.argsort(levels["children"], axis=1, kind="stable"), axis=1)
    levels["children"] = 0
    return levels


def _positions() -> NDArray[np.int64]:
    """Return the position of the only bit of a word, by the upper six bits of its product with a de Bruijn sequence."""
    positions = np.zeros(64, dtype=np.int64)
    positions[[(DE_BRUIJN << bit & 2**64 - 1) >> 58 for bit in range(64)]] = np.arange(64)
    return positions


def _by_feature(
    forest: Forest, inner: NDArray[np.intp], chosen: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where the nodes of each feature start among the chosen ones, and these, feature by feature."""
    ordered = chosen[np.argsort(forest.feature[inner][chosen], kind="stable")]
    return np.searchsorted(forest.feature[inner][ordered], np.arange(forest.n_features + 1)), ordered


def _leaves_below(forest: Forest, is_leaf: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first leaf below each node, counted from the left of its tree, and how many there are."""
    levels = forest.levels()
    count = is_leaf.astype(np.int64)
    for level in reversed(levels):
        inner = level[~is_leaf[level]]
        count[inner] = count[forest.left[inner]] + count[forest.right[inner]]
    start = np.zeros(len(is_leaf), dtype=np.int64)
    for level in levels:
        inner = level[~is_leaf[level]]
        start[forest.left[inner]] = start[inner]
        start[forest.right[inner]] = start[inner] + count[forest.left[inner]]
    return start, count
