"""The fields of the form: which control a feature has, what stands in it, and that it is read back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from ml.model.card import Recipe, TrainedFeature
from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample, Note, Validator
from ml.model.values import reader_of
from ml.tables.dataset import Dataset, Feature, Target
from ml.training import fitting, writing
from tests import small_tables
from tests.conftest import Element, parse_html
from web.app import create_app
from web.page.answers import invalid_view
from web.page.examples import examples_of
from web.page.fields import control_of, fields_of, grouped, text_given, text_of
from web.page.languages import Language, codes, language
from web.page.messages import messages_of
from web.settings import Settings

ENGLISH, SPANISH = language("en"), language("es")
HTMX = {"HX-Request": "true"}


@pytest.fixture(scope="module")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tables.file_of("penguins", tmp_path_factory.mktemp("penguins"))


@pytest.fixture(scope="module")
def page(penguins: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(model_file=penguins))) as client:
        yield client


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return small_tables.written("cars", tmp_path_factory.mktemp("cars"))


def category(*choices: str, has_gaps: bool = False, markers: tuple[str, ...] = ()) -> TrainedFeature:
    return TrainedFeature(
        key="k", title="k", choices=choices, has_gaps=has_gaps, markers=markers, low=0, high=len(choices) - 1,
        quantiles=(0, 1), example=0, importance=0, counts=(1,) * len(choices),
    )  # fmt: skip


def number(**changes: object) -> TrainedFeature:
    plain = TrainedFeature(key="k", title="k", low=0, high=9, quantiles=(0, 9), example=1.781, importance=0)
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    ("choices", "control"),
    [
        ((), "number"), (("no", "yes"), "radio"), (("Biscoe", "Dream", "Torgersen"), "radio"),
        (tuple("abcde"), "radio"),
        (tuple("abcdef"), "select"), (("a" * 17, "b"), "select"), (("nine letters",) * 5, "select"),
        (tuple("abcdefghijkl"), "select"), (tuple("abcdefghijklm"), "search"),
    ],
)  # fmt: skip
def test_a_feature_has_the_control_that_its_choices_fit_into(choices: tuple[str, ...], control: str) -> None:
    assert control_of(number() if not choices else category(*choices)) == control


NUMBERS = st.one_of(
    st.floats(-1e12, 1e12), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**7), 10**7),
    st.integers(-(10**8), 10**8).map(lambda n: n / 1000),
)  # fmt: skip


@given(value=NUMBERS, marks=st.sampled_from([(".", ""), (",", ""), (".", ","), (",", "."), (".", "'"), (",", " ")]))
@pytest.mark.parametrize("code", codes())
def test_every_number_that_the_page_writes_into_a_field_is_read_as_that_number(
    code: str, value: float, marks: tuple[str, str]
) -> None:
    decimal, thousands = marks
    feature = number(decimal=decimal, thousands=thousands, unit="kg", example=float(value))

    for text in (
        text_of(feature, float(value), language(code)),
        text_given(feature, value, language(code)),
        text_given(feature, float(value), language(code)),
    ):
        assert reader_of(feature)(text) == float(value), text
    about = reader_of(feature)(fields_of([feature], {}, (), language(code))[0].start)
    assert about == pytest.approx(float(value), rel=1e-3)


def test_a_decimal_mark_that_divides_thousands_is_not_written() -> None:
    assert text_of(number(thousands=","), 1.781, SPANISH) == "1.781"
    assert text_of(number(thousands="."), 1.781, ENGLISH) == "1.781"
    assert text_of(number(thousands=".", decimal=","), 1.781, ENGLISH) == "1,781"
    assert text_of(number(), 1.781, SPANISH) == "1,781"


@pytest.mark.parametrize("has_gaps", [True, False])
def test_what_a_row_lacks_is_written_as_a_sample_may_have_it(has_gaps: bool) -> None:
    rare = category("a", "b", has_gaps=has_gaps, markers=("?",))

    assert text_of(rare, math.nan, ENGLISH) == ("?" if has_gaps else "a")


@pytest.mark.parametrize(
    ("value", "text"),
    [("Dream ", "Dream "), (None, "?"), (True, "yes"), (False, "no"), ("zzz", "zzz"), ([1], ""), ({"a": 1}, "")],
)
def test_what_a_program_sends_stands_in_the_field_as_a_word(value: object, text: str) -> None:
    assert text_given(category("no", "yes", has_gaps=True, markers=("?",)), value, ENGLISH) == text


def options(feature: TrainedFeature, text: str) -> Sequence[tuple[str, bool]]:
    (field,) = fields_of([feature], {"k": text}, (), ENGLISH)
    return [(option.value, option.chosen) for option in field.options]


def test_one_option_is_chosen_whatever_the_text_is() -> None:
    feature = category("a", "b", has_gaps=True, markers=("?",))

    assert options(feature, " b ") == [("a", False), ("b", True), ("?", False)]
    assert options(feature, "?") == [("a", False), ("b", False), ("?", True)]
    assert options(feature, "zzz") == [("a", False), ("b", False), ("?", False), ("zzz", True)]
    assert options(feature, "") == [("a", False), ("b", False), ("?", False)]


def test_the_text_for_no_value_is_never_that_of_a_choice() -> None:
    assert options(category("NA", "b", has_gaps=True), "NA")[0] == ("NA", True)
    assert options(category("NA", "b", has_gaps=True), "?")[2] == ("?", True)


# --- the page in process


def form_of(client: TestClient, query: str = "", **headers: str) -> Element:
    return parse_html(client.get(f"/{query}", headers=headers).text).one("form", id="measurements")


def sent(form: Element) -> dict[str, str]:
    """Return what a browser sends of a form."""
    found = {}
    for field in form.all("input"):
        kind = field.attributes.get("type")
        if "name" in field.attributes and (kind != "radio" or "checked" in field.attributes):
            found[field.attributes["name"]] = field.attributes["value"]
    for select in form.all("select"):
        chosen = [option for option in select.all("option") if "selected" in option.attributes]
        found[select.attributes["name"]] = (chosen or select.all("option"))[0].attributes["value"]
    return found


def headline(client: TestClient, sample: dict[str, str]) -> str:
    answer = client.get("/predict", params=sample, headers=HTMX)
    return parse_html(answer.text).one("div", data_state="answer").attributes["data-label"]


def test_a_form_sends_one_value_of_each_feature_under_its_key(page: TestClient) -> None:
    sample = sent(form_of(page))

    assert list(sample) == ["island", "sex", "bill_length", "body_mass"]
    assert page.post("/predict", json={"sample": sample}).status_code == 200


@pytest.mark.parametrize("lang", codes())
@pytest.mark.parametrize(
    "sample",
    [
        {"island": "Dream", "sex": "NA"}, {"island": "Atlantis", "bill_length": "NA"},
        {"bill_length": "40.1", "body_mass": "3500", "sex": "female"},
    ],
)  # fmt: skip
def test_what_the_address_says_stands_in_the_form_and_is_answered(
    page: TestClient, sample: dict[str, str], lang: str
) -> None:
    query = "?" + "&".join(f"{key}={value}" for key, value in sample.items())

    form = form_of(page, query, **{"Accept-Language": lang})

    assert sent(form).items() >= sample.items()
    shown = parse_html(page.get(f"/{query}").text).one("div", data_state="answer").attributes["data-label"]
    assert shown == headline(page, sent(form))


def test_a_header_in_the_address_names_its_feature(page: TestClient) -> None:
    assert sent(form_of(page, "?Bill%20length%20(mm)=40.25"))["bill_length"] == "40.25"


def test_a_column_may_be_called_as_an_option_of_the_page(tmp_path: Path) -> None:
    model = small_tables.file_of("survey", tmp_path)
    with TestClient(create_app(Settings(model_file=model))) as client:
        page = parse_html(client.get("/?lang=5&map_y=7&page-lang=es&map-y=action&map-x=lang").text)
        form = page.one("form", id="measurements")
        spanish = [link.attributes for link in page.one("nav").all("a")][-1]
        with_lang = sent(form) | {"lang": "6"}
        answer = client.get("/predict", params=with_lang | {"map-y": "map_y", "map-x": "lang"}, headers=HTMX)
        by_header = {"map-y": with_lang["map_y"]} | {
            k: v for k, v in with_lang.items() if k not in ("map_y", "page-lang")
        }
        program = client.get("/predict", params=by_header, headers={"Accept": "application/json"})

    assert page.one("html").attributes["lang"] == "es"
    assert sent(form).items() >= {"lang": "5", "map_y": "7", "page-lang": "es"}.items()
    assert page.one("select", name="map-y").one("option", selected="").attributes["value"] == "action"
    assert "lang=5&" in spanish["href"]
    assert spanish["data-option"] == "page-lang"
    assert "page-lang=es&" in spanish["href"]
    assert 'data-state="answer"' in answer.text
    assert program.json()["sample"]["map_y"] == 7


def test_other_pages_lead_back_in_their_language_although_a_feature_has_the_options_name(tmp_path: Path) -> None:
    model = small_tables.file_of("survey", tmp_path)
    with TestClient(create_app(Settings(model_file=model)), headers={"Accept": "text/html"}) as client:
        for address in ("/docs?lang=es", "/health/drift?lang=es", "/nowhere?page-lang=es", "/nowhere?lang=es"):
            page = parse_html(client.get(address).text)

            [link] = [link.attributes["href"] for link in page.all("a") if link.text == "Volver a la página"]
            assert link.endswith("/?page-lang=es"), address


def test_the_goal_of_a_quantity_has_a_name_that_is_none_of_a_feature(tmp_path: Path) -> None:
    prices = small_tables.prices()
    first = msgspec.structs.replace(prices.features[0], key="goal", header="goal")
    trained = fitting.fit(replace(prices, features=(first, *prices.features[1:])), Recipe(n_estimators=1))
    writing.write(writing.model_of(trained), tmp_path / "prices.npz", trained=trained)
    with TestClient(create_app(Settings(model_file=tmp_path / "prices.npz"))) as client:
        page = parse_html(client.get("/?page-goal=123.5").text)

    assert page.one("input", id="goal").attributes["name"] == "page-goal"
    assert page.one("input", id="goal").attributes["value"] == "123.5"
    assert "page-goal=123.5" in page.one("nav").all("a")[-1].attributes["href"]


@pytest.mark.parametrize(
    ("low", "high", "value", "range_of"),
    [
        (18.3, 40, 18.1, "18.3 to 40"), (18.3, 40, 50, "18 to 40"), (0.1, 99.96, 99.97, "0.1 to 99.96"),
        (0.30000000000000004, 1, 0.3, "0.30000000000000004 to 1"),
    ],
)  # fmt: skip
def test_a_value_outside_the_range_is_outside_of_what_the_sentence_says(
    low: float, high: float, value: float, range_of: str
) -> None:
    feature = number(low=low, high=high)

    [message] = messages_of([Note("k", "outside_training_range", "")], [value], [feature], ENGLISH)

    assert message.text == f"k is outside the training range of {range_of}"


def test_the_range_beside_a_field_is_rounded_only_if_it_has_many_digits_and_then_has_them_on_demand() -> None:
    few, many = (fields_of([number(low=low, high=40)], {}, (), ENGLISH)[0] for low in (18.3, 18.342917343))

    assert (few.range, few.span) == ("18.3 to 40", "")
    assert (many.range, many.span) == ("18.3 to 40", "18.342917343 to 40")


@pytest.mark.parametrize(("typed", "state"), [("1234.5", "invalid"), ("12.34", "incomplete")])
@pytest.mark.parametrize(
    ("to", "said"),
    [
        (ENGLISH, "here “.” divides thousands and “,” is the decimal mark"),
        (SPANISH, "aquí «.» separa los millares y «,» es el signo decimal"),
    ],
)
def test_a_number_that_is_refused_or_half_typed_says_what_its_marks_mean(
    typed: str, state: str, to: Language, said: str
) -> None:
    feature = number(low=0, high=9_999, thousands=".", decimal=",")

    with pytest.raises(InvalidSample) as caught:
        Validator((feature,)).row({"k": typed})
    view = invalid_view(caught.value, [feature], to)

    assert view.state == state
    assert said in view.messages[0].text
    assert "; here '.' divides thousands and ',' is the decimal mark" in str(caught.value)


def test_an_emptied_number_is_waited_for_even_where_a_gap_is_allowed(page: TestClient) -> None:
    sample = sent(form_of(page)) | {"bill_length": ""}

    fragment = parse_html(page.get("/predict", params=sample, headers=HTMX).text)

    assert fragment.one("div", data_state="incomplete")


@pytest.mark.parametrize("text", ["N", "NA"])
def test_the_text_for_no_value_can_be_typed(page: TestClient, text: str) -> None:
    sample = sent(form_of(page)) | {"bill_length": text}

    fragment = parse_html(page.get("/predict", params=sample, headers=HTMX).text)

    assert fragment.all("div")[0].attributes["data-state"] == ("answer" if text == "NA" else "incomplete")


@pytest.mark.parametrize(
    ("lang", "guess", "text"),
    [
        ("en", "a guess: 2 values unlike any in training", "island: “Atlantis” was not seen in training"),
        ("es", "una conjetura: 2 valores no vistos al entrenar",
         "isla: «Atlantis» no aparece en el entrenamiento"),
    ],
)  # fmt: skip
def test_a_guess_says_so_in_the_headline(page: TestClient, lang: str, guess: str, text: str) -> None:
    sample = sent(form_of(page)) | {"island": "Atlantis", "bill_length": "99"}

    fragment = parse_html(page.get("/predict", params=sample, headers=HTMX | {"Accept-Language": lang}).text)

    assert next(p for p in fragment.all("p") if "headline" in p.attributes.get("class", "")).one("em").text == guess
    assert fragment.all("li")[0].text == text


def test_a_posted_word_comes_back_in_the_form_without_a_script(page: TestClient) -> None:
    sample = sent(form_of(page)) | {"island": "Atlantis", "sex": "NA"}

    result = page.post("/result", data=sample, headers={"Accept": "text/html"})

    assert result.status_code == 200
    assert sent(parse_html(result.text).one("form", id="measurements")) == sample
    assert parse_html(result.text).one("div", data_state="answer").attributes["data-label"] == headline(page, sample)


def test_json_is_shown_with_the_words_and_gaps_that_it_means(page: TestClient) -> None:
    sample = {"island": "Dream", "sex": None, "bill_length": 40.1, "body_mass": 3500}

    response = page.post("/predict", json={"sample": sample}, headers={"Accept": "text/html", "Accept-Language": "es"})

    expected = {"island": "Dream", "sex": "NA", "bill_length": "40,1", "body_mass": "3500"}
    assert sent(parse_html(response.text).one("form", id="measurements")) == expected


# --- examples


@pytest.mark.parametrize("name", ["penguins", "answers", "crops"])
def test_an_example_is_a_row_of_its_class_that_the_model_takes(name: str, tmp_path: Path) -> None:
    model = small_tables.written(name, tmp_path)
    with TestClient(create_app(Settings(model_file=tmp_path / f"{name}.npz"))) as client:
        links = examples_of(model, {}, kept={}, to=ENGLISH)

        answers = [parse_html(client.get(f"/{link.query}").text).one("div", data_state="answer") for link in links]

    assert [link.text for link in links] == [answer.attributes["data-label"] for answer in answers]


def test_the_examples_of_a_quantity_are_low_middle_and_high(cars: LoadedModel) -> None:
    links = examples_of(cars, {}, kept={}, to=ENGLISH)

    values = []
    for link in links:
        sample = dict(pair.split("=") for pair in link.query.removeprefix("?").replace("+", " ").split("&"))
        values.append(cars.predict(cars.validator.row(sample)).value)
    assert [link.text for link in links] == ["low", "middle", "high"]
    assert values == sorted(values)


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path = small_tables.file_of("spectra", tmp_path_factory.mktemp("spectra"))
    with TestClient(create_app(Settings(model_file=path))) as client:
        yield client


def test_each_of_many_classes_has_an_example_and_those_beyond_eight_are_folded_away(spectra: TestClient) -> None:
    examples = form_of(spectra).one("div", **{"class": "examples"})

    labels = [link.text for link in examples.all("a")]
    assert labels == [*(f"material {letter}" for letter in "abcdefgh"), "Reset", "material i", "material j"]
    assert [link.text for link in examples.one("details").all("a")] == labels[9:]


def test_a_link_names_only_what_the_page_does_not_fill_in_by_itself(spectra: TestClient) -> None:
    start = sent(form_of(spectra))
    page = parse_html(spectra.get("/").text)

    for link in page.one("div", **{"class": "examples"}).all("a"):
        query = link.attributes["href"].removeprefix("./")
        sample = sent(form_of(spectra, query))
        assert dict(parse_qsl(query.removeprefix("?"))) == dict(sample.items() - start.items())
    assert [link.attributes["href"] for link in page.all("a") if "data-option" in link.attributes] == [
        "./?lang=en", "./?lang=es", "./?field-order=importance", "./?field-order=file",
    ]  # fmt: skip
    assert page.one("form", id="file").attributes["action"] == "score?back="


def keys_of(form: Element) -> list[str]:
    return [field.attributes["name"] for field in form.all("input", type="text")]


def test_many_fields_stand_in_the_order_of_the_file_if_the_address_says_so(spectra: TestClient) -> None:
    features = spectra.get("/openapi.json").json()["components"]["schemas"]["NamedSample"]["properties"]

    usual, by_file = form_of(spectra), form_of(spectra, "?field-order=file")

    assert keys_of(by_file) == [*features] != keys_of(usual)
    assert sorted(keys_of(usual)) == sorted(features)
    assert not by_file.all("details", **{"class": "more"})
    assert keys_of(form_of(spectra, "?field-order=other")) == keys_of(usual)


def test_links_and_form_keep_the_order_and_links_lead_to_the_other_one(spectra: TestClient) -> None:
    for address in ("", "?field-order=file&lang=es&band_1_mean=0.01&pinned-sample=band_2_mean%3D1"):
        form = form_of(spectra, address)
        orders = {link.attributes["data-value"]: link for link in form.all("a", data_option="field-order")}
        examples = [link.attributes["href"] for link in form.all("a", data_example="")]
        hidden = {one.attributes["name"]: one.attributes["value"] for one in form.all("input", type="hidden")}
        is_file = "field-order=file" in address

        assert [order for order, link in orders.items() if "aria-current" in link.attributes] == [
            "file" if is_file else "importance"
        ]
        assert hidden.get("field-order") == ("file" if is_file else None)
        assert all(("field-order=file" in link) == is_file for link in examples)
        for order, link in orders.items():
            linked = form_of(spectra, link.attributes["href"])
            assert bool(linked.all("details", **{"class": "more"})) == (order == "importance")
            assert value_of(linked, "band_1_mean") == value_of(form, "band_1_mean")
            assert ("pinned-sample=band_2" in link.attributes["href"]) == is_file


def value_of(form: Element, key: str) -> str:
    return form.one("input", name=key).attributes["value"]


def test_the_order_is_no_measurement_and_few_fields_have_none(spectra: TestClient, page: TestClient) -> None:
    posted = spectra.post("/result", data={"field-order": "file"})

    assert not parse_html(posted.text).one(id="measurements").all("details", **{"class": "more"})
    assert spectra.get("/predict?field-order=file", headers=HTMX).text.count("data-feature") == 0
    for form in (form_of(page), form_of(page, "?field-order=file")):
        assert not form.all(id="find")
        assert not form.all("a", data_option="field-order")
        assert not form.all("input", name="field-order")


@pytest.mark.parametrize(("count", "folded"), [(12, 0), (13, 0), (15, 0), (16, 4), (30, 18)])
def test_only_more_fields_than_a_last_row_are_folded_away(count: int, folded: int) -> None:
    features = [msgspec.structs.replace(number(), key=f"k{index}", importance=index) for index in range(count)]

    groups = grouped(fields_of(features, {}, [], ENGLISH), features, ENGLISH, by_file=False)

    assert [len(group.fields) for group in groups] == [count - folded, folded][: len(groups)]
    assert len(groups) == (2 if folded else 1)


def test_a_word_is_looked_for_as_people_write_it() -> None:
    assert options(category("Caf\u00e9", "b"), "Cafe\u0301")[0] == ("Caf\u00e9", True)


def test_hostile_words_are_text(tmp_path: Path) -> None:
    evil = ('"><script>alert(1)</script>', "<b>", "' onfocus='x", "a\u202eb", "&amp;")
    features = (
        Feature(key="few", title="<i>few</i>", choices=evil, has_gaps=True, markers=('"><u>',)),
        Feature(key="many", title="many", choices=tuple(f"<s>{n}</s>" for n in range(15)), header='"><h1>'),
        Feature(key="some", title="some", choices=tuple(f"<p>{n}" for n in range(8))),
        Feature(key="n", title="n\u202en", unit='"><em>', thousands="'", has_gaps=True, markers=('"',)),
    )
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, n, 90).astype(float) for n in (5, 15, 8, 3)])
    rows[:9] = np.nan
    target = Target(title="<title>", labels=("<n\u2067o>", "<yes>"))
    dataset = Dataset("x", "y", features, target, rows, (rows[:, 1] > 7).astype(float))
    path = tmp_path / "x.npz"
    trained = fitting.fit(dataset, Recipe(n_estimators=2))
    writing.write(writing.model_of(trained), path, trained=trained)

    with TestClient(create_app(Settings(model_file=path))) as client:
        query = {"few": evil[0], "many": "<q>", "map-x": "few", "map-y": "many"}
        texts = [client.get(path, params=query).text for path in ("/", "/docs", "/health/drift")]
        texts += [client.get(path, params=query, headers=HTMX).text for path in ("/predict", "/explain", "/code")]
        html = parse_html(texts[0])

    assert [element.tag for tag in ("i", "s", "b", "q", "u", "em") for element in html.all(tag)] == ["em"], "of a guess"
    assert [script.attributes.keys() >= {"src"} for script in html.all("script")] == [True, True]
    assert sent(html.one("form", id="measurements")).items() >= {"few": evil[0], "many": "<q>"}.items()
    assert not any(turning in text for turning in "\u202e\u2067" for text in texts), "they turn text around"
    assert all("\ufffd" in text for text in texts[:2])
    assert evil[3] in [one.attributes.get("value") for one in html.all("option")], "it is sent as it is"
