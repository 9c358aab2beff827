"""How the leaves of a forest become its answer: the arithmetic of the library that fitted it, by name."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

Link = Literal[
    "mean", "identity", "exp", "expit", "half_logit", "softmax", "samme",
    "softmax_sequential", "expit_single", "softmax_single",
]  # fmt: skip
LabelBy = Literal["answers", "sums", "positive", "not_negative"]
# With these an answer has the same bits on every machine: nothing in them calls exp().
EXACT_LINKS = ("mean", "identity")
# These make the probabilities of two labels of one sum.
PAIR_LINKS = ("expit", "half_logit", "expit_single")


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """How leaf values are added up, and what is made of the sums.

    Attributes:
        single_values: the values of a row are cast to float32 before they are compared (scikit-learn's trees, XGBoost,
            CatBoost); else they are compared as float64 (HistGradientBoosting, LightGBM, all behind a folded scaler).
        single_sums: leaf values and sums are float32 (XGBoost).
        divisor: the sums are divided by it before the link; with the link "mean", by the number of trees instead.
        link: the function in `ml.model.links` that makes the answers of the sums.
        label_by: what decides on the label, as the library's `predict` does: the largest of the answers or of the
            sums, the first of several; or whether the only sum is positive, or not negative, which is the second label.
    """

    single_values: bool = True
    single_sums: bool = False
    divisor: float = 1.0
    link: Link = "mean"
    label_by: LabelBy = "answers"

    @property
    def is_exact(self) -> bool:
        """Whether answers have the same bits on every machine; else only the sums have."""
        return self.link in EXACT_LINKS

    def n_answers(self, n_sums: int) -> int:
        """Return how many answers are made of so many sums."""
        return 2 if n_sums == 1 and (self.link in PAIR_LINKS or self.link == "samme") else n_sums

    def fits(self, n_sums: int) -> bool:
        """Return whether link and label can be made of so many sums."""
        is_alone = self.link in PAIR_LINKS or self.label_by in ("positive", "not_negative")
        return (n_sums == 1 or not is_alone) and math.isfinite(self.divisor) and self.divisor > 0
