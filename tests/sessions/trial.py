"""Fit models in a session, export them, and compare the file's answers with the library's: to the last bit of trees.

Runs in a session's own environment, which may be years old: nothing of the project is imported but `ml`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import (
    AdaBoostRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import ml
from ml.model import modelfile
from ml.model.forest import Forest
from ml.model.linear import Linear

N_ROWS = 2_000


def words() -> tuple[pd.DataFrame, Any]:
    """Return a table of words, gaps and numbers, and labels that follow it."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "age": rng.normal(30, 10, 600).round(1),
        "fare": rng.gamma(2, 10, 600).round(2),
        "sex": rng.choice(["f", "m"], 600),
        "port": rng.choice(["C", "Q", "S"], 600).astype(object),
        "class": rng.choice([1, 2, 3], 600),
    })  # fmt: skip
    labels = np.where((table.sex == "f") ^ (table.age < 20) ^ (table.fare > 30), "yes", "no")
    table.loc[rng.random(600) < 0.2, "age"] = np.nan
    table.loc[rng.random(600) < 0.1, "port"] = np.nan
    return table, labels


def by_column(numbers: Any, categories: Any) -> ColumnTransformer:
    return ColumnTransformer([("n", numbers, ["age", "fare"]), ("w", categories, ["sex", "port", "class"])])


def models() -> dict[str, tuple[Any, Any, Any]]:
    """Return estimators with their rows and outcomes, by name."""
    two, three, quantity = (load(return_X_y=True) for load in (load_breast_cancer, load_wine, load_diabetes))
    forest = RandomForestClassifier(20, random_state=0)
    filled = SimpleImputer(strategy="median", add_indicator=True)
    one_hot = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    numbered = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    bins = make_pipeline(SimpleImputer(), KBinsDiscretizer(5, strategy="uniform"))
    return {
        "random forest": (forest, *two),
        "random forest, weighted": (RandomForestClassifier(20, class_weight="balanced", random_state=0), *three),
        "extra trees": (ExtraTreesClassifier(20, random_state=0), *three),
        "decision tree": (DecisionTreeClassifier(random_state=0), *two),
        "random forest of a quantity": (RandomForestRegressor(20, random_state=0), *quantity),
        "a vote": (VotingClassifier([("a", forest), ("b", ExtraTreesClassifier(9))], voting="soft"), *three),
        "a calibrated forest": (CalibratedClassifierCV(forest, method="isotonic", cv=3), *three),
        "AdaBoost of a quantity": (AdaBoostRegressor(n_estimators=9, random_state=0), *quantity),
        "boosting": (GradientBoostingClassifier(n_estimators=9, random_state=0), *two),
        "boosting, three classes": (GradientBoostingClassifier(n_estimators=9, random_state=0), *three),
        "histograms": (HistGradientBoostingClassifier(max_iter=9), *two),
        "histograms, a quantity": (HistGradientBoostingRegressor(max_iter=9), *quantity),
        "logistic regression": (make_pipeline(MinMaxScaler(), LogisticRegression()), *three),
        "words and logistic regression": (make_pipeline(by_column(filled, one_hot), LogisticRegression()), *words()),
        "calibrated LinearSVC": (
            make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC(dual=False), cv=3)), *two
        ),
        "Ridge": (Ridge(), *quantity),
        "naive Bayes": (GaussianNB(), *three),
        "grid search": (GridSearchCV(forest, {"max_depth": [3]}, cv=2), *two),
        "scaler": (make_pipeline(MinMaxScaler(), forest), *two),
        "imputer, scaler, one-hot": (make_pipeline(by_column(make_pipeline(filled, StandardScaler()), one_hot), forest),
                                     *words()),
        "ordinal": (make_pipeline(by_column(filled, numbered), forest), *words()),
        "bins": (make_pipeline(by_column(bins, one_hot), forest), *words()),
    }  # fmt: skip


def differences(model: Any, rows: Any, outcomes: Any, path: Path) -> int:
    """Return in how many answers a file differs from the model: test rows, and rows on thresholds of plain numbers."""
    order, cut = np.random.default_rng(1).permutation(len(rows)), len(rows) * 2 // 3
    rows, outcomes = rows.iloc[order] if hasattr(rows, "iloc") else rows[order], outcomes[order]
    model.fit(rows[:cut], outcomes[:cut])
    test = rows[cut:]
    names = None if hasattr(rows, "columns") else [f"x{number}" for number in range(rows.shape[1])]
    exported = ml.export(model, test, outcomes[cut:], feature_names=names, path=path, insist=True)
    trees = modelfile.parse(path.read_bytes()).predictor
    if names and isinstance(trees, Forest):
        rng = np.random.default_rng(0)
        inner = [trees.threshold[trees.feature == place] for place in range(len(names))]
        edges = [
            np.concatenate([cuts, np.nextafter(cuts, np.inf), column])
            for cuts, column in zip(inner, test.T, strict=True)
        ]
        test = np.vstack([test, np.column_stack([rng.choice(values, N_ROWS) for values in edges])])
    if names:
        coded = test
    else:
        samples = test.astype(object).where(test.notna(), None).to_dict("records")
        coded = np.array([exported.validator.row(sample) for sample in samples])
    expected = model.predict_proba(test) if exported.labels else model.predict(test)[:, None]
    found = exported.predict_batch(coded).outputs
    is_right = found == expected
    if isinstance(trees, Linear):
        # The library's product of many rows differs from those of single rows.
        is_right = np.isclose(found, expected, rtol=1e-12, atol=1e-14)
    elif exported.card.promise == "scores":
        is_right = np.abs(found - expected) <= 4 * np.spacing(expected)
    return int(np.count_nonzero(~is_right.all(axis=1)))


def main() -> int:
    """Print a line for each model; return the exit status."""
    print(f"scikit-learn {sklearn.__version__}, NumPy {np.__version__}")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, rows, outcomes) in models().items():
            try:
                wrong = differences(model, rows, outcomes, Path(folder) / "m.npz")
                said = f"{wrong} answers differ" if wrong else "as in the library"
            except ml.errors.MLError as error:
                wrong, said = 1, str(error)
            failed += bool(wrong)
            print(f"  {name}: {said}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
