"""Explanations of an answer: its ranges and its nearest change, computed exactly from the compiled model.

A forest's answer along one feature can change only at that feature's cuts. One row between each two neighboring cuts,
all else held, is therefore enough for one feature, and the combinations of two features' rows for their plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np

from ml.model.classifier import Classifier
from ml.model.thresholds import edge, number, shortest
from ml.tables.numbers import LARGEST

MAX_ROWS = 4_096
# Rows of many features are long: this many numbers take 16 MB as float64, and a fraction of a second to answer.
MAX_VALUES = 2_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one feature for which the label stays, all other features held.

    It stays for `low < value <= high`; None is no end. `searched_all` is False when the search was limited, and the
    label may stay beyond the ends as well. A category has the positions of the choices for which it stays instead.
    Where the row has no value, a number has no ends, and is not searched.
    """

    feature: str
    low: float | None
    high: float | None
    searched_all: bool
    choices: tuple[int, ...] = ()


Direction = Literal["rises above", "rises to", "falls to", "falls below", "is"]


class Change(msgspec.Struct, frozen=True):
    """The nearest change of a single feature that changes the label.

    The page needs one with every key: a struct is made in a tenth of the time of a frozen dataclass.

    Attributes:
        feature: its key.
        direction: the movement of the value: past `threshold`, or to it. Of the last number before the change and the
            first one after it, the shorter one is the threshold. A category *is* another choice.
        value: a short number beyond the threshold that gives the new label; the position of the choice.
        label: the new label.
        distance: from the sample to the threshold, as a fraction of the feature's training range; 1 to another choice
            (Gower, "A general coefficient of similarity", 1971).
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


def explain(
    model: Classifier, row: Sequence[float], *, max_rows: int = MAX_ROWS, goal: float | None = None
) -> Explanation:
    """Return the ranges in which the label of `row` stays, and the nearest change of the label.

    Args:
        row: as the validator returns it.
        max_rows: at most about this many rows are evaluated; on wide models the search then stops short of the ends,
            and on very wide ones it leaves out the least important features.
        goal: of a quantity, what a change has to reach, or to fall below; it has a range and a change with one only.
    """
    ends = _ends(model, row, max_rows=max_rows, goal=goal)
    ranges = []
    for feature, found in enumerate(ends):
        cuts, lowest = model.cuts.values[feature], int(model.cuts.has_missing[feature])
        ranges.append(
            Range(
                model.features[feature].key,
                number(cuts[found.low]) if found.low >= lowest else None,
                number(cuts[found.high - 1]) if found.high <= len(cuts) else None,
                searched_all=found.searched_all,
                choices=found.same,
            )
        )
    return Explanation(
        label=model.predict(row).label,
        ranges=tuple(ranges),
        nearest=_nearest(model, row, ends),
        searched_all=all(found.searched_all for found in ranges),
    )


def nearest_change(
    model: Classifier,
    row: Sequence[float],
    *,
    max_rows: int = MAX_ROWS,
    ranks: Sequence[int] | None = None,
    goal: float | None = None,
) -> Change | None:
    """Return the nearest change of a single feature that changes the label of `row`, or None.

    Args:
        max_rows, goal: as for `explain`.
        ranks: those of the row among the model's cuts, where they are known already.
    """
    if model.grid is not None and True not in model.cuts.has_missing:
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
    return _nearest(model, row, _ends(model, row, max_rows=max_rows, goal=goal))


class _Ends(msgspec.Struct, frozen=True):
    """The ranks of the nearest intervals below and above a row's own, along one feature, in which the label differs.

    Where there is none the label is None, and the rank is one beyond what was searched. A category has, instead, the
    positions of the choices with the same label, and the most frequent choice with another one, and that label.
    """

    low: int
    low_label: int | None
    high: int
    high_label: int | None
    searched_all: bool
    same: tuple[int, ...] = ()
    other: tuple[int, int] | None = None


# The labels along one feature, by rank, from the first of these ranks on.
_Line = tuple[int, Sequence[int]]


def _ends(model: Classifier, row: Sequence[float], *, max_rows: int, goal: float | None) -> list[_Ends]:
    """Return the ends of the row's own label along each feature; without a goal, a quantity has none."""
    ranks = model.cuts.ranks_of(row)
    if model.grid is not None:
        lines: list[_Line] = [(0, line) for line in model.grid.lines(ranks)]
    elif model.labels or goal is not None:
        lines = _searched(model, row, ranks, max_rows=max_rows, goal=goal)
    else:
        lines = [(rank, b"\0") for rank in ranks]
    return [
        _choice_ends(model, feature, line, rank) if model.features[feature].choices
        else _number_ends(line, rank, lowest=int(model.cuts.has_missing[feature]), size=model.cuts.sizes[feature])
        for feature, (line, rank) in enumerate(zip(lines, ranks, strict=True))
    ]  # fmt: skip


def _number_ends(line: _Line, rank: int, *, lowest: int, size: int) -> _Ends:
    """Return the ends along a number with `size` cuts; `lowest` is its first rank that is not that of no value."""
    first, labels = line
    after = first + len(labels)
    if rank < lowest:
        return _Ends(lowest - 1, None, size + 1, None, searched_all=False)
    own = labels[rank - first]
    low = next((at for at in range(rank - 1, max(first, lowest) - 1, -1) if labels[at - first] != own), None)
    high = next((at for at in range(rank + 1, after) if labels[at - first] != own), None)
    return _Ends(
        max(first, lowest) - 1 if low is None else low,
        None if low is None else labels[low - first],
        after if high is None else high,
        None if high is None else labels[high - first],
        searched_all=(low is not None or first <= lowest) and (high is not None or after > size),
    )


def _choice_ends(model: Classifier, feature: int, line: _Line, rank: int) -> _Ends:
    """Return the choices of a category by their labels."""
    trained, (first, labels) = model.features[feature], line
    own = labels[rank - first]
    places = [model.cuts.rank(feature, choice) - first for choice in range(len(trained.choices))]
    found = {choice: labels[at] for choice, at in enumerate(places) if 0 <= at < len(labels)}
    other = max((c for c, label in found.items() if label != own), key=trained.counts.__getitem__, default=None)
    return _Ends(
        -1, None, model.cuts.sizes[feature] + 1, None, searched_all=len(found) == len(places),
        same=tuple(choice for choice, label in found.items() if label == own),
        other=None if other is None else (other, found[other]),
    )  # fmt: skip


def _searched(
    model: Classifier, row: Sequence[float], ranks: Sequence[int], *, max_rows: int, goal: float | None
) -> list[_Line]:
    """Return the searched line along each feature; where nothing is searched, the row's own interval."""
    spans = _spans(model, ranks, max_rows=min(max_rows, MAX_VALUES // len(ranks)))
    starts = np.cumsum([0, *(last - first + 1 for first, last in spans.values())]).tolist()
    # The row itself comes last.
    rows = np.tile(np.array(row, dtype=model.cuts.dtype), (starts[-1] + 1, 1))
    for start, (feature, (first, last)) in zip(starts, spans.items(), strict=False):
        rows[start : start + last - first + 1, feature] = model.cuts.between(feature, row[feature])[first : last + 1]
    batch = model.predict_batch(rows)
    labels = (batch.indices if goal is None else batch.values >= goal).tolist()
    lines = {feature: labels[start:stop] for feature, (start, stop) in zip(spans, pairwise(starts), strict=True)}
    return [
        (spans[feature][0], lines[feature]) if feature in spans else (rank, labels[-1:])
        for feature, rank in enumerate(ranks)
    ]


def _nearest(model: Classifier, row: Sequence[float], ends: Sequence[_Ends]) -> Change | None:
    """Return the nearest of the changes that the ends stand for and the limits allow."""
    found: list[tuple[float, int, int, int]] = []
    for feature, (value, end, bounds, span) in enumerate(zip(row, ends, model.cuts.bounds, model.spans, strict=True)):
        if end.low_label is not None:
            found.append((abs(bounds[end.low] - value) / span, feature, end.low, end.low_label))
        if end.high_label is not None:
            found.append((abs(bounds[end.high - 1] - value) / span, feature, end.high, end.high_label))
        if end.other is not None:
            found.append((1.0, feature, *end.other))
    for _, feature, at, index in sorted(found):
        label = model.labels[index] if model.labels else ""
        if model.features[feature].choices:
            return Change(model.features[feature].key, "is", at, at, label, 1.0)
        change = _change(model, feature, value=row[feature], rank=at, label=label)
        if change is not None:
            return change
    return None


def _spans(model: Classifier, ranks: Sequence[int], *, max_rows: int) -> dict[int, tuple[int, int]]:
    """Return the first and last interval to search, by feature: all of them if that takes at most `max_rows`."""
    sizes = model.cuts.sizes
    used = [feature for feature, size in enumerate(sizes) if size]
    if sum(sizes) + len(used) <= max_rows:
        return {feature: (0, sizes[feature]) for feature in used}
    used.sort(key=lambda feature: -model.features[feature].importance)
    reach = max(1, max_rows // (2 * len(used)))
    spans: dict[int, tuple[int, int]] = {}
    for feature in used:
        first, last = max(0, ranks[feature] - reach), min(sizes[feature], ranks[feature] + reach)
        if model.features[feature].choices:
            first, last = 0, sizes[feature]
        max_rows -= last - first + 1
        if max_rows < 0 and spans:
            break
        spans[feature] = (first, last)
    return spans


def _change(model: Classifier, feature: int, *, value: float, rank: int, label: str) -> Change | None:
    """Return the change of `feature` into the interval of `rank`, or None if the limits do not allow it."""
    cuts, trained = model.cuts.values[feature], model.features[feature]
    bounds = model.cuts.bounds[feature]
    low = bounds[rank - 1] if rank > 0 else -LARGEST
    high = bounds[rank] if rank < len(bounds) else LARGEST
    rises = low >= value
    threshold, is_cut = edge(cuts[rank - 1] if rises else cuts[rank])
    direction: Direction = (
        ("rises above" if is_cut else "rises to") if rises else ("falls to" if is_cut else "falls below")
    )
    if trained.minimum is not None and trained.minimum > low:
        low = math.nextafter(trained.minimum, -math.inf)
    if trained.maximum is not None:
        high = min(high, trained.maximum)
    if low >= high:
        return None
    target = shortest(low, high, near=low if rises else high, step=max(trained.high - trained.low, 1e-9))
    return Change(
        feature=trained.key,
        direction=direction,
        threshold=threshold,
        value=target,
        label=label,
        distance=abs(threshold - value) / model.spans[feature],
    )
