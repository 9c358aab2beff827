"""A Parquet file becomes a table. It needs pyarrow, which a host that only serves does without."""

from __future__ import annotations

from typing import IO, Any

import numpy as np

from ml.errors import TableError, in_quotes
from ml.tables.columns import Columns, text_of
from ml.tables.rows import Block
from ml.tables.table import Bounds, Table

# Few rows at a time: a word of a megabyte takes a few bytes where it is repeated.
_BATCH_ROWS = 1_024


def read_parquet(file: IO[bytes], bounds: Bounds) -> Table:
    """Return the table of a Parquet file; line 1 is its first row.

    Raises:
        TableError: pyarrow is not installed; the file is damaged, has columns of lists or is beyond the bounds.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise TableError("this is a Parquet file: install pyarrow, or save the table as CSV") from error
    try:
        return _read(parquet.ParquetFile(file), bounds)
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        raise TableError(f"the Parquet file cannot be read: {error}") from error


def _read(file: Any, bounds: Bounds) -> Table:
    metadata = file.metadata
    names: list[str] = file.schema_arrow.names
    if metadata.num_rows * len(names) > bounds.max_cells:
        raise TableError(f"more than {bounds.max_cells} cells")
    for field in file.schema_arrow:
        if field.type.num_fields or "binary" in str(field.type):
            raise TableError(f"column {in_quotes(field.name)} is of type {field.type}, which is no value of a cell")
    columns = Columns(names, bounds, line="row")
    start, size = 1, 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        cells = [cells_of(column) for column in batch.columns]
        size += sum(sum(map(len, column)) for column in cells)
        if size > bounds.max_bytes:
            raise TableError(f"larger than {bounds.max_bytes} bytes, unpacked")
        rows = [list(row) for row in zip(*cells, strict=True)]
        columns.take(Block(rows, range(start, start + len(rows)), None))
        start += len(rows)
    return columns.table([], has_types=True)


def cells_of(column: Any) -> list[str]:
    """Return the values of a column as text; no text for no value."""
    kind = str(column.type)
    if kind in ("halffloat", "float"):
        # The digits of its own precision: 0.1, and not the double that is next to it.
        numbers = [None if value is None else float(str(np.float32(value))) for value in column.to_pylist()]
        return list(map(text_of, numbers))
    if kind.startswith("timestamp[ns"):
        column = column.cast(kind.replace("ns", "us", 1), safe=False)  # Python's own have no nanoseconds
    return [text_of(value) for value in column.to_pylist()]
