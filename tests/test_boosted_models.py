"""A boosted model of categories and gaps as it is trained, written, loaded and explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from ml.errors import TableError
from ml.model import modelfile
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.model.nearest import explain, nearest_change
from ml.model.plane import plane
from ml.tables.dataset import Dataset, Feature
from ml.training import fitting, writing
from ml.training.fitting import Trained
from tests.builders import dataset_of
from tests.conftest import open_stream
from web.app import create_app
from web.settings import Settings

KINDS = tuple("abcdefg")
LABELS = ("x", "y", "z")


def table(*, has_gaps: bool = True) -> Dataset:
    rng = np.random.default_rng(3)
    rows = np.column_stack([rng.integers(0, len(KINDS), 300), rng.normal(size=300).round(2), rng.normal(size=300)])
    classes = (rows[:, 0] % 3 + (rows[:, 1] > 0.3)) % 3
    if has_gaps:
        rows[rng.random(rows.shape) < 0.1] = np.nan
    features = [
        Feature(key="kind", title="kind", choices=KINDS if has_gaps else (), has_gaps=has_gaps),
        Feature(key="size", title="size", has_gaps=has_gaps),
        Feature(key="age", title="age", has_gaps=has_gaps),
    ]
    return dataset_of(rows, classes, features=features, labels=LABELS)


RECIPE = Recipe(estimator="hist-gradient-boosting", n_estimators=8, min_samples_leaf=10)


def written(path: Path, dataset: Dataset) -> Trained:
    trained = fitting.fit(dataset, RECIPE)
    writing.write(writing.model_of(trained), path, trained=trained)
    return trained


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boosted") / "model.npz"
    written(path, table())
    return path


@pytest.fixture(scope="module", params=["a table of cells", "compiled code", "NumPy"])
def model(request: pytest.FixtureRequest, file: Path) -> LoadedModel:
    content = file.read_bytes()
    limits: dict[str, dict[str, Any]] = {
        "a table of cells": {},
        "compiled code": {"max_cells": 0},
        "NumPy": {"max_cells": 0, "compiles": False},
    }
    return LoadedModel(modelfile.parse(content), modelfile.version_of(content), **limits[request.param])


def rows_of(n: int) -> list[list[float]]:
    rng = np.random.default_rng(5)
    rows = np.column_stack([rng.integers(-1, len(KINDS), n), rng.normal(size=n).round(2), rng.normal(size=n)])
    rows[rng.random(rows.shape) < 0.2] = np.nan
    return rows.tolist()  # type: ignore[no-any-return]  # a list of rows


def labels_with(model: LoadedModel, row: Sequence[float], place: int, values: Sequence[float]) -> list[str]:
    return [model.predict([*row[:place], value, *row[place + 1 :]]).label for value in values]


@pytest.mark.slow
def test_the_choices_of_which_the_label_stays_are_those_that_give_it(model: LoadedModel) -> None:
    for row in rows_of(40):
        found = explain(model, row)
        labels = labels_with(model, row, 0, range(len(KINDS)))

        assert found.label == model.predict(row).label
        assert found.ranges[0].choices == tuple(at for at, label in enumerate(labels) if label == found.label)


def test_the_range_of_a_number_ends_where_the_label_changes(model: LoadedModel) -> None:
    for row in rows_of(40):
        if np.isnan(row[1]):
            continue
        found, own = explain(model, row).ranges[1], model.predict(row).label
        if found.low is not None:
            assert labels_with(model, row, 1, [found.low, np.nextafter(found.low, np.inf)])[1] == own
            assert labels_with(model, row, 1, [found.low])[0] != own
        if found.high is not None:
            assert labels_with(model, row, 1, [found.high]) == [own]
            assert labels_with(model, row, 1, [np.nextafter(found.high, np.inf)])[0] != own


def test_the_nearest_change_gives_its_label(model: LoadedModel) -> None:
    changes = [(row, nearest_change(model, row)[0]) for row in rows_of(40)]

    assert {change.feature for _, change in changes if change} >= {"kind", "size"}
    for row, change in changes:
        if change:
            place = [feature.key for feature in model.features].index(change.feature)
            assert labels_with(model, row, place, [change.value]) == [change.label] != [model.predict(row).label]


def test_each_cell_of_the_map_has_the_label_of_its_middle(model: LoadedModel) -> None:
    row = [2.0, 0.1, np.nan]

    found = plane(model, row, x=0, y=1)

    assert found.exact
    inner = [-9.0, *found.y_cuts.tolist()]
    assert found.indices.shape == (len(inner), len(KINDS))
    for at, low in enumerate(inner):
        high = [*found.y_cuts.tolist(), low + 1][at]
        for choice in range(len(KINDS)):
            label = model.predict([float(choice), (low + high) / 2, row[2]]).label
            assert LABELS[found.indices[at, choice]] == label


def test_training_twice_gives_the_same_bytes(file: Path) -> None:
    again = modelfile.dump(writing.model_of(fitting.fit(table(), RECIPE)))

    assert again == file.read_bytes()


def test_gradient_boosting_refuses_gaps_and_categories_and_names_what_takes_them() -> None:
    recipe = Recipe(estimator="gradient-boosting", n_estimators=5, max_depth=2)

    with pytest.raises(TableError, match="'kind' is a category") as caught:
        fitting.fit(table(), recipe)
    assert caught.value.remedies[0][1] == ("--estimator", "hist-gradient-boosting")
    model = writing.model_of(fitting.fit(table(has_gaps=False), recipe))
    assert model.card.trees == 15
    assert model.card.promise == "scores"


def test_json_and_stream_have_the_librarys_bits_and_labels(tmp_path: Path) -> None:
    estimator = written(tmp_path / "model.npz", table()).estimator
    rows = rows_of(400)
    words: list[Any] = [None if np.isnan(kind) else "zz" if kind < 0 else KINDS[int(kind)] for kind, *_ in rows]
    samples = [
        [word, *(None if np.isnan(value) else value for value in row[1:])]
        for word, row in zip(words, rows, strict=True)
    ]
    expected, labels = estimator.predict_proba(rows).tolist(), [LABELS[at] for at in estimator.predict(rows)]

    with TestClient(create_app(Settings(model_file=tmp_path / "model.npz"))) as client:
        answers = client.post("/predict", json={"samples": samples}).raise_for_status().json()["predictions"]
        with open_stream(client) as stream:
            replies = []
            for sample in samples[:50]:
                stream.send_json({"sample": sample})
                replies.append(stream.receive_json())

    assert [list(answer["probabilities"].values()) for answer in answers] == expected
    assert [answer["label"] for answer in answers] == labels
    assert [list(reply["probabilities"].values()) for reply in replies] == expected[:50]


def test_a_binary_frame_is_answered_as_the_same_values_in_float64(tmp_path: Path) -> None:
    estimator = written(tmp_path / "model.npz", table(has_gaps=False)).estimator
    rows = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)

    with TestClient(create_app(Settings(model_file=tmp_path / "model.npz"))) as client, open_stream(client) as stream:
        stream.send_bytes(rows.tobytes())
        reply = np.frombuffer(stream.receive_bytes(), dtype="<f4").reshape(-1, 3)

    assert np.array_equal(reply, estimator.predict_proba(rows.astype(np.float64)).astype(np.float32))
