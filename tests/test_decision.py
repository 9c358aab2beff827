"""A threshold decides between two labels: it changes the label alone, on every channel."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV, train_test_split
from sklearn.svm import LinearSVC
from starlette.testclient import TestClient

import ml
from ml.errors import ForestError, ModelFileError, TableError
from ml.model import modelfile
from ml.model.card import Decision, Report
from ml.model.labelling import decision_of
from ml.model.loaded import LoadedModel, load_model
from ml.training import fitting, writing
from tests import small_tables
from tests.conftest import EVALUATORS, output_of, parse_html, run
from web.app import create_app
from web.settings import Settings

CANCER = load_breast_cancer()
X_train, X_test, y_train, y_test = train_test_split(CANCER.data, CANCER.target, random_state=0, stratify=CANCER.target)
NAMES = tuple(CANCER.feature_names)
EARLY = Decision(positive="yes", threshold=2 / 7)


def early() -> fitting.Trained:
    return fitting.fit(small_tables.answers(), small_tables.RECIPE, decision=EARLY)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decision") / "answers.npz"
    writing.write(writing.model_of(early()), path, trained=early())
    return path


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(model_file=path))) as client:
        yield client


def samples() -> list[list[Any]]:
    dataset = small_tables.answers()
    choices = [feature.choices for feature in dataset.features]
    rows = dataset.rows[:100].tolist()
    return [[choices[0][int(a)], choices[1][int(b)], age] for a, b, age in rows]


def expected() -> list[str]:
    shares = early().estimator.predict_proba(small_tables.answers().rows[:100])[:, 1]
    return ["yes" if share >= EARLY.threshold else "no" for share in shares.tolist()]


# The library's threshold.


@pytest.mark.parametrize("threshold", [0, 0.01, 0.3, 0.5, 0.7, 0.99, 1])
def test_the_label_is_that_of_a_classifier_with_a_fixed_threshold(tmp_path: Path, threshold: float) -> None:
    inner = RandomForestClassifier(n_estimators=10, max_depth=4, random_state=0)
    fixed = FixedThresholdClassifier(inner, threshold=threshold, pos_label=0).fit(X_train, y_train)

    ml.export(fixed, X_test, y_test, feature_names=NAMES, path=tmp_path / "m.npz")
    labels = [str(label) for label in fixed.predict(X_test)]
    for name, limits in EVALUATORS.items():
        model = load_model(tmp_path / "m.npz", **limits)
        assert model.card.decision == Decision(positive="0", threshold=threshold)
        assert [model.labels[index] for index in model.predict_batch(X_test).indices] == labels, name
        assert [model.predict(row).label for row in X_test.tolist()] == labels, name
        assert [one.label for one in model.predict_each(X_test)] == labels, name
        assert np.array_equal(model.predict_batch(X_test).outputs, fixed.predict_proba(X_test)), name


@pytest.mark.slow
def test_a_tuned_threshold_is_taken_as_it_was_found(tmp_path: Path) -> None:
    inner = RandomForestClassifier(n_estimators=5, random_state=0)
    tuned = TunedThresholdClassifierCV(inner, scoring="balanced_accuracy", random_state=0).fit(X_train, y_train)

    model = ml.export(tuned, X_test, y_test, feature_names=NAMES, path=tmp_path / "m.npz")

    assert model.card.decision == Decision(positive="1", threshold=tuned.best_threshold_)
    assert [model.labels[i] for i in model.predict_batch(X_test).indices] == [str(k) for k in tuned.predict(X_test)]


@pytest.mark.parametrize(("positive", "label"), [(None, "1"), (0, "0"), ("1", "1")])
def test_a_threshold_of_ones_own_wins(tmp_path: Path, positive: object, label: str) -> None:
    fixed = FixedThresholdClassifier(RandomForestClassifier(n_estimators=3, random_state=0), threshold=0.9)
    fixed.fit(X_train, y_train)

    model = ml.export(
        fixed, X_test, y_test, feature_names=NAMES, path=tmp_path / "m.npz", threshold=0.25, positive=positive
    )

    assert model.card.decision == Decision(positive=label, threshold=0.25)


def test_the_report_is_that_of_the_labels(tmp_path: Path) -> None:
    forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(X_train, y_train)

    model = ml.export(forest, X_test, y_test, feature_names=NAMES, path=tmp_path / "m.npz", threshold=1)

    assert isinstance(model.card.report, Report)
    is_positive = forest.predict_proba(X_test)[:, 1] >= 1
    assert model.card.report.accuracy == np.mean(is_positive == y_test)
    assert model.card.report.confusion[1] == (np.sum(~is_positive & (y_test == 1)), np.sum(is_positive & (y_test == 1)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": 1.5}, "a threshold of 1.5 is not a probability"),
        ({"threshold": float("nan")}, "not a probability"),
        ({"threshold": 0.5, "positive": "2"}, "a threshold for '2', not a class: '0' and '1' are"),
        ({"positive": "2"}, "not a class"),
    ],
)
def test_a_threshold_that_decides_nothing_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(X_train, y_train)

    with pytest.raises(TableError, match=said):
        ml.export(forest, X_test, y_test, feature_names=NAMES, path=tmp_path / "m.npz", **changes)


def test_a_threshold_is_one_between_two_classes(tmp_path: Path) -> None:
    for name, said in [("penguins", "the target has 3"), ("prices", "the target has none")]:
        with pytest.raises(TableError, match=f"a threshold decides between two classes, and {said}"):
            decision_of(small_tables.DATASETS[name]().target.labels, 0.5)


def test_a_threshold_on_other_scores_than_probabilities_is_refused(tmp_path: Path) -> None:
    fixed = FixedThresholdClassifier(LinearSVC(), threshold=0.5).fit(X_train, y_train)

    with pytest.raises(ForestError, match="is not one of probabilities: set response_method='predict_proba'"):
        ml.export(fixed, X_test, y_test, feature_names=NAMES, path=tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("name", "decision"),
    [
        ("answers", Decision(positive="perhaps", threshold=0.5)),
        ("answers", Decision(positive="yes", threshold=-0.1)),
        ("answers", Decision(positive="yes", threshold=1.1)),
        ("penguins", Decision(positive="Adelie", threshold=0.5)),
        ("prices", Decision(positive="yes", threshold=0.5)),
    ],
)
def test_a_file_with_an_impossible_decision_is_refused(name: str, decision: Decision) -> None:
    model = writing.model_of(small_tables.trained(name))
    content = modelfile.dump(replace(model, card=msgspec.structs.replace(model.card, decision=decision)))

    with pytest.raises(
        ModelFileError,
        match=r"the decision does not name one of two labels|the card is not valid: .*\.decision\.threshold",
    ):
        LoadedModel(modelfile.parse(content), "0" * 12)


# Every channel.


def test_json_and_the_query_give_the_label_by_the_threshold(client: TestClient) -> None:
    many = client.post("/predict", json={"samples": samples()}).json()["predictions"]
    single = [client.post("/predict", json={"sample": sample}).json() for sample in samples()[:30]]

    assert [one["label"] for one in many] == expected()
    assert [one["label"] for one in single] == expected()[:30]
    assert "yes" in expected()
    assert any(one["label"] == "yes" and one["probabilities"]["yes"] < 0.5 for one in many), "or nothing is tested"


def test_the_stream_announces_the_decision_and_keeps_to_it(client: TestClient) -> None:
    with client.websocket_connect("/stream") as stream:
        announced = stream.receive_json()["model"]
        stream.send_json({"samples": samples()})
        many = stream.receive_json()
        stream.send_json({"sample": samples()[0]})
        one = stream.receive_json()

    assert announced["decision"] == {"positive": "yes", "threshold": EARLY.threshold}
    assert many["labels"] == expected()
    assert one["label"] == expected()[0]


def test_a_table_has_the_label_by_the_threshold(client: TestClient) -> None:
    table = "smoker,active,age (years)\n" + "".join(f"{a},{b},{age}\n" for a, b, age in samples())

    response = client.post("/score", content=table, headers={"Content-Type": "text/csv"})

    assert [row["predicted_label"] for row in csv.DictReader(io.StringIO(response.text))] == expected()


def test_the_inference_protocol_describes_the_decision(client: TestClient) -> None:
    names = ("smoker", "active", "age")
    inputs = [
        {"name": name, "shape": [100], "datatype": "FP64" if name == "age" else "BYTES", "data": list(column)}
        for name, column in zip(names, zip(*samples(), strict=True), strict=True)
    ]

    metadata = client.get("/v2/models/answers").json()
    answer = client.post("/v2/models/answers/infer", json={"inputs": inputs}).json()

    assert json.loads(metadata["properties"]["decision"]) == {"positive": "yes", "threshold": EARLY.threshold}
    labels, probabilities = answer["outputs"]
    assert labels["data"] == expected()
    shares = early().estimator.predict_proba(small_tables.answers().rows[:100])
    assert probabilities["data"] == shares.ravel().tolist()


def test_the_page_and_its_card_say_what_decides(client: TestClient) -> None:
    chosen = next(number for number, one in enumerate(expected()) if one == "yes")
    query = dict(zip(("smoker", "active", "age"), samples()[chosen], strict=True))

    page = parse_html(client.get("/", params=query | {"lang": "en"}).text)

    said = "yes from a probability of 28.6% on"
    assert page.one("p", **{"class": "decision"}).text.startswith(said)
    assert page.one(**{"data-state": "answer"}).attributes["data-label"] == "yes"
    assert f"Decision {said}" in page.one(id="card").text


def test_the_document_says_what_the_label_is(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]

    said = f"yes where its probability is at least {EARLY.threshold!r}, else the other label"
    assert schemas["Answer"]["properties"]["label"]["description"] == said
    assert "decision" in schemas["StreamModel"]["properties"]


# The command line.


def table(folder: Path) -> Path:
    path = folder / "answers.csv"
    labels = small_tables.answers().outcomes[:100].tolist()
    rows = (f"{a},{b},{age},{('no', 'yes')[int(k)]}\n" for (a, b, age), k in zip(samples(), labels, strict=True))
    path.write_text("smoker,active,age,ill\n" + "".join(rows))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "decision"),
    [
        ("0.3", Decision(positive="yes", threshold=0.3)),
        ("no=0,8", Decision(positive="no", threshold=0.8)),
        ("yes=0", Decision(positive="yes", threshold=0)),
    ],
)
def test_training_keeps_a_threshold(tmp_path: Path, option: str, decision: Decision) -> None:
    arguments = ("train", table(tmp_path), "--target", "ill", "--trees", "5", "--out", tmp_path / "m.npz")

    trained = output_of(*arguments, "--threshold", option, cwd=tmp_path)
    shown = output_of("inspect", tmp_path / "m.npz", cwd=tmp_path)

    assert load_model(tmp_path / "m.npz").card.decision == decision
    assert f"decision   {decision.positive} where its probability is at least" in trained
    assert f"decision   {decision.positive} where its probability is at least" in shown


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("2", "is not a probability from 0 to 1"),
        ("yes=", "is not a probability from 0 to 1"),
        ("maybe=0.5", "not a class: 'no' and 'yes' are"),
    ],
)
def test_training_refuses_a_threshold_that_is_none(tmp_path: Path, option: str, said: str) -> None:
    finished = run("train", table(tmp_path), "--target", "ill", "--threshold", option, cwd=tmp_path)

    assert finished.returncode != 0
    assert said in finished.stderr
