"""Data sets and forests from arrays, for tests that make their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml.model.forest import Forest
from ml.tables.dataset import Dataset, Feature, Shape, Target


def dataset_of(
    rows: NDArray[np.float64],
    classes: ArrayLike,
    *,
    features: Sequence[Feature],
    labels: Sequence[str],
    name: str = "table",
    source: str = "made up",
    picture: tuple[Shape, ...] = (),
) -> Dataset:
    """Return a data set of classes, given by their index into the labels."""
    outcomes = np.asarray(classes, dtype=np.float64)
    return Dataset(name, source, tuple(features), Target(labels=tuple(labels)), rows, outcomes, picture)


def forest_of(
    n_features: int,
    *,
    roots: ArrayLike,
    feature: Sequence[int] | NDArray[np.int32],
    threshold: ArrayLike,
    left: ArrayLike,
    right: ArrayLike,
    values: ArrayLike,
    **more: Any,
) -> Forest:
    """Return a forest as it is given, in which no row without a value goes left."""
    more.setdefault("missing_left", np.zeros(len(feature), dtype=np.bool_))
    return Forest(
        n_features=n_features,
        roots=np.asarray(roots, dtype=np.int32),
        feature=np.asarray(feature, dtype=np.int32),
        threshold=np.asarray(threshold, dtype=np.float64),
        left=np.asarray(left, dtype=np.int32),
        right=np.asarray(right, dtype=np.int32),
        values=np.asarray(values, dtype=np.float64),
        **more,
    )
