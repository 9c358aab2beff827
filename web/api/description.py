"""How operations and samples are described in the OpenAPI document: the parts that all descriptions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml.model.card import TrainedFeature
from ml.tables.numbers import LARGEST

Json = dict[str, Any]

# Some of the text that the validator reads as a number: all of it has signs, spaces and exponents, too.
_NUMBER_TEXT = r"[0-9]{1,15}([.,][0-9]{1,15})?([eE][0-9])?$"


def read_operation(operation: str, summary: str, schema: str) -> Json:
    """Return an operation without parameters that answers with one kind of message."""
    return {"operationId": operation, "summary": summary, "responses": {"200": json_response(schema, f"{summary}.")}}


def json_response(schema: str, description: str) -> Json:
    """Return a response that is a message of this name."""
    return response(description, {"application/json": {"schema": ref(schema)}})


def named_sample(features: tuple[TrainedFeature, ...]) -> Json:
    """Return the schema of a sample by feature key."""
    return {
        "title": "A sample by feature key",
        "type": "object",
        "properties": {feature.key: number_of(feature) for feature in features},
        "required": [feature.key for feature in features],
        "additionalProperties": False,
        "examples": [{feature.key: feature.example for feature in features}],
    }


def ordered_sample(features: tuple[TrainedFeature, ...]) -> Json:
    """Return the schema of a sample in the order of the features."""
    return {
        "title": "A sample in the order of the features",
        "type": "array",
        "prefixItems": [number_of(feature) for feature in features],
        "minItems": len(features),
        "maxItems": len(features),
        "items": False,
        "examples": [[feature.example for feature in features]],
    }


def number_of(feature: TrainedFeature) -> Json:
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
        "description": description_of(feature),
        "anyOf": kinds,
        "examples": [feature.example],
    }


def description_of(feature: TrainedFeature) -> str:
    """Return what a feature is, in a sentence."""
    unit = f" in {feature.unit}" if feature.unit else ""
    return f"{feature.title}{unit}; {feature.low:g} to {feature.high:g} in the training data"


def response(description: str, content: Mapping[str, Any]) -> Json:
    """Return a response with its content by media type."""
    return {"description": description, "content": dict(content)}


def ref(name: str) -> Json:
    """Return a reference to a message's schema."""
    return {"$ref": f"#/components/schemas/{name}"}
