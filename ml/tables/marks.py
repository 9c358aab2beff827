"""Written numbers: their decimal mark, their thousands mark, and the unit before or behind them. One text at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from ml.errors import TableError
from ml.tables.numbers import MAX_NUMBER_CHARACTERS

Decimal = Literal[".", ","]

CURRENCIES = "$€£¥₹₽₩₺₴₦₱฿₫₪¢"
# What a sign may stand for (ISO 4217).
_CURRENCY_CODES = {
    "$": ("USD", "AUD", "CAD", "CLP", "COP", "HKD", "MXN", "NZD", "SGD", "TWD"), "€": ("EUR",), "£": ("GBP", "EGP"),
    "¥": ("JPY", "CNY"), "₹": ("INR",), "₽": ("RUB",), "₩": ("KRW",), "₺": ("TRY",), "₴": ("UAH",), "₦": ("NGN",),
    "₱": ("PHP",), "฿": ("THB",), "₫": ("VND",), "₪": ("ILS",),
}  # fmt: skip
# The marks that numbers are divided by in threes; a space stands for every kind of it, and ' for both apostrophes.
THOUSANDS = (",", ".", "'", " ")
_ONE_FORM = {0x2212: "-", 0x2019: "'", 0xA0: " ", 0x202F: " ", 0x2009: " ", 0x2007: " "}
_UNIT = rf"(?:[^\W\d_]|[%‰°\"″′{CURRENCIES}])(?:[^\W\d_]|[%‰°/·.^ -])*+(?:(?<=[^\W\d_])[23])?"
_WRITTEN = re.compile(
    rf"([+-]?)([A-Z]{{0,3}}[{CURRENCIES}])? ?([+-]?)"
    r"([0-9]++(?:[.,' ][0-9]++)*+[.,]?|[.,][0-9]++)([eE][+-]?[0-9]++)?"
    rf" ?({_UNIT})?"
)
_GROUPS = re.compile(r"[1-9][0-9]{0,2}([.,' ])[0-9]{3}(?:\1[0-9]{3})*")


class Written(NamedTuple):
    """A text that is a number, whatever its marks mean.

    Attributes:
        digits: what is read: sign, digits, marks and exponent.
        unit: before or behind it; mostly there is none.
        decimal, thousands: the marks that can mean nothing else in this text.
        open: the mark that can be either, as in 1,781 and 1.227.
    """

    digits: str
    unit: str
    decimal: str
    thousands: str
    open: str


class Marks(msgspec.Struct, frozen=True):
    """What the marks in a column's numbers mean; thousands need not be marked."""

    decimal: Decimal = "."
    thousands: str = ""


def marks_named(decimal: str | None, thousands: str | None) -> Marks | None:
    """Return the marks that somebody names, None for none; one alone settles the other.

    Raises:
        TableError: there are no such marks.
    """
    if not decimal and not thousands:
        return None
    if decimal not in (None, "", ".", ",") or thousands not in (None, "", *THOUSANDS) or decimal == thousands:
        raise TableError("the decimal mark is . or , and the thousands mark another one of , . ' and space")
    marks: tuple[Decimal, ...] = (".", ",")
    return Marks(marks[decimal == "," or (not decimal and thousands == ".")], thousands or "")


def written(text: str) -> Written | None:
    """Return the number that a text may be; None if it is none, whatever its marks mean."""
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    found = _WRITTEN.fullmatch(text.translate(_ONE_FORM).strip())
    if found is None:
        return None
    sign, before, second_sign, digits, exponent, after = found.groups(default="")
    if (sign and second_sign) or (before and after):
        return None
    roles = _roles(digits, has_exponent=bool(exponent))
    if roles is None:
        return None
    return Written(sign + second_sign + digits + exponent, before or after, *roles)


def _roles(digits: str, *, has_exponent: bool) -> tuple[str, str, str] | None:
    """Return the decimal mark, the thousands mark and the open one; None if the marks fit no number."""
    marks = [mark for mark in digits if not mark.isdigit()]
    if not marks:
        return "", "", ""
    first, last = marks[0], marks[-1]
    if first != last:
        whole, _, rest = digits.rpartition(last)
        is_number = last in ".," and _GROUPS.fullmatch(whole) and (not rest or rest.isdigit())
        return (last, first, "") if is_number else None
    if _GROUPS.fullmatch(digits) and not has_exponent:
        return ("", "", first) if len(marks) == 1 and first in ".," else ("", first, "")
    return (first, "", "") if len(marks) == 1 and first in ".," else None


def number_in(found: Written, marks: Marks) -> float | None:
    """Return a written number read by these marks; None if it contradicts them. It may be infinite."""
    decimal, thousands = found.decimal, found.thousands
    if found.open:
        decimal, thousands = (found.open, "") if found.open == marks.decimal else ("", found.open)
    if decimal not in ("", marks.decimal) or thousands not in ("", marks.thousands):
        return None
    digits = found.digits.replace(thousands, "") if thousands else found.digits
    return float(digits.replace(",", "."))


def both_readings(found: Written) -> tuple[float, float]:
    """Return the value of an open number if its mark is decimal, and if it divides thousands."""
    return float(found.digits.replace(",", ".")), float(found.digits.replace(found.open, ""))


@dataclass(frozen=True)
class Evidence:
    """The marks that the numbers of a column use, each with the first text that has it; see `Written`."""

    decimals: Mapping[str, str]
    thousands: Mapping[str, str]
    open: Mapping[str, str]

    @property
    def contradiction(self) -> tuple[str, str] | None:
        """Two texts that no marks can both be read by, if there are such."""
        for texts in (self.decimals, self.thousands):
            if len(texts) > 1:
                first, second, *_ = texts.values()
                return first, second
        for mark in self.decimals.keys() & self.thousands.keys():
            return self.decimals[mark], self.thousands[mark]
        return None


def evidence_of(texts: Iterable[tuple[str, Written]]) -> Evidence:
    """Return the marks of a column's numbers, which come with their texts."""
    evidence: tuple[dict[str, str], dict[str, str], dict[str, str]] = ({}, {}, {})
    for text, found in texts:
        for mark, known in zip((found.decimal, found.thousands, found.open), evidence, strict=True):
            if mark:
                known.setdefault(mark, text)
    return Evidence(*evidence)


class TableMarks:
    """What the marks mean in the columns of one table: each settles its own, and the others settle what it leaves open.

    Args:
        columns: the marks of every column of numbers.
        decimal, thousands: what somebody has said that they are in all columns.
    """

    def __init__(self, columns: Iterable[Evidence], *, decimal: Decimal | None, thousands: str | None) -> None:
        known = list(columns)
        self._said = (decimal, thousands)
        self._decimals = {decimal} if decimal else {mark for column in known for mark in column.decimals}
        self._thousands = {thousands} if thousands else {mark for column in known for mark in column.thousands}
        if decimal:
            self._thousands -= {decimal}
        elif thousands:
            self._decimals -= {thousands}

    def of(self, column: Evidence) -> Marks | None:
        """Return the marks of a column that does not contradict itself; None if one stays open."""
        decimals, thousands = set(column.decimals), set(column.thousands)
        for mark in column.open:
            role = _role_of(mark, decimals, thousands) or _role_of(mark, self._decimals, self._thousands)
            if not role:
                return None
            (decimals if role == "decimal" else thousands).add(mark)
        own = next(iter(decimals), None) or (next(iter(self._decimals)) if len(self._decimals) == 1 else None)
        if own is None or own in thousands:
            own = "," if "." in thousands else "."
        return Marks("," if own == "," else ".", next(iter(thousands), ""))

    def contradicted_by(self, column: Evidence) -> str | None:
        """Return a text of a column that contradicts what somebody has said, if there is one."""
        decimal, thousands = self._said
        for mark, text in column.decimals.items():
            if mark == thousands or (decimal and mark != decimal):
                return text
        for mark, text in column.thousands.items():
            if mark == decimal or (thousands and mark != thousands):
                return text
        return None


def _role_of(mark: str, decimals: Set[str], thousands: Set[str]) -> str:
    """Return whether an open mark is decimal or for thousands, where one of the marks is known; else nothing."""
    other = "," if mark == "." else "."
    is_decimal = mark in decimals or other in thousands
    is_thousands = mark in thousands or other in decimals
    if is_decimal == is_thousands:
        return ""
    return "decimal" if is_decimal else "thousands"


def same_unit(one: str, other: str) -> bool:
    """Tell whether two texts name one unit: month and months do, and € and EUR; mm and m do not."""
    if other in _CURRENCY_CODES.get(one, ()) or one in _CURRENCY_CODES.get(other, ()):
        return True
    return one == other or (min(len(one), len(other)) > 2 and one.removesuffix("s") == other.removesuffix("s"))
