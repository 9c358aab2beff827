"""What the templates know: plain data, numbers and sentences already as the reader's language has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier, Prediction
from ml.model.explain import Direction
from ml.model.sample import FieldError, InvalidSample, Note
from ml.tables.numbers import NotANumber, is_half_typed, number_of, shown_number
from web.page.decision_map import MARKS, Axes, default_axes, mark_of, step_of
from web.page.languages import Language, codes, language
from web.page.snippet_panel import CodeView
from web.problems import ProblemDetails

# More labels than this come in the order of their probability: the chosen one may be out of sight otherwise.
ORDERED_LABELS = 8
# More fields than this are folded away.
SHOWN_FIELDS = 12
# More examples than this are a list to read, not a choice.
SHOWN_EXAMPLES = 8

Kind = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Bar:
    """The probability of one label: `share` is 0 to 1, `percent` its text, `mark` the path of its points' mark."""

    label: str
    share: str
    percent: str
    mark: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Message:
    """Something to say about a value of the sample.

    Attributes:
        feature: its key; it need not be a feature of the model.
        text: the whole sentence, for the result.
        hint: a few words, for the space below the feature's own input.
    """

    kind: Kind
    feature: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class PredictionView:
    """The fragment: an answer, a sample that is not complete yet, or one with errors."""

    state: Literal["answer", "incomplete", "invalid"]
    label: str = ""
    percent: str = ""
    bars: Sequence[Bar] = ()
    messages: Sequence[Message] = ()
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class ChangeView:
    """The nearest change of the answer: setting `feature` to `value` gives `label`."""

    label: str
    feature: str
    title: str
    direction: Direction
    threshold: str
    value: str


@dataclass(frozen=True, slots=True)
class ProblemView:
    """An error page; `detail` is in English."""

    status: int
    title: str
    detail: str


@dataclass(frozen=True, slots=True)
class Field:
    """One input of the form, `id` its own on the page.

    `text` is what it holds, `start` the example's value, `low` and `high` the training range, `kind` that of `hint`.
    Arrow keys move by `step`. The slider goes from `least` to `most` and stands at `slid`.
    """

    id: str
    key: str
    title: str
    unit: str
    text: str
    start: str
    low: str
    high: str
    least: str
    most: str
    step: str
    slid: str
    kind: Kind | Literal[""]
    hint: str


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that stand together; with a title they can be folded away."""

    title: str
    is_open: bool
    fields: Sequence[Field]


@dataclass(frozen=True, slots=True)
class Link:
    """A link to the page: `text` is what it says, `query` its address with the question mark, `code` its language."""

    text: str
    query: str
    code: str = ""
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One feature that an axis of the map may show."""

    key: str
    title: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page.

    `count` is the number of fields in all groups, `lang` the language that the address asks for, `start` the query of
    the page as it is opened first, `usual_x` and `usual_y` the keys of the axes that need not be told, `features` the
    digest of the model's interface, `marks` the paths of the marks of labels, again from the start when there are more
    labels, and `address` where the service answers, as its callers see it.
    """

    name: str
    version: str
    description: str
    address: str
    labels: Sequence[str]
    marks: Sequence[str]
    count: int
    groups: Sequence[Group]
    examples: Sequence[Link]
    start: str
    languages: Sequence[Link]
    x_choices: Sequence[Choice]
    y_choices: Sequence[Choice]
    usual_x: str
    usual_y: str
    lang: str
    features: str
    code: CodeView


def answer_view(
    prediction: Prediction,
    labels: Sequence[str],
    notes: Sequence[Note],
    features: Sequence[TrainedFeature],
    to: Language,
) -> PredictionView:
    """Return the view of an answer."""
    bars = [
        Bar(label, repr(share), to.percent(share), mark_of(index), chosen=index == prediction.index)
        for index, (label, share) in enumerate(zip(labels, prediction.probabilities, strict=True))
    ]
    chosen = bars[prediction.index]
    if len(bars) > ORDERED_LABELS:
        bars.sort(key=lambda bar: -float(bar.share))
    return PredictionView("answer", prediction.label, chosen.percent, bars, told(notes, features, to))


def problem_view(details: ProblemDetails, to: Language) -> ProblemView:
    """Return the view of an error page: its title in the reader's language, the details in English as programs get."""
    title = {
        400: to.gettext("The request cannot be read"),
        401: to.gettext("A token is needed"),
        403: to.gettext("This is not allowed"),
        404: to.gettext("There is nothing here"),
        405: to.gettext("This is not allowed here"),
        408: to.gettext("The request took too long"),
        413: to.gettext("This is too large"),
        415: to.gettext("This kind of content is not read"),
        422: to.gettext("The input has errors"),
        426: to.gettext("This address is a websocket"),
        429: to.gettext("Too many requests"),
        503: to.gettext("The service is busy"),
    }.get(details.status, details.title)
    return ProblemView(details.status, title, details.detail)


def told(notes: Sequence[Note], features: Sequence[TrainedFeature], to: Language) -> Sequence[Message]:
    """Return what notes say."""
    by_key = {feature.key: feature for feature in features}
    # The hint stands below the range itself, which each field shows all the time.
    return [Message("note", note.feature, _outside(by_key[note.feature], to), to.gettext("outside")) for note in notes]


def invalid_view(error: InvalidSample, features: Sequence[TrainedFeature], to: Language) -> PredictionView:
    """Return the view of a sample that gave errors: on a page, what is half typed is not wrong yet."""
    by_key = {feature.key: feature for feature in features}
    wrong = [e for e in error.errors if not _is_unfinished(e)]
    if wrong:
        messages = [
            Message("error", e.feature, _sentence(e, by_key.get(e.feature), to), _hint(e, by_key.get(e.feature), to))
            for e in wrong
        ]
        return PredictionView("invalid", messages=messages)
    titles = [to.title(by_key[e.feature]) for e in error.errors]
    return PredictionView("incomplete", waiting_for=to.listed(titles))


def change_view(
    feature: TrainedFeature, *, direction: Direction, threshold: float, value: float, label: str, to: Language
) -> ChangeView:
    """Return the view of the nearest change of the answer."""
    return ChangeView(
        label=label,
        feature=feature.key,
        title=to.title(feature),
        direction=direction,
        threshold=to.quantity(threshold, feature.unit),
        value=to.number(value),
    )


def page_view(
    model: Classifier,
    texts: Mapping[str, str],
    messages: Sequence[Message],
    to: Language,
    *,
    lang: str,
    axes: Axes,
    address: str,
    code: CodeView,
) -> PageView:
    """Return the view of the page with `texts` in its fields, `messages` beside them, and `axes` on its map."""
    by_key = {message.feature: message for message in messages}
    fields = {
        feature.key: _field(f"f{number}", feature, to, text=texts.get(feature.key, ""), message=by_key.get(feature.key))
        for number, feature in enumerate(model.features, 1)
    }
    chosen = {"map-x": model.features[axes[0]].key, "map-y": model.features[axes[1]].key} if axes else {}
    usual = default_axes(model)
    query = {key: text for key, text in texts.items() if key in fields}
    if axes != usual:
        query |= chosen
    return PageView(
        name=model.name,
        version=model.version,
        description=to.ngettext(
            "Type %(count)s measurement and see the prediction of the model %(name)s follow every key.",
            "Type %(count)s measurements and see the prediction of the model %(name)s follow every key.",
            len(fields),
            name=model.name,
        ),
        address=address,
        labels=model.labels,
        marks=MARKS,
        count=len(fields),
        groups=_grouped(fields, model.features, to),
        examples=_examples(model, lang=lang, to=to),
        start=f"./?lang={lang}" if lang else "./",
        languages=[
            Link(language(code).name, "?" + urlencode({**query, "lang": code}), code, is_current=code == to.code)
            for code in codes()
        ],
        x_choices=_choices(model, axes, 0, to),
        y_choices=_choices(model, axes, 1, to),
        usual_x=model.features[usual[0]].key if usual else "",
        usual_y=model.features[usual[1]].key if usual else "",
        lang=lang,
        features=model.interface,
        code=code,
    )


def _choices(model: Classifier, axes: Axes, side: int, to: Language) -> Sequence[Choice]:
    if axes is None:
        return ()
    return [
        Choice(feature.key, to.title(feature), chosen=position == axes[side])
        for position, feature in enumerate(model.features)
    ]


def _examples(model: Classifier, *, lang: str, to: Language) -> Sequence[Link]:
    """Return links to one training row of each class: the one nearest to the middle of its class."""
    links = []
    for label, row in _typical_rows(model):
        sample = {feature.key: shown_number(value) for feature, value in zip(model.features, row, strict=True)}
        query = urlencode({key: text.replace(".", to.decimal_mark) for key, text in sample.items()}, safe=",")
        links.append(Link(model.labels[label], f"?{query}" + (f"&lang={lang}" if lang else "")))
    return links


def _typical_rows(model: Classifier) -> list[tuple[int, list[float]]]:
    scale = [max(feature.high - feature.low, 1e-300) for feature in model.features]
    found = []
    for label in range(len(model.labels)):
        rows = model.sample_rows[model.sample_classes == label]
        if len(rows):
            distances = (((rows - rows.mean(axis=0)) / scale) ** 2).sum(axis=1)
            found.append((label, rows[distances.argmin()].tolist()))
    return found if len(found) <= SHOWN_EXAMPLES else []


def _grouped(fields: Mapping[str, Field], features: Sequence[TrainedFeature], to: Language) -> Sequence[Group]:
    """Return a dozen fields as they come; of more, the most important first and the others folded away."""
    if len(fields) <= SHOWN_FIELDS:
        return [Group("", is_open=True, fields=list(fields.values()))]
    ranked = [fields[feature.key] for feature in sorted(features, key=lambda feature: -feature.importance)]
    first, others = ranked[:SHOWN_FIELDS], ranked[SHOWN_FIELDS:]
    title = to.ngettext(
        "%(count)s more, less important to this model", "%(count)s more, less important to this model", len(others)
    )
    return [Group("", is_open=True, fields=first), Group(title, is_open=any(f.hint for f in others), fields=others)]


def _field(identity: str, feature: TrainedFeature, to: Language, *, text: str, message: Message | None) -> Field:
    step = step_of(feature)
    return Field(
        id=identity,
        key=feature.key,
        title=to.title(feature),
        unit=feature.unit,
        text=text,
        start=to.number(feature.example),
        low=to.number(feature.low),
        high=to.number(feature.high),
        least=shown_number(feature.low),
        most=shown_number(feature.high),
        step=shown_number(step),
        slid=shown_number(_slid(feature, text)),
        kind=message.kind if message else "",
        hint=message.hint if message else "",
    )


def _slid(feature: TrainedFeature, text: str) -> float:
    """Return where the slider stands: at the value, or as near to it as the training range is."""
    try:
        number = number_of(text)
    except NotANumber:
        number = feature.example
    return min(max(number, feature.low), feature.high)


def _sentence(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    """Return what the error says, in the reader's language; in English it is what the validator says.

    What is missing is waited for and no error here.
    """
    if feature is None:
        return to.gettext("“%(name)s” is not a feature of this model", name=_harmless(error.feature))
    title = to.title(feature)
    value = error.value
    if error.code == "not_a_number" and value is None:  # an object or a list
        return to.gettext("%(title)s must be a number", title=title)
    if error.code == "not_a_number":
        return to.gettext("%(title)s: “%(value)s” is not a number", title=title, value=_as_given(value, to))
    if error.code == "not_finite":
        return to.gettext("%(title)s is too large for a 32-bit float", title=title)
    return _out_of_bounds(feature, to, title=title, value=_as_given(value, to))


def _out_of_bounds(feature: TrainedFeature, to: Language, *, title: str, value: str) -> str:
    low, high = _limits(feature, to)
    named = {"title": title, "low": low, "high": high, "value": value}
    if low and high:
        return to.gettext("%(title)s must be between %(low)s and %(high)s, not %(value)s", **named)
    if low:
        return to.gettext("%(title)s must be %(low)s or more, not %(value)s", **named)
    return to.gettext("%(title)s must be %(high)s or less, not %(value)s", **named)


def _as_given(value: str | float | bool | None, to: Language) -> str:
    """Return a value as it was typed, or a number that a program sent as people write it."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return to.number(value)
    return _harmless(value if isinstance(value, str) else str(value).lower())


def _harmless(text: str) -> str:
    """Return text without what is not seen: it might turn the sentence around it, or hide a part of it."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _outside(feature: TrainedFeature, to: Language) -> str:
    return to.gettext(
        "%(title)s is outside the training range of %(low)s to %(high)s",
        title=to.title(feature),
        low=to.number(feature.low),
        high=to.quantity(feature.high, feature.unit),
    )


def _hint(error: FieldError, feature: TrainedFeature | None, to: Language) -> str:
    if feature is None:
        return to.gettext("unknown")
    if error.code == "not_a_number":
        return to.gettext("not a number")
    if error.code == "not_finite":
        return to.gettext("too large")
    return _bounds(feature, to)


def _bounds(feature: TrainedFeature, to: Language) -> str:
    low, high = _limits(feature, to)
    if low and high:
        return to.gettext("between %(low)s and %(high)s", low=low, high=high)
    if low:
        return to.gettext("%(low)s or more", low=low)
    return to.gettext("%(high)s or less", high=high)


def _limits(feature: TrainedFeature, to: Language) -> tuple[str, str]:
    """Return the limits as text, empty where there is none; the unit stands once, behind the last of them."""
    minimum, maximum, unit = feature.minimum, feature.maximum, feature.unit
    high = "" if maximum is None else to.quantity(maximum, unit)
    if minimum is None:
        return "", high
    return to.number(minimum) if high else to.quantity(minimum, unit), high


def _is_unfinished(error: FieldError) -> bool:
    return error.code == "missing" or (error.code == "not_a_number" and is_half_typed(error.value))
