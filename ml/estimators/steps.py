"""The steps in front of an estimator: what each of them makes of the features, column by column.

Only steps that work on one column at a time are read: these fold into the features that a person enters. What the
reading says is compared with what the steps themselves give, see `ml.estimators.probing`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ml.errors import ForestError
from ml.estimators import columnwise
from ml.estimators.columnwise import Reader
from ml.estimators.paths import STEPS, Path, PipelineReading, StepColumns, kind_of, refusal
from ml.model.card import Decision
from ml.model.design import Operation
from ml.model.labelling import decision_of

HISTOGRAMS = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
REMEDIES = {
    "PCA": "it mixes the columns; leave it out, a model made of trees does not need it",
    "TruncatedSVD": "it mixes the columns; leave it out, a model made of trees does not need it",
    "PolynomialFeatures": "it mixes the columns; leave it out, or put the products into the table",
    "Normalizer": "it mixes the columns of a row; StandardScaler is the one that is nearest to it",
    "PowerTransformer": "StandardScaler, RobustScaler, or FunctionTransformer(np.log1p) is nearest to it",
    "QuantileTransformer": "KBinsDiscretizer is the one that is nearest to it",
    "SplineTransformer": "KBinsDiscretizer is the one that is nearest to it",
    "KNNImputer": "it mixes the columns; SimpleImputer(add_indicator=True) does not",
    "IterativeImputer": "it mixes the columns; SimpleImputer(add_indicator=True) does not",
    "CountVectorizer": "free text cannot be entered; a category of at most 254 words can",
    "TfidfVectorizer": "free text cannot be entered; a category of at most 254 words can",
}


def read_steps(model: Any, n_inputs: int) -> PipelineReading:
    """Return what stands in front of the last estimator of a fitted model, which may be that estimator alone.

    Raises:
        ForestError: a step cannot be read; the sentence names it, and what would work.
    """
    reading = PipelineReading(model)
    table = StepColumns(tuple(Path(place) for place in range(n_inputs)))
    while True:
        if hasattr(reading.final, "best_estimator_"):
            reading.final = reading.final.best_estimator_
        elif kind_of(reading.final, {"FrozenEstimator"}):
            reading.final = reading.final.estimator
        elif kind_of(reading.final, {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}):
            reading.decision = threshold_of(reading.final)
            reading.final = reading.final.estimator_
        elif kind_of(reading.final, {"Pipeline"}):
            *front, (_, reading.final) = reading.final.steps
            for name, step in front:
                if _is_passed_by(step):
                    continue
                table = _read(step, table, reading, name)
                reading.transformers.append(step)
        elif getattr(reading.final, "_preprocessor", None) is not None and kind_of(reading.final, HISTOGRAMS):
            table = _encoded(table, reading)
        else:
            break
    reading.paths, reading.is_sparse = table.paths, table.is_sparse
    return reading


def threshold_of(estimator: Any) -> Decision:
    """Return the decision of a fitted classifier that compares the probability of another one with a threshold.

    Raises:
        ForestError: it is not fitted, or compares other scores.
    """
    kind = type(estimator).__name__
    if not hasattr(estimator, "estimator_"):
        raise ForestError(f"{kind} is not fitted")
    # What it asks first, as scikit-learn does.
    if estimator.response_method == "decision_function" or not hasattr(estimator.estimator_, "predict_proba"):
        raise ForestError(f"the threshold of {kind} is not one of probabilities: set response_method='predict_proba'")
    threshold = getattr(estimator, "best_threshold_", None)
    if threshold is None:
        threshold = 0.5 if estimator.threshold == "auto" else estimator.threshold
    curve = getattr(estimator, "_curve_scorer", None)
    positive = curve._get_pos_label() if curve is not None else estimator.pos_label
    decision = decision_of([str(label) for label in estimator.classes_], float(threshold), positive)
    assert decision is not None
    return decision


def _encoded(table: StepColumns, reading: PipelineReading) -> StepColumns:
    """Return the columns that a HistGradientBoosting makes of its own: the encoded categories first."""
    model = reading.final
    pairs = [*zip(table.paths, model.is_categorical_.tolist(), strict=True)]
    encoder = model._preprocessor.named_transformers_["encoder"]
    categories = StepColumns(tuple(path for path, is_word in pairs if is_word))
    words = columnwise.ordinal(encoder, categories, reading, "encoder")
    reading.transformers.append(model._preprocessor)
    # Afterwards it takes its columns as they are.
    reading.final = copy.copy(model)
    reading.final._preprocessor, reading.final.is_categorical_ = None, model._is_categorical_remapped
    return StepColumns((*words.paths, *(path for path, is_word in pairs if not is_word)))


def _is_passed_by(step: Any) -> bool:
    # A sampler of imbalanced-learn works while fitting only.
    return step is None or step == "passthrough" or (hasattr(step, "fit_resample") and not hasattr(step, "transform"))


def _read(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    readers = _MADE_OF_STEPS | columnwise.READERS
    kind = kind_of(step, readers)
    if kind not in (None, "Pipeline", "FeatureUnion", "FunctionTransformer") and not any(
        attribute.endswith("_") for attribute in vars(step)
    ):
        raise refusal(step, name, "it is not fitted: fit the whole pipeline")
    if kind is not None:
        return readers[kind](step, table, reading, name)
    if hasattr(step, "get_support"):
        return columnwise.selection(step, table, reading, name)
    remedy = REMEDIES.get(kind_of(step, REMEDIES) or "")
    raise refusal(step, name, f"{remedy}; {STEPS}" if remedy else STEPS)


# Steps made of steps


def _pipeline(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    for inner, one in step.steps:
        if not _is_passed_by(one):
            table = _read(one, table, reading, f"{name}: {inner}")
    return table


def _column_transformer(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    weights = step.transformer_weights or {}
    names = [*getattr(step, "feature_names_in_", ())]
    paths: list[Path] = []
    for inner, one, columns in step.transformers_:
        places = places_of(columns, names, len(table.paths))
        part = StepColumns(tuple(table.paths[place] for place in places), table.is_sparse)
        if not places or (isinstance(one, str) and one == "drop"):
            continue
        if not _is_passed_by(one):
            part = _read(one, part, reading, f"{name}: {inner}")
        paths += _weighted(part.paths, weights.get(inner))
    return StepColumns(tuple(paths), bool(step.sparse_output_))


def places_of(columns: Any, names: Sequence[str], n_columns: int) -> list[int]:
    """Return the positions that a ColumnTransformer's columns mean: names, positions, a slice or a mask."""
    if isinstance(columns, slice):
        start, stop = columns.start, columns.stop
        start = names.index(start) if isinstance(start, str) else start
        # A slice of names has its last one in it.
        stop = names.index(stop) + 1 if isinstance(stop, str) else stop
        return [*range(n_columns)[slice(start, stop, columns.step)]]
    listed = [columns] if isinstance(columns, str | int) else [*columns]
    if listed and all(isinstance(one, bool | np.bool_) for one in listed):
        return np.flatnonzero(listed).tolist()
    return [names.index(one) if isinstance(one, str) else range(n_columns)[one] for one in listed]


def _feature_union(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    weights = step.transformer_weights or {}
    paths: list[Path] = []
    is_sparse = False
    for inner, one in step.transformer_list:
        if isinstance(one, str) and one == "drop":
            continue
        part = table if _is_passed_by(one) else _read(one, table, reading, f"{name}: {inner}")
        is_sparse = is_sparse or part.is_sparse
        paths += _weighted(part.paths, weights.get(inner))
    return StepColumns(tuple(paths), is_sparse)


def _weighted(paths: Sequence[Path], weight: float | None) -> Sequence[Path]:
    return paths if weight is None else [path.then(Operation("multiply", (float(weight),))) for path in paths]


_MADE_OF_STEPS: dict[str, Reader] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
}
