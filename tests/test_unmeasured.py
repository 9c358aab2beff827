"""python -m ml import without a table: what the file says is served, and nothing is claimed that nobody knows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import ml
from ml.__main__ import main
from ml.model.loaded import LoadedModel, load_model
from tests import library_files as files
from tests.conftest import output_of, parse_html
from tests.library_files import COLOUR, WORDS, Oblivious, Split
from web.app import create_app
from web.settings import Settings

BORDER = Split(0, 0.5, -2.0, 2.0, missing_left=True)
BY_COLOUR = Split(COLOUR, 0.0, -2.0, 2.0, missing_left=True, codes=frozenset({0, 2}))
# LightGBM writes so where any value goes left, and no value right.
ANY_VALUE = Split(1, 1e300, 0.25, -0.5)
MODELS: dict[str, Any] = {
    "XGBoost": files.xgboost([BORDER], objective="binary:logistic"),
    "LightGBM": files.lightgbm([BORDER, BY_COLOUR], objective="binary sigmoid:1", words=True),
    "LightGBM with a threshold beyond all values": files.lightgbm([BORDER, ANY_VALUE], objective="binary sigmoid:1"),
    "CatBoost": files.catboost([Oblivious(((0, 0.0), (1, 2.0)), (1.0, 5.0, 2.0, 3.0))], bias=0.5),
    "no names": files.xgboost([BORDER], names=False),
}  # fmt: skip


def imported(folder: Path, content: Any, *arguments: str) -> Path:
    file, path = folder / "plants.json", folder / "plants.npz"
    file.write_text(content if isinstance(content, str) else json.dumps(content, separators=(",", ":")))
    assert main(["import", str(file), "--out", str(path), *arguments]) == 0
    return path


@pytest.fixture(scope="module", params=MODELS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, LoadedModel]]:
    path = imported(tmp_path_factory.mktemp("models"), MODELS[request.param])
    with TestClient(create_app(Settings(model_file=path))) as client:
        yield client, load_model(path)


def test_what_the_file_says_is_in_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--labels", "wild,grown", "--target", "kind", "--limits", "width=0:9", "--threshold", "wild=0.1"]

    model = load_model(imported(tmp_path, MODELS["XGBoost"], *options))

    said, card = capsys.readouterr().out, model.card
    assert "no report: it was imported without a table" in said
    assert "no feature may lack a value" in said
    assert (card.report, card.labels, card.target.title, card.trees) == (None, ("wild", "grown"), "kind", 1)
    assert card.source == "xgboost 3.2.0, its file alone: no table was named"
    assert [(f.key, f.unit, f.minimum, f.has_range) for f in card.features] == [
        ("length", "cm", None, False), ("width", "cm", 0, False),
    ]  # fmt: skip
    assert [model.predict([value, 0.0]).label for value in (0.49, 0.5)] == ["wild", "wild"]
    assert model.features[0].low < 0.5 < model.features[0].high


def test_the_span_of_a_quantity_is_that_of_answers_on_both_sides_of_all_thresholds(tmp_path: Path) -> None:
    # Beside a threshold of 0 lie numbers that are 0 as a float32.
    model = load_model(imported(tmp_path, files.catboost([Oblivious(((0, 0.0),), (1.0, 5.0))], bias=0.5)))

    assert model.quantity is not None
    assert (model.quantity.low, model.quantity.high, model.quantity.interval) == (1.5, 5.5, None)
    assert len(model.reference_rows) == 0


@pytest.mark.parametrize(
    "content",
    [
        files.xgboost([Split(0, -1e39, 3.0, 2.0), Split(1, 0.5, 1.0, 2.0)], base_score="0"),
        files.lightgbm([Split(0, math.inf, 2.0, 3.0), Split(1, 0.5, 1.0, 2.0)], missing=files.NONE),
    ],
    ids=["XGBoost, below all numbers", "LightGBM, above all numbers"],
)
def test_a_threshold_beyond_all_numbers_sends_every_row_one_way(tmp_path: Path, content: Any) -> None:
    path = imported(tmp_path, content)

    for max_cells in (1_000, 0):
        model = load_model(path, max_cells=max_cells)
        assert [model.predict([0.0, value]).value for value in (0.25, 0.75)] == [3.0, 4.0]


def test_ranges_and_words_of_the_file_are_kept(tmp_path: Path) -> None:
    model = load_model(imported(tmp_path, MODELS["LightGBM"]))

    assert [model.features[0].training_range, model.features[1].training_range] == [(-3, 3.5), (-2, 2)]
    assert model.features[COLOUR].choices == WORDS
    assert [note.code for note in model.validator.notes([4.0, 0.0, -1.0])] == [
        "outside_training_range", "unknown_choice",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--labels", "a,b,c"], "the model has 2 classes, and --labels names 3 different ones"),
        (["--limits", "weight=0:"], "limits for 'weight', which is not a feature"),
        (["--threshold", "x=0.3"], "a threshold for 'x', not a class: '0' and '1' are"),
        (["--drop", "length", "--decimal", ","], "--drop, --decimal: of a table, which --data names"),
    ],
)
def test_options_that_do_not_fit_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps(MODELS["XGBoost"], separators=(",", ":")))

    assert main(["import", str(file), "--out", str(tmp_path / "m.npz"), *arguments]) == 1

    assert sentence in capsys.readouterr().err


def test_the_page_claims_nothing_that_is_not_known(served: tuple[TestClient, LoadedModel]) -> None:
    client, model = served
    page = parse_html(client.get("/").text)

    card = page.one("section", id="card").text
    ranged = [feature for feature in model.features if feature.has_range and not feature.choices]
    assert "not tested: imported without a table" in card
    assert "nothing says how good its answers are" in card
    assert "importance" not in card.lower()
    assert "test rows" not in card
    assert page.one("form", id="measurements").text.count("training range") == len(ranged)
    assert "%(" not in page.text
    if model.quantity:
        assert "cases lie between" not in page.text
    spans = [f.title for f in model.features if f.has_range]
    assert client.get("/docs").text.count("in the training data") >= len(spans)


def test_programs_get_answers_without_what_is_not_known(served: tuple[TestClient, LoadedModel]) -> None:
    client, model = served
    row = [feature.example for feature in model.features]
    sample = [feature.shown(value) for feature, value in zip(model.features, row, strict=True)]

    answer = client.post("/predict", json={"sample": sample}, headers={"Accept": "application/json"}).json()
    with client.websocket_connect("/stream") as stream:
        announced = stream.receive_json()["model"]
        stream.send_json({"id": 1, "sample": sample})
        one = stream.receive_json()
        stream.send_json({"id": 2, "samples": [sample, sample]})
        many = stream.receive_json()

    prediction = model.predict(row)
    assert answer["notes"] == []
    assert "interval" not in answer | one | many
    assert "interval" not in client.get("/openapi.json").json()["components"]["schemas"]["Answer"]["properties"]
    if model.quantity:
        assert (answer["value"], one["value"], many["values"]) == (prediction.value,) * 2 + ([prediction.value] * 2,)
    else:
        assert (answer["label"], one["label"], many["labels"]) == (prediction.label,) * 2 + ([prediction.label] * 2,)
    for feature, described in zip(model.features, announced["features"], strict=True):
        assert (described["importance"], described["quantiles"]) == (None, [])
        assert (described["low"] is None) == (bool(feature.choices) or not feature.has_range)


def test_inputs_are_compared_with_nothing(served: tuple[TestClient, LoadedModel]) -> None:
    client, _ = served
    client.get("/predict", params={"length": "1", "width": "9", "colour": "red"})

    report = client.get("/health/drift", headers={"Accept": "application/json"}).json()
    assert report["verdict"] == "no training data"
    assert [(one["features"], one["by_chance"]) for one in report["sources"]] == [([], None), ([], None)]
    assert "imported without a table" in client.get("/health/drift").text
    assert 'model_input_samples_outside_total{source="page"} 0' in client.get("/metrics").text


def test_a_table_gets_values_without_ends(tmp_path: Path) -> None:
    path = imported(tmp_path, MODELS["CatBoost"])
    (tmp_path / "rows.csv").write_text("length,width\n1,2\n")

    scored = output_of("score", path, "rows.csv", cwd=tmp_path).splitlines()
    answers = ml.load(path).predict_batch({"length": [1.0], "width": [2.0]})

    value = load_model(path).predict([1.0, 2.0]).value
    assert scored == [
        "length,width,predicted_value,predicted_low,predicted_high,prediction_notes,prediction_error",
        f"1,2,{value},,,,",
    ]
    assert answers["predicted_value"].tolist() == [value]
    assert np.isnan([answers["predicted_low"], answers["predicted_high"]]).all()
