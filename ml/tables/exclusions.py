"""Why nothing can be learned from a column: it is constant, numbers its rows, or has dates or texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml.tables.headers import Column
from ml.tables.numbers import shown_number
from ml.tables.refusals import rows
from ml.tables.rows import shown

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
        return f"every row has {shown(texts[0])}"
    if all(map(_DATE_OR_TIME.fullmatch, texts)):
        return f"dates or times, as {shown(texts[0])}"
    if len(texts) == n_given and (reason := _named_identifier(column.header)):
        return reason
    if len(texts) == n_given > FEW_ALL_DIFFERENT:
        return f"{TEXT}, another one in each row, as {shown(texts[0])}"
    if len(texts) > FEW and (len(texts) > MOSTLY_DIFFERENT * n_given or n_chosen < WORTH_CHOOSING * n_given):
        return f"{TEXT}, {len(texts)} different in {rows(n_given)}, as {shown(texts[0])}"
    return ""


def _named_identifier(header: str) -> str:
    """Return why a column of this name has no use where each row has another value; or nothing."""
    if _BY_PLACE.fullmatch(header):
        return "another value in each row, and its column has no name"
    key = re.sub(r"\W+", "_", header.casefold()).strip("_")
    is_named = key in _IDENTIFIERS or _IDENTIFIER.fullmatch(header)
    return "an identifier, another one in each row" if is_named else ""
