"""The compiled loop of `ml.model.shapley`: depth first through each tree, with the features of the path at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, boundscheck=False, error_model="numpy")
def shapley(
    roots: Any, feature: Any, left: Any, right: Any, share: Any, goes_left: Any, leaf: Any, leaves: Any,
    points: Any, weights: Any, depth: Any, values: Any,
) -> None:  # fmt: skip
    """Add to `values`, shape (n_features, n_outputs), the Shapley values of all trees."""
    n_features, n_outputs = values.shape
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
    for root in roots:
        level, length = 0, 0
        node_at[0], visited[0] = root, 0
        while level >= 0:
            node = node_at[level]
            if feature[node] < 0:
                _effects(points, weights, passes, shares, length, effects)
                for place in range(length):
                    for output in range(n_outputs):
                        values[features[place], output] += effects[place] * leaves[leaf[node], output]
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
