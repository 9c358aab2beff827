"""Every page and fragment as a parser reads it that minds mistakes; `make audit` asks the Nu HTML checker as well."""

from __future__ import annotations

import io
import re
from collections import Counter
from itertools import pairwise

import html5lib  # type: ignore[import-untyped]  # it has no types
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.audit.documents import DOCUMENTS, Document
from tests.conftest import Element, parse_html

REFERENCES = ("for", "form", "list", "aria-labelledby", "aria-describedby", "aria-controls")


def whole(client: TestClient, document: Document) -> str:
    if document.form is None:
        response = client.get(document.address, headers=document.headers)
    else:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        response = client.post(document.address, headers={**document.headers, **form}, content=document.form)
    return document.whole(response.text)


@pytest.fixture(params=DOCUMENTS, ids=lambda document: document.name)
def html(client: TestClient, request: pytest.FixtureRequest) -> str:
    return whole(client, request.param)


def everything_in(html: str) -> list[Element]:
    """Return all elements; building the tree checks that each is closed in order and no attribute is there twice."""
    return parse_html(html).all()


def test_it_is_html_without_a_mistake(html: str) -> None:
    # This parser is older than templates.
    rest = re.sub(r"<template.*?</template>", "", html, flags=re.DOTALL)
    parser = html5lib.HTMLParser()

    parser.parse(rest)

    assert parser.errors == []
    assert "<main" in rest


def test_an_id_is_given_once(html: str) -> None:
    counts = Counter(element.attributes["id"] for element in everything_in(html) if "id" in element.attributes)

    assert {name for name, count in counts.items() if count > 1} == set()
    assert "" not in counts


def test_what_is_referred_to_is_there(html: str) -> None:
    elements = everything_in(html)
    names = {element.attributes.get("id") for element in elements}

    referred = {name for element in elements for key in REFERENCES for name in element.attributes.get(key, "").split()}

    assert referred <= names


def test_headings_begin_with_the_first_and_leave_out_no_level(html: str) -> None:
    levels = [int(element.tag[1]) for element in everything_in(html) if re.fullmatch("h[1-6]", element.tag)]

    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_can_be_pressed_or_filled_in_has_a_name(html: str) -> None:
    elements = everything_in(html)
    labeled = {element.attributes.get("for") for element in elements if element.tag == "label"}
    wrapped = {id(inner) for element in elements if element.tag == "label" for inner in element.all()}

    unnamed = [
        element
        for element in elements
        if element.tag in ("a", "button", "input", "select", "summary")
        and element.attributes.get("type") != "hidden"
        and not (element.text and element.tag != "select")
        and not element.attributes.get("aria-label")
        and element.attributes.get("id") not in labeled
        and id(element) not in wrapped
    ]

    assert unnamed == []


def test_nothing_is_styled_or_done_inline(html: str) -> None:
    elements = everything_in(html)

    assert [element for element in elements if element.tag == "style" or "style" in element.attributes] == []
    assert [e for e in elements if any(re.match("on|hx-on", name) for name in e.attributes)] == []
    assert [e for e in elements if e.tag == "script" and "src" not in e.attributes] == []


def test_other_sites_find_a_picture(client: TestClient) -> None:
    head = parse_html(client.get("/?petal_width=1").text).one("head")

    card = client.get(head.one("meta", property="og:image").attributes["content"])

    assert card.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(card.content)).size == (1200, 630)
    assert len(card.content) < 60_000
