"""Scores one file into another, whatever kinds of file they are. Knows nothing of other files."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from ml.cli.streams import InputFile, sink_of
from ml.errors import TableError
from ml.jobs.plan import Job
from ml.scoring.batch import Model
from ml.scoring.layout import added_columns
from ml.scoring.parquet import ParquetTables, is_parquet, score_parquet
from ml.scoring.rows import BadRow
from ml.scoring.source import Source
from ml.scoring.text import Scored, score
from ml.tables.dialect import Dialect
from ml.tables.encoding import as_text
from ml.tables.files import placed
from ml.tables.marks import marks_named
from ml.tables.parquet import cells_of
from ml.tables.rows import RowReader
from ml.tables.written import RowWriter

# So many rows without an answer are shown; all are counted.
SHOWN_BAD_ROWS = 20


class TextTables:
    """Takes the text that `ml.scoring.text.score` writes, and writes a Parquet file.

    The columns that were there are text, in which an empty cell is null; the answers are numbers. What a row without an
    answer has beyond the header is left out.

    Args:
        labels: those of the model.
    """

    def __init__(self, tables: ParquetTables, labels: Sequence[str]) -> None:
        self._tables = tables
        self._added = added_columns((), labels)
        self._names: list[str] = []
        self._reader: RowReader | None = None

    def write(self, text: str, /) -> int:
        """Take the header, or whole rows."""
        if text and self._reader is None:
            # The header ends with the name of a column of ours, in front of which its separator stands.
            separator = text[text.rindex(self._added.error) - 1]
            self._reader = RowReader(dialect=Dialect(separator), keep_separators=True)
            (block,) = self._reader.feed(as_text(text))
            self._names = _distinct(block.rows[0])
            self._write([])
        elif self._reader is not None:
            for block in self._reader.feed(as_text(text)):
                self._write(block.rows)
        return len(text)

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
        import pyarrow

        width, added = len(self._names), self._added
        columns = [*zip(*(row[:width] for row in rows), strict=True)] or [()] * width
        first = width - len(added.names) + len(added.words)
        numbers = range(first, first + len(added.numbers))
        arrays = [
            pyarrow.array([float(cell.replace(",", ".")) if cell else None for cell in cells], pyarrow.float64())
            if place in numbers
            else pyarrow.array([cell or None for cell in cells], pyarrow.string())
            for place, cells in enumerate(columns)
        ]
        self._tables.write(pyarrow.table(arrays, names=self._names))


class CsvTables:
    """Takes tables of Arrow with answers, and writes them as CSV.

    Args:
        n_added: how many columns there are at the end that have the answers.
        guarded: mark cells that a spreadsheet would take for formulas, see `ml.tables.written.guard`.
    """

    def __init__(self, sink: TextIO, *, n_added: int, guarded: bool) -> None:
        self._sink = sink
        self._n_added = n_added
        self._writer = RowWriter(",", guarded=guarded)
        self._has_header = False

    def write(self, table: Any) -> None:
        """Write the rows of a table, and above the first one the header."""
        if not self._has_header:
            self._has_header = True
            self._sink.write(self._writer.row(table.column_names) + "\n")
        own = table.num_columns - self._n_added
        columns = [
            cells_of(column) if place < own or str(column.type) != "double" else _reprs_of(column)
            for place, column in enumerate(table.columns)
        ]
        rows = [[*cells] for cells in zip(*columns, strict=True)]
        texts = self._writer.texts(rows)
        self._writer.guard_rows(rows, texts)
        self._sink.writelines(f"{text}\n" for text in texts)


def _reprs_of(column: Any) -> list[str]:
    """Return answers as the text that they are in every channel."""
    return ["" if value is None else repr(value) for value in column.to_pylist()]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names of which none is there twice, as Parquet wants them."""
    found: dict[str, None] = {}
    for name in names:
        numbered = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        found[next(one for one in numbered if one not in found)] = None
    return [*found]


class How(msgspec.Struct, frozen=True):
    """How files are read and written: the options of `ml score` that change what comes out.

    Attributes:
        to: "parquet", "csv", or nothing for the kind that a file has; other tables become CSV.
    """

    to: str = ""
    encoding: str = ""
    sheet: str | None = None
    has_header: bool = True
    decimal: str | None = None
    thousands: str | None = None
    guarded: bool = False
    strict: bool = False
    explain: bool = False


@dataclass(frozen=True)
class Done:
    """A job after it was tried: how many rows its copy has, or the error by which there is none.

    Attributes:
        said: sentences on what was inferred from the source.
        bad: its first rows without an answer, where they were not shown when they came.
    """

    job: Job
    scored: Scored = Scored(0, 0)
    error: str = ""
    said: tuple[str, ...] = ()
    bad: tuple[BadRow, ...] = ()


def do(
    model: Model,
    job: Job,
    how: How,
    *,
    on_bad: Callable[[BadRow], None],
    on_bytes: Callable[[int], object] = lambda _bytes: None,
) -> Done:
    """Write the copy of one job, as `copy` does."""
    said: list[str] = []
    try:
        job.sink.parent.mkdir(parents=True, exist_ok=True)
        scored = copy(model, str(job.source), str(job.sink), how, on_bad=on_bad, on_bytes=on_bytes, on_said=said.append)
    except TableError as error:
        is_named = any(str(name) in str(error) for name in (job.source, job.sink))
        return Done(job, error=str(error if is_named else error.of(job.source)))
    except OSError as error:
        return Done(job, error=f"{job.sink} cannot be written: {error.strerror or error}")
    return Done(job, scored, said=tuple(said))


def copy(
    model: Model,
    source: str,
    sink: str,
    how: How,
    *,
    on_bad: Callable[[BadRow], None],
    on_bytes: Callable[[int], object] = lambda _bytes: None,
    on_said: Callable[[str], object] = lambda _sentence: None,
) -> Scored:
    """Write the rows of a file with the columns that are added; the new file appears when it is complete.

    Args:
        source, sink: names of files; `-` is standard input and output.
        on_bad: is called with each row that has no answer; its line is its number in a Parquet file.
        on_bytes: is called with how many bytes of the source came further.
        on_said: is called with each sentence on what was inferred from the source.

    Raises:
        TableError: the source cannot be read or the sink not be written; the source is no table with these features;
            pyarrow is needed and not installed; or, if `how.strict`, a row has no answer.
    """
    is_typed = is_parquet(source)
    if is_typed:
        _refuse_options(source, how)
    to_parquet = how.to == "parquet" or (not how.to and is_typed)
    if how.explain and (is_typed or to_parquet):
        raise TableError(f"{source}: contributions are written from text to CSV alone: score without --explain")
    file: Any
    with _parquet_sink(sink) if to_parquet else sink_of(sink) as file:
        if is_typed:
            return _copy_parquet(model, Path(source), file, how, on_bad=on_bad, on_bytes=on_bytes)
        with (
            io.BufferedReader(InputFile(source, on_bytes)) as rows,
            contextlib.closing(
                Source(rows, encoding=how.encoding, sheet=how.sheet, has_header=how.has_header)
            ) as table,
        ):
            marks = marks_named(how.decimal, how.thousands)
            with ParquetTables(file) if to_parquet else contextlib.nullcontext() as tables:
                text: Any = file if tables is None else TextTables(tables, model.labels)  # of which `write` is used
                scored = score(
                    model.loaded, table, text, on_bad=on_bad, guarded=how.guarded, strict=how.strict, marks=marks,
                    explain=how.explain,
                )  # fmt: skip
    for sentence in table.inferred:
        on_said(sentence)
    return scored


def _copy_parquet(
    model: Model,
    source: Path,
    sink: Any,
    how: How,
    *,
    on_bad: Callable[[BadRow], None],
    on_bytes: Callable[[int], object],
) -> Scored:
    size, rows = source.stat().st_size, 0

    def on_rows(more: int, in_all: int) -> None:
        nonlocal rows
        before, rows = rows, rows + more
        on_bytes(size * rows // in_all - size * before // in_all if in_all else size)

    is_csv, n_added = how.to == "csv", len(model.added(()))
    csv = contextlib.nullcontext(CsvTables(sink, n_added=n_added, guarded=how.guarded))
    with csv if is_csv else ParquetTables(sink) as tables:
        return score_parquet(model, source, tables, on_bad=on_bad, on_rows=on_rows, strict=how.strict)


def _refuse_options(source: str, how: How) -> None:
    guarded = how.guarded and how.to != "csv"
    if how.encoding or how.sheet or how.decimal or how.thousands or guarded or not how.has_header:
        raise TableError(
            f"{source} is a Parquet file, whose columns have types: --encoding, --sheet, --guarded, --decimal, "
            "--thousands and --no-header are for other tables"
        )


@contextlib.contextmanager
def _parquet_sink(name: str) -> Iterator[Any]:
    path = Path(name)
    if name == "-" or path.is_symlink() or (path.exists() and not path.is_file()):
        raise TableError(f"name a file with --out: Parquet is not written to a link or a pipe, {name}")
    try:
        with placed(path) as file:
            yield file
    except OSError as error:
        raise TableError(f"{name} cannot be written: {error.strerror or error}") from error
