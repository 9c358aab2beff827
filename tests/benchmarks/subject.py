"""What is measured: the built-in model in a file, the forest it was taken from, and samples that never repeat."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from ml.model.loaded import LoadedModel
from ml.training import fitting, iris, writing

# More than any cache of answers in the service holds, so that going around never finds one there.
SAMPLES = 50_000


class WrongAnswer(Exception):
    """The service gave another answer than the model, so its speed says nothing."""


@dataclass(frozen=True)
class Subject:
    """Everything the benchmarks need.

    Attributes:
        directory: where they may write files.
        model_path: the model file that servers load.
        model: the same file, loaded here.
        estimator: scikit-learn's forest that the file was taken from.
        rows: `SAMPLES` different rows.
    """

    directory: Path
    model_path: Path
    model: LoadedModel
    estimator: Any
    rows: list[list[float]]

    def sample(self, row: Sequence[float]) -> dict[str, float]:
        """Return a row by feature key."""
        return dict(zip((feature.key for feature in self.model.features), row, strict=True))

    def query(self, row: Sequence[float]) -> str:
        """Return a row as a query string."""
        return urlencode(self.sample(row))


@dataclass(frozen=True)
class Plan:
    """How long to measure: `rounds` of `seconds` for each of the things that are compared.

    `tool` is the load tool for HTTP, `wrk` or `python`; `minutes` is how long the soak lasts at least.
    """

    rounds: int
    seconds: float
    tool: str
    minutes: float = 0.0


@contextlib.contextmanager
def prepared() -> Iterator[Subject]:
    """Train the built-in model and draw the samples; the files are gone after the block."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = directory / "model.npz"
        trained = fitting.fit(iris.load_dataset())
        model = writing.write(writing.model_of(trained), path, trained=trained)
        yield Subject(directory, path, model, trained.estimator, random_rows(model, SAMPLES))


def random_rows(model: LoadedModel, n: int, *, seed: int = 0) -> list[list[float]]:
    """Return n different rows, uniform over the training range of each feature, with two or three decimals."""
    rng = np.random.default_rng(seed)
    low, high = np.array([(feature.low, feature.high) for feature in model.features]).T
    rows: dict[tuple[float, ...], None] = {}
    while len(rows) < n:
        values = rng.uniform(low, high, (n, len(low)))
        drawn = np.where(rng.random(values.shape) < 0.5, values.round(2), values.round(3))
        rows.update(dict.fromkeys(map(tuple, drawn.tolist())))
    return [list(row) for row in rows][:n]
