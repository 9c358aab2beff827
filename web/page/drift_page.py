"""The drift report for operators: a page, its fragment for htmx, or JSON. In English, like logs and documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from ml.model.classifier import Classifier
from web.metrics import drift
from web.metrics.counts import Counts
from web.metrics.drift import MODERATE_BELOW, STABLE_BELOW, DriftReport, FeatureDrift, Verdict
from web.page.languages import SOURCE, language
from web.page.templates import render
from web.requests import preferred_representation
from web.service import service_of

_HEADLINES: dict[Verdict, str] = {
    "too few samples": "Too few samples.",
    "stable": "The inputs match the training data.",
    "moderate": "The inputs have shifted moderately.",
    "shifted": "The inputs have shifted.",
    "no training data": "There is nothing to compare with.",
}
_BAR_WIDTH = 8
_HEIGHT = 32
# The share of a bar as high as the picture: each tenth of the training data has a share of 0.1, so 0.5 is much.
_FULL_SHARE = 0.5
_HEADERS = {"Vary": "Accept, HX-Request", "Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class RowView:
    """One feature; `bars` and `expected` are SVG paths in a picture of this `width`, `described` is it in words."""

    key: str
    title: str
    verdict: Verdict
    index: str
    outside: str
    missing: str
    width: int
    bars: str
    expected: str
    described: str


@dataclass(frozen=True, slots=True)
class DriftView:
    """The report, numbers formatted; `height` is that of each picture."""

    name: str
    version: str
    verdict: Verdict
    headline: str
    basis: str
    by_chance: str
    stable: str
    moderate: str
    height: int
    rows: Sequence[RowView]


async def show(request: Request) -> Response:
    """GET /health/drift: the page, the fragment for htmx, or JSON."""
    report = service_of(request.scope).metrics.drift()
    representation = preferred_representation(request.scope, default="page")
    if representation == "json":
        return Response(msgspec.json.encode(report), 200, _HEADERS, media_type="application/json")
    name = "drift.html" if representation == "page" else "_drift.html"
    content = render(name, language(SOURCE), drift=view(report), base="../")
    return Response(content, 200, _HEADERS, media_type="text/html")


def example_page(model: Classifier) -> str:
    """Return the page of a model whose example was its only input."""
    counts = Counts(model.version, model.features, half_life_s=1.0)
    counts.add(np.array([[feature.example for feature in model.features]], dtype=np.float32))
    return render("drift.html", language(SOURCE), drift=view(drift.report(model.card, counts)), base="../")


def view(report: DriftReport) -> DriftView:
    """Return the view of a report."""
    processes = "1 process" if report.processes == 1 else f"{report.processes} processes"
    basis = (
        f"{report.samples:,.0f} samples of {processes}; a sample of {_shown_time(report.half_life_s)} ago counts half."
    )
    if report.verdict == "too few samples":
        basis += f" The index needs at least {report.least_samples:,} samples."
    if report.verdict == "no training data":
        basis = "No training rows are known of this model: its file was imported without a table."
    by_chance = (
        "" if report.by_chance is None else f"Without drift, the index is about {report.by_chance:.3f} by chance."
    )
    return DriftView(
        name=report.model,
        version=report.version,
        verdict=report.verdict,
        headline=_HEADLINES[report.verdict],
        basis=basis,
        by_chance=by_chance,
        stable=f"{STABLE_BELOW:g}",
        moderate=f"{MODERATE_BELOW:g}",
        height=_HEIGHT,
        rows=[_row(feature) for feature in report.features],
    )


def _row(feature: FeatureDrift) -> RowView:
    steps = enumerate(feature.expected)
    return RowView(
        key=feature.feature,
        title=feature.title,
        verdict=feature.verdict,
        index="–" if feature.psi is None else f"{feature.psi:.3f}",
        outside=_percent(feature.outside),
        missing=_percent(feature.missing),
        width=_BAR_WIDTH * len(feature.expected),
        bars="".join(
            f"M{_BAR_WIDTH * place + 1} {_HEIGHT}V{_top(share)}h{_BAR_WIDTH - 2}V{_HEIGHT}z"
            for place, share in enumerate(feature.shares)
            if share
        ),
        expected="".join(f"M{_BAR_WIDTH * place} {_top(share)}h{_BAR_WIDTH}" for place, share in steps),
        described=_described(feature),
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


def _described(feature: FeatureDrift) -> str:
    named = [f"{choice} " for choice in feature.choices] + [""] * (len(feature.shares) - len(feature.choices))
    shares = zip(named, feature.shares, strict=True) if feature.shares else ()
    return ", ".join(f"{name}{share * 100:.0f} %" for name, share in shares) or "no samples yet"


def _top(share: float) -> str:
    return f"{_HEIGHT * (1 - min(share / _FULL_SHARE, 1.0)):.3g}"


def _shown_time(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = f"{seconds / length:.3g}"
            return f"{count} {unit}{'s' if count != '1' else ''}"
    return f"{seconds:.3g} seconds"
