"""XGBoost's model files, JSON and UBJSON, as data (xgboost.readthedocs.io, "Introduction to Model IO").

A row goes left where float32(value) < condition, or, at a node that compares a category, where the category is not in
the node's set; all else goes by the node's default. Sums are float32.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from ml.errors import ModelFileError, shown
from ml.importing import ubjson
from ml.importing.imported import Imported, ImportedInputs, Progress, array, forest_of, no_json, read_trees
from ml.importing.xgboost_trees import tree_of, trees_of
from ml.model.card import MAX_FEATURES
from ml.model.total import Link, Total

OBJECTIVES: dict[str, tuple[Link, str]] = {
    "reg:squarederror": ("identity", "as it is"),
    "reg:linear": ("identity", "as it is"),
    "reg:squaredlogerror": ("identity", "as it is"),
    "reg:pseudohubererror": ("identity", "as it is"),
    "reg:absoluteerror": ("identity", "as it is"),
    "reg:quantileerror": ("identity", "as it is"),
    "binary:logistic": ("expit_single", "logit"),
    "count:poisson": ("exp_single", "log"),
    "reg:gamma": ("exp_single", "log"),
    "reg:tweedie": ("exp_single", "log"),
    "multi:softprob": ("softmax_single", "as it is"),
    "multi:softmax": ("softmax_single", "as it is"),
}
"""The link of each objective, and what makes the start of the sums out of `base_score`."""

T = TypeVar("T")


class _Param(msgspec.Struct):
    base_score: str
    num_class: str
    num_feature: str
    num_target: str = "1"


class _Objective(msgspec.Struct):
    name: str


class _Model(msgspec.Struct, Generic[T]):
    trees: list[T] = []
    tree_info: list[int] = []
    iteration_indptr: list[int] = []
    cats: dict[str, Any] | None = None


class _Gbtree(msgspec.Struct, Generic[T]):
    model: _Model[T] = msgspec.field(default_factory=_Model)


class _Booster(_Gbtree[T], Generic[T]):
    name: str = ""


class _Learner(msgspec.Struct, Generic[T]):
    gradient_booster: _Booster[T]
    learner_model_param: _Param
    objective: _Objective
    attributes: dict[str, str] = {}
    feature_names: list[str] = []
    feature_types: list[str] = []


class _File(msgspec.Struct, Generic[T]):
    learner: _Learner[T]
    version: list[int] = []


def read_json(content: bytes, progress: Progress, *, best: bool | None = None) -> Imported:
    """Return the model in a JSON file.

    Args:
        best: whether only the trees up to the best iteration count, as XGBoost's scikit-learn classes have it; None is
            what the file says: whether it was saved by one of these.

    Raises:
        ModelFileError: one sentence that names what is wrong or not supported.
    """
    try:
        file = msgspec.json.decode(content, type=_File[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise no_json(content, error, "XGBoost") from error
    return _imported(file.learner, file.version, trees_of(file.learner.gradient_booster.model.trees), progress, best)


def read_ubjson(content: bytes, progress: Progress, *, best: bool | None = None) -> Imported:
    """Return the model in a UBJSON file; arguments and errors are those of `read_json`."""
    whole = ubjson.parse(content)
    trees: list[Any] = []
    try:
        model = whole["learner"]["gradient_booster"]
        model = model.get("model", {})
        trees, model["trees"] = model.get("trees", []), []
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError("not a model of XGBoost: the UBJSON has no learner") from error
    try:
        file = msgspec.convert(_plain(whole), type=_File[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelFileError(f"not a model of XGBoost: {shown(error)}") from error
    if not isinstance(trees, list) or not all(isinstance(tree, dict) for tree in trees):
        raise ModelFileError("not a model of XGBoost: its trees are no objects")
    file.learner.gradient_booster.model.trees = trees
    return _imported(file.learner, file.version, iter(trees), progress, best)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _imported(
    learner: _Learner[Any],
    version: Sequence[int],
    trees: Iterator[dict[str, Any]],
    progress: Progress,
    best: bool | None,
) -> Imported:
    booster, param, objective = learner.gradient_booster, learner.learner_model_param, learner.objective.name
    if booster.name != "gbtree":
        raise ModelFileError(f"XGBoost's booster {shown(booster.name)} is not supported: train with booster='gbtree'")
    if objective not in OBJECTIVES:
        raise ModelFileError(
            f"XGBoost's objective {shown(objective)} is not supported; these are: {', '.join(OBJECTIVES)}"
        )
    n_features, n_targets = _whole(param.num_feature, "num_feature"), _whole(param.num_target, "num_target")
    n_sums = max(1, _whole(param.num_class, "num_class"))
    if n_targets > 1:
        raise ModelFileError("a model of more than one target is not supported")
    if not 1 <= n_features <= MAX_FEATURES:
        raise ModelFileError(f"the model has {n_features} features; 1 to {MAX_FEATURES} are read")
    inputs = _inputs(learner, n_features)
    model = booster.model
    n_trees, said = _n_trees(learner, best)
    output_of = array(model.tree_info, "tree_info", np.int64, len(model.trees))[:n_trees]
    if np.any((output_of < 0) | (output_of >= n_sums)):
        raise ModelFileError(f"a tree adds to a class outside 0 to {n_sums - 1}")
    read = (tree_of(tree, number, inputs) for number, tree in zip(range(n_trees), trees, strict=False))
    link, start = OBJECTIVES[objective]
    is_class = objective.startswith(("binary:", "multi:"))
    if (link == "softmax_single") != (n_sums > 1):
        raise ModelFileError(f"{n_sums} classes do not fit the objective {objective}")
    forest = forest_of(
        read_trees(read, n_trees, progress),
        n_features=n_features,
        output_of=output_of.tolist(),
        init=_starts(param.base_score, n_sums, start),
        total=Total(single_sums=True, link=link),
        is_quantity=not is_class,
    )
    return Imported(
        forest=forest,
        n_classes=max(2, n_sums) if is_class else 0,
        inputs=inputs,
        library=("xgboost", ".".join(map(str, version[:3]))),
        estimator=f"XGBoost, {objective}",
        said=said,
    )


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ModelFileError(f"{name} is {shown(text)}, not a whole number below a billion")
    return int(text)


def _n_trees(learner: _Learner[Any], wanted: bool | None) -> tuple[int, tuple[str, ...]]:
    """Return the number of trees that count: those up to the best round, as XGBoost's scikit-learn classes do."""
    model = learner.gradient_booster.model
    n_trees = len(model.trees)
    best = learner.attributes.get("best_iteration", "")
    if not best or not ("scikit_learn" in learner.attributes if wanted is None else wanted):
        return n_trees, ()
    place = _whole(best, "best_iteration") + 1
    rounds = array(model.iteration_indptr, "iteration_indptr", np.int64)
    if not place < len(rounds) or not 0 < rounds[place] <= n_trees:
        raise ModelFileError(f"the best iteration {best} is not among the rounds")
    n_best = int(rounds[place])
    if n_best == n_trees:
        return n_trees, ()
    return n_best, (f"{n_best} of {n_trees} trees count, up to the best iteration, as XGBoost's predict has it",)


def _starts(base_score: str, n_sums: int, start: str) -> tuple[float, ...]:
    """Return where the sums start: `base_score` is one number, or in brackets one or several."""
    try:
        scores = [np.float32(text) for text in base_score.strip("[]").split(",")]
    except ValueError as error:
        raise ModelFileError(f"base_score is {shown(base_score)}, not a number") from error
    if len(scores) not in (1, n_sums) or not np.all(np.isfinite(scores)):
        raise ModelFileError(f"base_score is {shown(base_score)}, not one finite number for each class")
    if start != "as it is":
        most = 1 if start == "logit" else math.inf
        if not 0 < scores[0] < most:
            raise ModelFileError(f"base_score is {shown(base_score)}, not between 0 and {most}")
        # -log(1 / p - 1), as XGBoost has it.
        with np.errstate(over="ignore"):
            scores = [-_log(np.float32(1) / one - np.float32(1)) if start == "logit" else _log(one) for one in scores]
        if not np.all(np.isfinite(scores)):
            raise ModelFileError(f"base_score is {shown(base_score)}: the sums would start at {scores[0]:g}")
    return tuple(map(float, scores * (n_sums // len(scores))))


def _log(value: np.float32) -> np.float32:
    """Return the logarithm with the bits of the C library's logf, which XGBoost calls."""
    try:
        logf = ctypes.CDLL(ctypes.util.find_library("m")).logf
    except (OSError, AttributeError):
        return np.float32(math.log(value))
    logf.restype, logf.argtypes = ctypes.c_float, [ctypes.c_float]
    return np.float32(logf(float(value)))


def _inputs(learner: _Learner[Any], n_features: int) -> ImportedInputs:
    names, types = tuple(learner.feature_names), learner.feature_types
    if names and len(names) != n_features:
        raise ModelFileError(f"the file has {len(names)} names for {n_features} features")
    if types and len(types) != n_features:
        raise ModelFileError(f"the file has {len(types)} types for {n_features} features")
    cats = learner.gradient_booster.model.cats or {}
    encodings = cats.get("enc", [])
    choices: dict[int, tuple[str, ...] | None] = {}
    for position, kind in enumerate(types):
        if kind == "c":
            known = isinstance(encodings, list) and position < len(encodings)
            choices[position] = _words(encodings[position], position) if known else None
    return ImportedInputs(n_features=n_features, names=names, choices=choices)


def _words(encoding: Any, position: int) -> tuple[str, ...] | None:
    """Return the categories of a feature: text in one array of bytes with offsets, or numbers."""
    if not isinstance(encoding, dict):
        raise ModelFileError(f"the categories of feature {position} cannot be read")
    if "offsets" not in encoding:
        numbers = np.asarray(encoding.get("values", []))
        if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
            raise ModelFileError(f"the categories of feature {position} are no numbers")
        return tuple(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers.tolist()) or None
    letters = array(encoding.get("values", []), "values", np.int64).astype(np.uint8).tobytes()
    ends = array(encoding["offsets"], "offsets", np.int64).tolist()
    if not letters.isascii():
        # XGBoost counts characters where it should count bytes, and cuts off the end of the text.
        return None
    if any(not 0 <= start <= end <= len(letters) for start, end in itertools.pairwise(ends)):
        raise ModelFileError(f"the categories of feature {position} lie outside their text")
    return tuple(letters[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(ends)) or None
