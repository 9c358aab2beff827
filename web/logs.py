"""Log lines: plain ones for people or JSON for machines, each with the id of the request that it belongs to.

No line carries what somebody typed: requests are named by their route and id.
"""

from __future__ import annotations

import json
import logging
import secrets
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Any

# Set at the door for every request and websocket (55 ns); whatever is logged on the way finds it, uvicorn's lines too.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

_access = logging.getLogger("web.access")


def new_request_id() -> str:
    """Return an id for a request that brings none: different in every process and after every start."""
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
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"web": {"level": "INFO"}},
    }


def access(method: str, route: str, status: int, seconds: float) -> None:
    """Write the line of a request: its route's template, never the path or the query, which hold what was typed."""
    milliseconds = round(seconds * 1_000, 3)
    fields = {"method": method, "route": route, "status": status, "milliseconds": milliseconds}
    _access.info("%s %s %s %s ms", method, route, status, milliseconds, extra={"fields": fields})


class PlainFormatter(logging.Formatter):
    """Time, level, logger, the request's id if there is one, message; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        request_id = REQUEST_ID.get()
        record.request = f" [{request_id}]" if request_id else ""
        return super().format(record)


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
