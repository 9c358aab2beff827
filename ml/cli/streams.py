"""What a command reads and writes: files, or standard input and output. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ml.cli import console
from ml.errors import TableError
from ml.tables.files import placed

# A character that no text can have is no reason to stop.
_TEXT: dict[str, str] = {"errors": "replace", "newline": ""}


class InputFile(io.FileIO):
    """A table that is read, or standard input where the name is `-`.

    Args:
        on_bytes: is called with how many bytes were read.

    Raises:
        TableError: it cannot be opened, or read.
    """

    def __init__(self, name: str, on_bytes: Callable[[int], object] = lambda _bytes: None) -> None:
        self._on_bytes = on_bytes
        self._shown = console.file_name(name, "input")
        try:
            super().__init__(sys.stdin.fileno() if name == "-" else name, closefd=name != "-")
        except OSError as error:
            raise TableError(f"{self._shown}: {error.strerror}") from error

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            size = super().readinto(buffer)
        except OSError as error:
            raise TableError(f"{self._shown}: {error.strerror}") from error
        self._on_bytes(size or 0)
        return size


@contextlib.contextmanager
def output_of(name: str, mode: str = "wb", **options: str) -> Iterator[Any]:
    """Open the output, or standard output where the name is `-`; a file takes its name only when it is complete."""
    if name == "-":
        with open(sys.stdout.fileno(), mode, closefd=False, **options) as file:  # type: ignore[call-overload]  # as below
            yield file
    elif os.path.exists(name) and not os.path.isfile(name):
        # A pipe or a device is written to as it is: a file in its place would break it for everybody.
        with open(name, mode, **options) as file:  # type: ignore[call-overload]  # as below
            yield file
    else:
        with placed(Path(os.path.realpath(name)), mode, **options) as file:  # a link leads to it still
            yield file


@contextlib.contextmanager
def sink_of(name: str) -> Iterator[TextIO]:
    """Open the output for text, as `output_of` does.

    Raises:
        TableError: it cannot be written.
    """
    try:
        with output_of(name, "w", encoding="utf-8", **_TEXT) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TableError(f"{console.file_name(name, 'output')} cannot be written: {error.strerror}") from error
