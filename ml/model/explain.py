"""Explanations of an answer: its ranges and its nearest change, computed exactly from the compiled model.

A forest's answer along one feature can change only at that feature's cuts. One row between each two neighboring cuts,
all else held, is therefore enough for one feature, and the combinations of two features' rows for their plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.model.classifier import Classifier
from ml.model.decision_table import LabelGrid
from ml.tables.numbers import LARGEST

MAX_ROWS = 4_096
# Rows of many features are long: this many numbers take 16 MB as float64, and a fraction of a second to answer.
MAX_VALUES = 2_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one feature for which the label stays, all other features held.

    It stays for `low < value <= high`; None is no end. `searched_all` is False when the search was limited, and the
    label may stay beyond the ends as well.
    """

    feature: str
    low: float | None
    high: float | None
    searched_all: bool


Direction = Literal["rises above", "rises to", "falls to", "falls below"]


class Change(msgspec.Struct, frozen=True):
    """The nearest change of a single feature that changes the label.

    The page needs one with every key: a struct is made in a tenth of the time of a frozen dataclass.

    Attributes:
        feature: its key.
        direction: the movement of the value: past `threshold`, or to it. Of the last number before the change and the
            first one after it, the shorter one is the threshold.
        value: a short number beyond the threshold that gives the new label.
        label: the new label.
        distance: from the sample to the threshold, as a fraction of the feature's training range.
    """

    feature: str
    direction: Direction
    threshold: float
    value: float
    label: str
    distance: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The ranges in which the label of one row stays, feature by feature, and the nearest change of the label."""

    label: str
    ranges: tuple[Range, ...]
    nearest: Change | None
    searched_all: bool


def explain(model: Classifier, row: Sequence[float], *, max_rows: int = MAX_ROWS) -> Explanation:
    """Return the ranges in which the label of `row` stays, and the nearest change of the label.

    Args:
        row: finite floats, as the validator returns them.
        max_rows: at most about this many rows are evaluated; on wide models the search then stops short of the ends,
            and on very wide ones it leaves out the least important features.
    """
    ends = _ends(model, row, max_rows=max_rows)
    ranges = []
    for feature, found in enumerate(ends):
        cuts = model.cuts.values[feature]
        ranges.append(
            Range(
                model.features[feature].key,
                _number(cuts[found.low]) if found.low >= 0 else None,
                _number(cuts[found.high - 1]) if found.high <= len(cuts) else None,
                searched_all=(found.low_label is not None or found.low < 0)
                and (found.high_label is not None or found.high > len(cuts)),
            )
        )
    return Explanation(
        label=model.predict(row).label,
        ranges=tuple(ranges),
        nearest=_nearest(model, row, ends),
        searched_all=all(found.searched_all for found in ranges),
    )


def nearest_change(
    model: Classifier, row: Sequence[float], *, max_rows: int = MAX_ROWS, ranks: Sequence[int] | None = None
) -> Change | None:
    """Return the nearest change of a single feature that changes the label of `row`, or None.

    Args:
        max_rows: as for `explain`.
        ranks: those of the row among the model's cuts, where they are known already.
    """
    if model.grid is not None:
        bounds = model.cuts.bounds
        ranks = ranks or model.cuts.ranks_of(row)
        found = model.grid.nearest_other(row, ranks, bounds=bounds, spans=model.spans)
        if found is None:
            return None
        feature, rank, label = found
        change = _change(model, feature, value=row[feature], rank=rank, label=model.labels[label])
        if change is not None:
            return change
    # Without a grid, or where limits forbid the nearest one, all changes are compared.
    return _nearest(model, row, _ends(model, row, max_rows=max_rows))


class _Ends(msgspec.Struct, frozen=True):
    """The ranks of the nearest intervals below and above a row's own, along one feature, in which the label differs.

    Where there is none the label is None, and the rank is one beyond what was searched.
    """

    low: int
    low_label: int | None
    high: int
    high_label: int | None


def _ends(model: Classifier, row: Sequence[float], *, max_rows: int) -> list[_Ends]:
    """Return the ends of the row's own label along each feature."""
    ranks = model.cuts.ranks_of(row)
    if model.grid is not None:
        return _ends_in(model.grid, ranks)
    own = model.predict(row).index
    ends = []
    for rank, (first, line) in zip(ranks, _searched(model, row, ranks, own, max_rows=max_rows), strict=True):
        differs = np.flatnonzero(line != own)
        below, above = differs[differs < rank - first], differs[differs > rank - first]
        ends.append(
            _Ends(
                first + int(below[-1]) if len(below) else first - 1,
                int(line[below[-1]]) if len(below) else None,
                first + int(above[0]) if len(above) else first + len(line),
                int(line[above[0]]) if len(above) else None,
            )
        )
    return ends


def _ends_in(grid: LabelGrid, ranks: Sequence[int]) -> list[_Ends]:
    ends = []
    for rank, line in zip(ranks, grid.lines(ranks), strict=True):
        # Stripping bytes is several times as fast as searching a short array.
        own = line[rank : rank + 1]
        below, above = line[:rank].rstrip(own), line[rank:].lstrip(own)
        ends.append(
            _Ends(
                len(below) - 1,
                below[-1] if below else None,
                len(line) - len(above),
                above[0] if above else None,
            )
        )
    return ends


def _searched(
    model: Classifier, row: Sequence[float], ranks: Sequence[int], own: int, *, max_rows: int
) -> list[tuple[int, NDArray[np.intp]]]:
    """Return along each feature the rank of the first searched interval, and the labels from there on."""
    spans = _spans(model, ranks, max_rows=min(max_rows, MAX_VALUES // len(ranks)))
    starts = np.cumsum([0, *(last - first + 1 for first, last in spans.values())]).tolist()
    rows = np.tile(np.array(row, dtype=np.float32), (starts[-1], 1))
    for start, (feature, (first, last)) in zip(starts, spans.items(), strict=False):
        rows[start : start + last - first + 1, feature] = between(model, feature, row)[first : last + 1]
    indices = model.predict_batch(rows).indices
    lines = {feature: indices[start:stop] for feature, (start, stop) in zip(spans, pairwise(starts), strict=True)}
    return [
        (spans[feature][0], lines[feature]) if feature in spans else (rank, np.array([own]))
        for feature, rank in enumerate(ranks)
    ]


def _nearest(model: Classifier, row: Sequence[float], ends: Sequence[_Ends]) -> Change | None:
    """Return the nearest of the changes that the ends stand for and the limits allow."""
    found = []
    for feature, (value, end, bounds, span) in enumerate(zip(row, ends, model.cuts.bounds, model.spans, strict=True)):
        if end.low_label is not None:
            found.append((abs(bounds[end.low] - value) / span, feature, end.low, end.low_label))
        if end.high_label is not None:
            found.append((abs(bounds[end.high - 1] - value) / span, feature, end.high, end.high_label))
    for _, feature, rank, label in sorted(found):
        change = _change(model, feature, value=row[feature], rank=rank, label=model.labels[label])
        if change is not None:
            return change
    return None


def _spans(model: Classifier, ranks: Sequence[int], *, max_rows: int) -> dict[int, tuple[int, int]]:
    """Return the first and last interval to search, by feature: all of them if that takes at most `max_rows`."""
    sizes = model.cuts.sizes
    used = [feature for feature, size in enumerate(sizes) if size]
    reach = max(sizes)
    if sum(sizes) + len(used) > max_rows:
        reach = max(1, max_rows // (2 * len(used)))
        used.sort(key=lambda feature: -model.features[feature].importance)
        used = used[: max(1, max_rows // 3)]
    return {feature: (max(0, ranks[feature] - reach), min(sizes[feature], ranks[feature] + reach)) for feature in used}


def between(model: Classifier, feature: int, row: Sequence[float]) -> NDArray[np.float32]:
    """Return one value of each interval between the feature's cuts: the interval's last one."""
    cuts = model.cuts.values[feature]
    if not len(cuts):
        return np.array([row[feature]], dtype=np.float32)
    return np.append(cuts, np.nextafter(cuts[-1], np.float32(np.inf)))


def _change(model: Classifier, feature: int, *, value: float, rank: int, label: str) -> Change | None:
    """Return the change of `feature` into the interval of `rank`, or None if the limits do not allow it."""
    cuts, trained = model.cuts.values[feature], model.features[feature]
    bounds = model.cuts.bounds[feature]
    low = bounds[rank - 1] if rank > 0 else -LARGEST
    high = bounds[rank] if rank < len(bounds) else LARGEST
    rises = low >= value
    threshold, is_cut = _edge(cuts[rank - 1] if rises else cuts[rank])
    direction: Direction = (
        ("rises above" if is_cut else "rises to") if rises else ("falls to" if is_cut else "falls below")
    )
    if trained.minimum is not None and trained.minimum > low:
        low = math.nextafter(trained.minimum, -math.inf)
    if trained.maximum is not None:
        high = min(high, trained.maximum)
    if low >= high:
        return None
    target = _shortest(low, high, near=low if rises else high, step=max(trained.high - trained.low, 1e-9))
    return Change(
        feature=trained.key,
        direction=direction,
        threshold=threshold,
        value=target,
        label=label,
        distance=abs(threshold - value) / model.spans[feature],
    )


@lru_cache(4_096)
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


@lru_cache(4_096)
def _edge(cut: np.float32) -> tuple[float, bool]:
    """Return the shorter of a cut and the float32 after it, 1.7 rather than 1.6999999, and whether it is the cut."""
    own, after = _number(cut), _number(np.nextafter(cut, np.float32(np.inf)))
    return (after, False) if len(repr(after)) < len(repr(own)) else (own, True)


@lru_cache(4_096)
def _number(cut: np.float32) -> float:
    """Return a float32 cut as the shortest decimal that stands for it: 4.95, not 4.949999809."""
    return float(str(cut))
