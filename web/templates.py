"""The templates, and the fragments that were rendered from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

import jinja2

from ml.classifier import Classifier, Prediction
from ml.sample import Note
from web import views
from web.content import STATIC, TEMPLATES
from web.messages import KEPT_ANSWERS
from web.views import PredictionView


class Templates:
    """Renders views; answers are rendered once and kept."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"asset": asset, "base": ""}
        self._fragment = self._environment.get_template("_prediction.html")
        self.answer = lru_cache(KEPT_ANSWERS)(self._render_answer)

    def render(self, name: str, **context: object) -> str:
        """Return a whole page; links are relative to `base`, the way up to where the service answers."""
        return self._environment.get_template(name).render(context)

    def page(self, model: Classifier, texts: Mapping[str, str], prediction: PredictionView) -> str:
        """Return the page."""
        return self.render("page.html", page=views.page_view(model, texts, prediction))

    def fragment(self, prediction: PredictionView) -> str:
        """Return the part of the page that is swapped."""
        return self._fragment.render(prediction=prediction)

    def _render_answer(self, prediction: Prediction, labels: tuple[str, ...], notes: tuple[Note, ...]) -> bytes:
        # An answer has no number of the sample in it, so one rendering serves every sample with this outcome.
        return self.fragment(views.answer_view(prediction, labels, notes)).encode()


@lru_cache
def asset(name: str) -> str:
    """Return the relative address of one of our static files, with its digest: a new file is a new address."""
    return f"static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
