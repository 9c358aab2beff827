"""A table becomes a data set: nothing is inferred silently, and what cannot be read is said all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError, in_quotes
from ml.tables.contents import Contents, contents_of
from ml.tables.dataset import Dataset, Feature, Target
from ml.tables.encoding import as_text
from ml.tables.files import read_table
from ml.tables.headers import Column, Limits, columns_of, find, listed
from ml.tables.kinds import Kinds, LeftOut, Settled
from ml.tables.marks import Decimal, TableMarks
from ml.tables.refusals import Unusable, marks_of, refusal_of
from ml.tables.table import Table
from ml.tables.targets import Outcomes, TargetKind, candidates, outcomes_of, target_column

# So many columns of numbers without anything to say are named one by one: others would be lost among hundreds.
# In fewer rows, or with fewer rows for each choice, a feature gives the target away by chance.
MIN_ROWS = 30
MIN_ROWS_A_CHOICE = 5
# Another unit of the same quantity is off by rounding alone.
SAME_QUANTITY = 0.9999
SHOWN_PLAIN = 30


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What somebody has said about a table; the rest is inferred.

    Attributes:
        target: what the target's column is called; None is the one with the name of a target, or the last one.
        kind: what the target is.
        drop, keep: columns to leave out, and columns to keep, whatever they hold.
        limits: of numbers, by key, which the rows must keep too.
        missing: texts that stand for no value, besides those that are known.
        decimal, thousands: the marks of all numbers.
        name: the model's name; None is the file's without its ending.
    """

    target: str | None = None
    kind: TargetKind | None = None
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    missing: Sequence[str] = ()
    decimal: Decimal | None = None
    thousands: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Reading:
    """A data set and the inferences made while reading it, one sentence each."""

    dataset: Dataset
    inferred: tuple[str, ...]


def read_dataset(
    path: Path,
    options: TableOptions = TableOptions(),  # it cannot be changed
    *,
    encoding: str | None = None,
    sheet: str | None = None,
    has_header: bool = True,
) -> Reading:
    """Return the data set in a file; see `read_table` and `dataset_of` for what is read and refused."""
    table = read_table(path, encoding=encoding, sheet=sheet, has_header=has_header)
    try:
        return dataset_of(table, options, file_name=path.name)
    except TableError as error:
        raise error.of(path) from error


def dataset_of(table: Table, options: TableOptions, *, file_name: str) -> Reading:
    """Return the data set in a table.

    Args:
        file_name: of the table, for the sentence that says where the rows come from.

    Raises:
        TableError: it cannot be learned from. The error says so of all its columns at once.
    """
    if not len(table.lines):
        raise TableError("no rows below the header")
    columns, target, why = _columns(table.header, options)
    insisted = {find(wanted, columns).index for wanted in options.keep}
    contents = [_contents(table, column, options, plain=True) for column in columns]
    aim = _contents(table, target, options, plain=False)
    evidence = [one.evidence for one in (*contents, aim) if one.kind == "numbers"]
    marks = TableMarks(evidence, decimal=options.decimal, thousands=options.thousands)
    is_known = np.ones(len(table.lines), dtype=bool)
    kinds = Kinds(is_known, table.lines, options.limits, options.missing)
    outcomes = (kinds.problem(aim, marks_of(aim, marks)) if options.kind != "classes" else None) or outcomes_of(
        aim, marks_of(aim, marks), kind=options.kind, missing=options.missing, why=why
    )
    if isinstance(outcomes, Outcomes):
        is_known = ~np.isnan(outcomes.values)
        kinds = Kinds(is_known, table.lines, options.limits, options.missing)
        if not is_known.all():
            # A total below the table, in a row without a target, makes no words of a column of numbers.
            contents = [
                _contents(table, one.column, options, plain=False, kept=is_known) if one.kind == "mixed" else one
                for one in contents
            ]
    found = [kinds.of(one, marks_of(one, marks), insists=one.column.index in insisted) for one in contents]
    if problems := [one for one in (*found, outcomes) if isinstance(one, Unusable)]:
        others = candidates(contents, options.kind) if isinstance(outcomes, Unusable) and options.target is None else []
        hint = f"--target names another target, such as {listed(others, quoted=True)}" if others else ""
        raise refusal_of(problems, len(table.header), hint)
    assert isinstance(outcomes, Outcomes)
    if not any(isinstance(one, Settled) for one in found):
        # What nobody would learn from is better than nothing.
        found = [
            kinds.of(content, marks_of(content, marks), insists=isinstance(one, LeftOut) and one.has_values)
            for content, one in zip(contents, found, strict=True)
        ]
    return _reading(table, found, outcomes, outcomes.values[is_known], options, file_name=file_name)


def _columns(header: Sequence[str], options: TableOptions) -> tuple[list[Column], Column, str]:
    """Return the columns besides the target and those that are dropped, the target, and why it is that one."""
    every = columns_of(header)
    dropped = {find(wanted, every).index for wanted in options.drop}
    target, why = target_column([column for column in every if column.index not in dropped] or every, options.target)
    columns = columns_of(header, without=dropped | {target.index})
    if not columns:
        raise TableError("there is no column besides the target")
    return columns, target, why


def _contents(
    table: Table, column: Column, options: TableOptions, *, plain: bool, kept: NDArray[np.bool_] | None = None
) -> Contents:
    cells = table.columns[column.index]
    if kept is not None:
        cells = cells.copy()
        cells[~kept] = ""
    return contents_of(column, cells, has_types=table.has_types, missing=options.missing, plain=plain)


def _reading(
    table: Table,
    found: Sequence[Settled | LeftOut | Unusable],
    outcomes: Outcomes,
    values: NDArray[np.float64],
    options: TableOptions,
    *,
    file_name: str,
) -> Reading:
    settled = [one for one in found if isinstance(one, Settled)]
    left_out = [one.said for one in found if isinstance(one, LeftOut)]
    if not settled:
        raise TableError("there is no column to learn from", details=left_out)
    features = tuple(one.feature for one in settled)
    numbers = [feature.key for feature in features if not feature.choices]
    if unknown := sorted(options.limits.keys() - set(numbers)):
        raise TableError(f"limits for {unknown[0]}, which is not a feature with numbers: {listed(numbers)}")
    target = outcomes.target
    what = f"{len(target.labels)} classes" if target.labels else "a quantity"
    dataset = Dataset(
        name=as_text(options.name or Path(file_name).stem),
        source=f"{as_text(file_name)}: {len(values)} rows, {len(settled)} feature{'s' * (len(settled) > 1)}, {what}",
        features=features,
        target=target,
        rows=np.column_stack([one.values for one in settled]),
        outcomes=values,
    )
    leaks = [
        f"{in_quotes(one.feature.header)} alone gives the target away: drop it if it is known only afterwards"
        for one in settled
        if gives_away(one.feature, one.values, target, values)
    ]
    said = [*table.inferred, *outcomes.said, *_said_of(settled), *left_out, *leaks]
    return Reading(dataset, tuple(said))


def _said_of(settled: Sequence[Settled]) -> Iterator[str]:
    """Yield what is said of each column; of many plain ones those at the end are counted, not named."""
    plain = [place for place, one in enumerate(settled) if one.is_plain][SHOWN_PLAIN:]
    yield from (one.said for place, one in enumerate(settled) if place not in set(plain))
    if plain:
        ends = (in_quotes(settled[place].feature.header) for place in (plain[0], plain[-1]))
        yield f"{' to '.join(ends)}: {len(plain)} more columns of numbers are features"


def gives_away(feature: Feature, values: NDArray[np.float64], target: Target, outcomes: NDArray[np.float64]) -> bool:
    """Tell whether a feature alone determines the target in every row.

    Each of its choices has one class; or its numbers need one threshold between two classes, and no more; or they grow
    with the quantity as another unit of it does.

    Args:
        values: shape (n_rows,): of the feature; NaN for no value.
        outcomes: shape (n_rows,).
    """
    if len(values) < MIN_ROWS or np.isnan(values).any():
        return False
    if not target.labels:
        is_same = not feature.choices and np.ptp(values) > 0 and abs(np.corrcoef(values, outcomes)[0, 1])
        return bool(is_same > SAME_QUANTITY)
    if feature.choices:
        pairs = np.unique(values * len(target.labels) + outcomes)
        return len(pairs) == len(np.unique(values)) <= len(values) / MIN_ROWS_A_CHOICE
    order = np.argsort(values, kind="stable")
    changes = np.flatnonzero(np.diff(outcomes[order]))
    is_between = values[order][changes] < values[order][changes + 1]
    return len(changes) == len(np.unique(outcomes)) - 1 and bool(is_between.all())
