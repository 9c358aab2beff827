"""The section about the model: its performance, its features, its training, and the limits of its use.

All of it comes from the model's card. The card of a model that was fitted elsewhere, or of a stranger's file, may lack
parts or hold impossible numbers: unavailable facts are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ml.model.card import Card, Recipe, Report, TrainedFeature
from web.page.confusion import MATRIX_LABELS, ClassRow, Mistake, classes_of, mistakes_of
from web.page.languages import NO_BREAK, Language

# Names of more classes than this do not fit above their columns side by side.
SIDE_BY_SIDE = 5
# The most important features have a row each; /docs lists all.
FEATURE_ROWS = 60
NAMED_LABELS = 8
DIGEST_CHARACTERS = 12
# Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about the model, as a term and its text."""

    term: str
    text: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Accuracy on a line from 0 to 100, with its 95 % interval and the baseline."""

    accuracy: str
    low: str
    high: str
    baseline: str


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One feature; `share` is its importance as a part of the greatest one, 0 to 1."""

    title: str
    range: str
    limits: str
    importance: str
    share: str


@dataclass(frozen=True, slots=True)
class CardView:
    """The whole section.

    Attributes:
        quality: facts about its performance.
        scale: the same as a picture, if it can be drawn.
        classes: the confusion matrix; empty where there are too many classes for it.
        upright: whether the names above its columns are vertical.
        mistakes: the most frequent ones, where there is no matrix.
        features: the most important first.
        more: the number of features without a row.
        origin: facts about its training.
        limits: sentences about the limits of its use.
    """

    quality: Sequence[Fact]
    scale: Scale | None
    classes: Sequence[ClassRow]
    upright: bool
    mistakes: Sequence[Mistake]
    features: Sequence[FeatureRow]
    more: int
    origin: Sequence[Fact]
    limits: Sequence[str]


def card_view(card: Card, version: str, language: Language) -> CardView:
    """Return the view of a model's card; it depends on nothing else, so it can be cached."""
    report = card.report
    assert isinstance(report, Report)
    has_matrix = len(card.labels) <= MATRIX_LABELS
    ranked = sorted(card.features, key=lambda feature: -feature.importance)
    return CardView(
        quality=list(_quality(report, language)),
        scale=_scale(report),
        classes=classes_of(report, card.labels, language) if has_matrix else (),
        upright=len(card.labels) > SIDE_BY_SIDE,
        mistakes=() if has_matrix else mistakes_of(report, card.labels, language),
        features=_features(ranked[:FEATURE_ROWS], language),
        more=max(0, len(ranked) - FEATURE_ROWS),
        origin=list(_origin(card, version, language)),
        limits=list(_limits(card, report, language)),
    )


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a probability of which `share`, 0 to 1, was seen in `n` independent trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927). It holds for few trials and for shares near 0 and 1, too.
    """
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    middle, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _interval(report: Report) -> tuple[float, float] | None:
    if not 1 <= report.test_rows < 2**53 or not 0 <= report.accuracy <= 1:
        return None
    return wilson_interval(report.accuracy, report.test_rows)


def _quality(report: Report, language: Language) -> Iterator[Fact]:
    _, percent, number = language.gettext, language.percent, language.number
    shown = {"share": percent(report.accuracy), "rows": number(report.test_rows)}
    if interval := _interval(report):
        low, high = map(percent, interval)
        text = _(
            "%(share)s of %(rows)s test rows; 95 %% interval (Wilson): %(low)s to %(high)s", **shown, low=low, high=high
        )
    else:
        text = _("%(share)s of %(rows)s test rows", **shown)
    yield Fact(_("Accuracy"), text)
    yield Fact(
        _("Baseline"), _("%(share)s by always predicting the most frequent class", share=percent(report.baseline))
    )
    if validation := report.cross_validation:
        text = _(
            "%(mean)s ± %(deviation)s over %(folds)s folds",
            mean=percent(validation.mean),
            deviation=percent(validation.deviation),
            folds=number(validation.folds),
        )
        yield Fact(_("Cross-validation"), text)


def _scale(report: Report) -> Scale | None:
    interval = _interval(report)
    if not interval or not 0 <= report.baseline <= 1:
        return None
    low, high = interval
    return Scale(*(f"{100 * share:.4g}" for share in (report.accuracy, low, high, report.baseline)))


def _features(features: Sequence[TrainedFeature], language: Language) -> Sequence[FeatureRow]:
    # A fraction, also in a stranger's file.
    importances = [max(-1.0, min(1.0, feature.importance)) for feature in features]
    greatest = max(importances)
    return [
        FeatureRow(
            title=language.title(feature),
            range=_with_unit(_span(feature.low, feature.high, language), feature.unit),
            limits=_bounds(feature, language),
            importance=language.number(round(100 * importance, 1) + 0.0),
            share=f"{max(0.0, importance / greatest) if greatest > 0 else 0:.3g}",
        )
        for feature, importance in zip(features, importances, strict=True)
    ]


def _bounds(feature: TrainedFeature, language: Language) -> str:
    low, high = feature.minimum, feature.maximum
    if low is None and high is None:
        return "–"
    if low is not None and high is not None:
        return _with_unit(_span(low, high, language), feature.unit)
    sign, bound = ("≥", low) if low is not None else ("≤", high)
    return f"{sign}{NO_BREAK}{language.quantity(bound or 0.0, feature.unit)}"


def _span(low: float, high: float, language: Language) -> str:
    # The form shows the ranges with all their digits.
    shown_low, shown_high = (language.number(float(f"{value:.6g}")) for value in (low, high))
    return language.gettext("%(low)s to %(high)s", low=shown_low, high=shown_high)


def _with_unit(text: str, unit: str) -> str:
    return f"{text}{NO_BREAK}{unit}" if unit else text


def _origin(card: Card, version: str, language: Language) -> Iterator[Fact]:
    _, number = language.gettext, language.number
    yield Fact(_("Data"), card.source)
    train, test = card.report.train_rows, number(card.report.test_rows)
    if train is None:
        yield Fact(_("Rows"), _("%(test)s for testing; trained elsewhere, on other rows", test=test))
    else:
        yield Fact(_("Rows"), _("%(train)s for training, %(test)s for testing", train=number(train), test=test))
    if card.data_digest:
        yield Fact(_("Digest of the data"), f"SHA-256 {card.data_digest[:DIGEST_CHARACTERS]}…")
    trees = language.ngettext("%(count)s tree", "%(count)s trees", card.trees)
    yield Fact(_("Method"), f"{card.estimator}, {trees}")
    if card.recipe:
        yield Fact(_("Parameters"), ", ".join(_recipe(card.recipe, language)))
    if card.libraries:
        yield Fact(_("Libraries"), ", ".join(f"{name} {release}" for name, release in card.libraries.items()))
    yield Fact(_("Version"), version)


def _recipe(recipe: Recipe, language: Language) -> Iterator[str]:
    _ = language.gettext
    yield _("seed %(seed)s", seed=recipe.seed)
    yield _("%(share)s of the rows for testing", share=language.percent(recipe.test_size))
    yield _("no maximum depth") if recipe.max_depth is None else _("maximum depth %(depth)s", depth=recipe.max_depth)
    yield language.ngettext(
        "at least %(count)s row per leaf", "at least %(count)s rows per leaf", recipe.min_samples_leaf
    )
    if recipe.balanced_class_weight:
        yield _("class weights balanced")


def _limits(card: Card, report: Report, language: Language) -> Iterator[str]:
    """Yield a sentence about each limit of the model's use."""
    _ = language.gettext
    if len(card.labels) <= NAMED_LABELS:
        known = _("The model knows only these classes: %(labels)s.", labels=", ".join(card.labels))
    else:
        known = _("The model knows only %(count)s classes.", count=len(card.labels))
    yield known + " " + _("An input of any other kind is still given one of these labels.")
    if report.train_rows is None:
        yield _("The ranges are those of the test rows. Outside of them a prediction is a guess.")
    else:
        rows = language.number(report.train_rows)
        yield _("It was trained on %(rows)s rows. Outside of their ranges a prediction is a guess.", rows=rows)
    if card.trees == 1:
        share = _("A probability is the share of a class among the training rows at one leaf of its tree.")
    else:
        share = _("A probability is the mean of its %(trees)s trees' shares of training rows.", trees=card.trees)
    yield share + " " + _("It is not calibrated: predictions with 80 %% need not be correct in 80 cases of 100.")
    yield _("It was tested on rows of one table. Predictions for another place, time or instrument may be worse.")
    interval = _interval(report)
    if interval and interval[0] <= report.baseline:
        yield _("Its test does not show that it is better than always predicting the most frequent class.")
    untested = sum(1 for counts in report.confusion if not any(counts))
    if untested:
        yield language.ngettext(
            "%(count)s class has no test rows: its recall is unknown.",
            "%(count)s classes have no test rows: their recall is unknown.",
            untested,
        )
