"""Many samples at once, in slices: between two slices the event loop serves everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from msgspec import Raw, structs
from numpy.typing import NDArray

from ml.classifier import Batch, Classifier
from ml.sample import MAX_ERRORS, InvalidSample
from web.messages import decode_sample
from web.problems import Problem, SampleError

# Reading a value takes some 0.3 us: a slice of samples stays near a millisecond.
VALUES_A_SLICE = 4_096


async def read(model: Classifier, samples: Sequence[Raw]) -> NDArray[np.float64]:
    """Return encoded samples as rows, shape (n, n_features).

    Raises:
        Problem: 422, with the errors of every sample, each with the index of its sample, up to `MAX_ERRORS`.
    """
    rows = np.empty((len(samples), len(model.features)))
    errors: list[SampleError] = []
    samples_a_slice = max(1, VALUES_A_SLICE // len(model.features))
    for start in range(0, len(samples), samples_a_slice):
        if start:
            await asyncio.sleep(0)
        for index, encoded in enumerate(samples[start : start + samples_a_slice], start):
            try:
                rows[index] = model.validator.row(decode_sample(encoded))
            except InvalidSample as error:
                errors += [SampleError(**structs.asdict(field), sample=index) for field in error.errors]
            except Problem as problem:
                raise Problem(problem.details.status, f"sample {index}: {problem}") from problem
        if len(errors) >= MAX_ERRORS:
            break
    if errors:
        count = len({error.sample for error in errors})
        raise Problem(422, f"{count} of {len(samples)} samples have errors", errors[:MAX_ERRORS])
    return rows


async def predict(model: Classifier, rows: NDArray[np.float64] | NDArray[np.float32]) -> Batch:
    """Return the answers to rows, shape (n, n_features), of finite numbers."""
    if len(rows) <= model.slice_rows:
        return model.predict_batch(rows)
    slices = []
    for start in range(0, len(rows), model.slice_rows):
        slices.append(model.predict_batch(rows[start : start + model.slice_rows]))
        await asyncio.sleep(0)
    return Batch(np.concatenate([s.indices for s in slices]), np.concatenate([s.probabilities for s in slices]))
