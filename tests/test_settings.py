"""The settings: values of the environment, errors about invalid ones, and the help."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.conftest import for_each
from web.settings import Settings, SettingsError, help_lines


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_environment({"PORT": "", "HOST": "  ", "ALLOWED_ORIGINS": " "}) == Settings()


@for_each(
    ("variable", "text", "name", "value"),
    [
        ("HOST", "0.0.0.0", "host", "0.0.0.0"),
        ("HOST", " ::1 ", "host", "::1"),
        ("PORT", "0", "port", 0),
        ("PORT", "65535", "port", 65535),
        ("WEB_CONCURRENCY", "4", "workers", 4),
        ("MODEL_FILE", "/srv/a model.npz", "model_file", Path("/srv/a model.npz")),
        ("ALLOWED_ORIGINS", "https://a.example", "allowed_origins", ("https://a.example",)),
        ("ALLOWED_ORIGINS", "HTTPS://A.example:443", "allowed_origins", ("https://a.example",)),
        ("ALLOWED_ORIGINS", "https://a.example/, http://b:81 ,,", "allowed_origins", ("https://a.example", "http://b:81")),
        ("MAX_CONNECTIONS", "50", "max_connections", 50),
        ("MAX_BODY_BYTES", "1", "max_body_bytes", 1),
        ("MAX_FRAME_BYTES", "65536", "max_frame_bytes", 65536),
        ("MAX_SAMPLES", "3", "max_samples", 3),
        ("KEEP_ALIVE_S", "5", "keep_alive_s", 5),
        ("PING_INTERVAL_S", "0.5", "ping_interval_s", 0.5),
        ("SEND_TIMEOUT_S", "2.5", "send_timeout_s", 2.5),
        ("SHUTDOWN_S", "1", "shutdown_s", 1),
        ("ALLOWED_HOSTS", "A.example, *.lab.example.", "allowed_hosts", ("a.example", "*.lab.example")),
        ("TRUSTED_PROXIES", "10.0.0.1, 2001:db8::/32", "trusted_proxies", ("10.0.0.1/32", "2001:db8::/32")),
        ("API_TOKEN", "0123456789abcdef", "api_token", "0123456789abcdef"),
        ("RATE_LIMIT", "10/second; 100 per minute", "rate_limit", "10/second; 100 per minute"),
        ("MAX_CONNECTIONS_PER_CLIENT", "1", "max_connections_per_client", 1),
        ("MAX_PENDING_BYTES", "65536", "max_pending_bytes", 65536),
        ("HEAD_TIMEOUT_S", "0.5", "head_timeout_s", 0.5),
        ("BODY_TIMEOUT_S", "5", "body_timeout_s", 5.0),
        ("MIN_BODY_RATE", "100", "min_body_rate", 100),
        ("LINGER_S", "1.5", "linger_s", 1.5),
    ],
)  # fmt: skip
def test_a_variable_sets_its_setting_and_no_other(variable: str, text: str, name: str, value: object) -> None:
    settings = Settings.from_environment({variable: text, "UNRELATED": "x"})

    assert dataclasses.asdict(settings) == dataclasses.asdict(Settings()) | {name: value}


def test_the_help_of_each_setting_is_one_line_with_its_default_and_unit() -> None:
    lines = dict(line.split(maxsplit=1) for line in help_lines())

    assert [*lines] == [setting.metadata["variable"] for setting in dataclasses.fields(Settings)]
    assert lines["MIN_BODY_RATE"].endswith("(default: 1024 bytes per second)")
    assert lines["MODEL_FILE"].endswith("(default: model.npz)")
    assert lines["API_TOKEN"].endswith("(default: none)")


def test_every_setting_has_a_variable_of_its_own_and_a_meaning() -> None:
    settings = dataclasses.fields(Settings)

    assert len({setting.metadata["variable"] for setting in settings}) == len(settings)
    assert all(setting.metadata["meaning"] for setting in settings)


@for_each(
    ("variable", "text"),
    [
        ("PORT", "http"), ("PORT", "80.0"), ("PORT", "-1"), ("PORT", "0x50"), ("PORT", "8 0"),
        ("WEB_CONCURRENCY", "0"), ("WEB_CONCURRENCY", "two"),
        ("MAX_CONNECTIONS", "0"), ("MAX_BODY_BYTES", "12MB"), ("MAX_FRAME_BYTES", "0"), ("MAX_SAMPLES", "-5"),
        ("KEEP_ALIVE_S", "0"), ("SHUTDOWN_S", "1.5"), ("SHUTDOWN_S", "-1"),
        ("PING_INTERVAL_S", "often"), ("PING_INTERVAL_S", "0"), ("PING_INTERVAL_S", "nan"),
        ("PORT", "9" * 5_000),
        ("PORT", "65536"), ("PORT", "8_0"), ("PORT", "\u0668"), ("PING_INTERVAL_S", "inf"),
        ("PING_INTERVAL_S", "1e400"), ("KEEP_ALIVE_S", "9" * 30), ("MAX_CONNECTIONS", "1"),
        ("ALLOWED_ORIGINS", "a.example"), ("ALLOWED_ORIGINS", "https://a.example/page"),
        ("ALLOWED_HOSTS", "http://a.example"), ("ALLOWED_HOSTS", "a.*.example"), ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "*"), ("TRUSTED_PROXIES", "proxy.example"), ("RATE_LIMIT", "often"), ("RATE_LIMIT", "5"),
        ("RATE_LIMIT", "0/second"), ("RATE_LIMIT", "5/0 second"), ("RATE_LIMIT", "5/second;"), ("RATE_LIMIT", "5/year"),
    ],
)  # fmt: skip
def test_a_value_that_a_setting_cannot_take_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({variable: text})

    assert str(caught.value).startswith(f"{variable} must be ")
    assert text[:20] in str(caught.value)


@pytest.mark.parametrize("text", ["5/month", "1000000000/second"])
def test_who_sets_a_rate_that_is_refused_reads_which_units_and_numbers_there_are(text: str) -> None:
    with pytest.raises(SettingsError, match="below a billion a second, minute, hour or day, not ") as caught:
        Settings.from_environment({"RATE_LIMIT": text})

    assert text in str(caught.value)


@pytest.mark.parametrize("token", ["short", "a token with spaces in it", "ä" * 20, "x" * 2_000])
def test_a_token_that_cannot_be_used_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingsError, match="API_TOKEN must be 16 to 1,024 characters") as caught:
        Settings.from_environment({"API_TOKEN": token})

    assert token not in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    settings = Settings()

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]  # the point of the test
