"""A pinned sample beside the present one: where they differ, and which difference alone changes the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel
from ml.model.sample import InvalidSample
from web.page.answers import answer_text
from web.page.languages import Language
from web.page.quantities import QuantityScale
from web.page.why import value_of
from web.requests import fields_of_text

# A query of so many characters is pinned at most: longer addresses are cut on their way.
MAX_PIN_CHARACTERS = 8_000

# A row and what the model says to it.
Answered = tuple[Sequence[float], Prediction]


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


def answer_of(model: LoadedModel, pin: str) -> Answered | None:
    """Return the row of the sample in the query `pin` and its answer; None for what the model cannot answer."""
    if len(pin) > MAX_PIN_CHARACTERS:
        return None
    try:
        row = model.validator.row(fields_of_text(pin))
    except InvalidSample:
        return None
    return row, model.predict(row)


def pinned_view(
    model: LoadedModel,
    answered: Answered,
    pin: Answered,
    to: Language,
    *,
    scale: QuantityScale | None,
) -> PinnedView:
    """Return the comparison of a row that was answered with a pinned one."""
    (row, now), (pinned, then), features = answered, pin, model.features
    differing = [at for at, (one, other) in enumerate(zip(row, pinned, strict=True)) if _differs(one, other)]
    same = [to.title(feature) for at, feature in enumerate(features) if at not in differing]
    sentence = ""
    if len(differing) > 1 and (mostly := _mostly(model, answered, pin, differing)):
        at, answer = mostly
        sentence = to.gettext(
            "Mostly %(title)s: with the pinned %(value)s alone this would be %(answer)s.",
            title=to.title(features[at]),
            value=value_of(features[at], pinned[at], to),
            answer=answer_text(answer, scale, to),
        )
    return PinnedView(
        now=answer_text(now, scale, to),
        pinned=answer_text(then, scale, to),
        differences=[
            Difference(to.title(feature), value_of(feature, row[at], to), value_of(feature, pinned[at], to))
            for at, feature in enumerate(features)
            if at in differing
        ],
        same=to.listed(same) if same else "",
        sentence=sentence,
    )


def _mostly(
    model: LoadedModel, answered: Answered, pinned: Answered, differing: Sequence[int]
) -> tuple[int, Prediction] | None:
    """Return the difference that alone brings the answer nearest to the pinned one, and that answer."""
    (row, now), (other, then) = answered, pinned

    def distance(answer: Prediction) -> float:
        return abs(answer.value - then.value) if model.quantity else -answer.probabilities[then.index]

    alone = [(at, model.predict([*row[:at], other[at], *row[at + 1 :]])) for at in differing]
    found = min(alone, key=lambda one: distance(one[1]))
    return found if distance(found[1]) < distance(now) else None


def _differs(one: float, other: float) -> bool:
    return one != other and not (one != one and other != other)  # noqa: PLR0124  # NaN is unlike itself
