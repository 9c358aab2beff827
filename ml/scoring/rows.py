"""The rows of one table, read for a model and written with its answers. Knows neither where they come from nor go."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.model.contributions import contributions
from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel
from ml.model.sample import FieldError, InvalidSample, note_of
from ml.model.values import UnknownWord, short
from ml.scoring.cells import CellsReader, decimal_of
from ml.scoring.layout import Place
from ml.tables.encoding import is_utf_8, understood
from ml.tables.headers import MAX_COLUMNS, word_of
from ml.tables.rows import Block
from ml.tables.written import CellRows, RowWriter

# A part has so many rows that have to be read one by one.
MAX_SINGLE_ROWS = 128
# Answers that were written out are kept, as many as have about so many characters.
_KEPT_CHARACTERS = 2**22
_CELL_CHARACTERS = 20
_KEPT_NOTES = 2**10
ODD_BYTES = "bytes here and below that are not UTF-8 are read as Windows-1252"

PredictEach = Callable[[LoadedModel, NDArray[np.float64]], list[Prediction]]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be scored: its line in the file, counted from 1, why, and the errors of its values.

    `cells` are those of the features; there are none where it is not known which cells they are.
    """

    line: int
    message: str
    errors: Sequence[FieldError] = field(default=(), compare=False)
    cells: Sequence[str] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """The n rows of a part that have an answer.

    Attributes:
        lines: in the file, counted from 1.
        cells: returns those of the features in a row, by its index.
        outside: shape (n, n_features): which values the training rows had none like, as `Validator.outside`.
        predictions: their answers.
    """

    lines: Sequence[int]
    cells: Callable[[int], Sequence[str]]
    outside: NDArray[np.bool_]
    predictions: Sequence[Prediction]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the scored table: the header or whole rows as text, how many rows, and which lack and have an answer.

    Its text is empty where only work was done.
    """

    text: str
    rows: int
    bad: Sequence[BadRow] = ()
    answered: AnsweredRows | None = None


class ScoredRows:
    """How the rows of one table are scored and written.

    Args:
        place: where its columns are.
        predict: stands in for the model's own `predict_each`.
        strict: a row without an answer is an error.
        explain: write what each feature adds to an answer, too.
    """

    def __init__(
        self, model: LoadedModel, place: Place, writer: RowWriter, predict: PredictEach, *, strict: bool, explain: bool
    ) -> None:
        self.place = place
        self._explain = explain
        self._model = model
        self._reader = CellsReader(model, place.marks)
        self._writer = writer
        self._predict = predict
        self._strict = strict
        self._odd_lines: set[int] = set()
        # The cells of a feature of words may be any text; plain numbers alone are never taken for formulas.
        plain = [
            not (feature.choices or feature.has_gaps or feature.unit or feature.thousands) for feature in model.features
        ]
        self._others = sorted(set(range(place.width)) - set(itertools.compress(place.positions, plain)))
        # Predictions of a decision table are shared objects: writing out floats once each is a third of all work.
        self._tail_of = lru_cache(_KEPT_CHARACTERS // (_CELL_CHARACTERS * place.added))(self._tail)
        self._cell_of = lru_cache(_KEPT_NOTES)(lambda text: writer.row([text]))
        self._note_of = lru_cache(max(_KEPT_NOTES, len(model.features)))(self._note)

    def parts(self, block: Block) -> Iterator[Part]:
        """Yield the parts that a block of rows becomes."""
        if not self.place.decimal:
            self.place = msgspec.structs.replace(self.place, decimal=decimal_of(self.place, self._model, block))
        lines, texts = block.lines, block.texts
        if texts is None or (values := self._reader.in_lines(texts, self.place)) is None:
            yield from self._parts(*self._decoded(block), lines)
            return
        # Numbers alone: there are no notes about words, and nothing is taken for a formula.
        self._odd_lines.clear()
        yield self._plain_part(
            [], texts, lines, values, lambda index: self._cells(self.place.dialect.rows([texts[index]])[0])
        )

    def _plain_part(
        self,
        rows: CellRows,
        texts: list[str],
        lines: Sequence[int],
        values: NDArray[np.float64],
        cells: Callable[[int], Sequence[str]],
    ) -> Part:
        """Return the part of rows that all have values, shape (n, n_features), and an answer."""
        outside = self._model.validator.outside(values)
        notes = self._notes(rows, outside, lines)
        self._writer.guard_columns(rows, texts, self._others)
        predictions = self._predict(self._model, values)
        text = "".join(map(add, texts, self._ends(values, predictions, notes)))
        return Part(text, len(texts), (), AnsweredRows(lines, cells, outside, predictions))

    def passed_over(self, block: Block, note: str) -> Part:
        """Return the part of a block of one row that has no values."""
        rows, texts = self._decoded(block)
        self._writer.guard_rows(rows, texts)
        return Part(f"{texts[0]}{self.place.dialect.written}{self._writer.row(self.place.new_cells(note=note))}\n", 0)

    def _decoded(self, block: Block) -> tuple[CellRows, list[str]]:
        """Return rows and their texts in which all bytes are characters."""
        rows = block.rows
        texts = self._writer.texts(rows) if block.texts is None else block.texts
        self._odd_lines.clear()
        if not is_utf_8("".join(texts)):
            self._odd_lines |= {line for line, text in zip(block.lines, texts, strict=True) if not is_utf_8(text)}
            rows = [[*map(understood, cells)] for cells in rows]
            texts = self._writer.texts(rows)
        return rows, texts

    def _parts(self, rows: CellRows, texts: list[str], lines: Sequence[int]) -> Iterator[Part]:
        place = self.place
        values = None
        if set(map(len, rows)) == {place.width}:
            cells = list(zip(*rows, strict=True))
            columns = [cells[position] for position in place.positions]
            values = self._reader.many(columns)
        if values is not None:
            # As they came: guarding changes rows.
            yield self._plain_part(rows, texts, lines, values, lambda index: [column[index] for column in columns])
        elif len(rows) > MAX_SINGLE_ROWS:
            for at in range(0, len(rows), MAX_SINGLE_ROWS):
                some = slice(at, at + MAX_SINGLE_ROWS)
                yield from self._parts(rows[some], texts[some], lines[some])
        else:
            yield from self._rows_one_by_one(rows, texts, lines)

    def _rows_one_by_one(self, rows: CellRows, texts: list[str], lines: Sequence[int]) -> Iterator[Part]:
        """Yield the part of rows that are read one by one."""
        values: dict[int, list[float]] = {}
        bad: dict[int, BadRow] = {}
        for index, (cells, line) in enumerate(zip(rows, lines, strict=True)):
            try:
                values[index] = self._row(cells)
            except InvalidSample as error:
                bad[index] = BadRow(line, str(error), error.errors, self._cells(cells))
            except TableError as error:
                bad[index] = BadRow(line, str(error))
            if bad and self._strict:
                yield from self._parts(rows[:index], texts[:index], lines[:index]) if index else ()
                raise TableError(f"line {line}: {bad[index].message}")
            if len(cells) > MAX_COLUMNS:
                raise TableError(f"line {line}: {len(cells)} columns, at most {MAX_COLUMNS} are read")
        answered = self._answered(rows, lines, values) if values else None
        notes = self._notes([rows[index] for index in values], answered.outside, answered.lines) if answered else {}
        self._writer.guard_rows(rows, texts)
        ends = {index: self._blank_end(rows, texts, index, row.message) for index, row in bad.items()}
        if answered:
            array = np.array([*values.values()])
            ends |= dict(zip(values, self._ends(array, answered.predictions, notes), strict=True))
        text = "".join(text + ends[index] for index, text in enumerate(texts))
        yield Part(text, len(rows), [*bad.values()], answered)

    def _answered(self, rows: CellRows, lines: Sequence[int], values: dict[int, list[float]]) -> AnsweredRows:
        """Return the rows that have values, by their index, with their answers."""
        array = np.array([*values.values()])
        cells = [self._cells(rows[index]) for index in values]
        outside = self._model.validator.outside(array)
        predictions = self._predict(self._model, array)
        return AnsweredRows([lines[index] for index in values], cells.__getitem__, outside, predictions)

    def _row(self, cells: list[str]) -> list[float]:
        if len(cells) != self.place.width:
            raise TableError(f"{len(cells)} columns, the header has {self.place.width}")
        return self._reader.one(self._cells(cells))

    def _cells(self, cells: list[str]) -> list[str]:
        """Return the cells of the features."""
        return [cells[position] for position in self.place.positions]

    def _notes(self, rows: CellRows, outside: NDArray[np.bool_], lines: Sequence[int]) -> dict[int, str]:
        """Return the notes about each row that has some, by its index."""
        found: dict[int, list[str]] = {}
        for index, feature in np.argwhere(outside).tolist() if outside.any() else ():
            word = rows[index][self.place.positions[feature]] if self._model.features[feature].choices else ""
            found.setdefault(index, []).append(self._note_of(feature, word))
        if self._odd_lines and not self.place.has_odd_bytes:
            for first in itertools.islice((at for at, line in enumerate(lines) if line in self._odd_lines), 1):
                self.place = msgspec.structs.replace(self.place, has_odd_bytes=True)
                found.setdefault(first, []).append(ODD_BYTES)
        return {index: "; ".join(notes) for index, notes in found.items()}

    def _note(self, feature: int, word: str) -> str:
        """Return the note about a word that is not among the choices of a feature, or about any number outside."""
        trained = self._model.features[feature]
        note = note_of(trained, UnknownWord(short(word_of(word))) if trained.choices else math.inf)
        return note.message if note else ""

    def _ends(
        self, values: NDArray[np.float64], predictions: Sequence[Prediction], notes: Mapping[int, str]
    ) -> list[str]:
        """Return what follows the cells of rows with these values, shape (n, n_features), and with notes by index."""
        if self._explain:
            return [
                self._tail(prediction, notes.get(index, ""), self._contributions(row, prediction))
                for index, (row, prediction) in enumerate(zip(values.tolist(), predictions, strict=True))
            ]
        ends = list(map(self._tail_of, predictions))
        for index, note in notes.items():
            ends[index] = self._tail_of(predictions[index], note)
        return ends

    def _contributions(self, row: list[float], prediction: Prediction) -> Sequence[float]:
        divided = contributions(self._model, row, prediction.index)
        assert divided is not None  # no `obstacle`
        return divided.base, *divided.values

    def _blank_end(self, rows: CellRows, texts: list[str], index: int, message: str) -> str:
        """Return what follows the cells of a row without an answer: its message, and cells beyond the header's."""
        cells, width, separator = rows[index], self.place.width, self.place.dialect.written
        if len(cells) > width:
            texts[index] = self._writer.texts([cells[:width]])[0]
        missing = [""] * (width - len(cells))
        # The surplus cells are guarded already, which changes nothing a second time.
        return separator + self._writer.row([*missing, *self.place.new_cells(error=message), *cells[width:]]) + "\n"

    def _tail(self, prediction: Prediction, notes: str = "", added: Sequence[float] = ()) -> str:
        """Return the new cells of a row as text, with the separator in front and the end of the line."""
        # A number needs quotes in no dialect, since its mark separates no cells; a label or a note may need them.
        text_of = repr if self.place.decimal != "," else _with_comma
        if quantity := self._model.quantity:
            ends = quantity.ends(prediction.value)
            answer = [text_of(prediction.value), *("" if math.isnan(end) else text_of(end) for end in ends)]
        else:
            answer = [self._cell_of(prediction.label), *map(text_of, prediction.probabilities)]
        separator = self.place.dialect.written
        return separator + separator.join((*answer, *map(text_of, added), self._cell_of(notes), "\n"))


def _with_comma(value: float) -> str:
    return repr(value).replace(".", ",")
