"""Every page and fragment as a parser reads it that minds mistakes; `make audit` asks the Nu HTML checker as well."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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


@pytest.fixture(scope="module")
def documents(client: TestClient) -> dict[str, str]:
    return {document.name: whole(client, document) for document in DOCUMENTS}


def offenders(documents: Mapping[str, str], mistakes: Callable[[list[Element]], Iterable[object]]) -> list[str]:
    """Return, for each document that breaks a rule, its name and what breaks it.

    Building the tree checks that each element is closed in order and no attribute is there twice.
    """
    return [f"{name}: {each}" for name, html in documents.items() for each in mistakes(parse_html(html).all())]


def test_it_is_html_without_a_mistake(documents: dict[str, str]) -> None:
    for name, html in documents.items():
        # This parser is older than templates.
        rest = re.sub(r"<template.*?</template>", "", html, flags=re.DOTALL)
        parser = html5lib.HTMLParser()

        parser.parse(rest)

        assert parser.errors == [], name
        assert "<main" in rest, name


def test_an_id_is_given_once(documents: dict[str, str]) -> None:
    def repeated(elements: list[Element]) -> list[str]:
        counts = Counter(element.attributes["id"] for element in elements if "id" in element.attributes)
        return [name for name, count in counts.items() if count > 1 or not name]

    assert offenders(documents, repeated) == []


def test_what_is_referred_to_is_there(documents: dict[str, str]) -> None:
    def missing(elements: list[Element]) -> set[str]:
        names = {element.attributes.get("id", "") for element in elements}
        referred = (element.attributes.get(key, "").split() for element in elements for key in REFERENCES)
        return {name for several in referred for name in several} - names

    assert offenders(documents, missing) == []


def test_headings_begin_with_the_first_and_leave_out_no_level(documents: dict[str, str]) -> None:
    def wrong(elements: list[Element]) -> list[list[int]]:
        levels = [int(element.tag[1]) for element in elements if re.fullmatch("h[1-6]", element.tag)]
        begins = levels[:1] == [1] and levels.count(1) == 1
        return [] if begins and all(after <= before + 1 for before, after in pairwise(levels)) else [levels]

    assert offenders(documents, wrong) == []


def test_what_can_be_pressed_or_filled_in_has_a_name(documents: dict[str, str]) -> None:
    def unnamed(elements: list[Element]) -> list[Element]:
        labeled = {element.attributes.get("for") for element in elements if element.tag == "label"}
        wrapped = {id(inner) for element in elements if element.tag == "label" for inner in element.all()}
        return [
            element
            for element in elements
            if element.tag in ("a", "button", "input", "select", "summary")
            and element.attributes.get("type") != "hidden"
            and not (element.text and element.tag != "select")
            and not element.attributes.get("aria-label")
            and element.attributes.get("id") not in labeled
            and id(element) not in wrapped
        ]

    assert offenders(documents, unnamed) == []


def test_a_table_has_a_name(documents: dict[str, str]) -> None:
    def nameless(elements: list[Element]) -> list[str]:
        tables = [element for element in elements if element.tag == "table"]
        return [
            table.text
            for table in tables
            if not {"aria-label", "aria-labelledby"} & table.attributes.keys() and not table.all("caption")
        ]

    assert offenders(documents, nameless) == []


def test_nothing_is_styled_or_done_inline(documents: dict[str, str]) -> None:
    def inline(elements: list[Element]) -> Iterator[Element]:
        for element in elements:
            names = element.attributes.keys()
            if element.tag == "style" or "style" in names or any(re.match("on|hx-on", name) for name in names):
                yield element
            if element.tag == "script" and "src" not in names:
                yield element

    assert offenders(documents, inline) == []


def test_other_sites_find_a_picture(client: TestClient) -> None:
    head = parse_html(client.get("/?petal_width=1").text).one("head")

    card = client.get(head.one("meta", property="og:image").attributes["content"])

    assert card.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(card.content)).size == (1200, 630)
    assert len(card.content) < 60_000
