"""The systemd unit of web/deploy.md: what systemd makes of it, and the service under its limits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import ml
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.training import fitting, iris
from tests.conftest import ROOT, START_TIMEOUT_S, Server, assert_quiet, free_port, put, running, written
from tests.tables import guarded
from tests.test_docs import DOCS, blocks
from tests.test_web_parquet import content_of
from tests.test_workbook import workbook
from web.scoring.uploaded_file import EXCEL, PARQUET
from web.server import supervisor
from web.settings import Settings

ANALYZE = shutil.which("systemd-analyze")
IN_CI = os.environ.get("CI") == "true"
TIMEOUT_S = 30.0
JSON = b"application/json"
SAMPLE = {"sepal_length": 5.6, "sepal_width": 2.7, "petal_length": 4.2, "petal_width": 1.3}


@pytest.mark.skipif(ANALYZE is None and not IN_CI, reason="systemd is not installed")
def test_the_systemd_unit_is_understood_and_leaves_little_exposed(tmp_path: Path) -> None:
    assert ANALYZE, "CI=true, but systemd is not installed"
    (unit,) = blocks("ini")
    path = tmp_path / "predictions.service"
    path.write_text(unit.replace("/opt/predictions", str(ROOT)))

    verified = subprocess.run([ANALYZE, "verify", "--man=no", path], capture_output=True, text=True, check=False)
    judged = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=20", "--no-pager", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert [line for line in (verified.stdout + verified.stderr).splitlines() if path.name in line] == []
    assert judged.returncode == 0, judged.stdout


def test_the_systemd_unit_waits_for_a_stop_longer_than_the_service_takes() -> None:
    (unit,) = blocks("ini")
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))

    assert settings["KillSignal"] == "SIGTERM"
    service = Settings()
    assert int(settings["TimeoutStopSec"]) > service.drain_s + service.shutdown_s + supervisor.GRACE_S
    assert shlex.split(settings["ExecStart"])[1:] == ["-m", "web"]


# --- under its limits


@pytest.fixture
def unit() -> str:
    """The unit's text, where its limits can be set."""
    unshare = [shutil.which("unshare") or "false", "--mount", "true"]
    if ANALYZE is None and not IN_CI:
        pytest.skip("systemd is not installed")
    # Nothing that can be installed lets a container mount.
    if subprocess.run(unshare, capture_output=True, check=False).returncode:
        pytest.skip("only root can set the unit's limits, and not in most containers")
    (unit,) = blocks("ini")
    return unit


@pytest.fixture(scope="module")
def large_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the features of the built-in one, but too large for a decision table: it has learned noise."""
    dataset, chance = iris.load_dataset(), np.random.default_rng(0)
    rows = dataset.rows + chance.uniform(0, 0.1, dataset.rows.shape)
    noise = replace(dataset, rows=rows, outcomes=chance.permutation(dataset.outcomes))
    return written(fitting.fit(noise, Recipe(n_estimators=15)), tmp_path_factory.mktemp("large") / "iris.npz")


@contextlib.contextmanager
def run_unit(unit: str, folder: Path) -> Iterator[Server]:
    """Run the service of a unit under its limits; what it keeps and its log are in a folder."""
    port, log, path = free_port(), folder / "log.txt", folder / "predictions.service"
    own = {"/opt/predictions/.venv/bin/python": sys.executable, "/opt/predictions": str(ROOT), "=8000": f"={port}"}
    for text, replacement in own.items():
        assert unit.count(text) == 1, text
        unit = unit.replace(text, replacement)
    path.write_text(unit)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.systemd_unit", path, folder], cwd=ROOT, stdout=output, stderr=output
        )
    with running(Server(process, port, log)) as server:
        yield server


def posted(server: Server, path: str, content: bytes, kind: bytes) -> bytes:
    request = urllib.request.Request(f"{server.url}{path}", content, {"Content-Type": kind.decode()})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return bytes(response.read())


def probabilities(server: Server) -> list[float]:
    answer: dict[str, Any] = json.loads(posted(server, "/predict", json.dumps({"sample": SAMPLE}).encode(), JSON))
    return list(answer["probabilities"].values())


def wait_for_both(server: Server, model: LoadedModel) -> None:
    """Wait until both processes serve a model: nothing but the log says so of each."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while (log := server.log.read_text()).count(f"version {model.version}") < 2:
        assert server.process.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.05)


@pytest.mark.slow
def test_under_the_units_limits_numpy_answers_with_the_same_bits_and_every_kind_of_file_is_scored(
    unit: str, model_path: Path, model: LoadedModel, large_path: Path, tmp_path: Path
) -> None:
    large = load_model(large_path)
    rows = (10 * np.random.default_rng(1).integers(0, 800, (300, 4)) + 1) / 1000  # Excel has no 17 digits, and no 5.0
    table = pyarrow.table(dict(zip(SAMPLE, rows.T, strict=True)))
    sheet = [list(SAMPLE), *rows.tolist()]
    text = "\n".join(",".join(map(str, row)) for row in sheet).encode()
    state = tmp_path / "StateDirectory"
    state.mkdir()
    put(model_path.read_bytes(), state / "model.npz")

    with run_unit(unit, tmp_path) as server:
        limits, mounts = (Path(f"/proc/{server.process.pid}/{name}").read_text() for name in ("status", "mountinfo"))
        of_small = probabilities(server)
        said_of_small = server.log.read_text()
        put(large_path.read_bytes(), state / "model.npz")
        wait_for_both(server, large)
        of_large = probabilities(server)
        from_text = posted(server, "/score", text, b"text/csv")
        from_sheet = posted(server, "/score", workbook(sheet), EXCEL)
        from_columns = posted(server, "/score", content_of(table), PARQUET)
        server.process.terminate()
        status = server.process.wait(float(re.findall("TimeoutStopSec=(.*)", unit)[0]))

    said = server.log.read_text()
    assert re.findall(r"^(?:CapEff|NoNewPrivs|Seccomp):\s(\w+)", limits, re.MULTILINE) == ["0" * 16, "1", "2"]
    assert " / ro," in mounts
    assert of_small == list(model.predict(model.validator.row(SAMPLE)).probabilities)
    assert of_large == list(large.predict(large.validator.row(SAMPLE)).probabilities)
    assert from_text == from_sheet == guarded(large, text)
    assert parquet.read_table(io.BytesIO(from_columns)).equals(ml.BatchScorer(large_path)(table))
    assert "numba" not in said_of_small
    assert said.count("numba cannot be used") == 2  # once in each process
    assert_quiet(server)
    assert status == 0


@pytest.mark.slow
def test_without_the_line_that_forbids_it_code_is_compiled_once_for_all_processes_and_kept(
    unit: str, large_path: Path, tmp_path: Path
) -> None:
    lines = re.findall(r"`(CacheDirectory=.*?)` and\s`(Environment=NUMBA_CACHE_DIR=.*?)`", DOCS)
    compiling = unit.replace("MemoryDenyWriteExecute=yes", "\n".join(*lines))
    assert compiling.count("NUMBA_CACHE_DIR") == 1
    large = load_model(large_path)
    for name in ("StateDirectory", "CacheDirectory"):
        (tmp_path / name).mkdir()
    put(large_path.read_bytes(), tmp_path / "StateDirectory" / "model.npz")

    with run_unit(compiling, tmp_path) as server:
        wait_for_both(server, large)
        answer = probabilities(server)

    said = server.log.read_text()
    assert answer == list(large.predict(large.validator.row(SAMPLE)).probabilities)
    assert said.count("compiling the code that evaluates this forest") == 1
    assert {path.stat().st_mode & 0o77 for path in (tmp_path / "CacheDirectory").rglob("*.nbc")} == {0}
    assert_quiet(server)
