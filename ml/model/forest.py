"""A forest of decision trees as flat arrays: checked, and independent of the library that fitted it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError
from ml.model.total import EXP_LINKS, Total
from ml.tables.numbers import LARGEST

LEAF = -1
MAX_DEPTH = 1_000
# Leaf probabilities are fractions of training weights; their sum carries a rounding error of a few ulps.
SUM_TOLERANCE = 1e-9
# A set's number stands in a node of compiled code as a float32.
MAX_SETS = 2**24
# The cells of a category: no value, a word that is not among the choices, and each choice.
NO_VALUE_CELL, UNKNOWN_CELL, FIRST_CHOICE_CELL = 0, 1, 2
MAX_CELLS = 256
# Answers are finite as float32, too: channels send them so. exp() of the exponent is 3.3e38. Single sums may round up.
LARGEST_SINGLE_SUM = 1e38
LARGEST_EXPONENT = 88.7


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees, tree after tree, each tree's root first and children after their parent.

    Attributes:
        n_features: how many values a row has.
        roots: shape (n_trees,), int32: the first node of each tree.
        feature: shape (n_nodes,), int32: the feature that a node compares, or `LEAF`.
        threshold: shape (n_nodes,), float64: a row goes left where value <= threshold. 0 at leaves.
        left, right: shape (n_nodes,), int32: child nodes, or `LEAF`.
        values: shape (n_leaves, n_sums), float64: one row a leaf, in the order of the nodes: what it adds to each sum;
            with `output_of`, shape (n_leaves, 1). Without another `total`, the sums are means: the probability of
            each label, or one quantity.
        missing_left: shape (n_nodes,), bool: whether a row without a value goes left. A threshold of infinity sends
            every value left, so that a node can tell rows without one apart.
        covers: shape (n_nodes,), float64: the weight of the training rows that came by; None in a file of format 1.
        set_of: shape (n_nodes,), int32: the set of a node that compares a category by its cells, or -1; None if no node
            does. Such a node has the threshold 0, and `missing_left` is False; then all nodes of its feature have sets.
        sets: shape (n_sets, 4), uint64: bit c % 64 of word c // 64 says whether cell c goes left. The cells are 0 for
            no value, 1 for a word that is not among the choices, and 2 + i for choice i.
        init: shape (n_sums,), float64: where the sums start; None for 0.
        output_of: shape (n_trees,), int32: the sum that the tree's leaves, which have one value each, are added to;
            None if a leaf has a value for each sum.
        total: how the sums are made, in which type values are compared, and how the sums become the answer.
    """

    n_features: int
    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    values: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    covers: NDArray[np.float64] | None = None
    set_of: NDArray[np.int32] | None = None
    sets: NDArray[np.uint64] | None = None
    init: NDArray[np.float64] | None = None
    output_of: NDArray[np.int32] | None = None
    total: Total = field(default_factory=Total)

    @property
    def n_trees(self) -> int:
        return len(self.roots)

    @property
    def n_sums(self) -> int:
        """The number of sums that the leaves are added to."""
        return int(self.values.shape[1]) if self.output_of is None or self.init is None else len(self.init)

    @property
    def n_outputs(self) -> int:
        """The number of answers: one for each label, or one quantity."""
        return self.total.n_answers(self.n_sums)

    @property
    def divisor(self) -> float:
        """What the sums are divided by."""
        return float(self.n_trees) if self.total.link == "mean" else self.total.divisor

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """The type in which values are compared."""
        return np.float32 if self.total.single_values else np.float64

    def starts(self) -> NDArray[np.floating[Any]]:
        """Return where the sums start, shape (n_sums,), in the type of the sums."""
        init = np.zeros(self.n_sums) if self.init is None else self.init
        return init.astype(np.float32 if self.total.single_sums else np.float64)

    def tree_of_nodes(self) -> NDArray[np.intp]:
        """Return the tree of each node, shape (n_nodes,)."""
        return np.repeat(np.arange(self.n_trees), np.diff(self.roots, append=len(self.feature)))

    def set_features(self) -> tuple[int, ...]:
        """Return the features that are compared by sets, ascending."""
        if self.set_of is None:
            return ()
        return tuple(np.unique(self.feature[self.set_of >= 0]).tolist())

    def check(self, *, is_quantity: bool = False) -> None:
        """Check that the arrays are trees, so that evaluating them ends and stays inside them.

        Args:
            is_quantity: leaves have one number each, and no probabilities.

        Raises:
            ForestError: names the first thing that is wrong.
        """
        self._check_shapes()
        inner = self.feature != LEAF
        self._check_nodes(inner)
        self._check_children(inner)
        self._check_sets(inner)
        self._check_leaves(is_quantity=is_quantity)
        self._check_sums()
        self._check_largest()
        self.levels()

    def _check_shapes(self) -> None:
        n_nodes = len(self.feature)
        for name, shape in [
            ("threshold", self.threshold.shape),
            ("left", self.left.shape),
            ("right", self.right.shape),
            ("missing_left", self.missing_left.shape),
            ("covers", (n_nodes,) if self.covers is None else self.covers.shape),
        ]:
            if shape != (n_nodes,):
                raise ForestError(f"{name} has shape {shape}, not ({n_nodes},)")
        if self.feature.ndim != 1 or self.roots.ndim != 1 or self.values.ndim != 2 or self.values.shape[1] < 1:
            raise ForestError("nodes, roots or leaf values have the wrong number of dimensions")
        if (
            not self.n_trees
            or self.roots[0] != 0
            or np.any(self.roots[1:] <= self.roots[:-1])
            or self.roots[-1] >= n_nodes
        ):
            raise ForestError("the roots of the trees are not in ascending order from node 0")

    def _check_nodes(self, inner: NDArray[np.bool_]) -> None:
        if np.any(self.feature[inner] < 0) or np.any(self.feature >= self.n_features):
            raise ForestError(f"a node compares a feature outside 0 to {self.n_features - 1}")
        if np.any(np.isnan(self.threshold)) or np.any(np.isneginf(self.threshold)):
            raise ForestError("a threshold is no number, or below all numbers")
        if self.covers is not None and not np.all((self.covers > 0) & np.isfinite(self.covers)):
            raise ForestError("a node has no training row")
        if np.any(self.left[~inner] != LEAF) or np.any(self.right[~inner] != LEAF):
            raise ForestError("a leaf has children")

    def _check_children(self, inner: NDArray[np.bool_]) -> None:
        n_nodes = len(self.feature)
        nodes = np.arange(n_nodes)
        tree_end = np.append(self.roots[1:], n_nodes)[self.tree_of_nodes()]
        for children in (self.left[inner], self.right[inner]):
            if np.any(children <= nodes[inner]):
                raise ForestError("a child does not come after its parent, so the tree has a cycle")
            if np.any(children >= tree_end[inner]):
                raise ForestError("a child lies outside its tree")
        parents = np.bincount(np.concatenate([self.left[inner], self.right[inner]]), minlength=n_nodes)
        expected = np.ones(n_nodes, dtype=parents.dtype)
        expected[self.roots] = 0
        if np.any(parents != expected):
            raise ForestError("a node does not have exactly one parent")

    def _check_sets(self, inner: NDArray[np.bool_]) -> None:
        if self.set_of is None or self.sets is None:
            if self.set_of is not None or self.sets is not None:
                raise ForestError("set_of and sets go together")
            return
        has_set = self.set_of >= 0
        if self.set_of.shape != inner.shape or self.sets.shape[1:] != (MAX_CELLS // 64,) or not len(self.sets):
            raise ForestError(f"set_of or sets have the wrong shape: {self.set_of.shape} and {self.sets.shape}")
        if np.any(self.set_of < -1) or np.any(self.set_of >= len(self.sets)) or len(self.sets) > MAX_SETS:
            raise ForestError(f"a node has a set outside 0 to {len(self.sets) - 1}, or there are too many sets")
        if np.any(has_set & (~inner | (self.threshold != 0) | self.missing_left)):
            raise ForestError("a leaf has a set, or a node has a set and a threshold")
        if np.any(np.isin(self.feature[inner & ~has_set], self.set_features())):
            raise ForestError("a feature is compared by sets and by thresholds")

    def _check_sums(self) -> None:
        if self.output_of is not None and (
            self.init is None
            or self.values.shape[1] != 1
            or self.output_of.shape != self.roots.shape
            or np.any((self.output_of < 0) | (self.output_of >= len(self.init)))
        ):
            raise ForestError("the trees do not have one sum each, or leaves not one value each")
        if self.init is not None and (self.init.shape != (self.n_sums,) or not np.all(np.isfinite(self.init))):
            raise ForestError("the sums do not start with one finite number each")
        if not self.total.fits(self.n_sums):
            raise ForestError(f"{self.n_sums} sums do not fit the link {self.total.link} or its divisor")

    def _check_largest(self) -> None:
        """Check that no sum of leaves, and no answer made of it, can be too large."""
        trees = self.tree_of_nodes()[self.feature == LEAF]
        for leaf in np.flatnonzero(~np.isfinite(self.values).all(axis=1))[:1]:
            raise ForestError(f"tree {trees[leaf]} has a leaf of {self.values[leaf].sum():g}, not a finite number")
        is_power = self.total.link in EXP_LINKS
        # What is far below 0 has the power 0.
        sized = self.values.max(axis=1) if is_power else np.abs(self.values).max(axis=1)
        # Of each tree its largest leaf.
        largest = np.maximum.reduceat(sized, np.searchsorted(trees, np.arange(self.n_trees)))
        starts = self.starts()
        with np.errstate(over="ignore"):
            total = float(largest.sum() + (starts.max() if is_power else np.abs(starts).max()))
        is_single = self.total.single_sums and not is_power
        total = max(total, total / self.divisor) if is_single else total / self.divisor
        most = LARGEST_EXPONENT if is_power else LARGEST_SINGLE_SUM if is_single else LARGEST
        if not total <= most:
            tree = int(largest.argmax())
            adds = f"can be {total:.3g} (a leaf of tree {tree} adds {largest[tree]:.3g}): at most {most:g} is served, "
            raise ForestError(
                f"the answer is exp() of the sum of leaves, which {adds}whose exp() fits into a 32-bit float"
                if is_power
                else f"the {'sum of leaves' if is_single else 'answer'} {adds}which fits into a 32-bit float"
            )

    def _check_leaves(self, *, is_quantity: bool) -> None:
        if len(self.values) != np.count_nonzero(self.feature == LEAF):
            raise ForestError("there is not exactly one row of values for each leaf")
        if is_quantity:
            if self.n_outputs != 1:
                raise ForestError("a leaf does not have one number")
            return
        if self.total.link != "mean":
            return
        if not np.all((self.values >= 0) & (self.values <= 1 + SUM_TOLERANCE)):
            raise ForestError("a leaf has a probability outside 0 to 1")
        if np.any(np.abs(self.values.sum(axis=1) - 1) > SUM_TOLERANCE):
            raise ForestError("the probabilities of a leaf do not sum to 1")

    def levels(self) -> list[NDArray[np.int32]]:
        """Return the nodes of all trees level by level, the roots first.

        Raises:
            ForestError: a tree has more than `MAX_DEPTH` levels.
        """
        levels: list[NDArray[np.int32]] = []
        level = self.roots
        while len(level):
            if len(levels) > MAX_DEPTH:
                raise ForestError(f"a tree is deeper than {MAX_DEPTH} levels")
            levels.append(level)
            inner = level[self.feature[level] != LEAF]
            level = np.concatenate([self.left[inner], self.right[inner]])
        return levels


def packed(sets: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return sets of cells as a forest has them: shape (n_sets, `MAX_CELLS`) in, (n_sets, 4) out."""
    return np.packbits(sets, axis=1, bitorder="little").view("<u8").astype(np.uint64)
