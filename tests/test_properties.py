"""What holds for any input: no error of the server's own, and one answer on every channel, to the last bit."""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from httpx2 import Response
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from starlette.testclient import TestClient
from websockets.sync.client import connect

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.training import fitting, iris, writing
from ml.training.fitting import Trained
from tests.conftest import Server, parse_html
from web.app import create_app
from web.settings import Settings

pytestmark = pytest.mark.slow
KEYS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
JSON = {"Content-Type": "application/json"}
WANTED = [{}, {"HX-Request": "true"}, {"Accept": "application/json"}, {"Accept": "text/html"}]
# The client raises what the application raises, so an unexpected error fails a test on its own.
ANSWERED = {200, 400, 413, 415, 422}

NUMBERS = st.text("0123456789.,-+eE \u2212_xn٣\u00a0", max_size=70) | st.floats().map(str) | st.integers().map(str)
TEXTS = st.text(max_size=80) | NUMBERS
ANY_TEXTS = TEXTS | st.text(st.characters(categories=["Cs", "Cc", "Nd", "Zs"]), max_size=20)
FIELDS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=20), TEXTS, max_size=6)
SAMPLES = st.fixed_dictionaries(dict.fromkeys(KEYS, NUMBERS))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400) | st.floats() | ANY_TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(KEYS) | ANY_TEXTS, inner, max_size=5),
    max_leaves=12,
)
REQUESTS = (
    JSON_VALUES
    | st.fixed_dictionaries({"sample": JSON_VALUES}, optional={"id": JSON_VALUES, "samples": JSON_VALUES})
    | st.fixed_dictionaries({"samples": st.lists(JSON_VALUES, max_size=5)}, optional={"id": JSON_VALUES})
    | st.fixed_dictionaries({"sample": st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=4)})
    | st.fixed_dictionaries({"sample": st.lists(JSON_VALUES, min_size=4, max_size=4)})
)
CONTENT_TYPES = st.sampled_from([
    "application/json", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=b",
    'multipart/form-data; boundary=""', "multipart/form-data; boundary=" + "b" * 200, "multipart/form-data;;=",
    "application/json; charset=utf-16", "application/vnd.api+json", "application/x-www-form-urlencoded; boundary=b",
    "text/plain", "", ";",
])  # fmt: skip


@pytest.fixture(scope="module")
def websocket(client: TestClient) -> Iterator[Any]:
    """One stream for all examples: whatever was sent before, each frame gets its one reply."""
    with client.websocket_connect("/stream") as websocket:
        assert websocket.receive_json()["type"] == "model"
        yield websocket


def check(response: Response) -> None:
    """Check that a response is one of the documented ones, and is what it says it is."""
    assert response.status_code in ANSWERED
    media_type = response.headers["content-type"].partition(";")[0]
    if media_type == "text/html":
        parse_html(response.text)
        return
    decoded = json.loads(response.content)
    assert media_type == ("application/json" if response.status_code == 200 else "application/problem+json")
    if response.status_code == 200:
        for answer in decoded.get("predictions", [decoded]):
            assert math.isclose(sum(answer["probabilities"].values()), 1)
    else:
        assert decoded["status"] == response.status_code
        assert len(response.content) < 50_000


def reply_to(websocket: Any, frame: str) -> Any:
    websocket.send_text(frame)
    reply = json.loads(websocket.receive_text())
    assert reply["type"] in ("prediction", "predictions", "error")
    return reply


@given(fields=FIELDS | SAMPLES, headers=st.sampled_from(WANTED))
@example(fields={"sepal_length": "\x00"}, headers={})
def test_any_text_in_any_field_of_a_query_or_a_form_is_answered(
    client: TestClient, fields: Mapping[str, str], headers: dict[str, str]
) -> None:
    query = urlencode(fields)
    check(client.get(f"/predict?{query}", headers=headers))
    check(client.get(f"/?{query}", headers=headers))
    check(client.post("/predict", data=fields, headers=headers))
    check(client.post("/result", data=fields, headers=headers))


@given(fields=FIELDS | SAMPLES)
def test_a_page_keeps_any_text_that_was_typed(client: TestClient, fields: Mapping[str, str]) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # as a browser says of an empty form, too
    for response in (
        client.post("/result", content=urlencode(fields), headers=form),
        client.get(f"/predict?{urlencode(fields)}"),
    ):
        inputs = parse_html(response.text).one("form", id="measurements").all("input", type="text")
        shown = {field.attributes["name"]: field.attributes["value"] for field in inputs}
        # A parser of HTML reads a carriage return as a line feed, and a field of one line holds neither.
        assert {key: text.replace("\r", "\n") for key, text in shown.items()} == {
            key: fields.get(key, "").replace("\r", "\n") for key in KEYS
        }


@given(query=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=200))
def test_any_query_is_answered(client: TestClient, query: str) -> None:
    for path in ("/", "/predict", "/result"):
        check(client.get(f"{path}?{query}"))


@given(fields=FIELDS | SAMPLES, headers=st.sampled_from(WANTED))
def test_any_text_in_any_field_of_multipart_is_answered(
    client: TestClient, fields: Mapping[str, str], headers: dict[str, str]
) -> None:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n'.encode()
        for key, text in fields.items()
    ]
    content = b"".join(parts) + b"--b--\r\n"

    for path in ("/predict", "/result"):
        multipart = {"Content-Type": "multipart/form-data; boundary=b"}
        check(client.post(path, content=content, headers=headers | multipart))


@given(request=REQUESTS, headers=st.sampled_from(WANTED), ascii_only=st.booleans())
@example(request={"sample": [10**400, 10**5_000, math.inf, -1]}, headers={"Accept": "text/html"}, ascii_only=True)
def test_any_json_is_answered(
    client: TestClient, websocket: Any, request: Any, headers: dict[str, str], *, ascii_only: bool
) -> None:
    try:
        text = json.dumps(request, ensure_ascii=ascii_only)
        content = text.encode()
    except (UnicodeEncodeError, ValueError):  # a lone surrogate, or an integer longer than Python writes
        return
    check(client.post("/predict", content=content, headers=headers | JSON))
    reply_to(websocket, text)


@given(content=st.binary(max_size=300) | st.text(max_size=100).map(str.encode), content_type=CONTENT_TYPES)
@example(content=b"--b\r\n\r\n--b--", content_type="multipart/form-data; boundary=b")
@example(content=b'--b\r\nContent-Disposition: form-data; name="a', content_type="multipart/form-data; boundary=b")
@example(
    content=b"--b\r\nContent-Disposition: form-data; name*=x''%ff\r\n\r\n1\r\n--b--",
    content_type="multipart/form-data; boundary=b",
)
def test_any_bytes_as_a_body_of_any_type_are_answered(client: TestClient, content: bytes, content_type: str) -> None:
    for path in ("/predict", "/result"):
        check(client.post(path, content=content, headers={"Content-Type": content_type}))


@given(content_type=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), start=CONTENT_TYPES)
def test_any_content_type_is_answered(client: TestClient, content_type: str, start: str) -> None:
    content = b'--b\r\nContent-Disposition: form-data; name="sepal_length"\r\n\r\n1\r\n--b--\r\n'

    check(client.post("/predict", content=content, headers={"Content-Type": start + content_type}))


@given(accept=st.text(st.sampled_from("textapplicationjsonhtml/*;,q=0.5 +-"), max_size=60) | st.text(max_size=20))
def test_any_accept_is_answered(client: TestClient, accept: str) -> None:
    headers = {b"Accept": accept.encode("latin-1", "replace").translate(None, b"\r\n\0")}

    response = client.get("/predict?sepal_length=1", headers=headers)

    check(response)


@given(frame=st.text(max_size=200) | st.text('{}[]":,0123456789eE.-sampleid \\u', max_size=80))
@example(frame='{"id": "\\ud800", "sample": [1, 2, 3, 4]}')
def test_any_text_as_a_frame_gets_a_reply(websocket: Any, frame: str) -> None:
    reply_to(websocket, frame)


@given(
    frame=st.binary(max_size=200)
    | st.lists(st.floats(width=32), max_size=40).map(lambda f: struct.pack(f"<{len(f)}f", *f))
)
def test_any_bytes_as_a_frame_get_a_reply(websocket: Any, frame: bytes) -> None:
    websocket.send_bytes(frame)
    message = websocket.receive()

    if len(frame) % 16:
        assert json.loads(message["text"])["type"] == "error"
    else:
        rows = np.frombuffer(frame, "<f4").reshape(-1, 4)
        replies = np.frombuffer(message["bytes"], "<f4").reshape(-1, 3)
        accepted = (np.isfinite(rows) & (rows >= 0)).all(axis=1)
        assert np.array_equal(~np.isnan(replies).any(axis=1), accepted)
        assert np.allclose(replies[accepted].sum(axis=1), 1)


HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# Protocol error, text that is not UTF-8, too large, and the goodbyes that answer a client's own.
CLOSE_CODES = {1002, 1007, 1009}


@given(
    content=st.binary(min_size=1, max_size=100)
    | st.builds(
        bytes.__add__,
        st.sampled_from([b"\x81\x80", b"\x82\x90", b"\x89\x85", b"\x01\x82", b"\x88\x82"]),
        st.binary(max_size=60),
    )
)
def test_any_bytes_on_the_wire_get_a_reply_or_a_documented_close(server: Server, content: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(HANDSHAKE)
        stream = connection.makefile("rb")
        assert stream.readline().startswith(b"HTTP/1.1 101 ")
        while stream.readline() != b"\r\n":
            pass
        frames = [read_frame(stream)]
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        try:
            while frame := read_frame(stream):
                frames.append(frame)
        except ConnectionError:
            pass  # what we sent after the server's close was not read

    seen = [frame for frame in frames if frame]
    assert json.loads(seen[0][1])["type"] == "model"
    for opcode, payload in seen[1:]:
        assert opcode in (1, 2, 8, 10)
        if opcode == 8 and payload:
            (code,) = struct.unpack("!H", payload[:2])
            assert code in CLOSE_CODES or struct.pack("!H", code) in unmasked(content), "ours, or the client's own"


def unmasked(content: bytes) -> bytes:
    """Return what a close frame at the beginning of `content` says; masks make it another one."""
    mask, payload = content[2:6], content[6:]
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if len(mask) == 4 else b""


def read_frame(stream: Any) -> tuple[int, bytes] | None:
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1]
    if length == 126:
        (length,) = struct.unpack("!H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", stream.read(8))
    return head[0] & 15, stream.read(length)


# --- one answer on every channel


@pytest.fixture(scope="module")
def impure() -> Trained:
    """A forest whose leaves hold several classes: its probabilities have all 53 bits, not two decimals."""
    return fitting.fit(iris.load_dataset(), Recipe(n_estimators=70, min_samples_leaf=4))


@pytest.fixture(scope="module")
def impure_client(impure: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path = tmp_path_factory.mktemp("impure") / "model.npz"
    writing.write(writing.model_of(impure), path, trained=impure)
    with TestClient(create_app(Settings(model_file=path))) as client:
        yield client


@pytest.fixture(scope="module")
def impure_stream(impure_client: TestClient) -> Iterator[Any]:
    with impure_client.websocket_connect("/stream") as websocket:
        assert websocket.receive_json()["type"] == "model"
        yield websocket


Rows = st.SearchStrategy[list[list[float]]]


@pytest.fixture(scope="module")
def some_rows(impure: Trained) -> Rows:
    """Rows with values on the forest's thresholds and beside them, where a wrong comparison shows, and elsewhere."""
    trees = [estimator.tree_ for estimator in impure.estimator.estimators_]

    def value(feature: int) -> st.SearchStrategy[float]:
        at = st.sampled_from(sorted({float(t) for tree in trees for t in tree.threshold[tree.feature == feature]}))
        return (
            st.integers(0, 90).map(lambda tenths: tenths / 10)
            | at
            | at.map(lambda number: math.nextafter(number, math.inf))
            | at.map(lambda number: float(np.nextafter(np.float32(number), np.float32(np.inf))))
            | st.floats(0, 10)
            | st.floats(0, 3e38)
        )

    return st.lists(st.tuples(*map(value, range(4))).map(list), min_size=1, max_size=6)


def shares_of(html: str) -> list[float]:
    document = parse_html(html)
    holder = document.one(id="prediction") if document.all("html") else document
    return [float(meter.attributes["value"]) for meter in holder.all("meter")]


@pytest.mark.parametrize("channel", ["page", "result", "fragment", "json", "posted json", "stream"])
@given(data=st.data())
def test_one_sample_gets_the_same_bits_as_from_scikit_learn(
    impure_client: TestClient,
    impure_stream: Any,
    impure: Trained,
    some_rows: Rows,
    *,
    channel: str,
    data: st.DataObject,
) -> None:
    def shares(row: list[float]) -> list[float]:
        sample = dict(zip(KEYS, map(repr, row), strict=True))
        if channel == "page":
            return shares_of(impure_client.get("/", params=sample).text)
        if channel == "result":
            return shares_of(impure_client.post("/result", data=sample).text)
        if channel == "fragment":
            return shares_of(impure_client.get("/predict", params=sample, headers={"HX-Request": "true"}).text)
        if channel == "json":
            answer = impure_client.get("/predict", params=sample, headers={"Accept": "application/json"}).json()
            assert list(answer["sample"].values()) == row
        elif channel == "posted json":
            answer = impure_client.post("/predict", json={"sample": row}).json()
        else:
            answer = reply_to(impure_stream, json.dumps({"sample": row}))
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].__getitem__)
        return list(answer["probabilities"].values())

    rows = data.draw(some_rows)

    assert [shares(row) for row in rows] == impure.estimator.predict_proba(np.array(rows)).tolist()


def by_rows(answer: Mapping[str, Any]) -> list[tuple[float, ...]]:
    return list(zip(*answer["probabilities"].values(), strict=True))


@given(data=st.data())
def test_a_batch_gets_the_same_bits_as_from_scikit_learn_on_every_channel(
    impure_client: TestClient, impure_stream: Any, impure: Trained, some_rows: Rows, data: st.DataObject
) -> None:
    rows = data.draw(some_rows)

    posted = impure_client.post("/predict", json={"samples": rows}).json()["predictions"]
    streamed = reply_to(impure_stream, json.dumps({"samples": rows}))

    expected = [tuple(row) for row in impure.estimator.predict_proba(np.array(rows)).tolist()]
    assert [tuple(item["probabilities"].values()) for item in posted] == expected
    assert by_rows(streamed) == expected
    assert [item["label"] for item in posted] == streamed["labels"]


@given(data=st.data())
def test_a_binary_frame_gets_the_same_bits_as_from_scikit_learn(
    impure_stream: Any, impure: Trained, some_rows: Rows, data: st.DataObject
) -> None:
    single: NDArray[np.float32] = np.array(data.draw(some_rows)).astype("<f4")

    impure_stream.send_bytes(single.tobytes())
    replies = np.frombuffer(impure_stream.receive_bytes(), "<f4").reshape(-1, 3)

    assert np.array_equal(replies, impure.estimator.predict_proba(single).astype("<f4"))


@given(samples=st.lists(SAMPLES | st.lists(st.floats(0, 100), min_size=4, max_size=4), min_size=1, max_size=5))
def test_a_batch_is_its_samples_one_by_one(client: TestClient, websocket: Any, samples: list[Any]) -> None:
    batch = client.post("/predict", json={"samples": samples})
    frame = reply_to(websocket, json.dumps({"samples": samples}))
    singles = [client.post("/predict", json={"sample": sample}) for sample in samples]

    if all(single.status_code == 200 for single in singles):
        answers = [single.json() for single in singles]
        expected = [{name: answer[name] for name in ("label", "probabilities", "notes")} for answer in answers]
        assert batch.json()["predictions"] == expected
        assert frame["labels"] == [answer["label"] for answer in answers]
        assert by_rows(frame) == [tuple(answer["probabilities"].values()) for answer in answers]
    else:
        errors = [
            error | {"sample": index}
            for index, single in enumerate(singles)
            if single.status_code != 200
            for error in single.json()["errors"]
        ]
        assert batch.status_code == 422
        assert batch.json()["errors"] == frame["error"]["errors"] == errors


@given(sample=FIELDS | SAMPLES)
def test_all_channels_have_the_same_errors_for_the_same_text(
    client: TestClient, websocket: Any, model: LoadedModel, sample: dict[str, str]
) -> None:
    wanted = {"Accept": "application/json"}
    asked = client.get(f"/predict?{urlencode(sample)}", headers=wanted).json()
    posted = client.post("/predict", json={"sample": sample}).json()
    form = client.post("/predict", data=sample, headers=wanted).json() if len(sample) > 1 else asked  # one may be CSV
    reply = reply_to(websocket, json.dumps({"sample": sample}))

    if reply["type"] == "error":
        assert by_feature(asked) == by_feature(posted) == by_feature(form) == by_feature(reply["error"])
    else:
        assert asked == posted == form
        assert asked["probabilities"] == reply["probabilities"]
        assert reply["version"] == model.version


def by_feature(problem: Mapping[str, Any]) -> list[Any]:
    return sorted(problem["errors"], key=lambda error: str(error["feature"]))


def test_the_channels_agree_on_the_real_server_as_well(server: Server, trained: Trained) -> None:
    rows = np.random.default_rng(5).uniform(0, 8, (300, 4)).round(1)
    expected = trained.estimator.predict_proba(rows)

    with connect(server.stream_url, compression=None, max_size=None) as websocket:
        websocket.recv()
        websocket.send(json.dumps({"samples": rows.tolist()}))
        batch = json.loads(websocket.recv())
        websocket.send(rows.astype("<f4").tobytes())
        binary = np.frombuffer(websocket.recv(decode=False), "<f4").reshape(-1, 3)
        singles = []
        for row in rows.tolist():
            websocket.send(json.dumps({"sample": row}))
            singles.append(list(json.loads(websocket.recv())["probabilities"].values()))

    assert np.array_equal(by_rows(batch), expected)
    assert np.array_equal(binary, expected.astype("<f4"))
    assert np.array_equal(singles, expected)
