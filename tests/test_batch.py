"""Batches in slices and in threads: the same answers as one by one, and everybody else has a turn meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from msgspec import UNSET, Raw

from ml.model import modelfile
from ml.model.contributions import contributions
from ml.model.evaluators import Batch
from ml.model.loaded import LoadedModel
from ml.model.sample import MAX_ERRORS
from web.api import batch, threads
from web.api.explain import explained
from web.metrics.counters import Metrics
from web.problems import Problem, SampleError

Result = TypeVar("Result")
MANY = 10_000


def encoded(samples: list[Any]) -> list[Raw]:
    return [Raw(json.dumps(sample).encode()) for sample in samples]


def read(model: LoadedModel, samples: list[Any]) -> Any:
    rows, _ = asyncio.run(batch.read(model, encoded(samples)))
    return rows


def problem_of(model: LoadedModel, samples: list[Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        read(model, samples)
    return caught.value


def rows_of(n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(n).uniform(0, 8, (n, 4)).round(2)


async def turns_during(work: Coroutine[Any, Any, Result]) -> tuple[Result, int]:
    """Return what `work` returns and how often somebody else had a turn meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        return await work, turns
    finally:
        counting.cancel()


def test_samples_become_rows_in_their_order(model: LoadedModel) -> None:
    rows = rows_of(3).tolist()
    keys = [feature.key for feature in model.features]
    samples = [rows[0], dict(zip(keys, rows[1], strict=True)), [str(value).replace(".", ",") for value in rows[2]]]

    assert read(model, samples).tolist() == rows


def test_a_value_that_is_no_sample_hides_no_errors_of_others(model: LoadedModel) -> None:
    problem = problem_of(model, [["x", 1, 1, 1], 5, [1, 1, 1, 1], None])

    assert problem.details.status == 422
    assert problem.details.detail.startswith("3 of 4 samples have errors; sample 1: a sample is an object")
    assert [(e.sample, e.feature) for e in problem.details.errors if isinstance(e, SampleError)] == [
        (0, "sepal_length")
    ]


def test_no_samples_are_no_rows(model: LoadedModel) -> None:
    assert read(model, []).shape == (0, 4)


def test_every_error_has_the_index_of_its_sample(model: LoadedModel) -> None:
    problem = problem_of(model, [[1, 1, 1, 1], ["x", 1, 1, -1], [1, 1, 1, 1], {"sepal_length": 1}])

    assert problem.details.status == 422
    assert problem.details.detail == "2 of 4 samples have errors"
    seen = [(e.sample, e.feature, e.code) for e in problem.details.errors if isinstance(e, SampleError)]
    assert seen == [
        (1, "sepal_length", "not_a_number"),
        (1, "petal_width", "out_of_bounds"),
        (3, "sepal_width", "missing"),
        (3, "petal_length", "missing"),
        (3, "petal_width", "missing"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("sample", [["x"] * 4, ["x", "x", "x", 1]])  # the last sample may have errors over the bound
def test_thousands_of_errors_are_told_as_a_bounded_number(model: LoadedModel, sample: list[object]) -> None:
    problem = problem_of(model, [sample] * MANY)

    assert len(problem.details.errors) == MAX_ERRORS
    assert len(msgspec.json.encode(problem.details)) < 50_000


def test_the_number_of_samples_with_errors_is_told_right(model: LoadedModel) -> None:
    problem = problem_of(model, [["x", 1, 1, 1]] * 150)

    assert problem.details.detail.startswith("150 of 150 ")


def test_the_number_of_samples_with_errors_is_told_right_over_slices(model: LoadedModel) -> None:
    problem = problem_of(model, [["x", 1, 1, 1]] * MANY)

    assert problem.details.detail.startswith(f"{MANY} of {MANY} ")


@pytest.mark.parametrize("wrong", [1, None, "x", True])
def test_a_sample_of_another_kind_is_named_by_its_index(model: LoadedModel, wrong: object) -> None:
    problem = problem_of(model, [[1, 1, 1, 1], wrong])

    assert problem.details.status == 422
    assert "; sample 1: a sample is an object" in problem.details.detail


@pytest.mark.parametrize("n_rows", [0, 1, 1_023, 1_024, 1_025, 5_000])
def test_slices_hold_every_row_once(model: LoadedModel, n_rows: int) -> None:
    parts = list(batch.slices(model, n_rows))

    assert [index for part in parts for index in range(n_rows)[part]] == list(range(n_rows))
    assert all(len(range(n_rows)[part]) * 4 <= batch.VALUES_A_SLICE for part in parts)


@pytest.mark.parametrize(("n_slices", "more"), [(0, 0), (0, 1), (0, 7), (1, 0), (1, 1), (2, -1), (2, 0), (2, 1)])
def test_a_batch_in_slices_is_the_batch_as_a_whole(model: LoadedModel, n_slices: int, more: int) -> None:
    rows = rows_of(n_slices * model.slice_rows + more)

    answers = asyncio.run(batch.predict(model, rows, Metrics().json))

    whole = model.predict_batch(rows)
    assert np.array_equal(answers.indices, whole.indices)
    assert np.array_equal(answers.outputs, whole.outputs)


@pytest.mark.parametrize("n_rows", [0, 1, 5_000])
def test_the_json_of_a_batch_has_each_row_as_predict_answers_it(model: LoadedModel, n_rows: int) -> None:
    rows = rows_of(n_rows)

    answer = json.loads(asyncio.run(batch.encode_answers(model, rows, Metrics().json)))

    for item, row in zip(answer["predictions"], rows.tolist(), strict=True):
        prediction = model.predict(row)
        assert item["label"] == prediction.label
        assert tuple(item["probabilities"].values()) == prediction.probabilities
        assert [note["feature"] for note in item["notes"]] == [note.feature for note in model.validator.notes(row)]


@pytest.mark.parametrize("n_rows", [0, 1, 5_000])
def test_the_frame_of_a_batch_has_each_row_as_predict_answers_it(model: LoadedModel, n_rows: int) -> None:
    rows = rows_of(n_rows)

    frame = json.loads(asyncio.run(batch.encode_frame(model, rows, Raw(b'{"a": 1}'), Metrics().stream)))

    predictions = [model.predict(row) for row in rows.tolist()]
    assert frame["type"] == "predictions"
    assert frame["id"] == {"a": 1}
    assert frame["version"] == model.version
    assert frame["labels"] == [prediction.label for prediction in predictions]
    assert list(frame["probabilities"]) == list(model.labels)
    columns = [[p.probabilities[index] for p in predictions] for index in range(len(model.labels))]
    assert list(frame["probabilities"].values()) == columns


def test_a_frame_without_an_id_is_answered_without_one(model: LoadedModel) -> None:
    assert "id" not in json.loads(asyncio.run(batch.encode_frame(model, rows_of(1), UNSET, Metrics().stream)))


@pytest.mark.parametrize("n_rows", [0, 1, 2_000])
def test_each_row_of_a_batch_is_explained_as_it_is_alone(model: LoadedModel, n_rows: int) -> None:
    rows = rows_of(n_rows)

    answer = json.loads(asyncio.run(batch.encode_answers(model, rows, Metrics().json, explain=nobody_has_left)))

    for item, row in zip(answer["predictions"], rows.tolist(), strict=True):
        divided = contributions(model, row, model.predict(row).index)
        assert divided is not None
        assert item["contributions"]["base"] == divided.base
        assert [*item["contributions"]["features"].values()] == divided.values


async def nobody_has_left() -> None:
    """Return: the client is still there."""


WORK: dict[str, Callable[[LoadedModel], Awaitable[object]]] = {
    "read": lambda model: batch.read(model, encoded(rows_of(MANY).tolist())),
    "encode_answers": lambda model: batch.encode_answers(model, rows_of(MANY), Metrics().json),
    "explained": lambda model: explained(model, rows_of(MANY), [0] * MANY),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
def test_others_have_a_turn_between_the_slices_of_a_large_batch(model: LoadedModel, name: str) -> None:
    async def work() -> object:
        return await WORK[name](model)

    _, turns = asyncio.run(turns_during(work()))

    # Not only one turn at its end; while threads work there are as many as there is time for.
    assert turns >= len(list(batch.slices(model, MANY))) - 1


def test_others_have_a_turn_between_the_columns_of_a_large_frame(model: LoadedModel) -> None:
    _, turns = asyncio.run(turns_during(batch.encode_frame(model, rows_of(MANY), UNSET, Metrics().stream)))

    assert turns >= len(model.labels)


class _Watched(LoadedModel):
    """A model that notes which threads ask it for batches."""

    def __init__(self, path: Path) -> None:
        self.askers: set[int] = set()
        super().__init__(modelfile.parse(path.read_bytes()), "")
        self.slice_rows = MANY // 20
        self.askers.clear()

    def predict_batch(self, rows: np.ndarray[Any, Any]) -> Batch:
        self.askers.add(threading.get_ident())
        return super().predict_batch(rows)


@pytest.mark.parametrize("is_large", [False, True])
def test_a_large_batch_is_predicted_beside_the_event_loop_and_a_small_one_in_it(
    model_path: Path, is_large: bool
) -> None:
    model = _Watched(model_path)

    asyncio.run(batch.predict(model, rows_of(model.slice_rows + is_large), Metrics().json))

    assert (model.askers == {threading.get_ident()}) is not is_large
    assert len(model.askers) == 1


def test_the_event_loop_goes_on_while_a_thread_computes() -> None:
    async def turns() -> bool:
        is_free = threading.Event()
        waiting = asyncio.create_task(threads.in_thread(is_free.wait, 60))
        await asyncio.sleep(0)
        is_free.set()
        return await waiting

    assert asyncio.run(turns())


def test_who_has_left_is_not_computed_for() -> None:
    computed: list[str] = []

    async def leave() -> None:
        is_free = threading.Event()
        busy = [asyncio.create_task(threads.in_thread(is_free.wait, 60)) for _ in range(threads.MOST_THREADS)]
        left = asyncio.create_task(threads.in_thread(computed.append, "who has left"))
        stays = asyncio.create_task(threads.in_thread(computed.append, "who stays"))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait({left})
        is_free.set()
        await asyncio.gather(*busy, stays)

    asyncio.run(leave())

    assert computed == ["who stays"]
