"""Scores one file into another, whatever kinds of file they are. Knows nothing of other files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ml.cli.streams import InputFile, placed, sink_of
from ml.errors import TableError
from ml.jobs.plan import Job
from ml.jobs.tables import CsvTables, TextTables
from ml.scoring.batch import Model
from ml.scoring.parquet import ParquetTables, is_parquet, score_parquet
from ml.scoring.rows import BadRow
from ml.scoring.source import Source
from ml.scoring.text import Scored, score
from ml.tables.marks import marks_named

# So many rows without an answer are shown; all are counted.
SHOWN_BAD_ROWS = 20


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
