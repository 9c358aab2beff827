"""What is counted, and how Prometheus reads it: in process, and over several processes."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import tempfile
import time
import urllib.request
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from ml.model.loaded import LoadedModel, load_model
from tests.conftest import ROOT, Server, run_procfile
from web.__main__ import metrics_folder
from web.app import create_app
from web.metrics.counters import Metrics
from web.metrics.exposition import FAMILIES, render
from web.metrics.histogram import MOST_RECORDS
from web.page.fragments import Fragments
from web.settings import Settings

ROW = [5.6, 2.7, 4.2, 1.3]
QUERY = "sepal_length=5.6&sepal_width=2.7&petal_length=4.2&petal_width=1.3"
JSON = {"Accept": "application/json"}


class Scrape:
    """The numbers in an answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, /, **labels: str) -> float:
        """Return a number; what is not there is 0."""
        return self._values.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str) -> float:
        return sum(value for (found, _), value in self._values.items() if found == name)


def scrape(client: TestClient) -> Scrape:
    return Scrape(client.get("/metrics").raise_for_status().text)


@pytest.fixture
def service(model_path: Path) -> Iterator[TestClient]:
    """A service that has counted nothing yet."""
    with TestClient(create_app(Settings(model_file=model_path)), raise_server_exceptions=False) as client:
        yield client


def test_every_channel_counts_its_predictions_by_label(service: TestClient) -> None:
    tensor = {"name": "samples", "shape": [2, 4], "datatype": "FP64", "data": [ROW, ROW]}
    csv = "sepal length,sepal width,petal length,petal width\n" + "5.6,2.7,4.2,1.3\n" * 7
    service.get(f"/?{QUERY}")
    service.get(f"/predict?{QUERY}", headers={"HX-Request": "true"})
    service.get(f"/predict?{QUERY}", headers=JSON)
    service.post("/predict", json={"samples": [ROW] * 5})
    service.post("/v2/models/iris/infer", json={"inputs": [tensor]})
    service.post("/score", content=csv, headers={"Content-Type": "text/csv"}).raise_for_status()
    with service.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_json({"sample": ROW})
        stream.send_json({"samples": [ROW] * 3})
        rows = np.array([ROW] * 600 + [[np.nan] * 4], dtype="<f4")
        stream.send_bytes(rows.tobytes())
        for _ in range(3):
            stream.receive()

    found = scrape(service)

    expected = {
        "page": 1, "fragment": 1, "json": 6, "inference": 2, "stream": 4, "stream_binary": 600, "score": 7,
    }  # fmt: skip
    by_channel = {
        channel: found.value("predictions_total", channel=channel, label="versicolor") for channel in expected
    }
    assert by_channel == expected
    assert found.total("predictions_total") == sum(expected.values())
    assert all(found.value("prediction_model_seconds_count", channel=channel) >= 1 for channel in expected)


def test_requests_are_counted_by_template_and_status_and_never_by_what_was_asked_for(service: TestClient) -> None:
    service.get(f"/predict?{QUERY}", headers=JSON)
    service.get("/predict?sepal_length=x", headers=JSON)
    service.get("/v2/models/secret-name")
    service.get("/secret-path")
    service.delete("/predict")

    response = service.get("/metrics")

    assert "secret" not in response.text
    found = Scrape(response.text)
    for route, status in (
        ("/predict", "200"), ("/predict", "422"), ("/predict", "405"), ("/v2/models/{name}", "404"),
        ("unmatched", "404"),
    ):  # fmt: skip
        assert found.value("http_requests_total", route=route, status=status) == 1, (route, status)
        assert found.value("http_request_duration_seconds_count", route=route, status=status) == 1
    assert found.total("http_requests_total") == 5


def test_the_buckets_of_a_histogram_add_up_to_its_count(service: TestClient) -> None:
    for _ in range(10):
        service.get(f"/predict?{QUERY}", headers=JSON)

    samples = scrape(service).families["http_request_duration_seconds"].samples

    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    (total,) = (sample.value for sample in samples if sample.name.endswith("_sum"))
    assert buckets == sorted(buckets)
    assert buckets[-1] == 10
    assert 0 < total < 10


def test_errors_are_counted_by_code_and_channel(service: TestClient) -> None:
    service.get("/predict?sepal_length=x&sepal_width=-1", headers=JSON)
    service.get("/predict?sepal_length=x", headers={"HX-Request": "true"})
    service.post("/v2/models/iris/infer", content=b"{")
    with service.websocket_connect("/stream") as stream:
        stream.receive_json()
        stream.send_text("{")
        stream.send_json({"sample": ["?", *ROW[1:]]})
        stream.send_bytes(b"123")
        for _ in range(3):
            stream.receive()

    found = scrape(service)

    for channel, code, count in (
        ("json", "not_a_number", 1), ("json", "out_of_bounds", 1), ("json", "missing", 2),
        ("fragment", "not_a_number", 1), ("fragment", "missing", 3), ("inference", "400", 1), ("stream", "400", 1),
        ("stream", "not_a_number", 1), ("stream_binary", "422", 1),
    ):  # fmt: skip
        assert found.value("prediction_errors_total", channel=channel, code=code) == count, (channel, code)
    assert found.value("stream_frames_total", kind="error") == 3


def test_open_sockets_go_up_and_down_and_frames_are_counted_by_kind(service: TestClient) -> None:
    with service.websocket_connect("/stream") as first, service.websocket_connect("/stream") as second:
        first.receive_json()
        second.receive_json()
        first.send_json({"sample": ROW})
        first.receive_json()
        during = scrape(service)
    after = scrape(service)

    assert during.value("stream_sockets") == 2
    assert after.value("stream_sockets") == 0
    assert after.value("stream_sockets_opened_total") == 2
    assert after.value("stream_frames_total", kind="text") == 1
    assert after.value("stream_frames_total", kind="model") == 2


def test_samples_outside_the_training_range_are_counted_by_feature(service: TestClient) -> None:
    outside = [9.0, 2.7, 4.2, 5.0]
    service.post("/predict", json={"samples": [ROW, ROW, outside]})

    found = scrape(service)

    assert found.value("model_input_samples_total", source="programs") == 3
    assert found.value("model_input_samples_outside_total", source="programs") == 1
    assert found.value("model_input_values_outside_total", source="programs", feature="sepal_length") == 1
    assert found.value("model_input_values_outside_total", source="programs", feature="petal_width") == 1
    assert found.value("model_input_values_outside_total", source="programs", feature="sepal_width") == 0


def test_of_a_large_batch_some_rows_are_compared_and_all_are_counted(model: LoadedModel) -> None:
    metrics = Metrics()
    metrics.model_loaded(model)
    rows = np.resize(np.array(ROW, dtype=np.float32), (10_000, 4))

    metrics.json.many(model, rows, model.predict_batch(rows).indices)

    found = Scrape(render(metrics, "")[0].decode())
    assert found.total("predictions_total") == 10_000
    assert 250 <= found.value("model_input_samples_total", source="programs") <= 256


def test_labels_are_counted_alike_however_many_there_are(model: LoadedModel) -> None:
    class Wide:
        """As much of a model as a channel looks at."""

        labels = tuple(f'label "{index}"\n' for index in range(40))

    metrics = Metrics()
    metrics.model_loaded(model)
    indices = np.arange(4_000) % 40

    metrics.json.many(Wide, np.zeros((4_000, 4), dtype=np.float32), indices)  # type: ignore[arg-type]  # see above

    found = Scrape(render(metrics, "")[0].decode())
    assert found.value("predictions_total", channel="json", label='label "7"\n') == 100
    assert found.total("predictions_total") == 4_000


def test_what_is_recorded_is_counted_before_it_piles_up(model: LoadedModel) -> None:
    metrics = Metrics()
    metrics.model_loaded(model)
    prediction = model.predict(ROW)

    for _ in range(MOST_RECORDS):
        metrics.json.one(model, ROW, prediction, time.perf_counter())
        metrics.request(None, 404, time.perf_counter())

    counts = metrics.counters.counts
    assert counts["predictions", prediction.label, "json"] == MOST_RECORDS
    assert counts["model_input_samples", "programs"] == MOST_RECORDS
    requests = ("http_request_duration_seconds", "unmatched", "404")
    assert sum(n for name, n in counts.items() if name[:3] == requests and name[-1] != "sum") == MOST_RECORDS


def test_a_replaced_model_is_not_kept_alive_by_what_was_recorded(model: LoadedModel, model_path: Path) -> None:
    metrics = Metrics()
    old = load_model(model_path)
    metrics.model_loaded(old)
    metrics.json.one(old, ROW, old.predict(ROW), time.perf_counter())
    reference = weakref.ref(old)

    metrics.model_loaded(model)
    del old
    gc.collect()

    assert reference() is None
    found = Scrape(render(metrics, "")[0].decode())
    assert found.value("model_replacements_total") == 1
    assert found.total("predictions_total") == 1
    assert found.value("model_info", name=model.name, version=model.version) == 1


def test_an_answer_of_the_model_before_is_counted_but_not_compared(model: LoadedModel, model_path: Path) -> None:
    metrics = Metrics()
    old = load_model(model_path)
    metrics.model_loaded(old)
    metrics.model_loaded(model)

    metrics.json.one(old, ROW, old.predict(ROW), time.perf_counter())  # a request that was under way
    metrics.json.one(model, ROW, model.predict(ROW), time.perf_counter())

    found = Scrape(render(metrics, "")[0].decode())
    assert found.total("predictions_total") == 2
    assert found.value("model_input_samples_total", source="programs") == 1


def test_what_an_ended_process_saw_of_the_inputs_goes_over_to_the_next(model: LoadedModel, tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    first.model_loaded(model)
    first.json.many(model, np.array([ROW] * 100), np.ones(100, dtype=np.intp))
    first.tick()
    first.counters.close()
    with contextlib.closing(Metrics(tmp_path).counters):
        pass  # a process that ends before it has a model

    second = Metrics(tmp_path)
    with contextlib.closing(second.counters):
        second.model_loaded(model)
        second.tick()

        assert second.drift().sources[1].samples == pytest.approx(100, abs=1)
        assert second.drift().processes == 1
        assert len(list(tmp_path.glob("*.counts"))) == 1


def test_the_model_and_its_failures_are_told(service: TestClient, model: LoadedModel) -> None:
    before = scrape(service)
    service.app.service.metrics.model_load_failed()  # type: ignore[attr-defined]  # an application of ours

    after = scrape(service)

    assert before.value("model_info", name="iris", version=model.version) == 1
    assert before.value("model_load_failures_total") == 0
    assert after.value("model_load_failures_total") == 1
    assert time.time() - 60 < after.value("model_loaded_timestamp_seconds") <= time.time()


def test_what_is_turned_away_at_the_door_is_counted(model_path: Path) -> None:
    app = create_app(Settings(model_file=model_path, allowed_hosts=("testserver",)))
    with TestClient(app) as client:
        client.get("/", headers={"Host": "elsewhere.example"})
        client.post("/predict", json={"sample": ROW}, headers={"Origin": "https://elsewhere.example"})

        found = scrape(client)

    assert found.value("refusals_total", status="400") == 1
    assert found.value("refusals_total", status="403") == 1


def test_a_mistake_of_our_own_is_counted(service: TestClient) -> None:
    model, service.app.service.model = service.app.service.model, None  # type: ignore[attr-defined]  # an application of ours

    response = service.get(f"/predict?{QUERY}", headers={"HX-Request": "true"})

    service.app.service.model = model  # type: ignore[attr-defined]  # as above
    assert response.status_code == 500
    found = scrape(service)
    assert found.value("unhandled_exceptions_total") == 1
    assert found.value("http_requests_total", route="/predict", status="500") == 1


def test_an_endpoint_that_fails_once_is_run_once(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[bytes | Exception] = [RuntimeError("once"), b"<p>an answer</p>"]

    def answer(*_: object, **_by_name: object) -> bytes:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(Fragments, "answer", answer)

    statuses = [service.get(f"/predict?{QUERY}", headers={"HX-Request": "true"}).status_code for _ in range(2)]

    assert statuses == [500, 200]
    found = scrape(service)
    assert found.value("unhandled_exceptions_total") == 1
    assert found.total("predictions_total") == 2


def test_a_version_that_is_no_number_gets_the_plain_format(service: TestClient) -> None:
    response = service.get("/metrics", headers={"Accept": "text/plain;version=latest"})

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_openmetrics_is_sent_to_who_asks_for_it_and_is_valid(service: TestClient) -> None:
    service.get(f"/predict?{QUERY}", headers=JSON)

    plain = service.get("/metrics", headers={"Accept": "text/plain"})
    response = service.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(response.text)}  # type: ignore[no-untyped-call]  # as the library has it
    assert families["model"].type == "info"
    assert families["http_requests"].samples[0].value == 1


def test_the_documentation_lists_every_metric(service: TestClient) -> None:
    section = (ROOT / "web/README.md").read_text().split("\n## Watch it\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", section, flags=re.MULTILINE)

    assert listed == [
        (family.full_name, family.kind, ", ".join(f"`{label}`" for label in family.labels), family.documentation)
        for family in FAMILIES
    ]
    asked = {family.full_name.removesuffix("_total").removesuffix("_info") for family in FAMILIES}
    found = {name.removesuffix("_info") for name in scrape(service).families}
    assert asked == found


@contextlib.contextmanager
def two_workers(model_path: Path, tmp_path: Path) -> Iterator[Server]:
    with run_procfile(
        tmp_path / "log.txt", MODEL_FILE=str(model_path), WEB_CONCURRENCY="2", TMPDIR=str(tmp_path)
    ) as server:
        yield server


def fetch(server: Server, path: str, **headers: str) -> str:
    """Ask on a connection of its own, which either worker may take."""
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}{path}", headers=headers), timeout=10) as response:
        return str(response.read(), "utf-8")


def eventually(server: Server, name: str, wanted: float, /, **labels: str) -> Scrape:
    """Scrape until a number is what it should be: what the other worker has noted is counted within a second."""
    deadline = time.monotonic() + 10
    while True:
        found = Scrape(fetch(server, "/metrics"))
        if found.value(name, **labels) == wanted:
            return found
        assert time.monotonic() < deadline, (name, found.value(name, **labels), wanted)
        time.sleep(0.05)  # the worker's own clock is all there is to wait for


def workers_of(folder: Path) -> list[int]:
    """Return the processes that share what they count in this folder."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"--worker" in (words := command.read_bytes().split(b"\0")) and os.fsencode(folder) in words:
                found.append(int(command.parent.name))
    return found


def test_the_counts_of_two_workers_are_added_up_and_outlive_a_killed_one(model_path: Path, tmp_path: Path) -> None:
    label = {"channel": "json", "label": "versicolor"}
    with two_workers(model_path, tmp_path) as server:
        eventually(server, "service_processes", 2)
        for _ in range(60):
            fetch(server, f"/predict?{QUERY}", Accept="application/json")
        before = eventually(server, "predictions_total", 60, **label)
        again = [Scrape(fetch(server, "/metrics")).value("predictions_total", **label) for _ in range(10)]
        drift = json.loads(fetch(server, "/health/drift", Accept="application/json"))
        (folder,) = tmp_path.glob("metrics-*")
        killed = workers_of(folder)[0]
        os.kill(killed, signal.SIGKILL)
        # Another one takes its place, and what the ended one has counted.
        while killed in workers_of(folder):
            time.sleep(0.02)  # until the supervisor has noticed
        after = eventually(server, "service_processes", 2)
        for _ in range(20):
            fetch(server, f"/predict?{QUERY}", Accept="application/json")
        last = eventually(server, "predictions_total", 80, **label)

    assert before.value("http_requests_total", route="/predict", status="200") == 60
    assert again == [60] * 10
    assert 0 < sum(one["samples"] for one in drift["sources"]) <= 60
    assert after.value("predictions_total", **label) == 60
    assert after.value("process_cpu_seconds_total") >= before.value("process_cpu_seconds_total")
    assert last.value("model_info", name="iris", version=drift["version"]) == 1
    assert not folder.exists(), "the folder is gone with the service"


def test_a_removed_folder_ends_no_worker_and_keeps_none_from_starting(model_path: Path, tmp_path: Path) -> None:
    label = {"channel": "json", "label": "versicolor"}
    with two_workers(model_path, tmp_path) as server:
        eventually(server, "service_processes", 2)
        (folder,) = tmp_path.glob("metrics-*")
        for _ in range(20):
            fetch(server, f"/predict?{QUERY}", Accept="application/json")
        eventually(server, "predictions_total", 20, **label)
        folder.rename(tmp_path / "first")  # at once, unlike to remove it
        right_after = [Scrape(fetch(server, "/metrics")) for _ in range(4)]
        eventually(server, "service_processes", 2)
        again = Scrape(fetch(server, "/metrics"))
        folder.rename(tmp_path / "second")
        killed = workers_of(folder)[0]
        os.kill(killed, signal.SIGKILL)
        while killed in workers_of(folder):
            time.sleep(0.02)  # until the supervisor has noticed
        after = eventually(server, "service_processes", 2)
        fetch(server, f"/predict?{QUERY}", Accept="application/json")

    assert all(found.value("service_processes") in (1, 2) for found in right_after)
    assert again.value("predictions_total", **label) == 20
    assert after.total("model_info") == 1
    assert not folder.exists()


def test_without_a_temporary_folder_each_process_counts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    with metrics_folder() as options:
        assert options == []

    assert "no folder for shared metrics" in caplog.text
