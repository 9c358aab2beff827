"""The estimators that lie in notebooks: each is exported, and its file answers as the library does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ml
from ml.errors import ForestError
from tests.passengers import LABELS, TABLE, TEST, TRAIN, by_column, filled, forest, one_hot

TWO, THREE, QUANTITY = load_breast_cancer, load_wine, load_diabetes
WORDS = "passengers"


def installed(package: str, kind: str, **parameters: Any) -> Any:
    """Return an estimator of a library that only the benchmarks' environments have."""
    try:
        return getattr(importlib.import_module(package), kind)(**parameters)
    except ImportError:
        pytest.skip(f"{package} is not installed")


def search(estimator: Any, **choices: Any) -> Any:
    return GridSearchCV(estimator, choices, cv=2)


def logistic(**parameters: Any) -> Any:
    return linear_model.LogisticRegression(max_iter=200, **parameters)


def boosted(package: str, kind: str) -> Callable[[], Any]:
    parameters = {"iterations": 8, "verbose": False} if package == "catboost" else {"n_estimators": 8}
    return lambda: installed(package, kind, **parameters)


ESTIMATORS: dict[str, tuple[Callable[[], Any], Any]] = {
    "RandomForestClassifier": (lambda: ensemble.RandomForestClassifier(8), TWO),
    "RandomForestRegressor": (lambda: ensemble.RandomForestRegressor(8), QUANTITY),
    "RandomForestClassifier with gaps": (lambda: ensemble.RandomForestClassifier(8), "gaps"),
    "ExtraTreesClassifier": (lambda: ensemble.ExtraTreesClassifier(8), THREE),
    "ExtraTreesRegressor": (lambda: ensemble.ExtraTreesRegressor(8), QUANTITY),
    "DecisionTreeClassifier": (tree.DecisionTreeClassifier, THREE),
    "DecisionTreeRegressor": (lambda: tree.DecisionTreeRegressor(max_depth=3), QUANTITY),
    "ExtraTreeClassifier": (tree.ExtraTreeClassifier, TWO),
    "GradientBoosting, two classes": (lambda: ensemble.GradientBoostingClassifier(n_estimators=8), TWO),
    "GradientBoosting, three classes": (lambda: ensemble.GradientBoostingClassifier(n_estimators=8), THREE),
    "GradientBoosting, a quantity": (lambda: ensemble.GradientBoostingRegressor(n_estimators=8), QUANTITY),
    "HistGradientBoosting, two classes": (lambda: ensemble.HistGradientBoostingClassifier(max_iter=8), TWO),
    "HistGradientBoosting, three classes": (lambda: ensemble.HistGradientBoostingClassifier(max_iter=8), THREE),
    "HistGradientBoosting, a quantity": (lambda: ensemble.HistGradientBoostingRegressor(max_iter=8), QUANTITY),
    "HistGradientBoosting with gaps": (lambda: ensemble.HistGradientBoostingClassifier(max_iter=8), "gaps"),
    "AdaBoost": (lambda: ensemble.AdaBoostClassifier(n_estimators=8), TWO),
    "AdaBoost, a quantity": (lambda: ensemble.AdaBoostRegressor(n_estimators=8), QUANTITY),
    "VotingClassifier": (
        lambda: ensemble.VotingClassifier(
            [("a", ensemble.RandomForestClassifier(8, random_state=0)), ("b", ensemble.GradientBoostingClassifier())],
            voting="soft",
        ), THREE
    ),
    "VotingRegressor": (
        lambda: ensemble.VotingRegressor([("a", tree.DecisionTreeRegressor()), ("b", ensemble.ExtraTreesRegressor(8))]),
        QUANTITY,
    ),
    "a forest, calibrated": (
        lambda: CalibratedClassifierCV(ensemble.RandomForestClassifier(8), method="isotonic", cv=3), THREE
    ),
    "Bagging": (lambda: ensemble.BaggingClassifier(n_estimators=8), THREE),
    "Bagging, a quantity": (lambda: ensemble.BaggingRegressor(n_estimators=8), QUANTITY),
    "XGBClassifier": (boosted("xgboost", "XGBClassifier"), TWO),
    "XGBClassifier, three classes": (boosted("xgboost", "XGBClassifier"), THREE),
    "XGBRegressor": (boosted("xgboost", "XGBRegressor"), QUANTITY),
    "LGBMClassifier": (boosted("lightgbm", "LGBMClassifier"), TWO),
    "LGBMClassifier, three classes": (boosted("lightgbm", "LGBMClassifier"), THREE),
    "LGBMRegressor": (boosted("lightgbm", "LGBMRegressor"), QUANTITY),
    "CatBoostClassifier": (boosted("catboost", "CatBoostClassifier"), TWO),
    "CatBoostRegressor": (boosted("catboost", "CatBoostRegressor"), QUANTITY),
    "LogisticRegression, two classes": (lambda: logistic(solver="liblinear"), TWO),
    "LogisticRegression, three classes": (lambda: logistic(solver="newton-cholesky"), THREE),
    "LinearSVC, calibrated": (lambda: CalibratedClassifierCV(svm.LinearSVC(dual=False), cv=3), TWO),
    "LinearSVC, calibrated by steps": (
        lambda: make_pipeline(
            StandardScaler(), CalibratedClassifierCV(svm.LinearSVC(dual=False), method="isotonic", cv=3)
        ), TWO,
    ),
    "Ridge": (linear_model.Ridge, QUANTITY),
    "Lasso": (linear_model.Lasso, QUANTITY),
    "ElasticNet": (lambda: linear_model.ElasticNet(0.01), QUANTITY),
    "LinearRegression": (linear_model.LinearRegression, QUANTITY),
    "GaussianNB": (naive_bayes.GaussianNB, THREE),
    "GridSearchCV": (lambda: search(forest(), max_depth=[2, 4]), THREE),
    "RandomizedSearchCV": (lambda: RandomizedSearchCV(forest(), {"max_depth": [2, 4]}, n_iter=1, cv=2), THREE),
    "scaler, words and forest": (
        lambda: make_pipeline(by_column(filled(StandardScaler(), add_indicator=True), one_hot()), forest()), WORDS
    ),
    "scaler and a forest in a search": (
        lambda: search(make_pipeline(StandardScaler(), forest()), randomforestclassifier__max_depth=[2, 4]), TWO
    ),
    "scaler and LogisticRegression": (lambda: make_pipeline(StandardScaler(), logistic()), THREE),
    "words and LogisticRegression": (
        lambda: make_pipeline(by_column(filled(StandardScaler()), one_hot()), logistic()), WORDS
    ),
    "FixedThresholdClassifier": (lambda: FixedThresholdClassifier(forest(), threshold=0.3), TWO),
    "TunedThresholdClassifierCV": (lambda: TunedThresholdClassifierCV(forest(), cv=2), TWO),
}  # fmt: skip
REFUSED: dict[str, tuple[Callable[[], Any], Any]] = {
    "SVC": (svm.SVC, TWO),
    "KNeighborsClassifier": (neighbors.KNeighborsClassifier, TWO),
    "MLPClassifier": (lambda: neural_network.MLPClassifier((2,), solver="lbfgs", max_iter=2_000), TWO),
}


def tables(kind: Any) -> tuple[Any, Any, Any, Any]:
    """Return training and test rows, and their outcomes."""
    if kind == WORDS:
        return TABLE[TRAIN], TABLE[TEST], LABELS[TRAIN], LABELS[TEST]
    data = THREE() if kind == "gaps" else kind()
    rows = data.data.copy()
    if kind == "gaps":
        rows[np.random.default_rng(0).random(rows.shape) < 0.1] = np.nan
    parts: Any = train_test_split(rows, data.target, random_state=0)
    return parts[0], parts[1], parts[2], parts[3]


def exported(make: Callable[[], Any], kind: Any, path: Path) -> tuple[Any, Any, Any]:
    train, test, train_outcomes, test_outcomes = tables(kind)
    estimator = make()
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=0)
    estimator.fit(train, train_outcomes)
    names = None if kind == WORDS else [f"x{number}" for number in range(train.shape[1])]
    model = ml.export(estimator, test, test_outcomes, feature_names=names, path=path / "m.npz", insist=True)
    return estimator, model, test


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:lbfgs failed")
def test_an_estimator_of_a_notebook_is_exported(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    estimator, model, test = exported(*ESTIMATORS[name], tmp_path)

    samples = test.astype(object).where(test.notna(), None).to_numpy() if hasattr(test, "columns") else test
    asked = [dict(zip(getattr(test, "columns", ()), row, strict=False)) or row.tolist() for row in samples]
    keys = {feature.header: feature.key for feature in model.features}
    rows = [
        model.validator.row({keys[k]: v for k, v in row.items() if k in keys} if isinstance(row, dict) else row)
        for row in asked
    ]
    answers = model.predict_batch(np.array(rows))
    expected = estimator.predict_proba(test) if model.labels else estimator.predict(test)[:, None]
    exact = model.card.promise == "bits"
    np.testing.assert_array_max_ulp(answers.outputs, expected.astype(np.float64), maxulp=0 if exact else 1_024)
    if model.labels:
        assert [model.labels[index] for index in answers.indices] == estimator.predict(test).astype(str).tolist()


@pytest.mark.parametrize("name", REFUSED)
def test_an_estimator_that_is_not_taken_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ForestError, match=f"{name} .*would work"):
        exported(*REFUSED[name], tmp_path)


def test_the_list_is_as_long_as_promised() -> None:
    assert len(ESTIMATORS) >= 40
