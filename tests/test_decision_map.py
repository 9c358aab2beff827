"""The decision map: what is drawn at a point is what the model says there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from ml.model.card import TrainedFeature
from ml.model.loaded import LoadedModel
from ml.model.values import UnknownWord
from tests import small_tables
from tests.conftest import points_of
from web.page.axes import LEAST_LEFT as LEFT
from web.page.axes import PLOT_HEIGHT, RIGHT, TOP, axes_of, default_axes, step_of
from web.page.decision_map import NOWHERE, SYMBOLS, DecisionMap, Mapper, Region, hue_of, sureness_of, symbol_of
from web.page.languages import language
from web.page.quantities import quantity_scale

ENGLISH = language("en")
PLOT_WIDTH = RIGHT - LEFT
Rectangle = tuple[int, int, int, int]


def mapper_of(model: LoadedModel, x: int = 3, y: int = 2, *, max_rows: int = 4_096) -> Mapper:
    return Mapper(model, ENGLISH, x=x, y=y, max_rows=max_rows)


def rectangles_of(region: Region) -> list[Rectangle]:
    """Return (left, top, right, bottom) of each rectangle of a region's path."""
    found = re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)H(\d+)z", region.path)
    assert "".join("M{} {}h{}v{}H{}z".format(*numbers) for numbers in found) == region.path
    numbers = [tuple(map(int, rectangle)) for rectangle in found]
    assert all(left == back for left, _, _, _, back in numbers), "each is closed"
    return [(left, top, left + width, top + height) for left, top, width, height, _ in numbers]


def drawn_at(drawn: DecisionMap, x: float, y: float) -> str:
    (css_classes,) = [
        region.css_classes
        for region in drawn.regions
        for left, top, right, bottom in rectangles_of(region)
        if left < x < right and top < y < bottom
    ]
    return css_classes


def look_of(model: LoadedModel, row: Sequence[float]) -> str:
    """Return the CSS classes of the answer to a row."""
    answer = model.predict(row)
    if levels := quantity_scale(model.card, ENGLISH):
        return f"step-{levels.tone(levels.levels_of([answer.value])[0])}"
    return f"{hue_of(answer.index)} {sureness_of(max(answer.probabilities))}"


def rows_of(model: LoadedModel, n: int, seed: int) -> list[list[float]]:
    low, high = np.array([(feature.low, feature.high) for feature in model.features]).T
    rows: list[list[float]] = np.random.default_rng(seed).uniform(low, high, (n, len(low))).round(2).tolist()
    return rows


@pytest.mark.parametrize(("x", "y"), [(3, 2), (2, 3), (0, 1), (1, 3)])
def test_the_regions_cover_the_plot_once(model: LoadedModel, x: int, y: int) -> None:
    for row in rows_of(model, 20, seed=x):
        drawn = mapper_of(model, x, y).draw(row)

        rectangles = [found for region in drawn.regions for found in rectangles_of(region)]
        assert (
            sum((right - left) * (bottom - top) for left, top, right, bottom in rectangles) == PLOT_WIDTH * PLOT_HEIGHT
        )
        covered = np.zeros((PLOT_HEIGHT, PLOT_WIDTH), dtype=int)
        for left, top, right, bottom in rectangles:
            covered[top - TOP : bottom - TOP, left - LEFT : right - LEFT] += 1
        assert (covered == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(("x", "y"), [(3, 2), (2, 3), (0, 1)])
def test_what_is_drawn_at_a_point_is_what_the_model_says_there(model: LoadedModel, x: int, y: int) -> None:
    mapper, rng = mapper_of(model, x, y), np.random.default_rng(7)
    plot = mapper.plot
    checked = 0
    for row in rows_of(model, 20, seed=3):
        drawn = mapper.draw(row)
        for across, up in zip(
            rng.uniform(plot.x.low, plot.x.high, 40), rng.uniform(plot.y.low, plot.y.high, 40), strict=True
        ):
            there = [*row]
            there[x], there[y] = float(across), float(up)
            column = LEFT + (across - plot.x.low) / (plot.x.high - plot.x.low) * PLOT_WIDTH
            line = TOP + PLOT_HEIGHT - (up - plot.y.low) / (plot.y.high - plot.y.low) * PLOT_HEIGHT
            nearby = {
                drawn_at(drawn, min(max(column + dx, LEFT + 0.25), LEFT + PLOT_WIDTH - 0.25) + 1e-7,
                         min(max(line + dy, TOP + 0.25), TOP + PLOT_HEIGHT - 0.25) + 1e-7)
                for dx in (-0.75, 0.75) for dy in (-0.75, 0.75)
            }  # fmt: skip
            if len(nearby) == 1:  # lines are at whole units: nearer than that to one, either side may be meant
                assert nearby == {look_of(model, there)}
                checked += 1
    assert checked > 600


def test_every_border_has_two_labels_and_every_two_labels_a_border(model: LoadedModel) -> None:
    drawn = mapper_of(model).draw([5.6, 2.7, 4.2, 1.3])
    picture = np.zeros((PLOT_HEIGHT, PLOT_WIDTH), dtype=int)
    for region in drawn.regions:
        for left, top, right, bottom in rectangles_of(region):
            hue = int(region.css_classes[len("hue-")])
            picture[top - TOP : bottom - TOP, left - LEFT : right - LEFT] = hue

    across, up = np.zeros_like(picture, dtype=bool), np.zeros_like(picture, dtype=bool)
    for x, y, direction, end in re.findall(r"M(\d+) (\d+)([VH])(\d+)", drawn.borders):
        if direction == "V":
            across[int(end) - TOP : int(y) - TOP, int(x) - LEFT] = True
        else:
            up[int(y) - TOP, int(x) - LEFT : int(end) - LEFT] = True

    assert np.array_equal(across[:, 1:], picture[:, 1:] != picture[:, :-1])
    assert np.array_equal(up[1:], picture[1:] != picture[:-1])


def test_the_points_are_the_training_rows_of_each_class(model: LoadedModel) -> None:
    mapper = mapper_of(model)

    points_of_each = mapper.plot.points

    shown = [set(points_of(points.path)) for points in points_of_each]
    expected: list[set[tuple[int, int]]] = [set() for _ in model.labels]
    for row, label in zip(model.reference_rows.tolist(), model.reference_outcomes.astype(int).tolist(), strict=True):
        expected[label].add(mapper.position(row))
    assert shown == expected
    assert len({points.symbol for points in points_of_each}) == len(model.labels), "a symbol of its own for each class"


def test_a_sample_outside_of_the_plot_is_at_its_edge(model: LoadedModel) -> None:
    mapper = mapper_of(model)

    assert mapper.position([5.0, 3.0, 1e6, -1e6]) == (LEFT, TOP)
    assert mapper.position([5.0, 3.0, -1e6, 1e6]) == (LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT)


def test_a_coarser_map_says_so(model: LoadedModel) -> None:
    row = [5.6, 2.7, 4.2, 1.3]

    assert mapper_of(model).draw(row).exact
    assert not mapper_of(model, max_rows=64).draw(row).exact


def test_ticks_are_round_numbers_inside_of_the_plot(model: LoadedModel) -> None:
    plot = mapper_of(model).plot

    assert [text for _, text in plot.x.ticks] == ["0.5", "1", "1.5", "2", "2.5"]
    assert [text for _, text in plot.y.ticks] == ["2", "4", "6"]
    assert all(LEFT <= position <= LEFT + PLOT_WIDTH for position, _ in plot.x.ticks)
    assert all(TOP <= position <= TOP + PLOT_HEIGHT for position, _ in plot.y.ticks)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (None, None, (3, 2)), ("sepal_length", None, (0, 2)), (None, "sepal_length", (3, 0)),
        ("sepal_length", "sepal_width", (0, 1)), ("petal_length", "petal_length", (2, 3)), ("x", "?", (3, 2)),
        ("petal_length", None, (2, 3)), ("sepal_width", "sepal_width", (1, 3)),
        ("petal_width", "petal_width", (2, 3)), (None, "petal_width", (2, 3)),
    ],
)  # fmt: skip
def test_axes_are_asked_for_by_key(model: LoadedModel, x: str | None, y: str | None, expected: tuple[int, int]) -> None:
    assert axes_of(model, x, y) == expected


def test_the_usual_axes_are_the_two_most_important_features_if_there_is_a_border_over_them(model: LoadedModel) -> None:
    axes = default_axes(model)

    assert axes
    ranked = sorted((feature.importance for feature in model.features), reverse=True)
    assert [model.features[position].importance for position in axes] == ranked[:2]


def test_the_usual_axes_show_a_border_that_more_important_features_do_not(built_in_model: LoadedModel) -> None:
    sepals_first = [
        msgspec.structs.replace(one, importance=float("sepal" in one.key)) for one in built_in_model.features
    ]
    other = other_features(built_in_model, sepals_first)
    example = [one.example for one in other.features]

    axes = default_axes(other)

    assert axes
    assert not Mapper(other, ENGLISH, x=0, y=1, max_rows=4_096).draw(example).borders
    assert Mapper(other, ENGLISH, x=axes[0], y=axes[1], max_rows=4_096).draw(example).borders


def feature(low: float, high: float, minimum: float | None = None, maximum: float | None = None) -> TrainedFeature:
    return TrainedFeature(
        key="f",
        title="f",
        low=low,
        high=high,
        minimum=minimum,
        maximum=maximum,
        quantiles=(float(low), (2 * low + high) / 3, float(high)),
        example=low,
        importance=0.0,
    )


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(0.1, 2.5, 0.1), (0, 100, 1.0), (0, 1, 0.01), (1e6, 9e6, 1e5), (3, 3, 1.0), (0, 2e-9, 1e-10)],
)
def test_a_step_is_a_power_of_ten_that_goes_into_the_range(low: float, high: float, step: float) -> None:
    assert step_of(feature(low, high)) == step


def test_a_step_of_whole_numbers_is_one_at_least() -> None:
    assert step_of(feature(0, 3)) == 1.0
    assert step_of(feature(0, 3000)) == 100.0


@pytest.mark.parametrize(
    "strange",
    [
        feature(3, 3), feature(0, 0), feature(-1e38, 1e38), feature(1e-300, 2e-300),
        feature(5, 5, minimum=5, maximum=5), feature(-3.4e38, 3.4e38),
        feature(0, 1, minimum=0, maximum=1), feature(1e15, 1e15 + 1),
    ],
)  # fmt: skip
def test_any_training_range_has_a_scale_with_ticks(model: LoadedModel, strange: TrainedFeature) -> None:
    odd = other_features(model, [strange, strange, *model.features[2:]])

    mapper = Mapper(odd, ENGLISH, x=0, y=1, max_rows=256)
    drawn = mapper.draw([strange.low, strange.high, 4.2, 1.3])

    assert mapper.plot.x.low < mapper.plot.x.high
    assert mapper.plot.x.ticks
    assert drawn.regions


class OtherFeatures(LoadedModel):
    """A model with features that are described in another way."""

    def __init__(self, model: LoadedModel, features: Sequence[TrainedFeature]) -> None:
        self.__dict__.update(model.__dict__)
        self.features = tuple(features)


def other_features(model: LoadedModel, features: Sequence[TrainedFeature]) -> LoadedModel:
    keyed = [msgspec.structs.replace(feature, key=f"f{number}") for number, feature in enumerate(features)]
    return OtherFeatures(model, keyed)


# --- words, gaps and quantities


@pytest.fixture(scope="module", params=["penguins", "crops", "cars"])
def odd_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return small_tables.written(request.param, tmp_path_factory.mktemp(request.param))


def test_a_choice_is_a_band_in_which_the_answer_is_the_models(odd_model: LoadedModel) -> None:
    rng = np.random.default_rng(3)
    words = [position for position, feature in enumerate(odd_model.features) if feature.choices]
    for x, y in ((words[0], words[1]), (words[0], len(odd_model.features) - 1)):
        mapper = Mapper(odd_model, ENGLISH, x=x, y=y, max_rows=4_096)
        plot = mapper.plot
        row = odd_model.reference_rows[0].tolist()
        drawn = mapper.draw(row)
        for choice in range(len(odd_model.features[x].choices)):
            up = float(rng.uniform(plot.y.low, plot.y.high))
            up = round(up) if odd_model.features[y].choices else up
            there = [*row]
            there[x], there[y] = float(choice), up
            column, line = mapper.position(there)

            nearby = {drawn_at(drawn, column + 0.1, line + dy) for dy in (-0.9, 0.9)}

            assert len(nearby) > 1 or nearby == {look_of(odd_model, there)}


def test_training_rows_lie_in_the_bands_of_their_choices_and_those_without_a_value_nowhere(
    odd_model: LoadedModel,
) -> None:
    x, y = (position for position, feature in list(enumerate(odd_model.features))[:2])
    mapper = Mapper(odd_model, ENGLISH, x=x, y=y, max_rows=256)
    across = [column for points in mapper.plot.points for column, _ in points_of(points.path)]
    band = mapper.plot.width / len(odd_model.features[x].choices)

    known = odd_model.reference_rows[:, [x, y]]
    known = known[~np.isnan(known).any(axis=1)]

    assert 0 < len(across) <= len(known)
    bands = {int((column - mapper.plot.left) // band) for column in across}
    assert bands == set(known[:, 0].astype(int).tolist())
    middles = [abs((column - mapper.plot.left) % band - band / 2) for column in across]
    assert max(middles) <= band * 0.35 + 1


def test_the_ticks_of_a_category_are_its_choices_as_far_as_there_is_space(odd_model: LoadedModel) -> None:
    for number, feature in enumerate(odd_model.features):
        other = 0 if number else 1
        for plot in (
            Mapper(odd_model, ENGLISH, x=number, y=other, max_rows=256).plot,
            Mapper(odd_model, ENGLISH, x=other, y=number, max_rows=256).plot,
        ):
            axis = plot.x if plot.x.key == feature.key else plot.y
            assert axis.ticks
            if feature.choices:
                texts = [text.removesuffix("…") for _, text in axis.ticks]
                assert all(any(choice.startswith(text) for choice in feature.choices) for text in texts)
            places = sorted(place for place, _ in axis.ticks)
            assert min(np.diff(places), default=99) >= 14
            assert plot.left + plot.width == RIGHT


def test_no_value_and_an_unknown_word_have_no_position(odd_model: LoadedModel) -> None:
    mapper = Mapper(odd_model, ENGLISH, x=0, y=1, max_rows=256)
    row = odd_model.reference_rows[0].tolist()

    assert mapper.position([math.nan, math.nan, *row[2:]]) == (NOWHERE, NOWHERE)
    assert mapper.position([UnknownWord("x"), *row[1:]])[0] == NOWHERE


def test_every_label_has_a_symbol_of_its_own_or_the_one_that_says_it_has_none() -> None:
    symbols = [symbol_of(label) for label in range(1_000)]

    assert len(set(symbols[: len(SYMBOLS) - 1])) == len(SYMBOLS) - 1 >= 12
    assert set(symbols[len(SYMBOLS) :]) == {SYMBOLS[-1]}
    assert SYMBOLS[-1] not in symbols[: len(SYMBOLS) - 1]
