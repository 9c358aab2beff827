"""What was done in a folder of scored copies: by which model, with which options, of which files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ml.jobs.copying import How
from ml.jobs.plan import Job
from ml.tables.files import placed

# Engines, and folders that are inputs here, leave out names that begin so.
NAME = "_scored.jsonl"


class Entry(msgspec.Struct, frozen=True):
    """A copy that is complete.

    Attributes:
        name: of the copy, in the folder.
        model: the version of the one that answered.
        source: the file that was scored, with its size in bytes and the time of its last change, when that began.
        size, changed_ns: of the copy.
    """

    name: str
    model: str
    how: How
    source: tuple[str, int, int]
    size: int
    changed_ns: int


class Record:
    """The record of one folder, in which a line is added for each copy.

    Args:
        model: the version of the model that answers now.
    """

    def __init__(self, folder: Path, model: str, how: How) -> None:
        self._folder = folder
        self._model = model
        self._how = how
        self._entries = {entry.name: entry for entry in _entries_in(folder / NAME)}

    def begin(self, jobs: Iterable[Job]) -> dict[Job, str]:
        """Return the jobs that are not done, with what is wrong with the copy that is there, if there is one.

        From now on the record has the others alone.
        """
        found = {job: self._fault_of(job) for job in jobs}
        todo = {job: fault for job, fault in found.items() if fault is not None}
        for job in todo:
            self._entries.pop(self._name_of(job), None)
        with placed(self._folder / NAME) as file:
            file.writelines(msgspec.json.encode(entry) + b"\n" for entry in self._entries.values())
        return todo

    def add(self, job: Job) -> None:
        """Write down that a job is done."""
        with (self._folder / NAME).open("ab") as file:
            file.write(msgspec.json.encode(self._entry_of(job)) + b"\n")

    def _fault_of(self, job: Job) -> str | None:
        """Return why a job has to be done in spite of a copy, nothing if there is none, and None if it is done."""
        entry = self._entries.get(self._name_of(job))
        if not job.sink.exists():
            return ""
        if entry is None:
            return "it was not written by a run that ended well"
        now = self._entry_of(job)
        if entry.model != self._model:
            return f"it was written by model {entry.model}"
        if entry.how != self._how:
            return "it was written with other options"
        if entry.source != now.source:
            return f"{job.source} was changed"
        return None if entry == now else "it was changed"

    def _entry_of(self, job: Job) -> Entry:
        known = job.sink.stat()
        source = (_writable(job.source.absolute()), job.size, job.changed_ns)
        return Entry(self._name_of(job), self._model, self._how, source, known.st_size, known.st_mtime_ns)

    def _name_of(self, job: Job) -> str:
        return _writable(job.sink.relative_to(self._folder))


def _entries_in(path: Path) -> Iterable[Entry]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Entry)
        except msgspec.DecodeError:
            continue  # a run was killed while it wrote; that copy is made again


def _writable(path: Path) -> str:
    """Return a name in which bytes that are no characters are written out."""
    return path.as_posix().encode(errors="backslashreplace").decode()


def remove_parts(jobs: Sequence[Job]) -> None:
    """Remove what killed runs have left of the copies that they were writing; the folder has to be locked."""
    names = {(job.sink.parent, job.sink.name) for job in jobs}
    for folder in {folder for folder, _ in names}:
        for path in folder.glob(".*.part"):
            found = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}\.part", path.name, re.DOTALL)
            if found and (folder, found[1]) in names:
                path.unlink(missing_ok=True)
