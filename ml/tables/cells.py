"""The cells of a table that a model is asked about: each text becomes the number that stands for it in a row."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ml.tables.contents import is_marker_of_numbers, marker_spellings
from ml.tables.dataset import UNKNOWN, Feature, boolean_text
from ml.tables.headers import places_of, word_of
from ml.tables.marks import Marks, Written, both_readings, number_in, same_unit, written
from ml.tables.numbers import NotANumber, is_digits, plain_columns, plain_numbers, shown_number

_OPEN_COMMA = re.compile(r"^\s*[+-]?[1-9][0-9]{0,2},[0-9]{3}\s*$", re.MULTILINE)


class CellReader:
    """Reads the cells of one feature's column by its choices, or by the marks of its numbers.

    A number with the other decimal mark is read too where it can mean nothing else: 5,6 but not 4,200.

    Args:
        gaps: texts that stand for no value, besides those that do among numbers; they count only where the feature may
            have none.
        marks: those of this table, if somebody has said them; then no others are read.

    Attributes:
        is_plain: whether `ml.tables.numbers.plain_numbers` reads plain numbers as this does.
        marks: by which its numbers are read.
    """

    def __init__(self, feature: Feature, *, gaps: Collection[str], marks: Marks | None = None) -> None:
        self.marks = marks or Marks(feature.decimal, feature.thousands)
        self.is_plain = not feature.choices and self.marks == Marks()
        self._feature = feature
        self._is_said = marks is not None
        known = () if feature.choices else marker_spellings()
        self._gaps = frozenset(("", *gaps, *known)) if feature.has_gaps else frozenset[str]()
        self._positions = dict(places_of(feature.choices))
        # As JSON and spreadsheets write booleans, whatever the training table had.
        if len(feature.choices) == 2:
            for text, is_true in (("true", True), ("TRUE", True), ("false", False), ("FALSE", False)):
                choice = boolean_text(feature.choices, is_true=is_true)
                if choice in feature.choices:
                    self._positions.setdefault(text, self._positions[choice])

    def read(self, cells: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the values of cells, shape (n,); None if one of them is wrong, or has to be read by itself."""
        if self._positions:
            return self._words(cells)
        if self.marks.thousands:
            return self._one_by_one(cells)
        numbers = self._numbers(cells)
        return self._one_by_one(cells) if numbers is None else numbers

    def value_of(self, cell: str) -> float:
        """Return the value of one cell: a number, the position of a choice, NaN for no value, or `UNKNOWN`.

        Raises:
            NotANumber: it has none, or is no number.
            OpenNumber: it can be read in two ways.
        """
        text = cell.strip()
        if self._positions:
            return self._word(text)
        if self.marks == Marks() and is_digits(text):
            return float(text)
        if text in self._gaps:
            return math.nan
        if not text:
            raise NotANumber("missing")
        found = written(text)
        if found is None and self._gaps and is_marker_of_numbers(text):
            return math.nan
        if found is None or (found.unit and not same_unit(found.unit, self._feature.unit)):
            raise NotANumber("not_a_number")
        return self._number(text, found)

    def decimal_mark_in(self, cell: str) -> str:
        """Return the mark in a number that is its decimal one, or could be; else nothing."""
        found = None if self._positions else written(cell)
        if found is None:
            return ""
        return found.decimal or (found.open if found.open != self.marks.thousands else "")

    def _number(self, text: str, found: Written) -> float:
        number = number_in(found, self.marks)
        if number is not None:
            return number
        if found.open and not self._is_said:
            raise OpenNumber(text, *both_readings(found))
        if self._is_said or self.marks.thousands or found.thousands:
            raise NotANumber("not_a_number")
        return float(found.digits.replace(",", "."))

    def _word(self, text: str) -> float:
        position = self._positions.get(text)
        if position is not None:
            return position
        word = word_of(text)
        if word in self._gaps:
            return math.nan
        if not word:
            raise NotANumber("missing")
        return self._positions.get(word, UNKNOWN)

    def _words(self, cells: Sequence[str]) -> NDArray[np.float64] | None:
        try:
            known = {cell: self._word(cell.strip()) for cell in set(cells)}
        except NotANumber:
            return None
        return np.fromiter(map(known.__getitem__, cells), dtype=np.float64, count=len(cells))

    def _numbers(self, cells: Sequence[str]) -> NDArray[np.float64] | None:
        """Return plain numbers, and no value, in a fraction of the time; None if there is anything else."""
        if self.marks.decimal == ",":
            whole = "".join(cells)
            if "." in whole:
                return None
            cells = [cell.replace(",", ".") for cell in cells] if "," in whole else cells
        return plain_numbers(cells, self._gaps.intersection(cells))

    def _one_by_one(self, cells: Sequence[str]) -> NDArray[np.float64] | None:
        try:
            values = [self.value_of(cell) for cell in cells]
        except (NotANumber, OpenNumber):
            return None
        # Another decimal mark than the model's is for who sees the whole row.
        if any(self.decimal_mark_in(cell) not in ("", self.marks.decimal) for cell in cells):
            return None
        return np.array(values)


def comma_numbers(columns: Sequence[Sequence[str]]) -> NDArray[np.float64] | None:
    """Return what `plain_columns` does of decimal commas; None where there is a point, or an open number."""
    whole = "\n".join(map("\n".join, columns))
    if "." in whole or "," not in whole or _OPEN_COMMA.search(whole):
        return None
    return plain_columns([[cell.replace(",", ".") for cell in cells] for cells in columns])


class OpenNumber(ValueError):
    """A number whose mark can be decimal or divide thousands."""

    def __init__(self, text: str, as_decimal: float, as_thousands: float) -> None:
        super().__init__(f"{text!r} can be read as {shown_number(as_decimal)} or as {shown_number(as_thousands)}")
