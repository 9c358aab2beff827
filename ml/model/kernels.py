"""Compiled loops over the trees of a forest. The only module that imports numba, and it is imported when needed.

Nothing here reorders a sum: each row adds one tree after the other, as scikit-learn does, so the bits are its own.
Everything runs without the interpreter's lock, and allocates what it needs, so that threads can share a forest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# A node's feature is in the lower bits of `feature`; the highest one says that a row without a value goes left.
FEATURE_BITS = 0x7FFF
LEFT_IF_MISSING = 0x8000
# So many trees go down with one row at once, and so many rows with one tree (`walk` says it eight times): while one
# waits for memory, another compares.
_TREES_AT_ONCE = 32
_ROWS_AT_ONCE = 8
# A tree's greatest depth (`ml.model.forest.MAX_DEPTH`), and one more.
_DEEPEST = 1_001
# Rows of `masks` that are looked at together.
BLOCK_ROWS = 64


@njit(inline="always")
def _step(node: Any, value: Any, gaps: Any) -> Any:
    """Return how many nodes further on a row goes, 0 at a leaf."""
    # What is not a number goes left: beyond a leaf, whose threshold is infinite, no row may go.
    right = value > node.threshold
    if gaps is not None and value != value:
        right = node.feature < LEFT_IF_MISSING
    return np.int64(node.children) + np.int64(right)


@njit(nogil=True, boundscheck=False, error_model="numpy")
def walk(nodes: Any, roots: Any, leaf_of: Any, leaves: Any, rows: Any, sums: Any, block: Any, gaps: Any) -> None:
    """Add to `sums`, shape (n, n_outputs), the leaf values of all trees for rows, shape (n, n_features)."""
    n, n_outputs = sums.shape
    for start in range(0, n, block):
        stop = min(start + block, n)
        for tree in range(len(roots)):
            root = np.int64(roots[tree])
            row = start
            while row + _ROWS_AT_ONCE <= stop:
                a = b = c = d = e = f = g = h = root
                moved = np.int64(1)
                while moved:
                    one, two, three, four = nodes[a], nodes[b], nodes[c], nodes[d]
                    five, six, seven, eight = nodes[e], nodes[f], nodes[g], nodes[h]
                    da = _step(one, rows[row, one.feature & FEATURE_BITS], gaps)
                    db = _step(two, rows[row + 1, two.feature & FEATURE_BITS], gaps)
                    dc = _step(three, rows[row + 2, three.feature & FEATURE_BITS], gaps)
                    dd = _step(four, rows[row + 3, four.feature & FEATURE_BITS], gaps)
                    de = _step(five, rows[row + 4, five.feature & FEATURE_BITS], gaps)
                    df = _step(six, rows[row + 5, six.feature & FEATURE_BITS], gaps)
                    dg = _step(seven, rows[row + 6, seven.feature & FEATURE_BITS], gaps)
                    dh = _step(eight, rows[row + 7, eight.feature & FEATURE_BITS], gaps)
                    a, b, c, d, e, f, g, h = a + da, b + db, c + dc, d + dd, e + de, f + df, g + dg, h + dh
                    moved = da | db | dc | dd | de | df | dg | dh
                found = (leaf_of[a], leaf_of[b], leaf_of[c], leaf_of[d], leaf_of[e], leaf_of[f], leaf_of[g], leaf_of[h])
                for position in range(_ROWS_AT_ONCE):
                    leaf = found[position]
                    for output in range(n_outputs):
                        sums[row + position, output] += leaves[leaf, output]
                row += _ROWS_AT_ONCE
            while row < stop:
                a, moved = root, np.int64(1)
                while moved:
                    one = nodes[a]
                    moved = _step(one, rows[row, one.feature & FEATURE_BITS], gaps)
                    a += moved
                for output in range(n_outputs):
                    sums[row, output] += leaves[leaf_of[a], output]
                row += 1


@njit(nogil=True, boundscheck=False, error_model="numpy")
def walk_one(nodes: Any, roots: Any, leaf_of: Any, leaves: Any, row: Any, sums: Any, gaps: Any) -> None:
    """Add to `sums`, shape (n_outputs,), the leaf values of all trees for one row, shape (n_features,)."""
    at = np.empty(_TREES_AT_ONCE, dtype=np.int64)
    for first in range(0, len(roots), _TREES_AT_ONCE):
        width = min(_TREES_AT_ONCE, len(roots) - first)
        for tree in range(width):
            at[tree] = roots[first + tree]
        moved = np.int64(1)
        while moved:
            moved = np.int64(0)
            for tree in range(width):
                node = nodes[at[tree]]
                step = _step(node, row[node.feature & FEATURE_BITS], gaps)
                at[tree] += step
                moved |= step
        for tree in range(width):
            leaf = leaf_of[at[tree]]
            for output in range(len(sums)):
                sums[output] += leaves[leaf, output]


@njit(nogil=True, boundscheck=False, error_model="numpy")
def masks(
    first: Any, thresholds: Any, trees: Any, kept: Any, missing_first: Any, missing_trees: Any, missing_kept: Any,
    positions: Any, width: Any, leaves: Any, columns: Any, sums: Any,
) -> None:  # fmt: skip
    """Add to `sums`, shape (n_outputs, n), the leaf values of small trees for columns, shape (n_features, n).

    Each tree has one bit a leaf, from left to right. A value beyond a node's threshold rules out the leaves on the
    node's left: what it keeps is AND-ed for 64 rows at a time, and the lowest bit that is left is the leaf (Lucchese et
    al., "QuickScorer", SIGIR 2015). The nodes of a feature are ascending, those of feature j from `first[j]` on; n is a
    multiple of `BLOCK_ROWS`.
    """
    n_outputs, n = sums.shape
    n_trees = len(leaves) // width
    bits = np.empty((n_trees, BLOCK_ROWS), dtype=kept.dtype)
    for start in range(0, n, BLOCK_ROWS):
        bits[:] = ~kept.dtype.type(0)
        for feature in range(len(first) - 1):
            values = columns[feature, start : start + BLOCK_ROWS]
            most, lacks = np.float32(-np.inf), False
            for row in range(BLOCK_ROWS):
                most = max(most, values[row])
                lacks |= values[row] != values[row]
            for node in range(first[feature], first[feature + 1]):
                threshold = thresholds[node]
                if not most > threshold:
                    break
                line, mask = bits[trees[node]], kept[node]
                for row in range(BLOCK_ROWS):
                    line[row] = line[row] & mask if values[row] > threshold else line[row]
            if lacks:
                for node in range(missing_first[feature], missing_first[feature + 1]):
                    line, mask = bits[missing_trees[node]], missing_kept[node]
                    for row in range(BLOCK_ROWS):
                        line[row] = line[row] & mask if values[row] != values[row] else line[row]
        for tree in range(n_trees):
            for row in range(BLOCK_ROWS):
                word = np.uint64(bits[tree, row])
                lowest = word & (~word + np.uint64(1))
                leaf = tree * width + positions[(lowest * np.uint64(0x03F79D71B4CB0A89)) >> np.uint64(58)]
                for output in range(n_outputs):
                    sums[output, start + row] += leaves[leaf, output]


@njit(nogil=True, boundscheck=False, error_model="numpy")
def branches(
    nodes: Any, roots: Any, leaf_of: Any, row: Any, own: Any, features: Any, trees: Any, lows: Any, highs: Any,
    found: Any,
) -> Any:  # fmt: skip
    """Find where each tree would lead if a single value of a row, shape (n_features,), were another one.

    Writes the leaf of each tree into `own`, and for each other leaf that some value of a single feature leads to: the
    feature, the tree, the thresholds between which the value then lies, above `lows` and up to `highs`, and the leaf.
    Returns how many there are; only so many are written as fit.
    """
    # Between these the values of a feature lead to the present node.
    least, most = np.full(len(row), -np.inf, np.float32), np.full(len(row), np.inf, np.float32)
    waiting = np.empty(_DEEPEST, np.int64)
    waiting_ends = np.empty((_DEEPEST, 2), np.float32)
    count = 0
    for tree in range(len(roots)):
        at = np.int64(roots[tree])
        while nodes[at].children:
            node = nodes[at]
            feature, threshold = node.feature & FEATURE_BITS, node.threshold
            right = row[feature] > threshold
            # The other side is for other values of this feature alone.
            low, high = (least[feature], threshold) if right else (threshold, most[feature])
            waiting[0], waiting_ends[0, 0], waiting_ends[0, 1] = at + node.children + np.int64(not right), low, high
            depth = np.int64(low < high)
            while depth:
                below, low, high, depth = _descend(nodes, row, feature, waiting, waiting_ends, depth - 1)
                if count < len(found):
                    features[count], trees[count], lows[count], highs[count] = feature, tree, low, high
                    found[count] = leaf_of[below]
                count += 1
            least[feature] = max(least[feature], threshold) if right else least[feature]
            most[feature] = most[feature] if right else min(most[feature], threshold)
            at += node.children + np.int64(right)
        own[tree] = leaf_of[at]
        least[:] = -np.inf
        most[:] = np.inf
    return count


@njit(inline="always")
def _descend(nodes: Any, row: Any, feature: Any, waiting: Any, ends: Any, depth: Any) -> Any:
    """Return the leaf below a waiting node, with the values of a feature that lead there; the others wait."""
    at, low, high = waiting[depth], ends[depth, 0], ends[depth, 1]
    while nodes[at].children:
        node = nodes[at]
        child = at + node.children
        if node.feature & FEATURE_BITS != feature:
            at = child + np.int64(row[node.feature & FEATURE_BITS] > node.threshold)
        elif node.threshold <= low:
            at = child + 1
        elif node.threshold >= high:
            at = child
        else:
            waiting[depth], ends[depth, 0], ends[depth, 1] = child + 1, node.threshold, high
            depth += 1
            at, high = child, node.threshold
    return at, low, high, depth


@njit(nogil=True, boundscheck=False, error_model="numpy")
def along(leaves: Any, own: Any, trees: Any, starts: Any, stops: Any, found: Any, sums: Any) -> None:
    """Add to `sums`, shape (n, n_outputs), the leaf values of all trees in each of n intervals of one feature.

    From the interval `starts[i]` up to before `stops[i]` the tree `trees[i]`, ascending, has the leaf `found[i]`;
    elsewhere each tree has its own.
    """
    n, n_outputs = sums.shape
    branch = 0
    leaf = np.empty(n, np.int64)
    for tree in range(len(own)):
        leaf[:] = own[tree]
        while branch < len(trees) and trees[branch] == tree:
            leaf[starts[branch] : stops[branch]] = found[branch]
            branch += 1
        for interval in range(n):
            for output in range(n_outputs):
                sums[interval, output] += leaves[leaf[interval], output]
