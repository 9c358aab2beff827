"""The application: routes, middleware, and the lifespan of the model."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml.errors import ModelFileError, shown
from ml.model.loaded import LoadedModel
from web import errors, models
from web.api import health, stream
from web.api.encoder import encoder_of
from web.api.stream import OpenStreams, StreamEndpoint
from web.metrics.counters import Metrics
from web.middleware.body_limit import BodyLimit, Pending
from web.middleware.compression import Compressed
from web.middleware.exact_paths import ExactPaths
from web.middleware.forwarded import Forwarded
from web.middleware.gateway import Gateway
from web.middleware.rates import Rates
from web.models import RejectedFile
from web.oip import routes as oip
from web.page import docs, drift_page, explanation, files, languages, pages, snippet_panel
from web.predict import Predict
from web.problems import Problem
from web.responses import REPRESENTATIONS, entity_tag
from web.scoring.request import Score, template
from web.scoring.scored_file import OpenFiles
from web.scoring.websocket import ScoreStream
from web.server.connections import Connections
from web.service import Service
from web.settings import Settings

# While a thread computes or loads a model, the event loop gets the interpreter back after so long, not after 5 ms.
# Measured with a client that asks every 5 ms while models load over and over: p99 5 ms, not 11.
SWITCH_S = 0.0005

logger = logging.getLogger("web")

HANDLERS = {
    Problem: errors.handle_problem,
    HTTPException: errors.handle_http_exception,
    ClientDisconnect: errors.handle_disconnect,
}


class Application(Starlette):
    """Starlette behind the gateway.

    Attributes:
        service: the state that the endpoints share.
        streams: the open websockets.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.streams = OpenStreams()
        super().__init__(routes=_routes(service, self.streams), lifespan=lifespan)
        # A redirect to the address without its last slash would name our own host, which may be hidden by a proxy.
        self.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or websocket, with the service in its state; or start and end."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, _without_traceback(send))
            return
        scope.setdefault("state", {})["service"] = self.service
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            # What still waits for a thread when the process ends is cancelled, after its connection was aborted.
            if not self.service.is_draining:
                raise

    def build_middleware_stack(self) -> ASGIApp:
        """Return the application behind its middleware; the gateway answers unexpected exceptions."""
        app = ExactPaths(ExceptionMiddleware(self.router, HANDLERS), self.routes, HANDLERS)
        service = self.service
        gateway = Gateway(
            app,
            service.settings,
            service.rates,
            service.metrics,
            websockets={route.path for route in self.routes if isinstance(route, WebSocketRoute)},
            refuse=errors.refuse,
            fail=errors.handle_failure,
        )
        proxies = service.settings.trusted_proxies
        return Forwarded(gateway, proxies) if proxies else gateway


def _without_traceback(send: Send) -> Send:
    """Return a `send` whose message about a failed start is one sentence; Starlette's is a traceback."""

    async def send_sentence(message: Message) -> None:
        if message["type"] == "lifespan.startup.failed" and (error := sys.exception()):
            if not isinstance(error, ModelFileError):
                logger.error("the start failed", exc_info=error)
            message = {**message, "message": str(error)}
        await send(message)

    return send_sentence


def create_app(settings: Settings | None = None, *, metrics_folder: Path | None = None) -> Application:
    """Return the service; without settings, those of the environment.

    Args:
        metrics_folder: in which several processes of one service share their metrics.
    """
    settings = settings or Settings.from_environment()
    service = Service(
        settings=settings,
        metrics=Metrics(metrics_folder, drift_half_life_s=settings.drift_half_life_s),
        rates=Rates(settings.rate_limit),
        pending=Pending(settings.max_pending_bytes),
    )
    return Application(service)


def _routes(service: Service, streams: OpenStreams) -> list[BaseRoute]:
    settings, pending = service.settings, service.pending
    open_files = OpenFiles(settings)
    limited = Middleware(BodyLimit, max_bytes=settings.max_body_bytes, pending=pending)
    compressed = Middleware(Compressed)
    predict = Predict(max_body_bytes=settings.max_body_bytes, pending=pending)
    return [
        Route("/predict", predict, methods=["GET", "POST"]),
        WebSocketRoute("/stream", StreamEndpoint(streams)),
        Route("/stream", stream.upgrade_required),
        Route("/", pages.page, middleware=[compressed]),
        Route("/index", pages.page, middleware=[compressed]),
        Route("/result", pages.result, methods=["GET", "POST"], middleware=[compressed, limited]),
        Route("/explain", explanation.explain, middleware=[compressed]),
        Route("/code", snippet_panel.code, middleware=[compressed]),
        Route("/score", Score(open_files), methods=["GET", "POST"]),
        WebSocketRoute("/score", ScoreStream(open_files)),
        Route("/template.csv", template),
        Route("/openapi.json", docs.openapi_json, middleware=[compressed]),
        Route("/docs", docs.docs, middleware=[compressed]),
        Route("/favicon.ico", files.favicon),
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/health/drift", drift_page.show, middleware=[compressed]),
        Route("/metrics", health.metrics),
        *oip.routes(settings, pending),
        *files.routes(),
    ]


@asynccontextmanager
async def lifespan(app: Application) -> AsyncIterator[dict[str, object]]:
    """Load the model before the first request, and replace it when its file is replaced.

    The state that is yielded has the service and, for the server, its connections.
    """
    service = app.service
    settings = service.settings
    # Objects of the start stay for ever: frozen, they cost full collections no time, milliseconds in which no request
    # is served. The model is not among them: it is freed when another one replaces it.
    gc.collect()
    gc.freeze()
    # What is recorded of requests until it is counted is no garbage: looking for some among it took 0.7 us a request.
    gc.set_threshold(10_000)
    sys.setswitchinterval(SWITCH_S)
    file = models.WatchedFile(settings.model_file, lambda: load_prepared(settings))
    await models.train_if_missing(settings)
    with models.named_when_slow(settings.model_file):
        service.model = file.open()
    service.metrics.model_loaded(service.model)
    logger.info("serving %s, from %s", _shown(service.model), settings.model_file)
    service.watcher = models.ModelWatcher(
        file,
        every_s=settings.model_check_s,
        on_change=lambda change: on_model_change(change, service, app.streams),
    )
    connections = Connections(settings, service.pending)
    checks = asyncio.create_task(connections.watch())
    async with service.metrics.running():
        yield {"service": service, "connections": connections}
    service.watcher.stop()
    checks.cancel()


def on_model_change(change: LoadedModel | RejectedFile, service: Service, streams: OpenStreams) -> None:
    """Serve a new model instead of the present one, between two requests, or keep the reason of a rejected file."""
    served = service.model
    if isinstance(change, RejectedFile):
        service.rejected = change
        service.metrics.model_load_failed()
        logger.error("model reload failed, still serving %s: %s", _shown(served), change.reason)
        return
    service.rejected = None
    if change.version == served.version:
        logger.info("model reload: the model file matches the served model again: %s", _shown(change))
        return
    service.model = change
    service.metrics.model_loaded(change)
    streams.announce()
    logger.info("model reload: replaced %s by %s", _shown(served), _shown(change))
    # Objects derived from a model refer to it, so a large one would stay until the next full collection.
    gc.collect()


def _shown(model: LoadedModel) -> str:
    return f"{model.name}, version {model.version}"


def load_prepared(settings: Settings) -> LoadedModel:
    """Return the model in the file of the settings, after a trial: its pages, documentation and messages were made.

    Raises:
        ModelFileError: the file cannot be served, or not shown.
    """
    model = models.load_configured(settings)
    try:
        prepare(model, settings)
    except Exception as error:
        logger.exception("unexpected error while rendering the pages of the model in %s", settings.model_file)
        raise ModelFileError(
            f"{settings.model_file}: it cannot be shown: {type(error).__name__}: {shown(error)}"
        ) from error
    return model


def prepare(model: LoadedModel, settings: Settings) -> None:
    """Make the cached parts and the pages of a model, so that its first requests neither wait nor fail."""
    encoder_of(model)
    stream.announcement(model, settings)
    for representation in REPRESENTATIONS:
        entity_tag(model, representation)
    for code in languages.codes():
        pages.example_page(model, languages.language(code))
    # Nothing of them is kept: one language shows whether they can be made.
    english = languages.language(languages.SOURCE)
    drift_page.example_page(model, english)
    docs.example_page(model, settings, english)
    snippet_panel.example_panel(model, settings, english)
