"""The features of a model as its rows show them: ranges, quantiles, an example, counts of words, and importance.

Importance is how much worse the model answers its test rows when the values of one feature are shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.estimators.session import predictor_from
from ml.model import decision_table
from ml.model.card import TrainedFeature
from ml.model.evaluators import Batch, Evaluator, Rows, compile_predictor, inputs_of
from ml.tables.dataset import Feature
from ml.training.fitting import Trained
from ml.training.measuring import r2_of
from ml.training.progress import Progress, silent

SHUFFLES = 5
# Shuffling each of 64 features 5 times over more rows than this takes longer than fitting.
IMPORTANCE_ROWS = 2_000
# The answers to shuffled rows are kept for so many features: 41 MB.
FEATURES_AT_ONCE = 512


def trained_features(trained: Trained, progress: Progress) -> tuple[TrainedFeature, ...]:
    """Return the features with their training ranges, and as the example the row nearest to the middle of them."""
    rows = trained.split.train_rows
    middle = np.array([_middle(column, feature) for column, feature in zip(rows.T, trained.features, strict=True)])
    filled = np.where(np.isnan(rows), middle, rows)
    present = (column[~np.isnan(column)] for column in rows.T)
    steps = np.linspace(0, 1, 11)
    quantiles = np.column_stack([np.quantile(values if len(values) else [0.0], steps) for values in present])
    spread = np.maximum(quantiles[-1] - quantiles[0], np.finfo(float).tiny)
    example = filled[np.argmin((((filled - middle) / spread) ** 2).sum(axis=1))]
    importances = importance(trained, progress=progress)
    return tuple(
        TrainedFeature(
            **msgspec.structs.asdict(feature),
            low=float(filled[:, column].min()),
            high=float(filled[:, column].max()),
            quantiles=tuple(quantiles[:, column].tolist()),
            example=float(example[column]),
            importance=float(importances[column]),
            counts=_counts(rows[:, column], feature),
            gap_share=float(np.isnan(rows[:, column]).mean()),
        )
        for column, feature in enumerate(trained.features)
    )


def _middle(column: NDArray[np.float64], feature: Feature) -> float:
    """Return the median of a feature's values or the most frequent choice; if all rows lack it, 0 within its limits."""
    values = column[~np.isnan(column)]
    if not len(values):
        low = 0.0 if feature.minimum is None else max(0.0, feature.minimum)
        return low if feature.maximum is None else min(low, feature.maximum)
    return float(np.bincount(values.astype(np.intp)).argmax() if feature.choices else np.median(values))


def _counts(column: NDArray[np.float64], feature: Feature) -> tuple[int, ...]:
    if not feature.choices:
        return ()
    values = column[~np.isnan(column)].astype(np.intp)
    return tuple(np.bincount(values, minlength=len(feature.choices)).tolist())


def importance(trained: Trained, *, progress: Progress = silent) -> NDArray[np.float64]:
    """Return the permutation importance of each feature on the test rows, shape (n_features,).

    That is how much of the accuracy, or of R², is lost on average when the feature's values are shuffled (Breiman,
    "Random Forests", 2001): the numbers of scikit-learn's `permutation_importance`, but the compiled forest answers.
    """
    predictor = predictor_from(trained.estimator)
    dtype, used = inputs_of(predictor)
    rows = trained.split.test_rows[:IMPORTANCE_ROWS].astype(dtype)
    true = trained.split.test_outcomes[:IMPORTANCE_ROWS]
    labels = trained.target.labels
    evaluator = compile_predictor(
        predictor, trained.features, labels=labels, decision=trained.decision, max_cells=decision_table.MAX_CELLS
    )
    seed = np.random.RandomState(trained.recipe.seed if trained.recipe else 0).randint(2**31)
    orders = _orders(len(rows), seed)

    def score(answers: NDArray[np.float64]) -> float:
        return float(np.mean(answers == true)) if labels else r2_of(answers, true)

    whole = score(_answers(evaluator.predict_batch(rows)))
    lost = np.zeros(len(trained.features))
    # A feature that is not asked for changes no answer.
    for start in range(0, len(used), FEATURES_AT_ONCE):
        group = used[start : start + FEATURES_AT_ONCE]
        answers = _shuffled(evaluator, rows, group, orders, partial(_show, progress, start, len(used)))
        for feature, own in zip(group, answers, strict=True):
            lost[feature] = np.mean(whole - np.array([*map(score, own)]))
    return lost


def _show(progress: Progress, start: int, all_features: int, done: int) -> None:
    progress("importance", start + done, all_features)


def _orders(n_rows: int, seed: int) -> NDArray[np.intp]:
    """Return in which order the values of a feature stand after each shuffle, shape (`SHUFFLES`, n_rows)."""
    random, shuffled, order = np.random.RandomState(seed), np.arange(n_rows), np.arange(n_rows)
    orders = []
    for _ in range(SHUFFLES):
        random.shuffle(order)
        shuffled = shuffled[order]
        orders.append(shuffled)
    return np.stack(orders)


def _shuffled(
    evaluator: Evaluator,
    rows: Rows,
    features: Sequence[int],
    orders: NDArray[np.intp],
    progress: Callable[[int], object],
) -> NDArray[np.float64]:
    """Return the answers to all rows with the values of one feature in another order.

    Shape (n_features, n_orders, n_rows). `progress` is called with the number of features that are done.
    """
    answers = np.empty((len(features), *orders.shape))
    if evaluator.exchanges is not None:
        for number, batch in enumerate(evaluator.exchanges(rows, features, orders)):
            answers[:, :, number] = _answers(batch).reshape(len(features), -1)
            progress(len(features) * (number + 1) // len(rows))
        return answers
    for done, feature in enumerate(features):
        changed = rows.copy()
        for number, order in enumerate(orders):
            changed[:, feature] = rows[order, feature]
            answers[done, number] = _answers(evaluator.predict_batch(changed))
        progress(done + 1)
    return answers


def _answers(batch: Batch) -> NDArray[np.float64]:
    """Return the class index or the quantity of each answer."""
    return batch.indices.astype(np.float64) if batch.outputs.shape[1] > 1 else batch.values
