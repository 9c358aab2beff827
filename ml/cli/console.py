"""The standard streams of a command: lines and messages that a terminal shows and does not obey."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence

from ml.errors import MLError, TableError

RELEASE = "1.0.0"  # of all programs, as --version says it

# What moves a cursor, sets a title, ends a line or turns the direction of text: control characters, separators of lines
# and paragraphs, marks of direction. Halves of characters cannot be written at all.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a stranger's text as one line that a terminal and a log show and do not obey: `\\x1b` for an escape."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        MLError: they cannot be written, as on a full disk.
    """
    try:
        for line in lines:
            sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    except OSError as error:
        # What is left can be written no more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise MLError(f"standard output cannot be written: {error.strerror}") from error


def complain(message: str) -> None:
    """Write a message to standard error, if it can be written."""
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(message) + "\n")
        sys.stderr.flush()


def complain_more(error: TableError, arguments: Sequence[str]) -> None:
    """Write the details of an error to standard error, and the commands that would help.

    Args:
        arguments: those of the command that failed.
    """
    for detail in error.details:
        complain(f"  {detail}")
    for when, options in error.remedies:
        complain(f"  {when}:")
        complain(f"    {shlex.join(['python', '-m', 'ml', *arguments, *options])}")


def open_standard_streams() -> None:
    """Open those of the standard streams that are closed: else a file or connection would get their numbers.

    Reading such an input and writing such an output fail as they would without it. Messages go nowhere.
    """
    for number, (name, flags) in enumerate([("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)]):
        if getattr(sys, name) is None:
            # Mostly this has its number, the first that is free; but libffi opens a file when it is imported.
            opened = os.open(os.devnull, flags)
            os.set_inheritable(opened, True)
            setattr(sys, name, open(opened, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def file_name(name: str, stream: str) -> str:
    """Return what a message calls a file, where `-` is the standard input or output."""
    return f"standard {stream}" if name == "-" else name
