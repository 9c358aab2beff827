"""POST /score: a table comes in and goes out with predictions, both at once if it is text. Never whole in memory.

Parquet comes back as Parquet, everything else as CSV.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ml.errors import TableError
from ml.model.loaded import LoadedModel
from ml.scoring.rows import Part
from web.api.description import table_of
from web.api.stream import upgrade_required
from web.problems import Problem
from web.requests import header_of, preferred_representation, query_of
from web.responses import ABORT
from web.scoring.file_query import check_names, encoding_in, marks_in
from web.scoring.parquet import ParquetFile
from web.scoring.scored_file import OpenFiles, ScoredFile, unusable, utf8_of
from web.scoring.upload import Body, too_large
from web.scoring.uploaded_file import PARQUET, UploadedFile
from web.service import service_of

MAX_NAME_CHARACTERS = 100
CSV = b"text/csv; charset=utf-8; header=present"

_ENDING = re.compile(r"(\.(csv|tsv|tab|txt|xlsx|xlsm))?(\.(gz|zip))?$", re.IGNORECASE)
# What some file systems do not take; quotes and backslashes mean something in the header, too.
_NOT_IN_NAMES = re.compile(r'[<>:"|?*\\/%;]')


class Score:
    """The endpoint."""

    def __init__(self, open_files: OpenFiles) -> None:
        self._open_files = open_files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await upgrade_required(Request(scope))
        max_bytes = self._open_files.max_bytes
        declared = header_of(scope, b"content-length")
        if declared.isdigit() and int(declared[:20]) > max_bytes:
            raise too_large(max_bytes)
        with self._open_files.entered(), suppress(ClientDisconnect):  # there is nobody to answer
            async with Body(receive, send, max_bytes=max_bytes, spool=self._open_files.spool) as body:
                await self._answer(scope, body)

    async def _answer(self, scope: Scope, body: Body) -> None:
        service = service_of(scope)
        file = UploadedFile(scope, body)
        query = query_of(scope)
        check_names(query, "decimal", "thousands", "encoding", "lang", "back")  # the page sends the last two
        if file.is_parquet:
            if query.keys() & {"decimal", "thousands", "encoding"}:
                raise Problem(400, "decimal, thousands and encoding are for text: the columns of Parquet have types")
            with closing(ParquetFile(service.model, self._open_files, service.metrics.score)) as parquet:
                await _score_parquet(service.model, body, file, parquet)
            return
        try:
            await file.begin()
            query = {**query, **file.options}
            marks, encoding = marks_in(query), encoding_in(query, file.charset)
        except Problem as problem:
            await _skip_for_page(scope, body, problem)
            raise
        scored = ScoredFile(service.model, self._open_files, service.metrics.score, marks=marks, encoding=encoding)
        with closing(scored):
            await self._score(scope, body, file, scored)

    async def _score(self, scope: Scope, body: Body, file: UploadedFile, scored: ScoredFile) -> None:
        has_begun = False
        try:
            async for part in _parts(scored, file):
                # No upload goes on when its client has left.
                await body.check()
                if not part.text:
                    continue
                if not has_begun:
                    has_begun = True
                    headers = _headers(CSV, disposition_of(file.name, "predictions"), scored.model)
                    await body.send({"type": "http.response.start", "status": 200, "headers": headers})
                await body.send({"type": "http.response.body", "body": utf8_of(part.text), "more_body": True})
        except (TableError, Problem) as error:
            problem = error if isinstance(error, Problem) else unusable(error)
            if has_begun:
                await _break_off(scored, body, problem)
                return
            await _skip_for_page(scope, body, problem)
            raise problem from error
        await body.send({"type": "http.response.body", "body": b"", "more_body": False})


async def _skip_for_page(scope: Scope, body: Body, problem: Problem) -> None:
    if problem.details.status in (400, 422) and preferred_representation(scope, default="json") == "page":
        await body.skip()  # a browser reads no answer before it has sent everything


async def _score_parquet(model: LoadedModel, body: Body, file: UploadedFile, parquet: ParquetFile) -> None:
    async for chunk in file.chunks():
        await parquet.add(chunk)
    try:
        async for _ in parquet.process():
            await body.check()
    except TableError as error:
        raise unusable(error) from error
    length = (b"content-length", str(parquet.size).encode())
    headers = [*_headers(PARQUET, disposition_of("", "predictions", "parquet"), model), length]
    await body.send({"type": "http.response.start", "status": 200, "headers": headers})
    async for content in parquet.chunks():
        await body.send({"type": "http.response.body", "body": content, "more_body": True})
    await body.send({"type": "http.response.body", "body": b"", "more_body": False})


async def _parts(scored: ScoredFile, file: UploadedFile) -> AsyncIterator[Part]:
    async for chunk in file.chunks():
        async for part in scored.feed(chunk):
            yield part
    async for part in scored.finish():
        yield part


async def _break_off(scored: ScoredFile, body: Body, problem: Problem) -> None:
    """Say why in a last row, and end the connection before the answer has its end: nobody takes it for a whole one."""
    try:
        row = scored.last_row(problem.details.detail)
        await body.send({"type": "http.response.body", "body": row, "more_body": True})
    except Problem:
        pass  # it is that very problem again
    await body.send({"type": ABORT})


async def template(request: Request) -> Response:
    """GET /template.csv: a table to fill in, with the columns that the model needs and an example row."""
    model = service_of(request.scope).model
    # By the mark in front spreadsheets know UTF-8: without it they change letters such as those of °C.
    content = "\ufeff" + table_of(model.features)
    headers = {"content-disposition": disposition_of(model.name, "template"), "cache-control": "no-cache"}
    return Response(content, media_type="text/csv", headers=headers)


def _headers(media_type: bytes, disposition: str, model: LoadedModel) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", media_type),
        (b"content-disposition", disposition.encode()),
        (b"cache-control", b"no-store"),
        (b"x-model-version", model.version.encode()),
        (b"x-accel-buffering", b"no"),  # nginx would hold the answer back
    ]


def disposition_of(name: str, kind: str, ending: str = "csv") -> str:
    """Return the header that names a table of this kind (RFC 6266); its name may be anything: clients say it."""
    stem = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem = "".join(character for character in stem if character.isprintable())
    stem = _NOT_IN_NAMES.sub("_", _ENDING.sub("", stem)).strip(" .")[:MAX_NAME_CHARACTERS]
    named = f"{stem}-{kind}.{ending}" if stem else f"{kind}.{ending}"
    ascii_name = named.encode("ascii", "replace").decode().replace("?", "_")
    extended = "" if named.isascii() else f"; filename*=UTF-8''{quote(named, safe='')}"
    return f'attachment; filename="{ascii_name}"{extended}'
