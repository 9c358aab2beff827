"""Compiled code: where it cannot be made, where it is kept, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from ml.model import kernels
from ml.model.loaded import load_model
from tests.conftest import ROOT

LOAD = """
import json, logging, sys
from pathlib import Path
from ml.model.loaded import load_model
logging.basicConfig(level=logging.INFO, format="%(message)s")
model = load_model(Path(sys.argv[1]), max_cells=0)
print(json.dumps([type(model._evaluator._trees).__name__, model.predict([5.6, 2.7, 4.2, 1.3]).probabilities]))
"""
# What systemd's MemoryDenyWriteExecute does (prctl(2), PR_SET_MDWE).
FORBID = "import ctypes\nassert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0\n"
ABSENT = "import sys\nsys.modules['numba'] = None\n"


def loaded(model_path: Path, before: str = "", **environment: str) -> tuple[str, list[float], str]:
    """Return the evaluator, an answer, and what was said, of a process that loads the model without a table."""
    done = subprocess.run(
        [sys.executable, "-c", before + LOAD, str(model_path)], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    kind, answer = json.loads(done.stdout)
    return kind, answer, done.stderr


@pytest.mark.parametrize("before", [FORBID, ABSENT], ids=["memory that is written and run", "numba"])
def test_where_nothing_can_be_compiled_numpy_answers_the_same_and_a_warning_says_so(
    model_path: Path, before: str
) -> None:
    expected = load_model(model_path).predict([5.6, 2.7, 4.2, 1.3]).probabilities

    kind, answer, said = loaded(model_path, before)

    assert (kind, answer) == ("Walk", list(expected))
    assert said.count("numba cannot be used") == 1
    assert "evaluated by NumPy, which is slower" in said


@pytest.mark.slow
def test_compiled_code_is_loaded_without_linear_algebra_which_stays_importable(model_path: Path) -> None:
    look = LOAD + "assert 'scipy.linalg' not in sys.modules\nimport scipy.linalg\n"

    done = subprocess.run([sys.executable, "-c", look, str(model_path)], cwd=ROOT, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr


def test_rows_of_all_lengths_around_a_block_have_the_same_answers(model_path: Path) -> None:
    model = load_model(model_path, max_cells=0)
    rows = np.random.default_rng(0).uniform(0, 8, (200, 4))
    expected = np.array([model.predict(row).probabilities for row in rows.tolist()])

    for n in (0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200):
        assert np.array_equal(model.predict_batch(rows[:n]).outputs, expected[:n])


def twice(number: float) -> float:
    return 2 * number


def compiled() -> Any:
    function: Any = numba.njit(twice)
    kernels.keep(function)
    return function


def kept() -> Any:
    """Return a function that has been compiled, or read from a file, and has answered."""
    function = compiled()
    assert function(2.5) == 5
    return function


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_compiled_code_that_was_cut_short_is_compiled_and_kept_again(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kept()
    (file,) = tmp_path.rglob(f"*{suffix}")
    file.write_bytes(file.read_bytes()[:20])

    again, later = kept(), kept()

    assert [sum(function.stats.cache_hits.values()) for function in (again, later)] == [0, 1]


def test_where_compiled_code_finds_no_room_it_answers_and_one_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    function = compiled()
    (folder,) = tmp_path.iterdir()
    folder.rmdir()
    folder.write_bytes(b"")  # as little can be written into it as onto a full disk

    assert (function(2), function(2.5)) == (4, 5)

    assert caplog.text.count("compiled code cannot be kept") == 1
