"""What the templates know: plain data, numbers already formatted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ml.card import TrainedFeature
from ml.classifier import Classifier, Prediction
from ml.sample import FieldError, InvalidSample, Note, is_half_typed, shown_number

# A list of titles is a sentence, not the form again: after this many it counts.
# More labels than this come in the order of their probability: the chosen one may be out of sight otherwise.
ORDERED_LABELS = 8
# More fields than this are folded away.
SHOWN_FIELDS = 12
NAMED_TITLES = 2

Kind = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Bar:
    """The probability of one label: `share` is 0 to 1, `percent` its text."""

    label: str
    share: str
    percent: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Message:
    """Something to say about a value of the sample.

    Attributes:
        feature: its key; it need not be a feature of the model.
        text: the whole sentence, for the result.
        hint: a few words, for the space below the feature's own input.
    """

    kind: Kind
    feature: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class PredictionView:
    """The fragment: an answer, a sample that is not complete yet, or one with errors."""

    state: Literal["answer", "incomplete", "invalid"]
    label: str = ""
    percent: str = ""
    bars: Sequence[Bar] = ()
    messages: Sequence[Message] = ()
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One input of the form, `id` its own on the page.

    `text` is what it holds, `low` and `high` the training range, `kind` that of `hint`.
    """

    id: str
    key: str
    title: str
    unit: str
    text: str
    low: str
    high: str
    kind: Kind | Literal[""]
    hint: str


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that stand together; with a title they can be folded away."""

    title: str
    is_open: bool
    fields: Sequence[Field]


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page; `count` is the number of fields in all groups."""

    name: str
    version: str
    source: str
    estimator: str
    trees: int
    accuracy: str
    test_rows: int
    labels: Sequence[str]
    count: int
    groups: Sequence[Group]
    prediction: PredictionView


def answer_view(prediction: Prediction, labels: Sequence[str], notes: Sequence[Note]) -> PredictionView:
    """Return the view of an answer."""
    bars = [
        Bar(label, repr(share), percent(share), chosen=index == prediction.index)
        for index, (label, share) in enumerate(zip(labels, prediction.probabilities, strict=True))
    ]
    # The hint stands below the range itself, which each field shows all the time.
    messages = [Message("note", note.feature, note.message, "outside") for note in notes]
    chosen = bars[prediction.index]
    if len(bars) > ORDERED_LABELS:
        bars.sort(key=lambda bar: -float(bar.share))
    return PredictionView("answer", prediction.label, chosen.percent, bars, messages)


def invalid_view(error: InvalidSample, features: Sequence[TrainedFeature]) -> PredictionView:
    """Return the view of a sample that gave errors: on a page, what is half typed is not wrong yet."""
    by_key = {feature.key: feature for feature in features}
    wrong = [e for e in error.errors if not _is_unfinished(e)]
    if wrong:
        messages = [Message("error", e.feature, e.message, _hint(e, by_key.get(e.feature))) for e in wrong]
        return PredictionView("invalid", messages=messages)
    return PredictionView("incomplete", waiting_for=listed([by_key[e.feature].title for e in error.errors]))


def page_view(model: Classifier, texts: Mapping[str, str], prediction: PredictionView) -> PageView:
    """Return the view of the page with `texts` in its fields."""
    card = model.card
    messages = {message.feature: message for message in prediction.messages}
    fields = {
        feature.key: _field(f"f{number}", feature, text=texts.get(feature.key, ""), message=messages.get(feature.key))
        for number, feature in enumerate(model.features, 1)
    }
    return PageView(
        name=model.name,
        version=model.version,
        source=card.source,
        estimator=card.estimator,
        trees=card.trees,
        accuracy=percent(card.report.accuracy),
        test_rows=card.report.test_rows,
        labels=model.labels,
        count=len(fields),
        groups=_grouped(fields, model.features),
        prediction=prediction,
    )


def percent(share: float) -> str:
    """Return a share of 0 to 1 as text; only 0 and 1 themselves become 0 % and 100 %."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def listed(titles: Sequence[str]) -> str:
    """Return titles as they stand in a sentence: "a", "a and b", "a, b and 1 more"."""
    named = list(titles[:NAMED_TITLES])
    if len(titles) > NAMED_TITLES:
        named.append(f"{len(titles) - NAMED_TITLES} more")
    return " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else "".join(named)


def _grouped(fields: Mapping[str, Field], features: Sequence[TrainedFeature]) -> Sequence[Group]:
    """Return a dozen fields as they come; of more, the most important first and the others folded away."""
    if len(fields) <= SHOWN_FIELDS:
        return [Group("", is_open=True, fields=list(fields.values()))]
    ranked = [fields[feature.key] for feature in sorted(features, key=lambda feature: -feature.importance)]
    first, others = ranked[:SHOWN_FIELDS], ranked[SHOWN_FIELDS:]
    title = f"{len(others)} more, less important to this model"
    return [Group("", is_open=True, fields=first), Group(title, is_open=any(f.hint for f in others), fields=others)]


def _field(identity: str, feature: TrainedFeature, *, text: str, message: Message | None) -> Field:
    return Field(
        id=identity,
        key=feature.key,
        title=feature.title,
        unit=feature.unit,
        text=text,
        low=shown_number(feature.low).replace("-", "−"),
        high=shown_number(feature.high).replace("-", "−"),
        kind=message.kind if message else "",
        hint=message.hint if message else "",
    )


def _hint(error: FieldError, feature: TrainedFeature | None) -> str:
    if feature is None:
        return "unknown"
    if error.code == "out_of_bounds":
        return _bounds(feature)
    return {"missing": "missing", "not_a_number": "not a number", "not_finite": "too large"}.get(error.code, "")


def _bounds(feature: TrainedFeature) -> str:
    unit = f" {feature.unit}" if feature.unit else ""
    if feature.minimum is not None and feature.maximum is not None:
        return f"{shown_number(feature.minimum)} to {shown_number(feature.maximum)}{unit} only"
    if feature.minimum is not None:
        return f"{shown_number(feature.minimum)}{unit} or more"
    return f"{shown_number(feature.maximum or 0.0)}{unit} or less"


def _is_unfinished(error: FieldError) -> bool:
    return error.code == "missing" or (error.code == "not_a_number" and is_half_typed(error.value))
