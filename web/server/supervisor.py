"""Several server processes on one port: started, watched, replaced and stopped.

The processes are `python -m web` itself. They inherit the listening sockets and one end of a connection, on which the
event loop of a process that serves sends a byte every `BEAT_S`, and which is closed when the supervisor ends.
Nothing else passes between them: multiprocessing, which uvicorn has for this, would pickle.
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

# After a process that served for less than this, the next one starts later, with a longer delay each time.
STABLE_S = 10.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# The interval between signs of life of a process that serves.
BEAT_S = 1.0
# The time that a process may take to end, beyond its own bounds.
GRACE_S = 5.0

logger = logging.getLogger("web")


@dataclass(eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    link: socket.socket
    is_serving: bool = False
    has_beaten: bool = False

    def listen(self, ended: asyncio.Event) -> None:
        """Read signs of life from the link, or its end. To be called when the link is readable."""
        try:
            self.has_beaten = bool(self.link.recv(64))
        except BlockingIOError:
            return
        except OSError:
            self.has_beaten = False
        if not self.has_beaten:
            ended.set()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Supervisor:
    """Runs `settings.workers` processes of a command until a signal stops it.

    A process that ends is replaced: at once, or after growing delays if replacements end early as well. When the last
    process cannot even start, the supervisor ends. The first process starts alone, so that only one of them trains the
    built-in model, or logs an error.

    A process whose event loop has stood still for `settings.worker_timeout_s` is killed, and so replaced: it is
    stopped or hangs, and its clients wait.

    Args:
        command: the command of a process; `--worker` and file descriptors are added.
        listening: the sockets to serve on.
    """

    def __init__(self, settings: Settings, command: Sequence[str], listening: Sequence[socket.socket]) -> None:
        self._settings = settings
        self._command = command
        self._listening = listening
        self._address = address_of(listening)  # once closed, a socket has none
        self._starting = asyncio.Lock()
        self._workers: set[_Worker] = set()
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Run until a signal stops it; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            first = await self._start()
        except OSError as error:
            logger.error("no server process can be started: %s", error)
            return 1
        if not first.is_serving:
            await first.process.wait()
            return 0 if self._stopping.is_set() else first.process.returncode or 1
        logger.info("the page is at %s", self._address)
        await asyncio.gather(self._keep(first), *(self._keep(None) for _ in range(self._settings.workers - 1)))
        return self._status

    async def _keep(self, worker: _Worker | None) -> None:
        """Keep one process running."""
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                worker = worker or await self._start()
            except OSError as error:
                failures += 1
                await self._pause(f"no server process can be started: {error}", _delay_s(failures))
                continue
            status, _ = await asyncio.gather(worker.process.wait(), self._check(worker))
            self._workers.discard(worker)
            worker.link.close()
            if self._stopping.is_set():
                return
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            if not worker.is_serving and not self._workers:
                logger.error("process %d %s; no server process is left", worker.process.pid, how)
                self._status = 1
                self._stop(signal.SIGTERM)
                return
            has_served_long = worker.is_serving and time.monotonic() - started > STABLE_S
            failures = 1 if has_served_long else failures + 1
            is_first = failures == 1 and worker.is_serving
            await self._pause(f"process {worker.process.pid} {how}", 0.0 if is_first else _delay_s(failures))
            worker = None

    async def _pause(self, why: str, delay_s: float) -> None:
        logger.error("%s; the next one starts in %g s", why, delay_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _start(self) -> _Worker:
        """Return a new process that serves, or has failed to.

        Raises:
            OSError: none can be started, as without memory.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            descriptors = (theirs.fileno(), *(listening.fileno() for listening in self._listening))
            # A process that still imports would be ended by SIGHUP: it starts with the signal blocked.
            async with self._starting:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
                try:
                    process = await asyncio.create_subprocess_exec(
                        *self._command, "--worker", *map(str, descriptors), pass_fds=descriptors,
                        process_group=0,  # a Ctrl-C in the terminal is for the supervisor to pass on
                    )  # fmt: skip
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        worker = _Worker(process, ours)
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.signal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            worker.is_serving = bool(await asyncio.get_running_loop().sock_recv(ours, 1))
        if worker.is_serving:
            logger.info("process %d serves", process.pid)
        return worker

    async def _check(self, worker: _Worker) -> None:
        """Kill a process that serves and whose event loop stands still; return when it has ended or will."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(worker.link, worker.listen, ended)
        silent_s = 0.0
        # Beats that are missed are counted, not seconds: this process may have been stopped as well.
        while not ended.is_set() and silent_s <= self._settings.worker_timeout_s:
            worker.has_beaten = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), BEAT_S)
            silent_s = 0.0 if worker.has_beaten else silent_s + BEAT_S
        loop.remove_reader(worker.link)
        if not ended.is_set():
            pid, bound_s = worker.process.pid, self._settings.worker_timeout_s
            logger.error("process %d: its event loop has stood still for %g s; it is killed", pid, bound_s)
            worker.signal(signal.SIGKILL)

    def _reload(self) -> None:
        """Make the processes check the model file; those that are starting will read it anyway."""
        for worker in self._workers:
            if worker.is_serving:
                worker.signal(signal.SIGHUP)

    def _stop(self, number: int) -> None:
        """Pass every signal on; the processes handle a second one themselves."""
        if not self._stopping.is_set():
            self._stopping.set()
            # As long as any process has it open, clients can connect to it and would wait for an answer.
            for listening in self._listening:
                listening.close()
            bound_s = self._settings.drain_s + self._settings.shutdown_s + GRACE_S
            asyncio.get_running_loop().call_later(bound_s, self._signal_all, signal.SIGKILL)
        self._signal_all(number)

    def _signal_all(self, number: int) -> None:
        for worker in self._workers:
            worker.signal(number)


def address_of(listening: Sequence[socket.socket]) -> str:
    """Return the address at which a browser on this machine finds the page; the first socket has its host and port."""
    host, port = listening[0].getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # asked for, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _delay_s(failures: int) -> float:
    return float(min(FIRST_DELAY_S * 2 ** min(failures - 1, 10), LONGEST_DELAY_S))
