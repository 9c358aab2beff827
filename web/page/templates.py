"""The templates, in each language, and templates that are rendered once and filled often."""

from __future__ import annotations

import contextlib
import re
import secrets
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import jinja2
import jinja2.compiler
from jinja2.bccache import Bucket
from markupsafe import Markup, escape

from web.page.files import MODULES, file
from web.page.languages import Language
from web.settings import TEMPLATES

# A title, a label or a value with one of these would turn around the sentence that it stands in (Unicode Standard
# Annex 9, sections 2.1 to 2.4).
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_TURNED = re.compile(f"[{_TURNING}]")


class CompiledTemplates(jinja2.FileSystemBytecodeCache):
    """Compiled templates in a folder, for all languages and for the next start: compiling them takes as long as all
    else that a start does with a model. Where the folder cannot be written to, they are compiled anew each time.
    """

    def get_source_checksum(self, source: str) -> str:
        # What the code is also depends on: the compiler, and the options of an environment, which stand in this file.
        changed = [Path(file).stat().st_mtime_ns for file in (jinja2.compiler.__file__, __file__)]
        return super().get_source_checksum(f"{changed}{source}")

    def dump_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


class Outline:
    """Text that was rendered with a gap after each of its parts but the last, and is filled anew for each sample.

    That is far cheaper than rendering. Text is bytes in UTF-8 here, as it is sent.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = [b""] * (2 * len(parts) - 1)
        self._parts[::2] = [part.encode() for part in parts]

    def fill(self, values: Iterable[bytes]) -> bytes:
        """Return the text with one value in each gap; a value must be safe where its gap is."""
        parts = self._parts.copy()
        parts[1::2] = values
        return b"".join(parts)


def render(name: str, language: Language, **context: object) -> str:
    """Return a template's text in a language. Links in it are relative to `base`, the path up to the service.

    Characters that turn text around are replaced, but for those in what programs read: see `exact`.
    """
    text = _environment(language).get_template(name).render(context)
    # To look for each alone takes an eighth of the time: 0.08 ms for 100 kB.
    return _TURNED.sub("\ufffd", text) if any(map(text.__contains__, _TURNING)) else text


def exact(value: object) -> Markup:
    """Return a value for a place that programs read: with references to characters that `render` would replace."""
    text = escape(value)
    references = _TURNED.sub(lambda found: f"&#{ord(found[0])};", text)
    return Markup(references)  # noqa: S704  # it was escaped above


def outline(name: str, language: Language, **context: object) -> Outline:
    """Return a template's text with a gap wherever it has `{{ gap }}`."""
    gap = Markup(_gap())  # noqa: S704  # hex digits
    return Outline(render(name, language, gap=gap, **context).split(_gap()))


@cache
def _gap() -> str:
    """Return the placeholder of a gap in rendered text: random, so no label, title or value can contain it."""
    return secrets.token_hex(16)


@cache
def _environment(language: Language) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=_loader(),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
        bytecode_cache=_compiled(),
    )
    environment.install_gettext_translations(language.translations, newstyle=True)  # type: ignore[attr-defined]  # of the extension
    environment.filters["exact"] = exact
    environment.globals |= {"file": file, "modules": MODULES, "base": "", "language": language}
    return environment


@cache
def _loader() -> jinja2.BaseLoader:
    return jinja2.FileSystemLoader(TEMPLATES)


@cache
def _compiled() -> CompiledTemplates | None:
    """Return the compiled templates, kept beside Python's compiled modules; None where these are not to be written."""
    return None if sys.dont_write_bytecode else CompiledTemplates(str(Path(__file__).parent / "__pycache__"))
