"""The one validator: what a person types and what a program sends becomes a row, or errors that say what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml.model.card import TrainedFeature
from ml.model.sample import MAX_ERRORS, FieldError, InvalidSample, Validator
from ml.model.values import Repeated
from ml.tables.numbers import LARGEST, MAX_NUMBER_CHARACTERS, NotANumber, is_half_typed, number_of, shown_number
from tests.conftest import for_each

KEYS = ("length", "angle", "mass")


def feature(key: str, *, minimum: float | None = None, maximum: float | None = None, unit: str = "") -> TrainedFeature:
    return TrainedFeature(
        key=key, title=f"the {key}", unit=unit, minimum=minimum, maximum=maximum,
        low=1.0, high=10.0, quantiles=(1.0, 10.0), example=5.0, importance=0.0,
    )  # fmt: skip


VALIDATOR = Validator(
    [feature("length", minimum=0.0, unit="cm"), feature("angle", minimum=-180.0, maximum=180.0), feature("mass")]
)


def error_of(value: object, *, key: str = "mass") -> FieldError:
    """Return the error that one value gives beside two good ones."""
    with pytest.raises(InvalidSample) as caught:
        VALIDATOR.row({"length": 5.0, "angle": 5.0, "mass": 5.0, key: value})
    (error,) = caught.value.errors
    assert error.feature == key
    return error


def short(value: object) -> str:
    return ascii(value)[:40]


NUMBERS = [
    ("5", 5.0), ("5.1", 5.1), ("5,1", 5.1), ("-5.1", -5.1), ("\u22125.1", -5.1), ("\u22125,1", -5.1), ("+5", 5.0),
    ("+5,5", 5.5), ("5.", 5.0), ("5,", 5.0), (".5", 0.5), (",5", 0.5), ("-.5", -0.5), ("\u2212,5", -0.5), ("007", 7.0),
    ("0", 0.0), ("-0", -0.0), ("1e3", 1000.0), ("1E3", 1000.0), ("1e+3", 1000.0), ("1e-3", 0.001), ("1,5e3", 1500.0),
    ("1e\u22123", 0.001), (".5e1", 5.0), ("5.e1", 50.0), (" 5.1 ", 5.1), ("\t5.1\n", 5.1), ("\u00a05.1\u2003", 5.1),
    ("1e-400", 0.0), ("3.4028234663852886e38", 3.4028234663852886e38), ("0.1", 0.1),
    ("0." + "1" * (MAX_NUMBER_CHARACTERS - 2), float("0." + "1" * 62)),
    (" " * 500 + "5" + " " * 500, 5.0),
]  # fmt: skip


@for_each(("text", "number"), NUMBERS)
def test_a_number_as_a_person_types_it_is_read(text: str, number: float) -> None:
    (*_, seen) = VALIDATOR.row({"length": "5", "angle": "5", "mass": text})

    assert seen == number
    assert math.copysign(1, seen) == math.copysign(1, number)
    assert type(seen) is float


NOT_NUMBERS = [
    "-", "+", "\u2212", ".", ",", "-.", "e", "e5", ".e5", "1e", "1e+", "1e3.5", "1e3,5", "1_0", "1__0", "_1",
    "nan", "NaN", "-nan", "inf", "Infinity", "-inf", "\u221e", "0x10", "0b1", "0o7", "null", "true", "None",
    "1.2,3", "1,2.3", "1,2,3", "1.2.3", "1..2", "1 2", "5'000", "5\u202f000", "1/2", "5%", "5 cm", "5cm", "five",
    "--5", "+-5", "-\u22125", "\u2212\u22125", "\u20135", "\u20145", "5f", "5j", "1e3L", "5;", "(5)", "[5]",
    "٣", "۳", "３", "५", "²", "½", "Ⅴ", "5\u0663", "5\u00005", "\u00005", "5\u200b", "\ud800", "😀", "5😀",
    "1" * (MAX_NUMBER_CHARACTERS + 1), "0" * 100_000, "x" * 100_000,
]  # fmt: skip


@for_each("text", NOT_NUMBERS)
def test_text_that_is_no_number_is_an_error_that_shows_it(text: str) -> None:
    error = error_of(text)

    assert error.code == "not_a_number"
    assert error.message.startswith("the mass: ")
    assert error.message.endswith(" is not a number")
    assert isinstance(error.value, str)
    assert error.value.removesuffix("…") == text[:MAX_NUMBER_CHARACTERS]
    assert len(error.value) <= MAX_NUMBER_CHARACTERS + 1


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0", "\u2003" * 1_000, None], ids=short)
def test_an_empty_value_is_missing(text: str | None) -> None:
    error = error_of(text)

    assert error == FieldError("mass", "missing", "the mass is missing")


@for_each(
    "value",
    [
        "1e39", "-1e39", "1e400", "-1e400", "3.5e38", "9" * 50, 1e39, -1e39, math.inf, -math.inf, math.nan,
        10**39, 10**400, -(10**400), 10**5_000, math.nextafter(LARGEST, math.inf),
    ],
)  # fmt: skip
def test_a_number_that_float32_cannot_hold_is_not_finite(value: object) -> None:
    error = error_of(value)

    assert error.code == "not_finite"
    assert error.message.startswith("the mass ")
    json.loads(msgspec.json.encode(error))
    assert error.value is None or len(str(error.value)) <= MAX_NUMBER_CHARACTERS + 1


def test_what_is_not_a_number_at_all_is_not_called_too_large() -> None:
    assert "too large" not in error_of(math.nan).message


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, repr(LARGEST), repr(-LARGEST)])
def test_the_largest_numbers_are_taken(value: object) -> None:
    assert VALIDATOR.row({"length": 5, "angle": 5, "mass": value})[2] == float(str(value))


@for_each("key", ["length", "angle", "mass"])
@for_each(
    ("value", "code"),
    [
        (True, "not_a_number"), (False, "not_a_number"), ([], "not_a_number"), ([5.0], "not_a_number"),
        ({}, "not_a_number"), ({"value": 5}, "not_a_number"), ("x", "not_a_number"), (b"5", "not_a_number"),
        ([[[[]]]], "not_a_number"), (5 + 0j, "not_a_number"), (None, "missing"), ("", "missing"),
        (10**400, "not_finite"), (1e39, "not_finite"),
    ],
)  # fmt: skip
def test_a_json_value_that_is_no_number_is_an_error_of_its_feature(key: str, value: object, code: str) -> None:
    error = error_of(value, key=key)

    assert error.code == code
    assert f"the {key}" in error.message
    json.loads(msgspec.json.encode(error))


def test_json_numbers_are_taken_whole_or_not() -> None:
    assert VALIDATOR.row({"length": 5, "angle": -5.5, "mass": 2**60}) == [5.0, -5.5, 2.0**60]
    assert [type(value) for value in VALIDATOR.row([1, 2, 3])] == [float] * 3


@pytest.mark.parametrize(
    ("key", "value", "message", "echoed"),
    [
        ("length", -0.1, "the length must be 0 cm or more, not -0.1", -0.1),
        ("length", "-0,1", "the length must be 0 cm or more, not -0,1", "-0,1"),
        ("length", "\u22121", "the length must be 0 cm or more, not \u22121", "\u22121"),
        ("length", -5, "the length must be 0 cm or more, not -5.0", -5.0),
        ("length", -5e-324, "the length must be 0 cm or more, not -5e-324", -5e-324),
        ("angle", 180.5, "the angle must be between -180 and 180, not 180.5", 180.5),
        ("angle", "-180.1", "the angle must be between -180 and 180, not -180.1", "-180.1"),
        ("angle", 1e38, "the angle must be between -180 and 180, not 1e+38", 1e38),
    ],
)
def test_a_number_beyond_its_limits_is_out_of_bounds(key: str, value: object, message: str, echoed: object) -> None:
    assert error_of(value, key=key) == FieldError(key, "out_of_bounds", message, echoed)  # type: ignore[arg-type]  # any of the echoed types


def test_an_upper_limit_alone_is_told_as_such() -> None:
    validator = Validator([feature("charge", maximum=-1.5, unit="C")])

    with pytest.raises(InvalidSample, match=r"^the charge must be -1\.5 C or less, not 0$"):
        validator.row(["0"])


@pytest.mark.parametrize("value", [0, 0.0, -0.0, "0", "-0"])
def test_a_limit_belongs_to_what_is_allowed(value: object) -> None:
    assert VALIDATOR.row([value, "-180", "5"]) == [0.0, -180.0, 5.0]
    assert VALIDATOR.row([value, 180, "5"]) == [0.0, 180.0, 5.0]


def test_names_and_positions_give_the_same_row() -> None:
    assert VALIDATOR.row([1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert VALIDATOR.row((1.0, 2.0, 3.0)) == [1.0, 2.0, 3.0]
    assert VALIDATOR.row({"mass": 3.0, "length": 1.0, "angle": 2.0}) == [1.0, 2.0, 3.0]


def codes_of(sample: Any, *, validator: Validator = VALIDATOR) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSample) as caught:
        validator.row(sample)
    return [(error.feature, error.code) for error in caught.value.errors]


@for_each(
    ("sample", "codes"),
    [
        ({}, [("length", "missing"), ("angle", "missing"), ("mass", "missing")]),
        ([], [("length", "missing"), ("angle", "missing"), ("mass", "missing")]),
        ([1.0], [("angle", "missing"), ("mass", "missing")]),
        ([1.0, 2.0], [("mass", "missing")]),
        ([1.0, 2.0, 3.0, 4.0], [("[3]", "unknown_feature")]),
        ([1.0, None, 3.0, 4.0], [("angle", "missing"), ("[3]", "unknown_feature")]),
        (["x", -200, math.inf], [("length", "not_a_number"), ("angle", "out_of_bounds"), ("mass", "not_finite")]),
        ({"mass": "x", "length": "-1"}, [("length", "out_of_bounds"), ("angle", "missing"), ("mass", "not_a_number")]),
        ({"length": 1, "angle": 2, "mass": 3, "height": 4}, [("height", "unknown_feature")]),
        ({"length": 1, "angle": 2, "height": 4}, [("mass", "missing"), ("height", "unknown_feature")]),
        ({"Length": 1, "angle": 2, "mass": 3}, [("length", "missing"), ("Length", "unknown_feature")]),
        ({"length": 1, "angle": 2, "mass": 3, "": 4}, [("", "unknown_feature")]),
    ],
)
def test_errors_come_in_the_order_of_the_features_unknown_ones_last(sample: Any, codes: list[tuple[str, str]]) -> None:
    assert codes_of(sample) == codes


def test_unknown_features_come_in_the_order_of_the_sample() -> None:
    strangers = [f"stranger {number}" for number in range(20)]
    sample = {"length": 1, "angle": 2, "mass": 3} | dict.fromkeys(strangers, 1)

    assert codes_of(sample) == [(name, "unknown_feature") for name in strangers]


def test_a_title_in_the_place_of_a_name_is_answered_with_the_name() -> None:
    with pytest.raises(InvalidSample, match="'The length' is not a feature of this model: it is called 'length' here"):
        VALIDATOR.row({"The length": 1, "angle": 2, "mass": 3})


def test_the_same_reason_for_many_values_is_said_once() -> None:
    with pytest.raises(InvalidSample) as caught:
        Validator([feature("length")]).row([1.0, 2.0, 3.0])

    assert str(caught.value) == "a sample has 1 values, not 3"


def test_a_key_that_looks_like_a_position_hides_no_value() -> None:
    validator = Validator([feature("[1]")])

    assert codes_of([1.0, 2.0], validator=validator)[-1][1] == "unknown_feature"


def test_the_message_tells_the_first_three_errors() -> None:
    with pytest.raises(InvalidSample) as caught:
        VALIDATOR.row({"angle": "x", "height": 1})

    assert str(caught.value) == "the length is missing; the angle: 'x' is not a number; the mass is missing; and 1 more"


def test_the_message_of_errors_that_are_not_all_listed_names_no_number() -> None:
    with pytest.raises(InvalidSample) as caught:
        VALIDATOR.row({f"x{number}": 1.0 for number in range(50_000)})

    assert str(caught.value).endswith("is missing; and more")


@pytest.mark.parametrize("key", ["angle", "length"])
def test_a_value_that_was_given_several_times_is_an_error_with_the_last_of_them(key: str) -> None:
    error = error_of(Repeated("5.0"), key=key)

    assert (error.code, error.value) == ("named_twice", "5.0")
    assert error.message.endswith("is given twice")


@pytest.mark.parametrize("count", [MAX_ERRORS, MAX_ERRORS + 1, 50_000])
def test_many_unknown_features_give_a_bounded_number_of_errors(count: int) -> None:
    assert len(codes_of({f"x{number}": 1.0 for number in range(count)})) == MAX_ERRORS


def test_many_values_too_many_give_a_bounded_number_of_errors() -> None:
    assert len(codes_of([1.0] * 50_000)) == MAX_ERRORS


def test_many_missing_features_give_a_bounded_number_of_errors() -> None:
    validator = Validator([feature(f"x{number}") for number in range(500)])

    assert codes_of({}, validator=validator) == [(f"x{number}", "missing") for number in range(MAX_ERRORS)]


@pytest.mark.parametrize("key", ["k" * 100_000, "\x00" * 100_000, "\ud800" * 1_000, "\U000e0000" * 1_000], ids=short)
def test_a_long_unknown_key_is_told_short(key: str) -> None:
    with pytest.raises(InvalidSample) as caught:
        VALIDATOR.row({"length": 1, "angle": 2, "mass": 3, key: 1})

    (error,) = caught.value.errors
    assert len(error.feature) <= MAX_NUMBER_CHARACTERS + 1
    assert len(error.message) < 1_000


@for_each("text", ["", " ", "-", "+", "\u2212", ".", ",", "-.", "\u2212,", "1e", "1e-", "1,5e+", ".5e", "5.e\u2212"])
def test_the_beginning_of_a_number_is_half_typed(text: str) -> None:
    assert is_half_typed(text)
    with pytest.raises(NotANumber):
        number_of(text)


@for_each("text", ["5", "5.", "5,", ".5", "x", "e", "--", "1..", "1,2,", "1e5", "nan", "\u2013", "1e5.", None, 5, True])
def test_what_is_a_number_or_never_becomes_one_is_not_half_typed(text: object) -> None:
    assert not is_half_typed(text)


NUMBER_TEXTS = st.from_regex(
    r"[+\-\u2212]?([0-9]{1,12}([.,][0-9]{0,6})?|[.,][0-9]{1,6})([eE][+\-\u2212]?[0-9]{1,3})?", fullmatch=True
)


@given(text=NUMBER_TEXTS)
def test_every_beginning_of_a_number_is_a_number_or_half_typed(text: str) -> None:
    for end in range(len(text) + 1):
        try:
            number_of(text[:end])
        except NotANumber:
            assert is_half_typed(text[:end]), text[:end]
        else:
            assert not is_half_typed(text[:end]), text[:end]


@given(text=NUMBER_TEXTS)
def test_a_number_is_read_as_python_reads_its_plain_form(text: str) -> None:
    assert number_of(text) == float(text.replace(",", ".").replace("\u2212", "-"))


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_shown_number_is_read_back_to_the_last_bit(value: float) -> None:
    shown = shown_number(value)

    assert number_of(shown) == value
    assert number_of(shown.replace(".", ",")) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (5.1, "5.1"),
        (-3.0, "-3"),
        (0.1, "0.1"),
        (1e14, "100000000000000"),
        (1e22, "1e+22"),
        (-math.inf, "-inf"),
    ],
)
def test_a_number_is_shown_as_a_person_writes_it(value: float, text: str) -> None:
    assert shown_number(value) == text


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**500), 10**500) | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TEXTS = st.text() | st.text("0123456789.,-+eE \u2212_xn٣", max_size=80)


def outcome(sample: Any, *, validator: Validator = VALIDATOR) -> tuple[list[float] | None, tuple[FieldError, ...]]:
    """Return the row of a sample, or None and its errors. Anything else that is raised fails the test."""
    try:
        return validator.row(sample), ()
    except InvalidSample as invalid:
        return None, invalid.errors


@given(values=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=100), TEXTS | JSON_VALUES, max_size=6))
@example(values={"length": "9" * 64, "angle": "-", "mass": 10**400})
@example(values={"length": True, "angle": 10**5_000, "mass": {"a": [10**5_000]}})
@example(values={"length": [10**5_000], "angle": math.nan, "mass": "\ud800"})
def test_anything_as_a_sample_gives_a_row_or_its_errors(values: dict[str, object]) -> None:
    row, errors = outcome(values)

    if row is None:
        assert 1 <= len(errors) <= MAX_ERRORS
        wrong = [error.feature for error in errors if error.code != "unknown_feature"]
        assert wrong == [key for key in KEYS if key in wrong], "once each, in the order of the features"
    else:
        assert set(values) == set(KEYS)
        assert [type(number) for number in row] == [float] * 3
        assert all(-LARGEST <= number <= LARGEST for number in row)
        assert row[0] >= 0
        assert abs(row[1]) <= 180
    for error in errors:
        assert error.message
        assert len(error.message) < 1_000
        assert error.value is None or isinstance(error.value, bool) or len(str(error.value)) <= 65
        assert not isinstance(error.value, float) or math.isfinite(error.value)


@given(values=st.lists(TEXTS | JSON_VALUES, max_size=5))
def test_any_list_gives_the_row_or_the_errors_of_its_names(values: list[object]) -> None:
    named = dict(zip([*KEYS, "[3]", "[4]"], values, strict=False))

    def by_name(sample: Any) -> object:
        row, errors = outcome(sample)
        # A value too many has no name; of a list it is told how many there are.
        return row, sorted((error.feature, error.code, error.value) for error in errors if error.feature[0] != "[")

    # The representation compares NaN with NaN as well.
    assert repr(by_name(values)) == repr(by_name(named))


ROW32 = st.lists(
    st.floats(width=32) | st.sampled_from([0.0, -0.0, 180.0, -180.0, 180.00002]).map(np.float32).map(float),
    min_size=3,
    max_size=3,
)


@given(rows=st.lists(ROW32, max_size=5))
def test_rows_of_float32_are_accepted_just_when_the_validator_takes_them_one_by_one(rows: list[list[float]]) -> None:
    accepted = VALIDATOR.accepts(np.array(rows, dtype=np.float32).reshape(-1, 3))

    assert accepted.dtype == np.bool_
    assert accepted.tolist() == [outcome(row)[0] is not None for row in rows]


@given(minimum=st.floats(-1e6, 1e6), width=st.floats(0, 1e6), value=st.floats(-3e6, 3e6))
def test_a_limit_that_float32_does_not_hold_is_met_in_its_precision(minimum: float, width: float, value: float) -> None:
    maximum = minimum + width
    validator = Validator([feature("length", minimum=minimum, maximum=maximum)])

    for typed in (minimum, maximum, value):
        accepted = bool(validator.accepts(np.array([[typed]]).astype(np.float32))[0])
        is_row = outcome([typed], validator=validator)[0] is not None
        assert accepted or not is_row, "what is within the limits as it was typed is within them as a float32"
        near = np.float32(typed) in (np.float32(minimum), np.float32(maximum))
        assert accepted == is_row or near


@given(rows=st.lists(st.lists(st.floats() | st.sampled_from([180.0, -0.0]), min_size=3, max_size=3), max_size=4))
def test_all_rows_are_accepted_just_when_the_validator_takes_each_of_them(rows: list[list[float]]) -> None:
    accepted = VALIDATOR.accepts_all(np.array(rows, dtype=np.float64).reshape(-1, 3))

    assert accepted == all(outcome(row)[0] is not None for row in rows)


@pytest.mark.parametrize("limits", [(None, None), (0.0, None), (None, 1e300), (-1e300, 1e300)])
def test_infinite_rows_are_not_accepted(limits: tuple[float | None, float | None]) -> None:
    validator = Validator([feature("length", minimum=limits[0], maximum=limits[1])])
    rows = np.array([[5.0], [np.inf], [-np.inf], [np.nan], [np.finfo(np.float32).max]], dtype=np.float32)

    assert validator.accepts(rows).tolist() == [True, False, False, False, True]


def test_no_rows_are_accepted_as_none() -> None:
    assert VALIDATOR.accepts(np.empty((0, 3), dtype=np.float32)).shape == (0,)


def test_a_value_outside_the_training_range_is_a_note_and_no_error() -> None:
    row = VALIDATOR.row(["0.5", "5", "10.5"])

    notes = VALIDATOR.notes(row)

    assert [(note.feature, note.code) for note in notes] == [
        ("length", "outside_training_range"),
        ("mass", "outside_training_range"),
    ]
    assert notes[0].message == "the length is outside the training range of 1 to 10 cm"
    assert notes[1].message == "the mass is outside the training range of 1 to 10"


@pytest.mark.parametrize("row", [[1.0, 1.0, 1.0], [10.0, 10.0, 10.0], [5.0, 1.0, 10.0]])
def test_a_row_within_the_training_range_has_no_notes(row: list[float]) -> None:
    assert VALIDATOR.notes(row) == ()
