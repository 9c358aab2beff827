"""From the start of the process to the first answer, and the memory that the service keeps."""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass
from statistics import median

import msgspec

from . import server
from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject

REQUESTS = 500
BATCH = 1_000


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first answer, resident memory in 10^6 bytes after some requests."""

    seconds: float
    resident_mb: float


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Start the service and the bare server in turn, once more than is counted: the first one compiles bytecode."""

    def service() -> Start:
        with server.service(subject) as running:
            use(running, subject)
            return Start(running.start_s, running.resident_mb())

    def bare() -> Start:
        with server.bare() as running:
            return Start(running.start_s, running.resident_mb())

    starts, bares = (series[1:] for series in interleave([service, bare], rounds=plan.rounds + 1))
    seconds, resident_mb = [s.seconds for s in starts], [s.resident_mb for s in starts]
    bare_s, bare_mb = [s.seconds for s in bares], [s.resident_mb for s in bares]
    return [
        Result(
            "start to the first answer",
            median(seconds),
            "s",
            Ratio.of(seconds, bare_s),
            f"bare uvicorn, {median(bare_s):.2f} s",
            (Bar(median(seconds), 1, "s", highest=True),),
        ),
        Result(
            "resident memory",
            median(resident_mb),
            "MB",
            Ratio.of(resident_mb, bare_mb),
            f"bare uvicorn, {median(bare_mb):.0f} MB",
            (Bar(median(resident_mb), 80, "MB", highest=True),),
            f"after {2 * REQUESTS} samples, a page and a batch of {BATCH:,}",
        ),
    ]


def use(running: server.Server, subject: Subject) -> None:
    """Send the page, fragments, JSON and a batch, as users would, so that what is made on first use is there."""
    targets = [f"/predict?{subject.query(row)}" for row in subject.rows[: 2 * REQUESTS]]
    requests: list[tuple[str, str, bytes | None, dict[str, str]]] = [("GET", "/", None, {})]
    requests += [("GET", target, None, {"HX-Request": "true"}) for target in targets[:REQUESTS]]
    requests += [("GET", target, None, {"Accept": "application/json"}) for target in targets[REQUESTS:]]
    batch = msgspec.json.encode({"samples": subject.rows[:BATCH]})
    requests.append(("POST", "/predict", batch, {"Content-Type": "application/json"}))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port)) as connection:
        for method, target, body, headers in requests:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RuntimeError(f"{method} {target}: {response.status}")
