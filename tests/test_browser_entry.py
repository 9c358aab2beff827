"""Ways to enter a sample beside typing it, in a real browser: sliders, steps, pasted rows, examples, and the map."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from playwright.sync_api import Page, expect
from sklearn.datasets import load_breast_cancer, load_wine

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.model.nearest import nearest_change
from ml.tables.headers import feature_of
from ml.training import fitting, writing
from tests.browser import EXAMPLE, Open, expect_answer, field, needs_chromium, typed
from tests.builders import dataset_of
from tests.conftest import run_server

pytestmark = needs_chromium

KEYS = list(EXAMPLE)


def paste(page: Page, text: str, key: str = "sepal_width") -> None:
    """Paste text into a field, as the clipboard does it."""
    field(page, key).evaluate(
        """(input, text) => {
            const clipboardData = new DataTransfer();
            clipboardData.setData("text/plain", text);
            const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
            input.focus();
            input.select();
            if (input.dispatchEvent(event)) document.execCommand("insertText", false, text);
        }""",
        text,
    )


def shown_address(page: Page) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(page.url).query, keep_blank_values=True))


def spot(page: Page, values: Mapping[str, float]) -> tuple[float, float]:
    """Return where on the window two values are on the map, from the scales that the map brings; all of it is shown."""
    handle = page.locator("#map-handle")
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box
    scales = page.locator("#prediction .map").evaluate("map => ({...map.dataset})")
    left, top, width, height = map(float, scales["plot"].split())
    shares = []
    for axis in "xy":
        low, high = float(scales[f"{axis}Low"]), float(scales[f"{axis}High"])
        shares.append((values[scales[axis]] - low) / (high - low))
    x, y = left + shares[0] * width, top + (1 - shares[1]) * height
    return box["x"] + box["width"] * x / 400, box["y"] + box["height"] * y / 300


# Sliders and steps


def test_a_slider_follows_the_field(visit: Open, model: LoadedModel) -> None:
    page = visit()

    field(page).fill("2,1")

    expect_answer(page, model, EXAMPLE | {"petal_width": "2.1"})
    expect(page.get_by_role("slider", name="petal width")).to_have_value("2.1")


def test_the_field_follows_its_slider_in_steps(visit: Open, model: LoadedModel) -> None:
    page = visit()

    page.get_by_role("slider", name="petal width").fill("1.8437")

    expect(field(page)).to_have_value("1.8")
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.8"})


def test_the_end_of_a_slider_is_no_value_outside_of_the_training_range(visit: Open) -> None:
    page = visit()
    slider = page.get_by_role("slider", name="petal width")
    slider.evaluate("(slider) => [slider.min, slider.max] = [0.14, 2.46]")

    ends = []
    for key in ("Home", "End"):
        slider.press(key)
        ends.append(field(page).input_value())

    assert ends == ["0.2", "2.4"]


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("ArrowUp", "1.3", "1.4"), ("ArrowDown", "1.3", "1.2"), ("Shift+ArrowUp", "1.3", "2.3"),
        ("Alt+ArrowUp", "1.3", "1.31"), ("ArrowUp", "1,25", "1.35"), ("ArrowDown", "0.1", "0.0"),
        ("ArrowUp", "", "1.4"), ("ArrowDown", "0.05", "\u22120.05"), ("ArrowUp", "4.956e\u221207", "0.1000004956"),
        ("Alt+ArrowDown", "0.01004956", "4.956e\u221205"),
        ("ArrowUp", "1.1529215046068475e+18", "1152921504606847500"),
    ],
)  # fmt: skip
def test_arrow_keys_step_a_field(visit: Open, key: str, before: str, after: str) -> None:
    page = visit(sample=EXAMPLE | {"petal_width": before})

    field(page).press(key)

    expect(field(page)).to_have_value(after)


def test_a_step_is_answered_and_keeps_the_focus(visit: Open, model: LoadedModel) -> None:
    page = visit()

    for _ in range(5):
        field(page).press("ArrowUp")

    expect_answer(page, model, EXAMPLE | {"petal_width": "1.8"})
    expect(field(page)).to_be_focused()


def test_arrow_keys_on_a_slider_step_its_field(visit: Open, model: LoadedModel) -> None:
    page = visit()
    slider = page.get_by_role("slider", name="petal width")

    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft"):
        slider.press(key)

    expect(field(page)).to_have_value("1.5")
    expect(slider).to_have_attribute("aria-valuetext", "1.5 cm")
    expect(slider).to_be_focused()
    expect_answer(page, model, EXAMPLE | {"petal_width": "1.5"})


# Whole rows


@pytest.mark.parametrize(
    "text",
    [
        "6.3\t3.3\t6\t2.5", "6.3,3.3,6,2.5", "6,3; 3,3; 6; 2,5", "6.3 3.3 6 2.5", "6.3, 3.3, 6.0, 2.5",
        "  6,3 3,3 6 2,5\n", "6.3,3.3,6.0,2.5,virginica", "6,3;3,3;6;2,5;virginica",
        "\n6.3\t3.3\t6.0\t2.5\r\n1\t2\t3\t4", "6.3\n3.3\n6.0\n2.5\n", "6,3\r\n3,3\r\n\r\n6\r\n2,5",
        "17\n6.3\n3.3\n6\n2.5\nvirginica",
    ],
)  # fmt: skip
def test_a_pasted_row_fills_every_field(visit: Open, model: LoadedModel, text: str) -> None:
    page = visit()

    paste(page, text)

    expect_answer(page, model, dict(zip(KEYS, ["6.3", "3.3", "6", "2.5"], strict=True)))


@pytest.mark.parametrize(
    "text", ["3,3", "3.3", "-1", "abc", "a,b,c,d", "3.3 cm", "[3.3", "{3.3}", "sepal width: 3.3", '"3.3"']
)
def test_what_is_no_row_is_pasted_into_its_field_alone(visit: Open, text: str) -> None:
    page = visit()

    paste(page, text)

    expect(field(page, "sepal_width")).to_have_value(text)
    assert typed(page) == EXAMPLE | {"sepal_width": text}


ROW = {"sepal_length": "6.3", "sepal_width": "3.3", "petal_length": "6", "petal_width": "2.5"}


@pytest.mark.parametrize(
    "text",
    [
        "17,6.3,3.3,6,2.5", "17\t6.3\t3.3\t6\t2.5\tvirginica", "row 17;6,3;3,3;6;2,5;", "virginica,6.3,3.3,6,2.5",
        "17,virginica,6.3,3.3,6,2.5", "0 6.3 3.3 6 2.5", '"17","6.3","3.3","6","2.5","virginica"',
        "6.3 3.3 6 2.5 Iris virginica", "My flowers\n6.3,3.3,6,2.5",
        "petal_width,petal_length,sepal_width,sepal_length\n2.5,6,3.3,6.3",
        "id;Petal width (cm);Petal length (cm);Sepal width (cm);Sepal length (cm);species\n1;2,5;6;3,3;6,3;setosa",
        "\tpetal length\tpetal width\tsepal width\tsepal length\n0\t6\t2.5\t3.3\t6.3",
        "   petal length (cm)  petal width (cm)  sepal width (cm)  sepal length (cm)\n"
        "0                  6               2.5               3.3               6.3",
        "[6.3, 3.3, 6, 2.5]", "[[6.3, 3.3, 6, 2.5]]", '{"sample": [6.3, 3.3, 6, 2.5]}',
        '{"petal_width": 2.5, "petal_length": 6, "sepal_width": 3.3, "sepal_length": 6.3, "species": null}',
        '{"sample": {"petal width (cm)": "2.5", "petal_length": 6, "sepal_width": 3.3, "sepal_length": 6.3}}',
        '{"samples": [{"petal_width": 2.5, "petal_length": 6, "sepal_width": 3.3, "sepal_length": 6.3}]}',
    ],
)  # fmt: skip
def test_a_pasted_row_goes_by_its_names_and_leaves_out_what_is_no_measurement(visit: Open, text: str) -> None:
    page = visit()

    paste(page, text)

    assert {key: value.replace(",", ".") for key, value in typed(page).items()} == ROW
    expect(page.locator("#refusal")).to_be_hidden()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 2", "has 2 values, and 4 are needed"),
        ("1\n2", "has 2 values, and 4 are needed"),
        ("6.3\n5.1\n4.9\n5.8\n6.1\n7", "which of the pasted values"),
        ("6.3,3.3,6", "has 3 values, and 4 are needed"),
        ("1;2;x;4", "the pasted petal length is “x”, which is not a number."),
        ("7;1;2;x;4;setosa", "which of the pasted values"),
        ("a;b;c;d", "the pasted sepal length is “a”, which is not a number."),
        ("Kraków, Stare Miasto\t\t\t", "the pasted sepal length is “Kraków, Stare Miasto”, which is not a number."),
        ("[6.3, 3.3, null, 2.5]", "the pasted row has no value for petal length."),
        ("6.3,3.3,6,2.5,7.1", "which of the pasted values"),
        ("6.3,3.3,6,2.5,2", "which of the pasted values"),
        ("1,2,6.3,3.3,6,2.5", "which of the pasted values"),
        ("1.5,6.3,3.3,6,2.5", "which of the pasted values"),
        ("5,6.3,3.3,6,2.5,9", "which of the pasted values"),
        ("6.3,3.3,x,6,2.5", "which of the pasted values"),
        ("5,5.1,3.5,1.4,9.9", "which of the pasted values"),
        ("5,1,3,5,1,4,0,2", "a comma may separate two values"),
        ("a,b,c,d\n6.3,3.3,6,2.5", "do not include sepal length, sepal width, petal length, petal width."),
        ('{"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6}', "do not include petal width."),
        ("sepal_length,petal_width,sepal_width,petal_length,petal_width\n1,2,3,4,5", "petal width more than once"),
        ("sepal_length,sepal_width,petal_length,petal_width\n6.3,3.3,6,", "no value for petal width."),
        ("sepal_length,sepal_width,petal_length,petal_width\n6.3,3.3,6,2.5,1", "has 5 values, and the line above it 4"),
    ],
)  # fmt: skip
def test_a_row_that_is_not_surely_one_of_this_model_changes_nothing_and_says_why(
    visit: Open, text: str, why: str
) -> None:
    page = visit()
    length = page.evaluate("history.length")
    page.evaluate("shifts.length = 0")

    paste(page, text)

    expect(page.locator("#refusal")).to_contain_text(why)
    expect(page.locator("#refusal")).to_be_in_viewport(ratio=1)
    expect(page.locator("#announcement")).to_contain_text(why)
    assert typed(page) == EXAMPLE
    assert page.evaluate("history.length") == length
    assert page.evaluate("shifts") == []
    page.evaluate("history.replaceState(null, '', location.href); dispatchEvent(new PopStateEvent('popstate'))")
    expect(page.locator("#refusal")).to_be_hidden()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("6.3,3.3,6,2.5\n1,2,3,4\n", 2),
        ("sepal_length\tsepal_width\tpetal_length\tpetal_width\n6.3\t3.3\t6\t2.5" + "\n1\t1\t1\t1" * 29, 30),
        ("[[6.3, 3.3, 6, 2.5], [1, 2, 3, 4]]", 2),
    ],
)
def test_of_several_pasted_rows_the_first_is_taken_and_their_number_is_said(visit: Open, text: str, rows: int) -> None:
    page = visit()

    paste(page, text)

    assert {key: value.replace(",", ".") for key, value in typed(page).items()} == ROW
    expect(page.locator("#refusal")).to_contain_text(f"The first of {rows} pasted rows was taken.")
    field(page, "sepal_width").press("ArrowUp")
    expect(page.locator("#refusal")).to_be_hidden()


def test_a_long_paste_takes_no_longer_than_its_length(visit: Open) -> None:
    page = visit()
    texts = ["1" * 200_000 + "x", "1," * 200_000, ',"a' * 200_000, '"' * 200_000, "(" * 200_000, "[" * 200_000]
    texts += [" " * 200_000 + "x", "1 " * 200_000, "a (" * 100_000, "a\tb\n1\t2\n" * 50_000]

    for text in texts:
        # It takes milliseconds; a quadratic pattern takes more than 20 s.
        assert (
            page.evaluate(
                """async (text) => {
                const { rowIn } = await import(document.querySelector("link[href$='/text.js']").href);
                const fits = () => true;
                const feature = { key: "a", title: "a", low: 0, high: 1, format: {}, fits, mayBe: fits };
                const began = performance.now();
                try { rowIn(text, [feature, { ...feature, key: "b" }], []); } catch {}
                return performance.now() - began;
            }""",
                text,
            )
            < 10_000
        ), text[:9]


@dataclass(frozen=True)
class Wide:
    """A model whose page does not have the fields in the order of the features, and where it is served."""

    model: LoadedModel
    url: str
    keys: list[str]
    row: list[str]
    label: str


@pytest.fixture(scope="module", params=[load_wine, load_breast_cancer], ids=["13 features", "30 features"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wide]:
    table: Any = request.param()
    features = tuple(feature_of(name) for name in table.feature_names)
    labels = tuple(map(str, range(len(table.target_names))))
    dataset = dataset_of(table.data, table.target, features=features, labels=labels, name="wide")
    path = tmp_path_factory.mktemp("wide") / "wide.npz"
    trained = fitting.fit(dataset, Recipe(n_estimators=20))
    model = writing.write(writing.model_of(trained), path, trained=trained)
    with run_server(path.with_suffix(".txt"), MODEL_FILE=str(path)) as server:
        keys = [feature.key for feature in features]
        yield Wide(model, server.url, keys, [f"{value:.10g}" for value in table.data[0]], labels[table.target[0]])


# What does not depend on how many fields there are beside those that are folded away.
MANY = pytest.mark.parametrize("wide", [load_breast_cancer], ids=["30 features"], indirect=True)


def test_a_pasted_row_goes_by_the_order_of_the_features_and_not_of_the_fields(open_page: Open, wide: Wide) -> None:
    sample = dict(zip(wide.keys, wide.row, strict=True))
    mixed = sorted(wide.keys)
    texts = [
        ",".join(wide.row), "\t".join(wide.row).replace(".", ","), json.dumps([float(text) for text in wide.row]),
        ",".join([*wide.row, wide.label]), ",".join(["1", *wide.row]), ";".join(["842302", "M", *wide.row]),
        "\t".join(["7", *wide.row, wide.label]),
        ",".join([*mixed, "id"]) + "\n" + ",".join([*(sample[key] for key in mixed), "1"]),
        json.dumps({"sample": {key: float(sample[key]) for key in mixed}}),
    ]  # fmt: skip
    assert mixed != wide.keys

    page = open_page(url=wide.url, sample={})
    for text in texts if len(wide.keys) == 30 else texts[::4]:  # the order depends on the number of fields, no text
        page.goto(f"{wide.url}/")
        assert list(typed(page)) != wide.keys

        paste(page, text, list(typed(page))[2])

        expect_answer(page, wide.model, sample)
        shown = {key: float(value.replace(",", ".")) for key, value in typed(page).items()}
        assert shown == {key: float(value) for key, value in sample.items()}, text


@MANY
def test_a_field_is_found_by_its_name_and_the_others_are_sent_as_before(open_page: Open, wide: Wide) -> None:
    sample = dict(zip(wide.keys, wide.row, strict=True))
    page = open_page(url=wide.url, sample=sample)
    key = min(wide.keys, key=lambda key: -list(typed(page)).index(key))  # it is folded away
    title = field(page, key).evaluate("input => input.labels[0].textContent")
    find = page.get_by_label("Find a field")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    shown = page.locator("#measurements .field:visible")

    find.press_sequentially(title.upper())

    expect(field(page, key)).to_be_visible()
    assert shown.count() < 12
    expect(page.locator("#found")).to_have_text(f"{shown.count()} of {len(wide.keys)} fields")
    assert requests == [], "a search is no sample"
    find.press("Enter")
    expect(shown.locator("input[type=text]").first).to_be_focused()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type(sample[key])
    expect_answer(page, wide.model, sample)
    assert typed(page) == sample

    find.fill("nothing of this name")
    expect(shown).to_have_count(0)
    page.emulate_media(media="print")
    expect(shown).to_have_count(len(wide.keys))
    page.emulate_media(media="screen")
    find.press("Escape")
    expect(find).to_have_value("")
    expect(shown).to_have_count(12)


@MANY
def test_the_order_of_the_file_is_a_choice_that_a_reload_keeps(open_page: Open, wide: Wide) -> None:
    page = open_page(url=wide.url, sample=dict(zip(wide.keys, wide.row, strict=True)))
    typed_last = next(iter(typed(page)))
    field(page, typed_last).fill("1")

    page.get_by_role("link", name="as in the file").click()

    page.wait_for_url("**field-order=file*")
    assert list(typed(page)) == wide.keys
    expect(field(page, typed_last)).to_have_value("1")
    field(page, typed_last).fill("2")
    page.reload()
    assert list(typed(page)) == wide.keys
    expect(field(page, typed_last)).to_have_value("2")


@MANY
def test_without_scripts_the_order_is_a_choice_and_there_is_no_search(open_page: Open, wide: Wide) -> None:
    page = open_page(url=wide.url, sample={}, java_script_enabled=False)

    page.get_by_role("link", name="as in the file").click()

    expect(page.get_by_label("Find a field")).to_be_hidden()
    names = page.locator("#measurements .entry input").evaluate_all("all => all.map(({ name }) => name)")
    assert names == wide.keys


@MANY
def test_what_the_panel_of_snippets_shows_can_be_pasted(open_page: Open, wide: Wide) -> None:
    page = open_page(url=wide.url, sample=dict(zip(wide.keys, wide.row, strict=True)))
    page.locator("#code > summary").click()
    command = page.locator("#code-curl").text_content() or ""
    body = command[command.index("-d '") + 4 : command.rindex("'")]
    before = typed(page)
    page.locator(".reset").click()
    expect(field(page, wide.keys[0])).not_to_have_value(wide.row[0])

    paste(page, body, wide.keys[0])

    assert typed(page) == before


# Examples, and back again


def test_an_example_of_each_class_is_a_link_that_fills_the_fields(visit: Open, model: LoadedModel) -> None:
    page = visit()
    rows = {
        tuple(row): model.labels[int(label)]
        for row, label in zip(model.reference_rows.tolist(), model.reference_outcomes, strict=True)
    }

    example = {feature.key: str(feature.example) for feature in model.features}

    for label in model.labels:
        link = page.locator(".examples").get_by_role("link", name=label)
        sample = example | dict(parse_qsl(link.evaluate("link => link.search.slice(1)")))
        link.click()

        assert rows[tuple(float(sample[key]) for key in KEYS)] == label, "it is a real row of that class"
        expect_answer(page, model, sample)
        assert typed(page) == sample


def test_an_example_works_without_scripts(open_page: Open, model: LoadedModel) -> None:
    page = open_page(java_script_enabled=False)
    link = page.locator(".examples").get_by_role("link", name="setosa")
    example = {feature.key: str(feature.example) for feature in model.features}
    sample = example | dict(parse_qsl(urlsplit(link.get_attribute("href") or "").query))

    link.click()

    expect_answer(page, model, sample)


def test_back_undoes_what_was_done_in_one_stroke(open_page: Open, model: LoadedModel) -> None:
    page = open_page()
    field(page).fill("2.2")
    page.locator(".examples").get_by_role("link", name="setosa").click()
    paste(page, "6.3,3.3,6,2.5")
    expect(page).to_have_url(re.compile(r"sepal_length=6\.3"))

    page.go_back()
    expect(page.locator("#prediction [data-label]")).to_have_attribute("data-label", "setosa")
    page.go_back()

    sample = EXAMPLE | {"petal_width": "2.2"}
    expect_answer(page, model, sample)
    assert typed(page) == sample
    page.go_forward()
    expect(page.locator("#prediction [data-label]")).to_have_attribute("data-label", "setosa")


def test_reset_brings_the_first_sample_back(visit: Open, model: LoadedModel) -> None:
    page = visit()
    field(page).fill("abc")

    page.locator(".examples .reset").click()

    start = {feature.key: str(feature.example) for feature in model.features}
    expect_answer(page, model, start)
    assert typed(page) == start
    expect(field(page)).not_to_have_attribute("aria-invalid", "true")


def test_the_nearest_change_is_told_and_a_button_applies_it(visit: Open, model: LoadedModel) -> None:
    page = visit()
    change, _ = nearest_change(model, [float(text) for text in EXAMPLE.values()])
    assert change

    title = change.feature.replace("_", " ")
    told = page.locator("#prediction .change")
    expect(told).to_contain_text(f"Becomes {change.label} when {title} rises to {change.value} cm or more")
    told.get_by_role("button").click()

    expect_answer(page, model, EXAMPLE | {change.feature: str(change.value)})
    expect(page.locator("#prediction [data-label]")).to_have_attribute("data-label", change.label)
    page.go_back()
    expect_answer(page, model, EXAMPLE)


def test_a_change_made_by_keyboard_keeps_the_focus(visit: Open, model: LoadedModel) -> None:
    page = visit()
    change, _ = nearest_change(model, [float(text) for text in EXAMPLE.values()])
    assert change

    button = page.locator("#prediction .change").get_by_role("button")
    button.press("Enter")

    expect_answer(page, model, EXAMPLE | {change.feature: str(change.value)})
    expect(button).to_be_focused()


# The map


def test_the_map_moves_with_every_key(visit: Open) -> None:
    page = visit()
    before = page.locator("#prediction .sample").get_attribute("cx")

    field(page).press("ArrowUp")

    expect(page.locator("#prediction .sample")).not_to_have_attribute("cx", str(before))


def test_a_click_on_the_map_sets_both_features(open_page: Open, model: LoadedModel) -> None:
    page = open_page(viewport={"width": 1280, "height": 900})

    page.mouse.click(*spot(page, {"petal_width": 0.3, "petal_length": 1.5}))

    sample = EXAMPLE | {"petal_length": "1.5", "petal_width": "0.3"}
    expect_answer(page, model, sample)
    assert typed(page) == sample
    page.go_back()
    expect_answer(page, model, EXAMPLE)


def test_dragging_on_the_map_is_answered_all_the_way(open_page: Open, model: LoadedModel) -> None:
    page = open_page(viewport={"width": 1280, "height": 900})
    page.mouse.move(*spot(page, {"petal_width": 1.3, "petal_length": 4.2}))
    page.mouse.down()

    for width, length in ((1.6, 5.0), (2.0, 5.5), (2.3, 6.0)):
        page.mouse.move(*spot(page, {"petal_width": width, "petal_length": length}))
        expect_answer(page, model, EXAMPLE | {"petal_length": str(length), "petal_width": str(width)})
    page.mouse.up()
    page.mouse.move(*spot(page, {"petal_width": 1.0, "petal_length": 2.0}))

    page.wait_for_url(f"**/?{urlencode(EXAMPLE | {'petal_length': '6.0', 'petal_width': '2.3'})}")


def test_arrow_keys_move_the_point_on_the_map_and_keep_the_focus(visit: Open, model: LoadedModel) -> None:
    page = visit()
    handle = page.locator("#map-handle")
    handle.focus()

    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)

    expect_answer(page, model, EXAMPLE | {"petal_width": "1.4", "petal_length": "4.1"})
    expect(handle).to_be_focused()


def test_other_features_can_be_put_on_the_map_and_the_address_tells_it(open_page: Open, model: LoadedModel) -> None:
    page = open_page(viewport={"width": 1280, "height": 900})
    assert "map-x" not in shown_address(page)

    page.locator("select[name=map-x]").select_option("sepal_length")

    expect(page.locator("#prediction .map")).to_have_attribute("data-x", "sepal_length")
    page.wait_for_url("**map-x=sepal_length*")
    page.reload()
    expect(page.locator("#prediction .map")).to_have_attribute("data-x", "sepal_length")
    expect(page.locator("select[name=map-x]")).to_have_value("sepal_length")
    page.mouse.click(*spot(page, {"sepal_length": 7.0, "petal_length": 6.0}))
    expect_answer(page, model, EXAMPLE | {"sepal_length": "7.0", "petal_length": "6.0"})


def test_a_feature_is_never_on_both_axes(visit: Open) -> None:
    page = visit()
    across, up = (page.locator(f"select[name=map-{axis}]") for axis in "xy")
    expect(across).to_have_value("petal_width")

    across.select_option("petal_length")

    expect(up).to_have_value("petal_width")
    expect(page.locator("#prediction .map")).to_have_attribute("data-x", "petal_length")
    expect(page.locator("#prediction .map")).to_have_attribute("data-y", "petal_width")


def test_the_picture_is_drawn_to_scale(visit: Open) -> None:
    page = visit()
    size = "leaf => { const scale = leaf.transform.baseVal[1].matrix; return [scale.a, scale.d] }"
    page.locator("#prediction .picture .shape-1").first.wait_for()

    sepal = page.locator("#prediction .shape-0").first.evaluate(size)
    petal = page.locator("#prediction .shape-1").first.evaluate(size)

    lengths = [sepal[0], sepal[1], petal[0], petal[1]]
    ratios = [length / float(text) for length, text in zip(lengths, EXAMPLE.values(), strict=True)]
    assert max(ratios) / min(ratios) < 1.05, "one scale for all four"


# Gestures


PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
STARTS = ["map", "track at 50 %", "track at 80 %", "chip"]


def place(page: Page, start: str) -> tuple[float, float]:
    """Return where on the window a gesture begins, and scroll there first."""
    part, _, share = start.partition(" at ")
    selector = {"map": "#map-handle", "track": ".slider", "chip": ".examples a"}[part]
    element = page.locator(selector).last if part == "chip" else page.locator(selector).first
    element.evaluate("element => element.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = element.bounding_box()
    assert box
    return box["x"] + box["width"] * float(share.strip(" %") or 50) / 100, box["y"] + box["height"] / 2


class Finger:
    """One finger on a touch screen, as the browser gets it from the screen: it decides what scrolls."""

    def __init__(self, page: Page, start: tuple[float, float]) -> None:
        self._session = page.context.new_cdp_session(page)
        self.x, self.y = start
        self._send("touchStart")

    def _send(self, kind: str) -> None:
        points = [{"x": self.x, "y": self.y}] if kind in ("touchStart", "touchMove") else []
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def move(self, across: float, up: float) -> None:
        for _ in range(10):
            self.x, self.y = self.x + across / 10, self.y - up / 10
            self._send("touchMove")

    def lift(self) -> None:
        self._send("touchEnd")

    def cancel(self) -> None:
        self._send("touchCancel")


def painted(page: Page) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("start", STARTS)
def test_scrolling_with_a_finger_changes_nothing(open_page: Open, start: str) -> None:
    page = open_page(**PHONE)
    spot_of = place(page, start)
    before = page.evaluate("[history.length, location.href, scrollY]")
    slid = page.locator(".slider").evaluate_all("sliders => sliders.map((slider) => slider.value)")

    finger = Finger(page, spot_of)
    finger.move(5, 200)
    finger.lift()

    page.wait_for_function("before => scrollY > before + 100", arg=before[2])
    painted(page)
    assert typed(page) == EXAMPLE
    assert page.locator(".slider").evaluate_all("sliders => sliders.map((slider) => slider.value)") == slid
    assert page.evaluate("[history.length, location.href]") == before[:2]


@MANY
@pytest.mark.parametrize("start", ["map", "track at 80 %"])
def test_a_page_of_many_fields_is_scrolled_without_a_change(open_page: Open, wide: Wide, start: str) -> None:
    page = open_page(url=wide.url, sample={}, **PHONE)
    before = typed(page), page.evaluate("history.length"), page.evaluate("scrollY")

    finger = Finger(page, place(page, start))
    finger.move(0, 200)
    finger.lift()

    page.wait_for_function("before => scrollY !== before", arg=before[2])
    painted(page)
    assert (typed(page), page.evaluate("history.length")) == before[:2]


def test_a_finger_that_rests_on_a_slider_changes_nothing_until_it_moves_sideways(open_page: Open) -> None:
    page = open_page(**PHONE)
    finger = Finger(page, place(page, "track at 80 %"))
    painted(page)
    assert typed(page) == EXAMPLE

    finger.move(30, 0)

    assert typed(page)["sepal_length"] > "7"
    finger.lift()


def test_a_tap_on_the_track_of_a_slider_changes_nothing(open_page: Open) -> None:
    page = open_page(**PHONE)
    slider = page.locator(".slider").first

    page.touchscreen.tap(*place(page, "track at 80 %"))

    painted(page)
    assert typed(page) == EXAMPLE
    expect(slider).to_have_value("5.6")


def test_dragging_a_slider_with_a_finger_is_one_step_for_back(open_page: Open, model: LoadedModel) -> None:
    page = open_page(**PHONE)
    length = page.evaluate("history.length")
    finger = Finger(page, place(page, "track at 50 %"))
    finger.move(80, 0)
    finger.move(-20, 0)
    finger.lift()
    dragged = typed(page)

    assert float(dragged["sepal_length"]) > 6
    assert page.evaluate("history.length") == length + 1
    expect_answer(page, model, dragged)
    page.wait_for_url(f"**/?{urlencode(dragged)}")
    page.go_back()
    expect_answer(page, model, EXAMPLE)
    assert typed(page) == EXAMPLE


def test_dragging_a_slider_with_a_mouse_is_one_step_for_back(open_page: Open, model: LoadedModel) -> None:
    page = open_page()
    length = page.evaluate("history.length")
    x, y = place(page, "track at 80 %")
    page.mouse.move(x, y)
    page.mouse.down()
    for across in range(0, 40, 10):
        page.mouse.move(x + across, y + 90)
    page.mouse.up()
    dragged = typed(page)

    assert float(dragged["sepal_length"]) > 7
    assert page.evaluate("history.length") == length + 1
    page.wait_for_url(f"**/?{urlencode(dragged)}")
    page.go_back()
    expect_answer(page, model, EXAMPLE)
    assert typed(page) == EXAMPLE


def test_a_tap_on_the_map_sets_both_features_and_is_one_step_for_back(open_page: Open, model: LoadedModel) -> None:
    page = open_page(**PHONE)
    length = page.evaluate("history.length")

    page.touchscreen.tap(*place(page, "map"))

    page.wait_for_function("before => history.length > before", arg=length)
    tapped = typed(page)
    assert [key for key in KEYS if tapped[key] != EXAMPLE[key]] == ["petal_length", "petal_width"]
    assert page.evaluate("history.length") == length + 1
    expect_answer(page, model, tapped)
    page.wait_for_url(f"**/?{urlencode(tapped)}")
    page.go_back()
    expect_answer(page, model, EXAMPLE)


def test_dragging_sideways_on_the_map_moves_the_sample_and_is_one_step_for_back(
    open_page: Open, model: LoadedModel
) -> None:
    page = open_page(**PHONE)
    length = page.evaluate("history.length")
    place(page, "map")
    finger = Finger(page, spot(page, {"petal_width": 1.3, "petal_length": 4.2}))

    finger.move(60, 0)
    during = typed(page)
    finger.move(30, 40)
    finger.lift()

    dragged = typed(page)
    assert float(dragged["petal_width"]) > float(during["petal_width"]) > 1.5
    assert float(dragged["petal_length"]) > float(during["petal_length"])
    assert page.evaluate("history.length") == length + 1
    expect_answer(page, model, dragged)
    page.wait_for_url(f"**/?{urlencode(dragged)}")
    page.go_back()
    expect_answer(page, model, EXAMPLE)


@pytest.mark.parametrize("start", ["map", "track at 80 %"])
def test_a_gesture_that_is_cancelled_leaves_what_was_there(open_page: Open, model: LoadedModel, start: str) -> None:
    sample = EXAMPLE | {"sepal_length": "5,60", "petal_width": "1.30"}
    page = open_page(sample=sample, **PHONE)
    length = page.evaluate("history.length")
    finger = Finger(page, place(page, start))
    finger.move(40, 0)
    assert typed(page) != sample

    finger.cancel()

    assert typed(page) == sample
    assert page.evaluate("history.length") == length
    expect_answer(page, model, EXAMPLE)


# Languages


def test_in_spanish_numbers_have_a_comma_in_every_way_of_entry(open_page: Open, model: LoadedModel) -> None:
    page = open_page("/", sample={}, locale="es-ES")
    expect(field(page)).to_have_value(re.compile("^[0-9],[0-9]$"))
    paste(page, "5,6\t2,7\t4,2\t1,5")
    expect_answer_in_spanish(page, model, EXAMPLE | {"petal_width": "1.5"})

    page.locator("#prediction .change").get_by_role("button").click()

    expect(field(page)).to_have_value("1,8")
    field(page).press("ArrowUp")
    expect(field(page)).to_have_value("1,9")
    page.get_by_role("link", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    assert typed(page)["petal_width"] == "1,9"


def expect_answer_in_spanish(page: Page, model: LoadedModel, sample: Mapping[str, str]) -> None:
    prediction = model.predict(model.validator.row(sample))
    expect(page.locator("#prediction > [data-label]")).to_have_attribute("data-label", prediction.label)


def test_the_example_that_is_in_the_fields_is_marked_and_an_edited_one_is_not(open_page: Open) -> None:
    page = open_page(sample={})
    current = page.locator(".examples [aria-current]")
    expect(current).to_have_count(0)

    page.get_by_role("link", name="virginica", exact=True).click()
    expect(current).to_have_text("virginica")
    page.wait_for_url("**petal_width=*")
    page.reload()
    expect(current).to_have_text("virginica")

    field(page).press("ArrowUp")
    expect(current).to_have_count(0)
    page.go_back()
    page.go_back()
    expect(current).to_have_count(0)


def test_a_field_that_a_mouse_enters_is_selected_as_by_the_tab_key_and_then_has_a_caret(visit: Open) -> None:
    page = visit()
    selected = "({ selectionStart, selectionEnd }) => selectionEnd - selectionStart"

    field(page).click()
    assert field(page).evaluate(selected) == len(EXAMPLE["petal_width"])
    page.keyboard.type("2")
    expect(field(page)).to_have_value("2")
    field(page).click()
    assert field(page).evaluate(selected) == 0
