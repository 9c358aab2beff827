"""The threshold between two labels, and a what-if of it, which changes labels on one page alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ml.model.card import Card, Decision, Report
from web.page.answers import decision_text
from web.page.calibration import positive_of
from web.page.languages import Language

# The name of its field. With a hyphen: no feature has it as its key.
OPTION = "decision-threshold"
# A fraction in hundredths, as a slider sends it.
_FRACTION = re.compile(r"0?\.\d{1,2}|[01](\.0{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ThresholdView:
    """The slider of a threshold.

    `label` is the one it decides on, `value` and `usual` are fractions in hundredths: what it is now, and what it is by
    the model file, which `percent` and `usual_percent` show; `reset` is the address of the page with the latter.
    """

    label: str
    value: str
    percent: str
    usual: str
    usual_percent: str
    reset: str


@dataclass(frozen=True, slots=True)
class Rule:
    """How labels follow from probabilities, as a sentence if it is no matter of course, and what that costs."""

    decision: str = ""
    cost: str = ""


def what_if_of(card: Card, text: str | None) -> Decision | None:
    """Return what a text such as 0.35 decides on; None if that is what the model file does, or it is no fraction."""
    if text is None or len(card.labels) != 2 or not _FRACTION.fullmatch(text) or text_of(float(text)) == usual_of(card):
        return None
    return Decision(positive=positive_of(card), threshold=float(text))


def usual_of(card: Card) -> str:
    """Return the threshold of a model file in hundredths: without a decision, the more probable label is the answer."""
    return text_of(_usual(card))


def text_of(threshold: float) -> str:
    """Return a threshold in hundredths, as a slider has it."""
    return f"{threshold:.2f}".rstrip("0").rstrip(".")


def threshold_view(card: Card, what_if: Decision | None, reset: str, to: Language) -> ThresholdView:
    """Return the slider of a model of two labels.

    Args:
        card: that of the model file.
        what_if: what is decided on the page, if that is something else.
        reset: the address of the page without it.
    """
    usual = usual_of(card)
    usual_percent = to.percent(_usual(card))
    return ThresholdView(
        label=positive_of(card),
        value=text_of(what_if.threshold) if what_if else usual,
        percent=to.percent(what_if.threshold) if what_if else usual_percent,
        usual=usual,
        usual_percent=usual_percent,
        reset=reset,
    )


def rule_of(card: Card, to: Language, *, is_what_if: bool) -> Rule:
    """Return the rule by a card, whose decision is a what-if or that of the model file."""
    decision = decision_text(card.decision, to) if card.decision else ""
    if is_what_if:
        decision = to.gettext("On this page alone: %(decision)s", decision=decision)
    return Rule(decision, _cost(card, to, is_what_if=is_what_if))


def _cost(card: Card, to: Language, *, is_what_if: bool) -> str:
    report = card.report
    if not isinstance(report, Report) or report.calibration is None or not report.calibration.points:
        return ""
    positive = card.labels.index(positive_of(card))
    false_alarms, misses = report.confusion[1 - positive][positive], report.confusion[positive][1 - positive]
    if is_what_if and card.decision:
        false_alarms, misses = report.calibration.at(card.decision.threshold)
    return to.gettext(
        "On %(rows)s test rows: %(false_alarms)s, %(misses)s",
        rows=to.number(report.test_rows),
        false_alarms=to.ngettext("%(count)s false alarm", "%(count)s false alarms", false_alarms),
        misses=to.ngettext("%(count)s miss", "%(count)s misses", misses),
    )


def _usual(card: Card) -> float:
    return card.decision.threshold if card.decision else 0.5
