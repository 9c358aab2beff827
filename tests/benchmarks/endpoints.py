"""`/predict` in its forms against the bare server's "hello", under the same load tool."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import msgspec

from ml.classifier import Prediction

from . import generator, load, server
from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject, WrongAnswer

VERIFIED = 500


@dataclass(frozen=True)
class Form:
    """One way to ask for a prediction.

    Attributes:
        shows: tells whether a reply's body shows a prediction.
    """

    name: str
    method: str
    headers: Mapping[str, str]
    shows: Callable[[bytes, Prediction, Subject], bool]
    least_ratio: float | None = None

    def target(self, subject: Subject, row: Sequence[float]) -> str:
        return "/predict" if self.method == "POST" else f"/predict?{subject.query(row)}"

    def body(self, subject: Subject, row: Sequence[float]) -> bytes:
        return msgspec.json.encode({"sample": subject.sample(row)}) if self.method == "POST" else b""

    def request(self, subject: Subject, row: Sequence[float]) -> bytes:
        """Return the whole request as it is sent."""
        body = self.body(subject, row)
        lines = [f"{self.method} {self.target(subject, row)} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(body)}"] if body else []
        return "\r\n".join([*lines, "", ""]).encode() + body


def _fragment_shows(content: bytes, prediction: Prediction, subject: Subject) -> bool:
    return re.findall(rb'data-label="([^"]*)"', content) == [prediction.label.encode()]


def _json_shows(content: bytes, prediction: Prediction, subject: Subject) -> bool:
    answer = msgspec.json.decode(content)
    probabilities = dict(zip(subject.model.labels, prediction.probabilities, strict=True))
    return bool(answer["label"] == prediction.label and answer["probabilities"] == probabilities)


FORMS = (
    Form("GET fragment", "GET", {"HX-Request": "true"}, _fragment_shows, 0.35),
    Form("GET JSON", "GET", {"Accept": "application/json"}, _json_shows, 0.45),
    Form("POST JSON", "POST", {"Content-Type": "application/json"}, _json_shows),
)


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Measure each form, and "hello" before them in every round."""
    hello = subject.directory / "hello"
    generator.save((b"GET /?%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % n for n in range(len(subject.rows))), hello)
    with server.service(subject) as service, server.bare() as bare:
        measures = [partial(load.http, bare, hello, seconds=plan.seconds, tool=plan.tool)]
        for form in FORMS:
            verify(form, service, subject, subject.rows[:VERIFIED])
            requests = subject.directory / form.name
            generator.save((form.request(subject, row) for row in subject.rows), requests)
            measures.append(partial(load.http, service, requests, seconds=plan.seconds, tool=plan.tool))
        hellos, *runs = interleave(measures, rounds=plan.rounds)
    reference = f"bare uvicorn, {median(run.rate for run in hellos):,.0f}/s"
    results = [_result(form, loads, hellos, reference) for form, loads in zip(FORMS, runs, strict=True)]
    print(f"HTTP load tool: {plan.tool}, {load.HTTP_CONNECTIONS} connections; bare: {load.busy(hellos)}")
    return results


def verify(form: Form, service: server.Server, subject: Subject, rows: Sequence[Sequence[float]]) -> None:
    """Compare the replies to some rows with the classifier.

    Raises:
        WrongAnswer: a status is not 200, or another prediction is shown.
    """
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    for row in rows:
        body = form.body(subject, row)
        connection.request(form.method, form.target(subject, row), body or None, dict(form.headers))
        response = connection.getresponse()
        content = response.read()
        if response.status != 200 or not form.shows(content, subject.model.predict(row), subject):
            raise WrongAnswer(f"{form.name} {row}: {response.status} {content!r}")
    connection.close()


def _result(form: Form, loads: Sequence[load.Load], hellos: Sequence[load.Load], reference: str) -> Result:
    ratio = Ratio.of([run.rate for run in loads], [run.rate for run in hellos])
    by_core = Ratio.of([run.rate_of_core for run in loads], [run.rate_of_core for run in hellos])
    bars = () if form.least_ratio is None else (Bar(ratio.median, form.least_ratio),)
    context = f"{load.busy(loads)}; ratio by processor time {by_core.median:.3f}"
    return Result(form.name, median(run.rate for run in loads), "/s", ratio, reference, bars, context)
