"""The OpenAPI document and the page made of it are held to the service."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET
from starlette.routing import Route
from starlette.testclient import TestClient

from ml.model.classifier import Classifier
from tests.conftest import Server, parse_html
from web.api.messages import Answer, BatchAnswer, BatchItem, PredictionFrame, encoder_of
from web.app import create_app
from web.page import openapi
from web.settings import Settings

ROW = [5.6, 2.7, 4.2, 9.0]


def test_the_document_has_every_route(model: Classifier) -> None:
    routes = [route for route in create_app(Settings()).routes if isinstance(route, Route)]

    described = {(path, method.upper()) for path, item in paths(model).items() for method in item}

    asked = {(route.path, method) for route in routes for method in (route.methods or {"GET", "POST"})}
    left_out = {"/favicon.ico", "/code", "/v2/", "/v2/{path:path}"}
    own = {(path, method) for path, method in asked if method != "HEAD" and path not in left_out}
    assert described <= own
    assert {path for path, _ in own} == {path for path, _ in described}
    assert {pair for pair in own if not pair[0].startswith("/v2")} == {
        pair for pair in described if not pair[0].startswith("/v2")
    }


def paths(model: Classifier) -> dict[str, dict[str, object]]:
    described: dict[str, dict[str, object]] = openapi.describe(model, Settings())["paths"]
    return described


def test_the_document_names_the_features_with_unit_limits_and_example(model: Classifier) -> None:
    named = openapi.describe(model, Settings())["components"]["schemas"]["NamedSample"]

    assert list(named["properties"]) == named["required"] == [feature.key for feature in model.features]
    width = named["properties"]["petal_width"]
    assert width["description"] == "petal width in cm; 0.1 to 2.5 in the training data"
    assert width["anyOf"][0]["minimum"] == 0
    assert width["examples"] == [1.3]


def test_the_document_says_what_a_request_may_have_and_when_to_send_it_again(model: Classifier) -> None:
    schemas = openapi.describe(model, Settings())["components"]["schemas"]

    assert schemas["PredictRequest"]["additionalProperties"] is False
    assert schemas["PredictRequest"]["properties"].keys() == {"id", "sample", "samples"}
    assert schemas["ProblemDetails"]["properties"]["retry_after_s"]["type"] == "integer"
    assert "retry_after_s" not in schemas["ProblemDetails"]["required"]
    assert "additionalProperties" not in schemas["InferenceRequest"]


def test_what_is_encoded_piece_by_piece_is_what_the_documented_types_encode(model: Classifier) -> None:
    encoder, prediction, notes = encoder_of(model), model.predict(ROW), model.validator.notes(ROW)
    probabilities = dict(zip(model.labels, prediction.probabilities, strict=True))
    sample = dict(zip((feature.key for feature in model.features), ROW, strict=True))
    item = BatchItem(label=prediction.label, probabilities=probabilities, notes=notes)
    answer = Answer(model=encoder.name, sample=sample, label=prediction.label, probabilities=probabilities, notes=notes)
    batch = BatchAnswer(model=encoder.name, predictions=[item, item])
    frame = PredictionFrame(id=UNSET, label=prediction.label, probabilities=probabilities, version=model.version)

    assert notes
    assert encoder.answer(ROW, prediction, notes) == msgspec.json.encode(answer)
    assert encoder.batch([encoder.batch_item(prediction, notes)] * 2) == msgspec.json.encode(batch)
    assert encoder.frame(UNSET, prediction).encode() == msgspec.json.encode(frame)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_the_documentation_is_kept_until_it_changes(client: TestClient, path: str) -> None:
    response = client.get(path)

    again = client.get(path, headers={"If-None-Match": response.headers["etag"]})

    assert response.status_code == 200
    assert (again.status_code, again.content) == (304, b"")


def test_every_example_of_the_documentation_runs(server: Server, client: TestClient, tmp_path: Path) -> None:
    page = parse_html(client.get("/docs").text)
    commands = [element.text for element in page.all("code") if element.text.startswith(("curl ", "printf "))]

    for command in commands:
        asked = command.replace("http://testserver", server.url)
        done = subprocess.run(
            f"{asked} -o {tmp_path / 'answer'} -w '%{{http_code}}'", shell=True, capture_output=True, check=True
        )
        assert done.stdout in (b"200", b"303"), command
    assert len(commands) >= 12


def schemathesis(server: Server, folder: Path, *options: str) -> None:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"),
            *("--seed", "1", "--max-examples", "12", "--phases", "examples,coverage,fuzzing", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9][0-9]* generated", done.stdout), done.stdout


def test_nothing_that_the_document_admits_breaks_it(server: Server, tmp_path: Path) -> None:
    # A page takes what is half typed, and shapes that do not fit their data cannot be told by a schema.
    lenient = "negative_data_rejection,positive_data_acceptance"
    schemathesis(server, tmp_path, "--exclude-checks", lenient)


def test_json_is_taken_just_when_the_document_admits_it(server: Server, tmp_path: Path) -> None:
    schemathesis(server, tmp_path, "--include-path", "/predict", "-H", "Accept: application/json")


def test_an_unknown_address_gives_a_browser_a_page_that_leads_back(client: TestClient) -> None:
    response = client.get("/some/where/else", headers={"Accept": "text/html"})

    page = parse_html(response.text)

    assert response.status_code == 404
    assert page.one("h1").text == "Page not found"
    assert page.one("main").one("a").attributes["href"] == "../../"
