"""Tables of a session: a DataFrame of pandas or polars, or an array, without importing either library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError


@dataclass(frozen=True)
class Frame:
    """The columns of a table, and the table itself, of whose kind others are made.

    Attributes:
        names: of the columns; none of an array.
        columns: one array a column: of numbers, of booleans, or of objects.
    """

    given: Any
    names: tuple[Any, ...]
    columns: tuple[NDArray[Any], ...]

    def take(self, places: Sequence[int]) -> Frame:
        """Return the table with these columns, in this order."""
        if [*places] == [*range(len(self.columns))]:
            return self
        names = tuple(self.names[place] for place in places) if self.names else ()
        columns = tuple(self.columns[place] for place in places)
        given = self.given[[*names]] if names else np.asarray(self.given)[:, places]
        return replace(self, given=given, names=names, columns=columns)

    def filled(self, columns: Sequence[NDArray[Any]]) -> Any:
        """Return a table of the same kind with other columns."""
        if not self.names:
            stacked = np.empty((len(columns[0]), len(columns)), dtype=np.result_type(*columns))
            for place, column in enumerate(columns):
                stacked[:, place] = column
            return stacked
        table = type(self.given)(dict(zip(self.names, columns, strict=True)))
        # Categories of pandas keep their type.
        kinds = getattr(self.given, "dtypes", ())
        kinds = {name: kind for name, kind in zip(self.names, kinds, strict=False) if hasattr(kind, "categories")}
        return table.astype(kinds) if kinds and hasattr(table, "astype") else table


def frame_of(name: str, table: Any) -> Frame:
    """Return the columns of a table, which is called `name` in messages.

    Raises:
        TableError: it is sparse, or no table.
    """
    if hasattr(table, "toarray"):
        raise TableError(f"{name} is a sparse matrix: give its rows as a table, {name}.toarray()")
    if is_frame(table):
        n_columns = table.shape[1]
        one = table.iloc if hasattr(table, "iloc") else table
        return Frame(table, tuple(table.columns), tuple(_plain(one[:, place]) for place in range(n_columns)))
    if table is None or isinstance(table, str | bytes | Mapping | PathLike):
        kind = "None" if table is None else f"a {type(table).__name__}"
        way_out = f"pandas.DataFrame({name}) would work" if isinstance(table, Mapping) else "rows are needed"
        raise TableError(f"{name} is {kind}, and no table: {way_out}")
    try:
        rows = np.asarray(table)
    except ValueError:
        rows = np.empty(0)
    if rows.ndim != 2 or not rows.size:
        if isinstance(table, list) and table and isinstance(table[0], Mapping):
            raise TableError(f"{name} is a list of objects, and no table: pandas.DataFrame({name}) would work")
        shape = getattr(table, "shape", None) or rows.shape
        raise TableError(f"{name} has the shape {shape}: it must be a table of rows and columns, with rows")
    return Frame(rows, (), tuple(_plain(column) for column in rows.T))


def is_frame(table: Any) -> bool:
    """Return whether a table is a DataFrame."""
    return hasattr(table, "columns") and hasattr(table, "to_numpy")


def _plain(column: Any) -> NDArray[Any]:
    """Return a column as numbers, booleans or objects: numbers if all of its values are, but for gaps."""
    values = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
    if values.dtype.kind in "biuf":
        return np.asarray(values)
    values = values.astype(object)
    present = [value for value in values.tolist() if not is_gap(value)]
    if present and all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in present):
        return np.array([np.nan if is_gap(value) else float(value) for value in values.tolist()])
    return np.asarray(values)


def is_gap(value: Any) -> bool:
    """Return whether a value stands for none: None, NaN, or the NA and NaT of pandas."""
    # A comparison with pandas' NA is neither true nor false.
    return value is None or type(value).__name__ == "NAType" or value != value  # noqa: PLR0124  # NaN alone
