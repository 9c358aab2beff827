"""Cells become the rows that a model is asked about: as text, or with a type. Knows no files, and no I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.model.loaded import LoadedModel
from ml.model.sample import FieldError, InvalidSample
from ml.model.values import no_value_text, reader_of, short
from ml.scoring.layout import Place
from ml.tables.cells import CellReader, OpenNumber, comma_numbers
from ml.tables.dataset import UNKNOWN
from ml.tables.marks import Marks
from ml.tables.numbers import NotANumber, marks_said, number_of, numbers_in_lines, plain_columns
from ml.tables.rows import Block
from ml.tables.typed import TypedColumn

_DECIMAL = re.compile(r"\d([.,])\d")


class CellsReader:
    """Reads the cells of rows as the numbers that a model is asked about.

    Args:
        marks: those of the table's numbers, if somebody has said them.
    """

    def __init__(self, model: LoadedModel, marks: Marks | None) -> None:
        self._model = model
        self._features = model.features
        self._readers = [
            CellReader(feature, gaps=(*feature.markers, no_value_text(feature)), marks=marks)
            for feature in model.features
        ]
        self._typed_readers = [reader_of(feature) for feature in model.features]
        self._is_said = marks is not None
        self._is_plain = all(reader.is_plain for reader in self._readers)

    def many(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float64] | None:
        """Return the values of all rows, shape (n, n_features); None if they have to be read one by one.

        Args:
            columns: the cells of the features, feature by feature.
        """
        values = self._plain(columns) if self._is_plain else self._by_column(columns)
        return values if values is not None and self._model.validator.accepts_all(values) else None

    def in_lines(self, lines: Sequence[str], place: Place) -> NDArray[np.float64] | None:
        """Return the values of rows by their lines, as `many` does; also None where their cells have to be split.

        All columns have to be numbers, and all of them plain.
        """
        numbers = numbers_in_lines(lines, place.dialect.separator, place.width) if self._is_plain else None
        if numbers is None:
            return None
        if place.positions != tuple(range(place.width)):
            numbers = numbers[:, place.positions]
        return numbers if self._model.validator.accepts_all(numbers) else None

    def _plain(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float64] | None:
        values = plain_columns(columns)
        return comma_numbers(columns) if values is None and not self._is_said else values

    def _by_column(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float64] | None:
        read = []
        for reader, cells in zip(self._readers, columns, strict=True):
            column = reader.read(cells)
            if column is None:
                return None
            read.append(column)
        return np.column_stack(read)

    def typed(self, columns: Sequence[TypedColumn]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the values of all rows, shape (n, n_features), and which of them are right as they are, shape (n,).

        The others have to be read one by one.

        Args:
            columns: those of the features, in their order.
        """
        is_right = np.ones(len(columns[0]), dtype=np.bool_)
        read = []
        for position, (feature, column) in enumerate(zip(self._features, columns, strict=True)):
            if column.numbers is not None and not feature.choices:
                read.append(column.numbers)
                continue
            values, codes = column.different()
            found = [self._typed_value(position, value) for value in values]
            read.append(np.array(found, dtype=np.float64)[codes])
            is_right &= np.array([value is not None for value in found], dtype=np.bool_)[codes]
        rows = np.array(read).T  # column by column in memory: what follows reads columns
        return rows, is_right & self._model.validator.accepts(rows)

    def _typed_value(self, position: int, value: object) -> float | None:
        """Return the number that stands for a value; None if it is wrong, or depends on the rest of its row."""
        if isinstance(value, str):
            found = self._readers[position].read([value])
            return None if found is None else found.item()
        try:
            return self._typed_readers[position](value)
        except NotANumber:
            return None

    def one(self, cells: Sequence[object]) -> list[float]:
        """Return the values of one row.

        Args:
            cells: those of the features, in their order; what is no text has a type, and is read as in JSON.

        Raises:
            InvalidSample: with one error for each cell that is wrong.
        """
        values: list[float] = []
        errors: dict[str, FieldError] = {}
        texts = [cell if isinstance(cell, str) else "" for cell in cells]
        for feature, reader, cell, text in zip(self._features, self._readers, cells, texts, strict=True):
            try:
                values.append(reader.value_of(text) if isinstance(cell, str) else feature.example)
            except (NotANumber, OpenNumber) as error:
                marks = marks_said(text, decimal=reader.marks.decimal, thousands=reader.marks.thousands)
                errors[feature.key] = _error_of(feature.key, feature.title, text, error, marks)
                values.append(feature.example)  # so that the others are read as well
        errors |= self._mixed_marks(texts, errors)
        sample = [self._as_typed(index, value, cells[index]) for index, value in enumerate(values)]
        try:
            row = self._model.validator.row(sample)
        except InvalidSample as error:
            errors |= {found.feature: found for found in error.errors if found.feature not in errors}
        if errors:
            raise InvalidSample([errors[feature.key] for feature in self._features if feature.key in errors])
        return row

    def _mixed_marks(self, cells: Sequence[str], wrong: Container[str]) -> dict[str, FieldError]:
        """Return an error for each number with another decimal mark than the model's, if the row has both."""
        text = "\n".join(cells)
        if "," not in text or "." not in text:
            return {}
        marks = [reader.decimal_mark_in(cell) for reader, cell in zip(self._readers, cells, strict=True)]
        if len(set(marks) - {""}) < 2:
            return {}
        return {
            feature.key: FieldError(
                feature.key, "not_a_number",
                f"{feature.title}: {short(cell)!r} has another decimal mark than the rest of the row", short(cell),
            )
            for feature, reader, mark, cell in zip(self._features, self._readers, marks, cells, strict=True)
            if mark not in ("", reader.marks.decimal) and feature.key not in wrong
        }  # fmt: skip

    def _as_typed(self, index: int, value: float, cell: object) -> object:
        """Return what the validator reads as this value; the cell's own text if it does, for its messages."""
        if not isinstance(cell, str):
            return cell
        feature = self._features[index]
        if feature.choices:
            return None if math.isnan(value) else cell if value == UNKNOWN else feature.choices[int(value)]
        try:
            return cell if number_of(cell) == value else value
        except NotANumber:
            return value


def _error_of(key: str, title: str, cell: str, error: NotANumber | OpenNumber, marks: str) -> FieldError:
    if isinstance(error, OpenNumber):
        return FieldError(key, "not_a_number", f"{title}: {error}", short(cell))
    if error.code == "missing":
        return FieldError(key, "missing", f"{title} is missing")
    return FieldError(key, "not_a_number", f"{title}: {short(cell)!r} is not a number{marks}", short(cell))


def decimal_of(place: Place, model: LoadedModel, block: Block) -> Literal[".", ","]:
    """Return the mark for the answers to a table: that of its first row's numbers, unless it is what separates cells.

    Where no number of that row has one, it is the mark of the model's table.
    """
    if place.dialect.written == ",":
        return "."
    if place.marks is not None:
        return place.marks.decimal
    first = block.rows[0]
    cells = (
        [first[position] for position in place.positions] if len(first) == place.width else [""] * len(place.positions)
    )
    numbers = [pair for pair in zip(model.features, cells, strict=True) if not pair[0].choices]
    seen = [mark for feature, cell in numbers if not feature.thousands for mark in _DECIMAL.findall(cell)]
    known = seen[:1] or [feature.decimal for feature, _ in numbers]
    return "," if "," in known else "."
