"""Models that vote: the forests of several become one, whose sums are those of each, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from ml.errors import ForestError
from ml.estimators.linear import calibrated_in, calibrators_of, curve_of
from ml.estimators.paths import working_in
from ml.model.cuts import bound_of, cut_below
from ml.model.forest import LEAF, Forest
from ml.model.total import VOTING_LINKS, Member, Total

ForestFrom = Callable[[Any], Forest]


def vote_of(estimator: Any, forest_from: ForestFrom) -> Forest:
    """Return a VotingClassifier with soft votes, or a VotingRegressor, of models made of trees.

    Raises:
        ForestError: a member is another model, or the vote a hard one; the sentence says what would work.
    """
    if getattr(estimator, "voting", "soft") != "soft":
        raise ForestError("a VotingClassifier with voting='hard' has no probabilities: voting='soft' would work")
    weights = [1.0] * len(estimator.estimators) if estimator.weights is None else estimator.weights
    named = zip(estimator.estimators, weights, strict=True)
    kept = [(name, weight) for (name, one), weight in named if not (isinstance(one, str) and one == "drop")]
    parts = zip(kept, estimator.estimators_, strict=True)
    members = [_member(name, one, estimator, forest_from, weight=float(weight)) for (name, weight), one in parts]
    return _joined(members)


def calibrated_of(estimator: Any, forest_from: ForestFrom) -> Forest:
    """Return a CalibratedClassifierCV around models made of trees: each fold's is one that votes.

    Raises:
        ForestError: it is around other models, or calibrated in another way.
    """
    inner, calibrators = calibrated_in(estimator), calibrators_of(estimator)
    if not all(hasattr(one, "predict") for one in inner):
        # Nothing says there which of its scores were calibrated.
        raise ForestError("a CalibratedClassifierCV in a file is not supported: use ml.export in the session")
    n_curves = len(calibrators) // len(inner)
    members = []
    for number, one in enumerate(inner):
        curves = tuple(map(curve_of, calibrators[number * n_curves : (number + 1) * n_curves]))
        if len(one.classes_) != len(estimator.classes_):
            raise ForestError("a fold of CalibratedClassifierCV has not seen every class: fit fewer folds")
        forest, member = _member(f"fold {number + 1}", one, estimator, forest_from)
        if hasattr(one, "decision_function"):
            # What is calibrated is then the score before the link.
            if member.link == "half_logit" or not hasattr(one, "_raw_predict"):
                raise ForestError(f"CalibratedClassifierCV holds a {type(one).__name__}: {working_in(estimator)}")
            member = msgspec.structs.replace(member, link="identity")
        members.append((forest, msgspec.structs.replace(member, curves=curves)))
    return _joined(members)


def _member(name: str, one: Any, whole: Any, forest_from: ForestFrom, *, weight: float = 1.0) -> tuple[Forest, Member]:
    kind, outer = type(one).__name__, type(whole).__name__
    try:
        forest = forest_from(one)
    except ForestError as error:
        way_out = working_in(whole)
        if kind == "Pipeline":
            way_out = f"put its steps before the {outer}, in one Pipeline with it"
        raise ForestError(f"{outer} holds {name!r}, a {kind}, which cannot be read there: {way_out}") from error
    if forest.total.link not in VOTING_LINKS or forest.total.single_sums or forest.set_of is not None:
        raise ForestError(f"{outer} holds {name!r}, a {kind}, whose answers cannot be added: {working_in(whole)}")
    member = Member(n_sums=forest.n_sums, divisor=forest.divisor, link=forest.total.link, weight=weight)
    return forest, member


def _joined(members: Sequence[tuple[Forest, Member]]) -> Forest:
    """Return one forest: a leaf adds 0 to the sums that are not its own, which changes no bit of them."""
    forests = [forest for forest, _ in members]
    is_single = all(forest.total.single_values for forest in forests)
    if not is_single:
        forests = [_widened(forest) for forest in forests]
    n_nodes = np.cumsum([0, *(len(forest.feature) for forest in forests)])[:-1]
    n_sums = np.cumsum([0, *(forest.n_sums for forest in forests)])
    values = []
    for forest, start in zip(forests, n_sums, strict=False):
        wide = np.zeros((len(forest.values), n_sums[-1]))
        wide[:, start : start + forest.n_sums] = _wide_values(forest)
        values.append(wide)
    first = forests[0]

    def whole(name: str) -> Any:
        return np.concatenate([getattr(forest, name) for forest in forests])

    def moved(name: str) -> Any:
        parts = [getattr(forest, name) for forest in forests]
        return np.concatenate([np.where(p == LEAF, LEAF, p + n) for p, n in zip(parts, n_nodes, strict=True)])

    return replace(
        first,
        roots=moved("roots").astype(np.int32),
        feature=whole("feature"),
        threshold=whole("threshold"),
        left=moved("left").astype(np.int32),
        right=moved("right").astype(np.int32),
        values=np.concatenate(values),
        missing_left=whole("missing_left"),
        covers=whole("covers"),
        init=np.concatenate([forest.starts() for forest in forests]),
        output_of=None,
        total=Total(link="vote", single_values=is_single, members=tuple(member for _, member in members)),
    )


def _wide_values(forest: Forest) -> Any:
    """Return what each leaf adds to each of the forest's sums, shape (n_leaves, n_sums)."""
    if forest.output_of is None:
        return forest.values
    leaves = np.flatnonzero(forest.feature == LEAF)
    sum_of = forest.output_of[np.searchsorted(forest.roots, leaves, side="right") - 1]
    return np.where(np.arange(forest.n_sums) == sum_of[:, None], forest.values, 0.0)


def _widened(forest: Forest) -> Forest:
    """Return a forest that compares float64 and sends every value where the one that compares float32 does."""
    if not forest.total.single_values:
        return forest
    is_compared = (forest.feature != LEAF) & np.isfinite(forest.threshold)
    threshold = np.where(is_compared, bound_of(cut_below(forest.threshold)), forest.threshold)
    return replace(forest, threshold=threshold, total=msgspec.structs.replace(forest.total, single_values=False))
