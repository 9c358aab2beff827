"""Responses to problems on HTTP: JSON for programs, a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from web.oip.messages import InferenceError
from web.page import languages, views
from web.page.fields import names_of_options
from web.page.templates import render
from web.problems import SHOWN_CHARACTERS, Problem, ProblemDetails
from web.requests import header_of, preferred_representation, query_of
from web.responses import json_of, problem_headers
from web.service import service_of

SCORE = "/score"


async def handle_problem(request: Request, error: Exception) -> Response:
    """Answer a `Problem` raised by an endpoint."""
    assert isinstance(error, Problem)
    return _answer(request, error.details, error.headers)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Answer Starlette's own errors (404, 405, 413, a malformed form) in the same way."""
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"][:SHOWN_CHARACTERS], request.scope["method"]
    details = {404: f"there is nothing at {path}", 405: f"{method} is not allowed at {path}"}
    detail = details.get(error.status_code, error.detail)
    return _answer(request, Problem(error.status_code, detail).details, error.headers or {})


async def handle_failure(request: Request, error: Exception) -> Response:
    """Answer an unexpected exception; its traceback goes to the log alone."""
    request_id = request.scope["state"]["request_id"]
    return json_of(Problem(500, f"internal error; see the log for request id {request_id}").details)


async def handle_disconnect(request: Request, error: Exception) -> Response:
    """Answer a client that disconnected while it was sending."""
    return Response(status_code=400)


async def refuse(request: Request, problem: Problem) -> Response:
    """Answer a request that is refused before routing, in the message format of its route."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if not path.startswith("/v2"):
        return await handle_problem(request, problem)
    details, headers = problem.details, dict(problem.headers)
    content = msgspec.json.encode(InferenceError(details.detail))
    return Response(content, details.status, headers, media_type="application/json")


def _answer(request: Request, details: ProblemDetails, headers: Mapping[str, str]) -> Response:
    if preferred_representation(request.scope, default="json") != "page":
        return json_of(details, headers)
    # A wrong address may be any number of levels deep; relative links lead back to the page.
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    base = "../" * (path.count("/") - 1)
    query = _query_of(request)
    option = names_of_options(service_of(request.scope).model)["lang"]
    asked = languages.known(query.get(option, query.get("lang", "")))
    language = asked or languages.preferred(header_of(request.scope, b"accept-language"))
    whole, method = request.scope["path"][:SHOWN_CHARACTERS], request.scope["method"]
    view = views.problem_view(details, language, path=whole, method=method)
    back = _way_back(query, path, {option: asked.code} if asked else {})
    start = (base or "./") + (f"?{back}" if back else "")
    # The fields of a form are in its body, which may not have been read; a file's page is in the address.
    is_form = method == "POST" and path != SCORE
    page = render("problem.html", language, problem=view, base=base, start=start, is_form=is_form)
    own = {**problem_headers(), "Content-Language": language.code, **headers}
    return Response(page, details.status, own, media_type="text/html")


def _way_back(query: Mapping[str, str], path: str, asked: Mapping[str, str]) -> str:
    """Return the query of a page with what was entered: that of the page whose form sent a file, or of the address.

    Args:
        asked: the option for the language, if there is one; a query may have it by another name.
    """
    if path == SCORE:
        return query.get("back") or urlencode(asked)
    entered = {name: text for name, text in query.items() if name != "lang"} if asked else query
    return urlencode({**entered, **asked})


def _query_of(request: Request) -> Mapping[str, str]:
    try:
        return query_of(request.scope)
    except Problem:  # the answer is the first problem, not that of the query
        return {}
