"""Score a CSV file row by row: what comes in goes out, with label and probabilities added. Memory stays constant."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add
from types import SimpleNamespace
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ml.errors import DatasetError
from ml.model.classifier import Classifier, Prediction
from ml.model.sample import FieldError, InvalidSample, Validator
from ml.tables.csvfile import BLOCK_CHARACTERS, MAX_COLUMNS, feature_of, listed
from ml.tables.dataset import Feature
from ml.tables.numbers import MAX_NUMBER_CHARACTERS, is_number
from ml.tables.rows import Block, RowReader

# A part has at most so many cells; of rows that the validator has to look at one by one, so many rows.
MAX_PART_CELLS = 2**15
MAX_ODD_ROWS = 128
# So many names of columns are understood at once, in 3 ms; parts without text come in between.
_KEYS_A_PART = 512
# Answers that were written out are kept, as many as have about so many characters.
_KEPT_CHARACTERS = 2**22
_PROBABILITY_CHARACTERS = 20

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

Rows = list[list[str]]
Predict = Callable[[NDArray[np.float64]], list[Prediction]]


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
) -> Scored:
    """Copy a table from `source` to `sink` with the model's answers in new columns at its end.

    Args:
        source: text opened with newline="": a header row, then rows.
        sink: text opened with newline="".
        on_bad: is told each row that has no answer. It may raise to stop.
        on_rows: is told the number of rows each time some were written.
        guarded: as for `Scorer`.

    Raises:
        DatasetError: as `Scorer.feed` and `Scorer.finish`.
    """
    scorer = Scorer(model, guarded=guarded)
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
        guarded: mark cells that a spreadsheet would take for formulas, see `guard`.
        predict: stands in for the model's own `predict_each`, to measure or count what it is asked.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        max_cells: int = MAX_PART_CELLS,
        guarded: bool = False,
        predict: Predict | None = None,
    ) -> None:
        self._model = model
        self._predict = predict or model.predict_each
        self._max_cells = max_cells
        self._guarded = guarded
        self._reader = RowReader(allow_one_column=len(model.features) == 1)
        self._table: _Table | None = None

    def feed(self, text: str) -> Iterator[Part]:
        """Take text, and yield what is complete by now: the header, and rows.

        Raises:
            DatasetError: there is no header, or it lacks a feature, or the text is not CSV. The rows before were
                yielded.
        """
        yield from self._score(self._reader.feed(text))

    def finish(self) -> Iterator[Part]:
        """Yield what is left: no more text comes.

        Raises:
            DatasetError: as `feed`; or a quote is still open, so that all that follows it would be lost in one cell.
        """
        yield from self._score(self._reader.finish())

    def last_row(self, message: str) -> str:
        """Return a row with nothing but a message, for a table that has to end after its header and before its end."""
        assert self._table is not None
        return self._table.row_of(message)

    def _score(self, blocks: Iterator[Block]) -> Iterator[Part]:
        for block in blocks:
            if self._table is None:
                keys: list[str] = []
                (header,) = block.rows
                if len(header) > MAX_COLUMNS:
                    raise DatasetError(f"the header has {len(header)} columns, at most {MAX_COLUMNS} are read")
                for start in range(0, len(header), _KEYS_A_PART):
                    if start:
                        yield Part("", 0)
                    keys += [feature_of(text).key for text in header[start : start + _KEYS_A_PART]]
                self._table = _Table(
                    self._model, header, keys, self._reader.separator,
                    max_cells=self._max_cells, guarded=self._guarded, predict=self._predict,
                )  # fmt: skip
                self._reader.max_rows = self._table.max_rows
                yield Part(self._table.header, 0)
            else:
                yield from self._table.parts(block)


class _Table:
    """How the rows of one table are scored and written.

    Raises:
        DatasetError: the header lacks a feature, or has it twice, or has too many columns.

    Attributes:
        header: the header row as it is written.
        max_rows: the most rows that are scored at once.
    """

    def __init__(
        self,
        model: Classifier,
        header: list[str],
        keys: list[str],
        separator: str,
        *,
        max_cells: int,
        guarded: bool,
        predict: Predict,
    ) -> None:
        self.separator = separator
        self._model = model
        self._predict = predict
        self._positions = _positions_of(model.features, header, keys)
        self._width = len(header)
        self._guarded = guarded
        self._others = sorted(set(range(self._width)) - set(self._positions))
        added = added_columns(header, model.labels)
        cells = [*header, *added]
        self.header = self._encoded([[*map(guard, cells)] if guarded else cells])[0] + "\n"
        self._blank = self.separator * len(added)
        self.max_rows = max(1, min(max_cells // len(cells), model.slice_rows))
        # Predictions of a decision table are shared objects: writing out floats once each is a third of all work.
        kept = _KEPT_CHARACTERS // (_PROBABILITY_CHARACTERS * len(added))
        self._tail_of = lru_cache(kept)(self._tail)

    def row_of(self, message: str) -> str:
        """Return a row that has only a message."""
        last = self._encoded([self._last_cells([], message)])[0]
        return self.separator * (self._width - 1) + self._blank + last + "\n"

    def parts(self, block: Block) -> Iterator[Part]:
        """Yield the parts that a block of rows becomes."""
        texts = self._encoded(block.rows) if block.texts is None else block.texts
        return self._parts(block.rows, texts, block.lines)

    def _parts(self, rows: Rows, texts: list[str], numbers: Sequence[int]) -> Iterator[Part]:
        values = plain_rows(self._model.validator, rows, positions=self._positions, width=self._width)
        if values is not None:
            if self._guarded and self._others:
                self._guard(rows, texts, self._others)
            ends = map(self._tail_of, self._predict(values))
            yield Part("".join(map(add, texts, ends)), len(rows))
        elif len(rows) > MAX_ODD_ROWS:
            for at in range(0, len(rows), MAX_ODD_ROWS):
                odd = slice(at, at + MAX_ODD_ROWS)
                yield from self._parts(rows[odd], texts[odd], numbers[odd])
        else:
            yield self._odd_part(rows, texts, numbers)

    def _odd_part(self, rows: Rows, texts: list[str], numbers: Sequence[int]) -> Part:
        """Return the part of rows that go through the validator one by one."""
        values: list[list[float]] = []
        good: list[int] = []
        bad: list[tuple[int, BadRow]] = []
        for index, cells in enumerate(rows):
            try:
                values.append(self._row(cells))
                good.append(index)
            except InvalidSample as error:
                bad.append((index, BadRow(numbers[index], str(error), error.errors)))
            except DatasetError as error:
                bad.append((index, BadRow(numbers[index], str(error))))
            if len(cells) > MAX_COLUMNS:
                raise DatasetError(f"line {numbers[index]}: {len(cells)} columns, at most {MAX_COLUMNS} are read")
        if self._guarded:
            self._guard_all(rows, texts)
        ends = [""] * len(rows)
        if good:
            for index, prediction in zip(good, self._predict(np.array(values)), strict=True):
                ends[index] = self._tail_of(prediction)
        lasts = [self._last_cells(rows[index], row.message) for index, row in bad]
        for (index, _), last in zip(bad, self._encoded(lasts), strict=True):
            cells = rows[index]
            if len(cells) > self._width:
                texts[index] = self._encoded([cells[: self._width]])[0]
            ends[index] = self.separator * max(0, self._width - len(cells)) + self._blank + last + "\n"
        return Part("".join(map(add, texts, ends)), len(rows), [row for _, row in bad])

    def _row(self, cells: list[str]) -> list[float]:
        if len(cells) != self._width:
            raise DatasetError(f"{len(cells)} columns, the header has {self._width}")
        return self._model.validator.row([cells[position] for position in self._positions])

    def _last_cells(self, cells: list[str], message: str) -> list[str]:
        """Return what comes after the empty cells of a row without an answer: why, and its surplus cells."""
        return [guard(message) if self._guarded else message, *cells[self._width :]]

    def _tail(self, prediction: Prediction) -> str:
        """Return the new cells of a row as text, with the separator in front and the end of the line."""
        label = guard(prediction.label) if self._guarded else prediction.label
        cells = [label, *map(repr, prediction.probabilities), ""]
        return self.separator + self._encoded([cells])[0] + "\n"

    def _guard(self, rows: Rows, texts: list[str], columns: Sequence[int]) -> None:
        """Mark the cells in these columns, in the rows and in their texts."""
        if len(rows) < len(columns):
            self._guard_all(rows, texts)
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

    def _guard_all(self, rows: Rows, texts: list[str]) -> None:
        """Mark the cells of rows that need not have the same number of them."""
        changed: set[int] = set()
        for index, cells in enumerate(rows):
            if _has_risk(cells):
                # Rows of thousands of cells have mostly the same ones.
                safe = {cell: guard(cell) for cell in set(cells)}
                rows[index] = [safe[cell] for cell in cells]
                changed.add(index)
        self._write_anew(rows, texts, changed)

    def _write_anew(self, rows: Rows, texts: list[str], changed: Collection[int]) -> None:
        for index, text in zip(changed, self._encoded([rows[index] for index in changed]), strict=True):
            texts[index] = text

    def _encoded(self, rows: Rows) -> list[str]:
        """Return each row as csv writes it, without the end of the line.

        Where no cell needs quotes, joining cells gives the same text in a fraction of the time.
        """
        joined = list(map(self.separator.join, rows))
        text = "".join(joined)
        if not any(mark in text for mark in '"\r\n') and text.count(self.separator) == sum(map(len, rows)) - len(rows):
            return joined
        lines: list[str] = []
        sink = SimpleNamespace(write=lines.append)  # csv writes a row at a time
        # Both characters in the line's end: csv puts quotes around those alone, and not around any other lone "\r".
        csv.writer(sink, delimiter=self.separator, lineterminator="\r\n").writerows(rows)
        return [line[:-2] for line in lines]


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


def added_columns(header: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the names of the new columns: label, probabilities, and why there are none; with a number behind those
    that the header has already."""
    names: list[str] = []
    taken = set(header)
    for wanted in ["predicted_label", *(f"probability_{label}" for label in labels), "prediction_error"]:
        numbered = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
        names.append(next(name for name in numbered if name not in taken))
        taken.add(names[-1])
    return names


def positions_of(features: Sequence[Feature], header: Sequence[str]) -> list[int]:
    """Return the column of each feature.

    Raises:
        DatasetError: the header lacks a feature, or has it twice.
    """
    return _positions_of(features, header, [feature_of(text).key for text in header])


def _positions_of(features: Sequence[Feature], header: Sequence[str], keys: Sequence[str]) -> list[int]:
    positions: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        positions.setdefault(key, []).append(index)
    for feature in features:
        found = positions.get(feature.key, [])
        if len(found) != 1:
            many = f"{len(found)} columns are" if found else "no column is"
            raise DatasetError(f"{many} called {feature.title!r}: {listed(header)}")
    return [positions[feature.key][0] for feature in features]


def plain_rows(
    validator: Validator, chunk: Rows, *, positions: Sequence[int], width: int
) -> NDArray[np.float64] | None:
    """Return the rows of a chunk in which every number is plain; None sends the chunk through the validator.

    float() reads a plain number as the validator does, several times as fast; what it reads beyond that is sorted out:
    digits of other scripts, underscores, overlong text, infinities and NaN.
    """
    if set(map(len, chunk)) != {width}:
        return None
    columns = list(zip(*chunk, strict=True))
    rows = np.empty((len(chunk), len(positions)))
    try:
        for number, position in enumerate(positions):
            column = columns[position]
            text = "".join(column)
            if "_" in text or not text.isascii() or max(map(len, column)) > MAX_NUMBER_CHARACTERS:
                return None
            rows[:, number] = np.fromiter(map(float, column), dtype=np.float64, count=len(chunk))
    except ValueError:
        return None
    return rows if validator.accepts_all(rows) else None
