"""Shared parts of the OpenAPI document: schemas of samples, responses, references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml.model.card import TrainedFeature
from ml.model.values import no_value_text, no_value_texts, typed_gaps
from ml.tables.headers import apart
from ml.tables.numbers import LARGEST, shown_number
from ml.tables.written import RowWriter
from web.api.messages import Value

Json = dict[str, Any]

# The texts of the document that its page has in the reader's language: each is in every catalogue. What depends on the
# model or on settings is filled in, as in "More than %(bytes)s bytes."
TRANSLATED: set[str] = set()

# A sentence names so many choices of a category.
SHOWN_CHOICES = 10

# The characters that the validator strips from both ends of text: those for which `str.isspace` is true.
_SPACE = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES = f"[{_SPACE}]*"
_NOT_BLANK = f"[^{_SPACE}]"
_SIGN = r"[-+\u2212]?"
# With so many digits and such an exponent a number is finite in float32 and shorter than the longest text.
_DIGITS = r"([0-9]{1,29}([.,][0-9]{0,20})?|[.,][0-9]{1,20})"
_FEW_DIGITS = r"([0-9]{1,9}([.,][0-9]{0,20})?|[.,][0-9]{1,20})"
_NUMBER = rf"({_DIGITS}([eE]([-\u2212][0-9]{{1,3}}|\+?0{{0,3}}[0-9]))?|{_FEW_DIGITS}[eE]\+?0{{0,3}}[12][0-9])"
_READ_BESIDE = "Up to 64 characters are read, with more digits and larger exponents as well if the number is finite."


def text_schemas() -> Json:
    """Return the schemas of text that stands for a number, by name."""
    number = "A number as a person types it: a mark, . or ,; a sign; an exponent; spaces around it."
    return {
        "NumberText": _text(_SIGN + _NUMBER, f"{number} {_READ_BESIDE}"),
        "UnsignedNumberText": _text(r"\+?" + _NUMBER, f"{number} Not below 0. {_READ_BESIDE}"),
        "HalfTypedText": _text(
            f"{_SIGN}([.,]?|{_DIGITS}[eE]{_SIGN})", "The beginning of a number, or nothing: incomplete, not wrong."
        ),
    }


def _text(pattern: str, description: str) -> Json:
    return {"type": "string", "pattern": f"^{_SPACES}{pattern}{_SPACES}$", "description": description}


def named_sample(features: tuple[TrainedFeature, ...]) -> Json:
    """Return the schema of a sample by feature key."""
    return {
        "title": "A sample by feature key",
        "type": "object",
        "description": "A feature may also be named by the header of its column in the training table, but not twice.",
        "properties": {feature.key: value_of(feature) for feature in features},
        "required": [feature.key for feature in features],
        "additionalProperties": False,
        "examples": [example_of(features)],
    }


def typed_sample(features: tuple[TrainedFeature, ...], options: Sequence[str]) -> Json:
    """Return the schema of a form that may be incomplete; `options` are its other fields."""
    shown: Json = {name: {"type": "string"} for name in options}
    return {
        "title": "A sample as a form, of which a part may not be typed yet",
        "type": "object",
        "properties": shown | {feature.key: typed_value_of(feature) for feature in features},
        "additionalProperties": False,
        "examples": [example_of(features)],
    }


def ordered_sample(features: tuple[TrainedFeature, ...]) -> Json:
    """Return the schema of a sample in the order of the features."""
    return {
        "title": "A sample in the order of the features",
        "type": "array",
        "prefixItems": [value_of(feature) for feature in features],
        "minItems": len(features),
        "maxItems": len(features),
        "items": False,
        "examples": [[*example_of(features).values()]],
    }


def example_of(features: Iterable[TrainedFeature]) -> dict[str, Value]:
    """Return the model's example as a sample."""
    return {feature.key: feature.shown(feature.example) for feature in features}


def text_of(feature: TrainedFeature, value: float) -> str:
    """Return a value of a row as a person writes it."""
    shown = feature.shown(value)
    if shown is None:
        return no_value_text(feature)
    if isinstance(shown, str):
        return shown
    # Between thousands, a point is no decimal mark.
    return shown_number(shown).replace(".", feature.decimal if feature.thousands == "." else ".")


def table_of(features: Sequence[TrainedFeature]) -> str:
    """Return a table as a CSV file: the columns of the features, named as in training, and a row with the example."""
    writer = RowWriter(",", guarded=True)
    header = [feature.header or feature.key for feature in features]
    rows = [header, [text_of(feature, feature.example) for feature in features]]
    return "".join(f"{writer.row(cells)}\r\n" for cells in rows)


def value_of(feature: TrainedFeature) -> Json:
    """Return the schema of one value: a number, or text as a person types it; a word; or null."""
    kinds = _words(feature) if feature.choices else _numbers(feature)
    return {
        "title": feature.title,
        "description": description_of(feature) + ("" if feature.choices else _about_text(feature)),
        "anyOf": [*kinds, {"type": "null"}] if feature.has_gaps else kinds,
        "examples": [feature.shown(feature.example)],
    }


def typed_value_of(feature: TrainedFeature) -> Json:
    """Return the schema of a field of a page: one value, or the beginning of it."""
    schema = value_of(feature)
    kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    return schema | {"anyOf": [*kinds, {"type": "string"} if feature.choices else ref("HalfTypedText")]}


def _words(feature: TrainedFeature) -> list[Json]:
    """Return the schemas of a category's values: mostly any word is taken, the choices are those that were seen."""
    any_word = {"type": "string", "pattern": _NOT_BLANK, "description": "any other word: it was not seen in training"}
    return [
        {"enum": [*feature.choices]},
        *([] if feature.is_closed else [any_word]),
        {"type": ["boolean", "number"], "description": "the word that is its JSON text, or says the same"},
    ]


def _numbers(feature: TrainedFeature) -> list[Json]:
    number = {
        "type": "number",
        "minimum": -LARGEST if feature.minimum is None else feature.minimum,
        "maximum": LARGEST if feature.maximum is None else feature.maximum,
    }
    kinds: list[Json] = [number]
    if _has_pattern(feature):
        kinds.append(ref("UnsignedNumberText" if feature.minimum == 0 else "NumberText"))
    if feature.has_gaps:
        kinds.append({"enum": sorted({*no_value_texts(feature), *typed_gaps()}), "description": "no value"})
    return kinds


def _has_pattern(feature: TrainedFeature) -> bool:
    """Return whether a pattern can express the limits for text; marks of thousands have none."""
    return feature.minimum in (None, 0) and feature.maximum is None and not feature.thousands


def _about_text(feature: TrainedFeature) -> str:
    if _has_pattern(feature):
        return ""
    return "; text as a person types it is read as well, within the limits, which a pattern cannot express"


def description_of(feature: TrainedFeature) -> str:
    """Return what a feature is, in a sentence."""
    missing = "; may be missing" if feature.has_gaps else ""
    if feature.choices:
        more = ", …" if len(feature.choices) > SHOWN_CHOICES else ""
        return (
            f"{feature.title}: {', '.join(apart(feature.choices[:SHOWN_CHOICES]))}{more} in the training data{missing}"
        )
    unit = f" in {feature.unit}" if feature.unit else ""
    span = f"; {feature.low:g} to {feature.high:g} in the training data" if feature.has_range else ""
    return f"{feature.title}{unit}{span}{missing}"


def read_operation(operation: str, summary: str, schema: str) -> Json:
    """Return an operation without parameters that answers with one kind of message."""
    answer = response(f"{summary}.", json_content(schema))
    return {"operationId": operation, "summary": summary, "responses": {"200": answer}}


def json_content(schema: str, **examples: object) -> Json:
    """Return content that is a message of this name, with examples by name."""
    content: Json = {"schema": ref(schema)}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


def N_(text: str) -> str:  # the usual name, which is looked for when texts are extracted
    """Return a text that the documentation's page translates."""
    TRANSLATED.add(text)
    return text


def response(description: str, content: Mapping[str, Any] | None = None, *headers: str) -> Json:
    """Return a response with its content by media type, and headers by name: that of the request's id is always one."""
    described: Json = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in (*headers, "X-Request-ID")},
    }
    return described | {"content": dict(content)} if content else described


def ref(name: str, kind: str = "schemas") -> Json:
    """Return a reference to a message's schema, or to a component of another kind."""
    return {"$ref": f"#/components/{kind}/{name}"}
