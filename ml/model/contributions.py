"""What each feature adds to an answer, whatever the model: Shapley values of trees, parts of a linear model's score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.model.classifier import Classifier
from ml.model.design import Design
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
        base, values = model.made(_Parts).of(row)
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


class _Parts:
    """The parts of a linear model's score, or of the logarithm of a density, against those of the means."""

    def __init__(self, model: Classifier) -> None:
        assert isinstance(model.predictor, Linear)
        self._linear = linear = model.predictor
        self._design = Design(linear.columns)
        self._n_features = len(model.features)
        self._feature = np.array([column.feature for column in linear.columns], dtype=np.intp)

    def of(self, row: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scores of the means, shape (n_sums,), and what each feature adds, shape (n_features, n_sums)."""
        linear = self._linear
        usual, own = self._parts(linear.means), self._parts(self._design.matrix(np.array([row]))[0])
        added = np.zeros((self._n_features, linear.n_sums))
        np.add.at(added, self._feature, (own - usual).T)
        base = linear.intercept + usual.sum(axis=1)
        if linear.link == "posterior":
            base = base - 0.5 * np.log(2.0 * np.pi * linear.variances).sum(axis=1)
        return base, added

    def _parts(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each column adds to each score, shape (n_sums, n_columns)."""
        linear = self._linear
        if linear.link == "posterior":
            parts: NDArray[np.float64] = -0.5 * (columns - linear.coefficients) ** 2 / linear.variances
            return parts
        return linear.coefficients * columns
