"""A sample becomes a row, or errors feature by feature: the one validator of every channel.

Values are typed text (form, query, command line) or JSON values. Knows nothing of their origin.
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
from ml.model.values import Reader, Repeated, no_value_text, reader_of, short
from ml.tables.dataset import UNKNOWN
from ml.tables.numbers import LARGEST, NotANumber, NotANumberCode, marks_said, number_of, shown_number

Code = NotANumberCode | Literal["not_a_choice", "out_of_bounds", "unknown_feature", "named_twice"]
NoteCode = Literal["outside_training_range", "unknown_choice"]

MAX_ERRORS = 100
# Of the errors of a sample so many are named in one line.
MAX_MESSAGES = 3


class FieldError(msgspec.Struct, frozen=True):
    """An error in one value. `feature` is its key; `value` the invalid value, if it is short and plain."""

    feature: str
    code: Code
    message: str
    value: str | float | bool | None = None


class Note(msgspec.Struct, frozen=True):
    """A note about a valid value: `outside_training_range` or `unknown_choice`."""

    feature: str
    code: NoteCode
    message: str


class InvalidSample(MLError):
    """The sample has errors.

    Attributes:
        errors: at most `MAX_ERRORS` of them, in the order of the features, unknown features last.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(summary_of(errors))
        self.errors = tuple(errors[:MAX_ERRORS])


def summary_of(errors: Sequence[FieldError]) -> str:
    """Return errors as one line: the messages of the first of them, and how many more there are."""
    messages = [*dict.fromkeys(error.message for error in errors)]
    if len(messages) <= MAX_MESSAGES:
        return "; ".join(messages)
    # Beyond the limit, not all errors are listed.
    others = "more" if len(errors) >= MAX_ERRORS else f"{len(messages) - MAX_MESSAGES} more"
    return "; ".join([*messages[:MAX_MESSAGES], f"and {others}"])


class Validator:
    """Turns samples into rows for the features of one model."""

    def __init__(self, features: Sequence[TrainedFeature]) -> None:
        self.features = tuple(features)
        self.keys = tuple(feature.key for feature in features)
        known = set(self.keys)
        self._key_of = {feature.header: feature.key for feature in features if feature.header not in known}
        self._key_of.pop("", None)
        self._readers = [reader_of(feature) for feature in features]
        limits = [
            (
                0.0 if feature.is_closed else -LARGEST if feature.minimum is None else max(feature.minimum, -LARGEST),
                LARGEST if feature.maximum is None else min(feature.maximum, LARGEST),
            )
            for feature in features
        ]
        # Below the positions of all choices are the words that are none of them.
        ranges = [(0.0, math.inf) if feature.choices else feature.training_range for feature in features]
        self._columns = [
            (*_quick(feature, read), *span, *limit)
            for feature, read, span, limit in zip(features, self._readers, ranges, limits, strict=True)
        ]
        self._training_range = np.array(ranges).T
        minima, maxima = zip(*limits, strict=True)
        self._double = np.array(minima), np.array(maxima)
        self._single = self._double[0].astype(np.float32), self._double[1].astype(np.float32)
        self._may_lack = np.array([bool(f.has_gaps or (f.choices and not f.is_closed)) for f in features])
        self._some_may_lack = bool(self._may_lack.any())

    def row(self, sample: Mapping[str, object] | Sequence[object]) -> list[float]:
        """Return the sample as a row; see `read`."""
        return self.read(sample)[0]

    def read(self, sample: Mapping[str, object] | Sequence[object]) -> tuple[list[float], bool]:
        """Return the sample as a row in the order of the features, and whether there may be notes about it.

        A number is a finite float; a category is the position of its choice, or an `UnknownWord`; no value, where the
        feature may lack it, is NaN.

        Args:
            sample: values by the features' keys or headers, or in their order. Text is read as a person types it.

        Raises:
            InvalidSample: with one error for each feature that is missing, wrong or unknown.
        """
        row: list[float] = []
        may_have_notes = False
        # A valid sample is read in one pass; any other is read again to find all of its errors, or a unit in its text.
        if len(sample) == len(self._columns):
            try:
                values = [sample[key] for key in self.keys] if isinstance(sample, Mapping) else sample
                for value, (plain, read, low, high, minimum, maximum) in zip(values, self._columns, strict=True):
                    number = value if type(value) is plain else read(value)
                    if not low <= number <= high:
                        if not minimum <= number <= maximum and not (math.isnan(number) and self._may_lack[len(row)]):
                            break
                        may_have_notes = True
                    row.append(number)
            except (KeyError, NotANumber):
                pass
        return (row, may_have_notes) if len(row) == len(self._columns) else (self._read_again(sample), True)

    def _read_again(self, sample: Mapping[str, object] | Sequence[object]) -> list[float]:
        if not isinstance(sample, Mapping):
            by_key: Mapping[str, object] = self._by_position(sample)
            errors = self._errors(by_key, n_values=len(sample))
        else:
            by_key, twice = self._by_key(sample)
            if by_key is not sample and not twice:
                return self.row(by_key)
            errors = [*self._errors(by_key), *twice]
        if errors:
            raise InvalidSample(errors)
        return [read(by_key[key]) for read, key in zip(self._readers, self.keys, strict=True)]

    def accepts(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for each of many rows whether all its values are possible ones.

        Shape (n, n_features) in, (n,) out. The limits are compared in the precision of the rows.
        """
        minima, maxima = self._single if rows.itemsize == 4 else self._double
        inside = (rows >= minima) & (rows <= maxima)
        if self._some_may_lack:
            inside |= np.isnan(rows) & self._may_lack
        return np.asarray(inside.all(axis=1))

    def accepts_all(self, rows: NDArray[np.float64]) -> bool:
        """Return whether all values of rows, shape (n, n_features), are possible ones."""
        return bool(self.accepts(rows).all())

    def notes(self, row: Sequence[float]) -> tuple[Note, ...]:
        """Return a note for each value outside the range of the training rows; mostly there is none."""
        for value, (_, _, low, high, _, _) in zip(row, self._columns, strict=True):
            if not low <= value <= high:
                break
        else:
            return ()
        return tuple(
            note for value, feature in zip(row, self.features, strict=True) if (note := note_of(feature, value))
        )

    def outside(self, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for each value of many rows whether there is a note about it; the shape is that of the rows."""
        lows, highs = self._training_range
        return np.asarray((rows < lows) | (rows > highs))

    def _by_key(self, sample: Mapping[str, object]) -> tuple[Mapping[str, object], list[FieldError]]:
        """Return a sample with keys in place of headers, and an error for each feature that has both names in it."""
        if self._key_of.keys().isdisjoint(sample):
            return sample, []
        twice = [key for header, key in self._key_of.items() if header in sample and key in sample]
        by_key = {self._key_of.get(name, name): value for name, value in sample.items()}
        titles = {feature.key: feature.title for feature in self.features}
        message = "is given twice, by its key and by its header"
        return by_key, [FieldError(key, "named_twice", f"{titles[key]} {message}") for key in twice]

    def _by_position(self, sample: Sequence[object]) -> dict[str, object]:
        names = [*self.keys, *(self._name_of(index) for index in range(len(self.keys), len(sample)))]
        return dict(zip(names, sample, strict=False))

    def _name_of(self, index: int) -> str:
        # A space in front where a feature has that very name.
        return f" [{index}]" if f"[{index}]" in self.keys else f"[{index}]"

    def _errors(self, sample: Mapping[str, object], *, n_values: int = 0) -> list[FieldError]:
        """Return the errors of a sample; `n_values` is the number of values of a sample without keys."""
        errors = []
        for feature, read in zip(self.features, self._readers, strict=True):
            if feature.key not in sample:
                errors.append(FieldError(feature.key, "missing", f"{feature.title} is missing"))
                continue
            error = _error(feature, read, sample[feature.key])
            if error:
                errors.append(error)
        known, by_title = set(self.keys), {feature.title.casefold(): feature.key for feature in self.features}
        unknown = (key for key in sample if key not in known)
        for key in itertools.islice(unknown, max(0, MAX_ERRORS - len(errors))):
            shown = short(key)
            name = by_title.get(key.casefold())
            known_as = f"{shown!r} is not a feature of this model{f': it is called {name!r} here' if name else ''}"
            surplus = f"a sample has {len(self.keys)} values, not {n_values}"
            errors.append(FieldError(shown, "unknown_feature", surplus if n_values else known_as))
        return errors


def _quick(feature: TrainedFeature, read: Reader) -> tuple[type[float] | None, Reader]:
    """Return the type of the values that stand in a row as they are, and what reads most of the others."""
    if feature.choices:
        return None, read
    return float, read if feature.has_gaps or feature.thousands else number_of


def _error(feature: TrainedFeature, read: Reader, value: object) -> FieldError | None:
    title = feature.title
    try:
        number = read(value)
    except NotANumber as error:
        return _unread(feature, value, error.code)
    if feature.choices or (feature.has_gaps and math.isnan(number)):
        return None
    if not -LARGEST <= number <= LARGEST:
        wrong = "is not a number" if math.isnan(number) else "is too large for a 32-bit float"
        return FieldError(feature.key, "not_finite", f"{title} {wrong}", _plain(value))
    minimum, maximum = feature.minimum, feature.maximum
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        message = f"{title} must be {_bounds(feature)}, not {short(value)}"
        return FieldError(feature.key, "out_of_bounds", message, _plain(value))
    return None


def _unread(feature: TrainedFeature, value: object, found: NotANumberCode) -> FieldError:
    """Return the error of a value that cannot stand in a row."""
    title = feature.title
    if type(value) is Repeated:
        return FieldError(feature.key, "named_twice", f"{title} is given twice", _plain(value))
    if found == "missing":
        way_out = f"; {no_value_text(feature)} says that it has no value" if feature.has_gaps else ""
        return FieldError(feature.key, "missing", f"{title} is missing{way_out}")
    what = "one of the choices" if feature.choices else "a number"
    if found == "not_finite":
        return FieldError(feature.key, found, f"{title}: a number beyond all others is not {what}", _plain(value))
    code: Code = "not_a_choice" if feature.choices else found
    if isinstance(value, bool):
        return FieldError(feature.key, code, f"{title}: {short(value)} is not {what}", value)
    if isinstance(value, str | int | float):
        text = value if isinstance(value, str) else shown_number(number_of(value))
        marks = "" if feature.choices else marks_said(text, decimal=feature.decimal, thousands=feature.thousands)
        return FieldError(feature.key, code, f"{title}: {short(text)!r} is not {what}{marks}", _plain(value))
    in_json = "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else ""
    kind = in_json or f"of the type {type(value).__name__}"
    return FieldError(feature.key, code, f"{title} must be {what}, not {kind}")


def note_of(feature: TrainedFeature, value: float) -> Note | None:
    """Return the note about a value of a row, if there is one."""
    if feature.choices:
        if value != UNKNOWN:
            return None
        word = getattr(value, "word", "this word")
        return Note(feature.key, "unknown_choice", f"{feature.title}: {word!r} was not seen in training")
    low, high = feature.training_range
    if low <= value <= high or math.isnan(value):
        return None
    return Note(feature.key, "outside_training_range", _outside(feature))


def _bounds(feature: TrainedFeature) -> str:
    unit = f" {feature.unit}" if feature.unit else ""
    if feature.minimum is None:
        return f"{shown_number(feature.maximum or 0.0)}{unit} or less"
    if feature.maximum is None:
        return f"{shown_number(feature.minimum)}{unit} or more"
    return f"between {shown_number(feature.minimum)} and {shown_number(feature.maximum)}{unit}"


def _outside(feature: TrainedFeature) -> str:
    low, high, unit = shown_number(feature.low), shown_number(feature.high), f" {feature.unit}" if feature.unit else ""
    return f"{feature.title} is outside the training range of {low} to {high}{unit}"


def _plain(value: object) -> str | float | bool | None:
    """Return a value that can be echoed as JSON; long text is cut, and what is not finite goes as text."""
    if isinstance(value, str):
        return short(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, float | int):
        number = number_of(value)
        return number if math.isfinite(number) else str(number)
    return None
