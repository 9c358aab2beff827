"""The columns of a scored table: those of the features, and the new ones behind them; and where it can go on."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from ml.errors import TableError, in_quotes
from ml.tables.dataset import Feature
from ml.tables.dialect import SEPARATORS, Dialect
from ml.tables.encoding import understood
from ml.tables.headers import MAX_COLUMNS, feature_of, key_of, listed
from ml.tables.marks import THOUSANDS, Marks, same_unit
from ml.tables.written import RowWriter


class OtherAnswers(TableError):
    """A table cannot go on with a model that has other features, or other labels and so other new columns."""


class Place(msgspec.Struct, frozen=True):
    """Where a table goes on whose header and first rows were scored before: all that has to be known of them.

    Attributes:
        line: on which the next row starts, counted from 1.
        dialect, width: how the cells of the header are written, and how many it has.
        positions: the column of each feature.
        added: how many new columns there are.
        answers: 12 hex digits that two models share when they have the same features and labels.
        marks: those of the table's numbers, if somebody has said them.
        has_odd_bytes: whether rows before had bytes that are not UTF-8, and one of them says so.
        decimal: the mark in the numbers of the answers; nothing as long as no row was read.

    Raises:
        TableError: no table can have such a place.
    """

    line: int
    dialect: Dialect
    width: int
    positions: tuple[int, ...]
    added: int
    answers: str
    marks: Marks | None = None
    has_odd_bytes: bool = False
    decimal: Literal["", ".", ","] = ""

    def __post_init__(self) -> None:
        """Check what would break the scoring of the next row: a place may come from anybody."""
        columns = range(self.width)
        is_possible = (
            0 < self.line < 2**53
            and self.dialect.separator in SEPARATORS
            and self.width <= MAX_COLUMNS
            and 2 < self.added <= MAX_COLUMNS
            and self.positions
            and all(position in columns for position in self.positions)
            and (self.decimal != "," or self.dialect.written != ",")
            and (self.marks is None or self.marks.thousands in ("", *THOUSANDS))
        )
        if not is_possible:
            raise TableError("no table can go on from this place")

    def new_cells(self, *, note: str = "", error: str = "") -> list[str]:
        """Return the new cells of a row without an answer."""
        return [*[""] * (self.added - 2), note, error]

    def last_row(self, message: str, *, guarded: bool) -> str:
        """Return a row with nothing but a message, for a table that has to end before its end."""
        cells = [*[""] * self.width, *self.new_cells(error=message)]
        return RowWriter(self.dialect.written, guarded=guarded).row(cells) + "\n"


class AddedColumns(NamedTuple):
    """The names of the new columns of a scored table, in their order.

    Attributes:
        words: that of the label; a quantity has none.
        numbers: those of probabilities, or of value and interval; then of what each feature adds to the answer.
        notes: about the answer.
        error: why there is no answer.
    """

    words: Sequence[str]
    numbers: Sequence[str]
    notes: str
    error: str

    @property
    def names(self) -> list[str]:
        return [*self.words, *self.numbers, self.notes, self.error]


def added_columns(header: Sequence[str], labels: Sequence[str], *, explained: Sequence[str] = ()) -> AddedColumns:
    """Return the new columns, with a number behind the names that the header has already.

    Args:
        labels: those of the model.
        explained: the keys of the features of which it is said what each adds to the answer.
    """
    words = ["predicted_label"] if labels else []
    numbers = [f"probability_{label}" for label in labels] or ["predicted_value", "predicted_low", "predicted_high"]
    if explained:
        numbers += ["contribution_base", *(f"contribution_{key}" for key in explained)]
    taken = set(header)

    def free(wanted: str) -> str:
        numbered = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
        name = next(name for name in numbered if name not in taken)
        taken.add(name)
        return name

    return AddedColumns([*map(free, words)], [*map(free, numbers)], free("prediction_notes"), free("prediction_error"))


class ColumnName(NamedTuple):
    """What the name of a column says: as it is written, the key that it gives, and its unit."""

    header: str
    key: str
    unit: str


def name_of(header: str, number: int) -> ColumnName:
    """Return what the name of a column says; one without a name is called by its number."""
    feature = feature_of(understood(header).strip() or f"column_{number}")
    return ColumnName(feature.header, feature.key, feature.unit)


def positions_of(features: Sequence[Feature], names: Sequence[ColumnName]) -> list[int]:
    """Return the column of each feature: that with the header that it had in training, or else with its key.

    Of several with the same key, that with its unit.

    Raises:
        TableError: the header lacks a feature, or has it twice, or has it in another unit.
    """
    headers, keys = _by([name.header for name in names]), _by([name.key for name in names])
    trained = Counter(feature.header for feature in features)
    seen, claimed = Counter[str](), set[int]()
    positions: dict[str, int] = {}
    for feature in features:
        exact = headers.get(feature.header, []) if feature.header else []
        if exact and len(exact) == trained[feature.header]:
            positions[feature.key] = exact[seen[feature.header]]
            claimed.add(exact[seen[feature.header]])
            seen[feature.header] += 1
    for feature in features:
        if feature.key not in positions:
            found = [index for index in _called(feature, keys) if index not in claimed]
            if not found:
                later = [other for other in features if other.key not in positions and not _called(other, keys)]
                raise _absent([feature, *(other for other in later if other is not feature)], names)
            positions[feature.key] = _only(feature, found, names)
            claimed.add(positions[feature.key])
    return [positions[feature.key] for feature in features]


def _called(feature: Feature, keys: Mapping[str, Sequence[int]]) -> Sequence[int]:
    return keys.get(feature.key) or keys.get(key_of(feature.header), [])


def _absent(features: Sequence[Feature], names: Sequence[ColumnName]) -> TableError:
    """Return the error that a header lacks features: all of them, since whoever adds one has to add the others too."""
    first, *others = features
    sentence = f"no column is called {first.title!r}: {listed(name.header for name in names)}"
    if others:
        count = "one more feature is" if len(others) == 1 else f"{len(others)} more features are"
        sentence += f"; {count} missing: {listed(other.title for other in others)}"
    return TableError(sentence)


def _only(feature: Feature, found: Sequence[int], names: Sequence[ColumnName]) -> int:
    alike = [index for index in found if feature.unit and names[index].unit == feature.unit]
    if len(alike) != 1 and len(found) != 1:
        raise TableError(f"{len(found)} columns are called {feature.title!r}: {listed(name.header for name in names)}")
    (index,) = alike if len(alike) == 1 else found
    unit = names[index].unit
    if unit and feature.unit and not same_unit(_plain(unit), _plain(feature.unit)):
        trained = feature.header if feature.unit in feature.header else f"{feature.title} ({feature.unit})"
        raise TableError(
            f"column {in_quotes(names[index].header)} has another unit than {in_quotes(trained)}, by which the model "
            f"was trained: convert its values to {feature.unit}, and name them so"
        )
    return index


def _by(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if name:
            found.setdefault(name, []).append(index)
    return found


def _plain(unit: str) -> str:
    """Return a unit in a form in which micro, degrees and squares have one character each."""
    return "".join(unicodedata.normalize("NFKC", unit.replace("º", "°")).split())
