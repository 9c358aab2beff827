"""python -m tests.benchmarks.boosted: models of XGBoost, LightGBM, CatBoost and skops against their libraries.

Runs in an environment that has these libraries, NumPy, msgspec and numba: none of them is needed to read their files.
Each model is saved by its library, read back without it, and compared on 10,000 rows, a third of them on thresholds or
beside them, with gaps where it knows gaps: sums to the bit, probabilities by their largest difference; then one row is
timed against the library's own answer to one row, in turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris

from ml.estimators.saved import read_model
from ml.importing.imported import Imported
from ml.model.cuts import Cuts
from ml.model.evaluators import Evaluator, compile_forest
from ml.tables.dataset import Feature

ROWS = 10_000
ONE_BY_ONE = 300
TREES = 300
TIMED_ROUNDS = 7
BAR_US, BAR_RATIO = 20.0, 10.0
LARGEST = float(np.finfo(np.float32).max)

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A fitted model and what its library answers.

    Attributes:
        save: writes its file.
        raw: the sums of leaves of rows; None where the library does not give them.
        answers: probabilities or quantities of rows.
        gaps: whether rows may lack values that the training rows had all.
    """

    name: str
    file: str
    table: Rows
    save: Callable[[str], object]
    raw: Callable[[Rows], Any] | None
    answers: Callable[[Rows], Any]
    gaps: bool = True


def tables() -> Iterator[tuple[str, Rows, NDArray[Any], bool]]:
    """Yield tables of two, three and ten classes and of a quantity, with gaps."""
    rng = np.random.default_rng(0)
    for name, load in (
        ("cancer", load_breast_cancer), ("iris", load_iris), ("digits", load_digits), ("diabetes", load_diabetes),
    ):  # fmt: skip
        data = load()
        table = data.data.copy()
        table[rng.random(table.shape) < 0.05] = np.nan
        yield name, table, data.target, name == "diabetes"


def xgboost_cases(trees: int) -> Iterator[Case]:
    xgboost: Any = import_module("xgboost")

    for name, table, true, is_quantity in tables():
        objectives: list[dict[str, Any]] = [{}]
        if is_quantity:
            objectives += [
                {"objective": one}
                for one in ("count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror", "reg:pseudohubererror")
            ]
        for more in objectives:
            kind = xgboost.XGBRegressor if is_quantity else xgboost.XGBClassifier
            model = kind(n_estimators=trees // (10 if name == "digits" else 1), n_jobs=1, **more).fit(table, true)
            answers = model.predict if is_quantity else model.predict_proba
            yield Case(
                f"XGBoost {name} {more.get('objective', '')}", "m.json", table, model.save_model,
                partial(model.predict, output_margin=True), answers,
            )  # fmt: skip


def lightgbm_cases(trees: int) -> Iterator[Case]:
    lightgbm: Any = import_module("lightgbm")

    for name, table, true, is_quantity in tables():
        kinds: list[dict[str, Any]] = [{}, {"boosting_type": "dart"}]
        if is_quantity:
            kinds = [{"objective": one} for one in ("regression", "huber", "fair", "quantile", "poisson", "tweedie")]
        for more in kinds:
            kind = lightgbm.LGBMRegressor if is_quantity else lightgbm.LGBMClassifier
            n_trees = trees // (10 if name == "digits" else 1)
            model = kind(n_estimators=n_trees, n_jobs=1, verbose=-1, **more).fit(table, true)
            answers = model.predict if is_quantity else model.predict_proba
            what = " ".join(map(str, more.values()))
            yield Case(
                f"LightGBM {name} {what}", "m.txt", table, model.booster_.save_model,
                partial(model.predict, raw_score=True), answers,
            )  # fmt: skip


def catboost_cases(trees: int) -> Iterator[Case]:
    catboost: Any = import_module("catboost")

    for name, table, true, is_quantity in tables():
        for policy in ("SymmetricTree", "Depthwise"):
            kind = catboost.CatBoostRegressor if is_quantity else catboost.CatBoostClassifier
            model = kind(
                iterations=trees // (10 if name == "digits" else 1), verbose=0, thread_count=1, grow_policy=policy,
                allow_writing_files=False,
            ).fit(table, true)  # fmt: skip
            answers = model.predict if is_quantity else model.predict_proba
            yield Case(
                f"CatBoost {name} {policy}", "m.json", table,
                partial(model.save_model, format="json"),
                partial(model.predict, prediction_type="RawFormulaVal"), answers,
            )  # fmt: skip


def skops_cases(trees: int) -> Iterator[Case]:
    skops: Any = import_module("skops.io")
    ensemble: Any = import_module("sklearn.ensemble")

    for name, table, true, is_quantity in tables():
        task = "Regressor" if is_quantity else "Classifier"
        for kind in ("RandomForest", "ExtraTrees", "GradientBoosting", "HistGradientBoosting"):
            gaps = kind != "GradientBoosting"
            n_trees = trees // (10 if name == "digits" else 1)
            counted = {"max_iter" if kind.startswith("Hist") else "n_estimators": n_trees}
            known = table if gaps else np.nan_to_num(table)
            model = getattr(ensemble, kind + task)(**counted, random_state=0).fit(known, true)
            answers = model.predict if is_quantity else model.predict_proba
            yield Case(
                f"skops {kind} {name}", "m.skops", known, partial(skops.dump, model),
                None, answers, gaps=gaps,
            )  # fmt: skip


def rows_of(imported: Imported, table: Rows, *, gaps: bool) -> Rows:
    """Return rows: a third real, a third on thresholds and beside them, a third anywhere; with gaps."""
    rng, forest = np.random.default_rng(1), imported.forest
    third = ROWS // 3
    real = table[rng.integers(0, len(table), third)]
    on, anywhere = np.empty((third, table.shape[1])), np.empty((ROWS - 2 * third, table.shape[1]))
    for place, column in enumerate(table.T):
        cuts = forest.threshold[(forest.feature == place) & np.isfinite(forest.threshold)]
        single = cuts.astype(np.float32)
        edges = np.concatenate(
            [cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf), single]
            + [np.nextafter(single, np.float32(side)).astype(np.float64) for side in (np.inf, -np.inf)]
        )
        low, high = np.nanmin(column), np.nanmax(column)
        on[:, place] = rng.choice(edges if len(edges) else [low], third)
        anywhere[:, place] = rng.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), len(anywhere))
    rows: Rows = np.clip(np.concatenate([real, on, anywhere]), -LARGEST, LARGEST)
    if gaps:
        lacks = np.ones(table.shape[1], dtype=bool) if imported.inputs.has_gaps is None else imported.inputs.has_gaps
        rows[(rng.random(rows.shape) < 0.07) & np.asarray(lacks)] = np.nan
        rows[:, ~np.asarray(lacks)] = np.nan_to_num(rows[:, ~np.asarray(lacks)])
    return rows


def compiled(imported: Imported) -> Evaluator:
    features = [Feature(key=f"x{place}", title="", has_gaps=True) for place in range(imported.inputs.n_features)]
    labels = [str(number) for number in range(imported.n_classes)]
    return compile_forest(imported.forest, Cuts(imported.forest, features), labels=labels, max_cells=0)


def compared(case: Case) -> tuple[str, bool]:
    """Return a line on one model, and whether it is as promised."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / case.file
        case.save(str(path))
        imported = read_model(path)
    evaluator = compiled(imported)
    rows = rows_of(imported, case.table, gaps=case.gaps)
    typed = rows.astype(imported.forest.dtype)
    ours = evaluator.predict_batch(typed).outputs
    one_by_one = [evaluator.predict(row) for row in rows[:ONE_BY_ONE].tolist()]
    is_same = np.array_equal(ours[:ONE_BY_ONE], [one.probabilities or (one.value,) for one in one_by_one])
    theirs = np.asarray(case.answers(rows)).reshape(ours.shape)
    epsilon = np.finfo(np.float32 if imported.forest.total.single_sums else np.float64).eps
    ulps = np.abs(ours - theirs).max() / (epsilon * np.abs(theirs).max())
    if case.raw is not None and imported.forest.total.divisor == 1:
        sums = evaluator.sums(typed)
        is_same &= np.array_equal(sums, np.asarray(case.raw(rows)).reshape(sums.shape))
        alone = [np.ravel(case.raw(rows[place : place + 1])) for place in range(ONE_BY_ONE)]
        is_same &= np.array_equal(sums[:ONE_BY_ONE], alone)
    timed, ratio = _timed(evaluator, case, rows)
    words = "same bits" if is_same else "OTHER BITS"
    line = (
        f"{case.name:42} {imported.forest.n_trees:6} {len(imported.forest.values):8} {words:10} "
        f"{ulps:8.2g} {timed:8.1f} {ratio:8.1f}"
    )
    return line, bool(is_same and ulps <= 4)


def _timed(evaluator: Evaluator, case: Case, rows: Rows) -> tuple[float, float]:
    """Return microseconds of one row, and how many times as long the library takes, the medians of rounds in turns.

    Of this thread alone: those that HistGradientBoosting starts keep a core busy for a while after they have answered.
    """
    ours, theirs = [], []
    plain = rows[:200].tolist()
    for _ in range(TIMED_ROUNDS):
        start = time.thread_time()
        for row in plain:
            evaluator.predict(row)
        ours.append((time.thread_time() - start) / len(plain))
        start = time.thread_time()
        for place in range(20):
            case.answers(rows[place : place + 1])
        theirs.append((time.thread_time() - start) / 20)
    return median(ours) * 1e6, median(theirs) / median(ours)


def main() -> int:
    """Compare all models; return 1 if one is not as promised."""
    warnings.simplefilter("ignore")
    trees = int(sys.argv[1]) if len(sys.argv) > 1 else TREES
    failed = 0
    print(f"{'model':42} {'trees':>6} {'leaves':>8} {'sums':10} {'ulps':>8} {'us a row':>8} {'ratio':>8}")
    for cases in (xgboost_cases, lightgbm_cases, catboost_cases, skops_cases):
        for case in cases(trees):
            line, is_right = compared(case)
            failed += not is_right
            print(line, flush=True)
    print(f"{failed} models are not as promised" if failed else "all as promised")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
