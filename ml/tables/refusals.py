"""Columns that cannot be read: what is wrong with each, and the options that would help, in one message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.tables.contents import Contents
from ml.tables.headers import Column
from ml.tables.marks import Marks, TableMarks, both_readings, written
from ml.tables.numbers import shown_number
from ml.tables.rows import shown

SHOWN_TEXTS = 3
SHOWN_COLUMNS = 50


@dataclass(frozen=True)
class Unusable:
    """A column that cannot be read.

    Attributes:
        reason: what it has, as the rest of a sentence about it.
        options: of the command line, so that nothing is left to complain about.
        readings: for each decimal mark, the value that the first of its open numbers has by it.
    """

    column: Column
    reason: str
    options: tuple[str, ...] = ()
    readings: Mapping[str, float] = field(default_factory=dict)


def marks_of(contents: Contents, table: TableMarks) -> Marks | Unusable:
    """Return the marks of a column's numbers, or what is wrong: they are open, or not as somebody has said."""
    column = contents.column
    if text := table.contradicted_by(contents.evidence):
        return Unusable(column, f"has {shown(text)}, which is not written with the marks that are named", _drop(column))
    return table.of(contents.evidence) or _open_marks(contents)


def _open_marks(contents: Contents) -> Unusable:
    mark, text = next(iter(contents.evidence.open.items()))
    number = written(text)
    assert number is not None
    as_decimal, as_thousands = both_readings(number)
    other = "," if mark == "." else "."
    reason = (
        f"can be read in two ways: {shown(text)} is {shown_number(as_decimal)} (--decimal {mark}) or "
        f"{shown_number(as_thousands)} (--decimal {other})"
    )
    return Unusable(contents.column, reason, readings={mark: as_decimal, other: as_thousands})


def disagreeing(contents: Contents) -> Unusable:
    """Return what is wrong with numbers that do not agree with each other."""
    reason = f"has numbers that do not agree: {contents.disagreement}; --keep takes them as words"
    return Unusable(contents.column, reason, _drop(contents.column))


def beyond_limits(
    column: Column, values: NDArray[np.float64], beyond: NDArray[np.bool_], lines: NDArray[np.int64], why: str
) -> Unusable:
    """Return what is wrong with a column that has values beyond what is possible; `lines` are those of its rows."""
    first = int(beyond.argmax())
    where = f"{shown_number(float(values[first]))} on line {lines[first]}"
    return Unusable(column, f"has a value {why} in {rows(int(beyond.sum()))}: {where}", _drop(column))


def mistakes(contents: Contents, odd: Sequence[int], kept: NDArray[np.bool_], lines: NDArray[np.int64]) -> Unusable:
    """Return what is wrong with a column of numbers that has a few other texts.

    Args:
        odd: the indices of these texts.
        kept, lines: see `ml.tables.kinds.Kinds`.
    """
    codes = contents.codes[kept]
    is_odd = np.isin(codes, odd)
    firsts = [(int((codes == code).argmax()), contents.texts[code]) for code in odd[:SHOWN_TEXTS]]
    examples = ", ".join(f"{shown(text)} (line {lines[row]})" for row, text in sorted(firsts))
    more = f", and {len(odd) - SHOWN_TEXTS} more" if len(odd) > SHOWN_TEXTS else ""
    reason = (
        f"has numbers, and something else in {rows(int(is_odd.sum()))}: {examples}{more}; --missing reads a text as no "
        "value, --keep takes all of them as words"
    )
    options = tuple(option for _, text in firsts for option in ("--missing", text))
    return Unusable(contents.column, reason, _drop(contents.column) if more else options)


def refusal_of(unusable: Sequence[Unusable], n_columns: int, hint: str) -> TableError:
    """Return the error of a table that has `n_columns` columns, some of which cannot be read, and a hint if any."""
    lines = [f"column {shown(one.column.header)} {one.reason}" for one in unusable[:SHOWN_COLUMNS]]
    if len(unusable) > SHOWN_COLUMNS:
        lines.append(f"and {len(unusable) - SHOWN_COLUMNS} more")
    message, *rest = lines if len(lines) == 1 else [f"{len(unusable)} of {n_columns} columns cannot be used", *lines]
    rest += [hint] if hint else []
    shared = tuple(option for one in unusable for option in one.options)
    is_open = next((one for one in unusable if one.readings), None)
    if is_open is None:
        return TableError(message, details=rest, remedies=[("this would work", shared)] if shared else [])
    remedies = [
        (f"with {shown_number(value)} in {shown(is_open.column.header)}, this would work", (*shared, "--decimal", mark))
        for mark, value in is_open.readings.items()
    ]
    return TableError(message, details=rest, remedies=remedies)


def rows(number: int) -> str:
    """Return a number of rows in words."""
    return f"{number} row" if number == 1 else f"{number} rows"


def _drop(column: Column) -> tuple[str, ...]:
    return ("--drop", column.argument)
