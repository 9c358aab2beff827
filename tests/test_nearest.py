"""Explanations against brute force: every end and every change is looked for again with `predict` alone."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

import ml
from ml.cli import reports
from ml.estimators.trees import forest_from
from ml.model import compiled, ends, loaded
from ml.model.card import Recipe
from ml.model.changes import Change, Direction, Explanation, Range
from ml.model.cuts import Cuts
from ml.model.loaded import LoadedModel, load_model
from ml.model.nearest import explain, nearest_change
from ml.model.plane import Plane, plane
from ml.tables.headers import Limits
from ml.training.fitting import Trained
from tests.conftest import EVALUATORS
from tests.pipelines import numbers, oracle_of, sample_of, words
from tests.test_mixed_tables import oracle

Rows = NDArray[np.float64]

SAMPLE = [5.6, 2.7, 4.2, 1.3]


def exported(forest: object, rows: Rows, classes: object, path: Path, **options: object) -> LoadedModel:
    names = [f"f{column}" for column in range(rows.shape[1])]
    return ml.export(forest, rows, classes, feature_names=names, path=path / "model.npz", **options)  # type: ignore[arg-type]  # options of export


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    data = load_wine()
    forest = RandomForestClassifier(30, random_state=0).fit(data.data, data.target)
    return exported(forest, data.data, data.target, tmp_path_factory.mktemp("wine"))


@pytest.fixture(scope="module")
def digits_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, path = load_digits(), tmp_path_factory.mktemp("digits")
    forest = RandomForestClassifier(30, random_state=0).fit(data.data, data.target)
    exported(forest, data.data[:300], data.target[:300], path)
    return path / "model.npz"


@pytest.fixture(scope="module")
def digits(digits_path: Path) -> LoadedModel:
    return load_model(digits_path)


def float32(value: float, direction: int = 0) -> float:
    """Return the float32 of a value, or its neighbour: the values that a forest can tell apart."""
    nearest = np.float32(value)
    return float(np.nextafter(nearest, np.float32(direction * np.inf)) if direction else nearest)


def points_of(model: LoadedModel, feature: int, row: list[float]) -> list[float]:
    """Return all cuts of a feature with both neighbours, the middles between them, ends far out, and the value.

    Of a category all positions of its choices.
    """
    if model.features[feature].choices:
        return list(map(float, range(len(model.features[feature].choices))))
    cuts = model.cuts.values[feature].astype(np.float64).tolist()
    cuts = [cut for cut in cuts if cut > -math.inf]  # that of no value
    points = set() if math.isnan(row[feature]) else {row[feature]}
    for cut in cuts:
        points |= {cut, float32(cut, -1), float32(cut, 1)}
    for low, high in pairwise(cuts):
        points.add((low + high) / 2)
    low, high = (cuts[0], cuts[-1]) if cuts else (0.0, 0.0)
    points |= {low - 1, low - 1e6, high + 1, high + 1e6}
    return sorted(points)


def labels_along(
    model: LoadedModel, row: list[float], feature: int, points: list[float], *, goal: float | None = None
) -> list[str]:
    """Return the labels; of a quantity, whether it reaches the goal."""
    rows = np.tile(np.array(row), (len(points), 1))
    rows[:, feature] = points
    batch = model.predict_batch(rows)
    return [model.labels[index] for index in batch.indices] if goal is None else [str(v >= goal) for v in batch.values]


def own_label(model: LoadedModel, row: list[float], *, goal: float | None = None) -> str:
    return labels_along(model, row, 0, row[:1], goal=goal)[0]


def assert_range_is_right(
    model: LoadedModel, row: list[float], feature: int, found: Range, *, goal: float | None = None
) -> None:
    label = own_label(model, row, goal=goal)
    points = points_of(model, feature, row)
    answers = labels_along(model, row, feature, points, goal=goal)
    if model.features[feature].choices:
        same = [choice for choice, answer in enumerate(answers) if answer == label]
        assert (found.low, found.high) == (None, None)
        assert list(found.choices) == same if found.searched_all else set(found.choices) <= set(same)
        return
    assert not found.choices
    if math.isnan(row[feature]):
        assert found == Range(model.features[feature].key, None, None, searched_all=False)
        return
    low = -math.inf if found.low is None else found.low
    high = math.inf if found.high is None else found.high
    for point, answer in zip(points, answers, strict=True):
        if low < float(str(np.float32(point))) <= high:
            assert answer == label, (feature, point)
    if found.searched_all:
        for end, inside, outside in ((found.low, 1, 0), (found.high, 0, 1)):
            if end is not None:
                inner, outer = labels_along(
                    model, row, feature, [float32(end, inside), float32(end, outside)], goal=goal
                )  # fmt: skip
                assert (inner, outer != label) == (label, True), (feature, end)


def nearest_by_force(model: LoadedModel, row: list[float], *, goal: float | None = None) -> float:
    """Return the least distance, in training ranges, at which one feature alone changes the label within its limits.

    Another choice is at a distance of 1.
    """
    label, best = own_label(model, row, goal=goal), math.inf
    for index, feature in enumerate(model.features):
        points = points_of(model, index, row)
        for point, answer in zip(points, labels_along(model, row, index, points, goal=goal), strict=True):
            inside = (feature.minimum is None or point >= feature.minimum) and (
                feature.maximum is None or point <= feature.maximum
            )
            if answer == label or not inside:
                continue
            if feature.choices:
                best = min(best, 1.0)
            elif not math.isnan(row[index]):
                best = min(best, abs(point - row[index]) / model.spans[index])
    return best


def assert_is_right(model: LoadedModel, row: list[float], found: Explanation, *, goal: float | None = None) -> None:
    assert found.label == model.predict(row).label
    assert [one.feature for one in found.ranges] == [feature.key for feature in model.features]
    for index, one in enumerate(found.ranges):
        assert_range_is_right(model, row, index, one, goal=goal)
    assert found.searched_all == all(one.searched_all for one in found.ranges)
    best = nearest_by_force(model, row, goal=goal)
    searched_all = all(one.searched_all or math.isnan(row[index]) for index, one in enumerate(found.ranges))
    if found.nearest is None:
        if searched_all:
            assert best == math.inf
        return
    assert_change_is_right(model, row, found.nearest, goal=goal)
    if searched_all:
        # The value itself may lie between the end and its float32: nothing but that is rounded.
        assert distance_of(model, row, found.nearest) == pytest.approx(best, abs=1e-6, rel=1e-5)


def distance_of(model: LoadedModel, row: list[float], change: Change) -> float:
    """Return how far away a change is, as a fraction of the feature's training range; another choice is 1 away."""
    at = model.validator.keys.index(change.feature)
    return 1.0 if change.direction == "is" else abs(change.threshold - row[at]) / model.spans[at]


def assert_change_is_right(model: LoadedModel, row: list[float], change: Change, *, goal: float | None = None) -> None:
    index = [feature.key for feature in model.features].index(change.feature)
    feature = model.features[index]
    old = own_label(model, row, goal=goal)
    if change.direction == "is":
        answers = labels_along(model, row, index, points_of(model, index, row), goal=goal)
        others = [choice for choice, answer in enumerate(answers) if answer != old]
        assert change.value == max(others, key=feature.counts.__getitem__), "the most frequent choice of these"
        assert change.label == (answers[int(change.value)] if goal is None else "")
        return
    before, beyond = {"rises above": (0, 1), "rises to": (-1, 0), "falls to": (1, 0), "falls below": (0, -1)}[
        change.direction
    ]
    near = [float32(change.threshold, before), float32(change.threshold, beyond), change.value]
    at, past, shown = labels_along(model, row, index, near, goal=goal)
    assert at == old != past == shown
    assert change.label == (past if goal is None else "")
    assert (change.value > row[index]) == change.direction.startswith("rises")
    assert feature.minimum is None or change.value >= feature.minimum
    assert feature.maximum is None or change.value <= feature.maximum


@given(row=st.tuples(*(st.one_of(st.integers(0, 80).map(lambda n: n / 10), st.floats(0, 9)) for _ in range(4))))
def test_every_explanation_of_the_built_in_model_is_right(model: LoadedModel, row: tuple[float, ...]) -> None:
    found = explain(model, list(row))

    assert found.searched_all
    assert_is_right(model, list(row), found)


def test_every_explanation_of_a_sample_on_its_cuts_is_right(model: LoadedModel) -> None:
    rng = np.random.default_rng(0)
    points = [np.array(points_of(model, column, SAMPLE)) for column in range(4)]

    for _ in range(100):
        row = [max(0.0, float(rng.choice(column))) for column in points]
        assert_is_right(model, row, explain(model, row))


def test_every_explanation_of_a_wide_forest_is_right(wine: LoadedModel) -> None:
    for row in load_wine().data[::12].tolist():
        found = explain(wine, row)
        assert found.searched_all
        assert_is_right(wine, row, found)


@pytest.mark.parametrize("seed", range(6))
def test_every_explanation_of_a_random_forest_is_right(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(120, 3)).round(2) * [1, 1e-4, 1e6]
    classes = rng.integers(0, 4, 120)
    kind = [RandomForestClassifier(7), ExtraTreesClassifier(7), DecisionTreeClassifier()][seed % 3]
    forest = kind.set_params(random_state=seed, max_depth=[None, 2][seed % 2]).fit(rows, classes)
    limits = {"f0": Limits(-4, 4), "f1": Limits(None, float(rows[:, 1].max()) + 1e-6)}
    model = exported(forest, rows, classes, tmp_path, limits=limits)

    for row in rng.permutation(rows)[:15].tolist():
        assert_is_right(model, row, explain(model, row))


MIXED = ("words and numbers", "gaps in words and numbers", "rare words", "only whether there is a value")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_every_explanation_of_words_and_gaps_is_right(kind: str, evaluator: str) -> None:
    found = oracle(kind, 0, "random-forest", quantity=False)
    model = found.model(evaluator)

    for cells in found.questions(np.random.default_rng(0), 30).tolist():
        row = model.validator.row(sample_of(cells))
        assert_is_right(model, row, explain(model, row))
        assert nearest_change(model, row)[0] == explain(model, row).nearest


@pytest.mark.slow
@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_every_way_to_reach_a_quantity_is_right(kind: str, evaluator: str) -> None:
    found = oracle(kind, 0, "random-forest", quantity=True)
    model = found.model(evaluator)
    assert model.quantity is not None

    for number, cells in enumerate(found.questions(np.random.default_rng(0), 30).tolist()):
        goal = model.quantity.quantiles[number % 11]
        row = model.validator.row(sample_of(cells))
        assert_is_right(model, row, explain(model, row, goal=goal), goal=goal)
        assert nearest_change(model, row, goal=goal)[0] == explain(model, row, goal=goal).nearest


def test_without_a_goal_a_quantity_has_its_own_interval_and_no_change() -> None:
    found = oracle("gaps in words and numbers", 0, "random-forest", quantity=True)
    model = found.model("compiled")

    for cells in found.questions(np.random.default_rng(0), 60).tolist():
        row = model.validator.row(sample_of(cells))
        explanation = explain(model, row)
        value = model.predict(row).value
        assert (explanation.nearest, explanation.searched_all) == (None, False)
        for feature, one in enumerate(explanation.ranges):
            if model.features[feature].choices:
                points = list(map(float, one.choices))
            else:
                low = -1e30 if one.low is None else float32(one.low, 1)
                high = 1e30 if one.high is None else float32(one.high)
                points = [low, high]
            rows = np.tile(row, (len(points), 1))
            rows[:, feature] = points
            if not math.isnan(row[feature]):
                assert set(model.predict_batch(rows).values.tolist()) <= {value}


@pytest.mark.slow
@pytest.mark.parametrize("max_rows", [1, 5, 20, 60])
def test_a_search_that_is_cut_short_claims_nothing_about_choices_that_it_left_out(max_rows: int) -> None:
    found = oracle("many columns", 0, "random-forest", quantity=False)
    model = found.model()
    left_out = 0

    for cells in found.questions(np.random.default_rng(0), 60).tolist():
        row = model.validator.row(sample_of(cells))
        explanation = explain(model, row, max_rows=max_rows)
        assert_is_right(model, row, explanation)
        left_out += sum(bool(one.choices) and not one.searched_all for one in explanation.ranges)

    assert left_out or max_rows == 60


def limited(model: LoadedModel, key: str, minimum: float | None, maximum: float | None) -> LoadedModel:
    """Return the model as one whose feature has these limits."""
    other = copy.copy(model)
    other.features = tuple(
        msgspec.structs.replace(feature, minimum=minimum, maximum=maximum) if feature.key == key else feature
        for feature in model.features
    )
    return other


@pytest.mark.parametrize(("maximum", "value"), [(2.5, 1.8), (1.78, 1.78), (1.7505, 1.7505), (1.75, None), (1.5, None)])
def test_a_change_keeps_the_limits(built_in_model: LoadedModel, maximum: float, value: float | None) -> None:
    nearest = explain(limited(built_in_model, "petal_width", 0, maximum), SAMPLE).nearest

    if value is None:
        assert nearest is None or nearest.feature != "petal_width"
        return
    assert nearest is not None
    assert nearest.feature == "petal_width"
    assert 1.75 < nearest.value <= maximum
    assert built_in_model.predict([*SAMPLE[:3], nearest.value]).label == "virginica"


@pytest.mark.parametrize(("minimum", "value"), [(4.0, 4.5), (4.5, 4.5), (4.51, None)])
def test_a_change_may_reach_the_limit_itself(tmp_path: Path, minimum: float, value: float | None) -> None:
    rows = np.arange(10.0)[:, None]
    classes = (rows[:, 0] > 4.5).astype(int)
    model = limited(exported(DecisionTreeClassifier().fit(rows, classes), rows, classes, tmp_path), "f0", minimum, None)

    nearest = explain(model, [7.0]).nearest

    assert (nearest.value if nearest else None) == value


@pytest.mark.parametrize(
    ("row", "feature", "direction"),
    [([3.5, 3.5], "f0", "falls to"), ([5.5, 5.5], "f0", "rises above"), ([3.5, 2.75], "f1", "falls to")],
)
def test_of_changes_that_are_equally_near_that_of_the_first_feature_counts(
    tmp_path: Path, row: list[float], feature: str, direction: str
) -> None:
    rows = np.array([(x, y) for x in range(10) for y in range(10)], dtype=float)
    classes = np.all((rows >= 3) & (rows <= 6), axis=1).astype(int)
    model = exported(DecisionTreeClassifier(random_state=0).fit(rows, classes), rows, classes, tmp_path)
    without_grid = load_model(tmp_path / "model.npz", max_cells=0)
    assert (model.grid is None, without_grid.grid is None) == (False, True)

    nearest, searched_all = nearest_change(model, row)

    assert nearest is not None
    assert (nearest.feature, nearest.direction) == (feature, direction)
    assert searched_all
    assert nearest == nearest_change(without_grid, row)[0] == explain(model, row).nearest


def test_the_nearest_change_of_the_known_sample_is_a_short_number(built_in_model: LoadedModel) -> None:
    nearest = explain(built_in_model, SAMPLE).nearest

    assert nearest == Change("petal_width", "rises above", 1.75, 1.8, "virginica")


def test_thresholds_and_values_are_short_decimals(model: LoadedModel) -> None:
    rows = np.random.default_rng(1).uniform(0, 8, (200, 4)).round(1).tolist()

    for row in rows:
        found = explain(model, row)
        ends = [end for one in found.ranges for end in (one.low, one.high) if end is not None]
        # Eight digits where scikit-learn's threshold is just below the decimal that people see in it.
        assert all(len(repr(end)) <= 10 for end in ends), ends
        if found.nearest is not None:
            assert any(abs(found.nearest.threshold - end) < 1e-6 for end in ends)
            assert len(repr(found.nearest.threshold)) <= 5
            assert len(repr(found.nearest.value)) <= 4


def test_a_feature_that_no_tree_uses_changes_nothing(tmp_path: Path) -> None:
    rows = np.column_stack([np.arange(20.0), np.zeros(20)])
    classes = (rows[:, 0] > 9).astype(int)
    model = exported(DecisionTreeClassifier().fit(rows, classes), rows, classes, tmp_path)

    found = explain(model, [3.0, 5.0])

    assert found.ranges == (Range("f0", None, 9.5, searched_all=True), Range("f1", None, None, searched_all=True))
    assert found.nearest == Change("f0", "rises above", 9.5, 10.0, "1")


def test_a_forest_that_always_answers_the_same_has_no_change(tmp_path: Path) -> None:
    rows, classes = np.arange(10.0)[:, None], np.array([0] * 9 + [1])
    forest = RandomForestClassifier(3, min_samples_leaf=10, random_state=0).fit(rows, classes)
    model = exported(forest, rows, classes, tmp_path)

    found = explain(model, [3.0])

    assert found == Explanation("0", (Range("f0", None, None, searched_all=True),), None, searched_all=True)
    lines = list(reports.explanation_lines(found, model.card))
    assert lines[-1] == "no change of a single feature changes the answer"


@pytest.fixture(scope="module")
def walked(digits_path: Path) -> LoadedModel:
    """The model of `digits`, evaluated without compiled code: it is asked for the rows of its search."""
    return load_model(digits_path, compiles=False)


@pytest.mark.slow
@pytest.mark.parametrize("max_rows", [1, 100, 400])
def test_what_is_cut_short_is_still_right_and_says_so(walked: LoadedModel, max_rows: int) -> None:
    row = load_digits().data[5].tolist()

    found = explain(walked, row, max_rows=max_rows)

    assert not found.searched_all
    assert_is_right(walked, row, found)
    assert any("(searched only near the sample)" in line for line in reports.explanation_lines(found, walked.card))


def test_where_nothing_is_found_nearby_values_all_over_each_feature_are_tried(walked: LoadedModel) -> None:
    found = 0
    for row in load_digits().data[:30].tolist():
        change, searched_all = nearest_change(walked, row, max_rows=400)
        assert not searched_all
        near = explain(walked, row, max_rows=400).nearest
        found += change is not None and near is None
        if change:
            feature = [one.key for one in walked.features].index(change.feature)
            changed = [*row[:feature], change.value, *row[feature + 1 :]]
            assert walked.predict(changed).label == change.label != walked.predict(row).label
    assert found


def test_compiled_code_searches_everything_and_finds_what_rows_find(digits: LoadedModel, walked: LoadedModel) -> None:
    for row in load_digits().data[5:15].tolist():
        found = explain(digits, row, max_rows=1)

        assert found.searched_all
        assert found == explain(walked, row, max_rows=10_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        HistGradientBoostingClassifier(max_iter=10, random_state=0),
        FixedThresholdClassifier(RandomForestClassifier(10, random_state=0), threshold=0.8, pos_label=1),
    ]
)  # fmt: skip
def test_compiled_code_knows_what_decides_on_the_label(estimator: Any, tmp_path: Path) -> None:
    rows, classes = load_breast_cancer(return_X_y=True)
    exported(estimator.fit(rows, classes), rows, classes, tmp_path)
    by_lines, by_rows = (
        load_model(tmp_path / "model.npz", max_cells=0, compiles=compiles) for compiles in (True, False)
    )

    for row in rows[:20].tolist():
        assert by_lines.lines is not None
        assert by_lines.lines(row) is not None
        assert explain(by_lines, row) == explain(by_rows, row, max_rows=100_000)


def test_a_line_that_would_take_too_long_is_searched_by_rows(
    digits: LoadedModel, walked: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "MAX_LINE_VALUES", 10_000)
    row = load_digits().data[5].tolist()

    assert explain(digits, row, max_rows=100) == explain(walked, row, max_rows=100)


@pytest.mark.parametrize(
    "make", [
        RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor,
        GradientBoostingClassifier, HistGradientBoostingClassifier,
    ]
)  # fmt: skip
@pytest.mark.parametrize(("n_trees", "n_features"), [(7, 5), (3, 40), (1, 1)])
def test_the_answers_along_each_feature_are_those_to_its_rows(make: Any, n_trees: int, n_features: int) -> None:
    rng = np.random.default_rng(n_features)
    rows = rng.normal(size=(800, n_features)).round(1)
    outcomes = rng.integers(0, 3, len(rows))
    size = "max_iter" if make is HistGradientBoostingClassifier else "n_estimators"
    estimator = make(max_features=1.0, random_state=0, **{size: n_trees}).fit(rows, outcomes)
    forest, code = forest_from(estimator), compiled.kernels()
    assert code is not None
    trees = compiled.Compiled(forest, cuts := Cuts(forest), code)

    for row in rows[:5].tolist():
        lines = trees.lines(row)
        assert lines is not None
        for feature, (first, stop) in enumerate(pairwise(lines.first.tolist())):
            along = np.append(cuts.values[feature], cuts.dtype(np.inf))
            others = np.tile(np.array(row, dtype=cuts.dtype), (len(along), 1))
            others[:, feature] = along
            sums = lines.sums[:, first + feature : stop + feature + 1].T
            assert set(lines.cuts[first:stop]) <= set(cuts.values[feature])
            assert np.array_equal(sums[np.searchsorted(lines.cuts[first:stop], along)], trees.batch(others))


@pytest.mark.parametrize("max_rows", [1, 50, 200, 1_000])
def test_the_rows_that_are_looked_at_are_bounded(digits: LoadedModel, max_rows: int) -> None:
    ranks = [0] * len(digits.features)

    spans = ends._spans(digits, ranks, max_rows=max_rows)

    assert sum(last - first + 1 for first, last in spans.values()) <= max(3, max_rows)


def test_where_nothing_is_near_only_the_most_important_features_are_tried_in_few_rows(digits: LoadedModel) -> None:
    tried: set[int] = set()
    for row in digits.reference_rows[:40].tolist():
        found = ends.farther_ends_of(digits, row, max_rows=30, goal=None)
        tried |= {place for place, one in enumerate(found) if (one.low_label, one.high_label) != (None, None)}

    assert tried
    assert tried <= {*sorted(range(64), key=lambda place: -digits.features[place].importance)[:15]}


def test_the_most_important_features_are_looked_at_when_there_is_room_for_few(digits: LoadedModel) -> None:
    spans = ends._spans(digits, [0] * 64, max_rows=30)

    used = [index for index, size in enumerate(digits.cuts.sizes) if size]
    least = min(digits.features[index].importance for index in spans)
    assert 10 <= len(spans) < len(used)
    assert all(digits.features[index].importance <= least for index in used if index not in spans)


@pytest.mark.slow
def test_a_model_of_thousands_of_features_is_explained_in_bounded_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8_000, 1_200))
    classes = rng.integers(0, 2, len(rows))
    exported(ExtraTreeClassifier(random_state=0).fit(rows, classes), rows[:9], classes[:9], tmp_path)
    model = load_model(tmp_path / "model.npz", compiles=False)
    row = rows[0].tolist()
    bound = loaded.MAX_VALUES // len(row)
    assert sum(model.cuts.sizes) > bound

    found = explain(model, row)

    assert not found.searched_all
    spans = ends._spans(model, [0] * len(row), max_rows=bound)
    assert sum(last - first + 1 for first, last in spans.values()) <= bound
    for index in rng.permutation(len(row))[:15].tolist():
        assert_range_is_right(model, row, index, found.ranges[index])


@dataclass(frozen=True)
class Place:
    x: int
    y: int
    row: list[float]


def assert_plane_is_right(model: LoadedModel, place: Place, found: Plane) -> None:
    """Compare each cell in its middle and just below its upper ends with `predict`."""
    assert found.indices.shape == (len(found.y_cuts) + 1, len(found.x_cuts) + 1)
    assert np.all(np.diff(found.x_cuts) > 0)
    assert np.all(np.diff(found.y_cuts) > 0)
    sides = []
    for feature, cuts in ((place.x, found.x_cuts.astype(np.float64)), (place.y, found.y_cuts.astype(np.float64))):
        if model.features[feature].choices:
            sides.append([np.arange(len(model.features[feature].choices), dtype=np.float64)])
            continue
        low = np.concatenate([[cuts[0] - 1 if len(cuts) else 0.0], cuts])
        high = np.concatenate([cuts, [low[-1] + 1]])
        first_inside = np.nextafter(low.astype(np.float32), np.float32(np.inf)).astype(np.float64)
        middle = (low + high) / 2  # of neighboring floats, it may round to the lower one
        sides.append([np.where(middle.astype(np.float32) > low, middle, high), high, first_inside])
    for x_values in sides[0]:
        for y_values in sides[1]:
            rows = np.tile(place.row, (found.indices.size, 1))
            rows[:, place.x] = np.tile(x_values, len(y_values))
            rows[:, place.y] = np.repeat(y_values, len(x_values))
            batch = model.predict_batch(rows)
            assert np.array_equal(batch.indices.reshape(found.indices.shape), found.indices)
            answers = batch.values if model.quantity else batch.outputs.max(axis=1)
            assert np.array_equal(answers.reshape(found.indices.shape), found.answers)


def assert_planes_are_equal(found: Plane, whole: Plane) -> None:
    """Compare the answers in all cells of a plane with those of one that has fewer cuts."""
    across, up = (
        np.searchsorted(fewer, np.append(cuts, np.inf))
        for fewer, cuts in ((found.x_cuts, whole.x_cuts), (found.y_cuts, whole.y_cuts))
    )
    assert np.array_equal(found.indices[np.ix_(up, across)], whole.indices)
    assert np.array_equal(found.answers[np.ix_(up, across)], whole.answers)


@pytest.mark.parametrize(("x", "y"), [(0, 1), (1, 0), (2, 3), (3, 0)])
def test_the_plane_of_two_features_is_right_in_every_cell(model: LoadedModel, x: int, y: int) -> None:
    found = plane(model, SAMPLE, x=x, y=y)

    assert found.exact
    assert len(found.x_cuts) == model.cuts.sizes[x]
    assert_plane_is_right(model, Place(x, y, SAMPLE), found)


def test_the_plane_of_a_wide_forest_is_right_in_every_cell(wine: LoadedModel) -> None:
    row = load_wine().data[40].tolist()

    found = plane(wine, row, x=6, y=12)

    assert found.exact
    assert_plane_is_right(wine, Place(6, 12, row), found)


def test_a_plane_of_too_many_cells_has_only_the_cuts_that_trees_meet_with_the_other_values(digits: LoadedModel) -> None:
    for row in load_digits().data[:5].tolist():
        whole = plane(digits, row, x=26, y=42)

        found = plane(digits, row, x=26, y=42, max_rows=whole.indices.size - 1)

        assert found.exact
        assert found.indices.size < whole.indices.size
        assert_planes_are_equal(found, whole)


def test_the_plane_of_a_feature_that_no_tree_uses_has_one_column(digits: LoadedModel) -> None:
    row = load_digits().data[0].tolist()
    assert digits.cuts.sizes[0] == 0

    found = plane(digits, row, x=0, y=20)

    assert found.indices.shape == (digits.cuts.sizes[20] + 1, 1)
    assert found.exact


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words and numbers", "gaps in words and numbers", "many columns"])
@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("quantity", [False, True], ids=["classes", "quantity"])
def test_the_plane_of_words_and_gaps_is_right_in_every_cell(kind: str, evaluator: str, *, quantity: bool) -> None:
    found = oracle(kind, 0, "random-forest", quantity=quantity)
    model = found.model(evaluator)

    for cells in found.questions(np.random.default_rng(0), 3).tolist():
        row = model.validator.row(sample_of(cells))
        for x, y in [(0, 1), (1, 0), (1, 2), (2, 0), (-1, 1), (-1, -2)]:
            place = Place(x % len(row), y % len(row), row)
            one = plane(model, row, x=place.x, y=place.y)
            assert one.exact
            assert_plane_is_right(model, place, one)
            fewer = plane(model, row, x=place.x, y=place.y, max_rows=one.indices.size - 1)
            if fewer.exact:
                assert_planes_are_equal(fewer, one)


def test_a_category_of_many_choices_leaves_fewer_cells_to_the_other_side() -> None:
    rng = np.random.default_rng(0)
    columns = [words(rng, 400, list(map(str, range(254)))), numbers(rng, 400, distinct=400)]
    found = oracle_of(columns, rng.normal(size=400), recipe=Recipe(n_estimators=20))
    model = found.model()
    assert model.cuts.sizes[1] > 100

    one = plane(model, model.validator.row(["7", 5.0]), x=0, y=1)

    assert one.indices.shape == (64, 254)
    assert not one.exact


@pytest.mark.parametrize("max_rows", [4, 50, 100])
def test_a_plane_with_cuts_left_out_says_so_and_is_right_where_it_looked(
    built_in_model: LoadedModel, max_rows: int
) -> None:
    found = plane(built_in_model, SAMPLE, x=2, y=3, max_rows=max_rows)

    assert not found.exact
    assert 1 < found.indices.size <= max_rows
    assert set(found.x_cuts.tolist()) <= set(built_in_model.cuts.values[2].tolist())
    ends = [np.append(cuts, 9.0).astype(np.float64) for cuts in (found.x_cuts, found.y_cuts)]
    for (down, across), index in np.ndenumerate(found.indices):
        assert built_in_model.predict([*SAMPLE[:2], float(ends[0][across]), float(ends[1][down])]).index == index


def test_predict_says_what_would_change_the_answer(built_in_model: LoadedModel) -> None:
    lines = list(reports.explanation_lines(explain(built_in_model, SAMPLE), built_in_model.card))

    assert lines[0] == "stays versicolor, when one feature changes alone, for"
    assert lines[4].strip() == "petal width up to 1.75 cm"
    assert lines[-1] == "becomes virginica when petal width rises above 1.75 cm"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ([6.1, 3.0, 4.9, 1.8], "versicolor when petal width falls below 1.7 cm"),
        ([6.0, 2.7, 5.1, 1.6], "virginica when petal width rises to 1.7 cm or more"),
        ([6.7, 2.5, 5.8, 1.8], "versicolor when petal width falls to 1.65 cm or below"),
        ([5.6, 2.7, 4.2, 1.3], "virginica when petal width rises above 1.75 cm"),
    ],
)
def test_an_edge_is_told_by_its_shorter_number(built_in_model: LoadedModel, row: list[float], told: str) -> None:
    nearest = explain(built_in_model, row).nearest
    assert nearest is not None
    feature = next(feature for feature in built_in_model.features if feature.key == nearest.feature)

    assert reports.change_line(nearest, feature) == f"becomes {told}"


@pytest.mark.parametrize(
    ("direction", "told"),
    [("rises above", "rises above 2 cm"), ("rises to", "rises to 2 cm or more"), ("falls to", "falls to 2 cm or below"),
     ("falls below", "falls below 2 cm")],
)  # fmt: skip
def test_a_change_is_told_in_each_direction(model: LoadedModel, direction: Direction, told: str) -> None:
    change = Change("petal_width", direction, 2.0, 2.1, "other")

    assert reports.change_line(change, model.features[3]) == f"becomes other when petal width {told}"


def test_the_evaluators_give_the_same_explanations(trained: Trained, model_path: Path, model: LoadedModel) -> None:
    compiled = load_model(model_path, max_cells=0)
    walk = load_model(model_path, max_cells=0, compiles=False)

    for row in trained.split.test_rows.tolist():
        expected = explain(model, row)
        assert explain(compiled, row) == expected == explain(walk, row)
