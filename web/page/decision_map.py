"""The decision map: the model's label over two features, all others held, as the paths of a picture.

Coordinates are whole units of the picture, 400 by 300; y grows downwards, as SVG has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier
from ml.model.plane import Plane, plane
from web.page.languages import Language

# The plot inside of the picture: left, top, width, height. The space to its left and below it is for the scales.
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 38, 4, 358, 264
# The plot shows a little more than the training range.
MARGIN = 0.04
# A region's name stands in its largest rectangle, if that is large enough for it.
NAME_HEIGHT, CHARACTER_WIDTH = 20, 8
# The marks of training points, a shape for each label: dot, square, triangle, diamond, plus and cross. More labels
# share them, as they share the shades of regions.
MARKS = (
    "M-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0z",
    "M-2-2H2V2H-2z",
    "M0-3L3 2H-3z",
    "M0-3L3 0 0 3-3 0z",
    "M-3 0H3M0-3V3",
    "M-2-2L2 2M-2 2L2-2",
)
TONES = 3


@dataclass(frozen=True, slots=True)
class Axis:
    """One feature's side of the map.

    `low` and `high` are the values at the ends of the plot, `step` a round one to move by, `ticks` positions and texts.
    """

    key: str
    title: str
    low: float
    high: float
    step: str
    ticks: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Region:
    """The part of the plot with one label: `path` is its outline, `tone` one of three shades, its name is at a point.

    `label` is its position, and `name` is empty where there is no space for it.
    """

    label: int
    path: str
    tone: int
    name: str
    name_x: int
    name_y: int


@dataclass(frozen=True, slots=True)
class Points:
    """Training rows of one class: a path with one vertex each, and the path of the mark that is drawn there."""

    path: str
    mark: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The shared parts of all maps over the same two features."""

    x: Axis
    y: Axis
    points: Sequence[Points]


@dataclass(frozen=True, slots=True)
class DecisionMap:
    """The parts that depend on the cell of the held features; `exact` is False when cuts were left out."""

    regions: Sequence[Region]
    borders: str
    exact: bool


@dataclass(frozen=True, slots=True)
class _Scale:
    """The positions of the values of one feature: `low` at `start`, `high` at `end`."""

    low: float
    high: float
    start: int
    end: int

    def position(self, value: float) -> int:
        """Return the position of a value; those outside are at the nearer end."""
        if value <= self.low:
            return self.start
        if value >= self.high:
            return self.end
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start))


class Mapper:
    """Draws the maps of one model over two of its features, given by position.

    Attributes:
        plot: their shared parts.
    """

    def __init__(self, model: Classifier, language: Language, *, x: int, y: int, max_rows: int) -> None:
        self._model = model
        self._x, self._y = x, y
        self._max_rows = max_rows
        self._x_scale = _scale(model.features[x], LEFT, LEFT + PLOT_WIDTH)
        self._y_scale = _scale(model.features[y], TOP + PLOT_HEIGHT, TOP)
        # Dictionaries, as sets that keep their order: many rows fall on one point.
        self._points_of: dict[int, dict[tuple[int, int], None]] = {}
        classes = model.reference_outcomes.astype(int).tolist()
        for label, row in zip(classes, model.reference_rows.tolist(), strict=True):
            self._points_of.setdefault(label, {})[self.position(row)] = None
        self.plot = Plot(
            _axis(model.features[x], self._x_scale, language),
            _axis(model.features[y], self._y_scale, language),
            [
                Points("M" + " ".join(f"{x} {y}" for x, y in points), mark_of(label))
                for label, points in sorted(self._points_of.items())
            ],
        )

    def position(self, row: Sequence[float]) -> tuple[int, int]:
        """Return the position of a row on the map."""
        return self._x_scale.position(row[self._x]), self._y_scale.position(row[self._y])

    def draw(self, row: Sequence[float]) -> DecisionMap:
        """Return the map through a row."""
        found = plane(self._model, row, x=self._x, y=self._y, max_rows=self._max_rows)
        grid = _Grid(found, self._x_scale, self._y_scale)
        rectangles, borders = grid.rectangles(), grid.borders()
        regions = [self._region(label, rectangles[label]) for label in sorted(rectangles)]
        return DecisionMap(regions, borders, found.exact)

    def _region(self, label: int, rectangles: Sequence[_Rectangle]) -> Region:
        path = "".join(f"M{x} {y}h{width}v{height}H{x}z" for x, y, width, height in rectangles)
        name = self._model.labels[label]
        points = self._points_of.get(label, {})
        fitting = [found for found in rectangles if found[2] >= CHARACTER_WIDTH * len(name) and found[3] >= NAME_HEIGHT]
        if not fitting:
            return Region(label, path, label % TONES, "", 0, 0)
        # The rectangle with most of its own points; a larger one may contain no training row.
        x, y, width, height = max(fitting, key=lambda found: (_count(points, found), found[2] * found[3]))
        return Region(label, path, label % TONES, name, x + width // 2, y + height // 2)


def _count(points: Iterable[tuple[int, int]], rectangle: _Rectangle) -> int:
    left, top, width, height = rectangle
    return sum(left <= x <= left + width and top <= y <= top + height for x, y in points)


# The positions of the features on the map, across and up; a model of one feature has no map.
Axes = tuple[int, int] | None


def default_axes(model: Classifier) -> Axes:
    """Return the two most important features, the most important one across."""
    ranked = sorted(range(len(model.features)), key=lambda feature: -model.features[feature].importance)
    return (ranked[0], ranked[1]) if len(ranked) > 1 else None


def axes_of(model: Classifier, x: str | None, y: str | None) -> Axes:
    """Return the requested axes; an unknown key, or the same key twice, is replaced by the default."""
    default = default_axes(model)
    if default is None or (x is None and y is None):
        return default
    positions = {feature.key: position for position, feature in enumerate(model.features)}
    across = positions.get(x or "", default[0])
    up = positions.get(y or "", default[1])
    if across == up:
        up = next(position for position in (*default, across) if position != across)
    return across, up


_Rectangle = tuple[int, int, int, int]


class _Grid:
    """A plane in units of the picture: labels between lines, without the rows and columns that have no width."""

    def __init__(self, found: Plane, x_scale: _Scale, y_scale: _Scale) -> None:
        self.xs, columns = _lines(found.x_cuts.tolist(), x_scale)
        ys, rows = _lines(found.y_cuts.tolist(), y_scale)
        kept = found.indices[rows][:, columns].tolist()
        # Neighboring rows of the same labels are one.
        self.ys = [ys[0]]
        self.labels: list[list[int]] = []
        for line, labels in zip(ys[1:], kept, strict=True):
            if self.labels and self.labels[-1] == labels:
                self.ys[-1] = line
            else:
                self.labels.append(labels)
                self.ys.append(line)

    def rectangles(self) -> dict[int, list[_Rectangle]]:
        """Return rectangles (left, top, width, height) that together are the regions, by label."""
        found: dict[int, list[_Rectangle]] = {}
        for (bottom, top), labels in zip(pairwise(self.ys), self.labels, strict=True):
            for first, after, label in _runs(labels):
                left = self.xs[first]
                found.setdefault(label, []).append((left, top, self.xs[after] - left, bottom - top))
        return found

    def borders(self) -> str:
        """Return the path of the lines between regions."""
        parts = []
        for (bottom, top), labels in zip(pairwise(self.ys), self.labels, strict=True):
            parts += [f"M{self.xs[after]} {bottom}V{top}" for _, after, _ in _runs(labels)[:-1]]
        for line, (below, above) in zip(self.ys[1:], pairwise(self.labels), strict=False):
            differs = [a != b for a, b in zip(below, above, strict=True)]
            parts += [f"M{self.xs[first]} {line}H{self.xs[after]}" for first, after, true in _runs(differs) if true]
        return "".join(parts)


def _lines(cuts: Sequence[float], scale: _Scale) -> tuple[list[int], list[int]]:
    """Return the distinct lines, and the interval between each two of them."""
    lines, intervals = [scale.start], []
    for interval, cut in enumerate([*cuts, math.inf]):
        if (line := scale.position(cut)) != lines[-1]:
            lines.append(line)
            intervals.append(interval)
    return lines, intervals


def _runs(labels: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the stretches of equal labels: the first position, the one after the last, and the label."""
    starts = [0, *(place for place, (a, b) in enumerate(pairwise(labels), 1) if a != b), len(labels)]
    return [(first, after, labels[first]) for first, after in pairwise(starts)]


def _scale(feature: TrainedFeature, start: int, end: int) -> _Scale:
    margin = MARGIN * (feature.high - feature.low) or abs(feature.low) or 1.0
    low, high = feature.low - margin, feature.high + margin
    low = low if feature.minimum is None else max(low, feature.minimum)
    high = high if feature.maximum is None else min(high, feature.maximum)
    if low == high:  # limits may leave no space at all
        margin = max(abs(feature.low) / 2, 1.0)
        low, high = feature.low - margin, feature.high + margin
    return _Scale(low, high, start, end)


def try_axes(model: Classifier, language: Language) -> None:
    """Make the axis of each feature: every map has two of them, and there are too many maps to draw them all."""
    for feature in model.features:
        _axis(feature, _scale(feature, LEFT, LEFT + PLOT_WIDTH), language)


def _axis(feature: TrainedFeature, scale: _Scale, language: Language) -> Axis:
    title = language.title(feature)
    return Axis(
        key=feature.key,
        title=f"{title} ({feature.unit})" if feature.unit else title,
        low=scale.low,
        high=scale.high,
        step=repr(step_of(feature)),
        ticks=[(scale.position(tick), language.number(tick)) for tick in _ticks(scale.low, scale.high)],
    )


def mark_of(label: int) -> str:
    """Return the path of the mark of the label at this position."""
    return MARKS[label % len(MARKS)]


def step_of(feature: TrainedFeature) -> float:
    """Return a round step through the feature's training range: a power of ten, some twenty to two hundred of them."""
    span = feature.high - feature.low
    if not (0 < span < math.inf):
        return 1.0
    # The logarithm of each: of a span next to 0, a twentieth may be 0. So may a power of ten.
    return float(f"1e{math.floor(math.log10(span) - math.log10(20))}") or span


def _ticks(low: float, high: float) -> list[float]:
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
