"""A file becomes a table: every cell as text, whatever kind of file it is in. Knows nothing of numbers or features."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml.errors import TableError
from ml.tables.columns import Columns
from ml.tables.dialect import SEPARATORS
from ml.tables.encoding import TextDecoder, encoding_said
from ml.tables.filekind import START_BYTES, is_json, is_workbook, kind_of
from ml.tables.header_rows import named_classes, without_header_rows
from ml.tables.packed import bounded, unpacked
from ml.tables.parquet import read_parquet
from ml.tables.records import read_records
from ml.tables.rows import Block, RowReader
from ml.tables.table import Bounds, Table
from ml.tables.workbook import read_workbook

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
    """Return the table in a file: text or JSON, packed by gzip or zip or not, an Excel sheet, or Parquet.

    Args:
        encoding: of text; None finds it out.
        sheet: the name of an Excel file's sheet; None is the first one that has cells.
        has_header: whether the first row has the names of the columns; else they are `column_1` and so on.
        bounds: what is read at most, after it is unpacked.

    Raises:
        TableError: there is no table in it, or it is beyond the bounds. The message names the file and the line.
    """
    try:
        return _read(path, encoding=encoding, sheet=sheet, has_header=has_header, bounds=bounds)
    except TableError as error:
        raise error.of(path) from error
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error


def _read(path: Path, *, encoding: str | None, sheet: str | None, has_header: bool, bounds: Bounds) -> Table:
    with path.open("rb") as file:
        kind = kind_of(file.read(START_BYTES))
        file.seek(0)
        if kind == "parquet":
            return read_parquet(file, bounds)
        if kind == "zip" and is_workbook(file):
            table = read_workbook(file, sheet=sheet, has_header=has_header, bounds=bounds)
            return without_header_rows(table) if has_header else table
        if sheet is not None:
            raise TableError("only an Excel file has sheets")
        chunks = bounded(unpacked(file, kind), bounds)
        return _text_table(chunks, TextDecoder(encoding or ""), has_header=has_header, bounds=bounds)


def _text_table(chunks: Iterator[bytes], decoder: TextDecoder, *, has_header: bool, bounds: Bounds) -> Table:
    texts = _texts(chunks, decoder)
    first = next(texts, "")
    if is_json(first.removeprefix("\ufeff")):
        return read_records(first, texts, bounds)
    reader = RowReader(strict=True, has_header=has_header)
    blocks = _blocks(first, texts, reader)
    header = next(blocks)
    block = next(blocks, Block([], [], None))
    classes = named_classes(header.rows[0], block.rows[0]) if has_header and block.rows else None
    columns = Columns(classes.names if classes else header.rows[0], bounds)
    columns.take(block)
    for block in blocks:
        columns.take(block)
    table = columns.table(_inferred(reader, decoder, columns))
    if classes is not None:
        return classes.named(table)
    return without_header_rows(table) if has_header else table


def _texts(chunks: Iterator[bytes], decoder: TextDecoder) -> Iterator[str]:
    for chunk in chunks:
        if text := decoder.decode(chunk):
            yield text
    yield decoder.decode(b"", final=True)


def _blocks(first: str, texts: Iterator[str], reader: RowReader) -> Iterator[Block]:
    yield from reader.feed(first)
    for text in texts:
        yield from reader.feed(text)
    yield from reader.finish()


def _inferred(reader: RowReader, decoder: TextDecoder, columns: Columns) -> list[str]:
    assert reader.dialect is not None  # there is a header
    inferred = [f"separated by {SEPARATORS[reader.dialect.separator]}", *reader.inferred, *encoding_said(decoder)]
    if reader.blank_lines:
        inferred.append(f"blank lines left out: {reader.blank_lines}")
    if columns.blank_rows:
        inferred.append(f"rows without a value left out: {columns.blank_rows}")
    return inferred


def refuse_same_file(source: str, sink: str) -> None:
    """Refuse to write a table over the one that is being read.

    Raises:
        TableError: both names are of the same file.
    """
    try:
        same = os.path.samefile(source, sink)
    except OSError:
        return  # one of them is not there, or no file at all
    if same and os.path.isfile(source):
        raise TableError(f"{source} is the input as well: name another file for the output")


@contextmanager
def placed(path: Path, mode: str = "wb", **options: str) -> Iterator[Any]:
    """Open a new file beside `path`, which takes its place when it is complete; an error leaves what is there.

    Until then its name begins with a dot: engines that read the folder leave it out.
    """
    with tempfile.NamedTemporaryFile(  # type: ignore[call-overload]  # the mode and its options belong together
        mode, dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False, **options
    ) as file:
        try:
            yield file
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
