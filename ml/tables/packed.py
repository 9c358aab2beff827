"""What a file has packed by gzip or zip, in pieces of bounded size. Knows nothing of what is in it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from ml.errors import TableError
from ml.tables.filekind import FileKind
from ml.tables.table import Bounds

# The size of one read, and of one piece.
READ_BYTES = 2**18
# What is not unpacked yet is copied with each piece: so much of it is taken at once.
_TAKEN_BYTES = 2**14
_GZIP = zlib.MAX_WBITS | 16
# What archives have besides the file that was packed.
_NO_FILES = ("__MACOSX/", ".DS_Store")
_SHOWN_MEMBERS = 5


class Gunzip:
    """Takes a gzip file as it comes, of one member or several (RFC 1952), and returns what is packed in it."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._is_between = True  # members

    def feed(self, content: bytes) -> Iterator[bytes]:
        """Yield what this completes, in pieces of at most `READ_BYTES`; there may be nothing in one.

        Raises:
            TableError: it is damaged.
        """
        for start in range(0, len(content), _TAKEN_BYTES):
            left, has_more = content[start : start + _TAKEN_BYTES], False
            while left or has_more:
                if self._is_between and not (left := left.lstrip(b"\0")):
                    break  # zeros may follow a member
                piece = self._piece(left)
                has_more = len(piece) == READ_BYTES
                left = self._member.unconsumed_tail or self._member.unused_data
                self._is_between = self._member.eof
                if self._is_between:
                    self._member = zlib.decompressobj(_GZIP)
                yield piece

    def finish(self) -> None:
        """Check that all of it has come.

        Raises:
            TableError: it ends too early.
        """
        if not self._is_between:
            raise TableError("the gzip file is damaged: it ends too early")

    def _piece(self, content: bytes) -> bytes:
        try:
            return self._member.decompress(content, READ_BYTES)
        except zlib.error as error:
            raise TableError(f"the gzip file is damaged: {error}") from error


def unpacked(file: IO[bytes], kind: FileKind, start: bytes = b"") -> Iterator[bytes]:
    """Yield what a file has packed, or what it has, as it comes.

    Args:
        start: what was read of it before; nothing of a zip file, which is read from its end.

    Raises:
        TableError: there are several files in it, or it is damaged.
    """
    if kind == "zip":
        yield from _unzipped(file)
        return
    gunzip = Gunzip() if kind == "gzip" else None
    content = start or file.read1(READ_BYTES)  # type: ignore[attr-defined]  # files that are buffered have it
    while content:
        yield from gunzip.feed(content) if gunzip else [content]
        content = file.read1(READ_BYTES)  # type: ignore[attr-defined]  # as above
    if gunzip:
        gunzip.finish()


def _unzipped(file: IO[bytes]) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(only_member(archive)) as member:
            while content := member.read(READ_BYTES):
                yield content
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise TableError(f"the zip file is damaged: {error}") from error
    except (NotImplementedError, RuntimeError) as error:
        raise TableError(f"the zip file cannot be unpacked: {error}") from error


def only_member(archive: zipfile.ZipFile) -> str:
    """Return the name of the file in a zip file.

    Raises:
        TableError: there are none, or several.
    """
    names = [name for name in archive.namelist() if not name.endswith("/") and not _is_no_file(name)]
    if len(names) == 1:
        return names[0]
    if not names:
        raise TableError("the zip file is empty")
    shown = ", ".join(map(repr, names[:_SHOWN_MEMBERS])) + (", …" if len(names) > _SHOWN_MEMBERS else "")
    raise TableError(f"the zip file has {len(names)} files, {shown}: unpack the one with the table")


def _is_no_file(name: str) -> bool:
    return name.startswith(_NO_FILES) or name.rpartition("/")[2] in _NO_FILES


def bounded(chunks: Iterator[bytes], bounds: Bounds) -> Iterator[bytes]:
    """Yield what comes.

    Raises:
        TableError: it is more than `max_bytes`.
    """
    came = 0
    for chunk in chunks:
        came += len(chunk)
        if came > bounds.max_bytes:
            raise TableError(f"larger than {bounds.max_bytes} bytes")
        yield chunk
