"""Models of XGBoost, LightGBM and CatBoost in a session: each is read out of what its own library would save."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.importing import catboost, lightgbm, xgboost
from ml.importing.imported import Imported, silent

LIBRARIES = ("xgboost", "lightgbm", "catboost")


def imported_from(estimator: Any) -> Imported | None:
    """Return a fitted model of one of these libraries, be it their scikit-learn class or their booster; else None.

    Raises:
        ModelFileError: something in it is not supported.
    """
    estimator = unwrapped(estimator)
    # By name, so that none of them is imported.
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(estimator).__mro__}
    for kind, read in _READERS.items():
        if kind in kinds:
            return read(estimator)
    return None


def unwrapped(estimator: Any) -> Any:
    """Return the object of the library itself."""
    return estimator.booster if isinstance(estimator, Booster) else estimator


def _catboost(model: Any) -> Imported:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        return catboost.read(path.read_bytes(), silent)


def _xgboost_model(model: Any) -> Imported:
    return xgboost.read_json(bytes(model.get_booster().save_raw("json")), silent, best=True)


def _xgboost_booster(booster: Any) -> Imported:
    return xgboost.read_json(bytes(booster.save_raw("json")), silent, best=False)


def _lightgbm_model(model: Any) -> Imported:
    return _lightgbm_booster(model.booster_)


def _lightgbm_booster(booster: Any) -> Imported:
    return lightgbm.read(booster.model_to_string().encode(), silent)


_READERS: Mapping[tuple[str, str], Callable[[Any], Imported]] = {
    ("xgboost", "XGBModel"): _xgboost_model,
    ("xgboost", "Booster"): _xgboost_booster,
    ("lightgbm", "LGBMModel"): _lightgbm_model,
    ("lightgbm", "Booster"): _lightgbm_booster,
    ("catboost", "CatBoost"): _catboost,
}


class Booster:
    """A model without the methods and attributes of a scikit-learn estimator has them here: the oracle of its export.

    Attributes:
        folded: its trees, which were read already.
        classes_: the numbers of the classes.
        n_features_in_: how many features it has.
        feature_names_in_: their names, where it knows them.
    """

    def __init__(self, booster: Any, imported: Imported) -> None:
        self.booster = booster
        self.folded = imported.forest
        self.n_features_in_ = imported.inputs.n_features
        if imported.inputs.names:
            self.feature_names_in_ = np.array(imported.inputs.names, dtype=object)
        if imported.n_classes:
            self.classes_ = np.arange(imported.n_classes)

    def predict_proba(self, rows: Any) -> NDArray[Any]:
        """Return the probability of each class, shape (n_rows, n_classes)."""
        shares = self._asked(rows)
        return shares if shares.ndim == 2 else np.column_stack([1 - shares, shares])

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return the class or the quantity of each row, shape (n_rows,)."""
        if not hasattr(self, "classes_"):
            return self._asked(rows)
        labels: NDArray[Any] = self.predict_proba(rows).argmax(axis=1)
        return labels

    def _asked(self, rows: Any) -> NDArray[Any]:
        if type(self.booster).__module__.startswith("xgboost"):
            return np.asarray(self.booster.inplace_predict(rows, validate_features=False))
        return np.asarray(self.booster.predict(rows))


def as_estimator(model: Any) -> Any:
    """Return a model as an estimator of scikit-learn: a booster is wrapped, others are as they are.

    So is a regressor of CatBoost, which has classes, but none in them.
    """
    is_booster = type(model).__name__ == "Booster" and not isinstance(model, Booster)
    if not is_booster and len(getattr(model, "classes_", "some")):
        return model
    imported = imported_from(model)
    return model if imported is None else Booster(model, imported)
