"""Fit an estimator, and measure it on rows it has not seen.

The only module besides `ml.training.iris` that imports scikit-learn, and only inside its functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.model.card import CrossValidation, Decision, QuantityReport, Recipe, Report, Step
from ml.model.labelling import Labelling
from ml.model.quantity import Interval
from ml.tables.dataset import Dataset, Feature, Shape, Target
from ml.training.measuring import Split, answers_of, covered, interval_of, measure
from ml.training.progress import Progress, silent

FOLDS = 10
MIN_QUANTITY_ROWS = 10
# More folds change the ends of an interval little.
INTERVAL_FOLDS = 5
TREES_A_STEP = 10
# Those of which trees are added in steps, by the name of scikit-learn's class without its task.
KINDS = {"random-forest": "RandomForest", "extra-trees": "ExtraTrees", "gradient-boosting": "GradientBoosting"}


@dataclass(frozen=True)
class Trained:
    """A fitted estimator and the facts for the card of its model file.

    `report` is None without a table, `recipe` and `data_digest` are of an estimator that was fitted here.
    """

    name: str
    source: str
    features: tuple[Feature, ...]
    target: Target
    estimator: Any
    split: Split
    report: Report | QuantityReport | None = None
    interval: Interval | None = None
    recipe: Recipe | None = None
    data_digest: str | None = None
    picture: tuple[Shape, ...] = ()
    decision: Decision | None = None
    steps: tuple[Step, ...] = ()

    @property
    def labelling(self) -> Labelling:
        """How the label follows from the probabilities."""
        return Labelling.by(self.target.labels, self.decision)


def check_name(name: str) -> None:
    """Raise a `TableError` for a name that no model can have."""
    if not name.strip() or "/" in name:
        raise TableError(f"{name!r} cannot be a model's name: it is part of an address, where / means something else")


def split(dataset: Dataset, recipe: Recipe) -> Split:
    """Return the recipe's split of `dataset`, stratified by class.

    Raises:
        TableError: there are too few rows for both sides, or too few of a class.
    """
    from sklearn.model_selection import train_test_split

    classes = dataset.outcomes.astype(np.intp) if dataset.target.labels else None
    if classes is not None:
        _check_classes(dataset, classes, recipe)
    else:
        _check_quantity(len(dataset.rows), recipe)
    parts = Split(
        *train_test_split(
            dataset.rows,
            dataset.outcomes,
            test_size=recipe.test_size,
            stratify=classes,
            random_state=recipe.seed,
        )
    )
    if classes is not None:
        left = np.bincount(parts.train_classes, minlength=len(dataset.target.labels))
        if not left.all():
            label = dataset.target.labels[int(left.argmin())]
            raise TableError(f"a test share of {recipe.test_size:g} leaves no row of class {label!r} to learn from")
    return parts


def _check_quantity(n_rows: int, recipe: Recipe) -> None:
    if n_rows < MIN_QUANTITY_ROWS:
        raise TableError(f"{n_rows} rows, at least {MIN_QUANTITY_ROWS} are needed to learn a quantity")
    if n_rows - int(np.ceil(recipe.test_size * n_rows)) < 2:
        raise TableError(f"{n_rows} rows with a test share of {recipe.test_size:g} leave fewer than 2 to learn from")


def _check_classes(dataset: Dataset, classes: NDArray[np.intp], recipe: Recipe) -> None:
    labels = dataset.target.labels
    counts = np.bincount(classes, minlength=len(labels))
    rarest = int(counts.argmin())
    if counts[rarest] < 2:
        raise TableError(f"class {labels[rarest]!r} has {counts[rarest]} row: a split takes two of each class")
    n_test = int(np.ceil(recipe.test_size * len(dataset.rows)))
    if min(n_test, len(dataset.rows) - n_test) < len(counts):
        raise TableError(
            f"{len(dataset.rows)} rows with a test share of {recipe.test_size:g} leave fewer rows than the "
            f"{len(counts)} classes on one side; a half, --test-size 0.5, leaves enough"  # each class has two rows
        )


def fit(
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    decision: Decision | None = None,
    progress: Progress = silent,
) -> Trained:
    """Fit an estimator on the training part of `dataset` and measure it on the rest.

    Args:
        decision: decides between two labels; else the most probable one is the answer.

    Raises:
        TableError: the rows cannot be split.
    """
    recipe = recipe or Recipe()
    check_name(dataset.name)
    _check_estimator(dataset.features, recipe)
    parts = split(dataset, recipe)
    labels, features = dataset.target.labels, dataset.features
    estimator = _fit(
        parts.train_rows, parts.train_outcomes, recipe, features=features, labels=labels, progress=progress
    )
    trained = Trained(
        name=dataset.name,
        source=dataset.source,
        features=dataset.features,
        target=dataset.target,
        estimator=estimator,
        split=parts,
        report=measure(
            answers_of(estimator, parts.test_rows, Labelling.by(labels, decision)), parts, n_labels=len(labels)
        ),
        recipe=recipe,
        data_digest=dataset.digest(),
        picture=dataset.picture,
        decision=decision,
    )
    return trained if labels else _with_interval(trained, progress=progress)


def _with_interval(trained: Trained, *, progress: Progress) -> Trained:
    """Return the model with an interval from the errors of folds of its training rows, measured on its test rows."""
    from sklearn.model_selection import KFold

    assert trained.recipe is not None
    rows, values = trained.split.train_rows, trained.split.train_outcomes
    errors = np.empty_like(values)
    folds = min(INTERVAL_FOLDS, len(rows))
    parts = KFold(n_splits=folds, shuffle=True, random_state=trained.recipe.seed)
    for fold, (learn, rest) in enumerate(parts.split(rows)):
        estimator = _fit(
            rows[learn], values[learn], trained.recipe, features=trained.features, labels=(),
            progress=_of_fold(progress, "interval", fold, folds),
        )  # fmt: skip
        errors[rest] = values[rest] - estimator.predict(rows[rest])
    answers = answers_of(trained.estimator, trained.split.test_rows, trained.labelling)
    return with_interval(trained, interval_of(errors), answers)


def with_halved_rows(trained: Trained, answers: NDArray[np.float64]) -> Trained:
    """Return a model that was fitted elsewhere with an interval from half of its test rows, measured on the others."""
    parts, rest = trained.split, slice(1, None, 2)
    errors = parts.test_outcomes[::2] - answers[::2]
    measured = replace(parts, test_rows=parts.test_rows[rest], test_outcomes=parts.test_outcomes[rest])
    return with_interval(replace(trained, split=measured), interval_of(errors), answers[rest])


def with_interval(trained: Trained, interval: Interval, answers: NDArray[np.float64]) -> Trained:
    """Return the model with an interval, and the share of test rows in it."""
    assert isinstance(trained.report, QuantityReport)
    share = covered(interval, answers, trained.split.test_outcomes)
    report = msgspec.structs.replace(trained.report, covered=share)
    return replace(trained, report=report, interval=interval)


def cross_validate(
    dataset: Dataset,
    recipe: Recipe,
    *,
    decision: Decision | None = None,
    folds: int = FOLDS,
    progress: Progress = silent,
) -> CrossValidation:
    """Return the score of estimators of the same recipe over folds of the whole table, stratified by class.

    That is the accuracy, or R² of a quantity. There are at most as many folds as the rarest class has rows.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    labels, outcomes = dataset.target.labels, dataset.outcomes
    if labels:
        folds = min(folds, int(np.bincount(outcomes.astype(np.intp)).min()))
        parts: Any = StratifiedKFold(n_splits=folds, shuffle=True, random_state=recipe.seed)
    else:
        folds = min(folds, len(outcomes) // 2)
        parts = KFold(n_splits=folds, shuffle=True, random_state=recipe.seed)
    scores = list[float]()
    for train, test in parts.split(dataset.rows, outcomes):
        estimator = _fit(
            dataset.rows[train], outcomes[train], recipe, features=dataset.features, labels=labels,
            progress=_of_fold(progress, f"{folds}-fold cross-validation", len(scores), folds),
        )  # fmt: skip
        if decision is None:
            scores.append(float(estimator.score(dataset.rows[test], outcomes[test])))
        else:
            answers = answers_of(estimator, dataset.rows[test], Labelling.by(labels, decision))
            scores.append(float((answers == outcomes[test]).mean()))
    return CrossValidation(folds=folds, mean=float(np.mean(scores)), deviation=float(np.std(scores)))


def _of_fold(progress: Progress, what: str, fold: int, folds: int) -> Progress:
    """Return the progress of one of several fits as a part of all: on a large table a single one takes minutes."""
    return lambda _what, done, steps: progress(what, fold * steps + done, folds * steps)


def _check_estimator(features: Sequence[Feature], recipe: Recipe) -> None:
    if recipe.estimator != "gradient-boosting":
        return
    for feature in features:
        if feature.choices or feature.has_gaps:
            what = "is a category" if feature.choices else "has gaps"
            raise TableError(
                f"gradient-boosting learns from numbers without gaps only, and {feature.title!r} {what}",
                remedies=[("to use the one that takes both", ("--estimator", "hist-gradient-boosting"))],
            )


def _fit(
    rows: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    recipe: Recipe,
    *,
    features: Sequence[Feature],
    labels: Sequence[str],
    progress: Progress = silent,
) -> Any:
    """Return a fitted estimator: trees are added in steps, which gives the same forest as all at once."""
    from sklearn import ensemble, tree
    from sklearn.utils.class_weight import compute_class_weight

    task = "Classifier" if labels else "Regressor"
    known: NDArray[Any] = outcomes.astype(np.intp) if labels else outcomes
    shared: dict[str, Any] = {
        "max_depth": recipe.max_depth,
        "min_samples_leaf": recipe.min_samples_leaf,
        "random_state": recipe.seed,
    }
    weights = None
    if recipe.balanced_class_weight and labels:
        classes, of_rows = np.unique(known, return_inverse=True)
        balanced = compute_class_weight("balanced", classes=classes, y=known)
        if recipe.estimator == "gradient-boosting":
            weights = balanced[of_rows]  # it knows weights of rows alone
        else:
            shared["class_weight"] = dict(zip(classes.tolist(), balanced, strict=True))
    if recipe.estimator == "decision-tree":
        fitted = getattr(tree, f"DecisionTree{task}")(**shared).fit(rows, known)
        progress("trees", 1, 1)
        return fitted
    if recipe.estimator == "hist-gradient-boosting":
        categories = [place for place, feature in enumerate(features) if feature.choices]
        kind = getattr(ensemble, f"HistGradientBoosting{task}")
        # As many trees as the recipe says.
        more = {"max_iter": recipe.n_estimators, "early_stopping": False, "categorical_features": categories or None}
        fitted = kind(**shared, **more).fit(rows, known)
        progress("trees", 1, 1)
        return fitted
    kind = getattr(ensemble, KINDS[recipe.estimator] + task)
    estimator = kind(**shared, warm_start=True)
    for trees in [*range(TREES_A_STEP, recipe.n_estimators, TREES_A_STEP), recipe.n_estimators]:
        estimator.set_params(n_estimators=trees).fit(rows, known, sample_weight=weights)
        progress("trees", trees, recipe.n_estimators)
    return estimator.set_params(warm_start=False)
