"""Many samples at once: their text in slices, between which the event loop serves other clients, and more predictions
than a slice has beside the event loop, in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from time import perf_counter
from types import MappingProxyType
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType, structs
from numpy.typing import NDArray

from ml.model.evaluators import Batch, Prediction
from ml.model.loaded import SLICE_S, LoadedModel
from ml.model.sample import MAX_ERRORS, InvalidSample, Note, note_of
from ml.tables.dataset import UNKNOWN
from web.api.decoder import decode_sample
from web.api.encoder import encoder_of, intervals_of, json_array
from web.api.explain import Check, explained
from web.api.messages import PredictionsFrame, QuantitiesFrame, SamplesNote
from web.api.threads import PIECE_S, in_thread
from web.metrics.channel import Channel, outcomes_of
from web.problems import Problem, SampleError

Rows = NDArray[np.float32] | NDArray[np.float64]
Result = TypeVar("Result")

# Reading a value takes some 0.45 us, writing one 0.3, or 1.3 with notes: a slice takes half a millisecond, or one.
# A keystroke waits for two or three of them, and slices four times as large are answered no faster.
VALUES_A_SLICE = 1_024


async def read(model: LoadedModel, samples: Sequence[Raw]) -> tuple[NDArray[np.float64], dict[int, list[float]]]:
    """Return encoded samples as rows, shape (n, n_features); and those with unknown words again, by index.

    An array knows that a word is unknown, but not the word.

    Raises:
        Problem: 422, with the errors of every sample, each with the index of its sample, up to `MAX_ERRORS`.
    """
    rows = np.empty((len(samples), len(model.features)))
    has_words = any(feature.choices for feature in model.features)
    unknown: dict[int, list[float]] = {}
    errors: list[SampleError] = []
    wrong, no_sample = 0, ""
    for part in slices(model, len(samples)):
        if part.start:
            await asyncio.sleep(0)
        for index, sample in enumerate(samples[part], part.start):
            try:
                rows[index] = row = model.validator.row(decode_sample(sample))
                if has_words and UNKNOWN in row:
                    unknown[index] = row
            except InvalidSample as error:
                wrong += 1
                if len(errors) < MAX_ERRORS:
                    errors += [SampleError(**structs.asdict(field), sample=index) for field in error.errors]
            except Problem as problem:
                if problem.details.status != 422:
                    raise Problem(problem.details.status, f"sample {index}: {problem}") from problem
                wrong += 1
                no_sample = no_sample or f"; sample {index}: {problem}"
    if wrong:
        raise Problem(422, f"{wrong} of {len(samples)} samples have errors{no_sample}", errors[:MAX_ERRORS])
    return rows, unknown


def slices(model: LoadedModel, n_rows: int) -> Iterator[slice]:
    """Yield slices of rows that are each answered, and encoded, in a few milliseconds."""
    step = min(model.slice_rows, max(1, VALUES_A_SLICE // len(model.features)))
    return (slice(start, start + step) for start in range(0, n_rows, step))


async def predict(model: LoadedModel, rows: Rows, channel: Channel) -> Batch:
    """Return the answers to rows, shape (n, n_features); the channel counts the time alone."""
    return Batch.joined(await _answers(model, model.predict_batch, rows, channel))


async def _answers(
    model: LoadedModel, function: Callable[[Rows], Result], rows: Rows, channel: Channel
) -> list[Result]:
    """Return the answers of a model's function to pieces of rows: to a small batch at once, else in threads."""
    if len(rows) <= model.slice_rows:
        started = perf_counter()
        answers = function(rows)
        channel.model_time(perf_counter() - started)
        return [answers]
    parts = []
    step = int(model.slice_rows * PIECE_S / SLICE_S)
    for start in range(0, len(rows), step):
        answers, seconds = await in_thread(_timed, function, rows[start : start + step])
        channel.model_time(seconds)
        parts.append(answers)
    return parts


def _timed(function: Callable[[Rows], Result], rows: Rows) -> tuple[Result, float]:
    started = perf_counter()
    answers = function(rows)
    return answers, perf_counter() - started


async def encode_answers(
    model: LoadedModel,
    rows: NDArray[np.float64],
    channel: Channel,
    *,
    unknown: Mapping[int, Sequence[float]] = MappingProxyType({}),
    explain: Check | None = None,
) -> bytes:
    """Return the JSON answer to rows, shape (n, n_features): the predictions in their order, notes and all.

    Args:
        unknown: the rows with unknown words, as `read` returns them.
        explain: makes each answer have its contributions; the work for them ends when it raises an error.
    """
    encoder, notes_of = encoder_of(model), model.validator.notes
    items: list[bytes] = []
    predictions: list[Prediction] = [*chain.from_iterable(await _answers(model, model.predict_each, rows, channel))]
    channel.many(model, rows, outcomes_of(model, predictions))
    added = [b""] * len(rows)
    if explain:
        added = await explained(model, rows, [prediction.index for prediction in predictions], explain)
    for part in slices(model, len(rows)):
        if part.start:
            await asyncio.sleep(0)
        listed: list[Sequence[float]] = rows[part].tolist()
        if unknown:
            listed = [unknown.get(index, row) for index, row in enumerate(listed, part.start)]
        items += [
            encoder.batch_item(prediction, notes_of(row), contributions)
            for prediction, row, contributions in zip(predictions[part], listed, added[part], strict=True)
        ]
    return encoder.batch(items)


async def encode_frame(
    model: LoadedModel,
    rows: NDArray[np.float64],
    request_id: Raw | UnsetType,
    channel: Channel,
    *,
    unknown: Mapping[int, Sequence[float]] = MappingProxyType({}),
    explain: Check | None = None,
) -> str:
    """Return the stream's reply to rows: a list of values or one a label, in their order; arguments as above."""
    answers = await predict(model, rows, channel)
    channel.many(model, rows, outcomes_of(model, answers))
    added = [*map(Raw, await explained(model, rows, answers.indices.tolist(), explain))] if explain else UNSET
    notes = await _notes(model, rows, unknown) or UNSET
    if model.quantity:
        values, interval = answers.values, model.quantity.interval
        intervals = intervals_of(values, interval) if interval else UNSET
        reply = QuantitiesFrame(request_id, json_array(values), intervals, model.version, notes, added)
        return msgspec.json.encode(reply).decode()
    labels = [model.labels[index] for index in answers.indices.tolist()]
    columns: dict[str, Raw] = {}
    for index, label in enumerate(model.labels):
        columns[label] = json_array(answers.outputs[:, index])
        if len(rows) > VALUES_A_SLICE:
            await asyncio.sleep(0)
    frame = PredictionsFrame(request_id, labels, columns, model.version, notes, added)
    return msgspec.json.encode(frame).decode()


async def _notes(
    model: LoadedModel, rows: NDArray[np.float64], unknown: Mapping[int, Sequence[float]]
) -> list[SamplesNote]:
    """Return the notes about rows, each with the indices of its rows, in the order of the features."""
    outside = model.validator.outside(rows)
    found: dict[Note, list[int]] = {}
    for at in np.flatnonzero(outside.any(axis=0)).tolist():
        feature, indices = model.features[at], np.flatnonzero(outside[:, at]).tolist()
        for number, index in enumerate(indices if feature.choices else indices[:1]):
            note = note_of(feature, unknown[index][at] if feature.choices else rows[index, at].item())
            assert note is not None  # it is outside
            found.setdefault(note, []).extend([index] if feature.choices else indices)
            if number % VALUES_A_SLICE == VALUES_A_SLICE - 1:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
    return [SamplesNote(**structs.asdict(note), samples=indices) for note, indices in found.items()]
