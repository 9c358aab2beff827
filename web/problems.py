"""Errors as the service tells them: RFC 9457 problem details. The only module that maps errors to status codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from ml.model.sample import FieldError


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
        headers: what is sent with it on HTTP, `Retry-After` for example.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = headers or {}
        title = HTTPStatus(status).phrase
        self.details = ProblemDetails(status=status, title=title, detail=detail, errors=tuple(errors))


def too_many(wait_s: int, what: str = "requests") -> Problem:
    """Return the problem of a client that asks too often."""
    seconds = "1 second" if wait_s == 1 else f"{wait_s} seconds"
    return Problem(429, f"too many {what}: try again in {seconds}", headers={"Retry-After": str(wait_s)})
