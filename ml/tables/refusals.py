"""Columns that cannot be read, with options that would help, in one message; and why nothing is learned from others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError, in_quotes
from ml.tables.contents import Contents
from ml.tables.headers import Column
from ml.tables.marks import Marks, TableMarks, both_readings, written
from ml.tables.numbers import shown_number

# So few different texts are a category, be they numbers beside words, or different in almost every row.
FEW = 20
# More than this with no text twice are no category.
FEW_ALL_DIFFERENT = 5
# Text rather than a category is what is different in more than this share of rows, or has so many words that choices of
# a category stand in less than that share of rows.
MOSTLY_DIFFERENT = 0.5
WORTH_CHOOSING = 0.2
# What a reason begins with that is about texts.
TEXT = "text"

SHOWN_TEXTS = 3
SHOWN_COLUMNS = 50
_IDENTIFIERS = {
    "id", "index", "idx", "row", "rowid", "row_id", "rowname", "rownames", "row_name", "row_names", "row_number",
    "row_num", "rownum", "obs", "no", "nr", "sno", "s_no", "sl_no", "sr_no", "serial", "serial_no", "serial_number",
    "uuid", "guid", "unnamed_0",
}  # fmt: skip
_IDENTIFIER = re.compile(r".*[_ .-]id|id[_ .-].*|.*[a-z]I[dD]", re.DOTALL)
_BY_PLACE = re.compile(r"column_[0-9]+")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_ZONE = r"(?: ?(?:z|utc|gmt|[+-][0-9]{2}:?[0-9]{2}))?"
_TIME = rf"[0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:[.,][0-9]+)?)?(?: ?[ap]\.?m\.?)?{_ZONE}"
_DATE = (
    r"(?:[0-9]{4}[-/.][0-9]{1,2}(?:[-/.][0-9]{1,2})?|[0-9]{1,2}([-/.])[0-9]{1,2}\1[0-9]{2,4}"
    rf"|[0-9]{{1,2}}[- .]+{_MONTH}[- ,]+[0-9]{{2,4}}|{_MONTH} [0-9]{{1,2}},? [0-9]{{4}}|{_MONTH}[- ][0-9]{{2,4}})"
)
_DATE_OR_TIME = re.compile(rf"{_DATE}(?:[t ]{_TIME})?|{_TIME}", re.IGNORECASE)


def reason_against_number(column: Column, different: NDArray[np.float64], n_rows: int, *, has_gaps: bool) -> str:
    """Return why nothing can be learned from numbers, which come without repetition, in their order; or nothing."""
    if len(different) == 1 and not has_gaps:
        return f"every row has {shown_number(float(different[0]))}"
    if not is_other_in_each_row(different, n_rows):
        return ""
    low, high = different[0], different[-1]
    if high - low == n_rows - 1:
        return f"row numbers, {shown_number(float(low))} to {shown_number(float(high))}"
    return _named_identifier(column.header)


def is_other_in_each_row(different: NDArray[np.float64], n_rows: int) -> bool:
    """Return whether numbers, which come without repetition, are whole and stand in one row each, as identifiers do."""
    return len(different) == n_rows and bool(np.all(different == np.round(different)))


def reason_against_words(column: Column, texts: Sequence[str], n_rows: int, n_gaps: int, n_chosen: int) -> str:
    """Return why nothing can be learned from words; or nothing.

    Args:
        texts: without repetition.
        n_chosen: how many rows have the most frequent ones, as many as a category can have.
    """
    n_given = n_rows - n_gaps
    if len(texts) == 1 and not n_gaps:
        return f"every row has {in_quotes(texts[0])}"
    if all(map(_DATE_OR_TIME.fullmatch, texts)):
        return f"dates or times, as {in_quotes(texts[0])}"
    if len(texts) == n_given and (reason := _named_identifier(column.header)):
        return reason
    if len(texts) == n_given > FEW_ALL_DIFFERENT:
        return f"{TEXT}, another one in each row, as {in_quotes(texts[0])}"
    if len(texts) > FEW and (len(texts) > MOSTLY_DIFFERENT * n_given or n_chosen < WORTH_CHOOSING * n_given):
        return f"{TEXT}, {len(texts)} different in {rows(n_given)}, as {in_quotes(texts[0])}"
    return ""


def _named_identifier(header: str) -> str:
    """Return why a column of this name has no use where each row has another value; or nothing."""
    if _BY_PLACE.fullmatch(header):
        return "another value in each row, and its column has no name"
    key = re.sub(r"\W+", "_", header.casefold()).strip("_")
    is_named = key in _IDENTIFIERS or _IDENTIFIER.fullmatch(header)
    return "an identifier, another one in each row" if is_named else ""


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
        return Unusable(
            column, f"has {in_quotes(text)}, which is not written with the marks that are named", _drop(column)
        )
    return table.of(contents.evidence) or _open_marks(contents)


def _open_marks(contents: Contents) -> Unusable:
    mark, text = next(iter(contents.evidence.open.items()))
    number = written(text)
    assert number is not None
    as_decimal, as_thousands = both_readings(number)
    other = "," if mark == "." else "."
    reason = (
        f"can be read in two ways: {in_quotes(text)} is {shown_number(as_decimal)} (--decimal {mark}) or "
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
    examples = ", ".join(f"{in_quotes(text)} (line {lines[row]})" for row, text in sorted(firsts))
    more = f", and {len(odd) - SHOWN_TEXTS} more" if len(odd) > SHOWN_TEXTS else ""
    reason = (
        f"has numbers, and something else in {rows(int(is_odd.sum()))}: {examples}{more}; --missing reads a text as no "
        "value, --keep takes all of them as words"
    )
    options = tuple(option for _, text in firsts for option in with_value("--missing", text))
    return Unusable(contents.column, reason, _drop(contents.column) if more else options)


def refusal_of(unusable: Sequence[Unusable], n_columns: int, hint: str) -> TableError:
    """Return the error of a table that has `n_columns` columns, some of which cannot be read, and a hint if any."""
    lines = [f"column {in_quotes(one.column.header)} {one.reason}" for one in unusable[:SHOWN_COLUMNS]]
    if len(unusable) > SHOWN_COLUMNS:
        lines.append(f"and {len(unusable) - SHOWN_COLUMNS} more")
    message, *rest = lines if len(lines) == 1 else [f"{len(unusable)} of {n_columns} columns cannot be used", *lines]
    rest += [hint] if hint else []
    shared = tuple(option for one in unusable for option in one.options)
    is_open = next((one for one in unusable if one.readings), None)
    if is_open is None:
        return TableError(message, details=rest, remedies=[("this would work", shared)] if shared else [])
    remedies = [
        (
            f"with {shown_number(value)} in {in_quotes(is_open.column.header)}, this would work",
            (*shared, "--decimal", mark),
        )
        for mark, value in is_open.readings.items()
    ]
    return TableError(message, details=rest, remedies=remedies)


def rows(number: int) -> str:
    """Return a number of rows in words."""
    return f"{number} row" if number == 1 else f"{number} rows"


def with_value(option: str, text: str) -> tuple[str, ...]:
    """Return the arguments that give an option a text; one that begins with - would be read as another option."""
    return (f"{option}={text}",) if text.startswith("-") else (option, text)


def _drop(column: Column) -> tuple[str, ...]:
    return with_value("--drop", column.argument)
