"""The input tensors of a request become columns of values, feature by feature. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET, Raw

from ml.tables.dataset import Feature
from web.oip.datatypes import BOOL, BYTES, NUMERIC, Numbers, Words
from web.oip.elements import from_binary, from_json, shown_json
from web.oip.messages import HEADER_LENGTH, SAMPLES, InferenceInput
from web.problems import Problem

_SHOWN_FEATURES = 10


async def read(
    inputs: Sequence[InferenceInput], binary: memoryview, features: Sequence[Feature], *, max_samples: int
) -> list[Numbers | Words]:
    """Return the inputs as tensors that make rows when they are put side by side.

    Numbers have the shape (n, k), booleans and texts (n,): they are of one feature each.

    Args:
        inputs: one input of all features, which must be numbers, or one a feature in any order.
        binary: the binary data after the request.
        features: the model's, in their order.
        max_samples: the largest n.

    Raises:
        Problem: 413, there are more samples; 400, anything else is wrong with names, shapes, datatypes or data.
    """
    ordered = _in_order(inputs, features)
    width = len(features) if len(ordered) == 1 else 1
    counts = {_n_rows(tensor, width) for tensor in ordered}
    if len(counts) > 1:
        raise Problem(400, "the inputs have different numbers of samples")
    (n_rows,) = counts
    if n_rows > max_samples:
        raise Problem(413, f"at most {max_samples} samples are allowed in one request, not {shown_json(n_rows)}")
    parts = _binary_parts(inputs, binary)
    columns = []
    for tensor in ordered:
        if tensor.name in parts:
            columns.append(await from_binary(parts[tensor.name], tensor.datatype, (n_rows, width), name=tensor.name))
        elif (text := _data_of(tensor)) is not None:
            columns.append(await from_json(bytes(text), tensor.datatype, (n_rows, width), name=tensor.name))
        else:
            raise Problem(400, f'input "{tensor.name}" has neither data nor the parameter binary_data_size')
    return columns


def _in_order(inputs: Sequence[InferenceInput], features: Sequence[Feature]) -> list[InferenceInput]:
    """Return the one input of all features, or the inputs of each feature in the order of the features."""
    named = {tensor.name: tensor for tensor in inputs}
    if len(named) < len(inputs):
        raise Problem(400, "two inputs have the same name")
    keys = [feature.key for feature in features]
    has_words = any(feature.choices for feature in features)
    if set(named) == {SAMPLES} and not (has_words and keys != [SAMPLES]):
        return [named[SAMPLES]]
    listed = ", ".join(keys[:_SHOWN_FEATURES]) + (", …" if len(keys) > _SHOWN_FEATURES else "")
    wanted = f"one for each feature: {listed}"
    wanted = f"send {wanted}" if has_words else f'send one input "{SAMPLES}" of shape [n, {len(keys)}], or {wanted}'
    if has_words and SAMPLES in named and SAMPLES not in keys:
        raise Problem(400, f'"{SAMPLES}" cannot hold the words of this model; {wanted}')
    if SAMPLES in named and SAMPLES not in keys:
        raise Problem(400, f'there are other inputs beside "{SAMPLES}"; {wanted}')
    return _by_feature(named, features, wanted)


def _by_feature(named: Mapping[str, InferenceInput], features: Sequence[Feature], wanted: str) -> list[InferenceInput]:
    """Return the input of each feature, whose name is its key or, if no other feature has that key, its header."""
    keys = {feature.key for feature in features}
    key_of = {feature.header: feature.key for feature in features if feature.header} | {key: key for key in keys}
    found: dict[str, InferenceInput] = {}
    for name, tensor in named.items():
        key = key_of.get(name)
        if key is None:
            raise Problem(400, f"input {shown_json(name)} is not known; {wanted}")
        if key in found:
            raise Problem(400, f"inputs {shown_json(found[key].name)} and {shown_json(name)} are the same feature")
        found[key] = tensor
    for feature in features:
        if feature.key not in found:
            raise Problem(400, f'input "{feature.key}" is missing; {wanted}')
    return [found[feature.key] for feature in features]


def _n_rows(tensor: InferenceInput, width: int) -> int:
    """Return the number of samples of a tensor with `width` values a sample."""
    datatypes = [*NUMERIC, BOOL, BYTES] if width == 1 else [*NUMERIC]
    if tensor.datatype not in datatypes:
        known = ", ".join(datatypes)
        raise Problem(400, f'input "{tensor.name}" has the datatype {shown_json(tensor.datatype)}; known are {known}')
    if "shared_memory_region" in (tensor.parameters or {}):
        raise Problem(400, f'input "{tensor.name}": this server shares no memory; send the data')
    n_rows, *rest = tensor.shape or [-1]
    if n_rows < 0 or not (rest == [width] or (width == 1 and not rest)):
        shape = ", ".join(map(shown_json, tensor.shape[:4])) + (", …" if len(tensor.shape) > 4 else "")
        wanted = f"[n, {width}]" if width > 1 else "[n] or [n, 1]"
        raise Problem(400, f'input "{tensor.name}" has the shape [{shape}], not {wanted}')
    return n_rows


def _data_of(tensor: InferenceInput) -> Raw | None:
    if tensor.data is UNSET or bytes(memoryview(tensor.data)[:4]) == b"null":
        return None
    return tensor.data


def _binary_parts(inputs: Sequence[InferenceInput], binary: memoryview) -> dict[str, memoryview]:
    """Return the binary data of each input that has some; they follow each other in the order of the request."""
    parts: dict[str, memoryview] = {}
    for tensor in inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(binary):
            raise Problem(
                400,
                f'input "{tensor.name}" has the binary_data_size {shown_json(size)}, but {len(binary)} bytes are left '
                f"after the JSON text, whose length the header {HEADER_LENGTH} gives",
            )
        if _data_of(tensor) is not None:
            raise Problem(400, f'input "{tensor.name}" has both data and the parameter binary_data_size')
        parts[tensor.name], binary = binary[:size], binary[size:]
    if binary:
        raise Problem(400, f"{len(binary)} bytes of binary data belong to no input")
    return parts
