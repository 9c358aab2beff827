"""Replaced model files, kept beside the one in use: `model.0123456789ab.npz` beside `model.npz`.

What was replaced last comes first. Their order is kept in the times of their last change. Who replaces a model holds a
lock on its folder meanwhile: of two at once, each would keep the same version, and the other one's would be lost.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml.errors import ModelFileError
from ml.model import modelfile
from ml.model.loaded import LoadedModel, load_model

KEPT_FILES = 3
# The interval between attempts to get a lock; after a second the wait is reported.
LOCK_POLL_S = 0.05
SILENT_S = 1.0

logger = logging.getLogger("ml")


@dataclass(frozen=True)
class Kept:
    """A replaced model file; `replaced_ns` is the time of its replacement, in nanoseconds since 1970."""

    path: Path
    version: str
    replaced_ns: int


@dataclass(frozen=True)
class Restored:
    """A restored model, and the version that it replaced, if any."""

    model: LoadedModel
    replaced: str


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the folder in which a file is; it leaves no file behind, and ends with the process.

    Where the system or the file system has no such locks a warning says so.

    Raises:
        ModelFileError: there is no such folder, or it cannot be opened.
    """
    try:
        descriptor = os.open(path.absolute().parent, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl = importlib.import_module("fcntl")  # Windows has none
        started, has_said = time.monotonic(), False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not has_said and time.monotonic() - started >= SILENT_S:
                    has_said = True
                    logger.warning("%s: another process writes to this folder; waiting for it", path)
                time.sleep(LOCK_POLL_S)
    except (ImportError, OSError) as error:
        logger.warning("%s: its folder cannot be locked (%s); run one command at a time", path, error)


def kept(path: Path) -> list[Kept]:
    """Return the kept files that were at `path`, the last replaced one first.

    Raises:
        ModelFileError: the folder cannot be read.
    """
    name = re.compile(rf"{re.escape(path.stem)}\.([0-9a-f]{{12}}){re.escape(path.suffix)}")
    try:
        found = [
            Kept(file, match[1], file.stat().st_mtime_ns)
            for file in path.absolute().parent.iterdir()
            if (match := name.fullmatch(file.name)) and file.is_file()
        ]
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    return sorted(found, key=lambda one: one.replaced_ns, reverse=True)


def keep(path: Path) -> str:
    """Copy the model file at `path` beside it and return its version; without a model there, return nothing.

    Raises:
        ModelFileError: it cannot be copied.
    """
    try:
        content = modelfile.read(path)
        version = modelfile.parse(content).version
    except ModelFileError:
        return ""  # not a valid model, so there is nothing to keep
    copy = path.with_name(f"{path.stem}.{version}{path.suffix}")
    try:
        modelfile.replace(content, copy)
        # Clocks are coarse, and can be set back.
        now = max([time.time_ns(), *(one.replaced_ns + 1 for one in kept(path) if one.version != version)])
        os.utime(copy, ns=(now, now))
    except OSError as error:
        raise ModelFileError(f"{copy} cannot be written: {error.strerror}") from error
    return version


def prune(path: Path, *, version: str) -> None:
    """Remove all kept files but the last `KEPT_FILES`, and the copy of the version in use."""
    others = [one for one in kept(path) if one.version != version]
    copies = [one for one in kept(path) if one.version == version]
    for one in [*copies, *others[KEPT_FILES:]]:
        one.path.unlink(missing_ok=True)


def restore(path: Path, version: str = "") -> Restored:
    """Put a kept file back in its place, and keep the one that it replaces.

    Args:
        version: which one, by the first of its digits; without it, what was replaced last. So doing it twice undoes it.

    Raises:
        ModelFileError: none is kept, or none of this version, or it cannot be served; everything stays as it was.
    """
    with locked(path):
        return _restore(path, version)


def _restore(path: Path, version: str) -> Restored:
    found = [one for one in kept(path) if one.version.startswith(version)]
    if not found:
        raise ModelFileError(f"no model file {f'of version {version} ' if version else ''}is kept beside {path}")
    if version and len(found) > 1:
        raise ModelFileError(f"{version} is the start of several versions: {', '.join(one.version for one in found)}")
    model = load_model(found[0].path)
    replaced = keep(path)
    try:
        os.replace(found[0].path, path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be written: {error.strerror}") from error
    prune(path, version=model.version)
    return Restored(model, replaced)
