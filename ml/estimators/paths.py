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
class Table:
    """The columns between two steps, and whether the library has them as a sparse matrix."""

    paths: tuple[Path, ...]
    is_sparse: bool = False


@dataclass(frozen=True)
class Step:
    """What a step does, in one word, and to which inputs."""

    kind: str
    inputs: tuple[int, ...]


@dataclass
class Reading:
    """What was read.

    Attributes:
        final: the estimator behind the steps.
        transformers: the fitted steps in front of it, in their order.
        paths: the columns that it sees.
        words: by input, the values that an encoder knows, gaps left out.
        gaps: by input, of which some step expects gaps: what stands for no value.
        markers: by input, the error if it is a number, of which some values stand for no value.
        steps: what is done, in order.
        decision: of a classifier around the estimator that decides by a threshold.
    """

    final: Any
    transformers: list[Any] = field(default_factory=list)
    paths: tuple[Path, ...] = ()
    words: dict[int, list[Any]] = field(default_factory=dict)
    gaps: dict[int, Any] = field(default_factory=dict)
    markers: dict[int, ForestError] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    decision: Decision | None = None

    def note(self, kind: str, paths: Iterable[Path]) -> None:
        """Add a step to the list of what is done."""
        inputs = tuple(sorted({path.feature for path in paths}))
        if inputs and Step(kind, inputs) not in self.steps:
            self.steps.append(Step(kind, inputs))


def kind_of(step: Any, kinds: Iterable[str]) -> str | None:
    """Return the name among `kinds` of the class that a step has or is derived from."""
    known = set(kinds)
    for kind in type(step).__mro__:
        if kind.__name__ in known and kind.__module__.partition(".")[0] in LIBRARIES:
            return kind.__name__
    return None


def refusal(step: Any, name: str, remedy: str) -> ForestError:
    """Return the error of a step that cannot be read: its name, its kind, and what would work."""
    return ForestError(f"the step {name!r} ({type(step).__name__}) cannot be exported: {remedy}")
