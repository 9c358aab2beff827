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
WHOLE_CORE = 0.9
TOOLS = ("wrk", "python")


@dataclass(frozen=True)
class Load:
    """What one run of a load tool measured.

    Attributes:
        rate: replies a second.
        server_busy, tool_busy: processor time a second of the server and of the tool; 1 is a whole core.
    """

    rate: float
    server_busy: float
    tool_busy: float


@dataclass(frozen=True)
class Comparison:
    """The loads of a server next to those of the one that it is measured against, one pair a round.

    A server that waits for nothing but the processor, and has it for itself, is busy for a whole core. Rounds in which
    one of the two was not are left out as long as others remain: something else was running on this machine.
    """

    loads: Sequence[Load]
    references: Sequence[Load]

    @property
    def counted(self) -> Sequence[tuple[Load, Load]]:
        pairs = list(zip(self.loads, self.references, strict=True))
        return [pair for pair in pairs if all(run.server_busy >= WHOLE_CORE for run in pair)] or pairs

    @property
    def rate(self) -> float:
        return median(run.rate for run, _ in self.counted)

    @property
    def reference_rate(self) -> float:
        return median(reference.rate for _, reference in self.counted)

    @property
    def ratio(self) -> Ratio:
        runs, references = zip(*self.counted, strict=True)
        return Ratio.of([run.rate for run in runs], [run.rate for run in references])

    def __str__(self) -> str:
        """Say how busy servers and tool were: a tool below a whole core was not what limited the rate."""
        runs, references = zip(*self.counted, strict=True)
        texts = []
        for name, series in (("server", runs), ("bare", references)):
            server, tool = median(run.server_busy for run in series), median(run.tool_busy for run in series)
            texts.append(f"{name} {server:.0%}, tool {tool:.0%}")
        return f"{'; '.join(texts)} of a core; {len(runs)} of {len(self.loads)} rounds"


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


def stream(server: Server, frames: Path, *, seconds: float, window: int, options: Sequence[object]) -> Load:
    """Send the frames of a file on one connection, `window` of them in flight, and count the replies."""
    return _generate(server, "stream", frames, seconds, "--connections", 1, "--window", window, *options)


def _generate(server: Server, kind: str, messages: Path, seconds: float, *options: object) -> Load:
    command = [sys.executable, "-m", "tests.benchmarks.generator", kind, server.port, messages, "--seconds", seconds]
    return _run(server, [*command, *options])


def _run(server: Server, command: Sequence[object]) -> Load:
    used = server.cpu_s()
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    used = server.cpu_s() - used
    if done.returncode:
        raise RuntimeError(f"the load tool failed:\n{done.stdout}{done.stderr}")
    report = msgspec.json.decode(done.stdout.splitlines()[-1], type=Report)
    if report.errors or not report.replies:
        raise RuntimeError(f"{report.errors} errors, {report.replies} replies: {' '.join(map(str, command))}")
    return Load(report.replies / report.seconds, used / report.seconds, report.cpu_s / report.seconds)
