"""Replace the model again and again while requests and streams are answered: nothing fails, nothing closes."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from websockets.asyncio.client import connect

from ml.model import modelfile
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.training import fitting, iris, writing

from . import server
from .results import Bar, Ratio, Result
from .subject import Plan, Subject, WrongAnswer

HTTP_CONNECTIONS = 16
STREAMS = 50
REPLACEMENTS_A_SECOND = 5  # of the plan
# Each client asks so often: together some 800 times a second, which leaves the processor to what is measured.
ASKED_A_SECOND = 20.0
PATIENCE_S = 20.0
ROWS = 500


@dataclass
class Load:
    """Clients that hold every answer to the model that it names, and fail when a connection ends.

    Attributes:
        announced: versions, as streams on which nothing is said hear of them.
        waits_ms: of the HTTP requests.
    """

    running: server.Server
    models: dict[str, LoadedModel]
    rows: Sequence[Sequence[float]]
    announced: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    waits_ms: list[float] = field(default_factory=list)
    answers: int = 0
    is_over: bool = False

    def check(self, row: Sequence[float], version: str, probabilities: dict[str, float]) -> None:
        """Hold an answer to the model that it names."""
        if tuple(probabilities.values()) != self.models[version].predict(row).probabilities:
            raise WrongAnswer(f"version {version} gives other probabilities for {row}")
        self.answers += 1

    async def turns(self, number: int) -> AsyncIterator[Sequence[float]]:
        """Yield rows at a steady rate until the load is over."""
        start = time.perf_counter() + (number % 16) / 16 / ASKED_A_SECOND
        for asked, row in enumerate(itertools.cycle(self.rows[number % ROWS :])):
            await asyncio.sleep(max(0.0, start + asked / ASKED_A_SECOND - time.perf_counter()))
            if self.is_over:
                return
            yield row

    async def http(self, number: int) -> None:
        """Ask on one connection, which must stay open."""
        keys = [feature.key for feature in next(iter(self.models.values())).features]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
        async for row in self.turns(number):
            query = urlencode(dict(zip(keys, row, strict=True)))
            begun = time.perf_counter()
            writer.write(f"GET /predict?{query} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.split(": ", 1) for line in head.splitlines()[1:-1])
            body = await reader.readexactly(int(headers["content-length"]))
            self.waits_ms.append((time.perf_counter() - begun) * 1_000)
            answer = json.loads(body)
            if not head.startswith("HTTP/1.1 200 ") or headers["x-model-version"] != answer["model"]["version"]:
                raise WrongAnswer(head)
            self.check(row, answer["model"]["version"], answer["probabilities"])
        writer.close()
        await writer.wait_closed()

    async def stream(self, number: int) -> None:
        """Ask on one stream; each answer must come from the model that was announced last."""
        async with connect(f"ws://127.0.0.1:{self.running.port}/stream", compression=None) as stream:
            announced = json.loads(await stream.recv())["model"]["version"]
            async for row in self.turns(number):
                await stream.send(json.dumps({"sample": row}))
                while (frame := json.loads(await stream.recv()))["type"] == "model":
                    announced = frame["model"]["version"]
                if frame.get("version") != announced:
                    raise WrongAnswer(f"{frame} after version {announced} was announced")
                self.check(row, announced, frame["probabilities"])

    async def silent_stream(self) -> None:
        """Listen on one stream."""
        async with connect(f"ws://127.0.0.1:{self.running.port}/stream", compression=None) as stream:
            while not self.is_over:
                self.announced.put_nowait(json.loads(await stream.recv())["model"]["version"])


@asynccontextmanager
async def clients(load: Load, *, connections: int, streams: int) -> AsyncIterator[int]:
    """Run the clients, half of the streams silent, until the block ends; tell how many are silent."""
    silent = streams // 2
    async with asyncio.TaskGroup() as tasks:
        listening = [tasks.create_task(load.silent_stream()) for _ in range(silent)]
        for number in range(connections):
            tasks.create_task(load.http(number))
        for number in range(streams - silent):
            tasks.create_task(load.stream(number))
        for _ in range(silent):
            await load.announced.get()
        yield silent
        load.is_over = True
        for task in listening:
            task.cancel()


async def replace(load: Load, path: Path, content: bytes, *, silent: int) -> float:
    """Rename a model file into place and wait until every silent stream has heard of it; return the seconds."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    begun = time.perf_counter()
    part.replace(path)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(silent):
            version = await load.announced.get()
            if version != modelfile.version_of(content):
                raise WrongAnswer(f"version {version} was announced")
    return time.perf_counter() - begun


def other_file(folder: Path) -> bytes:
    """Return the bytes of another model for the same samples."""
    fitted = fitting.fit(iris.load_dataset(), Recipe(seed=1))
    path = folder / "other.npz"
    writing.write(writing.model_of(fitted), path, trained=fitted)
    return path.read_bytes()


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Compare waits with and without replacements, and memory after the first of them with that after the last."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.npz"
        contents = [other_file(Path(name)), subject.model_path.read_bytes()]
        path.write_bytes(contents[1])
        served = dataclasses.replace(subject, model_path=path)
        with server.service(served, MODEL_CHECK_S="0.1", RATE_LIMIT="1000000/second") as running:
            models = {modelfile.version_of(content): loaded(content) for content in contents}
            load = Load(running, models, subject.rows[:ROWS])
            return asyncio.run(_measured(load, path, contents, plan))


def loaded(content: bytes) -> LoadedModel:
    """Return the model in a file's bytes."""
    return LoadedModel(modelfile.parse(content), modelfile.version_of(content))


async def _measured(load: Load, path: Path, contents: Sequence[bytes], plan: Plan) -> list[Result]:
    quiet: list[float] = []
    replacing: list[float] = []
    taken_s: list[float] = []
    megabytes: list[float] = []
    a_round = max(2, round(REPLACEMENTS_A_SECOND * plan.seconds))
    async with clients(load, connections=HTTP_CONNECTIONS, streams=STREAMS) as silent:
        for content in contents:  # what two models at once cost
            await replace(load, path, content, silent=silent)
        for _ in range(plan.rounds):
            load.waits_ms = []
            begun = time.perf_counter()
            for _ in range(a_round):
                taken_s.append(await replace(load, path, contents[len(taken_s) % 2], silent=silent))
            replacing.append(p99(load.waits_ms))
            load.waits_ms = []
            await asyncio.sleep(time.perf_counter() - begun)
            quiet.append(p99(load.waits_ms))
            megabytes.append(load.running.resident_mb())
    count = len(taken_s)
    growth = megabytes[-1] - megabytes[0]
    return [
        Result(
            f"{HTTP_CONNECTIONS} connections and {STREAMS} streams, p99 while models are replaced",
            median(replacing),
            "ms",
            Ratio.of(replacing, quiet),
            f"the same without, {median(quiet):.1f} ms",
            (Bar(median(replacing), 50, "ms", highest=True),),
            f"{load.answers:,} answers, {count} replacements, each heard of on {silent} silent streams after "
            f"{median(taken_s):.2f} s; 0 failed, 0 closed",
        ),
        Result(
            f"memory after {count} replacements",
            megabytes[-1],
            "MB",
            Ratio.of(megabytes[-1:], megabytes[:1]),
            f"after {a_round}, {megabytes[0]:.1f} MB",
            (Bar(growth, 5, "MB", highest=True),),
            f"grown by {growth:.1f} MB",
        ),
    ]


def p99(waits: Sequence[float]) -> float:
    """Return what 99 of 100 waits take at most."""
    return sorted(waits)[int(len(waits) * 0.99)]
