"""Models of XGBoost, LightGBM and CatBoost in a session: each is read out of what its own library would save."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.importing import catboost, lightgbm, xgboost
from ml.importing.imported import Imported, silent


def imported_from(estimator: Any) -> Imported | None:
    """Return a fitted model of one of these libraries, be it their scikit-learn class or their booster; else None.

    Raises:
        ModelFileError: something in it is not supported.
    """
    # By name, so that none of them is imported.
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(estimator).__mro__}
    if ("xgboost", "XGBModel") in kinds:
        return xgboost.read_json(bytes(estimator.get_booster().save_raw("json")), silent, best=True)
    if ("xgboost", "Booster") in kinds:
        return xgboost.read_json(bytes(estimator.save_raw("json")), silent, best=False)
    if ("lightgbm", "LGBMModel") in kinds:
        return lightgbm.read(estimator.booster_.model_to_string().encode(), silent)
    if ("lightgbm", "Booster") in kinds:
        return lightgbm.read(estimator.model_to_string().encode(), silent)
    if ("catboost", "CatBoost") in kinds:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            estimator.save_model(str(path), format="json")
            return catboost.read(path.read_bytes(), silent)
    return None


class Boosted:
    """A booster with the methods of a scikit-learn estimator, as the oracle of its own export.

    Attributes:
        classes_: the numbers of the classes.
        n_features_in_: how many features it has.
        feature_names_in_: their names, where it knows them.
    """

    def __init__(self, booster: Any, imported: Imported) -> None:
        self.booster = booster
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
        if type(self.booster).__module__.startswith("lightgbm"):
            return np.asarray(self.booster.predict(rows))
        return np.asarray(self.booster.inplace_predict(rows, validate_features=False))


def as_estimator(model: Any) -> Any:
    """Return a model as an estimator of scikit-learn: a booster is wrapped, others are as they are."""
    if type(model).__name__ != "Booster" or hasattr(model, "predict_proba"):
        return model
    imported = imported_from(model)
    return model if imported is None else Boosted(model, imported)
