"""WS /score: any table, in pieces of any size, over connections that end anywhere, as the command line scores it."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from ml.errors import TableError
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.scoring.text import score
from ml.tables.marks import Marks
from ml.training import fitting, iris, writing
from tests.tables import GOOD, HEADER, TABLES, guarded, odd_tables
from web.app import create_app
from web.scoring.websocket import MAX_ERRORS, MAX_LISTED_OF_LABEL
from web.settings import Settings

Frame = dict[str, Any]
BAD = "sepal length: '?' is not a number; petal length is missing; petal width: '=1' is not a number"


class Answer:
    """What a client keeps of the answer to a file: the table so far, and how to go on."""

    def __init__(self) -> None:
        self.table = b""
        self.resume = ""
        self.read = 0
        self.frames: list[Frame] = []
        self.error: Frame | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or bool(self.frames and self.frames[-1]["done"])


def converse(client: TestClient, content: bytes, sizes: Iterable[int], answer: Answer, *, frames: int = 10**9) -> None:
    """Send the rest of a file in pieces, and leave after so many of them, before the answer to the last one is read."""
    with client.websocket_connect("/score") as websocket:
        assert websocket.receive_json()["type"] == "model"
        if answer.resume:
            websocket.send_text(answer.resume)
        at = answer.read
        for size in sizes:
            piece = content[at : at + size]
            at += len(piece)
            websocket.send_bytes(piece)
            frames -= 1
            if not frames:
                return
            if take(websocket, answer):
                return


def take(websocket: Any, answer: Answer) -> bool:
    """Take the answer to a frame; tell whether it was the last one."""
    text = b""
    while "bytes" in (message := websocket.receive()) or message["text"].startswith('{"type":"model"'):
        text += message.get("bytes", b"")
    frame = json.loads(message["text"])
    if frame["type"] == "rows":
        answer.table += text
        answer.frames.append(frame)
        answer.resume, answer.read = frame["resume"], frame["read"]
        return bool(frame["done"])
    answer.error = frame["error"]
    answer.table += text
    return True


def scored(client: TestClient, content: bytes, size: int = 65_536) -> Answer:
    answer = Answer()
    while not answer.is_done:
        pieces = -(-len(content) // size)
        converse(client, content, [size] * (pieces + 1), answer)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("size", [997, 65_536])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_any_table_comes_back_as_the_command_line_scores_it(
    client: TestClient, model: LoadedModel, table: bytes, size: int
) -> None:
    answer = scored(client, table, size)

    assert answer.table == guarded(model, table)
    assert answer.read == len(table)
    assert sum(frame["rows"] for frame in answer.frames) == sum(
        frame["bad"] + sum(frame["counts"].values()) for frame in answer.frames
    )


def test_rows_are_counted_told_and_shown_as_they_come(client: TestClient, model: LoadedModel) -> None:
    answer = scored(client, f"note,{HEADER}\n+,{GOOD}\n,?,1,,=1\n1,2\n,9 ,3.5,1.4,0.2\n".encode())

    first, last = answer.frames
    (sure, label) = max(zip(model.predict([9.0, 3.5, 1.4, 0.2]).probabilities, model.labels, strict=True))
    assert {**first, "resume": ""} == {
        "type": "rows", "read": answer.read, "rows": 4, "bad": 2, "noted": 1, "version": model.version,
        "resume": "", "done": False,
        "errors": [
            {
                "line": 3, "cells": ["?", "1", "", "=1"],
                "message": BAD,
                "errors": [
                    {
                        "feature": "sepal_length", "code": "not_a_number", "value": "?",
                        "message": "sepal length: '?' is not a number",
                    },
                    {"feature": "petal_length", "code": "missing", "value": None, "message": "petal length is missing"},
                    {
                        "feature": "petal_width", "code": "not_a_number", "value": "=1",
                        "message": "petal width: '=1' is not a number",
                    },
                ],
            },
            {"line": 4, "message": "2 columns, the header has 5", "errors": [], "cells": []},
        ],
        "counts": {"setosa": 1, "versicolor": 1},
        "listed": [
            {"line": 5, "cells": ["9", "3.5", "1.4", "0.2"], "outside": 1, "label": label, "probability": sure},
            {"line": 2, "cells": ["5.6", "2.7", "4.2", "1.3"], "outside": 0, "label": "versicolor", "probability": 1.0},
        ],
    }  # fmt: skip
    assert (last["done"], last["rows"], last["listed"]) == (True, 0, [])


def test_the_least_sure_rows_of_each_label_are_listed_and_the_first_bad_ones(
    client: TestClient, model: LoadedModel
) -> None:
    rng = np.random.default_rng(3)
    rows = rng.uniform([4.3, 2, 1, 0.1], [7.9, 4.4, 6.9, 2.5], (2_500, 4)).round(2).tolist()
    table = "".join(f"{','.join(map(str, row))}\n?,1,1,1\n" for row in rows)

    answer = scored(client, f"{HEADER}\n{table}".encode(), 20_000)

    first, *others = answer.frames
    assert len(others) > 3
    frame = {name: sum((other[name] for other in others), first[name]) for name in ("rows", "bad", "listed")}
    expected: dict[str, list[tuple[float, int]]] = {label: [] for label in model.labels}
    for place, row in enumerate(rows):
        prediction = model.predict(row)
        expected[prediction.label].append((max(prediction.probabilities), 2 * place + 2))
    assert (frame["rows"], frame["bad"]) == (5_000, 2_500)
    assert all(len(one["errors"]) == min(MAX_ERRORS, one["bad"]) for one in answer.frames)
    assert len(frame["listed"]) < 2 * len(first["listed"]), "later frames list what is less sure than that"
    for label, found in expected.items():
        listed = [(row["probability"], row["line"]) for row in frame["listed"] if row["label"] == label]
        assert sorted(listed)[:MAX_LISTED_OF_LABEL] == sorted(found)[:MAX_LISTED_OF_LABEL]


def outcome(model: LoadedModel, table: bytes) -> tuple[bytes, str]:
    """Return what scoring a table without a server writes, and the error that ends it."""
    sink = io.StringIO(newline="")
    source = io.TextIOWrapper(io.BytesIO(table), "utf-8", "surrogateescape", newline="")
    try:
        score(model, source, sink, on_bad=lambda _bad: None, guarded=True)
    except TableError as error:
        return sink.getvalue().encode(), str(error).encode(errors="replace").decode()
    return sink.getvalue().encode(), ""


@pytest.mark.slow
@given(
    table=odd_tables,
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=30),
    leaves=st.lists(st.integers(1, 4), max_size=6),
)
def test_a_file_in_pieces_over_broken_connections_is_the_file_in_one(
    client: TestClient, model: LoadedModel, table: bytes, sizes: list[int], leaves: list[int]
) -> None:
    expected, error = outcome(model, table)
    answer = Answer()

    for frames in [*leaves, 10**9]:
        if not answer.is_done:
            converse(client, table, itertools.chain(sizes, itertools.repeat(200)), answer, frames=frames)
    posted = client.post("/score", content=table, headers={"Content-Type": "text/csv"})

    assert answer.error is None or answer.error["detail"] == error
    assert answer.table[: len(expected)] == expected
    if not error:
        assert answer.table == posted.content == expected
    elif expected:
        assert answer.table == posted.content, "with the error in its last row"
    else:
        assert (answer.table, posted.json()["detail"]) == (b"", error)


@pytest.mark.parametrize("name", ["UTF-16", "row names without a name", "lines of separators", "quotes after spaces"])
def test_any_form_of_table_goes_on_after_a_lost_connection(client: TestClient, model: LoadedModel, name: str) -> None:
    answer = Answer()

    while not answer.is_done:
        converse(client, TABLES[name], [9_973] * 200, answer, frames=4)

    assert answer.table == guarded(model, TABLES[name])
    assert answer.read == len(TABLES[name])


def test_a_gzip_file_is_sent_again_and_goes_on_behind_the_rows_that_came(
    client: TestClient, model: LoadedModel
) -> None:
    table = f"\ufeffñ,{HEADER}\n".encode("utf-16") + "".join(
        f"ñ{n},{4 + n % 40 / 10},2.7,4.2,1.3\n" for n in range(3_000)
    ).encode("utf-16-le")
    packed, answer = gzip.compress(table), Answer()

    for frames in (2, 3, 1, 2, 4):  # those of the last two end before the rows that are there
        converse(client, packed, [len(packed) // 4] * 9, answer, frames=frames)
        assert (answer.read, json.loads(answer.resume)["is_gzip"]) == (0, True)
    places = [json.loads(frame["resume"])["read"] for frame in answer.frames]
    converse(client, packed, [len(packed) // 4] * 9, answer)

    assert answer.table == guarded(model, table)
    assert answer.read == len(packed)
    assert places == sorted(places)
    assert places[0] > 0


def test_a_file_goes_on_in_another_process(client: TestClient, model: LoadedModel, model_path: Path) -> None:
    table = f"{HEADER}\n".encode() + b"".join(b"%.1f,2.7,4.2,1.3\n" % (4 + n / 100) for n in range(400))
    answer = Answer()
    converse(client, table, [3_000] * 3, answer, frames=2)
    assert 0 < answer.read < 3_000

    with TestClient(create_app(Settings(model_file=model_path))) as other:
        converse(other, table, [3_000] * 10, answer)

    assert answer.table == guarded(model, table)


HOSTILE = [
    "x", "{}", "[]", "null", "[" * 60_000, '"\udcff"', "9" * 400, '{"read":0}', "x" * 70_000,
    '{"read":-1,"place":%s}', '{"read":1e99,"place":%s}', '{"read":99999999999999999999999,"place":%s}',
]  # fmt: skip
PLACES: dict[str, Any] = {
    "line": [0, -1, 2**60, 1e300, "1", None], "dialect": [{}, {"separator": ""}, {"separator": "x"}, None],
    "width": [0, -1, 3, 10**9],
    "positions": [[], [0], [0, 1, 2, 4], [-1, 0, 1, 2], [0] * 9_999, [0, 1, 2, "3"], None],
    "added": [0, -1, 10**9, 4], "answers": ["", "x", 1], "decimal": [",", "x", 1],
}  # fmt: skip


def resume_of(client: TestClient) -> dict[str, Any]:
    answer = Answer()
    converse(client, f"{HEADER}\n{GOOD}\n".encode(), [1_000], answer)
    return dict(json.loads(answer.resume))


def hostile(good: dict[str, Any]) -> Iterator[str]:
    place = json.dumps(good["place"])
    yield from (text.replace("%s", place) for text in HOSTILE)
    for name, values in PLACES.items():
        yield from (json.dumps({**good, "place": {**good["place"], name: value}}) for value in values)


def test_an_empty_resume_begins_the_file(client: TestClient) -> None:
    """It is what the first `rows` frame has when no row was whole."""
    with client.websocket_connect("/score") as websocket:
        websocket.receive_json()
        websocket.send_text("")
        websocket.send_bytes(f"{HEADER}\n{GOOD}\n".encode())

        while "text" not in (message := websocket.receive()):
            assert message["bytes"]
        assert json.loads(message["text"])["rows"] == 1


def test_a_resume_that_nobody_gave_is_an_error_and_never_a_crash(client: TestClient) -> None:
    for text in hostile(resume_of(client)):
        with client.websocket_connect("/score") as websocket:
            websocket.receive_json()
            websocket.send_text(text)
            message = websocket.receive()
            if "bytes" in message:
                message = websocket.receive()
            assert json.loads(message["text"])["error"]["status"] in (400, 409), text
            with pytest.raises(WebSocketDisconnect) as closed:
                websocket.receive_text()
            assert closed.value.code == 1008


@given(
    change=st.dictionaries(
        st.sampled_from(list(PLACES)),
        st.integers(-3, 12) | st.lists(st.integers(-2, 12), max_size=6) | st.text(max_size=3),
    )
)
def test_any_resume_is_an_error_or_goes_on(client: TestClient, change: dict[str, Any]) -> None:
    good = resume_of(client)
    with client.websocket_connect("/score") as websocket:
        websocket.receive_json()
        websocket.send_text(json.dumps({**good, "place": {**good["place"], **change}}))
        websocket.send_bytes(f"{GOOD}\nx\n".encode())
        assert take(websocket, answer := Answer()) == (answer.error is not None)


def ending_of(client: TestClient, *messages: bytes | str) -> tuple[Frame, int]:
    """Return the error frame that ends a file, and the code that closes its connection."""
    with client.websocket_connect("/score") as websocket:
        websocket.receive_json()
        for message in messages:
            websocket.send_bytes(message) if isinstance(message, bytes) else websocket.send_text(message)
        while '"type":"error"' not in (frame := websocket.receive()).get("text", ""):
            pass
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    return json.loads(frame["text"]), closed.value.code


def test_text_between_the_bytes_of_a_file_ends_it(client: TestClient) -> None:
    frame, code = ending_of(client, HEADER.encode(), "{}")

    assert (frame["error"]["status"], "retry_after_s" in frame["error"], code) == (400, False, 1008)


def test_limits_of_uploads_hold_here_too(model_path: Path) -> None:
    limits = {"max_uploads": 1, "max_upload_bytes": 1_000, "rate_limit": "8/hour"}
    with TestClient(create_app(Settings(model_file=model_path, **limits))) as client:  # type: ignore[arg-type]  # a dict of several types
        with client.websocket_connect("/score") as first:
            first.receive_json()
            busy, busy_code = ending_of_refused(client)
            posted = client.post("/score", content=f"{HEADER}\n{GOOD}\n", headers={"Content-Type": "text/csv"})
        large, large_code = ending_of(client, b"x" * 1_001)
        often, often_code = ending_of(client, *[b"x"] * 8)

    assert (busy["error"]["status"], busy["error"]["retry_after_s"], busy_code) == (503, 1, 1013)
    assert posted.status_code == 503
    assert (large["error"]["status"], "retry_after_s" in large["error"], large_code) == (413, False, 1008)
    assert (often["error"]["status"], often_code) == (429, 1013)
    assert 0 < often["error"]["retry_after_s"] <= 3_600


def ending_of_refused(client: TestClient) -> tuple[Frame, int]:
    with client.websocket_connect("/score") as websocket:
        websocket.receive_json()
        frame = websocket.receive_json()
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    return frame, closed.value.code


def reduced(path: Path, *, features: int, seed: int = 0) -> None:
    """Write a model of the first features of Iris."""
    data = iris.load_dataset()
    some = replace(data, features=data.features[:features], rows=data.rows[:, :features], picture=())
    trained = fitting.fit(some, Recipe(seed=seed, n_estimators=5))
    writing.write(writing.model_of(trained), path, trained=trained)


def test_a_new_model_of_the_same_columns_goes_on_and_another_one_ends_the_file(
    model_path: Path, model: LoadedModel, tmp_path: Path
) -> None:
    app = create_app(Settings(model_file=model_path))
    reduced(tmp_path / "alike.npz", features=4, seed=7)
    reduced(tmp_path / "other.npz", features=3)
    row = f"{GOOD}\n".encode()
    answer = Answer()
    with TestClient(app) as client:
        with client.websocket_connect("/score") as websocket:
            websocket.send_bytes(f"{HEADER}\n".encode() + row)
            take(websocket, answer)
            for name in ("alike.npz", "other.npz"):
                app.service.model = load_model(tmp_path / name)
                websocket.send_bytes(row)
                take(websocket, answer)
        resume = answer.resume
        again, code = ending_of(client, resume)

    versions = [frame["version"] for frame in answer.frames]
    assert versions == [model.version, load_model(tmp_path / "alike.npz").version]
    sentence = "the model was replaced by one with other features or labels: begin anew"
    assert answer.error == again["error"] == {"status": 409, "title": "Conflict", "detail": sentence, "errors": []}
    assert code == 1008
    lines = answer.table.decode().splitlines()
    assert len(lines) == 4
    assert lines[3] == "," * 9 + sentence
    assert answer.read == len(HEADER) + 1 + 2 * len(row)


def test_the_query_names_the_marks_and_a_file_that_goes_on_keeps_them(client: TestClient, model: LoadedModel) -> None:
    row = "1.005;2,7;4,2;1,3\n"
    content = (HEADER.replace(",", ";") + "\n" + 2 * row).encode()
    sink = io.StringIO()
    source, marks = io.StringIO(content.decode(), newline=""), Marks(",", ".")
    score(model, source, sink, on_bad=lambda _bad: None, guarded=True, marks=marks)
    answer = Answer()
    with client.websocket_connect("/score?decimal=,&thousands=.") as websocket:
        websocket.send_bytes(content[: -len(row)])
        take(websocket, answer)

    converse(client, content, [len(content), 0], answer)

    assert answer.table.decode() == sink.getvalue()


@pytest.mark.parametrize(
    ("query", "said"), [("stric=1", "'stric' is not known"), ("strict=yes", "strict is 0 or 1, not 'yes'")]
)
def test_a_parameter_that_there_is_not_is_refused(client: TestClient, query: str, said: str) -> None:
    with client.websocket_connect(f"/score?{query}") as websocket:
        websocket.receive_text()
        websocket.send_bytes(HEADER.encode())

        assert said in websocket.receive_text()


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16", "utf-16-be", "shift_jis", "gb18030"])
def test_a_file_in_an_encoding_that_is_named_goes_on_at_the_byte_that_was_read(
    client: TestClient, model: LoadedModel, encoding: str
) -> None:
    table = f"{HEADER},примечание\n" + f"{GOOD},жук\n" * 300
    content = table.encode(encoding)
    answer, cut = Answer(), 2 * len(content) // 3
    with client.websocket_connect(f"/score?encoding={encoding}") as websocket:
        websocket.send_bytes(content[:cut])
        take(websocket, answer)
    with client.websocket_connect(f"/score?encoding={encoding}") as websocket:
        websocket.send_text(answer.resume)
        for part in (content[answer.read :], b""):
            websocket.send_bytes(part)
            take(websocket, answer)

    assert 0 < answer.read == len(content)
    assert answer.table == guarded(model, table.encode())


def test_a_query_that_names_no_encoding_is_refused_after_the_model_is_announced(client: TestClient) -> None:
    with client.websocket_connect("/score?encoding=zlib") as websocket:
        websocket.send_bytes(b"x")
        announced, refused = websocket.receive_json(), websocket.receive_json()

    assert (announced["type"], refused["error"]["status"]) == ("model", 400)
    assert refused["error"]["detail"] == "there is no encoding called 'zlib', or it is not read here"


def test_strict_ends_a_file_at_the_first_row_without_an_answer(client: TestClient, model: LoadedModel) -> None:
    with client.websocket_connect("/score?strict=1") as websocket:
        answer = Answer()
        websocket.send_bytes(f"{HEADER}\n{GOOD}\n?,1,1,1\n{GOOD}\n".encode())
        take(websocket, answer)
        committed = answer.table
        take(websocket, answer)

    assert committed == guarded(model, f"{HEADER}\n{GOOD}\n".encode())
    assert answer.error is not None
    assert answer.error["detail"] == "line 3: sepal length: '?' is not a number"
