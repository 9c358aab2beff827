"""The JSON messages of programs: decoding of requests, encoding of predictions.

One `Encoder` a model keeps what does not change between answers; predictions of a decision table are shared objects
(see `ml.model.classifier.Prediction`), so their JSON is encoded once and kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier, Prediction
from ml.model.sample import FieldError, Note
from web.problems import Problem, ProblemDetails

# A decision table of Iris has 2,408 different answers, each a few hundred bytes.
KEPT_ANSWERS = 8_192
# Commas that an id or unknown features may add to those between values.
SPARE_COMMAS = 10_000
# The longest reason in an error: it may name a member, and so be as long as the request.
MAX_REASON_CHARACTERS = 200


# The version of the frames. It is confirmed if a client offers it, and used in any case.
SUBPROTOCOL = "prediction.v1"

# Parts that are decoded or encoded on their own, with what they are for the OpenAPI document (web/page/openapi.py).
_Sample = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/Sample"})]
_Probabilities = Annotated[Raw, Meta(extra_json_schema={"type": "array", "items": {"type": "number"}})]
_Id = Annotated[Raw, Meta(description="any JSON value, echoed in the reply")]


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One sample or many: a JSON body, or a text frame of the stream with an `id` to be echoed; no other members."""

    # Samples stay encoded, so that a large request is taken in without decoding it all at once.
    id: _Id | UnsetType = UNSET
    sample: _Sample | UnsetType = UNSET
    samples: list[_Sample] | UnsetType = UNSET


class _Identified(msgspec.Struct):
    id: Raw | UnsetType = UNSET


class ModelName(msgspec.Struct, frozen=True):
    """The name and version of the model that answers."""

    name: str
    version: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one sample; probabilities are by label and bit-identical to scikit-learn's."""

    model: ModelName
    sample: dict[str, float]
    label: str
    probabilities: dict[str, float]
    notes: Sequence[Note]


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one sample of many."""

    label: str
    probabilities: dict[str, float]
    notes: Sequence[Note]


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to many samples, in their order."""

    model: ModelName
    predictions: Sequence[BatchItem]


class PredictionFrame(msgspec.Struct, frozen=True, tag="prediction"):
    """The stream's reply to one sample."""

    id: _Id | UnsetType
    label: str
    probabilities: dict[str, float]
    version: str


class PredictionsFrame(msgspec.Struct, frozen=True, tag="predictions"):
    """The stream's reply to many samples: labels and, by label, encoded lists of probabilities, in their order."""

    id: _Id | UnsetType
    labels: list[str]
    probabilities: dict[str, _Probabilities]
    version: str


class ErrorFrame(msgspec.Struct, frozen=True, tag="error"):
    """The stream's reply to a frame that cannot be answered."""

    id: _Id | UnsetType
    error: ProblemDetails


class StreamLimits(msgspec.Struct, frozen=True):
    """The limits of the stream, announced in its first frame."""

    max_frame_bytes: int
    max_samples: int


class StreamModel(msgspec.Struct, frozen=True):
    """The model as the stream announces it."""

    name: str
    version: str
    features: tuple[TrainedFeature, ...]
    labels: tuple[str, ...]


class ModelFrame(msgspec.Struct, frozen=True, tag="model"):
    """The first frame that the server sends."""

    model: StreamModel
    limits: StreamLimits


class RowError(msgspec.Struct, frozen=True):
    """A row without an answer: its line in the file, counted from 1, why, and the errors of its values."""

    line: int
    message: str
    errors: Sequence[FieldError]


class RowsFrame(msgspec.Struct, frozen=True, tag="rows"):
    """The answer to a binary frame, after the text of its rows.

    Attributes:
        read: the bytes of the file that are answered, up to the end of a row.
        rows: how many rows were answered, and `bad` of them without a prediction; `errors` are the first of these.
        counts: how many rows have each label, without those that none has.
        points: some of the rows as numbers: the index of the label, then the values in the order of the features.
        resume: goes on after `read`, on any connection; empty while the header is not complete.
        done: whether this was the end of the file.
    """

    read: int
    rows: int
    bad: int
    errors: list[RowError]
    counts: dict[str, int]
    points: list[list[float]]
    version: str
    resume: str
    done: bool


_request_decoder = msgspec.json.Decoder(PredictRequest)
_sample_decoder = msgspec.json.Decoder(dict[str, object] | list[object])


def decode_request(content: bytes | str, *, max_values: int) -> PredictRequest:
    """Return the request in a JSON text.

    Args:
        max_values: how many values the largest request has. Twice as many commas are too many, even when each number
            is text with a decimal comma; they are counted before they become objects of 50 bytes each.

    Raises:
        Problem: 400 when it is not JSON, 413 when it has far too many values, 422 when it is no request.
    """
    commas = content.count(",") if isinstance(content, str) else content.count(b",")
    if commas > 2 * max_values + SPARE_COMMAS:
        raise Problem(413, f"more than {max_values} values in one request")
    try:
        return _request_decoder.decode(content)
    except msgspec.ValidationError as error:
        raise Problem(422, f"the request has the wrong form: {str(error)[:MAX_REASON_CHARACTERS]}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Problem(400, f"the request is not JSON: {error}") from error
    except RecursionError as error:
        raise Problem(400, "the request is nested too deeply") from error


def id_of(content: str | bytes) -> Raw | UnsetType:
    """Return the id of a frame that has the wrong form, so that its sender can identify it."""
    try:
        return msgspec.json.decode(content, type=_Identified).id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return UNSET


def decode_sample(encoded: Raw) -> Mapping[str, object] | Sequence[object]:
    """Return one sample of a request.

    Raises:
        Problem: 422 when it is neither an object nor an array.
    """
    try:
        decoded: Mapping[str, object] | Sequence[object] = _sample_decoder.decode(encoded)
        return decoded
    except (msgspec.ValidationError, RecursionError):
        pass  # either another JSON value, or one with a number that no float64 can hold, such as 1e999
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Problem(400, f"the request is not JSON: {error}") from error
    try:
        sample: object = json.loads(bytes(encoded), parse_int=float)
    except (RecursionError, UnicodeError) as error:
        raise Problem(400, "the request is nested too deeply, or not UTF-8") from error
    if not isinstance(sample, dict | list):
        raise Problem(422, "a sample is an object by feature key, or an array in the order of the features")
    return sample


class Encoder:
    """Encodes the answers of one model, to the bytes that msgspec makes of their types, several times as fast."""

    def __init__(self, model: Classifier) -> None:
        self.name = ModelName(model.name, model.version)
        self._labels = model.labels
        self._keys = tuple(feature.key for feature in model.features)
        self._start = b'{"model":' + msgspec.json.encode(self.name) + b',"sample":'
        self._version = b',"version":' + msgspec.json.encode(model.version) + b"}"
        self._members = lru_cache(KEPT_ANSWERS)(self._encode_members)
        self._frame_end = lru_cache(KEPT_ANSWERS)(self._encode_frame_end)

    def answer(self, row: Sequence[float], prediction: Prediction, notes: Sequence[Note]) -> bytes:
        """Return the JSON answer to a sample: model, sample, label, probabilities and notes."""
        sample = msgspec.json.encode(dict(zip(self._keys, row, strict=True)))
        encoded_notes = msgspec.json.encode(notes) if notes else b"[]"
        return b"".join((self._start, sample, b",", self._members(prediction), b',"notes":', encoded_notes, b"}"))

    def frame(self, request_id: Raw | UnsetType, prediction: Prediction) -> str:
        """Return the stream's reply to a sample."""
        end = self._frame_end(prediction)
        if request_id is UNSET:
            return f'{{"type":"prediction",{end}'
        return f'{{"type":"prediction","id":{str(request_id, "utf-8")},{end}'

    def batch_item(self, prediction: Prediction, notes: Sequence[Note]) -> bytes:
        """Return the answer to one sample of a batch."""
        encoded_notes = msgspec.json.encode(notes) if notes else b"[]"
        return b"".join((b"{", self._members(prediction), b',"notes":', encoded_notes, b"}"))

    def batch(self, items: Sequence[bytes]) -> bytes:
        """Return the JSON answer to a batch."""
        return b"".join((b'{"model":', msgspec.json.encode(self.name), b',"predictions":[', b",".join(items), b"]}"))

    def _encode_members(self, prediction: Prediction) -> bytes:
        probabilities = dict(zip(self._labels, prediction.probabilities, strict=True))
        answer = {"label": prediction.label, "probabilities": probabilities}
        return msgspec.json.encode(answer)[1:-1]

    def _encode_frame_end(self, prediction: Prediction) -> str:
        return (self._members(prediction) + self._version).decode()


def encoder_of(model: Classifier) -> Encoder:
    """Return the model's encoder."""
    return model.made(Encoder)
