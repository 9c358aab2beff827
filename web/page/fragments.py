"""The fragments of one model in one language: the parts that are swapped into the page with every key.

The parts that depend on the outcome, on the held features of the map, or on a nearest change are rendered once and
cached. A few numbers are filled in for each sample: its position on the map, and the sizes in its picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from markupsafe import Markup

from ml.model.card import Decision
from ml.model.changes import Change
from ml.model.evaluators import Prediction
from ml.model.loaded import LoadedModel
from ml.model.nearest import nearest_change
from ml.model.sample import InvalidSample, Note
from ml.model.strips import MOST_PIECES
from ml.tables.numbers import is_half_typed
from web.page import answers, views
from web.page.answers import PredictionView
from web.page.axes import Axes, axes_of
from web.page.changes import Outcome, change_view
from web.page.decision_map import NOWHERE, Mapper
from web.page.languages import Language
from web.page.messages import Message, messages_of
from web.page.model_card import card_view
from web.page.picture import Picture
from web.page.pinned import Answered, PinnedView, answer_of, pinned_view
from web.page.quantities import quantity_scale
from web.page.smooth_map import SmoothMapper
from web.page.strips import strips_of
from web.page.templates import Outline, outline, render
from web.page.threshold import rule_of, what_if_of
from web.page.views import ViewOptions
from web.page.why import why_not_of, why_of

# A decision table of Iris has 2,408 different answers, each about a kilobyte, and 676 maps over its petals, in each of
# which two or three labels may be the chosen one.
KEPT_ANSWERS = 4_096
KEPT_CHANGES = 1_024
KEPT_MAPS = 2_048
KEPT_AXES = 16
KEPT_PINS = 64
# Thresholds that somebody tries; all of them together keep as many fragments as the model's own.
KEPT_WHAT_IFS = 16
# A map, and a search for the nearest change that needs rows, evaluate so many, or those of a slice.
LEAST_ROWS, MOST_ROWS = 256, 4_096


class Fragments:
    """Renders the fragments of one model in one language.

    Args:
        own: of a model with another threshold, the fragments of the model as it is in its file.
    """

    def __init__(self, model: LoadedModel, language: Language, *, own: Fragments | None = None) -> None:
        self._model = model
        # What does not depend on the threshold.
        self._own = own or self
        share = KEPT_WHAT_IFS if own else 1
        self._most_maps = KEPT_MAPS // share
        self._rule = rule_of(model.card, language, is_what_if=own is not None)
        self._language = language
        self._max_rows = min(max(LEAST_ROWS, model.slice_rows), MOST_ROWS)
        # Whether an explanation takes no longer than the rest of the page.
        self.is_quick = model.slice_rows >= MOST_PIECES * len(model.features)
        self._by_key = {feature.key: feature for feature in model.features}
        self._quantity = quantity_scale(model.card, language)
        self._strip = self._quantity.strip() if self._quantity else None
        self._picture = Picture(model)
        self._picture_outline = outline("_picture.html", language, shapes=self._picture.shapes)
        # Regions and names by axes, ranks of what is held, and chosen label.
        self._maps: dict[tuple[object, ...], tuple[bytes, bytes]] = {}
        self._answer = lru_cache(KEPT_ANSWERS // share)(self._render_answer)
        self._change = lru_cache(KEPT_CHANGES // share)(self._render_change)
        self._card = lru_cache(1)(self._render_card)
        self._what_if = lru_cache(KEPT_WHAT_IFS)(self._make_what_if)
        self._axes = lru_cache(KEPT_AXES)(partial(axes_of, model))
        self._pin = lru_cache(KEPT_PINS)(partial(answer_of, model))
        self._mapper = lru_cache(KEPT_AXES)(self._make_mapper)

    def at(self, threshold: str | None) -> Fragments:
        """Return the fragments with another threshold between two labels; these ones if the text is none."""
        what_if = what_if_of(self._model.card, threshold) if threshold else None
        return self._what_if(what_if) if what_if else self

    def labelled(self, row: Sequence[float], ranks: Sequence[int], prediction: Prediction) -> Prediction:
        """Return the model's own answer to a row with the label that these fragments' threshold gives."""
        return prediction if self._own is self else self._model.predict(row, ranks=ranks)

    def answer(
        self,
        row: Sequence[float],
        ranks: Sequence[int],
        prediction: Prediction,
        messages: tuple[Message, ...],
        *,
        axes: Axes,
        goal: str | None = None,
        pin: str | None = None,
    ) -> bytes:
        """Return the fragment of the answer to a row with these ranks, with the map over `axes`.

        Args:
            messages: the notes about the row.
            goal: what is typed as the goal of a quantity; None is the usual one.
            pin: the query of a pinned sample, which has a symbol on the map and on the bars.
        """
        pinned_row, pinned = (self._pin(pin) if pin else None) or (None, None)
        return self._answer(prediction, messages, pinned).fill(
            (
                self._nearest(row, ranks, prediction, goal),
                self._map(row, ranks, prediction.index, axes, pinned_row) if axes else b"",
                self._picture_outline.fill(sizes) if (sizes := self._picture.sizes(row)) else b"",
            )
        )

    def _nearest(self, row: Sequence[float], ranks: Sequence[int], prediction: Prediction, goal: str | None) -> bytes:
        """Return the sentence about the nearest change: of the label, or with which a quantity reaches its goal."""
        if self._quantity is None:
            change, searched_all = nearest_change(self._model, row, max_rows=self._max_rows, ranks=ranks)
            return self._change("label", "", change, searched_all)
        wanted = self._quantity.goal if goal is None else self._quantity.read(goal)
        if wanted is None:
            return b"" if is_half_typed(goal) else self._change("no goal", "", None, True)
        change, searched_all = nearest_change(self._model, row, max_rows=self._max_rows, goal=wanted)
        outcome: Outcome = "falls below" if prediction.value >= wanted else "reaches"
        return self._change(outcome, self._quantity.exact(wanted), change, searched_all)

    def explanation(self, row: Sequence[float], *, pin: str | None = None) -> bytes:
        """Return the fragment that explains the answer to a row: why, the strips, and a pinned sample beside it."""
        return self._render("_explanation.html", **self.explained(row, self._model.predict(row), pin)).encode()

    def explained(self, row: Sequence[float], prediction: Prediction, pin: str | None) -> dict[str, object]:
        """Return the views of an explanation; of a wide model, that takes a while."""
        model, to, scale = self._model, self._language, self._quantity
        return {
            "why": why_of(self._own._model, row, prediction, to, scale=scale),
            "why_not": why_not_of(model, to),
            "strips": {strip.id: strip for strip in strips_of(model, row, to, scale=scale)},
            "pinned": self._pinned((row, prediction), pin),
        }

    def _pinned(self, answered: Answered, pin: str | None) -> PinnedView | None:
        pinned = self._pin(pin) if pin else None
        return pinned and pinned_view(self._model, answered, pinned, self._language, scale=self._quantity)

    def axes(self, x: str | None, y: str | None) -> Axes:
        """Return the axes of the map with these feature keys, or default ones."""
        return self._axes(x, y)

    def messages_of(self, notes: Sequence[Note], row: Sequence[float]) -> tuple[Message, ...]:
        """Return notes about a row as messages; mostly there are none."""
        return messages_of(notes, row, self._model.features, self._language) if notes else ()

    def invalid_view(self, error: InvalidSample) -> PredictionView:
        """Return the view of a sample with errors, or of an incomplete one."""
        return answers.invalid_view(error, self._model.features, self._language)

    def invalid(self, view: PredictionView) -> bytes:
        """Return the fragment of such a view."""
        return self._render("_prediction.html", prediction=view, strip=None, gap="").encode()

    def page(
        self,
        texts: Mapping[str, str],
        fragment: bytes,
        messages: Sequence[Message],
        options: ViewOptions,
        *,
        address: str,
        answered: Answered | None,
        explained: dict[str, object] | None = None,
    ) -> str:
        """Return the page with `texts` in its fields, and one of the fragments above.

        Args:
            answered: the row and the answer of the fragment, if it has one.
            explained: the views of its explanation; without them, a quick one is in the page, any other one follows.
        """
        view = views.page_view(
            self._own._model,
            texts,
            messages,
            options,
            axes=self.axes(options.map_x, options.map_y),
            what_if=None if self._own is self else self._model.card.decision,
            address=address,
        )
        if explained is None and answered and self.is_quick:
            explained = self.explained(*answered, options.pin)
        elif explained is None:
            pinned = self._pinned(answered, options.pin) if answered else None
            why_not = why_not_of(self._model, self._language)
            explained = {"why": None, "why_not": why_not, "strips": {}, "pinned": pinned}
        return self._render(
            "page.html",
            page=view,
            answer=answers.answer_text(answered[1], self._quantity, self._language) if answered else "",
            fragment=Markup(fragment.decode()),  # noqa: S704  # it was rendered above
            card=self._own._card(),
            pin=options.pin if explained["pinned"] else None,
            **explained,
        )

    def _render_card(self) -> Markup:
        view = card_view(self._model.card, self._model.version, self._language)
        return Markup(self._render("_card.html", card=view))  # noqa: S704  # rendered here

    def _map(
        self,
        row: Sequence[float],
        ranks: Sequence[int],
        chosen: int,
        axes: tuple[int, int],
        pinned: Sequence[float] | None,
    ) -> bytes:
        mapper, outline = self._mapper(axes)
        held = [*ranks, chosen if self._quantity is None else 0]
        held[axes[0]] = held[axes[1]] = 0
        key = (axes, *held)
        parts = self._maps.get(key)
        if parts is None:
            if len(self._maps) == self._most_maps:
                del self._maps[next(iter(self._maps))]
            drawn = mapper.draw(row)
            view = {"borders": drawn.borders, "regions": drawn.regions, "is_smooth": drawn.is_smooth}
            words = {"borders": drawn.borders, "names": drawn.names, "chosen": chosen, "exact": drawn.exact}
            drawings = self._render("_regions.html", **view), self._render("_names.html", **words)
            parts = self._maps[key] = (drawings[0].encode(), drawings[1].encode())
        regions, names = parts
        x, y = mapper.position(row)
        pin_x, pin_y = mapper.position(pinned) if pinned else (NOWHERE, NOWHERE)
        numbers = [b"%d" % place for place in (pin_x, pin_y, x, y)]
        return outline.fill((regions, *numbers, names, *numbers[2:]))

    def _render_answer(
        self, prediction: Prediction, messages: tuple[Message, ...], pinned: Prediction | None
    ) -> Outline:
        to, scale = self._language, self._quantity
        if scale:
            view = answers.quantity_view(prediction, scale, messages, to, pinned=pinned)
        else:
            rule = self._rule
            view = answers.answer_view(
                prediction, self._model.card, messages, to, pinned=pinned, decision=rule.decision, cost=rule.cost
            )
        return outline("_prediction.html", self._language, prediction=view, strip=self._strip)

    def _render_change(self, outcome: Outcome, what: str, change: Change | None, searched_all: bool) -> bytes:
        feature = self._by_key[change.feature] if change else None
        view = change_view(outcome, what, change, feature, self._language)
        return self._render("_change.html", change=view, searched_all=searched_all).encode()

    def _make_what_if(self, decision: Decision) -> Fragments:
        return Fragments(self._model.deciding(decision), self._language, own=self)

    def _make_mapper(self, axes: tuple[int, int]) -> tuple[Mapper, Outline]:
        mapper = SmoothMapper(self._model, self._language, x=axes[0], y=axes[1], max_rows=self._max_rows)
        return mapper, outline("_map.html", self._language, plot=mapper.plot)

    def _render(self, name: str, **context: object) -> str:
        return render(name, self._language, **context)


class _ByLanguage(dict[Language, Fragments]):
    """The fragments of one model, by language."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self._model = model

    def __missing__(self, language: Language) -> Fragments:
        fragments = self[language] = Fragments(self._model, language)
        return fragments


def fragments_of(model: LoadedModel, language: Language) -> Fragments:
    """Return the model's fragments in a language."""
    return model.made(_ByLanguage)[language]
