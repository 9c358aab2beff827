"""Ask a served model for rows of its own table over every channel, and compare with an oracle of scikit-learn's.

The oracle reads the table with pandas and takes from the model file only what a person could read there: which columns
are used, their choices, their marks, and the recipe. It never uses the project's own reader, encoder or trees.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from starlette.testclient import TestClient

from ml.model.card import TrainedFeature
from ml.model.loaded import LoadedModel, load_model
from tests.crowd.tables import Found
from web.app import create_app
from web.settings import Settings

ROWS = 20
EMPTY = {"", "NA", "N/A", "NaN", "nan", "?", "null", "None", "NULL", "-", ".", "--"}


class Differs(Exception):
    """A channel gives another answer than the oracle, or none."""


def number(text: str, feature: TrainedFeature) -> float:
    """Return the number in a cell by the marks of its column, NaN for none."""
    if text in EMPTY or text in feature.markers:
        return math.nan
    plain = text.replace(feature.unit, "").strip() if feature.unit else text
    if feature.thousands:
        plain = plain.replace(feature.thousands, "")
    try:
        return float(plain.replace(feature.decimal, "."))
    except ValueError:
        return math.nan


def encoded(found: Found, model: LoadedModel) -> NDArray[np.float64]:
    """Return the table as an OrdinalEncoder and a cast to float would: words not among the choices are NaN."""
    columns = []
    for feature in model.features:
        cells = column_of(found, feature)
        if feature.choices:
            position = {choice: float(index) for index, choice in enumerate(feature.choices)}
            columns.append([position.get(cell, math.nan) for cell in cells])
        else:
            columns.append([number(cell, feature) for cell in cells])
    return np.column_stack(columns)


def column_of(found: Found, feature: TrainedFeature) -> list[str]:
    # pandas calls a column without a name by its position, from 0; the product from 1.
    names = [f"column_{at}" if str(name).startswith("Unnamed: ") else str(name).strip()
             for at, name in enumerate(found.frame.columns, 1)]  # fmt: skip
    if names.count(feature.header) != 1:
        raise Differs(f"pandas has no one column {feature.header!r}")
    return [str(cell).strip() for cell in found.frame.iloc[:, names.index(feature.header)]]


def oracle(found: Found, model: LoadedModel) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return some rows of the table, by position, and scikit-learn's answers to them."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.model_selection import train_test_split

    recipe, labels = model.card.recipe, model.labels
    assert recipe is not None
    target = [str(cell).strip() for cell in found.frame[found.target]]
    if labels:
        position = {label: float(index) for index, label in enumerate(labels)}
        position |= {label.casefold(): value for label, value in position.items()}
        outcomes = np.array([position.get(text, position.get(text.casefold(), math.nan)) for text in target])
    else:
        outcomes = np.array([math.nan if text in EMPTY else float(text) for text in target])
    kept = np.flatnonzero(~np.isnan(outcomes))
    rows = encoded(found, model)[kept]
    learn, _, known, _ = train_test_split(
        rows, outcomes[kept], test_size=recipe.test_size, random_state=recipe.seed,
        stratify=outcomes[kept] if labels else None,
    )  # fmt: skip
    kind = RandomForestClassifier if labels else RandomForestRegressor
    estimator = kind(
        n_estimators=recipe.n_estimators, min_samples_leaf=recipe.min_samples_leaf, random_state=recipe.seed
    ).fit(learn, known.astype(np.intp) if labels else known)
    chosen = np.linspace(0, len(rows) - 1, ROWS).astype(int)
    answers = estimator.predict_proba(rows[chosen]) if labels else estimator.predict(rows[chosen])[:, None]
    return kept[chosen], answers


def ask(found: Found, path: Path) -> None:
    """Compare the answers of all channels.

    Raises:
        Differs: says where.
    """
    model = load_model(path)
    chosen, expected = oracle(found, model)
    with TestClient(create_app(Settings(model_file=path))) as client:
        samples = [sample_of(found, model, row) for row in chosen]
        for name, answers in {
            "JSON": _json(client, samples),
            "query": _query(client, samples),
            "stream": _stream(client, samples),
            "table": _table(client, found, chosen, model),
        }.items():
            if not np.array_equal(np.array(answers, dtype=float).reshape(len(samples), -1), expected):
                raise Differs(f"{name} gives other answers than scikit-learn")
        page = client.get("/")
        if page.status_code != 200:
            raise Differs(f"the page is answered with {page.status_code}")


def sample_of(found: Found, model: LoadedModel, row: int) -> dict[str, Any]:
    """Return a row as JSON, by the columns' headers."""
    sample: dict[str, Any] = {}
    for feature in model.features:
        cell = column_of(found, feature)[row]
        if feature.choices:
            sample[feature.header] = cell if cell in feature.choices or cell not in EMPTY else None
        else:
            value = number(cell, feature)
            sample[feature.header] = None if math.isnan(value) else value
    return sample


def _outputs(answer: dict[str, Any]) -> list[float]:
    return [answer["value"]] if "value" in answer else list(answer["probabilities"].values())


def _checked(response: Any, what: str) -> Any:
    if response.status_code != 200:
        raise Differs(f"{what}: {response.status_code} {response.text[:200]}")
    return response


def _json(client: TestClient, samples: Sequence[dict[str, Any]]) -> list[list[float]]:
    answer = _checked(client.post("/predict", json={"samples": samples}), "JSON").json()
    return [_outputs(one) for one in answer["predictions"]]


def _query(client: TestClient, samples: Sequence[dict[str, Any]]) -> list[list[float]]:
    texts = [{name: "NA" if value is None else str(value) for name, value in sample.items()} for sample in samples]
    queries = ["&".join(f"{quote(name)}={quote(text)}" for name, text in sample.items()) for sample in texts]
    headers = {"Accept": "application/json"}
    answers = [_checked(client.get(f"/predict?{query}", headers=headers), "query").json() for query in queries]
    return [_outputs(answer) for answer in answers]


def _stream(client: TestClient, samples: Sequence[dict[str, Any]]) -> list[list[float]]:
    answers = []
    with client.websocket_connect("/stream") as stream:
        stream.receive_text()
        for sample in samples:
            stream.send_text(json.dumps({"sample": sample}))
            answer = json.loads(stream.receive_text())
            if answer["type"] != "prediction":
                raise Differs(f"stream: {str(answer)[:200]}")
            answers.append(_outputs(answer))
    return answers


def _table(client: TestClient, found: Found, chosen: NDArray[np.intp], model: LoadedModel) -> list[list[float]]:
    header = ["" if str(name).startswith("Unnamed: ") else name for name in found.frame.columns]
    text = found.frame.iloc[list(chosen)].to_csv(index=False, header=header)
    scored = _checked(client.post("/score", content=text, headers={"Content-Type": "text/csv"}), "table").text
    head, *rows = csv.reader(io.StringIO(scored))
    names = [f"probability_{label}" for label in model.labels] or ["predicted_value"]
    positions = [len(head) - 1 - head[::-1].index(name) for name in names]
    if blank := next((row[-1] for row in rows if not row[positions[0]]), None):
        raise Differs(f"table: {blank}")
    return [[float(row[position]) for position in positions] for row in rows]
