"""Tensors of the Open Inference Protocol: numbers in, as JSON or binary, and answers out. Knows no classifier.

Binary data is little-endian and row-major without padding; text is its length in 4 bytes, then UTF-8 (the protocol's
binary tensor data extension: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw
from numpy.typing import NDArray

from web.oip.messages import HEADER_LENGTH, NUMERIC, SAMPLES, InferenceInput
from web.problems import Problem
from web.requests import text_kind

Numbers = NDArray[Any]

# JSON data is read in pieces of about this many bytes, 2 ms of the shortest numbers; a row beyond the second is no row.
PIECE_BYTES = 2**16
MAX_ROW_BYTES = 2**20
_MAX_SHOWN = 64
_SHOWN_FEATURES = 10

_COMMA = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
_BLANKS = b" \t\r\n"
_FLAT: dict[type, msgspec.json.Decoder[Any]] = {
    float: msgspec.json.Decoder(list[float]),
    int: msgspec.json.Decoder(list[int]),
}
_NESTED: dict[type, msgspec.json.Decoder[Any]] = {
    float: msgspec.json.Decoder(list[list[float]]),
    int: msgspec.json.Decoder(list[list[int]]),
}


async def read(
    inputs: Sequence[InferenceInput], binary: memoryview, keys: Sequence[str], *, max_samples: int
) -> list[Numbers]:
    """Return the inputs as tensors of shape (n, k) that make rows when they are put side by side.

    Args:
        inputs: one input of all features, or one a feature in any order.
        binary: the binary data after the request.
        keys: the features' keys in their order.
        max_samples: the largest n.

    Raises:
        Problem: 413, there are more samples; 400, anything else is wrong with names, shapes, datatypes or data.
    """
    ordered = _in_order(inputs, keys)
    width = len(keys) if len(ordered) == 1 else 1
    counts = {_n_rows(tensor, width) for tensor in ordered}
    if len(counts) > 1:
        raise Problem(400, "the inputs have different numbers of samples")
    (n_rows,) = counts
    if n_rows > max_samples:
        raise Problem(413, f"at most {max_samples} samples are allowed in one request, not {_shown(n_rows)}")
    parts = _binary_parts(inputs, binary)
    columns = []
    for tensor in ordered:
        if tensor.name in parts:
            columns.append(_from_binary(parts[tensor.name], tensor.datatype, (n_rows, width), name=tensor.name))
        elif (text := _data_of(tensor)) is not None:
            columns.append(await _from_json(bytes(text), tensor.datatype, (n_rows, width), name=tensor.name))
        else:
            raise Problem(400, f'input "{tensor.name}" has neither data nor the parameter binary_data_size')
    return columns


def _in_order(inputs: Sequence[InferenceInput], keys: Sequence[str]) -> list[InferenceInput]:
    """Return the one input of all features, or the inputs of each feature in the order of the features."""
    named = {tensor.name: tensor for tensor in inputs}
    if len(named) < len(inputs):
        raise Problem(400, "two inputs have the same name")
    if set(named) == {SAMPLES}:
        return [named[SAMPLES]]
    shown = ", ".join(keys[:_SHOWN_FEATURES]) + (", …" if len(keys) > _SHOWN_FEATURES else "")
    wanted = f'send one input "{SAMPLES}" of shape [n, {len(keys)}], or one for each feature: {shown}'
    if SAMPLES in named and SAMPLES not in keys:
        raise Problem(400, f'there are other inputs beside "{SAMPLES}"; {wanted}')
    for name in named.keys() - set(keys):
        raise Problem(400, f"input {_shown(name)} is not known; {wanted}")
    for key in keys:
        if key not in named:
            raise Problem(400, f'input "{key}" is missing; {wanted}')
    return [named[key] for key in keys]


def _n_rows(tensor: InferenceInput, width: int) -> int:
    """Return the number of samples of a tensor with `width` numbers a sample."""
    if tensor.datatype not in NUMERIC:
        known = ", ".join(NUMERIC)
        raise Problem(400, f'input "{tensor.name}" has the datatype {_shown(tensor.datatype)}; known are {known}')
    if "shared_memory_region" in (tensor.parameters or {}):
        raise Problem(400, f'input "{tensor.name}": this server shares no memory; send the data')
    n_rows, *rest = tensor.shape or [-1]
    if n_rows < 0 or not (rest == [width] or (width == 1 and not rest)):
        shape = ", ".join(map(_shown, tensor.shape[:4])) + (", …" if len(tensor.shape) > 4 else "")
        wanted = f"[n, {width}]" if width > 1 else "[n] or [n, 1]"
        raise Problem(400, f'input "{tensor.name}" has the shape [{shape}], not {wanted}')
    return n_rows


def _data_of(tensor: InferenceInput) -> Raw | None:
    if tensor.data is UNSET or bytes(memoryview(tensor.data)[:4]) == b"null":
        return None
    return tensor.data


def _binary_parts(inputs: Sequence[InferenceInput], binary: memoryview) -> dict[str, memoryview]:
    """Return the binary data of each input that has some; they follow each other in the order of the request."""
    parts: dict[str, memoryview] = {}
    for tensor in inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(binary):
            raise Problem(
                400,
                f'input "{tensor.name}" has the binary_data_size {_shown(size)}, but {len(binary)} bytes are left '
                f"after the JSON text, whose length the header {HEADER_LENGTH} gives",
            )
        if _data_of(tensor) is not None:
            raise Problem(400, f'input "{tensor.name}" has both data and the parameter binary_data_size')
        parts[tensor.name], binary = binary[:size], binary[size:]
    if binary:
        raise Problem(400, f"{len(binary)} bytes of binary data belong to no input")
    return parts


def _from_binary(content: memoryview, datatype: str, shape: tuple[int, int], *, name: str) -> Numbers:
    """Return the tensor in binary data, without copying it.

    Args:
        content: the tensor's own bytes.
        datatype: one of `NUMERIC`.
        shape: (n, k), its product small enough for an array.
        name: the tensor's name, for the message.

    Raises:
        Problem: 400, the data has another size than the shape and datatype say, or is JSON.
    """
    dtype, (n_rows, width) = np.dtype(NUMERIC[datatype]), shape
    expected = n_rows * width * dtype.itemsize
    if len(content) != expected:
        raise Problem(
            400,
            f'input "{name}" has {len(content)} bytes of data; {n_rows} x {width} {datatype} take {expected}',
        )
    # Of fewer bytes, or whole numbers, JSON may be what is meant.
    if datatype in ("FP64", "FP32") and (kind := text_kind(content, width)):
        raise Problem(400, f'input "{name}": its binary data is {kind}; send it as "data", in the JSON text')
    return np.frombuffer(content, dtype).reshape(shape)


async def _from_json(text: bytes, datatype: str, shape: tuple[int, int], *, name: str) -> Numbers:
    """Return the tensor in a JSON array, flat or one array a row; between pieces the event loop serves others.

    Args:
        text: a JSON value.
        datatype: one of `NUMERIC`.
        shape: (n, k), its product small enough for an array.
        name: the tensor's name, for the message.

    Raises:
        Problem: 400, it is no array, has another shape, or holds something else than numbers of the datatype.
    """
    n_rows, width = shape
    tensor = np.empty(n_rows * width, NUMERIC[datatype])
    filled = 0
    for values in _pieces(text, datatype, width, name=name):
        if filled:
            await asyncio.sleep(0)
        if filled + len(values) > len(tensor):
            raise Problem(400, f'the data of input "{name}" has more than {n_rows} x {width} numbers')
        tensor[filled : filled + len(values)] = _cast(values, datatype, name=name, first=filled, width=width)
        filled += len(values)
    if filled < len(tensor):
        raise Problem(400, f'the data of input "{name}" has {filled} numbers; its shape has {n_rows} x {width}')
    return tensor.reshape(shape)


def _pieces(text: bytes, datatype: str, width: int, *, name: str) -> Iterator[list[float]]:
    """Yield the numbers of a JSON array, some thousands at a time."""
    text = text.strip(_BLANKS)
    if not text.startswith(b"["):
        raise Problem(400, f'the data of input "{name}" must be an array')
    nested = text[1:].lstrip(_BLANKS).startswith(b"[")
    for piece in _cut(text, b"]" if nested else b",", name=name):
        yield _decode(piece, datatype, width if nested else 0, name=name)


def _cut(text: bytes, mark: bytes, *, name: str) -> Iterator[bytes]:
    """Yield JSON arrays that together hold the elements of one: cut at a comma, or after an inner array."""
    start, end = 1, len(text) - 1
    while True:
        cut = text.find(mark, start + PIECE_BYTES, end)
        stop = end if cut < 0 else cut + (mark == b"]")
        if stop - start > MAX_ROW_BYTES:
            raise Problem(400, f'a row in the data of input "{name}" takes more than {MAX_ROW_BYTES} bytes')
        piece = text[start:stop].strip(_BLANKS)
        if not piece and (start > 1 or stop < end):
            raise Problem(400, _not_numbers(name))  # nothing before, between or after commas
        yield b"[" + piece + b"]"
        if stop == end:
            return
        comma = _COMMA.match(text, stop, end)
        if comma:
            start = comma.end()
        elif text[stop:end].strip(_BLANKS):
            raise Problem(400, _not_numbers(name))
        else:
            return


def _decode(piece: bytes, datatype: str, width: int, *, name: str) -> list[float]:
    """Return the numbers in a piece: an array of them, or with a `width` of arrays of that many."""
    kind = float if np.dtype(NUMERIC[datatype]).kind == "f" else int
    try:
        if not width:
            flat: list[float] = _FLAT[kind].decode(piece)
            return flat
        rows: list[list[float]] = _NESTED[kind].decode(piece)
    except (msgspec.DecodeError, RecursionError):
        # Not numbers of this kind, or some that no float64 can hold, such as 1e999; JSON it is.
        rows = _decode_anything(piece, kind, nested=bool(width), name=name)
        if not width:
            return list(chain.from_iterable(rows))
    for row in rows:
        if len(row) != width:
            raise Problem(400, f'the data of input "{name}" has a row of {len(row)} numbers, not {width}')
    return list(chain.from_iterable(rows))


def _decode_anything(piece: bytes, kind: type, *, nested: bool, name: str) -> list[list[Any]]:
    try:
        values: list[Any] = json.loads(piece, parse_int=float if kind is float else _int)
    except (ValueError, RecursionError):
        raise Problem(400, _not_numbers(name)) from None
    rows = values if nested else [values]
    if not all(isinstance(row, list) for row in rows):
        raise Problem(400, f'the data of input "{name}" is neither flat nor one array a row')
    return rows


def _not_numbers(name: str) -> str:
    return f'the data of input "{name}" must be an array of numbers, or of rows of numbers'


def _int(text: str) -> int:
    # int() refuses more than 4,300 digits; no datatype holds more than 20.
    return int(text[: 2 * _MAX_SHOWN])


def _cast(values: list[float], datatype: str, *, name: str, first: int, width: int) -> Numbers:
    """Return values in their datatype; `first` is the position of the first one in the tensor."""
    dtype = np.dtype(NUMERIC[datatype])
    kind = float if dtype.kind == "f" else int
    if set(map(type, values)) <= {kind}:
        try:
            with np.errstate(over="ignore"):  # infinite then, which the validator refuses by name
                return np.array(values, dtype)
        except OverflowError:
            pass  # an integer beyond its datatype
    for position, value in enumerate(values, first):
        if type(value) is not kind or not _fits(value, dtype):
            place = f"row {position // width}" + (f", column {position % width}" if width > 1 else "")
            raise Problem(400, f'input "{name}", {place}: {_shown(value)} is not a number of type {datatype}')
    raise AssertionError("every value fits its datatype")


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def _shown(value: object) -> str:
    """Return a JSON value for a message: short, and neither a list nor an object."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN:
        return "a number of many digits"
    text = msgspec.json.encode(value).decode() if not isinstance(value, float) else repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
