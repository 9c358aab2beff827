"""The card of a model: its inputs, its target, its training and its performance."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from ml.errors import ModelFileError, shown
from ml.model.calibration import Calibration
from ml.model.linear import Formula
from ml.model.quantity import Quantity
from ml.model.total import Total
from ml.tables.dataset import MAX_CHOICES, MAX_TEXT, Count, Feature, Fraction, Shape, Target, Text
from ml.tables.marks import THOUSANDS
from ml.tables.numbers import LARGEST

MAX_FEATURES = 10_000
MAX_LABELS = 1_000
MAX_SHAPES = 64
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Word = Annotated[str, msgspec.Meta(max_length=MAX_TEXT, pattern="^[ -~]*$")]


class TrainedFeature(Feature, frozen=True, kw_only=True):
    """A feature with statistics of its training rows, in `unit`; those of a category are of its choices' positions.

    `low` and `high` span the training rows; `quantiles` are the 0 %, 10 %, ... 100 % quantiles; `example` is the value
    of the model's example row, never missing; `importance` is what is lost on the test rows when the feature's values
    are shuffled (permutation importance; Breiman, "Random Forests", 2001), of the accuracy or, for a quantity, of R²,
    as a fraction, and may be negative. `counts` are the training rows of each choice, and `gap_share` is the fraction
    of training rows without a value, or with a word that is not among the choices.

    Of a model without a report there are no quantiles, counts are 0, and `importance` is the share of the trees' nodes
    that compare the feature, by their covers. Without `has_range`, `low` and `high` span what it is compared with.
    """

    low: float
    high: float
    quantiles: tuple[float, ...]
    example: float
    importance: float
    counts: tuple[Count, ...] = ()
    gap_share: Fraction = 0.0
    has_range: bool = True

    @property
    def training_range(self) -> tuple[float, float]:
        """The range of a number in training; without ends where it is not known."""
        return (self.low, self.high) if self.has_range else (-math.inf, math.inf)

    @property
    def unit_step(self) -> float:
        """The least step that means something: 1 where only whole numbers are known of the training rows, else 0."""
        if self.choices or not self.quantiles:
            return 0.0
        return 0.0 if any(value % 1 for value in (self.low, self.high, self.example, *self.quantiles)) else 1.0

    def shown(self, value: float) -> str | float | None:
        """Return a value of a row as JSON has it: a number, a word, or None for no value."""
        if value != value:  # noqa: PLR0124  # NaN alone
            return None
        if not self.choices:
            return value
        return self.choices[int(value)] if value >= 0 else getattr(value, "word", None)


class CrossValidation(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy, or R² of a quantity, over folds: mean and standard deviation, both as fractions."""

    folds: Count
    mean: float
    deviation: float


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of the training: the same recipe, data and libraries give the same model.

    The names are those of scikit-learn; in the file they are shorter. `max_depth` None is no bound; `test_size` is the
    fraction of rows to measure on; `balanced_class_weight` weighs each class as if all had the same number of rows.
    """

    estimator: Literal[
        "random-forest", "extra-trees", "decision-tree", "hist-gradient-boosting", "gradient-boosting"
    ] = "random-forest"
    n_estimators: Count = msgspec.field(name="trees", default=100)
    max_depth: Count | None = msgspec.field(name="depth", default=None)
    min_samples_leaf: Count = msgspec.field(name="leaf", default=1)
    seed: Count = 0
    test_size: float = 0.2
    balanced_class_weight: bool = msgspec.field(name="balanced", default=False)


class Report(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="classes"):
    """The performance of a classifier on rows that it was not trained on.

    Fractions are 0 to 1; `precision` and `recall` are in the order of the labels; `confusion[i][j]` counts test rows of
    label i that were predicted as label j; `baseline` is the accuracy of always predicting the most frequent label.
    `train_rows` is None for a model that was fitted elsewhere, `calibration` in files that say nothing about it.
    """

    train_rows: Count | None
    test_rows: Count
    accuracy: Fraction
    baseline: Fraction
    precision: tuple[Fraction, ...]
    recall: tuple[Fraction, ...]
    confusion: tuple[tuple[Count, ...], ...]
    cross_validation: CrossValidation | None
    calibration: Calibration | None = None


class QuantityReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="quantity"):
    """The performance of a model of a quantity on rows that it was not trained on.

    Errors are in the unit of the quantity. `r2` is the coefficient of determination, at most 1; `baseline_error` is
    the mean absolute error of always predicting the median of the training rows; `residuals` are pairs of predicted
    and true values of some test rows; `covered` is the fraction of test rows inside of the model's interval.
    """

    train_rows: Count | None
    test_rows: Count
    r2: float
    mean_absolute_error: float
    root_mean_squared_error: float
    baseline_error: float
    residuals: tuple[tuple[float, float], ...]
    covered: Fraction
    cross_validation: CrossValidation | None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a pipeline in front of the estimator: what it does, in one word, and the keys of its features.

    The words are those of `ml.estimators.columnwise`, as `fill_median` or `one_hot`; the page says them in sentences.
    """

    kind: Text
    features: tuple[Text, ...]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The label of two that is given where its probability is at least `threshold`; else it is the other one."""

    positive: Text
    threshold: Fraction


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a model but its trees.

    `libraries` are the versions that trained it, `recipe` reproduces it, and `data_digest` is the SHA-256 of the table
    it was trained on; the last two are None for a model that was fitted elsewhere. `picture` is that of the data set.
    `quantity` is None for a classifier, and only for one. `report` is None for a model of another library's file that
    was measured on no table. `total` is the arithmetic of the library's trees, `formula`
    that of a linear model, which has none; `steps` are those of a pipeline in front of the estimator; `decision` is
    None where the library's own rule decides.
    """

    name: Text
    source: Text
    estimator: Text
    trees: Count
    features: tuple[TrainedFeature, ...]
    target: Target
    report: Report | QuantityReport | None
    recipe: Recipe | None
    libraries: dict[Word, Word]
    data_digest: Digest | None
    picture: tuple[Shape, ...] = ()
    quantity: Quantity | None = None
    total: Total = msgspec.field(default_factory=Total)
    formula: Formula | None = None
    steps: tuple[Step, ...] = ()
    decision: Decision | None = None

    @property
    def promise(self) -> Literal["bits", "scores", "linear"]:
        """What is the library's own to the last bit on every machine: answers, or only the scores they are made of.

        Neither of these are those of a linear model: its answers are within 4 ulp of the library's to one row.
        """
        if self.formula is not None:
            return "linear"
        return "bits" if self.total.is_exact else "scores"

    @property
    def is_calibrated(self) -> bool:
        """Whether probabilities were calibrated on training rows."""
        has_curves = any(member.curves for member in self.total.members)
        return has_curves or (self.formula is not None and self.formula.link == "calibrated")

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names in the order of the classes; none for a quantity."""
        return self.target.labels

    def check(self) -> None:
        """Refuse a card that no model can have.

        Raises:
            ModelFileError: one sentence that names what is wrong.
        """
        keys = [feature.key for feature in self.features]
        if not 1 <= len(keys) <= MAX_FEATURES or len(set(keys)) != len(keys) or not all(keys):
            raise ModelFileError(f"the card needs 1 to {MAX_FEATURES} features with different keys")
        self._check_target()
        if self.decision and not (len(self.labels) == 2 and self.decision.positive in self.labels):
            raise ModelFileError("the decision does not name one of two labels")
        if not {key for step in self.steps for key in step.features} <= {*keys}:
            raise ModelFileError("a step works on a feature that the model does not have")
        for feature in self.features:
            _check_feature(feature)
        counts = {len(feature.quantiles) for feature in self.features}
        if (counts != {0}) if self.report is None else (len(counts) > 1 or min(counts) < 2):
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
        self._check_picture()

    def _check_target(self) -> None:
        labels, report, quantity = self.labels, self.report, self.quantity
        is_mixed = report is not None and isinstance(report, QuantityReport) != (quantity is not None)
        if is_mixed or (quantity is not None and labels):
            raise ModelFileError("the card mixes classes and a quantity")
        if quantity is not None:
            quantity.check(has_report=report is not None)
            return
        if not 2 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
            raise ModelFileError(f"the card needs 2 to {MAX_LABELS} different labels")
        if report is None:
            return
        assert isinstance(report, Report)
        n = len(labels)
        if not len(report.precision) == len(report.recall) == len(report.confusion) == n or any(
            len(row) != n for row in report.confusion
        ):
            raise ModelFileError("the report does not have one entry for each label")
        if report.calibration is not None and not report.calibration.is_possible(n):
            raise ModelFileError("the calibration in the report has numbers that no test rows can give")

    def _check_picture(self) -> None:
        keys = {feature.key for feature in self.features}
        angles = [angle for shape in self.picture for angle in shape.angles]
        if not {key for shape in self.picture for key in (shape.length, shape.width)} <= keys or not all(
            map(math.isfinite, angles)
        ):
            raise ModelFileError("the picture is drawn from features that the model does not have, or at no angle")
        if len(self.picture) > MAX_SHAPES or len(angles) > MAX_SHAPES:
            raise ModelFileError(f"the picture has more than {MAX_SHAPES} shapes")


def _check_feature(feature: TrainedFeature) -> None:
    name = f"feature {shown(feature.key)}"
    minimum = -LARGEST if feature.minimum is None else max(feature.minimum, -LARGEST)
    maximum = LARGEST if feature.maximum is None else min(feature.maximum, LARGEST)
    if not minimum <= feature.low <= feature.example <= feature.high <= maximum:
        raise ModelFileError(f"{name}: limits, training range and example do not fit together")
    if list(feature.quantiles) != sorted(feature.quantiles):
        raise ModelFileError(f"{name}: the quantiles are not ascending")
    if feature.thousands not in ("", *THOUSANDS) or feature.thousands == feature.decimal:
        raise ModelFileError(f"{name}: {shown(feature.thousands)!r} is no mark between thousands")
    choices = feature.choices
    if choices and not feature.minimum is feature.maximum is None:
        raise ModelFileError(f"{name} is a category, and has limits: only numbers have some")
    if len(choices) > MAX_CHOICES or len(set(choices)) != len(choices) or not all(choices):
        raise ModelFileError(f"{name} does not have at most {MAX_CHOICES} different choices")
    counts, is_known = feature.counts, not choices or (feature.low >= 0 and feature.high < len(choices))
    if not (is_known and len(counts) == len(choices)):
        raise ModelFileError(f"{name}: its statistics are not those of its choices")
    if choices and not feature.example.is_integer():
        raise ModelFileError(f"{name}: its example is not one of its choices")
