"""The steps in front of a model's estimator, and that itself, in words, for its card."""

from __future__ import annotations

from collections.abc import Iterator

from ml.model.card import Card, Step
from web.page.languages import Language

NAMED_FEATURES = 4
# Of a stranger's file.
MOST_STEPS = 50


def steps_of(card: Card, language: Language) -> Iterator[str]:
    """Yield what each step of a pipeline does, and to which features, and in the end its estimator; else nothing."""
    if not card.steps:
        return
    texts = _texts(language)
    title_of = {feature.key: language.title(feature) for feature in card.features}
    for step in card.steps[:MOST_STEPS]:
        yield f"{_titles(step, title_of, language)}: {texts.get(step.kind, step.kind)}"
    libraries = ", ".join(f"{name} {release}" for name, release in card.libraries.items() if name != "numpy")
    method = method_of(card, language)
    yield language.gettext("%(method)s; fitted with %(libraries)s", method=method, libraries=libraries or "–")


def method_of(card: Card, language: Language) -> str:
    """Return the estimator, with the number of its trees if it has some."""
    trees = language.ngettext("%(count)s tree", "%(count)s trees", card.trees)
    return f"{card.estimator}, {trees}" if card.trees else card.estimator


def _titles(step: Step, title_of: dict[str, str], language: Language) -> str:
    titles = [title_of[key] for key in step.features[:NAMED_FEATURES]]
    if more := len(step.features) - len(titles):
        titles.append(language.ngettext("%(count)s more", "%(count)s more", more))
    return ", ".join(titles)


def _texts(language: Language) -> dict[str, str]:
    _ = language.gettext
    logarithm = _("the logarithm is taken")
    return {
        "fill_mean": _("a missing value is replaced by the mean"),
        "fill_median": _("a missing value is replaced by the median"),
        "fill_most_frequent": _("a missing value is replaced by the most frequent one"),
        "fill_constant": _("a missing value is replaced by a constant"),
        "indicator": _("an extra column says where a value is missing"),
        "standardize": _("the mean is subtracted, and the rest divided by the standard deviation"),
        "min_max": _("the range is stretched to a fixed one"),
        "robust": _("the median is subtracted, and the rest divided by a range of quantiles"),
        "max_abs": _("divided by the largest absolute value"),
        "one_hot": _("each choice has a column"),
        "ordinal": _("the choices are numbered"),
        "target": _("each choice is replaced by a mean of the target"),
        "bins": _("divided into bins"),
        "binarize": _("compared with a threshold"),
        "select": _("only some of the columns are kept"),
        "log": logarithm,
        "log1p": logarithm,
        "log2": logarithm,
        "log10": logarithm,
        "sqrt": _("the square root is taken"),
        "exp": _("the exponential is taken"),
        "expm1": _("the exponential is taken"),
    }
