"""The page for everyone: axe-core's rules (WCAG 2.2 AA), contrast, focus, zoom, forced colors, paper, weight."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]  # it has no types
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect

from ml.model.card import Recipe
from ml.tables.dataset import Feature
from ml.training import fitting, writing
from tests import small_tables
from tests.browser import EXAMPLE, Open, expect_state, field, needs_chromium
from tests.builders import dataset_of
from tests.conftest import Server, run_server

pytestmark = needs_chromium

WIDE: ViewportSize = {"width": 1280, "height": 800}
NARROW: ViewportSize = {"width": 320, "height": 640}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
MOST_BYTES = 70_000
# An answer of about a half: its bar ends in the middle of its track.
HALF = {"sepal_length": "6.1", "sepal_width": "2.9", "petal_length": "4.9", "petal_width": "1.7"}
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def violations(page: Page, inside: str = "html", *, rules: list[str] | None = None) -> list[str]:
    """Return what axe-core finds inside an element, by all rules up to WCAG 2.2 AA or by those that are named."""
    page.evaluate("(script) => { if (!window.axe) (0, eval)(script); }", AXE_SCRIPT)
    only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": TAGS}
    found: list[dict[str, Any]] = page.evaluate(
        "async ([inside, only]) => (await axe.run(inside, { runOnly: only, resultTypes: ['violations'] })).violations",
        [inside, only],
    )
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


def violations_in_both_schemes(page: Page, inside: str = "html") -> list[str]:
    """Return what axe-core finds in the light; in the dark, only colors are others."""
    page.emulate_media(color_scheme="light")
    light = violations(page, inside)
    page.emulate_media(color_scheme="dark")
    return light + violations(page, inside, rules=["color-contrast", "link-in-text-block"])


@pytest.fixture(scope="module")
def many_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model with 17 features and 12 labels, whose names are long."""
    rng = np.random.default_rng(0)
    classes = np.arange(120) % 12
    features = tuple(
        Feature(key=f"f{i}", title=f"a quantity with a long name {i}", unit="µmol per litre") for i in range(17)
    )
    labels = tuple(f"a label that is as long as some labels are {i}" for i in range(12))
    rows = np.round(rng.normal(size=(120, 17)) + classes[:, np.newaxis], 1)
    data = dataset_of(rows, classes, features=features, labels=labels, name="many")
    trained = fitting.fit(data, Recipe(n_estimators=5))
    path = tmp_path_factory.mktemp("many") / "many.npz"
    writing.write(writing.model_of(trained), path, trained=trained)
    with run_server(path.with_suffix(".txt"), MODEL_FILE=str(path)) as server:
        yield server


# Rules


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_in_any_state(open_page: Open, size: ViewportSize) -> None:
    page = open_page(viewport=size, reduced_motion="reduce", complaint="htmx|ERR_FAILED")
    assert violations_in_both_schemes(page) == []

    field(page).fill("2.1")
    expect(page.locator("#prediction .headline strong")).to_have_text("virginica")
    assert violations_in_both_schemes(page, "main .desk") == []
    field(page).fill("")
    expect_state(page, "incomplete")
    assert violations_in_both_schemes(page, "main .desk") == []
    field(page).fill("abc")
    expect_state(page, "invalid")
    assert violations_in_both_schemes(page, "main .desk") == []
    field(page).fill("9")
    expect(page.locator("#prediction [data-kind=note]")).to_have_count(1)
    page.route("**/predict?*", lambda route: route.abort())
    field(page).fill("8")
    expect(page.locator("#prediction[data-stale]")).to_have_count(1)
    assert violations_in_both_schemes(page, "main .desk") == []


def test_axe_finds_nothing_in_what_is_opened_and_in_a_predicted_file(open_page: Open) -> None:
    page = open_page(viewport=NARROW, reduced_motion="reduce")
    table = ",".join(EXAMPLE) + "\n" + (",".join(EXAMPLE.values()) + "\n") * 20 + "1,x,3,4\n"

    page.locator("#code > summary").click()
    expect(page.locator("#code-curl")).to_be_visible()
    page.locator("#file-input").set_input_files({"name": "rows.csv", "mimeType": "text/csv", "buffer": table.encode()})
    expect(page.locator("#file-download")).to_be_visible()
    expect(page.locator("#file-body td[data-wrong] svg")).to_have_count(1)

    assert violations_in_both_schemes(page, "main") == []


def test_axe_finds_nothing_on_the_other_pages(open_page: Open) -> None:
    page = open_page("/docs", sample={}, viewport=NARROW, complaint="404|422", locale="es")
    service = page.url.removesuffix("docs")
    page.locator("details > summary").first.click()
    assert violations_in_both_schemes(page) == []

    for path in ("health/drift", "nothing", f"?lang=es&{'&'.join(f'{key}=x' for key in EXAMPLE)}"):
        page.goto(service + path)
        assert violations_in_both_schemes(page) == [], path


def test_axe_finds_nothing_with_many_features_and_long_labels(open_page: Open, many_server: Server) -> None:
    page = open_page(url=many_server.url, sample={}, viewport=NARROW)
    page.locator("#measurements .more > summary").click()

    assert violations_in_both_schemes(page) == []


@pytest.mark.parametrize("name", ["penguins", "cars", "crops"])
def test_axe_finds_nothing_with_words_gaps_and_quantities(open_page: Open, tmp_path: Path, name: str) -> None:
    model = small_tables.file_of(name, tmp_path)
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model)) as server:
        page = open_page(url=server.url, sample={}, viewport=NARROW, reduced_motion="reduce")
        assert violations_in_both_schemes(page) == []

        page.locator(".unknown").first.click()
        expect(page.locator(".unknown").first).to_have_attribute("aria-pressed", "true")
        assert violations_in_both_schemes(page, "main .desk") == []
        page.set_viewport_size(WIDE)
        assert violations_in_both_schemes(page, "main .desk") == []


# Colors


def luminance(color: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = color.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    shares = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# The colors of the map's regions and of the lines below the fields, as #rrggbb: mixed ones have a name in no notation.
FILLS = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parts = [...document.querySelectorAll(".regions path, .line > rect")];
  const shown = parts.map((part) => getComputedStyle(part).fill);
  return [...new Set(shown)].map((fill) => {
    context.fillStyle = fill;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    return "#" + [red, green, blue].map((share) => share.toString(16).padStart(2, "0")).join("");
  });
}"""


def test_colors_differ_in_brightness_for_those_who_see_no_hues(open_page: Open) -> None:
    """Also where axe-core does not look: on the map, on the masthead's ruler, and at what is no text."""
    page = open_page()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        names = ["paper", "sheet", "ink", "quiet", "edge", "track", "bar", "accent", "tint", "warn", "wrong"]
        color: dict[str, str] = page.evaluate(
            """(names) => Object.fromEntries(names.map((name) =>
              [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]))""",
            names,
        )
        for text in ("ink", "quiet", "accent", "warn", "wrong"):
            for ground in ("paper", "sheet", "tint"):
                assert contrast(color[text], color[ground]) >= 4.5, (scheme, text, ground)
        assert contrast(color["ink"], color["track"]) >= 4.5, scheme
        fills: list[str] = page.evaluate(FILLS)
        assert len(fills) >= 3
        for fill in fills:  # the map: its names, and the borders between its regions
            assert contrast(color["ink"], fill) >= 4.5, (scheme, fill)
        for frame in ("paper", "sheet"):
            assert contrast(color["edge"], color[frame]) >= 3, (scheme, frame)
        for bar in ("bar", "accent"):
            assert contrast(color[bar], color["track"]) >= 3, (scheme, bar)
        assert contrast(color["sheet"], color["accent"]) >= 4.5, scheme


def test_a_bar_fills_its_track(open_page: Open) -> None:
    page = open_page(viewport=WIDE, sample=HALF)

    bar, track = meter_of(page)

    assert len(np.unique(bar, axis=0)) == len(np.unique(track, axis=0)) == 1
    assert contrast_of(bar[0], track[0]) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_forced_colors_everything_is_still_told_apart(open_page: Open, scheme: str) -> None:
    page = open_page(
        forced_colors="active", color_scheme=scheme, viewport=WIDE, sample=HALF, complaint="htmx|ERR_FAILED"
    )

    def style(selector: str, name: str) -> str:
        found: str = page.locator(selector).first.evaluate(
            "(element, name) => getComputedStyle(element).getPropertyValue(name)", name
        )
        return found

    assert style(".map .regions .sure-2", "fill") != style(".map .regions .sure-0", "fill")
    assert style(".map .borders", "stroke") == style("body", "color") != style("body", "background-color")
    assert style("#prediction meter", "outline-style") == "solid"
    assert style(".line rect", "fill") != style("body", "background-color")
    assert style(".languages [aria-current]", "font-weight") == "600"
    bar, track = meter_of(page)
    assert contrast_of(bar[0], track[0]) >= 3
    page.route("**/predict?*", lambda route: route.abort())
    field(page).fill("2.4")
    expect(page.locator("#prediction[data-stale]")).to_have_count(1)
    assert style("#prediction .headline strong", "text-decoration-line") == "line-through"
    assert style("#prediction .change strong", "text-decoration-line") == "none"  # it would read as "not this one"
    expect(page.locator("#connection")).to_be_visible()


def meter_of(page: Page) -> tuple[Pixels, Pixels]:
    """Return the pixels down through the bar of the chosen label and through the track behind it, less their edges."""
    picture = page.locator("#prediction .chosen meter").screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[2:-2]
    return pixels[:, 6], pixels[:, -6]


def contrast_of(one: Pixels, other: Pixels) -> float:
    first, second = ("#" + bytes(pixel.tolist()).hex() for pixel in (one, other))
    return contrast(first, second)


# Keyboard


@pytest.mark.parametrize("key", ["Tab", "Shift+Tab"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_what_has_the_focus_shows_it_and_is_not_covered(open_page: Open, size: ViewportSize, key: str) -> None:
    page = open_page(viewport=size, reduced_motion="reduce")
    page.evaluate("document.getElementById('code').open = true")
    expect(page.locator("#code [data-copy]").first).to_be_visible()
    seen = []

    for _ in range(200):
        page.keyboard.press(key)
        found: dict[str, Any] | None = page.evaluate(
            """() => {
              const element = document.activeElement;
              if (element === document.body) return null;
              const frame = element.closest(".entry") ?? element;
              const { left, right, top, bottom } = frame.getClientRects()[0];
              const across = Math.min(Math.max((left + right) / 2, 0), innerWidth - 1);
              const hit = (y) => [y < 0, y >= innerHeight, !frame.contains(document.elementFromPoint(across, y))];
              return {
                name: element.id || element.name || element.className || element.textContent.trim().slice(0, 30),
                outline: getComputedStyle(frame).outlineStyle,
                // What is almost as high as the window need not be in it whole.
                covered: (bottom - top < innerHeight / 2 ? [top + 2, bottom - 2] : [top + 2])
                  .filter((y) => hit(y).some(Boolean)),
              };
            }"""
        )
        if found is None:
            break
        seen.append(found["name"])
        assert found["outline"] in ("solid", "auto"), found
        assert found["covered"] == [], found

    assert {"f4", "slider", "map-handle", "map-x", "file-input", "Copy", "Health (JSON)"} <= {*seen}


def test_what_dragging_does_arrow_keys_do_as_well(open_page: Open) -> None:
    page = open_page()
    shown = page.locator(".map .sample")
    before = shown.get_attribute("cx")

    page.locator("#map-handle").press("ArrowRight")

    expect(shown).not_to_have_attribute("cx", before or "")
    expect(page.locator("#map-handle")).to_have_accessible_name(re.compile("arrow keys"))


# Zoom, spacing, motion, paper

SPACING = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    * { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important; }
    p { margin-block-end: 2em !important; }`);
  document.adoptedStyleSheets = [sheet];
}"""
CUT = """() => [...document.querySelectorAll("main *, header *")]
  .filter((element) => {
    const { overflowX, webkitLineClamp, textOverflow } = getComputedStyle(element);
    const isCut = element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 2;
    return ["hidden", "clip"].includes(overflowX) && isCut && !element.closest(".unseen, svg")
      && webkitLineClamp === "none" && textOverflow !== "ellipsis" && element.checkVisibility();
  }).map((element) => element.className || element.tagName)"""


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_wider_spacing_of_letters_words_and_lines_loses_nothing(open_page: Open, size: ViewportSize) -> None:
    page = open_page(viewport=size)

    page.evaluate(SPACING)

    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate(CUT) == []
    page.locator("#card .matrix").scroll_into_view_if_needed()
    assert page.locator("#card .scroll").evaluate("(part) => part.scrollWidth <= part.clientWidth")
    assert violations(page, rules=["target-size"]) == []


def test_at_twice_the_size_nothing_sticks_out(open_page: Open) -> None:
    page = open_page(viewport={"width": 640, "height": 400}, device_scale_factor=2)

    assert page.locator("#prediction .map").evaluate("map => map.getBoundingClientRect().width") == 480
    columns = page.locator(".fields").evaluate("(fields) => getComputedStyle(fields).gridTemplateColumns")
    assert len(columns.split()) == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    field(page).fill("2.2")
    expect(page.locator("#prediction .headline strong")).to_have_text("virginica")
    expect(page.locator("#prediction .headline")).to_be_in_viewport(ratio=1)
    expect(field(page)).to_be_in_viewport(ratio=1)


def test_with_twice_the_letters_nothing_sticks_out(open_page: Open) -> None:
    page = open_page(viewport={"width": 1280, "height": 800})

    page.evaluate("document.documentElement.style.fontSize = '200%'")

    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_who_wants_no_motion_gets_none(open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")

    moving = """[...document.querySelectorAll("*")].filter((element) => {
      const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(element);
      return transitionDuration !== "0s" || animationName !== "none" || scrollBehavior !== "auto";
    }).length"""

    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


def test_on_paper_it_is_two_pages_without_anything_to_press(open_page: Open) -> None:
    page = open_page()

    paper = page.pdf(format="A4")
    page.emulate_media(media="print")

    assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 2
    expect(page.locator("button:visible, .slider:visible, input[type=file]:visible, .examples:visible")).to_have_count(
        0
    )
    for seen in ("#prediction .headline", "#prediction .bars", "#prediction .map", ".entry", "#card", "#version"):
        expect(page.locator(seen).first).to_be_visible()
    # Across, sample and answer are on the first sheet: what is not to be divided would leave it empty.
    page.set_viewport_size({"width": 1009, "height": 680})
    desk = page.locator(".desk").evaluate(
        "(desk) => [getComputedStyle(desk).breakInside, desk.getBoundingClientRect().bottom]"
    )
    assert desk[0] == "auto"
    assert desk[1] <= 680


# Weight


def test_the_page_with_all_its_files_is_light(open_page: Open) -> None:
    page = open_page("/docs", sample={})
    page.wait_for_load_state("networkidle")  # its icon, too, is none of the page's files
    session = page.context.new_cdp_session(page)
    sizes: list[float] = []
    names: list[str] = []
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    session.on("Network.responseReceived", lambda event: names.append(event["response"]["url"]))

    page.goto(page.url.replace("docs", "?petal_width=1.3"), wait_until="networkidle")

    files = {Path(urlsplit(name).path).name for name in names}
    assert {"app.css", "app.js", "address.js", "htmx-2.min.js", "favicon.svg"} <= files
    assert len(sizes) == len(names)
    assert 20_000 < sum(sizes) <= MOST_BYTES
