"""Compiled loops over the trees of a forest that explain an answer: see `ml.model.kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ml.model.kernels import FEATURE_BITS, step

# A tree's greatest depth (`ml.model.forest.MAX_DEPTH`), and one more.
_DEEPEST = 1_001


@njit(nogil=True, boundscheck=False, error_model="numpy")
def shapley(
    roots: Any, feature: Any, left: Any, right: Any, share: Any, goes_left: Any, leaf: Any, leaves: Any,
    sum_of: Any, points: Any, weights: Any, depth: Any, values: Any,
) -> None:  # fmt: skip
    """Add to `values`, shape (n_features, n_sums), the Shapley values of all trees: see `ml.model.contributions`."""
    n_features = len(values)
    # By level: the node, how many of its children were visited, the place of its feature on the path, and what was
    # known of that feature before.
    node_at = np.empty(depth + 1, dtype=np.int64)
    visited = np.empty(depth + 1, dtype=np.int8)
    place_at = np.empty(depth + 1, dtype=np.int64)
    passes_before, share_before = np.empty(depth + 1), np.empty(depth + 1)
    # By place on the path.
    features = np.empty(depth + 1, dtype=np.int64)
    passes, shares = np.empty(depth + 1), np.empty(depth + 1)
    place_of = np.full(n_features, -1, dtype=np.int64)
    effects = np.empty(depth + 1)
    for tree in range(len(roots)):
        level, length = 0, 0
        node_at[0], visited[0] = roots[tree], 0
        while level >= 0:
            node = node_at[level]
            if feature[node] < 0:
                _effects(points, weights, passes, shares, length, effects)
                for place in range(length):
                    for output in range(leaves.shape[1]):
                        values[features[place], sum_of[tree] + output] += effects[place] * leaves[leaf[node], output]
                level -= 1
                continue
            own = feature[node]
            if visited[level] == 0:
                place = place_of[own]
                place_at[level] = place
                if place < 0:
                    place = length
                    length += 1
                    place_of[own], features[place] = place, own
                    passes[place], shares[place] = 1.0, 1.0
                passes_before[level], share_before[level] = passes[place], shares[place]
            place = place_of[own]
            if visited[level] == 2:
                passes[place], shares[place] = passes_before[level], share_before[level]
                if place_at[level] < 0:
                    place_of[own] = -1
                    length -= 1
                level -= 1
                continue
            is_left = visited[level] == 0
            child = left[node] if is_left else right[node]
            passes[place] = passes_before[level] if goes_left[node] == is_left else 0.0
            shares[place] = share_before[level] * share[child]
            visited[level] += 1
            level += 1
            node_at[level], visited[level] = child, 0


@njit(inline="always")
def _effects(points: Any, weights: Any, passes: Any, shares: Any, length: Any, effects: Any) -> None:
    """Set the effect of each feature of a path on the weight of its leaf."""
    effects[:length] = 0.0
    for point in range(points.shape[1]):
        t, whole = points[length, point], weights[length, point]
        if whole == 0.0:
            break
        for place in range(length):
            whole *= t * passes[place] + (1 - t) * shares[place]
        for place in range(length):
            effects[place] += whole / (t * passes[place] + (1 - t) * shares[place])
    for place in range(length):
        effects[place] *= passes[place] - shares[place]


@njit(nogil=True, boundscheck=False, error_model="numpy")
def branches(
    nodes: Any, roots: Any, leaf_of: Any, row: Any, own: Any, features: Any, trees: Any, lows: Any, highs: Any,
    found: Any,
) -> Any:  # fmt: skip
    """Find where each tree would lead if a single value of a row, shape (n_features,), were another one.

    Writes the leaf of each tree into `own`, and for each other leaf that some value of a single feature leads to: the
    feature, the tree, the thresholds between which the value then lies, above `lows` and up to `highs`, and the leaf.
    Returns how many there are; only so many are written as fit.
    """
    # Between these the values of a feature lead to the present node.
    least, most = np.full(len(row), -np.inf, row.dtype), np.full(len(row), np.inf, row.dtype)
    waiting = np.empty(_DEEPEST, np.int64)
    waiting_ends = np.empty((_DEEPEST, 2), row.dtype)
    count = 0
    for tree in range(len(roots)):
        at = np.int64(roots[tree])
        while nodes[at].children:
            node = nodes[at]
            feature, threshold = node.feature & FEATURE_BITS, node.threshold
            right = row[feature] > threshold
            # The other side is for other values of this feature alone.
            low, high = (least[feature], threshold) if right else (threshold, most[feature])
            waiting[0], waiting_ends[0, 0], waiting_ends[0, 1] = at + node.children + np.int64(not right), low, high
            depth = np.int64(low < high)
            while depth:
                below, low, high, depth = _descend(nodes, row, feature, waiting, waiting_ends, depth - 1)
                if count < len(found):
                    features[count], trees[count], lows[count], highs[count] = feature, tree, low, high
                    found[count] = leaf_of[below]
                count += 1
            least[feature] = max(least[feature], threshold) if right else least[feature]
            most[feature] = most[feature] if right else min(most[feature], threshold)
            at += node.children + np.int64(right)
        own[tree] = leaf_of[at]
        least[:] = -np.inf
        most[:] = np.inf
    return count


@njit(inline="always")
def _descend(nodes: Any, row: Any, feature: Any, waiting: Any, ends: Any, depth: Any) -> Any:
    """Return the leaf below a waiting node, with the values of a feature that lead there; the others wait."""
    at, low, high = waiting[depth], ends[depth, 0], ends[depth, 1]
    while nodes[at].children:
        node = nodes[at]
        child = at + node.children
        if node.feature & FEATURE_BITS != feature:
            at = child + np.int64(row[node.feature & FEATURE_BITS] > node.threshold)
        elif node.threshold <= low:
            at = child + 1
        elif node.threshold >= high:
            at = child
        else:
            waiting[depth], ends[depth, 0], ends[depth, 1] = child + 1, node.threshold, high
            depth += 1
            at, high = child, node.threshold
    return at, low, high, depth


@njit(nogil=True, boundscheck=False, error_model="numpy")
def along(leaves: Any, own: Any, trees: Any, starts: Any, stops: Any, found: Any, output_of: Any, sums: Any) -> None:
    """Add to `sums`, shape (n_sums, n), the leaf values of all trees in each of n intervals.

    From the interval `starts[i]` up to before `stops[i]` the tree `trees[i]`, ascending, has the leaf `found[i]`;
    elsewhere each tree has its own. By output, the loops over intervals are those of vectors.
    """
    branch = 0
    values = np.empty(sums.shape[1], sums.dtype)
    for tree in range(len(own)):
        first = branch
        while branch < len(trees) and trees[branch] == tree:
            branch += 1
        place = 0 if output_of is None else output_of[tree]
        for output in range(leaves.shape[1]):
            values[:] = leaves[own[tree], output]
            for other in range(first, branch):
                values[starts[other] : stops[other]] = leaves[found[other], output]
            sums[place + output] += values


@njit(nogil=True, boundscheck=False, error_model="numpy")
def exchange(
    nodes: Any, roots: Any, leaf_of: Any, leaves: Any, row: Any, place_of: Any, others: Any, sums: Any, gaps: Any,
    sets: Any, output_of: Any,
) -> None:  # fmt: skip
    """Add to `sums`, shape (n_sums, n_places * n_others), the leaf values of all trees for a row, shape (n_features,),
    whose value of one feature is another one.

    Those of feature j are `others[place_of[j]]`, shape (n_places, n_others); it has none if its place is below 0. A
    tree leads elsewhere only if the row meets the feature on its way: of 500 features some ten.
    """
    n_others, n_values = others.shape[1], leaves.shape[1]
    met_in = np.full(len(row), -1, np.int64)
    changed = np.empty((sums.shape[1], 2), np.int64)
    before = np.empty((sums.shape[1], n_values), sums.dtype)
    for tree in range(len(roots)):
        first = 0 if output_of is None else output_of[tree]
        at, count = np.uint64(roots[tree]), 0
        while nodes[at].children:
            feature = nodes[at].feature & FEATURE_BITS
            if met_in[feature] != tree and place_of[feature] >= 0:
                met_in[feature] = tree
                for other in range(n_others):
                    below = _leaf_below(nodes, at, row, feature, others[place_of[feature], other], gaps, sets)
                    changed[count, 0], changed[count, 1] = place_of[feature] * n_others + other, leaf_of[below]
                    count += 1
            at += step(nodes[at], row[feature], gaps, sets)
        for number in range(count):
            for value in range(n_values):
                before[number, value] = sums[first + value, changed[number, 0]]
        for value in range(n_values):
            sums[first + value] += leaves[leaf_of[at], value]
        for number in range(count):
            for value in range(n_values):
                sums[first + value, changed[number, 0]] = before[number, value] + leaves[changed[number, 1], value]


@njit(inline="always")
def _leaf_below(nodes: Any, at: Any, row: Any, feature: Any, value: Any, gaps: Any, sets: Any) -> Any:
    """Return the leaf that a row leads to from a node, with another value of one feature."""
    moved = np.uint64(1)
    while moved:
        node = nodes[at]
        own = node.feature & FEATURE_BITS
        moved = step(node, value if own == feature else row[own], gaps, sets)
        at += moved
    return at
