"""Fit a random forest, measure it on rows it has not seen, and write it as a model file that agrees to the last bit.

The only module besides `ml.iris` that imports scikit-learn, and only inside its functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml import classifier, modelfile
from ml.card import Card, CrossValidation, Report, TrainedFeature
from ml.classifier import Classifier
from ml.dataset import Dataset
from ml.errors import TrainingError
from ml.forest import Forest
from ml.modelfile import ModelFile

FOLDS = 10
SAMPLE_ROWS = 300
GOLDEN_TEST_ROWS = 100
GOLDEN_THRESHOLD_ROWS = 156


@dataclass(frozen=True)
class Split:
    """A stratified split into rows to learn from and rows to measure on; shapes as in `Dataset`."""

    train_rows: NDArray[np.float64]
    test_rows: NDArray[np.float64]
    train_classes: NDArray[np.intp]
    test_classes: NDArray[np.intp]


@dataclass(frozen=True)
class Trained:
    """A fitted estimator with the split it was fitted on and its report."""

    dataset: Dataset
    estimator: Any
    split: Split
    report: Report
    seed: int
    test_size: float


def split(dataset: Dataset, *, seed: int = 0, test_size: float = 0.2) -> Split:
    """Return the stratified split of `dataset`; `test_size` is the fraction of rows to measure on."""
    from sklearn.model_selection import train_test_split

    return Split(
        *train_test_split(
            dataset.rows, dataset.classes, test_size=test_size, stratify=dataset.classes, random_state=seed
        )
    )


def fit(dataset: Dataset, *, seed: int = 0, test_size: float = 0.2) -> Trained:
    """Fit a random forest on the training part of `dataset` and measure it on the rest."""
    from sklearn.ensemble import RandomForestClassifier

    parts = split(dataset, seed=seed, test_size=test_size)
    estimator = RandomForestClassifier(random_state=seed).fit(parts.train_rows, parts.train_classes)
    report = measure(estimator.predict(parts.test_rows), parts, n_labels=len(dataset.labels))
    return Trained(dataset, estimator, parts, report, seed, test_size)


def cross_validate(trained: Trained, *, folds: int = FOLDS) -> CrossValidation:
    """Return the accuracy of forests of the same kind over stratified folds of the whole table."""
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    dataset, seed = trained.dataset, trained.seed
    parts = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    scores = cross_val_score(clone(trained.estimator), dataset.rows, dataset.classes, cv=parts)
    return CrossValidation(folds=folds, mean=float(scores.mean()), deviation=float(scores.std()))


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


def model_of(trained: Trained, *, cross_validation: CrossValidation | None = None) -> ModelFile:
    """Return everything that goes into the model file of a fitted forest."""
    import msgspec

    dataset, forest = trained.dataset, Forest.from_estimator(trained.estimator)
    rng = np.random.default_rng(trained.seed)
    rows = golden_rows(forest, trained.split, rng=rng)
    chosen = _sample(trained.split, rng=rng)
    card = Card(
        name=dataset.name,
        source=dataset.source,
        estimator=type(trained.estimator).__name__,
        trees=forest.n_trees,
        features=_trained_features(dataset, trained.split.train_rows),
        labels=dataset.labels,
        report=msgspec.structs.replace(trained.report, cross_validation=cross_validation),
        seed=trained.seed,
        test_size=trained.test_size,
        libraries={name: version(name) for name in ("scikit-learn", "numpy")},
        data_digest=dataset.digest(),
    )
    return ModelFile(
        card=card,
        forest=forest,
        golden_rows=rows,
        golden_probabilities=trained.estimator.predict_proba(rows),
        sample_rows=trained.split.train_rows[chosen],
        sample_classes=trained.split.train_classes[chosen].astype(np.int32),
    )


def write(model: ModelFile, path: Path, *, trained: Trained) -> Classifier:
    """Write the model file, read it back, and prove that it answers the test rows as scikit-learn does.

    Raises:
        TrainingError: a probability differs in any bit. The file is removed.
    """
    modelfile.save(model, path)
    loaded = classifier.load(path)
    expected = trained.estimator.predict_proba(trained.split.test_rows)
    answers = loaded.predict_batch(trained.split.test_rows)
    one_by_one = np.array([loaded.predict(row).probabilities for row in trained.split.test_rows.tolist()])
    if not (np.array_equal(answers.probabilities, expected) and np.array_equal(one_by_one, expected)):
        path.unlink()
        raise TrainingError(f"{path}: the model read back gives other probabilities than scikit-learn")
    return loaded


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


def _trained_features(dataset: Dataset, rows: NDArray[np.float64]) -> tuple[TrainedFeature, ...]:
    """Return the features with their training ranges, and as the example the row nearest to the middle of them."""
    quantiles = np.quantile(rows, np.linspace(0, 1, 11), axis=0)
    spread = np.maximum(quantiles[-1] - quantiles[0], np.finfo(float).tiny)
    example = rows[np.argmin((((rows - np.median(rows, axis=0)) / spread) ** 2).sum(axis=1))]
    return tuple(
        TrainedFeature(
            key=feature.key,
            title=feature.title,
            unit=feature.unit,
            minimum=feature.minimum,
            maximum=feature.maximum,
            low=float(rows[:, column].min()),
            high=float(rows[:, column].max()),
            quantiles=tuple(quantiles[:, column].tolist()),
            example=float(example[column]),
        )
        for column, feature in enumerate(dataset.features)
    )


def _sample(parts: Split, *, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the indices of at most `SAMPLE_ROWS` training rows, in their order."""
    n = len(parts.train_rows)
    return np.sort(rng.permutation(n)[:SAMPLE_ROWS])
