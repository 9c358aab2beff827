"""python -m ml import: a model file out of another library's file and a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ml
from ml.__main__ import main
from ml.model.card import Decision, QuantityReport, Report
from ml.model.loaded import load_model
from tests import library_files as files
from tests.library_files import COLOUR, WORDS, Oblivious, Split, Tree

# Left of 0.5 the first class, else the second; no value goes left.
BORDER = Split(0, 0.5, -2.0, 2.0, missing_left=True)


def written(path: Path, content: dict[str, Any] | str | bytes) -> Path:
    text = json.dumps(content, separators=(",", ":")) if isinstance(content, dict) else content
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def table(path: Path, *, rows: int = 40, seed: int = 0, words: tuple[str, str] = ("a", "b"), header: str = "") -> Path:
    """Write a table whose class is the second where its first column is at least 0.5."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0.5, 1, rows).round(2), rng.normal(size=rows).round(2)
    lines = [f"{a},{b},{words[int(a >= 0.5)]}" for a, b in zip(first, second, strict=True)]
    path.write_text("\n".join([header or "length (cm),width (cm),kind", *lines]) + "\n")
    return path


def run(tmp_path: Path, *arguments: object) -> int:
    return main(["import", *map(str, arguments), "--out", str(tmp_path / "model.npz")])


def binary(**changes: Any) -> dict[str, Any]:
    return files.xgboost([BORDER], objective="binary:logistic", **changes)


def test_an_imported_model_is_served_as_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "plants.json", binary())

    status = run(tmp_path, file, "--data", table(tmp_path / "rows.csv"))

    said = capsys.readouterr().out
    assert status == 0
    assert "XGBoost, binary:logistic: 1 trees, 2 leaves, by xgboost 3.2.0" in said
    model = load_model(tmp_path / "model.npz")
    card = model.card
    assert (card.name, card.labels, card.estimator) == ("plants", ("a", "b"), "XGBoost, binary:logistic")
    assert card.libraries["xgboost"] == "3.2.0"
    assert card.source == "xgboost 3.2.0, measured on rows.csv: 40 rows"
    assert card.promise == "scores"
    assert [(feature.key, feature.unit, feature.has_gaps) for feature in card.features] == [
        ("length", "cm", False), ("width", "cm", False),
    ]  # fmt: skip
    assert isinstance(card.report, Report)
    assert (card.report.accuracy, card.report.test_rows, card.report.train_rows) == (1.0, 40, None)
    assert [model.predict([value, 0.0]).label for value in (0.49, 0.5)] == ["a", "b"]


def test_labels_are_named_in_the_order_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "plants.json", binary())
    rows = table(tmp_path / "rows.csv", words=("wild", "grown"))

    by_itself, by_name = run(tmp_path, file, "--data", rows), run(tmp_path, file, "--data", rows, "--labels=wild,grown")

    # In the order of the words, "grown" would be the first class.
    error = capsys.readouterr().err
    assert (by_itself, by_name) == (1, 0)
    assert "error: the model has an accuracy of 0.000" in error
    assert "--labels" in error
    assert load_model(tmp_path / "model.npz").predict([0.4, 0.0]).label == "wild"


def test_a_threshold_decides_on_the_label_and_the_report_counts_so(tmp_path: Path) -> None:
    file = written(tmp_path / "plants.json", binary())

    # The probability of the second class is 0.12 or 0.88.
    assert run(tmp_path, file, "--data", table(tmp_path / "rows.csv"), "--threshold", "a=0.1") == 0

    model = load_model(tmp_path / "model.npz")
    assert model.card.decision == Decision(positive="a", threshold=0.1)
    assert [model.predict([value, 0.0]).label for value in (0.4, 0.6)] == ["a", "a"]
    assert isinstance(model.card.report, Report)
    assert model.card.report.recall == (1.0, 0.0)


def test_numbers_of_classes_in_the_table_get_the_names_of_the_option(tmp_path: Path) -> None:
    file = written(tmp_path / "plants.json", binary())

    run(tmp_path, file, "--data", table(tmp_path / "rows.csv", words=("0", "1")), "--labels", "wild,grown")

    model = load_model(tmp_path / "model.npz")
    assert isinstance(model.card.report, Report)
    assert (model.labels, model.card.report.accuracy) == (("wild", "grown"), 1.0)


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    file = written(tmp_path / "m.txt", files.lightgbm([BORDER], objective="binary sigmoid:1"))
    rows = tmp_path / "rows.csv"
    rows.write_text("kind,more,Width (cm),length (cm)\n" + "a,x,1,0.1\nb,y,2,0.9\n" * 5)

    assert run(tmp_path, file, "--data", rows, "--target", "kind") == 0

    model = load_model(tmp_path / "model.npz")
    assert [feature.key for feature in model.features] == ["length", "width"]
    assert isinstance(model.card.report, Report)
    assert model.card.report.accuracy == 1.0


def test_a_file_without_names_takes_the_columns_in_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "m.json", binary(names=False))
    rows = tmp_path / "rows.csv"
    rows.write_text("id,one,two,kind\n" + "1,0.1,1,a\n2,0.9,2,b\n" * 5)

    refused, taken = run(tmp_path, file, "--data", rows), run(tmp_path, file, "--data", rows, "--drop", "id")

    assert (refused, taken) == (1, 0)
    assert "the model has 2 features without names, and the table 3 columns besides the target: --drop" in (
        capsys.readouterr().err
    )
    assert [feature.key for feature in load_model(tmp_path / "model.npz").features] == ["one", "two"]


def tree_of_words() -> Tree:
    return Split(COLOUR, 0.0, -2.0, 2.0, missing_left=True, codes=frozenset({0, 2}))


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_words_are_those_of_the_file_and_no_value_is_not_an_unknown_word(tmp_path: Path, library: str) -> None:
    if library == "xgboost":
        content: Any = files.xgboost([tree_of_words()], objective="binary:logistic", words=True)
    else:
        content = files.lightgbm([tree_of_words()], objective="binary sigmoid:1", words=True)
    file = written(tmp_path / "m", content)
    rows = tmp_path / "rows.csv"
    lines = "1,2,red,no\n1,2,green,yes\n3,1,blue,no\n2,2,yellow,yes\n2,2,pink,yes\n2,2,,no\n"
    rows.write_text("length (cm),width (cm),colour,kind\n" + lines * 4)

    assert run(tmp_path, file, "--data", rows) == 0

    model = load_model(tmp_path / "model.npz")
    assert model.features[COLOUR].choices == WORDS
    assert model.features[COLOUR].has_gaps
    answers = [model.predict(row).label for row in ([0, 0, 0.0], [0, 0, 1.0], [0, 0, 2.0])]
    assert answers == ["no", "yes", "no"]
    lacking = [model.predict([0, 0, value]).label for value in (np.nan, -1.0)]
    assert lacking == (["no", "no"] if library == "xgboost" else ["yes", "yes"])


def test_a_quantity_gets_an_interval_from_the_rows(tmp_path: Path) -> None:
    file = written(tmp_path / "m.json", files.catboost([Oblivious(((0, 0.0),), (1.0, 5.0))], bias=0.5))
    rows = tmp_path / "rows.csv"
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    lines = [f"{value},0,{(5.5 if value > 0 else 1.5) + rng.normal() / 10}" for value in values]
    rows.write_text("\n".join(["length (cm),width (cm),price", *lines]) + "\n")

    assert run(tmp_path, file, "--data", rows) == 0

    model = load_model(tmp_path / "model.npz")
    assert model.quantity is not None
    assert 0 < model.quantity.ends(0.0)[1] < 1
    assert isinstance(model.card.report, QuantityReport)
    assert model.card.report.r2 > 0.99
    assert [model.predict([value, 0.0]).value for value in (0.0, 0.1)] == [1.5, 5.5]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--drop", "width (cm)", "--labels", "a"], "the model has 2 classes, and --labels names 1"),
        (["--labels", "x,y"], "the table has the class 'a', and the model has 2: x, y"),
        (["--target", "length (cm)"], "column 'length (cm)' is a feature of the model"),
        (["--target", "weight"], "no column is called 'weight': length (cm), width (cm), kind"),
    ],
)
def test_what_does_not_fit_the_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    file = written(tmp_path / "m.json", binary())

    status = run(tmp_path, file, "--data", table(tmp_path / "rows.csv"), *arguments)

    assert status == 1
    assert sentence in capsys.readouterr().err


def test_a_feature_that_the_table_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "m.json", binary())

    assert run(tmp_path, file, "--data", table(tmp_path / "rows.csv", header="length,height,kind")) == 1

    assert "no column is called 'width (cm)': length, height, kind" in capsys.readouterr().err


def test_words_where_the_model_compares_numbers_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "m.json", binary())
    rows = tmp_path / "rows.csv"
    rows.write_text("length (cm),width (cm),kind\n" + "0.1,wide,a\n0.9,slim,b\n0.8,slim,b\n" * 5)

    assert run(tmp_path, file, "--data", rows) == 1

    assert "column 'width (cm)' holds words such as 'slim', and the model compares numbers" in capsys.readouterr().err


def test_yes_and_no_are_one_and_zero_to_the_model(tmp_path: Path) -> None:
    file = written(tmp_path / "m.json", binary())
    rows = tmp_path / "rows.csv"
    rows.write_text("length (cm),width (cm),kind\n" + "False,1,a\nTrue,2,b\nTrue,1,b\n" * 5)

    assert run(tmp_path, file, "--data", rows) == 0

    model = load_model(tmp_path / "model.npz")
    assert model.features[0].choices == ("False", "True")
    assert isinstance(model.card.report, Report)
    assert model.card.report.accuracy == 1.0


class Booster:
    """What a booster of LightGBM has that an export needs."""

    n_saved = 0

    def model_to_string(self) -> str:
        self.n_saved += 1
        return files.lightgbm([BORDER], objective="binary sigmoid:1")

    def predict(self, rows: Any) -> Any:
        return 1 / (1 + np.exp(-np.where(np.asarray(rows)[:, 0] <= 0.5, -2.0, 2.0)))


Booster.__module__ = "lightgbm.basic"


def test_a_booster_of_a_session_is_exported_as_its_library_would_save_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", SimpleNamespace(__version__="4.7.0"))
    booster, rows = Booster(), np.column_stack([np.linspace(0, 1, 20), np.zeros(20)])

    model = ml.export(
        booster, rows, (rows[:, 0] > 0.5).astype(int), feature_names=["length", "width"], path=tmp_path / "m.npz"
    )

    assert (model.card.estimator, model.card.libraries["lightgbm"], model.labels) == ("Booster", "4.7.0", ("0", "1"))
    assert [model.predict([value, 0.0]).label for value in (0.5, 0.51)] == ["0", "1"]
    assert booster.n_saved == 1, "a large one takes seconds to save and read"
