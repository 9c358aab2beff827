"""The answers to the example requests of the OpenAPI document, made by what answers real ones. Knows no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel
from ml.model.sample import Note
from web.api.description import Json, example_of
from web.api.encoder import encoder_of


def has_words(model: LoadedModel, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each of many rows of training whether a sample can say it: a word too rare for a choice is lost.

    Shape (n, n_features) in, (n,) out.
    """
    named = [bool(feature.choices) and not feature.has_gaps for feature in model.features]
    return np.asarray((rows[:, named] >= 0).all(axis=1))


def requests_of(model: LoadedModel) -> dict[str, Json]:
    """Return requests of one sample and of many."""
    example = example_of(model.features)
    trained = model.reference_rows
    rows = [
        [feature.shown(value) for feature, value in zip(model.features, row, strict=True)]
        for row in trained[model.validator.accepts(trained) & has_words(model, trained)][:2].tolist()
    ]
    return {"one": {"sample": example}, "many": {"samples": rows or [list(example.values())]}}


def answers_of(model: LoadedModel) -> dict[str, Json]:
    """Return the answers to them."""
    encoder, asked = encoder_of(model), requests_of(model)
    [one] = _answered(model, [asked["one"]["sample"]])
    answered = _answered(model, asked["many"]["samples"])
    many = [encoder.batch_item(prediction, notes) for _, prediction, notes in answered]
    return {"one": msgspec.json.decode(encoder.answer(*one)), "many": msgspec.json.decode(encoder.batch(many))}


def frames_of(model: LoadedModel) -> dict[str, Json]:
    """Return a request of the stream, and its reply."""
    sample = requests_of(model)["one"]["sample"]
    [(_, prediction, notes)] = _answered(model, [sample])
    reply = encoder_of(model).frame(msgspec.Raw(b"1"), prediction, notes)
    return {"request": {"id": 1, "sample": sample}, "reply": msgspec.json.decode(reply)}


def _answered(
    model: LoadedModel, samples: Sequence[Mapping[str, object] | Sequence[object]]
) -> list[tuple[list[float], Prediction, Sequence[Note]]]:
    rows = [model.validator.row(sample) for sample in samples]
    return [(row, model.predict(row), model.validator.notes(row)) for row in rows]
