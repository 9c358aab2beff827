"""The panel of snippets: the sample on the page, ready to copy into programs.

The page loads it when it is opened and when typing pauses: GET /code with the page's query. Without a script it is a
page of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from web.api.description import example_of, text_of
from web.page import languages, snippets
from web.page.fields import names_of_options
from web.page.languages import Language
from web.page.snippets import Input, SnippetContext
from web.page.templates import render
from web.requests import header_of, is_known, query_of
from web.responses import Content, tag_of
from web.service import service_of
from web.settings import Settings

# The address of a folder: the pattern is unambiguous, so its time is linear in the length of the address.
_FOLDER = re.compile(r"https?://[A-Za-z0-9.:_\[\]-]++/[!-~]*+")
_HEADERS = [
    (b"vary", b"Accept-Language, HX-Request, HX-Current-URL"),
    (b"cache-control", b"no-cache"),
    (b"content-type", b"text/html; charset=utf-8"),
]
MAX_ADDRESS_CHARACTERS = 2_000
EXAMPLE_ADDRESS = "http://127.0.0.1/"


@dataclass(frozen=True, slots=True)
class Snippet:
    """One program; `id` is that of its text on the page, `note` names its requirements."""

    id: str
    title: str
    note: str
    text: str


@dataclass(frozen=True, slots=True)
class CodeView:
    """The panel; `note` is set when missing or invalid values were replaced by those of the example."""

    note: str
    snippets: Sequence[Snippet]


async def code(request: Request) -> Response:
    """GET /code: the panel for the sample in the query, as a fragment for htmx, else as a page."""
    service = service_of(request.scope)
    fields = query_of(request.scope)
    language = _language(request.scope, fields, service.model)
    view = code_view(
        service.model,
        fields,
        address=address_of(request),
        needs_token=bool(service.settings.api_token),
        language=language,
    )
    template = "_code.html" if request.headers.get("hx-request") == "true" else "code.html"
    query = f"?{request.url.query}" if request.url.query else ""
    content = render(template, language, code=view, model=service.model.name, query=query).encode()
    tag = tag_of(content)
    headers = [*_HEADERS, (b"content-language", language.code.encode()), (b"etag", tag)]
    if is_known(request.scope, tag):
        return Content(b"", status=304, headers=headers)
    return Content(content, status=200, headers=headers)


def code_view(
    model: LoadedModel,
    sample: Mapping[str, object] | Sequence[object],
    *,
    address: str,
    needs_token: bool,
    language: Language,
) -> CodeView:
    """Return the view of the panel.

    Args:
        sample: as for the validator; missing or invalid values are replaced by those of the model's example.
        address: the address of the service as its callers see it, with a slash at its end.
        needs_token: whether programs must send a token.
    """
    row, is_complete = _row(model, sample)
    inputs = [
        Input(
            feature.key,
            _caption(language.title(feature), feature.unit),
            text_of(feature, value),
            is_word=bool(feature.choices),
            is_missing=math.isnan(value),
        )
        for feature, value in zip(model.features, row, strict=True)
    ]
    call = SnippetContext(address, model.name, inputs, needs_token, is_quantity=model.quantity is not None)
    _ = language.gettext
    programs = [
        ("curl", "curl", "", snippets.curl),
        ("python", "Python", _("Needs the package websockets."), snippets.python),
        (
            "js",
            "JavaScript",
            _("A module for Node 20 or newer, or for a page of this service."),
            snippets.javascript,
        ),
        (
            "htmx",
            "htmx",
            _("Not possible while a token is required: every visitor of the page could read it.")
            if needs_token
            else _("For a page with htmx 2; ALLOWED_ORIGINS of this service must name its origin."),
            snippets.htmx,
        ),
        ("oip", "Open Inference Protocol: curl", "", snippets.inference),
        (
            "triton",
            "Open Inference Protocol: Python",
            _("Needs the package tritonclient[http]."),
            snippets.tritonclient,
        ),
    ]
    return CodeView(
        note="" if is_complete else _("Missing or invalid values are replaced by those of the example."),
        snippets=[Snippet(f"code-{name}", title, note, write(call)) for name, title, note, write in programs],
    )


def example_panel(model: LoadedModel, settings: Settings, language: Language) -> str:
    """Return the panel of the model's example."""
    needs_token = bool(settings.api_token)
    view = code_view(model, {}, address=EXAMPLE_ADDRESS, needs_token=needs_token, language=language)
    return render("_code.html", language, code=view)


def address_of(request: Request) -> str:
    """Return the address of the service as this caller sees it, with a slash at its end.

    A proxy may remove a prefix from the path. The address of the page, which htmx sends along, still has it.
    """
    page = request.headers.get("hx-current-url", "").partition("#")[0].partition("?")[0]
    folder = page[: page.rfind("/") + 1]
    if len(folder) <= MAX_ADDRESS_CHARACTERS and _FOLDER.fullmatch(folder) and _is_address(folder):
        return folder
    return str(request.base_url)


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _language(scope: Scope, fields: Mapping[str, str], model: LoadedModel) -> Language:
    """Return the language of the page: that of its address, or the browser's."""
    asked = fields.get(model.made(names_of_options)["lang"], "")
    return languages.known(asked) or languages.preferred(header_of(scope, b"accept-language"))


def _row(model: LoadedModel, sample: Mapping[str, object] | Sequence[object]) -> tuple[list[float], bool]:
    """Return the sample as a row, with values of the example where it has none, and whether it needed none."""
    example = example_of(model.features)
    keys = {feature.header: feature.key for feature in model.features} | {key: key for key in example}
    named = sample if isinstance(sample, Mapping) else dict(zip(example, sample, strict=False))
    given = {keys[name]: value for name, value in named.items() if name in keys}
    try:
        return model.validator.row(given), True
    except InvalidSample as error:
        right = {key: value for key, value in given.items() if key not in {one.feature for one in error.errors}}
    try:
        return model.validator.row(example | right), False
    except InvalidSample:  # more values are invalid than the error lists
        return model.validator.row(example), False


def _caption(title: str, unit: str) -> str:
    return f"{title} ({unit})" if unit else title
