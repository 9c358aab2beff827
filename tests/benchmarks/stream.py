"""The websocket channel against an echo of the same messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from websockets.sync.client import connect

from . import generator, load, server
from .generator import BINARY, TEXT
from .results import Bar, Result, interleave
from .subject import Plan, Subject, WrongAnswer

BATCH_SAMPLES = 256
FRAME_ROWS = 4_096
FRAMES = 128  # 8 MB of different binary frames: what repeats is far apart
VERIFIED = 500


@dataclass(frozen=True)
class Kind:
    """One kind of message.

    Attributes:
        rows: how many rows a message has.
        messages: how many different messages are sent.
        connections: on how many connections.
        window: how many of them are in flight on each connection.
        expected: what the reply of the service begins with; an error begins otherwise.
        encode: makes a message's payload of rows, shape (rows, n_features), and its number.
        shows: tells whether a reply shows the right answers to rows.
    """

    name: str
    rows: int
    messages: int
    connections: int
    window: int
    encode: Callable[[Subject, Sequence[list[float]], int], bytes]
    shows: Callable[[Subject, Sequence[list[float]], int, str | bytes], bool]
    expected: str = ""
    binary: bool = False
    least_ratio: float | None = None
    least_rows_per_s: float | None = None

    def rows_of(self, subject: Subject, number: int) -> list[list[float]]:
        """Return the rows of a message: the samples go around, from another place for each message."""
        start = number * self.rows % len(subject.rows)
        return (subject.rows[start:] + subject.rows[:start])[: self.rows] if self.rows > 1 else [subject.rows[start]]


def _encode_sample(subject: Subject, rows: Sequence[list[float]], number: int) -> bytes:
    return msgspec.json.encode({"id": number, "sample": subject.sample(rows[0])})


def _sample_shows(subject: Subject, rows: Sequence[list[float]], number: int, reply: str | bytes) -> bool:
    answer, prediction = msgspec.json.decode(reply), subject.model.predict(rows[0])
    probabilities = dict(zip(subject.model.labels, prediction.probabilities, strict=True))
    return bool(
        answer["id"] == number and answer["label"] == prediction.label and answer["probabilities"] == probabilities
    )


def _encode_samples(subject: Subject, rows: Sequence[list[float]], number: int) -> bytes:
    return msgspec.json.encode({"id": number, "samples": rows})


def _samples_show(subject: Subject, rows: Sequence[list[float]], number: int, reply: str | bytes) -> bool:
    answer, batch = msgspec.json.decode(reply), subject.model.predict_batch(np.array(rows))
    labels = [subject.model.labels[index] for index in batch.indices]
    probabilities = dict(zip(subject.model.labels, batch.outputs.T.tolist(), strict=True))
    return bool(answer["id"] == number and answer["labels"] == labels and answer["probabilities"] == probabilities)


def _encode_binary(subject: Subject, rows: Sequence[list[float]], number: int) -> bytes:
    return np.array(rows, dtype="<f4").tobytes()


def _binary_shows(subject: Subject, rows: Sequence[list[float]], number: int, reply: str | bytes) -> bool:
    expected = subject.model.predict_batch(np.array(rows, dtype=np.float32)).outputs
    return reply == expected.astype("<f4").tobytes()


KINDS = (
    Kind(
        name="single samples",
        rows=1,
        messages=50_000,
        connections=1,
        window=64,
        encode=_encode_sample,
        shows=_sample_shows,
        expected='{"type":"prediction",',
        least_ratio=0.6,
    ),
    Kind(
        name="single samples, 16 clients that wait for each reply",
        rows=1,
        messages=50_000,
        connections=16,
        window=1,
        encode=_encode_sample,
        shows=_sample_shows,
        expected='{"type":"prediction",',
    ),
    Kind(
        name=f"JSON batches of {BATCH_SAMPLES}",
        rows=BATCH_SAMPLES,
        messages=1_000,
        connections=1,
        window=4,
        encode=_encode_samples,
        shows=_samples_show,
        expected='{"type":"predictions",',
    ),
    Kind(
        name=f"binary frames of {FRAME_ROWS:,}",
        rows=FRAME_ROWS,
        messages=FRAMES,
        connections=1,
        window=4,
        encode=_encode_binary,
        shows=_binary_shows,
        binary=True,
        least_rows_per_s=8e6,
    ),
)


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Measure each kind of message, and the echo of the same messages before it in every round."""
    results = []
    with server.service(subject) as service, server.bare() as bare:
        for kind in KINDS:
            payloads = [kind.encode(subject, kind.rows_of(subject, n), n) for n in range(kind.messages)]
            verify(kind, service, subject, payloads[: max(VERIFIED // kind.rows, 4)])
            path = subject.directory / kind.name
            save(payloads, path, binary=kind.binary)
            binary = ("--binary",) if kind.binary else ()
            run = partial(
                load.stream, frames=path, seconds=plan.seconds, connections=kind.connections, window=kind.window
            )
            echo = partial(run, bare, options=("--expected", "", *binary))
            answers = ("--path", "/stream", "--greetings", 1, "--expected", kind.expected, *binary)
            echoes, loads = interleave([echo, partial(run, service, options=answers)], rounds=plan.rounds)
            results.append(_result(kind, load.Comparison(loads, echoes)))
    return results


def verify(kind: Kind, service: server.Server, subject: Subject, payloads: Sequence[bytes]) -> None:
    """Send the first messages with a client that is not ours and compare the replies with the model.

    Raises:
        WrongAnswer: a reply is an error, or shows other predictions.
    """
    with connect(f"ws://127.0.0.1:{service.port}/stream", compression=None, max_size=None) as connection:
        connection.recv()  # the model
        for number, payload in enumerate(payloads):
            connection.send(payload if kind.binary else payload.decode())
            reply = connection.recv()
            if not kind.shows(subject, kind.rows_of(subject, number), number, reply):
                raise WrongAnswer(f"{kind.name}, message {number}: {reply[:200]!r}")


def save(payloads: Sequence[bytes], path: Path, *, binary: bool) -> None:
    """Write payloads as frames, each masked with a key of its own."""
    keys = np.random.default_rng(2).bytes(4 * len(payloads))
    first_byte = BINARY if binary else TEXT
    generator.save(
        (
            generator.frame(payload, first_byte=first_byte, mask=keys[4 * n : 4 * n + 4])
            for n, payload in enumerate(payloads)
        ),
        path,
    )


def _result(kind: Kind, to_echo: load.Comparison) -> Result:
    ratio, rows_per_s = to_echo.ratio, to_echo.rate * kind.rows
    bars: list[Bar] = []
    if kind.least_ratio is not None:
        bars.append(Bar(ratio.median, kind.least_ratio))
    if kind.least_rows_per_s is not None:
        bars.append(Bar(rows_per_s / 1e6, kind.least_rows_per_s / 1e6, "million rows/s"))
    context = f"{to_echo}; {rows_per_s / 1e6:.3g} million rows/s"
    reference = f"echo, {to_echo.reference_rate:,.0f}/s"
    return Result(kind.name, to_echo.rate, "/s", ratio, reference, tuple(bars), context)
