"""Fit a classifier, measure it on rows it has not seen, and write it as a model file that agrees to the last bit.

The only module besides `ml.training.iris` that imports scikit-learn, and only inside its functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml.errors import DatasetError, ModelFileError, TrainingError
from ml.model import classifier, modelfile
from ml.model.card import Card, CrossValidation, Recipe, Report, TrainedFeature
from ml.model.classifier import Classifier
from ml.model.forest import Forest
from ml.model.modelfile import ModelFile
from ml.tables.csvfile import Limits, feature_of
from ml.tables.dataset import Dataset, Feature, Shape
from ml.tables.numbers import LARGEST
from ml.training import history

FOLDS = 10
REFERENCE_ROWS = 300
GOLDEN_TEST_ROWS = 100
GOLDEN_THRESHOLD_ROWS = 156
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
    _check_name(dataset.name)
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


def model_of(
    trained: Trained, *, cross_validation: CrossValidation | None = None, keep_samples: bool = True
) -> ModelFile:
    """Return the content of a model file; without `keep_samples` it has no training rows except the example."""
    forest = Forest.from_estimator(trained.estimator)
    rng = np.random.default_rng(trained.recipe.seed if trained.recipe else 0)
    rows = golden_rows(forest, trained.split, rng=rng)
    chosen = np.sort(rng.permutation(len(trained.split.train_rows))[: REFERENCE_ROWS if keep_samples else 0])
    card = Card(
        name=trained.name,
        source=trained.source,
        estimator=type(trained.estimator).__name__,
        trees=forest.n_trees,
        features=_trained_features(trained),
        labels=trained.labels,
        report=msgspec.structs.replace(trained.report, cross_validation=cross_validation),
        recipe=trained.recipe,
        libraries={name: version(name) for name in ("scikit-learn", "numpy")},
        data_digest=trained.data_digest,
        picture=trained.picture,
    )
    return ModelFile(
        card=card,
        forest=forest,
        golden_rows=rows,
        golden_probabilities=trained.estimator.predict_proba(rows),
        reference_rows=trained.split.train_rows[chosen],
        reference_classes=trained.split.train_classes[chosen].astype(np.int32),
    )


def write(model: ModelFile, path: Path, *, trained: Trained) -> Classifier:
    """Write a model's file, and prove before it takes its name that it answers the test rows as scikit-learn does.

    The model file that it replaces is kept beside it (see `ml.training.history`).

    Raises:
        ModelFileError: the file is too large, or cannot be written or read back.
        TrainingError: a probability differs in any bit. After any error an older file is unchanged.
    """

    def prove(written: Path) -> None:
        try:
            content = modelfile.read(written)
            loaded = Classifier(modelfile.parse(content), modelfile.version_of(content))
        except ModelFileError as error:
            raise ModelFileError(f"{path} is not written: it could not be read back: {error}") from error
        expected = trained.estimator.predict_proba(trained.split.test_rows)
        answers = loaded.predict_batch(trained.split.test_rows)
        one_by_one = np.array([loaded.predict(row).probabilities for row in trained.split.test_rows.tolist()])
        if not (np.array_equal(answers.probabilities, expected) and np.array_equal(one_by_one, expected)):
            raise TrainingError(f"{path}: the model read back gives other probabilities than scikit-learn")
        history.keep(path)

    with history.locked(path):
        version = modelfile.save(model, path, check=prove)
        history.prune(path, version=version)
        return classifier.load(path)


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
        forest: a fitted random forest, extra-trees or single decision tree classifier of scikit-learn.
        X_test: shape (n_rows, n_features): rows that it was not fitted on.
        y_test: shape (n_rows,): their classes, out of `forest.classes_`.
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
    _check_name(name or path.stem)
    features = tuple(feature_of(text, limits) for text in feature_names)
    keys = {feature.key for feature in features}
    if Forest.from_estimator(forest).n_features != len(keys):
        raise DatasetError(f"the forest has {forest.n_features_in_} features, and needs as many different names")
    if unknown := sorted((limits or {}).keys() - keys):
        raise DatasetError(f"limits for {unknown[0]!r}, which is not a feature")
    if (X_train is None) != (y_train is None):
        raise DatasetError("X_train and y_train go together")
    if hasattr(forest, "n_jobs"):
        # With several jobs scikit-learn adds the trees in whatever order they come, and the bits differ.
        forest = copy.copy(forest).set_params(n_jobs=1)
    test_rows, test_classes = _checked("X_test", X_test, "y_test", y_test, forest=forest)
    train_rows, train_classes = test_rows, test_classes
    if X_train is not None and y_train is not None:
        train_rows, train_classes = _checked("X_train", X_train, "y_train", y_train, forest=forest)
    parts = Split(train_rows, test_rows, train_classes, test_classes)
    labels = tuple(str(label) for label in forest.classes_)
    report = measure(forest.predict_proba(test_rows).argmax(axis=1), parts, n_labels=len(labels))
    trained = Trained(
        name=name or path.stem,
        source=f"fitted elsewhere, measured on {len(test_rows)} rows",
        features=features,
        labels=labels,
        estimator=forest,
        split=parts,
        report=msgspec.structs.replace(report, train_rows=None if X_train is None else len(train_rows)),
        recipe=None,
        data_digest=None,
    )
    return write(model_of(trained), path, trained=trained)


def _check_name(name: str) -> None:
    if not name.strip() or "/" in name:
        raise DatasetError(f"{name!r} cannot be a model's name: it is part of an address, where / means something else")


def _checked(
    rows_name: str, rows: ArrayLike, classes_name: str, classes: ArrayLike, *, forest: Any
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return rows as float64 and classes as indices into `forest.classes_`."""
    try:
        checked = np.asarray(rows, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{rows_name} is not a table of numbers: {error}") from error
    if checked.ndim != 2 or checked.shape[1] != forest.n_features_in_ or not len(checked):
        raise DatasetError(f"{rows_name} has the shape {checked.shape}, not (n, {forest.n_features_in_}) with rows")
    if not np.all(np.abs(checked) <= LARGEST):
        raise DatasetError(f"{rows_name} has a value that is not a finite 32-bit float")
    position = {label: index for index, label in enumerate(forest.classes_.tolist())}
    given = np.asarray(classes)
    indices = [position.get(label, -1) for label in given.tolist()] if given.ndim == 1 else []
    if len(indices) != len(checked) or -1 in indices:
        raise DatasetError(f"{classes_name} does not have one of the forest's classes for each row of {rows_name}")
    return checked, np.array(indices, dtype=np.intp)


def golden_rows(forest: Forest, parts: Split, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return rows to check a model file with: test rows, and rows whose values lie on the forest's thresholds.

    Thresholds are where a wrong comparison or a missing cast to float32 shows. Shape (n_golden, n_features).
    """
    rows = [parts.test_rows[:GOLDEN_TEST_ROWS]]
    columns = []
    for feature in range(forest.n_features):
        thresholds = np.unique(forest.threshold[forest.feature == feature])
        edges = np.concatenate([thresholds, np.nextafter(thresholds, np.inf), thresholds.astype(np.float32)])
        columns.append(rng.choice(edges if len(edges) else parts.train_rows[:, feature], GOLDEN_THRESHOLD_ROWS))
    rows.append(np.column_stack(columns))
    return np.concatenate(rows)


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


def _trained_features(trained: Trained) -> tuple[TrainedFeature, ...]:
    """Return the features with their training ranges, and as the example the row nearest to the middle of them."""
    rows = trained.split.train_rows
    quantiles = np.quantile(rows, np.linspace(0, 1, 11), axis=0)
    spread = np.maximum(quantiles[-1] - quantiles[0], np.finfo(float).tiny)
    example = rows[np.argmin((((rows - np.median(rows, axis=0)) / spread) ** 2).sum(axis=1))]
    importances = importance(trained)
    return tuple(
        TrainedFeature(
            **msgspec.structs.asdict(feature),
            low=float(rows[:, column].min()),
            high=float(rows[:, column].max()),
            quantiles=tuple(quantiles[:, column].tolist()),
            example=float(example[column]),
            importance=float(importances[column]),
        )
        for column, feature in enumerate(trained.features)
    )
