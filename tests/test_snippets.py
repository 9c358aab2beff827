"""Snippets are run as they stand, on real servers: what they print is what the model answers."""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from ml.model.card import Recipe
from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel, load_model
from ml.tables.dataset import Feature
from ml.training import fitting, writing
from tests import small_tables
from tests.browser import needs_chromium
from tests.builders import dataset_of
from tests.conftest import Server, parse_html, run_server
from web.page import languages, snippets
from web.page.snippet_panel import code_view
from web.page.snippets import Input, SnippetContext

TOKEN = "a.token~of+some/length="
# Quotes of every language, an end of a script, what cannot be seen, and a key that JavaScript takes for something else.
KEYS = ("it's $HOME", '`date` "\\', "größe\u202e\U000e0001\n", "__proto__", "</script><b>&amp;", "plain")
KINDS = ("plain", "hostile", "guarded")


def call(
    *inputs: Input, address: str = "http://host/", model: str = "model", needs_token: bool = False
) -> SnippetContext:
    return SnippetContext(address, model, inputs or (Input("a", "A (cm)", "1.5"), Input("b", "B", "-2")), needs_token)


def test_keys_are_quoted_for_the_language_that_they_stand_in() -> None:
    hostile = call(*(Input(key, key, "1") for key in KEYS))

    assert '"it\'s $HOME": 1' in snippets.python(hostile)
    assert """"it'"'"'s $HOME": 1""" in snippets.curl(hostile)
    assert '["__proto__"]: 1' in snippets.javascript(hostile)
    assert " plain: 1" in snippets.javascript(hostile)
    assert 'name="&lt;/script&gt;&lt;b&gt;&amp;amp;"' in snippets.htmx(hostile)
    for write in (snippets.curl, snippets.python, snippets.javascript, snippets.inference, snippets.tritonclient):
        assert "</script>" not in write(hostile)
        assert write(hostile).replace("\n", "").isprintable()


def test_python_gets_one_character_where_json_has_two() -> None:
    program = snippets.python(call(Input("\U000e0001", "", "1")))

    (sample,) = [node.value for node in ast.parse(program).body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(sample) == {"\U000e0001": 1}


def test_addresses_keep_their_scheme_and_their_prefix() -> None:
    behind_tls = call(address="https://host:8443/models/a/", model="my model/2")

    assert snippets.curl(behind_tls).startswith("curl -s https://host:8443/models/a/predict ")
    assert "https://host:8443/models/a/v2/models/my%20model%2F2/infer " in snippets.inference(behind_tls)
    assert '"wss://host:8443/models/a/stream"' in snippets.python(behind_tls)
    assert '"https://host:8443/models/a/predict"' in snippets.javascript(behind_tls)
    assert 'hx-get="https://host:8443/models/a/predict"' in snippets.htmx(behind_tls)
    assert '("host:8443/models/a", ssl=True)' in snippets.tritonclient(behind_tls)
    assert '"ws://host/stream"' in snippets.python(call())


def test_a_token_is_read_from_the_environment() -> None:
    guarded, free = call(needs_token=True), call()

    for write in (snippets.curl, snippets.python, snippets.javascript, snippets.inference, snippets.tritonclient):
        assert "Bearer" in write(guarded)
        assert "API_TOKEN" in write(guarded)
        assert "Bearer" not in write(free)


def test_long_samples_are_arrays_of_short_lines() -> None:
    long = call(*(Input(f"key_{number}", f"Title {number}", f"{number}.123456") for number in range(60)))

    for write in (snippets.curl, snippets.python, snippets.javascript, snippets.inference, snippets.tritonclient):
        text = write(long)
        assert "key_1" not in text
        assert "59.123456" in text
        assert max(map(len, text.splitlines())) <= 100
        assert len(text.splitlines()) < 30


def test_a_form_has_one_line_a_feature() -> None:
    long = call(*(Input(f"key_{number}", f"Title {number}", "1.5") for number in range(60)))

    form = parse_html(snippets.htmx(long)).one("form")

    assert [one.attributes["name"] for one in form.all("input")] == [f"key_{number}" for number in range(60)]
    assert form.all("label")[7].text == "Title 7"


def test_words_and_missing_values_are_written_as_each_language_has_them() -> None:
    asked = call(
        Input("a", "A", small_tables.HOSTILE, is_word=True),
        Input("b", "B", "NA", is_word=True, is_missing=True),
        Input("c", "C", "NA", is_missing=True),
    )

    (sample,) = [n.value for n in ast.parse(snippets.python(asked)).body if isinstance(n, ast.Assign)]
    assert ast.literal_eval(sample) == {"a": small_tables.HOSTILE, "b": None, "c": None}
    assert "b: null, c: null" in snippets.javascript(asked)
    assert [one.attributes["value"] for one in parse_html(snippets.htmx(asked)).all("input")] == [
        small_tables.HOSTILE, "NA", "NA",
    ]  # fmt: skip
    for write in (snippets.curl, snippets.python, snippets.javascript, snippets.inference, snippets.tritonclient):
        assert "</script>" not in write(asked)
        assert write(asked).replace("\n", "").isprintable()


# Run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose every name wants to be something else."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(90, len(KEYS)))
    dataset = dataset_of(
        rows,
        (rows[:, 0] > 0).astype(np.intp) + (rows[:, 1] > 0),
        name='it\'s a "$HOME" `date` größe ?&#%2F',
        features=[Feature(key=key, title=f"<i>{key}", unit="\"'$") for key in KEYS],
        labels=("<b>'", '"$HOME', "größe"),
    )
    path = tmp_path_factory.mktemp("hostile") / "hostile.npz"
    trained = fitting.fit(dataset, Recipe(n_estimators=5))
    writing.write(writing.model_of(trained), path, trained=trained)
    return path


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A site that has htmx, and a page that a test has put there."""

    page = ""

    def do_GET(self) -> None:
        is_script = self.path == "/htmx.js"
        htmx = resources.files("django_htmx").joinpath("static/django_htmx/htmx-2.min.js")
        content = htmx.read_bytes() if is_script else self.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if is_script else "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


@dataclass(frozen=True)
class Service:
    """A server, and the snippets for a sample with what the model answers to it."""

    server: Server
    prediction: Prediction
    model: LoadedModel
    programs: dict[str, str]

    def expect_answer(self, label: str, probabilities: dict[str, float]) -> None:
        assert label == self.prediction.label
        assert probabilities == dict(zip(self.model.labels, self.prediction.probabilities, strict=True))


@pytest.fixture(scope="module")
def services(
    server: Server, model_path: Path, hostile: Path, elsewhere: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Service]]:
    """One server of each of the `KINDS`."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        run_server(folder / "hostile.txt", MODEL_FILE=str(hostile), ALLOWED_ORIGINS=elsewhere) as other,
        run_server(folder / "guarded.txt", MODEL_FILE=str(model_path), API_TOKEN=TOKEN) as guarded,
    ):
        found = {}
        paths = {"plain": model_path, "hostile": hostile, "guarded": model_path}
        for kind, running in zip(KINDS, (server, other, guarded), strict=True):
            model = load_model(paths[kind])
            row = [0.1 * position + feature.low for position, feature in enumerate(model.features)]
            view = code_view(
                model,
                row,
                address=f"{running.url}/",
                needs_token=kind == "guarded",
                language=languages.language("en"),
            )
            programs = {snippet.id: snippet.text for snippet in view.snippets}
            found[kind] = Service(running, model.predict(row), model, programs)
        yield found


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest, services: dict[str, Service]) -> Service:
    return services[request.param]


def run(*command: str, folder: Path) -> str:
    environment = {**os.environ, "API_TOKEN": TOKEN, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_shell_command_prints_the_answer(service: Service, tmp_path: Path) -> None:
    answer = json.loads(run("sh", "-c", service.programs["code-curl"], folder=tmp_path))

    service.expect_answer(answer["label"], answer["probabilities"])


def test_the_command_of_the_inference_protocol_prints_the_answer(service: Service, tmp_path: Path) -> None:
    answer = json.loads(run("sh", "-c", service.programs["code-oip"], folder=tmp_path))

    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    service.expect_answer(outputs["label"][0], dict(zip(service.model.labels, outputs["probabilities"], strict=True)))


def test_the_python_program_prints_the_answer(service: Service, tmp_path: Path) -> None:
    printed = run(sys.executable, "-W", "error", "-c", service.programs["code-python"], folder=tmp_path)

    label, _, probabilities = printed.strip().partition(" {")
    service.expect_answer(label, ast.literal_eval("{" + probabilities))


@pytest.mark.parametrize("kind", ["hostile", "guarded"])
def test_the_inference_client_prints_the_answer(kind: str, services: dict[str, Service], tmp_path: Path) -> None:
    service = services[kind]

    printed = run(sys.executable, "-c", service.programs["code-triton"], folder=tmp_path)

    label = np.array([service.prediction.label.encode()], dtype=np.object_)
    assert printed.strip() == f"{label} {np.array([service.prediction.probabilities])}"


@dataclass(frozen=True)
class Asked:
    """The snippets for a sample with a missing value, and the outputs that scikit-learn gives to it."""

    programs: dict[str, str]
    outputs: list[float]
    name: str


@pytest.fixture(scope="module", params=["penguins", "prices"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp(request.param)
    model = small_tables.written(request.param, folder)
    sample = {"island": "Dream", "sex": "", "bill_length": None, "body_mass": 3_900}
    sample = {"colour": small_tables.HOSTILE, "carat": None} if request.param == "prices" else sample | {"sex": None}
    with run_server(folder / "log.txt", MODEL_FILE=str(folder / f"{request.param}.npz")) as server:
        english = languages.language("en")
        view = code_view(model, sample, address=f"{server.url}/", needs_token=False, language=english)
        assert not view.note
        row = np.array([model.validator.row(sample)])
        outputs = model.predict_batch(row).outputs[0].tolist()
        yield Asked({snippet.id: snippet.text for snippet in view.snippets}, outputs, request.param)


@pytest.mark.parametrize("name", ["curl", "oip", "python", "triton", "js"])
def test_words_missing_values_and_quantities_go_through_every_program(asked: Asked, name: str, tmp_path: Path) -> None:
    program = asked.programs[f"code-{name}"]
    if name == "js":
        if shutil.which("node") is None:
            pytest.skip("Node is not installed")
        (tmp_path / "snippet.mjs").write_text(program, encoding="utf-8")
    command = {"curl": ("sh", "-c"), "oip": ("sh", "-c"), "js": ("node", "snippet.mjs")}
    started = command.get(name, (sys.executable, "-c"))

    printed = run(*started, *([] if name == "js" else [program]), folder=tmp_path)

    numbers = [float(number) for number in re.findall(r"[0-9]+\.?[0-9]*(?:e-?[0-9]+)?", printed)]
    assert all(pytest.approx(output, rel=1e-7) in numbers for output in asked.outputs), printed
    if asked.name == "prices" and name in ("curl", "python", "js"):
        assert "coverage" in printed


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed; the browser runs the same program")
def test_the_javascript_module_prints_the_answer_in_node(service: Service, tmp_path: Path) -> None:
    (tmp_path / "snippet.mjs").write_text(service.programs["code-js"], encoding="utf-8")

    printed = run("node", "snippet.mjs", folder=tmp_path)

    label, _, probabilities = printed.strip().partition(" {")
    service.expect_answer(label, json.loads("{" + probabilities))


@needs_chromium
def test_the_javascript_module_prints_the_answer_on_our_page(service: Service, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(service.server.url)

    with page.expect_console_message() as found:
        page.evaluate(f"(async () => {{ {service.programs['code-js']} }})()")

    label, _, probabilities = found.value.text.partition(" {")
    service.expect_answer(label, json.loads("{" + probabilities))
    page.close()


@needs_chromium
def test_the_form_shows_the_answer_on_a_page_elsewhere(
    services: dict[str, Service], browser: Browser, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, start = services["hostile"], '<!doctype html><title>x</title><script src="htmx.js"></script>'
    monkeypatch.setattr(Elsewhere, "page", start + service.programs["code-htmx"])
    page = browser.new_page()
    page.goto(elsewhere)

    answer = page.locator("#answer [data-label]")
    expect(answer).to_have_attribute("data-label", service.prediction.label)
    values = {one.get_attribute("name"): one.input_value() for one in page.locator("input").all()}
    assert list(values) == [feature.key for feature in service.model.features]
    row = [feature.high for feature in service.model.features]
    for field, value in zip(page.locator("input").all(), row, strict=True):
        field.fill(str(value))
    expect(answer).to_have_attribute("data-label", service.model.predict(row).label)
    assert service.model.predict(row).label != service.prediction.label
    page.close()
