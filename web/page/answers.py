"""Views of the fragment's templates: an answer, the errors of a sample, and the nearest change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ml.model.card import TrainedFeature
from ml.model.classifier import Prediction
from ml.model.explain import Direction
from ml.model.sample import FieldError, InvalidSample, Note
from ml.tables.numbers import is_half_typed
from web.page.decision_map import mark_of
from web.page.languages import Language

# More labels than this are sorted by probability: the predicted one might be out of sight otherwise.
ORDERED_LABELS = 8

Kind = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Bar:
    """The probability of one label: `share` is 0 to 1, `percent` its text, `mark` the path of its points' mark."""

    label: str
    share: str
    percent: str
    mark: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Message:
    """An error or a note about a value of the sample.

    Attributes:
        feature: its key; it need not be a feature of the model.
        text: the whole sentence, shown with the result.
        hint: a few words, shown below the feature's own input.
    """

    kind: Kind
    feature: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class PredictionView:
    """The fragment: an answer, an incomplete sample, or one with errors."""

    state: Literal["answer", "incomplete", "invalid"]
    label: str = ""
    percent: str = ""
    bars: Sequence[Bar] = ()
    messages: Sequence[Message] = ()
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class ChangeView:
    """The nearest change of the answer: setting `feature` to `value` gives `label`."""

    label: str
    feature: str
    title: str
    direction: Direction
    threshold: str
    value: str


def answer_view(
    prediction: Prediction,
    labels: Sequence[str],
    notes: Sequence[Note],
    features: Sequence[TrainedFeature],
    to: Language,
) -> PredictionView:
    """Return the view of an answer."""
    bars = [
        Bar(label, repr(share), to.percent(share), mark_of(index), chosen=index == prediction.index)
        for index, (label, share) in enumerate(zip(labels, prediction.probabilities, strict=True))
    ]
    chosen = bars[prediction.index]
    if len(bars) > ORDERED_LABELS:
        bars.sort(key=lambda bar: -float(bar.share))
    return PredictionView("answer", prediction.label, chosen.percent, bars, messages_of(notes, features, to))


def messages_of(notes: Sequence[Note], features: Sequence[TrainedFeature], to: Language) -> Sequence[Message]:
    """Return notes as messages."""
    by_key = {feature.key: feature for feature in features}
    # The hint stands below the range itself, which each field shows all the time.
    return [Message("note", note.feature, _outside(by_key[note.feature], to), to.gettext("outside")) for note in notes]


def invalid_view(error: InvalidSample, features: Sequence[TrainedFeature], to: Language) -> PredictionView:
    """Return the view of a sample with errors; on a page a half-typed number makes it incomplete, not invalid."""
    by_key = {feature.key: feature for feature in features}
    wrong = [e for e in error.errors if not _is_unfinished(e)]
    if wrong:
        messages = [
            Message("error", e.feature, _sentence(e, by_key.get(e.feature), to), _hint(e, by_key.get(e.feature), to))
            for e in wrong
        ]
        return PredictionView("invalid", messages=messages)
    titles = [to.title(by_key[e.feature]) for e in error.errors]
    return PredictionView("incomplete", waiting_for=to.listed(titles))


def change_view(
    feature: TrainedFeature, *, direction: Direction, threshold: float, value: float, label: str, to: Language
) -> ChangeView:
    """Return the view of the nearest change of the answer."""
    return ChangeView(
        label=label,
        feature=feature.key,
        title=to.title(feature),
        direction=direction,
        threshold=to.quantity(threshold, feature.unit),
        value=to.number(value),
    )


def _sentence(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    """Return the message of an error in the reader's language; the English one equals the validator's.

    A missing value makes the sample incomplete and has no message.
    """
    if feature is None:
        return to.gettext("“%(name)s” is not a feature of this model", name=_harmless(error.feature))
    title = to.title(feature)
    value = error.value
    if error.code == "not_a_number" and value is None:  # an object or a list
        return to.gettext("%(title)s must be a number", title=title)
    if error.code == "not_a_number":
        return to.gettext("%(title)s: “%(value)s” is not a number", title=title, value=_as_given(value, to))
    if error.code == "not_finite":
        return to.gettext("%(title)s is too large for a 32-bit float", title=title)
    return _out_of_bounds(feature, to, title=title, value=_as_given(value, to))


def _out_of_bounds(feature: TrainedFeature, to: Language, *, title: str, value: str) -> str:
    low, high = _limits(feature, to)
    named = {"title": title, "low": low, "high": high, "value": value}
    if low and high:
        return to.gettext("%(title)s must be between %(low)s and %(high)s, not %(value)s", **named)
    if low:
        return to.gettext("%(title)s must be %(low)s or more, not %(value)s", **named)
    return to.gettext("%(title)s must be %(high)s or less, not %(value)s", **named)


def _as_given(value: str | float | bool | None, to: Language) -> str:
    """Return a value as it was typed, or a number that a program sent as people write it."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return to.number(value)
    return _harmless(value if isinstance(value, str) else str(value).lower())


def _harmless(text: str) -> str:
    """Return text without invisible characters, which might reverse or hide parts of the sentence around it."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _outside(feature: TrainedFeature, to: Language) -> str:
    return to.gettext(
        "%(title)s is outside the training range of %(low)s to %(high)s",
        title=to.title(feature),
        low=to.number(feature.low),
        high=to.quantity(feature.high, feature.unit),
    )


def _hint(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    if feature is None:
        return to.gettext("unknown")
    if error.code == "not_a_number":
        return to.gettext("not a number")
    if error.code == "not_finite":
        return to.gettext("too large")
    return _bounds(feature, to)


def _bounds(feature: TrainedFeature, to: Language) -> str:
    low, high = _limits(feature, to)
    if low and high:
        return to.gettext("between %(low)s and %(high)s", low=low, high=high)
    if low:
        return to.gettext("%(low)s or more", low=low)
    return to.gettext("%(high)s or less", high=high)


def _limits(feature: TrainedFeature, to: Language) -> tuple[str, str]:
    """Return the limits as text, empty where there is none; the unit follows the last of them."""
    minimum, maximum, unit = feature.minimum, feature.maximum, feature.unit
    high = "" if maximum is None else to.quantity(maximum, unit)
    if minimum is None:
        return "", high
    return to.number(minimum) if high else to.quantity(minimum, unit), high


def _is_unfinished(error: FieldError) -> bool:
    return error.code == "missing" or (error.code == "not_a_number" and is_half_typed(error.value))
