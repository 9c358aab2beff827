"""The service's documentation: the OpenAPI document as JSON, and as a page for people, both of the same source.

The page is in the reader's language, but for the JSON Schema of the messages, and names in the model's file.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ml.model.card import TrainedFeature
from ml.model.loaded import LoadedModel
from ml.tables.headers import apart
from web.api.description import SHOWN_CHOICES, Json, text_of
from web.page import languages, openapi
from web.page.axes import axis_title
from web.page.examples import Link, language_links
from web.page.fields import query_in
from web.page.languages import Language
from web.page.model_card import limits_text, range_text, summary_of
from web.page.templates import render
from web.requests import Representation, is_known
from web.responses import Content, headers_of, tag_of
from web.service import service_of
from web.settings import Settings

# What the document says, and the code of the language that it is in.
Said = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FeatureView:
    """A row of the table of features: `training` is its range there or its words, `limits` are empty without any."""

    key: str
    title: str
    training: str
    limits: str
    example: str


@dataclass(frozen=True, slots=True)
class ResponseView:
    """One status that an operation answers with, and the media types and headers of what it then sends."""

    status: str
    description: Said
    content: str
    headers: str


@dataclass(frozen=True, slots=True)
class ExampleView:
    """A command that can be run as it stands, or a frame, and its answer; either may be empty."""

    request: str
    answer: str


@dataclass(frozen=True, slots=True)
class OperationView:
    """One address and method; `refusals` are the statuses that it shares with others."""

    id: str
    method: str
    path: str
    summary: str
    description: Said
    examples: Sequence[ExampleView]
    replies: Sequence[ResponseView]
    refusals: str


@dataclass(frozen=True, slots=True)
class GroupView:
    """Operations that belong together; `id` is that of their heading."""

    id: str
    title: str
    operations: Sequence[OperationView]


@dataclass(frozen=True, slots=True)
class SchemaView:
    """One message as JSON Schema."""

    name: str
    summary: str
    json: str


@dataclass(frozen=True, slots=True)
class DocsView:
    """The page; `query` is that of links to other pages."""

    name: str
    version: str
    description: str
    features: Sequence[FeatureView]
    groups: Sequence[GroupView]
    refusals: Sequence[ResponseView]
    schemas: Sequence[SchemaView]
    languages: Sequence[Link]
    query: str


async def openapi_json(request: Request) -> Response:
    """GET /openapi.json: the document for programs."""
    service = service_of(request.scope)
    return _answer(request, openapi.document(service.model, service.settings), representation="json")


async def docs(request: Request) -> Response:
    """GET /docs: the document for people."""
    service, to = service_of(request.scope), languages.asked(request.scope)
    content = _page(service.model, service.settings, to, address=str(request.base_url))
    return _answer(request, content.encode(), representation="page", lang=to.code)


def example_page(model: LoadedModel, settings: Settings, to: Language) -> str:
    """Return the page as a client on this machine sees it."""
    return _page(model, settings, to, address="http://127.0.0.1/")


def _page(model: LoadedModel, settings: Settings, to: Language, *, address: str) -> str:
    view = docs_view(model, openapi.describe(model, settings), to, address=address)
    return render("docs.html", to, docs=view)


def _answer(
    request: Request, content: bytes, *, representation: Representation, lang: str = languages.SOURCE
) -> Response:
    tag = tag_of(content)
    headers = headers_of(representation, tag, lang=lang)
    if is_known(request.scope, tag):
        return Content(b"", status=304, headers=headers)
    return Content(content, status=200, headers=headers)


def docs_view(model: LoadedModel, description: Json, to: Language, *, address: str) -> DocsView:
    """Return the view of an OpenAPI document; `address` is where the service answers, with a slash at its end."""
    return DocsView(
        name=model.name,
        version=model.version,
        description=summary_of(model.card, to),
        features=[
            FeatureView(
                key=feature.key,
                title=axis_title(feature, to),
                training=_training(feature, to),
                limits=limits_text(feature, to),
                example=text_of(feature, feature.example),
            )
            for feature in model.features
        ],
        groups=_groups(description, to, address=address),
        refusals=_refusals(description, to),
        schemas=[
            SchemaView(
                name,
                schema.get("description", schema.get("title", "")).partition("\n")[0].replace("`", ""),
                _shown(schema),
            )
            for name, schema in description["components"]["schemas"].items()
        ],
        languages=language_links({}, to),
        query=query_in(to, model),
    )


def _training(feature: TrainedFeature, to: Language) -> str:
    more = ["…"] if len(feature.choices) > SHOWN_CHOICES else []
    words = ", ".join([*apart(feature.choices[:SHOWN_CHOICES]), *more])
    text = words if feature.choices else range_text(feature, to)
    return text + "; " + to.gettext("may be missing") if feature.has_gaps else text


def _groups(description: Json, to: Language, *, address: str) -> Sequence[GroupView]:
    """Return the operations, those that most programs need first.

    Those that name the model's version are left out: they are the same as those without it.
    """
    groups = (
        ("predictions", to.gettext("Predictions"), ("/predict", "/stream", "/score")),
        ("inference", to.gettext("The Open Inference Protocol"), ("/v2",)),
        ("watching", to.gettext("Health and metrics"), ("/health", "/metrics")),
        ("pages", to.gettext("Pages and documents"), ("/docs", "/openapi.json", "/")),
    )
    left = {path: methods for path, methods in description["paths"].items() if "{version}" not in path}
    found = []
    for identity, title, starts in groups:
        operations: list[OperationView] = []
        for start in starts:
            alike = [
                _operation(path, method, operation, to, address=address)
                for path in [*left]
                if path.startswith(start)
                for method, operation in left.pop(path).items()
            ]
            operations += sorted(alike, key=lambda operation: operation.method != "POST")
        found.append(GroupView(identity, title, operations))
    return found


def _operation(path: str, method: str, operation: Json, to: Language, *, address: str) -> OperationView:
    summary: str = operation["summary"]
    return OperationView(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=to.gettext(summary),
        description=_said(operation.get("description", ""), to),
        examples=_examples(_commands(path, method, operation, address=address), operation["responses"]),
        replies=[
            _reply(status, reply, to) for status, reply in operation["responses"].items() if "description" in reply
        ],
        refusals=", ".join(status for status, reply in operation["responses"].items() if "$ref" in reply),
    )


def _examples(commands: Sequence[str], responses: Json) -> Sequence[ExampleView]:
    """Return commands with their answers; of a websocket, a frame with its reply."""
    content = (responses.get("200") or responses.get("101") or {}).get("content", {})
    answers = [_shown(example["value"]) for example in content.get("application/json", {}).get("examples", {}).values()]
    if "101" in responses:
        return [ExampleView(*answers)] if answers else []
    if "example" in content.get("text/csv", {}):
        answers = [content["text/csv"]["example"]]
    return [ExampleView(*pair) for pair in zip_longest(commands, answers, fillvalue="")]


def _shown(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _said(text: str, to: Language) -> Said:
    translated = openapi.translated(text, to)
    return (text, languages.SOURCE) if translated is None else (translated, to.code)


def _reply(status: str, reply: Json, to: Language) -> ResponseView:
    headers = [name for name in reply.get("headers", ()) if name != "X-Request-ID"]  # which every reply has
    return ResponseView(
        status, _said(reply["description"], to), ", ".join(reply.get("content", ())), ", ".join(headers)
    )


def _refusals(description: Json, to: Language) -> list[ResponseView]:
    """Return what operations share, by status; its content is in the one form or the other."""
    found: Json = {}
    for methods in description["paths"].values():
        for operation in methods.values():
            for status, reply in operation["responses"].items():
                if "$ref" in reply:
                    shared = description["components"]["responses"][reply["$ref"].rpartition("/")[2]]
                    content = found.get(status, shared)["content"] | shared["content"]
                    found[status] = shared | {"content": content}
    return [_reply(status, found[status], to) for status in sorted(found)]


def _commands(path: str, method: str, operation: Json, *, address: str) -> list[str]:
    """Return curl commands for an operation, quoted for a shell."""
    if "101" in operation["responses"]:
        return []
    parameters = [parameter for parameter in operation["parameters"] if "example" in parameter]
    placed = {
        parameter["name"]: quote(parameter["example"], safe="") for parameter in parameters if parameter["in"] == "path"
    }
    url = address.rstrip("/") + path.format(**placed)
    if method == "get":
        query = {parameter["name"]: parameter["example"] for parameter in parameters if parameter["in"] == "query"}
        accept = ["-H", "Accept: application/json"] if "application/json" in _types(operation) else []
        return [shlex.join(["curl", "-s", *accept, f"{url}?{urlencode(query)}" if query else url])]
    body = operation["requestBody"]["content"]
    if "text/csv" in body:
        table = ["printf", r"%s\n", *body["text/csv"]["example"].splitlines()]
        return [f"{shlex.join(table)} | {shlex.join(['curl', '-s', '-F', 'file=@-;filename=rows.csv', url])}"]
    if "application/json" not in body:
        sample = body["application/x-www-form-urlencoded"]["example"]
        return [shlex.join(["curl", "-s", "-d", urlencode(sample), url])]
    examples = body["application/json"]["examples"]
    return [
        shlex.join(["curl", "-s", "-H", "Content-Type: application/json", "-d", _text(example["value"]), url])
        for example in examples.values()
    ]


def _types(operation: Json) -> Sequence[str]:
    return list(operation["responses"].get("200", {}).get("content", ()))


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
