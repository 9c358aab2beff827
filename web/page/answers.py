"""Views of the fragment's templates: an answer with its notes, or the errors of a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ml.model.card import Card, Decision, TrainedFeature
from ml.model.evaluators import Prediction
from ml.model.sample import InvalidSample
from web.page.decision_map import hue_of, symbol_of
from web.page.languages import Language
from web.page.messages import Message, error_message, is_about_marks, is_unfinished, marks_message
from web.page.quantities import QuantityScale, QuantityView

# Of more labels than this the likeliest are shown, sorted by probability, and the others are counted.
ORDERED_LABELS, LIKELIEST = 8, 5


@dataclass(frozen=True, slots=True)
class Bar:
    """The probability of one label: `share` is 0 to 1, `percent` its text, `symbol` the path and `hue` the CSS class.

    `pinned` is the percentage of a pinned sample, for the picture and as text; empty without one.
    """

    label: str
    share: str
    percent: str
    symbol: str
    hue: str
    chosen: bool
    pinned: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class PredictionView:
    """The fragment: an answer, an incomplete sample, or one with errors.

    `title` is the answer in a few words, as the title of the page has it.
    `guess` says how many values the model has not seen the like of; it is empty for an answer that is none. `others`
    and `rest` are the number of labels without a bar, as words, and their share; `decision`
    says how the label follows from the probabilities, empty for the most probable label, and `cost` what that costs.
    """

    state: Literal["answer", "incomplete", "invalid"]
    title: str = ""
    label: str = ""
    hue: str = ""
    percent: str = ""
    bars: Sequence[Bar] = ()
    others: str = ""
    rest: str = ""
    quantity: QuantityView | None = None
    guess: str = ""
    decision: str = ""
    cost: str = ""
    messages: Sequence[Message] = ()
    waiting_for: str = ""


def answer_text(prediction: Prediction, scale: QuantityScale | None, to: Language) -> str:
    """Return an answer in a few words: a label and its probability, or a quantity with its unit."""
    if scale is not None:
        return scale.text(prediction.value)
    return f"{prediction.label} {to.percent(prediction.probabilities[prediction.index])}"


def answer_view(
    prediction: Prediction,
    card: Card,
    messages: Sequence[Message],
    to: Language,
    *,
    pinned: Prediction | None = None,
    decision: str = "",
    cost: str = "",
) -> PredictionView:
    """Return the view of a label with its probabilities, and with those of a pinned sample.

    Args:
        decision, cost: see `PredictionView`.
    """
    bars = [
        Bar(label, repr(share), to.percent(share), symbol_of(index), hue_of(index), chosen=index == prediction.index)
        for index, (label, share) in enumerate(zip(card.labels, prediction.probabilities, strict=True))
    ]
    if pinned:
        bars = [
            replace(bar, pinned=(f"{share * 100:.1f}%", to.percent(share)))
            for bar, share in zip(bars, pinned.probabilities, strict=True)
        ]
    answer = PredictionView(
        "answer",
        answer_text(prediction, None, to),
        prediction.label,
        hue_of(prediction.index),
        bars[prediction.index].percent,
        bars,
        guess=_guess(messages, to),
        decision=decision,
        cost=cost,
        messages=messages,
    )
    if len(bars) <= ORDERED_LABELS:
        return answer
    bars.sort(key=lambda bar: (not bar.chosen, -float(bar.share)))
    left = bars[LIKELIEST:]
    return replace(
        answer,
        bars=bars[:LIKELIEST],
        others=to.ngettext("%(count)s other", "%(count)s others", len(left)),
        rest=to.percent(math.fsum(float(bar.share) for bar in left)),
    )


def decision_text(decision: Decision, to: Language) -> str:
    """Return what a decision says."""
    return to.gettext(
        "%(label)s from a probability of %(threshold)s on",
        label=decision.positive,
        threshold=to.percent(decision.threshold),
    )


def quantity_view(
    prediction: Prediction,
    scale: QuantityScale,
    messages: Sequence[Message],
    to: Language,
    *,
    pinned: Prediction | None = None,
) -> PredictionView:
    """Return the view of a quantity, and of that of a pinned sample."""
    title, quantity = answer_text(prediction, scale, to), scale.view(prediction.value, pinned.value if pinned else None)
    return PredictionView("answer", title, quantity=quantity, guess=_guess(messages, to), messages=messages)


def _guess(notes: Sequence[Message], to: Language) -> str:
    if not notes:
        return ""
    return to.ngettext(
        "a guess: %(count)s value unlike any in training",
        "a guess: %(count)s values unlike any in training",
        len(notes),
    )


def invalid_view(error: InvalidSample, features: Sequence[TrainedFeature], to: Language) -> PredictionView:
    """Return the view of a sample with errors; on a page a half-typed number makes it incomplete, not invalid."""
    by_key = {feature.key: feature for feature in features}
    wrong = [e for e in error.errors if not is_unfinished(e, by_key.get(e.feature))]
    if wrong:
        return PredictionView("invalid", messages=[error_message(e, by_key.get(e.feature), to) for e in wrong])
    titles = [to.title(by_key[e.feature]) for e in error.errors]
    marked = [by_key[e.feature] for e in error.errors if is_about_marks(e.value, by_key[e.feature])]
    marks = [marks_message(feature, to) for feature in marked]
    return PredictionView("incomplete", waiting_for=to.listed(titles), messages=marks)
