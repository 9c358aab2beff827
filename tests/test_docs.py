"""The documents are held to the code: their commands run, their tables, paths and names are what there is."""

from __future__ import annotations

import glob
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from starlette.testclient import TestClient
from websockets.sync.client import connect

from ml.model.loaded import load_model
from ml.training.fitting import Trained
from tests.conftest import ROOT, Server, output_of
from web.settings import Settings

README = (ROOT / "README.md").read_text()
DOCUMENTS = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md", "web/README.md", "web/deploy.md", "web/page/locale/README.md", "ml/README.md", "tests/README.md",
    )
}  # fmt: skip
DOCS = "\n".join(DOCUMENTS.values())
MOST_LINES = 180  # of the README
SHIPPED = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language; plain blocks have none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", DOCS, flags=re.DOTALL | re.MULTILINE)
    return [block for found, block in fences if found == language]


def section(title: str) -> str:
    return DOCS.split(f"\n## {title}\n")[1].split("\n## ")[0].split("\n# ")[0]


def table(title: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def run(command: str | list[str], folder: Path, **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        command, shell=isinstance(command, str), cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def ml(command: str, folder: Path) -> str:
    """Run a command of ml as a shell does, but for the start of Python."""
    python, *arguments = shlex.split(command)
    assert [python, *arguments[:2]] == ["python", "-m", "ml"]
    return output_of(
        *(path for word in arguments[2:] for path in sorted(glob.glob(word, root_dir=folder)) or [word]), cwd=folder
    )


def test_the_settings_table_is_the_settings() -> None:
    rows = table("Settings")

    assert rows == [
        [
            f"`{setting.metadata['variable']}`",
            f"`{setting.default}`" if setting.default not in ((), "") else "",
            setting.metadata["unit"],
            setting.metadata["meaning"],
        ]
        for setting in fields(Settings)
    ]


def test_the_readme_is_short_and_every_document_is_reached_from_it() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    assert set(re.findall(r"\]\(([\w/]+\.md)\)", README)) == DOCUMENTS.keys() - {"README.md"}


def test_every_path_that_a_document_names_is_there() -> None:
    missing = [
        f"{name}: {path}"
        for name, text in DOCUMENTS.items()
        for path in re.findall(r"`((?:web|ml|tests|templates|static)/[\w/.]+)`", text)
        if not (ROOT / path).exists()
    ]

    assert missing == []


def test_one_prediction_travels_as_the_readme_says(client: TestClient) -> None:
    """The functions and classes that the README names are called, in that order."""
    travels = section("How one prediction travels")
    keystroke, frame = (re.search(rf"^{start}(.*?)(?=^A frame|^A file|^There)", travels, re.DOTALL | re.MULTILINE)
                        for start in ("A keystroke", "A frame"))  # fmt: skip
    assert keystroke
    assert frame
    query = "sepal_length=5.6&sepal_width=2.7&petal_length=4.2&petal_width=1.3"

    asked = called(client, lambda: client.get(f"/predict?{query}", headers={"HX-Request": "true"}).raise_for_status())
    with client.websocket_connect("/stream") as stream:
        stream.receive_json()

        def exchange() -> None:
            stream.send_json({"sample": [5.6, 2.7, 4.2, 1.3]})
            stream.receive_json()

        sent = called(client, exchange)

    for found, said in ((asked, keystroke[1]), (sent, frame[1])):
        names = [name.split(".")[-2:] for name in re.findall(r"`((?:\w+\.)+\w+)`", said)]
        steps = [found.index(step) for name in names if (step := ".".join(name)) in found]
        assert len(steps) >= 3, names
        assert steps == sorted(steps)
    for name in re.findall(r"`(web\.[\w.]+\.[A-Z]\w+)`", travels):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def called(client: TestClient, act: Callable[[], object]) -> list[str]:
    """Return what of ours the service calls while `act` runs: `Class.function`, in the order of the calls."""
    found: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith((f"{ROOT}/web", f"{ROOT}/ml")):
            found.append(".".join(code.co_qualname.split(".")[-2:]))

    assert client.portal
    client.portal.call(sys.setprofile, note)  # in the thread of the event loop
    act()
    client.portal.call(sys.setprofile, None)
    return found


def test_the_dependency_table_is_the_direct_requirements() -> None:
    serving, all_of_it = (
        [*re.findall(r"^([A-Za-z0-9_-]+)==", (ROOT / name).read_text().split("# what these bring along")[0], re.M)]
        for name in ("web/requirements.txt", "requirements.txt")
    )

    rows = table("Dependencies")

    assert sorted(name for row in rows for name in row[0].split(", ")) == sorted([*serving, *all_of_it])
    assert sorted(name for row in rows for name in row[0].split(", ") if row[1]) == sorted(serving)


def test_what_heroku_installs_has_what_a_serving_host_installs() -> None:
    assert "\n-r web/requirements.txt\n" in (ROOT / "requirements.txt").read_text()


def test_make_check_leaves_out_every_kind_of_test_that_takes_long() -> None:
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    (command,) = re.findall(
        r"^check:.*?-m \"([^\"]*)\"", (ROOT / "Makefile").read_text(), flags=re.MULTILINE | re.DOTALL
    )

    # What is said with -m takes the place of what pyproject.toml leaves out.
    assert command.split(" and ") == [f"not {marker.partition(':')[0]}" for marker in markers]


def test_the_make_commands_are_targets() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)

    assert set(re.findall(r"\bmake ([a-z]+)", DOCS)) - {"sure"} <= set(targets)


def test_the_curl_commands_get_predictions(server: Server, tmp_path: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl -s")]
    assert shutil.which("curl"), "the README's commands need curl"

    answers = [json.loads(run(command.replace(SHIPPED, server.url), tmp_path)) for command in commands]

    assert len(answers) == 3
    assert answers[0]["label"] == answers[2]["label"] == answers[1]["predictions"][0]["label"] == "versicolor"


def test_the_websocket_client_prints_predictions(server: Server, tmp_path: Path) -> None:
    (program,) = [block for block in blocks("python") if "websockets" in block]
    lines = [line for line in program.splitlines() if line.strip()]

    printed = run([sys.executable, "-c", program.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")], tmp_path)

    assert len(lines) <= 10
    assert [line.split()[:2] for line in printed.splitlines()[1:]] == [["0", "versicolor"], ["1", "setosa"]]


def test_the_inference_client_gets_a_prediction(server: Server, tmp_path: Path) -> None:
    (program,) = [block for block in blocks("python") if "triton" in block]

    printed = run([sys.executable, "-c", program.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")], tmp_path)

    assert printed.startswith("[b'versicolor' b'setosa']")


def test_the_library_gets_predictions(server: Server, tmp_path: Path) -> None:
    (program,) = [block for block in blocks("python") if "web.client" in block]

    printed = run([sys.executable, "-c", program.replace(SHIPPED, server.url)], tmp_path).splitlines()

    assert printed[0].startswith("Prediction(label='versicolor'")
    assert printed[1].startswith("Refused(")


def test_the_client_streams_a_file(server: Server, measurements: Path) -> None:
    (command,) = [block for block in blocks("sh") if "web.client" in block]

    run(command.replace(SHIPPED, server.url), measurements)

    assert len((measurements / "predictions.csv").read_text().splitlines()) == 151


def test_the_example_frames_are_answered(server: Server) -> None:
    (frames,) = [block.splitlines() for block in blocks("json")]

    with connect(server.stream_url) as stream:
        stream.recv()
        replies = []
        for frame in frames:
            stream.send(frame)
            replies.append(json.loads(stream.recv()))

    assert [(reply["id"], reply["type"]) for reply in replies] == [(1, "prediction"), (2, "predictions")]


@pytest.fixture
def measurements(trained: Trained, tmp_path: Path) -> Path:
    """A folder with the files that the README's commands speak of."""
    header = [f"{feature.title} ({feature.unit})" for feature in trained.features]
    rows = np.concatenate([trained.split.train_rows, trained.split.test_rows])
    classes = np.concatenate([trained.split.train_classes, trained.split.test_classes])
    lines = [
        ",".join([*map(str, row), trained.target.labels[index]])
        for row, index in zip(rows.tolist(), classes, strict=True)
    ]
    (tmp_path / "measurements.csv").write_text("\n".join([",".join([*header, "species"]), *lines]))
    (tmp_path / "rows.csv").write_text("\n".join([",".join(header), *(line.rpartition(",")[0] for line in lines)]))
    return tmp_path


def test_the_curl_commands_score_a_file(server: Server, measurements: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("curl") and "rows.csv" in line]

    tables = []
    for command in commands:
        run(command.replace(SHIPPED, server.url), measurements)
        tables.append((measurements / "predictions.csv").read_text().splitlines())

    assert len(tables) == 2
    assert tables[0] == tables[1]
    assert "predicted_label" in tables[0][0]
    assert len(tables[0]) == 151


@pytest.mark.slow
def test_the_commands_train_predict_inspect_and_score(measurements: Path, model_path: Path) -> None:
    training, using, many = (block.splitlines() for block in blocks("sh") if block.startswith("python -m ml"))
    for name in ("rows/1.csv", "archive/2026-01.csv"):
        (measurements / name).parent.mkdir()
        shutil.copy(measurements / "rows.csv", measurements / name)
    shutil.copy(model_path, measurements / "model.npz")

    trained, *printed = [ml(command, measurements) for command in [training[0], *using, *many]]

    assert "species.npz: version" in trained
    assert training[1] == "MODEL_FILE=species.npz make serve"
    assert printed[0].startswith("versicolor (class 1)")
    assert json.loads(printed[1])["label"] == "versicolor"
    assert printed[2].startswith("iris, version")
    for name in ("predictions.csv", "scored/1.csv", "scored/2026-01.csv"):
        assert len((measurements / name).read_text().splitlines()) == 151


def test_the_export_writes_a_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [block for block in blocks("python") if "ml.export" in block]
    rows = np.random.default_rng(0).random((60, 2))
    classes = np.where(rows[:, 0] > rows[:, 1], "wide", "high")
    table = pd.DataFrame(rows, columns=["width (cm)", "height (cm)"])
    names = {
        "pipeline": make_pipeline(StandardScaler(), RandomForestClassifier(10)).fit(table[:40], classes[:40]),
        "X_test": table[40:],
        "y_test": classes[40:],
    }
    monkeypatch.chdir(tmp_path)

    exec(compile(program, "README.md", "exec"), names)

    assert load_model(tmp_path / "boxes.npz").labels == ("high", "wide")
