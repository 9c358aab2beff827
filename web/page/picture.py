"""A picture of a sample that a model may bring: leaves around a point, each as long and as wide as two features say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.classifier import Classifier

# From the point to the edge of the picture, in its own units; the longest leaf of the training range ends before it.
REACH = 50
LONGEST = 44
SHORTEST = 1


@dataclass(frozen=True, slots=True)
class LeafView:
    """One leaf: where it points, in degrees clockwise from the right, and which of two tones it has."""

    angle: str
    tone: int


class Picture:
    """The picture that one model brings.

    Attributes:
        leaves: in the order in which they are drawn, and in which `sizes` has their sizes.
    """

    def __init__(self, model: Classifier) -> None:
        kinds = model.card.picture
        positions = {feature.key: position for position, feature in enumerate(model.features)}
        longest = max((model.features[positions[kind.length]].high for kind in kinds), default=0.0)
        self._longest = longest if longest > 0 else math.inf
        self._kinds = [(positions[kind.length], positions[kind.width], len(kind.angles)) for kind in kinds]
        self.leaves = [LeafView(f"{angle:g}", tone % 2) for tone, kind in enumerate(kinds) for angle in kind.angles]

    def sizes(self, row: Sequence[float]) -> list[bytes]:
        """Return length and width of each leaf for a row, as SVG's `scale` takes them."""
        sizes: list[bytes] = []
        for length, width, count in self._kinds:
            sizes += [b"%.1f %.1f" % (self._scaled(row[length]), self._scaled(row[width]))] * count
        return sizes

    def _scaled(self, value: float) -> float:
        return min(max(value / self._longest * LONGEST, SHORTEST), REACH)
