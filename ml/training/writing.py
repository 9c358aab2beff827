"""Write a trained model as a file, once it is proven to answer as the library does, to the last bit."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, TrainingError
from ml.model import classifier, modelfile
from ml.model.card import Card, CrossValidation, TrainedFeature
from ml.model.classifier import Classifier
from ml.model.forest import Forest
from ml.model.modelfile import ModelFile
from ml.training import history
from ml.training.fitting import Split, Trained, importance

REFERENCE_ROWS = 300
GOLDEN_TEST_ROWS = 100
GOLDEN_THRESHOLD_ROWS = 156


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
