"""Model files of words, gaps and quantities, crafted ones among them, and those of format 1."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ml.errors import ModelFileError
from ml.model import modelfile
from ml.model.modelfile import ModelFile
from ml.model.older import ARRAYS as OLD_NAMES
from ml.training import writing
from ml.training.fitting import Trained
from tests.conftest import for_each
from tests.test_mixed_tables import oracle
from tests.test_modelfile import (
    CARD,
    archive_of,
    arrays_of,
    corrupted,
    members_of,
    npy_of,
    outcome,
    refused,
    serve,
    served_or_refused,
    tally,
    with_arrays,
    with_card,
    with_element,
    with_member,
)  # fmt: skip

NEW_KEYS = ("header", "choices", "has_gaps", "markers", "decimal", "thousands", "counts", "gap_share")


@pytest.fixture(scope="module")
def mixed() -> bytes:
    """A model of classes: a category of 3 choices and two numbers, all of which may lack a value."""
    return modelfile.dump(oracle("gaps in words and numbers", 0, "random-forest", quantity=False).stored)


@pytest.fixture(scope="module")
def quantity() -> bytes:
    return modelfile.dump(oracle("words and numbers", 0, "extra-trees", quantity=True).stored)


# Format 1.


def in_format_1(model: ModelFile) -> bytes:
    """Return a model file as it was written before there were categories, gaps and quantities."""
    content = modelfile.dump(model)
    card = json.loads(dict(members_of(content))[CARD])["card"]
    card["labels"] = card.pop("target")["labels"]
    del card["quantity"], card["report"]["kind"]
    for feature in card["features"]:
        for key in NEW_KEYS:
            del feature[key]
    arrays = arrays_of(content)
    arrays["reference_outcomes"] = arrays["reference_outcomes"].astype("<i4")
    members = [(f"{old}.npy", npy_of(arrays[new])) for new, old in OLD_NAMES.items()]
    return archive_of([(CARD, json.dumps({"format": 1, "card": card}).encode()), *members])


@pytest.fixture(scope="module")
def old(trained: Trained) -> bytes:
    return in_format_1(writing.model_of(trained))


def test_a_file_of_format_1_gives_the_same_answers(old: bytes, trained: Trained) -> None:
    names = {name.removesuffix(".npy") for name, _ in members_of(old)}
    assert {"probabilities", "golden_probabilities", "sample_rows", "sample_classes"} <= names
    rows = np.random.default_rng(0).uniform(0, 8, (2_000, 4))

    model, now = serve(old), serve(modelfile.dump(writing.model_of(trained)))

    assert np.array_equal(model.predict_batch(rows).outputs, trained.estimator.predict_proba(rows))
    assert model.predict(rows[0].tolist()).probabilities == now.predict(rows[0].tolist()).probabilities
    assert model.labels == now.labels == ("setosa", "versicolor", "virginica")
    assert model.card.report == now.card.report
    assert np.array_equal(model.reference_outcomes, now.reference_outcomes)
    assert [(f.key, f.low, f.choices, f.has_gaps) for f in model.features] == [
        (f.key, f.low, (), False) for f in now.features
    ]


def test_a_model_of_format_1_is_not_written_as_one_of_today(old: bytes) -> None:
    with pytest.raises(ModelFileError, match="a model of format 1 cannot be written again: it has no covers"):
        modelfile.dump(modelfile.parse(old))


def test_arrays_of_one_format_with_the_card_of_the_other_are_refused(old: bytes, trained: Trained) -> None:
    now = modelfile.dump(writing.model_of(trained))
    cards = [dict(members_of(content))[CARD] for content in (old, now)]

    assert "the archive's members are not those of format 2" in refused(with_member(old, CARD, cards[1]))
    assert "the archive's members are not those of format 1" in refused(with_member(now, CARD, cards[0]))


@pytest.mark.parametrize("change", ["labels", "report", "features", "trees"])
def test_a_broken_card_of_format_1_is_refused(old: bytes, change: str) -> None:
    whole = json.loads(dict(members_of(old))[CARD])
    values: tuple[Any, ...] = (None, [], {}, 5, "x")

    for value in values:
        whole["card"][change] = value
        refused(with_member(old, CARD, json.dumps(whole).encode()))


def test_random_corruption_of_a_file_of_format_1_is_refused_or_harmless(old: bytes) -> None:
    rng = random.Random(1)
    members = members_of(old)

    def one() -> str:
        name, content = rng.choice(members)
        model, sentence = served_or_refused(with_member(old, name, corrupted(content, rng)))
        assert sentence.isprintable()
        return "served" if model else "refused"

    assert tally(one() for _ in range(60))["refused"] > 15


# Format 2.


def feature(number: int, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda card: card["features"][number].update(values)


INTERVAL: dict[str, float] = {"below": 1.0, "above": 1.0, "coverage": 0.9, "rows": 9}
QUANTITY: dict[str, Any] = {"low": 0.0, "high": 1.0, "quantiles": [0.0, 1.0], "interval": INTERVAL}
MIXED_CARDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a choice twice": (feature(0, choices=["red", "red", "blue"]), "different choices"),
    "an empty choice": (feature(0, choices=["red", "", "blue"]), "different choices"),
    "too many choices": (feature(0, choices=[*map(str, range(255))]), "at most 254 different choices"),
    "a long choice": (feature(0, choices=["x" * 1_001, "b", "c"]), "of length <= 1000"),
    "a long marker": (feature(1, markers=["x" * 1_001]), "of length <= 1000"),
    "a long header": (feature(1, header="x" * 1_001), "of length <= 1000"),
    "choices that are numbers": (feature(0, choices=[1, 2, 3]), "the card is not valid"),
    "a choice too few": (feature(0, choices=["red", "blue"], counts=[1, 1], high=1.0, example=0.0), "a choice of f0"),
    "a count too few": (feature(0, counts=[1, 2]), "statistics are not those of its choices"),
    "a negative count": (feature(0, counts=[1, 2, -3]), "the card is not valid"),
    "counts of a number": (feature(1, counts=[1]), "statistics are not those of its choices"),
    "a share of gaps beyond 1": (feature(1, gap_share=1.5), "the card is not valid"),
    "a negative share of gaps": (feature(0, gap_share=-0.1), "the card is not valid"),
    "a range beyond the choices": (feature(0, high=3.0), "statistics are not those of its choices"),
    "a range below the choices": (feature(0, low=-1.0), "statistics are not those of its choices"),
    "an example between two choices": (feature(0, low=0.0, example=0.5, high=2.0), "not one of its choices"),
    "a decimal mark that is none": (feature(1, decimal=";"), "the card is not valid"),
    "no gaps where rows have some": (feature(1, has_gaps=False), "golden_rows has a value that is not finite"),
    "a number with choices": (feature(1, choices=["a"], counts=[1]), "f1"),
    "labels and a quantity": (lambda card: card.update(quantity=QUANTITY), "mixes classes and a quantity"),
    "neither labels nor a quantity": (lambda card: card["target"].update(labels=[]), "2 to 1000 different labels"),
    "another kind of report": (lambda card: card["report"].update(kind="quantity"), "the card is not valid"),
    "an unknown kind of report": (lambda card: card["report"].update(kind="ranks"), "the card is not valid"),
    "a long title": (lambda card: card["target"].update(title="x" * 1_001), "of length <= 1000"),
}  # fmt: skip


@for_each("broken", MIXED_CARDS)
def test_a_broken_card_of_words_and_gaps_is_refused_with_what_is_wrong(mixed: bytes, broken: str) -> None:
    change, said = MIXED_CARDS[broken]

    assert said in refused(with_card(mixed, lambda whole: change(whole["card"])))


def known(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda card: card["quantity"].update(values)


QUANTITY_CARDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "labels": (lambda card: card["target"].update(labels=["a", "b"]), "mixes classes and a quantity"),
    "no quantity": (lambda card: card.update(quantity=None), "mixes classes and a quantity"),
    "a span upside down": (known(low=1e9), "statistics of the quantity"),
    "one quantile": (known(quantiles=[0.0]), "statistics of the quantity"),
    "quantiles in disorder": (known(quantiles=[2.0, 1.0]), "statistics of the quantity"),
    "an interval that is none": (known(interval={**INTERVAL, "below": -1.0}), "statistics of the quantity"),
    "a coverage beyond 1": (known(interval={**INTERVAL, "coverage": 1.5}), "statistics of the quantity"),
    "no interval": (known(interval=None), "statistics of the quantity"),
    "text in the interval": (known(interval={**INTERVAL, "above": "1"}), "the card is not valid"),
    "a report of classes": (lambda card: card["report"].update(kind="classes"), "the card is not valid"),
    "residuals that are no pairs": (lambda card: card["report"].update(residuals=[[1.0]]), "the card is not valid"),
    "a long unit": (lambda card: card["target"].update(unit="x" * 1_001), "of length <= 1000"),
}  # fmt: skip


@for_each("broken", QUANTITY_CARDS)
def test_a_broken_card_of_a_quantity_is_refused_with_what_is_wrong(quantity: bytes, broken: str) -> None:
    change, said = QUANTITY_CARDS[broken]

    assert said in refused(with_card(quantity, lambda whole: change(whole["card"])))


def place_of(content: bytes, number: int) -> int:
    """Return the first node that compares a feature."""
    return int(np.flatnonzero(arrays_of(content)["feature"] == number)[0])


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("value", [-1.0, -0.4, -1e38, -1e300])
def test_a_threshold_below_all_values_of_its_feature_is_refused(mixed: bytes, number: int, value: float) -> None:
    broken = with_element(mixed, "threshold", place_of(mixed, number), value)

    sentence = refused(broken)

    if number == 0 or value == -1e300:
        assert sentence == f"feature f{number}: a threshold below all of its values"


@pytest.mark.parametrize("value", [2, 3, 128, 255])
def test_a_side_that_is_neither_left_nor_right_is_refused(mixed: bytes, value: int) -> None:
    sentence = refused(with_element(mixed, "missing_left", place_of(mixed, 0), value))

    assert sentence == "missing_left has a value other than 0 and 1"


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_node_that_no_training_row_came_by_is_refused(mixed: bytes, value: float) -> None:
    assert "a node has no training row" in refused(with_element(mixed, "covers", 3, value))


def test_all_rows_without_a_value_on_the_other_side_are_refused_by_a_golden_row(mixed: bytes) -> None:
    sides = 1 - arrays_of(mixed)["missing_left"]

    assert "golden row" in refused(with_arrays(mixed, missing_left=sides))


@pytest.mark.parametrize("name", ["golden_answers", "reference_outcomes"])
def test_an_answer_that_is_no_number_is_refused(mixed: bytes, quantity: bytes, name: str) -> None:
    for content in (mixed, quantity):
        place = (0,) * arrays_of(content)[name].ndim
        for value in (np.nan, np.inf, 1e39):
            assert refused(with_element(content, name, place, value)).startswith(
                f"{name} has a value that is not finite"
            )


@pytest.mark.parametrize("value", [-1.0, 3.0, 0.5, 1e30])
def test_a_reference_row_with_a_choice_that_is_none_is_refused(mixed: bytes, value: float) -> None:
    broken = with_element(mixed, "reference_rows", (0, 0), value)

    assert refused(broken) == "a reference row has a choice of f0 that it does not have"


@pytest.mark.parametrize("value", [0.5, -1.0, 3.0])
def test_a_reference_row_of_no_class_is_refused(mixed: bytes, value: float) -> None:
    assert "a class outside the labels" in refused(with_element(mixed, "reference_outcomes", 0, value))


def test_a_leaf_of_a_quantity_that_is_no_number_is_refused(quantity: bytes) -> None:
    for value in (np.nan, np.inf):
        assert f"tree 0 has a leaf of {value}, not a finite number" in refused(
            with_element(quantity, "values", (0, 0), value)
        )


def test_two_numbers_a_leaf_are_refused_for_a_quantity(quantity: bytes) -> None:
    values = arrays_of(quantity)["values"]

    assert "does not have one number" in refused(with_arrays(quantity, values=np.column_stack([values, values])))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixed", "quantity"])
def test_random_corruption_is_refused_or_harmless(request: pytest.FixtureRequest, kind: str) -> None:
    good: bytes = request.getfixturevalue(kind)
    rng = random.Random(kind)
    members = members_of(good)

    def one() -> str:
        name, content = rng.choice(members)
        return outcome(with_member(good, name, corrupted(content, rng)), good=good)

    assert tally(one() for _ in range(75))["refused"] > 20
