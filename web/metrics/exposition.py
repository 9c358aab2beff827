"""Metrics in the formats of Prometheus: the sums over all processes. web/README.md lists every metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from web.metrics.channel import VALUES
from web.metrics.counters import Metrics
from web.metrics.drift import DriftReport
from web.metrics.shared import Name, ProcessCounters


@dataclass(frozen=True)
class Family:
    """A metric: its name without the suffix of its type, its documentation, and the names of its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    documentation: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name with the suffix of its type, as queries use it."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


FAMILIES = (
    Family("http_requests", "counter", "HTTP requests, by route template and status", ("route", "status")),
    Family(
        "http_request_duration_seconds", "histogram",
        "Service time of an HTTP request: from its head until its response was handed over", ("route", "status"),
    ),
    Family("predictions", "counter", "Predictions, by label and channel", ("label", "channel")),
    Family(
        VALUES, "histogram",
        "Predicted quantities, by channel and model; the buckets end at the deciles of the training rows",
        ("channel", "version"),
    ),
    Family(
        "prediction_model_seconds", "histogram",
        "Duration of one call of the model, for one sample or for a slice of many", ("channel",),
    ),
    Family(
        "prediction_errors", "counter",
        "Errors in samples, by error code, and other problems, by status code", ("channel", "code"),
    ),
    Family("stream_sockets", "gauge", "Open websockets"),
    Family("stream_sockets_opened", "counter", "Websockets opened"),
    Family(
        "stream_frames", "counter",
        "Frames: received ones of kind text and binary, sent ones of kind model and error", ("kind",),
    ),
    Family(
        "stream_frame_duration_seconds", "histogram",
        "Service time of a frame: from its arrival until its reply was handed over", ("kind",),
    ),
    Family(
        "refusals", "counter",
        "Connections, requests, handshakes and frames rejected by a limit or an access rule", ("status",),
    ),
    Family("unhandled_exceptions", "counter", "Unexpected exceptions; each has a log line"),
    Family("model", "info", "The served model", ("name", "version")),
    Family("model_loaded_timestamp_seconds", "gauge", "Time at which the model was loaded, in seconds since 1970"),
    Family("model_replacements", "counter", "Replacements of the served model, counted by each process"),
    Family("model_load_failures", "counter", "Rejected model files, counted by each process"),
    Family(
        "model_input_samples", "counter", "Samples compared with the training data, typed on the page or of programs",
        ("source",),
    ),
    Family(
        "model_input_samples_outside", "counter", "Compared samples with a value outside the training range",
        ("source",),
    ),
    Family(
        "model_input_values_outside", "counter",
        "Values of compared samples outside the training range, or words not seen in training",
        ("source", "feature"),
    ),
    Family(
        "model_input_values_missing", "counter", "Missing values of compared samples", ("source", "feature"),
    ),
    Family(
        "model_input_psi", "gauge",
        "Population stability index of recent inputs; absent below 500 samples",
        ("source", "feature"),
    ),
    Family(
        "model_input_recent_samples", "gauge", "Recent samples in the index; older ones count less", ("source",),
    ),
    Family(
        "service_processes", "gauge",
        "Server processes of this replica; all metrics here are of them, and of no other replica",
    ),
    Family("process_cpu_seconds", "counter", "Processor time of all processes, including ended ones"),
    Family("process_resident_memory_bytes", "gauge", "Resident memory of all processes; shared pages count in each"),
    Family("process_virtual_memory_bytes", "gauge", "Virtual memory of all processes"),
    Family("process_open_fds", "gauge", "Open file descriptors of all processes"),
    Family("process_max_fds", "gauge", "Limit of open file descriptors of one process"),
    Family("process_start_time_seconds", "gauge", "Start time of the first process, in seconds since 1970"),
)  # fmt: skip
# Metrics whose numbers in several processes are not added, and how they are combined.
_COMBINED = {"model_loaded_timestamp_seconds": max, "process_max_fds": min, "process_start_time_seconds": min}


def render(metrics: Metrics, accept: str) -> tuple[bytes, str]:
    """Return all metrics, in the text format or as OpenMetrics, and their content type."""
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # it compares versions, and one in the header is not a number
        encode, content_type = choose_encoder("")
    return encode(_Collected(metrics)), content_type


class _Collected(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        self._metrics.tick()
        processes = self._metrics.counters.all()
        numbers = _added_up(processes)
        numbers |= _derived(numbers, self._metrics.drift())
        numbers |= _of_processes([one.pid for one in processes if one.pid is not None])
        by_family: dict[str, dict[tuple[str, ...], float]] = {family.name: {} for family in FAMILIES}
        for (name, *labels), number in numbers.items():
            by_family[name][tuple(labels)] = number
        for family in FAMILIES:
            yield _family(family, by_family[family.name])


def _added_up(processes: Sequence[ProcessCounters]) -> dict[Name, float]:
    """Return the numbers of all processes; states, unlike counts, end with their process."""
    numbers: dict[Name, float] = {}
    for one in processes:
        for name, number in (one.counts | (one.states if one.pid is not None else {})).items():
            combine = _COMBINED.get(name[0], _sum)
            numbers[name] = combine(numbers[name], number) if name in numbers else number
    return numbers


def _sum(one: float, other: float) -> float:
    return one + other


def _derived(numbers: Mapping[Name, float], report: DriftReport) -> dict[Name, float]:
    derived: dict[Name, float] = {}
    for inputs in report.sources:
        derived["model_input_recent_samples", inputs.source] = inputs.samples
        for feature in inputs.features:
            if feature.psi is not None:
                derived["model_input_psi", inputs.source, feature.feature] = feature.psi
    # A histogram counts as well as measures.
    for (family, *labels), number in numbers.items():
        counter = {"http_request_duration_seconds": "http_requests", "stream_frame_duration_seconds": "stream_frames"}
        if family in counter and labels[-1] != "sum":
            name = (counter[family], *labels[:-1])
            derived[name] = derived.get(name, 0.0) + number
    return derived


def _of_processes(pids: Sequence[int]) -> dict[Name, float]:
    """Return the system's numbers about processes; each counts its own processor time, so that it outlives it."""
    numbers: dict[Name, float] = {("service_processes",): float(len(pids))}
    for pid in pids:
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            name = (metric.name,)
            if metric.type == "gauge":
                value = metric.samples[0].value
                numbers[name] = _COMBINED.get(metric.name, _sum)(numbers[name], value) if name in numbers else value
    return numbers


def _family(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    if family.kind == "histogram":
        return _histogram(family, values)
    if family.kind == "info":
        info = InfoMetricFamily(family.name, family.documentation)
        for labels in values:
            info.add_metric([], dict(zip(family.labels, labels, strict=True)))
        return info
    made = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = made(family.name, family.documentation, labels=family.labels)
    for labels, number in values.items():
        metric.add_metric(labels, number)
    return metric


def _histogram(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.documentation, labels=family.labels)
    counts: dict[tuple[str, ...], dict[str, float]] = {}
    for name, number in values.items():
        counts.setdefault(name[:-1], {})[name[-1]] = number
    for labels, by_bound in counts.items():
        total = by_bound.pop("sum", 0.0)
        metric.add_metric(labels, list(_cumulative(by_bound.items())), total)
    return metric


def _cumulative(buckets: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    count = 0.0
    for bound, number in sorted(buckets, key=lambda bucket: float(bucket[0])):
        count += number
        yield bound, count
