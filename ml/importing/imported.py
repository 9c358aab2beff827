"""What a file of another library holds: its trees, and what it says of its inputs and its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, shown
from ml.model.forest import FIRST_CHOICE_CELL, LEAF, MAX_CELLS, MAX_DEPTH, Forest, packed
from ml.model.total import Total

# A model file of at most 256 MiB has room for no more.
MAX_NODES = 8_000_000
MAX_TREES = 100_000
MAX_CODES = MAX_CELLS - FIRST_CHOICE_CELL

Progress = Callable[[int, int], None]
"""Is called with the number of trees that were read, and that of all."""


def silent(_done: int, _all: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Tree:
    """The nodes of one tree, in any order: the root is the first, and children are places among these nodes.

    Attributes:
        feature: shape (n_nodes,): the feature that a node compares, or `LEAF`.
        threshold: a row goes left where its value is at most this.
        left, right: children; anything at leaves.
        missing_left: whether a row without a value goes left.
        value: what a leaf adds to its sum, or shape (n_nodes, n_sums): to each sum; anything at other nodes.
        cover: the weight of the training rows that came by.
        set_of: the index in `sets` of a node that compares a category, or -1.
        sets: which cells of a category go left, shape (n_sets, `MAX_CELLS`), bool.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    cover: NDArray[np.float64]
    set_of: NDArray[np.int64] | None = None
    sets: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class ImportedInputs:
    """What a file says of the features.

    Attributes:
        names: one a feature; none where the file has no names.
        choices: of each category by position; None where the file knows its codes 0, 1, 2 ... alone.
        has_gaps: which features may lack a value; None where the file does not say.
        is_above: of which features no value goes where values above all thresholds go; none for none of them.
        ranges: low and high of the training rows by position, where the file says so.
    """

    n_features: int
    names: tuple[str, ...] = ()
    choices: Mapping[int, tuple[str, ...] | None] = field(default_factory=dict)
    has_gaps: tuple[bool, ...] | None = None
    is_above: tuple[bool, ...] = ()
    ranges: Mapping[int, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A model as its file describes it.

    Attributes:
        forest: its trees in the order in which the library adds them.
        n_classes: 0 for a quantity.
        labels: the names of the classes, where the file has them.
        library: that wrote it, and its version.
        estimator: what it is, for the card.
        said: what a person should know about the reading, one sentence each.
    """

    forest: Forest
    n_classes: int
    inputs: ImportedInputs
    library: tuple[str, str]
    estimator: str
    labels: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def array(values: Any, name: str, dtype: type, n: int | None = None) -> NDArray[Any]:
    """Return an untrusted sequence as a finite array of one dimension; whole numbers fit into 32 bits.

    Raises:
        ModelFileError: it is something else, or does not have `n` items.
    """
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelFileError(f"{name} does not hold numbers") from error
    if not found.size and found.ndim == 1:
        found = found.astype(dtype)
    wanted = "iub" if dtype is np.int64 else "iubf"
    if found.ndim != 1 or found.dtype.kind not in wanted:
        raise ModelFileError(f"{name} does not hold {'whole ' * (dtype is np.int64)}numbers")
    if n is not None and len(found) != n:
        raise ModelFileError(f"{name} has {len(found)} items, not {n}")
    if not np.all(np.isfinite(found)) or (dtype is np.int64 and np.any(np.abs(found.astype(np.float64)) >= 2**32)):
        raise ModelFileError(f"{name} has a number that is not finite, or too large")
    return found.astype(dtype)


def no_json(content: bytes, error: Exception, library: str) -> ModelFileError:
    """Return what is wrong with a file that is not JSON: some libraries write numbers that JSON does not have."""
    found = re.search(rb"[\[:,]\s*(-?(?:Infinity|inf|NaN|nan))\b", content)
    if not found:
        return ModelFileError(f"not a model of {library}: {shown(error)}")
    # The last text before a number is the name of the list that it is in.
    end = content.rfind(b'"', 0, found.start())
    name = content[content.rfind(b'"', 0, end) + 1 : end].decode(errors="replace")
    return ModelFileError(
        f"{shown(name)} holds {float(found[1]):g}, not a finite number: training with a smaller learning rate may help"
    )


def read_trees(trees: Iterable[Tree], n_trees: int, progress: Progress) -> tuple[Tree, ...]:
    """Return trees as they are read one by one, and stop as soon as they are too many.

    Raises:
        ModelFileError: there are more trees or nodes than a model file can hold, or none.
    """
    if not 1 <= n_trees <= MAX_TREES:
        raise ModelFileError(f"the file has {n_trees} trees; 1 to {MAX_TREES} are read")
    read, n_nodes = list[Tree](), 0
    for tree in trees:
        n_nodes += len(tree.feature)
        if n_nodes > MAX_NODES:
            raise ModelFileError(f"the trees have more than {MAX_NODES} nodes: train fewer trees, or smaller ones")
        read.append(tree)
        progress(len(read), n_trees)
    return tuple(read)


def cells_of(codes: Sequence[int] | NDArray[np.int64], *, name: str) -> NDArray[np.bool_]:
    """Return which cells of a category hold these codes, shape (`MAX_CELLS`,).

    Raises:
        ModelFileError: a category has more codes than a model can tell apart.
    """
    cells = np.zeros(MAX_CELLS, dtype=bool)
    given = np.asarray(codes, dtype=np.int64)
    if len(given) and not 0 <= given.min() <= given.max() < MAX_CODES:
        raise ModelFileError(f"{name}: a category has the code {given.max()}, at most {MAX_CODES} choices are served")
    cells[FIRST_CHOICE_CELL + given] = True
    return cells


def forest_of(
    trees: Sequence[Tree],
    *,
    n_features: int,
    output_of: Sequence[int] | None,
    init: Sequence[float],
    total: Total,
    is_quantity: bool,
) -> Forest:
    """Return trees as a forest: children after their parent, and without nodes that cannot be reached.

    Args:
        output_of: the sum that each tree's leaves go to; None if they have a value for each sum.
        init: where the sums start.
        total: how values are compared and sums become an answer.

    Raises:
        ModelFileError: a child lies outside its tree or has two parents, or a tree is too deep.
        ForestError: something else is wrong with the trees.
    """
    sizes = np.array([len(tree.feature) for tree in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    tree_of = np.repeat(np.arange(len(trees)), sizes)

    def whole(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    inner = whole("feature") != LEAF
    left, right = (_children(whole(name), inner, roots[tree_of], sizes[tree_of]) for name in ("left", "right"))
    order = _order(roots, inner, left, right)
    order = order[np.argsort(tree_of[order], kind="stable")]
    position = np.full(len(inner), LEAF)
    position[order] = np.arange(len(order))
    inner = inner[order]
    set_of, sets = _sets(trees, sizes)
    set_of = np.where(inner, set_of[order], -1)
    is_compared = inner & (set_of < 0)
    forest = Forest(
        n_features=n_features,
        roots=position[roots].astype(np.int32),
        feature=whole("feature")[order].astype(np.int32),
        threshold=np.where(is_compared, whole("threshold")[order], 0.0),
        left=np.where(inner, position[left[order]], LEAF).astype(np.int32),
        right=np.where(inner, position[right[order]], LEAF).astype(np.int32),
        values=whole("value")[order][~inner].reshape(np.count_nonzero(~inner), -1),
        missing_left=whole("missing_left")[order] & is_compared,
        covers=_positive(whole("cover")[order]),
        set_of=set_of.astype(np.int32) if len(sets) else None,
        sets=sets if len(sets) else None,
        init=np.array(init, dtype=np.float64),
        output_of=None if output_of is None else np.array(output_of, dtype=np.int32),
        total=total,
    )
    forest.check(is_quantity=is_quantity)
    return forest


def _children(
    children: NDArray[np.int64], inner: NDArray[np.bool_], first: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.int64]:
    if np.any(inner & ((children < 1) | (children >= size))):
        raise ModelFileError("a child of a node lies outside its tree")
    return np.where(inner, children + first, 0)


def _order(
    roots: NDArray[np.int64], inner: NDArray[np.bool_], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the nodes that can be reached, level by level."""
    levels, seen, n_seen = list[NDArray[np.int64]](), np.zeros(len(inner), dtype=bool), 0
    level = roots
    while len(level):
        n_seen += len(level)
        if len(levels) > MAX_DEPTH or n_seen > len(inner):
            raise ModelFileError(f"a tree is deeper than {MAX_DEPTH} levels, or has a node with two parents")
        seen[level] = True
        levels.append(level)
        level = level[inner[level]]
        level = np.column_stack([left[level], right[level]]).ravel()
    if np.count_nonzero(seen) != n_seen:
        raise ModelFileError("a node of a tree has two parents")
    return np.concatenate(levels)


def _sets(trees: Sequence[Tree], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the set of each node, and the different sets as 256 bits in four numbers."""
    set_of, found, start = np.full(int(sizes.sum()), -1), list[NDArray[np.bool_]](), 0
    n_found = 0
    for tree, size in zip(trees, sizes.tolist(), strict=True):
        if tree.set_of is not None and tree.sets is not None:
            set_of[start : start + size] = np.where(tree.set_of < 0, -1, tree.set_of + n_found)
            found.append(tree.sets)
            n_found += len(tree.sets)
        start += size
    if not n_found:
        return set_of, np.zeros((0, 4), dtype=np.uint64)
    different, index = np.unique(packed(np.concatenate(found)), axis=0, return_inverse=True)
    return np.where(set_of < 0, -1, index.ravel()[set_of]), different


def _positive(covers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return covers without zeros: a leaf that no training row came to can be asked for all the same."""
    largest = covers.max(initial=0.0)
    return np.maximum(covers, largest * np.finfo(np.float64).eps) if largest > 0 else np.ones_like(covers)
