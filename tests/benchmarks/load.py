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
from .server import ROOT, Server

HTTP_CONNECTIONS = 16
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

    @property
    def rate_of_core(self) -> float:
        """Replies a second of the server's processor time: steady even where others keep the machine busy."""
        return self.rate / self.server_busy


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


def busy(loads: Sequence[Load]) -> str:
    """Say how busy server and tool were: where the tool is below a whole core, it was not what limited the rate."""
    server, tool = (median(values) for values in zip(*((x.server_busy, x.tool_busy) for x in loads), strict=True))
    return f"server {server:.0%} of a core, load tool {tool:.0%}"


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
