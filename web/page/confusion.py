"""The confusion matrix of a model on its test rows, or its most frequent mistakes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.card import Report
from web.page.languages import Language

# A matrix of more classes is too large for a page: the most frequent errors are listed instead.
MATRIX_LABELS = 30
MISTAKES = 10
LEVELS = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """The number of test rows of one class with one prediction; `css_classes`: a level of 1 to 8, right or not."""

    count: str
    css_classes: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of the confusion matrix: its test rows by prediction, its recall and its precision."""

    label: str
    cells: Sequence[Cell]
    recall: str
    precision: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """The number of test rows of the class `label` that were predicted as `answer`."""

    label: str
    answer: str
    count: str


def classes_of(report: Report, labels: Sequence[str], language: Language) -> Sequence[ClassRow]:
    """Return the rows of the confusion matrix; none for more classes than fit on a page."""
    answered = [sum(column) for column in zip(*report.confusion, strict=True)]
    return [
        ClassRow(
            label,
            [
                _cell(count, of=sum(counts), is_right=answer == index, language=language)
                for answer, count in enumerate(counts)
            ],
            # A class without rows has no recall, and one that was never predicted no precision, whatever the card says.
            recall=language.percent(report.recall[index]) if sum(counts) > 0 else "–",
            precision=language.percent(report.precision[index]) if answered[index] > 0 else "–",
        )
        for index, (label, counts) in enumerate(zip(labels, report.confusion, strict=True))
    ]


def _cell(count: int, *, of: int, is_right: bool, language: Language) -> Cell:
    css_classes = ["right"] if is_right else []
    if count > 0:
        # Even one row of a thousand is visible.
        css_classes.insert(0, f"level-{max(1, round(LEVELS * count / of)) if count < of else LEVELS}")
    return Cell(language.number(count), " ".join(css_classes))


def mistakes_of(report: Report, labels: Sequence[str], language: Language) -> Sequence[Mistake]:
    """Return the most frequent mistakes, where the matrix is too large to be shown."""
    counts = (
        (count, label, labels[answer])
        for index, (label, row) in enumerate(zip(labels, report.confusion, strict=True))
        if sum(row) != row[index]
        for answer, count in enumerate(row)
        if count > 0 and answer != index
    )
    worst = heapq.nlargest(MISTAKES, counts, key=lambda mistake: mistake[0])
    return [Mistake(label, answer, language.number(count)) for count, label, answer in worst]
