"""The benchmarks themselves: they measure something, and count right answers only. How fast is not asked here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.training import fitting, iris, writing
from ml.training.fitting import Trained
from tests.benchmarks import (
    connections,
    endpoints,
    forests,
    generator,
    in_process,
    load,
    server,
    soak,
    start,
    stream,
    wide,
)
from tests.benchmarks.__main__ import PARTS
from tests.benchmarks.results import Bar, Ratio, Result, interleave, table
from tests.benchmarks.subject import Plan, Subject, WrongAnswer, random_rows

pytestmark = pytest.mark.server
ROWS = 5_000
# What a part does much of, and much less of it: whether it measures is asked here.
LESS = [(connections, "IDLE", 50), (connections, "CLIENTS", 20), (start, "REQUESTS", 20), (wide, "TREES", 10)]
TOOLS = [
    pytest.param(tool, marks=pytest.mark.skipif(tool != load.default_tool() == "python", reason="wrk is not installed"))
    for tool in load.TOOLS
]


@pytest.fixture(scope="module")
def subject(
    trained: Trained, model: LoadedModel, model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    directory = tmp_path_factory.mktemp("benchmarks")
    return Subject(directory, model_path, model, trained.estimator, random_rows(model, ROWS))


@pytest.fixture(scope="module")
def mistaken(subject: Subject) -> Subject:
    """A subject that expects the answers of another forest than the one in its model file."""
    other = fitting.fit(iris.load_dataset(), Recipe(seed=1, n_estimators=5))
    path = subject.directory / "other.npz"
    return replace(subject, model=writing.write(writing.model_of(other), path, trained=other))


@pytest.fixture(scope="module")
def service(subject: Subject) -> Iterator[server.Server]:
    with server.service(subject) as running:
        yield running


def test_samples_never_repeat_and_span_the_training_ranges(subject: Subject) -> None:
    assert len(set(map(tuple, subject.rows))) == ROWS
    assert all(round(value, 3) == value for row in subject.rows for value in row)
    for feature, column in zip(subject.model.features, zip(*subject.rows, strict=True), strict=True):
        margin = (feature.high - feature.low) / 100
        assert feature.low <= min(column) < feature.low + margin
        assert feature.high - margin < max(column) <= feature.high


# Typing takes half a minute at the speed of fingers; tests/test_browser.py holds that its keys are answered.
# tests/test_lifecycle.py has models replaced with fewer clients, tests/test_overload.py people during every attack, and
# tests/test_batch.py that large batches leave the event loop to others.
@pytest.mark.parametrize(
    "part", [part for part in PARTS if part not in ("typing", "replace", "soak", "attack", "forests", "batches")]
)
def test_a_part_measures_everything_that_it_names(part: str, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, size, less in LESS:
        monkeypatch.setattr(module, size, less)

    results = PARTS[part].measure(subject, Plan(rounds=1, seconds=0.1, tool="python"))

    assert len({result.what for result in results}) == len(results) > 1
    for result in results:
        assert result.number > 0
        assert 0 < result.ratio.lowest <= result.ratio.median <= result.ratio.highest
        assert result.what in table(results)


def test_a_forest_is_measured_beside_each_rival() -> None:
    data = load_breast_cancer()
    estimator = RandomForestClassifier(3, random_state=0).fit(data.data, data.target)
    plan = Plan(rounds=1, seconds=0.05, tool="python")

    results = forests.measured("small", data.data, estimator, list(forests.rivals_of(estimator)), plan)

    assert len({result.what for result in results}) == len(results) >= 3
    assert all(result.number > 0 and result.ratio.median > 0 for result in results)


@pytest.mark.parametrize("form", endpoints.FORMS, ids=lambda form: form.name)
def test_another_prediction_over_http_stops_the_benchmark(
    form: endpoints.Form, service: server.Server, subject: Subject, mistaken: Subject
) -> None:
    endpoints.verify(form, service, subject, subject.rows[:100])

    with pytest.raises(WrongAnswer, match=form.name):
        endpoints.verify(form, service, mistaken, subject.rows[:100])


@pytest.mark.parametrize("kind", stream.KINDS, ids=lambda kind: kind.name)
def test_another_prediction_on_the_stream_stops_the_benchmark(
    kind: stream.Kind, service: server.Server, subject: Subject, mistaken: Subject
) -> None:
    payloads = [kind.encode(subject, kind.rows_of(subject, n), n) for n in range(100)]
    stream.verify(kind, service, subject, payloads)

    with pytest.raises(WrongAnswer, match=kind.name):
        stream.verify(kind, service, mistaken, payloads)


def test_a_short_soak_checks_every_channel_while_models_are_replaced(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "WARM_UP_ROUNDS", 3)

    soaked = soak.soak(subject, soak.Size(predictions=2_000, rounds=3))

    assert soaked.predictions >= 2_000
    assert (soaked.replacements, soaked.reconnects) == (3, 3 * soak.VISITORS)
    assert soaked.before_mb > 10
    assert soaked.grown_mb < 2 * soak.MOST_MB


@pytest.mark.parametrize("channel", dict.fromkeys(soak.CHANNELS), ids=lambda channel: channel[0])
def test_another_prediction_stops_the_soak(
    channel: soak.Channel, service: server.Server, subject: Subject, mistaken: Subject
) -> None:
    name, size, ask = channel

    def others(row: list[float]) -> bool:
        return subject.model.predict(row).probabilities != mistaken.model.predict(row).probabilities

    told_apart = [row for row in subject.rows if others(row)][:size]

    def answered(model: LoadedModel) -> None:
        visitor = soak.Visitor(service.port, {subject.model.version: model}, subject.rows)
        with contextlib.closing(visitor):
            visitor.connect()
            ask(visitor, told_apart)

    answered(subject.model)
    with pytest.raises(WrongAnswer, match=name):
        answered(mistaken.model)


def test_another_prediction_in_process_stops_the_benchmark(subject: Subject, mistaken: Subject) -> None:
    in_process.verify(subject, n=100)

    with pytest.raises(WrongAnswer, match="other probabilities"):
        in_process.verify(mistaken, n=100)


@pytest.mark.parametrize("tool", TOOLS)
def test_both_load_tools_count_answers(tool: str, service: server.Server, subject: Subject, tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    generator.save((endpoints.FORMS[0].request(subject, row) for row in subject.rows), requests)

    run = load.http(service, requests, seconds=0.2, tool=tool)

    assert run.replies > load.HTTP_CONNECTIONS
    assert min(run.seconds, run.server_cpu_s, run.tool_cpu_s) > 0


@pytest.mark.parametrize("tool", TOOLS)
def test_http_errors_are_not_counted_as_answers(tool: str, service: server.Server, tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    generator.save([b"GET /predict?sepal_length=x HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n"], requests)

    with pytest.raises(RuntimeError, match=r"[1-9]\d* errors"):
        load.http(service, requests, seconds=0.2, tool=tool)


def test_error_frames_are_not_counted_as_answers(service: server.Server, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    stream.save([b'{"id":1,"sample":[1,2]}'], frames, binary=False)
    options = ("--path", "/stream", "--greetings", 1, "--expected", stream.KINDS[0].expected)

    with pytest.raises(RuntimeError, match=r"[1-9]\d* errors"):
        load.stream(service, frames, seconds=0.2, connections=1, window=4, options=options)


def test_a_refused_handshake_is_no_measurement(service: server.Server, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    stream.save([b"{}"], frames, binary=False)

    with pytest.raises(RuntimeError, match="the server closed a connection"):
        load.stream(service, frames, seconds=0.2, connections=1, window=1, options=("--expected", "", "--path", "/no"))


def test_messages_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    messages = [b"", b"12\n", b"\r\n\r\n", bytes(range(256)) * 300]

    generator.save(messages, tmp_path / "messages")

    assert generator.load(tmp_path / "messages") == messages


def test_rounds_are_interleaved_and_ratios_are_of_neighbors() -> None:
    calls: list[str] = []
    first, second = interleave([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3)

    assert "".join(calls) == "ababab"
    assert len(first) == len(second) == 3
    assert Ratio.of([2.0, 8.0, 9.0], [1.0, 2.0, 3.0]) == Ratio(3.0, 2.0, 4.0)


def test_a_missed_bar_is_shown_as_missed() -> None:
    ratio = Ratio.of([1.0], [2.0])
    reached = Result("fast", 1.0, "s", ratio, "bare", (Bar(1.0, 1.0, "s", highest=True), Bar(0.5, 0.5)))
    missed = Result("slow", 1.0, "s", ratio, "bare", (Bar(0.5, 0.5), Bar(1.1, 1.0, "s", highest=True)))

    _, first, second = table([reached, missed]).splitlines()

    assert first.split() == ["fast", "1", "s", "0.5", "(0.5", "to", "0.5)", "bare", "≤", "1", "s,", "≥", "0.5", "yes"]
    assert second.split()[-1] == "NO"


def test_a_server_tells_its_start_memory_and_processor_time(subject: Subject, service: server.Server) -> None:
    before = service.cpu_s()

    while service.cpu_s() == before:  # until the next hundredth of a second
        start.use(service, subject)

    assert 0 < service.start_s < server.START_TIMEOUT_S
    assert 10 < service.resident_mb() < 1_000
