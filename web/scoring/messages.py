"""The messages of a file that comes over the websocket /score, as types. Knows nothing of their encoding."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from ml.model.sample import FieldError


class RowError(msgspec.Struct, frozen=True):
    """A row without an answer: its line, counted from 1, why, and the cells of the features if it has all cells."""

    line: int
    message: str
    errors: Sequence[FieldError]
    cells: Sequence[str]


class ListedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with an answer, as a `RowError` has none; `outside` counts the values that have a note."""

    line: int
    cells: Sequence[str]
    outside: int
    label: str | UnsetType = UNSET
    probability: float | UnsetType = UNSET
    value: float | UnsetType = UNSET


class ValueSummary(msgspec.Struct, frozen=True):
    """The least, the greatest and the sum of some predicted values."""

    least: float
    greatest: float
    sum: float


class RowsFrame(msgspec.Struct, frozen=True, tag="rows"):
    """The answer to a binary frame, after the text of its rows.

    Attributes:
        read: the bytes of the file that are answered, up to the end of a row.
        rows, bad, noted: how many rows were answered, lack a prediction (`errors` are the first), have one with a note.
        counts, values: how many rows have each label, without those that none has; or the predicted quantities.
        listed: new among the least sure rows of each label; of a quantity, those with the most values that have a note.
        resume, done: what goes on after `read`, on any connection, empty until the header is complete; the end.
    """

    read: int
    rows: int
    bad: int
    errors: list[RowError]
    counts: dict[str, int]
    listed: Sequence[ListedRow]
    version: str
    resume: str
    done: bool
    noted: int = 0
    values: ValueSummary | UnsetType = UNSET
