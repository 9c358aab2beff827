"""One sample on the command line: its values as they are typed, and its answer as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ml.cli.reports import quantity_name
from ml.errors import MLError
from ml.model.loaded import LoadedModel, members_of
from ml.model.values import short
from ml.tables.headers import listed


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
