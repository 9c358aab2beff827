"""How a node that compares a column divides the values of the feature that the column is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError
from ml.model.design import FUNCTIONS, DesignColumn, Operation
from ml.tables.dataset import Feature
from ml.tables.numbers import LARGEST

Values = NDArray[np.float64]
# A function of NumPy may not be monotone by an ulp: so many numbers on each side of a threshold are looked at.
NEIGHBOURS = 256
# Where a function begins to have a value.
STARTS = {"log": 5e-324, "log2": 5e-324, "log10": 5e-324, "log1p": -1.0 + 2.0**-53, "sqrt": 0.0}


@dataclass(frozen=True)
class Division:
    """Which values of a number go left at a node.

    Attributes:
        ends: ascending; the values up to the first one go one way, those up to the next one the other, and so on.
        first_left: whether the first ones go left.
        missing_left: whether no value goes left.
    """

    ends: tuple[float, ...]
    first_left: bool
    missing_left: bool


def lowest_of(columns: Sequence[DesignColumn], feature: int) -> float | None:
    """Return the smallest value for which all of the columns made of a feature have one; None if any is."""
    names = (c.operations[0].name for c in columns if c.feature == feature and c.operations and not c.table)
    return max((STARTS[name] for name in names if name in STARTS), default=None)


def divisions(
    column: DesignColumn, feature: Feature, goes_left: Callable[[Values], NDArray[np.bool_]], n_nodes: int
) -> list[Division]:
    """Return the divisions of nodes that compare one column of a number.

    Args:
        goes_left: which of the nodes send a value of the column left: shape (n_nodes,) of values in and out.

    Raises:
        ForestError: a function among the operations is not monotone.
    """
    missing = goes_left(np.repeat(column.values(np.array([np.nan])), n_nodes))
    if column.is_missing:
        present = goes_left(np.repeat(column.values(np.zeros(1)), n_nodes))
        return [Division((), *sides) for sides in zip(present.tolist(), missing.tolist(), strict=True)]
    low = -LARGEST if feature.minimum is None else max(feature.minimum, -LARGEST)
    high = LARGEST if feature.maximum is None else min(feature.maximum, LARGEST)

    def at(values: Values) -> NDArray[np.bool_]:
        return goes_left(column.values(values))

    edges = _bin_ends(column.operations, low, high)
    lows, highs = np.full(n_nodes, low), np.full(n_nodes, high)
    if edges is None:
        ends = _ends(at, lows, highs)
        if any(operation.name in FUNCTIONS for operation in column.operations):
            _check_monotone(at, ends, lows, highs)
        runs: list[tuple[float, ...]] = [(end,) if end < high else () for end in ends.tolist()]
        firsts = at(lows).tolist()
    else:
        sides = np.stack([at(np.full(n_nodes, value)) for value in (*edges, high)], axis=1).tolist()
        runs = [tuple(e for e, (a, b) in zip(edges, pairwise(side), strict=True) if a != b) for side in sides]
        firsts = [side[0] for side in sides]
    return [Division(*parts) for parts in zip(runs, firsts, missing.tolist(), strict=True)]


def _bin_ends(operations: tuple[Operation, ...], low: float, high: float) -> list[float] | None:
    """Return the last value of each bin but the last one, if the column is 1 in a single bin; else it is monotone."""
    names = [operation.name for operation in operations]
    if "equals" not in names:
        return None
    binned = DesignColumn(feature=0, operations=operations[: names.index("equals")])
    n_edges = len(operations[names.index("bin")].numbers) if "bin" in names else 0
    limits = np.arange(n_edges)
    ends = _ends(lambda values: binned.values(values) <= limits, np.full(n_edges, low), np.full(n_edges, high))
    return sorted({end for end in ends.tolist() if low <= end < high})


def _ends(at: Callable[[Values], NDArray[np.bool_]], lows: Values, highs: Values) -> Values:
    """Return the last of the floats from `lows` to `highs` that go the way of the first one, by bisection.

    Where all go one way, that is the highest one.
    """
    first = at(lows)
    low, high = _order_of(lows), _order_of(highs)
    is_one = at(highs) == first
    low = np.where(is_one, high, low)
    # Neither the difference of both nor their sum may be taken: it could overflow.
    while np.any(low + 1 < high):
        middle = (low & high) + ((low ^ high) >> 1)
        is_same = at(_float_of(middle)) == first
        low, high = np.where(is_same & ~is_one, middle, low), np.where(is_same | is_one, high, middle)
    return _float_of(low)


def _check_monotone(at: Callable[[Values], NDArray[np.bool_]], ends: Values, lows: Values, highs: Values) -> None:
    """Raise an error if a value near one of the ends goes another way than those beyond it."""
    first, order = at(lows), _order_of(ends)
    for distance in range(1, NEIGHBOURS):
        before, after = _float_of(order - distance), _float_of(order + distance)
        if np.any((at(before) != first) & (before >= lows)) or np.any((at(after) == first) & (after <= highs)):
            raise ForestError("a function of a FunctionTransformer is not monotone around a threshold on this machine")


def _order_of(values: Values) -> NDArray[np.int64]:
    """Return integers in the order of floats: neighbours are neighbours."""
    bits = np.asarray(values, dtype=np.float64).view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _float_of(order: NDArray[np.int64]) -> Values:
    bits = np.where(order < 0, np.int64(-(2**63)) - order, order)
    return np.ascontiguousarray(bits).view(np.float64)
