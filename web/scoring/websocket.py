"""WS /score: a file's bytes come in, and each part of its table goes out with predictions; a file can be resumed.

The client sends binary frames, and an empty one at the end. Each is answered by the rows that it completes: their text
in binary frames, and then a text frame which says that they are whole. After a lost connection the client forgets text
that was not followed by such a frame, sends the newest `resume` as a text frame, and the bytes after `read`: all of
them if the file is packed, and what was scored of it is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ml.errors import TableError
from ml.model.loaded import LoadedModel
from ml.model.sample import FieldError
from ml.scoring.layout import OtherAnswers, Place
from ml.scoring.rows import AnsweredRows, BadRow, Part
from ml.tables.dataset import MAX_TEXT
from ml.tables.encoding import as_text
from web.api.messages import ErrorFrame
from web.api.stream import announcement
from web.metrics.channel import outcomes_of
from web.problems import Problem, too_many
from web.requests import query_of
from web.scoring.file_query import check_names, encoding_in, marks_in
from web.scoring.messages import ListedRow, RowError, RowsFrame, ValueSummary
from web.scoring.resume import resume_of
from web.scoring.scored_file import OpenFiles, ScoredFile, unusable, utf8_of
from web.service import Service, service_of

# Of the rows of one frame so many without an answer are listed, with so many errors each, and so many of each label:
# fewer, but one, if there are many labels. As in static/run.js.
MAX_ERRORS = 100
MAX_ERRORS_A_ROW = 3
MAX_LISTED_OF_LABEL = 50
MAX_LISTED = 1_000
# How the connection ends (RFC 6455, section 7.4, and its registry).
DONE, REFUSED, TRY_AGAIN_LATER = 1000, 1008, 1013


class ScoreStream:
    """The endpoint."""

    def __init__(self, open_files: OpenFiles) -> None:
        self._open_files = open_files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        service = service_of(scope)
        try:
            await websocket.accept(headers=[(b"x-request-id", scope["state"]["request_id"].encode())])
            with service.metrics.socket():
                try:
                    file = _File(service, self._open_files, websocket, query_of(scope))
                    await file.announce()
                    with self._open_files.entered():
                        await file.answer()
                except Problem as problem:
                    await _refuse(websocket, problem)
        except (WebSocketDisconnect, OSError):
            pass  # the client has left, as clients do


async def _refuse(websocket: WebSocket, problem: Problem) -> None:
    await websocket.send_text(msgspec.json.encode(ErrorFrame(UNSET, problem.details)).decode())
    await websocket.close(REFUSED if problem.details.retry_after_s is UNSET else TRY_AGAIN_LATER)


class _File:
    """One file on one connection."""

    def __init__(self, service: Service, open_files: OpenFiles, websocket: WebSocket, query: Mapping[str, str]) -> None:
        self._service = service
        self._open_files = open_files
        self._websocket = websocket
        self._query = query
        self._model: LoadedModel | None = None  # that was announced
        self._least_sure = _LeastSure(0)
        self._answers = _Answers(service.model, self._least_sure)

    async def answer(self) -> None:
        """Answer frame by frame until the end of the file, or until the client leaves.

        Raises:
            Problem: 413, the file is too large; 422, it is no table of the model's features; 409, the model now has
                others; 429, there are too many frames; 400, a frame is of another kind, or resumes nothing, or the
                query has another parameter, or names marks or an encoding that there are not.
        """
        client = self._websocket.client
        address = client.host if client else ""
        with ExitStack() as stack:
            await self._answer(address, stack)

    async def _answer(self, address: str, stack: ExitStack) -> None:
        service, websocket = self._service, self._websocket
        scored: ScoredFile | None = None
        while True:
            message = await websocket.receive()
            if message["type"] != "websocket.receive":
                return
            model = await self.announce()
            if wait_s := service.rates.take(address):
                raise too_many(wait_s, "frames")
            content: bytes | None = message.get("bytes")
            resume = message.get("text")
            if content is None and (scored is not None or resume is None):
                raise Problem(400, "a file is sent in binary frames; text comes before them, and resumes a file")
            try:
                if scored is None:
                    scored = stack.enter_context(closing(self._begin(model, resume)))
                elif scored.model is not model:
                    scored.use(model)
            except OtherAnswers as error:
                await self._end(scored.place if scored else resume_of(resume or "").place, str(error))
                raise Problem(409, str(error)) from error
            if content is not None:
                await self._score(scored, content)
                if not content:
                    await websocket.close(DONE)
                    return

    async def announce(self) -> LoadedModel:
        """Return the model that answers, after it was announced to the client."""
        model = self._service.model
        if model is not self._model:
            self._model = model
            await self._websocket.send_text(announcement(model, self._service.settings))
        return model

    def _begin(self, model: LoadedModel, text: str | None) -> ScoredFile:
        resume = resume_of(text) if text else None
        self._least_sure = _LeastSure(len(model.labels))
        query = self._query
        check_names(query, "decimal", "thousands", "encoding", "strict")
        if (strict := query.get("strict", "0")) not in ("0", "1"):
            raise Problem(400, f"strict is 0 or 1, not {as_text(strict[:80])!r}")
        return ScoredFile(
            model, self._open_files, self._service.metrics.score,
            strict=strict == "1", marks=marks_in(query), encoding=encoding_in(query),
            resume=resume,
        )  # fmt: skip

    async def _score(self, scored: ScoredFile, content: bytes) -> None:
        self._answers = _Answers(scored.model, self._least_sure)
        parts = scored.feed(content) if content else scored.finish()
        try:
            async for part in parts:
                if part.text:
                    await self._websocket.send_bytes(utf8_of(part.text))
                self._answers.add(part)
        except (TableError, Problem) as error:
            problem = error if isinstance(error, Problem) else unusable(error)
            await self._commit(scored, done=False)
            await self._end(scored.place, problem.details.detail)
            raise problem from error
        await self._commit(scored, done=not content)

    async def _commit(self, scored: ScoredFile, *, done: bool) -> None:
        """Say that all rows that were sent are whole."""
        resume = msgspec.json.encode(scored.resume).decode() if scored.resume else ""
        frame = self._answers.frame(read=scored.read, resume=resume, done=done)
        await self._websocket.send_text(msgspec.json.encode(frame).decode())

    async def _end(self, place: Place | None, message: str) -> None:
        """Say why in a last row: nobody takes this table for a whole one."""
        if place is not None:
            await self._websocket.send_bytes(utf8_of(place.last_row(message, guarded=True)))


class _LeastSure:
    """The least sure rows of each label that a connection has had, and which of them are new."""

    def __init__(self, n_labels: int) -> None:
        self._most = max(1, min(MAX_LISTED_OF_LABEL, MAX_LISTED // max(1, n_labels)))
        # How sure each answer is, and its row: the least sure first.
        self._kept: list[list[tuple[float, ListedRow]]] = [[] for _ in range(max(1, n_labels))]
        self._limits = np.full(len(self._kept), np.inf)  # no row that is as sure is kept any more
        self._line = 0  # of the last row that is not new

    def add(self, model: LoadedModel, rows: AnsweredRows, labels: NDArray[np.intp], sureness: NDArray[Any]) -> None:
        """Take the rows of a part; `labels` are indices, 0 for a quantity."""
        found = np.flatnonzero(sureness < self._limits[labels])
        found = found[np.lexsort((sureness[found], labels[found]))]
        rank = np.arange(len(found)) - np.searchsorted(labels[found], labels[found])
        found = found[rank < self._most]
        for index in found.tolist():
            self._kept[labels[index]].append((float(sureness[index]), _listed_row(model, rows, index)))
        for label in np.unique(labels[found]).tolist():
            kept = self._kept[label]
            kept.sort(key=itemgetter(0))  # equals stay in the order of the file
            del kept[self._most :]
            if len(kept) == self._most:
                self._limits[label] = kept[-1][0]

    def new(self) -> list[ListedRow]:
        """Return the rows that were not returned before."""
        rows = [row for kept in self._kept for _, row in kept if row.line > self._line]
        self._line = max((row.line for row in rows), default=self._line)
        return rows


class _Answers:
    """What there is to say about the rows that one frame completes."""

    def __init__(self, model: LoadedModel, least_sure: _LeastSure) -> None:
        self._model = model
        self._least_sure = least_sure
        self._rows = self._bad = self._noted = 0
        self._errors: list[RowError] = []
        self._counts = np.zeros(len(model.labels), dtype=np.intp)
        self._values: ValueSummary | UnsetType = UNSET

    def add(self, part: Part) -> None:
        """Take rows as they were written."""
        self._rows += part.rows
        self._bad += len(part.bad)
        self._errors += map(_row_error, islice(part.bad, MAX_ERRORS - len(self._errors)))
        if part.answered:
            self._add(part.answered, outcomes_of(self._model, part.answered.predictions))

    def _add(self, rows: AnsweredRows, outcomes: NDArray[Any]) -> None:
        self._noted += int(rows.outside.any(axis=1).sum())
        if self._model.quantity:
            self._values = _with(self._values, outcomes)
            self._least_sure.add(self._model, rows, np.zeros(len(outcomes), dtype=np.intp), -rows.outside.sum(axis=1))
        else:
            self._counts += np.bincount(outcomes, minlength=len(self._counts))
            sureness = np.array([answer.probabilities[answer.index] for answer in rows.predictions])
            self._least_sure.add(self._model, rows, outcomes, sureness)

    def frame(self, *, read: int, resume: str, done: bool) -> RowsFrame:
        """Return the frame that says it."""
        labels = self._model.labels
        counts = {labels[index]: int(self._counts[index]) for index in np.flatnonzero(self._counts)}
        listed = self._least_sure.new()
        return RowsFrame(
            read, self._rows, self._bad, self._errors, counts, listed, self._model.version, resume, done, self._noted,
            self._values,
        )  # fmt: skip


def _with(before: ValueSummary | UnsetType, values: NDArray[np.float64]) -> ValueSummary:
    now = ValueSummary(float(values.min()), float(values.max()), float(values.sum()))
    if before is UNSET:
        return now
    return ValueSummary(min(before.least, now.least), max(before.greatest, now.greatest), before.sum + now.sum)


def _listed_row(model: LoadedModel, rows: AnsweredRows, index: int) -> ListedRow:
    cells = _shown_cells(rows.cells(index))
    line, outside, answer = rows.lines[index], int(rows.outside[index].sum()), rows.predictions[index]
    if model.quantity:
        return ListedRow(line=line, cells=cells, outside=outside, value=answer.value)
    probability = answer.probabilities[answer.index]
    return ListedRow(line=line, cells=cells, outside=outside, label=answer.label, probability=probability)


def _row_error(row: BadRow) -> RowError:
    errors = [*map(_shown_error, row.errors[:MAX_ERRORS_A_ROW])]
    return RowError(row.line, as_text(row.message), errors, _shown_cells(row.cells))


def _shown_cells(cells: Iterable[str]) -> list[str]:
    # What is cut off is too long for a number and for a choice.
    return [as_text(cell.strip()[: MAX_TEXT + 1]) for cell in cells]


def _shown_error(error: FieldError) -> FieldError:
    value = as_text(error.value) if isinstance(error.value, str) else error.value
    return msgspec.structs.replace(error, message=as_text(error.message), value=value)
