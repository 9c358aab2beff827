"""What the tiers share: one trained model, the application in process, and the real server."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ml import classifier, iris, training
from ml.classifier import Classifier
from ml.training import Trained
from web.app import create_app
from web.settings import Settings

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 30.0


@pytest.fixture(scope="session")
def trained() -> Trained:
    """The built-in forest as scikit-learn fits it: the oracle."""
    return training.fit(iris.load())


@pytest.fixture(scope="session")
def model_path(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "iris.npz"
    training.write(training.model_of(trained), path, trained=trained)
    return path


@pytest.fixture(scope="session")
def model(model_path: Path) -> Classifier:
    return classifier.load(model_path)


@pytest.fixture
def client(model_path: Path) -> Iterator[TestClient]:
    """The application in process, its lifespan entered."""
    with TestClient(create_app(Settings(model_file=model_path))) as client:
        yield client


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run_server(log: Path, *, port: int | None = None, **environment: str) -> Iterator[Server]:
    """Run the Procfile's web command on a free port of the loopback interface until the block ends."""
    port = port or free_port()
    command = next(
        line.removeprefix("web:").strip()
        for line in (ROOT / "Procfile").read_text().splitlines()
        if line.startswith("web:")
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "HOST": "127.0.0.1", "PORT": str(port), **environment}
    with log.open("ab") as output:
        # `exec`: the shell expands the command's variables as a Procfile runner's does, then is the server itself.
        process = subprocess.Popen(
            ["sh", "-c", command.replace("python -m", f"exec {shlex.quote(sys.executable)} -m")],
            cwd=ROOT,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, port, log)
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


@pytest.fixture(scope="session")
def server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real server for all tests that leave it as it is."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with run_server(log, MODEL_FILE=str(model_path)) as server:
        yield server
