"""Jobs on Ray, for real, where it is installed: the copies of the local run, whatever happens to a worker."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow
import pytest
from pyarrow import parquet

from ml.jobs.record import NAME
from tests.conftest import ROOT, free_port
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


def on_ray(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    names = {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "ml", "score", "m.npz", "rows", "--engine", "ray", "--workers", "2", *arguments],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, **names, **variables},
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


@pytest.fixture
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the address of a cluster of this machine, and the variables by which one may join it."""
    address, token = f"127.0.0.1:{free_port()}", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--include-dashboard=false"]
    command += ["--node-ip-address=127.0.0.1", f"--port={address.partition(':')[2]}", "--num-cpus=2"]
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(
        [*command, f"--temp-dir={folder}", f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **token},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any("Ray runtime started" in line for line in process.stdout)
        yield address, token
        process.terminate()
        process.communicate()


def test_a_cluster_is_joined_by_its_address(
    contents: list[bytes], tmp_path: Path, cluster: tuple[str, dict[str, str]]
) -> None:
    (tmp_path / "m.npz").write_bytes(contents[0])
    (tmp_path / "rows").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "rows" / name).write_text(f"{HEADER}\n{GOOD}\n?,1,1,1\n")
    expected = score(tmp_path, "rows", "--out", "local/")
    address, token = cluster

    with on_ray(tmp_path, "--out", "out/", "--address", address, **token) as process:
        lines = process.communicate()[1].splitlines()

    assert sorted(line for line in lines if not line.startswith("[")) == sorted(expected)
    for name in ("a.csv", "b.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


@pytest.mark.parametrize("listens", [False, True], ids=["nothing listens", "nothing is answered"])
def test_an_address_without_a_cluster_is_refused(contents: list[bytes], tmp_path: Path, *, listens: bool) -> None:
    (tmp_path / "m.npz").write_bytes(contents[0])
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/a.csv").write_text(f"{HEADER}\n{GOOD}\n")
    with socket.socket() as silent:
        # Ray takes 127.0.0.1 for another address of this machine.
        silent.bind(("127.0.0.2", 0))
        if listens:
            silent.listen(0)
        address = f"127.0.0.2:{silent.getsockname()[1]}"

        with on_ray(tmp_path, "--out", "out/", "--address", address, RAY_py_gcs_connect_timeout_s="1") as process:
            said = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert f"error: no Ray cluster at {address}: Failed to connect" in said.splitlines()[-1]
    assert copies_in(tmp_path) == []
