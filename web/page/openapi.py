"""The OpenAPI 3.1 document of the service, made of the model's features and the types that encode its messages."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier
from ml.score import added_columns
from ml.tables.numbers import LARGEST, shown_number
from web.api.health import Live, Ready
from web.api.messages import (
    SUBPROTOCOL,
    Answer,
    BatchAnswer,
    ErrorFrame,
    ModelFrame,
    PredictionFrame,
    PredictionsFrame,
    PredictRequest,
)
from web.metrics.drift import DriftReport
from web.oip.messages import (
    SAMPLES,
    InferenceError,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
)
from web.problems import ProblemDetails, SampleError
from web.responses import MEDIA_TYPE
from web.settings import Settings

Json = dict[str, Any]

_TYPES = (
    PredictRequest,
    Answer,
    BatchAnswer,
    ProblemDetails,
    SampleError,
    ModelFrame,
    PredictionFrame,
    PredictionsFrame,
    ErrorFrame,
    Live,
    Ready,
    DriftReport,
    InferenceRequest,
    InferenceResponse,
    InferenceError,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
)
# Some of the text that the validator reads as a number: all of it has signs, spaces and exponents, too.
_NUMBER_TEXT = r"[0-9]{1,15}([.,][0-9]{1,15})?([eE][0-9])?$"


@lru_cache(1)
def document(model: Classifier, settings: Settings) -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(describe(model, settings))


def describe(model: Classifier, settings: Settings) -> Json:
    """Return the document as plain data."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        if "description" in schema:  # a docstring, with the indentation of its source
            schema["description"] = inspect.cleandoc(schema["description"])
    schemas |= {"Sample": {"anyOf": [_ref("NamedSample"), _ref("OrderedSample")]}}
    schemas |= {"NamedSample": _named(model.features), "OrderedSample": _ordered(model.features)}
    schemas["PredictRequest"] |= {"oneOf": [{"required": ["sample"]}, {"required": ["samples"]}]}
    schemas["PredictRequest"]["properties"]["samples"]["maxItems"] = settings.max_samples
    for name in ("Answer", "BatchItem", "PredictionFrame"):
        schemas[name]["properties"]["label"] = {"enum": list(model.labels)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Live prediction: {model.name}",
            "version": model.version,
            "description": f"{model.card.estimator} of {model.card.trees} trees. {model.card.source}.",
        },
        "servers": [{"url": "./"}],
        "paths": _paths(model, settings) | _inference_paths(model, settings),
        "components": {"schemas": schemas},
    }


def _paths(model: Classifier, settings: Settings) -> Json:
    example = {feature.key: feature.example for feature in model.features}
    rows = [[float(value) for value in row] for row in model.sample_rows[:2].tolist()] or [list(example.values())]
    query = [
        {
            "name": feature.key,
            "in": "query",
            "required": True,
            "description": _description(feature),
            "schema": _number(feature),
            "example": feature.example,
        }
        for feature in model.features
    ]
    problem = {MEDIA_TYPE: {"schema": _ref("ProblemDetails")}}
    page = {"text/html": {"schema": {"type": "string"}}}
    answer = {"application/json": {"schema": _ref("Answer")}, **page}
    batch = {"application/json": {"schema": {"anyOf": [_ref("Answer"), _ref("BatchAnswer")]}}, **page}
    filled = {"schema": _ref("NamedSample"), "example": example}
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
                "responses": {"200": _ok("The prediction.", answer)} | unchanged | wrong,
            },
            "post": {
                "operationId": "predictMany",
                "summary": "Predict one sample or many",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": _ref("PredictRequest"),
                            "examples": {
                                "one": {"summary": "one sample", "value": {"sample": example}},
                                "many": {"summary": "many samples", "value": {"samples": rows}},
                            },
                        },
                        **form,
                    },
                },
                "responses": {"200": _ok("The prediction, or predictions in the order of the samples.", batch)}
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
                "responses": {"200": _ok("The page.", page)} | posted,
            },
        },
        "/score": {"post": _score(model, settings, problem | page)},
        "/stream": {
            "get": {
                "operationId": "stream",
                "summary": "Stream samples over a websocket",
                "description": (
                    "The server sends a ModelFrame first. Each text frame is a PredictRequest; its reply, in order, "
                    "is a PredictionFrame, a PredictionsFrame or an ErrorFrame. A binary frame is rows of "
                    f"little-endian float32, {len(model.features)} a row; its reply is {len(model.labels)} float32 a "
                    f"row, NaN where a row cannot be answered. The subprotocol {SUBPROTOCOL} is confirmed if offered."
                ),
                "responses": {
                    "101": {
                        "description": "The websocket is open.",
                        "content": {
                            "application/json": {
                                "schema": {
                                    "anyOf": [
                                        _ref(name)
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
        "/health/live": {"get": _get("live", "The process answers", "Live")},
        "/health/ready": {"get": _get("ready", "A model is loaded", "Ready")},
        "/health/drift": {
            "get": {
                "operationId": "drift",
                "summary": "How far the inputs of late are from the training data",
                "description": "JSON if Accept prefers it, the fragment if HX-Request is true, else a page.",
                "responses": {"200": _ok("The report.", {"application/json": {"schema": _ref("DriftReport")}, **page})},
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "What was counted, for Prometheus",
                "description": "In its text format, or as OpenMetrics if Accept names that.",
                "responses": {
                    "200": _ok(
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
                "responses": {"200": _ok("OpenAPI 3.1.", {"application/json": {"schema": {"type": "object"}}})}
                | unchanged,
            }
        },
        "/docs": {
            "get": {
                "operationId": "docs",
                "summary": "This document for people",
                "responses": {"200": _ok("The page.", page)} | unchanged,
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
            "200": _ok("The table with its new columns.", {"text/csv": {"schema": {"type": "string"}}}),
            "400": _ok("The form cannot be read.", problem),
            "413": _ok(f"More than {settings.max_upload_bytes} bytes.", problem),
            "415": _ok("The body is of another type, or compressed.", problem),
            "422": _ok("There is no file, or it is no table of these features.", problem),
            "503": _ok("Too many files are being scored.", problem),
        },
    }


def _inference_paths(model: Classifier, settings: Settings) -> Json:
    """Return the paths of the Open Inference Protocol."""
    wrong = {"application/json": {"schema": _ref("InferenceError")}}
    unknown = {"404": _ok("No model of this name and version.", wrong)}
    refused = unknown | {
        "400": _ok("Form, input, datatype, shape or data are wrong.", wrong),
        "413": _ok(f"More than {settings.max_body_bytes} bytes or {settings.max_samples} samples.", wrong),
        "415": _ok("A content encoding other than gzip and deflate.", wrong),
        "422": _ok("A row has a value that the model does not take.", wrong),
    }
    name = _path_parameter("name", model.name)
    version = _path_parameter("version", model.version)
    row = [feature.example for feature in model.features]
    tensor = {"name": SAMPLES, "shape": [1, len(row)], "datatype": "FP64", "data": row}
    asked = {
        "schema": _ref("InferenceRequest"),
        "examples": {"one": {"summary": "one sample", "value": {"inputs": [tensor]}}},
    }
    infer = {
        "requestBody": {"required": True, "content": {"application/json": asked}},
        "responses": {"200": _json("InferenceResponse", "The answers.")} | refused,
    }
    paths: Json = {
        "/v2": {"get": _get("serverMetadata", "The server, for the Open Inference Protocol", "ServerMetadata")},
        "/v2/health/live": {"get": _get("serverLive", "The process answers", "Live")},
        "/v2/health/ready": {"get": _get("serverReady", "A model is loaded", "Ready")},
    }
    for path, suffix, parameters in [
        ("/v2/models/{name}", "", [name]),
        ("/v2/models/{name}/versions/{version}", "Version", [name, version]),
    ]:
        shared = {"parameters": parameters}
        metadata = _get(f"model{suffix}Metadata", "The model's inputs and outputs", "ModelMetadata")
        ready = _get(f"model{suffix}Ready", "The model is loaded", "ModelReady")
        paths[path] = {"get": metadata | shared | {"responses": metadata["responses"] | unknown}}
        paths[f"{path}/ready"] = {"get": ready | shared | {"responses": ready["responses"] | unknown}}
        paths[f"{path}/infer"] = {
            "post": {"operationId": f"infer{suffix}", "summary": "Predict tensors of samples"} | shared | infer
        }
    return paths


def _path_parameter(name: str, value: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": [value]}, "example": value}


def _page(operation: str, query: list[Json], page: Json) -> Json:
    # On a page a field holds whatever somebody is typing; the answer says what is wrong with it.
    typed = [parameter | {"required": False, "schema": {"type": "string"}} for parameter in query]
    return {
        "operationId": operation,
        "summary": "The page",
        "description": "Prefilled from the query, or else with the model's example.",
        "parameters": typed,
        "responses": {
            "200": _ok("The page.", page),
            "304": {"description": "The page has not changed since the entity tag in If-None-Match."},
            "422": _ok("The page, with errors.", page),
        },
    }


def _get(operation: str, summary: str, schema: str) -> Json:
    return {"operationId": operation, "summary": summary, "responses": {"200": _json(schema, f"{summary}.")}}


def _json(schema: str, description: str) -> Json:
    return _ok(description, {"application/json": {"schema": _ref(schema)}})


def _named(features: tuple[TrainedFeature, ...]) -> Json:
    return {
        "title": "A sample by feature key",
        "type": "object",
        "properties": {feature.key: _number(feature) for feature in features},
        "required": [feature.key for feature in features],
        "additionalProperties": False,
        "examples": [{feature.key: feature.example for feature in features}],
    }


def _ordered(features: tuple[TrainedFeature, ...]) -> Json:
    return {
        "title": "A sample in the order of the features",
        "type": "array",
        "prefixItems": [_number(feature) for feature in features],
        "minItems": len(features),
        "maxItems": len(features),
        "items": False,
        "examples": [[feature.example for feature in features]],
    }


def _number(feature: TrainedFeature) -> Json:
    """Return the schema of one value: a number, or text as a person types it."""
    kinds: list[Json] = [
        {
            "type": "number",
            "minimum": -LARGEST if feature.minimum is None else feature.minimum,
            "maximum": LARGEST if feature.maximum is None else feature.maximum,
        }
    ]
    if feature.minimum in (None, 0) and feature.maximum is None:  # other limits cannot be told of text
        sign = "^" if feature.minimum == 0 else "^[-+\u2212]?"
        kinds.append({"type": "string", "pattern": sign + _NUMBER_TEXT})
    return {
        "title": feature.title,
        "description": _description(feature),
        "anyOf": kinds,
        "examples": [feature.example],
    }


def _description(feature: TrainedFeature) -> str:
    unit = f" in {feature.unit}" if feature.unit else ""
    return f"{feature.title}{unit}; {feature.low:g} to {feature.high:g} in the training data"


def _ok(description: str, content: Mapping[str, Any]) -> Json:
    return {"description": description, "content": dict(content)}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
