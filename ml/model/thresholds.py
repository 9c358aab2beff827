"""Numbers for people at a threshold: the shortest ones that lie on the right side of it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(4_096)
def shortest(low: float, high: float, *, near: float, step: float) -> float:
    """Return the number in `low < number <= high` with the fewest decimals, the nearest to `near` of these.

    Decimals start where they matter, at a hundredth of `step`.
    """
    for decimals in range(max(0, 2 - math.ceil(math.log10(step))), 18):
        unit = 10.0**-decimals
        for found in (round(near, decimals), round(near + unit, decimals), round(near - unit, decimals)):
            if low < found <= high:
                return found
    return math.nextafter(low, math.inf) if near == low else high


# The same number as float32 and as float64 has different neighbors, and different decimals.
@lru_cache(4_096, typed=True)
def edge(cut: np.floating[Any]) -> tuple[float, bool]:
    """Return the shorter of a cut and the next number, 1.7 rather than 1.6999999, and whether it is the cut."""
    own, after = number(cut), number(np.nextafter(cut, type(cut)(np.inf)))
    return (after, False) if len(repr(after)) < len(repr(own)) else (own, True)


@lru_cache(4_096, typed=True)
def number(cut: np.floating[Any]) -> float:
    """Return a cut as the shortest decimal that stands for it: 4.95, not 4.949999809."""
    return float(str(cut))
