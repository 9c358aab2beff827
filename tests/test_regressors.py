"""Quantities: trained, measured and exported as scikit-learn does, and the interval around an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score, train_test_split
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

import ml
from ml.errors import MLError, TableError
from ml.model import modelfile
from ml.model.card import QuantityReport, Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.model.nearest import explain
from ml.tables.dataset import Dataset, Feature, Target
from ml.training import fitting, writing
from ml.training.features import importance
from ml.training.fitting import Trained
from ml.training.measuring import COVERAGE, RESIDUALS, interval_of
from tests.conftest import EVALUATORS

Rows = NDArray[np.float64]
RECIPE = Recipe(n_estimators=15, min_samples_leaf=3)


def noisy(n_rows: int, *, seed: int = 0, gaps: float = 0.1) -> tuple[Rows, Rows]:
    """Return rows of three numbers, and a quantity of them with noise; the second number may lack its value."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, 3))
    values = rows @ [3.0, -2.0, 0.0] + rng.normal(size=n_rows)
    rows[rng.random(n_rows) < gaps, 1] = np.nan
    return rows, values


def dataset_of(rows: Rows, values: Rows, **more: Any) -> Dataset:
    features = tuple(
        Feature(key=f"f{number}", title=f"f {number}", has_gaps=bool(np.isnan(rows[:, number]).any()), **more)
        for number in range(rows.shape[1])
    )
    return Dataset("quantity", "made up", features, Target(title="mass", unit="kg"), rows, values)


def served(trained: Trained) -> LoadedModel:
    return LoadedModel(modelfile.parse(modelfile.dump(writing.model_of(trained))), "0" * 12)


def report_of(trained: Trained) -> QuantityReport:
    assert isinstance(trained.report, QuantityReport)
    return trained.report


# Training and measuring.


@pytest.mark.parametrize("estimator", ["random-forest", "extra-trees", "decision-tree"])
def test_the_report_is_scikit_learns(estimator: Any) -> None:
    trained = fitting.fit(dataset_of(*noisy(400)), Recipe(estimator=estimator, n_estimators=15, min_samples_leaf=3))
    parts, report = trained.split, report_of(trained)

    answers = trained.estimator.predict(parts.test_rows)

    true = parts.test_outcomes
    assert report.r2 == pytest.approx(r2_score(true, answers), abs=1e-12)
    assert report.mean_absolute_error == pytest.approx(mean_absolute_error(true, answers), rel=1e-12)
    assert report.root_mean_squared_error == pytest.approx(root_mean_squared_error(true, answers), rel=1e-12)
    median = DummyRegressor(strategy="median").fit(parts.train_rows, parts.train_outcomes).predict(parts.test_rows)
    assert report.baseline_error == pytest.approx(mean_absolute_error(true, median), rel=1e-12)
    assert (report.train_rows, report.test_rows) == (320, 80)
    assert report.residuals == tuple(zip(answers.tolist(), true.tolist(), strict=True))


def test_the_split_is_scikit_learns_without_classes() -> None:
    rows, values = noisy(101)

    parts = fitting.fit(dataset_of(rows, values), RECIPE).split

    expected = train_test_split(rows, values, test_size=0.2, random_state=0)
    for part, one in zip(
        (parts.train_rows, parts.test_rows, parts.train_outcomes, parts.test_outcomes), expected, strict=True
    ):
        assert np.array_equal(part, one, equal_nan=True)


def test_importance_and_cross_validation_are_scikit_learns() -> None:
    dataset = dataset_of(*noisy(300))
    trained = fitting.fit(dataset, RECIPE)
    parts = trained.split

    found, scores = importance(trained), fitting.cross_validate(dataset, RECIPE, folds=5)

    expected = permutation_importance(
        trained.estimator, parts.test_rows, parts.test_outcomes, n_repeats=5, random_state=0
    ).importances_mean
    assert found == pytest.approx(expected, abs=1e-12)
    folds = KFold(n_splits=5, shuffle=True, random_state=0)
    each = cross_val_score(trained.estimator, dataset.rows, dataset.outcomes, cv=folds)
    assert (scores.folds, scores.mean, scores.deviation) == (5, float(each.mean()), float(each.std()))


def test_only_some_residuals_are_kept() -> None:
    trained = fitting.fit(dataset_of(*noisy(2_000)), Recipe(n_estimators=2))

    assert len(report_of(trained).residuals) == RESIDUALS < report_of(trained).test_rows == 400


def test_the_card_has_the_span_of_the_training_rows_and_the_interval() -> None:
    trained = fitting.fit(dataset_of(*noisy(200)), RECIPE)

    quantity = served(trained).quantity

    values = trained.split.train_outcomes
    assert quantity is not None
    assert (quantity.low, quantity.high) == (values.min(), values.max())
    assert quantity.quantiles == tuple(np.quantile(values, np.linspace(0, 1, 11)).tolist())
    assert quantity.interval == trained.interval


# The interval.


def test_the_interval_is_made_of_errors_on_rows_that_a_fold_had_not_seen() -> None:
    trained = fitting.fit(dataset_of(*noisy(200)), RECIPE)
    parts = trained.split

    folds = KFold(n_splits=5, shuffle=True, random_state=0)
    answers = cross_val_predict(trained.estimator, parts.train_rows, parts.train_outcomes, cv=folds)

    assert trained.interval == interval_of(parts.train_outcomes - answers)
    assert trained.interval is not None
    assert (trained.interval.coverage, trained.interval.rows) == (COVERAGE, 160)


@pytest.mark.slow
def test_the_interval_holds_about_the_share_of_rows_that_it_says() -> None:
    shares = []
    for seed in range(8):
        trained = fitting.fit(dataset_of(*noisy(500, seed=seed)), RECIPE)
        assert trained.interval is not None
        answers = trained.estimator.predict(trained.split.test_rows)
        errors = trained.split.test_outcomes - answers
        inside = (-trained.interval.below <= errors) & (errors <= trained.interval.above)
        assert report_of(trained).covered == inside.mean()
        shares.append(report_of(trained).covered)

    assert abs(np.mean(shares) - COVERAGE) < 0.04, "800 rows: a standard error of 0.011, and folds know less"


@pytest.mark.parametrize(
    ("errors", "below", "above"),
    [
        ([0.0] * 5, 0, 0), ([3.0], 0, 3), ([-3.0], 3, 0), ([-1.0, 1.0], 1, 1), ([2.0, 3.0, 4.0], 0, 4),
        (list(range(-10, 11)), 9, 9), (list(range(-100, 101)), 90, 90), ([0.0] * 99 + [1e6], 0, 0),
        ([0.0] * 9 + [1e6], 0, 1e6),
    ],
)  # fmt: skip
def test_an_interval_is_that_of_the_middle_errors_and_never_leaves_out_the_answer(
    errors: list[float], below: float, above: float
) -> None:
    found = interval_of(np.array(errors, dtype=np.float64))

    assert (found.below, found.above, found.rows) == (below, above, len(errors))
    held = np.mean([-found.below <= error <= found.above for error in errors])
    assert held >= COVERAGE - 1e-12


def test_an_interval_is_mirrored_with_its_errors() -> None:
    errors = np.random.default_rng(0).normal(size=201)

    one, other = interval_of(errors), interval_of(-errors)

    assert (one.below, one.above) == (other.above, other.below)


# Few rows, and those that say little.


@pytest.mark.parametrize("n_rows", [10, 11, 13])
def test_a_table_of_few_rows_is_learned(n_rows: int) -> None:
    trained = fitting.fit(dataset_of(*noisy(n_rows, gaps=0)), Recipe(n_estimators=3))
    model = served(trained)

    fitting.cross_validate(dataset_of(*noisy(n_rows, gaps=0)), Recipe(n_estimators=3))

    expected = trained.estimator.predict(trained.split.test_rows)
    assert model.predict_batch(trained.split.test_rows).values.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("n_rows", "share", "said"),
    [
        (9, 0.2, "9 rows, at least 10 are needed"),
        (10, 0.9, "leave fewer than 2 to learn from"),
        (10, 0.95, "fewer than 2"),
    ],
)
def test_a_table_of_fewer_rows_is_refused(n_rows: int, share: float, said: str) -> None:
    with pytest.raises(TableError, match=said):
        fitting.fit(dataset_of(*noisy(n_rows)), Recipe(test_size=share))


def test_two_rows_to_learn_from_are_enough() -> None:
    trained = fitting.fit(dataset_of(*noisy(10, gaps=0)), Recipe(n_estimators=2, test_size=0.8))

    assert report_of(trained).train_rows == 2


def test_a_constant_quantity_is_always_answered() -> None:
    rows, _ = noisy(60)
    trained = fitting.fit(dataset_of(rows, np.full(60, 7.25)), RECIPE)
    model, report = served(trained), report_of(trained)

    assert (report.r2, report.mean_absolute_error, report.covered) == (1.0, 0.0, 1.0)
    assert trained.interval is not None
    assert (trained.interval.below, trained.interval.above) == (0.0, 0.0)
    assert model.predict([0.0, 0.0, 0.0]).value == 7.25
    assert explain(model, [0.0, 0.0, 0.0], goal=8.0).nearest is None


@pytest.mark.parametrize(
    "limits", [{}, {"minimum": 5.0}, {"maximum": -5.0}, {"minimum": -1.0, "maximum": 1.0}], ids=str
)
def test_a_column_without_a_value_in_the_training_part_is_learned(tmp_path: Path, limits: dict[str, float]) -> None:
    rows = np.full((60, 1), np.nan)
    parts = train_test_split(np.arange(60), test_size=0.2, random_state=0)
    rows[parts[1][0]] = limits.get("minimum", limits.get("maximum", 3.0))
    trained = fitting.fit(dataset_of(rows, np.arange(60.0), **limits), Recipe(n_estimators=3))

    model = writing.write(writing.model_of(trained), tmp_path / "model.npz", trained=trained)

    assert model.features[0].gap_share == 1.0
    assert model.predict([float("nan")]).value == trained.estimator.predict([[np.nan]])[0]
    model.validator.row([model.features[0].example])


# Fitted elsewhere.

NAMES = ["a", "b (cm)", "c"]
X, Y = noisy(200, gaps=0.2)
X_train, X_test, y_train, y_test = train_test_split(X, Y, random_state=0)
FULL = np.nan_to_num(X)


def export(estimator: Any, path: Path, rows: Rows = X_test, outcomes: Any = y_test, **more: Any) -> LoadedModel:
    return ml.export(estimator, rows, outcomes, feature_names=NAMES, path=path / "model.npz", **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        RandomForestRegressor(12, max_depth=5), RandomForestRegressor(12, min_samples_leaf=3, n_jobs=2),
        ExtraTreesRegressor(12, max_depth=5), DecisionTreeRegressor(max_depth=5), ExtraTreeRegressor(max_depth=5),
    ],
    ids=lambda kind: type(kind).__name__,
)  # fmt: skip
def test_every_regressor_made_of_trees_is_exported(tmp_path: Path, kind: Any) -> None:
    fitted = kind.set_params(random_state=0).fit(X_train, y_train)

    export(fitted, tmp_path)

    expected = fitted.set_params(**({"n_jobs": 1} if hasattr(fitted, "n_jobs") else {})).predict(X)
    for name, limits in EVALUATORS.items():
        model = load_model(tmp_path / "model.npz", **limits)
        assert np.array_equal(model.predict_batch(X).values, expected), name
        assert [model.predict(row).value for row in X.tolist()] == expected.tolist(), name
        assert (model.labels, model.card.estimator) == ((), type(kind).__name__)


@pytest.mark.parametrize("criterion", ["absolute_error", "poisson"])
def test_another_criterion_gives_other_leaves_and_the_same_bits(tmp_path: Path, criterion: str) -> None:
    values = np.abs(Y)
    fitted = RandomForestRegressor(5, max_depth=4, criterion=criterion, random_state=0).fit(FULL, values)

    model = export(fitted, tmp_path, FULL, values)

    assert np.array_equal(model.predict_batch(FULL).values, fitted.predict(FULL))


def test_an_exported_quantity_has_an_interval_of_half_of_the_test_rows(tmp_path: Path) -> None:
    fitted = RandomForestRegressor(20, random_state=0).fit(X_train, y_train)

    model = export(fitted, tmp_path)

    errors = y_test - fitted.predict(X_test)
    assert model.quantity is not None
    assert model.quantity.interval == interval_of(errors[::2])
    report = model.card.report
    assert isinstance(report, QuantityReport)
    inside = (-model.quantity.interval.below <= errors) & (errors <= model.quantity.interval.above)
    assert report.covered == inside[1::2].mean()
    assert (report.train_rows, report.test_rows) == (None, 50)
    assert report.r2 == pytest.approx(r2_score(y_test, fitted.predict(X_test)), abs=1e-12)


@pytest.mark.parametrize("kind", [RandomForestRegressor(9, random_state=0), RandomForestClassifier(9, random_state=0)])
@pytest.mark.parametrize("known", [False, True])
def test_an_estimator_that_was_fitted_with_gaps_is_exported(tmp_path: Path, kind: Any, *, known: bool) -> None:
    classes = (y_train > 0).astype(int), (y_test > 0).astype(int)
    train, test = classes if isinstance(kind, RandomForestClassifier) else (y_train, y_test)
    fitted = kind.fit(X_train, train)

    model = export(fitted, tmp_path, outcomes=test, **({"X_train": X_train, "y_train": train} if known else {}))

    assert [feature.has_gaps for feature in model.features] == [False, True, False]
    assert np.array_equal(model.predict_batch(X).outputs, writing.outputs_of(fitted, X))
    assert np.array_equal(model.predict_batch(FULL).outputs, writing.outputs_of(fitted, FULL))


def test_gaps_that_only_the_trees_tell_of_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3))
    rows[:, 1] = np.where(rng.random(200) < 0.4, np.nan, 1.0)
    values = np.isnan(rows[:, 1]) * 5.0 + rng.normal(size=200)
    fitted = RandomForestRegressor(5, max_depth=3, random_state=0).fit(rows, values)
    clean = rows[~np.isnan(rows[:, 1])]

    model = export(fitted, tmp_path, clean, values[~np.isnan(rows[:, 1])])

    assert [feature.has_gaps for feature in model.features] == [False, True, False]
    assert model.predict([0.0, float("nan"), 0.0]).value == fitted.predict([[0.0, np.nan, 0.0]])[0]


@pytest.mark.parametrize(
    "values",
    [
        y_test[:-1],
        y_test[:, None],
        np.full(len(y_test), np.nan),
        np.full(len(y_test), 1e39),
        np.array(["x"] * len(y_test)),
    ],
    ids=["too few", "a column", "NaN", "too large", "text"],
)
def test_quantities_that_are_none_are_an_error_in_one_sentence(tmp_path: Path, values: Any) -> None:
    fitted = RandomForestRegressor(2, random_state=0).fit(X_train, y_train)

    with pytest.raises(MLError, match=r"^y_test (has|does not)") as caught:
        export(fitted, tmp_path, outcomes=values)

    assert "\n" not in str(caught.value)


def test_several_quantities_at_once_are_refused(tmp_path: Path) -> None:
    fitted = RandomForestRegressor(2).fit(X_train, np.column_stack([y_train, y_train]))

    with pytest.raises(MLError, match="more than one output"):
        export(fitted, tmp_path)


def test_a_digest_is_that_of_a_table_whatever_bits_its_gaps_have() -> None:
    rows, values = noisy(50)
    other = rows.copy()
    other[np.isnan(other)] = np.frombuffer(np.uint64(0x7FF8000000000001).tobytes(), dtype=np.float64)[0]

    dataset = dataset_of(rows, values)

    assert dataset.digest() == replace(dataset, rows=other).digest()
    assert dataset.digest() != replace(dataset, rows=np.nan_to_num(rows)).digest()
