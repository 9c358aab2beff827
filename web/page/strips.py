"""The line below each field: which label, or how large a quantity, the model gives along it, all others held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ml.model.card import TrainedFeature
from ml.model.loaded import LoadedModel
from ml.model.strips import Strip, strips
from web.page.axes import step_of
from web.page.decision_map import hue_of, sureness_of, symbol_of
from web.page.fields import control_of
from web.page.languages import Language
from web.page.quantities import QuantityScale

# A piece that is narrower has no symbol: so many hundredths of the line.
LEAST_WITH_SYMBOL = 7.0
# A sentence about a line names so many pieces.
MOST_SAID = 5


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a line: start and width in hundredths of the line, CSS classes, and the symbol of a wide one."""

    x: str
    width: str
    css_classes: str
    middle: str
    symbol: str


@dataclass(frozen=True, slots=True)
class StripView:
    """The line of one feature, whose field has this id: the pieces of each drawing, and the same in words.

    Radio buttons have a drawing each.
    """

    id: str
    lines: Sequence[Sequence[Piece]]
    said: str


def strips_of(
    model: LoadedModel, row: Sequence[float], to: Language, *, scale: QuantityScale | None
) -> Sequence[StripView]:
    """Return the lines through a row, in the order of the features; a quantity has a scale."""
    views = []
    for number, (feature, strip) in enumerate(zip(model.features, strips(model, row), strict=True), 1):
        pieces = _pieces(feature, strip, scale)
        drawn = [pieces]
        if control_of(feature) == "radio":
            drawn = [[replace(piece, x="0", width="100", middle="50")] for piece in pieces]
        said = _said(feature, strip, model.labels, scale, to)
        if strip.is_coarse:
            said += "; " + to.gettext("not every value was tried")
        views.append(StripView(f"f{number}", drawn, said))
    return views


def _pieces(feature: TrainedFeature, strip: Strip, scale: QuantityScale | None) -> list[Piece]:
    if scale is None:
        shades = [(index, sureness_of(answer)) for index, answer in zip(strip.indices, strip.answers, strict=True)]
    else:
        shades = [(scale.tone(level), "") for level in scale.levels_of(strip.answers)]
    # The choices of a category stand side by side: each has a piece of its own.
    keys = list(enumerate(shades)) if feature.choices else [(0, shade) for shade in shades]
    low, span = strip.ends[0], strip.ends[-1] - strip.ends[0]
    pieces = []
    for (_, (tone, sureness)), group in groupby(range(len(keys)), keys.__getitem__):
        places = list(group)
        start, end = ((strip.ends[at] - low) / (span or 1) * 100 for at in (places[0], places[-1] + 1))
        end = end if span else 100.0
        pieces.append(_piece(start, end, tone, sureness, is_label=scale is None))
    return pieces


def _piece(start: float, end: float, tone: int, sureness: str, *, is_label: bool) -> Piece:
    has_symbol = is_label and end - start >= LEAST_WITH_SYMBOL
    return Piece(
        x=f"{start:.1f}",
        width=f"{end - start:.1f}",
        css_classes=f"{hue_of(tone)} {sureness}" if is_label else f"step-{tone}",
        middle=f"{(start + end) / 2:.1f}",
        symbol=symbol_of(tone) if has_symbol else "",
    )


def _said(
    feature: TrainedFeature, strip: Strip, labels: Sequence[str], scale: QuantityScale | None, to: Language
) -> str:
    """Return a line in words: the label of each piece with its end, or from what to what a quantity goes."""
    if scale is not None:
        ends = {"low": scale.number(min(strip.answers)), "high": scale.text(max(strip.answers))}
        if ends["low"] == scale.number(max(strip.answers)):
            return to.gettext("along it the answer stays %(label)s", label=ends["high"])
        return to.gettext("along it the answer goes from %(low)s to %(high)s", **ends)
    if len({*strip.indices}) == 1:
        return to.gettext("along it the answer stays %(label)s", label=labels[strip.indices[0]])
    if feature.choices:
        parts = [
            f"{choice}: {labels[index]}" for choice, index in zip(feature.choices, strip.indices, strict=True)
        ]  # fmt: skip
    else:
        runs = [(index, [*group][-1]) for index, group in groupby(range(len(strip.indices)), strip.indices.__getitem__)]
        parts = [
            to.gettext("%(label)s up to %(end)s", label=labels[index], end=to.rounded(strip.ends[at + 1], step / 10))
            for step in [step_of(feature)]
            for index, at in runs
        ]
    left = len(parts) - MOST_SAID
    if left > 0:
        parts[MOST_SAID:] = [to.ngettext("%(count)s more", "%(count)s more", left)]
    return to.gettext("along it the answer is %(parts)s", parts="; ".join(parts))
