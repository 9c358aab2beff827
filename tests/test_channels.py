"""Words, missing values, yes and no, quantities: every channel takes them alike and answers as scikit-learn does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from ml.model.classifier import Classifier
from ml.training.writing import outputs_of
from tests import small_tables
from web.api.encoder import interval_of
from web.app import create_app
from web.settings import Settings

Json = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """The application with a model, and samples with what scikit-learn answers to each, shape (n, n_outputs)."""

    client: TestClient
    model: Classifier
    samples: Sequence[Json]
    rows: NDArray[np.float64]
    expected: NDArray[np.float64]


def samples_of(model: Classifier, rows: NDArray[np.float64]) -> list[Json]:
    """Return rows as programs send them."""
    return [{f.key: f.shown(value) for f, value in zip(model.features, row, strict=True)} for row in rows.tolist()]


@pytest.fixture(scope="module", params=small_tables.DATASETS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp(request.param)
    model = small_tables.written(request.param, folder)
    rows = small_tables.DATASETS[request.param]().rows
    expected = outputs_of(small_tables.trained(request.param).estimator, rows)
    with TestClient(create_app(Settings(model_file=folder / f"{request.param}.npz"))) as client:
        yield Service(client, model, samples_of(model, rows), rows, expected)


@pytest.fixture
def penguins(tmp_path: Path) -> Iterator[TestClient]:
    small_tables.written("penguins", tmp_path)
    with TestClient(create_app(Settings(model_file=tmp_path / "penguins.npz"))) as client:
        yield client


PENGUIN = {"island": "Dream", "sex": "male", "bill_length": 44.5, "body_mass": 3_900.0}


def outputs_in(service: Service, answer: Json) -> list[float]:
    """Return the outputs in one answer, and check what goes with them."""
    quantity = service.model.quantity
    if quantity is None:
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert [*answer["probabilities"]] == [*service.model.labels]
        return [*answer["probabilities"].values()]
    interval = interval_of(answer["value"], quantity.interval)
    assert answer["interval"] == {"low": interval.low, "high": interval.high, "coverage": 0.9}
    assert "label" not in answer
    return [answer["value"]]


def post(client: TestClient, **body: object) -> Json:
    response = client.post("/predict", json=body)
    answer: Json = response.json()
    return answer


def test_json_answers_each_sample_with_the_bits_of_scikit_learn(service: Service) -> None:
    for sample, expected in zip(service.samples[:60], service.expected.tolist(), strict=False):
        answer = post(service.client, sample=sample)

        assert answer["sample"] == sample
        assert outputs_in(service, answer) == expected


def test_json_answers_a_batch_as_it_answers_each(service: Service) -> None:
    answer = post(service.client, samples=service.samples)

    assert [outputs_in(service, item) for item in answer["predictions"]] == service.expected.tolist()


def test_a_query_is_answered_as_json_is(service: Service) -> None:
    for sample, expected in zip(service.samples[:30], service.expected.tolist(), strict=False):
        query = {f.key: "NA" if sample[f.key] is None else sample[f.key] for f in service.model.features}
        missing = {key: "?" for key, value in query.items() if value == "NA" and key == "carat"}

        response = service.client.get("/predict", params=query | missing, headers={"Accept": "application/json"})

        assert outputs_in(service, response.json()) == expected


def test_the_stream_answers_singly_and_in_batches(service: Service) -> None:
    with service.client.websocket_connect("/stream") as stream:
        stream.receive_json()
        for number, sample in enumerate(service.samples[:30]):
            stream.send_json({"id": number, "sample": sample})
        single = [stream.receive_json() for _ in range(30)]
        stream.send_json({"id": "all", "samples": service.samples})
        batch = stream.receive_json()

    assert [reply["id"] for reply in single] == [*range(30)]
    assert [outputs_in(service, reply) for reply in single] == service.expected[:30].tolist()
    assert outputs_of_columns(service, batch) == service.expected.tolist()


def outputs_of_columns(service: Service, batch: Json) -> list[list[float]]:
    quantity = service.model.quantity
    if quantity is None:
        return [list(row) for row in zip(*batch["probabilities"].values(), strict=True)]
    below, above = quantity.interval.below, quantity.interval.above
    assert batch["interval"]["low"] == [value - below for value in batch["values"]]
    assert batch["interval"]["high"] == [value + above for value in batch["values"]]
    return [[value] for value in batch["values"]]


def test_the_stream_announces_choices_missing_values_and_the_target(service: Service) -> None:
    with service.client.websocket_connect("/stream") as stream:
        announced = stream.receive_json()["model"]

    model = service.model
    assert announced["target"] == {"title": model.card.target.title, "unit": model.card.target.unit}
    assert announced["labels"] == [*model.labels]
    for described, feature in zip(announced["features"], model.features, strict=True):
        assert described["choices"] == [*feature.choices]
        assert described["nullable"] == feature.has_gaps
        assert described["example"] == feature.shown(feature.example)
        assert (described["low"] is None) == bool(feature.choices)


def test_binary_frames_take_nan_as_missing_and_are_refused_by_a_model_of_words(service: Service) -> None:
    with service.client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_bytes(service.rows.astype("<f4").tobytes())
        reply = stream.receive()

    if any(feature.choices for feature in service.model.features):
        assert '"status":415' in reply["text"]
        assert f"but {service.model.features[0].key} is a category: send JSON in a text frame" in reply["text"]
    else:
        single = outputs_of(small_tables.trained(service.model.name).estimator, service.rows.astype(np.float32))
        assert np.frombuffer(reply["bytes"], "<f4").tolist() == single[:, 0].astype(np.float32).tolist()
        assert np.isnan(service.rows).any()


def test_a_binary_row_without_a_value_that_is_needed_gets_nan(tmp_path: Path) -> None:
    small_tables.written("distances", tmp_path)
    rows = np.array([[np.nan, 1.0], [1.0, np.nan], [np.inf, 1.0]], dtype="<f4")
    app = create_app(Settings(model_file=tmp_path / "distances.npz"))
    with TestClient(app) as client, client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_bytes(rows.tobytes())
        reply = np.frombuffer(stream.receive_bytes(), "<f4")

    assert np.isnan(reply).tolist() == [False, True, True]


def test_an_unknown_word_is_echoed_and_noted_alone_and_in_a_batch(penguins: TestClient) -> None:
    sample = {**PENGUIN, "island": "Nowhere"}
    note = {"feature": "island", "code": "unknown_choice", "message": "island: 'Nowhere' was not seen in training"}

    alone = post(penguins, sample=sample)
    batch = post(penguins, samples=[PENGUIN, sample])

    assert alone["sample"] == sample
    assert alone["notes"] == [note]
    assert [item["notes"] for item in batch["predictions"]] == [[], [note]]
    assert batch["predictions"][1]["probabilities"] == alone["probabilities"]


def test_true_and_false_are_the_choices_that_say_so(tmp_path: Path) -> None:
    small_tables.written("answers", tmp_path)
    with TestClient(create_app(Settings(model_file=tmp_path / "answers.npz"))) as client:
        answer = post(client, sample={"smoker": True, "active": False, "age": 40})

    assert answer["sample"] == {"smoker": "yes", "active": "False", "age": 40.0}
    assert answer["notes"] == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"island": None}, "missing"),
        ({"island": " "}, "missing"),
        ({"island": ["Dream"]}, "not_a_choice"),
        ({"bill_length": "Dream"}, "not_a_number"),
        ({"body_mass": None}, "missing"),
        ({"body_mass": "NA"}, "not_a_number"),
        ({"Island": "Dream"}, "named_twice"),
    ],
)
def test_what_a_feature_does_not_take_is_an_error_of_its_own(penguins: TestClient, changed: Json, code: str) -> None:
    problem = post(penguins, sample=PENGUIN | changed)

    assert [error["code"] for error in problem["errors"]] == [code]


def test_a_literal_nan_is_not_json(penguins: TestClient) -> None:
    body = '{"sample": {"island": "Dream", "sex": null, "bill_length": NaN, "body_mass": 3900}}'

    response = penguins.post("/predict", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 400


def test_a_feature_is_taken_by_its_header(penguins: TestClient) -> None:
    by_header = {"Island": "Dream", "sex": "male", "Bill length (mm)": 44.5, "Body mass (g)": 3_900}

    assert post(penguins, sample=by_header) == post(penguins, sample=PENGUIN)


TWICE = '"island": "Dream", "island": "Biscoe", "sex": "male", "bill_length": 44, "body_mass": 3900'


def test_a_feature_that_is_named_twice_is_an_error_on_every_channel(penguins: TestClient) -> None:
    query = "island=Dream&sex=male&island=Biscoe&bill_length=44&body_mass=3900"
    json_type = {"Content-Type": "application/json"}
    form_type = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    with penguins.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_text(f'{{"sample": {{{TWICE}}}}}')
        stream.send_text(f'{{"samples": [{{{TWICE}}}]}}')
        frames = [stream.receive_json()["error"] for _ in range(2)]

    problems = [
        penguins.get(f"/predict?{query}", headers={"Accept": "application/json"}).json(),
        penguins.post("/predict", content=query, headers=form_type).json(),
        penguins.post("/predict", content=f'{{"sample": {{{TWICE}}}}}', headers=json_type).json(),
        penguins.post("/predict", content=f'{{"samples": [{{{TWICE}}}]}}', headers=json_type).json(),
        *frames,
    ]

    for problem in problems:
        assert problem["status"] == 422
        assert [(error["code"], error["value"]) for error in problem["errors"]] == [("named_twice", "Biscoe")]


@pytest.mark.parametrize(
    ("content", "kind"), [(b'{"sample": [1, 2]}', "JSON"), (b"1.5,-0.25", "CSV"), (b"X,Y\n1,2\n1.5,-0.25,", "CSV")]
)
def test_text_in_a_binary_frame_is_told_from_numbers(tmp_path: Path, content: bytes, kind: str) -> None:
    small_tables.written("distances", tmp_path)
    app = create_app(Settings(model_file=tmp_path / "distances.npz"))
    with TestClient(app) as client, client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_bytes(content)
        error = stream.receive_json()["error"]

    assert error["status"] == 415
    assert error["detail"].startswith(f"this is {kind} in a binary frame")


def test_predicted_quantities_are_counted_at_the_deciles_of_the_training_rows(tmp_path: Path) -> None:
    model = small_tables.written("distances", tmp_path)
    with TestClient(create_app(Settings(model_file=tmp_path / "distances.npz"))) as client:
        value = post(client, sample=[1, 1])["value"]
        post(client, samples=[[1, 1]] * 3)
        text = client.get("/metrics").text

    assert model.quantity
    labels = f'channel="json",le="%s",version="{model.version}"'
    for bound in model.quantity.quantiles:
        count = 4.0 if value <= bound else 0.0
        assert f"predicted_value_bucket{{{labels % bound}}} {count}\n" in text
    assert f"predicted_value_bucket{{{labels % '+Inf'}}} 4.0\n" in text
    assert "predictions_total{" not in text


def test_the_histogram_of_a_model_ends_with_it(tmp_path: Path) -> None:
    first, second = small_tables.written("distances", tmp_path), small_tables.written("prices", tmp_path)
    app = create_app(Settings(model_file=tmp_path / "distances.npz"))
    with TestClient(app) as client:
        post(client, sample=[1, 1])
        app.service.metrics.flush()
        app.service.metrics.model_loaded(second)
        text = client.get("/metrics").text

    assert first.version not in text


def test_missing_values_and_unknown_words_are_counted(penguins: TestClient) -> None:
    post(penguins, samples=[{**PENGUIN, "sex": None}, {**PENGUIN, "island": "Nowhere"}, PENGUIN])

    text = penguins.get("/metrics").text

    assert 'model_input_values_missing_total{feature="sex"} 1.0' in text
    assert 'model_input_values_outside_total{feature="island"} 1.0' in text
    assert 'model_input_values_missing_total{feature="island"}' not in text
    assert "model_input_samples_outside_total 1.0" in text


def test_the_values_of_no_row_are_missing_where_scikit_learn_has_a_value(service: Service) -> None:
    """The tables of these tests have what they are about."""
    lacks = {f.key for f in service.model.features if any(sample[f.key] is None for sample in service.samples)}

    assert lacks == {feature.key for feature in service.model.features if feature.has_gaps}
    assert not any(math.isnan(output) for row in service.expected.tolist() for output in row)
