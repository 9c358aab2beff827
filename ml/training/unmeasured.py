"""Write the model file of an imported model of which no rows are known: what its own file says, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.errors import TableError
from ml.importing.imported import Imported
from ml.model.card import TrainedFeature
from ml.model.forest import LEAF
from ml.model.labelling import decision_of
from ml.model.loaded import LoadedModel
from ml.tables.dataset import Target
from ml.tables.headers import Column, Limits, columns_of
from ml.tables.numbers import LARGEST
from ml.training.fitting import Trained, check_name
from ml.training.importing import ImportedModel, check_labels, code_choices, fitted_by
from ml.training.measuring import Split
from ml.training.progress import Progress, silent
from ml.training.writing import GOLDEN_TEST_ROWS, model_of, thresholds_of, write

# Values reach beyond the first and last threshold by this share of the span between them: both sides can be chosen.
MARGIN = 0.1


def write_unmeasured(
    imported: Imported,
    path: Path,
    *,
    name: str,
    target: str | None = None,
    labels: Sequence[str] = (),
    limits: Mapping[str, Limits] | None = None,
    threshold: tuple[str | None, float] | None = None,
    progress: Progress = silent,
) -> LoadedModel:
    """Write the model file of an imported model that is measured on no table: its card has no report.

    Args:
        target: what is predicted, as in a header: `price (EUR)`.
        labels: the names of the classes in the order of the model's; else those of the file, or their numbers.
        limits: of features, by key.
        threshold: of two classes, the one that is the answer from a probability on (None: the second), and that.

    Raises:
        TableError: names, labels, limits or threshold do not fit the model.
        ModelFileError: the file cannot be written, or answers otherwise when it is read back.
    """
    check_name(name)
    features = features_of(imported, limits or {})
    shown = columns_of([target])[0] if target else None
    title, unit = (shown.title, shown.unit) if shown else ("", "")
    names = tuple(labels) or imported.labels or tuple(map(str, range(imported.n_classes)))
    if imported.n_classes:
        check_labels(names, imported.n_classes)
    elif labels:
        raise TableError("--labels names classes, and the model predicts a quantity")
    positive, share = threshold or (None, None)
    rows = _drawn(features, GOLDEN_TEST_ROWS)
    outcomes = np.zeros(len(rows))
    trained = Trained(
        name=name,
        source=f"{' '.join(imported.library)}, its file alone: no table was named",
        features=features,
        target=Target(title=title, unit=unit, labels=names),
        estimator=ImportedModel(imported, features),
        split=Split(rows, rows, outcomes, outcomes),
        decision=decision_of(names, share, positive),
    )
    model = model_of(trained, fitted_by=fitted_by(imported), features=features, keep_samples=False, progress=progress)
    return write(model, path, trained=trained, progress=progress)


def _drawn(features: Sequence[TrainedFeature], n: int) -> NDArray[np.float64]:
    """Return the example and rows drawn all over the features' spans, shape (n, n_features): no samples."""
    rng = np.random.default_rng(0)
    columns = [
        rng.integers(len(feature.choices), size=n) if feature.choices else rng.uniform(feature.low, feature.high, n)
        for feature in features
    ]
    rows = np.column_stack(columns).astype(np.float64)
    rows[0] = [feature.example for feature in features]
    return rows


def features_of(imported: Imported, limits: Mapping[str, Limits]) -> tuple[TrainedFeature, ...]:
    """Return what a file says of the features: names, choices, and some training ranges.

    Raises:
        TableError: there are limits for another feature, or the names cannot be those of features.
    """
    inputs = imported.inputs
    columns = columns_of(inputs.names or [""] * inputs.n_features)
    if unknown := sorted(limits.keys() - {column.key for column in columns}):
        raise TableError(f"limits for {unknown[0]!r}, which is not a feature")
    importances = _share_of_nodes(imported)
    return tuple(
        _feature(imported, column, limits.get(column.key, Limits(None, None)), importance=importance)
        for column, importance in zip(columns, importances.tolist(), strict=True)
    )


def _feature(imported: Imported, column: Column, limits: Limits, *, importance: float) -> TrainedFeature:
    inputs, place = imported.inputs, column.index
    choices: tuple[str, ...] = ()
    if place in inputs.choices:
        choices = inputs.choices[place] or code_choices(imported, place)
    known = inputs.ranges.get(place)
    low, high = (0.0, len(choices) - 1.0) if choices else known or _compared(imported, place)
    least = -LARGEST if limits.minimum is None else limits.minimum
    most = LARGEST if limits.maximum is None else limits.maximum
    low, high = (min(max(end, least), most) for end in (low, high))
    middle = float(f"{low / 2 + high / 2:.3g}")
    return TrainedFeature(
        key=column.key,
        title=column.title,
        unit=column.unit,
        header=column.header,
        minimum=limits.minimum,
        maximum=limits.maximum,
        choices=choices,
        has_gaps=bool(inputs.has_gaps and inputs.has_gaps[place]),
        low=low,
        high=high,
        quantiles=(),
        example=0.0 if choices else middle if low <= middle <= high else low,
        importance=importance,
        counts=(0,) * len(choices),
        has_range=bool(choices) or known is not None,
    )


def _compared(imported: Imported, place: int) -> tuple[float, float]:
    """Return a span of values on both sides of all that the trees compare a number with."""
    thresholds = thresholds_of(imported.forest, place)
    if not len(thresholds):
        return 0.0, 1.0
    low, high = float(thresholds[0]), float(thresholds[-1])
    margin = MARGIN * (high - low) or abs(low) or 1.0
    return low - margin, high + margin


def _share_of_nodes(imported: Imported) -> NDArray[np.float64]:
    """Return the share of the nodes that compare each feature, weighted by the training rows that came by."""
    forest = imported.forest
    inner = forest.feature != LEAF
    weights = None if forest.covers is None else forest.covers[inner]
    counts = np.bincount(forest.feature[inner], weights=weights, minlength=forest.n_features)
    return counts / max(float(counts.sum()), 1.0)
