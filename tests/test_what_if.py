"""A threshold that is tried on the page: it changes labels there alone, and says what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from starlette.testclient import TestClient

import ml
from ml.model import modelfile
from ml.model.calibration import Calibration
from ml.model.card import Decision, Report
from ml.model.loaded import LoadedModel
from ml.model.modelfile import ModelFile
from ml.model.nearest import nearest_change
from ml.model.plane import plane
from ml.model.strips import strips
from ml.training import writing
from tests import small_tables
from tests.browser import Open, needs_chromium
from tests.conftest import Element, Server, for_each, parse_html, run_server
from web.app import create_app
from web.page import languages
from web.page.fragments import KEPT_WHAT_IFS, fragments_of
from web.settings import Settings

OPTION = "decision-threshold"
SAMPLE = {"smoker": "yes", "active": "no", "age": "40"}


@pytest.fixture(scope="module")
def answers() -> ModelFile:
    return writing.model_of(small_tables.trained("answers"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tables.file_of("answers", tmp_path_factory.mktemp("what-if"))


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(model_file=path))) as client:
        yield client


@pytest.fixture(scope="module")
def logistic(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("logistic") / "m.npz"
    cancer = load_breast_cancer()
    X, y = cancer.data[:, :5], cancer.target
    names = [*cancer.feature_names[:5]]
    ml.export(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), X, y, feature_names=names, path=path)
    return modelfile.parse(modelfile.read(path))


def calibration_of(model: ModelFile) -> Calibration:
    assert isinstance(model.card.report, Report)
    assert model.card.report.calibration is not None
    return model.card.report.calibration


# The model.


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.85])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("answers", {}),
        ("answers", {"max_cells": 0}),
        ("answers", {"max_cells": 0, "compiles": False}),
        ("logistic", {}),
    ],
)
def test_a_model_with_another_threshold_answers_as_one_whose_file_has_it(
    name: str, options: Mapping[str, Any], threshold: float, request: pytest.FixtureRequest
) -> None:
    file: ModelFile = request.getfixturevalue(name)
    decision = Decision(positive=file.card.labels[0], threshold=threshold)
    decided = LoadedModel(replace(file, card=msgspec.structs.replace(file.card, decision=decision)), "v", **options)
    tried = LoadedModel(file, "v", **options).deciding(decision)

    batch, expected = tried.predict_batch(file.golden_rows), decided.predict_batch(file.golden_rows)
    assert np.array_equal(batch.indices, expected.indices)
    assert np.array_equal(batch.outputs, expected.outputs)
    for row in file.golden_rows[:10].tolist():
        one, other = tried.predict(row), decided.predict(row)
        assert (one.index, one.label, one.probabilities) == (other.index, other.label, other.probabilities)
        assert [each.label for each in tried.predict_each(np.array([row]))] == [other.label]
        assert strips(tried, row) == strips(decided, row)
        found, same = (plane(model, row, x=0, y=2, max_rows=4096) for model in (tried, decided))
        assert np.array_equal(found.indices, same.indices)
        assert np.array_equal(found.answers, same.answers)
        (change, _), (wanted, _) = nearest_change(tried, row), nearest_change(decided, row)
        assert change == wanted


def test_the_model_itself_keeps_its_own_threshold(answers: ModelFile) -> None:
    model = LoadedModel(answers, "v")
    before = model.predict_batch(answers.golden_rows).indices

    model.deciding(Decision(positive="yes", threshold=0.01))

    assert model.card.decision is None
    assert np.array_equal(model.predict_batch(answers.golden_rows).indices, before)


# The page.


def page_of(client: TestClient, language: str = "en", **options: str) -> Element:
    params = SAMPLE | {"lang": language} | options
    return parse_html(client.get("/", params=params).raise_for_status().text)


def share_of(client: TestClient) -> float:
    share: float = client.get("/predict", params=SAMPLE, headers={"Accept": "application/json"}).json()[
        "probabilities"
    ]["yes"]
    return share


def test_the_label_of_the_page_follows_a_threshold_in_its_address(client: TestClient) -> None:
    share = share_of(client)
    assert 0.05 < share < 0.95

    for threshold, label in [(share - 0.02, "yes"), (share + 0.02, "no")]:
        page = page_of(client, **{OPTION: f"{threshold:.2f}"})
        answer = page.one(**{"data-state": "answer"})
        assert answer.attributes["data-label"] == label
        assert page.one("p", **{"class": "decision"}).text.startswith("On this page alone: yes from a probability of")
        fragment = client.get(
            "/predict", params=SAMPLE | {OPTION: f"{threshold:.2f}"}, headers={"HX-Request": "true"}
        ).text
        assert parse_html(fragment).one(**{"data-state": "answer"}).attributes["data-label"] == label
        assert "Decision" not in page.one(id="card").text


@pytest.mark.parametrize("threshold", ["0", "0.07", "0.35", "0.9", "1"])
def test_it_says_what_it_costs_on_the_test_rows(client: TestClient, answers: ModelFile, threshold: str) -> None:
    false_alarms, misses = calibration_of(answers).at(float(threshold))
    assert answers.card.report
    rows = answers.card.report.test_rows

    said = page_of(client, **{OPTION: threshold}).one("p", **{"class": "decision"}).text

    alarms = f"{false_alarms} false alarm" + "s" * (false_alarms != 1)
    assert said.endswith(f"On {rows} test rows: {alarms}, {misses} miss" + "es" * (misses != 1))


def test_without_one_the_costs_are_those_of_the_model(client: TestClient, answers: ModelFile) -> None:
    assert isinstance(answers.card.report, Report)
    (_, false_alarms), (misses, _) = answers.card.report.confusion

    said = page_of(client).one("p", **{"class": "decision"}).text

    assert f"{false_alarms} false alarm" in said
    assert f"{misses} miss" in said
    assert "alone" not in said


def test_the_slider_is_a_field_of_the_form_with_a_way_back(client: TestClient) -> None:
    page = page_of(client, "es", **{OPTION: "0.35"})

    slider = page.one("input", id="threshold").attributes
    reset = page.one("a", id="usual-threshold")
    assert (slider["type"], slider["name"], slider["form"]) == ("range", OPTION, "measurements")
    assert (slider["value"], slider["data-start"]) == ("0.35", "0.5")
    assert slider["aria-valuetext"] == f"35{languages.NO_BREAK}%"
    assert page.one("label", **{"for": "threshold"}).text == "Umbral para yes, como hipótesis"
    assert reset.text == "Volver a 50 %"
    query = parse_qs(reset.attributes["href"].partition("?")[2])
    assert {key: value for key, [value] in query.items()} == SAMPLE | {"lang": "es"}
    for link in page.one("nav", **{"class": "languages"}).all("a"):
        assert parse_qs(link.attributes["href"].partition("?")[2])[OPTION] == ["0.35"]


@for_each("text", ["0.5", "0.50", ".5", "", "x", "-1", "1.01", "2", "0.355", "1e-1", "٠.٣", "nan", "9" * 99])
def test_any_other_text_leaves_the_model_s_own(client: TestClient, text: str) -> None:
    page = page_of(client, **{OPTION: text})

    assert page.one("input", id="threshold").attributes["value"] == "0.5"
    assert "alone" not in page.one("p", **{"class": "decision"}).text


def test_a_form_without_scripts_carries_it(client: TestClient) -> None:
    threshold = f"{share_of(client) + 0.03:.2f}"

    page = parse_html(client.post("/result", data=SAMPLE | {OPTION: threshold, "lang": "en"}).text)

    assert page.one(**{"data-state": "answer"}).attributes["data-label"] == "no"
    assert page.one("input", id="threshold").attributes["value"] == threshold.rstrip("0")


def test_the_explanation_and_a_pinned_sample_follow_it(client: TestClient) -> None:
    pinned = "smoker=yes&active=no&age=41"

    texts = [
        client.get(
            "/explain", params=SAMPLE | {OPTION: threshold, "pinned-sample": pinned}, headers={"HX-Request": "true"}
        ).text
        for threshold in ("0", "1")
    ]

    for text, label in zip(texts, ["yes", "no"], strict=True):
        assert f"<strong>{label}</strong>" in text
        assert f"the answer stays {label}" in text
        assert f"<td>{label} " in text


def test_programs_are_told_that_there_is_no_such_option(client: TestClient) -> None:
    answer = client.get("/predict", params=SAMPLE | {OPTION: "0.9"}, headers={"Accept": "application/json"})

    assert answer.status_code == 422
    assert [(one["feature"], one["code"]) for one in answer.json()["errors"]] == [(OPTION, "unknown_feature")]


def test_metrics_count_the_labels_of_the_model(client: TestClient) -> None:
    def counted() -> list[str]:
        return sorted(
            line for line in client.get("/metrics").text.splitlines() if "label=" in line and "predictions" in line
        )

    label = "yes" if share_of(client) >= 0.5 else "no"
    before = counted()
    for threshold in ("0", "1"):
        client.get("/predict", params=SAMPLE | {OPTION: threshold}, headers={"HX-Request": "true"}).raise_for_status()

    changed = set(counted()) - set(before)
    assert changed
    assert all(f'label="{label}"' in line for line in changed)


def test_models_of_more_labels_and_of_quantities_have_no_slider(tmp_path: Path) -> None:
    for name in ("penguins", "prices"):
        model = small_tables.written(name, tmp_path)
        with TestClient(create_app(Settings(model_file=tmp_path / f"{name}.npz"))) as client:
            page = parse_html(client.get("/", params={OPTION: "0.3"}).raise_for_status().text)
            assert not page.all("input", id="threshold")
        assert fragments_of(model, languages.language("en")).at("0.3") is fragments_of(model, languages.language("en"))


def test_a_file_without_costs_has_the_slider_alone(answers: ModelFile, tmp_path: Path) -> None:
    assert answers.card.report
    report = msgspec.structs.replace(answers.card.report, calibration=None)
    older = replace(answers, card=msgspec.structs.replace(answers.card, report=report))
    modelfile.save(older, tmp_path / "m.npz")

    with TestClient(create_app(Settings(model_file=tmp_path / "m.npz"))) as client:
        plain, tried = page_of(client), page_of(client, **{OPTION: "0.3"})

    assert not plain.all("p", **{"class": "decision"})
    assert tried.one("p", **{"class": "decision"}).text == "On this page alone: yes from a probability of 30% on"


def test_all_thresholds_together_keep_as_much_as_the_model_itself(answers: ModelFile) -> None:
    fragments = fragments_of(LoadedModel(answers, "v"), languages.language("en"))

    tried = [fragments.at(f"{step / 100:.2f}") for step in range(1, 40)]

    assert fragments._what_if.cache_info().currsize == KEPT_WHAT_IFS
    assert fragments.at("0.39") is tried[-1]
    kept = [one._answer.cache_parameters()["maxsize"] for one in (fragments, tried[0])]
    assert kept[0] == KEPT_WHAT_IFS * kept[1]


# The browser.


@pytest.fixture(scope="module")
def answers_server(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_server(tmp_path_factory.mktemp("what-if-server") / "log.txt", MODEL_FILE=str(path)) as server:
        yield server


@needs_chromium
def test_the_slider_is_moved_by_keys_and_taken_back(open_page: Open, answers_server: Server) -> None:
    page = open_page(url=answers_server.url, sample=SAMPLE)
    answer, slider = page.locator("#prediction > [data-state=answer]"), page.get_by_label("Threshold for yes")
    own = answer.get_attribute("data-label")
    assert own is not None

    slider.focus()
    page.evaluate("window.shifts.length = 0")  # those of its arrival are other tests'
    page.keyboard.press("Home" if own == "no" else "End")

    expect(answer).not_to_have_attribute("data-label", own)
    expect(page.locator(".decision")).to_contain_text("On this page alone")
    expect(page.locator("#why strong")).not_to_have_text(own)
    page.wait_for_url(lambda url: OPTION in url)
    assert page.evaluate("window.shifts") == []

    page.locator("#usual-threshold").click()
    expect(answer).to_have_attribute("data-label", own)
    expect(slider).to_have_value("0.5")
    page.wait_for_url(lambda url: OPTION not in url)
    page.go_back()
    expect(answer).not_to_have_attribute("data-label", own)


def swiped(page: Page, *, across: int, up: int) -> None:
    """Draw a finger over the slider, from its middle."""
    box = page.locator("#threshold").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    client = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    touch("touchStart", (x, y))
    for step in range(1, 6):
        touch("touchMove", (x + across * step / 5, y - up * step / 5))
    touch("touchEnd")


@needs_chromium
def test_a_finger_that_scrolls_over_the_slider_changes_nothing(open_page: Open, answers_server: Server) -> None:
    page = open_page(url=answers_server.url, sample=SAMPLE, viewport={"width": 360, "height": 640}, has_touch=True)
    slider = page.locator("#threshold")
    slider.scroll_into_view_if_needed()

    page.evaluate("() => void (window.scrolled = new Promise((done) => addEventListener('scrollend', done)))")
    swiped(page, across=0, up=120)
    page.evaluate("scrolled.then(() => null)")  # the page moves on for a while when the finger has left
    expect(slider).to_have_value("0.5")
    expect(page.locator(".threshold > span")).to_have_text("50%")

    slider.scroll_into_view_if_needed()
    swiped(page, across=60, up=0)
    expect(slider).not_to_have_value("0.5")
