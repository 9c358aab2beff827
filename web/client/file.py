"""A file on its way over the websocket /score: its bytes go out, and come back as a table. Knows nothing of tables."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI

from ml.errors import DatasetError
from web.api.messages import FileErrorFrame, ModelFrame, RowError, RowsFrame
from web.client.stream import (
    CLOSE_TIMEOUT_S,
    FATAL_CODES,
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    MAX_REPLY_BYTES,
    OPEN_TIMEOUT_S,
    ConnectionFailed,
    GaveUp,
    ModelReplaced,
    NotUnderstood,
    Rejected,
    _told,
    _without_password,
    stream_uri,
)

# Frames without an answer: 256 KiB of a file.
MAX_UNANSWERED = 4
MAX_SLICE_BYTES = 64 * 2**10
# Statuses that ask to come again.
BUSY = {429, 503}

_decoder = msgspec.json.Decoder(ModelFrame | RowsFrame | FileErrorFrame)


@dataclass(frozen=True, slots=True)
class Rows:
    """A part of the table, as bytes that are written as they are; `read` bytes of the file are answered by now."""

    table: bytes
    rows: int
    bad: int
    errors: list[RowError]
    read: int


Read = Callable[[], Awaitable[bytes]]
Take = Callable[[Rows], Awaitable[object]]


class _Lost(Exception):
    """There is no connection, and it is worth trying again; after `wait_s` seconds if the service has said so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class File:
    """One file. Over however many connections it goes: no row is lost, and none comes twice.

    Args:
        url, token, on_lost: as for `Stream`.
        strict: a row without an answer is an error.
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
        give_up_s: float = math.inf,
        on_lost: Callable[[str, float], object] = lambda _reason, _delay_s: None,
    ) -> None:
        self._uri = stream_uri(url).removesuffix("/stream") + "/score" + ("?strict=1" if strict else "")
        self._address = _without_password(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._give_up_s = give_up_s
        self._on_lost = on_lost
        self._has_been_there = False
        self._lost_at: float | None = None
        self._delay_s = FIRST_DELAY_S
        self._slice_bytes = MAX_SLICE_BYTES
        # How to go on: the text that the service gave, the bytes that are answered, and those that are not.
        self._resume = ""
        self._answered_bytes = 0
        self._unanswered = bytearray()
        self._is_whole = False

    async def score(self, read: Read, take: Take) -> None:
        """Send what `read` returns until that is empty, and have `take` write what comes back.

        Raises:
            DatasetError: the service refuses the file: it is no table of the model's features, or too large. The rows
                before were taken.
            ClientError: there is no service, or no more.
        """
        while True:
            try:
                connection = await self._connect()
                try:
                    await self._converse(connection, read, take)
                    return
                finally:
                    await connection.close()
            except _Lost as lost:
                if not self._has_been_there and lost.wait_s is None:
                    # An address that does not answer is more often wrong than about to come up.
                    raise ConnectionFailed(str(lost)) from lost
                await self._wait(lost)

    async def _converse(self, connection: ClientConnection, read: Read, take: Take) -> None:
        room = asyncio.Semaphore(MAX_UNANSWERED)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(connection, read, room))
                tasks.create_task(self._receive(connection, take, room))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _send(self, connection: ClientConnection, read: Read, room: asyncio.Semaphore) -> None:
        async def send(content: bytes) -> None:
            await room.acquire()
            await connection.send(content)

        try:
            if self._resume:
                await connection.send(self._resume, text=True)
            again, size = bytes(self._unanswered), self._slice_bytes
            for start in range(0, len(again), size):
                await send(again[start : start + size])
            while not self._is_whole:
                content = await read()
                self._unanswered += content
                self._is_whole = not content
                for start in range(0, len(content), size):
                    await send(content[start : start + size])
            await send(b"")
        except ConnectionClosed:
            pass  # whoever receives says so, after what is being written is written

    async def _receive(self, connection: ClientConnection, take: Take, room: asyncio.Semaphore) -> None:
        table: list[bytes] = []
        while True:
            message = await self._message(connection)
            match message:
                case bytes():
                    table.append(message)
                case RowsFrame():
                    await take(Rows(b"".join(table), message.rows, message.bad, message.errors, message.read))
                    table.clear()
                    self._go_on_after(message)
                    room.release()
                    if message.done:
                        return
                case FileErrorFrame(error=problem, retry_after_s=wait_s):
                    if problem.status in BUSY:
                        raise _Lost(f"{self._address} is busy: {problem.detail}", wait_s)
                    raise (ModelReplaced if problem.status == 409 else DatasetError)(problem.detail)

    def _go_on_after(self, rows: RowsFrame) -> None:
        self._resume = rows.resume
        del self._unanswered[: rows.read - self._answered_bytes]
        self._answered_bytes = rows.read
        self._lost_at, self._delay_s = None, FIRST_DELAY_S

    async def _message(self, connection: ClientConnection) -> bytes | ModelFrame | RowsFrame | FileErrorFrame:
        try:
            message = await connection.recv()
            return message if isinstance(message, bytes) else _decoder.decode(message)
        except ConnectionClosed as error:
            reason = f"{self._address} closed the connection: {_told(error)}"
            if any(closed and closed.code in FATAL_CODES for closed in (error.rcvd, error.sent)):
                raise Rejected(reason) from error
            raise _Lost(reason) from error
        except msgspec.MsgspecError as error:
            raise NotUnderstood(f"{self._address} answered as no prediction service would: {error}") from error

    async def _connect(self) -> ClientConnection:
        """Return a connection that has announced its model."""
        try:
            connection = await connect(
                self._uri, additional_headers=self._headers, compression=None, max_size=MAX_REPLY_BYTES,
                open_timeout=OPEN_TIMEOUT_S, close_timeout=CLOSE_TIMEOUT_S,
            )  # fmt: skip
        except InvalidStatus as error:
            status, wait = error.response.status_code, error.response.headers.get("Retry-After", "")
            if status >= 500 or status in BUSY:
                raise _Lost(
                    f"{self._address} answered with status {status}", int(wait) if wait.isdecimal() else None
                ) from error
            raise Rejected(f"{self._address} takes no files from this client: status {status}") from error
        except (InvalidHandshake, InvalidURI, InvalidProxy) as error:
            raise NotUnderstood(f"{self._address} takes no files: {error}") from error
        except OSError as error:  # TimeoutError is one
            raise _Lost(f"no connection to {self._address}: {_told(error)}") from error
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                first = await self._message(connection)
            if isinstance(first, FileErrorFrame):
                raise _Lost(f"{self._address} is busy: {first.error.detail}", first.retry_after_s)
            if not isinstance(first, ModelFrame):
                raise NotUnderstood(f"{self._address} is no prediction service: it announces no model")
        except BaseException as error:
            await connection.close()
            if isinstance(error, TimeoutError):
                raise _Lost(f"{self._address} announced no model") from error
            raise
        self._slice_bytes = min(MAX_SLICE_BYTES, first.limits.max_frame_bytes)
        self._has_been_there = True
        return connection

    async def _wait(self, lost: _Lost) -> None:
        """Wait until it is time for another attempt: as long as the service has said, or longer each time.

        Raises:
            GaveUp: it took longer than `give_up_s` since the last answer.
        """
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        left_s = self._lost_at + self._give_up_s - now
        if left_s <= 0:
            raise GaveUp(f"gave up after {self._give_up_s:g} s: {lost}")
        # Jitter keeps all clients of a restarted server from coming back at the same moment.
        delay_s = lost.wait_s if lost.wait_s is not None else self._delay_s * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        delay_s = min(delay_s, left_s)
        self._on_lost(str(lost), delay_s)
        await asyncio.sleep(delay_s)
