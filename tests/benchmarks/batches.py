"""How long a typing person waits beside one client that sends large batches, or a file, without pause.

The client is a process of its own: python -m tests.benchmarks.batches KIND PORT FILE.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from sklearn.datasets import load_digits
from websockets.sync.client import ClientConnection, connect

from . import attack, server
from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject
from .wide import exported

FILE_ROWS, FILE_VALUES = 1_000_000, 8_000_000
BATCH_ROWS = 10_000
FRAME_BYTES = 2**20
VALUE_CHARACTERS = 8
CHUNK_BYTES = 2**17
MOST_MS, MOST_TIMES = 20.0, 3.0

# Not as many as keep the event loop busy by themselves: a wide model answers a key in some milliseconds.
PEOPLE = 3

Send = Callable[[int, bytes], Iterator[object]]


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Let people type beside each kind of batch, for a decision table and for compiled code."""
    digits = exported(subject, "digits", load_digits())
    return [*_measured("built-in model", subject, plan), *_measured("64 features", digits, plan)]


def _measured(name: str, subject: Subject, plan: Plan) -> list[Result]:
    files = {kind: subject.directory / f"{name}, {kind}" for kind in KINDS}
    for kind, path in files.items():
        path.write_bytes(content_of(kind, subject))
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with server.service(subject) as service:
        queries = [subject.query(row) for row in subject.rows]
        attack.typed(service, queries, seconds=0.2)  # what first requests cost is not asked here

        def waits(kind: str) -> float:
            with sending(service.port, kind, files[kind]) if kind else contextlib.nullcontext():
                before, begun = rows_answered(service.port), time.perf_counter()
                p99_ms = attack.typed(service, queries, seconds=plan.seconds, people=PEOPLE).p99_ms
                rows, seconds = rows_answered(service.port) - before, time.perf_counter() - begun
            if kind:
                rates[kind].append(rows / seconds)
            return p99_ms

        quiet, *rounds = interleave([partial(waits, kind) for kind in ("", *KINDS)], rounds=plan.rounds)
    return [_result(f"{kind}, {name}", p99s, quiet, rates[kind]) for kind, p99s in zip(KINDS, rounds, strict=True)]


def _result(what: str, p99s: Sequence[float], quiet: Sequence[float], rates: Sequence[float]) -> Result:
    ratio = Ratio.of(p99s, quiet)
    return Result(
        f"p99 of a key beside {what}", median(p99s), "ms", ratio, f"the same without, {median(quiet):.1f} ms",
        (Bar(median(p99s), MOST_MS, "ms", highest=True), Bar(ratio.median, MOST_TIMES, "times", highest=True)),
        f"beside it {median(rates) / 1e3:,.1f} thousand rows/s",
    )  # fmt: skip


@contextlib.contextmanager
def sending(port: int, kind: str, path: Path) -> Iterator[None]:
    """Have a client send batches from before the block begins until it ends."""
    command = [sys.executable, "-m", "tests.benchmarks.batches", kind, str(port), str(path)]
    with subprocess.Popen(command, cwd=server.ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it has one answer
            yield
            if process.poll() is not None:
                raise RuntimeError(f"the client of {kind} failed")
        finally:
            process.kill()


def rows_answered(port: int) -> float:
    """Return how many predictions a server has made on all channels but the keys' own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return sum(map(float, re.findall(r'^predictions_total{.*channel="(?!fragment").*} (.*)$', text, re.MULTILINE)))


def content_of(kind: str, subject: Subject) -> bytes:
    """Return what a client of a kind sends."""
    n_features = len(subject.model.features)
    rows = np.resize(np.array(subject.rows), (BATCH_ROWS, n_features))
    if "file" in kind:
        header = ",".join(feature.key for feature in subject.model.features)
        lines = "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())
        return f"{header}\n{lines * (min(FILE_ROWS, FILE_VALUES // n_features) // BATCH_ROWS)}".encode()
    if kind == "tensors":
        tensor = {"name": "samples", "datatype": "FP64", "shape": rows.shape, "data": rows.ravel().tolist()}
        return msgspec.json.encode({"inputs": [tensor]})
    if kind == "binary frames":
        return np.resize(rows, (FRAME_BYTES // (4 * n_features), n_features)).astype("<f4").tobytes()
    if kind == "frames of samples":
        rows = rows[: FRAME_BYTES // (VALUE_CHARACTERS * n_features)]
    return msgspec.json.encode({"samples": rows.tolist()})


def _post(path: str, kind: str, port: int, content: bytes) -> Iterator[object]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        while True:
            connection.request("POST", path, content, {"Content-Type": kind})
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {response.read()[:200]!r}")
            yield response.read(1)
            response.read()


def _tensors(port: int, content: bytes) -> Iterator[object]:
    with connect(f"ws://127.0.0.1:{port}/stream") as socket:
        name = msgspec.json.decode(socket.recv())["model"]["name"]
    return _post(f"/v2/models/{name}/infer", "application/json", port, content)


def _upload(port: int, content: bytes) -> Iterator[object]:
    while True:
        with connect(f"ws://127.0.0.1:{port}/score", compression=None, max_size=None) as socket:
            socket.recv()
            for start in range(0, len(content), CHUNK_BYTES):
                socket.send(content[start : start + CHUNK_BYTES])
                yield _rows(socket)
            socket.send(b"")
            yield _rows(socket)


def _rows(socket: ClientConnection) -> str:
    while not isinstance(answer := socket.recv(), str):
        pass
    return answer


def _frames(port: int, content: bytes | str) -> Iterator[object]:
    with connect(f"ws://127.0.0.1:{port}/stream", compression=None, max_size=None) as socket:
        socket.recv()
        while True:
            socket.send(content)
            yield socket.recv()


KINDS: dict[str, Send] = {
    "a file": partial(_post, "/score", "text/csv"),
    "a file on a websocket": _upload,
    "samples": partial(_post, "/predict", "application/json"),
    "tensors": _tensors,
    "frames of samples": lambda port, content: _frames(port, content.decode()),
    "binary frames": _frames,
}


def main() -> None:
    """Send as the command line says, until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batches")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    answers = KINDS[options.kind](options.port, options.file.read_bytes())
    next(answers)
    print("answered", flush=True)
    deque(answers, maxlen=0)


if __name__ == "__main__":
    main()
