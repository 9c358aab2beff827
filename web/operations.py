"""What operators and their machines ask: is it alive, is it ready."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from web.messages import ModelName, encoder_of


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    live: bool


class Ready(msgspec.Struct, frozen=True):
    """A model is loaded."""

    ready: bool
    model: ModelName


async def live(request: Request) -> Response:
    """GET /health/live: the process answers."""
    return Response(msgspec.json.encode(Live(True)), media_type="application/json")


async def ready(request: Request) -> Response:
    """GET /health/ready: a model is loaded; names it."""
    name = encoder_of(request.app.state.model).name
    return Response(msgspec.json.encode(Ready(True, name)), media_type="application/json")
