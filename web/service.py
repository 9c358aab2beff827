"""The service: the state that all endpoints of a process share, as one typed object."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.types import Scope

from ml.model.loaded import LoadedModel
from web.metrics.counters import Metrics
from web.middleware.body_limit import Pending
from web.middleware.rates import Rates
from web.models import ModelWatcher, RejectedFile
from web.settings import Settings


@dataclass(slots=True)
class Service:
    """One process's service. Made by `create_app`; the lifespan loads the model before the first request.

    Attributes:
        pending: the bytes of all request bodies that are being read.
        model: the served model. It is replaced by assigning another one, between two requests.
        watcher: checks the model file.
        rejected: the reason why a newer model file is not served, if there is one.
        is_draining: whether the process drains, which it does after SIGTERM.
    """

    settings: Settings
    metrics: Metrics
    rates: Rates
    pending: Pending
    model: LoadedModel = field(init=False)
    watcher: ModelWatcher = field(init=False)
    rejected: RejectedFile | None = None
    is_draining: bool = False


def service_of(scope: Scope) -> Service:
    """Return the service that a request or websocket belongs to."""
    service: Service = scope["state"]["service"]
    return service
