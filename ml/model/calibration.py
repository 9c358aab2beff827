"""How far the probabilities of a classifier hold on rows that it was not trained on, as its card has it."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import msgspec

MAX_BINS = 10
# A point for each hundredth, and as many for probabilities in between.
MAX_POINTS = 210
MAX_COUNT = 2**53


class Bin(msgspec.Struct, frozen=True, array_like=True):
    """Test rows of similar probabilities: the mean of these, the number of rows, and of those for which it is true."""

    probability: float
    rows: int
    true: int


class Point(msgspec.Struct, frozen=True, array_like=True):
    """The test rows whose probability is at least a threshold: those of the other label, and those of the own one."""

    threshold: float
    false_positives: int
    true_positives: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Probabilities beside what is true on the test rows.

    Of two labels they are those of the one that a threshold decides on, or else of the second one; of more labels those
    of the most probable one.

    Attributes:
        brier: mean squared difference between the probabilities and 1 for the true label and 0 for others, summed over
            more than two labels; 0 is perfect (Brier, "Verification of forecasts expressed in terms of probability",
            Monthly Weather Review 78, 1950).
        bins: those tenths of the probabilities from 0 to 1 that have rows, in ascending order.
        points: of two labels, from threshold 0 up to 1; between two of them the later one holds. They are exact at each
            hundredth and at the threshold of the model; in between some are left out.
        area: that under the ROC curve, from 0 to 1; None if all test rows have one label, or there are more than two.
    """

    brier: float
    bins: tuple[Bin, ...]
    points: tuple[Point, ...] = ()
    area: float | None = None

    def at(self, threshold: float) -> tuple[int, int]:
        """Return the false alarms and the misses among the test rows at a threshold from 0 to 1."""
        found = self.points[bisect_left(self.points, threshold, key=lambda point: point.threshold)]
        return found.false_positives, self.points[0].true_positives - found.true_positives

    def is_possible(self, n_labels: int) -> bool:
        """Return whether the test rows of a model with so many labels can give these numbers."""
        bins, points = self.bins, self.points
        counts = [(MAX_COUNT, MAX_COUNT), *((one.false_positives, one.true_positives) for one in points), (0, 0)]
        thresholds = [one.threshold for one in points]
        return (
            0 <= self.brier <= 2
            and 1 <= len(bins) <= MAX_BINS
            and all(0 <= one.probability <= 1 and 0 <= one.true <= one.rows < MAX_COUNT for one in bins)
            and len(points) <= MAX_POINTS
            and (n_labels == 2) == bool(points)
            and (not points or (thresholds[0], thresholds[-1]) == (0, 1))
            and thresholds == sorted(thresholds)
            and all(f >= less_f and t >= less_t for (f, t), (less_f, less_t) in pairwise(counts))
            and (self.area is None or 0 <= self.area <= 1)
        )
