"""Score a Parquet file piece by piece: its columns go out with their types, and the answers behind them.

It needs pyarrow, which a host that only serves does without. Memory stays constant, whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ml.answers import Model
from ml.batch import with_columns
from ml.errors import DatasetError
from ml.score import Scored
from ml.scored import BadRow
from ml.tables.filekind import kind_of

# So many rows are answered at once; a group of rows in the new file has at most so many, and about so many bytes.
_PIECE_ROWS = 2**15
_GROUP_ROWS = 2**17
_GROUP_BYTES = 2**25
# So much of a column is read from the file at once, instead of all that a group of rows has.
_BUFFER_BYTES = 2**20
_MARK_BYTES = 4


def is_parquet(name: str) -> bool:
    """Tell whether this is the name of a Parquet file."""
    path = Path(name)
    try:
        if name == "-" or not path.is_file():
            return False
        with path.open("rb") as file:
            return kind_of(file.read(_MARK_BYTES)) == "parquet"
    except OSError:
        return False  # who opens it to score it says why


def score_parquet(
    model: Model,
    source: Path,
    sink: IO[bytes],
    *,
    on_bad: Callable[[BadRow], None],
    on_rows: Callable[[int, int], object] = lambda _rows, _all: None,
    strict: bool = False,
) -> Scored:
    """Write the rows of a Parquet file with the columns that `ml score` adds, as Parquet.

    Args:
        on_bad: is called with each row that has no answer; its line is its number, counted from 1.
        on_rows: is called with how many rows came further, and how many there are in all.
        strict: a row without an answer is an error.

    Raises:
        DatasetError: pyarrow is not installed; the file is damaged or lacks a feature; or, if `strict`, a row has no
            answer.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DatasetError(f"{source} is a Parquet file: install pyarrow, or save the table as CSV") from error
    try:
        file = parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{source}: the Parquet file cannot be read: {error}") from error
    done = n_bad = 0
    writer, waiting = None, list[Any]()
    for table in _pieces(file, source):
        added = model.predict_batch(table)
        for row in _bad_rows(added, done + 1):
            if strict:
                raise DatasetError(f"{source}: row {row.line}: {row.message}")
            n_bad += 1
            on_bad(row)
        waiting.append(with_columns(table, added))
        writer = writer or parquet.ParquetWriter(sink, waiting[0].schema)
        if sum(map(len, waiting)) >= _GROUP_ROWS or sum(piece.nbytes for piece in waiting) >= _GROUP_BYTES:
            writer.write_table(pyarrow.concat_tables(waiting))
            waiting = []
        done += len(table)
        on_rows(len(table), file.metadata.num_rows)
    if writer is not None:
        if waiting:
            writer.write_table(pyarrow.concat_tables(waiting))
        writer.close()
    return Scored(done, n_bad)


def _pieces(file: Any, source: Path) -> Iterator[Any]:
    """Yield the rows of a file as tables; of a file without rows, one with none."""
    import pyarrow

    n_rows = 0
    batches = file.iter_batches(batch_size=_PIECE_ROWS)
    while True:
        try:
            batch = next(batches, None)
        except (pyarrow.ArrowException, OSError) as error:
            raise DatasetError(f"{source}: the Parquet file cannot be read: {error}") from error
        if batch is None:
            break
        n_rows += len(batch)
        yield pyarrow.Table.from_batches([batch], file.schema_arrow)
    if not n_rows:
        yield file.schema_arrow.empty_table()


def _bad_rows(added: Any, first: int) -> Iterator[BadRow]:
    errors = added.column(added.num_columns - 1)
    if errors.null_count < len(errors):
        for row, message in enumerate(errors.to_pylist(), first):
            if message is not None:
                yield BadRow(row, message)
