"""What is known about a model: its inputs, its answers, how it was trained and how well it does."""

from __future__ import annotations

import msgspec

from ml.dataset import Feature


class TrainedFeature(Feature, frozen=True, kw_only=True):
    """A feature with what the training rows say about it, in `unit`.

    `low` and `high` span the training rows; `quantiles` are the 0 %, 10 %, ... 100 % quantiles; `example` is the value
    of the model's example row.
    """

    low: float
    high: float
    quantiles: tuple[float, ...]
    example: float


class CrossValidation(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy over stratified folds: mean and standard deviation, both as fractions."""

    folds: int
    mean: float
    deviation: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How the model does on rows that it was not trained on.

    Fractions are 0 to 1; `precision` and `recall` are in the order of the labels; `confusion[i][j]` counts test rows of
    label i that were answered with label j; `baseline` is the accuracy of always answering the most frequent label.
    """

    train_rows: int
    test_rows: int
    accuracy: float
    baseline: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    cross_validation: CrossValidation | None


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a model but its trees.

    `libraries` are the versions that trained it, `seed` and `test_size` reproduce its split, and `data_digest` is the
    SHA-256 of the table it was trained on.
    """

    name: str
    source: str
    estimator: str
    trees: int
    features: tuple[TrainedFeature, ...]
    labels: tuple[str, ...]
    report: Report
    seed: int
    test_size: float
    libraries: dict[str, str]
    data_digest: str
