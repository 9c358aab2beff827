"""What becomes of sums: one function a link, from sums, shape (n, n_sums), to answers, shape (n, n_answers).

Each calls the exp() that its library calls, in that library's order: NumPy's and the one of the C library differ in the
last bit. The links of boosted trees have a second function, from the sums of one row to its answers, as lists of
floats: calls of NumPy would take as long as 300 trees. A float32 is a float there, rounded after each operation, which
gives the bits of float32 arithmetic (Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter 30, 1995).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.total import Curve, Link, Member, Total

Array = NDArray[np.floating[Any]]

# Probabilities that exp() makes may differ so much from those of another machine.
ULPS = 4
# The largest number whose exp() is finite.
LARGEST_EXPONENT = 709.782712893384
# XGBoost's own bound, src/common/math.h.
LARGEST_SINGLE_EXPONENT = 88.7


def expit(value: float) -> float:
    """Return 1 / (1 + exp(-value)) as `scipy.special.expit` and LightGBM do, with the exp() of the C library."""
    # exp() of more raises an error where C gives infinity.
    return 1.0 / (1.0 + math.exp(-value)) if value >= -LARGEST_EXPONENT else 0.0


def expits(sums: Array) -> NDArray[np.float64]:
    """Return `expit` of each value, same shape."""
    return np.array([expit(value) for value in sums.ravel().tolist()]).reshape(sums.shape)


def _expit(sums: Array) -> Array:
    return _pairs(expits(sums[:, 0]))


def _half_logit(sums: Array) -> Array:
    return _expit(2 * sums)


def _pairs(second: Array) -> Array:
    pairs: Array = np.empty((len(second), 2), dtype=second.dtype)
    np.subtract(1, second, out=pairs[:, 0])
    pairs[:, 1] = second
    return pairs


def _softmax(sums: Array) -> Array:
    """Return the softmax of each row as `sklearn.utils.extmath.softmax` does for one row."""
    shares: Array = sums - sums.max(axis=1).reshape(-1, 1)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=1).reshape(-1, 1)
    return shares


def _samme(sums: Array) -> Array:
    """Return the probabilities of AdaBoost (Zhu et al., "Multi-class AdaBoost", 2009, equation 15)."""
    if sums.shape[1] == 1:
        return _softmax(np.column_stack([-sums, sums]))
    return _softmax(sums / (sums.shape[1] - 1))


def _exp_sequential(sums: Array) -> Array:
    """Return powers as LightGBM does: with the exp() of the C library."""
    return np.array([math.exp(value) for value in sums.ravel().tolist()]).reshape(sums.shape)


def _softmax_sequential(sums: Array) -> Array:
    """Return the softmax of each row as LightGBM does: the exp() of the C library, added from left to right."""
    shares = sums - sums.max(axis=1).reshape(-1, 1)
    powers = np.array([math.exp(value) for value in shares.ravel().tolist()]).reshape(shares.shape)
    shares = powers / np.add.accumulate(powers, axis=1)[:, -1:]
    return shares


@cache
def _expf() -> Callable[[float], float]:
    """Return the exp() of the C library for float32; where there is none, that for float64, rounded."""
    try:
        function: Any = ctypes.CDLL(ctypes.util.find_library("m")).expf
    except (OSError, AttributeError):
        return lambda value: _single(math.exp(_single(value)))
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    return function  # type: ignore[no-any-return]  # ctypes has no types for functions


def _exp_single(sums: Array) -> Array:
    """Return powers as XGBoost does: with the exp() of the C library, in float32."""
    return np.array([_expf()(value) for value in sums.ravel().tolist()], dtype=np.float32).reshape(sums.shape)


def _expit_single(sums: Array) -> Array:
    """Return XGBoost's sigmoid, all in float32 (`Sigmoid` in its src/common/math.h)."""
    expf, most = _expf(), LARGEST_SINGLE_EXPONENT
    powers = np.array([expf(min(-value, most)) for value in sums[:, 0].tolist()], dtype=np.float32)
    return _pairs(np.float32(1) / (powers + np.float32(1) + np.float32(1e-16)))


def _softmax_single(sums: Array) -> Array:
    """Return XGBoost's softmax: exp() and quotient in float32, their sum in float64 (its src/common/math.h)."""
    expf, shares = _expf(), sums - sums.max(axis=1).reshape(-1, 1)
    powers = np.array([expf(value) for value in shares.ravel().tolist()], dtype=np.float32).reshape(shares.shape)
    total = np.add.accumulate(powers.astype(np.float64), axis=1)[:, -1:]
    return powers / total.astype(np.float32)


def _expit_of_row(sums: Sequence[float]) -> list[float]:
    share = expit(sums[0])
    return [1.0 - share, share]


def _exp_sequential_of_row(sums: Sequence[float]) -> list[float]:
    return [*map(math.exp, sums)]


def _exp_single_of_row(sums: Sequence[float]) -> list[float]:
    return [*map(_expf(), sums)]


def _softmax_of_row(sums: Sequence[float]) -> list[float]:
    greatest = max(sums)
    powers = np.exp([value - greatest for value in sums])
    shares: list[float] = (powers / np.add.reduce(powers)).tolist()
    return shares


def _softmax_sequential_of_row(sums: Sequence[float]) -> list[float]:
    greatest = max(sums)
    powers = [math.exp(value - greatest) for value in sums]
    total = _added(powers)
    return [power / total for power in powers]


def _expit_single_of_row(sums: Sequence[float]) -> list[float]:
    power = _expf()(min(-sums[0], LARGEST_SINGLE_EXPONENT))
    share = _single(1.0 / _single(power + 1.0))
    return [_single(1.0 - share), share]


def _softmax_single_of_row(sums: Sequence[float]) -> list[float]:
    # Its argument is rounded to a float32.
    greatest, expf = max(sums), _expf()
    powers = [expf(value - greatest) for value in sums]
    total = _single(_added(powers))
    return [_single(power / total) for power in powers]


def _added(values: Sequence[float]) -> float:
    """Return the sum from left to right: that of Python is a more exact one since 3.12."""
    total = 0.0
    for value in values:
        total += value
    return total


def _single(value: float) -> float:
    return ctypes.c_float(value).value


def allowed_error(answers: Array, total: Total | None = None) -> Array:
    """Return by how much answers may differ between machines, since one exp() differs from another.

    Shape (n, n_answers) in, (n, 1) out.

    Args:
        total: the arithmetic of trees; None for a linear model.
    """
    if total is not None and total.is_exact:
        return np.zeros((len(answers), 1))
    epsilon = np.finfo(np.float32 if total is not None and total.single_sums else np.float64).eps
    error: Array = ULPS * epsilon * np.abs(answers).max(axis=1, keepdims=True)
    return error


def _vote(sums: Array, total: Total) -> Array:
    """Return the weighted mean of the members' answers, as `numpy.average` adds them up."""
    start, answers = 0, None
    is_weighted = any(member.weight != 1 for member in total.members)
    for member in total.members:
        own = _answers_of_member(sums[:, start : start + member.n_sums], member)
        own = own * member.weight if is_weighted else own
        answers = own if answers is None else answers + own
        start += member.n_sums
    assert answers is not None  # there is a member
    shares: Array = answers / np.sum([member.weight for member in total.members])
    return shares


def _answers_of_member(sums: Array, member: Member) -> Array:
    answers = LINKS[member.link](sums / member.divisor)
    if not member.curves:
        return answers
    if len(member.curves) == 1:
        return _pairs(calibrated(answers[:, -1:], member.curves)[:, 0])
    return divided(calibrated(answers, member.curves))


def calibrated(scores: Array, curves: Sequence[Curve]) -> Array:
    """Return what calibration makes of scores, shape (n, n_curves)."""
    columns = [
        np.interp(np.clip(column, curve.scores[0], curve.scores[-1]), curve.scores, curve.shares)
        if curve.scores
        else expits(-(curve.slope * column + curve.offset))
        for column, curve in zip(scores.T, curves, strict=True)
    ]
    # Between points an ulp more than 1 can come out.
    shares: Array = np.minimum(np.column_stack(columns), 1.0)
    return shares


def divided(shares: Array) -> Array:
    """Return shares that sum to 1; all are alike where none is above 0."""
    total = shares.sum(axis=1, keepdims=True)
    alike = np.full_like(shares, 1 / shares.shape[1])
    found: Array = np.divide(shares, total, out=alike, where=total != 0)
    return found


def _median(sums: Array, total: Total) -> Array:
    """Return the weighted median of the sums of each row, as scikit-learn's AdaBoostRegressor has it."""
    order = np.argsort(sums, axis=1, kind="stable")
    weights = np.cumsum(np.array(total.weights)[order], axis=1)
    middle = (weights >= 0.5 * weights[:, -1:]).argmax(axis=1)
    medians: Array = np.take_along_axis(sums, np.take_along_axis(order, middle[:, None], axis=1), axis=1)
    return medians


def link_of(total: Total) -> Callable[[Array], Array]:
    """Return what makes answers of divided sums."""
    several = {"vote": _vote, "median": _median}.get(total.link)
    return LINKS[total.link] if several is None else partial(several, total=total)


def row_link_of(total: Total) -> Callable[[Sequence[float]], Sequence[float]]:
    """Return what makes the answers of one row of its divided sums: the same bits as `link_of` makes of many."""
    link, own = link_of(total), ROW_LINKS.get(total.link)
    if own is not None and not (total.single_sums and own in (_softmax_of_row, _softmax_sequential_of_row)):
        return own
    dtype = np.float32 if total.single_sums else np.float64
    return lambda sums: link(np.array([sums], dtype=dtype))[0].tolist()


ROW_LINKS: Mapping[Link, Callable[[Sequence[float]], Sequence[float]]] = {
    "mean": list,
    "identity": list,
    "exp_sequential": _exp_sequential_of_row,
    "exp_single": _exp_single_of_row,
    "expit": _expit_of_row,
    "softmax": _softmax_of_row,
    "softmax_sequential": _softmax_sequential_of_row,
    "expit_single": _expit_single_of_row,
    "softmax_single": _softmax_single_of_row,
}
LINKS: Mapping[Link, Callable[[Array], Array]] = {
    "mean": np.asarray,
    "identity": np.asarray,
    "exp": np.exp,
    "exp_sequential": _exp_sequential,
    "exp_single": _exp_single,
    "expit": _expit,
    "half_logit": _half_logit,
    "softmax": _softmax,
    "samme": _samme,
    "softmax_sequential": _softmax_sequential,
    "expit_single": _expit_single,
    "softmax_single": _softmax_single,
}
