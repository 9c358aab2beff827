"""A pinned sample beside the present one: where they differ, and which difference alone changes the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier, Prediction
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
    scale = quantity_scale(model.card, to)
    differing = [at for at, (one, other) in enumerate(zip(row, pinned, strict=True)) if _differs(one, other)]
    features = model.features
    same = [to.title(feature) for at, feature in enumerate(features) if at not in differing]
    now, then = model.predict(row), model.predict(pinned)
    alone = [(at, model.predict([*row[:at], pinned[at], *row[at + 1 :]])) for at in differing]
    return PinnedView(
        now=_answer(now, scale, to),
        pinned=_answer(then, scale, to),
        differences=[
            Difference(to.title(features[at]), value_of(features[at], row[at], to), value_of(features[at], pinned[at], to))
            for at in differing
        ],
        same=to.listed(same) if same else "",
        sentence=_sentence(now, then, alone, features, pinned, scale, to) if len(alone) > 1 else "",
    )


def _sentence(
    now: Prediction, then: Prediction, alone: Sequence[tuple[int, Prediction]],
    features: Sequence[TrainedFeature], pinned: Sequence[float], scale: QuantityScale | None, to: Language,
) -> str:  # fmt: skip
    """Return what the difference does that alone brings the answer nearest to the pinned one."""
    if scale is not None:
        at, answer = min(alone, key=lambda one: abs(one[1].value - then.value))
        is_nearer = abs(answer.value - then.value) < abs(now.value - then.value)
    else:
        at, answer = max(alone, key=lambda one: one[1].probabilities[then.index])
        is_nearer = answer.probabilities[then.index] > now.probabilities[then.index]
    if not is_nearer:
        return ""
    return to.gettext(
        "Mostly %(title)s: with the pinned %(value)s alone this would be %(answer)s.",
        title=to.title(features[at]),
        value=value_of(features[at], pinned[at], to),
        answer=_answer(answer, scale, to),
    )


def _answer(prediction: Prediction, scale: QuantityScale | None, to: Language) -> str:
    if scale is not None:
        return scale.text(prediction.value)
    return f"{prediction.label} {to.percent(prediction.probabilities[prediction.index])}"


def _differs(one: float, other: float) -> bool:
    return one != other and not (one != one and other != other)  # noqa: PLR0124  # NaN is unlike itself
