"""python -m tests.screenshots: take the README's pictures of the page, of three tables and on a phone; and its card.

The models are trained into a folder of their own, and the real server shows them to the real browser. The card is what
other sites show beside a link to the page, whatever its model: it has made-up names.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from ml.tables.dataset import Dataset, Feature, Target
from ml.training import fitting, iris, writing
from tests.browser import ARGUMENTS, CHROMIUM
from tests.conftest import ROOT, run_server
from tests.small_tables import cars, penguins

FOLDER = Path(__file__).parent
CARD = ROOT / "static" / "social.png"
VALUES = ("6.1", "2.9", "4.9", "1.7")
PICTURES: list[tuple[Path, Literal["light", "dark"], ViewportSize]] = [
    (FOLDER / "light.png", "light", {"width": 1120, "height": 860}),
    (FOLDER / "phone.png", "light", {"width": 390, "height": 844}),
]
CARD_SIZE: ViewportSize = {"width": 1200, "height": 630}
# A card is for looking at: what is there to be pressed makes room, and the answer is seen whole.
CARD_STYLE = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    html { font-size: 14px; }
    .languages, .examples, .file, .axis, .messages, .change, .why, .share { display: none !important; }
    .answer { padding-block-end: 0.5rem !important; max-block-size: none !important; overflow: hidden !important; }
    .answer { grid-template-rows: none !important; }
  `);
  document.adoptedStyleSheets = [sheet];
}"""


def main() -> None:
    """Write one PNG a picture, in a palette: a third of the size, and the page has few colors."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        flowers = iris.load_dataset()
        with served(flowers, Path(folder)) as address:
            for path, scheme, size in PICTURES:
                page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
                page.goto(address)
                take(page, path)
        for path, dataset in ((FOLDER / "words.png", penguins()), (FOLDER / "quantity.png", cars())):
            with served(dataset, Path(folder)) as address:
                page = browser.new_page(viewport=PICTURES[0][2], reduced_motion="reduce")
                page.goto(address.partition("?")[0])
                take(page, path)
        with served(renamed(flowers), Path(folder)) as address:
            page = browser.new_page(viewport=CARD_SIZE, color_scheme="light", reduced_motion="reduce")
            page.goto(address)
            page.evaluate(CARD_STYLE)
            take(page, CARD)
        browser.close()


def renamed(dataset: Dataset) -> Dataset:
    """Return the same numbers under names that fit any table."""
    titles = ("length", "width", "depth", "weight")
    features = tuple(Feature(key=title, title=title, minimum=0.0) for title in titles)
    return replace(
        dataset, name="any table", features=features, target=Target(labels=("alpha", "beta", "gamma")), picture=()
    )


@contextlib.contextmanager
def served(dataset: Dataset, folder: Path) -> Iterator[str]:
    """Train a model and run the server with it until the block ends; yield the address of a sample on its page."""
    trained = fitting.fit(dataset)
    path = folder / "model.npz"
    writing.write(writing.model_of(trained), path, trained=trained)
    with run_server(folder / "log.txt", MODEL_FILE=str(path)) as server:
        sample = zip((feature.key for feature in dataset.features), VALUES, strict=False)
        yield f"{server.url}/?{urlencode(list(sample))}"


def take(page: Page, path: Path) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
