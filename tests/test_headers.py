"""Security headers: on every response, whoever makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from tests.conftest import for_each
from web.app import create_app
from web.settings import Settings

JSON = {"Content-Type": "application/json"}


def policy_of(response: Response) -> dict[str, list[str]]:
    directives = [part.split() for part in response.headers["content-security-policy"].split(";")]
    return {name: values for name, *values in directives}


def assert_secured(response: Response) -> None:
    policy = policy_of(response)
    assert policy["default-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == ["'none'"]
    assert policy["form-action"] == ["'self'"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] in ("same-origin", "no-referrer", "strict-origin")
    assert response.headers["cross-origin-opener-policy"] == "same-origin"


@for_each(
    ("method", "path", "status"),
    [
        ("GET", "/", 200), ("HEAD", "/", 200), ("GET", "/index", 200), ("GET", "/predict", 200),
        ("GET", "/result", 303), ("GET", "/?sepal_length=x", 422), ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
        ("GET", "/static/app.css", 200), ("GET", "/static/app.js", 200), ("GET", "/static/htmx-2.min.js", 200),
        ("GET", "/static/nothing", 404), ("GET", "/nothing", 404), ("GET", "/stream", 426), ("POST", "/", 405),
        ("DELETE", "/static/app.css", 405), ("POST", "/predict", 415), ("GET", "/predict/", 404),
    ],
)  # fmt: skip
def test_every_response_carries_the_security_headers(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path, follow_redirects=False)

    assert response.status_code == status
    assert_secured(response)


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b"[]", 422), (b'{"sample": [1]}', 422), (b'{"sample": [1, 1, 1, 1]}', 200)]
)
def test_every_answer_to_json_carries_the_security_headers(client: TestClient, content: bytes, status: int) -> None:
    response = client.post("/predict", content=content, headers=JSON)

    assert response.status_code == status
    assert_secured(response)


@pytest.mark.parametrize("path", ["/predict", "/result"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_answered_with_the_security_headers(
    model_path: Path, path: str, content_type: str, chunked: bool
) -> None:
    with TestClient(create_app(Settings(model_file=model_path, max_body_bytes=10))) as client:
        content = iter([b"sepal_length=1"]) if chunked else b"sepal_length=1"
        response = client.post(path, content=content, headers={"Content-Type": content_type})

    if (path, content_type) != ("/result", "application/json"):  # which need not be read to be answered
        assert response.status_code == 413
    assert_secured(response)


def test_an_unchanged_static_file_carries_the_security_headers(client: TestClient) -> None:
    etag = client.get("/static/app.css").headers["etag"]

    response = client.get("/static/app.css", headers={"If-None-Match": etag})

    assert response.status_code == 304
    assert_secured(response)


def test_the_policy_allows_nothing_unsafe_and_nothing_from_elsewhere(client: TestClient) -> None:
    policy = policy_of(client.get("/"))

    assert {value for values in policy.values() for value in values} <= {"'self'", "'none'"}


def test_the_headers_are_not_sent_twice(client: TestClient) -> None:
    response = client.get("/")

    for name in ("content-security-policy", "x-content-type-options", "referrer-policy", "content-type", "vary"):
        assert len(response.headers.get_list(name)) == 1, name


def test_what_runs_it_is_not_told(client: TestClient) -> None:
    assert not {"server", "x-powered-by"} & set(client.get("/").headers)
