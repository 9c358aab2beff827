"""The real server from its first model to its end: replaced models, drains, workers that die, supervisors that do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ml.model import modelfile
from tests.benchmarks import replace
from tests.benchmarks import server as benchmark_server
from tests.conftest import (
    ROOT,
    Server,
    ask,
    assert_quiet,
    free_port,
    opened,
    put,
    response_to,
    run_procfile,
    run_server,
    start_server,
    wait_until_ready,
)
from web.__main__ import metrics_folder
from web.server.supervisor import address_of

pytestmark = pytest.mark.server
ROW = [5.6, 2.7, 4.2, 1.3]
SAMPLE = json.dumps({"sample": ROW})
BATCH = json.dumps({"samples": [ROW] * 150_000})
PAUSE_S = 0.05  # there is nothing to await: what is waited for happens in other processes
READY = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
PREDICT = b"GET /predict?sepal_length=5.6&sepal_width=2.7&petal_length=4.2&petal_width=1.3 HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"


@pytest.fixture
def path(contents: list[bytes], tmp_path: Path) -> Path:
    path = tmp_path / "model.npz"
    path.write_bytes(contents[0])
    return path


def is_open(server: Server) -> bool:
    try:
        with opened(server):
            return True
    except ConnectionError:
        return False


def close_code(stream: ClientConnection) -> int | None:
    """Return the code with which the server closes a stream; whatever it says before is left out."""
    try:
        while True:
            stream.recv(20)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def status_of(server: Server) -> int:
    return server.process.wait(20)


# --- replacing


def test_models_are_replaced_under_load_without_a_failed_request_or_a_closed_stream(
    contents: list[bytes], path: Path, tmp_path: Path
) -> None:
    async def load_and_replace(load: replace.Load) -> None:
        async with replace.clients(load, connections=4, streams=8) as silent:
            for number in range(1, 5):
                await replace.replace(load, path, contents[number % 2], silent=silent)

    models = {modelfile.version_of(content): replace.loaded(content) for content in contents[:2]}
    rows = [[5.0 + number / 100, 2.7, 4.2, 1.3] for number in range(replace.ROWS)]
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(path), MODEL_CHECK_S="0.05") as server:
        running = benchmark_server.Server(server.process, server.port, 0.0)
        load = replace.Load(running, models, rows)

        asyncio.run(load_and_replace(load))

        assert server.log.read_text().count("replaced iris") == 4
        assert_quiet(server)
    assert load.answers > 20


def wait_for(server: Server, text: str, *, times: int) -> None:
    """Wait until the log has a text so often, while every request is answered."""
    while server.log.read_text().count(text) < times:
        assert server.process.poll() is None
        assert ask(server, PREDICT)[0] == 200
        time.sleep(PAUSE_S)


# --- the end


def test_a_server_that_drains_is_not_ready_and_answers_until_it_closes_the_door(path: Path, tmp_path: Path) -> None:
    server_of = run_server(tmp_path / "log.txt", MODEL_FILE=str(path), DRAIN_S="60")
    with server_of as server, connect(server.stream_url) as stream:
        stream.recv()
        server.process.send_signal(signal.SIGTERM)
        ready = 200
        while ready == 200:
            ready, _, body = ask(server, READY)
        with opened(server) as connection:
            while "connection" not in (answer := response_to(PREDICT, connection))[1]:
                pass  # within a tenth of a second it asks to be left
            assert connection.recv(1) == b""
        stream.send(SAMPLE)
        reply = json.loads(stream.recv())
        with connect(server.stream_url) as another:
            announced = json.loads(another.recv())
        server.process.send_signal(signal.SIGINT)
        status = status_of(server)

    assert ready == 503
    assert json.loads(body) == {
        "ready": False,
        "draining": True,
        "model": announced["model"] and {key: announced["model"][key] for key in ("name", "version")},
    }
    assert answer[0] == 200
    assert reply["label"] == "versicolor"
    assert status == 0
    assert_quiet(server)


def test_what_has_come_is_answered_before_the_end(path: Path, tmp_path: Path) -> None:
    rest = b'"sample": [5.6, 2.7, 4.2, 1.3]}'
    head = HALF.replace(b"99", str(len(rest) + 1).encode())
    with (
        run_server(
            tmp_path / "log.txt", MODEL_FILE=str(path), MAX_SAMPLES="150000", MAX_FRAME_BYTES="4000000"
        ) as server,
        opened(server) as half,
        opened(server) as idle,
        opened(server) as begun,
        connect(server.stream_url, max_size=None) as busy,
        connect(server.stream_url) as silent,
    ):
        for stream in (busy, silent):
            stream.recv()
        half.sendall(head)
        begun.sendall(READY[:20])
        busy.send(BATCH)  # takes a second
        for _ in range(200):
            response_to(PREDICT, idle)  # in so many turns of its event loop the server has read all of it
        server.process.send_signal(signal.SIGTERM)
        while is_open(server):
            pass
        reply = json.loads(busy.recv(20))
        answer = response_to(rest, half)
        codes = [close_code(stream) for stream in (busy, silent)]
        assert idle.recv(1) == begun.recv(1) == b""
        status = status_of(server)

    assert answer[0] == 200
    assert reply["labels"] == ["versicolor"] * 150_000
    assert codes == [1012, 1012]
    assert status == 0
    assert_quiet(server)


def test_the_wait_for_open_requests_is_bounded(path: Path, tmp_path: Path) -> None:
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(path), SHUTDOWN_S="1") as server, opened(server) as half:
        half.sendall(HALF)
        ask(server, READY)  # and so has the half of the request been taken in
        server.process.send_signal(signal.SIGTERM)
        status = status_of(server)

    assert status == 0
    assert "SIGTERM received: draining for" in server.log.read_text()
    assert "aborted 1 connections with 1 open requests" in server.log.read_text()
    assert_quiet(server)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_it_at_once(path: Path, tmp_path: Path, workers: str) -> None:
    log = tmp_path / "log.txt"
    server_of = run_server(log, MODEL_FILE=str(path), SHUTDOWN_S="80000", WEB_CONCURRENCY=workers)
    with server_of as server, opened(server) as half:
        half.sendall(HALF)
        ask(server, READY)
        server.process.send_signal(signal.SIGTERM)
        while is_open(server):
            pass
        server.process.send_signal(signal.SIGTERM)
        status = status_of(server)

    assert status == 0


# --- several processes


def workers_of(server: Server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(number) for number in children.split()]


def test_workers_share_the_port_and_look_at_the_file_on_a_signal_and_one_that_is_killed_is_replaced(
    contents: list[bytes], path: Path, tmp_path: Path
) -> None:
    server_of = run_server(tmp_path / "log.txt", MODEL_FILE=str(path), MODEL_CHECK_S="0", WEB_CONCURRENCY="2")
    with server_of as server:
        # The first worker serves alone until the second one is there.
        wait_for(server, "serves", times=2)
        for _ in range(10):
            assert version_of(server) == modelfile.version_of(contents[0])
            assert ask(server, PREDICT.replace(b"Host: x", b"Host: x\r\nHX-Request: true"))[0] == 200
            assert ask(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
            with connect(server.stream_url) as stream:
                assert json.loads(stream.recv())["model"]["version"] == modelfile.version_of(contents[0])
                stream.send(SAMPLE)
                assert json.loads(stream.recv())["label"] == "versicolor"

        put(contents[1], path)
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "replaced iris", times=2)
        replaced = version_of(server)

        first, second = workers_of(server)
        os.kill(first, signal.SIGKILL)
        wait_for(server, "serves", times=3)
        others = workers_of(server)
        server.process.send_signal(signal.SIGTERM)
        status = status_of(server)

    assert replaced == modelfile.version_of(contents[1])
    assert second in others
    assert len(others) == 2
    assert first not in others
    assert f"process {first} was ended by signal 9" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
    assert status == 0
    assert not [pid for pid in others if Path(f"/proc/{pid}").exists()]


def version_of(server: Server) -> object:
    return json.loads(ask(server, READY)[2])["model"]["version"]


def test_workers_that_cannot_start_are_started_ever_more_slowly_and_given_up_with_the_last(
    path: Path, tmp_path: Path
) -> None:
    server_of = run_server(tmp_path / "log.txt", MODEL_FILE=str(path), WEB_CONCURRENCY="2", MODEL_CHECK_S="0")
    with server_of as server:
        wait_for(server, "serves", times=2)
        put(b"not a model", path)
        first, second = workers_of(server)
        os.kill(first, signal.SIGKILL)
        wait_for(server, "ended with status 3; the next one starts in", times=2)
        os.kill(second, signal.SIGKILL)
        status = status_of(server)

    told = server.log.read_text()
    assert status == 1
    assert "starts in 1 s" in told
    assert "starts in 2 s" in told
    assert "no server process is left" in told


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def has_taken_over(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process ignores or handles a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn", "SigCgt"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_hangups_at_any_moment_of_a_start_do_no_harm(path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    variables = {"HOST": "127.0.0.1", "PORT": str(free_port()), "MODEL_FILE": str(path), "WEB_CONCURRENCY": "2"}
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "web"], cwd=ROOT, env=os.environ | variables, stderr=output)
    try:
        while not has_taken_over(process.pid, signal.SIGHUP):
            pass  # Python itself is starting
        for serving in (2, 3):
            while log.read_text().count("serves") < serving:
                # To each of them, as `pkill -HUP` would, and to one that is just being made.
                for pid in (process.pid, *children_of(process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGHUP)
                assert process.poll() is None, log.read_text()
                time.sleep(0.004)
            if serving == 2:
                os.kill(children_of(process.pid)[0], signal.SIGKILL)
        process.send_signal(signal.SIGTERM)
        status = process.wait(20)
    finally:
        process.kill()

    assert status == 0
    assert "ended by signal 1" not in log.read_text()


def test_a_hangup_while_python_itself_starts_does_no_harm(path: Path, tmp_path: Path) -> None:
    server = start_server(tmp_path / "log.txt", free_port(), {"MODEL_FILE": str(path)})
    try:
        while b"\0-m\0web\0" not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes():
            pass  # the shell is still on its way to Python
        server.process.send_signal(signal.SIGHUP)
        wait_until_ready(server)
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(20)
    finally:
        server.process.kill()

    assert status == 0


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],
)
def test_the_address_of_the_page_can_be_opened_on_this_machine(host: str, shown: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no such address")
        assert address_of([listening]) == f"http://{shown}:{listening.getsockname()[1]}/"


def test_a_worker_that_stands_still_is_replaced_and_one_that_takes_long_to_end_is_let_alone(
    path: Path, tmp_path: Path
) -> None:
    server_of = run_server(
        tmp_path / "log.txt", MODEL_FILE=str(path), WEB_CONCURRENCY="2", WORKER_TIMEOUT_S="3", SHUTDOWN_S="5"
    )
    with server_of as server:
        wait_for(server, "serves", times=2)
        stopped, other = workers_of(server)
        os.kill(stopped, signal.SIGSTOP)
        wait_for(server, "serves", times=3)
        replaced = server.log.read_text()

        with opened(server) as half:
            half.sendall(HALF)
            for _ in range(20):
                ask(server, READY)  # and so has the half of the request been taken in
            for worker in workers_of(server):
                os.kill(worker, signal.SIGTERM)
            while server.log.read_text().count("serves") < 5:
                assert server.process.poll() is None
                time.sleep(PAUSE_S)
        server.process.send_signal(signal.SIGTERM)
        status = status_of(server)

    assert f"process {stopped}: its event loop has stood still for 3 s; it is killed" in replaced
    assert f"process {stopped} was ended by signal 9; the next one starts in" in replaced
    assert replaced.count(f"the page is at {server.url}/\n") == 1
    assert f"process {other} " not in replaced.replace(f"process {other} serves", "")
    told = server.log.read_text().removeprefix(replaced)
    assert "stood still" not in told
    assert "aborted 1 connections" in told
    assert status == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_without_standard_streams_serves_and_ends_well(path: Path, workers: str) -> None:
    port = free_port()
    variables = {"HOST": "127.0.0.1", "PORT": str(port), "MODEL_FILE": str(path), "WEB_CONCURRENCY": workers}
    process = subprocess.Popen(
        ["sh", "-c", f"exec {shlex.quote(sys.executable)} -m web <&- >&- 2>&-"],
        cwd=ROOT, env=os.environ | variables | {"DRAIN_S": "0"},
    )  # fmt: skip
    server = Server(process, port, Path(os.devnull))
    try:
        wait_until_ready(server)
        assert ask(server, PREDICT)[0] == 200
        process.send_signal(signal.SIGTERM)
        status = status_of(server)
    finally:
        process.kill()

    assert status == 0


def test_workers_end_when_their_supervisor_is_gone(path: Path, tmp_path: Path) -> None:
    server_of = run_server(tmp_path / "log.txt", MODEL_FILE=str(path), WEB_CONCURRENCY="2")
    with server_of as server, connect(server.stream_url) as stream:
        stream.recv()
        wait_for(server, "serves", times=2)
        server.process.kill()
        server.process.wait()

        assert close_code(stream) == 1012
        while is_open(server):
            pass


def test_folders_of_killed_services_are_removed_by_the_next_start_and_no_others(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    others = shared / "metrics-of-others"
    others.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    killed_of = run_procfile(tmp_path / "log.txt", MODEL_FILE=str(path), WEB_CONCURRENCY="2", TMPDIR=str(shared))
    with killed_of as killed, metrics_folder() as running:
        wait_for(killed, "serves", times=2)
        for pid in (killed.process.pid, *workers_of(killed)):
            os.kill(pid, signal.SIGKILL)
        killed.process.wait()
        left = set(shared.glob("metrics-*"))
        with metrics_folder():
            now = set(shared.glob("metrics-*"))

    assert len(left) == 3
    assert now & left == {others, Path(running[-1])}
    assert len(now) == 3
    assert set(shared.glob("metrics-*")) == {others}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_in_use_is_told_in_a_sentence_and_before_anything_else(
    server: Server, tmp_path: Path, workers: str
) -> None:
    from tests.test_server import start

    (tmp_path / "model.npz").write_bytes(b"whatever it is")
    done = start(PORT=str(server.port), MODEL_FILE=str(tmp_path / "model.npz"), WEB_CONCURRENCY=workers)

    assert done.returncode == 1
    assert done.stderr == f"error: 127.0.0.1:{server.port}: address already in use; set PORT to another one\n"
