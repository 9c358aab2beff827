"""What each feature adds to an answer, whatever the model: parts of a linear model's score, or path-dependent Shapley
values of trees.

A tree's answer to a row of which only some features are known is the mean over the leaves that the known ones allow,
weighted by the training rows that came by; the Shapley value of a feature is its mean effect over all orders in which
the features become known (Lundberg et al., "From local explanations to global understanding with explainable AI for
trees", 2020). A leaf is reached with weight `o * v`, the product over the features of its path: `o` is 1 where the row
passes all of a feature's nodes, else 0, and `z` is the share of training rows that do. The mean over all orders is the
integral over t, from 0 to 1, of products of `t * o + (1 - t) * z`: a polynomial, which Gauss's quadrature integrates
exactly with half as many points as the path has features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.model import compiled
from ml.model.cuts import Cuts
from ml.model.forest import LEAF, Forest
from ml.model.linear import Linear
from ml.model.loaded import LoadedModel
from ml.model.total import EXP_LINKS

Array = NDArray[np.float64]
AnswerScale = Literal["probability", "log_odds", "quantity", "log_quantity"]
Method = Literal["path_dependent_shapley", "linear"]
Obstacle = Literal["calibrated", "median", "vote", "no covers"]
# Why a model's answers are not divided among features: the rest of a sentence.
OBSTACLES: dict[Obstacle, str] = {
    "calibrated": "its probabilities are calibrated, and no sum of what each feature adds",
    "median": "its answer is a median of trees, and no sum of what each feature adds",
    "vote": "its answer is a mean of models that do not add up in one scale",
    "no covers": "its file, of format 1, does not say how many training rows came by its nodes: export or train anew",
}
# Nodes on the paths to leaves that NumPy reads together; of a forest with no more, the paths are kept.
_PIECE = 1_000_000
_OWN_RULES = 64


@dataclass(frozen=True, slots=True)
class Divided:
    """An answer divided among the features of its row.

    Attributes:
        base: the answer to what is usual in training, in this scale: the mean answer of trees, the answer of a linear
            model to the means of its columns.
        values: what each feature adds to it; base and values together are the answer.
        scale: that of base and values. Log odds are those of the label, or of several labels their scores, whose
            softmax the probabilities are.
    """

    method: Method
    scale: AnswerScale
    base: float
    values: Sequence[float]


def contributions(model: LoadedModel, row: Sequence[float], index: int) -> Divided | None:
    """Return what each feature adds to the answer to `row` with the label at `index`; 0 for a quantity.

    None for a model with an obstacle: see `obstacle`.
    """
    predictor = model.predictor
    if obstacle(model):
        return None
    if isinstance(predictor, Linear):
        method: Method = "linear"
        scale: AnswerScale = "quantity" if predictor.link == "identity" else "log_odds"
        assert model.scores is not None
        base, values = model.scores.contributions(np.array(row))
    else:
        made = model.made(_shapley_of)
        method, scale = "path_dependent_shapley", _scale_of(predictor)
        base, values = made.base, made.of(model.cuts.ranks_of(row))
        if predictor.total.members:
            shares = model.made(_shares_of)
            base, values = base @ shares, values @ shares
    sign = 1.0
    if len(base) == 1 and model.labels:  # the only sum is that of the second label
        sign, index = (1.0 if index else -1.0), 0
    if isinstance(predictor, Forest) and predictor.total.link in ("half_logit", "samme"):
        # A sum of one is half the log odds; several are divided before the softmax.
        sign *= 2.0 if len(base) == 1 else 1 / (len(base) - 1)
    return Divided(method, scale, sign * float(base[index]), (sign * values[:, index]).tolist())


def obstacle(model: LoadedModel) -> Obstacle | None:
    """Return why `contributions` has nothing to say of a model; None if it has."""
    predictor = model.predictor
    if isinstance(predictor, Linear):
        return "calibrated" if predictor.link == "calibrated" else None
    total = predictor.total
    if any(member.curves for member in total.members):
        return "calibrated"
    if total.link == "median":
        return "median"
    if total.members and not total.is_mean:
        return "vote"
    return None if predictor.covers is not None else "no covers"


def _scale_of(forest: Forest) -> AnswerScale:
    link = forest.total.link
    if forest.total.is_mean:
        return "probability" if forest.n_outputs > 1 else "quantity"
    if link in EXP_LINKS:
        return "log_quantity"
    return "quantity" if link == "identity" else "log_odds"


def _shares_of(model: LoadedModel) -> NDArray[np.float64]:
    """Return how much of each sum of a vote of means is in each answer, shape (n_sums, n_answers)."""
    assert isinstance(model.predictor, Forest)
    members = model.predictor.total.members
    parts = [np.eye(member.n_sums) * (member.weight / member.divisor) for member in members]
    return np.concatenate(parts) / sum(member.weight for member in members)


def _shapley_of(model: LoadedModel) -> Shapley:
    assert isinstance(model.predictor, Forest)
    return Shapley(model.predictor, model.cuts, compiles=model.compiles)


class Shapley:
    """Divides the answers of one forest among the features.

    Attributes:
        base: shape (n_sums,): the mean sums of the training rows.
    """

    def __init__(self, forest: Forest, cuts: Cuts, *, compiles: bool = True) -> None:
        assert forest.covers is not None
        self._forest, self._cuts = forest, cuts
        inner = np.flatnonzero(forest.feature != LEAF)
        self._share, self._parent = np.ones(len(forest.feature)), np.full(len(forest.feature), -1, dtype=np.int32)
        for children in (forest.left, forest.right):
            self._share[children[inner]] = forest.covers[children[inner]] / forest.covers[inner]
            self._parent[children[inner]] = inner
        is_leaf = forest.feature == LEAF
        self._leaf = (np.cumsum(is_leaf) - 1).astype(np.int32)
        self._depth = 0
        reach = np.ones(len(forest.feature))
        for self._depth, level in enumerate(forest.levels()):
            nodes = level[~is_leaf[level]]
            for children in (forest.left, forest.right):
                reach[children[nodes]] = reach[nodes] * self._share[children[nodes]]
        self._values = np.ascontiguousarray(forest.values, dtype=np.float64)
        none = np.zeros(forest.n_trees, dtype=np.int32)
        self._sum_of = none if forest.output_of is None else forest.output_of
        tree_of = np.searchsorted(forest.roots, np.flatnonzero(is_leaf), side="right") - 1
        self.base: Array = forest.starts().astype(np.float64)
        for place in range(self._values.shape[1]):
            self.base += np.bincount(
                self._sum_of[tree_of] + place, reach[is_leaf] * self._values[:, place], minlength=forest.n_sums
            )
        self.base /= forest.divisor
        self._code = compiled.kernels() if compiles else None
        self._kept: list[_Paths] = []

    def of(self, ranks: Sequence[int]) -> Array:
        """Return what each feature adds to the base, shape (n_features, n_sums), for a row with these ranks."""
        forest = self._forest
        rank = np.array(ranks)[np.maximum(forest.feature, 0)]
        goes_left = (self._cuts.node_first <= rank) & (rank <= self._cuts.node_rank)
        if forest.set_of is not None and forest.sets is not None:
            by_set = np.flatnonzero(forest.set_of >= 0)
            cells = rank[by_set]
            words = forest.sets[forest.set_of[by_set], cells // 64]
            goes_left[by_set] = words >> (cells % 64).astype(np.uint64) & np.uint64(1) != 0
        values = np.zeros((forest.n_features, forest.n_sums))
        if self._code is not None:
            points, weights = _rules(min(self._depth, forest.n_features))
            self._code.explanations.shapley(
                forest.roots, forest.feature, forest.left, forest.right, self._share, goes_left, self._leaf,
                self._values, self._sum_of, points, weights, self._depth, values,
            )  # fmt: skip
        else:
            for paths in self._kept or self._pieces():
                paths.add(goes_left, values)
        return values / forest.divisor

    def _pieces(self) -> Iterator[_Paths]:
        leaves = np.flatnonzero(self._forest.feature == LEAF).astype(np.int32)
        leaves = leaves[self._parent[leaves] >= 0]  # that of a tree of one node says nothing of any feature
        size = max(1, _PIECE // max(1, self._depth))
        for start in range(0, len(leaves), size):
            some = leaves[start : start + size]
            paths = _Paths(self._forest, self._parent, self._share, some, self._parts(some))
            if size >= len(leaves):
                self._kept = [paths]  # not added: threads may get here together
            yield paths

    def _parts(self, leaves: NDArray[np.int32]) -> Array:
        """Return what leaves add to each sum, shape (n, n_sums)."""
        tree_of = np.searchsorted(self._forest.roots, leaves, side="right") - 1
        values = self._values[self._leaf[leaves]]
        parts = np.zeros((len(leaves), self._forest.n_sums))
        columns = self._sum_of[tree_of][:, None] + np.arange(values.shape[1])
        np.put_along_axis(parts, columns, values, axis=1)
        return parts


class _Paths:
    """The paths from roots to some leaves, feature by feature."""

    def __init__(
        self,
        forest: Forest,
        parent: NDArray[np.int32],
        share: Array,
        leaves: NDArray[np.int32],
        values: Array,
    ) -> None:
        path = np.arange(len(leaves))
        steps = []
        node, above = leaves, parent[leaves]
        while len(node):
            steps.append((path, above, forest.left[above] == node, share[node]))
            is_inner = parent[above] >= 0
            node, path = above[is_inner], path[is_inner]
            above = parent[node]
        path, nodes, is_left, shares = (np.concatenate(part) for part in zip(*steps, strict=True))
        order = np.lexsort((forest.feature[nodes], path))
        path, feature = path[order], forest.feature[nodes[order]]
        self._nodes, self._is_left = nodes[order], is_left[order]
        is_first = np.ones(len(path), dtype=bool)  # of its feature on its path
        is_first[1:] = (path[1:] != path[:-1]) | (feature[1:] != feature[:-1])
        self._starts = np.flatnonzero(is_first)
        self._shares: Array = np.multiply.reduceat(shares[order], self._starts)
        self._path, self._feature = path[is_first], feature[is_first]
        self._path_starts = np.searchsorted(self._path, np.arange(len(leaves)))
        self._values = values
        self._points = int(np.bincount(self._path).max() + 1) // 2

    def add(self, goes_left: NDArray[np.bool_], values: Array) -> None:
        """Add the effects of these paths to `values`, shape (n_features, n_sums)."""
        passes = np.logical_and.reduceat(goes_left[self._nodes] == self._is_left, self._starts).astype(np.float64)
        effects = np.zeros(len(passes))
        for point, weight in zip(*_quadrature(self._points), strict=True):
            terms = point * passes + (1 - point) * self._shares
            effects += (weight * np.multiply.reduceat(terms, self._path_starts))[self._path] / terms
        effects *= passes - self._shares
        for output in range(values.shape[1]):
            added = effects * self._values[self._path, output]
            values[:, output] += np.bincount(self._feature, added, minlength=len(values))


@cache
def _quadrature(size: int) -> tuple[Array, Array]:
    """Return so many points between 0 and 1, and their weights: exact for polynomials of a degree below 2 * size."""
    points, weights = np.polynomial.legendre.leggauss(size)
    return (points + 1) / 2, weights / 2


@cache
def _rules(n_features: int) -> tuple[Array, Array]:
    """Return the quadratures of paths of 0 to `n_features` features, one a row; 0 behind the points of the short ones.

    Beyond `_OWN_RULES` all have the one of the longest path: there are few such paths, and many points to find.
    """
    sizes = [(length + 1) // 2 or 1 for length in range(n_features + 1)]
    longest = sizes[-1]
    points, weights = np.zeros((len(sizes), longest)), np.zeros((len(sizes), longest))
    for length, size in enumerate(sizes):
        own = size if length <= _OWN_RULES else longest
        points[length, :own], weights[length, :own] = _quadrature(own)
    return points, weights
