"""A table with named numeric columns and a class column. Knows nothing of models or files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

# The longest name, label or sentence in a table or model file, in characters.
MAX_TEXT = 1_000


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """A named numeric input.

    `minimum` and `maximum` are the limits that a sample must keep, in `unit`; None is no limit. `titles` has the title
    in other languages, by language code.
    """

    key: str
    title: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    titles: dict[str, str] = {}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of shape in the picture of a sample, drawn to scale.

    `length` and `width` are keys of features in one unit; each of `angles`, in degrees, has such a shape.
    """

    length: str
    width: str
    angles: tuple[float, ...]


@dataclass(frozen=True)
class Dataset:
    """Rows to learn from.

    Attributes:
        name: a short word for the model, e.g. `iris`.
        source: where the rows come from, one sentence.
        features: one per column of `rows`.
        labels: the class names, in the order of the classes.
        rows: shape (n_rows, n_features), float64.
        classes: shape (n_rows,), the index into `labels`.
        picture: the shapes of a sample's picture, the first kind at the bottom; empty for no picture.
    """

    name: str
    source: str
    features: tuple[Feature, ...]
    labels: tuple[str, ...]
    rows: NDArray[np.float64]
    classes: NDArray[np.intp]
    picture: tuple[Shape, ...] = ()

    def digest(self) -> str:
        """Return the SHA-256 of names, rows and classes, in hex: the same table gives the same digest."""
        names = msgspec.json.encode([self.name, self.features, self.labels])
        sha256 = hashlib.sha256(names)
        sha256.update(np.ascontiguousarray(self.rows, dtype="<f8").tobytes())
        sha256.update(np.ascontiguousarray(self.classes, dtype="<i8").tobytes())
        return sha256.hexdigest()
