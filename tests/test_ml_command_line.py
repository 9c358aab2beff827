"""python -m ml, as a person runs it: what it prints, what it refuses, and how it exits."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ml.cli.console import RELEASE
from ml.cli.options import EXAMPLES, read
from ml.cli.reports import report_lines
from ml.model import modelfile
from ml.model.card import Report
from ml.model.loaded import load_model
from ml.tables.dataset import Target
from ml.training.fitting import Trained
from tests.conftest import output_of, run, run_on

ROOT = Path(__file__).parent.parent
SAMPLE = ("5.6", "2.7", "4.2", "1.3")


def error_of(*arguments: str | Path, cwd: Path) -> str:
    """Return the one line on standard error of a command that fails with status 1 and prints nothing else."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def training_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory in which python -m ml train ran, and what it printed."""
    directory = tmp_path_factory.mktemp("train")
    return directory, output_of("train", cwd=directory)


def test_train_prints_the_report(training_run: tuple[Path, str]) -> None:
    _, printed = training_run

    assert "accuracy   0.933 on 30 test rows (trained on 120)" in printed
    assert "baseline   0.333 " in printed
    assert re.search(r"^10-fold +0\.9\d\d ± 0\.0\d\d cross-validated accuracy$", printed, re.MULTILINE)
    words = [line.split() for line in printed.splitlines()]
    assert ["setosa", "1.000", "1.000", "10", "0", "0"] in words
    assert ["versicolor", "0.833", "1.000", "0", "10", "0"] in words
    assert ["virginica", "1.000", "0.800", "0", "2", "8"] in words


def test_train_writes_one_file_and_says_that_it_agrees(training_run: tuple[Path, str]) -> None:
    directory, printed = training_run

    assert os.listdir(directory) == ["model.npz"]
    version = modelfile.version_of((directory / "model.npz").read_bytes())
    assert f"model.npz: version {version}, read back, and all 30 test rows give scikit-learn's probabilities" in printed


def test_a_trained_file_answers_like_scikit_learn(training_run: tuple[Path, str], built_in: Trained) -> None:
    model = load_model(training_run[0] / "model.npz")

    answers = model.predict_batch(built_in.split.test_rows).outputs

    assert (answers == built_in.estimator.predict_proba(built_in.split.test_rows)).all()


def test_predict_prints_the_label_its_class_and_the_probabilities(training_run: tuple[Path, str]) -> None:
    lines = output_of("predict", *SAMPLE, cwd=training_run[0]).splitlines()

    assert lines[0] == "versicolor (class 1)"
    assert [line.split() for line in lines[1:4]] == [["setosa", "0.0"], ["versicolor", "1.0"], ["virginica", "0.0"]]


@pytest.mark.parametrize(
    "values", [("5,6", "2,7", "4,2", "1,3"), ("5.6", " 2.7 ", "+4.2", "13e-1"), ("5.60", "2.70", "4.20", "1.30")]
)
def test_predict_reads_numbers_as_a_person_types_them(
    model_path: Path, tmp_path: Path, values: tuple[str, ...]
) -> None:
    expected = output_of("predict", "--model", model_path, *SAMPLE, cwd=tmp_path)

    assert output_of("predict", "--model", model_path, *values, cwd=tmp_path) == expected


def test_json_may_stand_anywhere_among_the_values(model_path: Path, tmp_path: Path) -> None:
    expected = output_of("predict", "--json", model_path, *SAMPLE, cwd=tmp_path)

    assert msgspec.json.decode(expected)["label"] == "versicolor"
    assert output_of("predict", model_path, "--json", *SAMPLE, cwd=tmp_path) == expected
    assert output_of("predict", model_path, SAMPLE[0], "--json", *SAMPLE[1:], cwd=tmp_path) == expected


def test_predict_notes_what_is_outside_the_training_range(model_path: Path, tmp_path: Path) -> None:
    printed = output_of("predict", "--model", model_path, "5.6", "2.7", "4.2", "9", cwd=tmp_path)

    assert "note: petal width is outside the training range of 0.1 to 2.5 cm\n" in printed


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("5.6", "2.7", "x", "1.3"), "petal length: 'x' is not a number"),
        (("5.6", "2.7", "4.2"), "3 of 4 values are given; in their order: sepal_length, sepal_width, petal"),
        ((*SAMPLE, "1"), "a sample has 4 values, not 5"),
        (("5.6", "-2.7", "4.2", "1.3"), "sepal width must be 0 cm or more, not -2.7"),
        (("5.6", "\u22122,7", "4.2", "1.3"), "sepal width must be 0 cm or more, not \u22122,7"),
        (("nan", "2.7", "4.2", "1.3"), "sepal length: 'nan' is not a number"),
        (("1e39", "2.7", "4.2", "1.3"), "sepal length is too large for a 32-bit float"),
        (("", "2.7", "4.2", "1.3"), "sepal length is missing"),
        (("x" * 10_000, "2.7", "4.2", "1.3"), "sepal length: 'xxx"),
        (("a\nb", "2.7", "4.2", "1.3"), "sepal length: 'a\\nb' is not a number"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_predict_refuses_a_bad_sample_in_one_line(
    model_path: Path, tmp_path: Path, values: tuple[str, ...], words: str
) -> None:
    error = error_of("predict", "--model", model_path, *values, cwd=tmp_path)

    assert words in error
    assert len(error) < 500


NAMED = ("petal_width=1,3", "petal_length=4.2", "sepal_length=5.6", "sepal_width=2.7")


def test_predict_takes_values_by_name_and_the_model_first(model_path: Path, tmp_path: Path) -> None:
    expected = output_of("predict", "--model", model_path, *SAMPLE, cwd=tmp_path)

    assert output_of("predict", model_path, *NAMED, cwd=tmp_path) == expected
    assert output_of("predict", model_path, *SAMPLE, cwd=tmp_path) == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (NAMED[:3], "sepal width is missing"),
        ((*NAMED, "petal_width=1"), "petal_width is given twice"),
        ((*NAMED[:3], "2.7"), "'2.7' has no name: give all values as name=value, or all in the order of the features"),
        (("petal=1",), "no feature is called 'petal': sepal_length, sepal_width, petal_length, petal_width"),
        ((*NAMED[:3], "sepal_width=x"), "sepal width: 'x' is not a number"),
    ],
)
def test_predict_refuses_names_that_are_not_clear(
    model_path: Path, tmp_path: Path, values: tuple[str, ...], words: str
) -> None:
    assert words in error_of("predict", model_path, *values, cwd=tmp_path)


@pytest.mark.parametrize("value", ["-1e3", "-,5", "-.5e1"])
def test_predict_reads_every_negative_number(model_path: Path, tmp_path: Path, value: str) -> None:
    assert f"must be 0 cm or more, not {value}" in error_of(
        "predict", "--model", model_path, *SAMPLE[:3], value, cwd=tmp_path
    )


def test_predict_and_inspect_do_without_scikit_learn(model_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ml.__main__ import main\n"
        f"assert main(['predict', '--model', {str(model_path)!r}, '5.6', '2.7', '4.2', '1.3']) == 0\n"
        f"assert main(['inspect', {str(model_path)!r}]) == 0\n"
        "assert not {'sklearn', 'scipy', 'joblib'} & set(sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")


def test_evaluate_measures_the_file_again(training_run: tuple[Path, str]) -> None:
    directory, printed = training_run

    measured = output_of("evaluate", cwd=directory)

    assert "accuracy   0.933 on 30 test rows (trained on 120)" in measured
    report = [
        line for line in printed.splitlines() if re.match(r"(accuracy|baseline|setosa|versicolor|virginica)\b", line)
    ]
    assert len(report) == 5
    for line in report:
        assert line in measured


def test_a_class_without_rows_has_no_recall_in_a_report_and_one_never_predicted_no_precision() -> None:
    report = Report(
        train_rows=None, test_rows=3, accuracy=2 / 3, baseline=1, precision=(1, 0, 0), recall=(2 / 3, 0, 0),
        confusion=((2, 1, 0), (0, 0, 0), (0, 0, 0)), cross_validation=None,
    )  # fmt: skip

    rows = [line.split()[:3] for line in list(report_lines(report, "abc"))[-3:]]

    assert rows == [["a", "1.000", "0.667"], ["b", "0.000", "-"], ["c", "-", "-"]]


def test_inspect_shows_the_card(training_run: tuple[Path, str]) -> None:
    directory, printed = training_run

    shown = output_of("inspect", cwd=directory)

    version = modelfile.version_of((directory / "model.npz").read_bytes())
    assert shown.startswith(f"iris, version {version}\n")
    for words in (
        "RandomForestClassifier, 100 trees", "seed 0", "setosa, versicolor, virginica", "scikit-learn", "numpy",
        "sepal_length: 4.3 to 7.9 cm", "petal_width: 0.1 to 2.5 cm", "accuracy   0.933", "10-fold",
    ):  # fmt: skip
        assert words in shown, words
    report = [line for line in printed.splitlines() if line.startswith(("accuracy", "baseline"))]
    assert report == [line for line in shown.splitlines() if line in report] != []


@pytest.mark.parametrize("command", [("predict", *SAMPLE, "--model"), ("evaluate",), ("inspect",)], ids=lambda c: c[0])
def test_a_file_that_cannot_be_served_is_told_in_one_line(
    tmp_path: Path, model_path: Path, command: tuple[str, ...]
) -> None:
    damaged = bytearray(model_path.read_bytes())
    damaged[5_000] ^= 1
    (tmp_path / "damaged.npz").write_bytes(bytes(damaged))
    (tmp_path / "text.npz").write_text("hello\n")

    assert "missing.npz: No such file or directory" in error_of(*command, "missing.npz", cwd=tmp_path)
    assert "damaged.npz: the checksum does not match" in error_of(*command, "damaged.npz", cwd=tmp_path)
    assert "text.npz: not a model file" in error_of(*command, "text.npz", cwd=tmp_path)
    assert "Is a directory" in error_of(*command, tmp_path, cwd=tmp_path)


def test_without_a_file_the_default_is_named_and_what_writes_it(tmp_path: Path) -> None:
    said = "model.npz: No such file or directory; python -m ml train writes it, or name another model file"
    assert said in error_of("inspect", cwd=tmp_path)


@pytest.mark.parametrize("out", ["missing/model.npz", "file/model.npz", "."])
def test_train_tells_in_one_line_that_it_cannot_write(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")

    done = run("train", "--trees", "2", "--out", out, cwd=tmp_path)

    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("arguments", [(), ("serve",), ("predict",), ("train", "--nonsense")], ids=str)
def test_a_command_that_does_not_exist_shows_the_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m ml")
    assert os.listdir(tmp_path) == []


def test_help_names_the_commands(tmp_path: Path) -> None:
    shown = output_of("--help", cwd=tmp_path)

    for command in ("train", "evaluate", "predict", "inspect"):
        assert re.search(rf"^ +{command} ", shown, re.MULTILINE), command


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_help_of_a_command_ends_with_an_example_that_it_reads(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read([command, "--help"])

    example = capsys.readouterr().out.partition("example: python -m ml ")[2]
    assert read(shlex.split(example)).command == command


def test_a_card_of_another_table_is_not_evaluated_on_the_built_in_one(tmp_path: Path) -> None:
    rows = [f"{a},{b},{'x' if a > b else 'y'}" for a in range(8) for b in range(8)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
    output_of("train", "table.csv", "--trees", "2", cwd=tmp_path)

    done = run("evaluate", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert "was trained on another table" in done.stderr


@pytest.mark.parametrize("module", ["ml", "web"])
def test_control_c_during_the_imports_shows_no_traceback(tmp_path: Path, module: str) -> None:
    # The first module that both import interrupts them.
    (tmp_path / "argparse.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)")
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[1:] = ['--help']"
    code += f"; import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def closing(streams: str, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command from a shell that closes some of its streams, or leads them elsewhere: `>&-`."""
    words = shlex.join([sys.executable, "-m", *map(str, command)])
    return subprocess.run(
        ["sh", "-c", f"exec {words} {streams}"], cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "streams", "message"),
    [
        ("inspect MODEL", ">&-", "standard output cannot be written: Bad file descriptor"),
        ("inspect MODEL", ">/dev/full", "standard output cannot be written: No space left on device"),
        ("--help", ">&-", "standard output cannot be written: Bad file descriptor"),
        ("score MODEL rows.csv", ">&-", "standard output cannot be written: Bad file descriptor"),
        ("score MODEL rows.csv", ">/dev/full", "standard output cannot be written: No space left on device"),
        ("score MODEL rows.csv --out /dev/full", "", "/dev/full cannot be written: No space left on device"),
        ("score MODEL -", "<&-", "standard input: Bad file descriptor"),
    ],
)
def test_a_stream_that_is_closed_or_full_is_named_in_one_line(
    model_path: Path, tmp_path: Path, command: str, streams: str, message: str
) -> None:
    (tmp_path / "rows.csv").write_text("sepal_length,sepal_width,petal_length,petal_width\n5.6,2.7,4.2,1.3\n")

    done = closing(streams, "ml", *command.replace("MODEL", str(model_path)).split(), cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {message}\n")
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_streams_that_nobody_needs_may_be_closed(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("sepal_length,sepal_width,petal_length,petal_width\n5.6,2.7,4.2,1.3\n")

    done = closing("<&- >&- 2>&-", "ml", "score", model_path, "rows.csv", "--out", "out.csv", cwd=tmp_path)
    missing = closing("2>&-", "ml", "score", model_path, "none.csv", cwd=tmp_path)

    assert done.returncode == 0
    assert "versicolor" in (tmp_path / "out.csv").read_text()
    assert (missing.returncode, missing.stdout) == (1, "")


def test_a_closed_stream_is_read_by_nobody_where_a_library_has_taken_its_number(model_path: Path) -> None:
    code = "import os, sys\nos.open(os.__file__, os.O_RDONLY)\nfrom ml.__main__ import main\nsys.exit(main())"
    words = shlex.join([sys.executable, "-c", code, "score", str(model_path), "-"])

    done = subprocess.run(["sh", "-c", f"exec {words} <&-"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: standard input: Bad file descriptor\n"


HOSTILE = "a\x1b[2J\x1b]0;title\x07 b\nc\r\x9b31m \u202egnp.exe\u2066 \u2028d"


def test_no_command_sends_what_a_terminal_obeys(model_path: Path, tmp_path: Path) -> None:
    model = modelfile.parse(model_path.read_bytes())
    features = tuple(
        msgspec.structs.replace(feature, key=f"{HOSTILE}{place}", title=HOSTILE, unit=HOSTILE)
        for place, feature in enumerate(model.card.features)
    )
    card = msgspec.structs.replace(
        model.card, name=HOSTILE, source=HOSTILE, estimator=HOSTILE, features=features, picture=(),
        target=Target(labels=tuple(f"{HOSTILE}{label}" for label in model.card.labels)),
    )  # fmt: skip
    path = tmp_path / "model.npz"
    modelfile.save(dataclasses.replace(model, card=card), path)
    (tmp_path / "rows.csv").write_text("other\n1\n")
    commands: list[tuple[str | Path, ...]] = [
        ("inspect",), ("predict", *SAMPLE), ("predict", "1e9", *SAMPLE[1:]), ("predict", "x", "", "1", "2"),
        ("evaluate",), ("evaluate", "--data", "rows.csv"), ("score", path, "rows.csv"), ("rollback", "--list"),
    ]  # fmt: skip

    for command in commands:
        done = run(*command, cwd=tmp_path)
        written = done.stdout + done.stderr
        assert all(character.isprintable() or character in "\n\xa0" for character in written), (command, written)
        assert "Traceback" not in written
    assert "a\\x1b[2J\\x1b]0;title\\x07 b\\nc\\r" in run("inspect", cwd=tmp_path).stdout


@pytest.mark.parametrize("module", ["ml", "web", "web.client"])
def test_each_program_says_its_release(tmp_path: Path, module: str) -> None:
    done = run_on(b"", "--version", cwd=tmp_path, module=module)

    assert (done.returncode, done.stdout.decode()) == (0, f"python -m {module} {RELEASE}\n")
