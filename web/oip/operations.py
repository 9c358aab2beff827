"""The operations of the Open Inference Protocol, as the OpenAPI document describes them."""

from __future__ import annotations

import msgspec
import numpy as np

from ml.model.loaded import LoadedModel
from web.api.components import PROBLEM, ready_operation, too_large_of
from web.api.description import N_, Json, json_content, read_operation, ref, response
from web.oip.datatypes import BYTES
from web.oip.messages import SAMPLES, InferenceRequest
from web.oip.outputs import requested_outputs, response_of
from web.settings import Settings


def paths(model: LoadedModel, settings: Settings) -> Json:
    """Return the paths of the Open Inference Protocol."""
    name = _path_parameter("name", model.name)
    version = _path_parameter("version", model.version)
    server = read_operation("serverMetadata", N_("The server, for the Open Inference Protocol"), "ServerMetadata")
    infer = _infer(model, settings)
    return {
        "/v2": {"get": server},
        "/v2/health/live": {"get": read_operation("serverLive", N_("The process answers"), "Live")},
        "/v2/health/ready": {"get": ready_operation("serverReady")},
        **_of_model("/v2/models/{name}", "", [name], infer),
        **_of_model("/v2/models/{name}/versions/{version}", "Version", [name, version], infer),
    }


def _of_model(path: str, suffix: str, parameters: list[Json], infer: Json) -> Json:
    metadata = read_operation(f"model{suffix}Metadata", N_("The model's inputs and outputs"), "ModelMetadata")
    ready = read_operation(f"model{suffix}Ready", N_("The model is loaded"), "ModelReady")
    for operation in (metadata, ready):
        operation |= {"parameters": parameters, "responses": operation["responses"] | _unknown()}
    named = {"operationId": f"infer{suffix}", "summary": N_("Predict tensors of samples"), "parameters": parameters}
    return {path: {"get": metadata}, f"{path}/ready": {"get": ready}, f"{path}/infer": {"post": named | infer}}


def _infer(model: LoadedModel, settings: Settings) -> Json:
    asked = {
        "schema": ref("InferenceRequest"),
        "examples": {"one": {"summary": "one sample", "value": {"inputs": example_inputs(model)}}},
    }
    wrong = json_content("InferenceError")
    return {
        "requestBody": {"required": True, "content": {"application/json": asked}},
        "responses": {
            "200": response(N_("The answers."), json_content("InferenceResponse", one=_example_answer(model))),
            "400": response(N_("Form, input, datatype, shape or data are wrong."), wrong | PROBLEM),
            **_unknown(),
            "413": response(too_large_of(settings), wrong),
            "415": response(N_("A content encoding other than gzip and deflate."), wrong),
            "422": response(N_("A row has a value that the model does not take."), wrong),
        },
    }


def example_inputs(model: LoadedModel) -> list[Json]:
    """Return the model's example as input tensors."""
    if not any(feature.choices for feature in model.features):
        row = [feature.example for feature in model.features]
        return [{"name": SAMPLES, "shape": [1, len(row)], "datatype": "FP64", "data": row}]
    return [
        {"name": one.key, "shape": [1], "datatype": BYTES if one.choices else "FP64", "data": [one.shown(one.example)]}
        for one in model.features
    ]


def _example_answer(model: LoadedModel) -> Json:
    """Return the answer to the example."""
    message = msgspec.json.decode(msgspec.json.encode({"inputs": example_inputs(model)}), type=InferenceRequest)
    outputs = requested_outputs(message, model)
    row = model.validator.row([feature.shown(feature.example) for feature in model.features])
    answers = model.predict_batch(np.array([row]))
    for output in outputs:
        output.add(answers, slice(0, 1))
    answer: Json = msgspec.json.decode(bytes(response_of(message, model, 1, outputs).body))
    return answer


def _unknown() -> Json:
    return {"404": response(N_("No model of this name and version."), json_content("InferenceError"))}


def _path_parameter(name: str, value: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": [value]}, "example": value}
