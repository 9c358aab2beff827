"""Words, missing values, yes and no, quantities: every channel takes them alike and answers as scikit-learn does."""

from __future__ import annotations

import asyncio
import csv
import io
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from starlette.testclient import TestClient

from ml.cli.reports import prediction_json
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.model.values import no_value_text
from ml.tables.reading import read_dataset
from ml.training import fitting, writing
from ml.training.writing import outputs_of
from tests import small_tables
from tests.conftest import ROOT, Server, parse_html, run_server
from tests.tables import guarded
from web.app import create_app
from web.client import Prediction, Refused, Stream
from web.oip import elements, messages
from web.settings import Settings

Json = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """The application with a model, and samples with what scikit-learn answers to each, shape (n, n_outputs)."""

    client: TestClient
    model: LoadedModel
    samples: Sequence[Json]
    rows: NDArray[np.float64]
    expected: NDArray[np.float64]


def samples_of(model: LoadedModel, rows: NDArray[np.float64]) -> list[Json]:
    """Return rows as programs send them."""
    return [{f.key: f.shown(value) for f, value in zip(model.features, row, strict=True)} for row in rows.tolist()]


@pytest.fixture(scope="module", params=small_tables.KINDS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp(request.param)
    model = small_tables.written(request.param, folder)
    rows = small_tables.DATASETS[request.param]().rows
    expected = outputs_of(small_tables.trained(request.param).estimator, rows)
    with TestClient(create_app(Settings(model_file=folder / f"{request.param}.npz"))) as client:
        yield Service(client, model, samples_of(model, rows), rows, expected)


@pytest.fixture(scope="module")
def penguins_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("penguins")
    small_tables.written("penguins", folder)
    return folder / "penguins.npz"


@pytest.fixture(scope="module")
def penguins(penguins_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(model_file=penguins_path))) as client:
        yield client


PENGUIN = {"island": "Dream", "sex": "male", "bill_length": 44.5, "body_mass": 3_900.0}


def outputs_in(service: Service, answer: Json) -> list[float]:
    """Return the outputs in one answer, and check what goes with them."""
    quantity = service.model.quantity
    if quantity is None:
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert [*answer["probabilities"]] == [*service.model.labels]
        return [*answer["probabilities"].values()]
    assert quantity.interval is not None
    low, high = quantity.interval.around(answer["value"])
    assert answer["interval"] == {"low": low, "high": high, "coverage": 0.9}
    assert "label" not in answer
    return [answer["value"]]


def post(client: TestClient, **body: object) -> Json:
    response = client.post("/predict", json=body)
    answer: Json = response.json()
    return answer


def test_the_command_line_answers_as_post_predict_does(service: Service) -> None:
    for sample in service.samples[:20]:
        posted = service.client.post("/predict", json={"sample": sample})

        assert prediction_json(service.model, service.model.validator.row(sample)) == posted.text


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
    ends = [quantity.ends(value) for value in batch["values"]]
    assert [*zip(batch["interval"]["low"], batch["interval"]["high"], strict=True)] == ends
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


def test_the_stream_notes_unknown_words_and_values_outside_the_training_range(penguins: TestClient) -> None:
    nowhere, elsewhere = ({**PENGUIN, "island": word} for word in ("Nowhere", "Elsewhere"))
    heavy = PENGUIN | {"body_mass": 90_000.0}
    notes = [post(penguins, sample=sample)["notes"][0] for sample in (nowhere, elsewhere, heavy)]

    with penguins.websocket_connect("/stream") as stream:
        stream.receive_json()
        for request in ({"sample": nowhere}, {"samples": [heavy, PENGUIN, nowhere, heavy, elsewhere, nowhere]}):
            stream.send_json(request)
        alone, batch = stream.receive_json(), stream.receive_json()

    assert alone["notes"] == notes[:1]
    places = ([2, 5], [4], [0, 3])
    assert batch["notes"] == [note | {"samples": at} for note, at in zip(notes, places, strict=True)]


def said_by_every_channel(client: TestClient, sample: Json) -> list[Json | None]:
    """Return a sample of texts as it is read in JSON, in a form and in a query, None if it is refused there.

    The stream is held to answer what JSON answers.
    """
    asks_for_json = {"Accept": "application/json"}
    with client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_json({"sample": sample})
        streamed = stream.receive_json()
    answers = [
        post(client, sample=sample),
        client.post("/predict", data=sample, headers=asks_for_json).json(),
        client.get("/predict", params=sample, headers=asks_for_json).json(),
    ]
    assert streamed.get("probabilities") == answers[0].get("probabilities")
    errors = streamed.get("error", {}).get("errors")
    assert [answer.get("errors") for answer in answers] == [errors] * 3
    return [answer.get("sample") for answer in answers]


GERMAN = {"5.079": 5079.0, "5079": 5079.0, "5.079,5": 5079.5, "5,079": 5.079, "5,1": 5.1, "5.07": None, "5.0791": None}


@pytest.mark.parametrize("text", GERMAN)
def test_a_typed_number_is_read_by_the_marks_of_its_column_on_every_channel(tmp_path: Path, text: str) -> None:
    rows = [f"{1 + n % 9}.{100 + n};{n % 30},5;{'no' if n % 9 < 4 else 'yes'}" for n in range(90)]
    (tmp_path / "german.csv").write_text("\n".join(["income;rate;kind", *rows]))
    trained = fitting.fit(read_dataset(tmp_path / "german.csv").dataset, Recipe(n_estimators=3))
    writing.write(writing.model_of(trained), tmp_path / "german.npz", trained=trained)

    with TestClient(create_app(Settings(model_file=tmp_path / "german.npz"))) as client:
        read = said_by_every_channel(client, {"income": text, "rate": "3,5"})
        table = client.post("/score", content=f"income;rate\n{text};3,5\n", headers={"Content-Type": "text/csv"})
        number = post(client, sample={"income": 5.079, "rate": 3.5})
        fragment = client.get("/predict", params={"income": text, "rate": "3,5"}, headers={"HX-Request": "true"})

    number_read = GERMAN[text]
    assert read == [number_read and {"income": number_read, "rate": 3.5}] * 3
    assert ("income: " in table.text) == (number_read is None)
    assert ("not a number" in fragment.text) == (text == "5.0791"), "5.07 is the beginning of a number"
    assert number["sample"]["income"] == 5.079


@pytest.mark.parametrize("text", ["NA", "unknown", "n/a", "?"])
def test_no_value_is_said_by_any_marker_of_numbers_on_every_channel(penguins: TestClient, text: str) -> None:
    sample = {key: str(value) for key, value in PENGUIN.items()} | {"bill_length": text}

    read = said_by_every_channel(penguins, sample)
    header, row = ",".join(sample), ",".join(sample.values())
    table = penguins.post("/score", content=f"{header}\n{row}\n", headers={"Content-Type": "text/csv"})

    assert read == [PENGUIN | {"bill_length": None}] * 3
    assert table.text.splitlines()[1].endswith(",,")


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

    fragment = parse_html(penguins.get(f"/predict?{query}", headers={"HX-Request": "true"}).text)
    assert fragment.one("li", data_feature="island").text == "island is given twice"
    for problem in problems:
        assert problem["status"] == 422
        assert [(error["code"], error["value"]) for error in problem["errors"]] == [("named_twice", "Biscoe")]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"sample": [1, 2]}', "JSON"), (b"1.5,-0.25", "CSV"), (b"X,Y\n1,2\n1.5,-0.25,", "CSV"),
        (b"1.5 -0.25 \n1.5 0", "CSV"),
    ],
)  # fmt: skip
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


def test_missing_values_and_unknown_words_are_counted(penguins_path: Path) -> None:
    with TestClient(create_app(Settings(model_file=penguins_path))) as client:
        post(client, samples=[{**PENGUIN, "sex": None}, {**PENGUIN, "island": "Nowhere"}, PENGUIN])

        text = client.get("/metrics").text

    assert 'model_input_values_missing_total{feature="sex",source="programs"} 1.0' in text
    assert 'model_input_values_outside_total{feature="island",source="programs"} 1.0' in text
    assert 'model_input_values_missing_total{feature="island"' not in text
    assert 'model_input_samples_outside_total{source="programs"} 1.0' in text


def test_the_values_of_no_row_are_missing_where_scikit_learn_has_a_value(service: Service) -> None:
    """The tables of these tests have what they are about."""
    lacks = {f.key for f in service.model.features if any(sample[f.key] is None for sample in service.samples)}

    assert lacks == {feature.key for feature in service.model.features if feature.has_gaps}
    assert not any(math.isnan(output) for row in service.expected.tolist() for output in row)


# --- the Open Inference Protocol


def infer(service: Service, inputs: Sequence[Json], **more: object) -> Json:
    path = f"/v2/models/{service.model.name}/infer"
    answer: Json = service.client.post(path, json={"inputs": [*inputs], **more}).json()
    return answer


def tensors_of(service: Service, names: Sequence[str]) -> list[Json]:
    """Return the samples as one tensor a feature, of the datatypes that the model's metadata says."""
    metadata = service.client.get(f"/v2/models/{service.model.name}").json()
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    tensors = []
    for name, feature in zip(names, service.model.features, strict=True):
        datatype = datatypes.get(feature.key, "FP64")
        values = [sample[feature.key] for sample in service.samples]
        if datatype == "BOOL":
            values = [value in ("yes", "True") for value in values]
        tensors.append({"name": name, "shape": [len(values)], "datatype": datatype, "data": values})
    return tensors


def outputs_by_row(answer: Json) -> list[list[float]]:
    found = {tensor["name"]: tensor for tensor in answer["outputs"]}
    outputs = found["probabilities" if "probabilities" in found else "value"]
    return np.array(outputs["data"]).reshape(outputs["shape"][0], -1).tolist()


def test_tensors_of_words_booleans_and_numbers_are_answered_with_the_bits_of_scikit_learn(service: Service) -> None:
    by_key = infer(service, tensors_of(service, [feature.key for feature in service.model.features]))
    by_header = infer(service, tensors_of(service, [feature.header for feature in service.model.features])[::-1])

    assert outputs_by_row(by_key) == service.expected.tolist()
    assert by_header == by_key
    if service.model.labels:
        indices = service.expected.argmax(axis=1).tolist()
        assert by_key["outputs"][0]["data"] == [service.model.labels[index] for index in indices]
    else:
        assert [(one["name"], one["datatype"], one["shape"]) for one in by_key["outputs"]] == [
            ("value", "FP64", [len(service.samples)])
        ]


def test_texts_and_booleans_may_be_columns_and_binary(service: Service) -> None:
    inputs = tensors_of(service, [feature.key for feature in service.model.features])
    parts = []
    for tensor in inputs:
        content = binary_of(tensor["datatype"], tensor.pop("data"))
        tensor |= {"shape": [len(service.samples), 1], "parameters": {"binary_data_size": len(content)}}
        parts.append(content)
    head = msgspec.json.encode({"inputs": inputs})
    headers = {"Inference-Header-Content-Length": str(len(head))}

    answer = service.client.post(
        f"/v2/models/{service.model.name}/infer", content=b"".join([head, *parts]), headers=headers
    )

    assert outputs_by_row(answer.json()) == service.expected.tolist()


def binary_of(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, {"FP64": "<f8", "BOOL": "?"}[datatype]).tobytes()
    texts = [("" if value is None else value).encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def test_nested_texts_are_read_wherever_they_are_cut(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "PIECE_BYTES", 7)
    monkeypatch.setattr(messages, "MAX_TEXT_BYTES", 1_000)
    inputs = tensors_of(service, [feature.key for feature in service.model.features])
    for tensor in inputs:
        tensor |= {"shape": [len(service.samples), 1], "data": [[value] for value in tensor["data"]]}

    assert outputs_by_row(infer(service, inputs)) == service.expected.tolist()


def test_the_metadata_say_what_a_model_of_words_or_of_a_quantity_takes_and_gives(service: Service) -> None:
    metadata = service.client.get(f"/v2/models/{service.model.name}").json()

    inputs = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]}
    assert inputs == {
        "penguins": {
            "island": ("BYTES", [-1]), "sex": ("BYTES", [-1]),
            "bill_length": ("FP64", [-1]), "body_mass": ("FP64", [-1]),
        },
        "answers": {"smoker": ("BOOL", [-1]), "active": ("BOOL", [-1]), "age": ("FP64", [-1])},
        "prices": {"colour": ("BYTES", [-1]), "carat": ("FP64", [-1])},
        "distances": {"samples": ("FP64", [-1, 2])},
    }[service.model.name]  # fmt: skip
    outputs = [(tensor["name"], tensor["shape"]) for tensor in metadata["outputs"]]
    n_labels = len(service.model.labels)
    assert outputs == ([("label", [-1]), ("probabilities", [-1, n_labels])] if n_labels else [("value", [-1])])
    properties = {name: msgspec.json.decode(text) for name, text in metadata["properties"].items()}
    assert properties["choices"] == {f.key: [*f.choices] for f in service.model.features if f.choices}
    assert properties["nullable"] == [feature.key for feature in service.model.features if feature.has_gaps]
    assert properties["target"]["title"] == service.model.card.target.title


def test_the_one_tensor_of_a_model_of_numbers_takes_nan_and_null_as_missing(tmp_path: Path) -> None:
    model = small_tables.written("distances", tmp_path)
    rows = small_tables.distances().rows
    expected = outputs_of(small_tables.trained("distances").estimator, rows)
    tensor = {"name": "samples", "shape": [*rows.shape], "datatype": "FP64"}
    with TestClient(create_app(Settings(model_file=tmp_path / "distances.npz"))) as client:
        service = Service(client, model, samples_of(model, rows), rows, expected)
        as_json = infer(service, [tensor | {"data": msgspec.json.decode(msgspec.json.encode(rows.tolist()))}])
        raw = client.post(
            "/v2/models/distances/infer", content=rows.tobytes(), headers={"Inference-Header-Content-Length": "0"}
        )
        wrong = infer(service, [tensor | {"shape": [1, 2], "data": [1.0, None]}])

    assert outputs_by_row(as_json) == expected.tolist()
    assert raw.content.endswith(expected.tobytes())
    assert wrong == {"error": "row 0: y is not a number"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"island": None}, 'input "island" is missing; send one for each feature: island, sex, bill_length, body_mass'),
        ({"island": ("BYTES", [""])}, "row 0: island is missing"),
        ({"island": ("BYTES", [None])}, "row 0: island is missing"),
        ({"island": ("BYTES", [5])}, 'input "island", row 0: 5 is not an element of type BYTES'),
        ({"island": ("BYTES", "Dream")}, 'the data of input "island" must be an array'),
        ({"island": ("BYTES", ["Dream", "Dream"])}, 'the data of input "island" has more than 1 x 1 texts'),
        ({"island": ("BYTES", [["Dream", "Dream"]])}, 'the data of input "island" has a row of 2 texts, not 1'),
        ({"island": ("BOOL", ["Dream"])}, 'input "island", row 0: "Dream" is not an element of type BOOL'),
        ({"island": ("FP16X", [1])}, 'input "island" has the datatype "FP16X"; known are FP64'),
        ({"body_mass": ("BYTES", ["heavy"])}, "row 0: body mass: 'heavy' is not a number"),
        ({"body_mass": ("BOOL", [True])}, "row 0: body mass: true is not a number"),
        ({"Island": ("BYTES", ["Dream"])}, 'inputs "island" and "Island" are the same feature'),
        ({"samples": ("FP64", [1])}, '"samples" cannot hold the words of this model; send one for each feature'),
    ],
)
def test_a_tensor_that_a_model_of_words_cannot_take_is_told_why(
    penguins: TestClient, changes: dict[str, Any], sentence: str
) -> None:
    data = {"island": ("BYTES", ["Dream"]), "sex": ("BYTES", ["male"]), "bill_length": ("FP64", [44.5]),
            "body_mass": ("FP64", [3_900])} | changes  # fmt: skip
    inputs = [
        {"name": name, "shape": [1], "datatype": tensor[0], "data": tensor[1]}
        for name, tensor in data.items()
        if tensor
    ]

    answer = penguins.post("/v2/models/penguins/infer", json={"inputs": inputs})

    assert answer.status_code in (400, 422)
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "they end within text 0"),
        (b"\5\0\0\0Drea", "they end within text 0"),
        (b"\5\0\0\0Dream!", "its 1 texts end at byte 9"),
        (b"\2\0\0\0\xff\xff", "row 0: the text is not UTF-8"),
        (b"\xff\xff\xff\xff", "they end within text 0"),
    ],
)
def test_binary_texts_that_are_none_are_told_apart(penguins: TestClient, content: bytes, sentence: str) -> None:
    data = {"sex": ("BYTES", ["male"]), "bill_length": ("FP64", [44.5]), "body_mass": ("FP64", [3_900])}
    inputs = [{"name": name, "shape": [1], "datatype": kind, "data": values} for name, (kind, values) in data.items()]
    binary = {"name": "island", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
    head = msgspec.json.encode({"inputs": [*inputs, binary]})

    answer = penguins.post(
        "/v2/models/penguins/infer", content=head + content, headers={"Inference-Header-Content-Length": str(len(head))}
    )

    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_a_large_request_of_texts_is_read_as_a_small_one_is(penguins: TestClient) -> None:
    count = 9_000
    words = ["Dream", 'a "quoted" [word], {really}', "x" * 40] * (count // 3)
    inputs: list[Json] = [
        {"name": "island", "datatype": "BYTES", "data": words},
        {"name": "sex", "datatype": "BYTES", "data": [None, "male", "female"] * (count // 3)},
        {"name": "bill_length", "datatype": "FP64", "data": [None, 44.5, 40.0] * (count // 3)},
        {"name": "body_mass", "datatype": "INT32", "data": [3_900] * count},
    ]
    inputs = [tensor | {"shape": [count]} for tensor in inputs]
    first = [tensor | {"shape": [3], "data": tensor["data"][:3]} for tensor in inputs]

    large = penguins.post("/v2/models/penguins/infer", json={"inputs": inputs})
    small = penguins.post("/v2/models/penguins/infer", json={"inputs": first})

    assert len(large.request.content) > messages.MAX_TEXT_BYTES
    assert large.json()["outputs"][1]["data"] == small.json()["outputs"][1]["data"] * (count // 3)


def test_a_large_request_of_texts_lets_others_have_a_turn() -> None:
    words = ["Dream", "Biscoe"] * 50_000
    body = msgspec.json.encode({"inputs": [{"name": "island", "shape": [], "datatype": "BYTES", "data": words}]})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read() -> None:
        counting = asyncio.create_task(count())
        message, _ = await messages.read(body, None, 1)
        assert message.inputs[0].data is not msgspec.UNSET
        assert await elements.from_json(bytes(message.inputs[0].data), "BYTES", (len(words), 1), name="x") == words
        counting.cancel()

    asyncio.run(read())

    assert turns >= 2 * len(body) // elements.PIECE_BYTES


# --- the client, and one rule


@pytest.fixture(scope="module")
def running(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("running")
    small_tables.written(service.model.name, folder)
    with run_server(folder / "log.txt", MODEL_FILE=str(folder / f"{service.model.name}.npz")) as server:
        yield server


def asked_of_client(url: str, samples: Iterable[Any]) -> list[Prediction | Refused]:
    async def ask() -> list[Prediction | Refused]:
        async with Stream(url) as stream:
            return [outcome async for outcome in stream.predict(samples)]

    return asyncio.run(ask())


def outputs_of_prediction(prediction: Prediction | Refused) -> list[float]:
    assert isinstance(prediction, Prediction)
    if prediction.value is None:
        assert prediction.label
        return [*prediction.probabilities.values()]
    assert prediction.interval
    assert prediction.interval.low <= prediction.value <= prediction.interval.high
    assert (prediction.label, prediction.probabilities) == ("", {})
    return [prediction.value]


def test_the_client_gets_the_bits_of_scikit_learn(service: Service, running: Server) -> None:
    as_arrays = [np.array([*sample.values()], object) for sample in service.samples]
    with_nan = [{key: math.nan if v is None else v for key, v in sample.items()} for sample in service.samples]

    for samples in (service.samples, as_arrays, with_nan):
        assert [*map(outputs_of_prediction, asked_of_client(running.url, samples))] == service.expected.tolist()


def test_the_client_names_what_is_wrong(service: Service, running: Server) -> None:
    sample = {**service.samples[1], service.model.features[-1].key: "many"}

    good, wrong, alone = asked_of_client(running.url, [service.samples[0], sample, {}])

    assert isinstance(good, Prediction)
    assert isinstance(wrong, Refused)
    assert [error.code for error in wrong.errors] == ["not_a_number"]
    assert isinstance(alone, Refused)


def table_of(service: Service) -> str:
    """Return the samples as a CSV file, with NA or the column's own marker for no value."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([feature.header for feature in service.model.features])
    for sample in service.samples:
        writer.writerow([no_value_text(f) if sample[f.key] is None else sample[f.key] for f in service.model.features])
    return sink.getvalue()


def test_the_table_command_adds_what_the_command_line_adds(service: Service, running: Server, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(table_of(service), encoding="utf-8", newline="")

    subprocess.run(
        [sys.executable, "-m", "web.client", running.url, "stream", "rows.csv", "--out", "scored.csv"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
    )  # fmt: skip

    table = (tmp_path / "scored.csv").read_bytes()
    assert table == guarded(service.model, table_of(service).encode())
    names = ["predicted_value"] if service.model.quantity else [f"probability_{one}" for one in service.model.labels]
    rows = [*csv.DictReader(io.StringIO(table.decode()))]
    assert [[float(row[name]) for name in names] for row in rows] == service.expected.tolist()


ODD = st.sampled_from([None, "Nowhere", "", "5,5", 1e30, -1.0, 0, True, "NA", "?", "male", "Dream", "yes", "D", 44.5])


@given(data=st.data())
def test_every_channel_gives_the_same_bits_or_the_same_errors(service: Service, data: st.DataObject) -> None:
    """The one rule: whatever a sample has, channels agree to the last bit on its answer, and on what is wrong."""
    sample = data.draw(st.sampled_from(service.samples)) | data.draw(
        st.dictionaries(st.sampled_from([feature.key for feature in service.model.features]), ODD, max_size=2)
    )

    by_json = post(service.client, sample=sample)
    batch = post(service.client, samples=[sample, sample])
    with service.client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_json({"sample": sample})
        single = stream.receive_json()
        stream.send_json({"samples": [sample]})
        many = stream.receive_json()

    if "errors" in by_json:
        errors = by_json["errors"]
        assert single["error"]["errors"] == errors
        assert many["error"]["errors"] == [error | {"sample": 0} for error in errors]
        assert batch["errors"] == [error | {"sample": at} for at in (0, 1) for error in errors]
        return
    outputs = outputs_in(service, by_json)
    assert [outputs_in(service, item) for item in batch["predictions"]] == [outputs, outputs]
    assert [item["notes"] for item in batch["predictions"]] == [by_json["notes"]] * 2
    assert outputs_in(service, single) == outputs
    assert outputs_of_columns(service, many) == [outputs]
    assert outputs_by_row(infer(service, [tensor_of(key, value) for key, value in sample.items()])) == [outputs]


def tensor_of(name: str, value: object) -> Json:
    datatype = {str: "BYTES", bool: "BOOL", float: "FP64", int: "INT64"}.get(type(value), "BYTES")
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
