"""Deployments as the README describes them: a Procfile runner, nginx with TLS and a path prefix."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Browser, expect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ml.model.loaded import LoadedModel
from tests.browser import needs_chromium
from tests.conftest import ROOT, free_port, parse_html, run_server
from tests.test_docs import blocks
from web.settings import Settings

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
IN_CI = os.environ.get("CI") == "true"
TIMEOUT_S = 30.0
EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
FRAGMENT = {"HX-Request": "true"}
JSON = {"Accept": "application/json"}
JSON_BODY = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


# --- the Procfile


@pytest.mark.slow
def test_a_procfile_runner_starts_it_on_the_port_it_chose_and_stops_it_cleanly(
    model_path: Path, tmp_path: Path
) -> None:
    port = free_port()
    log = tmp_path / "log.txt"
    environment = {name: value for name, value in os.environ.items() if name not in ("HOST", "PORT")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"MODEL_FILE": str(model_path), "WEB_CONCURRENCY": "2", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "honcho", "start", "--procfile", str(ROOT / "Procfile"), "--port", str(port)]

    with log.open("wb") as output:
        runner = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{port}/health/ready", runner, log)
            request = urllib.request.Request(f"http://127.0.0.1:{port}/predict?{urlencode(EXAMPLE)}", headers=JSON)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                answer = json.load(response)
            with connect(f"ws://127.0.0.1:{port}/stream") as stream:
                stream.recv(TIMEOUT_S)
                runner.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    stream.recv(TIMEOUT_S)
            runner.wait(TIMEOUT_S)
        finally:
            if runner.poll() is None:
                runner.terminate()  # not kill: it has processes to end
                runner.wait(TIMEOUT_S)

    printed = log.read_text()
    assert answer["label"] == "versicolor"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    # 143 is what the runner makes of the SIGTERM it was sent; it says so when it has to kill what it started.
    assert runner.returncode in (0, 143), printed
    assert "SIGKILL" not in printed
    assert "Traceback" not in printed
    assert not answers(port)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, context: ssl.SSLContext | None = None) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context):
                return
        except OSError:
            time.sleep(0.02)  # nothing to await: the port is not open yet
    raise AssertionError(f"{url} did not answer:\n{log.read_text()}")


# --- nginx

needs_nginx = pytest.mark.skipif(NGINX is None and not IN_CI, reason="nginx is not installed")


@dataclass(frozen=True)
class Proxied:
    """The service behind nginx: TLS, and /iris/ before every path."""

    port: int
    trusted: ssl.SSLContext

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/iris/"

    def ask(
        self, path: str, headers: Mapping[str, str] | None = None, *, body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Return status, headers and body, without following redirects."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=TIMEOUT_S, context=self.trusted)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()


@pytest.fixture(scope="module")
def proxied(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """One for all tests that leave it as it is."""
    with behind_nginx(tmp_path_factory.mktemp("nginx"), model_path) as proxy:
        yield proxy


@contextlib.contextmanager
def behind_nginx(folder: Path, model_path: Path, **settings: str) -> Iterator[Proxied]:
    """Run the service behind the README's nginx configuration, ports and file names replaced by the test's own."""
    proxy = proxy_in(folder)
    log = folder / "service.txt"
    with (
        run_server(log, port=None, MODEL_FILE=str(model_path), **recipe_settings() | settings) as service,
        run_nginx(folder, proxy, [service.port]),
    ):
        yield proxy
    assert "Traceback" not in log.read_text()
    assert not re.findall(r"\[(?:error|crit|alert|emerg)\].*", (folder / "log.txt").read_text())


def proxy_in(folder: Path) -> Proxied:
    """Return a proxy that may be run, its certificate in the folder."""
    certificate(folder)
    return Proxied(free_port(), ssl.create_default_context(cafile=folder / "certificate.pem"))


@contextlib.contextmanager
def run_nginx(folder: Path, proxy: Proxied, upstream_ports: Sequence[int]) -> Iterator[None]:
    """Run nginx before services on these ports, its log in the folder."""
    assert NGINX, "CI=true, but nginx is not installed"
    (folder / "nginx.conf").write_text(nginx_configuration(folder, port=proxy.port, upstream_ports=upstream_ports))
    with (folder / "log.txt").open("wb") as output:
        nginx = subprocess.Popen(
            [NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"], stdout=output, stderr=output
        )
        try:
            wait_for(f"{proxy.url}health/ready", nginx, folder / "log.txt", proxy.trusted)
            yield
        finally:
            nginx.terminate()
            nginx.wait(TIMEOUT_S)


def recipe_settings() -> dict[str, str]:
    """Return the settings that the README's systemd unit makes for a service behind this proxy."""
    (unit,) = blocks("ini")
    made = dict(text.split("=", 1) for line in re.findall(r"^Environment=(.*)$", unit, re.M) for text in line.split())
    return {
        name: value for name, value in made.items() if name not in ("HOST", "PORT", "MODEL_FILE", "WEB_CONCURRENCY")
    }


def nginx_configuration(folder: Path, *, port: int, upstream_ports: Sequence[int]) -> str:
    (block,) = blocks("nginx")
    own = {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "    server 127.0.0.1:8000;": "\n".join(f"    server 127.0.0.1:{number};" for number in upstream_ports),
        "/etc/ssl/predictions/certificate.pem": str(folder / "certificate.pem"),
        "/etc/ssl/predictions/key.pem": str(folder / "key.pem"),
        "server_name predictions.example": "server_name 127.0.0.1",
    }
    for text, replacement in own.items():
        assert block.count(text) == 1, text
        block = block.replace(text, replacement)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    )
    # Started by root, nginx would hand its work to a user who may not read the test's folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"""{user}daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
access_log off;
{temporary}
{block}
}}
"""


def certificate(folder: Path) -> None:
    """Make a certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@needs_nginx
def test_the_prefix_without_its_slash_leads_to_the_page(proxied: Proxied) -> None:
    status, headers, _ = proxied.ask("/iris?petal_width=1.3")

    assert status == 308
    assert urljoin(proxied.origin, headers["Location"]) == f"{proxied.url}?petal_width=1.3"


@needs_nginx
@pytest.mark.parametrize("path", ["", "index", f"predict?{urlencode(EXAMPLE)}", "docs"])
def test_every_link_of_a_page_stays_under_the_prefix_and_leads_somewhere(proxied: Proxied, path: str) -> None:
    status, _, body = proxied.ask(f"/iris/{path}")
    page = parse_html(body.decode())
    links = [
        urljoin(f"{proxied.url}{path}", element.attributes[name])
        for element in page.all()
        for name in ("href", "src", "action", "hx-get", "hx-post", "data-src")
        if element.attributes.get(name)
    ]
    own = {link.partition("#")[0] for link in links if link.startswith(proxied.origin)}

    assert status == 200
    assert len(own) > 2
    for link in own:
        assert link.startswith(proxied.url), link
        # 405 and 426: what a form is posted to.
        assert proxied.ask(link.removeprefix(proxied.origin))[0] in (200, 303, 308, 405, 426), link


@needs_nginx
def test_every_channel_answers_through_the_proxy(proxied: Proxied, model: LoadedModel) -> None:
    expected = model.predict(model.validator.row(EXAMPLE))
    row = [float(text) for text in EXAMPLE.values()]
    posted = json.dumps({"sample": EXAMPLE}).encode()
    tensor = {"name": "samples", "shape": [1, 4], "datatype": "FP64", "data": row}

    _, _, page = proxied.ask(f"/iris/?{urlencode(EXAMPLE)}")
    _, _, fragment = proxied.ask(f"/iris/predict?{urlencode(EXAMPLE)}", FRAGMENT)
    _, _, got = proxied.ask(f"/iris/predict?{urlencode(EXAMPLE)}", JSON)
    _, _, answer = proxied.ask("/iris/predict", JSON_BODY, body=posted)
    _, _, result = proxied.ask("/iris/result", FORM | {"Origin": proxied.origin}, body=urlencode(EXAMPLE).encode())
    _, _, inferred = proxied.ask(
        "/iris/v2/models/iris/infer", JSON_BODY, body=json.dumps({"inputs": [tensor]}).encode()
    )

    for html in (page, fragment, result):
        assert parse_html(html.decode()).one(data_label=expected.label)
    for text in (got, answer):
        assert tuple(json.loads(text)["probabilities"].values()) == expected.probabilities
    outputs = {output["name"]: output["data"] for output in json.loads(inferred)["outputs"]}
    assert tuple(outputs["probabilities"]) == expected.probabilities


@needs_nginx
def test_an_error_comes_through_the_proxy_as_the_service_made_it(proxied: Proxied) -> None:
    status, headers, body = proxied.ask("/iris/predict?petal_width=x", JSON)

    assert status == 422
    assert headers["Content-Type"].startswith("application/problem+json")
    assert {error["code"] for error in json.loads(body)["errors"]} >= {"not_a_number"}


@needs_nginx
def test_the_largest_body_that_the_service_takes_passes_the_proxy_and_it_says_no_itself(proxied: Proxied) -> None:
    most = Settings().max_body_bytes
    content = json.dumps({"samples": [[5.6, 2.7, 4.2, 1.3]] * 1_000}).encode()

    status, _, body = proxied.ask("/iris/predict", JSON_BODY, body=content.ljust(most))
    refused, headers, _ = proxied.ask("/iris/predict", JSON_BODY, body=content.ljust(most + 1))

    assert status == 200
    assert len(json.loads(body)["predictions"]) == 1_000
    assert refused == 413
    assert headers["Content-Type"].startswith("application/problem+json")


@needs_nginx
def test_a_file_is_scored_through_the_proxy(proxied: Proxied, model: LoadedModel) -> None:
    rows = [",".join(EXAMPLE), *[",".join(EXAMPLE.values())] * 20_000]

    status, _, body = proxied.ask("/iris/score", {"Content-Type": "text/csv"}, body="\n".join(rows).encode())

    assert status == 200
    assert len(body.splitlines()) == 20_001
    assert body.splitlines()[-1].startswith(",".join([*EXAMPLE.values(), "versicolor"]).encode())


@needs_nginx
def test_the_service_knows_that_its_clients_speak_tls(proxied: Proxied) -> None:
    for claimed in ("https", "http"):
        _, headers, _ = proxied.ask("/iris/", {"X-Forwarded-Proto": claimed})

        assert "Strict-Transport-Security" in headers


@needs_nginx
def test_who_claims_another_address_each_time_stays_one_client(model_path: Path, tmp_path: Path) -> None:
    with behind_nginx(tmp_path, model_path, RATE_LIMIT="5/hour") as proxied:
        statuses = [
            proxied.ask(f"/iris/predict?{urlencode(EXAMPLE)}", {"X-Forwarded-For": f"192.0.2.{number}"})[0]
            for number in range(6)
        ]

    assert statuses[0] == 200
    assert statuses[-1] == 429


def streamed(proxied: Proxied, **options: Any) -> str:
    """Send one sample through the proxy's websocket; return the label that comes back."""
    address = f"wss://127.0.0.1:{proxied.port}/iris/stream"
    with connect(address, ssl=proxied.trusted, **options) as stream:
        assert json.loads(stream.recv(TIMEOUT_S))["type"] == "model"
        stream.send(json.dumps({"sample": EXAMPLE}))
        return str(json.loads(stream.recv(TIMEOUT_S))["label"])


@needs_nginx
def test_the_stream_passes_the_proxy_for_programs_and_for_its_own_pages(proxied: Proxied) -> None:
    assert streamed(proxied) == "versicolor"
    assert streamed(proxied, origin=proxied.origin) == "versicolor"


@needs_nginx
def test_the_stream_is_refused_to_a_stranger_through_the_proxy(proxied: Proxied) -> None:
    for stranger in ("https://127.0.0.1", "https://stranger.example", f"https://localhost:{proxied.port}"):
        with pytest.raises(InvalidStatus) as refused:
            streamed(proxied, origin=stranger, additional_headers={"X-Forwarded-Host": stranger.partition("//")[2]})
        assert refused.value.response.status_code == 403


@needs_nginx
@needs_chromium
def test_a_person_types_behind_the_proxy_and_nothing_is_asked_for_outside_the_prefix(
    browser: Browser, proxied: Proxied, model: LoadedModel
) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    label = model.predict(model.validator.row(EXAMPLE | {"petal_width": "2.3", "petal_length": "6"})).label

    with contextlib.closing(browser.new_context(ignore_https_errors=True)) as context:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{proxied.url}?{urlencode(EXAMPLE)}")
        page.locator('#measurements input[name="petal_length"]').first.fill("6")
        page.locator('#measurements input[name="petal_width"]').first.fill("2.3")
        expect(page.locator("#prediction [data-label]").first).to_have_attribute("data-label", label)
        page.wait_for_url("**/iris/?*petal_width=2.3*")
        first = page.evaluate(
            """() => new Promise((resolve, reject) => {
              const socket = new WebSocket("stream");
              socket.onmessage = (event) => resolve(JSON.parse(event.data).type);
              socket.onerror = () => reject(new Error("the stream was refused"));
            })"""
        )

    assert label == "virginica"
    assert first == "model"
    assert complaints == []
    assert len(asked) > 4
    assert [url for url in asked if not url.startswith(proxied.url)] == []
