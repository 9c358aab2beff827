"""What each feature adds to answers, for programs that ask for it with `"explain": true`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.model.contributions import OBSTACLES, contributions, obstacle
from ml.model.loaded import LoadedModel
from web.api.description import N_
from web.api.messages import Contributions, PredictRequest
from web.api.threads import PIECE_S, in_thread
from web.problems import Problem

# Is called between two pieces of work, and raises an error when the client has left.
Check = Callable[[], Awaitable[None]]


def described(model: LoadedModel) -> str:
    """Return what `explain` is, for the OpenAPI document."""
    if refused := _refusal_of(model):
        return f"With explain true it is refused: {refused}."
    return N_("With explain each answer has contributions: what each feature adds to it.")


def is_explained(model: LoadedModel, request: PredictRequest) -> bool:
    """Return whether a request asks for contributions.

    Raises:
        Problem: 422, it does, and this model has none.
    """
    if request.explain is not True:
        return False
    if refused := _refusal_of(model):
        raise Problem(422, refused)
    return True


def _refusal_of(model: LoadedModel) -> str:
    found = obstacle(model)
    return f"this model does not say what each feature adds to an answer: {OBSTACLES[found]}" if found else ""


async def explained(
    model: LoadedModel, rows: NDArray[np.float64], labels: Sequence[int], check: Check | None = None
) -> list[bytes]:
    """Return the contributions to the answers to rows, shape (n, n_features), as JSON: one object a row.

    Args:
        labels: the index of the label of each answer; 0 for a quantity.
    """
    found: list[bytes] = []
    while len(found) < len(rows):
        if found and check:
            await check()
        found += await in_thread(_some, model, rows[len(found) :], labels[len(found) :])
    return found


def _some(model: LoadedModel, rows: NDArray[np.float64], labels: Sequence[int]) -> list[bytes]:
    """Return those of the first rows: as many as there is time for in a piece, at least one."""
    end = perf_counter() + PIECE_S
    found: list[bytes] = []
    for row, label in zip(rows, labels, strict=True):
        divided = contributions(model, row.tolist(), label)
        assert divided is not None  # no `obstacle`
        features = dict(zip(model.validator.keys, divided.values, strict=True))
        view = Contributions(method=divided.method, scale=divided.scale, base=divided.base, features=features)
        found.append(msgspec.json.encode(view))
        if perf_counter() > end:
            break
    return found
