"""Excel files: cells as text, what is left out and said, files that take too much, and sheets that are scored."""

from __future__ import annotations

import asyncio
import datetime
import io
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import openpyxl
import psutil
import pytest
from starlette.testclient import TestClient

from ml.__main__ import main
from ml.errors import TableError
from ml.model.loaded import LoadedModel
from ml.tables.files import read_table
from ml.tables.sheet import MAX_ROWS
from ml.tables.table import Bounds, Table
from ml.tables.workbook import options_of
from tests.conftest import ROOT
from tests.tables import GOOD, HEADER, guarded
from tests.test_modelfile import archive_that_lists
from tests.test_score_stream import Answer, converse
from web.app import create_app
from web.scoring.scored_file import OpenFiles
from web.scoring.uploaded_file import EXCEL
from web.settings import Settings

SHEET = "xl/worksheets/sheet1.xml"
VALUES = [float(cell) for cell in GOOD.split(",")]


def workbook(*sheets: list[list[Any]]) -> bytes:
    """Return an Excel file with these rows on its sheets, called one, two and so on."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in zip(["one", "two", "three"], sheets, strict=False):
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def changed(content: bytes, member: str, change: Callable[[bytes], bytes]) -> bytes:
    """Return an Excel file with one of its parts changed."""
    result = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == member else old.read(name))
    return result.getvalue()


def read(directory: Path, content: bytes, **options: Any) -> Table:
    path = directory / "table.xlsx"
    path.write_bytes(content)
    return read_table(path, **options)


def columns_of(table: Table) -> dict[str, list[str]]:
    return {name: column.tolist() for name, column in zip(table.header, table.columns, strict=True)}


def error_of(directory: Path, content: bytes, **options: Any) -> str:
    with pytest.raises(TableError) as caught:
        read(directory, content, **options)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"{directory / 'table.xlsx'}: ")


def test_cells_become_text_by_their_type(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["day", "time", "x", "n", "ok", "word"],
        [datetime.date(2024, 1, 31), datetime.time(9, 30), 0.1, 3, True, " a b "],
        [datetime.datetime.fromisoformat("2024-02-01T12:05:00"), None, -1e-7, 3.0, False, "1,5"],
    ]

    table = read(tmp_path, workbook(rows))

    assert columns_of(table) == {
        "day": ["2024-01-31", "2024-02-01T12:05:00"], "time": ["09:30:00", ""], "x": ["0.1", "-1e-07"],
        "n": ["3", "3"], "ok": ["TRUE", "FALSE"], "word": ["a b", "1,5"],
    }  # fmt: skip
    assert table.has_types
    assert table.lines.tolist() == [2, 3]


def test_errors_and_formulas_without_a_value_are_no_value_and_said(tmp_path: Path) -> None:
    content = workbook([["x", "y", "kind"], [1, "#DIV/0!", "a"], ["=1+1", 2, "b"], [3, "#N/A", "c"]])

    table = read(tmp_path, content)

    assert columns_of(table) == {"x": ["1", "", "3"], "y": ["", "2", ""], "kind": ["a", "b", "c"]}
    assert "cells with an error are taken as no value: 2, as #DIV/0!" in table.inferred
    assert any(
        sentence.startswith("formulas that no program has calculated are taken as no value: 1")
        for sentence in table.inferred
    )


def test_a_formula_has_the_value_that_was_calculated_last(tmp_path: Path) -> None:
    content = changed(
        workbook([["x", "kind"], ["=1+1", "a"], [3, "b"]]), SHEET, lambda xml: xml.replace(b"<v />", b"<v>2</v>", 1)
    )

    assert columns_of(read(tmp_path, content))["x"] == ["2", "3"]


def test_titles_and_rows_and_columns_of_nothing_are_left_out(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["My study"],
        [],
        [None, "x", None, "kind"],
        [None, 1, None, "a"],
        [],
        [None, 2, None, "b"],
    ]

    table = read(tmp_path, workbook(rows))

    assert columns_of(table) == {"x": ["1", "2"], "kind": ["a", "b"]}
    assert table.lines.tolist() == [4, 6]
    assert "row 1, a title, is left out: 'My study'" in table.inferred
    assert "columns without name and value left out: 2" in table.inferred


@pytest.mark.slow
def test_the_first_sheet_with_cells_is_read_unless_another_one_is_named(tmp_path: Path) -> None:
    content = workbook([], [["x", "kind"], [1, "a"]], [["y", "kind"], [2, "b"]])

    first, named = read(tmp_path, content), read(tmp_path, content, sheet="three")

    assert (first.header, named.header) == (("x", "kind"), ("y", "kind"))
    assert "sheet 'two'" in first.inferred
    assert any("left out: three; --sheet names another one" in sentence for sentence in first.inferred)
    assert error_of(tmp_path, content, sheet="four") == "no sheet is called 'four': one, two, three"


def test_a_cover_is_no_table(tmp_path: Path) -> None:
    content = workbook([["Measurements of the year"]], [["a", "kind"], [1, "x"], [2, "y"]])

    table = read(tmp_path, content)

    assert table.header == ("a", "kind")
    assert any("left out: one; --sheet names another one" in sentence for sentence in table.inferred)


def test_a_sheet_may_lack_its_header(tmp_path: Path) -> None:
    table = read(tmp_path, workbook([["cm", None], [1, "a"], [2, "b"]]), has_header=False)

    assert columns_of(table) == {"column_1": ["cm", "1", "2"], "column_2": ["", "a", "b"]}


PLAIN = workbook([["x", "kind"], [1, "a"], [2, "b"]])
WRONG: dict[str, tuple[bytes, str]] = {
    "cut short": (PLAIN[:2_000], "the zip file is damaged: File is not a zip file"),
    "a document type": (
        changed(PLAIN, SHEET, lambda xml: b'<!DOCTYPE x [<!ENTITY a "b">]>' + xml[xml.index(b"<worksheet") :]),
        f"'{SHEET}' in it has a document type, as no Excel file has",
    ),
    "styles without end": (
        changed(PLAIN, "xl/styles.xml", lambda xml: xml.replace(b"<fonts", b"<z/>" * 5_000_000 + b"<fonts")),
        "'xl/styles.xml' in it is larger than 16777216 bytes",
    ),
    "a row beyond all": (
        changed(PLAIN, SHEET, lambda xml: xml.replace(b'r="3"', b'r="99999999999"')),
        "row 99999999999, column 1: at most 1048576 rows and 10000 columns are read",
    ),
    "broken XML": (changed(PLAIN, SHEET, lambda xml: xml[:300]), "the Excel file cannot be read: "),
    "ragged": (
        workbook([["x", "kind"], [1, "a"], [2, "b", "note"]]), "row 3 has 3 columns, the header has 2"
    ),
    "empty": (workbook([]), "no sheet of the Excel file has cells"),
}  # fmt: skip


# A process is started for each.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("a document type", "ragged") else pytest.mark.slow) for name in WRONG],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str) -> None:
    content, message = WRONG[name]

    assert error_of(tmp_path, content).startswith(message)


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    content = changed(PLAIN, SHEET, lambda xml: xml.replace(b"<sheetData>", b" " * 2**24 + b"<sheetData>"))
    started = time.process_time()

    message = error_of(tmp_path, content, bounds=Bounds(max_bytes=2**22))

    assert message == "larger than 4194304 bytes, unpacked"
    assert time.process_time() - started < 1


@pytest.mark.slow
def test_rows_without_a_value_are_read_up_to_a_limit(tmp_path: Path) -> None:
    content, end = workbook([["a", "b"], [1, 2]]), b"</sheetData>"

    def with_blank(n_rows: int) -> bytes:
        rows = b'<row r="9"/>' * n_rows + end
        return changed(content, "xl/worksheets/sheet1.xml", lambda xml: xml.replace(end, rows))

    assert columns_of(read(tmp_path, with_blank(10_000))) == {"a": ["1"], "b": ["2"]}
    message = f"row 9: more than {MAX_ROWS} rows without a value: delete them"
    assert error_of(tmp_path, with_blank(MAX_ROWS + 1)) == message


@pytest.mark.slow
def test_a_tree_that_no_memory_holds_ends_the_process_that_reads_it_and_nothing_else(tmp_path: Path) -> None:
    content = changed(PLAIN, SHEET, lambda xml: xml.replace(b"<sheetData>", b"<z/>" * 4_000_000 + b"<sheetData>"))

    message = error_of(tmp_path, content, bounds=Bounds(max_bytes=2**24 + 2**16))

    assert "memory" in message


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ("word/document.xml", "a Word document: save the table as CSV"),
        ("content.xml", "an OpenDocument file: save the table as .xlsx or CSV"),
        ("xl/workbook.bin", "a binary Excel file (.xlsb): save it as .xlsx"),
    ],
)
def test_files_of_other_office_programs_are_refused_by_name(tmp_path: Path, member: str, kind: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(member, "x")

    assert error_of(tmp_path, content.getvalue()) == f"this is {kind}"


ROWS: list[list[Any]] = [["note", *HEADER.split(",")], *[[f"=1+{n}" if n % 9 == 0 else n, *VALUES] for n in range(300)]]
ROWS += [["bad\nrow", 5.1, "x", 1, 2], [], ["last", 5.1, 3.5, 1.4, 0.2]]
TABLES = {
    "a table": workbook(ROWS),
    "a title": workbook([["My study"], *ROWS]),
    "only a header": workbook(ROWS[:1]),
}


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_sheet_comes_back_as_the_command_line_scores_it(client: TestClient, model: LoadedModel, table: bytes) -> None:
    expected = guarded(model, table)

    posted = client.post("/score", content=table, headers={"Content-Type": EXCEL.decode()})
    form = client.post("/score", files={"file": ("Table 1.xlsx", table, EXCEL.decode())})
    answer = Answer()
    converse(client, table, [1, 2, 700, 10**6, 1], answer)

    assert posted.status_code == form.status_code == 200
    assert posted.content == form.content == answer.table == expected
    assert form.headers["content-disposition"] == 'attachment; filename="Table 1-predictions.csv"'
    assert [frame["read"] for frame in answer.frames] == [0] * (len(answer.frames) - 1) + [len(table)]
    assert answer.frames[-1]["done"]


def test_the_command_line_scores_a_sheet_from_a_file_and_from_a_pipe(
    model_path: Path, model: LoadedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(workbook([["no", "table"], [1, 2]], ROWS))

    status = main(
        ["score", str(model_path), str(path), "--sheet", "two", "--guarded", "--out", str(tmp_path / "out.csv")]
    )

    assert status == 0
    assert (tmp_path / "out.csv").read_bytes() == guarded(model, TABLES["a table"])
    assert "line 302: sepal width: 'x' is not a number" in capfd.readouterr().err

    piped = subprocess.run(
        [sys.executable, "-m", "ml", "score", str(model_path), "-"], cwd=ROOT, input=path.read_bytes(),
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (piped.returncode, piped.stdout) == (1, b"")
    assert b"error: no column is called 'sepal length': no, table; 3 more features are missing" in piped.stderr


def test_only_an_excel_file_has_sheets(model_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text(f"{HEADER}\n{GOOD}\n")

    assert main(["score", str(model_path), str(tmp_path / "rows.csv"), "--sheet", "one"]) == 1
    assert "error: only an Excel file has sheets" in capfd.readouterr().err


def test_the_lines_of_bad_rows_are_those_of_the_sheet(client: TestClient) -> None:
    answer = Answer()
    converse(client, TABLES["a title"], [10**6, 1], answer)

    (error,) = answer.frames[-1]["errors"]
    assert (error["line"], error["message"]) == (303, "sepal width: 'x' is not a number")


@pytest.mark.slow
def test_a_sheet_over_a_broken_connection_is_sent_again(client: TestClient, model: LoadedModel) -> None:
    answer = Answer()

    converse(client, TABLES["a table"], [1_000] * 3, answer, frames=3)
    assert (answer.resume, answer.read) == ("", 0)
    converse(client, TABLES["a table"], [10**6, 1], answer)

    assert answer.table == guarded(model, TABLES["a table"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (
            workbook([["x", "y"], [1, 2]]),
            "no column is called 'sepal length': x, y; "
            "3 more features are missing: sepal width, petal length, petal width",
        ),
        (PLAIN[:3_000], "the zip file is damaged: File is not a zip file"),
        (WRONG["a document type"][0], WRONG["a document type"][1]),
    ],
)
def test_a_sheet_that_is_no_table_of_the_features_is_refused(client: TestClient, content: bytes, detail: str) -> None:
    posted = client.post("/score", content=content, headers={"Content-Type": EXCEL.decode()})
    answer = Answer()
    converse(client, content, [10**6, 1, 1], answer)

    assert (posted.status_code, posted.json()["detail"]) == (422, detail)
    assert answer.error is not None
    assert answer.error["detail"] == detail


@pytest.mark.slow
def test_the_names_in_a_zip_file_are_read_by_no_process_but_the_sheets(client: TestClient) -> None:
    content = archive_that_lists(100_000, claimed=65_535)
    before = time.process_time()
    posted = client.post("/score", content=content, headers={"Content-Type": EXCEL.decode()})

    assert (posted.status_code, posted.json()["detail"]) == (
        422,
        "the zip file has more than 100 entries: unpack the one with the table",
    )
    assert time.process_time() - before < 0.3  # reading them here takes half a second


@pytest.mark.slow
def test_the_room_on_disk_and_the_size_of_a_sheet_have_a_limit(model_path: Path) -> None:
    settings = Settings(model_file=model_path, max_table_bytes=10_000, max_spool_bytes=100_000)
    table = TABLES["a table"]
    large = workbook([["x"], *[[str(n) * 20] for n in range(20_000)]])
    with TestClient(create_app(settings)) as client:
        too_large = client.post("/score", content=table, headers={"Content-Type": EXCEL.decode()})
        no_room = client.post("/score", content=large, headers={"Content-Type": EXCEL.decode()})
        again = client.post("/score", content=table, headers={"Content-Type": EXCEL.decode()})

    assert (too_large.status_code, too_large.json()["detail"]) == (422, "larger than 10000 bytes, unpacked")
    assert (no_room.status_code, no_room.json()["retry_after_s"]) == (503, 1)
    assert again.status_code == 422, "what waited on disk is gone"


@pytest.mark.slow
def test_the_rows_of_a_sheet_count_for_the_room_on_disk(model_path: Path) -> None:
    header = ["sepal length", "sepal width", "petal length", "petal width"]
    table = workbook([header, *[["5.1", "3.5", "1.4", "0.2"]] * 5_000])
    answers = []
    for room in (len(table) + 5_000, len(table) + 1_000_000):
        with TestClient(create_app(Settings(model_file=model_path, max_spool_bytes=room))) as client:
            answers.append(client.post("/score", content=table, headers={"Content-Type": EXCEL.decode()}))

    assert (answers[0].status_code, answers[0].json()["retry_after_s"]) == (503, 1)
    assert (answers[1].status_code, answers[1].text.count(",setosa,")) == (200, 5_000)


@pytest.mark.slow
def test_the_process_that_reads_a_sheet_ends_when_nobody_wants_it() -> None:
    content = changed(PLAIN, SHEET, lambda xml: xml.replace(b"<sheetData>", b"<z/>" * 8_000_000 + b"<sheetData>"))

    async def leave() -> Any:
        workbook = OpenFiles(Settings()).workbook()
        await workbook.add(content)
        blocks = workbook.blocks()
        others = {*psutil.Process().children()}
        while not (readers := {*psutil.Process().children()} - others):
            assert (await anext(blocks)).rows == []
        workbook.close()
        return readers

    readers = asyncio.run(leave())

    assert psutil.wait_procs(readers, timeout=20)[1] == []


DENIED = """
import os

def denied(_: int) -> int:
    raise PermissionError

os.nice = denied
from ml.tables.sheet import main
main()
"""


@pytest.mark.slow
def test_a_sheet_is_read_where_no_process_may_change_its_priority(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(PLAIN)
    options = msgspec.json.encode(options_of(Bounds(), niceness=10))

    with (tmp_path / "rows.xlsx").open() as file:
        read = subprocess.run([sys.executable, "-c", DENIED, options], cwd=ROOT, stdin=file, stdout=-1, check=True)

    assert b'"rows":[["x","kind"]' in read.stdout
