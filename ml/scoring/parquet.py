"""Score a Parquet file piece by piece: its columns go out with their types, and the answers behind them.

It needs pyarrow, which a host that only serves does without. Memory stays constant, whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol

from ml.errors import TableError
from ml.scoring.answers import Answering
from ml.scoring.batch import with_columns
from ml.scoring.rows import BadRow
from ml.scoring.text import Scored
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


class Tables(Protocol):
    """Takes tables of Arrow with the same columns, and writes them."""

    def write(self, table: Any) -> None: ...


class ParquetTables:
    """Tables become a Parquet file, which is complete once this is left without an error.

    A thread writes one group of rows while the next one is made.

    Raises:
        TableError: on construction, pyarrow is not installed.
    """

    def __init__(self, sink: IO[bytes]) -> None:
        _require_pyarrow("the output")
        self._sink = sink
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = self._bytes = 0
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> ParquetTables:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        with self._thread:
            if kind is None and self._waiting:
                self._flush()
        if kind is None:
            self._wait()
            if self._writer is not None:
                self._writer.close()

    def write(self, table: Any) -> None:
        """Take a table; it is written when there are enough rows for a group.

        Raises:
            OSError: an earlier one could not be written.
        """
        self._waiting.append(table)
        self._rows, self._bytes = self._rows + len(table), self._bytes + table.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow
        from pyarrow import parquet

        self._wait()
        group = pyarrow.concat_tables(self._waiting)
        self._waiting, self._rows, self._bytes = [], 0, 0
        self._writer = self._writer or parquet.ParquetWriter(self._sink, group.schema)
        self._writing = self._thread.submit(self._writer.write_table, group)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()


def score_parquet(
    model: Answering,
    source: Path,
    tables: Tables,
    *,
    on_bad: Callable[[BadRow], None],
    on_rows: Callable[[int, int], object] = lambda _rows, _all: None,
    strict: bool = False,
) -> Scored:
    """Write the rows of a Parquet file with the columns that `ml score` adds.

    Args:
        tables: takes them.
        on_bad: is called with each row that has no answer; its line is its number, counted from 1.
        on_rows: is called with how many rows came further, and how many there are in all.
        strict: a row without an answer is an error.

    Raises:
        TableError: pyarrow is not installed; the file is damaged or lacks a feature; or, if `strict`, a row has no
            answer.
    """
    _require_pyarrow(str(source))
    file = _opened(source)
    done = n_bad = 0
    for table in _pieces(file, source):
        added = model.predict_batch(table)
        for row in _bad_rows(added, done + 1):
            if strict:
                raise TableError(f"{source}: row {row.line}: {row.message}")
            n_bad += 1
            on_bad(row)
        tables.write(with_columns(table, added))
        done += len(table)
        on_rows(len(table), file.metadata.num_rows)
    return Scored(done, n_bad)


def _require_pyarrow(name: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise TableError(f"{name} is a Parquet file: install pyarrow, or save the table as CSV") from error


def _opened(source: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{source}: the Parquet file cannot be read: {error}") from error


def _pieces(file: Any, source: Path) -> Iterator[Any]:
    """Yield the rows of a file as tables, while a thread reads the next one; of a file without rows, one with none."""
    import pyarrow

    n_rows = 0
    batches = file.iter_batches(batch_size=_PIECE_ROWS)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(next, batches, None)
        while True:
            try:
                batch = reading.result()
            except (pyarrow.ArrowException, OSError) as error:
                raise TableError(f"{source}: the Parquet file cannot be read: {error}") from error
            if batch is None:
                break
            reading = thread.submit(next, batches, None)
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
