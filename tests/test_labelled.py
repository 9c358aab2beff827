"""python -m ml on real shapes of tables: trained with nothing but --target, and measured on other tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from ml.errors import TableError
from ml.model.card import QuantityReport, Report
from ml.model.loaded import LoadedModel, load_model
from ml.tables.files import read_table
from ml.tables.table import TEXT, Table
from ml.training.labelled import measured
from tests.conftest import output_of, run

N = 120


def titanic() -> str:
    """Row numbers, a text with commas, words, gaps in numbers and words, a target of 0 and 1 that is not the last."""
    lines = ["PassengerId,Survived,Pclass,Name,Sex,Age,Ticket,Fare,Cabin,Embarked"]
    for n in range(1, N + 1):
        sex = "male" if n % 3 else "female"
        survived = int((sex == "female") ^ (n % 10 == 0))
        age = "" if n % 5 == 0 else 20 + n % 50
        ticket = n * 37 if n % 4 else f"A/5 {n}"
        cabin = f"C{n}" if n % 6 == 0 else ""
        cells = [n, survived, n % 3 + 1, f'"Nr. {n}, Mr."', sex, age, ticket, f"{n % 40 + 0.25}", cabin, "SCQ"[n % 3]]
        lines.append(",".join(map(str, cells)))
    return "\n".join(lines) + "\n"


def penguins() -> str:
    """Written by R: NA for no value in numbers and words, the class first, a constant and a year."""
    lines = ["species,island,bill_length_mm,body_mass_g,sex,year,study"]
    for n in range(N):
        kind = ("Adelie", "Gentoo", "Chinstrap")[n % 3]
        island = ("Torgersen", "Biscoe", "Dream")[(n // 3) % 3]
        bill = "NA" if n % 30 == 0 else 38 + 4 * (n % 3) + n % 7 / 10
        sex = "NA" if n % 20 == 0 else ("male", "female")[n % 2]
        lines.append(f"{kind},{island},{bill},{3500 + 300 * (n % 3) + n},{sex},{2007 + n % 3},A")
    return "\n".join(lines) + "\n"


def german() -> str:
    """Semicolons, decimal commas, points between thousands, a date, and words with umlauts."""
    lines = ["Datum;Umsatz;Menge;Größe;Kunde"]
    for n in range(N):
        revenue = f"1.{100 + n}" if n % 2 else str(900 - n)
        lines.append(f"{n % 28 + 1:02}.03.2024;{revenue};{n % 9},{n % 10};{'klein' if n % 4 else 'groß'};{'AB'[n % 2]}")
    return "\n".join(lines) + "\n"


def prices() -> str:
    """A quantity with a unit, percent signs and months."""
    lines = ["term,rate,amount"]
    for n in range(N):
        lines.append(f'{36 if n % 2 else 60} months,{n % 17 + 0.5}%,"${1_000 + 90 * (n % 17) + 500 * (n % 2):,}.00"')
    return "\n".join(lines) + "\n"


TABLES = {"titanic": titanic, "penguins": penguins, "german": german, "prices": prices}
EXPECTED = {
    "titanic": (["--target", "Survived"], ["pclass", "sex", "age", "fare", "embarked"]),
    "penguins": ([], ["island", "bill_length_mm", "body_mass_g", "sex", "year"]),
    "german": ([], ["umsatz", "menge", "grösse"]),
    "prices": ([], ["term", "rate"]),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Each table's model file, trained from the command line, and what was printed."""
    directory = tmp_path_factory.mktemp("tables")
    made = {}
    for name, make in TABLES.items():
        (directory / f"{name}.csv").write_text(make())
        options, _ = EXPECTED[name]
        printed = output_of("train", f"{name}.csv", *options, "--trees", "5", "--out", f"{name}.npz", cwd=directory)
        made[name] = (directory / f"{name}.npz", printed)
    return made


@pytest.mark.parametrize("name", TABLES)
def test_a_table_trains_with_nothing_but_a_target(models: dict[str, tuple[Path, str]], name: str) -> None:
    path, printed = models[name]

    model = load_model(path)

    assert [feature.key for feature in model.features] == EXPECTED[name][1]
    assert printed.splitlines()[-1] == f"serve it: MODEL_FILE={name}.npz python -m web"
    assert "to the last bit" in printed


@pytest.mark.parametrize("name", TABLES)
def test_the_table_of_the_training_is_scored_without_an_error(
    models: dict[str, tuple[Path, str]], name: str, tmp_path: Path
) -> None:
    path, _ = models[name]

    output_of("score", path, path.with_suffix(".csv"), "--out", "out.csv", "--strict", cwd=tmp_path)

    out = (tmp_path / "out.csv").read_text().splitlines()
    assert len(out) == N + 1
    assert all(line.endswith((",", ";")) for line in out[1:]), "none has an error"


@pytest.mark.parametrize("name", TABLES)
def test_evaluate_measures_a_model_on_any_table_that_says_what_is_true(
    models: dict[str, tuple[Path, str]], name: str, tmp_path: Path
) -> None:
    path, _ = models[name]

    printed = output_of("evaluate", path, path.with_suffix(".csv"), cwd=tmp_path)

    assert printed.splitlines()[0] == f"{path.with_suffix('.csv')}: {N} rows"
    # Most rows of the prices stand there more than once, and would in any table.
    assert ("warning: the model was trained on rows of this table" in printed) == (name != "prices")
    assert re.search(rf"^(accuracy|R²) +(0\.[5-9]|1\.0)\d\d on {N} test rows$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "measures"), [("titanic", ["accuracy", "baseline"]), ("prices", ["R²", "error", "baseline", "interval"])]
)
def test_evaluate_still_measures_the_split_of_the_training(
    models: dict[str, tuple[Path, str]], name: str, measures: list[str], tmp_path: Path
) -> None:
    path, printed = models[name]
    options, _ = EXPECTED[name]

    again = output_of("evaluate", path, "--data", path.with_suffix(".csv"), *options, cwd=tmp_path)

    lines = re.findall(rf"^(?:{'|'.join(measures)}) .*", printed, re.MULTILINE)
    assert len(lines) == len(measures)
    assert set(lines) <= set(again.splitlines())


def test_the_command_that_an_error_proposes_works(tmp_path: Path) -> None:
    rows = [f"{n},{n / 4 if n % 50 else '<0.5'},{'ab'[n % 2]},{'xy'[n % 2]} {n}" for n in range(N)]
    (tmp_path / "my table.csv").write_text("\n".join(["count,value,kind,note", *rows]) + "\n")
    arguments = ("train", "my table.csv", "--target", "kind", "--trees", "2", "--drop", "count")

    done = run(*arguments, cwd=tmp_path)

    assert done.returncode == 1
    *_, when, command = done.stderr.splitlines()
    assert when == "  this would work:"
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "ml"]
    assert words[3 : 3 + len(arguments)] == list(arguments)
    assert "is feature value" in output_of(*words[3:], cwd=tmp_path)


# Other tables than that of the training


@pytest.fixture(scope="module")
def model(models: dict[str, tuple[Path, str]]) -> LoadedModel:
    return load_model(models["penguins"][0])


@pytest.fixture(scope="module")
def penguin_table(models: dict[str, tuple[Path, str]]) -> Table:
    return read_table(models["penguins"][0].with_suffix(".csv"))


def with_column(table: Table, name: str, texts: list[str], *, new_name: str = "") -> Table:
    index = table.header.index(name)
    columns = list(table.columns)
    columns[index] = np.array(texts, dtype=TEXT)
    header = [*table.header[:index], new_name or name, *table.header[index + 1 :]]
    return Table(tuple(header), tuple(columns), table.lines)


def test_labels_of_another_table_may_differ_in_case_space_and_a_full_stop(
    model: LoadedModel, penguin_table: Table
) -> None:
    expected = measured(model, penguin_table).report
    species = penguin_table.columns[0].tolist()

    for write in (str.upper, "{}.".format, " {} ".format):
        table = with_column(penguin_table, "species", [write(label) for label in species], new_name="what it is")
        assert measured(model, table, target="what it is").report == expected


def test_the_report_is_that_of_the_answers(model: LoadedModel, penguin_table: Table) -> None:
    report = measured(model, penguin_table).report

    assert isinstance(report, Report)
    assert (report.test_rows, report.train_rows) == (N, None)
    assert sum(map(sum, report.confusion)) == N
    assert report.baseline == pytest.approx(1 / 3)


def test_rows_that_cannot_be_measured_are_left_out_and_told(model: LoadedModel, penguin_table: Table) -> None:
    species, mass = penguin_table.columns[0].tolist(), penguin_table.columns[3].tolist()
    species[0], species[1], species[2] = "", "Emperor", "Emperor"
    mass[5] = "heavy"

    found = measured(model, with_column(with_column(penguin_table, "species", species), "body_mass_g", mass))

    assert found.report.test_rows == N - 4
    assert found.said[:3] == (
        "left out 2 rows of classes that the model does not know: Emperor",
        "left out 1 row without a value in 'species'",
        "left out 1 row without an answer: line 7: body mass g: 'heavy' is not a number",
    )


def test_rows_of_the_training_are_pointed_out_and_those_of_another_table_are_not(
    model: LoadedModel, penguin_table: Table
) -> None:
    (warning,) = measured(model, penguin_table).said
    masses = [str(float(mass) + 0.5) for mass in penguin_table.columns[3].tolist()]

    assert "96 of 96 training rows that its file keeps are here" in warning
    assert measured(model, with_column(penguin_table, "body_mass_g", masses)).said == ()


@pytest.mark.parametrize(
    ("target", "message"), [("nothing", "no column is called 'nothing'"), ("island", "no row can be measured")]
)
def test_a_table_that_says_nothing_true_is_refused(
    model: LoadedModel, penguin_table: Table, target: str, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        measured(model, penguin_table, target=target)


def test_other_columns_tell_what_the_marks_of_what_is_true_leave_open(models: dict[str, tuple[Path, str]]) -> None:
    path, _ = models["prices"]
    table = read_table(path.with_suffix(".csv"))
    thousands = with_column(table, "amount", [f"1,{n:03}" for n in range(N)])

    report = measured(load_model(path), thousands).report

    assert isinstance(report, QuantityReport)
    assert all(1000 <= true < 2000 for _, true in report.residuals)


def test_a_quantity_is_measured_with_its_interval(models: dict[str, tuple[Path, str]]) -> None:
    path, _ = models["prices"]
    table = read_table(path.with_suffix(".csv"))

    report = measured(load_model(path), table).report

    assert isinstance(report, QuantityReport)
    assert report.r2 > 0.9
    assert 0.8 <= report.covered <= 1
    with pytest.raises(TableError, match="'amount' has other texts than numbers, as 'cheap' on line 3; --missing"):
        measured(load_model(path), with_column(table, "amount", ["-", *["cheap"] * (N - 1)]))
