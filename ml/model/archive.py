"""The archive of a model file: an uncompressed `.npz`, strictly as this project writes it. Knows nothing of models.

Its comment holds the SHA-256 of all bytes before it, so that a damaged file is refused before anything in it is read.
Nothing is decompressed, so no size can grow.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import zipfile
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ml.errors import ModelFileError, shown

# The list of members, at the archive's end, has some 60 bytes for each. zipfile makes an object of each before anybody
# can count them: a million took half a gigabyte.
MAX_DIRECTORY_BYTES = 65_536
# An array without bytes may still claim any number of columns, as many as its model has or more.
MAX_EMPTY = 2**20

_COMMENT = b"sha256:"
_DIGEST_BYTES = 64
# The end record of an archive (APPNOTE.TXT, section 4.3.16), and the mark of the one of a larger archive before it.
_END = struct.Struct("<4s8xLLH")
_END_MARK = b"PK\x05\x06"
_LARGE_END_BYTES = 20
_LARGE_END_MARK = b"PK\x06\x07"
# The header that `dump` writes, and nothing else. NumPy's parser reads a header as Python source: crafted ones leave it
# by eight kinds of exceptions and two warnings.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?s:..)\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,10}, ?){0,3}[0-9]{0,10})\), \} *\n"
)


def dump(members: Mapping[str, bytes]) -> bytes:
    """Return an archive of these members, in their order. The same members give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as opened:
        for name, content in members.items():
            opened.writestr(zipfile.ZipInfo(name), content)  # without a date it is 1980-01-01: no clock in the bytes
        opened.comment = _COMMENT + b"0" * _DIGEST_BYTES
    signed = buffer.getvalue()[:-_DIGEST_BYTES]
    return signed + hashlib.sha256(signed).hexdigest().encode()


def npy_of(array: NDArray[Any]) -> bytes:
    """Return an array as an `.npy` member."""
    member = io.BytesIO()
    npy.write_array(member, array, version=(1, 0), allow_pickle=False)
    return member.getvalue()


def parse(content: bytes, *expected: Collection[str]) -> tuple[dict[str, bytes], str]:
    """Return the archive's members by name, and the SHA-256 of all of it in hex digits.

    The members are those of one of the expected sets and nothing else, none compressed.

    Raises:
        ModelFileError: one sentence that names what is wrong.
    """
    signed, digest = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not content.startswith(b"PK\x03\x04") or len(content) <= _DIGEST_BYTES:
        raise ModelFileError("not a model file: it is no .npz archive")
    hashed = hashlib.sha256(signed)
    if hashed.hexdigest().encode() != digest:
        raise ModelFileError(
            "the checksum does not match: the file is damaged, incomplete or not written by this project"
        )
    hashed.update(digest)
    _check_end(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            entries = opened.infolist()
            names = [entry.filename for entry in entries]
            if sorted(names) not in map(sorted, expected):
                unlike = set(names).symmetric_difference(expected[0])
                raise ModelFileError(f"the archive's members are not a model's: {shown(sorted(unlike) or names)}")
            if len({entry.header_offset for entry in entries}) < len(entries):
                raise ModelFileError("the archive cannot be read: two of its members share their bytes")
            for entry in entries:
                # file_size == compress_size bounds what is read by the size of the file itself.
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise ModelFileError(f"{entry.filename} is compressed, which a model file never is")
            return {entry.filename: opened.read(entry) for entry in entries}, hashed.hexdigest()
    # zipfile documents BadZipFile alone, but crafted headers reach its parser as any of these.
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise ModelFileError(f"the archive cannot be read: {shown(error)}") from error


def _check_end(content: bytes) -> None:
    """Refuse an archive by its end record: zipfile makes an object of each entry before it can be asked for any."""
    place = len(content) - _END.size - len(_COMMENT) - _DIGEST_BYTES
    if content.rfind(_END_MARK, max(0, place)) != place:
        raise ModelFileError("the archive cannot be read: it does not end as a model file does")
    _, size, _, n_comment = _END.unpack_from(content, place)
    is_large = content.startswith(_LARGE_END_MARK, max(0, place - _LARGE_END_BYTES))
    if size > MAX_DIRECTORY_BYTES or n_comment != len(content) - place - _END.size or is_large:
        raise ModelFileError(
            f"the archive's list of members takes {size} bytes, at most {MAX_DIRECTORY_BYTES} are read"
        )


def array(name: str, encoded: bytes, *, dtype: str, ndim: int, has_order: bool = False) -> NDArray[Any]:
    """Return the array in an `.npy` member without ever allocating what its header merely claims.

    Args:
        has_order: whether it may be stored column after column.
    """
    header = _NPY_HEADER.match(encoded)
    if header is None or int.from_bytes(encoded[8:10], "little") != header.end() - 10:
        raise ModelFileError(f"{name} is not an array as a model file has it: {shown(encoded[:80])}")
    found, order = header[1].decode("latin1"), header[2]
    if found != dtype or (order != b"False" and not has_order):
        raise ModelFileError(f"{name} holds {shown(found)}, not {dtype} in C order")
    shape = tuple(int(size) for size in header[3].split(b",") if size.strip())
    if len(shape) != ndim:
        raise ModelFileError(f"{name} has {len(shape)} dimensions, not {ndim}")
    body = memoryview(encoded)[header.end() :]
    if math.prod(shape) * np.dtype(dtype).itemsize != len(body) or max(shape) > max(len(body), MAX_EMPTY):
        raise ModelFileError(f"{name} has shape {shown(shape)}, which does not fit its {len(body)} bytes")
    return np.frombuffer(body, dtype=dtype).reshape(shape, order="C" if order == b"False" else "F")
