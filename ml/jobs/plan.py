"""Which files are scored, and what each of them becomes. Opens files to see of which kind they are, and writes none."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.errors import TableError
from ml.scoring.parquet import is_parquet

# What the files in a folder are called that have tables.
_PARQUET = (".parquet", ".pq")
_OTHERS = (".json", ".jsonl", ".ndjson", ".xlsx", ".xlsm")
SUFFIXES = (".csv", ".tsv", ".txt", *_OTHERS, *_PARQUET)
# Behind one of them. A copy is not packed, and is named without it.
_PACKED = (".gz", ".zip")
# Engines leave out such files of a folder, and so is done here: they are records of theirs, and not complete.
_HIDDEN = (".", "_")


@dataclass(frozen=True)
class Job:
    """A file of rows, and the file that its scored copy becomes.

    Attributes:
        size, changed_ns: bytes and time of the last change of the source when the job was planned.
    """

    source: Path
    sink: Path
    size: int
    changed_ns: int


@dataclass(frozen=True)
class Plan:
    """Jobs in the order of their names, the folder of their copies, and sentences on what was left out."""

    out: Path
    jobs: tuple[Job, ...]
    said: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """A file, the name of its copy in their folder, and the folder in which it was found, if it was not named."""

    source: Path
    name: Path
    folder: Path | None = None


def is_folder(inputs: Sequence[str], out: str) -> bool:
    """Tell whether the copies go to a folder: those of one file that was named go there if it exists."""
    several = len(inputs) > 1 or os.path.isdir(inputs[0]) or _is_pattern(inputs[0])
    return several or out.endswith(os.sep) or (os.path.isdir(out) and not os.path.islink(out))


def planned(inputs: Sequence[str], out: Path, to: str) -> Plan:
    """Return a job for each file that the inputs stand for.

    Args:
        inputs: files; folders, with all tables below them; and patterns as a shell has them.
        out: the folder of the copies.
        to: "parquet", "csv", or nothing for the kind that a file has.

    Raises:
        TableError: an input is not there; two would become one file; or a copy would be an input, lie in one, or
            be written through a symbolic link.
    """
    links: list[Path] = []
    others: list[Path] = []
    found = [file for name in inputs for file in _found(name, links, others)]
    said = [
        *_said(links, "a symbolic link, which is not followed", "symbolic links, which are not followed"),
        *_said(others, "not a table by its name", "not tables by their names"),
    ]
    _refuse_folder_inside({file.folder for file in found if file.folder}, out)
    jobs: dict[Path, Job] = {}
    for file in sorted(found, key=lambda file: file.name):
        sink = out / _sink_name(file, to)
        if sink in jobs:
            raise TableError(f"{jobs[sink].source} and {file.source} would both become {sink}: score them one by one")
        known = file.source.stat()
        jobs[sink] = Job(file.source, sink, known.st_size, known.st_mtime_ns)
    _refuse_sinks(jobs.values(), out)
    return Plan(out, tuple(jobs.values()), tuple(said))


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.lexists(name)


def _found(name: str, links: list[Path], others: list[Path]) -> list[_Found]:
    """Return the files that an input stands for; put those that are left out into the two lists."""
    if os.path.isdir(name):
        found = [*_in_folder(Path(name), links, others)]
        missing = f"{name}: no file in this folder has a name that ends with {', '.join(SUFFIXES)}, packed or not"
    elif _is_pattern(name):
        found = [*_matching(name, links)]
        missing = f"{name}: no file has such a name"
    else:
        found = [_Found(Path(name), Path(os.path.basename(name)))] if os.path.isfile(name) else []
        missing = f"{name}: {'not a file' if os.path.exists(name) else 'No such file or directory'}"
    if not found:
        raise TableError(missing)
    return found


def _in_folder(folder: Path, links: list[Path], others: list[Path]) -> Iterator[_Found]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN))
        here = Path(where)
        links += [here / name for name in folders if (here / name).is_symlink()]
        for name in sorted(name for name in names if not name.startswith(_HIDDEN)):
            path = here / name
            if path.is_symlink():
                links.append(path)
            elif _unpacked_name(path).suffix.lower() in SUFFIXES and path.is_file():
                yield _Found(path, path.relative_to(folder), folder)
            else:
                others.append(path)


def _matching(pattern: str, links: list[Path]) -> Iterator[_Found]:
    """Yield the files that a pattern matches; one with `**` looks into folders, as a folder does."""
    parts = Path(pattern).parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    for path in map(Path, sorted(set(glob.iglob(pattern, recursive=True)))):
        name = path.relative_to(root)
        if any((root / part).is_symlink() for part in (name, *name.parents[:-1])):
            links.append(path)
        elif path.is_file():
            yield _Found(path, name, root if "**" in pattern else None)


def _said(left_out: Sequence[Path], one: str, many: str) -> Iterator[str]:
    if left_out:
        count = len(left_out)
        yield f"left out: {left_out[0]}" + (f" and {count - 1} more, {many}" if count > 1 else f", {one}")


def _sink_name(file: _Found, to: str) -> Path:
    """Return the name of a copy: another one only where its kind of file is called otherwise."""
    name = _unpacked_name(file.name)
    suffix = name.suffix.lower()
    wanted = to or ("parquet" if is_parquet(str(file.source)) else "csv")
    if not suffix and name != file.name:
        return name.with_name(f"{name.name}.{wanted}")  # an archive's own name says nothing of the kind
    if suffix in _PARQUET if wanted == "parquet" else suffix not in (*_PARQUET, *_OTHERS):
        return name
    stem = name.stem if suffix in SUFFIXES else name.name
    return name.with_name(f"{stem}.{wanted}")


def _unpacked_name(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in _PACKED else path


def _refuse_folder_inside(folders: Iterable[Path], out: Path) -> None:
    """Refuse an output that the next run would find among its inputs."""
    where = out.resolve()
    for folder in folders:
        if where.is_relative_to(folder.resolve()):
            raise TableError(f"{out} is inside the input {folder}: name a folder elsewhere with --out")


def _refuse_sinks(jobs: Iterable[Job], out: Path) -> None:
    """Refuse copies that are inputs, and those on whose way there is a link: nothing is written where one leads."""
    jobs = list(jobs)
    sources = {(known.st_dev, known.st_ino): job.source for job in jobs if (known := job.source.stat())}
    folders = {folder for job in jobs for folder in job.sink.parents if folder.is_relative_to(out)}
    for path in [*sorted(folders), *(job.sink for job in jobs)]:
        try:
            known = path.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TableError(f"{path} cannot be written: {error.strerror}") from error
        if stat.S_ISLNK(known.st_mode):
            raise TableError(f"{path} is a symbolic link, through which nothing is written")
        if path in folders:
            if not stat.S_ISDIR(known.st_mode):
                raise TableError(f"{path} is a file: several files, or a folder, are written to a folder")
        elif not stat.S_ISREG(known.st_mode):
            raise TableError(f"{path} is no file, and is not replaced by one")
        elif (known.st_dev, known.st_ino) in sources:
            raise TableError(f"{path} is an input as well: name another folder with --out")
