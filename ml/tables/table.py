"""A table as text, whole: what every kind of file becomes before anything is inferred from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Short cells lie side by side in memory, 16 bytes each; a list of str takes 60.
TEXT: np.dtypes.StringDType = np.dtypes.StringDType()


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large a table may be, after it is unpacked."""

    max_bytes: int = 2 * 2**30
    max_cells: int = 50_000_000


@dataclass(frozen=True)
class Table:
    """Named columns of cells.

    Attributes:
        header: the names of the columns as written, `column_1` and so on where the file has none.
        columns: one array of `TEXT` a column, shape (n_rows,): its cells without space around them.
        lines: shape (n_rows,), int64: the line or row of the file in which each row starts, counted from 1.
        has_types: whether cells had types in the file (Excel, Parquet), so that a number is written with a decimal
            point and nothing else whatever it looks like.
        inferred: what was inferred, changed or left out while reading, one sentence each.
    """

    header: tuple[str, ...]
    columns: tuple[NDArray[Any], ...]
    lines: NDArray[np.int64]
    has_types: bool = False
    inferred: tuple[str, ...] = ()
