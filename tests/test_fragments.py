"""Fragments: what is kept and filled is what would be rendered anew, and memory stays bounded."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import jinja2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

import ml
from ml.model.loaded import LoadedModel, load_model
from ml.model.nearest import nearest_change
from ml.model.sample import InvalidSample
from tests.conftest import parse_html
from web.page import fragments
from web.page.axes import default_axes
from web.page.fragments import Fragments, fragments_of
from web.page.languages import language
from web.page.picture import LONGEST, Picture
from web.page.templates import CompiledTemplates, Outline
from web.page.templates import outline as outline_of

ENGLISH = language("en")


def rows_of(model: LoadedModel, n: int, seed: int = 0) -> list[list[float]]:
    low, high = np.array([(feature.low, feature.high) for feature in model.features]).T
    rows: list[list[float]] = (
        np.random.default_rng(seed).uniform(low - 0.5, high + 0.5, (n, len(low))).round(2).tolist()
    )
    return rows


def answer(made: Fragments, model: LoadedModel, row: list[float], axes: tuple[int, int] | None) -> str:
    messages = made.messages_of(model.validator.notes(row), row)
    return made.answer(row, model.cuts.ranks_of(row), model.predict(row), messages, axes=axes).decode()


def test_an_outline_is_filled_in_its_gaps() -> None:
    outline = outline_of("_picture.html", ENGLISH, shapes=Picture(LikeNothing()).shapes)  # type: ignore[arg-type]  # has what a picture looks at

    assert outline.fill([]).startswith(b"<svg")
    with pytest.raises(ValueError, match="size 1 to extended slice of size 0"):
        outline.fill([b"too many"])
    assert Outline(["no gap"]).fill(()) == b"no gap"
    assert Outline(["a", "b", "c"]).fill([b"1", b"2"]) == b"a1b2c"


class LikeNothing:
    """A model without a picture."""

    features = ()

    class card:
        picture = ()


@pytest.mark.parametrize("axes", [(3, 2), (0, 1), None])
def test_a_kept_fragment_is_the_one_that_is_rendered_anew(model: LoadedModel, axes: tuple[int, int] | None) -> None:
    kept = Fragments(model, ENGLISH)
    rows = rows_of(model, 15)
    for row in rows:
        answer(kept, model, row, axes)

    for row in rows:
        assert answer(kept, model, row, axes) == answer(Fragments(model, ENGLISH), model, row, axes)


def test_every_fragment_says_what_the_model_says(model: LoadedModel) -> None:
    made = Fragments(model, ENGLISH)
    for row in rows_of(model, 60, seed=1):
        prediction = model.predict(row)

        html = parse_html(answer(made, model, row, default_axes(model)))

        assert html.one(data_state="answer").attributes["data-label"] == prediction.label
        shares = [float(meter.attributes["value"]) for meter in html.all("meter")]
        assert shares == list(prediction.probabilities)
        change, _ = nearest_change(model, row)
        buttons = html.all("button")
        assert [(b.attributes["data-set"], float(b.attributes["data-value"].replace("−", "-"))) for b in buttons] == (
            [(change.feature, change.value)] if change else []
        )
        if change:
            changed = [*row]
            changed[[feature.key for feature in model.features].index(change.feature)] = change.value
            assert model.predict(changed).label == change.label != prediction.label


def test_the_chosen_region_is_that_of_the_answer(model: LoadedModel) -> None:
    made = Fragments(model, ENGLISH)
    row = [5.6, 2.7, 4.2, 1.3]
    for petal_width in (0.2, 1.3, 2.4):
        there = [*row[:3], petal_width]

        html = parse_html(answer(made, model, there, (3, 2)))

        named = [text.text for text in html.all("text") if "chosen" in text.attributes.get("class", "").split()]
        assert named in ([model.predict(there).label], [])


def test_a_sample_with_errors_has_no_map(model: LoadedModel) -> None:
    made = Fragments(model, ENGLISH)
    with pytest.raises(InvalidSample) as caught:
        model.validator.row({"sepal_length": "x"})

    html = made.invalid(made.invalid_view(caught.value)).decode()

    assert "<svg" not in html
    assert 'data-state="invalid"' in html


def test_the_maps_that_are_kept_are_bounded(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "KEPT_MAPS", 3)
    made = Fragments(model, ENGLISH)

    for row in rows_of(model, 30):
        answer(made, model, row, (3, 2))

    assert len(made._maps) == 3


def test_a_models_fragments_are_made_once_and_go_with_it(model_path: Path) -> None:
    model = load_model(model_path)
    answer(fragments_of(model, ENGLISH), model, [5.6, 2.7, 4.2, 1.3], (3, 2))
    gone = weakref.ref(model)

    assert fragments_of(model, ENGLISH) is fragments_of(model, ENGLISH)
    assert fragments_of(model, ENGLISH) is not fragments_of(model, language("es"))
    del model
    gc.collect()
    assert gone() is None


def test_a_picture_has_one_scale_for_all_shapes(model: LoadedModel) -> None:
    picture = Picture(model)
    row = [7.9, 3.8, 6.4, 2.0]

    sizes = [tuple(map(float, size.split())) for size in picture.sizes(row)]

    assert [shape.angle for shape in picture.shapes] == ["90", "210", "330", "30", "150", "270"]
    assert sizes[:3] == [sizes[0]] * 3
    assert sizes[3:] == [sizes[3]] * 3
    assert sizes[0][0] == LONGEST, "the longest of the training range"
    scales = [size / value for size, value in zip((*sizes[0], *sizes[3]), row, strict=True)]
    assert max(scales) - min(scales) < 0.05


def test_a_picture_of_impossible_lengths_stays_a_picture(model: LoadedModel) -> None:
    sizes = Picture(model).sizes([1e30, -5.0, 0.0, 1e-30])

    assert all(0 < float(number) <= 50 for size in sizes for number in size.split())


@pytest.mark.parametrize(
    ("code", "said", "coarse"),
    [
        ("en", "(only nearby values were searched)", "borders are approximate"),
        ("es", "(solo se buscó entre valores cercanos)", "los bordes son aproximados"),
    ],
)
def test_a_search_and_a_map_that_are_cut_short_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str, coarse: str
) -> None:
    monkeypatch.setattr(fragments, "LEAST_ROWS", 20)
    monkeypatch.setattr(fragments, "MOST_ROWS", 20)
    rows = np.random.default_rng(0).uniform(0, 10, (300, 5))
    forest = RandomForestClassifier(10, random_state=0).fit(rows, rows.sum(axis=1) > 25)
    names = [f"f{number}" for number in range(5)]
    ml.export(forest, rows, rows.sum(axis=1) > 25, feature_names=names, path=tmp_path / "model.npz")
    loaded = {
        compiles: load_model(tmp_path / "model.npz", max_cells=0, compiles=compiles) for compiles in (False, True)
    }

    shown = {
        compiles: answer(Fragments(model, language(code)), model, rows[0].round(2).tolist(), (0, 1))
        for compiles, model in loaded.items()
    }

    assert all(coarse in html for html in shown.values())
    assert [said in shown[compiles] for compiles in (False, True)] == [True, False]


def test_a_whole_search_and_an_exact_map_say_nothing_of_limits(model: LoadedModel) -> None:
    html = answer(fragments_of(model, ENGLISH), model, rows_of(model, 1)[0], (3, 2))

    assert "nearby" not in html
    assert "approximate" not in html


def test_compiled_templates_are_kept_until_they_change_and_where_they_can_be(tmp_path: Path) -> None:
    def rendered(source: str, folder: Path) -> str:
        loader, compiled = jinja2.DictLoader({"a": source}), CompiledTemplates(str(folder))
        return jinja2.Environment(loader=loader, bytecode_cache=compiled).get_template("a").render()

    assert rendered("one", tmp_path) == "one"
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert rendered("one", tmp_path) == "one"
    assert file.stat().st_mtime_ns == written
    assert rendered("two", tmp_path) == "two"
    assert file.stat().st_mtime_ns > written
    assert rendered("one", tmp_path / "none") == "one"
