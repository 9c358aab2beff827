"""The gateway: who may ask, how often, under which name and from which site; and what every response carries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message, Receive, Scope, Send

from tests.conftest import for_each, parse_html
from web import errors
from web.app import create_app
from web.metrics.counters import Metrics
from web.middleware.access import COOKIE_LIFE_S, Access, is_foreign, is_known_host
from web.middleware.gateway import Gateway
from web.middleware.rates import MAX_CLIENTS, MOST_PREPAID, Rates
from web.settings import Settings

EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
SAMPLE = {"sample": [5.6, 2.7, 4.2, 1.3]}
TOKEN = "a-token-that-nobody-guesses"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PROBLEM = "application/problem+json"


@pytest.fixture
def make(model_path: Path) -> Iterator[Any]:
    """A function that starts the application with settings of one's own, and addresses it as a client may."""
    clients: list[TestClient] = []

    def start(*, address: str = "192.0.2.1", url: str = "http://testserver", **settings: Any) -> TestClient:
        app = create_app(Settings(model_file=model_path, **settings))
        client = TestClient(app, base_url=url, client=(address, 4711))
        clients.append(client)
        return client.__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def assert_refused(response: Response, status: int) -> None:
    assert response.status_code == response.json()["status"] == status
    assert response.headers["content-type"] == PROBLEM
    assert "content-security-policy" in response.headers
    assert response.headers["x-request-id"]


# --- what every response carries


def test_every_response_has_an_id_of_its_own(client: TestClient) -> None:
    ids = [client.get(path).headers["x-request-id"] for path in ("/", "/nothing", "/health/live", "/health/live")]

    assert len(set(ids)) == 4


def test_two_processes_give_different_ids(make: Any) -> None:
    assert make().get("/").headers["x-request-id"] != make().get("/").headers["x-request-id"]


@pytest.mark.parametrize("sent", ["a", "trace-1.2_3", "A" * 64])
def test_an_id_that_is_a_word_is_taken_over(client: TestClient, sent: str) -> None:
    assert client.get("/health/live", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "A" * 65, "a b", "a;b", "ä", "a\tb"])
def test_an_id_of_another_form_is_replaced(client: TestClient, sent: str) -> None:
    response = client.get("/health/live", headers={b"X-Request-ID": sent.encode()})

    assert response.headers["x-request-id"] not in ("", sent)


def test_features_that_no_page_of_ours_needs_are_denied(client: TestClient) -> None:
    headers = client.get("/").headers

    policy = headers["permissions-policy"].split(", ")
    assert {"camera=()", "geolocation=()", "microphone=()", "usb=()"} <= set(policy)
    assert all(part.endswith("=()") for part in policy)
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_only_what_came_over_tls_is_told_to_stay_there(make: Any) -> None:
    assert "strict-transport-security" not in make().get("/").headers
    assert make(url="https://testserver").get("/").headers["strict-transport-security"] == "max-age=63072000"


def test_an_unexpected_exception_is_a_problem_that_names_its_request_in_the_log(make: Any) -> None:
    client: TestClient = make()
    client.app.service.model = None  # type: ignore[attr-defined]  # an application of ours
    patient = TestClient(client.app, raise_server_exceptions=False)

    response = patient.post("/predict", json=SAMPLE)

    assert_refused(response, 500)
    request_id = response.headers["x-request-id"]
    assert response.json()["detail"] == f"internal error; see the log for request id {request_id}"


def test_a_mistake_after_an_answer_has_begun_is_not_answered_again() -> None:
    begun: Message = {"type": "http.response.start", "status": 200, "headers": []}
    sent: list[Message] = []

    async def fail_late(scope: Scope, receive: Receive, send: Send) -> None:
        await send(begun)
        raise ZeroDivisionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    settings = Settings()
    gateway = Gateway(
        fail_late,
        settings,
        Rates(settings.rate_limit),
        Metrics(),
        websockets=(),
        refuse=errors.refuse,
        fail=errors.handle_failure,
    )
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"x")], "query_string": b""}
    with pytest.raises(ZeroDivisionError):
        asyncio.run(gateway(scope, receive, send))

    assert [(message["type"], message["status"]) for message in sent] == [("http.response.start", 200)]


@pytest.mark.parametrize("path", ["/predict", "/", "/nothing", "/metrics", "/docs"])
def test_a_handshake_at_a_path_without_a_websocket_is_told_so(client: TestClient, path: str) -> None:
    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect(path):
        pass

    assert caught.value.status_code == 404
    assert caught.value.json()["detail"] == f"there is no websocket at {path}"
    assert caught.value.headers["x-request-id"]
    assert caught.value.headers["x-content-type-options"] == "nosniff"


# --- rates


def test_a_client_beyond_its_rate_is_refused_at_once_and_told_when_to_come_back(make: Any) -> None:
    client = make(rate_limit="3/hour")

    answers = [client.get("/health/live") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert_refused(answers[3], 429)
    assert 3_590 < int(answers[3].headers["retry-after"]) <= 3_600
    assert answers[3].json()["retry_after_s"] == int(answers[3].headers["retry-after"])
    page = client.get("/?petal_width=2", headers={"Accept": "text/html", "Accept-Language": "es"})
    assert "Inténtelo de nuevo dentro de" in page.text
    assert 'href="./?petal_width=2"' in page.text


def test_another_client_has_a_rate_of_its_own(make: Any) -> None:
    client = make(rate_limit="1/hour")
    other = TestClient(client.app, client=("192.0.2.2", 1))

    assert [client.get("/health/live").status_code for _ in range(2)] == [200, 429]
    assert other.get("/health/live").status_code == 200


def test_errors_count_as_well(make: Any) -> None:
    client = make(rate_limit="2/hour")

    assert [client.get("/nothing").status_code for _ in range(3)] == [404, 404, 429]


def test_a_page_beyond_its_rate_is_a_page(make: Any) -> None:
    client = make(rate_limit="1/hour")
    client.get("/")

    response = client.get("/", headers={"Accept": "text/html"})

    assert (response.status_code, response.headers["content-type"]) == (429, "text/html; charset=utf-8")


def test_a_form_that_was_not_read_says_how_to_get_back_what_was_entered(make: Any) -> None:
    client = make(rate_limit="1/hour")
    action = parse_html(client.get("/?lang=es").text).one("form", id="measurements").attributes["action"]
    refused = client.post(f"/{action}", data={"petal_width": "1.7"}, headers={"Accept": "text/html"})
    response = client.post("/result", data={"petal_width": "1.7"}, headers={"Accept": "text/html"})

    assert response.status_code == refused.status_code == 429
    assert parse_html(refused.text).one("html").attributes["lang"] == "es"
    assert "Your browser goes back to it" in parse_html(response.text).one("main").text
    page = client.get("/", headers={"Accept": "text/html"})
    assert "Your browser" not in parse_html(page.text).one("main").text, "nothing was sent"


def test_the_inference_protocol_is_refused_in_its_own_form(make: Any) -> None:
    client = make(rate_limit="1/hour")
    client.get("/v2")

    response = client.get("/v2")

    assert response.status_code == 429
    assert list(response.json()) == ["error"]
    assert "retry-after" in response.headers


def test_frames_beyond_the_rate_get_errors_in_order_and_the_stream_stays(make: Any) -> None:
    with make(rate_limit="3/2 second").websocket_connect("/stream") as stream:
        stream.receive_json()
        replies = []
        for number in range(4):
            stream.send_json({"id": number, **SAMPLE})
            replies.append(stream.receive_json())
        stream.send_bytes(b"\0" * 16)
        replies.append(stream.receive_json())
        while True:  # until the window ends
            stream.send_json({"id": "later", **SAMPLE})
            later = stream.receive_json()
            if later["type"] == "prediction":
                break
            time.sleep(0.05)  # nothing to await: the window is one of the clock

    assert [reply["type"] for reply in replies] == ["prediction", "prediction", "error", "error", "error"]
    assert [reply.get("id") for reply in replies] == [0, 1, 2, 3, None]
    assert {reply["error"]["status"] for reply in replies[2:]} == {429}
    assert {reply["error"]["retry_after_s"] for reply in replies[2:]} <= {1, 2}
    assert later["id"] == "later"


def test_a_handshake_beyond_the_rate_gets_429(make: Any) -> None:
    client = make(rate_limit="1/hour")
    client.get("/health/live")

    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/stream"):
        pass

    assert caught.value.status_code == 429
    assert "retry-after" in caught.value.headers


def test_what_is_prepaid_is_at_most_a_hundredth_of_the_rate() -> None:
    for amount in (1, 50, 100, 1_000, 100_000):
        rates = Rates(f"{amount}/hour")
        allowed = next(n for n in range(2 * amount + 2) if rates.take("192.0.2.1"))
        assert amount * 0.99 - 1 < allowed <= amount


def test_all_limits_of_a_notation_count() -> None:
    rates = Rates("5/hour; 2/minute")

    waits = [rates.take("192.0.2.1") for _ in range(3)]

    assert waits[:2] == [0, 0]
    assert 50 < waits[2] <= 60


def test_a_rate_begins_anew_with_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rates = Rates("2/minute")
    assert [rates.take("a") for _ in range(3)] == [0, 0, 60]

    now[0] += 59.5
    assert rates.take("a") == 1
    now[0] += 0.5
    assert rates.take("a") == 0


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True), ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True), ("192.0.2.1", "192.0.2.2", False), ("unix", "", False),
    ],
)  # fmt: skip
def test_a_network_of_ipv6_is_one_client(first: str, second: str, *, is_one: bool) -> None:
    rates = Rates("1/hour")
    rates.take(first)

    assert bool(rates.take(second)) == is_one


def test_a_flood_of_addresses_takes_bounded_memory() -> None:
    rates = Rates(f"{100 * MOST_PREPAID}/hour")

    for number in range(MAX_CLIENTS + 5_000):
        rates.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    assert len(rates._prepaid) <= MAX_CLIENTS
    assert len(rates._windows) <= MAX_CLIENTS


def test_a_client_that_keeps_asking_is_not_forgotten_in_a_flood_of_addresses() -> None:
    rates = Rates("2/hour")
    first = [rates.take("192.0.2.1") for _ in range(3)]

    for number in range(2 * MAX_CLIENTS):
        rates.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number % 1_000 == 0:
            assert rates.take("192.0.2.1") > 0

    assert first[:2] == [0, 0]


# --- the names of the service


@for_each(
    ("host", "is_known"),
    [
        ("predict.example.org", True), ("PREDICT.example.org:8000", True), ("predict.example.org.", True),
        ("a.lab.example", True), ("a.b.lab.example:1", True), ("[::1]:80", True),
        ("lab.example", False), ("xlab.example", False), ("evil.example", False), ("", False),
        ("predict.example.org.evil.example", False), ("[::2]", False),
    ],
)  # fmt: skip
def test_hosts_are_known_by_name_or_below_a_star(host: str, *, is_known: bool) -> None:
    assert is_known_host(host.encode(), ("predict.example.org", "*.lab.example", "::1")) == is_known


def test_another_host_is_refused_on_every_channel_but_probes(make: Any) -> None:
    client = make(allowed_hosts=("predict.example.org",))
    evil = {"Host": "evil.example"}

    assert client.get("/", headers={"Host": "predict.example.org"}).status_code == 200
    assert_refused(client.get("/", headers=evil), 400)
    assert_refused(client.post("/predict", json=SAMPLE, headers=evil), 400)
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/stream", headers=evil):
        pass
    assert client.get("/health/ready", headers=evil).status_code == 200


def test_two_hosts_in_one_request_are_refused(make: Any) -> None:
    client = make(allowed_hosts=("predict.example.org",))
    hosts = [("Host", "evil.example"), ("Host", "predict.example.org")]

    assert_refused(client.get("/", headers=hosts), 400)


# --- other sites


@for_each(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "http://here.example"}, False),
        ({"origin": "https://here.example"}, False),
        ({"origin": "http://HERE.example"}, False),
        ({"origin": "https://allowed.example"}, False),
        ({"origin": "https://allowed.example", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "https://public.example", "sec-fetch-site": "same-origin"}, False),
        ({"origin": "http://here.example", "sec-fetch-site": "none"}, False),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "http://here.example:81"}, True),
        ({"origin": "http://here.example.evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "ftp://here.example"}, True),
        ({"origin": "https://sub.here.example", "sec-fetch-site": "same-site"}, True),
        ({"origin": "http://here.example", "sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://[evil"}, True),
    ],
)
def test_a_page_of_another_site_is_foreign(headers: dict[str, str], *, foreign: bool) -> None:
    encoded = {name.encode(): value.encode() for name, value in {"host": "here.example", **headers}.items()}

    assert is_foreign(encoded, is_tls=False, allowed=("https://allowed.example",)) == foreign


def test_an_unencrypted_page_is_foreign_to_an_encrypted_service() -> None:
    headers = {b"host": b"here.example", b"origin": b"http://here.example"}

    assert is_foreign(headers, is_tls=True, allowed=())


@pytest.mark.parametrize("path", ["/predict", "/result", "/v2/models/iris/infer", "/score"])
@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_post_that_another_site_caused_is_refused(client: TestClient, path: str, headers: dict[str, str]) -> None:
    response = client.post(path, data=EXAMPLE, headers=headers)

    assert response.status_code == 403


def test_our_own_form_is_taken(client: TestClient) -> None:
    own = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}

    assert client.post("/result", data=EXAMPLE, headers=own).status_code == 200


def test_a_link_from_another_site_leads_to_the_page(client: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Referer": "https://evil.example/"}

    assert client.get("/", params=EXAMPLE, headers=headers).status_code == 200


def test_an_allowed_site_can_read_why_it_is_refused(make: Any) -> None:
    client = make(rate_limit="2/hour", allowed_origins=("https://a.example",))
    headers = {"Origin": "https://a.example", "Accept": "application/json"}

    wrong = client.get("/predict?sepal_length=x", headers=headers)
    posted = client.post("/predict", json=SAMPLE, headers=headers)
    late = client.post("/predict", json=SAMPLE, headers=headers)

    assert [wrong.status_code, posted.status_code, late.status_code] == [422, 200, 429]
    for response in (wrong, posted, late):
        assert response.headers["access-control-allow-origin"] == "https://a.example"
        assert "Retry-After" in response.headers["access-control-expose-headers"]
        assert "Origin" in response.headers["vary"]
        assert len(response.headers.get_list("access-control-allow-origin")) == 1


# --- trusted proxies


FORWARDED = {
    "X-Forwarded-For": "203.0.113.9, 198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "predict.example.org",
}


def test_nobody_is_believed_by_default(make: Any) -> None:
    client = make(address="127.0.0.1", rate_limit="1/hour", allowed_hosts=("testserver",))

    response = client.get("/", headers=FORWARDED)

    assert response.status_code == 200
    assert "strict-transport-security" not in response.headers
    assert client.get("/", headers=FORWARDED | {"X-Forwarded-For": "203.0.113.10"}).status_code == 429


def test_a_trusted_proxy_names_client_scheme_and_host(make: Any) -> None:
    proxy = {"address": "10.1.2.3", "trusted_proxies": ("10.0.0.0/8",)}
    client = make(**proxy, rate_limit="1/hour", allowed_hosts=("predict.example.org",))

    first = client.get("/", headers=FORWARDED)
    again = client.get("/", headers=FORWARDED)
    other = client.get("/", headers=FORWARDED | {"X-Forwarded-For": "203.0.113.9, 198.51.100.8"})

    assert first.status_code == 200
    assert first.headers["strict-transport-security"]
    assert again.status_code == 429, "the address that the proxy saw counts, not what was sent to it"
    assert other.status_code == 200


def test_a_form_passes_a_trusted_proxy_that_changes_the_host(make: Any) -> None:
    client = make(address="10.1.2.3", trusted_proxies=("10.0.0.0/8",))
    origin = {"Origin": "https://predict.example.org"}

    assert client.post("/result", data=EXAMPLE, headers=FORWARDED | origin).status_code == 200
    assert client.post("/result", data=EXAMPLE, headers=origin).status_code == 403


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (["predict.example.org"], 200),
        (["evil.example", "predict.example.org"], 200),
        (["predict.example.org", "evil.example"], 400),
        (["evil.example, predict.example.org"], 200),
        (["predict.example.org,evil.example"], 400),
        (["a.example, b.example", "evil.example,predict.example.org "], 200),
        (["predict.example.org", "predict.example.org, evil.example"], 400),
    ],
)
def test_of_several_forwarded_hosts_the_last_is_the_one_that_the_trusted_proxy_added(
    make: Any, sent: list[str], status: int
) -> None:
    client = make(address="10.1.2.3", trusted_proxies=("10.0.0.0/8",), allowed_hosts=("predict.example.org",))

    response = client.get("/", headers=[("X-Forwarded-Host", value) for value in sent])

    assert response.status_code == status


def test_a_forwarded_host_replaces_every_header_host(make: Any) -> None:
    client = make(address="10.1.2.3", trusted_proxies=("10.0.0.0/8",), allowed_hosts=("predict.example.org",))
    hosts = [("Host", "predict.example.org"), ("Host", "evil.example")]

    assert client.get("/", headers=[*hosts, ("X-Forwarded-Host", "predict.example.org")]).status_code == 200
    assert client.get("/", headers=[*hosts, ("X-Forwarded-Host", "evil.example")]).status_code == 400


def test_clients_behind_a_trusted_proxy_have_their_own_number_of_streams(make: Any) -> None:
    client = make(address="10.1.2.3", trusted_proxies=("10.0.0.0/8",), max_connections_per_client=1)

    with client.websocket_connect("/stream", headers=FORWARDED):
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/stream", headers=FORWARDED):
            pass
        with client.websocket_connect("/stream", headers={"X-Forwarded-For": "203.0.113.77"}) as other:
            assert other.receive_json()["type"] == "model"
    with client.websocket_connect("/stream", headers=FORWARDED) as again:
        assert again.receive_json()["type"] == "model"
    assert caught.value.status_code == 429


# --- the token


@pytest.fixture(scope="module")
def guarded(model_path: Path) -> Iterator[TestClient]:
    """A program's client of a service with a token: it keeps no cookies."""
    with TestClient(create_app(Settings(model_file=model_path, api_token=TOKEN)), follow_redirects=False) as client:
        yield client


PROTECTED = [
    ("POST", "/predict"), ("GET", "/predict"), ("POST", "/result"), ("GET", "/stream"), ("GET", "/v2"),
    ("GET", "/v2/health/ready"), ("POST", "/v2/models/iris/infer"), ("GET", "/metrics"), ("POST", "/score"),
    ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/health/drift"), ("GET", "/code"), ("GET", "/nothing"),
]  # fmt: skip


@for_each(("method", "path"), PROTECTED)
@for_each(
    "headers",
    [
        {}, {"Authorization": "Bearer"}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}, {"Cookie": "page=1.2"},
        {"Cookie": f"page=9999999999.{'0' * 64}"}, {"Cookie": f"page={TOKEN}"}, {b"Authorization": b"Bearer \xff"},
    ],
)  # fmt: skip
def test_without_the_token_a_program_gets_401(guarded: TestClient, method: str, path: str, headers: Any) -> None:
    response = guarded.request(method, path, headers=headers)

    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert TOKEN not in response.text


@for_each(("method", "path"), PROTECTED)
def test_with_the_token_a_program_passes(guarded: TestClient, method: str, path: str) -> None:
    assert guarded.request(method, path, headers={"Authorization": f"bearer {TOKEN}"}).status_code != 401


def test_the_stream_wants_the_token(guarded: TestClient) -> None:
    with pytest.raises(WebSocketDenialResponse) as caught, guarded.websocket_connect("/stream"):
        pass
    with guarded.websocket_connect("/stream", headers=BEARER) as stream:
        assert stream.receive_json()["type"] == "model"

    assert caught.value.status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/static/app.css"])
def test_probes_and_files_stay_open(guarded: TestClient, path: str) -> None:
    response = guarded.get(path)

    assert response.status_code == 200
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(("url", "is_tls"), [("http://testserver", False), ("https://testserver", True)])
def test_the_page_brings_a_cookie_that_its_own_requests_present(make: Any, url: str, *, is_tls: bool) -> None:
    client = make(url=url, api_token=TOKEN)

    page = client.get("/")

    attributes = page.headers["set-cookie"].split("; ")[1:]
    assert {"HttpOnly", "SameSite=Strict", f"Max-Age={COOKIE_LIFE_S}"} <= set(attributes)
    assert ("Secure" in attributes) == is_tls
    assert not [part for part in attributes if part.startswith(("Path", "Domain"))]
    assert page.headers["cache-control"] == "no-cache"
    assert client.get("/predict", params=EXAMPLE, headers={"HX-Request": "true"}).status_code == 200
    assert client.post("/result", data=EXAMPLE).status_code == 200
    cookie = page.headers["set-cookie"].partition(";")[0]
    with client.websocket_connect("/stream", headers={"Cookie": cookie}) as stream:
        assert stream.receive_json()["type"] == "model"
    again = client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, "set-cookie" in again.headers) == (304, False)


@pytest.mark.parametrize("path", ["/metrics", "/v2", "/v2/models/iris", "/health/drift"])
def test_the_cookie_of_the_page_does_not_open_what_is_for_programs(make: Any, path: str) -> None:
    client = make(api_token=TOKEN)
    client.get("/")

    assert client.get(path).status_code == 401


def test_another_token_ends_every_cookie(make: Any) -> None:
    client, other = make(api_token=TOKEN), make(api_token=f"{TOKEN}-2")
    cookie = {"Cookie": client.get("/").headers["set-cookie"].partition(";")[0]}

    assert client.get("/predict", params=EXAMPLE, headers=cookie).status_code == 200
    assert other.get("/predict", params=EXAMPLE, headers=cookie).status_code == 401


def test_a_cookie_ends_and_is_renewed_before_it_does() -> None:
    access = Access(TOKEN)
    cookie = access.new_cookie(now=1_000.0, is_tls=True).partition(b";")[0]
    headers = {b"cookie": b"other=1; " + cookie + b"; more=2"}

    assert access.admits("/predict", headers, now=1_000.0 + COOKIE_LIFE_S - 1)
    assert not access.admits("/predict", headers, now=1_000.0 + COOKIE_LIFE_S)
    assert access.cookie_left_s(headers, now=1_000.0) == COOKIE_LIFE_S


def test_an_old_cookie_is_replaced_by_any_answer(make: Any) -> None:
    client = make(api_token=TOKEN)
    half_used = Access(TOKEN).new_cookie(now=time.time() - 0.6 * COOKIE_LIFE_S, is_tls=False).partition(b";")[0]

    response = client.get("/predict", params=EXAMPLE, headers={b"Cookie": half_used})

    assert response.status_code == 200
    assert response.headers["set-cookie"].startswith("page=")


def test_an_allowed_site_may_ask_before_it_sends_the_token(make: Any) -> None:
    client = make(api_token=TOKEN, allowed_origins=("https://a.example",))
    origin = {"Origin": "https://a.example"}
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

    assert client.options("/predict", headers=origin | asked).status_code == 200
    assert client.get("/predict", params=EXAMPLE, headers=origin).status_code == 401
    assert client.get("/predict", params=EXAMPLE, headers=origin | BEARER).status_code == 200


def test_under_a_prefix_the_page_is_open_and_the_rest_is_not(model_path: Path) -> None:
    app = create_app(Settings(model_file=model_path, api_token=TOKEN))
    with TestClient(app, root_path="/tools/iris") as client:
        assert client.get("/tools/iris/predict", params=EXAMPLE).status_code == 401
        assert client.get("/tools/iris/").status_code == 200
        assert client.get("/tools/iris/predict", params=EXAMPLE).status_code == 200


def test_the_token_is_never_shown() -> None:
    settings = Settings(api_token=TOKEN)

    assert TOKEN not in repr(settings) + str(settings)
