"""The classifier of every channel: a model file, compiled and checked against its golden rows."""

from __future__ import annotations

import hashlib
import math
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
from ml.model import compiled, decision_table, modelfile
from ml.model.card import Card
from ml.model.compiled import Compiled
from ml.model.cuts import Cuts, lowest_of
from ml.model.decision_table import DecisionTable, LabelGrid
from ml.model.forest import Forest
from ml.model.lines import FindLines
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
        index: the position of the label among the model's labels; 0 for a quantity.
        label: the most probable label; of several, the first. A quantity has none.
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
        lines: returns the answers along each feature through a row, see `Compiled.lines`; None if it asks for rows.
    """

    grid: LabelGrid | None
    lines: FindLines | None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        """Return the answer to one row of float64 values, whose ranks among the cuts may be known already."""

    def predict_batch(self, rows: NDArray[np.float32]) -> Batch:
        """Return the answers to rows, shape (n, n_features), as arrays."""

    def predict_each(self, rows: NDArray[np.float32]) -> list[Prediction]:
        """Return the answers to rows, shape (n, n_features), one object a row."""


class _ByCell:
    """A decision table, its answers made once."""

    def __init__(self, table: DecisionTable, labels: Sequence[str]) -> None:
        self._table = table
        self._indices: NDArray[np.intp] = table.answers.argmax(axis=1)
        self.grid = table.label_grid(self._indices) if 0 < len(labels) <= LabelGrid.MAX_LABELS else None
        self.lines: FindLines | None = None
        self._predictions = [prediction_of(outputs, labels) for outputs in table.answers.tolist()]

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return self._predictions[self._table.outcome(row, ranks)]

    def predict_batch(self, rows: NDArray[np.float32]) -> Batch:
        outcomes = self._table.outcomes(rows)
        return Batch(self._indices.take(outcomes), self._table.answers.take(outcomes, axis=0))

    def predict_each(self, rows: NDArray[np.float32]) -> list[Prediction]:
        predictions = self._predictions
        return [predictions[outcome] for outcome in self._table.outcomes(rows).tolist()]


class _ByTree:
    """A forest with too many cells, its trees evaluated for each row."""

    def __init__(self, trees: Compiled | Walk, labels: Sequence[str]) -> None:
        self._trees = trees
        self._labels = labels
        self.grid: LabelGrid | None = None
        self.lines: FindLines | None = trees.lines if isinstance(trees, Compiled) else None

    def predict(self, row: Sequence[float], ranks: Sequence[int] | None = None) -> Prediction:
        return prediction_of(self._trees.one(row, ranks).tolist(), self._labels)

    def predict_batch(self, rows: NDArray[np.float32]) -> Batch:
        outputs = self._trees.batch(rows)
        return Batch(outputs.argmax(axis=1), outputs)

    def predict_each(self, rows: NDArray[np.float32]) -> list[Prediction]:
        return [prediction_of(outputs, self._labels) for outputs in self._trees.batch(rows).tolist()]


def prediction_of(outputs: Sequence[float], labels: Sequence[str]) -> Prediction:
    """Return the prediction with these outputs: probabilities by label, or without labels one quantity."""
    if not labels:
        return Prediction(0, "", (), outputs[0])
    # list.index and max: the first of several, as argmax gives it.
    index = outputs.index(max(outputs))
    return Prediction(index, labels[index], tuple(outputs))


def compile_forest(
    forest: Forest, cuts: Cuts, *, labels: Sequence[str], max_cells: int, compiles: bool = True
) -> Evaluator:
    """Return the fastest evaluator that the forest fits into; only `compiles` lets it be compiled code."""
    if DecisionTable.fits(forest, cuts, max_cells):
        return _ByCell(DecisionTable(forest, cuts), labels)
    kernels = compiled.kernels() if compiles else None
    return _ByTree(Compiled(forest, cuts, kernels) if kernels else Walk(forest, cuts), labels)


class Classifier:
    """An immutable model, ready to predict a class or a quantity.

    Attributes:
        version: the first 12 hex digits of the SHA-256 of the model file.
        interface: 12 hex digits that two models share when they take the same samples and give the same labels.
        quantity: what is known about a predicted quantity; None for a classifier.
        cuts: the values at which the answer can change, feature by feature.
        grid, lines: see `Evaluator`.
        spans: the width of the training range of each feature, never 0, as the unit of distances.
        slice_rows: the number of rows that `predict_batch` answers in about `SLICE_S` seconds, measured at the start.
    """

    def __init__(
        self,
        model: ModelFile,
        version: str,
        *,
        max_cells: int = decision_table.MAX_CELLS,
        compiles: bool = True,
    ) -> None:
        self.card: Card = model.card
        self.version = version
        self.name = model.card.name
        self.labels = model.card.labels
        self.quantity = model.card.quantity
        self.features = model.card.features
        self.validator = Validator(model.card.features)
        self.reference_rows = model.reference_rows
        self.reference_outcomes = model.reference_outcomes
        self._n_features = len(self.features)
        self.interface = _interface_of(model.card)
        self.cuts = Cuts(model.forest, lowest_of(self.features))
        self._evaluator = compile_forest(
            model.forest, self.cuts, labels=self.labels, max_cells=max_cells, compiles=compiles
        )
        self.grid, self.lines = self._evaluator.grid, self._evaluator.lines
        self.spans = [max(feature.high - feature.low, sys.float_info.min) for feature in self.features]
        self._replay(model.golden_rows, model.golden_answers)
        self.slice_rows = self._measure_slice(model.golden_rows)
        self._made: dict[Callable[[Classifier], Any], Any] = {}

    def made(self, make: Callable[[Classifier], Made]) -> Made:
        """Return `make(model)`, which is called once and cached as long as the model."""
        made: Made | None = self._made.get(make)
        if made is None:
            made = self._made[make] = make(self)
        return made

    def predict(self, row: Sequence[float], *, ranks: Sequence[int] | None = None) -> Prediction:
        """Return the answer to one row, as the validator returns it.

        Args:
            ranks: the row's ranks among the cuts (`Cuts.ranks_of`), if they are known already.

        Raises:
            ValueError: the row does not have one value for each feature.
        """
        if len(row) != self._n_features:
            raise ValueError(f"a row has {self._n_features} values, not {len(row)}")
        return self._evaluator.predict(row, ranks)

    def predict_batch(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> Batch:
        """Return the answers to rows as the validator has them: the same bits as `predict` gives one by one.

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
        # The thread's own time: others may be busy on this machine while a server starts.
        start = time.thread_time()
        self._evaluator.predict_batch(timed)
        seconds_a_row = (time.thread_time() - start) / _TIMED_ROWS
        return min(max(1, int(SLICE_S / seconds_a_row)), MAX_SLICE_ROWS)

    def _replay(self, rows: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        batch = self.predict_batch(rows).outputs
        for number, row in enumerate(rows.tolist()):
            answer = self.predict(row)
            outputs = answer.probabilities if self.labels else (answer.value,)
            if not outputs == tuple(expected[number]) == tuple(batch[number]):
                raise ModelFileError(f"golden row {number} gives another answer than scikit-learn gave")


def _interface_of(card: Card) -> str:
    features = [
        (
            feature.key, feature.title, feature.unit, feature.header, feature.minimum, feature.maximum,
            feature.choices, feature.has_gaps, feature.markers, feature.decimal, feature.thousands,
        )
        for feature in card.features
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode((features, card.target))).hexdigest()[:12]


def load(
    path: Path,
    *,
    max_bytes: int = modelfile.MAX_FILE_BYTES,
    max_cells: int = decision_table.MAX_CELLS,
    compiles: bool = True,
) -> Classifier:
    """Return the model in the file at `path`, ready to predict.

    Args:
        max_bytes: a larger file is refused.
        max_cells: the largest decision table, in cells.
        compiles: whether a larger forest may be evaluated by compiled code; else NumPy does it.

    Raises:
        ModelFileError: the file is missing, damaged, crafted or newer; the sentence says what is wrong.
    """
    content = modelfile.read(path, max_bytes=max_bytes)
    try:
        return Classifier(
            modelfile.parse(content), modelfile.version_of(content), max_cells=max_cells, compiles=compiles
        )
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
