"""Read a table of numeric columns and a class column from a CSV file.

Nothing is guessed silently: a `Reading` says what was inferred.
"""

from __future__ import annotations

import csv
import itertools
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ml.dataset import Dataset, Feature
from ml.errors import DatasetError
from ml.sample import LARGEST, NotANumber, number_of

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
MAX_FILE_BYTES = 2 * 2**30
MAX_CELLS = 50_000_000
MAX_COLUMNS = 10_000
MAX_LABELS = 1_000
_SHOWN_CHARACTERS = 60

_UNIT = re.compile(r"^(.*\S)\s*[(\[]\s*([^()\[\]]*?)\s*[)\]]$", re.DOTALL)


class Reader(Protocol):
    """What `csv.reader` returns: rows, and the number of lines read so far."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


@dataclass(frozen=True)
class Limits:
    """What a feature's values must keep; None is no limit."""

    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class Reading:
    """A data set and what was inferred while reading it, one sentence each."""

    dataset: Dataset
    inferred: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of the header: its position, its text as written, and what it becomes."""

    index: int
    header: str
    feature: Feature


def read_csv(
    path: Path,
    *,
    target: str | None = None,
    drop: Sequence[str] = (),
    limits: Mapping[str, Limits] | None = None,
    name: str | None = None,
) -> Reading:
    """Return the table in a CSV file: a header row, numeric columns, and a class column.

    Args:
        path: UTF-8 text, with or without a byte order mark; separated by commas, semicolons or tabs.
        target: header or key of the class column; else the last one.
        drop: headers or keys of columns to leave out.
        limits: limits by feature key, which the rows must keep too.
        name: the model's name; else the file's name without its ending.

    Raises:
        DatasetError: the file cannot be trained on; the message names line, column and value.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DatasetError(f"larger than {MAX_FILE_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(file, path, target=target, drop=drop, limits=limits or {}, name=name or path.stem)
    except (DatasetError, csv.Error) as error:
        raise DatasetError(f"{path}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def separator_of(header: str) -> str:
    """Return the separator that a header line uses: the most frequent one outside quotes.

    Raises:
        DatasetError: there is none, so there is only one column.
    """
    counts = Counter(re.sub(r'"[^"]*"', "", header))
    separator = max(SEPARATORS, key=lambda candidate: counts[candidate])
    if not counts[separator]:
        raise DatasetError(
            f"the header has only one column, {_shown(header.strip())}: separate by comma, semicolon or tab"
        )
    return separator


def feature_of(header: str, limits: Mapping[str, Limits] | None = None) -> Feature:
    """Return the feature that a column's header names: `petal width (cm)` has key `petal_width` and unit `cm`."""
    match = _UNIT.match(header.strip())
    title, unit = match.groups() if match else (header.strip(), "")
    title = " ".join(unicodedata.normalize("NFC", title).split())
    key = re.sub(r"\W+", "_", title.casefold()).strip("_")
    given = (limits or {}).get(key, Limits(None, None))
    return Feature(key=key, title=title, unit=unit, minimum=given.minimum, maximum=given.maximum)


def _read(
    file: Iterator[str],
    path: Path,
    *,
    target: str | None,
    drop: Sequence[str],
    limits: Mapping[str, Limits],
    name: str,
) -> Reading:
    first = next(file, "")
    if not first.strip():
        raise DatasetError("no header row")
    if "\0" in first:
        raise DatasetError("not text")
    separator = separator_of(first)
    reader = csv.reader(itertools.chain([first], file), delimiter=separator)
    header = next(reader)
    columns, target_column = _columns(header, target=target, drop=drop, limits=limits)
    values, texts, blank = _rows(reader, header, columns=columns, target_column=target_column)
    if not texts:
        raise DatasetError("no rows below the header")
    labels = _labels(texts)
    position = {label: index for index, label in enumerate(labels)}
    counts = Counter(texts)
    dataset = Dataset(
        name=name,
        source=f"{path.name}: {len(texts)} rows, {len(columns)} features, {len(labels)} classes",
        features=tuple(column.feature for column in columns),
        labels=labels,
        rows=np.frombuffer(values, dtype=np.float64).reshape(-1, len(columns)),
        classes=np.array([position[text] for text in texts], dtype=np.intp),
    )
    inferred = [
        f"separated by {SEPARATORS[separator]}",
        f"class column: {header[target_column].strip()}" + ("" if target else " (the last one)"),
        "classes: " + ", ".join(f"{label} ({counts[label]} rows)" for label in labels),
        *(_told(column) for column in columns),
    ]
    if blank:
        inferred.append(f"blank lines left out: {blank}")
    return Reading(dataset, tuple(inferred))


def _columns(
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
            raise DatasetError(f"column {column.index + 1} has no name: {_shown(column.header)}")
        if key in seen:
            raise DatasetError(f"columns {_shown(seen[key])} and {_shown(column.header)} have the same key, {key}")
        seen[key] = column.header
    unknown = sorted(limits.keys() - seen.keys())
    if unknown:
        raise DatasetError(f"limits for {unknown[0]}, which is not a feature: {', '.join(seen)}")
    return columns, target_column


def _find(wanted: str, columns: Sequence[Column]) -> int:
    by_header = [column.index for column in columns if column.header == wanted.strip()]
    by_key = [column.index for column in columns if column.feature.key == feature_of(wanted).key]
    found = by_header or by_key
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(f"{len(found)} columns are called {_shown(wanted)}")
    raise DatasetError(f"no column is called {_shown(wanted)}: {', '.join(column.header for column in columns)}")


def _rows(
    reader: Reader, header: Sequence[str], *, columns: Sequence[Column], target_column: int
) -> tuple[array[float], list[str], int]:
    """Return all values row by row, the text of each row's class, and the number of blank lines."""
    values, blank = array("d"), 0
    texts: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DatasetError(f"line {line}: {error}") from error
        if cells is None:
            return values, texts, blank
        if not cells:
            blank += 1
            continue
        if len(cells) != len(header):
            raise DatasetError(f"line {line} has {len(cells)} columns, the header has {len(header)}")
        values.extend(_number(cells[column.index], column, line=line) for column in columns)
        label = cells[target_column].strip()
        if not label:
            raise DatasetError(f"line {line}, column {_shown(header[target_column].strip())}: empty")
        texts.append(label)
        if len(values) > MAX_CELLS:
            raise DatasetError(f"line {line}: more than {MAX_CELLS} values")


def _number(text: str, column: Column, *, line: int) -> float:
    try:
        number = number_of(text)
    except NotANumber as error:
        what = "empty" if error.code == "missing" else f"{_shown(text)} is not a number"
        raise DatasetError(f"line {line}, column {_shown(column.header)}: {what}") from None
    feature = column.feature
    if not -LARGEST <= number <= LARGEST:
        raise DatasetError(f"line {line}, column {_shown(column.header)}: {_shown(text)} is too large")
    if (feature.minimum is not None and number < feature.minimum) or (
        feature.maximum is not None and number > feature.maximum
    ):
        raise DatasetError(f"line {line}, column {_shown(column.header)}: {_shown(text)} is outside the limits given")
    return number


def _labels(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the different labels, in the order of numbers if all are numbers, else of their text."""
    labels = set(texts)
    if len(labels) == 1:
        raise DatasetError(f"there is only one class, {_shown(texts[0])}")
    if len(labels) > MAX_LABELS:
        raise DatasetError(
            f"{len(labels)} different classes, at most {MAX_LABELS} are possible: is it the class column?"
        )
    try:
        return tuple(sorted(labels, key=lambda label: (number_of(label), label)))
    except NotANumber:
        return tuple(sorted(labels))


def _told(column: Column) -> str:
    feature = column.feature
    parts = [f"{_shown(column.header)} is feature {feature.key}"]
    if feature.unit:
        parts.append(f"in {feature.unit}")
    if feature.minimum is not None:
        parts.append(f"at least {feature.minimum:g}")
    if feature.maximum is not None:
        parts.append(f"at most {feature.maximum:g}")
    return ", ".join(parts)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
