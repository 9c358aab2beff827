"""Progress of long work: how it is reported, and bars that show it on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

Progress = Callable[[str, int, int], None]
"""Is called with the name of the work, how many of its steps are done, and how many there are."""


def silent(_what: str, _done: int, _steps: int) -> None:
    """Show nothing."""


class Bars:
    """Bars on a terminal for work that takes more than a moment; nothing elsewhere, nor where tqdm is not installed."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: Any = None
        self._made: Any = None
        with suppress(ImportError):
            from tqdm import tqdm

            self._made = tqdm

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, what: str, done: int, steps: int) -> None:
        """Show that `done` of `steps` are done."""
        if self._made is None:
            return
        if self._what != what:
            self.__exit__()
            self._what = what
            self._bar = self._made(desc=what, total=steps, delay=1, leave=False, disable=None)
        self._bar.update(done - self._bar.n)
