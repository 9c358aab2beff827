"""The names that ml.export compares: those of the model, of X_test and of feature_names; and wrong rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, StackingRegressor
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, MinMaxScaler, OneHotEncoder, StandardScaler

import ml
from ml.errors import ForestError, TableError
from ml.model.loaded import LoadedModel
from tests.passengers import LABELS, TABLE, TEST, TRAIN, fitted, forest

WINE = load_wine()
COLUMNS = [f"{name} (g)" for name in WINE.feature_names]
X_train, X_test, y_train, y_test = train_test_split(
    pd.DataFrame(WINE.data, columns=COLUMNS), WINE.target, random_state=0, stratify=WINE.target
)
FOREST = RandomForestClassifier(8, random_state=0).fit(X_train, y_train)
UNNAMED = RandomForestClassifier(8, random_state=0).fit(X_train.to_numpy(), y_train)
KEYS = [name.replace("/", "_") for name in WINE.feature_names]
BACKWARDS = COLUMNS[::-1]


def export(model: Any, folder: Path, X: Any = X_test, **changes: Any) -> LoadedModel:
    return ml.export(model, X, changes.pop("y_test", y_test), path=folder / "wine.npz", **changes)


def assert_right(model: LoadedModel) -> None:
    """The model answers by name as the forest does."""
    assert [feature.key for feature in model.features] == KEYS
    samples = [dict(zip(KEYS, row, strict=True)) for row in X_test.to_numpy().tolist()]
    rows = np.array([model.validator.row(sample) for sample in samples])
    assert np.array_equal(model.predict_batch(rows).outputs, FOREST.predict_proba(X_test))


@pytest.mark.parametrize(
    ("model", "X", "names"),
    [
        (FOREST, X_test, None), (FOREST, X_test[BACKWARDS], None), (FOREST, X_test, BACKWARDS),
        (FOREST, X_test[BACKWARDS], COLUMNS), (FOREST, X_test.assign(more=1.0), None),
        (FOREST, X_test[BACKWARDS].to_numpy(), BACKWARDS), (FOREST, X_test.to_numpy(), COLUMNS),
        (UNNAMED, X_test, None), (UNNAMED, X_test.to_numpy(), COLUMNS), (UNNAMED, X_test[BACKWARDS], COLUMNS),
        (UNNAMED, X_test.assign(more=1.0), COLUMNS),
    ],
    ids=[
        "as fitted", "columns backwards", "names backwards", "both differ", "one column more", "an array backwards",
        "an array as fitted", "a model without names", "no names but the given ones", "columns unlike the given ones",
        "one column more than the given ones",
    ],
)  # fmt: skip
def test_columns_in_another_order_are_put_right(tmp_path: Path, model: Any, X: Any, names: list[str] | None) -> None:
    assert_right(export(model, tmp_path, X, feature_names=names))


def test_training_rows_are_put_right_as_well(tmp_path: Path) -> None:
    model = export(FOREST, tmp_path, X_train=X_train[BACKWARDS], y_train=y_train)

    assert [(f.low, f.high) for f in model.features] == list(zip(X_train.min(), X_train.max(), strict=True))


def test_other_names_stand_for_the_columns_in_their_place(tmp_path: Path) -> None:
    model = export(FOREST, tmp_path, feature_names=[f"Säure {number} (g/l)" for number in range(13)])

    assert [(feature.title, feature.unit) for feature in model.features][:2] == [("Säure 0", "g/l"), ("Säure 1", "g/l")]


@pytest.mark.parametrize(
    ("X", "names", "message"),
    [
        (X_test, ["a", "b", COLUMNS[0], *COLUMNS[3:]],
         r"feature_names\[2\] is 'alcohol \(g\)', but the model was fitted with 'ash \(g\)' there, and has 'alcohol"),
        (X_test.rename(columns={COLUMNS[4]: "Mg"}), None, r"X_test has no column 'magnesium \(g\)', with which the"),
        (X_test.set_axis(range(13), axis=1), None, r"X_test has no column 'alcohol \(g\)'"),
        (pd.concat([X_test, X_test[COLUMNS[:1]]], axis=1), None, r"X_test has 2 columns 'alcohol \(g\)': leave one"),
        (X_test.to_numpy()[:, :12], COLUMNS, r"X_test has the shape \(45, 12\), not \(n, 13\) with rows"),
    ],
    ids=["swapped names", "a renamed column", "numbered columns", "a column twice", "too few columns"],
)  # fmt: skip
def test_names_that_contradict_each_other_are_refused(tmp_path: Path, X: Any, names: Any, message: str) -> None:
    with pytest.raises(TableError, match=message):
        export(FOREST, tmp_path, X, feature_names=names)


def test_numbered_columns_need_names(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"X_test.columns\[0\] is 0: a name in words is needed"):
        export(UNNAMED, tmp_path, X_test.set_axis(range(13), axis=1))


class Frame:
    """What a DataFrame of another library has: `columns`, columns by position or name, and `to_numpy`."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = {name: np.asarray(values) for name, values in columns.items()}
        self.columns = list(columns)
        self.shape = (len(next(iter(self._columns.values()))), len(columns))

    def __getitem__(self, wanted: Any) -> Any:
        if isinstance(wanted, list):
            return Frame({name: self._columns[name] for name in wanted})
        values = self._columns[self.columns[wanted[1]]]
        return SimpleNamespace(to_numpy=lambda: values)

    def to_numpy(self) -> Any:
        return np.column_stack([*self._columns.values()])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.to_numpy().astype(dtype or np.float64)


def test_a_data_frame_of_another_library_is_taken(tmp_path: Path) -> None:
    frame = Frame({name: X_test[name].to_numpy() for name in BACKWARDS})

    assert_right(export(FOREST, tmp_path, frame))


# Refusals


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (PCA(3), r"the step 'pca' \(PCA\) cannot be exported: it mixes the columns; leave it out"),
        (
            KNNImputer(),
            r"the step 'knnimputer' \(KNNImputer\) .*SimpleImputer\(add_indicator=True\) does not.*StandardScaler",
        ),
        (FunctionTransformer(np.abs), r"'functiontransformer'.*its function is none of np.log, "),
        (FunctionTransformer(np.sin), "its function is none of"),
    ],
)
def test_a_step_that_cannot_be_read_is_named_with_what_would_work(tmp_path: Path, step: Any, message: str) -> None:
    model = make_pipeline(StandardScaler(), step, forest()).fit(X_train, y_train)

    with pytest.raises(ForestError, match=message):
        export(model, tmp_path)


def test_words_without_a_step_are_named(tmp_path: Path) -> None:
    numbers = forest().fit(TABLE[["fare", "class"]].set_axis(["fare", "sex"], axis=1)[TRAIN], LABELS[TRAIN])

    with pytest.raises(TableError, match=r"column 'sex' of X_test holds '\w+', which is no number, and no step"):
        ml.export(numbers, TABLE[["fare", "sex"]][TEST], LABELS[TEST], path=tmp_path / "p.npz")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TransformedTargetRegressor(make_pipeline(OneHotEncoder(), Ridge())), r"TransformedTargetRegressor cannot be "
         r"exported: it changes what its regressor predicts; that one, its regressor_, would work"),
        (StackingRegressor([("one", make_pipeline(OneHotEncoder(), Ridge()))]), r"StackingRegressor cannot be "
         r"exported: these models would work: random forests, .*LogisticRegression"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_model_of_another_kind_is_named_before_words_that_its_own_steps_encode(
    tmp_path: Path, model: Any, message: str
) -> None:
    words, true = TABLE[["sex"]][TEST].astype(str), np.arange(len(TABLE[TEST]), dtype=float)

    with pytest.raises(ForestError, match=message):
        ml.export(model.fit(words, true), words, true, path=tmp_path / "p.npz")


def test_a_model_of_one_class_is_refused(tmp_path: Path) -> None:
    model = forest().fit(X_train, np.zeros(len(X_train)))

    with pytest.raises(TableError, match="the model has the number of classes 1: 2 to 1000 can be served"):
        export(model, tmp_path, y_test=np.zeros(len(X_test)))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sex", "other", r"X_test has a word that its encoder does not know in column 'sex', row 7, .*handle_unknown"),
        ("sex", np.nan, r"X_test has no value in column 'sex', row 7, which the steps refuse: SimpleImputer would"),
    ],
)
def test_test_rows_that_the_steps_refuse_are_named(tmp_path: Path, column: str, value: Any, message: str) -> None:
    pipeline, true = fitted("words without a way out, numbers as words, true and false")
    table = TABLE[TEST].copy()
    table.loc[table.index[7], column] = value

    with pytest.raises(TableError, match=message):
        ml.export(pipeline, table, true[TEST], path=tmp_path / "p.npz")


def test_a_forest_that_was_fitted_with_gaps_takes_them_even_if_the_test_rows_have_none(tmp_path: Path) -> None:
    rows = X_train.copy()
    rows[COLUMNS[0]] = rows[COLUMNS[0]].where(y_train != 1)
    model = RandomForestClassifier(20, random_state=0).fit(rows, y_train)

    features = export(model, tmp_path, insist=True).features

    assert [feature.has_gaps for feature in features] == [True, *[False] * 12]


def test_an_array_for_steps_that_look_columns_up_by_name_is_refused_with_their_reason(tmp_path: Path) -> None:
    pipeline, true = fitted("ordinal")

    with pytest.raises(TableError, match=r"the steps do not take X_test: .*only supported for dataframes"):
        ml.export(pipeline, TABLE[TEST].to_numpy(), true[TEST], path=tmp_path / "p.npz")


# Models given other rows than they were fitted on


def test_answers_in_another_order_than_their_rows_are_refused_unless_one_insists(tmp_path: Path) -> None:
    answers = pd.Series(y_test, index=X_test.index).sample(frac=1, random_state=0)

    with pytest.raises(TableError, match=r"y_test has the index of X_test in another order: y_test.loc\[X_test"):
        export(FOREST, tmp_path, y_test=answers)
    export(FOREST, tmp_path, y_test=answers, insist=True)


def test_the_last_step_given_the_table_of_the_first_is_refused(tmp_path: Path) -> None:
    pipeline, true = fitted("ordinal")

    with pytest.raises(TableError, match=r"X_test has \d+ columns, and the model was fitted on \d+ without names"):
        ml.export(pipeline[-1], TABLE[TEST], true[TEST], path=tmp_path / "p.npz")


def test_the_last_step_of_a_pipeline_alone_is_refused_unless_one_insists(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), forest()).fit(X_train, y_train)

    with pytest.raises(TableError, match=r"lie all on one side of what the model compares.*give the whole pipeline"):
        export(pipeline[-1], tmp_path, X_test)
    report = export(pipeline[-1], tmp_path, X_test, insist=True).card.report
    assert report is not None
    assert report.test_rows == len(X_test)


@pytest.mark.slow
@pytest.mark.parametrize("last", [RandomForestClassifier(20, random_state=0), LogisticRegression(), GaussianNB()])
@pytest.mark.parametrize(
    "first", [StandardScaler(), MinMaxScaler(), FunctionTransformer(np.log1p), KBinsDiscretizer(8, encode="ordinal")]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::FutureWarning")
def test_the_last_step_of_pipelines_alone_is_caught_and_the_whole_is_not(tmp_path: Path, first: Any, last: Any) -> None:
    pipeline = make_pipeline(clone(first), clone(last)).fit(X_train, y_train)

    with pytest.raises(TableError, match="give the whole pipeline"):
        export(pipeline[-1], tmp_path)
    export(pipeline, tmp_path)


def test_a_model_that_is_worse_than_the_baseline_is_refused_unless_one_insists(tmp_path: Path) -> None:
    wrong = (y_test + 1) % 3

    expected = r"accuracy of 0\.\d+ on \d+ rows, and always giving the most frequent class has 0\.\d+: give the whole"
    with pytest.raises(TableError, match=expected):
        export(FOREST, tmp_path, y_test=wrong)
    export(FOREST, tmp_path, y_test=wrong, insist=True)


def test_a_model_of_a_quantity_that_is_worse_than_the_mean_is_refused_unless_one_insists(tmp_path: Path) -> None:
    model = RandomForestRegressor(5, random_state=0).fit(X_train, y_train)

    with pytest.raises(TableError, match=r"worse on \d+ rows than always giving the mean \(R² -.*: give the whole"):
        export(model, tmp_path, y_test=10.0 - y_test)
    export(model, tmp_path, y_test=10.0 - y_test, insist=True)


def test_whole_pipelines_on_their_own_rows_pass(tmp_path: Path) -> None:
    pipeline, true = fitted("ordinal")

    report = ml.export(pipeline, TABLE[TEST], true[TEST], path=tmp_path / "p.npz").card.report
    assert report is not None
    assert report.test_rows == 250
