"""What machines ask: is it alive, is it ready."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from ml.model.loaded import LoadedModel


def test_a_running_process_is_live(client: TestClient) -> None:
    response = client.get("/health/live")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"live": True}


def test_a_loaded_model_is_ready_and_named(client: TestClient, model: LoadedModel) -> None:
    response = client.get("/health/ready")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"ready": True, "model": {"name": "iris", "version": model.version}}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_a_probe_may_ask_for_the_head_only(client: TestClient, path: str) -> None:
    response = client.head(path)

    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == str(len(client.get(path).content))


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_a_probe_changes_nothing_so_it_takes_no_post(client: TestClient, path: str) -> None:
    response = client.post(path)

    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}
