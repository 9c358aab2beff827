"""Models whose score is a sum of one part a feature: linear ones, and naive Bayes with normal distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError
from ml.model.design import Design, DesignColumn
from ml.model.total import Curve, LabelBy
from ml.tables.dataset import UNKNOWN, Feature
from ml.tables.numbers import LARGEST

Values = NDArray[np.float64]
Link = Literal["identity", "expit", "softmax", "one_vs_rest", "calibrated", "posterior"]
# Parts of larger scores would leave the floats that can be added.
LARGEST_SCORE = 1e300


class Formula(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a linear model, made of features, and the link from its scores to its answers: see `Linear`."""

    link: Link
    columns: tuple[DesignColumn, ...]
    curves: tuple[Curve, ...] = ()
    is_sparse: bool = False


@dataclass(frozen=True)
class Linear:
    """A score for each class, or one for two classes or a quantity: a product of columns and coefficients.

    Attributes:
        columns: made of the features, in the order of the coefficients.
        link: what makes the answers of the scores: nothing; the logistic function of one score; softmax; the logistic
            function of each score, divided by their sum; the same of calibrated scores, the mean of several models; or
            Bayes' rule.
        coefficients: shape (n_sums, n_columns), row after row or column after column in memory, as the library has
            them: the bits of a product depend on it. Of naive Bayes, the mean of each column in each class.
        intercept: shape (n_sums,). Of naive Bayes, the logarithm of each class's share.
        means: shape (n_columns,): of the training rows.
        variances: shape (n_sums, n_columns): of each column in each class, of naive Bayes; else (0, n_columns).
        curves: of each score of calibrated models, whose scores follow each other; else none.
        is_sparse: the library is given a sparse matrix, and so adds from left to right.
    """

    columns: tuple[DesignColumn, ...]
    link: Link
    coefficients: Values
    intercept: Values
    means: Values
    variances: Values
    curves: tuple[Curve, ...] = ()
    is_sparse: bool = False

    @property
    def n_sums(self) -> int:
        """The number of scores."""
        return len(self.coefficients)

    @property
    def label_by(self) -> LabelBy:
        """What decides on the label, as the library's `predict` does: see `ml.model.total.Total`."""
        rules: dict[str, LabelBy] = {"expit": "positive", "calibrated": "answers"}
        return rules.get(self.link, "sums")

    @property
    def formula(self) -> Formula:
        return Formula(link=self.link, columns=self.columns, curves=self.curves, is_sparse=self.is_sparse)

    def check(self, features: Sequence[Feature], *, n_labels: int) -> None:
        """Check that shapes fit each other, and that every sample has a finite score.

        Raises:
            ModelFileError: names the first thing that is wrong.
        """
        n_sums, n_columns = self.n_sums, len(self.columns)
        for name, array, shape in (
            ("coefficients", self.coefficients, (n_sums, n_columns)),
            ("intercept", self.intercept, (n_sums,)),
            ("means", self.means, (n_columns,)),
            ("variances", self.variances, (n_sums if self.link == "posterior" else 0, n_columns)),
        ):
            if array.shape != shape:
                raise ModelFileError(f"{name} has shape {array.shape}, not {shape}")
            if not np.all(np.abs(array) <= LARGEST):
                raise ModelFileError(f"{name} has a value that is not finite, or too large for a 32-bit float")
        n_curves = n_sums if self.link == "calibrated" else 0
        if len(self.curves) != n_curves or not all(curve.is_possible for curve in self.curves):
            raise ModelFileError(f"the calibration does not have {n_curves} possible curves")
        if not self._fits(n_labels):
            raise ModelFileError(f"{n_sums} scores with the link {self.link} do not make {n_labels or 'one'} answers")
        if not np.all(self.variances >= 1 / LARGEST):
            raise ModelFileError("a variance is not positive")
        for column in self.columns:
            column.check(features)
        self._check_scores(features)

    def _fits(self, n_labels: int) -> bool:
        n_sums = self.n_sums
        if self.link == "identity":
            return not n_labels and n_sums == 1
        if self.link == "expit":
            return n_labels == 2 and n_sums == 1
        if self.link == "calibrated":
            return n_labels >= 2 and n_sums >= 1 and n_sums % (1 if n_labels == 2 else n_labels) == 0
        least = 2 if self.link == "posterior" else 3
        return n_labels == n_sums >= least

    def _check_scores(self, features: Sequence[Feature]) -> None:
        """Refuse a column without a value somewhere: each is monotone between the ends of a feature, or has cells."""
        rows = edges_of(features)
        with np.errstate(over="ignore", invalid="ignore"):
            parts = np.abs(Design(self.columns).matrix(rows)).max(axis=0)
            if not np.all(np.isfinite(parts)):
                feature = features[self.columns[int(np.flatnonzero(~np.isfinite(parts))[0])].feature]
                raise ModelFileError(
                    f"feature {feature.key!r}: a step has no finite value somewhere between its limits: give limits"
                )
            if self.link == "posterior":
                sums = ((parts + np.abs(self.coefficients)) ** 2 / self.variances).sum()
            else:
                sums = (parts * np.abs(self.coefficients)).sum()
                sums *= max((abs(curve.slope) for curve in self.curves), default=1.0) or 1.0
        if not sums <= LARGEST_SCORE:
            raise ModelFileError("the coefficients are so large that a score may not be finite")


def edges_of(features: Sequence[Feature]) -> Values:
    """Return rows that have between them the ends of each number, every choice, an unknown word, and no value."""
    values = []
    for feature in features:
        if feature.choices:
            found = [math.nan, UNKNOWN, *map(float, range(len(feature.choices)))]
        else:
            low, high = feature.minimum, feature.maximum
            found = [-LARGEST if low is None else low, LARGEST if high is None else high]
            found += [math.nan] if feature.has_gaps else []
        values.append(found if feature.has_gaps or not feature.choices else found[1:])
    n_rows = max(map(len, values))
    return np.array([found + found[-1:] * (n_rows - len(found)) for found in values]).T
