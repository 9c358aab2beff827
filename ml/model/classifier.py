"""The classifier of every channel: a model file, compiled and checked against its golden rows."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError
from ml.model import bitvectors, decision_table, modelfile
from ml.model.bitvectors import BitVectors
from ml.model.card import Card
from ml.model.cuts import Cuts
from ml.model.decision_table import DecisionTable, LabelGrid
from ml.model.forest import Forest
from ml.model.modelfile import ModelFile
from ml.model.sample import Validator
from ml.model.walk import Walk

# A batch is divided into slices that take about this long each, so that a server can answer others in between.
SLICE_S = 0.002
MAX_SLICE_ROWS = 65_536
_TIMED_ROWS = 512

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one row.

    Predictions of a decision table are shared: the same outcome is the same object, so data derived from it, such as
    its JSON, can be cached under the object itself.

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


class Evaluator(Protocol):
    """A compiled forest. All evaluators give the same bits; they differ in speed and in the forests that fit.

    Attributes:
        grid: the label of each cell of a decision table; None for other evaluators and more labels than a byte names.
    """

    grid: LabelGrid | None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        """Return the answer to one row of finite float64 values, whose ranks among the cuts may be known already."""

    def predict_batch(self, rows: NDArray[np.float32]) -> Batch:
        """Return the answers to rows, shape (n, n_features), as arrays."""

    def predict_each(self, rows: NDArray[np.float32]) -> list[Prediction]:
        """Return the answers to rows, shape (n, n_features), one object a row."""


class _ByCell:
    """A decision table, its answers made once."""

    def __init__(self, table: DecisionTable, labels: Sequence[str]) -> None:
        self._table = table
        self._indices: NDArray[np.intp] = table.probabilities.argmax(axis=1)
        self.grid = table.label_grid(self._indices) if len(labels) <= LabelGrid.MAX_LABELS else None
        self._predictions = [
            Prediction(index, labels[index], tuple(probabilities))
            for index, probabilities in zip(self._indices.tolist(), table.probabilities.tolist(), strict=True)
        ]

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self._predictions[self._table.outcome(row, ranks)]

    def predict_batch(self, rows: NDArray[np.float32]) -> Batch:
        outcomes = self._table.outcomes(rows)
        return Batch(self._indices.take(outcomes), self._table.probabilities.take(outcomes, axis=0))

    def predict_each(self, rows: NDArray[np.float32]) -> list[Prediction]:
        predictions = self._predictions
        return [predictions[outcome] for outcome in self._table.outcomes(rows).tolist()]


class _ByTree:
    """A forest with too many cells, its trees evaluated for each row."""

    def __init__(self, trees: BitVectors | Walk, labels: Sequence[str]) -> None:
        self._trees = trees
        self._labels = labels
        self.grid: LabelGrid | None = None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        probabilities = tuple(self._trees.one(row, ranks).tolist())
        index = probabilities.index(max(probabilities))
        return Prediction(index, self._labels[index], probabilities)

    def predict_batch(self, rows: NDArray[np.float32]) -> Batch:
        probabilities = self._trees.batch(rows)
        return Batch(probabilities.argmax(axis=1), probabilities)

    def predict_each(self, rows: NDArray[np.float32]) -> list[Prediction]:
        batch, labels = self.predict_batch(rows), self._labels
        pairs = zip(batch.indices.tolist(), batch.probabilities.tolist(), strict=True)
        return [Prediction(index, labels[index], tuple(probabilities)) for index, probabilities in pairs]


def compile_forest(
    forest: Forest, cuts: Cuts, *, labels: Sequence[str], max_cells: int, max_bit_bytes: int
) -> Evaluator:
    """Return the fastest evaluator that the forest fits into."""
    if DecisionTable.fits(forest, cuts, max_cells):
        return _ByCell(DecisionTable(forest, cuts), labels)
    if BitVectors.fits(forest, cuts, max_bit_bytes):
        return _ByTree(BitVectors(forest, cuts), labels)
    return _ByTree(Walk(forest, cuts), labels)


class Classifier:
    """An immutable model, ready to predict.

    Attributes:
        version: the first 12 hex digits of the SHA-256 of the model file.
        interface: 12 hex digits that two models share when they take the same samples and give the same labels.
        cuts: the values at which the answer can change, feature by feature.
        grid: see `Evaluator`.
        spans: the width of the training range of each feature, never 0, as the unit of distances.
        slice_rows: the number of rows that `predict_batch` answers in about `SLICE_S` seconds, measured at the start.
    """

    def __init__(
        self,
        model: ModelFile,
        version: str,
        *,
        max_cells: int = decision_table.MAX_CELLS,
        max_bit_bytes: int = bitvectors.MAX_BYTES,
    ) -> None:
        self.card: Card = model.card
        self.version = version
        self.name = model.card.name
        self.labels = model.card.labels
        self.features = model.card.features
        self.validator = Validator(model.card.features)
        self.reference_rows = model.reference_rows
        self.reference_classes = model.reference_classes
        self._n_features = len(self.features)
        self.interface = _interface_of(model.card)
        self.cuts = Cuts(model.forest)
        self._evaluator = compile_forest(
            model.forest, self.cuts, labels=self.labels, max_cells=max_cells, max_bit_bytes=max_bit_bytes
        )
        self.grid = self._evaluator.grid
        self.spans = [max(feature.high - feature.low, sys.float_info.min) for feature in self.features]
        self._replay(model.golden_rows, model.golden_probabilities)
        self.slice_rows = self._measure_slice(model.golden_rows)
        self._made: dict[Callable[[Classifier], Any], Any] = {}

    def made(self, make: Callable[[Classifier], Made]) -> Made:
        """Return `make(model)`, which is called once and cached as long as the model."""
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made

    def predict(self, row: Sequence[float], *, ranks: Sequence[int] | None = None) -> Prediction:
        """Return the answer to one row of finite floats, as the validator returns it.

        Args:
            ranks: the row's ranks among the cuts (`Cuts.ranks_of`), if they are known already.

        Raises:
            ValueError: the row does not have one value for each feature.
        """
        if len(row) != self._n_features:
            raise ValueError(f"a row has {self._n_features} values, not {len(row)}")
        return self._evaluator.predict(row, ranks)

    def predict_batch(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> Batch:
        """Return the answers to rows of finite numbers: the same bits as `predict` gives one by one.

        Args:
            rows: shape (n, n_features). float64 is cast to float32, as scikit-learn does.

        Raises:
            ValueError: the array does not have one column for each feature.
        """
        return self._evaluator.predict_batch(self._cast(rows))

    def predict_each(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> list[Prediction]:
        """Return the prediction of each of many rows; arguments and errors are those of `predict_batch`."""
        return self._evaluator.predict_each(self._cast(rows))

    def _cast(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float32]:
        if rows.ndim != 2 or rows.shape[1] != self._n_features:
            raise ValueError(f"rows have the shape (n, {self._n_features}), not {rows.shape}")
        return rows.astype(np.float32, copy=False)

    def _measure_slice(self, rows: NDArray[np.float64]) -> int:
        timed = np.resize(rows, (_TIMED_ROWS, self._n_features)).astype(np.float32)
        self._evaluator.predict_batch(timed)
        start = time.perf_counter()
        self._evaluator.predict_batch(timed)
        seconds_a_row = (time.perf_counter() - start) / _TIMED_ROWS
        return min(max(1, int(SLICE_S / seconds_a_row)), MAX_SLICE_ROWS)

    def _replay(self, rows: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        batch = self.predict_batch(rows).probabilities
        for number, row in enumerate(rows.tolist()):
            if not self.predict(row).probabilities == tuple(expected[number]) == tuple(batch[number]):
                raise ModelFileError(f"golden row {number} gives other probabilities than scikit-learn gave")


def _interface_of(card: Card) -> str:
    features = [
        (feature.key, feature.title, feature.unit, feature.minimum, feature.maximum) for feature in card.features
    ]
    return hashlib.sha256(msgspec.json.encode((features, card.labels))).hexdigest()[:12]


def load(
    path: Path,
    *,
    max_bytes: int = modelfile.MAX_FILE_BYTES,
    max_cells: int = decision_table.MAX_CELLS,
    max_bit_bytes: int = bitvectors.MAX_BYTES,
) -> Classifier:
    """Return the model in the file at `path`, ready to predict.

    Args:
        max_bytes: a larger file is refused.
        max_cells: the largest decision table, in cells.
        max_bit_bytes: the largest bit-vector evaluator, in bytes; a larger forest is evaluated node by node.

    Raises:
        ModelFileError: the file is missing, damaged, crafted or newer; the sentence says what is wrong.
    """
    content = modelfile.read(path, max_bytes=max_bytes)
    try:
        return Classifier(
            modelfile.parse(content), modelfile.version_of(content), max_cells=max_cells, max_bit_bytes=max_bit_bytes
        )
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
