"""What each feature adds to an answer, whatever the model: Shapley values of trees, parts of a linear model's score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.model.forest import Forest
from ml.model.linear import Linear
from ml.model.loaded import LoadedModel
from ml.model.shapley import Shapley
from ml.model.total import EXP_LINKS

AnswerScale = Literal["probability", "log_odds", "quantity", "log_quantity"]
Method = Literal["path_dependent_shapley", "linear"]
Obstacle = Literal["calibrated", "median", "vote", "no covers"]
# Why a model's answers are not divided among features: the rest of a sentence.
OBSTACLES: dict[Obstacle, str] = {
    "calibrated": "its probabilities are calibrated, and no sum of what each feature adds",
    "median": "its answer is a median of trees, and no sum of what each feature adds",
    "vote": "its answer is a mean of models that do not add up in one scale",
    "no covers": "its file, of format 1, does not say how many training rows came by its nodes: export or train anew",
}


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
    scale: AnswerScale
    base: float
    values: Sequence[float]


def contributions(model: LoadedModel, row: Sequence[float], index: int) -> Divided | None:
    """Return what each feature adds to the answer to `row` with the label at `index`; 0 for a quantity.

    None for a model with an obstacle: see `obstacle`.
    """
    predictor = model.predictor
    if obstacle(model):
        return None
    if isinstance(predictor, Linear):
        method: Method = "linear"
        scale: AnswerScale = "quantity" if predictor.link == "identity" else "log_odds"
        assert model.scores is not None
        base, values = model.scores.contributions(np.array(row))
    else:
        made = model.made(_shapley_of)
        method, scale = "path_dependent_shapley", _scale_of(predictor)
        base, values = made.base, made.of(model.cuts.ranks_of(row))
        if predictor.total.members:
            shares = model.made(_shares_of)
            base, values = base @ shares, values @ shares
    sign = 1.0
    if len(base) == 1 and model.labels:  # the only sum is that of the second label
        sign, index = (1.0 if index else -1.0), 0
    if isinstance(predictor, Forest) and predictor.total.link in ("half_logit", "samme"):
        # A sum of one is half the log odds; several are divided before the softmax.
        sign *= 2.0 if len(base) == 1 else 1 / (len(base) - 1)
    return Divided(method, scale, sign * float(base[index]), (sign * values[:, index]).tolist())


def obstacle(model: LoadedModel) -> Obstacle | None:
    """Return why `contributions` has nothing to say of a model; None if it has."""
    predictor = model.predictor
    if isinstance(predictor, Linear):
        return "calibrated" if predictor.link == "calibrated" else None
    total = predictor.total
    if any(member.curves for member in total.members):
        return "calibrated"
    if total.link == "median":
        return "median"
    if total.members and not total.is_mean:
        return "vote"
    return None if predictor.covers is not None else "no covers"


def _scale_of(forest: Forest) -> AnswerScale:
    link = forest.total.link
    if forest.total.is_mean:
        return "probability" if forest.n_outputs > 1 else "quantity"
    if link in EXP_LINKS:
        return "log_quantity"
    return "quantity" if link == "identity" else "log_odds"


def _shares_of(model: LoadedModel) -> NDArray[np.float64]:
    """Return how much of each sum of a vote of means is in each answer, shape (n_sums, n_answers)."""
    assert isinstance(model.predictor, Forest)
    members = model.predictor.total.members
    parts = [np.eye(member.n_sums) * (member.weight / member.divisor) for member in members]
    return np.concatenate(parts) / sum(member.weight for member in members)


def _shapley_of(model: LoadedModel) -> Shapley:
    assert isinstance(model.predictor, Forest)
    return Shapley(model.predictor, model.cuts, compiles=model.compiles)
