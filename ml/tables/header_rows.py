"""What the first rows of a table may be: more of its header, a header of another kind, or rows without any header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError, in_quotes
from ml.tables.dataset import Feature
from ml.tables.marks import same_unit, written
from ml.tables.numbers import is_number, number_of
from ml.tables.table import TEXT, Table

# So many rows are read to find what a column holds.
_LOOKED_AT = 1_000
# What stands for no value, in lower case.
_NO_VALUE = {"", "na", "n/a", "nan", "null", "none", "nil", "?", "-", ".", "missing"}
# Orange's header: https://orange3.readthedocs.io/projects/orange-data-mining-library/en/latest/reference/data.io.html
_TYPES = {"c", "continuous", "numeric", "n", "d", "discrete", "categorical", "s", "string", "text", "t", "time"}
_ROLES = re.compile(r"(|i|ignore|class|c|m|meta|w|weight|-.*|\w+=.*)(\s+(i|ignore|class|c|m|meta|\w+=.*))*")
_UNIT_CHARACTERS = 15


@dataclass(frozen=True)
class NamedClasses:
    """The header of the tables that scikit-learn ships: the number of rows and of features, and the classes.

    Attributes:
        names: what its columns are called.
    """

    n_rows: int
    labels: tuple[str, ...]
    names: tuple[str, ...]

    def named(self, table: Table) -> Table:
        """Return a table with the label of each class in place of its index.

        Raises:
            TableError: it has another number of rows, or other classes.
        """
        *columns, classes = table.columns
        if len(classes) != self.n_rows:
            raise TableError(f"line 1 says that there are {self.n_rows} rows, and there are {len(classes)}")
        labels = {str(index): label for index, label in enumerate(self.labels)}
        others = sorted({*map(str, np.unique(classes))} - labels.keys())
        if others:
            raise TableError(f"line 1 names {len(labels)} classes, and a row has the class {in_quotes(others[0])}")
        words = np.array([labels[index] for index in classes.tolist()], dtype=TEXT)
        said = (
            f"line 1 has no names of columns: it says that there are {self.n_rows} rows, {len(columns)} features, and "
            f"the classes {', '.join(self.labels)}"
        )
        return replace(table, columns=(*columns, words), inferred=(said, *table.inferred))


def named_classes(header: Sequence[str], row: Sequence[str]) -> NamedClasses | None:
    """Return what a header says if it is one as scikit-learn ships, by the first row below it."""
    counts, labels = header[:2], tuple(label.strip() for label in header[2:] if label.strip())
    if not all(re.fullmatch("[0-9]{1,9}", count.strip()) for count in counts) or not labels:
        return None
    n_rows, n_features = map(int, counts)
    if n_features != len(row) - 1 or any(map(is_number, labels)) or not all(map(is_number, row)):
        return None
    return NamedClasses(n_rows, labels, (*(f"column_{n + 1}" for n in range(n_features)), "target"))


def without_header_rows(table: Table) -> Table:
    """Return a table without the columns that have neither name nor value, and without further rows of its header.

    Raises:
        TableError: it has no header at all.
    """
    table = _without_blank_columns(table)
    _refuse_missing_header(table)
    return _without_types(table) or _without_units(table) or table


def header_row_of(features: Sequence[Feature], cells: Sequence[str], row: Sequence[str], above: str) -> str:
    """Return what a row of a table to be scored has instead of values: `units`, `types`, `roles`, or nothing.

    Training leaves such rows out by all of the rows below; here one is known by what the model knows.

    Args:
        cells: those of the features, in their order.
        row: all cells.
        above: the row above: `header`, or `types`, below which roles may stand.
    """
    if above == "types":
        return "roles" if any(row) and all(_ROLES.fullmatch(cell.strip().lower()) for cell in row) else ""
    kind = ""
    for feature, cell in zip(features, cells, strict=True):
        text = cell.strip()
        if feature.choices or text.lower() in _NO_VALUE:
            continue
        if feature.unit and same_unit(text.strip("()[]"), feature.unit):
            kind = "units"
        elif text.lower() in _TYPES:
            kind = kind or "types"
        elif len(text) > _UNIT_CHARACTERS or written(text) is not None:
            return ""
    return kind


def _without_blank_columns(table: Table) -> Table:
    kept = [
        index
        for index, (name, column) in enumerate(zip(table.header, table.columns, strict=True))
        if name or np.any(column != "")
    ]
    left_out = len(table.header) - len(kept)
    if not left_out:
        return table
    return replace(
        table,
        header=tuple(table.header[index] for index in kept),
        columns=tuple(table.columns[index] for index in kept),
        inferred=(*table.inferred, f"columns without name and value left out: {left_out}"),
    )


def _refuse_missing_header(table: Table) -> None:
    """Refuse a table whose header looks like one of its rows."""
    names = [name for name in table.header if name]
    is_row = [_is_value(name, column) for name, column in zip(table.header, table.columns, strict=True)]
    last = table.columns[-1] == table.header[-1]
    repeated = np.flatnonzero(last)[:1]
    if len(repeated) and [column[repeated[0]] for column in table.columns] == list(table.header):
        raise TableError(f"line {table.lines[repeated[0]]} is the header once more: remove it")
    if len(names) > 1 and all(map(is_number, names)) and not _are_counted(names):
        why = "all its names are numbers"
    elif sum(is_row) >= len(is_row) * 3 / 4:
        why = f"most of its names look like values of their columns, as {in_quotes(table.header[is_row.index(True)])}"
    else:
        return
    raise TableError(
        f"the header looks like the first row: {why}",
        remedies=[("this would work, with names that are made up", ("--no-header",))],
    )


def _are_counted(names: Sequence[str]) -> bool:
    """Tell whether names are whole numbers one after the other, as pandas names columns that have no names."""
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        return False
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _is_value(name: str, column: NDArray[Any]) -> bool:
    """Tell whether the name of a column may as well be one of its values."""
    if not is_number(name):
        return name != "" and bool(np.any(column == name))
    cells = _values(column)
    if not cells or not all(map(is_number, cells)):
        return False
    numbers = [number_of(cell) for cell in cells]
    return min(numbers) <= number_of(name) <= max(numbers)


def _values(column: NDArray[Any]) -> list[str]:
    return [cell for cell in column[:_LOOKED_AT].tolist() if cell.lower() not in _NO_VALUE]


def _without_types(table: Table) -> Table | None:
    """Return a table without Orange's two rows of types and roles, or None if it has none."""
    if len(table.lines) < 3:
        return None
    types, roles = ([str(column[row]) for column in table.columns] for row in (0, 1))
    kinds = {kind.lower() for kind in types} - {""}
    # A category may list its values instead.
    if not kinds & _TYPES or not all(kind in _TYPES or " " in kind for kind in kinds):
        return None
    if any(roles) and all(_ROLES.fullmatch(role.lower()) for role in roles):
        said = ", ".join(f"{in_quotes(name)} is {role}" for name, role in zip(table.header, roles, strict=True) if role)
        lines = f"lines {table.lines[0]} and {table.lines[1]}"
        return _without_rows(table, 2, f"{lines} have types and roles, and are left out: {said}")
    has_numbers = any(all(map(is_number, _values(column[1:]))) for column in table.columns)
    if not kinds <= _TYPES or not has_numbers:
        return None
    return _without_rows(table, 1, f"line {table.lines[0]} has types, and is left out")


def _without_units(table: Table) -> Table | None:
    """Return a table without the row of units below its header, which go behind the names; or None if it has none."""
    if len(table.lines) < 3:
        return None
    tops = [str(column[0]) for column in table.columns]
    has_units = False
    for top, column in zip(tops, table.columns, strict=True):
        if top.lower() in _NO_VALUE:
            continue
        values = _values(column[1:])
        if is_number(top) or not values or not all(map(is_number, values)):
            return None
        has_units = True
    if not has_units:
        return None
    pairs = list(zip(table.header, tops, strict=True))
    if below := next((top for name, top in pairs if not name and top.lower() not in _NO_VALUE), ""):
        raise TableError(
            f"line {table.lines[0]} looks like a second row of names, as below merged cells: {in_quotes(below)} has no "
            "name above it; give each column its whole name in one row"
        )
    names = tuple(_with_unit(name, top) for name, top in pairs)
    said = f"line {table.lines[0]} has words where the rows below have numbers, and is left out as a row of units: "
    return _without_rows(replace(table, header=names), 1, said + ", ".join(in_quotes(top) for top in tops if top))


def _with_unit(name: str, unit: str) -> str:
    is_unit = 0 < len(unit) <= _UNIT_CHARACTERS and unit.lower() not in _NO_VALUE
    if not is_unit or name.endswith((")", "]")) or (len(unit) > 1 and unit.lower() in _TYPES):
        return name
    return f"{name} ({unit.strip('()[]')})"


def _without_rows(table: Table, n_rows: int, said: str) -> Table:
    return replace(
        table,
        columns=tuple(column[n_rows:] for column in table.columns),
        lines=table.lines[n_rows:],
        inferred=(*table.inferred, said),
    )
