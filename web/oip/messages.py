"""The messages of the Open Inference Protocol: their types, and the decoding of requests.

A request is JSON, or JSON and then binary data. The elements of its tensors stay encoded here (see `web.oip.tensors`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from web.oip.datatypes import BOOL, BYTES, NUMERIC
from web.oip.elements import end_of_texts
from web.problems import Problem
from web.requests import text_kind

# The input that holds all features of n samples, shape [n, n_features]; or else there is one input a feature.
SAMPLES = "samples"
# The header that says how many bytes of a body are JSON, where binary data follow.
HEADER_LENGTH = "Inference-Header-Content-Length"

# A request is little text beside its numbers. More of it is refused before it is decoded: a body of nothing but small
# objects would make all other clients wait for a third of a second.
MAX_TEXT_BYTES = 2**18
MAX_ARRAYS = 2**13

Parameters = dict[str, str | bool | int | float]

_ELEMENT = {"type": ["number", "boolean", "string", "null"]}
_DATATYPES = {"enum": [*NUMERIC, BOOL, BYTES]}
_Datatype = Annotated[str, Meta(description="the type of the elements", extra_json_schema=_DATATYPES)]
_Shape = Annotated[list[int], Meta(description="[n, n_features], or [n] or [n, 1] for an input of one feature")]
_Data = Annotated[
    Raw,
    Meta(
        description="the elements in row-major order, flat or one array a row; null, or a text of nothing, is no value",
        extra_json_schema={
            "type": ["array", "null"],
            "items": {"anyOf": [_ELEMENT, {"type": "array", "items": _ELEMENT}]},
        },
    ),
]
_Answers = Annotated[
    Raw,
    Meta(
        description="the elements in row-major order, flat; left out when they follow as binary data",
        extra_json_schema={"type": "array", "items": {"type": ["string", "number"]}},
    ),
]


class InferenceInput(msgspec.Struct, kw_only=True):
    """A tensor of samples: all their features, or one of them.

    The parameter `binary_data_size` says that the elements follow the JSON text as so many bytes of binary data.
    """

    name: str
    shape: _Shape
    datatype: _Datatype
    parameters: Parameters | None = None
    data: _Data | UnsetType = UNSET


class RequestedOutput(msgspec.Struct, kw_only=True):
    """A tensor that the answer is to have; with the parameter `binary_data` true, as binary data.

    A model of classes has `label` and `probabilities`, a model of a quantity `value`.
    """

    name: Annotated[str, Meta(extra_json_schema={"enum": ["label", "probabilities", "value"]})]
    parameters: Parameters | None = None


class InferenceRequest(msgspec.Struct, kw_only=True):
    """Samples as tensors, and the requested output tensors; all of them by default.

    The parameter `binary_data_output` asks for every output as binary data; other parameters come back as they are.
    """

    inputs: list[InferenceInput]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class InferenceOutput(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A tensor of answers; the parameter `binary_data_size` says how many bytes of binary data it has."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Parameters | UnsetType = UNSET
    data: _Answers | UnsetType = UNSET


class InferenceResponse(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The answers, in the order of the samples."""

    model_name: str
    model_version: str
    id: str | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET
    outputs: Sequence[InferenceOutput]


class InferenceError(msgspec.Struct, frozen=True):
    """The reason why a request cannot be answered."""

    error: str


class TensorMetadata(msgspec.Struct, kw_only=True, frozen=True):
    """A tensor of the model's inputs or outputs; -1 in its shape is any number of samples."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, kw_only=True, frozen=True):
    """The model's inputs and outputs. `properties`, each as JSON: its features and labels in their order, and more.

    With a `decision` the output `label` is its positive label where that has at least the threshold's probability.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[TensorMetadata]
    properties: dict[str, str]


class ServerMetadata(msgspec.Struct, kw_only=True, frozen=True):
    """The server, and the extensions of the protocol that it supports."""

    name: str
    version: str
    extensions: tuple[str, ...]


class ModelReady(msgspec.Struct, kw_only=True, frozen=True):
    """The model is ready for requests."""

    name: str
    ready: bool


async def read(body: bytes, header_length: int | None, n_features: int) -> tuple[InferenceRequest, memoryview]:
    """Return the request in a body, and the binary data after it.

    Args:
        header_length: how many bytes are JSON; None is all of them. 0 makes the body one tensor of FP64 samples, all of
            whose outputs are binary (the extension's raw binary request).
        n_features: the number of features of the model.

    Raises:
        Problem: 400, it is not JSON, has another form than a request, or is more text than numbers need.
    """
    if header_length == 0:
        if kind := text_kind(body, n_features):
            raise Problem(400, f"the body is {kind}, and {HEADER_LENGTH}: 0 says that all of it is binary")
        return _raw_request(body, n_features), memoryview(body)
    text = body if header_length is None else body[:header_length]
    try:
        message = await _decode(text)
    except msgspec.ValidationError as error:
        raise Problem(400, f"the request has the wrong form: {error}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        if not text.strip():
            raise Problem(400, 'the request is empty: send JSON with "inputs"') from None
        raise Problem(400, f"the request is not JSON: {error}") from error
    except RecursionError as error:
        raise Problem(400, "the request is nested too deeply") from error
    return message, memoryview(body)[len(text) :]


def _raw_request(body: bytes, n_features: int) -> InferenceRequest:
    shape = [len(body) // (8 * n_features), n_features]
    only = InferenceInput(name=SAMPLES, shape=shape, datatype="FP64", parameters={"binary_data_size": len(body)})
    return InferenceRequest(inputs=[only], parameters={"binary_data_output": True})


_request_decoder = msgspec.json.Decoder(InferenceRequest)
_data = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\[')


async def _decode(text: bytes) -> InferenceRequest:
    """Return the request in a JSON text; the data of a large one is set aside, because scanning it is slow."""
    if len(text) <= MAX_TEXT_BYTES:
        small: InferenceRequest = _request_decoder.decode(text)
        return small
    kept, arrays = await _set_data_aside(text)
    await asyncio.sleep(0)
    if len(kept) > MAX_TEXT_BYTES:
        raise Problem(400, f"the request has more than {MAX_TEXT_BYTES} bytes beside its data")
    message: InferenceRequest = _request_decoder.decode(kept)
    await asyncio.sleep(0)
    for tensor in message.inputs:
        if tensor.data is not UNSET:
            tensor.data = arrays.pop(bytes(tensor.data), tensor.data)
    if arrays:
        raise Problem(400, "the request has data that belong to no input")
    return message


async def _set_data_aside(text: bytes) -> tuple[bytes, dict[bytes, Raw]]:
    """Return the text with a number in place of each array under "data", and these arrays by that number.

    Quotes and braces do not occur in an array of numbers, so it ends at the last bracket before either; if what stands
    there is something else, the rest of the text is no JSON, or the array is found not to be one when it is decoded.
    """
    kept: list[bytes] = []
    arrays: dict[bytes, Raw] = {}
    start = search = 0
    for _ in range(MAX_ARRAYS):
        search = text.find(b'"data"', search)
        if search < 0:
            break
        opening = _data.match(text, search)
        search += 1
        if not opening:
            continue
        first = opening.end() - 1
        quote = text.find(b'"', first)
        brace = text.find(b"}", first, quote if quote >= 0 else len(text))
        last = text.rfind(b"]", first, max(quote, 0) if brace < 0 else brace) + 1
        if last <= first or text.count(b"[", first, last) != text.count(b"]", first, last):
            last = await end_of_texts(text, first)
        array = text[first:last] if last > first else b""
        if array:
            number = str(len(arrays)).encode()
            kept += [text[start:first], number]
            arrays[number] = Raw(array)
            start = search = last
    return b"".join([*kept, text[start:]]), arrays
