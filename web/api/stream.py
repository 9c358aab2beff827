"""The websocket channel: one reply a frame, in order, for as long as the client likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import NoReturn

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ml.model.evaluators import Batch
from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from web.api import batch, decoder
from web.api.encoder import description_of, encoder_of
from web.api.explain import Check, explained, is_explained
from web.api.messages import SUBPROTOCOL, ErrorFrame, StreamLimits, StreamRequest
from web.api.threads import in_thread
from web.metrics.channel import outcomes_of
from web.metrics.counters import Metrics
from web.problems import Problem, too_many
from web.requests import text_kind
from web.service import service_of
from web.settings import Settings

# Frames that arrive together are read from a queue without ever waiting. After this much work, in bytes of frames and
# about a millisecond, the others have a turn; each frame costs as much as so many bytes by itself.
WORK_A_TURN = 8_192
FRAME_WORK = 64
# To announce a new model takes some 20 us a stream: after so many of them the others have a turn.
STREAMS_A_TURN = 50


async def upgrade_required(request: Request) -> NoReturn:
    """A GET without the handshake of a websocket: an error that names the upgrade (RFC 9110, section 15.5.22)."""
    path = request.url.path.rsplit("/", 1)[-1]
    raise HTTPException(426, f"/{path} is a websocket", {"Upgrade": "websocket", "Connection": "Upgrade"})


class StreamEndpoint:
    """WS /stream: announce the model, then answer frame by frame until the client leaves.

    Frames pass from server to here as plain ASGI: Starlette's `WebSocket` around each costs a tenth of a reply.
    """

    def __init__(self, streams: OpenStreams) -> None:
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        try:
            await websocket.accept(subprotocol, [(b"x-request-id", scope["state"]["request_id"].encode())])
            conversation = _Conversation(scope, receive, send)
            with self._streams.entered(conversation):
                await conversation.run()
        except (WebSocketDisconnect, OSError):
            pass  # the client has left


class OpenStreams:
    """The open streams, so that idle ones are notified of a new model too."""

    def __init__(self) -> None:
        self._open: set[_Conversation] = set()

    @contextlib.contextmanager
    def entered(self, conversation: _Conversation) -> Iterator[None]:
        """Register a stream for as long as it is served."""
        self._open.add(conversation)
        try:
            yield
        finally:
            self._open.discard(conversation)

    def announce(self) -> None:
        """Make every stream announce the present model; none of them waits for another."""
        self._notifying = asyncio.create_task(self._notify_all(tuple(self._open)))

    async def _notify_all(self, conversations: Iterable[_Conversation]) -> None:
        for number, conversation in enumerate(conversations, 1):
            conversation.notify()
            if number % STREAMS_A_TURN == 0:
                await asyncio.sleep(0)


class _Conversation:
    """One open stream: its announced model, and a pending announcement.

    An announcement between frames is a task of its own, since a client that does not read makes it wait; frames of
    that client are answered after it.
    """

    __slots__ = (
        "_address",
        "_announcing",
        "_has_left",
        "_has_news",
        "_is_idle",
        "_metrics",
        "_model",
        "_receive",
        "_send",
        "_service",
        "_settings",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        self._service = service = service_of(scope)
        self._address = client[0] if client else ""
        self._has_left: Callable[[], bool] = scope["state"].get("has_left", lambda: False)
        self._settings = service.settings
        self._metrics = service.metrics
        self._receive = receive
        self._send = send
        self._model: LoadedModel | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._has_news = True
        self._is_idle = False

    async def run(self) -> None:
        """Announce the model, then answer frame by frame until the client leaves."""
        try:
            with self._metrics.socket():
                await self._answer_frames()
        finally:
            if self._announcing:
                self._announcing.cancel()

    def notify(self) -> None:
        """Announce the model if it is a new one: now, or after the answer that is being made."""
        self._has_news = True
        if self._is_idle:
            self._begin_to_announce()

    def _begin_to_announce(self) -> asyncio.Task[None]:
        if self._announcing is None or self._announcing.done():
            self._announcing = asyncio.create_task(self._announce())
            # If the client has left, the loop that waits for its next frame finds out as well.
            self._announcing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._announcing

    async def _announce(self) -> None:
        self._has_news = False
        while self._model is not (model := self._service.model):
            await self._send({"type": "websocket.send", "text": announcement(model, self._settings)})
            self._metrics.frame_sent("model")
            self._model = model

    async def _check(self) -> None:
        if self._has_left():
            raise WebSocketDisconnect

    async def _answer_frames(self) -> None:
        service, settings, receive, send = self._service, self._settings, self._receive, self._send
        metrics = self._metrics
        take = service.rates.take
        work = 0
        while True:
            if self._has_news:
                await self._announce()
            self._is_idle = True
            message = await receive()
            self._is_idle = False
            if message["type"] != "websocket.receive":
                return
            started = perf_counter()
            model = service.model
            if self._model is not model:
                await self._begin_to_announce()
                assert self._model is not None
                model = self._model
            content = message.get("text")
            if wait_s := take(self._address):
                await send({"type": "websocket.send", "text": _refusal(content, wait_s)})
                metrics.refused(429)
                metrics.frame("text" if content is not None else "binary", started)
                content = content or message.get("bytes") or ""
            elif content is not None:
                text = await _reply(content, model, settings, metrics, self._check)
                await send({"type": "websocket.send", "text": text})
                metrics.frame("text", started)
            else:
                content = message["bytes"]
                await send(await _binary_reply(content, model, metrics))
                metrics.frame("binary", started)
            work += FRAME_WORK + len(content)
            if work > WORK_A_TURN:
                work = 0
                await asyncio.sleep(0)


def _refusal(text: str | None, wait_s: int) -> str:
    """Return the reply to a frame of a client that sends too often."""
    details = too_many(wait_s, "frames").details
    return msgspec.json.encode(ErrorFrame(UNSET if text is None else decoder.id_of(text), details)).decode()


async def _reply(text: str, model: LoadedModel, settings: Settings, metrics: Metrics, check: Check) -> str:
    """Return the reply to a text frame; errors are replies too."""
    try:
        request = decoder.decode_frame(text, max_values=settings.max_samples * len(model.features))
        if request.sample is not UNSET and request.samples is UNSET:
            explain = is_explained(model, request)
            row, may_have_notes = model.validator.read(decoder.decode_sample(request.sample))
            started = perf_counter()
            prediction = model.predict(row)
            metrics.stream.one(model, row, prediction, started)
            notes = model.validator.notes(row) if may_have_notes else ()
            [contributions] = await explained(model, np.array([row]), [prediction.index]) if explain else [b""]
            return encoder_of(model).frame(request.id, prediction, notes, contributions)
        return await _batch_reply(request, model, settings, metrics, check)
    except InvalidSample as error:
        request_id, problem = request.id, Problem(422, str(error), error.errors)
    except Problem as error:
        request_id, problem = decoder.id_of(text), error
    metrics.stream.problem(problem.details)
    metrics.frame_sent("error")
    return msgspec.json.encode(ErrorFrame(request_id, problem.details)).decode()


async def _batch_reply(
    request: StreamRequest, model: LoadedModel, settings: Settings, metrics: Metrics, check: Check
) -> str:
    if request.samples is UNSET or request.sample is not UNSET:
        raise Problem(422, 'a frame has either "sample" or "samples"')
    if len(request.samples) > settings.max_samples:
        raise Problem(413, f"{len(request.samples)} samples in one frame, at most {settings.max_samples} are allowed")
    explain = check if is_explained(model, request) else None
    rows, unknown = await batch.read(model, request.samples)
    return await batch.encode_frame(model, rows, request.id, metrics.stream, unknown=unknown, explain=explain)


async def _binary_reply(content: bytes, model: LoadedModel, metrics: Metrics) -> Message:
    """Return the reply to float32 rows: as many rows of outputs, NaN where the validator refuses a row."""
    row_bytes = 4 * len(model.features)
    if kind := text_kind(content, len(model.features)):
        instead = "send it as a text frame" if kind == "JSON" else "send a table to /score, a sample as JSON"
        problem = Problem(415, f"this is {kind} in a binary frame: {instead}")
        return _binary_error(decoder.id_of(content), problem, metrics)
    if category := model.made(_first_category):
        detail = f"a binary frame is numbers alone, but {category} is a category: send JSON in a text frame"
        return _binary_error(UNSET, Problem(415, detail), metrics)
    if len(content) % row_bytes:
        detail = (
            f"a binary frame is rows of {len(model.features)} float32, {row_bytes} bytes each, not {len(content)} bytes"
        )
        return _binary_error(UNSET, Problem(422, detail), metrics)
    rows = np.frombuffer(content, dtype="<f4").reshape(-1, len(model.features))
    answers = await batch.predict(model, rows, metrics.stream_binary)
    # Of the largest frame that takes milliseconds as well.
    is_large = len(rows) > model.slice_rows
    outputs, accepted = await in_thread(_packed, model, rows, answers) if is_large else _packed(model, rows, answers)
    outcomes = outcomes_of(model, answers)
    if accepted is not None:
        rows, outcomes = rows[accepted], outcomes[accepted]
    metrics.stream_binary.many(model, rows, outcomes)
    return {"type": "websocket.send", "bytes": outputs}


def _packed(model: LoadedModel, rows: NDArray[np.float32], answers: Batch) -> tuple[bytes, NDArray[np.bool_] | None]:
    """Return the outputs for float32 rows, NaN where the validator refuses a row, and which it accepts; None is all."""
    outputs, accepted = answers.outputs.astype("<f4"), model.validator.accepts(rows)
    if accepted.all():
        return outputs.tobytes(), None
    outputs[~accepted] = np.nan
    return outputs.tobytes(), accepted


def _first_category(model: LoadedModel) -> str:
    """Return the key of the first feature that is a category; empty if there is none."""
    return next((feature.key for feature in model.features if feature.choices), "")


def _binary_error(request_id: msgspec.Raw | UnsetType, problem: Problem, metrics: Metrics) -> Message:
    metrics.stream_binary.problem(problem.details)
    metrics.frame_sent("error")
    return {"type": "websocket.send", "text": msgspec.json.encode(ErrorFrame(request_id, problem.details)).decode()}


def announcement(model: LoadedModel, settings: Settings) -> str:
    """Return the frame that announces a model."""
    limits = msgspec.json.encode(StreamLimits(settings.max_frame_bytes, settings.max_samples)).decode()
    return f'{{"type":"model","model":{model.made(_description)},"limits":{limits}}}'


def _description(model: LoadedModel) -> str:
    return msgspec.json.encode(description_of(model)).decode()
