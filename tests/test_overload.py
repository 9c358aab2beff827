"""The real server under slow and greedy clients: each limit is kept, told as a problem, and the client can read it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ml.model.loaded import LoadedModel
from tests.benchmarks import attack
from tests.benchmarks.server import Server as Measured
from tests.conftest import (
    LIVE,
    MEBIBYTE,
    Server,
    assert_quiet,
    is_served,
    memory_bytes,
    opened,
    response_of,
    response_to,
    run_server,
)
from web.middleware.body_limit import Pending
from web.server.connections import CHECKS_A_DEADLINE, Connections, DeadlineMixin
from web.settings import Settings

SAMPLE = json.dumps({"sample": [5.6, 2.7, 4.2, 1.3]}).encode()
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def hasty(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with short deadlines, whose log must stay free of errors."""
    log = tmp_path_factory.mktemp("hasty") / "log.txt"
    deadlines = dict.fromkeys(["HEAD_TIMEOUT_S", "BODY_TIMEOUT_S", "SEND_TIMEOUT_S", "LINGER_S"], "0.4")
    more = {"KEEP_ALIVE_S": "1", "MIN_BODY_RATE": "10000", "MODEL_FILE": str(model_path)}
    with run_server(log, port=None, **deadlines, **more) as server:
        yield server
        assert server.process.poll() is None
    assert_quiet(server)


def assert_refused_and_closed(connection: socket.socket, status: int) -> dict[str, str]:
    """Read a problem, and then the end of the connection: no reset."""
    seen, headers, body = response_of(connection)
    assert (seen, json.loads(body)["status"]) == (status, status)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["x-content-type-options"] == "nosniff"
    assert "date" in headers
    assert "server" not in headers
    assert connection.recv(1) == b""
    return headers


def assert_cut(connection: socket.socket, piece: bytes) -> None:
    """Send for as long as it is possible: not forever."""
    with pytest.raises(ConnectionError):  # noqa: PT012  # any of them may be the last
        while True:
            connection.sendall(piece)


def drip(connection: socket.socket, piece: bytes) -> threading.Thread:
    """Send a piece again and again, slowly, from another thread until the connection does not take it any more."""

    def send() -> None:
        ended = threading.Event()
        with contextlib.suppress(OSError):
            while not ended.wait(0.05):
                connection.sendall(piece)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


# --- slow clients


def test_a_connection_on_which_nothing_comes_is_closed(hasty: Server) -> None:
    with opened(hasty) as connection:
        assert connection.recv(1) == b""


def test_a_head_that_comes_too_slowly_gets_408(hasty: Server) -> None:
    with opened(hasty) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        drip(connection, b"X: y\r\n")
        assert_refused_and_closed(connection, 408)


def test_a_head_that_comes_too_slowly_after_another_request_gets_408(hasty: Server) -> None:
    with opened(hasty) as connection:
        assert response_to(LIVE, connection)[0] == 200
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert_refused_and_closed(connection, 408)


@pytest.mark.parametrize("framing", [b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_body_that_comes_too_slowly_gets_408(hasty: Server, framing: bytes) -> None:
    with opened(hasty) as connection:
        connection.sendall(POST + framing)
        drip(connection, b"1\r\n \r\n" if b"chunked" in framing else b" ")
        assert_refused_and_closed(connection, 408)


def test_a_body_that_comes_steadily_may_take_longer_than_the_deadline(hasty: Server) -> None:
    pause = threading.Event()
    body = SAMPLE + b" " * 20_000
    with opened(hasty) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 1_000):  # over a second, at 20 kB/s
            connection.sendall(body[start : start + 1_000])
            pause.wait(0.05)
        assert response_of(connection)[0] == 200


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(hasty: Server) -> None:
    pause = threading.Event()
    with opened(hasty) as busy, opened(hasty) as idle:
        response_to(LIVE, idle)
        for _ in range(6):  # a second and a half
            assert response_to(LIVE, busy)[0] == 200
            pause.wait(0.25)
        assert idle.recv(1) == b""


def test_a_client_that_does_not_read_its_answers_is_cut(hasty: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", hasty.port))
        connection.sendall(b"GET /static/htmx-2.min.js HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        # 10 MB are on their way, more than the system keeps: sending ends with the connection.
        assert_cut(connection, LIVE * 1_000)


def test_a_message_that_comes_too_slowly_closes_the_stream(hasty: Server) -> None:
    with opened(hasty) as connection:
        connection.sendall(HANDSHAKE)
        with connection.makefile("rb") as answers:
            assert answers.readline().startswith(b"HTTP/1.1 101 ")
            connection.sendall(b"\x81\xfe\x10\x00\0\0\0\0")  # 4,096 masked bytes to come
            drip(connection, b" ")
            content = answers.read()
    assert content.endswith(struct.pack("!H", 1008) + b"the message came in too slowly")


def test_a_message_in_pieces_that_never_ends_closes_the_stream(hasty: Server) -> None:
    def pieces() -> Iterator[str]:
        pause = threading.Event()
        while True:
            yield " "
            pause.wait(0.05)

    with connect(hasty.stream_url) as stream:
        stream.recv()
        with pytest.raises(ConnectionClosed) as caught:
            stream.send(pieces())

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008


def test_a_silent_stream_stays_open(hasty: Server) -> None:
    pause = threading.Event()
    with connect(hasty.stream_url) as stream:
        stream.recv()
        pause.wait(1.5)  # longer than every deadline
        stream.send(SAMPLE.decode())
        assert json.loads(stream.recv())["type"] == "prediction"


def test_a_refused_body_is_read_for_a_while_and_then_cut(hasty: Server) -> None:
    with opened(hasty) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % 10**12)
        assert response_of(connection)[0] == 413
        assert_cut(connection, b" " * 65_536)


LONG_BODY = b" " * (14 * MEBIBYTE)  # more than is allowed, and than the system keeps for a connection
FRAMED = {
    "declared": b"Content-Length: %d\r\n\r\n%b" % (len(LONG_BODY), LONG_BODY),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LONG_BODY), LONG_BODY),
}


@pytest.mark.parametrize("framed", FRAMED.values(), ids=FRAMED)
def test_a_client_that_sends_all_of_a_long_body_before_it_reads_gets_413_and_no_reset(
    quiet_server: Server, framed: bytes
) -> None:
    with opened(quiet_server) as connection:
        connection.sendall(POST + b"Connection: close\r\n" + framed)
        assert_refused_and_closed(connection, 413)


@pytest.mark.parametrize("framed", FRAMED.values(), ids=FRAMED)
def test_a_connection_with_a_long_body_that_was_sent_to_its_end_is_used_again(
    quiet_server: Server, framed: bytes
) -> None:
    with opened(quiet_server) as connection:
        connection.sendall(POST + framed)
        assert response_of(connection)[0] == 413
        assert response_to(LIVE, connection)[0] == 200


# --- what is not HTTP


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000, 431),
        (b"GET /" + b"y" * 70_000, 431),
        (b"NONSENSE\r\n\r\n" + b"more" * 100_000, 400),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 99"), 426),
        (HANDSHAKE.replace(b"Sec-WebSocket-Version: 13\r\n", b""), 426),
        (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"?"), 400),
        (HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X"), 400),
        (HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: ;" + b"x" * 9_000 + b"\r\n\r\n"), 400),
    ],
)
def test_what_cannot_be_read_is_told_as_a_problem(quiet_server: Server, content: bytes, status: int) -> None:
    before = refusals_of(quiet_server, status)

    with opened(quiet_server) as connection:
        connection.sendall(content)
        headers = assert_refused_and_closed(connection, status)

    assert headers["x-request-id"]
    assert headers.get("sec-websocket-version") == ("13" if status == 426 else None)
    assert refusals_of(quiet_server, status) == before + 1


def refusals_of(server: Server, status: int) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        found = re.search(rf'^[a-z_]*refusals_total{{status="{status}"}} ([0-9.]+)$', response.read().decode(), re.M)
    return float(found[1]) if found else 0


def test_nonsense_after_a_request_does_not_spoil_its_answer(quiet_server: Server) -> None:
    with opened(quiet_server) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(SAMPLE) + SAMPLE + b"NONSENSE\r\n\r\n")
        status, _, body = response_of(connection)

    assert (status, json.loads(body)["label"]) == (200, "versicolor")


@pytest.mark.parametrize("content", [HANDSHAKE, HANDSHAKE.replace(b"Host: x", b"Host: x\r\nOrigin: https://e.example")])
def test_a_handshake_does_not_tell_what_runs_here(quiet_server: Server, content: bytes) -> None:
    with opened(quiet_server) as connection, connection.makefile("rb") as answers:
        connection.sendall(content)
        head = b"".join(iter(answers.readline, b"\r\n")).lower()

    assert b"\r\nserver:" not in head
    assert b"python" not in head
    assert b"\r\nx-request-id: " in head


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
        (b"GET /health/live HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"GET /health/live HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", 200),
        (HANDSHAKE.replace(b"Host: x\r\n", b""), 400),
        (HANDSHAKE.replace(b"Host: x\r\n", b"Host: x\r\nHost: y\r\n"), 400),
    ],
)
def test_a_request_has_one_host(quiet_server: Server, head: bytes, status: int) -> None:
    with opened(quiet_server) as connection:
        connection.sendall(head)
        assert response_of(connection)[0] == status


def test_broken_requests_are_counted_and_have_an_id_and_few_lines_in_the_log(model_path: Path, tmp_path: Path) -> None:
    ids = set()
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path)) as server:
        for _ in range(200):
            with opened(server) as connection:
                connection.sendall(b"NONSENSE\r\n\r\n")
                ids.add(assert_refused_and_closed(connection, 400)["x-request-id"])
        refusals = refusals_of(server, 400)
        lines = [line for line in server.log.read_text().splitlines() if "refused" in line]

    assert len(ids) == refusals == 200
    assert any("400" in line and "127.0.0.1" in line and any(each in line for each in ids) for line in lines)
    assert len(lines) < 100


@pytest.mark.parametrize(
    "broken",
    [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\na:" + b"b" * 70_000, HANDSHAKE.replace(b": 13", b": 9")],
    ids=["nonsense", "long head", "handshake"],
)
def test_broken_requests_count_for_the_rate(model_path: Path, tmp_path: Path, broken: bytes) -> None:
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), RATE_LIMIT="5/minute") as server:
        statuses = []
        for content in [broken] * 6 + [LIVE]:
            with opened(server, source="127.0.0.2") as connection:
                connection.sendall(content)
                statuses.append(response_of(connection)[0])
        assert is_served(server)

    assert statuses == [statuses[0]] * 5 + [429, 429]
    assert statuses[0] in (400, 426, 431)


# --- memory


def test_trailers_beyond_the_bound_of_a_head_get_431(quiet_server: Server) -> None:
    with opened(quiet_server) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n" + b"a:b\r\n" * 20_000)
        assert_refused_and_closed(connection, 431)


def test_trailers_within_the_bound_are_read_and_are_no_headers(quiet_server: Server) -> None:
    body = b"%x\r\n%b\r\n0\r\nHX-Request: true\r\nContent-Encoding: br\r\n\r\n" % (len(SAMPLE), SAMPLE)
    with opened(quiet_server) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        status, _, content = response_of(connection)

    assert (status, json.loads(content)["label"]) == (200, "versicolor")


def test_an_endless_head_of_a_chunk_gets_431(quiet_server: Server) -> None:
    with opened(quiet_server) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 70_000)
        assert_refused_and_closed(connection, 431)


def test_requests_sent_ahead_and_answers_that_nobody_reads_take_little_memory(model_path: Path, tmp_path: Path) -> None:
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path)) as server, contextlib.ExitStack() as stack:
        before = memory_bytes(server)
        for _ in range(10):
            connection = stack.enter_context(opened(server))
            # A request that never ends keeps the others waiting: what is behind it was made into objects before.
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(b"GET /static/htmx-2.min.js HTTP/1.1\r\nHost: x\r\n\r\n" * 40_000)
        assert is_served(server)
        grown = memory_bytes(server) - before

    assert grown < 40 * MEBIBYTE


def test_requests_sent_ahead_are_answered_in_their_order(quiet_server: Server) -> None:
    with opened(quiet_server) as connection, connection.makefile("rb") as answers:
        for number in range(1_000):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-ID: %d\r\n\r\n" % number)
        content = b""
        while b"x-request-id: 999\r\n" not in content:
            content += answers.read1()

    assert re.findall(rb"x-request-id: ([0-9]+)", content) == [b"%d" % number for number in range(1_000)]


# --- fragments, pings and pongs


@pytest.mark.parametrize("frame", [b"\x00\x80", b"\x89\x80", b"\x8a\x80"])
def test_a_message_of_endless_pieces_without_content_closes_the_stream(hasty: Server, frame: bytes) -> None:
    with opened(hasty) as connection:
        connection.sendall(HANDSHAKE)
        with connection.makefile("rb") as answers:
            assert answers.readline().startswith(b"HTTP/1.1 101 ")
            connection.sendall(b"\x01\x80\0\0\0\0")  # the first fragment of a text
            drip(connection, (frame + b"\0\0\0\0") * 1_000)
            content = answers.read()
    assert content.endswith(struct.pack("!H", 1008) + b"the message came in too slowly")


def test_fragments_pings_and_pongs_count_for_the_rate(model_path: Path, tmp_path: Path) -> None:
    sources = {"127.0.0.2": b"\x00\x80", "127.0.0.3": b"\x89\x80", "127.0.0.4": b"\x8a\x80"}
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), RATE_LIMIT="50/minute") as server:
        for source, frame in sources.items():
            with opened(server, source=source) as connection, connection.makefile("rb") as answers:
                connection.sendall(HANDSHAKE)
                assert answers.readline().startswith(b"HTTP/1.1 101 ")
                connection.sendall(b"\x01\x80\0\0\0\0" + (frame + b"\0\0\0\0") * 60)
                content = answers.read()
            assert struct.pack("!H", 1013) + b"too many frames: try again in " in content, frame
            assert is_served(server)


def test_a_stream_of_pings_whose_pongs_nobody_reads_takes_little_memory(server: Server) -> None:
    ping = b"\x89\xfd" + b"\0\0\0\0" + b"x" * 125
    with opened(server) as connection:
        connection.sendall(HANDSHAKE)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 101 ")
        before = memory_bytes(server)
        connection.settimeout(2)
        with contextlib.suppress(TimeoutError):
            for _ in range(50):  # 65 MB, if they were all read
                connection.sendall(ping * 10_000)
        grown = memory_bytes(server) - before

    assert grown < 20 * MEBIBYTE


def test_a_message_in_fragments_is_answered_as_one(quiet_server: Server) -> None:
    with connect(quiet_server.stream_url) as stream:
        stream.recv()
        stream.send([SAMPLE.decode()[place : place + 1] for place in range(len(SAMPLE))])
        assert json.loads(stream.recv())["label"] == "versicolor"
        row = struct.pack("<4f", 5.6, 2.7, 4.2, 1.3)
        stream.send([row[place : place + 1] for place in range(len(row))])
        assert len(stream.recv()) == 12


# --- too many


def test_connections_and_streams_of_all_and_of_one_client_are_bounded(model_path: Path, tmp_path: Path) -> None:
    limits = {"MAX_CONNECTIONS": "6", "MAX_CONNECTIONS_PER_CLIENT": "4", "TRUSTED_PROXIES": "127.0.0.3"}
    limits["MODEL_FILE"] = str(model_path)
    with run_server(tmp_path / "log.txt", port=None, **limits) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(connect(server.stream_url)).recv()
            for _ in range(2):
                stack.enter_context(opened(server)).sendall(b"GET / HT")
            with opened(server) as fifth:
                fifth.sendall(LIVE)
                assert int(assert_refused_and_closed(fifth, 429)["retry-after"]) > 0
            with pytest.raises(InvalidStatus) as caught, connect(server.stream_url):
                pass
            assert caught.value.response.status_code == 429
            stack.enter_context(opened(server, source="127.0.0.3"))
            assert is_served(server, source="127.0.0.3"), "a proxy is not one client"
            stack.enter_context(opened(server, source="127.0.0.2")).sendall(b"G")
            with opened(server, source="127.0.0.2") as seventh:
                seventh.sendall(LIVE)
                assert int(assert_refused_and_closed(seventh, 503)["retry-after"]) > 0
        while not is_served(server):
            pass  # until the server has seen that they left

    assert "Traceback" not in server.log.read_text()


def test_bodies_of_all_clients_together_are_bounded(model_path: Path, tmp_path: Path) -> None:
    limits = {"MODEL_FILE": str(model_path), "MAX_PENDING_BYTES": str(4 * MEBIBYTE)}
    with (
        run_server(tmp_path / "log.txt", port=None, **limits) as server,
        contextlib.ExitStack() as stack,
    ):
        connections = [stack.enter_context(opened(server)) for _ in range(3)]
        for connection in connections:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % (3 * MEBIBYTE) + b" " * (2 * MEBIBYTE))
        answered, _, _ = select.select(connections, [], [], 20)
        status, headers, _ = response_of(answered[0])

        assert status == 503
        assert int(headers["retry-after"]) > 0
        assert is_served(server)


# --- the looks at connections


class Patient(DeadlineMixin):
    """A connection that takes down how much time each look says has gone by."""

    def __init__(self) -> None:
        self.transport = self
        self.elapsed_s: list[float] = []
        self.looked = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        raise AssertionError("it is not slow")

    def check_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        self.elapsed_s.append(elapsed_s)
        self.looked.set()


def test_clients_are_not_blamed_for_the_time_in_which_the_process_was_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, connections = Patient(), Connections(Settings(linger_s=0.1), Pending(0))
    connections.enter(connection, connection, "")

    async def held_up() -> None:
        loop = asyncio.get_running_loop()
        clock = loop.time
        watching = asyncio.create_task(connections.watch())
        await asyncio.sleep(0)
        monkeypatch.setattr(loop, "time", lambda: clock() + 3_600)  # the process stood still for an hour
        await connection.looked.wait()
        watching.cancel()

    asyncio.run(held_up())

    assert 0 < connection.elapsed_s[0] <= 2 * 0.1 / CHECKS_A_DEADLINE


# --- an attack


@pytest.mark.parametrize("kind", attack.ATTACKS)
def test_people_are_answered_during_an_attack(server: Server, model: LoadedModel, kind: str) -> None:
    query = "&".join(f"{feature.key}={feature.example}" for feature in model.features)
    measured = Measured(server.process, server.port, start_s=0.0)

    with attack.attacked(server.port, kind, 100):
        waits = attack.typed(measured, [query] * 100, seconds=0.5)

    assert waits.p99_ms > 0, (
        "every key had its answer, or else an exception ends this; how fast is asked by `make bench`"
    )
