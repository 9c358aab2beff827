"""python -m tests.crowd FOLDER: train every table of a crowd, ask the service, and print what share is served rightly.

FOLDER is where the packages of packages.txt are installed: pip install --no-deps --target FOLDER -r packages.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from ml.__main__ import main as ml
from tests.crowd.asking import Differs, ask
from tests.crowd.tables import Found, crowd

TREES = 20  # enough to tell a right answer from a wrong one


def outcome_of(found: Found, folder: Path) -> tuple[str, str]:
    """Train a table with nothing but its target and ask for its rows: `served`, `refused`, `differs` or `broken`."""
    table, model = folder / found.file_name, folder / "model.npz"
    table.write_bytes(found.content)
    model.unlink(missing_ok=True)
    said, complained = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            status = ml(
                [
                    "train",
                    str(table),
                    "--target",
                    found.target,
                    "--out",
                    str(model),
                    "--trees",
                    str(TREES),
                    "--name",
                    "m",
                ]
            )
        if status:
            return "refused", complained.getvalue().strip()
        ask(found, model)
    except Differs as error:
        return "differs", str(error)
    except Exception:  # a table that breaks the program is what this looks for
        return "broken", traceback.format_exc(limit=-1).replace("\n", " ")
    finally:
        table.unlink()
    return "served", ""


def main() -> int:
    """Print the outcome of each table that is not served, and the shares."""
    parser = argparse.ArgumentParser(prog="python -m tests.crowd", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=("first", "second"), default="first", help="default: first")
    parser.add_argument("--only", default="", metavar="TEXT", help="tables with this in their name")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every n-th table; default: 1")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    start = time.monotonic()
    chosen = [one for one in crowd(options.folder) if one.half == options.half and options.only in one.name]
    with tempfile.TemporaryDirectory() as folder:
        for found in chosen[:: options.every]:
            outcome, why = outcome_of(found, Path(folder))
            counts[outcome] += 1
            if outcome != "served":
                print(f"{outcome:8} {found.name} [{found.target}]: {why}", flush=True)
    total = sum(counts.values())
    shares = ", ".join(f"{count} {outcome} ({count / total:.1%})" for outcome, count in counts.most_common())
    print(f"{options.half} half, {total} tables: {shares}; {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
