"""A file becomes a table: every cell as text, whatever kind of file it is in. Knows nothing of numbers or features."""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ml.errors import DatasetError
from ml.tables.columns import Columns
from ml.tables.dialect import SEPARATORS
from ml.tables.encoding import TextDecoder, encoding_said
from ml.tables.filekind import START_BYTES, Kind, is_json, kind_of
from ml.tables.header_rows import named_classes, without_header_rows
from ml.tables.parquet import read_parquet
from ml.tables.records import read_records
from ml.tables.rows import Block, RowReader
from ml.tables.table import Bounds, Table
from ml.tables.workbook import is_workbook, read_workbook

# The size of one read.
BLOCK_CHARACTERS = 2**18
# What archives have besides the file that was packed.
_NO_FILES = ("__MACOSX/", ".DS_Store")
_SHOWN_MEMBERS = 5


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
        DatasetError: there is no table in it, or it is beyond the bounds. The message names the file and the line.
    """
    try:
        return _read(path, encoding=encoding, sheet=sheet, has_header=has_header, bounds=bounds)
    except DatasetError as error:
        raise error.of(path) from error
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error


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
            raise DatasetError("only an Excel file has sheets")
        with _unpacked(file, kind) as unpacked:
            chunks = _bounded(unpacked, bounds)
            return _text_table(chunks, TextDecoder(encoding or ""), has_header=has_header, bounds=bounds)


@contextmanager
def _unpacked(file: IO[bytes], kind: Kind) -> Iterator[IO[bytes]]:
    """Open what a file has packed, if it has.

    Raises:
        DatasetError: there are several files in it, or it is damaged.
    """
    try:
        if kind == "gzip":
            with gzip.open(file) as unpacked:
                yield unpacked  # type: ignore[misc]  # a GzipFile is as good as any
        elif kind == "zip":
            with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive)) as member:
                yield member
        else:
            yield file
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DatasetError(f"the {kind} file is damaged: {error}") from error
    except (NotImplementedError, RuntimeError) as error:
        raise DatasetError(f"the {kind} file cannot be unpacked: {error}") from error


def _only_member(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/") and not _is_no_file(name)]
    if len(names) == 1:
        return names[0]
    if not names:
        raise DatasetError("the zip file is empty")
    shown = ", ".join(map(repr, names[:_SHOWN_MEMBERS])) + (", …" if len(names) > _SHOWN_MEMBERS else "")
    raise DatasetError(f"the zip file has {len(names)} files, {shown}: unpack the one with the table")


def _is_no_file(name: str) -> bool:
    return name.startswith(_NO_FILES) or name.rpartition("/")[2] in _NO_FILES


def _bounded(file: IO[bytes], bounds: Bounds) -> Iterator[bytes]:
    """Yield what a file has.

    Raises:
        DatasetError: it has more than `max_bytes`.
    """
    came = 0
    while content := file.read(BLOCK_CHARACTERS):
        came += len(content)
        if came > bounds.max_bytes:
            raise DatasetError(f"larger than {bounds.max_bytes} bytes")
        yield content


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
        DatasetError: both names are of the same file.
    """
    try:
        same = os.path.samefile(source, sink)
    except OSError:
        return  # one of them is not there, or no file at all
    if same and os.path.isfile(source):
        raise DatasetError(f"{source} is the input as well: name another file for the output")
