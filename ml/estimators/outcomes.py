"""True answers of a session: labels become the positions of a model's classes, quantities floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.tables.headers import listed
from ml.tables.numbers import LARGEST


def check_order(rows_name: str, rows: Any, name: str, outcomes: Any) -> None:
    """Raise a `TableError` if both are of pandas and have the same index in another order."""
    one: Any = getattr(rows, "index", None)
    other: Any = getattr(outcomes, "index", None)
    if not hasattr(one, "equals") or not hasattr(other, "equals") or len(one) != len(other) or one.equals(other):
        return
    if one.isin(other).all() and other.isin(one).all():
        raise TableError(
            f"{name} has the index of {rows_name} in another order: {name}.loc[{rows_name}.index] puts it right"
        )


def outcomes_of(name: str, given: Any, *, n_rows: int, rows_name: str, classes: Sequence[Any]) -> NDArray[np.float64]:
    """Return true answers as positions of classes, or without classes as quantities, shape (n_rows,).

    Raises:
        TableError: they do not fit the rows or the classes; the sentence names the first one that does not.
    """
    values = np.asarray(given)
    if values.ndim == 2 and values.shape[1] == 1:
        raise TableError(
            f"{name} has the shape {values.shape}, a table of one column: give the column, as df['target'] or "
            f"np.ravel({name})"
        )
    if values.ndim == 0:
        raise TableError(f"{name} is {_shown(given)}: one answer for each row of {rows_name} is needed")
    if values.ndim == 2 and len(values) == n_rows and len(classes) == values.shape[1]:
        raise TableError(
            f"{name} has the shape {values.shape}, a column for each class: give the class of each row, one of the "
            f"model's classes {listed(map(str, classes))}"
        )
    if values.shape != (n_rows,):
        raise TableError(f"{name} has the shape {values.shape}, but {rows_name} has {n_rows} rows")
    return _positions(name, values, classes) if len(classes) else _quantities(name, values)


def _positions(name: str, values: NDArray[Any], classes: Sequence[Any]) -> NDArray[np.float64]:
    position = {label: float(place) for place, label in enumerate(classes)}
    for row, label in enumerate(values.tolist()):
        if label not in position:
            known, is_word = listed(map(str, classes)), isinstance(label, str)
            hint = ""
            if label is None or label != label:  # noqa: PLR0124  # NaN alone
                hint = ": leave out rows without an answer"
            elif isinstance(classes[0], str) and not is_word:
                hint = ": it is encoded, and the model was fitted on words; give these"
            elif is_word and not isinstance(classes[0], str):
                hint = ": it is a word, and the model was fitted on encoded labels; give these"
            raise TableError(
                f"{name} has {label!r} in row {row}, which is not one of the model's classes {known}{hint}"
            )
    return np.array([position[label] for label in values.tolist()])


def _quantities(name: str, given: NDArray[Any]) -> NDArray[np.float64]:
    try:
        values = given.astype(np.float64)
    except (ValueError, TypeError) as error:
        row, value = next((row, value) for row, value in enumerate(given.tolist()) if not _is_number(value))
        raise TableError(
            f"{name} has {value!r} in row {row}, which is no number, and the model predicts a quantity"
        ) from error
    wrong = np.flatnonzero(~(np.abs(values) <= LARGEST))
    if len(wrong):
        gap = ": leave out rows without an answer" if np.isnan(values[wrong[0]]) else ""
        raise TableError(f"{name} has {values[wrong[0]]} in row {wrong[0]}, which is not a finite 32-bit float{gap}")
    if len(values) < 2:
        raise TableError(f"{name} has {len(values)} row, and a model of a quantity needs at least 2")
    return values


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _shown(given: Any) -> str:
    return "None" if given is None else f"a {type(given).__name__}"
