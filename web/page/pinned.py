"""A pinned sample beside the present one: where they differ, and which difference alone changes the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.classifier import Classifier
from ml.model.evaluators import Prediction
from ml.model.sample import InvalidSample
from web.page.languages import Language
from web.page.quantities import QuantityScale, quantity_scale
from web.page.why import value_of
from web.requests import fields_of_text

# A query of so many characters is pinned at most: longer addresses are cut on their way.
MAX_PIN_CHARACTERS = 8_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One feature with its present and its pinned value."""

    title: str
    now: str
    pinned: str


@dataclass(frozen=True, slots=True)
class PinnedView:
    """Both answers, the features that differ, how many are the same, and the one that matters most in a sentence."""

    now: str
    pinned: str
    differences: Sequence[Difference]
    same: str
    sentence: str


def row_of(model: Classifier, pin: str | None) -> list[float] | None:
    """Return the row of the sample in the query `pin`; None without one that the model can answer."""
    if not pin or len(pin) > MAX_PIN_CHARACTERS:
        return None
    try:
        return model.validator.row(fields_of_text(pin))
    except InvalidSample:
        return None


def pinned_view(model: Classifier, row: Sequence[float], pinned: Sequence[float], to: Language) -> PinnedView:
    """Return the comparison of a row with a pinned one."""
    scale, features = quantity_scale(model.card, to), model.features
    differing = [at for at, (one, other) in enumerate(zip(row, pinned, strict=True)) if _differs(one, other)]
    same = [to.title(feature) for at, feature in enumerate(features) if at not in differing]
    mostly = _mostly(model, row, pinned, differing) if len(differing) > 1 else None
    return PinnedView(
        now=_answer(model.predict(row), scale, to),
        pinned=_answer(model.predict(pinned), scale, to),
        differences=[
            Difference(to.title(feature), value_of(feature, row[at], to), value_of(feature, pinned[at], to))
            for at in differing
            for feature in [features[at]]
        ],
        same=to.listed(same) if same else "",
        sentence=""
        if mostly is None
        else to.gettext(
            "Mostly %(title)s: with the pinned %(value)s alone this would be %(answer)s.",
            title=to.title(features[mostly[0]]),
            value=value_of(features[mostly[0]], pinned[mostly[0]], to),
            answer=_answer(mostly[1], scale, to),
        ),
    )


def _mostly(
    model: Classifier, row: Sequence[float], pinned: Sequence[float], differing: Sequence[int]
) -> tuple[int, Prediction] | None:
    """Return the difference that alone brings the answer nearest to the pinned one, and that answer."""
    now, then = model.predict(row), model.predict(pinned)

    def distance(answer: Prediction) -> float:
        if model.quantity:
            return abs(answer.value - then.value)
        return -answer.probabilities[then.index]

    alone = [(at, model.predict([*row[:at], pinned[at], *row[at + 1 :]])) for at in differing]
    found = min(alone, key=lambda one: distance(one[1]))
    return found if distance(found[1]) < distance(now) else None


def _answer(prediction: Prediction, scale: QuantityScale | None, to: Language) -> str:
    if scale is not None:
        return scale.text(prediction.value)
    return f"{prediction.label} {to.percent(prediction.probabilities[prediction.index])}"


def _differs(one: float, other: float) -> bool:
    return one != other and not (one != one and other != other)  # noqa: PLR0124  # NaN is unlike itself
