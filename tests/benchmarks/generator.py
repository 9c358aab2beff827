"""A load generator in a process of its own, for websockets, and for HTTP where wrk is not installed.

It sends messages that were prepared beforehand and looks only at what it needs in order to count the replies and to
tell answers from errors. Measured against the bare server on two cores: a request costs it 12 us of processor time, as
much as it costs wrk, and the ratios of either lie within the spread of the other; a small message on the stream costs
it 6 us. The servers are saturated before it is.

python -m tests.benchmarks.generator http|stream PORT FILE [options] prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import msgspec
import uvloop

TEXT, BINARY = 0x81, 0x82  # the first byte of a whole frame (RFC 6455, section 5.2)
SHORT, LONG = 126, 127  # a payload's length follows in 2 or 8 bytes


class Report(msgspec.Struct, frozen=True):
    """What a load tool did: replies counted, errors among them, and the processor time that the tool took."""

    replies: int
    errors: int
    seconds: float
    cpu_s: float


class Client(asyncio.Protocol):
    """One connection: keeps `window` messages in flight and counts the replies.

    Subclasses say in `_count` how many replies a piece of the input ends.
    """

    def __init__(self, messages: Iterator[bytes], *, window: int, expected: bytes) -> None:
        self.replies = 0
        self.errors = 0
        self.lost = False
        self._messages = messages
        self._window = window
        self._expected = expected
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._send(self._window)

    def data_received(self, data: bytes) -> None:
        replies = self._count(self._unread + data if self._unread else data)
        self.replies += replies
        self._send(replies)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def _send(self, n: int) -> None:
        if n:
            self.transport.write(b"".join(islice(self._messages, n)))

    def _count(self, data: bytes) -> int:
        raise NotImplementedError


class HttpClient(Client):
    """One request in flight at a time, without pipelining: whatever arrives is the reply to it."""

    def _count(self, data: bytes) -> int:
        head = data.find(b"\r\n\r\n") + 4
        start = data.find(b"content-length: ") + 16
        if head < 4 or start < 16 or len(data) < head + int(data[start : data.index(b"\r", start)]):
            self._unread = data
            return 0
        self._unread = b""
        self.errors += not data.startswith(self._expected)
        return 1


class StreamClient(Client):
    """Websocket messages, of which only the frame headers and the beginnings are looked at."""

    def __init__(
        self, messages: Iterator[bytes], *, window: int, expected: bytes, path: str, first_byte: int, greetings: int
    ) -> None:
        super().__init__(messages, window=window, expected=expected)
        self._path = path
        self._first_byte = first_byte
        self._greetings = greetings
        self._open = False
        self._skipped = 0  # bytes of the last frame that are still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def _count(self, data: bytes) -> int:
        position = 0
        if not self._open:
            position = data.find(b"\r\n\r\n") + 4
            if position < 4:
                self._unread = data
                return 0
            if not data.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(f"the handshake was refused: {data[:200]!r}")
            self._open = True
            self._send(self._window)
        return self._count_frames(data, position)

    def _count_frames(self, data: bytes, position: int) -> int:
        end, replies = len(data), 0
        position += self._skipped
        while position + 2 <= end:
            size, payload = data[position + 1], position + 2
            if size == SHORT:
                payload += 2
                size = int.from_bytes(data[position + 2 : payload])
            elif size == LONG:
                payload += 8
                size = int.from_bytes(data[position + 2 : payload])
            if payload + len(self._expected) > end:
                break
            if self._greetings:
                self._greetings -= 1
            else:
                replies += 1
                if data[position] != self._first_byte or not data.startswith(self._expected, payload):
                    self.errors += 1
            position = payload + size
        self._skipped = max(position - end, 0)
        self._unread = data[position:]
        return replies


def save(messages: Iterable[bytes], path: Path) -> None:
    """Write messages to a file, each after its length in decimal and a line break: easily read in Python and Lua."""
    with path.open("wb") as file:
        for message in messages:
            file.write(b"%d\n%b" % (len(message), message))


def load(path: Path) -> list[bytes]:
    """Return the messages of a file."""
    with path.open("rb") as file:
        return [file.read(int(size)) for size in iter(file.readline, b"")]


def frame(payload: bytes, *, first_byte: int, mask: bytes) -> bytes:
    """Return a client's frame, masked with the four bytes of `mask` (RFC 6455, section 5.3)."""
    size = len(payload)
    if size < SHORT:
        length = bytes([0x80 | size])
    elif size < 2**16:
        length = bytes([0x80 | SHORT]) + size.to_bytes(2)
    else:
        length = bytes([0x80 | LONG]) + size.to_bytes(8)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    masked = (int.from_bytes(payload) ^ key).to_bytes(size)
    return bytes([first_byte]) + length + mask + masked


async def run(options: argparse.Namespace) -> Report:
    """Send messages for `options.seconds` and report.

    Raises:
        ConnectionError: the server closed a connection.
    """
    messages = load(options.file)
    loop = asyncio.get_running_loop()
    clients = []
    started, cpu_started = time.perf_counter(), time.process_time()
    for number in range(options.connections):
        factory = partial(client_of, options, messages, number)
        clients.append((await loop.create_connection(factory, "127.0.0.1", options.port))[1])
    await asyncio.sleep(options.seconds)
    report = Report(
        replies=sum(client.replies for client in clients),
        errors=sum(client.errors for client in clients),
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu_started,
    )
    if any(client.lost for client in clients):
        raise ConnectionError("the server closed a connection")
    for client in clients:
        client.transport.abort()
    return report


def client_of(options: argparse.Namespace, messages: list[bytes], number: int) -> Client:
    """Return one of the clients: each goes around the messages from a place of its own."""
    start = number * len(messages) // options.connections
    mine = cycle(messages[start:] + messages[:start])
    expected = options.expected.encode()
    if options.kind == "http":
        return HttpClient(mine, window=1, expected=expected)
    return StreamClient(
        mine,
        window=options.window,
        expected=expected,
        path=options.path,
        first_byte=BINARY if options.binary else TEXT,
        greetings=options.greetings,
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.generator")
    parser.add_argument("kind", choices=("http", "stream"))
    parser.add_argument("port", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--expected", required=True, help="what every reply begins with")
    parser.add_argument("--window", type=int, default=1, help="messages in flight on a connection of the stream")
    parser.add_argument("--path", default="/")
    parser.add_argument("--greetings", type=int, default=0, help="frames that the server sends unasked at first")
    parser.add_argument("--binary", action="store_true")
    print(msgspec.json.encode(uvloop.run(run(parser.parse_args()))).decode())


if __name__ == "__main__":
    main()
