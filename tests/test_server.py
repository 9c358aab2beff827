"""The real server: how it starts, what it does under bad input and bad manners, and what its log says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.sync.client import connect

from ml.model.loaded import LoadedModel
from tests.conftest import (
    LIVE,
    MEBIBYTE,
    ROOT,
    Server,
    ask,
    free_port,
    is_served,
    memory_bytes,
    opened,
    parse_html,
    response_of,
    response_to,
    run_server,
)

EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
JSON = {"Content-Type": "application/json"}
PREDICT = f"/predict?{urlencode(EXAMPLE)}"


def posted(content: bytes, *, content_type: str = "application/json") -> bytes:
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def asked_for(sample: dict[str, str]) -> bytes:
    return f"GET /predict?{urlencode(sample)} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n".encode()


def chunked(content: bytes, *, size: int) -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m web` that is to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "web"],
        cwd=ROOT, env=os.environ | {"PORT": str(free_port())} | environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


# --- what it serves


def test_all_four_channels_answer_alike(quiet_server: Server, model: LoadedModel) -> None:
    row = [float(value) for value in EXAMPLE.values()]
    prediction = model.predict(row)

    _, _, page = ask(quiet_server, f"GET /?{urlencode(EXAMPLE)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    _, _, fragment = ask(quiet_server, f"GET {PREDICT} HTTP/1.1\r\nHost: x\r\nHX-Request: true\r\n\r\n".encode())
    _, _, answer = ask(quiet_server, posted(json.dumps({"sample": EXAMPLE}).encode()))
    with connect(quiet_server.stream_url) as websocket:
        websocket.recv()
        websocket.send(json.dumps({"sample": EXAMPLE}))
        reply = json.loads(websocket.recv())

    assert parse_html(page.decode()).one(id="prediction").one(data_label=prediction.label)
    assert parse_html(fragment.decode()).one(data_label=prediction.label)
    assert tuple(json.loads(answer)["probabilities"].values()) == prediction.probabilities
    assert tuple(reply["probabilities"].values()) == prediction.probabilities


def test_it_is_ready_with_the_model_that_it_was_given(quiet_server: Server, model: LoadedModel) -> None:
    status, _, body = ask(quiet_server, b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")

    assert status == 200
    assert json.loads(body)["model"]["version"] == model.version


def test_a_server_with_a_model_file_does_not_load_scikit_learn(quiet_server: Server) -> None:
    ask(quiet_server, posted(json.dumps({"samples": [EXAMPLE] * 100}).encode()))

    mapped = Path(f"/proc/{quiet_server.process.pid}/maps").read_text()

    assert "numpy" in mapped
    assert "/sklearn/" not in mapped
    assert "/scipy/" not in mapped


def test_its_name_and_that_of_its_parts_are_not_told(quiet_server: Server) -> None:
    _, headers, _ = ask(quiet_server, LIVE)

    assert "server" not in headers
    assert "date" in headers


# --- how it starts


def test_the_environment_names_host_and_model(quiet_server: Server, model_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a model.npz"
    shutil.copy(model_path, copy)

    with run_server(tmp_path / "log.txt", HOST="0.0.0.0", MODEL_FILE=str(copy)) as server:
        with socket.create_connection(("127.0.0.2", server.port), timeout=20) as connection:
            assert response_to(LIVE, connection)[0] == 200
        assert str(copy) in server.log.read_text()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", quiet_server.port), timeout=20)


@pytest.mark.slow
def test_a_missing_model_is_trained_once_in_another_process_and_served(
    tmp_path: Path, built_in_model: LoadedModel
) -> None:
    path = tmp_path / "folder" / "model.npz"
    path.parent.mkdir()

    with run_server(tmp_path / "first.txt", MODEL_FILE=str(path)) as first:
        _, _, body = ask(first, posted(json.dumps({"sample": EXAMPLE}).encode()))
        mapped = Path(f"/proc/{first.process.pid}/maps").read_text()
    written = path.read_bytes()
    with run_server(tmp_path / "second.txt", MODEL_FILE=str(path)) as second:
        _, _, again = ask(second, posted(json.dumps({"sample": EXAMPLE}).encode()))

    row = [float(value) for value in EXAMPLE.values()]
    assert tuple(json.loads(body)["probabilities"].values()) == built_in_model.predict(row).probabilities
    assert "/sklearn/" not in mapped
    assert "training the built-in model there" in first.log.read_text()
    assert again == body
    assert "training" not in second.log.read_text()
    assert path.read_bytes() == written
    assert os.listdir(path.parent) == ["model.npz"]


def test_a_bad_environment_gives_one_sentence_and_status_2(tmp_path: Path) -> None:
    done = start(MAX_BODY_BYTES="12MB", MODEL_FILE=str(tmp_path / "model.npz"))

    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: MAX_BODY_BYTES must be [^\n]+\n", done.stderr)
    assert list(tmp_path.iterdir()) == [], "nothing was trained"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_broken_model_file_is_refused(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"not a model file")

    done = start(MODEL_FILE=str(path), WEB_CONCURRENCY=workers)

    assert done.returncode not in (0, 2)
    assert "Traceback" not in done.stderr
    assert "exception" not in done.stderr
    assert f"{path}: not a model file" in done.stderr
    assert done.stderr.count("not a model file") == 1 or workers == "2"
    assert path.read_bytes() == b"not a model file", "it is left for who wants to look at it"


def test_a_model_file_that_is_a_directory_is_refused_in_a_sentence(tmp_path: Path) -> None:
    done = start(MODEL_FILE=str(tmp_path))

    assert done.returncode not in (0, 2)
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr


def test_a_model_file_with_a_name_too_long_is_refused_in_a_sentence() -> None:
    done = start(MODEL_FILE="x" * 300)

    assert done.returncode not in (0, 2)
    assert "Traceback" not in done.stderr


# --- bad manners


def test_pipelined_requests_are_answered_in_their_order(quiet_server: Server) -> None:
    values = [str(number / 10) for number in range(300)]
    requests = b""
    for index, value in enumerate(values):
        sample = EXAMPLE | {"sepal_length": value}
        requests += posted(json.dumps({"sample": sample}).encode()) if index % 2 else asked_for(sample)
    with opened(quiet_server) as connection:
        connection.sendall(requests + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answers:
            seen = [json.loads(read_response(answers))["sample"]["sepal_length"] for _ in values]
            last = json.loads(read_response(answers))

    assert seen == [float(value) for value in values]
    assert last == {"live": True}


def read_response(stream: Any) -> bytes:
    """Return the body of the next response; unlike `response_of`, leave what follows it."""
    assert stream.readline().startswith(b"HTTP/1.1 200 ")
    headers = dict(line.strip().lower().split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
    content: bytes = stream.read(int(headers[b"content-length"]))
    return content


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_chunked_body_is_read(quiet_server: Server, size: int) -> None:
    status, _, body = ask(quiet_server, chunked(json.dumps({"sample": EXAMPLE}).encode(), size=size))

    assert status == 200
    assert json.loads(body)["label"] == "versicolor"


def test_slow_and_half_requests_do_not_block_others(quiet_server: Server) -> None:
    body = posted(json.dumps({"sample": EXAMPLE}).encode())
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(opened(quiet_server)) for _ in range(50)]
        for index, connection in enumerate(connections):
            connection.sendall(body[: index * len(body) // len(connections)])
        assert is_served(quiet_server)
        for index, connection in enumerate(connections):
            connection.sendall(body[index * len(body) // len(connections) :])
            assert response_of(connection)[0] == 200


def test_a_body_over_the_limit_is_refused_before_it_is_sent(quiet_server: Server) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {10**12}\r\n\r\n"

    status, _, _ = ask(quiet_server, head.encode())

    assert status == 413
    assert is_served(quiet_server)


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_sent(quiet_server: Server) -> None:
    before = memory_bytes(quiet_server)
    content = chunked(b" " * 64 * MEBIBYTE, size=MEBIBYTE)
    with opened(quiet_server) as connection:
        # The server may answer, and close, before all is sent.
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
        with contextlib.suppress(ConnectionError):
            status, headers, _ = response_of(connection)
            assert status == 413
            assert headers["content-type"] == "application/problem+json"

    assert is_served(quiet_server)
    assert memory_bytes(quiet_server) - before < 40 * MEBIBYTE, "the limit of a body is 12 MiB, joined from parts"


@pytest.mark.parametrize("path", ["/", "/predict"])
@pytest.mark.parametrize("query", ["a=1&" * 30_000, "sepal_length=" + "9" * 1_000_000, "%" * 1_000_000])
def test_a_huge_query_is_answered(quiet_server: Server, path: str, query: str) -> None:
    status, _, body = ask(quiet_server, f"GET {path}?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert status in (200, 400, 422, 431)
    assert len(body) < 3_100_000
    assert is_served(quiet_server)


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"NONSENSE\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nX\x00: y\r\n\r\n",
        b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_not_http_is_refused(quiet_server: Server, content: bytes) -> None:
    assert ask(quiet_server, content)[0] == 400
    assert is_served(quiet_server)


@pytest.mark.parametrize(
    "content",
    [
        b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /static/../web/app.py HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /static/%2e%2e/web/app.py HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /static/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)  # fmt: skip
def test_a_strange_address_is_not_found(quiet_server: Server, content: bytes) -> None:
    status, headers, _ = ask(quiet_server, content)

    assert status == 404
    assert headers["content-type"] == "application/problem+json"


def test_an_upgrade_to_something_else_is_not_taken(quiet_server: Server) -> None:
    status, _, body = ask(quiet_server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")

    assert status == 200
    assert b"</html>" in body


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_client_that_vanishes_while_it_is_answered_leaves_the_log_quiet(quiet_server: Server) -> None:
    content = posted(json.dumps({"samples": [list(EXAMPLE.values())] * 5_000}).encode())
    for _ in range(10):
        with opened(quiet_server) as connection:
            connection.sendall(content)
            connection.recv(1)
            reset(connection)

    assert is_served(quiet_server)


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_a_client_that_vanishes_while_it_sends_leaves_the_log_quiet(quiet_server: Server, content_type: str) -> None:
    with opened(quiet_server) as connection:
        connection.sendall(posted(b"x" * 1_000, content_type=content_type)[:-500])
        assert is_served(quiet_server)
        reset(connection)

    assert is_served(quiet_server)


def test_an_endless_header_is_cut_off(quiet_server: Server) -> None:
    with opened(quiet_server) as connection:
        before = memory_bytes(quiet_server)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 8 * MEBIBYTE)
        status, headers, _ = response_of(connection)

        assert status == 431
        assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
        assert memory_bytes(quiet_server) - before < 4 * MEBIBYTE
        assert connection.recv(1) == b""


def test_a_body_of_millions_of_values_is_refused_in_little_memory(model_path: Path, tmp_path: Path) -> None:
    content = posted(b'{"samples":[' + b"0," * (6 * MEBIBYTE - 20) + b"0]}")
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path)) as server:
        before = memory_bytes(server, "VmHWM")
        assert ask(server, content)[0] in (413, 422)

        assert memory_bytes(server, "VmHWM") - before < 100 * MEBIBYTE


# --- the log


def test_the_log_holds_nothing_that_people_typed(quiet_server: Server) -> None:
    marks = ["7.13571", "8.24682", "9.35793", "typed-by-a-person"]
    sample = dict(zip(EXAMPLE, marks, strict=True))
    for path in ("/", "/predict"):
        for more in (b"", b"HX-Request: true\r\n", b"Accept: application/json\r\n"):
            ask(quiet_server, f"GET {path}?{urlencode(sample)} HTTP/1.1\r\nHost: x\r\n".encode() + more + b"\r\n")
    for body in (sample, {"sample": sample}, {"samples": [sample] * 3}, {"sample": list(sample.values())}):
        ask(quiet_server, posted(json.dumps(body).encode()))
    ask(quiet_server, posted(urlencode(sample).encode(), content_type="application/x-www-form-urlencoded"))
    ask(quiet_server, posted(b"{7.13571", content_type="application/json"))
    ask(quiet_server, f"GET /typed-by-a-person?{urlencode(sample)} HTTP/9.9\r\n\r\n".encode())
    with connect(f"{quiet_server.stream_url}?{urlencode(sample)}") as websocket:
        websocket.recv()
        for frame in ({"id": marks, "sample": sample}, {"samples": [sample]}, marks, "7.13571"):
            websocket.send(json.dumps(frame))
            websocket.recv()

    log = quiet_server.log.read_text()
    assert "serving iris" in log, "it is a log"
    assert log.count(f"the page is at {quiet_server.url}/\n") == 1
    assert not [mark for mark in marks if mark in log]


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--port=1", 2)])
def test_an_argument_never_starts_a_server_and_never_shows_the_token(argument: str, status: int) -> None:
    token = "a-token-that-nobody-guesses"
    done = subprocess.run(
        [sys.executable, "-m", "web", argument],
        cwd=ROOT, env=os.environ | {"API_TOKEN": token}, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    assert done.returncode == status
    assert ("WEB_CONCURRENCY" in done.stdout) == (status == 0)
    assert token not in done.stdout + done.stderr
