"""Linear models and naive Bayes: the library's answers, their files, and where their answers change."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from starlette.testclient import TestClient

import ml
from ml.errors import ForestError, MLError, ModelFileError
from ml.model import modelfile
from ml.model.design import DesignColumn, Operation
from ml.model.linear import Linear
from ml.model.loaded import LoadedModel
from ml.model.modelfile import ModelFile
from ml.model.nearest import explain, nearest_change
from ml.model.plane import plane
from ml.model.total import Curve
from ml.tables.headers import Limits
from tests.conftest import for_each, put
from tests.test_modelfile import DIGEST_BYTES
from web.app import create_app
from web.settings import Settings

Rows = NDArray[np.float64]
TABLES = {"iris": load_iris, "cancer": load_breast_cancer, "digits": load_digits}
# That a fit has not converged, or names what will be no argument, is no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::FutureWarning")
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(max_iter=50),
    "scaled logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "logistic with folds": lambda: make_pipeline(MinMaxScaler(), LogisticRegressionCV(Cs=3, cv=3)),
    "log loss": lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
    "calibrated": lambda: make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC(random_state=0), cv=3)),
    "calibrated as one": lambda: CalibratedClassifierCV(RidgeClassifier(), cv=3, ensemble=False),
    "bayes": GaussianNB,
    "scaled bayes": lambda: make_pipeline(StandardScaler(), GaussianNB()),
}  # fmt: skip
REGRESSORS: dict[str, Callable[[], Any]] = {
    "ridge": Ridge,
    "lasso": lambda: make_pipeline(StandardScaler(), Lasso()),
    "elastic net": lambda: ElasticNet(alpha=0.01),
    "least squares": lambda: make_pipeline(MinMaxScaler(), LinearRegression()),
}
ULPS = 4


def near(X: Rows, n: int = 150) -> Rows:
    """Return rows of a table, and as many that are spread around them."""
    rng = np.random.default_rng(0)
    rows = X[rng.integers(0, len(X), n)]
    return np.concatenate([rows, rows + rng.normal(size=rows.shape) * X.std(axis=0) * 2])


def export(estimator: Any, X: Any, y: Any, path: Path, **more: Any) -> LoadedModel:
    """Export a model with its training rows, and a hundred of them to test it on: the library answers these singly."""
    names = None if hasattr(X, "columns") else [f"f{number}" for number in range(X.shape[1])]
    few = slice(None, None, max(len(X) // 100, 1))
    options = {"feature_names": names, "insist": True, "X_train": X, "y_train": y, **more}
    return ml.export(estimator, X[few], y[few], path=path / "linear.npz", **options)


Exported = Callable[[str, str], tuple[Any, LoadedModel, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Returns a classifier as it was fitted on a table, its model, and the model's file: once for all cases."""

    @cache
    def made(kind: str, table: str) -> tuple[Any, LoadedModel, Path]:
        folder = tmp_path_factory.mktemp("exported")
        if table == "words":
            X, y = words()
            fitted = mixed({"logistic": LogisticRegression(), "bayes": GaussianNB(), "calibrated": FOLDS}[kind])
        else:
            X, y = TABLES[table](return_X_y=True)
            fitted = CLASSIFIERS[kind]()
        return fitted.fit(X, y), export(fitted, X, y, folder), folder / "linear.npz"

    return made


def outputs_of(model: LoadedModel, rows: Rows) -> Rows:
    return np.array([one.probabilities or (one.value,) for one in map(model.predict, rows.tolist())])


def singly(answer: Callable[[Rows], Any], rows: Rows) -> Rows:
    """Return the library's answers to one row after the other."""
    answers = np.concatenate([answer(row[None]) for row in rows])
    return answers.reshape(len(rows), -1)


# The library's answers.


# Ten calibrated models of 64 columns take half a minute, and have what those of 30 columns have.
PAIRS = [(kind, table) for kind in CLASSIFIERS for table in TABLES if (kind[:10], table) != ("calibrated", "digits")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "table"), PAIRS)
def test_probabilities_are_within_4_ulp_of_the_librarys_to_one_row(kind: str, table: str, exported: Exported) -> None:
    rows = near(TABLES[table](return_X_y=True)[0])

    estimator, model, _ = exported(kind, table)

    expected = singly(estimator.predict_proba, rows)
    found = outputs_of(model, rows)
    assert np.all(np.abs(found - expected) <= ULPS * np.spacing(np.maximum(found, expected)))
    assert model.card.promise == "linear"
    batch = model.predict_batch(rows)
    assert np.array_equal(batch.outputs, found), "a batch has the bits of its rows"
    assert [one.probabilities for one in model.predict_each(rows)] == [tuple(row) for row in found.tolist()]
    labels = singly(estimator.predict, rows)[:, 0]
    assert [model.labels[index] for index in batch.indices] == [str(label) for label in labels]
    assert [model.predict(row).label for row in rows[:50].tolist()] == [str(label) for label in labels[:50]]


@pytest.mark.slow
def test_a_linear_model_may_have_hundreds_of_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 500))
    y = X[:, :5].sum(axis=1) > 0
    estimator = LogisticRegression().fit(X, y)

    model = export(estimator, X, y, tmp_path)

    found, expected = outputs_of(model, X), singly(estimator.predict_proba, X)
    assert np.all(np.abs(found - expected) <= ULPS * np.spacing(expected))


@pytest.mark.slow
@pytest.mark.parametrize("kind", REGRESSORS)
def test_quantities_are_within_4_ulp_of_the_librarys_to_one_row(kind: str, tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True, scaled=False)
    estimator, rows = REGRESSORS[kind]().fit(X, y), near(X)

    model = export(estimator, X, y, tmp_path)

    expected, found = singly(estimator.predict, rows), outputs_of(model, rows)
    assert np.all(np.abs(found - expected) <= ULPS * np.spacing(np.abs(expected)))
    assert np.array_equal(model.predict_batch(rows).outputs, found)
    assert model.quantity is not None


def words(n: int = 400) -> tuple[Any, NDArray[Any]]:
    """Return a table of a word that may be missing, a number that may be, and a number; and a class."""
    import pandas as pd

    rng = np.random.default_rng(3)
    colour = rng.choice(np.array(["red", "green", "blue", None], dtype=object), n)
    age, size = rng.normal(50, 10, n), rng.normal(size=n)
    y = np.where((colour == "red") * 1.0 + age / 40 + size > 1.5, "yes", "no")
    age[rng.random(n) < 0.2] = np.nan
    return pd.DataFrame({"colour": colour, "age": age, "size": size}), y


FOLDS = CalibratedClassifierCV(LinearSVC(), cv=3)


def mixed(final: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    steps = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["colour"]),
        (numbers, ["age"]),
        remainder="passthrough",
    )
    return make_pipeline(steps, final)


@pytest.mark.parametrize("table", ["iris", "cancer"])
@pytest.mark.parametrize("final", [LogisticRegression(), CalibratedClassifierCV(LinearSVC(), cv=3)], ids=str)
def test_columns_in_a_sparse_matrix_are_added_from_left_to_right_as_the_library_does(
    final: Any, table: str, tmp_path: Path
) -> None:
    X, y = TABLES[table](return_X_y=True)
    steps = make_column_transformer((KBinsDiscretizer(7), slice(1, None)), (StandardScaler(), [0]), sparse_threshold=1)
    fitted = make_pipeline(steps, final).fit(X, y)
    rows = near(X)

    model = export(fitted, X, y, tmp_path)

    found = model.predict_batch(rows).outputs
    assert isinstance(model.predictor, Linear)
    assert model.predictor.is_sparse
    # The library's batches have the bits of their rows there, and so have ours; calibration has exp() behind them.
    assert model.scores is not None
    sums = [fitted.decision_function(rows)] if hasattr(fitted, "decision_function") else []
    assert all(np.array_equal(model.scores.sums(rows), one.reshape(len(rows), -1)) for one in sums)
    expected = fitted.predict_proba(rows)
    assert np.all(np.abs(found - expected) <= ULPS * np.spacing(np.maximum(found, expected)))
    assert np.array_equal(outputs_of(model, rows), found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logistic", "bayes", "calibrated"])
def test_words_gaps_and_unknown_words_are_answered_as_by_the_pipeline(kind: str, exported: Exported) -> None:
    import pandas as pd

    estimator, model, _ = exported(kind, "words")

    samples = [[c, a, s] for c in ("red", "blue", "mauve", None) for a in (None, 20.0, 77.5) for s in (-2.0, 0.25)]
    rows = [model.validator.row(sample) for sample in samples]
    found = np.array([model.predict(row).probabilities for row in rows])
    frames = [pd.DataFrame({"colour": [c], "age": [np.nan if a is None else a], "size": [s]}) for c, a, s in samples]
    expected = np.concatenate([estimator.predict_proba(frame) for frame in frames])
    assert np.all(np.abs(found - expected) <= ULPS * np.spacing(np.maximum(found, expected)))
    assert np.array_equal(model.predict_batch(np.array(rows)).outputs, found)


def test_a_threshold_decides_on_the_label_of_a_linear_model(tmp_path: Path) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    fixed = FixedThresholdClassifier(CLASSIFIERS["scaled logistic"](), threshold=0.9, pos_label=1).fit(X, y)

    model = export(fixed, X, y, tmp_path)

    assert [model.labels[index] for index in model.predict_batch(X).indices] == [str(k) for k in fixed.predict(X)]
    row = X[np.abs(fixed.predict_proba(X)[:, 1] - 0.9).argmin()]
    changed, _ = nearest_change(model, row.tolist())
    assert changed is not None
    assert changed.label != model.predict(row.tolist()).label
    assert label_with(model, row, changed.feature, changed.value) == changed.label


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (RidgeClassifier(), r"RidgeClassifier has no probabilities: fit CalibratedClassifierCV\(RidgeClassifier"),
        (LinearSVC(), "LinearSVC has no probabilities"),
        (Perceptron(), "Perceptron has no probabilities"),
        (SGDClassifier(), "SGDClassifier with loss='hinge' is not supported alone: fit it with loss='log_loss'"),
        (
            CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC()), cv=3),
            "holds 'fold 1', a Pipeline.*put its steps before the CalibratedClassifierCV, in one Pipeline with it",
        ),
        (CalibratedClassifierCV(KNeighborsClassifier(), cv=3), "a KNeighborsClassifier, which cannot be read there"),
    ],
)
def test_what_has_no_probabilities_is_refused_with_what_would_work(estimator: Any, said: str, tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)

    with pytest.raises(ForestError, match=said):
        export(estimator.fit(X, y), X, y, tmp_path)


# Where the answer changes.


def label_with(model: LoadedModel, row: Rows, feature: str, value: float) -> str:
    changed = row.copy()
    changed[[one.key for one in model.features].index(feature)] = value
    return model.predict(changed.tolist()).label


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logistic", "scaled logistic", "log loss", "calibrated", "bayes", "scaled bayes"])
@pytest.mark.parametrize("table", ["iris", "cancer"])
def test_the_nearest_change_is_the_one_that_a_search_finds(kind: str, table: str, exported: Exported) -> None:
    X, _ = TABLES[table](return_X_y=True)
    _, model, _ = exported(kind, table)

    for row in X[:: len(X) // 12]:
        found, _ = nearest_change(model, row.tolist())
        searched = searched_distance(model, row)
        assert (found is None) == (searched is None)
        if found is not None and searched is not None:
            assert (
                label_with(model, row, found.feature, found.value) == found.label != model.predict(row.tolist()).label
            )
            at = model.validator.keys.index(found.feature)
            distance = abs(found.threshold - row[at]) / model.spans[at]
            assert searched - 1 / 500 <= distance <= searched + 0.02, "a short number lies a little beyond"


def searched_distance(model: LoadedModel, row: Rows, steps: int = 1_000) -> float | None:
    """Return the distance of the nearest of many values of each feature that has another label."""
    own, least = model.predict(row.tolist()).index, np.inf
    for place, feature in enumerate(model.features):
        values = np.linspace(min(feature.low, row[place]), max(feature.high, row[place]), steps)
        rows = np.tile(row, (steps, 1))
        rows[:, place] = values
        differs = model.predict_batch(rows).indices != own
        least = min([least, *np.abs(values[differs] - row[place]) / model.spans[place]])
    return None if np.isinf(least) else float(least)


@pytest.mark.parametrize("kind", ["logistic", "bayes", pytest.param("calibrated", marks=pytest.mark.slow)])
def test_the_ranges_are_those_in_which_the_label_stays(kind: str, exported: Exported) -> None:
    X, _ = load_iris(return_X_y=True)
    _, model, _ = exported(kind, "iris")

    for row in X[::17]:
        own = model.predict(row.tolist()).label
        for feature, found in zip(model.features, explain(model, row.tolist()).ranges, strict=True):
            step = 1e-4 * (feature.high - feature.low)
            for end, outwards in ((found.low, -1), (found.high, 1)):
                if end is not None:
                    assert label_with(model, row, feature.key, end - outwards * step) == own
                    assert label_with(model, row, feature.key, end + outwards * step) != own


def test_a_quantity_reaches_a_goal_at_the_root_of_its_line(tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True, scaled=False)
    model = export(Ridge().fit(X, y), X, y, tmp_path)
    row = X[0].tolist()
    goal = model.predict(row).value + 10

    changed, _ = nearest_change(model, row, goal=goal)

    assert changed is not None
    moved = [*row]
    moved[[one.key for one in model.features].index(changed.feature)] = changed.value
    assert 0 <= model.predict(moved).value - goal < 1.5
    assert nearest_change(model, row) == (None, True)


def test_a_change_keeps_the_limits_of_its_feature(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    fitted = LogisticRegression().fit(X, y)
    row = X[0].tolist()
    free, _ = nearest_change(export(fitted, X, y, tmp_path), row)
    assert free is not None

    held = {free.feature: Limits(0.0, 100.0) if free.direction == "falls to" else Limits(0.0, free.value - 1e-3)}
    X, y = X[X[:, int(free.feature[1])] < free.value], y[X[:, int(free.feature[1])] < free.value]
    bounded, _ = nearest_change(export(fitted, X, y, tmp_path, limits=held), row)

    assert bounded is None or bounded.feature != free.feature or bounded.value <= free.value - 1e-3


@pytest.mark.slow
def test_words_change_the_answer_too(exported: Exported) -> None:
    _, model, _ = exported("logistic", "words")

    found = [nearest_change(model, model.validator.row([colour, 50.0, -0.4]))[0] for colour in ("red", "green", None)]

    assert {change.direction for change in found if change} >= {"is"} or all(found)
    for colour, change in zip(("red", "green", None), found, strict=True):
        assert change is not None
        row = np.array(model.validator.row([colour, 50.0, -0.4]))
        assert label_with(model, row, change.feature, change.value) == change.label


def test_contributions_are_coefficients_times_values_less_means(tmp_path: Path) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    model = export(estimator, X, y, tmp_path)
    assert model.scores is not None

    base, added = model.scores.contributions(X[7])

    scaled = estimator[0].transform(X)
    expected = estimator[-1].coef_[0] * (scaled[7] - scaled.mean(axis=0))
    assert added[:, 0] == pytest.approx(expected, abs=1e-9)
    assert base[0] == pytest.approx(estimator.decision_function(X).mean(), abs=1e-9)
    assert base[0] + added.sum() == pytest.approx(estimator.decision_function(X[7:8])[0], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scaled logistic", "bayes", "calibrated"])
def test_the_map_has_the_labels_of_its_rows(kind: str, exported: Exported) -> None:
    X, _ = load_iris(return_X_y=True)
    _, model, _ = exported(kind, "iris")

    found = plane(model, X[60].tolist(), x=2, y=3)

    rows = np.tile(X[60], (found.indices.size, 1))
    across, up = (model.cuts.between(feature, 0.0) for feature in (2, 3))
    rows[:, 2], rows[:, 3] = np.tile(across, len(up)), np.repeat(up, len(across))
    assert np.array_equal(model.predict_batch(rows).indices, found.indices.ravel())
    assert found.exact
    assert {*found.indices.ravel().tolist()} >= {1, 2}


# Every channel.


def served(kind: str, exported: Exported, folder: Path) -> tuple[LoadedModel, Path]:
    """Return a model and its file: of two or ten labels, or of a quantity; of words and gaps but for ten."""
    if kind == "two labels":
        return exported("logistic", "words")[1:]
    path = folder / "linear.npz"
    if kind == "ten labels":
        X, y = load_digits(return_X_y=True, as_frame=True)
        return export(make_pipeline(StandardScaler(), GaussianNB(var_smoothing=1e-2)).fit(X, y), X, y, folder), path
    X, y = words()
    quantity = 3 * X["size"] + (y == "yes")
    return export(mixed(Ridge()).fit(X, quantity), X, quantity, folder), path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two labels", "ten labels", "quantity"])
def test_every_channel_answers_with_the_models_own_bits(kind: str, exported: Exported, tmp_path: Path) -> None:
    model, path = served(kind, exported, tmp_path)
    rows = model.reference_rows[:20]
    features = model.features
    samples = [[f.shown(value) for f, value in zip(features, row, strict=True)] for row in rows.tolist()]
    expected = outputs_of(model, rows).tolist()

    with TestClient(create_app(Settings(model_file=path))) as client:
        many = client.post("/predict", json={"samples": samples}).json()["predictions"]
        single = [client.post("/predict", json={"sample": sample}).json() for sample in samples]
        with client.websocket_connect("/stream") as stream:
            stream.receive_json()
            stream.send_json({"samples": samples})
            streamed = stream.receive_json()
        for page in ("/", "/?lang=es", "/docs", "/openapi.json", "/health/drift", "/v2/models/linear", "/metrics"):
            assert client.get(page).status_code == 200, page
        for row in samples[:5]:
            query = {f.key: "NA" if value is None else value for f, value in zip(features, row, strict=True)}
            answer = client.get("/predict", params=query, headers={"HX-Request": "true"})
            assert 'data-state="answer"' in answer.text
            assert 'class="change"' in answer.text

    def answers(items: list[dict[str, Any]]) -> list[list[float]]:
        return [[*item["probabilities"].values()] if model.labels else [item["value"]] for item in items]

    assert answers(many) == answers(single) == expected
    columns = streamed["probabilities"].values() if model.labels else [streamed["values"]]
    assert [list(row) for row in zip(*columns, strict=True)] == expected


# The file.


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    X, y = load_iris(return_X_y=True)
    X_train, _, y_train, _ = train_test_split(X, y, random_state=0)
    path = tmp_path_factory.mktemp("linear")
    export(make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train), X, y, path)
    return modelfile.parse((path / "linear.npz").read_bytes())


def predictor(model: ModelFile) -> Linear:
    assert isinstance(model.predictor, Linear)
    return model.predictor


def loaded(model: ModelFile) -> LoadedModel:
    return LoadedModel(modelfile.parse(modelfile.dump(model)), "0" * 12)


def test_a_file_has_what_was_written(linear: ModelFile) -> None:
    again = modelfile.parse(modelfile.dump(linear))

    one, other = predictor(linear), predictor(again)
    assert (one.columns, one.link, one.curves) == (other.columns, other.link, other.curves)
    for name in ("coefficients", "intercept", "means", "variances"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert one.coefficients.flags.f_contiguous == other.coefficients.flags.f_contiguous
    assert modelfile.dump(again) == modelfile.dump(linear)
    assert linear.card.trees == 0


@pytest.mark.slow
def test_a_calibrated_model_refuses_to_explain_and_the_document_says_so(exported: Exported) -> None:
    X, _ = load_iris(return_X_y=True)
    _, _, path = exported("calibrated", "iris")

    with TestClient(create_app(Settings(model_file=path))) as client:
        requests: list[dict[str, object]] = [{"sample": [*X[0]]}, {"samples": []}]
        answers = [client.post("/predict", json=request | {"explain": True}) for request in requests]
        with client.websocket_connect("/stream") as stream:
            stream.receive_json()
            stream.send_json({"id": 1, "sample": [*X[0]], "explain": True})
            frame = stream.receive_json()
        described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["description"]

    assert [answer.status_code for answer in answers] == [422, 422]
    assert (frame["id"], frame["error"]["detail"]) == (1, answers[0].json()["detail"])
    assert answers[0].json()["detail"] in described


def changed(**changes: Any) -> Callable[[ModelFile], ModelFile]:
    return lambda model: replace(model, predictor=replace(predictor(model), **changes))


def column_of(**changes: Any) -> tuple[DesignColumn, ...]:
    plain = [DesignColumn(feature=place) for place in range(4)]
    return (msgspec.structs.replace(plain[0], **changes), *plain[1:])


IMPOSSIBLE = [
    (changed(coefficients=np.zeros((3, 5))), r"coefficients has shape \(3, 5\), not \(3, 4\)"),
    (changed(coefficients=np.full((3, 4), np.nan)), "coefficients has a value that is not finite"),
    (changed(coefficients=np.full((3, 4), np.inf)), "coefficients has a value that is not finite"),
    (changed(coefficients=np.zeros((0, 4)), intercept=np.zeros(0)), "0 scores with the link softmax"),
    (changed(intercept=np.zeros(2)), "intercept has shape"),
    (changed(means=np.zeros(3)), "means has shape"),
    (changed(curves=(Curve(),) * 3), "calibration does not have 0 possible curves"),
    (changed(link="calibrated", curves=(Curve(),) * 2), "calibration does not have 3 possible curves"),
    (changed(link="calibrated", curves=(Curve(scores=(1.0, 0.0), shares=(0.0, 1.0)),) * 3), "3 possible curves"),
    (changed(link="calibrated", curves=(Curve(scores=(0.0,), shares=(2.0,)),) * 3), "3 possible curves"),
    (changed(variances=np.ones((3, 4))), "variances has shape"),
    (changed(link="expit"), "3 scores with the link expit do not make 3 answers"),
    (changed(link="identity"), "do not make 3 answers"),
    (changed(link="posterior"), "variances has shape"),
    (changed(link="posterior", variances=np.zeros((3, 4))), "a variance is not positive"),
    (changed(link="posterior", variances=-np.ones((3, 4))), "a variance is not positive"),
    (changed(columns=column_of(feature=4)), "a feature that the model does not have"),
    (changed(columns=column_of(feature=-1)), "a feature that the model does not have"),
    (changed(columns=column_of(table=(0.0, 1.0))), "has not a value for each choice"),
    (changed(columns=column_of(operations=(Operation("log"),))), "a step has no finite value somewhere"),
    (changed(columns=column_of(operations=(Operation("exp"),))), "a step has no finite value"),
    (changed(columns=column_of(operations=(Operation("divide", (0.0,)),))), "no finite value"),
    (changed(columns=column_of(operations=(Operation("multiply", (1e300,)),))), "no finite value|so large"),
    (changed(columns=()), "coefficients has shape"),
    (changed(coefficients=np.full((3, 4), 3e38)), "golden row|so large"),
]  # fmt: skip


@for_each(("change", "said"), IMPOSSIBLE)
def test_an_impossible_file_is_refused(change: Callable[[ModelFile], ModelFile], said: str, linear: ModelFile) -> None:
    with pytest.raises(ModelFileError, match=said):
        loaded(change(linear))


@pytest.mark.parametrize("name", ["coefficients", "intercept"])
def test_a_file_with_other_scores_is_refused(name: str, linear: ModelFile) -> None:
    array = getattr(predictor(linear), name)

    with pytest.raises(ModelFileError, match="golden row"):
        loaded(changed(**{name: array * (1 + 1e-9)})(linear))


def test_a_file_of_another_machine_is_taken(linear: ModelFile) -> None:
    sums = linear.golden_sums * (1 + 2 * np.finfo(np.float64).eps)
    answers = linear.golden_answers * (1 + np.finfo(np.float64).eps)

    assert loaded(replace(linear, golden_sums=sums, golden_answers=answers)).labels


@given(at=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_file_with_any_bit_turned_is_refused_or_gives_its_answers(
    at: float, bit: int, linear: ModelFile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(modelfile.dump(linear))
    content[int(at * (len(content) - DIGEST_BYTES - 1))] ^= 1 << bit
    path = tmp_path_factory.mktemp("turned") / "m.npz"
    put(signed(bytes(content)), path)

    try:
        model = LoadedModel(modelfile.parse(path.read_bytes()), "0" * 12)
    except MLError:
        return
    assert np.all(np.isfinite(model.predict_batch(linear.golden_rows).outputs))


def signed(content: bytes) -> bytes:
    import hashlib

    return content[:-DIGEST_BYTES] + hashlib.sha256(content[:-DIGEST_BYTES]).hexdigest().encode()


def test_the_members_are_those_of_one_kind_of_model(linear: ModelFile, tmp_path: Path) -> None:
    put(modelfile.dump(linear), tmp_path / "m.npz")
    with zipfile.ZipFile(tmp_path / "m.npz") as opened:
        names = set(opened.namelist())

    assert names == {"card.json"} | {
        f"{name}.npy"
        for name in (
            "coefficients", "intercept", "means", "variances", "golden_rows", "golden_sums", "golden_answers",
            "reference_rows", "reference_outcomes",
        )
    }  # fmt: skip
