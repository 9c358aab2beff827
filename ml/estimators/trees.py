"""Forests of fitted estimators: scikit-learn's ensembles and single trees become arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ml.errors import ForestError
from ml.model.forest import LEAF, Forest


def forest_from(estimator: Any) -> Forest:
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
        raise ForestError(f"{type(estimator).__name__} is not a fitted classifier or regressor made of decision trees")
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
    forest = Forest(
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
