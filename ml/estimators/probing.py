"""What the fitted steps themselves give: asked for every choice, for unknown words, for gaps, and for test rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError, TableError
from ml.estimators.coding import Cells, Coding
from ml.estimators.paths import PipelineReading
from ml.model.design import Design, DesignColumn
from ml.tables.dataset import UNKNOWN, Feature

Rows = NDArray[np.float64]
# The reading of the steps is compared with the steps on so many test rows.
COMPARED_ROWS = 1_000


@dataclass(frozen=True)
class ProbedInputs:
    """The features of a model that was fitted elsewhere, and the columns that its last estimator sees of them."""

    features: tuple[Feature, ...]
    columns: tuple[DesignColumn, ...]


def transformed(reading: PipelineReading, table: Any) -> Any:
    """Return what the steps make of a table of the session."""
    for step in reading.transformers:
        table = step.transform(table)
    return table


def inputs_of(
    reading: PipelineReading, coding: Coding, features: Sequence[Feature], rows: Rows, *, lacking: Set[int]
) -> ProbedInputs:
    """Return the features, with their choices and gaps, and the columns that the steps make of them.

    Args:
        features: by the names of the columns that `coding` codes.
        rows: of the test, shape (n_rows, n_features).
        lacking: the features of which some row has no value.

    Raises:
        ForestError: the steps give something else than what was read of them.
        TableError: the steps cannot transform the test rows.
    """
    probe = _Probe(reading, coding, rows)
    lacking = lacking | {place for place, cells in enumerate(coding.cells) if cells.place in reading.gaps}
    known = tuple(
        msgspec.structs.replace(
            feature,
            choices=cells.choices,
            has_gaps=place in lacking - probe.without_gaps,
            is_closed=bool(cells.words) and place in probe.closed,
        )
        for place, (feature, cells) in enumerate(zip(features, coding.cells, strict=True))
    )
    _check_rows(probe, features, rows)
    columns = probe.columns()
    for name, part in (("test rows", rows[:COMPARED_ROWS]), ("choices", probe.known)):
        found, expected = Design(columns).matrix(part), probe.transform(part)
        equal = (found == expected) | (np.isnan(found) & np.isnan(expected))
        if not equal.all():
            place = int(np.flatnonzero(~equal.all(axis=0))[0])
            feature = features[columns[place].feature].title
            raise ForestError(
                f"column {place} of the last estimator, made of {feature!r}, is another one for the {name} than its "
                "steps say: steps that compute in float32 or look at several columns cannot be exported"
            )
    return ProbedInputs(known, columns)


def _check_rows(probe: _Probe, features: Sequence[Feature], rows: Rows) -> None:
    """Raise a `TableError` for the first test row with something that the steps refuse."""
    refused = [(place, np.isnan(rows[:, place]), "no value", "SimpleImputer") for place in sorted(probe.without_gaps)]
    refused += [
        (place, rows[:, place] < 0, "a word that its encoder does not know", "OneHotEncoder(handle_unknown='ignore')")
        for place in sorted(probe.closed)
    ]
    for place, is_wrong, what, remedy in refused:
        if is_wrong.any():
            raise TableError(
                f"X_test has {what} in column {features[place].title!r}, row {int(is_wrong.argmax())}, which the steps "
                f"refuse: {remedy} would work"
            )


class _Probe:
    """The rows that are asked, and the answers: one row a choice, one a feature without a value or with another word.

    Attributes:
        known: a row for each choice of each category, all else held.
        closed: the categories of which the steps refuse other words than their choices.
        without_gaps: the features of which the steps refuse no value.
    """

    def __init__(self, reading: PipelineReading, coding: Coding, rows: Rows) -> None:
        self._reading, self._coding = reading, coding
        self._place_of = {cells.place: place for place, cells in enumerate(coding.cells)}
        middle = [_middle(cells, column) for cells, column in zip(coding.cells, rows.T, strict=True)]
        self._base = np.array(middle)
        try:
            self.transform(self._base[None])
        except Exception as error:  # whatever a step raises
            raise TableError(f"the steps do not take X_test: {str(error).splitlines()[0]}") from error
        self.known = self._varied([(f, float(c)) for f, one in enumerate(coding.cells) for c in range(len(one.words))])
        words = [place for place, one in enumerate(coding.cells) if one.words]
        self._unknown = self._asked(words, UNKNOWN)
        self._gaps = self._asked(range(len(coding.cells)), np.nan)
        self.without_gaps = set(range(len(coding.cells))) - self._gaps.keys()
        # A number or a boolean that goes by the encoders is no word.
        passing = {path.feature for path in reading.paths if not (path.is_encoded or path.is_missing)}
        self.closed = {f for f in words if f not in self._unknown or coding.cells[f].place in passing}

    def transform(self, rows: Rows) -> Rows:
        """Return what the steps make of rows, shape (n_rows, n_columns)."""
        table = self._coding.table(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = transformed(self._reading, table)
        return np.asarray(table.toarray() if hasattr(table, "toarray") else table, dtype=np.float64)

    def _varied(self, values: Sequence[tuple[int, float]]) -> Rows:
        """Return a row for each feature and value, all else held; the first one is the row that is held."""
        rows = np.tile(self._base, (len(values) + 1, 1))
        for row, (feature, value) in zip(rows[1:], values, strict=True):
            row[feature] = value
        return rows

    def _asked(self, features: Sequence[int], value: float) -> dict[int, Rows]:
        """Return what the steps make of rows in which one feature has the value, if they take it."""
        rows = self._varied([(feature, value) for feature in features])[1:]
        if not len(rows):
            return {}
        try:
            return dict(zip(features, self.transform(rows), strict=True))
        except Exception:  # whatever a step raises for a value that it does not take
            return {
                feature: answers[0]
                for feature, row in zip(features, rows, strict=True)
                if (answers := _taken(self.transform, row[None])) is not None
            }

    def columns(self) -> tuple[DesignColumn, ...]:
        """Return the columns, those of words with the value of each cell."""
        answers = self.transform(self.known)
        base, rest, start = answers[0], answers[1:], 0
        if base.shape != (len(self._reading.paths),):
            raise ForestError(f"the steps give {len(base)} columns, where {len(self._reading.paths)} were read")
        by_feature: dict[int, Rows] = {}
        for place, cells in enumerate(self._coding.cells):
            choices = rest[start : start + len(cells.words)]
            start += len(cells.words)
            if cells.words:
                # What the steps refuse no sample can have: then any value will do.
                unknown = self._unknown.get(place, self._gaps.get(place, choices[0]))
                by_feature[place] = np.vstack([self._gaps.get(place, unknown), unknown, choices])
        return tuple(self._column(number, path, by_feature) for number, path in enumerate(self._reading.paths))

    def _column(self, number: int, path: Any, by_feature: dict[int, Rows]) -> DesignColumn:
        place = self._place_of[path.feature]
        if place not in by_feature:
            return DesignColumn(feature=place, is_missing=path.is_missing, operations=path.operations)
        values = by_feature[place][:, number].tolist()
        return DesignColumn(feature=place, table=tuple(None if value != value else value for value in values))  # noqa: PLR0124


def _taken(transform: Callable[[Rows], Rows], rows: Rows) -> Rows | None:
    try:
        return transform(rows)
    except Exception:  # see above
        return None


def _middle(cells: Cells, column: Rows) -> float:
    """Return a value of a feature that the steps take: the first choice, or the median."""
    present = column[~np.isnan(column)]
    return 0.0 if cells.words or not len(present) else float(np.median(present))
