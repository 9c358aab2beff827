"""What the templates know: plain data with formatted numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from tests.conftest import for_each
from web.page import answers, views
from web.page.answers import PredictionView
from web.page.axes import default_axes
from web.page.languages import NO_BREAK, language
from web.page.messages import messages_of
from web.page.views import PageView, ViewOptions

ENGLISH = language("en")

EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}


def view_of(model: LoadedModel, sample: Mapping[str, object]) -> PredictionView:
    try:
        row = model.validator.row(sample)
    except InvalidSample as error:
        return answers.invalid_view(error, model.features, ENGLISH)
    notes = messages_of(model.validator.notes(row), row, model.features, ENGLISH)
    return answers.answer_view(model.predict(row), model.card, notes, ENGLISH)


def page_of(model: LoadedModel, texts: Mapping[str, str]) -> PageView:
    return views.page_view(
        model,
        texts,
        view_of(model, texts).messages,
        ViewOptions(ENGLISH),
        axes=default_axes(model),
        address="http://127.0.0.1/",
    )


@for_each(
    ("share", "text"),
    [
        (0.0, "0%"), (1.0, "100%"), (0.5, "50%"), (0.123, "12.3%"), (0.1239, "12.4%"), (0.001, "0.1%"),
        (0.999, "99.9%"), (0.0009, "< 0.1%"), (5e-324, "< 0.1%"), (0.9999, "> 99.9%"), (1 - 2**-53, "> 99.9%"),
    ],
)  # fmt: skip
def test_a_share_is_shown_in_percent(share: float, text: str) -> None:
    assert ENGLISH.percent(share) == text.replace(" ", NO_BREAK)


@given(share=st.floats(0, 1))
def test_only_the_certain_is_shown_as_certain(share: float) -> None:
    assert (ENGLISH.percent(share) == "100%") == (share == 1)
    assert (ENGLISH.percent(share) == "0%") == (share == 0)


@pytest.mark.parametrize(("titles", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b")])
def test_titles_are_listed_as_in_a_sentence(titles: list[str], text: str) -> None:
    assert ENGLISH.listed(titles) == text


@for_each("count", range(3, 13))
def test_many_titles_are_named_or_counted(count: int) -> None:
    titles = [f"title {chr(97 + number)}" for number in range(count)]

    text = ENGLISH.listed(titles)

    named = [title for title in titles if title in text]
    more = re.search(r"(\d+) more$", text)
    assert named == titles[: len(named)]
    assert len(named) + int(more[1] if more else 0) == count
    assert text.count(" and ") == 1


def test_an_answer_has_a_bar_for_each_label_and_one_is_chosen(model: LoadedModel) -> None:
    prediction = model.predict([6.0, 2.8, 5.0, 1.65])

    view = view_of(model, {"sepal_length": 6.0, "sepal_width": 2.8, "petal_length": 5.0, "petal_width": 1.65})

    assert view.state == "answer"
    assert view.label == prediction.label
    assert [bar.label for bar in view.bars] == list(model.labels)
    assert [float(bar.share) for bar in view.bars] == list(prediction.probabilities), "every bit is kept"
    assert [bar.label for bar in view.bars if bar.chosen] == [prediction.label]
    assert view.percent == ENGLISH.percent(max(prediction.probabilities))
    assert not view.messages


def test_a_note_stands_beside_the_answer(model: LoadedModel) -> None:
    view = view_of(model, EXAMPLE | {"petal_length": "70"})

    (message,) = view.messages
    assert view.state == "answer"
    assert (message.kind, message.feature) == ("note", "petal_length")
    assert "petal length" in message.text


@pytest.mark.parametrize("text", ["", "-", ".", "1e"])
def test_what_is_half_typed_is_waited_for(model: LoadedModel, text: str) -> None:
    view = view_of(model, EXAMPLE | {"petal_length": text, "petal_width": ""})

    assert view.state == "incomplete"
    assert view.waiting_for == "petal length and petal width"
    assert not view.messages


@pytest.mark.parametrize(
    ("text", "hint"), [("abc", "not a number"), ("1e99", "too large"), ("-1", f"at least 0{NO_BREAK}cm")]
)
def test_an_error_has_a_sentence_and_a_few_words(model: LoadedModel, text: str, hint: str) -> None:
    view = view_of(model, EXAMPLE | {"petal_length": text, "petal_width": ""})

    (message,) = view.messages
    assert view.state == "invalid"
    assert (message.kind, message.feature, message.hint) == ("error", "petal_length", hint)
    assert message.text.startswith("petal length")


def test_an_unknown_feature_is_an_error_and_breaks_nothing(model: LoadedModel) -> None:
    view = view_of(model, EXAMPLE | {"petal_colour": "1"})

    assert [(message.kind, message.feature) for message in view.messages] == [("error", "petal_colour")]


def test_the_page_has_a_field_for_each_feature_with_what_was_typed_and_its_hint(model: LoadedModel) -> None:
    texts = EXAMPLE | {"petal_length": "abc", "petal_colour": "1"}

    page = page_of(model, texts)

    fields = [field for group in page.groups for field in group.fields]
    assert [field.key for field in fields] == list(EXAMPLE)
    assert [field.text for field in fields] == ["5.6", "2.7", "abc", "1.3"]
    assert [field.kind for field in fields] == ["", "", "error", ""]
    assert [field.unit for field in fields] == ["cm"] * 4
    assert page.version == model.version
    assert page.labels == model.labels


def test_the_page_shows_the_range_that_the_model_was_trained_on(model: LoadedModel) -> None:
    page = page_of(model, EXAMPLE)

    fields = [field for group in page.groups for field in group.fields]
    assert [(field.range, field.span) for field in fields] == [
        (f"{feature.low:g} to {feature.high:g}{NO_BREAK}cm", "") for feature in model.features
    ]
