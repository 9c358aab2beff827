"""Nodes that send two separate ranges of a number the same way: each becomes several nodes with one threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ml.errors import ForestError
from ml.estimators.divisions import Division
from ml.model.forest import LEAF, Forest

MAX_NODES = 4_000_000


@dataclass(frozen=True)
class _Known:
    """What the way to a node says about one feature: low < value <= high, or that it may have no value."""

    low: float = -np.inf
    high: float = np.inf
    may_lack: bool = True


_LACKING = _Known(low=np.inf)


@dataclass(frozen=True)
class _Place:
    """Where a node goes: the old node, its new parent and side, how its covers scale, and what is known there."""

    node: int
    parent: int
    is_left: bool
    scale: float
    known: Mapping[int, _Known]


def split_nodes(forest: Forest, several: Mapping[int, Division]) -> Forest:
    """Return a forest in which the nodes with a division of several ranges are replaced by nodes with one threshold.

    Raises:
        ForestError: it would have more than `MAX_NODES` nodes.
    """
    return _Splitting(forest, several).forest()


class _Splitting:
    def __init__(self, forest: Forest, several: Mapping[int, Division]) -> None:
        self._old, self._several = forest, several
        self._features = {int(forest.feature[node]) for node in several}
        self._nodes: list[int] = []  # the old node of each new one
        self._threshold: list[float] = []
        self._missing_left: list[bool] = []
        self._left: list[int] = []
        self._right: list[int] = []
        self._covers: list[float] = []
        self._feature, self._children = forest.feature.tolist(), (forest.right.tolist(), forest.left.tolist())
        self._cover = (np.ones(len(forest.feature)) if forest.covers is None else forest.covers).tolist()
        self._old_threshold, self._old_missing = forest.threshold.tolist(), forest.missing_left.tolist()

    def forest(self) -> Forest:
        roots = []
        for root in self._old.roots.tolist():
            roots.append(len(self._nodes))
            stack = [_Place(root, -1, False, 1.0, {})]
            while stack:
                stack.extend(self._emit(stack.pop()))
                if len(self._nodes) > MAX_NODES:
                    raise ForestError(
                        "KBinsDiscretizer(encode='onehot') makes the trees too large: encode='ordinal' would work"
                    )
        nodes = np.array(self._nodes)
        leaf_of = np.cumsum(self._old.feature == LEAF) - 1
        covers = None if self._old.covers is None else np.array(self._covers)
        return replace(
            self._old,
            roots=np.array(roots, dtype=np.int32),
            feature=self._old.feature[nodes],
            threshold=np.array(self._threshold),
            left=np.array(self._left, dtype=np.int32),
            right=np.array(self._right, dtype=np.int32),
            values=self._old.values[leaf_of[nodes[self._old.feature[nodes] == LEAF]]],
            missing_left=np.array(self._missing_left),
            covers=covers,
            set_of=None if self._old.set_of is None else self._old.set_of[nodes],
        )

    def _add(self, place: _Place, *, threshold: float, missing_left: bool, cover: float) -> int:
        number = len(self._nodes)
        if place.parent >= 0:
            (self._left if place.is_left else self._right)[place.parent] = number
        self._nodes.append(place.node)
        self._threshold.append(threshold)
        self._missing_left.append(missing_left)
        self._left.append(LEAF)
        self._right.append(LEAF)
        self._covers.append(cover)
        return number

    def _emit(self, place: _Place) -> Iterator[_Place]:
        """Add the nodes that an old one becomes, and yield the places of its children."""
        node, feature = place.node, self._feature[place.node]
        cover = self._cover[node] * place.scale
        if feature not in self._features:
            number = self._add(
                place, threshold=self._old_threshold[node], missing_left=self._old_missing[node], cover=cover
            )
            if feature != LEAF:
                for is_left in (False, True):
                    yield _Place(self._children[is_left][node], number, is_left, place.scale, place.known)
            return
        division = self._several.get(node)
        if division is None:
            end = self._old_threshold[node]
            ends = (end,) if np.isfinite(end) else ()
            division = Division(ends, True, self._old_missing[node])
        yield from self._emit_divided(place, division, cover)

    def _emit_divided(self, place: _Place, division: Division, cover: float) -> Iterator[_Place]:
        node, feature = place.node, self._feature[place.node]
        known = place.known.get(feature, _Known())
        ranges = _ranges(division, known)
        sides = {side for _, _, side in ranges} | ({division.missing_left} if known.may_lack else set())
        if len(sides) == 1:
            # All that come here go one way: the child takes the node's place.
            (side,) = sides
            child = self._children[side][node]
            yield _Place(child, place.parent, place.is_left, cover / self._cover[child], place.known)
            return
        if len(ranges) == 1:
            # Values go one way, and only no value goes the other.
            ((low, high, side),) = ranges
            number = self._add(place, threshold=high, missing_left=False, cover=cover)
            yield _Place(self._children[not side][node], number, False, place.scale, {**place.known, feature: _LACKING})
            valued = {**place.known, feature: _Known(low, high, may_lack=False)}
            yield _Place(self._children[side][node], number, True, place.scale, valued)
            return
        counts = {side: sum(other == side for *_, other in ranges) for side in sides}
        total = sum(self._cover[self._children[side][node]] for side in sides)
        rest = cover
        for low, high, side in ranges:
            child = self._children[side][node]
            lacks = known.may_lack and division.missing_left == side
            share = cover * self._cover[child] / counts[side] / total
            inside = {**place.known, feature: _Known(low, high, lacks)}
            going = _Place(child, place.parent, place.is_left, share / self._cover[child], inside)
            if high < ranges[-1][1]:
                number = self._add(place, threshold=high, missing_left=lacks, cover=rest)
                going = replace(going, parent=number, is_left=True)
                place = replace(place, parent=number, is_left=False)
                rest -= share
            yield going


def _ranges(division: Division, known: _Known) -> list[tuple[float, float, bool]]:
    """Return the ranges of the division that are possible: low < value <= high, and whether it goes left."""
    bounds = [-np.inf, *division.ends, np.inf]
    found = []
    for position, (low, high) in enumerate(pairwise(bounds)):
        low, high = max(low, known.low), min(high, known.high)  # noqa: PLW2901
        if low < high:
            found.append((low, high, division.first_left != bool(position % 2)))
    return found
