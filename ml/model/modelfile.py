"""One model in one file: an uncompressed `.npz` of plain arrays with a JSON card. No pickle, ever.

A file from a stranger can at worst be refused: a crafted one meets a check of every name, size, type, shape (see
ml/model/archive.py) and index, then its own golden rows (see ml/model/loaded.py).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelFileError, shown
from ml.model import archive, arrays, older
from ml.model.card import Card
from ml.model.forest import Forest
from ml.model.linear import Linear
from ml.tables.files import placed
from ml.tables.numbers import LARGEST

FORMAT = 2
MAX_FILE_BYTES = 256 * 2**20
VERSION_DIGITS = 12
MAX_CARD_BYTES = 16 * 2**20
# Golden rows are replayed one by one, and sample rows drawn.
MAX_ROWS = 4_096

_CARD = "card.json"
# Type and number of dimensions of each array besides those of the predictor.
_ROWS = {
    "golden_rows": ("<f8", 2),
    "golden_sums": ("<f8", 2),
    "golden_answers": ("<f8", 2),
    "reference_rows": ("<f8", 2),
    "reference_outcomes": ("<f8", 1),
}
# The arrays of each kind of model, of which a file has one.
_KINDS = (arrays.FOREST | _ROWS, arrays.LINEAR | _ROWS)


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
        golden_sums: shape (n_golden, n_sums), float64: the sums that the answers are made of; (0, 0) where the
            answers themselves have the same bits on every machine.
        golden_answers: shape (n_golden, n_outputs), float64: scikit-learn's answers to the golden rows.
        reference_rows: shape (n_samples, n_features), float64: some training rows, for pictures and examples.
        reference_outcomes: shape (n_samples,), float64: the index of each reference row's true label, or its quantity.
        version: of the file that was read, see `version_of`; empty for a model that no file has yet.
    """

    card: Card
    predictor: Forest | Linear
    golden_rows: NDArray[np.float64]
    golden_sums: NDArray[np.float64]
    golden_answers: NDArray[np.float64]
    reference_rows: NDArray[np.float64]
    reference_outcomes: NDArray[np.float64]
    version: str = ""

    @property
    def forest(self) -> Forest:
        """The predictor, where it is a forest."""
        assert isinstance(self.predictor, Forest)
        return self.predictor


def version_of(content: bytes) -> str:
    """Return a model's version: the first 12 hex digits of its file's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]


def dump(model: ModelFile) -> bytes:
    """Return the file's bytes. The same model gives the same bytes.

    Raises:
        ModelFileError: the model comes out of a file of format 1, which lacks what a file of today holds.
    """
    members = {_CARD: b"", **arrays.archive_members(model.predictor)}
    members |= {
        f"{name}.npy": archive.npy_of(np.ascontiguousarray(getattr(model, name), dtype=dtype))
        for name, (dtype, _) in _ROWS.items()
    }
    card = arrays.described(model.card, model.predictor)
    encoded = msgspec.json.encode(_FormattedCard(format=FORMAT, card=card), order="deterministic")
    members[_CARD] = msgspec.json.format(encoded)
    return archive.dump(members)


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
    with placed(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        check(Path(file.name))


def read(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of the file at `path`. A pipe or a device is refused without waiting for it.

    Raises:
        ModelFileError: there is no such file, it cannot be read, is no regular file, or is larger than `max_bytes`.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"{path}: {_kind_of(status.st_mode)}, not a regular file")
            is_larger = status.st_size > max_bytes
            content = b"" if is_larger else file.read(max_bytes + 1)
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    if is_larger or len(content) > max_bytes:
        raise ModelFileError(f"{path}: larger than {max_bytes} bytes")
    return content


def _without_waiting(path: str, flags: int) -> int:
    # To open a pipe waits for whoever writes to it, and a terminal may become the one of this process.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")


def parse(content: bytes) -> ModelFile:
    """Return the model in a file's bytes, with every array checked.

    Raises:
        ModelFileError: one sentence that names what is wrong.
    """
    kinds = [{_CARD, *(name + ".npy" for name in names)} for names in (*_KINDS, older.ARRAYS.values())]
    members, digest = archive.parse(content, *kinds)
    number, card = _card(members[_CARD])
    kind = _KINDS[card.formula is not None]
    names = {name: name for name in kind} if number == FORMAT else older.ARRAYS
    is_older_linear = number != FORMAT and card.formula is not None
    if is_older_linear or members.keys() != {_CARD, *(name + ".npy" for name in names.values())}:
        raise ModelFileError(f"the archive's members are not those of format {number}")
    found = {
        name: archive.array(name, members[member + ".npy"], dtype=older.TYPES.get(member, kind[name][0]),
                            ndim=kind[name][1], has_order=name == arrays.ORDERED)
        for name, member in names.items()
    }  # fmt: skip
    found.setdefault("golden_sums", np.empty((0, 0)))
    if (most := max(len(found[name]) for name in _ROWS)) > MAX_ROWS:
        raise ModelFileError(f"the file holds {most} golden or reference rows, at most {MAX_ROWS} are read")
    model = ModelFile(
        card=card,
        predictor=arrays.predictor_of(found, card),
        **{name: found[name] for name in _ROWS},
        version=digest[:VERSION_DIGITS],
    )
    _check_rows(model)
    return model


def _check_rows(model: ModelFile) -> None:
    n_features, n_outputs = len(model.card.features), len(model.card.labels) or 1
    has_sums = model.card.promise != "bits"
    sums = (len(model.golden_rows), model.predictor.n_sums) if has_sums else (0, 0)
    n_golden, n_samples = len(model.golden_rows), len(model.reference_rows)
    checks: list[tuple[str, NDArray[Any], tuple[int, ...]]] = [
        ("golden_rows", model.golden_rows, (n_golden, n_features)),
        ("golden_sums", model.golden_sums, sums),
        ("golden_answers", model.golden_answers, (n_golden, n_outputs)),
        ("reference_rows", model.reference_rows, (n_samples, n_features)),
        ("reference_outcomes", model.reference_outcomes, (n_samples,)),
    ]
    may_lack = np.array([bool(feature.choices or feature.has_gaps) for feature in model.card.features])
    for name, array, shape in checks:
        if array.shape != shape:
            raise ModelFileError(f"{name} has shape {array.shape}, not {shape}")
        is_valid = np.abs(array) <= LARGEST
        if name.endswith("_rows"):
            is_valid |= np.isnan(array) & may_lack
        if not np.all(is_valid):
            raise ModelFileError(f"{name} has a value that is not finite, or too large for a 32-bit float")
    if not n_golden:
        raise ModelFileError("there is no golden row to check the model against")
    classes, labels = model.reference_outcomes, model.card.labels
    if labels and np.any((classes < 0) | (classes >= len(labels)) | (classes != np.floor(classes))):
        raise ModelFileError("a reference row has a class outside the labels")
    for position, feature in enumerate(model.card.features):
        positions = model.reference_rows[:, position]
        if feature.choices and not set(positions[~np.isnan(positions)].tolist()) <= set(range(len(feature.choices))):
            raise ModelFileError(f"a reference row has a choice of {shown(feature.key)} that it does not have")


def _card(encoded: bytes) -> tuple[int, Card]:
    """Return the format of a file and its card."""
    if len(encoded) > MAX_CARD_BYTES:
        raise ModelFileError(f"the card is larger than {MAX_CARD_BYTES} bytes")
    decode: Callable[..., Any] = msgspec.json.decode
    try:
        # The format comes first: a newer card may have other fields, and the error should name its format.
        number = decode(encoded, type=_FormatOnly).format
        if number not in (older.FORMAT, FORMAT):
            raise ModelFileError(f"the file has format {number}, but this version reads formats 1 to {FORMAT}")
        if number == older.FORMAT:
            card: Card = msgspec.convert(older.card(decode(encoded)), type=_FormattedCard).card
        else:
            card = decode(encoded, type=_FormattedCard).card
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"the card is not valid: {shown(error)}") from error
    card.check()
    return number, card
