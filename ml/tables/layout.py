"""The columns of a scored table: those of the features, and the new ones behind them; and where it can go on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from ml.errors import DatasetError
from ml.tables.dataset import Feature
from ml.tables.dialect import SEPARATORS, Dialect
from ml.tables.headers import MAX_COLUMNS, listed
from ml.tables.written import RowWriter


class OtherAnswers(DatasetError):
    """A table cannot go on with a model that has other features, or other labels and so other new columns."""


class Place(msgspec.Struct, frozen=True):
    """Where a table goes on whose header and first rows were scored before: all that has to be known of them.

    Attributes:
        line: on which the next row starts, counted from 1.
        dialect, width: how the cells of the header are written, and how many it has.
        positions: the column of each feature.
        added: how many new columns there are.
        answers: 12 hex digits that two models share when they have the same features and labels.

    Raises:
        DatasetError: no table can have such a place.
    """

    line: int
    dialect: Dialect
    width: int
    positions: tuple[int, ...]
    added: int
    answers: str

    def __post_init__(self) -> None:
        """Check what would break the scoring of the next row: a place may come from anybody."""
        columns = range(self.width)
        is_possible = (
            0 < self.line < 2**53
            and self.dialect.separator in SEPARATORS
            and self.width <= MAX_COLUMNS
            and 0 < self.added <= MAX_COLUMNS
            and self.positions
            and all(position in columns for position in self.positions)
        )
        if not is_possible:
            raise DatasetError("no table can go on from this place")

    def last_row(self, message: str, *, guarded: bool) -> str:
        """Return a row with nothing but a message, for a table that has to end before its end."""
        cells = [""] * (self.width + self.added - 1)
        return RowWriter(self.dialect.written, guarded=guarded).row([*cells, message]) + "\n"


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


def positions_of(features: Sequence[Feature], header: Sequence[str], keys: Sequence[str]) -> Iterator[int]:
    """Yield the column of each feature; `keys` are those of the header's cells.

    Raises:
        DatasetError: the header lacks a feature, or has it twice.
    """
    positions: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        positions.setdefault(key, []).append(index)
    for feature in features:
        found = positions.get(feature.key, [])
        if len(found) != 1:
            many = f"{len(found)} columns are" if found else "no column is"
            raise DatasetError(f"{many} called {feature.title!r}: {listed(header)}")
        yield found[0]
