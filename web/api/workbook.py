"""An Excel file on its way: it waits on disk until all of it is there, and is then read by a process of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator

from ml.errors import DatasetError
from ml.tables.rows import Block
from ml.tables.table import Bounds
from ml.tables.workbook import SheetRows, is_workbook, options_of
from web.api.upload import PATIENCE_S, Spool, SpooledFile

# The service answers before the process that reads a sheet does.
NICENESS = 10


class Workbook:
    """One Excel file. It is closed when it is no longer needed.

    Args:
        max_bytes: of its sheets after unpacking; the process may take four times as much memory.
        spool: what waits on disk for all files.
        turn: is held while a process reads a file.
    """

    def __init__(self, *, max_bytes: int, spool: Spool, turn: asyncio.Lock) -> None:
        self._rows = SheetRows(options_of(Bounds(max_bytes=max_bytes), niceness=NICENESS))
        self._turn = turn
        self._spooled = SpooledFile(spool)
        self._sink = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._reading: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Free what it takes on disk, and end the process that reads it."""
        if self._reading is not None:
            self._reading.cancel()
        self._spooled.close()
        self._sink.close()

    async def add(self, content: bytes) -> None:
        """Take some more of the file; errors are those of `SpooledFile.add`."""
        await self._spooled.add(content)

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield the header of the sheet, and then its rows; and, while a process reads them, blocks without rows.

        Raises:
            DatasetError: there is no table in it; or reading it takes too much.
        """
        self._reading = asyncio.create_task(self._read())
        while not self._reading.done():
            await asyncio.wait({self._reading}, timeout=PATIENCE_S)
            yield Block([], [], None)
        self._reading.result()
        blocks = self._rows.blocks_in(self._sink)
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            yield block

    async def _read(self) -> None:
        async with self._turn:
            file = self._spooled.file
            file.flush()
            if not is_workbook(file):
                raise DatasetError("this is a zip file: unpack it")
            process = self._rows.start(file, self._sink)
            try:
                await asyncio.to_thread(process.wait)
            finally:
                process.kill()
        self._sink.seek(0)
