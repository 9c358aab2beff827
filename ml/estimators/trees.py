"""scikit-learn's ensembles of trees, and single trees, become forests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError
from ml.estimators import histogram
from ml.estimators.boosted import imported_from
from ml.estimators.paths import MODELS, unread
from ml.estimators.voting import calibrated_of, vote_of
from ml.model.forest import LEAF, SUM_TOLERANCE, Forest
from ml.model.total import Total


def forest_from(estimator: Any) -> Forest:
    """Return the trees of a fitted scikit-learn ensemble or single tree, with the library's own arithmetic.

    What has its forest already, folded into its features, gives it: a booster, or a model of another library's file.

    Raises:
        ForestError: the estimator is not one of `READERS`, is not fitted, or is made in a way that is no sum of leaves.
    """
    if hasattr(estimator, "folded"):
        folded: Forest = estimator.folded
        return folded
    if imported := imported_from(estimator):
        return imported.forest
    known = readers_of(estimator)
    fitted = ("tree_", "estimators_", "_predictors", "calibrated_classifiers_")
    is_fitted = any(hasattr(estimator, name) for name in fitted)
    if not known:
        raise unread(estimator)
    if not is_fitted:
        raise ForestError(f"{type(estimator).__name__} is not a fitted classifier or regressor made of decision trees")
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise ForestError("an estimator with more than one output is not supported")
    forest = known[0](estimator)
    forest.check(is_quantity=not hasattr(estimator, "classes_"))
    return forest


def readers_of(estimator: Any) -> list[Callable[[Any], Forest]]:
    """Return what reads the trees of an estimator of scikit-learn; nothing if it is of no such kind."""
    # By name, so that nothing of scikit-learn is imported; heirs of these, such as imbalanced-learn's, count as them.
    names = [kind.__name__.removesuffix("Classifier").removesuffix("Regressor") for kind in type(estimator).__mro__]
    return [READERS[name] for name in names if name in READERS]


def lacking_in(forest: Forest) -> set[int]:
    """Return the columns of which the trees can tell no value apart, since they were fitted on rows without one."""
    # Only such a row goes right at a threshold above all values.
    return set(forest.feature[np.isposinf(forest.threshold)].tolist())


def _mean(estimator: Any) -> Forest:
    trees = _trees_of(estimator, getattr(estimator, "estimators_", [estimator]))
    values = [tree.value[:, 0, :] for tree in trees]
    return _joined(trees, [*map(_shares, values)] if hasattr(estimator, "classes_") else values, estimator)


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of nodes; those of older libraries hold counts, which these divide in this way."""
    totals = values.sum(axis=1, keepdims=True)
    return values if np.allclose(totals, 1, rtol=0, atol=SUM_TOLERANCE) else values / totals


def _boosted(estimator: Any) -> Forest:
    """Return a GradientBoosting: sums start at the log-odds of the classes, or at a quantity."""
    start = estimator.init_
    if start != "zero" and type(start).__name__ not in ("DummyClassifier", "DummyRegressor"):
        kinds = f"{type(estimator).__name__} starts with a {type(start).__name__}"
        raise ForestError(f"{kinds}, not with a constant: leave init out")
    n_stages, n_sums = estimator.estimators_.shape
    trees = _trees_of(estimator, estimator.estimators_.ravel())
    init = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))
    total = Total(link="identity")
    if n_sums > 1:
        total = Total(link="softmax", label_by="sums")
    elif hasattr(estimator, "classes_"):
        total = Total(link="half_logit" if estimator.loss == "exponential" else "expit", label_by="not_negative")
    return _joined(
        trees,
        [estimator.learning_rate * tree.value[:, 0, :] for tree in trees],
        estimator,
        init=np.asarray(init[0], dtype=np.float64),
        output_of=np.tile(np.arange(n_sums, dtype=np.int32), n_stages),
        total=total,
    )


def _adaboost(estimator: Any) -> Forest:
    """Return an AdaBoost of trees, each of which votes for one class with its weight."""
    trees = _trees_of(estimator, estimator.estimators_)
    if not hasattr(estimator, "classes_"):
        return _joined(
            trees, [tree.value[:, 0, :] for tree in trees], estimator, init=np.zeros(len(trees)),
            output_of=np.arange(len(trees), dtype=np.int32),
            total=Total(link="median", weights=tuple(estimator.estimator_weights_[: len(trees)].tolist())),
        )  # fmt: skip
    n_classes, weights = len(estimator.classes_), estimator.estimator_weights_
    if getattr(estimator, "algorithm", "") == "SAMME.R":
        raise ForestError("AdaBoost with algorithm='SAMME.R' is not supported; with algorithm='SAMME' it is")
    if any(len(one.classes_) != n_classes for one in estimator.estimators_):
        raise ForestError("a tree of the AdaBoost does not know all classes")
    votes = []
    for tree, weight in zip(trees, weights, strict=False):
        chosen = np.arange(n_classes) == tree.value[:, 0, :].argmax(axis=1)[:, None]
        votes.append(np.where(chosen, weight, -1 / (n_classes - 1) * weight))
    total = Total(link="samme", divisor=float(weights.sum()), label_by="sums")
    if n_classes > 2:
        return _joined(trees, votes, estimator, total=total)
    # What is for the second of two classes is against the first: one sum tells both, and scikit-learn's halved
    # difference of the two is that sum again.
    return _joined(
        trees, [vote[:, 1:] for vote in votes], estimator, init=np.zeros(1),
        output_of=np.zeros(len(trees), dtype=np.int32), total=Total(
            link="samme", divisor=float(weights.sum()), label_by="positive"
        ),
    )  # fmt: skip


def _bagging(estimator: Any) -> Forest:
    """Return a Bagging of trees, each of which sees some of the features and perhaps not all classes."""
    trees = _trees_of(estimator, estimator.estimators_)
    values = [tree.value[:, 0, :] for tree in trees]
    if hasattr(estimator, "classes_"):
        values = [*map(_shares, values)]
        whole = [np.zeros((len(value), len(estimator.classes_))) for value in values]
        for filled, value, one in zip(whole, values, estimator.estimators_, strict=True):
            filled[:, one.classes_.astype(np.intp)] = value
        values = whole
    return _joined(trees, values, estimator, features=estimator.estimators_features_)


def _vote(estimator: Any) -> Forest:
    return vote_of(estimator, forest_from)


def _calibrated(estimator: Any) -> Forest:
    return calibrated_of(estimator, forest_from)


# By the name of a class, or of one that it inherits from, without its task: other ensembles hold decision trees too.
READERS: Mapping[str, Callable[[Any], Forest]] = {
    "RandomForest": _mean,
    "ExtraTrees": _mean,
    "DecisionTree": _mean,
    "ExtraTree": _mean,
    "GradientBoosting": _boosted,
    "HistGradientBoosting": histogram.forest_from,
    "AdaBoost": _adaboost,
    "Bagging": _bagging,
    "Voting": _vote,
    "CalibratedClassifierCV": _calibrated,
}


def _trees_of(estimator: Any, members: Sequence[Any]) -> list[Any]:
    """Return the trees of an ensemble's members, which must be single trees of one output."""
    trees = [getattr(member, "tree_", None) for member in members]
    for member, tree in zip(members, trees, strict=True):
        if not hasattr(tree, "children_left"):
            kinds = f"{type(estimator).__name__} holds a {type(member).__name__}"
            raise ForestError(f"{kinds}, which is no decision tree: {MODELS}")
    return trees


def _joined(
    trees: Sequence[Any],
    values: Sequence[NDArray[np.float64]],
    estimator: Any,
    *,
    features: Sequence[NDArray[np.integer]] | None = None,
    **more: Any,
) -> Forest:
    """Return one forest of scikit-learn's trees.

    Args:
        values: of each tree, shape (n_nodes, n_values): what its leaves add; those of inner nodes are not used.
        features: of each tree, the features that it sees; else each sees all.
    """
    sizes = [tree.node_count for tree in trees]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    left, right = (
        np.concatenate([np.where(c < 0, LEAF, c + root) for c, root in zip(children, roots, strict=True)])
        for children in ([t.children_left for t in trees], [t.children_right for t in trees])
    )
    seen = [t.feature for t in trees]
    if features is not None:
        seen = [np.asarray(own)[np.maximum(feature, 0)] for feature, own in zip(seen, features, strict=True)]
    is_leaf = left == LEAF
    return Forest(
        n_features=int(estimator.n_features_in_),
        roots=roots,
        feature=np.where(is_leaf, LEAF, np.concatenate(seen)).astype(np.int32),
        threshold=np.where(is_leaf, 0.0, np.concatenate([t.threshold for t in trees])).astype(np.float64),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        values=np.ascontiguousarray(np.concatenate(values)[is_leaf], dtype=np.float64),
        # Before scikit-learn 1.3, trees know no missing values.
        missing_left=np.concatenate(
            [np.asarray(getattr(t, "missing_go_to_left", np.zeros(t.node_count)), dtype=bool) for t in trees]
        )
        & ~is_leaf,
        covers=np.concatenate([t.weighted_n_node_samples for t in trees]).astype(np.float64),
        **more,
    )
