"""Views of the fragment's templates: an answer with its notes, or the errors of a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ml.model.card import Card, Decision, TrainedFeature
from ml.model.evaluators import Prediction
from ml.model.sample import FieldError, InvalidSample, Note
from ml.model.values import is_number_of, no_value_text
from ml.tables.numbers import is_half_typed
from web.page.axes import step_of
from web.page.decision_map import hue_of, mark_of
from web.page.languages import Language, with_unit
from web.page.quantities import QuantityScale, QuantityView

# Of more labels than this the likeliest are shown, sorted by probability, and the others are counted.
ORDERED_LABELS, LIKELIEST = 8, 5

Kind = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Bar:
    """The probability of one label: `share` is 0 to 1, `percent` its text, `mark` the path and `hue` the CSS class.

    `pinned` is the percentage of a pinned sample, for the picture and as text; empty without one.
    """

    label: str
    share: str
    percent: str
    mark: str
    hue: str
    chosen: bool
    pinned: tuple[str, str] = ("", "")


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
    """The fragment: an answer, an incomplete sample, or one with errors.

    `title` is the answer in a few words, as the title of the page has it.
    `guess` says how many values the model has not seen the like of; it is empty for an answer that is none. `others`
    and `rest` are the number of labels without a bar, as words, and their share; `decision`
    says how the label follows from the probabilities, empty for the most probable label, and `cost` what that costs.
    """

    state: Literal["answer", "incomplete", "invalid"]
    title: str = ""
    label: str = ""
    hue: str = ""
    percent: str = ""
    bars: Sequence[Bar] = ()
    others: str = ""
    rest: str = ""
    quantity: QuantityView | None = None
    guess: str = ""
    decision: str = ""
    cost: str = ""
    messages: Sequence[Message] = ()
    waiting_for: str = ""


def answer_text(prediction: Prediction, scale: QuantityScale | None, to: Language) -> str:
    """Return an answer in a few words: a label and its probability, or a quantity with its unit."""
    if scale is not None:
        return scale.text(prediction.value)
    return f"{prediction.label} {to.percent(prediction.probabilities[prediction.index])}"


def answer_view(
    prediction: Prediction,
    card: Card,
    messages: Sequence[Message],
    to: Language,
    *,
    pinned: Prediction | None = None,
    decision: str = "",
    cost: str = "",
) -> PredictionView:
    """Return the view of a label with its probabilities, and with those of a pinned sample.

    Args:
        decision, cost: see `PredictionView`.
    """
    bars = [
        Bar(label, repr(share), to.percent(share), mark_of(index), hue_of(index), chosen=index == prediction.index)
        for index, (label, share) in enumerate(zip(card.labels, prediction.probabilities, strict=True))
    ]
    if pinned:
        bars = [
            replace(bar, pinned=(f"{share * 100:.1f}%", to.percent(share)))
            for bar, share in zip(bars, pinned.probabilities, strict=True)
        ]
    answer = PredictionView(
        "answer",
        answer_text(prediction, None, to),
        prediction.label,
        hue_of(prediction.index),
        bars[prediction.index].percent,
        bars,
        guess=_guess(messages, to),
        decision=decision,
        cost=cost,
        messages=messages,
    )
    if len(bars) <= ORDERED_LABELS:
        return answer
    bars.sort(key=lambda bar: (not bar.chosen, -float(bar.share)))
    left = bars[LIKELIEST:]
    return replace(
        answer,
        bars=bars[:LIKELIEST],
        others=to.ngettext("%(count)s other", "%(count)s others", len(left)),
        rest=to.percent(math.fsum(float(bar.share) for bar in left)),
    )


def decision_text(decision: Decision, to: Language) -> str:
    """Return what a decision says."""
    return to.gettext(
        "%(label)s from a probability of %(threshold)s on",
        label=decision.positive,
        threshold=to.percent(decision.threshold),
    )


def quantity_view(
    prediction: Prediction,
    scale: QuantityScale,
    messages: Sequence[Message],
    to: Language,
    *,
    pinned: Prediction | None = None,
) -> PredictionView:
    """Return the view of a quantity, and of that of a pinned sample."""
    title, quantity = answer_text(prediction, scale, to), scale.view(prediction.value, pinned.value if pinned else None)
    return PredictionView("answer", title, quantity=quantity, guess=_guess(messages, to), messages=messages)


def _guess(notes: Sequence[Message], to: Language) -> str:
    if not notes:
        return ""
    return to.ngettext(
        "a guess: %(count)s value unlike any in training",
        "a guess: %(count)s values unlike any in training",
        len(notes),
    )


def messages_of(
    notes: Sequence[Note], row: Sequence[float], features: Sequence[TrainedFeature], to: Language
) -> tuple[Message, ...]:
    """Return notes about the values of a row as messages."""
    by_key = {feature.key: (feature, value) for feature, value in zip(features, row, strict=True)}
    return tuple(_noted(note, *by_key[note.feature], to) for note in notes)


def _noted(note: Note, feature: TrainedFeature, value: float, to: Language) -> Message:
    if note.code == "unknown_choice":
        word = _harmless(str(feature.shown(value)))
        text = to.gettext("%(title)s: “%(word)s” was not seen in training", title=to.title(feature), word=word)
        return Message("note", note.feature, text, to.gettext("not seen in training"))
    # The hint stands below the range itself, which each field shows all the time.
    return Message("note", note.feature, _outside(feature, to), to.gettext("outside"))


def invalid_view(error: InvalidSample, features: Sequence[TrainedFeature], to: Language) -> PredictionView:
    """Return the view of a sample with errors; on a page a half-typed number makes it incomplete, not invalid."""
    by_key = {feature.key: feature for feature in features}
    wrong = [e for e in error.errors if not _is_unfinished(e, by_key.get(e.feature))]
    if wrong:
        messages = [
            Message("error", e.feature, _sentence(e, by_key.get(e.feature), to), _hint(e, by_key.get(e.feature), to))
            for e in wrong
        ]
        return PredictionView("invalid", messages=messages)
    titles = [to.title(by_key[e.feature]) for e in error.errors]
    return PredictionView("incomplete", waiting_for=to.listed(titles))


def _sentence(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    """Return the message of an error in the reader's language; the English one equals the validator's.

    A missing value makes the sample incomplete and has no message.
    """
    if feature is None:
        return to.gettext("“%(name)s” is not a feature of this model", name=_harmless(error.feature))
    title = to.title(feature)
    if error.code == "named_twice" and error.value is None:
        return to.gettext("%(title)s is given twice, by its key and by its header", title=title)
    if error.code == "named_twice":
        return to.gettext("%(title)s is given twice", title=title)
    if error.code in ("not_a_choice", "not_a_number"):
        return _unread(error, to, title=title)
    if error.code == "not_finite":
        return to.gettext("%(title)s is too large for a 32-bit float", title=title)
    return _out_of_bounds(feature, to, title=title, value=_as_given(error.value, to))


def _unread(error: FieldError, to: Language, *, title: str) -> str:
    if error.code == "not_a_choice":
        if error.value is None:  # an object or a list
            return to.gettext("%(title)s must be one of the choices", title=title)
        value = _as_given(error.value, to)
        return to.gettext("%(title)s: “%(value)s” is not one of the choices", title=title, value=value)
    if error.value is None:  # the same
        return to.gettext("%(title)s must be a number", title=title)
    value = _as_given(error.value, to)
    return to.gettext("%(title)s: “%(value)s” is not a number", title=title, value=value)


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
        low=to.rounded(feature.low, step_of(feature)),
        high=with_unit(to.rounded(feature.high, step_of(feature)), feature.unit),
    )


def _hint(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    if feature is None:
        return to.gettext("unknown")
    if error.code == "named_twice":
        return to.gettext("given twice")
    if error.code == "not_a_choice":
        return to.gettext("not a choice")
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


def _is_unfinished(error: FieldError, feature: TrainedFeature | None) -> bool:
    """Return whether a value is the beginning of one: of a number, or of the text for no value."""
    if error.code == "missing":
        return True
    value = error.value
    if error.code != "not_a_number" or not isinstance(value, str):
        return False
    return is_half_typed(value) or (
        feature is not None
        and (
            (feature.has_gaps and no_value_text(feature).startswith(value.strip()))
            # 5.0 on the way to 5.079, which is 5079 where a point divides thousands.
            or any(bool(feature.thousands) and is_number_of(feature, value.strip() + zeros) for zeros in ("0", "00"))
        )
    )
