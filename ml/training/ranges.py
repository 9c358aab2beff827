"""The features of a model as its training rows show them: ranges, quantiles, an example, counts of words."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.model.card import TrainedFeature
from ml.tables.dataset import Feature
from ml.training.fitting import Trained
from ml.training.importance import importance
from ml.training.progress import Progress


def trained_features(trained: Trained, progress: Progress) -> tuple[TrainedFeature, ...]:
    """Return the features with their training ranges, and as the example the row nearest to the middle of them."""
    rows = trained.split.train_rows
    middle = np.array([_middle(column, feature) for column, feature in zip(rows.T, trained.features, strict=True)])
    filled = np.where(np.isnan(rows), middle, rows)
    present = (column[~np.isnan(column)] for column in rows.T)
    steps = np.linspace(0, 1, 11)
    quantiles = np.column_stack([np.quantile(values if len(values) else [0.0], steps) for values in present])
    spread = np.maximum(quantiles[-1] - quantiles[0], np.finfo(float).tiny)
    example = filled[np.argmin((((filled - middle) / spread) ** 2).sum(axis=1))]
    importances = importance(trained, progress=progress)
    return tuple(
        TrainedFeature(
            **msgspec.structs.asdict(feature),
            low=float(filled[:, column].min()),
            high=float(filled[:, column].max()),
            quantiles=tuple(quantiles[:, column].tolist()),
            example=float(example[column]),
            importance=float(importances[column]),
            counts=_counts(rows[:, column], feature),
            gap_share=float(np.isnan(rows[:, column]).mean()),
        )
        for column, feature in enumerate(trained.features)
    )


def _middle(column: NDArray[np.float64], feature: Feature) -> float:
    """Return the median of a feature's values or the most frequent choice; if all rows lack it, 0 within its limits."""
    values = column[~np.isnan(column)]
    if not len(values):
        low = 0.0 if feature.minimum is None else max(0.0, feature.minimum)
        return low if feature.maximum is None else min(low, feature.maximum)
    return float(np.bincount(values.astype(np.intp)).argmax() if feature.choices else np.median(values))


def _counts(column: NDArray[np.float64], feature: Feature) -> tuple[int, ...]:
    if not feature.choices:
        return ()
    values = column[~np.isnan(column)].astype(np.intp)
    return tuple(np.bincount(values, minlength=len(feature.choices)).tolist())
