"""Every bound holds to the last byte: what is just as large passes, and one more is refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Server, run_server

BODY, UPLOAD, FRAME, HEAD, SAMPLES = 1_000, 3_000, 2_000, 2_048, 3
ROW = [5.6, 2.7, 4.2, 1.3]
HEADER = b"sepal_length,sepal_width,petal_length,petal_width,note\n"
AT_AND_BEYOND = pytest.mark.parametrize("beyond", [0, 1])
CHUNKED = pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])


@pytest.fixture(scope="module")
def bounded(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("bounded") / "log.txt"
    bounds = {
        "MAX_BODY_BYTES": BODY, "MAX_UPLOAD_BYTES": UPLOAD, "MAX_FRAME_BYTES": FRAME, "MAX_HEAD_BYTES": HEAD,
        "MAX_SAMPLES": SAMPLES,
    }  # fmt: skip
    texts = {name: str(value) for name, value in bounds.items()}
    with run_server(log, port=None, MODEL_FILE=str(model_path), **texts) as server:
        yield server


def posted(server: Server, path: str, body: bytes, media_type: str, *, chunked: bool) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        half = len(body) // 2
        content = [body[:half], body[half:]] if chunked else body
        connection.request("POST", path, content, {"Content-Type": media_type}, encode_chunked=chunked)
        response = connection.getresponse()
        try:
            return response.status, response.read()
        except http.client.IncompleteRead as error:
            return response.status, error.partial


def padded(text: bytes, size: int) -> bytes:
    assert len(text) <= size
    return text + b" " * (size - len(text))


@CHUNKED
@AT_AND_BEYOND
@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/predict", {"sample": ROW}),
        (
            "/v2/models/iris/infer",
            {"inputs": [{"name": "samples", "shape": [1, 4], "datatype": "FP64", "data": ROW}]},
        ),
    ],
)
def test_a_body_may_have_just_so_many_bytes(
    bounded: Server, path: str, content: object, beyond: int, chunked: bool
) -> None:
    body = padded(json.dumps(content).encode(), BODY + beyond)

    status, _ = posted(bounded, path, body, "application/json", chunked=chunked)

    assert status == (413 if beyond else 200)


@CHUNKED
@AT_AND_BEYOND
def test_an_upload_may_have_just_so_many_bytes(bounded: Server, beyond: int, chunked: bool) -> None:
    row = b"5.6,2.7,4.2,1.3,"
    table = HEADER + row + b"x" * (UPLOAD + beyond - len(HEADER) - len(row) - 1) + b"\n"

    status, answer = posted(bounded, "/score", table, "text/csv", chunked=chunked)

    assert len(table) == UPLOAD + beyond
    assert (b",versicolor," in answer) == (not beyond)
    assert (f"more than {UPLOAD} bytes".encode() in answer) == bool(beyond)
    if beyond and chunked:  # the answer may have begun before the last chunk came
        assert status in (200, 413)
    else:
        assert status == (413 if beyond else 200)


@AT_AND_BEYOND
def test_a_frame_may_have_just_so_many_bytes(bounded: Server, beyond: int) -> None:
    with connect(bounded.stream_url) as stream:
        stream.recv()
        stream.send(padded(json.dumps({"sample": ROW}).encode(), FRAME + beyond).decode())
        if not beyond:
            assert json.loads(stream.recv())["label"] == "versicolor"
            return
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


@AT_AND_BEYOND
def test_a_message_may_have_just_so_many_samples(bounded: Server, beyond: int) -> None:
    message = json.dumps({"samples": [ROW] * (SAMPLES + beyond)})

    status, answer = posted(bounded, "/predict", message.encode(), "application/json", chunked=False)
    with connect(bounded.stream_url) as stream:
        stream.recv()
        stream.send(message)
        reply = json.loads(stream.recv())

    assert status == (413 if beyond else 200)
    assert len(json.loads(answer).get("predictions", ())) == (0 if beyond else SAMPLES)
    assert reply.get("error", {}).get("status") == (413 if beyond else None)


@AT_AND_BEYOND
def test_a_tensor_may_have_just_so_many_samples(bounded: Server, beyond: int) -> None:
    n = SAMPLES + beyond
    tensor = {"name": "samples", "shape": [n, 4], "datatype": "FP64", "data": ROW * n}

    status, _ = posted(
        bounded, "/v2/models/iris/infer", json.dumps({"inputs": [tensor]}).encode(), "application/json", chunked=False
    )

    assert status == (413 if beyond else 200)


@AT_AND_BEYOND
def test_a_head_that_has_not_ended_may_have_just_so_many_bytes(bounded: Server, beyond: int) -> None:
    beginning = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: "
    with socket.create_connection(("127.0.0.1", bounded.port), timeout=20) as connection:
        connection.sendall(beginning + b"y" * (HEAD + beyond - len(beginning)))
        if not beyond:
            assert not select.select([connection], [], [], 0.2)[0], "it was answered before its end"
            connection.sendall(b"\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()

        assert response.status == (431 if beyond else 200)


@AT_AND_BEYOND
@pytest.mark.parametrize(
    ("name", "bound"), [("X-Request-ID", 64), ("Host", 260)], ids=["the id of a request", "the name of a host"]
)
def test_a_header_may_have_just_so_many_bytes(bounded: Server, name: str, bound: int, beyond: int) -> None:
    value = "x" * (bound + beyond)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", bounded.port, timeout=20)) as connection:
        connection.request("GET", "/health/live", headers={name: value})
        response = connection.getresponse()

    if name == "Host":
        assert response.status == (400 if beyond else 200)
    else:
        assert (response.headers["x-request-id"] == value) == (not beyond)


@AT_AND_BEYOND
def test_text_of_a_number_may_have_just_so_many_characters(bounded: Server, beyond: int) -> None:
    sample = [*ROW[:3], "1.3" + "0" * (61 + beyond)]

    status, _ = posted(bounded, "/predict", json.dumps({"sample": sample}).encode(), "application/json", chunked=False)

    assert status == (422 if beyond else 200)
