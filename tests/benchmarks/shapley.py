"""python -m tests.benchmarks.shapley: contributions of features against those of shap's TreeExplainer.

Runs in an environment that has shap besides what the tests need. Each forest is exported and its contributions to the
answers of rows, a third of them without some values where it knows gaps, are compared with shap's path-dependent
Shapley values of the same model: base and every feature, relative to the largest of the row where that is above 1. Then
one row is timed against shap, in turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import ensemble, tree
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

import ml
from ml.model.contributions import contributions
from ml.model.loaded import LoadedModel

ROWS = 60
TIMED_ROUNDS = 7
TOLERANCE = 1e-12

Rows = NDArray[np.float64]
MODELS: dict[str, tuple[Any, Callable[..., Any], bool]] = {
    "random forest, 2 classes": (ensemble.RandomForestClassifier(100, random_state=0), load_breast_cancer, False),
    "random forest, 2 classes, gaps": (ensemble.RandomForestClassifier(50, random_state=0), load_breast_cancer, True),
    "random forest, 3 classes": (ensemble.RandomForestClassifier(100, random_state=0), load_wine, False),
    "random forest, 10 classes": (ensemble.RandomForestClassifier(20, random_state=0), load_digits, False),
    "random forest, a quantity": (ensemble.RandomForestRegressor(50, random_state=0), load_diabetes, False),
    "extra trees, 3 classes": (ensemble.ExtraTreesClassifier(50, random_state=0), load_wine, False),
    "a tree, 3 classes": (tree.DecisionTreeClassifier(random_state=0), load_wine, False),
    "gradient boosting, 2 classes": (ensemble.GradientBoostingClassifier(random_state=0), load_breast_cancer, False),
    "gradient boosting, a quantity": (ensemble.GradientBoostingRegressor(random_state=0), load_diabetes, False),
    "histogram, 2 classes": (ensemble.HistGradientBoostingClassifier(max_iter=50), load_breast_cancer, False),
    "histogram, 2 classes, gaps": (ensemble.HistGradientBoostingClassifier(max_iter=50), load_breast_cancer, True),
    "histogram, a quantity": (ensemble.HistGradientBoostingRegressor(max_iter=50), load_diabetes, False),
}  # fmt: skip


def fitted(name: str, folder: Path) -> tuple[Any, LoadedModel, Rows]:
    """Return a fitted model, the same out of its file, and rows."""
    estimator, load, has_gaps = MODELS[name]
    rows, true = load(return_X_y=True)
    rng = np.random.default_rng(0)
    if has_gaps:
        rows[rng.random(rows.shape) < 0.1] = np.nan
    estimator.fit(rows, true)
    names = [f"x{place}" for place in range(rows.shape[1])]
    model = ml.export(estimator, rows, true, feature_names=names, path=folder / "model.npz")
    chosen = rows[rng.permutation(len(rows))[:ROWS]]
    return estimator, model, np.where(rng.random(chosen.shape) < 0.2, np.roll(chosen, 1, axis=0), chosen)


def theirs(explainer: Any, rows: Rows, index: int) -> tuple[float, Rows]:
    """Return shap's base and values, shape (n_rows, n_features), of one of the answers."""
    values, base = np.asarray(explainer.shap_values(rows, check_additivity=False)), np.ravel(explainer.expected_value)
    # A single sum is that of the second label.
    return (float(base[0]), values) if values.ndim == 2 else (float(base[index]), values[:, :, index])


def difference(model: LoadedModel, explainer: Any, rows: Rows) -> float:
    """Return the largest difference of a base or a contribution, relative to the largest of its row above 1."""
    most = 0.0
    for index in range(len(model.labels) or 1):
        base, values = theirs(explainer, rows, index)
        is_one_sum = len(model.labels) == 2 and len(np.ravel(explainer.expected_value)) == 1
        sign = -1.0 if is_one_sum and index == 0 else 1.0
        for row, expected in zip(rows.tolist(), values, strict=True):
            own = contributions(model, row, index)
            assert own is not None
            numbers, shap = np.array([own.base, *own.values]), sign * np.array([base, *expected])
            most = max(most, float(np.abs(numbers - shap).max() / max(1.0, np.abs(shap).max())))
    return most


def microseconds(answer: Callable[[], object]) -> float:
    start = time.process_time()
    answer()
    return (time.process_time() - start) * 1e6


def lines() -> Iterator[tuple[str, bool]]:
    """Yield a line for each model, and whether it is as it should be."""
    shap: Any = import_module("shap")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            estimator, model, rows = fitted(name, Path(folder))
            explainer = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent")
            most = difference(model, explainer, rows)
            row = rows[0].tolist()
            contributions(model, row, 0)
            turns = [
                (
                    microseconds(lambda model=model, row=row: contributions(model, row, 0)),  # type: ignore[misc]
                    microseconds(lambda of=explainer, rows=rows: of.shap_values(rows[:1])),  # type: ignore[misc]
                )
                for _ in range(TIMED_ROUNDS)
            ]
            own, other = (median(times) for times in zip(*turns, strict=True))
            yield f"{name:32}{most:12.1e}{own:12.0f}{other:12.0f}{other / own:9.1f}", most <= TOLERANCE


def main() -> int:
    """Print the comparison; return 1 if any model differs by more than the tolerance."""
    warnings.simplefilter("ignore")
    print(f"{'model':32}{'difference':>12}{'us a row':>12}{'shap, us':>12}{'ratio':>9}")
    is_right = True
    for line, is_equal in lines():
        print(line, "" if is_equal else f"above {TOLERANCE:g}")
        is_right = is_right and is_equal
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
