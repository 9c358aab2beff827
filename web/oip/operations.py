"""The operations of the Open Inference Protocol, as the OpenAPI document describes them."""

from __future__ import annotations

from ml.model.classifier import Classifier
from web.api.description import Json, json_response, read_operation, ref, response
from web.oip.messages import SAMPLES
from web.settings import Settings


def paths(model: Classifier, settings: Settings) -> Json:
    """Return the paths of the Open Inference Protocol."""
    wrong = {"application/json": {"schema": ref("InferenceError")}}
    unknown = {"404": response("No model of this name and version.", wrong)}
    refused = unknown | {
        "400": response("Form, input, datatype, shape or data are wrong.", wrong),
        "413": response(f"More than {settings.max_body_bytes} bytes or {settings.max_samples} samples.", wrong),
        "415": response("A content encoding other than gzip and deflate.", wrong),
        "422": response("A row has a value that the model does not take.", wrong),
    }
    name = _path_parameter("name", model.name)
    version = _path_parameter("version", model.version)
    row = [feature.example for feature in model.features]
    tensor = {"name": SAMPLES, "shape": [1, len(row)], "datatype": "FP64", "data": row}
    asked = {
        "schema": ref("InferenceRequest"),
        "examples": {"one": {"summary": "one sample", "value": {"inputs": [tensor]}}},
    }
    infer = {
        "requestBody": {"required": True, "content": {"application/json": asked}},
        "responses": {"200": json_response("InferenceResponse", "The answers.")} | refused,
    }
    paths: Json = {
        "/v2": {
            "get": read_operation("serverMetadata", "The server, for the Open Inference Protocol", "ServerMetadata")
        },
        "/v2/health/live": {"get": read_operation("serverLive", "The process answers", "Live")},
        "/v2/health/ready": {"get": read_operation("serverReady", "A model is loaded", "Ready")},
    }
    for path, suffix, parameters in [
        ("/v2/models/{name}", "", [name]),
        ("/v2/models/{name}/versions/{version}", "Version", [name, version]),
    ]:
        shared = {"parameters": parameters}
        metadata = read_operation(f"model{suffix}Metadata", "The model's inputs and outputs", "ModelMetadata")
        ready = read_operation(f"model{suffix}Ready", "The model is loaded", "ModelReady")
        paths[path] = {"get": metadata | shared | {"responses": metadata["responses"] | unknown}}
        paths[f"{path}/ready"] = {"get": ready | shared | {"responses": ready["responses"] | unknown}}
        paths[f"{path}/infer"] = {
            "post": {"operationId": f"infer{suffix}", "summary": "Predict tensors of samples"} | shared | infer
        }
    return paths


def _path_parameter(name: str, value: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": [value]}, "example": value}
