"""The label of an answer: that of the library's `predict` or, of two, of a threshold. Knows no trees and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.model.card import Decision
from ml.model.total import LabelBy


@dataclass(frozen=True, slots=True)
class Labelling:
    """Chooses the label of an answer by its probabilities, or by the sums that they are made of.

    Attributes:
        labels: the class names, in the order of the classes; none for a quantity, whose index is always 0.
        rule: what decides without a threshold, see `ml.model.total.Total`.
        positive: the index of the label that a threshold decides on, or None.
        threshold: the least probability with which that label is the answer.
    """

    labels: tuple[str, ...]
    rule: LabelBy = "answers"
    positive: int | None = None
    threshold: float = 0.5

    @classmethod
    def by(cls, labels: Sequence[str], decision: Decision | None, rule: LabelBy = "answers") -> Labelling:
        """Return the labelling by a decision; without one the rule decides."""
        if decision is None:
            return cls(tuple(labels), rule)
        return cls(tuple(labels), rule, labels.index(decision.positive), decision.threshold)

    def index(self, outputs: Sequence[float], *, sums: Sequence[float]) -> int:
        """Return the index of the label with these probabilities, made of these sums."""
        if not self.labels:
            return 0
        if self.positive is not None:
            return self.positive if outputs[self.positive] >= self.threshold else 1 - self.positive
        if self.rule == "positive":
            return int(sums[0] > 0)
        if self.rule == "not_negative":
            return int(sums[0] >= 0)
        decides = outputs if self.rule == "answers" else sums
        # list.index and max: the first of several, as argmax gives it.
        return decides.index(max(decides))

    def indices(self, outputs: NDArray[np.float64], *, sums: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
        """Return the index of the label of each row of probabilities, shape (n,), as `index` does.

        Args:
            outputs: shape (n, n_labels).
            sums: shape (n, n_sums): what they are made of.
        """
        if not self.labels:
            return np.zeros(len(outputs), dtype=np.intp)
        if self.positive is not None:
            is_positive = outputs[:, self.positive] >= self.threshold
            return np.where(is_positive, self.positive, 1 - self.positive)
        if self.rule == "positive":
            return (sums[:, 0] > 0).astype(np.intp)
        if self.rule == "not_negative":
            return (sums[:, 0] >= 0).astype(np.intp)
        decides = outputs if self.rule == "answers" else sums
        indices: NDArray[np.intp] = decides.argmax(axis=1)
        return indices


def decision_of(labels: Sequence[str], threshold: float | None, positive: object = None) -> Decision | None:
    """Return the decision by a threshold on the probability of one of two labels, of the second if none is named.

    Raises:
        TableError: there are not two labels, they are others, or the threshold is not from 0 to 1.
    """
    if threshold is None:
        return None
    if len(labels) != 2:
        raise TableError(f"a threshold decides between two classes, and the target has {len(labels) or 'none'}")
    if positive is not None and str(positive) not in labels:
        raise TableError(f"a threshold for {str(positive)!r}, not a class: {labels[0]!r} and {labels[1]!r} are")
    if not 0 <= threshold <= 1:
        raise TableError(f"a threshold of {threshold:g} is not a probability, from 0 to 1")
    return Decision(positive=labels[1] if positive is None else str(positive), threshold=float(threshold))
