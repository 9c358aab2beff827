"""Fold a forest on the columns of a pipeline into one on the features: the same answers, without the steps.

A node that compares a column divides the values of one feature: at a number between two float64 neighbours, found by
bisection over the order of floats, or between the cells of a category. Nothing is computed that rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.estimators.divisions import Division, divisions
from ml.estimators.splitting import split_nodes
from ml.model.design import DesignColumn, cell_values, cells_of
from ml.model.forest import FIRST_CHOICE_CELL, LEAF, MAX_CELLS, NO_VALUE_CELL, UNKNOWN_CELL, Forest, packed
from ml.tables.dataset import Feature

Values = NDArray[np.float64]
Bits = NDArray[np.bool_]


def fold(forest: Forest, columns: Sequence[DesignColumn], features: Sequence[Feature]) -> Forest:
    """Return the forest on features that gives the answers of `forest` on the columns made of them.

    Raises:
        ForestError: a function among the steps is not monotone, or the trees become too large.
    """
    if [*columns] == [DesignColumn(feature=place) for place in range(len(features))]:
        return forest
    return _Fold(forest, columns, features).forest()


class _Fold:
    """The nodes of a forest by what they ask, and what they ask of the features instead.

    Nodes that ask the same are one *question*: most forests have far fewer of these than nodes.
    """

    def __init__(self, forest: Forest, columns: Sequence[DesignColumn], features: Sequence[Feature]) -> None:
        self._old, self._columns, self._features = forest, columns, features
        self._set_of = np.full(len(forest.feature), -1) if forest.set_of is None else forest.set_of
        self._inner = np.flatnonzero(forest.feature != LEAF)
        asked: list[NDArray[Any]] = [forest.feature, forest.threshold.view(np.int64), forest.missing_left, self._set_of]
        lines = np.stack([part[self._inner].astype(np.int64) for part in asked])
        _, first, question_of = np.unique(lines, axis=1, return_index=True, return_inverse=True)
        self._question_of = question_of.ravel()
        self._examples = self._inner[first]
        by_question = forest.feature[self._examples].tolist()
        self._by_column: dict[int, list[int]] = {}
        for question, column in enumerate(by_question):
            self._by_column.setdefault(column, []).append(question)
        # Where each number is compared as it is, it stays a float32.
        numbers = [columns[place] for place in self._by_column if not columns[place].table]
        self._is_plain = all({operation.name for operation in one.operations} <= {"fill"} for one in numbers)
        n_questions = len(by_question)
        self._threshold = np.zeros(n_questions)
        self._missing_left = np.zeros(n_questions, dtype=bool)
        self._swaps = np.zeros(n_questions, dtype=bool)
        self._set = np.full(n_questions, -1, dtype=np.int32)
        self._several: dict[int, Division] = {}
        self._sets: list[Bits] = []

    def forest(self) -> Forest:
        by_feature: dict[int, dict[int, Bits]] = {}
        for place, questions in self._by_column.items():
            column = self._columns[place]
            if column.table:
                bits = self._bits(column, questions)
                by_feature.setdefault(column.feature, {}).update(zip(questions, bits, strict=True))
            else:
                self._divide(column, questions)
        for feature, bits_of in by_feature.items():
            self._choose(len(self._features[feature].choices), bits_of)
        return self._built()

    def _goes_left(self, questions: Sequence[int]) -> Callable[[Values], Bits]:
        """Return which of the nodes send a value of the column left: shape (..., n_questions) in and out."""
        nodes = self._examples[questions]
        thresholds, missing_left = self._old.threshold[nodes], self._old.missing_left[nodes]
        sets, is_single = self._set_of[nodes], self._old.total.single_values

        def goes_left(values: Values) -> Bits:
            with np.errstate(over="ignore"):
                compared = values.astype(np.float32) if is_single else values
            sides = np.where(np.isnan(values), missing_left, compared <= thresholds)
            if self._old.sets is not None and np.any(sets >= 0):
                cells = np.minimum(cells_of(np.minimum(values, MAX_CELLS)), MAX_CELLS - 1)
                # A column's value that is no cell of its own is a word not among the choices.
                bits = self._old.sets[np.maximum(sets, 0), cells // 64] >> (cells % 64).astype(np.uint64)
                sides = np.where(sets >= 0, bits & np.uint64(1) == 1, sides)
            return np.asarray(sides, dtype=bool)

        return goes_left

    def _bits(self, column: DesignColumn, questions: Sequence[int]) -> Bits:
        """Return which cells of a category go left, shape (n_questions, n_cells)."""
        values = column.values(cell_values(len(self._features[column.feature].choices)))
        return self._goes_left(questions)(np.repeat(values[:, None], len(questions), axis=1)).T

    def _divide(self, column: DesignColumn, questions: Sequence[int]) -> None:
        goes_left, nodes = self._goes_left(questions), self._examples[questions]
        if self._is_plain and not column.is_missing:
            missing = goes_left(np.repeat(column.values(np.array([np.nan])), len(questions)))
            ends = [(end,) if end < np.inf else () for end in self._old.threshold[nodes].tolist()]
            found = [Division(end, True, lacks) for end, lacks in zip(ends, missing.tolist(), strict=True)]
        else:
            found = divisions(column, self._features[column.feature], goes_left, len(questions))
        for question, division in zip(questions, found, strict=True):
            if len(division.ends) > 1:
                self._several[question] = division
            self._set_division(question, division)

    def _set_division(self, question: int, division: Division) -> None:
        self._threshold[question] = division.ends[0] if division.ends else np.inf
        self._swaps[question] = not division.first_left
        self._missing_left[question] = division.missing_left == division.first_left

    def _choose(self, n_choices: int, bits_of: dict[int, Bits]) -> None:
        """Compare a category by its position if all nodes can, else by sets."""
        found = {question: _division_of(bits, n_choices) for question, bits in bits_of.items()}
        if None not in found.values():
            for question, division in found.items():
                assert division is not None
                self._set_division(question, division)
            return
        for question, bits in bits_of.items():
            self._set[question] = len(self._sets)
            self._sets.append(bits)

    def _built(self) -> Forest:
        old, of, inner = self._old, self._question_of, self._inner
        feature, threshold = old.feature.copy(), old.threshold.copy()
        feature[inner] = np.array([column.feature for column in self._columns], dtype=np.int32)[old.feature[inner]]
        threshold[inner] = self._threshold[of]
        missing_left, set_of = old.missing_left.copy(), np.full(len(feature), -1, dtype=np.int32)
        missing_left[inner], set_of[inner] = self._missing_left[of], self._set[of]
        swaps = np.zeros(len(feature), dtype=bool)
        swaps[inner] = self._swaps[of]
        built = replace(
            old,
            n_features=len(self._features),
            feature=feature,
            threshold=threshold,
            missing_left=missing_left,
            left=np.where(swaps, old.right, old.left),
            right=np.where(swaps, old.left, old.right),
            set_of=set_of if self._sets else None,
            sets=_words_of(self._sets) if self._sets else None,
            total=msgspec.structs.replace(old.total, single_values=old.total.single_values and self._is_plain),
        )
        several = {
            node: _turned(self._several[question])
            for node, question in zip(inner.tolist(), of.tolist(), strict=True)
            if question in self._several
        }
        return split_nodes(built, several) if several else built


def _division_of(bits: Bits, n_choices: int) -> Division | None:
    """Return the division by positions that sends the cells of a category the same ways; None if there is none."""
    sides = bits[FIRST_CHOICE_CELL:].tolist()
    turns = [position for position in range(1, n_choices) if sides[position] != sides[position - 1]]
    if bits[NO_VALUE_CELL] != bits[UNKNOWN_CELL] or len(turns) > 1:
        return None
    return Division(tuple(turn - 0.5 for turn in turns), sides[0], bool(bits[NO_VALUE_CELL]))


def _turned(division: Division) -> Division:
    """Return the division of a node whose children were swapped if its first values did not go left."""
    return replace(division, first_left=True, missing_left=division.missing_left == division.first_left)


def _words_of(sets: Sequence[Bits]) -> NDArray[np.uint64]:
    cells = np.zeros((len(sets), MAX_CELLS), dtype=bool)
    for line, bits in zip(cells, sets, strict=True):
        line[: len(bits)] = bits
    return packed(cells)
