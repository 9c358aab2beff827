"""The list of tables, fixed by a rule before anything is measured.

Every file of comma-, semicolon- or tab-separated text in the packages (see packages.txt) and in scikit-learn is taken
that pandas reads as a table of 50 to 50,000 rows, three columns or more, and at most two million cells. Its target is
the last column that can be one: of 2 to 20 different values, each in five rows or more on average, a class; else of
numbers with more than 20 different ones, a quantity. A table without such a column is left out, and so is one whose
content was there before.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sklearn  # its data only

ENDINGS = (".csv", ".csv.gz", ".tab", ".tsv", ".data")
FEWEST_ROWS, MOST_ROWS, MOST_CELLS = 50, 50_000, 2_000_000
FEWEST_COLUMNS = 3
MOST_CLASSES, ROWS_A_CLASS = 20, 5


@dataclass(frozen=True)
class Found:
    """A table: its name, the name its file would have, its bytes, its target, and as pandas reads it, all as text."""

    name: str
    file_name: str
    content: bytes
    target: str
    frame: Any

    @property
    def half(self) -> str:
        """`first`, which may be looked at again and again while one works, or `second`, which may not."""
        return ("first", "second")[hashlib.sha256(self.name.encode()).digest()[0] % 2]


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file of a table in a folder of installed packages."""
    names = [line.split("==")[0] for line in (Path(__file__).parent / "packages.txt").read_text().splitlines()]
    roots = [folder / ("Orange" if name == "orange3" else name) for name in names if name and not name.startswith("#")]
    for root in [*roots, Path(sklearn.__file__).parent / "datasets" / "data"]:
        for path in sorted(root.rglob("*")):
            if path.name.endswith(ENDINGS) and path.is_file() and "tests" not in path.parts:
                yield f"{root.name}/{path.name}", path.read_bytes()
            elif path.name == "resources.tar.gz":
                with tarfile.open(path) as opened:
                    for member in sorted(opened.getmembers(), key=lambda member: member.name):
                        name = member.name.rsplit("/", 1)[-1]
                        if name.endswith(ENDINGS) and not name.startswith((".", "datasets.csv")):
                            file = opened.extractfile(member)
                            assert file is not None
                            yield f"{root.name}/{'/'.join(member.name.split('/')[-3:])}", file.read()


def crowd(folder: Path) -> Iterator[Found]:
    """Yield the tables of the list."""
    import pandas

    seen: set[str] = set()
    for name, content in files(folder):
        text = gzip.decompress(content) if name.endswith(".gz") else content
        digest = hashlib.sha256(text).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        try:
            frame = pandas.read_csv(
                io.BytesIO(text), sep=None, engine="python", dtype=str, keep_default_na=False, encoding_errors="replace"
            )
        except Exception:  # the rule: what pandas reads
            continue
        if not (FEWEST_ROWS <= len(frame) <= MOST_ROWS and frame.shape[1] >= FEWEST_COLUMNS):
            continue
        target = target_of(frame)
        if target is not None and frame.size <= MOST_CELLS:
            yield Found(name, name.rsplit("/", 1)[-1], content, target, frame)


def target_of(frame: Any) -> str | None:
    """Return the name of the last column that can be a target."""
    import pandas

    for name in reversed(frame.columns[1:]):
        if list(frame.columns).count(name) > 1 or not str(name).strip():
            continue
        values = frame[name].str.strip()
        values = values[~values.isin(["", "NA", "NaN", "nan", "?", "null", "None"])]
        different = values.nunique()
        if 2 <= different <= MOST_CLASSES and len(values) >= ROWS_A_CLASS * different:
            return str(name)
        if different > MOST_CLASSES and pandas.to_numeric(values, errors="coerce").notna().all():
            return str(name)
    return None
