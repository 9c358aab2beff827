"""The rows of CSV text that comes in pieces of any size. No I/O here, and no character is read a second time."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence

from ml.errors import TableError, in_quotes
from ml.tables.dialect import Dialect
from ml.tables.preamble import Head, Preamble

# A longer row is no row of a table; it would have to be kept whole.
MAX_ROW_CHARACTERS = 2**18
# So many separators are held that may be all that comes until the end.
MAX_BLANK_CHARACTERS = 2**16
_LINE_END = re.compile(r"\r\n?|\n")


class Block:
    """Some rows: the cells of each, the line on which it starts, counted from 1, and its text without the line end.

    `texts` is None where cells are not just split text: there were quotes, or white space between them. Texts that come
    with their dialect in place of the rows are split when these are asked for: numbers can be read without.
    """

    __slots__ = ("_rows", "lines", "texts")

    def __init__(self, rows: list[list[str]] | Dialect, lines: Sequence[int], texts: list[str] | None) -> None:
        self.lines = lines
        self.texts = texts
        self._rows = rows

    @property
    def rows(self) -> list[list[str]]:
        if isinstance(self._rows, Dialect):
            self._rows = self._rows.rows(self.texts or [])
        return self._rows


class RowReader:
    """Takes text, and returns the rows that it completes. The header is a block of its own, and comes out with the
    first row; see `Preamble` for what may stand above it. Blank lines are left out.

    Lines end with a line feed, a carriage return or both. A cell may be quoted, and then have separators, line ends
    and doubled quotes in it. A byte order mark at the start is left out.

    Args:
        allow_one_column: take a header that has no separator for one column; else it is an error.
        has_header: whether there is a header; else the columns are `column_1` and so on.
        keep_separators: take lines of separators alone for rows even at the end of the text.
        strict: text between a closing quote and the next separator is an error; else it belongs to the cell.
        dialect, line: go on after the header, with the row that starts on this line.

    Attributes:
        dialect: how cells are written; None until the header comes out.
        line: on which the row starts that is not complete, counted from 1.
        max_rows: the most rows of a block; it may be changed between two blocks.
        blank_lines: how many were left out.
        inferred: what was inferred or left out above the rows, one sentence each.
    """

    def __init__(
        self,
        *,
        allow_one_column: bool = False,
        has_header: bool = True,
        keep_separators: bool = False,
        strict: bool = False,
        dialect: Dialect | None = None,
        line: int = 1,
    ) -> None:
        self.dialect = dialect
        self.max_rows = 2**16
        self.blank_lines = 0
        self.inferred: list[str] = []
        self._allow_one_column = allow_one_column
        self._most_separators = 0 if keep_separators else MAX_BLANK_CHARACTERS
        self._strict = strict
        self._has_begun = dialect is not None
        self._preamble = Preamble(allow_one_column=allow_one_column, has_header=has_header)
        # The line that has not ended, in pieces.
        self._pieces = [""]
        self._piece_characters = self._blank_characters = 0
        # The row in which a quote is open: its complete cells, the pieces of the open one, and the size of all lines.
        self._cells: list[str] = []
        self._open_cell: list[str] = []
        self._open_cell_characters = 0
        self._row_characters = 0
        self.line = self._next_line = line

    @property
    def held_characters(self) -> int:
        """How many characters at the end of the text belong to a row that is not complete, or to no header yet."""
        above = self._preamble.waiting_characters if self.dialect is None else 0
        return above + self._row_characters + self._piece_characters

    def feed(self, text: str) -> Iterator[Block]:
        """Take text, and yield the rows that are complete by now.

        Raises:
            TableError: there is no header, or the text is not CSV, or a row is too long. The rows before were
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
            yield from self._take("".join(self._pieces))
        if self._row_characters + self._piece_characters - self._blank_characters > MAX_ROW_CHARACTERS:
            raise TableError(f"line {self.line}: a row of more than {MAX_ROW_CHARACTERS} characters")

    def finish(self) -> Iterator[Block]:
        """Yield what is left: no more text comes.

        Raises:
            TableError: as `feed`; or a quote is still open, so that all that follows it would be lost in one cell.
        """
        text = "".join(self._pieces)
        self._hold("")
        if self.dialect is None:
            head = self._preamble.feed(text) or self._preamble.finish()
            text = head.text
            self._hold(text)
            yield self._begin(head)
            self._hold("")
        if self._open_cell or not self._most_separators or self._has_cells(text):
            yield from self._rows(text)
        else:
            self.blank_lines += len(list(io.StringIO(text, newline="")))
        if self._open_cell:
            raise TableError(f"line {self.line}: a quote is opened and never closed")

    def _take(self, text: str) -> Iterator[Block]:
        """Yield the rows of complete lines, and hold the rest."""
        # A return at the end may be half of a line end.
        end = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
        if self.dialect is None:
            self._hold(text[end:])
            head = self._preamble.feed(text[:end])
            self.line, self._row_characters = self._preamble.row_line, self._preamble.open_characters
            if head is None:
                return
            text, end = head.text + text[end:], len(head.text)
            self._hold(text)
            yield self._begin(head)
        blank_characters = end - self._end_of_cells(text, end)
        if blank_characters > self._most_separators:
            blank_characters = 0
        self._hold(text[end - blank_characters :])
        self._blank_characters = blank_characters
        yield from self._rows(text[: end - blank_characters])

    def _has_cells(self, text: str) -> bool:
        assert self.dialect is not None  # there is a header
        return bool(text.strip(self.dialect.blank))

    def _end_of_cells(self, text: str, end: int) -> int:
        """Return where the last line ends that has more than separators."""
        assert self.dialect is not None  # there is a header
        last = len(text[:end].rstrip(self.dialect.blank))
        ends = _LINE_END.search(text, last, end) if last else None
        return ends.end() if ends else 0

    def _hold(self, text: str) -> None:
        self._pieces, self._piece_characters, self._blank_characters = [text], len(text), 0

    def _begin(self, head: Head) -> Block:
        """Return the header."""
        limit = csv.field_size_limit()
        if head.dialect is None and len(head.header[0]) > limit:
            raise TableError(f"line 1: field larger than field limit ({limit})")  # as csv itself says it
        if head.dialect is None and not self._allow_one_column:
            raise TableError(
                f"the header has only one column, {in_quotes(head.header[0].strip())}: separate by comma, semicolon "
                "or tab"
            )
        self._row_characters = 0
        self.dialect = head.dialect or Dialect(",")
        self.blank_lines = self._preamble.blank_lines
        self.inferred = self._preamble.inferred
        self.line = self._next_line = head.next_line
        return Block([head.header], [head.line], None)

    def _rows(self, text: str) -> Iterator[Block]:
        """Yield the rows of complete lines."""
        assert self.dialect is not None  # there is a header
        if not text:
            return
        plain = None if self._open_cell else _plain_lines(text)
        if plain is None:
            yield from self._quoted_rows(text, self.dialect)
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
            rows = self.dialect if self.dialect.is_plain else self.dialect.rows(texts)
            yield Block(rows, lines[part], texts if self.dialect.is_plain else None)

    def _quoted_rows(self, text: str, dialect: Dialect) -> Iterator[Block]:
        lines = list(io.StringIO(text, newline=""))
        n_lines = len(lines)
        # What is in an open quote goes on as a quoted cell of its own.
        goes_on = bool(self._open_cell)
        if goes_on:
            lines[0] = '"' + lines[0]
        # The last line closes the quote that is still open, if any: the last row ends on it.
        reader = dialect.reader(itertools.chain(lines, ['"\n']), strict=self._strict)
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
                    cells = self._kept()  # noqa: PLW2901
                    goes_on = False
                if cells:
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
            raise TableError(f"line {start}: {problem}")

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
        while start < n_rows:
            end = start + self.max_rows
            yield slice(start, end)
            start = end


def _plain_lines(text: str) -> list[str] | None:
    """Return lines, without their ends, that can be split at the separator; None if csv has to read them."""
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
