"""The inputs of a fitted model as features: which are numbers, which are words, and how a row codes both.

In a row, a word is the position of its choice, a word that is not among the choices is -1, and no value is NaN.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.estimators.frames import Frame, is_gap
from ml.model.design import cells_of
from ml.model.forest import FIRST_CHOICE_CELL
from ml.tables.dataset import MAX_CHOICES, UNKNOWN
from ml.tables.headers import word_of
from ml.tables.numbers import shown_number

UNKNOWN_WORD = "a word that was not seen in training"


@dataclass(frozen=True)
class Cells:
    """How one column of a session's table is coded.

    Attributes:
        place: of the column in the table.
        words: the values of a category, as the session has them, in the order of the choices; none for a number.
        choices: the same as a person enters them.
        gap: what stands for no value in the session.
    """

    place: int
    words: tuple[Any, ...] = ()
    choices: tuple[str, ...] = ()
    gap: Any = math.nan

    def coded(self, column: NDArray[Any]) -> NDArray[np.float64]:
        """Return a column of the session as it is in rows."""
        if not self.words:
            return np.asarray(column, dtype=np.float64)
        position = {word: float(place) for place, word in enumerate(self.words)}
        codes = [math.nan if is_gap(value) else position.get(value, UNKNOWN) for value in column.tolist()]
        return np.array(codes, dtype=np.float64)

    def decoded(self, column: NDArray[np.float64]) -> NDArray[Any]:
        """Return a column of rows as the session has it."""
        if not self.words:
            return column
        cells = cells_of(column)
        is_number = isinstance(self.words[0], int | float)
        values: list[Any] = [self.gap, _unlike(self.words), *self.words]
        known = np.empty(len(values), dtype=object)
        known[:] = values
        taken = known[cells]
        # Numbers and booleans stay such where all values are.
        return np.array(taken.tolist()) if is_number and len(taken) and cells.min() >= FIRST_CHOICE_CELL else taken


def _unlike(words: Sequence[Any]) -> Any:
    """Return a value that is none of these, of their type."""
    if isinstance(words[0], int | float):
        return max(words) + 1
    return UNKNOWN_WORD if UNKNOWN_WORD not in words else UNKNOWN_WORD + " " + "".join(map(str, words))


def cells_of_words(place: int, name: str, words: Sequence[Any], *, gap: Any) -> Cells:
    """Return the coding of a category with these words.

    Raises:
        TableError: they cannot be choices; the sentence names the column and the word.
    """
    choices = tuple(map(text_of, words))
    if len(set(choices)) < len(choices):
        # Those that differ in the white space within keep it: the library tells them apart.
        texts = [unicodedata.normalize("NFC", word.strip()) if isinstance(word, str) else "" for word in words]
        choices = tuple(
            text if text and choices.count(choice) > 1 else choice for text, choice in zip(texts, choices, strict=True)
        )
    if len(choices) > MAX_CHOICES:
        raise TableError(f"column {name!r} has {len(choices)} words, at most {MAX_CHOICES} can be choices")
    for position, choice in enumerate(choices):
        if not choice:
            raise TableError(
                f"column {name!r} has the word {words[position]!r}, which nobody can enter: use NaN for it"
            )
        if (first := choices.index(choice)) != position:
            raise TableError(
                f"column {name!r} has the words {words[first]!r} and {words[position]!r}, which are one when trimmed"
            )
    return Cells(place, tuple(words), choices, gap)


def text_of(word: Any) -> str:
    """Return a session's value as the choice that a person enters."""
    if isinstance(word, int | float) and not isinstance(word, bool):
        return shown_number(float(word))
    return word_of(str(word))


class Coding:
    """Turns tables of a session into rows, and rows into tables of the session.

    Args:
        frame: a table of the session, of whose kind others are made.
        cells: of each feature; the table's other columns have no influence.
    """

    def __init__(self, frame: Frame, cells: Sequence[Cells]) -> None:
        self.cells = tuple(cells)
        self._frame = frame

    def rows(self, frame: Frame) -> NDArray[np.float64]:
        """Return the rows of a table that has the same columns, shape (n_rows, n_features)."""
        return np.column_stack([one.coded(frame.columns[one.place]) for one in self.cells])

    def table(self, rows: NDArray[np.float64]) -> Any:
        """Return a table of the session with these rows, shape (n_rows, n_features)."""
        columns = [np.repeat(column[:1], len(rows)) for column in self._frame.columns]
        for one, column in zip(self.cells, rows.T, strict=True):
            columns[one.place] = one.decoded(column)
        return self._frame.filled(columns)
