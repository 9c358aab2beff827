"""Two replicas behind nginx, installed in two places: whichever answers, and when one is gone."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.datastructures import Headers
from websockets.sync.client import ClientConnection, connect

from ml.model.loaded import LoadedModel, load_model
from tests.conftest import ROOT, Server, put, run_procfile
from tests.tables import guarded
from tests.test_deploy import (
    EXAMPLE,
    FRAGMENT,
    JSON,
    JSON_BODY,
    Proxied,
    needs_nginx,
    proxy_in,
    recipe_settings,
    run_nginx,
)
from web.client.stream import Outcome, Prediction, Stream

pytestmark = needs_nginx

TOKEN = "the-token-of-all-replicas"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ROW = [float(text) for text in EXAMPLE.values()]
TIMEOUT_S = 30
CLIENTS = 4
ANSWERS = 40  # of each client, before a replica is gone and after
TAGGED = {
    "": {}, "index": {}, "docs": {}, "openapi.json": {}, "static/app.css": {}, "static/htmx-2.min.js": {},
    f"predict?{urlencode(EXAMPLE)}": JSON, f"predict?{urlencode(EXAMPLE | {'petal_width': '2'})}": FRAGMENT,
}  # fmt: skip


@dataclass(frozen=True)
class Replicas:
    proxy: Proxied
    servers: list[Server]
    model_path: Path

    def stream(self, path: str) -> Any:
        return connect(
            f"wss://127.0.0.1:{self.proxy.port}/iris/{path}", ssl=self.proxy.trusted, additional_headers=BEARER
        )


@pytest.fixture(scope="module")
def replicas(contents: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    model_path, copy = folder / "model.npz", folder / "elsewhere"
    model_path.write_bytes(contents[0])
    for name in ("web", "ml", "templates", "static"):
        shutil.copytree(ROOT / name, copy / name, copy_function=shutil.copyfile)  # so the times of files are others
    options = recipe_settings() | {"MODEL_FILE": str(model_path), "MODEL_CHECK_S": "0.1", "API_TOKEN": TOKEN}
    proxy = proxy_in(folder)
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(run_procfile(folder / f"{root.name}.txt", root=root, **options))
            for root in (ROOT, copy)
        ]
        stack.enter_context(run_nginx(folder, proxy, [server.port for server in servers]))
        yield Replicas(proxy, servers, model_path)
    for server in servers:
        assert "Traceback" not in server.log.read_text()


def replica_of(headers: HTTPMessage | Headers) -> str:
    """Return what the ids of all requests to one process have in common."""
    return headers["X-Request-ID"].partition("-")[0]


def test_pages_cookies_and_entity_tags_work_whichever_replica_answers(replicas: Replicas) -> None:
    proxy = replicas.proxy
    _, headers, _ = proxy.ask("/iris/")
    cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}

    for path, asked in TAGGED.items():
        status, first, _ = proxy.ask(f"/iris/{path}", cookie | asked)
        again, second, body = proxy.ask(f"/iris/{path}", cookie | asked | {"If-None-Match": first["ETag"]})

        assert (status, again, body) == (200, 304, b""), path
        assert replica_of(first) != replica_of(second), "nginx asks them in turn"
    assert proxy.ask(f"/iris/predict?{urlencode(EXAMPLE)}", JSON)[0] == 401


def test_streams_and_files_go_on_at_whichever_replica_answers(replicas: Replicas) -> None:
    model = load_model(replicas.model_path)
    table = f"{','.join(EXAMPLE)}\n".encode() + b"".join(b"5.%d,2.7,4.2,1.3\n" % number for number in range(99))
    scored, read, resume = b"", 0, ""
    seen: dict[str, set[str]] = {"stream": set(), "score": set()}

    for _ in range(2):
        with replicas.stream("stream") as stream:
            assert json.loads(stream.recv(TIMEOUT_S))["type"] == "model"
            stream.send(json.dumps({"sample": ROW}))
            answer = json.loads(stream.recv(TIMEOUT_S))
            seen["stream"].add(replica_of(stream.response.headers))
        assert tuple(answer["probabilities"].values()) == model.predict(ROW).probabilities
    for pieces in ([table[:1_000]], [table[1_000:], b""]):
        with replicas.stream("score") as stream:
            seen["score"].add(replica_of(stream.response.headers))
            if resume:
                stream.send(resume)
                pieces[0] = table[read:]
            for piece in pieces:
                stream.send(piece)
                rows, frame = answered(stream)
                scored += rows
            read, resume = frame["read"], frame["resume"]

    assert scored == guarded(model, table)
    assert (len(seen["stream"]), len(seen["score"])) == (2, 2), "nginx asks them in turn"


def answered(stream: ClientConnection) -> tuple[bytes, dict[str, Any]]:
    """Return the rows that answer a frame, and what is said about them."""
    rows = b""
    while True:
        message = stream.recv(TIMEOUT_S)
        if isinstance(message, bytes):
            rows += message
        elif (frame := json.loads(message))["type"] == "rows":
            return rows, frame


def test_both_replicas_take_a_replaced_file(replicas: Replicas, contents: list[bytes]) -> None:
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(connect(server.stream_url, additional_headers=BEARER)) for server in replicas.servers
        ]
        before = [json.loads(stream.recv(TIMEOUT_S))["model"]["version"] for stream in streams]
        put(contents[1], replicas.model_path)
        after = [json.loads(stream.recv(TIMEOUT_S))["model"]["version"] for stream in streams]

    versions = {replicas.proxy.ask("/iris/", BEARER)[1]["X-Model-Version"] for _ in range(2)}

    assert before[0] == before[1] != after[0]
    assert {*after} == versions == {load_model(replicas.model_path).version}


def test_a_replica_that_is_gone_under_load_takes_no_request_with_it(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(replicas.model_path.parent / "certificate.pem"))
    model = load_model(replicas.model_path)
    load = Load(replicas.proxy, model)
    rows = [[4 + number / 100, 2.7, 4.2, 1.3] for number in range(20_000)]
    lost: list[str] = []

    async def through_the_end_of_one() -> list[Outcome]:
        outcomes = []
        stream = Stream(replicas.proxy.url, token=TOKEN, on_lost=lambda reason, _delay_s: lost.append(reason))
        async with stream:
            async for outcome in stream.predict(rows):
                outcomes.append(outcome)
                if len(outcomes) == 1:
                    await asyncio.to_thread(load.wait, ANSWERS)
                    (victim,) = [server for server in replicas.servers if has_stream(server)]
                    victim.process.kill()
                    await asyncio.to_thread(load.wait, load.fewest + ANSWERS)
        return outcomes

    with load:
        outcomes = asyncio.run(through_the_end_of_one())

    assert load.wrong == []
    assert len(load.replicas) == 2
    assert len(lost) == 1
    probabilities = [(*outcome.probabilities.values(),) for outcome in outcomes if isinstance(outcome, Prediction)]
    assert probabilities == [model.predict(row).probabilities for row in rows]


def has_stream(server: Server) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers=BEARER)
        return b"\nstream_sockets 1.0\n" in connection.getresponse().read()


class Load:
    """Clients that ask again and again, by GET and by POST, on connections that are kept.

    Attributes:
        wrong: the answers that are not what they should be.
        replicas: which have answered.
    """

    def __init__(self, proxy: Proxied, model: LoadedModel) -> None:
        self.wrong: list[object] = []
        self.replicas: set[str] = set()
        self._proxy = proxy
        self._expected = model.predict(ROW).probabilities
        self._counts = [0] * CLIENTS
        self._changed = threading.Condition()
        self._is_over = False
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_error: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    @property
    def fewest(self) -> int:
        return min(self._counts)

    def wait(self, count: int) -> None:
        """Wait until each client has had so many answers."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.wrong or self.fewest >= count, TIMEOUT_S)

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._proxy.port, timeout=TIMEOUT_S, context=self._proxy.trusted
        )
        requests = itertools.cycle(
            [
                ("GET", f"/iris/predict?{urlencode(EXAMPLE)}", None, BEARER | JSON),
                ("POST", "/iris/predict", json.dumps({"sample": ROW}), BEARER | JSON_BODY),
            ]
        )
        with contextlib.closing(connection):
            for method, path, body, headers in requests:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                content = response.read()
                with self._changed:
                    if response.status != 200:
                        self.wrong.append((method, response.status, content))
                    else:
                        assert tuple(json.loads(content)["probabilities"].values()) == self._expected
                        self.replicas.add(replica_of(response.headers))
                    self._counts[number] += 1
                    self._changed.notify_all()
                if self._is_over:
                    return
