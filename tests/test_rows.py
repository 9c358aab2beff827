"""Rows out of text in pieces: as csv reads them, wherever the text is cut, and each character once."""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.errors import TableError
from ml.tables.dialect import Dialect
from ml.tables.preamble import MAX_HEADER_LINES
from ml.tables.rows import MAX_ROW_CHARACTERS, RowReader

Row = tuple[int, list[str]]
PIECE = 2**14  # characters


def read(pieces: Iterable[str], reader: RowReader | None = None) -> tuple[list[Row], str]:
    """Return the rows with their lines, and the error that ends them."""
    reader = reader or RowReader(allow_one_column=True)
    rows: list[Row] = []
    try:
        for block in itertools.chain(itertools.chain.from_iterable(map(reader.feed, pieces)), reader.finish()):
            rows += zip(block.lines, block.rows, strict=True)
    except TableError as error:
        return rows, str(error)
    return rows, ""


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@given(text=st.text(st.sampled_from('"",\n\rxé '), max_size=60), size=st.integers(1, 60))
def test_rows_are_those_of_csv_wherever_the_text_is_cut(text: str, size: int) -> None:
    whole = f"a,b\n1,2\n{text}\n3,4"
    reader = csv.reader(io.StringIO(whole, newline=""), delimiter=",")
    expected: list[Row] = []
    line = 1
    for cells in reader:
        if cells:
            expected.append((line, cells))
        line = reader.line_num + 1

    rows, error = read(cut(whole, size))

    if error:
        assert error == f"line {expected[-1][0]}: a quote is opened and never closed"
        expected.pop()
    assert rows == expected


@given(
    text=st.text(st.sampled_from('"",;\n\n\rx \t#1|='), max_size=60),
    start=st.sampled_from(["", "sep=;\n", "a b\n", '"a", "b"\n', '"a" "b"\n1 2\n', "# a\n\n", "A title\na,b,c\n"]),
    size=st.integers(1, 60),
    one=st.booleans(),
    strict=st.booleans(),
    named=st.booleans(),
)
def test_any_text_gives_the_same_rows_and_error_wherever_it_is_cut(
    text: str, start: str, size: int, *, one: bool, strict: bool, named: bool
) -> None:
    def reader() -> RowReader:
        return RowReader(allow_one_column=one, strict=strict, has_header=named)

    assert read(cut(start + text, size), reader()) == read([start + text], reader())


@pytest.mark.parametrize(("header", "separator"), [("a,b;c;d", ";"), ('"a,b,c";d', ";"), ("a\tb", "\t"), ("a", ",")])
def test_the_header_settles_the_separator(header: str, separator: str) -> None:
    reader = RowReader(allow_one_column=True)

    read([header], reader)

    assert reader.dialect == Dialect(separator)


def test_a_byte_order_mark_is_left_out_once() -> None:
    assert read(["", "\ufeff", "a,\ufeffb\n", "\ufeffc"])[0] == [(1, ["a", "\ufeffb"]), (2, ["\ufeffc"])]


def test_a_header_may_have_many_lines_within_quotes() -> None:
    rows, error = read(cut('"a\n""x""\r\n\n",b\n1,2\n', 1))

    assert (rows, error) == ([(1, ['a\n"x"\r\n\n', "b"]), (5, ["1", "2"])], "")


def test_a_header_of_more_lines_than_are_allowed_is_refused_before_the_text_ends() -> None:
    most = '"' + "x\n" * (MAX_HEADER_LINES - 1)

    assert read([f'{most}",b\n'])[0] == [(1, [most.removeprefix('"'), "b"])]
    with pytest.raises(TableError, match="line 1: a quote in the header is not closed"):
        list(RowReader().feed(f"{most}x\nx\n"))


def test_a_header_over_many_lines_has_the_limit_of_one_line() -> None:
    line = "x" * 1_023 + "\n"

    assert read(['"', *[line] * (MAX_ROW_CHARACTERS // len(line))], RowReader()) == (
        [], f"line 1: a row of more than {MAX_ROW_CHARACTERS} characters"
    )  # fmt: skip


def test_a_cell_over_many_pieces_has_the_limit_of_a_cell_in_one() -> None:
    text = 'a,b\n1,2\n"' + "x\n" * 70_000 + '",1\n'

    assert read([text]) == read(cut(text, PIECE)) == (
        [(1, ["a", "b"]), (2, ["1", "2"])], f"line 3: field larger than field limit ({csv.field_size_limit()})"
    )  # fmt: skip


def test_a_row_over_many_lines_has_the_limit_of_one_line() -> None:
    pieces = ["a,b\n1,2\n", *['"x\n",'] * (MAX_ROW_CHARACTERS // 5), '"x\n",']

    assert read([*pieces, '"\n'])[1] == f"line 3: a row of more than {MAX_ROW_CHARACTERS} characters"


# Text that gives nothing away before its end; each took a time that grew with the square or the cube of its length.
HOSTILE: dict[str, Callable[[int], str]] = {
    "a header within one quote": lambda n: '"' + ('""' + "x" * 255 + "\n") * n,
    "a header of doubled quotes": lambda n: '"' + '""\n' * n,
    "a row within one quote": lambda n: 'a,b\n"' + ('""' + "x" * 126 + "\n") * n,
    "a row of quoted line ends": lambda n: "a,b\n" + '"\n",' * n,
    "a long line": lambda n: "a" * 50 * n,
    "returns": lambda n: "a,b\n" + '"\r' * n,
}


@pytest.mark.slow
@pytest.mark.parametrize("text_of", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("size", [1, 100, PIECE])
def test_twice_the_text_takes_twice_the_time(text_of: Callable[[int], str], size: int) -> None:
    def seconds(n: int) -> float:
        pieces = cut(text_of(n), size)
        started = time.process_time()
        read(pieces)
        return time.process_time() - started

    once, twice = (min(seconds(n) for _ in range(3)) for n in (450, 900))

    assert twice < 4 * once + 0.02
    assert twice < 1.0
