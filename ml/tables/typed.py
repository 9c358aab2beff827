"""A column whose values have types, of Arrow or NumPy: numbers, or different values and which row has which.

Knows no features. It imports pyarrow where it is given a column of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError, in_quotes
from ml.tables.columns import text_of
from ml.tables.numbers import number_of

# Those that JSON has.
PLAIN_TYPES = (str, float, int, bool, NoneType)


@dataclass(frozen=True)
class TypedColumn:
    """The values of a column: all of them numbers, or any different values and which row has which.

    Attributes:
        numbers: shape (n,), float64, NaN for no value; None for a column of other values.
        values: the different values: text, booleans, numbers, or None for no value.
        codes: shape (n,), intp: the place of each row's value among them; None for a column of numbers.
    """

    numbers: NDArray[np.float64] | None = None
    values: Sequence[object] = ()
    codes: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.different()[1] if self.numbers is None else self.numbers)

    def different(self) -> tuple[Sequence[object], NDArray[np.intp]]:
        """Return the different values, and the place of each row's value among them."""
        if self.codes is not None:
            return self.values, self.codes
        assert self.numbers is not None  # a column has one of both
        numbers, codes = np.unique(self.numbers, return_inverse=True)
        return [_number_or_none(number) for number in numbers.tolist()], codes

    def at(self, row: int) -> object:
        """Return the value of a row; None for no value."""
        if self.numbers is not None:
            return _number_or_none(self.numbers[row].item())
        values, codes = self.different()
        return values[codes[row]]


def _number_or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def typed_array(values: object, name: str) -> TypedColumn:
    """Return a column of an array or list.

    Args:
        values: shape (n,): numbers, text, booleans; None and NaN are no value.
        name: of the column.

    Raises:
        TableError: it has another shape, or values that cannot be those of cells.
    """
    array = values if isinstance(values, np.ndarray) else _array_of(values, name)
    if array.ndim != 1:
        raise TableError(f"column {in_quotes(name)} has the shape {array.shape}, not (n,)")
    if isinstance(array, np.ma.MaskedArray):
        array = np.ma.filled(array.astype(object), None)
    if array.dtype.kind in "iuf":
        return TypedColumn(array.astype(np.float64))
    if array.dtype.kind == "M":
        array = array.astype("M8[us]")  # Python's own have no nanoseconds
    items = array.tolist()
    kinds = set(map(type, items))
    if kinds <= {float, int, type(None)}:
        numbers = [math.nan if item is None else number_of(item) for item in items]
        return TypedColumn(np.array(numbers, dtype=np.float64))
    return _coded(items, name)


def _array_of(values: object, name: str) -> NDArray[Any]:
    if hasattr(values, "__array__"):
        return np.asarray(values)
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise TableError(f"column {in_quotes(name)} is no array, but of type {type(values).__name__}")
    return np.fromiter(values, dtype=object, count=len(values))


def _coded(items: Iterable[object], name: str) -> TypedColumn:
    places: dict[object, int] = {}
    values: list[object] = []
    codes = []
    for item in items:
        # True, 1 and 1.0 are one key.
        key = item if type(item) is str else (type(item), item)
        try:
            place = places.setdefault(key, len(places))
        except TypeError as error:
            raise _unusable(name, type(item).__name__) from error
        if place == len(values):
            values.append(_value_of(item, name))
        codes.append(place)
    return TypedColumn(values=values, codes=np.array(codes, dtype=np.intp))


def _value_of(item: object, name: str) -> object:
    value = plain_value(item)
    if type(value) in PLAIN_TYPES:
        return value
    raise _unusable(name, type(item).__name__)


def plain_sample(sample: Any) -> Mapping[str, object] | Sequence[object]:
    """Return a sample of a program as JSON has it; a row of pandas goes by the names of its columns."""
    if isinstance(sample, str):
        return sample
    if not hasattr(sample, "items"):
        return [plain_value(value) for value in sample]
    named = {name: plain_value(value) for name, value in sample.items()}
    return named if isinstance(sample, Mapping) or all(isinstance(name, str) for name in named) else [*named.values()]


def plain_value(item: Any) -> object:
    """Return a value of a program as JSON has it; as it is if it is no number, boolean, text, date, or no value."""
    if item is np.ma.masked or type(item).__name__ in ("NAType", "NaTType"):  # pandas' NaT is a date besides
        return None
    if isinstance(item, np.generic | np.ndarray) and item.shape == ():
        item = item.item()
    match item:
        case str():
            return str.__str__(item)
        case int():
            return item if type(item) is bool else int(item)
        case float() | np.floating() | Decimal():
            return None if math.isnan(item) else float(item)
        case date() | time():
            return text_of(item)
    return item


def typed_arrow(array: Any, name: str) -> TypedColumn:
    """Return a column of an array of pyarrow.

    Raises:
        TableError: its type cannot be that of cells.
    """
    import pyarrow
    from pyarrow import types

    kind = array.type
    if types.is_integer(kind) or types.is_floating(kind):
        numbers = array.to_numpy(zero_copy_only=False)
        return TypedColumn(numbers.astype(np.float64, copy=False))
    if str(kind) == "string_view":
        array = array.cast(pyarrow.large_string())
    if types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind):
        array = array.dictionary_encode()
    if types.is_timestamp(kind) or types.is_time64(kind):
        # Python's own have no nanoseconds.
        array = array.cast(
            pyarrow.timestamp("us", kind.tz) if types.is_timestamp(kind) else pyarrow.time64("us"), safe=False
        )
    if not types.is_dictionary(array.type):
        if kind.num_fields or "binary" in str(kind):
            raise _unusable(name, kind)
        return _coded(array.to_pylist(), name)
    values = [_value_of(item, name) for item in array.dictionary.to_pylist()]
    codes = array.indices.fill_null(len(values)) if array.indices.null_count else array.indices
    return TypedColumn(values=[*values, None], codes=codes.to_numpy(zero_copy_only=False).astype(np.intp))


def _unusable(name: str, kind: object) -> TableError:
    return TableError(f"column {in_quotes(name)} is of type {kind}, which is no value of a cell")
