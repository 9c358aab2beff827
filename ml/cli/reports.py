"""Cards, reports and answers as lines of text, and one sample as it is typed. Knows nothing of where they go."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from ml.errors import MLError, ModelFileError
from ml.importing.imported import Imported
from ml.model import modelfile
from ml.model.card import Card, Decision, QuantityReport, Recipe, Report, TrainedFeature
from ml.model.changes import Change, Explanation, Range
from ml.model.loaded import LoadedModel, members_of
from ml.model.values import short
from ml.tables.dataset import Target
from ml.tables.headers import apart, listed
from ml.tables.numbers import shown_number
from ml.training.history import Kept

SHOWN_FEATURES = 20


def card_lines(card: Card, version: str) -> Iterator[str]:
    """Yield the card of a model."""
    trees = "1 tree" if card.trees == 1 else f"{card.trees} trees"
    yield f"{card.name}, version {version}"
    yield f"data       {card.source}"
    yield f"estimator  {card.estimator}, {trees}" if card.trees else f"estimator  {card.estimator}"
    yield f"exactness  {promise_of(card)}"
    if card.recipe is not None:
        recipe = card.recipe
        depth = "no bound" if recipe.max_depth is None else str(recipe.max_depth)
        weights = "balanced" if recipe.balanced_class_weight else "as they come"
        yield f"recipe     seed {recipe.seed}, depth {depth}, leaf {recipe.min_samples_leaf}, classes {weights}"
    for step in card.steps:
        yield f"step       {step.kind}: {listed(step.features)}"
    yield f"libraries  {', '.join(f'{name} {number}' for name, number in sorted(card.libraries.items()))}"
    yield f"labels     {', '.join(apart(card.labels))}" if card.labels else f"quantity   {quantity_name(card.target)}"
    if card.decision is not None:
        yield f"decision   {decision_text(card.decision)}"
    yield "features"
    for feature in card.features:
        gaps = ", may be missing" if feature.has_gaps else ""
        if feature.choices:
            yield f"  {feature.key}: one of {listed(feature.choices)}{gaps}"
            continue
        if not feature.has_range:
            yield f"  {feature.key}: {f'a number in {feature.unit}' if feature.unit else 'a number'}{gaps}"
            continue
        span = _with_unit(f"{shown_number(feature.low)} to {shown_number(feature.high)}", feature)
        example = f", for example {shown_number(feature.example)}" if feature.quantiles else ""
        yield f"  {feature.key}: {span} in training{example}{gaps}"


def decision_text(decision: Decision) -> str:
    """Return what a decision says, as a part of a sentence."""
    return f"{decision.positive} where its probability is at least {shown_number(decision.threshold)}"


def estimator_lines(recipe: Recipe) -> Iterator[str]:
    """Yield which estimator is fitted, and why where that is the default."""
    yield f"  estimator {recipe.estimator}"
    if recipe.estimator == Recipe().estimator:
        yield "    the default: it takes gaps and words, needs no tuning, and its answers are exact on every machine;"
        yield "    --estimator hist-gradient-boosting is often more accurate on large tables, and faster to fit"


def promise_of(card: Card) -> str:
    """Return what is the same as the library's on every machine."""
    if card.promise == "bits":
        return "its answers have the library's bits on every machine"
    if card.promise == "linear":
        return "its answers are within 4 units in the last place of the library's to one row"
    return "its scores have the library's bits on every machine; probabilities differ by at most 4 ulp where exp() does"


def quantity_name(target: Target) -> str:
    """Return what a predicted quantity is called, with its unit."""
    return f"{target.title or 'value'} ({target.unit})" if target.unit else target.title or "value"


def imported_lines(imported: Imported) -> Iterator[str]:
    """Yield what a file of another library says of itself."""
    forest, inputs = imported.forest, imported.inputs
    yield f"{imported.estimator}: {forest.n_trees} trees, {len(forest.values)} leaves, by {' '.join(imported.library)}"
    if imported.n_classes:
        yield f"  {imported.n_classes} classes" + (
            f": {listed(imported.labels)}" if imported.labels else " without names"
        )
    names = f": {listed(inputs.names)}" if inputs.names else " without names"
    yield f"  {inputs.n_features} feature{'s' * (inputs.n_features > 1)}{names}"
    for place, (low, high) in itertools.islice(inputs.ranges.items(), SHOWN_FEATURES):
        name = inputs.names[place] if inputs.names else f"column {place + 1}"
        yield f"  {name}: {shown_number(low)} to {shown_number(high)} in training"
    yield from (f"  {sentence}" for sentence in imported.said)


def measured_lines(card: Card) -> Iterator[str]:
    """Yield what decides on the label, how good a new model is, and what its features are worth."""
    if card.decision is not None:
        yield f"decision   {decision_text(card.decision)}"
    yield from report_lines(card.report, card.labels)
    yield from importance_lines(card, SHOWN_FEATURES)


def report_lines(report: Report | QuantityReport | None, labels: Sequence[str]) -> Iterator[str]:
    """Yield the performance of a model, with a warning if it is no better than the baseline."""
    if report is None:
        yield "no report: it was imported without a table, so that nothing is known of its quality"
    elif isinstance(report, QuantityReport):
        yield from _quantity_lines(report)
    else:
        yield from _class_lines(report, labels)


def _quantity_lines(report: QuantityReport) -> Iterator[str]:
    trained = "" if report.train_rows is None else f" (trained on {report.train_rows})"
    yield f"R²         {report.r2:.3f} on {report.test_rows} test rows{trained}"
    errors = f"{report.mean_absolute_error:.4g} mean absolute, {report.root_mean_squared_error:.4g} root mean square"
    yield f"error      {errors}"
    yield f"baseline   {report.baseline_error:.4g} mean absolute error for always answering the median"
    if report.mean_absolute_error >= report.baseline_error:
        yield "warning    the model does no better than the baseline"
    yield f"interval   {report.covered:.1%} of the test rows lie in the interval around the answer"
    if report.cross_validation is not None:
        folds = report.cross_validation
        yield f"{f'{folds.folds}-fold':10} {folds.mean:.3f} ± {folds.deviation:.3f} cross-validated R²"


def _class_lines(report: Report, labels: Sequence[str]) -> Iterator[str]:
    trained = "" if report.train_rows is None else f" (trained on {report.train_rows})"
    yield f"accuracy   {report.accuracy:.3f} on {report.test_rows} test rows{trained}"
    yield f"baseline   {report.baseline:.3f} for always answering the most frequent label"
    if report.accuracy <= report.baseline:
        yield "warning    the model does no better than the baseline"
    if report.cross_validation is not None:
        folds = report.cross_validation
        yield f"{f'{folds.folds}-fold':10} {folds.mean:.3f} ± {folds.deviation:.3f} cross-validated accuracy"
    if (calibration := report.calibration) is not None:
        area = "" if calibration.area is None else f", area under the ROC curve {calibration.area:.3f}"
        yield f"brier      {calibration.brier:.4g} (0 is perfect){area}"
    width = max(map(len, labels))
    columns = [max(len(label), 5) for label in labels]
    yield ""
    yield f"{'':{width}}  precision  recall   answered as"
    yield f"{'':{width}}{'':20} " + "  ".join(f"{label:>{size}}" for label, size in zip(labels, columns, strict=True))
    answered = [sum(column) for column in zip(*report.confusion, strict=True)]
    for row, label in enumerate(labels):
        counts = "  ".join(f"{n:{size}d}" for n, size in zip(report.confusion[row], columns, strict=True))
        # A class without rows has no recall, and one that was never predicted no precision, whatever the card says.
        precision = f"{report.precision[row]:.3f}" if answered[row] else "-"
        recall = f"{report.recall[row]:.3f}" if any(report.confusion[row]) else "-"
        yield f"{label:{width}}  {precision:>9}  {recall:>6}   {counts}"


def importance_lines(card: Card, most: int | None = None) -> Iterator[str]:
    """Yield the features, the most important first, and at most so many; none where nothing was measured."""
    if card.report is None:
        return
    yield ""
    lost = "accuracy" if card.labels else "R²"
    yield f"importance: {lost} lost on the test rows when a feature is shuffled"
    width = max(len(feature.key) for feature in card.features)
    ranked = sorted(card.features, key=lambda feature: -feature.importance)
    for feature in ranked[:most]:
        yield f"  {feature.key:{width}}  {round(feature.importance, 3) + 0.0:6.3f}"  # never -0.000
    if rest := ranked[len(ranked) if most is None else most :]:
        largest = round(rest[0].importance, 3) + 0.0
        yield f"  {len(rest)} more, none above {largest:.3f}: python -m ml inspect names them"


def kept_lines(kept: Sequence[Kept]) -> Iterator[str]:
    """Yield the files that can be restored, the last replaced one first."""
    for one in kept:
        replaced = datetime.fromtimestamp(one.replaced_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        try:
            report = modelfile.parse(modelfile.read(one.path)).card.report
            if isinstance(report, QuantityReport):
                accuracy = f"R² {report.r2:.3f}"
            else:
                accuracy = "no report" if report is None else f"accuracy {report.accuracy:.3f}"
        except ModelFileError as error:
            accuracy = str(error)
        yield f"{one.version}  replaced {replaced}  {accuracy}"


def explanation_lines(explanation: Explanation, card: Card) -> Iterator[str]:
    """Yield the ranges in which the answer stays, and its nearest change."""
    features = {feature.key: feature for feature in card.features}
    if not card.labels:
        return
    yield f"stays {explanation.label}, when one feature changes alone, for"
    for found in explanation.ranges:
        feature = features[found.feature]
        if feature.choices:
            yield f"  {feature.title} {listed([feature.choices[choice] for choice in found.choices])}"
            continue
        cut_short = "" if found.searched_all else " (searched only near the sample)"
        yield f"  {feature.title} {_span(found, feature)}{cut_short}"
    if explanation.nearest is not None:
        yield change_line(explanation.nearest, features[explanation.nearest.feature])
    else:
        where = "" if explanation.searched_all else " near the sample"
        yield f"no change of a single feature{where} changes the answer"


def change_line(change: Change, feature: TrainedFeature) -> str:
    """Return the sentence about a change, such as "becomes high when weight rises above 1.75 kg"."""
    if change.direction == "is":
        return f"becomes {change.label} when {feature.title} is {feature.choices[int(change.value)]}"
    threshold = _with_unit(shown_number(change.threshold), feature)
    end = {"falls to": " or below", "rises to": " or more"}.get(change.direction, "")
    return f"becomes {change.label} when {feature.title} {change.direction} {threshold}{end}"


def _span(found: Range, feature: TrainedFeature) -> str:
    low = None if found.low is None else f"above {shown_number(found.low)}"
    high = None if found.high is None else f"up to {shown_number(found.high)}"
    ends = " ".join(end for end in (low, high) if end)
    return _with_unit(ends, feature) if ends else "of any value"


def _with_unit(text: str, feature: TrainedFeature) -> str:
    return f"{text} {feature.unit}".rstrip()


def sample_of(model: LoadedModel, values: Sequence[str]) -> Mapping[str, str] | Sequence[str]:
    """Return values by the name of their feature, if they are `name=value`; else they are in the features' order.

    Raises:
        MLError: a name is given twice or is none of a feature, or some values have a name and others none; or values
            without names are too few.
    """
    pairs = [value.partition("=") for value in values]
    known = {name for feature in model.features for name in (feature.key, feature.header) if name}
    # A word may have an equals sign in it, a number has none.
    may_be_words = not all(equals for _, equals, _ in pairs) or all(feature.choices for feature in model.features)
    if may_be_words and not any(equals and name in known for name, equals, _ in pairs):
        if len(values) < len(model.features):
            keys = listed(model.validator.keys)
            raise MLError(f"{len(values)} of {len(model.features)} values are given; in their order: {keys}")
        return values
    sample: dict[str, str] = {}
    for name, equals, value in pairs:
        if not equals:
            raise MLError(f"{name!r} has no name: give all values as name=value, or all in the order of the features")
        if name not in known:
            raise MLError(f"no feature is called {short(name)!r}: {listed(model.validator.keys)}")
        if name in sample:
            raise MLError(f"{name} is given twice")
        sample[name] = value
    return sample


def prediction_lines(model: LoadedModel, row: Sequence[float]) -> Iterator[str]:
    """Yield the answer to one row."""
    prediction = model.predict(row)
    if model.quantity is not None:
        interval, unit = model.quantity.interval, model.card.target.unit
        yield f"{quantity_name(model.card.target)}: {prediction.value}"
        if interval is not None:
            low, high = interval.around(prediction.value)
            yield f"  {interval.coverage:.0%} interval: {low:.6g} to {high:.6g} {unit}".rstrip()
    else:
        yield f"{prediction.label} (class {prediction.index})"
    width = max(map(len, model.labels), default=0)
    for label, probability in zip(model.labels, prediction.probabilities, strict=True):
        yield f"  {label:{width}}  {probability}"
    for note in model.validator.notes(row):
        yield f"note: {note.message}"


def prediction_json(model: LoadedModel, row: Sequence[float]) -> str:
    """Return the answer to one row as `POST /predict` of a server gives it."""
    answer = {
        "model": {"name": model.name, "version": model.version},
        "sample": {feature.key: feature.shown(value) for feature, value in zip(model.features, row, strict=True)},
        **members_of(model.predict(row), model.labels, model.quantity),
        "notes": model.validator.notes(row),
    }
    return msgspec.json.encode(answer).decode()
