"""Score text block by block: what comes in goes out, with label and probabilities added. Memory stays constant."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

import msgspec

from ml.errors import TableError
from ml.model.loaded import LoadedModel
from ml.scoring.layout import ColumnName, OtherAnswers, Place, added_columns, name_of, positions_of
from ml.scoring.rows import BadRow, Part, PredictEach, ScoredRows
from ml.scoring.source import Source
from ml.tables.dialect import Dialect
from ml.tables.encoding import understood
from ml.tables.files import BLOCK_CHARACTERS
from ml.tables.header_rows import header_row_of
from ml.tables.headers import MAX_COLUMNS
from ml.tables.marks import Marks
from ml.tables.rows import Block, RowReader
from ml.tables.written import RowWriter

# A part has at most so many cells.
MAX_PART_CELLS = 2**15
# So many names of columns are understood at once, in 3 ms; parts without text come in between.
_NAMES_A_PART = 512


@dataclass(frozen=True, slots=True)
class Scored:
    """How many rows were read, and how many of them were left blank."""

    rows: int
    bad: int


def score(
    model: LoadedModel,
    source: Source | TextIO,
    sink: TextIO,
    *,
    on_bad: Callable[[BadRow], None],
    guarded: bool = False,
    strict: bool = False,
    marks: Marks | None = None,
    explain: bool = False,
) -> Scored:
    """Copy a table from `source` to `sink` with the model's answers in new columns at its end.

    Args:
        source: a table, or text opened with newline="": a header row, then rows.
        sink: text opened with newline="".
        on_bad: is called with each row that has no answer.
        guarded, strict, marks, explain: as for `Scorer`.

    Raises:
        TableError: as `Scorer.feed`, `Scorer.take` and `Scorer.finish`.
    """
    has_header = source.has_header if isinstance(source, Source) else True
    scorer = Scorer(model, guarded=guarded, strict=strict, marks=marks, has_header=has_header, explain=explain)
    if isinstance(source, Source) and source.has_blocks:
        parts = itertools.chain.from_iterable(map(scorer.take, source.blocks()))
    else:
        texts = iter(lambda: source.read(BLOCK_CHARACTERS), "")
        parts = itertools.chain(itertools.chain.from_iterable(map(scorer.feed, texts)), scorer.finish())
    rows = bad = 0
    for part in parts:
        sink.write(part.text)
        for row in part.bad:
            on_bad(row)
        if part.rows:
            rows, bad = rows + part.rows, bad + len(part.bad)
        del part  # frees its cells and answers before the next ones are made: a tenth of the time
    return Scored(rows, bad)


class Scorer:
    """A table that comes as text in pieces of any size, and goes with a model's answers. It does no I/O by itself.

    The columns of the features may stand in any order and with any others between them. The new ones, at the end, are
    `added_columns`. A row without an answer keeps its place: its new cells are empty but for the last, which says why;
    cells beyond those of the header come after that one. Blank lines are left out. A row of units or types below the
    header keeps its place, too, and a note says what it is.

    Args:
        max_cells: the most cells in a part, so that one takes about as long as another.
        guarded: mark cells that a spreadsheet would take for formulas, see `ml.tables.written.guard`.
        strict: a row without an answer is an error.
        place: go on there, without a header.
        has_header: whether the first row has names; else the columns are `column_1` and so on.
        marks: those of the table's numbers; without them the model's, as training settled them column by column.
        predict: stands in for the model's own `predict_each`, to measure or count what it is asked.
        explain: write what each feature adds to an answer, too; only for a model without an `obstacle`.

    Attributes:
        place: of the first row that is not complete; None while the header is not.

    Raises:
        OtherAnswers: on construction, the table up to `place` was scored by a model with other features or labels.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        max_cells: int = MAX_PART_CELLS,
        guarded: bool = False,
        strict: bool = False,
        place: Place | None = None,
        marks: Marks | None = None,
        has_header: bool = True,
        predict: PredictEach = LoadedModel.predict_each,
        explain: bool = False,
    ) -> None:
        self._explain = explain
        self._model = model
        self._predict = predict
        self._max_cells = max_cells
        self._guarded = guarded
        self._strict = strict
        self._marks = marks
        self._table: ScoredRows | None = None
        # What stands above the next row, as long as that may belong to the header.
        self._above = "header" if has_header and place is None else ""
        # A model that knows what to do with no value at all answers such a row; else the file may just end with some.
        keep_separators = all(feature.has_gaps for feature in model.features)
        self._reader = RowReader(
            allow_one_column=len(model.features) == 1, keep_separators=keep_separators, has_header=has_header
        )
        if place is not None:
            self._reader = RowReader(dialect=place.dialect, line=place.line, keep_separators=keep_separators)
            self._go_on(place)

    @property
    def place(self) -> Place | None:
        if self._table is None:
            return None
        return msgspec.structs.replace(self._table.place, line=self._reader.line)

    @property
    def held_characters(self) -> int:
        """How many characters at the end of the text belong to a row that is not complete."""
        return self._reader.held_characters

    def use(self, model: LoadedModel) -> None:
        """Score what follows by another model.

        Raises:
            OtherAnswers: it has other features or labels.
        """
        self._model = model
        if self._table is not None:
            self._go_on(self._table.place)

    def feed(self, text: str) -> Iterator[Part]:
        """Take text, and yield what is complete by now: the header, and rows.

        Raises:
            TableError: there is no header, or it lacks a feature, or the text is not CSV, or, if `strict`, a row has
                no answer. The rows before were yielded.
        """
        yield from self._score(self._reader.feed(text))

    def take(self, block: Block) -> Iterator[Part]:
        """Take a block of rows that are no text, the first one with the header; yield what they become.

        Raises:
            TableError: the header lacks a feature, or, if `strict`, a row has no answer.
        """
        if self._table is None:
            self._reader = RowReader(dialect=Dialect(","))
        for start in range(0, len(block.rows), self._reader.max_rows):
            rows = slice(start, start + self._reader.max_rows)
            yield from self._score(iter([Block(block.rows[rows], block.lines[rows], None)]))

    def finish(self) -> Iterator[Part]:
        """Yield what is left: no more text comes.

        Raises:
            TableError: as `feed`; or a quote is still open, so that all that follows it would be lost in one cell.
        """
        yield from self._score(self._reader.finish())

    def _score(self, blocks: Iterator[Block]) -> Iterator[Part]:
        for block in blocks:
            if self._table is not None:
                yield from self._below_header(self._table, block) if self._above else self._table.parts(block)
                continue
            header = [*map(understood, block.rows[0])]
            if len(header) > MAX_COLUMNS:
                raise TableError(f"the header has {len(header)} columns, at most {MAX_COLUMNS} are read")
            names: list[ColumnName] = []
            for number, text in enumerate(header, 1):
                if number % _NAMES_A_PART == 0:
                    yield Part("", 0)
                names.append(name_of(text, number))
            added = self._added(header)
            dialect = self._reader.dialect
            assert dialect is not None  # it is settled with the header
            positions = tuple(positions_of(self._model.features, names))
            answers = self._model.made(_answers_of)
            self._go_on(Place(1, dialect, len(header), positions, len(added), answers, self._marks))
            yield Part(RowWriter(dialect.written, guarded=self._guarded).row([*header, *added]) + "\n", 0)

    def _below_header(self, table: ScoredRows, block: Block) -> Iterator[Part]:
        """Yield the parts of the first rows, of which some may belong to the header."""
        positions = table.place.positions
        while self._above and block.rows:
            row = [*map(understood, block.rows[0])]
            cells = [row[position] for position in positions if len(row) == table.place.width]
            self._above = header_row_of(self._model.features, cells, row, self._above) if cells else ""
            if self._above:
                yield table.passed_over(_slice(block, 0, 1), f"a row of {self._above}, not of values")
                block = _slice(block, 1, None)
        if block.rows:
            yield from table.parts(block)

    def _added(self, header: Sequence[str]) -> list[str]:
        keys = self._model.validator.keys if self._explain else ()
        return added_columns(header, self._model.labels, explained=keys).names

    def _go_on(self, place: Place) -> None:
        n_features, n_added = len(self._model.features), len(self._added(()))
        expected = (self._model.made(_answers_of), n_features, n_added)
        if (place.answers, len(place.positions), place.added) != expected:
            raise OtherAnswers("the model was replaced by one with other features or labels: begin anew")
        writer = RowWriter(place.dialect.written, guarded=self._guarded)
        self._table = ScoredRows(self._model, place, writer, self._predict, strict=self._strict, explain=self._explain)
        self._reader.max_rows = max(1, min(self._max_cells // (place.width + place.added), self._model.slice_rows))


def _slice(block: Block, start: int, end: int | None) -> Block:
    part = slice(start, end)
    return Block(block.rows[part], block.lines[part], None if block.texts is None else block.texts[part])


def _answers_of(model: LoadedModel) -> str:
    names = ([feature.key for feature in model.features], model.labels)
    return hashlib.sha256(msgspec.json.encode(names)).hexdigest()[:12]
