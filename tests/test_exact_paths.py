"""Routes found by their path at once, and the answers to what their endpoints raise."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from web.middleware.exact_paths import ExactPaths, Handlers


class Near(LookupError):
    pass


class Nearest(Near):
    pass


ERRORS = {"near": Near, "nearest": Nearest, "key": KeyError, "other": ZeroDivisionError}


async def fail(request: Request) -> Response:
    raise ERRORS[request.url.query]


async def say(request: Request) -> Response:
    return PlainTextResponse(request.path_params.get("key", request.scope["route"].path))


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("over a websocket")
    await websocket.close()


async def answer_lookup(request: Request, error: Exception) -> Response:
    return PlainTextResponse("lookup", 404)


async def answer_near(request: Request, error: Exception) -> Response:
    return PlainTextResponse("near", 404)


@pytest.fixture
def client() -> TestClient:
    routes = [Route("/fail", fail), WebSocketRoute("/same", greet), Route("/same", say), Route("/{key}", say)]
    handlers: Handlers = {LookupError: answer_lookup, Near: answer_near}
    return TestClient(ExactPaths(Router(routes), routes, handlers))


@pytest.mark.parametrize(("raised", "answer"), [("near", "near"), ("nearest", "near"), ("key", "lookup")])
def test_the_handler_of_the_nearest_class_answers_an_error(client: TestClient, raised: str, answer: str) -> None:
    assert client.get(f"/fail?{raised}").text == answer


def test_an_error_that_nobody_handles_is_raised(client: TestClient) -> None:
    with pytest.raises(ZeroDivisionError):
        client.get("/fail?other")


def test_the_route_of_an_exact_path_is_kept_and_all_else_is_left_to_the_router(client: TestClient) -> None:
    assert client.get("/same").text == "/same"
    assert client.post("/same").status_code == 405
    assert client.get("/other").text == "other"
    assert client.get("/{key}").text == "{key}"
    with client.websocket_connect("/same") as websocket:
        assert websocket.receive_text() == "over a websocket"
