"""Errors as the service tells them: RFC 9457 problem details. The only module that maps errors to status codes."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ml.sample import FieldError

MEDIA_TYPE = "application/problem+json"


class SampleError(FieldError, frozen=True, kw_only=True):
    """A field's error in a batch, with the index of its sample."""

    sample: int


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a problem (RFC 9457, section 3.1) and the errors by feature."""

    status: int
    title: str
    detail: str
    errors: Sequence[FieldError] = ()


class Problem(Exception):
    """A request that cannot be answered, raised anywhere in `web` and told to its sender.

    Attributes:
        details: what is sent, on HTTP as the body and on the stream as the error of a frame.
    """

    def __init__(self, status: int, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        title = HTTPStatus(status).phrase
        self.details = ProblemDetails(status=status, title=title, detail=detail, errors=tuple(errors))


def response_of(details: ProblemDetails) -> Response:
    """Return the problem as an HTTP response."""
    headers = {"Vary": "Accept, HX-Request", "Cache-Control": "no-cache"}
    return Response(msgspec.json.encode(details), details.status, headers, media_type=MEDIA_TYPE)


async def handle_problem(request: Request, error: Exception) -> Response:
    """Answer a `Problem` raised by an endpoint."""
    assert isinstance(error, Problem)
    return response_of(error.details)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Answer Starlette's own errors (404, 405, 413, a malformed form) in the same format."""
    assert isinstance(error, HTTPException)
    response = response_of(Problem(error.status_code, error.detail).details)
    response.headers.update(error.headers or {})
    return response
