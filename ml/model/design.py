"""The columns that an estimator sees, each made of one feature by the steps of a pipeline.

Every operation is the library's own, in its order and in float64, so that a column has the library's bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError
from ml.model.forest import FIRST_CHOICE_CELL, NO_VALUE_CELL
from ml.tables.dataset import MAX_CHOICES, UNKNOWN, Feature

Values = NDArray[np.float64]
Function = Literal["log", "log1p", "log2", "log10", "sqrt", "exp", "expm1"]
FUNCTIONS: dict[str, np.ufunc] = {
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "expm1": np.expm1,
}
OF_A_NUMBER: dict[str, np.ufunc] = {
    "subtract": np.subtract,
    "divide": np.divide,
    "multiply": np.multiply,
    "add": np.add,
    "at_least": np.maximum,
    "at_most": np.minimum,
    "equals": np.equal,
    "above": np.greater,
}
MAX_OPERATIONS = 100
MAX_EDGES = 1_000


class Operation(msgspec.Struct, frozen=True):
    """One operation on the values of a column.

    `fill` replaces no value; `bin` counts the edges at or below a value; `equals` and `above` are 1 where a value is so
    and else 0; `at_least` and `at_most` bound it; a function has NumPy's name and no numbers.
    """

    name: (
        Function
        | Literal["subtract", "divide", "multiply", "add", "at_least", "at_most", "equals", "above", "bin", "fill"]
    )
    numbers: tuple[float, ...] = ()

    def __call__(self, values: Values) -> Values:
        """Return the result for each value; no value stays none."""
        if self.name in FUNCTIONS:
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                return np.asarray(FUNCTIONS[self.name](values), dtype=np.float64)
        if self.name == "bin":
            return np.searchsorted(np.array(self.numbers), values, side="right").astype(np.float64)
        return _by_number(self.name, values, self.numbers[0])

    @property
    def is_possible(self) -> bool:
        """Whether a file may hold it: as many finite numbers as it needs, and edges in ascending order."""
        if self.name == "bin":
            return len(self.numbers) <= MAX_EDGES and list(self.numbers) == sorted(self.numbers)
        needed = 0 if self.name in FUNCTIONS else 1
        return len(self.numbers) == needed and all(map(math.isfinite, self.numbers))


class DesignColumn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column that an estimator sees, made of one feature.

    Attributes:
        feature: its position among the features.
        table: of a category, the value of each of its cells; None is no value.
        is_missing: the column is 1 where the feature has no value, and else 0.
        operations: on what this gives, one after the other.
    """

    feature: int
    table: tuple[float | None, ...] = ()
    is_missing: bool = False
    operations: tuple[Operation, ...] = ()

    def values(self, column: Values) -> Values:
        """Return the column's value for each value of the feature, as it is in a row; same shape."""
        values = column
        if self.table:
            values = np.array(self.table, dtype=np.float64)[cells_of(column)]
        elif self.is_missing:
            values = np.isnan(column).astype(np.float64)
        for operation in self.operations:
            values = operation(values)
        return values

    @property
    def is_feature(self) -> bool:
        """Whether the column is the feature itself."""
        return self == DesignColumn(feature=self.feature)

    def check(self, features: Sequence[Feature]) -> None:
        """Refuse a column that no model can have.

        Raises:
            ModelFileError: names what is wrong.
        """
        if not 0 <= self.feature < len(features):
            raise ModelFileError("a column is made of a feature that the model does not have")
        choices = features[self.feature].choices
        if len(self.table) != (FIRST_CHOICE_CELL + len(choices) if choices else 0):
            raise ModelFileError(f"a column of feature {features[self.feature].key!r} has not a value for each choice")
        numbers = [number for number in self.table if number is not None]
        if not all(map(math.isfinite, numbers)) or len(self.operations) > MAX_OPERATIONS:
            raise ModelFileError("a column has a number that is not finite, or too many operations")
        if not all(operation.is_possible for operation in self.operations):
            raise ModelFileError("an operation of a column has numbers that it cannot have")


def _by_number(name: str, values: Values, numbers: Values | float) -> Values:
    if name == "fill":
        return np.where(np.isnan(values), numbers, values)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.asarray(OF_A_NUMBER[name](values, numbers), dtype=np.float64)


def cells_of(column: Values) -> NDArray[np.intp]:
    """Return the cell of each value of a category, as it is in a row."""
    cells = np.where(np.isnan(column), NO_VALUE_CELL - FIRST_CHOICE_CELL, column) + FIRST_CHOICE_CELL
    return np.asarray(np.maximum(cells, NO_VALUE_CELL), dtype=np.intp)


def cell_values(n_choices: int) -> Values:
    """Return what a row has for each cell of a category: no value, a word not among the choices, each choice."""
    return np.array([np.nan, UNKNOWN, *range(min(n_choices, MAX_CHOICES))])


class Design:
    """Makes the columns of rows, those with the same operations at once.

    Args:
        columns: in the order in which the estimator sees them.
    """

    def __init__(self, columns: Sequence[DesignColumn]) -> None:
        self._n_columns = len(columns)
        groups: dict[Any, list[int]] = {}
        for place, column in enumerate(columns):
            groups.setdefault(_kind(column, place), []).append(place)
        self._groups = [(np.array(places), _maker([columns[place] for place in places])) for places in groups.values()]

    def matrix(self, rows: Values) -> Values:
        """Return the columns, shape (n, n_columns), of rows, shape (n, n_features)."""
        matrix = np.empty((len(rows), self._n_columns))
        for places, make in self._groups:
            matrix[:, places] = make(rows)
        return matrix


def _kind(column: DesignColumn, place: int) -> Any:
    """Return what the columns of a group have in common; a column with edges is alone."""
    names = tuple(operation.name for operation in column.operations)
    alone = place if "bin" in names else -1
    return bool(column.table), column.is_missing, names, alone


def _maker(columns: Sequence[DesignColumn]) -> Callable[[Values], Values]:
    """Return what makes the columns of one group, shape (n, n_group), of rows."""
    first, features = columns[0], np.array([column.feature for column in columns])
    tables = np.full((len(columns), FIRST_CHOICE_CELL + MAX_CHOICES if first.table else 0), np.nan)
    for line, column in zip(tables, columns, strict=True):
        line[: len(column.table)] = [np.nan if value is None else value for value in column.table]
    order = np.arange(len(columns))
    steps = [
        (first.operations[at], np.array([column.operations[at].numbers for column in columns])[:, :1].T)
        for at in range(len(first.operations))
    ]

    def make(rows: Values) -> Values:
        values = rows[:, features]
        if first.table:
            values = tables[order, cells_of(values)]
        elif first.is_missing:
            values = np.isnan(values).astype(np.float64)
        for operation, numbers in steps:
            is_alike = operation.name in FUNCTIONS or operation.name == "bin"
            values = operation(values) if is_alike else _by_number(operation.name, values, numbers)
        return values

    return make
