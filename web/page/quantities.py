"""A predicted quantity: its digits, its unit, the levels of its color scale, and its place in the training span."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ml.model.card import Card, QuantityReport
from ml.model.quantity import Quantity
from ml.tables.dataset import Target
from ml.tables.numbers import NotANumber, number_of, shown_number, without_marks
from web.page.axes import ticks_of
from web.page.languages import Language, with_unit

# A sequential scale has this many shades, the first and the last of which are always used.
SHADES = 8
# The strip is drawn in so many units; the training span lies between its margins.
STRIP_WIDTH, STRIP_MARGIN = 400, 6
# Between groups of three digits of a number that the page shows, or that is typed so.
_DIVIDED = re.compile(r"(?<=\d)\s(?=\d{3}(?!\d))")
# Two digits of the error: what is finer than that is noise.
ERROR_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Shade:
    """One level of the color scale: position and width of its part, and its tone."""

    x: str
    width: str
    tone: int


@dataclass(frozen=True, slots=True)
class QuantityStrip:
    """The training span of a quantity: its levels, its ends, and the path of ticks at the training rows' deciles."""

    shades: Sequence[Shade]
    low: str
    high: str
    deciles: str


@dataclass(frozen=True, slots=True)
class Legend:
    """The levels side by side, all of the same width, and positions and texts of the values between them."""

    shades: Sequence[Shade]
    ticks: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class QuantityView:
    """A predicted quantity.

    `exact` is the value with all its digits, `text` the number as it is shown, `interval` a sentence and `ends` the
    short form of it; `needle` is the position of the value on the strip, `band` the path of the interval there. What is
    said of the interval is empty where there is none.
    """

    exact: str
    text: str
    unit: str
    interval: str
    ends: str
    needle: str
    band: str
    pinned: tuple[str, str]


class QuantityScale:
    """Writes, colors and places the quantities that one model predicts, in one language.

    Attributes:
        goal: a round value that some training rows reach and most do not, to ask for at first.
        breaks: the values between its levels, ascending.
    """

    def __init__(self, quantity: Quantity, target: Target, report: QuantityReport | None, language: Language) -> None:
        self._quantity = quantity
        self._language = language
        self.unit = target.unit
        span = quantity.high - quantity.low
        error = report.mean_absolute_error if report else 0.0
        if not 0 < error < math.inf:
            error = span / 1000 or abs(quantity.high) / 1000 or 1.0
        self._decimals = min(max(ERROR_DIGITS - 1 - math.floor(math.log10(error)), -15), 15)
        self.breaks = _breaks(quantity)
        self.goal = round(_quantile(quantity, 0.7), self._decimals - 1) + 0.0

    def read(self, typed: str) -> float | None:
        """Return the goal that was typed, with its unit or without, and thousands as the page divides them.

        None for anything else.
        """
        try:
            goal = number_of(_DIVIDED.sub("", without_marks(typed, unit=self.unit, decimal=".", thousands="")))
        except NotANumber:
            return None
        return goal if math.isfinite(goal) else None

    def number(self, value: float) -> str:
        """Return a quantity with the digits that its error leaves meaningful."""
        decimals = max(0, self._decimals)
        if abs(value) >= 1e15:
            return self._language.number(float(f"{value:.6g}"))
        return self._language.grouped(f"{round(value, self._decimals) + 0.0:.{decimals}f}")

    def text(self, value: float) -> str:
        """Return such a number with its unit."""
        return with_unit(self.number(value), self.unit)

    def exact(self, value: float) -> str:
        """Return all digits of a quantity, with its unit."""
        return with_unit(self._language.grouped(shown_number(value)), self.unit)

    def levels(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the level of each value, same shape: 0 for the lowest."""
        return np.searchsorted(self.breaks, values, side="right")

    def levels_of(self, values: Sequence[float]) -> list[int]:
        """Return the level of each value."""
        levels: list[int] = self.levels(np.array(values)).tolist()
        return levels

    def tone(self, level: int) -> int:
        """Return the shade of a level."""
        return round(level * (SHADES - 1) / max(1, len(self.breaks)))

    def position(self, value: float) -> float:
        """Return the position of a value on the strip; those outside the training span are beyond its ends."""
        low, high = self._quantity.low, self._quantity.high
        share = (value - low) / (high - low) if high > low else 0.5
        inside = STRIP_WIDTH - 2 * STRIP_MARGIN
        return min(max(STRIP_MARGIN + share * inside, 1.0), STRIP_WIDTH - 1.0)

    def strip(self) -> QuantityStrip:
        """Return the strip without a value on it."""
        quantity = self._quantity
        return QuantityStrip(
            self._shades([self.position(end) for end in (quantity.low, *self.breaks, quantity.high)]),
            self.number(quantity.low),
            self.text(quantity.high),
            "".join(f"M{self.position(value):.1f} 0v6" for value in quantity.quantiles[1:-1]),
        )

    def legend(self) -> Legend:
        """Return the legend of the color scale."""
        count = len(self.breaks) + 1
        ends = [STRIP_WIDTH * end / count for end in range(count + 1)]
        texts = [self._language.grouped(shown_number(value)) for value in self.breaks]
        return Legend(self._shades(ends), [(f"{x:.1f}", text) for x, text in zip(ends[1:], texts, strict=False)])

    def _shades(self, ends: Sequence[float]) -> Sequence[Shade]:
        return [
            Shade(f"{left:.1f}", f"{right - left:.1f}", self.tone(level))
            for level, (left, right) in enumerate(pairwise(ends))
        ]

    def view(self, value: float, pinned: float | None = None) -> QuantityView:
        """Return the view of a predicted value, and of that of a pinned sample."""
        interval, to = self._quantity.interval, self._language
        view = QuantityView(
            exact=repr(value), text=self.number(value), unit=self.unit, interval="", ends="",
            needle=f"{self.position(value):.1f}", band="",
            pinned=("", "") if pinned is None else (f"{self.position(pinned):.1f}", self.text(pinned)),
        )  # fmt: skip
        if interval is None:
            return view
        low, high = interval.around(value)
        shown = {"low": self.number(low), "high": self.text(high)}
        return replace(
            view,
            interval=to.gettext(
                "%(share)s of the cases lie between %(low)s and %(high)s",
                share=to.percent(interval.coverage),
                **shown,
            ),
            ends=to.gettext("%(low)s to %(high)s", **shown),
            band=f"M{self.position(low):.1f} 31H{self.position(high):.1f}",
        )


def _breaks(quantity: Quantity) -> list[float]:
    """Return the round values between the levels: most training rows lie between the first and the last of them."""
    for low, high in ((_quantile(quantity, 0.1), _quantile(quantity, 0.9)), (quantity.low, quantity.high)):
        if low < high and math.isfinite(high - low):
            return [tick for tick in ticks_of(low, high) if quantity.low < tick < quantity.high]
    return []


def _quantile(quantity: Quantity, share: float) -> float:
    return quantity.quantiles[round(share * (len(quantity.quantiles) - 1))]


def quantity_scale(card: Card, language: Language) -> QuantityScale | None:
    """Return the scale of the quantity that a model predicts; a model of classes has none."""
    if card.quantity is None:
        return None
    report = card.report if isinstance(card.report, QuantityReport) else None
    return QuantityScale(card.quantity, card.target, report, language)
