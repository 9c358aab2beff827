"""An evaluator with another threshold between two labels: labels alone are other ones. Computes nothing anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.decision_table import LabelGrid
from ml.model.evaluators import Batch, ByScores, Evaluator, Exchange, FindLines, Prediction, Rows, each, prediction_of
from ml.model.labelling import Labelling
from ml.model.lines import Lines


class Relabelled:
    """Another evaluator's answers with the labels of a threshold.

    It has no grid: to label the cells of a table anew takes longer than to ask for some rows.
    """

    def __init__(self, evaluator: Evaluator, labelling: Labelling) -> None:
        self._evaluator, self._labelling = evaluator, labelling
        self.grid: LabelGrid | None = None
        self.lines: FindLines | None = self._lines if evaluator.lines else None
        self.exchanges: Exchange | None = None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        """Return the answer to one row, the same object where its label is the same."""
        answer = self._evaluator.predict(row, ranks)
        index = self._labelling.index(answer.probabilities, sums=answer.probabilities)
        return answer if index == answer.index else prediction_of(index, answer.probabilities, self._labelling.labels)

    def predict_batch(self, rows: Rows) -> Batch:
        """Return the answers to rows as arrays."""
        return self._batch(self._evaluator.predict_batch(rows))

    def predict_each(self, rows: Rows) -> list[Prediction]:
        """Return the answers to rows, one object a row."""
        return each(self.predict_batch(rows), self._labelling.labels)

    def sums(self, rows: Rows) -> NDArray[np.floating[Any]]:
        """Return the sums that the answers are made of."""
        return self._evaluator.sums(rows)

    def _batch(self, batch: Batch) -> Batch:
        return Batch(self._labelling.indices(batch.outputs, sums=batch.outputs), batch.outputs)

    def _lines(self, row: Sequence[float]) -> tuple[Lines, Batch] | None:
        assert self._evaluator.lines is not None
        found = self._evaluator.lines(row)
        return None if found is None else (found[0], self._batch(found[1]))


def relabelled(evaluator: Evaluator, labelling: Labelling) -> Evaluator:
    """Return an evaluator that answers as another one does, with the labels of a threshold."""
    if isinstance(evaluator, ByScores):
        return ByScores(evaluator.scores.labelled(labelling), labelling.labels)
    return Relabelled(evaluator, labelling)
