"""Tables of words, gaps and numbers, and scikit-learn's own pipeline that is fitted on their words: the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from ml.model import modelfile
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.model.modelfile import ModelFile
from ml.tables.dataset import Dataset, Feature, Target
from ml.training import fitting, writing
from ml.training.fitting import Trained
from tests.conftest import EVALUATORS

UNKNOWN_WORDS = ("never seen", "NULL", "0", "1")
RARE_WORD = "a rare word"

# A cell is a number, a word, or None for no value.
Cells = NDArray[np.object_]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        cells: of all rows, shape (n_rows,).
        choices: the words that training knows; none for a column of numbers.
        has_gaps: whether a cell may have no value.
    """

    cells: Cells
    choices: tuple[str, ...] = ()
    has_gaps: bool = False

    @property
    def codes(self) -> NDArray[np.float64]:
        """What `Dataset.rows` has for each cell."""
        positions: dict[Any, float] = {word: float(position) for position, word in enumerate(self.choices)}
        values = [
            np.nan if cell is None else positions.get(cell, np.nan) if self.choices else cell for cell in self.cells
        ]
        return np.array(values, dtype=np.float64)


def numbers(
    rng: np.random.Generator, n_rows: int, *, gaps: float = 0.0, distinct: int = 40, scale: float = 1.0
) -> Column:
    """Return a column of numbers, of which a share has no value."""
    return _column(rng.integers(0, distinct, n_rows) * scale / 8, rng, gaps)


def words(
    rng: np.random.Generator, n_rows: int, choices: Sequence[str], *, gaps: float = 0.0, rare: float = 0.0
) -> Column:
    """Return a column of words, of which a share has no value, and another a word that is not among the choices."""
    cells = rng.choice(np.array([*choices], dtype=object), n_rows)
    cells[rng.random(n_rows) < rare] = RARE_WORD
    return _column(cells, rng, gaps, tuple(choices))


def _column(cells: NDArray[Any], rng: np.random.Generator, gaps: float, choices: tuple[str, ...] = ()) -> Column:
    cells = np.array(cells.tolist(), dtype=object)
    cells[rng.random(len(cells)) < gaps] = None
    return Column(cells, choices, has_gaps=bool(gaps))


@dataclass(frozen=True)
class Oracle:
    """A table with its model, trained our way on numbers, and scikit-learn's pipeline, fitted on the cells.

    Attributes:
        table: shape (n_rows, n_columns).
        pipeline: fitted on the training part of the table.
    """

    columns: tuple[Column, ...]
    trained: Trained
    stored: ModelFile
    table: Cells
    pipeline: Any

    def model(self, evaluator: str = "table") -> LoadedModel:
        return LoadedModel(self.stored, "0" * 12, **EVALUATORS[evaluator])

    def answers(self, table: Cells) -> NDArray[np.float64]:
        """Return the pipeline's own answers: probabilities, or one quantity a row."""
        return writing.outputs_of(self.pipeline, table)  # type: ignore[arg-type]  # cells and not numbers

    def questions(self, rng: np.random.Generator, n_rows: int) -> Cells:
        """Return rows with every choice, unknown words, gaps, and values on thresholds and beside them."""
        drawn = [self._asked(position, rng, n_rows) for position in range(len(self.columns))]
        return np.array(list(zip(*drawn, strict=True)), dtype=object)

    def _asked(self, position: int, rng: np.random.Generator, n_rows: int) -> list[Any]:
        column, forest = self.columns[position], self.stored.forest
        may_lack = [None] if column.has_gaps else []
        if column.choices:
            values: list[Any] = [*column.choices, *column.choices, *UNKNOWN_WORDS, *may_lack, *may_lack]
        else:
            thresholds = np.unique(forest.threshold[forest.feature == position])
            finite = thresholds[np.isfinite(thresholds)]
            values = [*_around(finite).tolist(), *rng.normal(0, 3, 20).tolist(), 0.0, -0.0, 1e30, -1e30]
            values += may_lack * (len(values) // 4 + 1)
        # Each of them once, as far as there are rows, and then at random.
        order = [*rng.permutation(len(values)), *rng.integers(0, len(values), n_rows)][:n_rows]
        return [values[index] for index in order]


def _around(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return thresholds with their neighbours among float64 and float32 numbers."""
    nearest = thresholds.astype(np.float32)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    singles = [nearest, np.nextafter(nearest, up), np.nextafter(nearest, down)]
    doubles = [thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf)]
    return np.unique(np.concatenate([*doubles, *(values.astype(np.float64) for values in singles)]))


def dataset_of(columns: Sequence[Column], outcomes: NDArray[np.float64], *, labels: Sequence[str] = ()) -> Dataset:
    """Return what training is given of a table; without labels its outcomes are quantities."""
    features = tuple(
        Feature(key=f"f{number}", title=f"f {number}", choices=column.choices, has_gaps=column.has_gaps)
        for number, column in enumerate(columns)
    )
    rows = np.column_stack([column.codes for column in columns])
    return Dataset("mixed", "made up", features, Target(title="answer", labels=tuple(labels)), rows, outcomes)


def oracle_of(
    columns: Sequence[Column], outcomes: NDArray[np.float64], *, labels: Sequence[str] = (), recipe: Recipe
) -> Oracle:
    """Train a model on the columns, and fit scikit-learn's pipeline on the same rows as they are in the table."""
    dataset = dataset_of(columns, outcomes, labels=labels)
    trained = fitting.fit(dataset, recipe)
    table = np.column_stack([column.cells for column in columns])
    learned, _ = train_test_split(
        np.arange(len(table)), test_size=recipe.test_size, random_state=recipe.seed,
        stratify=outcomes if labels else None,
    )  # fmt: skip
    pipeline = Pipeline([("columns", encoder_of(columns)), ("forest", clone(trained.estimator))])
    pipeline.fit(table[learned], outcomes[learned].astype(int) if labels else outcomes[learned])
    stored = modelfile.parse(modelfile.dump(writing.model_of(trained)))
    return Oracle(tuple(columns), trained, stored, table, pipeline)


def encoder_of(columns: Sequence[Column]) -> ColumnTransformer:
    """Return a transformer of one step a column, in their order: words to positions, numbers as they are."""

    def step(column: Column) -> Any:
        if not column.choices:
            return "passthrough"
        return OrdinalEncoder(
            categories=[np.array(column.choices, dtype=object)], handle_unknown="use_encoded_value",
            unknown_value=np.nan, encoded_missing_value=np.nan,
        )  # fmt: skip

    return ColumnTransformer([(f"c{number}", step(column), [number]) for number, column in enumerate(columns)])


def sample_of(cells: Sequence[Any]) -> list[Any]:
    """Return a row of cells as a client sends it."""
    return [value.item() if isinstance(value, np.generic) else value for value in cells]
