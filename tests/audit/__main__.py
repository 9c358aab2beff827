"""python -m tests.audit: Lighthouse's scores of the page, and the Nu HTML checker on every page and fragment.

Both come from npm at pinned versions, into the environment that runs this. Node, Java and Chromium are needed; neither
the service nor its tests need the first two. It ends with an error when a score or a document is below the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.audit.documents import DOCUMENTS
from tests.browser import CHROMIUM
from tests.conftest import ROOT, Server, run_server

# Lighthouse 13 needs Node 22; this one is content with 18.
PACKAGES = {"lighthouse": "12.8.2", "vnu-jar": "26.9.27"}
FOLDER = Path(sys.prefix) / "audit"
CHROME_FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")

# Attributes that htmx reads, and no other ones.
HTMX_ATTRIBUTE = re.compile(r"^Attribute “hx-[a-z-]+” not allowed on element “[a-z]+” at this point\.$")


def main() -> int:
    """Print what was found; return how many bars were missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="how often Lighthouse runs; the median counts (default 3)")
    runs = parser.parse_args().runs
    missing = [name for name in ("node", "npm", "java") if shutil.which(name) is None]
    if missing or CHROMIUM is None:
        print(f"not found: {', '.join(missing + ['chromium'] * (CHROMIUM is None))}. The audit needs Node 18 or newer "
              "with npm, Java 11 or newer, and Chromium; nothing else here does.", file=sys.stderr)  # fmt: skip
        return 1
    install()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.npz"
        subprocess.run([sys.executable, "-m", "ml", "train", "--out", str(model)], cwd=ROOT, check=True, stdout=-3)
        with run_server(folder / "log.txt", MODEL_FILE=str(model)) as server:
            return check_documents(server, folder / "documents") + check_scores(server, folder, runs=runs)


def install() -> None:
    """Install the packages, without their scripts: one would download a Java of its own."""
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    stamp = FOLDER / "installed.txt"
    if stamp.is_file() and stamp.read_text().split() == wanted:
        return
    FOLDER.mkdir(exist_ok=True)
    options = ["--prefix", str(FOLDER), "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(["npm", "install", *options, *wanted], check=True)
    stamp.write_text("\n".join(wanted))


def check_documents(server: Server, folder: Path) -> int:
    """Check each document with the Nu HTML checker; return how many have errors or warnings."""
    folder.mkdir()
    paths = {str(folder / f"{number}.html"): document for number, document in enumerate(DOCUMENTS)}
    for path, document in paths.items():
        html = ask(server.url + document.address, document.headers, document.form)
        Path(path).write_text(document.whole(html))
    jar = FOLDER / "node_modules" / "vnu-jar" / "build" / "dist" / "vnu.jar"
    command = ["java", "-jar", str(jar), "--format", "json", "--stdout", "--exit-zero-always", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    bad = 0
    print("Nu HTML checker: errors and warnings, htmx's attributes apart")
    for path, document in paths.items():
        found = list(complaints(json.loads(done.stdout)["messages"], path))
        print(f"  {len(found):2}  {document.name}", *(f"\n        {line}" for line in found), sep="")
        bad += bool(found)
    return bad


def ask(address: str, headers: Mapping[str, str], form: str | None) -> str:
    request = urllib.request.Request(address, headers=dict(headers), data=None if form is None else form.encode())
    try:
        with urllib.request.urlopen(request) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def complaints(messages: list[dict[str, object]], path: str) -> Iterator[str]:
    for message in messages:
        text = str(message["message"])
        if str(message.get("url", "")).endswith(path) and not HTMX_ATTRIBUTE.match(text):
            kind = message.get("subType", message["type"])
            yield f"{kind}, line {message.get('lastLine')}: {text} {message.get('extract', '')!r}"
        elif message["type"] == "non-document-error":
            yield text


def check_scores(server: Server, folder: Path, *, runs: int) -> int:
    """Run Lighthouse with its mobile preset; return how many categories are below 100 in the median."""
    scores: dict[str, list[int]] = {name: [] for name in CATEGORIES}
    notes: set[str] = set()
    for number in range(runs):
        report = folder / f"lighthouse-{number}.json"
        subprocess.run(
            [
                "node", str(FOLDER / "node_modules" / "lighthouse" / "cli" / "index.js"), f"{server.url}/", "--quiet",
                "--output=json", f"--output-path={report}", f"--only-categories={','.join(CATEGORIES)}",
                f"--chrome-flags={CHROME_FLAGS}",
            ],
            check=True,
            env={**os.environ, "CHROME_PATH": str(CHROMIUM)},
        )  # fmt: skip
        found = json.loads(report.read_text())
        for name in CATEGORIES:
            category = found["categories"][name]
            scores[name].append(round(100 * (category["score"] or 0)))
            for reference in category["auditRefs"]:
                audit = found["audits"][reference["id"]]
                if reference["weight"] and audit["score"] is not None and audit["score"] < 1:
                    items = json.dumps(audit.get("details", {}).get("items", []))
                    notes.add(f"{name}: {audit['title']} {audit.get('displayValue', '')} {items[:400]}")
    print(f"Lighthouse {PACKAGES['lighthouse']}, mobile preset, {runs} runs: median of")
    for name in CATEGORIES:
        print(f"  {statistics.median(scores[name]):3.0f}  {name}  {scores[name]}")
    for note in sorted(notes):
        print(f"        {note}")
    return sum(statistics.median(scores[name]) < 100 for name in CATEGORIES)


if __name__ == "__main__":
    sys.exit(bool(main()))
