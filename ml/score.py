"""Score a CSV file row by row: what comes in goes out, with label and probabilities added. Memory stays constant."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import add
from types import SimpleNamespace
from typing import Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from ml.classifier import Classifier, Prediction
from ml.csvfile import Reader, feature_of, header_lines, listed, separator_of
from ml.dataset import Feature
from ml.errors import DatasetError
from ml.sample import MAX_NUMBER_CHARACTERS, InvalidSample, Validator

CHUNK_ROWS = 4_096
KEPT_ANSWERS = 8_192
# A blank line after the last one is no row of its own, unless a quote is still open: then it ends up in its cell.
_END = "\n"

Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be scored: its line in the file, counted from 1, and why."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Scored:
    """How many rows were read, and how many of them were left blank."""

    rows: int
    bad: int


def score(
    model: Classifier,
    source: TextIO,
    sink: TextIO,
    *,
    on_bad: Callable[[BadRow], None],
    on_rows: Callable[[int], object] = lambda _rows: None,
) -> Scored:
    """Copy a table from `source` to `sink` with the model's answers in new columns at its end.

    The columns of the features may stand in any order and with any others between them.

    Args:
        source: text opened with newline="": a header row, then rows.
        sink: text opened with newline="".
        on_bad: is told each row that has no answer; its new columns stay empty. It may raise to stop.
        on_rows: is told the number of rows each time some were written.

    Raises:
        DatasetError: there is no header, or it lacks a feature, or the file is not CSV.
    """
    first = header_lines(source)
    separator = separator_of("".join(first)) if len(model.features) > 1 else separator_or_comma("".join(first))
    reader = csv.reader(itertools.chain(first, source, [_END]), delimiter=separator)
    tails = _Tails(separator)
    try:
        header = next(reader)
        added = ["predicted_label", *(f"probability_{label}" for label in model.labels)]
        # csv puts quotes around "\n" but not around a lone "\r", which would end the row for whoever reads it next.
        positions = positions_of(model.features, header)
        sink.writelines(_encoded([[*header, *added]], separator, quote_all=len(first) > 1))
        rows = bad = 0
        for lines, chunk, spans in _chunks(reader):
            answers, errors = _answers(model, chunk, positions=positions, width=len(header))
            ends = list(map(tails.of, answers))
            for index, _ in errors:
                missing = max(0, len(header) - len(chunk[index]))
                ends[index] = separator * (missing + len(added)) + "\n"
            sink.writelines(map(add, _starts(chunk, separator, spans=spans), ends))
            for index, message in errors:
                on_bad(BadRow(lines[index], message))
            rows, bad = rows + len(chunk), bad + len(errors)
            on_rows(len(chunk))
    except csv.Error as error:
        raise DatasetError(f"line {reader.line_num}: {error}") from error
    return Scored(rows, bad)


class _Tails:
    """The new cells of each row as text, with the separator in front and the end of the line."""

    def __init__(self, separator: str) -> None:
        self._separator = separator
        # Predictions of a decision table are shared objects: writing out floats once each is a third of all work.
        self.of = lru_cache(KEPT_ANSWERS)(self._of)

    def _of(self, prediction: Prediction) -> str:
        cells = [prediction.label, *map(repr, prediction.probabilities)]
        return self._separator + _encoded([cells], self._separator, quote_all=False)[0]


def _starts(chunk: Rows, separator: str, *, spans: bool) -> list[str]:
    """Return rows as text without the end of the line, as csv writes them.

    Where no cell needs quotes, as nearly always, joining cells gives the same text in a fraction of the time.
    """
    joined = list(map(separator.join, chunk))
    text = "".join(joined)
    if not spans and '"' not in text and text.count(separator) == sum(map(len, chunk)) - len(chunk):
        return joined
    return [line.removesuffix("\n") for line in _encoded(chunk, separator, quote_all=spans)]


def _encoded(rows: Rows, separator: str, *, quote_all: bool) -> list[str]:
    """Return each row as csv writes it, with the end of the line."""
    lines: list[str] = []
    sink = SimpleNamespace(write=lines.append)  # csv writes a row at a time
    quoting: Literal[0, 1] = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(sink, delimiter=separator, lineterminator="\n", quoting=quoting).writerows(rows)
    return lines


def separator_or_comma(header: str) -> str:
    """Return the separator of a header; of one that has only one column, the comma."""
    try:
        return separator_of(header)
    except DatasetError:
        return ","  # one column is enough for a model of one feature


def positions_of(features: Sequence[Feature], header: Sequence[str]) -> list[int]:
    """Return the column of each feature.

    Raises:
        DatasetError: the header lacks a feature, or has it twice.
    """
    positions: dict[str, list[int]] = {}
    for index, text in enumerate(header):
        positions.setdefault(feature_of(text).key, []).append(index)
    for feature in features:
        found = positions.get(feature.key, [])
        if len(found) != 1:
            many = f"{len(found)} columns are" if found else "no column is"
            raise DatasetError(f"{many} called {feature.title!r}: {listed(header)}")
    return [positions[feature.key][0] for feature in features]


def _chunks(reader: Reader) -> Iterator[tuple[Sequence[int], Rows, bool]]:
    """Yield rows that are not blank, many at once, with the line on which each starts, and whether any spans lines.

    Raises:
        DatasetError: a quote is still open at the end. All that follows it would be lost in one cell.
    """
    last_row: list[str] = []
    last_line = 1
    while True:
        before = reader.line_num
        chunk = list(itertools.islice(reader, CHUNK_ROWS))
        lines: Sequence[int] = range(before + 1, reader.line_num + 1)
        spans = len(lines) != len(chunk)
        if spans:
            # Quoted cells span lines; csv counts those it read, so the line breaks inside the cells tell the rest.
            lines = list(itertools.accumulate((1 + sum(map(_breaks, row)) for row in chunk), initial=before + 1))
        if chunk:
            last_row, last_line = chunk[-1], lines[len(chunk) - 1]
        if len(chunk) < CHUNK_ROWS and last_row:
            raise DatasetError(f"line {last_line}: a quote is opened and never closed")
        if not chunk:
            return
        if not all(chunk):
            kept = [index for index, row in enumerate(chunk) if row]
            lines, chunk = [lines[index] for index in kept], [chunk[index] for index in kept]
        yield lines, chunk, spans


def _breaks(cell: str) -> int:
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n")


def _answers(
    model: Classifier, chunk: Rows, *, positions: Sequence[int], width: int
) -> tuple[list[Prediction], list[tuple[int, str]]]:
    """Return an answer for each row, and the index of each bad row, whose answer means nothing, with what is wrong."""
    rows = plain_rows(model.validator, chunk, positions=positions, width=width)
    errors: list[tuple[int, str]] = []
    if rows is None:
        rows = np.zeros((len(chunk), len(positions)))
        for index, cells in enumerate(chunk):
            try:
                rows[index] = _row(model, cells, positions=positions, width=width)
            except (InvalidSample, DatasetError) as error:
                errors.append((index, str(error)))
    return model.predict_each(rows), errors


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


def _row(model: Classifier, cells: list[str], *, positions: Sequence[int], width: int) -> list[float]:
    if len(cells) != width:
        raise DatasetError(f"{len(cells)} columns, the header has {width}")
    return model.validator.row([cells[position] for position in positions])
