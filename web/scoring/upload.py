"""The body of a large request as it comes, and what of it waits on disk for a client that does not read yet."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from os import SEEK_END
from typing import IO

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send

from ml.errors import TableError
from web.problems import Problem
from web.responses import CHECK

logger = logging.getLogger("web")

# How long an answer waits for its reader until the upload is read ahead.
PATIENCE_S = 0.25
READ_BYTES = 2**18


@dataclass
class Spool:
    """The bytes of all uploads of a process that wait on disk: how many there may be, and are."""

    most: int
    taken: int = 0

    @property
    def room(self) -> int:
        """How many more bytes there may be."""
        return max(0, self.most - self.taken)


class SpooledFile:
    """A file that waits on disk; it has no name. It is closed when it is no longer needed.

    Attributes:
        size: in bytes.
    """

    def __init__(self, spool: Spool) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self.size = 0
        self._spool = spool

    def close(self) -> None:
        """Free what it takes on disk."""
        self._spool.taken -= self.size
        with suppress(OSError):  # what the disk has no room for is still to be written
            self.file.close()

    async def add(self, content: bytes) -> None:
        """Write some more of the file; who must not exceed the spool's room looks first.

        Raises:
            Problem: 503, the disk is full.
        """
        self.count(len(content))
        try:
            await asyncio.to_thread(self._write, content)
        except OSError as error:
            logger.warning("an upload cannot wait on disk: %s", error.strerror)
            raise Problem(503, "no room on the server's disk: try again later", retry_after_s=1) from error

    def _write(self, content: bytes) -> None:
        self.file.seek(0, SEEK_END)
        self.file.write(content)
        self.file.flush()

    def count(self, size: int) -> None:
        """Count so many more bytes, which may have been written by another process."""
        self.size += size
        self._spool.taken += size

    def read_at(self, start: int) -> bytes:
        """Return some bytes from there on."""
        self.file.seek(start)
        return self.file.read(READ_BYTES)


class ProcessedFile(ABC):
    """A file that waits on disk until all of it has come; then a process reads it, and writes what it makes of it.

    It is closed when it is no longer needed.

    Args:
        turn: is held while the process runs.

    Attributes:
        size: of what the process has written, once it has ended.
    """

    def __init__(self, spool: Spool, turn: asyncio.Lock) -> None:
        self.size = 0
        self._spool = spool
        self._turn = turn
        self._source, self._sink = SpooledFile(spool), SpooledFile(spool)
        self._processing: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Free what it takes on disk, and end the process."""
        if self._processing is not None:
            self._processing.cancel()
        self._source.close()
        self._sink.close()

    async def add(self, content: bytes) -> None:
        """Take some more of the file.

        Raises:
            Problem: 503, there is no room on disk.
        """
        if len(content) > self._spool.room:
            raise _spool_full()
        await self._source.add(content)

    async def process(self) -> AsyncIterator[None]:
        """Have the file processed; yield again and again until that is done.

        Raises:
            Problem: 503, there is no room on disk for what the process writes.
            TableError: as `_run`.
        """
        self._processing = asyncio.create_task(self._process())
        while not self._processing.done():
            await asyncio.wait({self._processing}, timeout=PATIENCE_S)
            yield
        self._processing.result()

    async def _process(self) -> None:
        async with self._turn:
            source, sink, room = self._source.file, self._sink.file, self._spool.room
            source.seek(0)
            try:
                await self._run(source, sink, room)
            except TableError:
                if sink.seek(0, SEEK_END) < room:
                    raise
            # Where there was no room, that is the reason, whatever the process says.
            self.size = sink.seek(0, SEEK_END)
            if self.size >= room or self.size > self._spool.room:
                raise _spool_full()
        self._sink.count(self.size)
        sink.seek(0)

    @abstractmethod
    async def _run(self, source: IO[bytes], sink: IO[bytes], room: int) -> None:
        """Run the process, which may write `room` bytes to `sink`, to its end.

        Raises:
            TableError: the file is none that it can read; or reading it takes too much.
        """


class Body:
    """The body of a request, in order, and the sending of its answer while it comes.

    It is read when it is asked for, and also while the answer waits for its reader: browsers and most HTTP libraries
    read nothing until they have sent everything, so that each side would wait for the other for ever. What is read
    ahead goes into a temporary file that has no name; when `spool` has no room, nothing is read ahead.

    Args:
        max_bytes: of the whole body.
    """

    def __init__(self, receive: Receive, send: Send, *, max_bytes: int, spool: Spool) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._spool = spool
        self._came = 0
        self._is_whole = False
        self._incoming: asyncio.Task[Message] | None = None
        self._ahead: SpooledFile | None = None
        self._read = 0  # bytes of it

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._incoming is not None:
            self._incoming.cancel()
            await asyncio.wait({self._incoming})
        if self._ahead is not None:
            self._ahead.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            Problem: 413, it is too large; 503, the disk is full.
            ClientDisconnect: the client has left.
        """
        while True:
            if self._ahead is not None:
                yield await self._from_file(self._ahead)
            elif not self._is_whole:
                yield self._taken(await self._arrival())
            else:
                return

    async def skip(self) -> None:
        """Read all that is left and forget it; errors are those of `chunks`."""
        async for _ in self.chunks():
            pass

    async def send(self, message: Message) -> None:
        """Send a part of the answer, and read ahead while that has to wait.

        Raises:
            Problem, ClientDisconnect: as `chunks`.
        """
        sending = asyncio.ensure_future(self._send(message))
        try:
            await asyncio.wait({sending}, timeout=PATIENCE_S)
            while not sending.done():
                arrival = self._arrival()
                may_read = not self._is_whole and self._spool.room > 0
                # Room on the disk is not announced.
                await asyncio.wait(
                    {sending, arrival} if may_read else {sending},
                    timeout=PATIENCE_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if may_read and arrival.done():
                    await self._to_file(self._taken(arrival.result()))
            sending.result()
        finally:
            sending.cancel()
        await self.check()

    async def check(self) -> None:
        """Raise ClientDisconnect if the client has left: then nobody wants the rest."""
        await self._send({"type": CHECK})

    def _arrival(self) -> asyncio.Task[Message]:
        if self._incoming is None:
            self._incoming = asyncio.ensure_future(self._receive())
        return self._incoming

    def _taken(self, message: Message) -> bytes:
        self._incoming = None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        content: bytes = message.get("body", b"")
        self._came += len(content)
        if self._came > self._max_bytes:
            raise too_large(self._max_bytes)
        self._is_whole = not message.get("more_body", False)
        return content

    async def _to_file(self, content: bytes) -> None:
        if content:
            self._ahead = self._ahead or SpooledFile(self._spool)
            await self._ahead.add(content)

    async def _from_file(self, ahead: SpooledFile) -> bytes:
        content = await asyncio.to_thread(ahead.read_at, self._read)
        self._read += len(content)
        if self._read == ahead.size:
            ahead.close()
            self._ahead, self._read = None, 0
        return content


def _spool_full() -> Problem:
    return Problem(503, "too many files wait on the server's disk: try again later", retry_after_s=1)


def too_large(max_bytes: int) -> Problem:
    """Return the problem of an upload of more than so many bytes."""
    return Problem(413, f"the upload has more than {max_bytes} bytes")
