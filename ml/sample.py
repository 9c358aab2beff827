"""A sample becomes a row, or errors feature by feature: the one validator of every channel.

Values come as typed text (form, query, CSV, command line) or as JSON values. Knows nothing of where they came from.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.card import TrainedFeature
from ml.errors import MLError

Code = Literal["missing", "not_a_number", "not_finite", "out_of_bounds", "unknown_feature"]

# The forest compares in float32: what rounds to infinity there is not a finite number for it, and scikit-learn refuses
# it too. The middle between the largest float32 and 2**128 rounds up; this is the largest float64 below that middle.
LARGEST = math.nextafter(2.0**128 - 2.0**103, 0.0)
MAX_NUMBER_CHARACTERS = 64
MAX_ERRORS = 100

# What a person types: one mark, "." or ",", ASCII digits, an exponent if need be. float() alone would take "nan",
# "1_0" and Arabic digits as well. What digits have matched they keep (++, *+): no other way to match them is tried.
_NUMBER = re.compile(r"[+-]?(?:[0-9]++[.,]?[0-9]*+|[.,][0-9]++)(?:[eE][+-]?[0-9]++)?")
_HALF_TYPED = re.compile(r"[+-]?[.,]?|[+-]?(?:[0-9]++[.,]?[0-9]*+|[.,][0-9]++)[eE][+-]?")
_MINUS_SIGN = "\u2212"


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one value. `feature` is its key; `value` what was seen, if it is short and plain."""

    feature: str
    code: Code
    message: str
    value: str | float | bool | None = None


class Note(msgspec.Struct, frozen=True):
    """Something to know about a valid value: `outside_training_range`."""

    feature: str
    code: Literal["outside_training_range"]
    message: str


class InvalidSample(MLError):
    """The sample has errors.

    Attributes:
        errors: at most `MAX_ERRORS` of them, in the order of the features, unknown features last.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(dict.fromkeys(error.message for error in errors[:3])))
        self.errors = tuple(errors[:MAX_ERRORS])


class Validator:
    """Turns samples into rows for the features of one model."""

    def __init__(self, features: Sequence[TrainedFeature]) -> None:
        self.features = tuple(features)
        self.keys = tuple(feature.key for feature in features)
        self._checks = [
            (
                -LARGEST if feature.minimum is None else max(feature.minimum, -LARGEST),
                LARGEST if feature.maximum is None else min(feature.maximum, LARGEST),
            )
            for feature in features
        ]
        self._ranges = [(feature.low, feature.high) for feature in features]
        self._minima = np.array([minimum for minimum, _ in self._checks], dtype=np.float32)
        self._maxima = np.array([maximum for _, maximum in self._checks], dtype=np.float32)

    def row(self, sample: Mapping[str, object] | Sequence[object]) -> list[float]:
        """Return the sample as a row of finite floats in the order of the features.

        Args:
            sample: values by feature key, or in the order of the features. Text is read as a person types it.

        Raises:
            InvalidSample: with one error for each feature that is missing, wrong or unknown.
        """
        row: list[float] = []
        # A good sample is read in one pass; only a bad one is looked at again, for all of its errors.
        if len(sample) == len(self._checks):
            try:
                values = [sample[key] for key in self.keys] if isinstance(sample, Mapping) else sample
                for value, (minimum, maximum) in zip(values, self._checks, strict=True):
                    number = value if type(value) is float else number_of(value)
                    if not minimum <= number <= maximum:
                        break
                    row.append(number)
            except (KeyError, NotANumber):
                pass
        if len(row) != len(self._checks):
            if isinstance(sample, Mapping):
                raise InvalidSample(self._errors(sample))
            raise InvalidSample(self._errors(self._by_position(sample), n_values=len(sample)))
        return row

    def accepts(self, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell for each of many rows whether all its numbers are finite and within the limits.

        Shape (n, n_features) in, (n,) out. The limits are compared in the precision of the rows.
        """
        inside = (rows >= self._minima) & (rows <= self._maxima)
        return np.asarray(inside.all(axis=1))

    def accepts_all(self, rows: NDArray[np.float64]) -> bool:
        """Tell whether every row, shape (n, n_features), has finite numbers within the limits and nothing else."""
        minima, maxima = zip(*self._checks, strict=True)
        return bool(np.all(rows >= minima) and np.all(rows <= maxima))

    def notes(self, row: Sequence[float]) -> tuple[Note, ...]:
        """Return a note for each value outside the range of the training rows; mostly there is none."""
        for value, (low, high) in zip(row, self._ranges, strict=True):
            if not low <= value <= high:
                break
        else:
            return ()
        return tuple(
            Note(feature.key, "outside_training_range", _outside(feature))
            for value, feature in zip(row, self.features, strict=True)
            if not feature.low <= value <= feature.high
        )

    def _by_position(self, sample: Sequence[object]) -> dict[str, object]:
        names = [*self.keys, *(self._name_of(index) for index in range(len(self.keys), len(sample)))]
        return dict(zip(names, sample, strict=False))

    def _name_of(self, index: int) -> str:
        # A space in front where a feature has that very name.
        return f" [{index}]" if f"[{index}]" in self.keys else f"[{index}]"

    def _errors(self, sample: Mapping[str, object], *, n_values: int = 0) -> list[FieldError]:
        """Return what is wrong with a sample; `n_values` is how many a sample without keys has."""
        errors = []
        for feature in self.features:
            if feature.key not in sample:
                errors.append(FieldError(feature.key, "missing", f"{feature.title} is missing"))
                continue
            error = _error(feature, sample[feature.key])
            if error:
                errors.append(error)
        known = set(self.keys)
        unknown = (key for key in sample if key not in known)
        for key in itertools.islice(unknown, max(0, MAX_ERRORS - len(errors))):
            shown = _shown(key)
            known_as = f"{shown!r} is not a feature of this model"
            surplus = f"a sample has {len(self.keys)} values, not {n_values}"
            errors.append(FieldError(shown, "unknown_feature", surplus if n_values else known_as))
        return errors


class NotANumber(ValueError):
    """A value is not a number. `code` tells how: `missing`, `not_a_number` or `not_finite`."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code: Code = code


def number_of(value: object) -> float:
    """Return the number in a JSON value or in text as a person types it; it may be infinite.

    Raises:
        NotANumber: it is empty or None (`missing`), or something else than a number (`not_a_number`).
    """
    kind = type(value)
    if kind is float:
        return value  # type: ignore[return-value]  # `kind` says so
    if kind is int:
        try:
            return float(value)  # type: ignore[arg-type]  # `kind` says so
        except OverflowError:
            return math.inf
    if kind is not str:
        raise NotANumber("missing" if value is None else "not_a_number")
    text: str = value.strip()  # type: ignore[attr-defined]  # `kind` says so
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise NotANumber("not_a_number")
    if text.isascii() and text.replace(".", "", 1).isdecimal():
        return float(text)  # by far the most frequent kind, told apart without the pattern
    if not text:
        raise NotANumber("missing")
    text = text.replace(_MINUS_SIGN, "-")
    if not _NUMBER.fullmatch(text):
        raise NotANumber("not_a_number")
    return float(text.replace(",", "."))


def is_number(text: str) -> bool:
    """Tell whether text is a number as a person types it, be it infinite."""
    try:
        number_of(text)
    except NotANumber:
        return False
    return True


def is_half_typed(text: object) -> bool:
    """Tell whether text is the beginning of a number, such as "", "-", "." or "1e", rather than a mistake."""
    if not isinstance(text, str) or len(text.strip()) > MAX_NUMBER_CHARACTERS:
        return False
    return _HALF_TYPED.fullmatch(text.strip().replace(_MINUS_SIGN, "-")) is not None


def shown_number(value: float) -> str:
    """Return a number as a person writes it: 5 rather than 5.0, never more digits than needed."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)


def _error(feature: TrainedFeature, value: object) -> FieldError | None:
    title = feature.title
    try:
        number = number_of(value)
    except NotANumber as error:
        if error.code == "missing":
            return FieldError(feature.key, "missing", f"{title} is missing")
        if isinstance(value, str | bool):
            return FieldError(feature.key, "not_a_number", f"{title}: {_shown(value)!r} is not a number", _plain(value))
        kind = "an object" if isinstance(value, Mapping) else "a list"
        return FieldError(feature.key, "not_a_number", f"{title} must be a number, not {kind}")
    if not -LARGEST <= number <= LARGEST:
        wrong = "is not a number" if math.isnan(number) else "is too large for a 32-bit float"
        return FieldError(feature.key, "not_finite", f"{title} {wrong}", _plain(value))
    minimum, maximum = feature.minimum, feature.maximum
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        message = f"{title} must be {_bounds(feature)}, not {_shown(value)}"
        return FieldError(feature.key, "out_of_bounds", message, _plain(value))
    return None


def _bounds(feature: TrainedFeature) -> str:
    unit = f" {feature.unit}" if feature.unit else ""
    if feature.minimum is None:
        return f"{shown_number(feature.maximum or 0.0)}{unit} or less"
    if feature.maximum is None:
        return f"{shown_number(feature.minimum)}{unit} or more"
    return f"between {shown_number(feature.minimum)} and {shown_number(feature.maximum)}{unit}"


def _outside(feature: TrainedFeature) -> str:
    unit = f" {feature.unit}" if feature.unit else ""
    return (
        f"{feature.title} is outside the training range of "
        f"{shown_number(feature.low)} to {shown_number(feature.high)}{unit}"
    )


def _plain(value: object) -> str | float | bool | None:
    """Return a value that can be echoed as JSON; long text is cut, and what is not finite goes as text."""
    if isinstance(value, str):
        return _shown(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, float | int):
        number = number_of(value)
        return number if math.isfinite(number) else str(number)
    return None


def _shown(value: object) -> str:
    # str() of an int of more than 4,300 digits raises; repr of what float() makes of it does not.
    text = value if isinstance(value, str) else repr(number_of(value)) if type(value) is int else str(value)
    return text if len(text) <= MAX_NUMBER_CHARACTERS else text[:MAX_NUMBER_CHARACTERS] + "…"
