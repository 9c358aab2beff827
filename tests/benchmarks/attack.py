"""How long a typing person waits beside an attack: a thousand slow clients, or one that sends without pause.

Slow clients hold connections: heads, bodies, answers (slowhttptest). They come within a second, in a process of their
own, send or read a byte a second as that tool does, and come again when they are cut. The one that sends without pause
sends what is much work for its size, reads its answers, and comes again at once:
python -m tests.benchmarks.attack KIND PORT [--attackers N].
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import uvloop

from . import server
from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject

ATTACKERS = 1_000
PEOPLE = 10
KEYS_A_SECOND = 20
BYTE_EVERY_S = 1.0
ARRIVE_S = 1.0
LARGE, PIPELINED = b"GET /static/htmx-2.min.js HTTP/1.1\r\nHost: x\r\n\r\n", 3
SPARE_FILES = 100
BAR_MS = 50.0

Attack = Callable[[int], Coroutine[object, object, None]]

BURST_BYTES = 262_144
HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
MASK = b"\0\0\0\0"
# What begins an attack, after a handshake that is answered, and what is then sent again and again.
FLOODS = {
    "continuations": (HANDSHAKE + b"\x01\x80" + MASK, b"\x00\x80" + MASK),
    "pings": (HANDSHAKE, b"\x89\x80" + MASK),
    "pongs": (HANDSHAKE, b"\x8a\x80" + MASK),
    "fragments": (HANDSHAKE + b"\x01\x81" + MASK + b" ", b"\x00\x81" + MASK + b" "),
    "empty messages": (HANDSHAKE, b"\x82\x80" + MASK),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "pipelined requests": (b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"),
    "broken requests": (b"", b"NONSENSE\r\n\r\n"),
    "trailers": (CHUNKED + b"1\r\n{\r\n0\r\n", b"a:b\r\n"),
}


@dataclass(frozen=True)
class Waits:
    """How long people waited for the answer to a key, in ms, and the memory of the server then, in 10^6 bytes."""

    p99_ms: float
    worst_ms: float
    memory_mb: float


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Let people type with and without each attack, one after the other in every round."""
    with server.service(subject) as service:
        queries = [subject.query(row) for row in subject.rows]
        typed(service, queries, seconds=0.2)  # what first requests cost is not asked here

        def waits(kind: str) -> Waits:
            with attacked(service.port, kind, ATTACKERS) if kind else contextlib.nullcontext():
                return typed(service, queries, seconds=plan.seconds)

        quiet, *rounds = interleave([partial(waits, kind) for kind in ("", *ATTACKS)], rounds=plan.rounds)
    return [_result(kind, attacked, quiet) for kind, attacked in zip(ATTACKS, rounds, strict=True)]


def _result(kind: str, waits: Sequence[Waits], quiet: Sequence[Waits]) -> Result:
    p99s, quiet_p99s = ([each.p99_ms for each in series] for series in (waits, quiet))
    return Result(
        f"{'one client of' if kind in FLOODS else f'{ATTACKERS:,} slow'} {kind}, p99 of a key",
        median(p99s),
        "ms",
        Ratio.of(p99s, quiet_p99s),
        f"the same without, {median(quiet_p99s):.1f} ms, worst {max(each.worst_ms for each in quiet):.1f} ms",
        (Bar(median(p99s), BAR_MS, "ms", highest=True),),
        f"worst {max(each.worst_ms for each in waits):.1f} ms; "
        f"{quiet[0].memory_mb:.0f} MB at first, {max(each.memory_mb for each in waits):.0f} MB at most",
    )


def typed(running: server.Server, queries: Sequence[str], *, seconds: float, people: int = PEOPLE) -> Waits:
    """Let people type for this long."""

    async def type_all() -> list[list[float]]:
        typing = [_type(running.port, queries[number::people], number, seconds=seconds) for number in range(people)]
        return await asyncio.gather(*typing)

    waits = sorted(wait for person in uvloop.run(type_all()) for wait in person)
    return Waits(waits[int(len(waits) * 0.99)], waits[-1], running.resident_mb())


@contextlib.contextmanager
def attacked(port: int, kind: str, attackers: int) -> Iterator[None]:
    """Have attackers come when the block begins, and leave when it ends."""
    command = [sys.executable, "-m", "tests.benchmarks.attack", kind, str(port), "--attackers", str(attackers)]
    with subprocess.Popen(command, cwd=server.ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # they are about to come
            yield
        finally:
            process.kill()


async def _type(port: int, queries: Sequence[str], number: int, *, seconds: float) -> list[float]:
    """Ask as the page does, at a person's own steady rate; return how long each answer took, in ms."""
    waits = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.perf_counter() + number / PEOPLE / KEYS_A_SECOND
    for sent in range(max(1, int(seconds * KEYS_A_SECOND))):
        await asyncio.sleep(max(0.0, start + sent / KEYS_A_SECOND - time.perf_counter()))
        begun = time.perf_counter()
        head = f"GET /predict?{queries[sent % len(queries)]} HTTP/1.1\r\nHost: x\r\nHX-Request: true\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a person was not answered: {answer[:40]!r}")
        length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        waits.append((time.perf_counter() - begun) * 1_000)
    writer.close()
    return waits


async def slow_heads(port: int) -> None:
    """Send a head that never ends."""
    await _drip(port, b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n")


async def slow_bodies(port: int) -> None:
    """Send a body that never ends."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    await _drip(port, head, b" ")


async def _drip(port: int, head: bytes, more: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head)
        while not reader.at_eof():
            writer.write(more)
            await asyncio.sleep(BYTE_EVERY_S)
    finally:
        writer.transport.abort()


async def slow_readers(port: int) -> None:
    """Ask for large answers again and again, and hardly read them."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, LARGE * PIPELINED)
        while await loop.sock_recv(connection, 1):  # noqa: ASYNC110  # a byte a second is the point
            await asyncio.sleep(BYTE_EVERY_S)


async def flood(kind: str, port: int) -> None:
    """Send as fast as it is taken, and read what comes, until the connection ends."""
    begin, again = FLOODS[kind]
    burst = again * (BURST_BYTES // len(again))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def read() -> None:
        while await reader.read(BURST_BYTES):  # it is thrown away
            pass
        writer.transport.abort()

    if begin.startswith(HANDSHAKE):
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
    reading = asyncio.create_task(read())
    try:
        writer.write(begin.removeprefix(HANDSHAKE))
        while not writer.is_closing():
            writer.write(burst)
            await writer.drain()
            await asyncio.sleep(0)
    finally:
        reading.cancel()
        writer.transport.abort()


ATTACKS: dict[str, Attack] = {
    "heads": slow_heads,
    "bodies": slow_bodies,
    "readers": slow_readers,
    **{kind: partial(flood, kind) for kind in FLOODS},
}


async def attack(kind: str, port: int, attackers: int) -> None:
    """Attack until cancelled."""

    async def come_again(number: int) -> None:
        await asyncio.sleep(number / attackers * ARRIVE_S)
        while True:
            with contextlib.suppress(OSError):
                await ATTACKS[kind](port)
            await asyncio.sleep(0 if kind in FLOODS else BYTE_EVERY_S)

    await asyncio.gather(*map(come_again, range(1 if kind in FLOODS else attackers)))


def main() -> None:
    """Attack as the command line says, until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.attack")
    parser.add_argument("kind", choices=ATTACKS)
    parser.add_argument("port", type=int)
    parser.add_argument("--attackers", type=int, default=ATTACKERS)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(options.attackers + SPARE_FILES, hard)), hard))
    print("attacking", flush=True)
    uvloop.run(attack(options.kind, options.port, options.attackers))


if __name__ == "__main__":
    main()
