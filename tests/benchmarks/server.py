"""A server in a process of its own, and what the operating system says about it."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .subject import Subject

ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        start_s: from the start of the process to its first answer, in seconds.
    """

    process: subprocess.Popen[bytes]
    port: int
    start_s: float

    def cpu_s(self) -> float:
        """Return the processor time that the process has used, in seconds; it is counted in steps of 0.01 s."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]  # after the name, which may hold anything
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Return the resident memory of the process, in 10^6 bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / 1e6


@contextlib.contextmanager
def service(subject: Subject, **settings: str) -> Iterator[Server]:
    """Run `python -m web` with settings of the environment on a free port until the block ends."""
    variables = {"HOST": "127.0.0.1", "MODEL_FILE": str(subject.model_path), "WEB_CONCURRENCY": "1", "DRAIN_S": "0"}
    variables |= settings
    target = f"/predict?{subject.query(subject.rows[0])}"
    with _running("web", target, variables) as server:
        yield server


@contextlib.contextmanager
def bare() -> Iterator[Server]:
    """Run the bare server on a free port until the block ends."""
    with _running("tests.benchmarks.bare", "/", {}) as server:
        yield server


@contextlib.contextmanager
def _running(module: str, target: str, variables: dict[str, str]) -> Iterator[Server]:
    port = _free_port()
    # Compiled modules and templates are kept, as they are where the service runs: else each start compiles all of them.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PORT": str(port), **variables}
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            if not _answers(process, port, target):
                log.seek(0)
                raise RuntimeError(f"{module} did not start:\n{log.read().decode(errors='replace')}")
            yield Server(process, port, time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


def _answers(process: subprocess.Popen[bytes], port: int, target: str) -> bool:
    """Wait until the server answers a GET with 200; tell whether it did."""
    deadline = time.perf_counter() + START_TIMEOUT_S
    while time.perf_counter() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)
        try:
            connection.request("GET", target, headers={"Accept": "application/json"})
            return connection.getresponse().status == 200
        except ConnectionRefusedError:
            time.sleep(0.001)  # nothing to await: the port is not open yet
        finally:
            connection.close()
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
