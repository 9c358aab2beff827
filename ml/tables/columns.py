"""Rows of any file become the columns of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, time

import numpy as np

from ml.errors import TableError
from ml.tables.encoding import is_utf_8, understood
from ml.tables.headers import MAX_COLUMNS
from ml.tables.numbers import shown_number
from ml.tables.rows import Block
from ml.tables.table import TEXT, Bounds, Table

# Rows of a block, and cells of all columns together, to begin with. NumPy goes through every cell of an array of text
# when it is freed, also through those without one: 2^16 rows of 6,254 columns took it 43 s.
_ROWS, _CELLS = 2**8, 2**20


class Columns:
    """Takes the rows below a header, and returns the table.

    Rows without a value are left out. A row may be shorter than the header where that has no names, and longer by cells
    without a value.

    Args:
        header: the names of the columns.
        line: what a message calls the place of a row: a line of text, or a row of a sheet.

    Raises:
        TableError: on construction, there are too many columns.
    """

    def __init__(self, header: Sequence[str], bounds: Bounds, *, line: str = "line") -> None:
        if len(header) > MAX_COLUMNS:
            raise TableError(f"the header has {len(header)} columns, at most {MAX_COLUMNS} are read")
        self._header = tuple(understood(name).strip() for name in header)
        self._bounds = bounds
        self._line = line
        n_rows = max(_ROWS, _CELLS // max(1, len(header)))
        self._columns = [np.empty(n_rows, dtype=TEXT) for _ in header]
        self._lines = np.empty(n_rows, dtype=np.int64)
        self._n_rows = 0
        self.blank_rows = 0

    def take(self, block: Block) -> None:
        """Take some rows.

        Raises:
            TableError: a row has another number of cells than the header, or there are too many cells.
        """
        width = len(self._header)
        rows, lines = block.rows, block.lines
        if set(map(len, rows)) != {width} or not all(row[0].strip() or any(map(str.strip, row)) for row in rows):
            full = [index for index, row in enumerate(rows) if any(map(str.strip, row))]
            self.blank_rows += len(rows) - len(full)
            lines = [lines[index] for index in full]
            rows = [self._fitted(rows[index], line) for index, line in zip(full, lines, strict=True)]
        if not rows:
            return
        start, end = self._n_rows, self._n_rows + len(rows)
        if end * width > self._bounds.max_cells:
            raise TableError(f"{self._line} {lines[-1]}: more than {self._bounds.max_cells} cells")
        if end > len(self._lines):
            self._grow(end)
        for column, cells in zip(self._columns, zip(*rows, strict=True), strict=True):
            column[start:end] = _stripped(cells)
        self._lines[start:end] = lines
        self._n_rows = end

    def table(self, inferred: Sequence[str], *, has_types: bool = False) -> Table:
        """Return all rows, once.

        Raises:
            TableError: there are none.
        """
        n_rows = self._n_rows
        if not n_rows:
            raise TableError("no rows below the header")
        columns = tuple(column[:n_rows] for column in self._columns)
        return Table(self._header, columns, self._lines[:n_rows], has_types, tuple(inferred))

    def _fitted(self, cells: list[str], line: int) -> list[str]:
        width = len(self._header)
        if not any(map(str.strip, cells[width:])) and not any(self._header[len(cells) :]):
            return cells[:width] + [""] * (width - len(cells))
        raise TableError(f"{self._line} {line} has {len(cells)} columns, the header has {width}")

    def _grow(self, n_rows: int) -> None:
        size = max(n_rows, 2 * len(self._lines))
        self._lines = np.resize(self._lines, size)
        # One after the other, so that only one is there twice.
        for index, column in enumerate(self._columns):
            self._columns[index] = larger = np.empty(size, dtype=TEXT)
            larger[: self._n_rows] = column[: self._n_rows]


def _stripped(cells: Sequence[str]) -> Sequence[str]:
    # To test all of them at once takes a fraction of the time.
    text = "".join(cells)
    if not is_utf_8(text):
        return [understood(cell).strip() for cell in cells]
    has_space = len(f".{text}.".split(None, 1)) > 1
    return [cell.strip() for cell in cells] if has_space else cells


def text_of(value: object) -> str:
    """Return the text of a value that has a type in its file: numbers with a decimal point, dates as ISO 8601 has them.

    None and NaN give no text.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case float():
            return "" if math.isnan(value) else shown_number(value) if math.isfinite(value) else repr(value)
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime() | date() | time():
            return value.isoformat()
    return str(value)
