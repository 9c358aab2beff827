"""Fit a classifier, measure it on rows it has not seen, and write it as a model file that agrees to the last bit.

The only module besides `ml.training.iris` that imports scikit-learn, and only inside its functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import DatasetError
from ml.model.card import CrossValidation, Recipe, Report
from ml.tables.dataset import Dataset, Feature, Shape

FOLDS = 10
SHUFFLES = 5
# Shuffling each of 64 features 5 times over more rows than this takes longer than fitting.
IMPORTANCE_ROWS = 2_000
TREES_A_STEP = 10

Progress = Callable[[str, int, int], None]
"""Is called with the name of the work, the number of finished steps, and that of all steps."""


def _silent(_what: str, _done: int, _steps: int) -> None:
    pass


@dataclass(frozen=True)
class Split:
    """A stratified split into rows to learn from and rows to measure on; shapes as in `Dataset`."""

    train_rows: NDArray[np.float64]
    test_rows: NDArray[np.float64]
    train_classes: NDArray[np.intp]
    test_classes: NDArray[np.intp]


@dataclass(frozen=True)
class Trained:
    """A fitted scikit-learn estimator and the facts for the card of its model file."""

    name: str
    source: str
    features: tuple[Feature, ...]
    labels: tuple[str, ...]
    estimator: Any
    split: Split
    report: Report
    recipe: Recipe | None
    data_digest: str | None
    picture: tuple[Shape, ...] = ()


def check_name(name: str) -> None:
    """Raise a `DatasetError` for a name that no model can have."""
    if not name.strip() or "/" in name:
        raise DatasetError(f"{name!r} cannot be a model's name: it is part of an address, where / means something else")


def split(dataset: Dataset, recipe: Recipe) -> Split:
    """Return the recipe's stratified split of `dataset`.

    Raises:
        DatasetError: a class has too few rows to be on both sides.
    """
    from sklearn.model_selection import train_test_split

    counts = np.bincount(dataset.classes, minlength=len(dataset.labels))
    rarest = int(counts.argmin())
    if counts[rarest] < 2:
        raise DatasetError(
            f"class {dataset.labels[rarest]!r} has {counts[rarest]} row: a split takes two of each class"
        )
    n_test = int(np.ceil(recipe.test_size * len(dataset.rows)))
    if min(n_test, len(dataset.rows) - n_test) < len(counts):
        raise DatasetError(
            f"{len(dataset.rows)} rows with a test share of {recipe.test_size:g} leave fewer rows than the "
            f"{len(counts)} classes on one side"
        )
    parts = Split(
        *train_test_split(
            dataset.rows,
            dataset.classes,
            test_size=recipe.test_size,
            stratify=dataset.classes,
            random_state=recipe.seed,
        )
    )
    left = np.bincount(parts.train_classes, minlength=len(counts))
    if not left.all():
        label = dataset.labels[int(left.argmin())]
        raise DatasetError(f"a test share of {recipe.test_size:g} leaves no row of class {label!r} to learn from")
    return parts


def fit(dataset: Dataset, recipe: Recipe | None = None, *, progress: Progress = _silent) -> Trained:
    """Fit a classifier on the training part of `dataset` and measure it on the rest.

    Raises:
        DatasetError: the rows cannot be split.
    """
    recipe = recipe or Recipe()
    check_name(dataset.name)
    parts = split(dataset, recipe)
    estimator = _fit(parts.train_rows, parts.train_classes, recipe, progress=progress)
    answers = estimator.predict_proba(parts.test_rows).argmax(axis=1)
    return Trained(
        name=dataset.name,
        source=dataset.source,
        features=dataset.features,
        labels=dataset.labels,
        estimator=estimator,
        split=parts,
        report=measure(answers, parts, n_labels=len(dataset.labels)),
        recipe=recipe,
        data_digest=dataset.digest(),
        picture=dataset.picture,
    )


def cross_validate(
    dataset: Dataset, recipe: Recipe, *, folds: int = FOLDS, progress: Progress = _silent
) -> CrossValidation:
    """Return the accuracy of classifiers of the same recipe over stratified folds of the whole table.

    There are at most as many folds as the rarest class has rows.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = min(folds, int(np.bincount(dataset.classes).min()))
    parts = StratifiedKFold(n_splits=folds, shuffle=True, random_state=recipe.seed)
    scores = []
    for train, test in parts.split(dataset.rows, dataset.classes):
        estimator = _fit(dataset.rows[train], dataset.classes[train], recipe)
        scores.append(float(estimator.score(dataset.rows[test], dataset.classes[test])))
        progress(f"{folds}-fold cross-validation", len(scores), folds)
    return CrossValidation(folds=folds, mean=float(np.mean(scores)), deviation=float(np.std(scores)))


def measure(answers: NDArray[np.intp], parts: Split, *, n_labels: int) -> Report:
    """Return the report of `answers`, shape (n_test_rows,), to the test rows of a split."""
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


def importance(trained: Trained) -> NDArray[np.float64]:
    """Return the permutation importance of each feature on the test rows, shape (n_features,)."""
    from sklearn.inspection import permutation_importance

    classes = trained.estimator.classes_[trained.split.test_classes]
    found = permutation_importance(
        trained.estimator,
        trained.split.test_rows[:IMPORTANCE_ROWS],
        classes[:IMPORTANCE_ROWS],
        n_repeats=SHUFFLES,
        random_state=trained.recipe.seed if trained.recipe else 0,
    )
    means: NDArray[np.float64] = found.importances_mean
    return means


def _fit(rows: NDArray[np.float64], classes: NDArray[np.intp], recipe: Recipe, *, progress: Progress = _silent) -> Any:
    """Return a fitted estimator: trees are added in steps, which gives the same forest as all at once."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier
    from sklearn.utils.class_weight import compute_class_weight

    known = np.unique(classes)
    weights = None
    if recipe.balanced_class_weight:
        weights = dict(zip(known.tolist(), compute_class_weight("balanced", classes=known, y=classes), strict=True))
    shared: dict[str, Any] = {
        "max_depth": recipe.max_depth,
        "min_samples_leaf": recipe.min_samples_leaf,
        "class_weight": weights,
        "random_state": recipe.seed,
    }
    if recipe.estimator == "decision-tree":
        return DecisionTreeClassifier(**shared).fit(rows, classes)
    kind = RandomForestClassifier if recipe.estimator == "random-forest" else ExtraTreesClassifier
    estimator = kind(**shared, warm_start=True)
    for trees in [*range(TREES_A_STEP, recipe.n_estimators, TREES_A_STEP), recipe.n_estimators]:
        estimator.set_params(n_estimators=trees).fit(rows, classes)
        progress("trees", trees, recipe.n_estimators)
    return estimator.set_params(warm_start=False)
