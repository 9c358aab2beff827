"""Model files of other libraries are read as data, and answer as their library's own rule says."""

from __future__ import annotations

import contextlib
import io
import json
import math
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.errors import MLError, ModelFileError
from ml.estimators.saved import model_in
from ml.importing import ubjson
from ml.importing.imported import Imported
from ml.model.cuts import Cuts
from ml.model.evaluators import compile_forest
from ml.tables.dataset import Feature
from ml.training.importing import ImportedModel
from tests import library_files as files
from tests.conftest import for_each
from tests.library_files import COLOUR, WORDS, Oblivious, Split, Tree

TREES = 12
FUZZED = 150
# A damaged file of a few kilobytes is refused in this time and memory.
FUZZ_S = 20.0
FUZZ_BYTES = 64 * 2**20


def read(content: bytes | str | dict[str, Any]) -> Imported:
    if isinstance(content, dict):
        content = json.dumps(content, separators=(",", ":"))
    return model_in(content.encode() if isinstance(content, str) else content)


def features_of(imported: Imported) -> list[Feature]:
    return [
        Feature(key=f"x{place}", title="", has_gaps=True, choices=imported.inputs.choices.get(place) or ())
        for place in range(imported.inputs.n_features)
    ]


def answers(imported: Imported, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    model = ImportedModel(imported, features_of(imported))
    return model.predict_proba(rows) if imported.n_classes else model.predict(rows)[:, None]


def trees_of(seed: int, *, words: bool = False, n: int = TREES) -> list[Tree]:
    rng = np.random.default_rng(seed)
    # The first two are a tree of one leaf, and one that asks.
    first: list[Tree] = [0.5, Split(0, 0.25, -1.0, 2.0, missing_left=True)]
    return first + [files.grown(rng, 5, has_words=words) for _ in range(n - 2)]


def rows_of(thresholds: Sequence[float], *, words: bool = False, gaps: bool = True) -> NDArray[np.float64]:
    """Return rows: on the thresholds, a step beside them in both types, and without values."""
    rng = np.random.default_rng(1)
    values = np.array([*thresholds, -3.0, 0.0, 3.0])
    single = values.astype(np.float32)
    beside = [np.nextafter(values, side) for side in (-np.inf, np.inf)]
    beside += [np.nextafter(single, np.float32(side)).astype(float) for side in (-np.inf, np.inf)]
    pool = np.concatenate([values, *beside])
    rows = rng.choice(pool, (400, 2 + words))
    if words:
        rows[:, COLOUR] = rng.integers(0, len(WORDS), len(rows))
    if gaps:
        rows[rng.random(rows.shape) < 0.15] = np.nan
    return rows


@pytest.mark.parametrize("words", [False, True], ids=["numbers", "words"])
@pytest.mark.parametrize("is_binary", [False, True], ids=["json", "ubjson"])
def test_xgboost_adds_float32_and_goes_left_below_the_condition(words: bool, is_binary: bool) -> None:
    trees = trees_of(2, words=words)
    rows = rows_of(files.thresholds_of(trees), words=words)
    model = files.xgboost(trees, words=words)

    imported = read(files.ubjson(model) if is_binary else model)

    expected = [files.xgboost_sum(trees, row, 0.5) for row in rows.tolist()]
    assert answers(imported, rows)[:, 0].tolist() == expected
    assert imported.inputs.names == files.NAMES[: 2 + words]
    assert dict(imported.inputs.choices) == ({COLOUR: WORDS} if words else {})
    assert imported.library == ("xgboost", "3.2.0")


def test_a_word_that_xgboost_does_not_know_goes_as_no_value() -> None:
    tree = Split(COLOUR, 0.0, 1.0, 2.0, missing_left=True, codes=frozenset({0}))
    imported = read(files.xgboost([tree], words=True, base_score="0"))

    # No value, an unknown word, blue, green.
    rows = np.array([[0, 0, np.nan], [0, 0, -1], [0, 0, 0], [0, 0, 1]])

    assert answers(imported, rows)[:, 0].tolist() == [1, 1, 1, 2]


def test_a_condition_below_all_numbers_sends_all_of_them_right() -> None:
    lowest = float(np.finfo(np.float32).min)
    imported = read(files.xgboost([Split(0, lowest, 1.0, 2.0, missing_left=True)], base_score="0"))

    assert answers(imported, np.array([[lowest, 0], [0, 0], [np.nan, 0]]))[:, 0].tolist() == [2, 2, 1]


@pytest.mark.parametrize("base_score", ["2.5E-1", "[2.5E-1]"])
def test_xgboost_starts_at_the_log_odds_of_its_base_score(base_score: str) -> None:
    trees = trees_of(3)
    rows = rows_of(files.thresholds_of(trees))

    imported = read(files.xgboost(trees, objective="binary:logistic", base_score=base_score))

    start = float(np.float32(-math.log(3)))
    assert imported.forest.starts().tolist() == [start]
    sums = np.array([files.xgboost_sum(trees, row, start) for row in rows.tolist()])
    assert np.allclose(answers(imported, rows)[:, 1], 1 / (1 + np.exp(-sums)), rtol=1e-6)


def test_xgboost_adds_the_trees_of_several_classes_in_turns() -> None:
    trees = trees_of(4)
    rows = rows_of(files.thresholds_of(trees))
    starts = [0.5, -0.25, 0.0]

    imported = read(files.xgboost(trees, objective="multi:softprob", n_classes=3, base_score="[5E-1,-2.5E-1,0]"))

    sums = np.array([[files.xgboost_sum(trees[one::3], row, starts[one]) for one in range(3)] for row in rows.tolist()])
    powers = np.exp(sums)
    assert np.allclose(answers(imported, rows), powers / powers.sum(axis=1, keepdims=True), rtol=1e-6)


def test_trees_after_the_best_iteration_count_only_where_xgboost_counts_them() -> None:
    trees = trees_of(5)
    row = [0.1, -0.2]
    early = {"best_iteration": "3"}

    from_booster = read(files.xgboost(trees, attributes=early))
    from_classifier = read(files.xgboost(trees, attributes={**early, "scikit_learn": "{}"}))

    assert from_booster.forest.n_trees == TREES
    assert from_classifier.forest.n_trees == 4
    assert from_classifier.said == ("4 of 12 trees count, up to the best iteration, as XGBoost's predict has it",)
    assert answers(from_classifier, np.array([row]))[0, 0] == files.xgboost_sum(trees[:4], row, 0.5)


@pytest.mark.parametrize("words", [False, True], ids=["numbers", "words"])
@pytest.mark.parametrize("missing", [files.NONE, files.NAN])
def test_lightgbm_compares_float64_and_takes_no_value_as_each_node_says(words: bool, missing: int) -> None:
    trees = trees_of(6, words=words)
    rows = rows_of(files.thresholds_of(trees), words=words)
    # Nothing is no value there: it is 0.
    asked = np.where(np.isnan(rows[:, :2]), 0.0, rows[:, :2]) if missing == files.NONE else rows[:, :2]
    asked = np.column_stack([asked, rows[:, 2:]])

    imported = read(files.lightgbm(trees, missing=missing, words=words))

    # A category without a value goes right, whatever the node says.
    expected = [sum_of(trees, row) for row in asked.tolist()]
    assert answers(imported, rows)[:, 0].tolist() == expected
    assert imported.inputs.has_gaps is not None
    assert imported.inputs.has_gaps[:2] == ((missing == files.NAN,) * 2)
    assert imported.inputs.ranges == {0: (-3.0, 3.5), 1: (-2.0, 2.0)}
    assert dict(imported.inputs.choices) == ({COLOUR: WORDS} if words else {})


def without_side(tree: Tree) -> Tree:
    """Return a tree whose nodes of categories send no value right."""
    if not isinstance(tree, Split):
        return tree
    left, right = without_side(tree.left), without_side(tree.right)
    return Split(tree.feature, tree.threshold, left, right, tree.missing_left and tree.codes is None, tree.codes)


def sum_of(trees: Sequence[Tree], row: Sequence[float], *, single: bool = False) -> float:
    total = 0.0
    for tree in trees:
        total += files.leaf_of(without_side(tree), row, single=single, strict=False)
    return total


@pytest.mark.parametrize(("threshold", "missing_left"), [(1e-36, True), (-1e-36, False), (2.0, True), (-2.0, False)])
def test_zero_counts_as_no_value_where_lightgbm_says_so(threshold: float, missing_left: bool) -> None:
    tree = Split(0, threshold, 1.0, 2.0, missing_left=missing_left)
    imported = read(files.lightgbm([tree], missing=files.ZERO))

    around = [-2.5, -1.0, -1e-30, -1e-36, 0.0, 1e-36, 1e-30, 1.0, 2.5, math.nan]

    found = answers(imported, np.array([[value, 0.0] for value in around]))[:, 0].tolist()
    is_zero = [math.isnan(value) or abs(value) <= 1e-35 for value in around]
    expected = [missing_left if is_none else value <= threshold for value, is_none in zip(around, is_zero, strict=True)]
    assert found == [1.0 if is_left else 2.0 for is_left in expected]


def test_the_mean_of_trees_counts_where_lightgbm_averages() -> None:
    trees = trees_of(7)
    rows = rows_of(files.thresholds_of(trees))

    imported = read(files.lightgbm(trees, averages=True))

    assert answers(imported, rows)[:, 0].tolist() == [sum_of(trees, row) / TREES for row in rows.tolist()]


def test_lightgbm_gives_probabilities_of_several_classes() -> None:
    trees = trees_of(8)
    rows = rows_of(files.thresholds_of(trees))

    imported = read(files.lightgbm(trees, objective="multiclass num_class:3", n_sums=3))

    powers = np.exp([[sum_of(trees[one::3], row) for one in range(3)] for row in rows.tolist()])
    assert np.allclose(answers(imported, rows), powers / powers.sum(axis=1, keepdims=True), rtol=1e-14)


@pytest.mark.parametrize("treatment", ["AsFalse", "AsTrue"])
def test_catboost_numbers_leaves_by_the_borders_that_values_are_above_of(treatment: str) -> None:
    rng = np.random.default_rng(9)
    trees = [files.grown_oblivious(rng, depth) for depth in (0, 1, 2, 3, 4)]
    rows = rows_of([border for tree in trees for _, border in tree.splits])

    imported = read(files.catboost(trees, nan_treatment=treatment, bias=0.1))

    expected = []
    for row in rows.tolist():
        total = 0.0
        for tree in trees:
            total += tree.leaf(row, nan_is_above=treatment == "AsTrue")
        expected.append(total + 0.1)
    assert answers(imported, rows)[:, 0].tolist() == expected
    assert imported.library == ("catboost", "1.2.10")


@pytest.mark.parametrize("treatment", ["AsFalse", "AsTrue"])
@pytest.mark.parametrize("is_alike", [True, False])
def test_one_row_of_trees_of_any_depth_has_the_bits_of_many_whether_nodes_of_a_level_are_alike_or_not(
    treatment: str, is_alike: bool
) -> None:
    rng = np.random.default_rng(12)
    trees = [files.grown_oblivious(rng, depth) for depth in (3, 0, 5, 1, 2, 6)]
    imported = read(files.catboost(trees, nan_treatment=treatment))
    forest = imported.forest
    if not is_alike:
        # The last node that is no leaf asks something else than its neighbours.
        forest.threshold[np.flatnonzero(forest.feature >= 0)[-1]] += 0.5
    cuts = Cuts(forest, features_of(imported))
    compiled, plain = (
        compile_forest(forest, cuts, labels=[], max_cells=0, compiles=compiles) for compiles in (True, False)
    )

    rows = rows_of(forest.threshold.tolist())
    expected = plain.predict_batch(rows.astype(forest.dtype)).values.tolist()

    assert [compiled.predict(row).value for row in rows.tolist()] == expected


def test_catboost_brings_the_names_of_its_classes_and_says_the_second_above_zero() -> None:
    tree = Oblivious(((0, 0.0),), (0.0, 1e-300))
    imported = read(files.catboost([tree], loss="Logloss", bias=0.0, labels=["no", "yes"]))

    model = ImportedModel(imported, features_of(imported))

    assert imported.labels == ("no", "yes")
    # Both have the probability 0.5.
    assert model.predict(np.array([[-1.0, 0.0], [1.0, 0.0]])).tolist() == [0, 1]


def test_a_forest_in_a_skops_file_answers_as_scikit_learn_adds() -> None:
    trees = trees_of(10)
    rows = rows_of(files.thresholds_of(trees))

    imported = read(files.skops_regressor(trees))

    expected = [sum_of(trees, row, single=True) / TREES for row in rows.tolist()]
    assert answers(imported, rows)[:, 0].tolist() == expected
    assert imported.inputs.names == files.NAMES[:2]
    assert imported.library == ("scikit-learn", "1.9.1")
    assert imported.estimator == "RandomForestRegressor"


ONE = Split(0, 0.5, 1.0, 2.0)


def damaged(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return a file of XGBoost with a changed tree."""
    model = files.xgboost([ONE])
    change(model["learner"]["gradient_booster"]["model"]["trees"][0])
    return model


def changed_learner(**changes: Any) -> dict[str, Any]:
    model = files.xgboost([ONE])
    model["learner"] |= changes
    return model


SCALED = {**files.catboost([Oblivious((), (1.0,))]), "scale_and_bias": [2, [0.0]]}
LOGLOSS = files.catboost([Oblivious((), (1.0,))], loss="Logloss")
DECIDED = {**LOGLOSS, "model_info": {**LOGLOSS["model_info"], "binclass_probability_threshold": "0.3"}}


@for_each(
    ("content", "sentence"),
    [
        (files.xgboost([ONE], booster="gblinear"), "booster gblinear is not supported: train with booster='gbtree'"),
        (files.xgboost([ONE], objective="rank:ndcg"), "objective rank:ndcg is not supported; these are: reg:squared"),
        (files.xgboost([ONE], base_score="many"), "base_score is many, not a number"),
        (files.xgboost([ONE], objective="binary:logistic", base_score="1"), "base_score is 1, not between 0 and 1"),
        (files.xgboost([]), "the file has 0 trees; 1 to 100000 are read"),
        (files.xgboost([ONE], n_features=10_001, names=False), "10001 features; 1 to 10000 are read"),
        (changed_learner(feature_names=["only one"]), "1 names for 2 features"),
        (damaged(lambda tree: tree.update(left_children=[7, -1, -1])), "a child of a node lies outside its tree"),
        (damaged(lambda tree: tree.update(right_children=[1, -1, -1])), "a node of a tree has two parents"),
        (damaged(lambda tree: tree.update(split_indices=[2, 0, 0])), "compares a feature outside 0 to 1"),
        (damaged(lambda tree: tree.update(split_conditions=[0.5, 1.0])), "split_conditions has 2 items, not 3"),
        (damaged(lambda tree: tree.update(split_conditions=[0.5, 1e300, 0])), "tree 0 has a leaf of inf, not a finite"),
        (damaged(lambda tree: tree.update(split_conditions=[0.5, 9e37, -3e38])), "the sum of leaves can be 3e+38"),
        (json.dumps(damaged(lambda tree: tree.update(sum_hessian=[math.nan, 1, 0]))), "sum_hessian holds nan, not a"),
        (json.dumps(files.catboost([Oblivious((), (-math.inf,))])), "leaf_values holds -inf, not a finite number"),
        (
            files.xgboost([0.25, Split(0, 0.5, -1e9, 89.25)], objective="count:poisson"),
            "the answer is exp() of the sum of leaves, which can be 88.8 (a leaf of tree 1 adds 89.2): at most 88.7",
        ),
        (files.lightgbm([Split(0, 0.5, 1.0, 88.8)], objective="tweedie"), "the sum of leaves, which can be 88.8"),
        (files.catboost([Oblivious((), (80.0,))], loss="Poisson", bias=9.0), "can be 89 (a leaf of tree 0 adds 80)"),
        (files.xgboost([ONE], objective="binary:logistic", base_score="1e-45"), "1e-45: the sums would start at -inf"),
        (damaged(lambda tree: tree.update(split_type=[1, 0, 0])), "compare categories do not have one set each"),
        (damaged(lambda tree: tree.update(left_children=[2**70, -1, -1])), "left_children"),
        (damaged(lambda tree: tree.update(tree_param={"size_leaf_vector": "3"})), "trees of several outputs"),
        (damaged(lambda tree: tree.update(left_children="none")), "tree 0 cannot be read"),
        ({"anything": 1}, "not a model of XGBoost"),
        (files.lightgbm([ONE], objective="lambdarank"), "objective lambdarank is not supported"),
        (files.lightgbm([ONE], objective=""), "objective of one's own is not supported"),
        (files.lightgbm([ONE], objective="binary sigmoid:2"), "train without reg_sqrt or sigmoid"),
        (files.lightgbm([ONE], objective="multiclass"), "1 trees a round do not fit the objective multiclass"),
        (files.lightgbm([ONE]).replace("is_linear=0", "is_linear=1"), "train with linear_tree=False"),
        (files.lightgbm([ONE]).replace("leaf_value=1.0", "leaf_value=nan"), "leaf_value has a number that is not"),
        (files.lightgbm([ONE]).replace("left_child=-1", "left_child=0"), "a child of a node lies outside its tree"),
        (files.lightgbm([ONE]).replace("threshold=0.5", "threshold=many"), "threshold does not hold numbers"),
        (
            files.lightgbm([Split(0, 2.0, 1.0, 2.0)], missing=files.ZERO),
            "zeros that count as no value are not supported where they go another way than the numbers beside them",
        ),
        (files.catboost([Oblivious((), (1.0,))], categories=[{}]), "CatBoost's categories are not supported"),
        (files.catboost([Oblivious((), (1.0,))], loss="PairLogit"), "loss PairLogit is not supported; these are: RMSE"),
        (files.catboost([Oblivious(((0, 1.0),), (1.0,))]), "leaf_values has 1 items, not 2"),
        (SCALED, "a scale of 2 is not supported"),
        (DECIDED, "CatBoost's threshold of 0.3 is not supported: save the model after set_probability_threshold(None)"),
        (b"CBM1 and more", "a binary file of CatBoost: save it with save_model(path, format='json')"),
        (b"\x80\x04\x95 and more", "a pickle, which runs code when it is read"),
        (b"binf and more", "XGBoost's old binary format"),
        (b"", "not a model file of XGBoost (JSON, UBJSON), LightGBM (text), CatBoost (JSON) or skops"),
        (files.Skops().file({"__loader__": "JsonNode", "content": "1"}), "the skops file holds no estimator"),
        (
            files.Skops().file(files.Skops().object("Pipeline", files.Skops().state(steps=[]))),
            "a Pipeline in a skops file is not supported: use ml.export in the session that fitted it",
        ),
        (
            files.Skops().file(files.Skops().object("SVC", files.Skops().state(n_features_in_=2))),
            "would work, and with ml.export in the session that fitted them LogisticRegression, SGDClassifier",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_sentence(content: Any, sentence: str) -> None:
    with pytest.raises(MLError) as caught:
        read(content)

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def nested(depth: int) -> bytes:
    return b'{"learner":' + b"[" * depth + b"]" * depth + b"}"


def nested_schema(depth: int) -> bytes:
    inside: dict[str, Any] = {"__loader__": "JsonNode", "content": "1"}
    for _ in range(depth):
        inside = {"__loader__": "ListNode", "content": [inside]}
    return files.Skops().file(inside)


def zip_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        opened.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        nested(100_000),
        b"{L" + struct.pack(">q", 7) + b"learner" + b"[#L" * 1_000 + struct.pack(">q", 9),
        b"{L" + struct.pack(">q", 7) + b"learner[$d#L" + struct.pack(">q", 2**60),
        b"{L" + struct.pack(">q", 2**62),
        b"{" + b"L" + struct.pack(">q", 7) + b"learner" + b"[" * 100_000,
        zip_of("schema.json", b" " * (2**27 + 1)),
        nested_schema(300),
        files.lightgbm([ONE]).replace("num_leaves=2", "num_leaves=999999999").encode(),
        files.lightgbm([ONE]).replace("max_feature_idx=1", "max_feature_idx=999999999").encode(),
        json.dumps(files.xgboost([ONE], n_features=10**9 - 1, names=False)).encode(),
    ],
    ids=[
        "nested json", "nested ubjson", "long array", "long name", "many arrays", "zip bomb", "nested schema",
        "many leaves", "many features", "many features of xgboost",
    ],
)  # fmt: skip
def test_a_small_file_cannot_take_much_time_or_memory(content: bytes) -> None:
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(MLError):
            read(content)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert used < FUZZ_BYTES
    assert time.process_time() - start < FUZZ_S


def whole_files() -> dict[str, bytes]:
    rng = np.random.default_rng(11)
    trees, words = trees_of(12, n=4), trees_of(13, words=True, n=4)
    oblivious = [files.grown_oblivious(rng, depth) for depth in (1, 2)]
    return {
        "xgboost": json.dumps(files.xgboost(words, words=True), separators=(",", ":")).encode(),
        "ubjson": files.ubjson(files.xgboost(words, words=True)),
        "lightgbm": files.lightgbm(words, words=True).encode(),
        "catboost": json.dumps(files.catboost(oblivious)).encode(),
        "skops": files.skops_regressor(trees),
    }


@pytest.mark.parametrize("kind", whole_files())
def test_damaged_files_are_refused_with_a_sentence_or_answer(kind: str) -> None:
    content = whole_files()[kind]
    rng = np.random.default_rng(14)
    start = time.process_time()

    for _ in range(FUZZED):
        changed = mutated(content, rng)
        with contextlib.suppress(MLError):
            imported = read(changed)
            answers(imported, np.zeros((1, imported.inputs.n_features)))

    assert time.process_time() - start < FUZZ_S


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with some of them changed, left out, or doubled; digits often become other digits."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, len(changed)))
        end = place + int(rng.integers(1, 30))
        match int(rng.integers(0, 5)):
            case 0:
                changed[place] = int(rng.integers(0, 256))
            case 1:
                del changed[place:end]
            case 2:
                changed[place:place] = changed[place:end]
            case _:
                digits = [at for at in range(place, min(place + 400, len(changed))) if chr(changed[at]).isdigit()]
                if digits:
                    changed[digits[0]] = ord(str(rng.choice(list("0123456789-.e"))))
    return bytes(changed) or b"x"


def test_a_skops_file_is_fuzzed_member_by_member() -> None:
    content = whole_files()["skops"]
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    rng = np.random.default_rng(15)

    for _ in range(FUZZED):
        name = str(rng.choice(list(members))) if rng.random() < 0.6 else "schema.json"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as opened:
            for member, own in members.items():
                opened.writestr(member, mutated(own, rng) if member == name else own)
        with contextlib.suppress(MLError):
            imported = read(buffer.getvalue())
            answers(imported, np.zeros((1, imported.inputs.n_features)))


def test_ubjson_is_read_as_its_specification_says() -> None:
    text = b"L" + struct.pack(">q", 1)

    assert ubjson.parse(b"[i\xffU\xffI\x01\x00T F Z]".replace(b" ", b"")) == [-1, 255, 256, True, False, None]
    assert ubjson.parse(b"{" + text + b"aSi\x02\xc3\xa9" + text + b"bd" + struct.pack(">f", 0.5) + b"}") == {
        "a": "é", "b": 0.5,
    }  # fmt: skip
    assert ubjson.parse(b"[$I#i\x02\x00\x01\xff\xff").tolist() == [1, -1]
    with pytest.raises(ModelFileError, match="cut off"):
        ubjson.parse(b"[i")
