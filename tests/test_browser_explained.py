"""What stands beside the answer, in a real browser: lines along the fields, reasons, a pinned sample."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
from playwright.sync_api import Page, expect

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.model.strips import strips
from ml.training import fitting, iris, writing
from tests.browser import EXAMPLE, Open, expect_answer, field, needs_chromium, typed
from tests.conftest import Server, run_server
from web.page.languages import language
from web.page.strips import strips_of

pytestmark = needs_chromium


def drawn(page: Page, number: int) -> list[tuple[str, str]]:
    """Return start and look of each piece of the line of a field."""
    found: list[tuple[str, str]] = page.evaluate(
        "(number) => [...document.querySelectorAll(`.field:has(#f${number}) > .line > rect`)].map((one) => "
        "[one.getAttribute('x').slice(0, -1), one.getAttribute('class')])",
        number,
    )
    return [(start, look) for start, look in found]


def test_lines_and_reasons_follow_what_is_typed(open_page: Open, model: LoadedModel) -> None:
    page = open_page()

    field(page).fill("2.1")
    expect_answer(page, model, EXAMPLE | {"petal_width": "2.1"})

    row = [float(text) for text in (EXAMPLE | {"petal_width": "2.1"}).values()]
    prediction = model.predict(row)
    expect(page.locator("#why p")).to_contain_text(f"Why {prediction.label}")
    expect(page.locator("#why tbody th").filter(has_text="petal width")).to_contain_text("2.1")
    for number, view in enumerate(strips_of(model, row, language("en"), scale=None), 1):
        (pieces,) = view.lines
        assert drawn(page, number) == [(piece.x, piece.css_classes) for piece in pieces]
    assert len(strips(model, row)) == 4
    share = language("en").percent(prediction.probabilities[prediction.index])
    expect(page).to_have_title(f"{prediction.label} {share} · iris · live prediction")


def test_a_wrong_value_leaves_the_last_answer_in_sight_but_out_of_reach(open_page: Open, model: LoadedModel) -> None:
    page = open_page()

    field(page).fill("abc")

    last = page.locator("#prediction .last")
    expect(last.locator(".bars dt").first).to_be_visible()
    assert last.evaluate("(element) => element.inert")
    expect(page.locator("#prediction > [data-state=invalid] > .headline")).to_have_text("No prediction")
    field(page).fill("1.3")
    expect_answer(page, model, EXAMPLE)
    expect(last).to_have_count(0)


def test_a_pinned_sample_is_compared_and_in_the_address(open_page: Open, model: LoadedModel) -> None:
    page = open_page()

    page.get_by_role("button", name="Pin this").click()
    field(page).fill("2.1")
    expect_answer(page, model, EXAMPLE | {"petal_width": "2.1"})

    table = page.locator("#pinned table")
    expect(table.get_by_role("row").filter(has_text="petal width")).to_contain_text("1.3")
    expect(table.get_by_role("row").filter(has_text="answer")).to_contain_text("versicolor")
    page.wait_for_url(lambda url: "petal_width=2.1" in url and "pinned-sample=" in url)
    pinned = parse_qs(urlsplit(page.url).query)["pinned-sample"][0]
    assert {key: values[0] for key, values in parse_qs(pinned).items()} == EXAMPLE
    page.reload()
    expect(table).to_be_visible()
    page.get_by_role("button", name="Unpin").click()
    expect(table).to_have_count(0)
    page.wait_for_url(lambda url: "pinned-sample=" not in url)


def test_link_and_result_are_copied(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])

    page.get_by_role("button", name="Copy result").click()

    expect(page.locator("[data-share=result]")).to_have_text("Copied")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("versicolor")
    assert "petal width 1.3 cm" in text
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("[data-share=link]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    expect(page.locator("[data-share=link]")).to_have_text("Copy link")
    page.get_by_role("link", name="Documentation for programs").click()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl -s ")


def test_the_model_is_renewed_in_place_even_if_the_first_try_fails(
    open_page: Open, model_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.npz"
    shutil.copy(model_path, path)
    other = fitting.fit(iris.load_dataset(), Recipe(n_estimators=10, seed=3))
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(path)) as server:
        page = open_page(url=server.url, sample={}, complaint="Failed to load resource|ERR_FAILED")
        page.route(re.compile(r"/\?[^?]*$"), lambda route: route.abort(), times=1)
        version = writing.write(writing.model_of(other), path, trained=other).version

        for text in itertools.cycle(("1.4", "1.5")):
            field(page).fill(text)
            page.wait_for_url(f"**petal_width={text}")
            if page.locator("#version").inner_text() == version:
                break

        expect(page.locator("#renewed")).to_be_visible()
        expect(page.locator("#card")).to_contain_text("10 trees")
        expect(page.locator("#card")).to_contain_text(version)
        page.get_by_role("link", name="setosa", exact=True).click()
        expect(page.locator("#prediction > [data-label=setosa]")).to_be_visible()


def test_nothing_of_another_model_is_shown_until_the_page_is_loaded_anew(
    open_page: Open, model_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.npz"
    shutil.copy(model_path, path)
    dataset = iris.load_dataset()
    names = msgspec.structs.replace(dataset.target, labels=("one", "two", "three"))
    other = fitting.fit(dataclasses.replace(dataset, target=names), Recipe(n_estimators=2))
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(path)) as server:
        page = open_page(url=server.url)
        version = writing.write(writing.model_of(other), path, trained=other).version

        for text in itertools.cycle(("1.4", "1.5")):
            field(page).fill(text)
            page.wait_for_url(f"**petal_width={text}")
            if page.locator("#reload").is_visible():
                break

        expect(page.locator("#reload")).to_have_text("New model: reload")
        with page.expect_response("**/explain?*petal_width=1.6*") as response:
            field(page).fill("1.6")
        assert "two" in response.value.text()
        page.wait_for_url("**petal_width=1.6")
        expect(page.locator("#why")).to_contain_text("Why versicolor")
        assert page.locator("#version").inner_text() != version
        page.locator("#reload").click()
        expect(page.locator("#version")).to_have_text(version)
        assert typed(page)["petal_width"] == "1.6"
        expect(page.locator("#why")).to_contain_text("Why two")


def test_only_what_someone_settled_on_is_an_input_for_drift(
    open_page: Open, model: LoadedModel, server: Server
) -> None:
    def counted() -> float:
        with urllib.request.urlopen(f"{server.url}/metrics") as response:
            found = re.search(
                r'^model_input_samples_total\{source="page"\} (\S+)$', response.read().decode(), re.MULTILINE
            )
        assert found
        return float(found[1])

    page, before = open_page(), counted()
    inputs: list[str | None] = []
    page.on("request", lambda r: inputs.append(r.headers.get("x-input", "settled")) if "/predict?" in r.url else None)

    field(page).fill("")
    for key in "1.7":
        field(page).press(key)
    page.wait_for_url("**petal_width=1.7")
    page.locator("[name=map-x]").select_option("sepal_length")
    page.wait_for_url("**map-x=sepal_length*")
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.7"})

    page.get_by_role("link", name="setosa", exact=True).click()
    page.wait_for_url("**petal_width=0.2*")
    field(page).fill("0.3")
    page.wait_for_url("**petal_width=0.3*")
    expect_answer(page, model, typed(page))
    page.go_back()
    page.wait_for_url("**petal_width=1.7*")
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.7"})

    # What was entered alone: neither the example that was picked, nor what Back brought.
    assert [text for text in inputs if text != "unsettled"] == ["settled=4"] * 2
    assert inputs.count("unsettled") >= 3  # of keys in quick succession the last one alone is asked for
    # The browser has that answer already: it is the one to the last key.
    assert counted() == before + 2
