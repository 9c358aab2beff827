"""The probabilities of a classifier beside what was true on its test rows, as pictures and tables of its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.calibration import Calibration, Point
from ml.model.card import Card, Report
from web.page.languages import Language
from web.page.quality import wilson_interval
from web.page.residuals import LEFT, SIDE, TOP

# Of the plot's sides, in hundredths.
TICKS = range(0, 101, 20)
# The table of thresholds has these hundredths, and that of the model.
LISTED = range(10, 100, 10)


@dataclass(frozen=True, slots=True)
class CalibrationView:
    """Predicted probabilities and true shares.

    `label` is that of the probabilities, empty for those of the most probable one. `points` and `intervals` are paths,
    with a vertex and a line for each bin; `bins` are the rows of a table: mean probability, true share, test rows.
    """

    label: str
    points: str
    intervals: str
    bins: Sequence[tuple[str, str, str]]
    rows: str


@dataclass(frozen=True, slots=True)
class CurveView:
    """The ROC curve of one label of two.

    `curve` is its path and `chosen` the point of the model's own labels; `costs` are the rows of a table: threshold,
    false alarms, misses.
    """

    label: str
    other: str
    curve: str
    chosen: tuple[int, int]
    costs: Sequence[tuple[str, str, str]]
    area: str


def positive_of(card: Card) -> str:
    """Return the label of two that a threshold decides on: that of the decision, or else the second one."""
    return card.decision.positive if card.decision else card.labels[1]


def calibration_view(card: Card, language: Language) -> CalibrationView | None:
    """Return the picture of a classifier's calibration; None if its file says nothing about it."""
    found = _calibration(card)
    if found is None:
        return None
    shares = [(one.probability, one.true / one.rows, one.rows) for one in found.bins if one.rows]
    ends = [(x, wilson_interval(share, rows)) for x, share, rows in shares]
    return CalibrationView(
        label=positive_of(card) if len(card.labels) == 2 else "",
        points="M" + " ".join(f"{_across(x)} {_up(share)}" for x, share, _ in shares),
        intervals="".join(f"M{_across(x)} {_up(low)}V{_up(high)}" for x, (low, high) in ends),
        bins=[(language.percent(x), language.percent(share), language.number(rows)) for x, share, rows in shares],
        rows=language.number(sum(rows for *_, rows in shares)),
    )


def curve_view(card: Card, language: Language) -> CurveView | None:
    """Return the picture of what thresholds cost; None if there are not two labels, or not both in the test rows."""
    found = _calibration(card)
    if found is None or found.area is None or not (found.points[0].false_positives and found.points[0].true_positives):
        return None
    assert isinstance(card.report, Report)
    positive = card.labels.index(positive_of(card))
    whole, other = found.points[0], 1 - positive
    own = Point(0, card.report.confusion[other][positive], card.report.confusion[positive][positive])
    own_threshold = {card.decision.threshold} if card.decision else set()
    costs = [(at, *found.at(at)) for at in sorted({step / 100 for step in LISTED} | own_threshold)]
    return CurveView(
        label=card.labels[positive],
        other=card.labels[other],
        curve="M" + " ".join(f"{x} {y}" for x, y in dict.fromkeys(_place(one, whole) for one in _curve(found))),
        chosen=_place(own, whole),
        costs=[
            (language.percent(at), language.number(false_alarms), language.number(misses))
            for at, false_alarms, misses in costs
        ],
        area=language.number(round(found.area, 3)),
    )


def _calibration(card: Card) -> Calibration | None:
    return card.report.calibration if isinstance(card.report, Report) else None


def _curve(found: Calibration) -> list[Point]:
    return [Point(1, 0, 0), *reversed(found.points)]


def _place(one: Point, whole: Point) -> tuple[int, int]:
    """Return the place of a point in the picture; the confusion matrix of a stranger's file may have any numbers."""
    x = min(max(one.false_positives, 0), whole.false_positives) / whole.false_positives
    y = min(max(one.true_positives, 0), whole.true_positives) / whole.true_positives
    return _across(x), _up(y)


def _across(share: float) -> int:
    return round(LEFT + SIDE * share)


def _up(share: float) -> int:
    return round(TOP + SIDE * (1 - share))


def share_ticks(language: Language) -> tuple[Sequence[tuple[int, str]], Sequence[tuple[int, str]]]:
    """Return the ticks of both sides of a plot of shares, as positions and texts in percent: across, and up."""
    texts = [(step / 100, language.number(step)) for step in TICKS]
    return [(_across(share), text) for share, text in texts], [(_up(share), text) for share, text in texts]
