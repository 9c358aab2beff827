"""A predicted quantity on the page: its digits, its interval, its levels, its goal, and the card."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from ml.model.card import Card, QuantityReport
from ml.model.loaded import LoadedModel, load_model
from ml.model.quantity import Interval, Quantity
from ml.tables.dataset import Target
from tests import small_tables
from tests.conftest import Element, for_each, parse_html, points_of
from web.app import create_app
from web.page.languages import NO_BREAK, THIN_NO_BREAK, language
from web.page.model_card import card_view
from web.page.quantities import SHADES, STRIP_WIDTH, QuantityScale
from web.page.strips import strips_of
from web.page.templates import render
from web.settings import Settings

ENGLISH, SPANISH = language("en"), language("es")
HTMX = {"HX-Request": "true"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tables.file_of("cars", tmp_path_factory.mktemp("cars"))


@pytest.fixture(scope="module")
def cars(path: Path) -> LoadedModel:
    return load_model(path)


@pytest.fixture(scope="module")
def page(path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(model_file=path))) as client:
        yield client


def scale(error: float, low: float = 0.0, high: float = 100.0, *, to: str = "en", unit: str = "€") -> QuantityScale:
    quantiles = tuple(np.linspace(low, high, 11).tolist())
    quantity = Quantity(
        low=low, high=high, quantiles=quantiles, interval=Interval(below=2.5, above=1.0, coverage=0.9, rows=80)
    )  # fmt: skip
    report = QuantityReport(
        train_rows=80, test_rows=20, r2=0.5, mean_absolute_error=error, root_mean_squared_error=error,
        baseline_error=error, residuals=(), covered=0.9, cross_validation=None,
    )  # fmt: skip
    return QuantityScale(quantity, Target(unit=unit), report, language(to))


def plain(text: str) -> str:
    return text.replace(NO_BREAK, " ").replace(THIN_NO_BREAK, " ")


@pytest.mark.parametrize(
    ("error", "value", "text"),
    [
        (28_000, 256_123.4, "256 000"), (280, 4_475, "4480"), (1.57, 25.585, "25.6"), (0.2, 25.586, "25.59"),
        (0.04, -0.0001, "0.000"), (3e-7, 1.23456789e-5, "0.00001235"), (1.5, -1234.56, "−1234.6"), (0, 7.25, "7.25"),
        (1, 1e300, "1e+300"),
    ],
)  # fmt: skip
def test_a_quantity_has_the_digits_that_its_error_leaves_meaningful(error: float, value: float, text: str) -> None:
    assert plain(scale(error).number(value)) == text


@given(
    error=st.floats(0, 1e300), value=st.floats(-1e300, 1e300), low=st.floats(-1e300, 1e300),
    span=st.floats(0, 1e300),
)  # fmt: skip
def test_any_quantity_has_a_text_a_level_and_a_place(error: float, value: float, low: float, span: float) -> None:
    made = scale(error, low, low + span)

    view = made.view(value)
    (level,) = made.levels(np.array([value])).tolist()

    assert float(view.exact) == value
    assert 0 <= made.tone(level) < SHADES
    assert 0 < float(view.needle) < STRIP_WIDTH
    assert made.strip().shades
    assert made.legend().shades
    assert math.isfinite(made.goal)


def test_levels_are_between_round_numbers() -> None:
    made = scale(1.5)

    assert [text for _, text in made.legend().ticks] == ["20", "40", "60", "80"]
    assert made.levels(np.array([0, 20, 39.9, 99])).tolist() == [0, 1, 1, 4]
    assert [made.tone(level) for level in range(5)] == [0, 2, 4, 5, 7]


def test_an_interval_is_below_and_above_the_value() -> None:
    view = scale(0.5, to="es", unit="kg").view(10.0)

    assert plain(view.interval) == "El 90 % de los casos está entre 7,50 y 11,00 kg"


@for_each(
    ("typed", "goal"),
    [
        ("20", 20.0),
        (" 20,5 €", 20.5),
        ("€ 20", 20.0),
        ("", None),
        ("x", None),
        ("1e999", None),
        ("nan", None),
        ("310 000", 310_000.0),
        ("−1\u202f234\u202f567.5 €", -1_234_567.5),
        ("31 00", None),
        ("1 2", None),
    ],
)
def test_a_goal_is_a_number_with_its_unit_or_without_and_as_the_page_shows_it(typed: str, goal: float | None) -> None:
    assert scale(1).read(typed) == goal


@pytest.mark.parametrize("value", [310_000.0, -25_000.5, 1_234.0, 999.0])
def test_the_page_s_own_numbers_are_read_as_a_goal(value: float) -> None:
    made = scale(1, to="es", unit="EUR")

    assert made.read(made.exact(value)) == value


# --- the page in process


def fragment_of(client: TestClient, **changes: str) -> Element:
    sample = {"fuel": "petrol", "all_wheels": "False", "maker": "Fiat", "weight": "1450", "power": "118"}
    answer = client.get("/predict", params=sample | changes, headers=HTMX)
    assert answer.status_code == 200
    return parse_html(answer.text)


def value_of(fragment: Element) -> float:
    return float(fragment.one("div", data_state="answer").attributes["data-value"])


def test_the_fragment_says_the_value_with_all_its_digits(page: TestClient, cars: LoadedModel) -> None:
    fragment = fragment_of(page)

    value = cars.predict(cars.validator.row(["petrol", "False", "Fiat", 1450, 118])).value
    headline = fragment.one("p", **{"class": "headline quantity"})
    assert value_of(fragment) == value
    assert float(headline.one("strong").attributes["title"]) == value
    assert float(headline.one("strong").text) == round(value, 1)
    assert headline.one("span").text == "mpg"
    assert "data-label" not in fragment.one("div", data_state="answer").attributes
    assert not fragment.all("meter")


@pytest.mark.parametrize(("goal", "outcome"), [("30", "Reaches 30 mpg"), ("20", "Falls below 20 mpg")])
def test_the_change_that_reaches_a_goal_does_so(page: TestClient, goal: str, outcome: str) -> None:
    before = fragment_of(page, goal=goal)
    button = before.one("button").attributes

    after = fragment_of(page, goal=goal, **{button["data-set"]: button["data-value"]})

    assert plain(before.one("p", **{"class": "change"}).text).startswith(outcome)
    assert (value_of(before) >= float(goal)) != (value_of(after) >= float(goal))


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        ("500", "No change of a single value was found that reaches 500 mpg."),
        ("-500", "No change of a single value was found that falls below −500 mpg."),
        ("abc", "The goal is not a number."),
    ],
)
def test_a_goal_without_a_change_says_so(page: TestClient, goal: str, sentence: str) -> None:
    change = fragment_of(page, goal=goal).one("p", **{"class": "change"})

    assert plain(change.text) == sentence
    assert not change.all("button")
    field = parse_html(page.get("/", params={"goal": goal}).text).one("input", id="goal")
    assert (field.attributes.get("aria-invalid") == "true") == (goal == "abc")


@pytest.mark.parametrize("goal", ["", "-", "1e"])
def test_a_half_typed_goal_is_waited_for(page: TestClient, goal: str) -> None:
    assert not fragment_of(page, goal=goal).all("p", **{"class": "change"})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_goal_goes_with_the_address_and_the_form_and_is_no_feature(page: TestClient, method: str) -> None:
    fields = {"fuel": "diesel", "goal": "33"}
    if method == "GET":
        response = page.get("/", params=fields)
    else:
        sample = {"all_wheels": "False", "maker": "Fiat", "weight": "1450", "power": "118"}
        response = page.post("/result", data=fields | sample, headers={"Accept": "text/html"})

    html = parse_html(response.text)
    assert response.status_code == 200
    assert html.one("input", id="goal").attributes["value"] == "33"
    assert "33" in html.one("p", **{"class": "change"}).text
    links = [link.attributes["href"] for link in html.one("nav").all("a")]
    assert all("goal=33" in link for link in links)


def test_a_classifier_has_no_goal(client: TestClient) -> None:
    sample = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3", "goal": "1"}

    assert not parse_html(client.get("/").text).all("input", id="goal")
    assert client.get("/predict", params=sample, headers={"Accept": "application/json"}).status_code == 422


def test_an_unknown_number_and_word_are_answered_and_leave_the_map(page: TestClient) -> None:
    fragment = fragment_of(page, power="NA", maker="Lada", **{"map-x": "power", "map-y": "maker"})

    circle = fragment.one("circle", **{"class": "sample"}).attributes
    assert (circle["cx"], circle["cy"]) == ("-99", "-99")
    assert [item.attributes["data-feature"] for item in fragment.all("li")] == ["maker"]


# --- the card


def section_of(card: Card) -> Element:
    view = card_view(card, "0123456789ab", ENGLISH)
    return parse_html(render("_card.html", ENGLISH, card=view)).one("section", id="card")


def test_the_card_says_how_good_it_is_and_how_the_interval_was_made(cars: LoadedModel) -> None:
    card = cars.card
    report, quantity = card.report, card.quantity
    assert isinstance(report, QuantityReport)
    assert quantity is not None

    facts = {fact.term: plain(fact.text) for fact in card_view(card, "v", ENGLISH).quality}

    assert facts["R²"].startswith(plain(ENGLISH.percent(report.r2)))
    assert re.match(r"[\d.]+ mpg; [\d.]+ mpg by always predicting the median", facts["Mean absolute error"])
    assert "90% of the errors on 320 rows, each predicted by a model that was fitted without it" in facts["Interval"]
    assert facts["Coverage"] == f"{plain(ENGLISH.percent(report.covered))} of 80 test rows lie in it"


def test_the_card_draws_each_test_row_at_its_predicted_and_true_value(cars: LoadedModel) -> None:
    report = cars.card.report
    assert isinstance(report, QuantityReport)
    picture = section_of(cars.card).one("svg", **{"class": "plot residuals"})

    points = points_of(picture.one("path", **{"class": "points"}).attributes["d"])

    numbers = [number for pair in report.residuals for number in pair]
    unit = 240 / (max(numbers) - min(numbers))
    expected = {
        (round(52 + (predicted - min(numbers)) * unit), round(244 - (true - min(numbers)) * unit))
        for predicted, true in report.residuals
    }
    assert {*points} == expected


@for_each(
    "changes",
    [
        {"residuals": ()}, {"residuals": ((1.0, 1.0),)}, {"residuals": ((-1e308, 1e308),)}, {"r2": -1e308},
        {"mean_absolute_error": 0.0}, {"mean_absolute_error": 1e308}, {"covered": -1.0}, {"train_rows": None},
        {"test_rows": 0}, {"mean_absolute_error": 9.0, "baseline_error": 1.0},
    ],
)  # fmt: skip
def test_odd_reports_of_a_quantity_break_nothing(cars: LoadedModel, changes: dict[str, object]) -> None:
    report = cars.card.report
    assert report is not None
    section = section_of(msgspec.structs.replace(cars.card, report=msgspec.structs.replace(report, **changes)))

    assert section.one("dl") if len(section.all("dl")) == 1 else section.all("dl")


def test_the_card_counts_choices_and_gaps(cars: LoadedModel) -> None:
    rows = {row.title: plain(row.range) for row in card_view(cars.card, "v", ENGLISH).features}

    power = next(feature for feature in cars.features if feature.key == "power")
    assert rows["fuel"].startswith("petrol ")
    assert rows["maker"].endswith(", 5 more")
    assert rows["power"].endswith(f"kW; {plain(ENGLISH.percent(power.gap_share))} without a value")


def test_a_line_along_which_the_quantity_stays_does_not_go_from_it_to_itself(cars: LoadedModel) -> None:
    row = [feature.example for feature in cars.features]

    said = {view.said for view in strips_of(cars, row, ENGLISH, scale=scale(1e6, unit="mpg"))}

    assert {text.split("; ")[0] for text in said} == {f"along it the answer stays 0{NO_BREAK}mpg"}
