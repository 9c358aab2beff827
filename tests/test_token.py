"""The real server with a token: our client, a real browser, and a log that tells nothing."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from ml.model.classifier import Classifier
from tests.conftest import ROOT, Server, run_server

TOKEN = "a-token-that-nobody-guesses"
MARK = "9.35793"
TABLE = "sepal_length,sepal_width,petal_length,petal_width\n5,3,4,1\n"


@pytest.fixture(scope="module")
def guarded(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("guarded") / "log.txt"
    with run_server(log, MODEL_FILE=str(model_path), API_TOKEN=TOKEN, ALLOWED_HOSTS="127.0.0.1") as server:
        yield server
        assert server.process.poll() is None


def streamed(server: Server, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "web.client", server.url, *options, "stream", "-"],
        cwd=ROOT, env={**os.environ, **environment}, input=TABLE,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_our_client_presents_the_token(guarded: Server) -> None:
    without = streamed(guarded)
    by_option = streamed(guarded, "--token", TOKEN)
    by_environment = streamed(guarded, API_TOKEN=TOKEN)

    assert without.returncode == 1
    assert "401" in without.stderr
    assert by_option.returncode == by_environment.returncode == 0, by_option.stderr
    assert by_option.stdout == by_environment.stdout
    assert by_option.stdout.splitlines()[1].startswith("5,3,4,1,")


@pytest.mark.skipif(
    shutil.which("chromium") is None and os.environ.get("CI") != "true", reason="Chromium is not installed"
)
def test_the_page_works_in_a_browser_without_the_token(guarded: Server, model: Classifier) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(guarded.url)
        page.locator(f"#measurements input[name={model.features[-1].key}][type=text]").fill("0.2")
        page.locator(f"#measurements input[name={model.features[-2].key}][type=text]").fill("1.4")
        expect(page.locator("#prediction > [data-label=setosa]")).to_be_visible()
        opened = page.evaluate(
            """() => new Promise((resolve) => {
              const socket = new WebSocket(new URL("stream", document.baseURI).href.replace(/^http/, "ws"));
              socket.onmessage = (event) => resolve(JSON.parse(event.data).type);
              socket.onerror = () => resolve("refused");
            })"""
        )
        refused = page.evaluate("fetch('metrics').then((response) => response.status)")
        browser.close()

    assert opened == "model"
    assert refused == 401
    assert [text for text in complaints if "401" not in text] == []


def test_the_log_holds_no_token_no_cookie_and_no_input(guarded: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=20)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    cookie = ""
    for headers in (
        {},
        bearer,
        {"Authorization": f"Bearer {TOKEN}{MARK}"},
        {"Host": MARK},
        {"Origin": f"http://{MARK}"},
    ):
        for method, path in (("GET", "/"), ("GET", f"/predict?sepal_length={MARK}"), ("POST", "/predict")):
            body = json.dumps({"sample": MARK}) if method == "POST" else None
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            cookie = response.getheader("Set-Cookie", cookie)
    connection.close()
    with connect(guarded.stream_url, additional_headers=bearer) as stream:
        stream.recv()
        stream.send(json.dumps({"id": MARK, "sample": [MARK]}))
        stream.recv()
        stream.send("\0" * 2_000_000)
    with pytest.raises(InvalidStatus), connect(f"{guarded.stream_url}?{MARK}", origin=Origin(f"http://{MARK}")):
        pass

    log = guarded.log.read_text()
    assert "serving iris" in log, "it is a log"
    assert cookie.startswith("page=")
    for secret in (TOKEN, MARK, cookie.partition(";")[0].removeprefix("page="), "Traceback"):
        assert secret not in log
