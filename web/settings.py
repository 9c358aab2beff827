"""The service's settings: one frozen object, read from the environment once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "static"
TEMPLATES = ROOT / "templates"

SHOWN_CHARACTERS = 60


class SettingsError(ValueError):
    """An environment variable has a value that its setting cannot take. The message names both."""


def _setting(
    default: object,
    variable: str,
    meaning: str,
    *,
    unit: str = "",
    least: float = 0,
    most: float = 2**53,
    read: Callable[[str], object] | None = None,
    is_secret: bool = False,
) -> Any:
    metadata = {"variable": variable, "meaning": meaning, "unit": unit, "least": least, "most": most, "read": read}
    return field(default=default, metadata=metadata, repr=not is_secret)


def _read_networks(text: str) -> tuple[str, ...]:
    return tuple(str(ip_network(part.strip())) for part in text.split(",") if part.strip())


def _read_hosts(text: str) -> tuple[str, ...]:
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    wrong = [name for name in names if not re.fullmatch(r"(\*\.)?[a-z0-9.:_-]+", name)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no name of a host")
    return tuple(name.removesuffix(".") for name in names)


def _read_rate(text: str) -> str:
    import limits  # 0.1 s, which a client need not wait for

    limits.parse_many(text)
    return text


def _read_log_format(text: str) -> str:
    if text not in ("plain", "json"):
        raise ValueError(f"plain or json, not {text[:SHOWN_CHARACTERS]!r}")
    return text


def _read_token(text: str) -> str:
    # What is wrong with it is not shown: it is a secret all the same.
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,1024}", text):
        raise ValueError("at least 16 characters, of letters, digits and . _ ~ + / = -")
    return text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its default. The README's table is held to these by a test."""

    host: str = _setting("127.0.0.1", "HOST", "address to listen on; 0.0.0.0 is every interface")
    port: int = _setting(8000, "PORT", "port to listen on", most=65_535)
    workers: int = _setting(1, "WEB_CONCURRENCY", "server processes", least=1, most=1_000)
    worker_timeout_s: float = _setting(
        30.0,
        "WORKER_TIMEOUT_S",
        "of several processes, one whose event loop has stood still for so long is replaced",
        unit="seconds",
        most=86_400,
        least=2,
    )
    model_file: Path = _setting(
        Path("model.npz"), "MODEL_FILE", "the model to serve; the built-in one is trained there when there is no file"
    )
    model_check_s: float = _setting(
        1.0, "MODEL_CHECK_S", "a replaced model file is noticed within; 0: only on SIGHUP", unit="seconds", most=86_400
    )
    max_model_bytes: int = _setting(256 * 2**20, "MAX_MODEL_BYTES", "largest model file", unit="bytes", least=1)
    max_table_cells: int = _setting(
        1_000_000, "MAX_TABLE_CELLS", "a forest of more cells is not made into a decision table", least=0
    )
    max_bit_bytes: int = _setting(
        128 * 2**20, "MAX_BIT_BYTES", "nor into bit vectors beyond this; its trees are walked", unit="bytes", least=0
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), "ALLOWED_ORIGINS", "other sites whose pages may embed the fragment and open the stream, comma-separated"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "ALLOWED_HOSTS",
        "names that the service answers to, comma-separated; `*.example.org` is all below it; none: any",
        read=_read_hosts,
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "TRUSTED_PROXIES",
        "proxies whose X-Forwarded-For, -Proto and -Host are believed: addresses or networks, comma-separated",
        read=_read_networks,
    )
    api_token: str = _setting(
        "",
        "API_TOKEN",
        "programs must send it, 16 letters, digits or ._~+/=- at least, as a bearer token",
        read=_read_token,
        is_secret=True,
    )
    rate_limit: str = _setting(
        "1000000/second",
        "RATE_LIMIT",
        "requests and stream frames of one client, pings too; in public rather `100/second`; beyond it they get 429",
        read=_read_rate,
    )
    max_connections: int = _setting(
        2_000, "MAX_CONNECTIONS", "open connections of one process, streams included; beyond them 503", least=2
    )
    max_connections_per_client: int = _setting(
        1_500,
        "MAX_CONNECTIONS_PER_CLIENT",
        "of these from one address; beyond them 429; a trusted proxy may have all",
        least=1,
    )
    max_head_bytes: int = _setting(
        65_536,
        "MAX_HEAD_BYTES",
        "largest head of a request, and largest trailer section, but for the last 8 kB",
        unit="bytes",
        least=1_024,
    )
    max_body_bytes: int = _setting(12 * 2**20, "MAX_BODY_BYTES", "largest request body", unit="bytes", least=1)
    max_pending_bytes: int = _setting(
        2**28,
        "MAX_PENDING_BYTES",
        "held for all clients: requests and frames that are not answered, replies that are not read",
        unit="bytes",
        least=2**16,
    )
    max_upload_bytes: int = _setting(
        2**28, "MAX_UPLOAD_BYTES", "largest file that is scored, with its form", unit="bytes", least=1
    )
    max_uploads: int = _setting(
        32, "MAX_UPLOADS", "files that one process scores at the same time; beyond them 503", least=1
    )
    max_spool_bytes: int = _setting(
        2**30, "MAX_SPOOL_BYTES", "of these files, what waits on disk for clients that do not read yet", unit="bytes"
    )
    max_frame_bytes: int = _setting(2**20, "MAX_FRAME_BYTES", "largest message on the stream", unit="bytes", least=1)
    max_samples: int = _setting(10_000, "MAX_SAMPLES", "samples in one JSON request or message", least=1)
    keep_alive_s: int = _setting(
        30, "KEEP_ALIVE_S", "an idle HTTP connection is closed after", unit="seconds", most=86_400, least=1
    )
    head_timeout_s: float = _setting(
        10.0, "HEAD_TIMEOUT_S", "the head of a request comes within", unit="seconds", most=86_400, least=0.1
    )
    body_timeout_s: float = _setting(
        20.0,
        "BODY_TIMEOUT_S",
        "a body or frame that comes in too slowly is cut after",
        unit="seconds",
        most=86_400,
        least=0.1,
    )
    min_body_rate: int = _setting(1_024, "MIN_BODY_RATE", "what is too slow", unit="bytes per second", least=1)
    ping_interval_s: float = _setting(
        20.0, "PING_INTERVAL_S", "a stream is pinged every, and closed when the answer takes as long",
        unit="seconds", most=86_400, least=0.1,
    )  # fmt: skip
    send_timeout_s: float = _setting(
        30.0,
        "SEND_TIMEOUT_S",
        "a client that does not read is cut after",
        unit="seconds",
        most=86_400,
        least=0.1,
    )
    linger_s: float = _setting(
        2.0,
        "LINGER_S",
        "a refused client may go on sending for, until its connection is cut",
        unit="seconds",
        most=86_400,
        least=0.1,
    )
    # Routers such as Heroku's send requests for a moment after the signal to stop.
    drain_s: float = _setting(
        1.0, "DRAIN_S", "told to stop, it still takes requests for, and is not ready", unit="seconds", most=86_400
    )
    shutdown_s: int = _setting(
        10, "SHUTDOWN_S", "open requests may then finish within", unit="seconds", most=86_400, least=1
    )

    log_format: str = _setting(
        "plain", "LOG_FORMAT", "lines for people, `plain`, or JSON for machines, `json`", read=_read_log_format
    )
    access_log: int = _setting(
        0, "ACCESS_LOG", "1: a line for each request, with its route and id, without what was sent", most=1
    )
    drift_half_life_s: float = _setting(
        86_400.0,
        "DRIFT_HALF_LIFE_S",
        "inputs as old as this count half when they are compared with the training data",
        unit="seconds",
        least=1,
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings with what the environment says; empty variables count as unset.

        Raises:
            SettingsError: a value cannot be read or is below the least one allowed.
        """
        values: dict[str, Any] = {}
        for setting in fields(cls):
            text = environment.get(setting.metadata["variable"], "").strip()
            if text:
                values[setting.name] = _read(text, setting.default, setting.metadata)
        return cls(**values)


def _read(text: str, default: Any, metadata: Mapping[str, Any]) -> Any:
    if metadata["read"]:
        try:
            return metadata["read"](text)
        except ValueError as error:
            raise SettingsError(f"{metadata['variable']} must be what the README says: {error}") from error
    if isinstance(default, tuple):
        return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    if isinstance(default, Path | str):
        return type(default)(text)
    whole = isinstance(default, int)
    kind = "a whole number" if whole else "a number"
    # int() and float() take more than what a person would write: 8_0, digits of other scripts, nan.
    if not re.fullmatch(r"[+-]?[0-9]{1,20}" if whole else r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?", text):
        raise SettingsError(f"{metadata['variable']} must be {kind}, not {text[:SHOWN_CHARACTERS]!r}")
    value = type(default)(text)
    if not metadata["least"] <= value <= metadata["most"]:
        limits = f"{metadata['least']} to {metadata['most']}"
        raise SettingsError(f"{metadata['variable']} must be {kind} from {limits}, not {text}")
    return value
