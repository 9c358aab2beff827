"""Any table: from a CSV file by the command line to the page, the JSON and the stream of a real server."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from starlette.testclient import TestClient
from websockets.sync.client import connect

from ml.cli import reports
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.tables.reading import TableOptions, read_dataset
from ml.training import fitting, writing
from tests.conftest import Element, Server, output_of, parse_html, run, run_server
from web.api import batch
from web.app import create_app
from web.page.answers import LIKELIEST, ORDERED_LABELS
from web.settings import Settings

ROOT = Path(__file__).parent.parent
DIGITS = load_digits()
# What a connection may send before it waits for the first acknowledgement: ten segments (RFC 6928) of 1,460 bytes.
FIRST_ROUND_TRIP = 14_600
STRANGE = ['<b onclick="x()">bold</b>', "l'été & \"l'hiver\"", "a  very long label " * 4, "{{ 7 * 7 }}", "</script>"]


def write_table(path: Path, header: Sequence[str], rows: NDArray[np.float64], labels: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "species"])
        writer.writerows([*row, label] for row, label in zip(rows.tolist(), labels, strict=True))
    return path


def model_of(path: Path, *, trees: int = 5, keep: Sequence[str] = ()) -> LoadedModel:
    trained = fitting.fit(read_dataset(path, TableOptions(keep=keep)).dataset, Recipe(n_estimators=trees))
    return writing.write(writing.model_of(trained), path.with_suffix(".npz"), trained=trained)


# The command line


@pytest.fixture(scope="module")
def measurements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two features that tell the classes apart and one that does not; the third class is rare."""
    rng = np.random.default_rng(0)
    classes = np.array([0] * 60 + [1] * 30 + [2] * 10)
    rows = np.column_stack(
        [classes + rng.normal(0, 0.3, 100), -classes + rng.normal(0, 0.3, 100), rng.normal(size=100)]
    )
    directory = tmp_path_factory.mktemp("measurements")
    labels = [("common", "less common", "rare <é>")[index] for index in classes]
    return write_table(
        directory / "measurements.csv", ["petal width (cm)", "weight [kg]", "noise"], rows.round(2), labels
    )


@pytest.fixture(scope="module")
def trained_here(measurements: Path) -> tuple[Path, str]:
    """The model file that the command line wrote, and what it printed."""
    printed = output_of(
        "train", measurements, "--target", "species", "--out", "species.npz", "--trees", "12", "--limits",
        "petal_width=-9:", cwd=measurements.parent,
    )  # fmt: skip
    return measurements.parent / "species.npz", printed


def test_train_tells_what_it_read_and_how_good_it_is(trained_here: tuple[Path, str]) -> None:
    lines = trained_here[1].splitlines()

    assert lines[:7] == [
        "measurements.csv: 100 rows, 3 features, 3 classes",
        "  separated by comma",
        "  class column: species",
        "  classes: common (60 rows), less common (30 rows), rare <é> (10 rows)",
        "  'petal width (cm)' is feature petal_width, in cm, at least -9",
        "  'weight [kg]' is feature weight, in kg",
        "  'noise' is feature noise",
    ]
    assert lines[7] == "  estimator random-forest"
    assert lines[8].startswith("    the default: it takes gaps and words")
    assert "its answers have the library's bits on every machine" in lines
    assert any(line.startswith("baseline   0.600 ") for line in lines)
    important = lines[lines.index("importance: accuracy lost on the test rows when a feature is shuffled") + 1 :]
    assert {important[0].split()[0], important[1].split()[0]} == {"petal_width", "weight"}
    assert not any(line.startswith("warning") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("hist-gradient-boosting", "Hist"), ("gradient-boosting", "")])
def test_train_fits_the_estimator_that_is_asked_for(measurements: Path, tmp_path: Path, name: str, kind: str) -> None:
    printed = output_of("train", measurements, "--estimator", name, "--trees", "5", "--out", "other.npz", cwd=tmp_path)

    card = load_model(tmp_path / "other.npz").card
    assert f"  estimator {name}" in printed.splitlines()
    assert "its scores have the library's bits on every machine" in printed
    assert (card.estimator, card.trees, card.promise) == (f"{kind}GradientBoostingClassifier", 15, "scores")


def test_train_writes_what_scikit_learn_answers(trained_here: tuple[Path, str], measurements: Path) -> None:
    model = load_model(trained_here[0])

    trained = fitting.fit(read_dataset(measurements, TableOptions(target="species")).dataset, Recipe(n_estimators=12))

    rows = trained.split.test_rows
    assert np.array_equal(model.predict_batch(rows).outputs, trained.estimator.predict_proba(rows))
    assert (model.name, model.labels) == ("measurements", ("common", "less common", "rare <é>"))
    assert model.features[0].minimum == -9


def test_the_same_table_gives_the_same_bytes_and_evaluate_the_same_report(
    trained_here: tuple[Path, str], measurements: Path, tmp_path: Path
) -> None:
    arguments = (measurements, "--target", "species", "--limits", "petal_width=-9:")
    output_of("train", *arguments, "--out", "again.npz", "--trees", "12", cwd=tmp_path)
    shown = output_of("evaluate", "again.npz", "--data", *arguments, cwd=tmp_path)

    assert (tmp_path / "again.npz").read_bytes() == trained_here[0].read_bytes()
    accuracy = next(line for line in trained_here[1].splitlines() if line.startswith("accuracy"))
    assert accuracy in shown.splitlines()


def test_every_option_of_train_reaches_scikit_learn(measurements: Path, tmp_path: Path) -> None:
    output_of(
        "train", measurements, "--target", "species", "--drop", "noise", "--estimator", "extra-trees", "--trees", "7",
        "--depth", "3", "--leaf", "2", "--seed", "5", "--test-size", "0.3", "--balanced", "--no-samples",
        "--name", "Any", "--out", "any.npz", cwd=tmp_path,
    )  # fmt: skip
    model = load_model(tmp_path / "any.npz")

    recipe = Recipe(
        estimator="extra-trees", n_estimators=7, max_depth=3, min_samples_leaf=2, seed=5, test_size=0.3,
        balanced_class_weight=True,
    )  # fmt: skip
    assert model.card.recipe == recipe
    assert [feature.key for feature in model.features] == ["petal_width", "weight"]
    assert (model.name, len(model.reference_rows)) == ("Any", 0)
    dataset = read_dataset(measurements, TableOptions(target="species", drop=["noise"])).dataset
    split = fitting.split(dataset, recipe)
    weights = {
        index: len(split.train_classes) / (3 * count) for index, count in enumerate(np.bincount(split.train_classes))
    }
    forest = ExtraTreesClassifier(7, max_depth=3, min_samples_leaf=2, random_state=5, class_weight=weights)
    forest.fit(split.train_rows, split.train_classes)
    assert np.array_equal(model.predict_batch(dataset.rows).outputs, forest.predict_proba(dataset.rows))


def test_a_useless_model_is_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = ["yes" if number % 5 else "no" for number in range(60)]
    write_table(tmp_path / "noise.csv", ["a", "b"], rng.normal(size=(60, 2)), labels)

    printed = output_of("train", "noise.csv", "--trees", "3", cwd=tmp_path)

    assert "warning    the model does no better than the baseline" in printed.splitlines()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b", "1,x", "2,x"], r"t\.csv: column 'b' is no target: there is only one class, 'x'"),
        (["a,b", "1,x", "2,y", "3,z"], r"t\.csv: column 'b' is no target: it has 3 different values in 3 rows, as 'x'"),
        (["a,b", "1,x"], r"t\.csv: column 'b' is no target: it has 1 value in 1 row, as 'x'"),
        (["a,b"], r"t\.csv: no rows below the header"),
        (["a;b", "1;x", "2;y", "1;x", "2;y"], r"than the 2 classes on one side; a half, --test-size 0\.5, leaves"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_told_in_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")

    done = run("train", "t.csv", cwd=tmp_path)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize(
    "option",
    ["--seed=-1", "--seed=4294967296", "--seed=x", "--trees=0", "--depth=0", "--leaf=x", "--test-size=1",
     "--test-size=0", "--limits=a", "--limits=a=2:1", "--limits=a=x:", "--limits=a=0:1e999", "--estimator=svm"],
)  # fmt: skip
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path: Path, option: str) -> None:
    done = run("train", "missing.csv", option, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"python -m ml train: error: argument {option.partition('=')[0]}: ")


def test_predict_ends_with_what_would_change_the_answer(built_in_path: Path, tmp_path: Path) -> None:
    lines = output_of("predict", "--model", built_in_path, "5.6", "2.7", "4.2", "1.3", cwd=tmp_path).splitlines()

    assert lines[-1] == "becomes virginica when petal width rises above 1.75 cm"


# A wide model on a real server


@pytest.fixture(scope="module")
def digits_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("digits")
    path = write_table(
        directory / "digits.csv", DIGITS.feature_names, DIGITS.data, [f"digit {n}" for n in DIGITS.target]
    )
    # Pixels at the edge are the same in all rows.
    model_of(path, trees=25, keep=DIGITS.feature_names)
    return path.with_suffix(".npz")


@pytest.fixture(scope="module")
def digits(digits_path: Path) -> LoadedModel:
    return load_model(digits_path)


@pytest.fixture(scope="module")
def digits_server(digits_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with run_server(log, MODEL_FILE=str(digits_path)) as server:
        yield server
    assert "Traceback" not in log.read_text()


def answered_meanwhile(server: Server, work: threading.Thread) -> list[float]:
    """Ask for single samples on the stream while `work` runs; return when each answer came."""
    answered = []
    with connect(server.stream_url, compression=None) as websocket:
        websocket.recv()
        request = json.dumps({"sample": DIGITS.data[0].tolist()})
        work.start()
        while work.is_alive():
            websocket.send(request)
            assert json.loads(websocket.recv())["label"] == "digit 0"
            answered.append(time.monotonic())
        work.join()
    return answered


def test_batches_of_ten_thousand_never_block_another_client(digits_server: Server, digits: LoadedModel) -> None:
    rows = np.resize(DIGITS.data, (10_000, 64))
    body = json.dumps({"samples": rows.tolist()})
    spans: list[tuple[float, float]] = []
    labels: list[str] = []

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", digits_server.port, timeout=60)
        for _ in range(2):
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            started = time.monotonic()  # all of the batch is with the server, or on its way
            response = connection.getresponse()
            spans.append((started, time.monotonic()))
            predictions = json.load(response)["predictions"]
            labels[:] = [prediction["label"] for prediction in predictions]
        connection.close()

    answered = answered_meanwhile(digits_server, threading.Thread(target=send))

    assert labels == [digits.labels[index] for index in digits.predict_batch(rows).indices]
    slices = len(list(batch.slices(digits, len(rows))))
    assert slices >= 50
    for start, end in spans:
        # Reading and answering have as many turns as slices each; a client that asks again at once gets many of them.
        assert sum(start < when < end for when in answered) >= slices // 10


def test_binary_frames_of_a_mebibyte_never_block_another_client(digits_server: Server, digits: LoadedModel) -> None:
    rows = np.resize(DIGITS.data, (4_096, 64)).astype("<f4")
    assert rows.nbytes == 2**20
    spans: list[tuple[float, float]] = []
    replies: list[bytes] = []

    def send() -> None:
        with connect(digits_server.stream_url, compression=None, max_size=None) as websocket:
            websocket.recv()
            for _ in range(8):
                websocket.send(rows.tobytes())
                started = time.monotonic()
                reply = websocket.recv()
                spans.append((started, time.monotonic()))
                assert isinstance(reply, bytes)
                replies.append(reply)

    answered = answered_meanwhile(digits_server, threading.Thread(target=send))

    expected = digits.predict_batch(rows).outputs.astype("<f4").tobytes()
    assert replies == [expected] * 8
    meanwhile = [sum(start < when < end for when in answered) for start, end in spans]
    assert sorted(meanwhile)[len(meanwhile) // 2] >= 2, meanwhile


@pytest.mark.slow
def test_slices_are_sized_from_the_measured_speed(digits_path: Path, digits: LoadedModel, model: LoadedModel) -> None:
    walked = load_model(digits_path, compiles=False)

    # A look-up in the table of four features is worth some hundred walks through 25 trees.
    assert model.slice_rows > 5 * walked.slice_rows
    assert digits.slice_rows > walked.slice_rows


def test_all_channels_of_a_wide_model_agree(digits_server: Server, digits: LoadedModel) -> None:
    row = DIGITS.data[7].tolist()
    expected = digits.predict(row)

    connection = http.client.HTTPConnection("127.0.0.1", digits_server.port, timeout=10)
    connection.request("POST", "/predict", json.dumps({"sample": row}), {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    with connect(digits_server.stream_url, compression=None) as websocket:
        announced = json.loads(websocket.recv())["model"]
        websocket.send(json.dumps({"sample": row}))
        reply = json.loads(websocket.recv())

    probabilities = dict(zip(digits.labels, expected.probabilities, strict=True))
    assert (answer["label"], answer["probabilities"]) == (expected.label, probabilities)
    assert (reply["label"], reply["probabilities"]) == (expected.label, probabilities)
    assert announced["labels"] == list(digits.labels)
    assert len(announced["features"]) == 64


# The page of other models, in process


@pytest.fixture(scope="module")
def digits_client(digits_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(model_file=digits_path))) as client:
        yield client


@pytest.mark.slow
def test_the_page_of_64_features_has_a_field_for_each(digits_client: TestClient, digits: LoadedModel) -> None:
    page = parse_html(digits_client.get("/").text)

    fields = page.one("form", id="measurements").all("input", type="text")
    assert sorted(field.attributes["name"] for field in fields) == sorted(feature.key for feature in digits.features)
    assert all(field.attributes["value"] for field in fields)
    assert page.one(data_label=digits.predict([feature.example for feature in digits.features]).label)


@pytest.mark.slow
def test_the_page_of_64_features_comes_with_the_first_round_trip_of_a_connection(digits_server: Server) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", digits_server.port)) as connection:
        connection.request("GET", "/", headers={"Accept": "text/html", "Accept-Encoding": "gzip"})
        response = connection.getresponse()
        page = response.read()
    head = [f"{name}: {value}\r\n" for name, value in response.getheaders()]

    assert len("HTTP/1.1 200 OK\r\n" + "".join(head) + "\r\n") + len(page) <= FIRST_ROUND_TRIP


def test_of_many_features_the_most_important_are_said_after_training_and_all_by_inspect(digits: LoadedModel) -> None:
    trained, inspected = [*reports.measured_lines(digits.card)], [*reports.importance_lines(digits.card)]

    assert trained[-21:-1] == inspected[2:22]
    assert trained[-1].startswith("  44 more, none above 0.")
    assert len(inspected) == 2 + 64


@pytest.mark.slow
def test_features_past_a_dozen_collapse_and_the_most_important_come_first(
    digits_client: TestClient, digits: LoadedModel
) -> None:
    form = parse_html(digits_client.get("/").text).one("form", id="measurements")

    (group,) = form.all("details", **{"class": "more"})
    inside = {field.attributes["name"] for field in group.all("input", type="text")}
    outside = [field for field in form.all("input", type="text") if field.attributes["name"] not in inside]
    importance = {feature.key: feature.importance for feature in digits.features}
    assert "open" not in group.attributes
    assert 0 < len(outside) <= 12
    assert min(importance[field.attributes["name"]] for field in outside) >= max(importance[key] for key in inside)


@pytest.fixture(scope="module")
def strange_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A model whose labels, feature names, units and own name would all break a page that does not escape them."""
    directory = tmp_path_factory.mktemp("strange")
    rows = np.repeat(np.arange(5.0), 8)[:, None] + np.random.default_rng(0).normal(0, 0.1, (40, 2))
    header = ['<i>"width"</i> & co (<u>)', "it's {{ 1 }} [µ']"]
    path = write_table(directory / "strange.csv", header, rows, [STRANGE[index // 8] for index in range(40)])
    dataset = read_dataset(path, TableOptions(name="<script>alert(1)<script>")).dataset
    trained = fitting.fit(dataset, Recipe(n_estimators=5))
    writing.write(writing.model_of(trained), directory / "strange.npz", trained=trained)
    with TestClient(create_app(Settings(model_file=directory / "strange.npz"))) as client:
        yield client


def model_served_by(client: TestClient) -> LoadedModel:
    model: LoadedModel = client.app.service.model  # type: ignore[attr-defined]  # an application of Starlette
    return model


def strangers_in(document: Element) -> list[str]:
    """Return elements that only a name could have brought in."""
    found = [
        element.tag for element in document.all() if element.tag in ("i", "b", "u") or "onclick" in element.attributes
    ]
    return found + [element.text for element in document.all("script") if "alert" in element.text]


@pytest.mark.parametrize("index", range(5))
def test_strange_labels_are_escaped_on_the_page_and_in_the_fragment(strange_client: TestClient, index: int) -> None:
    model = model_served_by(strange_client)
    rows = np.repeat(np.arange(5.0), 2).reshape(5, 2)
    label = model.predict(rows[index].tolist()).label
    query = dict(zip((feature.key for feature in model.features), map(str, rows[index].tolist()), strict=True))

    page = parse_html(strange_client.get("/", params=query).text)
    fragment = parse_html(strange_client.get("/predict", params=query, headers={"HX-Request": "true"}).text)
    answer = strange_client.get("/predict", params=query, headers={"Accept": "application/json"}).json()

    assert label == " ".join(STRANGE[index].split())
    assert answer["label"] == label
    assert list(answer["probabilities"]) == list(model.labels)
    for document in (page, fragment):
        assert [
            element.attributes["data-label"] for element in document.all() if "data-label" in element.attributes
        ] == [label]
        assert " ".join(label.split()) in document.text
        assert strangers_in(document) == []


def test_strange_names_are_escaped_in_fields_and_errors(strange_client: TestClient) -> None:
    model = model_served_by(strange_client)
    first, second = model.features
    assert (first.title, first.unit) == ('<i>"width"</i> & co', "<u>")
    wrong = {first.key: "<b>x</b>", second.key: "1"}

    page = parse_html(strange_client.post("/result", data=wrong).text)
    fragment = strange_client.get("/predict", params=wrong, headers={"HX-Request": "true"})
    problem = strange_client.get("/predict", params=wrong, headers={"Accept": "application/json"})

    assert first.title in page.text
    assert strangers_in(page) == strangers_in(parse_html(fragment.text)) == []
    assert problem.status_code == 422
    assert problem.json()["errors"][0]["value"] == "<b>x</b>"
    assert "<b>x</b> is not a number" in problem.json()["errors"][0]["message"].replace("'", "")


def test_openapi_of_a_strange_model_names_its_features(strange_client: TestClient) -> None:
    document = strange_client.get("/openapi.json").json()

    text = json.dumps(document)
    assert all(json.dumps(feature.key)[1:-1] in text for feature in model_served_by(strange_client).features)


@pytest.mark.parametrize("n_labels", [2, 20])
def test_few_and_many_classes_have_a_row_each(tmp_path: Path, n_labels: int) -> None:
    classes = np.repeat(np.arange(n_labels), 6)
    path = write_table(
        tmp_path / "many.csv", ["x"], classes[:, None].astype(np.float64), [f"class {index}" for index in classes]
    )
    model = model_of(path)

    with TestClient(create_app(Settings(model_file=path.with_suffix(".npz")))) as client:
        page = parse_html(client.get("/", params={"x": "1"}).text)
        answer = client.get("/predict", params={"x": "1"}, headers={"Accept": "application/json"}).json()

    assert len(page.one(id="prediction").all("meter")) == (n_labels if n_labels <= ORDERED_LABELS else LIKELIEST)
    assert list(answer["probabilities"]) == list(model.labels)
    assert page.one(data_label="class 1")
    assert "None" not in page.text


def test_a_feature_without_a_unit_shows_none(tmp_path: Path) -> None:
    path = write_table(tmp_path / "plain.csv", ["x"], np.arange(20.0)[:, None], ["a"] * 10 + ["b"] * 10)
    model_of(path)

    with TestClient(create_app(Settings(model_file=path.with_suffix(".npz")))) as client:
        form = parse_html(client.get("/").text).one("form", id="measurements")

    assert "()" not in form.text
    assert form.one("label").text.startswith("x")
