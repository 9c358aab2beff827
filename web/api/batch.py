"""Many samples at once, in slices: between two slices the event loop serves other clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from time import perf_counter

import msgspec
import numpy as np
from msgspec import Raw, UnsetType, structs
from numpy.typing import NDArray

from ml.model.classifier import Batch, Classifier
from ml.model.sample import MAX_ERRORS, InvalidSample
from web.api.messages import PredictionsFrame, decode_sample, encoder_of
from web.metrics.channel import Channel
from web.problems import Problem, SampleError

# Reading a value takes some 0.3 us, writing one less: a slice stays near a millisecond.
VALUES_A_SLICE = 4_096


async def read(model: Classifier, samples: Sequence[Raw]) -> NDArray[np.float64]:
    """Return encoded samples as rows, shape (n, n_features).

    Raises:
        Problem: 422, with the errors of every sample, each with the index of its sample, up to `MAX_ERRORS`.
    """
    rows = np.empty((len(samples), len(model.features)))
    errors: list[SampleError] = []
    wrong = 0
    for part in slices(model, len(samples)):
        if part.start:
            await asyncio.sleep(0)
        for index, encoded in enumerate(samples[part], part.start):
            try:
                rows[index] = model.validator.row(decode_sample(encoded))
            except InvalidSample as error:
                wrong += 1
                if len(errors) < MAX_ERRORS:
                    errors += [SampleError(**structs.asdict(field), sample=index) for field in error.errors]
            except Problem as problem:
                raise Problem(problem.details.status, f"sample {index}: {problem}") from problem
    if wrong:
        raise Problem(422, f"{wrong} of {len(samples)} samples have errors", errors[:MAX_ERRORS])
    return rows


def slices(model: Classifier, n_rows: int) -> Iterator[slice]:
    """Yield slices of rows that are each answered, and encoded, in a few milliseconds."""
    step = min(model.slice_rows, max(1, VALUES_A_SLICE // len(model.features)))
    return (slice(start, start + step) for start in range(0, n_rows, step))


async def predict(model: Classifier, rows: NDArray[np.float64] | NDArray[np.float32], channel: Channel) -> Batch:
    """Return the answers to rows, shape (n, n_features), of finite numbers; the channel counts the time alone."""
    parts = []
    for start in range(0, max(1, len(rows)), model.slice_rows):
        if start:
            await asyncio.sleep(0)
        started = perf_counter()
        parts.append(model.predict_batch(rows[start : start + model.slice_rows]))
        channel.model_time(started)
    if len(parts) == 1:
        return parts[0]
    return Batch(np.concatenate([p.indices for p in parts]), np.concatenate([p.probabilities for p in parts]))


async def encode_answers(model: Classifier, rows: NDArray[np.float64], channel: Channel) -> bytes:
    """Return the JSON answer to rows, shape (n, n_features): the predictions in their order, notes and all."""
    encoder, notes_of = encoder_of(model), model.validator.notes
    encoded: list[bytes] = []
    for part in slices(model, len(rows)):
        started = perf_counter()
        predictions = model.predict_each(rows[part])
        channel.model_time(started)
        channel.many(model, rows[part], np.array([prediction.index for prediction in predictions]))
        encoded += [
            encoder.batch_item(prediction, notes_of(row))
            for prediction, row in zip(predictions, rows[part].tolist(), strict=True)
        ]
        await asyncio.sleep(0)
    return encoder.batch(encoded)


async def encode_frame(
    model: Classifier, rows: NDArray[np.float64], request_id: Raw | UnsetType, channel: Channel
) -> str:
    """Return the stream's reply to rows, shape (n, n_features): one list a label, in the order of the rows."""
    answers = await predict(model, rows, channel)
    channel.many(model, rows, answers.indices)
    labels = [model.labels[index] for index in answers.indices.tolist()]
    columns: dict[str, Raw] = {}
    for index, label in enumerate(model.labels):
        columns[label] = Raw(msgspec.json.encode(answers.probabilities[:, index].tolist()))
        if len(rows) > VALUES_A_SLICE:
            await asyncio.sleep(0)
    frame = PredictionsFrame(request_id, labels, columns, model.version)
    return msgspec.json.encode(frame).decode()
