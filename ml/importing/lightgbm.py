"""LightGBM's model files, text of `name=value` lines (src/io/tree.cpp, src/boosting/gbdt_model_text.cpp), as data.

A row goes left where value <= threshold as float64, or where a category is in the node's set. What a node does with no
value is said by its `decision_type`: bit 0 is a category, bit 1 the default direction, bits 2 and 3 what counts as no
value: nothing (NaN is 0), zero, or NaN. Sums are float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, shown
from ml.importing.imported import Imported, ImportedInputs, Progress, Tree, array, cells_of, forest_of, read_trees
from ml.model.card import MAX_FEATURES
from ml.model.forest import LEAF, MAX_CELLS
from ml.model.total import Link, Total

OBJECTIVES: dict[str, Link] = {
    "regression": "identity", "regression_l1": "identity", "huber": "identity", "fair": "identity",
    "quantile": "identity", "mape": "identity", "poisson": "exp_sequential", "gamma": "exp_sequential",
    "tweedie": "exp_sequential", "binary": "expit", "multiclass": "softmax_sequential",
}  # fmt: skip
"""The link of each objective."""

_CATEGORY, _DEFAULT_LEFT = 1, 2
_NONE, _ZERO, _NAN = 0, 1, 2
# What LightGBM takes for zero: kZeroThreshold in meta.h, 1e-35 as a float32.
_ZERO_REACH = 1.0000000180025095e-35
_RANGE = re.compile(r"\[([^:\[\]]+):([^:\[\]]+)\]")


def read(content: bytes, progress: Progress) -> Imported:
    """Return the model in a text file.

    Raises:
        ModelFileError: one sentence that names what is wrong or not supported.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"not a model of LightGBM: byte {error.start} is not UTF-8") from error
    head, *blocks = text.split("\nTree=")
    names = _members(head)
    n_features = _whole(names, "max_feature_idx") + 1
    n_sums = _whole(names, "num_tree_per_iteration")
    if not 1 <= n_features <= MAX_FEATURES:
        raise ModelFileError(f"the model has {n_features} features; 1 to {MAX_FEATURES} are read")
    if not 1 <= n_sums <= MAX_FEATURES:
        raise ModelFileError(f"num_tree_per_iteration is {n_sums}")
    objective, link = _objective(names, n_sums)
    inputs = _inputs(names, n_features, blocks[-1] if blocks else "")
    lacks = np.zeros(n_features, dtype=bool)
    trees = read_trees(_trees(blocks, inputs, lacks), len(blocks), progress)
    if len(trees) % n_sums:
        raise ModelFileError(f"{len(trees)} trees are not the same number for each of {n_sums} classes")
    n_classes = {"expit": 2, "softmax_sequential": n_sums}.get(link, 0)
    divisor = float(len(trees) // n_sums if _averages(head) else 1)
    forest = forest_of(
        trees,
        n_features=n_features,
        output_of=[number % n_sums for number in range(len(trees))],
        init=[0.0] * n_sums,
        total=Total(single_values=False, link=link, divisor=divisor),
        is_quantity=not n_classes,
    )
    return Imported(
        forest=forest,
        n_classes=n_classes,
        inputs=replace(inputs, has_gaps=tuple(lacks.tolist())),
        library=("lightgbm", f"file format {shown(names.get('version', ''))}"),
        estimator=f"LightGBM, {objective}",
    )


def _averages(head: str) -> bool:
    """Return whether the trees' mean counts, as with boosting=rf."""
    return "average_output" in head.splitlines()


def _members(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _whole(members: Mapping[str, str], name: str) -> int:
    text = members.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        seen = shown(text) or "missing"
        raise ModelFileError(f"not a model of LightGBM: {name} is {seen}, not a whole number below a billion")
    return int(text)


def _objective(names: Mapping[str, str], n_sums: int) -> tuple[str, Link]:
    objective, *options = names.get("objective", "").split() or [""]
    if objective not in OBJECTIVES:
        what = shown(objective) if objective else "of one's own"
        raise ModelFileError(f"LightGBM's objective {what} is not supported; these are: {', '.join(OBJECTIVES)}")
    if "sqrt" in options or any(option.startswith("sigmoid:") and option != "sigmoid:1" for option in options):
        raise ModelFileError(
            f"LightGBM's objective {shown(names['objective'])} is not supported: train without reg_sqrt or sigmoid"
        )
    link = OBJECTIVES[objective]
    if (link == "softmax_sequential") != (n_sums > 1):
        raise ModelFileError(f"{n_sums} trees a round do not fit the objective {objective}")
    return objective, link


def _inputs(names: Mapping[str, str], n_features: int, tail: str) -> ImportedInputs:
    infos, found = names.get("feature_infos", "").split(" "), names.get("feature_names", "").split(" ")
    if len(infos) != n_features or len(found) != n_features:
        raise ModelFileError(f"the file does not have a name and a range for each of {n_features} features")
    ranges, categories = {}, []
    for position, info in enumerate(infos):
        if match := _RANGE.fullmatch(info):
            low, high = array(_numbers(match.groups(), "feature_infos", float), "feature_infos", np.float64).tolist()
            ranges[position] = (low, high)
        elif info != "none":
            categories.append(position)
    own = {name if not re.fullmatch(r"Column_\d+", name) else "" for name in found} - {""}
    return ImportedInputs(
        n_features=n_features,
        names=tuple(found) if own else (),
        choices=_choices(categories, tail, n_features),
        ranges=ranges,
    )


def _choices(categories: Sequence[int], tail: str, n_features: int) -> dict[int, tuple[str, ...] | None]:
    """Return the words of each category, which stand in the last line of the file if they came from pandas."""
    choices: dict[int, tuple[str, ...] | None] = dict.fromkeys(categories)
    line = next((line for line in reversed(tail.splitlines()) if line.startswith("pandas_categorical:")), "")
    try:
        words = msgspec.json.decode(line.partition(":")[2] or "null", type=list[list[str | int | float | bool]] | None)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelFileError(f"pandas_categorical cannot be read: {shown(error)}") from error
    if not words:
        return choices
    if match := re.search(r"^\[categorical_feature: ([\d,]{1,100000})\]$", tail, re.MULTILINE):
        # A category of one word alone has no range, but is one.
        places = sorted(_numbers(match[1].split(","), "categorical_feature", int))
        choices = dict.fromkeys(place for place in places if 0 <= place < n_features)
    if len(words) != len(choices):
        raise ModelFileError(
            f"pandas_categorical has words for {len(words)} categories, but {len(choices)} are compared"
        )
    return {position: tuple(map(str, found)) for position, found in zip(choices, words, strict=True)}


def _numbers(texts: Sequence[str], name: str, kind: type) -> list[Any]:
    try:
        return [kind(text) for text in texts]
    except (ValueError, OverflowError) as error:
        raise ModelFileError(f"{name} does not hold numbers") from error


def _listed(members: Mapping[str, str], key: str, name: str, kind: type) -> list[Any]:
    return _numbers(members.get(key, "").split(), f"{name}: {key}", kind)


def _trees(blocks: Sequence[str], inputs: ImportedInputs, lacks: NDArray[np.bool_]) -> Iterator[Tree]:
    for number, block in enumerate(blocks):
        yield _tree(_members(block.partition("\nend of trees")[0]), f"tree {number}", inputs, lacks)


def _tree(members: Mapping[str, str], name: str, inputs: ImportedInputs, lacks: NDArray[np.bool_]) -> Tree:
    """Return one tree: first its inner nodes, then its leaves, of which leaf i is child -1 - i.

    Args:
        lacks: is set for each feature that lacked a value in training, as its nodes say.
    """
    if members.get("is_linear", "0") != "0":
        raise ModelFileError("leaves with linear models are not supported: train with linear_tree=False")
    n_leaves = _whole(members, "num_leaves")
    n_inner = n_leaves - 1
    if n_leaves < 1:
        raise ModelFileError(f"{name} has no leaf")

    def column(key: str, dtype: type, n: int) -> NDArray[Any]:
        return array(_listed(members, key, name, int if dtype is np.int64 else float), f"{name}: {key}", dtype, n)

    def both(of_inner: NDArray[Any], of_leaves: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([of_inner, of_leaves])

    value = column("leaf_value", np.float64, n_leaves)
    leaves, no_child = np.zeros(n_leaves), np.zeros(n_leaves, dtype=np.int64)
    if not n_inner:
        return Tree(np.array([LEAF]), leaves, no_child, no_child, leaves > 0, value, leaves + 1)
    feature, kinds = column("split_feature", np.int64, n_inner), column("decision_type", np.int64, n_inner)
    given = _listed(members, "threshold", name, float)
    # Where only rows without a value go right, the threshold is infinite.
    is_infinite = np.array([number == math.inf for number in given])
    threshold = array(
        [0.0 if number == math.inf else number for number in given], f"{name}: threshold", np.float64, n_inner
    )
    if np.any((feature < 0) | (feature >= inputs.n_features)):
        raise ModelFileError(f"{name}: a node compares a feature outside 0 to {inputs.n_features - 1}")
    left, right = (column(key, np.int64, n_inner) for key in ("left_child", "right_child"))
    left, right = (np.where(child < 0, n_inner - 1 - child, child) for child in (left, right))
    is_category = (kinds & _CATEGORY) != 0
    lacks[feature[(kinds >> 2) & 3 != _NONE]] = True
    counts = [column(key, np.float64, n) for key, n in (("internal_count", n_inner), ("leaf_count", n_leaves))]
    compared, missing_left = _sides(np.where(is_infinite, np.inf, threshold), kinds, name)
    set_of, sets = _sets(members, name, np.where(is_category, threshold, -1))
    return Tree(
        feature=both(feature, no_child + LEAF),
        threshold=both(compared, leaves),
        left=both(left, no_child),
        right=both(right, no_child),
        missing_left=both(missing_left, leaves > 0),
        value=both(np.zeros(n_inner), value),
        cover=both(*counts),
        set_of=both(set_of, no_child - 1),
        sets=sets,
    )


def _sides(
    threshold: NDArray[np.float64], kinds: NDArray[np.int64], name: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the threshold of each node, and whether a row without a value goes left there."""
    missing = (kinds >> 2) & 3
    is_left = (kinds & _DEFAULT_LEFT) != 0
    is_zero = (missing == _ZERO) & ((kinds & _CATEGORY) == 0)
    if np.any(missing > _NAN):
        raise ModelFileError(f"{name}: a node has an unknown decision_type")
    below_zero = np.nextafter(-_ZERO_REACH, -np.inf)
    joins = np.where(is_left, threshold >= below_zero, threshold <= _ZERO_REACH)
    if np.any(is_zero & ~joins):
        raise ModelFileError(
            "zeros that count as no value are not supported where they go another way than the numbers beside them: "
            "train with zero_as_missing=False"
        )
    zeros_side = np.where(is_left, np.maximum(threshold, _ZERO_REACH), np.minimum(threshold, below_zero))
    threshold = np.where(is_zero, zeros_side, threshold)
    # What is next to zero is taken for zero before it is compared.
    is_next = np.abs(threshold) <= _ZERO_REACH
    threshold = np.where(is_next, np.where(threshold < 0, below_zero, _ZERO_REACH), threshold)
    return threshold, np.where(missing == _NONE, threshold >= 0, is_left)


def _sets(
    members: Mapping[str, str], name: str, set_index: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the set of each node, and which cells of a category go left: those in the file's set."""
    set_of = set_index.astype(np.int64)
    if not np.any(set_of >= 0):
        return set_of, np.zeros((0, MAX_CELLS), dtype=bool)
    starts, words = (
        array(_listed(members, key, name, int), f"{name}: {key}", np.int64)
        for key in ("cat_boundaries", "cat_threshold")
    )
    if np.any(set_of >= len(starts) - 1) or np.any(np.diff(starts) < 0) or starts[0] < 0 or starts[-1] > len(words):
        raise ModelFileError(f"{name}: a set lies outside the categories")
    sets = []
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        bits = np.unpackbits(words[start:end].astype("<u4").view(np.uint8), bitorder="little")
        sets.append(cells_of(np.flatnonzero(bits), name=name))
    return set_of, np.array(sets)
