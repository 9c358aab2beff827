"""Score a CSV file row by row: what comes in goes out, with label and probabilities added. Memory stays constant."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ml.classifier import Classifier, Prediction
from ml.csvfile import Reader, feature_of, header_lines, listed, separator_of
from ml.errors import DatasetError
from ml.sample import MAX_NUMBER_CHARACTERS, InvalidSample

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
    separator = separator_of("".join(first)) if len(model.features) > 1 else _separator_or_comma("".join(first))
    reader = csv.reader(itertools.chain(first, source, [_END]), delimiter=separator)
    writer = csv.writer(sink, delimiter=separator, lineterminator="\n")
    # csv puts quotes around "\n" but not around a lone "\r", which would end the row for whoever reads it next.
    quoting_writer = csv.writer(sink, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    try:
        header = next(reader)
        positions = _positions(model, header)
        (quoting_writer if len(first) > 1 else writer).writerow(
            [*header, "predicted_label", *(f"probability_{label}" for label in model.labels)]
        )
        rows = bad = 0
        for lines, chunk, spans in _chunks(reader):
            answers, errors = _answers(model, chunk, positions=positions, width=len(header))
            (quoting_writer if spans else writer).writerows(map(list.__add__, chunk, answers))
            for index, message in errors:
                on_bad(BadRow(lines[index], message))
            rows, bad = rows + len(chunk), bad + len(errors)
            on_rows(len(chunk))
    except csv.Error as error:
        raise DatasetError(f"line {reader.line_num}: {error}") from error
    return Scored(rows, bad)


def _separator_or_comma(header: str) -> str:
    try:
        return separator_of(header)
    except DatasetError:
        return ","  # one column is enough for a model of one feature


def _positions(model: Classifier, header: Sequence[str]) -> list[int]:
    """Return the column of each feature."""
    positions: dict[str, list[int]] = {}
    for index, text in enumerate(header):
        positions.setdefault(feature_of(text).key, []).append(index)
    for feature in model.features:
        found = positions.get(feature.key, [])
        if len(found) != 1:
            many = f"{len(found)} columns are" if found else "no column is"
            raise DatasetError(f"{many} called {feature.title!r}: {listed(header)}")
    return [positions[feature.key][0] for feature in model.features]


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
) -> tuple[Rows, list[tuple[int, str]]]:
    """Return the new cells of each row, and the index of each bad row with what is wrong with it."""
    rows = _plain_rows(model, chunk, positions=positions, width=width)
    errors: list[tuple[int, str]] = []
    if rows is None:
        rows = np.zeros((len(chunk), len(positions)))
        for index, cells in enumerate(chunk):
            try:
                rows[index] = _row(model, cells, positions=positions, width=width)
            except (InvalidSample, DatasetError) as error:
                errors.append((index, str(error)))
    answers = [_cells(prediction) for prediction in model.predict_each(rows)]
    for index, _ in errors:
        missing = max(0, width - len(chunk[index]))
        answers[index] = [""] * (missing + 1 + len(model.labels))
    return answers, errors


@lru_cache(KEPT_ANSWERS)
def _cells(prediction: Prediction) -> list[str]:
    # Predictions of a decision table are shared objects: writing out floats once each is a third of all work.
    return [prediction.label, *map(repr, prediction.probabilities)]


def _plain_rows(model: Classifier, chunk: Rows, *, positions: Sequence[int], width: int) -> NDArray[np.float64] | None:
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
    return rows if model.validator.accepts_all(rows) else None


def _row(model: Classifier, cells: list[str], *, positions: Sequence[int], width: int) -> list[float]:
    if len(cells) != width:
        raise DatasetError(f"{len(cells)} columns, the header has {width}")
    return model.validator.row([cells[position] for position in positions])
