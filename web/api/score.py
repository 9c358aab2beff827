"""POST /score: a CSV file comes in and goes out with predictions, both at once. It is never whole in memory."""

from __future__ import annotations

import asyncio
import codecs
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from time import perf_counter
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ml.errors import DatasetError
from ml.model.classifier import Classifier, Prediction
from ml.score import Part, Scorer
from web.api.upload import Body, Spool, UploadedFile, too_large
from web.problems import Problem
from web.requests import header_of, preferred_representation
from web.responses import ABORT
from web.service import service_of
from web.settings import Settings

# Text that is looked at in one go, and cells that leave in one go: each takes about a millisecond.
SLICE_CHARACTERS = 2**14
SLICE_CELLS = 2**12
MAX_NAME_CHARACTERS = 100

_ENDING = re.compile(r"\.(csv|tsv|tab|txt)$", re.IGNORECASE)
# What some file systems do not take; quotes and backslashes mean something in the header, too.
_NOT_IN_NAMES = re.compile(r'[<>:"|?*\\/%;]')


class Score:
    """The endpoint, with what all uploads of a process share: their number, their room on disk, and their turns."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_upload_bytes
        self._max_uploads = settings.max_uploads
        self._uploads = 0
        self._spool = Spool(settings.max_spool_bytes)
        # One slice of one upload in each turn of the event loop, however many there are.
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = header_of(scope, b"content-length")
        if declared.isdigit() and int(declared[:20]) > self._max_bytes:
            raise too_large(self._max_bytes)
        if self._uploads >= self._max_uploads:
            detail = "too many files are being scored: try again later"
            raise Problem(503, detail, retry_after_s=1)
        self._uploads += 1
        try:
            async with Body(receive, send, max_bytes=self._max_bytes, spool=self._spool) as body:
                await self._answer(scope, body)
        except ClientDisconnect:
            return  # nobody is there to be told
        finally:
            self._uploads -= 1

    async def _answer(self, scope: Scope, body: Body) -> None:
        service = service_of(scope)
        model = service.model
        file = UploadedFile(scope, body)
        channel = service.metrics.score

        def predict(values: NDArray[np.float64]) -> list[Prediction]:
            started = perf_counter()
            predictions = model.predict_each(values)
            channel.model_time(started)
            channel.many(model, values, np.array([prediction.index for prediction in predictions]))
            return predictions

        scorer = Scorer(model, max_cells=SLICE_CELLS, guarded=True, predict=predict)
        has_begun = False
        try:
            async for part in self._parts(scorer, file, body):
                for row in part.bad:
                    channel.errors(row.errors)
                if not has_begun:
                    has_begun = True
                    headers = _headers(file.name, model)
                    await body.send({"type": "http.response.start", "status": 200, "headers": headers})
                await body.send({"type": "http.response.body", "body": _encoded(part.text), "more_body": True})
        except (DatasetError, Problem) as error:
            problem = error if isinstance(error, Problem) else _unusable(error)
            if has_begun:
                await _break_off(scorer, body, problem)
                return
            if problem.details.status == 422 and preferred_representation(scope, default="json") == "page":
                await body.skip()  # a browser looks at no answer before it has sent everything
            raise problem from error
        await body.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self, scorer: Scorer, file: UploadedFile, body: Body) -> AsyncIterator[Part]:
        # Bytes that are not UTF-8 pass through as they are: a cell that nobody needs is no reason to stop.
        decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        async for chunk in file.chunks():
            text = decode(chunk)
            for start in range(0, len(text), SLICE_CHARACTERS):
                async for part in self._in_turn(scorer.feed(text[start : start + SLICE_CHARACTERS]), body):
                    yield part
        async for part in self._in_turn(itertools.chain(scorer.feed(decode(b"", True)), scorer.finish()), body):
            yield part

    async def _in_turn(self, parts: Iterator[Part], body: Body) -> AsyncIterator[Part]:
        """Yield parts, each made when it is this upload's turn; the event loop serves everybody else in between.

        No upload waits for a thread that another one has, and none goes on when its client has left.
        """
        while True:
            async with self._turn:
                part = next(parts, None)
                await asyncio.sleep(0)
            await body.check()
            if part is None:
                return
            if part.text:
                yield part


async def _break_off(scorer: Scorer, body: Body, problem: Problem) -> None:
    """Say why in a last row, and end the connection before the answer has its end: nobody takes it for a whole one."""
    try:
        row = _encoded(scorer.last_row(problem.details.detail))
        await body.send({"type": "http.response.body", "body": row, "more_body": True})
    except Problem:
        pass  # it is that very problem again
    await body.send({"type": ABORT})


def _unusable(error: DatasetError) -> Problem:
    # What is not UTF-8 in the file cannot be told in JSON.
    return Problem(422, str(error).encode(errors="replace").decode())


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _headers(name: str, model: Classifier) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"text/csv; charset=utf-8; header=present"),
        (b"content-disposition", disposition_of(name).encode()),
        (b"cache-control", b"no-store"),
        (b"x-model-version", model.version.encode()),
        (b"x-accel-buffering", b"no"),  # nginx would hold the answer back
    ]


def disposition_of(name: str) -> str:
    """Return the header that names the answer to a file (RFC 6266); the name is what a client says, so anything."""
    stem = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem = "".join(character for character in stem if character.isprintable())
    stem = _NOT_IN_NAMES.sub("_", _ENDING.sub("", stem)).strip(" .")[:MAX_NAME_CHARACTERS]
    named = f"{stem}-predictions.csv" if stem else "predictions.csv"
    ascii_name = named.encode("ascii", "replace").decode().replace("?", "_")
    extended = "" if named.isascii() else f"; filename*=UTF-8''{quote(named, safe='')}"
    return f'attachment; filename="{ascii_name}"{extended}'
