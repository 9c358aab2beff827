"""The model that answers: loaded before the first request, and replaced when its file is.

A thread of its own looks at the file, and loads and checks a new one, so that the event loop never waits for a disk or
a forest. A file that cannot be served leaves the model in its place that answers already.
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
from ml.model import classifier
from ml.model.classifier import Classifier
from web.settings import ROOT, Settings

# A file that is not renamed into place but written there is left alone until it has been still for so long.
SETTLE_S = 0.05
# A file system that takes longer than this is told of: it may be one of a network that is gone, and never answer.
SLOW_S = 5.0
# While a model is loaded, the event loop gets the interpreter back after so long instead of after 5 ms. Measured with a
# client that asks every 5 ms while models load over and over: p99 5 ms, not 11.
SWITCH_S = 0.0005

logger = logging.getLogger("web")

Identity = tuple[int, int, int, int, int]


class Rejected(msgspec.Struct, frozen=True):
    """Why the model file is not served, and since when (RFC 3339): an older model answers in its place."""

    reason: str
    since: str


def identity_of(path: Path) -> Identity:
    """Return what tells one content of a file from another without reading it: device, inode, size and times, in ns.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
    """
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def named_when_slow(path: Path) -> Iterator[None]:
    """Say in the log what is waited for if the block takes long, even if it never ends."""
    timer = threading.Timer(SLOW_S, logger.warning, ("still waiting for the model file %s", path))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def load(settings: Settings) -> Classifier:
    """Return the model in the file that the settings name.

    Raises:
        ModelFileError: the file cannot be served.
    """
    return classifier.load(
        settings.model_file,
        max_bytes=settings.max_model_bytes,
        max_cells=settings.max_table_cells,
        max_bit_bytes=settings.max_bit_bytes,
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
        raise ModelFileError(f"training the built-in model failed: {last}")


class ModelFile:
    """The model file, looked at again and again. Knows nothing of who is served with what is in it.

    Attributes:
        version: of the model that was loaded last.
    """

    def __init__(self, path: Path, load: Callable[[], Classifier]) -> None:
        self.version = ""
        self._path = path
        self._load = load
        self._seen: Identity | None = None
        self._told: tuple[Identity | None, str] | None = None
        self._try_again = False

    def open(self) -> Classifier:
        """Return the model in the file as it is now.

        Raises:
            ModelFileError: it cannot be served.
        """
        # Taken before loading: what comes in between is then found to be new.
        with suppress(OSError):
            self._seen = identity_of(self._path)
        model = self._load()
        self.version, self._told = model.version, None
        return model

    def look(self, *, even_if_unchanged: bool = False) -> Classifier | Rejected | None:
        """Return the model when the file holds another one, why it cannot be served, or None when there is no news.

        Each failure is told once. After one the model is returned also when it is the same one as before.
        """
        try:
            seen, known = identity_of(self._path), self._seen
        except OSError as error:
            self._seen = None
            return self._reject(error.strerror or str(error))
        is_old = seen == known and not self._try_again and not even_if_unchanged
        is_rewritten = seen != known and known is not None and _is_same_file(seen, known)
        if is_old or (is_rewritten and self._is_being_written(seen)):
            return None  # the next look sees it again
        before, told = self.version, self._told
        try:
            model = self.open()
        except ModelFileError as error:
            if seen != known and self._is_being_written(seen):
                self._seen = known
                return None
            # What could not be read may be readable in a moment, though nothing about the file has changed.
            self._try_again = isinstance(error.__cause__, OSError)
            return self._reject(str(error).removeprefix(f"{self._path}: "))
        except Exception as error:
            # Whatever it is, MemoryError for one: the old model goes on serving, and the next file has its chance.
            self._try_again = False
            logger.exception("a model file broke the loading of it")
            return self._reject(f"it cannot be loaded: {error!r}")
        self._try_again = False
        return None if model.version == before and told is None else model

    def _is_being_written(self, seen: Identity) -> bool:
        """Tell whether the file goes on changing; one that was renamed into its place is another file."""
        threading.Event().wait(SETTLE_S)
        try:
            now = identity_of(self._path)
        except OSError:
            return False
        return now != seen and _is_same_file(now, seen)

    def _reject(self, reason: str) -> Rejected | None:
        if self._told == (self._seen, reason):
            return None
        self._told = self._seen, reason
        return Rejected(reason, datetime.now(UTC).isoformat(timespec="seconds"))


def _is_same_file(one: Identity, other: Identity) -> bool:
    return one[:2] == other[:2]


class Watch:
    """Looks at a model file in a thread, and tells the event loop in which it was started what is new.

    Args:
        every_s: seconds between two looks; 0 looks only when asked to.
        tell: is called with a new model, or why there is none, in the event loop.
    """

    def __init__(
        self,
        file: ModelFile,
        *,
        every_s: float,
        tell: Callable[[Classifier | Rejected], object],
    ) -> None:
        self._file = file
        self._every_s = every_s
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._asked = threading.Event()
        self._is_over = False
        # When the look that goes on has begun: since 1970, and by the clock that nobody sets; 0 when there is none.
        self._looking_since = self._looking_since_s = 0.0
        self._slow_check = self._loop.call_later(SLOW_S, self._check_slow)
        # Nobody waits for its end: it may be loading a large model when the process is told to stop.
        threading.Thread(target=self._run, name="model file", daemon=True).start()

    def look_now(self) -> None:
        """Have the file loaded at once, whether it looks changed or not; may be called by a signal handler."""
        self._loop.call_soon_threadsafe(self._asked.set)

    @property
    def checking_since(self) -> str | None:
        """Since when (RFC 3339) a look at the file has gone on, if it takes long: its file system may hang."""
        since, since_s = self._looking_since, self._looking_since_s
        if not since_s or time.monotonic() - since_s < SLOW_S:
            return None
        return datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")

    def _check_slow(self, told_s: float = 0.0) -> None:
        """Say once of each look that it takes long."""
        since_s = self._looking_since_s
        if self.checking_since and since_s != told_s:
            told_s = since_s
            logger.warning("the look at the model file takes more than %g s; the model that answers stays", SLOW_S)
        self._slow_check = self._loop.call_later(SLOW_S, self._check_slow, told_s)

    def stop(self) -> None:
        """Tell of nothing more."""
        self._is_over = True
        self._slow_check.cancel()
        self._asked.set()

    def _run(self) -> None:
        while True:
            is_asked = self._asked.wait(self._every_s or None)
            self._asked.clear()
            if self._is_over:
                return
            usual_s = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_S)
            self._looking_since, self._looking_since_s = time.time(), time.monotonic()
            try:
                news = self._file.look(even_if_unchanged=is_asked)
            finally:
                self._looking_since_s = 0.0
                sys.setswitchinterval(usual_s)
            if news is not None:
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._deliver, news)
            del news  # else it would be kept until there is a newer one

    def _deliver(self, news: Classifier | Rejected) -> None:
        if not self._is_over:
            self._tell(news)
