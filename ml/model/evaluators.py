"""A predictor answers rows: a forest by a table of its cells or tree by tree, a linear model by its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ml.model import compiled
from ml.model.card import Decision, TrainedFeature
from ml.model.compiled import Compiled
from ml.model.cuts import BELOW_CHOICES, Cuts, EvenCuts
from ml.model.decision_table import DecisionTable, LabelGrid
from ml.model.forest import LEAF, Forest
from ml.model.labelling import Labelling
from ml.model.linear import Linear
from ml.model.scores import Scores
from ml.model.walk import Walk
from ml.tables.dataset import Feature

Rows = NDArray[np.floating[Any]]
"""Rows in the type in which a model compares values, shape (n, n_features)."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one row.

    Predictions of a decision table are shared: the same outcome is the same object, so data derived from it, such as
    its JSON, can be cached under the object itself.

    Attributes:
        index: the position of the label among the model's labels; 0 for a quantity.
        label: see `ml.model.labelling`. A quantity has none.
        probabilities: one float64 a label, bit-identical to scikit-learn's `predict_proba`; none for a quantity.
        value: the quantity, bit-identical to scikit-learn's `predict`; NaN for a class.
    """

    index: int
    label: str
    probabilities: tuple[float, ...]
    value: float = math.nan


@dataclass(frozen=True, slots=True)
class Batch:
    """The answers to n rows.

    Attributes:
        indices: shape (n,): the position of each row's label among the model's labels; 0 for a quantity.
        outputs: shape (n, n_labels), float64: the probabilities; or shape (n, 1): the quantity.
    """

    indices: NDArray[np.intp]
    outputs: NDArray[np.float64]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The probabilities of each label, shape (n, n_labels)."""
        return self.outputs

    @property
    def values(self) -> NDArray[np.float64]:
        """The quantity of each row, shape (n,)."""
        return self.outputs[:, 0]


class Evaluator(Protocol):
    """A compiled forest. All evaluators give the same bits; they differ in speed and in the forests that fit.

    Attributes:
        grid: the label of each cell of a decision table; None for other evaluators and more labels than a byte names.
    """

    grid: LabelGrid | None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        """Return the answer to one row of float64 values, whose ranks among the cuts may be known already."""

    def predict_batch(self, rows: Rows) -> Batch:
        """Return the answers to rows, shape (n, n_features), as arrays."""

    def predict_each(self, rows: Rows) -> list[Prediction]:
        """Return the answers to rows, one object a row."""


class _ByCell:
    """A decision table, its answers made once."""

    def __init__(self, table: DecisionTable, labelling: Labelling) -> None:
        self._table = table
        self._indices = labelling.indices(table.answers)
        self.grid = table.label_grid(self._indices) if 0 < len(labelling.labels) <= LabelGrid.MAX_LABELS else None
        self._predictions = [prediction_of(outputs, labelling) for outputs in table.answers.tolist()]

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self._predictions[self._table.outcome(row, ranks)]

    def predict_batch(self, rows: Rows) -> Batch:
        outcomes = self._table.outcomes(rows)
        return Batch(self._indices.take(outcomes), self._table.answers.take(outcomes, axis=0))

    def predict_each(self, rows: Rows) -> list[Prediction]:
        predictions = self._predictions
        return [predictions[outcome] for outcome in self._table.outcomes(rows).tolist()]


class _ByTree:
    """A forest with too many cells, its trees evaluated for each row."""

    def __init__(self, trees: Compiled | Walk, labelling: Labelling) -> None:
        self._trees = trees
        self._labelling = labelling
        self.grid: LabelGrid | None = None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return prediction_of(self._trees.one(row, ranks).tolist(), self._labelling)

    def predict_batch(self, rows: Rows) -> Batch:
        outputs = self._trees.batch(rows)
        return Batch(self._labelling.indices(outputs), outputs)

    def predict_each(self, rows: Rows) -> list[Prediction]:
        return [prediction_of(outputs, self._labelling) for outputs in self._trees.batch(rows).tolist()]


def prediction_of(outputs: Sequence[float], labelling: Labelling) -> Prediction:
    """Return the prediction with these outputs: probabilities by label, or without labels one quantity."""
    if not labelling.labels:
        return Prediction(0, "", (), outputs[0])
    index = labelling.index(outputs)
    return Prediction(index, labelling.labels[index], tuple(outputs))


def compile_forest(
    forest: Forest,
    cuts: Cuts,
    *,
    labels: Sequence[str],
    max_cells: int,
    compiles: bool = True,
    decision: Decision | None = None,
) -> Evaluator:
    """Return the fastest evaluator that the forest fits into; only `compiles` lets it be compiled code."""
    labelling = Labelling.by(labels, decision)
    if DecisionTable.fits(forest, cuts, max_cells):
        return _ByCell(DecisionTable(forest, cuts), labelling)
    kernels = compiled.kernels() if compiles else None
    return _ByTree(Compiled(forest, cuts, kernels) if kernels else Walk(forest, cuts), labelling)


def lowest_of(features: Sequence[Feature]) -> dict[int, float]:
    """Return a number below all values of each feature that may lack one, by position: see `Cuts`."""
    lowest = {True: BELOW_CHOICES, False: -math.inf}
    may_lack = {position: feature for position, feature in enumerate(features) if feature.choices or feature.has_gaps}
    return {position: lowest[bool(feature.choices)] for position, feature in may_lack.items()}


def cuts_of(predictor: Forest | Linear, features: Sequence[TrainedFeature]) -> Cuts:
    """Return the values between which pictures and searches look at the answers of a predictor."""
    if isinstance(predictor, Linear):
        return EvenCuts(features, used={column.feature for column in predictor.columns})
    return Cuts(predictor, lowest_of(features))


def inputs_of(predictor: Forest | Linear) -> tuple[type[np.floating[Any]], list[int]]:
    """Return the type in which a predictor compares values, and the features that it asks for."""
    if isinstance(predictor, Linear):
        return np.float64, sorted({column.feature for column in predictor.columns})
    return np.float32, np.unique(predictor.feature[predictor.feature != LEAF]).tolist()


def compile_predictor(
    predictor: Forest | Linear,
    features: Sequence[Feature],
    *,
    labels: Sequence[str],
    max_cells: int,
    compiles: bool = True,
    decision: Decision | None = None,
    cuts: Cuts | None = None,
) -> Evaluator:
    """Return what answers rows; see `compile_forest`.

    Args:
        cuts: those of a forest, if they are known already.
    """
    if isinstance(predictor, Linear):
        return ByScores(Scores(predictor, len(labels)), Labelling.by(labels, decision))
    cuts = cuts or Cuts(predictor, lowest_of(features))
    return compile_forest(predictor, cuts, labels=labels, max_cells=max_cells, compiles=compiles, decision=decision)


class ByScores:
    """A linear model or naive Bayes: its scores are computed for each row."""

    def __init__(self, scores: Scores, labelling: Labelling) -> None:
        self._scores = scores
        self._labelling = labelling
        self.grid: LabelGrid | None = None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self.predict_each(np.array([row], dtype=np.float64))[0]

    def predict_batch(self, rows: Rows) -> Batch:
        sums = self._scores.sums(rows.astype(np.float64, copy=False))
        outputs = self._scores.answers(sums)
        if self._labelling.positive is not None:
            return Batch(self._labelling.indices(outputs), outputs)
        return Batch(self._scores.indices(sums, outputs), outputs)

    def predict_each(self, rows: Rows) -> list[Prediction]:
        batch, labels = self.predict_batch(rows), self._labelling.labels
        if not labels:
            return [Prediction(0, "", (), value) for value in batch.values.tolist()]
        return [
            Prediction(index, labels[index], tuple(outputs))
            for index, outputs in zip(batch.indices.tolist(), batch.outputs.tolist(), strict=True)
        ]
