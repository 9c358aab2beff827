"""The importance of features: how much worse a model answers its test rows when the values of one are shuffled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.estimators.session import predictor_from
from ml.model import decision_table
from ml.model.evaluators import Rows, compile_predictor, inputs_of
from ml.training.fitting import Trained
from ml.training.measuring import r2_of
from ml.training.progress import Progress, silent

SHUFFLES = 5
# Shuffling each of 64 features 5 times over more rows than this takes longer than fitting.
IMPORTANCE_ROWS = 2_000


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

    def score(rows: Rows) -> float:
        batch = evaluator.predict_batch(rows)
        if labels:
            return float(np.mean(batch.indices == true))
        return r2_of(batch.values, true)

    whole = score(rows)
    lost = np.zeros(len(trained.features))
    # A feature that is not asked for changes no answer.
    for done, feature in enumerate(used):
        own, order = rows[:, feature].copy(), np.arange(len(rows))
        random, scores = np.random.RandomState(seed), []
        for _ in range(SHUFFLES):
            random.shuffle(order)
            rows[:, feature] = rows[order, feature]
            scores.append(score(rows))
        lost[feature] = np.mean(whole - np.array(scores))
        rows[:, feature] = own
        progress("importance", done + 1, len(used))
    return lost
