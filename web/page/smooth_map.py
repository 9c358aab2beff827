"""The decision map of a model of scores: lines of equal log odds, or of equal quantity, bound its regions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ml.model.plane import Plane, smooth
from web.page.axes import PLOT_HEIGHT, RIGHT, TOP
from web.page.contours import Box, Field, area
from web.page.decision_map import SURER, DecisionMap, Grid, Mapper, Name, Region

# Scores are known at so many points, across and up; names are placed by every fourth of them.
ACROSS, UP, NAMED = 65, 49, 4
# Log odds and quantities are not so far from 0.
EVERYWHERE, NOWHERE = -1e300, 1e300


@dataclass(frozen=True, slots=True)
class Layer:
    """What is drawn upon the layers before it: where a field is at least at a level, and whether labels meet there."""

    field: Field
    level: float
    css_classes: str
    is_border: bool


class SmoothMapper(Mapper):
    """Draws the maps of one model over two of its features; smooth ones where its scores are polynomials."""

    def draw(self, row: Sequence[float]) -> DecisionMap:
        """Return the map through a row."""
        xs, ys = (np.linspace(scale.low, scale.high, n) for scale, n in ((self._x_scale, ACROSS), (self._y_scale, UP)))
        fields = smooth(self._model, row, x=self._x, xs=xs, y=self._y, ys=ys)
        if fields is None:
            return super().draw(row)
        box = Box(self.plot.left, TOP + PLOT_HEIGHT, RIGHT, TOP)
        drawn = [(layer, *area(layer.field, layer.level, box)) for layer in self._layers(fields)]
        return DecisionMap(
            regions=[Region(path, layer.css_classes) for layer, path, _ in drawn if path],
            names=self._named(fields, xs, ys),
            borders="".join(edge for layer, _, edge in drawn if layer.is_border),
            exact=True,
            is_smooth=True,
        )

    def _layers(self, fields: Field) -> Iterator[Layer]:
        if self._levels:
            for level, least in enumerate([EVERYWHERE, *self._levels.breaks]):
                yield Layer(fields[0], least, self._look(level, 0), is_border=level > 0)
        elif len(fields) == 2:
            yield from self._layers_of_two(fields)
        else:
            second, first = np.partition(fields, -2, axis=0)[-2:]
            for label, own in enumerate(fields):
                ahead = own - np.where(own == first, second, first)
                # Each border is one of two labels.
                yield Layer(ahead, 0.0, self._look(label, 0), is_border=label > 0)
                for place, least in enumerate(SURER, 1):
                    yield Layer(own, _log_odds(least), self._look(label, place), is_border=False)

    def _layers_of_two(self, fields: Field) -> Iterator[Layer]:
        """Yield the layers along the log odds of the label that a threshold decides on."""
        positive, border = self._border()
        surer = [_log_odds(least) for least in SURER]
        before = ""
        for level, after in pairwise(sorted({EVERYWHERE, border, NOWHERE, *surer, *(-least for least in surer)})):
            label = positive if level >= border else 1 - positive
            middle = level / 2 + after / 2
            look = self._look(label, sum((middle if label == positive else -middle) >= least for least in surer))
            if look != before:
                yield Layer(fields[positive], level, look, is_border=level == border)
            before = look

    def _border(self) -> tuple[int, float]:
        """Return the label of two that a threshold decides on, and the log odds from which it is the answer."""
        decision = self._model.card.decision
        if decision is None:
            return 1, 0.0
        return self._model.labels.index(decision.positive), _log_odds(decision.threshold)

    def _named(self, fields: Field, xs: Field, ys: Field) -> Sequence[Name]:
        if self._levels:
            return []
        if len(fields) == 2:
            positive, border = self._border()
            labels = np.where(fields[positive] >= border, positive, 1 - positive)
        else:
            labels = fields.argmax(axis=0)
        middles = slice(NAMED // 2, None, NAMED)
        found, ends = labels[middles, middles], slice(NAMED, -1, NAMED)
        cells = Plane(xs[ends], ys[ends], found, np.zeros(found.shape), exact=True)
        return self._names(Grid(cells, self._x_scale, self._y_scale, None))


def _log_odds(share: float) -> float:
    if 0 < share < 1:
        return math.log(share / (1 - share))
    return NOWHERE if share else EVERYWHERE
