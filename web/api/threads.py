"""The threads of this process, in which it computes what takes long: large batches, files, explanations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

# With more of them the event loop would wait longer for the interpreter's lock (see `web.app.SWITCH_S`).
MOST_THREADS = 4
# Long work is done in pieces that take about this long: between two of them other clients have their turn, and the work
# for a client that has left ends.
PIECE_S = 0.016

Result = TypeVar("Result")


@cache
def threads() -> ThreadPoolExecutor:
    """Return the threads; what waits for one is in one queue."""
    return ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS), "batch")


async def in_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """Return what a function returns, called beside the event loop when a thread is free.

    Who is cancelled meanwhile leaves the queue; a call that has begun goes on to its end, so it takes milliseconds.
    """
    return await asyncio.get_running_loop().run_in_executor(threads(), function, *arguments)
