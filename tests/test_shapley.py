"""What each feature adds to an answer: the definition over all coalitions, and the sum that is the answer."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.model.contributions import Shapley, contributions
from ml.model.forest import LEAF, Forest
from ml.model.loaded import LoadedModel
from tests.conftest import EVALUATORS, for_each
from tests.pipelines import sample_of
from tests.test_mixed_tables import oracle
from tests.test_nearest import digits, digits_path  # noqa: F401  # fixtures

# In the scale of the answer.
TOLERANCE = 1e-12


def forest_of(model: LoadedModel) -> Forest:
    assert isinstance(model.predictor, Forest)
    return model.predictor


def expected(model: LoadedModel, ranks: Sequence[int], known: frozenset[int]) -> NDArray[np.float64]:
    """Return the mean answer where only some features are known: the weight of training rows decides the others."""
    forest, cuts = forest_of(model), model.cuts
    assert forest.covers is not None
    leaf_of = np.cumsum(forest.feature == LEAF) - 1
    total: NDArray[np.float64] = np.zeros(forest.n_outputs)
    for root in forest.roots.tolist():
        waiting = [(root, 1.0)]
        while waiting:
            node, weight = waiting.pop()
            feature, children = int(forest.feature[node]), (int(forest.left[node]), int(forest.right[node]))
            if feature == LEAF:
                total += weight * forest.values[leaf_of[node]]
            elif feature in known:
                is_left = cuts.node_first[node] <= ranks[feature] <= cuts.node_rank[node]
                waiting.append((children[not is_left], weight))
            else:
                waiting += [(child, weight * forest.covers[child] / forest.covers[node]) for child in children]
    return total / forest.n_trees


def by_definition(model: LoadedModel, row: Sequence[float]) -> NDArray[np.float64]:
    """Return the Shapley values, shape (n_features, n_outputs), by looking at every coalition of features."""
    ranks, n = model.cuts.ranks_of(row), len(row)
    coalitions = [frozenset(c) for size in range(n + 1) for c in itertools.combinations(range(n), size)]
    worth = {known: expected(model, ranks, known) for known in coalitions}
    values = np.zeros((n, forest_of(model).n_outputs))
    for feature in range(n):
        for known in coalitions:
            if feature not in known:
                weight = math.factorial(len(known)) * math.factorial(n - len(known) - 1) / math.factorial(n)
                values[feature] += weight * (worth[known | {feature}] - worth[known])
    return values


@pytest.mark.parametrize("compiles", [False, True], ids=["NumPy", "compiled"])
def test_contributions_are_the_shapley_values_of_all_coalitions(model: LoadedModel, *, compiles: bool) -> None:
    made = Shapley(forest_of(model), model.cuts, compiles=compiles)

    for row in model.reference_rows[::40].tolist():
        assert made.of(model.cuts.ranks_of(row)) == pytest.approx(by_definition(model, row), abs=TOLERANCE)


def test_threads_that_ask_first_at_the_same_time_leave_the_answers_as_they_are(model: LoadedModel) -> None:
    ranks = [model.cuts.ranks_of(row) for row in model.reference_rows[:4].tolist()]
    expected = Shapley(forest_of(model), model.cuts, compiles=False).of(ranks[0])

    for _ in range(20):
        made, at_once = Shapley(forest_of(model), model.cuts, compiles=False), threading.Barrier(len(ranks))
        with ThreadPoolExecutor(len(ranks), initializer=at_once.wait) as threads:
            list(threads.map(made.of, ranks))
        assert np.array_equal(made.of(ranks[0]), expected)


@for_each("kind", ["words and numbers", "gaps in words and numbers", "many columns"])
@for_each("evaluator", EVALUATORS)
@for_each("quantity", [False, True])
def test_base_and_contributions_are_the_answer(kind: str, evaluator: str, *, quantity: bool) -> None:
    found = oracle(kind, 0, "random-forest", quantity=quantity)
    model = found.model(evaluator)
    scale = max(1.0, float(np.abs(forest_of(model).values).max()))

    for cells in found.questions(np.random.default_rng(0), 5).tolist():
        row = model.validator.row(sample_of(cells))
        answer = model.predict(row)
        for index, output in enumerate([answer.value] if quantity else answer.probabilities):
            divided = contributions(model, row, index)
            assert divided is not None
            assert divided.scale == ("quantity" if quantity else "probability")
            assert divided.base + math.fsum(divided.values) == pytest.approx(output, abs=TOLERANCE * scale)


def test_a_feature_that_no_tree_uses_adds_nothing(digits: LoadedModel) -> None:  # noqa: F811
    unused = [feature for feature, size in enumerate(digits.cuts.sizes) if not size]
    divided = contributions(digits, [feature.example for feature in digits.features], 0)

    assert unused
    assert divided is not None
    assert not any(divided.values[feature] for feature in unused)
