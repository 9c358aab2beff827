"""python -m tests.benchmarks.cluster [ROWS [ROUNDS]]: ml score on Ray against the plain loop, of a wide forest.

Runs on one machine in an environment that has Ray, scikit-learn and pyarrow besides what `ml` needs. Files are
scored by the loop, by one worker and by two, in turns; then by two of which one is killed. All copies must have the
same bytes. What Ray costs is the difference between one worker and the loop, most of it once for each run: the time of
a run with one small file says how much.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow
from pyarrow import parquet
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

import ml

from .results import Bar

FILES, ROWS, FEATURES, TREES = 16, 60_000, 20, 300
ROUNDS = 3
NAMES = [f"x{number}" for number in range(FEATURES)]


def prepare(folder: Path, rows: int) -> str:
    """Write a model and files of rows; return what forest it is."""
    table, classes = make_classification(12_000, FEATURES, n_informative=10, flip_y=0.3, random_state=0)
    forest = RandomForestClassifier(TREES, random_state=0, n_jobs=2).fit(table, classes).set_params(n_jobs=None)
    ml.export(forest, table[:50], classes[:50], feature_names=NAMES, path=folder / "m.npz")
    rng = np.random.default_rng(0)
    for name, size in [*((f"rows/{number:02}", rows) for number in range(FILES)), ("small/one", 100)]:
        values = table[rng.integers(0, len(table), size)] + rng.normal(0, 0.1, (size, FEATURES))
        columns = dict(zip(NAMES, values.T, strict=True))
        path = folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.table(columns), path)
    leaves = sum(tree.get_n_leaves() for tree in forest.estimators_)
    return f"{TREES} trees, {leaves:,} leaves, {FILES} files of {rows:,} rows"


def seconds(folder: Path, source: str, out: str, *options: str, kills: bool = False) -> float:
    """Return how long a run takes that writes to a folder which is not there."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ml", "score", "m.npz", source, "--out", out, *options]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while kills and process.poll() is None:
            time.sleep(0.1)
            if (folder / out / "00.parquet").exists():
                workers = [one for one in psutil.Process(process.pid).children(recursive=True) if "ray::" in one.name()]
                victims = [one for one in workers if "MapWorker" in one.name()] or workers
                victims[0].kill()
                print(f"killed {victims[0].pid}, one of {len(victims)} workers")
                kills = False
        said = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise SystemExit(said)
    return time.perf_counter() - started


def rate(folder: Path, workers: int) -> float:
    """Return how many copies came a second once all workers had their first: without what Ray takes to start."""
    times = sorted(path.stat().st_mtime for path in folder.glob("*.parquet"))
    return (len(times) - workers) / (times[-1] - times[workers - 1])


def same(folder: Path, out: str) -> bool:
    """Tell whether all copies have the bytes of the plain loop's."""
    names = [path.name for path in (folder / "loop0").glob("*.parquet")]
    is_same = all((folder / out / name).read_bytes() == (folder / "loop0" / name).read_bytes() for name in names)
    return is_same and len(names) == FILES == len([*(folder / out).glob("*.parquet")])


def main() -> int:
    """Measure; return 1 if a copy differs or two workers are not fast enough."""
    rows, rounds = (*map(int, sys.argv[1:]), *(ROWS, ROUNDS)[len(sys.argv) - 1 :])
    ray, series = ("--engine", "ray", "--workers"), dict[str, list[float]]()
    ways = {"loop": (), "one": (*ray, "1"), "two": (*ray, "2")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(prepare(folder, rows), flush=True)
        seconds(folder, "small", "compiled")
        idle = seconds(folder, "small", "idle", *ray, "1") - seconds(folder, "small", "plain")
        for number in range(rounds):
            for way, options in ways.items():
                series.setdefault(way, []).append(seconds(folder, "rows", f"{way}{number}", *options))
                print(f"{way:5} {series[way][-1]:6.1f} s", flush=True)
        seconds(folder, "rows", "killed", *ray, "2", kills=True)
        is_same = all(same(folder, out) for out in ("one0", "two0", "killed"))
        rates = [rate(folder / f"two{n}", 2) / rate(folder / f"one{n}", 1) for n in range(rounds)]
    gain, whole = median(rates), median(one / two for one, two in zip(series["one"], series["two"], strict=True))
    cost = median(one / loop for one, loop in zip(series["one"], series["loop"], strict=True))
    bar = Bar(gain, 1.5)
    print(f"all copies have the bytes of the loop's, a worker killed or not: {'yes' if is_same else 'NO'}")
    print(f"two workers {gain:.2f} times as fast as one once they run, bar {bar}: {'yes' if bar.reached else 'NO'}")
    print(f"with what Ray takes to start, {whole:.2f} times")
    print(f"one worker takes {cost:.2f} times as long as the loop; Ray costs {idle:.1f} s a run of one small file")
    return 0 if is_same and bar.reached else 1


if __name__ == "__main__":
    sys.exit(main())
