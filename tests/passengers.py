"""A table as it lies in a notebook, the pipelines that people put in front of a forest, and questions on thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier

from ml.model.forest import Forest
from ml.model.loaded import LoadedModel
from ml.training.writing import thresholds_of

NUMBERS = ["age (years)", "fare"]
WORDS = ["sex", "port", "deck"]
N_ROWS = 700
UNKNOWN_WORDS = ("never seen", "NULL", "0")


def passengers() -> tuple[pd.DataFrame, NDArray[Any], NDArray[np.float64]]:
    """Return a table with gaps, words, classes as numbers and true/false, and labels and quantities that follow it."""
    rng = np.random.default_rng(0)
    n = N_ROWS
    table = pd.DataFrame({
        "name": [f"passenger {number}" for number in range(n)],
        "age (years)": rng.normal(30, 12, n).clip(1).round(1),
        "fare": rng.gamma(2, 12, n).round(2),
        "sex": rng.choice(["female", "male"], n),
        "port": rng.choice(["C", "Q", "S"], n).astype(object),
        "deck": rng.choice(list("ABCDEFG"), n, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.07, 0.03]),
        "class": rng.choice([1, 2, 3], n),
        "alone": rng.random(n) < 0.5,
    })  # fmt: skip
    score = (table.sex == "female") * 2.0 + (table["age (years)"] < 15) * 1.5 + table.fare / 40 - 0.6 * table["class"]
    score += 0.8 * ((table.port == "Q") & table.alone) + 0.7 * table.deck.isin(["B", "E"]) + rng.normal(0, 0.5, n)
    table.loc[rng.random(n) < 0.2, "age (years)"] = np.nan
    table.loc[rng.random(n) < 0.1, "port"] = np.nan
    labels = np.select([score > 1.5, score > 0.3], ["saved", "hurt"], "lost")
    return table, labels, np.asarray(score * 10, dtype=np.float64).round(1)


TABLE, LABELS, QUANTITIES = passengers()
TRAIN, TEST = slice(0, 450), slice(450, N_ROWS)


def filled(*steps: Any, **parameters: Any) -> Any:
    return make_pipeline(SimpleImputer(**{"strategy": "median", **parameters}), *steps)


def one_hot(**parameters: Any) -> Any:
    encoder = OneHotEncoder(**{"handle_unknown": "ignore", **parameters})
    return make_pipeline(SimpleImputer(strategy="most_frequent"), encoder)


def bins(encode: str) -> KBinsDiscretizer:
    return KBinsDiscretizer(5, encode=encode, strategy="uniform")


def by_column(numbers: Any, words: Any, *more: Any, **parameters: Any) -> ColumnTransformer:
    steps = [("numbers", numbers, NUMBERS), ("words", words, WORDS), *more]
    return ColumnTransformer(steps, **parameters)


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(12, random_state=0)


def numbered(**parameters: Any) -> OrdinalEncoder:
    return OrdinalEncoder(**{"handle_unknown": "use_encoded_value", "unknown_value": -1, **parameters})


PIPELINES: dict[str, Callable[[], Any]] = {
    "imputer with indicators and scaler, one-hot": lambda: make_pipeline(
        by_column(filled(StandardScaler(), add_indicator=True), one_hot()), forest()
    ),
    "min-max with clip, one-hot without the first": lambda: make_pipeline(
        by_column(filled(MinMaxScaler(clip=True), strategy="mean"), one_hot(drop="if_binary")), forest()
    ),
    "robust before the imputer, rare words pooled": lambda: make_pipeline(
        by_column(
            make_pipeline(RobustScaler(), SimpleImputer(strategy="constant", fill_value=-0.5)),
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.15),
        ),
        forest(),
    ),
    "largest absolute value, selection": lambda: make_pipeline(
        by_column(filled(MaxAbsScaler()), one_hot()), VarianceThreshold(0.001), SelectKBest(k=9), forest()
    ),
    "gaps as they are": lambda: make_pipeline(by_column("passthrough", one_hot()), forest()),
    "ordinal": lambda: make_pipeline(by_column("passthrough", numbered(encoded_missing_value=-2)), forest()),
    "ordinal, unknown words as gaps": lambda: make_pipeline(
        by_column("passthrough", numbered(unknown_value=math.nan)), forest()
    ),
    "target": lambda: make_pipeline(by_column(filled(), TargetEncoder()), forest()),
    "bins as columns": lambda: make_pipeline(by_column(filled(bins("onehot")), one_hot()), forest()),
    "bins in order": lambda: make_pipeline(by_column(filled(bins("ordinal")), one_hot()), forest()),
    "sparse and scaled": lambda: make_pipeline(
        by_column(filled(), one_hot(), sparse_threshold=1.0), StandardScaler(with_mean=False), forest()
    ),
    "words without a way out, numbers as words, true and false": lambda: make_pipeline(
        ColumnTransformer([
            ("a", OneHotEncoder(), ["sex", "class"]),
            ("b", "passthrough", ["alone", "class", "fare"]),
            ("c", make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder()), ["port"]),
        ]),
        forest(),
    ),
    "logarithm and threshold": lambda: make_pipeline(
        ColumnTransformer([
            ("log", make_pipeline(FunctionTransformer(np.log1p), StandardScaler()), ["fare"]),
            ("old", filled(Binarizer(threshold=30)), ["age (years)"]),
            ("sex", numbered(), ["sex"]),
        ]),
        forest(),
    ),
    "union and selector": lambda: make_pipeline(
        ColumnTransformer([
            ("numbers", FeatureUnion([("filled", SimpleImputer()), ("gaps", MissingIndicator())]), NUMBERS),
            ("words", one_hot(), make_column_selector("sex|port|deck", dtype_include=object)),
        ]),
        forest(),
    ),
    "columns by position, the rest as it is": lambda: make_pipeline(
        ColumnTransformer(
            [("names", "drop", [0]), ("words", one_hot(), slice(3, 6)), ("gaps", filled(), [1])],
            remainder="passthrough",
        ),
        forest(),
    ),
    "grid search around a pipeline": lambda: GridSearchCV(
        make_pipeline(by_column(filled(StandardScaler()), one_hot()), forest()),
        {"randomforestclassifier__max_depth": [3, 6]}, cv=2,
    ),
    "random search at the end": lambda: make_pipeline(
        by_column(filled(), one_hot()),
        RandomizedSearchCV(
            ExtraTreesClassifier(5, random_state=0), {"max_depth": [4, 8]}, cv=2, n_iter=1, random_state=0
        ),
    ),
    "steps that do nothing": lambda: make_pipeline(
        None, by_column(filled("passthrough"), one_hot()), "passthrough", DecisionTreeClassifier(random_state=0)
    ),
    "histograms with words of their own": lambda: HistGradientBoostingClassifier(max_iter=8, random_state=0),
    "a quantity": lambda: make_pipeline(
        by_column(filled(StandardScaler(), add_indicator=True), one_hot()), RandomForestRegressor(12, random_state=0)
    ),
}  # fmt: skip


def fitted(name: str) -> tuple[Any, NDArray[Any]]:
    """Return one of the pipelines, fitted, and the true answers of all rows."""
    true = QUANTITIES if name == "a quantity" else LABELS
    return PIPELINES[name]().fit(table_of(name)[TRAIN], true[TRAIN]), true


def table_of(name: str) -> pd.DataFrame:
    """Return the table that one of the pipelines takes."""
    if name != "histograms with words of their own":
        return TABLE
    return TABLE.drop(columns="name").astype(dict.fromkeys([*WORDS, "alone"], "category"))


def questions(model: LoadedModel, n_rows: int) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Return samples, also as a table, on thresholds and beside them, with every choice, unknown words and gaps."""
    rng = np.random.default_rng(1)
    columns: dict[str, list[Any]] = {}
    for place, feature in enumerate(model.features):
        drawn = TABLE[feature.header].dropna()
        if feature.choices:
            known = dict(zip(map(str, drawn), drawn, strict=True))
            unknown = () if feature.is_closed else UNKNOWN_WORDS
            values = [*(known.get(choice, choice) for choice in feature.choices), *unknown]
        else:
            edges = around_thresholds(model, place)
            lowest = -math.inf if feature.minimum is None else feature.minimum
            values = [float(value) for value in edges if value >= lowest]
            values += rng.choice(drawn.to_numpy(), 2 * len(values) + 1).tolist()
        values += [None] * (len(values) // 4 + 1) if feature.has_gaps else []
        columns[feature.key] = [values[index] for index in rng.integers(0, len(values), n_rows)]
    samples = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    asked = {feature.header: columns[feature.key] for feature in model.features}
    table = pd.DataFrame({name: asked.get(name, TABLE[name].iloc[0]) for name in TABLE.columns})
    # In the table, a missing word is NaN.
    table = table.where(table.notna(), np.nan)
    return [{key: _plain(value) for key, value in sample.items()} for sample in samples], table


def around_thresholds(model: LoadedModel, place: int) -> NDArray[np.float64]:
    """Return the thresholds of a feature with the numbers next to them; none of a linear model."""
    if not isinstance(model.predictor, Forest):
        return np.empty(0)
    cuts = thresholds_of(model.predictor, place)
    return np.concatenate([cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf), cuts.astype(np.float32)])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
