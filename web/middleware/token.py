"""The bearer token of programs (RFC 6750), and the cookie that replaces it in requests of the page."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

COOKIE = "page"
# An open page gets a new cookie with its requests; a page without requests for longer must be loaded again.
COOKIE_LIFE_S = 24 * 3600
# The parts of the page are open, since it brings the cookie; so are probes.
_OPEN_PATHS = frozenset({"/", "/index", "/favicon.ico", "/health/live", "/health/ready"})
_OPEN_PREFIX = "/static/"
# For programs and operators alone: the cookie, which everybody gets with the page, is not enough.
_PROGRAMS_PREFIXES = ("/v2", "/metrics", "/health/")
_COOKIE = re.compile(rf"(?:^|;)\s*+{COOKIE}=([0-9]{{1,12}}+)\.([0-9a-f]{{64}})\s*+(?:;|$)".encode())


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
