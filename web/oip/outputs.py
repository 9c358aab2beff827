"""The output tensors: the requested ones, their data, and the response with them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from msgspec import UNSET, Raw
from numpy.typing import NDArray
from starlette.responses import Response

from ml.model.evaluators import Batch
from ml.model.loaded import LoadedModel
from web.oip.messages import (
    HEADER_LENGTH,
    InferenceOutput,
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestedOutput,
)
from web.problems import Problem


def outputs_of(model: LoadedModel) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the datatype of each output, and its shape for one sample."""
    if model.quantity:
        return {"value": ("FP64", ())}
    return {"label": ("BYTES", ()), "probabilities": ("FP64", (len(model.labels),))}


class Output:
    """A tensor of the answer, in the making."""

    def __init__(self, requested: RequestedOutput, model: LoadedModel, *, binary: bool) -> None:
        self.name = requested.name
        self._labels = _text_encoder(model.labels, binary=binary) if self.name == "label" else ()
        self._datatype, self._width = outputs_of(model)[self.name]
        self._binary = binary
        self._parameters = _without(requested.parameters, "binary_data")
        self._pieces: list[bytes] = []

    def add(self, answers: Batch, part: slice) -> None:
        """Encode the answers to some of the rows."""
        if self._labels:
            chosen = [self._labels[index] for index in answers.indices[part].tolist()]
            self._pieces.append((b"" if self._binary else b",").join(chosen))
        else:
            self._pieces.append(_floats(answers.outputs[part], binary=self._binary))

    def finish(self, n_rows: int) -> tuple[InferenceOutput, bytes]:
        """Return the tensor, and its binary data if it has some."""
        content = _joined(self._pieces, binary=self._binary)
        parameters = {**self._parameters, "binary_data_size": len(content)} if self._binary else self._parameters
        output = InferenceOutput(
            name=self.name,
            shape=(n_rows, *self._width),
            datatype=self._datatype,
            parameters=parameters or UNSET,
            data=UNSET if self._binary else Raw(content),
        )
        return output, content if self._binary else b""


def requested_outputs(message: InferenceRequest, model: LoadedModel) -> list[Output]:
    """Return the requested outputs in their order; by default all."""
    default = _flag(message.parameters, "binary_data_output", otherwise=False)
    known = outputs_of(model)
    requested = message.outputs or [RequestedOutput(name=name) for name in known]
    if len({output.name for output in requested}) < len(requested):
        raise Problem(400, "an output is asked for twice")
    outputs = []
    for output in requested:
        if output.name not in known:
            names = " and ".join(f'"{name}"' for name in known)
            raise Problem(400, f'output "{output.name[:80]}" is not known; {names} {"are" if len(known) > 1 else "is"}')
        for extension in ("classification", "shared_memory_region"):
            if extension in (output.parameters or {}):
                raise Problem(400, f'output "{output.name}": this server does not know the parameter {extension}')
        outputs.append(Output(output, model, binary=_flag(output.parameters, "binary_data", otherwise=default)))
    return outputs


def _flag(parameters: Parameters | None, name: str, *, otherwise: bool) -> bool:
    value = (parameters or {}).get(name, otherwise)
    if not isinstance(value, bool):
        raise Problem(400, f"the parameter {name} is either true or false, not {str(value)[:40]!r}")
    return value


def _without(parameters: Parameters | None, name: str) -> Parameters:
    return {key: value for key, value in (parameters or {}).items() if key != name}


def response_of(message: InferenceRequest, model: LoadedModel, n_rows: int, outputs: Sequence[Output]) -> Response:
    """Return the response to a request: JSON, or JSON and then the binary data of its tensors."""
    finished = [output.finish(n_rows) for output in outputs]
    text = msgspec.json.encode(
        InferenceResponse(
            model_name=model.name,
            model_version=model.version,
            id=UNSET if message.id is None else message.id,
            parameters=_without(message.parameters, "binary_data_output") or UNSET,
            outputs=[output for output, _ in finished],
        )
    )
    if all(output.data is not UNSET for output, _ in finished):
        return Response(text, media_type="application/json")
    return Response(
        b"".join([text, *(content for _, content in finished)]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(text))},
    )


def _text_encoder(labels: Sequence[str], *, binary: bool) -> Sequence[bytes]:
    """Return each label as an element of a BYTES tensor: binary, or as a JSON string."""
    if not binary:
        return [msgspec.json.encode(label) for label in labels]
    encoded = (label.encode() for label in labels)
    return [struct.pack("<I", len(content)) + content for content in encoded]


def _floats(values: NDArray[np.float64], *, binary: bool) -> bytes:
    """Return the elements of an FP64 tensor, row by row: binary, or as JSON numbers with commas between them."""
    if binary:
        return values.astype("<f8", copy=False).tobytes()
    return msgspec.json.encode(values.ravel().tolist())[1:-1]


def _joined(pieces: Iterable[bytes], *, binary: bool) -> bytes:
    """Return the data of a tensor from the encodings of its parts: binary, or as a flat JSON array."""
    if binary:
        return b"".join(pieces)
    return b"[" + b",".join(piece for piece in pieces if piece) + b"]"
