"""Problems: errors with a status code and details (RFC 9457), raised anywhere in `web`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ml.model.sample import FieldError

# The most characters of a path that a message repeats.
SHOWN_CHARACTERS = 200


class SampleError(FieldError, frozen=True, kw_only=True):
    """A field's error in a batch, with the index of its sample."""

    sample: int


_RetryAfter = Annotated[int, Meta(description="seconds after which the same request may be sent again, unchanged")]


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a problem (RFC 9457, section 3.1), the errors by feature, and how long to wait."""

    status: int
    title: str
    detail: str
    errors: Sequence[FieldError] = ()
    retry_after_s: _RetryAfter | UnsetType = UNSET


class Problem(Exception):
    """A request that cannot be answered; its sender gets the details.

    Args:
        retry_after_s: seconds after which the same request may be answered, if waiting helps.

    Attributes:
        details: the body of the response on HTTP, or the error of a frame on the stream.
        headers: headers of the response on HTTP, `Retry-After` among them.
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
    """Return the problem of a client that exceeds a rate or a number of connections."""
    seconds = "1 second" if wait_s == 1 else f"{wait_s} seconds"
    return Problem(429, f"too many {what}: try again in {seconds}", retry_after_s=wait_s)
