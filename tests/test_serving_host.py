"""A host that only serves: what web/requirements.txt installs is small, serves any model, and says what it lacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Set
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sklearn.ensemble import RandomForestClassifier

import ml
from ml.model.loaded import load_model
from tests import library_files
from tests.conftest import ROOT, free_port, run_procfile, start_server

REQUIREMENTS = ROOT / "web" / "requirements.txt"
MOST_MB = 200
# What pip says where it cannot reach a registry.
UNREACHABLE = re.compile(r"connection|timed out|name resolution|network is unreachable|proxy", re.IGNORECASE)


@pytest.fixture(scope="module", params=["linked", pytest.param("installed", marks=pytest.mark.long)])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with web/requirements.txt and nothing else, not even pip.

    Its packages are linked to those of the tests; `make audit` has pip install them, which takes 20 s.
    """
    folder = tmp_path_factory.mktemp("host") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = str(folder / "bin" / "python")
    if request.param == "linked":
        (packages,) = folder.glob("lib/python*/site-packages")
        pinned = re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
        for name, version in pinned:
            link(
                distribution(name), packages, version=version, others={canonicalize_name(other) for other, _ in pinned}
            )
        return python
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--retries", "1"]
    install = subprocess.run(
        [*pip, "install", "--quiet", "--requirement", REQUIREMENTS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if install.returncode and UNREACHABLE.search(install.stderr) and os.environ.get("CI") != "true":
        pytest.skip("the package registry cannot be reached, from which the environment of a host is installed")
    assert install.returncode == 0, install.stderr
    assert subprocess.run([*pip, "check"], capture_output=True, check=False).returncode == 0
    return python


def link(package: Distribution, folder: Path, *, version: str, others: Set[str]) -> None:
    """Put the files of a package into a folder; it must have this version, and need no others than these."""
    assert package.version == version, f"{package.name} {package.version} is installed, not the pinned {version}"
    for needed in map(Requirement, package.requires or ()):
        is_needed = not needed.marker or needed.marker.evaluate({"extra": ""})
        assert not is_needed or canonicalize_name(needed.name) in others, needed
    for file in package.files or ():
        if ".." not in file.parts:  # a script is none of its modules
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).symlink_to(file.locate())


def get(url: str, *, content: bytes | None = None, kind: str = "text/csv") -> str:
    asked = urllib.request.Request(url, content, {"Content-Type": kind, "Accept": "application/json"})
    with urllib.request.urlopen(asked, timeout=20) as response:
        return str(response.read().decode())


@pytest.mark.slow
def test_what_a_serving_host_installs_is_small_and_trains_nothing(python: str) -> None:
    (packages,) = Path(python).parent.parent.glob("lib/python*/site-packages")

    size = int(subprocess.run(["du", "-smL", packages], capture_output=True, check=True).stdout.split()[0])

    assert size <= MOST_MB
    found = {path.name for path in packages.iterdir()}
    assert not found & {"sklearn", "scipy", "numba", "llvmlite", "pyarrow", "pandas", "pip"}


@pytest.mark.slow
def test_a_serving_host_answers_people_programs_and_tables(python: str, model_path: Path, tmp_path: Path) -> None:
    sample = {"sepal_length": 5.6, "sepal_width": 2.7, "petal_length": 4.2, "petal_width": 1.3}
    table = f"{','.join(sample)}\n{','.join(map(str, sample.values()))}\n"

    with run_procfile(tmp_path / "log.txt", python=python, MODEL_FILE=str(model_path)) as server:
        page = urllib.request.urlopen(server.url, timeout=20).read().decode()
        script = get(f"{server.url}/static/htmx-2.min.js")
        answer = json.loads(
            get(f"{server.url}/predict", content=json.dumps({"sample": sample}).encode(), kind="application/json")
        )
        scored = get(f"{server.url}/score", content=table.encode())

    assert "setosa" in page
    assert "htmx" in script
    assert answer["label"] == "versicolor"
    assert scored.splitlines()[1].startswith("5.6,2.7,4.2,1.3,versicolor,")


@pytest.mark.slow
def test_a_serving_host_evaluates_a_large_forest_without_a_compiler_and_says_so(python: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(400, 8))
    classes = rows.sum(axis=1) > 0
    forest = RandomForestClassifier(20, random_state=0).fit(rows[:300], classes[:300])
    ml.export(
        forest, rows[300:], classes[300:], feature_names=[f"x{n}" for n in range(8)], path=tmp_path / "wide.npz",
        insist=True,
    )  # fmt: skip

    with run_procfile(tmp_path / "log.txt", python=python, MODEL_FILE=str(tmp_path / "wide.npz")) as server:
        asked = json.dumps({"samples": rows[:50].tolist()}).encode()
        answers = json.loads(get(f"{server.url}/predict", content=asked, kind="application/json"))["predictions"]

    assert [[*answer["probabilities"].values()] for answer in answers] == forest.predict_proba(rows[:50]).tolist()
    assert "numba cannot be used (No module named 'numba')" in server.log.read_text()


@pytest.mark.slow
def test_a_serving_host_without_a_model_file_says_what_would_make_one(python: str, tmp_path: Path) -> None:
    server = start_server(tmp_path / "log.txt", free_port(), {"MODEL_FILE": str(tmp_path / "none.npz")}, python=python)

    assert server.process.wait(60) != 0
    log = server.log.read_text()
    assert "training the built-in model failed: scikit-learn is not installed, by which models are trained: " in log
    assert "python -m pip install --requirement" in log
    assert "MODEL_FILE can name a file that is there" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_serving_host_reads_a_model_of_another_library(python: str, tmp_path: Path) -> None:
    file = library_files.xgboost([library_files.Split(0, 0.5, -2.0, 2.0)], objective="binary:logistic")
    (tmp_path / "plants.json").write_text(json.dumps(file, separators=(",", ":")))
    rows = [f"{n / 10},{n},{'low' if n < 5 else 'high'}" for n in range(10)]
    (tmp_path / "rows.csv").write_text("\n".join(["length (cm),width (cm),kind", *rows]) + "\n")

    files = ["plants.json", "--data", "rows.csv", "--labels", "low,high", "--out", "plants.npz"]
    importing = subprocess.run(
        [python, "-m", "ml", "import", *files], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (importing.returncode, importing.stderr) == (0, "")
    assert load_model(tmp_path / "plants.npz").card.libraries.keys() == {"xgboost", "numpy"}
