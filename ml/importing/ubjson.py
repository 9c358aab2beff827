"""Universal Binary JSON (ubjson.org, draft 12) as XGBoost writes it, with typed arrays as NumPy arrays."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ml.errors import ModelFileError

MAX_DEPTH = 32
# Values outside of typed arrays.
MAX_VALUES = 5_000_000
_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_FORMATS = {kind: struct.Struct(">" + code) for kind, code in zip(_NUMBERS, "bBhiqfd", strict=True)}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}


def parse(content: bytes) -> Any:
    """Return the value in these bytes.

    Raises:
        ModelFileError: they are not UBJSON, or nested too deeply.
    """
    reader = _Reader(content)
    value = reader.value(reader.take(1), 0)
    if reader.place != len(content):
        raise ModelFileError("the UBJSON goes on after its end")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._n_values = 0
        self.place = 0

    def take(self, size: int) -> bytes:
        taken = self._content[self.place : self.place + size]
        if size < 0 or len(taken) != size:
            raise ModelFileError(f"the UBJSON is cut off at byte {self.place}")
        self.place += size
        return taken

    def value(self, kind: bytes, depth: int) -> Any:
        self._n_values += 1
        if depth > MAX_DEPTH or self._n_values > MAX_VALUES:
            raise ModelFileError(f"the UBJSON is nested deeper than {MAX_DEPTH}, or has too many values")
        if kind in _FORMATS:
            return _FORMATS[kind].unpack(self.take(_FORMATS[kind].size))[0]
        if kind in (b"S", b"H"):
            return self._text()
        if kind == b"C":
            return self.take(1).decode("latin-1")
        if kind == b"[":
            return self._array(depth)
        if kind == b"{":
            return self._object(depth)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        raise ModelFileError(f"the UBJSON has an unknown type at byte {self.place - 1}")

    def _length(self) -> int:
        kind = self.take(1)
        if kind not in _FORMATS or kind in (b"d", b"D"):
            raise ModelFileError(f"the UBJSON has a length that is no whole number at byte {self.place - 1}")
        length: int = _FORMATS[kind].unpack(self.take(_FORMATS[kind].size))[0]
        if not 0 <= length <= len(self._content) - self.place:
            raise ModelFileError(f"the UBJSON has a length beyond its end at byte {self.place}")
        return length

    def _text(self) -> str:
        return self.take(self._length()).decode("utf-8", "replace")

    def _header(self) -> tuple[bytes, int]:
        """Return the type and the number of a container's items; b"" and -1 where they are not given."""
        kind, length = b"", -1
        if self._content[self.place : self.place + 1] == b"$":
            self.place += 1
            kind = self.take(1)
        if self._content[self.place : self.place + 1] == b"#":
            self.place += 1
            length = self._length()
        if kind and (kind not in _NUMBERS or length < 0):
            raise ModelFileError(f"the UBJSON has an array of an unknown type at byte {self.place}")
        return kind, length

    def _array(self, depth: int) -> Any:
        kind, length = self._header()
        if kind:
            dtype = np.dtype(_NUMBERS[kind])
            numbers = np.frombuffer(self.take(length * dtype.itemsize), dtype=dtype)
            return numbers.astype(dtype.newbyteorder("="))
        items = list[Any]()
        while len(items) != length and (mark := self.take(1)) != b"]":
            items.append(self.value(mark, depth + 1))
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        kind, length = self._header()
        if kind:
            raise ModelFileError(f"the UBJSON has an object of one type at byte {self.place}")
        members = dict[str, Any]()
        n_members = 0
        while n_members != length:
            if length < 0 and self._content[self.place : self.place + 1] == b"}":
                self.place += 1
                break
            name = self._text()
            members[name] = self.value(self.take(1), depth + 1)
            n_members += 1
        return members
