"""Columns on their way through the steps of a pipeline, and what is known about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ml.errors import ForestError
from ml.model.card import Decision
from ml.model.design import Operation

# The libraries whose classes are known by name.
LIBRARIES = ("sklearn", "imblearn")
# What every refusal of a model or a step names.
TREES = (
    "random forests, extra trees, decision trees, GradientBoosting, HistGradientBoosting, AdaBoost and Bagging of "
    "decision trees, and votes of these (VotingRegressor, VotingClassifier with voting='soft')"
)
LINEAR = (
    "LogisticRegression, SGDClassifier with loss='log_loss', GaussianNB, Ridge, Lasso, ElasticNet, LinearRegression, "
    "and LinearSVC in a CalibratedClassifierCV"
)
MODELS = (
    f"these models would work: {TREES}; {LINEAR}; CalibratedClassifierCV of forests, GradientBoosting and "
    "HistGradientBoosting; models of XGBoost, LightGBM and CatBoost"
)
MODEL_REMEDIES = {
    "TransformedTargetRegressor": "it changes what its regressor predicts; that one, its regressor_, would work, with "
    "y_test as the regressor predicts it",
    "SVC": "CalibratedClassifierCV(LinearSVC()) is the one that is nearest to it",
}
STEPS = (
    "these steps would work: SimpleImputer, MissingIndicator, StandardScaler, MinMaxScaler, MaxAbsScaler, "
    "RobustScaler, OneHotEncoder, OrdinalEncoder, TargetEncoder, KBinsDiscretizer, Binarizer, "
    "FunctionTransformer of np.log, np.log1p, np.sqrt or np.exp, ColumnTransformer, FeatureUnion, selection of columns"
)


@dataclass(frozen=True)
class Path:
    """One column on its way through the steps.

    Attributes:
        feature: the position of the input that it is made of.
        is_encoded: whether its words have become numbers already.
    """

    feature: int
    operations: tuple[Operation, ...] = ()
    is_missing: bool = False
    is_encoded: bool = False

    def then(self, *operations: Operation) -> Path:
        return replace(self, operations=(*self.operations, *operations))

    @property
    def is_raw(self) -> bool:
        """Whether it has the input's own values, but for filled gaps."""
        filled = all(operation.name == "fill" for operation in self.operations)
        return filled and not (self.is_missing or self.is_encoded)


@dataclass(frozen=True)
class StepColumns:
    """The columns between two steps, and whether the library has them as a sparse matrix."""

    paths: tuple[Path, ...]
    is_sparse: bool = False


@dataclass(frozen=True)
class StepInputs:
    """What a step does, in one word, and to which inputs."""

    kind: str
    inputs: tuple[int, ...]


@dataclass
class PipelineReading:
    """What was read.

    Attributes:
        final: the estimator behind the steps.
        transformers: the fitted steps in front of it, in their order.
        paths: the columns that it sees.
        is_sparse: whether it sees them as a sparse matrix.
        words: by input, the values that an encoder knows, gaps left out.
        gaps: by input, of which some step expects gaps: what stands for no value.
        markers: by input, the error if it is a number, of which some values stand for no value.
        steps: what is done, in order.
        decision: of a classifier around the estimator that decides by a threshold.
    """

    final: Any
    transformers: list[Any] = field(default_factory=list)
    paths: tuple[Path, ...] = ()
    is_sparse: bool = False
    words: dict[int, list[Any]] = field(default_factory=dict)
    gaps: dict[int, Any] = field(default_factory=dict)
    markers: dict[int, ForestError] = field(default_factory=dict)
    steps: list[StepInputs] = field(default_factory=list)
    decision: Decision | None = None

    def note(self, kind: str, paths: Iterable[Path]) -> None:
        """Add a step to the list of what is done."""
        inputs = tuple(sorted({path.feature for path in paths}))
        if inputs and StepInputs(kind, inputs) not in self.steps:
            self.steps.append(StepInputs(kind, inputs))


def kind_of(step: Any, kinds: Iterable[str]) -> str | None:
    """Return the name among `kinds` of the class that a step has or is derived from."""
    known = set(kinds)
    for kind in type(step).__mro__:
        if kind.__name__ in known and kind.__module__.partition(".")[0] in LIBRARIES:
            return kind.__name__
    return None


def working_in(outer: Any) -> str:
    """Return what works in a vote or in a CalibratedClassifierCV."""
    kind = type(outer).__name__
    linear = ", LinearSVC, LogisticRegression, SGDClassifier, RidgeClassifier" if kind.startswith("Calibrated") else ""
    return (
        f"in a {kind}, random forests, extra trees, decision trees, GradientBoosting, HistGradientBoosting without "
        f"categories{linear} would work"
    )


def unread(model: Any) -> ForestError:
    """Return the error of a model of a kind that is not read: what would work."""
    kind = type(model).__name__
    remedy = MODEL_REMEDIES.get(kind)
    return ForestError(f"{kind} cannot be exported: {f'{remedy}; ' if remedy else ''}{MODELS}")


def refusal(step: Any, name: str, remedy: str) -> ForestError:
    """Return the error of a step that cannot be read: its name, its kind, and what would work."""
    return ForestError(f"the step {name!r} ({type(step).__name__}) cannot be exported: {remedy}")
