"""The service's settings: one frozen object, read from the environment once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

SHOWN_CHARACTERS = 60


class SettingsError(ValueError):
    """An environment variable has a value that its setting cannot take. The message names both."""


def _setting(
    default: object, variable: str, meaning: str, *, unit: str = "", least: float = 0, most: float = 2**53
) -> Any:
    limits = {"least": least, "most": most}
    return field(default=default, metadata={"variable": variable, "meaning": meaning, "unit": unit, **limits})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its default. The README's table is held to these by a test."""

    host: str = _setting("127.0.0.1", "HOST", "address to listen on; 0.0.0.0 is every interface")
    port: int = _setting(8000, "PORT", "port to listen on", most=65_535)
    workers: int = _setting(1, "WEB_CONCURRENCY", "server processes", least=1, most=1_000)
    model_file: Path = _setting(
        Path("model.npz"), "MODEL_FILE", "the model to serve; the built-in one is trained there when there is no file"
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
    max_connections: int = _setting(
        2_000, "MAX_CONNECTIONS", "open connections of one process; beyond them a request gets 503", least=2
    )
    max_head_bytes: int = _setting(
        65_536,
        "MAX_HEAD_BYTES",
        "largest head of a request, but for the read that completes it",
        unit="bytes",
        least=1_024,
    )
    max_body_bytes: int = _setting(12 * 2**20, "MAX_BODY_BYTES", "largest request body", unit="bytes", least=1)
    max_frame_bytes: int = _setting(2**20, "MAX_FRAME_BYTES", "largest message on the stream", unit="bytes", least=1)
    max_samples: int = _setting(10_000, "MAX_SAMPLES", "samples in one JSON request or message", least=1)
    keep_alive_s: int = _setting(
        30, "KEEP_ALIVE_S", "an idle HTTP connection is closed after", unit="seconds", most=86_400, least=1
    )
    ping_interval_s: float = _setting(
        20.0, "PING_INTERVAL_S", "a stream is pinged every, and closed when the answer takes as long",
        unit="seconds", most=86_400, least=0.1,
    )  # fmt: skip
    send_timeout_s: float = _setting(
        30.0,
        "SEND_TIMEOUT_S",
        "a stream whose client does not read is cut after",
        unit="seconds",
        most=86_400,
        least=0.1,
    )
    shutdown_s: int = _setting(
        10, "SHUTDOWN_S", "open requests may finish within", unit="seconds", most=86_400, least=1
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
