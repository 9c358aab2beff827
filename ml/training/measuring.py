"""Measure answers on rows that the model was not trained on: the report, and the interval around a quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.model.calibration import MAX_BINS, Bin, Calibration, Point
from ml.model.card import QuantityReport, Report
from ml.model.labelling import Labelling
from ml.model.loaded import LoadedModel
from ml.model.quantity import Interval

# The interval around a quantity holds the truth for this share of rows.
COVERAGE = 0.9
# Pairs of predicted and true quantities that are kept for a picture.
RESIDUALS = 300
# Thresholds between hundredths that are kept of a curve.
CURVE_STEPS = 100
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


@dataclass(frozen=True)
class Split:
    """A split into rows to learn from and rows to measure on, stratified by class; shapes as in `Dataset`."""

    train_rows: NDArray[np.float64]
    test_rows: NDArray[np.float64]
    train_outcomes: NDArray[np.float64]
    test_outcomes: NDArray[np.float64]

    @property
    def train_classes(self) -> NDArray[np.intp]:
        """The class of each row to learn from, as an index into the labels."""
        return self.train_outcomes.astype(np.intp)

    @property
    def test_classes(self) -> NDArray[np.intp]:
        """The class of each row to measure on, as an index into the labels."""
        return self.test_outcomes.astype(np.intp)


def answers_of(estimator: Any, rows: NDArray[np.float64], labelling: Labelling) -> NDArray[np.float64]:
    """Return the class index or the quantity that a fitted estimator predicts for each row."""
    if labelling.positive is not None:
        shares = estimator.predict_proba(rows)
        return labelling.indices(shares, sums=shares).astype(np.float64)
    if labelling.labels:
        # The classes are sorted.
        indices: NDArray[np.intp] = np.searchsorted(estimator.classes_, np.ravel(estimator.predict(rows)))
        return indices.astype(np.float64)
    values: NDArray[np.float64] = estimator.predict(rows)
    return values


def measure(answers: NDArray[np.float64], parts: Split, *, n_labels: int) -> Report | QuantityReport:
    """Return the report of `answers`, shape (n_test_rows,), to the test rows of a split.

    They are class indices, or without labels quantities.
    """
    return _measure_classes(answers.astype(np.intp), parts, n_labels) if n_labels else _measure_quantity(answers, parts)


def _measure_classes(answers: NDArray[np.intp], parts: Split, n_labels: int) -> Report:
    confusion = np.zeros((n_labels, n_labels), dtype=int)
    np.add.at(confusion, (parts.test_classes, answers), 1)
    right = np.diag(confusion)
    answered, true = confusion.sum(axis=0), confusion.sum(axis=1)
    most_frequent = int(np.bincount(parts.train_classes).argmax())
    return Report(
        train_rows=len(parts.train_rows),
        test_rows=len(parts.test_rows),
        accuracy=float(right.sum() / len(answers)),
        baseline=float(true[most_frequent] / len(answers)),
        # A label that was never answered has no precision; 0 is what scikit-learn reports for it.
        precision=tuple((right / np.maximum(answered, 1)).tolist()),
        recall=tuple((right / np.maximum(true, 1)).tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        cross_validation=None,
    )


def _measure_quantity(answers: NDArray[np.float64], parts: Split) -> QuantityReport:
    true = parts.test_outcomes
    errors = true - answers
    return QuantityReport(
        train_rows=len(parts.train_rows),
        test_rows=len(true),
        r2=r2_of(answers, true),
        mean_absolute_error=float(np.abs(errors).mean()),
        root_mean_squared_error=float(np.sqrt((errors**2).mean())),
        baseline_error=float(np.abs(true - np.median(parts.train_outcomes)).mean()),
        residuals=tuple(zip(answers[:RESIDUALS].tolist(), true[:RESIDUALS].tolist(), strict=True)),
        covered=0.0,
        cross_validation=None,
    )


def calibration_of(shares: NDArray[np.float64], classes: NDArray[np.intp], labelling: Labelling) -> Calibration:
    """Return how far probabilities, shape (n_rows, n_labels), hold on rows of these classes."""
    errors = ((shares - np.eye(shares.shape[1])[classes]) ** 2).sum(axis=1)
    if shares.shape[1] > 2:
        likeliest = shares.argmax(axis=1)
        bins = _bins(shares[np.arange(len(shares)), likeliest], likeliest == classes)
        return Calibration(brier=float(errors.mean()), bins=bins)
    positive = 1 if labelling.positive is None else labelling.positive
    own, is_true = shares[:, positive], classes == positive
    # Both labels have the same error.
    brier = float(errors.mean() / 2)
    points = _points(own, is_true, more=[labelling.threshold])
    return Calibration(brier=brier, bins=_bins(own, is_true), points=points, area=_area(own, is_true))


def _bins(shares: NDArray[np.float64], is_true: NDArray[np.bool_]) -> tuple[Bin, ...]:
    places = np.minimum((shares * MAX_BINS).astype(np.intp), MAX_BINS - 1)
    rows, true, sums = (np.bincount(places, weights, MAX_BINS) for weights in (None, is_true, shares))
    return tuple(
        Bin(min(float(sums[place] / rows[place]), 1.0), int(rows[place]), int(true[place]))
        for place in np.flatnonzero(rows)
    )


def _points(shares: NDArray[np.float64], is_true: NDArray[np.bool_], *, more: Sequence[float]) -> tuple[Point, ...]:
    """Return the curve at each hundredth, at more thresholds, and at some of the probabilities."""
    between = np.quantile(shares, np.linspace(0, 1, CURVE_STEPS), method="inverted_cdf")
    thresholds = np.unique(np.concatenate([np.arange(101) / 100, more, np.clip(between, 0, 1)]))
    false, true = (
        np.count_nonzero(chosen) - np.searchsorted(np.sort(shares[chosen]), thresholds)
        for chosen in (~is_true, is_true)
    )
    is_kept = np.ones(len(thresholds), dtype=bool)
    # Up to the next one it costs the same.
    is_kept[1:-1] = (np.diff(false) != 0)[1:] | (np.diff(true) != 0)[1:]
    columns = (column[is_kept].tolist() for column in (thresholds, false, true))
    return tuple(Point(*point) for point in zip(*columns, strict=True))


def _area(shares: NDArray[np.float64], is_true: NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve: how often a row of the label has the larger probability, ties by half."""
    false = np.sort(shares[~is_true])
    n_pairs = len(false) * int(is_true.sum())
    if not n_pairs:
        return None
    below, not_above = (np.searchsorted(false, shares[is_true], side=side).sum() for side in SIDES)
    return float((below + not_above) / (2 * n_pairs))


def report_of(model: LoadedModel, parts: Split) -> Report | QuantityReport:
    """Return the report of a model's answers to the test rows of a split, with the share of them in its interval."""
    batch = model.predict_batch(parts.test_rows)
    answers = batch.indices.astype(np.float64) if model.labels else batch.values
    report = measure(answers, parts, n_labels=len(model.labels))
    if model.quantity is None:
        labelling = Labelling.by(model.labels, model.card.decision)
        found = calibration_of(batch.outputs, parts.test_classes, labelling)
        return msgspec.structs.replace(report, calibration=found)
    if model.quantity.interval is None:
        return report
    return msgspec.structs.replace(report, covered=covered(model.quantity.interval, answers, parts.test_outcomes))


def check_sense(report: Report | QuantityReport, way_out: str) -> None:
    """Raise a `TableError` if a model knows less than one that always gives the most frequent class, or the mean."""
    if isinstance(report, QuantityReport):
        if report.r2 < 0:
            raise TableError(
                f"the model is worse on {report.test_rows} rows than always giving the mean (R² {report.r2:.3f}): "
                f"{way_out}"
            )
    elif report.accuracy < report.baseline:
        raise TableError(
            f"the model has an accuracy of {report.accuracy:.3f} on {report.test_rows} rows, and always giving the "
            f"most frequent class has {report.baseline:.3f}: {way_out}"
        )


def r2_of(answers: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the coefficient of determination, at most 1.

    As scikit-learn's r2_score: where all true values are one, it is 1 if all answers are right and else 0.
    """
    spread = float(((true - true.mean()) ** 2).sum())
    lost = float(((true - answers) ** 2).sum())
    return 1 - lost / spread if spread else float(not lost)


def interval_of(errors: NDArray[np.float64]) -> Interval:
    """Return the interval of these errors, true values less predicted ones, on rows that the model had not seen."""
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(errors, [tail, 1 - tail], method="inverted_cdf")
    return Interval(below=max(0.0, -float(low)), above=max(0.0, float(high)), coverage=COVERAGE, rows=len(errors))


def covered(interval: Interval, answers: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the share of rows whose true quantity lies in the interval around the answer."""
    low, high = interval.around(answers)
    return float(((low <= true) & (true <= high)).mean())
