"""The section about the model: its performance, its features, its training, and the limits of its use.

All of it comes from the model's card. The card of a model that was fitted elsewhere, or of a stranger's file, may lack
parts or hold impossible numbers: unavailable facts are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ml.model.card import Card, Recipe, Report, TrainedFeature
from ml.tables.headers import listed
from web.page.answers import decision_text
from web.page.axes import end_text
from web.page.calibration import CalibrationView, CurveView, calibration_view, curve_view, share_ticks
from web.page.confusion import MATRIX_LABELS, ClassRow, Mistake, classes_of, mistakes_of
from web.page.fields import first_of
from web.page.languages import NO_BREAK, Language, with_unit
from web.page.limits import limits_of
from web.page.quality import (
    AccuracyScale,
    Fact,
    accuracy_scale,
    class_quality,
    quantity_quality,
    source_text,
)
from web.page.quantities import QuantityScale, quantity_scale
from web.page.residuals import Residuals, residuals_of
from web.page.steps import method_of, steps_of

# Names of more classes than this do not fit above their columns side by side.
SIDE_BY_SIDE = 5
# The most important features have a row each; /docs lists all.
FEATURE_ROWS = 60
NAMED_CHOICES = 4
DIGEST_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One feature; `share` is its importance as a part of the greatest one, 0 to 1.

    A wordy range may wrap; `limits` are empty where there are none.
    """

    title: str
    range: str
    is_wordy: bool
    limits: str
    importance: str
    share: str


@dataclass(frozen=True, slots=True)
class CardView:
    """The whole section.

    Attributes:
        quality: facts about its performance.
        scale: the same as a picture, if it can be drawn.
        is_quantity: whether it predicts a quantity.
        residuals: its errors as a picture, if they can be drawn.
        has_importance: whether importance was measured.
        classes: the confusion matrix; empty where there are too many classes for it.
        upright: whether the names above its columns are vertical.
        mistakes: the most frequent ones, where there is no matrix, or where a narrow page has no room for it.
        calibration, curve: its probabilities and thresholds as pictures, if they can be drawn.
        ticks: of both sides of these pictures.
        features, other_features: the most important first; of many features, some are the others.
        more: the number of features without a row.
        origin: facts about its training.
        steps: sentences about a pipeline's steps, and its estimator; empty without a pipeline.
        limits: sentences about the limits of its use.
    """

    quality: Sequence[Fact]
    scale: AccuracyScale | None
    is_quantity: bool
    residuals: Residuals | None
    classes: Sequence[ClassRow]
    upright: bool
    mistakes: Sequence[Mistake]
    calibration: CalibrationView | None
    curve: CurveView | None
    ticks: tuple[Sequence[tuple[int, str]], Sequence[tuple[int, str]]]
    features: Sequence[FeatureRow]
    other_features: Sequence[FeatureRow]
    has_importance: bool
    more: int
    origin: Sequence[Fact]
    steps: Sequence[str]
    limits: Sequence[str]


def card_view(card: Card, version: str, language: Language) -> CardView:
    """Return the view of a model's card; it depends on nothing else, so it can be cached."""
    report, scale = card.report, quantity_scale(card, language)
    ranked = sorted(card.features, key=lambda feature: -feature.importance)
    rows = _features(ranked[:FEATURE_ROWS], language)
    first = first_of(len(rows))
    classes = report if isinstance(report, Report) else None
    has_matrix, is_upright = len(card.labels) <= MATRIX_LABELS, len(card.labels) > SIDE_BY_SIDE
    return CardView(
        quality=list(_quality(card, scale, language)),
        scale=accuracy_scale(classes) if classes else None,
        is_quantity=scale is not None,
        residuals=residuals_of(card, language),
        classes=classes_of(classes, card.labels, language) if classes and has_matrix else (),
        upright=is_upright,
        mistakes=mistakes_of(classes, card.labels, language) if classes and is_upright else (),
        calibration=calibration_view(card, language),
        curve=curve_view(card, language),
        ticks=share_ticks(language),
        features=rows[:first],
        other_features=rows[first:],
        has_importance=report is not None,
        more=max(0, len(ranked) - FEATURE_ROWS),
        origin=list(_origin(card, version, language)),
        steps=list(steps_of(card, language)),
        limits=list(limits_of(card, language)),
    )


def summary_of(card: Card, language: Language) -> str:
    """Return how the model predicts, what, and from which rows it has learned."""
    method = method_of(card, language)
    if card.target.title:
        unit = f" ({card.target.unit})" if card.target.unit else ""
        method = language.gettext("%(method)s; predicts %(target)s", method=method, target=card.target.title + unit)
    return f"{method}. {source_text(card.source, language)}."


def _quality(card: Card, scale: QuantityScale | None, language: Language) -> Iterator[Fact]:
    if card.report is None:
        return iter([Fact(language.gettext("Test"), language.gettext("not tested: imported without a table"))])
    if isinstance(card.report, Report):
        return class_quality(card.report, language)
    assert scale is not None
    return quantity_quality(card, card.report, scale, language)


def _features(features: Sequence[TrainedFeature], language: Language) -> Sequence[FeatureRow]:
    # A fraction, also in a stranger's file; of R², more than all may be lost.
    importances = [max(-10.0, min(10.0, feature.importance)) for feature in features]
    greatest = max(importances)
    return [
        FeatureRow(
            title=language.title(feature),
            range=_range(feature, language),
            is_wordy=bool(feature.choices or feature.gap_share > 0),
            limits=limits_text(feature, language),
            importance=language.grouped(f"{round(100 * importance, 1) + 0.0:.1f}"),
            share=f"{max(0.0, importance / greatest) if greatest > 0 else 0:.3g}",
        )
        for feature, importance in zip(features, importances, strict=True)
    ]


def _range(feature: TrainedFeature, language: Language) -> str:
    """Return the training range of a number or the most frequent choices of a category, and the share of gaps."""
    if feature.choices and not feature.quantiles:
        text = listed(feature.choices)
    elif feature.choices:
        counted = sorted(zip(feature.counts, feature.choices, strict=False), key=lambda pair: -pair[0])
        parts = [f"{choice}{NO_BREAK}{language.number(count)}" for count, choice in counted[:NAMED_CHOICES]]
        if counted[NAMED_CHOICES:]:
            parts.append(language.ngettext("%(count)s more", "%(count)s more", len(counted) - NAMED_CHOICES))
        text = ", ".join(parts)
    else:
        text = range_text(feature, language)
    if feature.gap_share > 0:
        text += "; " + language.gettext("%(share)s without a value", share=language.percent(feature.gap_share))
    return text


def range_text(feature: TrainedFeature, language: Language) -> str:
    """Return the training range of a number, rounded as beside its field, with its unit; a dash if it is not known."""
    if not feature.has_range:
        return "–"
    low, high = (end_text(feature, end, language) for end in (feature.low, feature.high))
    return with_unit(_span(low, high, language), feature.unit)


def limits_text(feature: TrainedFeature, language: Language) -> str:
    """Return the limits of a number with its unit; empty without any."""
    low, high = feature.minimum, feature.maximum
    if low is None and high is None:
        return ""
    if low is not None and high is not None:
        return with_unit(_span(language.number(low), language.number(high), language), feature.unit)
    sign, bound = ("≥", low) if low is not None else ("≤", high)
    return f"{sign}{NO_BREAK}{language.quantity(bound or 0.0, feature.unit)}"


def _span(low: str, high: str, language: Language) -> str:
    return language.gettext("%(low)s to %(high)s", low=low, high=high)


def _origin(card: Card, version: str, language: Language) -> Iterator[Fact]:
    _, number = language.gettext, language.number
    yield Fact(_("Data"), source_text(card.source, language))
    if card.report is not None:
        train, test = card.report.train_rows, number(card.report.test_rows)
        if train is None:
            yield Fact(_("Rows"), _("%(test)s for testing; trained elsewhere, on other rows", test=test))
        else:
            yield Fact(_("Rows"), _("%(train)s for training, %(test)s for testing", train=number(train), test=test))
    if card.data_digest:
        yield Fact(_("Digest of the data"), f"SHA-256 {card.data_digest[:DIGEST_CHARACTERS]}…")
    yield Fact(_("Method"), method_of(card, language))
    yield Fact(_("Agreement with the library"), _agreement(card, language))
    if card.decision:
        yield Fact(_("Decision"), decision_text(card.decision, language))
    if card.recipe:
        yield Fact(_("Parameters"), ", ".join(_recipe(card.recipe, language)))
    if card.libraries:
        yield Fact(_("Libraries"), ", ".join(f"{name} {release}" for name, release in card.libraries.items()))
    yield Fact(_("Version"), version)


def _agreement(card: Card, language: Language) -> str:
    if card.promise == "bits":
        return language.gettext("its answers, to the last bit")
    if card.promise == "linear":
        return language.gettext("its answers to one row, within 4 units in the last place")
    return language.gettext("its scores, to the last bit; other machines may round probabilities differently")


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
