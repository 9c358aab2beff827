"""ml.export: a forest fitted in a session of one's own becomes the same kind of file, and nobody needs a pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_wine
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

import ml
from ml.errors import ForestError, MLError, TableError
from ml.model import modelfile
from ml.model.card import Recipe, Report
from ml.model.loaded import LoadedModel, load_model
from ml.tables.headers import Limits
from ml.training import fitting, iris, writing
from ml.training.writing import GOLDEN_TEST_ROWS, GOLDEN_THRESHOLD_ROWS

WINE = load_wine()
X_train, X_test, y_train, y_test = train_test_split(
    WINE.data, WINE.target, random_state=0, stratify=WINE.target, test_size=0.7
)
NAMES = tuple(f"{name} (g)" for name in WINE.feature_names)
TEXT = np.array(["été <1>", 'two "2"', "zwei; drei"])

SPARSE = OneHotEncoder().fit_transform(X_test)


def forest(labels: Any = None, **parameters: Any) -> Any:
    classes = y_train if labels is None else labels[y_train]
    return RandomForestClassifier(**{"n_estimators": 10, "random_state": 0, **parameters}).fit(X_train, classes)


def export(estimator: Any, path: Path, **changes: Any) -> LoadedModel:
    arguments = {"X_test": X_test, "y_test": y_test, "feature_names": NAMES, **changes}
    return ml.export(estimator, path=path / "wine.npz", **arguments)


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (np.array([0, 1, 2]), ("0", "1", "2")),
        (np.array([3, 10, 200]), ("3", "10", "200")),
        (np.array([1.0, 2.0, 3.0]), ("1.0", "2.0", "3.0")),
        (TEXT, tuple(sorted(TEXT.tolist()))),
        (TEXT.astype(object), tuple(sorted(TEXT.tolist()))),
        (np.array([False, True, True]), ("False", "True")),
    ],
    ids=["numbers", "large numbers", "floats", "text", "objects", "booleans"],
)
def test_labels_are_those_of_the_forest(tmp_path: Path, labels: NDArray[Any], shown: tuple[str, ...]) -> None:
    fitted = forest(labels)

    model = export(fitted, tmp_path, y_test=labels[y_test])

    assert model.labels == shown
    answers = [model.labels[index] for index in model.predict_batch(X_test).indices]
    assert answers == [str(label) for label in fitted.predict(X_test)]
    assert np.array_equal(model.predict_batch(X_test).outputs, fitted.predict_proba(X_test))


def test_the_file_is_as_one_that_was_trained_here(tmp_path: Path) -> None:
    fitted = forest()

    model = export(fitted, tmp_path)

    assert os.listdir(tmp_path) == ["wine.npz"]
    stored = modelfile.parse((tmp_path / "wine.npz").read_bytes())
    assert load_model(tmp_path / "wine.npz").version == model.version
    assert len(stored.golden_rows) == min(GOLDEN_TEST_ROWS, len(X_test)) + GOLDEN_THRESHOLD_ROWS
    assert np.array_equal(stored.golden_answers, fitted.predict_proba(stored.golden_rows))
    assert (stored.card.recipe, stored.card.data_digest) == (None, None)
    assert (stored.card.name, stored.card.trees) == ("wine", 10)
    assert [(f.key, f.unit) for f in model.features] == [(k.replace("/", "_"), "g") for k in WINE.feature_names]


@pytest.mark.parametrize("n_estimators", [3, 12], ids=["a table of cells", "compiled trees"])
def test_the_report_is_scikit_learns(tmp_path: Path, n_estimators: int) -> None:
    fitted = forest(n_estimators=n_estimators, max_depth=n_estimators // 3 + 1)
    answers = fitted.predict(X_test)

    card = export(fitted, tmp_path, X_train=X_train, y_train=y_train).card

    report = card.report
    assert isinstance(report, Report)
    assert report.accuracy == accuracy_score(y_test, answers)
    assert np.array_equal(report.confusion, confusion_matrix(y_test, answers))
    assert (report.train_rows, report.test_rows) == (len(X_train), len(X_test))
    assert report.baseline == np.mean(y_test == np.bincount(y_train).argmax())
    expected = permutation_importance(fitted, X_test, y_test, n_repeats=5, random_state=0).importances_mean
    assert [feature.importance for feature in card.features] == expected.tolist()


def test_training_ranges_are_those_of_the_training_rows_if_they_are_given(tmp_path: Path) -> None:
    with_rows = export(forest(), tmp_path, X_train=X_train, y_train=y_train)
    without = export(forest(), tmp_path)

    assert [(f.low, f.high) for f in with_rows.features] == list(zip(X_train.min(0), X_train.max(0), strict=True))
    assert [(f.low, f.high) for f in without.features] == list(zip(X_test.min(0), X_test.max(0), strict=True))
    assert without.card.report is not None
    assert without.card.report.train_rows is None
    assert with_rows.reference_rows.shape == X_train.shape


@pytest.mark.parametrize(
    "kind",
    [
        RandomForestClassifier(7, max_depth=3, class_weight="balanced"), ExtraTreesClassifier(7, max_depth=3),
        DecisionTreeClassifier(max_depth=3), ExtraTreeClassifier(max_depth=3),
    ],
    ids=lambda kind: type(kind).__name__,
)  # fmt: skip
def test_every_classifier_made_of_trees_is_exported(tmp_path: Path, kind: Any) -> None:
    fitted = kind.set_params(random_state=0).fit(X_train, y_train)

    model = export(fitted, tmp_path)

    assert model.card.estimator == type(kind).__name__
    assert np.array_equal(model.predict_batch(X_test).outputs, fitted.predict_proba(X_test))


@pytest.mark.parametrize(
    "kind",
    [
        SVC(), KNeighborsClassifier(), MLPClassifier((2,), solver="lbfgs", max_iter=2_000),
        QuadraticDiscriminantAnalysis(),
    ],
    ids=lambda kind: type(kind).__name__,
)  # fmt: skip
def test_other_estimators_are_refused_by_name_and_leave_no_file(tmp_path: Path, kind: Any) -> None:
    fitted = kind.fit(StandardScaler().fit_transform(X_train), y_train)

    with pytest.raises(ForestError, match=type(kind).__name__):
        export(fitted, tmp_path)

    assert os.listdir(tmp_path) == []


def test_a_forest_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestError, match="not a fitted classifier"):
        export(RandomForestClassifier(), tmp_path)


def altered(value: float) -> NDArray[np.float64]:
    rows: NDArray[np.float64] = X_test.copy()
    rows[3, 2] = value
    return rows


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "too few names": ({"feature_names": NAMES[:-1]}, "feature_names has 12 names, but the model was fitted on 13"),
    "a name twice": ({"feature_names": [*NAMES[:-1], "Alcohol [%]"]}, r"has 'alcohol \(g\)' and 'Alcohol"),
    "no names": ({"feature_names": None}, "feature_names is missing: neither the model nor X_test has names"),
    "numbers as names": ({"feature_names": range(13)}, r"feature_names\[0\] is 0: a name in words is needed"),
    "a name missing": ({"feature_names": [*NAMES[:4], None, *NAMES[5:]]}, r"feature_names\[4\] is None: a name"),
    "other columns": ({"X_test": X_test[:, :5]}, r"X_test has the shape \(\d+, 5\), not \(n, 13\) with rows"),
    "one row": ({"X_test": X_test[0]}, "X_test has the shape"),
    "no rows": ({"X_test": X_test[:0], "y_test": y_test[:0]}, "X_test has the shape"),
    "sparse rows": ({"X_test": SPARSE}, r"X_test is a sparse matrix: give its rows as a table, X_test.toarray\(\)"),
    "fewer classes than rows": ({"y_test": y_test[:-1]}, r"y_test has the shape \(124,\), but X_test has 125 rows"),
    "classes as a column": ({"y_test": y_test[:, None]}, r"y_test has the shape \(125, 1\), a table of one column"),
    "a class that it does not know": ({"y_test": y_test + 1}, r"y_test has 3 in row \d+, which is not one of the"),
    "classes as text": ({"y_test": y_test.astype(str)}, r"y_test has '\d' in row 0.*it is a word, and the model was"),
    "infinity": ({"X_test": altered(np.inf)}, "X_test has inf in column 'ash', row 3, which is not a finite 32-bit"),
    "more than a float32": ({"X_test": altered(1e39)}, "X_test has 1e.39 in column 'ash', row 3, which is not"),
    "nothing as rows": ({"X_test": None}, "X_test is None, and no table"),
    "columns by name in a dict": ({"X_test": {"a": [1]}}, r"X_test is a dict.*pandas.DataFrame\(X_test\) would work"),
    "rows as objects": ({"X_test": [{"a": 1}]}, r"X_test is a list of objects.*pandas.DataFrame\(X_test\) would work"),
    "numbers as text": (
        {"X_test": X_test.astype(str)}, r"column 'alcohol \(g\)' of X_test holds '.*\.astype\(float\) would"
    ),
    "no classes": ({"y_test": None}, "y_test is None: one answer for each row of X_test is needed"),
    "a row without a class": ({"y_test": [None, *y_test[1:]]}, "None in row 0.*: leave out rows without an answer"),
    "a column for each class": ({"y_test": np.eye(3)[y_test]}, r"y_test has the shape \(125, 3\), a column for each"),
    "a threshold as text": ({"threshold": "0.3"}, "the threshold is '0.3', which is no number"),
    "limits that are no pair": ({"limits": {"alcohol": 5}}, r"the limits for 'alcohol' are 5: a pair is needed"),
    "limits upside down": ({"limits": {"alcohol": (9, 1)}}, r"for 'alcohol' are \(9, 1\): the first one is not below"),
    "training rows of another shape": ({"X_train": X_train[:, :2], "y_train": y_train}, "X_train has the shape"),
    "training classes missing": ({"X_train": X_train, "y_train": y_train[1:]}, "y_train has the shape"),
    "limits below the rows": ({"limits": {"alcohol": Limits(0, 1)}}, "'?alcohol'?"),
}  # fmt: skip


def test_encoded_labels_are_named_where_the_model_was_fitted_on_words(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"y_test has \d in row 0, .* it is encoded, and the model was"):
        export(forest(TEXT), tmp_path)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_the_forest_is_an_error_in_one_sentence(tmp_path: Path, wrong: str) -> None:
    changes, message = WRONG[wrong]

    with pytest.raises(MLError, match=message) as caught:
        export(forest(), tmp_path, **changes)

    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MLError, match="No such file or directory"):
        export(forest(), tmp_path / "missing")


@pytest.mark.parametrize("limits", [{"alcohol": Limits(0, 20)}, {"alcohol": (0, 20)}, {"alcohol (g)": (0.0, 20)}])
def test_limits_and_name_go_into_the_file(tmp_path: Path, limits: Any) -> None:
    model = export(forest(), tmp_path, limits=limits, name="Weine")

    assert model.name == "Weine"
    assert (model.features[0].minimum, model.features[0].maximum) == (0, 20)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (RandomForestClassifier, "the model is the class RandomForestClassifier: give one that was fitted"),
        ("forest.pkl", "the model is a str, which cannot predict: load or fit the model first"),
        (make_pipeline(StandardScaler()), "the model is a Pipeline, which cannot predict: a fitted one is needed"),
        (
            make_pipeline(StandardScaler(), RandomForestClassifier()),
            r"'standardscaler' .*it is not fitted: fit",
        ),
    ],
)
def test_what_is_no_fitted_model_is_named(tmp_path: Path, model: Any, sentence: str) -> None:
    with pytest.raises(ForestError, match=sentence):
        export(model, tmp_path)


def test_a_forest_that_was_fitted_in_parallel_is_exported(tmp_path: Path) -> None:
    for seed in range(3):
        fitted = forest(n_estimators=60, max_depth=2, n_jobs=4, random_state=seed)
        model = export(fitted, tmp_path)
        assert fitted.n_jobs == 4
        in_order = fitted.set_params(n_jobs=1).predict_proba(X_test)
        assert np.array_equal(model.predict_batch(X_test).outputs, in_order)


def test_the_progress_of_a_long_export_is_told_up_to_its_last_step(tmp_path: Path) -> None:
    told = list[tuple[str, int, int]]()
    trained = fitting.fit(iris.load_dataset(), Recipe(n_estimators=2))

    model = writing.model_of(trained, progress=lambda *step: told.append(step))
    writing.write(model, tmp_path / "m.npz", trained=trained, progress=lambda *step: told.append(step))

    last = {what: (done, steps) for what, done, steps in told}
    assert last == {"importance": (4, 4), "proof": (30, 30)}


NOT_YET: dict[str, dict[str, Any]] = {
    "rows of text": {"X_test": [["a"] * 13], "y_test": [0]},
    "ragged rows": {"X_test": [[1.0] * 13, [1.0]], "y_test": [0, 1]},
    "limits of no feature": {"limits": {"alcohool": Limits(0, 20)}},
    "training rows without classes": {"X_train": X_train},
    "training classes without rows": {"y_train": y_train},
}


@pytest.mark.parametrize("wrong", NOT_YET)
def test_what_is_easily_mistaken_is_an_error_in_one_sentence(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(TableError):
        export(forest(), tmp_path, **NOT_YET[wrong])
