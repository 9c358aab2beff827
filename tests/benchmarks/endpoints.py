"""`/predict` in its forms against the bare server's "hello", under the same load tool."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from ml.model.evaluators import Prediction

from . import generator, load, server
from .results import Bar, Result, interleave
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
    # With the map, the picture and the nearest change in it.
    Form("GET fragment", "GET", {"HX-Request": "true"}, _fragment_shows, 0.33),
    Form("GET JSON", "GET", {"Accept": "application/json"}, _json_shows, 0.45),
    Form("POST JSON", "POST", {"Content-Type": "application/json"}, _json_shows, 0.40),
)


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Measure "hello" to short requests, and each form next to "hello" to the form's own requests, in every round.

    The bars are about the short ones. The longer ones tell how much of the difference is uvicorn's work, which reads
    query, headers and body before the service sees anything.
    """
    hello = subject.directory / "hello"
    generator.save((b"GET /?%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % n for n in range(len(subject.rows))), hello)
    with server.service(subject) as service, server.bare() as bare:
        runs = [(bare, hello)]
        for form in FORMS:
            verify(form, service, subject, subject.rows[:VERIFIED])
            requests = subject.directory / form.name
            generator.save((form.request(subject, row) for row in subject.rows), requests)
            runs += [(bare, requests), (service, requests)]
        measures = [partial(load.http, *run, seconds=plan.seconds, tool=plan.tool) for run in runs]
        hellos, *loads = interleave(measures, rounds=plan.rounds)
    return [
        _result(form, load.Comparison(answers, hellos), load.Comparison(answers, same), plan.tool)
        for form, same, answers in zip(FORMS, loads[::2], loads[1::2], strict=True)
    ]


def verify(form: Form, service: server.Server, subject: Subject, rows: Sequence[Sequence[float]]) -> None:
    """Compare the replies to some rows with the model.

    Raises:
        WrongAnswer: a status is not 200, or another prediction is shown.
    """
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port)) as connection:
        for row in rows:
            body = form.body(subject, row)
            connection.request(form.method, form.target(subject, row), body or None, dict(form.headers))
            response = connection.getresponse()
            content = response.read()
            if response.status != 200 or not form.shows(content, subject.model.predict(row), subject):
                raise WrongAnswer(f"{form.name} {row}: {response.status} {content!r}")


def _result(form: Form, to_hello: load.Comparison, to_same: load.Comparison, tool: str) -> Result:
    ratio = to_hello.ratio
    bars = () if form.least_ratio is None else (Bar(ratio.median, form.least_ratio),)
    reference = f"bare uvicorn, {to_hello.reference_rate:,.0f}/s"
    context = f"{to_hello} ({tool}); {to_same.ratio.median:.2f} of bare with the same requests"
    return Result(form.name, to_hello.rate, "/s", ratio, reference, bars, context)
