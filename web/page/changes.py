"""The nearest change of the answer as a sentence, and as the value that a button sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ml.model.card import TrainedFeature
from ml.model.changes import Change
from web.page.fields import text_of
from web.page.languages import Language

Outcome = Literal["label", "reaches", "falls below", "no goal"]


@dataclass(frozen=True, slots=True)
class ChangeView:
    """What the answer becomes, and when: setting `feature` to `value` does it.

    Attributes:
        outcome: another label, or a quantity on the other side of the goal; or a goal that is no number.
        what: that label or goal.
        condition: a part of a sentence; empty if no change was found.
    """

    outcome: Outcome
    what: str
    condition: str = ""
    feature: str = ""
    title: str = ""
    value: str = ""


def change_view(
    outcome: Outcome, what: str, change: Change | None, feature: TrainedFeature | None, to: Language
) -> ChangeView:
    """Return the view of a change of a feature; without one, of the fact that none was found."""
    if change is None or feature is None:
        return ChangeView(outcome, what)
    return ChangeView(
        outcome,
        what or change.label,
        condition=_condition(change, feature, to),
        feature=feature.key,
        title=to.title(feature),
        value=text_of(feature, change.value, to),
    )


def _condition(change: Change, feature: TrainedFeature, to: Language) -> str:
    """Return when the answer changes: at the value that the button sets, which is shorter than many a threshold."""
    title = to.title(feature)
    if change.direction == "is":
        return to.gettext("%(title)s is %(choice)s", title=title, choice=text_of(feature, change.value, to))
    shown = to.quantity(change.value, feature.unit)
    if change.direction.startswith("rises"):
        return to.gettext("%(title)s rises to %(value)s or more", title=title, value=shown)
    return to.gettext("%(title)s falls to %(value)s or below", title=title, value=shown)
