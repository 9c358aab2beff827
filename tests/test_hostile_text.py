"""Text of any length and any kind, wherever it is read: it costs no more processor time than a good request may.

Every header, query field, form field, cell and JSON text gets 50 kB of each of many repeats. A pattern that can match
in several ways, or a loop in a loop, takes seconds for one of them, in which nobody else is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import pytest
from starlette.applications import Starlette

from ml.errors import TableError
from ml.model.card import Recipe
from ml.tables.reading import read_dataset
from ml.training import fitting, writing
from web.app import create_app
from web.requests import bounded, qualities
from web.settings import Settings

pytestmark = pytest.mark.slow
SIZE = 50_000
MOST_S = 0.1
TOKEN = (b"authorization", b"Bearer 0123456789abcdef")
HOST = (b"host", b"a")
QUERY = b"sepal_length=5.6&sepal_width=2.7&petal_length=4.2&petal_width=1.3"
SAMPLE = b'{"sample":[5.6,2.7,4.2,1.3]}'
TABLE = b"sepal_length,sepal_width,petal_length,petal_width,note\n"
PLACE = b'form-data; name="file"; filename='

# What stands before the repeats, what is repeated, and what comes after: most patterns fail only at the end.
REPEATS = [
    *((b"", unit, b"!") for unit in b"/ ; , \t \" ' = % & + - _ . : * \\ 1 a [ { ( < @ \xe9".split(b" ")),
    *((b"", unit, b"") for unit in [b" ", b"\n", b"\r\n", b"\0", b'""', b'",', b"\n,", b'"\n"', b" =", b"\t="]),
    *((b"http://a/", unit, b" x") for unit in [b"/", b"a/", b"/.", b"?/"]),
    *((b"-", unit, b"x") for unit in [b"1", b".1", b"1.", b"1e", b"e-1", b" ", b"1 "]),
    *((b"x,", unit, b"x") for unit in [b"-1", b"=", b" -", b"+1,"]),
    *((b",-", unit, b"x") for unit in [b"1", b" "]),
    *((b"a/b;", unit, b"=") for unit in [b"q=0.", b";q=", b"a=b;", b"q=0.5,", b"a/b;q=0,", b' ="', b'\\"']),
    *((b"page=1.", unit, b"") for unit in [b"a", b"; page=1.", b"; ", b" ;page"]),
    *((b"bytes=", unit, b"") for unit in [b"0-1,", b"0-,", b"-", b"9"]),
    *((b"", unit, b"") for unit in [b'W/"a",', b'"a-gzip",', b"en-", b"en,", b"a.", b"1.1.1.1,", b"127.0.0.1,", b"://"]),
    *((b"", unit, b"x") for unit in [b"%41", b"%zz", b"&a=", b"a=1&", b"--b\r\n", b"filename*=", b"x*0="]),
    *((b"", unit, b"") for unit in [b"\\ud800", b"\\u0301\\u0316", b'{"a":', b'"a":[', b"],[", b"0,", b"1e9", b"[ "]),
    *((b"", unit.encode(), b"") for unit in ["\u0301\u0316", "\u2212", "\u0130", "\u2028", "(a) ", "a ("]),
]  # fmt: skip

Text = bytes
Place = Callable[["Service", Text], Coroutine[Any, Any, float]]


class Service:
    """The application in process, behind everything that settings can put around it."""

    def __init__(self, app: Starlette, state: Any) -> None:
        self._app = app
        self._state = state

    async def http(
        self, method: str, path: str, *headers: tuple[bytes, bytes], query: Text = b"", body: Text = b""
    ) -> float:
        """Send a request and return the processor time of its answer, in seconds."""
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            for message in messages:
                return message
            return await asyncio.Event().wait()  # the client stays

        names = [name for name, _ in headers]
        usual = [header for header in (HOST, TOKEN) if header[0] not in names]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "", "server": ("a", 80),
            "headers": [*usual, *headers], "client": ("127.0.0.1", 1), "state": dict(self._state),
        }  # fmt: skip
        return await self._timed(scope, receive)

    async def frame(self, text: str, path: str) -> float:
        """Open a websocket, send one frame, and return the processor time of it all, in seconds."""
        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": text}])

        async def receive() -> Any:
            return next(messages, {"type": "websocket.disconnect", "code": 1000})

        scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws", "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("a", 80), "subprotocols": [],
            "headers": [HOST, TOKEN], "client": ("127.0.0.1", 1), "state": dict(self._state),
        }  # fmt: skip
        return await self._timed(scope, receive)

    async def _timed(self, scope: Any, receive: Any) -> float:
        answered = False

        async def send(_message: Any) -> None:
            nonlocal answered
            answered = True

        started = time.process_time()
        await self._app(scope, receive, send)
        assert answered
        return time.process_time() - started


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def service(runner: asyncio.Runner, model_path: Path) -> Iterator[Service]:
    with serving(runner, model_path, QUERY) as service:
        yield service


@pytest.fixture(scope="module")
def words_service(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of words, some with gaps, of a number with gaps and of another, and of a quantity with a goal."""
    header = CARS.decode().rstrip() + ",price"
    rows = [
        f"maker {i % 40},{('petrol', 'diesel', 'NA')[i % 3]},{('yes', 'no')[i % 2]},"
        f"{f'{900 + i % 70}.5' if i % 9 else '?'},{50 + i % 90},{i * 37 % 9001}.25"
        for i in range(200)
    ]
    path = tmp_path_factory.mktemp("words") / "cars.csv"
    path.write_text("\n".join([header, *rows]))
    trained = fitting.fit(read_dataset(path).dataset, Recipe(n_estimators=5))
    model = path.with_suffix(".npz")
    writing.write(writing.model_of(trained), model, trained=trained)
    with serving(runner, model, b"") as service:
        yield service


@contextlib.contextmanager
def serving(runner: asyncio.Runner, path: Path, query: Text) -> Iterator[Service]:
    app = create_app(
        Settings(
            model_file=path,
            model_check_s=0,
            api_token=TOKEN[1].decode().split()[1],
            allowed_hosts=("a", "*.example.org"),
            allowed_origins=("https://allowed.example",),
            trusted_proxies=("127.0.0.1/32",),
        )
    )
    lifespan: AbstractAsyncContextManager[Any] = app.router.lifespan_context(app)
    service = Service(app, runner.run(lifespan.__aenter__()))
    for wanted in (b"text/html", b"application/json"):  # what is made once
        runner.run(service.http("GET", "/", (b"accept", wanted), query=query))
    yield service
    runner.run(lifespan.__aexit__(None, None, None))


def header(name: str, method: str, path: str, *others: tuple[bytes, bytes], body: Text = b"") -> Place:
    async def ask(service: Service, text: Text) -> float:
        # Servers let none of these pass.
        value = text.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"").strip()
        return await service.http(method, path, *others, (name.encode(), value), body=body)

    return ask


def query(path: str, before: Text, *headers: tuple[bytes, bytes], after: Text = b"", is_raw: bool = False) -> Place:
    async def ask(service: Service, text: Text) -> float:
        shown = text.replace(b" ", b"+") if is_raw else quote_from_bytes(text, safe="").encode()
        return await service.http("GET", path, *headers, query=before + shown + after)

    return ask


def body(path: str, content_type: Text, before: Text, after: Text, *headers: tuple[bytes, bytes]) -> Place:
    async def ask(service: Service, text: Text) -> float:
        return await service.http("POST", path, (b"content-type", content_type), *headers, body=before + text + after)

    return ask


def quoted(place: Place, escape: Callable[[Text], Text]) -> Place:
    return lambda service, text: place(service, escape(text))


def doubled(text: Text) -> Text:
    """Return text for a cell within quotes."""
    return text.replace(b'"', b'""')


def in_one_line(text: Text) -> Text:
    """Return text that is cells: with line feeds it would be rows, each of which may take its time."""
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


def escaped(text: Text) -> Text:
    """Return a JSON string with an escape for each byte beyond ASCII."""
    return json.dumps(text.decode("latin-1")).encode()


def in_path(path: str) -> Place:
    return lambda service, text: service.http("GET", path + text.decode("latin-1"), PAGE)


def in_frame(before: str, after: str, path: str = "/stream") -> Place:
    return lambda service, text: service.frame(before + text.decode("latin-1") + after, path)


PAGE, FRAGMENT = (b"accept", b"text/html"), (b"hx-request", b"true")
JSON, CSV = b"application/json", b"text/csv"
FORM, PARTS = b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=b"
INFER = "/v2/models/iris/infer"
TENSOR = b'{"inputs":[{"name":"samples","shape":[1,4],"datatype":"FP64","data":['

PLACES: dict[str, Place] = {
    # Read before any route, or by what stands around all of them.
    **{
        f"header {name}": header(name, "POST", "/predict", (b"content-type", JSON), body=SAMPLE)
        for name in (
            "host", "authorization", "origin", "sec-fetch-site", "x-request-id", "x-forwarded-for",
            "x-forwarded-proto", "x-forwarded-host", "accept", "accept-language", "hx-request", "hx-target",
            "content-encoding", "content-length", "referer", "user-agent",
        )
    },
    "header cookie": header("cookie", "GET", "/predict", (b"authorization", b"")),
    "header access-control-request-headers": header(
        "access-control-request-headers", "OPTIONS", "/predict",
        (b"origin", b"https://allowed.example"), (b"access-control-request-method", b"GET"),
    ),
    **{
        f"header {name} of the page": header(name, "GET", "/", PAGE)
        for name in ("accept", "accept-language", "accept-encoding", "if-none-match", "hx-current-url", "range")
    },
    "header accept-language of /code": header("accept-language", "GET", "/code", FRAGMENT),
    "header hx-current-url of /code": header("hx-current-url", "GET", "/code", FRAGMENT),
    "header hx-current-url of /result": header(
        "hx-current-url", "POST", "/result", (b"content-type", FORM), body=QUERY
    ),
    "header hx-current-url of /predict": header("hx-current-url", "GET", "/predict", PAGE),
    **{
        f"header {name} of a file": header(name, "GET", "/static/style.css")
        for name in ("accept-encoding", "if-none-match", "if-modified-since", "if-range", "range")
    },
    "header if-range of a range": header("if-range", "GET", "/static/style.css", (b"range", b"bytes=0-1")),
    **{
        f"header accept{more} of {path}": header(f"accept{more}", "GET", path, PAGE)
        for path in ("/none", "/metrics", "/health/drift", "/docs") for more in ("", "-language")
    },
    **{
        f"header content-type of {path}": header("content-type", "POST", path, body=content)
        for path, content in {"/predict": SAMPLE, "/result": QUERY, "/score": TABLE, INFER: b"{}"}.items()
    },
    "header content-type of parts": quoted(
        header("content-type", "POST", "/score", body=TABLE), lambda text: b"multipart/form-data; boundary=" + text
    ),
    "header content-encoding of /score": header("content-encoding", "POST", "/score", body=TABLE),
    "header content-encoding of tensors": header("content-encoding", "POST", INFER, body=b"{}"),
    "header inference-header-content-length": header("inference-header-content-length", "POST", INFER, body=b"{}"),
    # Addresses.
    **{f"path {path}": in_path(path) for path in ("/", "/static/", "/v2/models/", "/v2/models/iris/versions/")},
    **{
        f"query {what} of {path}, {form}": query(path, before, *headers, after=after, is_raw=is_raw)
        for path, form, headers in [
            ("/", "page", [PAGE]), ("/predict", "fragment", [FRAGMENT]), ("/predict", "json", []),
            ("/code", "fragment", [FRAGMENT]),
        ]
        for what, before, after, is_raw in [
            ("", b"", b"", True),
            ("value", b"sepal_width=1&petal_length=1&petal_width=1&sepal_length=", b"", False),
            ("lang", QUERY + b"&lang=", b"", False),
            ("map-x", QUERY + b"&map-x=", b"", False),
            ("key", QUERY + b"&", b"=1", False),
        ]
    },
    "query lang of a page that is not there": query("/none", b"lang=", PAGE),
    "query pinned-sample of the page": query("/", QUERY + b"&pinned-sample=", PAGE),
    "query pinned-sample of /explain": query("/explain", QUERY + b"&pinned-sample=", FRAGMENT),
    "query value of /explain": query("/explain", QUERY.replace(b"1.3", b""), FRAGMENT),
    "query field-order of the page": query("/", QUERY + b"&field-order=", PAGE),
    # Forms.
    **{
        f"form {what} of {path}, {form}": body(path, content_type, before, after, *headers)
        for path, form, headers in [
            ("/predict", "json", [(b"accept", JSON)]), ("/predict", "fragment", [FRAGMENT]),
            ("/result", "page", [PAGE]),
        ]
        for what, content_type, before, after in [
            ("", FORM, b"", b""),
            ("value", FORM, b"sepal_length=", b""),
            ("part", PARTS, b"--b\r\n", b"\r\n--b--\r\n"),
            ("disposition", PARTS, b"--b\r\nContent-Disposition: ", b"\r\n\r\n1\r\n--b--\r\n"),
            ("name", PARTS, b"--b\r\nContent-Disposition: form-data; name=", b"\r\n\r\n1\r\n--b--\r\n"),
            ("part's value", PARTS, b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n', b"\r\n--b--\r\n"),
        ]
    },
    "part of /score": body("/score", PARTS, b"--b\r\n", b"\r\n\r\na\r\n--b--\r\n"),
    "name of a file": body(
        "/score", PARTS, b"--b\r\nContent-Disposition: " + PLACE, b"\r\n\r\n" + TABLE + b"1,2,3,4,5\n\r\n--b--\r\n"
    ),
    "encoding of a part": body(
        "/score", PARTS, b"--b\r\nContent-Disposition: " + PLACE + b'"a"\r\nContent-Transfer-Encoding: ',
        b"\r\n\r\n" + TABLE + b"1,2,3,4,5\n\r\n--b--\r\n",
    ),
    "charset of a table": quoted(
        header("content-type", "POST", "/score", body=TABLE), lambda text: b"text/csv; charset=" + text
    ),
    "number in a table": quoted(body("/score", CSV, TABLE + b"5,", b",1,2,x\n"), in_one_line),
    "number in quotes": quoted(body("/score", CSV, TABLE + b'5,"', b'",1,2,x\n'), doubled),
    "cell": quoted(body("/score", CSV, TABLE + b"5,1,1,2,", b"\n"), in_one_line),
    "cell in quotes": quoted(body("/score", CSV, TABLE + b'5,1,1,2,"', b'"\n'), doubled),
    "name of a column": quoted(
        body("/score", CSV, TABLE[:-1] + b",", b"\n5,1,1,2,x,y\n"), lambda text: in_one_line(text).replace(b'"', b"'")
    ),
    # JSON.
    **{
        f"json {what}": body("/predict", JSON, before, after)
        for what, before, after in [
            ("", b"", b""),
            ("text", b'{"sample":{"sepal_length":"', b'"}}'),
            ("number", b'{"sample":[', b"]}"),
            ("key", b'{"sample":{"', b'":1}}'),
            ("samples", b'{"samples":[', b"]}"),
            ("member", b'{"sample":[1,2,3,4],"', b'":1}'),
            ("explain", b'{"sample":[1,2,3,4],"explain":', b"}"),
        ]
    },
    "json escapes": quoted(body("/predict", JSON, b'{"sample":{"sepal_length":', b"}}"), escaped),
    "json escapes in a key, on the page": quoted(body("/predict", JSON, b'{"sample":{', b":1}}", PAGE), escaped),
    **{
        f"frame {what}": in_frame(before, after)
        for what, before, after in [
            ("", "", ""), ("id", '{"id":"', '","sample":[1,2,3,4]}'), ("id without a sample", '{"id":', "}"),
            ("text", '{"sample":{"sepal_length":"', '"}}'), ("samples", '{"samples":[', "]}"),
        ]
    },
    "frame that resumes a file": in_frame("", "", "/score"),
    "frame with the place in a file": in_frame('{"read":1,"place":{"', '":1},"encoding":"utf-8"}', "/score"),
    **{
        f"tensor {what}": body(INFER, JSON, before, after)
        for what, before, after in [
            ("", b"", b""), ("data", TENSOR, b"]}]}"), ("integers", TENSOR.replace(b"FP64", b"INT64"), b"]}]}"),
            ("name", b'{"inputs":[{"name":"', b'","shape":[1,4],"datatype":"FP64","data":[1,2,3,4]}]}'),
            ("datatype", b'{"inputs":[{"name":"samples","shape":[1,4],"datatype":"', b'","data":[1,2,3,4]}]}'),
            ("shape", b'{"inputs":[{"name":"samples","datatype":"FP64","data":[1,2,3,4],"shape":[', b"]}]}"),
            ("request's id", b'{"id":"', b'","inputs":[]}'),
        ]
    },
    "tensor numbers of a large request": quoted(body(INFER, JSON, TENSOR, b"]}]}"), lambda text: text * 6),
}  # fmt: skip

CAR = {"maker": "maker 1", "fuel": "petrol", "4x4": "yes", "weight": "905.5", "power": "60"}
WORD_TENSOR = b'{"inputs":[{"name":"maker","shape":[1],"datatype":"BYTES","data":['
CARS = b"maker,fuel,4x4,weight (kg),power\n"
ZIPPED = "table of another kind"


def field(key: str, path: str = "/predict", *headers: tuple[bytes, bytes]) -> Place:
    others = urlencode({other: value for other, value in CAR.items() if other != key}).encode()
    return query(path, others + b"&" + quote_from_bytes(key.encode()).encode() + b"=", *headers)


def in_sample(key: str) -> Place:
    others = json.dumps({other: value for other, value in CAR.items() if other != key})[:-1].encode()
    return quoted(body("/predict", JSON, b'{"sample":' + others + b',"' + key.encode() + b'":', b"}}"), escaped)


def in_query(name: str) -> Place:
    """Return the place of a table's option."""

    async def ask(service: Service, text: Text) -> float:
        option = name.encode() + b"=" + quote_from_bytes(text, safe="").encode()
        return await service.http("POST", "/score", (b"content-type", CSV), query=option, body=CARS)

    return ask


# The same where words, gaps and a quantity are read.
WORDS: dict[str, Place] = {
    **{f"{key} of the page": field(key, "/", PAGE) for key in CAR},
    **{f"{key} of the fragment": field(key, "/predict", FRAGMENT) for key in CAR},
    **{f"{key} of the snippets": field(key, "/code", FRAGMENT) for key in CAR},
    **{f"{key} of a sample": in_sample(key) for key in (*CAR, "weight (kg)")},
    "goal": field("goal", "/predict", FRAGMENT),
    "axis": field("map-x", "/predict", FRAGMENT),
    "a row": quoted(body("/predict", JSON, b'{"sample":["maker 1","petrol",', b',"1","2"]}'), escaped),
    "samples": body("/predict", JSON, b'{"samples":[', b"]}"),
    "a name of words": quoted(body("/predict", JSON, b'{"sample":{', b":1}}"), escaped),
    "a tensor of words": quoted(
        body("/v2/models/cars/infer", JSON, WORD_TENSOR, b"]}]}"),
        escaped,
    ),
    **{
        f"{what} in a table": quoted(body("/score", CSV, CARS + before, after), in_one_line)
        for what, before, after in [
            ("word", b"", b",petrol,yes,905.5,60\n"), ("yes or no", b"maker 1,petrol,", b",905.5,60\n"),
            ("number that may be missing", b"maker 1,petrol,yes,", b",60\n"),
        ]
    },
    "word in quotes": quoted(body("/score", CSV, CARS + b'"', b'",petrol,yes,905.5,60\n'), doubled),
    "unit of a column": quoted(body("/score", CSV, CARS[:-1] + b",(", b")\nmaker 1,petrol,yes,1,2,3\n"), in_one_line),
    "comment before a table": body("/score", CSV, b"# ", b"\n" + CARS + b"maker 1,petrol,yes,1,2\n"),
    ZIPPED: body("/score", CSV, b"PK\3\4", b""),
    **{f"{mark} of a table": in_query(mark) for mark in ("decimal", "thousands", "encoding", "strict")},
}  # fmt: skip

# Files to train on: what stands before the text, and what after it.
ROWS = b"".join(b"w%d,%d,%d\n" % (i % 3, i % 7, i % 2) for i in range(30))
FILES = {
    "a cell": (b"w,n,class\n", b",1,1\n" + ROWS), "a number": (b"w,n,class\nw1,", b",1\n" + ROWS),
    "a label": (b"w,n,class\nw1,1,", b"\n" + ROWS), "a header": (b'"', b'",n,class\n' + ROWS),
    "a unit": (b'w,"n (', b')",class\n' + ROWS),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_no_text_takes_long_to_read_as_a_word(words_service: Service, runner: asyncio.Runner, name: str) -> None:
    # A zip file is looked at by a process of its own, which takes longer to start than all else takes.
    step = 32 if name == ZIPPED else 4
    hold_quick(words_service, runner, WORDS[name], REPEATS[list(WORDS).index(name) % 4 :: step])


@pytest.mark.long
@pytest.mark.parametrize("name", WORDS)
def test_no_text_at_all_takes_long_to_read_as_a_word(words_service: Service, runner: asyncio.Runner, name: str) -> None:
    hold_quick(words_service, runner, WORDS[name], REPEATS)


@pytest.mark.parametrize("name", FILES)
def test_no_text_in_a_file_to_train_on_takes_long_to_read(tmp_path: Path, runner: asyncio.Runner, name: str) -> None:
    async def read(_service: object, text: Text) -> float:
        path = tmp_path / "table.csv"
        # Of headers one long one, not many: a wide table may take its time.
        path.write_bytes(FILES[name][0] + (doubled(text) if b'"' in FILES[name][1][:2] else text) + FILES[name][1])
        started = time.process_time()
        with contextlib.suppress(TableError):
            read_dataset(path)
        return time.process_time() - started

    hold_quick(None, runner, read, REPEATS[list(FILES).index(name) % 4 :: 4])


@pytest.mark.parametrize("name", PLACES)
def test_no_text_takes_long_to_read(service: Service, runner: asyncio.Runner, name: str) -> None:
    # Places that one parser reads stand next to each other: each of four gets another quarter of the texts.
    hold_quick(service, runner, PLACES[name], REPEATS[list(PLACES).index(name) % 4 :: 4])


@pytest.mark.long
@pytest.mark.parametrize("name", PLACES)
def test_no_text_at_all_takes_long_to_read(service: Service, runner: asyncio.Runner, name: str) -> None:
    hold_quick(service, runner, PLACES[name], REPEATS)


def hold_quick(
    service: Any,
    runner: asyncio.Runner,
    place: Callable[[Any, Text], Coroutine[Any, Any, float]],
    repeats: Sequence[tuple[bytes, bytes, bytes]],
) -> None:
    for before, unit, after in repeats:
        text = before + (unit * (SIZE // len(unit))) + after
        # The better of two: what else the process does at times is no fault of the text.
        took_s = runner.run(place(service, text))
        if took_s > MOST_S:
            took_s = min(took_s, runner.run(place(service, text)))
        assert took_s <= MOST_S, f"{took_s:.3f} s for {before!r}, {unit!r} again and again, {after!r}"


def test_only_whole_items_of_a_long_list_count() -> None:
    preferences = b"text/html;q=0.5," + b"a/b," * 245 + b"application/json;q=0.9"

    assert qualities(bounded(preferences)) == {"text/html": 0.5, "a/b": 1.0}
