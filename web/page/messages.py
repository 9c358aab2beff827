"""What is said about single values: notes, and errors, as sentences and in a few words. Knows no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ml.model.card import TrainedFeature
from ml.model.sample import FieldError, Note
from ml.model.values import is_number_of, no_value_text
from ml.tables.numbers import is_half_typed
from web.page.axes import step_of
from web.page.languages import Language, with_unit

Kind = Literal["error", "note"]


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
        word = _harmless(str(feature.shown(value)))
        text = to.gettext("%(title)s: “%(word)s” was not seen in training", title=to.title(feature), word=word)
        return Message("note", note.feature, text, to.gettext("not seen in training"))
    # The hint stands below the range itself, which each field shows all the time.
    return Message("note", note.feature, _outside(feature, to), to.gettext("outside"))


def error_message(error: FieldError, feature: TrainedFeature | None, to: Language) -> Message:
    """Return an error as a message; of a value that belongs to no feature, None is the feature."""
    return Message("error", error.feature, _sentence(error, feature, to), _hint(error, feature, to))


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
