"""Predictions become JSON: one encoder a model keeps what does not change between answers.

Predictions of a decision table are shared objects (see `ml.model.evaluators.Prediction`), so their JSON is encoded once
and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from ml.model.card import TrainedFeature
from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel, members_of
from ml.model.quantity import Interval
from ml.model.sample import Note
from web.api.messages import (
    Intervals,
    ModelFeature,
    ModelName,
    ModelTarget,
    StreamModel,
    Value,
)

# A decision table of Iris has 2,408 different answers, each a few hundred bytes.
KEPT_ANSWERS = 8_192


class Encoder:
    """Encodes the answers of one model, to the bytes that msgspec makes of their types, several times as fast."""

    def __init__(self, model: LoadedModel) -> None:
        self.name = ModelName(model.name, model.version)
        self._labels = model.labels
        self._quantity = model.quantity
        self._keys = model.validator.keys
        self._categories = [(at, feature) for at, feature in enumerate(model.features) if feature.choices]
        self._start = b'{"model":' + msgspec.json.encode(self.name) + b',"sample":'
        self._version = b',"version":' + msgspec.json.encode(model.version)
        self._members = lru_cache(KEPT_ANSWERS)(self._encode_members)
        self._frame_end = lru_cache(KEPT_ANSWERS)(self._encode_frame_end)

    def answer(
        self, row: Sequence[float], prediction: Prediction, notes: Sequence[Note], contributions: bytes = b""
    ) -> bytes:
        """Return the JSON answer to a sample: model, sample, label and probabilities or value, notes, contributions.

        The contributions, here and below, are JSON (`web.api.explain`), empty where none were asked for.
        """
        values = self._shown(row) if self._categories else row
        sample = msgspec.json.encode(dict(zip(self._keys, values, strict=True)))
        members = self._members(prediction)
        return b"".join((self._start, sample, b",", members, _noted(notes), _explained(contributions), b"}"))

    def frame(
        self,
        request_id: Raw | UnsetType,
        prediction: Prediction,
        notes: Sequence[Note] = (),
        contributions: bytes = b"",
    ) -> str:
        """Return the stream's reply to a sample, with notes only where there are some."""
        end = self._frame_end(prediction)
        if notes:
            end += _noted(notes).decode()
        if contributions:
            end += _explained(contributions).decode()
        if request_id is UNSET:
            return f'{{"type":"prediction",{end}}}'
        return f'{{"type":"prediction","id":{str(request_id, "utf-8")},{end}}}'

    def batch_item(self, prediction: Prediction, notes: Sequence[Note], contributions: bytes = b"") -> bytes:
        """Return the answer to one sample of a batch."""
        return b"".join((b"{", self._members(prediction), _noted(notes), _explained(contributions), b"}"))

    def batch(self, items: Sequence[bytes]) -> bytes:
        """Return the JSON answer to a batch."""
        return b"".join((b'{"model":', msgspec.json.encode(self.name), b',"predictions":[', b",".join(items), b"]}"))

    def _shown(self, row: Sequence[float]) -> list[Value]:
        values: list[Value] = [*row]
        for at, feature in self._categories:
            values[at] = feature.shown(row[at])
        return values

    def _encode_members(self, prediction: Prediction) -> bytes:
        return msgspec.json.encode(members_of(prediction, self._labels, self._quantity))[1:-1]

    def _encode_frame_end(self, prediction: Prediction) -> str:
        return (self._members(prediction) + self._version).decode()


def _noted(notes: Sequence[Note]) -> bytes:
    return b',"notes":' + msgspec.json.encode(notes) if notes else b',"notes":[]'


def _explained(contributions: bytes) -> bytes:
    return b',"contributions":' + contributions if contributions else b""


def encoder_of(model: LoadedModel) -> Encoder:
    """Return the model's encoder."""
    return model.made(Encoder)


def intervals_of(values: NDArray[np.float64], interval: Interval) -> Intervals:
    """Return the intervals around predicted quantities, shape (n,)."""
    low, high = map(json_array, interval.around(values))
    return Intervals(low=low, high=high, coverage=interval.coverage)


def json_array(numbers: NDArray[np.float64]) -> Raw:
    """Return numbers, shape (n,), as a JSON array."""
    return Raw(msgspec.json.encode(numbers.tolist()))


def description_of(model: LoadedModel) -> StreamModel:
    """Return the model as it is announced to programs."""
    target = model.card.target
    features = tuple(map(_feature, model.features))
    about = ModelTarget(target.title, target.unit)
    return StreamModel(model.name, model.version, about, features, model.labels, model.card.decision)


def _feature(feature: TrainedFeature) -> ModelFeature:
    is_number = not feature.choices
    return ModelFeature(
        key=feature.key,
        title=feature.title,
        unit=feature.unit,
        header=feature.header,
        titles=feature.titles,
        choices=feature.choices,
        nullable=feature.has_gaps,
        minimum=feature.minimum,
        maximum=feature.maximum,
        low=feature.low if is_number and feature.has_range else None,
        high=feature.high if is_number and feature.has_range else None,
        quantiles=feature.quantiles if is_number else (),
        example=feature.shown(feature.example),
        importance=feature.importance if feature.quantiles else None,
    )
