"""Samples of a caller: drawn one by one, and encoded as JSON."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from web.client.replies import Refused

# A sample that is JSON already is passed on as it is.
Sample = Mapping[str, object] | Sequence[object] | NDArray[Any] | msgspec.Raw
Samples = Iterable[Sample | Refused] | AsyncIterable[Sample | Refused]

# A sequence is drawn from in the event loop: after this long, answers have a turn.
TURN_S = 0.005


async def encode_each(samples: Samples) -> AsyncGenerator[bytes | Refused]:
    """Yield samples as JSON, each as soon as it is drawn; what is refused already stays as it is.

    Raises:
        TypeError, ValueError, RecursionError: one holds something that JSON cannot say.
    """
    if not isinstance(samples, AsyncIterable):
        samples = _in_turns(samples)
    async with aclosing(samples) if isinstance(samples, AsyncGenerator) else nullcontext():
        async for sample in samples:
            yield sample if isinstance(sample, Refused) else encode(sample)


async def _in_turns(samples: Iterable[Sample | Refused]) -> AsyncGenerator[Sample | Refused]:
    turn_ends = time.monotonic() + TURN_S
    for sample in samples:
        yield sample
        if time.monotonic() >= turn_ends:
            await asyncio.sleep(0)
            turn_ends = time.monotonic() + TURN_S


def encode(sample: Sample) -> bytes:
    """Return a sample as JSON; NumPy's arrays and numbers are taken as lists and numbers, pandas' rows by their names.

    NaN becomes null.

    Raises:
        TypeError, ValueError, RecursionError: it holds something that JSON cannot say.
    """
    encoded = msgspec.json.encode(sample, enc_hook=_plain)
    # An infinite number becomes null as well, and would be taken for no value.
    if b"null" in encoded and not isinstance(sample, msgspec.Raw):
        values = sample.values() if isinstance(sample, Mapping) else sample if isinstance(sample, Iterable) else ()
        if any(isinstance(value, float | np.floating) and math.isinf(value) for value in values):
            raise ValueError("a sample cannot hold an infinite number: JSON has none")
    return encoded


def _plain(value: Any) -> object:
    # A row of pandas goes by the names of its columns.
    if isinstance(value, Mapping) or (
        hasattr(value, "items") and all(isinstance(name, str) for name, _ in value.items())
    ):
        return dict(value.items())
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"a sample cannot hold {type(value).__name__}")
