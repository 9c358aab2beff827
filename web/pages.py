"""One resource, the prediction of a sample, in three forms: a page for people, a fragment for htmx, JSON otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import jinja2
import msgspec
from starlette.applications import Starlette
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import request_response
from starlette.types import Receive, Scope, Send

from ml.classifier import Classifier, Prediction
from ml.sample import InvalidSample, Note, shown_number
from web import batch, messages, problems, views
from web.messages import KEPT_ANSWERS, encoder_of
from web.negotiation import MAX_QUERY_FIELDS, Form, content_type_of, is_known, preferred_form, query_of
from web.problems import Problem
from web.settings import Settings
from web.views import PredictionView

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "static"
_MEDIA_TYPES: dict[Form, bytes] = {
    "page": b"text/html; charset=utf-8",
    "fragment": b"text/html; charset=utf-8",
    "json": b"application/json",
}


class Templates:
    """The templates, and the fragments that were rendered from them."""

    def __init__(self) -> None:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(ROOT / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals["asset"] = asset
        self._page = environment.get_template("page.html")
        self._fragment = environment.get_template("_prediction.html")
        self.answer = lru_cache(KEPT_ANSWERS)(self._render_answer)

    def page(self, model: Classifier, texts: Mapping[str, str], prediction: PredictionView) -> str:
        """Return the whole page."""
        return self._page.render(page=views.page_view(model, texts, prediction))

    def fragment(self, prediction: PredictionView) -> str:
        """Return the part of the page that is swapped."""
        return self._fragment.render(prediction=prediction)

    def _render_answer(self, prediction: Prediction, labels: tuple[str, ...], notes: tuple[Note, ...]) -> bytes:
        # An answer has no number of the sample in it, so one rendering serves every sample with this outcome.
        return self.fragment(views.answer_view(prediction, labels, notes)).encode()


@lru_cache
def asset(name: str) -> str:
    """Return the relative address of one of our static files, with its digest: a new file is a new address."""
    return f"static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


class Content(Response):
    """A body with headers that were encoded once: encoding them anew costs more than the prediction."""

    def __init__(self, body: bytes, *, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [*headers, (b"content-length", str(len(body)).encode())]


class Predict:
    """GET and POST /predict: one sample in the query, a form or JSON, or many in JSON."""

    def __init__(self, *, max_body_bytes: int) -> None:
        self._post = RequestBodyLimitMiddleware(request_response(_post), max_body_size=max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await self._post(scope, receive, send)
            return
        form = preferred_form(scope, default="page")
        tag = _entity_tag(scope["app"].state.model, form)
        if is_known(scope, tag):
            response: Response = Content(b"", status=304, headers=_headers(form, tag))
        else:
            response = _respond(scope["app"], query_of(scope), form=form, tag=tag)
        await response(scope, receive, send)


async def page(request: Request) -> Response:
    """GET / and /index: the page, prefilled from the query or else with the model's example."""
    model: Classifier = request.app.state.model
    known = {feature.key: shown_number(feature.example) for feature in model.features}
    # Other parameters are left alone here: links get decorated on their way (utm_source and the like).
    known |= {key: text for key, text in query_of(request.scope).items() if key in known}
    tag = _entity_tag(model, "page")
    if is_known(request.scope, tag):
        return Content(b"", status=304, headers=_headers("page", tag))
    return _page(request.app, known, tag=tag)


async def result(request: Request) -> Response:
    """POST /result: the page with its result, for browsers without JavaScript; a GET leads to the page."""
    if request.method != "POST":
        return RedirectResponse("./", status_code=303)
    return _page(request.app, await _form(request))


async def favicon(request: Request) -> Response:
    """GET /favicon.ico: where browsers look for the icon of answers that are no page."""
    return RedirectResponse("static/favicon.svg", status_code=308)


async def _post(request: Request) -> Response:
    content_type = content_type_of(request.scope)
    if content_type in (b"application/x-www-form-urlencoded", b"multipart/form-data"):
        form = preferred_form(request.scope, default="page")
        return _respond(request.app, await _form(request), form=form)
    if content_type == b"application/json" or content_type.endswith(b"+json"):
        return await _answer_json(request)
    raise Problem(415, "send application/json, application/x-www-form-urlencoded or multipart/form-data")


async def _answer_json(request: Request) -> Response:
    model: Classifier = request.app.state.model
    settings: Settings = request.app.state.settings
    body = messages.decode_request(await request.body())
    if (body.sample is msgspec.UNSET) == (body.samples is msgspec.UNSET):
        raise Problem(422, 'a request has either "sample" or "samples"')
    if body.sample is not msgspec.UNSET:
        sample = messages.decode_sample(body.sample)
        return _respond(request.app, sample, form=preferred_form(request.scope, default="json"))
    assert body.samples is not msgspec.UNSET
    if len(body.samples) > settings.max_samples:
        raise Problem(413, f"{len(body.samples)} samples in one request, at most {settings.max_samples} are allowed")
    rows = await batch.read(model, body.samples)
    return Content(await batch.encode_answers(model, rows), status=200, headers=_headers("json"))


def _respond(
    app: Starlette, sample: Mapping[str, object] | Sequence[object], *, form: Form, tag: bytes = b""
) -> Response:
    """Return the prediction of one sample in the form that was asked for."""
    model: Classifier = app.state.model
    if form == "page":
        return _page(app, sample, tag=tag)
    try:
        row = model.validator.row(sample)
    except InvalidSample as error:
        if form == "json":
            return problems.response_of(Problem(422, str(error), error.errors).details)
        # 200: htmx does not swap a 422 in, and the old answer would stay beside the new input.
        content = app.state.templates.fragment(views.invalid_view(error, model.features)).encode()
        return Content(content, status=200, headers=_headers(form, tag))
    prediction, notes = model.predict(row), model.validator.notes(row)
    if form == "json":
        content = encoder_of(model).answer(row, prediction, notes)
    else:
        content = app.state.templates.answer(prediction, model.labels, notes)
    return Content(content, status=200, headers=_headers(form, tag))


def _page(app: Starlette, sample: Mapping[str, object] | Sequence[object], *, tag: bytes = b"") -> Response:
    model: Classifier = app.state.model
    status = 200
    try:
        row = model.validator.row(sample)
        view = views.answer_view(model.predict(row), model.labels, model.validator.notes(row))
    except InvalidSample as error:
        view = views.invalid_view(error, model.features)
        status = 422 if view.state == "invalid" else 200
    named = sample if isinstance(sample, Mapping) else dict(zip((f.key for f in model.features), sample, strict=False))
    texts = {key: "" if value is None else str(value) for key, value in named.items()}
    content = app.state.templates.page(model, texts, view).encode()
    return Content(content, status=status, headers=_headers("page", tag if status == 200 else b""))


@lru_cache(64)
def _headers(form: Form, tag: bytes = b"") -> list[tuple[bytes, bytes]]:
    headers = [(b"vary", b"Accept, HX-Request"), (b"cache-control", b"no-cache"), (b"content-type", _MEDIA_TYPES[form])]
    return [*headers, (b"etag", tag)] if tag else headers


@lru_cache(64)
def _entity_tag(model: Classifier, form: Form) -> bytes:
    """Return the tag of every GET in this form: what it says depends on its address, the model and our files alone."""
    files = hashlib.sha256()
    for folder in (ROOT / "templates", STATIC, Path(__file__).parent):
        for path in sorted(folder.rglob("*.*")):
            if path.suffix != ".pyc":
                files.update(path.read_bytes())
    return f'"{model.version}-{files.hexdigest()[:8]}-{form}"'.encode()


async def _form(request: Request) -> dict[str, object]:
    async with request.form(max_files=0, max_fields=MAX_QUERY_FIELDS) as form:
        return dict(form)
