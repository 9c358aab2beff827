"""Linear models and naive Bayes of fitted estimators: their coefficients become arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError
from ml.estimators.paths import working_in
from ml.model.design import DesignColumn
from ml.model.linear import Linear, Link
from ml.model.total import Curve

Values = NDArray[np.float64]
# scikit-learn's, by name: classes derived from them elsewhere may compute otherwise.
LOGISTIC = {"LogisticRegression", "LogisticRegressionCV"}
REGRESSORS = {
    "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso",
    "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR", "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV", "QuantileRegressor", "Ridge", "RidgeCV", "SGDRegressor", "TheilSenRegressor",
}  # fmt: skip
# What has scores, but no probabilities of its own.
SCORES = {"LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron", "PassiveAggressiveClassifier"}
KINDS = LOGISTIC | REGRESSORS | SCORES | {"SGDClassifier", "GaussianNB", "CalibratedClassifierCV"}


def is_linear(estimator: Any) -> bool:
    """Return whether an estimator is one of those that are read here."""
    kind = type(estimator)
    if kind.__name__ not in KINDS or kind.__module__.split(".")[0] != "sklearn":
        return False
    # What is calibrated decides.
    return kind.__name__ != "CalibratedClassifierCV" or all(map(is_linear, calibrated_in(estimator)))


def linear_from(estimator: Any, columns: Sequence[DesignColumn], *, is_sparse: bool = False) -> Linear:
    """Take the coefficients out of a fitted linear model or a naive Bayes with normal distributions.

    Args:
        columns: what it sees of the features; their means are not known to it, and are 0.
        is_sparse: whether it is given them as a sparse matrix.

    Raises:
        ForestError: it is not fitted, has no probabilities, or predicts more than one output.
    """
    kind = type(estimator).__name__
    if kind in SCORES:
        raise ForestError(f"{kind} has no probabilities: fit CalibratedClassifierCV({kind}(...)) instead")
    fitted = {"GaussianNB": "theta_", "CalibratedClassifierCV": "calibrated_classifiers_"}.get(kind, "coef_")
    if not hasattr(estimator, fitted):
        raise ForestError(f"{kind} is not fitted")
    read = _READERS.get(kind, _logistic if kind in LOGISTIC else _regressor)
    link, coefficients, intercept = read(estimator)
    n_columns = len(columns)
    if coefficients.shape[1] != n_columns:
        raise ForestError(f"{kind} has {coefficients.shape[1]} coefficients, and is given {n_columns} columns")
    curves = tuple(map(curve_of, calibrators_of(estimator))) if link == "calibrated" else ()
    variances = _variances(estimator) if link == "posterior" else np.empty((0, n_columns))
    means = np.zeros(n_columns)
    return Linear(tuple(columns), link, coefficients, intercept, means, variances, curves, is_sparse)


def _regressor(estimator: Any) -> tuple[Link, Values, Values]:
    coefficients = np.asarray(estimator.coef_, dtype=np.float64)
    if coefficients.ndim == 2 and len(coefficients) > 1:
        raise ForestError("an estimator with more than one output is not supported")
    return "identity", coefficients.reshape(1, -1), np.asarray(estimator.intercept_, dtype=np.float64).reshape(1)


def _logistic(estimator: Any) -> tuple[Link, Values, Values]:
    n_labels = len(estimator.classes_)
    given = _scores_of(estimator)
    # Before scikit-learn 1.8 there was a choice, and liblinear had none.
    asked = getattr(estimator, "multi_class", "auto")
    is_divided = asked == "ovr" or estimator.solver == "liblinear"
    if n_labels == 2:
        if asked == "multinomial":
            raise ForestError("LogisticRegression with multi_class='multinomial' of two classes: leave multi_class out")
        return "expit", *given
    return ("one_vs_rest" if is_divided else "softmax"), *given


def _sgd(estimator: Any) -> tuple[Link, Values, Values]:
    if estimator.loss != "log_loss":
        remedy = "fit it with loss='log_loss', or CalibratedClassifierCV around it"
        raise ForestError(f"SGDClassifier with loss={estimator.loss!r} is not supported alone: {remedy}")
    return ("expit" if len(estimator.classes_) == 2 else "one_vs_rest"), *_scores_of(estimator)


def _scores_of(estimator: Any) -> tuple[Values, Values]:
    """Return the coefficients, in their order in memory, and the intercepts."""
    # Of two classes, some estimators have a row of coefficients, and some a plain array.
    coefficients = np.atleast_2d(np.array(estimator.coef_, dtype=np.float64, order="A"))
    intercept = np.zeros(len(coefficients)) + np.asarray(estimator.intercept_, dtype=np.float64)
    return coefficients, intercept


def _bayes(estimator: Any) -> tuple[Link, Values, Values]:
    return "posterior", np.asarray(estimator.theta_, dtype=np.float64), np.log(estimator.class_prior_)


def _variances(estimator: Any) -> Values:
    # The name before scikit-learn 1.0.
    return np.asarray(getattr(estimator, "var_", getattr(estimator, "sigma_", None)), dtype=np.float64)


def _calibrated(estimator: Any) -> tuple[Link, Values, Values]:
    inner = calibrated_in(estimator)
    known = LOGISTIC | SCORES | {"SGDClassifier"}
    if not all(type(one).__name__ in known for one in inner):
        raise ForestError(f"CalibratedClassifierCV holds a {type(inner[0]).__name__}: {working_in(estimator)}")
    parts = [_scores_of(one) for one in inner]
    n_scores = 1 if len(estimator.classes_) == 2 else len(estimator.classes_)
    if any(len(coefficients) != n_scores for coefficients, _ in parts):
        raise ForestError("a fold of CalibratedClassifierCV has not seen every class: fit fewer folds")
    is_ordered = parts[0][0].flags.c_contiguous
    coefficients = np.array(np.concatenate([part for part, _ in parts]), order="C" if is_ordered else "F")
    return "calibrated", coefficients, np.concatenate([part for _, part in parts])


def calibrated_in(estimator: Any) -> list[Any]:
    """Return the fitted estimators in a CalibratedClassifierCV; none of one that is not fitted."""
    members = getattr(estimator, "calibrated_classifiers_", ())
    inner: list[Any] = [getattr(one, "estimator", getattr(one, "base_estimator", None)) for one in members]
    # What was fitted before is frozen in newer scikit-learns, where it was cv="prefit".
    return [one.estimator if type(one).__name__ == "FrozenEstimator" else one for one in inner]


def calibrators_of(estimator: Any) -> list[Any]:
    """Return what calibrates their scores, one after the other."""
    members = estimator.calibrated_classifiers_
    return [one for member in members for one in getattr(member, "calibrators", getattr(member, "calibrators_", ()))]


def curve_of(calibrator: Any) -> Curve:
    """Return what a calibrator makes of a score.

    Raises:
        ForestError: it is of another kind.
    """
    if type(calibrator).__name__ == "_SigmoidCalibration":
        return Curve(slope=float(calibrator.a_), offset=float(calibrator.b_))
    if type(calibrator).__name__ == "IsotonicRegression":
        points = (calibrator.X_thresholds_, calibrator.y_thresholds_)
        scores, shares = (tuple(np.asarray(axis, dtype=np.float64).tolist()) for axis in points)
        return Curve(scores=scores, shares=shares)
    raise ForestError("CalibratedClassifierCV is read with method='sigmoid' or 'isotonic', not with another one")


_READERS: Mapping[str, Callable[[Any], tuple[Link, Values, Values]]] = {
    "GaussianNB": _bayes,
    "CalibratedClassifierCV": _calibrated,
    "SGDClassifier": _sgd,
}
