"""The bearer token of programs (RFC 6750), and the cookie that stands for it where the page itself asks."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

COOKIE = "page"
# A page that stays open asks again and gets a new cookie in time; one that slept for longer is loaded anew.
COOKIE_LIFE_S = 24 * 3600
# What the page consists of is open: without it nobody could get the cookie. So are probes.
_OPEN_PATHS = frozenset({"/", "/index", "/favicon.ico", "/health/live", "/health/ready"})
_OPEN_PREFIX = "/static/"
# What programs and operators alone ask for: a cookie, which everybody gets with the page, is not enough.
_PROGRAMS_PREFIXES = ("/v2", "/metrics", "/health/")
_COOKIE = re.compile(rf"(?:^|;)\s*+{COOKIE}=([0-9]{{1,12}}+)\.([0-9a-f]{{64}})\s*+(?:;|$)".encode())


class Access:
    """Tells who may ask, when a token is set.

    The cookie is the time of its end and an HMAC of it, with a key made of the token: every worker knows it without
    keeping anything, and a new token ends all of them. It is the same for everybody, so a cache may keep it.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"the cookie of the page\0" + self._token).digest()

    def admits(self, path: str, headers: Mapping[bytes, bytes], *, now: float) -> bool:
        """Tell whether a request may pass; `path` is relative to where the service is mounted."""
        if is_open(path):
            return True
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return True
        return admits_cookie(path) and self.cookie_left_s(headers, now=now) > 0

    def cookie_left_s(self, headers: Mapping[bytes, bytes], *, now: float) -> float:
        """Return how long the request's cookie is still good for, in seconds; 0 if there is none or it is not ours."""
        found = _COOKIE.search(headers.get(b"cookie", b""))
        if found is None or not hmac.compare_digest(found[2], self._seal(found[1])):
            return 0.0
        return max(0.0, int(found[1]) - now)

    def new_cookie(self, *, now: float, is_tls: bool) -> bytes:
        """Return a `Set-Cookie`. Without a path it is for the folder of the page, below any prefix of a proxy."""
        end = b"%d" % (now + COOKIE_LIFE_S)
        secure = b"; Secure" if is_tls else b""
        attributes = b"; Max-Age=%d; HttpOnly; SameSite=Strict%b" % (COOKIE_LIFE_S, secure)
        return b"%b=%b.%b%b" % (COOKIE.encode(), end, self._seal(end), attributes)

    def _seal(self, end: bytes) -> bytes:
        return hmac.new(self._key, end, hashlib.sha256).hexdigest().encode()


def is_open(path: str) -> bool:
    """Tell whether everybody may ask for this."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX)


def admits_cookie(path: str) -> bool:
    """Tell whether the cookie is enough for this, because the page itself asks for it."""
    return not path.startswith(_PROGRAMS_PREFIXES)


def is_page(path: str) -> bool:
    """Tell whether this is the page, which brings the cookie."""
    return path in ("/", "/index")
