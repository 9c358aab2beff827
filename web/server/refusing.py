"""Responses to requests and handshakes that are refused before the application."""

from __future__ import annotations

from typing import Any

from web import logs, responses
from web.middleware.forwarded import is_proxy
from web.middleware.gateway import SECURITY_HEADERS
from web.problems import Problem, too_many
from web.server.connections import Connections
from web.service import Service


def refusal(
    state: dict[str, Any], problem: Problem, client: tuple[str, int] | None, default_headers: list[tuple[bytes, bytes]]
) -> bytes:
    """Return a whole HTTP response to a refused request, which is counted, for the rate too, gets an id, and is logged.

    Args:
        state: the state that the application's lifespan yielded.
    """
    service: Service = state["service"]
    connections: Connections = state["connections"]
    request_id = logs.new_request_id()
    address = client[0] if client else ""
    # The client behind a proxy is not known here.
    if not is_proxy(address, service.settings.trusted_proxies) and (wait_s := service.rates.take(address)):
        problem = too_many(wait_s)
    service.metrics.refused(problem.details.status)
    connections.log_refusal(problem, address, request_id)
    headers = [*default_headers, *SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
    return responses.on_the_wire(problem, headers)
