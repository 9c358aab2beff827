"""One resource in three forms: the page, the fragment and JSON, asked for in every way there is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from ml.model.loaded import LoadedModel
from tests.conftest import Element, for_each, parse_html
from web.app import create_app
from web.settings import Settings

EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
ROW = [5.6, 2.7, 4.2, 1.3]
JSON = {"Content-Type": "application/json"}
HTMX = {"HX-Request": "true"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' autofocus onfocus='alert(1)", "&lt;b&gt;&amp;",
    "{{ 7 * 7 }}", "{% raw %}", "</title></style></script>", "javascript:alert(1)", "\u202e\u0000<\x0b>", "`${1}`",
]  # fmt: skip


def form_of(response: Response) -> str:
    """Return which of the three forms a response has, after its own content."""
    media_type = response.headers["content-type"].partition(";")[0]
    if media_type in ("application/json", "application/problem+json"):
        json.loads(response.content)
        return "json"
    assert media_type == "text/html"
    return "page" if parse_html(response.text).all("html") else "fragment"


def root_of(response: Response) -> Element:
    """Return the inner root of the prediction in a page or a fragment."""
    document = parse_html(response.text)
    holder = document.one(id="prediction") if document.all("html") else document
    (root,) = (child for child in holder.children if isinstance(child, Element))
    return root


def inputs_of(response: Response) -> dict[str, str]:
    return inputs_in(parse_html(response.text))


def inputs_in(page: Element) -> dict[str, str]:
    form = page.one("form", id="measurements")
    return {
        field.attributes["name"]: field.attributes["value"]
        for field in form.all("input")
        if field.attributes["type"] == "text"
    }


def codes_of(response: Response) -> list[tuple[str, str]]:
    return [(error["feature"], error["code"]) for error in response.json()["errors"]]


# --- the page


@pytest.mark.parametrize("path", ["/", "/index"])
def test_the_page_shows_the_example_and_its_prediction(client: TestClient, model: LoadedModel, path: str) -> None:
    response = client.get(path)

    shown = {
        feature.key: float(text) for feature, text in zip(model.features, inputs_of(response).values(), strict=True)
    }
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert list(inputs_of(response)) == [feature.key for feature in model.features]
    assert shown == {feature.key: feature.example for feature in model.features}
    assert root_of(response).attributes["data-label"] == model.predict(list(shown.values())).label


def test_the_page_is_a_form_that_works_without_javascript(client: TestClient) -> None:
    form = parse_html(client.get("/").text).one("form", id="measurements")

    assert form.attributes["method"] == "post"
    assert form.attributes["action"] == "result"
    assert "novalidate" in form.attributes
    assert form.all("button")
    labelled = {label.attributes["for"] for label in form.all("label")}
    for field in form.all("input"):
        if field.attributes["type"] == "range":
            assert "name" not in field.attributes, "a slider is only another way to type"
            assert field.attributes["aria-label"]
            continue
        assert field.attributes["type"] == "text"
        assert field.attributes["inputmode"] == "decimal"
        assert field.attributes["id"] in labelled


def test_the_page_has_its_fixed_names(client: TestClient) -> None:
    page = parse_html(client.get("/").text)

    assert page.one(id="announcement").attributes["role"] == "status"
    assert page.one(id="prediction").all(data_label="versicolor")
    assert not page.one(id="prediction").all("input"), "an input in the swapped region would lose characters"
    assert page.one("html").attributes["lang"]
    assert page.one("title").text


def test_the_description_for_other_sites_has_the_values_of_a_shared_sample(client: TestClient) -> None:
    page = parse_html(client.get("/", params=EXAMPLE | {"petal_length": "4.5", "lang": "es"}).text)

    shared = page.one("meta", property="og:description").attributes["content"]

    assert "largo del pétalo 4,5\N{NO-BREAK SPACE}cm, " in shared
    assert shared.endswith(". Escriba 4 medidas y vea cómo la predicción del modelo iris se actualiza con cada tecla.")


def test_the_choice_of_each_axis_of_the_map_is_its_title_with_the_unit(client: TestClient) -> None:
    form = parse_html(client.get("/").text)

    for name, chosen in (("map-y", "petal length (cm)"), ("map-x", "petal width (cm)")):
        select = form.one("select", name=name)
        assert [option.text for option in select.all("option", selected="")] == [chosen]
        assert {option.text for option in select.all("option")} >= {"sepal length (cm)", "sepal width (cm)"}
    posted = client.post("/result", data=EXAMPLE | {"map-x": "sepal_width", "map-y": "sepal_length"})
    assert parse_html(posted.text).one("svg", data_x="sepal_width").attributes["data-y"] == "sepal_length"


PINNED = {"sepal_length": "5.1", "sepal_width": "3.5", "petal_length": "1.4", "petal_width": "0.2"}


@pytest.mark.parametrize("way", ["/", "/predict"])
def test_a_pinned_sample_has_a_mark_on_the_map_and_on_each_bar(client: TestClient, way: str) -> None:
    headers = HTMX if way == "/predict" else {}

    def shown(sample: Mapping[str, str]) -> Element:
        return parse_html(client.get(way, params=sample, headers=headers).text)

    def place(page: Element, mark: str) -> list[str]:
        found = page.one("svg", **{"class": "map"}).one(**{"class": mark})
        return [found.attributes.get(name, found.attributes.get(f"c{name}", "")) for name in "xy"]

    alone, both = shown(EXAMPLE), shown(EXAMPLE | {"pinned-sample": urlencode(PINNED)})

    marks = [mark.attributes for bars in both.all("dl", **{"class": "bars"}) for mark in bars.all("svg", role="img")]
    assert [(mark["x"], mark["aria-label"]) for mark in marks] == [
        ("100.0%", "pinned: 100%"), ("0.0%", "pinned: 0%"), ("0.0%", "pinned: 0%")
    ]  # fmt: skip
    assert place(both, "pin") == place(shown(PINNED), "sample")
    assert place(both, "sample") == place(alone, "sample")
    assert int(place(alone, "pin")[0]) < 0, "there is none"
    assert not [mark for bars in alone.all("dl", **{"class": "bars"}) for mark in bars.all("svg", role="img")]
    assert shown(EXAMPLE | {"pinned-sample": "petal_width=x"}).one("svg", **{"class": "map"})


def test_the_page_talks_to_htmx_from_one_element(client: TestClient) -> None:
    page = parse_html(client.get("/").text)

    form, why, code = [element for element in page.all() if any(name.startswith("hx-") for name in element.attributes)]
    assert form.attributes["id"] == "measurements"
    assert code.attributes["hx-get"] == "code"
    assert why.attributes["hx-get"] == "explain"
    assert form.attributes["hx-get"] == "predict"
    assert form.attributes["hx-target"] == "#prediction"
    assert form.attributes["hx-sync"] == "this:queue last"
    assert "delay" not in form.attributes["hx-trigger"]
    assert "[" not in form.attributes["hx-trigger"], "a filter would need eval"


def test_the_page_has_nothing_that_its_own_policy_forbids(client: TestClient) -> None:
    page = parse_html(client.get("/").text)

    for element in page.all():
        assert element.tag != "style"
        assert not [name for name in element.attributes if name.startswith(("on", "hx-on", "style"))]
    for script in page.all("script"):
        assert script.attributes["src"]
        assert not script.text
    config = json.loads(page.one("meta", name="htmx-config").attributes["content"])
    assert config["includeIndicatorStyles"] is False
    assert config["allowEval"] is False


@pytest.mark.parametrize("path", ["/", "/index", "/predict"])
def test_every_link_of_the_page_is_relative(client: TestClient, path: str) -> None:
    page = parse_html(client.get(path).text)

    links = [
        element.attributes[name]
        for element in page.all()
        for name in ("href", "src", "action", "hx-get", "hx-post")
        if name in element.attributes
    ]
    assert len(links) > 5
    assert not [link for link in links if link.startswith("/") or "://" in link or ":" in link]
    for link in links:
        if link.startswith("static/"):
            assert client.get(link).status_code == 200


def test_a_query_prefills_the_page_and_its_prediction_is_there(client: TestClient) -> None:
    response = client.get("/", params={"petal_length": "1,4", "petal_width": " 0.2"})

    assert inputs_of(response) == inputs_of(client.get("/")) | {"petal_length": "1,4", "petal_width": " 0.2"}
    assert root_of(response).attributes["data-label"] == "setosa"


def test_foreign_parameters_of_a_link_are_left_alone_on_the_page(client: TestClient) -> None:
    response = client.get("/", params=EXAMPLE | {"utm_source": "<b>letter</b>", "fbclid": "x"})

    assert response.status_code == 200
    assert inputs_of(response) == EXAMPLE
    assert root_of(response).attributes["data-label"] == "versicolor"
    assert "letter" not in response.text


@pytest.mark.parametrize("headers", [{}, HTMX, {"Accept": "application/json"}], ids=["page", "fragment", "json"])
def test_an_unknown_feature_is_refused_on_predict(client: TestClient, headers: dict[str, str]) -> None:
    response = client.get("/predict", params=EXAMPLE | {"petal_colour": "1"}, headers=headers)

    if form_of(response) == "json":
        assert codes_of(response) == [("petal_colour", "unknown_feature")]
        assert response.status_code == 422
    else:
        (message,) = root_of(response).all(data_kind="error")
        assert "petal_colour" in message.text
        assert "data-label" not in root_of(response).attributes


def test_a_parameter_given_twice_is_an_error(client: TestClient) -> None:
    query = f"sepal_length=5&{urlencode(EXAMPLE)}"

    answer = client.get(f"/predict?{query}", headers={"Accept": "application/json"})

    assert answer.status_code == 422
    assert [(error["feature"], error["code"]) for error in answer.json()["errors"]] == [("sepal_length", "named_twice")]


# --- the three forms


@for_each(
    ("headers", "form"),
    [
        ({"Accept": "*/*"}, "page"),
        ({"Accept": ""}, "page"),
        (BROWSER, "page"),
        ({"Accept": "text/html"}, "page"),
        ({"Accept": "TEXT/HTML"}, "page"),
        ({"Accept": "application/json"}, "json"),
        ({"Accept": "Application/JSON"}, "json"),
        ({"Accept": "application/json, text/plain, */*"}, "json"),
        ({"Accept": "application/json;q=0.5, text/html;q=0.4"}, "json"),
        ({"Accept": "application/json;q=0.4, text/html;q=0.5"}, "page"),
        ({"Accept": "text/html;q=0.1;level=1, application/json; q=0.2"}, "json"),
        ({"Accept": "application/json;q=0, text/html;q=0.001"}, "page"),
        ({"Accept": "application/json;q=0"}, "page"),
        ({"Accept": "application/json;q=nonsense, text/html;q=0.1"}, "page"),
        ({"Accept": "application/json, text/html"}, "page"),
        ({"Accept": "image/png"}, "page"),
        ({"Accept": ";;,,;q=,=/"}, "page"),
        ({"Accept": "application/json;q=nan"}, "page"),
        ({"Accept": "application/json ; Q=0.5, text/html;q=0.4"}, "json"),
        ({"Accept": "application/*;q=0.5, text/html;q=0.4"}, "json"),
        ({"Accept": "application/json;q=0.4, text/*;q=0.5"}, "page"),
        ({"Accept": "text/html, application/json;q=9"}, "page"),  # a quality is at most 1
        (HTMX, "fragment"),
        (HTMX | {"Accept": "application/json"}, "fragment"),
        (HTMX | BROWSER, "fragment"),
        ({"HX-Request": "false"}, "page"),
        ({"HX-Request": ""}, "page"),
    ],
)
@for_each("way", ["query", "form", "multipart"])
def test_the_form_is_negotiated(client: TestClient, way: str, headers: dict[str, str], form: str) -> None:
    response = ask(client, way, EXAMPLE, headers)

    assert response.status_code == 200
    assert form_of(response) == form
    assert response.headers["cache-control"] == "no-cache"
    assert {part.strip().lower() for part in response.headers["vary"].split(",")} - {"accept-encoding"} == {
        "accept",
        "accept-language",
        "hx-request",
    }


def ask(client: TestClient, way: str, sample: Mapping[str, Any], headers: dict[str, str]) -> Response:
    """Ask for the prediction of `sample` in one of the ways a client may, with `headers` and no `Accept` of our own."""
    if way == "query":
        request = client.build_request("GET", "/predict", params=sample)
    elif way == "form":
        request = client.build_request("POST", "/predict", data=sample)
    elif way == "multipart":
        lines = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in sample.items()]
        content = ("".join(lines) + "--b--\r\n").encode()
        multipart = {"Content-Type": "multipart/form-data; boundary=b"}
        request = client.build_request("POST", "/predict", content=content, headers=multipart)
    else:
        content = json.dumps({"sample": sample if way == "object" else list(sample.values())}).encode()
        request = client.build_request("POST", "/predict", content=content, headers=JSON)
    del request.headers["accept"]
    request.headers.update(headers)
    return client.send(request)


WAYS = ["query", "form", "multipart", "object", "array"]


@pytest.mark.parametrize("way", WAYS)
def test_a_client_without_accept_gets_what_it_speaks(client: TestClient, way: str) -> None:
    response = ask(client, way, EXAMPLE, {})

    assert "accept" not in response.request.headers
    assert form_of(response) == ("json" if way in ("object", "array") else "page")


@for_each(
    ("headers", "form"),
    [
        ({"Accept": "*/*"}, "json"),
        ({"Accept": "application/json"}, "json"),
        ({"Accept": "text/html"}, "page"),
        ({"Accept": "text/html;q=0.2, application/json;q=0.3"}, "json"),
        (HTMX, "fragment"),
    ],
)
@for_each("way", ["object", "array"])
def test_json_is_answered_with_json_unless_something_else_is_wanted(
    client: TestClient, way: str, headers: dict[str, str], form: str
) -> None:
    response = ask(client, way, EXAMPLE, headers)

    assert response.status_code == 200
    assert form_of(response) == form


@for_each("way", WAYS)
@for_each("form", ["page", "fragment", "json"])
def test_every_way_of_asking_gives_the_same_prediction(
    client: TestClient, model: LoadedModel, way: str, form: str
) -> None:
    wanted = {"page": BROWSER, "fragment": HTMX, "json": {"Accept": "application/json"}}[form]
    prediction = model.predict(ROW)

    response = ask(client, way, EXAMPLE, wanted)

    if form == "json":
        assert response.json() == {
            "model": {"name": "iris", "version": model.version},
            "sample": dict(zip(EXAMPLE, ROW, strict=True)),
            "label": prediction.label,
            "probabilities": dict(zip(model.labels, prediction.probabilities, strict=True)),
            "notes": [],
        }
    else:
        root = root_of(response)
        assert root.attributes["data-label"] == prediction.label
        assert [float(meter.attributes["value"]) for meter in root.all("meter")] == list(prediction.probabilities)
    if form == "page":
        assert inputs_of(response) == EXAMPLE


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"])
def test_json_is_taken_under_each_of_its_names(client: TestClient, content_type: str) -> None:
    content = json.dumps({"sample": ROW}).encode()

    assert (
        client.post("/predict", content=content, headers={"Content-Type": content_type}).json()["label"] == "versicolor"
    )


@for_each("text", ["5.6", "5,6", " 5.6 ", "+5.6", "5.60", "0.56e1", "056e-1", "\u00a05,6"])
@for_each("way", ["query", "form", "multipart", "object"])
def test_a_number_is_what_a_person_types(client: TestClient, way: str, text: str) -> None:
    response = ask(client, way, EXAMPLE | {"sepal_length": text}, {"Accept": "application/json"})

    assert response.json()["sample"]["sepal_length"] == 5.6


@for_each("way", WAYS)
@for_each(
    ("text", "code"),
    [
        ("abc", "not_a_number"), ("nan", "not_a_number"), ("inf", "not_a_number"), ("1_0", "not_a_number"),
        ("0x10", "not_a_number"), ("true", "not_a_number"), ("\u0663", "not_a_number"), ("1.2,3", "not_a_number"),
        ("", "missing"), ("  ", "missing"), ("1e39", "not_finite"), ("-1", "out_of_bounds"),
        ("\u22121", "out_of_bounds"),
    ],
)  # fmt: skip
def test_a_wrong_value_gives_a_problem_that_names_it(client: TestClient, way: str, text: str, code: str) -> None:
    response = ask(client, way, EXAMPLE | {"petal_length": text}, {"Accept": "application/json"})

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert codes_of(response) == [("petal_length", code)]
    assert response.json()["status"] == 422
    assert "petal length" in response.json()["errors"][0]["message"]


def test_a_problem_varies_on_what_was_negotiated(client: TestClient) -> None:
    response = ask(client, "query", EXAMPLE | {"petal_length": "x"}, {"Accept": "application/json"})

    assert "Accept" in response.headers.get("vary", "")


@pytest.mark.parametrize("way", ["query", "form"])
def test_a_wrong_value_gives_a_fragment_that_htmx_swaps_in(client: TestClient, way: str) -> None:
    response = ask(client, way, EXAMPLE | {"petal_length": "abc"}, HTMX)

    root = root_of(response)
    assert response.status_code == 200, "htmx would leave the old answer beside the new input"
    assert "data-label" not in root.attributes
    assert not root.all("meter")
    (message,) = root.all(data_feature="petal_length")
    assert message.attributes["data-kind"] == "error"
    assert "abc" in message.text


@for_each("text", ["", " ", "-", ".", ",", "+", "1e", "\u2212"])
@for_each("headers", [{}, HTMX])
def test_a_half_typed_value_is_incomplete_and_no_error(client: TestClient, text: str, headers: dict[str, str]) -> None:
    response = client.get("/predict", params=EXAMPLE | {"petal_length": text}, headers=headers)

    root = root_of(response)
    assert response.status_code == 200
    assert "data-label" not in root.attributes
    assert not root.all(data_kind="error")
    assert "petal length" in root.text


def test_a_value_outside_the_training_range_is_a_note_and_has_an_answer(client: TestClient) -> None:
    fragment = root_of(ask(client, "query", EXAMPLE | {"petal_length": "50"}, HTMX))
    answer = ask(client, "query", EXAMPLE | {"petal_length": "50"}, {"Accept": "application/json"}).json()

    (message,) = fragment.all(data_feature="petal_length")
    assert message.attributes["data-kind"] == "note"
    assert fragment.attributes["data-label"] == answer["label"]
    (note,) = answer["notes"]
    assert (note["feature"], note["code"]) == ("petal_length", "outside_training_range")
    assert message.text == note["message"]


@pytest.mark.parametrize("path", ["/", "/predict", "/result"])
def test_a_hostile_value_is_only_ever_text(client: TestClient, path: str) -> None:
    scripts = parse_html(client.get("/").text).all("script")
    for text in HOSTILE:
        sample = EXAMPLE | {"sepal_width": text}

        response = client.post(path, data=sample) if path == "/result" else client.get(path, params=sample)

        page = parse_html(response.text)
        assert inputs_in(page)["sepal_width"] == text
        for element in page.all():
            assert not [name for name in element.attributes if name.startswith("on") or name == "autofocus"]
        assert len(page.all("script")) == len(scripts)
        assert len(page.all("title")) == 1


@for_each("text", HOSTILE)
def test_a_hostile_value_or_name_is_only_ever_text_in_the_fragment(client: TestClient, text: str) -> None:
    sample = {**EXAMPLE, "sepal_width": text, text: "1"}

    root = root_of(client.get("/predict", params=sample, headers=HTMX))

    assert {element.tag for element in root.all()} <= {"p", "ul", "li", "span", "strong", "em", "b"}
    assert sorted(item.attributes["data-feature"] for item in root.all(data_kind="error")) == sorted(
        ["sepal_width", text]
    )


# --- many samples


def test_many_samples_are_answered_in_their_order(client: TestClient, model: LoadedModel) -> None:
    samples = [ROW, EXAMPLE, [5.1, 3.5, 1.4, 0.2], ["50", "3,3", 6, 2.5]]

    answer = client.post("/predict", json={"samples": samples}).json()

    rows = [ROW, ROW, [5.1, 3.5, 1.4, 0.2], [50.0, 3.3, 6.0, 2.5]]
    predictions = [model.predict(row) for row in rows]
    assert answer["model"] == {"name": "iris", "version": model.version}
    assert [item["label"] for item in answer["predictions"]] == [p.label for p in predictions]
    assert [tuple(item["probabilities"].values()) for item in answer["predictions"]] == [
        p.probabilities for p in predictions
    ]
    assert [len(item["notes"]) for item in answer["predictions"]] == [0, 0, 0, 1]


def test_ten_thousand_samples_are_answered(client: TestClient) -> None:
    keyed = [dict(zip(EXAMPLE, ROW, strict=True))] * 10_000

    response = client.post("/predict", json={"samples": keyed})

    assert response.status_code == 200
    assert {item["label"] for item in response.json()["predictions"]} == {"versicolor"}
    assert len(response.json()["predictions"]) == 10_000


def test_one_sample_too_many_is_refused(client: TestClient) -> None:
    response = client.post("/predict", json={"samples": [ROW] * 10_001})

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert "10000" in response.json()["detail"]


def test_no_samples_have_no_predictions(client: TestClient) -> None:
    assert client.post("/predict", json={"samples": []}).json()["predictions"] == []


def test_the_errors_of_many_samples_name_their_index(client: TestClient) -> None:
    response = client.post("/predict", json={"samples": [ROW, [5.6, "x", 4.2, 1.3], ROW, {}]})

    assert response.status_code == 422
    assert [(error["sample"], error["code"]) for error in response.json()["errors"]] == [
        (1, "not_a_number"), (3, "missing"), (3, "missing"), (3, "missing"), (3, "missing"),
    ]  # fmt: skip


@pytest.mark.parametrize("body", [{"samples": [["x"] * 4] * 5_000}, {"sample": {f"x{i}": i for i in range(5_000)}}])
def test_thousands_of_errors_are_told_as_a_bounded_number(client: TestClient, body: object) -> None:
    response = client.post("/predict", json=body)

    assert response.status_code == 422
    assert len(response.json()["errors"]) == 100
    assert len(response.content) < 50_000


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "fragment"])
def test_thousands_of_errors_are_shown_as_a_bounded_number(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/predict", data={f"x{i}": "y" * 50 for i in range(5_000)}, headers=headers)

    assert len(root_of(response).all(data_kind="error")) <= 100
    assert len(response.content) < 100_000


# --- bodies that cannot be answered


@for_each(
    ("content", "status"),
    [
        (b"", 400), (b"{", 400), (b"sepal_length=1", 400), (b'{"sample": [1, 1, 1, NaN]}', 400), (b"\xff\xfe", 400),
        (b'{"sample": [Infinity, 1, 1, 1]}', 400), (b'{"sample": [1, 1, 1, 1]} x', 400),
        (b'\xef\xbb\xbf{"sample": []}', 400), (b'{"sample": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b"[" * 1_000_000, 422),
        (b'{"sample": ["\\ud800", 1, 1, 1]}', 400), (b'{"sample": ["\x00", 1, 1, 1]}', 400),
        (b"[]", 422), (b"null", 422), (b"1", 422), (b'"x"', 422), (b"{}", 422), (b'{"sampel": []}', 422),
        (b'{"sample": null}', 422), (b'{"sample": 1}', 422), (b'{"sample": "x"}', 422), (b'{"samples": {}}', 422),
        (b'{"samples": null}', 422), (b'{"samples": [1]}', 422), (b'{"sample": [], "samples": []}', 422),
        (b'{"sample": []}', 422), (b'{"sample": {}}', 422), (b'{"sample": [1, 1, 1]}', 422),
        (b'{"sample": [1, 1, 1, 1, 1]}', 422), (b'{"sample": [[1], 1, 1, 1]}', 422),
        (b'{"sample": [{}, 1, 1, 1]}', 422),
        (b'{"sample": [true, 1, 1, 1]}', 422), (b'{"sample": [1e999, 1, 1, 1]}', 422),
        (b'{"sample": [1' + b"0" * 400 + b", 1, 1, 1]}", 422), (b'{"sample": [1' + b"0" * 5_000 + b", 1, 1, 1]}", 422),
        *(
            (content, 400)
            for content in [b'{"sample": ["\xff", 1, 1, 1]}', b'{"samples": [[1, 1, 1, 1], {"\xff": 1}]}']
        ),
    ],
)  # fmt: skip
@for_each("accept", ["application/json", "*/*"])
def test_a_body_that_cannot_be_answered_gets_a_problem(
    client: TestClient, content: bytes, status: int, accept: str
) -> None:
    response = client.post("/predict", content=content, headers=JSON | {"Accept": accept})

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert response.json()["title"]
    assert response.json()["detail"]
    assert len(response.content) < 2_000


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400, "1" + "0" * 5_000])
def test_a_number_that_no_float_can_hold_is_not_finite(client: TestClient, number: str) -> None:
    response = client.post("/predict", content=f'{{"sample": [{number}, 1, 1, 1]}}'.encode(), headers=JSON)

    assert codes_of(response) == [("sepal_length", "not_finite")]


@pytest.mark.parametrize("content", [b'{"sample": [1e999, [[]], {}, "\xf0\x9f\x98\x80"]}', b'{"sample": [1e999]}'])
def test_a_page_is_made_of_any_json_sample(client: TestClient, content: bytes) -> None:
    response = client.post("/predict", content=content, headers=JSON | BROWSER)

    assert response.status_code == 422
    assert form_of(response) == "page"


@pytest.mark.slow
def test_a_page_is_made_of_json_of_any_depth(client: TestClient) -> None:
    # Somewhere between "decoded" and "too deep" a value must not be decoded and then be too deep to be shown.
    for depth in range(700, 1_100, 3):
        content = b'{"sample": [' + b"[" * depth + b"]" * depth + b", 1, 1, 1]}"
        assert client.post("/predict", content=content, headers=JSON | BROWSER).status_code in (400, 422)


def test_a_key_given_twice_is_an_error(client: TestClient) -> None:
    content = b'{"sample": {"sepal_length": 5, ' + json.dumps(EXAMPLE)[1:].encode() + b"}"

    answer = client.post("/predict", content=content, headers=JSON)

    assert answer.status_code == 422
    assert [(error["feature"], error["code"]) for error in answer.json()["errors"]] == [("sepal_length", "named_twice")]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/octet-stream", "multipart/mixed", "\u00ff", ";"]
)
def test_a_body_of_another_type_is_refused(client: TestClient, content_type: str) -> None:
    headers = {"Content-Type": content_type.encode("latin-1")}

    response = client.post("/predict", content=b"x", headers=headers)  # type: ignore[arg-type]  # bytes for latin-1

    assert response.status_code == 415
    assert "application/json" in response.json()["detail"]


def test_a_post_without_a_body_is_refused(client: TestClient) -> None:
    assert client.post("/predict").status_code == 415


@pytest.mark.parametrize("path", ["/predict", "/result"])
@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"],
)
def test_a_broken_multipart_body_is_refused(client: TestClient, path: str, content_type: str) -> None:
    content = b'--b\r\nContent-Disposition: form-data; name="sepal_length"\r\n\r\n1\r\n--b--\r\n'

    response = client.post(path, content=content, headers={"Content-Type": content_type})

    assert response.status_code in (400, 200)
    if response.status_code == 400:
        assert response.headers["content-type"] == "application/problem+json"
    else:
        assert "data-label" not in root_of(response).attributes


@pytest.mark.parametrize("path", ["/predict", "/result"])
def test_a_file_is_not_a_measurement(client: TestClient, path: str) -> None:
    response = client.post(path, files={"sepal_length": ("a.txt", b"5.6")})

    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"


@for_each("charset", ["undefined", "punycode", "unicode_escape", "raw_unicode_escape", "utf-7"])
@for_each("path", ["/predict", "/result"])
def test_a_form_in_a_strange_charset_is_no_error_of_the_server(client: TestClient, path: str, charset: str) -> None:
    value = "+2AA-" if charset == "utf-7" else "\\ud800"
    content = f'--b\r\nContent-Disposition: form-data; name="sepal_length"\r\n\r\n{value}\r\n--b--\r\n'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}

    response = client.post(path, content=content, headers=headers)

    assert response.status_code in (200, 400, 415, 422)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_a_body_over_the_limit_is_refused(model_path: Path, content_type: str, chunked: bool) -> None:
    content = b" " * 1_001
    with TestClient(create_app(Settings(model_file=model_path, max_body_bytes=1_000))) as client:
        response = client.post(
            "/predict", content=iter([content]) if chunked else content, headers={"Content-Type": content_type}
        )

    assert response.status_code == 413


@pytest.mark.parametrize(("size", "status"), [(900, 422), (100_000, 422), (100_001, 413)])
def test_the_bytes_of_a_body_are_given_back_whatever_becomes_of_the_request(
    model_path: Path, size: int, status: int
) -> None:
    content = b"[" + b" " * (size - 2) + b"]"
    with TestClient(create_app(Settings(model_file=model_path, max_body_bytes=100_000))) as client:
        for body in (content, iter([content])):
            assert client.post("/predict", content=body, headers=JSON).status_code == status
        assert client.app.service.pending.taken == 0  # type: ignore[attr-defined]  # an application of ours


@pytest.mark.parametrize("path", ["/predict", "/result"])
def test_a_body_over_the_limit_gets_a_problem(model_path: Path, path: str) -> None:
    with TestClient(create_app(Settings(model_file=model_path, max_body_bytes=10))) as client:
        response = client.post(path, data=EXAMPLE)

    assert response.headers["content-type"] == "application/problem+json"


def test_a_body_at_the_limit_is_read(model_path: Path) -> None:
    content = json.dumps({"sample": ROW}).encode()
    with TestClient(create_app(Settings(model_file=model_path, max_body_bytes=len(content)))) as client:
        assert client.post("/predict", content=content, headers=JSON).status_code == 200
        assert client.post("/predict", content=content + b" ", headers=JSON).status_code == 413


def test_the_body_limit_admits_the_largest_number_of_samples(client: TestClient) -> None:
    sample = dict.fromkeys(EXAMPLE, 1.2345678901234567)
    content = json.dumps({"samples": [sample] * 10_000}, indent=8).encode()

    assert client.post("/predict", content=content, headers=JSON).status_code == 200


@for_each("path", ["/", "/predict"])
@for_each("query", ["&" * 60_000, "a=1&" * 15_000, "sepal_length=" + "9" * 60_000, "%" * 60_000, "=" * 9])
def test_a_long_query_is_answered(client: TestClient, path: str, query: str) -> None:
    response = client.get(f"{path}?{query}")

    assert response.status_code in (200, 400, 422)


# --- without JavaScript


@pytest.mark.parametrize("path", ["/", "/predict"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_an_error_is_never_answered_as_unchanged(client: TestClient, path: str, accept: str) -> None:
    headers = {"If-None-Match": "*", "Accept": accept}

    answers = [client.get(path, params=EXAMPLE | {"petal_width": text}, headers=headers) for text in ("1.3", "wrong")]

    assert [answer.status_code for answer in answers] == [304, 422]


def test_a_posted_form_gives_the_page_with_its_result(client: TestClient) -> None:
    typed = {"sepal_length": "5,1", "sepal_width": "3.5 ", "petal_length": "1.4", "petal_width": "0.2"}

    response = client.post("/result", data=typed)

    assert response.status_code == 200
    assert form_of(response) == "page"
    assert inputs_of(response) == typed
    assert root_of(response).attributes["data-label"] == "setosa"


def test_a_posted_form_with_errors_keeps_what_was_typed(client: TestClient) -> None:
    typed = {"sepal_length": "5.1x", "sepal_width": "", "petal_length": "-1", "petal_width": "0.2"}

    response = client.post("/result", data=typed)

    form = parse_html(response.text).one("form", id="measurements")
    invalid = {field.attributes["name"] for field in form.all("input", aria_invalid="true")}
    assert response.status_code == 422
    assert inputs_of(response) == typed
    assert {"sepal_length", "petal_length"} <= invalid
    assert "data-label" not in root_of(response).attributes


def test_an_empty_posted_form_is_incomplete(client: TestClient) -> None:
    response = client.post("/result", data=dict.fromkeys(EXAMPLE, ""))

    assert response.status_code == 200
    assert "data-label" not in root_of(response).attributes
    assert not root_of(response).all(data_kind="error")


def test_the_result_takes_forms_only(client: TestClient) -> None:
    assert client.post("/result", json={"sample": ROW}).status_code == 415


def test_asking_for_the_result_leads_to_the_page(client: TestClient) -> None:
    response = client.get("/result", follow_redirects=False)

    assert response.status_code == 303
    assert response.headers["location"] == "./"
    assert form_of(client.get("/result")) == "page"


def test_the_links_on_a_result_lead_to_what_they_say(client: TestClient) -> None:
    result = client.post("/result", data=EXAMPLE | {"lang": "es"})
    links = [str(link.attributes["href"]) for link in parse_html(result.text).all("a")]
    links = [link for link in links if link.startswith("./?") and "sepal_length=" in link]

    landed = [client.get(urljoin("/result", link)) for link in links]
    assert len(links) >= 5  # an example of each class, both languages
    assert [page.url.path for page in landed] == ["/"] * len(links)
    assert [dict(page.url.params) for page in landed] == [dict(parse_qsl(link.partition("?")[2])) for link in links]


@for_each("path", ["/", "/index", "/predict", "/predict?sepal_length=1"])
@for_each("headers", [{}, HTMX, {"Accept": "application/json"}])
def test_the_head_of_an_answer_has_no_body(client: TestClient, path: str, headers: dict[str, str]) -> None:
    headers = headers | {"Accept-Encoding": "identity"}
    head, whole = client.head(path, headers=headers), client.get(path, headers=headers)

    assert head.content == b""
    assert head.status_code == whole.status_code
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_json_that_curl_sends_as_a_form_is_told_what_it_lacks(client: TestClient) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    response = client.post("/predict", content='{"sample": [1, 2, 3, 4]}', headers=form)

    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["detail"]


def test_an_unknown_member_of_json_is_an_error_that_names_it(client: TestClient) -> None:
    for members in ({"sample": ROW}, {"samples": [ROW]}):
        response = client.post("/predict", json=members | {"explian": True})

        assert response.status_code == 422
        assert "`explian`" in response.json()["detail"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", ""])  # curl --data leaves line ends out
def test_csv_that_is_sent_to_predict_is_told_where_it_belongs(
    client: TestClient, separator: str, line_end: str
) -> None:
    table = line_end.join([separator.join(["sepal length (cm)", "petal length (cm)"]), separator.join("56"), ""])

    as_form = client.post("/predict", content=table, headers={"Content-Type": "application/x-www-form-urlencoded"})
    as_csv = client.post("/predict", content=table, headers={"Content-Type": "text/csv"})

    assert (as_form.status_code, as_csv.status_code) == (415, 415)
    assert as_form.json()["detail"].startswith("this is CSV, sent as a form: send it to /score")
    assert as_csv.json()["detail"] == "this is a CSV file: send it to /score"


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    response = client.post("/predict", content=b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"})

    assert response.status_code == 415


def test_who_asks_for_problems_gets_json(client: TestClient) -> None:
    response = client.get("/nothing", headers={"Accept": "application/problem+json"})

    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "there is nothing at /nothing"


@pytest.mark.parametrize("headers", [HTMX, {"Accept": "application/json"}, BROWSER])
def test_a_prediction_that_is_known_is_not_sent_again(client: TestClient, headers: dict[str, str]) -> None:
    first = client.get("/predict", params=EXAMPLE, headers=headers)

    again = client.get("/predict", params=EXAMPLE, headers=headers | {"If-None-Match": first.headers["etag"]})

    assert first.status_code == 200
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


def test_what_someone_has_settled_on_is_answered_though_it_is_known_so_that_it_counts(client: TestClient) -> None:
    tag = client.get("/predict", params=EXAMPLE, headers=HTMX).headers["etag"]

    settled = client.get("/predict", params=EXAMPLE, headers=HTMX | {"If-None-Match": tag, "X-Input": "settled"})

    assert settled.status_code == 200


def test_the_tag_of_the_document_changes_with_the_settings(model_path: Path) -> None:
    tags = set()
    for max_samples in (10, 20):
        with TestClient(create_app(Settings(model_file=model_path, max_samples=max_samples))) as client:
            tags.add(client.get("/openapi.json").headers["etag"])

    assert len(tags) == 2


@pytest.mark.parametrize("lang", ["", "es"])
def test_the_way_back_from_an_error_page_carries_what_was_entered(client: TestClient, lang: str) -> None:
    headers, sample = {"Accept": "text/html"}, EXAMPLE | {"petal_width": "1.7"} | ({"lang": lang} if lang else {})
    page = parse_html(client.post("/result", data=sample, headers=headers).text)

    wrong = client.get("/nope", params=sample, headers=headers)
    no_table = client.post(
        "/" + page.one("form", id="file").attributes["action"], files={"file": ("a.csv", "a\n1\n")}, headers=headers
    )

    assert (wrong.status_code, no_table.status_code) == (404, 422)
    for response in (wrong, no_table):
        back = parse_html(response.text).one("main").one("a").attributes["href"]
        shown = parse_html(client.get("/" + back, headers=headers).text)
        values = [[whole.one("input", name=key).attributes["value"] for key in EXAMPLE] for whole in (page, shown)]
        assert values[0] == values[1]
        assert values[1][-1] == "1.7"
        assert shown.one("html").attributes["lang"] == (lang or "en")
