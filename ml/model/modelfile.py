"""One model in one file: an uncompressed `.npz` of plain arrays with a JSON card. No pickle, ever.

A file from a stranger can at worst be refused. The archive's comment holds the SHA-256 of all bytes before it, so a
damaged file is refused before anything in it is read; a crafted one meets a check of every name, size, type, shape
and index, then its own golden rows (see ml/model/classifier.py). Nothing is decompressed, so no size can grow.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ml.errors import ForestError, ModelFileError
from ml.model.card import Card
from ml.model.forest import Forest
from ml.tables.dataset import MAX_TEXT
from ml.tables.numbers import LARGEST

FORMAT = 1
MAX_FILE_BYTES = 256 * 2**20
MAX_CARD_BYTES = 16 * 2**20
MAX_FEATURES = 10_000
MAX_LABELS = 1_000
MAX_LEAVES = 64

_CARD = "card.json"
_COMMENT = b"sha256:"
_DIGEST_BYTES = 64
# Type and number of dimensions of each array: first those of the forest, then the rest.
_FOREST = {
    "roots": ("<i4", 1),
    "feature": ("<i4", 1),
    "threshold": ("<f8", 1),
    "left": ("<i4", 1),
    "right": ("<i4", 1),
    "probabilities": ("<f8", 2),
}
_ROWS = {
    "golden_rows": ("<f8", 2),
    "golden_probabilities": ("<f8", 2),
    "sample_rows": ("<f8", 2),
    "sample_classes": ("<i4", 1),
}
_ARRAYS = _FOREST | _ROWS


# The header that `dump` writes, and nothing else. NumPy's parser reads a header as Python source: crafted ones leave it
# by eight kinds of exceptions and two warnings.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?s:..)\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9, ]{0,60})\), \} *\n"
)


class _FormattedCard(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    card: Card


class _FormatOnly(msgspec.Struct):
    format: int


@dataclass(frozen=True)
class ModelFile:
    """What a file holds.

    Attributes:
        golden_rows: shape (n_golden, n_features), float64.
        golden_probabilities: shape (n_golden, n_labels), float64: scikit-learn's answers to the golden rows.
        sample_rows: shape (n_samples, n_features), float64: some training rows, for pictures and examples.
        sample_classes: shape (n_samples,), int32: the index of each sample row's true label.
    """

    card: Card
    forest: Forest
    golden_rows: NDArray[np.float64]
    golden_probabilities: NDArray[np.float64]
    sample_rows: NDArray[np.float64]
    sample_classes: NDArray[np.int32]


def version_of(content: bytes) -> str:
    """Return a model's version: the first 12 hex digits of its file's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def dump(model: ModelFile) -> bytes:
    """Return the file's bytes. The same model gives the same bytes."""
    arrays = {name: getattr(model.forest, name) for name in _FOREST} | {name: getattr(model, name) for name in _ROWS}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo without a date is 1980-01-01: no clock in the bytes.
        card = msgspec.json.encode(_FormattedCard(format=FORMAT, card=model.card), order="deterministic")
        archive.writestr(zipfile.ZipInfo(_CARD), msgspec.json.format(card))
        for name, (dtype, _) in _ARRAYS.items():
            member = io.BytesIO()
            npy.write_array(member, np.ascontiguousarray(arrays[name], dtype=dtype), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(name + ".npy"), member.getvalue())
        archive.comment = _COMMENT + b"0" * _DIGEST_BYTES
    signed = buffer.getvalue()[:-_DIGEST_BYTES]
    return signed + hashlib.sha256(signed).hexdigest().encode()


def _unchecked(_path: Path) -> None:
    pass


def save(model: ModelFile, path: Path, *, check: Callable[[Path], object] = _unchecked) -> str:
    """Write the file under a temporary name beside `path`, rename it into place, and return the version.

    Args:
        check: is given the temporary file, whole as it is, and raises an error if it must not replace what is there.

    Raises:
        ModelFileError: it cannot be written, or would be too large to be read. What is at `path` stays, as it does
            when `check` raises an error.
    """
    content = dump(model)
    if len(content) > MAX_FILE_BYTES:
        raise ModelFileError(
            f"{path} is not written: the model takes {len(content)} bytes, and a file of more than {MAX_FILE_BYTES} is "
            "not read; fit fewer trees (n_estimators), or less deep ones (max_depth), or ones with more rows a leaf "
            "(min_samples_leaf)"
        )
    try:
        replace(content, path, check=check)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be written: {error.strerror}") from error
    return version_of(content)


def replace(content: bytes, path: Path, *, check: Callable[[Path], object] = _unchecked) -> None:
    """Write bytes under a temporary name beside `path`, check that file, and rename it into place.

    Raises:
        OSError: nothing was changed, as when `check` raises an error.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as temporary:
        try:
            temporary.write(content)
            temporary.flush()
            os.fsync(temporary.fileno())
            os.chmod(temporary.name, 0o644)
            check(Path(temporary.name))
            os.replace(temporary.name, path)
        except BaseException:
            os.unlink(temporary.name)
            raise


def read(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of the file at `path`.

    Raises:
        ModelFileError: there is no such file, it cannot be read, or it is larger than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            is_larger = os.fstat(file.fileno()).st_size > max_bytes
            content = b"" if is_larger else file.read(max_bytes + 1)
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    if is_larger or len(content) > max_bytes:
        raise ModelFileError(f"{path}: larger than {max_bytes} bytes")
    return content


def parse(content: bytes) -> ModelFile:
    """Return the model in a file's bytes, with every array checked.

    Raises:
        ModelFileError: one sentence that names what is wrong.
    """
    signed, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not signed.startswith(b"PK\x03\x04") or len(content) <= _DIGEST_BYTES:
        raise ModelFileError("not a model file: it is no .npz archive")
    if hashlib.sha256(signed).hexdigest().encode() != digest:
        raise ModelFileError(
            "the checksum does not match: the file is damaged, incomplete or not written by this project"
        )
    members = _members(content)
    card = _card(members[_CARD])
    n_features, n_labels = len(card.features), len(card.labels)
    arrays = {
        name: _array(name, members[name + ".npy"], dtype=dtype, ndim=ndim) for name, (dtype, ndim) in _ARRAYS.items()
    }

    forest = Forest(n_features=n_features, **{name: arrays[name] for name in _FOREST})
    try:
        forest.check()
    except ForestError as error:
        raise ModelFileError(f"the forest is broken: {error}") from error
    if forest.n_labels != n_labels:
        raise ModelFileError(f"leaves have {forest.n_labels} probabilities, but the card has {n_labels} labels")
    if forest.n_trees != card.trees:
        raise ModelFileError(f"the file holds {forest.n_trees} trees, but the card says {card.trees}")

    model = ModelFile(card=card, forest=forest, **{name: arrays[name] for name in _ROWS})
    n_golden, n_samples = len(model.golden_rows), len(model.sample_rows)
    checks: list[tuple[str, NDArray[Any], tuple[int, ...]]] = [
        ("golden_rows", model.golden_rows, (n_golden, n_features)),
        ("golden_probabilities", model.golden_probabilities, (n_golden, n_labels)),
        ("sample_rows", model.sample_rows, (n_samples, n_features)),
        ("sample_classes", model.sample_classes, (n_samples,)),
    ]
    for name, array, shape in checks:
        if array.shape != shape:
            raise ModelFileError(f"{name} has shape {array.shape}, not {shape}")
        if not np.all(np.abs(array) <= LARGEST):
            raise ModelFileError(f"{name} has a value that is not finite, or too large for a 32-bit float")
    if not n_golden:
        raise ModelFileError("there is no golden row to check the model against")
    if np.any((model.sample_classes < 0) | (model.sample_classes >= n_labels)):
        raise ModelFileError("a sample row has a class outside the labels")
    _check_picture(card)
    return model


def _members(content: bytes) -> dict[str, bytes]:
    """Return the archive's members by name, all of them and nothing else, none compressed."""
    expected = {_CARD, *(name + ".npy" for name in _ARRAYS)}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if sorted(names) != sorted(expected):
                unlike = set(names).symmetric_difference(expected)
                raise ModelFileError(f"the archive's members are not a model's: {_shown(sorted(unlike) or names)}")
            for entry in entries:
                # file_size == compress_size bounds what is read by the size of the file itself.
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise ModelFileError(f"{entry.filename} is compressed, which a model file never is")
            return {entry.filename: archive.read(entry) for entry in entries}
    # zipfile documents BadZipFile alone, but crafted headers reach its parser as any of these.
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise ModelFileError(f"the archive cannot be read: {_shown(error)}") from error


def _card(encoded: bytes) -> Card:
    if len(encoded) > MAX_CARD_BYTES:
        raise ModelFileError(f"the card is larger than {MAX_CARD_BYTES} bytes")
    decode: Callable[..., Any] = msgspec.json.decode
    try:
        # The format comes first: a newer card may have other fields, and should be told so.
        newest = decode(encoded, type=_FormatOnly).format
        if newest != FORMAT:
            raise ModelFileError(f"the file has format {newest}, but this version reads format {FORMAT}")
        card: Card = decode(encoded, type=_FormattedCard).card
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"the card is not valid: {_shown(error)}") from error
    _check_card(card)
    return card


def _check_card(card: Card) -> None:
    keys, labels = [feature.key for feature in card.features], card.labels
    if not 1 <= len(keys) <= MAX_FEATURES or len(set(keys)) != len(keys) or not all(keys):
        raise ModelFileError(f"the card needs 1 to {MAX_FEATURES} features with different keys")
    if not 2 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
        raise ModelFileError(f"the card needs 2 to {MAX_LABELS} different labels")
    texts = [card.name, card.source, *labels, *keys]
    texts += [
        text
        for feature in card.features
        for text in (feature.title, feature.unit, *feature.titles, *feature.titles.values())
    ]
    if any(len(text) > MAX_TEXT for text in texts):
        raise ModelFileError(f"the card has a text of more than {MAX_TEXT} characters")
    for feature in card.features:
        minimum = -LARGEST if feature.minimum is None else max(feature.minimum, -LARGEST)
        maximum = LARGEST if feature.maximum is None else min(feature.maximum, LARGEST)
        if not minimum <= feature.low <= feature.example <= feature.high <= maximum:
            raise ModelFileError(
                f"feature {_shown(feature.key)}: limits, training range and example do not fit together"
            )
        if list(feature.quantiles) != sorted(feature.quantiles):
            raise ModelFileError(f"feature {_shown(feature.key)}: the quantiles are not ascending")
    recipe = card.recipe
    if recipe is not None and not (
        0 <= recipe.seed < 2**32
        and 0 < recipe.test_size < 1
        and recipe.trees >= 1
        and recipe.leaf >= 1
        and (recipe.depth is None or recipe.depth >= 1)
    ):
        raise ModelFileError("the recipe is one that nothing can be trained with")
    n = len(labels)
    report = card.report
    if not len(report.precision) == len(report.recall) == len(report.confusion) == n or any(
        len(row) != n for row in report.confusion
    ):
        raise ModelFileError("the report does not have one entry for each label")


def _check_picture(card: Card) -> None:
    keys = {feature.key for feature in card.features}
    leaves = [angle for leaf in card.picture for angle in leaf.angles]
    if not {key for leaf in card.picture for key in (leaf.length, leaf.width)} <= keys or not all(
        map(math.isfinite, leaves)
    ):
        raise ModelFileError("the picture is drawn from features that the model does not have, or at no angle")
    if len(card.picture) > MAX_LEAVES or len(leaves) > MAX_LEAVES:
        raise ModelFileError(f"the picture has more than {MAX_LEAVES} leaves")


def _array(name: str, encoded: bytes, *, dtype: str, ndim: int) -> NDArray[Any]:
    """Return the array in an `.npy` member without ever allocating what its header merely claims."""
    header = _NPY_HEADER.match(encoded)
    if header is None or int.from_bytes(encoded[8:10], "little") != header.end() - 10:
        raise ModelFileError(f"{name} is not an array as a model file has it: {_shown(encoded[:80])}")
    found, order = header[1].decode("latin1"), header[2]
    if found != dtype or order != b"False":
        raise ModelFileError(f"{name} holds {_shown(found)}, not {dtype} in C order")
    shape = tuple(int(size) for size in header[3].split(b",") if size.strip())
    if len(shape) != ndim:
        raise ModelFileError(f"{name} has {len(shape)} dimensions, not {ndim}")
    body = encoded[header.end() :]
    if math.prod(shape) * np.dtype(dtype).itemsize != len(body) or max(shape) > MAX_FILE_BYTES:
        raise ModelFileError(f"{name} has shape {_shown(shape)}, which does not fit its {len(body)} bytes")
    return np.frombuffer(body, dtype=dtype).reshape(shape)


def _shown(value: object) -> str:
    """Return a stranger's value short and on one line, fit for a message."""
    text = " ".join(str(value).split())[:200]
    return text if text.isprintable() else ascii(text)
