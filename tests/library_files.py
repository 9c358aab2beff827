"""Small model files of other libraries, written by hand from their documented structure, and the answers they mean.

The answers are computed from the trees as they are here, in plain Python, by the rule of each library.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NAMES = ("length (cm)", "width (cm)", "colour")
WORDS = ("blue", "green", "red", "yellow")
COLOUR = 2


@dataclass(frozen=True)
class Split:
    """A node of a tree; `codes` are the categories that go left, in place of a threshold."""

    feature: int
    threshold: float
    left: Split | float
    right: Split | float
    missing_left: bool = False
    codes: frozenset[int] | None = None


Tree = Split | float


def grown(rng: np.random.Generator, depth: int, *, has_words: bool = False) -> Tree:
    """Return a random tree."""
    if not depth or rng.random() < 0.1:
        return float(np.float32(rng.normal()))
    feature = int(rng.integers(0, COLOUR + has_words))
    codes = frozenset(np.flatnonzero(rng.random(len(WORDS)) < 0.5).tolist()) if feature == COLOUR else None
    left, right = (grown(rng, depth - 1, has_words=has_words) for _ in range(2))
    return Split(feature, float(np.float32(rng.normal())), left, right, bool(rng.random() < 0.5), codes)


def nodes_of(tree: Tree) -> list[Tree]:
    """Return all nodes, parents first."""
    nodes = [tree]
    for node in nodes:
        if isinstance(node, Split):
            nodes += [node.left, node.right]
    return nodes


def thresholds_of(trees: Sequence[Tree]) -> list[float]:
    return [node.threshold for tree in trees for node in nodes_of(tree) if isinstance(node, Split)]


def leaf_of(tree: Tree, row: Sequence[float], *, single: bool, strict: bool) -> float:
    """Return the leaf of a row: a category is its code, NaN is no value.

    Args:
        single: compare float32; else float64.
        strict: left where less than the threshold; else also where it is the threshold.
    """
    while isinstance(tree, Split):
        value = row[tree.feature]
        if math.isnan(value):
            is_left = tree.missing_left
        elif tree.codes is not None:
            is_left = int(value) in tree.codes
        else:
            compared = float(np.float32(value)) if single else value
            is_left = compared < tree.threshold if strict else compared <= tree.threshold
        tree = tree.left if is_left else tree.right
    return tree


def _places(nodes: Sequence[Tree]) -> list[tuple[int, int]]:
    counter = itertools.count(1, 2)
    return [(place := next(counter), place + 1) if isinstance(node, Split) else (-1, -1) for node in nodes]


def xgboost_tree(tree: Tree) -> dict[str, Any]:
    """Return a tree as XGBoost writes it: the codes of a set go right there."""
    nodes = nodes_of(tree)
    places = _places(nodes)
    sets = [
        (place, sorted(set(range(len(WORDS))) - node.codes))
        for place, node in enumerate(nodes)
        if isinstance(node, Split) and node.codes is not None
    ]
    sizes = [len(codes) for _, codes in sets]
    return {
        "left_children": [left for left, _ in places],
        "right_children": [right for _, right in places],
        "split_indices": [node.feature if isinstance(node, Split) else 0 for node in nodes],
        "split_conditions": [node.threshold if isinstance(node, Split) else node for node in nodes],
        "default_left": [int(isinstance(node, Split) and node.missing_left) for node in nodes],
        "split_type": [int(isinstance(node, Split) and node.codes is not None) for node in nodes],
        "sum_hessian": [float(len(nodes) - place) for place in range(len(nodes))],
        "categories": [code for _, codes in sets for code in codes],
        "categories_nodes": [place for place, _ in sets],
        "categories_segments": [sum(sizes[:number]) for number in range(len(sizes))],
        "categories_sizes": sizes,
        "tree_param": {"size_leaf_vector": "1"},
    }


def xgboost(
    trees: Sequence[Tree], *, objective: str = "reg:squarederror", base_score: str = "[5E-1]", n_classes: int = 0,
    attributes: dict[str, str] | None = None, words: bool = False, n_features: int = 2, names: bool = True,
    booster: str = "gbtree",
) -> dict[str, Any]:  # fmt: skip
    """Return a model as XGBoost writes it."""
    n_sums = max(1, n_classes)
    n_features = 3 if words else n_features
    letters = "".join(WORDS).encode()
    ends = [0, *itertools.accumulate(len(word) for word in WORDS)]
    nothing: dict[str, list[int]] = {"offsets": [], "values": []}
    enc = [nothing, nothing, {"offsets": ends, "values": list(letters)}] if words else []
    model = {
        "trees": list(map(xgboost_tree, trees)),
        "tree_info": [number % n_sums for number in range(len(trees))],
        "iteration_indptr": list(range(0, len(trees) + 1, n_sums)),
        "cats": {"enc": enc},
    }
    return {
        "learner": {
            "attributes": attributes or {},
            "feature_names": list(NAMES[:n_features]) if names else [],
            "feature_types": ["float", "float", "c"][:n_features],
            "gradient_booster": {"model": model, "name": booster},
            "learner_model_param": {
                "base_score": base_score, "num_class": str(n_classes), "num_feature": str(n_features),
                "num_target": "1",
            },
            "objective": {"name": objective},
        },
        "version": [3, 2, 0],
    }  # fmt: skip


def xgboost_sum(trees: Sequence[Tree], row: Sequence[float], start: float) -> float:
    """Return the sum of leaves in float32, from left to right."""
    total = np.float32(start)
    for tree in trees:
        total = np.float32(total + np.float32(leaf_of(tree, row, single=True, strict=True)))
    return float(total)


_MARKS = {"int8": b"i", "int32": b"l", "float32": b"d", "uint8": b"U"}
_TYPED = {
    "split_conditions": "float32", "sum_hessian": "float32", "left_children": "int32", "right_children": "int32",
    "split_indices": "int32", "default_left": "uint8", "tree_info": "int32",
}  # fmt: skip


def ubjson(value: Any, name: str = "") -> bytes:
    """Return a value in UBJSON as XGBoost writes it: numbers of a tree in typed arrays."""
    if isinstance(value, dict):
        return b"{" + b"".join(_text(key) + ubjson(member, key) for key, member in value.items()) + b"}"
    if name in _TYPED:
        kind = np.dtype(_TYPED[name])
        return (
            b"[$"
            + _MARKS[kind.name]
            + b"#L"
            + struct.pack(">q", len(value))
            + np.array(value, dtype=kind.newbyteorder(">")).tobytes()
        )
    if isinstance(value, list):
        return b"[#L" + struct.pack(">q", len(value)) + b"".join(map(ubjson, value))
    if isinstance(value, str):
        return b"S" + _text(value)
    return b"d" + struct.pack(">f", value) if isinstance(value, float) else b"l" + struct.pack(">i", value)


def _text(text: str) -> bytes:
    return b"L" + struct.pack(">q", len(text.encode())) + text.encode()


NONE, ZERO, NAN = 0, 1, 2


def lightgbm(
    trees: Sequence[Tree], *, objective: str = "regression", n_sums: int = 1, missing: int = NAN, words: bool = False,
    averages: bool = False, more: str = "",
) -> str:  # fmt: skip
    """Return a model as LightGBM writes it; `missing` is what counts as no value at each node."""
    n_features = 3 if words else 2
    head = [
        "tree", "version=v4", f"num_tree_per_iteration={n_sums}", f"max_feature_idx={n_features - 1}",
        f"objective={objective}", *["average_output"] * averages,
        "feature_names=" + " ".join(name.replace(" ", "_") for name in NAMES[:n_features]),
        "feature_infos=" + " ".join(["[-3:3.5]", "[-2:2]", "-1:0:1:2:3"][:n_features]), "",
    ]  # fmt: skip
    blocks = [f"Tree={number}\n" + _lightgbm_tree(tree, missing) + more for number, tree in enumerate(trees)]
    tail = ["end of trees", "", "parameters:", *["[categorical_feature: 2]"] * words, "end of parameters", ""]
    words_line = f"pandas_categorical:{json.dumps([list(WORDS)] if words else [])}\n"
    return "\n".join([*head, *blocks, *tail]) + words_line


def _lightgbm_tree(tree: Tree, missing: int) -> str:
    nodes = nodes_of(tree)
    inner = [node for node in nodes if isinstance(node, Split)]
    leaves = [node for node in nodes if not isinstance(node, Split)]
    number: Iterator[int] = itertools.count()
    places = {}
    n_leaf = itertools.count()
    for place, node in enumerate(nodes):
        places[place] = next(number) if isinstance(node, Split) else -1 - next(n_leaf)
    children = [pair for pair, node in zip(_places(nodes), nodes, strict=True) if isinstance(node, Split)]
    sets = [node.codes for node in inner if node.codes is not None]
    kinds, thresholds, n_sets = [], [], itertools.count()
    for node in inner:
        kinds.append(1 if node.codes is not None else 2 * node.missing_left + 4 * missing)
        thresholds.append(str(next(n_sets)) if node.codes is not None else repr(node.threshold))
    lines = {
        "num_leaves": len(leaves), "num_cat": len(sets), "split_feature": _joined(node.feature for node in inner),
        "threshold": " ".join(thresholds), "decision_type": _joined(kinds),
        "left_child": _joined(places[left] for left, _ in children),
        "right_child": _joined(places[right] for _, right in children),
        "leaf_value": " ".join(map(repr, leaves)), "leaf_count": _joined([7] * len(leaves)),
        "internal_count": _joined([20] * len(inner)), "cat_boundaries": _joined(range(len(sets) + 1)),
        "cat_threshold": _joined(sum(1 << code for code in codes) for codes in sets), "is_linear": 0, "shrinkage": 1,
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _joined(numbers: Any) -> str:
    return " ".join(map(str, numbers))


@dataclass(frozen=True)
class Oblivious:
    """A tree of CatBoost: the leaf of a row is the number whose bits say which borders its values are above of."""

    splits: tuple[tuple[int, float], ...]
    leaves: tuple[float, ...]

    def leaf(self, row: Sequence[float], *, nan_is_above: bool = False) -> float:
        above = [
            nan_is_above if math.isnan(row[feature]) else float(np.float32(row[feature])) > border
            for feature, border in self.splits
        ]
        return self.leaves[sum(is_above << bit for bit, is_above in enumerate(above))]


def grown_oblivious(rng: np.random.Generator, depth: int) -> Oblivious:
    splits = tuple((int(rng.integers(0, 2)), float(np.float32(rng.normal()))) for _ in range(depth))
    return Oblivious(splits, tuple(rng.normal(size=2**depth).tolist()))


def catboost(
    trees: Sequence[Oblivious], *, loss: str = "RMSE", bias: float = 0.25, labels: Sequence[Any] = (),
    nan_treatment: str = "AsFalse", categories: Sequence[Any] = (),
) -> dict[str, Any]:  # fmt: skip
    """Return a model as CatBoost writes it."""
    features = [
        {
            "borders": [], "feature_id": name, "feature_index": place, "flat_feature_index": place, "has_nans": True,
            "nan_value_treatment": nan_treatment,
        }
        for place, name in enumerate(NAMES[:2])
    ]  # fmt: skip
    return {
        "features_info": {"float_features": features, "categorical_features": list(categories)},
        "model_info": {
            "params": json.dumps({"loss_function": {"type": loss, "params": {}}}),
            "class_params": {"class_names": list(labels)},
            "catboost_version_info": "Summary: CatBoost release 1.2.10. commit",
        },
        "oblivious_trees": [
            {
                "leaf_values": list(tree.leaves),
                "leaf_weights": [float(place) for place in range(len(tree.leaves))],
                "splits": [
                    {"border": border, "float_feature_index": feature, "split_index": 0, "split_type": "FloatFeature"}
                    for feature, border in tree.splits
                ],
            }
            for tree in trees
        ],
        "scale_and_bias": [1, [bias]],
    }


class Skops:
    """Writes an object of scikit-learn as skops does."""

    def __init__(self) -> None:
        self._members: dict[str, bytes] = {}
        self._number = itertools.count(1)

    def node(self, value: Any) -> dict[str, Any]:
        identity = next(self._number)
        if isinstance(value, np.ndarray):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, value, version=(1, 0), allow_pickle=False)
            self._members[f"{identity}.npy"] = buffer.getvalue()
            more = {"type": "numpy", "file": f"{identity}.npy"}
            return {"__class__": "ndarray", "__loader__": "NdArrayNode", "__id__": identity, **more}
        if isinstance(value, list):
            content: Any = [self.node(item) for item in value]
            return {"__class__": "list", "__loader__": "ListNode", "__id__": identity, "content": content}
        if isinstance(value, dict):
            content = {name: self.node(member) for name, member in value.items()}
            return {"__class__": "dict", "__loader__": "DictNode", "__id__": identity, "content": content}
        content = json.dumps(value)
        return {"__class__": "str", "__loader__": "JsonNode", "__id__": identity, "content": content}

    def object(self, kind: str, state: dict[str, Any], loader: str = "ObjectNode") -> dict[str, Any]:
        return {"__class__": kind, "__loader__": loader, "__id__": next(self._number), "content": state}

    def state(self, **members: Any) -> dict[str, Any]:
        content = {
            name: m if isinstance(m, dict) and "__loader__" in m else self.node(m) for name, m in members.items()
        }
        return {"__class__": "dict", "__loader__": "DictNode", "__id__": next(self._number), "content": content}

    def file(self, root: dict[str, Any], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as opened:
            for name, content in self._members.items():
                opened.writestr(name, content)
            opened.writestr("schema.json", json.dumps({**root, "protocol": 2}))
        return buffer.getvalue()


SKLEARN_NODE = np.dtype(
    [
        ("left_child", "<i8"), ("right_child", "<i8"), ("feature", "<i8"), ("threshold", "<f8"), ("impurity", "<f8"),
        ("n_node_samples", "<i8"), ("weighted_n_node_samples", "<f8"), ("missing_go_to_left", "u1"),
    ]
)  # fmt: skip


def skops_regressor(trees: Sequence[Tree]) -> bytes:
    """Return a RandomForestRegressor as skops writes it."""
    skops = Skops()
    members = []
    for tree in trees:
        nodes, order = [], list(_depth_first(tree))
        for node, left, right in order:
            split = node if isinstance(node, Split) else Split(-2, -2.0, 0.0, 0.0)
            nodes.append((left, right, split.feature, split.threshold, 0.0, 5, 5.0, split.missing_left))
        values = np.array([[[node if not isinstance(node, Split) else 0.0]] for node, _, _ in order])
        state = skops.state(nodes=np.array(nodes, dtype=SKLEARN_NODE), values=values, node_count=len(nodes))
        fitted = skops.object("Tree", state, "TreeNode")
        members.append(skops.object("DecisionTreeRegressor", skops.state(tree_=fitted, n_outputs_=1)))
    listed = {"__class__": "list", "__loader__": "ListNode", "__id__": 0, "content": members}
    names = [skops.node(name) for name in NAMES[:2]]
    shape = skops.node([2])
    named = {"__class__": "ndarray", "__loader__": "NdArrayNode", "type": "json", "content": names, "shape": shape}
    state = skops.state(
        estimators_=listed, n_features_in_=2, n_outputs_=1, feature_names_in_=named, _sklearn_version="1.9.1"
    )
    return skops.file(skops.object("RandomForestRegressor", state))


def _depth_first(tree: Tree) -> Iterator[tuple[Tree, int, int]]:
    """Yield nodes in scikit-learn's order with the places of their children."""
    found: list[list[Any]] = []

    def add(node: Tree) -> int:
        place = len(found)
        found.append([node, -1, -1])
        if isinstance(node, Split):
            found[place][1:] = add(node.left), add(node.right)
        return place

    add(tree)
    yield from (tuple(one) for one in found)
