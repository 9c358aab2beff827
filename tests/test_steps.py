"""Forests at the end of a pipeline: the file answers words, gaps and numbers as the pipeline does, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import ml
from ml.model.loaded import LoadedModel, load_model
from tests import passengers
from tests.conftest import EVALUATORS, parse_html
from tests.passengers import PIPELINES, TEST, questions
from web.app import create_app
from web.settings import Settings

N_ROWS = 10_000
ONE_BY_ONE = 300


class Exported:
    """A fitted pipeline, and its model file."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = folder / "passengers.npz"
        self.pipeline, true = passengers.fitted(name)
        self.table = passengers.table_of(name)
        self.model: LoadedModel = ml.export(self.pipeline, self.table[TEST], true[TEST], path=self.path)

    def taken(self, table: Any) -> Any:
        """Return a table with the types that the pipeline was fitted on."""
        kinds = self.table.dtypes
        return table[[*self.table.columns]].astype(kinds[kinds == "category"].to_dict())

    def expected(self, table: Any) -> Any:
        """Return what the pipeline itself says of a table."""
        table = self.taken(table)
        if self.model.labels:
            return self.pipeline.predict_proba(table)
        return self.pipeline.predict(table)[:, None]


@pytest.fixture(scope="module", params=PIPELINES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(request.param, tmp_path_factory.mktemp("pipeline"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_a_file_answers_as_the_pipeline_does(exported: Exported) -> None:
    samples, table = questions(exported.model, N_ROWS)
    expected = exported.expected(table)
    labels = exported.pipeline.predict(exported.taken(table))
    rows = [exported.model.validator.row(sample) for sample in samples]
    for options in EVALUATORS.values():
        model = load_model(exported.path, **options)

        answers = model.predict_batch(np.array(rows))
        one_by_one = [model.predict(row) for row in rows[:ONE_BY_ONE]]

        assert np.array_equal(answers.outputs, expected)
        assert np.array_equal([one.probabilities or (one.value,) for one in one_by_one], expected[:ONE_BY_ONE])
        if model.labels:
            assert [model.labels[index] for index in answers.indices] == labels.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_json_and_stream_answer_as_the_pipeline_does(exported: Exported) -> None:
    samples, table = questions(exported.model, 40)
    expected = exported.expected(table)

    with TestClient(create_app(Settings(model_file=exported.path))) as client:
        answers = client.post("/predict", json={"samples": samples}).json()["predictions"]
        with client.websocket_connect("/stream") as stream:
            stream.receive_json()
            for sample in samples:
                stream.send_json({"sample": sample})
            streamed = [stream.receive_json() for _ in samples]

    for found in (answers, streamed):
        values = [[*one["probabilities"].values()] if exported.model.labels else [one["value"]] for one in found]
        assert np.array_equal(values, expected)


def test_the_features_are_what_a_person_enters(tmp_path: Path) -> None:
    features = Exported("imputer with indicators and scaler, one-hot", tmp_path).model.features

    assert [(f.key, f.unit, f.choices, f.has_gaps, f.is_closed) for f in features] == [
        ("age", "years", (), True, False),
        ("fare", "", (), True, False),
        ("sex", "", ("female", "male"), True, False),
        ("port", "", ("C", "Q", "S"), True, False),
        ("deck", "", tuple("ABCDEFG"), True, False),
    ]


@pytest.mark.slow
def test_words_that_the_pipeline_refuses_are_errors_of_a_sample(tmp_path: Path) -> None:
    exported = Exported("words without a way out, numbers as words, true and false", tmp_path)
    samples, _ = questions(exported.model, 1)

    with TestClient(create_app(Settings(model_file=exported.path))) as client:
        answers = [
            client.post("/predict", json={"sample": samples[0] | wrong})
            for wrong in ({"sex": "other"}, {"class": 4}, {"sex": None})
        ]
        known = client.post("/predict", json={"sample": samples[0] | {"class": "2", "alone": False, "port": None}})

    assert [answer.status_code for answer in answers] == [422] * 3
    errors = [answer.json()["errors"][0] for answer in answers]
    assert [error["code"] for error in errors] == ["not_a_choice", "not_a_choice", "missing"]
    assert errors[1]["message"] == "class: '4' is not one of the choices"
    assert known.status_code == 200


def test_the_page_says_what_the_steps_do(tmp_path: Path) -> None:
    exported = Exported("imputer with indicators and scaler, one-hot", tmp_path)

    with TestClient(create_app(Settings(model_file=exported.path))) as client:
        card, spanish = (
            parse_html(client.get("/", headers={"Accept-Language": language}).text).one("section", id="card").text
            for language in ("en", "es")
        )

    assert "age, fare: a missing value is replaced by the median" in card
    assert "sex, port, deck: each choice has a column" in card
    assert "age, fare: un valor ausente se sustituye por la mediana" in spanish
