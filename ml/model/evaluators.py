"""A compiled forest answers rows: by a table of its cells where that is small, else tree by tree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ml.model import compiled
from ml.model.compiled import Compiled
from ml.model.cuts import Cuts
from ml.model.decision_table import DecisionTable, LabelGrid
from ml.model.forest import Forest
from ml.model.links import LINKS, expit
from ml.model.walk import Walk

Rows = NDArray[np.floating[Any]]
"""Rows in the type in which a forest compares values, shape (n, n_features)."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one row.

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
        """Return the answers to rows as arrays."""

    def predict_each(self, rows: Rows) -> list[Prediction]:
        """Return the answers to rows, one object a row."""

    def sums(self, rows: Rows) -> NDArray[np.floating[Any]]:
        """Return the sums of leaves that the answers to rows are made of, shape (n, n_sums)."""


class _Answers:
    """Makes answers of sums, and labels as the library's `predict` does."""

    def __init__(self, forest: Forest, labels: Sequence[str]) -> None:
        self._labels = labels
        self._divisor = forest.divisor
        self._label_by = forest.total.label_by
        self._link = LINKS[forest.total.link]
        # Of one row: a tenth of the time of arrays.
        self._is_pair = forest.total.link == "expit" and self._label_by in ("positive", "not_negative")
        self._is_plain = forest.total.is_exact and self._label_by == "answers"

    def of_rows(self, sums: NDArray[np.floating[Any]]) -> Batch:
        """Return the answers of sums, shape (n, n_sums)."""
        if self._divisor != 1:
            sums = sums / self._divisor
        outputs = self._link(sums).astype(np.float64, copy=False)
        if self._label_by == "positive":
            return Batch((sums[:, 0] > 0).astype(np.intp), outputs)
        if self._label_by == "not_negative":
            return Batch((sums[:, 0] >= 0).astype(np.intp), outputs)
        return Batch((outputs if self._label_by == "answers" else sums).argmax(axis=1), outputs)

    def of_row(self, sums: NDArray[np.floating[Any]]) -> Prediction:
        """Return the answer of sums, shape (n_sums,)."""
        if self._is_pair:
            total = sums.item() / self._divisor
            share = expit(total)
            index = total > 0 if self._label_by == "positive" else total >= 0
            return self._prediction(index, [1 - share, share])
        if not self._is_plain:
            return self.each(self.of_rows(sums[None]))[0]
        outputs = (sums / self._divisor).tolist()
        # list.index and max: the first of several, as argmax gives it.
        return self._prediction(outputs.index(max(outputs)), outputs)

    def each(self, batch: Batch) -> list[Prediction]:
        """Return the answers as objects."""
        return list(map(self._prediction, batch.indices.tolist(), batch.outputs.tolist()))

    def _prediction(self, index: int, outputs: list[float]) -> Prediction:
        if not self._labels:
            return Prediction(0, "", (), outputs[0])
        return Prediction(index, self._labels[index], tuple(outputs))


class _ByCell:
    """A decision table, its answers made once."""

    def __init__(self, table: DecisionTable, answers: _Answers, labels: Sequence[str]) -> None:
        self._table = table
        self._answers = answers.of_rows(table.sums)
        self.grid = table.label_grid(self._answers.indices) if 0 < len(labels) <= LabelGrid.MAX_LABELS else None
        self._predictions = answers.each(self._answers)

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


class _ByTree:
    """A forest with too many cells, its trees evaluated for each row."""

    def __init__(self, trees: Compiled | Walk, answers: _Answers) -> None:
        self._trees = trees
        self._answers = answers
        self.grid: LabelGrid | None = None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self._answers.of_row(self._trees.one(row, ranks))

    def predict_batch(self, rows: Rows) -> Batch:
        return self._answers.of_rows(self._trees.batch(rows))

    def predict_each(self, rows: Rows) -> list[Prediction]:
        return self._answers.each(self.predict_batch(rows))

    def sums(self, rows: Rows) -> NDArray[np.floating[Any]]:
        return self._trees.batch(rows)


def compile_forest(
    forest: Forest, cuts: Cuts, *, labels: Sequence[str], max_cells: int, compiles: bool = True
) -> Evaluator:
    """Return the fastest evaluator that the forest fits into; only `compiles` lets it be compiled code."""
    answers = _Answers(forest, labels)
    if DecisionTable.fits(forest, cuts, max_cells):
        return _ByCell(DecisionTable(forest, cuts), answers, labels)
    kernels = compiled.kernels() if compiles else None
    return _ByTree(Compiled(forest, cuts, kernels) if kernels else Walk(forest, cuts), answers)
