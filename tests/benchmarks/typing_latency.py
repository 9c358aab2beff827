"""python tests/benchmarks/typing_latency.py: from key to swap in a real browser, beside a bare fetch in the same page.

Also a part of `python -m tests.benchmarks` when Chromium is installed: see `measure`.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

if __name__ == "__main__":  # as a script, Python looks for packages beside it and not in the project
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from playwright.sync_api import Page, sync_playwright

from tests.benchmarks import server, subject
from tests.benchmarks.results import Bar, Ratio, Result, table
from tests.benchmarks.subject import Plan, Subject

KEYS = 200
PAUSE_MS = 50.0  # 20 keys a second, faster than anybody types
LONGEST = 5  # characters in the field
PATIENCE_MS = 2_000.0  # for the answer to the last key
BAR_MS = 16.0  # one frame at 60 Hz
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

# A key is answered when the swap shows the answer to the very text that it left in the field. Its time starts with the
# event of the key itself, before the browser changes the field.
WATCH = """(name) => {
  window.answered = [];
  const input = document.querySelector(`#measurements input[name="${name}"]`);
  const pressed = [];
  let pressedAt = 0;
  input.addEventListener("keydown", (event) => { pressedAt = event.timeStamp; }, { capture: true });
  input.addEventListener("input", () => pressed.push([input.value, pressedAt]), { capture: true });
  document.getElementById("prediction").addEventListener("htmx:afterSwap", (event) => {
    const now = performance.now();
    const text = event.detail.requestConfig.formData.get(name);
    const index = pressed.findIndex(([value]) => value === text);
    if (index < 0) return;
    window.answered.push(now - pressed[index][1]);
    pressed.splice(0, index + 1);
  });
}"""
FETCH = """async (queries) => {
  const times = [];
  for (const query of queries) {
    const start = performance.now();
    const response = await fetch(`predict?${query}`, { headers: { "HX-Request": "true" } });
    await response.text();
    times.push(performance.now() - start);
  }
  return times;
}"""


@dataclass(frozen=True)
class Round:
    """Milliseconds from key to swap for each key that was answered, and of each bare fetch."""

    typed: int
    swaps_ms: Sequence[float]
    fetches_ms: Sequence[float]


def measure(prepared: Subject, plan: Plan) -> list[Result]:
    """Type `KEYS` keys in as many rounds as the plan has, with as many bare fetches between them."""
    rounds = rounds_of(prepared, plan.rounds)
    swaps = [ms for r in rounds for ms in r.swaps_ms]
    fetches = [ms for r in rounds for ms in r.fetches_ms]
    typed = sum(r.typed for r in rounds)
    return [
        Result(
            "from key to swap in a browser",
            median(swaps),
            "ms",
            Ratio.of([median(r.swaps_ms) for r in rounds], [median(r.fetches_ms) for r in rounds]),
            f"bare fetch in the same page, {median(fetches):.2f} ms",
            (Bar(median(swaps), BAR_MS, "ms", highest=True), Bar(len(swaps), typed, "keys")),
            f"{len(swaps)} of {typed} keys answered, p95 {quantiles(swaps, n=20)[-1]:.1f} ms",
        )
    ]


def rounds_of(prepared: Subject, n: int) -> list[Round]:
    """Run the service and the browser; return `n` rounds, after one that is not counted."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("Chromium is not installed")
    rng = random.Random(0)
    example = {feature.key: feature.example for feature in prepared.model.features}
    sizes = [KEYS // n + (i < KEYS % n) for i in range(n)]
    with server.service(prepared) as running, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{running.port}/")
        rounds = [_round(page, list(example)[-1], size, rng=rng) for size in [min(sizes), *sizes]]
        browser.close()
    return rounds[1:]


def _round(page: Page, name: str, keys: int, *, rng: random.Random) -> Round:
    field = page.locator(f'#measurements input[name="{name}"]')
    field.fill("")
    field.press("Enter")  # so that no answer to what was typed before is under way
    page.wait_for_function("document.querySelector('#prediction > [data-state=incomplete]') !== null")
    page.evaluate(WATCH, name)
    text, queries = "", []
    for _ in range(keys):
        key = "Backspace" if len(text) == LONGEST else "." if len(text) == 1 else rng.choice("0123456789")
        text = text[:-1] if key == "Backspace" else text + key
        page.keyboard.press(key)
        page.wait_for_timeout(PAUSE_MS)
        queries.append(
            page.evaluate("String(new URLSearchParams(new FormData(document.getElementById('measurements'))))")
        )
    page.wait_for_timeout(PAUSE_MS)
    page.wait_for_selector("#measurements:not(.htmx-request)", timeout=PATIENCE_MS)
    swaps: list[float] = page.evaluate("answered")
    fetches: list[float] = page.evaluate(FETCH, queries)
    page.reload()
    return Round(keys, swaps, fetches)


def main() -> int:
    """Measure and print the table; return 1 when a bar is missed."""
    with subject.prepared() as prepared:
        results = measure(prepared, Plan(rounds=5, seconds=0, tool=""))
    print(table(results))
    return 0 if all(result.reached for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
