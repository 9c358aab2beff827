"""What each feature adds to an answer, whatever the model: Shapley values of trees, parts of a linear model's score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ml.model.classifier import Classifier
from ml.model.forest import Forest
from ml.model.linear import Linear
from ml.model.shapley import Contributions

Scale = Literal["probability", "log_odds", "quantity", "log_quantity"]
Method = Literal["path_dependent_shapley", "linear"]


@dataclass(frozen=True, slots=True)
class Divided:
    """An answer divided among the features of its row.

    Attributes:
        base: the answer to what is usual in training, in this scale: the mean answer of trees, the answer of a linear
            model to the means of its columns.
        values: what each feature adds to it; base and values together are the answer.
        scale: that of base and values. Log odds are those of the label, or of several labels their scores, whose
            softmax the probabilities are.
    """

    method: Method
    scale: Scale
    base: float
    values: Sequence[float]


def contributions(model: Classifier, row: Sequence[float], index: int) -> Divided | None:
    """Return what each feature adds to the answer to `row` with the label at `index`; 0 for a quantity.

    None for a model file of format 1, which does not say how many training rows came by a node, and for a calibrated
    model, whose answer is a mean of several.
    """
    predictor = model.predictor
    if isinstance(predictor, Linear):
        if predictor.link == "calibrated":
            return None
        method: Method = "linear"
        scale: Scale = "quantity" if predictor.link == "identity" else "log_odds"
        assert model.scores is not None
        base, values = model.scores.contributions(np.array(row))
    else:
        if predictor.covers is None:
            return None
        made = model.made(_shapley_of)
        method, scale = "path_dependent_shapley", _scale_of(predictor)
        base, values = made.base, made.of(model.cuts.ranks_of(row))
    sign = 1.0
    if len(base) == 1 and model.labels:  # the only sum is that of the second label
        sign, index = (1.0 if index else -1.0), 0
    if isinstance(predictor, Forest) and predictor.total.link in ("half_logit", "samme"):
        # A sum of one is half the log odds; several are divided before the softmax.
        sign *= 2.0 if len(base) == 1 else 1 / (len(base) - 1)
    return Divided(method, scale, sign * float(base[index]), (sign * values[:, index]).tolist())


def is_divisible(model: Classifier) -> bool:
    """Return whether `contributions` has something to say of a model."""
    predictor = model.predictor
    return predictor.link != "calibrated" if isinstance(predictor, Linear) else predictor.covers is not None


def _scale_of(forest: Forest) -> Scale:
    link = forest.total.link
    if link == "mean":
        return "probability" if forest.n_outputs > 1 else "quantity"
    scales: dict[str, Scale] = {"identity": "quantity", "exp": "log_quantity"}
    return scales.get(link, "log_odds")


def _shapley_of(model: Classifier) -> Contributions:
    assert isinstance(model.predictor, Forest)
    return Contributions(model.predictor, model.cuts, compiles=model.compiles)
