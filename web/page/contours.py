"""The part of a plot in which a smooth quantity is at least a level, as a path: its edge is computed, not stepped.

The quantity is known at the points of an even grid and taken for linear between two of them, so the edge of a linear
one is exact (marching squares; Lorensen and Cline, "Marching cubes", Computer graphics 21, 1987, in a plane). Knows no
models and no colors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Points that are nearer to a line than this, in units of the picture, are left out of it.
TOLERANCE = 0.2
# The sides of a cell, and from which to which the edge goes with the part on its left, by the corners that belong to
# the part: 1 for the one at the left of the first row, 2 for its right, 4 and 8 for the right and left of the next row.
FIRST, RIGHT, NEXT, LEFT = range(4)
WAYS = {
    1: [(FIRST, LEFT)], 2: [(RIGHT, FIRST)], 3: [(RIGHT, LEFT)], 4: [(NEXT, RIGHT)],
    5: [(FIRST, LEFT), (NEXT, RIGHT)], 6: [(NEXT, FIRST)], 7: [(NEXT, LEFT)], 8: [(LEFT, NEXT)],
    9: [(FIRST, NEXT)], 10: [(RIGHT, FIRST), (LEFT, NEXT)], 11: [(RIGHT, NEXT)], 12: [(LEFT, RIGHT)],
    13: [(FIRST, RIGHT)], 14: [(LEFT, FIRST)],
}  # fmt: skip

Field = NDArray[np.float64]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """The place of a grid in a picture: of its first column and row, and of its last ones."""

    left: float
    bottom: float
    right: float
    top: float


def area(field: Field, level: float, box: Box) -> tuple[str, str]:
    """Return the path of the part in which a field, shape (n_rows, n_columns), is at least at a level, and of its edge.

    What bounds the whole plot is no edge.
    """
    if not (field >= level).any():
        return "", ""
    last_row, last_column = field.shape[0] - 1, field.shape[1] - 1
    across, up = (box.right - box.left) / last_column, (box.top - box.bottom) / last_row

    def placed(points: Sequence[Point]) -> str:
        found = _simple([(box.left + x * across, box.bottom + y * up) for x, y in points])
        return "M" + " ".join(f"{round(x, 1):g} {round(y, 1):g}" for x, y in found)

    outlines = [*_outlines(field - level)]
    whole = [placed(outline) + "z" for outline in outlines]
    edges = [placed(edge) for outline in outlines for edge in _edges(outline, last_column, last_row)]
    return "".join(whole), "".join(edges)


def _outlines(above: Field) -> Iterator[list[Point]]:
    """Yield the closed lines around what is not negative, in columns and rows; each ends at its first point."""
    # All around the plot is outside, at no distance from it.
    ring = np.pad(above, 1, constant_values=-np.inf)
    n_columns = ring.shape[1]
    is_in = (ring >= 0).astype(np.intp)
    corners = is_in[:-1, :-1] + 2 * is_in[:-1, 1:] + 4 * is_in[1:, 1:] + 8 * is_in[1:, :-1]
    cells = np.flatnonzero((corners > 0) & (corners < 15))
    rows, columns = np.divmod(cells, n_columns - 1)
    own = rows * n_columns + columns
    # Sides by number: first those along rows, then those along columns.
    sides = (own, own + 1 + ring.size, own + n_columns, own + ring.size)
    following: dict[int, int] = {}
    for kind, ways in WAYS.items():
        found = corners.ravel()[cells] == kind
        for start, end in ways:
            following |= zip(sides[start][found].tolist(), sides[end][found].tolist(), strict=True)
    points = _crossings(ring, np.array([*following], dtype=np.intp))
    while following:
        first = side = next(iter(following))
        outline = [points[first]]
        while side in following:
            side = following.pop(side)
            outline.append(points[side])
        yield outline


def _crossings(ring: Field, sides: NDArray[np.intp]) -> dict[int, Point]:
    """Return where the level is met on each of these sides, by their number."""
    n_rows, n_columns = ring.shape
    is_upright = sides >= ring.size
    rows, columns = np.divmod(np.where(is_upright, sides - ring.size, sides), n_columns)
    start, end = ring[rows, columns], ring[rows + is_upright, columns + ~is_upright]
    with np.errstate(invalid="ignore"):
        share = start / (start - end)
    share = np.where(np.isinf(start), 1.0, np.where(np.isinf(end), 0.0, share))
    x = np.clip(columns + np.where(is_upright, 0, share) - 1, 0, n_columns - 3)
    y = np.clip(rows + np.where(is_upright, share, 0) - 1, 0, n_rows - 3)
    return dict(zip(sides.tolist(), zip(x.tolist(), y.tolist(), strict=True), strict=True))


def _edges(outline: Sequence[Point], last_column: int, last_row: int) -> Iterator[list[Point]]:
    """Yield the parts of a closed line that do not lie on a bound of the plot."""

    def is_edge(start: Point, end: Point) -> bool:
        return not (start[0] == end[0] in (0, last_column) or start[1] == end[1] in (0, last_row))

    steps = [*pairwise(outline)]
    # From a bound on, if there is one.
    first = next((place for place, step in enumerate(steps) if not is_edge(*step)), 0)
    run: list[Point] = []
    for start, end in [*steps[first:], *steps[:first]]:
        if is_edge(start, end):
            run = [*(run or [start]), end]
        elif run:
            yield run
            run = []
    if run:
        yield run


def _simple(points: Sequence[Point]) -> list[Point]:
    """Return a line without points that are near to the line between others (Douglas and Peucker, 1973)."""
    if len(points) < 3:
        return [*points]
    (x, y), (end_x, end_y) = points[0], points[-1]
    dx, dy = end_x - x, end_y - y
    length = math.hypot(dx, dy)
    if length:
        distances = [abs(dx * (b - y) - dy * (a - x)) / length for a, b in points]
    else:  # a closed line
        distances = [math.hypot(a - x, b - y) for a, b in points]
    farthest = max(range(len(points)), key=distances.__getitem__)
    if distances[farthest] <= TOLERANCE:
        return [points[0], points[-1]]
    return _simple(points[: farthest + 1])[:-1] + _simple(points[farthest:])
