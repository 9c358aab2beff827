"""A table to learn from: named features and a target, all of them numbers. Knows nothing of models or files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

# The longest name, label or sentence in a table or model file, in characters.
MAX_TEXT = 1_000
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
# A whole number that float64 holds, at most.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
# The most words of a category; a model knows no difference between rarer ones.
MAX_CHOICES = 254
# In a row, a word that is not among the choices: below all positions, as no value is, see `ml.model.cuts`.
UNKNOWN = -1.0
# The texts of false and true, as a table may write them.
BOOLEANS = (("false", "no", "f", "n", "0"), ("true", "yes", "t", "y", "1"))


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """A named input: a number, or a category, whose values are words out of `choices`.

    In a row of numbers, a category's value is the position of its choice, and no value is NaN.

    Attributes:
        header: of its column in the training table, as written there.
        minimum, maximum: the limits that a sample must keep, in `unit`; None is no limit.
        titles: the title in other languages, by language code.
        choices: at most `MAX_CHOICES` different words; none for a number.
        is_closed: whether a word that is not among the choices is an error, as it is for some steps of a pipeline.
        has_gaps: whether its column had cells without a value, so that a sample may lack it as well.
        markers: what stands in a table's cell for no value, besides nothing: NA or ?.
        decimal, thousands: the marks of its column's numbers in a table; thousands may have none.
    """

    key: Text
    title: Text
    unit: Text = ""
    header: Text = ""
    minimum: float | None = None
    maximum: float | None = None
    titles: dict[Text, Text] = {}
    choices: tuple[Text, ...] = ()
    is_closed: bool = False
    has_gaps: bool = False
    markers: tuple[Text, ...] = ()
    decimal: Literal[".", ","] = "."
    thousands: Text = ""


def boolean_text(choices: Collection[str], *, is_true: bool) -> str:
    """Return the choice that is this boolean, where both choices are one pair of `BOOLEANS`, or else its JSON text."""
    by_lower = {choice.lower(): choice for choice in choices}
    pair = next((pair for pair in zip(*BOOLEANS, strict=True) if by_lower.keys() == {*pair}), ("false", "true"))
    return by_lower.get(pair[is_true], pair[is_true])


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is predicted: one of several classes, or a quantity, which is a number in `unit`.

    Attributes:
        title: the name of its column; may be empty where nobody has said it.
        labels: the class names, in the order of the classes; none for a quantity.
    """

    title: Text = ""
    unit: Text = ""
    labels: tuple[Text, ...] = ()


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of shape in the picture of a sample, drawn to scale.

    `length` and `width` are keys of features in one unit; each of `angles`, in degrees, has such a shape.
    """

    length: Text
    width: Text
    angles: tuple[float, ...]


@dataclass(frozen=True)
class Dataset:
    """Rows to learn from.

    Attributes:
        name: a short word for the model, e.g. `iris`.
        source: where the rows come from, one sentence.
        features: one per column of `rows`.
        target: what is predicted.
        rows: shape (n_rows, n_features), float64: a number, the position of a choice, or NaN for no value. NaN as
            well stands for a word that is not among the choices, because too few rows have it.
        outcomes: shape (n_rows,), float64: the index into the labels of each row's class, or the quantity.
        picture: the shapes of a sample's picture, the first kind at the bottom; empty for no picture.
    """

    name: str
    source: str
    features: tuple[Feature, ...]
    target: Target
    rows: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    picture: tuple[Shape, ...] = ()

    def digest(self) -> str:
        """Return the SHA-256 of names, rows and outcomes, in hex: the same table gives the same digest."""
        sha256 = hashlib.sha256(msgspec.json.encode([self.name, self.features, self.target]))
        # Every NaN with the same bits.
        sha256.update(np.where(np.isnan(self.rows), np.nan, self.rows).astype("<f8").tobytes())
        sha256.update(self.outcomes.astype("<f8").tobytes())
        return sha256.hexdigest()
