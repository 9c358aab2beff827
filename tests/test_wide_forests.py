"""Wide forests and odd ones: `==` with scikit-learn by every evaluator that takes them, thresholds hit exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from starlette.testclient import TestClient

import ml
from ml.errors import ForestError, TableError
from ml.estimators.trees import forest_from
from ml.model import decision_table, modelfile
from ml.model.card import Recipe
from ml.model.compiled import Compiled
from ml.model.cuts import Cuts
from ml.model.decision_table import DecisionTable
from ml.model.evaluators import compile_forest
from ml.model.forest import LEAF, Forest
from ml.model.loaded import LoadedModel, load_model
from ml.model.nearest import explain, nearest_change
from ml.model.sample import InvalidSample
from ml.model.walk import Walk
from ml.tables.dataset import Dataset, Feature
from ml.tables.numbers import LARGEST
from ml.training import fitting, writing
from ml.training.features import importance
from tests import builders
from tests.conftest import output_of
from web.app import create_app
from web.settings import Settings

Rows = NDArray[np.float64]


def random_table(n_rows: int, n_features: int, n_labels: int, *, seed: int) -> tuple[Rows, NDArray[np.intp]]:
    """Return noise: trees that learn it by heart become large and deep."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, n_features)), np.append(np.arange(n_labels), rng.integers(0, n_labels, n_rows))[
        :n_rows
    ]


def chain(n: int) -> tuple[Rows, NDArray[np.intp]]:
    """Return one feature along which the classes alternate: each split cuts off one row."""
    return np.arange(n, dtype=np.float64)[:, None], np.arange(n) % 2


def data_of(loader: Any) -> tuple[Rows, NDArray[np.intp]]:
    data = loader()
    return data.data, data.target


@dataclass(frozen=True)
class Case:
    unfitted: Any
    table: tuple[Rows, NDArray[np.intp]]

    def fitted(self) -> Any:
        # scikit-learn sums all numbers to see whether one is infinite: the largest ones cancel to NaN on the way.
        with np.errstate(invalid="ignore", over="ignore"):
            return clone(self.unfitted).fit(*self.table)


WINE, CANCER, DIGITS = data_of(load_wine), data_of(load_breast_cancer), data_of(load_digits)
NOISE = random_table(600, 12, 5, seed=1)
CASES = {
    "wine": Case(RandomForestClassifier(100, random_state=0), WINE),
    "breast cancer": Case(RandomForestClassifier(100, random_state=0), CANCER),
    "digits": Case(RandomForestClassifier(60, random_state=0), DIGITS),
    "digits, leaves of many": Case(RandomForestClassifier(60, min_samples_leaf=4, random_state=0), DIGITS),
    "noise": Case(RandomForestClassifier(40, random_state=0), NOISE),
    "noise, twenty labels": Case(RandomForestClassifier(20, max_depth=6, random_state=0),
                                 random_table(500, 6, 20, seed=2)),
    "extra trees": Case(ExtraTreesClassifier(50, max_depth=7, random_state=0), CANCER),
    "extra trees, full": Case(ExtraTreesClassifier(30, random_state=0), DIGITS),
    "a single tree": Case(DecisionTreeClassifier(random_state=0), DIGITS),
    "a single random tree": Case(ExtraTreeClassifier(random_state=0), NOISE),
    "a forest of one tree": Case(RandomForestClassifier(1, random_state=0), WINE),
    "the best leaves first": Case(RandomForestClassifier(30, max_leaf_nodes=70, random_state=0), NOISE),
    "a single tree, the best leaves first": Case(DecisionTreeClassifier(max_leaf_nodes=9, random_state=0), NOISE),
    "64 leaves": Case(RandomForestClassifier(20, max_leaf_nodes=64, random_state=0), NOISE),
    "65 leaves": Case(RandomForestClassifier(20, max_leaf_nodes=65, random_state=0), NOISE),
    "weights": Case(RandomForestClassifier(30, class_weight="balanced_subsample", max_depth=5, random_state=0), NOISE),
    "some trees of one leaf": Case(RandomForestClassifier(30, min_impurity_decrease=0.007, random_state=0), NOISE),
    "all trees of one leaf": Case(RandomForestClassifier(10, min_samples_leaf=400, random_state=0), NOISE),
    "deep": Case(DecisionTreeClassifier(random_state=0), chain(600)),
    "deep and many": Case(RandomForestClassifier(10, random_state=0), chain(500)),
    "tiny numbers": Case(RandomForestClassifier(20, random_state=0), (NOISE[0] * 1e-39, NOISE[1])),
    "huge numbers": Case(RandomForestClassifier(20, random_state=0), (NOISE[0] * 5e37, NOISE[1])),
}  # fmt: skip


def neighbours(values: Rows) -> Rows:
    """Return values, their float64 and float32 neighbours, and the middles at which the cast turns."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        singles = [nearest] + [np.nextafter(nearest, np.float32(end)) for end in (-np.inf, np.inf)]
    exact = np.unique(np.concatenate(singles)[np.isfinite(np.concatenate(singles))].astype(np.float64))
    points = np.concatenate([values, exact, (exact[1:] + exact[:-1]) / 2])
    points = np.unique(np.concatenate([points, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)]))
    return np.asarray(points[np.abs(points) <= LARGEST])


def probing_rows(estimator: Any, table: Rows, *, n: int) -> Rows:
    """Return training rows, and rows whose values lie on scikit-learn's own thresholds and next to them."""
    rng = np.random.default_rng(7)
    trees = [tree.tree_ for tree in getattr(estimator, "estimators_", [estimator])]
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    columns = []
    for number, column in enumerate(table.T):
        values = np.unique(threshold[feature == number])
        points = neighbours(values) if len(values) else np.empty(0)
        columns.append(rng.choice(np.concatenate([points, np.resize(column, max(50, len(points) // 4))]), n))
    return np.concatenate([table[:300], np.column_stack(columns)])


def evaluators_of(forest: Forest) -> dict[str, tuple[type, dict[str, Any]]]:
    """Return the settings that force each evaluator that takes the forest."""
    found: dict[str, tuple[type, dict[str, Any]]] = {
        "walk": (Walk, {"max_cells": 0, "compiles": False}),
        "compiled": (Compiled, {"max_cells": 0}),
    }
    if DecisionTable.fits(forest, Cuts(forest)):
        found["table"] = (DecisionTable, {})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_evaluator_has_scikit_learns_probabilities_to_the_last_bit(name: str) -> None:
    case = CASES[name]
    estimator = case.fitted()
    forest = forest_from(estimator)
    rows = probing_rows(estimator, case.table[0], n=1_500)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = estimator.predict_proba(rows)
    labels = tuple(map(str, estimator.classes_))
    evaluators = evaluators_of(forest)

    assert len(evaluators) >= 2
    for kind, limits in evaluators.values():
        evaluator = compile_forest(forest, Cuts(forest), labels=labels, **{"max_cells": 1_000_000} | limits)
        assert type(getattr(evaluator, "_trees", None) or evaluator._table) is kind  # type: ignore[attr-defined]  # one of the two
        batch = evaluator.predict_batch(rows.astype(np.float32))
        assert np.array_equal(batch.outputs.view(np.uint64), expected.view(np.uint64)), kind
        assert np.array_equal(batch.indices, expected.argmax(axis=1))
        for row, probabilities in zip(rows[250:550].tolist(), expected[250:550].tolist(), strict=True):
            # float64 values, as they are typed: the cast is part of the comparison.
            assert evaluator.predict(row).probabilities == tuple(probabilities), kind


@pytest.mark.slow
def test_the_cases_are_what_their_names_say() -> None:
    names = ["digits", "64 leaves", "65 leaves", "some trees of one leaf", "all trees of one leaf", "deep", "wine"]
    forests = {name: forest_from(CASES[name].fitted()) for name in names}

    def leaves(name: str) -> NDArray[np.int64]:
        return np.add.reduceat(forests[name].feature == -1, forests[name].roots, dtype=np.int64)

    assert leaves("digits").max() > 128, "three words and more"
    assert leaves("64 leaves").max() == 64
    assert leaves("65 leaves").max() == 65
    assert 1 == leaves("some trees of one leaf").min() < leaves("some trees of one leaf").max()
    assert leaves("all trees of one leaf").max() == 1
    assert len(forests["deep"].levels()) > 200
    unused = set(range(64)) - set(forests["digits"].feature.tolist())
    assert unused, "pixels in the corners are never looked at"
    assert not DecisionTable.fits(forests["wine"], Cuts(forests["wine"]))


def fitted(table: tuple[Rows, NDArray[np.intp]], path: Path, *, trees: int) -> tuple[Any, LoadedModel]:
    train_rows, test_rows, train_classes, test_classes = train_test_split(*table, random_state=0, stratify=table[1])
    estimator = RandomForestClassifier(trees, random_state=0).fit(train_rows, train_classes)
    names = [f"f{number}" for number in range(train_rows.shape[1])]
    return estimator, ml.export(estimator, test_rows, test_classes, feature_names=names, path=path)


@pytest.mark.slow
def test_digits_go_from_a_file_to_an_answer(tmp_path: Path) -> None:
    estimator, _ = fitted(DIGITS, tmp_path / "digits.npz", trees=60)
    expected = estimator.predict_proba(DIGITS[0])

    for compiles in (True, False):
        model = load_model(tmp_path / "digits.npz", max_cells=0, compiles=compiles)
        answers = model.predict_each(DIGITS[0][:50])
        assert len(model.features) == 64
        assert model.labels == tuple("0123456789")
        assert np.array_equal(model.predict_batch(DIGITS[0]).outputs, expected)
        assert [answer.probabilities for answer in answers] == [tuple(p) for p in expected[:50]]
        assert model.slice_rows >= 1


def test_what_is_no_finite_float32_is_refused_in_every_place(tmp_path: Path) -> None:
    _, model = fitted(WINE, tmp_path / "wine.npz", trees=3)
    texts = ["inf", "-inf", "1e999", "nan", "3.5e38", repr(float(np.nextafter(LARGEST, np.inf)))]
    row: list[object] = [1.0] * 13

    for place in range(13):
        for value in [*texts, *map(float, texts)]:
            with pytest.raises(InvalidSample, match=f"f{place}"):
                model.validator.row([*row[:place], value, *row[place + 1 :]])


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    rows, classes = chain(2_500)
    deep = DecisionTreeClassifier(random_state=0).fit(rows, classes)
    assert deep.get_depth() > 1_000

    with pytest.raises(ForestError, match="a tree is deeper than 1000 levels"):
        ml.export(deep, rows, classes, feature_names=["x"], path=tmp_path / "deep.npz")


def dataset_of(table: tuple[Rows, NDArray[np.intp]]) -> Dataset:
    rows, classes = table
    features = tuple(Feature(key=f"f{number}", title=f"f {number}") for number in range(rows.shape[1]))
    labels = tuple(f"label {number}" for number in range(int(classes.max()) + 1))
    return builders.dataset_of(rows, classes, features=features, labels=labels)


def same_trees(one: Any, other: Any) -> bool:
    first, second = forest_from(one), forest_from(other)
    names = ("roots", "feature", "threshold", "left", "right", "values")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


KINDS = {"random-forest": RandomForestClassifier, "extra-trees": ExtraTreesClassifier}


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("trees", [1, 9, 10, 11, 35])
@pytest.mark.parametrize("kind", KINDS)
def test_trees_fitted_in_steps_are_those_that_scikit_learn_fits_at_once(kind: str, trees: int, balanced: bool) -> None:
    rows, classes = WINE
    keep = np.concatenate([np.flatnonzero(classes == 0)[:20], np.flatnonzero(classes)])  # not balanced by itself
    recipe = Recipe(
        estimator=kind,  # type: ignore[arg-type]  # one of its words
        n_estimators=trees, max_depth=6, min_samples_leaf=2, seed=3, balanced_class_weight=balanced,
    )  # fmt: skip

    trained = fitting.fit(dataset_of((rows[keep], classes[keep])), recipe)

    at_once = KINDS[kind](
        trees, max_depth=6, min_samples_leaf=2, random_state=3, class_weight="balanced" if balanced else None
    ).fit(trained.split.train_rows, trained.split.train_classes)
    assert same_trees(trained.estimator, at_once)
    probabilities = trained.estimator.predict_proba(rows)
    assert np.array_equal(probabilities, at_once.predict_proba(rows))


def test_a_single_tree_is_the_one_that_scikit_learn_fits() -> None:
    trained = fitting.fit(
        dataset_of(NOISE),
        Recipe(estimator="decision-tree", max_depth=5, min_samples_leaf=3, seed=4, balanced_class_weight=True),
    )

    at_once = DecisionTreeClassifier(max_depth=5, min_samples_leaf=3, random_state=4, class_weight="balanced")
    at_once.fit(trained.split.train_rows, trained.split.train_classes)
    assert same_trees(trained.estimator, at_once)


def test_weights_change_what_is_learned_from_classes_of_different_size() -> None:
    rows, classes = NOISE[0], (NOISE[0][:, 0] > 1.5).astype(np.intp)
    dataset = dataset_of((rows, classes))

    plain, weighted = (
        fitting.fit(dataset, Recipe(n_estimators=5, max_depth=2, balanced_class_weight=on)) for on in (False, True)
    )

    assert not same_trees(plain.estimator, weighted.estimator)


def test_progress_is_told_to_its_end_within_each_fold() -> None:
    told: list[tuple[str, int, int]] = []

    fitting.fit(dataset_of(WINE), Recipe(n_estimators=25), progress=lambda *step: told.append(step))
    fitting.cross_validate(dataset_of(WINE), Recipe(n_estimators=12), folds=2, progress=lambda *step: told.append(step))

    assert told == [
        ("trees", 10, 25), ("trees", 20, 25), ("trees", 25, 25),
        *(("2-fold cross-validation", trees, 24) for trees in (10, 12, 22, 24)),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("table", "seed"), [(WINE, 0), (WINE, 5), (NOISE, 1)], ids=["wine", "other seed", "noise"])
def test_the_importance_of_features_is_scikit_learns(table: tuple[Rows, NDArray[np.intp]], seed: int) -> None:
    trained = fitting.fit(dataset_of(table), Recipe(n_estimators=8, seed=seed))

    expected = permutation_importance(
        trained.estimator, trained.split.test_rows, trained.split.test_classes, n_repeats=5, random_state=seed
    ).importances_mean
    assert np.array_equal(importance(trained), expected)
    assert [feature.importance for feature in writing.model_of(trained).card.features] == expected.tolist()


def test_the_same_table_gives_the_same_bytes() -> None:
    recipe = Recipe(n_estimators=12, balanced_class_weight=True, estimator="extra-trees")

    first, again = (modelfile.dump(writing.model_of(fitting.fit(dataset_of(WINE), recipe))) for _ in range(2))

    assert first == again


def test_a_class_of_one_row_is_an_error_with_its_name() -> None:
    rows, classes = WINE[0][:72].copy(), WINE[1][:72].copy()
    classes[-1] = 2

    with pytest.raises(TableError, match="class 'label 2' has 1 row: a split takes two of each class"):
        fitting.fit(dataset_of((rows, classes)))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_leaves_too_few_rows_is_an_error(share: float) -> None:
    with pytest.raises(TableError, match="leave fewer rows than the 3 classes on one side"):
        fitting.fit(dataset_of((WINE[0], WINE[1])), Recipe(test_size=share))


def test_a_class_that_the_split_leaves_out_of_the_training_rows_is_an_error() -> None:
    rows = np.random.default_rng(0).normal(size=(1_002, 3))
    classes = np.array([0] * 2 + [1] * 500 + [2] * 500)

    with pytest.raises(TableError, match="label 0"):
        fitting.fit(dataset_of((rows, classes)), Recipe(n_estimators=2, test_size=0.99))


def widened(forest: Forest, rows: Rows, n_features: int, *, rng: np.random.Generator) -> tuple[Forest, Rows]:
    """Return the forest with its features scattered over `n_features`, in any order, and rows to go with it."""
    places = rng.permutation(n_features)[: forest.n_features].astype(np.int32)
    feature = np.where(forest.feature == LEAF, LEAF, places[forest.feature])
    wide = rng.normal(size=(len(rows), n_features))
    wide[:, places] = rows
    return replace(forest, n_features=n_features, feature=feature), wide


@pytest.mark.slow
@settings(max_examples=8)
@given(
    n_features=st.integers(1, 300), n_informative=st.integers(1, 70), n_trees=st.integers(1, 12),
    depth=st.sampled_from([1, 2, 3, 6, None]), seed=st.integers(0, 99),
)  # fmt: skip
@example(n_features=1, n_informative=1, n_trees=1, depth=1, seed=0)
@example(n_features=1, n_informative=1, n_trees=1_000, depth=None, seed=1)
@example(n_features=63, n_informative=63, n_trees=1, depth=1, seed=2)
@example(n_features=64, n_informative=64, n_trees=1, depth=1, seed=3)
@example(n_features=64, n_informative=64, n_trees=100, depth=None, seed=4)
@example(n_features=100, n_informative=5, n_trees=5, depth=2, seed=5)
@example(n_features=10_000, n_informative=1, n_trees=1, depth=None, seed=6)
@example(n_features=10_000, n_informative=3, n_trees=1_000, depth=1, seed=7)
@example(n_features=10_000, n_informative=8, n_trees=30, depth=None, seed=8)
def test_a_forest_over_any_number_of_features_has_scikit_learns_probabilities(
    n_features: int, n_informative: int, n_trees: int, depth: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    narrow, classes = random_table(60, min(n_informative, n_features), 3, seed=seed)
    estimator = RandomForestClassifier(n_trees, max_depth=depth, random_state=seed).fit(narrow, classes)
    forest, rows = widened(forest_from(estimator), narrow, n_features, rng=rng)
    forest.check()
    expected = estimator.predict_proba(narrow)

    cuts = Cuts(forest)
    labels = ["a", "b", "c"]
    for max_cells, compiles in [(decision_table.MAX_CELLS, True), (0, True), (0, False)]:
        compiled = compile_forest(forest, cuts, labels=labels, max_cells=max_cells, compiles=compiles)
        assert np.array_equal(compiled.predict_batch(rows.astype(np.float32)).outputs, expected)
        assert compiled.predict(rows[0].tolist()).probabilities == tuple(expected[0])


def test_a_tree_without_a_single_cut_is_a_table_of_one_cell() -> None:
    rows, classes = random_table(20, 3, 2, seed=0)
    stump = DecisionTreeClassifier(min_samples_leaf=20).fit(rows, classes)
    forest, wide = widened(forest_from(stump), rows, 100, rng=np.random.default_rng(0))

    compiled = DecisionTable(forest, Cuts(forest))

    assert np.array_equal(compiled.sums, stump.predict_proba(rows[:1]))
    assert compiled.outcome(wide[0].tolist()) == 0
    assert compiled.outcomes(wide.astype(np.float32)).tolist() == [0] * 20


def test_the_labels_along_features_and_over_planes_are_those_of_the_forest() -> None:
    narrow, classes = random_table(60, 3, 3, seed=1)
    estimator = RandomForestClassifier(5, max_depth=2, random_state=0).fit(narrow, classes)
    forest, rows = widened(forest_from(estimator), narrow, 100, rng=np.random.default_rng(1))
    cuts = Cuts(forest)
    compiled = compile_forest(forest, cuts, labels=["a", "b", "c"], max_cells=10**6)
    assert compiled.grid is not None
    row = rows[0].tolist()
    ranks = [cuts.rank(feature, value) for feature, value in enumerate(row)]

    def label_at(moved: dict[int, int]) -> int:
        there = list(row)
        for feature, rank in moved.items():
            inside = [*cuts.values[feature].tolist(), None][rank]
            there[feature] = LARGEST if inside is None else inside
        return compiled.predict(there).index

    for feature, line in enumerate(compiled.grid.lines(ranks)):
        assert list(line) == [label_at({feature: rank}) for rank in range(cuts.sizes[feature] + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--estimator", "decision-tree"], ["--trees", "5", "--depth", "2"]], ids=str)
def test_a_wide_table_and_a_small_forest_are_trained_inspected_and_served(tmp_path: Path, options: list[str]) -> None:
    rows, _ = random_table(200, 100, 2, seed=3)
    classes = np.where(rows[:, :5].sum(axis=1) > 0, "high", "low")
    names = [f"g{number}" for number in range(100)]
    lines = [",".join([*map(repr, row), label]) for row, label in zip(rows.tolist(), classes.tolist(), strict=True)]
    (tmp_path / "gene.csv").write_text("\n".join([",".join([*names, "class"]), *lines, ""]))

    assert "to the last bit" in output_of("train", "gene.csv", "--out", "gene.npz", *options, cwd=tmp_path)

    assert "gene" in output_of("inspect", "gene.npz", cwd=tmp_path)
    model = load_model(tmp_path / "gene.npz")
    assert model.grid is not None
    # What the table tells of one row is what is found without it.
    compiled = load_model(tmp_path / "gene.npz", max_cells=0)
    for row in rows[:5].tolist():
        assert explain(model, row) == explain(compiled, row)
        assert nearest_change(model, row) == nearest_change(compiled, row)
    with TestClient(create_app(Settings(model_file=tmp_path / "gene.npz"))) as client:
        assert client.get("/?map-x=g0&map-y=g99").status_code == 200
        answer = client.post("/predict", json={"sample": rows[0].tolist()})
        assert tuple(answer.json()["probabilities"].values()) == model.predict(rows[0].tolist()).probabilities


def test_a_small_tree_over_many_features_is_exported(tmp_path: Path) -> None:
    rows, classes = random_table(100, 70, 2, seed=4)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(rows, classes)

    names = [f"f{number}" for number in range(70)]
    model = ml.export(tree, rows, classes, feature_names=names, path=tmp_path / "tree.npz")

    assert np.array_equal(model.predict_batch(rows).outputs, tree.predict_proba(rows))
