"""The served model: loaded before the first request, and replaced when its file is.

A thread checks the file, and loads and checks a new one, so that the event loop never waits for a disk or a forest. If
a file cannot be served, the old model is kept.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml.errors import ModelFileError
from ml.model.loaded import LoadedModel, load_model
from web.settings import ROOT, Settings

# A file that is not renamed into place but written there is left alone until it has been still for so long.
SETTLE_S = 0.05
# A file system that takes longer than this is logged: it may be a network file system that never answers.
SLOW_S = 5.0

logger = logging.getLogger("web")

Identity = tuple[int, int, int, int, int]


class RejectedFile(msgspec.Struct, frozen=True):
    """The reason why the model file is not served, and the time of its rejection (RFC 3339)."""

    reason: str
    since: str


def identity_of(path: Path) -> Identity:
    """Return the identity of a file's content without reading it: device, inode, size and times, in ns.

    Raises:
        OSError: there is no such file, or it cannot be accessed.
    """
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def named_when_slow(path: Path) -> Iterator[None]:
    """Log the name of the file if the block takes long, even if it never ends."""
    timer = threading.Timer(SLOW_S, logger.warning, ("loading the model file %s takes more than %g s", path, SLOW_S))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def load_configured(settings: Settings) -> LoadedModel:
    """Return the model in the file that the settings name.

    Raises:
        ModelFileError: the file cannot be served.
    """
    return load_model(
        settings.model_file,
        max_bytes=settings.max_model_bytes,
        max_cells=settings.max_table_cells,
    )


async def train_if_missing(settings: Settings) -> None:
    """Train the built-in model where there is no file, in a process of its own: scikit-learn's 130 MB end with it.

    Raises:
        ModelFileError: there is no file, and none can be made.
    """
    try:
        with named_when_slow(settings.model_file):
            exists = settings.model_file.exists()
    except OSError as error:
        raise ModelFileError(f"{settings.model_file}: {error.strerror}") from error
    if exists:
        return
    if not settings.model_file.absolute().parent.is_dir():
        raise ModelFileError(f"{settings.model_file}: there is no such folder")
    logger.warning("no model file at %s: training the built-in model there", settings.model_file)
    command = (sys.executable, "-m", "ml", "train", "--out", os.fspath(settings.model_file.absolute()))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        *_, last = ["", *output.decode(errors="replace").strip().splitlines()]
        reason = last.removeprefix("error: ")
        raise ModelFileError(f"training the built-in model failed: {reason}; MODEL_FILE can name a file that is there")


class WatchedFile:
    """The model file, checked for changes. Knows nothing of the use of its model.

    Attributes:
        version: of the model that was loaded last.
    """

    def __init__(self, path: Path, load: Callable[[], LoadedModel]) -> None:
        self.version = ""
        self._path = path
        self._load = load
        self._seen: Identity | None = None
        self._rejected: tuple[Identity | None, str] | None = None
        self._try_again = False

    def open(self) -> LoadedModel:
        """Return the model in the file as it is now.

        Raises:
            ModelFileError: it cannot be served.
        """
        # Read before loading: a change in between is then found by the next check.
        with suppress(OSError):
            self._seen = identity_of(self._path)
        model = self._load()
        self.version, self._rejected = model.version, None
        return model

    def check(self, *, even_if_unchanged: bool = False) -> LoadedModel | RejectedFile | None:
        """Return the new model, or the reason why it cannot be served, or None if nothing has changed.

        Each failure is returned once. After one the model is returned also when it is the same one as before.
        """
        try:
            seen, known = identity_of(self._path), self._seen
        except OSError as error:
            self._seen = None
            return self._reject(error.strerror or str(error))
        is_old = seen == known and not self._try_again and not even_if_unchanged
        is_rewritten = seen != known and known is not None and _is_same_file(seen, known)
        if is_old or (is_rewritten and self._is_being_written(seen)):
            return None  # the next check finds it again
        before, rejected = self.version, self._rejected
        try:
            model = self.open()
        except ModelFileError as error:
            if seen != known and self._is_being_written(seen):
                self._seen = known
                return None
            # An unreadable file may be readable soon, although nothing about it has changed.
            self._try_again = isinstance(error.__cause__, OSError)
            return self._reject(str(error).removeprefix(f"{self._path}: "))
        except Exception as error:
            # Any exception, such as MemoryError: the old model is still served, and the next file is tried again.
            self._try_again = False
            logger.exception("unexpected error while loading the model file")
            return self._reject(f"it cannot be loaded: {error!r}")
        self._try_again = False
        return None if model.version == before and rejected is None else model

    def _is_being_written(self, seen: Identity) -> bool:
        """Return whether the file is still changing; one that was renamed into its place is another file."""
        threading.Event().wait(SETTLE_S)
        try:
            now = identity_of(self._path)
        except OSError:
            return False
        return now != seen and _is_same_file(now, seen)

    def _reject(self, reason: str) -> RejectedFile | None:
        if self._rejected == (self._seen, reason):
            return None
        self._rejected = self._seen, reason
        return RejectedFile(reason, datetime.now(UTC).isoformat(timespec="seconds"))


def _is_same_file(one: Identity, other: Identity) -> bool:
    return one[:2] == other[:2]


class ModelWatcher:
    """Checks a model file in a thread, and reports changes to the event loop in which it was started.

    Args:
        every_s: seconds between two checks; 0 checks only on request.
        on_change: is called with a new model, or the reason why it is rejected, in the event loop.
    """

    def __init__(
        self,
        file: WatchedFile,
        *,
        every_s: float,
        on_change: Callable[[LoadedModel | RejectedFile], object],
    ) -> None:
        self._file = file
        self._every_s = every_s
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._asked = threading.Event()
        self._is_over = False
        # The start of the present check, since 1970 and on the monotonic clock; 0 when there is none.
        self._checking_since = self._checking_since_s = 0.0
        self._slow_check = self._loop.call_later(SLOW_S, self._check_slow)
        # A daemon: it may be loading a large model when the process ends.
        threading.Thread(target=self._run, name="model file", daemon=True).start()

    def check_now(self) -> None:
        """Load the file at once, changed or not; may be called by a signal handler."""
        self._loop.call_soon_threadsafe(self._asked.set)

    @property
    def checking_since(self) -> str | None:
        """The start of the present check (RFC 3339), if it takes long: the file system may hang."""
        since, since_s = self._checking_since, self._checking_since_s
        if not since_s or time.monotonic() - since_s < SLOW_S:
            return None
        return datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")

    def _check_slow(self, logged_s: float = 0.0) -> None:
        """Log each slow check once."""
        since_s = self._checking_since_s
        if self.checking_since and since_s != logged_s:
            logged_s = since_s
            logger.warning("checking the model file takes more than %g s; the old model is still served", SLOW_S)
        self._slow_check = self._loop.call_later(SLOW_S, self._check_slow, logged_s)

    def stop(self) -> None:
        """Report nothing more."""
        self._is_over = True
        self._slow_check.cancel()
        self._asked.set()

    def _run(self) -> None:
        while True:
            is_asked = self._asked.wait(self._every_s or None)
            self._asked.clear()
            if self._is_over:
                return
            self._checking_since, self._checking_since_s = time.time(), time.monotonic()
            try:
                change = self._file.check(even_if_unchanged=is_asked)
            finally:
                self._checking_since_s = 0.0
            if change is not None:
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._deliver, change)
            del change  # else it would be kept until there is a newer one

    def _deliver(self, change: LoadedModel | RejectedFile) -> None:
        if not self._is_over:
            self._on_change(change)
