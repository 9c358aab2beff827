"""Bytes become text: UTF-8, UTF-16 or what is asked for. Knows nothing of tables."""

from __future__ import annotations

import codecs
import re

from ml.errors import TableError, in_quotes

_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# Western text in UTF-16 has a zero in each of its pairs of bytes, always in the same place.
_START_BYTES = 4
_PAIRS = {(False, True): "utf-16-le", (True, False): "utf-16-be"}
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
# Encodings in which text has its size again when it is encoded, and is decoded in linear time. Python remembers each
# name that it was asked for, so there are not many of them.
_NAMES = re.compile(
    r"utf-?8(?:-sig)?|utf-?16(?:-?[lb]e)?|(?:us-)?ascii|latin-?[0-9]{1,2}|(?:cp|windows)-?[0-9]{3,4}"
    r"|iso-?8859-?[0-9]{1,2}|koi8-?[rtu]|mac-?[a-z]{5,9}|s(?:hift)?-?jis|gb(?:2312|k|18030)|big5|euc-?(?:jp|kr)"
)


class TextDecoder:
    """Takes bytes, and returns the text that they complete.

    Where the encoding is not named, what is not UTF-8 passes as lone surrogates ("surrogateescape"), which `understood`
    reads, and wrong pairs of UTF-16 become U+FFFD; else they are errors.

    Args:
        encoding: the text's; empty finds out UTF-16 by its mark or its zeros, and takes anything else for UTF-8.
        found: the encoding that was found out in the text before this one, which goes on.

    Attributes:
        encoding: empty until it is known.
        line: how many line feeds came, and one.
        first_odd_line: the first line with bytes that are not UTF-8, counted from 1; 0 if there is none.

    Raises:
        TableError: on construction, there is no such encoding.
    """

    def __init__(self, encoding: str = "", *, found: str = "") -> None:
        self.encoding = ""
        self.line = 1
        self.first_odd_line = 0
        self._start = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        # Which of both it is has to be found out, unless it is said.
        self._is_utf_16 = encoding in ("utf-16", "utf16", "utf_16")
        self._is_named = bool(encoding)
        if found:
            self._begin(found)
        elif encoding and not self._is_utf_16:
            self._begin(encoding)

    @property
    def held(self) -> int:
        """How many bytes at the end are not text yet."""
        return len(self._start) if self._decoder is None else len(self._decoder.getstate()[0])

    def decode(self, content: bytes, *, final: bool = False) -> str:
        """Return the text that is complete by now.

        Raises:
            TableError: it is not of the encoding that was asked for.
        """
        if self._decoder is None:
            self._start += content
            if len(self._start) < _START_BYTES and not final:
                return ""
            content, self._start = self._start, b""
            found = _found(content[:_START_BYTES])
            self._begin("utf-16-le" if self._is_utf_16 and found == "utf-8" else found)
        assert self._decoder is not None
        try:
            text = self._decoder.decode(content, final)
        except UnicodeDecodeError as error:
            line = self.line + error.object.count(b"\n", 0, error.start)
            raise TableError(
                f"line {line}: byte {error.object[error.start]:#04x} is not {self.encoding} text"
            ) from error
        except UnicodeError as error:
            raise TableError(f"not {self.encoding} text: {error}") from error
        if not self.first_odd_line and not text.isascii() and (odd := _NOT_UTF_8.search(text)):
            self.first_odd_line = self.line + text.count("\n", 0, odd.start())
        self.line += text.count("\n")
        return text

    def size_of(self, text: str) -> int:
        """Return how many bytes text was that came out of `decode`."""
        return len(text.encode(self.encoding or "utf-8", "surrogateescape"))

    def _begin(self, encoding: str) -> None:
        errors = "strict" if self._is_named else "surrogateescape" if encoding == "utf-8" else "replace"
        try:
            "".encode(encoding)  # which refuses what makes bytes of bytes, as zlib does
            self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        except (LookupError, ValueError) as error:
            raise TableError(f"there is no encoding called {encoding!r}") from error
        self.encoding = encoding


def encoding_named(name: str) -> str:
    """Return the name that Python gives to an encoding, by one that a stranger gives to it; empty for none.

    Raises:
        TableError: there is no such encoding, or none in which a file could be resumed.
    """
    plain = name.strip().lower().replace("_", "-")
    if not plain:
        return ""
    try:
        if not _NAMES.fullmatch(plain):
            raise LookupError(plain)
        return codecs.lookup(plain).name.removesuffix("-sig")
    except LookupError as error:
        raise TableError(f"there is no encoding called {in_quotes(name)}, or it is not read here") from error


def _found(start: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    pairs = {(high == 0, low == 0) for high, low in zip(start[::2], start[1::2], strict=False)}
    return _PAIRS.get(next(iter(pairs)), "utf-8") if len(pairs) == 1 else "utf-8"


def encoding_said(decoder: TextDecoder) -> list[str]:
    """Return what was found out of the encoding of a text that has come, one sentence each; plain UTF-8 is not said."""
    said = ["the text is UTF-16"] if decoder.encoding.startswith("utf-16") else []
    if decoder.first_odd_line:
        said.append(
            f"bytes that are not UTF-8, the first on line {decoder.first_odd_line}, are read as Windows-1252: "
            "--encoding names another encoding"
        )
    return said


def is_utf_8(text: str) -> bool:
    """Tell whether text from a `TextDecoder` has no bytes that are not UTF-8."""
    return text.isascii() or not _NOT_UTF_8.search(text)


def as_text(text: str) -> str:
    """Return text for JSON and files: question marks stand for what is no text in a cell, or in the name of a file."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def understood(cell: str) -> str:
    """Return a cell in which bytes that are not UTF-8 are read as Windows-1252, or else as Latin-1."""
    if is_utf_8(cell):
        return cell
    content = cell.encode("utf-8", "surrogateescape")
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")
