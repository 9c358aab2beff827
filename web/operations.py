"""What operators and their machines ask: is it alive, is it ready."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from web.messages import encoder_of


async def live(request: Request) -> Response:
    """GET /health/live: the process answers."""
    return Response(b'{"live":true}', media_type="application/json")


async def ready(request: Request) -> Response:
    """GET /health/ready: a model is loaded; names it."""
    name = encoder_of(request.app.state.model).name
    return Response(msgspec.json.encode({"ready": True, "model": name}), media_type="application/json")
