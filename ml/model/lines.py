"""The sums of leaves along each feature through one row: where they can change, and the intervals between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lines:
    """The sums of leaves along each feature through a row.

    Attributes:
        first: shape (n_features + 1,): feature j has the cuts from `first[j]` up to before `first[j + 1]`.
        cuts: shape (n_cuts,), ascending within a feature: where the sums can change along it.
        sums: shape (n_sums, n_cuts + n_features): those up to each cut of a feature and beyond its last one, from
            `first[j] + j` on.
    """

    first: NDArray[np.intp]
    cuts: NDArray[np.floating[Any]]
    sums: NDArray[np.floating[Any]]


def intervals(
    features: NDArray[np.int32],
    lows: NDArray[np.floating[Any]],
    highs: NDArray[np.floating[Any]],
    n_features: int,
    sums: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.intp], NDArray[np.intp], Lines]:
    """Return the intervals in which each branch starts and before which it stops, and lines of these sums all along."""
    ends = np.stack([lows, highs])
    is_cut = np.isfinite(ends)
    of, cuts = np.broadcast_to(features, ends.shape)[is_cut], ends[is_cut]
    order = np.lexsort((cuts, of))
    of, cuts = of[order], cuts[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (of[1:] != of[:-1]) | (cuts[1:] != cuts[:-1])
    # Each feature has an interval more than cuts.
    after = np.empty(len(order), dtype=np.intp)
    after[order] = np.cumsum(is_new) + of
    first = np.searchsorted(of[is_new], np.arange(n_features + 1))
    starts, stops = first[features] + features, first[features + 1] + features + 1
    n_lows = np.count_nonzero(is_cut[0])
    starts[is_cut[0]], stops[is_cut[1]] = after[:n_lows], after[n_lows:]
    cuts = cuts[is_new]
    return starts, stops, Lines(first, cuts, np.repeat(sums[:, None], len(cuts) + n_features, axis=1))
