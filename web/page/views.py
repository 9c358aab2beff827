"""Views of the page's templates: plain data, with numbers and sentences in the reader's language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from ml.model.card import TrainedFeature
from ml.model.classifier import Classifier
from ml.tables.numbers import NotANumber, number_of, shown_number
from web.page.answers import Kind, Message
from web.page.decision_map import MARKS, Axes, default_axes, step_of
from web.page.languages import Language, codes, language
from web.page.snippet_panel import CodeView
from web.problems import ProblemDetails

# More fields than this are folded away.
SHOWN_FIELDS = 12
# More examples than this are a list to read, not a choice.
SHOWN_EXAMPLES = 8


@dataclass(frozen=True, slots=True)
class ProblemView:
    """An error page; `detail` is in English."""

    status: int
    title: str
    detail: str


@dataclass(frozen=True, slots=True)
class Field:
    """One input of the form, `id` its own on the page.

    `text` is its content, `start` the example's value, `low` and `high` the training range, `kind` that of `hint`.
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
    """A link to the page: its text, its query with the question mark, and the code of its language."""

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

    `count` is the number of fields in all groups, `lang` the language of the address, `start` the address of the page
    without input, `usual_x` and `usual_y` the keys of the default axes, `features` the digest of the model's interface,
    `marks` the paths of the marks of labels, repeated when there are more labels, and `address` the address of the
    service as its callers see it.
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


def problem_view(details: ProblemDetails, to: Language) -> ProblemView:
    """Return the view of an error page: its title in the reader's language, the details in English as for programs."""
    title = {
        400: to.gettext("The request cannot be read"),
        401: to.gettext("A token is needed"),
        403: to.gettext("This is not allowed"),
        404: to.gettext("Page not found"),
        405: to.gettext("This method is not allowed here"),
        408: to.gettext("The request took too long"),
        413: to.gettext("The request is too large"),
        415: to.gettext("This type of content is not supported"),
        422: to.gettext("The input has errors"),
        426: to.gettext("This address is a websocket"),
        429: to.gettext("Too many requests"),
        503: to.gettext("The service is busy"),
    }.get(details.status, details.title)
    return ProblemView(details.status, title, details.detail)


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
    """Return links to one training row of each class: the one nearest to the mean of its class."""
    links = []
    for label, row in _typical_rows(model):
        sample = {feature.key: shown_number(value) for feature, value in zip(model.features, row, strict=True)}
        query = urlencode({key: text.replace(".", to.decimal_mark) for key, text in sample.items()}, safe=",")
        links.append(Link(model.labels[label], f"?{query}" + (f"&lang={lang}" if lang else "")))
    return links


def _typical_rows(model: Classifier) -> list[tuple[int, list[float]]]:
    scale = [feature.high - feature.low or 1.0 for feature in model.features]
    found = []
    for label in range(len(model.labels)):
        rows = model.reference_rows[model.reference_outcomes == label]
        if len(rows):
            distances = (((rows - rows.mean(axis=0)) / scale) ** 2).sum(axis=1)
            found.append((label, rows[distances.argmin()].tolist()))
    return found if len(found) <= SHOWN_EXAMPLES else []


def _grouped(fields: Mapping[str, Field], features: Sequence[TrainedFeature], to: Language) -> Sequence[Group]:
    """Return up to a dozen fields in their order; of more, the most important first and the others folded away."""
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
    """Return the position of the slider: the value, or the end of the training range that is nearest to it."""
    try:
        number = number_of(text)
    except NotANumber:
        number = feature.example
    return min(max(number, feature.low), feature.high)
