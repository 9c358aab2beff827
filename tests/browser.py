"""What the stories in a real browser share: the browser, pages that may not complain, and what is looked for."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.server
import os
import re
import shutil
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, expect, sync_playwright

from ml.model.loaded import LoadedModel
from web.page.languages import language

if TYPE_CHECKING:  # which imports this
    from tests.conftest import Server

CHROMIUM = shutil.which("chromium")
IN_CI = os.environ.get("CI") == "true"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]
# What CI runs must not be skipped there: without Chromium, every story fails.
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not IN_CI, reason="Chromium is not installed")

EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
VIEWPORT: ViewportSize = {"width": 1280, "height": 720}  # of Playwright's contexts
Open = Callable[..., Page]
Listeners = dict[str, Callable[[Any], None]]


@dataclass
class Shared:
    """A context that stories share, and its pages that none of them uses at the moment."""

    context: BrowserContext
    idle: list[Page] = dataclasses.field(default_factory=list)


Contexts = dict[str, Shared]


@pytest.fixture(scope="session")
def chromium() -> Iterator[tuple[Browser, asyncio.AbstractEventLoop]]:
    """The browser of all stories, whose start takes 1.4 s of processor time, and the event loop of its driver."""
    assert CHROMIUM, "CI=true, but Chromium is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        loop = asyncio.get_running_loop()
        with loop_of_others():
            yield browser, loop
        browser.close()


@contextlib.contextmanager
def loop_of_others(loop: asyncio.AbstractEventLoop | None = None) -> Iterator[None]:
    """Let no event loop, or this one, be the running one: Playwright says so of its own between two calls as well."""
    before = asyncio.events._get_running_loop()
    asyncio.events._set_running_loop(loop)
    yield
    asyncio.events._set_running_loop(before)


@pytest.fixture(scope="module")
def browser(chromium: tuple[Browser, asyncio.AbstractEventLoop]) -> Iterator[Browser]:
    """The browser, for the tests of a module: those of others run event loops of their own."""
    browser, loop = chromium
    with loop_of_others(loop):
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with contextlib.closing(browser.new_context()) as context:
        yield context


@pytest.fixture(scope="session")
def contexts() -> Contexts:
    """The contexts that stories share, by their options.

    A page in a new one takes 0.9 s of processor time, another page in one 0.5 s, and a page that is there 0.2 s.
    """
    return {}


@pytest.fixture
def open_page(browser: Browser, server: Server, contexts: Contexts) -> Iterator[Open]:
    """Opens pages of their own; see `opening`."""
    with opening(browser, server, contexts) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def visit(browser: Browser, server: Server, contexts: Contexts) -> Iterator[Open]:
    """Visits the page with a sample, in one page for a module's cases: one of their own takes three times as long.

    For cases that leave nothing behind which the next visit does not replace: no routes, clocks or media.
    """
    with opening(browser, server, contexts) as open_page:
        page = open_page(sample={})

        def visit(sample: Mapping[str, str] = EXAMPLE) -> Page:
            page.goto(f"{server.url}/?{urlencode(sample)}")
            return page

        yield visit


@contextlib.contextmanager
def opening(browser: Browser, server: Server, contexts: Contexts) -> Iterator[Open]:
    """Open pages, in contexts that are shared by those with the same options; in the end, none of the pages may have
    complained or left the host.

    Keyword arguments are those of a browser context; `sample` prefills the page, `url` is another server's,
    `complaints` is a pattern of console errors that belong to the story. `changes_context` is for a story with a clock
    of its own, or without a network: these belong to a context, and no other story gets it.
    """
    contexts_of_story: list[BrowserContext] = []
    pages: list[tuple[Page, Shared, Listeners]] = []
    complaints: list[str] = []

    def context_of(**options: Any) -> BrowserContext:
        context = browser.new_context(**options)
        # Every move of anything counts, also those right after a key, which browsers forgive.
        context.add_init_script(
            """window.shifts = [];
            new PerformanceObserver((list) => {
              for (const { value, sources } of list.getEntries())
                window.shifts.push(`${value}: ${sources.map(({ node }) => node?.className || node?.nodeName)}`);
            }).observe({ type: "layout-shift", buffered: true });"""
        )
        return context

    def shared_by(options: dict[str, Any], changes_context: bool) -> Shared:
        if changes_context:
            contexts_of_story.append(context_of(**options))
            return Shared(contexts_of_story[-1])
        kind = repr(sorted(options.items()))
        if kind not in contexts:
            contexts[kind] = Shared(context_of(**options))
        return contexts[kind]

    def open_page(
        path: str = "/",
        *,
        sample: Mapping[str, str] = EXAMPLE,
        url: str = "",
        complaint: str = r"(?!)",
        wait_until: Literal["commit", "load"] = "load",
        changes_context: bool = False,
        viewport: ViewportSize = VIEWPORT,
        color_scheme: Literal["dark", "light"] = "light",
        reduced_motion: Literal["no-preference", "reduce"] = "no-preference",
        forced_colors: Literal["active", "none"] = "none",
        **options: Any,
    ) -> Page:
        url = url or server.url
        shared = shared_by(options, changes_context)
        page = shared.idle.pop() if shared.idle else shared.context.new_page()
        page.set_viewport_size(viewport)
        page.emulate_media(
            media="null", color_scheme=color_scheme, reduced_motion=reduced_motion, forced_colors=forced_colors
        )

        def complain(text: str) -> None:
            if not re.search(complaint, text):
                complaints.append(text)

        listeners: Listeners = {
            "console": lambda m: complain(m.text) if m.type in ("error", "warning") else None,
            "pageerror": lambda e: complaints.append(str(e)),
            "dialog": lambda d: complaints.append(f"dialog: {d.message}"),
            "request": lambda r: None if r.url.startswith((url, "blob:")) else complaints.append(f"request to {r.url}"),
        }
        pages.append((page, shared, listeners))
        for event, listener in listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]  # it has one for each event's name
        page.goto(f"{url}{path}{'?' + urlencode(sample) if sample else ''}", wait_until=wait_until)
        return page

    yield open_page
    before = [*complaints]  # a request that the end cuts off is none
    for page, shared, listeners in pages:
        page.context.clear_cookies()
        if page.is_closed() or page.context in contexts_of_story:
            page.close()
            continue
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
        page.unroute_all(behavior="ignoreErrors")
        # Of the same site: the browser would end the process of the page for another one's, about:blank among them.
        page.goto(f"{server.url}/health/live")
        page.mouse.move(0, 0)
        # A browser keeps 50 entries: stories count them.
        session = page.context.new_cdp_session(page)
        session.send("Page.resetNavigationHistory")
        session.detach()
        shared.idle.append(page)
    for context in contexts_of_story:
        context.close()
    assert before == [], before


def field(page: Page, key: str = "petal_width") -> Locator:
    return page.locator(f'#measurements input[name="{key}"]')


def expect_answer(page: Page, model: LoadedModel, sample: Mapping[str, str]) -> None:
    """Wait until the page shows, to the last digit, what the model says to `sample`."""
    prediction = model.predict(model.validator.row(sample))
    percents = [language("en").percent(share) for share in prediction.probabilities]
    expect(page.locator("#prediction .bars dd span")).to_have_text(percents)
    expect(page.locator("#prediction > [data-label]")).to_have_attribute("data-label", prediction.label)


def expect_state(page: Page, state: str) -> None:
    expect(page.locator("#prediction > *")).to_have_attribute("data-state", state)


def typed(page: Page) -> dict[str, str]:
    inputs: dict[str, str] = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#measurements .entry input')].map((i) => [i.name, i.value]))"
    )
    return inputs


class Quiet(http.server.BaseHTTPRequestHandler):
    """A handler that keeps connections open and does not log."""

    protocol_version = "HTTP/1.1"

    def reply(self, content: bytes, content_type: str, status: int = 200, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve(handler: type[Quiet]) -> Iterator[str]:
    """Run a small server on a free port in a thread; yield its origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def moves_on_arrival(open_page: Open, server: Server, width: int) -> list[str]:
    """Return what moves on a page whose connection stops after many a tag, each time until the page is painted.

    Under load a browser stops there by itself, though the page is there at once.
    """
    painted = threading.Semaphore(0)

    class Slow(Quiet):
        def do_GET(self) -> None:
            with urllib.request.urlopen(server.url + self.path) as response:
                content, content_type = response.read(), response.headers["Content-Type"]
            tags = re.compile(rb"<(?:body|a|button|div|label|p|svg)\b[^>]*>")
            ends = [tag.end() for tag in tags.finditer(content)] if content_type.startswith("text/html") else []
            self.reply(content[: ends[0]] if ends else content, content_type, length=len(content))
            for start, end in pairwise([*ends, len(content)]):
                painted.acquire(timeout=10)
                self.wfile.write(content[start:end])

    with serve(Slow) as origin:
        page = open_page(
            url=origin, sample={}, wait_until="commit", viewport={"width": width, "height": 844}, complaint="net::ERR"
        )
        for _ in range(1000):
            # Now and then a browser paints nothing until more has come.
            page.evaluate(
                "new Promise((done) => [requestAnimationFrame(() => setTimeout(done)), setTimeout(done, 500)])"
            )
            painted.release()
            if page.evaluate("document.readyState") == "complete":
                break
        page.wait_for_load_state()
        moves: list[str] = page.evaluate("shifts")
        page.close()
    return moves
