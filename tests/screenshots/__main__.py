"""python -m tests.screenshots: take the README's pictures of the page, in light and dark and on a phone.

The built-in model is trained into a folder of its own, and the real server shows it to the real browser.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import ViewportSize, sync_playwright

from tests.conftest import ROOT, run_server

FOLDER = Path(__file__).parent
ADDRESS = "?sepal_length=6.1&sepal_width=2.9&petal_length=4.9&petal_width=1.7"
PICTURES: list[tuple[str, Literal["light", "dark"], ViewportSize]] = [
    ("light", "light", {"width": 1120, "height": 720}),
    ("dark", "dark", {"width": 1120, "height": 720}),
    ("phone", "light", {"width": 390, "height": 720}),
]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Write one PNG a picture beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.npz"
        subprocess.run([sys.executable, "-m", "ml", "train", "--out", str(model)], cwd=ROOT, check=True)
        with run_server(Path(folder) / "log.txt", MODEL_FILE=str(model)) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
            for name, scheme, size in PICTURES:
                page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
                page.goto(f"{server.url}/{ADDRESS}")
                page.screenshot(path=FOLDER / f"{name}.png")
                page.close()
            browser.close()


if __name__ == "__main__":
    main()
