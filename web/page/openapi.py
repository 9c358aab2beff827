"""The OpenAPI 3.1 document of the service, made of the model's features and the types that encode its messages."""

from __future__ import annotations

import inspect
import re
from functools import cache, lru_cache

import msgspec

from ml.model.loaded import LoadedModel
from web.api import components, operations
from web.api.description import TRANSLATED, Json, named_sample, ordered_sample, ref, text_schemas, typed_sample
from web.api.health import Live, Ready
from web.api.messages import (
    Answer,
    BatchAnswer,
    ErrorFrame,
    ModelFrame,
    PredictionFrame,
    PredictionsFrame,
    PredictRequest,
    QuantitiesFrame,
    QuantityAnswer,
    QuantityFrame,
    QuantityItem,
    StreamRequest,
)
from web.metrics.drift import DriftReport
from web.oip import operations as oip_operations
from web.oip.messages import (
    InferenceError,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
)
from web.page.fields import names_of_options
from web.page.languages import Language
from web.problems import ProblemDetails, SampleError
from web.scoring import operations as scoring_operations
from web.scoring.messages import RowError, RowsFrame
from web.settings import Settings

# What a model of a quantity answers in the place of a class model's messages.
_QUANTITIES = {
    "Answer": QuantityAnswer,
    "BatchItem": QuantityItem,
    "PredictionFrame": QuantityFrame,
    "PredictionsFrame": QuantitiesFrame,
}
_TYPES = (
    PredictRequest,
    StreamRequest,
    Answer,
    BatchAnswer,
    ProblemDetails,
    SampleError,
    ModelFrame,
    PredictionFrame,
    PredictionsFrame,
    ErrorFrame,
    RowsFrame,
    RowError,
    Live,
    Ready,
    DriftReport,
    InferenceRequest,
    InferenceResponse,
    InferenceError,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    *_QUANTITIES.values(),
)


# A text's sentences end before these places.
_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z])")
_VALUE = re.compile(r"%\((\w+)\)s")


def translated(text: str, to: Language) -> str | None:
    """Return a text of the document in a language, or None if a sentence of it is not in the catalogues."""
    left, found = _SENTENCE.split(text), []
    while left:
        for number in range(len(left), 0, -1):
            one = _translated(" ".join(left[:number]), to)
            if one is not None:
                found.append(one)
                del left[:number]
                break
        else:
            return None
    return " ".join(found)


def _translated(text: str, to: Language) -> str | None:
    # An answer that is described by the summary of its operation has that text with a full stop.
    for known, end in ((text, ""), (text.removesuffix("."), ".")):
        if known in TRANSLATED:
            return to.gettext(known) + end
    for template in TRANSLATED:
        pattern, end = _pattern_of(template)
        # Few texts have the end, which comes last for a pattern: names of a thousand labels took it a second.
        if pattern and text.endswith(end) and (filled := re.fullmatch(pattern, text, re.DOTALL)):
            return to.gettext(template, **filled.groupdict())
    return None


@cache
def _pattern_of(template: str) -> tuple[str, str]:
    """Return what a text with values in it matches, and its end; the first is empty for one without values."""
    fixed, *parts = _VALUE.split(template)
    if not parts:
        return "", fixed
    named = (f"(?P<{name}>.+?){re.escape(text)}" for name, text in zip(parts[::2], parts[1::2], strict=True))
    return re.escape(fixed) + "".join(named), parts[-1]


@lru_cache(1)
def document(model: LoadedModel, settings: Settings) -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(describe(model, settings))


def describe(model: LoadedModel, settings: Settings) -> Json:
    """Return the document as plain data."""
    described = (operations, scoring_operations, oip_operations)
    paths = {path: item for module in described for path, item in module.paths(model, settings).items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Live prediction: {model.name}",
            "version": model.version,
            "description": f"{_method(model)}{_target(model)}. {model.card.source}.",
        },
        "servers": [{"url": "./"}],
        "paths": {
            path: {
                method: components.completed(path, method, operation, settings) for method, operation in item.items()
            }
            for path, item in paths.items()
        },
        "components": {
            "schemas": _schemas(model, settings),
            "parameters": components.PARAMETERS,
            "headers": components.HEADERS,
            "responses": components.responses(settings),
            "securitySchemes": components.security_schemes(settings),
        },
    }


def _method(model: LoadedModel) -> str:
    card = model.card
    return f"{card.estimator} of {card.trees} trees" if card.trees else card.estimator


def _target(model: LoadedModel) -> str:
    target = model.card.target
    unit = f" in {target.unit}" if target.unit else ""
    return f"; predicts {target.title}{unit}" if target.title else ""


def _label(model: LoadedModel) -> str:
    """Return how the label follows from the probabilities."""
    if decision := model.card.decision:
        return f"{decision.positive} where its probability is at least {decision.threshold!r}, else the other label"
    return "the most probable label; of several, the first"


def _settle_interval(schema: Json, *, is_known: bool) -> None:
    """Say whether answers have an interval: those of one model all have it, or none has."""
    if not is_known:
        del schema["properties"]["interval"]
    schema["required"] = [name for name in schema["properties"] if name in schema["required"] or name == "interval"]


@cache
def _schemas_of_types() -> bytes:
    """Return the schemas of our types as JSON, from which each model's are made: to derive them takes 5 ms."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        if "description" in schema:  # a docstring, with the indentation of its source
            schema["description"] = inspect.cleandoc(schema["description"])
    return msgspec.json.encode(schemas)


def _schemas(model: LoadedModel, settings: Settings) -> Json:
    schemas = msgspec.json.decode(_schemas_of_types())
    for name in ("PredictRequest", "StreamRequest"):
        schemas[name] |= {"oneOf": [{"required": ["sample"]}, {"required": ["samples"]}]}
        schemas[name]["properties"]["samples"]["maxItems"] = settings.max_samples
    for name, quantity in _QUANTITIES.items():
        of_quantity = schemas.pop(quantity.__name__)
        if model.quantity:
            schemas[name] = of_quantity | {"title": name}
            _settle_interval(schemas[name], is_known=model.quantity.interval is not None)
        elif "label" in schemas[name]["properties"]:
            schemas[name]["properties"]["label"] = {"enum": list(model.labels), "description": _label(model)}
    return {
        **schemas,
        "Sample": {"anyOf": [ref("NamedSample"), ref("OrderedSample")]},
        "NamedSample": named_sample(model.features),
        "OrderedSample": ordered_sample(model.features),
        "TypedSample": typed_sample(model.features, [*names_of_options(model).values()]),
        **text_schemas(),
    }
