"""Errors as the service tells them: RFC 9457 problem details. The only module that maps errors to status codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ml.model.sample import FieldError


class SampleError(FieldError, frozen=True, kw_only=True):
    """A field's error in a batch, with the index of its sample."""

    sample: int


_RetryAfter = Annotated[int, Meta(description="wait so many seconds and send the same again: it is not wrong")]


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a problem (RFC 9457, section 3.1), the errors by feature, and how long to wait."""

    status: int
    title: str
    detail: str
    errors: Sequence[FieldError] = ()
    retry_after_s: _RetryAfter | UnsetType = UNSET


class Problem(Exception):
    """A request that cannot be answered, raised anywhere in `web` and told to its sender.

    Args:
        retry_after_s: seconds after which the same request may be answered, if waiting helps.

    Attributes:
        details: what is sent, on HTTP as the body and on the stream as the error of a frame.
        headers: what is sent with it on HTTP, `Retry-After` among them.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | UnsetType = UNSET,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        if retry_after_s is not UNSET:
            self.headers["Retry-After"] = str(retry_after_s)
        self.details = ProblemDetails(
            status=status,
            title=HTTPStatus(status).phrase,
            detail=detail,
            errors=tuple(errors),
            retry_after_s=retry_after_s,
        )


def too_many(wait_s: int, what: str = "requests") -> Problem:
    """Return the problem of a client that asks too often."""
    seconds = "1 second" if wait_s == 1 else f"{wait_s} seconds"
    return Problem(429, f"too many {what}: try again in {seconds}", retry_after_s=wait_s)
