"""A Parquet file scored into another one, against pyarrow writing the same columns out of memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

import numpy as np
import pyarrow
from pyarrow import parquet

import ml

from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject, WrongAnswer

ROWS_A_SECOND = 5_000_000  # of the plan: ten million rows by default
# Not getrusage: what a new process counts begins with the memory of the one that started it.
COMMAND = """
import re, sys
from pathlib import Path
from ml.__main__ import main
status = main(sys.argv[1:])
print(re.findall(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[0])
sys.exit(status)
"""


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Score rows with one decimal, as those of Iris have, by the command with all that it costs to start."""
    n_rows = int(ROWS_A_SECOND * plan.seconds)
    source, sink = (subject.directory / f"{name}.parquet" for name in ("rows", "scored"))
    low, high = np.array([(feature.low, feature.high) for feature in subject.model.features]).T
    values = np.random.default_rng(0).uniform(low, high, (n_rows, len(low))).round(1).T
    table = pyarrow.table({feature.key: column for feature, column in zip(subject.model.features, values, strict=True)})
    parquet.write_table(table, source)
    command = [sys.executable, "-c", COMMAND, "score", *map(str, (subject.model_path, source, "--out", sink))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    peaks_mb: list[float] = []

    def scored() -> float:
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        peaks_mb.append(int(done.stdout) * 1024 / 1e6)
        return n_rows / (time.perf_counter() - start) / 1e6

    scored()  # compiles bytecode
    answers = parquet.read_table(sink)
    if not answers.equals(ml.BatchScorer(subject.model_path)(table)):
        raise WrongAnswer("ml score has written other columns than BatchScorer answers")

    def written() -> float:
        start = time.perf_counter()
        parquet.write_table(answers, subject.directory / "written.parquet")
        return n_rows / (time.perf_counter() - start) / 1e6

    ours, alone = interleave([scored, written], rounds=plan.rounds)
    ratio, size_mb = Ratio.of(ours, alone), answers.nbytes / 1e6
    return [
        Result(
            "Parquet to Parquet, ml score", median(ours), "million rows/s", ratio,
            f"pyarrow writing the same columns, {median(alone):.1f}", (Bar(ratio.median, 0.5),), f"{n_rows:,} rows",
        ),
        Result(
            "Parquet to Parquet, memory", max(peaks_mb), "MB", Ratio.of(peaks_mb, [size_mb] * len(peaks_mb)),
            f"the output in memory, {size_mb:.0f} MB", (Bar(max(peaks_mb), 300, "MB", highest=True),), "the process",
        ),
    ]  # fmt: skip
