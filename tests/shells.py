"""Shells that have our modules loaded, and fork a process for each command or server.

Importing scikit-learn takes longer than most commands, and importing our modules as long as some; a server takes 0.7 s
of processor time to start, and 0.2 s when it is forked.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from web.settings import ROOT

# A process has arguments, a folder, an environment, input, output and an exit status of its own. A command is waited
# for; a server is waited for by yet another process, which writes its exit status to the file that the order names.
LOOP = """
import contextlib, json, os, runpy, sys, traceback

for line in sys.stdin:
    order = json.loads(line)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass  # of a server that has ended
    if child := os.fork():
        if "ended" not in order:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    if "ended" in order:
        ended = os.open(order["ended"], os.O_WRONLY)
        if child := os.fork():
            print(child, flush=True)
            os.write(ended, b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            os._exit(0)
        os.close(ended)
    for number, path in enumerate([order["in"], order["out"], order["err"]]):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ |= order["environment"]
    os.chdir(order["cwd"])
    sys.argv[1:] = order["arguments"]
    sys.path[0] = order["cwd"]
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
"""
# run_module warns of what is loaded already.
COMMANDS = """
import numpy, msgspec, tqdm, scipy.sparse, sklearn.datasets, sklearn.ensemble, sklearn.model_selection, sklearn.tree
import sys, ml.__main__, web.client.__main__
del sys.modules["ml.__main__"], sys.modules["web.client.__main__"]
"""
SERVERS = """
import sys, uvicorn, uvloop, web.__main__, web.app, web.server.http, web.server.server, web.server.websocket
del sys.modules["web.__main__"]
"""


# Python warns of a fork where there are threads.
OURS = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"}


class Shell:
    """Has modules loaded, and starts processes.

    Args:
        imports: a text of Python that loads the modules.
        options: of Python.
    """

    def __init__(self, imports: str, *options: str) -> None:
        self._command = [sys.executable, *options, "-c", imports + LOOP]
        self._process: subprocess.Popen[str] | None = None

    def order(self, module: str, *arguments: str, **order: object) -> int:
        """Run a module; return its exit status, or the number of the process where an order names a file for that."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | OURS
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        content = json.dumps({"module": module, "arguments": arguments, **order}, default=str)
        print(content, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        if self._process is not None:
            with self._process as process:
                assert process.stdin is not None
                process.stdin.close()
            self._process = None


_commands = Shell(COMMANDS, "-W", "error")
_servers = Shell(SERVERS)


def close_shells() -> None:
    _commands.close()
    _servers.close()


def run_command(
    module: str, arguments: Sequence[str], *, cwd: Path, stdin: bytes
) -> subprocess.CompletedProcess[bytes]:
    """Run python -m ml, or another module, elsewhere than in the project, with warnings as errors."""
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: Path(folder, name) for name in ("in", "out", "err")}
        streams["in"].write_bytes(stdin)
        status = _commands.order(module, *arguments, cwd=cwd, environment=os.environ | OURS, **streams)
        written = [streams[name].read_bytes() for name in ("out", "err")]
    return subprocess.CompletedProcess(["python", "-m", module, *arguments], status, *written)


class ForkedServer(subprocess.Popen[bytes]):
    """A process of python -m web that the shell of servers has forked, in the project; its output goes to a log."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.args = ["python", "-m", "web"]
        self.returncode: int | None = None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "ended")
            os.mkfifo(path)
            self._ended = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            streams = {"in": os.devnull, "out": log, "err": log}
            self.pid = _servers.order("web", cwd=ROOT, environment=dict(environment), ended=path, **streams)

    def poll(self) -> int | None:
        return self._wait_ms(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._wait_ms(None if timeout is None else timeout * 1000)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _wait_ms(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._ended, select.POLLIN)
            if ended.poll(timeout):
                self.returncode = int(os.read(self._ended, 10))
                os.close(self._ended)
        return self.returncode
