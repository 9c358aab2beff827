"""The header of a table: what each column is called, which key and unit that gives it, and which one is meant."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from ml.errors import TableError, in_quotes
from ml.tables.dataset import MAX_TEXT, Feature

MAX_COLUMNS = 10_000
_SHOWN_NAMES = 20
# A key made of the names of signs has those of so many.
_NAMED_SIGNS = 3
_UNIT = re.compile(r"^(.*\S)\s*[(\[]([^()\[\]]*)[)\]]$", re.DOTALL)
# What stands there as well: the ends of a scale, and what the reader of a question is to do.
_NO_UNIT = re.compile(
    r"[\d.,]+\s*(?:[-\u2013]|to|\.\.+)\s*[\d.,]+|y(?:es)?/no?|.*\b(?:choose|select|please|optional|required)\b.*", re.I
)


@dataclass(frozen=True)
class Limits:
    """The limits of a feature's values; None is no limit."""

    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class Column:
    """A column of the header: its position, its name, and the key, title and unit that its name gives it.

    Attributes:
        argument: what an option of the command line calls it: its header, or its place where others have the same.
    """

    index: int
    header: str
    key: str
    title: str
    unit: str
    argument: str


def feature_of(header: str, limits: Mapping[str, Limits] | None = None) -> Feature:
    """Return the feature that a column's header names: `petal width (cm)` has key `petal_width` and unit `cm`."""
    key, title, unit = _parts_of(header)
    given = (limits or {}).get(key, Limits(None, None))
    return Feature(key=key, title=title, unit=unit, header=header.strip(), minimum=given.minimum, maximum=given.maximum)


def key_of(header: str) -> str:
    """Return the key that a column's header gives it, if no other column has it."""
    return _parts_of(header)[0]


def _parts_of(header: str) -> tuple[str, str, str]:
    match = _UNIT.match(header.strip())
    title, unit = match.groups() if match and not _NO_UNIT.fullmatch(match[2].strip()) else (header.strip(), "")
    title, unit = map(word_of, (title, unit))
    key = re.sub(r"\W+", "_", title.casefold()).strip("_")
    title = " ".join(title.replace("_", " ").split()) or title  # as people write names
    if not key:
        names = (unicodedata.name(sign, "") for sign in title[:_NAMED_SIGNS])
        key = re.sub(r"\W+", "_", " ".join(names).lower()).strip("_")
    return key, title, unit


def columns_of(header: Sequence[str], *, without: Set[int] = frozenset()) -> list[Column]:
    """Return the columns of a header, each with a key of its own; `without` those at some places.

    A column without a name is called `column_3` by its place. Of several that have the same key, as those that differ
    only in unit or case, the first one has it, and the others have a number behind it; their titles are told apart too.

    Raises:
        TableError: there are too many columns, or the name of one is too long.
    """
    if len(header) > MAX_COLUMNS:
        raise TableError(f"the header has {len(header)} columns, at most {MAX_COLUMNS} are read")
    names = [text.strip() or f"column_{number}" for number, text in enumerate(header, 1)]
    for name in names:
        if len(name) > MAX_TEXT:
            raise TableError(f"line 1, column {in_quotes(name)}: a name of more than {MAX_TEXT} characters")
    places = [place for place in range(len(names)) if place not in without]
    parts = [_parts_of(names[place]) for place in places]
    keys = numbered([key or f"column_{place + 1}" for place, (key, _, _) in zip(places, parts, strict=True)])
    counts = Counter(names)
    arguments = [name if counts[name] == 1 else f"column_{number}" for number, name in enumerate(names, 1)]
    return [
        Column(place, names[place], key, title, unit, arguments[place])
        for place, key, title, (_, _, unit) in zip(places, keys, _distinct(parts), parts, strict=True)
    ]


def _distinct(parts: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return titles of which no two are the same: with their unit, or else with a number as keys have it."""
    counts = Counter(title for _, title, _ in parts)
    return numbered([f"{title} ({unit})" if unit and counts[title] > 1 else title for _, title, unit in parts])


def numbered(names: Sequence[str]) -> list[str]:
    """Return names of which no two are the same: those that stood before get a number behind them."""
    taken, given = set(names), list[str]()
    seen: set[str] = set()
    for name in names:
        if name in seen:
            candidates = (f"{name}_{number}" for number in itertools.count(2))
            name = next(candidate for candidate in candidates if candidate not in taken)  # noqa: PLW2901
            taken.add(name)
        seen.add(name)
        given.append(name)
    return given


def find(wanted: str, columns: Sequence[Column]) -> Column:
    """Return the column that is called so: by its header, or else by its key, or else by its place, as `column_3`.

    Raises:
        TableError: there is none, or more than one.
    """
    name = wanted.strip()
    found = [column for column in columns if column.header == (name or f"column_{column.index + 1}")]
    found = found or [column for column in columns if key_of(name) in (column.key, key_of(column.header))]
    found = found or [column for column in columns if f"column_{column.index + 1}" == name]
    if len(found) == 1:
        return found[0]
    if found:
        places = " or ".join(f"column_{column.index + 1}" for column in found)
        alike = f"{len(found)} columns are called {in_quotes(wanted)}"
        raise TableError(f"{alike}: name one of them by its place, {places}")
    raise TableError(f"no column is called {in_quotes(wanted)}: {listed(column.header for column in columns)}")


def word_of(text: str) -> str:
    """Return text as words are compared, because people see no other difference: in normal form C, with single spaces.

    Text that is longer than any name keeps its form: combining marks are sorted in quadratic time.
    """
    return one_line(text if text.isascii() or len(text) > MAX_TEXT else unicodedata.normalize("NFC", text))


@lru_cache(maxsize=MAX_COLUMNS)
def places_of(choices: tuple[str, ...]) -> Mapping[str, float]:
    """Return the position of each choice in a row: by its text, and by its word where that is of no other choice."""
    counts = Counter(map(word_of, choices))
    by_word = {word_of(choice): float(place) for place, choice in enumerate(choices)}
    places = {word: place for word, place in by_word.items() if counts[word] == 1}
    return MappingProxyType(places | {choice: float(place) for place, choice in enumerate(choices)})


def listed(names: Iterable[str], *, quoted: bool = False) -> str:
    """Return names on one line, not too many of them; `quoted`, or where one has a comma, each within quotes."""
    found = apart([*itertools.islice(names, _SHOWN_NAMES + 1)], quoted=quoted)
    return ", ".join(found if len(found) <= _SHOWN_NAMES else [*found[:-1], "…"])


def apart(names: Sequence[str], *, quoted: bool = False) -> list[str]:
    """Return names on one line each, within quotes where commas between them would not keep them apart."""
    names = [*map(one_line, names)]
    return [*map(in_quotes, names)] if quoted or any("," in name for name in names) else names


def one_line(text: str) -> str:
    """Return text without line breaks and with single spaces."""
    return " ".join(text.split())
