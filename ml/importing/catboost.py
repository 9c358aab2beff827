"""CatBoost's model files in JSON, as data: oblivious trees and others, of features that are numbers.

A row goes left where float32(value) <= border. Leaves are summed as float64, and the bias comes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, shown
from ml.importing.imported import Imported, ImportedInputs, Progress, Tree, array, forest_of, no_json, read_trees
from ml.model.card import MAX_FEATURES
from ml.model.forest import LEAF
from ml.model.total import LabelBy, Link, Total

LOSSES: dict[str, tuple[Link, LabelBy]] = {
    "RMSE": ("identity", "answers"), "MAE": ("identity", "answers"), "Quantile": ("identity", "answers"),
    "Huber": ("identity", "answers"), "MAPE": ("identity", "answers"), "LogCosh": ("identity", "answers"),
    "Lq": ("identity", "answers"), "Expectile": ("identity", "answers"),
    "Poisson": ("exp", "answers"), "Tweedie": ("exp", "answers"), "Logloss": ("expit", "positive"),
    "CrossEntropy": ("expit", "positive"), "MultiClass": ("softmax_sequential", "sums"),
}  # fmt: skip
"""The link of each loss function, and what its label is decided by."""
MAX_LEVELS = 16
_CATEGORIES = "CatBoost's categories are not supported: encode them as numbers before training"


class _FloatFeature(msgspec.Struct):
    feature_index: int
    flat_feature_index: int
    feature_id: str = ""
    has_nans: bool = False
    nan_value_treatment: str = "AsIs"


class _Features(msgspec.Struct):
    float_features: list[_FloatFeature] = []
    categorical_features: list[msgspec.Raw] = []
    text_features: list[msgspec.Raw] = []
    embedding_features: list[msgspec.Raw] = []


class _Classes(msgspec.Struct):
    class_names: list[str | int | float | bool] = []


class _Loss(msgspec.Struct):
    type: str


class _Params(msgspec.Struct):
    loss_function: _Loss


class _Info(msgspec.Struct):
    params: str | _Params
    class_params: _Classes = msgspec.field(default_factory=_Classes)
    catboost_version_info: str = ""
    binclass_probability_threshold: str = ""


class _File(msgspec.Struct):
    features_info: _Features
    model_info: _Info
    scale_and_bias: tuple[float, float | list[float]] = (1.0, 0.0)
    oblivious_trees: list[msgspec.Raw] = []
    trees: list[msgspec.Raw] = []


class _Split(msgspec.Struct):
    split_type: str
    border: float = 0.0
    float_feature_index: int = -1


class _Oblivious(msgspec.Struct):
    leaf_values: list[float]
    leaf_weights: list[float] = []
    splits: list[_Split] | None = None


class _Node(msgspec.Struct):
    left: _Node | None = None
    right: _Node | None = None
    split: _Split | None = None
    value: float | list[float] = 0.0
    weight: float = 0.0


def read(content: bytes, progress: Progress) -> Imported:
    """Return the model in a JSON file.

    Raises:
        ModelFileError: one sentence that names what is wrong or not supported.
    """
    try:
        file = msgspec.json.decode(content, type=_File)
        params = file.model_info.params
        if isinstance(params, str):
            params = msgspec.json.decode(params, type=_Params)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise no_json(content, error, "CatBoost") from error
    loss = params.loss_function.type
    if loss not in LOSSES:
        raise ModelFileError(f"CatBoost's loss {shown(loss)} is not supported; these are: {', '.join(LOSSES)}")
    inputs = _inputs(file.features_info)
    scale, biases = file.scale_and_bias
    biases = biases if isinstance(biases, list) else [biases]
    if scale != 1 or not biases:
        raise ModelFileError(f"a scale of {scale:g} is not supported: save the model before set_scale_and_bias")
    if (threshold := file.model_info.binclass_probability_threshold) not in ("", "0.5"):
        raise ModelFileError(
            f"CatBoost's threshold of {shown(threshold)} is not supported: save the model after "
            "set_probability_threshold(None)"
        )
    link, label_by = LOSSES[loss]
    labels = tuple(map(str, file.model_info.class_params.class_names))
    n_sums = len(biases)
    n_classes = {"expit": 2, "softmax_sequential": n_sums}.get(link, 0)
    if (link == "softmax_sequential") != (n_sums > 1) or len(labels) not in (0, n_classes):
        raise ModelFileError(f"{n_sums} sums and {len(labels)} classes do not fit the loss {loss}")
    given = file.oblivious_trees or file.trees
    trees = read_trees(_trees(file, inputs, n_sums), len(given), progress)
    if any(biases):
        # CatBoost adds the bias at the end: a tree of one leaf does.
        trees += (_leaf(biases),)
    forest = forest_of(
        trees,
        n_features=inputs.n_features,
        output_of=None,
        init=[0.0] * n_sums,
        total=Total(link=link, label_by=label_by),
        is_quantity=not n_classes,
    )
    release = re.search(r"CatBoost release ([0-9.]*[0-9])", file.model_info.catboost_version_info)
    return Imported(
        forest=forest,
        n_classes=n_classes,
        inputs=inputs,
        library=("catboost", release[1] if release else ""),
        estimator=f"CatBoost, {loss}",
        labels=labels if n_classes else (),
    )


def _inputs(info: _Features) -> ImportedInputs:
    if info.categorical_features:
        raise ModelFileError(_CATEGORIES)
    if info.text_features or info.embedding_features:
        raise ModelFileError("CatBoost's text and embedding features are not supported")
    features = info.float_features
    if not 1 <= len(features) <= MAX_FEATURES:
        raise ModelFileError(f"the model has {len(features)} features; 1 to {MAX_FEATURES} are read")
    if any(not position == one.feature_index == one.flat_feature_index for position, one in enumerate(features)):
        raise ModelFileError("the features do not have the places 0, 1, 2 and so on")
    names = tuple(one.feature_id for one in features)
    is_named = any(name not in ("", str(position)) for position, name in enumerate(names))
    return ImportedInputs(
        n_features=len(features),
        names=names if is_named else (),
        has_gaps=tuple(one.has_nans for one in features),
        is_above=tuple(one.nan_value_treatment == "AsTrue" for one in features),
    )


def _trees(file: _File, inputs: ImportedInputs, n_sums: int) -> Iterator[Tree]:
    read: Any = _oblivious if file.oblivious_trees else _nested
    decoder = msgspec.json.Decoder(_Oblivious if file.oblivious_trees else _Node)
    for number, raw in enumerate(file.oblivious_trees or file.trees):
        try:
            tree = decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ModelFileError(f"tree {number} cannot be read: {shown(error)}") from error
        yield read(tree, f"tree {number}", inputs, n_sums)


def _compared(
    splits: Sequence[_Split], name: str, inputs: ImportedInputs
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the feature and the border of each split, and whether no value goes left there."""
    if any(split.split_type != "FloatFeature" for split in splits):
        raise ModelFileError(_CATEGORIES)
    feature = array([split.float_feature_index for split in splits], f"{name}: float_feature_index", np.int64)
    border = array([split.border for split in splits], f"{name}: border", np.float64)
    if np.any((feature < 0) | (feature >= inputs.n_features)):
        raise ModelFileError(f"{name}: a split compares a feature outside 0 to {inputs.n_features - 1}")
    with np.errstate(over="ignore"):
        border = border.astype(np.float32).astype(np.float64)
    if not np.all(np.isfinite(border)):
        raise ModelFileError(f"{name}: a border is too large for a float32")
    return feature, border, ~np.array(inputs.is_above)[feature]


def _oblivious(tree: _Oblivious, name: str, inputs: ImportedInputs, n_sums: int) -> Tree:
    """Return a tree: level by level all nodes ask the same, the last split first.

    The leaf of a row is the number whose bits say which splits it is above of, the first split the lowest.
    """
    splits = (tree.splits or [])[::-1]
    if len(splits) > MAX_LEVELS:
        raise ModelFileError(f"{name} has {len(splits)} splits; at most {MAX_LEVELS} are read")
    n_leaves = 2 ** len(splits)
    values = array(tree.leaf_values, f"{name}: leaf_values", np.float64, n_leaves * n_sums).reshape(n_leaves, n_sums)
    weights = array(tree.leaf_weights or [1.0] * n_leaves, f"{name}: leaf_weights", np.float64, n_leaves)
    feature, border, missing_left = (
        np.repeat(column, 2 ** np.arange(len(splits))) for column in _compared(splits, name, inputs)
    )
    places, leaves = np.arange(2 * n_leaves - 1), np.zeros(n_leaves)
    covers = [np.maximum(weights, 0.0)]
    while len(covers[0]) > 1:
        covers.insert(0, covers[0].reshape(-1, 2).sum(axis=1))
    return Tree(
        feature=np.concatenate([feature, np.full(n_leaves, LEAF)]),
        threshold=np.concatenate([border, leaves]),
        left=2 * places + 1,
        right=2 * places + 2,
        missing_left=np.concatenate([missing_left, leaves > 0]),
        value=np.concatenate([np.zeros((n_leaves - 1, n_sums)), values]),
        cover=np.concatenate(covers),
    )


def _nested(root: _Node, name: str, inputs: ImportedInputs, n_sums: int) -> Tree:
    """Return a tree out of nodes that hold their children."""
    nodes, left, right, splits = [root], list[int](), list[int](), list[_Split]()
    for node in nodes:  # it grows
        is_leaf = node.split is None
        if is_leaf is not (node.left is None) or is_leaf is not (node.right is None):
            raise ModelFileError(f"{name}: a node does not have a split and two children, or none of these")
        left.append(len(nodes))
        right.append(len(nodes) + 1)
        if node.split is not None and node.left is not None and node.right is not None:
            nodes += [node.left, node.right]
            splits.append(node.split)
    inner = np.array([node.split is not None for node in nodes])
    feature, threshold, missing_left = np.full(len(nodes), LEAF), np.zeros(len(nodes)), np.zeros(len(nodes), dtype=bool)
    feature[inner], threshold[inner], missing_left[inner] = _compared(splits, name, inputs)
    given = [node.value if isinstance(node.value, list) else [node.value] for node in nodes]
    if any(len(values) != n_sums for values, is_inner in zip(given, inner, strict=True) if not is_inner):
        raise ModelFileError(f"{name}: a leaf does not have {n_sums} values")
    covers = np.array([node.weight for node in nodes])
    for place in reversed(range(len(nodes))):
        if inner[place]:
            covers[place] = covers[left[place]] + covers[right[place]]
    nothing = [0.0] * n_sums
    values = [nothing if is_inner else one for one, is_inner in zip(given, inner, strict=True)]
    flat = array([number for one in values for number in one], f"{name}: value", np.float64)
    return Tree(
        feature=feature,
        threshold=threshold,
        left=np.array(left),
        right=np.array(right),
        missing_left=missing_left,
        value=flat.reshape(-1, n_sums),
        cover=np.maximum(array(covers, f"{name}: weight", np.float64), 0.0),
    )


def _leaf(values: Sequence[float]) -> Tree:
    none, zeros = np.zeros(1, dtype=np.int64), np.zeros(1)
    biases = array(values, "bias", np.float64)[None]
    return Tree(none + LEAF, zeros, none, none, zeros > 0, biases, zeros + 1)
