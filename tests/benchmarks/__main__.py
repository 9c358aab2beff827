"""python -m tests.benchmarks: measure the service and print a table of ratios and bars."""

from __future__ import annotations

import argparse
import shutil
import sys

from . import (
    attack,
    batches,
    connections,
    endpoints,
    forests,
    in_process,
    load,
    parquet,
    replace,
    soak,
    start,
    stream,
    subject,
    typing_latency,
    wide,
)
from .results import table
from .subject import Plan

PARTS = {
    "in-process": in_process,
    "wide": wide,
    "forests": forests,
    "http": endpoints,
    "stream": stream,
    "connections": connections,
    "attack": attack,
    "batches": batches,
    "replace": replace,
    "parquet": parquet,
    "start": start,
    "soak": soak,
} | ({"typing": typing_latency} if shutil.which("chromium") else {})
LONGEST_S = 10.0  # a stream is pinged after 20 s, and the load generator does not answer


def main() -> int:
    """Run the parts that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, of which the median counts (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help=f"of one measurement, at most {LONGEST_S:g} (2)")
    parser.add_argument("--tool", choices=load.TOOLS, default=load.default_tool(), help="for HTTP (wrk if installed)")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long the soak lasts at least (0)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed")
    options = parser.parse_args()
    if options.rounds < 1 or not 0 < options.seconds <= LONGEST_S:
        parser.error(f"at least one round, of more than 0 and at most {LONGEST_S:g} seconds")

    plan = Plan(options.rounds, options.seconds, options.tool, options.minutes)
    results = []
    with subject.prepared() as prepared:
        for name in options.only or PARTS:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            results += PARTS[name].measure(prepared, plan)
    print(table(results))
    missed = [result.what for result in results if not result.reached]
    print(f"\nmissed: {', '.join(missed)}" if missed else "\nall bars reached")
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
