"""The model of every channel: a model file, compiled and checked against its golden rows."""

from __future__ import annotations

import copy
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError
from ml.model import decision_table, modelfile
from ml.model.card import Card, Decision
from ml.model.evaluators import Batch, ByScores, ByTree, Evaluator, Prediction, Rows, compile_predictor, cuts_of
from ml.model.forest import Forest
from ml.model.labelling import Labelling
from ml.model.linear_scores import LinearScores
from ml.model.links import allowed_error
from ml.model.modelfile import ModelFile
from ml.model.quantity import Quantity
from ml.model.relabelled import relabelled
from ml.model.sample import Validator

# A batch is divided into slices that take about this long each, so that a server can answer others in between.
SLICE_S = 0.002
MAX_SLICE_ROWS = 65_536
_TIMED_ROWS = 512
# Rows of many features are long: so many numbers, 16 MB as float64, are answered at once along the features of a row.
MAX_VALUES = 2_000_000

Made = TypeVar("Made")


class LoadedModel:
    """An immutable model, ready to predict a class or a quantity.

    Attributes:
        version: the first 12 hex digits of the SHA-256 of the model file.
        interface: 12 hex digits that two models share when they take the same samples and give the same labels.
        quantity: what is known about a predicted quantity; None for a model of classes.
        predictor, compiles: what explanations read, and whether code is compiled for it.
        cuts: the values at which the answer of a forest can change, feature by feature; see `EvenCuts` for others.
        scores: what computes the answer of a model without trees.
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
        self.predictor = model.predictor
        self.interface = _interface_of(model.card)
        self.cuts = cuts_of(model.predictor, self.features)
        self._ask(
            compile_predictor(
                model.predictor,
                self.features,
                cuts=self.cuts,
                labels=self.labels,
                decision=self.card.decision,
                max_cells=max_cells,
                compiles=compiles,
            )
        )
        self.compiles = compiles and isinstance(self._evaluator, ByTree)
        self.spans = [max(feature.high - feature.low, sys.float_info.min) for feature in self.features]
        seconds = self._replay(model)
        self.slice_rows = self._measure_slice(model.golden_rows, seconds)
        self._made: dict[Callable[[LoadedModel], Any], Any] = {}

    def deciding(self, decision: Decision) -> LoadedModel:
        """Return this model with another threshold between its two labels: only labels are other ones."""
        other = copy.copy(self)
        other.card = msgspec.structs.replace(self.card, decision=decision)
        other._ask(relabelled(self._evaluator, Labelling.by(self.labels, decision)))
        other._made = {}
        return other

    def _ask(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.scores: LinearScores | None = evaluator.scores if isinstance(evaluator, ByScores) else None
        self.grid, self.lines = evaluator.grid, evaluator.lines

    def made(self, make: Callable[[LoadedModel], Made]) -> Made:
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
            rows: shape (n, n_features). They are cast to the type in which the model's library compares values.

        Raises:
            ValueError: the array does not have one column for each feature.
        """
        return self._evaluator.predict_batch(self._cast(rows))

    def predict_along(
        self, row: Sequence[float] | NDArray[np.float64], features: NDArray[np.intp], values: NDArray[np.float64]
    ) -> Batch:
        """Return the answers to a row with other values of one feature each, all others held.

        Args:
            row: as the validator returns it.
            features, values: shape (n,): the position of the feature in each answer, and its value.
        """
        held = np.array(row, dtype=self.cuts.dtype)
        size = max(1, MAX_VALUES // len(row))
        parts = []
        for start in range(0, len(values), size):
            part = slice(start, start + size)
            rows = np.tile(held, (len(values[part]), 1))
            rows[np.arange(len(rows)), features[part]] = values[part]
            parts.append(self.predict_batch(rows))
        return Batch.joined(parts)

    def predict_each(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> list[Prediction]:
        """Return the prediction of each of many rows; arguments and errors are those of `predict_batch`."""
        return self._evaluator.predict_each(self._cast(rows))

    def _cast(self, rows: NDArray[np.float32] | NDArray[np.float64]) -> Rows:
        if rows.ndim != 2 or rows.shape[1] != self._n_features:
            raise ValueError(f"rows have the shape (n, {self._n_features}), not {rows.shape}")
        return rows.astype(self.cuts.dtype, copy=False)

    def _measure_slice(self, rows: NDArray[np.float64], seconds: float) -> int:
        """Return how many rows are answered in `SLICE_S`, by the time that these took if that was long."""
        if seconds < 2 * SLICE_S:
            # More than once: a first call does what others do not.
            rows = np.resize(rows, (_TIMED_ROWS, self._n_features))
            seconds = min(self._timed(rows)[1] for _ in range(2))
        return min(max(1, int(SLICE_S * len(rows) / seconds)), MAX_SLICE_ROWS)

    def _timed(self, rows: NDArray[np.float64]) -> tuple[Batch, float]:
        """Return the answers to rows, and the seconds that they took.

        These are the thread's own: others may be busy on this machine while a server starts.
        """
        start = time.thread_time()
        answers = self.predict_batch(rows)
        return answers, time.thread_time() - start

    def _fits(self, model: ModelFile, outputs: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which golden rows have the answers that they should have, shape (n,)."""
        rows, expected, predictor = model.golden_rows, model.golden_answers, model.predictor
        if self.scores is not None:
            return self.scores.fits(rows, model.golden_sums, expected)
        assert isinstance(predictor, Forest)
        total = predictor.total
        if not total.is_exact and not np.array_equal(self._evaluator.sums(self._cast(rows)), model.golden_sums):
            raise ModelFileError("the golden rows have other sums of leaves than the library gave")
        is_right: NDArray[np.bool_] = np.all(np.abs(outputs - expected) <= allowed_error(expected, total), axis=1)
        return is_right

    def _replay(self, model: ModelFile) -> float:
        """Answer the golden rows: what is promised to have the same bits on every machine must have them.

        Returns:
            The seconds that they took as a batch.
        """
        rows = model.golden_rows
        answers, seconds = self._timed(rows)
        outputs = answers.outputs
        is_right = self._fits(model, outputs)
        for number, row in enumerate(rows.tolist()):
            answer = self.predict(row)
            if not is_right[number] or (answer.probabilities or (answer.value,)) != tuple(outputs[number].tolist()):
                raise ModelFileError(f"golden row {number} gives another answer than the library gave")
        return seconds


def members_of(prediction: Prediction, labels: Sequence[str], quantity: Quantity | None) -> dict[str, object]:
    """Return what a prediction is in JSON: label and probabilities, or value and interval."""
    if quantity is None:
        probabilities = dict(zip(labels, prediction.probabilities, strict=True))
        return {"label": prediction.label, "probabilities": probabilities}
    value, interval = prediction.value, quantity.interval
    if interval is None:
        return {"value": value}
    low, high = interval.around(value)
    return {"value": value, "interval": {"low": low, "high": high, "coverage": interval.coverage}}


def _interface_of(card: Card) -> str:
    features = [
        (
            feature.key, feature.title, feature.unit, feature.header, feature.minimum, feature.maximum,
            feature.choices, feature.is_closed, feature.has_gaps, feature.markers, feature.decimal, feature.thousands,
        )
        for feature in card.features
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode((features, card.target))).hexdigest()[:12]


def load_model(
    path: Path,
    *,
    max_bytes: int = modelfile.MAX_FILE_BYTES,
    max_cells: int = decision_table.MAX_CELLS,
    compiles: bool = True,
) -> LoadedModel:
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
        model = modelfile.parse(content)
        return LoadedModel(model, model.version, max_cells=max_cells, compiles=compiles)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
