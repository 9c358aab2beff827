"""The client's command line: `stream` sends a file to the service and writes it with predictions added.

A row from a pipe is answered before the next one is there.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from ml.cli.arguments import add_marks
from ml.cli.console import RELEASE, file_name, open_standard_streams, printable
from ml.cli.streams import output_of
from ml.errors import MLError
from ml.tables.files import refuse_same_file
from web.client.errors import ClientError
from web.client.file import SentFile, TablePart
from web.settings import SettingsError, token_of

READ_BYTES = 64 * 2**10
SHOWN_BAD_ROWS = 20
GIVE_UP_S = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    open_standard_streams()
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_stream(options))
    except (ClientError, MLError, SettingsError) as error:
        _warn(f"error: {error}")
        return 1
    except BrokenPipeError:
        return 0  # the reader of our output has ended, as in `... | head`
    except OSError as error:
        _warn(f"error: {error.filename or file_name(options.rows, 'input')}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130  # the convention of shells: 128 and the number of the signal
    return 0


EXAMPLE = "example: python -m web.client http://127.0.0.1:8000 stream rows.csv --out answers.csv"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m web.client", description="Use a prediction service from a shell.", epilog=EXAMPLE
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {RELEASE}")
    parser.add_argument("url", metavar="URL", help="address of the service, e.g. http://127.0.0.1:8000")
    parser.add_argument(
        "--token",
        default="",
        help="token of the service for programs; default: the variable API_TOKEN, which other users cannot see",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    stream = commands.add_parser("stream", help="add predictions to the rows of a table", epilog=EXAMPLE)
    stream.add_argument("rows", metavar="TABLE", help="CSV or Excel file to score; -: standard input")
    stream.add_argument("--out", default="-", metavar="FILE", help="CSV file to write; default: -, standard output")
    stream.add_argument("--encoding", default="", help="encoding of text; default: found out from the file")
    add_marks(stream)
    stream.add_argument("--strict", action="store_true", help="stop at the first row without a prediction")
    stream.add_argument(
        "--give-up",
        type=_seconds,
        default=GIVE_UP_S,
        metavar="SECONDS",
        help="end after so many seconds without an answer or room at the service; inf: never; default: %(default)g",
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
    def warn_lost(reason: str, delay_s: float) -> None:
        _warn(f"{reason}; going on in {delay_s:.1f} s")

    # Never closed: an error ends the process.
    descriptor = sys.stdin.fileno() if options.rows == "-" else os.open(options.rows, os.O_RDONLY)
    refuse_same_file(options.rows, options.out)
    token = options.token or token_of()
    file = SentFile(
        options.url, token=token, strict=options.strict, encoding=options.encoding, decimal=options.decimal or "",
        thousands=options.thousands or "", give_up_s=options.give_up, on_lost=warn_lost,
    )  # fmt: skip
    status = os.fstat(descriptor)
    with _sink(options.out) as sink, _bar(sink) as bar:
        progress = _Progress(bar, size_bytes=status.st_size if stat.S_ISREG(status.st_mode) else 0)

        async def take(rows: TablePart) -> None:
            await sink.write(rows.table)
            progress.add(rows)

        await file.score(AsyncInput(descriptor).read, take)
        progress.finish()


def _bar(sink: Sink) -> tqdm[NoReturn]:
    # On a terminal that shows the answers a bar would stand between them.
    return tqdm(unit=" rows", disable=True if os.isatty(sink.descriptor) else None)


def _warn(message: str) -> None:
    tqdm.write(printable(message), file=sys.stderr)  # above the bar, where there is one


class _Progress:
    """The progress of a file: a bar, and the rows without an answer."""

    def __init__(self, bar: tqdm[NoReturn], *, size_bytes: int) -> None:
        self._bar = bar
        self._size_bytes = size_bytes
        self._rows = self._bad = self._n_shown = 0

    def add(self, rows: TablePart) -> None:
        """Count rows that were written."""
        self._rows += rows.rows
        self._bad += rows.bad
        for error in rows.errors[: SHOWN_BAD_ROWS - self._n_shown]:
            self._n_shown += 1
            _warn(f"line {error.line}: {error.message}")
        if self._size_bytes and rows.read:
            self._bar.total = round(self._rows * self._size_bytes / rows.read)  # exact at the end
        self._bar.update(rows.rows)

    def finish(self) -> None:
        """Print how many rows were left blank, if any were."""
        if self._bad:
            _warn(f"{self._bad} of {self._rows} rows have no answer and were left blank")


class AsyncInput:
    """An input; waiting for a pipe does not block the event loop."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._may_wait = _may_wait(descriptor)

    async def read(self) -> bytes:
        """Return up to `READ_BYTES`, once there are some; no bytes at the end."""
        if self._may_wait:
            loop = asyncio.get_running_loop()
            await _ready(self._descriptor, select.POLLIN, loop.add_reader, loop.remove_reader)
        return os.read(self._descriptor, READ_BYTES)


class Sink:
    """An output; waiting for the reader of a pipe does not block the event loop.

    Args:
        name: that of the output, for errors.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self._name = name
        self._may_wait = _may_wait(descriptor)

    async def write(self, table: bytes) -> None:
        content = memoryview(table)
        # A pipe that is ready takes this much without blocking; it stays a blocking one, since others may share it.
        size = select.PIPE_BUF if self._may_wait else max(1, len(content))
        while content:
            if self._may_wait:
                loop = asyncio.get_running_loop()
                await _ready(self.descriptor, select.POLLOUT, loop.add_writer, loop.remove_writer)
            try:
                content = content[os.write(self.descriptor, content[:size]) :]
            except OSError as error:
                raise type(error)(error.errno, error.strerror, self._name) from error


def _may_wait(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


async def _ready(
    descriptor: int, event: int, add: Callable[[int, Callable[[], None]], object], remove: Callable[[int], object]
) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if poll.poll(0):
        return
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)


@contextmanager
def _sink(name: str) -> Iterator[Sink]:
    with output_of(name) as file:  # nothing is written to it but by its number
        yield Sink(file.fileno(), file_name(name, "output"))


if __name__ == "__main__":
    sys.exit(main())
