"""The label of an answer: the most probable one or, of two, what a threshold says. Knows nothing of trees and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.errors import DatasetError
from ml.model.card import Decision


@dataclass(frozen=True, slots=True)
class Labelling:
    """Chooses the label of an answer by its probabilities.

    Attributes:
        labels: the class names, in the order of the classes; none for a quantity, whose index is always 0.
        positive: the index of the label that a threshold decides on, or None.
        threshold: the least probability with which that label is the answer.
    """

    labels: tuple[str, ...]
    positive: int | None = None
    threshold: float = 0.5

    @classmethod
    def by(cls, labels: Sequence[str], decision: Decision | None) -> Labelling:
        """Return the labelling by a decision; without one the most probable label is chosen, of several the first."""
        if decision is None:
            return cls(tuple(labels))
        return cls(tuple(labels), labels.index(decision.positive), decision.threshold)

    def index(self, outputs: Sequence[float]) -> int:
        """Return the index of the label with these probabilities."""
        if self.positive is not None:
            return self.positive if outputs[self.positive] >= self.threshold else 1 - self.positive
        # list.index and max: the first of several, as argmax gives it.
        return outputs.index(max(outputs))

    def indices(self, outputs: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the index of the label of each row of probabilities: shape (n, n_labels) in, (n,) out."""
        if self.positive is None:
            indices: NDArray[np.intp] = outputs.argmax(axis=1)
            return indices
        is_positive = outputs[:, self.positive] >= self.threshold
        return np.where(is_positive, self.positive, 1 - self.positive)


def decision_of(labels: Sequence[str], threshold: float | None, positive: object = None) -> Decision | None:
    """Return the decision by a threshold on the probability of one of two labels, of the second if none is named.

    Raises:
        DatasetError: there are not two labels, they are others, or the threshold is not from 0 to 1.
    """
    if threshold is None:
        return None
    if len(labels) != 2:
        raise DatasetError(f"a threshold decides between two classes, and the target has {len(labels) or 'none'}")
    if positive is not None and str(positive) not in labels:
        raise DatasetError(f"a threshold for {str(positive)!r}, not a class: {labels[0]!r} and {labels[1]!r} are")
    if not 0 <= threshold <= 1:
        raise DatasetError(f"a threshold of {threshold:g} is not a probability, from 0 to 1")
    return Decision(positive=labels[1] if positive is None else str(positive), threshold=float(threshold))
