"""What all cells of a column hold: numbers, words, and texts that stand for no value. Decides nothing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.tables.dataset import BOOLEANS
from ml.tables.headers import Column, listed, word_of
from ml.tables.marks import Evidence, Marks, Written, evidence_of, number_in, same_unit, written
from ml.tables.numbers import is_digits, number_of, plain_numbers, shown_number

# Texts that stand for no value where all others in the column are numbers, without regard to case.
NUMBER_MARKERS = {
    "na", "n/a", "n.a.", "nan", "-nan", "null", "none", "nil", "?", "??", "-", "- -", "--", "---", "–", "—", ".", "..",
    "<na>", "unknown", "missing", "#n/a", "#na", "#null!", "#div/0!", "#value!", "#num!", "#ref!", "#name?",
}  # fmt: skip
# Among words the others may be words themselves: None is the name of a class in some tables, - is that of a sign.
WORD_MARKERS = {"NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "Null", "?", "<NA>", "#N/A"}
_MARKER_CHARACTERS = 8
_SHOWN_GROUPS = 3
# A number with a point that may as well divide thousands.
_OPEN_POINT = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")

# Fewer digits are those of months and hours, which are numbers.
_CODE_DIGITS = 3
# Where a number may be a code, its text is needed.
_LEADING_ZEROS = re.compile(r"\n0[0-9]{2}")

ContentKind = Literal["numbers", "words", "mixed"]


@dataclass(frozen=True)
class Contents:
    """All cells of one column: each row's text is one of the different `texts`, by its index in `codes`.

    Attributes:
        texts: the different texts; none where `values` has the numbers already.
        codes: shape (n_rows,), int32.
        numbers: for each text, the number that it may be.
        values: shape (n_rows,), float64, where every cell is plainly a number or has no value, which is NaN.
        markers: the texts that stand for no value if the column has numbers, without the empty one.
        evidence: the marks of its numbers.
        kind: `mixed` are numbers beside words, or numbers that do not agree with each other.
        unit: beside the numbers of all cells.
        disagreement: why numbers are `mixed`.
        code: the first of the texts that begins with zero, if all are digits, as many each: a post code.
    """

    column: Column
    texts: tuple[str, ...]
    codes: NDArray[np.int32]
    numbers: tuple[Written | None, ...]
    values: NDArray[np.float64] | None
    markers: tuple[str, ...]
    evidence: Evidence
    kind: ContentKind
    unit: str = ""
    disagreement: str = ""
    code: str = ""

    def values_by(self, marks: Marks) -> NDArray[np.float64]:
        """Return the number of each row, read by these marks; NaN for no value. Shape (n_rows,)."""
        if self.values is not None:
            return self.values
        read = [None if found is None else number_in(found, marks) for found in self.numbers]
        return np.array([np.nan if number is None else number for number in read])[self.codes]


def contents_of(
    column: Column, cells: NDArray[Any], *, has_types: bool, missing: Collection[str] = (), plain: bool = True
) -> Contents:
    """Return what the cells of a column hold.

    Args:
        cells: shape (n_rows,), text.
        has_types: whether a number can only be one in the form of a programming language.
        missing: texts that stand for no value, besides those that are known.
        plain: whether plain numbers may come without their texts, in a fraction of the time.
    """
    texts: list[str] = cells.tolist()
    found = _plain(column, texts, has_types=has_types, missing=missing) if plain else None
    return found or _different(column, texts, has_types=has_types, missing=missing)


def is_marker_of_numbers(text: str) -> bool:
    """Tell whether a text stands for no value beside numbers."""
    return len(text) <= _MARKER_CHARACTERS and text.casefold() in NUMBER_MARKERS


@cache
def marker_spellings() -> Set[str]:
    """Return the texts that stand for no value beside numbers, as most tables spell them."""
    return WORD_MARKERS.union(NUMBER_MARKERS, map(str.upper, NUMBER_MARKERS), map(str.capitalize, NUMBER_MARKERS))


def alike(words: Iterable[str], what: str) -> list[str]:
    """Return a sentence for each of the first groups of words that may be one: they differ in case or space, or are
    the same number or the same truth, as 1 and yes are.

    Args:
        what: they are in the model, in the plural.
    """
    spelled: dict[str, list[str]] = {}
    for word in words:
        key = shown_number(number_of(word)) if is_digits(word) else " ".join(word.casefold().split())
        spelled.setdefault(key, []).append(word)
    groups = [group for group in spelled.values() if len(group) > 1]
    for texts in BOOLEANS:
        found = [spelled[text] for text in texts if text in spelled]
        groups += [[*itertools.chain.from_iterable(found)]] if len(found) > 1 else []
    return [
        f"{listed(group, quoted=True)} may mean the same, but are different {what}: write them in one way"
        for group in groups[:_SHOWN_GROUPS]
    ]


def _plain(column: Column, texts: Sequence[str], *, has_types: bool, missing: Collection[str]) -> Contents | None:
    different = {text for text in texts if len(text) <= _MARKER_CHARACTERS or text in missing}
    gaps = {text for text in different if not text or text in missing or is_marker_of_numbers(text)}
    whole = "\n".join(["", *texts])
    values = None if _LEADING_ZEROS.search(whole) else plain_numbers(texts, gaps)
    if values is None or np.isnan(values).all():
        return None
    evidence = Evidence({}, {}, {})
    if not has_types and "." in whole:
        evidence = _evidence_of_points(text for text in texts if "." in text and text not in gaps)
        if evidence.open and not evidence.decimals:
            return None  # what the points mean is settled later, and then their texts are needed
    markers = tuple(sorted(gaps - {""}))
    return Contents(column, (), np.array([], dtype=np.int32), (), values, markers, evidence, "numbers")


def _evidence_of_points(texts: Iterable[str]) -> Evidence:
    open_marks: dict[str, str] = {}
    for text in texts:
        if not _OPEN_POINT.fullmatch(text):
            return Evidence({".": text}, {}, open_marks)
        open_marks.setdefault(".", text)
    return Evidence({}, {}, open_marks)


def _different(column: Column, cells: Sequence[str], *, has_types: bool, missing: Collection[str]) -> Contents:
    places: dict[str, int] = {}
    codes = np.fromiter((places.setdefault(text, len(places)) for text in cells), dtype=np.int32, count=len(cells))
    texts = tuple(places)
    if (words := tuple(map(_word_of, texts))) != texts:
        places = {}
        merged = [places.setdefault(word, len(places)) for word in words]
        codes, texts = np.array(merged, dtype=np.int32)[codes], tuple(places)
    gaps = {text for text in texts if not text or text in missing}
    numbers = tuple(None if text in gaps else _number(text, has_types=has_types) for text in texts)
    found = [(text, number) for text, number in zip(texts, numbers, strict=True) if number is not None]
    others = [text for text, number in zip(texts, numbers, strict=True) if number is None and text not in gaps]
    evidence = evidence_of([]) if has_types else evidence_of(found)
    kind: ContentKind = "words"
    unit = disagreement = ""
    if found and all(map(is_marker_of_numbers, others)):
        gaps |= set(others)
        unit, disagreement = _agreement(column, found, evidence)
        kind = "mixed" if disagreement else "numbers"
    elif found:
        kind = "mixed"
    markers = tuple(sorted(gaps - {""}))
    code = _code_in([text for text in texts if text not in gaps]) if kind == "numbers" else ""
    return Contents(column, texts, codes, numbers, None, markers, evidence, kind, unit, disagreement, code)


def _code_in(texts: Sequence[str]) -> str:
    """Return the first of numbers that begins with zero, if all are digits, as many each; else nothing."""
    n_digits = len(texts[0])
    is_code = n_digits >= _CODE_DIGITS and all(len(text) == n_digits and text.isdecimal() for text in texts)
    return next((text for text in texts if text[0] == "0"), "") if is_code else ""


def _word_of(text: str) -> str:
    """Return text as words are compared; as it is where that would make one number of two, as of 1 and 234."""
    word = word_of(text)
    return text if word != text and written(word) and not written(text) else word


def _number(text: str, *, has_types: bool) -> Written | None:
    found = written(text)
    if found is None or not has_types:
        return found
    # The point of a number that has a type is decimal, and has nothing beside it.
    return Written(found.digits, "", "", "", "") if found.digits == text and not set(text) & set(",' ") else None


def _agreement(column: Column, found: Sequence[tuple[str, Written]], evidence: Evidence) -> tuple[str, str]:
    """Return the unit of all numbers, and why they do not agree with each other, if so."""
    if pair := evidence.contradiction:
        return "", f"{pair[0]!r} and {pair[1]!r} have different marks"
    units: dict[str, str] = {}
    for text, number in found:
        units.setdefault(number.unit, text)
    named = max(units, key=len)
    if column.unit:
        units.pop("", None)
        units.setdefault(column.unit, column.header)
        named = column.unit
    for unit, text in units.items():
        if not same_unit(unit, named):
            return "", f"{units[named]!r} and {text!r} have different units"
    return named, ""
