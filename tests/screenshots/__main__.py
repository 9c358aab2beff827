"""python -m tests.screenshots: take the README's pictures of the page, in light and dark and on a phone; and its card.

The built-in model is trained into a folder of its own, and the real server shows it to the real browser. The card is
what other sites show beside a link to the page.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from tests.browser import ARGUMENTS, CHROMIUM
from tests.conftest import ROOT, run_server

FOLDER = Path(__file__).parent
CARD = ROOT / "static" / "social.png"
ADDRESS = "?sepal_length=6.1&sepal_width=2.9&petal_length=4.9&petal_width=1.7"
# The card's size is the usual one.
PICTURES: list[tuple[Path, Literal["light", "dark"], ViewportSize]] = [
    (FOLDER / "light.png", "light", {"width": 1120, "height": 860}),
    (FOLDER / "dark.png", "dark", {"width": 1120, "height": 860}),
    (FOLDER / "phone.png", "light", {"width": 390, "height": 844}),
    (CARD, "light", {"width": 1200, "height": 630}),
]
# A card is for looking at: what is there to be pressed makes room, and the answer is seen whole.
CARD_STYLE = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    html { font-size: 14px; }
    .languages, .examples, .file, .axes, .messages, .change { display: none !important; }
    .answer { padding-block-end: 0.5rem !important; max-block-size: none !important; overflow: hidden !important; }
    .answer { grid-template-rows: none !important; }
  `);
  document.adoptedStyleSheets = [sheet];
}"""


def main() -> None:
    """Write one PNG a picture, in a palette: a third of the size, and the page has few colors."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.npz"
        subprocess.run([sys.executable, "-m", "ml", "train", "--out", str(model)], cwd=ROOT, check=True)
        with run_server(Path(folder) / "log.txt", MODEL_FILE=str(model)) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            for path, scheme, size in PICTURES:
                page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
                page.goto(f"{server.url}/{ADDRESS}")
                if path == CARD:
                    page.evaluate(CARD_STYLE)
                take(page, path)
                page.close()
            browser.close()


def take(page: Page, path: Path) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
