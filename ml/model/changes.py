"""What an explanation says: the ranges in which an answer stays, its nearest change, and short numbers for both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import msgspec
import numpy as np

Direction = Literal["rises above", "rises to", "falls to", "falls below", "is"]


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one feature for which the label stays, all other features held.

    It stays for `low < value <= high`; None is no end. `searched_all` is False when the search was limited, and the
    label may stay beyond the ends as well. A category has the positions of the choices for which it stays instead.
    Where the row has no value, a number has no ends, and is not searched.
    """

    feature: str
    low: float | None
    high: float | None
    searched_all: bool
    choices: tuple[int, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """The nearest change of a single feature that changes the label.

    What is near is measured in training ranges; another choice is as far away as a whole one (Gower, "A general
    coefficient of similarity", 1971).

    The page needs one with every key: a struct is made in a tenth of the time of a frozen dataclass.

    Attributes:
        feature: its key.
        direction: the movement of the value: past `threshold`, or to it. Of the last number before the change and the
            first one after it, the shorter one is the threshold. A category *is* another choice.
        value: a short number beyond the threshold that gives the new label; the position of the choice.
        label: the new label.
    """

    feature: str
    direction: Direction
    threshold: float
    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The ranges in which the label of one row stays, feature by feature, and the nearest change of the label."""

    label: str
    ranges: tuple[Range, ...]
    nearest: Change | None
    searched_all: bool


@lru_cache(4_096)
def shortest(low: float, high: float, *, near: float, step: float) -> float:
    """Return the number in `low < number <= high` with the fewest decimals, the nearest to `near` of these.

    Decimals start where they matter, at a hundredth of `step`.
    """
    for decimals in range(max(0, 2 - math.ceil(math.log10(step))), 18):
        unit = 10.0**-decimals
        nearest = round(near, decimals)
        for found in (nearest, round(nearest + unit, decimals), round(nearest - unit, decimals)):
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
