"""Numbers by name, counted by one process and read by all processes of the service. Knows nothing of what they mean.

Each process has its own ledger in a folder that they share: a file of names, one a line, which only grows, and a file
of as many float64, mapped into memory. Counting is an addition in place, without a lock; what was counted is there for
the others at once, and outlives a process that is killed. prometheus_client's own way for several processes needs its
folder in an environment variable while it is imported, and a dict look-up and a lock for each addition.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

Name = tuple[str, ...]

# Space for so many numbers is set aside; what is not used takes neither memory nor disk.
CAPACITY = 2**20
_FLOAT_BYTES = 8
# A name beyond the capacity shares this slot with all others that came too late.
OVERFLOW: Name = ("overflow",)
# What processes have counted that have ended; sorts before theirs.
_ENDED = "0-ended.numbers"

_names = msgspec.json.Decoder(Name)


@dataclass(frozen=True)
class Page:
    """What one process has counted: numbers by name.

    `pid` is the process, or None when it has ended.
    """

    pid: int | None
    numbers: Mapping[Name, float]


class Ledger:
    """The numbers of this process.

    Args:
        folder: where the processes of the service share theirs; without it they stay in memory.

    Attributes:
        numbers: one float64 a slot, to be added to in place: `ledger.numbers[slot] += 1`.
        path: the file of the numbers; None without a folder.
    """

    path: Path | None = None

    def __init__(self, folder: Path | None = None, *, capacity: int = CAPACITY) -> None:
        self._folder = folder
        self._capacity = capacity
        self._slots: dict[Name, int] = {}
        if folder is None:
            content = mmap.mmap(-1, capacity * _FLOAT_BYTES)
        else:
            # With a lock on the folder, systemd-tmpfiles leaves what is in it alone, however old it is.
            self._folder_lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._folder_lock, fcntl.LOCK_SH)
            self.path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.numbers"
            with _locked(folder):
                _fold_ended(folder)
                self._names = self.path.with_suffix(".names").open("wb", buffering=0)
                # The lock on the file is the sign of life: the system gives it back when the process ends, however.
                self._file = self.path.open("w+b")
                fcntl.flock(self._file, fcntl.LOCK_EX)
                self._file.truncate(capacity * _FLOAT_BYTES)
            content = mmap.mmap(self._file.fileno(), capacity * _FLOAT_BYTES)
        self.numbers = memoryview(content).cast("d")
        self.slots([OVERFLOW])

    def slot(self, *name: str) -> int:
        """Return the slot of a name; a new name starts at 0."""
        known = self._slots.get(name)
        return self.slots([name])[0] if known is None else known

    def slots(self, names: list[Name]) -> list[int]:
        """Return the slots of names; names that are all new get slots next to each other."""
        new = [name for name in dict.fromkeys(names) if name not in self._slots]
        new = new[: self._capacity - len(self._slots)]
        self._slots |= zip(new, range(len(self._slots), self._capacity), strict=False)
        if new and self.path is not None:
            self._names.write(b"".join(msgspec.json.encode(name) + b"\n" for name in new))
        return [self._slots.get(name, 0) for name in names]

    def add(self, amount: float, *name: str) -> None:
        """Add to the number of this name."""
        self.numbers[self.slot(*name)] += amount

    def set(self, number: float, *name: str) -> None:
        """Put a number in the place of the one of this name."""
        self.numbers[self.slot(*name)] = number

    def pages(self) -> list[Page]:
        """Return what every process of the service has counted, this one first."""
        own = Page(os.getpid(), dict(zip(self._slots, self.numbers, strict=False)))
        if self._folder is None:
            return [own]
        with _locked(self._folder):
            others = [path for path in sorted(self._folder.glob("*.numbers")) if path != self.path]
            return [own, *(_read(path) for path in others)]

    def close(self) -> None:
        """Let go of the files: the next process to start counts this one among the ended."""
        if self._folder is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # the mapping keeps the file open
            self._names.close()
            self._file.close()
            os.close(self._folder_lock)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time look at all the files, so that nothing is read twice while ended ones are folded."""
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Page:
    lines = path.with_suffix(".names").read_bytes().split(b"\n")[:-1]  # after the last line break nothing is whole
    with path.open("rb") as file:
        numbers = memoryview(file.read(len(lines) * _FLOAT_BYTES)).cast("d")
        pid: int | None = int(path.name.partition("-")[0])
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            pid = None
    return Page(pid, {_names.decode(line): number for line, number in zip(lines, numbers, strict=False)})


def _fold_ended(folder: Path) -> None:
    """Make one of all ledgers whose process has ended, so that they do not pile up."""
    ended = [(path, page) for path in sorted(folder.glob("*.numbers")) if (page := _read(path)).pid is None]
    if [path for path, _ in ended] in ([], [folder / _ENDED]):
        return
    totals: dict[Name, float] = {}
    for _, page in ended:
        for name, number in page.numbers.items():
            totals[name] = totals.get(name, 0.0) + number
    _write(folder / _ENDED, totals)
    for path, _ in ended:
        if path.name != _ENDED:
            path.unlink()
            path.with_suffix(".names").unlink()


def _write(path: Path, totals: Mapping[Name, float]) -> None:
    numbers = memoryview(bytearray(len(totals) * _FLOAT_BYTES)).cast("d")
    for slot, number in enumerate(totals.values()):
        numbers[slot] = number
    # Names first: those that were there come first and in their order, so that either file alone is right as well.
    for content, target in (
        (b"".join(msgspec.json.encode(name) + b"\n" for name in totals), path.with_suffix(".names")),
        (bytes(numbers), path),
    ):
        new = target.with_suffix(".new")
        new.write_bytes(content)
        new.replace(target)
