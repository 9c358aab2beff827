"""Rows become CSV text again. Text that a spreadsheet would take for a formula can be marked. No I/O here."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from types import SimpleNamespace

from ml.tables.numbers import is_number

CellRows = list[list[str]]

# The start of what a spreadsheet may take for a formula, see `guard`: a mark, white space aside, that is neither alone
# nor the sign of a number.
_MARK = r"[=+\-@＝＋－＠]"  # the last four are full-width
# Blanks and digits keep what they have matched (*+, ++): a cell of nothing else would take quadratic time.
_BLANKS = r"[ \0\x0b\x0c\x1c-\x1f\x85\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]*+"
_END = rf"{_BLANKS}(?:[,;\t\r\n]|\Z)"
_NUMBER = r"[+-](?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
_FORMULA = rf"(?={_BLANKS}{_MARK})(?!{_BLANKS}(?:{_MARK}|{_NUMBER}){_END})"
_AT_START = re.compile(_FORMULA)
_INSIDE = re.compile(rf"([,;\t\r\n]){_FORMULA}")
_FIRST = ("\t", "\r", "\n")
# What cells have between them, each after a line feed, if one may have to be marked.
_RISK = re.compile(rf"[,;\t\r]|\n{_BLANKS}{_MARK}")


class RowWriter:
    """Writes the rows of one table: cells between separators, quoted where they must be.

    Args:
        guarded: mark cells that a spreadsheet would take for formulas, see `guard`.
    """

    def __init__(self, separator: str, *, guarded: bool) -> None:
        self._separator = separator
        self._guarded = guarded

    def row(self, cells: Sequence[str]) -> str:
        """Return one row as text, its cells guarded, without the end of the line."""
        return self.texts([[*map(guard, cells)] if self._guarded else list(cells)])[0]

    def guard_columns(self, rows: CellRows, texts: list[str], columns: Sequence[int]) -> None:
        """Guard the cells in these columns: both the rows and their texts are changed in place."""
        if not self._guarded or not columns:
            return
        if len(rows) < len(columns):
            self.guard_rows(rows, texts)
            return
        changed: set[int] = set()
        for column in columns:
            cells = [row[column] for row in rows]
            if _has_risk(cells):
                for index, cell in enumerate(cells):
                    rows[index][column] = safe = guard(cell)
                    if safe != cell:
                        changed.add(index)
        self._write_anew(rows, texts, changed)

    def guard_rows(self, rows: CellRows, texts: list[str]) -> None:
        """Guard all cells of rows, which need not have the same number of them, in place."""
        if not self._guarded:
            return
        changed: set[int] = set()
        for index, cells in enumerate(rows):
            if _has_risk(cells):
                # Rows of thousands of cells have mostly the same ones.
                safe = {cell: guard(cell) for cell in set(cells)}
                rows[index] = [safe[cell] for cell in cells]
                changed.add(index)
        self._write_anew(rows, texts, changed)

    def _write_anew(self, rows: CellRows, texts: list[str], changed: Collection[int]) -> None:
        for index, text in zip(changed, self.texts([rows[index] for index in changed]), strict=True):
            texts[index] = text

    def texts(self, rows: CellRows) -> list[str]:
        """Return each row as csv writes it, its cells as they are, without the end of the line.

        Where no cell needs quotes, joining cells gives the same text in a fraction of the time.
        """
        joined = list(map(self._separator.join, rows))
        text = "".join(joined)
        if not any(mark in text for mark in '"\r\n') and text.count(self._separator) == sum(map(len, rows)) - len(rows):
            return joined
        lines: list[str] = []
        sink = SimpleNamespace(write=lines.append)  # csv writes a row at a time
        # Both characters in the line's end: csv puts quotes around those alone, and not around any other lone "\r".
        csv.writer(sink, delimiter=self._separator, lineterminator="\r\n").writerows(rows)
        # csv puts quotes around a lone empty cell, so that its line is not blank; here more cells follow.
        return ["" if row == [""] else line[:-2] for row, line in zip(rows, lines, strict=True)]


def guard(cell: str) -> str:
    """Return a cell as text that no spreadsheet takes for a formula: with a single quote in front of what may be one.

    That is text that starts with = + - @ or one of their full-width forms, white space aside, or with a tab or a line
    break; and what follows a comma, semicolon, tab or line break inside the cell, at which a spreadsheet of another
    locale splits it. Numbers and marks that stand alone stay as they are.

    Source: OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    safe = _INSIDE.sub(r"\1'", cell) if _INSIDE.search(cell) else cell
    is_risky = _AT_START.match(cell) or (cell[:1] in _FIRST and not is_number(cell))
    return f"'{safe}" if is_risky else safe


def _has_risk(cells: Sequence[str]) -> bool:
    """Tell whether any of these cells may have to be marked: a fraction of the time of looking at each."""
    text = "\n" + "\n".join(cells)
    return text.count("\n") > len(cells) or _RISK.search(text) is not None
