"""Forests and boosted trees against scikit-learn with one and two jobs, and forests against ONNX Runtime as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_classification
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier

from ml.estimators.trees import forest_from
from ml.model.cuts import Cuts
from ml.model.evaluators import compile_forest

from .in_process import BATCH_ROWS
from .results import Bar, Ratio, Result, interleave
from .subject import Plan, Subject, WrongAnswer

ONE_AT_A_TIME = 512

Rows = NDArray[np.floating[Any]]
Call = Callable[[Rows], Any]


@dataclass(frozen=True)
class Rival:
    """Something else that evaluates trees: its name, its answers to a batch, and how many times faster one row is."""

    name: str
    answer: Call
    least: float = 1


def measure(_subject: Subject, plan: Plan) -> list[Result]:
    """Measure one row and batches of five forests and three boosted models; the answers are compared before."""
    results = []
    for what, table, classes, trees in _tables():
        estimator = RandomForestClassifier(trees, random_state=0, n_jobs=2).fit(table, classes).set_params(n_jobs=None)
        results += measured(what, table, estimator, list(rivals_of(estimator)), plan)
    for what, table, estimator in _boosted():
        results += measured(what, table, estimator, [Rival("scikit-learn", estimator.predict_proba, 10)], plan)
    return results


def measured(what: str, table: NDArray[np.float64], estimator: Any, rivals: list[Rival], plan: Plan) -> list[Result]:
    """Measure a fitted estimator on rows of its table beside its rivals, the first of which is its own library."""
    forest = forest_from(estimator)
    evaluator = compile_forest(forest, Cuts(forest), labels=[*map(str, estimator.classes_)], max_cells=0)
    rng = np.random.default_rng(0)
    rows = table[rng.integers(0, len(table), BATCH_ROWS)].astype(forest.dtype)
    if not np.array_equal(evaluator.predict_batch(rows).outputs, rivals[0].answer(rows)):
        raise WrongAnswer(f"{what}: other probabilities than scikit-learn's")
    return _compared(f"{what}, {len(forest.values):,} leaves", rows, evaluator, rivals, plan)


def _boosted() -> Iterator[tuple[str, NDArray[np.float64], Any]]:
    """Yield fitted estimators of 300 trees in all."""
    cancer, wine = load_breast_cancer(), load_wine()
    yield "gradient boosting, 300 trees", cancer.data, _fitted(GradientBoostingClassifier(), 300, cancer)
    yield "histogram boosting, 300 trees", cancer.data, _fitted(HistGradientBoostingClassifier(), 300, cancer)
    yield "histogram boosting, 3 x 100 trees", wine.data, _fitted(HistGradientBoostingClassifier(), 100, wine)


def _fitted(estimator: Any, trees: int, data: Any) -> Any:
    amount = "max_iter" if "max_iter" in estimator.get_params() else "n_estimators"
    return estimator.set_params(random_state=0, **{amount: trees}).fit(data.data, data.target)


def _tables() -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.intp], int]]:
    for what, data in (("breast cancer", load_breast_cancer()), ("digits", load_digits())):
        yield f"{what}, 100 trees", data.data, data.target, 100
    yield "1,000 trees of digits", data.data, data.target, 1_000
    noise = {"n_informative": 10, "flip_y": 0.3, "random_state": 0}
    yield "20 features of noise, 100 trees", *make_classification(24_000, 20, **noise), 100
    yield "500 features, 100 trees", *make_classification(4_000, 500, n_informative=40, random_state=0), 100


def rivals_of(estimator: Any) -> Iterator[Rival]:
    """Yield scikit-learn, and ONNX Runtime if it is installed: a requirement of this benchmark alone."""
    two_jobs = RandomForestClassifier(n_jobs=2)
    two_jobs.__dict__ |= estimator.__dict__ | {"n_jobs": 2}
    yield Rival("scikit-learn", estimator.predict_proba)
    yield Rival("scikit-learn, 2 jobs", two_jobs.predict_proba)
    try:
        import onnxruntime
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError:
        return
    kind = [("rows", FloatTensorType([None, estimator.n_features_in_]))]
    model = to_onnx(estimator, initial_types=kind, options={"zipmap": False})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    yield Rival("ONNX Runtime, 1 thread", lambda rows: session.run(None, {"rows": rows}))


def _compared(what: str, rows: Rows, evaluator: Any, rivals: list[Rival], plan: Plan) -> list[Result]:
    lists = rows.astype(np.float64).tolist()
    ones = cycle(lists)
    batches = [_once(lambda: evaluator.predict_batch(rows), plan), *(_answers(rival, rows, plan) for rival in rivals)]
    singles = [_once(lambda: evaluator.predict(next(ones)), plan), *(_lone(rival, rows, plan) for rival in rivals[::2])]
    many, *others = interleave(batches, rounds=plan.rounds)
    one, *lone = interleave(singles, rounds=plan.rounds)
    results = []
    for number, rival in enumerate(rivals):
        ratio = Ratio.of(others[number], many)
        results.append(
            Result(
                f"batches, {what}, beside {rival.name}", BATCH_ROWS / median(many) / 1e3, "thousand rows/s", ratio,
                f"{rival.name}, {BATCH_ROWS / median(others[number]) / 1e3:,.0f} thousand rows/s",
                (Bar(ratio.median, 1, "times"),),
            )
        )  # fmt: skip
    for seconds, rival in zip(lone, rivals[::2], strict=True):
        ratio = Ratio.of(seconds, one)
        reference = f"{rival.name}, {median(seconds) * 1e6:,.1f} us"
        name = f"one row, {what}, beside {rival.name}"
        results.append(
            Result(name, median(one) * 1e6, "us", ratio, reference, (Bar(ratio.median, rival.least, "times"),))
        )
    return results


def _answers(rival: Rival, rows: Rows, plan: Plan) -> Callable[[], float]:
    return _once(lambda: rival.answer(rows), plan)


def _lone(rival: Rival, rows: Rows, plan: Plan) -> Callable[[], float]:
    ones = cycle([rows[at : at + 1] for at in range(ONE_AT_A_TIME)])
    return _once(lambda: rival.answer(next(ones)), plan)


def _once(call: Callable[[], Any], plan: Plan) -> Callable[[], float]:
    """Return a measurement of the seconds that a call takes, on average over part of a round."""

    def run() -> float:
        calls, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < plan.seconds / 4 or not calls:
            call()
            calls += 1
        return passed / calls

    return run
