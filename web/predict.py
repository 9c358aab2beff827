"""One resource, the prediction of a sample, in three forms: a page for people, a fragment for htmx, JSON otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import request_response
from starlette.types import Receive, Scope, Send

from ml.model.classifier import Classifier
from ml.model.sample import InvalidSample
from web import responses
from web.api import batch, messages
from web.api.messages import encoder_of
from web.metrics.counters import Metrics
from web.middleware.body_limit import BodyLimit
from web.middleware.compression import Compressed
from web.page import languages, snippet_panel
from web.page.fragments import Fragments
from web.page.languages import Language
from web.problems import Problem
from web.requests import MAX_QUERY_FIELDS, Form, content_type_of, header_of, is_known, preferred_form, query_of
from web.responses import Content, entity_tag, headers_of
from web.settings import Settings

# Fields that ask for a look and are no measurements.
_LOOKS = ("lang", "map-x", "map-y")
_FORM_TYPES = (b"application/x-www-form-urlencoded", b"multipart/form-data")


class Predict:
    """GET and POST /predict: one sample in the query, a form or JSON, or many in JSON."""

    def __init__(self, *, max_body_bytes: int) -> None:
        self._post = BodyLimit(request_response(_post), max_body_size=max_body_bytes)
        self._page = Compressed(_get_page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await self._post(scope, receive, send)
            return
        form = preferred_form(scope, default="page")
        if form == "page":
            await self._page(scope, receive, send)
        else:
            await _get(scope, form)(scope, receive, send)


async def _get_page(scope: Scope, receive: Receive, send: Send) -> None:
    await _get(scope, "page")(scope, receive, send)


def _get(scope: Scope, form: Form) -> Response:
    model: Classifier = scope["app"].state.model
    fields: dict[str, object] = query_of(scope)  # type: ignore[assignment]  # its own, of no other type to anybody
    look = _look(scope, fields, model, form)
    tag = entity_tag(model, form, look.language.code)
    if is_known(scope, tag):
        return Content(b"", status=304, headers=headers_of(form, tag, model, lang=look.language.code))
    return _respond(scope, fields, form=form, look=look, tag=tag)


async def page(request: Request) -> Response:
    """GET / and /index: the page, prefilled from the query or else with the model's example."""
    model: Classifier = request.app.state.model
    fields: dict[str, object] = {**query_of(request.scope)}
    look = _look(request.scope, fields, model, "page")
    known: dict[str, object] = {feature.key: look.language.number(feature.example) for feature in model.features}
    # Other parameters are left alone here: links get decorated on their way (utm_source and the like).
    known |= {key: text for key, text in fields.items() if key in known}
    tag = entity_tag(model, "page", look.language.code)
    if is_known(request.scope, tag):
        return Content(b"", status=304, headers=headers_of("page", tag, model, lang=look.language.code))
    return _page(request.scope, known, look=look, tag=tag)


async def result(request: Request) -> Response:
    """POST /result: the page with its result, for browsers without JavaScript; a GET leads to the page."""
    if request.method != "POST":
        # With what it asks for: from the result, the links of examples and languages lead here.
        query = request.url.query
        return RedirectResponse(f"./?{query}" if query else "./", status_code=303)
    _refuse_compressed(request)
    if content_type_of(request.scope)[0] not in _FORM_TYPES:
        raise Problem(415, "send application/x-www-form-urlencoded or multipart/form-data")
    fields = await _form(request)
    return _page(request.scope, fields, look=_posted_look(request, fields, "page"))


async def favicon(request: Request) -> Response:
    """GET /favicon.ico: where browsers look for the icon of answers that are no page."""
    return RedirectResponse("static/favicon.svg", status_code=308)


async def _post(request: Request) -> Response:
    _refuse_compressed(request)
    content_type, _ = content_type_of(request.scope)
    if content_type in _FORM_TYPES:
        form = preferred_form(request.scope, default="page")
        fields = await _form(request)
        if len(fields) == 1 and next(iter(fields)).lstrip().startswith("{"):
            raise Problem(415, "this is JSON, sent as a form: say Content-Type: application/json")
        return _respond(request.scope, fields, form=form, look=_posted_look(request, fields, form))
    if content_type == b"application/json" or content_type.endswith(b"+json"):
        return await _answer_json(request)
    raise Problem(415, "send application/json, application/x-www-form-urlencoded or multipart/form-data")


async def _answer_json(request: Request) -> Response:
    model: Classifier = request.app.state.model
    settings: Settings = request.app.state.settings
    max_values = settings.max_samples * len(model.features)
    body = messages.decode_request(await request.body(), max_values=max_values)
    if (body.sample is msgspec.UNSET) == (body.samples is msgspec.UNSET):
        raise Problem(422, 'a request has either "sample" or "samples"')
    if body.sample is not msgspec.UNSET:
        sample = messages.decode_sample(body.sample)
        form = preferred_form(request.scope, default="json")
        return _respond(request.scope, sample, form=form, look=_posted_look(request, {}, form))
    assert body.samples is not msgspec.UNSET
    if len(body.samples) > settings.max_samples:
        raise Problem(413, f"{len(body.samples)} samples in one request, at most {settings.max_samples} are allowed")
    rows = await batch.read(model, body.samples)
    content = await batch.encode_answers(model, rows, request.app.state.metrics.json)
    return Content(content, status=200, headers=headers_of("json", model=model))


def _respond(
    scope: Scope, sample: Mapping[str, object] | Sequence[object], *, form: Form, look: Look, tag: bytes = b""
) -> Response:
    """Return the prediction of one sample in the form that was asked for."""
    if form == "page":
        return _page(scope, sample, look=look, tag=tag)
    state = scope["app"].state
    model: Classifier = state.model
    headers = headers_of(form, tag, model, lang=look.language.code)
    metrics: Metrics = state["metrics"]
    channel = metrics.json if form == "json" else metrics.fragment
    try:
        row = model.validator.row(sample)
    except InvalidSample as error:
        channel.errors(error.errors)
        if form == "json":
            return responses.json_of(Problem(422, str(error), error.errors).details)
        # 200: htmx does not swap a 422 in, and the old answer would stay beside the new input.
        fragments: Fragments = state.fragments.of(model, look.language)
        return Content(fragments.invalid(fragments.invalid_view(error)), status=200, headers=headers)
    started = perf_counter()
    prediction = model.predict(row)
    channel.one(model, row, prediction, started)
    notes = model.validator.notes(row)
    if form == "json":
        content = encoder_of(model).answer(row, prediction, notes)
    else:
        fragments = state.fragments.of(model, look.language)
        content = fragments.answer(row, prediction, notes, fragments.axes(look.x, look.y))
    return Content(content, status=200, headers=headers)


def _page(scope: Scope, sample: Mapping[str, object] | Sequence[object], *, look: Look, tag: bytes = b"") -> Response:
    state = scope["app"].state
    model: Classifier = state.model
    metrics: Metrics = state.metrics
    fragments: Fragments = state.fragments.of(model, look.language)
    axes = fragments.axes(look.x, look.y)
    status = 200
    try:
        row = model.validator.row(sample)
        notes = model.validator.notes(row)
        started = perf_counter()
        prediction = model.predict(row)
        metrics.page.one(model, row, prediction, started)
        fragment, messages = fragments.answer(row, prediction, notes, axes), fragments.told(notes)
    except InvalidSample as error:
        metrics.page.errors(error.errors)
        view = fragments.invalid_view(error)
        fragment, messages = fragments.invalid(view), view.messages
        status = 422 if view.state == "invalid" else 200
    named = sample if isinstance(sample, Mapping) else dict(zip((f.key for f in model.features), sample, strict=False))
    texts = {key: "" if value is None else str(value) for key, value in named.items()}
    address = snippet_panel.address_of(Request(scope))
    panel = snippet_panel.code_view(
        model,
        sample,
        address=address,
        needs_token=bool(state.settings.api_token),
        language=look.language,
    )
    content = fragments.page(texts, fragment, messages, lang=look.lang, axes=axes, address=address, code=panel)
    tag = tag if status == 200 else b""
    headers = headers_of("page", tag, model, lang=look.language.code)
    return Content(content.encode(), status=status, headers=headers)


class Look(NamedTuple):
    """How an answer is shown: its language, the `lang` that the address asks for, and the features of its map.

    A named tuple: one is made for each request, and a frozen dataclass takes three times as long.
    """

    language: Language
    lang: str
    x: str | None
    y: str | None


def _look(scope: Scope, fields: dict[str, object], model: Classifier, form: Form) -> Look:
    """Return the look that the fields and headers of a request ask for, and take these fields away.

    The names of the map's fields have a hyphen, which no feature's key has; a feature may be called `lang`.
    """
    asked: dict[str, str] = {}
    if "lang" in fields or "map-x" in fields or "map-y" in fields:  # mostly none is
        asked = {name: str(fields.pop(name)) for name in _LOOKS if name in fields and name not in model.validator.keys}
    language = languages.known(asked["lang"]) if "lang" in asked else None
    lang = language.code if language else ""
    if form == "json":
        language = languages.language(languages.SOURCE)
    elif language is None:
        language = languages.preferred(header_of(scope, b"accept-language"))
    return Look(language, lang, asked.get("map-x"), asked.get("map-y"))


def _posted_look(request: Request, fields: dict[str, object], form: Form) -> Look:
    """Return the look that a form asks for; what it does not say, its address may: `/result?lang=es`."""
    model: Classifier = request.app.state.model
    asked = query_of(request.scope)
    for name in _LOOKS:
        if name in asked and name not in model.validator.keys:
            fields.setdefault(name, asked[name])
    return _look(request.scope, fields, model, form)


def _refuse_compressed(request: Request) -> None:
    if header_of(request.scope, b"content-encoding") not in (b"", b"identity"):
        raise Problem(415, "a compressed body is not read")


async def _form(request: Request) -> dict[str, object]:
    charset = content_type_of(request.scope)[1].get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8", b"us-ascii"):
        raise Problem(415, "a form is UTF-8")
    async with request.form(max_files=0, max_fields=MAX_QUERY_FIELDS) as form:
        return dict(form)
