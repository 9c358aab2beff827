"""What stands above the rows of a table in text: its separator, its header, comments and titles.

It is settled by the header and the line after it, so that the rows of a stream can come out at once.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ml.errors import TableError, in_quotes
from ml.tables.dialect import QUOTED, Dialect, cells_of, dialect_of
from ml.tables.filekind import refuse_other_files
from ml.tables.numbers import is_number

MAX_HEADER_LINES = 1_000
ROW_NAMES = "rownames"

_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t| ])"?\s*', re.IGNORECASE)
# A lone # is the name of a column.
_COMMENT = re.compile(r'\s*+"?#(?!"?(?:[,;\t|]|\s*$))')


@dataclass(frozen=True)
class Head:
    """The header, the line on which it starts, and what follows: text that starts with the first row, on `next_line`.

    The dialect is None where there is but one column.
    """

    dialect: Dialect | None
    header: list[str]
    line: int
    text: str
    next_line: int


@dataclass(frozen=True)
class _Line:
    """A line of the table, which is several lines of the text if a quoted cell has line ends."""

    number: int
    text: str
    next_number: int


class Preamble:
    """Takes complete lines of text until the header is known.

    Comments (`#`), blank lines and lines of separators alone are passed over, and so are titles: lines of one cell, or
    of two cells fewer than the next, where that has only words. A comment right above the first row is the header if it
    has as many cells.

    Args:
        allow_one_column: take a header that has no separator for one column; nothing is passed over below it.
        has_header: whether there is a header; else the columns are `column_1` and so on.

    Attributes:
        inferred: what was passed over or inferred, one sentence each.
        blank_lines: how many were passed over.
        line, row_line: the next line, and the one on which its row starts, counted from 1.
        open_characters: the size of the lines of a row in which a quote is still open.
    """

    def __init__(self, *, allow_one_column: bool, has_header: bool) -> None:
        self._allow_one_column = allow_one_column
        self._has_header = has_header
        self.inferred: list[str] = []
        self.blank_lines = 0
        self.line = 1
        self.open_characters = 0
        self._given = ""
        self._open: list[str] = []
        self._quote_is_open = False
        self._waiting: _Line | None = None
        self._waits_below_titles = True  # there is no header yet, or what waits may be a title
        self._comment: _Line | None = None
        self._n_comments = 0
        self._n_passed = 0

    @property
    def row_line(self) -> int:
        return self.line - len(self._open)

    @property
    def waiting_characters(self) -> int:
        """The size of the line that may be the header."""
        return len(self._waiting.text) if self._waiting else 0

    def feed(self, text: str) -> Head | None:
        """Take complete lines; return the header when it is settled.

        Raises:
            TableError: this is no table.
        """
        lines = io.StringIO(text, newline="")
        for piece in lines:
            if self.line == 1:
                refuse_other_files(piece)
            self.line += 1
            self._open.append(piece)
            self.open_characters += len(piece)
            if self._is_open(piece):
                if len(self._open) < MAX_HEADER_LINES:
                    continue
                self._refuse_open_header()
            line = self._closed()
            header = self._header_above(line)
            if header is not None:
                return self._head(header, line, text[lines.tell() :])
        return None

    def finish(self) -> Head:
        """Return the header of a table without rows.

        Raises:
            TableError: there is none.
        """
        if self._open:
            self._refuse_open_header()
        if self._waiting is None:
            raise TableError("no header row: the file is empty")
        return self._head(self._waiting, self._closed() if self._open else None, "")

    def _refuse_open_header(self) -> None:
        if self._waiting is None:
            raise TableError(f"line {self.row_line}: a quote in the header is not closed")

    def _closed(self) -> _Line:
        """Return the row that was open, and forget it."""
        line = _Line(self.row_line, "".join(self._open), self.line)
        self._open, self.open_characters = [], 0
        return line

    def _is_open(self, piece: str) -> bool:
        if self._quote_is_open and '"' not in piece:
            return True
        quoted = QUOTED.finditer(f'"{piece}' if self._quote_is_open else piece)
        self._quote_is_open = any(not found[2] for found in quoted)
        return self._quote_is_open

    def _header_above(self, line: _Line) -> _Line | None:
        """Take a line of the table; return the header if this one is the first row below it."""
        if line.number == 1 and (given := _SEPARATOR_LINE.fullmatch(line.text)):
            self._given = given[1]
            return None
        above = self._waiting
        is_above = self._waits_below_titles
        if not line.text.strip(",;\t| \r\n" if is_above else "\r\n"):
            self.blank_lines += 1
            return None
        if _COMMENT.match(line.text) and is_above:
            self._pass_over(line)
            self._comment = line
            self._n_comments += 1
            return None
        if above is None and self._comment is not None and self._has_header:
            above = self._header_in_comment(self._comment, line)
        if above is not None:
            if not self._is_title(above, line):
                return above
            self._pass_over(above)
            title = in_quotes(" ".join(above.text.split()))
            self.inferred.append(f"line {above.number}, a title, is left out: {title}")
        self._waiting, self._waits_below_titles = line, self._may_be_title(line)
        return None

    def _pass_over(self, line: _Line) -> None:
        self._n_passed += 1
        if self._n_passed > MAX_HEADER_LINES:
            raise TableError(f"line {line.number}: no header row in {MAX_HEADER_LINES} lines")

    def _header_in_comment(self, comment: _Line, row: _Line) -> _Line | None:
        """Return the comment above a row as a header, if it is one: `# width,height` as NumPy writes it."""
        text = comment.text.replace("#", "", 1)
        header = _Line(comment.number, text.lstrip(" \t"), comment.next_number)
        dialect = self._dialect(header, row)
        names, cells = cells_of(header.text, dialect), cells_of(row.text, dialect)
        has_numbers = any(map(is_number, cells))
        least = 1 if self._allow_one_column else 2
        if comment.next_number != row.number or not least <= len(names) == len(cells):
            return None
        if any(map(is_number, names)):
            return None
        if not has_numbers and text[:1].isspace():
            return None
        self._n_comments -= 1
        self.inferred.append(f"the header is the comment on line {header.number}")
        return header

    def _may_be_title(self, line: _Line) -> bool:
        if self._allow_one_column or not self._has_header:
            return False
        return len([cell for cell in cells_of(line.text, self._dialect(line, None)) if cell.strip()]) <= 1

    def _is_title(self, above: _Line, below: _Line) -> bool:
        if self._allow_one_column or not self._has_header:
            return False
        dialect = self._dialect(below, None)
        return is_title(cells_of(above.text, self._dialect(above, below) or dialect), cells_of(below.text, dialect))

    def _head(self, header: _Line, row: _Line | None, rest: str) -> Head:
        dialect = self._dialect(header, row)
        names = list(cells_of(header.text, dialect))
        if self._n_comments:
            self.inferred.append(f"comment lines left out: {self._n_comments}")
        below = row.text + rest if row else rest
        if not self._has_header:
            blank = "\n" * (row.number - header.next_number) if row else ""
            names = [f"column_{number}" for number in range(1, len(names) + 1)]
            return Head(dialect, names, header.number, header.text + blank + below, header.number)
        if row is None:
            return Head(dialect, names, header.number, below, self.line)
        if dialect is not None:
            names = self._widened(names, row, dialect)
        return Head(dialect, names, header.number, below, row.number)

    def _widened(self, names: list[str], row: _Line, dialect: Dialect) -> list[str]:
        """Return a header that has as many names as the first row has cells, if it is plain why there are fewer."""
        cells = cells_of(row.text, dialect)
        more = len(cells) - len(names)
        if more > 0 and not any(cell.strip() for cell in cells[len(names) :]):
            return names + [""] * more
        if more < 0 and not any(name.strip() for name in names[more:]):
            return names[:more]
        # As R's write.table has it. A decimal comma between commas would look the same, were it not for the quotes.
        if more == 1 and (dialect.separator != "," or row.text.lstrip().startswith('"')):
            self.inferred.append(f"the header has one name less than the rows: the first column is called {ROW_NAMES}")
            return [ROW_NAMES, *names]
        return names

    def _dialect(self, header: _Line, row: _Line | None) -> Dialect | None:
        return dialect_of(
            header.text, row.text if row else None, given=self._given, allow_white_space=not self._allow_one_column
        )


def is_title(cells: Sequence[str], below: Sequence[str]) -> bool:
    """Tell whether a row is a title, by the row below it, which would be the header."""
    n_cells = len([cell for cell in cells if cell.strip()])
    names = [name for name in below if name.strip()]
    if len(names) < 2 or any(map(is_number, names)):
        return False
    return n_cells <= 1 or len(names) >= n_cells + 2
