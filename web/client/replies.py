"""Replies of a service: decoding of frames, and checks of answers against the announced model. Knows no connections."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import msgspec

from ml.model.sample import FieldError, Note
from web.api.messages import ModelFrame, SamplesNote, ValueInterval

# Statuses that ask for a later retry of the same request, in an error frame as in a handshake.
LATER = frozenset({408, 429, 503})
# Statuses that are a verdict on the samples of a frame.
VERDICTS = frozenset({400, 413, 422})


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The answer to a sample.

    Attributes:
        label, probabilities: the most probable class, and the probability of each; empty for a quantity.
        version: of the model that gave the answer.
        value, interval: the quantity, and where the truth lies for most samples; None for a class, and the interval of
            a model that was measured on no table.
        notes: about values outside the training range, and words that were not seen in training.
    """

    label: str
    probabilities: dict[str, float]
    version: str
    value: float | None = None
    interval: ValueInterval | None = None
    notes: tuple[Note, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """The reason why a sample has no prediction; `errors` has it value by value."""

    message: str
    errors: tuple[FieldError, ...] = ()


Outcome = Prediction | Refused


class NamedError(FieldError, frozen=True, kw_only=True):
    """A field's error, and the index of its sample in the frame."""

    sample: int = -1


class ProblemReply(msgspec.Struct, frozen=True):
    """The reason why a frame has no predictions, as far as a client needs it."""

    status: int
    detail: str
    errors: list[NamedError] = []
    retry_after_s: float = 0.0


class PredictionReply(msgspec.Struct, frozen=True, tag="prediction"):
    """The answer to one sample: a label and probabilities, or a value and its interval."""

    id: int
    version: str
    label: str = ""
    probabilities: dict[str, float] = {}
    value: float | None = None
    interval: ValueInterval | None = None
    notes: tuple[Note, ...] = ()


class IntervalsReply(msgspec.Struct, frozen=True):
    """The ends of many intervals, in the order of the samples."""

    low: list[float]
    high: list[float]
    coverage: float


class PredictionsReply(msgspec.Struct, frozen=True, tag="predictions"):
    """The answer to many samples: labels and probabilities by label, or values and intervals, in their order."""

    id: int
    version: str
    labels: list[str] = []
    probabilities: dict[str, list[float]] = {}
    values: list[float] = []
    interval: IntervalsReply | None = None
    notes: list[SamplesNote] = []


class ErrorReply(msgspec.Struct, frozen=True, tag="error"):
    """The answer to a frame of which no sample has been predicted; without an id when the frame was not even read."""

    error: ProblemReply
    id: int | None = None


Reply = PredictionReply | PredictionsReply | ErrorReply

_decoder = msgspec.json.Decoder(ModelFrame | Reply)


def decode(frame: str | bytes) -> ModelFrame | Reply:
    """Return what a server sent.

    Raises:
        ValueError: it is not a frame of a prediction service.
    """
    try:
        decoded: ModelFrame | Reply = _decoder.decode(frame)
        return decoded
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def predictions_of(
    reply: PredictionReply | PredictionsReply, *, count: int, labels: Collection[str]
) -> Sequence[Prediction]:
    """Return the predictions in a reply, in the order of the samples.

    Args:
        count: how many samples were asked for.
        labels: those of the model; none for a quantity.

    Raises:
        ValueError: there are more or fewer, or one is not what such a model can answer.
    """
    predictions = _classes(reply, count, labels) if labels else _quantities(reply, count)
    if not reply.notes:
        return predictions
    if isinstance(reply, PredictionReply):
        return [msgspec.structs.replace(predictions[0], notes=reply.notes)]
    notes: dict[int, list[Note]] = {}
    for note in reply.notes:
        for index in note.samples:
            notes.setdefault(index, []).append(Note(note.feature, note.code, note.message))
    if not 0 <= min(notes, default=0) <= max(notes, default=0) < count:
        raise ValueError(f"a note about sample {max(notes)} of {count}")
    return [
        msgspec.structs.replace(prediction, notes=tuple(notes[index])) if index in notes else prediction
        for index, prediction in enumerate(predictions)
    ]


def _classes(reply: PredictionReply | PredictionsReply, count: int, labels: Collection[str]) -> list[Prediction]:
    if isinstance(reply, PredictionReply):
        _check([reply.label], {label: [value] for label, value in reply.probabilities.items()}, count, labels)
        return [Prediction(reply.label, reply.probabilities, reply.version)]
    _check(reply.labels, reply.probabilities, count, labels)
    named = tuple(reply.probabilities)
    return [
        Prediction(label, dict(zip(named, row, strict=True)), reply.version)
        for label, row in zip(reply.labels, zip(*reply.probabilities.values(), strict=True), strict=True)
    ]


def _quantities(reply: PredictionReply | PredictionsReply, count: int) -> list[Prediction]:
    intervals: list[ValueInterval] | list[None] = [None] * count
    if isinstance(reply, PredictionReply):
        values = [] if reply.value is None else [reply.value]
        intervals = intervals if reply.interval is None else [reply.interval]
    else:
        values = reply.values
        if ends := reply.interval:
            pairs = zip(ends.low, ends.high, strict=False)
            intervals = [ValueInterval(low=low, high=high, coverage=ends.coverage) for low, high in pairs]
    if not len(values) == len(intervals) == count:
        raise ValueError(f"{len(values)} values and {len(intervals)} intervals for {count} samples")
    answers = list(zip(values, intervals, strict=True))
    for value, interval in answers:
        if interval and not -math.inf < interval.low <= value <= interval.high < math.inf:
            raise ValueError(f"the value {value} is not in its interval")
    return [Prediction("", {}, reply.version, value, interval) for value, interval in answers]


def _check(answers: Sequence[str], probabilities: dict[str, list[float]], count: int, labels: Collection[str]) -> None:
    if len(answers) != count or any(len(column) != count for column in probabilities.values()):
        raise ValueError(f"{len(answers)} labels and {_counts(probabilities)} probabilities for {count} samples")
    unknown = ({*answers} | probabilities.keys()) - {*labels}
    if unknown:
        raise ValueError(f"the model has no label {min(unknown)!r}")
    if len(probabilities) != len(labels):
        raise ValueError(f"probabilities for {len(probabilities)} labels, the model has {len(labels)}")
    for label, column in probabilities.items():
        # JSON has no NaN, and an infinity is out of range like other numbers.
        if not 0.0 <= min(column) <= max(column) <= 1.0:
            raise ValueError(f"a probability of {label!r} is not from 0 to 1")


def _counts(probabilities: dict[str, list[float]]) -> str:
    return " or ".join(map(str, sorted({*map(len, probabilities.values())}))) or "no"
