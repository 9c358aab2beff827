"""A predictor answers rows: a forest by a table of its cells or tree by tree, a linear model by its scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.model import compiled
from ml.model.card import Decision, TrainedFeature
from ml.model.compiled import Compiled
from ml.model.cuts import Cuts, EvenCuts
from ml.model.decision_table import DecisionTable, LabelGrid
from ml.model.forest import LEAF, Forest
from ml.model.labelling import Labelling
from ml.model.linear import Linear
from ml.model.linear_scores import LinearScores
from ml.model.lines import Lines
from ml.model.links import link_of, row_link_of
from ml.model.walk import Walk
from ml.tables.dataset import Feature

Rows = NDArray[np.floating[Any]]
"""Rows in the type in which a forest compares values, shape (n, n_features)."""


class Prediction(msgspec.Struct, frozen=True, eq=False):
    """The answer to one row; a `Struct`, because it is made in a sixth of the time that a frozen dataclass takes.

    Predictions of a decision table are shared: the same outcome is the same object, so data derived from it, such as
    its JSON, can be cached under the object itself.

    Attributes:
        index: the position of the label among the model's labels; 0 for a quantity.
        label: what the library's `predict` gives; a quantity has none.
        probabilities: one float64 a label, with the bits of the library's `predict_proba`; none for a quantity.
        value: the quantity, with the bits of the library's `predict`; NaN for a class.
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
    def values(self) -> NDArray[np.float64]:
        """The quantity of each row, shape (n,)."""
        return self.outputs[:, 0]

    @staticmethod
    def joined(parts: Sequence[Batch]) -> Batch:
        """Return the answers of parts as one."""
        if len(parts) == 1:
            return parts[0]
        return Batch(np.concatenate([one.indices for one in parts]), np.concatenate([one.outputs for one in parts]))


FindLines = Callable[[Sequence[float]], tuple[Lines, Batch] | None]
"""Returns the sums along each feature through a row, and their answers; None if that would take too long."""
Exchange = Callable[[Rows, Sequence[int], NDArray[np.intp]], Iterator[Batch]]
"""Yields the answers to each row with the value of one feature from another row: see `Compiled.exchanges`."""


class Evaluator(ABC):
    """A compiled model. Evaluators of a forest give the same bits; they differ in speed and in the forests that fit.

    Attributes:
        labels: the names of the classes; none for a quantity.
        grid: the label of each cell of a decision table; None for other evaluators and more labels than a byte names.
        lines: finds the answers along each feature through a row; None where rows have to be asked for instead.
        exchanges: finds the answers to rows that differ in one value, likewise.
    """

    grid: LabelGrid | None = None
    lines: FindLines | None = None
    exchanges: Exchange | None = None

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels

    @abstractmethod
    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        """Return the answer to one row of float64 values, whose ranks among the cuts may be known already."""

    @abstractmethod
    def predict_batch(self, rows: Rows) -> Batch:
        """Return the answers to rows as arrays."""

    def predict_each(self, rows: Rows) -> list[Prediction]:
        """Return the answers to rows, one object a row."""
        return each(self.predict_batch(rows), self.labels)

    @abstractmethod
    def sums(self, rows: Rows) -> NDArray[np.floating[Any]]:
        """Return the sums of leaves that the answers to rows are made of, shape (n, n_sums)."""


def prediction_of(index: int, outputs: Sequence[float], labels: Sequence[str]) -> Prediction:
    """Return an answer as an object."""
    return Prediction(index, labels[index], tuple(outputs)) if labels else Prediction(0, "", (), outputs[0])


def each(batch: Batch, labels: Sequence[str]) -> list[Prediction]:
    """Return answers as objects."""
    pairs = zip(batch.indices.tolist(), batch.outputs.tolist(), strict=True)
    return [prediction_of(index, outputs, labels) for index, outputs in pairs]


class _Answers:
    """Makes answers of sums."""

    def __init__(self, forest: Forest, labelling: Labelling) -> None:
        self._labelling = labelling
        self._divisor = forest.divisor
        self._link, self._link_of_row = link_of(forest.total), row_link_of(forest.total)

    def of_rows(self, sums: NDArray[np.floating[Any]]) -> Batch:
        """Return the answers of sums, shape (n, n_sums)."""
        if self._divisor != 1:
            sums = sums / self._divisor
        outputs = self._link(sums).astype(np.float64, copy=False)
        return Batch(self._labelling.indices(outputs, sums=sums), outputs)

    def of_row(self, sums: NDArray[np.floating[Any]]) -> Prediction:
        """Return the answer of sums, shape (n_sums,)."""
        totals = sums.tolist()
        if self._divisor != 1:
            # Floats divide faster than an array does; those of float32 would divide to other bits.
            is_single = sums.dtype == np.float32
            totals = (sums / self._divisor).tolist() if is_single else [total / self._divisor for total in totals]
        outputs = self._link_of_row(totals)
        return prediction_of(self._labelling.index(outputs, sums=totals), outputs, self._labelling.labels)


class _ByCell(Evaluator):
    """A decision table, its answers made once."""

    def __init__(self, table: DecisionTable, answers: _Answers, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._table = table
        self._answers = answers.of_rows(table.sums)
        self.grid = table.label_grid(self._answers.indices) if 0 < len(labels) <= LabelGrid.MAX_LABELS else None
        self._predictions = each(self._answers, labels)

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self._predictions[self._table.outcome(row, ranks)]

    def predict_batch(self, rows: Rows) -> Batch:
        outcomes = self._table.outcomes(rows)
        return Batch(self._answers.indices.take(outcomes), self._answers.outputs.take(outcomes, axis=0))

    def predict_each(self, rows: Rows) -> list[Prediction]:
        predictions = self._predictions
        return [predictions[outcome] for outcome in self._table.outcomes(rows).tolist()]

    def sums(self, rows: Rows) -> NDArray[np.floating[Any]]:
        return self._table.sums.take(self._table.outcomes(rows), axis=0)


class ByTree(Evaluator):
    """A forest with too many cells, its trees evaluated for each row."""

    def __init__(self, trees: Compiled | Walk, answers: _Answers, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._trees = trees
        self._answers = answers
        if isinstance(trees, Compiled):
            self.lines, self.exchanges = self._lines, self._exchanges

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self._answers.of_row(self._trees.one(row, ranks))

    def predict_batch(self, rows: Rows) -> Batch:
        return self._answers.of_rows(self._trees.batch(rows))

    def sums(self, rows: Rows) -> NDArray[np.floating[Any]]:
        return self._trees.batch(rows)

    def _exchanges(self, rows: Rows, features: Sequence[int], orders: NDArray[np.intp]) -> Iterator[Batch]:
        assert isinstance(self._trees, Compiled)
        return map(self._answers.of_rows, self._trees.exchanges(rows, features, orders))

    def _lines(self, row: Sequence[float]) -> tuple[Lines, Batch] | None:
        assert isinstance(self._trees, Compiled)
        lines = self._trees.lines(row)
        return None if lines is None else (lines, self._answers.of_rows(lines.sums.T))


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
    answers = _Answers(forest, Labelling.by(labels, decision, forest.total.label_by))
    if DecisionTable.fits(forest, cuts, max_cells):
        return _ByCell(DecisionTable(forest, cuts), answers, labels)
    kernels = compiled.kernels() if compiles else None
    return ByTree(Compiled(forest, cuts, kernels) if kernels else Walk(forest, cuts), answers, labels)


def cuts_of(predictor: Forest | Linear, features: Sequence[TrainedFeature]) -> Cuts:
    """Return the values between which pictures and searches ask for the answers of a predictor."""
    if isinstance(predictor, Linear):
        return EvenCuts(features, used={column.feature for column in predictor.columns})
    return Cuts(predictor, features)


def inputs_of(predictor: Forest | Linear) -> tuple[type[np.floating[Any]], list[int]]:
    """Return the type in which a predictor compares values, and the features that it asks for."""
    if isinstance(predictor, Linear):
        return np.float64, sorted({column.feature for column in predictor.columns})
    return predictor.dtype, np.unique(predictor.feature[predictor.feature != LEAF]).tolist()


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
        return ByScores(LinearScores(predictor, Labelling.by(labels, decision, predictor.label_by)), labels)
    cuts = cuts or Cuts(predictor, features)
    return compile_forest(predictor, cuts, labels=labels, max_cells=max_cells, compiles=compiles, decision=decision)


class ByScores(Evaluator):
    """A linear model or naive Bayes: its scores are computed for each row."""

    def __init__(self, scores: LinearScores, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.scores = scores

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self.predict_each(np.array([row], dtype=np.float64))[0]

    def predict_batch(self, rows: Rows) -> Batch:
        sums = self.scores.sums(rows.astype(np.float64, copy=False))
        outputs = self.scores.answers(sums)
        return Batch(self.scores.indices(sums, outputs), outputs)

    def sums(self, rows: Rows) -> NDArray[np.floating[Any]]:
        return self.scores.sums(rows.astype(np.float64, copy=False))
