"""The log: lines for people or machines, with the id of the request, without anything that was typed."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import logging.config
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.conftest import ROOT, Server, run_procfile, run_server
from web.app import create_app
from web.logs import REQUEST_ID, JsonFormatter, PlainFormatter
from web.settings import Settings

QUERY = "sepal_length=5.6&sepal_width=2.7&petal_length=4.2&petal_width=1.3"


def record(message: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    about = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("web", logging.ERROR, "here.py", 1, message, arguments, about)


def raised() -> Exception:
    try:
        raise ValueError("first line\nsecond line")
    except ValueError as error:
        return error


def test_a_json_line_has_time_level_logger_and_message() -> None:
    line = json.loads(JsonFormatter().format(record("%s models", 2)))

    time = datetime.fromisoformat(line.pop("time"))
    assert line == {"level": "ERROR", "logger": "web", "message": "2 models"}
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60


def test_the_time_is_rfc_3339_in_utc() -> None:
    at = record("now")
    at.created = 0.25

    assert json.loads(JsonFormatter().format(at))["time"] == "1970-01-01T00:00:00.250Z"


def test_a_traceback_is_one_field_of_one_line() -> None:
    text = JsonFormatter().format(record("failed", error=raised()))

    assert "\n" not in text
    assert json.loads(text)["traceback"].endswith("ValueError: first line\nsecond line\n")


@pytest.mark.parametrize("message", ["two\nlines", "lone \ud800 surrogate", "\x00\x1b[31m", 'a "quote"'])
def test_any_text_is_one_line_of_valid_json(message: str) -> None:
    text = JsonFormatter().format(record("%s", message))

    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["message"] == message


def test_a_line_has_the_id_of_its_request_and_only_that() -> None:
    def lines() -> tuple[str, str]:
        return PlainFormatter().format(record("slow")), JsonFormatter().format(record("slow"))

    def inside() -> tuple[str, str]:
        REQUEST_ID.set("abc-1")
        return lines()

    within, without = copy_context().run(inside), lines()

    assert " ERROR web [abc-1]: slow" in within[0]
    assert json.loads(within[1])["request_id"] == "abc-1"
    assert " ERROR web: slow" in without[0]
    assert "request_id" not in json.loads(without[1])


@contextlib.contextmanager
def captured(form: str) -> Iterator[io.StringIO]:
    """Have what the service logs come here, in its own format."""
    logger, stream = logging.getLogger("web"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter())
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def test_the_access_log_has_route_status_time_and_id_but_nothing_that_was_sent(model_path: Path) -> None:
    with captured("json") as stream, TestClient(create_app(Settings(model_file=model_path, access_log=1))) as client:
        client.get(f"/predict?{QUERY}&secret=4711", headers={"X-Request-ID": "mine"})
        client.get("/secret-4711")
        client.post("/predict", json={"sample": ["secret 4711"]})

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    accesses = [line for line in lines if line["logger"] == "web.access"]
    assert [(line["method"], line["route"], line["status"]) for line in accesses] == [
        ("GET", "/predict", 422),
        ("GET", "unmatched", 404),
        ("POST", "/predict", 422),
    ]
    assert accesses[0]["request_id"] == "mine"
    assert all(line["request_id"] and line["milliseconds"] > 0 for line in accesses)
    assert "4711" not in stream.getvalue()


def test_without_the_setting_there_is_no_access_log(model_path: Path) -> None:
    with captured("plain") as stream, TestClient(create_app(Settings(model_file=model_path))) as client:
        client.get("/nowhere")

    assert "web.access" not in stream.getvalue()


@pytest.mark.parametrize("form", ["plain", "json"])
def test_the_configuration_is_one_that_python_takes(form: str) -> None:
    program = f"""
import logging.config
from web import logs
logging.config.dictConfig(logs.configuration({form!r}))
logging.getLogger("web").info("ours")
logging.getLogger("ml").info("the model's")
logging.getLogger("uvicorn.error").error("the server's")
logging.getLogger("uvicorn.error").info("too much")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    first, second, third = done.stderr.splitlines()
    assert ("ours" in first, "the model's" in second, "the server's" in third) == (True, True, True)
    if form == "json":
        assert [json.loads(line)["logger"] for line in (first, second, third)] == ["web", "ml", "uvicorn.error"]


# Python runs a module of this name when it starts.
SITECUSTOMIZE = """
import web.page.docs

async def broken(request):
    raise RuntimeError("broken on purpose")

web.page.docs.docs = broken
"""


def test_the_real_server_writes_json_alone_and_an_exception_in_one_line_with_the_id_of_its_request(
    model_path: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    with run_procfile(log, MODEL_FILE=str(model_path), LOG_FORMAT="json", ACCESS_LOG="1", PYTHONPATH=path) as server:
        request = urllib.request.Request(f"{server.url}/predict?{QUERY}", headers={"X-Request-ID": "real-1"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.headers["X-Request-ID"] == "real-1"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}/docs", timeout=10)
        with caught.value as response:
            request_id = response.headers["X-Request-ID"]
            assert response.code == 500

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (access,) = [line for line in lines if line["logger"] == "web.access" and line["request_id"] == "real-1"]
    assert (access["route"], access["status"]) == ("/predict", 200)
    assert any(line["message"].startswith("serving iris") for line in lines)
    (mistake,) = [line for line in lines if "traceback" in line]
    assert mistake["request_id"] == request_id
    assert mistake["level"] == "ERROR"
    assert "broken on purpose" in mistake["traceback"]


HOSTILE = "n\x1b[2J\n2026-01-01 00:00:00,000 ERROR web: forged\r\x9b31m\u202e"


def test_text_of_a_stranger_neither_ends_a_line_nor_reaches_a_terminal_as_it_is() -> None:
    line = PlainFormatter().format(record("serving %s", HOSTILE))
    traceback = PlainFormatter().format(record("failed", error=ValueError("\x1b[2J")))

    assert line.isprintable()
    assert "n\\x1b[2J\\n2026" in line
    assert all(part.isprintable() for part in traceback.split("\n"))
    assert traceback.endswith("\nValueError: \\x1b[2J")


def answered(server: Server, requests: int) -> None:
    for _ in range(requests):
        with urllib.request.urlopen(f"{server.url}/health/live", timeout=10) as response:
            assert response.status == 200


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe that takes a page, and the end of it that nobody reads yet."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reading, True)
    yield path, reading
    os.close(reading)


def test_a_log_that_nobody_reads_stops_nothing_and_what_was_lost_is_told(
    model_path: Path, tmp_path: Path, unread: tuple[Path, int]
) -> None:
    path, reading = unread
    (tmp_path / "sitecustomize.py").write_text("import web.logs\nweb.logs.MAX_LINES = 100\n")
    folders = f"{tmp_path}{os.pathsep}{ROOT}"
    with run_procfile(path, MODEL_FILE=str(model_path), ACCESS_LOG="1", PYTHONPATH=folders) as server:
        answered(server, 500)
        log = b""
        while b"log lines were lost" not in log:
            log += os.read(reading, 2**16)
        answered(server, 1)
        server.process.send_signal(signal.SIGTERM)
        while part := os.read(reading, 2**16):
            log += part
        status = server.process.wait(20)

    lines = log.decode().splitlines()
    (told,) = [line for line in lines if "were lost" in line]
    lost = int(told.partition("web: ")[2].split()[0])
    assert lost + len([line for line in lines if "GET /health/live 200" in line]) == 501
    assert lost > 300
    assert lines[-1].endswith("stopped"), "what is left is written at the end"
    assert status == 0


def test_a_server_ends_though_nobody_reads_its_log(model_path: Path, unread: tuple[Path, int]) -> None:
    with run_server(unread[0], MODEL_FILE=str(model_path), ACCESS_LOG="1") as server:
        answered(server, 100)
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(20)

    assert status == 0
