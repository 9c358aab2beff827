"""The page: prefilled by its address, or with the result of a form for browsers without JavaScript."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from web.api.threads import in_thread
from web.metrics.channel import Channel
from web.page import languages, snippet_panel
from web.page.answers import PredictionView
from web.page.decision_map import try_axes
from web.page.fields import THRESHOLD, keys_of_names, names_of_options, rounded_text, text_given
from web.page.fragments import fragments_of
from web.page.languages import Language
from web.page.messages import Message
from web.page.views import ViewOptions
from web.problems import Problem
from web.requests import MAX_QUERY_FIELDS, Representation, content_type_of, fields_of, header_of, is_known, query_of
from web.responses import Content, entity_tag, headers_of
from web.service import service_of

FORM_TYPES = (b"application/x-www-form-urlencoded", b"multipart/form-data")


class AnswerFragment(NamedTuple):
    """The fragment of the answer to a sample, its notes, its row, and the answer with the label that is shown."""

    fragment: bytes
    messages: Sequence[Message]
    row: Sequence[float]
    prediction: Prediction


async def page(request: Request) -> Response:
    """GET / and /index: the page, prefilled from the query or else with the model's example."""
    model = service_of(request.scope).model
    fields, options = split_off(request.scope, query_of(request.scope), model, "page")
    known: dict[str, object] = _example_texts(model, options.language)
    # Other parameters are ignored here: links get decorated on their way (utm_source and the like).
    keys = model.made(keys_of_names)
    known |= {keys[name]: text for name, text in fields.items() if name in keys}
    tag = entity_tag(model, "page", options.language.code)
    if is_unchanged(request.scope, known, "page", options, tag=tag):
        return Content(b"", status=304, headers=headers_of("page", tag, model, lang=options.language.code))
    return page_response(request.scope, known, options, tag=tag)


def is_unchanged(
    scope: Scope, sample: Mapping[str, object], representation: Representation, options: ViewOptions, *, tag: bytes
) -> bool:
    """Return whether the client has the answer to a sample already.

    Conditions do not count where the answer would be an error (RFC 9110, section 13.2.1).
    """
    if not is_known(scope, tag):
        return False
    if representation == "fragment":  # which has errors with status 200
        # What someone has settled on is counted, though a browser has the answer to its last key, which is the same.
        return not header_of(scope, b"x-input").startswith(b"settled")
    model = service_of(scope).model
    try:
        model.validator.row(sample)
    except InvalidSample as error:
        is_page = representation == "page"
        return is_page and fragments_of(model, options.language).invalid_view(error).state != "invalid"
    return True


async def result(request: Request) -> Response:
    """POST /result: the page with its result, for browsers without JavaScript; a GET leads to the page."""
    if request.method != "POST":
        # With its query: the links of examples and languages on the result lead here.
        query = request.url.query
        return RedirectResponse(f"./?{query}" if query else "./", status_code=303)
    refuse_compressed(request.scope)
    if content_type_of(request.scope)[0] not in FORM_TYPES:
        raise Problem(415, "send application/x-www-form-urlencoded or multipart/form-data")
    fields, options = posted_options(request.scope, await form_of(request), "page")
    return page_response(request.scope, fields, options, explained=await _explained(request.scope, fields, options))


async def _explained(scope: Scope, sample: Mapping[str, object], options: ViewOptions) -> dict[str, object] | None:
    """Return the views of an explanation that only a script would ask for otherwise."""
    service = service_of(scope)
    model = service.model
    fragments = fragments_of(model, options.language).at(options.threshold)
    if fragments.is_quick:
        return None
    try:
        row = model.validator.row(sample)
    except InvalidSample:
        return None
    views = await in_thread(lambda: fragments.explained(row, model.predict(row), options.pin))
    return views if service.model is model else None  # the page is that of the model that is served now


def page_response(
    scope: Scope,
    sample: Mapping[str, object] | Sequence[object],
    options: ViewOptions,
    *,
    tag: bytes = b"",
    explained: dict[str, object] | None = None,
) -> Response:
    """Return the page with a sample in its fields and the answer to it, or its errors.

    Args:
        explained: the views of the answer's explanation, where they have been made already.
    """
    service = service_of(scope)
    model, channel = service.model, service.metrics.page
    status = 200
    shown: AnswerFragment | PredictionView
    try:
        entered = _entered(model, sample, options.language) if scope["method"] == "POST" else ()
        shown = answer(model, sample, options, channel, entered=entered)
    except InvalidSample as error:
        channel.errors(error.errors)
        shown = fragments_of(model, options.language).invalid_view(error)
        status = 422 if shown.state == "invalid" else 200
    address = snippet_panel.address_of(Request(scope))
    content = _page_of(model, sample, options, shown, address=address, explained=explained)
    headers = headers_of("page", tag if status == 200 else b"", model, lang=options.language.code)
    return Content(content.encode(), status=status, headers=headers)


def answer(
    model: LoadedModel,
    sample: Mapping[str, object] | Sequence[object],
    options: ViewOptions,
    channel: Channel | None = None,
    *,
    entered: Collection[int] | None = None,
) -> AnswerFragment:
    """Return the answer to a sample as a fragment, and count it in a channel; for `entered` see `Channel.one`.

    Raises:
        InvalidSample: the sample has errors.
    """
    row, may_have_notes = model.validator.read(sample)
    started = perf_counter()
    ranks = model.cuts.ranks_of(row)
    prediction = model.predict(row, ranks=ranks)
    if channel:
        channel.one(model, row, prediction, started, entered=entered)
    fragments = fragments_of(model, options.language).at(options.threshold)
    prediction = fragments.labelled(row, ranks, prediction)
    messages = fragments.messages_of(model.validator.notes(row), row) if may_have_notes else ()
    axes = fragments.axes(options.map_x, options.map_y)
    fragment = fragments.answer(row, ranks, prediction, messages, axes=axes, goal=options.goal, pin=options.pin)
    return AnswerFragment(fragment, messages, row, prediction)


def _page_of(
    model: LoadedModel,
    sample: Mapping[str, object] | Sequence[object],
    options: ViewOptions,
    shown: AnswerFragment | PredictionView,
    *,
    address: str,
    explained: dict[str, object] | None = None,
) -> str:
    """Return the page with a sample in its fields, and the answer or the errors that are shown."""
    language = options.language
    fragments = fragments_of(model, language).at(options.threshold)
    answered = shown if isinstance(shown, AnswerFragment) else None
    return fragments.page(
        _texts(model, sample, language),
        shown.fragment if isinstance(shown, AnswerFragment) else fragments.invalid(shown),
        shown.messages,
        options,
        address=address,
        answered=(answered.row, answered.prediction) if answered else None,
        explained=explained,
    )


def _example_texts(model: LoadedModel, language: Language) -> dict[str, object]:
    return {feature.key: rounded_text(feature, feature.example, language) for feature in model.features}


def _entered(
    model: LoadedModel, sample: Mapping[str, object] | Sequence[object], language: Language
) -> Collection[int]:
    """Return the positions of the values of a form that differ from the example, which it is opened with."""
    texts, example = _texts(model, sample, language), _example_texts(model, language)
    return {at for at, key in enumerate(model.validator.keys) if texts.get(key) != example[key]}


def _texts(model: LoadedModel, sample: Mapping[str, object] | Sequence[object], language: Language) -> dict[str, str]:
    """Return what stands in the fields for a sample."""
    if not isinstance(sample, Mapping):
        sample = dict(zip(model.validator.keys, sample, strict=False))
    keys, features = model.made(keys_of_names), {feature.key: feature for feature in model.features}
    named = {keys[name]: value for name, value in sample.items() if name in keys}
    return {key: text_given(features[key], value, language) for key, value in named.items()}


def example_page(model: LoadedModel, language: Language) -> str:
    """Return the page of the model's example as it is opened first; its answer to an empty form is made, too."""
    fragments = fragments_of(model, language)
    try:
        model.validator.row({})
    except InvalidSample as error:
        fragments.invalid(fragments.invalid_view(error))
    try_axes(model, language)
    sample, options = _example_texts(model, language), ViewOptions(language, language.code)
    answered = answer(model, sample, options)
    fragments.explanation(answered.row)
    return _page_of(model, sample, options, answered, address=snippet_panel.EXAMPLE_ADDRESS)


def split_off(
    scope: Scope, fields: Mapping[str, str], model: LoadedModel, representation: Representation
) -> tuple[Mapping[str, object], ViewOptions]:
    """Return the measurements among a request's fields, and the options of its view."""
    names = model.made(names_of_options)
    asked = {option: fields[name] for option, name in names.items() if name in fields}
    if representation == "json":
        for option in [option for option in asked if option == THRESHOLD or names[option] in model.made(keys_of_names)]:
            # A program may name a feature by its header; and one that asks for a what-if is told that there is none,
            # instead of getting another label.
            del asked[option]
        language = languages.language(languages.SOURCE)
    else:
        language = languages.preferred(header_of(scope, b"accept-language"))
    if not asked:
        return fields, ViewOptions(language)
    taken = {names[option] for option in asked}
    lang = languages.known(asked.get("lang", ""))
    if lang and representation != "json":
        language = lang
    named = map(asked.get, ("map-x", "map-y", "goal", "pinned-sample", "field-order", THRESHOLD))
    measurements = {name: text for name, text in fields.items() if name not in taken}
    return measurements, ViewOptions(language, lang.code if lang else "", *named)


def posted_options(
    scope: Scope, fields: Mapping[str, str], representation: Representation
) -> tuple[Mapping[str, object], ViewOptions]:
    """Return the result of `split_off` for a form; missing options come from its address: `/result?lang=es`."""
    model = service_of(scope).model
    if asked := query_of(scope):
        names = model.made(names_of_options).values()
        fields = {name: asked[name] for name in names if name in asked} | {**fields}
    return split_off(scope, fields, model, representation)


def refuse_compressed(scope: Scope) -> None:
    """Raise a `Problem`, 415, if the body is compressed."""
    if header_of(scope, b"content-encoding") not in (b"", b"identity"):
        raise Problem(415, "a compressed body is not supported")


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; of several with one name, the last, as `Repeated`.

    Raises:
        Problem: 415, it is not UTF-8.
    """
    charset = content_type_of(request.scope)[1].get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8", b"us-ascii"):
        raise Problem(415, "a form must be UTF-8")
    async with request.form(max_files=0, max_fields=MAX_QUERY_FIELDS) as form:
        return fields_of([(key, str(value)) for key, value in form.multi_items()])
