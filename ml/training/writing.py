"""Write a trained model as a file, once it is proven to answer as the library does, to the last bit."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError
from ml.estimators.boosted import LIBRARIES, unwrapped
from ml.estimators.session import SessionModel, predictor_from
from ml.model import modelfile
from ml.model.card import Card, CrossValidation, QuantityReport, Report, TrainedFeature
from ml.model.design import Design
from ml.model.evaluators import compile_predictor, inputs_of
from ml.model.forest import Forest
from ml.model.linear import Linear
from ml.model.links import LINKS, ULPS, allowed_error
from ml.model.loaded import LoadedModel, load_model
from ml.model.modelfile import ModelFile
from ml.model.quantity import Quantity
from ml.model.total import Link, Total
from ml.tables.dataset import UNKNOWN, Feature
from ml.tables.numbers import LARGEST
from ml.training import history
from ml.training.features import trained_features
from ml.training.fitting import Trained
from ml.training.measuring import answers_of, calibration_of
from ml.training.progress import Progress, silent

REFERENCE_ROWS = 300
GOLDEN_TEST_ROWS = 100
GOLDEN_THRESHOLD_ROWS = 156
# The share of golden rows without a value of a feature that may lack one.
GOLDEN_GAPS = 0.25
# Of a linear model, which the library answers one by one.
MAX_SINGLE_ROWS = 1_000
# Progress of a proof is shown after so many.
ROWS_A_STEP = 100
# NumPy adds up fewer numbers than eight one after the other, more of them in pairs.
IN_ORDER_CLASSES = 7

FittedBy = tuple[str, Mapping[str, str]]
"""The kind of an estimator, for the card, and the versions of the libraries that fitted it."""


def model_of(
    trained: Trained,
    *,
    fitted_by: FittedBy | None = None,
    features: tuple[TrainedFeature, ...] = (),
    cross_validation: CrossValidation | None = None,
    keep_samples: bool = True,
    progress: Progress = silent,
) -> ModelFile:
    """Return the content of a model file; without `keep_samples` it has no training rows except the example.

    Args:
        fitted_by: None for the libraries of the estimator at hand.
        features: what is known about them where there are no training rows.
    """
    kind, libraries = fitted_by or _fitted_by(trained.estimator)
    predictor = _predictor(trained)
    rng = np.random.default_rng(trained.recipe.seed if trained.recipe else 0)
    rows = golden_rows(predictor, trained, rng=rng)
    chosen = np.sort(rng.permutation(len(trained.split.train_rows))[: REFERENCE_ROWS if keep_samples else 0])
    answers = outputs_of(trained.estimator, rows, singly=isinstance(predictor, Linear))
    sums = _sums(predictor, rows, trained)
    card = Card(
        name=trained.name,
        source=trained.source,
        estimator=kind,
        trees=predictor.n_trees if isinstance(predictor, Forest) else 0,
        features=features or trained_features(trained, progress),
        target=trained.target,
        report=_report(trained, cross_validation),
        recipe=trained.recipe,
        libraries={**libraries, "numpy": np.__version__},
        data_digest=trained.data_digest,
        picture=trained.picture,
        steps=trained.steps,
        quantity=_quantity(trained, answers[:, 0]),
        decision=trained.decision,
        total=predictor.total if isinstance(predictor, Forest) else Total(),
    )
    return ModelFile(
        card=card,
        predictor=predictor,
        golden_rows=rows,
        golden_sums=sums,
        golden_answers=answers,
        reference_rows=trained.split.train_rows[chosen],
        reference_outcomes=trained.split.train_outcomes[chosen],
    )


def write(model: ModelFile, path: Path, *, trained: Trained, progress: Progress = silent) -> LoadedModel:
    """Write a model's file, and prove before it takes its name that it answers the test rows as its library does.

    The model file that it replaces is kept beside it (see `ml.training.history`).

    Raises:
        ModelFileError: the file is too large, or cannot be written or read back; or an answer differs by more than the
            model's promise allows, which for trees is no bit. An older file is unchanged then.
    """

    def prove(written: Path) -> None:
        try:
            model = modelfile.parse(modelfile.read(written))
            loaded = LoadedModel(model, model.version)
        except ModelFileError as error:
            raise ModelFileError(f"{path} is not written: it could not be read back: {error}") from error
        is_linear = loaded.scores is not None
        rows = trained.split.test_rows[: MAX_SINGLE_ROWS if is_linear else None]
        expected = outputs_of(trained.estimator, rows, singly=is_linear)
        answers = loaded.predict_batch(rows)
        one_by_one = np.empty_like(answers.outputs)
        for number, row in enumerate(rows.tolist()):
            one = loaded.predict(row)
            one_by_one[number] = one.probabilities or one.value
            if number % ROWS_A_STEP == 0 or number + 1 == len(rows):
                progress("proof", number + 1, len(rows))
        allowed = ULPS * np.spacing(np.abs(expected)) if is_linear else allowed_error(expected, model.card.total)
        is_right = (np.abs(answers.outputs - expected) <= allowed) & (one_by_one == answers.outputs)
        is_wrong = ~np.all(is_right, axis=1)
        labels = answers_of(trained.estimator, rows, trained.labelling)
        if loaded.labels:
            is_wrong |= answers.indices != labels
        for row in np.flatnonzero(is_wrong)[:1]:
            found, wanted = (
                f"{outputs[row].tolist()}{f', {loaded.labels[int(of_rows[row])]!r}' if loaded.labels else ''}"
                for outputs, of_rows in ((answers.outputs, answers.indices), (expected, labels))
            )
            raise ModelFileError(
                f"{path}: read back, the model answers {found} to test row {row}, its library {wanted}"
            )
        history.keep(path)

    with history.locked(path):
        version = modelfile.save(model, path, check=prove)
        history.prune(path, version=version)
        return load_model(path)


def _fitted_by(estimator: Any) -> FittedBy:
    """Return the kind of what is behind the steps of a fitted estimator, as its library has it, and the libraries."""
    final = type(unwrapped(getattr(estimator, "final", estimator)))
    library = final.__module__.partition(".")[0]
    libraries = {library: sys.modules[library].__version__} if library in LIBRARIES else {}
    if not libraries or (isinstance(estimator, SessionModel) and estimator.steps()):
        libraries["scikit-learn"] = version("scikit-learn")
    return final.__name__, libraries


def outputs_of(estimator: Any, rows: NDArray[np.float64], *, singly: bool = False) -> NDArray[np.float64]:
    """Return scikit-learn's own answers: the probabilities of each label, or one quantity a row.

    Args:
        singly: to one row after the other: a batch of a linear model differs from them in the last bits.
    """
    if singly:
        return np.concatenate([outputs_of(estimator, row[None]) for row in rows])
    if not hasattr(estimator, "classes_"):
        values: NDArray[np.float64] = estimator.predict(rows)
        return values[:, None]
    by_column: dict[str, Link] = {"HistGradientBoostingClassifier": "softmax", "AdaBoostClassifier": "samme"}
    link = by_column.get(type(getattr(estimator, "final", estimator)).__name__)
    if link and len(estimator.classes_) > IN_ORDER_CLASSES:
        # They keep the scores of many rows column by column, and add up their powers in another order than those of
        # one row: the answers to one row are what is promised.
        return LINKS[link](np.ascontiguousarray(estimator.decision_function(rows))).astype(np.float64, copy=False)
    probabilities: NDArray[np.float64] = estimator.predict_proba(rows)
    return probabilities


def golden_rows(predictor: Forest | Linear, trained: Trained, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return rows to check a model file with: test rows, and rows whose values lie on the thresholds of a forest.

    Thresholds are where a wrong comparison or a missing cast to float32 shows; of other models they lie
    anywhere. A feature that may lack a value lacks it in some rows, and categories have each of their choices. Shape
    (n_golden, n_features).
    """
    parts = trained.split
    rows = [parts.test_rows[:GOLDEN_TEST_ROWS]]
    columns = []
    for position, feature in enumerate(trained.features):
        thresholds = thresholds_of(predictor, position)
        edges = np.concatenate([thresholds, np.nextafter(thresholds, np.inf), thresholds.astype(np.float32)])
        values = edges if len(edges) else parts.train_rows[:, position]
        if feature.choices:
            values = np.arange(len(feature.choices), dtype=np.float64)
        column = rng.choice(values, GOLDEN_THRESHOLD_ROWS)
        others = _others(feature, trained.estimator)
        if others:
            is_other = rng.random(GOLDEN_THRESHOLD_ROWS) < GOLDEN_GAPS
            column[is_other] = np.resize(others, np.count_nonzero(is_other))
        columns.append(column)
    rows.append(np.column_stack(columns))
    return np.concatenate(rows)


def thresholds_of(predictor: Forest | Linear, position: int) -> NDArray[np.float64]:
    """Return the thresholds of a feature that a value can lie on, ascending; none of a model that has no trees."""
    if isinstance(predictor, Linear):
        return np.empty(0)
    thresholds = predictor.threshold[predictor.feature == position]
    return np.unique(thresholds[np.abs(thresholds) < LARGEST])


def _predictor(trained: Trained) -> Forest | Linear:
    """Return what was learned; of a linear model with the means of its columns in training."""
    predictor = predictor_from(trained.estimator)
    if not isinstance(predictor, Linear):
        return predictor
    matrix = Design(predictor.columns).matrix(trained.split.train_rows)
    return replace(predictor, means=matrix.mean(axis=0))


def _sums(predictor: Forest | Linear, rows: NDArray[np.float64], trained: Trained) -> NDArray[np.float64]:
    """Return the sums that the answers to golden rows are made of; none where the answers have the same bits anyway."""
    if isinstance(predictor, Forest) and predictor.total.is_exact:
        return np.empty((0, 0))
    dtype, _ = inputs_of(predictor)
    evaluator = compile_predictor(
        predictor, trained.features, labels=trained.target.labels, max_cells=0, compiles=False
    )
    return evaluator.sums(rows.astype(dtype)).astype(np.float64)


def _others(feature: Feature, estimator: Any) -> list[float]:
    """Return what a row can have besides numbers and choices: no value, and a word that is not among the choices."""
    no_value = [math.nan] if feature.has_gaps else []
    if not feature.choices or feature.is_closed:
        return no_value
    # An estimator that was fitted here knows no difference between both.
    return [UNKNOWN, *no_value] if isinstance(estimator, SessionModel) else [math.nan]


def _report(trained: Trained, cross_validation: CrossValidation | None) -> Report | QuantityReport | None:
    """Return the report with what only the finished estimator knows."""
    if trained.report is None:
        return None
    report = msgspec.structs.replace(trained.report, cross_validation=cross_validation)
    if isinstance(report, QuantityReport):
        return report
    shares = outputs_of(trained.estimator, trained.split.test_rows)
    found = calibration_of(shares, trained.split.test_classes, trained.labelling)
    return msgspec.structs.replace(report, calibration=found)


def _quantity(trained: Trained, answers: NDArray[np.float64]) -> Quantity | None:
    if trained.target.labels:
        return None
    values = answers if trained.report is None else trained.split.train_outcomes
    quantiles = np.quantile(values, np.linspace(0, 1, 11))
    return Quantity(
        low=float(values.min()), high=float(values.max()), quantiles=tuple(quantiles.tolist()),
        interval=trained.interval,
    )  # fmt: skip
