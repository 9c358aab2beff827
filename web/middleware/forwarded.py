"""Headers of trusted proxies: the client's address, the scheme and the host of a forwarded request."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


class Forwarded:
    """Middleware that applies X-Forwarded-For, -Proto and -Host of trusted proxies, and of nobody else."""

    def __init__(self, app: ASGIApp, proxies: tuple[str, ...]) -> None:
        self._proxies = proxies
        self._addresses = ProxyHeadersMiddleware(app, list(proxies))  # type: ignore[arg-type]  # its own ASGI types

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client and is_proxy(client[0], self._proxies):
            hosts = [value for name, value in scope["headers"] if name == b"x-forwarded-host"]
            if hosts:
                host = hosts[-1].rpartition(b",")[2].strip()
                others = [header for header in scope["headers"] if header[0] != b"host"]
                scope["headers"] = [(b"host", host), *others]
        await self._addresses(scope, receive, send)  # type: ignore[arg-type]  # its own ASGI types


@lru_cache(4096)
def is_proxy(address: str, proxies: tuple[str, ...]) -> bool:
    """Return whether an address is one of the proxies, which are addresses or networks."""
    try:
        own = ip_address(address)
    except ValueError:
        return False
    return any(own in ip_network(proxy) for proxy in proxies)
