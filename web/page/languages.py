"""The languages of the page: translated texts, and numbers in their notation.

The texts in the code are English. Every other language is a folder in `web/page/locale/` with a catalogue of Babel; it
is compiled for the first page in that language.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import get_decimal_symbol
from babel.support import NullTranslations, Translations
from babel.units import format_unit
from starlette.types import Scope

from ml.tables.dataset import Feature
from ml.tables.numbers import shown_number
from web.requests import bounded, header_of, qualities, query_of

LOCALES = Path(__file__).parent / "locale"
CATALOGUE = Path("LC_MESSAGES") / "messages.po"
SOURCE = "en"
# No language needs a longer tag (RFC 5646, section 4.4.1).
MAX_TAG_CHARACTERS = 35
# The largest number of titles that a sentence lists by name; the others are counted.
NAMED_TITLES = 2
# Between a number and its unit: no line ends there.
NO_BREAK = "\u00a0"
# Between groups of three digits: in no language a decimal mark (ISO 80000-1, section 7.3.2).
THIN_NO_BREAK = "\u202f"
_GROUPS = re.compile(r"(?<=\d)(?=(?:\d{3})+$)")
LEAST_GROUPED = 5


class Language:
    """One language.

    Attributes:
        code: as in `Accept-Language`, e.g. `es` or `pt-BR`.
        name: in the language itself.
        decimal_mark: between whole number and fraction.
    """

    def __init__(self, code: str, translations: NullTranslations) -> None:
        locale = Locale.parse(code, sep="-")
        self.code = code
        self.name = (locale.get_language_name() or code).capitalize()
        self.decimal_mark = get_decimal_symbol(locale)
        self._locale = locale
        # "100%" in English, "100 %" in Spanish.
        self._percent: str = locale.percent_formats[None].pattern.lstrip("#,0")
        self.translations = translations

    def gettext(self, message: str, **values: object) -> str:
        """Return the translated message with its values."""
        return self.translations.gettext(message) % values

    def ngettext(self, one: str, many: str, count: int, **values: object) -> str:
        """Return the form of the translated message that goes with `count`, its value `%(count)s`, and other values."""
        return self.translations.ngettext(one, many, count) % {"count": count, **values}

    def number(self, value: float) -> str:
        """Return a number in the notation of this language, with no more digits than needed."""
        return self._marked(shown_number(value))

    def rounded(self, value: float, step: float) -> str:
        """Return a number with the digits that a step of this size can tell, in the notation of this language."""
        if not 0 < step < math.inf or not math.isfinite(value):
            return self.number(value)
        digits = -math.floor(math.log10(step))
        nearest = round(value, digits)
        return self.number(nearest + 0.0 if math.isfinite(nearest) else value)

    def typed(self, value: float, feature: Feature) -> str:
        """Return a number as text for its field, which is read as the very same number.

        Where the mark of this language divides the column's thousands, 1,781 would be read as 1781: the decimal mark is
        the column's own there.
        """
        text = self.number(value)
        if feature.thousands == self.decimal_mark:
            text = text.replace(self.decimal_mark, feature.decimal)
        return text

    def grouped(self, digits: str) -> str:
        """Return digits with a sign and a fraction, as numbers have them in code, with space between thousands."""
        whole, point, fraction = digits.partition(".")
        if len(whole.lstrip("-")) >= LEAST_GROUPED and "e" not in whole:
            whole = _GROUPS.sub(THIN_NO_BREAK, whole)
        return self._marked(whole + point + fraction)

    def _marked(self, digits: str) -> str:
        return digits.replace("-", "−").replace(".", self.decimal_mark)

    def percent(self, share: float) -> str:
        """Return a share of 0 to 1 as text; only 0 and 1 themselves become 0% and 100%."""
        if 0 < share < 0.001:
            text = f"<{NO_BREAK}0.1"
        elif 0.999 < share < 1:
            text = f">{NO_BREAK}99.9"
        else:
            text = f"{share * 100:.1f}".removesuffix(".0")
        return self._marked(text) + self._percent

    def listed(self, titles: Sequence[str]) -> str:
        """Return titles as a part of a sentence: "a", "a and b", "a, b and 1 more"."""
        named = list(titles[:NAMED_TITLES])
        left = len(titles) - len(named)
        if left:
            named.append(self.ngettext("%(count)s more", "%(count)s more", left))
        if len(named) < 2:
            return "".join(named)
        return self.gettext("%(first)s and %(last)s", first=", ".join(named[:-1]), last=named[-1])

    def duration(self, seconds: float) -> str:
        """Return a duration in the largest unit of which it has one, e.g. "1 day"."""
        unit, length = next(
            (one for one in (("day", 86_400), ("hour", 3_600), ("minute", 60)) if seconds >= one[1]), ("second", 1)
        )
        return format_unit(float(f"{seconds / length:.3g}"), f"duration-{unit}", "long", locale=self._locale)

    def title(self, feature: Feature) -> str:
        """Return the feature's title in this language, if the model has one, or else in English."""
        return feature.titles.get(self.code, feature.title)

    def quantity(self, value: float, unit: str) -> str:
        """Return a number with its unit."""
        return with_unit(self.number(value), unit)


def with_unit(number: str, unit: str) -> str:
    """Return a number's text with its unit."""
    return f"{number}{NO_BREAK}{unit}" if unit else number


@cache
def codes() -> tuple[str, ...]:
    """Return the codes of all languages, that of the source first."""
    folders = (folder.name for folder in LOCALES.iterdir() if (folder / CATALOGUE).is_file())
    return (SOURCE, *sorted(name.replace("_", "-") for name in folders))


@cache
def language(code: str) -> Language:
    """Return the language with one of the `codes`."""
    if code == SOURCE:
        return Language(SOURCE, NullTranslations())
    name = code.replace("-", "_")
    with (LOCALES / name / CATALOGUE).open("rb") as file:
        catalogue = read_po(file, locale=name)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Language(code, Translations(compiled))


def known(tag: str) -> Language | None:
    """Return the language that a tag such as `es` or `es-AR` asks for, if it is one of ours (RFC 4647, section 3.4)."""
    if tag in codes():
        return language(tag)
    if len(tag) > MAX_TAG_CHARACTERS:
        return None
    tag = tag.lower()
    while tag:
        if tag in _by_tag():
            return language(_by_tag()[tag])
        tag = tag.rpartition("-")[0]
    return None


def preferred(accept_language: bytes) -> Language:
    """Return the language that an `Accept-Language` header asks for (RFC 9110, section 12.5.4), or else English."""
    return _preferred(bounded(accept_language))


def asked(scope: Scope) -> Language:
    """Return the language of a page that knows no other option: that of its address, or the browser's."""
    return known(query_of(scope).get("lang", "")) or preferred(header_of(scope, b"accept-language"))


@cache
def _by_tag() -> dict[str, str]:
    return {code.lower(): code for code in codes()}


@lru_cache(256)
def _preferred(accept_language: bytes) -> Language:
    wanted = []
    for position, (tag, quality) in enumerate(qualities(accept_language).items()):
        # `*`, any language, is answered in English.
        found = known(SOURCE if tag == "*" else tag)
        if found and quality > 0:
            wanted.append((-quality, position, found))
    return min(wanted, default=(0.0, 0, language(SOURCE)))[2]
