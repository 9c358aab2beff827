"""The fragments of one model in one language: the parts that are swapped into the page with every key.

The parts that depend on the outcome, on the held features of the map, or on a nearest change are rendered once and
cached. A few numbers are filled in for each sample: its position on the map, and the sizes in its picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from markupsafe import Markup

from ml.model.classifier import Classifier, Prediction
from ml.model.explain import Direction, nearest_change
from ml.model.sample import InvalidSample, Note
from web.page import answers, views
from web.page.answers import Message, PredictionView
from web.page.decision_map import Axes, Mapper, axes_of
from web.page.languages import Language
from web.page.model_card import card_view
from web.page.picture import Picture
from web.page.snippet_panel import CodeView
from web.page.templates import Outline, outline, render

# A decision table of Iris has 2,408 different answers, each about a kilobyte, and 676 maps over its petals, in each of
# which two or three labels may be the chosen one.
KEPT_ANSWERS = 4_096
KEPT_CHANGES = 1_024
KEPT_MAPS = 2_048
KEPT_AXES = 16
# A map and a search for the nearest change each evaluate some rows: this many, or those of a millisecond.
LEAST_ROWS, MOST_ROWS = 256, 4_096


class Fragments:
    """Renders the fragments of one model in one language."""

    def __init__(self, model: Classifier, language: Language) -> None:
        self._model = model
        self._language = language
        self._max_rows = min(max(LEAST_ROWS, model.slice_rows // 2), MOST_ROWS)
        self._titled = {feature.key: feature for feature in model.features}
        self._picture = Picture(model)
        self._picture_outline = outline("_picture.html", language, shapes=self._picture.shapes)
        # Regions and names by axes, ranks of what is held, and chosen label.
        self._maps: dict[tuple[object, ...], tuple[bytes, bytes]] = {}
        self._answer = lru_cache(KEPT_ANSWERS)(self._render_answer)
        self._change = lru_cache(KEPT_CHANGES)(self._render_change)
        self._card = lru_cache(1)(self._render_card)
        self._axes = lru_cache(KEPT_AXES)(partial(axes_of, model))
        self._mapper = lru_cache(KEPT_AXES)(self._make_mapper)

    def answer(
        self,
        row: Sequence[float],
        ranks: Sequence[int],
        prediction: Prediction,
        notes: tuple[Note, ...],
        axes: Axes,
    ) -> bytes:
        """Return the fragment of the answer to a row with these ranks, with the map over `axes`."""
        change = nearest_change(self._model, row, max_rows=self._max_rows, ranks=ranks)
        return self._answer(prediction, notes).fill(
            (
                self._change(change.feature, change.direction, change.threshold, change.value, change.label)
                if change
                else b"",
                self._map(row, ranks, prediction.index, axes) if axes else b"",
                self._picture_outline.fill(self._picture.sizes(row)) if self._picture.shapes else b"",
            )
        )

    def axes(self, x: str | None, y: str | None) -> Axes:
        """Return the axes of the map with these feature keys, or default ones."""
        return self._axes(x, y)

    def messages_of(self, notes: Sequence[Note]) -> Sequence[Message]:
        """Return notes as messages."""
        return answers.messages_of(notes, self._model.features, self._language)

    def invalid_view(self, error: InvalidSample) -> PredictionView:
        """Return the view of a sample with errors, or of an incomplete one."""
        return answers.invalid_view(error, self._model.features, self._language)

    def invalid(self, view: PredictionView) -> bytes:
        """Return the fragment of such a view."""
        return self._render("_prediction.html", prediction=view, gap="").encode()

    def page(
        self,
        texts: Mapping[str, str],
        fragment: bytes,
        messages: Sequence[Message],
        *,
        lang: str,
        axes: Axes,
        address: str,
        code: CodeView,
    ) -> str:
        """Return the page with `texts` in its fields, and one of the fragments above."""
        view = views.page_view(
            self._model, texts, messages, self._language, lang=lang, axes=axes, address=address, code=code
        )
        return self._render("page.html", page=view, fragment=Markup(fragment.decode()), card=self._card())  # noqa: S704  # it was rendered above

    def _render_card(self) -> Markup:
        view = card_view(self._model.card, self._model.version, self._language)
        return Markup(self._render("_card.html", card=view))  # noqa: S704  # rendered here

    def _map(self, row: Sequence[float], ranks: Sequence[int], chosen: int, axes: tuple[int, int]) -> bytes:
        mapper, outline = self._mapper(axes)
        held = [*ranks, chosen]
        held[axes[0]] = held[axes[1]] = 0
        key = (axes, *held)
        parts = self._maps.get(key)
        if parts is None:
            if len(self._maps) == KEPT_MAPS:
                del self._maps[next(iter(self._maps))]
            drawn = mapper.draw(row)
            regions = self._render("_regions.html", regions=drawn.regions, borders=drawn.borders, chosen=chosen)
            names = self._render("_names.html", regions=drawn.regions, chosen=chosen)
            parts = self._maps[key] = (regions.encode(), names.encode())
        x, y = [b"%d" % place for place in mapper.position(row)]
        return outline.fill((*parts, x, y, x, y))

    def _render_answer(self, prediction: Prediction, notes: tuple[Note, ...]) -> Outline:
        view = answers.answer_view(prediction, self._model.labels, notes, self._model.features, self._language)
        return outline("_prediction.html", self._language, prediction=view)

    def _render_change(self, feature: str, direction: Direction, threshold: float, value: float, label: str) -> bytes:
        view = answers.change_view(
            self._titled[feature],
            direction=direction,
            threshold=threshold,
            value=value,
            label=label,
            to=self._language,
        )
        return self._render("_change.html", change=view).encode()

    def _make_mapper(self, axes: tuple[int, int]) -> tuple[Mapper, Outline]:
        mapper = Mapper(self._model, self._language, x=axes[0], y=axes[1], max_rows=self._max_rows)
        return mapper, outline("_map.html", self._language, plot=mapper.plot)

    def _render(self, name: str, **context: object) -> str:
        return render(name, self._language, **context)


class _ByLanguage(dict[Language, Fragments]):
    """The fragments of one model, by language."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self._model = model

    def __missing__(self, language: Language) -> Fragments:
        fragments = self[language] = Fragments(self._model, language)
        return fragments


def fragments_of(model: Classifier, language: Language) -> Fragments:
    """Return the model's fragments in a language."""
    return model.made(_ByLanguage)[language]
