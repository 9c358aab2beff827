"""Score a CSV file row by row: what comes in goes out, with label and probabilities added. Memory stays constant."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add
from typing import TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import DatasetError
from ml.model.classifier import Classifier, Prediction
from ml.model.sample import FieldError, InvalidSample
from ml.tables.csvfile import BLOCK_CHARACTERS
from ml.tables.encoding import understood
from ml.tables.headers import MAX_COLUMNS, feature_of
from ml.tables.layout import OtherAnswers, Place, added_columns, positions_of
from ml.tables.numbers import plain_numbers
from ml.tables.rows import Block, RowReader
from ml.tables.written import Rows, RowWriter

# A part has at most so many cells; of rows that the validator has to look at one by one, so many rows.
MAX_PART_CELLS = 2**15
MAX_ODD_ROWS = 128
# So many names of columns are understood at once, in 3 ms; parts without text come in between.
_KEYS_A_PART = 512
# Answers that were written out are kept, as many as have about so many characters.
_KEPT_CHARACTERS = 2**22
_PROBABILITY_CHARACTERS = 20

Predict = Callable[[Classifier, NDArray[np.float64]], list[Prediction]]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be scored: its line in the file, counted from 1, why, and the errors of its values."""

    line: int
    message: str
    errors: Sequence[FieldError] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Scored:
    """How many rows were read, and how many of them were left blank."""

    rows: int
    bad: int


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the scored table: the header or whole rows as text, how many rows, and those without an answer.

    Its text is empty where only work was done.
    """

    text: str
    rows: int
    bad: Sequence[BadRow] = ()


def score(
    model: Classifier,
    source: TextIO,
    sink: TextIO,
    *,
    on_bad: Callable[[BadRow], None],
    on_rows: Callable[[int], object] = lambda _rows: None,
    guarded: bool = False,
    strict: bool = False,
) -> Scored:
    """Copy a table from `source` to `sink` with the model's answers in new columns at its end.

    Args:
        source: text opened with newline="": a header row, then rows.
        sink: text opened with newline="".
        on_bad: is told each row that has no answer.
        on_rows: is told the number of rows each time some were written.
        guarded, strict: as for `Scorer`.

    Raises:
        DatasetError: as `Scorer.feed` and `Scorer.finish`.
    """
    scorer = Scorer(model, guarded=guarded, strict=strict)
    texts = iter(lambda: source.read(BLOCK_CHARACTERS), "")
    rows = bad = 0
    for part in itertools.chain(itertools.chain.from_iterable(map(scorer.feed, texts)), scorer.finish()):
        sink.write(part.text)
        for row in part.bad:
            on_bad(row)
        if part.rows:
            rows, bad = rows + part.rows, bad + len(part.bad)
            on_rows(part.rows)
    return Scored(rows, bad)


class Scorer:
    """A table that comes as text in pieces of any size, and goes with a model's answers. It does no I/O by itself.

    The columns of the features may stand in any order and with any others between them. The new ones, at the end, are
    `added_columns`. A row without an answer keeps its place: its new cells are empty but for the last, which says why;
    cells beyond those of the header come after that one. Blank lines are left out.

    Args:
        max_cells: the most cells in a part, so that one takes about as long as another.
        guarded: mark cells that a spreadsheet would take for formulas, see `ml.tables.written.guard`.
        strict: a row without an answer is an error.
        place: go on there, without a header.
        predict: stands in for the model's own `predict_each`, to measure or count what it is asked.

    Attributes:
        place: of the first row that is not complete; None while the header is not.

    Raises:
        OtherAnswers: on construction, the table up to `place` was scored by a model with other features or labels.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        max_cells: int = MAX_PART_CELLS,
        guarded: bool = False,
        strict: bool = False,
        place: Place | None = None,
        predict: Predict = Classifier.predict_each,
    ) -> None:
        self._model = model
        self._predict = predict
        self._max_cells = max_cells
        self._guarded = guarded
        self._strict = strict
        self._table: _Table | None = None
        self._reader = RowReader(allow_one_column=len(model.features) == 1)
        if place is not None:
            self._reader = RowReader(dialect=place.dialect, line=place.line)
            self._go_on(place)

    @property
    def place(self) -> Place | None:
        if self._table is None:
            return None
        return msgspec.structs.replace(self._table.place, line=self._reader.line)

    @property
    def held_characters(self) -> int:
        """How many characters at the end of the text belong to a row that is not complete."""
        return self._reader.held_characters

    def use(self, model: Classifier) -> None:
        """Score what follows by another model.

        Raises:
            OtherAnswers: it has other features or labels.
        """
        self._model = model
        if self._table is not None:
            self._go_on(self._table.place)

    def feed(self, text: str) -> Iterator[Part]:
        """Take text, and yield what is complete by now: the header, and rows.

        Raises:
            DatasetError: there is no header, or it lacks a feature, or the text is not CSV, or, if `strict`, a row has
                no answer. The rows before were yielded.
        """
        yield from self._score(self._reader.feed(text))

    def finish(self) -> Iterator[Part]:
        """Yield what is left: no more text comes.

        Raises:
            DatasetError: as `feed`; or a quote is still open, so that all that follows it would be lost in one cell.
        """
        yield from self._score(self._reader.finish())

    def _score(self, blocks: Iterator[Block]) -> Iterator[Part]:
        for block in blocks:
            if self._table is not None:
                yield from self._table.parts(block)
                continue
            (header,) = block.rows
            if len(header) > MAX_COLUMNS:
                raise DatasetError(f"the header has {len(header)} columns, at most {MAX_COLUMNS} are read")
            keys: list[str] = []
            for start in range(0, len(header), _KEYS_A_PART):
                if start:
                    yield Part("", 0)
                keys += [feature_of(understood(text)).key for text in header[start : start + _KEYS_A_PART]]
            added = added_columns(header, self._model.labels)
            dialect = self._reader.dialect
            assert dialect is not None  # it is settled with the header
            positions = tuple(positions_of(self._model.features, header, keys))
            self._go_on(Place(1, dialect, len(header), positions, len(added), self._model.made(_answers_of)))
            yield Part(RowWriter(dialect.written, guarded=self._guarded).row([*header, *added]) + "\n", 0)

    def _go_on(self, place: Place) -> None:
        n_features, n_added = len(self._model.features), len(self._model.labels) + 2
        expected = (self._model.made(_answers_of), n_features, n_added)
        if (place.answers, len(place.positions), place.added) != expected:
            raise OtherAnswers("the model was replaced by one with other features or labels: begin anew")
        writer = RowWriter(place.dialect.written, guarded=self._guarded)
        self._table = _Table(self._model, place, writer, self._predict, strict=self._strict)
        self._reader.max_rows = max(1, min(self._max_cells // (place.width + place.added), self._model.slice_rows))


class _Table:
    """How the rows of one table are scored and written."""

    def __init__(self, model: Classifier, place: Place, writer: RowWriter, predict: Predict, *, strict: bool) -> None:
        self.place = place
        self._model = model
        self._writer = writer
        self._predict = predict
        self._strict = strict
        self._others = sorted(set(range(place.width)) - set(place.positions))
        # Predictions of a decision table are shared objects: writing out floats once each is a third of all work.
        kept = _KEPT_CHARACTERS // (_PROBABILITY_CHARACTERS * place.added)
        self._tail_of = lru_cache(kept)(self._tail)

    def parts(self, block: Block) -> Iterator[Part]:
        """Yield the parts that a block of rows becomes."""
        texts = self._writer.texts(block.rows) if block.texts is None else block.texts
        return self._parts(block.rows, texts, block.lines)

    def _parts(self, rows: Rows, texts: list[str], lines: Sequence[int]) -> Iterator[Part]:
        place = self.place
        values = None
        if set(map(len, rows)) == {place.width}:
            columns = list(zip(*rows, strict=True))
            values = plain_numbers([columns[position] for position in place.positions])
        if values is not None and self._model.validator.accepts_all(values):
            self._writer.guard_columns(rows, texts, self._others)
            ends = map(self._tail_of, self._predict(self._model, values))
            yield Part("".join(map(add, texts, ends)), len(rows))
        elif len(rows) > MAX_ODD_ROWS:
            for at in range(0, len(rows), MAX_ODD_ROWS):
                odd = slice(at, at + MAX_ODD_ROWS)
                yield from self._parts(rows[odd], texts[odd], lines[odd])
        else:
            yield from self._odd_parts(rows, texts, lines)

    def _odd_parts(self, rows: Rows, texts: list[str], lines: Sequence[int]) -> Iterator[Part]:
        """Yield the part of rows that go through the validator one by one."""
        values: dict[int, list[float]] = {}
        bad: dict[int, BadRow] = {}
        for index, (cells, line) in enumerate(zip(rows, lines, strict=True)):
            try:
                values[index] = self._row(cells)
            except InvalidSample as error:
                bad[index] = BadRow(line, str(error), error.errors)
            except DatasetError as error:
                bad[index] = BadRow(line, str(error))
            if bad and self._strict:
                yield from self._parts(rows[:index], texts[:index], lines[:index]) if index else ()
                raise DatasetError(f"line {line}: {bad[index].message}")
            if len(cells) > MAX_COLUMNS:
                raise DatasetError(f"line {line}: {len(cells)} columns, at most {MAX_COLUMNS} are read")
        self._writer.guard_rows(rows, texts)
        ends = {index: self._blank_end(rows, texts, index, row.message) for index, row in bad.items()}
        if values:
            predictions = self._predict(self._model, np.array([*values.values()]))
            ends |= zip(values, map(self._tail_of, predictions), strict=True)
        yield Part("".join(text + ends[index] for index, text in enumerate(texts)), len(rows), [*bad.values()])

    def _row(self, cells: list[str]) -> list[float]:
        if len(cells) != self.place.width:
            raise DatasetError(f"{len(cells)} columns, the header has {self.place.width}")
        return self._model.validator.row([understood(cells[position]) for position in self.place.positions])

    def _blank_end(self, rows: Rows, texts: list[str], index: int, message: str) -> str:
        """Return what follows the cells of a row without an answer: its message, and cells beyond the header's."""
        cells, width, separator = rows[index], self.place.width, self.place.dialect.written
        if len(cells) > width:
            texts[index] = self._writer.texts([cells[:width]])[0]
        blank = separator * (max(0, width - len(cells)) + self.place.added)
        # The surplus cells are guarded already, which changes nothing a second time.
        return blank + self._writer.row([message, *cells[width:]]) + "\n"

    def _tail(self, prediction: Prediction) -> str:
        """Return the new cells of a row as text, with the separator in front and the end of the line."""
        cells = [prediction.label, *map(repr, prediction.probabilities), ""]
        return self.place.dialect.written + self._writer.row(cells) + "\n"


def _answers_of(model: Classifier) -> str:
    names = ([feature.key for feature in model.features], model.labels)
    return hashlib.sha256(msgspec.json.encode(names)).hexdigest()[:12]
