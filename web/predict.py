"""One resource, the prediction of a sample, in three representations: page for people, fragment for htmx, JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from time import perf_counter

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from web.api import batch, decoder
from web.api.encoder import encoder_of
from web.api.explain import explained, is_explained
from web.metrics.channel import Channel
from web.middleware.body_limit import BodyLimit, Pending
from web.middleware.compression import Compressed
from web.page.fragments import fragments_of
from web.page.pages import (
    FORM_TYPES,
    answer,
    form_of,
    is_unchanged,
    page_response,
    posted_options,
    refuse_compressed,
    split_off,
)
from web.page.views import ViewOptions
from web.problems import Problem
from web.requests import Representation, body_of, content_type_of, header_of, preferred_representation, query_of
from web.responses import CHECK, Content, entity_tag, headers_of, json_of
from web.service import service_of


class Predict:
    """GET and POST /predict: one sample in the query, a form or JSON, or many in JSON."""

    def __init__(self, *, max_body_bytes: int, pending: Pending) -> None:
        self._post = BodyLimit(_post, max_bytes=max_body_bytes, pending=pending)
        self._page = Compressed(_get_page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await self._post(scope, receive, send)
            return
        representation = preferred_representation(scope, default="page")
        if representation == "page":
            await self._page(scope, receive, send)
        else:
            response = await _get(scope, representation)
            await response(scope, receive, send)


async def _get_page(scope: Scope, receive: Receive, send: Send) -> None:
    response = await _get(scope, "page")
    await response(scope, receive, send)


async def _get(scope: Scope, representation: Representation) -> Response:
    model = service_of(scope).model
    fields, options = split_off(scope, query_of(scope), model, representation)
    tag = entity_tag(model, representation, options.language.code)
    if is_unchanged(scope, fields, representation, options, tag=tag):
        headers = headers_of(representation, tag, model, lang=options.language.code)
        return Content(b"", status=304, headers=headers)
    return await _respond(scope, fields, representation, options, tag=tag)


async def _post(scope: Scope, receive: Receive, send: Send) -> None:
    response = await _answer(scope, receive, send)
    await response(scope, receive, send)


async def _answer(scope: Scope, receive: Receive, send: Send) -> Response:
    refuse_compressed(scope)
    content_type, _ = content_type_of(scope)
    if content_type == b"application/json" or content_type.endswith(b"+json"):
        return await _answer_json(scope, receive, send)
    if content_type in FORM_TYPES:
        representation = preferred_representation(scope, default="page")
        form = await form_of(Request(scope, receive))
        _refuse_other_text(form)
        fields, options = posted_options(scope, form, representation)
        return await _respond(scope, fields, representation, options)
    if content_type == b"text/csv":
        raise Problem(415, "this is a CSV file: send it to /score")
    raise Problem(415, "send application/json, application/x-www-form-urlencoded or multipart/form-data")


def _refuse_other_text(form: Mapping[str, str]) -> None:
    """Refuse JSON and CSV with the content type of a form: all of it is then the name of one field."""
    name = next(iter(form), "")
    if len(form) > 1:
        return
    if name.lstrip().startswith(("{", "[")):
        raise Problem(415, "this is JSON, sent as a form: send it with Content-Type: application/json")
    if not form.get(name) and any(mark in name for mark in ",;\t\n"):
        raise Problem(415, "this is CSV, sent as a form: send it to /score with Content-Type: text/csv")


async def _answer_json(scope: Scope, receive: Receive, send: Send) -> Response:
    service = service_of(scope)
    content = await body_of(receive)
    model, most = service.model, service.settings.max_samples
    body = decoder.decode_request(content, max_values=most * len(model.features))
    if (body.sample is msgspec.UNSET) == (body.samples is msgspec.UNSET):
        raise Problem(422, 'a request has either "sample" or "samples"')
    explain = is_explained(model, body)
    if body.sample is not msgspec.UNSET:
        sample = decoder.decode_sample(body.sample)
        representation = preferred_representation(scope, default="json")
        _, options = posted_options(scope, {}, representation)
        return await _respond(scope, sample, representation, options, explain=explain)
    assert body.samples is not msgspec.UNSET
    if len(body.samples) > most:
        raise Problem(413, f"{len(body.samples)} samples in one request, at most {most} are allowed")
    rows, unknown = await batch.read(model, body.samples)
    check = partial(send, {"type": CHECK}) if explain else None
    answers = await batch.encode_answers(model, rows, service.metrics.json, unknown=unknown, explain=check)
    return Content(answers, status=200, headers=headers_of("json", b"", model))


async def _respond(
    scope: Scope,
    sample: Mapping[str, object] | Sequence[object],
    representation: Representation,
    options: ViewOptions,
    *,
    tag: bytes = b"",
    explain: bool = False,
) -> Response:
    """Return the answer to a sample, its errors included; in JSON with what each feature adds to it if asked to."""
    if representation == "page":
        return page_response(scope, sample, options, tag=tag)
    service = service_of(scope)
    model, metrics = service.model, service.metrics
    try:
        if representation == "json":
            content = await _in_json(model, sample, metrics.json, explain=explain)
        else:
            content = answer(model, sample, options, metrics.fragment, entered=_entered(scope)).fragment
    except InvalidSample as error:
        if representation == "json":
            metrics.json.errors(error.errors)
            return json_of(Problem(422, str(error), error.errors).details)
        metrics.fragment.errors(error.errors)
        # 200: htmx does not swap a 422 in, and the old answer would stay beside the new input.
        fragments = fragments_of(model, options.language)
        content = fragments.invalid(fragments.invalid_view(error))
    return Content(content, status=200, headers=headers_of(representation, tag, model, lang=options.language.code))


def _entered(scope: Scope) -> Collection[int] | None:
    """Return the positions of the values that someone has entered: `X-Input: settled=1,4` is the first and the fourth.

    Without the header, or without places, it is all of them: None.
    """
    state, _, places = header_of(scope, b"x-input").partition(b"=")
    if state == b"unsettled":
        return ()
    return {int(place) - 1 for place in places.split(b",") if place.isdigit() and len(place) < 6} if places else None


async def _in_json(
    model: LoadedModel, sample: Mapping[str, object] | Sequence[object], channel: Channel, *, explain: bool
) -> bytes:
    row, may_have_notes = model.validator.read(sample)
    started = perf_counter()
    prediction = model.predict(row)
    channel.one(model, row, prediction, started)
    notes = model.validator.notes(row) if may_have_notes else ()
    [contributions] = await explained(model, np.array([row]), [prediction.index]) if explain else [b""]
    return encoder_of(model).answer(row, prediction, notes, contributions)
