"""The explanation of an answer: the lines below the fields, and what each feature adds. It follows typing's pauses."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ml.model.sample import InvalidSample
from web.api.threads import in_thread
from web.page.fragments import fragments_of
from web.page.pages import split_off
from web.requests import query_of
from web.responses import Content, headers_of
from web.service import service_of


async def explain(request: Request) -> Response:
    """GET /explain: the explanation of the answer to the sample in the query, for htmx; others are sent to the page."""
    query = request.scope["query_string"].decode("latin-1")
    if request.headers.get("hx-request") != "true":
        return RedirectResponse(f"./?{query}" if query else "./", status_code=303, headers={"Vary": "HX-Request"})
    model = service_of(request.scope).model
    fields, options = split_off(request.scope, query_of(request.scope), model, "fragment")
    try:
        row = model.validator.row(fields)
    except InvalidSample:
        return Content(b"", status=204, headers=[(b"cache-control", b"no-store")])  # what is shown stays
    fragments = fragments_of(model, options.language).at(options.threshold)
    content = await in_thread(partial(fragments.explanation, row, pin=options.pin))
    return Content(content, status=200, headers=headers_of("fragment", model=model, lang=options.language.code))
