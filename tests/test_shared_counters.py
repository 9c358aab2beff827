"""Numbers by name: of one process, of several, of processes that have ended, and without a folder to share them in."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from web.metrics.shared import SharedCounters

NAME = ("requests", 'é\n"quoted"')
COUNT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from web.metrics.shared import SharedCounters
counters = SharedCounters(Path(sys.argv[1]))
counters.add(float(sys.argv[2]), "requests", "é\\n\\"quoted\\"")
counters.states["sockets",] = 5
counters.share(b"inputs")
os.kill(os.getpid(), signal.SIGKILL)
"""


def count_and_die(folder: Path, amount: int) -> None:
    """Count in a process of its own, which is killed at once."""
    command = [sys.executable, "-c", COUNT_AND_DIE, str(folder), str(amount)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], SharedCounters]]:
    """Count in one folder as several processes do, which end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(SharedCounters(tmp_path)))


def total(counters: SharedCounters, *name: str) -> float:
    return sum(one.counts.get(name, 0.0) for one in counters.all())


def files_of(folder: Path) -> list[Path]:
    return list(folder.glob("*.counts"))


def test_a_number_is_what_was_added_under_its_name() -> None:
    counters = SharedCounters()

    counters.add(2, "requests", "/predict")
    counters.add(3, "requests", "/predict")
    counters.states["sockets",] = 7

    (own,) = counters.all()
    assert own.counts == {("requests", "/predict"): 5}
    assert own.states == {("sockets",): 7}


def test_every_process_reads_what_all_have_shared(opened: Callable[[], SharedCounters]) -> None:
    first, second = opened(), opened()

    first.add(2, "requests")
    second.add(3, "requests")
    second.add(5, "only here")
    first.share()
    second.share(b"inputs")

    assert total(first, "requests") == total(second, "requests") == 5
    assert total(first, "only here") == 5
    assert first.all()[1].extras == [b"inputs"]
    assert [one.pid is not None for one in first.all()] == [True, True]


def test_a_killed_process_leaves_what_it_counted_and_is_known_to_be_gone(
    tmp_path: Path, opened: Callable[[], SharedCounters]
) -> None:
    counters = opened()

    count_and_die(tmp_path, 4)

    own, other = counters.all()
    assert own.pid is not None
    assert other.pid is None
    assert other.counts[NAME] == 4


def test_a_new_process_goes_on_from_ended_ones_without_losing_or_doubling_a_count(
    tmp_path: Path, opened: Callable[[], SharedCounters]
) -> None:
    witness = opened()

    for amount in (1, 2, 4):
        count_and_die(tmp_path, amount)
    newest = opened()

    assert total(witness, *NAME) == total(newest, *NAME) == 7
    assert newest.counts[NAME] == 7
    assert newest.states == {}
    assert set(newest.inherited) == {b"inputs"}
    assert len(files_of(tmp_path)) == 2  # of those that live


def test_what_was_taken_over_counts_once_though_its_file_is_still_there(
    tmp_path: Path, opened: Callable[[], SharedCounters]
) -> None:
    witness = opened()
    count_and_die(tmp_path, 4)
    (ended,) = set(files_of(tmp_path)) - {next(tmp_path.glob(f"{os.getpid()}-*.counts"))}
    left = ended.read_bytes()

    newest = opened()
    ended.write_bytes(left)  # as if the process had been killed before it could remove the file
    between = total(witness, *NAME), total(newest, *NAME)
    last = opened()

    assert between == (4, 4)
    assert total(witness, *NAME) == total(last, *NAME) == 4
    assert not ended.exists()


def test_a_closed_process_counts_as_ended(tmp_path: Path, opened: Callable[[], SharedCounters]) -> None:
    counters = SharedCounters(tmp_path)
    counters.add(1, "requests")
    counters.share()

    counters.close()

    assert opened().counts["requests",] == 1


def test_a_removed_folder_is_made_again_with_all_that_those_who_live_have_counted(
    tmp_path: Path, opened: Callable[[], SharedCounters]
) -> None:
    first, second = opened(), opened()
    first.add(2, "requests")
    second.add(3, "requests")
    shutil.rmtree(tmp_path)

    between = total(first, "requests")
    third = opened()
    for counters in (first, second, third):
        counters.share()

    assert between == 2
    assert [total(counters, "requests") for counters in (first, second, third)] == [5, 5, 5]


def test_a_process_that_cannot_share_counts_alone_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.write_text("no folder")

    counters = SharedCounters(folder)
    counters.add(1, "requests")
    counters.share()
    counters.share()
    (own,) = counters.all()
    folder.unlink()
    counters.share()

    assert own.counts == {("requests",): 1}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "metrics are not shared" in record.getMessage()
    assert len(files_of(folder)) == 1  # it has not given up
    counters.close()


COUNT_WHERE_NO_FILE_FITS = """
import resource, sys
from pathlib import Path
from web.metrics.shared import SharedCounters
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
counters = SharedCounters(Path(sys.argv[1]))
for number in range(1_000):
    counters.add(1, "requests", str(number))
counters.share()
print(len(counters.all()[0].counts))
"""


def test_a_full_disk_ends_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT_WHERE_NO_FILE_FITS, str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "1000\n"
    assert done.stderr.count("metrics are not shared") == 1
    assert files_of(tmp_path) == []


def test_a_folder_of_another_user_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    counters = SharedCounters(tmp_path)

    assert files_of(tmp_path) == []
    assert len(counters.all()) == 1


@pytest.mark.parametrize("content", [b"", b"\xc1", b"[]", b"\x95\x01\x80\x80\x90"])
def test_files_that_nobody_can_read_are_left_alone(
    content: bytes, tmp_path: Path, opened: Callable[[], SharedCounters]
) -> None:
    (tmp_path / "1-odd.counts").write_bytes(content)

    counters = opened()

    assert len(counters.all()) == 1


def test_copies_of_a_busy_process_are_whole_and_never_less_than_the_ones_before(
    tmp_path: Path, opened: Callable[[], SharedCounters]
) -> None:
    witness, busy = opened(), opened()
    seen = []

    for number in range(300):
        busy.add(1, "requests")
        busy.add(1, "labels", str(number))
        busy.share()
        (_, other) = witness.all()
        assert other.pid is not None
        seen.append(other.counts["requests",])

    assert seen == [float(number) for number in range(1, 301)]
