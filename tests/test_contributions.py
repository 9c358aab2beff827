"""`"explain": true` over JSON and the stream: base and contributions are the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests import small_tables
from web.app import create_app
from web.settings import Settings


@pytest.fixture(scope="module", params=["penguins", "cars"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path: Path = small_tables.file_of(request.param, tmp_path_factory.mktemp(request.param))
    with TestClient(create_app(Settings(model_file=path))) as client:
        yield client


def example_of(client: TestClient) -> dict[str, object]:
    with client.websocket_connect("/stream") as stream:
        features = stream.receive_json()["model"]["features"]
    return {feature["key"]: feature["example"] for feature in features}


def test_an_explained_answer_is_its_base_and_what_each_feature_adds(client: TestClient) -> None:
    sample = example_of(client)

    answer = client.post("/predict", json={"sample": sample, "explain": True}).raise_for_status().json()
    with client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_json({"id": 1, "sample": sample, "explain": True})
        frame = stream.receive_json()

    plain = client.post("/predict", json={"sample": sample}).json()
    found = answer["contributions"]
    assert {name: value for name, value in answer.items() if name != "contributions"} == plain
    assert found == frame["contributions"]
    assert found["method"] == "path_dependent_shapley"
    assert found["features"].keys() == sample.keys()
    shown = answer["value"] if "value" in answer else answer["probabilities"][answer["label"]]
    assert found["scale"] == ("quantity" if "value" in answer else "probability")
    assert found["base"] + math.fsum(found["features"].values()) == pytest.approx(shown, abs=1e-12 * max(1, shown))


def test_many_samples_and_wrong_ones_are_not_explained(client: TestClient) -> None:
    sample = example_of(client)

    many = client.post("/predict", json={"samples": [sample], "explain": True})
    wrong = client.post("/predict", json={"sample": {}, "explain": True})
    with client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_json({"samples": [sample], "explain": True})
        frame = stream.receive_json()

    assert many.status_code == 422
    assert '"explain" goes with one "sample"' in many.json()["detail"]
    assert wrong.status_code == 422
    assert wrong.json()["errors"]
    assert frame["error"]["detail"] == many.json()["detail"]
