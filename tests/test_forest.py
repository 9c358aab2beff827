"""A forest as flat arrays: what is taken from scikit-learn, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from ml.errors import ForestError
from ml.estimators.trees import forest_from
from ml.model.cuts import Cuts
from ml.model.decision_table import DecisionTable
from ml.model.forest import LEAF, MAX_DEPTH, Forest
from ml.training import iris
from tests.builders import forest_of
from tests.conftest import for_each

ROWS, CLASSES = iris.load_dataset().rows, iris.load_dataset().outcomes.astype(np.intp)


def small() -> Forest:
    """Return two trees. The first asks feature 0, then feature 1 on the right; the second asks feature 1.

    0: x0 <= 0.5         5: x1 <= -2
    ├── 1                ├── 6
    └── 2: x1 <= 1.5     └── 7
        ├── 3
        └── 4
    """
    return forest_of(
        2,
        roots=[0, 5],
        feature=[0, LEAF, 1, LEAF, LEAF, 1, LEAF, LEAF],
        threshold=[0.5, 0, 1.5, 0, 0, -2, 0, 0],
        left=[1, LEAF, 3, LEAF, LEAF, 6, LEAF, LEAF],
        right=[2, LEAF, 4, LEAF, LEAF, 7, LEAF, LEAF],
        values=[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.25, 0.75], [0.75, 0.25]],
        covers=np.array([9.0, 4, 5, 2, 3, 9, 4, 5]),
    )


def changed(name: str, index: Any, value: float | list[float]) -> Forest:
    """Return the small forest with one element changed."""
    forest = small()
    array = getattr(forest, name).copy()
    array[index] = value
    return replace(forest, **{name: array})


def chain(depth: int) -> Forest:
    """Return one tree whose right branch goes on for `depth` levels below the root."""
    n = 2 * depth + 1
    inner = np.arange(0, n - 1, 2)
    feature, left, right = (np.full(n, LEAF, dtype=np.int32) for _ in range(3))
    threshold = np.zeros(n)
    feature[inner], threshold[inner] = 0, np.arange(depth)
    left[inner], right[inner] = inner + 1, inner + 2
    leaves = np.linspace(0, 1, depth + 1)
    return forest_of(
        1, roots=[0], feature=feature, threshold=threshold, left=left, right=right,
        values=np.column_stack([leaves, 1 - leaves]),
    )  # fmt: skip


def table_of(forest: Forest) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    table = DecisionTable(forest, Cuts(forest))
    return lambda rows: table.sums[table.outcomes(rows.astype(np.float32))] / forest.n_trees


def test_the_small_forest_is_one() -> None:
    forest = small()

    forest.check()

    assert (forest.n_trees, forest.n_outputs) == (2, 2)


def refused(forest: Forest) -> str:
    with pytest.raises(ForestError) as caught:
        forest.check()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def empty() -> Forest:
    return forest_of(1, roots=[0], feature=[], threshold=[], left=[], right=[], values=np.ones((0, 2)))


BROKEN: dict[str, tuple[Callable[[], Forest], str]] = {
    "a threshold too few": (lambda: replace(small(), threshold=np.zeros(7)), "threshold has shape"),
    "a left child too many": (lambda: replace(small(), left=np.full(9, LEAF, np.int32)), "left has shape"),
    "a right child too few": (lambda: replace(small(), right=np.full(7, LEAF, np.int32)), "right has shape"),
    "flat values": (lambda: replace(small(), values=np.ones(5)), "dimensions"),
    "no values": (lambda: replace(small(), values=np.ones((5, 0))), "dimensions"),
    "square roots": (lambda: replace(small(), roots=np.array([[0, 5]], np.int32)), "dimensions"),
    "square nodes": (lambda: replace(small(), feature=small().feature[:, None]), "dimensions"),
    "no tree": (lambda: replace(small(), roots=np.array([], np.int32)), "roots"),
    "no node": (empty, "roots"),
    "a first root that is not node 0": (lambda: replace(small(), roots=np.array([1, 5], np.int32)), "roots"),
    "roots in descending order": (lambda: replace(small(), roots=np.array([0, 5, 3], np.int32)), "roots"),
    "the same root twice": (lambda: replace(small(), roots=np.array([0, 5, 5], np.int32)), "roots"),
    "a root beyond the nodes": (lambda: replace(small(), roots=np.array([0, 8], np.int32)), "roots"),
    "a feature beyond the last": (lambda: changed("feature", 2, 2), "feature outside 0 to 1"),
    "a negative feature": (lambda: changed("feature", 0, -2), "feature outside 0 to 1"),
    "a threshold that is NaN": (lambda: changed("threshold", 2, np.nan), "threshold is no number"),
    "a threshold below all numbers": (lambda: changed("threshold", 0, -np.inf), "below all numbers"),
    "a leaf's threshold that is NaN": (lambda: changed("threshold", 1, np.nan), "threshold is no number"),
    "a side too few": (lambda: replace(small(), missing_left=np.zeros(7, np.bool_)), "missing_left has shape"),
    "a cover too many": (lambda: replace(small(), covers=np.ones(9)), "covers has shape"),
    "a cover of nothing": (lambda: changed("covers", 3, 0.0), "no training row"),
    "a negative cover": (lambda: changed("covers", 0, -1.0), "no training row"),
    "a cover that is NaN": (lambda: changed("covers", 7, np.nan), "no training row"),
    "an infinite cover": (lambda: changed("covers", 1, np.inf), "no training row"),
    "a leaf with a left child": (lambda: changed("left", 1, 3), "a leaf has children"),
    "a leaf with a right child": (lambda: changed("right", 4, 0), "a leaf has children"),
    "a leaf with a child that is -2": (lambda: changed("right", 4, -2), "a leaf has children"),
    "a node that is its own child": (lambda: changed("left", 2, 2), "cycle"),
    "a child that is the root": (lambda: changed("right", 2, 0), "cycle"),
    "an inner node without a left child": (lambda: changed("left", 2, LEAF), "cycle"),
    "an inner node with a negative right child": (lambda: changed("right", 2, -100), "cycle"),
    "a child in the next tree": (lambda: changed("right", 2, 6), "outside its tree"),
    "a child that is the next root": (lambda: changed("right", 2, 5), "outside its tree"),
    "a child beyond the nodes": (lambda: changed("right", 5, 8), "outside its tree"),
    "a child far beyond the nodes": (lambda: changed("right", 5, 2**31 - 1), "outside its tree"),
    "a node with two parents": (lambda: changed("right", 2, 3), "exactly one parent"),
    "a node with no parent": (lambda: changed("right", 0, 4), "exactly one parent"),
    "a leaf without probabilities": (
        lambda: replace(small(), values=small().values[:-1]),
        "one row of values for each leaf",
    ),
    "probabilities without a leaf": (
        lambda: replace(small(), values=np.vstack([small().values, [[1.0, 0.0]]])),
        "one row of values for each leaf",
    ),
    "a probability that is NaN": (lambda: changed("values", (1, 0), np.nan), "outside 0 to 1"),
    "an infinite probability": (lambda: changed("values", (1, 0), np.inf), "outside 0 to 1"),
    "a negative probability": (lambda: changed("values", 1, [-0.5, 1.5]), "outside 0 to 1"),
    "a probability above 1": (lambda: changed("values", 1, [1.0 + 1e-6, 0.0]), "outside 0 to 1"),
    "a sum below 1": (lambda: changed("values", (1, 0), 0.5 - 1e-6), "do not sum to 1"),
    "a sum above 1": (lambda: changed("values", (1, 0), 0.5 + 1e-6), "do not sum to 1"),
    "too many levels": (lambda: chain(MAX_DEPTH + 1), f"deeper than {MAX_DEPTH} levels"),
}  # fmt: skip


@for_each("broken", BROKEN)
def test_a_broken_forest_is_refused_with_what_is_wrong(broken: str) -> None:
    make, sentence = BROKEN[broken]

    assert sentence in refused(make())


def test_roots_whose_differences_overflow_are_refused() -> None:
    roots = np.array([0, 2**31 - 1, -(2**31), -1, 5], dtype=np.int32)  # each less the one before is 1 or more, in int32

    assert "roots" in refused(replace(small(), roots=roots))


def test_the_deepest_tree_that_is_allowed_answers() -> None:
    forest = chain(MAX_DEPTH)

    forest.check()

    answers = table_of(forest)(np.array([[-1.0], [0.5], [MAX_DEPTH + 1.0]]))
    assert answers.tolist() == forest.values[[0, 1, MAX_DEPTH]].tolist()


def test_the_rounding_of_leaf_probabilities_is_no_error() -> None:
    third = 1 / 3
    forest = replace(small(), values=np.tile([third, third, np.nextafter(third, 1)], (5, 1)))

    forest.check()


def test_a_tree_that_is_one_leaf_answers_the_same_to_all() -> None:
    leaf = [LEAF]
    forest = forest_of(2, roots=[0], feature=leaf, threshold=[0.0], left=leaf, right=leaf, values=[[0.25, 0.75]])

    forest.check()

    assert table_of(forest)(np.array([[0.0, 1.0], [1e30, -1e30]])).tolist() == [[0.25, 0.75]] * 2


INTERESTING = st.sampled_from([0, 1, 2, -1, -2, 3, 4, 5, 6, 7, 8, 2**31 - 1, -(2**31)])


@given(edits=st.lists(
    st.tuples(st.sampled_from(["roots", "feature", "left", "right"]), st.integers(0, 7), INTERESTING),
    min_size=1, max_size=4,
))  # fmt: skip
def test_any_indices_are_refused_or_can_be_evaluated(edits: list[tuple[str, int, int]]) -> None:
    arrays = {name: getattr(small(), name).copy() for name in ("roots", "feature", "left", "right")}
    for name, index, value in edits:
        arrays[name][index % len(arrays[name])] = value
    forest = replace(small(), **arrays)

    try:
        forest.check()
    except ForestError:
        return
    answers = table_of(forest)(np.random.default_rng(0).normal(0, 3, (20, 2)))
    assert np.allclose(answers.sum(axis=1), 1), "each tree gives exactly one leaf to a row"


ACCEPTED = {
    "a random forest": RandomForestClassifier(5, random_state=0),
    "a forest of stumps": RandomForestClassifier(5, max_depth=1, random_state=0),
    "a forest of single leaves": RandomForestClassifier(3, min_samples_leaf=200, random_state=0),
    "a forest with weights": RandomForestClassifier(5, class_weight="balanced_subsample", random_state=0),
    "extra trees": ExtraTreesClassifier(5, random_state=0),
    "a decision tree": DecisionTreeClassifier(random_state=0),
    "an extra tree": ExtraTreeClassifier(random_state=0),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_a_classifier_of_trees_is_taken_over_with_its_probabilities(kind: str) -> None:
    estimator = clone(ACCEPTED[kind]).fit(ROWS, CLASSES)

    forest = forest_from(estimator)

    rows = np.concatenate([ROWS, np.random.default_rng(0).uniform(0, 8, (2_000, 4))])
    assert np.array_equal(table_of(forest)(rows), estimator.predict_proba(rows))
    assert forest.n_trees == len(getattr(estimator, "estimators_", [estimator]))
    assert forest.n_features == 4
    assert forest.n_outputs == 3
    for name, dtype in [("roots", "i4"), ("feature", "i4"), ("threshold", "f8"), ("left", "i4"), ("right", "i4")]:
        assert getattr(forest, name).dtype == np.dtype(dtype), name


def test_labels_that_are_text_give_the_same_forest_as_their_numbers() -> None:
    numbers = forest_from(RandomForestClassifier(3, random_state=0).fit(ROWS, CLASSES))
    texts = forest_from(RandomForestClassifier(3, random_state=0).fit(ROWS, np.array([*"abc"])[CLASSES]))

    assert np.array_equal(texts.threshold, numbers.threshold)
    assert np.array_equal(texts.values, numbers.values)


REFUSED = {
    "a linear model": LogisticRegression(max_iter=1_000),
    "a constant": DummyClassifier(),
    "a pipeline": make_pipeline(DecisionTreeClassifier()),
    "an isolation forest": IsolationForest(n_estimators=2),
}

# These hold trees or are made like ensembles of them, but their answers are no sums of leaves.
NOT_MEANS = {
    "boosted linear models": AdaBoostClassifier(LogisticRegression(), n_estimators=3),
    "bagged forests": BaggingClassifier(RandomForestClassifier(2), n_estimators=3),
    "boosted trees that start with another model": GradientBoostingClassifier(
        n_estimators=2, init=LogisticRegression(max_iter=1_000)
    ),
    "a vote by heads": VotingClassifier([("a", DecisionTreeClassifier(max_depth=1)), ("b", DecisionTreeClassifier())]),
    "a vote of other models": VotingClassifier(
        [("a", DecisionTreeClassifier()), ("b", LogisticRegression(max_iter=1_000))], voting="soft"
    ),
    "a vote of votes": VotingClassifier(
        [("a", VotingClassifier([("b", DecisionTreeClassifier())], voting="soft"))], voting="soft"
    ),
    "calibrated boosted stumps": CalibratedClassifierCV(AdaBoostClassifier(n_estimators=2), cv=2),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_estimator_is_refused_by_name(kind: str) -> None:
    estimator = clone(REFUSED[kind]).fit(ROWS, CLASSES)

    with pytest.raises(
        ForestError, match=f"{type(estimator).__name__} cannot be exported: these models would work: random forests"
    ):
        forest_from(estimator)


@pytest.mark.parametrize("kind", NOT_MEANS)
def test_an_ensemble_whose_answer_is_no_sum_of_leaves_is_refused_by_name(kind: str) -> None:
    estimator = clone(NOT_MEANS[kind]).fit(ROWS, CLASSES)

    with pytest.raises(ForestError, match=type(estimator).__name__):
        forest_from(estimator)


@pytest.mark.parametrize("estimator", [RandomForestClassifier(), DecisionTreeClassifier(), ExtraTreesClassifier()])
def test_a_classifier_that_is_not_fitted_is_refused(estimator: Any) -> None:
    with pytest.raises(ForestError, match=f"{type(estimator).__name__} is not a fitted"):
        forest_from(estimator)


@pytest.mark.parametrize("estimator", [RandomForestClassifier(2), DecisionTreeClassifier()])
def test_a_classifier_with_two_outputs_is_refused(estimator: Any) -> None:
    estimator.fit(ROWS, np.column_stack([CLASSES, CLASSES]))

    with pytest.raises(ForestError, match="more than one output"):
        forest_from(estimator)


@pytest.mark.parametrize("stranger", [None, 5, "forest", object()])
def test_something_else_is_refused(stranger: object) -> None:
    with pytest.raises(ForestError, match="cannot be exported: these models would work: random forests"):
        forest_from(stranger)
