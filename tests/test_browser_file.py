"""A file on the page, in a real browser on the real server: dropped or chosen, streamed, and taken home as a table."""

from __future__ import annotations

import io
import random
import re
import shutil
import urllib.request
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from playwright.sync_api import Locator, Page, expect

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.tables.dataset import Feature
from ml.training import fitting, iris, writing
from tests.browser import EXAMPLE, Open, field, needs_chromium
from tests.builders import dataset_of
from tests.conftest import free_port, run, run_server
from tests.tables import GOOD, HEADER, SLICE_BYTES, TABLES, guarded

pytestmark = needs_chromium

ROWS = 100_000
# Whose answers are not all there when one looks, and some 40 slices.
SOME_ROWS = 30_000
MOST_HEAP_BYTES = 30e6


@pytest.fixture
def open_page(open_page: Open) -> Open:
    """Opens the page as it is opened first."""
    return partial(open_page, "/", sample={})


GATE = """(answers) => {
    const Native = window.NativeWebSocket ??= window.WebSocket;
    const gate = (window.gate = { left: answers, held: [] });
    window.WebSocket = class extends Native {
        set onmessage(handle) {
            super.onmessage = (event) => {
                const type = typeof event.data === "string" ? JSON.parse(event.data).type : "";
                if (!gate.left && type !== "model") gate.held.push(() => handle(event));
                else {
                    gate.left -= type === "rows";
                    handle(event);
                }
            };
        }
        set onclose(handle) {
            super.onclose = (event) => (gate.held.length ? gate.held.push(() => handle(event)) : handle(event));
        }
    };
}"""


class Gate:
    """Stands before the answers that a page gets: lets some slices through, and keeps the rest until it is opened.

    A connection that ends behind answers that are kept ends for the page after them.
    """

    def __init__(self, page: Page, *, answers: int) -> None:
        self._page = page
        page.evaluate(GATE, answers)

    def open(self) -> None:
        self._page.evaluate("gate.left = 1e9; for (const pass of gate.held.splice(0)) pass();")


def texts_of(page: Page) -> list[str]:
    fields = page.locator("#measurements input[type=text]")
    texts: list[str] = fields.evaluate_all("fields => fields.map(({ value }) => value)")
    return texts


def choose(page: Page, content: str | bytes, name: str = "rows.csv") -> None:
    encoded = content.encode() if isinstance(content, str) else content
    page.set_input_files("#file-input", {"name": name, "mimeType": "text/csv", "buffer": encoded})


def rows_of(page: Page) -> list[str]:
    """Return the line and the prediction of each row in the table."""
    texts: list[str] = page.locator("#file-body tr").evaluate_all(
        "rows => rows.map(({ cells: [line, answer] }) => `${line.textContent} ${answer.textContent.trim()}`)"
    )
    return [text.replace("\u00a0", " ") for text in texts]


def status(page: Page) -> Locator:
    return page.locator("#file-status")


def downloaded(page: Page) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download predictions").click()
    assert download.value.suggested_filename == "rows-predictions.csv"
    return Path(download.value.path()).read_bytes()


def expect_end(page: Page) -> None:
    expect(status(page)).to_have_text(
        re.compile(r"^All of rows.(csv|xlsx) is predicted|^[\d,]+ of [\d,]+ rows"), timeout=60_000
    )


def table_of(rows: int) -> bytes:
    """Return many rows, with columns that nobody needs in front, between and behind, and a bad row now and then."""
    rng = random.Random(0)
    lines = ["id;petal width;Sepal Length (cm);note;petal length (cm);sepal width [cm];=1+1"]
    for number in range(rows):
        values = [f"{rng.uniform(0, 8):.2f}" for _ in range(4)]
        if number % 9_973 == 5:
            values[number % 4] = rng.choice(["", "abc", "-1", "1e40", "=2"])
        note = '"=HYPERLINK(""http://x"");\n<b>"' if number % 50 == 0 else "año"
        lines.append(";".join([str(number), *values[:2], note, *values[2:], "+x"]))
    return "\r\n".join(lines).encode()


@pytest.fixture(scope="module")
def table() -> bytes:
    return table_of(SOME_ROWS)


@pytest.fixture(scope="module")
def predicted(model: LoadedModel, table: bytes) -> bytes:
    return guarded(model, table)


# From file to table


def test_a_hundred_thousand_rows_stay_smooth_and_give_the_table_of_the_command_line(
    open_page: Open, model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_bytes(table_of(ROWS))
    expected = tmp_path / "expected.csv"
    page = open_page()
    before = page.locator("*").count()
    page.evaluate(
        """() => {
            window.answers = [];
            const progress = document.getElementById("file-progress");
            document.getElementById("prediction").addEventListener("htmx:afterSwap", (event) =>
              answers.push([event.detail.requestConfig.formData.get("petal_width"), progress.value]));
        }"""
    )

    page.set_input_files("#file-input", tmp_path / "rows.csv")
    page.locator("input[name=petal_width]").focus()
    page.keyboard.press("End")
    for number, key in enumerate("234", 1):
        page.keyboard.press(key)
        page.wait_for_function("(number) => answers.length === number", arg=number)  # each key has its answer
    expect_end(page)

    command_line = run("score", model_path, "rows.csv", "--guarded", "--out", expected, cwd=tmp_path)
    assert command_line.returncode == 0
    assert downloaded(page) == expected.read_bytes()
    answers = page.evaluate("answers")
    assert [text for text, _ in answers][-1] == "1.3234"
    assert len(answers) == 3
    assert all(share < 1 for _, share in answers), "while the file was on its way"
    assert page.locator("*").count() < before + 800
    expect(page.locator("#file-rows")).to_have_text("100,000")
    counts = [int(text.replace(",", "")) for text in page.locator("#file-counts td").all_inner_texts()]
    assert sum(counts) == ROWS - int(page.locator("#file-bad").inner_text())
    expect(page.locator(".file b, .file img")).to_have_count(0)


# Passes on what the page makes an address of, for a download, as text of one character a byte.
NEXT_FILE = """() => {
    window.addressOf ??= URL.createObjectURL;
    window.made = new Promise((take) => URL.createObjectURL = (file) => {
        take(file.arrayBuffer());
        return addressOf(file);
    }).then((bytes) => new TextDecoder("x-user-defined").decode(bytes));
}"""


def test_any_table_comes_back_as_every_channel_gives_it(open_page: Open, model: LoadedModel) -> None:
    page = open_page()
    for name, content in TABLES.items():
        page.evaluate(NEXT_FILE)
        choose(page, content)
        made = page.evaluate("made")
        assert bytes(ord(character) & 0xFF for character in made) == guarded(model, content), name


def test_bad_rows_are_listed_by_line_and_reason_up_to_fifty(open_page: Open) -> None:
    page = open_page()
    reasons = ["?,,3,4", "-1,2,3,1e99", "1,2,3", "<b>x</b>,2,3,4"]

    choose(page, "\n".join([HEADER, *reasons, GOOD, *["x,1,1,1"] * 200, GOOD]))

    expect(status(page)).to_have_text("2 of 206 rows are predicted; without a prediction: 204.")
    expect(page.locator("#file-rows")).to_have_text("206")
    expect(page.locator("#file-bad")).to_have_text("204")
    listed = rows_of(page)
    assert listed[:4] == [
        "2 sepal length: “?” is not a number; sepal width is missing",
        "3 sepal length: “-1” is outside the limits; petal width: “1e99” is too large",
        "4 3 columns, the header has 4",
        "5 sepal length: “<b>x</b>” is not a number",
    ]
    assert len(listed) == 50
    expect(page.locator("#file-listed")).to_have_text(
        "50 of 206 rows: those without a prediction first, then the least sure."
    )
    expect(page.locator("#file-body [data-wrong]:nth-child(n + 3)").first).to_have_text("?")
    expect(page.get_by_role("button", name="Line 4:")).to_be_disabled()
    expect(page.locator("#announcement")).to_have_text(
        "2 of 206 rows are predicted; without a prediction: 204. Rows: 206. Rows without a prediction: 204."
    )


def test_a_line_end_across_slices_is_one(open_page: Open) -> None:
    page = open_page()
    start = f"{HEADER},x\r\n{GOOD},"
    padded = start + "x" * (SLICE_BYTES - 1 - len(start))

    choose(page, f"{padded}\r\n?,2,3,4,y\r\n")

    expect_end(page)
    assert rows_of(page) == ["3 sepal length: “?” is not a number", "2 versicolor 100%"]


def test_a_model_of_one_feature_without_a_map_gives_rare_labels_their_digits(open_page: Open, tmp_path: Path) -> None:
    rows = np.arange(80_000.0).reshape(-1, 1)
    classes = (rows[:, 0] >= 40_000).astype(np.intp)
    classes[10_000:10_003] = 1
    data = dataset_of(rows, classes, features=(Feature(key="x", title="x", unit=""),), labels=("a", "b"), name="one")
    trained = fitting.fit(data, Recipe(estimator="decision-tree", max_depth=1))
    path = tmp_path / "one.npz"
    writing.write(writing.model_of(trained), path, trained=trained)
    content = b"X\n1\n70000\n"
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(path)) as server:
        page = open_page(url=server.url)
        choose(page, content)
        expect(status(page)).to_have_text("All of rows.csv is predicted.")
        table = downloaded(page)

    assert b"e-05" in table
    assert table == guarded(load_model(path), content)


REFUSED = {
    "": "no header row: the file is empty",
    "a\0,b\n": "not text",
    "petal width,sepal length,<img src=x>\n1,2,3\n": (
        "no column is called 'sepal width': petal width, sepal length, <img src=x>; "
        "one more feature is missing: petal length"
    ),
    f'"{HEADER}\n{GOOD}': "line 1: a quote in the header is not closed",
}


def test_an_excel_file_comes_back_as_csv(open_page: Open, model: LoadedModel) -> None:
    book = openpyxl.Workbook()
    for row in [["note", *HEADER.split(",")], *[["=1+1", 5.6, 2.7, 4.2, 1.3]] * 300, ["x", None, 1, 1, 1]]:
        book.active.append(row)
    content = io.BytesIO()
    book.save(content)
    page = open_page()
    gate = Gate(page, answers=1)
    bar = page.locator("#file-progress")

    choose(page, content.getvalue(), "rows.xlsx")
    expect(bar).to_have_js_property("position", -1)  # at work without an end, until all of it is there
    gate.open()
    expect_end(page)

    expect(bar).to_have_js_property("position", 1)
    expect(page.locator("#file-rows")).to_have_text("301")
    assert rows_of(page)[0] == "302 sepal length is missing"
    assert downloaded(page) == guarded(model, content.getvalue())


def test_the_service_says_why_a_file_is_no_table_of_this_model(open_page: Open) -> None:
    page = open_page()

    for content, reason in REFUSED.items():
        choose(page, content)
        expect(page.locator("#file-reason")).to_have_text(reason)
        expect(status(page)).to_have_text("The service refused the file:")
        expect(page.locator("#announcement")).to_contain_text(f"The service refused the file: {reason}")
        expect(page.get_by_role("link", name="Download predictions")).to_be_hidden()
        expect(page.locator("#file-progress, #file-found")).to_have_count(2)
        expect(page.locator("#file-progress:visible, #file-found:visible")).to_have_count(0)

    expect(page.locator("main img")).to_have_count(0)


def test_what_breaks_off_keeps_the_rows_before(open_page: Open, model: LoadedModel) -> None:
    page = open_page()
    reason = "line 3: a quote is opened and never closed"

    choose(page, f'{HEADER}\n{GOOD}\n"5.6,2.7\n')

    expect(page.locator("#file-reason")).to_have_text(reason)
    assert page.locator("#file-progress").evaluate("(bar) => bar.value") < 1
    assert downloaded(page) == guarded(model, f"{HEADER}\n{GOOD}\n".encode()) + f",,,,,,,,,{reason}\n".encode()


def percent(probability: float) -> str:
    return f"{100 * probability:.1f}%".replace(".0%", "%")


def test_a_row_or_its_mark_fills_the_form_and_can_be_scored_again_in_place(open_page: Open, model: LoadedModel) -> None:
    page = open_page(sample=EXAMPLE, complaint="422")
    unsure, guess = (model.predict(row) for row in ([6.0, 2.7, 5.1, 1.6], [9, 2.7, 4.9, 1.6]))
    assert unsure.label == guess.label == "versicolor"

    choose(page, f"{HEADER}\n{GOOD}\n9,2.7,4.9,1.6\n5.1,3.5,x,0.2\n6.0,2.7,5.1,1.6\n5.1,3.5,1.4,0.2\n")
    expect(status(page)).to_have_text("4 of 5 rows are predicted; without a prediction: 1.")
    assert rows_of(page) == [
        "4 petal length: “x” is not a number",
        f"5 versicolor {percent(max(unsure.probabilities))}",
        f"3 versicolor {percent(max(guess.probabilities))} · a guess: values unlike any in training: 1",
        "6 setosa 100%",
        "2 versicolor 100%",
    ]

    # What is wrong in a row is corrected in the form.
    page.get_by_role("button", name="Line 4").press("Enter")
    expect(page.locator("[name=petal_length]")).to_be_focused()
    assert texts_of(page) == ["5.1", "3.5", "x", "0.2"]
    expect(page.locator("#file-body [aria-current] button")).to_have_text("4")
    expect(page.locator("#file-picked")).to_have_text("Line 4 is in the form: change it there.")
    expect(page.get_by_role("button", name="Score the line again")).to_be_disabled()
    page.locator("[name=petal_length]").fill("1.4")
    expect(page.locator("#file-picked")).to_have_text("The form has other values than line 4:")
    page.get_by_role("button", name="Score the line again").click()
    expect(page.locator("#file-picked")).to_have_text("Line 4: setosa 100% · corrected.")
    expect(page.locator("#announcement")).to_have_text("Line 4: setosa 100% · corrected.")
    assert rows_of(page)[0] == "4 setosa 100% · corrected"
    expect(page.locator("#file-body [data-wrong]")).to_have_count(0)
    page.locator("[name=petal_length]").fill("y")
    page.get_by_role("button", name="Score the line again").click()
    expect(page.locator("#file-picked")).to_have_text("Line 4: petal length: “y” is not a number.")
    expect(page.get_by_role("button", name="Score the line again")).to_be_focused()

    # A mark is the row at its place; the browser's Back undoes it.
    page.locator("#file-filter").select_option("versicolor")
    expect(page.locator("#file-listed")).to_have_text("3 of 3 rows: the least sure first.")
    page.locator("#map-handle").scroll_into_view_if_needed()
    plot = page.locator("#prediction .map").evaluate(
        """map => {
            const [left, top, width, height] = map.dataset.plot.split(" ").map(Number);
            const place = (low, value, high) => (value - low) / (high - low);
            const { xLow, xHigh, yLow, yHigh } = map.dataset;
            const box = map.getBoundingClientRect();
            return [box.x + (left + width * place(+xLow, 0.2, +xHigh)) * box.width / 400,
                    box.y + (top + height * (1 - place(+yLow, 1.4, +yHigh))) * box.width / 400];
        }"""
    )
    page.mouse.click(*plot)
    expect(page.locator("#file-body [aria-current] button")).to_have_text("6")
    assert texts_of(page) == ["5.1", "3.5", "1.4", "0.2"]
    expect(page.locator("#prediction > [data-label]")).to_have_attribute("data-label", "setosa")
    page.go_back()
    expect(page.locator("[name=petal_length]")).to_have_value("y")


# On the way


def test_a_restart_of_the_service_loses_nothing_and_doubles_nothing(
    open_page: Open, model: LoadedModel, model_path: Path, tmp_path: Path
) -> None:
    port, table = free_port(), table_of(ROWS)
    with run_server(tmp_path / "log.txt", port=port, MODEL_FILE=str(model_path)) as first:
        page = open_page(url=first.url, complaint="ERR_|WebSocket|net::")
        choose(page, table)
        page.wait_for_function("() => document.getElementById('file-progress').value > 0.05")
        first.process.kill()
        first.process.wait()
        expect(status(page)).to_have_text("The service does not answer: trying again. Nothing is lost.")
        expect(page.locator("#file-rows")).not_to_have_text(f"{ROWS:,}")
        share = page.locator("#file-progress").evaluate("(bar) => bar.value")
        assert 0 < share < 1

    with run_server(tmp_path / "log.txt", port=port, MODEL_FILE=str(model_path)):
        expect_end(page)

    assert downloaded(page) == guarded(model, table)


def test_a_service_that_asks_for_patience_gets_it(
    open_page: Open, model: LoadedModel, model_path: Path, tmp_path: Path
) -> None:
    content = f"{HEADER}\n{GOOD}\n".encode() + f"{GOOD}\n".encode() * 110_000
    # There are more slices than that, and the page has taken some of what is allowed.
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), RATE_LIMIT="20/2 second") as server:
        page = open_page(url=server.url, complaint="429|WebSocket")
        choose(page, content)
        expect(status(page)).to_have_text("The service is busy: going on in a moment.")
        expect_end(page)

    assert downloaded(page) == guarded(model, content)


def other_model(path: Path, *, seed: int, features: int) -> None:
    """Put another model in the place of the one in this file."""
    data = iris.load_dataset()
    reduced = replace(data, features=data.features[:features], rows=data.rows[:, :features], picture=())
    trained = fitting.fit(reduced, Recipe(seed=seed, n_estimators=5))
    writing.write(writing.model_of(trained), path, trained=trained)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (4, r"^All of rows.csv is predicted\. Two versions of the model answered: \w{12}, \w{12}\.$"),
        (3, r"^The service refused the file:$"),
    ],
)
def test_a_new_model_goes_on_if_it_has_the_same_features_and_stops_otherwise(
    open_page: Open, model_path: Path, tmp_path: Path, features: int, told: str
) -> None:
    path = Path(shutil.copy(model_path, tmp_path / "served.npz"))
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(path), MODEL_CHECK_S="0.05") as server:
        page = open_page(url=server.url)
        gate = Gate(page, answers=1)
        choose(page, f"{HEADER}\n" + f"{GOOD}\n" * 40_000)
        expect(page.locator("#file-rows")).to_have_text("4,091")

        other_model(path, seed=7, features=features)
        version = load_model(path).version
        while version not in urllib.request.urlopen(f"{server.url}/health/ready").read().decode():
            pass
        gate.open()

        expect(status(page)).to_have_text(re.compile(told), timeout=15_000)
        lines = downloaded(page).splitlines()
        assert len(lines) == 40_001 if features == 4 else 4_091 < len(lines) < 40_001

        choose(page, f"{HEADER}\n{GOOD}\n", name="another.csv")
        if features == 4:
            expect(status(page)).to_have_text("All of another.csv is predicted.")
        else:
            expect(status(page)).to_have_text("The model was replaced by another one: reload")
            expect(page.locator("#reload")).to_be_visible()
            assert page.locator(".caption").evaluate("(e) => e.scrollWidth <= e.clientWidth")


def test_cancel_keeps_what_was_answered_and_the_focus(open_page: Open, table: bytes, predicted: bytes) -> None:
    page = open_page()
    gate = Gate(page, answers=3)
    choose(page, table)
    expect(page.locator("#file-rows")).not_to_have_text("0")
    page.wait_for_function("() => document.getElementById('file-progress').value > 0.02")

    page.get_by_role("button", name="Cancel").press("Enter")

    told = "Canceled. What was predicted so far can be downloaded."
    expect(status(page)).to_have_text(told)
    expect(page.locator("#announcement")).to_contain_text(told)
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    expect(page.get_by_role("link", name="Download predictions")).to_be_focused()
    assert 0 < page.locator("#file-progress").evaluate("(bar) => bar.value") < 0.2, "no sign of an end"
    gate.open()
    lines = downloaded(page)
    assert predicted.startswith(lines)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#file-result")).to_be_hidden()
    expect(page.locator("#file-input")).to_be_focused()
    assert page.locator("#file-input").input_value() == ""
    Gate(page, answers=0)
    choose(page, table)
    page.get_by_role("button", name="Cancel").click()
    expect(status(page)).to_have_text("Canceled before any row was predicted.")
    expect(page.locator("#file-progress")).to_be_hidden()


def test_a_second_file_takes_the_place_of_the_first(open_page: Open, model: LoadedModel, table: bytes) -> None:
    page = open_page()
    Gate(page, answers=1)
    choose(page, table)
    expect(page.locator("#file-rows")).not_to_have_text("0")
    Gate(page, answers=10**9)

    choose(page, f"{HEADER}\n{GOOD}\n")

    expect(status(page)).to_have_text("All of rows.csv is predicted.")
    expect(page.locator("#file-rows")).to_have_text("1")
    assert downloaded(page) == guarded(model, f"{HEADER}\n{GOOD}\n".encode())


# For everyone


@pytest.mark.slow
def test_a_file_beyond_the_bound_of_the_heap_leaves_the_memory_of_the_page_small(
    open_page: Open, tmp_path: Path
) -> None:
    row = f"{GOOD},{'x' * 400}\n"
    n_rows = 35_000_000 // len(row)
    (tmp_path / "rows.csv").write_text(f"{HEADER},note\n" + row * n_rows)
    page = open_page(changes_context=True)  # with nothing that an earlier story has left
    session = page.context.new_cdp_session(page)

    page.set_input_files("#file-input", tmp_path / "rows.csv")
    largest = 0.0
    while page.locator("#file-download").is_hidden():
        heap = session.send("Runtime.getHeapUsage")
        largest = max(largest, heap["usedSize"] + heap["backingStorageSize"])
        page.wait_for_timeout(20)  # a sample is all there is

    expect_end(page)
    assert 0 < largest < MOST_HEAP_BYTES
    expect(page.locator("#file-rows")).to_have_text(f"{n_rows:,}")


def test_the_module_for_files_comes_with_the_first_file(open_page: Open) -> None:
    page = open_page()
    loaded = "() => performance.getEntriesByType('resource').filter(({name}) => name.endsWith('/file.js')).length"
    assert page.evaluate(loaded) == 0

    choose(page, f"{HEADER}\n{GOOD}\n")

    expect_end(page)
    assert page.evaluate(loaded) == 1


def test_a_file_that_is_chosen_while_the_service_is_down_waits_for_it(open_page: Open) -> None:
    page = open_page(complaint="net::")
    page.route("**/file.js*", lambda route: route.abort())

    choose(page, f"{HEADER}\n{GOOD}\n")
    expect(status(page)).to_have_text("The service does not answer: trying again. Nothing is lost.")
    page.unroute("**/file.js*")

    expect_end(page)
    expect(page.locator("#file-rows")).to_have_text("1")


def test_a_page_of_another_release_asks_for_a_reload_which_keeps_what_was_entered(open_page: Open) -> None:
    page = open_page()
    field(page).fill("1.7")
    file_of_another_release = 'import { whatThePageLacks } from "./answer.js";'
    page.route("**/file.js*", lambda route: route.fulfill(body=file_of_another_release, content_type="text/javascript"))

    choose(page, f"{HEADER}\n{GOOD}\n")

    expect(status(page)).to_contain_text("choose the file again: what was entered stays")
    page.unroute("**/file.js*")
    page.get_by_role("link", name="Reload the page").click()
    expect(page.locator("#file-result")).to_be_hidden()
    expect(field(page)).to_have_value("1.7")
    choose(page, f"{HEADER}\n{GOOD}\n")
    expect(status(page)).to_contain_text("is predicted")


def test_a_number_that_can_be_read_in_two_ways_says_which_in_each_language(open_page: Open) -> None:
    open_number, mixed = GOOD.replace("5.6", '"1,234"', 1), GOOD.replace("5.6", '"0,5"', 1)
    for lang, reasons in {
        "en": ["can be read as 1.234 or as 1234", "has another decimal mark than the rest of the row"],
        "es": ["puede leerse como 1.234 o como 1234", "tiene otro signo decimal que el resto de la fila"],
    }.items():
        page = open_page(sample={"lang": lang})

        choose(page, f"{HEADER}\n{open_number}\n{mixed}\n")

        lines = page.locator("#file-body tr")
        expect(lines).to_have_count(2)
        for line, reason in zip(lines.all(), reasons, strict=True):
            expect(line).to_contain_text(reason)


def test_points_land_on_the_map_and_move_with_its_axes(open_page: Open) -> None:
    page = open_page()
    picture = "document.getElementById('file-points').toDataURL()"
    blank = page.evaluate(picture)

    choose(page, f"{HEADER}\n{GOOD}\n6.5,3,5.5,2\n")
    expect(status(page)).to_have_text("All of rows.csv is predicted.")
    first = page.evaluate(picture)
    page.locator("select[name=map-x]").select_option("sepal_length")
    page.wait_for_function(f"first => {picture} !== first", arg=first)

    assert first != blank
    page.get_by_role("button", name="Clear").click()
    assert page.evaluate(picture) == blank


def test_a_dropped_file_is_predicted_and_one_beside_the_section_does_no_harm(open_page: Open) -> None:
    page = open_page()
    dropped = page.evaluate_handle(
        """text => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([text], "rows.csv"));
            return dropped;
        }""",
        f"{HEADER}\n{GOOD}\n",
    )
    assert page.evaluate(
        """dropped => ["dragover", "drop"].map((type) => document.querySelector("h1").dispatchEvent(
            new DragEvent(type, { dataTransfer: dropped, bubbles: true, cancelable: true })))""",
        dropped,
    ) == [False, False], "the browser would leave the page"
    expect(page.locator("#file-result")).to_be_hidden()

    page.dispatch_event(".file h2", "dragover", {"dataTransfer": dropped})
    expect(page.locator(".file")).to_have_attribute("data-over", "")
    page.dispatch_event(".file h2", "drop", {"dataTransfer": dropped})

    expect(status(page)).to_have_text("All of rows.csv is predicted.")
    expect(page.locator(".file")).not_to_have_attribute("data-over", "")


def test_the_keyboard_alone_is_enough_on_a_narrow_page(open_page: Open) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, reduced_motion="reduce", forced_colors="active")
    page.on("filechooser", lambda _chooser: None)  # asks Chromium for it well before the key, not at the same time
    page.get_by_label("Choose a CSV or Excel file", exact=True).focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    name = f"<img src=x onerror=alert(1)>{'x' * 100}.csv"
    chooser.value.set_files({"name": name, "mimeType": "text/csv", "buffer": f"{HEADER}\n{GOOD}\n?,1,1,1\n".encode()})
    expect(status(page)).to_have_text("1 of 2 rows are predicted; without a prediction: 1.")
    expect(page.get_by_label("Choose a CSV or Excel file", exact=True)).to_be_focused()

    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Predict the file")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Download a template")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Download predictions")).to_be_focused()
    with page.expect_download():
        page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="Rows by prediction")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="Show")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="2 of 2 rows: those without")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("rowheader", name="Line 3: put it into the form").get_by_role("button")).to_be_focused()
    expect(page.get_by_role("progressbar", name="How much of the file is read")).to_have_attribute("max", "1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    expect(page.locator("main img")).to_have_count(0)


def test_how_a_file_is_read_is_chosen_by_the_keyboard_and_said_on_the_way(open_page: Open) -> None:
    page = open_page()
    page.get_by_text("How the file is read").press("Enter")
    for name, value in (("Decimal mark", ","), ("Thousands mark", "."), ("Encoding of the text", "Windows-1251")):
        page.keyboard.press("Tab")
        chosen = page.get_by_label(name)
        expect(chosen).to_be_focused()
        chosen.select_option(value)
    content = f"{HEADER};жук\n1.005,6;2,7;4,2;1,3;ё\n".replace(HEADER, HEADER.replace(",", ";")).encode("cp1251")

    with page.expect_websocket(lambda websocket: "/score?" in websocket.url) as opened:
        choose(page, content)
    expect_end(page)

    assert opened.value.url.endswith("/score?decimal=%2C&thousands=.&encoding=Windows-1251")
    header, row = downloaded(page).decode().splitlines()
    assert "жук" in header
    assert row.startswith("1.005,6;2,7;4,2;1,3;ё;setosa") or row.startswith("1.005,6;2,7;4,2;1,3;ё;v")


def test_without_javascript_the_form_uploads_the_file(open_page: Open, model: LoadedModel) -> None:
    page = open_page(java_script_enabled=False)
    page.get_by_text("How the file is read").click()
    page.get_by_label("Encoding of the text").select_option("Windows-1252")
    text = f"{HEADER},note\n{GOOD},=1+1\n?,1,1,1,ñ\n"
    content = text.encode("cp1252")
    page.set_input_files("#file-input", {"name": "rows.csv", "mimeType": "text/csv", "buffer": content})

    with page.expect_download() as download:
        page.get_by_role("button", name="Predict the file").click()

    assert download.value.suggested_filename == "rows-predictions.csv"
    assert Path(download.value.path()).read_bytes() == guarded(model, text.encode())
