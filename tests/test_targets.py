"""What is predicted: which column, a class or a quantity, and the rows that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ml.errors import TableError
from ml.tables.reading import Reading, TableOptions, dataset_of
from ml.tables.table import TEXT, Table

X = [str(number % 7) for number in range(60)]


def read(columns: Mapping[str, Sequence[str]], **options: Any) -> Reading:
    cells = tuple(np.array(list(texts), dtype=TEXT) for texts in columns.values())
    table = Table(tuple(columns), cells, np.arange(2, len(cells[0]) + 2))
    return dataset_of(table, TableOptions(**options), file_name="t.csv")


def refusal_of(columns: Mapping[str, Sequence[str]], **options: Any) -> TableError:
    with pytest.raises(TableError) as caught:
        read(columns, **options)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("names", "options", "title", "why"),
    [
        (["x", "y"], {}, "y", " (the last one)"),
        (["y", "x"], {"target": "y"}, "y", ""),
        (["class", "x"], {}, "class", " (by its name; --target chooses another one)"),
        (["Species", "x"], {}, "Species", " (by its name; --target chooses another one)"),
        (["x", "label"], {}, "label", " (the last one)"),
        (["target", "label", "x"], {}, "target", " (by its name; --target chooses another one)"),
    ],
)
def test_the_target_is_the_one_that_is_named_or_has_its_name_or_is_the_last(
    names: list[str], options: dict[str, str], title: str, why: str
) -> None:
    columns = {name: ["a", "b"] * 30 if name == title else X for name in names}

    reading = read(columns, **options)

    assert reading.dataset.target.title == title
    assert f"class column: {title}{why}" in reading.inferred


def test_few_different_numbers_are_classes_and_many_are_a_quantity() -> None:
    few = read({"x": X, "grade": [str(number % 20) for number in range(60)]})
    many = read({"x": X, "price ($)": [f"{number % 21}.50" for number in range(60)]})

    assert len(few.dataset.target.labels) == 20
    assert "class column: grade (the last one), 20 different numbers; --quantity predicts a number" in few.inferred
    assert (many.dataset.target.title, many.dataset.target.unit, many.dataset.target.labels) == ("price", "$", ())
    assert many.dataset.outcomes[:3].tolist() == [0.5, 1.5, 2.5]
    assert many.dataset.source == "t.csv: 60 rows, 1 feature, a quantity"
    said = "quantity: price ($) (the last one), 21 different numbers from 0.5 to 20.5; --classes makes "
    assert any(sentence.startswith(said) for sentence in many.inferred)


def test_numbers_of_which_most_are_in_one_row_are_a_quantity_however_few() -> None:
    assert read({"x": X[:9], "y": ["1.5", "2", "3", "4", "5", "6", "7", "8", "8"]}).dataset.target.labels == ()


def test_what_the_target_is_can_be_insisted_on() -> None:
    numbers = [str(number % 21) for number in range(60)]

    assert len(read({"x": X, "y": numbers}, kind="classes").dataset.target.labels) == 21
    assert read({"x": X, "y": ["0", "1"] * 30}, kind="quantity").dataset.outcomes[:2].tolist() == [0, 1]
    assert "column 'y' is no quantity: it has 'a', 'b'" in str(
        refusal_of({"x": X, "y": ["a", "b"] * 30}, kind="quantity")
    )


def test_a_quantity_is_read_by_its_marks_and_unit() -> None:
    texts = [f"$1,{number:03}.00" for number in range(60)]

    dataset = read({"x": X, "price": texts}).dataset

    assert dataset.outcomes[:3].tolist() == [1000, 1001, 1002]
    assert dataset.target.unit == "$"


@pytest.mark.parametrize(
    ("texts", "labels", "sentence"),
    [
        (["No", "no", "No ", "yes", "YES", "yes"], ("No", "yes"), "'No', 'no' are one class, No"),
        (["0", "0.0", "0", "1", "1.0", "1"], ("0", "1"), "'0', '0.0' are one class, 0"),
        (["New York", "new  york", "new york", "new york", "b", "b"], ("b", "new york"), "are one class, new york"),
    ],
)
def test_labels_that_differ_by_case_space_or_zeros_are_one_and_it_is_said(
    texts: list[str], labels: tuple[str, ...], sentence: str
) -> None:
    reading = read({"x": X, "y": texts * 10})

    assert reading.dataset.target.labels == labels
    assert any(sentence in said for said in reading.inferred)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["1", "True", "yes", "0", "False", "no"], "'True', 'yes', '1' may mean the same, but are different classes"),
        (["1", "True", "yes", "0", "False", "no"], "'False', 'no', '0' may mean the same"),
        (["Y", "y", "yes", "n"], "'yes', 'Y' may mean the same"),
        (["5", "5.0", "x"], "'5', '5.0' may mean the same"),
    ],
)
def test_classes_that_may_be_one_are_pointed_out(texts: list[str], sentence: str) -> None:
    reading = read({"x": [*map(str, range(0, 120, 2))], "y": (texts * 60)[:60]})

    assert any(sentence in said for said in reading.inferred), reading.inferred


def test_choices_that_may_be_one_are_pointed_out() -> None:
    reading = read({"sex": ["Male", "male", "F", "female"] * 15, "y": ["a", "b", "c"] * 20})

    hint = "'Male', 'male' may mean the same, but are different choices: write them in one way"
    assert [said for said in reading.inferred if hint in said]


@pytest.mark.parametrize("texts", [["0", "1", "2"], ["a", "c", "g", "t"], ["no", "yes"], ["n", "y", "z"], ["f", "m"]])
def test_other_classes_are_not(texts: list[str]) -> None:
    reading = read({"x": [*map(str, range(0, 120, 2))], "y": (texts * 60)[:60]})

    assert not [said for said in reading.inferred if "may mean the same" in said]


@pytest.mark.parametrize("marker", ["", "NA", "?"])
def test_rows_without_a_target_are_left_out_and_told(marker: str) -> None:
    reading = read({"x": X, "y": ["a", "b", marker] * 20})

    assert len(reading.dataset.rows) == len(reading.dataset.outcomes) == 40
    assert "left out 20 rows without a value in this column" in reading.inferred
    assert len(read({"x": X, "y": ["a", "b", "None"] * 20}).dataset.target.labels) == 3


def test_a_gap_of_a_row_that_is_left_out_is_no_gap() -> None:
    reading = read({"x": [*X[:-1], ""], "y": [*["a", "b"] * 29, "a", ""]})

    assert not reading.dataset.features[0].has_gaps


def test_a_lone_row_of_a_class_is_left_out_and_told() -> None:
    reading = read({"x": X, "y": [*["a", "b"] * 29, "c", "d"]})

    assert reading.dataset.target.labels == ("a", "b")
    assert len(reading.dataset.rows) == 58
    assert "left out the only row of each of these classes: c, d" in reading.inferred


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([f"name {number}" for number in range(60)], "it has 60 different values in 60 rows, as 'name 0'"),
        (["a"] * 60, "there is only one class, 'a'"),
        ([""] * 60, "no row has a value"),
        ([str(number // 2) for number in range(2400)], "it has 1200 different values in 2400 rows, as '0'"),
    ],
)
def test_what_is_no_target_is_refused_with_the_columns_that_could_be_one(texts: list[str], reason: str) -> None:
    columns = {"id": [str(number) for number in range(len(texts))], "kind": ["u", "v"] * (len(texts) // 2), "y": texts}

    error = refusal_of(columns, kind="classes")

    assert str(error) == f"column 'y' is no target: {reason}"
    assert error.details == ("--target names another target, such as 'kind'",)


def test_columns_of_numbers_are_proposed_for_a_quantity() -> None:
    columns = {"kind": ["u", "v"] * 30, "size": [f"{number / 2}" for number in range(60)], "y": ["a", "b"] * 30}

    assert refusal_of(columns, kind="quantity").details == ("--target names another target, such as 'size'",)
    assert read(columns, target="kind").dataset.target.labels == ("u", "v")


def test_a_quantity_with_a_few_other_texts_is_refused_as_a_column_is() -> None:
    texts = [*(str(number / 4) for number in range(59)), "<1"]

    error = refusal_of({"x": X, "y": texts})

    assert str(error).startswith("column 'y' has numbers, and something else in 1 row: '<1' (line 61)")
    assert len(read({"x": X, "y": texts}, missing=["<1"]).dataset.outcomes) == 59


def test_an_open_target_is_in_one_message_with_the_columns() -> None:
    error = refusal_of({"x": [*(str(number) for number in range(59)), "<1"], "y": [f"1.{100 + n}" for n in range(60)]})

    assert str(error) == "2 of 2 columns cannot be used"
    assert [options for _, options in error.remedies] == [
        ("--missing", "<1", "--decimal", "."), ("--missing", "<1", "--decimal", ","),
    ]  # fmt: skip
