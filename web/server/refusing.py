"""Responses to requests and handshakes that are refused before the application."""

from __future__ import annotations

from typing import Any

from web import logs, responses
from web.middleware.gateway import SECURITY_HEADERS
from web.problems import Problem
from web.server.connections import Connections
from web.service import Service


def refusal(
    state: dict[str, Any], problem: Problem, client: tuple[str, int] | None, default_headers: list[tuple[bytes, bytes]]
) -> bytes:
    """Return a whole HTTP response to a refused request, which is counted, gets an id, and is logged.

    Args:
        state: the state that the application's lifespan yielded.
    """
    service: Service = state["service"]
    connections: Connections = state["connections"]
    request_id = logs.new_request_id()
    service.metrics.refused(problem.details.status)
    connections.log_refusal(problem, client[0] if client else "", request_id)
    headers = [*default_headers, *SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
    return responses.on_the_wire(problem, headers)
