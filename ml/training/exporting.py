"""Write the model file of an estimator that was fitted elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml.errors import DatasetError
from ml.estimators.boosted import as_estimator
from ml.estimators.trees import forest_from
from ml.model.classifier import Classifier
from ml.tables.dataset import Target
from ml.tables.headers import Limits, feature_of
from ml.tables.numbers import LARGEST
from ml.training.fitting import Trained, check_name, with_interval
from ml.training.measuring import Split, answers_of, interval_of, measure
from ml.training.writing import model_of, write


def export(
    forest: Any,
    X_test: ArrayLike,  # scikit-learn's word, in a session that speaks it
    y_test: ArrayLike,
    *,
    feature_names: Sequence[str],
    path: Path | str,
    X_train: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    limits: Mapping[str, Limits] | None = None,
    name: str | None = None,
) -> Classifier:
    """Write the model file of a forest fitted elsewhere, with the same checks, golden rows and report; without pickle.

    Args:
        forest: a fitted random forest, extra-trees or single decision tree of scikit-learn, or a classifier, regressor
            or booster of XGBoost, LightGBM or CatBoost.
        X_test: shape (n_rows, n_features): rows that it was not fitted on; NaN is no value.
        y_test: shape (n_rows,): their classes, out of `forest.classes_`, or their quantities.
        feature_names: one a column, as in a CSV file's header: `petal width (cm)`.
        path: where the model file goes.
        X_train, y_train: the rows that it was fitted on, for the training ranges; else the test rows replace them.
        limits: limits by feature key.
        name: the model's name; else the file's name without its ending.

    Raises:
        ForestError: the estimator is of another kind.
        DatasetError: rows, classes and names do not fit the forest or each other.
        TrainingError: the file read back gives other probabilities.
    """
    path = Path(path)
    check_name(name or path.stem)
    forest = as_estimator(forest)
    features = tuple(feature_of(text, limits) for text in feature_names)
    keys = {feature.key for feature in features}
    trees = forest_from(forest)
    if trees.n_features != len(keys):
        raise DatasetError(f"the forest has {forest.n_features_in_} features, and needs as many different names")
    if unknown := sorted((limits or {}).keys() - keys):
        raise DatasetError(f"limits for {unknown[0]!r}, which is not a feature")
    if (X_train is None) != (y_train is None):
        raise DatasetError("X_train and y_train go together")
    if hasattr(forest, "n_jobs"):
        # With several jobs scikit-learn adds the trees in whatever order they come, and the bits differ.
        forest = copy.copy(forest).set_params(n_jobs=1)
    test_rows, test_outcomes = _checked("X_test", X_test, "y_test", y_test, forest=forest)
    train_rows, train_outcomes = test_rows, test_outcomes
    if X_train is not None and y_train is not None:
        train_rows, train_outcomes = _checked("X_train", X_train, "y_train", y_train, forest=forest)
    has_gaps = np.asarray(np.isnan(np.concatenate([train_rows, test_rows])).any(axis=0))
    # Only a row without a value goes right there, so the forest was fitted on some.
    has_gaps[trees.feature[np.isposinf(trees.threshold)]] = True
    features = tuple(
        msgspec.structs.replace(feature, has_gaps=lacks)
        for feature, lacks in zip(features, has_gaps.tolist(), strict=True)
    )
    parts = Split(train_rows, test_rows, train_outcomes, test_outcomes)
    labels = tuple(str(label) for label in getattr(forest, "classes_", ()))
    answers = answers_of(forest, test_rows)
    report = measure(answers, parts, n_labels=len(labels))
    trained = Trained(
        name=name or path.stem,
        source=f"fitted elsewhere, measured on {len(test_rows)} rows",
        features=features,
        target=Target(labels=labels),
        estimator=forest,
        split=parts,
        report=msgspec.structs.replace(report, train_rows=None if X_train is None else len(train_rows)),
        interval=None,
        recipe=None,
        data_digest=None,
    )
    if not labels:
        # Of the test rows, half make the interval and the others measure it.
        made, measured = test_outcomes[::2] - answers[::2], slice(1, None, 2)
        parts = Split(train_rows, test_rows[measured], train_outcomes, test_outcomes[measured])
        trained = with_interval(replace(trained, split=parts), interval_of(made), answers[measured])
    return write(model_of(trained), path, trained=trained)


def _checked(
    rows_name: str, rows: ArrayLike, outcomes_name: str, outcomes: ArrayLike, *, forest: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rows as float64, and classes as indices into `forest.classes_`, or quantities."""
    try:
        checked = np.asarray(rows, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{rows_name} is not a table of numbers: {error}") from error
    if checked.ndim != 2 or checked.shape[1] != forest.n_features_in_ or not len(checked):
        raise DatasetError(f"{rows_name} has the shape {checked.shape}, not (n, {forest.n_features_in_}) with rows")
    if not np.all((np.abs(checked) <= LARGEST) | np.isnan(checked)):
        raise DatasetError(f"{rows_name} has a value that is not a finite 32-bit float")
    given = np.asarray(outcomes)
    if not hasattr(forest, "classes_"):
        return checked, _quantities(outcomes_name, given, n_rows=len(checked))
    position = {label: index for index, label in enumerate(forest.classes_.tolist())}
    indices = [position.get(label, -1) for label in given.tolist()] if given.ndim == 1 else []
    if len(indices) != len(checked) or -1 in indices:
        raise DatasetError(f"{outcomes_name} does not have one of the forest's classes for each row of {rows_name}")
    return checked, np.array(indices, dtype=np.float64)


def _quantities(name: str, given: NDArray[Any], *, n_rows: int) -> NDArray[np.float64]:
    try:
        values = given.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{name} does not hold numbers: {error}") from error
    if values.shape != (n_rows,) or not np.all(np.abs(values) <= LARGEST) or n_rows < 2:
        raise DatasetError(f"{name} does not have a finite 32-bit float for each of at least two rows")
    return values
