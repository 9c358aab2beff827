"""The decision map of a model of scores: its regions have the edges that its level lines have."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import ml
from ml.model.loaded import LoadedModel
from web.page.axes import PLOT_HEIGHT, RIGHT, TOP
from web.page.contours import Box, area
from web.page.decision_map import DecisionMap, hue_of, sureness_of
from web.page.languages import language
from web.page.quantities import quantity_scale
from web.page.smooth_map import SmoothMapper

ENGLISH = language("en")
BOX = Box(0, 10, 10, 0)
# A point so near to an edge, in units of the picture, is on either side of it.
NEAR = 1.5
Polygon = NDArray[np.float64]


@cache
def data_of(name: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    if name == "iris":
        return load_iris(return_X_y=True)  # type: ignore[no-any-return]  # it has no types
    X, y = load_breast_cancer(return_X_y=True)
    return X[:, :4], X[:, 4] if name == "quantity" else y


MODELS: dict[str, tuple[str, Callable[[], Any], float | None]] = {
    "logistic": ("cancer", lambda: make_pipeline(StandardScaler(), LogisticRegression()), None),
    "a threshold": ("cancer", lambda: make_pipeline(StandardScaler(), LogisticRegression()), 0.9),
    "sharp": ("cancer", lambda: make_pipeline(StandardScaler(), LogisticRegression(C=1e6)), 0.3),
    "softmax": ("iris", lambda: LogisticRegression(max_iter=1000), None),
    "bayes": ("iris", GaussianNB, None),
    "bayes of two": ("cancer", GaussianNB, 0.2),
    "quantity": ("quantity", Ridge, None),
}


def model_of(name: str, folder: Path) -> LoadedModel:
    table, make, threshold = MODELS[name]
    X, y = data_of(table)
    names = [f"x{place}" for place in range(X.shape[1])]
    return ml.export(make().fit(X, y), X, y, feature_names=names, path=folder / "m.npz", threshold=threshold)


def look_of(model: LoadedModel, row: Sequence[float]) -> str:
    """Return the CSS classes of the answer to a row."""
    answer = model.predict(row)
    if levels := quantity_scale(model.card, ENGLISH):
        return f"step-{levels.tone(levels.levels_of([answer.value])[0])}"
    return f"{hue_of(answer.index)} {sureness_of(answer.probabilities[answer.index])}"


def polygons_of(path: str) -> list[Polygon]:
    assert re.fullmatch(r"(M[-\d. ]+z?)*", path)
    return [np.array(part.rstrip("z").split(), dtype=float).reshape(-1, 2) for part in path.split("M")[1:]]


def contains(polygon: Polygon, x: float, y: float) -> bool:
    start, end = polygon, np.roll(polygon, -1, axis=0)
    is_level = (start[:, 1] > y) != (end[:, 1] > y)
    start, end = start[is_level], end[is_level]
    crossings = start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0])
    return bool(np.count_nonzero(crossings > x) % 2)


def covers(path: str, x: float, y: float) -> bool:
    """Return whether a path is filled at a point: a polygon within another one is a hole."""
    return sum(contains(polygon, x, y) for polygon in polygons_of(path)) % 2 == 1


def drawn_at(drawn: DecisionMap, x: float, y: float) -> str:
    return next(region.css_classes for region in reversed(drawn.regions) if covers(region.path, x, y))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_at_a_point_is_what_the_model_says_there(name: str, tmp_path: Path) -> None:
    model, x, y = model_of(name, tmp_path), 3, 2
    mapper = SmoothMapper(model, ENGLISH, x=x, y=y, max_rows=4_096)
    axes, rng = mapper.plot, np.random.default_rng(0)

    def at(across: float, up: float) -> list[float]:
        row = list(held)
        row[x] = axes.x.low + (across - axes.left) / axes.width * (axes.x.high - axes.x.low)
        row[y] = axes.y.high - (up - TOP) / PLOT_HEIGHT * (axes.y.high - axes.y.low)
        return row

    for held in model.reference_rows[[0, 140]].tolist():
        drawn = mapper.draw(held)
        assert drawn.is_smooth
        compared = 0
        for across, up in rng.uniform((axes.left + 2, TOP + 2), (RIGHT - 2, TOP + PLOT_HEIGHT - 2), (40, 2)).tolist():
            around = {look_of(model, at(across + dx, up + dy)) for dx in (-NEAR, 0, NEAR) for dy in (-NEAR, 0, NEAR)}
            if len(around) == 1:  # else it is near to an edge
                compared += 1
                assert {drawn_at(drawn, across, up)} == around, (across, up)
        assert compared > 20


def test_a_border_of_a_linear_model_is_one_straight_line(tmp_path: Path) -> None:
    X, y = data_of("cancer")
    estimator = LogisticRegression().fit(X[:, :2], y)
    model = ml.export(estimator, X[:, :2], y, feature_names=["a", "b"], path=tmp_path / "m.npz")

    drawn = SmoothMapper(model, ENGLISH, x=0, y=1, max_rows=4_096).draw(X[0, :2].tolist())

    (line,) = polygons_of(drawn.borders)
    assert line.shape == (2, 2)
    assert {name.text for name in drawn.names} == {"0", "1"}


def test_a_model_whose_scores_are_no_polynomials_is_drawn_in_steps(tmp_path: Path) -> None:
    X, y = data_of("iris")
    estimator = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(X, y)
    model = ml.export(estimator, X, y, feature_names=[*"abcd"], path=tmp_path / "m.npz")

    assert not SmoothMapper(model, ENGLISH, x=0, y=1, max_rows=4_096).draw(X[0].tolist()).is_smooth


# Contours.


def grid(make: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    ys, xs = np.mgrid[0:11, 0:11].astype(float)
    return make(xs, ys)


@pytest.mark.parametrize("slopes", [(1, 1), (-1, -1), (1, 0), (0, 1), (9, -0.3), (-0.2, 5), (0.7, -1.9)])
def test_the_edge_of_a_linear_field_is_straight(slopes: tuple[float, float]) -> None:
    across, up = slopes

    def value(x: Any, y: Any) -> Any:  # y as in the picture
        return across * (x - 5.3) + up * (10 - y - 4.1)

    path, edge = area(grid(lambda x, y: value(x, 10 - y) + 0 * x), 0.0, BOX)

    ends = [point for line in polygons_of(edge) for point in (line[0].tolist(), line[-1].tolist())]
    assert sum(min(x, y, 10 - x, 10 - y) < 0.06 for x, y in ends) == 2
    assert all(abs(value(x, y)) < 0.1 * max(abs(across), abs(up)) for x, y in ends)
    for x, y in np.random.default_rng(0).uniform(0, 10, (200, 2)).tolist():
        if abs(value(x, y)) > 0.1 * max(abs(across), abs(up)):
            assert covers(path, x, y) == (value(x, y) > 0)


def test_a_whole_plot_and_none_of_it_have_no_edge() -> None:
    whole, edge = area(np.ones((11, 11)), 0.0, BOX)
    assert {tuple(point) for point in polygons_of(whole)[0].tolist()} == {(0, 0), (0, 10), (10, 0), (10, 10)}
    assert edge == ""
    assert area(-np.ones((11, 11)), 0.0, BOX) == ("", "")


@pytest.mark.parametrize("level", [4.0, 9.0, 20.0, 40.0])
def test_the_area_of_a_disc_and_of_what_is_around_it_is_right(level: float) -> None:
    field = grid(lambda x, y: (x - 5) ** 2 + (y - 5) ** 2)
    paths = [area(sign * field, sign * level, Box(0, 100, 100, 0))[0] for sign in (1, -1)]

    for x, y in np.random.default_rng(0).uniform(0, 10, (400, 2)).tolist():
        distance = (x - 5) ** 2 + (y - 5) ** 2 - level
        if abs(distance) > 1:  # between two points a curve is taken for straight
            assert [covers(path, 10 * x, 10 * y) for path in paths] == [distance > 0, distance < 0]
