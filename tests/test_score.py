"""Scoring a CSV file: the input as it came, with answers added; bad rows told by their line, and memory that stays."""

from __future__ import annotations

import csv
import io
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import training
from ml.card import Recipe
from ml.classifier import Classifier
from ml.csvfile import read_csv
from ml.errors import DatasetError
from ml.score import CHUNK_ROWS, BadRow, Scored, score

ROOT = Path(__file__).parent.parent
HEADER = "sepal length,sepal width,petal length,petal width"
ADDED = "predicted_label,probability_setosa,probability_versicolor,probability_virginica"
VERSICOLOR = "versicolor,0.0,1.0,0.0"
GOOD = "5.6,2.7,4.2,1.3"
MILLION = 1_000_000


def scored(model: Classifier, text: str) -> tuple[str, list[BadRow]]:
    """Return what comes out, and the rows that were bad."""
    sink, bad = io.StringIO(newline=""), list[BadRow]()
    result = score(model, io.StringIO(text, newline=""), sink, on_bad=bad.append)
    assert result.bad == len(bad)
    return sink.getvalue(), bad


def lines_of(model: Classifier, *lines: str) -> tuple[list[str], list[BadRow]]:
    text, bad = scored(model, "".join(line + "\n" for line in lines))
    assert text.endswith("\n")
    return text.split("\n")[:-1], bad


def rows_of(text: str, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


def refusal_of(model: Classifier, text: str) -> str:
    with pytest.raises(DatasetError) as caught:
        scored(model, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_comes_in_goes_out_with_the_answer_added(model: Classifier) -> None:
    lines, bad = lines_of(model, HEADER, GOOD, "5.10,3.5,1.4,.2")

    assert lines == [f"{HEADER},{ADDED}", f"{GOOD},{VERSICOLOR}", "5.10,3.5,1.4,.2,setosa,1.0,0.0,0.0"]
    assert bad == []


def test_columns_may_stand_in_any_order_among_others(model: Classifier) -> None:
    header = "id,Petal Width (cm),note,sepal_length,PETAL LENGTH,,sepal  width [cm]"

    lines, bad = lines_of(model, header, '7,1.3,"a, b",5.6,4.2,,2.7', "8,1.3,é <b>,5.6,4.2,x,2.7")

    assert lines == [
        f"{header},{ADDED}",
        f'7,1.3,"a, b",5.6,4.2,,2.7,{VERSICOLOR}',
        f"8,1.3,é <b>,5.6,4.2,x,2.7,{VERSICOLOR}",
    ]
    assert bad == []


@pytest.mark.parametrize("separator", [";", "\t"])
def test_the_separator_is_kept_and_a_decimal_comma_read(model: Classifier, separator: str) -> None:
    lines, bad = lines_of(
        model,
        HEADER.replace(",", separator),
        separator.join(["5,6", "2,7", "4,2", "1,3"]),
        GOOD.replace(",", separator),
    )

    assert lines[0] == f"{HEADER},{ADDED}".replace(",", separator)
    assert lines[1].split(separator) == ["5,6", "2,7", "4,2", "1,3", "versicolor", "0.0", "1.0", "0.0"]
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
    ",,,": "sepal length is missing; sepal width is missing; petal length is missing",
}


@pytest.mark.parametrize("row", BAD)
def test_a_bad_row_is_told_by_its_line_and_left_blank(model: Classifier, row: str) -> None:
    lines, bad = lines_of(model, HEADER, GOOD, row, GOOD)

    assert bad == [BadRow(3, BAD[row])]
    assert lines[1] == lines[3] == f"{GOOD},{VERSICOLOR}"
    assert lines[2].startswith(row + ",")
    assert lines[2].count(",") == max(row.count(","), 3) + 4
    assert lines[2].removeprefix(row).strip(",") == ""


def test_the_lines_of_bad_rows_count_blank_lines_and_quoted_line_breaks(model: Classifier) -> None:
    header = f'"no\nte",{HEADER}'
    text = "\n".join(
        [header, "", f'"a\nb\r\nc",{GOOD}', "x,?,,,", "", f'"d\re",{GOOD}', f'"f\n",{GOOD},9', "", "g,h,i,j,k", ""]
    )

    out, bad = scored(model, text)

    assert [row.line for row in bad] == [7, 11, 14]
    assert [row[0] for row in rows_of(out)] == ["no\nte", "a\nb\r\nc", "x", "d\re", "f\n", "g"]


@pytest.mark.parametrize("before", [CHUNK_ROWS - 2, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1])
def test_the_lines_of_bad_rows_are_right_across_chunks(model: Classifier, before: int) -> None:
    many = [GOOD] * before

    _, bad = lines_of(model, HEADER, *many, "?,1,1,1", "", *many, '"?\n?",1,1,1', "?,2,2,2")

    assert [row.line for row in bad] == [before + 2, 2 * before + 4, 2 * before + 6]


def test_windows_line_ends_and_a_missing_last_one_are_read(model: Classifier) -> None:
    out, bad = scored(model, f"{HEADER}\r\n{GOOD}\r\n\r\n{GOOD}")

    assert rows_of(out)[1:] == [[*GOOD.split(","), *VERSICOLOR.split(",")]] * 2
    assert bad == []


def test_a_table_without_rows_gives_its_header(model: Classifier) -> None:
    assert lines_of(model, HEADER) == ([f"{HEADER},{ADDED}"], [])


REFUSED = {
    "": "no header row: the file is empty",
    "\n": "no header row: line 1 is blank",
    "a,b\n1,2\n": "no column is called 'sepal length': a, b",
    f"{HEADER},Petal Width (m)\n": "2 columns are called 'petal width': "
    "sepal length, sepal width, petal length, petal width, Petal Width (m)",
    "sepal length\n1\n": "the header has only one column, 'sepal length': separate by comma, semicolon or tab",
    f'"{HEADER}\n{GOOD}\n': "line 1: a quote in the header is not closed",
    f"{HEADER},n\n{GOOD},{'x' * 200_000}\n": "line 2: field larger than field limit (131072)",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:20]))
def test_a_file_that_is_no_table_of_these_features_is_refused(model: Classifier, text: str) -> None:
    assert refusal_of(model, text) == REFUSED[text]


@pytest.mark.parametrize("before", [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS])
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quote_that_swallows_all_rows_after_it_is_refused(
    model: Classifier, before: int, after: int, end: str
) -> None:
    # In the last column the row would be good, and the others would be gone without a word.
    rows = [f"{GOOD},x"] * before + [f'{GOOD},"x'] + [f"{GOOD},x"] * after

    message = refusal_of(model, "\n".join([f"{HEADER},note", *rows]) + end)

    assert message == f"line {before + 2}: a quote is opened and never closed"


def test_a_quote_inside_a_cell_is_a_character(model: Classifier) -> None:
    out, bad = scored(model, f'{HEADER},5" pipe\n{GOOD},6" long\n{GOOD},"say ""x"""\n')

    assert [row[4] for row in rows_of(out)] == ['5" pipe', '6" long', 'say "x"']
    assert bad == []


def test_a_model_of_one_feature_scores_a_file_of_one_column(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("x,y\n" + "".join(f"{n},{'low' if n < 9 else 'high'}\n" for n in range(20)))
    trained = training.fit(read_csv(tmp_path / "one.csv").dataset, Recipe(trees=2))
    model = training.write(training.model_of(trained), tmp_path / "one.npz", trained=trained)

    lines, bad = lines_of(model, "x", "1", "", "18", "?")

    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "low"], ["18", "high"], ["?", ""]]
    assert [row.line for row in bad] == [5]


numbers = st.one_of(
    st.floats(0, 8).map(str),
    st.decimals(0, 8, places=1).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(
        ["", " 1.5 ", "1,5", "1.234,5", "+.5", "5.", "1_0", "0x1", "1e400", "1e-400", "−1", "x", "\t2", "-0"]
    ),
    st.text(max_size=4),
)


@settings(deadline=None, max_examples=200)
@given(table=st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=12))
def test_every_row_has_the_answer_of_predict_and_the_message_of_the_validator(
    model: Classifier, table: list[list[str]]
) -> None:
    source = io.StringIO(newline="")
    csv.writer(source).writerows([HEADER.split(","), *table])
    expected = []
    for cells in table:
        try:
            answer = model.predict(model.validator.row(cells))
            expected.append((answer.label, *map(repr, answer.probabilities)))
        except Exception as error:
            expected.append(("", "", "", "", str(error)))

    out, bad = scored(model, source.getvalue())

    messages = iter(bad)
    found = [(*row[4:], *([] if row[4] else [next(messages).message])) for row in rows_of(out)[1:]]
    assert found == expected
    assert [row[:4] for row in rows_of(out)[1:]] == table


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.sampled_from('",;\t\n\r1.5x é'), max_size=60), with_header=st.booleans())
def test_any_text_is_scored_or_refused(model: Classifier, text: str, with_header: bool) -> None:
    source = io.StringIO(f"{HEADER}\n{text}" if with_header else text, newline="")
    sink = io.StringIO(newline="")

    try:
        result = score(model, source, sink, on_bad=lambda _bad: None)
    except DatasetError:
        return

    assert len(rows_of(sink.getvalue())) == result.rows + 1, "each row is still one row for who reads it next"


def run(*arguments: str | Path, cwd: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ml", "score", *map(str, arguments)], input=stdin, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip


TABLE = f"{HEADER}\n{GOOD}\n?,1,1,1\n"
ANSWERS = f"{HEADER},{ADDED}\n{GOOD},{VERSICOLOR}\n?,1,1,1,,,,\n"


def test_a_file_becomes_a_file_and_bad_rows_are_told(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(TABLE)

    done = run(model_path, "rows.csv", "--out", "out.csv", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "out.csv").read_text() == ANSWERS
    assert done.stderr.decode().splitlines() == [
        "line 3: sepal length: '?' is not a number",
        "1 of 2 rows have no answer and were left blank",
    ]


def test_a_dash_reads_standard_input_and_writes_standard_output(model_path: Path, tmp_path: Path) -> None:
    done = run(model_path, "-", cwd=tmp_path, stdin=b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode())

    assert (done.returncode, done.stdout.decode()) == (0, ANSWERS)
    assert os.listdir(tmp_path) == []


def test_bytes_that_are_no_text_pass_through(model_path: Path, tmp_path: Path) -> None:
    done = run(model_path, "-", "--out", "-", cwd=tmp_path, stdin=f"{HEADER},né\n{GOOD},é\n".encode("latin-1"))

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("latin-1") == f"{HEADER},né,{ADDED}\n{GOOD},é,{VERSICOLOR}\n"


def test_strict_stops_at_the_first_bad_row_and_leaves_no_file(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(TABLE)
    (tmp_path / "out.csv").write_text("older")

    done = run(model_path, "rows.csv", "--out", "out.csv", "--strict", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == "error: line 3: sepal length: '?' is not a number\n"
    assert (tmp_path / "out.csv").read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "rows.csv"]


@pytest.mark.parametrize("name", ["rows.csv", "./rows.csv", "link.csv"])
def test_a_file_is_not_scored_into_itself(model_path: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.csv").write_text(TABLE)
    (tmp_path / "link.csv").symlink_to("rows.csv")

    done = run(model_path, "rows.csv", "--out", name, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == b"error: rows.csv is the input as well: name another file for the output\n"
    assert (tmp_path / "rows.csv").read_text() == TABLE


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
        (".", "out.csv", ".: Is a directory"),
        ("rows.csv", "missing/out.csv", "missing/out.csv cannot be written: No such file or directory"),
        ("rows.csv", ".", ". cannot be written: Is a directory"),
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
def test_rows_that_need_quotes_are_written_as_csv_writes_them(model: Classifier, cell: str) -> None:
    (first, *_), *others = rows_of(f"{cell}\n")
    assert not others

    out, bad = scored(model, f"note,{HEADER}\n" + f"{cell},{GOOD}\n" * (CHUNK_ROWS + 3) + f"x,{GOOD}\n")

    assert rows_of(out)[1:] == [
        [note, *GOOD.split(","), *VERSICOLOR.split(",")] for note in [first] * (CHUNK_ROWS + 3) + ["x"]
    ]
    assert bad == []


def test_labels_and_headers_are_quoted_where_they_must_be(tmp_path: Path) -> None:
    cells = ['"a, b"'] * 9 + ['"say ""c"""'] * 11
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)))
    trained = training.fit(read_csv(tmp_path / "t.csv").dataset, Recipe(trees=2))
    model = training.write(training.model_of(trained), tmp_path / "t.npz", trained=trained)

    rows = rows_of(scored(model, '"x"\n1\n18\n')[0])

    assert rows[0] == ["x", "predicted_label", "probability_a, b", 'probability_say "c"']
    assert [row[1] for row in rows[1:]] == ["a, b", 'say "c"']


def test_progress_adds_up_to_the_rows(model: Classifier) -> None:
    steps: list[int] = []
    n = 2 * CHUNK_ROWS + 5
    source = io.StringIO(HEADER + "\n" + f"{GOOD}\n\n" * n, newline="")

    result = score(model, source, io.StringIO(newline=""), on_bad=lambda _bad: None, on_rows=steps.append)

    assert result == Scored(n, 0)
    assert sum(steps) == n
    assert len(steps) > 2
