"""The arrays of a predictor as a model file has them: a forest, or a linear model."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ForestError, ModelFileError, shown
from ml.model import archive, older
from ml.model.card import Card
from ml.model.forest import LEAF, MAX_CELLS, Forest
from ml.model.linear import Linear
from ml.tables.numbers import LARGEST

# Type and number of dimensions of each array.
FOREST = {
    "roots": ("<i4", 1),
    "feature": ("<i4", 1),
    "threshold": ("<f8", 1),
    "left": ("<i4", 1),
    "right": ("<i4", 1),
    "values": ("<f8", 2),
    "missing_left": ("|u1", 1),
    "covers": ("<f8", 1),
    "set_of": ("<i4", 1),
    "sets": ("<u8", 2),
    "init": ("<f8", 1),
    "output_of": ("<i4", 1),
}
LINEAR = {
    "coefficients": ("<f8", 2),
    "intercept": ("<f8", 1),
    "means": ("<f8", 1),
    "variances": ("<f8", 2),
}
# It is stored as its library has it in memory, row after row or column after column.
ORDERED = "coefficients"
# Those that a forest may lack are empty in the file then.
_OPTIONAL = {"set_of": (0,), "sets": (0, MAX_CELLS // 64), "init": (0,), "output_of": (0,)}


def archive_members(predictor: Forest | Linear) -> dict[str, bytes]:
    """Return the arrays of a predictor as members of an archive.

    Raises:
        ModelFileError: it comes out of a file of format 1, which lacks what a file of today holds.
    """
    is_forest = isinstance(predictor, Forest)
    if isinstance(predictor, Forest) and predictor.covers is None:
        raise ModelFileError(f"a model of format {older.FORMAT} cannot be written again: it has no covers")
    members = {}
    for name, (dtype, _) in (FOREST if is_forest else LINEAR).items():
        array = getattr(predictor, name)
        array = np.empty(_OPTIONAL[name]) if array is None else array
        order: Literal["A", "C"] = "A" if name == ORDERED else "C"
        members[f"{name}.npy"] = archive.npy_of(np.asarray(array, dtype=dtype, order=order))
    return members


def described(card: Card, predictor: Forest | Linear) -> Card:
    """Return the card with what a file says of a linear model beside its arrays."""
    return card if isinstance(predictor, Forest) else msgspec.structs.replace(card, formula=predictor.formula)


def predictor_of(arrays: dict[str, NDArray[Any]], card: Card) -> Forest | Linear:
    """Return the predictor with these arrays.

    Raises:
        ModelFileError: names the first thing that is wrong.
    """
    return _forest(arrays, card) if card.formula is None else _linear(arrays, card)


def _linear(arrays: dict[str, NDArray[Any]], card: Card) -> Linear:
    assert card.formula is not None
    if card.trees:
        raise ModelFileError(f"the file holds no trees, but the card says {card.trees}")
    formula = card.formula
    given = {name: arrays[name] for name in LINEAR}
    linear = Linear(formula.columns, formula.link, curves=formula.curves, is_sparse=formula.is_sparse, **given)
    linear.check(card.features, n_labels=len(card.labels))
    return linear


def _forest(arrays: dict[str, NDArray[Any]], card: Card) -> Forest:
    given = {name: arrays[name] for name in FOREST if name in arrays}
    sides = given.get("missing_left", np.zeros_like(given["feature"]))
    if np.any(sides > 1):
        raise ModelFileError("missing_left has a value other than 0 and 1")
    given["missing_left"] = sides != 0
    given = {name: array for name, array in given.items() if name not in _OPTIONAL or len(array)}
    forest = Forest(n_features=len(card.features), total=card.total, **given)
    try:
        forest.check(is_quantity=card.quantity is not None)
    except ForestError as error:
        raise ModelFileError(f"the forest is broken: {error}") from error
    if card.labels and forest.n_outputs != len(card.labels):
        raise ModelFileError(
            f"the forest gives {forest.n_outputs} probabilities, but the card has {len(card.labels)} labels"
        )
    if forest.n_trees != card.trees:
        raise ModelFileError(f"the file holds {forest.n_trees} trees, but the card says {card.trees}")
    for feature in forest.set_features():
        if not card.features[feature].choices:
            raise ModelFileError(f"feature {shown(card.features[feature].key)} is compared by sets, but has no choices")
    # Below all values lies the cut that stands for no value, see ml/model/cuts.py.
    lowest = np.array([0.0 if f.choices else -LARGEST if f.has_gaps else -np.inf for f in card.features])
    below = forest.feature[forest.threshold < np.where(forest.feature == LEAF, -np.inf, lowest[forest.feature])]
    if len(below):
        raise ModelFileError(f"feature {shown(card.features[below[0]].key)}: a threshold below all of its values")
    return forest
