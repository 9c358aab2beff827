"""A forest evaluated by compiled code (see `ml.model.kernels`): any forest, and the fastest there is for most.

The first use on a machine compiles the code, which takes seconds and is said; later ones find it in a cache.
"""

from __future__ import annotations

import logging
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import BELOW_CHOICES, Cuts, cut_below
from ml.model.forest import LEAF, Forest
from ml.model.lines import Lines, intervals
from ml.model.masks import masks_of

# Rows of a block stay in a core's own cache while all trees look at them.
BLOCK_BYTES = 2**18
MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 64, 4096
# Fewer rows are not faster as bits.
MASK_ROWS = 64
# Leaf values that are added up for the answers along the features of a row: a millisecond for each million.
MAX_LINE_VALUES = 4_000_000
# After so long compiling is reported.
SILENT_S = 0.5

logger = logging.getLogger("ml")


@cache
def kernels() -> ModuleType | None:
    """Return the compiled loops; None, and one warning, where nothing can be compiled."""
    try:
        from ml.model import kernels
    # A host may lack the package, or forbid memory that is written and run (systemd's MemoryDenyWriteExecute).
    except (ImportError, OSError) as error:
        logger.warning("numba cannot be used (%s): large forests are evaluated by NumPy, which is slower", error)
        return None
    try:
        for function in (kernels.walk, kernels.walk_one, kernels.masks, kernels.branches, kernels.along):
            function.enable_caching()
    except RuntimeError:
        logger.warning("compiled code cannot be kept: neither its own folder nor NUMBA_CACHE_DIR can be written to")
    return kernels


@contextmanager
def _missing(module: str) -> Iterator[None]:
    """Let a module that was not imported yet be none that can be imported.

    The first function makes numba look for SciPy's linear algebra, which nothing here uses: 0.2 s and 20 MB.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # as the import system has it
    try:
        yield
    finally:
        del sys.modules[module]


class Compiled:
    """Evaluates rows by walking down the trees in compiled code, and small trees of many rows by bits."""

    def __init__(self, forest: Forest, cuts: Cuts, code: ModuleType) -> None:
        self._code = code
        self._n_trees = forest.n_trees
        self._shape = (forest.n_outputs,)
        # Numbers are cast in a third of the time that NumPy takes for a list of them.
        self._pack_into = struct.Struct(f"{forest.n_features}f").pack_into
        self._gaps = True if any(cuts.has_missing) else None
        # Where -1 is a word that is not among the choices, and so no value.
        self._categories = list(cuts.categories)
        nodes, position = _nodes(forest)
        # A copy, aligned and writable: code is compiled for each kind of array.
        leaves = np.array(forest.values)
        self._walked = (nodes, position[forest.roots].astype(np.int32), _leaf_of(forest, position), leaves)
        self._block = min(max(BLOCK_BYTES // (4 * forest.n_features), MIN_BLOCK_ROWS), MAX_BLOCK_ROWS)
        self._masked = masks_of(forest)
        self._branch_room = 64 * self._n_trees
        self._warm(forest.n_features)

    def _warm(self, n_features: int) -> None:
        """Load the code from its cache, or compile it, rather than with the first question."""
        said = "compiling the code that evaluates this forest, once on this machine"
        timer = threading.Timer(SILENT_S, logger.info, [said])
        timer.daemon = True
        timer.start()
        try:
            with _missing("scipy.linalg"):
                self.one([0.0] * n_features)
            self.batch(np.zeros((MASK_ROWS, n_features), dtype=np.float32))
            if self._masked is not None:
                self.batch(np.zeros((1, n_features), dtype=np.float32))
            self.lines([0.0] * n_features)
        finally:
            timer.cancel()

    def one(self, row: Sequence[float], _ranks: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Return the answer to one row of float64 values, shape (n_outputs,)."""
        sums, values = np.zeros(self._shape), np.empty(len(row), dtype=np.float32)
        self._pack_into(values.data, 0, *row)
        for feature in self._categories:
            if values[feature] <= BELOW_CHOICES:
                values[feature] = np.nan
        self._code.walk_one(*self._walked, values, sums, self._gaps)
        sums /= self._n_trees
        return sums

    def batch(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the answers to rows: shape (n, n_features) in, (n, n_outputs) out."""
        if self._categories:
            rows = rows.copy()
            words = rows[:, self._categories]
            rows[:, self._categories] = np.where(words <= BELOW_CHOICES, np.float32(np.nan), words)
        if self._masked is not None and len(rows) >= MASK_ROWS:
            blocks = -(-len(rows) // self._code.BLOCK_ROWS) * self._code.BLOCK_ROWS
            columns = np.zeros((rows.shape[1], blocks), dtype=np.float32)
            columns[:, : len(rows)] = rows.T
            by_output = np.zeros((*self._shape, blocks))
            self._code.masks(*self._masked, columns, by_output)
            return np.ascontiguousarray(by_output[:, : len(rows)].T) / self._n_trees
        sums = np.zeros((len(rows), *self._shape))
        self._code.walk(*self._walked, np.ascontiguousarray(rows), sums, self._block, self._gaps)
        sums /= self._n_trees
        return sums

    def lines(self, row: Sequence[float]) -> Lines | None:
        """Return the answers along each feature, the other values held; None where a row may lack a value, or where
        that would take more than some milliseconds.

        Of all cuts of a feature only those count that a tree meets on its way with this row. They are mostly few:
        answers along all features of a row take as long as those to some hundred rows.
        """
        if self._gaps:
            return None
        features, trees, lows, highs, found, own = self._branches(np.array(row, dtype=np.float32))
        starts, stops, lines = intervals(features, lows, highs, len(row), self._shape[0])
        if lines.outputs.size * self._n_trees > MAX_LINE_VALUES:
            return None
        self._code.along(self._walked[-1], own, trees, starts, stops, found, lines.outputs)
        np.divide(lines.outputs, self._n_trees, out=lines.outputs)
        return lines

    def _branches(self, row: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        """Return what `kernels.branches` finds."""
        nodes, roots, leaf_of, _ = self._walked
        own = np.empty(self._n_trees, dtype=np.int32)
        room = self._branch_room
        features, trees, found = (np.empty(room, dtype=np.int32) for _ in range(3))
        lows, highs = (np.empty(room, dtype=np.float32) for _ in range(2))
        count = self._code.branches(nodes, roots, leaf_of, row, own, features, trees, lows, highs, found)
        if count > room:
            self._branch_room = count
            return self._branches(row)
        return features[:count], trees[:count], lows[:count], highs[:count], found[:count], own


def _order(forest: Forest) -> NDArray[np.int64]:
    """Return the nodes tree by tree, each level by level, so that the two children of a node stand side by side."""
    level = forest.roots
    levels = [level]
    while len(inner := level[forest.feature[level] != LEAF]):
        level = np.column_stack([forest.left[inner], forest.right[inner]]).ravel()
        levels.append(level)
    nodes = np.concatenate(levels).astype(np.int64)
    tree = np.searchsorted(forest.roots, nodes, side="right")
    return nodes[np.argsort(tree, kind="stable")]


def _nodes(forest: Forest) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Return compact nodes, and the position of each of the forest's nodes among them.

    A node takes 8 bytes, so that more of them are in a cache: its left child is `children` nodes further on, its right
    one beside that. A leaf has none, and every row goes left there.
    """
    order = _order(forest)
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    inner = np.flatnonzero(forest.feature != LEAF)
    children = np.zeros(len(order), dtype=np.int64)
    children[position[inner]] = position[forest.left[inner]] - position[inner]
    fits = children.max(initial=0) < 2**16
    nodes = np.zeros(
        len(order), dtype=[("threshold", "<f4"), ("feature", "<u2"), ("children", "<u2" if fits else "<u4")]
    )
    nodes["children"] = children
    nodes["threshold"] = np.inf
    nodes["threshold"][position[inner]] = cut_below(forest.threshold[inner])
    goes_left = np.where((forest.feature == LEAF) | forest.missing_left, 0x8000, 0)
    nodes["feature"] = (np.maximum(forest.feature, 0) | goes_left)[order]
    return nodes, position


def _leaf_of(forest: Forest, position: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the row of values of each compact node that is a leaf, and 0 for the others."""
    leaf_of = np.zeros(len(position), dtype=np.int32)
    leaves = np.flatnonzero(forest.feature == LEAF)
    leaf_of[position[leaves]] = np.arange(len(leaves))
    return leaf_of
