"""Put load on a server with a tool in a process of its own, and tell whether the server was the one that was busy."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from .generator import Report
from .results import Ratio
from .server import ROOT, Server

HTTP_CONNECTIONS = 16
TOOLS = ("wrk", "python")


@dataclass(frozen=True)
class Load:
    """What one run of a load tool measured; processor times are in seconds."""

    replies: int
    seconds: float
    server_cpu_s: float
    tool_cpu_s: float

    @property
    def rate(self) -> float:
        """Replies a second of the server's processor time.

        With a core to itself a server under load is busy all the time, and this is what it answers in a second. Where
        something else runs on the machine it still is, while replies a second of the clock say little.
        """
        return self.replies / self.server_cpu_s


@dataclass(frozen=True)
class Comparison:
    """The loads of a server next to those of the one that it is measured against, one pair a round."""

    loads: Sequence[Load]
    references: Sequence[Load]

    @property
    def rate(self) -> float:
        return median(run.rate for run in self.loads)

    @property
    def reference_rate(self) -> float:
        return median(run.rate for run in self.references)

    @property
    def ratio(self) -> Ratio:
        return Ratio.of([run.rate for run in self.loads], [run.rate for run in self.references])

    def __str__(self) -> str:
        """Say how busy servers and tool were: a tool below a whole core was not what limited the rate."""
        return f"busy: {_busy(self.loads)}; bare: {_busy(self.references)}"


def _busy(loads: Sequence[Load]) -> str:
    server = median(run.server_cpu_s / run.seconds for run in loads)
    tool = median(run.tool_cpu_s / run.seconds for run in loads)
    return f"server {server:.0%}, tool {tool:.0%}"


def default_tool() -> str:
    """Return `wrk` where it is installed, else `python`."""
    return "wrk" if shutil.which("wrk") else "python"


def http(server: Server, requests: Path, *, seconds: float, tool: str) -> Load:
    """Send the requests of a file on 16 connections, one at a time on each, and count the replies.

    wrk takes whole seconds only: at least one.
    """
    if tool == "wrk":
        duration = f"{max(1, math.ceil(seconds))}s"
        script = Path(__file__).with_name("wrk.lua")
        url = f"http://127.0.0.1:{server.port}"
        command = ["wrk", "-t1", f"-c{HTTP_CONNECTIONS}", "-d", duration, "-s", script, url, "--", requests]
        return _run(server, command)
    options = ("--connections", HTTP_CONNECTIONS, "--expected", "HTTP/1.1 200 ")
    return _generate(server, "http", requests, seconds, *options)


def stream(
    server: Server, frames: Path, *, seconds: float, connections: int, window: int, options: Sequence[object]
) -> Load:
    """Send the frames of a file, `window` of them in flight on each connection, and count the replies."""
    return _generate(server, "stream", frames, seconds, "--connections", connections, "--window", window, *options)


def _generate(server: Server, kind: str, messages: Path, seconds: float, *options: object) -> Load:
    command = [sys.executable, "-m", "tests.benchmarks.generator", kind, server.port, messages, "--seconds", seconds]
    return _run(server, [*command, *options])


def _run(server: Server, command: Sequence[object]) -> Load:
    used = server.cpu_s()
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    used = max(server.cpu_s() - used, 0.01)  # its steps: a short load on a busy machine takes less than one
    if done.returncode:
        raise RuntimeError(f"the load tool failed:\n{done.stdout}{done.stderr}")
    report = msgspec.json.decode(done.stdout.splitlines()[-1], type=Report)
    if report.errors or not report.replies:
        raise RuntimeError(f"{report.errors} errors, {report.replies} replies: {' '.join(map(str, command))}")
    return Load(report.replies, report.seconds, used, report.cpu_s)
