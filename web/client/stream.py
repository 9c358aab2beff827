"""A client of the stream: samples in, predictions out, in order, whatever happens to the connection.

    async with Stream("http://127.0.0.1:8000") as stream:
        async for prediction in stream.predict([[5.6, 2.7, 4.2, 1.3]]):
            print(prediction.label, prediction.probabilities)

`python -m web.client URL stream rows.csv` does it for a file or a pipe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from web.api.messages import ModelFrame, StreamLimits, StreamModel
from web.client.connection import Address
from web.client.errors import Busy, ClientError, ConnectionFailed, ModelReplaced, NotUnderstood, StreamEnded
from web.client.queue import Call, Queue
from web.client.replies import LATER, ErrorReply, Outcome, Prediction, Refused, decode
from web.client.samples import Sample, Samples, encode_each
from web.client.waiting import OnLost, Waiting

__all__ = ["ClientError", "ModelReplaced", "Outcome", "Prediction", "Refused", "Sample", "Stream"]


class Stream:
    """A connection to the stream of a prediction service that outlives restarts of the server.

    Entering it connects, once: an address that does not answer is more often wrong than about to come up. From then on
    a lost connection is made again, first after 0.5 s, then after longer and longer, up to 8 s; what was not answered
    is sent again. Where the server says "later" (status 408, 429 or 503, on entering too), nothing is sent for as long
    as it asks, and then the same again: that is no answer to a sample. Several tasks may call `predict` at the same
    time.

    Args:
        url: address of the service: http, https, ws or wss, with a path prefix if it has one.
        token: that of the service for programs, if it has one; sent to its own address alone.
        give_up_s: seconds without any answer after which the stream ends with an error: while samples wait for one, or
            there is no connection. 0 ends it with its connection, and never because of silence; None never gives up.
        on_lost: is called, each time before waiting for a connection, with why there is none and the seconds to wait.

    Attributes:
        model: name, version, target, features and labels of the model that answers at present.
        limits: what the server accepts; `predict` keeps to it by itself.

    Raises:
        WrongAddress: on construction, for an address of another kind.
        ClientError: on entering, when there is no connection to a prediction service; another one of the tree for
            each reason. Later errors are raised by `predict`.
    """

    model: StreamModel
    limits: StreamLimits

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        give_up_s: float | None = None,
        on_lost: OnLost = lambda _reason, _delay_s: None,
    ) -> None:
        self._address = Address(url, token=token)
        self._waiting = Waiting(give_up_s)
        self._on_lost = on_lost
        self._queue = Queue()
        self._calls: dict[Call, asyncio.Task[None]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._failure: ClientError | None = StreamEnded("the stream has not been entered")

    async def __aenter__(self) -> Stream:
        if self._runner:
            raise RuntimeError("a stream is entered once")
        try:
            self._connection = await self._connect()
        except Busy as error:
            self._connection = await self._reconnect(error)
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
            samples: each a mapping by feature key or header, or a sequence in the order of the features. Values are
                numbers, words, booleans, and None or NaN for no value.
                A `Refused` among them is not sent and keeps its place among the answers.
                Where producing a sample means waiting, give an async iterable: others are drawn from in the event loop.

        Raises:
            ClientError: the connection is lost for good, or the service gives no answers, or impossible ones. Answers
                that came before have been yielded.
            TypeError, ValueError: a sample cannot be written as JSON.
        """
        async with aclosing(self.batches(samples)) as batches:
            async for outcomes in batches:
                for outcome in outcomes:
                    yield outcome

    async def batches(self, samples: Samples) -> AsyncGenerator[list[Outcome]]:
        """Yield the same as `predict`, in lists, as answers arrive."""
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
        """Send and receive over one connection after the other."""
        try:
            while True:
                lost = await self._converse(self._connection)
                self._queue.lose()
                self._connection = await self._reconnect(lost)
        except ClientError as error:
            self._fail(error)
        except Exception as error:  # raised in all calls that wait
            broken = ClientError(f"the stream broke: {error!r}")
            broken.__cause__ = error
            self._fail(broken)
        finally:
            await self._connection.close()

    def _fail(self, error: ClientError) -> None:
        self._failure = self._failure or error
        for call in self._calls:
            call.answered.set()

    async def _converse(self, connection: ClientConnection) -> ConnectionFailed:
        """Send and receive until the connection is lost; return why it was.

        Raises:
            ClientError: another connection would not help, or no answer came in time.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(connection))
                tasks.create_task(self._receive(connection))
                tasks.create_task(self._waiting.watch())
        except ExceptionGroup as group:
            error = group.exceptions[0]
        if not isinstance(error, ConnectionClosed):
            raise error
        loss = self._address.loss(error)
        if not isinstance(loss, ConnectionFailed):
            raise loss from error
        return loss

    async def _send(self, connection: ClientConnection) -> None:
        while True:
            self._queue.changed.clear()
            await self._waiting.until_send()
            while (frame := self._queue.next_frame()) is not None:
                self._waiting.start()
                await connection.send(frame, text=True)
                await self._waiting.until_send()
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
                raise NotUnderstood(f"{self._address} sent what no prediction service sends: {error}") from error
            if isinstance(reply, ErrorReply) and reply.error.status in LATER:
                self._waiting.postpone(reply.error.detail, reply.error.retry_after_s)
            else:
                self._waiting.answered(is_idle=self._queue.is_idle)

    def _follow(self, announced: ModelFrame) -> None:
        keys = [feature.key for feature in announced.model.features]
        if hasattr(self, "model") and keys != [feature.key for feature in self.model.features]:
            raise ModelReplaced(
                f"the model of {self._address} was replaced by one with other features: {', '.join(keys)}"
            )
        self.model, self.limits = announced.model, announced.limits
        self._queue.follow(announced)

    async def _connect(self) -> ClientConnection:
        connection, announced = await self._address.open()
        try:
            self._follow(announced)
        except ModelReplaced:
            await connection.close()
            raise
        self._waiting.connected(is_idle=self._queue.is_idle)
        return connection

    async def _reconnect(self, reason: ConnectionFailed) -> ClientConnection:
        """Return a new connection, however long it takes.

        Raises:
            GaveUp: it took longer than `give_up_s` since the last answer.
            ClientError: another attempt would not help.
        """
        self._waiting.lost()
        while True:
            await self._waiting.until_connect(reason, self._on_lost)
            try:
                return await self._connect()
            except ConnectionFailed as error:
                reason = error


async def _draw(samples: Samples, call: Call) -> None:
    """Hand samples to the call as far as it has room."""
    async with aclosing(encode_each(samples)) as drawn:
        async for sample in drawn:
            while not call.add(sample):
                await call.room.wait()
