"""The client, as a library and as a command, against the real server and over connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import gc
import itertools
import json
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.model.sample import InvalidSample
from ml.tables.dataset import Feature, Target
from ml.training import fitting, iris, writing
from tests.builders import dataset_of
from tests.conftest import ROOT, Server, for_each, free_port, memory_bytes, run_on, run_server
from tests.tables import TABLES, guarded
from tests.test_ml_command_line import closing
from web.api.encoder import description_of
from web.client import connection as connection_module
from web.client import waiting as waiting_module
from web.client.connection import stream_uri
from web.client.errors import (
    ClientError,
    ConnectionFailed,
    GaveUp,
    ModelReplaced,
    NotUnderstood,
    Rejected,
    StreamEnded,
    WrongAddress,
)
from web.client.file import SentFile, TablePart
from web.client.queue import BATCH_SAMPLES, CALL_BATCHES, FRAMES_IN_FLIGHT
from web.client.replies import Outcome, Prediction, Refused
from web.client.samples import Samples, encode
from web.client.stream import Stream

T = TypeVar("T")

GUARD_S = 60.0  # so that what hangs fails; nothing here takes nearly as long
GOOD = [5.6, 2.7, 4.2, 1.3]
HEADER = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it, and hold it to leaving no task behind."""

    async def guarded() -> T:
        async with asyncio.timeout(GUARD_S) as guard:
            result = await work
        assert not guard.expired()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(guarded())


async def outcomes_of(url: str, samples: Samples, **options: Any) -> list[Outcome]:
    async with Stream(url, **options) as stream:
        return [outcome async for outcome in stream.predict(samples)]


async def exhaust(answers: AsyncIterator[Outcome], *, into: list[Outcome] | None = None) -> None:
    async for outcome in answers:
        if into is not None:
            into.append(outcome)


def expected(model: LoadedModel, sample: Any) -> Outcome:
    """Return what the service must answer, from the validator and the model themselves."""
    try:
        row = model.validator.row(sample)
    except InvalidSample as error:
        return Refused(str(error), error.errors)
    answer = model.predict(row)
    probabilities = dict(zip(model.labels, answer.probabilities, strict=True))
    return Prediction(answer.label, probabilities, model.version, notes=model.validator.notes(row))


def different_rows(n_rows: int, *, seed: int = 0) -> list[list[float]]:
    low, high = [4.3, 2.0, 1.0, 0.1], [7.9, 4.4, 6.9, 2.5]
    rows: list[list[float]] = np.random.default_rng(seed).uniform(low, high, (n_rows, 4)).round(2).tolist()
    return rows


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect at once: the tests know when the server is there."""
    monkeypatch.setattr(waiting_module, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(waiting_module, "LONGEST_DELAY_S", 0.02)


# The library.


@pytest.mark.parametrize("n_rows", [0, 1, 2, BATCH_SAMPLES, BATCH_SAMPLES + 1, 30_000])
def test_predictions_come_in_the_order_of_the_samples_and_to_the_last_bit(
    server: Server, model: LoadedModel, n_rows: int
) -> None:
    rows = different_rows(n_rows)

    outcomes = run(outcomes_of(server.url, rows))

    assert outcomes == [expected(model, row) for row in rows]


@pytest.mark.parametrize("sample", [[1, math.inf], {"a": -math.inf}, np.array([np.nan, np.inf], np.float32)], ids=str)
def test_an_infinite_number_is_no_missing_value(sample: Any) -> None:
    with pytest.raises(ValueError, match="a sample cannot hold an infinite number: JSON has none"):
        encode(sample)

    assert encode([math.nan, None, "inf", 1.5]) == b'[null,null,"inf",1.5]'


def test_a_row_of_pandas_goes_by_the_names_of_its_columns() -> None:
    assert encode(pd.Series({"b": 1, "a": "x"})) == b'{"b":1,"a":"x"}'
    assert encode(pd.Series([1.0, 2.0])) == b"[1.0,2.0]"


def test_samples_are_mappings_sequences_arrays_or_text_as_typed(server: Server, model: LoadedModel) -> None:
    keys = [feature.key for feature in model.features]
    samples: list[Any] = [
        dict(zip(keys, GOOD, strict=True)),
        dict(zip(reversed(keys), reversed(GOOD), strict=True)),
        GOOD,
        tuple(GOOD),
        np.array(GOOD),
        dict(zip(keys, np.array(GOOD), strict=True)),
        ["5.6", " 2,7 ", "4.20", "+1.3"],
    ]

    outcomes = run(outcomes_of(server.url, samples))

    assert outcomes == [expected(model, GOOD)] * len(samples)


def test_an_async_iterable_is_a_source_like_any_other(server: Server, model: LoadedModel) -> None:
    rows = different_rows(10_000)

    async def generated() -> AsyncIterator[list[float]]:
        for row in rows:
            yield row

    class Iterable:
        def __aiter__(self) -> AsyncIterator[list[float]]:
            return generated()

    wanted = [expected(model, row) for row in rows]
    assert run(outcomes_of(server.url, generated())) == wanted
    assert run(outcomes_of(server.url, Iterable())) == wanted


BAD: list[Any] = [
    [5.6, 2.7, 4.2],
    [5.6, 2.7, 4.2, 1.3, 0.0],
    [5.6, "x", None, True],
    ["nan", 1e39, [], {}],
    {},
    {"sepal_length": 5.6, "stem_length": 1},
    [5.6, 2.7, 4.2, 10**400],
    [],
]


def test_a_refused_sample_is_told_as_the_validator_tells_it(server: Server, model: LoadedModel) -> None:
    samples: list[Any] = [sample for bad in BAD for sample in (GOOD, bad)]

    outcomes = run(outcomes_of(server.url, samples))
    alone = [run(outcomes_of(server.url, [bad])) for bad in BAD]

    assert outcomes == [expected(model, sample) for sample in samples]
    assert alone == [[expected(model, bad)] for bad in BAD]


@given(
    share=st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 0.99, 1.0]),
    n_rows=st.integers(1, 6_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_order_is_kept_however_many_samples_are_refused(
    server: Server, model: LoadedModel, share: float, n_rows: int, seed: int
) -> None:
    chance = random.Random(seed)
    samples: list[Any] = [
        chance.choice(BAD) if chance.random() < share else row for row in different_rows(n_rows, seed=seed)
    ]

    outcomes = run(outcomes_of(server.url, samples))

    assert outcomes == [expected(model, sample) for sample in samples]


def test_what_is_no_sample_at_all_is_refused_alone(server: Server, model: LoadedModel) -> None:
    nested: Any = []
    for _ in range(400):
        nested = [nested]
    strange = ["text", 5, None, True, [nested] * 4, float("nan")]
    samples: list[Any] = [thing for one in strange for thing in (GOOD, one)]

    outcomes = run(outcomes_of(server.url, samples))

    assert outcomes[::2] == [expected(model, GOOD)] * len(strange)
    assert all(isinstance(outcome, Refused) and outcome.message for outcome in outcomes[1::2])


def test_a_sample_too_large_for_a_frame_is_refused_without_being_sent(server: Server, model: LoadedModel) -> None:
    samples: list[Any] = [GOOD, ["9" * 2**20, 1, 1, 1], GOOD, ["9" * 900_000, 1, 1, 1], ["9" * 900_000, 1, 1, 1], GOOD]

    outcomes = run(outcomes_of(server.url, samples))

    assert outcomes[0] == outcomes[2] == outcomes[5] == expected(model, GOOD)
    assert isinstance(outcomes[1], Refused)
    assert "at most 1048576 are allowed" in outcomes[1].message
    assert outcomes[3:5] == [expected(model, samples[3])] * 2


def test_what_is_refused_already_keeps_its_place(server: Server, model: LoadedModel) -> None:
    refused = Refused("known to be bad")
    samples: list[Any] = [refused, GOOD, refused, refused, GOOD, refused]

    outcomes = run(outcomes_of(server.url, samples))
    only = run(outcomes_of(server.url, [refused] * 10_000))

    good = expected(model, GOOD)
    assert outcomes == [refused, good, refused, refused, good, refused]
    assert only == [refused] * 10_000


def test_a_sample_that_comes_alone_is_answered_before_the_next_one_is_made(server: Server, model: LoadedModel) -> None:
    async def lockstep() -> list[Outcome]:
        answers: asyncio.Queue[Outcome] = asyncio.Queue()
        taken: list[Outcome] = []

        async def samples() -> AsyncIterator[list[float]]:
            for row in rows:
                yield row
                taken.append(await answers.get())  # hangs if the answer waits for more samples

        async with Stream(server.url) as stream:
            async for outcome in stream.predict(samples()):
                answers.put_nowait(outcome)
        return taken

    rows = different_rows(200)

    assert run(lockstep()) == [expected(model, row) for row in rows]


def test_many_calls_share_one_stream(server: Server, model: LoadedModel) -> None:
    async def together() -> list[list[Outcome]]:
        async def one(rows: list[list[float]]) -> list[Outcome]:
            return [outcome async for outcome in stream.predict(rows)]

        async with Stream(server.url) as stream:
            return await asyncio.gather(*map(one, parts))

    parts = [different_rows(size, seed=size) for size in (1, 2, 3, 4_000, 5, 20_000, 1, 300)] * 5

    assert run(together()) == [[expected(model, row) for row in part] for part in parts]


def test_memory_stays_bounded_with_endless_samples(server: Server) -> None:
    async def ahead() -> list[int]:
        drawn = taken = 0
        seen: list[int] = []

        async def endless() -> AsyncIterator[list[float]]:
            nonlocal drawn
            while True:
                drawn += 1
                yield GOOD

        async with Stream(server.url) as stream:
            answers = stream.predict(endless())
            async with contextlib.aclosing(answers):
                async for _ in answers:
                    taken += 1
                    if taken % 50_000 == 0:
                        # Another call is answered in full, so this one had every chance to run ahead.
                        assert len([outcome async for outcome in stream.predict([GOOD] * 20_000)]) == 20_000
                    seen.append(drawn - taken)
                    if taken == 100_001:
                        return seen
        raise AssertionError("it ended")

    seen = run(ahead())

    # Batches under way or not taken, the one being taken, the one being filled, and a sample that waits for room.
    assert max(seen) <= (CALL_BATCHES + 2) * BATCH_SAMPLES + 1
    assert max(seen) > FRAMES_IN_FLIGHT * BATCH_SAMPLES  # and it is really pipelined


def test_leaving_in_the_middle_leaves_nothing_behind(server: Server) -> None:
    closed: list[str] = []

    async def endless() -> AsyncIterator[list[float]]:
        try:
            while True:
                yield GOOD
        finally:
            closed.append("source")

    async def leave() -> None:
        async with Stream(server.url) as stream:
            async for _ in stream.predict(endless()):
                break
            abandoned = stream.predict(endless())
            await anext(abandoned)
            assert [outcome async for outcome in stream.predict([GOOD])] != []
        with pytest.raises(StreamEnded):
            await exhaust(abandoned)
        with pytest.raises(StreamEnded):
            await anext(stream.predict([GOOD]))

    run(leave())  # holds it to leaving no task
    gc.collect()  # what was left open warns, and warnings are errors
    assert closed == ["source", "source"]


def test_cancelling_a_call_leaves_the_stream_usable(server: Server, model: LoadedModel) -> None:
    async def cancel() -> list[Outcome]:
        never = asyncio.Event()
        started = asyncio.Event()

        async def silent() -> AsyncIterator[list[float]]:
            yield GOOD
            started.set()
            await never.wait()

        async with Stream(server.url) as stream:

            async def consume() -> list[Outcome]:
                return [outcome async for outcome in stream.predict(silent())]

            task = asyncio.create_task(consume())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return [outcome async for outcome in stream.predict([GOOD])]

    assert run(cancel()) == [expected(model, GOOD)]


def test_what_the_source_raises_comes_after_the_answers_to_what_it_gave(server: Server, model: LoadedModel) -> None:
    async def broken() -> AsyncIterator[list[float]]:
        for row in rows:
            yield row
        raise ConnectionResetError("the sensor is gone")

    async def collect(samples: Samples, error: type[Exception], outcomes: list[Outcome]) -> None:
        async with Stream(server.url) as stream:
            with pytest.raises(error):
                await exhaust(stream.predict(samples), into=outcomes)

    rows = different_rows(5_000)
    of_source: list[Outcome] = []
    of_encoding: list[Outcome] = []

    run(collect(broken(), ConnectionResetError, of_source))
    run(collect([*rows, [object()] * 4], TypeError, of_encoding))

    assert of_source == of_encoding == [expected(model, row) for row in rows]


# Connections that break.


@contextlib.asynccontextmanager
async def cutting_proxy(port: int, *, cuts: int, seed: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Pass TCP on to `port`; cut each of the first `cuts` connections after a random number of bytes."""
    chance = random.Random(seed)
    seen: list[int] = []
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        budget = chance.choice([chance.randrange(1, 4_000), chance.randrange(1, 500_000)])
        left = [budget if len(seen) < cuts else sys.maxsize]
        seen.append(left[0])
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # the server is being restarted
            writer.transport.abort()
            return

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while left[0] > 0 and (chunk := await source.read(2**16)):
                sink.write(chunk[: left[0]])
                left[0] -= len(chunk)
                await sink.drain()

        directions = [asyncio.create_task(pass_on(reader, there[1])), asyncio.create_task(pass_on(there[0], writer))]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.wait(directions)
        for direction in directions:
            if not direction.cancelled():
                direction.exception()  # a reset is what this is about
        for end in (writer, there[1]):
            # Half of the cuts are orderly, so that what was sent arrives; half throw it away.
            end.close() if chance.random() < 0.5 else end.transport.abort()

    proxy = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield proxy.sockets[0].getsockname()[1], seen
    finally:
        proxy.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)


@pytest.mark.parametrize("seed", range(3))
def test_connections_cut_anywhere_lose_nothing_and_double_nothing(
    server: Server, model: LoadedModel, impatient: None, seed: int
) -> None:
    async def through_cuts() -> tuple[list[Outcome], int]:
        async with cutting_proxy(server.port, cuts=40, seed=seed) as (port, seen):
            while True:  # the first connection is not tried again, and it may be cut too
                with contextlib.suppress(ConnectionFailed):
                    return await outcomes_of(f"http://127.0.0.1:{port}", samples), len(seen)

    chance = random.Random(seed)
    samples: list[Any] = [
        chance.choice(BAD) if chance.random() < 0.01 else row for row in different_rows(60_000, seed=seed)
    ]

    outcomes, connections = run(through_cuts())

    assert connections > 10
    assert outcomes == [expected(model, sample) for sample in samples]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_server_gets_what_the_old_one_did_not_answer(
    model: LoadedModel, model_path: Path, tmp_path: Path, impatient: None, how: signal.Signals
) -> None:
    async def through_restart() -> tuple[list[Outcome], list[str]]:
        lost: list[str] = []
        outcomes: list[Outcome] = []
        async with contextlib.AsyncExitStack() as stack:
            first = stack.enter_context(run_server(tmp_path / "1.log", port=port, MODEL_FILE=str(model_path)))
            stream = Stream(first.url, on_lost=lambda reason, _delay_s: lost.append(reason))
            await stack.enter_async_context(stream)
            async for outcome in stream.predict(rows):
                outcomes.append(outcome)
                if len(outcomes) == 1:
                    # What is under way now is answered by nobody, or only in part.
                    first.process.send_signal(how)
                    await asyncio.to_thread(first.process.wait)
                    again = run_server(tmp_path / "2.log", port=port, MODEL_FILE=str(model_path))
                    await asyncio.to_thread(stack.enter_context, again)
        return outcomes, lost

    port = free_port()
    rows = different_rows(40_000)

    outcomes, lost = run(through_restart())

    assert outcomes == [expected(model, row) for row in rows]
    assert lost
    if how == signal.SIGTERM:
        assert "1012" in lost[0]


def test_a_silent_stream_comes_back_before_it_is_asked(
    model: LoadedModel, model_path: Path, tmp_path: Path, impatient: None
) -> None:
    async def through_restarts() -> list[Outcome]:
        lost = asyncio.Event()
        with run_server(tmp_path / "1.log", port=port, MODEL_FILE=str(model_path)) as first:
            stream = await Stream(first.url, on_lost=lambda *_: lost.set()).__aenter__()
            outcomes = [outcome async for outcome in stream.predict([GOOD])]
        await lost.wait()
        with run_server(tmp_path / "2.log", port=port, MODEL_FILE=str(model_path)):
            outcomes += [outcome async for outcome in stream.predict([GOOD])]
            await stream.__aexit__(None, None, None)
        return outcomes

    port = free_port()

    assert run(through_restarts()) == [expected(model, GOOD)] * 2


def test_a_stream_gives_up_with_one_sentence_when_told_to(model_path: Path, tmp_path: Path, model: LoadedModel) -> None:
    async def give_up() -> tuple[list[Outcome], str, int]:
        lost: list[str] = []
        outcomes: list[Outcome] = []
        with run_server(tmp_path / "log", MODEL_FILE=str(model_path)) as only:
            async with Stream(only.url, give_up_s=0.3, on_lost=lambda reason, _: lost.append(reason)) as stream:

                async def samples() -> AsyncIterator[list[float]]:
                    yield GOOD
                    assert [outcome async for outcome in stream.predict([GOOD])] != []  # so the first is answered too
                    only.process.kill()
                    yield GOOD
                    await asyncio.Event().wait()

                with pytest.raises(GaveUp) as raised:
                    await exhaust(stream.predict(samples()), into=outcomes)
                with pytest.raises(GaveUp):
                    await anext(stream.predict([GOOD]))
        return outcomes, str(raised.value), len(lost)

    outcomes, sentence, attempts = run(give_up())

    assert outcomes == [expected(model, GOOD)]
    assert sentence.startswith("gave up after 0.3 s: no connection to http://127.0.0.1:")
    assert "\n" not in sentence
    assert attempts >= 1


def test_a_server_that_comes_back_and_never_answers_is_given_up(announcement: str, impatient: None) -> None:
    connections = 0

    async def crash(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.send(announcement)
        await connection.recv()
        await connection.close(1011)

    async def attempt() -> None:
        async with pretending(crash) as url:
            with pytest.raises(GaveUp, match="closed the stream: 1011"):
                await outcomes_of(url, [GOOD], give_up_s=0.5)

    run(attempt())
    assert connections > 2


def test_each_answer_starts_the_time_to_give_up_anew(
    announcement: str, server: Server, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "FIRST_DELAY_S", 0.3)

    async def answer_once(connection: ServerConnection) -> None:
        await connection.send(announcement)
        request = await connection.recv()
        async with connect(server.stream_url) as real:
            await real.recv()
            await real.send(request)
            await connection.send(await real.recv())
        await connection.close(1011)

    async def attempt() -> list[Outcome]:
        waited_s = 0.0

        def on_lost(_reason: str, delay_s: float) -> None:
            nonlocal waited_s
            waited_s += delay_s

        async with pretending(answer_once) as url, Stream(url, give_up_s=2.0, on_lost=on_lost) as stream:
            outcomes: list[Outcome] = []
            while waited_s < 2.5:
                await exhaust(stream.predict([GOOD]), into=outcomes)
            return outcomes

    outcomes = run(attempt())

    assert outcomes == [expected(model, GOOD)] * len(outcomes)
    assert len(outcomes) > 8


Handler = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def pretending(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """Run a websocket server that is none of ours."""
    async with serve(handler, "127.0.0.1", 0, **options) as pretender:
        yield f"http://127.0.0.1:{pretender.sockets[0].getsockname()[1]}"


@pytest.fixture
def announcement(server: Server) -> str:
    """What the real server says first."""

    async def first() -> str:
        async with connect(server.stream_url) as connection:
            return str(await connection.recv())

    return run(first())


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010])
def test_a_stream_closed_for_what_was_sent_is_not_tried_again(announcement: str, code: int) -> None:
    connections = 0

    async def close(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.send(announcement)
        await connection.recv()
        await connection.close(code, "not this")

    async def attempt() -> str:
        async with pretending(close) as url:
            with pytest.raises(Rejected) as raised:
                await outcomes_of(url, [GOOD])
        return str(raised.value)

    assert f"closed the stream: {code} not this" in run(attempt())
    assert connections == 1


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013])
def test_a_stream_closed_for_other_reasons_is_tried_again(
    announcement: str, server: Server, model: LoadedModel, impatient: None, code: int
) -> None:
    connections = 0

    async def close_twice(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.send(announcement)
        request = json.loads(await connection.recv())
        if connections <= 2:
            await connection.close(code)
            return
        async with connect(server.stream_url) as real:
            await real.recv()
            await real.send(json.dumps(request))
            await connection.send(await real.recv())
            with contextlib.suppress(ConnectionClosed):
                await connection.recv()

    async def attempt() -> list[Outcome]:
        async with pretending(close_twice) as url:
            return await outcomes_of(url, [GOOD])

    assert run(attempt()) == [expected(model, GOOD)]
    assert connections == 3


# What says "later".


async def answer(connection: ServerConnection, real: ClientConnection, request: str | bytes) -> None:
    await real.send(request)
    await connection.send(await real.recv())


def refusal(request: str | bytes, status: int, **members: object) -> str:
    problem = {"status": status, "title": "", "detail": "not now", "errors": [], **members}
    return json.dumps({"type": "error", "id": json.loads(request)["id"], "error": problem})


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_frame_that_is_refused_for_now_is_sent_again_whole(
    announcement: str, server: Server, model: LoadedModel, impatient: None, status: int
) -> None:
    refused: list[Any] = []
    answered: list[Any] = []

    async def refuse_every_other(connection: ServerConnection) -> None:
        await connection.send(announcement)
        async with connect(server.stream_url) as real:
            await real.recv()
            with contextlib.suppress(ConnectionClosed):
                async for request in connection:
                    samples = json.loads(request) | {"id": 0}
                    if len(refused) <= len(answered):
                        refused.append(samples)
                        await connection.send(refusal(request, status))
                    else:
                        answered.append(samples)
                        await answer(connection, real, request)

    async def attempt() -> list[Outcome]:
        async with pretending(refuse_every_other) as url:
            return await outcomes_of(url, rows)

    rows = different_rows(10 * BATCH_SAMPLES)

    assert run(attempt()) == [expected(model, row) for row in rows]
    assert len(refused) > 5
    assert all(samples in answered for samples in refused)


def test_nothing_is_sent_before_the_time_that_the_service_asks_for(
    announcement: str, server: Server, model: LoadedModel, impatient: None
) -> None:
    came: list[float] = []

    async def refuse_once(connection: ServerConnection) -> None:
        await connection.send(announcement)
        async with connect(server.stream_url) as real:
            await real.recv()
            with contextlib.suppress(ConnectionClosed):
                async for request in connection:
                    came.append(asyncio.get_running_loop().time())
                    if len(came) == 1:
                        await connection.send(refusal(request, 429, retry_after_s=0.5))
                    else:
                        await answer(connection, real, request)

    async def attempt() -> list[Outcome]:
        async with pretending(refuse_once) as url:
            return await outcomes_of(url, [GOOD])

    assert run(attempt()) == [expected(model, GOOD)]
    assert len(came) == 2
    assert came[1] - came[0] >= 0.5


def test_a_client_beyond_its_rate_gets_every_row_answered(model: LoadedModel, model_path: Path, tmp_path: Path) -> None:
    text = table_of(different_rows(12 * BATCH_SAMPLES))

    with run_server(tmp_path / "log", MODEL_FILE=str(model_path), RATE_LIMIT="5/second") as limited:
        done = run_command(limited.url, "-", text=text)

    assert done.returncode == 0
    assert b"too many frames: try again in " in done.stderr
    assert done.stdout == guarded(model, text)


def test_a_service_that_says_later_for_ever_is_given_up_with_its_reason(announcement: str, impatient: None) -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.send(announcement)
        with contextlib.suppress(ConnectionClosed):
            async for request in connection:
                text = request if isinstance(request, str) else '{"id": null}'
                await connection.send(refusal(text, 503))

    async def attempt() -> subprocess.CompletedProcess[bytes]:
        async with pretending(refuse) as url:
            with pytest.raises(GaveUp, match=r"^gave up after 0\.3 s: not now$"):
                await outcomes_of(url, [GOOD] * 3, give_up_s=0.3)
            return await asyncio.to_thread(run_command, url, "-", "--give-up", "0.3", text=table_of([GOOD]))

    done = run(attempt())

    assert done.returncode == 1
    told = done.stderr.decode().splitlines()[-1]
    assert told.startswith("error: gave up after 0.3 s: http://")
    assert told.endswith(": not now")


def test_a_server_that_is_connected_and_silent_is_given_up(announcement: str) -> None:
    async def ignore(connection: ServerConnection) -> None:
        await connection.send(announcement)
        async for _ in connection:
            pass

    async def attempt() -> None:
        async with pretending(ignore) as url:
            with pytest.raises(GaveUp, match="the server is connected and does not answer"):
                await outcomes_of(url, [GOOD], give_up_s=0.3)

    run(attempt())


def test_a_stream_without_samples_waits_for_no_answer(server: Server, model: LoadedModel) -> None:
    async def rare() -> AsyncIterator[list[float]]:
        for _ in range(2):
            await asyncio.sleep(0.5)  # longer than an answer may take
            yield GOOD

    assert run(outcomes_of(server.url, rare(), give_up_s=0.4)) == [expected(model, GOOD)] * 2


@pytest.mark.parametrize("status", [401, 404, 500, 502])
def test_a_service_that_refuses_all_frames_ends_the_stream(announcement: str, status: int) -> None:
    frames = 0

    async def refuse(connection: ServerConnection) -> None:
        nonlocal frames
        await connection.send(announcement)
        with contextlib.suppress(ConnectionClosed):
            async for request in connection:
                frames += 1
                await connection.send(refusal(request, status))

    async def attempt() -> None:
        async with pretending(refuse) as url:
            with pytest.raises(Rejected, match=f"status {status}, not now"):
                await outcomes_of(url, [GOOD] * 3)

    run(attempt())
    assert frames == 1


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_handshake_that_is_refused_for_now_is_tried_again_in_the_time_asked_for(
    announcement: str, server: Server, model: LoadedModel, impatient: None, status: int
) -> None:
    lost: list[tuple[str, float]] = []

    async def answer_one(connection: ServerConnection) -> None:
        await connection.send(announcement)
        async with connect(server.stream_url) as real:
            await real.recv()
            await answer(connection, real, await connection.recv())

    handshakes = 0

    def refuse_every_other(connection: ServerConnection, _request: Request) -> Response | None:
        nonlocal handshakes
        handshakes += 1
        if not handshakes % 2:
            return None
        response = connection.respond(HTTPStatus(status), "later")
        response.headers["Retry-After"] = "1"
        return response

    async def attempt() -> list[Outcome]:
        async with (
            pretending(answer_one, process_request=refuse_every_other) as url,
            Stream(url, on_lost=lambda reason, delay_s: lost.append((reason, delay_s))) as stream,
        ):
            outcomes = [outcome async for outcome in stream.predict([GOOD])]
            return outcomes + [outcome async for outcome in stream.predict([GOOD])]

    assert run(attempt()) == [expected(model, GOOD)] * 2
    assert [delay_s for reason, delay_s in lost if reason.endswith(f"answered with status {status}")] == [1.0, 1.0]


def answer_of(labels: list[str], **probabilities: object) -> str:
    probabilities = {"setosa": [1, 1], "versicolor": [0, 0], "virginica": [0, 0], **probabilities}
    columns = {label: column for label, column in probabilities.items() if column is not None}
    return json.dumps({"type": "predictions", "id": 1, "labels": labels, "probabilities": columns, "version": ""})


BOTH = ["setosa", "setosa"]


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (answer_of(["rose", "setosa"]), "the model has no label 'rose'"),
        (answer_of(BOTH, rose=[0, 0], virginica=None), "the model has no label 'rose'"),
        (answer_of(BOTH, virginica=None), "probabilities for 2 labels, the model has 3"),
        (answer_of(["setosa"] * 3), "3 labels and 2 probabilities for 2 samples"),
        (
            answer_of(["setosa"], setosa=[1], versicolor=[0], virginica=[0]),
            "1 labels and 1 probabilities for 2 samples",
        ),
        (answer_of(BOTH, virginica=[0]), "2 labels and 1 or 2 probabilities for 2 samples"),
        (answer_of(BOTH, setosa=[1, 9]), "a probability of 'setosa' is not from 0 to 1"),
        (answer_of(BOTH, versicolor=[0, -1]), "a probability of 'versicolor' is not from 0 to 1"),
        (answer_of(BOTH, setosa=[1, 8]).replace("8", "1e999"), ""),
        (answer_of(BOTH, setosa=[1, math.nan]), ""),
    ],
)
def test_an_answer_that_the_model_cannot_give_ends_the_stream(announcement: str, reply: str, sentence: str) -> None:
    async def babble(connection: ServerConnection) -> None:
        await connection.send(announcement)
        await connection.recv()
        await connection.send(reply)
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()

    async def attempt() -> str:
        async with pretending(babble) as url:
            with pytest.raises(NotUnderstood) as raised:
                await outcomes_of(url, [GOOD] * 2)
        return str(raised.value)

    told = run(attempt())
    assert "sent what no prediction service sends: " in told
    assert sentence in told


@pytest.mark.parametrize(
    "reply",
    [
        "hello",
        "[]",
        '{"type":"greeting"}',
        '{"type":"prediction","id":77,"label":"a","probabilities":{},"version":""}',
        '{"type":"predictions","id":1,"labels":["a","b"],"probabilities":{"a":[1.0]},"version":""}',
        b"\xff\x00",
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_stream(announcement: str, reply: str | bytes) -> None:
    async def babble(connection: ServerConnection) -> None:
        await connection.send(announcement)
        await connection.recv()
        await connection.send(reply)
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()

    async def attempt() -> str:
        async with pretending(babble) as url:
            with pytest.raises(NotUnderstood) as raised:
                await outcomes_of(url, [GOOD])
        return str(raised.value)

    assert "sent what no prediction service sends" in run(attempt())


def test_an_answer_nobody_asked_for_ends_the_stream(announcement: str) -> None:
    async def unasked(connection: ServerConnection) -> None:
        await connection.send(announcement)
        await connection.send('{"type":"prediction","id":1,"label":"a","probabilities":{},"version":""}')
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()

    async def attempt() -> None:
        async with pretending(unasked) as url, Stream(url) as stream:
            never = asyncio.Event()

            async def silent() -> AsyncIterator[list[float]]:
                await never.wait()
                yield GOOD

            await anext(stream.predict(silent()))

    with pytest.raises(NotUnderstood):
        run(attempt())


@pytest.fixture(scope="module")
def other_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files: one with other trees than the built-in one, one with other labels, one with other features."""
    folder = tmp_path_factory.mktemp("others")
    chance = np.random.default_rng(0)
    rows = chance.uniform(0, 1, (60, 2))
    boxes = dataset_of(
        rows,
        rows[:, 1] > rows[:, 0],
        name="boxes",
        features=(Feature(key="width", title="width"), Feature(key="height", title="height")),
        labels=("low", "tall"),
    )
    fitted = {
        "trees": fitting.fit(iris.load_dataset(), Recipe(n_estimators=5, seed=3)),
        "labels": fitting.fit(
            dataclasses.replace(iris.load_dataset(), target=Target(labels=("a", "b", "c"))), Recipe(n_estimators=5)
        ),
        "boxes": fitting.fit(boxes, Recipe(n_estimators=5)),
    }
    paths = {}
    for name, fit in fitted.items():
        paths[name] = folder / f"{name}.npz"
        writing.write(writing.model_of(fit), paths[name], trained=fit)
    return paths


async def across_models(
    first: Path, second: Path, log: Path, samples: Sequence[list[float]]
) -> tuple[list[Outcome], list[Outcome]]:
    """Return the answers to the samples before and after the model was replaced, over one stream."""
    port = free_port()
    lost = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        with run_server(log, port=port, MODEL_FILE=str(first)) as server:
            stream = Stream(server.url, on_lost=lambda *_: lost.set())
            await stack.enter_async_context(stream)
            before = [outcome async for outcome in stream.predict(samples)]
        await lost.wait()
        stack.enter_context(run_server(log, port=port, MODEL_FILE=str(second)))
        return before, [outcome async for outcome in stream.predict(samples)]


def test_answers_tell_the_version_of_the_model_that_gave_them(
    model: LoadedModel, model_path: Path, other_models: dict[str, Path], tmp_path: Path, impatient: None
) -> None:
    rows = different_rows(3_000)
    other = load_model(other_models["trees"])

    before, after = run(across_models(model_path, other_models["trees"], tmp_path / "log", rows))

    assert before == [expected(model, row) for row in rows]
    assert after == [expected(other, row) for row in rows]


def test_a_model_with_other_features_ends_the_stream_before_it_answers(
    model_path: Path, other_models: dict[str, Path], tmp_path: Path, impatient: None
) -> None:
    with pytest.raises(ModelReplaced, match="other features: width, height"):
        run(across_models(model_path, other_models["boxes"], tmp_path / "log", [GOOD]))


async def through_replacement(first: Path, second: Path, folder: Path) -> list[tuple[list[float], Outcome]]:
    """Return rows and their answers over one stream, in the middle of which the model's file is replaced."""

    def replace() -> None:
        part = folder / "part"
        part.write_bytes(second.read_bytes())
        part.replace(path)

    async def samples() -> AsyncIterator[list[float]]:
        old = stream.model.version
        after = 0
        for row in itertools.cycle(different_rows(3_000)):
            rows.append(row)
            if len(rows) == 5_000:
                await asyncio.to_thread(replace)
            after += stream.model.version != old
            if after == 5_000:
                return
            yield row

    path = folder / "model.npz"
    shutil.copy(first, path)
    rows: list[list[float]] = []
    lost: list[str] = []
    outcomes: list[Outcome] = []
    server_of = run_server(folder / "log.txt", MODEL_FILE=str(path), MODEL_CHECK_S="0.02")
    async with contextlib.AsyncExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, server_of)
        stream = Stream(server.url, on_lost=lambda reason, _delay_s: lost.append(reason))
        await stack.enter_async_context(stream)
        await exhaust(stream.predict(samples()), into=outcomes)
    assert lost == []
    return list(zip(rows[:-1], outcomes, strict=True))


def test_a_model_that_is_replaced_in_the_middle_leaves_no_row_without_its_answer(
    model: LoadedModel, model_path: Path, other_models: dict[str, Path], tmp_path: Path
) -> None:
    other = load_model(other_models["trees"])

    answered = run(through_replacement(model_path, other_models["trees"], tmp_path))

    switch = next(i for i, (_, outcome) in enumerate(answered) if outcome == expected(other, answered[i][0]))
    assert 0 < switch < len(answered)
    assert all(outcome == expected(model, row) for row, outcome in answered[:switch])
    assert all(outcome == expected(other, row) for row, outcome in answered[switch:])


def test_a_model_with_other_features_that_comes_in_the_middle_is_told_at_once(
    model_path: Path, other_models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelReplaced, match="was replaced by one with other features: width, height"):
        run(through_replacement(model_path, other_models["boxes"], tmp_path))


# Entering.


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/stream"),
        ("http://localhost/", "ws://localhost/stream"),
        ("https://example.org/iris", "wss://example.org/iris/stream"),
        ("https://example.org/iris/", "wss://example.org/iris/stream"),
        ("ws://[::1]:80", "ws://[::1]:80/stream"),
        ("wss://example.org/stream", "wss://example.org/stream"),
        ("HTTP://Example.org", "ws://Example.org/stream"),
    ],
)
def test_the_address_of_the_service_leads_to_its_stream(url: str, uri: str) -> None:
    assert stream_uri(url) == uri


@for_each(
    "url",
    ["", "127.0.0.1:8000", "localhost", "ftp://host", "http://", "http://:80", "http://host:port", "http://host:99999",
     "http://host:0", "http://[::1", "http://host/?a=b", "http://host/#a", "//host"],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_connecting(url: str) -> None:
    with pytest.raises(WrongAddress, match="is no address"):
        Stream(url)


def test_no_message_shows_a_password() -> None:
    async def attempt() -> str:
        with pytest.raises(ConnectionFailed) as raised:
            await outcomes_of(f"http://me:secret@127.0.0.1:{free_port()}", [])
        return str(raised.value)

    assert "secret" not in run(attempt())
    with pytest.raises(WrongAddress) as raised:
        Stream("ftp://me:secret@host")
    assert "secret" not in str(raised.value)


def test_entering_fails_at_once_where_nobody_listens() -> None:
    async def attempt() -> None:
        with pytest.raises(ConnectionFailed, match=r"no connection to http://127\.0\.0\.1:"):
            await outcomes_of(f"http://127.0.0.1:{free_port()}", [GOOD])

    run(attempt())


def test_entering_fails_where_there_is_no_stream(server: Server) -> None:
    async def attempt() -> None:
        with pytest.raises(Rejected, match="status 40"):
            await outcomes_of(f"{server.url}/nothing/here", [GOOD])

    run(attempt())


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def _greet(connection: ServerConnection) -> None:
    await connection.send("welcome")
    await _echo(connection)


async def _leave(connection: ServerConnection) -> None:
    await connection.close()


@pytest.mark.parametrize(
    ("handler", "error", "sentence"),
    [
        (_greet, NotUnderstood, "is no prediction service"),
        (_echo, ConnectionFailed, "announced no model: timed out"),
        (_leave, ConnectionFailed, "announced no model: 1000"),
    ],
)
def test_entering_fails_where_no_model_is_announced(
    monkeypatch: pytest.MonkeyPatch, handler: Handler, error: type[Exception], sentence: str
) -> None:
    monkeypatch.setattr(connection_module, "OPEN_TIMEOUT_S", 0.2)

    async def attempt() -> None:
        async with pretending(handler) as url:
            with pytest.raises(error, match=sentence):
                await outcomes_of(url, [GOOD])

    run(attempt())


def test_a_stream_is_used_inside_and_entered_once(server: Server) -> None:
    async def attempt() -> None:
        stream = Stream(server.url)
        with pytest.raises(StreamEnded):
            await anext(stream.predict([GOOD]))
        async with stream:
            pass
        with pytest.raises(RuntimeError):
            await stream.__aenter__()

    run(attempt())


def test_model_and_limits_are_known_inside(server: Server, model: LoadedModel) -> None:
    async def look() -> None:
        async with Stream(server.url) as stream:
            assert (stream.model.name, stream.model.version) == (model.name, model.version)
            assert stream.model.features == description_of(model).features
            assert stream.model.labels == model.labels
            assert stream.limits.max_samples == 10_000

    run(look())


# The command.


def command(url: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "web.client", url, "stream", *arguments]


def run_command(url: str, *arguments: str, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return run_on(text or b"", url, "stream", *arguments, cwd=ROOT, module="web.client")


@contextlib.contextmanager
def start_command(url: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell that starts the tests in the background has its children ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command(url, *arguments), cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]  # mypy can't see into **pipes
        guard = threading.Timer(GUARD_S, process.kill)
        guard.start()
        try:
            yield process
        finally:
            guard.cancel()
            if process.poll() is None:
                process.kill()


def table_of(rows: Sequence[Sequence[object]], *, header: str = HEADER) -> bytes:
    return "".join([header + "\n", *(",".join(map(str, row)) + "\n" for row in rows)]).encode()


def test_the_options_of_a_file_reach_the_service(server: Server, model: LoadedModel) -> None:
    header, text = "sepal_length;sepal_width;petal_length;petal_width;é\n", "1.005;2,7;4,2;1,3;é\n"

    options = ["--encoding", "cp1252", "--decimal", ",", "--thousands", "."]
    read = run_command(server.url, "-", *options, text=(header + text).encode("cp1252"))
    wrong = run_command(server.url, "-", "--encoding", "zlib", text=text.encode())

    prediction = model.predict([1005.0, 2.7, 4.2, 1.3])
    shares = ";".join(map(str, prediction.probabilities)).replace(".", ",")
    row = read.stdout.decode().splitlines()[1]
    assert row.startswith(f"1.005;2,7;4,2;1,3;é;{prediction.label};{shares};sepal length is outside the training range")
    assert wrong.stderr.decode() == "error: there is no encoding called 'zlib', or it is not read here\n"


def test_a_file_of_100_000_rows_comes_out_as_scored_without_a_server(
    server: Server, model: LoadedModel, tmp_path: Path
) -> None:
    table = tmp_path / "rows.csv"
    table.write_bytes(table_of(different_rows(100_000)))

    done = run_command(server.url, str(table), "--out", str(tmp_path / "out.csv"))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "out.csv").read_bytes() == guarded(model, table.read_bytes())
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "rows.csv"]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_any_table_comes_out_as_scored_without_a_server(server: Server, model: LoadedModel, table: bytes) -> None:
    done = run_command(server.url, "-", text=table)

    assert done.returncode == 0
    assert done.stdout == guarded(model, table)


def test_of_many_rows_without_an_answer_some_are_told_and_all_are_counted(server: Server) -> None:
    done = run_command(server.url, "-", text=f"{HEADER}\n".encode() + b"1,2,3\n" * 5_000)

    assert done.returncode == 0
    told = done.stderr.decode().splitlines()
    assert told[:-1] == [f"line {line}: 3 columns, the header has 4" for line in range(2, 22)]
    assert told[-1] == "5000 of 5000 rows have no answer and were left blank"


def test_a_row_of_a_pipe_is_answered_before_the_next_one_is_there(server: Server, model: LoadedModel) -> None:
    rows = different_rows(20)
    wanted = guarded(model, table_of(rows)).splitlines(keepends=True)

    with start_command(server.url, "-") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(HEADER.encode() + b"\n")
        answers: list[bytes] = []
        for row in rows:
            process.stdin.write(",".join(map(str, row)).encode() + b"\n")
            process.stdin.flush()
            # The header comes with the first row, which tells how the file is written.
            answers += [process.stdout.readline() for _ in range(1 if answers else 2)]
        process.stdin.close()
        assert process.wait() == 0

    assert answers == wanted


@pytest.mark.parametrize("bad", ["5.6,2.7,4.2", "5.6,2.7,4.2,x"])
def test_strict_stops_at_the_first_row_without_an_answer(server: Server, tmp_path: Path, bad: str) -> None:
    text = f"{HEADER}\n5.6,2.7,4.2,1.3\n{bad}\n5.6,2.7,4.2,1.3\n".encode()
    kept = tmp_path / "out.csv"
    kept.write_text("as it was")

    printed = run_command(server.url, "-", "--strict", text=text)
    written = run_command(server.url, "-", "--strict", "--out", str(kept), text=text)

    assert printed.returncode == written.returncode == 1
    assert len(printed.stdout.splitlines()) == 2
    assert printed.stderr.startswith(b"error: line 3: ")
    assert len(printed.stderr.splitlines()) == 1
    assert kept.read_text() == "as it was"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_an_output_that_is_no_file_keeps_its_place(server: Server, model: LoadedModel, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = table_of(different_rows(5_000))

    with start_command(server.url, "-", "--out", str(pipe)) as process:
        assert process.stdin
        feeding = threading.Thread(target=lambda: [process.stdin.write(text), process.stdin.close()])  # type: ignore[union-attr]  # asserted above
        feeding.start()
        content = pipe.read_bytes()
        feeding.join()
        assert process.wait() == 0

    assert content == guarded(model, text)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://nobody.invalid", "error: no connection to http://nobody.invalid: "),
        ("http://127.0.0.1:{closed}", "error: no connection to http://127.0.0.1:"),
        ("127.0.0.1:8000", "error: '127.0.0.1:8000' is no address"),
        ("{server}/static", "has no stream for this client: status 40"),
    ],
)
def test_an_address_without_a_service_is_told_in_one_sentence(
    server: Server, tmp_path: Path, url: str, sentence: str
) -> None:
    url = url.format(closed=free_port(), server=server.url)

    done = run_command(url, "-", "--out", str(tmp_path / "out.csv"), text=table_of([GOOD]))

    assert done.returncode == 1
    assert sentence in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "error: no header row: the file is empty"),
        (b"\n", "error: no header row: the file is empty"),
        (HEADER.encode() + b'\n1,2,3,4\n1,"2,3,4\n1,2,3,4\n', "error: line 3: a quote is opened and never closed"),
        (b"a,b\n1,2\n", "error: no column is called 'sepal length': a, b"),
        (HEADER.encode() + b',"' + b"x" * 200_000 + b'"\n', "error: line 1: field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_in_one_sentence(server: Server, text: bytes, sentence: str) -> None:
    done = run_command(server.url, "-", text=text)

    assert done.returncode == 1
    assert done.stderr.decode().startswith(sentence)
    assert len(done.stderr.splitlines()) == 1


def test_files_that_cannot_be_opened_are_told_in_one_sentence(server: Server, tmp_path: Path) -> None:
    missing = run_command(server.url, str(tmp_path / "none.csv"))
    folder = run_command(server.url, str(tmp_path))
    nowhere = run_command(server.url, "-", "--out", str(tmp_path / "none" / "out.csv"), text=table_of([GOOD]))

    assert [done.returncode for done in (missing, folder, nowhere)] == [1, 1, 1]
    assert missing.stderr.decode() == f"error: {tmp_path / 'none.csv'}: No such file or directory\n"
    assert folder.stderr.decode() == f"error: {tmp_path}: Is a directory\n"
    assert nowhere.stderr.decode().endswith(": No such file or directory\n")


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(server: Server, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_bytes(table_of(different_rows(50_000)))

    with start_command(server.url, str(table)) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr.read() == b""


def test_an_interrupt_ends_the_command_quietly_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    with start_command(server.url, "-", "--out", str(tmp_path / "out.csv")) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(f"{HEADER}\n1,2,3\n".encode())
        process.stdin.flush()
        assert process.stderr.readline() == b"line 2: 3 columns, the header has 4\n"
        assert len(os.listdir(tmp_path)) == 1

        process.send_signal(signal.SIGINT)

        assert process.wait() == 130
        assert process.stderr.read() == b""
    assert os.listdir(tmp_path) == []


def test_a_restart_is_told_and_nothing_is_missing(model: LoadedModel, model_path: Path, tmp_path: Path) -> None:
    port = free_port()
    rows = different_rows(60_000)
    wanted = guarded(model, table_of(rows))
    table = tmp_path / "rows.csv"
    table.write_bytes(table_of(rows))

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(run_server(tmp_path / "1.log", port=port, MODEL_FILE=str(model_path)))
        process = stack.enter_context(start_command(first.url, str(table)))
        assert process.stdout
        assert process.stderr
        content = process.stdout.readline()  # the pipe holds a part of the answers, so that rows are left for later
        first.process.kill()
        first.process.wait()
        reading: list[bytes] = []
        reader = threading.Thread(target=lambda: reading.append(process.stdout.read()))  # type: ignore[union-attr]  # asserted above
        reader.start()
        told = process.stderr.readline().decode()
        stack.enter_context(run_server(tmp_path / "2.log", port=port, MODEL_FILE=str(model_path)))
        reader.join()
        assert process.wait() == 0

    assert content + reading[0] == wanted
    assert told.startswith(f"http://127.0.0.1:{port} closed the stream: ")
    assert "; going on in 0." in told


def test_a_model_with_other_labels_ends_a_csv_file(
    model_path: Path, other_models: dict[str, Path], tmp_path: Path
) -> None:
    port = free_port()
    line = ",".join(map(str, GOOD)).encode() + b"\n"

    with contextlib.ExitStack() as stack:
        with run_server(tmp_path / "1.log", port=port, MODEL_FILE=str(model_path)) as first:
            process = stack.enter_context(start_command(first.url, "-"))
            assert process.stdin
            assert process.stdout
            assert process.stderr
            process.stdin.write(HEADER.encode() + b"\n" + line)
            process.stdin.flush()
            process.stdout.readline()
            process.stdout.readline()
        assert b"going on" in process.stderr.readline()
        stack.enter_context(run_server(tmp_path / "2.log", port=port, MODEL_FILE=str(other_models["labels"])))
        process.stdin.write(line)
        process.stdin.flush()
        assert process.wait() == 1
        told = process.stderr.read().decode().splitlines()

    assert told[-1].startswith("error: the model was replaced by one with other features or labels")


def test_a_service_without_room_is_waited_for_as_long_as_told(
    model: LoadedModel, model_path: Path, tmp_path: Path
) -> None:
    content = table_of(different_rows(100))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), MAX_UPLOADS="1"))
        with start_command(server.url, "-") as first:
            assert first.stdin
            assert first.stdout
            first.stdin.write(table_of(different_rows(1)))
            first.stdin.flush()
            first.stdout.readline()
            gave_up = run_command(server.url, "-", "--give-up", "0.1", "--out", str(tmp_path / "out.csv"), text=content)
            with start_command(server.url, "-") as second:
                assert second.stdin
                assert second.stderr
                assert b"too many files are being scored" in second.stderr.readline()
                first.stdin.close()
                table, _ = second.communicate(content)

    assert gave_up.returncode == 1
    assert gave_up.stderr.decode().splitlines()[-1].startswith("error: gave up after 0.1 s: ")
    assert os.listdir(tmp_path) == ["log.txt"]
    assert table == guarded(model, content)


ROWS = {
    "read": 16, "rows": 1, "bad": 0, "errors": [], "counts": {"setosa": 1}, "listed": [], "version": "", "resume": "",
    "done": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"counts": {"lilac": 1}}, "the model has no label 'lilac'"),
        ({"counts": {"setosa": 2}}, "1 rows, 0 of them without an answer, and 2 answers"),
        ({"bad": 2, "counts": {"setosa": -1}}, "1 rows, 2 of them without an answer, and -1 answers"),
        ({"read": 17}, "an answer to bytes that were not sent"),
        ({"read": -1}, "an answer to bytes that were not sent"),
        ({"done": True}, "an answer to bytes that were not sent"),
        ({"rows": 2, "counts": {"setosa": 2}}, "2 rows in 1 lines"),
        ({}, "an answer to bytes that were not sent"),  # the second time
    ],
    ids=str,
)
def test_a_table_that_cannot_be_the_answer_to_a_file_is_refused(
    announcement: str, wrong: dict[str, object], reason: str
) -> None:
    async def answer(connection: ServerConnection) -> None:
        await connection.send(announcement)
        await connection.recv()
        for _ in range(2):
            await connection.send(b"5.1,3.5,1.4,0.2,setosa,1,0,0,,\n")
            await connection.send(json.dumps({"type": "rows"} | ROWS | wrong))
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()

    assert reason in run(refused_by(answer))


def test_a_service_that_never_ends_a_file_is_given_up(announcement: str) -> None:
    async def answer(connection: ServerConnection) -> None:
        await connection.send(announcement)
        async for content in connection:
            await connection.send(b"5.1,3.5,1.4,0.2,setosa,1,0,0,,\n" if content else b"")
            rows = ROWS if content else ROWS | {"rows": 0, "counts": {}}
            await connection.send(json.dumps({"type": "rows"} | rows))

    assert "gave up after 0.5 s" in run(refused_by(answer, ends=True))


async def refused_by(answer: Handler, *, ends: bool = False) -> str:
    """Return why the client ends with a file of one row, of which more may come unless it `ends`."""
    contents = [b"5.1,3.5,1.4,0.2\n", b""]

    async def read() -> bytes:
        if not (ends or len(contents) == 2):
            await asyncio.Event().wait()
        return contents.pop(0)

    async def take(_rows: TablePart) -> None:
        pass

    async with pretending(answer) as url:
        with pytest.raises(ClientError) as raised:
            await SentFile(url, give_up_s=0.5 if ends else math.inf).score(read, take)
    return str(raised.value)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(model_path: Path, tmp_path: Path) -> None:
    row = f"5.6,2.7,4.2,1.3,{'x' * 1_000}\n".encode()
    for name, size in (("small.csv", 10**6), ("large.csv", 5 * 10**7)):
        (tmp_path / name).write_bytes(f"{HEADER},note\n".encode() + row * (size // len(row)))
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path)) as server:
        peaks = []
        for name in ("small.csv", "large.csv"):
            client = run_peak(server.url, "stream", str(tmp_path / name), "--out", str(tmp_path / "out.csv"))
            peaks.append((client, memory_bytes(server, "VmHWM")))
    (small_client, small_server), (large_client, large_server) = peaks

    assert (tmp_path / "out.csv").stat().st_size > 5 * 10**7
    assert large_client - small_client < 16e6
    assert large_server - small_server < 32e6


PEAK_OF_CLIENT = """
import resource, sys
from web.client.__main__ import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run_peak(*arguments: str) -> int:
    """Run the command, and return the most memory that its process had, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_CLIENT, *arguments], cwd=ROOT, capture_output=True, timeout=GUARD_S, check=True
    )
    return int(done.stdout) * 1024


def test_a_terminal_shows_a_bar(server: Server, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_bytes(table_of(different_rows(20_000)))
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    with subprocess.Popen(
        command(server.url, str(table), "--out", str(tmp_path / "out.csv")), cwd=ROOT, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # ends with EIO
            while chunk := terminal.read(4_096):
                shown += chunk
        assert process.wait() == 0

    assert b"100%" in shown
    assert b"20000/20000" in shown
    assert b" rows/s" in shown


def test_give_up_takes_seconds() -> None:
    done = run_command("http://127.0.0.1:1", "-", "--give-up", "soon", text=b"")

    assert done.returncode == 2
    assert b"'soon' is not a number of seconds" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "streams", "message"),
    [
        ("rows.csv", ">&-", "standard output: Bad file descriptor"),
        ("rows.csv", ">/dev/full", "standard output: No space left on device"),
        ("rows.csv --out /dev/full", "", "/dev/full: No space left on device"),
        ("-", "<&-", "standard input: Bad file descriptor"),
    ],
)
def test_a_stream_that_is_closed_or_full_is_named(
    server: Server, tmp_path: Path, arguments: str, streams: str, message: str
) -> None:
    (tmp_path / "rows.csv").write_text("sepal_length,sepal_width,petal_length,petal_width\n5.6,2.7,4.2,1.3\n")
    command = ["web.client", server.url, "stream", *arguments.split()]

    done = closing(streams, *command, cwd=tmp_path)
    unheard = closing(f"{streams} 2>&-", *command, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"error: {message}"
    assert "Traceback" not in done.stderr
    assert unheard.returncode == 1
