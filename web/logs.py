"""Log lines: plain ones for people or JSON for machines, each with the id of the request that it belongs to.

No line contains input: requests are named by their route and id.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Any

from ml.cli.console import printable

# Set by the gateway for every request and websocket (55 ns); all log lines of the request have it, uvicorn's too.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

# The number of lines that wait for the reader of the log; further ones are lost. At the end they have so much time.
MAX_LINES = 10_000
FLUSH_S = 1.0
POLL_S = 0.01
STANDARD_ERROR = 2

_access = logging.getLogger("web.access")


def new_request_id() -> str:
    """Return a new request id, unique over all processes and starts."""
    return next(_request_ids())


@cache
def _request_ids() -> Iterator[str]:
    return map(f"{secrets.token_hex(4)}-{{:x}}".format, count(1))


def configuration(form: str) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`: one handler for this service and uvicorn.

    Args:
        form: "plain" or "json".
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "plain": {"()": "web.logs.PlainFormatter"},
            "json": {"()": "web.logs.JsonFormatter"},
        },
        "handlers": {"stderr": {"class": "web.logs.StandardError", "formatter": form}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"web": {"level": "INFO"}, "ml": {"level": "INFO"}},
    }


def access(method: str, route: str, status: int, seconds: float) -> None:
    """Write the line of a request: its route template, never its path or query, which contain input."""
    milliseconds = round(seconds * 1_000, 3)
    fields = {"method": method, "route": route, "status": status, "milliseconds": milliseconds}
    _access.info("%s %s %s %s ms", method, route, status, milliseconds, extra={"fields": fields})


class StandardError(logging.Handler):
    """Writes lines to standard error in a thread of its own: logging never waits for the reader of the log.

    Lines beyond `MAX_LINES` are lost; their number is logged when lines are read again.
    """

    def __init__(self) -> None:
        super().__init__()
        # A simple queue: a signal handler may log something while its thread is adding a line.
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._put = self._done = self._lost = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the line to the thread, or count it as lost."""
        if self._lines.qsize() >= MAX_LINES:
            self._lost += 1
            return
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._put += 1
        self._lines.put(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Wait until all lines are written, for `FLUSH_S` at most: the log may have no reader."""
        ends_at = time.monotonic() + FLUSH_S
        while self._done < self._put and time.monotonic() < ends_at:
            time.sleep(POLL_S)

    def _run(self) -> None:
        logged = 0
        while True:
            self._write(self._lines.get())
            if (lost := self._lost) > logged:
                message = f"{lost - logged} log lines were lost: standard error was not read for a while"
                self._write(self.format(logging.makeLogRecord({"name": "web", "levelname": "ERROR", "msg": message})))
                logged = lost
            self._done += 1

    def _write(self, line: str) -> None:
        content = (line + "\n").encode(errors="backslashreplace")
        try:
            while content:
                # Not through sys.stderr: its lock would be held as long as nobody reads, also at exit.
                content = content[os.write(STANDARD_ERROR, content) :]
        except OSError:
            self._lost += 1  # standard error is closed, or its disk is full


class PlainFormatter(logging.Formatter):
    """Time, level, logger, the request's id if there is one, message; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        request_id = REQUEST_ID.get()
        record.request = f" [{request_id}]" if request_id else ""
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        """Return the line itself; what a stranger has put into it cannot end it."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # logging's name
        """Return the lines of a traceback."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class JsonFormatter(logging.Formatter):
    """One JSON object a line; the time as RFC 3339 in UTC, a traceback as one text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().strip(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str)  # any text there is, also what is not Unicode
