"""python -m web: run the service with uvicorn and this service's settings."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import fields
from typing import Any

import uvicorn

from ml.errors import ModelFileError
from web import models
from web.settings import Settings, SettingsError

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"web": {"level": "INFO"}},
}


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return how uvicorn serves: event loop, protocols and limits."""
    return {
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
        "loop": "uvloop",
        "http": "web.protocol:HttpProtocol",
        "ws": "web.protocol:StreamProtocol",
        "access_log": False,  # its lines would hold what people typed
        "server_header": False,
        "proxy_headers": False,  # uvicorn would believe whoever is on this machine; see web/forwarded.py
        "timeout_keep_alive": settings.keep_alive_s,
        "timeout_graceful_shutdown": settings.shutdown_s,
        "ws_max_size": settings.max_frame_bytes,
        "ws_ping_interval": settings.ping_interval_s,
        "ws_ping_timeout": settings.ping_interval_s,
        "ws_per_message_deflate": False,  # costs more than it saves on small frames
    }


def main() -> int:
    """Serve until told to stop; return the exit status."""
    epilog = "settings are environment variables:\n" + "\n".join(
        f"  {setting.metadata['variable']:18} {setting.metadata['meaning']}" for setting in fields(Settings)
    )
    argparse.ArgumentParser(
        prog="python -m web", description="Serve a model.", epilog=epilog, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if settings.workers > 1:
        # uvicorn would start workers that cannot load the model again and again; and one of them trains, not each.
        try:
            asyncio.run(models.train_if_missing(settings))
            models.load(settings)
        except ModelFileError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    uvicorn.run("web.app:create_app", factory=True, lifespan="on", log_config=LOGGING, **uvicorn_options(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
