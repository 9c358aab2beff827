"""The cuts of a forest: the sorted values of each feature at which its answer can change.

scikit-learn's trees cast a row to float32 and compare it with float64 thresholds, `float32(value) <= threshold`. The
largest float32 not above a threshold, its *cut*, decides the same way for every row, and so does, for a value that was
not cast yet, the largest float64 that rounds to the cut or below it, its *bound*. Where a library compares float64, a
threshold is cut and bound at once.

A feature that may lack a value has one cut more, below all of its values: what is not a number is not above any cut,
so that no value has rank 0 and the smallest value rank 1. A category that is compared by sets has a cut between any two
of its cells: the rank of a value is its cell.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.card import TrainedFeature
from ml.model.forest import LEAF, Forest
from ml.tables.dataset import Feature

# Counting comparisons beats a binary search as long as one SIMD pass over few cuts is cheaper than the search's
# mispredicted branches: measured on 4,096 random rows, 0.012 against 0.09 us a row at 4 x 25 cuts.
MAX_COUNTED_CUTS = 128
# Of each number of a model without cuts: its pictures are some 340 units wide.
EVEN_CUTS = 113
# Below the position of the first choice, and above the -1 that stands for a word which is not among the choices.
BELOW_CHOICES = -0.5


def cut_below(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 not above each threshold, same shape."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
        return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def cut_of(forest: Forest, nodes: NDArray[np.integer]) -> NDArray[np.floating[Any]]:
    """Return the largest value that goes left at each of these nodes, in the type that the forest compares."""
    thresholds = forest.threshold[nodes]
    return cut_below(thresholds) if forest.total.single_values else thresholds


def bound_of(cuts: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the largest float64 that casts to each cut or below it, same shape.

    The middle between a float32 and the next one rounds to the even one of the two (IEEE 754, ties to even).
    """
    if cuts.dtype != np.float32:
        return cuts.astype(np.float64)
    with np.errstate(over="ignore"):
        above = np.nextafter(cuts, np.float32(np.inf)).astype(np.float64)
        # The cast to infinity starts half a step beyond the largest float32, as if 2**128 came next.
        above = np.where(np.isinf(above), 2.0**128, above)
        below = np.where(np.isneginf(cuts), -(2.0**128), cuts.astype(np.float64))
        middle = (below + above) / 2
        return np.where(middle.astype(np.float32) <= cuts, middle, np.nextafter(middle, -np.inf))


class Cuts:
    """The cuts of each feature, and the rank of a value among them.

    The rank is the number of cuts below the value: 0 to `sizes[j]`, so a feature falls into `sizes[j] + 1` intervals
    `(cut[rank - 1], cut[rank]]`, in each of which the forest's answer does not depend on that feature any further.

    Args:
        features: those that a row has values of; without them none may lack a value, and none is a category.

    Attributes:
        values: one ascending array a feature, in the type that the forest compares.
        node_first: shape (n_nodes,), int32: a row goes left at an inner node where its rank is at least this, and at
            most `node_rank`; 1 where a row without a value goes right, else 0.
        has_missing: by feature, whether rank 0 means no value.
        categories: the features of which -1 is no value, too.
    """

    def __init__(self, forest: Forest, features: Sequence[Feature] = ()) -> None:
        values = []
        self.dtype = forest.dtype
        self._forest = forest
        self.node_first = np.zeros(len(forest.feature), dtype=np.int32)
        by_sets = forest.set_features()
        may_lack = {place for place, feature in enumerate(features) if feature.choices or feature.has_gaps}
        for place, nodes in enumerate(_nodes_by_feature(forest)):
            if place in by_sets:
                values.append(_cell_cuts(len(features[place].choices), forest.dtype))
                continue
            cuts = np.unique(cut_of(forest, nodes))
            # A threshold above all numbers is not a cut: every rank is below it.
            cuts = cuts[: np.searchsorted(cuts, np.inf)]
            if place in may_lack and len(nodes):
                least = BELOW_CHOICES if features[place].choices else -np.inf
                cuts = np.concatenate([np.array([least], dtype=cuts.dtype), cuts])
                self.node_first[nodes] = ~forest.missing_left[nodes]
            values.append(cuts)
        self.values: tuple[NDArray[np.floating[Any]], ...] = tuple(values)
        self.has_missing = tuple(place in may_lack and len(cuts) > 0 for place, cuts in enumerate(values))
        self.categories = tuple(
            place for place, feature in enumerate(features) if feature.choices and place not in by_sets
        )
        self._has_choices = [bool(feature.choices) for feature in features] or [False] * forest.n_features
        self._columns = [cuts[:, None] for cuts in values]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of cuts of each feature."""
        return tuple(len(cuts) for cuts in self.values)

    @cached_property
    def features(self) -> tuple[int, ...]:
        """The features that have cuts: no other one influences any answer."""
        return tuple(feature for feature, cuts in enumerate(self.values) if len(cuts))

    def rank(self, feature: int, value: float) -> int:
        """Return the rank of one float64, exactly as if it had been cast to `dtype`."""
        return bisect_left(self.bounds[feature], value)

    def ranks_of(self, row: Sequence[float]) -> list[int]:
        """Return the rank of each value of one row of float64."""
        return list(map(bisect_left, self.bounds, row))

    @cached_property
    def bounds(self) -> Sequence[Sequence[float]]:
        """The ascending float64 bounds of each feature, for callers that search them in place."""
        return [bound_of(cuts).tolist() for cuts in self.values]

    @cached_property
    def node_rank(self) -> NDArray[np.int32]:
        """Shape (n_nodes,): a row goes left at an inner node where its rank is at most this."""
        ranks = np.zeros(len(self._forest.feature), dtype=np.int32)
        by_sets = self._forest.set_features()
        for place, nodes in enumerate(_nodes_by_feature(self._forest)):
            if place not in by_sets:
                ranks[nodes] = np.searchsorted(self.values[place], cut_of(self._forest, nodes))
        return ranks

    def ranks(self, feature: int, column: NDArray[np.floating[Any]]) -> NDArray[np.integer]:
        """Return the rank of each value of a contiguous column of `dtype`, same shape."""
        if len(self.values[feature]) <= MAX_COUNTED_CUTS:
            above = column > self._columns[feature]
            counts: NDArray[np.uint8] = above.view(np.uint8).sum(axis=0, dtype=np.uint8)
            return counts
        ranks = np.searchsorted(self.values[feature], column)
        if self.has_missing[feature]:
            ranks[np.isnan(column)] = 0
        return ranks

    def between(self, feature: int, value: float) -> NDArray[np.floating[Any]]:
        """Return one value of each interval between the feature's cuts: the interval's last one, NaN for no value.

        Without cuts that is the given value.
        """
        cuts = self.values[feature]
        if not len(cuts):
            return np.array([value], dtype=cuts.dtype)
        # Below all values lies the cut that stands for no value.
        lasts: NDArray[np.floating[Any]] = np.where(np.isneginf(cuts), np.nan, cuts)
        if self._has_choices[feature]:
            lasts = np.floor(np.append(lasts, cuts[-1] + 1))
            return lasts
        return np.append(lasts, np.nextafter(cuts[-1], cuts.dtype.type(np.inf)))


def _nodes_by_feature(forest: Forest) -> list[NDArray[np.intp]]:
    """Return the nodes that compare each feature."""
    inner = np.flatnonzero(forest.feature != LEAF)
    features = forest.feature[inner]
    order = np.argsort(features.astype(np.int16), kind="stable")  # numbers of 16 bits are sorted in linear time
    return np.split(inner[order], np.cumsum(np.bincount(features, minlength=forest.n_features))[:-1])


def _cell_cuts(n_choices: int, dtype: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the cuts between the cells of a category: no value, a word that is not among the choices, each choice."""
    return np.array([-np.inf, *(position - 0.5 for position in range(n_choices))], dtype=dtype)


class EvenCuts(Cuts):
    """Marks along each feature for a model without cuts, whose answer changes everywhere: a picture looks there.

    A number has them at even distances over its training range, a category between its choices.

    Args:
        used: the features that influence an answer.
    """

    def __init__(self, features: Sequence[TrainedFeature], used: Collection[int]) -> None:
        values: list[NDArray[np.floating[Any]]] = []
        for place, feature in enumerate(features):
            cuts: NDArray[np.floating[Any]] = np.empty(0)
            if feature.choices:
                cuts = np.arange(len(feature.choices)) - 0.5
            elif place in used:
                lowest = [-np.inf] if feature.has_gaps else []
                cuts = np.array([*lowest, *np.unique(np.linspace(feature.low, feature.high, EVEN_CUTS))])
            values.append(cuts if place in used else np.empty(0))
        self.values = tuple(values)
        self.dtype = np.float64
        self.has_missing = tuple(
            len(cuts) > 0 and bool(feature.choices or feature.has_gaps)
            for feature, cuts in zip(features, values, strict=True)
        )
        self.categories = tuple(place for place, feature in enumerate(features) if feature.choices)
        self._has_choices = [bool(feature.choices) for feature in features]
        self._columns = [cuts[:, None] for cuts in values]

    def between(self, feature: int, value: float) -> NDArray[np.floating[Any]]:
        """Return one value of each interval between the marks: the middle of a number's interval."""
        marks = self.values[feature][np.isfinite(self.values[feature])]
        if self._has_choices[feature] or len(marks) < 2:
            return super().between(feature, value)
        step = marks[1] - marks[0]
        middles = np.append(marks, marks[-1] + step) - step / 2
        return np.append(np.nan, middles) if self.has_missing[feature] else middles

    def ranks_of(self, row: Sequence[float]) -> list[int]:
        """Return a number for each value of one row of float64 that no other value has: its bits."""
        return [*struct.unpack(f"<{len(row)}q", struct.pack(f"<{len(row)}d", *row))]
