"""The compiled forest against scikit-learn's own, `==` on every float64, never nearly."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from ml.model.loaded import LoadedModel
from ml.tables.numbers import LARGEST
from ml.training import iris, writing
from ml.training.fitting import Trained
from tests.conftest import EVALUATORS

Rows = NDArray[np.float64]

N_FEATURES = 4
N_THRESHOLDS = (25, 25, 29, 20)
N_CELLS = 425_880
# Some thresholds have no float32 between them, so no row that scikit-learn sees lies between them either.
N_REACHABLE_CELLS = 346_788
N_GRID = 2_727_318
CHUNK_ROWS = 65_536


@pytest.fixture(scope="module")
def trained(built_in: Trained) -> Trained:
    return built_in


@pytest.fixture(scope="module")
def model_path(built_in_path: Path) -> Path:
    return built_in_path


@pytest.fixture(scope="module")
def model(built_in_model: LoadedModel) -> LoadedModel:
    return built_in_model


@pytest.fixture(scope="module")
def thresholds(trained: Trained) -> list[Rows]:
    """The distinct float64 thresholds of each feature, straight out of scikit-learn's trees."""
    trees = [tree.tree_ for tree in trained.estimator.estimators_]
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    return [np.unique(threshold[feature == column]) for column in range(N_FEATURES)]


def oracle(trained: Trained, rows: NDArray[Any]) -> Rows:
    """Return scikit-learn's probabilities; chunks share the cores, as it releases the interpreter's lock."""
    assert getattr(trained.estimator, "n_jobs", None) in (None, 1), (
        "with more jobs scikit-learn adds the trees in any order"
    )
    chunks = [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]

    def probabilities(chunk: NDArray[Any]) -> Rows:
        # scikit-learn sums all numbers to see whether one is infinite: the largest ones cancel to NaN on the way.
        with np.errstate(invalid="ignore"):
            return np.asarray(trained.estimator.predict_proba(chunk))

    with ThreadPoolExecutor(2) as pool:
        return np.concatenate(list(pool.map(probabilities, chunks)))


def bits(probabilities: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the bits of float64 numbers: -0.0 is not 0.0 here."""
    return np.ascontiguousarray(probabilities).view(np.uint64)


def assert_same_in_batches(model: LoadedModel, rows: NDArray[Any], expected: Rows) -> None:
    answers = model.predict_batch(rows)
    assert answers.outputs.dtype == np.float64
    assert np.array_equal(bits(answers.outputs), bits(expected))
    assert np.array_equal(answers.indices, expected.argmax(axis=1))


def assert_same_one_by_one(model: LoadedModel, rows: Rows, expected: Rows) -> None:
    for row, probabilities in zip(rows.tolist(), expected.tolist(), strict=True):
        prediction = model.predict(row)
        assert prediction.probabilities == tuple(probabilities), row
        assert prediction.index == probabilities.index(max(probabilities)), row
        assert prediction.label == model.labels[prediction.index]


def cells(thresholds: list[Rows], rng: np.random.Generator) -> Rows:
    """Return one random row inside each cell between the thresholds: shape (n_cells, n_features)."""
    places = np.indices([len(values) + 1 for values in thresholds]).reshape(N_FEATURES, -1)
    columns = []
    for values, place in zip(thresholds, places, strict=True):
        edges = np.concatenate([[values[0] - 1], values, [values[-1] + 1]])
        low, high = edges[place], edges[place + 1]
        column = low + rng.uniform(0.001, 0.999, len(place)) * (high - low)
        # scikit-learn sees the float32 of a value: it too should lie inside the cell. Where two thresholds are as near
        # to each other as float32 can tell, the upper one is the only value that may.
        seen = column.astype(np.float32)
        column = np.where((low < seen) & (seen <= high), column, high)
        assert np.all((low < column) & (column <= high))
        columns.append(column)
    return np.column_stack(columns)


def reached(rows: Rows, thresholds: list[Rows]) -> NDArray[np.intp]:
    """Return the distinct cells, by number, in which scikit-learn sees the rows."""
    places = [
        np.searchsorted(values, column.astype(np.float32)) for values, column in zip(thresholds, rows.T, strict=True)
    ]
    return np.unique(np.ravel_multi_index(places, [len(values) + 1 for values in thresholds]))


def neighbours(values: Rows) -> Rows:
    """Return values with their float64 and float32 neighbours, and those of the middles where the cast turns."""
    nearest = values.astype(np.float32)
    singles = [nearest]
    for direction in (np.float32(-np.inf), np.float32(np.inf)):
        one = np.nextafter(nearest, direction)
        singles += [one, np.nextafter(one, direction)]
    exact = np.sort(np.concatenate(singles).astype(np.float64))
    middles = (exact[1:] + exact[:-1]) / 2
    points = np.concatenate([values, exact, middles])
    return np.unique(np.concatenate([points, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)]))


def test_the_forest_has_the_thresholds_and_cells_that_are_claimed(thresholds: list[Rows]) -> None:
    counts = tuple(len(values) for values in thresholds)

    assert counts == N_THRESHOLDS
    assert np.prod([count + 1 for count in counts]) == 26 * 26 * 30 * 21 == N_CELLS


@pytest.mark.slow
def test_every_cell_between_the_thresholds_has_scikit_learns_probabilities(
    trained: Trained, model: LoadedModel, thresholds: list[Rows]
) -> None:
    rows = cells(thresholds, np.random.default_rng(1))
    expected = oracle(trained, rows)

    assert rows.shape == (N_CELLS, N_FEATURES)
    assert len(reached(rows, thresholds)) == N_REACHABLE_CELLS == 26 * 26 * 27 * 19
    assert_same_in_batches(model, rows, expected)
    assert_same_in_batches(model, rows.astype(np.float32), expected)
    assert_same_one_by_one(model, rows, expected)


def test_every_evaluator_has_scikit_learns_probabilities_in_a_sample_of_the_cells(
    trained: Trained, evaluator: LoadedModel, thresholds: list[Rows]
) -> None:
    rng = np.random.default_rng(2)
    rows = rng.permutation(cells(thresholds, rng))[:20_000]
    expected = oracle(trained, rows)

    assert_same_in_batches(evaluator, rows, expected)
    assert_same_one_by_one(evaluator, rows[:1_000], expected[:1_000])


@pytest.mark.slow
@pytest.mark.parametrize("feature", range(N_FEATURES))
def test_every_threshold_and_its_neighbours_have_scikit_learns_probabilities(
    trained: Trained, evaluator: LoadedModel, thresholds: list[Rows], feature: int
) -> None:
    rng = np.random.default_rng(3)
    points = neighbours(thresholds[feature])
    assert set(thresholds[feature]) <= set(points)
    others = [np.concatenate([neighbours(values), rng.uniform(0, 8, 1_000)]) for values in thresholds]
    rows = np.column_stack([rng.choice(column, 16 * len(points)) for column in others])
    rows[:, feature] = np.tile(points, 16)
    expected = oracle(trained, rows)

    assert_same_in_batches(evaluator, rows, expected)
    assert_same_one_by_one(evaluator, rows[: 2 * len(points)], expected[: 2 * len(points)])


def test_thresholds_met_in_all_features_at_once_have_scikit_learns_probabilities(
    trained: Trained, model: LoadedModel, thresholds: list[Rows]
) -> None:
    rng = np.random.default_rng(4)
    rows = np.column_stack([rng.choice(neighbours(values), 100_000) for values in thresholds])
    expected = oracle(trained, rows)

    assert_same_in_batches(model, rows, expected)
    assert_same_one_by_one(model, rows[:20_000], expected[:20_000])


@pytest.mark.slow
@pytest.mark.parametrize("limits", EVALUATORS.values(), ids=EVALUATORS)
@pytest.mark.parametrize(
    "kind",
    [
        RandomForestClassifier(100, max_depth=2, random_state=0),
        RandomForestClassifier(100, min_samples_leaf=7, class_weight="balanced_subsample", random_state=1),
        ExtraTreesClassifier(70, max_depth=4, random_state=2),
        DecisionTreeClassifier(min_samples_leaf=10, random_state=3),
    ],
    ids=str,
)
def test_leaves_that_are_no_whole_numbers_are_added_to_the_same_last_bit(
    trained: Trained, kind: Any, limits: dict[str, Any]
) -> None:
    # The leaves of the built-in forest are pure, and sums of ones are exact in any order. These are rounded.
    estimator = clone(kind).fit(trained.split.train_rows, trained.split.train_classes)
    model = LoadedModel(writing.model_of(replace(trained, estimator=estimator)), "x", **limits)
    rng = np.random.default_rng(8)
    columns = [
        np.concatenate([neighbours(cuts.astype(np.float64)), rng.uniform(0, 8, 500)]) for cuts in model.cuts.values
    ]
    rows = np.column_stack([rng.choice(column, 20_000) for column in columns])
    expected = oracle(replace(trained, estimator=estimator), rows)

    assert_same_in_batches(model, rows, expected)
    assert_same_one_by_one(model, rows[:1_000], expected[:1_000])


def grid() -> Iterator[Rows]:
    """Yield all samples on the 0.1 cm grid, from 0.3 cm below the data to 0.3 above; k/10 is the float of its text."""
    tenths = np.rint(iris.load_dataset().rows * 10).astype(int)
    low, high = tenths.min(axis=0) - 3, tenths.max(axis=0) + 3
    axes = [np.arange(a, b + 1) / 10 for a, b in zip(low, high, strict=True)]
    for first in axes[0]:
        yield np.array(list(product([first], *axes[1:])))


@pytest.mark.slow
def test_the_whole_tenth_of_a_centimetre_grid_has_scikit_learns_probabilities(
    trained: Trained, model: LoadedModel
) -> None:
    count = 0
    for rows in grid():
        expected = oracle(trained, rows)
        assert_same_in_batches(model, rows, expected)
        count += len(rows)

    assert count == N_GRID


def test_a_grid_value_is_the_float_that_its_text_is_read_as(model: LoadedModel) -> None:
    rows = next(grid())
    rows = rows[(rows >= 0).all(axis=1)][-5_000:]

    for row in rows.tolist():
        assert model.validator.row([f"{value:.1f}" for value in row]) == row


SPECIAL = (
    0.0, -0.0, 5e-324, -5e-324, 1e-310, 2.0**-150, 2.0**-149, 2.0**-126, 1e-45, 1e30, -1e30, 3.4028234663852886e38,
    LARGEST, -LARGEST, 2.449999988079071, np.nextafter(LARGEST, 0.0), 1e300 * 1e-262,
)  # fmt: skip


def wild_rows(rng: np.random.Generator, n: int) -> Rows:
    """Return rows of any magnitude: random bit patterns, random exponents, values at the ends of the formats."""
    patterns = rng.integers(0, 2**64, 8 * n * N_FEATURES, dtype=np.uint64, endpoint=False).view(np.float64)
    patterns = patterns[np.abs(patterns) <= LARGEST]  # NaN is not
    powers = rng.choice([-1.0, 1.0], n * N_FEATURES) * 10 ** rng.uniform(-45, 38, n * N_FEATURES)
    usual = rng.uniform(0, 8, n * N_FEATURES)
    values = np.concatenate([patterns[: n * N_FEATURES], powers, usual, np.resize(SPECIAL, n)])
    return rng.choice(values, (n, N_FEATURES))


@pytest.mark.slow
def test_rows_of_wild_magnitude_have_scikit_learns_probabilities(trained: Trained, evaluator: LoadedModel) -> None:
    rows = wild_rows(np.random.default_rng(5), 50_000)
    expected = oracle(trained, rows)

    assert_same_in_batches(evaluator, rows, expected)
    assert_same_one_by_one(evaluator, rows[:2_000], expected[:2_000])


def test_special_values_in_every_place_have_scikit_learns_probabilities(trained: Trained, model: LoadedModel) -> None:
    rows = np.array(list(product(SPECIAL, repeat=N_FEATURES)))
    expected = oracle(trained, rows)

    assert_same_in_batches(model, rows, expected)
    assert_same_one_by_one(model, rows, expected)


@given(row=st.lists(st.floats(-LARGEST, LARGEST), min_size=N_FEATURES, max_size=N_FEATURES))
def test_any_row_has_scikit_learns_probabilities(trained: Trained, model: LoadedModel, row: list[float]) -> None:
    expected = trained.estimator.predict_proba([row])

    assert model.predict(row).probabilities == tuple(expected[0].tolist())
    assert_same_in_batches(model, np.array([row]), expected)


def test_the_largest_number_is_the_last_that_scikit_learn_takes(trained: Trained, model: LoadedModel) -> None:
    beyond = float(np.nextafter(LARGEST, np.inf))

    assert model.predict([LARGEST] * N_FEATURES).probabilities == tuple(oracle(trained, np.full((1, 4), LARGEST))[0])
    with pytest.raises(ValueError, match="infinity"), np.errstate(over="ignore"):
        trained.estimator.predict_proba(np.full((1, N_FEATURES), beyond))


def test_labels_agree_with_scikit_learns_predict(trained: Trained, model: LoadedModel) -> None:
    rows = np.random.default_rng(6).uniform(0, 8, (20_000, N_FEATURES))

    assert np.array_equal(model.predict_batch(rows).indices, trained.estimator.predict(rows))


def test_a_tie_goes_to_the_first_label_as_in_scikit_learn(
    trained: Trained, model: LoadedModel, thresholds: list[Rows]
) -> None:
    rows = cells(thresholds, np.random.default_rng(7))
    probabilities = model.predict_batch(rows).outputs
    best = probabilities.max(axis=1, keepdims=True)
    tied = rows[(probabilities == best).sum(axis=1) > 1][:5_000]
    assert len(tied), "no cell has a tie, so this shows nothing"

    answers = trained.estimator.predict(tied)

    assert np.array_equal(model.predict_batch(tied).indices, answers)
    assert [model.predict(row).index for row in tied.tolist()] == answers.tolist()
