"""A file that is sent over the websocket /score and comes back as a table. Knows nothing of tables."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ml.errors import TableError
from web.api.messages import ModelFrame
from web.client.connection import Address
from web.client.errors import Busy, ConnectionFailed, ModelReplaced, NotUnderstood
from web.client.replies import LATER, ErrorReply
from web.client.waiting import OnLost, Waiting
from web.scoring.messages import RowError, RowsFrame

# Frames without an answer: 256 KiB of a file.
MAX_UNANSWERED = 4
MAX_SLICE_BYTES = 64 * 2**10

_decoder = msgspec.json.Decoder(ModelFrame | RowsFrame | ErrorReply)


@dataclass(frozen=True, slots=True)
class TablePart:
    """A part of the table, as bytes that are written as they are; `read` bytes of the file are answered by now."""

    table: bytes
    rows: int
    bad: int
    errors: list[RowError]
    read: int


Read = Callable[[], Awaitable[bytes]]
Take = Callable[[TablePart], Awaitable[object]]


class SentFile:
    """One file: over any number of connections no row is lost, and none comes twice.

    Args:
        url, token, on_lost: as for `Stream`.
        strict: a row without an answer is an error.
        encoding, decimal, thousands: those of the file; empty leaves it to the service to find them out.
        give_up_s: seconds without any answer after which it ends; inf never gives up.

    Raises:
        WrongAddress: on construction, for an address of another kind.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        strict: bool = False,
        encoding: str = "",
        decimal: str = "",
        thousands: str = "",
        give_up_s: float = math.inf,
        on_lost: OnLost = lambda _reason, _delay_s: None,
    ) -> None:
        said = {"strict": "1" * strict, "encoding": encoding, "decimal": decimal, "thousands": thousands}
        query = urlencode({name: text for name, text in said.items() if text})
        self._address = Address(url, token=token, path=f"score?{query}" if query else "score")
        self._waiting = Waiting(give_up_s)
        self._on_lost = on_lost
        self._has_connected = False
        self._slice_bytes = MAX_SLICE_BYTES
        # For the next connection: the text that resumes the file, the bytes that are answered, and those that are not.
        self._resume = ""
        self._answered_bytes = 0
        self._unanswered = bytearray()
        self._is_read = False

    async def score(self, read: Read, take: Take) -> None:
        """Send what `read` returns until that is empty, and have `take` write what comes back.

        Raises:
            TableError: the service refuses the file: it is no table of the model's features, or too large. The rows
                before were taken.
            ClientError: there is no service, or no more.
        """
        while True:
            try:
                await self._converse(read, take)
                return
            except ConnectionFailed as error:
                if not (self._has_connected or isinstance(error, Busy)):
                    raise  # an address that does not answer is more often wrong than about to come up
                self._waiting.lost()
                lost = error
            await self._waiting.until_connect(lost, self._on_lost)

    async def _converse(self, read: Read, take: Take) -> None:
        connection, announced = await self._address.open()
        self._has_connected = True
        self._waiting.connected(is_idle=not self._unanswered)
        self._slice_bytes = min(MAX_SLICE_BYTES, announced.limits.max_frame_bytes)
        self._frames_unanswered = 0
        self._labels = {*announced.model.labels}
        room = asyncio.Semaphore(MAX_UNANSWERED)
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._waiting.watch())
                tasks.create_task(self._send(connection, read, room))
                receiving = tasks.create_task(self._receive(connection, take, room))
                receiving.add_done_callback(lambda _receiving: watching.cancel())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await connection.close()

    async def _send(self, connection: ClientConnection, read: Read, room: asyncio.Semaphore) -> None:
        async def send(content: bytes) -> None:
            await room.acquire()
            self._frames_unanswered += 1
            self._waiting.start()
            await connection.send(content)

        try:
            if self._resume:
                await connection.send(self._resume, text=True)
            again, size = bytes(self._unanswered), self._slice_bytes
            for start in range(0, len(again), size):
                await send(again[start : start + size])
            while not self._is_read:
                content = await read()
                self._unanswered += content
                self._is_read = not content
                for start in range(0, len(content), size):
                    await send(content[start : start + size])
            await send(b"")
        except ConnectionClosed:
            pass  # `_receive` raises it, after what is being written is written

    async def _receive(self, connection: ClientConnection, take: Take, room: asyncio.Semaphore) -> None:
        table: list[bytes] = []
        while True:
            message = await self._message(connection)
            match message:
                case bytes():
                    table.append(message)
                case ModelFrame():
                    self._labels = {*message.model.labels}
                case RowsFrame():
                    content = b"".join(table)
                    self._check(message, content.count(b"\n"))
                    await take(TablePart(content, message.rows, message.bad, message.errors, message.read))
                    table.clear()
                    self._acknowledge(message)
                    room.release()
                    if message.done:
                        return
                case ErrorReply(error=problem):
                    if problem.status in LATER:
                        raise Busy(f"{self._address}: {problem.detail}", retry_after_s=problem.retry_after_s)
                    raise (ModelReplaced if problem.status == 409 else TableError)(problem.detail)

    def _check(self, rows: RowsFrame, lines: int) -> None:
        """Raise NotUnderstood for what cannot be the answer, in so many lines, to what was sent."""
        read, frames = rows.read - self._answered_bytes, self._frames_unanswered
        counted = sum(rows.counts.values()) if self._labels else rows.rows - rows.bad
        wrong = ""
        if unknown := rows.counts.keys() - self._labels:
            wrong = f"the model has no label {min(unknown)!r}"
        elif not (0 <= rows.bad <= rows.rows and counted == rows.rows - rows.bad):
            wrong = f"{rows.rows} rows, {rows.bad} of them without an answer, and {counted} answers"
        elif (
            frames < 1 or not 0 <= read <= len(self._unanswered) or (rows.done and not (self._is_read and frames == 1))
        ):
            wrong = "an answer to bytes that were not sent"
        elif lines < rows.rows:
            wrong = f"{rows.rows} rows in {lines} lines"
        if wrong:
            raise NotUnderstood(f"{self._address} sent what no prediction service sends: {wrong}")

    def _acknowledge(self, rows: RowsFrame) -> None:
        self._resume = rows.resume
        del self._unanswered[: rows.read - self._answered_bytes]
        self._answered_bytes = rows.read
        self._frames_unanswered -= 1
        # When all is sent, what it waits for is the end.
        self._waiting.answered(is_idle=not (self._frames_unanswered or self._is_read))

    async def _message(self, connection: ClientConnection) -> bytes | ModelFrame | RowsFrame | ErrorReply:
        try:
            message = await connection.recv()
            return message if isinstance(message, bytes) else _decoder.decode(message)
        except ConnectionClosed as error:
            raise self._address.loss(error) from error
        except msgspec.MsgspecError as error:
            raise NotUnderstood(f"{self._address} sent what no prediction service sends: {error}") from error
