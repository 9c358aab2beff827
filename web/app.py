"""The application: routes, middleware, and the model's lifespan."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from ml.classifier import Classifier
from ml.errors import ModelFileError
from web import code, docs, drift_page, exposition, inference, logs, models, operations, pages, refusals, stream
from web.compression import Compressed
from web.connections import Connections
from web.content import FORMS, STATIC, entity_tag
from web.fragments import FragmentStore
from web.gateway import behind_gateway
from web.messages import encoder_of
from web.metrics import Metrics
from web.models import Rejected
from web.negotiation import BodyLimit, Pending
from web.problems import Problem
from web.rates import Rates
from web.score import Score
from web.settings import Settings
from web.stream import OpenStreams, Stream, upgrade_required
from web.templates import Templates, asset

logger = logging.getLogger("web")


def create_app(settings: Settings | None = None, *, metrics_folder: Path | None = None) -> Starlette:
    """Return the service; without settings, those of the environment.

    Args:
        metrics_folder: where several processes of one service add up what they count.
    """
    settings = settings or Settings.from_environment()
    limited = Middleware(BodyLimit, max_body_size=settings.max_body_bytes)
    compressed = Middleware(Compressed)
    files = _Static(directory=STATIC, packages=[("django_htmx", "static/django_htmx")])
    app = _Service(
        routes=[
            Route("/predict", pages.Predict(max_body_bytes=settings.max_body_bytes), methods=["GET", "POST"]),
            WebSocketRoute("/stream", Stream()),
            Route("/stream", upgrade_required),
            Route("/", pages.page, middleware=[compressed]),
            Route("/index", pages.page, middleware=[compressed]),
            Route("/result", pages.result, methods=["GET", "POST"], middleware=[compressed, limited]),
            Route("/code", code.code, middleware=[compressed]),
            Route("/score", Score(settings), methods=["POST"]),
            Route("/openapi.json", docs.openapi_json, middleware=[compressed]),
            Route("/docs", docs.docs, middleware=[compressed]),
            Route("/favicon.ico", pages.favicon),
            Route("/health/live", operations.live),
            Route("/health/ready", operations.ready),
            Route("/health/drift", drift_page.show, middleware=[compressed]),
            Route("/metrics", exposition.scrape),
            *inference.routes(settings),
            Mount("/static", Compressed(files, is_kept=True)),
        ],
        exception_handlers={
            Problem: refusals.handle_problem,
            HTTPException: refusals.handle_http_exception,
            ClientDisconnect: refusals.handle_disconnect,
            Exception: refusals.handle_failure,
        },
        lifespan=lifespan,
    )
    # A redirect to the address without its last slash would name our own host, which a proxy may not.
    app.router.redirect_slashes = False
    app.state.settings = settings
    app.state.metrics = Metrics(metrics_folder, drift_half_life_s=settings.drift_half_life_s)
    app.state.rates = Rates(settings.rate_limit)
    app.state.request_ids = logs.RequestIds()
    return app


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
    """Load the model into `app.state.model` before the first request, and replace it when its file is replaced.

    What the server needs to know is in the state that is yielded: the settings, and the service's own state.
    """
    settings: Settings = app.state.settings
    state = app.state
    state.is_draining = False
    state.rejected = None
    state.streams = OpenStreams()
    state.templates = Templates()
    state.fragments = FragmentStore(state.templates)
    # What a start leaves behind stays; full collections need not look at it, milliseconds in which nobody is served.
    # The model is not part of it: it goes when another one comes.
    gc.collect()
    gc.freeze()
    file = models.ModelFile(settings.model_file, lambda: models.load(settings))
    try:
        await models.train_if_missing(settings)
        state.model = file.open()
    except ModelFileError as error:
        # Starlette has a failed start's traceback printed; the sentence alone says all there is to say.
        sys.tracebacklimit = 0
        raise ModelFileError(str(error)) from None
    prepare(state.model, settings)
    state.metrics.model_loaded(state.model)
    logger.info("serving %s, from %s", _shown(state.model), settings.model_file)
    watch = models.Watch(
        file,
        every_s=settings.model_check_s,
        prepare=lambda model: prepare(model, settings),
        tell=lambda news: take(news, state),
    )
    pending = Pending(settings.max_pending_bytes)
    connections = Connections(settings, pending)
    looks = asyncio.create_task(connections.watch())
    async with state.metrics.running():
        yield {
            "settings": settings, "service": state, "watch": watch, "connections": connections, "pending": pending,
            "metrics": state.metrics,
        }  # fmt: skip
    watch.stop()
    looks.cancel()


def take(news: Classifier | Rejected, state: State) -> None:
    """Put a new model in the place of the one that answers, between two requests, or remember why it cannot be."""
    served: Classifier = state.model
    if isinstance(news, Rejected):
        state.rejected = news
        state.metrics.model_load_failed()
        logger.error("the new model file was not taken, %s goes on: %s", _shown(served), news.reason)
        return
    state.rejected = None
    if news.version == served.version:
        logger.info("the model file has the model again that is served: %s", _shown(news))
        return
    state.model = news
    state.metrics.model_loaded(news)
    state.streams.announce()
    logger.info("replaced %s by %s", _shown(served), _shown(news))
    # What is kept by model holds itself, and a large one would wait for the next full collection.
    gc.collect()


def _shown(model: Classifier) -> str:
    return f"{model.name}, version {model.version}"


def prepare(model: Classifier, settings: Settings) -> None:
    """Make what is kept by model, so that its first requests need not wait for it; may run in a thread of its own."""
    encoder_of(model)
    stream.announcement(model, settings)
    for form in FORMS:
        entity_tag(model, form)


class _Service(Starlette):
    """The application behind its gateway, which stands outside of everything, the last resort for errors too."""

    def build_middleware_stack(self) -> ASGIApp:
        predict = self.routes[0]
        assert isinstance(predict, Route)
        app = Shortcut(super().build_middleware_stack(), predict)
        state = self.state
        return behind_gateway(app, state.settings, state.rates, state.metrics, state.request_ids)


class Shortcut:
    """Takes GET requests straight to the endpoint of one route.

    Layers for errors and the search for a route take 5 us each time, as long as half a prediction with all of its JSON.
    What the endpoint raises is raised again on the long way, and answered there.
    """

    def __init__(self, app: ASGIApp, route: Route) -> None:
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._route.path and scope["method"] == "GET":
            scope["route"] = self._route
            try:
                await self._route.app(scope, receive, send)
                return
            except Exception:  # noqa: S110  # raised before anything was sent, and raised again
                pass
        await self._app(scope, receive, send)


class _Static(StaticFiles):
    """Static files; those asked for by digest never change."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        # Only the digest of this very file: another one's is a page's that comes from an older or newer release.
        own = (STATIC / path).is_file() and asset(path).encode().endswith(b"?" + scope["query_string"])
        known = bool(scope["query_string"]) and own
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if known else "no-cache"
        return response
