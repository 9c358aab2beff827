"""Scored rows change their kind: text becomes columns of Parquet, and typed columns become CSV."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TextIO

from ml.scoring.layout import added_columns
from ml.scoring.parquet import ParquetTables
from ml.tables.dialect import Dialect
from ml.tables.encoding import as_text
from ml.tables.parquet import cells_of
from ml.tables.rows import RowReader
from ml.tables.written import RowWriter


class TextTables:
    """Takes the text that `ml.scoring.text.score` writes, and writes a Parquet file.

    The columns that were there are text, in which an empty cell is null; the answers are numbers. What a row without an
    answer has beyond the header is left out.

    Args:
        labels: those of the model.
    """

    def __init__(self, tables: ParquetTables, labels: Sequence[str]) -> None:
        self._tables = tables
        self._added = added_columns((), labels)
        self._names: list[str] = []
        self._reader: RowReader | None = None

    def write(self, text: str, /) -> int:
        """Take the header, or whole rows."""
        if text and self._reader is None:
            # The header ends with the name of a column of ours, in front of which its separator stands.
            separator = text[text.rindex(self._added.error) - 1]
            self._reader = RowReader(dialect=Dialect(separator), keep_separators=True)
            (block,) = self._reader.feed(as_text(text))
            self._names = _distinct(block.rows[0])
            self._write([])
        elif self._reader is not None:
            for block in self._reader.feed(as_text(text)):
                self._write(block.rows)
        return len(text)

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
        import pyarrow

        width, added = len(self._names), self._added
        columns = [*zip(*(row[:width] for row in rows), strict=True)] or [()] * width
        first = width - len(added.names) + len(added.words)
        numbers = range(first, first + len(added.numbers))
        arrays = [
            pyarrow.array([float(cell.replace(",", ".")) if cell else None for cell in cells], pyarrow.float64())
            if place in numbers
            else pyarrow.array([cell or None for cell in cells], pyarrow.string())
            for place, cells in enumerate(columns)
        ]
        self._tables.write(pyarrow.table(arrays, names=self._names))


class CsvTables:
    """Takes tables of Arrow with answers, and writes them as CSV.

    Args:
        n_added: how many columns there are at the end that have the answers.
        guarded: mark cells that a spreadsheet would take for formulas, see `ml.tables.written.guard`.
    """

    def __init__(self, sink: TextIO, *, n_added: int, guarded: bool) -> None:
        self._sink = sink
        self._n_added = n_added
        self._writer = RowWriter(",", guarded=guarded)
        self._has_header = False

    def write(self, table: Any) -> None:
        """Write the rows of a table, and above the first one the header."""
        if not self._has_header:
            self._has_header = True
            self._sink.write(self._writer.row(table.column_names) + "\n")
        own = table.num_columns - self._n_added
        columns = [
            cells_of(column) if place < own or str(column.type) != "double" else _reprs_of(column)
            for place, column in enumerate(table.columns)
        ]
        rows = [[*cells] for cells in zip(*columns, strict=True)]
        texts = self._writer.texts(rows)
        self._writer.guard_rows(rows, texts)
        self._sink.writelines(f"{text}\n" for text in texts)


def _reprs_of(column: Any) -> list[str]:
    """Return answers as the text that they are in every channel."""
    return ["" if value is None else repr(value) for value in column.to_pylist()]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names of which none is there twice, as Parquet wants them."""
    found: dict[str, None] = {}
    for name in names:
        numbered = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        found[next(one for one in numbered if one not in found)] = None
    return [*found]
