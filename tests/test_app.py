"""The application as a whole: its routes, its files, its start, and where it can be mounted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import Message

from ml.errors import ModelFileError
from ml.model.loaded import LoadedModel, load_model
from tests.conftest import for_each, parse_html
from web.app import create_app
from web.settings import Settings

EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
FOREVER = "public, max-age=31536000, immutable"


@for_each(
    "path",
    [
        "/nothing", "/predict/x", "/static/nothing", "/static/", "/static/%2e%2e/web/app.py", "/static/..%5capp.py",
        "/static/a%00b", "/static/%ff", "/static/" + "a" * 5_000, "/%00",
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_as_a_problem(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == 404


@for_each(
    ("path", "allowed"),
    [
        ("/", {"GET", "HEAD"}), ("/index", {"GET", "HEAD"}), ("/predict", {"GET", "HEAD", "POST"}),
        ("/result", {"GET", "HEAD", "POST"}), ("/health/live", {"GET", "HEAD"}), ("/health/ready", {"GET", "HEAD"}),
        ("/static/app.css", {"GET", "HEAD"}),
    ],
)  # fmt: skip
@for_each("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"])
def test_another_method_is_told_which_ones_are_allowed(
    client: TestClient, method: str, path: str, allowed: set[str]
) -> None:
    response = client.request(method, path)

    if method in allowed:
        assert response.status_code != 405
        return
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert {part.strip() for part in response.headers["allow"].split(",")} == allowed


def test_a_model_is_replaced_by_one_assignment(model_path: Path, contents: list[bytes], tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    other.write_bytes(contents[1])
    app = create_app(Settings(model_file=model_path))
    with TestClient(app) as client:
        before = [
            client.get(path, params=EXAMPLE, headers={"Accept": "application/json"}).json() for path in ["/predict"]
        ]
        page = client.get("/").text
        app.service.model = load_model(other)
        after = client.get("/predict", params=EXAMPLE, headers={"Accept": "application/json"}).json()
        fragment = client.get("/predict", params=EXAMPLE, headers={"HX-Request": "true"}).text

        assert before[0]["model"]["version"] != after["model"]["version"] == app.service.model.version
        assert client.get("/health/ready").json()["model"]["version"] == app.service.model.version
        assert app.service.model.version not in page
        assert app.service.model.version in client.get("/").text
        shares = [float(meter.attributes["value"]) for meter in parse_html(fragment).all("meter")]
        assert shares == list(app.service.model.predict([5.6, 2.7, 4.2, 1.3]).probabilities)


# --- under a prefix


def mounted(app: Starlette, prefix: str) -> Starlette:
    """Return an application that has `app` under a prefix, as a larger site would."""

    @contextlib.asynccontextmanager
    async def lifespan(_site: Starlette) -> AsyncIterator[None]:
        async with app.router.lifespan_context(app):
            yield

    return Starlette(routes=[Mount(prefix, app)], lifespan=lifespan)


@pytest.mark.parametrize("way", ["mounted", "root path"])
def test_the_service_works_under_a_prefix(model_path: Path, way: str) -> None:
    app = create_app(Settings(model_file=model_path))
    prefix = "/tools/iris"
    with TestClient(mounted(app, prefix)) if way == "mounted" else TestClient(app, root_path=prefix) as client:
        page = parse_html(client.get("/tools/iris/").text)
        form = page.one("form", id="measurements")
        base = client.base_url.join("/tools/iris/")

        assert client.post(base.join(form.attributes["action"]), data=EXAMPLE).status_code == 200
        assert client.get(base.join(form.attributes["hx-get"]), params=EXAMPLE).status_code == 200
        for element in page.all("script") + page.all("link"):
            link = element.attributes.get("src") or element.attributes["href"]
            assert client.get(base.join(link)).status_code == 200, link
        back = client.get("/tools/iris/result", follow_redirects=False)
        assert client.base_url.join("/tools/iris/result").join(back.headers["location"]) == base
        with client.websocket_connect("/tools/iris/stream") as websocket:
            assert websocket.receive_json()["type"] == "model"


# --- static files


def test_htmx_is_the_version_that_this_page_was_measured_with(client: TestClient) -> None:
    script = client.get("/static/htmx-2.min.js")

    assert script.status_code == 200
    assert re.search(rb'version:"([^"]+)"', script.content).group(1) == b"2.0.10"  # type: ignore[union-attr]  # it is there
    assert script.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("name", ["app.css", "favicon.svg"])
def test_a_file_asked_for_by_its_digest_never_changes(client: TestClient, name: str) -> None:
    page = parse_html(client.get("/").text)
    links = [e.attributes.get("src") or e.attributes.get("href", "") for e in page.all("script") + page.all("link")]
    (link,) = [link for link in links if link.startswith(f"static/{name}?")]

    response = client.get(link)

    digest = link.partition("?v=")[2]
    assert len(digest) >= 8
    assert hashlib.sha256(response.content).hexdigest().startswith(digest)
    assert response.headers["cache-control"] == FOREVER


@pytest.mark.parametrize("path", ["/static/app.css", "/static/htmx-2.min.js", "/static/app.js?x=1"])
def test_a_file_asked_for_by_its_name_is_asked_for_again(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.headers["cache-control"] == "no-cache"
    assert client.get(path, headers={"If-None-Match": response.headers["etag"]}).status_code == 304


def test_a_file_asked_for_by_another_digest_is_not_kept(client: TestClient) -> None:
    assert client.get("/static/app.css?v=000000000000").headers["cache-control"] == "no-cache"
    assert client.get("/static/000000000000/app.js").headers["cache-control"] == "no-cache"


def test_modules_are_kept_by_a_digest_of_all_of_them_and_loaded_at_once(client: TestClient) -> None:
    page = parse_html(client.get("/").text)
    preloaded = [e.attributes["href"] for e in page.all("link") if e.attributes["rel"] == "modulepreload"]
    (app,) = [e.attributes["src"] for e in page.all("script") if e.attributes.get("type") == "module"]
    texts = {path: client.get(path) for path in [app, *preloaded]}

    # Each module that is imported, by whichever of them, is in the same folder, and preloaded once.
    folder = app.rpartition("/")[0]
    imports = re.compile(r'^(?:import|} from).*"\./(\S+)";$', re.MULTILINE)
    imported = {name for text in texts.values() for name in imports.findall(text.text)}
    assert sorted(preloaded) == sorted(f"{folder}/{name}" for name in imported)
    assert {text.headers["cache-control"] for text in texts.values()} == {FOREVER}


@pytest.mark.parametrize("path", ["/", "/docs", "/health/drift"])
def test_no_script_comes_before_the_style_sheet_that_the_first_paint_needs(client: TestClient, path: str) -> None:
    page = parse_html(client.get(path, headers={"Accept": "text/html"}).text)

    scripts = [*page.all("script"), *(e for e in page.all("link") if e.attributes["rel"] == "modulepreload")]
    assert scripts
    assert all("defer" in e.attributes or e.attributes.get("fetchpriority") == "low" for e in scripts)
    assert all("fetchpriority" not in e.attributes for e in page.all("link", rel="stylesheet"))


# --- other sites


def test_another_site_gets_no_permission_by_default(client: TestClient) -> None:
    headers = {"Origin": "https://a.example", "HX-Request": "true"}

    response = client.get("/predict", params=EXAMPLE, headers=headers)

    assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_allowed_site_may_embed_the_fragment(model_path: Path) -> None:
    settings = Settings(model_file=model_path, allowed_origins=("https://a.example",))
    asked = "hx-request,hx-current-url,hx-target,hx-trigger,hx-trigger-name,x-input"
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    with TestClient(create_app(settings)) as client:
        allowed = client.options("/predict", headers=preflight | {"Access-Control-Request-Headers": asked})
        stranger = client.options("/predict", headers=preflight | {"Origin": "https://b.example"})
        fragment = client.get("/predict", params=EXAMPLE, headers={"Origin": "https://a.example", "HX-Request": "true"})
        unasked = client.get("/predict", params=EXAMPLE, headers={"Origin": "https://b.example", "HX-Request": "true"})

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert stranger.status_code == 400
    assert fragment.headers["access-control-allow-origin"] == "https://a.example"
    assert {part.strip().lower() for part in fragment.headers["vary"].split(",")} >= {"accept", "hx-request", "origin"}
    assert "access-control-allow-origin" not in unasked.headers


# --- the start


@pytest.mark.parametrize("content", [b"", b"not a model file", b"PK\x03\x04" + b"\x00" * 100])
def test_a_broken_model_file_ends_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)

    with pytest.raises(ModelFileError, match=re.escape(str(path))), TestClient(create_app(Settings(model_file=path))):
        pass


def test_the_model_is_loaded_before_the_first_request(model_path: Path, model: LoadedModel) -> None:
    app = create_app(Settings(model_file=model_path))
    assert not hasattr(app.service, "model")

    with TestClient(app):
        assert app.service.model.version == model.version


def test_a_model_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    limit = getattr(sys, "tracebacklimit", None)
    path = tmp_path / "no such directory" / "model.npz"

    try:
        with pytest.raises(ModelFileError, match="no such folder"), TestClient(create_app(Settings(model_file=path))):
            pass
    finally:
        if limit is None and hasattr(sys, "tracebacklimit"):
            del sys.tracebacklimit


@for_each("is_draining", [True, False])
def test_a_request_that_is_cancelled_ends_in_silence_with_the_process_alone(
    model_path: Path, is_draining: bool
) -> None:
    app = create_app(Settings(model_file=model_path))
    app.service.is_draining = is_draining

    async def is_cancelled() -> bool:
        started = asyncio.Event()

        async def wait(_: Request) -> Response:
            started.set()
            await asyncio.Event().wait()
            return Response()

        async def send(message: Message) -> None:
            raise AssertionError(message)

        app.routes.append(Route("/wait", wait))
        scope = {
            "type": "http", "method": "GET", "path": "/wait", "query_string": b"", "state": {},
            "headers": [(b"host", b"localhost")],
        }  # fmt: skip
        request = asyncio.create_task(app(scope, asyncio.Event().wait, send))  # type: ignore[arg-type]  # nothing comes
        await asyncio.wait_for(started.wait(), 10)
        request.cancel()
        await asyncio.wait([request])
        return request.cancelled()

    assert asyncio.run(is_cancelled()) is not is_draining
