"""A client of the stream: samples in, predictions out, in order, whatever happens to the connection.

    async with Stream("http://127.0.0.1:8000") as stream:
        async for prediction in stream.predict([[5.6, 2.7, 4.2, 1.3]]):
            print(prediction.label, prediction.probabilities)

`python -m web.client URL stream rows.csv` does it for a file or a pipe.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing, nullcontext
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from web.api.messages import SUBPROTOCOL, Limits, ModelFrame, StreamModel
from web.client.queue import Call, Outcome, Prediction, Queue, Refused, Sample, decode, encode

__all__ = [
    "ClientError", "ConnectionFailed", "GaveUp", "ModelReplaced", "NotUnderstood", "Outcome", "Prediction", "Refused",
    "Rejected", "Sample", "Stream", "StreamEnded", "WrongAddress",
]  # fmt: skip

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
# For the handshake, and then for the model's frame.
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
# An answer is about as large as its frame; this only keeps a strange server from filling the memory.
MAX_REPLY_BYTES = 64 * 2**20
# A sequence is drawn from in the event loop: after this long, answers have a turn.
TURN_S = 0.005
Samples = Iterable[Sample | Refused] | AsyncIterable[Sample | Refused]

# What closes the connection because of what was sent, so that sending it again would not help (RFC 6455, 7.4.1).
FATAL_CODES = {1002, 1003, 1007, 1008, 1009, 1010}


class ClientError(Exception):
    """Everything that a stream raises on purpose; the message is one sentence."""


class WrongAddress(ClientError):
    """The address is none of a service."""


class ConnectionFailed(ClientError):
    """No connection came about; later it may."""


class Rejected(ClientError):
    """The server does not want this client, or what it sent."""


class NotUnderstood(ClientError):
    """The server does not speak as a prediction service does."""


class ModelReplaced(ClientError):
    """The model was replaced by one with other features: samples meant for the old one make no sense to it."""


class GaveUp(ClientError):
    """The connection was lost and did not come back in time."""


class StreamEnded(ClientError):
    """The stream was left, or never entered."""


class Stream:
    """A connection to the stream of a prediction service that outlives restarts of the server.

    Entering it connects, once: an address that does not answer is more often wrong than about to come up. From then on
    a lost connection is made again, first after 0.5 s, then after longer and longer, up to 8 s; what was not answered
    is sent again. Several tasks may call `predict` at the same time.

    Args:
        url: where the service is: http, https, ws or wss, with a path prefix if it has one.
        token: what the service wants of programs, if it wants something; sent to its own address alone.
        give_up_s: seconds without any answer after which a lost connection is an error; None never gives up.
        on_lost: is told, each time before waiting, why there is no connection and how many seconds it will wait.

    Attributes:
        model: name, version, features and labels of the model that answers at present.
        limits: what the server accepts; `predict` keeps to it by itself.

    Raises:
        WrongAddress: on construction, for an address of another kind.
        ClientError: on entering, when there is no connection to a prediction service; another one of the tree for
            each reason. What happens later is raised by `predict`.
    """

    model: StreamModel
    limits: Limits

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        give_up_s: float | None = None,
        on_lost: Callable[[str, float], object] = lambda _reason, _delay_s: None,
    ) -> None:
        self._uri = stream_uri(url)
        self._address = _without_password(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._give_up_s = give_up_s
        self._on_lost = on_lost
        self._queue = Queue()
        self._calls: dict[Call, asyncio.Task[None]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._failure: ClientError | None = StreamEnded("the stream has not been entered")
        self._lost_at: float | None = None
        self._delay_s = FIRST_DELAY_S
        self._connected_at = 0.0

    async def __aenter__(self) -> Stream:
        if self._runner:
            raise RuntimeError("a stream is entered once")
        self._connection = await self._connect()
        self._failure = None
        self._runner = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._fail(StreamEnded("the stream has been left"))
        assert self._runner is not None
        tasks = [self._runner, *self._calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._connection.close()  # again, since a task that is cancelled before it began closes nothing

    async def predict(self, samples: Samples) -> AsyncGenerator[Outcome]:
        """Yield a `Prediction` for each sample, or `Refused` with the reasons, in the order of the samples.

        Memory stays bounded however many samples there are: they are drawn only as fast as answers are taken. A sample
        that comes alone is sent alone, at once; those that come faster than they are answered go many to a frame.

        Args:
            samples: each a mapping by feature key, or a sequence in the order of the features; NaN counts as missing.
                A `Refused` among them is not sent and keeps its place among the answers.
                Where producing a sample means waiting, give an async iterable: others are drawn from in the event loop.

        Raises:
            ClientError: the connection is lost for good. Answers that came before have been yielded.
            TypeError, ValueError: a sample cannot be written as JSON.
        """
        async with aclosing(self.batches(samples)) as batches:
            async for outcomes in batches:
                for outcome in outcomes:
                    yield outcome

    async def batches(self, samples: Samples) -> AsyncGenerator[list[Outcome]]:
        """Yield what `predict` does, but list by list as answers arrive: for whoever writes them somewhere."""
        if self._failure:
            raise self._failure
        call = Call(self._queue)
        drawing = self._calls[call] = asyncio.create_task(_draw(samples, call))
        drawing.add_done_callback(lambda _drawing: call.complete())
        try:
            while not call.is_over:
                call.answered.clear()
                while (outcomes := call.take()) is not None:
                    yield outcomes
                if self._failure:
                    raise self._failure
                if not call.is_over:
                    await call.answered.wait()
            drawing.result()  # raises what the samples raised
        finally:
            self._queue.abandon(call)
            drawing.cancel()
            await asyncio.wait([drawing])
            del self._calls[call]

    async def _run(self) -> None:
        """Keep the conversation going over one connection after the other."""
        try:
            while True:
                reason = await self._converse(self._connection)
                self._queue.lose()
                self._connection = await self._reconnect(reason)
        except ClientError as error:
            self._fail(error)
        except Exception as error:  # whoever waits must hear of it
            broken = ClientError(f"the stream broke: {error!r}")
            broken.__cause__ = error
            self._fail(broken)
        finally:
            await self._connection.close()

    def _fail(self, error: ClientError) -> None:
        self._failure = self._failure or error
        for call in self._calls:
            call.answered.set()

    async def _converse(self, connection: ClientConnection) -> str:
        """Send and receive until the connection is lost; return why it was.

        Raises:
            Rejected, NotUnderstood, ModelReplaced: another connection would not help.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(connection))
                tasks.create_task(self._receive(connection))
        except ExceptionGroup as group:
            error = group.exceptions[0]
        if not isinstance(error, ConnectionClosed):
            raise error
        if any(closed and closed.code in FATAL_CODES for closed in (error.rcvd, error.sent)):
            raise Rejected(f"{self._address} closed the stream: {_told(error)}") from error
        return f"{self._address} closed the stream: {_told(error)}"

    async def _send(self, connection: ClientConnection) -> None:
        while True:
            self._queue.changed.clear()
            while (frame := self._queue.next_frame()) is not None:
                await connection.send(frame, text=True)
            await self._queue.changed.wait()

    async def _receive(self, connection: ClientConnection) -> None:
        while True:
            frame = await connection.recv(decode=False)
            try:
                reply = decode(frame)
                if isinstance(reply, ModelFrame):
                    self._follow(reply)
                    continue
                self._queue.settle(reply)
            except ValueError as error:
                raise NotUnderstood(f"{self._address} answered as no prediction service would: {error}") from error
            self._lost_at, self._delay_s = None, FIRST_DELAY_S

    def _follow(self, announced: ModelFrame) -> None:
        keys = [feature.key for feature in announced.model.features]
        if hasattr(self, "model") and keys != [feature.key for feature in self.model.features]:
            raise ModelReplaced(
                f"the model of {self._address} was replaced by one with other features: {', '.join(keys)}"
            )
        self.model, self.limits = announced.model, announced.limits
        self._queue.follow(announced)

    async def _connect(self) -> ClientConnection:
        """Return a connection that has announced its model.

        Raises:
            ClientError: `ConnectionFailed` if it is worth trying again, another one if not.
        """
        try:
            connection = await connect(
                self._uri,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=self._headers,
                compression=None,  # costs more than it saves
                max_size=MAX_REPLY_BYTES,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status >= 500 or status == 429:
                raise ConnectionFailed(f"{self._address} answered with status {status}") from error
            raise Rejected(f"{self._address} has no stream for this client: status {status}") from error
        except (OSError, InvalidMessage) as error:  # TimeoutError is one
            raise ConnectionFailed(f"no connection to {self._address}: {_told(error)}") from error
        except (InvalidHandshake, InvalidURI, InvalidProxy) as error:
            raise NotUnderstood(f"{self._address} has no stream: {error}") from error
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                first = await connection.recv(decode=False)
            announced = decode(first)
            if not isinstance(announced, ModelFrame):
                raise ValueError("its first message announces no model")
            self._follow(announced)
            self._connected_at = time.monotonic()
        except BaseException as error:
            await connection.close()
            if isinstance(error, TimeoutError | ConnectionClosed):
                raise ConnectionFailed(f"{self._address} announced no model: {_told(error)}") from error
            if isinstance(error, ValueError):
                raise NotUnderstood(f"{self._address} is no prediction service: {error}") from error
            raise
        return connection

    async def _reconnect(self, reason: str) -> ClientConnection:
        """Return a new connection, however long it takes.

        Raises:
            GaveUp: it took longer than `give_up_s` since the last answer.
            ClientError: another attempt would not help.
        """
        now = time.monotonic()
        if self._lost_at is None or self._queue.is_idle:
            self._lost_at = now
        if now - self._connected_at > LONGEST_DELAY_S:
            self._delay_s = FIRST_DELAY_S
        give_up_at = math.inf if self._give_up_s is None else self._lost_at + self._give_up_s
        while True:
            now = time.monotonic()
            if now >= give_up_at:
                raise GaveUp(f"gave up after {self._give_up_s:g} s: {reason}")
            # Jitter keeps all clients of a restarted server from coming back at the same moment.
            delay_s = min(self._delay_s * random.uniform(0.5, 1.0), give_up_at - now)  # noqa: S311  # no secret
            self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
            self._on_lost(reason, delay_s)
            await asyncio.sleep(delay_s)
            try:
                return await self._connect()
            except ConnectionFailed as error:
                reason = str(error)


async def _draw(samples: Samples, call: Call) -> None:
    """Encode samples and hand them to the call as far as it has room."""
    if not isinstance(samples, AsyncIterable):
        samples = _in_turns(samples)
    async with aclosing(samples) if isinstance(samples, AsyncGenerator) else nullcontext():
        async for sample in samples:
            encoded = sample if isinstance(sample, Refused) else encode(sample)
            while not call.add(encoded):
                await call.room.wait()


async def _in_turns(samples: Iterable[Sample | Refused]) -> AsyncGenerator[Sample | Refused]:
    turn_ends = time.monotonic() + TURN_S
    for sample in samples:
        yield sample
        if time.monotonic() >= turn_ends:
            await asyncio.sleep(0)
            turn_ends = time.monotonic() + TURN_S


def stream_uri(url: str) -> str:
    """Return the websocket's address of the service at `url`.

    Raises:
        WrongAddress: it is no address of a service.
    """
    shown = _without_password(url)
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as error:
        raise WrongAddress(f"{shown!r} is no address: {error}") from error
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname or not port_is_fine or parts.query or parts.fragment:
        raise WrongAddress(f"{shown!r} is no address such as http://127.0.0.1:8000")
    path = parts.path.rstrip("/")
    return urlunsplit(
        (schemes[parts.scheme], parts.netloc, path if path.endswith("/stream") else f"{path}/stream", "", "")
    )


def _without_password(url: str) -> str:
    return re.sub("//[^/]*@", "//", url)


def _told(error: BaseException) -> str:
    if isinstance(error, ConnectionClosed):
        closed = error.rcvd or error.sent
        return f"{closed.code} {closed.reason}".strip() if closed else "it broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "timed out"
