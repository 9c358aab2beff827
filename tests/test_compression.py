"""Compression: who gets gzip, what its entity tags are, and what is never compressed."""

from __future__ import annotations

import gzip
from collections.abc import Mapping

import pytest
from httpx2 import Response
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from tests.conftest import for_each
from web.middleware.compression import LEAST_BYTES, MOST_BYTES_IN_PLACE, Compressed, takes_gzip

EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
PLAIN, GZIP = {"Accept-Encoding": "identity"}, {"Accept-Encoding": "gzip, deflate, br, zstd"}
PAGES = ["/", "/index", "/?petal_width=2", "/predict", "/docs", "/openapi.json"]
FILES = ["/static/app.css", "/static/answer.js", "/static/htmx-2.min.js"]


def get(client: TestClient, path: str, headers: Mapping[str, str], method: str = "GET") -> tuple[Response, bytes]:
    """Return the answer, and its body as it travels."""
    with client.stream(method, path, headers=headers, follow_redirects=False) as response:
        return response, b"".join(response.iter_raw())


def vary_of(response: Response) -> set[str]:
    return {name.strip().lower() for name in response.headers["vary"].split(",")}


@pytest.mark.parametrize("path", [*PAGES, *FILES])
def test_pages_and_files_travel_compressed_to_those_who_take_it(client: TestClient, path: str) -> None:
    plain, whole = get(client, path, PLAIN)
    packed, small = get(client, path, GZIP)

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(small) == whole
    assert len(small) < len(whole) / 2
    assert int(packed.headers["content-length"]) == len(small)
    assert "accept-encoding" in vary_of(plain) & vary_of(packed)
    assert plain.headers["content-type"] == packed.headers["content-type"]


def test_a_result_travels_compressed(client: TestClient) -> None:
    response = client.post("/result", data=EXAMPLE, headers=GZIP)

    assert response.headers["content-encoding"] == "gzip"
    assert "versicolor" in response.text


def test_a_page_about_an_error_in_a_form_travels_compressed(client: TestClient) -> None:
    response = client.post("/result", data=EXAMPLE | {"petal_width": "x"}, headers=GZIP)

    assert (response.status_code, response.headers["content-encoding"]) == (422, "gzip")


@pytest.mark.parametrize("headers", [{"HX-Request": "true"}, {"Accept": "application/json"}])
def test_single_predictions_and_small_files_travel_as_they_are(client: TestClient, headers: dict[str, str]) -> None:
    prediction, _ = get(client, "/predict?petal_width=1", GZIP | headers)
    icon, _ = get(client, "/static/favicon.svg", GZIP)

    assert "content-encoding" not in prediction.headers
    assert "content-encoding" not in icon.headers


@pytest.mark.parametrize("path", ["/", "/docs", *FILES])
def test_all_encodings_have_one_weak_entity_tag_by_which_they_are_known_again(client: TestClient, path: str) -> None:
    tag, packed = (get(client, path, headers)[0].headers["etag"] for headers in (PLAIN, GZIP))

    assert tag == packed
    assert tag.startswith('W/"')
    for headers in (PLAIN, GZIP):
        for known, status in (
            (tag, 304),
            (tag.removeprefix("W/"), 304),
            (f'"another", {tag}', 304),
            ('"another"', 200),
        ):
            response, body = get(client, path, headers | {"If-None-Match": known})
            assert (response.status_code, response.headers["etag"]) == (status, tag), (headers, known)
            assert "accept-encoding" in vary_of(response)
            assert (body == b"") == (status == 304)
            assert "content-encoding" not in response.headers or status == 200


@for_each("path", ["/", "/docs", "/predict", *FILES])
@for_each("headers", [PLAIN, GZIP])
def test_head_has_the_headers_of_get_and_no_body(client: TestClient, path: str, headers: dict[str, str]) -> None:
    head, body = get(client, path, headers, "HEAD")
    found, _ = get(client, path, headers)

    assert body == b""
    for name in ("content-length", "content-encoding", "etag", "vary", "content-type"):
        assert head.headers.get(name) == found.headers.get(name)


def test_a_range_is_answered_with_the_whole_file(client: TestClient) -> None:
    response, everything = get(client, "/static/app.css", PLAIN | {"Range": "bytes=100-199"})

    assert (response.status_code, everything) == (200, get(client, "/static/app.css", PLAIN)[1])
    assert "accept-ranges" not in response.headers


@for_each(
    ("accept", "taken"),
    [
        ("gzip", True), ("GZIP", True), ("deflate, gzip;q=1.0, *;q=0.5", True), ("*", True), ("gzip;q=0.1", True),
        ("", False), ("identity", False), ("br", False), ("gzip;q=0", False), ("*;q=0", False), ("gzip;q=much", False),
        ("gzip;q=0, *", False), ("gzip;q=0.5, identity", False), ("gzip;q=0.5, identity;q=0.2", True),
    ],
)  # fmt: skip
def test_gzip_is_taken_by_those_who_say_so(accept: str, taken: bool) -> None:
    assert takes_gzip(accept.encode()) is taken


@pytest.mark.parametrize("size", [LEAST_BYTES - 1, LEAST_BYTES, MOST_BYTES_IN_PLACE, MOST_BYTES_IN_PLACE + 1])
@pytest.mark.parametrize(("media_type", "compressible"), [(b"text/html; charset=utf-8", True), (b"image/png", False)])
def test_what_is_worth_it_is_compressed(size: int, media_type: bytes, compressible: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", media_type), (b"content-length", str(size).encode()), (b"vary", b"Cookie")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a" * size})

    response = TestClient(Compressed(app)).get("/", headers=GZIP)

    assert response.content == b"a" * size
    assert response.headers.get("content-encoding") == ("gzip" if compressible and size >= LEAST_BYTES else None)
    assert response.headers["vary"] == "Cookie, Accept-Encoding"


def test_what_comes_in_pieces_is_compressed_piece_by_piece() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pieces: list[Message] = [
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]},
            {"type": "http.response.body", "body": b"a" * LEAST_BYTES, "more_body": True},
            {"type": "http.response.body", "body": b"b" * LEAST_BYTES},
        ]
        for piece in pieces:
            await send(piece)

    response = TestClient(Compressed(app)).get("/", headers=GZIP)

    assert response.content == b"a" * LEAST_BYTES + b"b" * LEAST_BYTES
    assert response.headers["content-encoding"] == "gzip"
