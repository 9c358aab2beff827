"""`"explain": true` over JSON and the stream: base and contributions are the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import ensemble, svm, tree
from sklearn.calibration import CalibratedClassifierCV
from starlette.testclient import TestClient

import ml
from tests import small_tables
from tests.conftest import parse_html
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


@pytest.mark.slow
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


def test_each_of_many_samples_is_explained_as_it_is_alone(client: TestClient) -> None:
    example = example_of(client)
    number = next(key for key, value in example.items() if isinstance(value, float))
    samples = [example, example | {number: 1e6}, example | {number: 0}]

    alone = [client.post("/predict", json={"sample": sample, "explain": True}).json() for sample in samples]
    many = client.post("/predict", json={"samples": samples, "explain": True}).raise_for_status().json()
    with client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_json({"samples": samples, "explain": True})
        frame = stream.receive_json()
        stream.send_json({"samples": [], "explain": True})
        none = stream.receive_json()

    items = [{name: value for name, value in answer.items() if name not in ("model", "sample")} for answer in alone]
    assert many["predictions"] == items
    assert frame["contributions"] == [answer["contributions"] for answer in alone]
    assert len({str(answer) for answer in frame["contributions"]}) > 1
    assert none["contributions"] == []


def test_a_wrong_sample_is_not_explained(client: TestClient) -> None:
    wrong = client.post("/predict", json={"sample": {}, "explain": True})

    assert wrong.status_code == 422
    assert wrong.json()["errors"]


def test_an_answer_that_is_explained_is_counted_once(client: TestClient) -> None:
    def counted() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("prediction_model_seconds_count"))

    before = counted()
    client.post("/predict", json={"sample": example_of(client), "explain": True}).raise_for_status()

    assert counted() == before + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "program", "person"),
    [
        (CalibratedClassifierCV(tree.DecisionTreeClassifier(max_depth=2), cv=2), "calibrated", "calibradas"),
        (CalibratedClassifierCV(svm.LinearSVC(), cv=2), "calibrated", "calibradas"),
        (ensemble.AdaBoostRegressor(n_estimators=3, random_state=0), "a median of trees", "mediana"),
        (
            ensemble.VotingClassifier(
                [("a", tree.DecisionTreeClassifier()), ("b", ensemble.GradientBoostingClassifier(n_estimators=2))],
                voting="soft",
            ),
            "models that do not add up in one scale", "de los que esto es la media",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_model_whose_answers_are_no_sums_says_so_on_every_channel(
    tmp_path: Path, estimator: Any, program: str, person: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(80, 2))
    outcomes = (rows[:, 0] > 0).astype(int) if hasattr(estimator, "predict_proba") else rows[:, 0]
    model, path = estimator.fit(rows, outcomes), tmp_path / "m.npz"
    ml.export(model, rows, outcomes, feature_names=["a", "b"], path=path, insist=True)

    with TestClient(create_app(Settings(model_file=path))) as client:
        answer = client.post("/predict", json={"sample": [1, 2], "explain": True})
        with client.websocket_connect("/stream") as stream:
            stream.receive_json()
            stream.send_json({"id": 1, "sample": [1, 2], "explain": True})
            frame = stream.receive_json()
        page = client.get("/", params={"a": 1, "b": 2}, headers={"Accept-Language": "es"}).text
        described = client.get("/openapi.json").text

    assert answer.status_code == frame["error"]["status"] == 422
    assert program in answer.json()["detail"]
    assert answer.json()["detail"] == frame["error"]["detail"]
    assert answer.json()["detail"] in described
    assert person in parse_html(page).one("div", id="why").text
