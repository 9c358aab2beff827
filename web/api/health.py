"""Endpoints for operators: liveness, readiness, metrics."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from web.api.encoder import encoder_of
from web.api.messages import ModelName
from web.metrics.exposition import render
from web.models import RejectedFile
from web.requests import bounded, header_of
from web.service import service_of


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    live: bool


class Ready(msgspec.Struct, frozen=True):
    """Whether this process accepts requests, and the served model.

    `draining`: the process is about to end; `rejected`: there is a newer model file, which cannot be served;
    `checking_since` (RFC 3339): the start of a check of the model file that takes long, as when its file system hangs.
    """

    ready: bool
    model: ModelName
    draining: bool | UnsetType = UNSET
    rejected: RejectedFile | UnsetType = UNSET
    checking_since: str | UnsetType = UNSET


async def live(request: Request) -> Response:
    """GET /health/live: the process answers."""
    return Response(msgspec.json.encode(Live(True)), media_type="application/json")


async def ready(request: Request) -> Response:
    """GET /health/ready: the process accepts requests, and the model's name. 503 while it drains."""
    service = service_of(request.scope)
    is_draining = service.is_draining
    answer = Ready(
        not is_draining,
        encoder_of(service.model).name,
        draining=is_draining or UNSET,
        rejected=service.rejected or UNSET,
        checking_since=service.watcher.checking_since or UNSET,
    )
    return Response(msgspec.json.encode(answer), 503 if is_draining else 200, media_type="application/json")


async def metrics(request: Request) -> Response:
    """GET /metrics: all metrics, in the text format of Prometheus, or as OpenMetrics if `Accept` prefers it."""
    accept = bounded(header_of(request.scope, b"accept")).decode("latin-1")
    content, content_type = render(service_of(request.scope).metrics, accept)
    return Response(content, headers={"Content-Type": content_type, "Vary": "Accept", "Cache-Control": "no-store"})
