"""A model for programs: samples, tables of Arrow and columns of arrays have the answers of every other channel."""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

import ml
from ml.errors import ModelFileError, TableError
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from ml.scoring.text import score
from ml.training import fitting, writing
from tests.conftest import ROOT
from tests.pipelines import Oracle, dataset_of, numbers, oracle_of, sample_of, words

NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
SAMPLE = [5.6, 2.7, 4.2, 1.3]
N_ROWS = 400


@pytest.fixture(scope="module")
def scorer(model_path: Path) -> ml.BatchScorer:
    return ml.BatchScorer(model_path)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """Words with and without gaps, booleans, numbers with and without."""
    rng = np.random.default_rng(0)
    columns = [
        numbers(rng, 300), words(rng, 300, ["a", "b", "é"], gaps=0.1, rare=0.05), numbers(rng, 300, gaps=0.2),
        words(rng, 300, ["no", "yes"]), words(rng, 300, ["1", "2", "3"], gaps=0.1),
    ]  # fmt: skip
    classes = rng.integers(0, 3, 300).astype(np.float64)
    return oracle_of(columns, classes, labels=["x", "y", "z"], recipe=Recipe(n_estimators=10))


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return columns of arrays as rows, in which NaN is None."""
    lists = {name: np.asarray(column, dtype=object).tolist() for name, column in columns.items()}
    rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return [{name: None if is_nan(value) else value for name, value in row.items()} for row in rows]


def is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def both(model: ml.Model, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the answers to columns, which must be the same for arrays and for a table of Arrow."""
    table = model.predict_batch(pyarrow.table({name: pyarrow.array(column) for name, column in columns.items()}))
    arrays = rows_of(model.predict_batch(columns))
    assert table.to_pylist() == arrays
    return arrays


def test_importing_the_package_loads_nothing_and_a_model_no_training() -> None:
    code = """
import sys
import ml
assert [name for name in sys.modules if name.startswith("ml.")] == [], sys.modules
assert not {"numpy", "msgspec"} & set(sys.modules)
ml.load, ml.BatchScorer
loaded = [name for name in sys.modules if name.split(".")[0] in ("sklearn", "scipy", "pyarrow", "pandas")]
assert not loaded, loaded
assert not [name for name in sys.modules if name.startswith(("ml.training", "ml.estimators"))]
ml.export
assert "sklearn" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)


def test_the_package_offers_what_it_lists_and_nothing_else() -> None:
    assert [name for name in ml.__all__ if not callable(getattr(ml, name))] == []
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        _ = ml.predict


@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_is_loaded_by_its_path_and_answers_a_sample(
    model_path: Path, model: LoadedModel, kind: Callable[[Path], str | Path]
) -> None:
    loaded = ml.load(kind(model_path))

    by_key = loaded.predict(dict(zip((feature.key for feature in loaded.features), SAMPLE, strict=True)))

    expected = model.predict(SAMPLE)
    assert (by_key.label, by_key.probabilities) == (expected.label, expected.probabilities)
    assert loaded.predict([*map(str, SAMPLE)]).probabilities == expected.probabilities
    assert (loaded.card, loaded.version, loaded.labels) == (model.card, model.version, model.labels)


def test_a_sample_with_errors_is_refused_with_all_of_them(model_path: Path) -> None:
    with pytest.raises(InvalidSample) as caught:
        ml.load(model_path).predict([5.6, None, "x", 1.3])

    assert [error.code for error in caught.value.errors] == ["missing", "not_a_number"]


@pytest.mark.parametrize("sample", [
    np.array([1.5, "a", None, True, 2], dtype=object),
    [np.float64(1.5), np.str_("a"), np.float64("nan"), np.bool_(True), np.int64(2)],
    (np.float32(1.5), np.array("a"), np.ma.masked, "yes", Decimal(2)),
    pd.Series([1.5, "a", pd.NA, True, 2], index=["f0", "f1", "f2", "f3", "f4"])[::-1],
    pd.Series([1.5, "a", pd.NaT, "yes", 2]),
    {"f0": np.longdouble(1.5), "f1": np.str_("a"), "f2": np.datetime64("NaT"), "f3": np.bool_(True), "f4": np.uint8(2)},
], ids=["array", "scalars", "others", "named row", "row", "mapping"])  # fmt: skip
def test_a_sample_may_have_the_values_of_numpy_and_pandas(oracle: Oracle, sample: Any) -> None:
    model = ml.Model(oracle.model())

    assert model.predict(sample) == model.predict([1.5, "a", None, True, 2])


def test_an_array_and_numbers_of_numpy_are_a_sample(model_path: Path) -> None:
    loaded = ml.load(model_path)

    assert loaded.predict(np.array(SAMPLE)) == loaded.predict([*map(np.float64, SAMPLE)]) == loaded.predict(SAMPLE)
    with pytest.raises(InvalidSample, match="sepal length must be a number, not of the type ndarray"):
        loaded.predict(np.array([SAMPLE] * 5))
    with pytest.raises(InvalidSample, match="sepal length must be a number, not of the type complex"):
        loaded.predict([np.complex128(1), *SAMPLE[1:]])
    with pytest.raises(InvalidSample, match="petal width is too large for a 32-bit float"):
        loaded.predict([*SAMPLE[:3], np.float64("inf")])


def questions_of(oracle: Oracle) -> tuple[NDArray[np.object_], dict[str, list[Any]]]:
    cells = oracle.questions(np.random.default_rng(1), N_ROWS)
    columns = [sample_of(column) for column in cells.T]
    return cells, {feature.key: column for feature, column in zip(oracle.trained.features, columns, strict=True)}


def test_a_batch_has_the_bits_of_each_sample_and_of_the_library(oracle: Oracle) -> None:
    cells, columns = questions_of(oracle)
    model = ml.Model(oracle.model())

    answers = both(model, columns)

    expected = oracle.answers(cells)
    for row, answer, library in zip(cells, answers, expected.tolist(), strict=True):
        one = model.predict(sample_of(row))
        probabilities = [answer[f"probability_{label}"] for label in model.labels]
        assert probabilities == library == list(one.probabilities)
        assert (answer["predicted_label"], answer["prediction_error"]) == (one.label, None)


def test_a_batch_has_the_answers_and_notes_of_ml_score_on_the_same_rows(oracle: Oracle) -> None:
    cells, columns = questions_of(oracle)
    model = oracle.model()
    text = io.StringIO(newline="")
    csv.writer(text).writerows([[*columns], *(["" if cell is None else cell for cell in row] for row in cells)])
    text.seek(0)
    sink = io.StringIO(newline="")

    score(model, text, sink, on_bad=lambda bad: pytest.fail(bad.message))
    answers = both(ml.Model(model), columns)

    written = [*csv.DictReader(io.StringIO(sink.getvalue(), newline=""))]
    assert [name for name in written[0] if name not in columns] == [*answers[0]]
    for expected, answer in zip(written, answers, strict=True):
        assert {name: expected[name] for name in answer} == {
            name: "" if value is None else value if isinstance(value, str) else repr(value)
            for name, value in answer.items()
        }
    assert any(answer["prediction_notes"] for answer in answers)
    assert any(";" in (answer["prediction_notes"] or "") for answer in answers)


def test_text_is_read_as_the_cells_of_a_file(model: LoadedModel, scorer: ml.BatchScorer) -> None:
    cells = [
        ["5.6", "2.7", "4.2", "1.3"], ["5,6", "2,7", "4,2", "1,3"], ["5,6", "2.7", "4.2", "1.3"],
        ["4,200", "2.7", "4.2", "1.3"], ["x", "", "9e999", "-1"], [" 5.6 ", "+2.7", "4.2 cm", "1.3\u00a0"],
    ]  # fmt: skip
    source = "\n".join("\t".join(row) for row in [NAMES, *cells]) + "\n"
    sink = io.StringIO(newline="")
    score(model, io.StringIO(source, newline=""), sink, on_bad=lambda _: None)

    answers = both(scorer.model, dict(zip(NAMES, map(list, zip(*cells, strict=True)), strict=True)))

    written = [*csv.DictReader(io.StringIO(sink.getvalue(), newline=""), delimiter="\t")]
    assert [row["prediction_error"] for row in written] == [answer["prediction_error"] or "" for answer in answers]
    assert [row["predicted_label"] for row in written] == [answer["predicted_label"] or "" for answer in answers]
    assert [bool(answer["prediction_error"]) for answer in answers] == [False, False, True, True, True, False]


def arrow_types(column: list[Any]) -> list[Any]:
    """Return arrays of pyarrow of these values, in all types that can have them."""
    if isinstance(column[0], str):
        plain = pyarrow.array(column, pyarrow.string())
        indices = pyarrow.array([*range(len(column) - 1), None], pyarrow.int8())
        gap = pyarrow.DictionaryArray.from_arrays(indices, plain)
        return [
            plain, plain.cast(pyarrow.large_string()), plain.cast(pyarrow.string_view()), plain.dictionary_encode(), gap
        ]  # fmt: skip
    return [
        pyarrow.array(column, kind)
        for kind in (pyarrow.float64(), pyarrow.float32(), pyarrow.int8(), pyarrow.uint64(), pyarrow.decimal128(9, 2))
    ]


@pytest.mark.parametrize("column", [[1, 2, None], ["1", "2", None]], ids=["numbers", "texts"])
def test_every_type_of_a_column_gives_the_same_row(oracle: Oracle, column: list[Any]) -> None:
    model = ml.Model(oracle.model())
    others = {"f0": [1.0] * 3, "f1": ["a"] * 3, "f3": ["no"] * 3}
    expected = [model.predict([1.0, "a", value, "no", value]).probabilities for value in (1, 2, None)]

    for array in arrow_types(column):
        table = pyarrow.table({**others, "f2": array, "f4": array})

        answers = model.predict_batch(table).to_pylist()

        got = [tuple(answer[f"probability_{label}"] for label in model.labels) for answer in answers]
        assert got == expected, array.type
        assert [answer["prediction_error"] for answer in answers] == [None] * 3


def test_booleans_are_the_choices_that_say_so(oracle: Oracle) -> None:
    model = ml.Model(oracle.model())
    others = {"f0": [1.0] * 2, "f1": ["a"] * 2, "f2": [1.0] * 2, "f4": [1, 2]}

    answers = both(model, {**others, "f3": np.array([True, False])})

    assert answers == both(model, {**others, "f3": ["yes", "no"]})


def test_a_row_without_an_answer_says_why_and_the_others_are_answered(scorer: ml.BatchScorer) -> None:
    columns: dict[str, list[float | None]] = {name: [value] * 4 for name, value in zip(NAMES, SAMPLE, strict=True)}
    columns[NAMES[0]][1] = None
    columns[NAMES[1]][2] = -1.0
    columns[NAMES[3]][3] = math.inf
    columns[NAMES[2]][2] = math.nan

    answers = both(scorer.model, columns)

    assert [answer["predicted_label"] for answer in answers] == ["versicolor", None, None, None]
    assert [answer["prediction_error"] for answer in answers] == [
        None,
        "sepal length is missing",
        "sepal width must be 0 cm or more, not -1.0; petal length is missing",
        "petal width is too large for a 32-bit float",
    ]
    assert {answers[1][name] for name in answers[1] if name != "prediction_error"} == {None}


def test_a_boolean_is_no_number(scorer: ml.BatchScorer) -> None:
    columns = {name: [value] for name, value in zip(NAMES, SAMPLE, strict=True)}

    (answer,) = both(scorer.model, {**columns, NAMES[0]: [True]})

    assert answer["prediction_error"] == "sepal length: true is not a number"


def test_a_quantity_has_its_value_and_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    column = numbers(rng, 200)
    trained = fitting.fit(dataset_of([column], column.codes * 2 + rng.random(200)), Recipe(n_estimators=5))
    model = writing.write(writing.model_of(trained), tmp_path / "m.npz", trained=trained)
    assert model.quantity

    answers = both(ml.load(tmp_path / "m.npz"), {"f0": [1.0, None, 3.0]})

    first = model.predict([1.0]).value
    assert [*answers[0].values()] == [first, *model.quantity.ends(first), None, None]
    assert [*answers[1].values()][:4] == [None] * 4
    assert [*answers[0]] == [
        "predicted_value", "predicted_low", "predicted_high", "prediction_notes", "prediction_error"
    ]  # fmt: skip


def test_other_columns_stay_as_they_are(scorer: ml.BatchScorer) -> None:
    others = {
        "at": pyarrow.array([datetime(2020, 1, 1, tzinfo=UTC)] * 2, pyarrow.timestamp("ns", "UTC")),
        "list": pyarrow.array([[1], [2]]),
        "predicted_label": pyarrow.array(["a", "b"]).dictionary_encode(),
        "price": pyarrow.array([Decimal("1.50"), None]),
    }
    table = pyarrow.table({**others, **{name: [value] * 2 for name, value in zip(NAMES, SAMPLE, strict=True)}})

    scored = scorer(table)

    assert scored.select(table.column_names).equals(table)
    assert scored.column_names[len(table.column_names)] == "predicted_label_2"
    columns = {name: table[name].to_pylist() for name in table.column_names}
    arrays = scorer(columns)
    assert [*arrays] == scored.column_names
    assert all(arrays[name] is column for name, column in columns.items())


def test_a_table_in_many_pieces_or_without_rows_has_the_same_columns(scorer: ml.BatchScorer) -> None:
    rows = np.random.default_rng(0).uniform(0, 8, (70_000, 4))
    table = pyarrow.table(dict(zip(NAMES, rows.T, strict=True)))
    pieces = pyarrow.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1)])

    scored = scorer(table)

    assert scorer(pieces).equals(scored)
    assert scorer(table.slice(0, 0)).schema == scored.schema
    assert scorer(table.slice(69_000)).equals(scored.slice(69_000))
    assert len(scorer({name: [] for name in NAMES})["predicted_label"]) == 0


REFUSED: dict[str, tuple[Any, str]] = {
    "no column": ({name: [1.0] for name in NAMES[:3]}, "no column is called 'petal width'"),
    "lengths": ({**{name: [1.0] for name in NAMES}, "id": [1, 2]}, "different lengths"),
    "a number": ({**{name: [1.0] for name in NAMES}, "id": 1}, "column 'id' has no length"),
    "a text": ({**{name: [1.0] for name in NAMES}, NAMES[0]: "1"}, "is no array, but of type str"),
    "a matrix": ({**{name: [1.0] for name in NAMES}, NAMES[0]: np.ones((1, 2))}, r"the shape \(1, 2\)"),
    "lists": ({**{name: [1.0] for name in NAMES}, NAMES[0]: [[1]]}, "of type list, which is no value of a cell"),
    "bytes": ({**{name: [1.0] for name in NAMES}, NAMES[0]: [b"1"]}, "of type bytes, which is no value of a cell"),
    "lists of Arrow": (
        pyarrow.table({**{name: [1.0] for name in NAMES}, NAMES[0]: [[1]]}), "of type list<.*>, which is no value"
    ),
    "rows": ([SAMPLE], "a pyarrow.Table or a mapping of column arrays, not in a builtins.list"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_columns_that_cannot_be_read_are_refused_in_a_sentence(scorer: ml.BatchScorer, name: str) -> None:
    columns, sentence = REFUSED[name]

    with pytest.raises(TableError, match=sentence):
        scorer(columns)


def test_dates_and_masked_values_are_texts_and_no_value(oracle: Oracle) -> None:
    model = ml.Model(oracle.model())
    columns: dict[str, Any] = {"f0": [1.0] * 2, "f2": np.ma.MaskedArray([1.0, 2.0], [False, True])}
    columns |= {"f3": ["no"] * 2, "f4": ["1"] * 2, "f1": np.array(["2020-01-02", "NaT"], dtype="M8[ns]")}

    answers = model.predict_batch(columns)

    assert answers["prediction_notes"].tolist() == ["f 1: '2020-01-02' was not seen in training", None]
    assert answers["prediction_error"].tolist() == [None, None]
    stamps = pyarrow.array([date(2020, 1, 2), None])
    table = pyarrow.table({**columns, "f1": stamps, "f2": [1.0, None]})
    assert rows_of(answers) == model.predict_batch(table).to_pylist()


def test_arrays_are_answered_where_there_is_no_pyarrow(model_path: Path) -> None:
    code = f"""
import sys
sys.modules["pyarrow"] = None
import ml
columns = dict(zip({NAMES!r}, [[value] for value in {SAMPLE!r}]))
assert ml.BatchScorer({str(model_path)!r})(columns)["predicted_label"].tolist() == ["versicolor"]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)


def answered_elsewhere(scorer: ml.BatchScorer) -> tuple[int, list[str], bool]:
    labels = scorer({name: [value] for name, value in zip(NAMES, SAMPLE, strict=True)})["predicted_label"].tolist()
    return len(pickle.dumps(scorer)), labels, scorer.model is pickle.loads(pickle.dumps(scorer)).model


@pytest.mark.slow
@pytest.mark.parametrize("by_bytes", [False, True], ids=["path", "bytes"])
def test_a_scorer_pickles_and_loads_its_model_once_in_each_process(model_path: Path, *, by_bytes: bool) -> None:
    scorer = ml.BatchScorer(model_path.read_bytes() if by_bytes else model_path)
    assert scorer.model.version == scorer.version

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        size, labels, is_loaded_once = pool.apply(answered_elsewhere, [scorer])

    assert (labels, is_loaded_once) == (["versicolor"], True)
    assert (size > model_path.stat().st_size) is by_bytes
    assert by_bytes or size < 1_000


def test_a_scorer_answers_when_its_file_is_gone_and_refuses_another_one(
    contents: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(contents[1])
    monkeypatch.chdir(tmp_path)
    loaded, late = ml.BatchScorer("m.npz"), None
    assert loaded.model.predict(SAMPLE).label == "versicolor"
    path.write_bytes(contents[2])
    late = ml.BatchScorer("m.npz")
    monkeypatch.chdir("/")
    path.unlink()
    assert pickle.loads(pickle.dumps(loaded)).model is loaded.model

    with pytest.raises(ModelFileError, match="No such file"):
        _ = late.model
    path.write_bytes(contents[0])
    with pytest.raises(ModelFileError, match=f"was replaced: it has version .*, not {late.version} as when"):
        _ = late.model


def test_a_scorer_is_refused_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        ml.BatchScorer(tmp_path / "none.npz")


PROGRAMS = [block for block in re.findall(r"^```python\n(.*?)^```$", (ROOT / "ml/README.md").read_text(), re.S | re.M)
            if "scorer" in block]  # fmt: skip
ENGINES = ("ml\n", "pyarrow\nfrom", "duckdb", "polars", "dask", "ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the engines' own
@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_run_the_scorer_as_the_readme_shows_it(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], engine: str
) -> None:
    (program,) = [block for block in PROGRAMS if block.startswith(f"import {engine}")]
    pytest.importorskip(engine.split(maxsplit=1)[0])
    shutil.copy(model_path, tmp_path / "model.npz")
    rows = np.random.default_rng(0).uniform(1, 8, (1_000, 4))
    keys = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    table = pyarrow.table(dict(zip(keys, rows.T, strict=True)))
    parquet.write_table(table, tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ADDRESS", "local")  # not the one that a cluster which has gone has left here
    names: dict[str, Any] = {"scorer": ml.BatchScorer("model.npz")}

    exec(compile(program, "README.md", "exec"), names)

    assert "versicolor" in capfd.readouterr().out or engine == "ray"
    expected = names["scorer"](table)
    if "scored" in names:
        column = names["scored"]["probability_setosa"]
        found = np.asarray(column.compute() if engine == "dask" else column)
        assert found.tolist() == expected["probability_setosa"].to_pylist()
    for path in tmp_path.glob("predictions*"):
        assert parquet.read_table(path).equals(expected)
