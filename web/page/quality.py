"""The quality of a model on its test rows, as facts for its card."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ml.model.calibration import Calibration
from ml.model.card import Card, CrossValidation, QuantityReport, Report
from web.page.languages import Language
from web.page.quantities import QuantityScale

# Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054

# As `ml.tables.reading` writes it of a table.
_TABLE = re.compile(r"(.+): (\d+) rows, (\d{1,9}) features?, (?:(\d+) classes|a quantity)")


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about the model, as a term and its text."""

    term: str
    text: str


@dataclass(frozen=True, slots=True)
class AccuracyScale:
    """Accuracy on a line from 0 to 100, with its 95 % interval and the baseline."""

    accuracy: str
    low: str
    high: str
    baseline: str


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a probability of which `share`, 0 to 1, was seen in `n` independent trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927). It holds for few trials and for shares near 0 and 1, too.
    """
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    middle, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def accuracy_interval(report: Report) -> tuple[float, float] | None:
    """Return the 95 % interval of the accuracy; None for a stranger's impossible numbers."""
    if not 1 <= report.test_rows < 2**53 or not 0 <= report.accuracy <= 1:
        return None
    return wilson_interval(report.accuracy, report.test_rows)


def class_quality(report: Report, language: Language) -> Iterator[Fact]:
    """Yield facts about the answers of a classifier to its test rows."""
    _, percent, number = language.gettext, language.percent, language.number
    shown = {"share": percent(report.accuracy), "rows": number(report.test_rows)}
    if interval := accuracy_interval(report):
        low, high = map(percent, interval)
        text = _(
            "%(share)s of %(rows)s test rows; 95%% interval (Wilson): %(low)s to %(high)s", **shown, low=low, high=high
        )
    else:
        text = _("%(share)s of %(rows)s test rows", **shown)
    yield Fact(_("Accuracy"), text)
    yield Fact(
        _("Baseline"), _("%(share)s by always predicting the most frequent class", share=percent(report.baseline))
    )
    if validation := report.cross_validation:
        yield _folds(validation, language)
    if report.calibration is not None:
        yield from _probabilities(report, report.calibration, language)


def _probabilities(report: Report, calibration: Calibration, language: Language) -> Iterator[Fact]:
    _ = language.gettext

    def number(value: float) -> str:
        return language.number(round(value, 3))

    counts = [max(0, sum(row)) for row in report.confusion]
    # Of two labels both have the same error, which counts once.
    alike = (1 - sum((count / (sum(counts) or 1)) ** 2 for count in counts)) / (2 if len(counts) == 2 else 1)
    text = _(
        "%(score)s; 0 is perfect, and always predicting the shares of the classes gives %(baseline)s",
        score=number(calibration.brier),
        baseline=number(alike),
    )
    yield Fact(_("Brier score"), text)
    if calibration.area is not None:
        text = _("%(area)s; 1 is perfect, and guessing gives 0.5", area=number(calibration.area))
        yield Fact(_("Area under the ROC curve"), text)


def _folds(validation: CrossValidation, language: Language) -> Fact:
    text = language.gettext(
        "%(mean)s ± %(deviation)s over %(folds)s folds",
        mean=language.percent(validation.mean),
        deviation=language.percent(validation.deviation),
        folds=language.number(validation.folds),
    )
    return Fact(language.gettext("Cross-validation"), text)


def accuracy_scale(report: Report) -> AccuracyScale | None:
    """Return accuracy, interval and baseline as a picture; None for impossible numbers."""
    interval = accuracy_interval(report)
    if not interval or not 0 <= report.baseline <= 1:
        return None
    low, high = interval
    return AccuracyScale(*(f"{100 * share:.4g}" for share in (report.accuracy, low, high, report.baseline)))


def quantity_quality(card: Card, report: QuantityReport, scale: QuantityScale, language: Language) -> Iterator[Fact]:
    """Yield facts about the errors of a predicted quantity on its test rows."""
    _, percent, number = language.gettext, language.percent, language.number
    rows = number(report.test_rows)
    yield Fact(
        "R²",
        _(
            "%(share)s of the variance of %(rows)s test rows is explained",
            share=percent(report.r2) if report.r2 >= 0 else number(round(report.r2, 3)),
            rows=rows,
        ),
    )
    yield Fact(
        _("Mean absolute error"),
        _(
            "%(error)s; %(baseline)s by always predicting the median",
            error=scale.text(report.mean_absolute_error),
            baseline=scale.text(report.baseline_error),
        ),
    )
    yield Fact(_("Root mean squared error"), scale.text(report.root_mean_squared_error))
    if card.quantity is not None and (interval := card.quantity.interval):
        shown = {
            "share": percent(interval.coverage),
            "rows": number(interval.rows),
            "low": scale.number(-interval.below),
            "high": scale.text(interval.above),
        }
        if report.train_rows is None:
            text = _(
                "%(share)s of the errors on %(rows)s rows that the model was not fitted on lie between %(low)s and "
                "%(high)s",
                **shown,
            )
        else:
            text = _(
                "%(share)s of the errors on %(rows)s rows, each predicted by a model that was fitted without it (five "
                "folds), lie between %(low)s and %(high)s",
                **shown,
            )
        yield Fact(_("Interval"), text)
        covered = _("%(covered)s of %(rows)s test rows lie in it", covered=percent(report.covered), rows=rows)
        yield Fact(_("Coverage"), covered)
    if validation := report.cross_validation:
        yield _folds(validation, language)


def source_text(source: str, to: Language) -> str:
    """Return where the rows come from: in the reader's language, if `ml.tables.reading` has written it of a table."""
    if (found := _TABLE.fullmatch(source)) is None:
        return source
    named, n_features = {"file": found[1], "rows": found[2]}, int(found[3])
    if found[4] is None:
        return to.ngettext(
            "%(file)s: %(rows)s rows, %(count)s feature, a quantity",
            "%(file)s: %(rows)s rows, %(count)s features, a quantity",
            n_features, **named,
        )  # fmt: skip
    return to.ngettext(
        "%(file)s: %(rows)s rows, %(count)s feature, %(classes)s classes",
        "%(file)s: %(rows)s rows, %(count)s features, %(classes)s classes",
        n_features, classes=found[4], **named,
    )  # fmt: skip
