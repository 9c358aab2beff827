"""True answers of a session: labels become the positions of a model's classes, quantities floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import DatasetError
from ml.tables.headers import listed
from ml.tables.numbers import LARGEST


def outcomes_of(name: str, given: Any, *, n_rows: int, rows_name: str, classes: Sequence[Any]) -> NDArray[np.float64]:
    """Return true answers as positions of classes, or without classes as quantities, shape (n_rows,).

    Raises:
        DatasetError: they do not fit the rows or the classes; the sentence names the first one that does not.
    """
    values = np.asarray(given)
    if values.ndim == 2 and values.shape[1] == 1:
        raise DatasetError(
            f"{name} has the shape {values.shape}, a table of one column: give the column, as df['target'] or "
            f"np.ravel({name})"
        )
    if values.shape != (n_rows,):
        raise DatasetError(f"{name} has the shape {values.shape}, but {rows_name} has {n_rows} rows")
    return _positions(name, values, classes) if len(classes) else _quantities(name, values)


def _positions(name: str, values: NDArray[Any], classes: Sequence[Any]) -> NDArray[np.float64]:
    position = {label: float(place) for place, label in enumerate(classes)}
    for row, label in enumerate(values.tolist()):
        if label not in position:
            known, is_word = listed(map(str, classes)), isinstance(label, str)
            hint = ""
            if isinstance(classes[0], str) and not is_word:
                hint = ": it is encoded, and the model was fitted on words; give these"
            elif is_word and not isinstance(classes[0], str):
                hint = ": it is a word, and the model was fitted on encoded labels; give these"
            raise DatasetError(
                f"{name} has {label!r} in row {row}, which is not one of the model's classes {known}{hint}"
            )
    return np.array([position[label] for label in values.tolist()])


def _quantities(name: str, given: NDArray[Any]) -> NDArray[np.float64]:
    try:
        values = given.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{name} does not hold numbers: {error}") from error
    wrong = np.flatnonzero(~(np.abs(values) <= LARGEST))
    if len(wrong):
        raise DatasetError(f"{name} has {values[wrong[0]]} in row {wrong[0]}, which is not a finite 32-bit float")
    if len(values) < 2:
        raise DatasetError(f"{name} has {len(values)} row, and a model of a quantity needs at least 2")
    return values
