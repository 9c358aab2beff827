"""Errors and notes about the values of a sample, in the reader's language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ml.model.card import TrainedFeature
from ml.model.sample import Code, FieldError, Note
from ml.model.values import is_number_of, no_value_text
from ml.tables.numbers import is_half_typed
from web.api.description import N_
from web.page.axes import step_of
from web.page.languages import Language, rounded, with_unit

Kind = Literal["error", "note"]

# The sentence of an error without a value, as of an object or a list, and that of one with a value.
_SENTENCES: dict[Code, tuple[str, str]] = {
    "named_twice": (N_("%(title)s is given twice, by its key and by its header"), N_("%(title)s is given twice")),
    "not_a_choice": (
        N_("%(title)s must be one of the choices"), N_("%(title)s: “%(value)s” is not one of the choices"),
    ),
    "not_a_number": (N_("%(title)s must be a number"), N_("%(title)s: “%(value)s” is not a number")),
    "not_finite": (N_("%(title)s is too large"),) * 2,
}  # fmt: skip
_HINTS: dict[Code, str] = {
    "named_twice": N_("given twice"),
    "not_a_choice": N_("not a choice"),
    "not_a_number": N_("not a number"),
    "not_finite": N_("too large"),
}
# By which of the limits there are: the lower one, the upper one.
_OUT_OF_BOUNDS = {
    (True, True): N_("%(title)s must be between %(low)s and %(high)s, not %(value)s"),
    (True, False): N_("%(title)s must be %(low)s or more, not %(value)s"),
    (False, True): N_("%(title)s must be %(high)s or less, not %(value)s"),
}
_BOUNDS = {
    (True, True): N_("between %(low)s and %(high)s"),
    (True, False): N_("at least %(low)s"),
    (False, True): N_("at most %(high)s"),
}


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


def messages_of(
    notes: Sequence[Note], row: Sequence[float], features: Sequence[TrainedFeature], to: Language
) -> tuple[Message, ...]:
    """Return notes about the values of a row as messages."""
    by_key = {feature.key: (feature, value) for feature, value in zip(features, row, strict=True)}
    return tuple(_noted(note, *by_key[note.feature], to) for note in notes)


def _noted(note: Note, feature: TrainedFeature, value: float, to: Language) -> Message:
    if note.code == "unknown_choice":
        word = str(feature.shown(value))
        text = to.gettext("%(title)s: “%(word)s” was not seen in training", title=to.title(feature), word=word)
        return Message("note", note.feature, text, to.gettext("not seen in training"))
    # The hint stands below the range itself, which each field shows all the time.
    hint = to.gettext("above the range") if value > feature.high else to.gettext("below the range")
    return Message("note", note.feature, _outside(feature, value, to), hint)


def error_message(error: FieldError, feature: TrainedFeature | None, to: Language) -> Message:
    """Return an error as a message; it may name what is no feature of the model."""
    return Message("error", error.feature, _sentence(error, feature, to), _hint(error, feature, to))


def is_about_marks(value: object, feature: TrainedFeature) -> bool:
    """Tell whether a value that is no number has marks in it, where one of them divides thousands."""
    marks = (feature.thousands, feature.decimal)
    return bool(feature.thousands) and isinstance(value, str) and any(mark in value for mark in marks)


def marks_message(feature: TrainedFeature, to: Language) -> Message:
    """Return what the marks of a half-typed number mean, where one divides thousands."""
    text = to.gettext("%(title)s: %(marks)s", title=to.title(feature), marks=_marks(feature, to))
    return Message("note", feature.key, text, to.gettext("“%(mark)s” divides thousands", mark=feature.thousands))


def _marks(feature: TrainedFeature, to: Language) -> str:
    marks = {"thousands": feature.thousands, "decimal": feature.decimal}
    return to.gettext("here “%(thousands)s” divides thousands and “%(decimal)s” is the decimal mark", **marks)


def _sentence(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    """Return the message of an error in the reader's language; the English one equals the validator's.

    A missing value makes the sample incomplete and has no message.
    """
    if feature is None:
        return to.gettext("“%(name)s” is not a feature of this model", name=error.feature)
    title, value = to.title(feature), _as_given(error.value, to)
    if error.code not in _SENTENCES:
        return _out_of_bounds(feature, to, title=title, value=value)
    text = to.gettext(_SENTENCES[error.code][error.value is not None], title=title, value=value)
    is_marked = error.code == "not_a_number" and is_about_marks(error.value, feature)
    return f"{text}; {_marks(feature, to)}" if is_marked else text


def _out_of_bounds(feature: TrainedFeature, to: Language, *, title: str, value: str) -> str:
    low, high = _limits(feature, to)
    named = {"title": title, "low": low, "high": high, "value": value}
    return to.gettext(_OUT_OF_BOUNDS[bool(low), bool(high)], **named)


def _as_given(value: str | float | bool | None, to: Language) -> str:
    """Return a value as it was typed, or a number that a program sent as people write it."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return to.number(value)
    return harmless(value if isinstance(value, str) else str(value).lower())


def harmless(text: str) -> str:
    """Return text without invisible characters, which might reverse or hide parts of the sentence around it."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _outside(feature: TrainedFeature, value: float, to: Language) -> str:
    """Return the sentence, with so many digits of the ends of the range that the value is outside of what it says."""
    step = step_of(feature)
    while not (value < rounded(feature.low, step) or value > rounded(feature.high, step)):
        step /= 10
    return to.gettext(
        "%(title)s is outside the training range of %(low)s to %(high)s",
        title=to.title(feature),
        low=to.rounded(feature.low, step),
        high=with_unit(to.rounded(feature.high, step), feature.unit),
    )


def _hint(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    if feature is None:
        return to.gettext("unknown")
    low, high = _limits(feature, to)
    return to.gettext(_HINTS.get(error.code) or _BOUNDS[bool(low), bool(high)], low=low, high=high)


def _limits(feature: TrainedFeature, to: Language) -> tuple[str, str]:
    """Return the limits as text, empty where there is none; the unit follows the last of them."""
    minimum, maximum, unit = feature.minimum, feature.maximum, feature.unit
    high = "" if maximum is None else to.quantity(maximum, unit)
    if minimum is None:
        return "", high
    return to.number(minimum) if high else to.quantity(minimum, unit), high


def is_unfinished(error: FieldError, feature: TrainedFeature | None) -> bool:
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
