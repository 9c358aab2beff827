"""Who may ask: the host names of the service, other sites whose pages may use it, and the token of programs.

The bearer token is that of RFC 6750; a cookie replaces it in requests of the page.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from functools import lru_cache

# Methods that change nothing: any site may link to the page.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# The longest name of a host (RFC 1035, section 2.3.4), with a colon and a port.
MAX_HOST_BYTES = 260
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.%]+\])(?::[0-9]*)?")
COOKIE = "page"
# An open page gets a new cookie with its requests; a page without requests for longer must be loaded again.
COOKIE_LIFE_S = 24 * 3600
# The parts of the page are open, since it brings the cookie; so are probes.
_OPEN_PATHS = frozenset({"/", "/index", "/favicon.ico", "/health/live", "/health/ready"})
_OPEN_PREFIX = "/static/"
# For programs and operators alone: the cookie, which everybody gets with the page, is not enough.
_PROGRAMS_PREFIXES = ("/v2", "/metrics", "/health/")
_COOKIE = re.compile(rf"(?:^|;)\s*+{COOKIE}=([0-9]{{1,12}}+)\.([0-9a-f]{{64}})\s*+(?:;|$)".encode())


def is_foreign(headers: Mapping[bytes, bytes], *, is_tls: bool, allowed: Collection[str]) -> bool:
    """Return whether a page of another origin made a browser send this request or handshake.

    Programs send no `Origin`; a page must be ours or allowed by name. `Sec-Fetch-Site`, which no script can set, comes
    first, since a proxy may have rewritten `Host`.
    """
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1") in allowed:
        return False
    site = headers.get(b"sec-fetch-site")
    if site in (b"same-origin", b"cross-site"):
        return site == b"cross-site"
    if origin is None:
        return False
    scheme, _, authority = origin.lower().partition(b"://")
    # Behind a proxy with TLS the scheme may be http here and https in the browser, but not the other way round.
    is_ours = authority and authority == headers.get(b"host", b"").lower()
    return not (is_ours and scheme in ((b"https",) if is_tls else (b"http", b"https")))


@lru_cache(1024)
def is_valid_host(host: bytes) -> bool:
    """Return whether this is a valid value of `Host`: a name or an address, with or without a port (RFC 9110, 7.2)."""
    return len(host) <= MAX_HOST_BYTES and _HOST.fullmatch(host) is not None


@lru_cache(1024)
def is_known_host(host: bytes, known: tuple[str, ...]) -> bool:
    """Return whether a `Host` is among the known names; `*.example.org` stands for all subdomains of example.org."""
    if len(host) > MAX_HOST_BYTES:
        return False
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    name = name.removesuffix(".")
    return any(
        name == each or (each.startswith("*.") and name.endswith(each[1:]) and name != each[1:]) for each in known
    )


class Access:
    """Access control with a token.

    The cookie is its expiry time and an HMAC of that, with a key derived from the token: every worker can check it
    without state, and a new token invalidates all cookies. It is the same for everybody, so a cache may keep it.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"the cookie of the page\0" + self._token).digest()

    def admits(self, path: str, headers: Mapping[bytes, bytes], *, now: float) -> bool:
        """Return whether a request may pass; `path` is relative to the mount point of the service."""
        if is_open(path):
            return True
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return True
        return admits_cookie(path) and self.cookie_left_s(headers, now=now) > 0

    def cookie_left_s(self, headers: Mapping[bytes, bytes], *, now: float) -> float:
        """Return the remaining life of the request's cookie, in seconds; 0 if there is none or it is not ours."""
        found = _COOKIE.search(headers.get(b"cookie", b""))
        if found is None or not hmac.compare_digest(found[2], self._seal(found[1])):
            return 0.0
        return max(0.0, int(found[1]) - now)

    def new_cookie(self, *, now: float, is_tls: bool) -> bytes:
        """Return a `Set-Cookie`, without a path: it applies to the folder of the page, below any prefix of a proxy."""
        end = b"%d" % (now + COOKIE_LIFE_S)
        secure = b"; Secure" if is_tls else b""
        attributes = b"; Max-Age=%d; HttpOnly; SameSite=Strict%b" % (COOKIE_LIFE_S, secure)
        return b"%b=%b.%b%b" % (COOKIE.encode(), end, self._seal(end), attributes)

    def _seal(self, end: bytes) -> bytes:
        return hmac.new(self._key, end, hashlib.sha256).hexdigest().encode()


def is_open(path: str) -> bool:
    """Return whether a path needs no token."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX)


def admits_cookie(path: str) -> bool:
    """Return whether the cookie is enough for a path, because the page itself requests it."""
    return not path.startswith(_PROGRAMS_PREFIXES)


def is_page(path: str) -> bool:
    """Return whether a path is that of the page, which brings the cookie."""
    return path in ("/", "/index")
