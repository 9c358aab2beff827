"""The datatypes of the protocol's tensors, and what they are here."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ml.tables.dataset import BOOLEANS, Feature

Numbers = NDArray[Any]
# Booleans and texts, None for no value.
Words = list[str | bool | None]

# The datatypes of numbers, as NumPy writes them: binary data is little-endian.
NUMERIC = {
    "FP64": "<f8",
    "FP32": "<f4",
    "FP16": "<f2",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
}
# The other ones, for a tensor of one feature.
BOOL, BYTES = "BOOL", "BYTES"


def present(text: str | None) -> str | None:
    """Return a text of a tensor; one of nothing is no value, as an empty cell of a table is."""
    return None if text is None or not text or text.isspace() else text


def datatype_of(feature: Feature) -> str:
    """Return the datatype of an input of one feature; a boolean tensor cannot lack values."""
    if not feature.choices:
        return "FP64"
    is_boolean = {choice.lower() for choice in feature.choices} in map(set, zip(*BOOLEANS, strict=True))
    return BOOL if is_boolean and not feature.has_gaps else BYTES
