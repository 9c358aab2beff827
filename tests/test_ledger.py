"""Numbers by name: of one process, of several, and of processes that have ended."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from web.metrics.ledger import OVERFLOW, Ledger, Name

COUNT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from web.metrics.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.add(float(sys.argv[2]), "requests", "é\\n\\"quoted\\"")
os.kill(os.getpid(), signal.SIGKILL)
"""


def count_and_die(folder: Path, amount: int) -> None:
    """Count in a process of its own, which is killed at once."""
    command = [sys.executable, "-c", COUNT_AND_DIE, str(folder), str(amount)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """Open ledgers of one folder, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Ledger(tmp_path)))


def total(ledger: Ledger, *name: str) -> float:
    return sum(page.numbers.get(name, 0.0) for page in ledger.pages())


def test_a_number_is_what_was_added_under_its_name() -> None:
    ledger = Ledger()

    ledger.add(2, "requests", "/predict")
    ledger.add(3, "requests", "/predict")
    ledger.set(7, "sockets")

    (page,) = ledger.pages()
    assert page.numbers == {OVERFLOW: 0, ("requests", "/predict"): 5, ("sockets",): 7}


def test_new_names_get_slots_next_to_each_other_and_keep_them() -> None:
    ledger = Ledger()
    names: list[Name] = [("bucket", str(bound)) for bound in range(5)]

    slots = ledger.slots(names)

    assert slots == list(range(slots[0], slots[0] + 5))
    assert ledger.slots(names[::-1]) == slots[::-1]


def test_names_beyond_the_capacity_are_counted_together() -> None:
    ledger = Ledger(capacity=3)

    for index in range(5):
        ledger.add(1, "label", str(index))

    (page,) = ledger.pages()
    assert page.numbers == {OVERFLOW: 3, ("label", "0"): 1, ("label", "1"): 1}


def test_every_process_reads_what_all_have_counted(opened: Callable[[], Ledger]) -> None:
    first, second = opened(), opened()

    first.add(2, "requests")
    second.add(3, "requests")
    second.add(5, "only here")

    assert total(first, "requests") == total(second, "requests") == 5
    assert total(first, "only here") == 5
    assert [page.pid is not None for page in first.pages()] == [True, True]


def test_a_killed_process_leaves_what_it_counted_and_is_known_to_be_gone(
    tmp_path: Path, opened: Callable[[], Ledger]
) -> None:
    ledger = opened()

    count_and_die(tmp_path, 4)

    own, other = ledger.pages()
    assert own.pid is not None
    assert other.pid is None
    assert other.numbers["requests", 'é\n"quoted"'] == 4


def test_ended_processes_are_folded_into_one_without_losing_a_count(
    tmp_path: Path, opened: Callable[[], Ledger]
) -> None:
    witness = opened()

    for amount in (1, 2, 4):
        count_and_die(tmp_path, amount)
    opened()

    assert total(witness, "requests", 'é\n"quoted"') == 7
    assert len(list(tmp_path.glob("*.numbers"))) == 3  # the two that live, and one for all that have ended
    assert {page.pid is None for page in witness.pages()[1:]} == {True, False}


def test_a_closed_ledger_counts_as_ended(tmp_path: Path, opened: Callable[[], Ledger]) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(1, "requests")

    ledger.close()

    assert [page.pid for page in opened().pages()[1:]] == [None]
