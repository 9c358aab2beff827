"""A file becomes a table with predictions, a slice at a time: what POST /score and WS /score share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel
from ml.scoring.layout import Place
from ml.scoring.rows import Part
from ml.scoring.text import Scorer
from ml.tables.encoding import TextDecoder, as_text
from ml.tables.filekind import START_BYTES, kind_of
from ml.tables.marks import Marks
from ml.tables.packed import Gunzip
from web.api import threads
from web.metrics.channel import Channel, outcomes_of
from web.problems import Problem
from web.scoring.resume import Resume
from web.scoring.upload import Spool, too_large
from web.scoring.workbook import Workbook
from web.settings import Settings

# Text that is read in one go takes about a millisecond; more of it comes in larger pieces, each in a thread.
SLICE_CHARACTERS = 2**14
PIECE_CHARACTERS = 2**18
# Cells that leave in one go: a thread keeps the interpreter while it reads their numbers, for a millisecond.
PART_CELLS = 2**15


class OpenFiles:
    """The files that a process scores, and what they share: number, greatest size, turns and disk."""

    def __init__(self, settings: Settings) -> None:
        self.max_bytes = settings.max_upload_bytes
        self.spool = Spool(settings.max_spool_bytes)
        self.max_table_bytes = settings.max_table_bytes
        # One process at a time reads a file that is no text.
        self.process_turn = asyncio.Lock()
        self._most = settings.max_uploads
        self._open = 0
        # One slice of one file in each turn of the event loop, however many there are.
        self._turn = asyncio.Lock()

    def workbook(self) -> Workbook:
        """Return a place for an Excel file."""
        return Workbook(max_bytes=self.max_table_bytes, spool=self.spool, turn=self.process_turn)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count a file among the open ones.

        Raises:
            Problem: 503, there are too many.
        """
        if self._open >= self._most:
            raise Problem(503, "too many files are being scored: try again later", retry_after_s=1)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def next_of(self, parts: Iterator[Part], *, in_thread: bool) -> Part | None:
        """Return the next part, made in a thread or when it is this file's turn; None if there is none."""
        if in_thread:
            return await threads.in_thread(next, parts, None)
        async with self._turn:
            part = next(parts, None)
            await asyncio.sleep(0)
        return part


class ScoredFile:
    """One file, that comes as bytes in pieces of any size; see `Scorer` for its table. What is in it is counted.

    Text is scored as it comes, packed by gzip or not, an Excel or zip file when all of it has come. It is closed when
    it is no longer needed.

    Args:
        resume: go on there.
        encoding: of text; empty finds it out.
        strict, marks: as for `Scorer`.

    Attributes:
        model: answers; another one may be put in its place, see `use`.
        read: how many bytes of the file are scored: those before the first row that is not complete; of an Excel or
            gzip file none until it is finished.

    Raises:
        OtherAnswers: as `Scorer`.
    """

    def __init__(
        self,
        model: LoadedModel,
        open_files: OpenFiles,
        channel: Channel,
        *,
        resume: Resume | None = None,
        encoding: str = "",
        strict: bool = False,
        marks: Marks | None = None,
    ) -> None:
        self.model = model
        self._open_files = open_files
        self._channel = channel
        place = resume.place if resume else None
        self._scorer = Scorer(
            model, max_cells=PART_CELLS, guarded=True, strict=strict, place=place, marks=marks, predict=self._predict
        )
        # What a part's rows were answered, which is counted by the event loop.
        self._answered: list[tuple[LoadedModel, NDArray[np.float64], NDArray[Any], float]] = []
        self._decoder = TextDecoder(encoding, found=resume.encoding if resume else "")
        self._start = b""  # of a file that may be of any kind
        self._is_text = place is not None
        self._workbook: Workbook | None = None
        self._gunzip = Gunzip() if resume and resume.is_gzip else None
        self._is_finished = False
        self._scored = resume.read if resume else 0  # bytes of text, before this connection
        self._came = self._text_bytes = 0 if self._gunzip else self._scored
        self._tail = ""  # the text that belongs to a row that is not complete

    @property
    def read(self) -> int:
        if self._workbook is not None or self._gunzip is not None:
            return self._came if self._is_finished else 0
        return self.resume.read if self.resume else 0

    @property
    def resume(self) -> Resume | None:
        """Where the file can go on, once its header is known; None of an Excel file."""
        if self.place is None or self._workbook is not None:
            return None
        read = self._text_bytes - self._decoder.size_of(self._tail) - self._decoder.held
        return Resume(max(read, self._scored), self.place, self._decoder.encoding, self._gunzip is not None)

    @property
    def place(self) -> Place | None:
        """Where the first row starts that is not complete; None while the header is not."""
        return self._scorer.place

    def close(self) -> None:
        """Free what the file takes on disk."""
        if self._workbook is not None:
            self._workbook.close()

    def use(self, model: LoadedModel) -> None:
        """Score what follows by another model.

        Raises:
            OtherAnswers: as `Scorer.use`.
        """
        self.model = model
        self._scorer.use(model)

    async def feed(self, content: bytes) -> AsyncIterator[Part]:
        """Take bytes, and yield what is complete by now, in parts that may have no text.

        Raises:
            Problem: 413, the file is too large; 503, it is an Excel file, and there is no room for it.
            TableError: as `Scorer.feed`.
        """
        self._came += len(content)
        if self._came > self._open_files.max_bytes:
            raise too_large(self._open_files.max_bytes)
        if not self._is_text and self._workbook is None:
            content, self._start = self._start + content, b""
            if len(content) < START_BYTES:
                self._start = content
                return
            kind = kind_of(content[:START_BYTES])
            if kind == "parquet":
                raise TableError("this is a Parquet file: save it as CSV, or post it as application/vnd.apache.parquet")
            self._is_text = kind != "zip"
            if not self._is_text:
                self._workbook = self._open_files.workbook()
            elif kind == "gzip":
                self._gunzip = Gunzip()
        if self._workbook is not None:
            await self._workbook.add(content)
            return
        parts = self._feed_pieces(self._gunzip.feed(content)) if self._gunzip else self._feed_bytes(content)
        async for part in parts:
            yield part

    async def _feed_pieces(self, pieces: Iterator[bytes]) -> AsyncIterator[Part]:
        most = self._open_files.max_table_bytes
        while (piece := await threads.in_thread(next, pieces, None)) is not None:
            yield Part("", 0)
            passed = min(len(piece), max(0, self._scored - self._text_bytes))
            self._text_bytes += passed
            if self._text_bytes + len(piece) - passed > most:
                raise TableError(f"larger than {most} bytes, unpacked")
            async for part in self._feed_bytes(piece[passed:]):
                yield part

    async def _feed_bytes(self, content: bytes) -> AsyncIterator[Part]:
        self._text_bytes += len(content)
        async for part in self._feed(self._decoder.decode(content)):
            yield part

    async def finish(self) -> AsyncIterator[Part]:
        """Yield what is left: no more bytes come. Errors are those of `Scorer.take` and `Scorer.finish`."""
        parts = self._finish_text() if self._workbook is None else self._finish_workbook(self._workbook)
        async for part in parts:
            yield part
        self._is_finished = True

    async def _finish_workbook(self, workbook: Workbook) -> AsyncIterator[Part]:
        async for block in workbook.blocks():
            yield Part("", 0)
            if block.rows:
                async for part in self._parts(self._scorer.take(block), in_thread=True):
                    yield part
        if (pieces := workbook.packed_text()) is not None:
            async for part in self._feed_pieces(pieces):
                yield part
            async for part in self._finish_text():
                yield part

    async def _finish_text(self) -> AsyncIterator[Part]:
        if self._gunzip:
            self._gunzip.finish()
        self._text_bytes += len(self._start)
        async for part in self._feed(self._decoder.decode(self._start, final=True)):
            yield part
        has_begun = self.place is not None
        async for part in self._parts(self._scorer.finish(), in_thread=False):
            if not has_begun and self.place is not None:
                has_begun = True
                self._keep_tail()
            yield part
        self._tail = ""

    def last_row(self, message: str) -> bytes:
        """Return a row with nothing but a message; no bytes if there is no header above it."""
        return utf8_of(self.place.last_row(message, guarded=True)) if self.place else b""

    async def _feed(self, text: str) -> AsyncIterator[Part]:
        for start in range(0, len(text), PIECE_CHARACTERS):
            piece = text[start : start + PIECE_CHARACTERS]
            self._tail += piece
            async for part in self._parts(self._scorer.feed(piece), in_thread=len(piece) > SLICE_CHARACTERS):
                yield part
            self._keep_tail()

    def _keep_tail(self) -> None:
        self._tail = self._tail[len(self._tail) - self._scorer.held_characters :]

    async def _parts(self, parts: Iterator[Part], *, in_thread: bool) -> AsyncIterator[Part]:
        """Yield parts, and count what is in them."""
        while (part := await self._open_files.next_of(parts, in_thread=in_thread)) is not None:
            for model, rows, outcomes, seconds in self._answered:
                self._channel.model_time(seconds)
                self._channel.many(model, rows, outcomes)
            self._answered.clear()
            for row in part.bad:
                self._channel.errors(row.errors)
            yield part

    def _predict(self, model: LoadedModel, rows: NDArray[np.float64]) -> list[Prediction]:
        started = perf_counter()
        predictions = model.predict_each(rows)
        self._answered.append((model, rows, outcomes_of(model, predictions), perf_counter() - started))
        return predictions


def utf8_of(text: str) -> bytes:
    """Return the bytes of the table's text: UTF-8, whatever the encoding of the file is."""
    return text.encode(errors="replace")


def unusable(error: TableError) -> Problem:
    """Return the problem of a file that is no table, or none of this model's features."""
    return Problem(422, as_text(str(error)))
