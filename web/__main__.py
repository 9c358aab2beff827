"""python -m web: run the service with uvicorn and this service's settings."""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # Until the server listens to it: by default it would end the process. A supervisor starts others with it blocked.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    # Until main answers it: else Ctrl-C shows a traceback of the imports. Who starts this may have it ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import contextlib
import ctypes
import errno
import fcntl
import logging.config
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ml.cli.console import RELEASE, complain, open_standard_streams
from web import logs
from web.settings import Settings, SettingsError, help_lines

# A connection is a file, and may be reading another one; as many again as are served may be about to be refused.
FILES_A_CONNECTION = 3
SPARE_FILES = 100
# The number of this option in malloc.h, and from how many bytes on a block is large.
M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 262_144
# The file in a folder of shared metrics that is locked for as long as its service runs.
LOCK_NAME = "supervisor.lock"

logger = logging.getLogger("web")


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return how uvicorn serves: event loop, protocols and limits."""
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop",
        "http": "web.server.http:HttpProtocol",
        "ws": "web.server.websocket:StreamProtocol",
        "access_log": False,  # its lines would hold what people typed
        "server_header": False,
        "proxy_headers": False,  # uvicorn would believe whoever is on this machine; see web/middleware/forwarded.py
        "timeout_keep_alive": settings.keep_alive_s,
        "ws_max_size": settings.max_frame_bytes,
        "ws_ping_interval": settings.ping_interval_s,
        "ws_ping_timeout": settings.ping_interval_s,
        "ws_per_message_deflate": False,  # costs more than it saves on small frames
    }


def main() -> int:
    """Serve until a signal stops the service; return the exit status."""
    open_standard_streams()
    example = "example: MODEL_FILE=model.npz PORT=8080 python -m web"
    epilog = "\n".join([example, "", "settings are environment variables:", *help_lines()])
    parser = argparse.ArgumentParser(
        prog="python -m web", description="Serve a model.", epilog=epilog, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {RELEASE}")
    # From a supervisor to its processes: the connection to itself, and the listening sockets.
    parser.add_argument("--worker", type=int, nargs="+", help=argparse.SUPPRESS)
    # And the folder in which they share their metrics.
    parser.add_argument("--metrics-folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    descriptors: list[int] | None = arguments.worker
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        complain(f"error: {error}")
        return 2
    try:
        if descriptors is not None:
            link, *listening = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            return serve(settings, listening, link, arguments.metrics_folder)
        try:
            listening = listening_sockets(settings)
        except OSError as error:
            way_out = "; set PORT to another one" if error.errno == errno.EADDRINUSE else ""
            complain(f"error: {settings.host}:{settings.port}: {(error.strerror or str(error)).lower()}{way_out}")
            return 1
        return supervise(settings, listening) if settings.workers > 1 else serve(settings, listening)
    except KeyboardInterrupt:
        return 130  # during the start; the convention of shells: 128 and the number of the signal


def listening_sockets(settings: Settings) -> list[socket.socket]:
    """Return sockets on each address of the host in the settings; it is the servers that begin to listen.

    Raises:
        OSError: the address is in use, or not one of this machine.
    """
    addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound, absent = [], OSError(errno.EADDRNOTAVAIL, "no such address")
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        try:
            bound.append(_bound(socket.socket(family, kind, protocol), address))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            absent = error  # as that of localhost in IPv6 is on many machines
    if not bound:
        raise absent
    return bound


def _bound(listening: socket.socket, address: Any) -> socket.socket:
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # else it takes the addresses of both
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


def supervise(settings: Settings, listening: Sequence[socket.socket]) -> int:
    """Run several processes that serve; return the exit status."""
    from web.server.supervisor import Supervisor

    logging.config.dictConfig(logs.configuration(settings.log_format))
    with metrics_folder() as options:
        command = [sys.executable, "-m", "web", *options]
        return asyncio.run(Supervisor(settings, command, listening).run())


@contextlib.contextmanager
def metrics_folder() -> Iterator[list[str]]:
    """Make the folder in which processes share their metrics; yield the options for them, none without a folder.

    The folders of killed services are removed.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = tempfile.mkdtemp(prefix="metrics-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            # The system gives the lock back when this process ends, however it does.
            lock = stack.enter_context(Path(folder, LOCK_NAME).open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            logger.warning("no folder for shared metrics, each process reports its own: %s", error)
            yield []
            return
        _remove_left_folders(Path(folder).parent)
        yield ["--metrics-folder", folder]


def _remove_left_folders(parent: Path) -> None:
    """Remove the folders of this user's services that have ended without removing them."""
    for path in parent.glob(f"metrics-*/{LOCK_NAME}"):
        with contextlib.suppress(OSError):
            if path.parent.lstat().st_uid == path.lstat().st_uid == os.geteuid():
                # Of a service that is just starting nothing is lost: its processes make a missing folder again.
                with path.open("rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path.parent)


def allow_files(number: int) -> None:
    """Raise the number of files that this process may open, connections included, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def give_memory_back() -> None:
    """Let the C library give large blocks back at once, where it is GNU's.

    Left alone it keeps what was needed for a moment while a model was loaded: 10 MB from the start, 40 after 50 models.
    """
    with contextlib.suppress(AttributeError):  # another C library has no such option, or needs none
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def serve(
    settings: Settings,
    listening: list[socket.socket],
    supervisor: socket.socket | None = None,
    folder: Path | None = None,
) -> int:
    """Serve in this process, which shares what it counts in a folder; return the exit status."""
    import uvicorn

    from web.app import create_app
    from web.server.server import Server

    give_memory_back()
    allow_files(FILES_A_CONNECTION * settings.max_connections + SPARE_FILES)
    config = uvicorn.Config(
        partial(create_app, settings, metrics_folder=folder),
        factory=True,
        lifespan="on",
        log_config=logs.configuration(settings.log_format),
        **uvicorn_options(settings),
    )
    parent = os.getppid()
    Server(config, settings, supervisor).run(listening)
    if folder and os.getppid() != parent:  # a killed supervisor cannot remove it
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
