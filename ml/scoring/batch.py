"""A model for programs: one sample, or columns of many, whose answers are columns. Knows no files but the model's.

What is added to a table is what `ml score` adds, under the same names.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, TableError
from ml.model import modelfile
from ml.model.card import Card, TrainedFeature
from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel, load_model
from ml.model.sample import InvalidSample, note_of
from ml.model.values import UnknownWord, reader_of, short
from ml.scoring.answers import Answers, arrow_answers
from ml.scoring.cells import CellsReader
from ml.scoring.layout import added_columns, name_of, positions_of
from ml.tables.headers import word_of
from ml.tables.typed import TypedColumn, plain_sample, typed_array

# So many models stay in a process, the newest ones.
_KEPT_MODELS = 4

_loaded: dict[str, Model] = {}
_loading = threading.Lock()


class Model:
    """A model that is ready to answer: what `ml.load` returns.

    Attributes:
        card: what is known about the model.
        features: its inputs, in their order.
        labels: the names of its classes; none for a quantity.
        version: the first 12 hex digits of the SHA-256 of its file.
        loaded: what the rest of `ml` knows it as.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.card: Card = model.card
        self.features: tuple[TrainedFeature, ...] = tuple(model.features)
        self.labels = model.labels
        self.version = model.version
        self.loaded = model
        self._reader = CellsReader(model, None)

    def predict(self, sample: Mapping[str, object] | Sequence[object] | NDArray[Any]) -> Prediction:
        """Return the answer to one sample.

        Args:
            sample: values by the features' keys or headers, or in their order, as in JSON or as NumPy and pandas have
                them; text is read as a person types it.

        Raises:
            InvalidSample: with one error for each feature that is missing, wrong or unknown.
        """
        return self.loaded.predict(self.loaded.validator.row(plain_sample(sample)))

    def predict_batch(self, columns: Any) -> Any:
        """Return the answers to many rows: a table of Arrow for one, else a dict of NumPy arrays.

        They have the columns that `BatchScorer` adds.

        Args:
            columns: a table of pyarrow, or a mapping of arrays or lists, each of shape (n,); the features are found by
                header or key. Null, None and NaN are no value; numbers in text are read as in the cells of a CSV file.

        Raises:
            TableError: a feature has no column, or two; a column has a type, or a length, that it cannot have.
        """
        if isinstance(columns, Mapping):
            return self._answer_arrays(columns)
        if _is_arrow_table(columns):
            return self._answer_arrow(columns)
        kind = f"{type(columns).__module__}.{type(columns).__name__}"
        raise TableError(f"rows come in a pyarrow.Table or a mapping of column arrays, not in a {kind}")

    def _answer_arrays(self, columns: Mapping[str, object]) -> dict[str, NDArray[Any]]:
        names = [*columns]
        lengths = {name: _length_of(columns[name], name) for name in names}
        if len(set(lengths.values())) > 1:
            raise TableError(f"the columns have different lengths: {lengths}")
        used = [names[position] for position in self.positions(names)]
        answers = self.answers([typed_array(columns[name], name) for name in used])
        return dict(zip(self.added(names), answers.arrays(self.labels), strict=True))

    def _answer_arrow(self, table: Any) -> Any:
        names: list[str] = table.column_names
        answered = arrow_answers(table, self.positions(names), self.answers, self.labels)
        return answered.rename_columns(self.added(names))

    def positions(self, names: Sequence[str]) -> list[int]:
        """Return which of the columns of these names each feature is in; errors are those of `positions_of`."""
        return positions_of(self.features, [name_of(name, number) for number, name in enumerate(names, 1)])

    def added(self, names: Sequence[str]) -> list[str]:
        """Return the names of the new columns of a table with columns of these names."""
        return added_columns(names, self.labels).names

    def answers(self, columns: Sequence[TypedColumn]) -> Answers:
        """Return the answers to rows, given as one column a feature, in their order."""
        return self.answers_to(columns, *self.read(columns))

    def read(self, columns: Sequence[TypedColumn]) -> tuple[NDArray[np.float64], dict[int, InvalidSample]]:
        """Return rows as the model is asked about them, shape (n, n_features); NaN, and why, for wrong ones."""
        values, is_right = self._reader.typed(columns)
        errors: dict[int, InvalidSample] = {}
        for index in np.flatnonzero(~is_right).tolist():
            try:
                values[index] = self._reader.one([column.at(index) for column in columns])
            except InvalidSample as error:
                errors[index] = error
                values[index] = math.nan
        return values, errors

    def answers_to(
        self, columns: Sequence[TypedColumn], values: NDArray[np.float64], errors: Mapping[int, InvalidSample]
    ) -> Answers:
        """Return the answers to what was `read` of columns."""
        notes = self._notes(columns, values)
        if not errors:
            return Answers(*self._right_answers(values), notes, {})
        is_right = np.ones(len(values), dtype=np.bool_)
        is_right[[*errors]] = False
        indices = np.full(len(values), -1, dtype=np.intp)
        numbers = np.full((len(values), len(added_columns((), self.labels).numbers)), math.nan)
        if is_right.any():
            indices[is_right], numbers[is_right] = self._right_answers(values[is_right])
        return Answers(indices, numbers, notes, {index: str(error) for index, error in errors.items()})

    def _right_answers(self, values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the position of the label of each row, and its numbers, see `Answers`."""
        batch, quantity = self.loaded.predict_batch(values), self.loaded.quantity
        outputs = np.column_stack([batch.values, *quantity.ends(batch.values)]) if quantity else batch.outputs
        return batch.indices, outputs

    def _notes(self, columns: Sequence[TypedColumn], values: NDArray[np.float64]) -> NDArray[Any]:
        """Return the notes about each row as one text, shape (n,); None where there are none."""
        outside = self.loaded.validator.outside(values)
        notes = np.full(len(values), None, dtype=object)
        for position in np.flatnonzero(outside.any(axis=0)).tolist():
            rows = np.flatnonzero(outside[:, position])
            found = self._notes_on(position, columns[position], rows)
            has_some = notes[rows] != np.array(None, dtype=object)
            found[has_some] = notes[rows[has_some]] + "; " + found[has_some]
            notes[rows] = found
        return notes

    def _notes_on(self, position: int, column: TypedColumn, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the note about the value of each of these rows: a number outside, or a word not seen in training."""
        feature = self.features[position]
        if not feature.choices:
            return np.full(len(rows), _message_of(feature, math.inf), dtype=object)
        read = reader_of(feature)
        values, codes = column.different()
        used = np.unique(codes[rows]).tolist()
        messages = np.full(len(values), None, dtype=object)
        for code in used:
            value = values[code]
            is_text = isinstance(value, str)
            messages[code] = _message_of(feature, UnknownWord(short(word_of(value))) if is_text else read(value))
        return np.asarray(messages[codes[rows]])


def _message_of(feature: TrainedFeature, value: float) -> str:
    note = note_of(feature, value)
    return note.message if note else ""


class BatchScorer:
    """Adds the columns of `ml score` to tables; a function that pickles, and loads its model once in each process.

    Called with a table of pyarrow it returns one, called with a mapping of column arrays a dict; the columns that were
    there stay as they are. See `Model.predict_batch` for its arguments and errors; a row that cannot be answered says
    why in `prediction_error`.

    Args:
        source: the path of a model file, which every process must be able to read; or the bytes of one, which travel
            with the scorer.

    Attributes:
        version: of the model; a process that finds another one at the path refuses it.

    Raises:
        ModelFileError: there is no such file, or it cannot be read; when called: it is damaged, or was replaced.
    """

    def __init__(self, source: str | Path | bytes) -> None:
        self._source = source if isinstance(source, bytes) else Path(source).absolute()
        self.version = modelfile.version_of(_content_of(self._source))

    def __call__(self, columns: Any) -> Any:
        added = self.model.predict_batch(columns)
        if isinstance(columns, Mapping):
            return {**columns, **added}
        return with_columns(columns, added)

    @property
    def model(self) -> Model:
        """The model, loaded by the first who asks for it in this process."""
        with _loading:
            if self.version not in _loaded:
                content = _content_of(self._source)
                if (found := modelfile.version_of(content)) != self.version:
                    raise ModelFileError(
                        f"{self._source!s} was replaced: it has version {found}, not {self.version} as when this "
                        "scorer was made; make a new one"
                    )
                _loaded[self.version] = Model(LoadedModel(modelfile.parse(content), self.version))
                for version in [*_loaded][:-_KEPT_MODELS]:
                    del _loaded[version]
            return _loaded[self.version]


def load(path: str | Path) -> Model:
    """Return the model in the file at `path`.

    Raises:
        ModelFileError: the file is missing, damaged, crafted or newer; the sentence says what is wrong.
    """
    return Model(load_model(Path(path)))


def with_columns(table: Any, added: Any) -> Any:
    """Return a table of Arrow with the columns of another one behind its own."""
    for name, column in zip(added.column_names, added.columns, strict=True):
        table = table.append_column(name, column)
    return table


def _content_of(source: Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else modelfile.read(source)


def _is_arrow_table(columns: object) -> bool:
    # Who has a table of pyarrow has imported it.
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(columns, pyarrow.Table)


def _length_of(column: object, name: str) -> int:
    try:
        return len(column)  # type: ignore[arg-type]  # what has no length is refused
    except TypeError as error:
        raise TableError(f"column {name!r} has no length: give an array or a list") from error
