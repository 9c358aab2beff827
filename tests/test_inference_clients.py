"""Clients that others have, unchanged, against the real server: tritonclient, sync and asyncio, and KServe's SDK."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]  # it has no types
import tritonclient.http.aio as triton_async  # type: ignore[import-untyped]  # it has no types
from numpy.typing import NDArray
from tritonclient.utils import (  # type: ignore[import-untyped]  # it has no types
    InferenceServerException,
    np_to_triton_dtype,
)

from ml.model.loaded import LoadedModel
from ml.training.fitting import Trained
from ml.training.writing import outputs_of as outputs_of_estimator
from tests import small_tables
from tests.conftest import Server, run_server

KEYS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
DTYPES = ["float64", "float32", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
MANY = 10_000

Rows = NDArray[Any]


def rows_of(n: int, dtype: str = "float64") -> Rows:
    return np.random.default_rng(n).uniform(0, 8, (n, 4)).round(1).astype(dtype)


def expected(trained: Trained, rows: Rows) -> tuple[list[str], bytes]:
    """Return scikit-learn's labels, and its probabilities bit for bit."""
    values = rows.astype(np.float64)
    labels = [trained.target.labels[index] for index in trained.estimator.predict(values)]
    return labels, trained.estimator.predict_proba(values).tobytes()


# --- tritonclient


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
        yield client


@contextlib.asynccontextmanager
async def opened(server: Server) -> AsyncIterator[Any]:
    async with triton_async.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def inputs_of(rows: Rows, *, binary: bool = True) -> list[Any]:
    tensor = triton.InferInput("samples", list(rows.shape), np_to_triton_dtype(rows.dtype))
    return [tensor.set_data_from_numpy(rows, binary_data=binary)]


def outputs_of(*, binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]


def answers_of(result: Any) -> tuple[list[str], bytes]:
    labels = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("label").tolist()]
    return labels, result.as_numpy("probabilities").tobytes()


def test_tritonclient_finds_server_and_model(client: Any, model: LoadedModel) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", model.version)
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("iris", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("iris") == client.get_model_metadata("iris", model.version)
    assert client.get_model_metadata("iris")["inputs"][0]["shape"] == [-1, 4]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
def test_tritonclient_gets_scikit_learns_answers(
    client: Any, trained: Trained, binary_in: bool, binary_out: bool | None
) -> None:
    rows = rows_of(50)
    outputs = None if binary_out is None else outputs_of(binary=binary_out)

    result = client.infer("iris", inputs_of(rows, binary=binary_in), outputs=outputs, request_id="é1")

    assert answers_of(result) == expected(trained, rows)
    assert result.get_response()["id"] == "é1"
    assert ("data" in result.get_output("label")) == (binary_out is False)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tritonclient_sends_any_number_type(client: Any, trained: Trained, dtype: str, binary: bool) -> None:
    rows = rows_of(50, dtype)

    assert answers_of(client.infer("iris", inputs_of(rows, binary=binary))) == expected(trained, rows)


@pytest.mark.parametrize("n", [0, 1, MANY])
def test_tritonclient_sends_no_rows_one_or_as_many_as_are_allowed(client: Any, trained: Trained, n: int) -> None:
    rows = rows_of(n)

    result = client.infer("iris", inputs_of(rows))

    assert result.as_numpy("probabilities").shape == (n, 3)
    if n:
        assert answers_of(result) == expected(trained, rows)


def test_tritonclient_sends_a_tensor_a_feature(client: Any, trained: Trained, model: LoadedModel) -> None:
    rows = rows_of(50, "float32")
    inputs = []
    for index, key in reversed(list(enumerate(KEYS))):
        column = rows[:, index : index + 1] if index % 2 else rows[:, index]
        inputs.append(triton.InferInput(key, list(column.shape), "FP32").set_data_from_numpy(column, index > 1))

    result = client.infer("iris", inputs, model_version=model.version, parameters={"trace": 7}, timeout=9)

    assert answers_of(result) == expected(trained, rows)
    assert result.get_response()["parameters"] == {"trace": 7, "timeout": 9}


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritonclient_may_compress(client: Any, trained: Trained, algorithm: str) -> None:
    rows = rows_of(50)

    result = client.infer(
        "iris", inputs_of(rows), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )

    assert answers_of(result) == expected(trained, rows)


@pytest.mark.parametrize(
    ("rows", "arguments", "status", "sentence"),
    [
        (rows_of(1), {"model_name": "nobody"}, "404", 'no model is called "nobody"; this server has "iris"'),
        (rows_of(1), {"model_version": "1"}, "404", 'model "iris" has no version "1"'),
        (rows_of(1)[:, :3], {}, "400", 'input "samples" has the shape [1, 3], not [n, 4]'),
        (-rows_of(1), {}, "422", "row 0: sepal length must be 0 cm or more"),
        (rows_of(MANY + 1), {}, "413", "at most 10000 samples are allowed in one request, not 10001"),
        (rows_of(1), {"outputs": [triton.InferRequestedOutput("x")]}, "400", 'output "x" is not known'),
    ],
    ids=["model", "version", "shape", "limits", "samples", "output"],
)
def test_tritonclient_raises_our_sentences(
    server: Server, rows: Rows, arguments: dict[str, Any], status: str, sentence: str
) -> None:
    request = {"model_name": "iris", "inputs": inputs_of(rows)} | arguments

    async def ask() -> None:
        async with opened(server) as client:
            await client.infer(**request)

    with (
        contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{server.port}")) as client,
        pytest.raises(InferenceServerException) as caught,
    ):
        client.infer(**request)
    with pytest.raises(InferenceServerException) as caught_async:
        asyncio.run(ask())

    for error in (caught.value, caught_async.value):
        assert error.status() == status
        assert sentence in error.message()


def test_tritonclient_hears_that_a_body_is_too_large(client: Any) -> None:
    for _ in range(3):
        with pytest.raises(InferenceServerException, match="the body has more than 12582912 bytes") as caught:
            client.infer("iris", inputs_of(np.ones((500_000, 4))))
        assert caught.value.status() == "413"
    assert client.is_server_ready()


def test_tritonclient_learns_what_the_server_does_not_do(client: Any) -> None:
    for ask in (client.get_model_config, client.get_inference_statistics, client.load_model):
        with pytest.raises(InferenceServerException, match="this server has no /v2/") as caught:
            ask("iris")
        assert caught.value.status() == "404"


@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_works_with_asyncio(server: Server, trained: Trained, model: LoadedModel, binary: bool) -> None:
    batches = [rows_of(n) for n in range(1, 20)]

    async def ask() -> list[Any]:
        async with opened(server) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("iris", model.version)
            assert not await client.is_model_ready("nobody")
            assert (await client.get_server_metadata())["name"]
            assert (await client.get_model_metadata("iris"))["versions"] == [model.version]
            outputs = outputs_of(binary=binary)
            requests = [
                client.infer("iris", inputs_of(rows, binary=binary), outputs=outputs, request_id=str(len(rows)))
                for rows in batches
            ]
            return await asyncio.gather(*requests)

    results = asyncio.run(ask())

    assert [answers_of(result) for result in results] == [expected(trained, rows) for rows in batches]
    assert [result.get_response()["id"] for result in results] == [str(len(rows)) for rows in batches]


def test_tritonclient_with_asyncio_asks_for_binary_by_default(server: Server, trained: Trained) -> None:
    rows = rows_of(7)

    async def ask() -> Any:
        async with opened(server) as client:
            return await client.infer("iris", inputs_of(rows, binary=False), request_compression_algorithm="gzip")

    result = asyncio.run(ask())

    assert answers_of(result) == expected(trained, rows)
    assert result.get_output("label")["parameters"]["binary_data_size"] > 0


# --- KServe's SDK


def kserve() -> Any:
    """Return KServe's SDK. It takes a second to import, and each process that runs any test collects all."""
    if sys.version_info >= (3, 14):
        pytest.skip("KServe's SDK refuses Python 3.14")
    import kserve  # type: ignore[import-untyped]  # it has no types

    return kserve


def ask_kserve(server: Server, request: Any, model_name: str = "iris") -> Any:
    async def ask() -> Any:
        async with kserve().InferenceRESTClient(kserve().RESTConfig(protocol="v2")) as client:
            return await client.infer(server.url, request, model_name=model_name)

    return asyncio.run(ask())


def test_kserve_finds_server_and_model(server: Server) -> None:
    async def ask() -> list[bool]:
        async with kserve().InferenceRESTClient(kserve().RESTConfig(protocol="v2")) as client:
            return [
                await client.is_server_live(server.url),
                await client.is_server_ready(server.url),
                await client.is_model_ready(server.url, "iris"),
                await client.is_model_ready(server.url, "nobody"),
            ]

    assert asyncio.run(ask()) == [True, True, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_kserve_gets_scikit_learns_answers(
    server: Server, trained: Trained, dtype: str, binary_in: bool, binary_out: bool
) -> None:
    rows = rows_of(50, dtype)
    if dtype == "float16" and not binary_in:
        rows = rows.astype(np.float32)  # the SDK itself refuses FP16 as JSON
    tensor = kserve().InferInput("samples", list(rows.shape), np_to_triton_dtype(rows.dtype))
    tensor.set_data_from_numpy(rows, binary_data=binary_in)
    wanted = [
        kserve().protocol.infer_type.RequestedOutput(name, {"binary_data": binary_out})
        for name in ("probabilities", "label")
    ]

    response = ask_kserve(server, kserve().InferRequest("iris", [tensor], request_id="7", request_outputs=wanted))

    probabilities, labels = response.outputs
    assert (labels.data, probabilities.as_numpy().tobytes()) == expected(trained, rows)
    assert (response.id, response.model_name) == ("7", "iris")


@pytest.mark.parametrize("n", [0, 1, MANY])
def test_kserve_sends_no_rows_one_or_as_many_as_are_allowed(server: Server, trained: Trained, n: int) -> None:
    rows = rows_of(n)
    tensor = kserve().InferInput("samples", list(rows.shape), "FP64")
    tensor.set_data_from_numpy(rows)

    labels, probabilities = ask_kserve(server, kserve().InferRequest("iris", [tensor])).outputs

    assert probabilities.as_numpy().shape == (n, 3)
    if n:
        assert (labels.data, probabilities.as_numpy().tobytes()) == expected(trained, rows)


def test_kserve_sends_plain_data(server: Server, trained: Trained) -> None:
    rows = rows_of(3)
    tensor = {"name": "samples", "shape": [3, 4], "datatype": "FP64", "data": rows.tolist()}

    labels, probabilities = ask_kserve(server, {"inputs": [tensor], "parameters": {"trace": "x"}}).outputs

    assert (labels.data, probabilities.as_numpy().tobytes()) == expected(trained, rows)


def test_kserve_raises_our_sentences(server: Server) -> None:
    tensor = kserve().InferInput("samples", [1, 4], "FP64", [1.0, 1.0, 1.0, -1.0])

    with pytest.raises(httpx.HTTPStatusError, match=r"row 0: petal width must be 0 cm or more, not -1\.0, '422 "):
        ask_kserve(server, kserve().InferRequest("iris", [tensor]))
    with pytest.raises(httpx.HTTPStatusError, match='no model is called "nobody"; this server has "iris", \'404 '):
        ask_kserve(server, kserve().InferRequest("nobody", [tensor]), model_name="nobody")


# --- words, missing values, quantities


@pytest.fixture(scope="module", params=["penguins", "prices"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    folder = tmp_path_factory.mktemp(request.param)
    small_tables.written(request.param, folder)
    with run_server(folder / "log.txt", MODEL_FILE=str(folder / f"{request.param}.npz")) as server:
        yield server, request.param


def columns_of(name: str) -> tuple[dict[str, Rows], bytes]:
    """Return the columns of a table as data scientists have them, and scikit-learn's outputs bit for bit."""
    rows = small_tables.DATASETS[name]().rows
    trained = small_tables.trained(name)
    columns = {}
    for feature, column in zip(trained.features, rows.T, strict=True):
        words = [*feature.choices, ""]
        is_missing = np.isnan(column)
        positions = np.where(is_missing, -1, column).astype(int)
        columns[feature.key] = np.array([words[at] for at in positions], object) if feature.choices else column
    return columns, outputs_of_estimator(trained.estimator, rows).tobytes()


@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_sends_words_and_missing_values(other: tuple[Server, str], binary: bool) -> None:
    server, name = other
    columns, expected = columns_of(name)
    inputs = []
    for key, column in columns.items():
        tensor = triton.InferInput(key, list(column.shape), np_to_triton_dtype(column.dtype))
        # It writes NaN as JSON cannot have it.
        inputs.append(tensor.set_data_from_numpy(column, binary_data=binary or column.dtype != object))

    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
        result = client.infer(name, inputs)

    assert result.as_numpy("value" if name == "prices" else "probabilities").tobytes() == expected


@pytest.mark.parametrize("binary", [False, True])
def test_kserve_sends_words_and_missing_values(other: tuple[Server, str], binary: bool) -> None:
    server, name = other
    columns, expected = columns_of(name)
    tensors = []
    for key, column in columns.items():
        tensor = kserve().InferInput(key, list(column.shape), np_to_triton_dtype(column.dtype))
        tensor.set_data_from_numpy(column, binary_data=binary)
        tensors.append(tensor)

    response = ask_kserve(server, kserve().InferRequest(name, tensors), model_name=name)

    assert response.outputs[-1].as_numpy().tobytes() == expected


# --- other settings


def test_a_lower_limit_holds_for_the_clients_too(model_path: Path, tmp_path: Path) -> None:
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), MAX_SAMPLES="2") as server:
        with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
            assert client.infer("iris", inputs_of(rows_of(2))).as_numpy("label").shape == (2,)
            with pytest.raises(InferenceServerException, match="at most 2 samples are allowed in one request, not 3"):
                client.infer("iris", inputs_of(rows_of(3)))
        assert "Traceback" not in server.log.read_text()


def test_a_client_that_vanishes_in_the_middle_leaves_no_trace(model_path: Path, tmp_path: Path) -> None:
    head = "POST /v2/models/iris/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path)) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head.encode() + b'{"inputs": [')
        with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
            assert client.is_server_ready()
    assert "Traceback" not in server.log.read_text()
