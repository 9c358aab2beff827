"""An Excel file becomes rows, by a process that reads it; see `ml.tables.sheet`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from ml.errors import TableError
from ml.tables.columns import Columns
from ml.tables.confined import cpu_s_of, memory_bytes_of
from ml.tables.rows import Block
from ml.tables.sheet import SheetOptions, SheetPiece
from ml.tables.table import Bounds, Table

ROOT = Path(__file__).parent.parent.parent
# An Excel file's XML is read at some 10 MB/s; more of it is better saved as CSV.
MAX_WORKBOOK_BYTES = 2**29


def read_workbook(file: IO[bytes], *, sheet: str | None, has_header: bool, bounds: Bounds) -> Table:
    """Return the table on a sheet.

    Raises:
        TableError: there is none, or it is beyond the bounds.
    """
    rows = SheetRows(options_of(bounds, sheet=sheet, has_header=has_header))
    blocks = rows.blocks(file)
    columns = Columns(next(blocks).rows[0], bounds, line="row")
    for block in blocks:
        columns.take(block)
    return columns.table(rows.inferred, has_types=True)


def options_of(bounds: Bounds, *, sheet: str | None = None, has_header: bool = True, niceness: int = 0) -> SheetOptions:
    """Return what a process may take to read a sheet: four bytes of memory for each of its XML, and time enough."""
    max_bytes = min(bounds.max_bytes, MAX_WORKBOOK_BYTES)
    return SheetOptions(
        sheet=sheet, has_header=has_header, max_bytes=max_bytes, max_cells=bounds.max_cells,
        memory_bytes=memory_bytes_of(max_bytes), cpu_s=cpu_s_of(max_bytes), niceness=niceness,
    )  # fmt: skip


class SheetRows:
    """The rows of a sheet, as a process reads them: a block with the header, and then blocks of rows.

    Attributes:
        inferred: what was inferred or left out, once all rows have come.
        is_text: whether there were no rows, as this is a zip file of one file that may be text.
    """

    def __init__(self, options: SheetOptions) -> None:
        self._options = options
        self.inferred: list[str] = []
        self.is_text = False

    def start(
        self, file: IO[bytes], sink: int | IO[bytes], *, max_sink_bytes: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that reads a file and writes pieces to `sink`, which may be `subprocess.PIPE`."""
        file.seek(0)
        options = msgspec.structs.replace(self._options, max_sink_bytes=max_sink_bytes)
        return subprocess.Popen(  # noqa: S603  # a file decides nothing of the command
            [sys.executable, "-c", "from ml.tables.sheet import main; main()", msgspec.json.encode(options)],
            cwd=ROOT, stdin=file, stdout=sink, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def blocks(self, file: IO[bytes]) -> Iterator[Block]:
        """Yield the rows of a file, which has a descriptor.

        Raises:
            TableError: as `blocks_in`.
        """
        with self.start(file, subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                yield from self.blocks_in(process.stdout)
            finally:
                process.kill()

    def blocks_in(self, lines: Iterable[bytes]) -> Iterator[Block]:
        """Yield the rows in what a process has written.

        Raises:
            TableError: there is no table in the file; or reading it took too much.
        """
        has_header = False
        for line in lines:
            if not line.endswith(b"\n"):
                break  # the process has been ended while it wrote this piece
            piece = msgspec.json.decode(line, type=SheetPiece)
            if piece.error:
                raise TableError(piece.error)
            start = 0
            if not has_header and piece.rows:
                has_header, start = True, 1
                yield Block(piece.rows[:1], piece.lines[:1], None)
            if piece.rows[start:]:
                yield Block(piece.rows[start:], piece.lines[start:], None)
            if piece.is_last:
                self.inferred, self.is_text = piece.inferred, piece.is_text
                return
        raise TableError("the Excel file takes too much time or memory to read")
