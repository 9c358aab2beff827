"""What operators and their machines ask: is it alive, is it ready."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from web.api.messages import ModelName, encoder_of
from web.models import Rejected


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    live: bool


class Ready(msgspec.Struct, frozen=True):
    """Whether requests should come here, and the model that answers them.

    `draining` tells that the process is about to end; `rejected` that there is a newer model file, which cannot be
    served.
    """

    ready: bool
    model: ModelName
    draining: bool | UnsetType = UNSET
    rejected: Rejected | UnsetType = UNSET


async def live(request: Request) -> Response:
    """GET /health/live: the process answers."""
    return Response(msgspec.json.encode(Live(True)), media_type="application/json")


async def ready(request: Request) -> Response:
    """GET /health/ready: a model is loaded; names it. 503 once the process has been told to end."""
    state = request.app.state
    is_draining = state.is_draining
    answer = Ready(
        not is_draining,
        encoder_of(state.model).name,
        draining=is_draining or UNSET,
        rejected=state.rejected or UNSET,
    )
    return Response(msgspec.json.encode(answer), 503 if is_draining else 200, media_type="application/json")
