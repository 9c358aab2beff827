"""The page in a real browser on the real server: what a person sees, types, hears and never loses."""

from __future__ import annotations

import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.tables.dataset import Feature
from ml.training import fitting, writing
from tests.browser import (
    EXAMPLE,
    Open,
    Quiet,
    expect_answer,
    expect_state,
    field,
    moves_on_arrival,
    needs_chromium,
    serve,
    typed,
)
from tests.builders import dataset_of
from tests.conftest import Server, run_server
from web.page.languages import language

pytestmark = needs_chromium
LIVE = "[aria-live], [role]:not(svg), output"


def count_swaps(page: Page) -> None:
    """Let the page keep, in `window.swaps`, the text of petal width to which each shown answer belongs."""
    page.evaluate(
        """() => {
            window.swaps = [];
            document.getElementById("prediction").addEventListener("htmx:afterSwap", (event) => {
              window.swaps.push(event.detail.requestConfig.formData.get("petal_width"));
            });
        }"""
    )


# Typing


def test_the_first_html_holds_the_prediction_of_what_it_is_prefilled_with(open_page: Open, model: LoadedModel) -> None:
    page = open_page(java_script_enabled=False)

    assert typed(page) == EXAMPLE
    expect_answer(page, model, EXAMPLE)


def test_every_key_gets_its_answer(visit: Open, model: LoadedModel) -> None:
    page = visit()
    count_swaps(page)
    field(page).fill("")
    expect_state(page, "incomplete")
    typed = ""

    for key in "1.75342":
        field(page).press(key)
        typed += key
        expect_answer(page, model, EXAMPLE | {"petal_width": typed})

    page.wait_for_function("(count) => swaps.length >= count", arg=len(typed) + 1)  # the last answers look alike
    assert page.evaluate("swaps") == ["", *(typed[: n + 1] for n in range(len(typed)))]


@pytest.mark.parametrize("seed", range(4))
def test_the_newest_input_wins_when_replies_are_late_at_random(open_page: Open, model: LoadedModel, seed: int) -> None:
    rng = random.Random(seed)
    page = open_page()
    count_swaps(page)
    keys = [rng.choice("0123456789") for _ in range(20)]
    states = ["1." + "".join(keys[: n + 1]) for n in range(len(keys))]

    def delay(route: Route) -> None:
        page.wait_for_timeout(rng.uniform(0, 300))
        route.continue_()

    page.route("**/predict?*", delay)
    field(page).fill("1.")
    for key in keys:
        page.keyboard.type(key, delay=rng.uniform(0, 80))

    expect_answer(page, model, EXAMPLE | {"petal_width": states[-1]})
    expect(page.locator("#measurements")).not_to_have_class(re.compile("htmx-request"))
    shown = page.evaluate("swaps")
    assert shown[-1] == states[-1]
    assert shown == [text for text in ["1.", *states] if text in shown]
    assert len(shown) < len(states), "no reply was late: the story was not told"


def test_caret_and_focus_stay_while_typing_in_the_middle_of_a_number(visit: Open, model: LoadedModel) -> None:
    page = visit()
    count_swaps(page)
    field(page).fill("19")
    field(page).evaluate("input => input.setSelectionRange(1, 1)")

    for position, key in enumerate(".47", start=2):
        page.keyboard.press(key)
        page.wait_for_function("n => swaps.length === n", arg=position)
        caret = "document.activeElement.name + ' ' + document.activeElement.selectionStart"
        assert page.evaluate(caret) == f"petal_width {position}"

    assert field(page).input_value() == "1.479"
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.479"})


@pytest.mark.parametrize("text", ["1,3", " 1.3 ", "+1.3", "1.30", "13e-1"])
def test_a_number_is_what_a_person_types(visit: Open, model: LoadedModel, text: str) -> None:
    page = visit()
    field(page).fill("9")
    expect(page.locator("#prediction [data-kind=note]")).to_have_count(1)

    field(page).fill(text)

    expect(page.locator("#prediction [data-kind=note]")).to_have_count(0)
    expect_answer(page, model, EXAMPLE)


@pytest.mark.parametrize("text", ["", " ", "-", ".", ",", "1e"])
def test_a_half_typed_number_is_awaited_and_no_error(visit: Open, text: str) -> None:
    page = visit()
    reason = page.locator(".why th").first
    before = reason.evaluate("(element) => getComputedStyle(element).color")

    field(page).fill(text)

    expect_state(page, "incomplete")
    expect(reason).not_to_have_css("color", before)  # it belongs to the answer before
    expect(page.locator("#prediction .headline")).to_have_text("Waiting for petal width")
    expect(page.locator("#measurements [aria-invalid]")).to_have_count(0)
    expect(page.locator("#prediction .messages")).to_have_count(0)
    expect(page.locator("#prediction [data-label]")).to_have_count(0)


def test_on_a_phone_a_button_beside_the_answer_leads_to_what_stands_behind_it(open_page: Open) -> None:
    page = open_page(viewport={"width": 390, "height": 700}, has_touch=True)
    bars = page.locator("#prediction .bars")

    expect(bars).not_to_be_in_viewport()
    page.get_by_role("button", name="Details").tap()

    expect(bars).to_be_in_viewport(ratio=1)
    expect(page.locator("#prediction .headline")).to_be_in_viewport(ratio=1)


def test_a_value_outside_the_training_range_is_a_note_beside_its_field(visit: Open, model: LoadedModel) -> None:
    page = visit()

    field(page).fill("7")

    expect_answer(page, model, EXAMPLE | {"petal_width": "7"})
    expect(page.locator("#prediction .messages li")).to_have_text(
        ["petal width is outside the training range of 0.1 to 2.5 cm"]
    )
    expect(field(page)).to_have_accessible_description(re.compile(r"^above the range training range: 0.1 to 2.5\scm"))
    expect(page.locator("#measurements [aria-invalid]")).to_have_count(0)


def test_an_error_stands_beside_its_field_and_goes_when_mended(visit: Open, model: LoadedModel) -> None:
    page = visit()

    field(page, "sepal_width").fill("-3")
    field(page).fill("1.3x")

    expect_state(page, "invalid")
    expect(page.locator("#measurements [aria-invalid=true]")).to_have_count(2)
    expect(field(page)).to_have_accessible_description(re.compile("^not a number"))
    expect(field(page, "sepal_width")).to_have_accessible_description(re.compile(r"^at least 0\scm"))
    expect(page.locator("#prediction .messages li")).to_have_count(2)

    field(page, "sepal_width").fill("2.7")
    field(page).press("End")
    field(page).press("Backspace")

    expect_answer(page, model, EXAMPLE)
    expect(page.locator("#measurements [aria-invalid]")).to_have_count(0)
    expect(field(page)).to_have_accessible_description(re.compile(r"^training range: 0.1 to 2.5\scm"))


# Hearing, the address, going back


def test_a_pause_speaks_once_and_renews_the_address(open_page: Open, model: LoadedModel) -> None:
    page = open_page(changes_context=True)
    page.clock.install()
    page.reload()
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))
    page.evaluate(
        """() => {
            window.spoken = [];
            const line = document.getElementById("announcement");
            new MutationObserver(() => line.textContent && window.spoken.push(line.textContent))
              .observe(line, { childList: true, characterData: true, subtree: true });
        }"""
    )
    count_swaps(page)
    address = page.url
    field(page).fill("")
    for n, key in enumerate("0.2", start=2):
        page.clock.run_for(200)
        page.keyboard.press(key)
        page.wait_for_function("n => swaps.length === n", arg=n)
    page.clock.run_for(650)
    assert page.url == address
    assert page.evaluate("spoken") == []

    page.clock.run_for(100)

    prediction = model.predict(model.validator.row(EXAMPLE | {"petal_width": "0.2"}))
    percent = language("en").percent(prediction.probabilities[prediction.index])
    assert page.evaluate("spoken") == [f"{prediction.label}, {percent}."]
    assert page.url == address.replace("petal_width=1.3", "petal_width=0.2")
    expect(page.locator("#announcement")).to_have_attribute("role", "status")
    expect(page.locator("#prediction, #prediction *").and_(page.locator(LIVE))).to_have_count(0)


@pytest.mark.parametrize("text", ["0,2", "1.77", "", "two", "9"])
def test_the_address_reproduces_what_is_seen(open_page: Open, text: str) -> None:
    page = open_page(complaint="422")
    before = page.locator("#prediction").inner_text()
    field(page).fill(text)
    expect(page.locator("#prediction")).not_to_have_text(before, use_inner_text=True)
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query, keep_blank_values=True)["petal_width"] == [text])

    other = open_page(page.url.removeprefix(page.url.partition("?")[0].rstrip("/")), sample={}, complaint="422")

    for shown in (page, other):
        shown.evaluate("document.querySelectorAll('.last, #why, .unseen').forEach((part) => part.remove())")
    for part in ("#measurements", ".answer"):
        assert other.locator(part).inner_text() == page.locator(part).inner_text()
    assert typed(other) == typed(page)
    assert other.locator("#measurements [aria-invalid=true]").count() == page.locator("[aria-invalid=true]").count()


def test_going_back_shows_what_was_typed_last_even_without_a_pause(open_page: Open, model: LoadedModel) -> None:
    page = open_page()

    field(page).fill("0.4")
    page.goto("about:blank")
    page.go_back()

    expect(field(page)).to_have_value("0.4")
    expect_answer(page, model, EXAMPLE | {"petal_width": "0.4"})


def test_a_reload_shows_what_was_typed(visit: Open, model: LoadedModel) -> None:
    page = visit()
    field(page).fill("1.9")
    page.wait_for_url("**petal_width=1.9")

    page.reload()

    expect(field(page)).to_have_value("1.9")
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.9"})


def test_a_reload_right_after_a_key_shows_what_was_typed(open_page: Open, model: LoadedModel) -> None:
    page = open_page()

    with page.expect_event("load"):
        field(page).evaluate(
            """input => {
                input.value = "1.9";
                input.dispatchEvent(new Event("input", { bubbles: true }));
                location.reload();  // before the pause that the address waits for
            }"""
        )

    expect(field(page)).to_have_value("1.9")
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.9"})
    page.wait_for_url("**petal_width=1.9")
    page.reload()
    expect(field(page)).to_have_value("1.9")
    page.goto(page.url.replace("petal_width=1.9", "petal_width=1.3"))
    expect(field(page)).to_have_value("1.3")


def test_an_answer_that_did_not_change_is_not_swapped(visit: Open, model: LoadedModel) -> None:
    page = visit()
    page.locator("#prediction .headline strong").select_text()
    page.evaluate("first = document.querySelector('#prediction > *')")
    before = page.evaluate("getSelection().toString()")
    assert before

    for _ in range(2):
        with page.expect_response("**/predict?*") as response:
            page.evaluate("document.getElementById('measurements').dispatchEvent(new Event('refresh'))")
        response.value.finished()
        expect(page.locator("#measurements")).not_to_have_class(re.compile("htmx-request"))
        assert page.evaluate("getSelection().toString()") == before
        assert page.evaluate("document.querySelector('#prediction > *') === first")

    field(page).fill("1.9")
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.9"})


def test_inputs_that_the_browser_restored_get_their_answer(visit: Open, model: LoadedModel) -> None:
    page = visit()

    page.evaluate(
        """() => {
            document.querySelector("input[name=petal_width]").value = "2.2";  // as autofill does it: without an event
            window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
        }"""
    )

    expect_answer(page, model, EXAMPLE | {"petal_width": "2.2"})


# A server that is gone


def test_a_server_that_is_gone_makes_the_answer_stale_until_it_is_back(
    open_page: Open, model: LoadedModel, model_path: Path, tmp_path: Path
) -> None:
    with run_server(tmp_path / "first.txt", MODEL_FILE=str(model_path)) as first:
        page = open_page(url=first.url, complaint="htmx|ERR_CONNECTION")
    stale, line = page.locator("#prediction[data-stale]"), page.locator("#connection")
    expect(stale).to_have_count(0)

    field(page).fill("2.3")
    expect(stale).to_have_count(1)
    expect(line).to_have_text("Out of date: retrying")
    expect(page.locator("#announcement")).to_have_text(re.compile("does not respond"))
    field(page).press("Backspace")
    field(page).press("4")
    expect(field(page)).to_have_value("2.4")
    expect(stale).to_have_count(1)

    with run_server(tmp_path / "second.txt", port=first.port, MODEL_FILE=str(model_path)):
        expect(stale).to_have_count(0, timeout=15_000)
        expect(line).to_have_text("")
        expect_answer(page, model, EXAMPLE | {"petal_width": "2.4"})
        expect(field(page)).to_be_focused()
        expect(page.locator("#announcement")).to_have_text(re.compile("^virginica"))
        page.close()


def test_the_page_asks_again_when_the_service_said_that_it_may(open_page: Open, model: LoadedModel) -> None:
    page = open_page(complaint="htmx|Response Status|status of 429")
    asked: list[float] = []

    def refuse_once(route: Route) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            route.fulfill(status=429, headers={"Retry-After": "2"})
        else:
            route.continue_()

    page.route("**/predict?*", refuse_once)
    field(page).fill("2.3")
    expect(page.locator("#prediction[data-stale]")).to_have_count(1)
    expect(page.locator("#prediction[data-stale]")).to_have_count(0, timeout=15_000)

    expect_answer(page, model, EXAMPLE | {"petal_width": "2.3"})
    assert asked[1] - asked[0] >= 2


@pytest.mark.parametrize(
    "reply",
    [{"status": 503}, {"status": 500, "body": "oops"}, {"status": 200, "body": "<h1>Log in</h1>"}],
    ids=["503", "500", "another page"],
)
def test_a_reply_that_is_no_prediction_is_never_shown(
    open_page: Open, model: LoadedModel, reply: dict[str, Any]
) -> None:
    page = open_page(complaint="htmx|Response Status|status of 50")
    page.route("**/predict?*", lambda route: route.fulfill(content_type="text/html", **reply))
    field(page).fill("2.3")
    expect(page.locator("#prediction[data-stale]")).to_have_count(1)
    expect_answer(page, model, EXAMPLE)

    page.unroute("**/predict?*")

    expect(page.locator("#prediction[data-stale]")).to_have_count(0)
    expect_answer(page, model, EXAMPLE | {"petal_width": "2.3"})


def held_predictions(page: Page, *, times: int) -> list[Route]:
    """Return the next requests for a prediction, as they come: none is answered until it is continued."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/predict?*", hold, times=times)
    return held


def test_a_reply_that_never_comes_is_told_and_asked_for_again(open_page: Open, model: LoadedModel) -> None:
    page = open_page(complaint="htmx:")
    held = held_predictions(page, times=1)

    field(page).fill("2.3")

    expect(page.locator("#connection")).to_have_text("Late: still waiting")
    expect(page.locator("#connection")).to_have_text("Out of date: retrying", timeout=10_000)
    expect(page.locator("#connection")).to_have_text("", timeout=10_000)
    expect_answer(page, model, EXAMPLE | {"petal_width": "2.3"})
    assert len(held) == 1


def test_an_answer_to_an_earlier_input_is_marked_as_late_until_the_last_one_is_there(
    open_page: Open, model: LoadedModel
) -> None:
    page = open_page()
    held = held_predictions(page, times=2)
    field(page).fill("2.3")
    expect(page.locator("#connection")).to_have_text("Late: still waiting")
    field(page).fill("2.4")

    with page.expect_request("**/predict?*petal_width=2.4*"):
        held[0].continue_()

    expect(page.locator("#prediction > [data-label=virginica]")).to_be_visible()
    assert page.locator("#connection").inner_text() == "Late: still waiting"
    assert page.locator("#prediction[data-stale]").count() == 1
    held[1].continue_()
    expect(page.locator("#connection")).to_have_text("")
    expect(page.locator("#prediction[data-stale]")).to_have_count(0)
    expect_answer(page, model, EXAMPLE | {"petal_width": "2.4"})


def test_it_tries_again_at_once_when_the_device_is_back_online(open_page: Open, model: LoadedModel) -> None:
    page = open_page(complaint="htmx|ERR_INTERNET", changes_context=True)
    page.clock.install()
    page.reload()
    page.context.set_offline(True)
    field(page).fill("2.3")
    expect(page.locator("#prediction[data-stale]")).to_have_count(1)
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))

    page.context.set_offline(False)

    expect(page.locator("#prediction[data-stale]")).to_have_count(0)
    expect_answer(page, model, EXAMPLE | {"petal_width": "2.3"})


# Without a mouse, without JavaScript, elsewhere


def test_the_keyboard_alone_reaches_everything_and_enter_stays_on_the_page(visit: Open, model: LoadedModel) -> None:
    page = visit()
    focused = "(one => one.name || one.id || one.className || one.getAttribute('href'))(document.activeElement)"
    outline = "getComputedStyle(document.activeElement).outlineStyle"

    reached, outlines = [], set()
    while (name := tab_to_next(page, focused)) != "health/ready":
        reached.append(name)
        if name not in EXAMPLE:  # the outline of a field is that of its frame
            outlines.add(page.evaluate(outline))

    assert [name for name in reached if name in EXAMPLE] == list(EXAMPLE)
    assert {"slider", "map-handle", "map-x", "map-y", "docs"} < set(reached)
    assert outlines == {"solid"}
    field(page).focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("2.2")
    page.keyboard.press("Enter")
    sample = EXAMPLE | {"petal_width": "2.2"}
    expect_answer(page, model, sample)
    page.wait_for_url(f"**/?{urlencode(sample)}")
    expect(field(page)).to_be_focused()


def tab_to_next(page: Page, focused: str) -> str | None:
    page.keyboard.press("Tab")
    name: str | None = page.evaluate(focused)
    return name


def test_enter_predicts_at_once_when_the_input_has_not_changed(visit: Open) -> None:
    page = visit()

    with page.expect_response("**/predict?*"):
        field(page).press("Enter")

    assert urlsplit(page.url).path == "/"


@pytest.mark.parametrize("scripts", ["absent", "broken"])
def test_without_scripts_the_form_gives_the_result(open_page: Open, model: LoadedModel, scripts: str) -> None:
    page = open_page(java_script_enabled=scripts == "broken", complaint="ERR_FAILED")
    if scripts == "broken":
        page.route("**/static/*.js*", lambda route: route.abort())
        page.reload()
    sample = EXAMPLE | {"petal_width": "2,2"}
    field(page).fill("2,2")

    if scripts == "absent":
        page.get_by_role("button", name="Predict", exact=True).click()
    else:
        field(page).press("Enter")

    page.wait_for_url("**/result")
    expect_answer(page, model, sample)
    assert typed(page) == sample


def test_without_scripts_wrong_input_stays_with_its_error(open_page: Open) -> None:
    page = open_page(java_script_enabled=False, complaint="422")
    field(page).fill("wide")

    page.get_by_role("button", name="Predict", exact=True).click()

    page.wait_for_url("**/result")
    expect_state(page, "invalid")
    assert typed(page) == EXAMPLE | {"petal_width": "wide"}
    expect(field(page)).to_have_attribute("aria-invalid", "true")
    expect(field(page)).to_have_accessible_description(re.compile("^not a number"))


def test_the_page_works_under_a_path_prefix(open_page: Open, server: Server, model: LoadedModel) -> None:
    prefix = "/models/iris"

    class Proxy(Quiet):
        def do_GET(self) -> None:
            request = urllib.request.Request(server.url + self.path.removeprefix(prefix))
            for name in ("HX-Request", "Accept"):
                if value := self.headers.get(name):
                    request.add_header(name, value)
            with urllib.request.urlopen(request) as response:
                self.reply(response.read(), response.headers["Content-Type"], response.status)

    with serve(Proxy) as origin:
        page = open_page("/", url=origin + prefix)
        field(page).fill("2.2")
        expect_answer(page, model, EXAMPLE | {"petal_width": "2.2"})
        page.wait_for_url("**/models/iris/?*petal_width=2.2")
        assert page.evaluate("[...document.styleSheets].every((sheet) => sheet.cssRules.length > 0)")
        page.close()


def test_a_page_of_another_origin_embeds_the_fragment(
    context: BrowserContext, model: LoadedModel, model_path: Path, tmp_path: Path
) -> None:
    embedding = Embedding()
    with (
        serve(embedding.handler()) as origin,
        run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), ALLOWED_ORIGINS=origin) as server,
    ):
        embedding.target = f"{server.url}/predict"
        page = context.new_page()
        page.goto(origin)
        field(page).fill("2.2")

        expect_answer(page, model, EXAMPLE | {"petal_width": "2.2"})
        assert page.locator("#prediction title, #prediction form, #prediction script").count() == 0
        page.close()


def test_a_page_of_an_origin_that_is_not_allowed_gets_nothing(context: BrowserContext, server: Server) -> None:
    embedding = Embedding(target=f"{server.url}/predict")
    with serve(embedding.handler()) as origin:
        page = context.new_page()
        page.goto(origin)

        with page.expect_event("console", lambda m: "CORS policy" in m.text):
            field(page).fill("2.2")

        assert page.locator("#prediction").inner_html() == ""
        page.close()


# Looks


def in_each_state(page: Page) -> Iterator[str]:
    """Take the page through its states, and wait for each."""
    yield "at first"
    field(page).fill("")
    expect_state(page, "incomplete")
    yield "incomplete"
    field(page).fill("abc")
    expect_state(page, "invalid")
    yield "with an error"
    field(page).fill("9")
    expect(page.locator("#prediction [data-kind=note]")).to_have_count(1)
    yield "with a note"
    field(page).fill("2.1")
    expect(page.locator("#prediction [data-kind=note]")).to_have_count(0)
    yield "with another answer"
    page.route("**/predict?*", lambda route: route.abort())
    field(page).fill("1.1")
    expect(page.locator("#prediction[data-stale]")).to_have_count(1)
    yield "stale"
    page.unroute("**/predict?*")
    expect(page.locator("#prediction[data-stale]")).to_have_count(0)
    yield "back"


SIZES = [(1280, 800), (640, 900), (390, 844), (320, 640)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_nothing_moves_and_nothing_sticks_out_in_any_state(open_page: Open, width: int, height: int) -> None:
    page = open_page(viewport={"width": width, "height": height}, complaint="htmx|ERR_FAILED")

    for state in in_each_state(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state
        assert page.evaluate("shifts") == [], state


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_moves_while_the_page_arrives(open_page: Open, server: Server, width: int) -> None:
    assert moves_on_arrival(open_page, server, width) == []


def test_the_schemes_differ(open_page: Open) -> None:
    background = "getComputedStyle(document.body).backgroundColor"

    light, dark = (open_page(color_scheme=scheme).evaluate(background) for scheme in ("light", "dark"))

    assert light != dark


# Any model

ODD_LABELS = [
    "<img src=x onerror=alert(1)>",
    'Iris "d\'été" & co',
    "a label that is so long that it has to wrap somewhere",
]
ODD_TITLES = ["<b>bold</b>", "Größe", "a quantity with quite a long name", 'so-called "x"']


@pytest.fixture(scope="module")
def odd_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 64 features, 20 labels and names that want to break out."""
    rng = np.random.default_rng(0)
    classes = np.arange(200) % 20
    rows = np.round(rng.normal(size=(200, 64)) + classes[:, np.newaxis], 1)
    features = tuple(
        Feature(key=f'k"{i} <é>', title=f"{ODD_TITLES[i % 4]} {i}", unit="µmol per litre" if i % 2 else "")
        for i in range(64)
    )
    labels = (*ODD_LABELS, *(f"label {i}" for i in range(3, 20)))
    data = dataset_of(rows, classes, features=features, labels=labels, name="odd <model>")
    trained = fitting.fit(data, Recipe(n_estimators=10))
    path = tmp_path_factory.mktemp("odd") / "odd.npz"
    writing.write(writing.model_of(trained), path, trained=trained)
    return path


@pytest.fixture(scope="module")
def odd_server(odd_path: Path) -> Iterator[Server]:
    with run_server(odd_path.with_suffix(".txt"), MODEL_FILE=str(odd_path)) as server:
        yield server


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 700), (320, 640)])
def test_a_model_of_many_features_keeps_its_answer_in_sight(
    open_page: Open, odd_server: Server, width: int, height: int
) -> None:
    page = open_page(url=odd_server.url, sample={}, viewport={"width": width, "height": height})
    last = page.locator("#measurements .entry input").last

    expect(last).not_to_be_visible()
    page.locator("#measurements .more > summary").click()
    last.focus()
    last.fill("100")

    expect(page.locator("#prediction .messages li")).to_have_text([re.compile("outside the training range")])
    expect(page.locator("#prediction .headline")).to_be_in_viewport(ratio=1)
    expect(last).to_be_in_viewport(ratio=1)
    expect(last).to_have_accessible_description(re.compile("^above the range"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("index", range(len(ODD_LABELS)))
def test_names_are_text_and_never_markup(open_page: Open, odd_server: Server, odd_path: Path, index: int) -> None:
    model, label = load_model(odd_path), ODD_LABELS[index]
    row = next(row for row in model.reference_rows.tolist() if model.predict(row).label == label)
    keys = [feature.key for feature in model.features]
    page = open_page(url=odd_server.url, sample=dict(zip(keys, map(str, row), strict=True)))
    first = page.get_by_role("textbox", name="<b>bold</b> 0", exact=True)
    if not first.is_visible():
        page.locator("#measurements .more > summary").click()

    def expect_label() -> None:
        expect(page.locator("#prediction > [data-label]")).to_have_attribute("data-label", label)
        expect(page.locator("#prediction .headline strong")).to_have_text(label)
        expect(page.locator("#prediction .chosen dt")).to_have_text(label)

    expect_label()
    first.fill("<b>")
    expect(page.locator("#prediction .messages li")).to_have_text(["<b>bold</b> 0: “<b>” is not a number"])
    expect(first).to_have_attribute("aria-invalid", "true")
    first.fill(str(row[0]))
    expect_label()
    expect(page.locator("#announcement")).to_have_text(re.compile(re.escape(label)))
    expect(page.locator("main b, main img")).to_have_count(0)
    expect(page.get_by_role("textbox", name="Größe 1", exact=True)).to_have_count(1)


# Small servers of other sites


class Embedding:
    """A site of its own with its own htmx, which asks for the fragment at `target`."""

    def __init__(self, target: str = "") -> None:
        self.target = target

    def page(self) -> str:
        inputs = "".join(f'<input name="{key}" value="{value}">' for key, value in EXAMPLE.items())
        return (
            '<!doctype html><title>elsewhere</title><link rel="icon" href="data:,">'
            """<meta name="htmx-config" content='{"selfRequestsOnly":false}'>"""
            '<script src="htmx.js"></script>'
            f'<form id="measurements" hx-get="{self.target}" hx-trigger="input" hx-target="#prediction" '
            f'hx-sync="this:queue last">{inputs}</form><div id="prediction"></div>'
        )

    def handler(self) -> type[Quiet]:
        embedding = self
        htmx = resources.files("django_htmx").joinpath("static/django_htmx/htmx-2.min.js").read_bytes()

        class Handler(Quiet):
            def do_GET(self) -> None:
                if self.path == "/htmx.js":
                    self.reply(htmx, "text/javascript")
                else:
                    self.reply(embedding.page().encode(), "text/html; charset=utf-8")

        return Handler
