"""The trees in XGBoost's model files: arrays of nodes, a leaf's value in the place of its condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, shown
from ml.importing.imported import ImportedInputs, Tree, array, cells_of
from ml.model.forest import FIRST_CHOICE_CELL, LEAF, MAX_CELLS


class _Tree(msgspec.Struct):
    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]
    default_left: list[int | bool]
    sum_hessian: list[float]
    split_type: list[int] = []
    categories: list[int] = []
    categories_nodes: list[int] = []
    categories_segments: list[int] = []
    categories_sizes: list[int] = []
    tree_param: dict[str, str] = {}


def trees_of(trees: Sequence[msgspec.Raw]) -> Iterator[dict[str, Any]]:
    """Yield the arrays of each tree of a JSON file by their names."""
    decoder = msgspec.json.Decoder(_Tree)
    for number, tree in enumerate(trees):
        try:
            yield msgspec.structs.asdict(decoder.decode(tree))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ModelFileError(f"tree {number} cannot be read: {shown(error)}") from error


def tree_of(given: dict[str, Any], number: int, inputs: ImportedInputs) -> Tree:
    """Return one tree, checked as far as its arrays go."""
    name = f"tree {number}"
    param = given.get("tree_param", {})
    if isinstance(param, dict) and param.get("size_leaf_vector", "1") not in ("0", "1"):
        raise ModelFileError("trees of several outputs are not supported: train with one_output_per_tree")
    left = array(given.get("left_children"), f"{name}: left_children", np.int64)
    n = len(left)
    if not n:
        raise ModelFileError(f"{name} has no nodes")

    def column(key: str, dtype: type) -> NDArray[Any]:
        return array(given.get(key), f"{name}: {key}", dtype, n)

    right, index = column("right_children", np.int64), column("split_indices", np.int64)
    with np.errstate(over="ignore"):
        # What is too large becomes infinite, and is refused as a leaf.
        condition = column("split_conditions", np.float64).astype(np.float32)
    default_left = column("default_left", np.int64) != 0
    inner = left >= 0
    if np.any(inner & ((index < 0) | (index >= inputs.n_features))):
        raise ModelFileError(f"{name}: a node compares a feature outside 0 to {inputs.n_features - 1}")
    set_of, sets = _sets(given, name, inner, default_left)
    # The largest float32 that is less than the condition; where there is none, every value goes right.
    with np.errstate(over="ignore"):
        threshold = np.nextafter(condition, np.float32(-np.inf)).astype(np.float64)
    is_swapped = inner & np.isneginf(threshold) & (set_of < 0)
    left, right = np.where(is_swapped, right, left), np.where(is_swapped, left, right)
    return Tree(
        feature=np.where(inner, index, LEAF),
        threshold=np.where(np.isneginf(threshold), np.inf, threshold),
        left=left,
        right=right,
        missing_left=default_left ^ is_swapped,
        value=condition.astype(np.float64),
        cover=np.maximum(column("sum_hessian", np.float64), 0.0),
        set_of=set_of,
        sets=sets,
    )


def _sets(
    given: dict[str, Any], name: str, inner: NDArray[np.bool_], default_left: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the set of each node, and which cells of a category go left: those not in the file's set."""
    set_of = np.full(len(inner), -1)
    nodes = array(given.get("categories_nodes", []), f"{name}: categories_nodes", np.int64)
    types = array(given.get("split_type", []), f"{name}: split_type", np.int64)
    is_category = types == 1 if len(types) == len(inner) else np.zeros(len(inner), dtype=bool)
    if not np.array_equal(np.flatnonzero(is_category & inner), np.sort(nodes)):
        raise ModelFileError(f"{name}: the nodes that compare categories do not have one set each")
    starts = array(given.get("categories_segments", []), f"{name}: categories_segments", np.int64, len(nodes))
    sizes = array(given.get("categories_sizes", []), f"{name}: categories_sizes", np.int64, len(nodes))
    codes = array(given.get("categories", []), f"{name}: categories", np.int64)
    if np.any((starts < 0) | (sizes < 0) | (starts + sizes > len(codes))):
        raise ModelFileError(f"{name}: a set lies outside the categories")
    sets = np.zeros((len(nodes), MAX_CELLS), dtype=bool)
    for place, (node, start, size) in enumerate(zip(nodes.tolist(), starts.tolist(), sizes.tolist(), strict=True)):
        sets[place] = ~cells_of(codes[start : start + size], name=name)
        sets[place, :FIRST_CHOICE_CELL] = default_left[node]
        set_of[node] = place
    return set_of, sets
