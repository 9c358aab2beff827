"""How problems are answered on HTTP: JSON for programs, a page for people."""

from __future__ import annotations

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from web.negotiation import preferred_form
from web.problems import Problem, ProblemDetails

MEDIA_TYPE = "application/problem+json"
SHOWN_CHARACTERS = 200
_HEADERS = {"Vary": "Accept, HX-Request", "Cache-Control": "no-cache"}


def json_of(details: ProblemDetails) -> Response:
    """Return the problem as JSON (RFC 9457)."""
    return Response(msgspec.json.encode(details), details.status, _HEADERS, media_type=MEDIA_TYPE)


async def handle_problem(request: Request, error: Exception) -> Response:
    """Answer a `Problem` raised by an endpoint."""
    assert isinstance(error, Problem)
    return _answer(request, error.details)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Answer Starlette's own errors (404, 405, 413, a malformed form) in the same way."""
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"][:SHOWN_CHARACTERS], request.scope["method"]
    detail = {404: f"there is nothing at {path}", 405: f"{method} is not allowed at {path}"}.get(error.status_code)
    response = _answer(request, Problem(error.status_code, detail or error.detail).details)
    response.headers.update(error.headers or {})
    return response


async def handle_disconnect(request: Request, error: Exception) -> Response:
    """Answer nobody: the client vanished while it was still sending."""
    return Response(status_code=400)


def _answer(request: Request, details: ProblemDetails) -> Response:
    if preferred_form(request.scope, default="json") != "page":
        return json_of(details)
    # A wrong address may be any number of levels deep; links lead back to where the service answers.
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    base = "../" * (path.count("/") - 1)
    page: str = request.app.state.templates.render("problem.html", problem=details, base=base)
    return Response(page, details.status, _HEADERS, media_type="text/html")
