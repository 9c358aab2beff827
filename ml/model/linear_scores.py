"""The scores of a linear model or naive Bayes, and the answers that a link makes of them.

Scores are computed as the library computes those of one row: the same product of BLAS, row by row, so that a batch has
the bits that its rows have alone. Libraries are not so: a batch of scikit-learn's differs from its rows in the last
bits, as another product does.
"""

from __future__ import annotations

import copy
import sys
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.model.design import Design, DesignColumn
from ml.model.labelling import Labelling
from ml.model.linear import Linear
from ml.model.links import LINKS, allowed_error, calibrated, divided, expits

Values = NDArray[np.float64]
# Operations that make a polynomial of the first degree.
SCALING = {"subtract", "divide", "multiply", "add", "fill"}
# Numbers that are added up at once, 8 MB as float64.
MAX_PARTS = 2**20
_EPS = sys.float_info.epsilon


class LinearScores:
    """Evaluates a linear model, whose answers have the labels that the labelling gives."""

    def __init__(self, linear: Linear, labelling: Labelling) -> None:
        self._linear = linear
        self._labelling = labelling
        self._n_labels = n_labels = len(labelling.labels)
        self._design = Design(linear.columns)
        self._features = np.array([column.feature for column in linear.columns], dtype=np.intp)
        self._is_plain = [*linear.columns] == [DesignColumn(feature=place) for place in range(len(linear.columns))]
        width = linear.n_sums
        if linear.link == "calibrated":
            width = 1 if n_labels == 2 else n_labels
        # As the library has them: its product is one with the transposed coefficients of each model, in their order.
        order: Literal["C", "F"] = "C" if linear.coefficients.flags.c_contiguous else "F"
        self._members = [
            (
                np.array(linear.coefficients[start : start + width], order=order).T,
                linear.intercept[start : start + width],
            )
            for start in range(0, linear.n_sums, width)
        ]
        self._answers = {
            "identity": LINKS["identity"],
            "expit": LINKS["expit"],
            "softmax": LINKS["softmax"],
            "one_vs_rest": _one_vs_rest,
            "calibrated": self._calibrated,
            "posterior": _posterior,
        }[linear.link]

    def labelled(self, labelling: Labelling) -> LinearScores:
        """Return the same scores, whose answers have the labels that another labelling gives."""
        other = copy.copy(self)
        other._labelling = labelling
        return other

    def sums(self, rows: Values) -> Values:
        """Return the scores, shape (n, n_sums), of rows, shape (n, n_features)."""
        matrix = np.ascontiguousarray(rows) if self._is_plain else self._design.matrix(rows)
        if self._linear.link == "posterior":
            return self._log_joint(matrix)
        if self._linear.is_sparse:
            return np.concatenate([self._in_order(matrix, *member) for member in self._members], axis=1)
        stacked = matrix[:, None, :]
        parts = [np.matmul(stacked, weights)[:, 0, :] + intercept for weights, intercept in self._members]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _in_order(self, matrix: Values, weights: Values, intercept: Values) -> Values:
        """Return scores that are added column by column, as SciPy multiplies a sparse matrix."""
        sums = np.empty((len(matrix), len(intercept)))
        piece = max(1, MAX_PARTS // max(1, weights.size))
        for start in range(0, len(matrix), piece):
            parts = matrix[start : start + piece, :, None] * weights
            sums[start : start + piece] = np.add.accumulate(parts, axis=1)[:, -1]
        return sums + intercept

    def _log_joint(self, matrix: Values) -> Values:
        """Return the logarithms of share times density, in scikit-learn's order of operations."""
        linear, sums = self._linear, np.empty((len(matrix), self._linear.n_sums))
        for place, (means, variances) in enumerate(zip(linear.coefficients, linear.variances, strict=True)):
            density = -0.5 * np.sum(np.log(2.0 * np.pi * variances))
            density = density - 0.5 * np.sum(((matrix - means) ** 2) / variances, axis=1)
            sums[:, place] = linear.intercept[place] + density
        return sums

    def plane(self, row: Values, x: int, xs: Values, y: int, ys: Values) -> Values:
        """Return the scores over values of two features, all others held, shape (n_ys * n_xs, n_sums).

        They are sums of parts, and so their last bits are not those of `sums`.
        """
        across, up = np.tile(row, (len(xs), 1)), np.tile(row, (len(ys), 1))
        across[:, x], up[:, y] = xs, ys
        rest = self.sums(up) - self.sums(row[None])
        return (self.sums(across)[None] + rest[:, None]).reshape(-1, self._linear.n_sums)

    def contributions(self, row: Values) -> tuple[Values, Values]:
        """Return the scores of the mean of the training rows, and what each feature adds to them in those of `row`.

        Of a linear model that is coefficient times value less mean. Shapes (n_sums,) and (n_features, n_sums); together
        they are the scores, which are probabilities' log odds where the link is the logistic function.
        """
        linear = self._linear
        own, mean = self._parts(np.stack([self._design.matrix(row[None])[0], linear.means]))
        constant = linear.intercept
        if linear.link == "posterior":
            constant = constant - 0.5 * np.log(2.0 * np.pi * linear.variances).sum(axis=1)
        return constant + mean.sum(axis=1), self._by_feature(own - mean, len(row))

    def _parts(self, matrix: Values) -> Values:
        """Return what each column adds to the scores: shape (n, n_columns) in, (n, n_sums, n_columns) out."""
        linear = self._linear
        if linear.link == "posterior":
            return -0.5 * (matrix[:, None, :] - linear.coefficients) ** 2 / linear.variances
        return matrix[:, None, :] * linear.coefficients

    def _by_feature(self, parts: Values, n_features: int) -> Values:
        """Return what each feature adds: shape (..., n_columns) in, (n_features, ...) out."""
        added = np.zeros((n_features, *parts.shape[:-1]))
        np.add.at(added, self._features, np.moveaxis(parts, -1, 0))
        return added

    def answers(self, sums: Values) -> Values:
        """Return the probabilities, shape (n, n_labels), or quantities, shape (n, 1), of scores."""
        return np.asarray(self._answers(sums), dtype=np.float64)

    def indices(self, sums: Values, answers: Values) -> NDArray[np.intp]:
        """Return the index of the label of each answer, shape (n,)."""
        return self._labelling.indices(answers, sums=sums)

    def log_odds(self, sums: Values) -> Values:
        """Return the log odds of each label, shape (n, n_labels), or quantities, shape (n, 1): smooth as scores are."""
        if self._linear.link == "identity":
            return sums
        if self._linear.link == "expit":
            return np.column_stack([-sums, sums])
        if self._linear.link in ("softmax", "posterior"):
            logarithms = sums - np.logaddexp.reduce(sums, axis=1, keepdims=True)
            if self._n_labels == 2:
                return logarithms - logarithms[:, ::-1]
            # Of labels that are all but certain they are cut short.
            return logarithms - np.log(-np.expm1(np.minimum(logarithms, -_EPS)))
        shares = np.clip(self.answers(sums), _EPS, 1 - _EPS)
        return np.log(shares) - np.log1p(-shares)

    def _calibrated(self, sums: Values) -> Values:
        total = np.zeros((len(sums), self._n_labels))
        shares = calibrated(sums, self._linear.curves)
        width = 1 if self._n_labels == 2 else self._n_labels
        for start in range(0, sums.shape[1], width):
            member = shares[:, start : start + width]
            total += np.column_stack([1.0 - member, member]) if width == 1 else divided(member)
        return total / len(self._members)

    def is_closed(self, feature: int) -> bool:
        """Return whether scores are polynomials along a number, and decide on the label: see `roots`."""
        own = [column for column in self._linear.columns if column.feature == feature]
        return self._linear.link != "calibrated" and all(
            not column.is_missing and {operation.name for operation in column.operations} <= SCALING for column in own
        )

    def roots(
        self, row: Values, features: NDArray[np.intp], low: Values, span: Values, *, level: float
    ) -> tuple[NDArray[np.intp], Values]:
        """Return where two scores are level along numbers, all others held: shapes (n_roots,) and (n_roots,).

        Args:
            features: positions of numbers along which scores are polynomials.
            low, span: shape (n,): where each of them is searched.
            level: by how much the second of two scores, or the only one, decides.

        Returns:
            positions in `features`, and values between `low` and `low + span`.
        """
        points = np.stack([row] * 4)
        points[1:, features] = low + span * np.array([[0.0], [0.5], [1.0]])
        parts = self._parts(self._design.matrix(points))
        sums = self.sums(row[None])[0] + self._by_feature(parts[1:] - parts[0], len(row))[features]
        if sums.shape[2] == 1:
            gaps = sums - level
        elif sums.shape[2] == 2:
            gaps = sums[:, :, 1:] - sums[:, :, :1] - level
        else:
            own = int(self.sums(row[None])[0].argmax())
            gaps = sums[:, :, own, None] - np.delete(sums, own, axis=2)
        first, middle, last = gaps[:, 0], gaps[:, 1], gaps[:, 2]
        square = 2 * (first - 2 * middle + last) if self._linear.link == "posterior" else np.zeros_like(first)
        shares = _roots(square, last - first - square, first)
        places, _, _ = found = np.nonzero((shares >= 0) & (shares <= 1))
        return places, low[places] + shares[found] * span[places]

    def fits(self, rows: Values, sums: Values, answers: Values) -> NDArray[np.bool_]:
        """Return whether each row has these scores and answers, as far as machines agree on them, shape (n,).

        Another machine adds in another order. So scores may differ by its rounding, and answers from what the link
        makes of these scores by some ulp; the logarithm in Bayes' rule rounds as its score does.
        """
        has_scores = np.abs(self.sums(rows) - sums) <= self.error_of(rows)
        allowed = allowed_error(answers)
        if self._linear.link == "posterior":
            allowed = allowed * (1 + np.abs(sums).max(axis=1, keepdims=True))
        has_answers = np.abs(self.answers(sums) - answers) <= allowed
        fits: NDArray[np.bool_] = np.all(has_scores, axis=1) & np.all(has_answers, axis=1)
        return fits

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
        error: Values = 2 * (len(linear.columns) + 2) * _EPS * (parts + np.abs(linear.intercept))
        return error


def _roots(square: Values, slope: Values, start: Values) -> Values:
    """Return the roots of polynomials, one more axis of 2; NaN and infinities where there is none.

    Without the difference of like numbers (Press et al., "Numerical recipes", 2007, section 5.6).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        half = -0.5 * (slope + np.copysign(np.sqrt(slope**2 - 4 * square * start), slope))
        return np.stack([half / square, start / half], axis=-1)


def _one_vs_rest(sums: Values) -> Values:
    return np.asarray(divided(expits(sums)))


def _posterior(sums: Values) -> Values:
    """Return exp(sum - log of the sum of all exp(sum)), in the order of `scipy.special.logsumexp`."""
    greatest = sums.max(axis=1, keepdims=True)
    is_greatest = sums == greatest
    count = is_greatest.sum(axis=1, keepdims=True, dtype=np.float64)
    others = np.exp(np.where(is_greatest, -np.inf, sums) - greatest).sum(axis=1, keepdims=True)
    logarithm = np.log1p(np.where(others == 0, others, others / count)) + np.log(count) + greatest
    powers: Values = np.exp(sums - logarithm)
    return powers
