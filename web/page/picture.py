"""The picture of a sample: shapes around a point, whose lengths and widths are values of the sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.loaded import LoadedModel

# From the point to the edge of the picture, in its own units; the longest shape of the training range ends before it.
REACH = 50
LONGEST = 44
SHORTEST = 1


@dataclass(frozen=True, slots=True)
class ShapeView:
    """One shape: its direction, in degrees clockwise from the right, and its tone, one of two."""

    angle: str
    tone: int


class Picture:
    """The picture of one model.

    Attributes:
        shapes: in the order of drawing, which is that of `sizes`.
    """

    def __init__(self, model: LoadedModel) -> None:
        positions = {feature.key: position for position, feature in enumerate(model.features)}
        sides = {positions[key] for kind in model.card.picture for key in (kind.length, kind.width)}
        # Words have no length.
        kinds = () if any(model.features[side].choices for side in sides) else model.card.picture
        self._may_lack = [side for side in sides if model.features[side].has_gaps]
        longest = max((model.features[positions[kind.length]].high for kind in kinds), default=0.0)
        self._unit = min(LONGEST / longest, 1e300) if longest > 0 else 0.0
        self._kinds = [(positions[kind.length], positions[kind.width], len(kind.angles)) for kind in kinds]
        self.shapes = [ShapeView(f"{angle:g}", tone % 2) for tone, kind in enumerate(kinds) for angle in kind.angles]

    def sizes(self, row: Sequence[float]) -> list[bytes]:
        """Return the length and width of each shape for a row, as arguments of SVG's `scale`; none if one lacks."""
        sizes: list[bytes] = []
        for side in self._may_lack:
            if math.isnan(row[side]):
                return sizes
        for length, width, count in self._kinds:
            sizes += [b"%.1f %.1f" % (self._scaled(row[length]), self._scaled(row[width]))] * count
        return sizes

    def _scaled(self, value: float) -> float:
        size = value * self._unit
        return SHORTEST if size < SHORTEST else REACH if size > REACH else size
