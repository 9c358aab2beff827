"""The decision map: the model's label over two features, all others held, as the paths of a picture.

Coordinates are whole units of the picture, 400 by 300; y grows downwards, as SVG has it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from ml.model.loaded import LoadedModel
from ml.model.plane import Plane, plane
from web.page.axes import (
    ACROSS_STEP,
    LEAST_LEFT,
    RIGHT,
    UP_STEP,
    Axis,
    Scale,
    level_axis,
    path_through,
    upright_axis,
)
from web.page.languages import Language
from web.page.quantities import QuantityScale, quantity_scale

# A region's name stands in its largest rectangle, if that is large enough for it.
NAME_HEIGHT, CHARACTER_WIDTH = 20, 8
# The symbols of training points, a shape for each label. Labels beyond them share the last one, a small dot: it says
# that there is no symbol of their own.
SYMBOLS = (
    "M-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0z",  # circle
    "M-2-2H2V2H-2z",  # square
    "M0-3L3 2H-3z",  # triangle
    "M0-3L3 0 0 3-3 0z",  # diamond
    "M-3 0H3M0-3V3",  # plus
    "M-2-2L2 2M-2 2L2-2",  # cross
    "M0 3L3-2H-3z",  # triangle that points down
    "M-2.6-3H2.6L-2.6 3H2.6z",  # hourglass
    "M-3-2.6V2.6L3-2.6V2.6z",  # bow tie
    "M-2.6-1.5L2.6 1.5M-2.6 1.5L2.6-1.5M0-3V3",  # star
    "M-3 1.8A3 3 0 0 1 3 1.8z",  # half a circle
    "M-1-3H1V-1H3V1H1V3H-1V1H-3V-1H-1z",  # Greek cross
    "M-1.2 0a1.2 1.2 0 1 0 2.4 0a1.2 1.2 0 1 0-2.4 0z",
)
# Labels take turns with so many hues; their symbols tell apart those with the same one.
HUES = 3
# A label is surer from each of these probabilities on.
SURER = (0.6, 0.85)
# The position of what is not on the map: outside of the picture.
NOWHERE = -99

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the plot: `path` is its outline; `css_classes` are for a label and how sure it is, or for a level."""

    path: str
    css_classes: str


@dataclass(frozen=True, slots=True)
class Name:
    """The name of the label at this position, at a point of the plot."""

    label: int
    text: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Points:
    """Training rows of one class or level: a path with one vertex each, and the symbol that is drawn there.

    `css_class` is that of the hue of a label, or of the shade of a level.
    """

    path: str
    symbol: str
    css_class: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The shared parts of all maps over the same two features, and the left end and width of the plot."""

    x: Axis
    y: Axis
    points: Sequence[Points]
    left: int
    width: int


@dataclass(frozen=True, slots=True)
class DecisionMap:
    """The parts that depend on the cell of the held features; `exact` is False when cuts were left out.

    Regions of a smooth map have slanted edges, and lie one upon the other.
    """

    regions: Sequence[Region]
    names: Sequence[Name]
    borders: str
    exact: bool
    is_smooth: bool = False


class Mapper:
    """Draws the maps of one model over two of its features, given by position.

    Attributes:
        plot: their shared parts.
    """

    def __init__(self, model: LoadedModel, language: Language, *, x: int, y: int, max_rows: int) -> None:
        self._model = model
        self._x, self._y = x, y
        self._max_rows = max_rows
        self._levels = quantity_scale(model.card, language)
        y_axis, self._y_scale, left = upright_axis(model.features[y], language)
        x_axis, self._x_scale = level_axis(model.features[x], language, left=left)
        self._points_of = self._points()
        self.plot = Plot(
            x_axis,
            y_axis,
            [
                Points(
                    path_through(points),
                    symbol_of(0 if self._levels else outcome),
                    f"step-{self._levels.tone(outcome)}" if self._levels else hue_of(outcome),
                )
                for outcome, points in sorted(self._points_of.items())
            ],
            left=left,
            width=RIGHT - left,
        )

    def _points(self) -> dict[int, set[tuple[int, int]]]:
        """Return the positions of the training rows by class or level; those without a value are left out."""
        model = self._model
        outcomes = model.reference_outcomes
        grouped = self._levels.levels(outcomes) if self._levels else outcomes.astype(int)
        points: dict[int, set[tuple[int, int]]] = {}  # many rows fall on one point
        for number, (outcome, row) in enumerate(zip(grouped.tolist(), model.reference_rows.tolist(), strict=True)):
            across = self._x_scale.spread(row[self._x], number, ACROSS_STEP)
            up = self._y_scale.spread(row[self._y], number, UP_STEP)
            if across is not None and up is not None:
                points.setdefault(outcome, set()).add((across, up))
        return points

    def position(self, row: Sequence[float]) -> tuple[int, int]:
        """Return the position of a row on the map; what has none there is outside of the picture."""
        x, y = self._x_scale.position(row[self._x]), self._y_scale.position(row[self._y])
        return NOWHERE if x is None else x, NOWHERE if y is None else y

    def draw(self, row: Sequence[float]) -> DecisionMap:
        """Return the map through a row."""
        found = plane(self._model, row, x=self._x, y=self._y, max_rows=self._max_rows)
        grid = Grid(found, self._x_scale, self._y_scale, self._levels)
        regions = [self._region(*kind, rectangles) for kind, rectangles in sorted(grid.rectangles().items())]
        return DecisionMap(regions, self._names(grid), grid.borders(), found.exact)

    def _region(self, label: int, sureness: int, rectangles: Sequence[_Rectangle]) -> Region:
        path = "".join(f"M{x} {y}h{width}v{height}H{x}z" for x, y, width, height in rectangles)
        return Region(path, self._look(label, sureness))

    def _look(self, label: int, sureness: int) -> str:
        """Return the CSS classes of a label or level."""
        return f"step-{self._levels.tone(label)}" if self._levels else f"{hue_of(label)} sure-{sureness}"

    def _names(self, grid: Grid) -> Sequence[Name]:
        return [] if self._levels else [*filter(None, itertools.starmap(self._name, grid.whole().items()))]

    def _name(self, label: int, rectangles: Sequence[_Rectangle]) -> Name | None:
        text = self._model.labels[label]
        points = self._points_of.get(label, set())
        fitting = [found for found in rectangles if found[2] >= CHARACTER_WIDTH * len(text) and found[3] >= NAME_HEIGHT]
        if not fitting:
            return None
        # The rectangle with most of its own points; a larger one may contain no training row.
        x, y, width, height = max(fitting, key=lambda found: (_count(points, found), found[2] * found[3]))
        return Name(label, text, x + width // 2, y + height // 2)


def _count(points: Iterable[tuple[int, int]], rectangle: _Rectangle) -> int:
    left, top, width, height = rectangle
    return sum(left <= x <= left + width and top <= y <= top + height for x, y in points)


_Rectangle = tuple[int, int, int, int]
# The position of a label and how sure it is, or the level of a quantity and 0.
_Kind = tuple[int, int]


class Grid:
    """A plane in units of the picture: kinds of cells between lines, without rows and columns that have no width."""

    def __init__(self, found: Plane, x_scale: Scale, y_scale: Scale, levels: QuantityScale | None) -> None:
        self.xs, columns = _lines(found.x_cuts.tolist(), x_scale)
        ys, rows = _lines(found.y_cuts.tolist(), y_scale)
        labels = found.indices if levels is None else levels.levels(found.answers)
        sure = np.searchsorted(SURER, found.answers, side="right") if levels is None else np.zeros_like(labels)
        self.labels: list[list[int]] = labels[rows][:, columns].tolist()
        self._sure: list[list[int]] = sure[rows][:, columns].tolist()
        self.ys = ys

    def rectangles(self) -> dict[_Kind, list[_Rectangle]]:
        """Return rectangles (left, top, width, height) that together are the regions, by kind."""
        return self._rectangles([list(zip(*lines, strict=True)) for lines in zip(self.labels, self._sure, strict=True)])

    def whole(self) -> dict[int, list[_Rectangle]]:
        """Return such rectangles by label alone."""
        return self._rectangles(self.labels)

    def _rectangles(self, lines: Sequence[Sequence[K]]) -> dict[K, list[_Rectangle]]:
        found: dict[K, list[_Rectangle]] = {}
        bottom = self.ys[0]
        for number, (top, line) in enumerate(zip(self.ys[1:], lines, strict=True), 1):
            if number < len(lines) and lines[number] == line:
                continue  # neighboring rows of the same cells are one
            for first, after, kind in _runs(line):
                left = self.xs[first]
                found.setdefault(kind, []).append((left, top, self.xs[after] - left, bottom - top))
            bottom = top
        return found

    def borders(self) -> str:
        """Return the path of the lines between labels, or levels."""
        parts = []
        bottom = self.ys[0]
        for number, (top, labels) in enumerate(zip(self.ys[1:], self.labels, strict=True), 1):
            if number < len(self.labels) and self.labels[number] == labels:
                continue
            parts += [f"M{self.xs[after]} {bottom}V{top}" for _, after, _ in _runs(labels)[:-1]]
            bottom = top
        for line, (below, above) in zip(self.ys[1:], pairwise(self.labels), strict=False):
            differs = [a != b for a, b in zip(below, above, strict=True)]
            parts += [f"M{self.xs[first]} {line}H{self.xs[after]}" for first, after, true in _runs(differs) if true]
        return "".join(parts)


def _lines(cuts: Sequence[float], scale: Scale) -> tuple[list[int], list[int]]:
    """Return the distinct lines, and the interval between each two of them."""
    lines, intervals = [scale.start], []
    for interval, cut in enumerate([*cuts, math.inf]):
        line = scale.position(cut)
        if line is not None and line != lines[-1]:
            lines.append(line)
            intervals.append(interval)
    return lines, intervals


def _runs(labels: Sequence[K]) -> list[tuple[int, int, K]]:
    """Return the stretches of equal labels: the first position, the one after the last, and the label."""
    starts = [0, *(place for place, (a, b) in enumerate(pairwise(labels), 1) if a != b), len(labels)]
    return [(first, after, labels[first]) for first, after in pairwise(starts)]


def try_axes(model: LoadedModel, language: Language) -> None:
    """Make the axes of each feature: every map has two of them, and there are too many maps to draw them all."""
    for feature in model.features:
        upright_axis(feature, language)
        level_axis(feature, language, left=LEAST_LEFT)


def hue_of(label: int) -> str:
    """Return the CSS class of the hue of the label at this position."""
    return f"hue-{label % HUES}"


def sureness_of(probability: float) -> str:
    """Return the CSS class of how sure a label is."""
    return f"sure-{sum(probability >= least for least in SURER)}"


def symbol_of(label: int) -> str:
    """Return the path of the symbol of the label at this position."""
    return SYMBOLS[min(label, len(SYMBOLS) - 1)]
