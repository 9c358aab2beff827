"""The drift report for operators: a page, its fragment for htmx, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from ml.model.loaded import LoadedModel
from web.api.description import N_
from web.metrics import drift
from web.metrics.counts import Counts, Source
from web.metrics.drift import MODERATE_BELOW, STABLE_BELOW, DriftReport, FeatureDrift, InputDrift, Verdict
from web.page import languages
from web.page.examples import Link, language_links
from web.page.fields import query_in
from web.page.languages import Language
from web.page.templates import render
from web.requests import preferred_representation
from web.service import service_of

_BAR_WIDTH = 8
_HEIGHT = 32
# The share of a bar as high as the picture: each tenth of the training data has a share of 0.1, so 0.5 is much.
_FULL_SHARE = 0.5
_VARY = "Accept, Accept-Language, HX-Request"
# Their sign, which says it without color; their name; and the headline of a source.
_VERDICTS: dict[Verdict, tuple[str, str, str]] = {
    "shifted": ("▲", N_("shifted"), N_("The inputs have shifted: %(features)s.")),
    "moderate": ("△", N_("moderate"), N_("The inputs have shifted moderately: %(features)s.")),
    "stable": ("●", N_("stable"), N_("The inputs match the training data.")),
    "too few samples": ("–", N_("stable"), N_("Too few samples for a comparison.")),
    "no training data": ("–", N_("stable"), N_("There is nothing to compare with.")),
}


@dataclass(frozen=True, slots=True)
class RowView:
    """One feature; `bars` and `expected` are SVG paths in a picture of this `width`, `described` is it in words."""

    key: str
    title: str
    verdict: Verdict
    icon: str
    said: str
    index: str
    outside: str
    missing: str
    width: int
    bars: str
    expected: str
    described: str


@dataclass(frozen=True, slots=True)
class SourceView:
    """The inputs of one source; `rows` are those of its features, the farthest from the training data first."""

    source: Source
    title: str
    verdict: Verdict
    icon: str
    headline: str
    basis: str
    has_index: bool
    has_gaps: bool
    rows: Sequence[RowView]


@dataclass(frozen=True, slots=True)
class DriftView:
    """The report, numbers formatted.

    `height` is that of each picture, `query` that of this page, and `start` the address of the page that predicts.
    """

    name: str
    version: str
    verdict: Verdict
    time: str
    stable: str
    moderate: str
    height: int
    sources: Sequence[SourceView]
    languages: Sequence[Link]
    query: str
    start: str


async def show(request: Request) -> Response:
    """GET /health/drift: the page, the fragment for htmx, or JSON."""
    service = service_of(request.scope)
    report, model = service.metrics.drift(), service.model
    representation = preferred_representation(request.scope, default="page")
    headers = {"Vary": _VARY, "Cache-Control": "no-store"}
    if representation == "json":
        return Response(msgspec.json.encode(report), 200, headers, media_type="application/json")
    to = languages.asked(request.scope)
    name = "drift.html" if representation == "page" else "_drift.html"
    content = render(name, to, drift=view(report, model, to), base="../")
    return Response(content, 200, {**headers, "Content-Language": to.code}, media_type="text/html")


def example_page(model: LoadedModel, to: Language) -> str:
    """Return the page of a model whose example was its only input."""
    counts = Counts(model.version, model.features, half_life_s=1.0)
    counts.add(np.array([[feature.example for feature in model.features]], dtype=np.float32))
    report = drift.report(model.card, model.version, [drift.drift_of(model.card, counts)], half_life_s=1.0)
    return render("drift.html", to, drift=view(report, model, to), base="../")


def view(report: DriftReport, model: LoadedModel, to: Language) -> DriftView:
    """Return the view of a report about a model."""
    titles = {feature.key: to.title(feature) for feature in model.features}
    return DriftView(
        name=report.model,
        version=report.version,
        verdict=report.verdict,
        time=f"{report.at:%Y-%m-%d %H:%M:%S} UTC",
        stable=to.number(STABLE_BELOW),
        moderate=to.number(MODERATE_BELOW),
        height=_HEIGHT,
        sources=[_source(inputs, report, titles, to) for inputs in report.sources],
        languages=language_links({}, to),
        query=f"?lang={to.code}",
        start="../" + query_in(to, model),
    )


def _source(inputs: InputDrift, report: DriftReport, titles: Mapping[str, str], to: Language) -> SourceView:
    features = sorted(inputs.features, key=lambda one: (-(one.psi or 0.0), -(one.outside or 0.0)))
    return SourceView(
        source=inputs.source,
        title=to.gettext("Typed on the page") if inputs.source == "page" else to.gettext("From programs and files"),
        verdict=inputs.verdict,
        icon=_VERDICTS[inputs.verdict][0],
        headline=_headline(inputs, [titles[one.feature] for one in features if one.verdict == inputs.verdict], to),
        basis=_basis(inputs, report, to),
        has_index=inputs.verdict not in ("too few samples", "no training data"),
        has_gaps=any(feature.missing for feature in features),
        rows=[_row(feature, titles[feature.feature], to) for feature in features] if inputs.samples else [],
    )


def _headline(inputs: InputDrift, titles: Sequence[str], to: Language) -> str:
    if not inputs.samples and inputs.verdict != "no training data":
        return to.gettext("No samples yet.")
    return to.gettext(_VERDICTS[inputs.verdict][2], features=to.listed(titles))


def _basis(inputs: InputDrift, report: DriftReport, to: Language) -> str:
    if inputs.verdict == "no training data":
        return to.gettext("No training rows are known of this model: its file was imported without a table.")
    if not inputs.samples:
        return ""
    said = [
        to.ngettext("%(count)s recent sample.", "%(count)s recent samples.", round(inputs.samples)),
        to.gettext("A sample counts half after %(time)s.", time=to.duration(report.half_life_s)),
    ]
    if inputs.by_chance is None:
        said.append(to.gettext("The index needs %(count)s samples.", count=report.least_samples))
    else:
        index = to.number(round(inputs.by_chance, 3))
        said.append(to.gettext("Without drift the index is about %(index)s, by chance.", index=index))
    return " ".join(said)


def _row(feature: FeatureDrift, title: str, to: Language) -> RowView:
    icon, name, _ = _VERDICTS[feature.verdict]
    return RowView(
        key=feature.feature,
        title=title,
        verdict=feature.verdict,
        icon=icon,
        said=to.gettext(name),
        index="–" if feature.psi is None else to.number(round(feature.psi, 3)),
        outside=_share(feature.outside, to),
        missing=_share(feature.missing, to),
        width=_BAR_WIDTH * len(feature.expected),
        bars="".join(
            f"M{_BAR_WIDTH * place + 1} {_HEIGHT}V{_top(share)}h{_BAR_WIDTH - 2}V{_HEIGHT}z"
            for place, share in enumerate(feature.shares)
            if share
        ),
        expected="".join(
            f"M{_BAR_WIDTH * place} {_top(share)}h{_BAR_WIDTH}" for place, share in enumerate(feature.expected)
        ),
        described=_described(feature, to),
    )


def _share(share: float | None, to: Language) -> str:
    return "–" if share is None else to.percent(share)


def _described(feature: FeatureDrift, to: Language) -> str:
    if not feature.shares:  # nobody has entered one
        return to.gettext("No samples yet.")
    named = [f"{choice} " for choice in feature.choices] + [""] * (len(feature.shares) - len(feature.choices))
    return ", ".join(f"{name}{to.percent(share)}" for name, share in zip(named, feature.shares, strict=True))


def _top(share: float) -> str:
    return f"{_HEIGHT * (1 - min(share / _FULL_SHARE, 1.0)):.3g}"
