"""Model files that were replaced: kept by training, put back by a command."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import ml
from ml.errors import ModelFileError
from ml.model import modelfile
from ml.model.card import Recipe
from ml.model.loaded import load_model
from ml.training import fitting, history, iris, writing
from tests.conftest import ROOT, output_of, run


@pytest.fixture(scope="module")
def fitted() -> list[fitting.Trained]:
    return [fitting.fit(iris.load_dataset(), Recipe(seed=seed, n_estimators=2)) for seed in range(6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my model.v1.npz"


def write(fitted: list[fitting.Trained], path: Path) -> list[str]:
    """Write one model after the other; return their versions."""
    return [writing.write(writing.model_of(one), path, trained=one).version for one in fitted]


def kept(path: Path) -> list[str]:
    return [one.version for one in history.kept(path)]


def version_at(path: Path) -> str:
    return load_model(path).version


def test_the_last_three_files_that_were_replaced_are_kept_by_version(fitted: list[fitting.Trained], path: Path) -> None:
    *replaced, last = write(fitted, path)

    assert kept(path) == replaced[:-4:-1]
    assert sorted(os.listdir(path.parent)) == sorted(
        [path.name, *(f"my model.v1.{version}.npz" for version in replaced[-3:])]
    )
    assert [version_at(one.path) for one in history.kept(path)] == kept(path)
    assert version_at(path) == last


def test_the_same_model_again_keeps_nothing_more(fitted: list[fitting.Trained], path: Path) -> None:
    write([fitted[0], fitted[0]], path)

    assert os.listdir(path.parent) == [path.name]


def test_what_is_no_model_is_not_kept(fitted: list[fitting.Trained], path: Path) -> None:
    path.write_bytes(b"not a model")

    write(fitted[:1], path)

    assert os.listdir(path.parent) == [path.name]


def test_files_of_other_models_are_left_alone(fitted: list[fitting.Trained], path: Path) -> None:
    others = ["my model.npz", "my model.v1.npz.bak", "my modelxv1.0123456789ab.npz", "other.0123456789ab.npz"]
    for name in others:
        (path.parent / name).write_bytes(b"")

    versions = write(fitted, path)

    assert kept(path) == versions[-2:-5:-1]
    assert {*others} <= set(os.listdir(path.parent))


def test_a_model_comes_back_and_twice_undoes_it(fitted: list[fitting.Trained], path: Path) -> None:
    first, second, third = write(fitted[:3], path)
    content = path.read_bytes()

    restored = history.restore(path)
    assert (restored.model.version, restored.replaced) == (version_at(path), third) == (second, third)
    assert kept(path) == [third, first]

    history.restore(path)
    assert path.read_bytes() == content
    assert kept(path) == [second, first]


def test_a_version_is_chosen_by_its_first_digits(fitted: list[fitting.Trained], path: Path) -> None:
    first, second, third = write(fitted[:3], path)

    history.restore(path, first[:8])

    assert version_at(path) == first
    assert kept(path) == [third, second]


def test_a_model_comes_back_where_there_is_none_any_more(fitted: list[fitting.Trained], path: Path) -> None:
    first, _ = write(fitted[:2], path)
    path.unlink()

    assert history.restore(path).replaced == ""
    assert version_at(path) == first


@pytest.mark.parametrize(("version", "reason"), [("", "no model file is kept beside"), ("ffff", "of version ffff is")])
def test_what_is_not_there_does_not_come_back(
    fitted: list[fitting.Trained], path: Path, version: str, reason: str
) -> None:
    write(fitted[:1], path)
    content = path.read_bytes()

    with pytest.raises(ModelFileError, match=reason):
        history.restore(path, version)

    assert path.read_bytes() == content


def test_a_kept_file_that_is_damaged_does_not_come_back(fitted: list[fitting.Trained], path: Path) -> None:
    first, second = write(fitted[:2], path)
    copy = history.kept(path)[0].path
    copy.write_bytes(copy.read_bytes()[:-1])

    with pytest.raises(ModelFileError, match="checksum"):
        history.restore(path)

    assert version_at(path) == second
    assert kept(path) == [first]


def test_a_model_that_cannot_be_trained_leaves_files_as_they_were(
    fitted: list[fitting.Trained], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(fitted[:1], path)
    wrong = writing.model_of(fitted[2])

    with pytest.raises(Exception, match="the model answers"):
        writing.write(wrong, path, trained=fitted[1])

    assert os.listdir(path.parent) == [path.name]


@pytest.mark.slow
def test_the_command_lists_and_restores(fitted: list[fitting.Trained], tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    first, second, third = write(fitted[:3], path)

    listed = output_of("rollback", "--list", cwd=tmp_path).splitlines()
    printed = output_of("rollback", "model.npz", "--to", first, cwd=tmp_path)
    wrong = run("rollback", "elsewhere/model.npz", cwd=tmp_path)

    assert [line.split()[0] for line in listed] == [second, first]
    assert all(re.search(r" replaced 20[^a-z]+ UTC  accuracy [01]\.\d{3}$", line) for line in listed)
    assert printed == f"model.npz: version {first} again, in place of {third}, which is kept\n"
    assert version_at(path) == first
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "error: elsewhere/model.npz: No such file or directory\n"


def test_a_kept_file_has_the_bytes_of_its_version(fitted: list[fitting.Trained], path: Path) -> None:
    write(fitted[:2], path)
    (one,) = history.kept(path)

    assert modelfile.version_of(one.path.read_bytes()) == one.version


def test_a_model_too_large_to_be_read_never_replaces_a_good_one(
    fitted: list[fitting.Trained], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = write(fitted[:1], path)
    monkeypatch.setattr(modelfile, "MAX_FILE_BYTES", path.stat().st_size // 2)

    with pytest.raises(ModelFileError, match=r"fewer trees \(n_estimators\).*max_depth.*min_samples_leaf"):
        write(fitted[1:2], path)
    with pytest.raises(ModelFileError, match=r"is not read; fit fewer trees"):
        ml.export(
            fitted[1].estimator,
            fitted[1].split.test_rows,
            fitted[1].split.test_classes,
            feature_names=["a", "b", "c", "d"],
            path=path,
        )

    assert os.listdir(path.parent) == [path.name]
    assert version_at(path) == version


def test_a_model_that_cannot_be_read_back_never_replaces_a_good_one(fitted: list[fitting.Trained], path: Path) -> None:
    (version,) = write(fitted[:1], path)
    model = writing.model_of(fitted[1])
    broken = replace(model, golden_answers=model.golden_answers[:, ::-1])

    with pytest.raises(ModelFileError, match="is not written: it could not be read back: golden row 0 gives another"):
        writing.write(broken, path, trained=fitted[1])

    assert os.listdir(path.parent) == [path.name]
    assert version_at(path) == version


def test_a_kept_file_too_large_to_be_read_is_not_put_back(fitted: list[fitting.Trained], path: Path) -> None:
    _, version = write(fitted[:2], path)
    (older,) = history.kept(path)
    os.truncate(older.path, modelfile.MAX_FILE_BYTES + 1)  # sparse: it takes no room
    files = sorted(os.listdir(path.parent))

    with pytest.raises(ModelFileError, match=f"larger than {modelfile.MAX_FILE_BYTES} bytes"):
        history.restore(path)

    assert sorted(os.listdir(path.parent)) == files
    assert version_at(path) == version


def at_once(count: int, program: str, *arguments: str | Path) -> list[subprocess.CompletedProcess[str]]:
    """Run a program in so many processes, which begin their work together; return how each of them ended."""
    gate = "import sys; sys.stdin.readline()\n"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program.replace("START", gate), str(number), *map(str, arguments)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    with ThreadPoolExecutor(count) as threads:
        outputs = list(threads.map(lambda process: process.communicate("\n", timeout=60), processes))
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


ROLL_BACK = """
from pathlib import Path
import sys
from ml.training import history
START
restored = history.restore(Path(sys.argv[2]))
print(restored.model.version, restored.replaced)
"""
WRITE = """
from pathlib import Path
import sys
from ml.model.card import Recipe
from ml.training import fitting, iris, writing
fitted = fitting.fit(iris.load_dataset(), Recipe(seed=100 + int(sys.argv[1]), n_estimators=2))
model = writing.model_of(fitted)
START
print(writing.write(model, Path(sys.argv[2]), trained=fitted).version)
"""


@pytest.mark.slow
def test_six_rollbacks_at_once_lose_no_version(fitted: list[fitting.Trained], path: Path) -> None:
    versions = write(fitted[:3], path)

    done = at_once(6, ROLL_BACK, path)

    assert [one.returncode for one in done] == [0] * 6, [one.stderr for one in done]
    assert sorted([version_at(path), *kept(path)]) == sorted(versions)
    # Each took the place of what another one had put there: an even number of times it is as before.
    assert version_at(path) == versions[2]
    taken = Counter(one.stdout.strip() for one in done)
    assert taken == {f"{versions[1]} {versions[2]}": 3, f"{versions[2]} {versions[1]}": 3}


@pytest.mark.slow
def test_four_models_trained_at_once_are_all_there(path: Path) -> None:
    done = at_once(4, WRITE, path)

    assert [one.returncode for one in done] == [0] * 4, [one.stderr for one in done]
    assert sorted([version_at(path), *kept(path)]) == sorted(one.stdout.strip() for one in done)
    assert len(os.listdir(path.parent)) == 4


def test_who_waits_for_the_lock_says_so(
    fitted: list[fitting.Trained], path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(fitted[:2], path)
    monkeypatch.setattr(history, "SILENT_S", 0.0)
    held = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    caplog.set_level(logging.WARNING, logger="ml")

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(history.restore, path)
        while not caplog.records:
            assert not waiting.done()
        os.close(held)
        waiting.result(20)

    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: another process writes to this folder; waiting for it"
    ]


def test_without_locks_a_model_is_replaced_and_a_warning_says_so(
    fitted: list[fitting.Trained], path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_descriptor: int, _operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)

    version, _ = write(fitted[:2], path)

    assert kept(path) == [version]
    assert "cannot be locked ([Errno 95] Operation not supported)" in caplog.text


def test_what_was_replaced_last_comes_first_though_the_clock_was_set_back(
    fitted: list[fitting.Trained], path: Path
) -> None:
    first, second = write(fitted[:2], path)
    (kept_file,) = history.kept(path)
    tomorrow_ns = kept_file.replaced_ns + 86_400 * 10**9
    os.utime(kept_file.path, ns=(tomorrow_ns, tomorrow_ns))  # by a clock that was a day ahead

    write(fitted[2:3], path)

    assert kept(path) == [second, first]
    assert history.restore(path).model.version == second
