"""A file becomes a table: every cell as text, whatever kind of file it is in. Knows nothing of numbers or features."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ml.errors import DatasetError
from ml.tables.headers import MAX_COLUMNS
from ml.tables.rows import SEPARATORS, Block, RowReader
from ml.tables.table import TEXT, Bounds, Table

# The size of one read.
BLOCK_CHARACTERS = 2**18


def read_table(
    path: Path,
    *,
    encoding: str | None = None,
    sheet: str | None = None,
    has_header: bool = True,
    bounds: Bounds = Bounds(),  # noqa: B008  # it cannot be changed
) -> Table:
    """Return the table in a file.

    Args:
        path: text whose cells are separated.
        encoding: of text; None finds it out.
        sheet: the name of an Excel file's sheet; None is the first one.
        has_header: whether the first row has the names of the columns; else they are `column_1` and so on.
        bounds: what is read at most, after it is unpacked.

    Raises:
        DatasetError: there is no table in it, or it is beyond the bounds. The message names the file and the line.
    """
    try:
        if path.stat().st_size > bounds.max_bytes:
            raise DatasetError(f"larger than {bounds.max_bytes} bytes")
        with path.open(encoding=encoding or "utf-8", newline="") as file:
            return _text_table(file, bounds)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error


def _text_table(file: TextIO, bounds: Bounds) -> Table:
    reader = RowReader(strict=True)
    blocks = _blocks(file, reader)
    (header,) = next(blocks).rows
    if len(header) > MAX_COLUMNS:
        raise DatasetError(f"the header has {len(header)} columns, at most {MAX_COLUMNS} are read")
    columns, lines = _columns(blocks, len(header), bounds)
    inferred = [f"separated by {SEPARATORS[reader.separator]}"]
    if reader.blank_lines:
        inferred.append(f"blank lines left out: {reader.blank_lines}")
    return Table(tuple(name.strip() for name in header), columns, lines, inferred=tuple(inferred))


def _blocks(source: TextIO, reader: RowReader) -> Iterator[Block]:
    for text in iter(lambda: source.read(BLOCK_CHARACTERS), ""):
        yield from reader.feed(text)
    yield from reader.finish()


def _columns(blocks: Iterator[Block], width: int, bounds: Bounds) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int64]]:
    """Return the cells column by column, and the line of each row."""
    parts: list[list[NDArray[Any]]] = [[] for _ in range(width)]
    lines: list[NDArray[np.int64]] = []
    n_cells = 0
    for block in blocks:
        for line, cells in zip(block.lines, block.rows, strict=True):
            if len(cells) != width:
                raise DatasetError(f"line {line} has {len(cells)} columns, the header has {width}")
        n_cells += width * len(block.rows)
        if n_cells > bounds.max_cells:
            raise DatasetError(f"line {block.lines[-1]}: more than {bounds.max_cells} cells")
        for part, column in zip(parts, zip(*block.rows, strict=True), strict=True):
            part.append(np.array([cell.strip() for cell in column], dtype=TEXT))
        lines.append(np.array(block.lines, dtype=np.int64))
    columns = []
    for part in parts:
        columns.append(np.concatenate(part) if part else np.array([], dtype=TEXT))
        part.clear()
    return tuple(columns), np.concatenate(lines or [np.array([], dtype=np.int64)])


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
