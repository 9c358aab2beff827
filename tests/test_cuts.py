"""Cuts and bounds: every comparison stays exact in float32 and in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.model.cuts import MAX_COUNTED_CUTS, Cuts, bound_of, cut_below
from ml.model.forest import LEAF, Forest
from ml.tables.numbers import LARGEST
from tests.builders import forest_of
from tests.conftest import for_each

FLOAT32_MAX = float(np.finfo(np.float32).max)
TINY32 = 2.0**-149

finite = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Where rounding to float32 turns: the exact middle of two neighbours.
middles = singles.map(lambda x: (x + float(np.nextafter(np.float32(x), np.float32(0)))) / 2)
thresholds = st.one_of(finite, singles, middles, st.floats(-10, 10))


def float32(value: float) -> np.float32:
    """Return the value cast as NumPy and scikit-learn cast it; too large becomes infinite."""
    with np.errstate(over="ignore"):
        return np.float64(value).astype(np.float32)


def cut_of(threshold: float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(cut_below(np.array([threshold]))[0])


def bound(cut: np.float32) -> float:
    return float(bound_of(np.array([cut], dtype=np.float32))[0])


def stumps(*features: Sequence[float]) -> Forest:
    """Return a forest with one tree of two leaves for each threshold of each feature."""
    pairs = [(feature, threshold) for feature, values in enumerate(features) for threshold in values]
    n = len(pairs)
    feature, threshold = np.full(3 * n, LEAF, dtype=np.int32), np.zeros(3 * n)
    left, right = np.full(3 * n, LEAF, dtype=np.int32), np.full(3 * n, LEAF, dtype=np.int32)
    roots = np.arange(0, 3 * n, 3, dtype=np.int32)
    feature[roots] = [f for f, _ in pairs]
    threshold[roots] = [t for _, t in pairs]
    left[roots], right[roots] = roots + 1, roots + 2
    forest = forest_of(
        len(features), roots=roots, feature=feature, threshold=threshold, left=left, right=right,
        values=np.tile([[1.0, 0.0], [0.0, 1.0]], (n, 1)),
    )  # fmt: skip
    forest.check()
    return forest


EXTREMES = [
    0.0, -0.0, 5e-324, -5e-324, 1e-300, -1e-300, TINY32, -TINY32, TINY32 / 2, -TINY32 / 2, TINY32 * 1.5, 2.0**-126,
    2.0**-127, 0.1, -0.1, 0.8, 2.45, 1.0, 1 + 2.0**-24, 1 + 2.0**-23, 1 + 3 * 2.0**-24, 2.0**24 + 1, FLOAT32_MAX,
    -FLOAT32_MAX, LARGEST, -LARGEST, math.nextafter(LARGEST, math.inf), 2.0**128, -(2.0**128), 1e300, -1e300,
    float(np.finfo(np.float64).max), -float(np.finfo(np.float64).max),
]  # fmt: skip


@for_each("threshold", EXTREMES)
def test_an_extreme_threshold_decides_like_its_cut_and_its_bound(threshold: float) -> None:
    cut = cut_of(threshold)
    limit = bound(cut)

    for point in (threshold, limit, float(cut), *EXTREMES):
        for value in (point, math.nextafter(point, -math.inf), math.nextafter(point, math.inf)):
            if abs(value) <= LARGEST:
                goes_left = bool(float32(value).astype(np.float64) <= threshold)
                assert bool(float32(value) <= cut) == goes_left, value
                assert bool(value <= limit) == goes_left, value


@for_each("threshold", [value for value in EXTREMES if value not in (-FLOAT32_MAX, -LARGEST)])
def test_an_extreme_threshold_is_cut_without_a_warning(threshold: float) -> None:
    with np.errstate(all="warn", under="ignore"):
        cut = cut_below(np.array([threshold]))

        assert np.isfinite(bound_of(cut)).all()


@pytest.mark.parametrize("threshold", [-FLOAT32_MAX, -LARGEST])
def test_the_lowest_thresholds_are_cut_without_a_warning(threshold: float) -> None:
    with np.errstate(all="warn", under="ignore"):
        cut = cut_below(np.array([threshold]))

        assert np.isfinite(bound_of(cut)).all()


@given(threshold=thresholds)
@example(threshold=1e300)
@example(threshold=-1e300)
@example(threshold=-TINY32 / 2)
def test_a_cut_is_the_largest_float32_not_above_its_threshold(threshold: float) -> None:
    cut = cut_of(threshold)

    assert cut.dtype == np.float32
    assert float(cut) <= threshold
    with np.errstate(over="ignore"):
        assert float(np.nextafter(cut, np.float32(np.inf))) > threshold


@given(cut=st.one_of(singles, st.just(-np.inf)))
@example(cut=FLOAT32_MAX)
@example(cut=-FLOAT32_MAX)
@example(cut=0.0)
@example(cut=-0.0)
@example(cut=TINY32)
def test_a_bound_is_the_largest_float64_that_casts_to_its_cut_or_below(cut: float) -> None:
    limit = bound(np.float32(cut))

    assert np.isfinite(limit)
    assert float32(limit) <= np.float32(cut)
    assert float32(math.nextafter(limit, math.inf)) > np.float32(cut)


@given(threshold=thresholds, other=st.one_of(finite, singles, middles), steps=st.integers(-3, 3))
def test_a_cast_value_is_below_a_threshold_just_when_the_value_is_below_the_bound(
    threshold: float, other: float, steps: int
) -> None:
    limit = bound(cut_of(threshold))

    for start in (threshold, limit, other):
        value = start
        for _ in range(abs(steps)):
            value = math.nextafter(value, math.copysign(math.inf, steps))
        if abs(value) <= LARGEST:
            assert (float(float32(value)) <= threshold) == (value <= limit)


@given(values=st.lists(thresholds, min_size=1, max_size=20))
def test_arrays_of_thresholds_are_cut_one_by_one(values: list[float]) -> None:
    with np.errstate(over="ignore"):
        cuts = cut_below(np.array(values))

    assert cuts.dtype == np.float32
    assert cuts.tolist() == [float(cut_of(value)) for value in values]
    assert bound_of(cuts).tolist() == [bound(cut) for cut in cuts]


@given(
    values=st.lists(thresholds, min_size=1, max_size=12),
    column=st.lists(st.floats(-LARGEST, LARGEST), min_size=1, max_size=12),
)
def test_the_rank_of_a_value_is_the_rank_of_its_float32_in_a_column(values: list[float], column: list[float]) -> None:
    with np.errstate(over="ignore"):
        cuts = Cuts(stumps(values))
    near = [float(b) for b in cuts.bounds[0]] + [math.nextafter(b, math.inf) for b in cuts.bounds[0]]
    near = [value for value in column + near if abs(value) <= LARGEST]

    ranks = cuts.ranks(0, np.array(near).astype(np.float32))

    assert [cuts.rank(0, value) for value in near] == ranks.tolist()


@given(values=st.lists(thresholds, min_size=1, max_size=12), value=st.floats(-LARGEST, LARGEST))
def test_a_row_goes_left_at_a_node_just_when_its_rank_is_at_most_the_nodes(values: list[float], value: float) -> None:
    forest = stumps(values)
    with np.errstate(over="ignore"):
        cuts = Cuts(forest)

    for root in forest.roots:
        goes_left = float(float32(value)) <= forest.threshold[root]
        assert (cuts.rank(0, value) <= cuts.node_rank[root]) == goes_left


# On both sides of the change from counting to searching, and of what a counter of 8 bits can hold.
@pytest.mark.parametrize("size", [0, 1, 2, 127, 128, 129, 254, 255, 256, 257, 1_000])
def test_counted_and_searched_ranks_are_the_number_of_cuts_below(size: int) -> None:
    rng = np.random.default_rng(size)
    values = np.unique(rng.normal(size=2 * size).astype(np.float32))[:size].astype(np.float64)
    cuts = Cuts(stumps([0.5], values.tolist()))
    edges = np.concatenate([cuts.values[1], rng.normal(size=500), [0.0, -0.0, -FLOAT32_MAX, FLOAT32_MAX]])
    column = edges.astype(np.float32)
    column = np.concatenate([column, np.nextafter(column[:-1], np.float32(np.inf)), np.nextafter(column[:-2], 0)])
    assert cuts.sizes == (1, size)

    ranks = cuts.ranks(1, column)

    assert ranks.tolist() == [sum(cut < value for cut in cuts.values[1].tolist()) for value in column.tolist()]
    assert [cuts.rank(1, value) for value in column.tolist()] == ranks.tolist()


def test_both_ways_to_rank_are_in_use() -> None:
    assert 128 <= MAX_COUNTED_CUTS <= 255, "the sizes above no longer lie on both sides of it, or uint8 overflows"


def test_a_rank_can_be_multiplied_by_a_stride_without_overflow() -> None:
    cuts = Cuts(stumps(np.arange(120).tolist()))

    cells = cuts.ranks(0, np.full(3, 1e6, dtype=np.float32)) * np.int32(10_000)

    assert cells.tolist() == [1_200_000] * 3


def test_thresholds_between_the_same_two_float32_share_a_cut() -> None:
    near = [1.0, 1.0 + 2.0**-30, 1.0 + 2.0**-24]

    cuts = Cuts(stumps(near))

    assert cuts.sizes == (1,)
    assert cuts.values[0].tolist() == [1.0]


def test_both_zeros_are_one_cut() -> None:
    cuts = Cuts(stumps([0.0, -0.0, 5e-324]))
    column: NDArray[np.float32] = np.array([-0.0, 0.0, TINY32], dtype=np.float32)

    assert cuts.sizes == (1,)
    assert cuts.ranks(0, column).tolist() == [0, 0, 1]
    assert [cuts.rank(0, value) for value in (-0.0, 0.0, 5e-324, TINY32)] == [0, 0, 0, 1]
