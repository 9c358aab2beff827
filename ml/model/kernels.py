"""Compiled loops over the trees of a forest that answer rows. With `ml.model.explanation_kernels` the only module that
imports numba, and both are imported when needed.

Nothing here reorders a sum: each row adds one tree after the other, as its library does, so the bits are its own. Code
is compiled for the types that it meets: values and thresholds of float32 or float64, sums of either, and None where a
forest has no gaps, sets, or sums by tree, whose branches are left out then. Where a category is compared by sets, rows
have the number of its cell (see `Forest.sets`): nothing here checks that it is one.
Everything runs without the interpreter's lock, and allocates what it needs, so that threads can share a forest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numba.core import event
from numba.core.caching import FunctionCache

# A node's feature is in the lower bits of `feature`; the highest one says that a row without a value goes left, and the
# one below it that `threshold` is the number of a set. Places are unsigned: one below 0 would count from the end, and
# code that asks for that at each step takes a sixth longer.
FEATURE_BITS = np.uint64(0x3FFF)
HAS_SET = 0x4000
LEFT_IF_MISSING = 0x8000
# So many trees go down with one row at once, and so many rows with one tree (`walk` says it eight times): while one
# waits for memory, another compares. After so many levels the trees that have reached a leaf are left out: many
# libraries grow trees of 3 or 6 levels by default.
_TREES_AT_ONCE = 64
_LEVELS_AT_ONCE = 3
_ROWS_AT_ONCE = 8
# Rows of `masks` that are looked at together.
BLOCK_ROWS = 64

logger = logging.getLogger("ml")


class _Cache(FunctionCache):
    """Compiled code in files: what cannot be read of them is compiled again, and what cannot be written is not kept.

    numba's own lets a full disk, or a file that was cut short by one, be an error of whoever calls the function.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling may raise any
            try:
                self.flush()
            except OSError as error:
                self._report(error)
                self.disable()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        report_unkept(f"{self.cache_path}: {error.strerror or error}")


def keep(function: Any) -> None:
    """Keep what is compiled of a function in files, where there is a place for them."""
    try:
        function._cache = _Cache(function.py_func)  # as its `enable_caching` does with numba's own
    except RuntimeError:
        report_unkept("neither its own folder nor NUMBA_CACHE_DIR can be written to")


@cache
def report_unkept(why: str) -> None:
    """Log once for each reason that compiled code is not kept."""
    logger.warning("compiled code cannot be kept, and each process compiles it anew: %s", why)


class Compiling(event.Listener):
    """Calls a function before anything is compiled: what a cache has is not."""

    def __init__(self, report: Callable[[], object]) -> None:
        self._report = report
        self._is_reported = False

    def on_start(self, _event: Any) -> None:
        if not self._is_reported:
            self._is_reported = True
            self._report()

    def on_end(self, _event: Any) -> None:
        pass

    def installed(self) -> Any:
        """Return a context in which it listens."""
        return event.install_listener("numba:compile", self)


@njit(inline="always")
def step(node: Any, value: Any, gaps: Any, sets: Any) -> Any:
    """Return how many nodes further on a row goes, 0 at a leaf."""
    # What is not a number goes left: beyond a leaf, whose threshold is infinite, no row may go.
    right = value > node.threshold
    if gaps is not None and value != value:
        right = node.feature < LEFT_IF_MISSING
    if sets is not None:
        # Without a branch, which nobody could foresee: other nodes look at the first set.
        has_set = node.feature & HAS_SET
        number = np.int64(node.threshold) if has_set else np.int64(0)
        cell = np.int64(value) if has_set else np.int64(0)
        is_left = (sets[number, cell >> 6] >> np.uint64(cell & 63)) & np.uint64(1)
        right = is_left == 0 if has_set else right
    return np.uint64(node.children) + np.uint64(right)


@njit(nogil=True, boundscheck=False, error_model="numpy")
def walk(
    nodes: Any,
    roots: Any,
    leaf_of: Any,
    leaves: Any,
    rows: Any,
    sums: Any,
    block: Any,
    gaps: Any,
    sets: Any,
    output_of: Any,
) -> None:
    """Add to `sums`, shape (n, n_sums), the leaf values of all trees for rows, shape (n, n_features)."""
    n, n_values = len(sums), leaves.shape[1]
    for start in range(0, n, block):
        stop = min(start + block, n)
        for tree in range(len(roots)):
            root = np.uint64(roots[tree])
            first = 0 if output_of is None else output_of[tree]
            row = start
            while row + _ROWS_AT_ONCE <= stop:
                a = b = c = d = e = f = g = h = root
                moved = np.uint64(1)
                while moved:
                    one, two, three, four = nodes[a], nodes[b], nodes[c], nodes[d]
                    five, six, seven, eight = nodes[e], nodes[f], nodes[g], nodes[h]
                    da = step(one, rows[row, one.feature & FEATURE_BITS], gaps, sets)
                    db = step(two, rows[row + 1, two.feature & FEATURE_BITS], gaps, sets)
                    dc = step(three, rows[row + 2, three.feature & FEATURE_BITS], gaps, sets)
                    dd = step(four, rows[row + 3, four.feature & FEATURE_BITS], gaps, sets)
                    de = step(five, rows[row + 4, five.feature & FEATURE_BITS], gaps, sets)
                    df = step(six, rows[row + 5, six.feature & FEATURE_BITS], gaps, sets)
                    dg = step(seven, rows[row + 6, seven.feature & FEATURE_BITS], gaps, sets)
                    dh = step(eight, rows[row + 7, eight.feature & FEATURE_BITS], gaps, sets)
                    a, b, c, d, e, f, g, h = a + da, b + db, c + dc, d + dd, e + de, f + df, g + dg, h + dh
                    moved = da | db | dc | dd | de | df | dg | dh
                found = (leaf_of[a], leaf_of[b], leaf_of[c], leaf_of[d], leaf_of[e], leaf_of[f], leaf_of[g], leaf_of[h])
                for position in range(_ROWS_AT_ONCE):
                    leaf = found[position]
                    for output in range(n_values):
                        sums[row + position, first + output] += leaves[leaf, output]
                row += _ROWS_AT_ONCE
            while row < stop:
                a, moved = root, np.uint64(1)
                while moved:
                    one = nodes[a]
                    moved = step(one, rows[row, one.feature & FEATURE_BITS], gaps, sets)
                    a += moved
                for output in range(n_values):
                    sums[row, first + output] += leaves[leaf_of[a], output]
                row += 1


@njit(nogil=True, boundscheck=False, error_model="numpy")
def walk_one(
    nodes: Any, roots: Any, leaf_of: Any, leaves: Any, row: Any, sums: Any, gaps: Any, sets: Any, output_of: Any
) -> None:
    """Add to `sums`, shape (n_sums,), the leaf values of all trees for one row, shape (n_features,)."""
    at, trees, reached = np.empty((3, _TREES_AT_ONCE), dtype=np.uint64)
    for first in range(0, len(roots), _TREES_AT_ONCE):
        width = min(_TREES_AT_ONCE, len(roots) - first)
        for tree in range(width):
            at[tree], trees[tree] = roots[first + tree], tree
        active = width
        while active:
            for _ in range(_LEVELS_AT_ONCE):
                for place in range(active):
                    node = nodes[at[place]]
                    at[place] += step(node, row[node.feature & FEATURE_BITS], gaps, sets)
            kept = 0
            for place in range(active):
                # Without a branch, which nobody could foresee: of a tree that goes on, the last one counts.
                here, tree = at[place], trees[place]
                at[kept], trees[kept], reached[tree] = here, tree, here
                kept += nodes[here].children != 0
            active = kept
        for tree in range(width):
            leaf = leaf_of[reached[tree]]
            output = 0 if output_of is None else output_of[first + tree]
            for value in range(leaves.shape[1]):
                sums[output + value] += leaves[leaf, value]


@njit(nogil=True, boundscheck=False, error_model="numpy")
def levels_one(levels: Any, leaves: Any, row: Any, sums: Any, gaps: Any, output_of: Any) -> None:
    """Do what `walk_one` does for trees that ask the same at all nodes of a level: `levels` has shape (n_trees,
    n_levels), and each answer is a bit of the number of the leaf."""
    n_trees, n_levels = levels.shape
    for tree in range(n_trees):
        leaf = np.uint64(tree)
        for level in range(n_levels):
            node = levels[tree, level]
            leaf = leaf + leaf + step(node, row[node.feature & FEATURE_BITS], gaps, None)
        output = 0 if output_of is None else output_of[tree]
        for value in range(leaves.shape[1]):
            sums[output + value] += leaves[leaf, value]


@njit(nogil=True, boundscheck=False, error_model="numpy")
def masks(
    first: Any, thresholds: Any, trees: Any, kept: Any, missing_first: Any, missing_trees: Any, missing_kept: Any,
    positions: Any, width: Any, leaves: Any, output_of: Any, columns: Any, sums: Any,
) -> None:  # fmt: skip
    """Add to `sums`, shape (n_sums, n), the leaf values of small trees for columns, shape (n_features, n).

    Each tree has one bit a leaf, from left to right. A value beyond a node's threshold rules out the leaves on the
    node's left: what it keeps is AND-ed for 64 rows at a time, and the lowest bit that is left is the leaf (Lucchese et
    al., "QuickScorer", SIGIR 2015). The nodes of a feature are ascending, those of feature j from `first[j]` on; n is a
    multiple of `BLOCK_ROWS`.
    """
    n_values, n = leaves.shape[1], sums.shape[1]
    n_trees = len(leaves) // width
    bits = np.empty((n_trees, BLOCK_ROWS), dtype=kept.dtype)
    for start in range(0, n, BLOCK_ROWS):
        bits[:] = ~kept.dtype.type(0)
        for feature in range(len(first) - 1):
            values = columns[feature, start : start + BLOCK_ROWS]
            most, lacks = columns.dtype.type(-np.inf), False
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
            place = 0 if output_of is None else output_of[tree]
            for row in range(BLOCK_ROWS):
                word = np.uint64(bits[tree, row])
                lowest = word & (~word + np.uint64(1))
                leaf = tree * width + positions[(lowest * np.uint64(0x03F79D71B4CB0A89)) >> np.uint64(58)]
                for output in range(n_values):
                    sums[place + output, start + row] += leaves[leaf, output]
