"""Examples to start from: links to typical training rows of each class, or of low, middle and high quantities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from ml.model.loaded import LoadedModel
from web.api.examples import has_words
from web.page.fields import rounded_text
from web.page.languages import Language, codes, language

# More examples than this are a list to read, not a choice: the others are folded away. Those of the most frequent
# classes are made.
SHOWN_EXAMPLES, MOST_EXAMPLES = 8, 50

TypicalRows = list[tuple[int, list[float]]]


@dataclass(frozen=True, slots=True)
class Link:
    """A link to the page: its text, its query with the question mark, a code and the option that it is for."""

    text: str
    query: str
    code: str = ""
    is_current: bool = False
    option: str = "lang"


def language_links(query: Mapping[str, str], to: Language, *, option: str = "lang") -> Sequence[Link]:
    """Return links to the same page, with the same query, in each language; `option` is the name of its option."""
    return [
        Link(language(code).name, "?" + urlencode({**query, option: code}), code, code == to.code, option)
        for code in codes()
    ]


def examples_of(
    model: LoadedModel,
    starts: Mapping[str, str],
    *,
    kept: Mapping[str, str],
    to: Language,
    texts: Mapping[str, str] | None = None,
) -> Sequence[Link]:
    """Return links to one training row of each class, or each third of a quantity: the one nearest to its center.

    Args:
        starts: what the page fills in by itself; a link names only what differs from it.
        kept: the options of the view that stay.
        texts: what stands in the fields: the current example, or another sample.
    """
    thirds = (to.gettext("low"), to.gettext("middle"), to.gettext("high"))
    links = []
    for group, row in model.made(_typical_rows):
        sample = {
            feature.key: rounded_text(feature, value, to) for feature, value in zip(model.features, row, strict=True)
        }  # fmt: skip
        named = {key: text for key, text in sample.items() if text != starts.get(key)}
        query = f"?{urlencode({**named, **kept}, safe=',')}"
        text = model.labels[group] if model.labels else thirds[group]
        links.append(Link(text, query, is_current=sample == texts))
    return links


def _typical_rows(model: LoadedModel) -> TypicalRows:
    """Return the most typical training row of each group, in the order of the groups."""
    outcomes, rows = model.reference_outcomes, model.reference_rows
    if model.labels:
        groups = outcomes.astype(np.intp)
    else:
        groups = np.searchsorted(np.quantile(outcomes, (1 / 3, 2 / 3)) if len(outcomes) else (), outcomes)
    sizes = np.bincount(groups)
    shown = sorted(np.argsort(-sizes, kind="stable")[:MOST_EXAMPLES].tolist())
    return [(group, _nearest_to_center(model, rows[groups == group])) for group in shown if sizes[group]]


def _nearest_to_center(model: LoadedModel, rows: NDArray[np.float64]) -> list[float]:
    """Return the row nearest to the means of its numbers and the most frequent words of its categories.

    No value is as far from them as another word, or as the other end of the training range. A row that no sample can
    say is farther than all others: it would leave a field empty.
    """
    distances = np.where(has_words(model, rows), 0.0, float(rows.shape[1]))
    for column, feature in zip(rows.T, model.features, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            continue
        if feature.choices:
            apart = (column != np.bincount(known.astype(np.intp)).argmax()).astype(np.float64)
        else:
            apart = ((column - known.mean()) / (feature.high - feature.low or 1.0)) ** 2
        distances += np.nan_to_num(apart, nan=1.0)
    nearest: list[float] = rows[distances.argmin()].tolist()
    return nearest
