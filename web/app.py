"""The application: routes, middleware, and the model's lifespan."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from ml import classifier
from ml.classifier import Classifier
from ml.errors import ModelFileError
from web import docs, inference, operations, pages, refusals
from web.content import ROOT, STATIC
from web.gateway import Gateway
from web.negotiation import BodyLimit
from web.problems import Problem
from web.settings import Settings
from web.stream import Stream, upgrade_required
from web.templates import Templates, asset

logger = logging.getLogger("web")


def create_app(settings: Settings | None = None) -> Starlette:
    """Return the service; without settings, those of the environment."""
    settings = settings or Settings.from_environment()
    middleware = []
    if settings.allowed_origins:
        # htmx announces itself with its own headers, so a page elsewhere asks for permission first.
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "POST"],
                allow_headers=[
                    "Content-Type",
                    "HX-Request",
                    "HX-Target",
                    "HX-Trigger",
                    "HX-Trigger-Name",
                    "HX-Current-URL",
                ],
            )
        )
    limited = Middleware(BodyLimit, max_body_size=settings.max_body_bytes)
    app = _Service(
        routes=[
            Route("/predict", pages.Predict(max_body_bytes=settings.max_body_bytes), methods=["GET", "POST"]),
            WebSocketRoute("/stream", Stream()),
            Route("/stream", upgrade_required),
            Route("/", pages.page),
            Route("/index", pages.page),
            Route("/result", pages.result, methods=["GET", "POST"], middleware=[limited]),
            Route("/openapi.json", docs.openapi_json),
            Route("/docs", docs.docs),
            Route("/favicon.ico", pages.favicon),
            Route("/health/live", operations.live),
            Route("/health/ready", operations.ready),
            *inference.routes(settings),
            Mount("/static", _Static(directory=STATIC, packages=[("django_htmx", "static/django_htmx")])),
        ],
        middleware=middleware,
        exception_handlers={
            Problem: refusals.handle_problem,
            HTTPException: refusals.handle_http_exception,
            ClientDisconnect: refusals.handle_disconnect,
        },
        lifespan=lifespan,
    )
    # A redirect to the address without its last slash would name our own host, which a proxy may not.
    app.router.redirect_slashes = False
    app.state.settings = settings
    return app


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Settings]]:
    """Load the model into `app.state.model` before the first request; train the built-in one when there is no file."""
    settings: Settings = app.state.settings
    try:
        model = await load_model(settings)
    except ModelFileError as error:
        # Starlette has a failed start's traceback printed; the sentence alone says all there is to say.
        sys.tracebacklimit = 0
        raise ModelFileError(str(error)) from None
    app.state.model = model
    app.state.templates = Templates()
    logger.info("serving %s, version %s, from %s", model.name, model.version, settings.model_file)
    # What a start leaves behind stays; full collections need not look at it, milliseconds in which nobody is served.
    gc.collect()
    gc.freeze()
    yield {"settings": settings}


async def load_model(settings: Settings) -> Classifier:
    """Return the model that the settings name; train the built-in one when there is no file.

    Raises:
        ModelFileError: the file cannot be served, or not be made.
    """
    try:
        exists = settings.model_file.exists()
    except OSError as error:
        raise ModelFileError(f"{settings.model_file}: {error.strerror}") from error
    if not exists:
        if not settings.model_file.absolute().parent.is_dir():
            raise ModelFileError(f"{settings.model_file}: there is no such folder")
        await _train(settings)
    return classifier.load(
        settings.model_file,
        max_bytes=settings.max_model_bytes,
        max_cells=settings.max_table_cells,
        max_bit_bytes=settings.max_bit_bytes,
    )


async def _train(settings: Settings) -> None:
    """Train the built-in model in a process of its own: scikit-learn's 130 MB end with it."""
    logger.warning("no model file at %s: training the built-in model there", settings.model_file)
    command = (sys.executable, "-m", "ml", "train", "--out", os.fspath(settings.model_file.absolute()))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise ModelFileError(f"training the built-in model failed:\n{output.decode(errors='replace')}")


class _Service(Starlette):
    """The application behind its gateway, which stands outside of everything, the last resort for errors too."""

    def build_middleware_stack(self) -> ASGIApp:
        return Gateway(super().build_middleware_stack())


class _Static(StaticFiles):
    """Static files; those asked for by digest never change."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        # Only the digest of this very file: another one's is a page's that comes from an older or newer release.
        own = (STATIC / path).is_file() and asset(path).encode().endswith(b"?" + scope["query_string"])
        known = bool(scope["query_string"]) and own
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if known else "no-cache"
        return response
