"""The rows of CSV text that comes in pieces of any size. No I/O here, and no character is read a second time."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ml.errors import DatasetError
from ml.tables.filekind import refuse_other_files

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
# A longer row is no row of a table; it would have to be kept whole.
MAX_ROW_CHARACTERS = 2**18
MAX_HEADER_LINES = 1_000
_SHOWN_CHARACTERS = 60
# A quote opens a cell only at its start: elsewhere it may be a mark for inches. While it is open, the last group is "".
_QUOTED = re.compile(r'(^|[,;\t])"(?:[^"]++|"")*+("?)')


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows: the cells of each, the line on which it starts, counted from 1, and its text without the line end.

    `texts` is None where the text had quotes.
    """

    rows: list[list[str]]
    lines: Sequence[int]
    texts: list[str] | None


class RowReader:
    """Takes text, and returns the rows that it completes. The header is a block of its own; blank lines are left out.

    Lines end with a line feed, a carriage return or both. A cell may be quoted, and then have separators, line ends
    and doubled quotes in it. A byte order mark at the start is left out.

    Args:
        allow_one_column: take a header that has no separator for one column; else it is an error.
        strict: text between a closing quote and the next separator is an error; else it belongs to the cell.
        separator, line: go on after the header, with the row that starts on this line.

    Attributes:
        separator: what the header uses: the most frequent one outside quotes. It is set when the header comes out.
        line: on which the row starts that is not complete, counted from 1.
        max_rows: the most rows of a block; it may be changed between two blocks.
        blank_lines: how many were left out.
    """

    def __init__(
        self, *, allow_one_column: bool = False, strict: bool = False, separator: str = "", line: int = 1
    ) -> None:
        self.separator = separator
        self.max_rows = 2**16
        self.blank_lines = 0
        self._allow_one_column = allow_one_column
        self._strict = strict
        self._has_header = self._has_begun = bool(separator)
        # The line that has not ended, in pieces.
        self._pieces = [""]
        self._piece_characters = 0
        # The lines of a header that has not ended, and whether a quote is open in them.
        self._header: list[str] = []
        self._header_is_open = False
        # The row in which a quote is open: its complete cells, the pieces of the open one, and the size of all lines.
        self._cells: list[str] = []
        self._open_cell: list[str] = []
        self._open_cell_characters = 0
        self._row_characters = 0
        self.line = self._next_line = line

    @property
    def held_characters(self) -> int:
        """How many characters at the end of the text belong to a row that is not complete."""
        return self._row_characters + self._piece_characters

    def feed(self, text: str) -> Iterator[Block]:
        """Take text, and yield the rows that are complete by now.

        Raises:
            DatasetError: there is no header, or the text is not CSV, or a row is too long. The rows before were
                yielded.
        """
        if not self._has_begun and text:
            self._has_begun = True
            text = text.removeprefix("\ufeff")
        if not text:
            return
        ends_line = "\n" in text or "\r" in text or self._pieces[-1].endswith("\r")
        self._pieces.append(text)
        self._piece_characters += len(text)
        if ends_line:
            text = "".join(self._pieces)
            # A return at the end may be half of a line end.
            end = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
            self._hold(text[end:])
            yield from self._blocks(text[:end])
        if self.held_characters > MAX_ROW_CHARACTERS:
            raise DatasetError(f"line {self.line}: a row of more than {MAX_ROW_CHARACTERS} characters")

    def finish(self) -> Iterator[Block]:
        """Yield what is left: no more text comes.

        Raises:
            DatasetError: as `feed`; or a quote is still open, so that all that follows it would be lost in one cell.
        """
        text = "".join(self._pieces)
        self._hold("")
        yield from self._blocks(text)
        if self._header:
            raise DatasetError("line 1: a quote in the header is not closed")
        if not self.separator:
            raise DatasetError("no header row: the file is empty")
        if self._open_cell:
            raise DatasetError(f"line {self.line}: a quote is opened and never closed")

    def _hold(self, text: str) -> None:
        self._pieces, self._piece_characters = [text], len(text)

    def _blocks(self, text: str) -> Iterator[Block]:
        """Yield the rows of complete lines."""
        if text and not self.separator:
            text = self._from_header(text)
        if not text:
            return
        plain = None if self._open_cell else _plain_lines(text)
        if plain is None:
            yield from self._quoted_rows(text)
            return
        start = self._next_line
        self.line = self._next_line = start + len(plain)
        lines: Sequence[int] = range(start, self.line)
        if "" in plain:
            lines = [line for line, text in zip(lines, plain, strict=True) if text]
            self.blank_lines += len(plain) - len(lines)
            plain = [text for text in plain if text]
        for part in self._slices(len(plain)):
            texts = plain[part]
            yield Block([text.split(self.separator) for text in texts], lines[part], texts)

    def _from_header(self, text: str) -> str:
        """Take the lines of the header; when they are complete, settle the separator and return them and the rest.

        They are several if a quoted cell has line ends.
        """
        lines = io.StringIO(text, newline="")
        for line in lines:
            if not self._header:
                refuse_other_files(line)
            elif len(self._header) == MAX_HEADER_LINES:
                raise DatasetError("line 1: a quote in the header is not closed")
            self._header.append(line)
            self._row_characters += len(line)
            if self._header_is_open and '"' not in line:
                continue
            quoted = _QUOTED.finditer(f'"{line}' if self._header_is_open else line)
            self._header_is_open = any(not found[2] for found in quoted)
            if not self._header_is_open:
                header = "".join(self._header)
                self.separator = _separator_or_comma(header) if self._allow_one_column else separator_of(header)
                self._header, self._row_characters = [], 0
                return header + text[lines.tell() :]
        return ""

    def _quoted_rows(self, text: str) -> Iterator[Block]:
        lines = list(io.StringIO(text, newline=""))
        n_lines = len(lines)
        # What is in an open quote goes on as a quoted cell of its own.
        goes_on = bool(self._open_cell)
        if goes_on:
            lines[0] = '"' + lines[0]
        # The last line closes the quote that is still open, if any: the last row ends on it.
        reader = csv.reader(itertools.chain(lines, ['"\n']), delimiter=self.separator, strict=self._strict)
        rows: list[list[str]] = []
        starts: list[int] = []
        start, before = self.line, 0
        problem = ""
        try:
            for cells in reader:
                end = reader.line_num
                if end > n_lines:
                    self._row_characters += sum(map(len, lines[before:])) - goes_on
                    self._keep(cells, goes_on=goes_on)
                    break
                if goes_on:
                    self._keep(cells, goes_on=True)
                    rows.append(self._kept())
                    starts.append(start)
                    goes_on = False
                elif cells:
                    rows.append(cells)
                    starts.append(start)
                else:
                    self.blank_lines += 1
                before, start = end, self._next_line + end
                if end == n_lines:
                    break
        except csv.Error as error:
            problem = str(error)
        self.line = start
        self._next_line += n_lines
        for part in self._slices(len(rows)):
            yield Block(rows[part], starts[part], None)
        if problem:
            raise DatasetError(f"line {start}: {problem}")

    def _keep(self, cells: list[str], *, goes_on: bool) -> None:
        """Keep the cells of a row whose last one is open; if it goes on, the first one is part of the open cell."""
        if goes_on:
            self._open_cell.append(cells[0])
            self._open_cell_characters += len(cells[0])
            limit = csv.field_size_limit()
            if self._open_cell_characters > limit:
                raise csv.Error(f"field larger than field limit ({limit})")  # as csv itself says it
            if len(cells) == 1:
                return
            self._cells.append("".join(self._open_cell))
        self._cells += cells[goes_on:-1]
        self._open_cell, self._open_cell_characters = [cells[-1]], len(cells[-1])

    def _kept(self) -> list[str]:
        """Return the row that was kept, which is complete now, and forget it."""
        cells = [*self._cells, "".join(self._open_cell)]
        self._cells, self._open_cell = [], []
        self._open_cell_characters = self._row_characters = 0
        return cells

    def _slices(self, n_rows: int) -> Iterator[slice]:
        start = 0
        if n_rows and not self._has_header:
            self._has_header = True
            yield slice(0, 1)
            start = 1
        while start < n_rows:
            end = start + self.max_rows
            yield slice(start, end)
            start = end


def _plain_lines(text: str) -> list[str] | None:
    """Return lines, without their ends, that can be split at the separator; None if csv has to look at them."""
    if '"' in text:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    limit = csv.field_size_limit()
    if len(text) > limit and max(map(len, lines), default=0) > limit:
        return None
    return lines


def separator_of(header: str) -> str:
    """Return the separator that a header row uses: the most frequent one outside quotes.

    Raises:
        DatasetError: there is none, so there is only one column.
    """
    unquoted = _QUOTED.sub(r"\1", header)
    separator = max(SEPARATORS, key=unquoted.count)
    if separator not in unquoted:
        raise DatasetError(
            f"the header has only one column, {shown(header.strip())}: separate by comma, semicolon or tab"
        )
    return separator


def _separator_or_comma(header: str) -> str:
    try:
        return separator_of(header)
    except DatasetError:
        return ","


def shown(text: str) -> str:
    """Return text as a message shows it: within quotes, and not too much of it."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
