"""Numbers by name, counted by one process and shared with the others of the service. Knows nothing of their meaning.

Each process counts in a dictionary of its own. Once a second it replaces its copy in a shared folder, a file that stays
locked as long as the process lives: so a killed process loses one second at most, and its end is seen. A new process
continues the counts of ended ones. Predictions never depend on the folder: a missing one is made again, and a process
that cannot write there counts alone.

prometheus_client's own mode for several processes was tried. With its folder removed the next new metric is a
FileNotFoundError, a scrape a ValueError, and no new process starts; a full file system ends the process (SIGBUS, since
its files are mapped into memory); files of ended processes add up, two for each; an addition takes 1.6 us, not 0.1.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
from pathlib import Path

import msgspec

Name = tuple[str, ...]

# Attempts to read a file that is replaced or taken over meanwhile.
ATTEMPTS = 3
_SUFFIX = ".counts"

logger = logging.getLogger("web")


class ProcessCounters(msgspec.Struct, array_like=True):
    """The numbers of one process, including those of ended ones before it.

    Attributes:
        pid: the process, or None when it has ended.
        counts: numbers that outlive the process, by name.
        states: numbers that end with it, by name.
        extras: other data for the other processes, unchanged.
        taken_over: the files of ended processes whose counts are among these.
    """

    pid: int | None
    counts: dict[Name, float]
    states: dict[Name, float]
    extras: list[bytes]
    taken_over: list[str]


_decoder = msgspec.msgpack.Decoder(ProcessCounters)


class SharedCounters:
    """The numbers of this process.

    Args:
        folder: in which the processes of the service share their numbers; None for a single process.

    Attributes:
        counts: numbers that outlive the process, to be added to in place.
        states: numbers that end with the process.
        inherited: the extras of ended processes; they stay shared until they are cleared.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.counts: dict[Name, float] = {}
        self.states: dict[Name, float] = {}
        self.inherited: list[bytes] = []
        self._folder = folder
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._taken_over: list[str] = []
        self._file: int | None = None
        self._is_shared = True
        self.share()
        with contextlib.suppress(OSError):  # logged by `share`, or another new process does it
            self._take_over()

    def add(self, amount: float, *name: str) -> None:
        """Add to the count of this name; a new one starts at 0."""
        self.counts[name] = self.counts.get(name, 0.0) + amount

    def share(self, *extras: bytes) -> None:
        """Leave a copy of the numbers to the other processes, with other data for them."""
        if self._folder is None:
            return
        try:
            self._write(self._folder, self._own(extras))
        except OSError as error:
            if self._is_shared:
                logger.warning("metrics are not shared between processes, each reports its own: %s", error)
            self._is_shared = False
        else:
            self._is_shared = True

    def all(self) -> list[ProcessCounters]:
        """Return the numbers of every process of the service, this one first."""
        files, taken_over = self._files()
        return [self._own(()), *(one for name, one in files.items() if name not in taken_over)]

    def close(self) -> None:
        """Mark this process as ended: the next one to start continues its shared counts."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _own(self, extras: tuple[bytes, ...]) -> ProcessCounters:
        return ProcessCounters(os.getpid(), self.counts, self.states, [*self.inherited, *extras], self._taken_over)

    def _write(self, folder: Path, counters: ProcessCounters) -> None:
        folder.mkdir(0o700, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "the folder is another user's", str(folder))
        path = folder / (self._name + _SUFFIX)
        new = path.with_suffix(".new")
        file = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            with open(file, "wb", closefd=False) as stream:
                stream.write(msgspec.msgpack.encode(counters))
            # The sign of life: the system gives the lock back when the process ends, however it does.
            fcntl.flock(file, fcntl.LOCK_EX)
            new.replace(path)
        except OSError:
            os.close(file)
            raise
        self.close()
        self._file = file

    def _files(self) -> tuple[dict[str, ProcessCounters], set[str]]:
        """Return the others' numbers by file, and the files whose counts are among those of another file."""
        found: dict[str, ProcessCounters | None] = {}
        for _ in range(ATTEMPTS if self._folder else 0):
            assert self._folder is not None
            found = {path.stem: _read(path) for path in self._folder.glob("*" + _SUFFIX) if path.stem != self._name}
            if None not in found.values():
                break
        files = {name: one for name, one in found.items() if one is not None}
        return files, {*self._taken_over, *(name for one in files.values() for name in one.taken_over)}

    def _take_over(self) -> None:
        """Continue the counts of ended processes, one new process at a time."""
        if self._folder is None:
            return
        with (self._folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files, taken_over = self._files()
            ended = [name for name, one in files.items() if one.pid is None]
            for one in (files[name] for name in ended if name not in taken_over):
                for count, number in one.counts.items():
                    self.add(number, *count)
                self.inherited += one.extras
            # No reader counts anything twice: these files are listed as taken over before they are removed.
            self._taken_over = ended
            self.share()
            for name in ended if self._is_shared else ():
                (self._folder / (name + _SUFFIX)).unlink(missing_ok=True)


def _read(path: Path) -> ProcessCounters | None:
    """Return the numbers in a file; None if it is being replaced or taken over, or is not ours."""
    try:
        with path.open("rb") as file:
            counters = _decoder.decode(file.read())
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return counters
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return None  # its process has written a newer one
    except (OSError, msgspec.MsgspecError):
        return None
    counters.pid = None
    return counters
