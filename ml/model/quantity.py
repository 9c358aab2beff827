"""What is known about a predicted quantity: its values, and how far answers are from the truth."""

from __future__ import annotations

import math
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError
from ml.tables.dataset import Count

Values = TypeVar("Values", float, NDArray[np.float64])


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """The interval around a predicted quantity in which the truth lies for `coverage` of the rows.

    It reaches from `below` under the predicted value to `above` over it, both in the quantity's unit and not negative:
    the quantiles of the errors on `rows` rows that the model which made the errors had not seen (cross-validation;
    Barber et al., "Predictive inference with the jackknife+", 2021).
    """

    below: float
    above: float
    coverage: float
    rows: Count

    def around(self, value: Values) -> tuple[Values, Values]:
        """Return the ends of the interval around a value, or of those around many."""
        return value - self.below, value + self.above


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a predicted quantity: span and quantiles (0 %, 10 %, ... 100 %) of the training rows.

    Of a model without a report they are those of its answers to its golden rows, and `interval` is None.
    """

    low: float
    high: float
    quantiles: tuple[float, ...]
    interval: Interval | None

    def ends(self, value: Values) -> tuple[Values, Values]:
        """Return what `Interval.around` does; NaN where there is no interval."""
        return self.interval.around(value) if self.interval else (value + math.nan, value + math.nan)

    def check(self, *, has_report: bool) -> None:
        """Refuse what cannot be.

        Raises:
            ModelFileError: numbers are not finite, or not in their order, or there is an interval without a report.
        """
        interval, quantiles = self.interval, self.quantiles
        is_known = len(quantiles) >= 2 and self.low <= self.high and list(quantiles) == sorted(quantiles)
        ends = [self.low, self.high, *quantiles]
        if interval is not None:
            ends += [interval.below, interval.above]
            is_known = is_known and min(interval.below, interval.above) >= 0 and 0 < interval.coverage < 1
        if not is_known or has_report != (interval is not None) or not all(map(math.isfinite, ends)):
            raise ModelFileError("the statistics of the quantity do not fit together")
