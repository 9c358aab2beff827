"""Why this answer: what each feature adds to the mean answer, sorted, as signed bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.card import TrainedFeature
from ml.model.contributions import Divided, contributions, obstacle
from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel
from web.page.decision_map import hue_of
from web.page.fields import rounded_text, text_of
from web.page.languages import Language, with_unit
from web.page.quantities import QuantityScale

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
    """From the mean answer to this one; `hue` is the CSS class of the label's hue, empty for a quantity.

    With `is_log` the numbers are log odds, or the logarithm of a quantity.
    """

    answer: str
    start: str
    end: str
    hue: str
    is_log: bool
    reasons: Sequence[Reason]


def why_of(
    model: LoadedModel, row: Sequence[float], prediction: Prediction, to: Language, *, scale: QuantityScale | None
) -> WhyView | None:
    """Return the reasons of an answer, the strongest first; None where the model does not say: see `why_not_of`."""
    found = contributions(model, row, prediction.index)
    if found is None:
        return None
    written, values = _Scale(found, scale, to), found.values
    # The sum, but for its last bits: the answer itself is shown in the same digits everywhere.
    answer = prediction.value if model.quantity else prediction.probabilities[prediction.index]
    order = sorted(range(len(values)), key=lambda at: -abs(values[at]))
    shown = order[:SHOWN_REASONS] if len(order) > SHOWN_REASONS + 1 else order
    left = order[len(shown) :]
    rest = math.fsum(values[at] for at in left)
    longest = max([abs(values[at]) for at in shown] + [abs(rest)]) or 1.0

    def reason(title: str, value: str, added: float) -> Reason:
        width = abs(added) / longest * WIDTH / 2
        x = WIDTH / 2 - (width if added < 0 else 0)
        return Reason(title, value, f"{x:.1f}", f"{width:.1f}", is_against=added < 0, text=written.added(added))

    features = model.features
    reasons = [reason(to.title(features[at]), _about(features[at], row[at], to), values[at]) for at in shown]
    if left:
        title = to.ngettext("%(count)s other feature", "%(count)s other features", len(left))
        reasons.append(reason(title, "", rest))
    return WhyView(
        answer=prediction.label,
        start=written.whole(found.base),
        end=written.whole(found.base + math.fsum(values) if written.is_log else answer),
        hue=hue_of(prediction.index) if model.labels else "",
        is_log=written.is_log,
        reasons=reasons,
    )


class _Scale:
    """Writes the numbers of one explanation."""

    def __init__(self, found: Divided, quantity: QuantityScale | None, to: Language) -> None:
        self.is_log = found.scale.startswith("log")
        self._quantity = None if self.is_log else quantity
        self._to = to

    def whole(self, value: float) -> str:
        """Return a base or an answer as text."""
        if self.is_log:
            return self._logarithm(value)
        return self._quantity.text(value) if self._quantity else self._to.percent(min(max(value, 0.0), 1.0))

    def _logarithm(self, value: float) -> str:
        return self._to.grouped(f"{round(value, 2) + 0.0:.2f}")

    def added(self, value: float) -> str:
        """Return what a feature adds as text with its sign; of a probability in percentage points."""
        if self._quantity:
            text = self._quantity.number(value)
        else:
            text = self._logarithm(value) if self.is_log else self._to.grouped(f"{round(100 * value, 1) + 0.0:.1f}")
        return text if text.startswith("−") or not text.strip("0.,") else f"+{text}"


def why_not_of(model: LoadedModel, to: Language) -> str:
    """Return why a model has no reasons; empty for one that has."""
    found = obstacle(model)
    sentences = {
        "calibrated": to.gettext(
            "No reasons are shown: calibrated probabilities are no sum of what each feature adds."
        ),
        "median": to.gettext("No reasons are shown: a median of trees is no sum of what each feature adds."),
        "vote": to.gettext("No reasons are shown: the models whose mean this is do not add up in one scale."),
        "no covers": to.gettext(
            "No reasons are shown: this older model file lacks what they are made of. Export or train it anew."
        ),
    }
    return sentences[found] if found else ""


def count_of(model: LoadedModel) -> int:
    """Return the number of lines of reasons; 0 for a model without."""
    return min(len(model.features), SHOWN_REASONS + 1) if obstacle(model) is None else 0


def value_of(feature: TrainedFeature, value: float, to: Language) -> str:
    """Return a value of a row as its field would have it, with its unit."""
    if math.isnan(value):
        return to.gettext("unknown")
    return with_unit(text_of(feature, value, to), feature.unit)


def _about(feature: TrainedFeature, value: float, to: Language) -> str:
    """Return a value of a row as it is shown; its field has all digits."""
    return (
        value_of(feature, value, to) if math.isnan(value) else with_unit(rounded_text(feature, value, to), feature.unit)
    )
