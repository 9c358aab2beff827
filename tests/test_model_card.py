"""The section about the model: what it says is what the card holds, and it holds for any model."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ml.model.card import Card, CrossValidation, Recipe, Report, TrainedFeature
from ml.model.loaded import LoadedModel, load_model
from ml.tables.dataset import Feature, Target
from ml.training import fitting, writing
from tests.builders import dataset_of
from tests.conftest import Element, parse_html
from web.page import languages
from web.page.model_card import CardView, card_view
from web.page.quality import Fact, wilson_interval
from web.page.templates import render


def view_of(card: Card, language: str = "en") -> CardView:
    return card_view(card, "0123456789ab", languages.language(language))


def section_of(card: Card, language: str = "en") -> Element:
    html = render("_card.html", languages.language(language), card=view_of(card, language))
    return parse_html(html).one("section", id="card")


def texts(facts: object) -> dict[str, str]:
    assert isinstance(facts, list)
    assert all(isinstance(fact, Fact) for fact in facts)
    return {fact.term: plain(fact.text) for fact in facts}


def plain(text: str) -> str:
    return text.replace(languages.NO_BREAK, " ")


def invented(n_labels: int, n_features: int, **changes: object) -> Card:
    """A card of any size: class i has 10 test rows, of which i % 5 are taken for the next class."""
    confusion = np.zeros((n_labels, n_labels), dtype=int)
    for index in range(n_labels):
        confusion[index, index] = 10 - index % 5
        confusion[index, (index + 1) % n_labels] += index % 5
    right = np.diag(confusion)
    card = Card(
        name="invented",
        source="nowhere",
        estimator="RandomForestClassifier",
        trees=10,
        features=tuple(
            TrainedFeature(
                key=f"f{index}",
                title=f"feature {index}",
                low=-1.0,
                high=1.0,
                quantiles=(),
                example=0.0,
                importance=index / 1000,
            )
            for index in range(n_features)
        ),
        target=Target(labels=tuple(f"label {index}" for index in range(n_labels))),
        report=Report(
            train_rows=40 * n_labels,
            test_rows=10 * n_labels,
            accuracy=float(right.sum() / confusion.sum()),
            baseline=1 / n_labels,
            precision=tuple((right / confusion.sum(axis=0)).tolist()),
            recall=tuple((right / 10).tolist()),
            confusion=tuple(map(tuple, confusion.tolist())),
            cross_validation=None,
        ),
        recipe=Recipe(),
        libraries={},
        data_digest=None,
    )
    return msgspec.structs.replace(card, **changes)


def reported(card: Card, **changes: object) -> Card:
    assert card.report is not None
    return msgspec.structs.replace(card, report=msgspec.structs.replace(card.report, **changes))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
    # table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_the_literature(right: int, n: int, low: float, high: float) -> None:
    assert [round(bound, 4) for bound in wilson_interval(right / n, n)] == [low, high]
    assert [round(1 - bound, 4) for bound in wilson_interval(1 - right / n, n)] == [high, low]


def test_the_built_in_model_is_told_with_its_numbers(built_in_model: LoadedModel) -> None:
    view = view_of(built_in_model.card)
    origin = texts(view.origin)

    assert texts(view.quality)["Accuracy"] == "93.3% of 30 test rows; 95% interval (Wilson): 78.7% to 98.2%"
    assert texts(view.quality)["Baseline"].startswith("33.3% ")
    assert origin["Rows"] == "120 for training, 30 for testing"
    assert origin["Data"] == built_in_model.card.source
    assert origin["Method"] == "RandomForestClassifier, 100 trees"
    assert origin["Parameters"] == "seed 0, 20% of the rows for testing, no maximum depth, at least 1 row per leaf"
    assert origin["Version"] == "0123456789ab"
    assert built_in_model.card.data_digest is not None
    assert (
        origin["Digest of the data"].removeprefix("SHA-256 ").removesuffix("…") == built_in_model.card.data_digest[:12]
    )
    assert all(f"{name} {release}" in origin["Libraries"] for name, release in built_in_model.card.libraries.items())
    assert view.features[0].title == "petal width"
    assert (view.features[0].range, view.features[0].limits) == ("0.1 to 2.5\xa0cm", "≥\xa00\xa0cm")
    assert "setosa, versicolor, virginica" in view.limits[0]
    assert "120 rows" in view.limits[1]


def test_the_line_of_the_accuracy_says_its_scale_and_what_its_marks_are(model: LoadedModel) -> None:
    assert "On the line from 0 to 100%: the band is the interval of the accuracy" in section_of(model.card).text
    assert "En la línea de 0 a 100 %: la banda" in section_of(model.card, "es").text


def test_the_matrix_is_a_table_with_each_number_and_names_for_rows_and_columns(model: LoadedModel) -> None:
    matrix = section_of(model.card).one("table", **{"class": "matrix"})
    assert isinstance(model.card.report, Report)

    head, *rows, foot = matrix.all("tr")
    assert [cell.text for cell in head.all("th", scope="col")] == [*model.labels, "recall"]
    assert [row.one("th", scope="row").text for row in rows] == [*model.labels]
    assert [[cell.text for cell in row.all("td")][:-1] for row in rows] == [
        [str(count) for count in counts] for counts in model.card.report.confusion
    ]
    assert [row.all("td")[-1].text for row in rows] == ["100%", "100%", "80%"]
    assert [cell.text for cell in foot.all("td")] == ["100%", "83.3%", "100%", ""]


def test_css_classes_say_how_many_and_whether_right_and_never_more_than_the_text() -> None:
    rows = view_of(invented(6, 1)).classes

    assert [[cell.css_classes for cell in row.cells][:3] for row in rows[:3]] == [
        ["level-8 right", "", ""],
        ["", "level-7 right", "level-1"],
        ["", "", "level-6 right"],
    ]
    assert rows[2].cells[3].count == "2"
    assert not {cell.count for row in rows for cell in row.cells if not cell.css_classes} - {"0"}


def test_cross_validation_is_told_where_there_was_one() -> None:
    validation = CrossValidation(folds=10, mean=0.96, deviation=0.0442)
    card = reported(invented(3, 1), cross_validation=validation)

    assert texts(view_of(card).quality)["Cross-validation"] == "96% ± 4.4% over 10 folds"
    assert "Cross-validation" not in texts(view_of(invented(3, 1)).quality)


def test_a_model_that_was_fitted_elsewhere_says_what_it_does_not_know() -> None:
    card = reported(invented(2, 2, recipe=None, data_digest=None, trees=1), train_rows=None)
    origin = texts(view_of(card).origin)

    assert origin["Rows"] == "20 for testing; trained elsewhere, on other rows"
    assert not {"Parameters", "Digest of the data", "Libraries"} & origin.keys()
    assert origin["Method"] == "RandomForestClassifier, 1 tree"
    limits = view_of(card).limits
    assert "test rows" in limits[1]
    assert "one leaf of its tree" in limits[2]
    section_of(card)


def test_a_model_that_is_no_better_than_its_baseline_says_so() -> None:
    good, poor = (reported(invented(2, 1), accuracy=accuracy, baseline=0.5) for accuracy in (0.9, 0.6))

    said = "not show that it is better"
    assert not any(said in sentence for sentence in view_of(good).limits)
    assert any(said in sentence for sentence in view_of(poor).limits)


def test_classes_without_test_rows_or_answers_have_no_shares() -> None:
    card = reported(
        invented(3, 1), confusion=((4, 0, 0), (2, 0, 0), (0, 0, 0)), precision=(0.6, 0, 0), recall=(1, 0, 0)
    )

    rows = view_of(card).classes

    assert [plain(row.recall) for row in rows] == ["100%", "0%", "–"]
    assert [row.precision for row in rows] == ["60%", "–", "–"]
    assert any(sentence.startswith("1 class has no test rows") for sentence in view_of(card).limits)


@pytest.mark.parametrize(
    ("source", "spanish"),
    [
        ("a: b.csv: 400 rows, 4 features, 2 classes", "a: b.csv: 400 filas, 4 características, 2 clases"),
        ("x.csv: 9 rows, 1 feature, a quantity", "x.csv: 9 filas, 1 característica, una cantidad"),
        ("Fisher's Iris data (1936)", "Fisher's Iris data (1936)"),
    ],
)
def test_the_sentence_about_a_table_is_in_the_reader_s_language(model: LoadedModel, source: str, spanish: str) -> None:
    card = msgspec.structs.replace(model.card, source=source)

    for code, text in (("en", source), ("es", spanish)):
        assert card_view(card, model.version, languages.language(code)).origin[0].text == text


def test_importance_is_told_in_points_and_never_drawn_below_nothing() -> None:
    features = [
        msgspec.structs.replace(feature, importance=importance)
        for feature, importance in zip(invented(2, 4).features, (-0.05, 0.2, 0.0, 0.05), strict=True)
    ]

    rows = view_of(invented(2, 4, features=tuple(features))).features

    assert [(row.title, row.importance, row.share) for row in rows] == [
        ("feature 1", "20.0", "1"),
        ("feature 3", "5.0", "0.25"),
        ("feature 2", "0.0", "0"),
        ("feature 0", "−5.0", "0"),
    ]
    useless = [msgspec.structs.replace(feature, importance=-0.1) for feature in features]
    assert {row.share for row in view_of(invented(2, 4, features=tuple(useless))).features} == {"0"}


def test_limits_are_told_as_far_as_there_are_any() -> None:
    bounds = [(None, None), (0.0, None), (None, 5.5), (-1.0, 1.0)]
    features = [
        msgspec.structs.replace(feature, minimum=low, maximum=high, unit="cm", importance=0)
        for feature, (low, high) in zip(invented(2, 4).features, bounds, strict=True)
    ]

    rows = view_of(invented(2, 4, features=tuple(features))).features

    assert [plain(row.limits) for row in rows] == ["", "≥ 0 cm", "≤ 5.5 cm", "−1 to 1 cm"]


@pytest.mark.parametrize(("n_labels", "n_features"), [(2, 1), (30, 60), (31, 61), (200, 300)])
def test_a_model_of_any_size_has_a_bounded_section_that_is_well_formed(n_labels: int, n_features: int) -> None:
    section = section_of(invented(n_labels, n_features))

    regions = section.all("div", role="region")
    headings = {heading.attributes["id"] for heading in section.all("h3") if "id" in heading.attributes}
    assert all(region.attributes["tabindex"] == "0" for region in regions)
    assert {region.attributes["aria-labelledby"] for region in regions} == headings
    rows = [len(table.all("tr")) - 1 for table in section.all("table", **{"class": "features"})]
    assert rows == [min(12, n_features), min(60, n_features) - 12][: len(rows)]
    assert len(rows) == 1 + (n_features > 12)
    assert len(section.all("td")) <= 32 * 32 + 60 * 3 + 1
    assert not [element for element in section.all() if "style" in element.attributes]
    if n_labels > 30:
        assert not section.all("table", **{"class": "matrix upright"})
        assert [row.all("td")[-1].text for row in section.all("table")[0].all("tr")[1:]] == (
            ["4"] * (n_labels // 5) + ["3"] * 10
        )[:10]
    if n_features > 60:
        assert re.search(r"\b(One|240) more features? (is|are) in the documentation", section.text)


def test_the_section_of_the_built_in_model_is_small(model: LoadedModel) -> None:
    html = render("_card.html", languages.language("en"), card=view_of(model.card))

    assert len(html.encode()) <= 7_000


def test_numbers_are_written_the_language_s_way(model: LoadedModel) -> None:
    section = section_of(model.card, "es").text

    assert "93,3 %" in section
    assert "largo del pétalo" in section
    assert not re.search(r"\d\.\d", section.partition("scikit-learn")[0].partition("numpy")[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"test_rows": 0},
        {"test_rows": 10**400},
        {"test_rows": -3, "train_rows": -1},
        {"accuracy": 1e308, "baseline": -1e308},
        {"accuracy": -0.5},
        {"confusion": ((10**400, -(10**400)), (1, 10**30))},
        {"precision": (1e308, -1.0), "recall": (1e300, 5.0)},
    ],
)
def test_numbers_that_make_no_sense_are_shown_and_break_nothing(changes: dict[str, object]) -> None:
    section_of(reported(invented(2, 1), **changes))


def test_importances_that_make_no_sense_break_nothing() -> None:
    features = [
        msgspec.structs.replace(feature, importance=importance, low=-1e38, high=1e38)
        for feature, importance in zip(invented(2, 2).features, (1e308, -1e308), strict=True)
    ]

    assert [row.importance for row in view_of(invented(2, 2, features=tuple(features))).features] == [
        "1000.0",
        "−1000.0",
    ]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 1))
    dataset = dataset_of(
        rows,
        rows[:, 0] > 0,
        source="<script>alert(1)</script>",
        features=(Feature(key="k", title="<b>", unit='"'),),
        labels=("<i>", "&amp;"),
    )
    trained = fitting.fit(dataset, Recipe(n_estimators=1))
    writing.write(writing.model_of(trained), tmp_path / "x.npz", trained=trained)

    section = section_of(load_model(tmp_path / "x.npz").card)

    assert not section.all("script") + section.all("b") + section.all("i")
    assert [cell.text for cell in section.all("th", scope="row")] == ["<i>", "&amp;", "precision", "<b>"]
    assert "<script>alert(1)</script>" in section.text
