"""The limits of a model's use, as sentences for its card."""

from __future__ import annotations

from collections.abc import Iterator

from ml.model.card import Card, QuantityReport, Report
from ml.tables.headers import apart
from web.page.languages import Language
from web.page.quality import accuracy_interval
from web.page.quantities import quantity_scale

NAMED_LABELS = 8


def limits_of(card: Card, language: Language) -> Iterator[str]:
    """Yield a sentence about each limit of the model's use."""
    _, report = language.gettext, card.report
    if card.labels:
        known = _("The model knows only %(count)s classes.", count=len(card.labels))
        if len(card.labels) <= NAMED_LABELS:
            known = _("The model knows only these classes: %(labels)s.", labels=", ".join(apart(card.labels)))
        yield known + " " + _("An input of any other kind is still given one of these labels.")
    if report is None:
        yield _("It was not tested here, and its training rows are not known: nothing says how good its answers are.")
    else:
        yield from _range_limits(card, report, language)
    if card.labels:
        warning = _("It is not calibrated: predictions with 80%% need not be correct in 80 cases of 100.")
        if card.is_calibrated:
            warning = _("It was calibrated on the training rows.")
        yield _source_of_probability(card, language) + " " + warning
    if report is not None:
        yield from _test_limits(report, language)


def _range_limits(card: Card, report: Report | QuantityReport, language: Language) -> Iterator[str]:
    _ = language.gettext
    if not card.labels:
        yield _value_limit(card, language)
    if report.train_rows is None:
        yield _("The ranges are those of the test rows. Outside of them a prediction is a guess.")
    else:
        rows = language.number(report.train_rows)
        yield _("It was trained on %(rows)s rows. Outside of their ranges a prediction is a guess.", rows=rows)
    if any(feature.choices for feature in card.features):
        yield _("So is one for a word that was not seen in training.")
    if not card.labels:
        yield _("The interval is equally wide for all predictions: too narrow for some of them, too wide for others.")


def _test_limits(report: Report | QuantityReport, language: Language) -> Iterator[str]:
    _ = language.gettext
    yield _("It was tested on rows of one table. Predictions for another place, time or instrument may be worse.")
    if isinstance(report, Report):
        yield from _class_limits(report, language)
    elif report.mean_absolute_error >= report.baseline_error:
        yield _("Its test does not show that it is better than always predicting the median.")


def _value_limit(card: Card, language: Language) -> str:
    scale, _ = quantity_scale(card, language), language.gettext
    assert scale is not None
    assert card.quantity is not None
    ends = {"low": scale.number(card.quantity.low), "high": scale.text(card.quantity.high)}
    if card.formula is not None:
        return _(
            "It adds up one part for each feature, without an end: an answer may lie far beyond the values of the "
            "training rows, %(low)s and %(high)s.",
            **ends,
        )
    if card.total.is_mean:
        return _("It answers with the mean of training rows: never with a value beyond %(low)s and %(high)s.", **ends)
    return _(
        "It adds up its trees: an answer may lie beyond the values of the training rows, %(low)s and %(high)s.", **ends
    )


def _source_of_probability(card: Card, language: Language) -> str:
    _ = language.gettext
    if card.formula is not None and card.formula.link == "posterior":
        return _(
            "It takes the features for independent, so that its probabilities are often too near to 0%% and 100%%."
        )
    if card.formula is not None:
        return _("A probability is computed from the sum of one part for each feature.")
    if card.total.members:
        models = len(card.total.members)
        return _("A probability is the mean of those of its %(models)s models, each with its weight.", models=models)
    if card.total.link != "mean":
        return _("A probability is computed from the sum of its trees' scores.")
    if card.trees == 1:
        return _("A probability is the share of a class among the training rows at one leaf of its tree.")
    return _("A probability is the mean of its %(trees)s trees' shares of training rows.", trees=card.trees)


def _class_limits(report: Report, language: Language) -> Iterator[str]:
    interval = accuracy_interval(report)
    if interval and interval[0] <= report.baseline:
        yield language.gettext(
            "Its test does not show that it is better than always predicting the most frequent class."
        )
    untested = sum(1 for counts in report.confusion if not any(counts))
    if untested:
        yield language.ngettext(
            "%(count)s class has no test rows: its recall is unknown.",
            "%(count)s classes have no test rows: their recall is unknown.",
            untested,
        )
