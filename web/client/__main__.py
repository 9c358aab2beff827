"""The client's command line: rows go over the stream, answers come out in the order of the rows.

A row of a pipe is answered before the next one is there; a file goes as fast as both ends can.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gc
import io
import math
import os
import select
import stat
import sys
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import lru_cache
from typing import Literal, NoReturn, Protocol

import msgspec
from tqdm import tqdm

from ml.console import file_name, open_standard_streams, printable
from ml.errors import DatasetError, MLError
from ml.score import added_columns
from ml.tables.csvfile import refuse_same_file
from web.client.rows import Header, Parts
from web.client.stream import ClientError, ModelReplaced, Outcome, Prediction, Refused, Sample, Stream
from web.settings import Settings, SettingsError

SHOWN_BAD_ROWS = 20
KEPT_ANSWERS = 8_192
GIVE_UP_S = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    open_standard_streams()
    options = _parser().parse_args(arguments)
    # Rows come and go by the ten thousand and hold no circles: looking for those took a fourth of all time.
    gc.set_threshold(50_000, 20, 100)
    try:
        asyncio.run(_stream(options))
    except (ClientError, MLError, SettingsError) as error:
        _tell(f"error: {error}")
        return 1
    except BrokenPipeError:
        return 0  # who reads our output has seen enough, as in `... | head`
    except OSError as error:
        _tell(f"error: {error.filename or file_name(options.rows, 'input')}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130  # as shells tell it: 128 and the number of the signal
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m web.client", description="Use a prediction service from a shell.")
    parser.add_argument("url", metavar="URL", help="where the service is, e.g. http://127.0.0.1:8000")
    parser.add_argument(
        "--token", default="", help="what the service wants of programs; default: API_TOKEN, which others do not see"
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    stream = commands.add_parser("stream", help="add label and probabilities to the rows of a CSV file or a pipe")
    stream.add_argument("rows", metavar="CSV", help="- reads standard input")
    stream.add_argument("--out", default="-", metavar="FILE", help="default: -, standard output")
    stream.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="default: %(default)s")
    stream.add_argument("--strict", action="store_true", help="stop at the first row that has no answer")
    stream.add_argument(
        "--give-up",
        type=_seconds,
        default=GIVE_UP_S,
        metavar="SECONDS",
        help="end when a lost connection brings no answer for so long; inf: never; default: %(default)g",
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


async def _stream(options: argparse.Namespace) -> None:
    def tell_lost(reason: str, delay_s: float) -> None:
        _tell(f"{reason}; reconnecting in {delay_s:.1f} s")

    # Never closed: a thread may still be reading from it when an error ends the process.
    descriptor = sys.stdin.fileno() if options.rows == "-" else os.open(options.rows, os.O_RDONLY)
    refuse_same_file(options.rows, options.out)
    with _sink(options.out) as sink, _bar(sink) as bar:
        token = options.token or Settings.from_environment().api_token
        async with Stream(options.url, token=token, give_up_s=options.give_up, on_lost=tell_lost) as stream:
            parts = Parts(descriptor, stream.model)
            header = await parts.header()
            written = JsonLinesFormat() if options.format == "jsonl" else CsvFormat(header, stream.model.labels)
            await _Copy(stream, sink, written, bar, is_strict=options.strict).run(parts)


def _bar(sink: Sink) -> tqdm[NoReturn]:
    # On a terminal that shows the answers a bar would stand between them.
    return tqdm(unit=" rows", disable=True if os.isatty(sink.descriptor) else None)


def _tell(message: str) -> None:
    tqdm.write(printable(message), file=sys.stderr)  # above the bar, where there is one


class _Copy:
    """One table on its way from the parts of the input to the sink."""

    def __init__(self, stream: Stream, sink: Sink, written: Format, bar: tqdm[NoReturn], *, is_strict: bool) -> None:
        self._stream = stream
        self._sink = sink
        self._format = written
        self._bar = bar
        self._is_strict = is_strict
        # Rows whose answers have not come, and their lines.
        self._lines: deque[int] = deque()
        self._rows: deque[list[str]] = deque()
        self._written = 0
        self._bad = 0

    async def run(self, parts: Parts) -> None:
        await self._sink.write(self._format.start())
        async with aclosing(self._stream.batches(self._samples(parts))) as batches:
            async for outcomes in batches:
                lines = [self._lines.popleft() for _ in outcomes]
                rows = [self._rows.popleft() for _ in outcomes]
                await self._write(lines, rows, outcomes)
        if self._bad:
            _tell(f"{self._bad} of {self._written} rows have no answer and were left blank")

    async def _samples(self, parts: Parts) -> AsyncGenerator[Sample | Refused]:
        rows = 0
        while (part := await parts.next()) is not None:
            rows += len(part.rows)
            if parts.size_bytes:
                self._bar.total = round(rows * parts.size_bytes / part.bytes_read)  # exact at the end
            self._lines.extend(part.lines)
            self._rows.extend(part.rows)
            for sample in part.samples:
                yield sample

    async def _write(self, lines: list[int], rows: list[list[str]], outcomes: list[Outcome]) -> None:
        bad = [f"line {line}: {o.message}" for line, o in zip(lines, outcomes, strict=True) if isinstance(o, Refused)]
        if bad and self._is_strict:
            good = next(index for index, outcome in enumerate(outcomes) if isinstance(outcome, Refused))
            await self._sink.write(self._format.rows(lines[:good], rows[:good], outcomes[:good]))
            raise DatasetError(bad[0])
        for message in bad[: max(0, SHOWN_BAD_ROWS - self._bad)]:
            _tell(message)
        await self._sink.write(self._format.rows(lines, rows, outcomes))
        self._written += len(rows)
        self._bad += len(bad)
        self._bar.update(len(rows))


class Format(Protocol):
    """How answers are written, for one table and one model's labels."""

    def start(self) -> str:
        """Return what stands above the first row."""

    def rows(self, lines: Sequence[int], rows: Sequence[list[str]], outcomes: Sequence[Outcome]) -> str:
        """Return the answers to rows, each with the line on which it starts, counted from 1, and its cells."""


class CsvFormat:
    """The table as it came in, with new columns at its end, as `ml.score` writes it."""

    def __init__(self, header: Header, labels: Sequence[str]) -> None:
        self._header = header
        self._labels = tuple(labels)
        self._version = ""
        self._cells = lru_cache(KEPT_ANSWERS)(_cells)  # writing out floats takes longer than finding them

    def start(self) -> str:
        return self._text([[*self._header.cells, *added_columns(self._header.cells, self._labels)]])

    def rows(self, lines: Sequence[int], rows: Sequence[list[str]], outcomes: Sequence[Outcome]) -> str:
        return self._text([self._row(cells, outcome) for cells, outcome in zip(rows, outcomes, strict=True)])

    def _row(self, cells: list[str], outcome: Outcome) -> list[str]:
        if isinstance(outcome, Refused):
            width = len(self._header.cells)
            blank = [""] * (max(0, width - len(cells)) + 1 + len(self._labels))
            return [*cells[:width], *blank, outcome.message, *cells[width:]]
        if outcome.version != self._version:
            if tuple(outcome.probabilities) != self._labels:
                raise ModelReplaced("the model was replaced by one with other labels, for which there are no columns")
            self._version = outcome.version
        return cells + self._cells(outcome.label, *outcome.probabilities.values())

    def _text(self, table: Sequence[Sequence[str]], quoting: Literal[0, 1] = csv.QUOTE_MINIMAL) -> str:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self._header.separator, lineterminator="\n", quoting=quoting).writerows(table)
        written = text.getvalue()
        if "\r" not in written or quoting == csv.QUOTE_ALL:
            return written
        # csv puts quotes around "\n" but not around a lone "\r", which would end the row for whoever reads it next.
        return "".join(self._text([row], csv.QUOTE_ALL if "\r" in "".join(row) else quoting) for row in table)


def _cells(label: str, *probabilities: float) -> list[str]:
    return [label, *map(repr, probabilities), ""]


class _Answered(msgspec.Struct):
    line: int
    label: str
    probabilities: dict[str, float]
    version: str


class _NotAnswered(msgspec.Struct):
    line: int
    error: Refused


class JsonLinesFormat:
    """An object a row: its line and its prediction, or its line and its error."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()

    def start(self) -> str:
        return ""

    def rows(self, lines: Sequence[int], rows: Sequence[list[str]], outcomes: Sequence[Outcome]) -> str:
        answers = [_object(line, outcome) for line, outcome in zip(lines, outcomes, strict=True)]
        return self._encoder.encode_lines(answers).decode()


def _object(line: int, outcome: Outcome) -> _Answered | _NotAnswered:
    if isinstance(outcome, Prediction):
        return _Answered(line, outcome.label, outcome.probabilities, outcome.version)
    return _NotAnswered(line, outcome)


class Sink:
    """Where answers are written; one that has to wait for its reader does not hold up the stream.

    An error in writing has the name of the output.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self._name = name
        mode = os.fstat(descriptor).st_mode
        self._may_wait = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)

    async def write(self, text: str) -> None:
        content = memoryview(text.encode(errors="surrogateescape"))
        # A pipe that is ready takes this much without blocking; it stays a blocking one, since others may share it.
        size = select.PIPE_BUF if self._may_wait else max(1, len(content))
        while content:
            if self._may_wait:
                await self._ready()
            try:
                content = content[os.write(self.descriptor, content[:size]) :]
            except OSError as error:
                raise type(error)(error.errno, error.strerror, self._name) from error

    async def _ready(self) -> None:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        if poll.poll(0):
            return
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self.descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self.descriptor)


@contextmanager
def _sink(name: str) -> Iterator[Sink]:
    """Open the output; a file takes its name only when it is complete."""
    if name == "-":
        yield Sink(sys.stdout.fileno(), file_name(name, "output"))
    elif os.path.exists(name) and not os.path.isfile(name):  # a device or a named pipe keeps its place
        with open(name, "wb", buffering=0) as file:
            yield Sink(file.fileno(), name)
    else:
        path = os.path.realpath(name)
        descriptor, part = tempfile.mkstemp(".part", os.path.basename(path), os.path.dirname(path))
        try:
            yield Sink(descriptor, name)
            os.fchmod(descriptor, 0o644)
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
