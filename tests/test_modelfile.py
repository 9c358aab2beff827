"""The model file: the same bytes for the same model, and one sentence for everything else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from ml.errors import ModelFileError
from ml.model import modelfile
from ml.model.card import MAX_SHAPES, Recipe
from ml.model.forest import LEAF, MAX_DEPTH
from ml.model.loaded import LoadedModel, load_model
from ml.model.modelfile import FORMAT, ModelFile
from ml.tables.dataset import Feature
from ml.training import fitting, writing
from ml.training.fitting import Trained
from tests.builders import dataset_of
from tests.conftest import for_each

DIGEST_BYTES = 64
CARD = "card.json"
ARRAYS = (
    "roots", "feature", "threshold", "left", "right", "values", "missing_left", "covers", "set_of", "sets", "init",
    "output_of", "golden_rows", "golden_sums", "golden_answers", "reference_rows", "reference_outcomes",
)  # fmt: skip
# What a forest without sets and sums of its own lacks, and a boosted one with categories has.
BOOSTED = ("set_of", "sets", "init", "output_of", "golden_sums")

# Reading refuses without taking more memory than this beyond the file itself.
MEMORY_BYTES = 8 * 2**20


Members = list[tuple[str, bytes]]
Card = dict[str, Any]


@pytest.fixture(scope="module")
def small(trained: Trained) -> ModelFile:
    """A forest of four small trees: quick to load thousands of times."""
    estimator = RandomForestClassifier(4, max_depth=3, random_state=0)
    estimator.fit(trained.split.train_rows, trained.split.train_classes)
    return writing.model_of(replace(trained, estimator=estimator))


@pytest.fixture(scope="module")
def good(small: ModelFile) -> bytes:
    return modelfile.dump(small)


@pytest.fixture(scope="module")
def boosted() -> bytes:
    """The file of a small boosted model of a category and a number, both of which may lack a value."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, 5, 120).astype(float), rng.normal(size=120)])
    classes = (rows[:, 0] % 3 + (rows[:, 1] > 0)) % 3
    rows[rng.random(rows.shape) < 0.1] = np.nan
    features = [
        Feature(key="kind", title="kind", choices=tuple("abcde"), has_gaps=True),
        Feature(key="size", title="size", has_gaps=True),
    ]
    table = dataset_of(rows, classes, features=features, labels=["x", "y", "z"])
    recipe = Recipe(estimator="hist-gradient-boosting", n_estimators=3, min_samples_leaf=5)
    return modelfile.dump(writing.model_of(fitting.fit(table, recipe)))


def serve(content: bytes) -> LoadedModel:
    """Return what `load_model` makes of a file with these bytes."""
    return LoadedModel(modelfile.parse(content), modelfile.version_of(content))


def refused(content: bytes) -> str:
    """Return the sentence with which the bytes are refused."""
    with pytest.raises(ModelFileError) as caught:
        serve(content)
    message = str(caught.value)
    assert message
    assert message.isprintable(), "one line"
    assert len(message) < 600
    return message


# How to make a file that has a right checksum, so that it gets as far as the checks behind it.


def signed(content: bytes) -> bytes:
    """Return the bytes with the checksum at their end made right."""
    body = content[:-DIGEST_BYTES]
    return body + hashlib.sha256(body).hexdigest().encode()


def members_of(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def archive_of(members: Members, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a signed archive: as `dump` writes it, but of any members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # duplicate names are meant
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
        archive.comment = b"sha256:" + b"0" * DIGEST_BYTES
    return signed(buffer.getvalue())


def with_member(content: bytes, name: str, encoded: bytes) -> bytes:
    return archive_of([(other, encoded if other == name else kept) for other, kept in members_of(content)])


def npy_of(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    member = io.BytesIO()
    npy.write_array(member, array, version=(1, 0), allow_pickle=allow_pickle)
    return member.getvalue()


def npy_with_header(header: str | bytes, body: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + body


def header_of(*, descr: str = "'<f8'", fortran: str = "False", shape: str = "(1, 3)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def arrays_of(content: bytes) -> dict[str, NDArray[Any]]:
    return {
        name.removesuffix(".npy"): np.load(io.BytesIO(encoded)).copy()
        for name, encoded in members_of(content)
        if name != CARD
    }


def with_arrays(content: bytes, **arrays: NDArray[Any]) -> bytes:
    for name, array in arrays.items():
        content = with_member(content, f"{name}.npy", npy_of(array))
    return content


def with_element(content: bytes, name: str, index: Any, value: float) -> bytes:
    array = arrays_of(content)[name]
    array[index] = value
    return with_arrays(content, **{name: array})


def with_card(content: bytes, change: Callable[[Card], object]) -> bytes:
    """Return the file with its card changed in place by `change`."""
    whole = json.loads(dict(members_of(content))[CARD])
    change(whole)
    return with_member(content, CARD, json.dumps(whole).encode())


@contextmanager
def bounded_memory(limit: int = MEMORY_BYTES) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def test_the_helpers_make_the_same_file_when_nothing_is_changed(good: bytes) -> None:
    assert archive_of(members_of(good)) == good
    assert with_arrays(good, **arrays_of(good)) == good
    assert serve(with_card(good, lambda whole: None)).labels == serve(good).labels


# What is written.


def test_the_same_data_seed_and_library_give_the_same_bytes(trained: Trained) -> None:
    estimator = RandomForestClassifier(4, random_state=0)
    estimator.fit(trained.split.train_rows, trained.split.train_classes)
    again = RandomForestClassifier(4, random_state=0)
    again.fit(trained.split.train_rows.copy(), trained.split.train_classes.copy())

    first = modelfile.dump(writing.model_of(replace(trained, estimator=estimator)))
    second = modelfile.dump(writing.model_of(replace(trained, estimator=again)))

    assert first == second
    assert modelfile.version_of(first) == hashlib.sha256(first).hexdigest()[:12] == modelfile.parse(first).version


def test_another_forest_gives_other_bytes_and_another_version(trained: Trained, good: bytes) -> None:
    estimator = RandomForestClassifier(4, max_depth=3, random_state=1)
    estimator.fit(trained.split.train_rows, trained.split.train_classes)

    other = modelfile.dump(writing.model_of(replace(trained, estimator=estimator)))

    assert modelfile.version_of(other) != modelfile.version_of(good)


def test_a_file_read_and_written_again_has_the_same_bytes(good: bytes, boosted: bytes, model_path: Path) -> None:
    for content in (good, boosted, model_path.read_bytes()):
        assert modelfile.dump(modelfile.parse(content)) == content


def test_a_file_gives_back_what_was_put_in(good: bytes, small: ModelFile) -> None:
    model = modelfile.parse(good)

    assert model.card == small.card
    assert [getattr(model.forest, name) for name in BOOSTED[:-1]] == [None] * 4
    for name in set(ARRAYS) - set(BOOSTED):
        whole, expected = (model, small) if hasattr(small, name) else (model.forest, small.forest)
        assert np.array_equal(getattr(whole, name), getattr(expected, name)), name
        assert getattr(whole, name).dtype == getattr(expected, name).dtype, name


def test_the_file_is_an_archive_of_plain_arrays_and_a_readable_card(good: bytes) -> None:
    with np.load(io.BytesIO(good), allow_pickle=False) as archive:
        assert {name for name in archive if name != CARD} == set(ARRAYS)
        assert all(archive[name].dtype.kind in "iuf" for name in ARRAYS)
    card = dict(members_of(good))[CARD]
    assert json.loads(card)["format"] == FORMAT
    assert card.count(b"\n") > 50, "a person reads it line by line"
    with zipfile.ZipFile(io.BytesIO(good)) as archive_:
        assert {entry.date_time for entry in archive_.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_model_without_reference_rows_is_a_model(good: bytes) -> None:
    none = with_arrays(good, reference_rows=np.zeros((0, 4)), reference_outcomes=np.zeros(0))

    assert serve(none).reference_rows.shape == (0, 4)


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path: Path, small: ModelFile, good: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"an older model")
    before = path.stat().st_ino

    version = modelfile.save(small, path)

    assert path.read_bytes() == good
    assert path.stat().st_ino != before, "renamed into place: who reads the older file still has it whole"
    assert version == modelfile.version_of(good)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["model.npz"]


def test_saving_over_a_directory_fails_and_leaves_nothing_behind(tmp_path: Path, small: ModelFile) -> None:
    path = tmp_path / "model.npz"
    path.mkdir()

    with pytest.raises((OSError, ModelFileError)):
        modelfile.save(small, path)

    assert os.listdir(tmp_path) == ["model.npz"]
    assert path.is_dir()


def test_a_model_that_cannot_be_encoded_leaves_the_older_file_alone(tmp_path: Path, small: ModelFile) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"an older model")
    broken = replace(small, golden_rows=np.array([[object()]]))

    with pytest.raises((TypeError, ValueError)):
        modelfile.save(broken, path)

    assert path.read_bytes() == b"an older model"
    assert os.listdir(tmp_path) == ["model.npz"]


# Files that are none.


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"missing\.npz: No such file or directory$"):
        load_model(tmp_path / "missing.npz")


def test_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"Is a directory$"):
        load_model(tmp_path)


def test_a_file_below_another_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ModelFileError, match=r"Not a directory$"):
        load_model(tmp_path / "file" / "model.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_named_pipe_and_a_device_are_refused_without_waiting_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path, kind in [(tmp_path / "pipe", "a named pipe"), (Path("/dev/zero"), "a device")]:
        with pytest.raises(ModelFileError, match=f"{kind}, not a regular file$"):
            modelfile.read(path)


def test_a_file_that_is_too_large_is_refused_without_reading_it_all(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "large.npz"
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse file takes no room
    with bounded_memory(), pytest.raises(ModelFileError, match="larger than 1000000 bytes"):
        modelfile.read(path, max_bytes=1_000_000)
    path.write_bytes(good)
    assert modelfile.read(path, max_bytes=len(good)) == good
    with pytest.raises(ModelFileError, match=f"larger than {len(good) - 1} bytes"):
        modelfile.read(path, max_bytes=len(good) - 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"PK", b"PK\x03\x04", b"hello world", b"x" * 1_000, b"\x80\x04N.", b"\x93NUMPY\x01\x00", b"\x00" * 64],
)
def test_a_file_of_another_kind_is_refused_as_such(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)

    assert "not a model file" in refused(content)
    with pytest.raises(ModelFileError, match=rf"^{path}: not a model file"):
        load_model(path)


def test_an_archive_of_another_program_is_refused_for_its_checksum() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, threshold=np.zeros(3))

    assert "checksum" in refused(buffer.getvalue())


def test_every_kind_of_truncation_is_refused(good: bytes) -> None:
    lengths = {*range(400), *range(400, len(good), 53), *range(len(good) - 400, len(good))}
    sentences = {refused(good[:length]).split(":")[0] for length in sorted(lengths)}

    assert sentences == {"not a model file", "the checksum does not match"}


@pytest.mark.parametrize("extra", [b"\x00", b"\n", b"0" * 64, b"PK\x05\x06" + b"\x00" * 18])
def test_a_file_with_something_behind_it_or_before_it_is_refused(good: bytes, extra: bytes) -> None:
    refused(good + extra)
    refused(extra + good)


def test_a_flipped_bit_at_either_end_is_refused(good: bytes) -> None:
    for position in (*range(200), *range(len(good) - 300, len(good))):
        for bit in range(8):
            damaged = bytearray(good)
            damaged[position] ^= 1 << bit
            refused(bytes(damaged))


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(good: bytes, place: float, bit: int) -> None:
    damaged = bytearray(good)
    damaged[int(place * len(good))] ^= 1 << bit

    assert refused(bytes(damaged)).startswith(("not a model file", "the checksum does not match"))


# Archives that are none of a model.


def test_a_compressed_member_is_refused_before_it_is_read(good: bytes) -> None:
    members = [(name, b"\x00" * 2**25 if name == "threshold.npy" else content) for name, content in members_of(good)]
    bomb = archive_of(members, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**19

    with bounded_memory():
        sentence = refused(bomb)

    assert "is compressed, which a model file never is" in sentence


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_is_refused(good: bytes, method: int) -> None:
    assert f"{CARD} is compressed" in refused(archive_of(members_of(good), compression=method))


CENTRAL = b"PK\x01\x02"
# Offsets in a central directory entry (APPNOTE.TXT, section 4.3.12), and sizes.
FIELDS = {
    "flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "compress_size": (20, "<I"), "file_size": (24, "<I"),
    "name_length": (28, "<H"), "extra_length": (30, "<H"), "header": (42, "<I"),
}  # fmt: skip


def with_central(content: bytes, number: int, **values: int) -> bytes:
    """Return the archive with fields of one central directory entry changed, and signed again."""
    changed, start = bytearray(content), 0
    for _ in range(number + 1):
        start = content.index(CENTRAL, start + 1)
    for name, value in values.items():
        offset, kind = FIELDS[name]
        struct.pack_into(kind, changed, start + offset, value)
    return signed(bytes(changed))


@for_each(
    "lie",
    [
        {"file_size": 2**31}, {"compress_size": 2**31}, {"file_size": 2**31, "compress_size": 2**31},
        {"file_size": 2**32 - 2, "compress_size": 2**32 - 2}, {"file_size": 2**32 - 1, "compress_size": 2**32 - 1},
        {"file_size": 0, "compress_size": 0}, {"file_size": 10, "compress_size": 10}, {"file_size": 10},
        {"method": 8}, {"method": 99}, {"flags": 1}, {"flags": 0x41}, {"flags": 0x20}, {"crc": 0}, {"header": 1},
        {"header": 2**31}, {"header": 2**32 - 1}, {"name_length": 0}, {"name_length": 65_535}, {"extra_length": 65_535},
    ],
)  # fmt: skip
@for_each("number", [0, 5, 9])
def test_a_directory_that_lies_about_a_member_is_refused_in_little_memory(
    good: bytes, number: int, lie: dict[str, int]
) -> None:
    with bounded_memory():
        sentence = refused(with_central(good, number, **lie))

    assert "archive" in sentence or "compressed" in sentence


def test_members_that_share_their_bytes_are_refused(good: bytes) -> None:
    left = dict(members_of(good))["left.npy"]
    twin = with_member(good, "right.npy", left)
    entry = twin.index(CENTRAL)
    for _ in range(4):
        entry = twin.index(CENTRAL, entry + 1)
    (header,) = struct.unpack_from("<I", twin, entry + 42)

    assert "archive cannot be read" in refused(with_central(twin, 5, header=header))


@for_each("name", [CARD, *(f"{name}.npy" for name in ARRAYS)])
def test_a_missing_member_is_refused_by_name(good: bytes, name: str) -> None:
    sentence = refused(archive_of([(other, content) for other, content in members_of(good) if other != name]))

    assert name in sentence


STRANGE_NAMES = ["extra.npy", "../model.npy", "/etc/passwd", "card.json ", "a\nb\x07", "Card.json", "__main__.py"]


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_an_extra_member_is_refused_by_name(good: bytes, name: str) -> None:
    sentence = refused(archive_of([*members_of(good), (name, b"")]))

    assert ascii(name).strip("'") in sentence


@pytest.mark.parametrize("name", [CARD, "threshold.npy"])
def test_a_member_that_is_there_twice_is_refused(good: bytes, name: str) -> None:
    assert name in refused(archive_of([*members_of(good), (name, dict(members_of(good))[name])]))


def test_a_member_in_place_of_another_is_refused(good: bytes) -> None:
    members = [(name if name != "left.npy" else "right.npy", content) for name, content in members_of(good)]

    assert "left.npy" in refused(archive_of(members))


def test_thousands_of_members_are_refused_in_a_short_sentence(good: bytes) -> None:
    many = [(f"{number:05}.npy", b"") for number in range(5_000)]

    refused(archive_of([*members_of(good), *many]))


def archive_that_lists(count: int, *, claimed: int, large: bytes = b"") -> bytes:
    """Return a signed archive whose directory lists one small member again and again, and claims some other number."""
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"x"
    entry = struct.pack("<4s6H3L5H2L", CENTRAL, 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    size = len(entry) * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, claimed, claimed, size, len(local), 7 + DIGEST_BYTES)
    return signed(local + entry * count + large + end + b"sha256:" + b"0" * DIGEST_BYTES)


@pytest.mark.slow
@pytest.mark.parametrize("claimed", [0, 10, 11, 65_535])
def test_a_million_members_are_refused_in_little_memory(claimed: int) -> None:
    content = archive_that_lists(1_000_000, claimed=claimed)

    with bounded_memory():
        sentence = refused(content)

    assert "list of members takes 47000000 bytes" in sentence


def test_the_record_of_a_large_archive_and_a_second_end_record_are_refused_in_little_memory(good: bytes) -> None:
    large = archive_that_lists(10, claimed=10, large=struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1))
    end = good.rindex(b"PK\x05\x06")
    # A directory that starts where the mark of an end record can be read: zipfile takes the last mark that it finds.
    twice = signed(good[: end + 16] + b"PK\x05\x06" + good[end + 20 :])

    with bounded_memory():
        assert "list of members" in refused(large)
        assert "does not end as a model file does" in refused(twice)
        assert "does not end as a model file does" in refused(signed(good[:end] + b"\0" + good[end:-1]))


def test_an_archive_without_members_is_refused() -> None:
    assert "not a model file" in refused(archive_of([]))


# Members that are no plain arrays.


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ARRAYS)
def test_a_pickled_object_is_refused_and_never_unpickled(tmp_path: Path, good: bytes, name: str) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    encoded = npy_of(trap, allow_pickle=True)
    np.load(io.BytesIO(encoded), allow_pickle=True)
    (tmp_path / "sprung").rmdir()  # so it is a trap

    sentence = refused(with_member(good, f"{name}.npy", encoded))

    assert sentence.startswith(f"{name} ")
    assert not (tmp_path / "sprung").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path, good: bytes) -> None:
    encoded = pickle.dumps(Trap(tmp_path / "sprung"))

    assert "not a model file" in refused(signed(encoded + b"0" * DIGEST_BYTES))
    assert "threshold is not " in refused(with_member(good, "threshold.npy", encoded))
    assert not (tmp_path / "sprung").exists()


@for_each(
    "descr",
    ["|O", "<f4", ">f8", "<i8", "<c16", "|S8", "<U2", "|V8", "<M8[s]", "<m8[s]", "|b1", "<f2", "<u8", "<i4,<i4"],
)
def test_an_array_of_another_type_is_refused_by_name(good: bytes, descr: str) -> None:
    encoded = npy_with_header(header_of(descr=repr(descr), shape="(1,)"), b"\x00" * 8)

    sentence = refused(with_member(good, "threshold.npy", encoded))

    assert sentence.startswith("threshold holds ")
    assert "not <f8" in sentence


def test_integers_of_another_type_are_refused_by_name(good: bytes) -> None:
    for name in ("roots", "feature", "left", "right", "reference_outcomes"):
        wide = arrays_of(good)[name].astype("<i8")
        assert f"{name} holds " in refused(with_arrays(good, **{name: wide}))


def test_an_array_in_fortran_order_is_refused(good: bytes) -> None:
    columns = np.asfortranarray(arrays_of(good)["values"])

    assert refused(with_arrays(good, values=columns)).startswith("values holds ")


HUGE_SHAPES = ["(1000000000000,)", "(4611686018427387904,)", "(9223372036854775808,)", "(10000000000000000000000,)"]


@pytest.mark.parametrize("name", ["threshold", "roots"])
@pytest.mark.parametrize("shape", HUGE_SHAPES)
def test_a_header_that_claims_a_huge_array_is_refused_in_little_memory(good: bytes, name: str, shape: str) -> None:
    descr = repr(arrays_of(good)[name].dtype.str)
    encoded = npy_with_header(header_of(descr=descr, shape=shape), b"\x00" * 64)

    with bounded_memory():
        sentence = refused(with_member(good, f"{name}.npy", encoded))

    assert sentence.startswith(f"{name} ")


@for_each("shape", ["(-1, 3)", "(3, -1)", "(-1, -24)", "(1, 4)", "(2, 3)", "(0, 3)", "(1,)", "()", "(1, 3, 1)", "(3,)"])
def test_a_shape_that_is_not_that_of_its_bytes_is_refused_by_name(good: bytes, shape: str) -> None:
    encoded = npy_with_header(header_of(shape=shape), b"\x00" * 24)

    assert refused(with_member(good, "values.npy", encoded)).startswith("values ")


# Each of these takes another way through NumPy's parser of headers.
CRAFTED_HEADERS: dict[str, str | bytes] = {
    "no header": "",
    "one value": "5",
    "no dictionary": "[]",
    "no keys": "{}",
    "a key too many": "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 3), 'x': 1}",
    "a shape that is a list": header_of(shape="[0, 3]"),
    "a shape of floats": header_of(shape="(0.0, 3.0)"),
    "an order that is 1": header_of(fortran="1"),
    "a type that is none": header_of(descr="'hello'"),
    "a type that is a number": header_of(descr="8"),
    "a name": header_of(shape="shape"),
    "a call": header_of(descr="__import__('os').getcwd()"),
    "deep brackets": "(" * 2_000 + ")" * 2_000,
    "deep signs": "-" * 5_000 + "1",
    "a zero byte": "\x00",
    "latin letters": b"\xe9\xff",
    "a very long header": header_of() + " " * 60_000,
    "digits with blanks between them": header_of(shape="(1 2, 3)"),
    "very many digits": header_of(shape="(" + "9" * 5_000 + ",)"),
    # NumPy's own parser leaves these by exceptions of many kinds, or warns.
    "an open bracket": "{'descr': (",
    "deep open brackets": "(" * 3_000,
    "a wrong indentation": "if 1:\n  a\n b",
    "a key that is a list": "{[]: 1}",
    "keys of two types": "{1: 2, 'a': 3}",
    "a type that is an empty tuple": header_of(descr="()"),
    "a type that is a tuple of one": header_of(descr="('<f8',)"),
    "a type with commas": header_of(descr="'f8,,'"),
    "a type of another age": header_of(descr="'a8'"),
    "an integer of another age": header_of(shape="(0L, 3)"),
    "a shape of booleans": header_of(shape="(False, True)"),
    "a huge shape of nothing": header_of(shape="(4611686018427387904, 0)"),
    "a shape of nothing beyond 64 bits": header_of(shape=f"({2**70}, 0)"),
}


@for_each("crafted", CRAFTED_HEADERS)
def test_a_crafted_header_is_refused_by_the_name_of_its_array(good: bytes, crafted: str) -> None:
    header = CRAFTED_HEADERS[crafted]

    assert refused(with_member(good, "values.npy", npy_with_header(header))).startswith("values ")


@pytest.mark.parametrize("version", [(2, 0), (3, 0), (4, 0), (0, 0), (255, 255)])
def test_an_array_of_another_npy_version_is_refused(good: bytes, version: tuple[int, int]) -> None:
    encoded = bytearray(npy_of(np.zeros(3)))
    encoded[6:8] = bytes(version)

    assert refused(with_member(good, "threshold.npy", bytes(encoded))).startswith("threshold is not ")


@pytest.mark.parametrize("length", [0, 1, 6, 8, 9, 10, 20, 100])
def test_a_member_that_ends_early_is_refused_by_name(good: bytes, length: int) -> None:
    encoded = dict(members_of(good))["left.npy"][:length]

    assert refused(with_member(good, "left.npy", encoded)).startswith("left is not ")


def test_a_member_with_bytes_behind_its_array_is_refused(good: bytes) -> None:
    encoded = dict(members_of(good))["left.npy"] + b"\x00" * 4

    assert refused(with_member(good, "left.npy", encoded)).startswith("left has shape ")


# Arrays that are no forest: what ml.model.forest.Forest.check refuses, through the file.

BROKEN_FORESTS: dict[str, tuple[str, Any, float, str]] = {
    "a child beyond the nodes": ("left", 0, 10_000, "a child lies outside its tree"),
    "a child far beyond the nodes": ("right", 0, 2**31 - 1, "a child lies outside its tree"),
    "a negative child": ("left", 0, -5, "cycle"),
    "a cycle": ("left", 0, 0, "cycle"),
    "a shared child": ("left", 0, 2, "exactly one parent"),
    "a feature that does not exist": ("feature", 0, 4, "a feature outside 0 to 3"),
    "a negative feature": ("feature", 0, -2, "a feature outside 0 to 3"),
    "a leaf in place of a node": ("feature", 0, LEAF, "a leaf has children"),
    "a NaN threshold": ("threshold", 0, np.nan, "a threshold is no number"),
    "a threshold below all numbers": ("threshold", 0, -np.inf, "below all numbers"),
    "a NaN probability": ("values", (0, 0), np.nan, "a probability outside 0 to 1"),
    "an infinite probability": ("values", (0, 0), np.inf, "a probability outside 0 to 1"),
    "a negative probability": ("values", (0, 0), -1.0, "a probability outside 0 to 1"),
    "a sum that is not 1": ("values", (0, slice(None)), 0.25, "do not sum to 1"),
    "a node without training rows": ("covers", 0, 0.0, "no training row"),
    "a root that is not the first node": ("roots", 0, 1, "roots"),
    "a root beyond the nodes": ("roots", 3, 10_000, "roots"),
}


@for_each("broken", BROKEN_FORESTS)
def test_a_broken_forest_is_refused_with_what_is_wrong(good: bytes, broken: str) -> None:
    name, index, value, words = BROKEN_FORESTS[broken]

    sentence = refused(with_element(good, name, index, value))

    assert sentence.startswith("the forest is broken: ")
    assert words in sentence


def test_a_tree_that_is_too_deep_is_refused(good: bytes) -> None:
    depth = MAX_DEPTH + 1
    inner = np.arange(0, 2 * depth, 2)
    feature, left, right = (np.full(2 * depth + 1, LEAF, dtype="<i4") for _ in range(3))
    feature[inner], left[inner], right[inner] = 0, inner + 1, inner + 2
    deep = with_arrays(
        good, roots=np.zeros(1, dtype="<i4"), feature=feature, left=left, right=right,
        threshold=np.zeros(2 * depth + 1), values=np.tile([1.0, 0.0, 0.0], (depth + 1, 1)),
        missing_left=np.zeros(2 * depth + 1, dtype="|u1"), covers=np.ones(2 * depth + 1),
    )  # fmt: skip

    assert f"a tree is deeper than {MAX_DEPTH} levels" in refused(deep)


@pytest.mark.parametrize("name", ["threshold", "left", "right", "missing_left", "covers"])
def test_arrays_of_different_lengths_are_refused_by_name(good: bytes, name: str) -> None:
    assert f"{name} has shape" in refused(with_arrays(good, **{name: arrays_of(good)[name][:-1]}))


@for_each("name", ARRAYS)
def test_an_array_with_another_number_of_dimensions_is_refused_by_name(good: bytes, boosted: bytes, name: str) -> None:
    good = boosted if name in BOOSTED else good
    array = arrays_of(good)[name]

    for other in (array.reshape(-1)[0].reshape(()), array[None], array[..., None]):
        assert refused(with_arrays(good, **{name: other})).startswith(f"{name} has ")


def test_an_empty_forest_is_refused(good: bytes) -> None:
    nothing = {name: arrays_of(good)[name][:0] for name in ARRAYS[:8]}

    assert "roots" in refused(with_arrays(good, **nothing))


def test_a_forest_for_other_labels_than_the_cards_is_refused(good: bytes) -> None:
    two = np.tile([0.5, 0.5], (len(arrays_of(good)["values"]), 1))

    assert "the forest gives 2 probabilities, but the card has 3 labels" in refused(with_arrays(good, values=two))


def test_another_number_of_trees_than_the_cards_is_refused(good: bytes) -> None:
    sentence = refused(with_card(good, lambda whole: whole["card"].update(trees=5)))

    assert "4 trees, but the card says 5" in sentence


# Golden and sample rows.


def test_a_wrong_golden_row_is_refused_by_number(good: bytes) -> None:
    assert "golden row 0 gives another answer" in refused(with_element(good, "golden_rows", (0, slice(None)), 1000.0))


def test_a_golden_probability_that_is_wrong_in_its_last_bit_is_refused_by_number(good: bytes) -> None:
    value = arrays_of(good)["golden_answers"][9, 1]

    wrong = with_element(good, "golden_answers", (9, 1), np.nextafter(value, 2))

    assert "golden row 9 gives another answer than the library gave" in refused(wrong)


def test_a_swapped_pair_of_leaves_is_refused(good: bytes) -> None:
    leaves = arrays_of(good)["values"][::-1]

    assert "golden row" in refused(with_arrays(good, values=np.ascontiguousarray(leaves)))


def test_a_file_without_golden_rows_is_refused(good: bytes) -> None:
    none = with_arrays(good, golden_rows=np.zeros((0, 4)), golden_answers=np.zeros((0, 3)))

    assert "no golden row" in refused(none)


@pytest.mark.parametrize("name", ["golden_rows", "golden_answers", "reference_rows", "reference_outcomes"])
def test_too_many_rows_are_refused_before_any_is_looked_at(good: bytes, name: str) -> None:
    array = arrays_of(good)[name]
    content = with_arrays(good, **{name: np.resize(array, (modelfile.MAX_ROWS + 1, *array.shape[1:]))})

    assert f"holds {modelfile.MAX_ROWS + 1} golden or reference rows" in refused(content)


@pytest.mark.parametrize("name", ["golden_rows", "golden_answers", "reference_rows"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_by_name(good: bytes, name: str, value: float) -> None:
    assert f"{name} has a value that is not finite" in refused(with_element(good, name, (1, 1), value))


@pytest.mark.parametrize("name", ["golden_rows", "reference_rows"])
@pytest.mark.parametrize("value", [1e39, -1e300])
def test_rows_that_float32_cannot_hold_are_refused_by_name(good: bytes, name: str, value: float) -> None:
    assert refused(with_element(good, name, (1, 1), value)).startswith(f"{name} ")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("golden_rows", (256, 3)), ("golden_rows", (256, 5)), ("golden_answers", (256, 2)),
     ("golden_answers", (1, 3)), ("reference_rows", (120, 3)), ("reference_rows", (120, 0)),
     ("reference_outcomes", (7,))],
)  # fmt: skip
def test_rows_of_a_wrong_shape_are_refused_by_name(good: bytes, name: str, shape: tuple[int, ...]) -> None:
    zeros = np.zeros(shape, dtype=arrays_of(good)[name].dtype)

    assert "has shape" in refused(with_arrays(good, **{name: zeros}))


@pytest.mark.parametrize("value", [-1, 3, 2**31 - 1, -(2**31)])
def test_a_sample_row_of_no_label_is_refused(good: bytes, value: int) -> None:
    assert "a class outside the labels" in refused(with_element(good, "reference_outcomes", 3, value))


# The card.


@for_each(
    "encoded",
    [b"", b"{", b"null", b"5", b'"card"', b"[]", b"{}", b"\xff\xfe", b"\x00", b"{}{}", b'{"format":1}', b"NaN",
     b'{"format":1,"card":null}', b'{"format":1,"card":{}}', b'{"format":"1","card":{}}', b'{"format":1.5,"card":{}}',
     b'{"format":null}', b'{"format":true}', b'{"card":{}}', b'{"format":1,"card":{"name":"\\ud800"}}'],
)  # fmt: skip
def test_a_card_that_is_no_card_is_refused(good: bytes, encoded: bytes) -> None:
    assert refused(with_member(good, CARD, encoded)).startswith("the card is not valid: ")


@pytest.mark.parametrize("deep", [b"[" * 500_000, b'{"a":' * 150_000, b'{"format":1,"x":' + b"[" * 500_000])
def test_a_card_that_is_nested_deeply_is_refused(good: bytes, deep: bytes) -> None:
    assert refused(with_member(good, CARD, deep)).startswith("the card is not valid: ")


def test_a_card_that_is_too_large_is_refused(good: bytes) -> None:
    large = b'{"format":1,"x":"' + b"x" * modelfile.MAX_CARD_BYTES + b'"}'

    assert "the card is larger than" in refused(with_member(good, CARD, large))


@pytest.mark.parametrize("newer", [FORMAT + 1, 99, 0, -1, 10**30])
def test_another_format_is_told_as_such_even_with_an_unknown_card(good: bytes, newer: int) -> None:
    encoded = json.dumps({"format": newer, "card": {"future": []}, "more": 1}).encode()

    sentence = refused(with_member(good, CARD, encoded))

    if abs(newer) < 2**63:
        assert f"the file has format {newer}, but this version reads formats 1 to {FORMAT}" in sentence


def labels_of(card: Card) -> list[Any]:
    labels: list[Any] = card["target"]["labels"]
    return labels


def label_twice(card: Card) -> None:
    labels_of(card)[2] = labels_of(card)[0]


def key_twice(card: Card) -> None:
    card["features"][1]["key"] = card["features"][0]["key"]


def feature(**values: object) -> Callable[[Card], None]:
    return lambda card: card["features"][1].update(values)


def drawn(*leaves: list[float], length: str = "petal_length") -> Callable[[Card], None]:
    """Give the card a picture of leaves with these angles."""
    return lambda card: card.update(
        picture=[{"length": length, "width": "petal_width", "angles": angles} for angles in leaves]
    )


BROKEN_CARDS: dict[str, tuple[Callable[[Card], object], str]] = {
    "a label twice": (label_twice, "different labels"),
    "one label": (lambda card: card["target"].update(labels=["a"]), "different labels"),
    "no labels": (lambda card: card["target"].update(labels=[]), "different labels"),
    "a label too many": (lambda card: labels_of(card).append("more"), "report does not have one entry for each label"),
    "too many labels": (lambda card: card["target"].update(labels=[*map(str, range(1_001))]), "different labels"),
    "a key twice": (key_twice, "different keys"),
    "an empty key": (feature(key=""), "different keys"),
    "no features": (lambda card: card.update(features=[]), "features"),
    "a feature with other quantiles": (
        lambda card: card["features"][0]["quantiles"].pop(), "do not have the same number of quantiles"
    ),
    "no quantiles": (
        lambda card: [feature.update(quantiles=[]) for feature in card["features"]], "the same number of quantiles"
    ),
    "a feature too few": (lambda card: card["features"].pop(), "the picture is drawn from features"),
    "a feature too many": (
        lambda card: card["features"].append({**card["features"][0], "key": "another"}), "golden_rows has shape"
    ),
    "a label that is a number": (lambda card: labels_of(card).append(5), "the card is not valid"),
    "a long label": (lambda card: labels_of(card).__setitem__(1, "x" * 1_001), "of length <= 1000"),
    "a long key": (feature(key="x" * 1_001), "of length <= 1000"),
    "a long title": (feature(title="x" * 1_001), "of length <= 1000"),
    "a long unit": (feature(unit="x" * 1_001), "of length <= 1000"),
    "a long name": (lambda card: card.update(name="x" * 1_001), "of length <= 1000"),
    "a long source": (lambda card: card.update(source="x" * 1_001), "of length <= 1000"),
    "a digest that is none": (lambda card: card.update(data_digest="\x1b[31m"), "the card is not valid"),
    "a version that is no word": (lambda card: card["libraries"].update(numpy="\x1b[31m"), "the card is not valid"),
    "an accuracy above 1": (lambda card: card["report"].update(accuracy=1.5), "the card is not valid"),
    "a count that no float holds": (
        lambda card: card["report"]["confusion"][0].__setitem__(0, 10**400), "the card is not valid"
    ),
    "a range upside down": (feature(low=9.0), "do not fit together"),
    "an example outside the range": (feature(example=99.0), "do not fit together"),
    "a range below the minimum": (feature(minimum=2.5), "do not fit together"),
    "a range above the maximum": (feature(maximum=2.5), "do not fit together"),
    "quantiles in disorder": (feature(quantiles=[2.0, 1.0]), "quantiles are not ascending"),
    "a minimum that is text": (feature(minimum="0"), "the card is not valid"),
    "thousands of words": (feature(thousands="or so"), "'or so' is no mark between thousands"),
    "one mark for both": (feature(thousands="."), "'.' is no mark between thousands"),
    "limits of a category": (
        feature(choices=["a"], counts=[1], minimum=0.0, low=0.0, high=0.0, example=0.0, quantiles=[0.0] * 11),
        "is a category, and has limits",
    ),
    "an unknown field": (lambda card: card.update(future=1), "the card is not valid"),
    "a missing field": (lambda card: card.pop("name"), "the card is not valid"),
    "a precision too few": (lambda card: card["report"]["precision"].pop(), "report"),
    "a recall too many": (lambda card: card["report"]["recall"].append(1.0), "report"),
    "a confusion too small": (lambda card: card["report"]["confusion"].pop(), "report"),
    "a confusion that is not square": (lambda card: card["report"]["confusion"][1].append(0), "report"),
    "trees that are text": (lambda card: card.update(trees="4"), "the card is not valid"),
    "a picture of too many kinds of shapes": (drawn(*[[]] * (MAX_SHAPES + 1)), "the picture has more than 64 shapes"),
    "a picture of a shape at too many angles": (drawn([0.0] * (MAX_SHAPES + 1)), "the picture has more than 64 shapes"),
    "a picture of too many shapes together": (drawn([0.0] * MAX_SHAPES, [0.0]), "the picture has more than 64 shapes"),
    "a picture of no feature": (drawn([0.0], length="height"), "features that the model does not have"),
}  # fmt: skip


@for_each("broken", BROKEN_CARDS)
def test_a_broken_card_is_refused_with_what_is_wrong(good: bytes, broken: str) -> None:
    change, words = BROKEN_CARDS[broken]

    assert words in refused(with_card(good, lambda whole: change(whole["card"])))


def test_a_picture_may_have_as_many_leaves_as_are_allowed(good: bytes) -> None:
    changed = with_card(good, lambda whole: drawn([0.0] * (MAX_SHAPES - 1), [90.0])(whole["card"]))

    assert sum(len(shape.angles) for shape in serve(changed).card.picture) == MAX_SHAPES


def test_a_key_of_several_lines_is_told_in_one(good: bytes) -> None:
    broken = feature(key="two\nlines\x1b[31m", low=9.0)

    refused(with_card(good, lambda whole: broken(whole["card"])))


@pytest.mark.parametrize("number", [b"1e999", b"NaN", b"Infinity", b"-Infinity"])
def test_a_card_with_a_number_that_is_not_finite_is_refused(good: bytes, number: bytes) -> None:
    encoded = dict(members_of(good))[CARD]
    key = b'"example": '
    start = encoded.index(key) + len(key)
    stop = min(encoded.index(end, start) for end in (b",", b"\n"))

    refused(with_member(good, CARD, encoded[:start] + number + encoded[stop:]))


@pytest.mark.parametrize("limits", [{"minimum": -1e300, "maximum": 1e300}, {"minimum": None, "maximum": None}])
def test_limits_wider_than_float32_are_as_good_as_none(good: bytes, limits: dict[str, float | None]) -> None:
    model = serve(with_card(good, lambda whole: whole["card"]["features"][0].update(limits)))

    assert model.predict(model.validator.row(["5", "3", "4", "1"])).label in model.labels


def test_a_range_that_float32_cannot_hold_is_refused(good: bytes) -> None:
    beyond: Card = {"minimum": 1e39, "low": 1e40, "example": 1e40, "high": 1e41, "maximum": None, "quantiles": []}

    refused(with_card(good, lambda whole: whole["card"]["features"][0].update(beyond)))


IMPOSSIBLE_RECIPES = [
    {"seed": -1}, {"seed": 2**32}, {"test_size": 0.0}, {"test_size": 1.0}, {"test_size": 5.0}, {"test_size": -0.2},
    {"test_size": 1e308}, {"trees": 0}, {"depth": 0}, {"leaf": 0},
]  # fmt: skip


@for_each("recipe", IMPOSSIBLE_RECIPES)
def test_a_recipe_that_nothing_can_be_trained_with_is_refused(good: bytes, recipe: dict[str, object]) -> None:
    assert "recipe" in refused(with_card(good, lambda whole: whole["card"]["recipe"].update(recipe)))


# Random corruption with a right checksum: a model that answers its golden rows, or one sentence.


def outcome(content: bytes, *, good: bytes) -> str:
    """Return `served` or `refused`; fail on anything else, and on a model that answers golden rows in another way."""
    model, sentence = served_or_refused(content)
    if model is None:
        assert sentence.isprintable(), sentence
        assert 0 < len(sentence) < 600
        return "refused"
    original = arrays_of(good)
    rows, expected = original["golden_rows"], original["golden_answers"]
    assert np.array_equal(model.predict_batch(rows).outputs, expected)
    singles = map(model.predict, rows.tolist())
    assert [one.probabilities or (one.value,) for one in singles] == list(map(tuple, expected.tolist()))
    return "served"


def served_or_refused(content: bytes) -> tuple[LoadedModel | None, str]:
    try:
        return serve(content), ""
    except ModelFileError as error:
        return None, str(error)


def corrupted(content: bytes, rng: random.Random, *, start: int = 0) -> bytes:
    """Return the bytes with one to three random changes: set, flip, cut out, insert, copy, extreme integers."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place = rng.randrange(min(start, len(changed)), len(changed) + 1)
        size = rng.randrange(1, 9)
        match rng.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])])
            case 1 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 2:
                del changed[place : place + size]
            case 3:
                changed[place:place] = rng.randbytes(size)
            case 4 if len(changed) > size:
                source = rng.randrange(len(changed) - size)
                changed[place : place + size] = changed[source : source + size]
            case _:
                extreme = rng.choice([0, 2**31 - 1, 2**31, 2**32 - 1, len(changed), rng.randrange(2**32)])
                changed[place : place + 4] = struct.pack("<I", extreme)
    return bytes(changed)


def tally(outcomes: Iterator[str]) -> dict[str, int]:
    counts = {"served": 0, "refused": 0}
    for one in outcomes:
        counts[one] += 1
    return counts


@pytest.mark.slow
def test_random_corruption_of_the_archive_is_refused_or_harmless(good: bytes) -> None:
    rng = random.Random(1)
    directory = good.index(CENTRAL)

    counts = tally(
        outcome(signed(corrupted(good, rng, start=rng.choice([0, directory]))), good=good) for _ in range(1_000)
    )

    assert counts["refused"] > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", [CARD, *(f"{name}.npy" for name in ARRAYS)])
def test_random_corruption_of_a_member_is_refused_or_harmless(good: bytes, name: str) -> None:
    rng = random.Random(name)
    member = dict(members_of(good))[name]

    counts = tally(outcome(with_member(good, name, corrupted(member, rng)), good=good) for _ in range(100))

    assert counts["refused"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ARRAYS)
def test_random_corruption_of_an_arrays_header_is_refused_or_harmless(good: bytes, name: str) -> None:
    rng = random.Random(name)
    member = dict(members_of(good))[f"{name}.npy"]
    length = 10 + struct.unpack_from("<H", member, 8)[0]

    counts = tally(
        outcome(with_member(good, f"{name}.npy", corrupted(member[:length].rstrip(), rng) + member[length:]), good=good)
        for _ in range(70)
    )

    assert counts["refused"] > 35


EXTREMES = (0, 1, -1, -2, 2, 3, 7, 8, 2**31 - 1, -(2**31), 0.5, 1e-320, 5.0, 1e38, -1e38, 1e39, 1e300, np.nan, np.inf)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("kind", ["forest", "boosted"])
def test_random_elements_of_an_array_are_refused_or_harmless(good: bytes, boosted: bytes, kind: str, name: str) -> None:
    if kind == "boosted":
        good = boosted
    elif name in BOOSTED:
        pytest.skip("it has none")
    rng = random.Random(name)
    array = arrays_of(good)[name]

    def one() -> str:
        changed = array.copy().ravel()
        for _ in range(rng.choice([1, 1, 2, 5])):
            value = rng.choice([value for value in EXTREMES if fits(value, changed.dtype)])
            changed[rng.randrange(len(changed))] = value
        return outcome(with_arrays(good, **{name: changed.reshape(array.shape)}), good=good)

    counts = tally(one() for _ in range(50))

    assert counts["refused"] > 3


def fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return True
    return float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from paths_of(child, (*path, key))


JSON_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    -1e308,
    2**63,
    10**40,
    "",
    "x",
    "\x00\n",
    "\u202e",
    "x" * 2_000,
    [],
    [None],
    {},
    {"a": 1},
)


@pytest.mark.slow
def test_random_values_in_the_card_are_refused_or_harmless(good: bytes) -> None:
    rng = random.Random(2)
    whole = json.loads(dict(members_of(good))[CARD])
    places = [path for path in paths_of(whole) if path]

    def one(path: tuple[Any, ...], value: object) -> str:
        changed = json.loads(json.dumps(whole))
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if value is KeyError:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
        return outcome(with_member(good, CARD, json.dumps(changed).encode()), good=good)

    everywhere = [(path, rng.choice([*JSON_VALUES, KeyError])) for path in places for _ in range(6)]
    counts = tally(one(path, value) for path, value in everywhere)

    assert counts["refused"] > len(everywhere) / 2


# Boosted models: sums, links and sets.


def test_the_exp_of_another_machine_makes_no_good_model_refused(boosted: bytes) -> None:
    answers = arrays_of(boosted)["golden_answers"]
    rng = np.random.default_rng(0)
    elsewhere = answers + rng.integers(-2, 3, answers.shape) * np.spacing(answers)

    assert serve(with_arrays(boosted, golden_answers=elsewhere)).labels == ("x", "y", "z")


def test_golden_answers_that_are_further_off_are_refused(boosted: bytes) -> None:
    answers = arrays_of(boosted)["golden_answers"]

    assert "golden row 7" in refused(with_element(boosted, "golden_answers", (7, 0), answers[7, 0] + 1e-14))


def test_a_golden_sum_with_another_last_bit_is_refused(boosted: bytes) -> None:
    sums = arrays_of(boosted)["golden_sums"]

    sentence = refused(with_element(boosted, "golden_sums", (3, 1), np.nextafter(sums[3, 1], np.inf)))

    assert "other sums" in sentence


def with_total(content: bytes, **changes: Any) -> bytes:
    return with_card(content, lambda whole: whole["card"]["total"].update(changes))


@for_each(
    ("changes", "sentence"),
    [
        ({"link": "sigmoid"}, "link"),
        ({"link": "expit"}, "3 sums do not fit the link expit"),
        ({"label_by": "positive"}, "3 sums do not fit"),
        ({"divisor": 0.0}, "divisor"),
        ({"divisor": -1.0}, "divisor"),
        ({"divisor": 3.0}, "golden row"),
        ({"link": "samme"}, "golden row"),
        ({"single_sums": True}, "other sums"),
        ({"link": "identity"}, "golden_sums has shape"),
        ({"link": "exp"}, "golden row"),
    ],
)
def test_an_arithmetic_that_does_not_fit_is_refused(boosted: bytes, changes: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(with_total(boosted, **changes))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("values", np.inf, "tree 0 has a leaf of inf, not a finite number"),
        ("values", 1e39, "the answer can be 1e+39 (a leaf of tree 0 adds 1e+39)"),
        ("init", np.nan, "do not start with one finite number"),
        ("output_of", 3, "one sum each"),
        ("output_of", -1, "one sum each"),
        ("set_of", 2**30, "a node has a set outside"),
        ("set_of", -2, "a node has a set outside"),
    ],
)
def test_sums_and_sets_that_lead_outside_are_refused(boosted: bytes, name: str, value: float, sentence: str) -> None:
    array = arrays_of(boosted)[name]

    assert sentence in refused(with_element(boosted, name, (0,) * array.ndim, value))


def test_a_set_at_a_leaf_and_a_set_of_a_number_are_refused(boosted: bytes) -> None:
    arrays = arrays_of(boosted)
    leaf, number = np.flatnonzero(arrays["feature"] == LEAF)[0], np.flatnonzero(arrays["feature"] == 1)[0]

    assert "a leaf has a set" in refused(with_element(boosted, "set_of", leaf, 0))
    assert "a set and a threshold" in refused(with_element(boosted, "set_of", number, 0))


def test_a_set_of_a_feature_without_choices_is_refused(boosted: bytes) -> None:
    def change(whole: Card) -> None:
        whole["card"]["features"][0].update(choices=[], counts=[])

    assert "is compared by sets, but has no choices" in refused(with_card(boosted, change))


def test_sets_and_the_sets_of_nodes_go_together(boosted: bytes) -> None:
    assert "go together" in refused(with_arrays(boosted, sets=np.empty((0, 4), dtype="<u8")))
    assert "one sum each" in refused(with_arrays(boosted, init=np.empty(0)))


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"max_cells": 0}, {"max_cells": 0, "compiles": False}], ids=str)
def test_sets_that_no_node_has_change_nothing(good: bytes, limits: dict[str, Any]) -> None:
    nodes = len(arrays_of(good)["feature"])
    unused = with_arrays(good, set_of=np.full(nodes, -1, dtype="<i4"), sets=np.ones((2, 4), dtype="<u8"))

    model = LoadedModel(modelfile.parse(unused), "x", **limits)

    assert np.array_equal(
        model.predict_batch(arrays_of(good)["golden_rows"]).outputs, arrays_of(good)["golden_answers"]
    )
