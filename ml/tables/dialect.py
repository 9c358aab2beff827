"""How the cells of a row of text are written, and how that is found out from a header and the line below it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from ml.tables.numbers import is_number

WHITE_SPACE = " "
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", WHITE_SPACE: "white space"}

# A quote opens a cell only at its start: elsewhere it may be a mark for inches. While it is open, the last group is "".
QUOTED = re.compile(r'(^|[,;\t|])"(?:[^"]++|"")*+("?)')
# Behind spaces it opens one only if it is closed again before the next separator.
_SPACED = re.compile(r'(?:^|[,;\t|])[ ]++"(?:[^"]++|"")*+"[ ]*+(?=[,;\t|\r\n]|$)')


class _Reader(Protocol):
    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


class Dialect(msgspec.Struct, frozen=True):
    """How the cells of a row are written.

    Attributes:
        separator: between two cells; " " is any white space.
        is_spaced: whether spaces in front of a cell do not belong to it, so that a quote after them is one.
    """

    separator: str
    is_spaced: bool = False

    def reader(self, lines: Iterable[str], *, strict: bool) -> _Reader:
        """Return the csv reader of lines."""
        if self.separator == WHITE_SPACE:
            lines = (line.replace("\t", " ").strip(" \r\n") + "\n" for line in lines)
        is_spaced = self.is_spaced or self.separator == WHITE_SPACE
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=is_spaced, strict=strict)

    def rows(self, lines: Sequence[str]) -> list[list[str]]:
        """Return the cells of lines without quotes."""
        if self.separator == WHITE_SPACE:
            return [[cell for cell in line.replace("\t", " ").split(" ") if cell] for line in lines]
        rows = [line.split(self.separator) for line in lines]
        return [[cell.lstrip(" ") for cell in cells] for cells in rows] if self.is_spaced else rows

    @property
    def is_plain(self) -> bool:
        """Whether cells of a line without quotes are what stands between the separators."""
        return not self.is_spaced and self.separator != WHITE_SPACE

    @property
    def blank(self) -> str:
        """The characters of a line without a value."""
        return self.separator + " \t\r\n"

    @property
    def written(self) -> str:
        """What to write between the cells."""
        return "," if self.separator == WHITE_SPACE else self.separator


def dialect_of(header: str, row: str | None, *, given: str = "", allow_white_space: bool = True) -> Dialect | None:
    """Return how a header is written: with the separator that gives the row as many cells, or else the most frequent
    one; None if it has but one column.

    Args:
        row: the line of the table below the header; None if there is none.
        given: the separator, if something says it.
        allow_white_space: let white space separate the cells if nothing else does.
    """
    is_spaced = bool(_SPACED.search(header) or (row and _SPACED.search(row)))
    unquoted = _SPACED.sub(",", QUOTED.sub(r"\1", header))
    marks = [mark for mark in ",;\t|" if mark in unquoted]
    best, best_fit = None, (0, 0, 0)
    for mark in [given] if given else marks:
        fit = _fit(header, row, dialect := Dialect(mark, is_spaced))
        if fit > best_fit:
            best, best_fit = dialect, fit
    if best_fit[0] or given or not allow_white_space or {*marks} - {"\t"}:
        return best
    fits, numbers, n_names = _fit(header, row, Dialect(WHITE_SPACE))
    is_sure = fits and n_names > 1 and row is not None and (numbers or '"' in row)
    return Dialect(WHITE_SPACE) if is_sure else best


def _fit(header: str, row: str | None, dialect: Dialect) -> tuple[int, int, int]:
    """Return how well a dialect suits: if both lines have as many cells, numbers in the row, cells in the header."""
    n_names = len(cells_of(header, dialect))
    if row is None:
        return 0, 0, n_names
    cells = cells_of(row, dialect)
    fits = {n_names: 2, n_names + 1: 1}.get(len(cells), 0)
    return fits, sum(map(is_number, cells)) if fits else 0, n_names


def cells_of(line: str, dialect: Dialect | None) -> Sequence[str]:
    """Return the cells of a line, which has line ends where a quoted cell has some; none if it is not CSV."""
    lines = io.StringIO(line, newline="")
    try:
        if dialect is None:
            return ["".join(next(csv.reader(lines)))] if line.startswith('"') else [line.rstrip("\r\n")]
        return next(dialect.reader(lines, strict=False), [])
    except csv.Error:
        return []  # whoever reads the rows says why
