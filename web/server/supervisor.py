"""Several server processes on one port: started, watched, replaced and stopped.

The processes are `python -m web` itself. They inherit the listening socket and one end of a connection, on which a
process says that it serves, and whose end tells it that the supervisor is gone. Nothing else passes between them:
multiprocessing, which uvicorn has for this, would pickle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from web.settings import Settings

# A process that served for less than this has not mended anything: the next one waits, longer each time.
STABLE_S = 10.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# What a process may take beyond its own bounds to end.
GRACE_S = 5.0

logger = logging.getLogger("web")


@dataclass(eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    link: socket.socket
    is_serving: bool = False

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Supervisor:
    """Runs `settings.workers` processes of a command until it is told to stop.

    A process that ends is replaced: at once, or after longer and longer when that does not help. When the last one
    cannot even start, there is nothing left to wait for, and the supervisor ends. The first process starts alone, so
    that only one of them trains the built-in model, or says what is wrong.

    Args:
        command: what to run; `--worker` and two file descriptors are added.
    """

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self._settings = settings
        self._command = command
        self._workers: set[_Worker] = set()
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Run until told to stop; return the exit status.

        Raises:
            OSError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        self._socket = listening_socket(self._settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._tell, signal.SIGHUP)
        first = await self._start()
        if not first.is_serving:
            await first.process.wait()
            return 0 if self._stopping.is_set() else first.process.returncode or 1
        await asyncio.gather(self._keep(first), *(self._keep(None) for _ in range(self._settings.workers - 1)))
        return self._status

    async def _keep(self, worker: _Worker | None) -> None:
        """Keep one process running."""
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            worker = worker or await self._start()
            status = await worker.process.wait()
            self._workers.discard(worker)
            worker.link.close()
            if self._stopping.is_set():
                return
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            if not worker.is_serving and not self._workers:
                logger.error("process %d %s, and there is no other one", worker.process.pid, how)
                self._status = 1
                self._stop(signal.SIGTERM)
                return
            has_served_long = worker.is_serving and time.monotonic() - started > STABLE_S
            failures = 1 if has_served_long else failures + 1
            is_first = failures == 1 and worker.is_serving
            delay_s = 0.0 if is_first else min(FIRST_DELAY_S * 2 ** min(failures - 1, 10), LONGEST_DELAY_S)
            logger.error("process %d %s; the next one starts in %g s", worker.process.pid, how, delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            worker = None

    async def _start(self) -> _Worker:
        """Return a new process that serves, or has failed to."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            descriptors = (self._socket.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *self._command, "--worker", *map(str, descriptors), pass_fds=descriptors,
                process_group=0,  # a Ctrl-C in the terminal is for the supervisor to pass on
            )  # fmt: skip
        worker = _Worker(process, ours)
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.signal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            worker.is_serving = bool(await asyncio.get_running_loop().sock_recv(ours, 1))
        if worker.is_serving:
            logger.info("process %d serves", process.pid)
        return worker

    def _stop(self, number: int) -> None:
        """Pass the signal on, every time; the processes know what to make of a second one."""
        if not self._stopping.is_set():
            self._stopping.set()
            # While anybody has it open, clients can connect to it, though nobody would answer.
            self._socket.close()
            bound_s = self._settings.drain_s + self._settings.shutdown_s + GRACE_S
            asyncio.get_running_loop().call_later(bound_s, self._tell, signal.SIGKILL)
        self._tell(number)

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            worker.signal(number)


def listening_socket(settings: Settings) -> socket.socket:
    """Return a socket on the address of the settings; it is the servers that begin to listen.

    Raises:
        OSError: the address is in use, or not one of this machine.
    """
    ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening
