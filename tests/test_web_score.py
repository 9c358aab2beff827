"""A CSV file uploaded to be scored: both ways at once, whole or broken off."""

from __future__ import annotations

import contextlib
import csv
import gzip
import http.client
import io
import json
import os
import re
import socket
import subprocess
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Message

from ml.model.loaded import LoadedModel
from ml.scoring.text import score
from ml.tables.marks import Marks
from tests.conftest import Server, for_each, memory_bytes, parse_html, run_procfile, run_server
from tests.tables import TABLES, guarded, zipped
from web.app import create_app
from web.scoring.request import disposition_of
from web.server.connections import DeadlineMixin
from web.settings import Settings

HEADER = "sepal length,sepal width,petal length,petal width"
GOOD = "5.6,2.7,4.2,1.3"
TABLE = f"{HEADER}\n{GOOD}\n?,1,1,1\n"
CSV = {"Content-Type": "text/csv"}
BOUNDARY = "----x"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
MAX_BYTES = 17 * 2**20
END = b"0\r\n\r\n"
NOTE = "x" * 200
# Of `large_table`: more than the buffers of both ends of a connection on one machine take.
LARGE_ROWS = 70_000


@pytest.fixture(scope="module")
def busy(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits, which must live on without an error in its log."""
    folder = tmp_path_factory.mktemp("score")
    with run_procfile(
        folder / "log.txt", MODEL_FILE=str(model_path), MAX_UPLOAD_BYTES=str(MAX_BYTES), MAX_UPLOADS="2",
        TMPDIR=str(folder), SEND_TIMEOUT_S="2", LINGER_S="0.2",
    ) as server:  # fmt: skip
        yield server
        assert server.process.poll() is None
    assert "Traceback" not in server.log.read_text()
    assert " ERROR " not in server.log.read_text()
    assert os.listdir(folder) == ["log.txt"]


def expected(model: LoadedModel, table: str | bytes) -> bytes:
    """Return what the command line makes of a table."""
    return guarded(model, table.encode(errors="surrogateescape") if isinstance(table, str) else table)


def part(content: str | bytes, disposition: str = 'form-data; name="file"; filename="rows.csv"', *more: str) -> bytes:
    body = content.encode() if isinstance(content, str) else content
    head = "\r\n".join([f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *more, "", ""])
    return head.encode() + body + b"\r\n"


def form_of(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def upload(client: TestClient, content: str | bytes, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/score", content=content, headers=CSV | named)


def send_form(client: TestClient, *parts: bytes) -> Response:
    return client.post("/score", content=form_of(*parts), headers=FORM)


def problem_of(response: Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["detail"]


def large_table(rows: int) -> bytes:
    lines = "".join(f"{5 + n % 20 / 10},2.7,{3 + n % 30 / 10},{1 + n % 15 / 10},{NOTE}\n" for n in range(1_000))
    return f"{HEADER},note\n".encode() + lines.encode() * (rows // 1_000)


# --- what comes back


@pytest.mark.parametrize("is_form", [False, True])
def test_a_table_comes_back_as_the_command_line_scores_it(
    client: TestClient, model: LoadedModel, is_form: bool
) -> None:
    response = send_form(client, part(TABLE)) if is_form else upload(client, TABLE)

    assert response.status_code == 200
    assert response.content == expected(model, TABLE)
    assert response.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert response.headers["x-model-version"] == model.version
    name = "rows-predictions.csv" if is_form else "predictions.csv"
    assert response.headers["content-disposition"] == f'attachment; filename="{name}"'


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_any_form_of_table_comes_back_as_the_command_line_scores_it(
    client: TestClient, model: LoadedModel, table: bytes
) -> None:
    response = upload(client, table)

    assert response.status_code == 200
    assert response.content == expected(model, table)


@given(
    text=st.text(st.sampled_from('",\n\r1.5x-=é'), max_size=60),
    cuts=st.lists(st.integers(0, 400), max_size=8).map(sorted),
    is_form=st.booleans(),
)
def test_it_does_not_matter_where_the_body_is_cut(
    client: TestClient, text: str, cuts: list[int], *, is_form: bool
) -> None:
    table = f"\ufeffé,{HEADER}\n\r\n--{BOUNDARY}x\n1,{GOOD}\n{text}"
    body = form_of(part("x", 'form-data; name="other"'), part(table)) if is_form else table.encode()
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
    headers = FORM if is_form else CSV

    whole = client.post("/score", content=body, headers=headers)
    cut = client.post("/score", content=iter(pieces), headers=headers)

    assert whole.status_code == 200
    assert cut.content == whole.content
    assert whole.content == upload(client, table).content


def test_the_query_names_the_marks_of_the_table(client: TestClient, model: LoadedModel) -> None:
    table = TABLE.replace("5.6", "1.005")

    by_query = client.post("/score?decimal=,&thousands=.", content=table, headers={"Content-Type": "text/csv"})
    wrong = client.post("/score?decimal=x", content=table, headers={"Content-Type": "text/csv"})

    sink = io.StringIO()
    source, marks = io.StringIO(table, newline=""), Marks(",", ".")
    score(model, source, sink, on_bad=lambda _bad: None, guarded=True, marks=marks)
    assert by_query.text == sink.getvalue() != expected(model, table).decode()
    assert wrong.status_code == 400
    assert "the decimal mark is . or ," in wrong.json()["detail"]


def option(name: str, value: str) -> bytes:
    return part(value, f'form-data; name="{name}"')


def test_a_form_says_how_its_file_is_read_in_fields_before_it(client: TestClient, model: LoadedModel) -> None:
    table = f"{TABLE.replace('5.6', '1.005')}ñ".encode("cp1252")
    body = table.decode("cp1252").encode("utf-16-le")
    fields = [option("decimal", ","), option("thousands", "."), option("encoding", "UTF-16")]
    automatic = [option(name, "") for name in ("decimal", "thousands", "encoding")]

    by_form = send_form(client, *fields, part(body))
    by_query = client.post("/score?decimal=,&thousands=.&encoding=utf-16", content=body, headers=CSV)
    none = send_form(client, *automatic, part(table))
    late = send_form(client, part(b""), *fields)
    twice = send_form(client, fields[0], fields[0], part(table))
    wrong = send_form(client, option("encoding", "x" * 10**5), part(table))

    assert (by_form.status_code, by_form.content) == (200, by_query.content)
    assert by_form.content != none.content == expected(model, table)
    for refused in (late, twice):
        assert problem_of(refused) == (400, 'the field "decimal" comes once, and before the file')
    assert problem_of(wrong)[0] == 400


@pytest.mark.parametrize("query", ["decimals=,", "decimal=,&foo", "strict=1", "ENCODING=utf-8"])
def test_a_parameter_that_there_is_not_is_refused(client: TestClient, query: str) -> None:
    response = client.post(f"/score?{query}", content=TABLE, headers={"Content-Type": "text/csv"})

    assert response.status_code == 400
    assert "is not known; known are decimal, thousands, encoding" in response.json()["detail"]


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16", "utf-16-be", "shift_jis", "utf-8-sig", "GB18030"])
def test_a_table_in_an_encoding_that_is_named_comes_back_in_utf_8(
    client: TestClient, model: LoadedModel, encoding: str
) -> None:
    table = f"{HEADER},примечание\n" + f"{GOOD},жук\n" * 3_000
    content = table.encode(encoding)

    by_query = client.post(f"/score?encoding={encoding}", content=content, headers=CSV)
    by_charset = client.post("/score", content=content, headers={"Content-Type": f"text/csv; charset={encoding}"})

    assert by_query.content == by_charset.content == expected(model, table)
    assert by_query.headers["content-type"] == "text/csv; charset=utf-8; header=present"


@pytest.mark.parametrize("name", ["none", "zlib", "punycode", "utf-7", "x" * 1_000, "cp99999", "\udcff"])
def test_an_encoding_that_is_not_read_is_refused(client: TestClient, name: str) -> None:
    answer = client.post("/score", params={"encoding": name.encode(errors="replace")}, content=TABLE, headers=CSV)

    status, detail = problem_of(answer)
    assert (status, detail.startswith("there is no encoding called ")) == (400, True)
    assert len(detail) < 200


def test_text_that_is_not_of_the_encoding_named_is_refused(client: TestClient) -> None:
    answer = client.post("/score?encoding=ascii", content=f"{HEADER},é\n{GOOD},x\n".encode(), headers=CSV)

    assert problem_of(answer) == (422, "line 1: byte 0xc3 is not ascii text")


def test_fields_around_the_file_are_passed_over(client: TestClient, model: LoadedModel) -> None:
    before = part("5.6", 'form-data; name="sepal_length"')
    other = part("a,b\n", 'form-data; name="other"; filename="other.csv"', "Content-Type: text/csv")

    response = send_form(client, before, other, part(TABLE), before)

    assert response.content == expected(model, TABLE)


def test_the_file_may_be_a_field_without_a_name(client: TestClient, model: LoadedModel) -> None:
    response = send_form(client, part(TABLE, 'form-data; name="file"'))

    assert response.content == expected(model, TABLE)
    assert response.headers["content-disposition"] == 'attachment; filename="predictions.csv"'


def test_the_template_can_be_sent_as_it_comes(client: TestClient) -> None:
    template = client.get("/template.csv")
    answer = client.post("/score", content=template.content, headers=CSV)

    header, row = answer.text.removeprefix("\ufeff").splitlines()
    assert (answer.status_code, template.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert template.headers["content-disposition"] == 'attachment; filename="iris-template.csv"'
    assert template.content.startswith("\ufeffsepal length (cm),".encode()), "the mark of UTF-8, for spreadsheets"
    assert header.startswith("sepal length (cm),")
    assert row.startswith("5.7,2.9,4.2,1.3,versicolor,0.0,1.0,0.0,")


NAMES = {
    "rows.csv": 'filename="rows-predictions.csv"',
    "": 'filename="predictions.csv"',
    ".csv": 'filename="predictions.csv"',
    "rows.csv.GZ": 'filename="rows-predictions.csv"',
    "rows.gz": 'filename="rows-predictions.csv"',
    "C:\\fakepath\\my rows.TXT": 'filename="my rows-predictions.csv"',
    "../../etc/passwd": 'filename="passwd-predictions.csv"',
    'a"b\r\nSet-Cookie: x.csv': 'filename="a_bSet-Cookie_ x-predictions.csv"',
    "muestra ñ.csv": "filename=\"muestra _-predictions.csv\"; filename*=UTF-8''muestra%20%C3%B1-predictions.csv",
    "\u202egnp.csv": 'filename="gnp-predictions.csv"',
    "x" * 300: f'filename="{"x" * 100}-predictions.csv"',
}


@for_each("name", NAMES)
def test_the_answer_is_named_after_the_file(name: str) -> None:
    assert disposition_of(name, "predictions") == f"attachment; {NAMES[name]}"


@given(st.text(max_size=200))
def test_no_name_can_add_to_the_header(name: str) -> None:
    pattern = r"attachment; filename=\"[ -!#-\[\]-~]+\"(; filename\*=UTF-8''[A-Za-z0-9%._~-]+)?"

    assert re.fullmatch(pattern, disposition_of(name, "predictions"))


# --- what is refused

OTHERS = "3 more features are missing: sepal width, petal length, petal width"
REFUSED = {
    "": (422, "no header row: the file is empty"),
    "a,b\n1,2\n": (422, f"no column is called 'sepal length': a, b; {OTHERS}"),
    f"{GOOD}\n": (422, f"no column is called 'sepal length': 5.6, 2.7, 4.2, 1.3; {OTHERS}"),
    "PK\x03\x04\0\0": (422, "the zip file is damaged: File is not a zip file"),
    "PAR1\x15\x04\x15": (422, "this is a Parquet file: save it as CSV, or post it as application/vnd.apache.parquet"),
    '[\n{"sepal_length": 5.6}]\n': (422, "this is JSON: save the table as CSV"),
    '[{"sepal_length": 5.6,\n "a": 1}]': (422, "this is JSON: save the table as CSV"),
    '{"sepal_length": 5.6, "sepal_width": 2.7}\n': (422, "this is JSON: save the table as CSV"),
    "<!DOCTYPE html>\n": (422, "this is an HTML page: save the table as CSV"),
    "\udcff\udcfes\0,\0t\0": (422, f"no column is called 'sepal length': s, t; {OTHERS}"),
    "\udcff,\udcfe\n": (422, f"no column is called 'sepal length': ÿ, þ; {OTHERS}"),
    f'"{HEADER}\n': (422, "line 1: a quote in the header is not closed"),
    "x" * 300_000: (422, "line 1: a row of more than 262144 characters"),
}


@pytest.mark.parametrize("table", REFUSED, ids=lambda text: ascii(text[:16]))
def test_what_is_no_table_of_the_features_is_refused_before_any_row(client: TestClient, table: str) -> None:
    assert problem_of(upload(client, table.encode(errors="surrogateescape"))) == REFUSED[table]


PACKED = gzip.compress(TABLE.encode())


@pytest.mark.parametrize(
    "form", ["as it is", "named", "in a form", "two members", "padded", "byte by byte", "zip", "zip in a form"]
)
def test_a_packed_file_comes_back_as_the_table_in_it(client: TestClient, model: LoadedModel, form: str) -> None:
    members = b"".join(gzip.compress(piece.encode()) for piece in (TABLE[:5], TABLE[5:], ""))
    answer = {
        "as it is": lambda: upload(client, PACKED),
        "named": lambda: upload(client, PACKED, Content_Encoding="gzip"),
        "in a form": lambda: send_form(client, part(PACKED, 'form-data; name="file"; filename="rows.csv.gz"')),
        "two members": lambda: upload(client, members),
        "padded": lambda: upload(client, PACKED + b"\0" * 2_000),
        "zip": lambda: upload(client, zipped(**{"rows.csv": TABLE, "__MACOSX/._rows.csv": "x"})),
        "zip in a form": lambda: send_form(
            client, part(zipped(a=TABLE), 'form-data; name="file"; filename="rows.csv.zip"')
        ),
        "byte by byte": lambda: client.post(
            "/score", content=(PACKED[i : i + 1] for i in range(len(PACKED))), headers=CSV
        ),
    }[form]()

    assert (answer.status_code, answer.content) == (200, expected(model, TABLE))
    assert ('filename="rows-predictions.csv"' in answer.headers["content-disposition"]) == form.endswith("in a form")


PACKED_BADLY = {
    "a start": (PACKED[:12], "the gzip file is damaged: it ends too early"),
    "no deflate": (PACKED[:10] + b"\xff" * 40, "the gzip file is damaged: Error -3 while decompressing data: invalid "),
    "packed twice": (gzip.compress(PACKED), "this is a gzip file: unpack it"),
    "Excel": (gzip.compress(b"PK\3\4"), "this is an Excel file or another zip archive: save the table as CSV"),
    "zeros": (gzip.compress(bytes(2**20)) * 2**8, "line 1: a row of more than 262144 characters"),
    "zip of zeros": (zipped(a=bytes(2**25)), "line 1: a row of more than 262144 characters"),
    "zip of nothing": (zipped(a=b""), "no header row: the file is empty"),
    "empty zip": (zipped(), "the zip file is empty"),
    "zip of two": (
        zipped(a=b"a", b=b"b"),
        "the zip file has 2 files, 'a', 'b': unpack the one with the ta",
    ),
    "damaged zip": (zipped(a=b"a,b")[:-9], "the zip file is damaged: "),
    "zip by bzip2": (
        zipped(zipfile.ZIP_BZIP2, a=b"a,b"),
        "the zip file is packed by another method than deflate",
    ),
    "zip in zip": (zipped(a=zipped(a=b"a,b")), "this is an Excel file or another zip archive: save the table as CSV"),
}


# A process is started for each zip file.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if "zip" in name and name != "zip of two" else [])
        for name in PACKED_BADLY
    ],
)
def test_a_packed_file_without_a_table_is_refused_in_a_sentence(client: TestClient, name: str) -> None:
    content, sentence = PACKED_BADLY[name]
    tracemalloc.start()

    status, detail = problem_of(upload(client, content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (status, detail[: len(sentence)]) == (422, sentence)
    assert peak < 2**24


@pytest.mark.parametrize(
    ("packed", "sentence"),
    [
        (gzip.compress(f"{HEADER}\n".encode() + f"{GOOD}\n".encode() * 2**18), "larger than 524288 bytes, unpacked"),
        (PACKED[:-9], "the gzip file is damaged: it ends too early"),
    ],
    ids=["too much", "half"],
)
def test_a_gzip_file_that_goes_wrong_behind_some_rows_ends_with_one_that_says_so(
    model_path: Path, packed: bytes, sentence: str
) -> None:
    with TestClient(create_app(Settings(model_file=model_path, max_table_bytes=2**19))) as client:
        posted = upload(client, packed).text
        with client.websocket_connect("/score") as websocket:
            websocket.receive_json()
            for content in (packed, b""):
                websocket.send_bytes(content)
            table = b""
            while '"error"' not in (message := websocket.receive()).get("text", ""):
                table += message.get("bytes", b"")
    error = json.loads(message["text"])["error"]

    assert table.decode() == posted
    assert (error["status"], error["detail"]) == (422, sentence)
    assert next(csv.reader(posted.splitlines()[-1:]))[-1] == sentence
    assert posted.startswith(f"{HEADER},predicted_label,")
    assert f"{GOOD},versicolor," in posted


FORMS = {
    "no such field": (form_of(part("x", 'form-data; name="data"')), 422, 'the form has no field called "file"'),
    "no file chosen": (form_of(part("", 'form-data; name="file"; filename=""')), 422, "no file was chosen"),
    "an empty file": (form_of(part("")), 422, "no header row: the file is empty"),
    "two files before any row": (
        form_of(part(HEADER), part(TABLE)), 422, 'the form has more than one field called "file"'
    ),
    "no end": (part(HEADER), 400, "the form ends too early"),
    "no form": (b"sepal", 400, "the form cannot be read"),
    "an encoded file": (
        form_of(part("x", 'form-data; name="file"', "Content-Transfer-Encoding: base64")),
        415, "an encoded file is not read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "application/jsonl"])
def test_json_is_refused_with_the_way_it_can_go(client: TestClient, kind: str) -> None:
    answer = client.post("/score", content=b'[{"sepal_length": 5.6}]', headers={"Content-Type": kind})

    sentence = 'JSON is no table: send it to /predict as {"samples": […]}, or save it as CSV'
    assert problem_of(answer) == (415, sentence)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_without_one_whole_file_is_refused(client: TestClient, form: str) -> None:
    body, status, detail = FORMS[form]

    assert problem_of(client.post("/score", content=body, headers=FORM)) == (status, detail)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "text/csv; charset=utf-7"}, 415),
        (CSV | {"Content-Encoding": "br"}, 415),
        (FORM | {"Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "multipart/form-data"}, 400),
        ({"Content-Type": f"multipart/form-data; boundary={'x' * 300}"}, 400),
        (CSV | {"Content-Length": "9" * 5_000}, 413),
    ],
)
def test_other_bodies_are_refused(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert problem_of(client.post("/score", content=b"", headers=headers))[0] == status


def test_a_browser_gets_its_errors_as_a_page(client: TestClient) -> None:
    response = upload(client, "a,b\n", Accept="text/html")

    assert response.status_code == 422
    assert "no column is called 'sepal length': a, b" in parse_html(response.text).text


@pytest.mark.parametrize(("accept", "left"), [(b"text/html", 0), (b"application/json", 1)])
def test_a_browser_is_answered_when_it_has_sent_everything(client: TestClient, accept: bytes, left: int) -> None:
    pieces = [b"a,b\n", b"1,2\n", b"1,2\n"]
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "method": "POST", "scheme": "http", "path": "/score", "raw_path": b"/score",
        "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("testserver", 80),
        "headers": [(b"host", b"testserver"), (b"content-type", b"text/csv"), (b"accept", accept)],
    }  # fmt: skip
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)

    assert statuses == [422]
    assert len(pieces) == left


def test_a_get_says_that_it_is_a_websocket(client: TestClient) -> None:
    assert problem_of(client.get("/score")) == (426, "/score is a websocket")


# --- on a real server


def connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)


def begin(server: Server, *headers: str, length: int | None = None) -> socket.socket:
    """Return a connection on which the head of an upload has been sent; without a length it is chunked."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    host = urlsplit(server.url).netloc
    head = ["POST /score HTTP/1.1", f"Host: {host}", "Content-Type: text/csv", framing, *headers]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Return what comes up to and including `end`."""
    seen = b""
    while end not in seen:
        more = connection.recv(65_536)
        assert more, seen[-500:]
        seen += more
    return seen


def rest_of(connection: socket.socket) -> bytes:
    """Return what comes until the connection ends in one way or another."""
    seen = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65_536):
            seen += more
    return seen


def test_the_first_rows_come_back_while_the_upload_goes_on(busy: Server) -> None:
    with begin(busy) as connection:
        connection.sendall(chunk(f"{HEADER}\n{GOOD}\n5.1,".encode()))
        first = read_until(connection, b"5.6,2.7,4.2,1.3,versicolor,0.0,1.0,0.0,,\n")
        connection.sendall(chunk(b"3.5,1.4,0.2\n"))
        second = read_until(connection, b"5.1,3.5,1.4,0.2,setosa,1.0,0.0,0.0,,\n")
        connection.sendall(b"0\r\n\r\n")
        last = read_until(connection, END)

    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"5.1" not in first
    assert b"HTTP" not in second + last


def test_a_client_that_sends_everything_before_it_reads_gets_everything(busy: Server, model: LoadedModel) -> None:
    table = large_table(LARGE_ROWS)
    connection = connect(busy)

    connection.request("POST", "/score", table, CSV)  # returns when all of it has been sent
    content = connection.getresponse().read()
    connection.request("GET", "/health/ready")
    again = connection.getresponse()

    assert len(content) > 15e6
    assert content == expected(model, table)
    assert again.status == 200
    connection.close()


def test_memory_does_not_grow_with_the_file(busy: Server) -> None:
    def upload(rows: int) -> int:
        connection = connect(busy)
        connection.request("POST", "/score", large_table(rows), CSV)
        connection.getresponse().read()
        connection.close()
        return memory_bytes(busy, "VmHWM")

    some = upload(5_000)
    many = upload(LARGE_ROWS)

    assert many - some < 8e6


@pytest.mark.parametrize(
    "arguments", [["-F", "file=@-;filename=rows.csv"], ["-T", "-", "-X", "POST"]], ids=["-F", "-T"]
)
def test_curl_streams_a_file_both_ways(busy: Server, model: LoadedModel, arguments: list[str]) -> None:
    table = large_table(30_000)
    typed = ["-H", "Content-Type: text/csv"] if "-T" in arguments else []

    done = subprocess.run(
        ["curl", "-sS", "--fail", "-D", "/dev/stderr", *arguments, *typed, f"{busy.url}/score"],
        input=table, capture_output=True, check=True, timeout=60,
    )  # fmt: skip

    assert done.stdout == expected(model, table)
    assert b"HTTP/1.1 200 OK" in done.stderr


def test_a_declared_length_that_is_too_large_is_refused_before_anything_is_sent(busy: Server) -> None:
    with begin(busy, "Expect: 100-continue", length=MAX_BYTES + 1) as connection:
        answer = read_until(connection, b"}")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert f"the upload has more than {MAX_BYTES} bytes".encode() in answer


def test_a_client_that_asks_first_is_told_to_go_on(busy: Server) -> None:
    with begin(busy, "Expect: 100-continue", length=len(TABLE)) as connection:
        asked = read_until(connection, b"\r\n\r\n")
        connection.sendall(TABLE.encode())
        answer = read_until(connection, END)

    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_upload_that_grows_too_large_is_broken_off(busy: Server) -> None:
    answers: list[bytes] = []
    with begin(busy) as connection:
        reading = threading.Thread(target=lambda: answers.append(rest_of(connection)))
        reading.start()
        connection.sendall(chunk(f"{HEADER},note\n".encode()))
        with contextlib.suppress(ConnectionError):
            for _ in range(MAX_BYTES // 2**20 + 1):
                connection.sendall(chunk(f"{GOOD},{NOTE}\n".encode() * 5_000))
        reading.join(20)

    assert answers[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert not answers[0].endswith(END)


@pytest.mark.parametrize(
    "table", [f'{HEADER}\n{GOOD}\n5.6,2.7,4.2,"1.3\n{GOOD}\n', f"{HEADER}\n{GOOD}\n{'x' * 150_000}\n"]
)
def test_an_answer_that_cannot_be_finished_says_so_and_has_no_end(busy: Server, table: str) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--data-binary", "@-", "-H", "Content-Type: text/csv", f"{busy.url}/score"],
        input=table.encode(), capture_output=True, check=False, timeout=30,
    )  # fmt: skip

    assert done.returncode == 18, "a transfer that ended too early"
    _, good, last = done.stdout.decode().splitlines()
    assert good == f"{GOOD},versicolor,0.0,1.0,0.0,,"
    assert last.startswith(",,,,,,,,,line 3: ")


def test_an_error_reaches_a_browser_that_is_still_sending(busy: Server) -> None:
    block = b"1,2\n" * 2**20
    connection = connect(busy)

    connection.request("POST", "/score", b"a,b\n" + block, {**CSV, "Accept": "text/html"})
    response = connection.getresponse()

    assert response.status == 422
    assert "no column is called" in response.read().decode()
    connection.close()


def test_clients_that_leave_are_forgotten(busy: Server) -> None:
    with begin(busy) as waiting, begin(busy) as working:
        waiting.sendall(chunk(f"{HEADER}\n{GOOD}\n".encode()))
        read_until(waiting, b"versicolor,0.0,1.0,0.0,,\n")
        working.sendall(chunk(large_table(20_000)))
        read_until(working, b"versicolor")

    wait_for_room(busy, uploads=2)


def test_more_uploads_than_allowed_are_told_to_come_again(busy: Server) -> None:
    first, second = begin(busy), begin(busy)
    for connection in (first, second):
        connection.sendall(chunk(f"{HEADER}\n{GOOD}\n".encode()))
        read_until(connection, b"versicolor")
    third = connect(busy)

    third.request("POST", "/score", TABLE, CSV)
    response = third.getresponse()

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert json.loads(response.read())["detail"] == "too many files are being scored: try again later"
    first.close()
    second.close()
    third.close()


def test_clients_that_never_read_are_cut_and_make_room(busy: Server) -> None:
    table = large_table(LARGE_ROWS)
    with begin(busy, length=len(table)) as first, begin(busy, length=len(table)) as second:
        for connection in (first, second):
            connection.sendall(table)

        assert status_when_there_is_room(busy) == 200
        assert not all(rest_of(connection).endswith(END) for connection in (first, second))
    wait_for_room(busy, uploads=2)


class Unread:
    """A transport whose client reads nothing."""

    is_aborted = False

    def get_write_buffer_size(self) -> int:
        return 1

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.is_aborted = True


class Unwatched(DeadlineMixin):
    def check_input(self, came: int, elapsed_s: float, settings: Settings) -> None:
        """Have no deadline."""


def test_a_client_that_goes_on_sending_need_not_read_yet() -> None:
    transport, limits = Unread(), Settings(send_timeout_s=5)
    connection = Unwatched()
    connection.transport = transport

    for _ in range(20):
        connection.received_bytes += 1
        connection.check_deadlines(1.0, limits)
    went_on = not transport.is_aborted
    for _ in range(6):
        connection.check_deadlines(1.0, limits)

    assert went_on
    assert transport.is_aborted


def wait_for_room(server: Server, *, uploads: int) -> None:
    """Wait until so many uploads are taken at once."""
    deadline = time.monotonic() + 20
    while True:
        with contextlib.ExitStack() as held:
            connections = [held.enter_context(begin(server)) for _ in range(uploads)]
            for connection in connections:
                connection.sendall(chunk(f"{HEADER}\n{GOOD}\n".encode()))
            if all(b" 200 " in read_until(connection, b"\r\n\r\n") for connection in connections):
                for connection in connections:
                    connection.sendall(b"0\r\n\r\n")
                    read_until(connection, END)
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)  # nothing to await: only the server knows when it gives a client up


def status_when_there_is_room(server: Server) -> int:
    deadline = time.monotonic() + 20
    while (status := status_of_upload(server)) == 503 and time.monotonic() < deadline:
        time.sleep(0.05)  # nothing to await: only the server knows when it gives a client up
    return status


def status_of_upload(server: Server) -> int:
    connection = connect(server)
    connection.request("POST", "/score", TABLE, CSV)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


# --- beside hostile uploads

HOSTILE_LINE = b'""' + b"x" * 255 + b"\n"


def test_a_small_upload_is_answered_while_hostile_headers_and_clients_that_hang_wait(
    model_path: Path, tmp_path: Path
) -> None:
    with (
        run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), MAX_UPLOADS="33") as server,
        contextlib.ExitStack() as stack,
    ):
        before = server.processor_s()
        hostile, silent = ([stack.enter_context(begin(server)) for _ in range(16)] for _ in range(2))
        for connection in silent:
            connection.sendall(chunk(b'"' + HOSTILE_LINE))
        for connection in hostile:
            connection.sendall(chunk(b'"' + HOSTILE_LINE * 990))

        status = status_of_upload(server)
        for connection in hostile:
            connection.sendall(END)
        answers = [read_until(connection, b"}") for connection in hostile]
        used = server.processor_s() - before

    assert status == 200
    assert all(b"a quote in the header is not closed" in answer for answer in answers)
    assert used < 4, "one such header took 18 s"


def test_work_ends_when_the_client_leaves(model_path: Path, tmp_path: Path) -> None:
    # No row is good, and each of two bytes: some 20 s of work, of which most waits on disk for a client to read.
    body = f"{HEADER}\n".encode() + b"x\n" * 4_000_000
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), MAX_UPLOADS="1") as server:
        with begin(server, length=2 * len(body)) as connection:
            connection.sendall(body)
        left = server.processor_s()

        assert status_when_there_is_room(server) == 200
        assert server.processor_s() - left < 2
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_a_header_of_very_many_columns_is_understood_between_other_requests(
    client: TestClient, model: LoadedModel
) -> None:
    table = f"{HEADER},{','.join(f'N É{n} [cm]' for n in range(9_990))}\n{GOOD}{',' * 9_990}\n"

    assert upload(client, table).content == expected(model, table)
