"""The panel of snippets: whose values it shows, at which address, and how it follows the page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.testclient import TestClient

from ml.model.loaded import LoadedModel
from tests.browser import needs_chromium
from tests.conftest import Element, Server, parse_html
from web.page import languages
from web.page.snippet_panel import CodeView, code_view

QUERY = "sepal_length=5.1&sepal_width=3,5&petal_length=1.4&petal_width=0.25"
HTMX = {"HX-Request": "true"}
IDS = ["code-curl", "code-python", "code-js", "code-htmx", "code-oip", "code-triton"]


def view_of(model: LoadedModel, *sample: object, language: str = "en") -> CodeView:
    keys = [feature.key for feature in model.features]
    return code_view(
        model,
        dict(zip(keys, sample, strict=False)),
        address="http://host/",
        needs_token=False,
        language=languages.language(language),
    )


def row_in(view: CodeView) -> str:
    (text,) = [snippet.text for snippet in view.snippets if snippet.id == "code-oip"]
    return text.split('"data": ')[1].partition("]")[0] + "]"


def panel_of(html: str) -> Element:
    return parse_html(html).one(id="programs")


def test_what_was_typed_becomes_numbers(model: LoadedModel) -> None:
    view = view_of(model, " 5.10", "3,5", 1.4, "2e-1")

    assert row_in(view) == "[5.1, 3.5, 1.4, 0.2]"
    assert view.note == ""


@pytest.mark.parametrize("sample", [("5.1", "", "x", "-1"), ("5.1",), ("5.1", "nan", None, "1e99")])
def test_values_of_the_example_stand_in_for_those_that_cannot_be_used(
    model: LoadedModel, sample: tuple[object, ...]
) -> None:
    view = view_of(model, *sample)

    length, *others = (feature.example for feature in model.features)
    assert row_in(view) == str([5.1, *others])
    assert length != 5.1
    assert "example" in view.note


def test_more_errors_than_are_told_leave_the_whole_example(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.model.sample.MAX_ERRORS", 1)

    assert row_in(view_of(model, "5.1", "x", "x", "x")) == str([feature.example for feature in model.features])


def test_a_form_calls_features_what_people_call_them_in_their_language(model: LoadedModel) -> None:
    forms = {
        code: next(one.text for one in view_of(model, 5, 3, 1, 1, language=code).snippets if one.id == "code-htmx")
        for code in ("en", "es")
    }

    assert "<label>sepal length (cm) <input" in forms["en"]
    assert "<label>largo del sépalo (cm) <input" in forms["es"]


def test_the_panel_answers_with_the_texts_of_a_query(client: TestClient, model: LoadedModel) -> None:
    panel = panel_of(client.get(f"/code?{QUERY}&map-x=petal_width", headers=HTMX).raise_for_status().text)

    assert [element.attributes["id"] for element in panel.all("code")] == IDS
    assert '"data": [5.1, 3.5, 1.4, 0.25]' in panel.one("code", id="code-oip").text
    assert "http://testserver/predict" in panel.one("code", id="code-curl").text
    assert panel.one(id="code-note").text == ""
    assert panel.attributes["hx-select-oob"] == ",".join(f"#{name}" for name in ["code-note", *IDS])


def test_without_a_script_the_panel_of_the_sample_is_a_page_that_leads_back(client: TestClient) -> None:
    first = parse_html(client.get(f"/?{QUERY}&lang=es").raise_for_status().text)
    link = first.one("details", id="code").one("a").attributes["href"]
    html = client.get(f"/{link}").raise_for_status().text
    panel = client.get(f"/code?{QUERY}&lang=es", headers=HTMX).raise_for_status().text

    assert panel_of(html) == panel_of(panel)
    assert len(panel_of(html).all("details", open="")) == 1
    back = parse_html(client.get(f"/{parse_html(html).one('header').one('a').attributes['href']}").text)
    assert [one.attributes.get("value") for one in back.all("input", type="text")] == [
        one.attributes.get("value") for one in first.all("input", type="text")
    ]
    assert back.one("html").attributes["lang"] == parse_html(html).one("html").attributes["lang"] == "es"


def test_the_panel_of_the_built_in_model_is_small(client: TestClient) -> None:
    html = client.get(f"/code?{QUERY}", headers=HTMX).raise_for_status().text

    assert len(html.encode()) <= 4_300


def test_the_same_panel_is_not_sent_twice(client: TestClient) -> None:
    first = client.get(f"/code?{QUERY}", headers=HTMX)
    again = client.get(f"/code?{QUERY}", headers=HTMX | {"If-None-Match": first.headers["etag"]})
    other = client.get("/code", headers=HTMX | {"If-None-Match": first.headers["etag"]})

    assert (first.status_code, again.status_code, other.status_code) == (200, 304, 200)
    assert again.content == b""


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://example.org/models/iris/?petal_width=1#code", "https://example.org/models/iris/"),
        ("https://example.org/models/iris/index?a=/b/c", "https://example.org/models/iris/"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
        ("http://[::1:8000/", "http://testserver/"),
        ("http://host:port/", "http://testserver/"),
        ("javascript:alert(1)//", "http://testserver/"),
        ("https://user@example.org/", "http://testserver/"),
        (f"https://example.org/{'a/' * 1_000}", "http://testserver/"),
        ("", "http://testserver/"),
    ],
)
def test_the_address_is_the_one_that_the_browser_sees(client: TestClient, address: str, shown: str) -> None:
    html = client.get("/code", headers=HTMX | {"HX-Current-URL": address}).raise_for_status().text

    assert f"curl -s {shown}predict " in panel_of(html).one("code", id="code-curl").text.replace("'", "")


def test_the_language_is_that_of_the_address_or_of_the_browser(client: TestClient) -> None:
    spanish = {
        client.get("/code?lang=es", headers=HTMX | {"Accept-Language": "en"}).text,
        client.get("/code", headers=HTMX | {"Accept-Language": "es-MX,en;q=0.5"}).text,
    }

    assert len(spanish) == 1
    assert "largo del sépalo" in spanish.pop()
    assert client.get("/code?lang=en", headers=HTMX | {"Accept-Language": "es"}).headers["content-language"] == "en"


# In the browser


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page of the built-in model, the panel closed."""
    with contextlib.closing(browser.new_context(permissions=["clipboard-read", "clipboard-write"])) as context:
        page = context.new_page()
        page.goto(f"{server.url}/?{QUERY}")
        yield page


@needs_chromium
def test_the_open_panel_follows_typing_and_keeps_what_is_open_and_focused(page: Page, server: Server) -> None:
    programs = page.locator("#programs > details")
    summaries = page.locator("#code summary")
    summaries.first.focus()
    with page.expect_response(f"{server.url}/code?*"):
        page.keyboard.press("Enter")
    summaries.filter(has_text="Python").first.click()
    expect(page.locator("#programs > details[open]")).to_have_count(1)
    assert programs.nth(1).get_attribute("open") is not None

    with page.expect_response(f"{server.url}/code?*"):
        page.get_by_label("petal width", exact=True).first.fill("2.25")

    expect(page.locator("#code-python")).to_contain_text('"petal_width": 2.25')
    expect(page.locator("#code-oip")).to_contain_text("[5.1, 3.5, 1.4, 2.25]")
    assert programs.nth(1).get_attribute("open") is not None
    page.locator("#programs > details[open] [data-copy]").click()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code-python").text_content()
    page.get_by_label("petal width", exact=True).first.fill("")
    expect(page.locator("#code-note")).to_contain_text("example")
    assert page.evaluate("document.querySelector('#code [data-copy]').hidden") is False
