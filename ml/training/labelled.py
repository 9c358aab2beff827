"""Measure a model on any table that says what is true: another file than that of its training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError, in_quotes
from ml.model.card import QuantityReport, Report
from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from ml.scoring.cells import CellsReader
from ml.scoring.layout import name_of, positions_of
from ml.tables.contents import Contents, contents_of, is_marker_of_numbers
from ml.tables.dataset import UNKNOWN
from ml.tables.headers import Column, columns_of, find, listed
from ml.tables.marks import Marks, TableMarks
from ml.tables.numbers import NotANumber, number_of
from ml.tables.refusals import Unusable, marks_of, refusal_of, rows
from ml.tables.table import Table
from ml.tables.targets import keys_of
from ml.training.measuring import Split, report_of

SLICE_ROWS = 4_096
SHOWN_ERRORS = 3
# This share of the training rows, besides those that stand there twice, may be in another table by chance.
MOST_BY_CHANCE = 0.1


@dataclass(frozen=True)
class Measured:
    """A report, and a sentence for each thing that was left out."""

    report: Report | QuantityReport
    said: tuple[str, ...]


def measured(
    model: LoadedModel,
    table: Table,
    *,
    target: str | None = None,
    missing: Sequence[str] = (),
    marks: Marks | None = None,
) -> Measured:
    """Return how well a model answers the rows of a table.

    Args:
        target: the column that says what is true; None is the one with the name of the trained target.
        missing: texts in it that stand for no value, besides those that are known.
        marks: those of all numbers, if somebody has said them; else the model's.

    Raises:
        TableError: a column is not there, or no row can be measured.
    """
    marks = marks or (Marks() if table.has_types else None)
    names = [name_of(text, number) for number, text in enumerate(table.header, 1)]
    positions = positions_of(model.features, names)
    trained = model.card.target.title
    if not (target or trained):
        raise TableError("name the column that says what is true with --target")
    columns = columns_of(table.header)
    contents = _contents(table, find(target or trained, columns), missing, plain=False)
    # As in training, other columns settle what the marks of this one leave open.
    others = [_contents(table, column, missing) for column in columns] if contents.evidence.open else [contents]
    evidence = [one.evidence for one in others if one.kind == "numbers"]
    settled = marks_of(contents, TableMarks(evidence, decimal=marks.decimal if marks else None, thousands=None))
    outcomes, said = _true(model, contents, missing, settled, lines=table.lines)
    values, wrong = _values(model, [table.columns[position].tolist() for position in positions], table, marks)
    is_measured = ~np.isnan(outcomes)
    is_measured[[*wrong]] = False
    if not is_measured.any():
        raise TableError("no row can be measured", details=[*said, *wrong.values()])
    errors = "; ".join([*wrong.values()][:SHOWN_ERRORS])
    said += _left_out(len(wrong), f"without an answer: {errors}")
    values, outcomes = values[is_measured], outcomes[is_measured]
    said += _known_rows(model, values)
    # What always answers the most frequent label, or the median, knows those of this table.
    report = report_of(model, Split(values, values, outcomes, outcomes))
    return Measured(msgspec.structs.replace(report, train_rows=None), tuple(said))


def _contents(table: Table, column: Column, missing: Sequence[str], *, plain: bool = True) -> Contents:
    return contents_of(column, table.columns[column.index], has_types=table.has_types, missing=missing, plain=plain)


def _true(
    model: LoadedModel, contents: Contents, missing: Sequence[str], found: Marks | Unusable, *, lines: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[str]]:
    """Return the class or quantity of each row, NaN where it is not known, and what was left out."""
    name = in_quotes(contents.column.header)
    if contents.kind == "numbers" and isinstance(found, Unusable):
        raise refusal_of([found], 1, "")
    if model.labels:
        keys = keys_of(contents, found, missing)
        by_text = np.array(_indices(keys, model.labels))
        is_empty = np.array([key is None for key in keys])
    elif contents.kind == "numbers" and isinstance(found, Marks):
        outcomes = contents.values_by(found)
        return outcomes, _left_out(int(np.isnan(outcomes).sum()), f"without a value in {name}")
    else:
        is_odd = [number is None and not (not text or text in missing or is_marker_of_numbers(text))
                  for text, number in zip(contents.texts, contents.numbers, strict=True)]  # fmt: skip
        odd = np.array(is_odd)[contents.codes]
        first = int(odd.argmax())
        where = f", as {in_quotes(contents.texts[contents.codes[first]])} on line {lines[first]}" if odd.any() else ""
        raise TableError(f"column {name} has other texts than numbers{where}; --missing reads a text as no value")
    counts = np.bincount(contents.codes, minlength=len(keys))
    is_unknown = np.isnan(by_text) & ~is_empty
    unknown = [text for text, is_one in zip(contents.texts, is_unknown, strict=True) if is_one]
    said = [
        *_left_out(int(counts[is_unknown].sum()), f"of classes that the model does not know: {listed(unknown)}"),
        *_left_out(int(counts[is_empty].sum()), f"without a value in {name}"),
    ]
    return by_text[contents.codes], said


def _left_out(n_rows: int, why: str) -> list[str]:
    return [f"left out {rows(n_rows)} {why}"] if n_rows else []


def _known_rows(model: LoadedModel, values: NDArray[np.float64]) -> list[str]:
    """Return a warning if more of the training rows that the model keeps are among these than chance explains."""
    known, found = _distinct(model, model.reference_rows), _distinct(model, values)
    n_known = known.total()
    n_found = sum(count for row, count in known.items() if row in found)
    n_repeated = sum(count for count in known.values() if count > 1)
    report = model.card.report
    if n_found <= n_repeated + MOST_BY_CHANCE * n_known or report is None or report.train_rows is None:
        return []
    way_out = "; --data before the name of the table measures the others alone" if model.card.recipe else ""
    return [
        f"warning: the model was trained on rows of this table, so that new rows are answered worse: {n_found} of "
        f"{n_known} training rows that its file keeps are here{way_out}"
    ]


def _distinct(model: LoadedModel, values: NDArray[np.float64]) -> Counter[bytes]:
    """Return the different rows; in those of the training, a rare word has no value."""
    is_word = np.array([bool(feature.choices) for feature in model.features])
    has_none = np.isnan(values) | (is_word & (values == UNKNOWN))
    return Counter(row.tobytes() for row in np.where(has_none, np.nan, values + 0.0))


def _indices(keys: Sequence[float | str | None], labels: Sequence[str]) -> list[float]:
    """Return the index of the label that each key is of, NaN for none; a full stop behind all of them is ignored."""
    known: dict[float | str, int] = {}
    for index, label in enumerate(labels):
        known[" ".join(label.casefold().split())] = index
        with suppress(NotANumber):
            known[number_of(label)] = index
    found = [np.nan if key is None else known.get(key, np.nan) for key in keys]
    if np.isnan(found).all():
        found = [known.get(key.rstrip("."), np.nan) if isinstance(key, str) else np.nan for key in keys]
    return found


def _values(
    model: LoadedModel, columns: Sequence[Sequence[str]], table: Table, marks: Marks | None
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return the values of each row, shape (n_rows, n_features), and by its index why one has none."""
    reader = CellsReader(model, marks)
    values = np.full((len(table.lines), len(columns)), np.nan)
    wrong: dict[int, str] = {}
    for start in range(0, len(table.lines), SLICE_ROWS):
        part = slice(start, start + SLICE_ROWS)
        read = reader.many([column[part] for column in columns])
        if read is not None:
            values[part] = read
            continue
        for index, cells in enumerate(zip(*(column[part] for column in columns), strict=True), start):
            try:
                values[index] = reader.one(cells)
            except InvalidSample as error:
                wrong[index] = f"line {table.lines[index]}: {error}"
    return values, wrong
