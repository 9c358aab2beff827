"""The Open Inference Protocol, version 2, over HTTP, for clients of Triton, KServe and others.

The protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
Every answer below /v2 has the protocol's form, errors too: {"error": "a sentence"}.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from web.api import batch, health
from web.metrics.channel import outcomes_of
from web.middleware.body_limit import BodyLimit, Pending
from web.oip import messages, tensors
from web.oip.datatypes import Numbers, Words, datatype_of
from web.oip.messages import (
    HEADER_LENGTH,
    SAMPLES,
    InferenceError,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    TensorMetadata,
)
from web.oip.outputs import outputs_of, requested_outputs, response_of
from web.problems import Problem
from web.requests import body_of
from web.service import service_of
from web.settings import Settings

_INFLATE_BYTES = 2**20

Handler = Callable[[Request], Awaitable[Response]]
Limited = Callable[[ASGIApp], ASGIApp]


def routes(settings: Settings, pending: Pending) -> list[Route]:
    """Return the routes of the protocol; whatever else is asked for below /v2 gets its form of error."""
    limited = partial(BodyLimit, max_bytes=settings.max_body_bytes, pending=pending)
    found = [
        Route("/v2", _Endpoint(_server)),
        Route("/v2/", _Endpoint(_server)),
        Route("/v2/health/live", _Endpoint(health.live)),
        Route("/v2/health/ready", _Endpoint(health.ready)),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route(f"{path}/infer", _Endpoint(_infer, method="POST", limited=limited)),
            Route(f"{path}/ready", _Endpoint(_model_ready)),
            Route(path, _Endpoint(_model)),
        ]
    return [*found, Route("/v2/{path:path}", _Endpoint(_unknown, method=""))]


class _Endpoint:
    """Answers the requests of one route; errors have the protocol's form."""

    def __init__(self, handler: Handler, *, method: str = "GET", limited: Limited | None = None) -> None:
        self._handler = handler
        self._methods = {"GET": ("GET", "HEAD"), "POST": ("POST",)}.get(method, ())
        self._app = limited(self._answer) if limited else self._answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._methods and scope["method"] not in self._methods:
            response = _error_response(405, f"{scope['method']} is not allowed here")
            response.headers["Allow"] = ", ".join(self._methods)
            await response(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Problem as problem:
            await _refused(problem)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._handler(Request(scope, receive))
        except Problem as problem:
            service_of(scope).metrics.inference.error(str(problem.details.status))
            response = _refused(problem)
        except HTTPException as error:
            response = _error_response(error.status_code, error.detail)
        await response(scope, receive, send)


async def _server(request: Request) -> Response:
    return _json(ServerMetadata(name="live-prediction", version="1.0", extensions=("binary_tensor_data",)))


async def _unknown(request: Request) -> Response:
    raise Problem(404, f"this server has no {request.scope['path'][:200]}")


async def _model_ready(request: Request) -> Response:
    return _json(ModelReady(name=_model_of(request).name, ready=True))


async def _model(request: Request) -> Response:
    model = _model_of(request)
    return _json(
        ModelMetadata(
            name=model.name,
            versions=(model.version,),
            platform=_platform_of(model),
            inputs=_inputs(model),
            outputs=[TensorMetadata(name=name, datatype=datatype, shape=(-1, *width))
                     for name, (datatype, width) in outputs_of(model).items()],
            properties={name: msgspec.json.encode(value).decode() for name, value in _properties(model).items()},
        )
    )  # fmt: skip


def _platform_of(model: LoadedModel) -> str:
    """Return the library that fitted a model, and its kind."""
    library = next((name for name in model.card.libraries if name != "numpy"), "numpy").replace(
        "scikit-learn", "sklearn"
    )
    return f"{library}_{'linear' if model.card.formula else 'forest'}"


def _inputs(model: LoadedModel) -> list[TensorMetadata]:
    """Return the one input of all features or, if some are words, one input a feature."""
    if not any(feature.choices for feature in model.features):
        return [TensorMetadata(name=SAMPLES, datatype="FP64", shape=(-1, len(model.features)))]
    return [TensorMetadata(name=one.key, datatype=datatype_of(one), shape=(-1,)) for one in model.features]


def _properties(model: LoadedModel) -> dict[str, object]:
    target = model.card.target
    return {
        "features": [feature.key for feature in model.features],
        "labels": model.labels,
        "choices": {feature.key: feature.choices for feature in model.features if feature.choices},
        "nullable": [feature.key for feature in model.features if feature.has_gaps],
        "target": {"title": target.title, "unit": target.unit},
        "decision": model.card.decision,
    }


async def _infer(request: Request) -> Response:
    model = _model_of(request)
    service = service_of(request.scope)
    body = await _body(request, service.settings.max_body_bytes)
    message, binary = await messages.read(body, _header_length(request, body), len(model.features))
    outputs = requested_outputs(message, model)
    columns = await tensors.read(message.inputs, binary, model.features, max_samples=service.settings.max_samples)
    n_rows = len(columns[0])
    channel = service.metrics.inference
    parts = [*batch.slices(model, n_rows)]
    pieces: list[NDArray[Any]] = []
    for part in parts:
        if part.start:
            await asyncio.sleep(0)
        pieces.append(_valid_rows(model, columns, part))
    if pieces:
        rows: batch.Rows = np.concatenate(pieces)
        answers = await batch.predict(model, rows, channel)
        channel.many(model, rows, outcomes_of(model, answers))
    for part in parts:
        if part.start:
            await asyncio.sleep(0)
        for output in outputs:
            output.add(answers, part)
    return response_of(message, model, n_rows, outputs)


def _model_of(request: Request) -> LoadedModel:
    model = service_of(request.scope).model
    name, version = request.path_params["name"], request.path_params.get("version", model.version)
    if name != model.name:
        raise Problem(404, f'no model is called "{name[:80]}"; this server has "{model.name}"')
    if version != model.version:
        raise Problem(404, f'model "{name}" has no version "{version[:80]}"; this server has "{model.version}"')
    return model


async def _body(request: Request, max_bytes: int) -> bytes:
    """Return the body, inflated if it was compressed, which clients have an option for."""
    body = await body_of(request.receive)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Problem(415, f"the content encoding {encoding[:40]!r} is not known; gzip, deflate and identity are")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: either header
    inflated = bytearray()
    while not inflater.eof:
        try:
            piece = inflater.decompress(body, _INFLATE_BYTES)
        except zlib.error as error:
            raise Problem(400, f"the body is not {encoding}: {error}") from error
        inflated += piece
        if len(inflated) > max_bytes:
            raise Problem(413, f"the body has more than {max_bytes} bytes")
        body = inflater.unconsumed_tail
        if not piece and not body and not inflater.eof:
            raise Problem(400, f"the body is not {encoding}: it ends early")
        await asyncio.sleep(0)
    return bytes(inflated)


def _header_length(request: Request, body: bytes) -> int | None:
    """Return how many bytes of the body are JSON, if binary data follow; no other header tells them apart."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= len(body)):
        raise Problem(400, f"{HEADER_LENGTH} must be from 0 to the {len(body)} bytes of the body, not {text[:40]!r}")
    return int(text)


def _valid_rows(
    model: LoadedModel, columns: Sequence[Numbers | Words], part: slice
) -> NDArray[np.float32] | NDArray[np.float64]:
    """Return some rows, shape (n, n_features): in float32 if they came with no more than that, else in float64.

    Raises:
        Problem: 422, naming the first row that the validator refuses and why.
    """
    numbers = [column for column in columns if isinstance(column, np.ndarray)]
    if len(numbers) < len(columns) or any(feature.choices for feature in model.features):
        return _rows_one_by_one(model, columns, part)
    single = all(column.dtype.kind == "f" and column.dtype.itemsize <= 4 for column in numbers)
    with np.errstate(invalid="ignore"):  # a signaling NaN is a NaN
        pieces = [column[part].astype(np.float32 if single else np.float64, copy=False) for column in numbers]
    rows: Numbers = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
    refused: Sequence[int] = ()
    if single:
        refused = np.flatnonzero(~model.validator.accepts(rows)).tolist()
    elif not model.validator.accepts_all(rows):
        refused = range(len(rows))
    for index in refused:
        _row(model, rows[index].tolist(), part.start + index)
    return rows


def _rows_one_by_one(model: LoadedModel, columns: Sequence[Numbers | Words], part: slice) -> NDArray[np.float64]:
    """Return some rows, shape (n, n_features), of which the validator reads each value; NaN is no value to it."""
    values: list[list[object]] = []
    for column, feature in zip(columns, model.features, strict=True):
        own: list[object] = column[part].ravel().tolist() if isinstance(column, np.ndarray) else [*column[part]]
        values.append([None if value != value else value for value in own] if feature.choices else own)  # noqa: PLR0124
    rows = [_row(model, row, index) for index, row in enumerate(zip(*values, strict=True), part.start)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(model.features))


def _row(model: LoadedModel, values: Sequence[object], index: int) -> list[float]:
    try:
        return model.validator.row(values)
    except InvalidSample as error:
        raise Problem(422, f"row {index}: {error}") from error


def _json(message: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(message), media_type="application/json", headers={"Cache-Control": "no-cache"})


def _refused(problem: Problem) -> Response:
    response = _error_response(problem.details.status, problem.details.detail)
    response.headers.update(problem.headers)
    return response


def _error_response(status: int, detail: str) -> Response:
    return Response(msgspec.json.encode(InferenceError(detail)), status, media_type="application/json")
