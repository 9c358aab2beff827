"""What the tiers share: one trained model, the application in process, and the real server."""

from __future__ import annotations

import contextlib
import gc
import http.client
import inspect
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, wraps
from html.parser import HTMLParser
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from starlette.testclient import TestClient

from ml.model import modelfile
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.model.modelfile import ModelFile
from ml.training import fitting, iris, writing
from ml.training.fitting import Trained
from tests import shells
from tests.browser import browser, chromium, context, contexts, open_page, visit  # noqa: F401  # found by their names
from tests.shells import ForkedServer
from web.app import create_app
from web.settings import Settings

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 60.0
STARTERS = ({"run_server"}, {"run_procfile"}, {"sync_playwright"}, {"Popen"}, {"subprocess", "run"})
MEBIBYTE = 2**20
EVALUATORS: dict[str, dict[str, Any]] = {
    "table": {}, "compiled": {"max_cells": 0}, "walk": {"max_cells": 0, "compiles": False}
}  # fmt: skip
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
# How long an example takes says more about what else the machine does than about the service; fixtures of Hypothesis's
# tests may serve all examples. `make test` has the same examples in each run, `make check` the first ones of them,
# `make audit` many others.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.register_profile("quick", UNTIMED, derandomize=True, max_examples=25)
settings.register_profile("few", UNTIMED, derandomize=True, max_examples=10)
settings.register_profile("thorough", UNTIMED, max_examples=1_000)
settings.load_profile("quick")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what lives as long as the tests: their modules and libraries, and 7,000 items."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a server, a browser or a new Python, by whatever function."""
    for item in items:
        assert isinstance(item, pytest.Function)
        definitions = item._fixtureinfo.name2fixturedefs.values()
        functions = [item.function, *(each.func for several in definitions for each in several)]
        if any(map(_starts, functions)):
            item.add_marker(pytest.mark.server)


@cache
def _starts(function: Callable[..., object]) -> bool:
    """Return whether a function starts such a process, itself or by functions of our test modules."""
    waiting: list[Any] = [function]
    seen: set[Any] = set()
    while waiting:
        function = inspect.unwrap(waiting.pop())
        if function in seen or not function.__module__.startswith("tests."):
            continue
        seen.add(function)
        names = set(_names_in(function.__code__))
        if any(starter <= names for starter in STARTERS):
            return True
        waiting += filter(inspect.isfunction, map(function.__globals__.get, names))
    return False


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


@pytest.fixture(scope="session")
def built_in() -> Trained:
    """The built-in forest as scikit-learn fits it: the oracle of tests that are about this very forest."""
    return fitting.fit(iris.load_dataset())


@pytest.fixture(scope="session")
def built_in_path(built_in: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(built_in, tmp_path_factory.mktemp("built_in") / "iris.npz")


@pytest.fixture(scope="session")
def built_in_model(built_in_path: Path) -> LoadedModel:
    return load_model(built_in_path)


@pytest.fixture(scope="session")
def trained() -> Trained:
    """Some trees of the built-in forest: their decision table takes 4 ms, not 60, each time that it is loaded."""
    return fitting.fit(iris.load_dataset(), Recipe(n_estimators=15))


@pytest.fixture(scope="session")
def model_path(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(trained, tmp_path_factory.mktemp("model") / "iris.npz")


def written(trained: Trained, path: Path) -> Path:
    writing.write(writing.model_of(trained), path, trained=trained)
    return path


@pytest.fixture(scope="session")
def model(model_path: Path) -> LoadedModel:
    return load_model(model_path)


@pytest.fixture(scope="session")
def stored(model_path: Path) -> ModelFile:
    return modelfile.parse(modelfile.read(model_path))


@pytest.fixture(scope="module", params=EVALUATORS)
def evaluator(request: pytest.FixtureRequest, model_path: Path) -> LoadedModel:
    """The model by each of its evaluators: all of them must give the same bits."""
    return load_model(model_path, **EVALUATORS[request.param])


@pytest.fixture(scope="session")
def contents(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The bytes of three model files, that of the other fixtures first."""
    folder = tmp_path_factory.mktemp("models")
    others = [fitting.fit(iris.load_dataset(), Recipe(seed=seed, n_estimators=5)) for seed in (1, 2)]
    paths = [written(each, folder / f"{number}.npz") for number, each in enumerate(others)]
    return [path.read_bytes() for path in (model_path, *paths)]


@pytest.fixture(scope="module")
def client(model_path: Path) -> Iterator[TestClient]:
    """The application in process, its lifespan entered: one for a module's tests, which leave it as it is."""
    with TestClient(create_app(Settings(model_file=model_path))) as client:
        yield client


@contextlib.contextmanager
def open_stream(client: TestClient) -> Iterator[Any]:
    """Open the stream in process, its announcement taken."""
    with client.websocket_connect("/stream") as websocket:
        assert websocket.receive_json()["type"] == "model"
        yield websocket


def for_each(names: str | Sequence[str], values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Call a test with each of the values, as pytest.mark.parametrize does, in one test that shows all cases that fail.

    A test costs 4 ms before it does anything: most cases of a rule take less.
    """
    keys = re.split(", *", names) if isinstance(names, str) else names
    cases = [dict(zip(keys, value if len(keys) > 1 else (value,), strict=True)) for value in values]
    assert cases

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def call(**fixtures: Any) -> None:
            failures: list[BaseException] = []
            for case in cases:
                try:
                    test(**fixtures, **case)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"in the case {case}"[:1000])
                    failures.append(error)
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {len(cases)} cases fail", failures)

        signature = inspect.signature(test)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in keys]
        call.__dict__["__signature__"] = signature.replace(parameters=kept)
        return call

    return decorated


def put(content: bytes, path: Path) -> None:
    """Rename bytes into place."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


@dataclass(frozen=True)
class Server:
    """A real server in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/stream"

    def processor_s(self) -> float:
        """Return the processor time used so far, in seconds, of a counter that goes by 10 ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(
    log: Path, port: int, environment: Mapping[str, str], *, python: str = sys.executable, root: str | Path = ROOT
) -> Server:
    """Start the Procfile's web command on a port of the loopback interface, by this Python or another one.

    Args:
        root: where the project lies.
    """
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("ab") as output:
        # The shell expands the command's variables as a Procfile runner's does, and then is the server itself.
        process = subprocess.Popen(
            ["sh", "-c", web_command().replace("python -m", f"{shlex.quote(python)} -m")],
            cwd=root,
            env=_variables(port, environment) | {"PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Server(process, port, log)


def web_command() -> str:
    (command,) = re.findall("^web: *(.*)", (ROOT / "Procfile").read_text(), re.MULTILINE)
    return str(command)


def _variables(port: int, environment: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "HOST": "127.0.0.1", "PORT": str(port), "DRAIN_S": "0", **environment}


def fork_server(log: Path, port: int, environment: Mapping[str, str]) -> Server:
    """Start a server as the Procfile's web command does, in a third of the processor time."""
    others = environment.keys() - {setting.metadata["variable"] for setting in fields(Settings)}
    assert not others, f"the shell of servers may have read {others} already: use run_procfile"
    defaults = dict(re.findall(r"(\w+)=\$\{\1:-(.*?)\}", web_command()))
    assert len(defaults) == web_command().count("${"), "what the Procfile gives is given to forked servers"
    return Server(ForkedServer(log, defaults | _variables(port, environment)), port, log)


@contextlib.contextmanager
def run_server(log: Path, *, port: int | None = None, **environment: str) -> Iterator[Server]:
    """Run a server on a free port of the loopback interface until the block ends."""
    with running(fork_server(log, port or free_port(), environment)) as server:
        yield server


@contextlib.contextmanager
def run_procfile(
    log: Path, *, python: str = sys.executable, root: str | Path = ROOT, **environment: str
) -> Iterator[Server]:
    """Run the Procfile's web command as `start_server` does until the block ends."""
    with running(start_server(log, free_port(), environment, python=python, root=root)) as server:
        yield server


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Give a server that has been started once it is ready, and stop it when the block ends."""
    process = server.process
    try:
        wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{server.url}/health/ready", timeout=1) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.02)  # nothing to await: the port is not open yet
    raise AssertionError(f"the server did not start:\n{server.log.read_text()}")


def opened(server: Server, *, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20, source_address=(source, 0))


def response_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next response on a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def response_to(content: bytes, connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    connection.sendall(content)
    return response_of(connection)


def ask(server: Server, content: bytes, *, source: str = "127.0.0.1") -> tuple[int, dict[str, str], bytes]:
    with opened(server, source=source) as connection:
        return response_to(content, connection)


def is_served(server: Server, *, source: str = "127.0.0.1") -> bool:
    return ask(server, LIVE, source=source)[0] == 200


def memory_bytes(server: Server, line: str = "VmRSS") -> int:
    """Return the resident memory of a server, or with `VmHWM` the most that it ever was."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(rf"{line}:\s+(\d+)", status)[0])


def assert_quiet(server: Server) -> None:
    """Hold a server to a log without errors and tracebacks."""
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert " ERROR " not in log, log


@pytest.fixture(scope="session")
def server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real server for all tests that leave it as it is."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with run_procfile(log, MODEL_FILE=str(model_path)) as server:
        yield server


@pytest.fixture(scope="module")
def quiet_server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server for a module's tests: whatever they do, it must live on and log no error and no traceback."""
    log = tmp_path_factory.mktemp("quiet") / "log.txt"
    with run_server(log, MODEL_FILE=str(model_path), ALLOWED_ORIGINS="https://allowed.example") as server:
        yield server
        assert server.process.poll() is None, log.read_text()
    assert_quiet(server)


@dataclass
class Element:
    """An element of a page, for tests that must not care how its HTML is written."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Return the elements inside with this tag and these attributes; `data_x` stands for `data-x`."""
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in ("", child.tag) and wanted.items() <= child.attributes.items():
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def one(self, tag: str = "", **attributes: str) -> Element:
        """Return the only such element."""
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} elements are {tag} {attributes}"
        return found[0]

    @property
    def text(self) -> str:
        """All text inside, its white space collapsed."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())


class _TreeBuilder(HTMLParser):
    VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "source", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("document")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open[-1].tag, f"<{self.open[-1].tag}> ends with </{tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def points_of(path: str) -> list[tuple[int, int]]:
    """Return the vertices of a path whose first one is a place, and each further one a step from the one before it."""
    numbers = [int(number) for number in path.removeprefix("m").split()]
    return list(zip(itertools.accumulate(numbers[::2]), itertools.accumulate(numbers[1::2]), strict=True))


def parse_html(html: str) -> Element:
    """Return the document; every element but the void ones must be closed in order."""
    builder = _TreeBuilder()
    builder.feed(html)
    builder.close()
    (document,) = builder.open
    return document


@pytest.fixture(scope="session", autouse=True)
def _end_of_shells() -> Iterator[None]:
    yield
    shells.close_shells()


def run_on(stdin: bytes, *arguments: str | Path, cwd: Path, module: str = "ml") -> subprocess.CompletedProcess[bytes]:
    """Run python -m ml, or another module, on a standard input, with warnings as errors."""
    return shells.run_command(module, list(map(str, arguments)), cwd=cwd, stdin=stdin)


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run python -m ml on nothing, as `run_on` does, and return what it printed as text."""
    done = run_on(b"", *arguments, cwd=cwd)
    texts = [written.decode().replace("\r\n", "\n") for written in (done.stdout, done.stderr)]
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)


def output_of(*arguments: str | Path, cwd: Path) -> str:
    """Return what a command prints that ends well and has nothing to complain about: at most, it counts its rows."""
    done = run(*arguments, cwd=cwd)
    assert (done.returncode, re.sub(r"\A\S+: \d+ rows\n\Z", "", done.stderr)) == (0, "")
    return done.stdout
