"""What one client sends is parsed in turns: between two of them the event loop does a bounded amount of work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import ASGIApp

from tests.benchmarks import attack
from web.__main__ import uvicorn_options
from web.app import create_app
from web.server.transport import BYTES_A_TURN, MOST_PORTION_BYTES, PIECES_A_TURN, PacedTransport
from web.settings import Settings

# Enough for the system to have more to read than a turn may take.
FLOOD_BYTES = 2 * 2**20
FLOOD_TURNS = 200
# Of processor time, ten times and more what a turn takes; all that libuv reads at once would take up to seconds.
TURN_S = 0.1


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, create: Callable[[Settings], ASGIApp] = create_app, **more: Any
) -> AsyncIterator[int]:
    """Serve on a real socket in this very loop, with more options of uvicorn; yield the port."""
    options = uvicorn_options(settings) | {"port": 0} | more
    config = uvicorn.Config(partial(create, settings), factory=True, lifespan="on", log_config=None, **options)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@contextlib.contextmanager
def turns() -> Iterator[list[float]]:
    """Collect the processor time of this thread between every two turns of the running loop, in seconds."""
    loop = asyncio.get_running_loop()
    before = time.thread_time()
    collected: list[float] = []
    is_on = True

    def turn() -> None:
        nonlocal before
        now = time.thread_time()
        collected.append(now - before)
        before = now
        if is_on:
            loop.call_soon(turn)

    loop.call_soon(turn)
    try:
        yield collected
    finally:
        is_on = False


async def flood(port: int, kind: str) -> None:
    """Send as much as the system takes in every turn, and read what comes, until the connection is cut or enough."""
    loop = asyncio.get_running_loop()
    begin, again = attack.FLOODS[kind]
    with contextlib.suppress(ConnectionError), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FLOOD_BYTES)
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        if begin.startswith(attack.HANDSHAKE):
            await loop.sock_sendall(connection, attack.HANDSHAKE)
            assert (await loop.sock_recv(connection, 65_536)).startswith(b"HTTP/1.1 101 ")
        left = memoryview(begin.removeprefix(attack.HANDSHAKE) + again * (FLOOD_BYTES // len(again)))
        for _ in range(FLOOD_TURNS):
            with contextlib.suppress(BlockingIOError):
                while left:
                    left = left[connection.send(left) :]
            with contextlib.suppress(BlockingIOError):
                connection.recv(FLOOD_BYTES)
            await asyncio.sleep(0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", attack.FLOODS)
def test_others_have_a_turn_while_one_client_floods(model_path: Path, kind: str) -> None:
    async def flooded() -> list[float]:
        async with serving(Settings(model_file=model_path)) as port:
            with turns() as collected:
                await flood(port, kind)
        return collected

    longest_s = max(uvloop.run(flooded()))

    assert longest_s < TURN_S


class Portions(asyncio.Protocol):
    """A parser that counts what it is given in each turn of the loop, and says how many pieces that was."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.turn = 0
        self.sizes: list[tuple[int, int]] = []  # the turn, and the size of a portion
        self.done = asyncio.Event()

    def is_ready(self) -> bool:
        return True

    def end_of_portion(self, held: bytes, place: int) -> int:
        return min(place + MOST_PORTION_BYTES, len(held))

    def feed(self, portion: bytes) -> int:
        self.sizes.append((self.turn, len(portion)))
        return self.pieces

    def caught_up(self) -> None:
        self.done.set()


@pytest.mark.parametrize(
    ("pieces", "most_bytes"), [(0, BYTES_A_TURN + MOST_PORTION_BYTES), (PIECES_A_TURN + 1, MOST_PORTION_BYTES)]
)
def test_what_was_read_is_parsed_in_turns_of_bounded_bytes_and_pieces(pieces: int, most_bytes: int) -> None:
    content = b"x" * 256_000  # as much as one read brings

    async def parsed() -> Portions:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            transport, parser = await loop.create_connection(lambda: Portions(pieces), sock=ours)
            paced = PacedTransport(transport, loop, parser)
            paced.hold(content)
            while not parser.done.is_set():
                parser.turn += 1
                await asyncio.sleep(0)
            paced.close()
        return parser

    sizes = asyncio.run(parsed()).sizes

    assert sum(size for _, size in sizes) == len(content)
    of_turns = Counter[int]()
    for turn, size in sizes:
        of_turns[turn] += size
    assert max(of_turns.values()) <= most_bytes
