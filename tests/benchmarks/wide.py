"""Models of other tables: forests too wide for a decision table, explanations, and scoring a CSV file."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

import ml
from ml.model import modelfile
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel, load_model
from ml.model.nearest import explain
from ml.scoring.text import score
from ml.training import fitting, writing
from tests.pipelines import Column, dataset_of, words

from . import in_process
from .in_process import BATCH_ROWS, SLICE, timed
from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject, WrongAnswer, random_rows

TREES = 100
SCORED_VALUES = 400_000


def measure(subject: Subject, plan: Plan) -> list[Result]:
    """Measure breast cancer (30 features) and digits (64) against scikit-learn, and scoring against the csv module."""
    digits = exported(subject, "digits", load_digits())
    return [
        *_predicting(exported(subject, "breast-cancer", load_breast_cancer()), plan),
        _loading(exported(subject, "noise", _noise()), plan),
        _words_and_gaps(plan),
        _explaining(subject, plan),
        _scoring(subject, plan, least_rate=300),
        _scoring(digits, plan, least_rate=20),
    ]


def exported(subject: Subject, name: str, data: Any) -> Subject:
    """Return the subject with a forest of another table, and rows that spread over its training ranges."""
    train_rows, test_rows, train_classes, test_classes = train_test_split(data.data, data.target, random_state=0)
    forest = RandomForestClassifier(TREES, random_state=0).fit(train_rows, train_classes)
    path = subject.directory / f"{name}.npz"
    # Importance is not measured here, and takes long: few test rows are enough for the checks of the file.
    model = ml.export(forest, test_rows[:50], test_classes[:50], feature_names=list(data.feature_names), path=path)
    other = replace(subject, model_path=path, model=model, estimator=forest, rows=random_rows(model, 2 * BATCH_ROWS))
    in_process.verify(other, n=500)
    return other


def _noise() -> Bunch:
    rows, classes = make_classification(24_000, 20, n_informative=10, flip_y=0.3, random_state=0)
    return Bunch(data=rows, target=classes, feature_names=[f"x{number}" for number in range(20)])


def _predicting(wide: Subject, plan: Plan) -> list[Result]:
    rows = np.array(wide.rows)
    batches = [rows[:BATCH_ROWS], rows[BATCH_ROWS:]]
    one, sklearn_one, many, sklearn_many = interleave(
        [
            timed(wide.model.predict, wide.rows, plan.seconds, a_look=SLICE // 10),
            timed(wide.estimator.predict_proba, rows[:, None, :], plan.seconds),
            timed(wide.model.predict_batch, batches, plan.seconds),
            timed(wide.estimator.predict_proba, batches, plan.seconds),
        ],
        rounds=plan.rounds,
    )
    forest = f"{len(wide.model.features)} features, {TREES} trees"
    row_ratio, batch_ratio = Ratio.of(sklearn_one, one), Ratio.of(sklearn_many, many)
    return [
        Result(
            f"one row, {forest}", median(one) * 1e6, "us", row_ratio,
            f"scikit-learn, {median(sklearn_one) * 1e3:.2f} ms", (Bar(row_ratio.median, 50, "times"),),
        ),
        Result(
            f"batches of {BATCH_ROWS:,}, {forest}", BATCH_ROWS / median(many) / 1e3, "thousand rows/s", batch_ratio,
            f"scikit-learn, {BATCH_ROWS / median(sklearn_many) / 1e3:,.0f} thousand rows/s",
            (Bar(batch_ratio.median, 1, "times"),),
        ),
    ]  # fmt: skip


def _words_and_gaps(plan: Plan) -> Result:
    """Measure ten columns of 20 choices and gaps against the same numbers without a gap, from JSON values on."""
    rng = np.random.default_rng(0)
    choices = [f"choice {number:02}" for number in range(20)]
    tables = [words(rng, 2_000, choices, gaps=0.15) for _ in range(10)]
    numbers = [Column(np.nan_to_num(column.codes, nan=20.0).astype(object)) for column in tables]
    outcomes = np.sum([column.codes for column in numbers], axis=0) > 100
    mixed, plain = interleave(
        [_asking(columns, outcomes.astype(np.float64), plan) for columns in (tables, numbers)], rounds=plan.rounds
    )
    ratio = Ratio.of(mixed, plain)
    return Result(
        "one sample, 10 columns of words and gaps", median(mixed) * 1e6, "us", ratio,
        f"the same forest on numbers, {median(plain) * 1e6:.1f} us", (Bar(ratio.median, 3, "times", highest=True),),
    )  # fmt: skip


def _asking(columns: list[Column], outcomes: NDArray[np.float64], plan: Plan) -> Callable[[], float]:
    dataset = dataset_of(columns, outcomes, labels=["no", "yes"])
    model = LoadedModel(writing.model_of(fitting.fit(dataset, Recipe(n_estimators=TREES))), "")
    samples = list(zip(*(column.cells for column in columns), strict=True))
    return timed(lambda sample: model.predict(model.validator.row(sample)), samples, plan.seconds, a_look=SLICE // 10)


def _loading(deep: Subject, plan: Plan) -> Result:
    """Measure from the file to the first answer beside reading and checking the file, when code is compiled."""
    path = deep.model_path

    def load() -> None:
        load_model(path).predict(deep.rows[0])

    seconds, reading = interleave(
        [_once(load), _once(lambda: modelfile.parse(modelfile.read(path)))], rounds=plan.rounds
    )
    ratio = Ratio.of(seconds, reading)
    return Result(
        f"load to ready, {path.stat().st_size / 1e6:.0f} MB", median(seconds) * 1e3, "ms", ratio,
        f"reading and checking the file, {median(reading) * 1e3:.0f} ms",
        (Bar(ratio.median, 1.5, "times", highest=True),),
    )  # fmt: skip


def _explaining(subject: Subject, plan: Plan) -> Result:
    model: LoadedModel = subject.model
    seconds, sklearn_row = interleave(
        [
            timed(lambda row: explain(model, row), subject.rows, plan.seconds, a_look=SLICE // 10),
            timed(subject.estimator.predict_proba, np.array(subject.rows)[:, None, :], plan.seconds),
        ],
        rounds=plan.rounds,
    )
    return Result(
        "explain one row, built-in model",
        median(seconds) * 1e3,
        "ms",
        Ratio.of(seconds, sklearn_row),
        f"one predict_proba of scikit-learn, {median(sklearn_row) * 1e3:.2f} ms",
        (Bar(median(seconds) * 1e3, 1, "ms", highest=True),),
    )


def _scoring(subject: Subject, plan: Plan, *, least_rate: float) -> Result:
    """Measure from file to file, and what the csv module takes to read the same file and write the same rows."""
    source, sink, alone = (subject.directory / name for name in ("rows.csv", "scored.csv", "alone.csv"))
    n_features = len(subject.model.features)
    n_rows = SCORED_VALUES // n_features
    _write_rows(source, np.resize(np.array(subject.rows), (n_rows, n_features)), subject.model)

    def run() -> None:
        with source.open(newline="") as rows, sink.open("w", newline="") as answers:
            score(subject.model, rows, answers, on_bad=_refuse)

    run()
    added = [row[n_features:] for row in csv.reader(io.StringIO(sink.read_text()))]

    def copy() -> None:
        with source.open(newline="") as rows, alone.open("w", newline="") as answers:
            csv.writer(answers, lineterminator="\n").writerows(map(list.__add__, csv.reader(rows), added))

    with _without_collections():
        seconds, copying = interleave([_once(run), _once(copy)], rounds=plan.rounds)
    if sink.read_bytes() != alone.read_bytes():
        raise WrongAnswer("scoring writes something else than the csv module makes of the same cells")
    rate, ratio = n_rows / median(seconds), Ratio.of(seconds, copying)
    return Result(
        f"score a CSV file, {n_features} features",
        rate / 1e3,
        "thousand rows/s",
        ratio,
        f"the csv module alone, {n_rows / median(copying) / 1e3:,.0f} thousand rows/s",
        (Bar(rate / 1e3, least_rate, "thousand rows/s"), Bar(ratio.median, 2, "times", highest=True)),
    )


def _write_rows(path: Path, rows: NDArray[np.float64], model: LoadedModel) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([feature.title for feature in model.features])
        writer.writerows(rows.tolist())


def _refuse(bad: object) -> None:
    raise WrongAnswer(f"a row that scores has no answer: {bad}")


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Do as the command line does while it scores; what this process has loaded is not looked through either."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _once(function: Callable[[], object]) -> Callable[[], float]:
    """Return a measurement of one call, in seconds of processor time."""

    def run() -> float:
        started = time.process_time()
        function()
        return time.process_time() - started

    return run
