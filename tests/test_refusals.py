"""Problem details: the one form of every error."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ml.model.sample import FieldError
from web import errors, responses
from web.problems import Problem, SampleError

REQUEST = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
MISSING = FieldError("mass", "missing", "the mass is missing")


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 429, 503])
def test_a_problem_has_its_status_twice_and_a_title(status: int) -> None:
    response = responses.json_of(Problem(status, "why").details)

    body = json.loads(bytes(response.body))
    assert response.status_code == body["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert body["title"]
    assert body["detail"] == "why"
    assert body["errors"] == []


def test_the_errors_of_a_sample_name_feature_code_message_and_value() -> None:
    errors = [FieldError("angle", "not_a_number", "the angle: 'x' is not a number", "x"), MISSING]

    body = json.loads(bytes(responses.json_of(Problem(422, "two errors", errors).details).body))

    assert body["errors"] == [
        {"feature": "angle", "code": "not_a_number", "message": "the angle: 'x' is not a number", "value": "x"},
        {"feature": "mass", "code": "missing", "message": "the mass is missing", "value": None},
    ]


def test_the_error_of_a_batch_names_the_index_of_its_sample() -> None:
    error = SampleError("mass", "missing", "the mass is missing", sample=7)

    body = json.loads(bytes(responses.json_of(Problem(422, "one error", [error]).details).body))

    assert body["errors"][0]["sample"] == 7
    assert body["errors"][0]["feature"] == "mass"


def test_a_raised_problem_is_answered_with_its_details() -> None:
    response = asyncio.run(errors.handle_problem(REQUEST, Problem(415, "send JSON")))

    assert response.status_code == 415
    assert json.loads(bytes(response.body))["detail"] == "send JSON"


def test_an_error_of_the_framework_keeps_its_headers() -> None:
    error = HTTPException(405, "Method Not Allowed", {"Allow": "GET, HEAD"})

    response = asyncio.run(errors.handle_http_exception(REQUEST, error))

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert response.headers["content-type"] == "application/problem+json"
