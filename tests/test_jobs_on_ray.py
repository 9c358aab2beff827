"""Jobs on Ray, for real, where it is installed: the copies of the local run, whatever happens to a worker."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow
import pytest
from pyarrow import parquet

from ml.jobs.record import NAME
from tests.conftest import ROOT
from tests.test_jobs import copies_in, score
from tests.test_score import GOOD, HEADER
from tests.test_score_parquet import table_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
N_FILES = 12


@pytest.fixture
def folder(contents: list[bytes], tmp_path: Path) -> Path:
    """Return a folder with a model and many files of rows, each of which has one row without an answer."""
    (tmp_path / "m.npz").write_bytes(contents[0])
    (tmp_path / "rows/deep").mkdir(parents=True)
    table = table_of(50_000)
    lacks = pyarrow.array([None, *table["sepal_length"].to_pylist()[1:]])
    parquet.write_table(table.set_column(1, "sepal_length", lacks), tmp_path / "rows/deep/last.parquet")
    for number in range(N_FILES):
        rows = [GOOD] * 50_000
        rows[number] = "?,1,1,1"
        (tmp_path / "rows" / f"{number:02}.csv").write_text("\n".join([HEADER, *rows]))
    return tmp_path


def on_ray(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ml", "score", "m.npz", "rows", "--engine", "ray", "--workers", "2", *arguments],
        cwd=folder, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("ray::MapWorker" in word for word in child.cmdline())]


@pytest.mark.parametrize("kills", [False, True], ids=["all live", "a worker is killed"])
def test_the_copies_are_those_of_the_local_run(folder: Path, *, kills: bool) -> None:
    expected = score(folder, "rows", "--out", "local/")

    with on_ray(folder, "--out", "out/") as process:
        assert process.stderr is not None
        # Ray's own have brackets.
        own = (line.rstrip() for line in process.stderr if not line.startswith("["))
        lines = [next(own)]  # of the first copy
        if kills:
            worker, _ = workers_of(process)
            worker.kill()
            psutil.wait_procs([worker], timeout=20)
        lines += own

    assert process.returncode == 0
    assert sorted(lines) == sorted(expected)
    assert copies_in(folder) == [f"{n:02}.csv" for n in range(N_FILES)] + ["deep/last.parquet"]
    for name in copies_in(folder):
        assert (folder / "out" / name).read_bytes() == (folder / "local" / name).read_bytes()
    assert (folder / "out" / NAME).read_bytes().count(b"\n") == N_FILES + 1
    assert score(folder, "rows", "--out", "out") == ["13 of 13 files were scored before, and their copies are kept"]
