"""Shared parts of the operations in the OpenAPI document: parameters, headers, common refusals, the token."""

from __future__ import annotations

from collections.abc import Mapping

from web.api.description import N_, Json, json_content, read_operation, ref, response
from web.middleware.access import COOKIE, admits_cookie, is_open
from web.responses import MEDIA_TYPE
from web.settings import Settings

PAGE: Json = {"text/html": {"schema": {"type": "string"}}}
PROBLEM: Json = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
TEXT: Json = {"schema": {"type": "string"}}

# Strings without a pattern: whatever else is sent in these headers has no effect, and is no error.
_SENT = {
    "X-Request-ID": "An id for this request: up to 64 letters, digits and . _ -; otherwise the service makes one.",
    "If-None-Match": "Entity tags that the client has. If the answer still has one of them, it is 304.",
    "X-Input": "unsettled: the sample of this fragment is still being typed, and is not counted for drift; settled: it "
    "is counted, and sent, even if its tag is known.",
    "HX-Request": "true: the answer is the fragment, with status 200 also if the sample has errors.",
}
PARAMETERS: Json = {
    name: {"name": name, "in": "header", "description": description, **TEXT} for name, description in _SENT.items()
}
HEADERS: Json = {
    "X-Request-ID": {
        "description": "The id of the request, as in the log: the one that was sent, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "X-Model-Version": {"description": "The version of the model that answered.", "required": True, **TEXT},
    "ETag": {"description": "The entity tag of the answer, for If-None-Match.", "required": True, **TEXT},
    "Retry-After": {
        "description": "The seconds to wait before the request is sent again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WWW-Authenticate": {"description": "Bearer, with the realm.", "required": True, **TEXT},
}
_REFUSALS = {"400": "BadRequest", "408": "TooSlow", "429": "TooMany", "431": "HeadTooLarge", "503": "Unavailable"}


def responses(settings: Settings) -> Json:
    """Return the refusals by name; where the Open Inference Protocol says another form, a second time in that."""
    inference = json_content("InferenceError")
    answers = _gateway_refusals(settings, PROBLEM | PAGE)
    # A connection that is not served and a request that cannot be read have no route, and so no form of error.
    answers |= {f"Inference{name}": own for name, own in _gateway_refusals(settings, inference | PROBLEM).items()}
    return answers | {
        "TooSlow": response(
            N_("The head took more than %(seconds)s s, or the body came in at less than %(bytes)s bytes a second.")
            % {"seconds": f"{settings.head_timeout_s:g}", "bytes": settings.min_body_rate},
            PROBLEM,
        ),
        "HeadTooLarge": response(
            N_("The head or trailer section has more than %(bytes)s bytes.") % {"bytes": settings.max_head_bytes},
            PROBLEM,
        ),
    }


def ready_operation(operation: str) -> Json:
    """Return the operation that tells whether a model is loaded."""
    ready = read_operation(operation, N_("A model is loaded"), "Ready")
    ready["responses"]["503"] = response(
        N_("The service is about to end, or has too many connections."), json_content("Ready") | PROBLEM
    )
    return ready


def too_large_of(settings: Settings) -> str:
    """Return what a body of samples may not be."""
    values = {"bytes": settings.max_body_bytes, "samples": settings.max_samples}
    return N_("More than %(bytes)s bytes or %(samples)s samples.") % values


def _gateway_refusals(settings: Settings, content: Json) -> Json:
    if settings.allowed_hosts:
        bad = N_(
            "Not a request in HTTP/1.1 with one header Host, or of a host that the service does not answer to, or too "
            "many fields."
        )
    else:
        bad = N_("Not a request in HTTP/1.1 with one header Host, or too many fields.")
    refusals = {
        "BadRequest": response(bad, content),
        "Forbidden": response(N_("Sent by a page of another site, which has no permission."), content),
        "TooMany": response(N_("Too many requests, or too many open connections."), content, "Retry-After"),
        "Unavailable": response(
            N_("Too much is being sent to the service at once, or it has too many connections."), content, "Retry-After"
        ),
    }
    if settings.api_token:
        refusals["Unauthorized"] = response(N_("Without the token of the service."), content, "WWW-Authenticate")
    return refusals


def security_schemes(settings: Settings) -> Json:
    """Return how programs and the page show that they may ask."""
    if not settings.api_token:
        return {}
    return {
        "token": {"type": "http", "scheme": "bearer", "description": "The token of the service."},
        "page": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "The cookie that the page brings."},
    }


def completed(path: str, method: str, operation: Json, settings: Settings) -> Json:
    """Return an operation with what holds for every one: the id of the request, the refusals and the token."""
    refusals = dict(_REFUSALS)
    if method == "post" or path == "/stream":
        refusals["403"] = "Forbidden"
    is_guarded = bool(settings.api_token) and not is_open(path)
    if is_guarded:
        refusals["401"] = "Unauthorized"
    answers = {status: ref(_refusal(path, name), "responses") for status, name in refusals.items()}
    whole = operation | {
        "parameters": [*operation.get("parameters", ()), ref("X-Request-ID", "parameters")],
        "responses": dict(sorted((answers | operation["responses"]).items())),
    }
    if is_guarded:
        whole["security"] = [{"token": []}, {"page": []}] if admits_cookie(path) else [{"token": []}]
    return whole


def _refusal(path: str, name: str) -> str:
    return f"Inference{name}" if path.startswith("/v2") and name not in ("TooSlow", "HeadTooLarge") else name


def opened(*frames: Json, exchanged: Mapping[str, Json] | None = None) -> Json:
    """Return the responses of a websocket, whose server sends these frames."""
    content = json_content("PredictionFrame", **exchanged or {})
    content["application/json"]["schema"] = {"anyOf": [*frames]}
    return {
        "101": {"description": N_("The websocket is open."), "content": content},
        "426": response(N_("Asked for without a websocket."), PROBLEM | PAGE),
    }
