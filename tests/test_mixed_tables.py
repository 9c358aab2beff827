"""Words, gaps and quantities against scikit-learn's own pipeline on the words: `==` on every float64, never nearly."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.model.card import Recipe
from ml.model.cuts import Cuts
from ml.model.decision_table import DecisionTable
from ml.model.evaluators import compile_forest
from ml.model.forest import LEAF
from tests.conftest import EVALUATORS
from tests.pipelines import Column, Oracle, numbers, oracle_of, sample_of, words

Estimator = Literal["random-forest", "extra-trees", "decision-tree"]
ESTIMATORS: tuple[Estimator, ...] = ("random-forest", "extra-trees", "decision-tree")
N_ROWS = 240
QUESTIONS = 250
LABELS = ("no", "perhaps", "yes")
COLORS = ("blue", "green", "red")
TOWNS = tuple(f"town {number:02}" for number in range(20))


def table_of(kind: str, rng: np.random.Generator) -> list[Column]:
    """Return the columns of one kind of table."""
    match kind:
        case "words and numbers":
            return [words(rng, N_ROWS, COLORS), numbers(rng, N_ROWS), words(rng, N_ROWS, TOWNS)]
        case "gaps in words and numbers":
            return [
                words(rng, N_ROWS, COLORS, gaps=0.2),
                numbers(rng, N_ROWS, gaps=0.3),
                numbers(rng, N_ROWS, gaps=0.02),
            ]
        case "rare words":
            return [words(rng, N_ROWS, TOWNS, rare=0.1), words(rng, N_ROWS, COLORS, gaps=0.1, rare=0.1)]
        case "only whether there is a value":
            lone = words(rng, N_ROWS, ("a word",), gaps=0.4)
            return [numbers(rng, N_ROWS, gaps=0.5, distinct=1, scale=56.0), lone, numbers(rng, N_ROWS, scale=1e-30)]
        case "no value at all":
            empty = Column(np.full(N_ROWS, None), has_gaps=True)
            wordless = Column(np.full(N_ROWS, None), ("a", "b"), has_gaps=True)
            return [empty, numbers(rng, N_ROWS, gaps=0.1), wordless]
        case _:
            wide = [numbers(rng, N_ROWS, gaps=float(rng.choice([0.0, 0.2])), scale=10.0 ** rng.integers(-3, 4))
                    for _ in range(5)]  # fmt: skip
            return [*wide, words(rng, N_ROWS, TOWNS, gaps=0.1, rare=0.05), words(rng, N_ROWS, ("no", "yes"))]


KINDS = (
    "words and numbers", "gaps in words and numbers", "rare words", "only whether there is a value",
    "no value at all", "many columns",
)  # fmt: skip


def outcomes_of(columns: list[Column], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return numbers that depend on every column, on whether its cells have a value as well, and on chance."""
    codes = np.column_stack([column.codes for column in columns])
    spread = np.nanmax(codes, axis=0, initial=0) + 1e-30
    parts = np.where(np.isnan(codes), 1.3, codes / spread) * rng.normal(size=codes.shape[1])
    return np.asarray(parts.sum(axis=1) + rng.normal(0, 0.3, len(codes)))


@cache
def oracle(kind: str, seed: int, estimator: Estimator, *, quantity: bool) -> Oracle:
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    columns = table_of(kind, rng)
    outcomes = outcomes_of(columns, rng)
    recipe = Recipe(estimator=estimator, n_estimators=12, max_depth=4 + 2 * (seed % 2), seed=seed)
    if quantity:
        return oracle_of(columns, outcomes * 1_000, recipe=recipe)
    classes = np.searchsorted(np.quantile(outcomes, [0.3, 0.6]), outcomes)
    return oracle_of(columns, classes.astype(np.float64), labels=LABELS, recipe=recipe)


def assert_same(found: Oracle, rng: np.random.Generator) -> None:
    """Ask every evaluator what the pipeline is asked, one by one and in batches."""
    table = found.questions(rng, QUESTIONS)
    answers = found.answers(table)
    expected = list(map(tuple, answers.tolist()))
    for evaluator in EVALUATORS:
        model = found.model(evaluator)
        rows = [model.validator.row(sample_of(cells)) for cells in table.tolist()]
        batch = model.predict_batch(np.array(rows))
        assert np.array_equal(batch.outputs, answers), evaluator
        for several in (1, 2, 9):
            assert np.array_equal(model.predict_batch(np.array(rows[:several])).outputs, answers[:several]), evaluator
        for predictions in (list(map(model.predict, rows)), model.predict_each(np.array(rows, dtype=np.float32))):
            assert [one.probabilities or (one.value,) for one in predictions] == expected, evaluator
            assert [one.index for one in predictions] == batch.indices.tolist() == answers.argmax(axis=1).tolist()
            if model.labels:
                assert [one.label for one in predictions] == [LABELS[index] for index in batch.indices]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("quantity", [False, True], ids=["classes", "quantity"])
def test_every_evaluator_has_the_pipelines_answers(kind: str, estimator: Estimator, *, quantity: bool) -> None:
    assert_same(oracle(kind, 0, estimator, quantity=quantity), np.random.default_rng(1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_every_evaluator_has_the_pipelines_answers_on_any_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = []
    for _ in range(rng.integers(1, 7)):
        gaps, choices = float(rng.choice([0, 0.05, 0.5, 0.95])), TOWNS[: rng.integers(1, 21)]
        if rng.random() < 0.5:
            columns.append(words(rng, N_ROWS, choices, gaps=gaps, rare=float(rng.choice([0, 0.2]))))
        else:
            columns.append(numbers(rng, N_ROWS, gaps=gaps, distinct=int(rng.choice([1, 2, 200]))))
    outcomes = outcomes_of(columns, rng)
    recipe = Recipe(
        estimator=ESTIMATORS[seed % 3], n_estimators=int(rng.integers(1, 40)), max_depth=[None, 3][seed % 2],
        min_samples_leaf=int(rng.choice([1, 5])), seed=seed, balanced_class_weight=seed % 5 == 0,
    )  # fmt: skip
    if seed % 4 == 0:
        found = oracle_of(columns, outcomes, recipe=recipe)
    else:
        classes = np.searchsorted(np.quantile(outcomes, [0.2, 0.6]), outcomes)
        found = oracle_of(columns, classes.astype(np.float64), labels=LABELS, recipe=recipe)

    assert_same(found, rng)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_few_columns_fit_into_a_decision_table(kind: str) -> None:
    found = oracle(kind, 0, "random-forest", quantity=False)

    assert DecisionTable.fits(found.stored.forest, found.model().cuts) == (kind != "many columns")


@pytest.mark.parametrize("kind", KINDS)
def test_the_questions_show_on_which_side_of_a_node_a_row_without_a_value_goes(kind: str) -> None:
    found = oracle(kind, 0, "random-forest", quantity=False)
    model, forest = found.model(), found.stored.forest
    table = found.questions(np.random.default_rng(1), QUESTIONS)
    rows = np.array([model.validator.row(sample_of(cells)) for cells in table.tolist()])
    other = replace(forest, missing_left=~forest.missing_left & (forest.feature != LEAF))

    turned = compile_forest(other, Cuts(other, model.features), labels=LABELS, max_cells=10**6)

    differs = (turned.predict_batch(rows.astype(np.float32)).outputs != model.predict_batch(rows).outputs).any(axis=1)
    assert differs.mean() > 0.1


def test_a_threshold_of_infinity_tells_rows_without_a_value_apart() -> None:
    found = oracle("only whether there is a value", 0, "random-forest", quantity=False)

    assert np.isposinf(found.stored.forest.threshold).any()
    assert any(np.isneginf(cuts).any() for cuts in found.model().cuts.values)
