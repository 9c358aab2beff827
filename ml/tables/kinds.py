"""What each column is: a number, a category, nothing to learn from, or nothing that can be read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.errors import in_quotes
from ml.tables.contents import WORD_MARKERS, Contents, alike, is_marker_of_numbers
from ml.tables.dataset import MAX_CHOICES, MAX_TEXT, Feature
from ml.tables.headers import Column, Limits, listed
from ml.tables.marks import Marks
from ml.tables.numbers import LARGEST, NotANumber, number_of, shown_number
from ml.tables.refusals import (
    FEW,
    TEXT,
    Unusable,
    beyond_limits,
    disagreeing,
    is_other_in_each_row,
    mistakes,
    reason_against_number,
    reason_against_words,
    rows,
    with_value,
)

# Where this share of the cells is numbers, the others are mistakes, or words for no value.
MOSTLY_NUMBERS = 0.9
_MARKS = {".": "a point", ",": "a comma", "'": "an apostrophe", " ": "a space"}
# What has letters and digits beside whole numbers is a code, and so are they.
_CODE = re.compile(r"[^\W_]*[0-9][^\W_]*")


@dataclass(frozen=True)
class Settled:
    """A column to learn from: its feature, its value in each row that is kept, and a sentence about it.

    It is plain where that says no more than what the feature is called.
    """

    feature: Feature
    values: NDArray[np.float64]
    said: str
    is_plain: bool = False


@dataclass(frozen=True)
class LeftOut:
    """A column from which nothing can be learned, why, and whether its rows have different values all the same."""

    column: Column
    reason: str
    has_values: bool = False

    @property
    def said(self) -> str:
        """A sentence about it."""
        hint = f"; {_option('--keep', self.column)} insists" if self.has_values else ""
        return f"left out {in_quotes(self.column.header)}: {self.reason}{hint}"


class Kinds:
    """Settles what the columns of one table are, by the rows that are learned from.

    Args:
        kept: shape (n_rows,): which rows these are.
        lines: shape (n_rows,): where they start in the file.
        limits: by key.
        missing: texts that stand for no value, besides those that are known.
    """

    def __init__(
        self,
        kept: NDArray[np.bool_],
        lines: NDArray[np.int64],
        limits: Mapping[str, Limits],
        missing: Collection[str],
    ) -> None:
        self._kept = kept
        self._lines = lines[kept]
        self._limits = limits
        self._missing = missing

    def of(self, contents: Contents, marks: Marks | Unusable, *, insists: bool) -> Settled | LeftOut | Unusable:
        """Return what a column is.

        Args:
            marks: those of its numbers, if they can be read.
            insists: whether somebody has said to keep it, whatever it is.
        """
        if contents.kind == "numbers" and isinstance(marks, Marks) and (insists or not contents.code):
            return self._number(contents, marks, insists=insists)
        if not insists and (problem := self.problem(contents, marks)):
            return problem
        return self._words(contents, insists=insists)

    def _number(self, contents: Contents, marks: Marks, *, insists: bool) -> Settled | LeftOut | Unusable:
        column = contents.column
        values = contents.values_by(marks)[self._kept]
        is_gap = np.isnan(values)
        given = values[~is_gap]
        if not len(given):
            return LeftOut(column, "no row has a value")
        limits = self._limits.get(column.key, Limits(None, None))
        if problem := self._beyond(column, values, limits):
            return problem
        has_gaps, different = len(given) < len(values), np.unique(given)
        if not insists and (reason := reason_against_number(column, different, len(values), has_gaps=has_gaps)):
            return LeftOut(column, reason, has_values=given.min() < given.max())
        feature = Feature(
            key=column.key, title=column.title, unit=column.unit or contents.unit, header=column.header,
            minimum=limits.minimum, maximum=limits.maximum, has_gaps=has_gaps,
            markers=contents.markers if has_gaps else (), decimal=marks.decimal, thousands=marks.thousands,
        )  # fmt: skip
        said = [_named(feature), *marks_said(contents, marks), *_gaps_said(feature, int(is_gap.sum()))]
        if not insists and len(given) > FEW and is_other_in_each_row(different, len(given)):
            option = _option("--drop", column)
            said.append(f"another whole number in each row, as identifiers have: {option} leaves it out if it is one")
        return Settled(feature, values, ", ".join(said), is_plain=len(said) == 1)

    def _beyond(self, column: Column, values: NDArray[np.float64], limits: Limits) -> Unusable | None:
        low = -np.inf if limits.minimum is None else limits.minimum
        high = np.inf if limits.maximum is None else limits.maximum
        for beyond, why in [
            (np.abs(values) > LARGEST, "too large for a 32-bit float"),
            ((values < low) | (values > high), "outside the limits given"),
        ]:
            if beyond.any():
                return beyond_limits(column, values, beyond, self._lines, why)
        return None

    def problem(self, contents: Contents, marks: Marks | Unusable) -> Unusable | None:
        """Return what is wrong with a column that would have numbers but for their marks, or for some of its cells."""
        if contents.kind != "mixed":
            return marks if contents.kind == "numbers" and isinstance(marks, Unusable) else None
        if contents.evidence.contradiction and contents.disagreement:
            return disagreeing(contents)
        counts = np.bincount(contents.codes[self._kept], minlength=len(contents.texts))
        is_number = np.array([number is not None for number in contents.numbers])
        is_odd = ~is_number & ~self._is_gap(contents, WORD_MARKERS) & (counts > 0)
        if contents.disagreement:  # those with a unit are numbers, those without are codes with a letter, such as 12b
            is_number = np.array([number is not None and bool(number.unit) for number in contents.numbers])
        n_numbers, n_all = counts[is_number].sum(), counts.sum() - counts[self._is_gap(contents, WORD_MARKERS)].sum()
        odd = np.flatnonzero(is_odd).tolist()
        is_few = np.count_nonzero(counts[is_number]) + len(odd) <= FEW
        if is_few or n_numbers < MOSTLY_NUMBERS * n_all:
            return None
        if contents.disagreement:
            return disagreeing(contents)
        if not contents.evidence.decimals and all(_CODE.fullmatch(contents.texts[code]) for code in odd):
            return None
        return mistakes(contents, odd, self._kept, self._lines)

    def _words(self, contents: Contents, *, insists: bool) -> Settled | LeftOut | Unusable:
        column = contents.column
        codes = contents.codes[self._kept]
        is_gap = self._is_gap(contents, contents.markers if contents.code else WORD_MARKERS)
        counts = np.bincount(codes, minlength=len(contents.texts))
        present = np.flatnonzero(~is_gap & (counts > 0)).tolist()
        n_gaps = int(counts[is_gap].sum())
        if not present:
            return LeftOut(column, "no row has a value")
        texts = {code: contents.texts[code] for code in present}
        ranked = sorted(present, key=lambda code: (-counts[code], texts[code]))[:MAX_CHOICES]
        chosen = int(counts[ranked].sum())
        if not insists and (reason := reason_against_words(column, [*texts.values()], len(codes), n_gaps, chosen)):
            reason = self._numbers_but(contents, codes, present) or reason if reason.startswith(TEXT) else reason
            return LeftOut(column, reason, has_values=len(present) > 1)
        if long := next((texts[code] for code in ranked if len(texts[code]) > MAX_TEXT or "\0" in texts[code]), ""):
            return LeftOut(column, f"{in_quotes(long)} is too long for a choice, or not text")
        choices = ordered(texts[code] for code in ranked)
        positions = {choice: float(position) for position, choice in enumerate(choices)}
        values = np.array([positions.get(text, np.nan) for text in contents.texts])[codes]
        used = tuple(sorted({contents.texts[code] for code in np.flatnonzero(is_gap & (counts > 0))} - {""}))
        feature = Feature(
            key=column.key, title=column.title, unit=column.unit, header=column.header, choices=choices,
            has_gaps=n_gaps > 0, markers=used,
        )  # fmt: skip
        said = [
            _named(feature),
            f"a category of {len(choices)}: {listed(choices)}",
            *_code_said(contents),
            *_gaps_said(feature, n_gaps),
            *alike(choices, "choices"),
        ]
        if len(present) > len(ranked):
            rest = len(codes) - n_gaps - chosen
            said.append(f"the most frequent of {len(present)}; {rows(rest)} with others count as no value")
        return Settled(feature, values, ", ".join(said))

    def _numbers_but(self, contents: Contents, codes: NDArray[np.int32], present: Sequence[int]) -> str:
        """Return what makes text of a column that is mostly numbers: zeros in front, or the first cell that is none."""
        if contents.code:
            return f"codes, {len(present)} different in {rows(len(codes))}, as {in_quotes(contents.code)} begins with 0"
        is_number = np.isin(codes, [code for code in present if contents.numbers[code] is not None])
        texts = contents.texts
        odd = [code for code in present if contents.numbers[code] is None and not is_marker_of_numbers(texts[code])]
        is_odd, n_numbers = np.isin(codes, odd), int(is_number.sum())
        if n_numbers <= is_odd.sum() or not is_odd.any():
            return ""
        first = int(is_odd.argmax())
        return (
            f"numbers in {rows(n_numbers)}, and something else in {rows(int(is_odd.sum()))}, as "
            f"{in_quotes(texts[codes[first]])} on line {self._lines[first]}; --missing reads a text as no value"
        )

    def _is_gap(self, contents: Contents, markers: Collection[str]) -> NDArray[np.bool_]:
        """Return for each text whether it stands for no value among words."""
        return np.array([not text or text in markers or text in self._missing for text in contents.texts], dtype=bool)


def ordered(words: Iterable[str]) -> tuple[str, ...]:
    """Return words in the order of numbers if all are numbers, else of their text."""
    texts = list(words)
    try:
        return tuple(sorted(texts, key=lambda text: (number_of(text), text)))
    except NotANumber:
        return tuple(sorted(texts))


def _named(feature: Feature) -> str:
    parts = [f"{in_quotes(feature.header)} is feature {feature.key}"]
    if feature.unit:
        parts.append(f"in {feature.unit}")
    if feature.minimum is not None:
        parts.append(f"at least {shown_number(feature.minimum)}")
    if feature.maximum is not None:
        parts.append(f"at most {shown_number(feature.maximum)}")
    return ", ".join(parts)


def marks_said(contents: Contents, marks: Marks) -> list[str]:
    """Return what was settled about the marks of a column's numbers, where there was something to settle."""
    evidence = contents.evidence
    texts = {**evidence.open, **evidence.thousands, **evidence.decimals}
    said = []
    for mark, text in texts.items():
        if mark != marks.decimal:
            said.append(f"{_MARKS[mark]} divides its thousands, as in {in_quotes(text)}")
        elif mark == "," or mark not in evidence.decimals:
            said.append(f"{_MARKS[mark]} is its decimal mark, as in {in_quotes(text)}")
    return said


def _option(name: str, column: Column) -> str:
    return shlex.join(with_value(name, column.argument))


def _code_said(contents: Contents) -> list[str]:
    if not contents.code:
        return []
    option = _option("--keep", contents.column)
    return [f"codes, as {in_quotes(contents.code)} begins with 0: {option} takes them as numbers"]


def _gaps_said(feature: Feature, n_gaps: int) -> list[str]:
    if not n_gaps:
        return []
    markers = f" ({', '.join(map(in_quotes, feature.markers))})" if feature.markers else ""
    return [f"no value in {rows(n_gaps)}{markers}"]
