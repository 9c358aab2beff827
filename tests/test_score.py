"""Scoring a CSV file: the input as it came, with answers added; bad rows told by their line, and memory that stays."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.errors import TableError
from ml.model.card import Recipe
from ml.model.contributions import contributions
from ml.model.loaded import LoadedModel
from ml.scoring.layout import added_columns
from ml.scoring.rows import MAX_SINGLE_ROWS, ODD_BYTES, BadRow
from ml.scoring.text import MAX_PART_CELLS, Scored, Scorer, score
from ml.tables.files import BLOCK_CHARACTERS
from ml.tables.marks import Marks
from ml.tables.reading import read_dataset
from ml.tables.rows import MAX_ROW_CHARACTERS
from ml.tables.written import guard
from ml.training import fitting, writing
from tests import small_tables
from tests.conftest import for_each, run_on

ROOT = Path(__file__).parent.parent
HEADER = "sepal length,sepal width,petal length,petal width"
ADDED = (
    "predicted_label,probability_setosa,probability_versicolor,probability_virginica,prediction_notes,prediction_error"
)
VERSICOLOR = "versicolor,0.0,1.0,0.0,,"
GOOD = "5.6,2.7,4.2,1.3"
MILLION = 1_000_000
PART_ROWS = MAX_PART_CELLS // 10  # of four cells, and six more
BLOCK_ROWS = BLOCK_CHARACTERS // len(f"{GOOD}\n")


def scored(model: LoadedModel, text: str) -> tuple[str, list[BadRow]]:
    """Return what comes out, and the rows that were bad."""
    sink, bad = io.StringIO(newline=""), list[BadRow]()
    result = score(model, io.StringIO(text, newline=""), sink, on_bad=bad.append)
    assert result.bad == len(bad)
    return sink.getvalue(), bad


def lines_of(model: LoadedModel, *lines: str) -> tuple[list[str], list[BadRow]]:
    text, bad = scored(model, "".join(line + "\n" for line in lines))
    assert text.endswith("\n")
    return text.split("\n")[:-1], bad


def rows_of(text: str, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


def refusal_of(model: LoadedModel, text: str) -> str:
    with pytest.raises(TableError) as caught:
        scored(model, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_comes_in_goes_out_with_the_answer_added(model: LoadedModel) -> None:
    lines, bad = lines_of(model, HEADER, GOOD, "5.10,3.5,1.4,.2")

    assert lines == [f"{HEADER},{ADDED}", f"{GOOD},{VERSICOLOR}", "5.10,3.5,1.4,.2,setosa,1.0,0.0,0.0,,"]
    assert bad == []


def test_columns_may_stand_in_any_order_among_others(model: LoadedModel) -> None:
    header = "id,Petal Width (cm),note,sepal_length,PETAL LENGTH,,sepal  width [cm]"

    lines, bad = lines_of(model, header, '7,1.3,"a, b",5.6,4.2,,2.7', "8,1.3,é <b>,5.6,4.2,x,2.7")

    assert lines == [
        f"{header},{ADDED}",
        f'7,1.3,"a, b",5.6,4.2,,2.7,{VERSICOLOR}',
        f"8,1.3,é <b>,5.6,4.2,x,2.7,{VERSICOLOR}",
    ]
    assert bad == []


# By the first row, its separator and the marks that are named, the decimal mark of the answers.
DECIMALS: list[tuple[str, str, Marks | None, str]] = [
    ("5,6 2,7 4,2 1,3", ";", None, ","),
    ("5 2,7 4 1", ";", None, ","),
    ("5.6 2,7 4.2 1.3", ";", None, "."),
    ("5 2 4 1", ";", None, "."),
    ("5 2 4 1", ";", Marks(","), ","),
    ("? 2,7 4 1", "\t", None, ","),
    ('"5,6" "2,7" "4,2" "1,3"', ",", None, "."),
]


@pytest.mark.parametrize(("row", "separator", "marks", "decimal"), DECIMALS)
def test_answers_have_the_decimal_comma_of_the_first_row_where_it_separates_no_cells(
    model: LoadedModel, row: str, separator: str, marks: Marks | None, decimal: str
) -> None:
    lines = [HEADER.replace(",", separator), row.replace(" ", separator), separator.join(["5", "2", "5", "1"]), ""]
    sink = io.StringIO(newline="")

    score(model, io.StringIO("\n".join(lines), newline=""), sink, on_bad=lambda _bad: None, marks=marks)

    probabilities = model.predict([5.0, 2.0, 5.0, 1.0]).probabilities
    assert len(set(probabilities) - {0.0, 1.0}) > 1
    assert rows_of(sink.getvalue(), separator)[2][5:8] == [repr(share).replace(".", decimal) for share in probabilities]
    assert marks or "".join(fed(model, *"\n".join(lines))) == sink.getvalue()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_the_separator_is_kept_and_a_decimal_comma_read(model: LoadedModel, separator: str) -> None:
    lines, bad = lines_of(
        model,
        HEADER.replace(",", separator),
        separator.join(["5,6", "2,7", "4,2", "1,3"]),
        GOOD.replace(",", separator),
    )

    assert lines[0] == f"{HEADER},{ADDED}".replace(",", separator)
    assert lines[1].split(separator) == ["5,6", "2,7", "4,2", "1,3", "versicolor", "0,0", "1,0", "0,0", "", ""]
    assert lines[2].split(separator)[4:] == lines[1].split(separator)[4:]
    assert bad == []


BAD = {
    "5.6,x,4.2,1.3": "sepal width: 'x' is not a number",
    "5.6,,4.2,1.3": "sepal width is missing",
    "5.6,2.7,4.2": "3 columns, the header has 4",
    "5.6,2.7,4.2,1.3,9": "5 columns, the header has 4",
    "5.6,-1,4.2,1.3": "sepal width must be 0 cm or more, not -1",
    "nan,2.7,4.2,1.3": "sepal length: 'nan' is not a number",
    "inf,2.7,4.2,1.3": "sepal length: 'inf' is not a number",
    "1_0,2.7,4.2,1.3": "sepal length: '1_0' is not a number",
    "٥,2.7,4.2,1.3": "sepal length: '٥' is not a number",
    "1e39,2.7,4.2,1.3": "sepal length is too large for a 32-bit float",
    f"{'1' * 65},2.7,4.2,1.3": f"sepal length: '{'1' * 64}…' is not a number",
    ",,,": "sepal length is missing; sepal width is missing; petal length is missing; and 1 more",
}


@for_each("row", BAD)
def test_a_bad_row_is_told_by_its_line_and_left_blank(model: LoadedModel, row: str) -> None:
    lines, bad = lines_of(model, HEADER, GOOD, row, GOOD)

    assert bad == [BadRow(3, BAD[row])]
    assert lines[1] == lines[3] == f"{GOOD},{VERSICOLOR}"
    cells = row.split(",")
    cells += [""] * (4 - len(cells))
    assert rows_of(lines[2]) == [[*cells[:4], "", "", "", "", "", BAD[row], *cells[4:]]]


def test_the_lines_of_bad_rows_count_blank_lines_and_quoted_line_breaks(model: LoadedModel) -> None:
    header = f'"no\nte",{HEADER}'
    text = "\n".join(
        [header, "", f'"a\nb\r\nc",{GOOD}', "x,?,,,", "", f'"d\re",{GOOD}', f'"f\n",{GOOD},9', "", "g,h,i,j,k", ""]
    )

    out, bad = scored(model, text)

    assert [row.line for row in bad] == [7, 11, 14]
    assert [row[0] for row in rows_of(out)] == ["no\nte", "a\nb\r\nc", "x", "d\re", "f\n", "g"]


@pytest.mark.parametrize("before", [MAX_SINGLE_ROWS, PART_ROWS - 1, PART_ROWS, PART_ROWS + 1, BLOCK_ROWS])
def test_the_lines_of_bad_rows_are_right_across_parts(model: LoadedModel, before: int) -> None:
    many = [GOOD] * before

    _, bad = lines_of(model, HEADER, *many, "?,1,1,1", "", *many, '"?\n?",1,1,1', "?,2,2,2")

    assert [row.line for row in bad] == [before + 2, 2 * before + 4, 2 * before + 6]


def test_windows_line_ends_and_a_missing_last_one_are_read(model: LoadedModel) -> None:
    out, bad = scored(model, f"{HEADER}\r\n{GOOD}\r\n\r\n{GOOD}")

    assert rows_of(out)[1:] == [[*GOOD.split(","), *VERSICOLOR.split(",")]] * 2
    assert bad == []


def test_a_table_without_rows_gives_its_header(model: LoadedModel) -> None:
    assert lines_of(model, HEADER) == ([f"{HEADER},{ADDED}"], [])


REFUSED = {
    "": "no header row: the file is empty",
    "\n,,\n": "no header row: the file is empty",
    "a,b\n1,2\n": "no column is called 'sepal length': a, b; "
    "3 more features are missing: sepal width, petal length, petal width",
    "sepal width,petal length,b\n1,2,3\n": "no column is called 'sepal length': sepal width, petal length, b; "
    "one more feature is missing: petal width",
    f"{HEADER},Petal Width (m)\n": "2 columns are called 'petal width': "
    "sepal length, sepal width, petal length, petal width, Petal Width (m)",
    "\udcff\udcfes\0e\0": "UTF-16 text: save it as UTF-8",
    "a\0b,c\n": "not text",
    "x," * 10_000 + "y\n": "the header has 10001 columns, at most 10000 are read",
    f"{HEADER}\n{GOOD}\n{GOOD}{',' * 10_000}\n": "line 3: 10004 columns, at most 10000 are read",
    f"{HEADER}\n{GOOD}{'x' * MAX_ROW_CHARACTERS}": f"line 2: a row of more than {MAX_ROW_CHARACTERS} characters",
    "x" * (MAX_ROW_CHARACTERS + 1): f"line 1: a row of more than {MAX_ROW_CHARACTERS} characters",
    "sepal length\n1\n": "the header has only one column, 'sepal length': separate by comma, semicolon or tab",
    f'"{HEADER}\n{GOOD}\n': "line 1: a quote in the header is not closed",
    f"{HEADER},n\n{GOOD},{'x' * 200_000}\n": "line 2: field larger than field limit (131072)",
}


@for_each("text", REFUSED)
def test_a_file_that_is_no_table_of_these_features_is_refused(model: LoadedModel, text: str) -> None:
    assert refusal_of(model, text) == REFUSED[text]


@for_each("before", [0, 1, PART_ROWS, BLOCK_ROWS])
@for_each("after", [0, 3])
@for_each("end", ["", "\n"])
def test_a_quote_that_swallows_all_rows_after_it_is_refused(
    model: LoadedModel, before: int, after: int, end: str
) -> None:
    # In the last column the row would be good, and the others would be gone without a word.
    rows = [f"{GOOD},x"] * before + [f'{GOOD},"x'] + [f"{GOOD},x"] * after

    message = refusal_of(model, "\n".join([f"{HEADER},note", *rows]) + end)

    assert message == f"line {before + 2}: a quote is opened and never closed"


def test_a_quote_inside_a_cell_is_a_character(model: LoadedModel) -> None:
    out, bad = scored(model, f'{HEADER},5" pipe\n{GOOD},6" long\n{GOOD},"say ""x"""\n')

    assert [row[4] for row in rows_of(out)] == ['5" pipe', '6" long', 'say "x"']
    assert bad == []


def test_a_model_of_one_feature_scores_a_file_of_one_column(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("x,y\n" + "".join(f"{n},{'low' if n < 9 else 'high'}\n" for n in range(20)))
    trained = fitting.fit(read_dataset(tmp_path / "one.csv").dataset, Recipe(n_estimators=2))
    model = writing.write(writing.model_of(trained), tmp_path / "one.npz", trained=trained)

    lines, bad = lines_of(model, "x", "1", "", "18", "?")

    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "low"], ["18", "high"], ["?", ""]]
    assert [row.line for row in bad] == [5]


numbers = st.one_of(
    st.floats(0, 8).map(str),
    st.decimals(0, 8, places=1).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(["", " 1.5 ", "1.234,5", "+.5", "5.", "1_0", "0x1", "1e400", "1e-400", "−1", "x", "\t2", "-0"]),
    st.text(max_size=4),
)


@given(table=st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=12))
def test_every_row_has_the_answer_of_predict_and_the_message_of_the_validator(
    model: LoadedModel, table: list[list[str]]
) -> None:
    source = io.StringIO(newline="")
    csv.writer(source).writerows([HEADER.split(","), *table])
    expected = []
    while table and not any(cell.strip() for cell in table[-1]):
        table.pop()  # rows of nothing at the end are left out
    for cells in table:
        try:
            row = model.validator.row(cells)
            answer, notes = model.predict(row), "; ".join(note.message for note in model.validator.notes(row))
            expected.append([answer.label, *map(repr, answer.probabilities), notes, ""])
        except Exception as error:
            expected.append(["", "", "", "", "", str(error)])

    out, bad = scored(model, source.getvalue())

    assert [row[4:] for row in rows_of(out)[1:]] == expected
    assert [row.message for row in bad] == [message for *_, message in expected if message]
    assert [row[:4] for row in rows_of(out)[1:]] == table


@given(text=st.text(st.sampled_from('",;\t\n\r1.5x é'), max_size=60), with_header=st.booleans())
def test_any_text_is_scored_or_refused(model: LoadedModel, text: str, with_header: bool) -> None:
    source = io.StringIO(f"{HEADER}\n{text}" if with_header else text, newline="")
    sink = io.StringIO(newline="")

    try:
        result = score(model, source, sink, on_bad=lambda _bad: None)
    except TableError:
        return

    assert len(rows_of(sink.getvalue())) == result.rows + 1, "each row is still one row for who reads it next"


def run(*arguments: str | Path, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run_on(stdin, "score", *arguments, cwd=cwd)


TABLE = f"{HEADER}\n{GOOD}\n?,1,1,1\n"
ANSWERS = f"{HEADER},{ADDED}\n{GOOD},{VERSICOLOR}\n?,1,1,1,,,,,,sepal length: '?' is not a number\n"


def test_a_file_becomes_a_file_and_bad_rows_are_told(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(TABLE)

    done = run(model_path, "rows.csv", "--out", "out.csv", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "out.csv").read_text() == ANSWERS
    assert done.stderr.decode().splitlines() == [
        "line 3: sepal length: '?' is not a number",
        "out.csv: 2 rows",
        "1 of 2 rows have no answer and were left blank",
    ]


def test_a_table_in_the_place_of_the_model_gets_the_command_in_the_right_order(
    model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "my rows.csv").write_text(TABLE)

    done = run("my rows.csv", model_path, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().endswith(f"the model file comes first: python -m ml score {model_path} 'my rows.csv'\n")


def test_a_dash_reads_standard_input_and_writes_standard_output(model_path: Path, tmp_path: Path) -> None:
    done = run(model_path, "-", cwd=tmp_path, stdin=b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode())

    assert (done.returncode, done.stdout.decode()) == (0, ANSWERS)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["array", "lines", "indented"])
def test_json_records_are_scored_as_the_same_table_is(
    model_path: Path, tmp_path: Path, form: str, encoding: str
) -> None:
    records = [
        {"note": "é", "petal_width": 1.3, "sepal_length": "5.6", "sepal_width": 2.7, "petal_length": 4.2},
        {"sepal_length": 5.6, "sepal_width": None, "petal_length": 4.2, "petal_width": True},
    ]
    text = "\n".join(map(json.dumps, records)) if form == "lines" else json.dumps(records)
    text = json.dumps(records, indent=2) if form == "indented" else text

    done = run(model_path, "-", cwd=tmp_path, stdin=text.encode(encoding))

    header, first, second = done.stdout.decode().splitlines()
    assert header.startswith("note,petal_width,sepal_length,sepal_width,petal_length,predicted_label")
    assert first == f"é,1.3,5.6,2.7,4.2,{VERSICOLOR}"
    assert second == ",true,5.6,,4.2,,,,,,sepal width is missing; petal width: 'true' is not a number"
    assert "2 JSON records" in done.stderr.decode().splitlines()


@pytest.mark.parametrize("text", ["[1, 2]", '[{"a": [1]}]', '{"a": 1', "[]", '{"x": 1}'])
def test_json_without_rows_of_the_features_is_refused(model_path: Path, tmp_path: Path, text: str) -> None:
    done = run(model_path, "-", cwd=tmp_path, stdin=text.encode())

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1


def test_a_table_in_another_encoding_comes_back_in_utf_8_and_it_is_said(model_path: Path, tmp_path: Path) -> None:
    table = f"{HEADER},né\n{GOOD},é\n{GOOD},è\n"
    noted = f"{VERSICOLOR[:-1]}{ODD_BYTES},"

    done = run(model_path, "-", "--out", "-", cwd=tmp_path, stdin=table.encode("cp1252"))
    named = run(model_path, "-", "--encoding", "cp1252", cwd=tmp_path, stdin=table.encode("cp1252"))
    utf_16 = run(model_path, "-", cwd=tmp_path, stdin=table.encode("utf-16"))

    assert done.stdout.decode() == f"{HEADER},né,{ADDED}\n{GOOD},é,{noted}\n{GOOD},è,{VERSICOLOR}\n"
    assert done.stderr.decode().splitlines() == [
        "bytes that are not UTF-8, the first on line 1, are read as Windows-1252: --encoding names another encoding"
    ]
    assert named.stdout.decode() == f"{HEADER},né,{ADDED}\n{GOOD},é,{VERSICOLOR}\n{GOOD},è,{VERSICOLOR}\n"
    assert named.stderr == b""
    assert (utf_16.stdout, utf_16.stderr.decode()) == (named.stdout, "the text is UTF-16\n")


def test_strict_stops_at_the_first_bad_row_and_leaves_no_file(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(TABLE)
    (tmp_path / "out.csv").write_text("older")

    done = run(model_path, "rows.csv", "--out", "out.csv", "--strict", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == "error: line 3: sepal length: '?' is not a number\n"
    assert (tmp_path / "out.csv").read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "rows.csv"]


def test_strict_writes_the_rows_before_the_first_bad_one_to_a_pipe(model_path: Path, tmp_path: Path) -> None:
    rows = [GOOD] * 200 + ["?,1,1,1", GOOD]

    done = run(model_path, "-", "--strict", cwd=tmp_path, stdin="\n".join([HEADER, *rows]).encode())

    assert done.returncode == 1
    assert done.stdout.decode() == f"{HEADER},{ADDED}\n" + f"{GOOD},{VERSICOLOR}\n" * 200
    assert done.stderr.decode().splitlines()[-1] == "error: line 202: sepal length: '?' is not a number"


@pytest.mark.parametrize("name", ["rows.csv", "./rows.csv", "link.csv"])
def test_a_file_is_not_scored_into_itself(model_path: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.csv").write_text(TABLE)
    (tmp_path / "link.csv").symlink_to("rows.csv")

    done = run(model_path, "rows.csv", "--out", name, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == b"error: rows.csv is the input as well: name another file for the output\n"
    assert (tmp_path / "rows.csv").read_text() == TABLE


def test_an_output_that_is_a_link_leads_to_the_scored_table(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("real.csv")

    assert run(model_path, "-", "--out", "link.csv", cwd=tmp_path, stdin=TABLE.encode()).returncode == 0

    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == ANSWERS


def test_of_very_many_bad_rows_some_are_told_and_all_are_counted(model_path: Path, tmp_path: Path) -> None:
    done = run(model_path, "-", cwd=tmp_path, stdin=(HEADER + "\n" + "?,1,1,1\n" * 5_000).encode())

    told = done.stderr.decode().splitlines()
    assert told[-1] == "5000 of 5000 rows have no answer and were left blank"
    assert told[0].startswith("line 2: ")
    assert len(told) == 21


@pytest.mark.parametrize(
    ("rows", "out", "message"),
    [
        ("missing.csv", "out.csv", "missing.csv: No such file or directory"),
        (".", "out.csv", "out.csv is inside the input .: name a folder elsewhere with --out"),
        ("rows.csv", "missing/out.csv", "missing/out.csv cannot be written: No such file or directory"),
        ("rows.csv", ".", "rows.csv is an input as well: name another folder with --out"),
        ("rows.csv", "rows.csv/out.csv", "rows.csv/out.csv cannot be written: Not a directory"),
    ],
)
def test_a_file_that_cannot_be_read_or_written_is_named_in_one_line(
    model_path: Path, tmp_path: Path, rows: str, out: str, message: str
) -> None:
    (tmp_path / "rows.csv").write_text(TABLE)

    done = run(model_path, rows, "--out", out, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == f"error: {message}"
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_a_pipe_by_name_is_written_to_and_stays_a_pipe(model_path: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reading.start()

    done = run(model_path, "-", "--out", pipe, cwd=tmp_path, stdin=TABLE.encode())
    reading.join(10)

    assert done.returncode == 0
    assert read == [ANSWERS.encode()]
    assert pipe.is_fifo()


def test_a_reader_who_has_seen_enough_is_no_error(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(HEADER + "\n" + f"{GOOD}\n" * 50_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "ml", "score", str(model_path), "rows.csv"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().decode() == f"{HEADER},{ADDED}\n"
        process.stdout.close()

        assert (process.wait(30), process.stderr.read()) == (0, b"")


COUNTING = """
import resource, sys
from ml.__main__ import main
assert main(["score", sys.argv[1], "-", "--out", sys.argv[2]]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_bytes(model_path: Path, out: str, n_rows: int) -> int:
    """Return the most memory that the process ever had while it scored `n_rows` rows out of a pipe."""
    assert resource.RUSAGE_SELF == 0
    block = "".join(f"{5 + n % 20 / 10},2.7,{3 + n % 30 / 10},{1 + n % 15 / 10}\n" for n in range(1_000)).encode()
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING, str(model_path), out], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(HEADER.encode() + b"\n")
        for _ in range(n_rows // 1_000):
            process.stdin.write(block)
        process.stdin.close()
        printed = process.stdout.read()
    assert process.returncode == 0
    return int(printed) * 1024


@pytest.mark.slow
def test_a_million_rows_take_no_more_memory_than_some_thousands(model_path: Path, tmp_path: Path) -> None:
    some = peak_bytes(model_path, "/dev/null", 20_000)
    out = tmp_path / "out.csv"

    many = peak_bytes(model_path, str(out), MILLION)

    with out.open() as file:
        assert sum(1 for _ in file) == MILLION + 1
    assert out.stat().st_size > 30e6
    assert many - some < 8e6


@pytest.mark.parametrize("cell", ['"a,b"', '"a ""b"""', '"a\nb"', "a b"])
def test_rows_that_need_quotes_are_written_as_csv_writes_them(model: LoadedModel, cell: str) -> None:
    (first, *_), *others = rows_of(f"{cell}\n")
    assert not others

    out, bad = scored(model, f"note,{HEADER}\n" + f"{cell},{GOOD}\n" * (PART_ROWS + 3) + f"x,{GOOD}\n")

    assert rows_of(out)[1:] == [
        [note, *GOOD.split(","), *VERSICOLOR.split(",")] for note in [first] * (PART_ROWS + 3) + ["x"]
    ]
    assert bad == []


def test_labels_and_headers_are_quoted_where_they_must_be(tmp_path: Path) -> None:
    cells = ['"a, b"'] * 9 + ['"say ""c"""'] * 11
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)))
    trained = fitting.fit(read_dataset(tmp_path / "t.csv").dataset, Recipe(n_estimators=2))
    model = writing.write(writing.model_of(trained), tmp_path / "t.npz", trained=trained)

    rows = rows_of(scored(model, '"x"\n1\n18\n')[0])

    assert rows[0] == ["x", "predicted_label", "probability_a, b", 'probability_say "c"', *ADDED.split(",")[-2:]]
    assert [row[1] for row in rows[1:]] == ["a, b", 'say "c"']


def test_blank_lines_are_not_counted_as_rows(model: LoadedModel) -> None:
    n = 2 * PART_ROWS + 5
    source = io.StringIO(HEADER + "\n" + f"{GOOD}\n\n" * n, newline="")

    assert score(model, source, io.StringIO(newline=""), on_bad=lambda _bad: None) == Scored(n, 0)


def fed(model: LoadedModel, *pieces: str, guarded: bool = False) -> list[str]:
    """Return the text of each part that comes out of pieces, and the error that ends it."""
    scorer, out = Scorer(model, max_cells=30, guarded=guarded), list[str]()
    try:
        for piece in pieces:
            out += [part.text for part in scorer.feed(piece)]
        out += [part.text for part in scorer.finish()]
    except TableError as error:
        out.append(f"error: {error}")
    return out


def test_a_row_comes_out_with_the_text_that_completes_it(model: LoadedModel) -> None:
    scorer = Scorer(model)
    pieces = [
        HEADER,
        "\n",
        "5.6,2.7,4.2,",
        "1.3\r",
        "\n5.6",
        ",2.7,4.2,1.3\n\n?",
        ',1,1,"1\n',
        '"\n?,1,1,"',
        '\n"',
        "\n",
        GOOD,
    ]

    out = [[part.text.count("\n") for part in scorer.feed(piece)] for piece in pieces]

    assert out == [[], [], [], [], [1, 1], [1], [], [2], [], [2], []]
    assert [part.text for part in scorer.finish()] == [f"{GOOD},{VERSICOLOR}\n"]


@given(
    text=st.text(st.sampled_from('",\n\r1.5x-='), max_size=80),
    cuts=st.lists(st.integers(0, 120), max_size=12).map(sorted),
    quoted=st.booleans(),
    guarded=st.booleans(),
)
def test_it_does_not_matter_where_the_text_is_cut(
    model: LoadedModel, text: str, cuts: list[int], *, quoted: bool, guarded: bool
) -> None:
    header = f'"no\r\nte",{HEADER}' if quoted else HEADER
    whole = f"{header}\n{GOOD},1\n{text}"
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]

    out = fed(model, *pieces, guarded=guarded)

    assert "".join(out) == "".join(fed(model, whole, guarded=guarded)) == "".join(fed(model, *whole, guarded=guarded))


def test_rows_before_an_error_come_out(model: LoadedModel) -> None:
    swallowed = f'{HEADER},n\n{GOOD},"a"\n{GOOD},b\n{GOOD},"c\n{GOOD},d\n'

    out = fed(model, swallowed)

    assert [row[4] for row in rows_of("".join(out[:-1]))] == ["n", "a", "b"]
    assert out[-1] == "error: line 4: a quote is opened and never closed"


@pytest.mark.parametrize(
    ("name", "line", "bad"),
    [
        ("iris", "5.9,3.0,4.8,1.7", "5.9,x,4.8,1.7"),
        ("penguins", "Dream,NA,44.1,9999", "Dream,male,44,-1"),
        ("prices", "D,1.31", "D,x"),
    ],
)
def test_columns_say_exactly_what_each_feature_adds_to_an_answer(
    model: LoadedModel, tmp_path: Path, name: str, line: str, bad: str
) -> None:
    if name != "iris":
        model = small_tables.written(name, tmp_path)
    table = f"{','.join(model.validator.keys)}\n{line}\n{bad}\n{line}\n"
    sink = io.StringIO(newline="")

    done = score(model, io.StringIO(table, newline=""), sink, on_bad=lambda _bad: None, explain=True)

    assert done == Scored(3, 1)
    header, first, wrong, last = rows_of(sink.getvalue())
    answer = dict(zip(header, first, strict=True))
    row = model.validator.row(line.split(","))
    prediction = model.predict(row)
    divided = contributions(model, row, prediction.index)
    assert divided is not None
    shares = {key: float(answer[f"contribution_{key}"]) for key in model.validator.keys}
    assert [*shares.values()] == [*divided.values]
    wanted = prediction.value if model.quantity else prediction.probabilities[prediction.index]
    assert float(answer["contribution_base"]) + sum(shares.values()) == pytest.approx(wanted, rel=1e-12)
    assert first == last
    assert header[-2:] == ["prediction_notes", "prediction_error"]
    assert len(wrong) == len(header)
    assert wrong[-1]
    plain, _ = scored(model, table)
    assert [[*row[: -len(shares) - 3], *row[-2:]] for row in rows_of(sink.getvalue())] == rows_of(plain)


def test_new_columns_never_have_the_name_of_another() -> None:
    once = added_columns(["x"], ["a", "a_2"]).names
    header = ["x", *once]

    twice = added_columns(header, ["a", "a_2"]).names
    thrice = added_columns([*header, *twice], ["a", "a_2"]).names

    assert once == ["predicted_label", "probability_a", "probability_a_2", "prediction_notes", "prediction_error"]
    assert len({*header, *twice, *thrice}) == len([*header, *twice, *thrice])
    explained = added_columns(["contribution_base"], ["a"], explained=["base", "x"]).names
    assert explained[2:-2] == ["contribution_base_2", "contribution_base_3", "contribution_x"]


def test_what_was_scored_can_be_scored_again(model: LoadedModel) -> None:
    once, _ = scored(model, f"{HEADER}\n{GOOD}\n5.6,x,4.2,1.3\n")

    twice, bad = scored(model, once)

    (header, good, wrong) = rows_of(twice)
    assert len(set(header)) == len(header) == 16
    assert good[4:10] == good[10:]
    assert wrong[4:10] == wrong[10:]
    assert [row.line for row in bad] == [3]


FORMULAS = {
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    "@SUM(A1)": "'@SUM(A1)",
    " =1": "' =1",
    "\ufeff=1": "'\ufeff=1",
    "\tx": "'\tx",
    "\t=1": "'\t'=1",
    "\rx": "'\rx",
    "\nx": "'\nx",
    "\uff1d1+1": "'\uff1d1+1",
    "a;=1+1": "a;'=1+1",
    "a\n-x": "a\n'-x",
    "+34 600 123": "'+34 600 123",
    "-inf": "'-inf",
}
HARMLESS = [
    "",
    "-",
    "=",
    "--"[0],
    "-1.5",
    "+1e-3",
    "-1,5",
    " -2",
    "\t2",
    "a-b",
    "a=b",
    "'=1",
    "2020-01-02",
    "a;-1",
    "x\ny",
]


@for_each("cell", FORMULAS)
def test_text_that_may_be_a_formula_is_marked(cell: str) -> None:
    assert guard(cell) == FORMULAS[cell]


@for_each("cell", HARMLESS)
def test_numbers_and_other_text_stay_as_they_are(cell: str) -> None:
    assert guard(cell) == cell


cells = st.text(st.sampled_from('=+-@\t\r\n,;" 1x\uff1d'), max_size=6)


@given(rows=st.lists(st.tuples(cells, st.sampled_from([GOOD, "x,=1,1,1", "-1,1,1,1"]), cells), max_size=5))
def test_every_cell_that_comes_out_guarded_is_safe(model: LoadedModel, rows: list[tuple[str, str, str]]) -> None:
    source = io.StringIO(newline="")
    table = [[before, *numbers.split(","), after] for before, numbers, after in rows]
    csv.writer(source).writerows([["=a", *HEADER.split(","), "+b"], *table])

    out = rows_of("".join(fed(model, source.getvalue(), guarded=True)))

    assert [row[:6] for row in out] == [
        [guard(cell) for cell in row] for row in [["=a", *HEADER.split(","), "+b"], *table]
    ]
    assert all(guard(cell) == cell or cell.startswith("'") for row in out for cell in row)


def test_labels_that_are_formulas_are_marked_as_cells_are(tmp_path: Path) -> None:
    labels = ["=1+1"] * 9 + ["-2"] * 11
    (tmp_path / "t.csv").write_text("@x,y\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels)))
    trained = fitting.fit(read_dataset(tmp_path / "t.csv").dataset, Recipe(n_estimators=2))
    model = writing.write(writing.model_of(trained), tmp_path / "t.npz", trained=trained)

    plain, guarded = (rows_of("".join(fed(model, "@x\n1\n18\n=2\n", guarded=guarded))) for guarded in (False, True))

    assert [row[:2] for row in plain[1:]] == [["1", "=1+1"], ["18", "-2"], ["=2", ""]]
    assert [row[:2] for row in guarded] == [["'@x", "predicted_label"], ["1", "'=1+1"], ["18", "-2"], ["'=2", ""]]
    assert guarded[3][-1] == "'@x: '=2' is not a number"


@pytest.mark.parametrize("mark", ["-1", "=" + " ", "-1.", "- ,", "-1e+"])
def test_a_long_cell_is_looked_at_for_formulas_in_no_time(mark: str) -> None:
    started = time.process_time()

    guard(mark + mark[-1] * 100_000 + "a")

    assert time.process_time() - started < 0.5


@given(cell=st.text(st.sampled_from("=+-@\t\r\n,;\" 1x'\0\u200b\uff1d"), max_size=8))
def test_a_cell_that_was_marked_stays_as_it_is(cell: str) -> None:
    assert guard(guard(cell)) == guard(cell)
