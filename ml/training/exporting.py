"""Write the model file of an estimator that was fitted elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError, TableError
from ml.estimators.boosted import as_estimator
from ml.estimators.frames import Frame, frame_of
from ml.estimators.names import names_of
from ml.estimators.outcomes import check_order, outcomes_of
from ml.estimators.session import SessionModel, session_model
from ml.estimators.steps import read_steps
from ml.model.card import MAX_LABELS, QuantityReport, Report, Step
from ml.model.forest import Forest
from ml.model.labelling import Labelling, decision_of
from ml.model.loaded import LoadedModel
from ml.tables.dataset import Target
from ml.tables.headers import Limits, key_of
from ml.training.fitting import Trained, check_name, with_halved_rows
from ml.training.measuring import Split, answers_of, check_sense, measure
from ml.training.progress import Bars
from ml.training.writing import model_of, write

# Of the comparisons of a forest, the share that give the same for all test rows.
MOST_OUTSIDE = 0.5
# A model that is no better than the most frequent class, and less wrong in its own eyes than this share of what it is.
LEAST_DOUBT = 0.1
MIN_ROWS_TO_JUDGE = 10
WAY_OUT = "give the whole pipeline if this is its last step, rows in the order of y_test, or insist=True if it is meant"


def export(
    model: Any,
    X_test: Any,  # scikit-learn's word, in a session that speaks it
    y_test: Any,
    *,
    feature_names: Sequence[str] | None = None,
    path: Path | str,
    X_train: Any = None,
    y_train: Any = None,
    limits: Mapping[str, Limits | tuple[float | None, float | None]] | None = None,
    name: str | None = None,
    threshold: float | None = None,
    positive: object = None,
    insist: bool = False,
) -> LoadedModel:
    """Write the model file of a model fitted elsewhere, with the same checks, golden rows and report; without pickle.

    Args:
        model: a fitted ensemble of trees, linear model or naive Bayes of scikit-learn, or a classifier,
            regressor or booster of XGBoost, LightGBM or CatBoost, alone, in a search
            (GridSearchCV), or at the end of a Pipeline of steps that work on each column alone.
        X_test: shape (n_rows, n_features): rows that it was not fitted on, as the model takes them: an array, or a
            DataFrame of pandas or polars, whose names, words and gaps become those of the features.
        y_test: shape (n_rows,): their classes, out of `model.classes_`, or their quantities.
        feature_names: one for each input of the model, in their order, as in a CSV file's header: `petal width (cm)`;
            columns of a DataFrame with these names are put in this order. Else the names of the model or the columns.
        path: where the model file goes.
        X_train, y_train: the rows that it was fitted on, for the training ranges; else the test rows replace them.
        limits: lowest and highest value by feature key, None for no limit.
        name: the model's name; else the file's name without its ending.
        threshold: of two classes, the least probability with which `positive` is the answer; else the most probable
            class is, or what a FixedThresholdClassifier or a TunedThresholdClassifierCV among the steps has decided.
        positive: the class of the threshold; else the second one.
        insist: write a model that looks as if it were given other rows than it was fitted on.

    Raises:
        ForestError: the model, or a step of it, is of another kind; the sentence names it.
        TableError: rows, classes and names do not fit the model or each other.
        ModelFileError: the file cannot be written, or gives other probabilities when it is read back.
    """
    path = Path(path)
    check_name(name or path.stem)
    _check_model(model)
    model = as_estimator(model)
    if (X_train is None) != (y_train is None):
        raise TableError("X_train and y_train go together")
    frames = {"X_test": frame_of("X_test", X_test)}
    names = names_of(model, frames["X_test"], feature_names)
    if X_train is not None:
        frames["X_train"] = frame_of("X_train", X_train)
    frames = {name: names.arrange(frame, name) for name, frame in frames.items()}
    given_limits = _limits(limits or {})
    fitted = session_model(read_steps(model, len(names.headers)), names, frames, given_limits)
    keys = {feature.key for feature in fitted.features}
    if unknown := sorted(given_limits.keys() - keys):
        raise TableError(f"limits for {unknown[0]!r}, which is not a feature")
    test = _checked("X_test", frames["X_test"], "y_test", y_test, model=fitted)
    train = _checked("X_train", frames["X_train"], "y_train", y_train, model=fitted) if X_train is not None else test
    labels = tuple(str(label) for label in getattr(fitted, "classes_", ()))
    if hasattr(fitted, "classes_") and not 2 <= len(labels) <= MAX_LABELS:
        raise TableError(f"the model has the number of classes {len(labels)}: 2 to {MAX_LABELS} can be served")
    decision = fitted.decision
    if threshold is not None and not isinstance(threshold, Real):
        raise TableError(f"the threshold is {threshold!r}, which is no number: a probability from 0 to 1 is needed")
    if threshold is not None or positive is not None:
        decision = decision_of(labels, 0.5 if threshold is None else threshold, positive)
    answers = _answers(fitted, test[0], Labelling.by(labels, decision))
    parts = Split(train[0], test[0], train[1], test[1])
    report = measure(answers, parts, n_labels=len(labels))
    if not insist:
        check_order("X_test", X_test, "y_test", y_test)
        check_order("X_train", X_train, "y_train", y_train)
        # A threshold may cost accuracy on purpose.
        alone = answers if decision is None else _answers(fitted, test[0], Labelling(labels))
        _check_reach(fitted, test[0])
        found = measure(alone, parts, n_labels=len(labels))
        check_sense(found, WAY_OUT)
        _check_doubt(fitted, found, test[0])
    trained = Trained(
        name=name or path.stem,
        source=f"fitted elsewhere, measured on {len(test[0])} rows",
        features=fitted.features,
        target=Target(labels=labels),
        estimator=fitted,
        split=parts,
        report=msgspec.structs.replace(report, train_rows=None if X_train is None else len(train[0])),
        decision=decision,
        steps=tuple(Step(kind=kind, features=keys) for kind, keys in fitted.steps()),
    )
    if not labels:
        trained = with_halved_rows(trained, answers)
    with Bars() as bars:
        return write(model_of(trained, progress=bars.show), path, trained=trained, progress=bars.show)


def _check_model(model: Any) -> None:
    """Raise a `ForestError` for what no model can be."""
    if isinstance(model, type):
        raise ForestError(f"the model is the class {model.__name__}: give one that was fitted, an object of it")
    if not hasattr(model, "predict"):
        way_out = "a fitted one is needed, of a search with refit=True, of a Pipeline with its last estimator"
        if not hasattr(model, "fit"):
            way_out = "load or fit the model first"
        raise ForestError(f"the model is a {type(model).__name__}, which cannot predict: {way_out}")


def _limits(given: Mapping[str, Any]) -> dict[str, Limits]:
    """Return limits by feature key; the names of columns stand for their keys."""
    found = {}
    for name, ends in given.items():
        pair = (ends.minimum, ends.maximum) if isinstance(ends, Limits) else ends
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not is_pair or not all(end is None or isinstance(end, Real) for end in pair):
            raise TableError(f"the limits for {name!r} are {ends!r}: a pair is needed, as (0, 20); None is no limit")
        low, high = (None if end is None else float(end) for end in pair)
        if low is not None and high is not None and not low <= high:
            raise TableError(f"the limits for {name!r} are {ends!r}: the first one is not below the other")
        found[key_of(name)] = Limits(low, high)
    return found


def _checked(
    rows_name: str, frame: Frame, outcomes_name: str, outcomes: Any, *, model: SessionModel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rows, and classes as positions in `model.classes_`, or quantities."""
    rows = model.rows(frame)
    classes = getattr(model, "classes_", np.empty(0)).tolist()
    return rows, outcomes_of(outcomes_name, outcomes, n_rows=len(rows), rows_name=rows_name, classes=classes)


def _answers(model: SessionModel, rows: NDArray[np.float64], labelling: Labelling) -> NDArray[np.float64]:
    try:
        return answers_of(model, rows, labelling)
    except ValueError as error:
        raise TableError(f"the model does not take X_test: {str(error).splitlines()[0]}") from error


def _check_reach(model: SessionModel, rows: NDArray[np.float64]) -> None:
    """Raise a `TableError` if the model seems to be the last step of a pipeline alone, given rows as they were."""
    if outside := _outside(model, rows):
        raise TableError(
            f"the values of {outside!r} in X_test, and most others, lie all on one side of what the model compares "
            f"them with, as if its columns were in another order, or the steps before it missing: {WAY_OUT}"
        )


def _outside(model: SessionModel, rows: NDArray[np.float64]) -> str:
    """Return the title of a feature whose test rows lie all on one side of thresholds, if most thresholds are such."""
    forest, outside, compared = model.folded, dict[str, int](), 0
    if not isinstance(forest, Forest):
        return ""
    for place, feature in enumerate(model.features):
        thresholds = forest.threshold[(forest.feature == place) & np.isfinite(forest.threshold)]
        values = rows[:, place][~np.isnan(rows[:, place])]
        if feature.choices or len(values) < MIN_ROWS_TO_JUDGE:
            continue
        compared += len(thresholds)
        is_outside = (thresholds < values.min()) | (thresholds >= values.max())
        outside[feature.title] = int(np.count_nonzero(is_outside))
    return max(outside, key=outside.__getitem__) if sum(outside.values()) > MOST_OUTSIDE * compared else ""


def _check_doubt(model: SessionModel, report: Report | QuantityReport, rows: NDArray[np.float64]) -> None:
    """Raise a `TableError` if a model knows nothing of the test rows, but is sure of its answers."""
    if isinstance(report, QuantityReport) or report.accuracy > report.baseline:
        return
    wrong, doubt = 1 - report.accuracy, float(1 - model.predict_proba(rows).max(axis=1).mean())
    if wrong * len(rows) >= MIN_ROWS_TO_JUDGE and doubt < LEAST_DOUBT * wrong:
        raise TableError(
            f"the model has an accuracy of {report.accuracy:.3f} on {len(rows)} rows, as always giving the most "
            f"frequent class has, and gives its answers {1 - doubt:.3f} on average: {WAY_OUT}"
        )
