"""The JSON messages of programs, as types: requests, answers, frames. Knows nothing of their encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ml.model.card import Decision
from ml.model.contributions import AnswerScale, Method
from ml.model.sample import Note
from web.problems import ProblemDetails

# The version of the frames. It is confirmed if a client offers it, and used in any case.
SUBPROTOCOL = "prediction.v1"

# Parts that are decoded or encoded on their own, with what they are for the OpenAPI document (web/page/openapi.py).
_Sample = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/Sample"})]
_Contributions = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/Contributions"})]
_Numbers = Annotated[Raw, Meta(extra_json_schema={"type": "array", "items": {"type": "number"}})]
_Id = Annotated[Raw, Meta(description="any JSON value, echoed in the reply")]

# A value as an answer repeats it; null is no value.
Value = float | str | None


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request: one sample or many, and whether each answer says what each feature adds to it."""

    # Samples stay encoded, so that a large request is taken in without decoding it all at once.
    sample: _Sample | UnsetType = UNSET
    samples: list[_Sample] | UnsetType = UNSET
    explain: bool | UnsetType = UNSET


class StreamRequest(PredictRequest, forbid_unknown_fields=True):
    """A text frame of the stream: one sample or many, an `id` to be echoed, and no other members."""

    id: _Id | UnsetType = UNSET


class ModelName(msgspec.Struct, frozen=True):
    """The name and version of the model that answers."""

    name: str
    version: str


class Contributions(msgspec.Struct, frozen=True, kw_only=True):
    """What each feature adds to `base`: together they are the answer, in this scale (`ml.model.contributions`)."""

    method: Method
    scale: AnswerScale
    base: float
    features: dict[str, float]


class ValueInterval(msgspec.Struct, frozen=True, kw_only=True):
    """The interval around a predicted quantity in which the truth lies for `coverage`, a fraction, of the samples."""

    low: float
    high: float
    coverage: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one sample; probabilities are by label, and those of the library that fitted the model."""

    model: ModelName
    sample: dict[str, Value]
    label: str
    probabilities: dict[str, float]
    notes: Sequence[Note]
    contributions: Contributions | UnsetType = UNSET


class QuantityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one sample; the value is that of the library that fitted the model."""

    model: ModelName
    sample: dict[str, Value]
    value: float
    interval: ValueInterval | UnsetType = UNSET
    notes: Sequence[Note]
    contributions: Contributions | UnsetType = UNSET


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one sample of many."""

    label: str
    probabilities: dict[str, float]
    notes: Sequence[Note]
    contributions: Contributions | UnsetType = UNSET


class QuantityItem(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one sample of many."""

    value: float
    interval: ValueInterval | UnsetType = UNSET
    notes: Sequence[Note]
    contributions: Contributions | UnsetType = UNSET


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
    notes: Sequence[Note] | UnsetType = UNSET  # where there are any, here and below
    contributions: Contributions | UnsetType = UNSET


class SamplesNote(Note, frozen=True, kw_only=True):
    """A note about a value of some samples of many, with their indices."""

    samples: list[int]


class PredictionsFrame(msgspec.Struct, frozen=True, tag="predictions"):
    """The stream's reply to many samples: labels and, by label, encoded lists of probabilities, in their order."""

    id: _Id | UnsetType
    labels: list[str]
    probabilities: dict[str, _Numbers]
    version: str
    notes: Sequence[SamplesNote] | UnsetType = UNSET
    contributions: Sequence[_Contributions] | UnsetType = UNSET


class QuantityFrame(msgspec.Struct, frozen=True, tag="prediction"):
    """The stream's reply to one sample."""

    id: _Id | UnsetType
    value: float
    interval: ValueInterval | UnsetType
    version: str
    notes: Sequence[Note] | UnsetType = UNSET
    contributions: Contributions | UnsetType = UNSET


class Intervals(msgspec.Struct, frozen=True, kw_only=True):
    """The ends of many intervals, in the order of the samples, and their common coverage."""

    low: _Numbers
    high: _Numbers
    coverage: float


class QuantitiesFrame(msgspec.Struct, frozen=True, tag="predictions"):
    """The stream's reply to many samples: encoded lists in their order."""

    id: _Id | UnsetType
    values: _Numbers
    interval: Intervals | UnsetType
    version: str
    notes: Sequence[SamplesNote] | UnsetType = UNSET
    contributions: Sequence[_Contributions] | UnsetType = UNSET


class ErrorFrame(msgspec.Struct, frozen=True, tag="error"):
    """The stream's reply to a frame that cannot be answered."""

    id: _Id | UnsetType
    error: ProblemDetails


class StreamLimits(msgspec.Struct, frozen=True):
    """The limits of the stream, announced in its first frame."""

    max_frame_bytes: int
    max_samples: int


class ModelFeature(msgspec.Struct, frozen=True, kw_only=True):
    """A feature as programs need it: a number, or a category, which has choices.

    Attributes:
        header: of its column in the training table; a sample may name the feature by it.
        titles: the title in other languages, by language code.
        choices: the words that were seen in training; any other word is unknown, with a note.
        nullable: whether a sample may lack the value: null.
        minimum, maximum: the limits that a sample must keep; null is no limit.
        low, high, quantiles: the span and the 0 %, 10 %, ... 100 % quantiles of the training rows; a category has none,
            nor has a model of which no training rows are known.
        example: the value of the model's example.
        importance: what is lost on the test rows when the values are shuffled, of the accuracy or of R², as a fraction;
            null if there were none.
    """

    key: str
    title: str
    unit: str
    header: str
    titles: dict[str, str]
    choices: tuple[str, ...]
    nullable: bool
    minimum: float | None
    maximum: float | None
    low: float | None
    high: float | None
    quantiles: tuple[float, ...]
    example: Value
    importance: float | None


class ModelTarget(msgspec.Struct, frozen=True):
    """What is predicted: the title may be empty; a quantity may have a unit."""

    title: str
    unit: str


class StreamModel(msgspec.Struct, frozen=True):
    """The model as the stream announces it; a model of a quantity has no labels.

    Attributes:
        decision: how the label follows from the probabilities of two labels; null where it is the most probable one.
            Probabilities alone, in binary frames and tensors, are not changed by it.
    """

    name: str
    version: str
    target: ModelTarget
    features: tuple[ModelFeature, ...]
    labels: tuple[str, ...]
    decision: Decision | None


class ModelFrame(msgspec.Struct, frozen=True, tag="model"):
    """The first frame that the server sends."""

    model: StreamModel
    limits: StreamLimits
