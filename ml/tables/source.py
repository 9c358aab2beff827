"""A file or a pipe whose rows are scored: text as it comes, an Excel sheet or JSON records. Knows nothing of models."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from ml.errors import DatasetError
from ml.tables.encoding import TextDecoder, encoding_said
from ml.tables.filekind import START_BYTES, is_json, kind_of
from ml.tables.records import read_records
from ml.tables.rows import Block
from ml.tables.table import Bounds
from ml.tables.workbook import SheetRows, is_workbook, options_of

_READ_BYTES = 2**18
_BLOCK_ROWS = 2**12


class Source:
    """Text that is read piece by piece, or the rows of a sheet or of JSON records.

    Args:
        encoding: of text; empty finds it out.
        sheet: the name of an Excel file's sheet; None is the first one that has cells.

    Attributes:
        has_header: whether the first row has names; else the columns are `column_1` and so on.
        has_blocks: whether it is an Excel file or JSON: then `blocks` has its rows, else `read` its text.
        inferred: what was inferred or left out, once all rows have come.
    """

    def __init__(
        self, file: BufferedReader[Any], *, encoding: str = "", sheet: str | None = None, has_header: bool = True
    ) -> None:
        self._file = file
        self._start = file.read(START_BYTES)
        self._decoder = TextDecoder(encoding)
        self._sheet = sheet
        self.has_header = has_header
        self._has_sheet = kind_of(self._start) == "zip"
        self._first = "" if self._has_sheet else self._decoder.decode(self._start)
        self._has_records = is_json(self._first.removeprefix("\ufeff"))
        self.has_blocks = self._has_sheet or self._has_records
        self.inferred: list[str] = []
        if sheet is not None and not self._has_sheet:
            raise DatasetError("only an Excel file has sheets")

    def read(self, size: int, /) -> str:
        """Return some more text; none at the end.

        Raises:
            DatasetError: it is not of the encoding that was asked for.
        """
        if first := self._first:
            self._first = ""
            return first
        while content := self._file.read1(size):
            if text := self._decoder.decode(content):
                return text
        text = self._decoder.decode(b"", final=True)
        self.inferred = encoding_said(self._decoder)
        return text

    def blocks(self) -> Iterator[Block]:
        """Yield the header of a sheet or of records, and then their rows.

        Raises:
            DatasetError: there is no table in it.
        """
        return self._records() if self._has_records else self._sheet_blocks()

    def _records(self) -> Iterator[Block]:
        table = read_records(self.read(_READ_BYTES), iter(lambda: self.read(_READ_BYTES), ""), Bounds())
        yield Block([list(table.header)], [0], None)
        for start in range(0, len(table.lines), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            rows = zip(*(column[part].tolist() for column in table.columns), strict=True)
            yield Block([*map(list, rows)], table.lines[part].tolist(), None)
        self.inferred = [*self.inferred, *table.inferred]

    def _sheet_blocks(self) -> Iterator[Block]:
        # A process cannot go back in a pipe.
        with tempfile.TemporaryFile() as copy:
            try:
                copy.write(self._start)
                shutil.copyfileobj(self._file, copy)
                copy.flush()
            except OSError as error:
                raise DatasetError(f"the Excel file cannot be copied: {error.strerror}") from error
            if not is_workbook(copy):
                raise DatasetError("this is a zip file: unpack it")
            rows = SheetRows(options_of(Bounds(), sheet=self._sheet, has_header=self.has_header))
            yield from rows.blocks(copy)
            self.inferred = rows.inferred
