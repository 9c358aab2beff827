"""The rows of a CSV file or a pipe as samples for the stream, read in a thread of their own."""

from __future__ import annotations

import asyncio
import codecs
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from ml.model.sample import Validator
from ml.tables.csvfile import feature_of
from ml.tables.layout import positions_of
from ml.tables.numbers import plain_numbers
from ml.tables.rows import Block, RowReader
from web.api.messages import StreamModel
from web.client.stream import Refused, Sample

READ_BYTES = 64 * 2**10
# Parts that were read and not taken yet.
PARTS_WAITING = 2


@dataclass(frozen=True, slots=True)
class Header:
    """The first row of a table, and what separates its cells."""

    cells: list[str]
    separator: str


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that were there at once: the line on which each starts, counted from 1, its cells, and what is sent for it.

    `bytes_read` counts from the start of the input.
    """

    lines: list[int]
    rows: list[list[str]]
    samples: Sequence[Sample | Refused]
    bytes_read: int


class Parts:
    """The parts of a table, as a thread reads them; it waits while too many of them are not taken.

    The thread does not hold up the end of the process: nothing could wake it while a pipe is silent.

    Args:
        descriptor: is read to its end and not closed.
        model: whose features the table must have.

    Attributes:
        size_bytes: of the input, or 0 where it is not known.
    """

    def __init__(self, descriptor: int, model: StreamModel) -> None:
        status = os.fstat(descriptor)
        self.size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Header | Part | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(PARTS_WAITING)
        threading.Thread(target=self._read, args=(descriptor, model), daemon=True).start()

    async def header(self) -> Header:
        """Return the header, which comes before all parts; errors are those of `next`."""
        header = await self._take()
        assert isinstance(header, Header)
        return header

    async def next(self) -> Part | None:
        """Return the next part; None is the end.

        Raises:
            DatasetError: there is no header, or it lacks a feature, or the text is not CSV.
            OSError: it cannot be read.
        """
        part = await self._take()
        assert not isinstance(part, Header)
        return part

    async def _take(self) -> Header | Part | None:
        item = await self._queue.get()
        self._room.release()
        if isinstance(item, Exception):
            raise item
        return item

    def _put(self, item: Header | Part | Exception | None) -> None:
        self._room.acquire()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def _read(self, descriptor: int, model: StreamModel) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody wants the rest
            try:
                read_table(descriptor, model, self._put)
                self._put(None)
            except Exception as error:  # whatever it is, whoever waits for the next part must hear of it
                self._put(error)


def read_table(descriptor: int, model: StreamModel, hand_over: Callable[[Header | Part], None]) -> None:
    """Read CSV text: hand over its header, and then all complete rows each time before waiting for more text.

    Raises:
        DatasetError: there is no header, or it lacks a feature, or the text is not CSV.
        OSError: it cannot be read.
    """
    reader = RowReader(allow_one_column=True)
    columns: _Columns | None = None
    bytes_read = 0

    def hand_over_rows(blocks: Iterator[Block]) -> None:
        nonlocal columns
        for block in blocks:
            if columns is None:
                (header,) = block.rows
                columns = _Columns(model, header)
                hand_over(Header(header, reader.separator))
            else:
                hand_over(Part(list(block.lines), block.rows, columns.samples(block.rows), bytes_read))

    # Bytes that are not UTF-8 pass through as they are: a cell that nobody needs is no reason to stop.
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    while content := os.read(descriptor, READ_BYTES):
        bytes_read += len(content)
        hand_over_rows(reader.feed(decode(content)))
    hand_over_rows(reader.feed(decode(b"", True)))
    hand_over_rows(reader.finish())


class _Columns:
    """Where a table has the features of a model.

    Raises:
        DatasetError: the header lacks one of them, or has it twice.
    """

    def __init__(self, model: StreamModel, header: Sequence[str]) -> None:
        self.features = model.features
        self.validator = Validator(model.features)
        self._positions = [*positions_of(model.features, header, [feature_of(text).key for text in header])]
        self._width = len(header)

    def samples(self, rows: list[list[str]]) -> Sequence[Sample | Refused]:
        """Return what is sent for each row: numbers, which take the server half the time, or text as it stands.

        Whatever is not plain is left for the server to judge, so that its message is about what is in the table.
        """
        plain = None
        if set(map(len, rows)) == {self._width}:
            columns = list(zip(*rows, strict=True))
            plain = plain_numbers([columns[position] for position in self._positions])
        if plain is not None and self.validator.accepts_all(plain):
            encoded = msgspec.json.encode(plain.tolist())[2:-2]  # [[…],[…]]
            return [Raw(b"[%b]" % row) for row in encoded.split(b"],[")]
        return [self._sample(cells) for cells in rows]

    def _sample(self, cells: list[str]) -> Sample | Refused:
        if len(cells) != self._width:
            return Refused(f"{len(cells)} columns, the header has {self._width}")
        # JSON cannot hold the bytes that were not UTF-8; they make no number either way.
        return [cells[position].encode(errors="replace").decode() for position in self._positions]
