"""Which kind of file it is, by its first bytes or characters, and that of a zip file by the names in it."""

from __future__ import annotations

import re
import zipfile
from typing import IO, Literal

from ml.errors import TableError

# What is no text, and is read all the same.
FileKind = Literal["zip", "gzip", "parquet", "text"]

# How these files start, as text in which bytes that are not UTF-8 are lone surrogates ("surrogateescape").
_STARTS = (
    ("\udcff\udcfe", "UTF-16 text: save it as UTF-8"),
    ("\udcfe\udcff", "UTF-16 text: save it as UTF-8"),
    ("PK\x03\x04", "this is an Excel file or another zip archive: save the table as CSV"),
    ("\udcd0\udccf\x11", "this is an old Excel file: save the table as CSV"),
    ("PAR1\x15", "this is a Parquet file: save the table as CSV"),
    ("ARROW1\0", "this is an Arrow file: save the table as CSV"),
    ("\udc89PNG", "this is an image"),
    ("\udcff\udcd8\udcff", "this is an image"),
    ("GIF8", "this is an image"),
    ("@relation ", "this is an ARFF file: save the table as CSV"),
    ("%PDF-", "this is a PDF file: save the table as CSV"),
    ("\x1f\udc8b", "this is a gzip file: unpack it"),
    ("BZh91AY&SY", "this is a bzip2 file: unpack it"),
    ("\udcfd7zXZ\0", "this is an xz file: unpack it"),
    ("(\udcb5/\udcfd", "this is a Zstandard file: unpack it"),
)
_PACKED: dict[bytes, FileKind] = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"PAR1": "parquet"}
START_BYTES = 4
# An object with a member, or an array of objects, arrays or text, in one line or more; no header has such brackets.
_JSON = re.compile(r'\s*+(?:\{\s*+(?:"|$)|\[\s*+(?:[\[{"]|$))')
_HTML = re.compile(r"\s*+<(?:!doctype html|html)\b", re.IGNORECASE)
_LOOKED_AT = 64
_OFFICE = {
    "xl/workbook.bin": "a binary Excel file (.xlsb): save it as .xlsx",
    "word/document.xml": "a Word document: save the table as CSV",
    "ppt/presentation.xml": "a presentation: save the table as CSV",
    "content.xml": "an OpenDocument file: save the table as .xlsx or CSV",
}


def kind_of(start: bytes) -> FileKind:
    """Return the kind of a file that starts with these `START_BYTES`; a file of any unknown kind may be text."""
    return _PACKED.get(start, _PACKED.get(start[:2], "text"))


def is_json(start: str) -> bool:
    """Tell whether text starts as JSON does."""
    return _JSON.match(start[:_LOOKED_AT]) is not None


def refuse_other_files(start: str) -> None:
    """Do nothing if this may be the start of CSV text.

    Args:
        start: the first line; more or less of it will do as well.

    Raises:
        TableError: it starts as another kind of file does, which the message names.
    """
    for mark, message in _STARTS:
        if start.startswith(mark):
            raise TableError(message)
    if is_json(start):
        raise TableError("this is JSON: save the table as CSV")
    if _HTML.match(start[:_LOOKED_AT]):
        raise TableError("this is an HTML page: save the table as CSV")
    if "\0" in start:
        # Western text in UTF-16 has a zero in each of its pairs of bytes, always in the same place.
        head = start[:_LOOKED_AT]
        is_utf_16 = ({*head[::2]} == {"\0"}) != ({*head[1::2]} == {"\0"})
        raise TableError("UTF-16 text: save it as UTF-8" if is_utf_16 else "not text")


def is_workbook(file: IO[bytes]) -> bool:
    """Tell whether a zip file is an Excel file. Each name in it takes memory: a stranger's is for a confined process.

    Raises:
        TableError: it is of another office program.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise TableError(f"the zip file is damaged: {error}") from error
    file.seek(0)
    for name, kind in _OFFICE.items():
        if name in names:
            raise TableError(f"this is {kind}")
    return "xl/workbook.xml" in names
