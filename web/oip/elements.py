"""The elements of a tensor in JSON and in binary data: numbers, booleans and texts. Knows no model.

Binary data is little-endian and row-major without padding; text is its length in 4 bytes, then UTF-8 (the protocol's
binary tensor data extension:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from web.oip.datatypes import BOOL, BYTES, NUMERIC, Numbers, Words, present
from web.problems import Problem
from web.requests import text_kind

# JSON data is read in pieces of about this many bytes, 2 ms of the shortest numbers; a row beyond the second is no row.
PIECE_BYTES = 2**16
MAX_ROW_BYTES = 2**20
# Of binary texts so many are read in one go, about a millisecond.
PIECE_TEXTS = 2_048
_MAX_SHOWN = 64

_COMMA = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
_BRACKET = re.compile(rb"[ \t\r\n]*\]")
_BLANKS = b" \t\r\n"
# Texts with commas between them, flat or one array each, as far as they go.
_TEXT = rb'(?:"(?:[^"\\]++|\\.)*+"|null)'
_INNER = rb"\[[ \t\r\n]*+" + _TEXT + rb"[ \t\r\n]*+\]"
FLAT_TEXTS, NESTED_TEXTS = (
    re.compile(rb"[ \t\r\n]*+" + text + rb"(?:[ \t\r\n]*+,[ \t\r\n]*+" + text + rb")*+") for text in (_TEXT, _INNER)
)
_KINDS: dict[str, type] = {BOOL: bool, BYTES: str}
_NAMES: dict[type, str] = {float: "numbers", int: "numbers", bool: "booleans", str: "texts"}
_FLAT: dict[type, msgspec.json.Decoder[Any]] = {
    float: msgspec.json.Decoder(list[float]),
    int: msgspec.json.Decoder(list[int]),
    bool: msgspec.json.Decoder(list[bool | None]),
    str: msgspec.json.Decoder(list[str | None]),
}
_NESTED: dict[type, msgspec.json.Decoder[Any]] = {
    float: msgspec.json.Decoder(list[list[float]]),
    int: msgspec.json.Decoder(list[list[int]]),
    bool: msgspec.json.Decoder(list[list[bool | None]]),
    str: msgspec.json.Decoder(list[list[str | None]]),
}


async def from_json(text: bytes, datatype: str, shape: tuple[int, int], *, name: str) -> Numbers | Words:
    """Return the tensor in a JSON array, flat or one array a row; between pieces the event loop serves others.

    null is no value: NaN among floating-point numbers, None among booleans and texts.

    Args:
        text: a JSON value.
        datatype: one of `NUMERIC`, `BOOL` or `BYTES`; the last two for k = 1.
        shape: (n, k), its product small enough for an array.
        name: the tensor's name, for the message.

    Raises:
        Problem: 400, it is no array, has another shape, or holds something else than elements of the datatype.
    """
    n_rows, width = shape
    kind = _kind_of(datatype)
    tensor: Any = np.empty(n_rows * width, NUMERIC[datatype]) if datatype in NUMERIC else [None] * n_rows
    filled = 0
    for values in _pieces(text, kind, width, name=name):
        if filled:
            await asyncio.sleep(0)
        if filled + len(values) > len(tensor):
            raise Problem(400, f'the data of input "{name}" has more than {n_rows} x {width} {_NAMES[kind]}')
        tensor[filled : filled + len(values)] = _cast(values, datatype, name=name, first=filled, width=width)
        filled += len(values)
    if filled < len(tensor):
        raise Problem(400, f'the data of input "{name}" has {filled} {_NAMES[kind]}; its shape has {n_rows} x {width}')
    found: Numbers | Words = tensor.reshape(shape) if datatype in NUMERIC else tensor
    return found


def _kind_of(datatype: str) -> type:
    if datatype in _KINDS:
        return _KINDS[datatype]
    return float if np.dtype(NUMERIC[datatype]).kind == "f" else int


def _pieces(text: bytes, kind: type, width: int, *, name: str) -> Iterator[list[Any]]:
    """Yield the elements of a JSON array, some thousands at a time."""
    text = text.strip(_BLANKS)
    if not text.startswith(b"["):
        raise Problem(400, f'the data of input "{name}" must be an array')
    nested = text[1:].lstrip(_BLANKS).startswith(b"[")
    for piece in _cut(text, kind, name=name, nested=nested):
        yield _decode(piece, kind, width if nested else 0, name=name)


def _cut(text: bytes, kind: type, *, name: str, nested: bool) -> Iterator[bytes]:
    """Yield JSON arrays that together hold the elements of one: cut at a comma, or after an inner array."""
    start, end = 1, len(text) - 1
    while True:
        stop = _end_of_texts(text, start, end, nested=nested) if kind is str else _stop(text, start, end, nested=nested)
        if stop - start > MAX_ROW_BYTES:
            raise Problem(400, f'a row in the data of input "{name}" takes more than {MAX_ROW_BYTES} bytes')
        piece = text[start:stop].strip(_BLANKS)
        if not piece and (start > 1 or stop < end):
            raise Problem(400, _not_elements(name, kind))  # nothing before, between or after commas
        yield b"[" + piece + b"]"
        if stop == end:
            return
        comma = _COMMA.match(text, stop, end)
        if comma:
            start = comma.end()
        elif text[stop:end].strip(_BLANKS):
            raise Problem(400, _not_elements(name, kind))
        else:
            return


async def end_of_texts(text: bytes, start: int) -> int:
    """Return where the JSON array of texts ends that starts there; -1 if it is no such array."""
    nested = text[start + 1 : start + 1 + _MAX_SHOWN].lstrip(_BLANKS).startswith(b"[")
    while True:
        stop = _end_of_texts(text, start + 1, len(text), nested=nested)
        if stop == len(text):
            return -1
        if not (comma := _COMMA.match(text, stop)):
            end = _BRACKET.match(text, stop)
            return end.end() if end else -1
        start = comma.end() - 1
        await asyncio.sleep(0)


def _stop(text: bytes, start: int, end: int, *, nested: bool) -> int:
    """Return where a piece ends of an array without texts."""
    cut = text.find(b"]" if nested else b",", start + PIECE_BYTES, end)
    return end if cut < 0 else cut + nested


def _end_of_texts(text: bytes, start: int, end: int, *, nested: bool) -> int:
    """Return where a piece ends of an array of texts, in which commas and brackets may stand."""
    pattern = NESTED_TEXTS if nested else FLAT_TEXTS
    for most in (PIECE_BYTES, MAX_ROW_BYTES):
        if found := pattern.match(text, start, min(start + most, end)):
            return found.end()
    return end  # what is decoded next is no text


def _decode(piece: bytes, kind: type, width: int, *, name: str) -> list[Any]:
    """Return the elements in a piece: an array of them, or with a `width` of arrays of that many."""
    try:
        if not width:
            flat: list[Any] = _FLAT[kind].decode(piece)
            return flat
        rows: list[list[Any]] = _NESTED[kind].decode(piece)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # Not elements of this kind, or numbers that no float64 can hold, such as 1e999; JSON it is.
        rows = _decode_anything(piece, kind, nested=bool(width), name=name)
        if not width:
            return list(chain.from_iterable(rows))
    for row in rows:
        if len(row) != width:
            raise Problem(400, f'the data of input "{name}" has a row of {len(row)} {_NAMES[kind]}, not {width}')
    return list(chain.from_iterable(rows))


def _decode_anything(piece: bytes, kind: type, *, nested: bool, name: str) -> list[list[Any]]:
    try:
        values: list[Any] = json.loads(piece, parse_int=float if kind is float else _int)
    except (ValueError, RecursionError):
        raise Problem(400, _not_elements(name, kind)) from None
    rows = values if nested else [values]
    if not all(isinstance(row, list) for row in rows):
        raise Problem(400, f'the data of input "{name}" is neither flat nor one array a row')
    if kind is not float:
        return rows
    return [[math.nan if value is None else value for value in row] for row in rows]


def _not_elements(name: str, kind: type) -> str:
    return f'the data of input "{name}" must be an array of {_NAMES[kind]}, or of rows of {_NAMES[kind]}'


def _int(text: str) -> int:
    # int() refuses more than 4,300 digits; no datatype holds more than 20.
    return int(text[: 2 * _MAX_SHOWN])


def _cast(values: list[Any], datatype: str, *, name: str, first: int, width: int) -> Numbers | Words:
    """Return values in their datatype; `first` is the position of the first one in the tensor."""
    kind = _kind_of(datatype)
    if datatype in NUMERIC and set(map(type, values)) <= {kind}:
        try:
            with np.errstate(over="ignore"):  # infinite then, which the validator refuses by name
                return np.array(values, NUMERIC[datatype])
        except OverflowError:
            pass  # an integer beyond its datatype
    for position, value in enumerate(values, first):
        if not _fits(value, datatype):
            place = f"row {position // width}" + (f", column {position % width}" if width > 1 else "")
            what = "a number of type" if datatype in NUMERIC else "an element of type"
            raise Problem(400, f'input "{name}", {place}: {shown_json(value)} is not {what} {datatype}')
    return [*map(present, values)] if datatype == BYTES else values


def _fits(value: object, datatype: str) -> bool:
    kind = _kind_of(datatype)
    if value is None:
        return kind in (bool, str)
    if type(value) is not kind:
        return False
    if kind is not int:
        return True
    limits = np.iinfo(NUMERIC[datatype])
    return bool(limits.min <= value <= limits.max)  # type: ignore[operator]  # an int


def shown_json(value: object) -> str:
    """Return a JSON value for a message: short, and neither a list nor an object."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN:
        return "a number of many digits"
    text = msgspec.json.encode(value).decode() if not isinstance(value, float) else repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


async def from_binary(content: memoryview, datatype: str, shape: tuple[int, int], *, name: str) -> Numbers | Words:
    """Return the tensor in binary data; numbers are not copied.

    Args:
        content: the tensor's own bytes.
        datatype: one of `NUMERIC`, `BOOL` or `BYTES`; the last two for k = 1.
        shape: (n, k), its product small enough for an array.
        name: the tensor's name, for the message.

    Raises:
        Problem: 400, the data has another size than the shape and datatype say, or is JSON or CSV, or is no UTF-8.
    """
    n_rows, width = shape
    if datatype == BYTES:
        return await _texts(content, n_rows, name=name)
    dtype = np.dtype(NUMERIC.get(datatype, "u1"))
    expected = n_rows * width * dtype.itemsize
    if len(content) != expected:
        raise Problem(
            400,
            f'input "{name}" has {len(content)} bytes of data; {n_rows} x {width} {datatype} take {expected}',
        )
    # Of fewer bytes, or whole numbers, text may be what is meant.
    if datatype in ("FP64", "FP32") and (kind := text_kind(content, width)):
        raise Problem(400, f'input "{name}": its binary data is {kind}; send it as "data", in the JSON text')
    numbers = np.frombuffer(content, dtype)
    if datatype != BOOL:
        return numbers.reshape(shape)
    if n_rows and numbers.max() > 1:
        raise Problem(400, f'input "{name}": a boolean is a byte of 0 or 1, not {numbers.max()}')
    booleans: Words = numbers.astype(bool).tolist()
    return booleans


async def _texts(content: memoryview, n_rows: int, *, name: str) -> Words:
    texts: Words = []
    at = 0
    for row in range(n_rows):
        if row and row % PIECE_TEXTS == 0:
            await asyncio.sleep(0)
        start = at + 4
        at = start + int.from_bytes(content[at:start], "little")
        if start > len(content) or at > len(content):
            raise Problem(400, f'input "{name}" has {len(content)} bytes of data; they end within text {row}')
        try:
            texts.append(present(str(content[start:at], "utf-8")))
        except UnicodeError:
            raise Problem(400, f'input "{name}", row {row}: the text is not UTF-8') from None
    if at < len(content):
        raise Problem(400, f'input "{name}" has {len(content)} bytes of data; its {n_rows} texts end at byte {at}')
    return texts
