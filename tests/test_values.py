"""Words, gaps, marks and units in a sample: each becomes the number that stands for it in a row, or one error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.estimators.coding import cells_of_words
from ml.model.card import TrainedFeature
from ml.model.sample import FieldError, InvalidSample, Note, Validator
from ml.model.values import UnknownWord, no_value_text
from ml.tables.cells import CellReader
from ml.tables.dataset import MAX_CHOICES, UNKNOWN, Feature
from ml.tables.numbers import json_numbers, numbers_in_lines, plain_columns
from tests.conftest import for_each

SPECIES = ("Adelie", "Chinstrap", "Gentoo", "été")


def trained(key: str, **more: Any) -> TrainedFeature:
    """Return a feature as a model has it: a number from 1 to 10, or a category."""
    n = len(more.get("choices", ()))
    low, high = (0.0, n - 1.0) if n else (1.0, 10.0)
    given: dict[str, Any] = {"title": f"the {key}", "counts": (5,) * n, **more}
    return TrainedFeature(
        key=key, low=low, high=high, quantiles=(low, high), example=low, importance=0.0, **given
    )  # fmt: skip


def read(value: object, **more: Any) -> float:
    """Return what stands in the row for one value of a feature."""
    (number,) = Validator([trained("x", **more)]).row([value])
    return number


def error_of(value: object, **more: Any) -> FieldError:
    with pytest.raises(InvalidSample) as caught:
        read(value, **more)
    (error,) = caught.value.errors
    return error


# Categories.


@pytest.mark.parametrize(
    ("value", "position"),
    [("Adelie", 0.0), (" Gentoo ", 2.0), ("\u00a0Gentoo\n", 2.0), ("été", 3.0), ("e\u0301te\u0301", 3.0)],
)
def test_a_choice_becomes_its_position(value: str, position: float) -> None:
    assert read(value, choices=SPECIES) == position
    assert read(value, choices=SPECIES, has_gaps=True, markers=("NA",)) == position


@pytest.mark.parametrize("choice", ["Zürich Nord", "Zürich  Nord", "Zürich\nNord"])
def test_white_space_within_a_word_makes_no_difference(choice: str) -> None:
    texts = ["Zürich Nord", " Zürich  Nord", "Zürich\u00a0Nord", "Zürich\r\nNord", "Zu\u0308rich\tNord"]
    choices = ("Bern", choice)
    cells = CellReader(Feature(key="x", title="x", choices=choices), gaps=())

    assert [read(text, choices=choices) for text in texts] == [1.0] * 5
    assert [cells.value_of(text) for text in texts] == [1.0] * 5


def test_choices_that_differ_in_white_space_alone_are_told_apart_by_their_own_texts() -> None:
    coding = cells_of_words(0, "zone", ["c  d", "a  b", "a b"], gap=math.nan)

    assert coding.choices == ("c d", "a  b", "a b")
    assert [read(text, choices=coding.choices) for text in ("c  d", "a  b", "a b")] == [0.0, 1.0, 2.0]


@for_each("value", ["adelie", "ADELIE", "Adelie.", "Gen too", "0", "1", "-1", "x" * 500, "a\0b", "NaN"])
def test_any_other_word_is_unknown_and_noted(value: str) -> None:
    validator = Validator([trained("species", choices=SPECIES)])

    (number,) = row = validator.row([value])

    assert number == UNKNOWN == -1.0
    assert isinstance(number, UnknownWord)
    assert number.word == (value if len(value) <= 64 else value[:64] + "…")
    (note,) = validator.notes(row)
    assert note == Note("species", "unknown_choice", f"the species: {number.word!r} was not seen in training")
    assert validator.features[0].shown(number) == number.word


@pytest.mark.parametrize("value", [[], {}, ["Adelie"], {"value": "Adelie"}, b"Adelie", 5 + 0j], ids=repr)
def test_a_json_value_that_is_no_word_is_not_a_choice(value: object) -> None:
    assert error_of(value, choices=SPECIES).code == "not_a_choice"
    assert error_of(value, choices=SPECIES, has_gaps=True).code == "not_a_choice"


NUMBERS = ("0", "1", "1.5", "2", "10.0")


@for_each(
    ("value", "position"),
    [(0, 0), (0.0, 0), (-0.0, None), (1, 1), (1.0, 1), (1.5, 2), (2, 3), (10, 4), (10.0, 4), ("10.0", 4), (3, None),
     ("1.0", None), (1e39, None)],
)  # fmt: skip
def test_a_json_number_is_the_choice_that_is_written_like_it(value: float | str, position: int | None) -> None:
    assert read(value, choices=NUMBERS) == (UNKNOWN if position is None else position)


BOOLEAN_COLUMNS = [
    ("False", "True"), ("false", "true"), ("FALSE", "TRUE"), ("No", "Yes"), ("no", "yes"), ("F", "T"), ("N", "Y"),
    ("0", "1"),
]  # fmt: skip


@for_each("choices", [*BOOLEAN_COLUMNS, *(pair[::-1] for pair in BOOLEAN_COLUMNS)])
def test_a_json_boolean_is_the_choice_that_says_so(choices: tuple[str, str]) -> None:
    said = {choice.lower() for choice in choices}
    truth = next(word for word in ("true", "yes", "t", "y", "1") if word in said)

    assert [choices[int(read(value, choices=choices))].lower() == truth for value in (True, False)] == [True, False]


@pytest.mark.parametrize("choices", [("a", "c", "g", "t"), ("0", "1", "2"), ("n", "y", "z"), ("no", "true")], ids=str)
def test_a_json_boolean_is_no_choice_of_a_column_that_is_not_boolean(choices: tuple[str, ...]) -> None:
    assert read(True, choices=choices) == (choices.index("true") if "true" in choices else UNKNOWN)
    assert read(False, choices=choices) == UNKNOWN


# No value.


@for_each("more", [{}, {"choices": SPECIES}])
@for_each("value", [None, "NA", " ? ", "-999", math.nan, float("nan"), np.float64("nan").item()])
def test_no_value_is_one_where_the_feature_may_lack_it(value: object, more: dict[str, Any]) -> None:
    assert math.isnan(read(value, has_gaps=True, markers=("?", "NA", "-999"), **more))


@pytest.mark.parametrize("more", [{}, {"choices": SPECIES}], ids=["number", "category"])
@pytest.mark.parametrize("has_gaps", [False, True])
def test_an_empty_text_is_missing_whether_or_not_there_may_be_gaps(more: dict[str, Any], *, has_gaps: bool) -> None:
    way_out = "; NA says that it has no value" if has_gaps else ""
    for empty in ("", " ", "\u00a0\t"):
        assert error_of(empty, has_gaps=has_gaps, **more) == FieldError("x", "missing", f"the x is missing{way_out}")


@pytest.mark.parametrize("more", [{}, {"choices": SPECIES}, {"unit": "cm"}], ids=["number", "category", "unit"])
def test_no_value_is_an_error_where_the_feature_always_has_one(more: dict[str, Any]) -> None:
    assert error_of(None, **more).code == "missing"
    assert error_of(math.nan, **more).code == ("missing" if "choices" in more else "not_finite")


def test_a_marker_is_a_word_like_any_other_where_the_feature_always_has_a_value() -> None:
    assert read("NA", choices=SPECIES) == UNKNOWN
    assert error_of("NA").code == "not_a_number"


def test_a_choice_wins_over_a_marker() -> None:
    assert read("NA", choices=("EU", "NA"), has_gaps=True, markers=("NA",)) == 1.0


def test_a_key_that_is_not_there_is_missing_even_where_there_may_be_gaps() -> None:
    validator = Validator([trained("x", has_gaps=True), trained("y", choices=SPECIES, has_gaps=True)])

    with pytest.raises(InvalidSample) as caught:
        validator.row({"x": None})

    assert [(error.feature, error.code) for error in caught.value.errors] == [("y", "missing")]


@pytest.mark.parametrize(
    ("markers", "choices", "text"),
    [((), (), "NA"), (("?",), (), "?"), ((), ("NA", "no"), "?"), (("NA",), ("NA", "?"), "-"),
     ((), ("NA", "?", "-", "none"), "none 2"), (("NA", "-"), ("none", "none 2", "NA", "?", "-"), "none 3")],
)  # fmt: skip
def test_there_always_is_a_text_for_no_value(markers: tuple[str, ...], choices: tuple[str, ...], text: str) -> None:
    assert no_value_text(Feature(key="x", title="x", choices=choices, markers=markers)) == text
    assert math.isnan(read(text, has_gaps=True, markers=markers, choices=choices))
    if choices:
        assert read("another word", has_gaps=True, markers=markers, choices=choices) == UNKNOWN


@pytest.mark.parametrize("text", ["NA", "na", "NaN", " n/a ", "unknown", "None", "#N/A", "\u2013", "--"])
def test_what_stands_for_no_value_in_most_tables_does_so_for_a_number(text: str) -> None:
    assert math.isnan(read(text, has_gaps=True, markers=("?",)))
    assert read(text, has_gaps=True, markers=("?",), choices=SPECIES) == UNKNOWN
    assert error_of(text).code == "not_a_number"


@pytest.mark.parametrize("text", ["-", "."])
def test_the_beginning_of_a_number_is_no_missing_value_unless_its_column_says_so(text: str) -> None:
    assert error_of(text, has_gaps=True).code == "not_a_number"
    assert math.isnan(read(text, has_gaps=True, markers=(text,)))


def test_a_boolean_is_shown_as_json_has_it() -> None:
    assert error_of(True) == FieldError("x", "not_a_number", "the x: true is not a number", True)


@pytest.mark.parametrize("number", [math.inf, -math.inf, 10**400])
def test_a_number_beyond_all_others_is_no_word(number: float) -> None:
    error = error_of(number, choices=SPECIES, has_gaps=True)

    assert (error.code, error.message) == ("not_finite", "the x: a number beyond all others is not one of the choices")


# Marks and units.


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,781", 1781.0), ("1,234,567.5", 1234567.5), ("-1,781", -1781.0), ("\u22121,781.25", -1781.25), ("1781", 1781.0),
     ("12,781", 12781.0), ("0.5", 0.5), (" 1,781 ", 1781.0)],
)  # fmt: skip
def test_thousands_marks_are_read_where_the_column_had_them(text: str, number: float) -> None:
    assert read(text, thousands=",") == number


@pytest.mark.parametrize(
    "text", ["1,781,1", "1,234.567,890", "1,,781", ",781,000", "1,234.5,6", "12,34,567", "1,78", "1781,5"]
)
def test_marks_that_do_not_divide_a_number_in_threes_are_refused(text: str) -> None:
    assert error_of(text, thousands=",").code == "not_a_number"


@pytest.mark.parametrize(
    ("text", "thousands", "number"),
    [("1.781", ".", 1781.0), ("1.781,5", ".", 1781.5), ("1'809", "'", 1809.0), ("1 809,25", " ", 1809.25),
     ("1\u202f809", "\u202f", 1809.0)],
)  # fmt: skip
def test_other_marks_are_read_too(text: str, thousands: str, number: float) -> None:
    assert read(text, thousands=thousands, decimal=",") == number


def test_without_thousands_marks_a_comma_is_a_decimal_mark() -> None:
    assert read("1,781") == 1.781


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [("5.6 cm", "cm", 5.6), ("5,6cm", "cm", 5.6), ("5.6", "cm", 5.6), ("$8", "$", 8.0), ("10.8%", "%", 10.8),
     ("36 months", "months", 36.0), ("-5 °C", "°C", -5.0), ("15", "5", 15.0)],
)  # fmt: skip
def test_the_features_own_unit_may_stand_by_its_number(text: str, unit: str, number: float) -> None:
    assert read(text, unit=unit) == number
    assert read(text, unit=unit, has_gaps=True) == number
    assert read(text, unit=unit, thousands="'", minimum=-10.0) == number


def test_marks_and_a_unit_are_read_together() -> None:
    assert read("$8,040", unit="$", thousands=",") == 8040.0
    assert read("1,010", unit="10", thousands=",") == 1010.0


@pytest.mark.parametrize("text", ["5.6 mm", "5.6 cm cm", "cm", "cm 5.6 in", "5.6 CM"])
def test_another_unit_is_refused(text: str) -> None:
    assert error_of(text, unit="cm").code in {"not_a_number", "missing"}


def test_a_number_with_its_unit_keeps_the_limits() -> None:
    assert error_of("-5 cm", unit="cm", minimum=0.0).code == "out_of_bounds"
    assert error_of("1e39 cm", unit="cm").code == "not_finite"


# Names.

NAMED = Validator(
    [
        trained("width", header="Width (cm)", unit="cm"),
        trained("kind", header="Kind", choices=SPECIES),
        trained("z", header="z"),
    ]
)


def test_a_feature_may_be_named_by_its_header() -> None:
    assert NAMED.row({"Width (cm)": 2.5, "Kind": "Gentoo", "z": 1}) == [2.5, 2.0, 1.0]
    assert NAMED.row({"width": "2.5 cm", "Kind": "Gentoo", "z": 1}) == [2.5, 2.0, 1.0]


def test_a_feature_that_is_named_twice_is_an_error() -> None:
    with pytest.raises(InvalidSample) as caught:
        NAMED.row({"Width (cm)": 2.5, "width": 2.5, "kind": "Gentoo", "z": 1})

    assert caught.value.errors == (
        FieldError("width", "named_twice", "the width is given twice, by its key and by its header"),
    )


def test_errors_of_a_sample_with_headers_are_those_of_its_keys() -> None:
    with pytest.raises(InvalidSample) as caught:
        NAMED.row({"Width (cm)": "x", "Kind": [], "Z": 1})

    found = [(error.feature, error.code) for error in caught.value.errors]
    assert found == [("width", "not_a_number"), ("kind", "not_a_choice"), ("z", "missing"), ("Z", "unknown_feature")]


def test_a_key_wins_over_the_header_of_another_feature() -> None:
    validator = Validator([trained("a", header="b"), trained("b", header="a")])

    assert validator.row({"a": 1.0, "b": 2.0}) == [1.0, 2.0]


# Notes, and rows of many.


def test_notes_are_about_numbers_outside_the_training_range_and_unknown_words_alone() -> None:
    validator = Validator([trained("x", has_gaps=True), trained("kind", choices=SPECIES, has_gaps=True)])

    def codes(*values: object) -> list[tuple[str, str]]:
        return [(note.feature, note.code) for note in validator.notes(validator.row(values))]

    assert codes(None, None) == codes(5, "Gentoo") == codes(None, "été") == []
    assert codes(11, "Gentoo") == [("x", "outside_training_range")]
    assert codes(None, "Emperor") == [("kind", "unknown_choice")]
    assert codes(0.5, "Emperor") == [("x", "outside_training_range"), ("kind", "unknown_choice")]


def test_rows_of_many_may_lack_what_one_row_may_lack() -> None:
    validator = Validator([trained("x"), trained("y", has_gaps=True), trained("kind", choices=SPECIES)])
    rows = np.array([[1, 1, 1], [np.nan, 1, 1], [1, np.nan, 1], [1, 1, np.nan], [1, 1, UNKNOWN], [np.inf, 1, 1]])

    expected = [True, False, True, True, True, False]

    assert validator.accepts(rows.astype(np.float32)).tolist() == expected
    assert [validator.accepts_all(rows[number : number + 1]) for number in range(len(rows))] == expected


ANY_VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([*SPECIES, "NA", "5 cm"]), st.lists(st.integers(), max_size=1),
)  # fmt: skip


@given(values=st.tuples(ANY_VALUE, ANY_VALUE, ANY_VALUE, ANY_VALUE))
def test_any_sample_is_a_row_or_has_errors_and_by_key_as_by_position(values: tuple[object, ...]) -> None:
    validator = Validator(
        [
            trained("a", has_gaps=True, unit="cm"), trained("b", minimum=0.0, thousands=","),
            trained("c", choices=SPECIES, has_gaps=True), trained("d", choices=("no", "yes"), header="D"),
        ]
    )  # fmt: skip

    row, errors = outcome(validator, values)
    named, named_errors = outcome(validator, dict(zip(["a", "b", "c", "D"], values, strict=True)))

    assert bool(row) != bool(errors)
    assert (repr(row), errors) == (repr(named), named_errors)
    if row:
        assert all(isinstance(number, float) for number in row)
        assert not math.isnan(row[1])
        assert row[2] in {-1.0, 0.0, 1.0, 2.0, 3.0} or math.isnan(row[2])
        assert row[3] in {-1.0, 0.0, 1.0}


def outcome(validator: Validator, sample: Any) -> tuple[list[float], tuple[FieldError, ...]]:
    try:
        return validator.row(sample), ()
    except InvalidSample as error:
        return [], error.errors


def test_there_are_as_many_choices_as_a_category_may_have() -> None:
    choices = tuple(map(str, range(MAX_CHOICES)))

    assert [read(choice, choices=choices) for choice in choices] == list(range(MAX_CHOICES))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 10**40), min_size=1))
def test_the_numbers_of_a_column_have_the_bits_that_float_gives(numbers: list[float]) -> None:
    cells = [repr(number) for number in numbers]

    read = json_numbers(cells)

    assert read is not None
    assert read.tolist() == [float(cell) for cell in cells]
    both = plain_columns([cells, cells[::-1]])
    assert both is not None
    assert both.tolist() == [[float(one), float(other)] for one, other in zip(cells, cells[::-1], strict=True)]


@for_each("cell", ["", "1,5", "null", "true", "[1]", '"1"', "+5", ".5", "nan", "1e999", "\u0663", "\udcff"])
def test_a_cell_that_is_no_number_of_json_has_to_be_read_otherwise(cell: str) -> None:
    assert json_numbers([cell]) is None
    assert json_numbers(["1", cell, "2"]) is None


some_cells = st.sampled_from(["1", "-2.5", "1e3", "1,5", " 7 ", "", "x", "+5", "1],[2"])


@given(rows=st.lists(st.lists(some_cells, max_size=3), min_size=1, max_size=3), separator=st.sampled_from(",;\t"))
def test_numbers_in_lines_are_those_in_their_cells(rows: list[list[str]], separator: str) -> None:
    lines = [separator.join(row) for row in rows]
    cells = [line.split(separator) for line in lines]
    are_alike = len({*map(len, cells)}) == 1

    expected = [json_numbers(row) for row in cells] if are_alike else [None]
    read = numbers_in_lines(lines, separator, len(cells[0]))

    assert (read is None) == any(row is None for row in expected)
    assert read is None or read.tolist() == [row.tolist() for row in expected if row is not None]


def test_numbers_in_lines_may_be_as_long_as_in_cells() -> None:
    longest = "0." + "1" * 62

    assert numbers_in_lines([f"{longest},2", f"1,{longest}"], ",", 2) is not None
    assert numbers_in_lines([f"{longest}1,2"], ",", 2) is None
    assert numbers_in_lines([f"1,{longest}1"], ",", 2) is None
    assert numbers_in_lines([f"1,{longest}1", "1,2"], ",", 2) is None
