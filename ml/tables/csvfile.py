"""Read a table of numeric columns and a class column from a CSV file.

Nothing is inferred silently: a `Reading` lists all inferences.
"""

from __future__ import annotations

import itertools
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from ml.errors import DatasetError
from ml.tables.dataset import MAX_TEXT, Dataset, Target
from ml.tables.dialect import SEPARATORS, Dialect
from ml.tables.filekind import refuse_other_files
from ml.tables.headers import Column, Limits, columns_of, composed, one_line
from ml.tables.numbers import LARGEST, NotANumber, is_number, number_of, shown_number
from ml.tables.rows import Block, RowReader, shown

# The size of one read.
BLOCK_CHARACTERS = 2**18
MAX_FILE_BYTES = 2 * 2**30
MAX_CELLS = 50_000_000
MAX_LABELS = 1_000
_START_BYTES = 1_024


@dataclass(frozen=True)
class Reading:
    """A data set and the inferences made while reading it, one sentence each."""

    dataset: Dataset
    inferred: tuple[str, ...]


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
        with path.open(encoding="utf-8", newline="") as file:
            return _read(file, path, target=target, drop=drop, limits=limits or {}, name=_text(name or path.stem))
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: {_undecodable(path, error.reason)}") from error


def refuse_same_file(source: str, sink: str) -> None:
    """Refuse to write a table over the one that is being read.

    Raises:
        DatasetError: both names are of the same file.
    """
    try:
        same = os.path.samefile(source, sink)
    except OSError:
        return  # one of them is not there, or no file at all
    if same and os.path.isfile(source):
        raise DatasetError(f"{source} is the input as well: name another file for the output")


def _blocks(source: TextIO, reader: RowReader) -> Iterator[Block]:
    """Yield the blocks of text opened with newline=""; errors are those of the reader."""
    for text in iter(lambda: source.read(BLOCK_CHARACTERS), ""):
        yield from reader.feed(text)
    yield from reader.finish()


def _read(
    file: TextIO,
    path: Path,
    *,
    target: str | None,
    drop: Sequence[str],
    limits: Mapping[str, Limits],
    name: str,
) -> Reading:
    # strict: text after the closing quote of a cell is an error.
    reader = RowReader(strict=True)
    blocks = _blocks(file, reader)
    (header,) = next(blocks).rows
    columns, target_column = columns_of(header, target=target, drop=drop, limits=limits)
    values, texts, commas = _rows(blocks, header, columns=columns, target_column=target_column)
    if not texts:
        raise DatasetError("no rows below the header")
    labels = _labels(texts)
    position = {label: index for index, label in enumerate(labels)}
    counts = Counter(texts)
    dataset = Dataset(
        name=name,
        source=f"{_text(path.name)}: {len(texts)} rows, {len(columns)} features, {len(labels)} classes",
        features=tuple(column.feature for column in columns),
        target=Target(title=header[target_column].strip(), labels=labels),
        rows=np.frombuffer(values, dtype=np.float64).reshape(-1, len(columns)),
        outcomes=np.array([position[text] for text in texts], dtype=np.float64),
    )
    inferred = [
        f"separated by {SEPARATORS[(reader.dialect or Dialect(',')).separator]}",
        f"class column: {one_line(header[target_column])}" + ("" if target else " (the last one)"),
        "classes: "
        + ", ".join(f"{one_line(label)} ({counts[label]} row{'s' if counts[label] > 1 else ''})" for label in labels),
        *(_described(column) for column in columns),
        *(
            f"a comma in {shown(column.header)} is a decimal mark, as in {shown(commas[column.index])}"
            for column in columns
            if column.index in commas
        ),
    ]
    if all(is_number(text) for text in header):
        inferred.append("every name in the header is a number: if the first row is data, the file lacks its header")
    if reader.blank_lines:
        inferred.append(f"blank lines left out: {reader.blank_lines}")
    return Reading(dataset, tuple(inferred))


def _rows(
    blocks: Iterator[Block], header: Sequence[str], *, columns: Sequence[Column], target_column: int
) -> tuple[array[float], list[str], dict[int, str]]:
    """Return all values row by row, the text of each row's class, and decimal commas.

    The last are by the index of their column: the first value with one.
    """
    values = array("d")
    texts: list[str] = []
    commas: dict[int, str] = {}
    for line, cells in itertools.chain.from_iterable(zip(block.lines, block.rows, strict=True) for block in blocks):
        if len(cells) != len(header):
            raise DatasetError(f"line {line} has {len(cells)} columns, the header has {len(header)}")
        values.extend(_number(cells[column.index], column, line=line) for column in columns)
        for column in columns:
            if "," in cells[column.index]:
                commas.setdefault(column.index, cells[column.index])
        texts.append(_label(cells[target_column], shown(header[target_column].strip()), line=line))
        if len(values) > MAX_CELLS:
            raise DatasetError(f"line {line}: more than {MAX_CELLS} values")
    return values, texts, commas


def _number(text: str, column: Column, *, line: int) -> float:
    try:
        number = number_of(text)
    except NotANumber as error:
        what = "empty" if error.code == "missing" else f"{shown(text)} is not a number"
        raise DatasetError(f"line {line}, column {shown(column.header)}: {what}") from None
    feature = column.feature
    if not -LARGEST <= number <= LARGEST:
        raise DatasetError(f"line {line}, column {shown(column.header)}: {shown(text)} is too large")
    if (feature.minimum is not None and number < feature.minimum) or (
        feature.maximum is not None and number > feature.maximum
    ):
        raise DatasetError(f"line {line}, column {shown(column.header)}: {shown(text)} is outside the limits given")
    return number


def _label(text: str, column: str, *, line: int) -> str:
    label = composed(text.strip())
    if not label:
        raise DatasetError(f"line {line}, column {column}: empty")
    if len(label) > MAX_TEXT or "\0" in label:
        raise DatasetError(f"line {line}, column {column}: {shown(label)} is not a label: too long, or not text")
    return label


def _labels(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the different labels, in the order of numbers if all are numbers, else of their text."""
    labels = set(texts)
    if len(labels) == 1:
        raise DatasetError(f"there is only one class, {shown(texts[0])}")
    if len(labels) > MAX_LABELS:
        raise DatasetError(
            f"{len(labels)} different classes, at most {MAX_LABELS} are possible: is it the class column?"
        )
    try:
        return tuple(sorted(labels, key=lambda label: (number_of(label), label)))
    except NotANumber:
        return tuple(sorted(labels))


def _described(column: Column) -> str:
    feature = column.feature
    parts = [f"{shown(column.header)} is feature {feature.key}"]
    if feature.unit:
        parts.append(f"in {feature.unit}")
    if feature.minimum is not None:
        parts.append(f"at least {shown_number(feature.minimum)}")
    if feature.maximum is not None:
        parts.append(f"at most {shown_number(feature.maximum)}")
    return ", ".join(parts)


def _text(name: str) -> str:
    """Return a file's name as text: on disk it can have bytes that no encoding explains."""
    return name.encode(errors="replace").decode()


def _undecodable(path: Path, reason: str) -> str:
    """Return which file this is, or where it stops being text: the decoder only knows the position in its buffer."""
    with path.open("rb") as file:
        try:
            refuse_other_files(file.readline(_START_BYTES).decode(errors="surrogateescape"))
        except DatasetError as error:
            return str(error)
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number}, byte {error.start + 1} ({line[error.start]:#04x}): not UTF-8 text ({reason})"
    return f"not UTF-8 text ({reason})"
