"""The file in the body of a request, as it comes: plain, or one field of a multipart form. Knows nothing of tables."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from web.problems import Problem
from web.requests import content_type_of, header_of
from web.responses import CHECK

logger = logging.getLogger("web")

FIELD = b"file"
# How long an answer waits for its reader until the upload is read ahead.
PATIENCE_S = 0.25
READ_BYTES = 2**16
# Of a form that are read in one go: it may have a part in every 50 bytes, which take some 5 ms.
FORM_BYTES = 2**12
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")
_PLAIN = (b"", b"binary", b"8bit", b"7bit")


class Spool:
    """The bytes of all uploads of a process that wait on disk.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0


class Body:
    """The body of a request, in order, and the sending of its answer while it comes.

    It is read when it is asked for, and also while the answer waits for its reader: browsers and most HTTP libraries
    read nothing until they have sent everything, so that each side would wait for the other for ever. What is read
    ahead goes into a temporary file that has no name; when `spool` has no room, nothing is read ahead.

    Args:
        max_bytes: of the whole body.
    """

    def __init__(self, receive: Receive, send: Send, *, max_bytes: int, spool: Spool) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._spool = spool
        self._came = 0
        self._is_whole = False
        self._incoming: asyncio.Task[Message] | None = None
        self._file: IO[bytes] | None = None
        self._written = self._read = 0  # bytes of the file

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._incoming is not None:
            self._incoming.cancel()
            await asyncio.wait({self._incoming})
        if self._file is not None:
            self._spool.taken -= self._written
            self._file.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            Problem: 413, it is too large; 503, the disk is full.
            ClientDisconnect: the client has left.
        """
        while True:
            if self._written:
                yield await self._from_file()
            elif not self._is_whole:
                yield self._taken(await self._arrival())
            else:
                return

    async def skip(self) -> None:
        """Read all that is left and forget it; errors are those of `chunks`."""
        async for _ in self.chunks():
            pass

    async def send(self, message: Message) -> None:
        """Send a part of the answer, and read ahead while that has to wait.

        Raises:
            Problem, ClientDisconnect: as `chunks`.
        """
        sending = asyncio.ensure_future(self._send(message))
        try:
            await asyncio.wait({sending}, timeout=PATIENCE_S)
            while not sending.done():
                arrival = self._arrival()
                may_read = not self._is_whole and self._spool.taken < self._spool.most
                # Room on the disk is not announced.
                await asyncio.wait(
                    {sending, arrival} if may_read else {sending},
                    timeout=PATIENCE_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if may_read and arrival.done():
                    await self._to_file(self._taken(arrival.result()))
            sending.result()
        finally:
            sending.cancel()
        await self.check()

    async def check(self) -> None:
        """Raise ClientDisconnect if the client has left: then nobody wants the rest."""
        await self._send({"type": CHECK})

    def _arrival(self) -> asyncio.Task[Message]:
        if self._incoming is None:
            self._incoming = asyncio.ensure_future(self._receive())
        return self._incoming

    def _taken(self, message: Message) -> bytes:
        self._incoming = None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        content: bytes = message.get("body", b"")
        self._came += len(content)
        if self._came > self._max_bytes:
            raise too_large(self._max_bytes)
        self._is_whole = not message.get("more_body", False)
        return content

    async def _to_file(self, content: bytes) -> None:
        if not content:
            return
        self._written += len(content)
        self._spool.taken += len(content)
        try:
            await asyncio.to_thread(self._write, content)
        except OSError as error:
            logger.warning("an upload cannot wait on disk: %s", error.strerror)
            raise Problem(503, "no room on the server's disk: try again later", retry_after_s=1) from error

    def _write(self, content: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed when the body is left
        self._file.seek(self._written - len(content))
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]

    async def _from_file(self) -> bytes:
        assert self._file is not None
        content = await asyncio.to_thread(self._read_at, self._file, self._read)
        self._read += len(content)
        if self._read == self._written:
            self._spool.taken -= self._written
            self._read = self._written = 0
            self._file.truncate(0)
        return content

    @staticmethod
    def _read_at(file: IO[bytes], start: int) -> bytes:
        file.seek(start)
        return file.read(READ_BYTES)


def too_large(max_bytes: int) -> Problem:
    """Return the problem of an upload of more than so many bytes."""
    return Problem(413, f"the upload has more than {max_bytes} bytes")


class UploadedFile:
    """The file that a request brings: its body if that is CSV, or the field called "file" of a multipart form.

    Other fields are passed over. A second field of that name is refused, even after the first one has been read.

    Attributes:
        name: what the client calls it, once its first byte has been read; may be empty.

    Raises:
        Problem: on construction: 415, the body is of another kind, or compressed; 400, its form has no boundary.
    """

    def __init__(self, scope: Scope, body: Body) -> None:
        self.name = ""
        self._body = body
        if header_of(scope, b"content-encoding") not in (b"", b"identity"):
            raise Problem(415, "a compressed body is not read")
        media_type, parameters = content_type_of(scope)
        if media_type not in (b"text/csv", b"multipart/form-data"):
            raise Problem(415, "send text/csv, or multipart/form-data with the field file")
        if parameters.get(b"charset", b"utf-8").lower() not in _CHARSETS:
            raise Problem(415, "a file is UTF-8")
        self._form = _Form(parameters.get(b"boundary", b"")) if media_type == b"multipart/form-data" else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file as it comes.

        Raises:
            Problem: as `Body.chunks`; 400, the form cannot be read; 422, it has no such field, or several.
            ClientDisconnect: the client has left.
        """
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
        self._is_wanted = options.get(b"name") == FIELD
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
