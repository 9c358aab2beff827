"""skops' files, a zip of arrays and JSON (skops.readthedocs.io, "Secure persistence"), as data: no class is imported.

An object of scikit-learn becomes a `Saved` with its attributes, which the readers of fitted estimators take as they
take one of a session. Nothing in the file is called.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, shown

MAX_SCHEMA_BYTES = 2**27
# Of all members, unpacked.
MAX_BYTES = 2**29
# zipfile makes an object of each member before anybody can count them.
MAX_DIRECTORY_BYTES = 2**23
MAX_DEPTH = 60
_SCHEMA = "schema.json"
_END = struct.Struct("<4s8xLLH")
_END_MARK, _LARGE_END_MARK = b"PK\x05\x06", b"PK\x06\x07"
# The header of an array as NumPy writes it, of one type or of a record of several.
_TYPE = r"[<|=]?[biufUV][0-9]{1,4}"
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?s:..)\{'descr': ((?:'" + _TYPE.encode() + rb"'|\[(?:\('\w{0,40}', '" + _TYPE.encode()
    + rb"'\)(?:, )?){1,30}\])), 'fortran_order': (True|False), 'shape': \(((?:[0-9]{1,10},? ?){0,4})\), \} *\n"
)  # fmt: skip
_FIELD = re.compile(rf"\('(\w*)', '({_TYPE})'\)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
_NODE_FIELDS = {
    "left_child": "children_left", "right_child": "children_right", "feature": "feature", "threshold": "threshold",
    "missing_go_to_left": "missing_go_to_left", "weighted_n_node_samples": "weighted_n_node_samples",
}  # fmt: skip


class Saved:
    """An object with the attributes that its file has; its class has the name of the saved one, and nothing else."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if not name.startswith("__")})


class _Tree(Saved):
    """A tree of scikit-learn by its arrays."""

    def __init__(self, state: dict[str, Any]) -> None:
        nodes, values = state.get("nodes"), state.get("values")
        if not isinstance(nodes, np.ndarray) or not isinstance(values, np.ndarray) or nodes.dtype.names is None:
            raise ModelFileError("a tree does not have nodes and values")
        if nodes.ndim != 1 or values.ndim != 3 or values.shape[:2] != (len(nodes), 1) or not len(nodes):
            raise ModelFileError("a tree does not have one row of values for each node, of one output")
        if not {"left_child", "right_child", "feature", "threshold"} <= {*nodes.dtype.names}:
            raise ModelFileError("the nodes of a tree lack a field")
        found = {name: nodes[field] for field, name in _NODE_FIELDS.items() if field in nodes.dtype.names}
        # scikit-learn before 1.3 knows no missing values.
        found.setdefault("missing_go_to_left", np.zeros(len(nodes), dtype=np.uint8))
        super().__init__({**found, "value": values, "node_count": len(nodes)})


class _Boosting(Saved):
    """A GradientBoosting, which starts at the log-odds of its classes, or at a constant."""

    def _raw_predict_init(self, _rows: Any) -> NDArray[np.float64]:
        """Return where the sums start, shape (1, n_sums), as scikit-learn's method of this name does."""
        start, n_sums = self.init_, self.estimators_.shape[1]  # type: ignore[attr-defined]  # as the file has them
        if isinstance(start, str):
            return np.zeros((1, n_sums))
        if not hasattr(self, "classes_"):
            return np.asarray(start.constant_, dtype=np.float64).reshape(1, 1)
        epsilon = np.finfo(np.float64).eps
        shares = np.clip(np.asarray(start.class_prior_, dtype=np.float64), epsilon, 1 - epsilon)
        if n_sums > 1:
            sums: NDArray[np.float64] = np.log(shares / np.exp(np.mean(np.log(shares))))
            return sums[None]
        half = 0.5 if self.loss == "exponential" else 1.0  # type: ignore[attr-defined]  # as above
        return np.array([[half * _logit(float(shares[1]))]])


def _logit(share: float) -> float:
    """Return the log-odds with the bits of `scipy.special.logit`."""
    if not 0.3 <= share <= 0.65:
        return math.log(share / (1 - share))
    twice = 2 * (share - 0.5)
    return math.log1p(twice) - math.log1p(-twice)


_OWN = {"GradientBoostingClassifier": _Boosting, "GradientBoostingRegressor": _Boosting}


def read(content: bytes) -> Any:
    """Return the object in a file.

    Raises:
        ModelFileError: one sentence that names what is wrong.
    """
    members = _Members(content)
    try:
        schema = msgspec.json.decode(members.read(_SCHEMA, MAX_SCHEMA_BYTES))
        return _Reader(members).value(schema, 0)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"{_SCHEMA} cannot be read: {shown(error)}") from error


class _Members:
    """The members of a zip, read one by one, no more than `MAX_BYTES` in all."""

    def __init__(self, content: bytes) -> None:
        end = content.rfind(_END_MARK)
        if end < 0 or len(content) < end + _END.size:
            raise ModelFileError("a damaged zip: it has no end")
        _, size, _, _ = _END.unpack_from(content, end)
        if size > MAX_DIRECTORY_BYTES or _LARGE_END_MARK in content[max(0, end - 20) : end]:
            raise ModelFileError(f"the list of the zip's members is larger than {MAX_DIRECTORY_BYTES} bytes")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, struct.error) as error:
            raise ModelFileError(f"a damaged zip: {shown(error)}") from error
        self._sizes = {info.filename: info.file_size for info in self._zip.infolist()}
        if sum(self._sizes.values()) > MAX_BYTES or len(self._sizes) != len(self._zip.infolist()):
            raise ModelFileError(f"the zip has more than {MAX_BYTES} bytes unpacked, or a name twice")

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        """Return a member's bytes."""
        if name not in self._sizes:
            raise ModelFileError(f"the zip has no member {shown(name)}: not a skops file")
        if self._sizes[name] > most:
            raise ModelFileError(f"{shown(name)} is larger than {most} bytes")
        try:
            return self._zip.read(name)
        # A RuntimeError is an encrypted member, or a kind of compression that nobody has.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise ModelFileError(f"{shown(name)} in the zip is damaged: {shown(error)}") from error


class _Reader:
    """Makes plain values of the nodes of a schema."""

    def __init__(self, members: _Members) -> None:
        self._members = members
        self._seen: dict[Any, Any] = {}

    def value(self, node: Any, depth: int) -> Any:
        """Return what a node stands for; a `Saved` of no attributes where that cannot be told."""
        if not isinstance(node, dict) or depth > MAX_DEPTH:
            raise ModelFileError(f"{_SCHEMA} has a node that is no object, or nodes deeper than {MAX_DEPTH}")
        loader, content, identity = node.get("__loader__"), node.get("content"), node.get("__id__")
        if loader == "CachedNode":
            if identity not in self._seen:
                raise ModelFileError(f"{_SCHEMA} has a reference to nothing")
            return self._seen[identity]
        found = self._made(str(loader), node, content, depth + 1)
        if isinstance(identity, int):
            self._seen[identity] = found
        return found

    def _made(self, loader: str, node: dict[str, Any], content: Any, depth: int) -> Any:
        if loader == "JsonNode":
            return _json(content)
        if loader == "NdArrayNode":
            return self._array(node, content, depth)
        if loader in ("ListNode", "TupleNode", "SetNode"):
            return [self.value(item, depth) for item in _list(content)]
        if loader == "DictNode":
            if not isinstance(content, dict):
                raise ModelFileError(f"{_SCHEMA} has a dict without content")
            return {name: self.value(item, depth) for name, item in content.items()}
        return self._object(loader, str(node.get("__class__")), content, depth)

    def _object(self, loader: str, kind: str, content: Any, depth: int) -> Saved:
        if loader in ("ObjectNode", "TreeNode", "ReduceNode") and _WORD.fullmatch(kind):
            state = self.value(content, depth) if isinstance(content, dict) else {}
            if loader == "TreeNode":
                return _Tree(state if isinstance(state, dict) else {})
            saved: type[Saved] = type(kind, (_OWN.get(kind, Saved),), {})
            return saved(state if isinstance(state, dict) else {})
        return Saved({})

    def _array(self, node: dict[str, Any], content: Any, depth: int) -> Any:
        if node.get("type") == "numpy":
            return array(self._members.read(str(node.get("file"))), str(node.get("file")))
        items = [self.value(item, depth) for item in _list(content)]
        shape = self.value(node.get("shape"), depth)
        found: NDArray[Any] = np.empty(len(items), dtype=object)
        if shape and isinstance(shape, list) and len(shape) > 1 and all(isinstance(item, list) for item in items):
            if len({len(item) for item in items}) > 1:
                raise ModelFileError(f"{_SCHEMA} has an array of rows of different lengths")
            found = np.empty((len(items), len(items[0]) if items else 0), dtype=object)
        for place, item in enumerate(items):
            found[place] = item
        return found


def _list(content: Any) -> Sequence[Any]:
    if not isinstance(content, list):
        raise ModelFileError(f"{_SCHEMA} has a list without content")
    return content


def _json(content: Any) -> Any:
    try:
        # Python's own, since scikit-learn's objects hold NaN and Infinity.
        return json.loads(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{_SCHEMA} has a value that is no JSON: {shown(error)}") from error


def array(encoded: bytes, name: str) -> NDArray[Any]:
    """Return the array in an `.npy` member. Its header is matched, not evaluated, and holds no objects.

    Raises:
        ModelFileError: it is none.
    """
    header = _HEADER.match(encoded)
    if header is None:
        raise ModelFileError(f"{shown(name)} is no array of plain numbers or text")
    described, order, sizes = (group.decode() for group in header.groups())
    fields = [(field, kind) for field, kind in _FIELD.findall(described)]
    try:
        dtype = np.dtype(fields) if fields else np.dtype(described.strip("'"))
        shape = tuple(int(size) for size in sizes.replace(",", " ").split())
        if math.prod(shape) * dtype.itemsize != len(encoded) - header.end() or dtype.itemsize == 0:
            raise ModelFileError(f"{shown(name)} has a shape that does not fit its bytes")
        flat = np.frombuffer(encoded, dtype=dtype, offset=header.end())
        return flat.reshape(shape, order="F" if order == "True" else "C")
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"{shown(name)} is an array that cannot be read: {shown(error)}") from error
