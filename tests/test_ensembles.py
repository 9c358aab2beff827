"""Ensembles that add up their trees: the library's own answers, to the last bit, on thresholds and off them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from ml.errors import ForestError
from ml.estimators.trees import forest_from
from ml.model.cuts import Cuts
from ml.model.evaluators import Evaluator, compile_forest
from ml.model.forest import Forest
from ml.model.labelling import Labelling
from ml.model.total import Curve, Member, Total
from ml.tables.dataset import Feature
from ml.training.measuring import answers_of
from ml.training.writing import outputs_of
from tests.conftest import for_each

ROWS = 10_000
# The library answers one row in milliseconds.
ONE_BY_ONE = 60
N_FEATURES = 6
CHOICES = {0: 12, 3: 40}


@dataclass(frozen=True)
class Family:
    """An estimator that is not fitted, how many classes it learns (0: a quantity), and what its table holds."""

    estimator: Any
    n_classes: int
    has_gaps: bool = False
    has_categories: bool = False

    @property
    def features(self) -> list[Feature]:
        categories = CHOICES if self.has_categories else {}
        return [
            Feature(
                key=f"f{place}", title="", has_gaps=self.has_gaps,
                choices=tuple(map(str, range(categories.get(place, 0)))),
            )
            for place in range(N_FEATURES)
        ]  # fmt: skip


def histogram(n_classes: int, **more: Any) -> Family:
    return Family(
        HistGradientBoostingClassifier(max_iter=20, random_state=0, **more), n_classes, has_gaps=True,
        has_categories="categorical_features" in more,
    )  # fmt: skip


CATEGORIES = list(CHOICES)
FAMILIES = {
    "gradient boosting, 2 classes": Family(GradientBoostingClassifier(n_estimators=60, random_state=0), 2),
    "gradient boosting, exponential loss": Family(
        GradientBoostingClassifier(n_estimators=40, loss="exponential", random_state=0), 2
    ),
    "gradient boosting, 3 classes": Family(GradientBoostingClassifier(n_estimators=30, random_state=0), 3),
    "gradient boosting, 10 classes from zero": Family(
        GradientBoostingClassifier(n_estimators=10, init="zero", subsample=0.7, random_state=0), 10
    ),
    "gradient boosting, a quantity": Family(GradientBoostingRegressor(n_estimators=60, random_state=0), 0),
    "gradient boosting, a quantile": Family(
        GradientBoostingRegressor(n_estimators=20, loss="quantile", random_state=0), 0
    ),
    "histogram, 2 classes": histogram(2),
    "histogram, 3 classes": histogram(3),
    "histogram, 10 classes": histogram(10),
    "histogram, 2 classes and categories": histogram(2, categorical_features=CATEGORIES),
    "histogram, 4 classes and categories": histogram(4, categorical_features=CATEGORIES, class_weight="balanced"),
    "histogram, a quantity": Family(
        HistGradientBoostingRegressor(max_iter=30, categorical_features=CATEGORIES), 0, has_gaps=True,
        has_categories=True,
    ),
    "histogram, a count": Family(HistGradientBoostingRegressor(max_iter=30, loss="poisson"), 0, has_gaps=True),
    "AdaBoost, 2 classes": Family(AdaBoostClassifier(n_estimators=40, random_state=0), 2),
    "AdaBoost, 3 classes": Family(
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=30, random_state=0), 3
    ),
    "AdaBoost, 10 classes": Family(
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=4), n_estimators=30, random_state=0), 10
    ),
    "Bagging of some features and rows": Family(
        BaggingClassifier(n_estimators=20, max_features=0.5, max_samples=40, random_state=0), 10
    ),
    "AdaBoost, a quantity": Family(AdaBoostRegressor(n_estimators=20, random_state=0), 0),
    "a vote of forest and boosting, 3 classes": Family(
        VotingClassifier(
            [
                ("forest", RandomForestClassifier(9, max_depth=6, random_state=0)),
                ("boosting", GradientBoostingClassifier(n_estimators=9, random_state=0)),
                ("histogram", HistGradientBoostingClassifier(max_iter=9)), ("none", "drop"),
            ],
            voting="soft", weights=[2, 1, 0.5, 9],
        ), 3
    ),
    "a vote of regressors": Family(
        VotingRegressor(
            [
                ("forest", RandomForestRegressor(9, max_depth=6, random_state=0)),
                ("boosting", GradientBoostingRegressor(n_estimators=9, random_state=0)),
            ]
        ), 0
    ),
    "a calibrated forest, 2 classes": Family(
        CalibratedClassifierCV(RandomForestClassifier(9, max_depth=6, random_state=0), method="isotonic", cv=3), 2
    ),
    "a calibrated forest, 10 classes": Family(
        CalibratedClassifierCV(RandomForestClassifier(9, max_depth=6, random_state=0), method="isotonic", cv=2), 10
    ),
    "calibrated boosting, 3 classes": Family(
        CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=9, random_state=0), cv=2), 3
    ),
    "Bagging, a quantity": Family(BaggingRegressor(n_estimators=20, max_features=0.5, random_state=0), 0),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    family: Family
    estimator: Any
    forest: Forest
    rows: NDArray[np.float64]


@cache
def case_of(name: str) -> Case:
    """Return a fitted family, its forest, and rows of which a third lies on thresholds or beside them."""
    family, rng = FAMILIES[name], np.random.default_rng(len(name))
    rows = table_rows(family, 800, rng)
    filled = np.nan_to_num(rows, nan=-1.0)
    score = filled[:, 1] + (filled[:, 0] % 3) + filled[:, 2] * filled[:, 4] - (filled[:, 3] % 5 < 2)
    outcomes = np.exp(score / 4)
    if family.n_classes:
        outcomes = np.searchsorted(np.quantile(score, np.linspace(0, 1, family.n_classes + 1)[1:-1]), score)
    estimator = family.estimator.fit(rows, outcomes)
    forest = forest_from(estimator)
    asked = np.concatenate(
        [on_thresholds(family, forest, ROWS // 3, rng), rows, table_rows(family, ROWS - ROWS // 3 - len(rows), rng)]
    )
    return Case(family, estimator, forest, asked)


def table_rows(family: Family, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    rows = rng.normal(size=(n, N_FEATURES)).round(3)
    for place, feature in enumerate(family.features):
        if feature.choices:
            # The last two are in no training row of most seeds, and -1 is a word that is not among the choices.
            rows[:, place] = rng.integers(-1 if n != 800 else 0, len(feature.choices) - (2 if n == 800 else 0), n)
    if family.has_gaps:
        rows[rng.random(rows.shape) < 0.08] = np.nan
    return rows


def on_thresholds(family: Family, forest: Forest, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    rows = table_rows(family, n, rng)
    for place, feature in enumerate(family.features):
        thresholds = forest.threshold[(forest.feature == place) & np.isfinite(forest.threshold)]
        if feature.choices or not len(thresholds):
            continue
        single = thresholds.astype(np.float32)
        beside = [thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf), single,
                  np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))]  # fmt: skip
        own = rng.choice(np.concatenate(beside), n)
        rows[:, place] = np.where(np.isnan(rows[:, place]), np.nan, own)
    return rows


def evaluators_of(case: Case) -> dict[str, Evaluator]:
    cuts = Cuts(case.forest, case.family.features)
    labels = [*map(str, getattr(case.estimator, "classes_", ()))]
    return {
        "compiled": compile_forest(case.forest, cuts, labels=labels, max_cells=0),
        "NumPy": compile_forest(case.forest, cuts, labels=labels, max_cells=0, compiles=False),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_many_rows_have_the_librarys_answers_and_labels(name: str) -> None:
    case = case_of(name)
    labelling = Labelling(tuple(map(str, range(case.family.n_classes))))
    expected, labels = outputs_of(case.estimator, case.rows), answers_of(case.estimator, case.rows, labelling)

    for kind, evaluator in evaluators_of(case).items():
        batch = evaluator.predict_batch(case.rows.astype(case.forest.dtype))

        assert np.array_equal(batch.outputs, expected), kind
        assert not case.family.n_classes or np.array_equal(batch.indices, labels), kind


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_single_rows_have_the_librarys_answers_and_those_of_the_batch(name: str) -> None:
    case = case_of(name)
    batch = evaluators_of(case)["compiled"].predict_batch(case.rows.astype(case.forest.dtype))

    for kind, evaluator in evaluators_of(case).items():
        for number in range(0, ROWS, ROWS // ONE_BY_ONE):
            row = case.rows[number : number + 1]
            method = "predict_proba" if case.family.n_classes else "predict"
            expected = tuple(np.ravel(getattr(case.estimator, method)(row)).tolist())
            answer = evaluator.predict(row[0].tolist())

            assert (answer.probabilities or (answer.value,)) == expected == tuple(batch.outputs[number].tolist()), kind
            assert not case.family.n_classes or answer.label == str(case.estimator.predict(row)[0]), kind


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith(("gradient boosting", "histogram"))])
def test_the_sums_are_the_librarys_scores(name: str) -> None:
    case = case_of(name)
    rows = case.rows[::5]

    sums = evaluators_of(case)["compiled"].sums(rows.astype(case.forest.dtype))

    raw = case.estimator._raw_predict(rows if "histogram" in name else rows.astype(np.float32))

    assert np.array_equal(sums, raw)


@pytest.mark.parametrize(
    ("estimator", "has_categories"),
    [
        (GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0), False),
        (HistGradientBoostingClassifier(max_iter=4, max_leaf_nodes=6, categorical_features=[0]), True),
        (HistGradientBoostingRegressor(max_iter=4, max_leaf_nodes=6, categorical_features=[0]), True),
        (AdaBoostClassifier(n_estimators=10, random_state=0), False),
    ],
    ids=str,
)
def test_a_table_of_cells_gives_the_bits_that_the_trees_give(estimator: Any, has_categories: bool) -> None:
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.integers(0, 6, 400), rng.normal(size=400)]).astype(np.float64)
    outcomes = (rows[:, 0] % 3 + (rows[:, 1] > 0)).astype(np.int64)
    if has_categories:
        rows[rng.random(rows.shape) < 0.1] = np.nan
    estimator.fit(rows, outcomes)
    features = [
        Feature(key="a", title="", choices=tuple("abcdefg") if has_categories else (), has_gaps=has_categories),
        Feature(key="b", title="", has_gaps=has_categories),
    ]
    forest = forest_from(estimator)
    if has_categories:
        rows[::7, 0] = 6.0  # a choice that is in no training row
        rows[::11, 0] = -1.0
    labels = [*map(str, getattr(estimator, "classes_", ()))]

    table = compile_forest(forest, Cuts(forest, features), labels=labels, max_cells=10**6)
    batch = table.predict_batch(rows.astype(forest.dtype))

    assert hasattr(table, "_table")
    assert np.array_equal(batch.outputs, outputs_of(estimator, rows))
    assert [one.probabilities or (one.value,) for one in map(table.predict, rows.tolist())] == [
        *map(tuple, batch.outputs.tolist())
    ]


def test_what_is_no_sum_of_leaves_is_refused_with_its_reason() -> None:
    rows = np.arange(40.0).reshape(-1, 1)

    words = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0])
    with pytest.raises(ForestError, match="not the positions of at most 254 choices"):
        forest_from(words.fit(rows + 0.5, rows[:, 0] > 20))


def test_quantities_whose_sum_is_too_large_for_a_float32_and_whose_mean_is_not_are_served() -> None:
    rows = np.arange(40.0).reshape(-1, 1)

    forest = forest_from(RandomForestRegressor(100, random_state=0).fit(rows, 1e37 * (rows[:, 0] % 30)))

    forest.check(is_quantity=True)


@for_each(
    "total",
    [
        Total(link="vote"), Total(link="median"), Total(members=(Member(n_sums=2),)), Total(weights=(1.0, 1.0)),
        Total(link="vote", members=(Member(n_sums=1),)), Total(link="vote", members=(Member(n_sums=3),) * 2),
        Total(link="vote", members=(Member(n_sums=1), Member(n_sums=1, link="expit"))),
        Total(link="vote", members=(Member(n_sums=1, divisor=0.0), Member(n_sums=1))),
        Total(link="vote", members=(Member(n_sums=1, weight=0.0),) * 2),
        Total(link="vote", members=(Member(n_sums=1, link="exp"), Member(n_sums=1))),
        Total(link="vote", members=(Member(n_sums=1, link="vote"), Member(n_sums=1))),
        Total(link="vote", members=(Member(n_sums=1, curves=(Curve(scores=(1.0,)),)),) * 2),
        Total(link="median", weights=(1.0,)), Total(link="median", weights=(1.0, -1.0)),
        Total(link="median", weights=(0.0, 0.0)),
    ],
)  # fmt: skip
def test_a_vote_and_a_median_that_cannot_be_are_refused(total: Total) -> None:
    forest = case_of("a vote of regressors").forest

    with pytest.raises(ForestError, match=r"sums do not fit the link|one finite number|one number"):
        replace(forest, total=total).check(is_quantity=True)


def test_members_that_are_no_models_of_trees_are_named_with_what_would_work() -> None:
    rows = np.arange(40.0).reshape(-1, 1)
    members = [("trees", DecisionTreeClassifier()), ("pipe", make_pipeline(StandardScaler(), DecisionTreeClassifier()))]
    vote = VotingClassifier(members, voting="soft").fit(rows, rows[:, 0] > 20)

    with pytest.raises(ForestError, match=r"holds 'pipe', a Pipeline.*put its steps before the VotingClassifier"):
        forest_from(vote)
