"""A sample becomes a row, or errors feature by feature: the one validator of every channel.

Values are typed text (form, query, CSV, command line) or JSON values. Knows nothing of their origin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import MLError
from ml.model.card import TrainedFeature
from ml.tables.numbers import LARGEST, MAX_NUMBER_CHARACTERS, NotANumber, NotANumberCode, number_of, shown_number

Code = NotANumberCode | Literal["out_of_bounds", "unknown_feature"]

MAX_ERRORS = 100


class FieldError(msgspec.Struct, frozen=True):
    """An error in one value. `feature` is its key; `value` the invalid value, if it is short and plain."""

    feature: str
    code: Code
    message: str
    value: str | float | bool | None = None


class Note(msgspec.Struct, frozen=True):
    """A note about a valid value: `outside_training_range`."""

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
        # A valid sample is read in one pass; an invalid one is read again to find all of its errors.
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
        """Return for each of many rows whether all its numbers are finite and within the limits.

        Shape (n, n_features) in, (n,) out. The limits are compared in the precision of the rows.
        """
        inside = (rows >= self._minima) & (rows <= self._maxima)
        return np.asarray(inside.all(axis=1))

    def accepts_all(self, rows: NDArray[np.float64]) -> bool:
        """Return whether all numbers of rows, shape (n, n_features), are finite and within the limits."""
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
        """Return the errors of a sample; `n_values` is the number of values of a sample without keys."""
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
