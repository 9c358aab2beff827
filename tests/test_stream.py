"""The websocket channel: in process for what it says, on a real server for what a network and its strangers do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ml.model.loaded import LoadedModel, load_model
from tests.conftest import MEBIBYTE, Server, assert_quiet, for_each, memory_bytes, open_stream, run_server
from web.app import create_app
from web.settings import Settings

ROW = [5.6, 2.7, 4.2, 1.3]
EXAMPLE = {"sepal_length": 5.6, "sepal_width": 2.7, "petal_length": 4.2, "petal_width": 1.3}
SAMPLE = '{"sample":[5.6,2.7,4.2,1.3]}'
IDS = ["1", "-1.50", "1e3", '"a"', '"\\u00e9\\n"', '"é😀"', "null", "true", "[1, {}]", '{"a" : [1,2]}', "9" * 400, '""']
WRONG_FRAMES = [
    ("", 400), ("x", 400), ("{", 400), ("\ufeff{}", 400), ('{"id": 5, "sample": [NaN, 1, 1, 1]}', 400),
    ("[" * 100_000, 422), ('{"id": 5, "sample": ' + "[" * 100_000 + "]" * 100_000 + "}", 400),
    ("[]", 422), ("1", 422), ("null", 422), ('"x"', 422), ("{}", 422), ('{"id": 5}', 422),
    ('{"id": 5, "sampel": []}', 422),
    ('{"id": 5, "sample": null}', 422), ('{"id": 5, "sample": 1}', 422), ('{"id": 5, "sample": "x"}', 422),
    ('{"id": 5, "samples": 1}', 422), ('{"id": 5, "samples": null}', 422), ('{"id": 5, "samples": [1]}', 422),
    ('{"id": 5, "sample": [], "samples": []}', 422), ('{"id": 5, "sample": []}', 422), ('{"id": 5, "sample": {}}', 422),
    ('{"id": 5, "sample": [1, 1, 1, 1, 1]}', 422), ('{"id": 5, "sample": [1e999, 1, 1, 1]}', 422),
    ('{"id": 5, "sample": [1' + "0" * 400 + ", 1, 1, 1]}", 422), ('{"id": 5, "samples": [[1, 1, 1, "x"]]}', 422),
    ('{"id": 5, "sample": [1, 1, 1, 1], "sample": [1, 1, 1, 2]}', 422),
    ('{"id": 5, "sample": [1, 1, 1, 1], "s\\u0061mple": [1, 1, 1, 2]}', 422),
    ('{"id": 5, "samples": "x", "samples": [["1", "\\"", 1, 2]]}', 422),
    ('{"id": 5, "samples": [], "samples": []}', 422),
    ('{"id": 5, "samples": [' + ",".join(["1"] * 10_001) + "]}", 413),
]  # fmt: skip


def ask(websocket: Any, frame: str) -> Any:
    websocket.send_text(frame)
    return websocket.receive_json()


def prediction_of(model: LoadedModel, row: list[float]) -> dict[str, Any]:
    prediction = model.predict(row)
    probabilities = dict(zip(model.labels, prediction.probabilities, strict=True))
    answer = {"type": "prediction", "label": prediction.label, "probabilities": probabilities, "version": model.version}
    notes = model.validator.notes(row)
    return answer | ({"notes": [msgspec.to_builtins(note) for note in notes]} if notes else {})


# --- what it says


def test_the_model_is_announced_first(client: TestClient, model: LoadedModel) -> None:
    with client.websocket_connect("/stream") as websocket:
        announcement = websocket.receive_json()

    assert announcement["type"] == "model"
    assert announcement["model"]["name"] == "iris"
    assert announcement["model"]["version"] == model.version
    assert announcement["model"]["labels"] == list(model.labels)
    assert [feature["key"] for feature in announcement["model"]["features"]] == list(EXAMPLE)
    assert announcement["limits"] == {"max_frame_bytes": MEBIBYTE, "max_samples": 10_000}


@pytest.mark.parametrize("sample", [EXAMPLE, ROW, [str(value).replace(".", ",") for value in ROW]])
def test_a_sample_is_answered(client: TestClient, model: LoadedModel, sample: object) -> None:
    with open_stream(client) as websocket:
        reply = ask(websocket, json.dumps({"id": 1, "sample": sample}))

    assert reply == prediction_of(model, ROW) | {"id": 1}


def test_samples_are_answered_by_label(client: TestClient, model: LoadedModel) -> None:
    rows = [ROW, [5.1, 3.5, 1.4, 0.2], [6.0, 2.8, 5.0, 1.65]]

    with open_stream(client) as websocket:
        reply = ask(websocket, json.dumps({"id": "b", "samples": [EXAMPLE, *rows[1:]]}))

    predictions = [model.predict(row) for row in rows]
    assert reply == {
        "type": "predictions",
        "id": "b",
        "labels": [prediction.label for prediction in predictions],
        "probabilities": {
            label: [prediction.probabilities[index] for prediction in predictions]
            for index, label in enumerate(model.labels)
        },
        "version": model.version,
    }


@pytest.mark.parametrize(
    "frame",
    [
        '{"id": "\\"sample\\"", "sample": [5.6, 2.7, 4.2, 1.3]}',
        '{"id": {"id": "samples"}, "sample": {"sepal_length": "5.6", "sepal_width": 2.7, "petal_length": 4.2, '
        '"petal\\u005fwidth": 1.3}}',
        '{"id": ["sample", "sample"], "samples": [["5.6", "2.7", "4.2", "1.3"]]}',
    ],
)
def test_a_member_in_an_id_or_a_sample_is_none_of_the_frame(client: TestClient, frame: str) -> None:
    with open_stream(client) as websocket:
        assert ask(websocket, frame)["type"].startswith("prediction")


def test_values_outside_the_training_range_are_noted(client: TestClient, model: LoadedModel) -> None:
    outside = [9.5, 2.7, 4.2, 9.0]
    notes = [msgspec.to_builtins(note) for note in model.validator.notes(outside)]

    with open_stream(client) as websocket:
        one = ask(websocket, json.dumps({"id": 1, "sample": outside}))
        many = ask(websocket, json.dumps({"id": 2, "samples": [ROW, outside, ROW, [9.5, *ROW[1:]]]}))

    assert one == prediction_of(model, outside) | {"id": 1}
    assert one["notes"] == notes
    assert [note["feature"] for note in notes] == ["sepal_length", "petal_width"]
    assert many["notes"] == [notes[0] | {"samples": [1, 3]}, notes[1] | {"samples": [1]}]


@for_each("encoded", IDS)
@for_each("rest", ['"sample": [1, 1, 1, 1]', '"samples": [[1, 1, 1, 1]]', '"sample": [1]', '"samples": 1'])
def test_an_id_is_echoed_byte_for_byte(client: TestClient, encoded: str, rest: str) -> None:
    with open_stream(client) as websocket:
        websocket.send_text(f'{{{rest}, "id": {encoded}}}')
        reply = websocket.receive_text()

    assert f'"id":{encoded},' in reply
    assert json.loads(reply)["id"] == json.loads(encoded)


@pytest.mark.parametrize("frame", [SAMPLE, '{"samples": [[1, 1, 1, 1]]}', '{"sample": []}', "x"])
def test_a_frame_without_an_id_gets_a_reply_without_one(client: TestClient, frame: str) -> None:
    with open_stream(client) as websocket:
        assert "id" not in ask(websocket, frame)


@for_each(("frame", "status"), WRONG_FRAMES)
def test_a_wrong_frame_is_told_so_and_the_connection_stays(client: TestClient, frame: str, status: int) -> None:
    with open_stream(client) as websocket:
        reply = ask(websocket, frame)
        after = ask(websocket, SAMPLE)

    assert reply["type"] == "error"
    assert reply["error"]["status"] == status
    assert reply["error"]["title"]
    assert reply["error"]["detail"]
    if frame.startswith('{"id": 5') and "NaN" not in frame and "[[[[" not in frame:
        assert reply["id"] == 5
    assert after["label"] == "versicolor"


def test_the_errors_of_a_sample_name_its_features(client: TestClient) -> None:
    with open_stream(client) as websocket:
        reply = ask(
            websocket, '{"sample": {"sepal_length": "x", "sepal_width": -1, "petal_length": 1e39, "colour": 1}}'
        )

    assert [(error["feature"], error["code"]) for error in reply["error"]["errors"]] == [
        ("sepal_length", "not_a_number"), ("sepal_width", "out_of_bounds"), ("petal_length", "not_finite"),
        ("petal_width", "missing"), ("colour", "unknown_feature"),
    ]  # fmt: skip


def test_the_errors_of_samples_name_their_index_and_are_bounded(client: TestClient) -> None:
    with open_stream(client) as websocket:
        few = ask(websocket, '{"samples": [[1, 1, 1, 1], [1, 1, 1, "x"], [1, 1, 1, 1], [1, 1, -1, 1]]}')
        many = ask(websocket, json.dumps({"samples": [["x"] * 4] * 5_000}))

    assert [(error["sample"], error["feature"]) for error in few["error"]["errors"]] == [
        (1, "petal_width"), (3, "petal_length"),
    ]  # fmt: skip
    assert len(many["error"]["errors"]) == 100


def test_ten_thousand_samples_are_answered_and_one_more_is_not(client: TestClient) -> None:
    with open_stream(client) as websocket:
        answered = ask(websocket, json.dumps({"samples": [ROW] * 10_000}))
        refused = ask(websocket, json.dumps({"samples": [ROW] * 10_001}))

    assert answered["labels"] == ["versicolor"] * 10_000
    assert refused["error"]["status"] == 413


def ask_binary(websocket: Any, rows: Any) -> Any:
    websocket.send_bytes(np.asarray(rows, dtype="<f4").tobytes())
    return np.frombuffer(websocket.receive_bytes(), dtype="<f4").reshape(-1, 3)


def test_a_binary_frame_is_answered_row_by_row(client: TestClient, model: LoadedModel) -> None:
    rows = np.random.default_rng(0).uniform(0, 8, (4_096, 4)).astype("<f4")

    with open_stream(client) as websocket:
        replies = ask_binary(websocket, rows)

    assert np.array_equal(replies, model.predict_batch(rows).outputs.astype("<f4"))


def test_a_binary_row_that_has_no_answer_gets_nan_and_the_others_their_answers(
    client: TestClient, model: LoadedModel
) -> None:
    bad = [[np.nan, 1, 1, 1], [1, np.inf, 1, 1], [1, 1, -np.inf, 1], [1, 1, 1, -0.1], [np.nan] * 4, [-1e-45, 1, 1, 1]]
    good = [ROW, [0.0, -0.0, 0.0, 0.0], [3.4028234e38] * 4]
    rows = np.array([row for pair in zip(bad, good * 2, strict=True) for row in pair], dtype="<f4")

    with open_stream(client) as websocket:
        replies = ask_binary(websocket, rows)

    assert np.isnan(replies[::2]).all()
    assert np.array_equal(replies[1::2], model.predict_batch(rows[1::2]).outputs.astype("<f4"))


def test_an_empty_binary_frame_is_answered_with_one(client: TestClient) -> None:
    with open_stream(client) as websocket:
        assert ask_binary(websocket, np.empty((0, 4))).shape == (0, 3)


@pytest.mark.parametrize("size", [1, 4, 15, 17, 1_000_001])
def test_a_binary_frame_of_another_size_is_told_so_and_the_connection_stays(client: TestClient, size: int) -> None:
    with open_stream(client) as websocket:
        websocket.send_bytes(b"x" * size)
        reply = websocket.receive_json()
        after = ask_binary(websocket, [ROW])

    assert reply["type"] == "error"
    assert reply["error"]["status"] == 422
    assert "16 bytes" in reply["error"]["detail"]
    assert after.shape == (1, 3)


@for_each(
    "text",
    [
        SAMPLE,
        '{"id": 5, "sample": [5.6, 2.7, 4.2, 1.3]}',
        '{"id": 5, "samples": [[5.6, 2.7, NaN, -Infinity]]}',
        "[[5.6, 2.7, 4.2, 1.3], [5.1, 3.5, 1.4, 0.2]]",
        '\n{"id": 5, "é": "😀"}\r\n',
        "[]",
        "[" * 100_000 + "]" * 100_000,
        '{"id": 1, "sample": [5.6, 2.7, 4.2, 1.3]}\n{"id": 2, "sample": [5.1, 3.5, 1.4, 0.2]}\n',
        "\ufeff" + SAMPLE,
    ],
)
@for_each("is_padded", [True, False])
def test_json_in_a_binary_frame_is_never_taken_for_numbers(client: TestClient, text: str, is_padded: bool) -> None:
    content = text.encode()
    with open_stream(client) as websocket:
        websocket.send_bytes(content + b" " * (-len(content) % 16 if is_padded else 0))
        reply = websocket.receive_json()
        after = ask_binary(websocket, [ROW])

    assert reply["type"] == "error"
    assert reply["error"]["status"] == 415
    assert reply["error"]["detail"] == "this is JSON in a binary frame: send it as a text frame"
    assert ("id" in reply) == ('"id": 5' in text and "NaN" not in text)
    assert after.shape == (1, 3)


def test_numbers_whose_bytes_look_like_brackets_are_numbers(client: TestClient, model: LoadedModel) -> None:
    chance = np.random.default_rng(0)
    rows = chance.uniform(0, 8, (20_000, 4)).astype("<f4")
    rows.view(np.uint8)[:, 0] = np.frombuffer(b"[{ \n", np.uint8)[chance.integers(0, 4, len(rows))]
    rows[:100, 3] = np.frombuffer(b"x,1]", "<f4")[0]

    with open_stream(client) as websocket:
        replies = [ask_binary(websocket, [row]) for row in rows[:200]]
        all_at_once = ask_binary(websocket, rows)

    wanted = model.predict_batch(rows).outputs.astype("<f4")
    assert np.array_equal(np.concatenate(replies), wanted[:200], equal_nan=True)
    assert np.array_equal(all_at_once, wanted, equal_nan=True)


@pytest.mark.parametrize("rest", ['"sample": [1, 1, 1, 1]', '"samples": [[1, 1, 1, 1]]'])
def test_an_unknown_member_of_a_frame_is_an_error_that_names_it(client: TestClient, rest: str) -> None:
    with open_stream(client) as websocket:
        reply = ask(websocket, f'{{{rest}, "explian": true, "id": [7]}}')
        long = ask(websocket, f'{{"id": 8, {rest}, "{"x" * 100_000}": true}}')

    assert (reply["type"], reply["id"], reply["error"]["status"]) == ("error", [7], 422)
    assert "`explian`" in reply["error"]["detail"]
    assert long["id"] == 8
    assert len(long["error"]["detail"]) < 300


ORIGINS = [
    ("http://testserver", True), ("https://testserver", True), ("https://allowed.example", True),
    ("https://stranger.example", False), ("http://testserver.stranger.example", False),
    ("http://stranger/testserver", False),
    ("http://testserver:81", False), ("http://x@testserver", False), ("https://allowed.example:8443", False),
    ("http://allowed.example", False), ("null", False), ("", False), ("testserver", False), ("file://", False),
    ("//", False), ("http://testserver, http://stranger.example", False),
    ("http://[", False),
]  # fmt: skip


def test_pages_of_strangers_are_refused_at_the_handshake(model_path: Path) -> None:
    settings = Settings(model_file=model_path, allowed_origins=("https://allowed.example",))
    seen = []
    with TestClient(create_app(settings)) as client:
        for origin, _ in ORIGINS:
            stream = client.websocket_connect("/stream", headers={"Origin": origin})
            with contextlib.suppress(WebSocketDisconnect), stream as websocket:
                assert websocket.receive_json()["type"] == "model"
                seen.append(origin)

    assert seen == [origin for origin, allowed in ORIGINS if allowed]


def other_model(model_path: Path) -> LoadedModel:
    """Return the same model under another name: enough to tell whose answer it is."""
    other = load_model(model_path)
    other.version = "0123456789ab"
    return other


def test_after_the_model_was_replaced_the_new_one_answers(model_path: Path) -> None:
    app = create_app(Settings(model_file=model_path))
    with TestClient(app) as client, open_stream(client) as websocket:
        before = ask(websocket, SAMPLE)
        app.service.model = other_model(model_path)
        websocket.send_text(SAMPLE)
        replies = [websocket.receive_json()]
        if replies[0]["type"] == "model":
            replies.append(websocket.receive_json())

    assert before["version"] != replies[-1]["version"] == "0123456789ab"


def test_a_replaced_model_is_announced_before_its_first_answer(model_path: Path) -> None:
    app = create_app(Settings(model_file=model_path))
    with TestClient(app) as client, open_stream(client) as websocket:
        app.service.model = other_model(model_path)
        announcement = ask(websocket, SAMPLE)
        assert announcement["type"] == "model"
        assert announcement["model"]["version"] == "0123456789ab"
        assert websocket.receive_json()["version"] == "0123456789ab"


async def turns_of(app: Starlette, frames: list[str | bytes]) -> list[int]:
    """Return, for each reply to frames that have all arrived at once, how many turns others had had by then."""
    turns = 0
    seen: list[int] = []
    messages: list[dict[str, Any]] = [{"type": "websocket.connect"}]
    messages += [{"type": "websocket.receive", "text" if isinstance(f, str) else "bytes": f} for f in frames]
    messages.append({"type": "websocket.disconnect", "code": 1000})

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            seen.append(turns)

    scope = {
        "type": "websocket",
        "path": "/stream",
        "root_path": "",
        "headers": [(b"host", b"x")],
        "query_string": b"",
        "subprotocols": [],
    }
    async with app.router.lifespan_context(app):
        counting = asyncio.create_task(count())
        await app(scope, receive, send)
        counting.cancel()
    return seen[1:]  # the first frame is the announcement


def test_others_have_a_turn_among_many_small_frames(model_path: Path) -> None:
    app = create_app(Settings(model_file=model_path))

    turns = asyncio.run(turns_of(app, [SAMPLE] * 5_000))

    assert len(turns) == 5_000
    # A sample takes some 10 us here: 500 of them without a turn would keep a keystroke waiting for 5 ms.
    assert max(turns.count(turn) for turn in set(turns)) <= 500


@pytest.mark.slow
@pytest.mark.parametrize(
    "frame",
    [
        json.dumps({"samples": [ROW] * 10_000}),
        json.dumps({"samples": [ROW] * 1_000}),
    ],
    ids=["10,000 samples", "1,000 samples"],
)
def test_others_have_a_turn_among_large_frames(model_path: Path, frame: str) -> None:
    app = create_app(Settings(model_file=model_path))

    turns = asyncio.run(turns_of(app, [frame] * 20))

    # The queue of a connection holds what arrived in one piece, up to 256 KiB: a dozen batches of 1,000, each 4 ms.
    assert max(turns.count(turn) for turn in set(turns)) <= 3


# --- on a real server


class RawClient:
    """A websocket client that sends whatever bytes it is told to."""

    HANDSHAKE = (
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
    )

    def __init__(self, server: Server, *, path: str = "/stream", more: str = "", receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", server.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(self.HANDSHAKE.format(path=path, key=key, more=more).encode())
        self._received = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def accepted(self) -> RawClient:
        """Take the answer to the handshake and the announcement."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert json.loads(self.frame()[1])["type"] == "model"
        return self

    def send(self, content: bytes) -> RawClient:
        self.socket.sendall(content)
        return self

    def _receive(self) -> None:
        content = self.socket.recv(2**18)
        if not content:
            raise ConnectionError("the server closed the connection")
        self._received += content

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def frame(self) -> tuple[int, bytes]:
        """Return the opcode and the content of the next frame."""
        first, length = self._take(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 15, self._take(length)

    def close_code(self) -> int:
        """Return the code of the server's close frame, after which it closes the connection."""
        while (frame := self.frame())[0] != 8:
            pass
        with contextlib.suppress(ConnectionError):
            while True:
                self._receive()
        return int(struct.unpack("!H", frame[1][:2])[0])

    def reset(self) -> None:
        """Vanish: the connection is reset, as when a machine crashes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def encoded(opcode: int, content: bytes = b"", *, end: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """Return a client's frame, masked with zeros."""
    head = bytes([end << 7 | reserved << 4 | opcode])
    mask = 128 if masked else 0
    if len(content) < 126:
        head += bytes([mask | len(content)])
    elif len(content) < 2**16:
        head += struct.pack("!BH", mask | 126, len(content))
    else:
        head += struct.pack("!BQ", mask | 127, len(content))
    return head + (b"\0\0\0\0" if masked else b"") + content


def is_served(server: Server) -> bool:
    """Tell whether a new client is answered."""
    with opened_stream(server) as websocket:
        websocket.send(SAMPLE)
        return bool(json.loads(websocket.recv())["label"] == "versicolor")


@contextlib.contextmanager
def opened_stream(server: Server, **options: Any) -> Iterator[ClientConnection]:
    with connect(server.stream_url, compression=None, **options) as websocket:
        assert json.loads(websocket.recv())["type"] == "model"
        yield websocket


def test_thousands_of_mixed_frames_are_answered_in_their_order(quiet_server: Server, model: LoadedModel) -> None:
    rows = np.random.default_rng(1).uniform(0, 8, (3_000, 4)).astype("<f4")
    frames: list[str | bytes] = []
    for index, row in enumerate(rows):
        kind = index % 5
        values = row.astype(float).tolist()
        frames.append(
            row.tobytes() if kind == 0
            else json.dumps({"id": index, "samples": [values] * (index % 7)}) if kind == 1
            else json.dumps({"id": index, "sample": ["x", 1, 1, 1]}) if kind == 2
            else json.dumps({"id": index, "sample": values})
        )  # fmt: skip
    probabilities = model.predict_batch(rows).outputs.astype("<f4")

    async def run() -> list[str | bytes]:
        async with connect_async(quiet_server.stream_url, compression=None) as websocket:
            await websocket.recv()

            async def send() -> None:
                for frame in frames:
                    await websocket.send(frame)

            sending = asyncio.create_task(send())
            replies = [await websocket.recv() for _ in frames]
            await sending
            return replies

    replies = asyncio.run(run())

    for index, reply in enumerate(replies):
        if isinstance(reply, bytes):
            assert index % 5 == 0
            assert np.array_equal(np.frombuffer(reply, "<f4"), probabilities[index])
        else:
            decoded = json.loads(reply)
            assert decoded["id"] == index
            assert decoded["type"] == ["", "predictions", "error", "prediction", "prediction"][index % 5]


def test_a_frame_at_the_limit_is_answered_and_one_over_it_closes(quiet_server: Server) -> None:
    with opened_stream(quiet_server) as websocket:
        websocket.send(" " * (MEBIBYTE - len(SAMPLE)) + SAMPLE)
        assert json.loads(websocket.recv())["label"] == "versicolor"
        websocket.send(bytes(MEBIBYTE))
        assert len(websocket.recv()) == MEBIBYTE // 16 * 12
        websocket.send(" " * (MEBIBYTE + 1 - len(SAMPLE)) + SAMPLE)
        with pytest.raises(ConnectionClosedError) as caught:
            websocket.recv()

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009
    assert is_served(quiet_server)


def test_many_clients_are_each_answered(quiet_server: Server, model: LoadedModel) -> None:
    async def client(number: int) -> None:
        async with connect_async(quiet_server.stream_url, compression=None) as websocket:
            await websocket.recv()
            for step in range(10):
                row = [number / 20, 3.0, step / 2, step / 4]
                await websocket.send(json.dumps({"id": [number, step], "sample": row}))
                assert json.loads(await websocket.recv()) == prediction_of(model, row) | {"id": [number, step]}

    async def run() -> None:
        await asyncio.gather(*(client(number) for number in range(150)))

    asyncio.run(run())


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:{port}", "https://allowed.example"])
def test_programs_and_pages_of_ours_are_let_in(quiet_server: Server, origin: str | None) -> None:
    origin = origin and origin.format(port=quiet_server.port)
    with opened_stream(quiet_server, origin=origin) as websocket:
        websocket.send(SAMPLE)
        assert json.loads(websocket.recv())["label"] == "versicolor"


@pytest.mark.parametrize("origin", ["https://stranger.example", "http://127.0.0.1:1", "null"])
def test_pages_of_strangers_get_403(quiet_server: Server, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught, opened_stream(quiet_server, origin=origin):
        pass

    assert caught.value.response.status_code == 403


def test_a_client_that_asks_for_compression_is_served_without(quiet_server: Server) -> None:
    with connect(quiet_server.stream_url, compression="deflate") as websocket:
        assert websocket.protocol.extensions == []
        assert json.loads(websocket.recv())["type"] == "model"


HOSTILE = {
    "an unmasked frame": (encoded(TEXT, SAMPLE.encode(), masked=False), 1002),
    "a reserved bit": (encoded(TEXT, SAMPLE.encode(), reserved=4), 1002),
    "an unknown opcode": (encoded(3, SAMPLE.encode()), 1002),
    "a continuation of nothing": (encoded(0, SAMPLE.encode()), 1002),
    "a message within a message": (encoded(TEXT, b"{", end=False) + encoded(TEXT, b"}"), 1002),
    "a long ping": (encoded(PING, b"x" * 126), 1002),
    "a ping in pieces": (encoded(PING, b"x", end=False), 1002),
    "a close of one byte": (encoded(CLOSE, b"x"), 1002),
    "a close with a reserved code": (encoded(CLOSE, struct.pack("!H", 1005)), 1002),
    "a declared terabyte": (struct.pack("!BBQ", 0x81, 0xFF, 2**40) + b"\0\0\0\0", 1009),
    "a declared negative length": (struct.pack("!BBQ", 0x82, 0xFF, 2**64 - 1) + b"\0\0\0\0", 1009),
    "pieces over the limit": (encoded(TEXT, b" " * 2**19, end=False) + encoded(0, b" " * 2**19 + b" "), 1009),
    "good frames, then a bad one": (encoded(TEXT, SAMPLE.encode()) * 50 + encoded(3), 1002),
    "a goodbye": (encoded(CLOSE, struct.pack("!H", 1000)), 1000),
    "a goodbye without a word": (encoded(CLOSE), 1005),
    "good frames, then a goodbye": (encoded(TEXT, SAMPLE.encode()) * 50 + encoded(CLOSE, b"\x03\xe9"), 1001),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_get_a_documented_close_and_the_server_lives_on(quiet_server: Server, name: str) -> None:
    content, code = HOSTILE[name]
    with RawClient(quiet_server) as hostile:
        hostile.accepted().send(content)
        if code == 1005:
            assert hostile.frame() == (CLOSE, b"")
        else:
            assert hostile.close_code() == code

    assert is_served(quiet_server)


@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize(
    "content", [b"\xff", b'{"sample":["\xc3\x28"]}', b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc3"]
)
def test_text_that_is_not_utf_8_closes_with_1007(quiet_server: Server, content: bytes, before: int) -> None:
    with RawClient(quiet_server) as hostile:
        hostile.accepted().send(encoded(TEXT, SAMPLE.encode()) * before + encoded(TEXT, content))
        assert hostile.close_code() == 1007

    assert is_served(quiet_server)


def test_a_message_in_pieces_with_a_ping_between_them_is_one_message(quiet_server: Server) -> None:
    pieces = encoded(TEXT, SAMPLE[:7].encode(), end=False) + encoded(PING, b"still there?")
    pieces += encoded(0, b"", end=False) + encoded(0, SAMPLE[7:].encode()) + encoded(PONG, b"unasked")
    with RawClient(quiet_server) as client:
        client.accepted().send(pieces)

        assert client.frame() == (PONG, b"still there?")
        opcode, content = client.frame()

    assert opcode == TEXT
    assert json.loads(content)["label"] == "versicolor"


@pytest.mark.parametrize("size", [1, 3, 7])
def test_bytes_that_come_one_by_one_are_frames_all_the_same(quiet_server: Server, size: int) -> None:
    content = encoded(TEXT, SAMPLE.encode())
    with RawClient(quiet_server) as client:
        client.accepted().socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(content), size):
            client.send(content[start : start + size])

        assert json.loads(client.frame()[1])["label"] == "versicolor"


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/stream", "Sec-WebSocket-Key: zz\r\n", 400), ("/nothing", "", 404), ("/str%C3%A9am", "", 404),
        ("/stream", "Origin: https://stranger.example\r\n", 403), ("/stream", "X: \x01\r\n", 400),
        ("/stream", "Origin: http://[\r\n", 403),
    ],
)  # fmt: skip
def test_a_handshake_that_is_wrong_is_refused(quiet_server: Server, path: str, more: str, status: int) -> None:
    with RawClient(quiet_server, path=path, more=more) as client:
        assert client.socket.recv(2**16).startswith(f"HTTP/1.1 {status} ".encode())

    assert is_served(quiet_server)


@pytest.mark.parametrize("more", ["X: " + "y" * 9_000 + "\r\n", "".join(f"X{i}: y\r\n" for i in range(200))], ids=len)
def test_a_handshake_that_is_too_long_is_refused(quiet_server: Server, more: str) -> None:
    with RawClient(quiet_server, more=more) as client:
        client.socket.settimeout(1)
        assert client.socket.recv(2**16).startswith(b"HTTP/1.1 4")


BATCH = encoded(TEXT, json.dumps({"samples": [ROW] * 5_000}).encode())


@pytest.mark.parametrize("content", [b"", encoded(TEXT, SAMPLE.encode()) * 3_000, BATCH * 3, BATCH[:-100], b"\x81"])
def test_a_client_that_vanishes_leaves_nothing_behind(quiet_server: Server, content: bytes) -> None:
    # That the log stays quiet is asserted when the module's server ends.
    descriptors = len(os.listdir(f"/proc/{quiet_server.process.pid}/fd"))
    for answered in (False, True):
        for _ in range(10):
            client = RawClient(quiet_server).accepted().send(content)
            if answered and content.endswith(BATCH) | content.endswith(SAMPLE.encode()):
                client.frame()
            client.reset()

    assert is_served(quiet_server)
    assert len(os.listdir(f"/proc/{quiet_server.process.pid}/fd")) <= descriptors + 2


def test_nothing_is_explained_to_clients_that_have_left(quiet_server: Server) -> None:
    def metrics() -> str:
        return httpx.get(f"{quiet_server.url}/metrics").text

    content = json.dumps({"samples": [ROW] * 10_000, "explain": True}).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    before = quiet_server.processor_s()
    address = ("127.0.0.1", quiet_server.port)
    with RawClient(quiet_server).accepted() as stream, socket.create_connection(address) as posting:
        stream.send(encoded(TEXT, content))
        posting.sendall(head.encode() + content)
        while quiet_server.processor_s() < before + 0.2:
            os.sched_yield()

    while (
        'requests_total{route="/predict",status="400"}' not in (text := metrics()) or "stream_sockets 0.0" not in text
    ):
        assert quiet_server.processor_s() < before + 1.2, "all of the work takes more than two seconds"


def send_until_blocked(client: RawClient, content: bytes, *, most: int) -> int:
    """Send `content` over and over until the other side has not read for half a second; return the bytes sent."""
    client.socket.setblocking(False)
    sent = 0
    while sent < most and select.select([], [client.socket], [], 0.5)[1]:
        position = sent % len(content)
        sent += client.socket.send(content[position : position + 2**16])
    return sent


def test_a_client_that_never_reads_is_not_read_from_and_memory_stays_flat(quiet_server: Server) -> None:
    before = memory_bytes(quiet_server)
    most = 100 * MEBIBYTE
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(RawClient(quiet_server, receive_buffer=4_096)).accepted()
            sent = send_until_blocked(client, BATCH, most=most)
            assert sent < most, "it was read from all the time"
            assert is_served(quiet_server)
        grown = memory_bytes(quiet_server) - before

    # A chunk of 256 KiB in the queue, its reply in the buffer, and what the allocator keeps: not what was sent.
    assert grown < 24 * MEBIBYTE


def test_a_flood_of_small_frames_does_not_starve_another_client(quiet_server: Server) -> None:
    frames = 60_000
    reply_bytes = 0
    done = threading.Event()
    with opened_stream(quiet_server) as other, RawClient(quiet_server) as flooding:
        flooding.accepted().send(encoded(TEXT, SAMPLE.encode()))
        size = len(flooding.frame()[1]) + 4
        flood = threading.Thread(target=flooding.send, args=[encoded(TEXT, SAMPLE.encode()) * frames])

        def read() -> None:
            nonlocal reply_bytes
            while reply_bytes < frames * size:
                reply_bytes += len(flooding.socket.recv(2**16))
            done.set()

        reader = threading.Thread(target=read)
        flood.start()
        reader.start()
        answered = 0
        while not done.is_set():
            other.send(SAMPLE)
            other.recv()
            answered += not done.is_set()
        flood.join()
        reader.join()

    # One at a time, each waits for at most a chunk of the flood, some 7,500 frames; alone, it would be thousands.
    assert answered >= frames // 7_500
    assert reply_bytes == frames * size


def test_large_batches_on_one_connection_do_not_starve_another(quiet_server: Server) -> None:
    batch = encoded(TEXT, json.dumps({"samples": [ROW] * 10_000}).encode())
    batches = 15
    answered_before: list[int] = []
    with opened_stream(quiet_server) as other, RawClient(quiet_server) as busy:
        sending = threading.Thread(target=busy.accepted().send, args=[batch * batches])
        sending.start()
        finished = threading.Event()
        answered = 0

        def read() -> None:
            for _ in range(batches):
                assert busy.frame()[0] == TEXT
                answered_before.append(answered)
            finished.set()

        reader = threading.Thread(target=read)
        reader.start()
        while not finished.is_set():
            other.send(SAMPLE)
            other.recv()
            answered += 1
        sending.join()
        reader.join()

    # Of ten slices of each batch, another client gets at least one turn a batch, all over the run.
    assert answered_before[-1] >= batches
    assert len(set(answered_before)) > batches // 2


def test_shutdown_closes_streams_with_1012(model_path: Path, tmp_path: Path) -> None:
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path)) as server, contextlib.ExitStack() as stack:
        idle = stack.enter_context(RawClient(server)).accepted()
        half = stack.enter_context(RawClient(server)).accepted().send(b"\x81")
        busy = stack.enter_context(RawClient(server)).accepted().send(encoded(TEXT, SAMPLE.encode()) * 1_000)
        large = stack.enter_context(RawClient(server)).accepted().send(BATCH * 3)
        busy.frame()
        large.frame()

        server.process.send_signal(signal.SIGTERM)
        codes = [client.close_code() for client in (idle, half, busy, large)]
        server.process.wait(20)

    assert codes == [1012] * 4
    # uvicorn ends by the signal that it was given, as a supervisor expects; 0 would be as clean.
    assert server.process.returncode in (0, -signal.SIGTERM)
    assert_quiet(server)


def test_shutdown_is_quiet_also_with_a_client_that_never_reads(model_path: Path, tmp_path: Path) -> None:
    server_of = run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), SHUTDOWN_S="1")
    with server_of as server, RawClient(server, receive_buffer=4_096) as client:
        send_until_blocked(client.accepted(), BATCH, most=100 * MEBIBYTE)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)

    assert_quiet(server)


@pytest.fixture(scope="module")
def pinging_server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("pinging") / "log.txt"
    with run_server(log, MODEL_FILE=str(model_path), PING_INTERVAL_S="0.3", SHUTDOWN_S="1") as server:
        yield server


def test_a_client_that_does_not_answer_pings_is_closed_with_1011(pinging_server: Server) -> None:
    with RawClient(pinging_server) as silent:
        assert silent.accepted().frame()[0] == PING
        assert silent.close_code() == 1011


def test_a_client_that_answers_pings_stays(pinging_server: Server) -> None:
    with opened_stream(pinging_server) as websocket, RawClient(pinging_server) as silent:
        assert silent.accepted().close_code() == 1011, "two intervals have passed"
        websocket.send(SAMPLE)
        assert json.loads(websocket.recv())["label"] == "versicolor"


def test_a_client_that_never_reads_is_cut(model_path: Path, tmp_path: Path) -> None:
    server_of = run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), SEND_TIMEOUT_S="0.5")
    with server_of as server, RawClient(server, receive_buffer=4_096) as client:
        with contextlib.suppress(ConnectionError):
            send_until_blocked(client.accepted(), BATCH, most=100 * MEBIBYTE)
        cut = select.poll()
        cut.register(client.socket, select.POLLHUP | select.POLLERR)

        assert cut.poll(10_000)
        assert is_served(server)

    assert_quiet(server)


def test_a_client_that_reads_again_too_late_leaves_the_log_quiet(pinging_server: Server) -> None:
    with RawClient(pinging_server, receive_buffer=4_096) as client:
        with contextlib.suppress(ConnectionError):
            send_until_blocked(client.accepted(), BATCH, most=100 * MEBIBYTE)
        for _ in range(2):
            with RawClient(pinging_server) as silent:
                assert silent.accepted().close_code() == 1011, "two intervals have passed"
        client.socket.settimeout(20)
        with contextlib.suppress(ConnectionError):
            while client.socket.recv(2**20):
                pass

    assert is_served(pinging_server)
    assert_quiet(pinging_server)


@pytest.mark.parametrize(
    ("offered", "confirmed"),
    [([], None), (["prediction.v1"], "prediction.v1"), (["x", "prediction.v1"], "prediction.v1"), (["x"], None)],
)
def test_the_subprotocol_is_confirmed_when_it_is_offered(
    client: TestClient, offered: list[str], confirmed: str | None
) -> None:
    with client.websocket_connect("/stream", subprotocols=offered) as websocket:
        assert websocket.accepted_subprotocol == confirmed
        assert websocket.receive_json()["type"] == "model"
