"""What the templates know: plain data, numbers already formatted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ml.card import TrainedFeature
from ml.classifier import Classifier, Prediction
from ml.sample import FieldError, InvalidSample, Note, is_half_typed, shown_number


@dataclass(frozen=True, slots=True)
class Bar:
    """The probability of one label: `share` is 0 to 1, `percent` its text."""

    label: str
    share: str
    percent: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Message:
    """Something to say about one feature, or about the whole sample when `feature` is empty."""

    feature: str
    text: str


@dataclass(frozen=True, slots=True)
class PredictionView:
    """The fragment: an answer, a sample that is not complete yet, or one with errors."""

    state: Literal["answer", "incomplete", "invalid"]
    label: str = ""
    percent: str = ""
    bars: Sequence[Bar] = ()
    notes: Sequence[Message] = ()
    errors: Sequence[Message] = ()
    waiting_for: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """One input of the form. `text` is what it holds, `low` and `high` the training range."""

    key: str
    title: str
    unit: str
    text: str
    low: str
    high: str
    error: str


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page."""

    name: str
    version: str
    source: str
    estimator: str
    trees: int
    accuracy: str
    test_rows: int
    fields: Sequence[Field]
    prediction: PredictionView


def answer_view(prediction: Prediction, labels: Sequence[str], notes: Sequence[Note]) -> PredictionView:
    """Return the view of an answer."""
    bars = [
        Bar(label, repr(share), percent(share), chosen=index == prediction.index)
        for index, (label, share) in enumerate(zip(labels, prediction.probabilities, strict=True))
    ]
    messages = [Message(note.feature, note.message) for note in notes]
    chosen = bars[prediction.index]
    return PredictionView("answer", prediction.label, chosen.percent, bars, notes=messages)


def invalid_view(error: InvalidSample, features: Sequence[TrainedFeature]) -> PredictionView:
    """Return the view of a sample that gave errors: on a page, what is half typed is not wrong yet."""
    titles = {feature.key: feature.title for feature in features}
    wrong = [e for e in error.errors if not _is_unfinished(e)]
    if wrong:
        return PredictionView("invalid", errors=[Message(e.feature, e.message) for e in wrong])
    return PredictionView("incomplete", waiting_for=[titles[e.feature] for e in error.errors])


def page_view(model: Classifier, texts: Mapping[str, str], prediction: PredictionView) -> PageView:
    """Return the view of the page with `texts` in its fields."""
    card = model.card
    errors = {message.feature: message.text for message in prediction.errors}
    fields = [
        Field(
            key=feature.key,
            title=feature.title,
            unit=feature.unit,
            text=texts.get(feature.key, ""),
            low=shown_number(feature.low),
            high=shown_number(feature.high),
            error=errors.get(feature.key, ""),
        )
        for feature in model.features
    ]
    return PageView(
        name=model.name,
        version=model.version,
        source=card.source,
        estimator=card.estimator,
        trees=card.trees,
        accuracy=percent(card.report.accuracy),
        test_rows=card.report.test_rows,
        fields=fields,
        prediction=prediction,
    )


def percent(share: float) -> str:
    """Return a share of 0 to 1 as text; only 0 and 1 themselves become 0 % and 100 %."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def _is_unfinished(error: FieldError) -> bool:
    return error.code == "missing" or (error.code == "not_a_number" and is_half_typed(error.value))
