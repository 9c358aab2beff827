"""A zip file on its way: it waits on disk until all of it is there, and is then read by a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import IO

from ml.tables.packed import unpacked
from ml.tables.rows import Block
from ml.tables.table import Bounds
from ml.tables.workbook import SheetRows, options_of
from web.scoring.upload import ProcessedFile, Spool

# The service answers before the process that reads a sheet does.
NICENESS = 10


class Workbook(ProcessedFile):
    """One Excel file, or a zip file of text, of which the process reads the names alone.

    Args:
        max_bytes: of its sheets after unpacking; the process may take four times as much memory.
    """

    def __init__(self, *, max_bytes: int, spool: Spool, turn: asyncio.Lock) -> None:
        super().__init__(spool, turn)
        self._rows = SheetRows(options_of(Bounds(max_bytes=max_bytes), niceness=NICENESS))

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield the header of the sheet, and then its rows; and, while a process reads them, blocks without rows.

        Raises:
            TableError: there is no table in it; or reading it takes too much.
            Problem: as `process`.
        """
        async for _ in self.process():
            yield Block([], [], None)
        blocks = self._rows.blocks_in(self._sink.file)
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            yield block

    def packed_text(self) -> Iterator[bytes] | None:
        """Return what is in the file, in pieces, if it is a zip file of text instead; errors are those of `unpacked`.

        It is known once all blocks have come.
        """
        return unpacked(self._source.file, "zip") if self._rows.is_text else None

    async def _run(self, source: IO[bytes], sink: IO[bytes], room: int) -> None:
        process = self._rows.start(source, sink, max_sink_bytes=room)
        try:
            await asyncio.to_thread(process.wait)
        finally:
            process.kill()
