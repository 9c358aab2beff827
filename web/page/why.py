"""Why this answer: what each feature adds to the mean answer, sorted, as signed bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier, Prediction
from ml.model.shapley import contributions
from web.page.decision_map import hue_of
from web.page.fields import text_of
from web.page.languages import Language, with_unit
from web.page.quantities import QuantityScale, quantity_scale

# So many features are shown one by one, the others as a sum.
SHOWN_REASONS = 4
# The bars are drawn in a picture of this width, on both sides of its middle.
WIDTH = 200


@dataclass(frozen=True, slots=True)
class Reason:
    """What one feature adds to the answer, or several together: its value, the bar, and the signed number."""

    title: str
    value: str
    x: str
    width: str
    is_against: bool
    text: str


@dataclass(frozen=True, slots=True)
class WhyView:
    """From the mean answer to this one; `hue` is the CSS class of the label's hue, empty for a quantity."""

    answer: str
    start: str
    end: str
    hue: str
    is_quantity: bool
    reasons: Sequence[Reason]


def why_of(model: Classifier, row: Sequence[float], prediction: Prediction, to: Language) -> WhyView | None:
    """Return the reasons of an answer, the strongest first; None where the model file does not tell."""
    found = contributions(model, row)
    if found is None:
        return None
    base, values = float(found[0][prediction.index]), found[1][:, prediction.index].tolist()
    scale = quantity_scale(model.card, to)
    order = sorted(range(len(values)), key=lambda at: -abs(values[at]))
    shown = order[:SHOWN_REASONS] if len(order) > SHOWN_REASONS + 1 else order
    left = order[len(shown) :]
    rest = math.fsum(values[at] for at in left)
    longest = max([abs(values[at]) for at in shown] + [abs(rest)]) or 1.0
    reasons = [
        _reason(to.title(feature), value_of(feature, row[at], to), values[at], longest=longest, scale=scale, to=to)
        for at in shown
        for feature in [model.features[at]]
    ]
    if left:
        title = to.ngettext("%(count)s other feature", "%(count)s other features", len(left))
        reasons.append(_reason(title, "", rest, longest=longest, scale=scale, to=to))
    if scale is not None:
        end = prediction.value
        return WhyView("", scale.number(base), scale.text(end), "", is_quantity=True, reasons=reasons)
    end = prediction.probabilities[prediction.index]
    hue = hue_of(prediction.index)
    return WhyView(prediction.label, to.percent(base), to.percent(end), hue, is_quantity=False, reasons=reasons)


def count_of(model: Classifier) -> int:
    """Return the number of lines of reasons; 0 for a model file that does not tell."""
    if model.forest.covers is None:
        return 0
    return min(len(model.features), SHOWN_REASONS + 1)


def value_of(feature: TrainedFeature, value: float, to: Language) -> str:
    if math.isnan(value):
        return to.gettext("unknown")
    return with_unit(text_of(feature, value, to), feature.unit)


def _reason(
    title: str, value: str, added: float, *, longest: float, scale: QuantityScale | None, to: Language
) -> Reason:
    half = WIDTH / 2
    width = abs(added) / longest * half
    number = to.number(round(100 * added, 1) + 0.0) if scale is None else scale.number(added)
    return Reason(
        title=title,
        value=value,
        x=f"{half - width if added < 0 else half:.1f}",
        width=f"{width:.1f}",
        is_against=added < 0,
        text=number if number.startswith("−") or not number.strip("0.,") else f"+{number}",
    )
