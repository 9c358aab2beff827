"""The operations of the service's own interface, as the OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping

from ml.model.classifier import Classifier
from ml.tables.layout import added_columns
from web.api import examples, explain
from web.api.components import PAGE, PROBLEM, too_large_of
from web.api.description import (
    N_,
    Json,
    example_of,
    json_content,
    read_operation,
    ref,
    response,
    table_of,
    typed_value_of,
)
from web.api.messages import SUBPROTOCOL
from web.api.uploaded_file import EXCEL, PARQUET
from web.settings import Settings

_TEXT: Json = {"schema": {"type": "string"}}
_BINARY: Json = {"schema": {"type": "string", "format": "binary"}}
_NEGOTIATED = N_("JSON if Accept prefers it, the fragment if HX-Request is true, else the page.")
_POSTED = N_("JSON for JSON, unless Accept prefers a page; a form is answered as a query is.")
_PREDICTED = N_("The prediction, or predictions in the order of the samples.")
_PREFILLED = N_("Prefilled from the query, or else with the model's example.")
_SHOWN = N_("The parameters lang, map-x, map-y, field-order and, of a quantity, goal say how it is shown.")
_CONDITIONAL = {"$ref": "#/components/parameters/If-None-Match"}
_FRAGMENT = {"$ref": "#/components/parameters/HX-Request"}
_TYPING = {"$ref": "#/components/parameters/X-Input"}
_SCORED = N_(
    "The header names the features; other columns are kept. Numbers are read by the marks of training, unless the "
    "query names others; the answer is UTF-8, whatever the encoding of the file is. If the file turns out to be no "
    "table after rows were answered, a last row says why and the connection ends without the end of the answer."
)
_FRAMES = N_(
    "The server sends a ModelFrame first. Each text frame is a StreamRequest; its reply, in order, is a "
    "PredictionFrame, a PredictionsFrame or an ErrorFrame."
)
_WAITING = N_("An ErrorFrame of status 429 or 503 says to wait retry_after_s seconds and send the same frame again.")
_INCOMPLETE = N_("In the page and the fragment a sample may be incomplete; in JSON a value left out is an error.")


def paths(model: Classifier, settings: Settings) -> Json:
    """Return the paths of the page and of the service's own messages."""
    return {
        "/predict": {"get": _predict(model), "post": _predict_many(model, settings)},
        "/": {"get": _page("page", model)},
        "/index": {"get": _page("index", model)},
        "/result": {"get": _result_page(), "post": _result(model, settings)},
        "/score": {"post": _score(model, settings), "get": _score_stream()},
        "/template.csv": {"get": _template()},
        "/stream": {"get": _stream(model)},
        **_health(),
        "/metrics": {"get": _metrics()},
        **_documents(),
    }


def _predict(model: Classifier) -> Json:
    answered = json_content("Answer", one=examples.answers_of(model)["one"])
    return {
        "operationId": "predict",
        "summary": N_("Predict one sample"),
        "description": f"{_NEGOTIATED} {_INCOMPLETE}",
        "parameters": [*_query(model), _FRAGMENT, _TYPING, _CONDITIONAL],
        "responses": {
            "200": response(N_("The prediction."), answered | PAGE, "X-Model-Version"),
            **_unchanged(),
            "422": response(N_("The sample has errors, one for each wrong value."), PROBLEM | PAGE),
        },
    }


def _predict_many(model: Classifier, settings: Settings) -> Json:
    either = json_content("Answer", **examples.answers_of(model))
    either["application/json"]["schema"] = {"anyOf": [ref("Answer"), ref("BatchAnswer")]}
    bodies = json_content("PredictRequest", **examples.requests_of(model)) | _form(model)
    return {
        "operationId": "predictMany",
        "summary": N_("Predict one sample or many"),
        "description": f"{_POSTED} {_NEGOTIATED} {_INCOMPLETE} {explain.described(model)}",
        "parameters": [_FRAGMENT, _TYPING],
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": response(_PREDICTED, either | PAGE, "X-Model-Version"), **_refused_bodies(settings)},
    }


def _form(model: Classifier) -> Json:
    filled = {"schema": ref("TypedSample"), "example": example_of(model.features)}
    return {"application/x-www-form-urlencoded": filled, "multipart/form-data": filled}


def _refused_bodies(settings: Settings) -> Json:
    return {
        "400": response(N_("The request cannot be read."), PROBLEM | PAGE),
        "413": response(too_large_of(settings), PROBLEM | PAGE),
        "415": response(N_("The body is of another type, or compressed."), PROBLEM | PAGE),
        "422": response(N_("The sample has errors, one for each wrong value."), PROBLEM | PAGE),
    }


def _query(model: Classifier) -> list[Json]:
    return [
        {
            "name": feature.key,
            "in": "query",
            "description": schema["description"],
            "schema": schema,
            "example": feature.shown(feature.example),
        }
        for feature in model.features
        for schema in [typed_value_of(feature)]
    ]


def _page(operation: str, model: Classifier) -> Json:
    return {
        "operationId": operation,
        "summary": N_("The page"),
        "description": f"{_PREFILLED} {_SHOWN}",
        "parameters": [*_query(model), _CONDITIONAL],
        "responses": {
            "200": response(N_("The page, also with a sample that is incomplete."), PAGE, "ETag", "X-Model-Version"),
            **_unchanged(),
            "422": response(N_("The page, with the errors of the sample."), PAGE, "X-Model-Version"),
        },
    }


def _result_page() -> Json:
    to_page = response(N_("To the page, with the query of the request."))
    return {"operationId": "resultPage", "summary": N_("Leads to the page"), "responses": {"303": to_page}}


def _result(model: Classifier, settings: Settings) -> Json:
    page = response(N_("The page, also with a sample that is incomplete."), PAGE, "X-Model-Version")
    return {
        "operationId": "result",
        "summary": N_("The page with the result of a form"),
        "requestBody": {"required": True, "content": _form(model)},
        "responses": {"200": page, **_refused_bodies(settings)},
    }


def _score(model: Classifier, settings: Settings) -> Json:
    form = {"type": "object", "properties": {"file": {"type": "string", "contentMediaType": "text/csv"}}}
    *added, notes, why = added_columns((), model.labels)
    columns = N_(
        "The table comes back as CSV, while it is sent if it is text, packed by gzip or not, or Parquet as Parquet, "
        "with new columns: %(added)s, %(notes)s on the values, and %(why)s, which says why a row has no answer."
    ) % {"added": ", ".join(added), "notes": notes, "why": why}
    return {
        "operationId": "score",
        "summary": N_("Add predictions to a CSV, Excel or Parquet file"),
        "description": f"{columns} {_SCORED}",
        "parameters": _table_options(),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form | {"required": ["file"]}},
                "text/csv": _TEXT | {"example": table_of(model.features)},
                **dict.fromkeys((EXCEL.decode(), PARQUET.decode()), _BINARY),
            },
        },
        "responses": _scored(model, settings),
    }


def _template() -> Json:
    ok = response(N_("A header with the names of the features, and a row with the example."), {"text/csv": _TEXT})
    return {"operationId": "template", "summary": N_("A table to fill in"), "parameters": [], "responses": {"200": ok}}


def _scored(model: Classifier, settings: Settings) -> Json:
    table = {"text/csv": _TEXT | examples.of_scored_table(model)}
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


def _stream(model: Classifier) -> Json:
    frames = [ref(name) for name in ("ModelFrame", "PredictionFrame", "PredictionsFrame", "ErrorFrame")]
    confirmed = N_("The subprotocol %(name)s is confirmed if offered.") % {"name": SUBPROTOCOL}
    return {
        "operationId": "stream",
        "summary": N_("Stream samples over a websocket"),
        "description": f"{_FRAMES} {explain.described(model)} {_binary(model)} {_WAITING} {confirmed}",
        "responses": _opened(*frames, exchanged=examples.frames_of(model)),
    }


def _binary(model: Classifier) -> str:
    """Return what a binary frame is."""
    if any(feature.choices for feature in model.features):
        return N_("A binary frame is an error, as it cannot hold words.")
    rows = N_(
        "A binary frame is rows of little-endian float32, %(features)s a row; its reply is %(outputs)s float32 a row, "
        "NaN where a row cannot be answered. JSON or CSV in a binary frame is an error."
    ) % {"features": len(model.features), "outputs": len(model.labels) or 1}
    has_gaps = any(feature.has_gaps for feature in model.features)
    return f"{rows} " + N_("In its rows NaN is a missing value.") if has_gaps else rows


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
        "responses": _opened(*frames),
    }


def _opened(*frames: Json, exchanged: Mapping[str, Json] | None = None) -> Json:
    """Return the responses of a websocket, whose server sends these frames."""
    content = json_content("PredictionFrame", **exchanged or {})
    content["application/json"]["schema"] = {"anyOf": [*frames]}
    return {
        "101": {"description": N_("The websocket is open."), "content": content},
        "426": response(N_("Asked for without a websocket."), PROBLEM | PAGE),
    }


def _health() -> Json:
    ready = read_operation("ready", N_("A model is loaded"), "Ready")
    ready["responses"]["503"] = response(
        N_("The service is about to end, or has too many connections."), json_content("Ready") | PROBLEM
    )
    drift = {
        "operationId": "drift",
        "summary": N_("How far recent inputs are from the training data"),
        "description": _NEGOTIATED,
        "parameters": [_FRAGMENT],
        "responses": {"200": response(N_("The report."), json_content("DriftReport") | PAGE)},
    }
    return {
        "/health/live": {"get": read_operation("live", N_("The process answers"), "Live")},
        "/health/ready": {"get": ready},
        "/health/drift": {"get": drift},
    }


def _metrics() -> Json:
    formats = {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}
    return {
        "operationId": "metrics",
        "summary": N_("Metrics for Prometheus"),
        "description": N_("In its text format, or as OpenMetrics if Accept names that."),
        "responses": {"200": response(N_("The metrics."), formats)},
    }


def _documents() -> Json:
    document: Json = {"application/json": {"schema": {"type": "object"}}}
    return {
        "/openapi.json": {"get": _document("openapi", N_("This document"), document)},
        "/docs": {"get": _document("docs", N_("This document for people"), PAGE)},
    }


def _document(operation: str, summary: str, content: Json) -> Json:
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [_CONDITIONAL],
        "responses": {"200": response(f"{summary}.", content, "ETag"), **_unchanged()},
    }


def _unchanged() -> Json:
    return {"304": response(N_("The answer has not changed since the entity tag in If-None-Match."), None, "ETag")}
