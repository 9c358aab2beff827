"""The OpenAPI document and the page made of it are held to the service."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.model.modelfile import ModelFile
from ml.tables.numbers import LARGEST, is_half_typed, is_number, number_of
from tests import small_tables
from tests.conftest import Element, Server, parse_html, run_server
from tests.pipelines import numbers, oracle_of, words
from web.api import description, examples
from web.api.description import example_of, text_schemas
from web.api.encoder import encoder_of
from web.api.messages import (
    Answer,
    BatchAnswer,
    BatchItem,
    PredictionFrame,
    QuantityAnswer,
    QuantityFrame,
    QuantityItem,
    Value,
    ValueInterval,
)
from web.app import create_app
from web.page import openapi
from web.page.examples import _typical_rows
from web.scoring.uploaded_file import OPTIONS
from web.settings import Settings

ROW = [5.6, 2.7, 4.2, 9.0]


def test_the_document_has_every_route(model: LoadedModel) -> None:
    app = create_app(Settings())
    files = "/static/"  # of the page
    routes = [route for route in app.routes if isinstance(route, Route) and not route.path.startswith(files)]
    websockets = {(route.path, "GET") for route in app.routes if isinstance(route, WebSocketRoute)}

    described = {(path, method.upper()) for path, item in paths(model).items() for method in item}

    asked = {(route.path, method) for route in routes for method in (route.methods or {"GET", "POST"})}
    left_out = {"/favicon.ico", "/code", "/explain", "/v2/", "/v2/{path:path}"}
    own = {(path, method) for path, method in asked if method != "HEAD" and path not in left_out} | websockets
    assert described <= own
    assert {path for path, _ in own} == {path for path, _ in described}
    assert {pair for pair in own if not pair[0].startswith("/v2")} == {
        pair for pair in described if not pair[0].startswith("/v2")
    }


def paths(model: LoadedModel) -> dict[str, dict[str, object]]:
    described: dict[str, dict[str, object]] = openapi.describe(model, Settings())["paths"]
    return described


def test_the_document_names_the_features_with_unit_limits_and_example(model: LoadedModel) -> None:
    named = openapi.describe(model, Settings())["components"]["schemas"]["NamedSample"]

    assert list(named["properties"]) == named["required"] == [feature.key for feature in model.features]
    width = named["properties"]["petal_width"]
    assert width["description"] == "petal width in cm; 0.1 to 2.5 in the training data"
    assert width["anyOf"][0]["minimum"] == 0
    assert width["examples"] == [1.3]


def test_the_document_says_what_a_request_may_have_and_when_to_send_it_again(model: LoadedModel) -> None:
    schemas = openapi.describe(model, Settings())["components"]["schemas"]

    assert schemas["PredictRequest"]["additionalProperties"] is False
    assert schemas["PredictRequest"]["properties"].keys() == {"sample", "samples", "explain"}
    assert schemas["ProblemDetails"]["properties"]["retry_after_s"]["type"] == "integer"
    assert "retry_after_s" not in schemas["ProblemDetails"]["required"]
    assert "additionalProperties" not in schemas["InferenceRequest"]


def test_the_form_of_a_file_has_the_fields_that_say_how_it_is_read(model: LoadedModel) -> None:
    form = openapi.describe(model, Settings())["paths"]["/score"]["post"]["requestBody"]["content"]

    schema = form["multipart/form-data"]["schema"]
    assert [*schema["properties"]] == [*(option.decode() for option in OPTIONS), "file"]
    assert schema["required"] == ["file"]


def responses_of(model: LoadedModel, path: str, method: str, **settings: object) -> dict[str, Any]:
    described = openapi.describe(model, Settings(**settings))  # type: ignore[arg-type]  # one setting each
    found: dict[str, Any] = described["paths"][path][method]["responses"]
    return found


@pytest.mark.parametrize(
    ("path", "method"), [("/predict", "post"), ("/score", "post"), ("/v2/models/{name}/infer", "post")]
)
def test_what_takes_a_body_tells_of_every_refusal(model: LoadedModel, path: str, method: str) -> None:
    found = responses_of(model, path, method)

    assert {"400", "403", "408", "413", "415", "422", "429", "431", "503"} <= found.keys()
    assert "401" not in found


def test_only_what_acts_is_refused_to_other_sites(model: LoadedModel) -> None:
    assert "403" not in responses_of(model, "/predict", "get")
    assert "403" in responses_of(model, "/stream", "get")


def test_refusals_are_described_once_in_the_form_of_their_route(model: LoadedModel) -> None:
    described = openapi.describe(model, Settings())["components"]["responses"]

    assert responses_of(model, "/predict", "get")["429"] == {"$ref": "#/components/responses/TooMany"}
    assert responses_of(model, "/v2", "get")["429"] == {"$ref": "#/components/responses/InferenceTooMany"}
    assert set(described["TooMany"]["content"]) == {"application/problem+json", "text/html"}
    assert set(described["InferenceTooMany"]["content"]) == {"application/problem+json", "application/json"}
    assert set(described["HeadTooLarge"]["content"]) == {"application/problem+json"}
    assert described["TooMany"]["headers"].keys() == {"Retry-After", "X-Request-ID"}


def test_every_reference_of_the_document_leads_somewhere(model: LoadedModel) -> None:
    described = openapi.describe(model, Settings(api_token="a-token-of-24-characters"))

    references = set(re.findall(r'"\$ref":"#/components/([^"]*)"', msgspec.json.encode(described).decode()))

    assert len(references) > 30
    assert [each for each in references if each.split("/")[1] not in described["components"][each.split("/")[0]]] == []


def test_with_a_token_the_document_says_who_must_send_it(model: LoadedModel) -> None:
    described = openapi.describe(model, Settings(api_token="a-token-of-24-characters"))
    security = {path: item["get"].get("security") for path, item in described["paths"].items() if "get" in item}

    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert security["/predict"] == [{"token": []}, {"page": []}]
    assert security["/v2"] == security["/metrics"] == security["/health/drift"] == [{"token": []}]
    assert security["/"] is security["/health/ready"] is None
    assert "401" in responses_of(model, "/v2", "get", api_token="a-token-of-24-characters")
    assert "401" not in responses_of(model, "/", "get", api_token="a-token-of-24-characters")


@pytest.fixture(params=small_tables.KINDS)
def described(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LoadedModel, dict[str, Any]]:
    model = small_tables.written(request.param, tmp_path)
    return model, openapi.describe(model, Settings())


def test_the_document_describes_words_missing_values_and_the_answer(
    described: tuple[LoadedModel, dict[str, Any]],
) -> None:
    model, document = described
    schemas = document["components"]["schemas"]

    for feature in model.features:
        value = schemas["NamedSample"]["properties"][feature.key]
        assert value["examples"] == [feature.shown(feature.example)]
        assert ({"type": "null"} in value["anyOf"]) == feature.has_gaps
        assert ({"enum": [*feature.choices]} in value["anyOf"]) == bool(feature.choices)
    members = {"value", "interval"} if model.quantity else {"label", "probabilities"}
    for name in ("Answer", "BatchItem", "PredictionFrame"):
        assert members <= set(schemas[name]["required"])
        assert not {"label", "value"} - members <= set(schemas[name]["properties"])
    assert not [name for name in schemas if name.startswith("Quantit")]
    references = set(re.findall(r'"\$ref":"#/components/schemas/([^"]*)"', msgspec.json.encode(document).decode()))
    assert references <= schemas.keys()


def test_what_is_encoded_of_any_model_is_what_its_documented_types_encode(
    described: tuple[LoadedModel, dict[str, Any]],
) -> None:
    model, _ = described
    sample = {key: "Nowhere" if isinstance(value, str) else value for key, value in example_of(model.features).items()}
    row = model.validator.row(sample)
    encoder, prediction, notes = encoder_of(model), model.predict(row), model.validator.notes(row)
    name = encoder.name

    answer = encoder.answer(row, prediction, notes)
    item = encoder.batch_item(prediction, notes)
    frame = encoder.frame(UNSET, prediction)

    if model.quantity:
        assert model.quantity.interval is not None
        value, known = prediction.value, model.quantity.interval
        interval = ValueInterval(low=value - known.below, high=value + known.above, coverage=known.coverage)
        expected: Any = QuantityAnswer(model=name, sample=sample, value=value, interval=interval, notes=notes)
        expected_item: Any = QuantityItem(value=value, interval=interval, notes=notes)
        expected_frame: Any = QuantityFrame(id=UNSET, value=value, interval=interval, version=model.version)
    else:
        label, probabilities = prediction.label, dict(zip(model.labels, prediction.probabilities, strict=True))
        expected = Answer(model=name, sample=sample, label=label, probabilities=probabilities, notes=notes)
        expected_item = BatchItem(label=label, probabilities=probabilities, notes=notes)
        expected_frame = PredictionFrame(id=UNSET, label=label, probabilities=probabilities, version=model.version)
    assert answer == msgspec.json.encode(expected)
    assert item == msgspec.json.encode(expected_item)
    assert frame.encode() == msgspec.json.encode(expected_frame)


SPACES = st.text(st.sampled_from([chr(code) for code in range(0x3001) if chr(code).isspace()]), max_size=3)


@pytest.mark.parametrize("name", ["NumberText", "UnsignedNumberText"])
@given(data=st.data())
def test_text_that_fits_the_pattern_is_a_finite_number(name: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(text_schemas()[name]["pattern"]))

    assert abs(number_of(text)) < LARGEST
    assert number_of(text) >= 0 or name == "NumberText"


@given(
    number=st.floats(-1e15, 1e15),
    mark=st.sampled_from(".,"),
    before=SPACES,
    after=SPACES,
    minus=st.sampled_from("-\u2212"),
)
def test_numbers_as_people_write_them_fit_the_pattern(
    number: float, mark: str, before: str, after: str, minus: str
) -> None:
    text = before + repr(number).replace(".", mark).replace("-", minus) + after

    assert re.search(text_schemas()["NumberText"]["pattern"], text)
    assert bool(re.search(text_schemas()["UnsignedNumberText"]["pattern"], text)) == (
        minus not in text.partition("e")[0]
    )


@given(text=st.text("0123456789.,eE+-\u2212 \u00a0\u0663x", max_size=12))
def test_text_fits_a_pattern_just_when_the_validator_reads_it(text: str) -> None:
    patterns = {name: re.search(schema["pattern"], text) for name, schema in text_schemas().items()}

    assert (patterns["HalfTypedText"] is not None) == is_half_typed(text)
    if patterns["NumberText"]:
        assert is_number(text)
    elif is_number(text):
        # With a larger exponent than the pattern has, or more zeros before it, text may still be a finite number.
        assert re.search(r"[eE]\+?(0{4,}|0*([3-9][0-9]|[1-9][0-9]{2}))|[eE][-\u2212][0-9]{4}", text)


def test_a_value_whose_limits_no_pattern_can_express_says_that_text_is_read(model: LoadedModel) -> None:
    limited = description.value_of(msgspec.structs.replace(model.features[0], minimum=1.0, maximum=9.0))

    assert limited["anyOf"] == [{"type": "number", "minimum": 1.0, "maximum": 9.0}]
    assert "text as a person types it is read as well" in limited["description"]


def test_what_is_encoded_piece_by_piece_is_what_the_documented_types_encode(model: LoadedModel) -> None:
    encoder, prediction, notes = encoder_of(model), model.predict(ROW), model.validator.notes(ROW)
    probabilities = dict(zip(model.labels, prediction.probabilities, strict=True))
    sample: dict[str, Value] = dict(zip(model.validator.keys, ROW, strict=True))
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


def test_every_example_has_the_answer_that_the_service_gives(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    def example(path: str, method: str, media_type: str = "application/json") -> tuple[Any, Any]:
        operation = paths[path][method]
        asked = operation.get("requestBody", {}).get("content", {}).get(media_type, {})
        said = operation["responses"]["200"]["content"][media_type]
        return asked.get("examples", asked.get("example")), said.get("examples", said.get("example"))

    bodies, answers = example("/predict", "post")
    for name, body in bodies.items():
        assert client.post("/predict", json=body["value"]).json() == answers[name]["value"]
    _, answers = example("/predict", "get")
    asked = {one["name"]: one["example"] for one in paths["/predict"]["get"]["parameters"] if "example" in one}
    assert (
        client.get("/predict", params=asked, headers={"Accept": "application/json"}).json() == answers["one"]["value"]
    )
    table, scored = example("/score", "post", "text/csv")
    assert client.post("/score", content=table, headers={"Content-Type": "text/csv"}).text == scored
    bodies, answers = example("/v2/models/{name}/infer", "post")
    infer = client.post("/v2/models/iris/infer", json=bodies["one"]["value"])
    assert infer.json() == answers["one"]["value"]
    frames = paths["/stream"]["get"]["responses"]["101"]["content"]["application/json"]["examples"]
    with client.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_json(frames["request"]["value"])
        assert stream.receive_json() == frames["reply"]["value"]


def test_training_rows_that_are_no_samples_are_no_examples(stored: ModelFile) -> None:
    rows = stored.reference_rows.copy()
    rows[::2, 1] = np.nan
    for reference_rows in (rows, rows[:0]):
        model = LoadedModel(dataclasses.replace(stored, reference_rows=reference_rows), "version")

        assert set(examples.answers_of(model)) == {"one", "many"}


def test_words_too_rare_for_a_choice_are_in_no_example() -> None:
    rng = np.random.default_rng(0)
    columns = [words(rng, 60, ("a", "b"), rare=0.9), numbers(rng, 60)]
    model = oracle_of(columns, columns[1].codes, recipe=Recipe(n_estimators=2)).model()

    assert None not in examples.requests_of(model)["many"]["samples"][0]
    assert set(examples.answers_of(model)) == {"one", "many"}
    assert all(row[0] >= 0 for _, row in _typical_rows(model))


def test_the_documentation_begins_with_its_contents_and_the_routes_that_matter(client: TestClient) -> None:
    page = parse_html(client.get("/docs?lang=es").text)

    contents = [link.attributes["href"] for link in page.one("nav", **{"class": "contents"}).all("a")]
    headings = [heading.attributes["id"] for heading in page.all() if heading.tag in ("h2", "h3")]
    assert [f"#{identity}" for identity in headings[1:]] == contents
    assert contents[1:5] == ["#predictions", "#predictMany", "#predict", "#stream"]
    assert page.one("html").attributes["lang"] == "es"
    assert page.one(id="predictMany").text == "Predecir una muestra o muchas"
    answers = [code.text for code in page.one("main").all("code") if code.text.startswith('{ "model"')]
    assert msgspec.json.decode(answers[0])["label"] == "versicolor"


def test_what_the_documentation_says_of_addresses_is_in_the_language_of_its_page(client: TestClient) -> None:
    page = parse_html(client.get("/docs?lang=es").text)
    main = page.one("main")

    # All but the JSON Schema of the messages of programs.
    assert [element.text for element in page.all(lang="en") if element.tag != "a"] == []
    assert " árboles; predice species. " in page.one("header").text
    rows = [[cell.text for cell in row.all("td")] for row in main.one("table").all("tr")]
    assert " ".join(rows[1]).replace("\xa0", " ") == "largo del sépalo (cm) 4,3 a 7,9 cm límites: ≥ 0 cm 5.7"
    assert "Más de 12582912 bytes o de 10000 muestras." in main.text


def test_every_example_of_the_documentation_runs(server: Server, client: TestClient, tmp_path: Path) -> None:
    run_examples(parse_html(client.get("/docs").text), server.url, tmp_path)


def run_examples(page: Element, url: str, folder: Path) -> None:
    commands = [element.text for element in page.all("code") if element.text.startswith(("curl ", "printf "))]

    for command in commands:
        asked = command.replace("http://testserver", url)
        done = subprocess.run(
            f"{asked} -o {folder / 'answer'} -w '%{{http_code}}'", shell=True, capture_output=True, check=True
        )
        assert done.stdout in (b"200", b"303"), command
    assert len(commands) >= 12


CHECKED = Path(__file__).parent / "schemathesis.toml"
TOKEN = "a-token-of-24-characters"


def schemathesis(document: str, folder: Path, *options: str) -> None:
    """Send what a document admits and what it does not, and hold the answers to it, with every check there is."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(CHECKED), "run", document),
            *("--seed", "1", "--checks", "all", "--max-examples", "5", "--phases", "examples,coverage"),
            # How long an answer takes says more about what else the machine does than about the service.
            *("--max-response-time", "600", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9][0-9]* generated", done.stdout), done.stdout


def test_the_service_does_what_its_document_says(server: Server, tmp_path: Path) -> None:
    schemathesis(f"{server.url}/openapi.json", tmp_path)


# The built-in model has classes and `prices` words, gaps and a quantity: `make audit` asks for classes of words too.
@pytest.fixture(scope="module", params=[pytest.param("penguins", marks=pytest.mark.long), "prices"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a model of words, missing values, and a quantity."""
    folder = tmp_path_factory.mktemp(request.param)
    small_tables.written(request.param, folder)
    with run_server(folder / "log.txt", MODEL_FILE=str(folder / f"{request.param}.npz")) as server:
        yield server


def test_a_service_of_words_and_quantities_does_what_its_document_says(other: Server, tmp_path: Path) -> None:
    # The operations whose requests depend on the model; the others are those of the built-in one.
    schemathesis(
        f"{other.url}/openapi.json", tmp_path, "--include-path-regex", "^/(predict|result|score)?$|models/[^/]*/infer$"
    )


@pytest.mark.long
def test_all_of_a_service_of_words_and_quantities_does_what_its_document_says(other: Server, tmp_path: Path) -> None:
    schemathesis(f"{other.url}/openapi.json", tmp_path)


def test_every_example_of_a_model_of_words_runs(other: Server, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{other.url}/docs") as response:
        page = parse_html(response.read().decode())

    run_examples(page, other.url, tmp_path)


@pytest.mark.long
def test_json_of_words_is_taken_just_when_the_document_admits_it(other: Server, tmp_path: Path) -> None:
    model = load_model(Path(other.log.parent) / f"{other.log.parent.name.rstrip('0123456789')}.npz")
    schemathesis(*strict_document(other, tmp_path, model), "--phases", "fuzzing")


@pytest.mark.long
def test_json_is_taken_just_when_the_document_admits_it(server: Server, tmp_path: Path, model: LoadedModel) -> None:
    schemathesis(*strict_document(server, tmp_path, model), "--phases", "fuzzing")


def strict_document(server: Server, folder: Path, model: LoadedModel) -> tuple[str, Path, str, str, str, str]:
    """Write the document for who asks for JSON: nothing may be left out there, or be half typed."""
    described = openapi.describe(model, Settings())
    described["paths"] = {"/predict": described["paths"]["/predict"]}
    schemas = described["components"]["schemas"]
    # Text has no null.
    given = {
        key: value | {"anyOf": [kind for kind in value["anyOf"] if kind != {"type": "null"}]}
        for key, value in schemas["NamedSample"]["properties"].items()
    }
    schemas["TypedSample"] = schemas["NamedSample"] | {"properties": given}
    for parameter in described["paths"]["/predict"]["get"]["parameters"]:
        if parameter.get("in") == "query":
            parameter |= {"required": True, "schema": given[parameter["name"]]}
    path = folder / "strict.json"
    path.write_bytes(msgspec.json.encode(described))
    return str(path), folder, "--url", server.url, "-H", "Accept: application/json"


@pytest.fixture(scope="module")
def guarded(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("guarded") / "log.txt"
    origin = "https://allowed.example"
    with run_server(log, MODEL_FILE=str(model_path), API_TOKEN=TOKEN, ALLOWED_ORIGINS=origin) as server:
        yield server


AUTHORIZED = ("-H", f"Authorization: Bearer {TOKEN}")
MANY = ("--max-examples", "50", "--phases", "examples,coverage,fuzzing")


@pytest.mark.long
def test_a_guarded_service_does_what_its_document_says(guarded: Server, tmp_path: Path) -> None:
    schemathesis(
        f"{guarded.url}/openapi.json", tmp_path, *AUTHORIZED, "--include-path-regex", "^/(predict|metrics|v2)?$"
    )


@pytest.mark.long
def test_many_examples_find_nothing(server: Server, tmp_path: Path) -> None:
    schemathesis(f"{server.url}/openapi.json", tmp_path, *MANY)


@pytest.mark.long
def test_many_examples_find_nothing_on_a_guarded_service(guarded: Server, tmp_path: Path) -> None:
    schemathesis(f"{guarded.url}/openapi.json", tmp_path, *MANY, *AUTHORIZED)


@pytest.mark.long
def test_many_examples_find_nothing_beyond_the_rate(model_path: Path, tmp_path: Path) -> None:
    with run_server(tmp_path / "log.txt", MODEL_FILE=str(model_path), RATE_LIMIT="60/second") as server:
        schemathesis(f"{server.url}/openapi.json", tmp_path, *MANY)


def test_an_unknown_address_gives_a_browser_a_page_that_leads_back(client: TestClient) -> None:
    response = client.get("/some/where/else", headers={"Accept": "text/html"})

    page = parse_html(response.text)

    assert response.status_code == 404
    assert page.one("h1").text == "Page not found"
    assert page.one("main").one("a").attributes["href"] == "../../"
