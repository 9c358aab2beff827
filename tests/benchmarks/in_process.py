"""The model against scikit-learn's `predict_proba` of the same forest, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from statistics import median
from typing import TypeVar

import numpy as np

from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject, WrongAnswer

Item = TypeVar("Item")
BATCH_ROWS = 4_096
BATCHES = 64
SLICE = 1_000  # calls between two looks at the clock


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Measure one row, one sample with its validation, and batches; scikit-learn next to each in every round."""
    verify(subject)
    model, estimator = subject.model, subject.estimator
    samples = [subject.sample(row) for row in subject.rows]
    rng = np.random.default_rng(1)
    table = np.array(subject.rows)
    batches = [table[rng.integers(0, len(table), BATCH_ROWS)] for _ in range(BATCHES)]
    narrow = [batch.astype(np.float32) for batch in batches]

    def answer(sample: dict[str, float]) -> object:
        return model.predict(model.validator.row(sample))

    measures = [
        timed(model.predict, subject.rows, plan.seconds, a_look=SLICE),
        timed(answer, samples, plan.seconds, a_look=SLICE),
        timed(estimator.predict_proba, table[:, None, :], plan.seconds),
        timed(model.predict_batch, batches, plan.seconds),
        timed(model.predict_batch, narrow, plan.seconds),
        timed(estimator.predict_proba, batches, plan.seconds),
    ]
    row, sample, sklearn_row, batch, narrow_batch, sklearn_batch = interleave(measures, rounds=plan.rounds)
    results = []
    reference = f"scikit-learn, {median(sklearn_row) * 1e3:.2f} ms"
    for what, seconds, barred in (("one row, predict", row, True), ("one sample, validate and predict", sample, False)):
        us, ratio = median(seconds) * 1e6, Ratio.of(sklearn_row, seconds)
        bars: tuple[Bar, ...] = ()
        if barred:
            bars = (Bar(us, 2, "us", highest=True), Bar(ratio.median, 1_000, "times"))
        results.append(Result(what, us, "us", ratio, reference, bars))
    reference = f"scikit-learn, {BATCH_ROWS / median(sklearn_batch) / 1e6:.2f} million rows/s"
    for what, seconds in ((f"batches of {BATCH_ROWS:,}, float64", batch), ("the same, float32", narrow_batch)):
        rate = BATCH_ROWS / median(seconds) / 1e6
        bars = (Bar(rate, 8, "million rows/s"),)
        results.append(Result(what, rate, "million rows/s", Ratio.of(sklearn_batch, seconds), reference, bars))
    return results


def verify(subject: Subject, *, n: int = BATCH_ROWS) -> None:
    """Compare n answers, one by one and as a batch, with scikit-learn's.

    Raises:
        WrongAnswer: a probability differs in any bit.
    """
    rows = subject.rows[:n]
    expected = subject.estimator.predict_proba(np.array(rows))
    one_by_one = np.array([subject.model.predict(row).probabilities for row in rows])
    batch = subject.model.predict_batch(np.array(rows)).outputs
    if not (np.array_equal(one_by_one, expected) and np.array_equal(batch, expected)):
        raise WrongAnswer("the model gives other probabilities than scikit-learn")


def timed(
    function: Callable[[Item], object], arguments: Iterable[Item], seconds: float, *, a_look: int = 1
) -> Callable[[], float]:
    """Return a measurement: the mean processor time of a call in seconds, the loop around it included.

    It goes on through the arguments where the round before stopped, and looks at the clock after every `a_look` calls.
    """
    rest = cycle(arguments)

    def run() -> float:
        calls, started = 0, time.process_time()
        while (elapsed := time.process_time() - started) < seconds or not calls:
            for argument in islice(rest, a_look):
                function(argument)
            calls += a_look
        return elapsed / calls

    return run
