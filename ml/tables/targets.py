"""What is predicted: which column it is, and whether it is a class or a quantity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.errors import in_quotes
from ml.tables.contents import WORD_MARKERS, Contents, alike
from ml.tables.dataset import MAX_TEXT, Target
from ml.tables.headers import Column, apart, find, key_of, listed, one_line
from ml.tables.kinds import marks_said, ordered
from ml.tables.marks import Marks, number_in
from ml.tables.numbers import LARGEST, shown_number
from ml.tables.refusals import Unusable, rows

TargetKind = Literal["classes", "quantity"]

MAX_LABELS = 1_000
# More different numbers than this are a quantity, and so are numbers of which most stand in one row alone. Codes of
# classes are few (10 digits, 10 grades); measurements and counts have hundreds, however many rows there are.
MOST_NUMBERED_CLASSES = 20
# What a column is called that is the target wherever it stands.
_NAMES = ("class", "target", "label", "species", "outcome")


@dataclass(frozen=True)
class Outcomes:
    """A target, and what each row has of it.

    Attributes:
        values: shape (n_rows,): the class of each row or its quantity, NaN where the row is left out.
        said: a sentence for each thing that was settled.
    """

    target: Target
    values: NDArray[np.float64]
    said: tuple[str, ...]


def target_column(columns: Sequence[Column], wanted: str | None) -> tuple[Column, str]:
    """Return the target's column, and why it is that one.

    It is the one that is wanted; else that with the name of one, as class or target; else the last one.

    Raises:
        TableError: no column, or more than one, is called as wanted.
    """
    if wanted is not None:
        return find(wanted, columns), ""
    for name in _NAMES:
        named = [column for column in columns if key_of(column.header) == name]
        if len(named) == 1 and named[0] is not columns[-1]:
            return named[0], " (by its name; --target chooses another one)"
    return columns[-1], " (the last one)"


def outcomes_of(
    contents: Contents, marks: Marks | Unusable, *, kind: TargetKind | None, missing: Collection[str], why: str
) -> Outcomes | Unusable:
    """Return what is predicted, by all cells of its column.

    Args:
        marks: those of its numbers, if they can be read.
        kind: what somebody has said it is; None settles it.
        missing: texts that stand for no value, besides those that are known.
        why: this column, for the sentence that names it.
    """
    column = contents.column
    if contents.kind == "numbers" and kind != "classes" and isinstance(marks, Unusable):
        return marks
    if contents.kind == "numbers" and kind != "classes" and isinstance(marks, Marks):
        values = contents.values_by(marks)
        _, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        n_different = len(counts)
        is_mostly_lone = np.count_nonzero(counts == 1) > counts.sum() / 2
        if kind == "quantity" or n_different > MOST_NUMBERED_CLASSES or is_mostly_lone:
            return _quantity(contents, marks, n_different, why=why, insists=kind is not None)
    elif kind == "quantity":
        words = [text for text, number in zip(contents.texts, contents.numbers, strict=True) if number is None and text]
        return Unusable(column, f"is no quantity: it has {listed(words[:3], quoted=True)}")
    return _classes(contents, keys_of(contents, marks, missing), kind=kind, why=why)


def keys_of(contents: Contents, marks: Marks | Unusable, missing: Collection[str]) -> list[float | str | None]:
    """Return for each different text what it has in common with other spellings of one class; None is no class."""
    if contents.kind == "numbers" and isinstance(marks, Marks):
        read = [None if number is None else number_in(number, marks) for number in contents.numbers]
        return list(read)
    return [
        None if not text or text in WORD_MARKERS or text in missing else " ".join(text.casefold().split())
        for text in contents.texts
    ]


def candidates(contents: Sequence[Contents], kind: TargetKind | None) -> list[str]:
    """Return the names of columns that could be a target: few different values, in two rows or more; or a quantity."""
    found = []
    for one in contents:
        if kind == "quantity":
            if one.kind == "numbers":
                found.append(one.column.header)
            continue
        present = one.codes if one.values is None else one.values[~np.isnan(one.values)]
        _, counts = np.unique(present, return_counts=True)
        if 2 <= len(counts) <= MOST_NUMBERED_CLASSES and counts.min() >= 2:
            found.append(one.column.header)
    return found


def _quantity(contents: Contents, marks: Marks, n_different: int, *, why: str, insists: bool) -> Outcomes | Unusable:
    column, values = contents.column, contents.values_by(marks)
    given = values[~np.isnan(values)]
    if n_different < 2:
        return Unusable(column, f"is no target: every row has {shown_number(float(given[0]))}")
    if np.abs(given).max() > LARGEST:
        return Unusable(column, "has a value too large for a 32-bit float")
    span = (
        f"{n_different} different numbers from {shown_number(float(given.min()))} to {shown_number(float(given.max()))}"
    )
    hint = "" if insists else "; --classes makes each of them a class"
    settled = ", ".join([span, *marks_said(contents, marks)])
    said = [f"quantity: {one_line(column.header)}{why}, {settled}{hint}", *_left_out(len(values) - len(given))]
    target = Target(title=column.title, unit=column.unit or contents.unit)
    return Outcomes(target, values, tuple(said))


def _classes(
    contents: Contents, keys: Sequence[float | str | None], *, kind: TargetKind | None, why: str
) -> Outcomes | Unusable:
    column = contents.column
    counts = np.bincount(contents.codes, minlength=len(contents.texts))
    spellings: dict[float | str, Counter[str]] = {}
    for text, key, count in zip(contents.texts, keys, counts.tolist(), strict=True):
        if key is not None:
            spellings.setdefault(key, Counter())[text] += count
    sizes = {key: spelled.total() for key, spelled in spellings.items()}
    n_given = sum(sizes.values())
    lone = [key for key, size in sizes.items() if size == 1]
    if len(lone) > n_given / 2 or len(sizes) - len(lone) > MAX_LABELS:
        different = f"{len(sizes)} different values" if len(sizes) > 1 else "1 value"
        return Unusable(
            column, f"is no target: it has {different} in {rows(n_given)}, as {in_quotes(contents.texts[0])}"
        )
    names = {key: min(spelled, key=lambda text: (-spelled[text], text)) for key, spelled in spellings.items()}
    labels = ordered([names[key] for key in sizes if sizes[key] > 1])
    if len(labels) < 2:
        more = ", with more than one row" if lone else ""
        what = f"there is only one class, {in_quotes(labels[0])}{more}" if labels else "no row has a value"
        return Unusable(column, f"is no target: {what}")
    if wrong := next((label for label in labels if len(label) > MAX_TEXT or "\0" in label), ""):
        return Unusable(column, f"has {in_quotes(wrong)}, which is no label: too long, or not text")
    position = {label: float(index) for index, label in enumerate(labels)}
    of_text = [np.nan if key is None else position.get(names[key], np.nan) for key in keys]
    hint = ""
    if contents.kind == "numbers" and kind is None:
        hint = f", {len(labels)} different numbers; --quantity predicts a number"
    in_order = zip(apart(labels), _in_order(names, labels), strict=True)
    said = [
        f"class column: {one_line(column.header)}{why}{hint}",
        "classes: " + ", ".join(f"{name} ({rows(sizes[key])})" for name, key in in_order),
        *(
            f"{listed(sorted(spelled), quoted=True)} are one class, {one_line(names[key])}"
            for key, spelled in spellings.items()
            if len(spelled) > 1
        ),
        *alike(labels, "classes"),
        *_left_out(len(contents.codes) - n_given),
    ]
    if lone:
        said.append(f"left out the only row of each of these classes: {listed(names[key] for key in lone)}")
    return Outcomes(Target(title=column.title, labels=labels), np.array(of_text)[contents.codes], tuple(said))


def _in_order(names: dict[float | str, str], labels: Sequence[str]) -> list[float | str]:
    key_of_name = {name: key for key, name in names.items()}
    return [key_of_name[label] for label in labels]


def _left_out(n_rows: int) -> list[str]:
    return [f"left out {rows(n_rows)} without a value in this column"] if n_rows else []
