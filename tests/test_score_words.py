"""Scoring tables of words, gaps and marks: each cell is read by what training settled for its column."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ml.__main__ import main
from ml.errors import TableError
from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.scoring.layout import name_of, positions_of
from ml.scoring.text import score
from ml.tables.cells import CellReader
from ml.tables.dataset import Feature
from ml.tables.marks import Marks
from ml.tables.reading import TableOptions, dataset_of, read_dataset
from ml.tables.table import TEXT, Table
from ml.training import fitting, writing
from tests.builders import dataset_of as dataset_from
from web.api.description import table_of

HEADER = "Income;temp (°C);island;sold"
ISLANDS = ("Biscoe", "Dream", "NA")


def trained(directory: Path, name: str, text: str) -> LoadedModel:
    (directory / name).write_text(text)
    found = fitting.fit(read_dataset(directory / name).dataset, Recipe(n_estimators=5))
    return writing.write(writing.model_of(found), directory / f"{name}.npz", trained=found)


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Thousands with points, decimal commas, a category with gaps; the class depends on all of them."""
    lines = [HEADER]
    for number in range(90):
        income = f"{1 + number % 9}.{100 + number}"
        temperature = "?" if number % 10 == 7 else f"{number % 30},5"
        kind = "yes" if number % 9 > 3 or number % 3 == 1 else "no"
        lines.append(f"{income};{temperature};{ISLANDS[number % 3]};{kind}")
    return trained(tmp_path_factory.mktemp("german"), "german.csv", "\n".join(lines))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Plain integers, as in a table without any marks."""
    lines = ["income,age,plan", *(f"{700 + 100 * n % 4500},{20 + n % 40},{'ab'[n % 2]}" for n in range(60))]
    return trained(tmp_path_factory.mktemp("plain"), "plain.csv", "\n".join(lines))


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A quantity."""
    lines = ["rooms,area,price ($)", *(f"{n % 5},{n % 17 * 3.5},{n % 5 * 100 + n % 17 * 7.25}" for n in range(80))]
    return trained(tmp_path_factory.mktemp("prices"), "prices.csv", "\n".join(lines))


def rows_of(model: LoadedModel, text: str, marks: Marks | None = None) -> list[dict[str, str]]:
    sink = io.StringIO(newline="")
    score(model, io.StringIO(text, newline=""), sink, on_bad=lambda _bad: None, marks=marks)
    separator = ";" if ";" in text else ","
    return list(csv.DictReader(io.StringIO(sink.getvalue(), newline=""), delimiter=separator))


def test_a_template_is_answered_as_the_example(
    german: LoadedModel, plain: LoadedModel, prices: LoadedModel, tmp_path: Path
) -> None:
    headers = ['a, "b"', "=1+1", "a\nb", "temp (°C)", "1", ""]
    words = ("x, y", 'say "no"', "+1 h")
    features = [
        Feature(key=f"f_{place}", title=f"f {place}", header=header, choices=words if place == 3 else ())
        for place, header in enumerate(headers)
    ]
    data = dataset_from(
        np.arange(42.0).reshape(7, 6) % 3, [0, 1] * 3 + [0], features=features, labels=("a", "b"), name="odd"
    )
    found = fitting.fit(data, Recipe(estimator="decision-tree"))
    odd = writing.write(writing.model_of(found), tmp_path / "odd.npz", trained=found)

    for model in (german, plain, prices, odd):
        (row,) = rows_of(model, table_of(model.features))

        answer = model.predict([feature.example for feature in model.features])
        numbers = [answer.value] if model.quantity else answer.probabilities
        assert [float(row[name]) for name in row if name.startswith(("prob", "predicted_value"))] == [*numbers]
        assert row["prediction_error"] == ""
    income = replace(german.features[0], example=2100.5)  # whose column has points between thousands
    assert table_of([income]) == 'Income\r\n"2100,5"\r\n'


def test_cells_are_read_by_the_marks_and_choices_of_training(german: LoadedModel) -> None:
    table = "Income;temp (°C);island\n2.100;7,5;Dream\n2100;7,50;Dream\n2100,0; 7,5 °C ;Dream\n"

    first, *others = rows_of(german, table)

    answer = german.predict([2100.0, 7.5, 1.0])
    assert first["predicted_label"] == answer.label
    assert first["probability_yes"] == repr(answer.probabilities[1]).replace(".", ",")
    for row in others:
        assert (row["predicted_label"], row["probability_yes"]) == (answer.label, first["probability_yes"])


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("2.5;7,5;Dream", "Income: '2.5' is not a number; here '.' divides thousands and ',' is the decimal mark"),
        ("2,100;7.5;Dream", "temp: '7.5' has another decimal mark than the rest of the row"),
        ("2100;1.227;Dream", "temp: '1.227' can be read as 1.227 or as 1227"),
        ("2100;7,5 °F;Dream", "temp: '7,5 °F' is not a number"),
        ("x;;", "Income: 'x' is not a number"),
        (";7,5;Dream", "Income is missing"),
    ],
)
def test_a_cell_that_contradicts_the_marks_is_an_error_of_its_row(german: LoadedModel, row: str, error: str) -> None:
    good = "2.100;7,5;Dream"

    scored = rows_of(german, "\n".join(["Income;temp (°C);island", good, row, good]))

    assert [one["prediction_error"] for one in scored] == ["", error, ""]
    assert scored[1]["predicted_label"] == ""
    assert scored[0]["predicted_label"] == scored[2]["predicted_label"] != ""


def test_what_can_be_read_two_ways_is_no_number_for_a_model_of_plain_ones(plain: LoadedModel) -> None:
    scored = rows_of(plain, 'income,age\n4200,40\n"4,200",40\n"4,2",40\n4.2,"40,5"\n"4.200,5",40\n')

    assert [row["prediction_error"] for row in scored] == [
        "",
        "income: '4,200' can be read as 4.2 or as 4200",
        "",
        "age: '40,5' has another decimal mark than the rest of the row",
        "income: '4.200,5' is not a number",
    ]
    assert scored[2]["prediction_notes"] == "income is outside the training range of 700 to 5100"


def test_marks_that_are_named_are_those_of_the_table(plain: LoadedModel) -> None:
    table = 'income,age\n"4,200",40\n"4,2",40\n"4,200.0",40\n'

    scored = rows_of(plain, table, Marks(".", ","))

    answer = repr(plain.predict([4200.0, 40.0]).probabilities[0])
    assert [row["probability_a"] for row in scored] == [answer, "", answer]
    assert (
        scored[1]["prediction_error"]
        == "income: '4,2' is not a number; here ',' divides thousands and '.' is the decimal mark"
    )


@pytest.mark.parametrize("cell", ["", "?", " ? "])
def test_no_value_is_read_where_the_column_had_none(german: LoadedModel, cell: str) -> None:
    (row,) = rows_of(german, f"Income;temp (°C);island\n2.100;{cell};Dream\n")

    answer = german.predict([2100.0, float("nan"), 1.0])
    assert (row["probability_yes"], row["prediction_notes"]) == (repr(answer.probabilities[1]).replace(".", ","), "")


def test_rows_carry_notes_and_answers(german: LoadedModel) -> None:
    (row,) = rows_of(german, "Income;temp (°C);island\n99.000;7,5;Atlantis\n")

    answer = german.predict([99_000.0, 7.5, -1.0])
    assert row["predicted_label"] == answer.label
    assert row["prediction_notes"] == (
        "Income is outside the training range of 1118 to 9189; island: 'Atlantis' was not seen in training"
    )
    assert row["prediction_error"] == ""


cells = st.tuples(
    st.sampled_from(["2.100", "900", "9.999,5", "1.5", "", "x", "99.000", "2100 €"]),
    st.sampled_from(["7,5", "7.5", "", "?", "NA", "1.227", "29,5 °C", "-99", "nan"]),
    st.sampled_from(["Dream", "Biscoe", "", "NA", "Atlantis", "dream", " Dream "]),
)


@given(table=st.lists(cells.filter(lambda row: any(map(str.strip, row))), min_size=1, max_size=12))
def test_a_table_is_scored_as_its_rows_are_one_by_one(german: LoadedModel, table: list[tuple[str, str, str]]) -> None:
    header = "Income;temp (°C);island\n"

    whole = rows_of(german, header + "".join(";".join(row) + "\n" for row in table))

    alone = [rows_of(german, header + ";".join(row) + "\n")[0] for row in table]
    # The first row of a table settles the decimal mark of all its answers.
    assert [*map(with_points, whole)] == [*map(with_points, alone)]


def with_points(row: dict[str, str]) -> dict[str, str]:
    return {name: cell.replace(",", ".") if name.startswith("probability") else cell for name, cell in row.items()}


def test_a_quantity_has_value_and_interval(prices: LoadedModel) -> None:
    row, far, wrong = rows_of(prices, "rooms,area\n3,7\n3,700\n3,x\n")

    value = prices.predict([3.0, 7.0]).value
    assert prices.quantity is not None
    assert list(row)[2:] == [
        "predicted_value", "predicted_low", "predicted_high", "prediction_notes", "prediction_error",
    ]  # fmt: skip
    assert [float(row[name]) for name in list(row)[2:5]] == [value, *prices.quantity.ends(value)]
    assert far["prediction_notes"] == "area is outside the training range of 0 to 56"
    assert list(wrong.values())[2:] == ["", "", "", "", "area: 'x' is not a number"]


column = st.one_of(
    st.lists(st.sampled_from(["1.5", "2", "-3.25", "", "NA", "1e3", "?"]), min_size=40, max_size=40),
    st.lists(st.sampled_from(["1.234,5", "2", "-3,25", "", "-", "1.000"]), min_size=40, max_size=40),
    st.lists(st.sampled_from(["$1,234", "$2.5", "$7", "$12,345.00"]), min_size=40, max_size=40),
    st.lists(st.sampled_from(["red", "blue", "", "NA", "na", "3", "é", "e\u0301"]), min_size=40, max_size=40),
    st.lists(st.integers(0, 10**7).map("{:,}".format), min_size=40, max_size=40),
)


@given(columns=st.lists(column, min_size=1, max_size=4))
def test_cells_of_the_training_table_are_read_as_in_training(columns: list[list[str]]) -> None:
    header = (*(f"c{number} (x)" for number in range(len(columns))), "kind")
    cells = [np.array(texts, dtype=TEXT) for texts in (*columns, ["a", "b"] * 20)]
    try:
        dataset = dataset_of(
            Table(header, tuple(cells), np.arange(40)), TableOptions(target="kind"), file_name="t"
        ).dataset
    except TableError:
        return

    for feature, values in zip(dataset.features, dataset.rows.T, strict=True):
        reader = CellReader(feature, gaps=feature.markers)
        texts = cells[header.index(feature.header)].tolist()
        together = reader.read(texts)
        assert [reader.value_of(text) for text in texts] == pytest.approx(values, rel=0, abs=0, nan_ok=True)
        assert together is not None
        assert np.array_equal(together, values, equal_nan=True)


# Which column is which


@pytest.mark.parametrize("header", ["Income;temp;island", "income;TEMP [°C];Island", "INCOME;temp (\u00baC);x;island"])
def test_columns_are_found_by_header_or_key_where_the_unit_agrees(german: LoadedModel, header: str) -> None:
    cells = ["2.100", "7,5", *["x"] * header.count("x"), "Dream"]

    (row,) = rows_of(german, f"{header}\n{';'.join(cells)}\n")

    assert row["prediction_error"] == ""


def test_a_column_in_another_unit_is_refused_with_both_names(german: LoadedModel) -> None:
    with pytest.raises(TableError) as caught:
        rows_of(german, "Income;temp (°F);island\n2.100;7,5;Dream\n")

    assert str(caught.value) == (
        "column 'temp (°F)' has another unit than 'temp (°C)', by which the model was trained: convert its values to "
        "°C, and name them so"
    )


def test_a_column_may_name_the_same_currency_by_its_sign_or_by_its_code() -> None:
    feature = Feature(key="price", title="price", unit="€", header="price (€)")

    assert positions_of([feature], [name_of("price (EUR)", 1)]) == [0]
    with pytest.raises(TableError, match="has another unit than"):
        positions_of([feature], [name_of("price (USD)", 1)])


def test_columns_that_differ_in_unit_or_by_place_alone_are_told_apart(tmp_path: Path) -> None:
    header = "h (cm),h (in),x,x,kind"
    lines = [f"{n % 7},{n % 5},{n % 3},{n % 11},{'ab'[n % 2]}" for n in range(60)]
    model = trained(tmp_path, "t.csv", "\n".join([header, *lines]))

    (one,) = rows_of(model, "x,h (in),x,h [cm]\n1,2,3,4\n")
    (other,) = rows_of(model, "h_2,h,x,x_2\n2,4,1,3\n")

    assert [feature.key for feature in model.features] == ["h", "h_2", "x", "x_2"]
    answer = repr(model.predict([4.0, 2.0, 1.0, 3.0]).probabilities[0])
    assert one["probability_a"] == other["probability_a"] == answer
    with pytest.raises(TableError, match="no column is called 'x_2'"):
        rows_of(model, "x,h (in),h (cm)\n1,2,3\n")


def test_scored_rows_have_the_bits_of_the_forest(german: LoadedModel) -> None:
    rows = [[float(1100 + 90 * n), n % 30 + 0.5, float(n % 3)] for n in range(50)]
    table = "Income;temp (°C);island\n" + "".join(
        f"{a:,.0f};{b};{ISLANDS[int(c)] if c < 2 else 'NA'}\n".replace(",", "T").replace(".", ",").replace("T", ".")
        for a, b, c in rows
    )

    scored = rows_of(german, table)

    # NA stands for no value in this column of words.
    values = np.array([[a, b, np.nan if c == 2 else c] for a, b, c in rows])
    expected = german.predict_batch(values).outputs
    answers = [[row["probability_no"], row["probability_yes"]] for row in scored]
    assert answers == [[repr(value).replace(".", ",") for value in row] for row in expected.tolist()]


def test_formulas_among_words_are_guarded_wherever_their_rows_are(tmp_path: Path) -> None:
    lines = ["word,loss (€),kind", *(f"{('=1+1', '@b', 'c')[n % 3]},{n % 7},{'pq'[n % 3 == 0]}" for n in range(60))]
    model = trained(tmp_path, "formulas.csv", "\n".join(lines))
    table = "word,loss (€)\n=1+1,-5 €\n=cmd|' /C calc'!A0,2\n"

    def scored(text: str) -> list[list[str]]:
        sink = io.StringIO()
        score(model, io.StringIO(text, newline=""), sink, on_bad=lambda _bad: None, guarded=True)
        return [row[:2] for row in csv.reader(io.StringIO(sink.getvalue()))]

    assert scored(table)[1:] == [["'=1+1", "'-5 €"], ["'=cmd|' /C calc'!A0", "2"]]
    assert scored(f"{table}c,no number\n")[:-1] == scored(table)


def test_a_table_without_a_header_is_scored_as_it_was_trained(tmp_path: Path) -> None:
    table, model, scored = (tmp_path / name for name in ("rows.csv", "m.npz", "scored.csv"))
    table.write_text("".join(f"{n / 4},{n % 5},{'ab'[n % 2]}\n" for n in range(40)))
    assert main(["train", str(table), "--no-header", "--out", str(model), "--trees", "3"]) == 0

    assert main(["score", str(model), str(table), "--no-header", "--out", str(scored)]) == 0

    header, *rows = csv.reader(io.StringIO(scored.read_text()))
    assert header[:4] == ["column_1", "column_2", "column_3", "predicted_label"]
    assert [row[:3] for row in rows] == [line.split(",") for line in table.read_text().splitlines()]
    assert {row[3] for row in rows} == {"a", "b"}


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("yes", "no"), ("1", "0"), ("T", "F")])
def test_booleans_of_a_spreadsheet_or_of_json_are_the_choices_that_say_so(tmp_path: Path, yes: str, no: str) -> None:
    lines = ["x,on,kind", *(f"{n % 7}.5,{(yes, no)[n % 2]},{'ab'[n % 2]}" for n in range(60))]
    model = trained(tmp_path, "on.csv", "\n".join(lines))

    if model.features[1].choices:
        scored = rows_of(model, f"x,on\n1.5,{yes}\n1.5,TRUE\n1.5,true\n1.5,{no}\n1.5,FALSE\n1.5,false\n1.5,tRUE\n")

        assert [row["prediction_notes"] for row in scored[:6]] == [""] * 6
        assert (
            len({row["probability_a"] for row in scored[:3]}) == len({row["probability_a"] for row in scored[3:6]}) == 1
        )
        assert scored[6]["prediction_notes"] == "on: 'tRUE' was not seen in training"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A row of units below the header, which training takes for units."""
    lines = ["temp,mass,kind", "°C,(kg),", *(f"{n % 30}.5,{n % 11},{'ab'[n % 2]}" for n in range(60))]
    return trained(tmp_path_factory.mktemp("units"), "units.csv", "\n".join(lines))


@pytest.mark.parametrize("units", ["°C,(kg)", "°C,", "°C,kilos", ",kg"])
def test_a_row_of_units_is_kept_and_noted_instead_of_being_an_error(measured: LoadedModel, units: str) -> None:
    table = f"temp,mass\n{units}\n7.5,3\n"
    sink = io.StringIO(newline="")
    scored = score(measured, io.StringIO(table, newline=""), sink, on_bad=lambda _bad: None, strict=True)

    assert (scored.rows, scored.bad) == (1, 0)
    _, first, second = sink.getvalue().splitlines()
    assert first == f'{units},,,,"a row of units, not of values",'
    assert second == rows_text(measured, "temp,mass\n7.5,3\n")[1]


def rows_text(model: LoadedModel, table: str) -> list[str]:
    sink = io.StringIO(newline="")
    score(model, io.StringIO(table, newline=""), sink, on_bad=lambda _bad: None)
    return sink.getvalue().splitlines()


def test_rows_of_types_and_roles_are_kept_and_noted(measured: LoadedModel) -> None:
    table = "temp\tmass\tkind\ncontinuous\tc\td\n\t\tclass\n7.5\t3\ta\n\t\tclass\n"

    notes = [line.split("\t")[-2:] for line in rows_text(measured, table)[1:]]

    assert notes[:3] == [["a row of types, not of values", ""], ["a row of roles, not of values", ""], ["", ""]]
    assert notes[3] == ["", "temp is missing; mass is missing"]


@pytest.mark.parametrize("row", ["x,y", "°C,3", "7.5,kg", "hot,kg and more than a unit"])
def test_another_first_row_is_no_row_of_units(measured: LoadedModel, row: str) -> None:
    assert rows_of(measured, f"temp,mass\n{row}\n")[0]["prediction_error"] != ""


def test_only_the_row_below_the_header_has_units(measured: LoadedModel) -> None:
    assert rows_of(measured, "temp,mass\n7.5,3\n°C,kg\n")[1]["prediction_error"] != ""
