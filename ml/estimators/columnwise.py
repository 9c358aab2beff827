"""Steps that work on each column alone: imputers, scalers, encoders, and the selection of columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ml.estimators.frames import is_gap
from ml.estimators.paths import Path, PipelineReading, StepColumns, refusal
from ml.model.design import FUNCTIONS, Operation

Reader = Callable[[Any, StepColumns, PipelineReading, str], StepColumns]


# Gaps


def _imputer(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    _expect_gaps(step, table, reading)
    fills = [*step.statistics_]
    keeps = step.strategy == "constant" or getattr(step, "keep_empty_features", False)
    paths = [
        path.then(Operation("fill", (float(fill),))) if isinstance(fill, int | float | np.number) else path
        for path, fill in zip(table.paths, fills, strict=True)
        if keeps or not is_gap(fill)
    ]
    if not is_gap(step.missing_values):
        marker = f"a number cannot stand for no value ({step.missing_values!r}): use NaN and SimpleImputer()"
        reading.markers |= {path.feature: refusal(step, name, marker) for path in table.paths}
    reading.note(f"fill_{step.strategy}", table.paths)
    if step.indicator_ is None:
        return StepColumns(tuple(paths))
    shown = [table.paths[place] for place in step.indicator_.features_]
    reading.note("indicator", shown)
    return StepColumns((*paths, *(_indicator_of(path) for path in shown)), table.is_sparse)


def _expect_gaps(step: Any, table: StepColumns, reading: PipelineReading) -> None:
    for path in table.paths:
        reading.gaps.setdefault(path.feature, step.missing_values if is_gap(step.missing_values) else math.nan)


def _indicator(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    _expect_gaps(step, table, reading)
    shown = [table.paths[place] for place in step.features_]
    reading.note("indicator", shown)
    return StepColumns(tuple(map(_indicator_of, shown)), table.is_sparse)


def _indicator_of(path: Path) -> Path:
    return replace(path, operations=(), is_missing=True)


# Numbers


def _each(table: StepColumns, *operations: tuple[str, Any]) -> StepColumns:
    """Return all columns after operations, each of which has a number a column, or none."""
    paths = table.paths
    for name, numbers in operations:
        if numbers is not None:
            pairs = zip(paths, np.asarray(numbers, dtype=np.float64).tolist(), strict=True)
            paths = tuple(path.then(Operation(name, (number,))) for path, number in pairs)  # type: ignore[arg-type]
    return replace(table, paths=paths)


def _divided(table: StepColumns, scales: Any) -> StepColumns:
    # The reciprocal is taken first where the library has a sparse matrix, and the bits differ.
    if scales is None or not table.is_sparse:
        return _each(table, ("divide", scales))
    return _each(table, ("multiply", 1.0 / np.asarray(scales)))


def _standard_scaler(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    reading.note("standardize", table.paths)
    centred = _each(table, ("subtract", step.mean_ if step.with_mean else None))
    return _divided(centred, step.scale_ if step.with_std else None)


def _robust_scaler(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    reading.note("robust", table.paths)
    centred = _each(table, ("subtract", step.center_ if step.with_centering else None))
    return _divided(centred, step.scale_ if step.with_scaling else None)


def _max_abs_scaler(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    reading.note("max_abs", table.paths)
    return _clipped(step, _divided(table, step.scale_), -1.0, 1.0)


def _min_max_scaler(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    reading.note("min_max", table.paths)
    return _clipped(step, _each(table, ("multiply", step.scale_), ("add", step.min_)), *step.feature_range)


def _clipped(step: Any, table: StepColumns, low: float, high: float) -> StepColumns:
    if not getattr(step, "clip", False):
        return table
    n_columns = len(table.paths)
    return _each(table, ("at_least", [low] * n_columns), ("at_most", [high] * n_columns))


def _binarizer(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    reading.note("binarize", table.paths)
    return _each(table, ("above", [step.threshold] * len(table.paths)))


def _bins(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    reading.note("bins", table.paths)
    paths: list[Path] = []
    for path, edges, n_bins in zip(table.paths, step.bin_edges_, step.n_bins_, strict=True):
        binned = path.then(Operation("bin", tuple(edges[1:-1].tolist())))
        is_ordinal = step.encode == "ordinal"
        paths += [binned] if is_ordinal else [binned.then(Operation("equals", (float(n),))) for n in range(n_bins)]
    return StepColumns(tuple(paths), step.encode == "onehot")


def _function(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    function = step.func
    if function is None:
        return table
    known = next((one for one, ufunc in FUNCTIONS.items() if ufunc is function), None)
    if known is None or step.kw_args:
        working = ", ".join(f"np.{one}" for one in FUNCTIONS)
        raise refusal(step, name, f"its function is none of {working}: use one, or put its result into the table")
    reading.note(known, table.paths)
    return replace(table, paths=tuple(path.then(Operation(known)) for path in table.paths))  # type: ignore[arg-type]


# Words


def _learn_words(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> None:
    for path, words in zip(table.paths, step.categories_, strict=True):
        if path.is_raw:
            known = reading.words.setdefault(path.feature, [])
            known += [word for word in words.tolist() if not is_gap(word) and word not in known]
            for gap in filter(is_gap, words.tolist()):
                reading.gaps.setdefault(path.feature, gap)
        elif not path.is_encoded:
            raise refusal(step, name, "it encodes numbers; KBinsDiscretizer(encode='onehot') alone would work")


def _one_hot(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    _learn_words(step, table, reading, name)
    reading.note("one_hot", table.paths)
    paths = [
        replace(path, is_encoded=True)
        for path, n_columns in zip(table.paths, step._n_features_outs, strict=True)
        for _ in range(n_columns)
    ]
    return StepColumns(tuple(paths), bool(getattr(step, "sparse_output", getattr(step, "sparse", False))))


def ordinal(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    """Return the columns of an OrdinalEncoder."""
    _learn_words(step, table, reading, name)
    reading.note("ordinal", table.paths)
    return StepColumns(tuple(replace(path, is_encoded=True) for path in table.paths))


def _target(step: Any, table: StepColumns, reading: PipelineReading, name: str) -> StepColumns:
    _learn_words(step, table, reading, name)
    reading.note("target", table.paths)
    n_columns = len(step.classes_) if step.target_type_ == "multiclass" else 1
    return StepColumns(tuple(replace(path, is_encoded=True) for path in table.paths for _ in range(n_columns)))


def selection(step: Any, table: StepColumns, reading: PipelineReading, _name: str) -> StepColumns:
    """Return the columns that a selector of scikit-learn keeps."""
    reading.note("select", table.paths)
    kept = zip(table.paths, step.get_support().tolist(), strict=True)
    return replace(table, paths=tuple(path for path, is_kept in kept if is_kept))


READERS: dict[str, Reader] = {
    "SimpleImputer": _imputer,
    "MissingIndicator": _indicator,
    "StandardScaler": _standard_scaler,
    "RobustScaler": _robust_scaler,
    "MaxAbsScaler": _max_abs_scaler,
    "MinMaxScaler": _min_max_scaler,
    "Binarizer": _binarizer,
    "KBinsDiscretizer": _bins,
    "FunctionTransformer": _function,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": ordinal,
    "TargetEncoder": _target,
}
