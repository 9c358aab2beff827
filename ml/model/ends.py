"""How far a row's own label reaches along each feature, all others held, and what comes beyond.

A forest's answer along one feature can change only at that feature's cuts. One row between each two neighboring cuts is
therefore enough.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np

from ml.model.evaluators import Batch
from ml.model.lines import Lines
from ml.model.loaded import MAX_VALUES, LoadedModel

UINT8_MAX = 255


class Ends(msgspec.Struct, frozen=True):
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


def ends_of(model: LoadedModel, row: Sequence[float], *, max_rows: int, goal: float | None) -> list[Ends]:
    """Return the ends of the row's own label along each feature; without a goal, a quantity has none."""
    ranks = model.cuts.ranks_of(row)
    if model.grid is not None:
        lines: list[_Line] = [(0, line) for line in model.grid.lines(ranks)]
    elif not model.labels and goal is None:
        lines = [(rank, b"\0") for rank in ranks]
    elif model.lines and (found := model.lines(row)):
        return _all_ends(model, row, *found, goal=goal)
    else:
        lines = _searched(model, row, ranks, max_rows=max_rows, goal=goal)
    cuts = model.cuts
    return [
        _choice_ends(model, feature, line, rank) if trained.choices
        else _number_ends(line, rank, lowest=int(has_missing), size=size)
        for feature, (line, rank, trained, has_missing, size) in enumerate(
            zip(lines, ranks, model.features, cuts.has_missing, cuts.sizes, strict=True)
        )
    ]  # fmt: skip


def _all_ends(
    model: LoadedModel, row: Sequence[float], lines: Lines, answers: Batch, *, goal: float | None
) -> list[Ends]:
    """Return the ends along all features, which are numbers, of a model whose whole lines are known."""
    labels = _labels(answers, goal)
    cuts, rank_of, sizes = lines.cuts.tolist(), model.cuts.rank, model.cuts.sizes
    found = []
    for feature, (value, (first, stop)) in enumerate(zip(row, pairwise(lines.first.tolist()), strict=True)):
        line = labels[first + feature : stop + feature + 1]
        low, high = _others(line, bisect_left(cuts, lines.cuts.dtype.type(value), first, stop) - first)
        found.append(
            Ends(
                -1 if low is None else rank_of(feature, cuts[first + low]),
                None if low is None else line[low],
                sizes[feature] + 1 if high is None else rank_of(feature, cuts[first + high - 1]) + 1,
                None if high is None else line[high],
                searched_all=True,
            )
        )
    return found


def _number_ends(line: _Line, rank: int, *, lowest: int, size: int) -> Ends:
    """Return the ends along a number with `size` cuts; `lowest` is its first rank that is not that of no value."""
    first, labels = line
    after = first + len(labels)
    if rank < lowest:
        return Ends(lowest - 1, None, size + 1, None, searched_all=False)
    skipped = max(lowest - first, 0)
    first, labels = first + skipped, labels[skipped:]
    low, high = _others(labels, rank - first)
    return Ends(
        first - 1 if low is None else first + low,
        None if low is None else labels[low],
        after if high is None else first + high,
        None if high is None else labels[high],
        searched_all=(low is not None or first <= lowest) and (high is not None or after > size),
    )


def _labels(answers: Batch, goal: float | None) -> Sequence[int]:
    """Return the label of each answer, or whether it reaches the goal: as bytes, where they fit."""
    labels = (answers.indices if goal is None else answers.values >= goal).tolist()
    return labels if max(labels, default=0) > UINT8_MAX else bytes(labels)


def _others(labels: Sequence[int], at: int) -> tuple[int | None, int | None]:
    """Return the nearest places before and after `at` that have another label than it has."""
    if isinstance(labels, bytes):  # stripped several times as fast as searched
        below, above = labels[:at].rstrip(labels[at : at + 1]), labels[at:].lstrip(labels[at : at + 1])
        return len(below) - 1 if below else None, len(labels) - len(above) if above else None
    own = labels[at]
    low = next((place for place in range(at - 1, -1, -1) if labels[place] != own), None)
    return low, next((place for place in range(at + 1, len(labels)) if labels[place] != own), None)


def _choice_ends(model: LoadedModel, feature: int, line: _Line, rank: int) -> Ends:
    """Return the choices of a category by their labels."""
    trained, (first, labels) = model.features[feature], line
    own = labels[rank - first]
    places = [model.cuts.rank(feature, choice) - first for choice in range(len(trained.choices))]
    found = {choice: labels[at] for choice, at in enumerate(places) if 0 <= at < len(labels)}
    other = max((c for c, label in found.items() if label != own), key=trained.counts.__getitem__, default=None)
    return Ends(
        -1, None, model.cuts.sizes[feature] + 1, None, searched_all=len(found) == len(places),
        same=tuple(choice for choice, label in found.items() if label == own),
        other=None if other is None else (other, found[other]),
    )  # fmt: skip


def _searched(
    model: LoadedModel, row: Sequence[float], ranks: Sequence[int], *, max_rows: int, goal: float | None
) -> list[_Line]:
    """Return the searched line along each feature; where nothing is searched, the row's own interval."""
    spans = _spans(model, ranks, max_rows=min(max_rows, MAX_VALUES // len(ranks)))
    starts = np.cumsum([0, *(last - first + 1 for first, last in spans.values())]).tolist()
    values = [model.cuts.between(feature, row[feature])[first : last + 1] for feature, (first, last) in spans.items()]
    # The row itself comes last.
    features = np.repeat(np.array([*spans, 0]), [*map(len, values), 1])
    labels = _labels(model.predict_along(row, features, np.concatenate([*values, np.array(row[:1])])), goal)
    lines = {feature: labels[start:stop] for feature, (start, stop) in zip(spans, pairwise(starts), strict=True)}
    return [
        (spans[feature][0], lines[feature]) if feature in spans else (rank, labels[-1:])
        for feature, rank in enumerate(ranks)
    ]


def farther_ends_of(model: LoadedModel, row: Sequence[float], *, max_rows: int, goal: float | None) -> list[Ends]:
    """Return the ends along each number, of intervals that are tried all over it but are not its neighbors.

    For where nothing was found nearby: the label may change once more between an end and the row. Of very many numbers
    the least important are left out.
    """
    cuts, max_rows = model.cuts, max(2, min(max_rows, MAX_VALUES // len(row)))
    used = [place for place, size in enumerate(cuts.sizes) if size and not model.features[place].choices]
    used.sort(key=lambda feature: -model.features[feature].importance)
    used = used[: max_rows // 2]
    most = max_rows // max(1, len(used))
    tried = {
        feature: np.unique(np.linspace(int(cuts.has_missing[feature]), cuts.sizes[feature], most).round().astype(int))
        for feature in used
    }
    ranks = cuts.ranks_of(row)
    found = [Ends(-1, None, size + 1, None, searched_all=False) for size in cuts.sizes]
    if not tried:
        return found
    values = [np.asarray(cuts.between(feature, row[feature]))[places] for feature, places in tried.items()]
    # The row itself comes last.
    features = np.repeat(np.array([*tried, 0]), [*map(len, values), 1])
    labels = [*_labels(model.predict_along(row, features, np.concatenate([*values, np.array(row[:1])])), goal)]
    for feature, places in tried.items():
        line, labels = labels[: len(places)], labels[len(places) :]
        others = [(rank, label) for rank, label in zip(places.tolist(), line, strict=True) if label != labels[-1]]
        low, low_label = max((one for one in others if one[0] < ranks[feature]), default=(-1, None))
        beyond = (cuts.sizes[feature] + 1, None)
        high, high_label = min((one for one in others if one[0] > ranks[feature]), default=beyond)
        found[feature] = Ends(low, low_label, high, high_label, searched_all=False)
    return found


def _spans(model: LoadedModel, ranks: Sequence[int], *, max_rows: int) -> dict[int, tuple[int, int]]:
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
