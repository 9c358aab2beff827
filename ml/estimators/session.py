"""A fitted model of a session that answers rows: the oracle of its own export."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.estimators.boosted import LIBRARIES
from ml.estimators.coding import Cells, Coding, cells_of_words
from ml.estimators.divisions import lowest_of
from ml.estimators.folding import fold
from ml.estimators.frames import Frame, is_gap
from ml.estimators.linear import calibrated_in, is_linear, linear_from
from ml.estimators.names import Names
from ml.estimators.paths import PipelineReading, unread
from ml.estimators.probing import ProbedInputs, inputs_of, transformed
from ml.estimators.trees import forest_from, lacking_in, readers_of
from ml.model.forest import Forest
from ml.model.linear import Linear
from ml.tables.dataset import Feature
from ml.tables.headers import Limits, feature_of
from ml.tables.numbers import LARGEST


class SessionModel:
    """A fitted model with its steps, asked with rows as a model file has them.

    Attributes:
        final: the estimator behind the steps, with one job: with several, scikit-learn adds trees in any order.
        features: the inputs that have an influence, with choices and gaps.
        columns: what the final estimator sees of them.
        folded: its forest, or its scores, on the features.
        classes_: of a classifier.
        decision: of a classifier that decides by a threshold.
    """

    def __init__(self, reading: PipelineReading, coding: Coding, inputs: ProbedInputs) -> None:
        self.final = reading.final
        self.final = _with_one_job(self.final)
        self.columns, self.decision = inputs.columns, reading.decision
        self._reading, self._coding = reading, coding
        self.features = inputs.features
        self.folded: Forest | Linear
        if is_linear(self.final):
            self.folded = linear_from(self.final, self.columns, is_sparse=reading.is_sparse)
        else:
            forest = forest_from(self.final)
            self.features = _with_gaps(inputs, forest)
            self.folded = fold(forest, self.columns, self.features)
        if hasattr(self.final, "classes_"):
            self.classes_ = self.final.classes_

    def steps(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return what the steps do, in one word each, and the keys of the features that they do it to."""
        key_of = {cells.place: f.key for cells, f in zip(self._coding.cells, self.features, strict=True)}
        steps = [(s.kind, tuple(key_of[place] for place in s.inputs if place in key_of)) for s in self._reading.steps]
        return [(kind, keys) for kind, keys in steps if keys]

    def rows(self, frame: Frame) -> NDArray[np.float64]:
        """Return the rows of a table of the session, shape (n_rows, n_features)."""
        return self._coding.rows(frame)

    def predict_proba(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the model's own probabilities, shape (n_rows, n_classes)."""
        return np.asarray(self._asked("predict_proba", rows), dtype=np.float64)

    def predict(self, rows: NDArray[np.float64]) -> NDArray[Any]:
        """Return the model's own labels or quantities, shape (n_rows,)."""
        return np.asarray(self._asked("predict", rows))

    def decision_function(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the model's own scores, shape (n_rows,) or (n_rows, n_classes)."""
        return np.asarray(self._asked("decision_function", rows))

    def _asked(self, method: str, rows: NDArray[np.float64]) -> Any:
        with warnings.catch_warnings():
            # That words are unknown is known.
            warnings.simplefilter("ignore")
            return getattr(self.final, method)(transformed(self._reading, self._coding.table(rows)))


def _with_one_job(estimator: Any) -> Any:
    """Return an estimator that works in one thread, and so do those of which the answers are a mean."""
    if "n_jobs" in getattr(estimator, "get_params", dict)():
        estimator = copy.copy(estimator).set_params(n_jobs=1)
    if type(estimator).__name__.startswith("Voting") and hasattr(estimator, "estimators_"):
        estimator.estimators_ = [*map(_with_one_job, estimator.estimators_)]
    if folds := getattr(estimator, "calibrated_classifiers_", None):
        estimator.calibrated_classifiers_ = [*map(copy.copy, folds)]
        for fold, inner in zip(estimator.calibrated_classifiers_, calibrated_in(estimator), strict=True):
            # The name before scikit-learn 1.2.
            setattr(fold, "estimator" if hasattr(fold, "estimator") else "base_estimator", _with_one_job(inner))
    return estimator


def predictor_from(estimator: Any) -> Forest | Linear:
    """Return what a fitted estimator has learned: a model of a session has it already, on its features.

    Raises:
        ForestError: it is of a kind that is not read.
    """
    return estimator.folded if isinstance(estimator, SessionModel) else forest_from(estimator)


def session_model(
    reading: PipelineReading, names: Names, frames: Mapping[str, Frame], limits: Mapping[str, Limits] | None
) -> SessionModel:
    """Return a fitted model as it answers rows.

    Args:
        frames: tables of the session by the names that messages give them, their columns in the order of the inputs.
        limits: of the features, by key.

    Raises:
        TableError, ForestError: columns or steps cannot be features.
    """
    _check_kind(reading.final)
    used = sorted({path.feature for path in reading.paths})
    first = next(iter(frames.values()))
    cells = [_cells(place, str(names.headers[place]), reading, list(frames.items())) for place in used]
    coding = Coding(first, cells)
    features = [feature_of(names.headers[place], limits) for place in used]
    coded = {name: coding.rows(frame) for name, frame in frames.items()}
    for name, rows in coded.items():
        _check_finite(name, rows, features)
    lacking = {place for rows in coded.values() for place, column in enumerate(rows.T) if np.isnan(column).any()}
    inputs = inputs_of(reading, coding, features, next(iter(coded.values())), lacking=lacking)
    return SessionModel(reading, coding, replace(inputs, features=_with_domains(inputs)))


def _check_finite(name: str, rows: NDArray[np.float64], features: Sequence[Feature]) -> None:
    """Raise a `TableError` for the first value that no sample can have."""
    wrong = np.argwhere(~((np.abs(rows) <= LARGEST) | np.isnan(rows)))
    if len(wrong):
        row, place = wrong[0].tolist()
        raise TableError(
            f"{name} has {rows[row, place]} in column {features[place].title!r}, row {row}, which is not a finite "
            "32-bit float"
        )


def _check_kind(estimator: Any) -> None:
    """Raise a `ForestError` if a model is of no kind that is read, whose own steps the columns would seem to lack."""
    kind = type(estimator)
    is_read = is_linear(estimator) or readers_of(estimator) or hasattr(estimator, "folded")
    if not is_read and kind.__module__.split(".")[0] not in LIBRARIES:
        raise unread(estimator)


def _with_gaps(inputs: ProbedInputs, forest: Forest) -> tuple[Feature, ...]:
    """Return the features, those of which the trees can tell no value apart as ones that may lack it."""
    seen = lacking_in(forest)
    lacking = {inputs.columns[place].feature for place in seen if inputs.columns[place].is_feature}
    return tuple(
        msgspec.structs.replace(feature, has_gaps=feature.has_gaps or place in lacking)
        for place, feature in enumerate(inputs.features)
    )


def _with_domains(inputs: ProbedInputs) -> tuple[Feature, ...]:
    """Return the features with the limits that their functions set: a logarithm has no value below its start."""
    lows = [lowest_of(inputs.columns, place) for place in range(len(inputs.features))]
    return tuple(
        feature if low is None or (feature.minimum is not None and feature.minimum >= low)
        else msgspec.structs.replace(feature, minimum=low)
        for feature, low in zip(inputs.features, lows, strict=True)
    )  # fmt: skip


def _cells(place: int, header: str, reading: PipelineReading, frames: Sequence[tuple[str, Frame]]) -> Cells:
    """Return the coding of one input: a category if an encoder knows its words or it is true or false."""
    gap = reading.gaps.get(place, np.nan)
    words = reading.words.get(place)
    for name, frame in frames:
        column = frame.columns[place]
        present = [value for value in column.tolist() if not is_gap(value)] if column.dtype.kind == "O" else []
        if column.dtype.kind == "b" or (present and all(isinstance(value, bool | np.bool_) for value in present)):
            # Some encoders know them as 0 and 1.
            words = [*map(bool, words or (False, True))]
        elif present and words is None:
            way_out = "OneHotEncoder or OrdinalEncoder in a Pipeline would"
            with suppress(ValueError, TypeError):
                float(present[0])
                way_out = f"{name}[{header!r}].astype(float) would, where it is text of numbers"
            raise TableError(
                f"column {header!r} of {name} holds {present[0]!r}, which is no number, and no step makes a number of "
                f"it: {way_out}"
            )
        if column.dtype.kind == "O":
            gap = next(filter(is_gap, column.tolist()), gap)
    if words:
        return cells_of_words(place, header, words, gap=gap)
    if place in reading.markers:
        raise reading.markers[place]
    return Cells(place)
