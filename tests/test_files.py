"""Files become tables: every shape that people have, what is left out and said, and what is refused by name."""

from __future__ import annotations

import contextlib
import gzip
import io
import time
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from ml.errors import TableError
from ml.tables.files import read_table
from ml.tables.table import Bounds, Table
from tests.tables import zipped

PLAIN = "a,b,kind\n1,2,x\n3,4,y\n5,6,x\n"
COLUMNS = {"a": ["1", "3", "5"], "b": ["2", "4", "6"], "kind": ["x", "y", "x"]}


def read(directory: Path, content: str | bytes, **options: Any) -> Table:
    path = directory / "table"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, **options)


def columns_of(table: Table) -> dict[str, list[str]]:
    assert len({len(column) for column in (*table.columns, table.lines)}) == 1
    return {name: column.tolist() for name, column in zip(table.header, table.columns, strict=True)}


def error_of(directory: Path, content: str | bytes, **options: Any) -> str:
    with pytest.raises(TableError) as caught:
        read(directory, content, **options)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"{directory / 'table'}: ")


# The same table in every shape, and what is said of it.
SHAPES: dict[str, tuple[str | bytes, str]] = {
    "commas": (PLAIN, "separated by comma"),
    "semicolons": (PLAIN.replace(",", ";"), "separated by semicolon"),
    "tabs": (PLAIN.replace(",", "\t"), "separated by tab"),
    "vertical bars": (PLAIN.replace(",", "|"), "separated by vertical bar"),
    "white space": ("  a   b  kind\n 1.  2 x\n3 4 y\n  5\t6\tx \n".replace("1.", "1 "), "separated by white space"),
    "tabs for order's sake": ("a\t\tb\t\tkind\n1\t\t2\t\tx\n3\t\t4\t\ty\n5\t\t6\t\tx\n", "separated by tab"),
    "more tabs in some lines": ("a\t\tb\tkind\n1\t2\tx\n3\t4\t\ty\n5\t6\tx\n", "separated by white space"),
    "a comma in a name": ('a;b;"kind"\n1;2;x\n3;4;y\n5;6;x\n', "separated by semicolon"),
    "a line that says the separator": ("sep=;\r\n" + PLAIN.replace(",", ";"), "separated by semicolon"),
    "UTF-16": (("\ufeff" + PLAIN).encode("utf-16-le"), "the text is UTF-16"),
    "UTF-16 the other way": (("\ufeff" + PLAIN).encode("utf-16-be"), "the text is UTF-16"),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), "the text is UTF-16"),
    "a mark": ("\ufeff" + PLAIN, "separated by comma"),
    "comments": ("# by hand\n#a, b\n\n" + PLAIN, "comment lines left out: 2"),
    "a header in a comment": ("# " + PLAIN, "the header is the comment on line 1"),
    "a title": ("Measurements\n\n" + PLAIN, "line 1, a title, is left out: 'Measurements'"),
    "a title with separators": ("Measurements,,\n,,\n" + PLAIN, "line 1, a title, is left out: 'Measurements,,'"),
    "blank lines": (PLAIN.replace("\n", "\n\n"), "blank lines left out: 4"),
    "rows of nothing at the end": (PLAIN + ",,\n , ,\n", "blank lines left out: 2"),
    "a row of nothing between": (PLAIN.replace("3,", ",,\n3,"), "rows without a value left out: 1"),
    "trailing separators": (PLAIN.replace("\n", ",\n"), "columns without name and value left out: 1"),
    "trailing separators in rows": (PLAIN.replace("x\n", "x,\n"), "columns without name and value left out: 1"),
    "trailing separators in some rows": (PLAIN.replace("y\n", "y,,\n"), "separated by comma"),
    "a column of nothing": (PLAIN.replace(",", ",,", 1).replace("\n1,", "\n1,,").replace("\n3,", "\n3,,")
                            .replace("\n5,", "\n5,,"), "columns without name and value left out: 1"),
    "quotes": ('"a","b","kind"\n"1","2","x"\n"3","4","y"\n"5","6","x"\n', "separated by comma"),
    "quotes after spaces": ('"a", "b", "kind"\n1, 2, "x"\n3, 4, "y"\n5, 6, "x"\n', "separated by comma"),
    "a row of types": (PLAIN.replace("1,", "continuous,numeric,discrete\n1,", 1), "line 2 has types, and is left out"),
    "Orange's types and roles": (
        PLAIN.replace("1,", "continuous,c,d\n,,class\n1,", 1),
        "lines 2 and 3 have types and roles, and are left out: 'kind' is class",
    ),
    "gzip": (gzip.compress(PLAIN.encode()), "separated by comma"),
    "zip": (zipped(**{"folder/": "", "folder/a.csv": PLAIN, "__MACOSX/._a.csv": "x"}), "separated by comma"),
    "JSON": ('[{"a": 1, "b": 2, "kind": "x"},\n {"b": 4, "a": 3.0, "kind": "y"}, {"a": 5, "b": 6, "kind": "x"}]',
             "3 JSON records"),
    "JSON lines": ('{"a": 1, "b": 2, "kind": "x"}\n{"a": 3, "b": 4, "kind": "y"}\n\n{"a": 5, "b": 6, "kind": "x"}',
                   "3 JSON records"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_is_read_in_every_shape_and_it_is_said_what_was_inferred(tmp_path: Path, shape: str) -> None:
    content, sentence = SHAPES[shape]

    table = read(tmp_path, content)

    assert columns_of(table) == COLUMNS
    assert sentence in table.inferred


def test_the_lines_of_rows_are_those_of_the_file(tmp_path: Path) -> None:
    content = '# x\nA title\n\na,"b\n(cm)",c\n"1\n1",2,x\n\n3,4,y\n,,\n5,6,x\n'

    assert read(tmp_path, content).lines.tolist() == [6, 9, 11]


def test_row_names_of_r_are_a_column(tmp_path: Path) -> None:
    by_default = read(tmp_path, '"a" "kind"\n"1" 1.5 "x y"\n"2" 3 "z"\n')
    by_tabs = read(tmp_path, "a\tkind\n1\t1.5\tx y\n2\t3\tz\n")
    by_commas = read(tmp_path, '"a","kind"\n"1",1.5,"x y"\n"2",3,"z"\n')

    for table in (by_default, by_tabs, by_commas):
        assert columns_of(table) == {"rownames": ["1", "2"], "a": ["1.5", "3"], "kind": ["x y", "z"]}
        assert any("one name less than the rows" in sentence for sentence in table.inferred)


def test_a_decimal_comma_between_commas_is_never_taken_for_a_row_name(tmp_path: Path) -> None:
    assert error_of(tmp_path, "a,kind\n1,5,x\n2,5,y\n") == "line 2 has 3 columns, the header has 2"
    assert error_of(tmp_path, "kind,a\nx,1,5\ny,2,5\n") == "line 2 has 3 columns, the header has 2"


def test_bytes_that_are_not_utf_8_are_read_as_windows_1252_and_said(tmp_path: Path) -> None:
    table = read(tmp_path, "Temp (°C),kind\n1,naïve\n2,5 €\n".encode("cp1252"))

    assert columns_of(table) == {"Temp (°C)": ["1", "2"], "kind": ["naïve", "5 €"]}
    assert (
        "bytes that are not UTF-8, the first on line 1, are read as Windows-1252: --encoding names another encoding"
        in table.inferred
    )


def test_an_encoding_that_is_named_decides(tmp_path: Path) -> None:
    content = "a,kind\n1,жук\n2,x\n".encode("cp1251")

    assert columns_of(read(tmp_path, content, encoding="cp1251"))["kind"] == ["жук", "x"]
    assert error_of(tmp_path, content, encoding="utf-8") == "line 2: byte 0xe6 is not utf-8 text"
    assert error_of(tmp_path, PLAIN, encoding="zlib") == "there is no encoding called 'zlib'"
    assert error_of(tmp_path, PLAIN, encoding="none") == "there is no encoding called 'none'"


def test_a_row_of_units_goes_behind_the_names(tmp_path: Path) -> None:
    table = read(tmp_path, "temp,height (m),n,kind\n°C,m,-,\n20,1,4,x\n21,2,5,y\n")

    assert table.header == ("temp (°C)", "height (m)", "n", "kind")
    assert table.lines.tolist() == [3, 4]
    assert any("left out as a row of units: '°C', 'm', '-'" in sentence for sentence in table.inferred)


def test_a_second_row_of_names_below_merged_cells_is_refused_rather_than_taken_for_units(tmp_path: Path) -> None:
    error = error_of(tmp_path, "sepal,,petal,,kind\nlength,width,length,width,\n1,2,3,4,x\n2,3,4,5,y\n")

    assert error == (
        "line 2 looks like a second row of names, as below merged cells: 'width' has no name above it; give each "
        "column its whole name in one row"
    )


@pytest.mark.parametrize(
    "rows",
    [
        "NA,?,x\n1,2,x\n3,4,y\n",  # no values
        "low,high,x\n1,2,x\n3,4,y\n",  # a word among words
        "low,1,\n1,2,x\n3,4,y\n",  # a number
        "low,high,\nhigh,low,x\n1,4,y\n",
    ],
)
def test_a_row_that_may_be_one_of_the_others_stays(tmp_path: Path, rows: str) -> None:
    assert len(read(tmp_path, "a,b,kind\n" + rows).lines) == 3


def test_the_header_of_scikit_learns_own_tables_names_the_classes(tmp_path: Path) -> None:
    table = read(tmp_path, "3,2,setosa,other\n1,2,0\n3,4,1\n5,6,0\n")

    assert columns_of(table) == {
        "column_1": ["1", "3", "5"], "column_2": ["2", "4", "6"], "target": ["setosa", "other", "setosa"]
    }  # fmt: skip
    assert "it says that there are 3 rows, 2 features, and the classes setosa, other" in table.inferred[0]
    assert error_of(tmp_path, "4,2,setosa,other\n1,2,0\n") == "line 1 says that there are 4 rows, and there are 1"
    assert "a row has the class '7'" in error_of(tmp_path, "1,2,setosa,other\n1,2,7\n")


HEADERLESS = {
    "a label as a name": ("5.1,3.5,setosa\n4.9,3,setosa\n5.2,4,other\n", "most of its names look like values"),
    "numbers as names": ("5.1,3.5,0\n4.9,3,0\n5.2,4,1\n", "all its names are numbers"),
    "most names as values": ("x,5.1,3.5,good\nx,4.9,3.2,bad\ny,5.2,4,fine\n", "most of its names look like values"),
}


@pytest.mark.parametrize("name", HEADERLESS)
def test_a_file_without_a_header_is_refused_with_the_option_that_reads_it(tmp_path: Path, name: str) -> None:
    content, why = HEADERLESS[name]

    with pytest.raises(TableError, match=why) as caught:
        read(tmp_path, content)
    table = read(tmp_path, content, has_header=False)

    assert [options for _, options in caught.value.remedies] == [("--no-header",)]
    assert table.header == tuple(f"column_{n + 1}" for n in range(len(table.columns)))
    assert len(table.lines) == 3


@pytest.mark.parametrize(
    "content",
    [
        "country,1990,1991,1992\nx,1.5,2.5,9\ny,2,3,1\n",  # years
        "0,1,2,3\n1.5,2.5,9,0\n2,3,1,1\n",  # as pandas names columns without names
        "yes,no\n1,2\n3,4\n",
    ],
)
def test_a_header_of_strange_names_is_one(tmp_path: Path, content: str) -> None:
    assert len(read(tmp_path, content).lines) == 2


def test_duplicate_names_stay_and_a_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    assert read(tmp_path, "a,a,kind\n1,2,x\n3,4,y\n").header == ("a", "a", "kind")
    assert error_of(tmp_path, "a,kind\n1,x\na,kind\n2,y\n") == "line 3 is the header once more: remove it"


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "no header row: the file is empty"),
    "blank lines": ("\n,,\n \n", "no header row: the file is empty"),
    "a header": ("a,b\n", "no rows below the header"),
    "one column": ("a\n1\n", "the header has only one column, 'a': separate by comma, semicolon or tab"),
    "a short row": ("a,b\n1,x\n2\n", "line 3 has 1 columns, the header has 2"),
    "a long row": ("a,b\n1,x\n\n2,y,z\n", "line 4 has 3 columns, the header has 2"),
    "a footer": (PLAIN + "total,9\n", "line 5 has 2 columns, the header has 3"),
    "an open quote": ('a,b\n1,"x\n2,y\n', "line 2: a quote is opened and never closed"),
    "too many columns": ("a," * 10_000 + "b", "the header has 10001 columns, at most 10000 are read"),
    "PDF": ("%PDF-1.4\n", "this is a PDF file: save the table as CSV"),
    "HTML": ("<html>\n", "this is an HTML page: save the table as CSV"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "this is an old Excel file: save the table as CSV"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "this is an image"),
    "ARFF": ("@relation x\n@data\n1,2\n", "this is an ARFF file: save the table as CSV"),
    "bzip2": ("BZh91AY&SY", "this is a bzip2 file: unpack it"),
    "half a gzip file": (gzip.compress(PLAIN.encode())[:-9], "the gzip file is damaged: "),
    "half a zip file": (zipped(a=PLAIN)[:-9], "the zip file is damaged: "),
    "an empty zip file": (zipped(), "the zip file is empty"),
    "two files in one": (zipped(a=PLAIN, b=PLAIN), "the zip file has 2 files, 'a', 'b': unpack the one with the table"),
    "JSON that is broken": ('[{"a": 1},', "the JSON is no array of objects, and not one object a line: "),
    "JSON in JSON": ('[{"a": [1]}]', "record 1, 'a': '[1]' is no value of a cell"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused_by_name_and_line(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]

    assert error_of(tmp_path, content).startswith(message)


BOMBS: dict[str, tuple[bytes, Bounds, str]] = {
    "gzip": (gzip.compress(b"a,b\n" + b"1,2\n" * 2**20), Bounds(max_bytes=2**20), "larger than 1048576 bytes"),
    "zip": (zipped(a="a,b\n" + "1,2\n" * 2**20), Bounds(max_bytes=2**20), "larger than 1048576 bytes"),
    "cells": (PLAIN.encode(), Bounds(max_cells=8), "line 4: more than 8 cells"),
    "a header": (gzip.compress(b"a," * 2**20) * 2**7, Bounds(), "line 1: a row of more than 262144 characters"),
    "JSON": (b'[{"a":1,"b":2,"c":3}]' + b" " * 99, Bounds(max_cells=2), "more than 2 cells"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_what_is_packed_is_bounded_while_it_is_unpacked(tmp_path: Path, name: str) -> None:
    content, bounds, message = BOMBS[name]
    started = time.process_time()

    assert error_of(tmp_path, content, bounds=bounds) == message
    assert time.process_time() - started < 2


def parquet_of(**columns: Any) -> bytes:
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()


def test_parquet_is_read_by_its_types(tmp_path: Path) -> None:
    content = parquet_of(
        single=pyarrow.array([0.1, None, 5], pyarrow.float32()), double=[1.5, float("nan"), 1e-7], whole=[1, None, 3],
        word=["a", None, " b "], truth=[True, None, False], moment=pyarrow.array([1, None, 3], pyarrow.timestamp("ns")),
        day=pyarrow.array([0, None, 2], pyarrow.date32()), choice=pyarrow.array(["x", "y", "x"]).dictionary_encode(),
    )  # fmt: skip

    table = read(tmp_path, content)

    assert columns_of(table) == {
        "single": ["0.1", "", "5"], "double": ["1.5", "", "1e-07"], "whole": ["1", "", "3"], "word": ["a", "", "b"],
        "truth": ["True", "", "False"], "moment": ["1970-01-01", "", "1970-01-01"],
        "day": ["1970-01-01", "", "1970-01-03"], "choice": ["x", "y", "x"],
    }  # fmt: skip
    assert table.has_types


def test_parquet_without_cells_or_beyond_the_bounds_is_refused(tmp_path: Path) -> None:
    word = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 5_000, pyarrow.int32()), pyarrow.array(["x" * 5_000])
    )
    bomb = parquet_of(word=word)

    assert len(bomb) < 10_000
    assert error_of(tmp_path, bomb, bounds=Bounds(max_bytes=2**20)) == "larger than 1048576 bytes, unpacked"
    assert error_of(tmp_path, parquet_of(a=[1, 2, 3]), bounds=Bounds(max_cells=2)) == "more than 2 cells"
    assert "column 'a' is of type list" in error_of(tmp_path, parquet_of(a=[[1], [2]]))
    assert error_of(tmp_path, b"PAR1" + b"x" * 99).startswith("the Parquet file cannot be read: ")


PIECES = [
    ",", ";", "\t", "|", " ", '"', "\n", "\r\n", "#", "a", "kind", "1", "2.5", "x", "sep=;\n", "[{", "\0", "é",
    "\ufeff",
]  # fmt: skip


@given(
    content=st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-be", "latin-1"]),
    has_header=st.booleans(),
)
def test_any_pieces_of_tables_are_a_table_or_an_error(
    tmp_path: Path, content: str, encoding: str, *, has_header: bool
) -> None:
    try:
        table = read(tmp_path, content.encode(encoding, "replace"), has_header=has_header)
    except TableError:
        return
    for column in columns_of(table).values():
        assert all(cell == cell.strip() for cell in column)


@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"PAR1", gzip.compress(PLAIN.encode())[:20], zipped(a=PLAIN)[:60]]),
    rest=st.binary(max_size=200),
)
def test_any_bytes_are_a_table_or_an_error(tmp_path: Path, start: bytes, rest: bytes) -> None:
    with contextlib.suppress(TableError):
        read(tmp_path, start + rest)


def test_a_table_of_many_columns_costs_what_its_cells_cost(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("".join(",".join(row) + "\n" for row in ([f"c{number}" for number in range(6_254)], ["1"] * 6_254)))
    started = time.process_time()

    assert len(read_table(path).columns) == 6_254
    assert time.process_time() - started < 5
