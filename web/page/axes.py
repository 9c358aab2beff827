"""The sides of the decision map: which features they show, and the positions of values along them.

Coordinates are whole units of the picture, 400 by 300; y grows downwards, as SVG has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ml.model.card import TrainedFeature
from ml.model.loaded import LoadedModel
from web.page.languages import Language

# The plot inside of the picture: top, right end, height. The space to its left and below it is for the scales.
TOP, RIGHT, PLOT_HEIGHT = 4, 396, 264
# That to its left is as wide as the longest text there, between these bounds.
LEAST_LEFT, MOST_LEFT = 38, 112
# A letter of the scales, 13 units high, and a line of them.
LETTER_WIDTH, LINE_HEIGHT = 7.2, 16
# Names beside each other have at most so many letters, if there are many of them.
MOST_LETTERS = 9
# An end of a training range with more signs is rounded beside its field.
MOST_DIGITS = 7
# The plot shows a little more than the training range.
MARGIN = 0.04
# The usual axes are two of so many of the most important features: those over which the answers differ most around the
# example, as a few values of each show, or more important ones over which they differ nearly as much.
TRIED_FEATURES, TRIED_VALUES, NEARLY = 8, 9, 0.8
# Training rows with the same choice are spread over this part of its band. One row after the other, each falls into
# the largest gap so far (M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018).
SPREAD = 0.7
ACROSS_STEP, UP_STEP = 0.7548776662, 0.5698402910


@dataclass(frozen=True, slots=True)
class Axis:
    """One feature's side of the map.

    `low` and `high` are the values at the ends of the plot, `ticks` positions and texts.
    """

    key: str
    title: str
    low: float
    high: float
    ticks: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Scale:
    """The positions of the values of one feature: `low` at `start`, `high` at `end`.

    Each choice of a category has a band of the same width, around the position that stands for it in a row.
    """

    low: float
    high: float
    start: int
    end: int
    is_category: bool = False

    def position(self, value: float) -> int | None:
        """Return the position of a value, for those outside the nearer end; None for no value and an unknown word."""
        if value <= self.low:
            return None if self.is_category else self.start
        if value >= self.high:
            return self.end
        if value != value:  # noqa: PLR0124  # NaN alone
            return None
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start))

    def spread(self, value: float, number: int, step: float) -> int | None:
        """Return the position of a value in the training row with this number: somewhere in the band of a choice."""
        return self.position(value + SPREAD * (number * step % 1 - 0.5) if self.is_category and value >= 0 else value)


# The positions of the features on the map, across and up; a model of one feature has no map.
Axes = tuple[int, int] | None


def default_axes(model: LoadedModel) -> Axes:
    """Return two features over which there is a border to see, the more important one across."""
    return model.made(_default_axes)


def _default_axes(model: LoadedModel) -> Axes:
    ranked = sorted(range(len(model.features)), key=lambda feature: -model.features[feature].importance)
    pairs = list(combinations(ranked[:TRIED_FEATURES], 2))
    if len(pairs) < 2:
        return pairs[0] if pairs else None
    row = [feature.example for feature in model.features]
    differences = [_difference(model, row, *pair) for pair in pairs]
    enough = NEARLY * max(differences)
    return next(pair for pair, found in zip(pairs, differences, strict=True) if found >= enough)


def _difference(model: LoadedModel, row: Sequence[float], x: int, y: int) -> float:
    """Return how far the answers over two features are apart, all others held; another label counts as much again."""
    xs, ys = (_tried(model.features[side]) for side in (x, y))
    rows = np.tile(np.array(row, dtype=np.float64), (len(xs) * len(ys), 1))
    rows[:, x], rows[:, y] = np.tile(xs, len(ys)), np.repeat(ys, len(xs))
    found = model.predict_batch(rows)
    return float(np.ptp(found.outputs, axis=0).max()) + bool(np.ptp(found.indices))


def _tried(feature: TrainedFeature) -> NDArray[np.float64]:
    if feature.choices:
        return np.arange(min(len(feature.choices), TRIED_VALUES), dtype=np.float64)
    return np.linspace(feature.low, feature.high, TRIED_VALUES)


def axes_of(model: LoadedModel, x: str | None, y: str | None) -> Axes:
    """Return the requested axes; an unknown key is replaced by the default.

    Of the same key twice, one is what someone has just chosen, without a script: it is not where it is by default.
    """
    default = default_axes(model)
    if default is None or (x is None and y is None):
        return default
    positions = {feature.key: position for position, feature in enumerate(model.features)}
    across = positions.get(x or "", default[0])
    up = positions.get(y or "", default[1])
    if across != up:
        return across, up
    other = next(position for position in (*default, across) if position != across)
    return (other, up) if up == default[0] else (across, other)


def scale_of(feature: TrainedFeature, start: int, end: int) -> Scale:
    """Return the scale of a feature between two positions."""
    if feature.choices:
        return Scale(-0.5, len(feature.choices) - 0.5, start, end, is_category=True)
    margin = MARGIN * (feature.high - feature.low) or abs(feature.low) or 1.0
    low, high = feature.low - margin, feature.high + margin
    low = low if feature.minimum is None else max(low, feature.minimum)
    high = high if feature.maximum is None else min(high, feature.maximum)
    if low == high:  # limits may leave no space at all
        margin = max(abs(feature.low) / 2, 1.0)
        low, high = feature.low - margin, feature.high + margin
    return Scale(low, high, start, end)


def axis_of(feature: TrainedFeature, scale: Scale, language: Language, *, letters: float) -> Axis:
    """Return a feature's side of the map; a tick has at most so many letters, or is cut short."""
    return Axis(
        key=feature.key,
        title=axis_title(feature, language),
        low=scale.low,
        high=scale.high,
        ticks=_choice_ticks(feature, scale, letters)
        if feature.choices
        else [
            (_at(scale, tick), language.number(tick))
            for tick in ticks_of(scale.low, scale.high)
            if not feature.unit_step or tick.is_integer()
        ],
    )


def axis_title(feature: TrainedFeature, language: Language) -> str:
    """Return the title of a feature with its unit."""
    title = language.title(feature)
    return f"{title} ({feature.unit})" if feature.unit else title


def upright_axis(feature: TrainedFeature, language: Language) -> tuple[Axis, Scale, int]:
    """Return the side of the map that goes up, its scale, and the left end of the plot, which its texts ask for."""
    scale = scale_of(feature, TOP + PLOT_HEIGHT, TOP)
    axis = axis_of(feature, scale, language, letters=(MOST_LEFT - 8) / LETTER_WIDTH)
    longest = max(len(text) for _, text in axis.ticks)
    return axis, scale, min(max(LEAST_LEFT, round(8 + LETTER_WIDTH * longest)), MOST_LEFT)


def level_axis(feature: TrainedFeature, language: Language, *, left: int) -> tuple[Axis, Scale]:
    """Return the side of the map that goes across, and its scale."""
    scale = scale_of(feature, left, RIGHT)
    band = (RIGHT - left) / max(1, len(feature.choices))
    return axis_of(feature, scale, language, letters=band / LETTER_WIDTH), scale


def _choice_ticks(feature: TrainedFeature, scale: Scale, letters: float) -> list[tuple[int, str]]:
    """Return the choices, or every so many of them where there is no space for each."""
    choices = feature.choices
    length = abs(scale.end - scale.start)
    # Names stand beside each other on the side that goes across, and below each other on the one that goes up.
    longest = max(map(len, choices))
    least = LINE_HEIGHT if scale.end < scale.start else LETTER_WIDTH * min(longest + 1, MOST_LETTERS)
    every = max(1, math.ceil(least * len(choices) / length))
    letters = letters if every == 1 else MOST_LETTERS
    return [
        (_at(scale, position), shortened(choices[position], int(letters)))
        for position in range(0, len(choices), every)
    ]  # fmt: skip


def shortened(text: str, letters: int) -> str:
    """Return text that has at most so many letters, the last of them an ellipsis if some are left out."""
    return text if len(text) <= letters else text[: max(1, letters - 1)].rstrip() + "…"


def _at(scale: Scale, value: float) -> int:
    position = scale.position(value)
    assert position is not None
    return position


def step_of(feature: TrainedFeature) -> float:
    """Return a round step through the feature's training range: a power of ten, some twenty to two hundred of them.

    The step through a category is one choice, and no step is less than one of whole numbers.
    """
    span = feature.high - feature.low
    if feature.choices or not (0 < span < math.inf):
        return 1.0
    # The logarithm of each: of a span next to 0, a twentieth may be 0. So may a power of ten.
    return max(feature.unit_step, float(f"1e{math.floor(math.log10(span) - math.log10(20))}") or span)


def end_text(feature: TrainedFeature, end: float, to: Language) -> str:
    """Return an end of the training range as it stands beside a field: rounded only if it has many digits."""
    text = to.number(end)
    return text if len(text) <= MOST_DIGITS else to.rounded(end, step_of(feature) / 10)


def ticks_of(low: float, high: float) -> list[float]:
    """Return some three to six round numbers from low to high: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    power = math.floor(math.log10(span) - math.log10(3))
    for factor in (5, 2, 1):
        step = factor * 10.0**power
        if not step:
            break
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first >= 2:
            return [round(number * step, max(0, -power)) for number in range(first, last + 1)]
    return [low, high]


def path_through(points: Iterable[tuple[int, int]]) -> str:
    """Return the path of a picture with a vertex at each point, from left to right.

    It has the steps between them: they are shorter than places, with 30 features by 0.5 kB of a packed page.
    """
    steps = np.diff(sorted(points), axis=0, prepend=0)
    return "m" + " ".join(map(str, steps.ravel().tolist()))
