"""Every page and fragment that the service shows, in the states that they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EXAMPLE = "sepal_length=5.6&sepal_width=2.7&petal_length=4.2&petal_width="
HTMX = {"HX-Request": "true"}
BROWSER = {"Accept": "text/html"}


@dataclass(frozen=True)
class Document:
    """A page, or with htmx's header a fragment; `form` is posted if there is one."""

    name: str
    address: str
    headers: Mapping[str, str] = field(default_factory=lambda: BROWSER)
    form: str | None = None

    def whole(self, html: str) -> str:
        """Return the HTML as a document: a fragment stands in a page of its own."""
        if self.headers is not HTMX:
            return html
        head = f'<!doctype html><html lang="en"><head><title>{self.name}</title></head>'
        return f"{head}<body><main><h1>{self.name}</h1>{html}</main></body></html>"


DOCUMENTS = [
    Document("page", "/"),
    Document("page, in Spanish", "/?lang=es"),
    Document("page with a note", f"/?{EXAMPLE}9"),
    Document("page with an error", f"/?{EXAMPLE}wide"),
    Document("page, incomplete", f"/?{EXAMPLE}"),
    Document("result", "/result", form=f"{EXAMPLE}1.3"),
    Document("fragment with an answer", f"/predict?{EXAMPLE}1.3", HTMX),
    Document("fragment with a note", f"/predict?{EXAMPLE}9", HTMX),
    Document("fragment with an error", f"/predict?{EXAMPLE}wide", HTMX),
    Document("fragment, incomplete", f"/predict?{EXAMPLE}", HTMX),
    Document("fragment with another map", f"/predict?{EXAMPLE}1.3&map-x=sepal_length&map-y=sepal_width", HTMX),
    Document("fragment, in Spanish", f"/predict?{EXAMPLE}1.3&lang=es", HTMX),
    Document("panel of snippets", "/code", HTMX),
    Document("page of snippets", "/code"),
    Document("documentation", "/docs"),
    Document("drift", "/health/drift"),
    Document("fragment of drift", "/health/drift", HTMX),
    Document("page about an unknown address", "/nothing/here"),
]
