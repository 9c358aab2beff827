"""Scoring a Parquet file: its columns keep their types, the answers are those of every channel, and memory stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import ml
from tests.conftest import ROOT, run

KEYS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
MB = 2**20


def table_of(n_rows: int) -> pyarrow.Table:
    rows = np.random.default_rng(0).uniform(1, 8, (n_rows, 4)).round(1)
    numbers = {key: pyarrow.array(column) for key, column in zip(KEYS, rows.T, strict=True)}
    ids = pyarrow.array(range(n_rows), pyarrow.int32())
    words = pyarrow.array(["a", None] * (n_rows // 2)).dictionary_encode()
    return pyarrow.table({"id": ids, **numbers, "words": words, "list": [[1, 2]] * n_rows})


@pytest.fixture
def folder(model_path: Path, tmp_path: Path) -> Path:
    (tmp_path / "m.npz").write_bytes(model_path.read_bytes())
    return tmp_path


def test_a_parquet_file_becomes_one_with_the_answers_of_the_scorer(folder: Path) -> None:
    table = table_of(70_000)
    parquet.write_table(table, folder / "rows.parquet", row_group_size=30_000)

    done = run("score", "m.npz", "rows.parquet", "--out", "out.parquet", cwd=folder)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "out.parquet: 70000 rows\n")
    scored = parquet.read_table(folder / "out.parquet")
    assert scored.equals(ml.BatchScorer(folder / "m.npz")(parquet.read_table(folder / "rows.parquet")))
    assert scored.select(table.column_names).equals(table)
    assert sorted(os.listdir(folder)) == ["m.npz", "out.parquet", "rows.parquet"]


def test_rows_without_an_answer_are_named_by_their_number_and_counted(folder: Path) -> None:
    table = table_of(100).set_column(1, KEYS[0], pyarrow.array([1.0, None, *[2.0] * 97, -1.0]))
    parquet.write_table(table, folder / "rows.parquet")

    done = run("score", "m.npz", "rows.parquet", "--out", "out.parquet", cwd=folder)

    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "row 2: sepal length is missing",
        "row 100: sepal length must be 0 cm or more, not -1.0",
        "out.parquet: 100 rows",
        "2 of 100 rows have no answer and were left blank",
    ]
    assert parquet.read_table(folder / "out.parquet")["predicted_label"].null_count == 2


def test_a_strict_run_ends_at_the_first_row_without_an_answer_and_leaves_the_old_file(folder: Path) -> None:
    table = table_of(100).set_column(1, KEYS[0], pyarrow.nulls(100, pyarrow.float64()))
    parquet.write_table(table, folder / "rows.parquet")
    (folder / "out.parquet").write_bytes(b"old")

    done = run("score", "m.npz", "rows.parquet", "--strict", "--out", "out.parquet", cwd=folder)

    assert (done.returncode, done.stderr) == (1, "error: rows.parquet: row 1: sepal length is missing\n")
    assert (folder / "out.parquet").read_bytes() == b"old"
    assert sorted(os.listdir(folder)) == ["m.npz", "out.parquet", "rows.parquet"]


def test_a_file_without_rows_becomes_one_without_rows(folder: Path) -> None:
    parquet.write_table(table_of(10).slice(0, 0), folder / "rows.parquet")

    done = run("score", "m.npz", "rows.parquet", "--out", "out.parquet", cwd=folder)

    assert (done.returncode, done.stderr) == (0, "out.parquet: 0 rows\n")
    scored = parquet.read_table(folder / "out.parquet")
    assert (scored.num_rows, scored.column_names[-1]) == (0, "prediction_error")


REFUSED = {
    "standard output": (["rows.parquet"], "name a file with --out"),
    "the input": (["rows.parquet", "--out", "rows.parquet"], "rows.parquet is the input as well"),
    "a link": (["rows.parquet", "--out", "link.parquet"], "not written to a link or a pipe, link.parquet"),
    "a folder": (["rows.parquet", "--out", "."], "rows.parquet is an input as well: name another folder"),
    "no such folder": (["rows.parquet", "--out", "no/out.parquet"], "no/out.parquet cannot be written: No such file"),
    "marks": (["rows.parquet", "--out", "out.parquet", "--decimal", ","], "whose columns have types"),
    "damaged": (["damaged.parquet", "--out", "out.parquet"], "damaged.parquet: the Parquet file cannot be read: "),
    "no feature": (["other.parquet", "--out", "out.parquet"], "no column is called 'sepal length'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_or_written_is_refused_and_nothing_is_left(folder: Path, name: str) -> None:
    arguments, sentence = REFUSED[name]
    parquet.write_table(table_of(10), folder / "rows.parquet")
    parquet.write_table(pyarrow.table({"x": [1]}), folder / "other.parquet")
    (folder / "damaged.parquet").write_bytes((folder / "rows.parquet").read_bytes()[:-50])
    (folder / "target.parquet").write_bytes(b"old")
    (folder / "link.parquet").symlink_to("target.parquet")
    before = sorted(os.listdir(folder))

    done = run("score", "m.npz", *arguments, cwd=folder)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(os.listdir(folder)) == before
    assert (folder / "target.parquet").read_bytes() == b"old"


# Not getrusage: what a new process counts begins with the memory of the one that started it.
MEASURE = """
import re, sys
from pathlib import Path
from ml.__main__ import main
assert main(sys.argv[1:]) == 0
print(re.findall(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file_or_its_groups_of_rows(folder: Path) -> None:
    columns = {key: np.tile(np.arange(1, 80) / 10, 50_000) for key in KEYS}
    parquet.write_table(pyarrow.table(columns), folder / "rows.parquet", row_group_size=10**9)

    printed = subprocess.run(
        [sys.executable, "-c", MEASURE, "score", "m.npz", "rows.parquet", "--out", "out.parquet"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    assert parquet.read_metadata(folder / "out.parquet").num_rows == 79 * 50_000
    assert int(printed) * 1024 < 300 * MB
