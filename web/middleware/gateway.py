"""The middleware around everything but `Forwarded`, for every request and websocket handshake: rate limits, allowed
hosts, other origins, the token, request ids, security headers."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from time import perf_counter

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from web import logs
from web.metrics.counters import Metrics
from web.metrics.histogram import template_of
from web.middleware.access import COOKIE_LIFE_S, SAFE_METHODS, Access, is_foreign, is_known_host, is_page, is_valid_host
from web.middleware.rates import Rates
from web.problems import SHOWN_CHARACTERS, Problem, too_many
from web.settings import Settings

Headers = dict[bytes, bytes]
Refuse = Callable[[Request, Problem], Awaitable[Response]]
"""Makes the response to a request that is refused before routing."""
Fail = Callable[[Request, Exception], Awaitable[Response]]
"""Makes the response to a request whose endpoint raised an unexpected exception."""

# Nothing unsafe, nothing from other origins. `connect-src 'self'` admits the page's own websocket. All present browsers
# know `frame-ancestors`, and then ignore X-Frame-Options.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
# What lets a page see, hear or locate someone, use a device or ask for money, all denied. To deny all other powerful
# features as well cost 0.2 kB of each response.
PERMISSIONS_POLICY = (
    "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), payment=(), serial=(), usb=()"
)
SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # With no-referrer a browser would send `Origin: null` with our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", PERMISSIONS_POLICY.encode()),
]
# For this host alone: its subdomains may be somebody else's.
TLS_HEADERS = [*SECURITY_HEADERS, (b"strict-transport-security", b"max-age=63072000")]

# The id of a client or a proxy is kept if it is a single word: it goes into headers and logs.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def _for_other_sites(app: ASGIApp, settings: Settings) -> ASGIApp:
    # htmx sends headers of its own, so browsers of pages elsewhere ask for permission first.
    return CORSMiddleware(
        app,
        allow_origins=settings.allowed_origins,
        allow_methods=["GET", "POST"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "HX-Current-URL",
            "HX-Request",
            "HX-Target",
            "HX-Trigger",
            "HX-Trigger-Name",
            "X-Input",
            "X-Request-ID",
        ],
        expose_headers=["Retry-After", "X-Model-Features", "X-Model-Version", "X-Request-ID"],
    )


class Gateway:
    """The outermost middleware but `Forwarded`, which trusted proxies need.

    The id of a request is in `scope["state"]["request_id"]`, and in the header `X-Request-ID` of its response.

    Args:
        websockets: the paths of the application's websockets.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        rates: Rates,
        metrics: Metrics,
        *,
        websockets: Collection[str],
        refuse: Refuse,
        fail: Fail,
    ) -> None:
        self.app = _for_other_sites(app, settings) if settings.allowed_origins else app
        self._websockets = frozenset(websockets)
        self._refuse = refuse
        self._fail = fail
        self._metrics = metrics
        self._writes_access_log = bool(settings.access_log)
        self._settings = settings
        self._take = rates.take
        self._access = Access(settings.api_token) if settings.api_token else None
        self._is_guarded = bool(settings.api_token or settings.allowed_hosts)
        self._streams: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        hosts = _identify(scope)
        client = scope.get("client")
        address: str = client[0] if client else ""
        problem = too_many(wait_s) if (wait_s := self._take(address)) else _host_problem(scope, hosts)
        if scope["type"] == "http":
            await self._answer(scope, receive, send, problem)
        else:
            await self._open_stream(scope, receive, send, address=address, problem=problem)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, problem: Problem | None) -> None:
        started = perf_counter()
        status = 0

        def send_with_headers(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*self._headers(scope), *message.get("headers", ()), _id_of(scope)]
            return send(message)

        application = self.app
        if problem is not None or self._is_guarded or scope["method"] not in SAFE_METHODS:
            problem = problem or self._problem_of(scope, dict(scope["headers"]))
            if problem is not None:
                self._metrics.refused(problem.details.status)
                application = await self._refusal(scope, problem)
        try:
            await application(scope, receive, send_with_headers)
        except Exception as error:
            self._metrics.unhandled()  # the server logs it
            if not status:
                response = await self._fail(_request_of(scope), error)
                await response(scope, receive, send_with_headers)
            raise
        finally:
            self._metrics.request(scope.get("route"), status, started)
            if self._writes_access_log:
                logs.access(scope["method"], template_of(scope.get("route")), status, perf_counter() - started)

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the headers that every response has, but for its id, which is the last one."""
        own = TLS_HEADERS if scope.get("scheme") == "https" else SECURITY_HEADERS
        return own if self._access is None else own + self._cookies(scope, dict(scope["headers"]))

    async def _open_stream(
        self, scope: Scope, receive: Receive, send: Send, *, address: str, problem: Problem | None
    ) -> None:
        problem = problem or self._problem_of(scope, dict(scope["headers"]))
        if problem is None and (path := _path_of(scope)) not in self._websockets:
            problem = Problem(404, f"there is no websocket at {path[:SHOWN_CHARACTERS]}")
        # Behind a trusted proxy all connections are the proxy's; its clients are limited here.
        if problem is None and self._streams[address] >= self._settings.max_connections_per_client:
            problem = too_many(1, "open streams")
        if problem is not None:
            self._metrics.refused(problem.details.status)
            websocket = WebSocket(scope, receive, send)
            await websocket.receive()
            response = await self._refuse(_request_of(scope), problem)
            response.raw_headers += [*SECURITY_HEADERS, _id_of(scope)]
            await websocket.send_denial_response(response)
            return
        self._streams[address] += 1
        try:
            await self.app(scope, receive, send)
        except Exception:
            self._metrics.unhandled()
            raise
        finally:
            self._streams[address] -= 1
            if not self._streams[address]:
                del self._streams[address]

    def _problem_of(self, scope: Scope, headers: Headers) -> Problem | None:
        """Return the reason to refuse a request with a valid `Host`, or None."""
        path, known = _path_of(scope), self._settings.allowed_hosts
        # Probes name a machine by its address.
        if known and not path.startswith("/health/") and not is_known_host(headers.get(b"host", b""), known):
            return Problem(400, "the header Host does not name a host of this service")
        is_tls = scope.get("scheme") in ("https", "wss")
        acts = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if acts and is_foreign(headers, is_tls=is_tls, allowed=self._settings.allowed_origins):
            return Problem(403, "pages of other origins are not allowed to send this request")
        if self._access is None or self._access.admits(path, headers, now=time.time()):
            return None
        # A browser's preflight request comes before the one with the token.
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return None
        error = ', error="invalid_token"' if b"authorization" in headers else ""
        challenge = {"WWW-Authenticate": f'Bearer realm="predictions"{error}'}
        return Problem(401, "a valid token is needed: send the header Authorization: Bearer ...", headers=challenge)

    async def _refusal(self, scope: Scope, problem: Problem) -> ASGIApp:
        response: ASGIApp = await self._refuse(_request_of(scope), problem)
        if self._settings.allowed_origins:
            response = _for_other_sites(response, self._settings)
        return response

    def _cookies(self, scope: Scope, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the cookie with a page, and a new one for a client whose cookie ends soon."""
        assert self._access is not None
        now = time.time()
        left_s = self._access.cookie_left_s(headers, now=now)
        if left_s > COOKIE_LIFE_S / 2 or not (left_s or is_page(_path_of(scope))):
            return []
        # A cookie without a path is for the page's folder, in which all addresses of the page are.
        if _path_of(scope).count("/") > 1:
            return []
        return [(b"set-cookie", self._access.new_cookie(now=now, is_tls=scope.get("scheme") == "https"))]


def _identify(scope: Scope) -> list[bytes]:
    """Put the id of a request into its state and into its log lines; return its headers `Host`."""
    sent = None
    hosts: list[bytes] = []
    for name, value in scope["headers"]:  # once for both
        if name == b"host":
            hosts.append(value)
        elif name == b"x-request-id":
            sent = value
    request_id = sent.decode() if sent is not None and _REQUEST_ID.fullmatch(sent) else logs.new_request_id()
    scope.setdefault("state", {})["request_id"] = request_id
    logs.REQUEST_ID.set(request_id)
    return hosts


def _id_of(scope: Scope) -> tuple[bytes, bytes]:
    return b"x-request-id", scope["state"]["request_id"].encode()


def _host_problem(scope: Scope, hosts: list[bytes]) -> Problem | None:
    """Return the reason why these headers `Host` are invalid (RFC 9112, section 3.2), or None."""
    if is_valid_host(hosts[0]) if len(hosts) == 1 else not hosts and scope.get("http_version") == "1.0":
        return None
    return Problem(400, "a request needs exactly one valid header Host")


def _path_of(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


def _request_of(scope: Scope) -> Request:
    # Refusals depend on the path, the method and Accept: a handshake has these as well.
    return Request({"method": "GET", **scope, "type": "http"})
