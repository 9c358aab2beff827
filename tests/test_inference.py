"""The Open Inference Protocol in process: its routes, its tensors in both directions, and what it refuses."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec import Raw
from numpy.typing import NDArray
from starlette.testclient import TestClient

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.tables.dataset import Dataset, Feature
from ml.training import fitting, writing
from ml.training.fitting import Trained
from tests.builders import dataset_of
from tests.conftest import for_each
from tests.test_batch import turns_during
from web.api import batch
from web.app import create_app
from web.oip import elements, messages, tensors
from web.oip.messages import HEADER_LENGTH, InferenceInput
from web.problems import Problem
from web.settings import Settings

INFER = "/v2/models/iris/infer"
KEYS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
FEATURES = [Feature(key=key, title=key) for key in KEYS]
ROWS = [[5.6, 2.7, 4.2, 1.3], [5.0, 3.4, 1.5, 0.2], [6.3, 2.9, 5.6, 1.8]]
LABELS = ["versicolor", "setosa", "virginica"]
FLOATS = {"FP64": np.float64, "FP32": np.float32, "FP16": np.float16}
INTEGERS = {
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
}  # fmt: skip
DATATYPES: dict[str, Any] = {**FLOATS, **INTEGERS}
WRONG_SHAPES: list[Any] = [3, None, ["3", 4], [3.0, 4], [True, 4], {}, [[3, 4]]]
R = "[1,1,1,1]"
NO_ARRAYS = ["1,", ",1", "1,,1", "1 1", "1],[1", "01", "+1", "1.", f"{R},", f",{R}", f"{R}],[{R}", f"{R}{R}",
             f"{R},,{R}", f"{R}]],[[{R}", "[1,1,1,1,]", "[,1,1,1,1]"]  # fmt: skip
MANY = 10_000

Json = dict[str, Any]
Rows = NDArray[Any]


@pytest.fixture(scope="module")
def service(model_path: Path) -> Iterator[TestClient]:
    """The application in process, for tests that leave it as it is."""
    with TestClient(create_app(Settings(model_file=model_path))) as client:
        yield client


def samples(data: Any = ROWS, /, **changes: Any) -> Json:
    """Return the input of all features."""
    return {"name": "samples", "shape": [len(ROWS), 4], "datatype": "FP64", "data": data} | changes


def binary_samples(rows: Rows, datatype: str = "FP64", /, **changes: Any) -> Json:
    parameters = {"binary_data_size": rows.nbytes}
    return {"name": "samples", "shape": list(rows.shape), "datatype": datatype, "parameters": parameters} | changes


def large(data: str) -> bytes:
    """Return a request of all features with its data written as JSON."""
    return json.dumps({"inputs": [samples("?")]}).replace('"?"', data).encode()


def infer(client: TestClient, *inputs: Json, path: str = INFER, **members: Any) -> Any:
    return client.post(path, json={"inputs": list(inputs)} | members)


def infer_binary(client: TestClient, content: bytes, *inputs: Json, **members: Any) -> Any:
    text = json.dumps({"inputs": list(inputs)} | members).encode()
    return client.post(INFER, content=text + content, headers={HEADER_LENGTH: str(len(text))})


def outputs_of(response: Any) -> dict[str, tuple[list[int], Any]]:
    """Return shape and data of each output: JSON values, or the bytes after the JSON text."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(HEADER_LENGTH, len(response.content)))
    message, rest = json.loads(response.content[:length]), response.content[length:]
    found = {}
    for output in message["outputs"]:
        if "data" in output:
            found[output["name"]] = (output["shape"], output["data"])
        else:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]] = (output["shape"], rest[:size])
            rest = rest[size:]
    assert rest == b""
    return found


def texts_of(content: bytes) -> list[str]:
    """Return the elements of a binary BYTES tensor."""
    texts = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        texts.append(content[4 : 4 + length].decode())
        content = content[4 + length :]
    return texts


def answers_of(response: Any) -> tuple[list[str], Rows]:
    """Return labels and probabilities, whichever way they came."""
    outputs = outputs_of(response)
    (_, labels), (shape, probabilities) = outputs["label"], outputs["probabilities"]
    if isinstance(labels, bytes):
        labels = texts_of(labels)
    if isinstance(probabilities, bytes):
        return labels, np.frombuffer(probabilities, "<f8").reshape(shape)
    return labels, np.array(probabilities, np.float64).reshape(shape)


def error_of(response: Any) -> str:
    """Return the sentence of an error, which must be all there is."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    return str(body["error"])


def predicted(client: TestClient, rows: Any) -> tuple[list[str], Rows]:
    """Return the answers of POST /predict."""
    response = client.post("/predict", json={"samples": rows}, headers={"Accept": "application/json"})
    assert response.status_code == 200, response.text
    predictions = response.json()["predictions"]
    labels = [prediction["label"] for prediction in predictions]
    return labels, np.array([list(prediction["probabilities"].values()) for prediction in predictions])


def random_rows(n: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 8, (n, 4)).round(1)


# --- server and model


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_what_it_is(service: TestClient, path: str) -> None:
    response = service.get(path)

    assert response.headers["content-type"] == "application/json"
    assert response.json()["extensions"] == ["binary_tensor_data"]
    assert response.json().keys() == {"name", "version", "extensions"}


def test_a_loaded_server_is_live_and_ready(service: TestClient) -> None:
    assert service.get("/v2/health/live").json()["live"] is True
    assert service.get("/v2/health/ready").json()["ready"] is True


@pytest.mark.parametrize("versioned", [False, True])
def test_the_model_says_what_it_takes_and_gives(service: TestClient, model: LoadedModel, versioned: bool) -> None:
    path = f"/v2/models/iris{f'/versions/{model.version}' if versioned else ''}"

    metadata = service.get(path).json()

    assert metadata["name"] == "iris"
    assert metadata["versions"] == [model.version]
    assert metadata["platform"] == "sklearn_forest"
    assert metadata["inputs"] == [{"name": "samples", "datatype": "FP64", "shape": [-1, 4]}]
    assert metadata["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]},
    ]
    assert json.loads(metadata["properties"]["features"]) == KEYS
    assert json.loads(metadata["properties"]["labels"]) == ["setosa", "versicolor", "virginica"]
    assert service.get(f"{path}/ready").json() == {"name": "iris", "ready": True}
    assert infer(service, samples(), path=f"{path}/infer").json()["model_version"] == model.version


@pytest.mark.parametrize("tail", ["", "/ready", "/infer"])
def test_an_unknown_model_or_version_is_not_found(service: TestClient, model: LoadedModel, tail: str) -> None:
    method = "POST" if tail == "/infer" else "GET"

    for path in ("nobody", f"nobody/versions/{model.version}", "%22%C3%A9%20", "IRIS", "a" * 5_000):
        response = service.request(method, f"/v2/models/{path}{tail}")
        assert response.status_code == 404
        assert 'this server has "iris"' in error_of(response)
    for version in ("1", "latest", model.version.upper() + "0"):
        response = service.request(method, f"/v2/models/iris/versions/{version}{tail}")
        assert response.status_code == 404
        assert f'this server has "{model.version}"' in error_of(response)


@for_each(
    "path",
    ["/v2/nothing", "/v2/health", "/v2/models", "/v2/models/", "/v2/models/iris/config", "/v2/models/iris/stats",
     "/v2/repository/index", "/v2/models/iris/versions", "/v2/%ff%00/" + "a" * 5_000],
)  # fmt: skip
@for_each("method", ["GET", "POST", "DELETE"])
def test_what_the_server_does_not_have_is_told_in_the_protocols_form(
    service: TestClient, path: str, method: str
) -> None:
    response = service.request(method, path)

    assert response.status_code == 404
    assert "this server has no /v2" in error_of(response)


@for_each(
    ("path", "allowed"),
    [("/v2", "GET, HEAD"), ("/v2/health/live", "GET, HEAD"), ("/v2/health/ready", "GET, HEAD"),
     ("/v2/models/iris", "GET, HEAD"), ("/v2/models/iris/ready", "GET, HEAD"), (INFER, "POST")],
)  # fmt: skip
@for_each("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"])
def test_another_method_is_told_which_ones_are_allowed(
    service: TestClient, path: str, allowed: str, method: str
) -> None:
    response = service.request(method, path)

    if method in allowed:
        assert response.status_code in (200, 400)
        return
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    if method != "HEAD":
        assert method in error_of(response)


# --- tensors in JSON


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("data", [ROWS, [value for row in ROWS for value in row]])
def test_data_is_nested_or_flat(service: TestClient, data: Any, indent: int | None) -> None:
    body = json.dumps({"inputs": [samples(data)]}, indent=indent)

    response = service.post(INFER, content=body)

    assert response.headers["content-type"] == "application/json"
    assert HEADER_LENGTH not in response.headers
    labels, probabilities = answers_of(response)
    assert labels == LABELS
    assert probabilities.tolist() == predicted(service, ROWS)[1].tolist()


def test_the_answer_names_model_shapes_and_datatypes(service: TestClient, model: LoadedModel) -> None:
    message = infer(service, samples()).json()

    assert message.keys() == {"model_name", "model_version", "outputs"}
    assert (message["model_name"], message["model_version"]) == ("iris", model.version)
    label, probabilities = message["outputs"]
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [3])
    assert (probabilities["name"], probabilities["datatype"]) == ("probabilities", "FP64")
    assert probabilities["shape"] == [3, 3]
    assert len(probabilities["data"]) == 9


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/html", "x", ""])
def test_json_is_told_from_binary_by_the_header_alone(service: TestClient, content_type: str) -> None:
    body = json.dumps({"inputs": [samples()]})

    response = service.post(INFER, content=body, headers={"Content-Type": content_type} if content_type else {})

    assert answers_of(response)[0] == LABELS


@given(rows=arrays.arrays(np.float64, (7, 4), elements=st.floats(0, 3e38)))
def test_float64_agrees_with_predict_and_scikit_learn_to_the_last_bit(
    service: TestClient, trained: Trained, rows: NDArray[np.float64]
) -> None:
    in_json = answers_of(infer(service, samples(rows.tolist(), shape=[7, 4])))
    in_binary = answers_of(infer_binary(service, rows.tobytes(), binary_samples(rows)))

    expected = predicted(service, rows.tolist())
    assert in_json[0] == in_binary[0] == expected[0]
    assert in_json[1].tobytes() == in_binary[1].tobytes() == expected[1].tobytes()
    assert in_json[1].tobytes() == trained.estimator.predict_proba(rows).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("datatype", DATATYPES)
@given(data=st.data())
def test_every_datatype_agrees_with_predict_and_scikit_learn_in_json_and_binary(
    service: TestClient, trained: Trained, datatype: str, data: st.DataObject
) -> None:
    dtype = np.dtype(DATATYPES[datatype])
    bounds: dict[str, Any] = {"min_value": 0, "max_value": 9 if dtype.kind == "f" else np.iinfo(dtype).max}
    rows = data.draw(arrays.arrays(dtype, (5, 4), elements=bounds))

    in_json = answers_of(infer(service, samples(rows.tolist(), shape=[5, 4], datatype=datatype)))
    in_binary = answers_of(infer_binary(service, rows.tobytes(), binary_samples(rows, datatype)))

    expected = predicted(service, rows.tolist())
    assert in_json[0] == in_binary[0] == expected[0]
    assert in_json[1].tobytes() == in_binary[1].tobytes() == expected[1].tobytes()
    assert in_json[1].tobytes() == trained.estimator.predict_proba(rows.astype(np.float64)).tobytes()


@given(data=st.data())
def test_there_may_be_one_tensor_a_feature_of_any_shape_order_datatype_and_encoding(
    service: TestClient, data: st.DataObject
) -> None:
    inputs, content, columns = [], b"", {}
    for key in data.draw(st.permutations(KEYS)):
        datatype = data.draw(st.sampled_from(sorted(DATATYPES)))
        column = data.draw(arrays.arrays(DATATYPES[datatype], 3, elements={"min_value": 0, "max_value": 9}))
        shape = data.draw(st.sampled_from([[3], [3, 1]]))
        tensor: Json = {"name": key, "shape": shape, "datatype": datatype}
        if data.draw(st.booleans()):
            tensor["parameters"] = {"binary_data_size": column.nbytes}
            content += column.tobytes()
        else:
            tensor["data"] = column.reshape(shape if data.draw(st.booleans()) else [3]).tolist()
        inputs.append(tensor)
        columns[key] = column.tolist()

    answers = answers_of(infer_binary(service, content, *inputs))

    expected = predicted(service, list(zip(*(columns[key] for key in KEYS), strict=True)))
    assert answers[0] == expected[0]
    assert answers[1].tobytes() == expected[1].tobytes()


@pytest.mark.parametrize("datatype", ["FP64", "INT32"])
@pytest.mark.parametrize("shape", ["nested", "flat"])
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\r\n\t ", ": ")])
def test_many_rows_in_json_are_read_in_pieces(
    service: TestClient, model: LoadedModel, datatype: str, shape: str, separators: tuple[str, str]
) -> None:
    rows = random_rows(MANY) if datatype == "FP64" else random_rows(MANY).round()
    data = (rows if datatype == "FP64" else rows.astype(int)).reshape((MANY, 4) if shape == "nested" else -1).tolist()
    body = json.dumps({"inputs": [samples(data, shape=[MANY, 4], datatype=datatype)]}, separators=separators)
    assert len(body) > 1.2 * elements.PIECE_BYTES

    labels, probabilities = answers_of(service.post(INFER, content=body))

    expected = model.predict_batch(rows)
    assert labels == [model.labels[index] for index in expected.indices]
    assert probabilities.tobytes() == expected.outputs.tobytes()


def test_many_rows_let_others_have_a_turn(model: LoadedModel) -> None:
    rows = random_rows(MANY)
    text = json.dumps({"inputs": [samples(rows.tolist(), shape=[MANY, 4])]}).encode()

    async def read() -> Any:
        message, binary = await messages.read(text, None, 4)
        (column,) = await tensors.read(message.inputs, binary, FEATURES, max_samples=MANY)
        return np.asarray(column).tolist()

    column, turns = asyncio.run(turns_during(read()))

    assert column == rows.tolist()
    assert turns >= len(text) // elements.PIECE_BYTES
    assert len(list(batch.slices(model, MANY))) > 1


def test_no_rows_are_no_answers(service: TestClient) -> None:
    empty: list[float] = []
    for data in (empty, None):
        for binary in (False, True):
            tensor = samples(data, shape=[0, 4]) | ({} if data is empty else {"parameters": {"binary_data_size": 0}})
            outputs = outputs_of(infer(service, tensor, parameters={"binary_data_output": binary}))
            assert outputs["label"] == ([0], b"" if binary else [])
            assert outputs["probabilities"] == ([0, 3], b"" if binary else [])


# --- what is asked for, and echoed


@pytest.mark.parametrize(
    "names", [["label"], ["probabilities"], ["probabilities", "label"], ["label", "probabilities"]]
)
@pytest.mark.parametrize("binary", [False, True])
def test_the_outputs_are_those_asked_for_in_that_order(service: TestClient, names: list[str], binary: bool) -> None:
    requested = [{"name": name, "parameters": {"binary_data": binary}} for name in names]

    outputs = outputs_of(infer(service, samples(), outputs=requested))

    assert list(outputs) == names
    assert all(isinstance(content, bytes) == binary for _, content in outputs.values())


@pytest.mark.parametrize("outputs", [[], None])
def test_without_a_wish_all_outputs_are_given(service: TestClient, outputs: Any) -> None:
    assert list(outputs_of(infer(service, samples(), outputs=outputs))) == ["label", "probabilities"]


def test_an_output_of_its_own_mind_overrides_the_request(service: TestClient) -> None:
    requested = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}]

    response = infer(service, samples(), outputs=requested, parameters={"binary_data_output": True})

    outputs = outputs_of(response)
    assert outputs["label"] == ([3], LABELS)
    assert outputs["probabilities"] == ([3, 3], predicted(service, ROWS)[1].tobytes())
    assert response.headers["content-type"] == "application/octet-stream"
    assert int(response.headers[HEADER_LENGTH]) == len(response.content) - 72


def test_binary_labels_have_their_length_before_them(service: TestClient) -> None:
    response = infer(service, samples(), outputs=[{"name": "label", "parameters": {"binary_data": True}}])

    content = response.content[int(response.headers[HEADER_LENGTH]) :]
    assert content == b"\x0a\0\0\0versicolor\x06\0\0\0setosa\x09\0\0\0virginica"


@pytest.mark.parametrize("binary", [False, True])
def test_id_and_parameters_come_back(service: TestClient, binary: bool) -> None:
    parameters = {"trace": "é\n", "priority": 3, "ratio": -1.5e-300, "sure": True, "count": 2**70}
    requested = [{"name": "label", "parameters": {"binary_data": binary, "mine": "x"}}]

    response = infer(service, samples(), id="a\u0000é😀", parameters=parameters, outputs=requested)

    message = json.loads(response.content[: int(response.headers.get(HEADER_LENGTH, len(response.content)))])
    assert message["id"] == "a\u0000é😀"
    assert message["parameters"] == parameters
    assert message["outputs"][0]["parameters"] == {"mine": "x"} | ({"binary_data_size": 37} if binary else {})


# --- binary data


def test_binary_data_alone_are_rows_of_float64(service: TestClient) -> None:
    response = service.post(INFER, content=np.array(ROWS).tobytes(), headers={HEADER_LENGTH: "0"})

    assert response.headers["content-type"] == "application/octet-stream"
    labels, probabilities = answers_of(response)
    assert labels == LABELS
    assert probabilities.tobytes() == predicted(service, ROWS)[1].tobytes()


def test_a_header_of_all_bytes_leaves_no_binary_data(service: TestClient) -> None:
    assert answers_of(infer_binary(service, b"", samples()))[0] == LABELS


@pytest.mark.parametrize(("datatype", "size"), [("FP64", 8), ("FP32", 4)])
def test_json_is_never_taken_for_binary_numbers(service: TestClient, datatype: str, size: int) -> None:
    text = json.dumps({"inputs": [samples()]}).encode()
    text += b"\n" * (-len(text) % (4 * size))
    shape = [len(text) // (4 * size), 4]
    tensor = samples(shape=shape, datatype=datatype, parameters={"binary_data_size": len(text)})
    del tensor["data"]

    alone = service.post(INFER, content=text, headers={HEADER_LENGTH: "0"})
    beside = infer_binary(service, text, tensor)

    assert (alone.status_code, beside.status_code) == (400, 400)
    assert "the body is JSON" in error_of(alone)
    assert "its binary data is JSON" in error_of(beside)


def test_small_integers_may_look_like_json(service: TestClient) -> None:
    rows = np.frombuffer(b"[12]", np.uint8).reshape(1, 4)

    assert answers_of(infer_binary(service, rows.tobytes(), binary_samples(rows, "UINT8")))[0]


def test_the_protocol_keeps_members_that_it_does_not_know(service: TestClient) -> None:
    assert answers_of(infer(service, samples() | {"mine": 1}, theirs=2))[0] == LABELS


@pytest.mark.parametrize("length", ["", "-1", "+1", "1.0", "x", "1_0", "٣", "999999", "9" * 5_000])
def test_a_wrong_header_length_is_refused(service: TestClient, length: str) -> None:
    response = service.post(INFER, content=b"{}", headers={HEADER_LENGTH.encode(): length.encode()})

    assert response.status_code == 400
    assert HEADER_LENGTH in error_of(response)


@for_each(
    ("content", "tensor", "sentence"),
    [
        (b"", {"parameters": {"binary_data_size": 96}}, "0 bytes are left"),
        (bytes(95), {"parameters": {"binary_data_size": 96}}, "95 bytes are left"),
        (bytes(97), {"parameters": {"binary_data_size": 96}}, "1 bytes of binary data belong to no input"),
        (bytes(96), {}, "96 bytes of binary data belong to no input"),
        (bytes(96), {"parameters": {}}, "belong to no input"),
        (bytes(96), {"parameters": {"binary_data_size": 96}, "data": [1]}, "both data and"),
        (bytes(96), {"parameters": {"binary_data_size": -1}}, "binary_data_size -1"),
        (bytes(96), {"parameters": {"binary_data_size": True}}, "binary_data_size true"),
        (bytes(96), {"parameters": {"binary_data_size": 96.0}}, "binary_data_size 96.0"),
        (bytes(96), {"parameters": {"binary_data_size": "96"}}, 'binary_data_size "96"'),
        (bytes(96), {"parameters": {"binary_data_size": 10**400}}, "binary_data_size a number of many digits"),
        (bytes(88), {"parameters": {"binary_data_size": 88}}, "has 88 bytes of data; 3 x 4 FP64 take 96"),
        (bytes(96), {"parameters": {"binary_data_size": 96}, "datatype": "FP32"}, "3 x 4 FP32 take 48"),
        (bytes(96), {"parameters": {"binary_data_size": 96}, "shape": [2**62, 4]}, "at most 10000 samples"),
        (bytes(96), {"parameters": {"binary_data_size": 96}, "shape": [0, 4]}, "0 x 4 FP64 take 0"),
    ],
)
def test_binary_data_of_another_size_is_refused(
    service: TestClient, content: bytes, tensor: Json, sentence: str
) -> None:
    response = infer_binary(service, content, {"name": "samples", "shape": [3, 4], "datatype": "FP64"} | tensor)

    assert response.status_code in (400, 413)
    assert sentence in error_of(response)


@pytest.mark.parametrize("size", [1, 8, 31, 33])
def test_binary_data_alone_must_be_whole_rows(service: TestClient, size: int) -> None:
    response = service.post(INFER, content=bytes(size), headers={HEADER_LENGTH: "0"})

    assert response.status_code == 400
    assert f"has {size} bytes of data" in error_of(response)


# --- compressed bodies


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_body_may_be_compressed(service: TestClient, encoding: str, compress: Any) -> None:
    rows = random_rows(5_000)
    text = json.dumps({"inputs": [binary_samples(rows)]}).encode()
    headers = {HEADER_LENGTH: str(len(text)), "Content-Encoding": encoding}

    labels, probabilities = answers_of(service.post(INFER, content=compress(text + rows.tobytes()), headers=headers))

    expected = predicted(service, rows.tolist())
    assert labels == expected[0]
    assert probabilities.tobytes() == expected[1].tobytes()


@pytest.mark.parametrize(
    ("encoding", "content", "status", "sentence"),
    [
        ("gzip", b"", 400, "ends early"),
        ("gzip", gzip.compress(b" " * 100, mtime=0)[:-9], 400, "ends early"),
        ("gzip", b"{}" * 50, 400, "is not gzip"),
        ("deflate", b"{}" * 50, 400, "is not deflate"),
        ("gzip", gzip.compress(bytes(13 * 2**20), mtime=0), 413, "more than 12582912 bytes"),
        ("br", b"{}", 415, "'br' is not known"),
        ("gzip, gzip", b"{}", 415, "is not known"),
    ],
)
def test_a_badly_compressed_body_is_refused(
    service: TestClient, encoding: str, content: bytes, status: int, sentence: str
) -> None:
    response = service.post(INFER, content=content, headers={"Content-Encoding": encoding})

    assert response.status_code == status
    assert sentence in error_of(response)


# --- what is refused


# From Python 3.14 on the stack is the limit, which takes more levels than may stand beside the data.
TOO_DEEP = "nested too deeply" if sys.version_info < (3, 14) else "wrong form"


@for_each(
    ("body", "sentence"),
    [
        (b"", "is empty: send JSON"), (b" \n", "is empty: send JSON"),
        (b"{", "is not JSON"), (b"x", "is not JSON"), (b"\xff", "is not JSON"),
        (b'{"inputs": [], "id": "\\ud800"}', "is not JSON"),
        (b'{"inputs": [{"name": "samples", "shape": [1, 4], "datatype": "FP64", "data": [NaN]}]}', "is not JSON"),
        (b"[" * 100_000, "wrong form"), (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", TOO_DEEP),
        (b"[]", "wrong form"), (b"1", "wrong form"), (b"null", "wrong form"), (b"{}", "wrong form"),
        (b'{"inputs": 1}', "wrong form"), (b'{"inputs": null}', "wrong form"), (b'{"inputs": [1]}', "wrong form"),
        (b'{"inputs": [{}]}', "wrong form"), (b'{"inputs": [], "id": 1}', "`$.id`"),
        (b'{"inputs": [], "parameters": {"a": [1]}}', "`$.parameters[...]`"),
        (b'{"inputs": [], "parameters": {"a": null}}', "`$.parameters[...]`"),
        (b'{"inputs": [], "parameters": {"a": 1e999}}', "`$.parameters[...]`"),
        (b'{"inputs": [], "outputs": [1]}', "`$.outputs[0]`"),
        (b'{"inputs": []}', 'input "sepal_length" is missing'),
    ],
)  # fmt: skip
def test_another_body_than_a_request_is_refused(service: TestClient, body: bytes, sentence: str) -> None:
    response = service.post(INFER, content=body)

    assert response.status_code == 400
    assert sentence in error_of(response)


@for_each(
    ("changes", "sentence"),
    [
        ({"name": "sampels"}, 'input "sampels" is not known; send one input "samples" of shape [n, 4]'),
        ({"name": "é" * 5_000}, "is not known"),
        ({"name": "petal_width", "shape": [3]}, 'input "sepal_length" is missing'),
        *[({"datatype": name}, f'datatype "{name}"') for name in ("BOOL", "BYTES", "BF16", "fp64", "", "FP128")],
        ({"datatype": "x" * 5_000}, "known are FP64, FP32"),
        *[({"shape": shape}, "not [n, 4]") for shape in ([], [4], [12], [3, 5], [4, 3], [3, 4, 1], [-3, 4], [3, -4])],
        ({"shape": [1] * 1_000}, "has the shape [1, 1, 1, 1, …]"),
        ({"shape": [3, 10**300]}, "has the shape [3, a number of many digits]"),
        ({"shape": [2, 4]}, "has more than 2 x 4 numbers"),
        ({"shape": [4, 4]}, "has 12 numbers; its shape has 4 x 4"),
        ({"shape": [0, 4]}, "has more than 0 x 4 numbers"),
        *[({"shape": shape}, "wrong form") for shape in WRONG_SHAPES],
        *[({"data": data}, "must be an array") for data in (1, "x", {}, True, {"a": [1]})],
        ({"data": None}, "neither data nor"),
        ({"data": []}, "has 0 numbers"),
        ({"data": [[]]}, "a row of 0 numbers, not 4"),
        ({"data": [*ROWS[:2], ROWS[2][:3]]}, "a row of 3 numbers, not 4"),
        ({"data": [*ROWS[:2], 1]}, "neither flat nor one array a row"),
        ({"data": [1, *ROWS]}, "row 0, column 1: a list is not a number"),
        ({"data": [ROWS]}, "row of 3 numbers, not 4"),
        ({"data": [[[1]], [[1]], [[1]]]}, "a row of 1 numbers, not 4"),
        *[
            ({"data": [*ROWS[:2], [6.3, value, 5.6, 1.8]]}, f"row 2, column 1: {shown} is not a number of type FP64")
            for value, shown in [("2.9", '"2.9"'), (True, "true"), ({}, "an object"), ([], "a list"),
                                 ("],[", '"],["'), ("x" * 5_000, '"' + "x" * 63 + "…")]
        ],
        ({"data": [1.0, 2.0, 3.0, "4"]}, 'row 0, column 3: "4" is not a number'),
        ({"data": ROWS, "datatype": "INT32"}, "row 0, column 0: 5.6 is not a number of type INT32"),
        ({"data": [[1, 2, 3, 4.0]] * 3, "datatype": "INT32"}, "row 0, column 3: 4.0 is not a number of type INT32"),
        ({"data": [[1, 2, 3, 4], [1, 2, 3, 128], [1, 2, 3, 4]], "datatype": "INT8"}, "row 1, column 3: 128 is not"),
        ({"data": [[1, 2, 3, -1]] * 3, "datatype": "UINT64"}, "row 0, column 3: -1 is not"),
        ({"data": [[1, 2, 3, 2**64]] * 3, "datatype": "UINT64"}, "18446744073709551616 is not"),
        ({"data": [[1, 2, 3, -(10**4_200)]] * 3, "datatype": "INT64"}, "a number of many digits is not"),
        ({"data": [[1, 2, 3, True]] * 3, "datatype": "INT64"}, "true is not"),
        ({"parameters": {"shared_memory_region": "r"}}, "shares no memory"),
    ],
)  # fmt: skip
def test_another_input_than_the_models_is_refused(service: TestClient, changes: Json, sentence: str) -> None:
    body = json.dumps({"inputs": [samples(**changes) if "data" not in changes else samples() | changes]})

    response = service.post(INFER, content=body)

    assert response.status_code == 400
    assert sentence in error_of(response)


def test_inputs_that_do_not_go_together_are_refused(service: TestClient) -> None:
    def feature(key: str, n: int = 1) -> Json:
        return {"name": key, "shape": [n], "datatype": "FP64", "data": [1.0] * n}

    features = [feature(key) for key in KEYS]
    for inputs, sentence in [
        ([samples(), samples()], "two inputs have the same name"),
        ([*features, feature(KEYS[0])], "two inputs have the same name"),
        ([*features, samples()], 'other inputs beside "samples"'),
        ([*features, feature("color")], 'input "color" is not known'),
        (features[:3], 'input "petal_width" is missing'),
        ([*features[:3], feature(KEYS[3], 2)], "different numbers of samples"),
        ([*features[:3], feature(KEYS[3]) | {"shape": [1, 4]}], 'input "petal_width" has the shape [1, 4], not [n] or'),
    ]:
        response = infer(service, *inputs)
        assert response.status_code == 400
        assert sentence in error_of(response)


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ([{"name": "labels"}], 'output "labels" is not known'),
        ([{"name": "label"}, {"name": "label"}], "asked for twice"),
        ([{"name": "label", "parameters": {"binary_data": 1}}], "binary_data is either true or false"),
        ([{"name": "probabilities", "parameters": {"classification": 2}}], "classification"),
        ([{"name": "label", "parameters": {"shared_memory_region": "r"}}], "shared_memory_region"),
    ],
)
def test_another_output_than_the_models_is_refused(service: TestClient, outputs: list[Json], sentence: str) -> None:
    response = infer(service, samples(), outputs=outputs)

    assert response.status_code == 400
    assert sentence in error_of(response)


@for_each(
    ("value", "datatype", "why"),
    [(-0.1, "FP64", "must be 0 cm or more"), (-1.0, "FP32", "must be 0 cm or more"), (-3, "INT8", "0 cm or more"),
     (1e39, "FP64", "petal length"), (np.inf, "FP64", "petal length"), (np.nan, "FP64", "petal length"),
     (np.inf, "FP32", "petal length"), (np.nan, "FP16", "petal length"), (-np.inf, "FP16", "petal length"),
     (-1e-320, "FP64", "must be 0 cm or more")],
)  # fmt: skip
@for_each("place", [0, 3_000, MANY - 1])
def test_a_row_that_the_validator_refuses_is_named_with_feature_and_reason(
    service: TestClient, value: float, datatype: str, why: str, place: int
) -> None:
    rows = np.ones((MANY, 4), DATATYPES[datatype])
    rows[place, 2] = value

    response = infer_binary(service, rows.tobytes(), binary_samples(rows, datatype))

    assert response.status_code == 422
    assert error_of(response).startswith(f"row {place}: petal length ")
    assert why in error_of(response)


@for_each("number", ["1e999", "-1e999", "1" + "0" * 400, "1" + "0" * 5_000, "3.5e38"])
@for_each("datatype", ["FP64", "FP32"])
def test_a_number_in_json_beyond_float32_is_named(service: TestClient, number: str, datatype: str) -> None:
    body = json.dumps({"inputs": [samples([[1, 1, 1, 1], [1, "?", 1, 1], [1, 1, 1, 1]], datatype=datatype)]})

    response = service.post(INFER, content=body.replace('"?"', number))

    assert response.status_code == 422
    assert error_of(response).startswith("row 1: sepal width")


@pytest.mark.parametrize("number", ["1" + "0" * 5_000, "-1" + "0" * 5_000])
def test_an_integer_of_thousands_of_digits_is_named(service: TestClient, number: str) -> None:
    body = json.dumps({"inputs": [samples([1, 1, 1, 1, 1, "?", 1, 1], shape=[2, 4], datatype="UINT64")]})

    response = service.post(INFER, content=body.replace('"?"', number))

    assert response.status_code == 400
    assert "row 1, column 1: a number of many digits is not a number of type UINT64" in error_of(response)


@pytest.mark.parametrize("binary", [False, True])
def test_too_many_samples_are_too_large(model_path: Path, binary: bool) -> None:
    rows = np.ones((6, 4))
    with TestClient(create_app(Settings(model_file=model_path, max_samples=5))) as client:
        responses = [
            infer_binary(client, rows[:n].tobytes(), binary_samples(rows[:n]))
            if binary
            else infer(client, samples(rows[:n].tolist(), shape=[n, 4]))
            for n in (5, 6)
        ]

    assert [response.status_code for response in responses] == [200, 413]
    assert error_of(responses[1]) == "at most 5 samples are allowed in one request, not 6"


def test_a_refusal_says_when_to_come_back(model_path: Path) -> None:
    with TestClient(create_app(Settings(model_file=model_path, max_pending_bytes=2**16))) as client:
        response = client.post("/v2/models/iris/infer", content=b" " * 100_000)

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "try again later" in response.json()["error"]


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body_is_told_in_the_protocols_form(model_path: Path, chunked: bool) -> None:
    content = json.dumps({"inputs": [samples()]}).encode()
    with TestClient(create_app(Settings(model_file=model_path, max_body_bytes=len(content)))) as client:
        accepted, refused = (
            client.post(INFER, content=iter([body]) if chunked else body) for body in (content, content + b" ")
        )

    assert accepted.status_code == 200
    assert refused.status_code == 413
    assert error_of(refused) == f"the body has more than {len(content)} bytes"


@for_each(
    ("body", "sentence"),
    [
        (b'{"inputs": [' + b'{"name": "", "shape": [], "datatype": ""},' * 10_000 + b"{}]}", "beside its data"),
        (b'{"inputs": [], "outputs": [' + b'{"name":""},' * 100_000 + b'{"name":""}]}', "beside its data"),
        (b'{"inputs": [{"name": "", "datatype": "", "shape": [' + b"1," * 10**6 + b"1]}]}", "beside its data"),
        (b'{"inputs": [' + b'{"data":[1]},' * 10**5 + b"{}]}", "beside its data"),
        (b'{"inputs": [' + b'"data":' * 10**5 + b"{}]}", "beside its data"),
        (b'{"inputs": [], "id": "' + b"x" * 10**6 + b'"}', "beside its data"),
        (b'{"inputs": [], "parameters": {' + b'"a": 1,' * 10**5 + b'"a": 1}}', "beside its data"),
        (b'{"inputs": [' + b" " * 10**6 + b"]}", "beside its data"),
        (b'{"inputs": [{"data": [' + b"1," * 10**6 + b'1]}], "inputs": []}', "wrong form"),
        (b'{"inputs": [], "parameters": {"data": [' + b"1," * 10**6 + b"1]}}", "belong to no input"),
        (b'{"inputs": [], "data": [' + b"1," * 10**6 + b"1]}", "belong to no input"),
        (b'{"inputs": [{"data": [' + b"1," * 10**6 + b"1]", "beside its data"),
        (b'{"inputs": [{"data": [' + b"1," * 10**6, "beside its data"),
        (large("[" + "1," * 10**6 + "1]"), "more than 3 x 4 numbers"),
        (large("[" + "[]," * 10**6 + "[]]"), "a row of 0 numbers"),
        (large("[[" + "1," * 10**6 + "1]]"), "takes more than 1048576 bytes"),
        (large("[" + "[" * 10**6 + "]" * 10**6 + "]"), "must be an array of numbers"),
        (large("[" + "[" * 10**6 + "]"), "beside its data"),
        (large(json.dumps("x" * 10**6)), "beside its data"),
        (large(json.dumps(["x" * 10**6])), "is not a number of type FP64"),
        *[(large(f"[{' ' * 10**6}{array}]"), "must be an array of numbers") for array in NO_ARRAYS],
    ],
)
def test_a_large_body_without_rows_is_refused_early(service: TestClient, body: bytes, sentence: str) -> None:
    response = service.post(INFER, content=body)

    assert response.status_code == 400
    assert sentence in error_of(response)


# --- anything at all

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=15,
)
_parameters = st.dictionaries(
    st.sampled_from(["binary_data", "binary_data_size", "binary_data_output", "x"]),
    _json | st.booleans() | st.integers(0, 200),
)
_shapes = st.lists(st.integers(-1, 5) | st.sampled_from([4, 2**31, 2**32, 2**62, 2**63, 2**64, 10**50]), max_size=3)
_tensor = st.fixed_dictionaries(
    {"name": st.sampled_from(["samples", *KEYS, "x"]), "shape": _shapes | _json},
    optional={
        "datatype": st.sampled_from([*DATATYPES, "BYTES", "BOOL"]) | _json,
        "data": st.lists(st.lists(st.floats(0, 9), min_size=4, max_size=4), max_size=4) | st.lists(st.floats()) | _json,
        "parameters": _parameters | _json,
    },
)
_request = st.fixed_dictionaries(
    {"inputs": st.lists(_tensor, max_size=5) | _json},
    optional={
        "id": st.text(max_size=5) | _json,
        "parameters": _parameters | _json,
        "outputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["label", "probabilities", "value"])}, optional={"parameters": _parameters}
            ),
            max_size=3,
        )
        | _json,
    },
)


@given(body=_json | _request)
def test_any_json_gets_an_answer_or_an_error_of_the_protocol(service: TestClient, body: Any) -> None:
    response = service.post(INFER, content=json.dumps(body))

    if response.status_code != 200:
        assert response.status_code in (400, 413, 422)
        assert error_of(response)


_MARKS = st.sampled_from(["", "[", "]", ",", '"', "{", "}", ":", "0", " ", "[1]", '"data": [1], ', '"data"', "\\"])


@given(data=st.data(), nested=st.booleans(), names=st.permutations(["name", "shape", "datatype", "data"]))
def test_a_large_request_is_read_as_a_small_one_is(
    service: TestClient, data: st.DataObject, nested: bool, names: list[str]
) -> None:
    tensor = samples(ROWS if nested else [value for row in ROWS for value in row])
    text = json.dumps({"inputs": [{name: tensor[name] for name in names}], "id": "x"})
    position = data.draw(st.integers(0, len(text)))
    text = text[:position] + data.draw(_MARKS) + text[position + data.draw(st.integers(0, 1)) :]

    small = service.post(INFER, content=text)
    large = service.post(INFER, content=text.replace('"data": [', f'"data": [{" " * 2**18}'))

    if small.status_code == 200:
        # One thing is refused: arrays that are nobody's.
        assert large.content == small.content or "belong to no input" in error_of(large)
    else:
        assert large.status_code in (400, 422)
        assert error_of(large)


@given(body=_request, content=st.binary(max_size=200), length=st.none() | st.integers(0, 400))
def test_any_binary_garbage_gets_an_answer_or_an_error_of_the_protocol(
    service: TestClient, body: Any, content: bytes, length: int | None
) -> None:
    text = json.dumps(body).encode()
    header = str(len(text) if length is None else length)

    response = service.post(INFER, content=text + content, headers={HEADER_LENGTH: header})

    if response.status_code != 200:
        assert response.status_code in (400, 413, 422)
        assert error_of(response)


@given(rows=arrays.arrays(np.uint8, st.integers(0, 40)), datatype=st.sampled_from(sorted(DATATYPES)))
def test_any_bytes_are_rows_or_refused_as_predict_refuses_them(
    service: TestClient, rows: NDArray[np.uint8], datatype: str
) -> None:
    dtype = np.dtype(DATATYPES[datatype])
    numbers = np.frombuffer(rows.tobytes()[: len(rows) // (4 * dtype.itemsize) * 4 * dtype.itemsize], dtype)
    numbers = numbers.reshape(-1, 4)

    response = infer_binary(service, numbers.tobytes(), binary_samples(numbers, datatype))

    with np.errstate(invalid="ignore"):  # a signaling NaN
        values = numbers.astype(np.float64)
    if np.isfinite(values).all() and (values >= 0).all() and (values <= 3e38).all():
        assert answers_of(response)[1].tobytes() == predicted(service, values.tolist())[1].tobytes()
    elif not (np.isfinite(values).all() and (values >= 0).all()):
        assert response.status_code == 422
        assert error_of(response).startswith("row ")


@given(
    rows=st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4), max_size=9),
    blanks=st.sampled_from(["", " ", "\n\t", "\r\n    "]),
    nested=st.booleans(),
    piece_bytes=st.integers(1, 60),
)
def test_wherever_json_data_is_cut_it_is_the_same(
    rows: list[list[float]], blanks: str, nested: bool, piece_bytes: int
) -> None:
    comma = f"{blanks},{blanks}"
    inner = [comma.join(map(repr, row)) for row in rows]
    text = comma.join(f"[{blanks}{row}{blanks}]" for row in inner) if nested else comma.join(inner)
    tensor = InferenceInput(name="samples", shape=[len(rows), 4], datatype="FP64")
    tensor.data = Raw(f"[{blanks}{text}{blanks}]".encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elements, "PIECE_BYTES", piece_bytes)
        (column,) = asyncio.run(tensors.read([tensor], memoryview(b""), FEATURES, max_samples=9))

    assert np.asarray(column).tobytes() == np.array(rows, np.float64).reshape(-1, 4).tobytes()


# --- other models


def served(dataset: Dataset, directory: Path) -> tuple[TestClient, Trained]:
    trained = fitting.fit(dataset, Recipe(n_estimators=5))
    path = directory / "other.npz"
    writing.write(writing.model_of(trained), path, trained=trained)
    return TestClient(create_app(Settings(model_file=path))), trained


@pytest.mark.parametrize("key", ["mass", "samples"])
def test_a_model_of_one_feature_takes_it_either_way(tmp_path: Path, key: str) -> None:
    rows = np.arange(60.0)[:, np.newaxis]
    feature = Feature(key=key, title="mass", maximum=100.0)
    labels = ("léger", "lourd\n", "")
    client, trained = served(
        dataset_of(rows, np.arange(60) // 20, features=(feature,), labels=labels, name="poids & co"), tmp_path
    )
    path = f"/v2/models/{quote('poids & co')}/infer"

    with client:
        for name in {key, "samples"}:
            for shape in [[60], [60, 1]]:
                for binary in (False, True):
                    tensor = {"name": name, "shape": shape, "datatype": "FP64", "data": rows.reshape(shape).tolist()}
                    response = infer(client, tensor, path=path, parameters={"binary_data_output": binary})
                    answered, probabilities = answers_of(response)
                    assert answered == [labels[index] for index in trained.estimator.predict(rows)]
                    assert probabilities.tobytes() == trained.estimator.predict_proba(rows).tobytes()
        response = infer(client, {"name": key, "shape": [2], "datatype": "INT8", "data": [100, 101]}, path=path)
        assert error_of(response) == "row 1: mass must be 100 or less, not 101.0"


def test_a_limit_that_float32_cannot_hold_admits_itself_in_float32(tmp_path: Path) -> None:
    rows = np.linspace(0, 0.1, 60)[:, np.newaxis]
    feature = Feature(key="share", title="share", maximum=0.1)
    client, _ = served(
        dataset_of(rows, np.arange(60) // 30, features=(feature,), labels=("low", "high"), name="shares"), tmp_path
    )

    with client:
        for datatype in ("FP64", "FP32"):
            tensor = {"name": "share", "shape": [1], "datatype": datatype, "data": [0.1]}
            assert infer(client, tensor, path="/v2/models/shares/infer").status_code == 200
        tensor = {"name": "share", "shape": [2], "datatype": "FP32", "data": [0.1, 0.10000002]}
        assert error_of(infer(client, tensor, path="/v2/models/shares/infer")).startswith("row 1: share must be 0.1")


def test_a_model_of_many_features_and_labels_agrees_with_scikit_learn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(240) % 12
    rows = (rng.normal(size=(240, 40)) + classes[:, np.newaxis]).round(2)
    features = tuple(Feature(key=f"f{i}", title=f"feature {i}") for i in range(40))
    labels = tuple(f"label {i}" for i in range(12))
    client, trained = served(dataset_of(rows, classes, features=features, labels=labels, name="wide"), tmp_path)
    many = rng.normal(size=(3_000, 40)) * 6

    with client:
        tensor = {"name": "samples", "shape": [3_000, 40], "datatype": "FP64", "data": many.tolist()}
        answered, probabilities = answers_of(infer(client, tensor, path="/v2/models/wide/infer"))

        expected = trained.estimator.predict_proba(many)
        assert probabilities.tobytes() == expected.tobytes()
        assert answered == [labels[index] for index in expected.argmax(axis=1)]
        unknown = infer(client, tensor | {"name": "x"}, path="/v2/models/wide/infer")
        assert error_of(unknown).endswith("f8, f9, …")


def test_columns_of_another_number_than_the_shape_are_a_problem_of_400() -> None:
    tensor = InferenceInput(name="x", shape=[1], datatype="FP64", parameters={"binary_data_size": 8})

    with pytest.raises(Problem) as caught:
        asyncio.run(tensors.read([tensor], memoryview(bytes(9)), [Feature(key="x", title="x")], max_samples=1))

    assert caught.value.details.status == 400
