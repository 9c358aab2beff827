"""scikit-learn's HistGradientBoosting becomes a forest: float64 thresholds, and sets of categories."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError
from ml.model.forest import FIRST_CHOICE_CELL, LEAF, MAX_CELLS, Forest, packed
from ml.model.total import Total

# Of each feature that is a category: the cells of its encoded categories.
_Cells = dict[int, NDArray[np.intp]]


def forest_from(estimator: Any) -> Forest:
    """Return the trees of a fitted HistGradientBoostingClassifier or -Regressor.

    A category's values are the positions of its choices; what it has not seen goes the way of no value.

    Raises:
        ForestError: a category has other values.
    """
    predictors = [tree for stage in estimator._predictors for tree in stage]
    nodes = np.concatenate([tree.nodes for tree in predictors])
    sizes = [len(tree.nodes) for tree in predictors]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    is_leaf = nodes["is_leaf"].astype(bool)
    order, cells = _columns(estimator)
    feature = np.where(is_leaf, LEAF, order[np.where(is_leaf, 0, nodes["feature_idx"])])
    first = np.repeat(roots, sizes)
    sets, set_of = _sets(predictors, nodes, feature, cells)
    return Forest(
        n_features=int(estimator.n_features_in_),
        roots=roots.astype(np.int32),
        feature=feature.astype(np.int32),
        threshold=np.where(is_leaf | (set_of >= 0), 0.0, nodes["num_threshold"]),
        left=np.where(is_leaf, LEAF, nodes["left"] + first).astype(np.int32),
        right=np.where(is_leaf, LEAF, nodes["right"] + first).astype(np.int32),
        values=np.ascontiguousarray(nodes["value"][is_leaf, None]),
        missing_left=nodes["missing_go_to_left"].astype(bool) & ~is_leaf & (set_of < 0),
        covers=nodes["count"].astype(np.float64),
        set_of=set_of if len(sets) else None,
        sets=sets if len(sets) else None,
        init=np.asarray(estimator._baseline_prediction, dtype=np.float64).ravel(),
        output_of=np.tile(np.arange(estimator.n_trees_per_iteration_, dtype=np.int32), len(estimator._predictors)),
        total=_total(estimator),
    )


def _total(estimator: Any) -> Total:
    if not hasattr(estimator, "classes_"):
        has_logarithm = estimator.loss in ("poisson", "gamma")
        return Total(single_values=False, link="exp" if has_logarithm else "identity")
    if estimator.n_trees_per_iteration_ == 1:
        return Total(single_values=False, link="expit", label_by="positive")
    return Total(single_values=False, link="softmax", label_by="sums")


def _columns(estimator: Any) -> tuple[NDArray[np.intp], _Cells]:
    """Return the feature of each column that the trees see, and the cells of those that are categories."""
    is_category = getattr(estimator, "is_categorical_", None)
    if is_category is None:
        return np.arange(estimator.n_features_in_), {}
    if getattr(estimator, "_preprocessor", None) is None:
        # Its columns are encoded already, see ml/estimators/steps.py.
        cells = np.arange(FIRST_CHOICE_CELL, MAX_CELLS)
        return np.arange(estimator.n_features_in_), {int(place): cells for place in np.flatnonzero(is_category)}
    # Categories come first there, encoded by the order of their values in training.
    order = np.concatenate([np.flatnonzero(is_category), np.flatnonzero(~is_category)])
    known = estimator._preprocessor.named_transformers_["encoder"].categories_
    return order, {int(place): _cells_of(values) for place, values in zip(order, known, strict=False)}


def _cells_of(values: NDArray[Any]) -> NDArray[np.intp]:
    try:
        positions = values.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ForestError(f"a category has words as values, not the positions of its choices: {error}") from error
    positions = positions[~np.isnan(positions)]
    cells = positions.astype(np.intp) + FIRST_CHOICE_CELL
    if np.any(cells != positions + FIRST_CHOICE_CELL) or not np.all((cells >= FIRST_CHOICE_CELL) & (cells < MAX_CELLS)):
        raise ForestError("a category has values that are not the positions of at most 254 choices")
    return cells


def _sets(
    predictors: list[Any], nodes: NDArray[np.void], feature: NDArray[np.integer], cells: _Cells
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return the sets of cells that go left, and the set of each node."""
    has_set = np.flatnonzero(nodes["is_categorical"].astype(bool) & ~nodes["is_leaf"].astype(bool))
    bits = np.concatenate([tree.raw_left_cat_bitsets for tree in predictors]).astype("<u4")
    counts = [len(tree.raw_left_cat_bitsets) for tree in predictors]
    first = np.repeat(np.cumsum([0, *counts[:-1]]), [len(tree.nodes) for tree in predictors])
    # What is in no training row, unknown words and no value among it, goes where no value goes.
    is_left = np.repeat(nodes["missing_go_to_left"].astype(bool)[has_set, None], MAX_CELLS, axis=1)
    for row, node in enumerate(has_set):
        own = bits[first[node] + nodes["bitset_idx"][node]]
        known = cells[int(feature[node])]
        is_left[row, known] = np.unpackbits(own.view(np.uint8), bitorder="little")[: len(known)]
    sets, number = np.unique(packed(is_left), axis=0, return_inverse=True)
    set_of = np.full(len(nodes), -1, dtype=np.int32)
    set_of[has_set] = number.ravel()
    return sets, set_of
