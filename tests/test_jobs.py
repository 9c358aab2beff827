"""Scoring many files: each copy whole or not at all, what is done kept and the rest done, and kinds that change."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import ml
from ml.errors import MLError
from ml.jobs import cluster
from ml.jobs.copying import How, copy, do
from ml.jobs.plan import planned
from ml.jobs.record import NAME
from ml.model.loaded import LoadedModel
from ml.scoring.batch import Model
from tests.conftest import ROOT, run
from tests.tables import zipped
from tests.test_score import ADDED, GOOD, HEADER, VERSICOLOR
from tests.test_score_parquet import table_of

TABLE = f"{HEADER}\n{GOOD}\n"
ANSWERS = f"{HEADER},{ADDED}\n{GOOD},{VERSICOLOR}\n"
BAD = f"{HEADER}\n?,1,1,1\n"


@pytest.fixture
def folder(contents: list[bytes], tmp_path: Path) -> Path:
    """Return a folder with a model and three files of rows, one of them in a folder of its own."""
    (tmp_path / "m.npz").write_bytes(contents[0])
    (tmp_path / "rows/deep").mkdir(parents=True)
    for name in ("a.csv", "b.csv", "deep/c.csv"):
        (tmp_path / "rows" / name).write_text(TABLE)
    return tmp_path


def score(folder: Path, *arguments: str) -> list[str]:
    """Return what a run that ends well says."""
    done = run("score", "m.npz", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr.splitlines()


def refusal_of(folder: Path, *arguments: str) -> str:
    before = files_in(folder)
    done = run("score", "m.npz", *arguments, cwd=folder)
    assert done.returncode == 1
    assert files_in(folder) == before
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def copies_in(folder: Path) -> list[str]:
    return [name for name in files_in(folder / "out") if name != NAME]


def test_what_is_packed_is_scored_as_what_is_in_it(model: LoadedModel, tmp_path: Path) -> None:
    names = {
        "a.csv.gz": "a.csv", "b.CSV.ZIP": "b.CSV", "c.gz": "c.csv", "d.zip": "d.csv", "e.json.gz": "e.csv",
        "two.members.gz": "two.members", "pad.tsv.gz": "pad.tsv",
    }  # fmt: skip
    half = len(HEADER) + 3
    packed = gzip.compress(TABLE.encode())
    contents = dict.fromkeys(names, packed) | {
        "b.CSV.ZIP": zipped(b=TABLE), "d.zip": zipped(**{"rows.csv": TABLE, "__MACOSX/rows.csv": "x"}),
        "e.json.gz": gzip.compress(json.dumps([dict(zip(HEADER.split(","), GOOD.split(","), strict=True))]).encode()),
        "two.members.gz": gzip.compress(TABLE[:half].encode()) + gzip.compress(TABLE[half:].encode()),
        "pad.tsv.gz": packed + b"\0" * 99,
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    plan = planned([str(tmp_path / name) for name in names], tmp_path / "out", "")
    done = [do(Model(model), job, How(), on_bad=lambda _bad: None) for job in plan.jobs]

    assert [one.error for one in done] == [""] * len(names)
    assert {job.source.name: job.sink.name for job in plan.jobs} == names
    assert {job.sink.read_text() for job in plan.jobs} == {ANSWERS}


def test_packed_tables_of_a_folder_are_known_by_the_name_before_the_ending(folder: Path) -> None:
    for name in ("d.csv.gz", "e.tsv.zip", "photos.zip", "log.gz"):
        (folder / "rows" / name).write_bytes(gzip.compress(TABLE.encode()))

    names = [job.sink.name for job in planned([str(folder / "rows")], folder / "out", "").jobs]
    of_pattern = [job.sink.name for job in planned([str(folder / "rows/*.gz")], folder / "out", "").jobs]
    (folder / "rows/a.csv.gz").write_bytes(gzip.compress(TABLE.encode()))

    assert names == ["a.csv", "b.csv", "d.csv", "c.csv", "e.tsv"]
    assert of_pattern == ["d.csv", "log.csv"]
    with pytest.raises(MLError, match=r"a\.csv and .*a\.csv\.gz would both become .*a\.csv"):
        planned([str(folder / "rows")], folder / "out", "")


PACKED_BADLY = {
    "half": (gzip.compress(TABLE.encode())[:-9], "the gzip file is damaged: it ends too early"),
    "no end": (gzip.compress(TABLE.encode())[:12], "the gzip file is damaged: it ends too early"),
    "a wrong sum": (gzip.compress(TABLE.encode())[:-8] + b"12345678", "the gzip file is damaged: "),
    "something behind it": (gzip.compress(TABLE.encode()) + b"x", "the gzip file is damaged: "),
    "half a second member": (gzip.compress(TABLE.encode()) * 2 + b"\x1f\x8b", "the gzip file is damaged: "),
    "two files": (zipped(a=TABLE, b=TABLE), "the zip file has 2 files, 'a', 'b': unpack the one with the table"),
    "packed twice": (gzip.compress(gzip.compress(TABLE.encode())), "this is a gzip file: unpack it"),
    "zeros": (gzip.compress(bytes(2**20)) * 2**8, "line 1: a row of more than 262144 characters"),
    "zeros in a zip file": (zipped(a="\0" * 2**25), "line 1: a row of more than 262144 characters"),
}


@pytest.mark.parametrize("name", PACKED_BADLY)
def test_what_is_packed_badly_is_refused_in_a_sentence(model: LoadedModel, tmp_path: Path, name: str) -> None:
    content, message = PACKED_BADLY[name]
    source = tmp_path / "rows.csv.gz"
    source.write_bytes(content)
    tracemalloc.start()

    with pytest.raises(MLError) as refused:
        copy(Model(model), str(source), str(tmp_path / "out.csv"), How(), on_bad=lambda _bad: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert str(refused.value).startswith(message)
    assert peak < 2**24
    assert os.listdir(tmp_path) == ["rows.csv.gz"]


ALL = ["a.csv", "b.csv", "deep/c.csv"]
INPUTS: dict[str, tuple[list[str], list[str]]] = {
    "a folder": (["rows"], ALL),
    "several files": (["rows/a.csv", "rows/deep/c.csv"], ["a.csv", "c.csv"]),
    "a pattern": (["rows/*.csv"], ["a.csv", "b.csv"]),
    "a pattern of folders": (["rows/**/*.csv"], ALL),
    "a file and a folder": (["rows/a.csv", "rows/deep"], ["a.csv", "c.csv"]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_every_file_that_the_inputs_stand_for_becomes_one_in_the_folder(folder: Path, name: str) -> None:
    inputs, names = INPUTS[name]

    said = score(folder, *inputs, "--out", "out")

    assert said == []
    assert copies_in(folder) == names
    assert {(folder / "out" / name).read_text() for name in names} == {ANSWERS}


@pytest.mark.parametrize("out", ["out", "new/"])
def test_one_file_goes_to_a_folder_that_exists_or_ends_with_a_slash(folder: Path, out: str) -> None:
    (folder / "out").mkdir()

    score(folder, "rows/a.csv", "--out", out)

    assert (folder / out / "a.csv").read_text() == ANSWERS


def test_bad_rows_are_shown_with_their_file_and_counted_over_all(folder: Path) -> None:
    (folder / "rows/b.csv").write_text(BAD)
    parquet.write_table(table_of(2).set_column(1, "sepal_length", pyarrow.nulls(2)), folder / "rows/deep/d.parquet")

    assert score(folder, "rows", "--out", "out") == [
        "rows/b.csv: line 2: sepal length: '?' is not a number",
        "rows/deep/d.parquet: row 1: sepal length is missing",
        "rows/deep/d.parquet: row 2: sepal length is missing",
        "3 of 5 rows have no answer and were left blank",
    ]


def test_links_and_what_is_no_table_by_its_name_are_left_out_and_said(folder: Path) -> None:
    (folder / "rows/link.csv").symlink_to("a.csv")
    (folder / "rows/loop").symlink_to(".")
    (folder / "rows/notes.md").write_text("x")
    (folder / "rows/_SUCCESS").write_text("")
    (folder / "rows/.a.csv.crc").write_text("")

    said = score(folder, "rows", "--out", "out")

    assert said == [
        "left out: rows/loop and 1 more, symbolic links, which are not followed",
        "left out: rows/notes.md, not a table by its name",
    ]
    assert copies_in(folder) == ALL
    assert score(folder, "rows/*.csv", "--out", "new") == [
        "left out: rows/link.csv, a symbolic link, which is not followed"
    ]


def test_a_second_run_does_what_is_not_done(folder: Path) -> None:
    (folder / "rows/b.csv").write_text("x,y\n1,2\n")

    first = run("score", "m.npz", "rows", "--out", "out", cwd=folder)
    kept = (folder / "out/a.csv").stat()
    (folder / "rows/b.csv").write_text(TABLE)
    second = score(folder, "rows", "--out", "out")

    assert (first.returncode, first.stderr.splitlines()) == (1, [
        "error: rows/b.csv: no column is called 'sepal length': x, y; "
        "3 more features are missing: sepal width, petal length, petal width",
        "error: 1 of 3 files were not scored; the same command does them again",
    ])  # fmt: skip
    assert second == ["2 of 3 files were scored before, and their copies are kept"]
    assert (folder / "out/a.csv").stat() == kept
    assert copies_in(folder) == ALL
    assert score(folder, "rows", "--out", "out") == ["3 of 3 files were scored before, and their copies are kept"]


def other_model(folder: Path, contents: list[bytes]) -> None:
    (folder / "m.npz").write_bytes(contents[1])


def new_rows(folder: Path, _contents: list[bytes]) -> None:
    (folder / "rows/a.csv").write_text(TABLE)
    os.utime(folder / "rows/a.csv", ns=(1, 1))


def other_copy(folder: Path, _contents: list[bytes]) -> None:
    (folder / "out/a.csv").write_text("by hand")


def no_record(folder: Path, _contents: list[bytes]) -> None:
    (folder / "out" / NAME).write_text('{"name": "a.csv", "mod')


def no_copy(folder: Path, _contents: list[bytes]) -> None:
    (folder / "out/a.csv").unlink()


CHANGES: dict[Callable[[Path, list[bytes]], None], str] = {
    other_model: "written anew: out/a.csv: it was written by model ",
    new_rows: "written anew: out/a.csv: rows/a.csv was changed",
    other_copy: "written anew: out/a.csv: it was changed",
    no_record: "written anew: out/a.csv: it was not written by a run that ended well",
    no_copy: "",
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_that_is_not_what_would_be_written_now_is_written_anew_and_it_is_said(
    folder: Path, contents: list[bytes], change: Callable[[Path, list[bytes]], None]
) -> None:
    score(folder, "rows/a.csv", "--out", "out/")
    change(folder, contents)

    said = score(folder, "rows/a.csv", "--out", "out/")

    assert len(said) == bool(CHANGES[change])
    assert "".join(said).startswith(CHANGES[change])
    assert (folder / "out/a.csv").read_text().startswith(HEADER)


def test_other_options_make_other_copies(folder: Path) -> None:
    score(folder, "rows", "--out", "out")

    said = score(folder, "rows", "--out", "out", "--guarded")

    assert said == [f"written anew: out/{name}: it was written with other options" for name in ALL]


def test_a_strict_run_ends_at_the_first_row_without_an_answer(folder: Path) -> None:
    (folder / "rows/b.csv").write_text(BAD)

    done = run("score", "m.npz", "rows", "--strict", "--out", "out", cwd=folder)

    assert (done.returncode, copies_in(folder)) == (1, ["a.csv"])
    assert "error: rows/b.csv: line 2: sepal length: '?' is not a number" in done.stderr.splitlines()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_keeps_what_is_complete_and_the_next_one_does_the_rest(
    folder: Path, end: signal.Signals
) -> None:
    (folder / "rows/b.csv").write_text(BAD + f"{GOOD}\n" * 1_000_000)
    arguments = ["score", "m.npz", "rows", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ml", *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("rows/b.csv: line 2: ")
        process.send_signal(end)
        process.stderr.read()
    parts = [name for name in copies_in(folder) if name != "a.csv"]
    (folder / "rows/b.csv").write_text(TABLE)

    said = score(folder, "rows", "--out", "out")

    assert process.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL)
    assert [name[:7] for name in parts] == ([] if end == signal.SIGINT else [".b.csv."])
    assert said == ["1 of 3 files were scored before, and their copies are kept"]
    assert copies_in(folder) == ALL


REFUSED: dict[str, tuple[list[str], str]] = {
    "no output": (["rows"], "several files are read by their names and written to a folder: name it with --out"),
    "standard input": (["-", "rows", "--out", "out"], "several files are read by their names"),
    "not there": (["rows", "no.csv", "--out", "out"], "no.csv: No such file or directory"),
    "no match": (["no/*.csv", "--out", "out"], "no/*.csv: no file has such a name"),
    "nothing in it": (["empty", "--out", "out"], "empty: no file in this folder has a name that ends with .csv"),
    "one name twice": (
        ["rows/a.csv", "rows/deep/a.parquet", "--to", "csv", "--out", "out"],
        "rows/a.csv and rows/deep/a.parquet would both become out/a.csv",
    ),
    "the input itself": (["rows", "--out", "rows"], "rows is inside the input rows"),
    "inside the input": (["rows", "--out", "rows/deep/out"], "rows/deep/out is inside the input rows"),
    "inside by a link": (["rows", "--out", "inside/out"], "inside/out is inside the input rows"),
    "inside a pattern": (["**/*.csv", "--out", "out"], "out is inside the input ."),
    "the files themselves": (["rows/*.csv", "--out", "rows"], "rows/a.csv is an input as well"),
    "a file": (["rows", "--out", "m.npz"], "m.npz is a file: several files, or a folder, are written to a folder"),
    "a link": (["rows", "--out", "linked"], "linked is a symbolic link, through which nothing is written"),
    "a link in it": (["rows", "--out", "links"], "links/a.csv is a symbolic link, through which nothing is written"),
    "a folder in it": (["rows", "--out", "folders"], "folders/a.csv is no file, and is not replaced by one"),
    "Ray to one file": (["rows/a.csv", "--engine", "ray", "--out", "a.csv"], "Ray writes to a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_inputs_and_outputs_that_would_destroy_something_are_refused(folder: Path, name: str) -> None:
    arguments, sentence = REFUSED[name]
    parquet.write_table(table_of(2), folder / "rows/deep/a.parquet")
    for one in ("empty", "links", "folders/a.csv", "elsewhere"):
        (folder / one).mkdir(parents=True)
    (folder / "links/a.csv").symlink_to("../m.npz")
    (folder / "linked").symlink_to("elsewhere")
    (folder / "inside").symlink_to("rows")

    assert sentence in refusal_of(folder, *arguments)


def test_where_ray_is_not_installed_a_sentence_says_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(MLError, match=r"^Ray is not installed, .*: python -m pip install 'ray\[data\]'$"):
        next(cluster.run(ml.BatchScorer(folder / "m.npz"), [], How(), address=None, workers=None))


def rows_in(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return [*csv.reader(file)]


def test_parquet_becomes_csv_with_the_same_answers(folder: Path) -> None:
    table = table_of(100).set_column(1, "sepal_length", pyarrow.array([1.0, None, *[2.5] * 98], pyarrow.float32()))
    table = table.set_column(5, "words", pyarrow.array(["=1+1", 'a "b"', None, "a,\nb"] * 25))
    parquet.write_table(table, folder / "rows.parquet")

    said = score(folder, "rows.parquet", "--out", "out.csv", "--guarded")

    answers = ml.BatchScorer(folder / "m.npz")(table).to_pylist()
    header, *rows = rows_in(folder / "out.csv")
    assert said == [
        "row 2: sepal length is missing",
        "out.csv: 100 rows",
        "1 of 100 rows have no answer and were left blank",
    ]
    for row, answer in zip(rows, answers, strict=True):
        cells = dict(zip(header, row, strict=True))
        assert [cells[name] or None for name in header[-6:]] == [
            value if value is None or isinstance(value, str) else repr(value) for value in [*answer.values()][-6:]
        ]
        assert [cells["id"], cells["list"]] == [str(answer["id"]), "[1, 2]"]
    assert [row[5] for row in rows[:4]] == ["'=1+1", 'a "b"', "", "a,\nb"]


def test_text_becomes_parquet_with_its_cells_as_they_are_and_typed_answers(folder: Path) -> None:
    rows = [
        f"{GOOD},x,", '5.6,2.7,4.2,1.3,"a;b ""c""\nd",é', "?,2.7,4.2,1.3,,0", "5.6,2.7,4.2", f"{GOOD},1,2,3,4",
        "50,2.7,4.2,1.3,1,1",
    ]  # fmt: skip
    (folder / "rows.csv").write_text("\n".join([f"{HEADER},note,note", *rows]).replace(",", ","))

    score(folder, "rows.csv", "--to", "csv", "--out", "out.csv")
    score(folder, "rows.csv", "--out", "out.parquet")

    table = parquet.read_table(folder / "out.parquet")
    header, *expected = rows_in(folder / "out.csv")
    assert table.column_names == [*header[:5], "note_2", *header[6:]]
    assert [str(kind) for kind in table.schema.types] == ["string"] * 7 + ["double"] * 3 + ["string"] * 2
    assert [list(row.values()) for row in table.to_pylist()] == [
        [
            None if not cell else float(cell) if 7 <= place < 10 else cell
            for place, cell in enumerate(row[: len(header)])
        ]
        for row in expected
    ]


def test_answers_with_a_decimal_comma_are_numbers_in_parquet(folder: Path) -> None:
    (folder / "rows.csv").write_text(f"{HEADER}\n5.1,2,5,1\n".replace(",", ";").replace(".", ","))

    score(folder, "rows.csv", "--to", "csv", "--out", "out.csv")
    score(folder, "rows.csv", "--out", "out.parquet")

    answers = (folder / "out.csv").read_text().split(";")[-5:-2]
    assert any("," in answer for answer in answers)
    table = parquet.read_table(folder / "out.parquet")
    assert [table[name][0].as_py() for name in table.column_names[5:8]] == [float(a.replace(",", ".")) for a in answers]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_kinds_change_by_folders_and_names_follow(folder: Path, kind: str) -> None:
    parquet.write_table(table_of(2), folder / "rows/d.parquet")
    (folder / "rows/e.json").write_text(
        '[{"sepal_length": 5.6, "sepal_width": 2.7, "petal_length": 4.2, "petal_width": 1}, {}]'
    )

    said = score(folder, "rows", "--out", "out", "--to", kind)

    assert said == ["rows/e.json: 2 JSON records"]
    assert copies_in(folder) == [f"{name}.{kind}" for name in ("a", "b", "d", "deep/c", "e")]
    again = score(folder, "rows", "--out", "new", "--to", "csv" if kind == "parquet" else "parquet")
    assert again == said


def sizes_read(folder: Path, source: str, sink: str) -> int:
    sizes: list[int] = []
    copy(
        ml.load(folder / "m.npz"), str(folder / source), str(folder / sink), How(),
        on_bad=lambda row: pytest.fail(row.message), on_bytes=sizes.append,
    )  # fmt: skip
    assert len(sizes) > 2
    return sum(sizes)


def test_progress_counts_the_bytes_of_the_sources(folder: Path) -> None:
    (folder / "rows.csv").write_text(TABLE + f"{GOOD}\n" * 20_000)
    parquet.write_table(table_of(70_000), folder / "rows.parquet")

    for name in ("rows.csv", "rows.parquet"):
        assert sizes_read(folder, name, f"out.{name}") == (folder / name).stat().st_size


@pytest.mark.slow
def test_a_disk_that_is_full_is_an_error_and_leaves_no_file(folder: Path) -> None:
    columns: dict[str, Any] = {name: np.random.default_rng(0).uniform(1, 8, 20_000) for name in HEADER.split(",")}
    parquet.write_table(pyarrow.table(columns), folder / "rows.parquet")
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
from ml.__main__ import main
sys.exit(main({["score", "m.npz", "rows.parquet", "--out", "out.parquet"]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, "error: out.parquet cannot be written: File too large\n")
    assert files_in(folder) == sorted(["m.npz", "rows.parquet", *(f"rows/{name}" for name in ALL)])
