"""A value of a sample becomes the number that stands for it in a row. Knows one feature at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import cache, partial

from ml.tables.contents import is_marker_of_numbers, marker_spellings
from ml.tables.dataset import UNKNOWN, Feature, boolean_text
from ml.tables.headers import places_of, word_of
from ml.tables.numbers import (
    MAX_NUMBER_CHARACTERS,
    NotANumber,
    is_half_typed,
    number_of,
    shown_number,
    without_marks,
)

NO_VALUE_TEXTS = ("NA", "?", "-", "none")

Reader = Callable[[object], float]


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


def reader_of(feature: Feature) -> Reader:
    """Return what makes the number in a row out of a sample's value; it raises `NotANumber`.

    That is `number_of` itself for a number that always has a value and no unit.
    """
    if feature.choices:
        return partial(_choice, places_of(feature.choices), feature, frozenset(no_value_texts(feature)))
    if feature.has_gaps or feature.unit or feature.thousands:
        return partial(_number, feature, frozenset(no_value_texts(feature)))
    return number_of


def is_number_of(feature: Feature, text: str) -> bool:
    """Tell whether text is a number as a person types it for a feature."""
    try:
        return math.isfinite(reader_of(feature)(text)) and not feature.choices
    except NotANumber:
        return False


def no_value_text(feature: Feature) -> str:
    """Return the text that stands for no value where a person types one: NA, if that is no choice."""
    texts = itertools.chain(feature.markers, NO_VALUE_TEXTS, map("none {}".format, itertools.count(2)))
    return next(text for text in texts if text not in feature.choices)


def no_value_texts(feature: Feature) -> tuple[str, ...]:
    """Return the texts that stand for no value in a sample; none where the feature always has one."""
    return tuple(dict.fromkeys((*feature.markers, no_value_text(feature)))) if feature.has_gaps else ()


@cache
def typed_gaps() -> frozenset[str]:
    """Return the usual texts, in the usual spellings, that say for any number with gaps that it has no value."""
    return frozenset(text for text in marker_spellings() if is_marker_of_numbers(text) and not is_half_typed(text))


def _number(feature: Feature, no_values: frozenset[str], value: object) -> float:
    if type(value) is float:
        return value
    if type(value) is not str:
        return math.nan if value is None and feature.has_gaps else number_of(value)
    if value.strip() in no_values:
        return math.nan
    marks = {"decimal": feature.decimal, "thousands": feature.thousands}
    try:
        return number_of(without_marks(value, unit="", **marks) if feature.thousands else value)
    except NotANumber:
        # What may be the beginning of a number is none of the markers that people type.
        if feature.has_gaps and is_marker_of_numbers(value.strip()) and not is_half_typed(value):
            return math.nan
        if not feature.unit:
            raise
        return number_of(without_marks(value, unit=feature.unit, **marks))


def _choice(positions: Mapping[str, float], feature: Feature, no_values: frozenset[str], value: object) -> float:
    if type(value) is str:
        if value in positions:
            return positions[value]
        word = word_of(value)
    elif value is None or (isinstance(value, float) and math.isnan(value)):
        if feature.has_gaps:
            return math.nan
        raise NotANumber("missing")
    elif isinstance(value, bool | int | float):
        word = _plain_text(value, feature)
    else:
        raise NotANumber("not_a_number")
    if word in positions:
        return positions[word]
    if word in no_values:
        return math.nan
    if not word:
        raise NotANumber("missing")
    if feature.is_closed:
        raise NotANumber("not_a_number")
    return UnknownWord(short(word))


def _plain_text(value: float, feature: Feature) -> str:
    """Return the choice that a JSON number or boolean is, or else its JSON text."""
    if isinstance(value, bool):
        return boolean_text(feature.choices, is_true=value)
    number = number_of(value)
    # Digits beyond those of any word would be refused by str() where there are thousands of them.
    if not math.isfinite(number):
        raise NotANumber("not_finite")
    text = shown_number(number)
    return text if text in feature.choices else repr(number) if repr(number) in feature.choices else text


def short(value: object) -> str:
    """Return a value as text that is not longer than a number, for a message."""
    if isinstance(value, bool):
        return str(value).lower()  # as JSON writes it
    # str() of an int of more than 4,300 digits raises; repr of what float() makes of it does not.
    text = repr(number_of(value)) if type(value) is int else str(value)
    return text if len(text) <= MAX_NUMBER_CHARACTERS else text[:MAX_NUMBER_CHARACTERS] + "…"
