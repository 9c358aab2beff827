"""What a process may take that reads a stranger's file, by the size that the file may have unpacked."""

from __future__ import annotations

import contextlib
import os
import resource


def cpu_s_of(size: int) -> int:
    """Return the seconds of processor time that a file of so many bytes may take: five times what most of them take."""
    return 10 + size // 2**21


def memory_bytes_of(size: int) -> int:
    """Return the bytes of memory that reading a table of so many bytes may take."""
    return 2**26 + 4 * size


def bound(memory_bytes: int, cpu_s: int, niceness: int, max_sink_bytes: int | None) -> None:
    """Bound what this process may take from now on, memory beyond that which it has; and each file that it writes."""
    if max_sink_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_sink_bytes,) * 2)
    with contextlib.suppress(PermissionError):  # a service that is confined may change no priority
        os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    try:
        with open("/proc/self/statm") as statistics:
            taken = int(statistics.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # another system than Linux; time is bounded all the same
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes,) * 2)
