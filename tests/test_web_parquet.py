"""Parquet over HTTP: it comes back with its types and the answers of the scorer; a hostile file harms nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow
import pytest
from httpx2 import Response
from pyarrow import parquet
from starlette.testclient import TestClient

import ml
from ml.errors import TableError
from ml.model.loaded import load_model
from ml.scoring.parquet_process import ColumnMessage, RowsMessage, columns_in
from tests import small_tables
from web.app import create_app
from web.scoring.parquet import ParquetFile
from web.scoring.scored_file import OpenFiles
from web.scoring.uploaded_file import PARQUET
from web.settings import Settings

KEYS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
GOOD = [5.6, 2.7, 4.2, 1.3]
HEADERS = {"Content-Type": PARQUET.decode()}
# Of a table unpacked: the process may take 128 MB, whatever the file unpacks to.
MAX_TABLE_BYTES = 2**24


@pytest.fixture(scope="module")
def client(model_path: Path) -> Iterator[TestClient]:
    settings = Settings(model_file=model_path, max_table_bytes=MAX_TABLE_BYTES, max_upload_bytes=2**24)
    with TestClient(create_app(settings)) as client:
        yield client


def content_of(table: pyarrow.Table, **options: Any) -> bytes:
    content = io.BytesIO()
    parquet.write_table(table, content, **options)
    return content.getvalue()


def flowers(n_rows: int, **more: Any) -> pyarrow.Table:
    return pyarrow.table({key: [value] * n_rows for key, value in zip(KEYS, GOOD, strict=True)} | more)


def with_length(column: pyarrow.Array) -> bytes:
    return content_of(flowers(len(column)).set_column(0, KEYS[0], column))


def post(client: TestClient, content: bytes, path: str = "/score") -> Response:
    return client.post(path, content=content, headers=HEADERS)


@pytest.mark.slow
def test_a_table_comes_back_with_its_types_and_the_answers_of_the_scorer(client: TestClient, model_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(-0.01, 8, (50_000, 4)).round(2)
    table = pyarrow.table({
        "id": pyarrow.array(range(len(rows)), pyarrow.int32()),
        **dict(zip(KEYS, rows.T, strict=True)),
        "words": pyarrow.array(["a", None] * 25_000).dictionary_encode(),
        "list": [[1, 2]] * len(rows),
    })  # fmt: skip
    before = counted(client)

    answer = post(client, content_of(table, row_group_size=30_000))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == PARQUET.decode()
    assert answer.headers["content-disposition"] == 'attachment; filename="predictions.parquet"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    scored = parquet.read_table(io.BytesIO(answer.content))
    assert answer.headers["x-model-version"] == load_model(model_path).version
    assert scored.equals(ml.BatchScorer(model_path)(table))
    wrong = scored["predicted_label"].null_count
    assert wrong > 10
    assert counted(client) - before == len(rows) - wrong


def counted(client: TestClient) -> int:
    """Return how many predictions the service has counted of scored files."""
    lines = client.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("predictions_total") and 'channel="score"' in line]
    return sum(int(float(line.split()[-1])) for line in found)


@pytest.mark.slow
def test_words_gaps_and_quantities_are_answered_as_by_the_scorer(tmp_path: Path) -> None:
    path, dataset = small_tables.file_of("prices", tmp_path), small_tables.prices()
    columns = {}
    for feature, column in zip(dataset.features, dataset.rows.T, strict=True):
        values = [None if np.isnan(value) else value for value in column.tolist()]
        if feature.choices:
            values = ["no such word", *(None if value is None else feature.choices[int(value)] for value in values[1:])]
        columns[feature.header] = values
    table = pyarrow.table(columns)

    with TestClient(create_app(Settings(model_file=path))) as client:
        answer = post(client, content_of(table))

    assert answer.status_code == 200
    assert parquet.read_table(io.BytesIO(answer.content)).equals(ml.BatchScorer(path)(table))


@pytest.mark.slow
def test_a_table_without_rows_comes_back_without(client: TestClient) -> None:
    answer = post(client, content_of(flowers(0)))

    scored = parquet.read_table(io.BytesIO(answer.content))
    assert (scored.num_rows, scored.column_names[-1]) == (0, "prediction_error")


def with_empty_pages(count: int) -> bytes:
    """Return a file whose last column has so many pages without a value in front of its own."""
    fields = [*((key, pyarrow.float64()) for key in KEYS), pyarrow.field("x", pyarrow.int64(), nullable=False)]
    table = pyarrow.table([*([value] * 999 for value in GOOD), range(999)], schema=pyarrow.schema(fields))
    content = content_of(table, use_dictionary=False, compression="none", write_statistics=False)
    column = parquet.read_metadata(io.BytesIO(content)).row_group(0).column(4)
    # A header of 17 bytes in Thrift's compact protocol: type, two sizes, and four numbers of the page, all of them 0
    # but for the encodings of levels.
    page = bytes([0x15, 0, 0x15, 0, 0x15, 0, 0x2C, 0x15, 0, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0])
    sizes = (column.total_uncompressed_size, column.total_compressed_size)
    old, new = (
        b"".join(b"\x16" + zigzag(size + more) for size in sizes) for more in (0, len(page) * count)
    )  # fmt: skip
    (length,) = struct.unpack("<I", content[-8:-4])
    body, footer = content[: -8 - length], content[-8 - length : -8]
    assert footer.count(old) == 1
    footer = footer.replace(old, new)
    at = column.data_page_offset
    return body[:at] + page * count + body[at:] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def zigzag(number: int) -> bytes:
    number, digits = 2 * number, b""
    while number > 127:
        digits += bytes([number & 127 | 128])
        number >>= 7
    return digits + bytes([number])


def repeated(word: str, n_rows: int) -> pyarrow.Array:
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * n_rows, pyarrow.int32()), [word])


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut short": (lambda: content_of(flowers(9))[:-50], "the Parquet file cannot be read: Parquet magic bytes"),
    "no Parquet": (lambda: b"a,b\n1,2\n", "this is no Parquet file"),
    "a word repeated": (
        lambda: content_of(flowers(2_000, x=repeated("x" * 2**20, 2_000)), store_schema=False),
        "it takes more than 134217728 bytes of memory",
    ),
    "a word repeated in a feature": (
        lambda: with_length(repeated("x" * 2**20, 2_000)), "larger than 16777216 bytes, unpacked"
    ),
    "a value repeated": (
        lambda: content_of(flowers(1).take(np.zeros(600_000, dtype=int))), "larger than 16777216 bytes, unpacked"
    ),
    "pages without values": (
        lambda: with_empty_pages(500_000), "the Parquet file is damaged: it has 999 rows, 0 can be read"
    ),
    "columns": (
        lambda: content_of(pyarrow.table([[1]] * 10_001, names=[f"c{number}" for number in range(10_001)])),
        "the table has 10001 columns, at most 10000 are read",
    ),
    "nested": (
        lambda: with_length(pyarrow.array([{"a": [1]}])),
        "column 'sepal_length' is of type struct<a: list<element: int64>>, which is no value of a cell",
    ),
    "nested deeply": (
        lambda: content_of(flowers(1, x=pyarrow.nulls(1, nested(500)))), "the Parquet file cannot be read: "
    ),
    "no date": (lambda: with_length(pyarrow.array([2**31 - 1], pyarrow.date32())), "the Parquet file cannot be read: "),
}  # fmt: skip


def nested(depth: int) -> Any:
    kind = pyarrow.int8()
    for _ in range(depth):
        kind = pyarrow.list_(kind)
    return kind


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(client: TestClient, name: str) -> None:
    make, sentence = HOSTILE[name]

    answer = post(client, make())

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(sentence)


def test_a_process_that_says_what_is_no_column_is_not_believed() -> None:
    numbers = ColumnMessage(np.zeros(3).tobytes())
    codes = np.array([0, 1, -1], dtype=np.int64).tobytes()
    for other in ([], [ColumnMessage(b"123")], [ColumnMessage(bytes(8))], [ColumnMessage(None, [1, 2], codes)]):
        with pytest.raises(TableError, match="the Parquet file cannot be read"):
            columns_in(RowsMessage([numbers, *other]), 2)


@pytest.mark.slow
def test_what_only_text_has_and_what_is_too_large_is_refused(
    client: TestClient, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = content_of(flowers(9))
    small = Settings(model_file=model_path, max_spool_bytes=len(table) + 100)
    with TestClient(create_app(small)) as other:
        no_room = post(other, table)

    marks = post(client, table, "/score?decimal=,")
    too_large = post(client, bytes(2**24 + 1))
    as_csv = client.post("/score", content=table, headers={"Content-Type": "text/csv"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    without = post(client, table)

    assert (no_room.status_code, no_room.json()["retry_after_s"]) == (503, 1)
    assert (marks.status_code, too_large.status_code) == (400, 413)
    assert (as_csv.status_code, without.status_code) == (422, 415)
    assert "post it as application/vnd.apache.parquet" in as_csv.json()["detail"]
    assert "pyarrow is not installed" in without.json()["detail"]


def test_the_process_that_reads_a_file_ends_when_nobody_wants_it(model_path: Path) -> None:
    async def leave() -> tuple[set[psutil.Process], int]:
        service = create_app(Settings(model_file=model_path)).service
        open_files = OpenFiles(service.settings)
        others = {*psutil.Process().children()}
        with contextlib.closing(ParquetFile(load_model(model_path), open_files, service.metrics.score)) as file:
            await file.add(content_of(flowers(1).take(np.zeros(3_000_000, dtype=int))))
            async for _ in file.process():
                if readers := {*psutil.Process().children()} - others:
                    break
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})  # what reads it, and is cancelled
        return readers, open_files.spool.taken

    readers, taken = asyncio.run(leave())

    assert readers
    assert not [process for process in readers if process.is_running()]
    assert taken == 0
