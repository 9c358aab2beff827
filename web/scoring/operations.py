"""The operations of /score, as the OpenAPI document describes them."""

from __future__ import annotations

import io

from ml.errors import TableError
from ml.model.loaded import LoadedModel
from ml.scoring.layout import added_columns
from ml.scoring.text import score
from web.api.components import PAGE, PROBLEM, TEXT, opened
from web.api.description import N_, Json, ref, response, table_of
from web.scoring.uploaded_file import EXCEL, OPTIONS, PARQUET
from web.settings import Settings

_SCORED = N_(
    "The header names the features; other columns are kept. Numbers are read by the marks of training, unless the "
    "query, or fields before the file, name others; the answer is UTF-8, whatever the encoding of the file is. If the "
    "file turns out to be no table after rows were answered, a last row says why and the connection ends without the "
    "end of the answer."
)
_BINARY: Json = {"schema": {"type": "string", "format": "binary"}}


def paths(model: LoadedModel, settings: Settings) -> Json:
    """Return the paths of files."""
    return {
        "/score": {"post": _score(model, settings), "get": _score_stream()},
        "/template.csv": {"get": _template()},
    }


def _score(model: LoadedModel, settings: Settings) -> Json:
    file = {"type": "string", "contentMediaType": "text/csv"}
    fields = {option.decode(): {"type": "string"} for option in OPTIONS} | {"file": file}
    added = added_columns((), model.labels)
    columns = N_(
        "The table comes back as CSV, while it is sent if it is text, packed by gzip or not, or Parquet as Parquet, "
        "with new columns: %(added)s, %(notes)s on the values, and %(why)s, which says why a row has no answer."
    ) % {"added": ", ".join((*added.words, *added.numbers)), "notes": added.notes, "why": added.error}
    return {
        "operationId": "score",
        "summary": N_("Add predictions to a CSV, Excel or Parquet file"),
        "description": f"{columns} {_SCORED}",
        "parameters": _table_options(),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"type": "object", "properties": fields, "required": ["file"]}},
                "text/csv": TEXT | {"example": table_of(model.features)},
                **dict.fromkeys((EXCEL.decode(), PARQUET.decode()), _BINARY),
            },
        },
        "responses": _scored(model, settings),
    }


def _template() -> Json:
    ok = response(N_("A header with the names of the features, and a row with the example."), {"text/csv": TEXT})
    return {"operationId": "template", "summary": N_("A table to fill in"), "parameters": [], "responses": {"200": ok}}


def _scored(model: LoadedModel, settings: Settings) -> Json:
    table = {"text/csv": TEXT | _example_of(model)}
    return {
        "200": response(N_("The scored table."), table | {PARQUET.decode(): _BINARY}, "X-Model-Version"),
        "400": response(N_("The form cannot be read, or the query does not fit the table."), PROBLEM | PAGE),
        "413": response(N_("More than %(bytes)s bytes.") % {"bytes": settings.max_upload_bytes}, PROBLEM | PAGE),
        "415": response(N_("The body is of another type, or compressed; or Parquet is not installed."), PROBLEM | PAGE),
        "422": response(
            N_("No file was chosen, or it is no table of these features, which a schema cannot express."),
            PROBLEM | PAGE,
        ),
        "503": response(N_("Too many files are being scored, or there is no room for this one."), PROBLEM | PAGE),
    }


def _table_options() -> list[Json]:
    return [_option("decimal", ","), _option("thousands", "."), _option("encoding", "windows-1252")]


def _option(name: str, example: str) -> Json:
    return {"name": name, "in": "query", "schema": {"type": "string"}, "example": example}


def _score_stream() -> Json:
    frames = [ref(name) for name in ("ModelFrame", "RowsFrame", "ErrorFrame")]
    return {
        "operationId": "scoreStream",
        "summary": N_("Add predictions to a CSV or Excel file over a websocket"),
        "description": N_(
            "The server sends a ModelFrame first. The client sends the file in binary frames, and an empty one at the "
            "end. Each is answered by the rows that it completes, in binary frames, and then by a RowsFrame. After a "
            "lost connection the newest resume, sent as a text frame, goes on behind it. An ErrorFrame ends the "
            "connection; with retry_after_s the file goes on after so many seconds. With strict=1 a row without an "
            "answer ends the file."
        ),
        "parameters": [*_table_options(), _option("strict", "1")],
        "responses": opened(*frames),
    }


def _example_of(model: LoadedModel) -> Json:
    """Return a table with its prediction as the example of a response; none for keys that a header does not give."""
    sink = io.StringIO(newline="")
    try:
        score(model, io.StringIO(table_of(model.features), newline=""), sink, on_bad=lambda _bad: None, guarded=True)
    except TableError:
        return {}
    return {"example": sink.getvalue()}
