"""The elements of a tensor in binary data: numbers, booleans and texts. Knows no model.

It is little-endian and row-major without padding; text is its length in 4 bytes, then UTF-8 (the protocol's binary
tensor data extension: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import asyncio

import numpy as np

from web.oip.datatypes import BOOL, BYTES, NUMERIC, Numbers, Words, present
from web.problems import Problem
from web.requests import text_kind

# Of binary texts so many are read in one go, about a millisecond.
PIECE_TEXTS = 2_048


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
