"""Scores a Parquet file in a process of its own, which is ended when it takes too much time or memory.

A stranger's file is hostile until it is read, and so is the process that reads it. It knows no model: it asks for the
answers to the columns of the features, a few rows at a time. What it sends is `Question`, and what comes back is
`Layout` and then `AnswersMessage`s, each in MessagePack behind its length. Numbers are arrays as they lie in memory.
"""

from __future__ import annotations

import os
import struct
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from ml.errors import TableError
from ml.scoring.answers import Answers, arrow_answers
from ml.scoring.parquet import ParquetTables, score_parquet
from ml.tables.confined import bound
from ml.tables.headers import MAX_COLUMNS
from ml.tables.typed import TypedColumn

CELL_BYTES = 8
LENGTH = struct.Struct("<I")
ReplyMessage = TypeVar("ReplyMessage", "Layout", "AnswersMessage")


class ProcessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is read and written, and what that may take.

    Attributes:
        source, sink: descriptors of files.
        max_bytes: of the table after unpacking, each of its cells counted as 8 bytes at least.
        max_sink_bytes: of what is written.
        memory_bytes, cpu_s: beyond those of the empty process.
    """

    source: int
    sink: int
    max_bytes: int
    max_sink_bytes: int
    memory_bytes: int
    cpu_s: int
    niceness: int


class Header(msgspec.Struct, frozen=True, tag=True):
    """The names of the columns: asks for `Layout`."""

    names: list[str]


class ColumnMessage(msgspec.Struct, frozen=True):
    """A column, see `TypedColumn`: float64, or different values and int64 codes."""

    numbers: bytes | None = None
    values: list[str | bool | int | float | None] = []
    codes: bytes = b""


class RowsMessage(msgspec.Struct, frozen=True, tag=True):
    """The columns of the features, in their order: asks for `AnswersMessage`."""

    columns: list[ColumnMessage]


class End(msgspec.Struct, frozen=True, tag=True):
    """All is written, or there is an error."""

    error: str = ""


Question = Header | RowsMessage | End


class Layout(msgspec.Struct, frozen=True):
    """The column of each feature, the names of the new columns, the model's labels, and the most rows to ask about."""

    positions: list[int]
    added: list[str]
    labels: list[str]
    max_rows: int


class AnswersMessage(msgspec.Struct, frozen=True):
    """`Answers`: int64 indices, so many float64 numbers a row, and texts by row."""

    indices: bytes
    numbers: bytes
    n_numbers: int
    notes: dict[int, str]
    errors: dict[int, str]


def main() -> None:
    """Score the file of the options, which are the one argument."""
    options = msgspec.json.decode(sys.argv[1], type=ProcessOptions)
    warnings.simplefilter("ignore")
    import pyarrow  # before memory is bounded
    import pyarrow.parquet

    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    bound(options.memory_bytes, options.cpu_s, options.niceness, options.max_sink_bytes)
    source = Path(f"/dev/fd/{options.source}")
    try:
        _score(source, options, pyarrow)
        _send(End())
    except (TableError, MemoryError) as error:
        is_memory = isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)
        needed = f"it takes more than {options.memory_bytes} bytes of memory"
        _send(End(needed if is_memory else str(error).removeprefix(f"{source}: ")))
    except (BrokenPipeError, EOFError):
        os._exit(0)  # nobody wants the rest
    except OSError as error:
        _send(End(f"its answer cannot be written: {error.strerror or error}"))
    except Exception as error:  # a stranger's file, and any error that a library may have with it
        _send(End(f"the Parquet file cannot be read: {error or type(error).__name__}"))


def _score(source: Path, options: ProcessOptions, pyarrow: Any) -> None:
    try:
        metadata = pyarrow.parquet.read_metadata(source)
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"the Parquet file cannot be read: {error}") from error
    if metadata.num_columns > MAX_COLUMNS:
        raise TableError(f"the table has {metadata.num_columns} columns, at most {MAX_COLUMNS} are read")
    with os.fdopen(options.sink, "wb") as sink, ParquetTables(sink) as tables:
        scored = score_parquet(_Asked(options.max_bytes), source, tables, on_bad=lambda _bad: None)
    if scored.rows != metadata.num_rows:
        raise TableError(f"the Parquet file is damaged: it has {metadata.num_rows} rows, {scored.rows} can be read")


class _Asked:
    """Stands in for the model: asks the service for its answers."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._layout: Layout | None = None

    def predict_batch(self, table: Any) -> Any:
        """Return the new columns of a table of Arrow, as `ml.scoring.batch.Model` does.

        Raises:
            TableError: a column has a type that it cannot have; or all tables together are too large.
        """
        layout = self._layout = self._layout or _asked(Header(table.column_names), Layout)
        # A column of one value takes next to nothing, but its rows are answered one by one.
        self._count(max(table.nbytes, CELL_BYTES * table.num_rows * table.num_columns))
        added = arrow_answers(table, layout.positions, self._answers_to, layout.labels, max_rows=layout.max_rows)
        return added.rename_columns(layout.added)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise TableError(f"larger than {self._max_bytes} bytes, unpacked")

    def _answers_to(self, columns: Sequence[TypedColumn]) -> Answers:
        self._count(sum(map(_repeated_bytes, columns)))
        answer = _asked(RowsMessage([_message_of(column) for column in columns]), AnswersMessage)
        indices = np.frombuffer(answer.indices, np.int64)
        notes = np.full(len(indices), None, dtype=object)
        notes[[*answer.notes]] = [*answer.notes.values()]
        numbers = np.frombuffer(answer.numbers).reshape(len(indices), answer.n_numbers)
        return Answers(indices, numbers, notes, answer.errors)


def _repeated_bytes(column: TypedColumn) -> int:
    """Return how many bytes the words of a column take that may stand in many rows and were counted once."""
    if column.codes is None:
        return 0
    sizes = [len(value) if isinstance(value, str) else 0 for value in column.values]
    return int(np.bincount(column.codes, minlength=len(sizes)) @ np.array(sizes, dtype=np.int64))


def _message_of(column: TypedColumn) -> ColumnMessage:
    if column.numbers is not None:
        return ColumnMessage(column.numbers.tobytes())
    values, codes = column.different()
    # A piece of a column has all words of the whole.
    used, codes = np.unique(codes, return_inverse=True)
    return ColumnMessage(values=[values[code] for code in used.tolist()], codes=codes.astype(np.int64).tobytes())


def _asked(question: Question, kind: type[ReplyMessage]) -> ReplyMessage:
    _send(question)
    length = sys.stdin.buffer.read(LENGTH.size)
    if not length:
        raise EOFError
    return msgspec.msgpack.decode(sys.stdin.buffer.read(*LENGTH.unpack(length)), type=kind)


def _send(message: Question) -> None:
    sys.stdout.buffer.write(framed(message))
    sys.stdout.buffer.flush()


def framed(message: Question | Layout | AnswersMessage) -> bytes:
    """Return a message behind its length."""
    content = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(content)) + content


def columns_in(rows: RowsMessage, n_features: int) -> list[TypedColumn]:
    """Return the columns of a message.

    Raises:
        TableError: they are no columns of so many features: nothing that a process says is taken on trust.
    """
    try:
        columns = [_column_of(column) for column in rows.columns]
    except ValueError as error:
        raise TableError("the Parquet file cannot be read: its columns are damaged") from error
    if len(columns) != n_features or len(set(map(len, columns))) != 1:
        raise TableError("the Parquet file cannot be read: it has columns of different lengths")
    return columns


def _column_of(column: ColumnMessage) -> TypedColumn:
    if column.numbers is not None:
        return TypedColumn(np.frombuffer(column.numbers))
    codes = np.frombuffer(column.codes, np.int64)
    if len(codes) and not (codes.min() >= 0 and codes.max() < len(column.values)):
        raise ValueError("codes without a value")
    return TypedColumn(values=column.values, codes=codes)
