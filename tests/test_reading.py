"""From a file to a data set: every form of one table, every error with its place, and nothing inferred silently."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.errors import TableError
from ml.tables import headers, targets
from ml.tables.dataset import Dataset
from ml.tables.dialect import Dialect, dialect_of
from ml.tables.headers import Limits, columns_of, feature_of
from ml.tables.numbers import LARGEST
from ml.tables.reading import Reading, TableOptions, read_dataset
from tests.conftest import for_each

HEADER = "width (cm),height,kind"
ROWS = ("1,10,a", "2.5,20,b", "3,30,a", "4,40,b")
# Two rows of each of two classes: a lone row of a class is left out.
KINDS = ("a", "b", "a", "b")
VALUES = [[1, 10], [2.5, 20], [3, 30], [4, 40]]


def written(directory: Path, content: str | bytes) -> Path:
    path = directory / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def text_of(*lines: str, end: str = "\n") -> str:
    return "".join(line + end for line in lines)


def error_of(path: Path, *, target: str | None = None, drop: Sequence[str] = ()) -> str:
    """Return the message, which is one sentence on one line that starts with the file."""
    with pytest.raises(TableError) as caught:
        read_dataset(path, TableOptions(target=target, drop=drop))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def assert_is_the_table(dataset: Dataset) -> None:
    assert dataset.rows.dtype == np.float64
    assert dataset.rows.tolist() == VALUES
    assert dataset.target.labels == ("a", "b")
    assert dataset.outcomes.tolist() == [0, 1, 0, 1]
    width, height = dataset.features
    assert (width.key, width.title, width.unit) == ("width", "width", "cm")
    assert (height.key, height.title, height.unit) == ("height", "height", "")


FORMS = {
    "commas": text_of(HEADER, *ROWS),
    "semicolons": text_of(HEADER, *ROWS).replace(",", ";"),
    "tabs": text_of(HEADER, *ROWS).replace(",", "\t"),
    "semicolons and decimal commas": text_of(HEADER, *ROWS).replace(",", ";").replace(".", ","),
    "tabs and decimal commas": text_of(HEADER, *ROWS).replace(",", "\t").replace(".", ","),
    "commas and quoted decimal commas": text_of(HEADER, *ROWS).replace("2.5", '"2,5"'),
    "a byte order mark": "\ufeff" + text_of(HEADER, *ROWS),
    "a byte order mark and quotes": "\ufeff" + text_of('"width (cm)",height,kind', *ROWS),
    "carriage returns": text_of(HEADER, *ROWS, end="\r\n"),
    "carriage returns alone": text_of(HEADER, *ROWS, end="\r"),
    "no end of line at the end": text_of(HEADER, *ROWS).rstrip("\n"),
    "blank lines": text_of(HEADER, "", *ROWS[:2], "", "", *ROWS[2:], ""),
    "quotes": text_of('"width (cm)","height","kind"', *('"' + row.replace(",", '","') + '"' for row in ROWS)),
    "spaces": text_of(" width  (cm) , height ,kind ", *(row.replace(",", " , ") for row in ROWS)),
    "a unit in brackets": text_of("width [cm],height,kind", *ROWS),
    "a unit with spaces": text_of("width( cm ),height,kind", *ROWS),
    "a quoted line break in the header": text_of('"width\n(cm)",height,kind', *ROWS),
    "two quoted line breaks in the header": text_of('"width\r\n\r\n(cm)",height,kind', *ROWS, end="\r\n"),
    "other ways to write numbers": text_of(HEADER, "1.0,+10,a", "25e-1,2E1,b", "3.,030,a", "4,.4e2,b"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_in_every_form(tmp_path: Path, form: str) -> None:
    assert_is_the_table(read_dataset(written(tmp_path, FORMS[form])).dataset)


def test_a_minus_sign_is_one_in_both_ways_to_write_it(tmp_path: Path) -> None:
    reading = read_dataset(written(tmp_path, text_of("x,y", "-1,a", "\u22122,b", "-1,a", "-2,b")))

    assert reading.dataset.rows.tolist() == [[-1], [-2]] * 2


@for_each(
    ("header", "key", "title", "unit"),
    [
        ("petal width (cm)", "petal_width", "petal width", "cm"),
        ("petal width [cm]", "petal_width", "petal width", "cm"),
        ("Petal  Width", "petal_width", "Petal Width", ""),
        ("Länge (µm)", "länge", "Länge", "µm"),
        ("La\u0308nge", "länge", "Länge", ""),
        ("température (°C)", "température", "température", "°C"),
        ("ratio a/b (%)", "ratio_a_b", "ratio a/b", "%"),
        ("speed (km/h) (m/s)", "speed_km_h", "speed (km/h)", "m/s"),
        ("(cm)", "cm", "(cm)", ""),
        ("x ()", "x", "x", ""),
        ("x (a\nb)", "x", "x", "a b"),
        ("幅", "幅", "幅", ""),
        ("64", "64", "64", ""),
    ],
)  # fmt: skip
def test_a_header_becomes_key_title_and_unit(header: str, key: str, title: str, unit: str) -> None:
    feature = feature_of(header)

    assert (feature.key, feature.title, feature.unit) == (key, title, unit)


@pytest.mark.parametrize("header", ["x(" + " " * 100_000, "(" * 100_000, "x " * 50_000 + "(", "([" * 50_000 + "])"])
def test_a_header_of_brackets_and_spaces_is_read_in_no_time(header: str) -> None:
    # A pattern that goes back over it again and again would never end here.
    assert feature_of(header).unit == ""


def test_no_two_features_have_the_same_title() -> None:
    columns = columns_of(["a", "a", "A", "size (cm)", "size (mm)", "a_2", ""])

    assert [column.title for column in columns] == ["a", "a_2", "A", "size (cm)", "size (mm)", "a 2", "column 7"]
    assert [column.key for column in columns] == ["a", "a_3", "a_4", "size", "size_2", "a_2", "column_7"]


@pytest.mark.parametrize("header", ["pain (0-10)", "trust [1 to 5]", "Do you agree (choose one)", "smoker (y/n)"])
def test_a_scale_and_an_instruction_are_no_unit(header: str) -> None:
    feature = feature_of(header)

    assert (feature.title, feature.unit) == (header, "")


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("a,b\n", ","), ("a;b\n", ";"), ("a\tb\n", "\t"), ('"a;b;c",d\n', ","), ('"a,b,c";d\n', ";"),
        ('width 5",height 6"\n', ","), ('5";6";"a,b,c,d"\n', ";"), ('"a ""b"", c, d"\te\n', "\t"),
    ],
)  # fmt: skip
def test_the_separator_is_the_most_frequent_one_outside_quotes(header: str, separator: str) -> None:
    assert dialect_of(header, None) == Dialect(separator)


def test_a_cell_may_be_quoted_over_lines_and_later_lines_keep_their_numbers(tmp_path: Path) -> None:
    lines = ("a,note,kind", '1,"one\ntwo",x', '2,"one\r\ntwo\r\nthree",y', "3,three,x", "1e99,four,y")

    message = "column 'a' has a value too large for a 32-bit float in 1 row: 1e+99 on line 8"
    assert error_of(written(tmp_path, text_of(*lines)), drop=["note"]) == message
    dataset = read_dataset(written(tmp_path, text_of(*lines[:4], "4,four,y")), TableOptions(drop=["note"])).dataset
    assert dataset.rows.tolist() == [[1], [2], [3], [4]]


@pytest.mark.parametrize("target", ["width", "Width", "width (cm)", " width (cm) ", "WIDTH"])
def test_the_target_is_named_by_header_or_key(tmp_path: Path, target: str) -> None:
    path = written(tmp_path, text_of("width (cm),height", "a,1", "b,2", "a,3", "b,4"))

    dataset = read_dataset(path, TableOptions(target=target)).dataset

    assert (dataset.target.labels, dataset.features[0].key) == (("a", "b"), "height")


def test_the_exact_header_wins_over_the_key(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("Kind,kind,x", "a,1,3", "b,2,4", "a,2,4", "b,2,5"))

    dataset = read_dataset(path, TableOptions(target="Kind")).dataset

    assert dataset.target.labels == ("a", "b")
    assert [feature.key for feature in dataset.features] == ["kind", "x"]


def test_columns_are_left_out_whatever_they_hold(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("id,,x,x (m),kind", "é?,,1,nan,a", ",?,2,,b", ",,2,?,a", ",,3,,b"))

    dataset = read_dataset(path, TableOptions(drop=["ID", "", "x (m)"])).dataset

    assert [feature.key for feature in dataset.features] == ["x"]
    assert dataset.rows.tolist() == [[1], [2], [2], [3]]


def test_limits_go_into_the_features(tmp_path: Path) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    width, height = read_dataset(
        path, TableOptions(limits={"width": Limits(0, None), "height": Limits(10, 40)})
    ).dataset.features

    assert (width.minimum, width.maximum) == (0, None)
    assert (height.minimum, height.maximum) == (10, 40)


@pytest.mark.parametrize("limits", [Limits(1.5, None), Limits(None, 3)])
def test_a_row_outside_its_limits_is_an_error(tmp_path: Path, limits: Limits) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    with pytest.raises(
        TableError, match=r"'width \(cm\)' has a value outside the limits given in 1 row: [14] on line [25]"
    ):
        read_dataset(path, TableOptions(limits={"width": limits}))


@pytest.mark.parametrize("key", ["width (cm)", "kind", "depth"])
def test_limits_for_something_else_than_a_feature_are_an_error(tmp_path: Path, key: str) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    with pytest.raises(
        TableError, match=rf"limits for {re.escape(key)}, which is not a feature with numbers: width, height"
    ):
        read_dataset(path, TableOptions(limits={key: Limits(0, None)}))


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["10", "9", "-1", "2.5"], ("-1", "2.5", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["yes", "no"], ("no", "yes")),
        (["TRUE", "FALSE"], ("FALSE", "TRUE")),
        (["été", "e\u0301te\u0301", "a b"], ("a b", "été")),
        (['"a, ""b"""', "<b>"], ("<b>", 'a, "b"')),
    ],
)
def test_labels_are_in_the_order_of_numbers_or_else_of_text(
    tmp_path: Path, texts: list[str], labels: tuple[str, ...]
) -> None:
    path = written(tmp_path, text_of("x,y", *(f"{number},{text}" for number, text in enumerate(texts * 2))))

    dataset = read_dataset(path).dataset

    assert dataset.target.labels == labels
    assert [dataset.target.labels[int(index)] for index in dataset.outcomes] == [
        text if text in labels else {"e\u0301te\u0301": "été", '"a, ""b"""': 'a, "b"'}[text] for text in texts * 2
    ]


def test_the_name_is_the_files_unless_one_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    assert read_dataset(path).dataset.name == "table"
    assert read_dataset(path, TableOptions(name="other")).dataset.name == "other"
    assert read_dataset(path).dataset.source == "table.csv: 4 rows, 2 features, 2 classes"


def test_a_file_name_that_is_no_text_still_gives_a_name(tmp_path: Path) -> None:
    path = tmp_path / "t\udce9.csv"
    path.write_text(text_of(HEADER, *ROWS))

    dataset = read_dataset(path).dataset

    assert dataset.name == "t?"
    assert len(dataset.digest()) == 64


def told(reading: Reading) -> str:
    return "\n".join(reading.inferred)


def test_what_was_inferred_is_told(tmp_path: Path) -> None:
    lines = ("width (cm);height;kind", "1,5;10;a", "", "2;2000000,5;b", "", "3;30;a", "4;NA;b")
    path = written(tmp_path, text_of(*lines))

    reading = read_dataset(path, TableOptions(limits={"height": Limits(0, 123_456_789)}))

    assert set(reading.inferred) >= {
        "class column: kind (the last one)",
        "classes: a (2 rows), b (2 rows)",
        "'width (cm)' is feature width, in cm, a comma is its decimal mark, as in '1,5'",
        "'height' is feature height, at least 0, at most 123456789, a comma is its decimal mark, as in '2000000,5', "
        "no value in 1 row ('NA')",
    }


def test_of_hundreds_of_plain_columns_those_with_something_to_say_are_told(tmp_path: Path) -> None:
    header = ";".join([*(f"x{place}" for place in range(200)), "weight", "kind"])
    lines = (f"{';'.join([str(row % 7)] * 200)};1,{row};{'ab'[row % 2]}" for row in range(30))

    inferred = read_dataset(written(tmp_path, text_of(header, *lines)), TableOptions()).inferred

    assert len([said for said in inferred if " is feature x" in said]) == 30
    assert inferred[-2] == "'weight' is feature weight, a comma is its decimal mark, as in '1,0'"
    assert inferred[-1] == "'x30' to 'x199': 170 more columns of numbers are features"


def test_what_was_not_inferred_is_not_told(tmp_path: Path) -> None:
    reading = read_dataset(written(tmp_path, text_of(HEADER, *ROWS)), TableOptions(target="kind"))

    assert reading.inferred[-3:] == (
        "classes: a (2 rows), b (2 rows)", "'width (cm)' is feature width, in cm", "'height' is feature height",
    )  # fmt: skip
    assert "class column: kind" in reading.inferred


def test_what_is_told_of_a_strange_table_stays_on_its_lines(tmp_path: Path) -> None:
    rows = ['1,"a\nb"', "2,c", '1,"a\nb"', "4,c"]
    reading = read_dataset(written(tmp_path, text_of('"x\ny","ki\nnd"', *rows)))

    assert all(sentence.isprintable() for sentence in reading.inferred)
    assert reading.dataset.target.labels == ("a b", "c")


LONG = "x" * 2_000
ERRORS: dict[str, tuple[str | bytes, str]] = {
    "too large": (text_of(HEADER, ROWS[0], "1,-3.5e38,b", ROWS[0], ROWS[1]),
                  "column 'height' has a value too large for a 32-bit float in 1 row: -3.5e+38 on line 3"),
    "a short row": (text_of(HEADER, ROWS[0], "1,2"), "line 3 has 2 columns, the header has 3"),
    "one class": (text_of(HEADER, "1,2,a", "2,3,a"), "column 'kind' is no target: there is only one class, 'a'"),
    "a class of one row": (text_of(HEADER, "1,2,a", "2,3,a", "3,4,b"),
                           "column 'kind' is no target: there is only one class, 'a', with more than one row"),
    "no rows": (text_of(HEADER), "no rows below the header"),
    "blank rows only": (text_of(HEADER, "", ""), "no rows below the header"),
    "one column": (text_of("kind", "a", "b"),
                   "the header has only one column, 'kind': separate by comma, semicolon or tab"),
    "an empty file": ("", "no header row: the file is empty"),
    "zeros in a class": (b"x,y\n1,a\0\n2,b\n3,a\0\n4,b\n",
                         r"column 'y' has 'a\x00', which is no label: too long, or not text"),
    "an open quote": (text_of(HEADER, ROWS[0], '2,3,"b', *ROWS), "line 3: a quote is opened and never closed"),
    "text after a quote": (text_of(HEADER, ROWS[0], '"2"0,3,b'), "line 3: ',' expected after '\"'"),
    "a huge cell": (text_of(HEADER, f"1,2,{LONG * 100}"), "line 2: field larger than field limit (131072)"),
    "a long label": (text_of(HEADER, f"1,2,{LONG}", f"2,2,{LONG}", *ROWS),
                     f"column 'kind' has '{LONG[:60]}…', which is no label: too long, or not text"),
    "a long name": (text_of(f"{LONG},kind", "1,a"),
                    f"line 1, column '{LONG[:60]}…': a name of more than 1000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", ERRORS)
def test_an_error_names_line_column_and_value_in_one_sentence(tmp_path: Path, wrong: str) -> None:
    content, message = ERRORS[wrong]
    with pytest.raises(TableError) as caught:
        read_dataset(written(tmp_path, content))

    assert str(caught.value) == f"{tmp_path / 'table.csv'}: {message}"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("target", ["species", "", "x,y"])
def test_a_target_that_is_no_column_is_an_error_with_the_columns(tmp_path: Path, target: str) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    assert error_of(path, target=target) == f"no column is called {target!r}: width (cm), height, kind"


def test_a_target_that_is_two_columns_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("x,kind,kind", "1,a,b"))

    message = "2 columns are called 'kind': name one of them by its place, column_2 or column_3"
    assert error_of(path, target="kind") == message


def test_a_dropped_column_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    assert error_of(written(tmp_path, text_of(HEADER, *ROWS)), drop=["id"]).startswith("no column is called 'id': ")


@pytest.mark.slow
def test_an_error_lists_some_of_very_many_columns(tmp_path: Path) -> None:
    path = written(tmp_path, text_of(",".join(f"column {number}" for number in range(5_000)), ",".join("1" * 5_000)))

    assert len(error_of(path, target="species")) < 400


def test_a_table_of_the_class_column_alone_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("id,kind", "1,a", "2,b"))

    assert error_of(path, drop=["id"]) == "there is no column besides the target"


def test_too_many_columns_rows_or_labels_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))
    for module, name, most, message in [
        (headers, "MAX_COLUMNS", 2, "the header has 3 columns, at most 2 are read"),
        (targets, "MAX_LABELS", 1, "column 'kind' is no target: it has 2 different values in 4 rows, as 'a'"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, most)
            assert error_of(path) == message


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    assert error_of(tmp_path / "missing.csv") == "No such file or directory"
    assert error_of(tmp_path) == "Is a directory"


def test_the_largest_number_is_still_read(tmp_path: Path) -> None:
    dataset = read_dataset(written(tmp_path, text_of("x,y", *[f"{LARGEST!r},a", f"-{LARGEST!r},b"] * 2))).dataset

    assert dataset.rows.tolist() == [[LARGEST], [-LARGEST]] * 2


PIECES = [b",", b";", b"\t", b"\n", b"\r", b"\r\n", b'"', b'""', b"\xef\xbb\xbf", b"\0", b"\xe9", "é".encode(), b" ",
          b"1", b"2.5", b"1,5", b"-", b"1e999", b"nan", b"a", b"b", b"x (cm)", b"(", b"]", b"kind"]  # fmt: skip


def table_or_message(path: Path) -> tuple[Dataset | None, str]:
    try:
        return read_dataset(path).dataset, ""
    except TableError as error:
        return None, str(error)


def reads_or_refuses(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    dataset, message = table_or_message(path)
    if dataset is None:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return
    labels, outcomes = dataset.target.labels, dataset.outcomes
    assert dataset.rows.shape == (len(outcomes), len(dataset.features))
    assert len(outcomes) >= 2
    assert np.isfinite(outcomes).all()
    assert not labels or set(outcomes.tolist()) == set(range(len(labels)))
    assert len({feature.key for feature in dataset.features}) == len(dataset.features)
    assert all(labels)
    for feature, values in zip(dataset.features, dataset.rows.T, strict=True):
        assert feature.key
        assert np.nanmax(np.abs(values)) <= LARGEST
        assert np.isnan(values).any() == feature.has_gaps
        assert not feature.choices or set(values[~np.isnan(values)]) == set(range(len(feature.choices)))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error(tmp_path: Path, content: bytes) -> None:
    reads_or_refuses(tmp_path / "any.csv", content)


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40), header=st.sampled_from([b"", b"x,y\n", b"x;y\r\n"]))
def test_any_pieces_of_tables_are_a_table_or_an_error(tmp_path: Path, pieces: list[bytes], header: bytes) -> None:
    reads_or_refuses(tmp_path / "any.csv", header + b"".join(pieces))


@given(
    rows=st.lists(
        st.tuples(st.floats(-LARGEST, LARGEST), st.floats(-LARGEST, LARGEST), st.sampled_from(["a", "b\ufb01 c", "é"])),
        min_size=2, max_size=20,
    ),
    separator=st.sampled_from(",;\t"),
)  # fmt: skip
def test_what_is_written_is_read_to_the_last_bit(
    tmp_path: Path, rows: list[tuple[float, float, str]], separator: str
) -> None:
    # Three rows of each, so that no class has a lone row; numbers on the way that tell the decimal mark.
    usable = [(0.5, 0.25, "a"), (-1.5, 2.75, "é"), *rows] * 3
    path = tmp_path / "written.csv"
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["a", "b", "kind"])
        writer.writerows(usable)

    dataset, message = table_or_message(path)

    assert dataset is not None, message
    assert dataset.rows.tolist() == [[a, b] for a, b, _ in usable]
