"""Many streams at once: the memory of idle ones, and how long single samples wait when a hundred clients send."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from statistics import median

from websockets.asyncio.client import ClientConnection, connect

from . import server
from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject

IDLE = 1_000
CLIENTS = 100
SAMPLES_A_SECOND = 50


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Open the same connections to the service and to the bare echo; the clients share this process."""
    with server.service(subject) as service, server.bare() as bare:
        idle_kb = [idle_connections_kb(running, announces=running is service) for running in (service, bare)]
        frames = [json.dumps({"sample": row}) for row in subject.rows[: CLIENTS * SAMPLES_A_SECOND]]

        def waits(running: server.Server) -> float:
            return asyncio.run(p99_ms(running, frames, seconds=plan.seconds, announces=running is service))

        p99, bare_p99 = interleave([lambda: waits(service), lambda: waits(bare)], rounds=plan.rounds)
    return [
        Result(
            f"{IDLE:,} idle streams, memory of each",
            idle_kb[0],
            "kB",
            Ratio.of(idle_kb[:1], idle_kb[1:]),
            f"echo, {idle_kb[1]:.1f} kB",
            (Bar(idle_kb[0], 40, "kB", highest=True),),
        ),
        Result(
            f"{CLIENTS} clients at {SAMPLES_A_SECOND} samples/s, p99 of a reply",
            median(p99),
            "ms",
            Ratio.of(p99, bare_p99),
            f"echo, {median(bare_p99):.1f} ms",
            (Bar(median(p99), 20, "ms", highest=True),),
            "the clients' own process included",
        ),
    ]


def idle_connections_kb(running: server.Server, *, announces: bool) -> float:
    """Return how much the resident memory grows by one idle connection, in 10^3 bytes."""

    async def grown() -> float:
        connections = [await opened(running, announces=announces) for _ in range(10)]  # what the first ones cost
        before = running.resident_mb()
        connections += [await opened(running, announces=announces) for _ in range(IDLE)]
        after = running.resident_mb()
        for connection in connections:
            connection.transport.abort()
        return (after - before) * 1_000 / IDLE

    return asyncio.run(grown())


async def opened(running: server.Server, *, announces: bool) -> ClientConnection:
    """Return an open stream, its announcement taken."""
    connection = await connect(f"ws://127.0.0.1:{running.port}/stream", compression=None)
    if announces:
        await connection.recv()
    return connection


async def p99_ms(running: server.Server, frames: list[str], *, seconds: float, announces: bool) -> float:
    """Return the time that 99 of 100 replies take at most when every client sends at its own steady rate, in ms."""
    waits: list[float] = []
    connections = [await opened(running, announces=announces) for _ in range(CLIENTS)]

    async def send(number: int, connection: ClientConnection) -> None:
        own = itertools.cycle(frames[number::CLIENTS])
        start = time.perf_counter() + number / CLIENTS / SAMPLES_A_SECOND
        for sent in range(max(1, int(seconds * SAMPLES_A_SECOND))):
            await asyncio.sleep(max(0.0, start + sent / SAMPLES_A_SECOND - time.perf_counter()))
            begun = time.perf_counter()
            await connection.send(next(own))
            if '"error"' in str(await connection.recv()):
                raise RuntimeError("an error is no answer")
            waits.append((time.perf_counter() - begun) * 1_000)

    await asyncio.gather(*(send(number, connection) for number, connection in enumerate(connections)))
    for connection in connections:
        connection.transport.abort()
    return sorted(waits)[int(len(waits) * 0.99)]
