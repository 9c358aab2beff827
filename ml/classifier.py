"""The one thing that serves predictions: a model file, compiled and checked against its golden rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml import modelfile
from ml.card import Card
from ml.cuts import Cuts
from ml.errors import ModelFileError
from ml.modelfile import ModelFile
from ml.sample import Validator
from ml.table import DecisionTable


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one row.

    Predictions of a decision table are shared: the same outcome is the same object, so what is derived from one, such
    as its JSON, can be kept under the object itself.

    Attributes:
        index: the position of the label among the model's labels.
        label: the most probable label; of several, the first.
        probabilities: one float64 a label, bit-identical to scikit-learn's `predict_proba`.
    """

    index: int
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """The answers to n rows.

    Attributes:
        indices: shape (n,): the position of each row's label among the model's labels.
        probabilities: shape (n, n_labels), float64.
    """

    indices: NDArray[np.intp]
    probabilities: NDArray[np.float64]


class Classifier:
    """An immutable model, ready to predict.

    Attributes:
        version: the first 12 hex digits of the SHA-256 of the model file.
    """

    def __init__(self, model: ModelFile, version: str) -> None:
        self.card: Card = model.card
        self.version = version
        self.name = model.card.name
        self.labels = model.card.labels
        self.features = model.card.features
        self.validator = Validator(model.card.features)
        self.sample_rows = model.sample_rows
        self.sample_classes = model.sample_classes
        self._n_features = len(self.features)
        cuts = Cuts(model.forest)
        self._table = DecisionTable(model.forest, cuts)
        self._indices: NDArray[np.intp] = self._table.probabilities.argmax(axis=1)
        self._predictions = [
            Prediction(index, self.labels[index], tuple(probabilities))
            for index, probabilities in zip(self._indices.tolist(), self._table.probabilities.tolist(), strict=True)
        ]
        self._replay(model.golden_rows, model.golden_probabilities)

    def predict(self, row: Sequence[float]) -> Prediction:
        """Return the answer to one row of finite floats, as the validator returns it.

        Raises:
            ValueError: the row does not have one value for each feature.
        """
        if len(row) != self._n_features:
            raise ValueError(f"a row has {self._n_features} values, not {len(row)}")
        return self._predictions[self._table.outcome(row)]

    def predict_batch(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> Batch:
        """Return the answers to rows of finite numbers: the same bits as `predict` gives one by one.

        Args:
            rows: shape (n, n_features). float64 is cast to float32, as scikit-learn does.

        Raises:
            ValueError: the array does not have one column for each feature.
        """
        if rows.ndim != 2 or rows.shape[1] != self._n_features:
            raise ValueError(f"rows have the shape (n, {self._n_features}), not {rows.shape}")
        outcomes = self._table.outcomes(rows.astype(np.float32, copy=False))
        return Batch(self._indices.take(outcomes), self._table.probabilities.take(outcomes, axis=0))

    def _replay(self, rows: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        batch = self.predict_batch(rows).probabilities
        for number, row in enumerate(rows.tolist()):
            if not self.predict(row).probabilities == tuple(expected[number]) == tuple(batch[number]):
                raise ModelFileError(f"golden row {number} gives other probabilities than scikit-learn gave")


def load(path: Path) -> Classifier:
    """Return the model in the file at `path`, ready to predict.

    Raises:
        ModelFileError: the file is missing, damaged, crafted or newer; the sentence says what is wrong.
    """
    content = modelfile.read(path)
    try:
        return Classifier(modelfile.parse(content), modelfile.version_of(content))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
