"""Models whose score is a sum of one part a feature: linear ones, and naive Bayes with normal distributions.

Scores are computed as the library computes those of one row: the same product of BLAS, row by row, so that a batch has
the bits that its rows have alone. Libraries are not so: a batch of scikit-learn's differs from its rows in the last
bits, as another product does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError
from ml.model.design import Column, Design
from ml.tables.dataset import Feature
from ml.tables.numbers import LARGEST

Values = NDArray[np.float64]
Link = Literal["identity", "expit", "softmax", "one_vs_rest", "calibrated", "posterior"]
# Parts of larger scores would leave the floats that can be added.
LARGEST_SCORE = 1e300
# Probabilities of another machine, or of another version of NumPy, may differ by so much.
ULPS = 4
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Linear:
    """A score for each class, or one for two classes or a quantity: a product of columns and coefficients.

    Attributes:
        columns: made of the features, in the order of the coefficients.
        coefficients: shape (n_sums, n_columns), row after row or column after column in memory, as the library has
            them: the bits of a product depend on it. Of naive Bayes, the mean of each column in each class.
        intercept: shape (n_sums,). Of naive Bayes, the logarithm of each class's share.
        means: shape (n_columns,): of the training rows.
        link: what makes the answers of the scores: nothing; the logistic function of one score; softmax; the logistic
            function of each score, divided by their sum; the same of `slope * score + offset`, the mean of several
            models (Platt, "Probabilistic outputs for support vector machines", 1999); or Bayes' rule.
        calibration: shape (n_sums, 2): slope and offset of each score of calibrated models, whose scores follow each
            other; else (0, 2).
        variances: shape (n_sums, n_columns): of each column in each class, of naive Bayes; else (0, n_columns).
    """

    columns: tuple[Column, ...]
    coefficients: Values
    intercept: Values
    means: Values
    link: Link
    calibration: Values
    variances: Values

    @property
    def n_sums(self) -> int:
        """The number of scores."""
        return len(self.coefficients)

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
            ("calibration", self.calibration, (n_sums if self.link == "calibrated" else 0, 2)),
            ("variances", self.variances, (n_sums if self.link == "posterior" else 0, n_columns)),
        ):
            if array.shape != shape:
                raise ModelFileError(f"{name} has shape {array.shape}, not {shape}")
            if not np.all(np.abs(array) <= LARGEST):
                raise ModelFileError(f"{name} has a value that is not finite, or too large for a 32-bit float")
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
                slopes = self.calibration[:, 0] if len(self.calibration) else 1.0
                sums = np.max(np.abs(slopes) * sums)
        if not sums <= LARGEST_SCORE:
            raise ModelFileError("the coefficients are so large that a score may not be finite")


def edges_of(features: Sequence[Feature]) -> Values:
    """Return rows that have between them the ends of each number, every choice, an unknown word, and no value."""
    values = []
    for feature in features:
        if feature.choices:
            found = [math.nan, -1.0, *map(float, range(len(feature.choices)))]
        else:
            low, high = feature.minimum, feature.maximum
            found = [-LARGEST if low is None else low, LARGEST if high is None else high]
            found += [math.nan] if feature.has_gaps else []
        values.append(found if feature.has_gaps or not feature.choices else found[1:])
    n_rows = max(map(len, values))
    return np.array([found + found[-1:] * (n_rows - len(found)) for found in values]).T


class Scores:
    """Evaluates a linear model.

    Args:
        n_labels: 0 for a quantity.
    """

    def __init__(self, linear: Linear, n_labels: int) -> None:
        self._linear = linear
        self._n_labels = n_labels
        self._design = Design(linear.columns)
        self._is_plain = [*linear.columns] == [Column(feature=place) for place in range(len(linear.columns))]
        width = linear.n_sums
        if linear.link == "calibrated":
            width = 1 if n_labels == 2 else n_labels
        # As the library has them: its product is one with the transposed coefficients of each model, in their order.
        order: Literal["C", "F"] = "C" if linear.coefficients.flags.c_contiguous else "F"
        self._members = [
            (np.array(linear.coefficients[start : start + width], order=order).T, linear.intercept[start : start + width])
            for start in range(0, linear.n_sums, width)
        ]
        self._answers = {
            "identity": _identity,
            "expit": _expit_pairs,
            "softmax": _softmax,
            "one_vs_rest": _one_vs_rest,
            "calibrated": self._calibrated,
            "posterior": _posterior,
        }[linear.link]

    def sums(self, rows: Values) -> Values:
        """Return the scores, shape (n, n_sums), of rows, shape (n, n_features)."""
        matrix = np.ascontiguousarray(rows) if self._is_plain else self._design.matrix(rows)
        if self._linear.link == "posterior":
            return self._log_joint(matrix)
        stacked = matrix[:, None, :]
        parts = [np.matmul(stacked, weights)[:, 0, :] + intercept for weights, intercept in self._members]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _log_joint(self, matrix: Values) -> Values:
        """Return the logarithms of share times density, in scikit-learn's order of operations."""
        linear, sums = self._linear, np.empty((len(matrix), self._linear.n_sums))
        for place, (means, variances) in enumerate(zip(linear.coefficients, linear.variances, strict=True)):
            density = -0.5 * np.sum(np.log(2.0 * np.pi * variances))
            density = density - 0.5 * np.sum(((matrix - means) ** 2) / variances, axis=1)
            sums[:, place] = linear.intercept[place] + density
        return sums

    def answers(self, sums: Values) -> Values:
        """Return the probabilities, shape (n, n_labels), or quantities, shape (n, 1), of scores."""
        return self._answers(sums)

    def indices(self, sums: Values, answers: Values) -> NDArray[np.intp]:
        """Return the index of the label that the library predicts, shape (n,)."""
        if self._linear.link == "expit":
            return (sums[:, 0] > 0).astype(np.intp)
        decides = answers if self._linear.link == "calibrated" else sums
        indices: NDArray[np.intp] = decides.argmax(axis=1)
        return indices

    def _calibrated(self, sums: Values) -> Values:
        total = np.zeros((len(sums), self._n_labels))
        shares = _expit(-(self._linear.calibration[:, 0] * sums + self._linear.calibration[:, 1]))
        width = 1 if self._n_labels == 2 else self._n_labels
        for start in range(0, sums.shape[1], width):
            member = shares[:, start : start + width]
            total += np.column_stack([1.0 - member, member]) if width == 1 else _divided(member)
        return total / len(self._members)

    def error_of(self, rows: Values) -> Values:
        """Return how far scores of another order of operations may be from these, shape (n, n_sums).

        Each of n additions rounds by at most half a unit in the last place of what was added so far (Higham, "Accuracy
        and stability of numerical algorithms", 2002, section 3.1).
        """
        matrix = np.abs(self._design.matrix(rows))
        linear = self._linear
        if linear.link == "posterior":
            parts = ((matrix[:, None, :] + np.abs(linear.coefficients)) ** 2 / linear.variances).sum(axis=2)
            parts += np.abs(np.log(2.0 * np.pi * linear.variances)).sum(axis=1)
        else:
            parts = matrix @ np.abs(linear.coefficients).T
        return 2 * (len(linear.columns) + 2) * _EPS * (parts + np.abs(linear.intercept))


def _identity(sums: Values) -> Values:
    return sums


def _expit(sums: Values) -> Values:
    """Return 1 / (1 + exp(-x)) with the exp() of the C library, as `scipy.special.expit` does."""
    exp, least = math.exp, -math.log(np.finfo(np.float64).max)
    shares = [1.0 / (1.0 + exp(-value)) if value >= least else 0.0 for value in sums.ravel().tolist()]
    return np.array(shares, dtype=np.float64).reshape(sums.shape)


def _expit_pairs(sums: Values) -> Values:
    second = _expit(sums)
    return np.column_stack([1 - second, second])


def _softmax(sums: Values) -> Values:
    powers = np.exp(sums - sums.max(axis=1, keepdims=True))
    shares: Values = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _one_vs_rest(sums: Values) -> Values:
    return _divided(_expit(sums))


def _divided(shares: Values) -> Values:
    """Return shares that sum to 1; all are alike where none is above 0."""
    total = shares.sum(axis=1, keepdims=True)
    alike = np.full_like(shares, 1 / shares.shape[1])
    return np.divide(shares, total, out=alike, where=total != 0)


def _posterior(sums: Values) -> Values:
    """Return exp(sum - log of the sum of all exp(sum)), in the order of `scipy.special.logsumexp`."""
    greatest = sums.max(axis=1, keepdims=True)
    is_greatest = sums == greatest
    count = is_greatest.sum(axis=1, keepdims=True, dtype=np.float64)
    others = np.exp(np.where(is_greatest, -np.inf, sums) - greatest).sum(axis=1, keepdims=True)
    logarithm = np.log1p(np.where(others == 0, others, others / count)) + np.log(count) + greatest
    powers: Values = np.exp(sums - logarithm)
    return powers
