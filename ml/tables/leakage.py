"""Columns that give the target away, as one does that is only known afterwards (target leakage)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.tables.dataset import Feature, Target

# In fewer rows, or with fewer rows for each choice, it happens by chance.
MIN_ROWS = 30
MIN_ROWS_A_CHOICE = 5
# Another unit of the same quantity is off by rounding alone.
SAME_QUANTITY = 0.9999


def gives_away(feature: Feature, values: NDArray[np.float64], target: Target, outcomes: NDArray[np.float64]) -> bool:
    """Tell whether a feature alone determines the target in every row.

    Each of its choices has one class; or its numbers need one threshold between two classes, and no more; or they grow
    with the quantity as another unit of it does.

    Args:
        values: shape (n_rows,): of the feature; NaN for no value.
        outcomes: shape (n_rows,).
    """
    if len(values) < MIN_ROWS or np.isnan(values).any():
        return False
    if not target.labels:
        is_same = not feature.choices and np.ptp(values) > 0 and abs(np.corrcoef(values, outcomes)[0, 1])
        return bool(is_same > SAME_QUANTITY)
    if feature.choices:
        pairs = np.unique(values * len(target.labels) + outcomes)
        return len(pairs) == len(np.unique(values)) <= len(values) / MIN_ROWS_A_CHOICE
    order = np.argsort(values, kind="stable")
    changes = np.flatnonzero(np.diff(outcomes[order]))
    is_between = values[order][changes] < values[order][changes + 1]
    return len(changes) == len(np.unique(outcomes)) - 1 and bool(is_between.all())
