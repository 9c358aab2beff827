"""A file or a pipe whose rows are scored: text, packed or not, a sheet or JSON records. Knows nothing of models."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedReader
from typing import IO, Any

from ml.errors import TableError
from ml.tables.encoding import TextDecoder, encoding_said
from ml.tables.filekind import START_BYTES, is_json, is_workbook, kind_of
from ml.tables.packed import READ_BYTES, bounded, unpacked
from ml.tables.records import read_records
from ml.tables.rows import Block
from ml.tables.table import Bounds
from ml.tables.workbook import SheetRows, options_of

_BLOCK_ROWS = 2**12


class Source:
    """Text that is read piece by piece, or the rows of a sheet or of JSON records. It is closed at the end.

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
        self._decoder = TextDecoder(encoding)
        self._sheet = sheet
        self.has_header = has_header
        self.inferred: list[str] = []
        with ExitStack() as stack:
            start = file.read(START_BYTES)
            kind = kind_of(start)
            # A process cannot go back in a pipe.
            self._file = stack.enter_context(_copied(start, file)) if kind == "zip" else file
            self._has_sheet = kind == "zip" and is_workbook(self._file)
            if sheet is not None and not self._has_sheet:
                raise TableError("only an Excel file has sheets")
            self._chunks = unpacked(self._file, kind, start)
            self._first = "" if self._has_sheet else self._next()
            self._has_records = is_json(self._first.removeprefix("\ufeff"))
            self.has_blocks = self._has_sheet or self._has_records
            self.close = stack.pop_all().close

    def read(self, _size: int = READ_BYTES, /) -> str:
        """Return some more text; none at the end.

        Raises:
            TableError: it is not of the encoding that was asked for, or its file is damaged.
        """
        if first := self._first:
            self._first = ""
            return first
        return self._next()

    def _next(self) -> str:
        for content in self._chunks:
            if text := self._decoder.decode(content):
                return text
        text = self._decoder.decode(b"", final=True)
        self.inferred = encoding_said(self._decoder)
        return text

    def blocks(self) -> Iterator[Block]:
        """Yield the header of a sheet or of records, and then their rows.

        Raises:
            TableError: there is no table in it.
        """
        return self._records() if self._has_records else self._sheet_blocks()

    def _records(self) -> Iterator[Block]:
        self._chunks = bounded(self._chunks, Bounds())
        table = read_records(self.read(), iter(self.read, ""), Bounds())
        yield Block([list(table.header)], [0], None)
        for start in range(0, len(table.lines), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            rows = zip(*(column[part].tolist() for column in table.columns), strict=True)
            yield Block([*map(list, rows)], table.lines[part].tolist(), None)
        self.inferred = [*self.inferred, *table.inferred]

    def _sheet_blocks(self) -> Iterator[Block]:
        rows = SheetRows(options_of(Bounds(), sheet=self._sheet, has_header=self.has_header))
        yield from rows.blocks(self._file)
        self.inferred = rows.inferred


def _copied(start: bytes, file: IO[bytes]) -> IO[bytes]:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `Source.close`
    try:
        copy.write(start)
        shutil.copyfileobj(file, copy)
        copy.flush()
    except OSError as error:
        copy.close()
        raise TableError(f"the file cannot be copied: {error.strerror}") from error
    return copy
