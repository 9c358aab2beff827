"""Where the answer of a model of scores changes along one feature, all others held, and its nearest change.

A score is a sum of one part a feature. Along a number whose steps only scale it, a part is a polynomial: of the first
degree in a linear model, of the second in naive Bayes. The value at which two scores are level is then one of its
roots. Where a step is no polynomial, or several models are averaged, borders are looked for between `POINTS` values.
What is said is what the model itself answers there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.model.changes import Change, Direction, Explanation, Range, shortest
from ml.model.loaded import LoadedModel

Values = NDArray[np.float64]

POINTS = 65
# So near are the two sides of a border, as a share of what was searched.
NEARNESS = 1e-7
HALVINGS = 20
# A change is said with a hundredth of this share of the training range, or more digits.
CHANGE_STEP = 0.1


@dataclass(frozen=True, slots=True)
class Border:
    """The last value of a feature with the row's own label, and the first one with another, whose index this is."""

    feature: int
    last: float
    first: float
    label: int


class Borders:
    """The borders around a row of its own label, within the training range of each number and up to the row.

    Of a quantity, reaching a goal or not are the two labels.

    Attributes:
        found: those of numbers.
        choices: by category, the label of each of its choices.
        own: the row's own label.
    """

    def __init__(self, model: LoadedModel, row: Sequence[float], goal: float | None) -> None:
        self._model, self._row, self._goal = model, np.array(row, dtype=np.float64), goal
        self._level = _level(model, goal)
        lows, highs = (np.array([getattr(feature, end) for feature in model.features]) for end in ("low", "high"))
        self._low, self._high = np.fmin(lows, self._row), np.fmax(highs, self._row)
        is_number = np.array([not feature.choices for feature in model.features])
        numbers = np.flatnonzero(is_number & ~np.isnan(self._row) & (self._low < self._high))
        words = [(place, len(one.choices)) for place, one in enumerate(model.features) if one.choices]
        pairs = self._pairs(numbers)
        of_words = np.repeat([place for place, _ in words], [size for _, size in words]).astype(np.intp)
        choices = np.concatenate([np.arange(size, dtype=np.float64) for _, size in words] or [np.empty(0)])
        features = np.concatenate([[0], np.repeat(pairs.features, 2), of_words]).astype(np.intp)
        labels = self._labels(features, np.concatenate([self._row[:1], pairs.values.ravel(), choices]))
        self.own = int(labels[0])
        self.found = self._borders(pairs, labels[1 : 1 + 2 * len(pairs.features)].reshape(-1, 2))
        ends = np.cumsum([1 + 2 * len(pairs.features), *(size for _, size in words)]).tolist()
        self.choices = {
            place: labels[start : start + size].tolist() for (place, size), start in zip(words, ends, strict=False)
        }

    def _labels(self, features: NDArray[np.intp], values: Values) -> NDArray[np.intp]:
        """Return the label of the row with each of these values in the place of one feature's."""
        batch = self._model.predict_along(self._row, features, values)
        return batch.indices if self._goal is None else (batch.values >= self._goal).astype(np.intp)

    def _pairs(self, numbers: NDArray[np.intp]) -> _Pairs:
        """Return neighbors between which there may be a border, the nearer one to the row first."""
        scores, own = self._model.scores, self._row
        assert scores is not None
        found = [_Pairs.none()]
        closed = np.array([place for place in numbers.tolist() if self._level is not None and scores.is_closed(place)])
        if len(closed):
            assert self._level is not None
            closed = closed.astype(np.intp)
            low, span = self._low[closed], (self._high - self._low)[closed]
            features, roots = scores.roots(own, closed, low, span, level=self._level)
            steps = np.where(roots >= own[closed][features], NEARNESS, -NEARNESS) * span[features]
            sides = np.column_stack([roots - steps, roots + steps])
            sides = np.clip(sides, low[features, None], (low + span)[features, None])
            found.append(_Pairs(closed[features], sides, is_near=np.ones(len(features), dtype=bool)))
        for place in set(numbers.tolist()) - set(closed.tolist()):
            tried = np.union1d(np.linspace(self._low[place], self._high[place], POINTS), own[place])
            sides = np.column_stack([tried[:-1], tried[1:]])
            sides = np.where(sides[:, :1] >= own[place], sides, sides[:, ::-1])
            found.append(_Pairs(np.full(len(sides), place), sides, is_near=np.zeros(len(sides), dtype=bool)))
        return _Pairs(*(np.concatenate(parts) for parts in zip(*map(_Pairs.parts, found), strict=True)))

    def _borders(self, pairs: _Pairs, sides: NDArray[np.intp]) -> list[Border]:
        kept = (sides[:, 0] == self.own) & (sides[:, 1] != self.own)
        features, values, labels, is_near = (
            part[kept] for part in (pairs.features, pairs.values, sides[:, 1], pairs.is_near)
        )
        for _ in range(0 if is_near.all() else HALVINGS):
            middles = values.mean(axis=1)
            found = self._labels(features, middles)
            is_own = found == self.own
            values = np.column_stack([np.where(is_own, middles, values[:, 0]), np.where(is_own, values[:, 1], middles)])
            labels = np.where(is_own, labels, found)
        return [
            Border(feature, last, first, label)
            for feature, (last, first), label in zip(features.tolist(), values.tolist(), labels.tolist(), strict=True)
        ]

    def label(self, feature: int, value: float) -> int:
        """Return the label of the row with another value of one feature."""
        return int(self._labels(np.array([feature]), np.array([value]))[0])


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of values, shape (n, 2), of features, and whether they are so near that a border is known by them."""

    features: NDArray[np.intp]
    values: Values
    is_near: NDArray[np.bool_]

    @classmethod
    def none(cls) -> _Pairs:
        return cls(np.empty(0, dtype=np.intp), np.empty((0, 2)), np.empty(0, dtype=bool))

    def parts(self) -> tuple[NDArray[np.intp], Values, NDArray[np.bool_]]:
        return self.features, self.values, self.is_near


def explain(model: LoadedModel, row: Sequence[float], *, goal: float | None) -> Explanation:
    """Return the ranges in which the label of `row` stays, and its nearest change; see `ml.model.nearest`."""
    borders = Borders(model, row, goal)
    ranges = []
    for place, (feature, value) in enumerate(zip(model.features, row, strict=True)):
        last = [border.last for border in borders.found if border.feature == place]
        low = max((end for end in last if end <= value), default=None)
        high = min((end for end in last if end >= value), default=None)
        same = [choice for choice, label in enumerate(borders.choices.get(place, ())) if label == borders.own]
        is_searched = bool(feature.choices) or not math.isnan(value)
        ranges.append(Range(feature.key, _shown(low), _shown(high), is_searched, tuple(same)))
    is_whole = all(found.searched_all for found in ranges)
    return Explanation(model.predict(row).label, tuple(ranges), _nearest(model, row, borders), is_whole)


def nearest_change(model: LoadedModel, row: Sequence[float], *, goal: float | None) -> tuple[Change | None, bool]:
    """Return the nearest change of a single feature within its training range that changes the label of `row`, and that
    all of that range was searched.
    """
    if not model.labels and goal is None:
        return None, True
    return _nearest(model, row, Borders(model, row, goal)), True


def _shown(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _level(model: LoadedModel, goal: float | None) -> float | None:
    """Return by how much a single score, or the second above the first, decides; None where it never does."""
    if not model.labels:
        return goal
    decision = model.card.decision
    if decision is None:
        return 0.0
    share = decision.threshold if decision.positive == model.labels[1] else 1 - decision.threshold
    return math.log(share / (1 - share)) if 0 < share < 1 else None


def _nearest(model: LoadedModel, row: Sequence[float], borders: Borders) -> Change | None:
    """Return the nearest of the changes that the limits allow."""
    nearest = None
    for place, labels in borders.choices.items():
        counts = model.features[place].counts
        others = [choice for choice, label in enumerate(labels) if label != borders.own]
        if others:
            choice = max(others, key=counts.__getitem__)
            nearest = Change(model.features[place].key, "is", choice, choice, _name(model, labels[choice]))
            break
    for border in sorted(borders.found, key=lambda one: abs(one.first - row[one.feature]) / model.spans[one.feature]):
        if nearest is not None and abs(border.first - row[border.feature]) >= model.spans[border.feature]:
            break
        if change := _change(model, row, borders, border):
            return change
    return nearest


def _change(model: LoadedModel, row: Sequence[float], borders: Borders, border: Border) -> Change | None:
    """Return the change past a border, to a short number beyond it, or None if the limits do not allow it."""
    feature, value, span = model.features[border.feature], row[border.feature], model.spans[border.feature]
    rises, step = border.first > value, max(span * CHANGE_STEP, 100 * feature.unit_step, 1e-9)
    if rises:
        low, high = math.nextafter(border.first, -math.inf), max(feature.high, border.first)
    else:
        low, high = math.nextafter(min(feature.low, border.first), -math.inf), border.first
    target = shortest(low, high, near=border.first, step=step)
    if borders.label(border.feature, target) != border.label:
        target = border.first
    least = -math.inf if feature.minimum is None else feature.minimum
    most = math.inf if feature.maximum is None else feature.maximum
    if not least <= target <= most:
        return None
    direction: Direction = "rises to" if rises else "falls to"
    name = _name(model, border.label)
    return Change(feature.key, direction, target, target, name)


def _name(model: LoadedModel, label: int) -> str:
    return model.labels[label] if model.labels else ""
