"""A long run over every channel while the model is replaced and clients come and go: memory must not grow.

Every answer is checked against the model of the version that it names, in this process.
"""

from __future__ import annotations

import contextlib
import csv
import html
import http.client
import itertools
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.training import fitting, iris, writing

from . import server
from .results import Bar, Ratio, Result
from .subject import Plan, Subject, WrongAnswer

# Rounds before memory is looked at for the first time, beside those that are asked for.
WARM_UP_ROUNDS = 5
MEDIAN_ROUNDS = 5
VISITORS = 4
BATCH_ROWS = 5
MOST_MB = 5.0
ENVIRONMENT = {"MODEL_CHECK_S": "0.1"}
TIMEOUT_S = 30.0

Rows = Sequence[Sequence[float]]
_METER = re.compile(r'<meter min="0" max="1" value="([^"]+)" aria-hidden')
_LABEL = re.compile(r'data-state="answer" data-label="([^"]*)"')


@dataclass(frozen=True)
class Size:
    """How much to do. In each round the model is replaced once, and every visitor connects anew.

    After that many rounds there are more of them until `least_s` seconds are over.
    """

    predictions: int = 100_000
    rounds: int = 50
    least_s: float = 0.0


@dataclass(frozen=True)
class Soaked:
    """What was done, without the warm-up, and the resident memory before and after it, in 10^6 bytes."""

    predictions: int
    replacements: int
    reconnects: int
    before_mb: float
    after_mb: float
    seconds: float

    @property
    def grown_mb(self) -> float:
        return self.after_mb - self.before_mb


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Soak the service: a hundred thousand predictions, or as many as the plan's minutes have time for."""
    size = Size(least_s=60 * plan.minutes)
    soaked = soak(subject, size)
    return [
        Result(
            f"{soaked.predictions:,} predictions, {soaked.replacements} models, {soaked.reconnects} reconnects: memory",
            soaked.grown_mb,
            "MB more",
            Ratio.of([soaked.grown_mb], [MOST_MB]),
            f"its bar, {MOST_MB:g} MB",
            (Bar(soaked.grown_mb, MOST_MB, "MB", highest=True),),
            f"{soaked.before_mb:.1f} MB after warm-up; every answer checked, in {soaked.seconds:.0f} s",
        )
    ]


def soak(subject: Subject, size: Size) -> Soaked:
    """Soak the service on all channels.

    Raises:
        WrongAnswer: an answer is not that of the version that it names, or a replaced model does not come.
    """
    served, files, models = _two_models(subject)
    predictions = -(-size.predictions // (size.rounds * VISITORS))
    resident_mb: list[float] = []
    counts: list[tuple[int, int]] = []  # predictions and reconnects of each round
    with (
        server.service(replace(subject, model_path=served), **ENVIRONMENT) as service,
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor(VISITORS) as pool,
    ):
        visitors = [
            stack.enter_context(contextlib.closing(Visitor(service.port, models, subject.rows[number::VISITORS])))
            for number in range(VISITORS)
        ]
        for number in itertools.count():
            if number == WARM_UP_ROUNDS:
                started = time.perf_counter()
            if number >= WARM_UP_ROUNDS + size.rounds and time.perf_counter() - started >= size.least_s:
                break
            version, path = files[(number + 1) % 2]
            rounds = [pool.submit(visitor.round, predictions, polite=number % 2 == 0) for visitor in visitors]
            _rename(path, served)
            _wait_for(version, service.port, rounds)
            counts.append((sum(each.result() for each in rounds), len(visitors)))
            resident_mb.append(service.resident_mb())
            done = number + 1 - WARM_UP_ROUNDS
            if done > 0 and done % 10 == 0:
                _show(counts[WARM_UP_ROUNDS:], size, resident_mb[-1])
    compared = min(MEDIAN_ROUNDS, size.rounds)
    return Soaked(
        predictions=sum(each for each, _ in counts[WARM_UP_ROUNDS:]),
        replacements=len(counts) - WARM_UP_ROUNDS,
        reconnects=sum(each for _, each in counts[WARM_UP_ROUNDS:]),
        before_mb=median(resident_mb[:WARM_UP_ROUNDS][-compared:]),
        after_mb=median(resident_mb[-compared:]),
        seconds=time.perf_counter() - started,
    )


def _two_models(subject: Subject) -> tuple[Path, list[tuple[str, Path]], dict[str, LoadedModel]]:
    """Return where the served file is, two files that take turns there, and both models by version."""
    other = fitting.fit(iris.load_dataset(), Recipe(seed=1))
    path = subject.directory / "other model.npz"
    second = writing.write(writing.model_of(other), path, trained=other)
    served = subject.directory / "served.npz"
    shutil.copy(subject.model_path, served)
    files = [(subject.model.version, subject.model_path), (second.version, path)]
    return served, files, {subject.model.version: subject.model, second.version: second}


def _rename(path: Path, served: Path) -> None:
    copy = served.with_suffix(".part")
    shutil.copy(path, copy)
    os.replace(copy, served)


def _wait_for(version: str, port: int, rounds: Sequence[Future[int]]) -> None:
    """Wait until the service answers with this version; a visitor's error is more telling than its absence."""
    deadline = time.perf_counter() + TIMEOUT_S
    while time.perf_counter() < deadline:
        for each in rounds:
            if each.done():
                each.result()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("GET", "/health/ready")
            if json.loads(connection.getresponse().read())["model"]["version"] == version:
                return
        time.sleep(0.02)  # nothing to await: the service looks at the file in its own time
    raise WrongAnswer(f"the model was replaced, and version {version} does not answer")


def _show(counts: Sequence[tuple[int, int]], size: Size, resident_mb: float) -> None:
    predictions = sum(each for each, _ in counts)
    print(
        f"  {predictions:,} of {size.predictions:,} predictions, {len(counts)} of {size.rounds} models, "
        f"{resident_mb:.1f} MB",
        file=sys.stderr,
        flush=True,
    )


class Visitor:
    """A client that goes through all channels in turn, one request after the other."""

    def __init__(self, port: int, models: Mapping[str, LoadedModel], rows: Rows) -> None:
        self._port = port
        self._models = models
        self._keys = [feature.key for feature in next(iter(models.values())).features]
        self._rows = itertools.cycle(rows)
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._stream: ClientConnection | None = None
        self._open = contextlib.ExitStack()
        self._announced = ""
        self._channels = itertools.cycle(CHANNELS)
        self.inference_path = f"/v2/models/{next(iter(models.values())).name}/infer"

    def connect(self) -> None:
        """Open a stream; HTTP connects by itself."""
        address = f"ws://127.0.0.1:{self._port}/stream"
        self._stream = self._open.enter_context(connect(address, open_timeout=TIMEOUT_S, compression=None))
        self._announced = json.loads(self._stream.recv(TIMEOUT_S))["model"]["version"]

    def close(self) -> None:
        """Leave."""
        self._http.close()
        self._open.close()

    def round(self, predictions: int, *, polite: bool) -> int:
        """Connect anew, ask for at least so many predictions, and return how many it were.

        Args:
            polite: say goodbye to the stream first; else just be gone.
        """
        if self._stream is not None and not polite:
            self._stream.socket.close()
        self.close()
        self.connect()
        done = 0
        while done < predictions:
            name, size, ask = next(self._channels)
            rows = list(itertools.islice(self._rows, size))
            try:
                ask(self, rows)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise WrongAnswer(f"{name}: an answer in another form: {error!r}") from error
            done += size
        return done

    def sample(self, row: Sequence[float]) -> dict[str, float]:
        """Return a row by feature key."""
        return dict(zip(self._keys, row, strict=True))

    def ask(
        self, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Return a response and its body."""
        self._http.request("GET" if body is None else "POST", path, body, dict(headers))
        response = self._http.getresponse()
        content = response.read()
        if response.status != 200:
            raise WrongAnswer(f"{path}: {response.status} {content[:200]!r}")
        return response, content

    def send(self, frame: str | bytes) -> tuple[str, str | bytes]:
        """Return the reply to a frame, and the version that was announced last before it."""
        assert self._stream is not None
        self._stream.send(frame)
        while True:
            reply = self._stream.recv(TIMEOUT_S)
            if isinstance(reply, bytes) or not reply.startswith('{"type":"model"'):
                return self._announced, reply
            self._announced = json.loads(reply)["model"]["version"]

    def model(self, version: str) -> LoadedModel:
        """Return the model of a version."""
        return self._models[version]


def check(name: str, model: LoadedModel, rows: Rows, labels: Sequence[str], shares: Sequence[Sequence[float]]) -> None:
    """Hold labels and probabilities, one list a row, to the model.

    Raises:
        WrongAnswer: they are others.
    """
    expected = [model.predict(row) for row in rows]
    if [(one.label, list(one.probabilities)) for one in expected] != list(zip(labels, map(list, shares), strict=True)):
        raise WrongAnswer(f"{name}: {rows} got {labels} {shares} from version {model.version}")


def _check_html(name: str, visitor: Visitor, rows: Rows, response: http.client.HTTPResponse, content: bytes) -> None:
    model, (row,), text = visitor.model(str(response.headers["X-Model-Version"])), rows, content.decode()
    expected = model.predict(row)
    labels = [html.unescape(label) for label in _LABEL.findall(text)]
    shares = sorted(map(float, _METER.findall(text)))
    if labels != [expected.label] or shares != sorted(expected.probabilities):
        raise WrongAnswer(f"{name}: {row} got {labels} {shares} from version {model.version}")


def _check_json(name: str, visitor: Visitor, rows: Rows, version: str, answers: Sequence[dict[str, Any]]) -> None:
    model = visitor.model(version)
    shares = [[answer["probabilities"][label] for label in model.labels] for answer in answers]
    check(name, model, rows, [answer["label"] for answer in answers], shares)


def _check_version(name: str, announced: str, answer: dict[str, Any]) -> None:
    if answer["version"] != announced:
        raise WrongAnswer(f"{name}: version {answer['version']} answered, but {announced} was announced last")


_HTMX = {"HX-Request": "true"}
_JSON = {"Accept": "application/json"}
_JSON_BODY = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _query(visitor: Visitor, rows: Rows) -> str:
    return "&".join(f"{key}={value}" for key, value in visitor.sample(rows[0]).items())


def _page(visitor: Visitor, rows: Rows) -> None:
    _check_html("page", visitor, rows, *visitor.ask(f"/?{_query(visitor, rows)}", {}))


def _result(visitor: Visitor, rows: Rows) -> None:
    _check_html("result", visitor, rows, *visitor.ask("/result", _FORM, _query(visitor, rows).encode()))


def _fragment(visitor: Visitor, rows: Rows) -> None:
    _check_html("fragment", visitor, rows, *visitor.ask(f"/predict?{_query(visitor, rows)}", _HTMX))


def _get(visitor: Visitor, rows: Rows) -> None:
    _, content = visitor.ask(f"/predict?{_query(visitor, rows)}", _JSON)
    answer = json.loads(content)
    _check_json("GET JSON", visitor, rows, answer["model"]["version"], [answer])


def _form(visitor: Visitor, rows: Rows) -> None:
    _, content = visitor.ask("/predict", _FORM | _JSON, _query(visitor, rows).encode())
    answer = json.loads(content)
    _check_json("form", visitor, rows, answer["model"]["version"], [answer])


def _post(visitor: Visitor, rows: Rows) -> None:
    body = json.dumps({"sample": visitor.sample(rows[0])}).encode()
    _, content = visitor.ask("/predict", _JSON_BODY, body)
    answer = json.loads(content)
    _check_json("POST JSON", visitor, rows, answer["model"]["version"], [answer])


def _post_many(visitor: Visitor, rows: Rows) -> None:
    _, content = visitor.ask("/predict", _JSON_BODY, json.dumps({"samples": rows}).encode())
    answer = json.loads(content)
    _check_json("POST of many", visitor, rows, answer["model"]["version"], answer["predictions"])


def _score(visitor: Visitor, rows: Rows) -> None:
    lines = [",".join(map(str, row)) for row in (list(visitor.sample(rows[0])), *rows)]
    response, content = visitor.ask("/score", {"Content-Type": "text/csv"}, "\n".join(lines).encode())
    model = visitor.model(str(response.headers["X-Model-Version"]))
    found = list(csv.DictReader(content.decode().splitlines()))
    shares = [[float(row[f"probability_{label}"]) for label in model.labels] for row in found]
    check("score", model, rows, [row["predicted_label"] for row in found], shares)


def _infer(visitor: Visitor, rows: Rows) -> None:
    tensor = {"name": "samples", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": rows}
    _, content = visitor.ask(visitor.inference_path, _JSON_BODY, json.dumps({"inputs": [tensor]}).encode())
    answer = json.loads(content)
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    shares = np.reshape(outputs["probabilities"], (len(rows), -1)).tolist()
    check("inference", visitor.model(answer["model_version"]), rows, outputs["label"], shares)


def _infer_binary(visitor: Visitor, rows: Rows) -> None:
    content = np.array(rows, dtype="<f8").tobytes()
    size = {"binary_data_size": len(content)}
    tensor = {"name": "samples", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "parameters": size}
    wanted = [{"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    response, reply = visitor.ask(visitor.inference_path, headers, head + content)
    head_length = int(str(response.headers["Inference-Header-Content-Length"]))
    answer = json.loads(reply[:head_length])
    shares = np.frombuffer(reply[head_length:], "<f8").reshape(len(rows), -1).tolist()
    model = visitor.model(answer["model_version"])
    check("binary inference", model, rows, answer["outputs"][0]["data"], shares)


def _frame(visitor: Visitor, rows: Rows) -> None:
    announced, reply = visitor.send(json.dumps({"id": 1, "sample": visitor.sample(rows[0])}))
    answer = json.loads(reply)
    _check_json("stream", visitor, rows, announced, [answer])
    _check_version("stream", announced, answer)


def _frames(visitor: Visitor, rows: Rows) -> None:
    announced, reply = visitor.send(json.dumps({"id": 1, "samples": rows}))
    answer = json.loads(reply)
    model = visitor.model(announced)
    answers = [
        {"label": label, "probabilities": {each: answer["probabilities"][each][index] for each in model.labels}}
        for index, label in enumerate(answer["labels"])
    ]
    _check_json("stream of many", visitor, rows, announced, answers)
    _check_version("stream of many", announced, answer)


def _binary_frame(visitor: Visitor, rows: Rows) -> None:
    content = np.array(rows, dtype="<f4")
    announced, reply = visitor.send(content.tobytes())
    expected = visitor.model(announced).predict_batch(content).outputs
    if reply != expected.astype("<f4").tobytes():
        raise WrongAnswer(f"binary stream: {rows} got {reply!r} from version {announced}")


Ask = Callable[[Visitor, Rows], None]
Channel = tuple[str, int, Ask]
"""A name, how many rows are asked for at once, and how."""
# What is asked for most comes more often than once.
_SINGLE: tuple[Channel, ...] = (
    ("fragment", 1, _fragment),
    ("GET JSON", 1, _get),
    ("POST JSON", 1, _post),
    ("stream", 1, _frame),
)
CHANNELS: tuple[Channel, ...] = (
    *_SINGLE,
    ("page", 1, _page),
    ("POST of many", BATCH_ROWS, _post_many),
    ("stream of many", BATCH_ROWS, _frames),
    ("inference", BATCH_ROWS, _infer),
    *_SINGLE,
    ("result", 1, _result),
    ("form", 1, _form),
    ("binary stream", BATCH_ROWS, _binary_frame),
    ("binary inference", BATCH_ROWS, _infer_binary),
    ("score", BATCH_ROWS, _score),
)
