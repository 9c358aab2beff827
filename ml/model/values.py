"""A value of a sample becomes the number that stands for it in a row. Knows one feature at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from ml.tables.dataset import Feature
from ml.tables.headers import composed
from ml.tables.numbers import MAX_NUMBER_CHARACTERS, NotANumber, number_of, shown_number, without_marks

# In a row, a word that is not among the choices: below all positions, as no value is, see `ml.model.cuts`.
UNKNOWN = -1.0
NO_VALUE_TEXTS = ("NA", "?", "-", "none")
# The texts of JSON's false and true, as a table may write them.
BOOLEANS = (("false", "no", "f", "n", "0"), ("true", "yes", "t", "y", "1"))


class UnknownWord(float):
    """The value in a row of a word that is not among the choices of its feature: -1. The word goes along."""

    def __new__(cls, word: str) -> UnknownWord:
        value = super().__new__(cls, UNKNOWN)
        value.word = word
        return value

    word: str


class Repeated(str):
    """The last text of a field that a request names several times: for a feature that is an error."""

    __slots__ = ()


def reader_of(feature: Feature) -> Callable[[object], float]:
    """Return what makes the number in a row out of a sample's value; it raises `NotANumber`.

    That is `number_of` itself for a number that always has a value and no unit.
    """
    if feature.choices:
        return partial(_choice, feature=feature, positions=_positions(feature))
    if feature.has_gaps or feature.unit or feature.thousands:
        return partial(_number, feature=feature)
    return number_of


def no_value(value: object, feature: Feature) -> bool:
    """Tell whether a value of a sample says that there is none: null, or text that stands for it."""
    return value is None or (type(value) is str and value.strip() in {*feature.markers, no_value_text(feature)})


def no_value_text(feature: Feature) -> str:
    """Return the text that stands for no value where a person types one: NA, if that is no choice."""
    return next(text for text in (*feature.markers, *NO_VALUE_TEXTS) if text not in feature.choices)


def _number(value: object, *, feature: Feature) -> float:
    if feature.has_gaps and no_value(value, feature):
        return math.nan
    marks = {"unit": feature.unit, "decimal": feature.decimal, "thousands": feature.thousands}
    if type(value) is str and feature.thousands:
        value = without_marks(value, **marks)
    try:
        return number_of(value)
    except NotANumber:
        if type(value) is not str or not feature.unit:
            raise
        return number_of(without_marks(value, **marks))


def _positions(feature: Feature) -> dict[str, float]:
    return {choice: float(position) for position, choice in enumerate(feature.choices)}


def _choice(value: object, *, feature: Feature, positions: Mapping[str, float]) -> float:
    if value is None or type(value) is str:
        word = composed((value or "").strip())
    elif isinstance(value, float) and math.isnan(value):
        word = ""
    elif isinstance(value, bool | int | float):
        word = _plain_text(value, positions)
    else:
        raise NotANumber("not_a_number")
    if word in positions:
        return positions[word]
    if feature.has_gaps and (value is None or no_value(word, feature)):
        return math.nan
    if not word:
        raise NotANumber("missing")
    return UnknownWord(short(word))


def _plain_text(value: float, positions: Mapping[str, float]) -> str:
    """Return the choice that a JSON number or boolean is, or else its JSON text."""
    if isinstance(value, bool):
        said = BOOLEANS[value]
        return next((choice for choice in positions if choice.lower() in said), said[0])
    # Digits beyond those of any word would be refused by str() where there are thousands of them.
    number = number_of(value)
    if not math.isfinite(number):
        return str(number)
    return next((text for text in (repr(number), shown_number(number)) if text in positions), shown_number(number))


def short(value: object) -> str:
    """Return a value as text that is not longer than a number, for a message."""
    # str() of an int of more than 4,300 digits raises; repr of what float() makes of it does not.
    text = repr(number_of(value)) if type(value) is int else str(value)
    return text if len(text) <= MAX_NUMBER_CHARACTERS else text[:MAX_NUMBER_CHARACTERS] + "…"
