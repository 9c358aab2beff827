"""The answers along each feature: every piece of a line says what the model answers there."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from sklearn.tree import ExtraTreeClassifier
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from ml.model import loaded, modelfile
from ml.model.loaded import LoadedModel, load_model
from ml.model.nearest import explain
from ml.model.strips import MOST_PIECES, strips
from tests.conftest import EVALUATORS, for_each, parse_html
from tests.pipelines import sample_of
from tests.test_mixed_tables import oracle
from tests.test_modelfile import serve, with_total
from tests.test_nearest import digits, digits_path, exported  # noqa: F401  # fixtures
from web.app import create_app
from web.page import pages
from web.page.languages import language
from web.page.strips import strips_of
from web.settings import Settings


@for_each("kind", ["words and numbers", "gaps in words and numbers", "many columns"])
@for_each("evaluator", EVALUATORS)
@for_each("quantity", [False, True])
def test_every_piece_of_a_line_has_the_answer_of_the_rows_in_it(kind: str, evaluator: str, *, quantity: bool) -> None:
    found = oracle(kind, 0, "random-forest", quantity=quantity)
    model, rng = found.model(evaluator), np.random.default_rng(0)

    for cells in found.questions(rng, 3).tolist():
        row = model.validator.row(sample_of(cells))
        drawn = strips(model, row)
        assert len(drawn) == len(row)
        for position, (feature, line) in enumerate(zip(model.features, drawn, strict=True)):
            assert len(line.indices) == len(line.answers) == len(line.ends) - 1
            tried = [float(choice) for choice in range(len(feature.choices))] or [
                rng.uniform(np.nextafter(low, np.inf), high) for low, high in pairwise(line.ends)
            ]
            if not feature.choices:
                assert (line.ends[0], line.ends[-1]) == (feature.low, feature.high)
            for value, index, answer in zip(tried, line.indices, line.answers, strict=True):
                there = [*row[:position], value, *row[position + 1 :]]
                prediction = model.predict(there)
                assert prediction.index == index
                assert answer == (prediction.value if quantity else max(prediction.probabilities))


@pytest.mark.parametrize("rule", ["positive", "not_negative", "sums"])
def test_a_quantity_has_no_label_whatever_a_crafted_file_says_of_one(rule: str) -> None:
    found = oracle("words and numbers", 0, "random-forest", quantity=True)
    model = serve(with_total(modelfile.dump(found.stored), label_by=rule))
    row = [feature.example for feature in model.features]

    assert not model.predict_batch(np.array([row])).indices.any()
    assert strips(model, row) == strips(found.model(), row)


def test_a_line_of_many_cuts_is_bounded(digits: LoadedModel) -> None:  # noqa: F811
    row = [feature.example for feature in digits.features]

    assert max(len(line.indices) for line in strips(digits, row)) <= MOST_PIECES


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_lines_are_the_same_where_fewer_rows_are_answered_at_once(
    evaluator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = oracle("gaps in words and numbers", 0, "random-forest", quantity=False).model(evaluator)
    rows = model.reference_rows[:5].tolist()
    expected = [(strips(model, row), explain(model, row)) for row in rows]

    monkeypatch.setattr(loaded, "MAX_VALUES", 7 * len(model.features))

    assert [(strips(model, row), explain(model, row)) for row in rows] == expected


@pytest.mark.slow
@pytest.mark.parametrize("compiles", [True, False])
def test_lines_of_thousands_of_features_take_little_memory(tmp_path: Path, *, compiles: bool) -> None:
    rng = np.random.default_rng(0)
    rows, classes = rng.normal(size=(60, 3_000)), np.arange(60) % 2
    exported(ExtraTreeClassifier(random_state=0).fit(rows, classes), rows, classes, tmp_path)
    model = load_model(tmp_path / "model.npz", max_cells=0, compiles=compiles)
    row = rows[0].tolist()

    tracemalloc.start()
    try:
        drawn = strips(model, row)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(drawn) == 3_000
    assert peak < 20 * 2**20  # rows of all features would take 144 MB


@pytest.mark.parametrize(("code", "words"), [("en", "along it the answer is"), ("es", "a lo largo de ella")])
def test_a_line_is_said_in_words_and_covers_the_whole_width(model: LoadedModel, code: str, words: str) -> None:
    for row in model.reference_rows[::20].tolist():
        for view, line in zip(strips_of(model, row, language(code), scale=None), strips(model, row), strict=True):
            (pieces,) = view.lines
            assert sum(float(piece.width) for piece in pieces) == pytest.approx(100, abs=0.2 * len(pieces))
            assert {model.labels[index] for index in line.indices} >= {
                label for label in model.labels if re.search(rf"\b{label}\b", view.said)
            }
            assert len({*line.indices}) == 1 or view.said.startswith(words)


def test_a_line_without_some_of_its_cuts_says_so_whatever_its_answers_are(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = [feature.example for feature in model.features]
    n_cuts = max(len(strip.ends) for strip in strips(model, row)) - 2

    for most in (n_cuts + 1, 5, 2):
        monkeypatch.setattr("ml.model.strips.MOST_PIECES", most)
        said = [view.said for view in strips_of(model, row, language("en"), scale=None)]
        is_coarse = [strip.is_coarse for strip in strips(model, row)]
        assert [one.endswith("; not every value was tried") for one in said] == is_coarse
        assert any(is_coarse) == (most <= n_cuts)
    assert any(" stays " in one for one in said)


def test_without_a_script_a_form_shows_the_lines_and_reasons_that_a_page_has_no_time_for(
    digits: LoadedModel,  # noqa: F811
    digits_path: Path,  # noqa: F811
) -> None:
    with TestClient(create_app(Settings(model_file=digits_path))) as client:
        opened = parse_html(client.get("/").text)
        form = {key: str(value) for key, value in zip(digits.validator.keys, digits.reference_rows[0], strict=True)}
        sent = parse_html(client.post("/result", data=form).text)
        wrong = parse_html(client.post("/result", data=form | {"f0": "x"}).text)

    lines = {"class": "line"}
    assert [line.all("rect") for line in opened.all("svg", **lines)] == [[]] * 64
    assert "Predict" in opened.one(id="why").one("noscript").text
    assert all(line.all("rect") for line in sent.all("svg", **lines))
    assert len(sent.one(id="why").all("tr")) == 5
    assert sent.one(id="why").all("noscript") == []
    assert [line.all("rect") for line in wrong.all("svg", **lines)] == [[]] * 64


def test_reasons_of_a_model_that_was_replaced_meanwhile_are_not_on_the_page_of_the_new_one(
    digits_path: Path,  # noqa: F811
    model: LoadedModel,
) -> None:
    form = urlencode({f"f{number}": "1" for number in range(64)}).encode()
    app = create_app(Settings(model_file=digits_path))
    with TestClient(app):
        scope = {
            "type": "http", "method": "POST", "path": "/result", "root_path": "", "scheme": "http",
            "server": ("testserver", 80), "query_string": b"", "state": {"service": app.service},
            "headers": [(b"content-type", b"application/x-www-form-urlencoded")],
        }  # fmt: skip

        async def receive() -> Message:
            return {"type": "http.request", "body": form}

        async def replaced() -> bytes:
            asked = asyncio.create_task(pages.result(Request(scope, receive)))
            await asyncio.sleep(0)  # up to the explanation, in its thread
            app.service.model = model
            return bytes((await asked).body)

        page = parse_html(asyncio.run(replaced()).decode())

    assert page.one("form", id="measurements").attributes["data-features"] == model.interface
    assert "digit" not in page.one(id="why").text
    assert page.one(id="why").all("tr") == []
