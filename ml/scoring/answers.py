"""The answers to columns of rows, as columns. Knows no model; it imports pyarrow where it is given a table of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ml.tables.typed import TypedColumn, typed_arrow

# So many rows of a table of Arrow are answered at once.
_ROWS = 2**16


@dataclass(frozen=True)
class Answers:
    """The answers to n rows.

    Attributes:
        indices: shape (n,): the position of each row's label; -1 where there is no answer.
        numbers: shape (n, n_numbers), float64: probabilities, or value and ends of the interval; NaN for no answer.
        notes: shape (n,): text, or None.
        errors: by row: why there is no answer.
    """

    indices: NDArray[np.intp]
    numbers: NDArray[np.float64]
    notes: NDArray[Any]
    errors: Mapping[int, str]

    def arrays(self, labels: Sequence[str]) -> list[NDArray[Any]]:
        """Return the new columns; None, or NaN, where a row has nothing in them."""
        words = [np.array([*labels, None], dtype=object)[self.indices]] if labels else []
        errors = np.full(len(self.indices), None, dtype=object)
        errors[[*self.errors]] = [*self.errors.values()]
        return [*words, *self.numbers.T, self.notes, errors]

    def arrow_arrays(self, labels: Sequence[str]) -> list[Any]:
        """Return the new columns as arrays of pyarrow; null where a row has nothing in them."""
        import pyarrow

        *found, notes, errors = self.arrays(())
        is_bad = self.indices < 0 if self.errors else None  # a mask costs time
        words = pyarrow.array([*labels], pyarrow.string())
        answers = [words.take(pyarrow.array(self.indices, mask=is_bad))] if labels else []
        answers += [pyarrow.array(np.ascontiguousarray(column), mask=is_bad) for column in found]
        kind = pyarrow.string()
        nulls = pyarrow.nulls(len(errors), kind)
        return [*answers, pyarrow.array(notes, kind), pyarrow.array(errors, kind) if self.errors else nulls]


class Answering(Protocol):
    """Whatever answers tables, as `ml.scoring.batch.Model` does."""

    def predict_batch(self, columns: Any, /) -> Any: ...


def arrow_answers(
    table: Any,
    positions: Sequence[int],
    answers_to: Callable[[Sequence[TypedColumn]], Answers],
    labels: Sequence[str],
    *,
    max_rows: int = _ROWS,
) -> Any:
    """Return the answers to the rows of a table of Arrow, as a table whose columns have no names yet.

    Args:
        positions: the column of each feature.
        answers_to: answers so many rows at once, given as one column a feature.
    """
    import pyarrow

    names = table.column_names
    typed = [
        [typed_arrow(column, names[position]) for position, column in zip(positions, piece.columns, strict=True)]
        for piece in table.select(positions).to_batches(max_chunksize=max_rows)
    ]
    empty = [TypedColumn(np.empty(0)) for _ in positions]
    answered = [answers_to(columns).arrow_arrays(labels) for columns in typed or [empty]]
    chunks = [pyarrow.chunked_array([*column]) for column in zip(*answered, strict=True)]
    return pyarrow.table(chunks, names=[""] * len(chunks))
