"""Why this answer: where it holds and what would change it, read off the compiled model, not approximated.

A forest's answer along one feature can change only at that feature's cuts. One row between each two neighbouring cuts,
all else held, therefore tells everything about that feature, and two features' rows tell everything about their plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.classifier import Classifier
from ml.sample import LARGEST

MAX_ROWS = 4_096
MAX_PLANE_ROWS = 16_384
# Rows of many features are long: this many numbers take 16 MB as float64, and a fraction of a second to answer.
MAX_VALUES = 2_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one feature for which the label stays, all other features held.

    It stays for `low < value <= high`; None is no end. `searched_all` is False when the search was cut short, and the
    label may stay beyond the ends as well.
    """

    feature: str
    low: float | None
    high: float | None
    searched_all: bool


@dataclass(frozen=True, slots=True)
class Change:
    """The nearest change of a single feature that changes the label.

    Attributes:
        feature: its key.
        direction: whether the value has to rise above `threshold` or fall to it or below.
        threshold: the last value before the label changes (rises), or the first at which it has changed (falls).
        value: a short number beyond the threshold that gives the new label.
        label: the new label.
        distance: from the sample to the threshold, as a fraction of the feature's training range.
    """

    feature: str
    direction: Literal["rises above", "falls to"]
    threshold: float
    value: float
    label: str
    distance: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where the label of one row holds, feature by feature, and the nearest single change that flips it, if any."""

    label: str
    ranges: tuple[Range, ...]
    nearest: Change | None
    searched_all: bool


@dataclass(frozen=True, slots=True)
class Plane:
    """The labels over two features, all others held.

    Attributes:
        x_cuts, y_cuts: ascending, shapes (n_x,) and (n_y,): where the label can change.
        indices: shape (n_y + 1, n_x + 1): the position of the label in each cell between the cuts.
        exact: False when cuts were left out to keep the plane small.
    """

    x_cuts: NDArray[np.float32]
    y_cuts: NDArray[np.float32]
    indices: NDArray[np.intp]
    exact: bool


def explain(model: Classifier, row: Sequence[float], *, max_rows: int = MAX_ROWS) -> Explanation:
    """Return where the label of `row` holds and the nearest change that flips it.

    Args:
        row: finite floats, as the validator returns them.
        max_rows: at most about this many rows are evaluated; on wide models the search then stops short of the ends,
            and on very wide ones it leaves out the least important features.
    """
    sizes = model.cuts.sizes
    ranks = [model.cuts.rank(feature, value) for feature, value in enumerate(row)]
    spans = _spans(model, ranks, max_rows=min(max_rows, MAX_VALUES // len(sizes)))
    starts = np.cumsum([0, *(last - first + 1 for first, last in spans.values())]).tolist()
    rows = np.tile(np.array(row, dtype=np.float32), (starts[-1], 1))
    for start, (feature, (first, last)) in zip(starts, spans.items(), strict=False):
        rows[start : start + last - first + 1, feature] = _between(model, feature, row)[first : last + 1]
    indices = model.predict_batch(rows).indices
    lines = {feature: indices[start:stop] for feature, (start, stop) in zip(spans, pairwise(starts), strict=True)}

    own = model.predict(row).index
    ranges, changes = [], []
    for feature, (own_rank, size) in enumerate(zip(ranks, sizes, strict=True)):
        first, last = spans.get(feature, (own_rank, own_rank))
        others = first + np.flatnonzero(lines.get(feature, np.array([own])) != own)
        below, above = others[others < own_rank], others[others > own_rank]
        low = int(below[-1]) if len(below) else first - 1
        high = int(above[0]) if len(above) else last + 1
        cuts = model.cuts.values[feature]
        ranges.append(
            Range(
                model.features[feature].key,
                _number(cuts[low]) if low >= 0 else None,
                _number(cuts[high - 1]) if high <= size else None,
                searched_all=(bool(len(below)) or first == 0) and (bool(len(above)) or last == size),
            )
        )
        for found, rank in ((below, low), (above, high)):
            if len(found):
                label = model.labels[lines[feature][rank - first]]
                changes.append(_change(model, feature, value=row[feature], rank=rank, label=label))
    possible = [change for change in changes if change is not None]
    return Explanation(
        label=model.labels[own],
        ranges=tuple(ranges),
        nearest=min(possible, key=lambda change: change.distance, default=None),
        searched_all=all(found.searched_all for found in ranges),
    )


def _spans(model: Classifier, ranks: Sequence[int], *, max_rows: int) -> dict[int, tuple[int, int]]:
    """Return the first and last interval to look at, by feature: all of them where that takes at most `max_rows`."""
    sizes = model.cuts.sizes
    used = [feature for feature, size in enumerate(sizes) if size]
    reach = max(sizes)
    if sum(sizes) + len(used) > max_rows:
        reach = max(1, max_rows // (2 * len(used)))
        used.sort(key=lambda feature: -model.features[feature].importance)
        used = used[: max(1, max_rows // 3)]
    return {feature: (max(0, ranks[feature] - reach), min(sizes[feature], ranks[feature] + reach)) for feature in used}


def plane(model: Classifier, row: Sequence[float], *, x: int, y: int, max_rows: int = MAX_PLANE_ROWS) -> Plane:
    """Return the labels over the features `x` and `y`, given by position, with the others held at the row's values.

    With more than `max_rows` cells, cuts are left out evenly, and the plane says that it is not exact.
    """
    side = math.isqrt(max_rows)
    x_kept, y_kept = (_thinned(model.cuts.sizes[feature], side - 1) for feature in (x, y))
    x_values, y_values = _between(model, x, row), _between(model, y, row)
    rows = np.tile(np.array(row, dtype=np.float32), ((len(x_kept) + 1) * (len(y_kept) + 1), 1))
    x_chosen, y_chosen = x_values[[*x_kept, -1]], y_values[[*y_kept, -1]]
    rows[:, x] = np.tile(x_chosen, len(y_chosen))
    rows[:, y] = np.repeat(y_chosen, len(x_chosen))
    return Plane(
        x_cuts=model.cuts.values[x][x_kept],
        y_cuts=model.cuts.values[y][y_kept],
        indices=model.predict_batch(rows).indices.reshape(len(y_chosen), len(x_chosen)),
        exact=len(x_kept) == model.cuts.sizes[x] and len(y_kept) == model.cuts.sizes[y],
    )


def _between(model: Classifier, feature: int, row: Sequence[float]) -> NDArray[np.float32]:
    """Return one value of each interval between the feature's cuts: the interval's last one."""
    cuts = model.cuts.values[feature]
    if not len(cuts):
        return np.array([row[feature]], dtype=np.float32)
    return np.append(cuts, np.nextafter(cuts[-1], np.float32(np.inf)))


def _thinned(size: int, most: int) -> NDArray[np.intp]:
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(np.intp)


def _change(model: Classifier, feature: int, *, value: float, rank: int, label: str) -> Change | None:
    """Return the change of `feature` into the interval of `rank`, or None if the limits do not allow it."""
    cuts, trained = model.cuts.values[feature], model.features[feature]
    bounds = model.cuts.bounds[feature]
    low = bounds[rank - 1] if rank > 0 else -LARGEST
    high = bounds[rank] if rank < len(bounds) else LARGEST
    rises = low >= value
    threshold = _number(cuts[rank - 1] if rises else cuts[rank])
    if trained.minimum is not None and trained.minimum > low:
        low = math.nextafter(trained.minimum, -math.inf)
    if trained.maximum is not None:
        high = min(high, trained.maximum)
    if low >= high:
        return None
    target = _shortest(low, high, near=low if rises else high, step=max(trained.high - trained.low, 1e-9))
    return Change(
        feature=trained.key,
        direction="rises above" if rises else "falls to",
        threshold=threshold,
        value=target,
        label=label,
        distance=abs(threshold - value) / max(trained.high - trained.low, np.finfo(float).tiny),
    )


def _shortest(low: float, high: float, *, near: float, step: float) -> float:
    """Return the number in `low < number <= high` with the fewest decimals, the nearest to `near` of these.

    Decimals start where they matter, at a hundredth of `step`.
    """
    for decimals in range(max(0, 2 - math.ceil(math.log10(step))), 18):
        unit = 10.0**-decimals
        for number in (round(near, decimals), round(near + unit, decimals), round(near - unit, decimals)):
            if low < number <= high:
                return number
    return math.nextafter(low, math.inf) if near == low else high


def _number(cut: np.float32) -> float:
    """Return a float32 cut as the shortest decimal that stands for it: 4.95, not 4.949999809."""
    return float(str(cut))
