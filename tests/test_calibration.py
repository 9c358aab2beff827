"""The card says how far probabilities hold: calibration and, of two labels, what each threshold costs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ml
from ml.errors import ModelFileError
from ml.model import modelfile
from ml.model.calibration import MAX_POINTS, Bin, Calibration, Point
from ml.model.card import Card, Decision, Report
from ml.model.labelling import Labelling
from ml.model.loaded import LoadedModel
from ml.training import writing
from ml.training.measuring import calibration_of
from tests import small_tables
from tests.conftest import Element, for_each, parse_html
from web.page import languages
from web.page.model_card import card_view
from web.page.templates import render

LABELS = ("no", "yes")


def shares_of(n_rows: int, n_labels: int, *, digits: int = 20, seed: int = 0) -> NDArray[np.float64]:
    shares = np.random.default_rng(seed).dirichlet(np.full(n_labels, 0.4), n_rows).round(digits)
    shares[:, 0] = 1 - shares[:, 1:].sum(axis=1)
    return np.clip(shares, 0, 1)


def classes_of(shares: NDArray[np.float64], *, seed: int = 1) -> NDArray[np.intp]:
    """Classes that come true a little less often than the probabilities say."""
    rng = np.random.default_rng(seed)
    drawn = (rng.random(len(shares))[:, None] > shares.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return np.where(rng.random(len(shares)) < 0.2, rng.integers(0, shares.shape[1], len(shares)), drawn)


# What is measured.


@pytest.mark.parametrize("n_labels", [2, 3, 20])
def test_the_brier_score_is_scikit_learn_s(n_labels: int) -> None:
    shares = shares_of(500, n_labels)
    classes = classes_of(shares)

    found = calibration_of(shares, classes, Labelling(tuple(map(str, range(n_labels)))))

    # Of two labels half of the sum.
    expected = brier_score_loss(classes, shares[:, 1] if n_labels == 2 else shares, labels=range(n_labels))
    assert found.brier == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("positive", "digits"), [(0, 20), (1, 20), (1, 1), (0, 2)])
def test_the_area_is_scikit_learn_s_ties_included(positive: int, digits: int) -> None:
    shares = shares_of(400, 2, digits=digits)
    classes = classes_of(shares)

    found = calibration_of(shares, classes, Labelling(LABELS, positive=positive))

    assert found.area == pytest.approx(roc_auc_score(classes == positive, shares[:, positive]), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [1, 7, 300, 20_000])
def test_the_curve_has_the_costs_of_each_hundredth_and_of_the_model_s_threshold(n_rows: int) -> None:
    shares = shares_of(n_rows, 2)
    classes = classes_of(shares)
    threshold = float(shares[n_rows // 2, 0])

    found = calibration_of(shares, classes, Labelling(LABELS, positive=0, threshold=threshold))

    assert len(found.points) <= MAX_POINTS
    assert found.is_possible(2)
    for at in [*(np.arange(101) / 100).tolist(), threshold]:
        answers = np.where(shares[:, 0] >= at, 0, 1)
        (_, misses), (false_alarms, _) = confusion_matrix(classes, answers, labels=[0, 1])
        assert found.at(at) == (false_alarms, misses), at


def test_of_many_labels_bins_are_those_of_the_likeliest() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.55, 0.35], [0.0, 0.0, 1.0], [0.5, 0.3, 0.2]])

    found = calibration_of(shares, np.array([0, 0, 2, 1]), Labelling(("a", "b", "c")))

    assert [(one.rows, one.true) for one in found.bins] == [(3, 1), (1, 1)]
    assert [one.probability for one in found.bins] == pytest.approx([1.55 / 3, 1])
    assert (found.points, found.area) == ((), None)


def test_rows_of_one_label_have_no_area() -> None:
    shares = shares_of(20, 2)

    assert calibration_of(shares, np.ones(20, dtype=np.intp), Labelling(LABELS)).area is None


# The card on the page.


def section_of(card: Card, language: str = "en") -> Element:
    view = card_view(card, "0123456789ab", languages.language(language))
    return parse_html(render("_card.html", languages.language(language), card=view)).one("section", id="card")


def rows_of(table: Element) -> list[list[str]]:
    return [[cell.text.replace(languages.NO_BREAK, " ") for cell in row.all("td")] for row in table.all("tr")[1:]]


def card_of(name: str, **changes: object) -> Card:
    return msgspec.structs.replace(writing.model_of(small_tables.trained(name)).card, **changes)


def test_the_card_shows_calibration_and_costs_as_pictures_and_as_tables() -> None:
    card = card_of("answers", decision=Decision(positive="yes", threshold=2 / 7))
    assert isinstance(card.report, Report)
    found = card.report.calibration
    assert found is not None

    section = section_of(card)

    pictures = section.all("svg", role="img")
    assert [picture.attributes["class"] for picture in pictures] == ["plot reliability", "plot roc"]
    bins, costs = map(rows_of, [one.one("table") for one in section.all("details")])
    assert [int(rows) for _, _, rows in bins] == [one.rows for one in found.bins]
    points = pictures[0].one("path", **{"class": "points"}).attributes["d"]
    assert len(points.split()) == 2 * len(found.bins)
    assert [threshold for threshold, *_ in costs] == [
        "10%", "20%", "28.6%", "30%", "40%", "50%", "60%", "70%", "80%", "90%",
    ]  # fmt: skip
    assert costs[2][1:] == [str(count) for count in found.at(2 / 7)]
    assert f"Brier score {round(found.brier, 3)}; 0 is perfect" in section.text
    assert pictures[1].attributes["aria-label"].startswith("ROC curve, with an area of 0.")


def test_the_card_of_more_labels_has_calibration_alone_and_that_of_a_quantity_nothing() -> None:
    penguins, prices = section_of(card_of("penguins")), section_of(card_of("prices"))

    assert [one.attributes["class"] for one in penguins.all("svg", role="img")] == ["plot reliability"]
    assert "Brier score" in penguins.text
    assert "ROC" not in penguins.text
    assert [one.attributes["class"] for one in prices.all("svg", role="img")] == ["plot residuals"]
    assert "Brier" not in prices.text


@pytest.mark.parametrize("largest", [9.0, 9e4, 9e6])
def test_the_title_of_a_scale_stands_beside_its_numbers_and_inside_the_picture(largest: float) -> None:
    card = card_of("prices")
    assert card.report
    report = msgspec.structs.replace(card.report, residuals=((0.0, 0.0), (largest, largest)))

    picture = section_of(msgspec.structs.replace(card, report=report)).one("svg", **{"class": "plot residuals"})

    *numbers, title = picture.one("g", **{"class": "scales"}).all("text")
    longest = max(len(text.text) for text in numbers if text.attributes.get("text-anchor") == "end")
    title_x = float(re.findall(r"translate\((\S+)", title.attributes["transform"])[0])
    left, _, width, _ = map(float, picture.attributes["viewbox"].split())
    assert left + 6 <= title_x <= 47 - 7 * longest - 6
    assert left + width == 308


def test_the_card_of_a_file_without_it_says_nothing() -> None:
    card = card_of("answers")
    assert card.report
    section = section_of(
        msgspec.structs.replace(card, report=msgspec.structs.replace(card.report, calibration=None)), "es"
    )

    assert not section.all("details") + section.all("svg", role="img")
    assert "Brier" not in section.text


def test_a_confusion_matrix_that_makes_no_sense_is_drawn_inside_the_picture() -> None:
    card = card_of("answers")
    assert card.report
    report = msgspec.structs.replace(card.report, confusion=((1, -(10**400)), (2, 10**400)))

    points = section_of(msgspec.structs.replace(card, report=report)).all("path", **{"class": "points"})

    assert points[1].attributes["d"] == "M52 4"


def test_a_pipeline_is_told_step_by_step_with_its_library(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.arange(60) % 2
    X[:, 0] += 2 * y
    X[::7, 1] = np.nan
    pipeline = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression()).fit(X, y)

    model = ml.export(pipeline, X, y, feature_names=["length (cm)", "width"], path=tmp_path / "m.npz")

    version = model.card.libraries["scikit-learn"]
    assert [item.text for item in section_of(model.card).one("ol").all("li")] == [
        "length, width: a missing value is replaced by the median",
        "length, width: the mean is subtracted, and the rest divided by the standard deviation",
        f"LogisticRegression; fitted with scikit-learn {version}",
    ]
    assert not section_of(card_of("answers")).all("ol")


# The model file.


@pytest.mark.parametrize("name", ["answers", "penguins"])
def test_a_model_file_keeps_what_its_own_probabilities_give(name: str, tmp_path: Path) -> None:
    model = small_tables.written(name, tmp_path)
    parts = small_tables.trained(name).split

    assert isinstance(model.card.report, Report)
    outputs = model.predict_batch(parts.test_rows).outputs
    assert model.card.report.calibration == calibration_of(outputs, parts.test_classes, Labelling(model.labels))


def test_a_file_without_it_still_loads() -> None:
    model = writing.model_of(small_tables.trained("answers"))
    card = msgspec.to_builtins(model.card)
    del card["report"]["calibration"]
    content = modelfile.dump(dataclasses.replace(model, card=msgspec.convert(card, Card)))

    report = LoadedModel(modelfile.parse(content), "0" * 12).card.report

    assert isinstance(report, Report)
    assert report.calibration is None


GOOD = Calibration(
    brier=0.1,
    bins=(Bin(0.2, 4, 1), Bin(0.9, 2, 2)),
    points=(Point(0.0, 3, 3), Point(0.5, 1, 2), Point(1.0, 0, 0)),
    area=0.9,
)


@for_each(
    ("changes", "n_labels"),
    [
        ({"brier": 2.1}, 2),
        ({"brier": float("nan")}, 2),
        ({"bins": ()}, 2),
        ({"bins": (Bin(0.2, 4, 5),)}, 2),
        ({"bins": (Bin(1.2, 4, 1),)}, 2),
        ({"bins": (Bin(0.5, 2**60, 1),)}, 2),
        ({"bins": GOOD.bins * 6}, 2),
        ({"points": ()}, 2),
        ({"points": GOOD.points[1:]}, 2),
        ({"points": GOOD.points[:-1]}, 2),
        ({"points": (Point(0.0, 3, 3), Point(0.7, 2, 2), Point(0.6, 1, 1), Point(1.0, 0, 0))}, 2),
        ({"points": (Point(0.0, 3, 3), Point(0.5, 4, 2), Point(1.0, 0, 0))}, 2),
        ({"points": (Point(0.0, 3, 3), Point(0.5, 1, -2), Point(1.0, 0, -3))}, 2),
        ({"points": (Point(0.0, 3, 3),) * 300 + (Point(1.0, 0, 0),)}, 2),
        ({"area": 1.5}, 2),
        ({"area": float("inf")}, 2),
        ({}, 3),
    ],
)
def test_numbers_that_no_rows_can_give_are_refused(changes: dict[str, object], n_labels: int) -> None:
    assert GOOD.is_possible(2)
    assert not msgspec.structs.replace(GOOD, **changes).is_possible(n_labels)


def test_a_file_with_such_numbers_is_refused() -> None:
    model = writing.model_of(small_tables.trained("answers"))
    assert model.card.report
    report = msgspec.structs.replace(model.card.report, calibration=msgspec.structs.replace(GOOD, brier=3.0))
    card = msgspec.structs.replace(model.card, report=report)

    with pytest.raises(ModelFileError, match="the calibration in the report has numbers that no test rows can give"):
        card.check()
