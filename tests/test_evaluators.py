"""All evaluators beside a walk that reads like the definition: of any arithmetic that a library may have."""

from __future__ import annotations

import ctypes.util
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.model import links
from ml.model.cuts import Cuts
from ml.model.evaluators import compile_forest
from ml.model.forest import LEAF, Forest
from ml.model.links import LINKS, link_of, row_link_of
from ml.model.total import EXP_LINKS, PAIR_LINKS, Total
from ml.tables.dataset import Feature
from tests.builders import forest_of

N_CHOICES = 5
FEATURES = [
    Feature(key="kind", title="", choices=tuple("abcde"), has_gaps=True),
    Feature(key="size", title="", has_gaps=True),
    Feature(key="age", title=""),
]


def grown(rng: np.random.Generator, *, n_trees: int, n_values: int, **more: Any) -> Forest:
    """Return a forest of random trees; its category is compared by sets, its numbers by thresholds."""
    feature: list[int] = []
    left: list[int] = []
    right: list[int] = []
    values: list[NDArray[np.float32]] = []

    def grow(depth: int) -> int:
        node = len(feature)
        is_leaf = depth == 0 or (depth < 3 and rng.random() < 0.3)
        feature.append(LEAF if is_leaf else int(rng.integers(3)))
        left.append(LEAF)
        right.append(LEAF)
        if is_leaf:
            values.append(rng.normal(size=n_values).astype(np.float32))
        else:
            left[node], right[node] = grow(depth - 1), grow(depth - 1)
        return node

    roots = [grow(3) for _ in range(n_trees)]
    kinds = np.array(feature)
    n_nodes, has_set = len(feature), kinds == 0
    threshold = np.where((kinds == LEAF) | has_set, 0.0, rng.choice([*rng.normal(size=12), math.inf], n_nodes))
    threshold[(kinds == 2) & np.isinf(threshold)] = 0.1
    sets = rng.integers(0, 2**63, (6, 4)).astype(np.uint64)
    return forest_of(
        3, roots=roots, feature=feature, threshold=threshold, left=left, right=right, values=np.array(values),
        missing_left=(rng.random(n_nodes) < 0.5) & (kinds != LEAF) & ~has_set,
        set_of=np.where(has_set, rng.integers(0, 6, n_nodes), -1).astype(np.int32), sets=sets, **more,
    )  # fmt: skip


def sums_of(forest: Forest, row: Sequence[float]) -> list[float]:
    """Return the sums of a row as the definition of a forest has them."""
    assert forest.set_of is not None
    assert forest.sets is not None
    sums = forest.starts()
    leaf_of = np.cumsum(forest.feature == LEAF) - 1
    for tree, root in enumerate(forest.roots):
        node = int(root)
        while forest.feature[node] != LEAF:
            value, number = row[forest.feature[node]], forest.set_of[node]
            if number >= 0:
                cell = 0 if math.isnan(value) else 1 if value < 0 else 2 + int(value)
                goes_left = bool(int(forest.sets[number][cell // 64]) >> cell % 64 & 1)
            elif math.isnan(value):
                goes_left = bool(forest.missing_left[node])
            else:
                goes_left = bool(forest.dtype(value) <= forest.threshold[node])
            node = int((forest.left if goes_left else forest.right)[node])
        added = forest.values[leaf_of[node]].astype(sums.dtype)
        if forest.output_of is None:
            sums += added
        else:
            sums[forest.output_of[tree]] += added[0]
    return sums.tolist()  # type: ignore[no-any-return]  # a list of floats


def rows_for(forest: Forest, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    thresholds = forest.threshold[np.isfinite(forest.threshold)]
    beside = np.concatenate(
        [thresholds, np.nextafter(thresholds, 9), thresholds.astype(np.float32), rng.normal(size=9)]
    )
    rows = np.column_stack([rng.integers(-1, N_CHOICES, n), rng.choice(beside, n), rng.choice(beside, n)])
    rows[:, :2][rng.random((n, 2)) < 0.15] = np.nan
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("single_values", "single_sums"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize(("n_sums", "link"), [(1, "expit"), (3, "softmax"), (3, "softmax_sequential"), (1, "identity")])
def test_sums_of_trees_of_any_arithmetic_are_those_of_the_definition(
    seed: int, single_values: bool, single_sums: bool, n_sums: int, link: Any
) -> None:
    rng = np.random.default_rng(seed)
    total = Total(single_values=single_values, single_sums=single_sums, link=link)
    forest = grown(
        rng, n_trees=9, n_values=1, total=total, init=rng.normal(size=n_sums).astype(np.float32).astype(np.float64),
        output_of=rng.integers(0, n_sums, 9).astype(np.int32),
    )  # fmt: skip
    forest.check(is_quantity=link == "identity")
    check(forest, rows_for(forest, rng, 150))


@pytest.mark.slow
@pytest.mark.parametrize("single_values", [True, False])
def test_leaves_with_a_value_for_each_sum_are_added_like_the_definition(single_values: bool) -> None:
    rng = np.random.default_rng(7)
    forest = grown(rng, n_trees=8, n_values=3, total=Total(single_values=single_values, link="samme", divisor=3.7))
    forest.check()
    check(forest, rows_for(forest, rng, 150))


def check(forest: Forest, rows: NDArray[np.float64]) -> None:
    """Compare all evaluators with the definition, in batches and one by one."""
    expected = np.array([sums_of(forest, row) for row in rows.tolist()], dtype=forest.starts().dtype)
    answers = LINKS[forest.total.link](expected / forest.divisor)
    labels = [*"xyz"[: forest.n_outputs]] if forest.n_outputs > 1 else []
    for max_cells, compiles in ((10**6, True), (0, True), (0, False)):
        evaluator = compile_forest(
            forest, Cuts(forest, FEATURES), labels=labels, max_cells=max_cells, compiles=compiles
        )
        batch = evaluator.predict_batch(rows.astype(forest.dtype))

        assert np.array_equal(evaluator.sums(rows.astype(forest.dtype)), expected), (max_cells, compiles)
        assert np.array_equal(batch.outputs, answers), (max_cells, compiles)
        for row, outputs in zip(rows[:40].tolist(), batch.outputs.tolist(), strict=False):
            one = evaluator.predict(row)
            assert (one.probabilities or (one.value,)) == tuple(outputs), (max_cells, compiles)


@pytest.mark.slow
@pytest.mark.parametrize("has_own_sums", [True, False])
def test_rows_with_one_value_of_another_row_have_the_answers_of_such_rows(has_own_sums: bool) -> None:
    rng = np.random.default_rng(11)
    if has_own_sums:
        outputs = {"init": np.array([0.3, -0.1]), "output_of": rng.integers(0, 2, 8).astype(np.int32)}
        forest = grown(rng, n_trees=8, n_values=1, total=Total(link="softmax", single_values=False), **outputs)
    else:
        forest = grown(rng, n_trees=8, n_values=2, total=Total(link="identity"))
    rows, features = rows_for(forest, rng, 60).astype(forest.dtype), [2, 0]
    orders = np.stack([rng.permutation(60) for _ in range(3)])
    evaluator = compile_forest(forest, Cuts(forest, FEATURES), labels=["x", "y"], max_cells=0)
    assert evaluator.exchanges is not None

    found = np.stack([batch.outputs for batch in evaluator.exchanges(rows, features, orders)])

    for place, feature in enumerate(features):
        for number, order in enumerate(orders):
            changed = rows.copy()
            changed[:, feature] = rows[order, feature]
            assert np.array_equal(found[:, 3 * place + number], evaluator.predict_batch(changed).outputs)


@pytest.fixture
def without_c_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ctypes.util, "find_library", lambda _name: "there is none")
    links._expf.cache_clear()
    yield
    links._expf.cache_clear()


@pytest.mark.usefixtures("without_c_library")
@pytest.mark.parametrize("link", ["exp_single", "expit_single", "softmax_single"])
def test_without_the_exp_of_the_c_library_too_one_row_has_the_bits_of_many(link: Any) -> None:
    test_the_answers_of_one_row_have_the_bits_of_those_of_many(link, single_sums=True)


@pytest.mark.parametrize("single_sums", [True, False])
@pytest.mark.parametrize("link", LINKS)
def test_the_answers_of_one_row_have_the_bits_of_those_of_many(link: Any, single_sums: bool) -> None:
    rng, total = np.random.default_rng(5), Total(link=link, single_sums=single_sums)
    link_of_row = row_link_of(total)
    for n_sums in (1,) if link in (*PAIR_LINKS, *EXP_LINKS) else (2, 3, 7, 8, 10, 130):
        scale = 10.0 ** rng.integers(-3, 2 if link in EXP_LINKS else 3, (300, 1))
        sums: NDArray[np.floating[Any]] = rng.normal(size=(300, n_sums)) * scale
        if single_sums:
            sums = sums.astype(np.float32)

        assert [[*link_of_row(row)] for row in sums.tolist()] == link_of(total)(sums).tolist(), n_sums


@pytest.mark.parametrize(("sums", "shares"), [(-800.0, (1.0, 0.0)), (800.0, (0.0, 1.0)), (0.0, (0.5, 0.5))])
@pytest.mark.parametrize("link", ["expit", "half_logit", "expit_single"])
def test_a_sum_of_any_size_has_a_probability(link: Any, sums: float, shares: tuple[float, float]) -> None:
    dtype = np.float32 if link == "expit_single" else np.float64

    assert LINKS[link](np.array([[sums]], dtype=dtype))[0].tolist() == pytest.approx(shares, abs=1e-30)
