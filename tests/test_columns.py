"""What each column is, inferred from all its cells: number or category, marks and gaps; what is left out or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.errors import TableError
from ml.tables.dataset import MAX_CHOICES, Feature
from ml.tables.header_rows import without_header_rows
from ml.tables.headers import Limits
from ml.tables.reading import Reading, TableOptions, dataset_of
from ml.tables.table import TEXT, Table
from tests.conftest import for_each

NAN = math.nan


def table(columns: Mapping[str, Sequence[str]], *, has_types: bool = False) -> Table:
    """Return a table of these columns, and a target of two classes at its end."""
    n_rows = len(next(iter(columns.values())))
    columns = {**columns, "kind": ["a", "b"] * n_rows}
    cells = tuple(np.array(list(texts)[:n_rows], dtype=TEXT) for texts in columns.values())
    return Table(tuple(columns), cells, np.arange(2, n_rows + 2), has_types=has_types)


def read(columns: Mapping[str, Sequence[str]], *, has_types: bool = False, **options: Any) -> Reading:
    return dataset_of(table(columns, has_types=has_types), TableOptions(**options), file_name="t.csv")


def column_of(texts: Sequence[str], name: str = "x", **options: Any) -> tuple[Feature, list[float]]:
    """Return the feature and the values that a column of these cells becomes."""
    dataset = read({name: texts}, **options).dataset
    return dataset.features[0], dataset.rows[:, 0].tolist()


def refusal_of(columns: Mapping[str, Sequence[str]], **options: Any) -> TableError:
    with pytest.raises(TableError) as caught:
        read(columns, **options)
    assert str(caught.value).isprintable()
    return caught.value


def is_same(values: Sequence[float], others: Sequence[float]) -> bool:
    return bool(np.array_equal(values, others, equal_nan=True))


# Words


def test_white_space_within_words_is_one_space() -> None:
    feature, values = column_of(["Zürich  Nord", "Bern", "Zürich\r\nNord", "Zürich\u00a0Nord"])

    assert feature.choices == ("Bern", "Zürich Nord")
    assert values == [1, 0, 1, 1]


def test_white_space_does_not_make_a_number_of_what_is_none() -> None:
    feature, _ = column_of(["1\n234", "5 678", "1\n234", "5 678"], keep=["x"])

    assert feature.choices == ("1\n234", "5 678")


def test_words_with_commas_are_listed_within_quotes() -> None:
    reading = read({"city": ["Kraków, Stare Miasto", "L'Aquila", "Bern", "Bern"] * 5, "x": ["Bern", "L'Aquila"] * 10})

    said = "\n".join(reading.inferred)
    assert """'city' is feature city, a category of 3: 'Bern', 'Kraków, Stare Miasto', "L'Aquila\"""" in said
    assert "'x' is feature x, a category of 2: Bern, L'Aquila" in said


# The marks of numbers

WRITTEN: dict[str, tuple[list[str], list[float], tuple[str, str, str]]] = {
    "points": (["1.5", "-2", "3", ".25"], [1.5, -2, 3, 0.25], (".", "", "")),
    "commas": (["1,5", "-2", "3", ",25"], [1.5, -2, 3, 0.25], (",", "", "")),
    "three digits behind a point, and two": (["1.227", "2.25", "3", "4"], [1.227, 2.25, 3, 4], (".", "", "")),
    "three digits behind a zero": (["0.227", "2.254", "3", "4"], [0.227, 2.254, 3, 4], (".", "", "")),
    "commas between thousands": (["3,093.21", "12", "1,234", "5"], [3093.21, 12, 1234, 5], (".", ",", "")),
    "points between thousands": (["2.278,54", "12", "1.234", "5"], [2278.54, 12, 1234, 5], (",", ".", "")),
    "millions": (["1,234,567", "12", "1,234", "5"], [1234567, 12, 1234, 5], (".", ",", "")),
    "apostrophes": (["1'809", "12", "1\u2019234.5", "5"], [1809, 12, 1234.5, 5], (".", "'", "")),
    "kinds of spaces": (["1 809", "1\u00a0000", "1\u202f234", "2\u2009000"], [1809, 1e3, 1234, 2e3], (".", " ", "")),
    "spaces and a comma": (["1 809,5", "7", "8", "9"], [1809.5, 7, 8, 9], (",", " ", "")),
    "dollars": (["$8,040.50", "$1", "-$2", "$3"], [8040.5, 1, -2, 3], (".", ",", "$")),
    "euros behind": (["8.040,50 €", "1 €", "2 €", "3 €"], [8040.5, 1, 2, 3], (",", ".", "€")),
    "percent": (["10.8%", "5%", "7 %", "0.5%"], [10.8, 5, 7, 0.5], (".", "", "%")),
    "months, and a month": (["36 months", "1 month", "2 months", "36 months"], [36, 1, 2, 36], (".", "", "months")),
    "exponents": (["1e3", "1.234e-2", "5E0", "7"], [1000, 0.01234, 5, 7], (".", "", "")),
    "a minus sign": (["\u22121,5", "2", "3", "4"], [-1.5, 2, 3, 4], (",", "", "")),
}  # fmt: skip


@for_each("form", WRITTEN)
def test_a_column_settles_what_the_marks_in_its_numbers_mean(form: str) -> None:
    texts, numbers, (decimal, thousands, unit) = WRITTEN[form]

    feature, values = column_of(texts)

    assert values == numbers
    assert (feature.decimal, feature.thousands, feature.unit) == (decimal, thousands, unit)
    assert not feature.choices


@pytest.mark.parametrize(
    ("open_texts", "other", "expected"),
    [
        (["1,781", "923", "1,200", "40"], ["7.5", "1", "2", "3"], [1781, 923, 1200, 40]),
        (["1,781", "923", "1,200", "40"], ["7,5", "1", "2", "3"], [1.781, 923, 1.2, 40]),
        (["1.227", "944", "1.100", "944"], ["7,0", "8", "9", "9"], [1227, 944, 1100, 944]),
        (["1.227", "944", "1.100", "944"], ["7.0", "8", "9", "9"], [1.227, 944, 1.1, 944]),
        (["1,781", "923", "1,200", "40"], ["1,234,567", "1", "2", "3"], [1781, 923, 1200, 40]),
        (["1.227", "944", "1.100", "944"], ["1.234.567", "1", "2", "2"], [1227, 944, 1100, 944]),
    ],
)
def test_what_a_column_leaves_open_the_other_columns_tell(
    open_texts: list[str], other: list[str], expected: list[float]
) -> None:
    reading = read({"x": open_texts, "y": other})

    assert reading.dataset.rows[:, 0].tolist() == expected
    assert any("'x'" in sentence and open_texts[0] in sentence for sentence in reading.inferred)


@pytest.mark.parametrize("text", ["1,781", "1.227"])
@pytest.mark.parametrize("other", [["5", "6", "7", "7"], ["red", "blue", "red", "blue"]])
def test_what_stays_open_is_refused_with_both_readings_and_what_decides(text: str, other: list[str]) -> None:
    columns = {"x": [text, "923", text, "40"], "y": other}
    number = float(text.replace(",", "."))

    error = refusal_of(columns)

    mark = text[1]
    other_mark = {",": ".", ".": ","}[mark]
    assert str(error) == (
        f"column 'x' can be read in two ways: {text!r} is {number} (--decimal {mark}) or {number * 1000:.0f} "
        f"(--decimal {other_mark})"
    )
    assert [options for _, options in error.remedies] == [("--decimal", mark), ("--decimal", other_mark)]
    assert read(columns, decimal=mark).dataset.rows[0, 0] == number
    assert read(columns, decimal=other_mark).dataset.rows[0, 0] == number * 1000
    assert read(columns, thousands=mark).dataset.rows[0, 0] == number * 1000


def test_cells_that_have_types_leave_nothing_open() -> None:
    assert read({"x": ["1.227", "944", "2.5", "3"]}, has_types=True).dataset.rows[:, 0].tolist() == [1.227, 944, 2.5, 3]


@pytest.mark.parametrize(
    "texts", [["1.5", "2,5"], ["1,234.5", "1.234,5"], ["1,234,567", "2,5"], ["1'234", "1,234,567"]], ids=str
)
def test_numbers_whose_marks_contradict_each_other_are_refused_by_name(texts: list[str]) -> None:
    error = refusal_of({"price": texts * 2})

    assert "column 'price' has numbers that do not agree" in str(error)
    assert all(text in str(error) for text in texts)
    assert read({"price": texts * 2}, keep=["price"]).dataset.features[0].choices == tuple(sorted(texts))


def test_numbers_that_contradict_the_mark_that_is_named_are_refused() -> None:
    assert "column 'x' has '1.5', which is not written with the marks that are named" in str(
        refusal_of({"x": ["1.5", "2", "3", "4"]}, decimal=",")
    )


def test_a_unit_in_the_header_and_another_one_in_the_cells_are_not_one_column() -> None:
    feature, _ = column_of(["5 cm", "6", "7 cm", "8"], name="width (cm)")
    assert feature.unit == "cm"

    texts = [f"{number} mm" for number in range(10, 50)]
    assert "different units" in str(refusal_of({"width (cm)": texts}))


def test_a_currency_in_the_header_may_have_its_sign_in_the_cells() -> None:
    def prices(sign: str) -> list[str]:
        return [f"{number},5 {sign}" for number in range(10, 50)]

    assert column_of(prices("€"), name="price (EUR)")[0].unit == "EUR"
    assert column_of(prices("CAD"), name="price ($)")[0].unit == "$"
    assert "different units" in str(refusal_of({"price (EUR)": prices("£")}))
    assert "different units" in str(refusal_of({"price (EUR)": prices("USD")}))


def test_units_that_differ_are_refused_among_many_numbers_and_words_among_few() -> None:
    prices = [f"{'$€'[number % 2]}{number}" for number in range(40)]
    assert "'$0' and '€1' have different units" in str(refusal_of({"price": prices}))

    feature, _ = column_of(["1st", "2nd", "3rd", "1st"])
    assert feature.choices == ("1st", "2nd", "3rd")


@given(
    numbers=st.lists(st.decimals(-(10**7), 10**7, places=2), min_size=2, max_size=30),
    decimal=st.sampled_from(".,"),
    thousands=st.sampled_from(["", ".", ",", "'", " ", "\u00a0"]),
)
def test_what_is_written_by_any_marks_is_read_as_it_was_meant_or_refused(
    numbers: list[object], decimal: str, thousands: str
) -> None:
    if decimal == thousands:
        return
    texts = [f"{number:,.2f}".replace(",", "T").replace(".", decimal).replace("T", thousands) for number in numbers] * 2

    feature, values = column_of(texts, keep=["x"])

    # Two digits behind the mark leave nothing open.
    assert values == [float(str(number)) for number in numbers] * 2
    assert feature.decimal == decimal


# Cells without a value


@for_each("marker", ["", "NA", "N/A", "NaN", "nan", "null", "None", "?", "-", "--", ".", "#N/A", "unknown"])
def test_texts_for_no_value_are_known_among_numbers(marker: str) -> None:
    feature, values = column_of(["1.5", marker, "3", marker])

    assert is_same(values, [1.5, NAN, 3, NAN])
    assert feature.has_gaps
    assert feature.markers == ((marker,) if marker else ())


@pytest.mark.parametrize("marker", ["", "NA", "N/A", "NaN", "null", "?"])
def test_texts_for_no_value_are_known_among_words(marker: str) -> None:
    feature, values = column_of(["red", marker, "blue", marker])

    assert is_same(values, [1, NAN, 0, NAN])
    assert (feature.choices, feature.has_gaps) == (("blue", "red"), True)


@pytest.mark.parametrize("word", ["None", "-", "unknown", "na"])
def test_a_word_that_may_be_one_of_the_choices_is_one(word: str) -> None:
    feature, _ = column_of(["red", word, "blue", word])

    assert set(feature.choices) == {"red", "blue", word}
    assert not feature.has_gaps


@pytest.mark.parametrize("texts", [["1", "gone", "3", "gone"], ["red", "gone", "blue", "gone"]])
def test_other_texts_for_no_value_can_be_named(texts: list[str]) -> None:
    feature, values = column_of(texts, missing=["gone"])

    assert np.isnan(values).tolist() == [False, True, False, True]
    assert feature.markers == ("gone",)


def test_a_few_other_texts_among_many_numbers_are_named_with_what_would_help() -> None:
    texts = [f"{number / 4}" for number in range(100)]
    texts[7] = texts[50] = "<0.5"
    texts[9] = "n. d."

    error = refusal_of({"x": texts})

    assert str(error).startswith(
        "column 'x' has numbers, and something else in 3 rows: '<0.5' (line 9), 'n. d.' (line 11); --missing"
    )
    assert error.remedies == (("this would work", ("--missing", "<0.5", "--missing", "n. d.")),)
    assert read({"x": texts}, missing=["<0.5", "n. d."]).dataset.features[0].has_gaps
    assert read({"x": texts}, keep=["x"]).dataset.features[0].choices


def test_what_would_help_is_no_other_option_where_a_text_or_a_name_begins_with_a_minus_sign() -> None:
    texts = [f"{number / 4}" for number in range(100)]
    texts[7] = "-Infinity"
    numbers = [str(number) for number in range(100)]

    error = refusal_of({"-x": texts, "--all": ["1e200"] * 100})

    assert error.remedies == (("this would work", ("--missing=-Infinity", "--drop=--all")),)
    assert any(
        "; --keep=-n insists" in said for said in read({"-n": numbers, "x": texts}, missing=["-Infinity"]).inferred
    )


# Numbers, categories, and what is neither


@pytest.mark.parametrize(
    ("texts", "choices"),
    [
        (["true", "false"], ("false", "true")),
        (["Yes", "No"], ("No", "Yes")),
        (["t", "f"], ("f", "t")),
        (["3", "4", "rotary"], ("3", "4", "rotary")),
        (["e\u0301", "é"], ("é",)),
    ],
)  # fmt: skip
def test_words_are_a_category_with_its_choices(texts: list[str], choices: tuple[str, ...]) -> None:
    feature, values = column_of([*texts, *texts, ""])

    assert feature.choices == choices
    assert set(values[:-1]) == set(range(len(choices)))


def test_codes_that_are_numbers_stay_numbers() -> None:
    feature, values = column_of(["0", "1", "1", "0"])

    assert not feature.choices
    assert values == [0, 1, 1, 0]


def test_rare_words_of_many_are_pooled_as_no_value_and_told() -> None:
    frequent = [f"word {number:03}" for number in range(MAX_CHOICES)]
    reading = read({"x": [*frequent * 3, *(f"rare {number}" for number in range(50))]})

    (feature,) = reading.dataset.features
    assert feature.choices == tuple(frequent)
    assert not feature.has_gaps
    assert np.isnan(reading.dataset.rows[-50:, 0]).all()
    assert any("the most frequent of 304; 50 rows with others count as no value" in line for line in reading.inferred)


OTHER = [str(number % 7) for number in range(60)]
LEFT_OUT: dict[str, tuple[str, list[str], str]] = {
    "row numbers": ("n", [str(number) for number in range(1, 61)], "row numbers, 1 to 60"),
    "row numbers in another order": ("n", [str(60 - number) for number in range(60)], "row numbers, 1 to 60"),
    "no name": ("", [f"r{number}" for number in range(60)], "another value in each row, and its column has no name"),
    "a number without a name": ("", [str(7 * n) for n in range(60)], "another value in each row, and its column"),
    "numbers by their name": ("PassengerId", [str(7 * number) for number in range(60)], "an identifier"),
    "words by their name": ("customer_id", [f"{number}-XY" for number in range(60)], "an identifier"),
    "one number": ("x", ["5"] * 60, "every row has 5"),
    "one word": ("x", ["yes"] * 60, "every row has 'yes'"),
    "nothing": ("x", [""] * 60, "no row has a value"),
    "nothing but markers": ("x", ["NA", ""] * 30, "no row has a value"),
    "names": ("x", [f"Person {number}" for number in range(60)], "text, another one in each row, as 'Person 0'"),
    "tickets": ("x", [*(f"A/{number}" for number in range(30)), *map(str, range(30))], "text, another one"),
    "dates": ("x", [f"2020-01-{number % 28 + 1:02}" for number in range(60)], "dates or times, as '2020-01-01'"),
    "German dates": ("x", [f"{number % 28 + 1}.02.2020" for number in range(60)], "dates or times"),
    "times": ("x", [f"{number % 24}:30" for number in range(60)], "dates or times, as '0:30'"),
    "dates with times": ("x", [f"2020-01-02T{number % 24:02}:30:00Z" for number in range(60)], "dates or times"),
    "months in words": ("x", [f"{number % 28 + 1} Jan 2020" for number in range(60)], "dates or times"),
}  # fmt: skip


@for_each("what", LEFT_OUT)
def test_what_nothing_can_be_learned_from_is_left_out_in_a_sentence(what: str) -> None:
    name, texts, reason = LEFT_OUT[what]

    reading = read({name: texts, "other": OTHER})

    assert [feature.key for feature in reading.dataset.features] == ["other"]
    assert any(f"left out {name or 'column_1'!r}: {reason}" in sentence for sentence in reading.inferred)


@for_each("what", [what for what in LEFT_OUT if not what.startswith(("one ", "nothing"))])
def test_what_is_left_out_can_be_kept(what: str) -> None:
    name, texts, _ = LEFT_OUT[what]

    reading = read({name: texts, "other": OTHER}, keep=[name])

    assert len(reading.dataset.features) == 2


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("x", [str(number * 1.5) for number in range(60)]),
        ("year", [str(1950 + number % 50) for number in range(60)]),
        ("id", [str(number % 20) for number in range(60)]),
        ("x", [*map(str, range(59)), ""]),
        ("x", ["yes", ""] * 30),
        ("kind of food", [f"food {number % 20}" for number in range(60)]),
    ],
)
def test_what_something_can_be_learned_from_is_kept(name: str, texts: list[str]) -> None:
    assert len(read({name: texts, "other": OTHER}).dataset.features) == 2


def said_of(name: str, texts: Sequence[str]) -> str:
    """Return the sentence about a column that stands beside another one."""
    (sentence,) = [line for line in read({name: texts, "other": OTHER}).inferred if repr(name) in line]
    return sentence


@pytest.mark.parametrize(
    ("texts", "culprit"),
    [
        ([f"{number / 7:.2f}" if number % 5 else "<0.5" for number in range(1, 61)], "12 rows, as '<0.5' on line 6"),
        ([f"{number / 7:.2f}" if number % 4 else f"({number}.00)" for number in range(60)], "15 rows, as '(0.00)' on"),
        ([*map(str, range(1, 46)), *["-"] * 14, "<0.5"], "1 row, as '<0.5' on line 61"),
    ],
    ids=["below the limit", "accounting", "beside no values"],
)
def test_of_numbers_with_other_texts_among_them_the_first_one_is_named(texts: list[str], culprit: str) -> None:
    sentence = said_of("x", texts)

    assert sentence.startswith("left out 'x': numbers in 4")
    assert f"rows, and something else in {culprit}" in sentence
    assert "--missing reads a text as no value" in sentence


@pytest.mark.parametrize("below", ["Total", "1,000 in all", "12.5 kg"])
def test_a_row_without_a_target_makes_no_words_of_numbers(below: str) -> None:
    numbers = [*(f"{number / 7:.2f}" for number in range(60)), below]
    cells = {"x": numbers, "other": [*OTHER, *OTHER][:61], "kind": [*("a", "b") * 30, ""]}
    columns = tuple(np.array(texts, dtype=TEXT) for texts in cells.values())

    reading = dataset_of(Table(tuple(cells), columns, np.arange(2, 63)), TableOptions(), file_name="t.csv")

    assert (reading.dataset.features[0].choices, reading.dataset.features[0].has_gaps) == ((), False)
    assert "left out 1 row without a value in this column" in reading.inferred


def test_digits_of_one_length_some_with_zeros_in_front_are_codes() -> None:
    texts = ["01067", "10115", "01234", "80331", "-", "01067"] * 10

    feature, values = column_of(texts, "zip")

    assert feature.choices == ("01067", "01234", "10115", "80331")
    assert (feature.has_gaps, feature.markers) == (True, ("-",))
    assert is_same(values[:6], [0, 2, 1, 3, NAN, 0])
    assert "codes, as '01067' begins with 0: --keep zip takes them as numbers" in said_of("zip", texts)
    assert column_of(texts, "zip", keep=["zip"])[1][:2] == [1067, 10115]


def test_different_codes_in_each_row_are_left_out() -> None:
    sentence = said_of("zip", [f"{number * 997:05}" for number in range(60)])

    assert sentence == "left out 'zip': codes, 60 different in 60 rows, as '00000' begins with 0; --keep zip insists"


@pytest.mark.parametrize("texts", [["01", "12", "07"], ["007", "12", "7"], ["0.5", "0.7", "1.2"], ["100", "0", "000"]])
def test_other_numbers_with_zeros_in_front_stay_numbers(texts: list[str]) -> None:
    assert column_of(texts * 4)[1] == [*map(float, texts)] * 4


@pytest.mark.parametrize(
    "values", [range(50_000, 50_180, 3), [491_501_000 + n * n * 7919 % 999_983 for n in range(60)]]
)
def test_a_whole_number_that_is_another_one_in_each_row_is_pointed_out(values: Sequence[int]) -> None:
    sentence = said_of("my account", [*map(str, values)])

    assert "another whole number in each row, as identifiers have: --drop 'my account' leaves it out" in sentence
    assert "identifiers" not in said_of("x", [*map(str, values[:-1]), str(values[0])])


def test_the_only_column_is_kept_even_if_it_looks_like_row_numbers() -> None:
    assert column_of([str(number) for number in range(20)])[1] == list(range(20))


def test_a_table_without_a_column_to_learn_from_is_refused_with_the_reasons() -> None:
    error = refusal_of({"x": ["5"] * 4, "y": [""] * 4})

    assert str(error) == "there is no column to learn from"
    assert error.details == ("left out 'x': every row has 5", "left out 'y': no row has a value")


def test_all_columns_that_cannot_be_read_are_in_one_message() -> None:
    many = [str(number) for number in range(60)]
    columns = {"mixed": [*many[:-1], "<1"], "open": ["1,781", "2"] * 30, "large": ["1e99", "5"] * 30, "good": OTHER}

    error = refusal_of(columns)

    assert str(error) == "3 of 5 columns cannot be used"
    assert [line.split()[1] for line in error.details] == ["'mixed'", "'open'", "'large'"]
    shared = ("--missing", "<1", "--drop", "large")
    assert error.remedies == (
        ("with 1.781 in 'open', this would work", (*shared, "--decimal", ",")),
        ("with 1781 in 'open', this would work", (*shared, "--decimal", ".")),
    )


def test_the_options_that_are_proposed_work() -> None:
    many = [str(number / 4) for number in range(60)]
    columns = {"good": OTHER, "mixed": [*many[:-1], "<1"], "price": ["1.5", "2,5"] * 30, "a b": ["1'5", "x", "2"] * 20}

    ((_, options),) = refusal_of(columns).remedies

    named = list(zip(options[::2], options[1::2], strict=True))
    wanted: dict[str, Any] = {}
    for option, value in named:
        wanted.setdefault(option.removeprefix("--"), []).append(value)
    assert len(read(columns, **wanted).dataset.features) == 3


def test_a_column_that_gives_the_target_away_is_pointed_out() -> None:
    reading = read({"alive": ["no", "yes"] * 30, "x": OTHER, "score": ["1", "9"] * 30})

    said = [sentence for sentence in reading.inferred if "gives the target away" in sentence]
    assert [sentence.split()[0] for sentence in said] == ["'alive'", "'score'"]
    assert len(reading.dataset.features) == 3


# Names


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["Height (cm)", "Height (in)"], ["height", "height_2"]),
        (["T.1", "T-1", "t 1"], ["t_1", "t_1_2", "t_1_3"]),
        (["x", "x", "x_2"], ["x", "x_3", "x_2"]),
        (["%", "#"], ["percent_sign", "number_sign"]),
        (["a", "", "b"], ["a", "column_2", "b"]),
    ],
)
def test_columns_have_keys_of_their_own(names: list[str], keys: list[str]) -> None:
    cells = [np.array(OTHER, dtype=TEXT) for _ in names]
    kinds = np.array(["a", "b"] * 30, dtype=TEXT)
    made = Table((*names, "kind"), (*cells, kinds), np.arange(2, 62))

    dataset = dataset_of(made, TableOptions(limits={keys[0]: Limits(0, None)}), file_name="t.csv").dataset

    assert [feature.key for feature in dataset.features] == keys
    assert [feature.minimum for feature in dataset.features] == [0, *[None] * (len(keys) - 1)]


def test_one_of_two_columns_with_one_name_is_dropped_by_its_place() -> None:
    texts = (OTHER, ["5", "7", "8"] * 20, ["a", "b"] * 30)
    made = Table(("x", "x", "kind"), tuple(np.array(cells, dtype=TEXT) for cells in texts), np.arange(2, 62))

    dataset = dataset_of(made, TableOptions(drop=["column_1"]), file_name="t.csv").dataset

    assert dataset.rows[:3, 0].tolist() == [5, 7, 8]
    assert dataset.features[0].key == "x"


def flowers_below(header: tuple[str, ...]) -> Table:
    numbers = [str(number / 4) for number in range(20)]
    texts = (numbers, numbers, ["Iris-setosa", "Iris-virginica"] * 10)
    return Table(header, tuple(np.array(cells, dtype=TEXT) for cells in texts), np.arange(2, 22))


@pytest.mark.parametrize(
    "header", [("3.1", "3.5", "class"), ("400", "402", "class"), ("0", "1", "2"), ("a", "2", "Iris-setosa")]
)
def test_names_may_be_numbers_or_words_of_the_table(header: tuple[str, ...]) -> None:
    assert without_header_rows(flowers_below(header)).header == header


def test_a_first_row_of_data_is_no_header() -> None:
    with pytest.raises(TableError, match="the header looks like the first row") as caught:
        without_header_rows(flowers_below(("3.1", "3.5", "Iris-setosa")))

    assert [options for _, options in caught.value.remedies] == [("--no-header",)]
