"""A forest evaluated by compiled code (see `ml.model.kernels`): any forest, and the fastest there is for most.

The first use on a machine compiles the code, which takes seconds and is said; later ones find it in a cache.
"""

from __future__ import annotations

import logging
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml.model.cuts import BELOW_CHOICES, Cuts, cut_of
from ml.model.forest import FIRST_CHOICE_CELL, LEAF, NO_VALUE_CELL, UNKNOWN_CELL, Forest
from ml.model.lines import Lines, intervals
from ml.model.masks import levels_of, masks_of

# Rows of a block stay in a core's own cache while all trees look at them.
BLOCK_BYTES = 2**18
MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 64, 4096
# Fewer rows are not faster as bits.
MASK_ROWS = 64
# Leaf values that are added up for the answers along the features of a row: a millisecond for each million.
MAX_LINE_VALUES = 4_000_000

logger = logging.getLogger("ml")


class Kernels(NamedTuple):
    """The modules of compiled loops: those that answer rows, and those that explain an answer."""

    rows: ModuleType
    explanations: ModuleType


@cache
def kernels() -> Kernels | None:
    """Return the compiled loops; None, and one warning, where nothing can be compiled."""
    try:
        from ml.model import explanation_kernels, kernels
    # A host may lack the package, or forbid memory that is written and run (systemd's MemoryDenyWriteExecute).
    except (ImportError, OSError) as error:
        logger.warning("numba cannot be used (%s): large forests are evaluated by NumPy, which is slower", error)
        return None
    for function in (
        kernels.walk, kernels.walk_one, kernels.levels_one, kernels.masks, explanation_kernels.branches,
        explanation_kernels.along, explanation_kernels.shapley, explanation_kernels.exchange,
    ):  # fmt: skip
        kernels.keep(function)
    return Kernels(kernels, explanation_kernels)


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

    def __init__(self, forest: Forest, cuts: Cuts, code: Kernels) -> None:
        self._code = code
        self._n_trees = forest.n_trees
        self._starts = forest.starts()
        self._dtype = forest.dtype
        # Numbers are cast in a third of the time that NumPy takes for a list of them.
        kind = "f" if self._dtype is np.float32 else "d"
        self._pack_into = struct.Struct(f"{forest.n_features}{kind}").pack_into
        gaps = True if any(cuts.has_missing) else None
        # Copies, aligned and writable: code is compiled for each kind of array.
        output_of = None if forest.output_of is None else np.array(forest.output_of)
        self._by_sets = list(forest.set_features())
        # Of each set only the words that may be asked for, so that more of them are in a cache.
        words = max((cuts.sizes[feature] // 64 + 1 for feature in self._by_sets), default=1)
        self._last_choice = 64 * words - FIRST_CHOICE_CELL - 1
        sets = None if forest.sets is None else forest.sets[:, :words].copy()
        self._options = (gaps, sets, output_of)
        # Where -1 is a word that is not among the choices, and so no value.
        self._categories = list(cuts.categories)
        nodes, position = _nodes(forest)
        # No copy of what is most of a file. Read-only, as that is: code is compiled for each kind of array.
        leaves = np.ascontiguousarray(forest.values, dtype=self._starts.dtype).view()
        leaves.flags.writeable = False
        self._walked = (nodes, position[forest.roots].astype(np.int32), _leaf_of(forest, position), leaves)
        self._block = min(
            max(BLOCK_BYTES // (np.dtype(self._dtype).itemsize * forest.n_features), MIN_BLOCK_ROWS), MAX_BLOCK_ROWS
        )
        self._masked = masks_of(forest)
        levels = None if self._masked is None else levels_of(forest, nodes, position)
        self._one = self._code.rows.walk_one
        self._arrays: tuple[tuple[Any, ...], tuple[Any, ...]] = (self._walked, self._options)
        if self._masked is not None and levels is not None:
            self._one = self._code.rows.levels_one
            self._arrays = (levels, self._masked[-2]), (gaps, output_of)
        self._branch_room = 64 * self._n_trees
        self._warm(forest.n_features)

    def _warm(self, n_features: int) -> None:
        """Load the code from its cache, or compile it, rather than with the first question."""
        with self._compiling():
            with _missing("scipy.linalg"):
                self.one([0.0] * n_features)
            self.batch(np.zeros((MASK_ROWS, n_features), dtype=self._dtype))
            if self._masked is not None:
                self.batch(np.zeros((1, n_features), dtype=self._dtype))
            self.lines([0.0] * n_features)

    def _compiling(self) -> AbstractContextManager[None]:
        """Return a context in which it is logged when code is compiled."""
        said = "compiling the code that evaluates this forest, which takes seconds"
        installed: AbstractContextManager[None] = self._code.rows.Compiling(partial(logger.info, said)).installed()
        return installed

    def one(self, row: Sequence[float], _ranks: Sequence[int] | None = None) -> NDArray[np.floating[Any]]:
        """Return the sums of one row of float64 values, shape (n_sums,)."""
        sums, values = self._starts.copy(), np.empty(len(row), dtype=self._dtype)
        if self._by_sets:
            row = list(row)
            for feature in self._by_sets:
                row[feature] = _cell(row[feature], self._last_choice)
        self._pack_into(values.data, 0, *row)
        for feature in self._categories:
            if values[feature] <= BELOW_CHOICES:
                values[feature] = np.nan
        arrays, options = self._arrays
        self._one(*arrays, values, sums, *options)
        return sums

    def batch(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return the sums of rows: shape (n, n_features) in, (n, n_sums) out."""
        rows = self._prepared(rows)
        if self._masked is not None and len(rows) >= MASK_ROWS:
            blocks = -(-len(rows) // self._code.rows.BLOCK_ROWS) * self._code.rows.BLOCK_ROWS
            columns = np.zeros((rows.shape[1], blocks), dtype=self._dtype)
            columns[:, : len(rows)] = rows.T
            by_output = np.repeat(self._starts[:, None], blocks, axis=1)
            self._code.rows.masks(*self._masked, columns, by_output)
            return np.ascontiguousarray(by_output[:, : len(rows)].T)
        sums = np.repeat(self._starts[None], len(rows), axis=0)
        self._code.rows.walk(*self._walked, np.ascontiguousarray(rows), sums, self._block, *self._options)
        return sums

    def _prepared(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return rows as the compiled loops take them: with cells of categories."""
        if self._categories:
            rows = rows.copy()
            words = rows[:, self._categories]
            rows[:, self._categories] = np.where(words <= BELOW_CHOICES, np.nan, words)
        if self._by_sets:
            rows = rows.copy()
            words = rows[:, self._by_sets]
            cells = np.clip(words, -1, self._last_choice) + FIRST_CHOICE_CELL
            rows[:, self._by_sets] = np.where(np.isnan(words), NO_VALUE_CELL, cells)
        return rows

    def exchanges(
        self, rows: NDArray[np.floating[Any]], features: Sequence[int], orders: NDArray[np.intp]
    ) -> Iterator[NDArray[np.floating[Any]]]:
        """Yield the sums of each row with the value of one feature from another row.

        Args:
            rows: shape (n, n_features).
            features: those whose values are exchanged, one at a time.
            orders: shape (n_orders, n): the other row of each one.

        Yields:
            shape (len(features) * n_orders, n_sums), feature by feature.
        """
        rows = self._prepared(rows)
        place_of = np.full(rows.shape[1], -1)
        place_of[features] = np.arange(len(features))
        columns = np.ascontiguousarray(rows[:, features].T)
        for number, row in enumerate(np.ascontiguousarray(rows)):
            others = np.ascontiguousarray(columns[:, orders[:, number]])
            sums = np.repeat(self._starts[:, None], others.size, axis=1)
            with self._compiling():
                self._code.explanations.exchange(*self._walked, row, place_of, others, sums, *self._options)
            yield sums.T

    def lines(self, row: Sequence[float]) -> Lines | None:
        """Return the sums along each feature, the other values held; None where a row may lack a value, as all do that
        have words, or where that would take more than some milliseconds.

        Of all cuts of a feature only those count that a tree meets on its way with this row. They are mostly few:
        answers along all features of a row take as long as those to some hundred rows.
        """
        gaps, _, output_of = self._options
        if gaps:
            return None
        features, trees, lows, highs, found, own = self._branches(np.array(row, dtype=self._dtype))
        starts, stops, lines = intervals(features, lows, highs, len(row), self._starts)
        leaves = self._walked[-1]
        if lines.sums.shape[1] * leaves.shape[1] * self._n_trees > MAX_LINE_VALUES:
            return None
        self._code.explanations.along(leaves, own, trees, starts, stops, found, output_of, lines.sums)
        return lines

    def _branches(self, row: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], ...]:
        """Return what `explanation_kernels.branches` finds."""
        nodes, roots, leaf_of, _ = self._walked
        own = np.empty(self._n_trees, dtype=np.int32)
        room = self._branch_room
        features, trees, found = (np.empty(room, dtype=np.int32) for _ in range(3))
        lows, highs = (np.empty(room, dtype=self._dtype) for _ in range(2))
        arrays = row, own, features, trees, lows, highs, found
        count = self._code.explanations.branches(nodes, roots, leaf_of, *arrays)
        if count > room:
            self._branch_room = count
            return self._branches(row)
        return features[:count], trees[:count], lows[:count], highs[:count], found[:count], own


def _cell(value: float, last_choice: int) -> float:
    """Return the cell of a category's value: see `Forest.sets`."""
    if value >= 0:
        return min(value, last_choice) + FIRST_CHOICE_CELL
    return UNKNOWN_CELL if value < 0 else NO_VALUE_CELL


def _nodes(forest: Forest) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Return compact nodes, and the position of each of the forest's nodes among them.

    A node takes 8 bytes, or 12 with a float64 threshold, so that more of them are in a cache: its left child is
    `children` nodes further on, its right one beside that. A leaf has none, and every row goes left there. The
    threshold of a node that has a set is its number.
    """
    inner = np.flatnonzero(forest.feature != LEAF)
    # The roots stay where they are; behind each root the pairs of children stand in the order of their parents.
    position = np.arange(len(forest.feature))
    lefts = 2 * np.arange(len(inner)) + forest.tree_of_nodes()[inner] + 1
    position[forest.left[inner]] = lefts
    position[forest.right[inner]] = lefts + 1
    places = position[inner]
    children = lefts - places
    fits = children.max(initial=0) < 2**16
    nodes = np.zeros(
        len(position), dtype=[("threshold", forest.dtype), ("feature", "<u2"), ("children", "<u2" if fits else "<u4")]
    )
    nodes["children"][places] = children
    nodes["threshold"] = np.inf
    nodes["threshold"][places] = cut_of(forest, inner)
    features = forest.feature[inner].astype(np.uint16)
    features[forest.missing_left[inner]] |= 0x8000
    if forest.set_of is not None:
        has_set = forest.set_of[inner] >= 0
        nodes["threshold"][places[has_set]] = forest.set_of[inner[has_set]]
        features[has_set] |= 0x4000
    nodes["feature"] = 0x8000
    nodes["feature"][places] = features
    return nodes, position


def _leaf_of(forest: Forest, position: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the row of values of each compact node that is a leaf, and 0 for the others."""
    leaf_of = np.zeros(len(position), dtype=np.int32)
    leaves = np.flatnonzero(forest.feature == LEAF)
    leaf_of[position[leaves]] = np.arange(len(leaves))
    return leaf_of
