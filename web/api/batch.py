"""Many samples at once, in slices: between two slices the event loop serves other clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType

import msgspec
import numpy as np
from msgspec import Raw, UnsetType, structs
from numpy.typing import NDArray

from ml.model.classifier import Classifier
from ml.model.evaluators import Batch
from ml.model.sample import MAX_ERRORS, InvalidSample
from ml.model.values import UNKNOWN
from web.api.decoder import decode_sample
from web.api.encoder import encoded, encoder_of, intervals_of
from web.api.messages import PredictionsFrame, QuantitiesFrame
from web.metrics.channel import Channel, outcomes_of
from web.problems import Problem, SampleError

# Reading a value takes some 0.3 us, writing one less: a slice stays near a millisecond.
VALUES_A_SLICE = 4_096


async def read(model: Classifier, samples: Sequence[Raw]) -> tuple[NDArray[np.float64], dict[int, list[float]]]:
    """Return encoded samples as rows, shape (n, n_features); and those with unknown words again, by index.

    An array knows that a word is unknown, but not the word.

    Raises:
        Problem: 422, with the errors of every sample, each with the index of its sample, up to `MAX_ERRORS`.
    """
    rows = np.empty((len(samples), len(model.features)))
    has_words = any(feature.choices for feature in model.features)
    unknown: dict[int, list[float]] = {}
    errors: list[SampleError] = []
    wrong = 0
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
                raise Problem(problem.details.status, f"sample {index}: {problem}") from problem
    if wrong:
        raise Problem(422, f"{wrong} of {len(samples)} samples have errors", errors[:MAX_ERRORS])
    return rows, unknown


def slices(model: Classifier, n_rows: int) -> Iterator[slice]:
    """Yield slices of rows that are each answered, and encoded, in a few milliseconds."""
    step = min(model.slice_rows, max(1, VALUES_A_SLICE // len(model.features)))
    return (slice(start, start + step) for start in range(0, n_rows, step))


async def predict(model: Classifier, rows: NDArray[np.float64] | NDArray[np.float32], channel: Channel) -> Batch:
    """Return the answers to rows, shape (n, n_features); the channel counts the time alone."""
    parts = []
    for start in range(0, max(1, len(rows)), model.slice_rows):
        if start:
            await asyncio.sleep(0)
        started = perf_counter()
        parts.append(model.predict_batch(rows[start : start + model.slice_rows]))
        channel.model_time(started)
    if len(parts) == 1:
        return parts[0]
    return Batch(np.concatenate([p.indices for p in parts]), np.concatenate([p.outputs for p in parts]))


async def encode_answers(
    model: Classifier,
    rows: NDArray[np.float64],
    channel: Channel,
    *,
    unknown: Mapping[int, Sequence[float]] = MappingProxyType({}),
) -> bytes:
    """Return the JSON answer to rows, shape (n, n_features): the predictions in their order, notes and all.

    `unknown` are the rows with unknown words, as `read` returns them.
    """
    encoder, notes_of = encoder_of(model), model.validator.notes
    items: list[bytes] = []
    for part in slices(model, len(rows)):
        started = perf_counter()
        predictions = model.predict_each(rows[part])
        channel.model_time(started)
        channel.many(model, rows[part], outcomes_of(model, predictions))
        listed: list[Sequence[float]] = rows[part].tolist()
        if unknown:
            listed = [unknown.get(index, row) for index, row in enumerate(listed, part.start)]
        items += [
            encoder.batch_item(prediction, notes_of(row)) for prediction, row in zip(predictions, listed, strict=True)
        ]
        await asyncio.sleep(0)
    return encoder.batch(items)


async def encode_frame(
    model: Classifier, rows: NDArray[np.float64], request_id: Raw | UnsetType, channel: Channel
) -> str:
    """Return the stream's reply to rows, shape (n, n_features): a list of values or one a label, in their order."""
    answers = await predict(model, rows, channel)
    channel.many(model, rows, outcomes_of(model, answers))
    if model.quantity:
        values, interval = answers.values, model.quantity.interval
        reply = QuantitiesFrame(request_id, encoded(values), intervals_of(values, interval), model.version)
        return msgspec.json.encode(reply).decode()
    labels = [model.labels[index] for index in answers.indices.tolist()]
    columns: dict[str, Raw] = {}
    for index, label in enumerate(model.labels):
        columns[label] = encoded(answers.probabilities[:, index])
        if len(rows) > VALUES_A_SLICE:
            await asyncio.sleep(0)
    frame = PredictionsFrame(request_id, labels, columns, model.version)
    return msgspec.json.encode(frame).decode()
