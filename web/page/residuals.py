"""The errors of a predicted quantity as a picture: predicted values across, true ones upwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.card import Card, QuantityReport
from ml.tables.numbers import shown_number
from web.page.axes import Scale, path_through, ticks_of
from web.page.languages import Language

# The plot inside of the picture, which is as high as wide.
LEFT, TOP, SIDE = 52, 4, 240


@dataclass(frozen=True, slots=True)
class Residuals:
    """A point for each test row, on the line where its prediction is right, and the band of the interval around it.

    `points` and `band` are paths; `ticks` are positions and texts, across and up.
    """

    points: str
    band: str
    ticks: tuple[Sequence[tuple[int, str]], Sequence[tuple[int, str]]]
    rows: str


def residuals_of(card: Card, language: Language) -> Residuals | None:
    """Return the picture; None if there is nothing to be seen."""
    report, quantity = card.report, card.quantity
    if quantity is None or not isinstance(report, QuantityReport) or not report.residuals:
        return None
    below, above = quantity.ends(0.0)
    numbers = [value for pair in report.residuals for value in pair]
    low, high = min(numbers), max(numbers)
    if not 0 < high - low < math.inf:
        return None
    x, y = Scale(low, high, LEFT, LEFT + SIDE), Scale(low, high, TOP + SIDE, TOP)
    points = {(x.position(predicted) or LEFT, y.position(true) or TOP) for predicted, true in report.residuals}
    ticks = [(tick, language.grouped(shown_number(tick))) for tick in ticks_of(low, high)]
    return Residuals(
        points=path_through(points),
        band=_band(below / (high - low), above / (high - low)),
        ticks=(
            [(x.position(tick) or LEFT, text) for tick, text in ticks],
            [(y.position(tick) or TOP, text) for tick, text in ticks],
        ),
        rows=language.number(len(report.residuals)),
    )


def _band(below: float, above: float) -> str:
    """Return the path of the band around the line; it is cut off where the plot ends."""
    ends = [(0, 0), (0, above), (1, 1 + above), (1, 1 + below), (0, below)]
    return "M" + " ".join(f"{LEFT + SIDE * x:.0f} {TOP + SIDE * (1 - min(max(y, -2), 2)):.0f}" for x, y in ends) + "z"
