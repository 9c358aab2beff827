"""The fields of the form: a text with a slider for a number; for a category radio buttons, a select, or a search.

Each sends one value under the feature's key, in every browser, with a script or without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ml.model.card import TrainedFeature
from ml.model.loaded import LoadedModel
from ml.model.values import no_value_text, reader_of, short
from ml.tables.headers import key_of
from ml.tables.numbers import NotANumber, shown_number
from web.page.axes import MOST_DIGITS, end_text, step_of
from web.page.languages import Language, rounded, with_unit
from web.page.messages import Kind, Message

# More fields than this are folded away, but for a last row of them: to fold it away saves nothing.
SHOWN_FIELDS, LAST_ROW = 12, 3
# Up to so many choices are radio buttons, if their words are short enough to stand side by side; up to so many a
# select; more are searched for.
RADIO_CHOICES, RADIO_LETTERS, RADIO_LINE = 5, 16, 44
SELECT_CHOICES = 12
# A rounded number keeps so many digits, for a small one among large ones.
LEAST_DIGITS = 4

# Other fields of the form, which are options of the view and no measurements.
OPTIONS = ("lang", "map-x", "map-y", "pinned-sample", "field-order")
GOAL, THRESHOLD = "goal", "decision-threshold"

Control = Literal["number", "radio", "select", "search"]


@dataclass(frozen=True, slots=True)
class Option:
    """One choice: its value, its text, and whether it is chosen.

    `is_gap` is the choice of no value, `is_other` a word that is none of the model's choices.
    """

    value: str
    text: str
    chosen: bool
    is_gap: bool = False
    is_other: bool = False


@dataclass(frozen=True, slots=True)
class Slider:
    """The slider below a number, from `least` to `most`, at `value`; arrow keys move by `step`."""

    least: str
    most: str
    step: str
    value: str


@dataclass(frozen=True, slots=True)
class Field:
    """One input of the form, `id` its own on the page.

    Attributes:
        header: the name of its column, where its key is not what follows from that name.
        text: its content.
        start: that of the example.
        gap: the text that says that there is no value; empty where there must be one.
        options: those of a category, `count` of which are choices of the model.
        range: the training range of a number, `span` the same with all its digits if it has more; empty if not known.
        keyboard: that of a phone: a decimal one often has no minus sign, and no exponent.
        thousands, decimal: the marks of its numbers, as `Feature` has them.
        kind: that of `hint`, which stands below it.
    """

    id: str
    key: str
    title: str
    header: str
    unit: str
    control: Control
    text: str
    start: str
    gap: str
    is_gap: bool
    options: Sequence[Option]
    count: int
    range: str
    span: str
    keyboard: Literal["decimal", "text"]
    slider: Slider | None
    thousands: str
    decimal: str
    kind: Kind | Literal[""]
    hint: str


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that stand together; with a title they can be folded away."""

    title: str
    is_open: bool
    fields: Sequence[Field]


def keys_of_names(model: LoadedModel) -> dict[str, str]:
    """Return the key of each feature by every name that a sample may give it: its key wins over a header."""
    return {feature.header: feature.key for feature in model.features} | {key: key for key in model.validator.keys}


def names_of_options(model: LoadedModel) -> dict[str, str]:
    """Return the name that each option has in the form and in addresses.

    Only a quantity has a goal, and only two labels have a threshold.

    A feature may be called `lang`: the option is `page-lang` then. Names with a hyphen are no feature's key, and win
    over headers: a form names features by their keys.
    """
    own = (GOAL,) if model.quantity else (THRESHOLD,) if len(model.labels) == 2 else ()
    options, taken = (*OPTIONS, *own), model.made(keys_of_names)
    return {option: f"page-{option}" if option in taken and "-" not in option else option for option in options}


def query_in(to: Language, model: LoadedModel) -> str:
    """Return the query of the page in a language, with the question mark: for links to it from other pages."""
    return f"?{model.made(names_of_options)['lang']}={to.code}"


def text_of(feature: TrainedFeature, value: float, to: Language) -> str:
    """Return the text for a field that gives this value of a row; one without a text is the example's.

    A training row may lack what a sample may not: a word that was too rare for a choice has no name.
    """
    if math.isnan(value):
        return no_value_text(feature) if feature.has_gaps else text_of(feature, feature.example, to)
    shown = feature.shown(value)
    return to.typed(shown, feature) if isinstance(shown, float) else str(shown)


def rounded_text(feature: TrainedFeature, value: float, to: Language) -> str:
    """Return the text for a field of about this value: of a number with many digits, those that its step can tell."""
    text = text_of(feature, value, to)
    if feature.choices or len(text) <= MOST_DIGITS or not value or math.isnan(value):
        return text
    near = rounded(value, min(step_of(feature) / 10, 10.0 ** (math.floor(math.log10(abs(value))) - LEAST_DIGITS + 1)))
    return to.typed(near, feature) if feature.low <= near <= feature.high else text


def text_given(feature: TrainedFeature, value: object, to: Language) -> str:
    """Return the text for a field that says what a sample says: as it was typed, or as a program sent it.

    A list or an object is no text that a field could have.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list | Mapping):
        return ""
    try:
        number = reader_of(feature)(value)
    except NotANumber:
        return "" if value is None else short(value)
    return short(value) if math.isinf(number) else text_of(feature, number, to)


def fields_of(
    features: Sequence[TrainedFeature], texts: Mapping[str, str], messages: Sequence[Message], to: Language
) -> Sequence[Field]:
    """Return the fields with their texts and messages, in the order of the features."""
    by_key = {message.feature: message for message in messages}
    return [
        _field(f"f{number}", feature, to, text=texts.get(feature.key, ""), message=by_key.get(feature.key))
        for number, feature in enumerate(features, 1)
    ]


def first_of(count: int) -> int:
    """Return how many of so many features are shown at first, the others being folded away."""
    return count if count <= SHOWN_FIELDS + LAST_ROW else SHOWN_FIELDS


def grouped(
    fields: Sequence[Field], features: Sequence[TrainedFeature], to: Language, *, by_file: bool
) -> Sequence[Group]:
    """Return up to a dozen fields in the order of the file, and more if that is asked for.

    Otherwise the most important come first, and many others are folded away.
    """
    if by_file or len(fields) <= SHOWN_FIELDS:
        return [Group("", is_open=True, fields=fields)]
    ranked = [fields[at] for at in sorted(range(len(fields)), key=lambda at: -features[at].importance)]
    first, others = ranked[: first_of(len(ranked))], ranked[first_of(len(ranked)) :]
    if not others:
        return [Group("", is_open=True, fields=first)]
    if features[0].quantiles:
        title = to.ngettext(
            "%(count)s more, less important to this model", "%(count)s more, less important to this model", len(others)
        )
    else:
        title = to.ngettext("%(count)s more", "%(count)s more", len(others))
    return [Group("", is_open=True, fields=first), Group(title, is_open=any(f.hint for f in others), fields=others)]


def _field(identity: str, feature: TrainedFeature, to: Language, *, text: str, message: Message | None) -> Field:
    control, gap = control_of(feature), no_value_text(feature) if feature.has_gaps else ""
    value = _value(feature, text)
    is_gap = feature.has_gaps and value is not None and math.isnan(value)
    shown_range, span = _ranges(feature, to)
    return Field(
        id=identity,
        key=feature.key,
        title=to.title(feature),
        header="" if key_of(feature.header) == feature.key else feature.header,
        unit=feature.unit,
        control=control,
        text=text,
        start=rounded_text(feature, feature.example, to),
        gap=gap,
        is_gap=is_gap,
        options=_options(feature, to, value=value, gap=gap, other=text if control != "search" else ""),
        count=len(feature.choices),
        range=shown_range,
        span=span if span != shown_range else "",
        keyboard="text" if feature.low < 0 or "e" in shown_number(step_of(feature)) else "decimal",
        slider=None if feature.choices else _slider(feature, value),
        thousands=feature.thousands,
        decimal=feature.decimal,
        kind=message.kind if message else "",
        hint=message.hint if message else "",
    )


def _ranges(feature: TrainedFeature, to: Language) -> tuple[str, str]:
    """Return the training range of a number as its step can tell it, and with all its digits."""
    if feature.choices or not feature.has_range:
        return "", ""
    low, high = feature.low, feature.high
    shown = _range(end_text(feature, low, to), end_text(feature, high, to), feature, to)
    return shown, _range(to.number(low), to.number(high), feature, to)


def _range(low: str, high: str, feature: TrainedFeature, to: Language) -> str:
    return to.gettext("%(low)s to %(high)s", low=low, high=with_unit(high, feature.unit))


def control_of(feature: TrainedFeature) -> Control:
    """Return the kind of control that a feature has."""
    letters = [len(choice) for choice in feature.choices]
    if not letters:
        return "number"
    if len(letters) <= RADIO_CHOICES and max(letters) <= RADIO_LETTERS and sum(letters) <= RADIO_LINE:
        return "radio"
    return "select" if len(letters) <= SELECT_CHOICES else "search"


def _value(feature: TrainedFeature, text: str) -> float | None:
    """Return what a text means in a row; None if it cannot stand there."""
    try:
        return reader_of(feature)(text)
    except NotANumber:
        return None


def _options(feature: TrainedFeature, to: Language, *, value: float | None, gap: str, other: str) -> Sequence[Option]:
    """Return the choices of a category, that of no value, and another text if it is none of them."""
    if not feature.choices:
        return ()
    options = [Option(choice, choice, position == value) for position, choice in enumerate(feature.choices)]
    if gap:
        is_chosen = value is not None and math.isnan(value)
        options.append(Option(gap, to.gettext("unknown"), is_chosen, is_gap=True))
    if other and not any(option.chosen for option in options):
        options.append(Option(other, other, chosen=True, is_other=True))
    return options


def _slider(feature: TrainedFeature, value: float | None) -> Slider:
    """Return the slider at the value, or at the end of the training range that is nearest to it."""
    number = feature.example if value is None or math.isnan(value) else value
    return Slider(
        least=shown_number(feature.low),
        most=shown_number(feature.high),
        step=shown_number(step_of(feature)),
        value=shown_number(min(max(number, feature.low), feature.high)),
    )
