"""Drift: the stability index, its bins, what fades, and what the operator sees."""

from __future__ import annotations

import doctest
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from ml.model.card import TrainedFeature
from ml.model.loaded import LoadedModel
from ml.training.fitting import Trained
from tests.conftest import parse_html
from web.app import create_app
from web.metrics import drift
from web.metrics.counters import Metrics
from web.metrics.counts import MOST_CHOICES, Counts, snapshot
from web.metrics.drift import LEAST_SAMPLES, LEAST_SHARE, FeatureDrift, InputDrift
from web.page.drift_page import view
from web.page.languages import language
from web.settings import Settings

DAY_S = 86_400.0
ENGLISH = language("en")


def feature_of(values: np.ndarray, key: str = "x") -> TrainedFeature:
    quantiles = tuple(np.quantile(values, np.linspace(0, 1, 11)).tolist())
    return TrainedFeature(
        key=key, title=key, low=quantiles[0], high=quantiles[-1], quantiles=quantiles, example=0.0, importance=0.0
    )


def report_of(model: LoadedModel, rows: np.ndarray, *, times: int = 1) -> InputDrift:
    counts = Counts(model.version, model.features, half_life_s=DAY_S)
    for _ in range(times):
        counts.add(rows.astype(np.float32))
    return drift.drift_of(model.card, counts)


def test_the_training_rows_themselves_have_no_drift_though_many_values_are_equal(
    model: LoadedModel, trained: Trained
) -> None:
    report = report_of(model, trained.split.train_rows, times=10)

    assert report.verdict == "stable"
    assert all(feature.psi == pytest.approx(0, abs=1e-3) for feature in report.features)
    assert all(feature.outside == 0 for feature in report.features)


def test_values_that_equal_a_quantile_are_divided_as_the_example_says() -> None:
    assert doctest.testmod(drift, extraglobs={"np": np}) == doctest.TestResults(failed=0, attempted=3)


def test_the_index_is_the_sum_of_its_definition() -> None:
    shares, expected = np.array([0.2, 0.8]), np.array([0.5, 0.5])

    index = drift.stability_index(shares, expected)

    assert index == pytest.approx((0.2 - 0.5) * math.log(0.2 / 0.5) + (0.8 - 0.5) * math.log(0.8 / 0.5))


def test_an_empty_bin_counts_as_the_least_share_and_the_index_stays_finite() -> None:
    index = drift.stability_index(np.array([0.0, 1.0]), np.array([0.5, 0.5]))

    by_hand = (LEAST_SHARE - 0.5) * math.log(LEAST_SHARE / 0.5) + 0.5 * math.log(2)
    assert index == pytest.approx(by_hand)


def test_values_moved_by_the_width_of_two_bins_have_shifted(model: LoadedModel, trained: Trained) -> None:
    rows = trained.split.train_rows.copy()
    rows[:, 0] += 1.0

    report = report_of(model, rows, times=10)

    first, *others = report.features
    assert first.verdict == report.verdict == "shifted"
    assert {feature.verdict for feature in others} == {"stable"}


@pytest.mark.parametrize(
    ("psi", "verdict"), [(0.0, "stable"), (0.0999, "stable"), (0.1, "moderate"), (0.25, "shifted"), (9.0, "shifted")]
)
def test_the_verdict_follows_the_usual_thresholds(psi: float, verdict: str) -> None:
    assert drift.verdict_of(psi) == verdict


def test_below_the_least_number_of_samples_there_is_no_index(model: LoadedModel, trained: Trained) -> None:
    rows = np.resize(trained.split.train_rows, (LEAST_SAMPLES, 4))

    few, enough = report_of(model, rows[:-1]), report_of(model, rows)

    assert few.verdict == "too few samples"
    assert {feature.psi for feature in few.features} == {None}
    assert enough.verdict != "too few samples"


def test_without_any_sample_there_is_a_report_all_the_same(model: LoadedModel) -> None:
    report = report_of(model, np.empty((0, 4)))

    assert (report.verdict, report.samples, report.by_chance) == ("too few samples", 0, None)
    assert [feature.outside for feature in report.features] == [None] * 4
    whole = drift.report(model.card, model.version, [report], half_life_s=DAY_S)
    [shown] = view(whole, model, ENGLISH).sources
    assert (shown.headline, shown.rows) == ("No samples yet.", [])


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0, 2.5, -4.0, 1e30]), min_size=2, max_size=60),
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=60),
)
def test_shares_add_up_to_one_whatever_was_trained_on_and_comes_in(trained: list[float], seen: list[float]) -> None:
    feature = feature_of(np.array(trained))
    counts = Counts("v", [feature], half_life_s=DAY_S)

    watched = counts.add(np.array(seen, dtype=np.float32)[:, None])

    row = drift.shares_of([feature], counts)[0].tolist()
    assert sum(row) == pytest.approx(1)
    assert min(row) >= 0
    low, high = np.float32(feature.quantiles[0]), np.float32(feature.quantiles[-1])
    outside = sum(not low <= np.float32(value) <= high for value in seen)
    assert watched.rows_outside == watched.values_outside[0] == outside
    assert row[0] + row[-1] == pytest.approx(outside / len(seen))


def category(counts: tuple[int, ...], *, missing: int = 0) -> TrainedFeature:
    n_choices = len(counts)
    ends = (0.0, n_choices - 1.0)
    return TrainedFeature(
        key="word", title="word", choices=tuple(f"w{number}" for number in range(n_choices)), counts=counts,
        has_gaps=missing > 0, gap_share=missing / (sum(counts) + missing), low=0.0, high=ends[1],
        quantiles=tuple(np.linspace(*ends, 11).tolist()), example=0.0, importance=0.0,
    )  # fmt: skip


def drift_of(model: LoadedModel, feature: TrainedFeature, values: Sequence[float]) -> FeatureDrift:
    counts = Counts("v", [feature], half_life_s=DAY_S)
    counts.add(np.array(values, dtype=np.float32)[:, None])
    return drift.drift_of(msgspec.structs.replace(model.card, features=(feature,)), counts).features[0]


def test_words_are_compared_choice_by_choice(model: LoadedModel) -> None:
    feature = category((60, 30, 10))

    same = drift_of(model, feature, [0] * 600 + [1] * 300 + [2] * 100)
    moved = drift_of(model, feature, [0] * 300 + [1] * 600 + [2] * 100)

    assert same.choices == ("w0", "w1", "w2")
    assert (same.psi, same.expected, same.shares) == (0, (0.6, 0.3, 0.1, 0.0), (0.6, 0.3, 0.1, 0.0))
    assert (moved.verdict, moved.shares) == ("shifted", (0.3, 0.6, 0.1, 0.0))


def test_words_not_seen_in_training_are_outside_and_count_as_drift(model: LoadedModel) -> None:
    found = drift_of(model, category((50, 50)), [0] * 450 + [1] * 450 + [-1] * 100)

    assert (found.outside, found.missing, found.shares[-1], found.verdict) == (0.1, 0, 0.1, "shifted")


@pytest.mark.parametrize("feature", [category((50, 25), missing=25), feature_of(np.arange(101.0))])
def test_a_share_of_missing_values_as_in_training_is_no_drift_and_another_one_is(
    model: LoadedModel, feature: TrainedFeature
) -> None:
    feature = msgspec.structs.replace(feature, has_gaps=True, gap_share=0.25)
    present = [0.0, 0.0, 1.0] * 100 if feature.choices else [0.5 + step for step in range(100)] * 3

    same = drift_of(model, feature, [*present, *[math.nan] * 100] * 2)
    more = drift_of(model, feature, [*present, *[math.nan] * 300] * 2)

    assert same.psi == pytest.approx(0, abs=1e-3)
    assert (same.missing, same.outside) == (0.25, 0)
    assert same.expected[-1] == same.shares[-1] == 0.25
    assert (more.verdict, more.missing) == ("shifted", 0.5)
    assert sum(more.shares) == pytest.approx(1)


def test_rare_choices_share_a_bin_so_that_chance_alone_is_no_drift(model: LoadedModel) -> None:
    feature = category(tuple(range(100, 0, -1)))

    found = drift_of(model, feature, [float(position) for position in range(100) for _ in range(100 - position)])

    assert found.choices == tuple(f"w{number}" for number in range(MOST_CHOICES))
    assert len(found.shares) == len(found.expected) == MOST_CHOICES + 2
    assert found.psi == pytest.approx(0, abs=1e-3)


def test_float32_and_float64_of_one_number_are_counted_alike(model: LoadedModel) -> None:
    values = [[feature.quantiles[3] for feature in model.features]]
    single, double = (Counts("v", model.features, half_life_s=DAY_S) for _ in range(2))

    single.add(np.array(values, dtype="<f4"))
    double.add(np.array(values, dtype=np.float64).astype(np.float32))

    assert np.flatnonzero(single.counts).tolist() == np.flatnonzero(double.counts).tolist()


def test_a_sample_as_old_as_the_half_life_counts_half(model: LoadedModel) -> None:
    counts = Counts(model.version, model.features, half_life_s=60)
    counts.add(np.ones((8, 4), dtype=np.float32))

    counts.fade(counts.at + 60)

    assert counts.counts.sum(axis=1) == pytest.approx([4, 4, 4, 4])


def test_counts_of_other_processes_are_added_if_they_are_of_the_same_model_and_source(model: LoadedModel) -> None:
    own, other, foreign = (
        Counts(version, model.features, half_life_s=DAY_S) for version in ("this", "this", "another")
    )
    typed = Counts("this", model.features, half_life_s=DAY_S, source="page")
    for counts, rows in ((own, 1), (other, 2), (foreign, 4), (typed, 8)):
        counts.add(np.ones((rows, 4), dtype=np.float32))

    for counts in (other, foreign, typed):
        own.merge(snapshot(counts))

    assert own.counts.sum(axis=1) == pytest.approx([3, 3, 3, 3], abs=1e-3)


def test_nothing_of_a_sample_is_in_what_is_left_on_disk(model: LoadedModel) -> None:
    counts = Counts(model.version, model.features, half_life_s=DAY_S)
    before = len(snapshot(counts))

    counts.add(np.ones((10_000, 4), dtype=np.float32))

    assert len(snapshot(counts)) == before
    assert not [name for name in vars(counts) if isinstance(getattr(counts, name), list) and name != "_edges"]


@pytest.fixture
def watched(model: LoadedModel, trained: Trained) -> Metrics:
    metrics = Metrics()
    metrics.model_loaded(model)
    rows = np.resize(trained.split.train_rows, (900, 4))
    rows[:, 3] += 3
    metrics.json.many(model, rows[:256], np.zeros(256, dtype=np.intp))
    for start in range(256, 900, 256):
        metrics.json.many(model, rows[start : start + 256], np.zeros(len(rows[start : start + 256]), dtype=np.intp))
    return metrics


def test_a_replaced_model_starts_counting_anew(watched: Metrics, model: LoadedModel) -> None:
    before = watched.drift()

    watched.model_loaded(model)

    assert [inputs.samples for inputs in before.sources] == [0, pytest.approx(900, abs=1)]
    assert [inputs.samples for inputs in watched.drift().sources] == [0, 0]


def test_page_and_programs_are_compared_apart_and_what_is_still_being_typed_is_not(
    model: LoadedModel, model_path: Path
) -> None:
    sample = {feature.key: feature.example for feature in model.features}
    with TestClient(create_app(Settings(model_file=model_path))) as client:
        for headers in ({"X-Input": "unsettled"}, {}):
            client.get("/predict", params=sample, headers={"HX-Request": "true", **headers}).raise_for_status()
        client.get("/", params=sample).raise_for_status()
        client.post("/predict", json={"samples": [sample, sample]}).raise_for_status()
        client.post("/score", content=table_of(sample), headers={"Content-Type": "text/csv"}).raise_for_status()
        report = client.get("/health/drift", headers={"Accept": "application/json"}).json()
        metrics = client.get("/metrics").text

    samples = {one["source"]: one["samples"] for one in report["sources"]}
    assert samples == {"page": pytest.approx(1, abs=0.01), "programs": pytest.approx(3, abs=0.01)}
    assert 'model_input_samples_total{source="page"} 1.0' in metrics
    assert 'model_input_samples_total{source="programs"} 3.0' in metrics


def test_rows_of_the_training_data_typed_into_some_fields_have_no_drift(
    model_path: Path, model: LoadedModel, trained: Trained
) -> None:
    keys, entered = model.validator.keys, (0, 2)
    sample = {feature.key: f"{feature.example:g}" for feature in model.features}
    rows = np.resize(trained.split.train_rows, (LEAST_SAMPLES + 1, len(keys)))  # the past fades
    with TestClient(create_app(Settings(model_file=model_path))) as client:
        for row in rows:
            sample |= {keys[at]: f"{row[at]:g}" for at in entered}
            headers = {"HX-Request": "true", "X-Input": "settled=1,3"}
            client.get("/predict", params=sample, headers=headers).raise_for_status()
        report = client.get("/health/drift", headers={"Accept": "application/json"}).json()
        metrics = client.get("/metrics").text

    page = next(one for one in report["sources"] if one["source"] == "page")
    verdicts = [feature["verdict"] for feature in page["features"]]
    assert verdicts == ["stable" if at in entered else "too few samples" for at in range(len(keys))]
    assert [feature["outside"] for feature in page["features"]] == [0 if at in entered else None for at in range(4)]
    assert page["verdict"] == "stable"
    assert 'model_input_samples_outside_total{source="page"} 0' in metrics


def test_a_form_without_scripts_counts_what_differs_from_the_example(model_path: Path, model: LoadedModel) -> None:
    sample = {feature.key: f"{feature.example:g}" for feature in model.features}
    with TestClient(create_app(Settings(model_file=model_path))) as client:
        client.post("/result", data=sample).raise_for_status()
        client.post("/result", data=sample | {"petal_width": "99"}).raise_for_status()
        shown = parse_html(client.get("/health/drift").text).one("section", data_source="page")

    assert "1 recent sample." in shown.text
    assert [row.one("td", **{"class": "number"}).text for row in shown.one("tbody").all("tr")] == [
        "100%",
        "–",
        "–",
        "–",
    ]
    assert [picture.attributes["aria-label"] for picture in shown.all("svg")][1:] == ["No samples yet."] * 3


def table_of(sample: Mapping[str, object]) -> str:
    return f"{','.join(sample)}\n{','.join(map(str, sample.values()))}\n"


def test_the_operator_sees_the_same_as_page_fragment_and_json(model_path: Path, watched: Metrics) -> None:
    app = create_app(Settings(model_file=model_path))
    with TestClient(app) as client:
        app.service.metrics = watched
        report = client.get("/health/drift", headers={"Accept": "application/json"}).json()
        page = client.get("/health/drift", headers={"Accept": "text/html"})
        fragment = client.get("/health/drift", headers={"HX-Request": "true"})

    assert report["verdict"] == "shifted"
    shown = parse_html(page.text).one(id="drift").one("div", data_verdict="shifted")
    again = parse_html(fragment.text).one("div", data_verdict="shifted")
    assert again.one("section", data_source="programs").text == shown.one("section", data_source="programs").text
    assert "<html" not in fragment.text
    assert report["processes"] == 1
    assert "No samples yet." in shown.one("section", data_source="page").text
    assert "The inputs have shifted: petal width." in shown.one("section", data_source="programs").text
    found = {feature["feature"]: feature for feature in report["sources"][1]["features"]}
    rows = {row.attributes["data-feature"]: row for row in shown.all("tr") if "data-feature" in row.attributes}
    for key, row in rows.items():
        assert row.attributes["data-verdict"] == found[key]["verdict"]
        assert row.all("td")[0].text in ("▲ shifted", "● stable"), "a mark and a word, not a color alone"
        assert float(row.all("td")[1].text) == pytest.approx(found[key]["psi"], abs=1e-3)
    assert [*rows] == sorted(rows, key=lambda key: -found[key]["psi"]), "the farthest first"
    assert rows["petal_width"].all("td")[2].text == "100%"


def test_below_the_least_number_of_samples_the_page_has_no_empty_columns(client: TestClient) -> None:
    client.post("/predict", json={"sample": [5.1, 3.5, 1.4, 0.2]}).raise_for_status()

    page = parse_html(client.get("/health/drift?lang=es").text)

    programs = page.one("section", data_source="programs")
    assert [header.text for header in programs.one("thead").all("th")] == ["característica", "fuera", "distribución"]
    assert page.one("html").attributes["lang"] == "es"
    assert {link.attributes["href"] for link in page.all("a")} >= {"?lang=en", "../?lang=es"}


def test_the_page_leads_to_the_report_in_its_language(client: TestClient) -> None:
    [link] = [one for one in parse_html(client.get("/?lang=es").text).all("a") if "drift" in one.attributes["href"]]

    assert link.text == "Deriva"
    assert link.attributes["href"] == "health/drift?lang=es"
