"""Views of the page's templates: plain data, with numbers and sentences in the reader's language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlencode

from msgspec import UNSET

from ml.model.card import Decision
from ml.model.loaded import LoadedModel
from ml.tables.numbers import is_half_typed
from web.page.answers import LIKELIEST, ORDERED_LABELS
from web.page.axes import Axes, axis_title, default_axes
from web.page.decision_map import SYMBOLS
from web.page.examples import SHOWN_EXAMPLES, Link, examples_of, language_links
from web.page.fields import GOAL, SHOWN_FIELDS, THRESHOLD, Group, fields_of, grouped, names_of_options
from web.page.languages import SOURCE, Language
from web.page.messages import Message
from web.page.quantities import Legend, QuantityStrip, quantity_scale
from web.page.threshold import ThresholdView, threshold_view
from web.page.why import count_of
from web.problems import ProblemDetails

# The value of the option for the order of the fields; any other is that of their importance.
FILE_ORDER = "file"


class ViewOptions(NamedTuple):
    """Options of the view.

    They are its language, the `lang` of the address, the features of the map, the goal, the query of a pinned sample,
    the order of the fields, and a threshold between two labels, a what-if.

    A named tuple, because one is made for each request, and a frozen dataclass takes three times as long.
    """

    language: Language
    lang: str = ""
    map_x: str | None = None
    map_y: str | None = None
    goal: str | None = None
    pin: str | None = None
    order: str | None = None
    threshold: str | None = None


@dataclass(frozen=True, slots=True)
class ProblemView:
    """An error page; `detail` is in the language `lang`: mostly in English, as for programs."""

    status: int
    title: str
    detail: str
    lang: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One feature that an axis of the map may show."""

    key: str
    title: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class QuantityPage:
    """What the page of a quantity has besides the answer.

    `goal` is the text of the field for a goal, `usual_goal` its content at first; `is_wrong`: it is no number.
    """

    unit: str
    goal: str
    usual_goal: str
    is_wrong: bool
    strip: QuantityStrip
    legend: Legend


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page.

    `question` is what is being decided, `orders` are links to the page with its fields in another order, where there
    are many of them, `order` is the one that was chosen, `bars` and `reasons` are numbers of lines of an answer,
    `count` the number of fields in all groups, `shown_examples` how many examples are not folded away, `lang` the
    language of the address, `start` the address of the page without input, `usual_x` and `usual_y` the keys of the
    default axes, `features` the digest of the model's interface, `options` the names of the form's other fields,
    `symbols` the paths of the symbols of labels, whose last one is shared by all further labels, and
    `address` that of the service for its callers.
    """

    name: str
    question: str
    version: str
    description: str
    address: str
    labels: Sequence[str]
    bars: int
    reasons: int
    symbols: Sequence[str]
    count: int
    has_words: bool
    groups: Sequence[Group]
    orders: Sequence[Link]
    order: str
    examples: Sequence[Link]
    shown_examples: int
    start: str
    here: str
    languages: Sequence[Link]
    x_choices: Sequence[Choice]
    y_choices: Sequence[Choice]
    usual_x: str
    usual_y: str
    lang: str
    features: str
    options: Mapping[str, str]
    quantity: QuantityPage | None
    threshold: ThresholdView | None


def problem_view(details: ProblemDetails, to: Language, *, path: str, method: str) -> ProblemView:
    """Return the view of an error page in the reader's language; details that its status does not say are in English,
    as for programs.

    Args:
        path, method: of the request.
    """
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
    said = ""
    if details.status == 404:
        said = to.gettext("There is nothing at %(path)s.", path=path)
    elif details.status == 405:
        said = to.gettext("%(method)s is not allowed at %(path)s.", method=method, path=path)
    elif details.retry_after_s is not UNSET:
        said = to.gettext("Try again in %(time)s.", time=to.duration(details.retry_after_s))
    return ProblemView(details.status, title, said or details.detail, to.code if said else SOURCE)


def page_view(
    model: LoadedModel,
    texts: Mapping[str, str],
    messages: Sequence[Message],
    chosen: ViewOptions,
    *,
    axes: Axes,
    address: str,
    what_if: Decision | None = None,
) -> PageView:
    """Return the view of the page with `texts` in its fields, `messages` beside them, and `axes` on its map.

    Args:
        what_if: another threshold than that of the model file.
    """
    to, lang, goal = chosen.language, chosen.lang, chosen.goal
    fields = fields_of(model.features, texts, messages, to)
    starts = {field.key: field.start for field in fields}
    options = model.made(names_of_options)
    axis_keys = {"map-x": model.features[axes[0]].key, "map-y": model.features[axes[1]].key} if axes else {}
    usual = default_axes(model)
    # What stays when another sample is shown, and when this one is shown in another way. The page has the values of
    # the example by itself: with them in each link, the packed page of 64 features was 0.7 kB longer.
    kept = {options["lang"]: lang} if lang else {}
    if chosen.order == FILE_ORDER and len(fields) > SHOWN_FIELDS:
        kept |= {"field-order": FILE_ORDER}
    query = {key: text for key, text in texts.items() if text != starts.get(key, text)} | kept
    if chosen.pin:
        query["pinned-sample"] = chosen.pin
    if axes != usual:
        query |= axis_keys
    quantity = _quantity_page(model, goal, to)
    if quantity and quantity.goal not in (None, quantity.usual_goal):
        query[options[GOAL]] = goal or ""
    threshold = None
    if THRESHOLD in options:
        reset = "./?" + urlencode({**query, "lang": lang} if lang else query)
        threshold = threshold_view(model.card, what_if, reset, to)
        if what_if:
            query[THRESHOLD] = threshold.value
    return PageView(
        name=model.name,
        question=_question(model, to),
        version=model.version,
        description=to.ngettext(
            "Type %(count)s measurement and see the prediction of the model %(name)s follow every key.",
            "Type %(count)s measurements and see the prediction of the model %(name)s follow every key.",
            len(fields),
            name=model.name,
        ),
        address=address,
        labels=model.labels,
        reasons=count_of(model),
        bars=len(model.labels) if len(model.labels) <= ORDERED_LABELS else LIKELIEST + 1,
        symbols=SYMBOLS,
        count=len(fields),
        has_words=any(feature.choices for feature in model.features),
        groups=grouped(fields, model.features, to, by_file="field-order" in kept),
        orders=_orders(query, to) if len(fields) > SHOWN_FIELDS else (),
        order=kept.get("field-order", ""),
        examples=examples_of(model, starts, kept=kept, to=to, texts=texts),
        shown_examples=SHOWN_EXAMPLES,
        start="./" + (f"?{urlencode(kept)}" if kept else ""),
        here=urlencode(query),
        languages=language_links(query, to, option=options["lang"]),
        x_choices=_choices(model, axes, 0, to),
        y_choices=_choices(model, axes, 1, to),
        usual_x=model.features[usual[0]].key if usual else "",
        usual_y=model.features[usual[1]].key if usual else "",
        lang=lang,
        features=model.interface,
        options=options,
        quantity=quantity,
        threshold=threshold,
    )


def _orders(query: Mapping[str, str], to: Language) -> Sequence[Link]:
    texts = {"importance": to.gettext("by importance"), FILE_ORDER: to.gettext("as in the file")}
    current = query.get("field-order", "importance")
    return [
        Link(text, "?" + urlencode({**query, "field-order": order}), order, is_current=order == current)
        for order, text in texts.items()
    ]


def _question(model: LoadedModel, to: Language) -> str:
    """Return the question that the page answers, from the name of the target; without one, the model's name."""
    target = model.card.target.title
    if not target:
        return model.name
    if model.quantity:
        return to.gettext("What is the %(target)s?", target=target)
    if len(model.labels) == 2:
        one, other = model.labels
        return to.gettext("%(target)s: %(one)s or %(other)s?", target=target, one=one, other=other)
    return to.gettext("Which %(target)s is it?", target=target)


def _quantity_page(model: LoadedModel, goal: str | None, to: Language) -> QuantityPage | None:
    scale = quantity_scale(model.card, to)
    if scale is None:
        return None
    usual = to.number(scale.goal)
    return QuantityPage(
        unit=scale.unit,
        goal=usual if goal is None else goal,
        usual_goal=usual,
        is_wrong=goal is not None and scale.read(goal) is None and not is_half_typed(goal),
        strip=scale.strip(),
        legend=scale.legend(),
    )


def _choices(model: LoadedModel, axes: Axes, side: int, to: Language) -> Sequence[Choice]:
    if axes is None:
        return ()
    return [
        Choice(feature.key, axis_title(feature, to), chosen=position == axes[side])
        for position, feature in enumerate(model.features)
    ]
