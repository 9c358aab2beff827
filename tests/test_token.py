"""The real server with a token: our client, a real browser, and a log that tells nothing."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from ml.model.loaded import LoadedModel
from tests.browser import needs_chromium
from tests.conftest import ROOT, Server, run_on, run_server

TOKEN = "a-token-that-nobody-guesses"
MARK = "9.35793"
TABLE = "sepal_length,sepal_width,petal_length,petal_width\n5,3,4,1\n"


@pytest.fixture(scope="module")
def guarded(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("guarded") / "log.txt"
    with run_server(log, MODEL_FILE=str(model_path), API_TOKEN=TOKEN, ALLOWED_HOSTS="127.0.0.1") as server:
        yield server
        assert server.process.poll() is None


def streamed(server: Server, *options: str) -> subprocess.CompletedProcess[bytes]:
    return run_on(TABLE.encode(), server.url, *options, "stream", "-", cwd=ROOT, module="web.client")


def test_our_client_presents_the_token(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    without = streamed(guarded)
    by_option = streamed(guarded, "--token", TOKEN)
    monkeypatch.setenv("API_TOKEN", TOKEN)
    by_environment = streamed(guarded)

    assert without.returncode == 1
    assert b"401" in without.stderr
    assert by_option.returncode == by_environment.returncode == 0, by_option.stderr
    assert by_option.stdout == by_environment.stdout
    assert by_option.stdout.splitlines()[1].startswith(b"5,3,4,1,")


@needs_chromium
def test_the_page_works_in_a_browser_without_the_token(
    context: BrowserContext, guarded: Server, model: LoadedModel
) -> None:
    page = context.new_page()
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
