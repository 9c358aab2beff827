"""Stories in a real browser about words, gaps and quantities: by keyboard, by touch, by paste, on the map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from ml.model import classifier
from ml.model.classifier import Classifier
from tests import mixed
from tests.browser import Open, moves_on_arrival, needs_chromium
from tests.conftest import Server, run_server

pytestmark = needs_chromium

PENGUIN = {"island": "Biscoe", "bill_length": "46.2", "bill_depth": "18.2", "flipper_length": "200",
           "body_mass": "4350", "sex": "male"}  # fmt: skip
CAR = {"fuel": "petrol", "all_wheels": "True", "maker": "Dacia", "weight": "1570", "power": "118"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: mixed.write(name, folder) for name in ("penguins", "cars", "crops")}


@pytest.fixture(scope="module")
def servers(paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    log = tmp_path_factory.mktemp("servers")
    with (
        run_server(log / "1.txt", MODEL_FILE=str(paths["penguins"])) as penguins,
        run_server(log / "2.txt", MODEL_FILE=str(paths["cars"])) as cars,
        run_server(log / "3.txt", MODEL_FILE=str(paths["crops"])) as crops,
    ):
        yield {"penguins": penguins, "cars": cars, "crops": crops}


@pytest.fixture(scope="module")
def models(paths: dict[str, Path]) -> dict[str, Classifier]:
    return {name: classifier.load(path) for name, path in paths.items()}


def sent(page: Page) -> dict[str, str]:
    """Return what the form holds, without the axes of the map and the goal."""
    entries: list[list[str]] = page.evaluate("[...new FormData(document.getElementById('measurements'))]")
    return {key: value for key, value in entries if key not in ("map-x", "map-y", "goal")}


def expect_answer_to(page: Page, model: Classifier, sample: dict[str, str]) -> None:
    """Wait until the page shows what the model says to a sample, which its form holds."""
    prediction = model.predict(model.validator.row(sample))
    name, said = ("data-label", prediction.label) if model.labels else ("data-value", repr(prediction.value))
    expect(page.locator(f"#prediction > [{name}]")).to_have_attribute(name, said)
    assert sent(page) == sample


def expect_address(page: Page, sample: dict[str, str]) -> None:
    """Wait until the address has the sample, some time after the last gesture."""
    page.wait_for_url(lambda url: dict(parse_qsl(urlsplit(url).query)).items() >= sample.items())


def paste(page: Page, text: str, into: str) -> None:
    page.locator(into).focus()
    page.evaluate(
        """([text, into]) => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text", text);
          const options = { clipboardData, bubbles: true, cancelable: true };
          document.querySelector(into).dispatchEvent(new ClipboardEvent("paste", options));
        }""",
        [text, into],
    )


def radio(page: Page, name: str) -> Locator:
    return page.get_by_role("radio", name=name, exact=True)


def test_a_choice_is_made_by_keyboard_alone_and_goes_into_the_address(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]
) -> None:
    page = open_page(url=servers["penguins"].url, sample=PENGUIN)
    model = models["penguins"]

    radio(page, "Biscoe").focus()
    page.keyboard.press("ArrowRight")
    expect_answer_to(page, model, PENGUIN | {"island": "Dream"})
    page.keyboard.press("ArrowRight")
    expect_answer_to(page, model, PENGUIN | {"island": "Torgersen"})
    expect(radio(page, "Torgersen")).to_be_focused()

    expect_address(page, {"island": "Torgersen"})
    page.reload()
    expect_answer_to(page, model, PENGUIN | {"island": "Torgersen"})


def test_a_tap_chooses(open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]) -> None:
    page = open_page(
        url=servers["penguins"].url, sample=PENGUIN, has_touch=True, viewport={"width": 390, "height": 844}
    )  # fmt: skip

    radio(page, "Torgersen").tap()

    expect_answer_to(page, models["penguins"], PENGUIN | {"island": "Torgersen"})
    box = radio(page, "Torgersen").bounding_box()
    assert box
    assert min(box["width"], box["height"]) >= 44


def test_unknown_is_one_press_and_one_step_back(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]
) -> None:
    page = open_page(url=servers["penguins"].url, sample=PENGUIN)
    model, unknown = models["penguins"], page.get_by_role("button", name="bill length: unknown")

    unknown.press("Enter")
    expect_answer_to(page, model, PENGUIN | {"bill_length": "NA"})
    expect(unknown).to_have_attribute("aria-pressed", "true")
    unknown.press("Enter")
    expect_answer_to(page, model, PENGUIN)
    expect(unknown).to_have_attribute("aria-pressed", "false")
    page.go_back()
    expect_answer_to(page, model, PENGUIN | {"bill_length": "NA"})
    page.locator("#f2").fill("50")
    expect(unknown).to_have_attribute("aria-pressed", "false")
    expect_answer_to(page, model, PENGUIN | {"bill_length": "50"})
    radio(page, "unknown").check()
    expect_answer_to(page, model, PENGUIN | {"bill_length": "50", "sex": "NA"})


def test_a_place_on_the_map_chooses_the_word_of_its_band(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]
) -> None:
    page = open_page(url=servers["penguins"].url, sample=PENGUIN | {"map-x": "island", "map-y": "sex"})
    handle = page.locator("#map-handle")
    left, _, width, _ = map(float, (page.locator("svg.map").get_attribute("data-plot") or "").split())
    box = handle.bounding_box()
    assert box

    for band, island in enumerate(("Biscoe", "Dream", "Torgersen")):
        across = (left + width * (band + 0.5) / 3) / 400 * box["width"]
        handle.click(position={"x": across, "y": box["height"] * 0.7})
        expect_answer_to(page, models["penguins"], PENGUIN | {"island": island, "sex": "female"})
    handle.press("ArrowUp")
    expect_answer_to(page, models["penguins"], PENGUIN | {"island": "Torgersen", "sex": "male"})
    handle.press("ArrowRight")  # there is no band beyond the last one
    expect_answer_to(page, models["penguins"], PENGUIN | {"island": "Torgersen", "sex": "male"})


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        ("Dream\t49.1\t18.0\t200\t3800\tfemale\tChinstrap",
         ["Dream", "49.1", "18.0", "200", "3800", "female"]),
        ("7,Torgersen,39.1,18.7,181,3750,male", ["Torgersen", "39.1", "18.7", "181", "3750", "male"]),
        ("Biscoe\t\t14.0\t220\tNA\t", ["Biscoe", "NA", "14.0", "220", "NA", "NA"]),
        ("species,sex,island,bill length (mm),bill_depth,flipper length (mm),body mass (g)\n"
         "Adelie,NA,Atlantis,40.1,17,190,3500", ["Atlantis", "40.1", "17", "190", "3500", "NA"]),
        ('{"sample": {"island": "Dream", "bill_length": null, "bill_depth": 17, "flipper_length": 190, '
         '"body_mass": 3500, "sex": null}}', ["Dream", "NA", "17", "190", "3500", "NA"]),
        ("Torgersen\n39.1\n18.7\n181\n3750\nmale", ["Torgersen", "39.1", "18.7", "181", "3750", "male"]),
        ("Atlantis\t39.1\t18.7\t181\t3750\tmale", ["Atlantis", "39.1", "18.7", "181", "3750", "male"]),
    ],
)  # fmt: skip
def test_a_pasted_row_of_words_and_gaps_fills_every_field(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier], text: str, sample: list[str]
) -> None:
    page = open_page(url=servers["penguins"].url, sample=PENGUIN)

    paste(page, text, "#f3")

    expect_answer_to(page, models["penguins"], dict(zip(PENGUIN, sample, strict=True)))
    expect(page.locator("#refusal")).to_be_hidden()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("39.1\n18.7\n181", "has 3 values, and 6 are needed"),
        ("\t39.1\t18.7\t181\t3750\tmale", "values, and 6 are needed"),
        ("Dream\t39.1\tx\t181\t3750\tmale", "has 5 values, and 6 are needed"),
        ("island,bill_length,bill_depth,flipper_length,body_mass,sex\n,1,2,3,4,male", "has no value for island."),
    ],
)
def test_a_row_that_does_not_fit_changes_nothing(
    open_page: Open, servers: dict[str, Server], text: str, why: str
) -> None:
    page = open_page(url=servers["penguins"].url, sample=PENGUIN)

    paste(page, text, "#f3")

    expect(page.locator("#refusal")).to_contain_text(why)
    assert sent(page) == PENGUIN


def test_a_word_that_is_new_is_answered_as_a_guess_and_leaves_with_the_next_choice(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]
) -> None:
    page = open_page(url=servers["penguins"].url, sample=PENGUIN | {"island": "Atlantis"})

    expect_answer_to(page, models["penguins"], PENGUIN | {"island": "Atlantis"})
    expect(page.locator("#prediction .headline em")).to_have_text("a guess: 1 value unlike any in training")
    expect(page.locator("#f1-hint")).to_have_text("not seen in training")
    page.get_by_role("link", name="Gentoo", exact=True).click()
    expect(page.locator("#f1-hint")).to_be_empty()
    expect(page.get_by_role("radiogroup", name="island").get_by_role("radio")).to_have_count(3)


def test_a_search_field_takes_listed_and_new_words(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]
) -> None:
    page = open_page(url=servers["crops"].url, sample={})
    field, sample = page.get_by_role("combobox", name="region"), sent(page)
    listed = page.evaluate("[...document.getElementById('f1').list.options].map(({ value }) => value)")

    assert len(listed) == 21, "twenty words, and none"
    for word in (listed[3], "region zz", "?"):
        field.fill(word)
        expect_answer_to(page, models["crops"], sample | {"region": word})
    field.fill("")
    expect(page.locator("#prediction .headline")).to_have_text("Waiting for region")


def test_the_value_follows_every_key_and_the_goal_is_reached_by_its_button(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]
) -> None:
    page = open_page(url=servers["cars"].url, sample=CAR)
    model, goal = models["cars"], page.get_by_label("Goal")

    goal.fill("30")
    expect(page.locator(".change")).to_contain_text("reaches 30\u00a0mpg when")
    page.locator("#apply").click()

    value = page.locator("#prediction > [data-value]")
    expect(page.locator(".change")).to_contain_text("falls below 30\u00a0mpg when")
    assert float(value.get_attribute("data-value") or "") >= 30
    expect_answer_to(page, model, sent(page))
    expect_address(page, {"goal": "30"})
    page.go_back()
    expect_answer_to(page, model, CAR)
    expect(goal).to_have_value("30")


def test_numbers_are_written_so_that_they_are_read_back_where_the_comma_divides_thousands(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier]
) -> None:
    page = open_page(url=servers["cars"].url, sample=CAR | {"weight": "1,781"}, locale="es-ES")
    weight = page.locator("#f4")

    expect_answer_to(page, models["cars"], CAR | {"weight": "1,781"})
    assert page.locator("#f4-slider").input_value() == "1781"
    weight.press("Alt+ArrowUp")
    expect(weight).to_have_value("1782")
    weight.fill("1.5")
    weight.press("Alt+ArrowUp")
    expect(weight).to_have_value("2.5")


@pytest.mark.parametrize("name", ["penguins", "cars", "crops"])
def test_without_a_script_the_form_says_the_same(
    open_page: Open, servers: dict[str, Server], models: dict[str, Classifier], name: str
) -> None:
    page = open_page(url=servers[name].url, sample={}, java_script_enabled=False)
    sample = {"penguins": PENGUIN | {"island": "Dream", "bill_length": "NA"}, "cars": CAR | {"maker": "Fiat"}}.get(name)

    if name == "penguins":
        radio(page, "Dream").check()
        page.locator("#f2").fill("NA")
        for number, key in ((3, "bill_depth"), (4, "flipper_length"), (5, "body_mass")):
            page.locator(f"#f{number}").fill(PENGUIN[key])
        radio(page, "male").check()
    elif name == "cars":
        page.get_by_role("combobox", name="maker").select_option("Fiat")
        radio(page, "petrol").check()
        radio(page, "True").check()
        page.locator("#f4").fill("1570")
        page.locator("#f5").fill("118")
    else:
        page.locator("#f1").fill("region b")
    page.get_by_role("button", name="Predict", exact=True).click()

    answer = page.locator("#prediction > [data-state=answer]")
    expect(answer).to_be_visible()
    if sample:
        prediction = models[name].predict(models[name].validator.row(sample))
        said = prediction.label or repr(prediction.value)
        assert (answer.get_attribute("data-label") or answer.get_attribute("data-value")) == said


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("name", ["penguins", "cars", "crops"])
def test_nothing_moves_and_nothing_sticks_out(
    open_page: Open, servers: dict[str, Server], name: str, width: int
) -> None:
    page = open_page(url=servers[name].url, sample={}, viewport={"width": width, "height": 800})
    gap = page.locator(".unknown").first

    for _ in range(2):
        gap.click()
        page.wait_for_function("document.querySelector('#prediction [data-state=answer]')")
        page.locator("#f2").press("ArrowDown")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("shifts") == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["penguins", "cars"])
def test_nothing_moves_while_words_and_goals_arrive(
    open_page: Open, servers: dict[str, Server], name: str, width: int
) -> None:
    assert moves_on_arrival(open_page, servers[name], width) == []
