"""The card of a model: its inputs, its labels, its training and its performance."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from ml.errors import ModelFileError
from ml.tables.dataset import MAX_TEXT, Feature, Shape
from ml.tables.numbers import LARGEST

MAX_FEATURES = 10_000
MAX_LABELS = 1_000
MAX_SHAPES = 64


class TrainedFeature(Feature, frozen=True, kw_only=True):
    """A feature with statistics of its training rows, in `unit`.

    `low` and `high` span the training rows; `quantiles` are the 0 %, 10 %, ... 100 % quantiles; `example` is the value
    of the model's example row; `importance` is the accuracy lost on the test rows when the feature's values are
    shuffled (permutation importance; Breiman, "Random Forests", 2001), as a fraction, and may be negative.
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
    """The parameters of the training: the same recipe, data and libraries give the same model.

    The names are those of scikit-learn; in the file they are shorter. `max_depth` None is no bound; `test_size` is the
    fraction of rows to measure on; `balanced_class_weight` weighs each class as if all had the same number of rows.
    """

    estimator: Literal["random-forest", "extra-trees", "decision-tree"] = "random-forest"
    n_estimators: int = msgspec.field(name="trees", default=100)
    max_depth: int | None = msgspec.field(name="depth", default=None)
    min_samples_leaf: int = msgspec.field(name="leaf", default=1)
    seed: int = 0
    test_size: float = 0.2
    balanced_class_weight: bool = msgspec.field(name="balanced", default=False)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The performance of the model on rows that it was not trained on.

    Fractions are 0 to 1; `precision` and `recall` are in the order of the labels; `confusion[i][j]` counts test rows of
    label i that were predicted as label j; `baseline` is the accuracy of always predicting the most frequent label.
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
    picture: tuple[Shape, ...] = ()

    def check(self) -> None:
        """Refuse a card that no model can have.

        Raises:
            ModelFileError: one sentence that names what is wrong.
        """
        keys, labels = [feature.key for feature in self.features], self.labels
        if not 1 <= len(keys) <= MAX_FEATURES or len(set(keys)) != len(keys) or not all(keys):
            raise ModelFileError(f"the card needs 1 to {MAX_FEATURES} features with different keys")
        if not 2 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
            raise ModelFileError(f"the card needs 2 to {MAX_LABELS} different labels")
        texts = [self.name, self.source, *labels, *keys]
        texts += [
            text
            for feature in self.features
            for text in (feature.title, feature.unit, *feature.titles, *feature.titles.values())
        ]
        if any(len(text) > MAX_TEXT for text in texts):
            raise ModelFileError(f"the card has a text of more than {MAX_TEXT} characters")
        for feature in self.features:
            minimum = -LARGEST if feature.minimum is None else max(feature.minimum, -LARGEST)
            maximum = LARGEST if feature.maximum is None else min(feature.maximum, LARGEST)
            if not minimum <= feature.low <= feature.example <= feature.high <= maximum:
                raise ModelFileError(
                    f"feature {shown(feature.key)}: limits, training range and example do not fit together"
                )
            if list(feature.quantiles) != sorted(feature.quantiles):
                raise ModelFileError(f"feature {shown(feature.key)}: the quantiles are not ascending")
        if len(counts := {len(feature.quantiles) for feature in self.features}) > 1 or min(counts) < 2:
            raise ModelFileError("the features do not have the same number of quantiles, at least 2")
        recipe = self.recipe
        if recipe is not None and not (
            0 <= recipe.seed < 2**32
            and 0 < recipe.test_size < 1
            and recipe.n_estimators >= 1
            and recipe.min_samples_leaf >= 1
            and (recipe.max_depth is None or recipe.max_depth >= 1)
        ):
            raise ModelFileError("the recipe has an impossible value: nothing can be trained with it")
        n = len(labels)
        report = self.report
        if not len(report.precision) == len(report.recall) == len(report.confusion) == n or any(
            len(row) != n for row in report.confusion
        ):
            raise ModelFileError("the report does not have one entry for each label")
        self._check_picture()

    def _check_picture(self) -> None:
        keys = {feature.key for feature in self.features}
        angles = [angle for shape in self.picture for angle in shape.angles]
        if not {key for shape in self.picture for key in (shape.length, shape.width)} <= keys or not all(
            map(math.isfinite, angles)
        ):
            raise ModelFileError("the picture is drawn from features that the model does not have, or at no angle")
        if len(self.picture) > MAX_SHAPES or len(angles) > MAX_SHAPES:
            raise ModelFileError(f"the picture has more than {MAX_SHAPES} shapes")


def shown(value: object) -> str:
    """Return an untrusted value short and on one line, for a message."""
    text = " ".join(str(value).split())[:200]
    return text if text.isprintable() else ascii(text)
