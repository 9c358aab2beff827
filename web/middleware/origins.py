"""Host names of the service, and origins of other sites whose pages may use it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

# Methods that change nothing: any site may link to the page.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# The longest name of a host (RFC 1035, section 2.3.4), with a colon and a port.
MAX_HOST_BYTES = 260
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.%]+\])(?::[0-9]*)?")


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
    return len(host) <= MAX_HOST_BYTES and _is_known(host, known)


@lru_cache(1024)
def _is_known(host: bytes, known: tuple[str, ...]) -> bool:
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    name = name.removesuffix(".")
    return any(
        name == each or (each.startswith("*.") and name.endswith(each[1:]) and name != each[1:]) for each in known
    )
