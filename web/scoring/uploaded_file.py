"""The file that a request brings: its whole body, or one field of a multipart form. Knows nothing of tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header
from starlette.types import Scope

from web.problems import Problem
from web.requests import content_type_of, header_of
from web.scoring.upload import Body

FIELD = b"file"
OPTIONS = (b"decimal", b"thousands", b"encoding")
MOST_OPTION_CHARACTERS = 80  # more of it is none that there is
EXCEL = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PARQUET = b"application/vnd.apache.parquet"
# Of a form that are read in one go: it may have a part in every 50 bytes, which take some 5 ms.
FORM_BYTES = 2**12
_PLAIN = (b"", b"binary", b"8bit", b"7bit")


class UploadedFile:
    """The file that a request brings: its body if that is a table, or the field called "file" of a multipart form.

    Other fields are passed over, but for `OPTIONS`. A second file is refused, even after the first one has been read.

    Attributes:
        options: fields of the form that say how the file is read; those before it are known once it has begun.
        name: what the client calls it, once its first byte has been read; may be empty.
        charset: of the content type; empty if it names none.
        is_parquet: whether the content type says so.

    Raises:
        Problem: on construction: 415, the body is of another kind, or compressed; 400, its form has no boundary.
    """

    def __init__(self, scope: Scope, body: Body) -> None:
        self.name = ""
        self._body = body
        self._pieces = self._read()
        self._first = b""
        media_type, parameters = content_type_of(scope)
        # A file of text may be packed by gzip, and by its first bytes that is known.
        known = (b"", b"identity", *([b"gzip"] if media_type == b"text/csv" else []))
        if header_of(scope, b"content-encoding").lower() not in known:
            raise Problem(415, "a compressed body is not read, but for text/csv by gzip")
        if media_type == b"application/json" or media_type.endswith((b"+json", b"ndjson", b"jsonl")):
            raise Problem(415, 'JSON is no table: send it to /predict as {"samples": […]}, or save it as CSV')
        if media_type not in (b"text/csv", EXCEL, PARQUET, b"multipart/form-data"):
            raise Problem(415, "send text/csv, an Excel or Parquet file, or multipart/form-data with the field file")
        self.is_parquet = media_type == PARQUET
        self.charset = parameters.get(b"charset", b"")
        self._form = _Form(parameters.get(b"boundary", b"")) if media_type == b"multipart/form-data" else None

    @property
    def options(self) -> dict[str, str]:
        return self._form.options if self._form else {}

    async def begin(self) -> None:
        """Read up to the first bytes of the file; errors are those of `chunks`."""
        self._first = await anext(self._pieces, b"")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file as it comes.

        Raises:
            Problem: as `Body.chunks`; 400, the form cannot be read; 422, it has no such field, or several.
            ClientDisconnect: the client has left.
        """
        yield self._first
        async for chunk in self._pieces:
            yield chunk

    async def _read(self) -> AsyncIterator[bytes]:
        async for chunk in self._body.chunks():
            if self._form is None:
                yield chunk
                continue
            pieces: list[bytes] = []
            for start in range(0, len(chunk), FORM_BYTES):
                if start:
                    await self._body.check()
                    await asyncio.sleep(0)
                pieces += self._form.feed(chunk[start : start + FORM_BYTES])
            if pieces:
                self.name = self._form.name
                yield b"".join(pieces)
        if self._form is not None:
            self._form.finish()


class _Form:
    """A multipart form whose one field called "file" is wanted (RFC 7578)."""

    def __init__(self, boundary: bytes) -> None:
        if not boundary:
            raise Problem(400, "the form's content type has no boundary")
        self.name = ""
        self._disposition = self._encoding = b""
        self._header = self._value = b""
        self._files = self._file_bytes = 0
        self._is_wanted = False
        self.options: dict[str, str] = {}
        self._option = ""  # whose value comes
        self._pieces: list[bytes] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                },
            )
        except FormParserError as error:
            raise Problem(400, "the form's boundary is too long") from error

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take a part of the body; yield what it has of the file."""
        self._pieces = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem(400, "the form cannot be read") from error
        yield from self._pieces

    def finish(self) -> None:
        """Check that all of the form has come, and that there was a file in it."""
        if self._parser.state != MultipartState.END:
            raise Problem(400, "the form ends too early")
        if not self._files:
            raise Problem(422, 'the form has no field called "file"')
        if not self._file_bytes and not self.name:
            raise Problem(422, "no file was chosen")

    def _begin(self) -> None:
        self._disposition = self._encoding = b""

    def _header_field(self, chunk: bytes, start: int, end: int) -> None:
        self._header += chunk[start:end]

    def _header_value(self, chunk: bytes, start: int, end: int) -> None:
        self._value += chunk[start:end]

    def _header_end(self) -> None:
        match self._header.lower():
            case b"content-disposition":
                self._disposition = self._value
            case b"content-transfer-encoding":
                self._encoding = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        # Latin-1 keeps the bytes as they are: the parser of this header wants text.
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        name = options.get(b"name", b"")
        self._is_wanted, self._option = name == FIELD, name.decode(errors="replace") if name in OPTIONS else ""
        if self._option and (self._files or self._option in self.options):
            raise Problem(400, f'the field "{self._option}" comes once, and before the file')
        if not self._is_wanted:
            return
        self._files += 1
        if self._files > 1:
            raise Problem(422, 'the form has more than one field called "file"')
        if self._encoding.strip().lower() not in _PLAIN:
            raise Problem(415, "an encoded file is not read")
        self.name = options.get(b"filename", b"").decode(errors="replace")

    def _data(self, chunk: bytes, start: int, end: int) -> None:
        if self._is_wanted:
            self._file_bytes += end - start
            self._pieces.append(chunk[start:end])
        elif self._option:
            value = self.options.get(self._option, "") + chunk[start:end].decode(errors="replace")
            self.options[self._option] = value[:MOST_OPTION_CHARACTERS]
