"""Reads an Excel file in a process of its own, which is ended when it takes too much time or memory.

An Excel file is a zip file of XML: a stranger's may unpack to more than any memory holds. The process takes the file as
its standard input, and writes the rows to its standard output, as `SheetPiece` in JSON, one a line.
"""

from __future__ import annotations

import os
import resource
import sys
import warnings
import zipfile
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO
from xml.parsers import expat

import msgspec

from ml.errors import TableError, in_quotes
from ml.tables.columns import text_of
from ml.tables.confined import bound, cpu_s_of
from ml.tables.filekind import is_workbook
from ml.tables.headers import MAX_COLUMNS, listed
from ml.tables.packed import only_member
from ml.tables.preamble import is_title
from ml.tables.rows import MAX_ROW_CHARACTERS

# What is not a sheet and not the words of the sheets becomes a tree in memory, many times as large.
_MOST_PART_BYTES = 2**24
_STREAMED = ("xl/worksheets/", "xl/sharedStrings")
_PIECE_CELLS = 2**14
_PIECE_CHARACTERS = 2**20
_PROLOG_BYTES = 2**16
_MOST_ENTRIES = 100
# What zipfile unpacks in pieces of bounded size.
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_ROWS = 2**20  # as Excel itself has it

Row = tuple[int, list[str]]


class SheetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is read, and what it may take.

    Attributes:
        sheet: its name; None is the first visible one that has cells.
        max_bytes, max_cells: after unpacking.
        memory_bytes, cpu_s: beyond those of the empty process.
        max_sink_bytes: of a file that is written.
    """

    sheet: str | None
    has_header: bool
    max_bytes: int
    max_cells: int
    memory_bytes: int
    cpu_s: int
    niceness: int = 0
    max_sink_bytes: int | None = None


class SheetPiece(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some rows; the first one of all is the header. The last piece has no rows, and an error or what was inferred.

    Of a zip file of one other file there is but one piece, which says that this may be text.
    """

    rows: list[list[str]] = []
    lines: list[int] = []
    error: str = ""
    inferred: list[str] = []
    is_last: bool = False
    is_text: bool = False


def main() -> None:
    """Read the file on standard input; the options are the one argument."""
    options = msgspec.json.decode(sys.argv[1], type=SheetOptions)
    warnings.simplefilter("ignore")  # of what a file has besides cells
    import openpyxl  # before memory is bounded

    bound(options.memory_bytes, options.cpu_s, options.niceness, options.max_sink_bytes)
    try:
        for piece in _pieces(sys.stdin.buffer, options, openpyxl):
            _write(piece)
    except TableError as error:
        _write(SheetPiece(error=str(error), is_last=True))
    except MemoryError:
        _write(SheetPiece(error=f"it takes more than {options.memory_bytes} bytes of memory", is_last=True))
    except BrokenPipeError:
        os._exit(0)  # nobody wants the rest
    except Exception as error:  # a stranger's file, and any error that a library may have with it
        _write(SheetPiece(error=f"the Excel file cannot be read: {error or type(error).__name__}", is_last=True))


def _write(piece: SheetPiece) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(piece) + b"\n")
    sys.stdout.buffer.flush()


def _pieces(file: BinaryIO, options: SheetOptions, openpyxl: Any) -> Iterator[SheetPiece]:
    is_text = not is_workbook(file)
    with zipfile.ZipFile(file) as archive:
        if is_text:
            if len(archive.namelist()) > _MOST_ENTRIES:  # besides the file that was packed; others read them, too
                raise TableError(f"the zip file has more than {_MOST_ENTRIES} entries: unpack the one with the table")
            if archive.getinfo(only_member(archive)).compress_type not in _BOUNDED_METHODS:
                raise TableError("the zip file is packed by another method than deflate: unpack it")
            yield SheetPiece(is_text=True, is_last=True)
            return
        _check(archive, options)
    book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    blank = iter(range(MAX_ROWS))
    sheet, inferred = _chosen(book, options.sheet, blank)
    reading = _Sheet(book, sheet, blank)
    rows: list[list[str]] = []
    lines: list[int] = []
    n_cells = n_characters = came = 0
    for line, cells in _table(reading.rows(), inferred, has_header=options.has_header):
        n_cells += len(cells)
        if n_cells > options.max_cells:
            raise TableError(f"row {line}: more than {options.max_cells} cells")
        rows.append(cells)
        lines.append(line)
        n_characters += (size := sum(map(len, cells)))
        came += size
        if came > options.max_bytes:  # one word may stand in many cells
            raise TableError(f"row {line}: more than {options.max_bytes} characters")
        if len(rows) * len(cells) >= _PIECE_CELLS or n_characters >= _PIECE_CHARACTERS:
            yield SheetPiece(rows, lines)
            rows, lines, n_characters = [], [], 0
    yield SheetPiece(rows, lines)
    yield SheetPiece(inferred=[*inferred, *reading.inferred()], is_last=True)


def _check(archive: zipfile.ZipFile, options: SheetOptions) -> None:
    """Refuse what would take too much to read, by the sizes that the archive states: it gives no more than these."""
    members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > options.max_bytes:
        raise TableError(f"larger than {options.max_bytes} bytes, unpacked")
    cpu_s = cpu_s_of(size)
    if cpu_s < options.cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    for member in members:
        name = member.filename
        if name.endswith((".xml", ".rels")):
            if not name.startswith(_STREAMED) and member.file_size > _MOST_PART_BYTES:
                raise TableError(f"{in_quotes(name)} in it is larger than {_MOST_PART_BYTES} bytes")
            with archive.open(member) as part:
                _refuse_document_type(part.read(_PROLOG_BYTES), name)


def _refuse_document_type(prolog: bytes, name: str) -> None:
    """Refuse XML that can define entities, which could expand without end; Excel's has none (ECMA-376, part 2)."""
    has_root = False

    def begin(*_: object) -> None:
        nonlocal has_root
        has_root = True

    def refuse(*_: object) -> None:
        raise TableError(f"{in_quotes(name)} in it has a document type, as no Excel file has")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(prolog, False)
    if prolog and not has_root:
        raise TableError(f"{in_quotes(name)} in it has no element in its first {_PROLOG_BYTES} bytes")


def _chosen(book: Any, name: str | None, blank: Iterator[int]) -> tuple[Any, list[str]]:
    """Return the sheet of a name, or the first one that has cells, and what to say about the others."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if name is not None:
        if name not in sheets:
            raise TableError(f"no sheet is called {in_quotes(name)}: {listed(sheets)}")
        return sheets[name], []
    full = [sheet for sheet in sheets.values() if sheet.sheet_state == "visible" and _has_cells(book, sheet, blank)]
    # A sheet with one row is no table, but a cover.
    full.sort(key=lambda sheet: not _has_cells(book, sheet, blank, rows=2))
    if not full:
        raise TableError("no sheet of the Excel file has cells")
    inferred = [f"sheet {in_quotes(full[0].title)}"] if len(sheets) > 1 else []
    if len(full) > 1:
        others = listed(sheet.title for sheet in full[1:])
        inferred.append(f"other sheets have cells as well, and are left out: {others}; --sheet names another one")
    return full[0], inferred


def _has_cells(book: Any, sheet: Any, blank: Iterator[int], *, rows: int = 1) -> bool:
    """Tell whether a sheet has at least so many rows with cells."""
    return len([*islice(_Sheet(book, sheet, blank).rows(), rows)]) == rows


class _Sheet:
    """The cells of one sheet.

    Args:
        blank: gives a number for each row without a value that may still be read, of any sheet.
    """

    def __init__(self, book: Any, sheet: Any, blank: Iterator[int]) -> None:
        from openpyxl.worksheet._reader import FORMULA_TAG, WorkSheetParser

        self._blank = blank
        self._errors: list[str] = []
        self._n_errors = self._n_formulas = 0
        counted = self

        class Parser(WorkSheetParser):  # type: ignore[misc]  # openpyxl has no types
            """Counts the formulas without a value: their program has not calculated them."""

            def parse_cell(self, element: Any) -> dict[str, Any]:
                cell: dict[str, Any] = super().parse_cell(element)
                if cell["value"] is None and element.find(FORMULA_TAG) is not None:
                    counted._n_formulas += 1
                return cell

        self._source = book._archive.open(sheet._worksheet_path)
        self._parser = Parser(
            self._source, sheet._shared_strings, data_only=True, epoch=book.epoch, date_formats=book._date_formats,
            timedelta_formats=book._timedelta_formats,
        )  # fmt: skip

    def rows(self) -> Iterator[Row]:
        """Yield the rows that have a value, with their numbers, each up to its last value."""
        with self._source:
            for line, row in self._parser.parse():
                cells: list[str] = []
                for cell in row:
                    text = self._text(cell).strip()
                    column = cell["column"]
                    if not text:
                        continue
                    if column > MAX_COLUMNS or not 0 < line <= MAX_ROWS:
                        raise TableError(
                            f"row {line}, column {column}: at most {MAX_ROWS} rows and {MAX_COLUMNS} columns are read"
                        )
                    cells += [""] * (column - len(cells))
                    cells[column - 1] = text
                if sum(map(len, cells)) > MAX_ROW_CHARACTERS:
                    raise TableError(f"row {line}: a row of more than {MAX_ROW_CHARACTERS} characters")
                if cells:
                    yield line, cells
                elif next(self._blank, None) is None:
                    raise TableError(f"row {line}: more than {MAX_ROWS} rows without a value: delete them")

    def inferred(self) -> list[str]:
        """Return what was left out, one sentence each."""
        inferred = []
        if self._n_errors:
            inferred.append(f"cells with an error are taken as no value: {self._n_errors}, as {self._errors[0]}")
        if self._n_formulas:
            inferred.append(
                f"formulas that no program has calculated are taken as no value: {self._n_formulas}; open the file in "
                "a spreadsheet program and save it"
            )
        return inferred

    def _text(self, cell: dict[str, Any]) -> str:
        value = cell["value"]
        if cell["data_type"] == "e" and value is not None:
            self._n_errors += 1
            self._errors = self._errors or [str(value)]
            return ""
        return str(value).upper() if isinstance(value, bool) else text_of(value)


def _table(rows: Iterator[Row], inferred: list[str], *, has_header: bool) -> Iterator[Row]:
    """Yield the header, and then the rows below it, each at least as long as the header."""
    above = next(rows, None)
    below = next(rows, None)
    while has_header and above and below and is_title(above[1], below[1]):
        inferred.append(f"row {above[0]}, a title, is left out: {in_quotes(' '.join(above[1]).strip())}")
        above, below = below, next(rows, None)
    if above is None:
        raise TableError("the sheet has no cells")
    width = max(len(above[1]), len(below[1]) if below else 0)
    if has_header:
        yield above[0], _padded(above[1], width)
    else:
        yield above[0], [f"column_{number + 1}" for number in range(width)]
        yield above[0], _padded(above[1], width)
    if below:
        yield below[0], _padded(below[1], width)
    for line, cells in rows:
        yield line, _padded(cells, width)


def _padded(cells: list[str], width: int) -> list[str]:
    return cells + [""] * (width - len(cells))
