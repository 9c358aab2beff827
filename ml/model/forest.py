"""A forest of decision trees as flat arrays: taken from scikit-learn, checked, independent of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError

LEAF = -1
MAX_DEPTH = 1_000
# Leaf probabilities are fractions of training weights; their sum carries a rounding error of a few ulps.
SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees, tree after tree, each tree's root first and children after their parent.

    Attributes:
        n_features: how many values a row has.
        roots: shape (n_trees,), int32: the first node of each tree.
        feature: shape (n_nodes,), int32: the feature that a node compares, or `LEAF`.
        threshold: shape (n_nodes,), float64: a row goes left where float32(value) <= threshold. 0 at leaves.
        left, right: shape (n_nodes,), int32: child nodes, or `LEAF`.
        values: shape (n_leaves, n_outputs), float64: one row per leaf, in the order of the nodes: the probability of
            each label, or one quantity.
        missing_left: shape (n_nodes,), bool: whether a row without a value goes left. A threshold of infinity sends
            every value left, so that a node can tell rows without one apart.
        covers: shape (n_nodes,), float64: the weight of the training rows that came by; None in a file of format 1.
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

    @property
    def n_trees(self) -> int:
        return len(self.roots)

    @property
    def n_outputs(self) -> int:
        return int(self.values.shape[1])

    @classmethod
    def from_estimator(cls, estimator: Any) -> Forest:
        """Take the trees out of a fitted scikit-learn forest, extra-trees or single decision tree.

        Raises:
            ForestError: the estimator is not one of these, is not fitted, or predicts more than one output.
        """
        # By name: other ensembles hold decision trees too, but weigh them or show each some of the features only.
        kinds = ("RandomForest", "ExtraTrees", "DecisionTree", "ExtraTree")
        known = {kind + task for kind in kinds for task in ("Classifier", "Regressor")}
        is_known = not known.isdisjoint(kind.__name__ for kind in type(estimator).__mro__)
        trees: list[Any] = [getattr(e, "tree_", None) for e in getattr(estimator, "estimators_", [estimator])]
        if not is_known or not all(hasattr(tree, "children_left") for tree in trees):
            raise ForestError(
                f"{type(estimator).__name__} is not a fitted classifier or regressor made of decision trees"
            )
        if getattr(estimator, "n_outputs_", 1) != 1:
            raise ForestError("an estimator with more than one output is not supported")
        sizes = [tree.node_count for tree in trees]
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
        left, right = (
            np.concatenate([np.where(c < 0, LEAF, c + root) for c, root in zip(children, roots, strict=True)])
            for children in ([t.children_left for t in trees], [t.children_right for t in trees])
        )
        is_leaf = left == LEAF
        values = np.concatenate([tree.value[:, 0, :] for tree in trees])
        forest = cls(
            n_features=int(estimator.n_features_in_),
            roots=roots,
            feature=np.where(is_leaf, LEAF, np.concatenate([t.feature for t in trees])).astype(np.int32),
            threshold=np.where(is_leaf, 0.0, np.concatenate([t.threshold for t in trees])).astype(np.float64),
            left=left.astype(np.int32),
            right=right.astype(np.int32),
            values=np.ascontiguousarray(values[is_leaf], dtype=np.float64),
            missing_left=np.concatenate([t.missing_go_to_left for t in trees]).astype(bool) & ~is_leaf,
            covers=np.concatenate([t.weighted_n_node_samples for t in trees]).astype(np.float64),
        )
        forest.check(is_quantity=not hasattr(estimator, "classes_"))
        return forest

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
        self._check_leaves(inner, is_quantity=is_quantity)
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
        if self.feature.ndim != 1 or self.roots.ndim != 1 or self.values.ndim != 2 or self.n_outputs < 1:
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
        tree_end = np.append(self.roots[1:], n_nodes)[np.searchsorted(self.roots, nodes, side="right") - 1]
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

    def _check_leaves(self, inner: NDArray[np.bool_], *, is_quantity: bool) -> None:
        if len(self.values) != len(inner) - int(inner.sum()):
            raise ForestError("there is not exactly one row of values for each leaf")
        if is_quantity:
            if self.n_outputs != 1 or not np.all(np.isfinite(self.values)):
                raise ForestError("a leaf does not have one finite number")
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
