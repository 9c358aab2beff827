"""The decision table against scikit-learn, on forests of every small shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from ml.estimators.trees import forest_from
from ml.model import decision_table
from ml.model.cuts import Cuts
from ml.model.decision_table import DecisionTable
from ml.model.forest import LEAF, Forest
from tests.builders import forest_of


@st.composite
def estimators(draw: st.DrawFn) -> Any:
    """Draw a fitted classifier made of trees; rows, labels and parameters at random."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_features, n_labels, n_rows = draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(8, 60))
    spread = draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]))
    rows = rng.normal(0, 1, (n_rows, n_features)) * spread
    if draw(st.booleans()):  # values that repeat, so that thresholds do
        rows = np.rint(rows / spread * 10) / 10 * spread
    classes = np.concatenate([np.arange(n_labels), rng.integers(0, n_labels, n_rows - n_labels)])
    common = {
        "max_depth": draw(st.sampled_from([None, 1, 2, 5])),
        "max_features": draw(st.sampled_from([None, "sqrt", 1])),
        "min_samples_leaf": draw(st.sampled_from([1, 1, 3])),
        "class_weight": draw(st.sampled_from([None, "balanced"])),
        "random_state": draw(st.integers(0, 100)),
    }
    kind = draw(st.sampled_from([RandomForestClassifier, RandomForestClassifier, ExtraTreesClassifier, None]))
    if kind is None:
        return DecisionTreeClassifier(**common).fit(rows, classes)
    common |= {"n_estimators": draw(st.integers(1, 20)), "bootstrap": draw(st.booleans())}
    return kind(**common).fit(rows, classes)


def rows_around(forest: Forest, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return rows at, beside and between the thresholds of a forest."""
    columns = []
    for feature in range(forest.n_features):
        cuts = np.unique(forest.threshold[forest.feature == feature])
        if not len(cuts):
            cuts = np.zeros(1)
        singles = cuts.astype(np.float32)
        near = [singles, *(np.nextafter(singles, np.float32(end)) for end in (-np.inf, np.inf))]
        spread = float(np.abs(cuts).max()) or 1.0
        points = [cuts, np.nextafter(cuts, -np.inf), np.nextafter(cuts, np.inf), rng.uniform(-2, 2, 50) * spread, *near]
        columns.append(rng.choice(np.concatenate(points).astype(np.float64), 500))
    return np.column_stack(columns)


@given(estimator=estimators(), seed=st.integers(0, 100))
def test_the_table_of_any_small_forest_has_scikit_learns_probabilities(estimator: Any, seed: int) -> None:
    forest = forest_from(estimator)
    compiled = DecisionTable(forest, Cuts(forest))
    rows = rows_around(forest, np.random.default_rng(seed))
    expected = estimator.predict_proba(rows)

    outcomes = compiled.outcomes(rows.astype(np.float32))

    assert np.array_equal(compiled.sums[outcomes] / forest.n_trees, expected)
    assert [compiled.outcome(row) for row in rows.tolist()] == outcomes.tolist()


@given(estimator=estimators())
def test_every_outcome_of_a_table_is_the_answer_of_some_cell(estimator: Any) -> None:
    forest = forest_from(estimator)
    cuts = Cuts(forest)
    compiled = DecisionTable(forest, cuts)
    corners = [np.append(values, np.float32(3e38)) for values in cuts.values]
    cells = np.stack(np.meshgrid(*corners, indexing="ij"), axis=-1).reshape(-1, forest.n_features)

    outcomes = compiled.outcomes(cells)

    assert np.array_equal(np.unique(outcomes), np.arange(len(compiled.sums)))


def test_no_rows_have_no_outcomes() -> None:
    forest = grid_forest(3, n_trees=2)

    assert DecisionTable(forest, Cuts(forest)).outcomes(np.empty((0, 1), dtype=np.float32)).shape == (0,)


def grid_forest(*sizes: int, n_trees: int, n_labels: int = 2) -> Forest:
    """Return trees of one comparison each that cut feature j in `sizes[j]` places, filled up to `n_trees`."""
    pairs = [(feature, place) for feature, size in enumerate(sizes) for place in range(size)]
    pairs += [pairs[-1]] * (n_trees - len(pairs))
    n = len(pairs)
    feature, left, right = (np.full(3 * n, LEAF, dtype=np.int32) for _ in range(3))
    threshold, roots = np.zeros(3 * n), np.arange(0, 3 * n, 3, dtype=np.int32)
    feature[roots], threshold[roots] = [f for f, _ in pairs], [t for _, t in pairs]
    left[roots], right[roots] = roots + 1, roots + 2
    forest = forest_of(
        len(sizes), roots=roots, feature=feature, threshold=threshold, left=left, right=right,
        values=np.tile(np.eye(n_labels)[:2], (n, 1)),
    )  # fmt: skip
    forest.check()
    return forest


def test_a_table_fits_just_when_its_cells_are_allowed() -> None:
    forest = grid_forest(3, 4, 5, n_trees=12)
    cuts = Cuts(forest)

    assert DecisionTable.fits(forest, cuts, 4 * 5 * 6)
    assert not DecisionTable.fits(forest, cuts, 4 * 5 * 6 - 1)


def test_a_table_does_not_fit_when_painting_it_takes_long() -> None:
    allowed = decision_table.MAX_PAINTINGS // (100 * 100)
    within, beyond = grid_forest(99, 99, n_trees=allowed), grid_forest(99, 99, n_trees=allowed + 1)

    assert DecisionTable.fits(within, Cuts(within))
    assert not DecisionTable.fits(beyond, Cuts(beyond))


def test_many_features_never_overflow_the_number_of_cells() -> None:
    forest = grid_forest(*[3] * 64, n_trees=192)

    assert not DecisionTable.fits(forest, Cuts(forest)), "4**64 cells are 0 in 64 bits"


def chains(*sizes: int, n_labels: int) -> Forest:
    """Return one tree a feature, which cuts it in `sizes[j]` places, one below the other."""
    n_nodes = [2 * size + 1 for size in sizes]
    roots = np.cumsum([0, *n_nodes[:-1]]).astype(np.int32)
    feature, left, right = (np.full(sum(n_nodes), LEAF, dtype=np.int32) for _ in range(3))
    threshold = np.zeros(sum(n_nodes))
    for column, (root, size) in enumerate(zip(roots, sizes, strict=True)):
        inner = root + np.arange(0, 2 * size, 2)
        feature[inner], threshold[inner], left[inner], right[inner] = column, np.arange(size), inner + 1, inner + 2
    n_leaves = int((feature == LEAF).sum())
    forest = forest_of(
        len(sizes), roots=roots, feature=feature, threshold=threshold, left=left, right=right,
        values=np.eye(n_labels)[np.arange(n_leaves) % n_labels],
    )  # fmt: skip
    forest.check()
    return forest


def test_a_table_does_not_fit_when_its_labels_make_it_too_large_for_memory() -> None:
    two, thousand = chains(999, 999, n_labels=2), chains(999, 999, n_labels=1_000)

    assert DecisionTable.fits(two, Cuts(two))
    assert not DecisionTable.fits(thousand, Cuts(thousand)), "a million cells of 1,000 float64 are 8 GB"


def collision(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return two different columns of two float64 numbers that share the hash of the table's cells.

    A step of the hash is a bijection, so the second number of the second column can be chosen to undo the difference.
    """

    def step(state: np.uint64, bits: np.uint64) -> np.uint64:
        with np.errstate(over="ignore"):
            state = (state ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        return state ^ (state >> np.uint64(32))

    while True:
        first, second, below = rng.uniform(0, 100, 3)
        a, b = step(np.uint64(0), first.view(np.uint64)), step(np.uint64(0), second.view(np.uint64))
        other = (a ^ b ^ below.view(np.uint64)).view(np.float64)
        if np.isfinite(other):
            assert step(a, below.view(np.uint64)) == step(b, other.view(np.uint64))
            return np.array([[first, second], [below, other]])


@pytest.mark.parametrize("seed", range(5))
def test_columns_that_share_a_hash_stay_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = np.column_stack([collision(rng), rng.uniform(0, 100, (2, 3))])
    sums = columns[:, rng.permutation(np.repeat(np.arange(5), 4))]

    distinct, index = decision_table._distinct_columns(sums)

    assert distinct.shape == (2, 5)
    assert np.array_equal(distinct[:, index], sums)


def test_distinct_columns_put_back_together_are_the_columns() -> None:
    sums = np.random.default_rng(0).integers(0, 3, (3, 1_000)).astype(np.float64)

    distinct, index = decision_table._distinct_columns(sums)

    assert distinct.shape == (3, 27)
    assert np.array_equal(distinct[:, index], sums)
