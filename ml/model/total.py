"""How the leaves of a forest become its answer: the arithmetic of the library that fitted it, by name."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import msgspec

Link = Literal[
    "mean", "identity", "exp", "expit", "half_logit", "softmax", "samme",
    "exp_sequential", "softmax_sequential", "exp_single", "expit_single", "softmax_single", "vote", "median",
]  # fmt: skip
LabelBy = Literal["answers", "sums", "positive", "not_negative"]
# With these an answer has the same bits on every machine: nothing in them calls exp().
EXACT_LINKS = ("mean", "identity")
# With these a quantity is a power of the sum.
EXP_LINKS = ("exp", "exp_sequential", "exp_single")
# These make the probabilities of two labels of one sum.
PAIR_LINKS = ("expit", "half_logit", "expit_single")
# What a model that votes may make of its own sums.
VOTING_LINKS = ("mean", "identity", "expit", "half_logit", "softmax", "softmax_sequential")


class Curve(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a calibration makes of a score: the logistic function of `-(slope * score + offset)`, or isotonic steps.

    The former is Platt's ("Probabilistic outputs for support vector machines", 1999). The latter goes straight from
    point to point, of which there is at least one, with ascending `scores`, and is level beyond them (Zadrozny and
    Elkan, "Transforming classifier scores into accurate multiclass probability estimates", 2002).
    """

    slope: float = 0.0
    offset: float = 0.0
    scores: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def is_possible(self) -> bool:
        """Whether a file may hold it."""
        numbers = (self.slope, self.offset, *self.scores, *self.shares)
        is_ascending = all(low < high for low, high in pairwise(self.scores))
        is_share = all(0 <= share <= 1 for share in self.shares)
        return all(map(math.isfinite, numbers)) and is_ascending and is_share and len(self.scores) == len(self.shares)


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several models that vote: the next `n_sums` of the sums are its own.

    Attributes:
        divisor, link: what becomes of its sums; the link "mean" divides too.
        weight: of its answers in the mean of all.
        curves: what becomes of its answers: none, one for the second of two labels, or one for each label.
    """

    n_sums: int
    divisor: float = 1.0
    link: Link = "mean"
    weight: float = 1.0
    curves: tuple[Curve, ...] = ()

    @property
    def n_answers(self) -> int:
        """How many answers it gives."""
        own = 2 if self.n_sums == 1 and self.link in PAIR_LINKS else self.n_sums
        return max(own, 2) if self.curves else own

    @property
    def is_possible(self) -> bool:
        """Whether a file may hold it."""
        fits_curves = not self.curves or len(self.curves) == (1 if self.n_answers == 2 else self.n_answers)
        is_number = 0 < self.divisor < math.inf and 0 <= self.weight < math.inf and self.n_sums >= 1
        is_link = self.link in VOTING_LINKS and (self.n_sums == 1 or self.link not in PAIR_LINKS)
        return fits_curves and is_number and is_link and all(curve.is_possible for curve in self.curves)


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """How leaf values are added up, and what is made of the sums.

    Attributes:
        single_values: the values of a row are cast to float32 before they are compared (scikit-learn's trees, XGBoost,
            CatBoost); else they are compared as float64 (HistGradientBoosting, LightGBM, all behind a folded scaler).
        single_sums: leaf values and sums are float32 (XGBoost).
        divisor: the sums are divided by it before the link; with the link "mean", by the number of trees instead.
        link: the function in `ml.model.links` that makes the answers of the sums. The answer of "vote" is the weighted
            mean of those of its members, that of "median" the weighted median of the sums.
        members, weights: those of a vote, and those of the sums in their median; else none.
        label_by: what decides on the label, as the library's `predict` does: the largest of the answers or of the
            sums, the first of several; or whether the only sum is positive, or not negative, which is the second label.
    """

    single_values: bool = True
    single_sums: bool = False
    divisor: float = 1.0
    link: Link = "mean"
    label_by: LabelBy = "answers"
    members: tuple[Member, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether answers have the same bits on every machine; else only the sums have."""
        if self.link == "vote":
            return all(member.link in EXACT_LINKS and not member.curves for member in self.members)
        return self.link in (*EXACT_LINKS, "median")

    @property
    def is_mean(self) -> bool:
        """Whether an answer is a mean of leaves, or one of them, so that it lies between them."""
        return self.link in ("mean", "median") or (
            self.link == "vote" and all(member.link == "mean" and not member.curves for member in self.members)
        )

    def n_answers(self, n_sums: int) -> int:
        """Return how many answers are made of so many sums."""
        if self.link in ("vote", "median"):
            return self.members[0].n_answers if self.members else 1
        return 2 if n_sums == 1 and (self.link in PAIR_LINKS or self.link == "samme") else n_sums

    def fits(self, n_sums: int) -> bool:
        """Return whether link and label can be made of so many sums."""
        if (self.link == "vote") != bool(self.members) or (self.link == "median") != bool(self.weights):
            return False
        if self.members or self.weights:
            n_own = sum(member.n_sums for member in self.members) or len(self.weights)
            weights = self.weights or [member.weight for member in self.members]
            is_alike = len({member.n_answers for member in self.members}) < 2
            are_weights = all(0 <= weight < math.inf for weight in weights) and 0 < sum(weights) < math.inf
            is_possible = all(member.is_possible for member in self.members)
            return n_own == n_sums and is_alike and are_weights and is_possible and self.label_by == "answers"
        is_alone = self.link in PAIR_LINKS or self.label_by in ("positive", "not_negative")
        return (n_sums == 1 or not is_alone) and math.isfinite(self.divisor) and self.divisor > 0
