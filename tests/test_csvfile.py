"""Reading tables: every form that a CSV file comes in, every error with its place, and nothing guessed silently."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.errors import DatasetError
from ml.tables import csvfile, headers
from ml.tables.csvfile import Reading, read_csv
from ml.tables.dataset import Dataset
from ml.tables.headers import Limits, feature_of
from ml.tables.numbers import LARGEST
from ml.tables.rows import separator_of

HEADER = "width (cm),height,kind"
ROWS = ("1,10,a", "2.5,20,b", "3,30,a", "4,40,b")
VALUES = [[1, 10], [2.5, 20], [3, 30], [4, 40]]


def written(directory: Path, content: str | bytes) -> Path:
    path = directory / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def text_of(*lines: str, end: str = "\n") -> str:
    return "".join(line + end for line in lines)


def error_of(path: Path, *, target: str | None = None, drop: Sequence[str] = ()) -> str:
    """Return the message, which is one sentence on one line that starts with the file."""
    with pytest.raises(DatasetError) as caught:
        read_csv(path, target=target, drop=drop)
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
    assert_is_the_table(read_csv(written(tmp_path, FORMS[form])).dataset)


def test_a_minus_sign_is_one_in_both_ways_to_write_it(tmp_path: Path) -> None:
    reading = read_csv(written(tmp_path, text_of("x,y", "-1,a", "\u22122,b")))

    assert reading.dataset.rows.tolist() == [[-1], [-2]]


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("a,b\n", ","), ("a;b\n", ";"), ("a\tb\n", "\t"), ('"a;b;c",d\n', ","), ('"a,b,c";d\n', ";"),
        ('width 5",height 6"\n', ","), ('5";6";"a,b,c,d"\n', ";"), ('"a ""b"", c, d"\te\n', "\t"),
    ],
)  # fmt: skip
def test_the_separator_is_the_most_frequent_one_outside_quotes(header: str, separator: str) -> None:
    assert separator_of(header) == separator


def test_a_cell_may_be_quoted_over_lines_and_later_lines_keep_their_numbers(tmp_path: Path) -> None:
    lines = ("a,note,kind", '1,"one\ntwo",x', '2,"one\r\ntwo\r\nthree",y', "?,three,x")

    assert error_of(written(tmp_path, text_of(*lines)), drop=["note"]) == "line 7, column 'a': '?' is not a number"
    dataset = read_csv(written(tmp_path, text_of(*lines[:3], "3,three,x")), drop=["note"]).dataset
    assert dataset.rows.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize("target", ["width", "Width", "width (cm)", " width (cm) ", "WIDTH"])
def test_the_target_is_named_by_header_or_key(tmp_path: Path, target: str) -> None:
    path = written(tmp_path, text_of("width (cm),height", "a,1", "b,2"))

    dataset = read_csv(path, target=target).dataset

    assert (dataset.target.labels, dataset.features[0].key) == (("a", "b"), "height")


def test_the_exact_header_wins_over_the_key(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("Kind,kind,x", "a,1,3", "b,2,4"))

    dataset = read_csv(path, target="Kind").dataset

    assert dataset.target.labels == ("a", "b")
    assert [feature.key for feature in dataset.features] == ["kind", "x"]


def test_columns_are_left_out_whatever_they_hold(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("id,,x,x (m),kind", "é?,,1,nan,a", ",?,2,,b"))

    dataset = read_csv(path, drop=["ID", "", "x (m)"]).dataset

    assert [feature.key for feature in dataset.features] == ["x"]
    assert dataset.rows.tolist() == [[1], [2]]


def test_limits_go_into_the_features(tmp_path: Path) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    width, height = read_csv(path, limits={"width": Limits(0, None), "height": Limits(10, 40)}).dataset.features

    assert (width.minimum, width.maximum) == (0, None)
    assert (height.minimum, height.maximum) == (10, 40)


@pytest.mark.parametrize("limits", [Limits(1.5, None), Limits(None, 3)])
def test_a_row_outside_its_limits_is_an_error(tmp_path: Path, limits: Limits) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    with pytest.raises(DatasetError, match=r"line [25], column 'width \(cm\)': '[14]' is outside the limits given"):
        read_csv(path, limits={"width": limits})


@pytest.mark.parametrize("key", ["width (cm)", "kind", "depth"])
def test_limits_for_something_else_than_a_feature_are_an_error(tmp_path: Path, key: str) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    with pytest.raises(DatasetError, match=rf"limits for {re.escape(key)}, which is not a feature: width, height"):
        read_csv(path, limits={key: Limits(0, None)})


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["10", "9", "-1", "2.5"], ("-1", "2.5", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1", "1.0", "01"], ("01", "1", "1.0")),
        (["yes", "no"], ("no", "yes")),
        (["été", "e\u0301te\u0301", "a b"], ("a b", "été")),
        (['"a, ""b"""', "<b>"], ("<b>", 'a, "b"')),
    ],
)
def test_labels_are_in_the_order_of_numbers_or_else_of_text(
    tmp_path: Path, texts: list[str], labels: tuple[str, ...]
) -> None:
    path = written(tmp_path, text_of("x,y", *(f"{number},{text}" for number, text in enumerate(texts))))

    dataset = read_csv(path).dataset

    assert dataset.target.labels == labels
    assert [dataset.target.labels[int(index)] for index in dataset.outcomes] == [
        text if text in labels else {"e\u0301te\u0301": "été", '"a, ""b"""': 'a, "b"'}[text] for text in texts
    ]


def test_the_name_is_the_files_unless_one_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    assert read_csv(path).dataset.name == "table"
    assert read_csv(path, name="other").dataset.name == "other"
    assert read_csv(path).dataset.source == "table.csv: 4 rows, 2 features, 2 classes"


def test_a_file_name_that_is_no_text_still_gives_a_name(tmp_path: Path) -> None:
    path = tmp_path / "t\udce9.csv"
    path.write_text(text_of(HEADER, *ROWS))

    dataset = read_csv(path).dataset

    assert dataset.name == "t?"
    assert len(dataset.digest()) == 64


def told(reading: Reading) -> str:
    return "\n".join(reading.inferred)


def test_what_was_inferred_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("width (cm);height;kind", "1,5;10;a", "", "2;2000000,5;b", "", "3;30;a"))

    reading = read_csv(path, limits={"height": Limits(0, 123_456_789)})

    assert reading.inferred == (
        "separated by semicolon",
        "class column: kind (the last one)",
        "classes: a (2 rows), b (1 row)",
        "'width (cm)' is feature width, in cm",
        "'height' is feature height, at least 0, at most 123456789",
        "a comma in 'width (cm)' is a decimal mark, as in '1,5'",
        "a comma in 'height' is a decimal mark, as in '2000000,5'",
        "blank lines left out: 2",
    )


def test_what_was_not_inferred_is_not_told(tmp_path: Path) -> None:
    reading = read_csv(written(tmp_path, text_of(HEADER, *ROWS)), target="kind")

    assert "(the last one)" not in told(reading)
    assert "decimal mark" not in told(reading)
    assert "blank" not in told(reading)


def test_what_is_told_of_a_strange_table_stays_on_its_lines(tmp_path: Path) -> None:
    reading = read_csv(written(tmp_path, text_of('"x\ny","ki\nnd"', '1,"a\nb"', "2,c")))

    assert all(sentence.isprintable() for sentence in reading.inferred)
    assert reading.dataset.target.labels == ("a\nb", "c")


LONG = "x" * 2_000
ERRORS: dict[str, tuple[str | bytes, str]] = {
    "not a number": (text_of(HEADER, ROWS[0], "2,abc,b"), "line 3, column 'height': 'abc' is not a number"),
    "nan": (text_of(HEADER, ROWS[0], "nan,2,b"), "line 3, column 'width (cm)': 'nan' is not a number"),
    "infinity": (text_of(HEADER, "inf,2,b"), "line 2, column 'width (cm)': 'inf' is not a number"),
    "an underscore": (text_of(HEADER, "1_0,2,b"), "line 2, column 'width (cm)': '1_0' is not a number"),
    "two marks": (text_of("a;b", "1.234,5;x"), "line 2, column 'a': '1.234,5' is not a number"),
    "a long cell": (text_of(HEADER, f"1,{LONG},b"), f"line 2, column 'height': '{LONG[:60]}…' is not a number"),
    "a cell with a line break": (text_of(HEADER, '1,"a\nb",b'), r"line 2, column 'height': 'a\nb' is not a number"),
    "empty": (text_of(HEADER, ROWS[0], "1,,b"), "line 3, column 'height': empty"),
    "white space": (text_of(HEADER, "1,  ,b"), "line 2, column 'height': empty"),
    "an empty class": (text_of(HEADER, ROWS[0], "1,2, "), "line 3, column 'kind': empty"),
    "too large": (text_of(HEADER, ROWS[0], "1,-3.5e38,b"), "line 3, column 'height': '-3.5e38' is too large"),
    "much too large": (text_of(HEADER, "1,1e999,b"), "line 2, column 'height': '1e999' is too large"),
    "a short row": (text_of(HEADER, ROWS[0], "1,2"), "line 3 has 2 columns, the header has 3"),
    "a long row": (text_of(HEADER, ROWS[0], "", "1,2,3,4"), "line 4 has 4 columns, the header has 3"),
    "a line of spaces": (text_of(HEADER, "  ", *ROWS), "line 2 has 1 columns, the header has 3"),
    "the same header": (text_of("x,x,kind", "1,2,a"), "columns 'x' and 'x' have the same key, x"),
    "the same key": (text_of("Width (cm),width [m],kind", "1,2,a"),
                     "columns 'Width (cm)' and 'width [m]' have the same key, width"),
    "the same key in two forms": (text_of("é,e\u0301,k", "1,2,a"), "columns 'é' and 'e\u0301' have the same key, é"),
    "no name": (text_of("x,,kind", "1,2,a"), "line 1, column 2 has no name: ''"),
    "no letter in a name": (text_of("x,%,kind", "1,2,a"), "line 1, column 2 has no name: '%'"),
    "one class": (text_of(HEADER, "1,2,a", "2,3,a"), "there is only one class, 'a'"),
    "no rows": (text_of(HEADER), "no rows below the header"),
    "blank rows only": (text_of(HEADER, "", ""), "no rows below the header"),
    "one column": (text_of("kind", "a", "b"),
                   "the header has only one column, 'kind': separate by comma, semicolon or tab"),
    "an empty file": ("", "no header row: the file is empty"),
    "a blank first line": (text_of("", HEADER, *ROWS), "no header row: line 1 is blank"),
    "zeros": (b"a\0b,c\n1,2\n", "not text"),
    "UTF-16": (text_of(HEADER).encode("utf-16"), "UTF-16 text: save it as UTF-8"),
    "gzip": (gzip.compress(b"x,y\n1,a\n2,b\n"), "this is a gzip file: unpack it"),
    "Excel": (b"PK\x03\x04\x14\0\x08\0\x08\0\xe2\n",
              "this is an Excel file or another zip archive: save the table as CSV"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "this is an old Excel file: save the table as CSV"),
    "Parquet": (b"PAR1\x15\x04\x15\xc0\x0cL\x15", "this is a Parquet file: save the table as CSV"),
    "bzip2": (bz2.compress(b"x,y\n1,a\n2,b\n"), "this is a bzip2 file: unpack it"),
    "xz": (lzma.compress(b"x,y\n1,a\n2,b\n"), "this is an xz file: unpack it"),
    "Zstandard": (b"(\xb5/\xfd\x04X", "this is a Zstandard file: unpack it"),
    "zeros in a class": (b"x,y\n1,a\0\n2,b\n", r"line 2, column 'y': 'a\x00' is not a label: too long, or not text"),
    "latin-1 far down": (text_of(HEADER, *ROWS * 3_000).encode() + b"1,2,caf\xe9\n",
                         "line 12002, byte 8 (0xe9): not UTF-8 text (invalid continuation byte)"),
    "an open quote": (text_of(HEADER, ROWS[0], '2,3,"b', *ROWS), "line 3: a quote is opened and never closed"),
    "an open quote in the header": (text_of('x,y,"kind', *ROWS), "line 1: a quote in the header is not closed"),
    "text after a quote": (text_of(HEADER, ROWS[0], '"2"0,3,b'), "line 3: ',' expected after '\"'"),
    "text after a quote in the header": (text_of('x,"y"z,kind', *ROWS), "line 1: ',' expected after '\"'"),
    "a huge cell": (text_of(HEADER, f"1,2,{LONG * 100}"), "line 2: field larger than field limit (131072)"),
    "a long label": (text_of(HEADER, f"1,2,{LONG}"),
                     f"line 2, column 'kind': '{LONG[:60]}…' is not a label: too long, or not text"),
    "a long name": (text_of(f"{LONG},kind", "1,a"),
                    f"line 1, column '{LONG[:60]}…': a name of more than 1000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", ERRORS)
def test_an_error_names_line_column_and_value_in_one_sentence(tmp_path: Path, wrong: str) -> None:
    content, message = ERRORS[wrong]
    with pytest.raises(DatasetError) as caught:
        read_csv(written(tmp_path, content))

    assert str(caught.value) == f"{tmp_path / 'table.csv'}: {message}"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("target", ["species", "", "x,y"])
def test_a_target_that_is_no_column_is_an_error_with_the_columns(tmp_path: Path, target: str) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))

    assert error_of(path, target=target) == f"no column is called {target!r}: width (cm), height, kind"


def test_a_target_that_is_two_columns_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("x,kind,kind", "1,a,b"))

    assert error_of(path, target="kind") == "2 columns are called 'kind'"


def test_a_dropped_column_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    assert error_of(written(tmp_path, text_of(HEADER, *ROWS)), drop=["id"]).startswith("no column is called 'id': ")


def test_an_error_lists_some_of_very_many_columns(tmp_path: Path) -> None:
    path = written(tmp_path, text_of(",".join(f"column {number}" for number in range(5_000)), ",".join("1" * 5_000)))

    assert len(error_of(path, target="species")) < 400


def test_a_table_of_the_class_column_alone_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("id,kind", "1,a", "2,b"))

    assert error_of(path, drop=["id"]) == "there is no column besides the class column"


def test_too_many_columns_rows_or_labels_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, text_of(HEADER, *ROWS))
    for name, most, message in [
        ("MAX_FILE_BYTES", 10, "larger than 10 bytes"),
        ("MAX_COLUMNS", 2, "the header has 3 columns, at most 2 are read"),
        ("MAX_CELLS", 5, "line 4: more than 5 values"),
        ("MAX_LABELS", 1, "2 different classes, at most 1 are possible: is it the class column?"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(headers if name == "MAX_COLUMNS" else csvfile, name, most)
            assert error_of(path) == message


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    assert error_of(tmp_path / "missing.csv") == "No such file or directory"
    assert error_of(tmp_path) == "Is a directory"


def test_the_largest_number_is_still_read(tmp_path: Path) -> None:
    dataset = read_csv(written(tmp_path, text_of("x,y", f"{LARGEST!r},a", f"-{LARGEST!r},b"))).dataset

    assert dataset.rows.tolist() == [[LARGEST], [-LARGEST]]


PIECES = [b",", b";", b"\t", b"\n", b"\r", b"\r\n", b'"', b'""', b"\xef\xbb\xbf", b"\0", b"\xe9", "é".encode(), b" ",
          b"1", b"2.5", b"1,5", b"-", b"1e999", b"nan", b"a", b"b", b"x (cm)", b"(", b"]", b"kind"]  # fmt: skip


def table_or_message(path: Path) -> tuple[Dataset | None, str]:
    try:
        return read_csv(path).dataset, ""
    except DatasetError as error:
        return None, str(error)


def reads_or_refuses(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    dataset, message = table_or_message(path)
    if dataset is None:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return
    assert dataset.rows.shape == (len(dataset.outcomes), len(dataset.features))
    assert np.all(np.abs(dataset.rows) <= LARGEST)
    assert set(dataset.outcomes.tolist()) == set(range(len(dataset.target.labels)))
    assert len({feature.key for feature in dataset.features}) == len(dataset.features)
    assert all(dataset.target.labels)


ANY = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANY
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error(tmp_path: Path, content: bytes) -> None:
    reads_or_refuses(tmp_path / "any.csv", content)


@ANY
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40), header=st.sampled_from([b"", b"x,y\n", b"x;y\r\n"]))
def test_any_pieces_of_tables_are_a_table_or_an_error(tmp_path: Path, pieces: list[bytes], header: bytes) -> None:
    reads_or_refuses(tmp_path / "any.csv", header + b"".join(pieces))


@ANY
@given(
    rows=st.lists(
        st.tuples(st.floats(-LARGEST, LARGEST), st.floats(-LARGEST, LARGEST), st.text(min_size=1, max_size=9)),
        min_size=2, max_size=20,
    ),
    separator=st.sampled_from(",;\t"),
)  # fmt: skip
def test_what_is_written_is_read_to_the_last_bit(
    tmp_path: Path, rows: list[tuple[float, float, str]], separator: str
) -> None:
    usable = [row for row in rows if row[2].strip() and "\0" not in row[2]]
    path = tmp_path / "written.csv"
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["a", "b", "kind"])
        writer.writerows(usable)

    dataset, message = table_or_message(path)

    if dataset is None:
        assert re.search("only one class|no rows", message), message
        return
    assert dataset.rows.tolist() == [[a, b] for a, b, _ in usable]
