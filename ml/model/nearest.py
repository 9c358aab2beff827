"""Explanations of an answer: its ranges and its nearest change, computed exactly from the compiled model.

What is here is for forests; `ml.model.borders` has the same for models without cuts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ml.model import borders
from ml.model.changes import Change, Direction, Explanation, Range, edge, number, shortest
from ml.model.ends import Ends, ends_of, farther_ends_of
from ml.model.loaded import LoadedModel
from ml.tables.numbers import LARGEST

MAX_ROWS = 4_096


def explain(
    model: LoadedModel, row: Sequence[float], *, max_rows: int = MAX_ROWS, goal: float | None = None
) -> Explanation:
    """Return the ranges in which the label of `row` stays, and the nearest change of the label.

    Args:
        row: as the validator returns it.
        max_rows: at most about this many rows are evaluated, of models that cannot be searched as a whole (those with
            gaps or words, and those that NumPy evaluates): the search then stops short of the ends, and in very wide
            ones it leaves out the least important features.
        goal: of a quantity, what a change has to reach, or to fall below; it has a range and a change with one only.
    """
    if model.scores is not None:
        return borders.explain(model, row, goal=goal)
    ends = ends_of(model, row, max_rows=max_rows, goal=goal)
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
    model: LoadedModel,
    row: Sequence[float],
    *,
    max_rows: int = MAX_ROWS,
    ranks: Sequence[int] | None = None,
    goal: float | None = None,
) -> tuple[Change | None, bool]:
    """Return the nearest change of a single feature that changes the label of `row`, if one was found, and whether all
    values were searched.

    Args:
        max_rows, goal: as for `explain`.
        ranks: those of the row among the model's cuts, where they are known already.
    """
    if model.scores is not None:
        return borders.nearest_change(model, row, goal=goal)
    if model.grid is not None and True not in model.cuts.has_missing:
        ranks = ranks or model.cuts.ranks_of(row)
        found = model.grid.nearest_other(row, ranks, model.spans)
        if found is None:
            return None, True
        feature, rank, label = found
        changes, key = model.made(_changes), (feature, rank, label, rank > ranks[feature])
        if key not in changes:
            changes[key] = _change(model, feature, rank=rank, label=model.labels[label], rises=rank > ranks[feature])
        if change := changes[key]:
            return change, True
    # Without a grid, or where limits forbid the nearest one, all changes are compared.
    ends = ends_of(model, row, max_rows=max_rows, goal=goal)
    # A number without a value has no end that could have been missed.
    searched_all = all(end.searched_all or math.isnan(value) for value, end in zip(row, ends, strict=True))
    nearest = _nearest(model, row, ends)
    if nearest is None and not searched_all:
        nearest = _nearest(model, row, farther_ends_of(model, row, max_rows=max_rows, goal=goal))
    return nearest, searched_all


def _nearest(model: LoadedModel, row: Sequence[float], ends: Sequence[Ends]) -> Change | None:
    """Return the nearest of the changes that the ends stand for and the limits allow."""
    found: list[tuple[float, int, int, int, bool]] = []
    for feature, (value, end, bounds, span) in enumerate(zip(row, ends, model.cuts.bounds, model.spans, strict=True)):
        if end.low_label is not None:
            found.append((abs(bounds[end.low] - value) / span, feature, end.low, end.low_label, False))
        if end.high_label is not None:
            found.append((abs(bounds[end.high - 1] - value) / span, feature, end.high, end.high_label, True))
        if end.other is not None:
            found.append((1.0, feature, *end.other, False))
    for _, feature, at, index, rises in sorted(found):
        label = model.labels[index] if model.labels else ""
        if model.features[feature].choices:
            return Change(model.features[feature].key, "is", at, at, label)
        change = _change(model, feature, rank=at, label=label, rises=rises)
        if change is not None:
            return change
    return None


def _changes(_: LoadedModel) -> dict[tuple[int, int, int, bool], Change | None]:
    """Return the changes that were found in a grid, by feature, rank, label and direction: at most a few a cut."""
    return {}


def _change(model: LoadedModel, feature: int, *, rank: int, label: str, rises: bool) -> Change | None:
    """Return the change of `feature` into the interval of `rank`, or None if the limits do not allow it."""
    cuts, trained = model.cuts.values[feature], model.features[feature]
    bounds = model.cuts.bounds[feature]
    low = bounds[rank - 1] if rank > 0 else -LARGEST
    high = bounds[rank] if rank < len(bounds) else LARGEST
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
    step = max(trained.high - trained.low, 100 * trained.unit_step, 1e-9)
    target = shortest(low, high, near=low if rises else high, step=step)
    return Change(feature=trained.key, direction=direction, threshold=threshold, value=target, label=label)
