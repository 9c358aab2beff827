"""The header of a table: which feature each column names, and which column is the class."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ml.errors import DatasetError
from ml.tables.dataset import MAX_TEXT, Feature
from ml.tables.rows import shown

MAX_COLUMNS = 10_000
_SHOWN_NAMES = 20
_UNIT = re.compile(r"^(.*\S)\s*[(\[]([^()\[\]]*)[)\]]$", re.DOTALL)


@dataclass(frozen=True)
class Limits:
    """The limits of a feature's values; None is no limit."""

    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class Column:
    """A column of the header: its position, its text, and its feature."""

    index: int
    header: str
    feature: Feature


def feature_of(header: str, limits: Mapping[str, Limits] | None = None) -> Feature:
    """Return the feature that a column's header names: `petal width (cm)` has key `petal_width` and unit `cm`."""
    match = _UNIT.match(header.strip())
    title, unit = match.groups() if match else (header.strip(), "")
    title, unit = (" ".join(composed(text).split()) for text in (title, unit))
    key = re.sub(r"\W+", "_", title.casefold()).strip("_")
    given = (limits or {}).get(key, Limits(None, None))
    return Feature(key=key, title=title, unit=unit, header=header.strip(), minimum=given.minimum, maximum=given.maximum)


def columns_of(
    header: Sequence[str], *, target: str | None, drop: Sequence[str], limits: Mapping[str, Limits]
) -> tuple[list[Column], int]:
    """Return the feature columns and the index of the class column."""
    if len(header) > MAX_COLUMNS:
        raise DatasetError(f"the header has {len(header)} columns, at most {MAX_COLUMNS} are read")
    named = [Column(index, text.strip(), feature_of(text, limits)) for index, text in enumerate(header)]
    target_column = len(header) - 1 if target is None else _find(target, named)
    left_out = {target_column, *(_find(wanted, named) for wanted in drop)}
    columns = [column for column in named if column.index not in left_out]
    if not columns:
        raise DatasetError("there is no column besides the class column")
    seen: dict[str, str] = {}
    for column in columns:
        key = column.feature.key
        if not key:
            raise DatasetError(f"line 1, column {column.index + 1} has no name: {shown(column.header)}")
        if len(column.header) > MAX_TEXT:
            raise DatasetError(f"line 1, column {shown(column.header)}: a name of more than {MAX_TEXT} characters")
        if key in seen:
            raise DatasetError(f"columns {shown(seen[key])} and {shown(column.header)} have the same key, {key}")
        seen[key] = column.header
    unknown = sorted(limits.keys() - seen.keys())
    if unknown:
        raise DatasetError(f"limits for {unknown[0]}, which is not a feature: {listed(seen)}")
    return columns, target_column


def _find(wanted: str, columns: Sequence[Column]) -> int:
    by_header = [column.index for column in columns if column.header == wanted.strip()]
    by_key = [column.index for column in columns if column.feature.key == feature_of(wanted).key]
    found = by_header or by_key
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(f"{len(found)} columns are called {shown(wanted)}")
    raise DatasetError(f"no column is called {shown(wanted)}: {listed(column.header for column in columns)}")


def composed(text: str) -> str:
    """Return text in normal form C, unless it is longer than any name: combining marks are sorted in quadratic time."""
    return unicodedata.normalize("NFC", text) if len(text) <= MAX_TEXT else text


def listed(names: Iterable[str]) -> str:
    """Return names on one line, not too many of them."""
    shown = [one_line(name) for name in itertools.islice(names, _SHOWN_NAMES + 1)]
    return ", ".join(shown if len(shown) <= _SHOWN_NAMES else [*shown[:-1], "…"])


def one_line(text: str) -> str:
    """Return text without line breaks and with single spaces."""
    return " ".join(text.split())
