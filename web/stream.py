"""The websocket channel: one reply a frame, in order, for as long as the client likes."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import msgspec
import numpy as np
from msgspec import UNSET
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ml.classifier import Classifier
from ml.sample import InvalidSample
from web import batch, messages
from web.messages import SUBPROTOCOL, ErrorFrame, Limits, ModelFrame, PredictRequest, StreamModel, encoder_of
from web.problems import Problem
from web.settings import Settings

# Frames that arrive together are taken from a queue without ever waiting. After this much work, in bytes of frames and
# about a millisecond, everybody else has a turn; each frame costs as much as so many bytes by itself.
WORK_A_TURN = 8_192
FRAME_WORK = 64


async def upgrade_required(request: Request) -> Response:
    """GET /stream without a websocket handshake: say what is missing (RFC 9110, section 15.5.22)."""
    raise HTTPException(426, "/stream is a websocket", {"Upgrade": "websocket", "Connection": "Upgrade"})


class Stream:
    """WS /stream: announce the model, then answer frame by frame until the client leaves.

    Frames pass from server to here as plain ASGI: Starlette's `WebSocket` around each costs a tenth of a reply.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        if not is_allowed_origin(websocket, scope["app"].state.settings.allowed_origins):
            await websocket.close()  # before accepting: the handshake is refused with 403
            return
        try:
            await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None)
            await _answer_frames(scope["app"].state, receive, send)
        except (WebSocketDisconnect, OSError):
            pass  # the client has left, as clients do


async def _answer_frames(state: State, receive: Receive, send: Send) -> None:
    settings: Settings = state.settings
    model: Classifier = state.model
    await send({"type": "websocket.send", "text": _announcement(model, settings)})
    work = 0
    while (message := await receive())["type"] == "websocket.receive":
        if state.model is not model:
            model = state.model
            await send({"type": "websocket.send", "text": _announcement(model, settings)})
        content = message.get("text")
        if content is not None:
            await send({"type": "websocket.send", "text": await _reply(content, model, settings)})
        else:
            content = message["bytes"]
            await send(await _binary_reply(content, model))
        work += FRAME_WORK + len(content)
        if work > WORK_A_TURN:
            work = 0
            await asyncio.sleep(0)


async def _reply(text: str, model: Classifier, settings: Settings) -> str:
    """Return the reply to a text frame; errors are replies too."""
    try:
        request = messages.decode_request(text, max_values=settings.max_samples * len(model.features))
        if request.sample is not UNSET and request.samples is UNSET:
            row = model.validator.row(messages.decode_sample(request.sample))
            return encoder_of(model).frame(request.id, model.predict(row))
        return await _batch_reply(request, model, settings)
    except InvalidSample as error:
        request_id, problem = request.id, Problem(422, str(error), error.errors)
    except Problem as error:
        request_id, problem = messages.id_of(text), error
    return msgspec.json.encode(ErrorFrame(request_id, problem.details)).decode()


async def _batch_reply(request: PredictRequest, model: Classifier, settings: Settings) -> str:
    if request.samples is UNSET or request.sample is not UNSET:
        raise Problem(422, 'a frame has either "sample" or "samples"')
    if len(request.samples) > settings.max_samples:
        raise Problem(413, f"{len(request.samples)} samples in one frame, at most {settings.max_samples} are allowed")
    return await batch.encode_frame(model, await batch.read(model, request.samples), request.id)


async def _binary_reply(content: bytes, model: Classifier) -> Message:
    """Return the reply to float32 rows: as many rows of probabilities, NaN where the validator refuses a row."""
    row_bytes = 4 * len(model.features)
    if len(content) % row_bytes:
        detail = (
            f"a binary frame is rows of {len(model.features)} float32, {row_bytes} bytes each, not {len(content)} bytes"
        )
        error = ErrorFrame(UNSET, Problem(422, detail).details)
        return {"type": "websocket.send", "text": msgspec.json.encode(error).decode()}
    rows = np.frombuffer(content, dtype="<f4").reshape(-1, len(model.features))
    answers = await batch.predict(model, rows)
    probabilities = answers.probabilities.astype("<f4")
    accepted = model.validator.accepts(rows)
    if not accepted.all():
        probabilities[~accepted] = np.nan
    return {"type": "websocket.send", "bytes": probabilities.tobytes()}


def _announcement(model: Classifier, settings: Settings) -> str:
    shown = StreamModel(model.name, model.version, model.features, model.labels)
    limits = Limits(settings.max_frame_bytes, settings.max_samples)
    return msgspec.json.encode(ModelFrame(shown, limits)).decode()


def is_allowed_origin(websocket: WebSocket, allowed: tuple[str, ...]) -> bool:
    """Tell whether a page may open the stream: programs send no `Origin`; pages must be ours or allowed by name."""
    origin = websocket.headers.get("origin")
    if origin is None or origin in allowed:
        return True
    try:
        return bool(origin) and urlsplit(origin).netloc == websocket.headers.get("host")
    except ValueError:
        return False
