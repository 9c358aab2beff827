"""Training: the same forest, split and numbers as scikit-learn's own, and a file only if it agrees."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split

from ml.errors import MLError, ModelFileError
from ml.model import modelfile
from ml.model.card import Recipe, Report
from ml.model.loaded import LoadedModel, load_model
from ml.model.modelfile import ModelFile
from ml.training import fitting, iris, writing
from ml.training.fitting import Trained
from ml.training.measuring import Split, measure
from tests.conftest import for_each


def fitted(trained: Trained, **parameters: int) -> Trained:
    """Return what was trained with another forest in it, fitted on the same rows."""
    estimator = RandomForestClassifier(**parameters).fit(trained.split.train_rows, trained.split.train_classes)
    return replace(trained, estimator=estimator)


def test_the_split_is_scikit_learns_stratified_split(trained: Trained) -> None:
    rows, outcomes = iris.load_dataset().rows, iris.load_dataset().outcomes
    expected = train_test_split(rows, outcomes, test_size=0.2, stratify=outcomes, random_state=0)

    parts = trained.split

    for part, rows in zip(
        (parts.train_rows, parts.test_rows, parts.train_outcomes, parts.test_outcomes), expected, strict=True
    ):
        assert np.array_equal(part, rows)
    assert np.bincount(parts.test_classes).tolist() == [10, 10, 10]


def test_the_forest_is_the_one_that_scikit_learn_fits_at_once(built_in: Trained) -> None:
    expected = RandomForestClassifier(random_state=0).fit(built_in.split.train_rows, built_in.split.train_classes)
    rows = np.random.default_rng(0).uniform(0, 8, (20_000, 4))

    assert built_in.estimator.get_params() == expected.get_params()
    assert np.array_equal(built_in.estimator.predict_proba(rows), expected.predict_proba(rows))


def test_the_test_accuracy_of_the_tutorial_is_reached(built_in: Trained, built_in_model: LoadedModel) -> None:
    assert isinstance(built_in.report, Report)
    assert f"{built_in.report.accuracy:.3f}" == "0.933"
    assert built_in.report.accuracy == 28 / 30
    answers = built_in_model.predict_batch(built_in.split.test_rows).indices
    assert (answers == built_in.split.test_classes).sum() == 28


def test_the_tutorials_sample_is_class_1_and_class_1_is_versicolor(model: LoadedModel) -> None:
    prediction = model.predict([5.6, 2.7, 4.2, 1.3])

    assert prediction.index == 1
    assert model.labels == ("setosa", "versicolor", "virginica")
    assert prediction.label == "versicolor"


def report_of(answers: ArrayLike, parts: Split, *, n_labels: int = 3) -> Report:
    report = measure(np.asarray(answers, dtype=np.float64), parts, n_labels=n_labels)
    assert isinstance(report, Report)
    return report


def answers_like(trained: Trained, *, right: float, seed: int) -> NDArray[np.intp]:
    """Return the true classes of the test rows, some of them replaced."""
    rng = np.random.default_rng(seed)
    true = trained.split.test_classes
    return np.where(rng.uniform(size=len(true)) < right, true, rng.integers(0, 3, len(true)))


@for_each("right", [0.0, 0.5, 0.9, 1.0])
@for_each("never", [None, 0, 2])
def test_the_numbers_of_a_report_are_scikit_learns(trained: Trained, right: float, never: int | None) -> None:
    answers = answers_like(trained, right=right, seed=1)
    if never is not None:
        answers[answers == never] = 1
    true, parts = trained.split.test_classes, trained.split

    report = report_of(answers, parts)

    labels = [0, 1, 2]
    options = {"labels": labels, "average": None, "zero_division": 0}
    assert report.accuracy == accuracy_score(true, answers)
    assert report.precision == tuple(precision_score(true, answers, **options))
    assert report.recall == tuple(recall_score(true, answers, **options))
    assert np.array_equal(report.confusion, confusion_matrix(true, answers, labels=labels))
    dummy = DummyClassifier(strategy="most_frequent").fit(parts.train_rows, parts.train_classes)
    assert report.baseline == dummy.score(parts.test_rows, true)
    assert (report.train_rows, report.test_rows) == (120, 30)


def test_the_report_of_the_built_in_model_is_that_of_its_answers(
    built_in: Trained, built_in_model: LoadedModel
) -> None:
    answers = built_in.estimator.predict(built_in.split.test_rows)

    assert built_in.report == report_of(answers, built_in.split)
    assert isinstance(built_in_model.card.report, Report)
    assert built_in_model.card.report.confusion == ((10, 0, 0), (0, 10, 0), (0, 2, 8))
    assert built_in_model.card.report.precision == (1.0, 10 / 12, 1.0)
    assert built_in_model.card.report.recall == (1.0, 1.0, 0.8)


def test_a_label_without_test_rows_has_a_report(trained: Trained) -> None:
    answers = np.zeros(len(trained.split.test_classes), dtype=np.intp)

    report = report_of(answers, trained.split, n_labels=4)

    assert report.recall == (1.0, 0.0, 0.0, 0.0)
    assert report.precision == (1 / 3, 0.0, 0.0, 0.0)


def test_cross_validation_is_scikit_learns_with_shuffled_folds() -> None:
    dataset, recipe = iris.load_dataset(), Recipe(n_estimators=10, seed=3)
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=3)
    scores = cross_val_score(RandomForestClassifier(10, random_state=3), dataset.rows, dataset.outcomes, cv=folds)

    found = fitting.cross_validate(dataset, recipe, folds=5)

    assert (found.folds, found.mean, found.deviation) == (5, float(scores.mean()), float(scores.std()))


@pytest.mark.parametrize(("rows_of_classes", "folds"), [((9, 8, 7), 7), ((4, 40, 40), 4), ((2, 2, 2), 2)])
def test_there_are_no_more_folds_than_the_rarest_class_has_rows(rows_of_classes: tuple[int, ...], folds: int) -> None:
    whole = iris.load_dataset()
    chosen = np.concatenate([np.flatnonzero(whole.outcomes == label)[:n] for label, n in enumerate(rows_of_classes)])
    small = replace(whole, rows=whole.rows[chosen], outcomes=whole.outcomes[chosen])

    found = fitting.cross_validate(small, Recipe(n_estimators=2))

    assert found.folds == folds


def test_features_are_told_with_what_the_training_rows_say(trained: Trained, stored: ModelFile) -> None:
    rows = trained.split.train_rows

    for column, feature in enumerate(stored.card.features):
        assert feature.low == rows[:, column].min()
        assert feature.high == rows[:, column].max()
        assert feature.quantiles == tuple(np.quantile(rows[:, column], np.linspace(0, 1, 11)))
        assert (feature.quantiles[0], feature.quantiles[-1]) == (feature.low, feature.high)
        assert feature.example in rows[:, column]
    example = [feature.example for feature in stored.card.features]
    assert (rows == example).all(axis=1).any(), "the example is a row, not a mixture"


def test_sample_rows_are_training_rows_with_their_classes(trained: Trained, stored: ModelFile) -> None:
    known = set(zip(map(tuple, trained.split.train_rows), trained.split.train_classes, strict=True))

    stored_rows = list(zip(map(tuple, stored.reference_rows), stored.reference_outcomes, strict=True))

    assert len(stored_rows) == 120 <= writing.REFERENCE_ROWS
    assert set(stored_rows) <= known


def test_training_rows_are_left_out_on_request(trained: Trained) -> None:
    model = writing.model_of(trained, keep_samples=False)

    assert model.reference_rows.shape == (0, 4)
    assert LoadedModel(modelfile.parse(modelfile.dump(model)), "x").predict([5.6, 2.7, 4.2, 1.3]).index == 1


def test_golden_rows_are_test_rows_and_rows_on_the_thresholds(trained: Trained, stored: ModelFile) -> None:
    assert np.array_equal(stored.golden_rows[:30], trained.split.test_rows)
    assert len(stored.golden_rows) == 30 + writing.GOLDEN_THRESHOLD_ROWS
    assert np.array_equal(stored.golden_answers, trained.estimator.predict_proba(stored.golden_rows))


def test_the_card_tells_how_the_model_was_made(built_in_model: LoadedModel) -> None:
    card = built_in_model.card

    assert (card.name, card.estimator, card.trees) == ("iris", "RandomForestClassifier", 100)
    assert card.recipe == Recipe()
    assert card.data_digest == iris.load_dataset().digest()
    assert set(card.libraries) == {"scikit-learn", "numpy"}


def test_the_same_recipe_gives_the_same_file_and_another_seed_another() -> None:
    first, again, other = (
        modelfile.dump(writing.model_of(fitting.fit(iris.load_dataset(), Recipe(n_estimators=5, seed=seed))))
        for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other


def test_a_model_that_agrees_is_written_and_given_back(tmp_path: Path, trained: Trained) -> None:
    small = fitted(trained, n_estimators=3, random_state=0)
    path = tmp_path / "model.npz"

    loaded = writing.write(writing.model_of(small), path, trained=small)

    assert loaded.version == modelfile.version_of(path.read_bytes())
    again = load_model(path).predict([5.6, 2.7, 4.2, 1.3])
    assert loaded.predict([5.6, 2.7, 4.2, 1.3]).probabilities == again.probabilities
    assert os.listdir(tmp_path) == ["model.npz"]


def test_a_model_of_another_forest_is_an_error_and_leaves_no_file(tmp_path: Path, trained: Trained) -> None:
    # Its golden rows agree with it, but it is not the forest that was fitted.
    other = writing.model_of(fitted(trained, n_estimators=100, max_depth=2, random_state=0))

    with pytest.raises(ModelFileError, match=r"answers \[.*\], '.*' to test row \d+, its library \[.*\], '"):
        writing.write(other, tmp_path / "model.npz", trained=trained)

    assert os.listdir(tmp_path) == []


def with_last_bit_changed(model: ModelFile) -> ModelFile:
    """Return the model with one of scikit-learn's probabilities changed by one unit in the last place."""
    probabilities = model.golden_answers.copy()
    probabilities[5, 0] = np.nextafter(probabilities[5, 0], 2)
    return replace(model, golden_answers=probabilities)


def with_swapped_leaves(model: ModelFile) -> ModelFile:
    leaves = model.forest.values[:, ::-1]
    return replace(model, predictor=replace(model.forest, values=np.ascontiguousarray(leaves)))


ALTERED = {"a golden probability's last bit": with_last_bit_changed, "all leaves": with_swapped_leaves}


@pytest.mark.parametrize("altered", ALTERED)
def test_a_model_whose_golden_rows_disagree_is_an_error(tmp_path: Path, trained: Trained, altered: str) -> None:
    with pytest.raises(ModelFileError, match="golden row"):
        writing.write(ALTERED[altered](writing.model_of(trained)), tmp_path / "model.npz", trained=trained)


@pytest.mark.parametrize("altered", ALTERED)
def test_a_model_whose_golden_rows_disagree_leaves_no_file(tmp_path: Path, trained: Trained, altered: str) -> None:
    with pytest.raises(MLError):
        writing.write(ALTERED[altered](writing.model_of(trained)), tmp_path / "model.npz", trained=trained)

    assert os.listdir(tmp_path) == []


def test_a_model_that_disagrees_leaves_the_older_file_in_its_place(tmp_path: Path, trained: Trained) -> None:
    path = tmp_path / "model.npz"
    small = fitted(trained, n_estimators=3, random_state=0)
    writing.write(writing.model_of(small), path, trained=small)
    before = path.read_bytes()
    other = writing.model_of(fitted(trained, n_estimators=3, max_depth=1, random_state=0))

    with pytest.raises(MLError):
        writing.write(other, path, trained=small)

    assert path.exists()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.npz"]
