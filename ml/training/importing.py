"""Write the model file of a model that another library has saved, measured on a table where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError, in_quotes
from ml.importing.imported import MAX_CODES, Imported
from ml.model.card import Decision
from ml.model.cuts import Cuts
from ml.model.evaluators import Batch, compile_forest
from ml.model.forest import FIRST_CHOICE_CELL
from ml.model.labelling import Labelling
from ml.model.loaded import LoadedModel
from ml.tables.dataset import BOOLEANS, UNKNOWN, Dataset, Feature, Target
from ml.tables.headers import Column, columns_of, find, listed, word_of
from ml.tables.numbers import NotANumber, number_of
from ml.tables.reading import TableOptions, dataset_of
from ml.tables.table import Table
from ml.tables.targets import target_column
from ml.training.fitting import Trained, check_name, with_halved_rows
from ml.training.measuring import Split, answers_of, check_sense, measure
from ml.training.progress import Progress, silent
from ml.training.writing import FittedBy, model_of, write

WAY_OUT = (
    "do the columns mean what they meant in training, and are the classes in its order (--labels)? --insist writes it "
    "all the same"
)


class ImportedModel:
    """A model of another library's file that answers rows as a model file has them, tree by tree in NumPy.

    Attributes:
        folded: its forest.
        classes_: of a classifier, the positions of its labels.
    """

    def __init__(self, imported: Imported, features: Sequence[Feature]) -> None:
        self.folded = imported.forest
        if imported.n_classes:
            self.classes_ = np.arange(imported.n_classes)
        cuts = Cuts(self.folded, features)
        labels = [str(place) for place in range(imported.n_classes)]
        self._evaluator = compile_forest(self.folded, cuts, labels=labels, max_cells=0, compiles=False)

    def predict_proba(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of each label, shape (n_rows, n_labels)."""
        return self._batch(rows).outputs

    def predict(self, rows: NDArray[np.float64]) -> NDArray[Any]:
        """Return the position of the label of each row, or its quantity, shape (n_rows,)."""
        batch = self._batch(rows)
        return batch.indices if hasattr(self, "classes_") else batch.values

    def _batch(self, rows: NDArray[np.float64]) -> Batch:
        return self._evaluator.predict_batch(rows.astype(self.folded.dtype))


@dataclass(frozen=True)
class Measurable:
    """A table in the words of an imported model; shapes as in `Dataset`."""

    features: tuple[Feature, ...]
    target: Target
    rows: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    source: str
    said: tuple[str, ...]


def write_imported(
    imported: Imported,
    found: Measurable,
    path: Path,
    *,
    name: str,
    decision: Decision | None = None,
    insist: bool = False,
    progress: Progress = silent,
) -> LoadedModel:
    """Write the model file of an imported model, measured on all rows of a table.

    Args:
        decision: what decides on the label, if the library's own rule does not.

    Raises:
        TableError: on the table the model is worse than one that knows nothing, and nobody insists.
        ModelFileError: the file cannot be written, or answers otherwise when it is read back.
    """
    check_name(name)
    labels = found.target.labels
    model = ImportedModel(imported, found.features)
    answers, rows, outcomes = answers_of(model, found.rows, Labelling.by(labels, decision)), found.rows, found.outcomes
    # For statistics a word that the model does not know is no value.
    is_unknown = np.array([bool(feature.choices) for feature in found.features]) & (rows == UNKNOWN)
    known = np.where(is_unknown, np.nan, rows)
    parts = Split(known, rows, outcomes, outcomes)
    report = measure(answers, parts, n_labels=len(labels))
    if not insist:
        # It may have been given other columns, or other labels, than it learned.
        alone = answers if decision is None else answers_of(model, rows, Labelling(labels))
        check_sense(measure(alone, parts, n_labels=len(labels)), WAY_OUT)
    trained = Trained(
        name=name,
        source=found.source,
        features=found.features,
        target=found.target,
        estimator=model,
        split=parts,
        report=msgspec.structs.replace(report, train_rows=None),
        decision=decision,
    )
    if not labels:
        trained = with_halved_rows(trained, answers)
    written = model_of(trained, fitted_by=fitted_by(imported), progress=progress)
    return write(written, path, trained=trained, progress=progress)


def fitted_by(imported: Imported) -> FittedBy:
    """Return the kind of an imported model, and the library that fitted it."""
    library, number = imported.library
    return imported.estimator, {library: number}


def measurable(
    imported: Imported, table: Table, options: TableOptions, *, file_name: str, labels: Sequence[str] = ()
) -> Measurable:
    """Return a table's rows as an imported model takes them.

    Args:
        options: the target, and what else somebody has said about the table.
        labels: the names of the classes in the order of the model's; else those of the file or of the table.

    Raises:
        TableError: a column is missing or of another kind, or classes do not fit.
    """
    columns, used, target = _columns(imported, table, options)
    without = [column.argument for column in columns if column not in used and column != target]
    wanted = replace(
        options,
        target=target.argument,
        kind="classes" if imported.n_classes else "quantity",
        keep=[column.argument for column in used],
        drop=without,
    )
    dataset = dataset_of(table, wanted, file_name=file_name).dataset
    by_header = {feature.header: place for place, feature in enumerate(dataset.features)}
    features, values, said = list[Feature](), list[NDArray[np.float64]](), list[str]()
    for position, column in enumerate(used):
        place = by_header.get(column.header)
        if place is None:
            feature = Feature(key=column.key, title=column.title, unit=column.unit, header=column.header, has_gaps=True)
            found = np.full(len(dataset.rows), np.nan)
        else:
            feature, found = dataset.features[place], dataset.rows[:, place]
        if position in imported.inputs.choices:
            feature, found = _category(imported, position, feature, found)
        elif feature.choices and not _is_boolean(feature.choices):
            raise TableError(
                f"column {in_quotes(column.header)} holds words such as {in_quotes(feature.choices[0])}, and the model "
                "compares numbers there"
            )
        lacks = feature.has_gaps or bool(imported.inputs.has_gaps and imported.inputs.has_gaps[position])
        features.append(msgspec.structs.replace(feature, has_gaps=lacks))
        values.append(found)
    names, outcomes = _classes(imported, dataset, labels)
    if without:
        said.append(f"left out, since the model does not know them: {listed(without)}")
    return Measurable(
        features=tuple(features),
        target=msgspec.structs.replace(dataset.target, labels=names),
        rows=np.column_stack(values),
        outcomes=outcomes,
        source=f"{' '.join(imported.library)}, measured on {file_name}: {len(outcomes)} rows",
        said=tuple(said),
    )


def _columns(imported: Imported, table: Table, options: TableOptions) -> tuple[list[Column], list[Column], Column]:
    """Return all columns, those of the model's features in their order, and the target."""
    columns = columns_of(table.header)
    names = imported.inputs.names
    if names:
        used = [find(name, columns) for name in names]
        rest = [column for column in columns if column not in used] or columns
        target, _ = target_column(columns if options.target else rest, options.target)
        if target in used:
            raise TableError(f"column {in_quotes(target.header)} is a feature of the model: --target names another one")
        return columns, used, target
    target, _ = target_column(columns, options.target)
    dropped = {find(wanted, columns).index for wanted in options.drop}
    used = [column for column in columns if column.index not in dropped and column != target]
    if len(used) != imported.inputs.n_features:
        raise TableError(
            f"the model has {imported.inputs.n_features} features without names, and the table {len(used)} columns "
            "besides the target: --drop leaves out those that it does not know"
        )
    return columns, used, target


def _is_boolean(choices: Sequence[str]) -> bool:
    """Return whether a category's choices are no and yes, which a library has as 0 and 1."""
    return tuple(choice.lower() for choice in choices) in set(zip(*BOOLEANS, strict=True))


def _category(
    imported: Imported, position: int, feature: Feature, found: NDArray[np.float64]
) -> tuple[Feature, NDArray[np.float64]]:
    """Return a category with the model's choices, and the positions of a table's words among these."""
    words = imported.inputs.choices[position]
    is_gap = np.isnan(found)
    given = found[~is_gap]
    if words is None:
        if feature.choices or not np.all((given == np.floor(given)) & (given >= 0) & (given < MAX_CODES)):
            raise TableError(
                f"column {in_quotes(feature.header)}: the file knows this category by its codes alone, so the table "
                f"needs whole numbers from 0 to {MAX_CODES - 1}"
            )
        words = code_choices(imported, position, least=int(given.max(initial=0)) + 1)
        return msgspec.structs.replace(feature, choices=words, minimum=None, maximum=None), found
    different, index = np.unique(given, return_inverse=True)
    texts = [feature.choices[int(value)] if feature.choices else value for value in different.tolist()]
    places = {_key(word): float(place) for place, word in enumerate(words)}
    values = np.full(len(found), np.nan)
    values[~is_gap] = np.array([places.get(_key(text), UNKNOWN) for text in texts])[index]
    return msgspec.structs.replace(feature, choices=words, minimum=None, maximum=None), values


def code_choices(imported: Imported, position: int, *, least: int = 2) -> tuple[str, ...]:
    """Return the codes of a category without words as its choices: 0, 1, 2 and so on, at least so many."""
    sets = imported.forest.sets
    known = 0
    if sets is not None and imported.forest.set_of is not None:
        own = np.unique(imported.forest.set_of[imported.forest.feature == position])
        bits = np.unpackbits(sets[own[own >= 0]].view(np.uint8), axis=1, bitorder="little")[:, FIRST_CHOICE_CELL:]
        # Beyond the last code that any set names, all go one way.
        differs = np.flatnonzero(np.any(bits != bits[:, -1:], axis=0))
        known = int(differs[-1]) + 1 if len(differs) else 0
    return tuple(map(str, range(min(max(known, least), MAX_CODES))))


def _key(text: float | str) -> float | str:
    """Return what two spellings of one word have in common: the number, or the text."""
    with suppress(NotANumber):
        return number_of(text) if isinstance(text, str) else text
    return word_of(str(text))


def _classes(imported: Imported, dataset: Dataset, given: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the names of the classes in the model's order, and the position of each row's class among them."""
    n_classes, found = imported.n_classes, dataset.target.labels
    if not n_classes:
        return (), dataset.outcomes
    codes = tuple(map(str, range(n_classes)))
    labels = tuple(given) or (() if imported.labels == codes else imported.labels)
    if not labels and len(found) == n_classes:
        # Words are numbered in their order, as scikit-learn's encoder and the table's labels are.
        return found, dataset.outcomes
    check_labels(labels or codes, n_classes)
    by_name = {_key(label.casefold()): place for place, label in enumerate(labels)}
    by_number = {float(place): place for place in range(n_classes)}
    keys = [_key(label.casefold()) for label in found]
    places = by_name if all(key in by_name for key in keys) else by_number
    if unknown := [label for label, key in zip(found, keys, strict=True) if key not in places]:
        raise TableError(
            f"the table has the class {in_quotes(unknown[0])}, and the model has {n_classes}"
            + (f": {listed(labels)}" if labels else ": name them with --labels, in the order of the model")
        )
    positions = np.array([float(places[key]) for key in keys])  # type: ignore[index]  # every key was found above
    return labels or codes, positions[dataset.outcomes.astype(np.intp)]


def check_labels(labels: Sequence[str], n_classes: int) -> None:
    """Raise a `TableError` if these are not as many different names as a model has classes."""
    if len(labels) != n_classes or len(set(labels)) != n_classes or not all(labels):
        raise TableError(f"the model has {n_classes} classes, and --labels names {len(set(labels))} different ones")
