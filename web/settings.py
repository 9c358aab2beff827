"""The service's settings: one frozen object, read from the environment once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ml.errors import in_quotes

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "static"
TEMPLATES = ROOT / "templates"
# One of the rates in a setting: how many, and in how many of which unit.
_NUMBER = "([1-9][0-9]{0,8})"
RATE = re.compile(rf"\s*{_NUMBER}\s*(?:/|per)\s*{_NUMBER}?\s*(second|minute|hour|day)s?\s*")


class SettingsError(ValueError):
    """An environment variable has a value that its setting does not accept. The message names both."""


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


def _seconds(default: float, variable: str, meaning: str, *, least: float = 0.1) -> Any:
    return _setting(default, variable, meaning, unit="seconds", least=least, most=86_400)


def _bytes(default: int, variable: str, meaning: str, *, least: int = 1) -> Any:
    return _setting(default, variable, meaning, unit="bytes", least=least)


def _read_networks(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(part.strip())) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"addresses or networks, comma-separated: {error}") from error


def _read_origins(text: str) -> tuple[str, ...]:
    origins = [part.strip().rstrip("/").lower() for part in text.split(",") if part.strip()]
    wrong = [origin for origin in origins if not re.fullmatch(r"https?://[a-z0-9.:\[\]_-]+", origin)]
    if wrong:
        raise ValueError(f"origins such as https://example.org, comma-separated, not {in_quotes(wrong[0])}")
    # A browser leaves out the scheme's own port.
    return tuple(re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", origin) for origin in origins)


def _read_hosts(text: str) -> tuple[str, ...]:
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    wrong = [name for name in names if not re.fullmatch(r"(\*\.)?[a-z0-9.:_-]+", name)]
    if wrong:
        raise ValueError(f"host names, comma-separated, not {in_quotes(wrong[0])}")
    return tuple(name.removesuffix(".") for name in names)


def _read_rate(text: str) -> str:
    if not all(map(RATE.fullmatch, re.split("[,;|]", text))):
        known = "a rate like 100/second, below a billion a second, minute, hour or day"
        raise ValueError(f"{known}, not {in_quotes(text)}")
    return text


def _read_log_format(text: str) -> str:
    if text not in ("plain", "json"):
        raise ValueError(f"plain or json, not {in_quotes(text)}")
    return text


def _read_token(text: str) -> str:
    # The message does not show the value: it is a secret.
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,1024}", text):
        raise ValueError("16 to 1,024 characters, each a letter, a digit or one of . _ ~ + / = -")
    return text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its default. The README's table is held to these by a test."""

    host: str = _setting("127.0.0.1", "HOST", "address to listen on; 0.0.0.0: every interface")
    port: int = _setting(8000, "PORT", "port to listen on", most=65_535)
    workers: int = _setting(1, "WEB_CONCURRENCY", "number of server processes", least=1, most=1_000)
    worker_timeout_s: float = _seconds(
        30.0, "WORKER_TIMEOUT_S", "longest pause of a worker's event loop; then the supervisor replaces it", least=2
    )
    model_file: Path = _setting(
        Path("model.npz"), "MODEL_FILE", "model file to serve; if there is none, the built-in model is trained there"
    )
    model_check_s: float = _seconds(
        1.0, "MODEL_CHECK_S", "interval between checks of the model file; 0: check on SIGHUP only", least=0
    )
    max_model_bytes: int = _bytes(256 * 2**20, "MAX_MODEL_BYTES", "largest model file")
    max_table_cells: int = _setting(
        1_000_000,
        "MAX_TABLE_CELLS",
        "largest decision table; a larger forest is evaluated by compiled code",
        unit="cells",
        least=0,
    )
    allowed_origins: tuple[str, ...] = _setting(
        (),
        "ALLOWED_ORIGINS",
        "other origins whose pages may embed the fragment and open the stream, comma-separated",
        read=_read_origins,
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "ALLOWED_HOSTS",
        "host names accepted in requests, comma-separated; `*.example.org`: its subdomains; none: any host name",
        read=_read_hosts,
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "TRUSTED_PROXIES",
        "addresses or networks of proxies whose X-Forwarded-For, -Proto and -Host are trusted, comma-separated",
        read=_read_networks,
    )
    api_token: str = _setting(
        "",
        "API_TOKEN",
        "bearer token that programs must send, at least 16 letters, digits or ._~+/=-; none: no token is needed",
        read=_read_token,
        is_secret=True,
    )
    rate_limit: str = _setting(
        "1000000/second",
        "RATE_LIMIT",
        "most requests and frames of a client in one process; beyond it status 429; for a public service `100/second`",
        read=_read_rate,
    )
    max_connections: int = _setting(
        2_000,
        "MAX_CONNECTIONS",
        "most open connections of one process, streams included; beyond it status 503",
        unit="connections",
        least=2,
    )
    max_connections_per_client: int = _setting(
        1_500,
        "MAX_CONNECTIONS_PER_CLIENT",
        "most open connections of one process from one address; beyond it status 429; trusted proxies are exempt",
        unit="connections",
        least=1,
    )
    max_head_bytes: int = _bytes(
        65_536,
        "MAX_HEAD_BYTES",
        "largest request head, and largest trailer section; the last 8 kB are not counted",
        least=1_024,
    )
    max_body_bytes: int = _bytes(12 * 2**20, "MAX_BODY_BYTES", "largest request body, uploaded files excepted")
    max_pending_bytes: int = _bytes(
        2**28,
        "MAX_PENDING_BYTES",
        "most memory of one process for unanswered requests and frames, and for unread replies",
        least=2**16,
    )
    max_upload_bytes: int = _bytes(2**28, "MAX_UPLOAD_BYTES", "largest uploaded file, including its form")
    max_uploads: int = _setting(
        32,
        "MAX_UPLOADS",
        "most files that one process scores at the same time; beyond it status 503",
        unit="files",
        least=1,
    )
    max_spool_bytes: int = _bytes(
        2**30,
        "MAX_SPOOL_BYTES",
        "most disk space of one process for uploaded files that wait, and for what Excel and Parquet files become",
        least=0,
    )
    max_table_bytes: int = _bytes(
        2**27,
        "MAX_TABLE_BYTES",
        "largest table of an uploaded file, unpacked; Excel and Parquet are read in up to four times as much memory",
    )
    max_frame_bytes: int = _bytes(2**20, "MAX_FRAME_BYTES", "largest message on the stream")
    max_samples: int = _setting(
        10_000, "MAX_SAMPLES", "most samples in one request or stream message", unit="samples", least=1
    )
    keep_alive_s: int = _seconds(30, "KEEP_ALIVE_S", "longest idle time of an HTTP connection", least=1)
    head_timeout_s: float = _seconds(10.0, "HEAD_TIMEOUT_S", "longest time for the arrival of a request head")
    body_timeout_s: float = _seconds(
        20.0,
        "BODY_TIMEOUT_S",
        "longest time for which a body or stream message may arrive more slowly than MIN_BODY_RATE",
    )
    min_body_rate: int = _setting(
        1_024,
        "MIN_BODY_RATE",
        "slowest accepted arrival of a body or stream message; see BODY_TIMEOUT_S",
        unit="bytes per second",
        least=1,
    )
    ping_interval_s: float = _seconds(
        20.0, "PING_INTERVAL_S", "interval between pings on a stream, and longest time for the answer to a ping"
    )
    send_timeout_s: float = _seconds(
        30.0,
        "SEND_TIMEOUT_S",
        "longest time for which a client may leave its response unread; then its connection is aborted",
    )
    linger_s: float = _seconds(
        2.0, "LINGER_S", "longest time for which a refused client may go on sending; then its connection is aborted"
    )
    # Routers such as Heroku's send requests for a moment after the signal to stop.
    drain_s: float = _seconds(
        1.0,
        "DRAIN_S",
        "length of draining: after SIGTERM the service is not ready, but still accepts requests",
        least=0,
    )
    shutdown_s: int = _seconds(
        10,
        "SHUTDOWN_S",
        "longest time for the open requests after draining; then their connections are aborted",
        least=1,
    )
    log_format: str = _setting(
        "plain", "LOG_FORMAT", "format of log lines: `plain` text, or one `json` object a line", read=_read_log_format
    )
    access_log: int = _setting(
        0, "ACCESS_LOG", "1: a log line for each request, with its route and id, without its input", most=1
    )
    drift_half_life_s: float = _setting(
        86_400.0,
        "DRIFT_HALF_LIFE_S",
        "half-life of inputs in the drift report: an input of this age counts half",
        unit="seconds",
        least=1,
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings of an environment; an empty variable counts as unset.

        Raises:
            SettingsError: a value cannot be read or is out of range.
        """
        values: dict[str, Any] = {}
        for setting in fields(cls):
            text = environment.get(setting.metadata["variable"], "").strip()
            if text:
                values[setting.name] = _read(text, setting.default, setting.metadata)
        return cls(**values)


def token_of(environment: Mapping[str, str] = os.environ) -> str:
    """Return the API_TOKEN of an environment, whatever its other settings are; errors are as `from_environment`'s."""
    return Settings.from_environment({"API_TOKEN": environment.get("API_TOKEN", "")}).api_token


def help_lines() -> Iterator[str]:
    """Yield a line of help for each setting: its variable, its meaning, its default with its unit."""
    width = max(len(setting.metadata["variable"]) for setting in fields(Settings))
    for setting in fields(Settings):
        default = "none" if setting.default in ((), "") else f"{setting.default} {setting.metadata['unit']}".rstrip()
        yield f"  {setting.metadata['variable']:{width}}  {setting.metadata['meaning']} (default: {default})"


def _read(text: str, default: Any, metadata: Mapping[str, Any]) -> Any:
    if metadata["read"]:
        try:
            return metadata["read"](text)
        except ValueError as error:
            raise SettingsError(f"{metadata['variable']} must be {error}") from error
    if isinstance(default, Path | str):
        return type(default)(text)
    whole = isinstance(default, int)
    kind = "a whole number" if whole else "a number"
    # int() and float() also accept 8_0, digits of other scripts and nan.
    if not re.fullmatch(r"[+-]?[0-9]{1,20}" if whole else r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?", text):
        raise SettingsError(f"{metadata['variable']} must be {kind}, not {in_quotes(text)}")
    value = type(default)(text)
    if not metadata["least"] <= value <= metadata["most"]:
        limits = f"{metadata['least']} to {metadata['most']}"
        raise SettingsError(f"{metadata['variable']} must be {kind} from {limits}, not {text}")
    return value
