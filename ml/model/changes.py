"""What an explanation says: the ranges in which an answer stays, and its nearest change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

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
