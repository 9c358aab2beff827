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
from starlette.testclient import TestClient

import ml
from ml.errors import ForestError
from ml.model.loaded import LoadedModel
from tests.passengers import (
    LABELS,
    TABLE,
    TEST,
    TRAIN,
    around_thresholds,
    by_column,
    filled,
    forest,
    one_hot,
    questions,
)
from web.app import create_app
from web.settings import Settings

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


def asked_of(model: LoadedModel, test: Any, n_rows: int) -> tuple[list[Any], Any]:
    """Return samples, also as a table: a third test rows, a third on thresholds or beside them, a third anywhere."""
    if hasattr(test, "columns"):
        return questions(model, n_rows)
    rng, kinds = np.random.default_rng(0), np.arange(n_rows) % 3
    table = test[rng.integers(0, len(test), n_rows)]
    for place, column in enumerate(test.T):
        present = column[~np.isnan(column)]
        edges = np.append(around_thresholds(model, place), present)
        table[:, place] = np.where(kinds == 1, rng.choice(edges, n_rows), table[:, place])
        anywhere = rng.uniform(present.min() - np.ptp(present), present.max() + np.ptp(present), n_rows)
        table[:, place] = np.where(kinds == 2, anywhere, table[:, place])
        if model.features[place].has_gaps:
            table[rng.random(n_rows) < 0.05, place] = np.nan
    return [[None if np.isnan(value) else value for value in row] for row in table.tolist()], table


def outputs_of(estimator: Any, table: Any) -> Any:
    return estimator.predict_proba(table) if hasattr(estimator, "predict_proba") else estimator.predict(table)[:, None]


def assert_as_promised(model: LoadedModel, found: Any, estimator: Any, table: Any, *, alone: Any) -> None:
    """Compare answers with the library's batch, and those to the first rows with its answers to one row each."""
    kind = np.float32 if np.asarray(alone).dtype == np.float32 else np.float64
    ulps = {"bits": 0, "scores": 4, "linear": 4}[model.card.promise]
    np.testing.assert_array_max_ulp(np.asarray(found[: len(alone)], dtype=kind), alone, maxulp=ulps)
    if model.card.promise != "linear":
        expected = outputs_of(estimator, table)
        np.testing.assert_array_max_ulp(np.asarray(found, dtype=kind), expected.astype(kind), maxulp=ulps)
    else:
        # The library's product of many rows is another one than that of each.
        np.testing.assert_allclose(found, outputs_of(estimator, table), rtol=1e-10, atol=1e-13)


def alone_of(estimator: Any, table: Any, n_rows: int) -> Any:
    """Return the library's answers to the first rows, each asked alone."""
    rows = table.iloc if hasattr(table, "iloc") else table
    return np.concatenate([outputs_of(estimator, rows[at : at + 1]) for at in range(n_rows)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:lbfgs failed", "ignore:Found unknown categories")
def test_an_estimator_of_a_notebook_answers_as_in_its_library(tmp_path: Path, name: str) -> None:
    estimator, model, test = exported(*ESTIMATORS[name], tmp_path)
    samples, table = asked_of(model, test, 1_000)
    rows = [model.validator.row(sample) for sample in samples]

    batch = model.predict_batch(np.array(rows))
    one_by_one = [model.predict(row) for row in rows]

    assert_as_promised(model, batch.outputs, estimator, table, alone=alone_of(estimator, table, 5))
    assert np.array_equal([one.probabilities or (one.value,) for one in one_by_one], batch.outputs)
    if model.labels:
        labels = estimator.predict(table).astype(str).tolist()
        assert [model.labels[index] for index in batch.indices] == [one.label for one in one_by_one] == labels


@pytest.mark.long
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:lbfgs failed", "ignore:Found unknown categories")
def test_an_estimator_of_a_notebook_answers_10_000_rows_on_every_channel(tmp_path: Path, name: str) -> None:
    estimator, model, test = exported(*ESTIMATORS[name], tmp_path)
    samples, table = asked_of(model, test, 10_000)
    parts = [samples[start : start + 1_000] for start in range(0, len(samples), 1_000)]
    alone = alone_of(estimator, table, 100)
    answers: dict[str, list[Any]] = {"json": [], "stream": [], "stream, one by one": []}

    with TestClient(create_app(Settings(model_file=tmp_path / "m.npz"))) as client:
        for part in parts:
            answers["json"] += client.post("/predict", json={"samples": part}).json()["predictions"]
        with client.websocket_connect("/stream") as stream:
            stream.receive_json()
            for part in parts:
                stream.send_json({"samples": part})
                found = stream.receive_json()
                columns = found["probabilities"].values() if model.labels else [found["values"]]
                answers["stream"] += zip(*columns, strict=True)
            for sample in samples:
                stream.send_json({"sample": sample})
                answers["stream, one by one"].append(stream.receive_json())

    for channel in ("json", "stream, one by one"):
        values = [[*one["probabilities"].values()] if model.labels else [one["value"]] for one in answers[channel]]
        assert_as_promised(model, values, estimator, table, alone=alone)
    assert_as_promised(model, answers["stream"], estimator, table, alone=alone)
    if model.labels:
        assert [one["label"] for one in answers["json"]] == estimator.predict(table).astype(str).tolist()


@pytest.mark.parametrize("name", REFUSED)
def test_an_estimator_that_is_not_taken_is_named_with_all_that_would_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(ForestError, match=f"{name} .*would work: random forests.*LogisticRegression.*LightGBM"):
        exported(*REFUSED[name], tmp_path)


def test_the_list_is_as_long_as_promised() -> None:
    assert len(ESTIMATORS) >= 40
