"""What is known about a model: its inputs, its answers, how it was trained and how well it does."""

from __future__ import annotations

from typing import Literal

import msgspec

from ml.tables.dataset import Feature, Leaf


class TrainedFeature(Feature, frozen=True, kw_only=True):
    """A feature with what the training rows say about it, in `unit`.

    `low` and `high` span the training rows; `quantiles` are the 0 %, 10 %, ... 100 % quantiles; `example` is the value
    of the model's example row; `importance` is how much accuracy is lost on the test rows when the feature's values are
    shuffled among them (permutation importance; Breiman, "Random Forests", 2001), as a fraction, and may be negative.
    """

    low: float
    high: float
    quantiles: tuple[float, ...]
    example: float
    importance: float


class CrossValidation(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy over stratified folds: mean and standard deviation, both as fractions."""

    folds: int
    mean: float
    deviation: float


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is trained: with the same recipe, data and libraries it is the same model.

    `depth` None is no bound; `leaf` is the least number of rows at a leaf; `test_size` is the fraction of rows to
    measure on; `balanced` weighs each class as if all had the same number of rows.
    """

    estimator: Literal["random-forest", "extra-trees", "decision-tree"] = "random-forest"
    trees: int = 100
    depth: int | None = None
    leaf: int = 1
    seed: int = 0
    test_size: float = 0.2
    balanced: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How the model does on rows that it was not trained on.

    Fractions are 0 to 1; `precision` and `recall` are in the order of the labels; `confusion[i][j]` counts test rows of
    label i that were answered with label j; `baseline` is the accuracy of always answering the most frequent label.
    `train_rows` is None for a model that was fitted elsewhere.
    """

    train_rows: int | None
    test_rows: int
    accuracy: float
    baseline: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    cross_validation: CrossValidation | None


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a model but its trees.

    `libraries` are the versions that trained it, `recipe` reproduces it, and `data_digest` is the SHA-256 of the table
    it was trained on; the last two are None for a model that was fitted elsewhere. `picture` is that of the data set.
    """

    name: str
    source: str
    estimator: str
    trees: int
    features: tuple[TrainedFeature, ...]
    labels: tuple[str, ...]
    report: Report
    recipe: Recipe | None
    libraries: dict[str, str]
    data_digest: str | None
    picture: tuple[Leaf, ...] = ()
