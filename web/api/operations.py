"""The operations of the service's own interface, as the OpenAPI document describes them."""

from __future__ import annotations

from ml.model.loaded import LoadedModel
from web.api import examples, explain
from web.api.components import PAGE, PROBLEM, TEXT, opened, ready_operation, too_large_of
from web.api.description import (
    N_,
    Json,
    example_of,
    json_content,
    read_operation,
    ref,
    response,
    typed_value_of,
)
from web.api.messages import SUBPROTOCOL
from web.settings import Settings

_NEGOTIATED = N_("JSON if Accept prefers it, the fragment if HX-Request is true, else the page.")
_POSTED = N_("JSON for JSON, unless Accept prefers a page; a form is answered as a query is.")
_PREDICTED = N_("The prediction, or predictions in the order of the samples.")
_PREFILLED = N_("Prefilled from the query, or else with the model's example.")
_SHOWN = N_("The parameters lang, map-x, map-y, field-order and, of a quantity, goal say how it is shown.")
_CONDITIONAL = {"$ref": "#/components/parameters/If-None-Match"}
_FRAGMENT = {"$ref": "#/components/parameters/HX-Request"}
_TYPING = {"$ref": "#/components/parameters/X-Input"}
_FRAMES = N_(
    "The server sends a ModelFrame first. Each text frame is a StreamRequest; its reply, in order, is a "
    "PredictionFrame, a PredictionsFrame or an ErrorFrame."
)
_WAITING = N_("An ErrorFrame of status 429 or 503 says to wait retry_after_s seconds and send the same frame again.")
_INCOMPLETE = N_("In the page and the fragment a sample may be incomplete; in JSON a value left out is an error.")


def paths(model: LoadedModel, settings: Settings) -> Json:
    """Return the paths of the page and of the service's own messages; those of files are in `web.scoring`."""
    return {
        "/predict": {"get": _predict(model), "post": _predict_many(model, settings)},
        "/": {"get": _page("page", model)},
        "/index": {"get": _page("index", model)},
        "/result": {"get": _result_page(), "post": _result(model, settings)},
        "/stream": {"get": _stream(model)},
        **_health(),
        "/metrics": {"get": _metrics()},
        **_documents(),
    }


def _predict(model: LoadedModel) -> Json:
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


def _predict_many(model: LoadedModel, settings: Settings) -> Json:
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


def _form(model: LoadedModel) -> Json:
    filled = {"schema": ref("TypedSample"), "example": example_of(model.features)}
    return {"application/x-www-form-urlencoded": filled, "multipart/form-data": filled}


def _refused_bodies(settings: Settings) -> Json:
    return {
        "400": response(N_("The request cannot be read."), PROBLEM | PAGE),
        "413": response(too_large_of(settings), PROBLEM | PAGE),
        "415": response(N_("The body is of another type, or compressed."), PROBLEM | PAGE),
        "422": response(N_("The sample has errors, one for each wrong value."), PROBLEM | PAGE),
    }


def _query(model: LoadedModel) -> list[Json]:
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


def _page(operation: str, model: LoadedModel) -> Json:
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


def _result(model: LoadedModel, settings: Settings) -> Json:
    page = response(N_("The page, also with a sample that is incomplete."), PAGE, "X-Model-Version")
    return {
        "operationId": "result",
        "summary": N_("The page with the result of a form"),
        "requestBody": {"required": True, "content": _form(model)},
        "responses": {"200": page, **_refused_bodies(settings)},
    }


def _stream(model: LoadedModel) -> Json:
    frames = [ref(name) for name in ("ModelFrame", "PredictionFrame", "PredictionsFrame", "ErrorFrame")]
    confirmed = N_("The subprotocol %(name)s is confirmed if offered.") % {"name": SUBPROTOCOL}
    return {
        "operationId": "stream",
        "summary": N_("Stream samples over a websocket"),
        "description": f"{_FRAMES} {explain.described(model)} {_binary(model)} {_WAITING} {confirmed}",
        "responses": opened(*frames, exchanged=examples.frames_of(model)),
    }


def _binary(model: LoadedModel) -> str:
    """Return what a binary frame is."""
    if any(feature.choices for feature in model.features):
        return N_("A binary frame is an error, as it cannot hold words.")
    rows = N_(
        "A binary frame is rows of little-endian float32, %(features)s a row; its reply is %(outputs)s float32 a row, "
        "NaN where a row cannot be answered. JSON or CSV in a binary frame is an error."
    ) % {"features": len(model.features), "outputs": len(model.labels) or 1}
    has_gaps = any(feature.has_gaps for feature in model.features)
    return f"{rows} " + N_("In its rows NaN is a missing value.") if has_gaps else rows


def _health() -> Json:
    drift = {
        "operationId": "drift",
        "summary": N_("How far recent inputs are from the training data"),
        "description": _NEGOTIATED,
        "parameters": [_FRAGMENT],
        "responses": {"200": response(N_("The report."), json_content("DriftReport") | PAGE)},
    }
    return {
        "/health/live": {"get": read_operation("live", N_("The process answers"), "Live")},
        "/health/ready": {"get": ready_operation("ready")},
        "/health/drift": {"get": drift},
    }


def _metrics() -> Json:
    formats = {"text/plain": TEXT, "application/openmetrics-text": TEXT}
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
