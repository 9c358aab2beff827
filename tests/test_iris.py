"""The built-in data set, and what holds for every `Dataset`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ml.tables.dataset import Dataset, Feature, Target
from ml.training import iris


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return iris.load_dataset()


def test_there_are_fifty_flowers_of_each_species_in_four_lengths(dataset: Dataset) -> None:
    assert dataset.rows.shape == (150, 4)
    assert dataset.rows.dtype == np.float64
    assert dataset.outcomes.shape == (150,)
    assert np.unique_counts(dataset.outcomes).counts.tolist() == [50, 50, 50]


def test_features_and_labels_have_their_names_and_order(dataset: Dataset) -> None:
    assert [feature.key for feature in dataset.features] == [
        "sepal_length", "sepal_width", "petal_length", "petal_width",
    ]  # fmt: skip
    assert [feature.title for feature in dataset.features] == [
        "sepal length", "sepal width", "petal length", "petal width",
    ]  # fmt: skip
    assert dataset.target.labels == ("setosa", "versicolor", "virginica")
    assert all(type(label) is str for label in dataset.target.labels)


def test_lengths_are_in_centimetres_and_not_negative(dataset: Dataset) -> None:
    for feature in dataset.features:
        assert (feature.unit, feature.minimum, feature.maximum) == ("cm", 0.0, None)
    assert dataset.rows.min() > 0


def test_rows_are_those_of_the_paper_and_not_of_the_copy_with_two_errors(dataset: Dataset) -> None:
    # The 35th and the 38th row, which the widespread copy of the UCI repository has wrong.
    assert dataset.rows[34].tolist() == [4.9, 3.1, 1.5, 0.2]
    assert dataset.rows[37].tolist() == [4.9, 3.6, 1.4, 0.1]


def test_classes_are_the_species_that_their_lengths_tell(dataset: Dataset) -> None:
    petals = [dataset.rows[dataset.outcomes == index, 2].mean() for index in range(3)]

    assert [f"{mean:.3f}" for mean in petals] == ["1.462", "4.260", "5.552"], "setosa, versicolor, virginica"


def test_the_same_table_has_the_same_digest(dataset: Dataset) -> None:
    copied = replace(dataset, rows=np.asfortranarray(dataset.rows), outcomes=dataset.outcomes.astype(">f8"))

    assert dataset.digest() == iris.load_dataset().digest() == copied.digest()
    assert len(dataset.digest()) == 64


def test_any_change_of_a_table_changes_its_digest(dataset: Dataset) -> None:
    rows, classes = dataset.rows.copy(), dataset.outcomes.copy()
    rows[0, 0] = np.nextafter(rows[0, 0], 9)
    classes[0] = 1
    renamed = (Feature(key="other", title="other"), *dataset.features[1:])
    changed = [
        replace(dataset, rows=rows),
        replace(dataset, outcomes=classes),
        replace(dataset, features=renamed),
        replace(dataset, target=Target(labels=dataset.target.labels[::-1])),
        replace(dataset, name="other"),
    ]

    assert len({dataset.digest(), *(other.digest() for other in changed)}) == 6
