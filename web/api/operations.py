"""The operations of the service's own interface, as the OpenAPI document describes them."""

from __future__ import annotations

from ml.model.classifier import Classifier
from ml.tables.layout import added_columns
from ml.tables.numbers import shown_number
from web.api.description import Json, description_of, number_of, read_operation, ref, response
from web.api.messages import SUBPROTOCOL
from web.responses import MEDIA_TYPE
from web.settings import Settings


def paths(model: Classifier, settings: Settings) -> Json:
    """Return the paths of the page and of the service's own messages."""
    example = {feature.key: feature.example for feature in model.features}
    rows = [[float(value) for value in row] for row in model.sample_rows[:2].tolist()] or [list(example.values())]
    query = [
        {
            "name": feature.key,
            "in": "query",
            "required": True,
            "description": description_of(feature),
            "schema": number_of(feature),
            "example": feature.example,
        }
        for feature in model.features
    ]
    problem = {MEDIA_TYPE: {"schema": ref("ProblemDetails")}}
    page = {"text/html": {"schema": {"type": "string"}}}
    answer = {"application/json": {"schema": ref("Answer")}, **page}
    batch = {"application/json": {"schema": {"anyOf": [ref("Answer"), ref("BatchAnswer")]}}, **page}
    filled = {"schema": ref("NamedSample"), "example": example}
    form = {"application/x-www-form-urlencoded": filled, "multipart/form-data": filled}
    wrong = {
        "400": {"description": "The request cannot be read.", "content": problem},
        "422": {"description": "The sample has errors, one for each wrong value.", "content": problem | page},
    }
    posted = wrong | {
        "413": {
            "description": f"More than {settings.max_body_bytes} bytes or {settings.max_samples} samples.",
            "content": problem,
        },
        "415": {"description": "The body is of another type.", "content": problem},
    }
    unchanged = {"304": {"description": "The answer has not changed since the entity tag in If-None-Match."}}
    return {
        "/predict": {
            "get": {
                "operationId": "predict",
                "summary": "Predict one sample",
                "description": "JSON if Accept prefers it, the fragment if HX-Request is true, else the page.",
                "parameters": query,
                "responses": {"200": response("The prediction.", answer)} | unchanged | wrong,
            },
            "post": {
                "operationId": "predictMany",
                "summary": "Predict one sample or many",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": ref("PredictRequest"),
                            "examples": {
                                "one": {"summary": "one sample", "value": {"sample": example}},
                                "many": {"summary": "many samples", "value": {"samples": rows}},
                            },
                        },
                        **form,
                    },
                },
                "responses": {"200": response("The prediction, or predictions in the order of the samples.", batch)}
                | posted,
            },
        },
        "/": {"get": _page("page", query, page)},
        "/index": {"get": _page("index", query, page)},
        "/result": {
            "get": {
                "operationId": "resultPage",
                "summary": "Leads to the page",
                "responses": {"303": {"description": "To the page."}},
            },
            "post": {
                "operationId": "result",
                "summary": "The page with the result of a form",
                "requestBody": {"required": True, "content": form},
                "responses": {"200": response("The page.", page)} | posted,
            },
        },
        "/score": {"post": _score(model, settings, problem | page), "get": _score_stream(problem | page)},
        "/stream": {
            "get": {
                "operationId": "stream",
                "summary": "Stream samples over a websocket",
                "description": (
                    "The server sends a ModelFrame first. Each text frame is a PredictRequest; its reply, in order, "
                    "is a PredictionFrame, a PredictionsFrame or an ErrorFrame. A binary frame is rows of "
                    f"little-endian float32, {len(model.features)} a row; its reply is {len(model.labels)} float32 a "
                    "row, NaN where a row cannot be answered; JSON in a binary frame is an error. An ErrorFrame of "
                    "status 429 or 503 says to wait for retry_after_s seconds and send the same frame again. The "
                    f"subprotocol {SUBPROTOCOL} is confirmed if offered."
                ),
                "responses": {
                    "101": {
                        "description": "The websocket is open.",
                        "content": {
                            "application/json": {
                                "schema": {
                                    "anyOf": [
                                        ref(name)
                                        for name in ("ModelFrame", "PredictionFrame", "PredictionsFrame", "ErrorFrame")
                                    ]
                                }
                            }
                        },
                    },
                    "403": {"description": "A page of another site."},
                    "426": {"description": "Asked for without a websocket.", "content": problem | page},
                },
            }
        },
        "/health/live": {"get": read_operation("live", "The process answers", "Live")},
        "/health/ready": {"get": read_operation("ready", "A model is loaded", "Ready")},
        "/health/drift": {
            "get": {
                "operationId": "drift",
                "summary": "How far the inputs of late are from the training data",
                "description": "JSON if Accept prefers it, the fragment if HX-Request is true, else a page.",
                "responses": {
                    "200": response("The report.", {"application/json": {"schema": ref("DriftReport")}, **page})
                },
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "What was counted, for Prometheus",
                "description": "In its text format, or as OpenMetrics if Accept names that.",
                "responses": {
                    "200": response(
                        "The metrics.",
                        {
                            "text/plain": {"schema": {"type": "string"}},
                            "application/openmetrics-text": {"schema": {"type": "string"}},
                        },
                    )
                },
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document",
                "responses": {"200": response("OpenAPI 3.1.", {"application/json": {"schema": {"type": "object"}}})}
                | unchanged,
            }
        },
        "/docs": {
            "get": {
                "operationId": "docs",
                "summary": "This document for people",
                "responses": {"200": response("The page.", page)} | unchanged,
            }
        },
    }


def _score(model: Classifier, settings: Settings, problem: Json) -> Json:
    header = ",".join(feature.key for feature in model.features)
    row = ",".join(shown_number(feature.example) for feature in model.features)
    table = {"type": "string", "contentMediaType": "text/csv"}
    form = {"type": "object", "properties": {"file": table}, "required": ["file"]}
    added = ", ".join(added_columns((), model.labels)[: len(model.labels) + 1])
    return {
        "operationId": "score",
        "summary": "Add predictions to a CSV file",
        "description": (
            "The table comes back while it is sent, with new columns at its end: "
            f"{added}, and {added_columns((), ())[-1]}, which says why a row has no answer. The header names the "
            "features, in any order; other columns are kept. If the file turns out to be no table after rows were "
            "answered, a last row says why and the connection ends without the end of the answer."
        ),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "text/csv": {"schema": {"type": "string"}, "example": f"{header}\n{row}\n"},
            },
        },
        "responses": {
            "200": response("The table with its new columns.", {"text/csv": {"schema": {"type": "string"}}}),
            "400": response("The form cannot be read.", problem),
            "413": response(f"More than {settings.max_upload_bytes} bytes.", problem),
            "415": response("The body is of another type, or compressed.", problem),
            "422": response("There is no file, or it is no table of these features.", problem),
            "503": response("Too many files are being scored.", problem),
        },
    }


def _score_stream(problem: Json) -> Json:
    frames = [ref(name) for name in ("ModelFrame", "RowsFrame", "ErrorFrame")]
    return {
        "operationId": "score_stream",
        "summary": "Add predictions to a CSV file over a websocket",
        "description": (
            "The server sends a ModelFrame first. The client sends the file in binary frames, and an empty one at the "
            "end. Each is answered by the rows that it completes, in binary frames, and then by a RowsFrame. After a "
            "lost connection the newest resume, sent as a text frame, goes on behind it. An ErrorFrame ends the "
            "connection; with retry_after_s the file goes on after so many seconds. "
            "With strict=1 a row without an answer ends the file."
        ),
        "parameters": [{"name": "strict", "in": "query", "schema": {"type": "string", "enum": ["1"]}}],
        "responses": {
            "101": {
                "description": "The websocket is open.",
                "content": {"application/json": {"schema": {"anyOf": frames}}},
            },
            "403": {"description": "A page of another site."},
            "426": response("Asked for without a websocket.", problem),
        },
    }


def _page(operation: str, query: list[Json], page: Json) -> Json:
    # On a page a field holds whatever somebody is typing; the answer says what is wrong with it.
    typed = [parameter | {"required": False, "schema": {"type": "string"}} for parameter in query]
    return {
        "operationId": operation,
        "summary": "The page",
        "description": "Prefilled from the query, or else with the model's example.",
        "parameters": typed,
        "responses": {
            "200": response("The page.", page),
            "304": {"description": "The page has not changed since the entity tag in If-None-Match."},
            "422": response("The page, with errors.", page),
        },
    }
