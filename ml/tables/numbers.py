"""Numbers as people type them: text or a JSON value becomes a float, and a float becomes text."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

NotANumberCode = Literal["missing", "not_a_number", "not_finite"]

# The forest compares in float32: what rounds to infinity there is not a finite number for it, and scikit-learn refuses
# it too. The middle between the largest float32 and 2**128 rounds up; this is the largest float64 below that middle.
LARGEST = math.nextafter(2.0**128 - 2.0**103, 0.0)
MAX_NUMBER_CHARACTERS = 64

# What a person types: one mark, "." or ",", ASCII digits, an exponent if need be. float() alone would take "nan",
# "1_0" and Arabic digits as well. What digits have matched they keep (++, *+): no other way to match them is tried.
_NUMBER = re.compile(r"[+-]?(?:[0-9]++[.,]?[0-9]*+|[.,][0-9]++)(?:[eE][+-]?[0-9]++)?")
_HALF_TYPED = re.compile(r"[+-]?[.,]?|[+-]?(?:[0-9]++[.,]?[0-9]*+|[.,][0-9]++)[eE][+-]?")
_MINUS_SIGN = "\u2212"
_json_numbers = msgspec.json.Decoder(list[float])


class NotANumber(ValueError):
    """A value is not a number. `code` says why: `missing`, `not_a_number` or `not_finite`."""

    def __init__(self, code: NotANumberCode) -> None:
        super().__init__(code)
        self.code: NotANumberCode = code


def number_of(value: object) -> float:
    """Return the number in a JSON value or in text as a person types it; it may be infinite.

    Raises:
        NotANumber: it is empty or None (`missing`), or something else than a number (`not_a_number`).
    """
    kind = type(value)
    if kind is float:
        return value  # type: ignore[return-value]  # `kind` says so
    if kind is int:
        try:
            return float(value)  # type: ignore[arg-type]  # `kind` says so
        except OverflowError:
            return math.inf
    if kind is not str:
        raise NotANumber("missing" if value is None else "not_a_number")
    text: str = value.strip()  # type: ignore[attr-defined]  # `kind` says so
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise NotANumber("not_a_number")
    # `is_digits`, said again: its call would take a tenth of what reading a keystroke takes.
    if text.isascii() and text.replace(".", "", 1).isdecimal():
        return float(text)
    if not text:
        raise NotANumber("missing")
    text = text.replace(_MINUS_SIGN, "-")
    if not _NUMBER.fullmatch(text):
        raise NotANumber("not_a_number")
    return float(text.replace(",", "."))


def is_digits(text: str) -> bool:
    """Tell whether text is a number of digits and a point: by far the most frequent kind, known without the pattern."""
    return text.isascii() and text.replace(".", "", 1).isdecimal() and len(text) <= MAX_NUMBER_CHARACTERS


def without_marks(text: str, *, unit: str, decimal: str, thousands: str) -> str:
    """Return text without the unit before or behind a number, and without the thousands marks that divide it in threes.

    Raises:
        NotANumber: the mark divides something else: 5.07 where 5.079 is five thousand.
    """
    text = text.strip()
    if unit:
        text = text.removesuffix(unit).removeprefix(unit).strip()
    if thousands and thousands in text:
        whole, mark, fraction = text.partition(decimal)
        first, *threes = whole.lstrip("+-\u2212").split(thousands)
        if not (1 <= len(first) <= 3 and all(len(three) == 3 for three in threes)):
            raise NotANumber("not_a_number")
        return whole.replace(thousands, "") + mark + fraction
    return text


def marks_said(text: str, *, decimal: str, thousands: str) -> str:
    """Return the end of a sentence about text that is no number: what its marks mean, where one divides thousands."""
    is_about_marks = thousands and (thousands in text or decimal in text)
    return f"; here {thousands!r} divides thousands and {decimal!r} is the decimal mark" if is_about_marks else ""


def is_number(text: str) -> bool:
    """Tell whether text is a number as a person types it, be it infinite."""
    try:
        number_of(text)
    except NotANumber:
        return False
    return True


def is_half_typed(text: object) -> bool:
    """Tell whether text is the beginning of a number, such as "", "-", "." or "1e", rather than a mistake."""
    if not isinstance(text, str) or len(text.strip()) > MAX_NUMBER_CHARACTERS:
        return False
    return _HALF_TYPED.fullmatch(text.strip().replace(_MINUS_SIGN, "-")) is not None


def shown_number(value: float) -> str:
    """Return a number as a person writes it: 5 rather than 5.0, never more digits than needed."""
    return f"{value:.0f}" if abs(value) < 1e15 and value == int(value) else repr(value)


def plain_numbers(cells: Sequence[str], gaps: Collection[str] = ()) -> NDArray[np.float64] | None:
    """Return the numbers in cells, shape (n,), and NaN for one of `gaps`; None if another is not plainly a number.

    float() reads a plain number as `number_of` does, several times as fast; what it reads beyond that is sorted out:
    digits of other scripts, underscores, overlong text, infinities and NaN.
    """
    if max(map(len, cells), default=0) > MAX_NUMBER_CHARACTERS:
        return None
    if not gaps and (numbers := json_numbers(cells)) is not None:
        return numbers
    text = "".join(cells)
    if "_" in text or not text.isascii():
        return None
    texts = (math.nan if cell in gaps else float(cell) for cell in cells) if gaps else map(float, cells)
    try:
        numbers = np.fromiter(texts, dtype=np.float64, count=len(cells))
    except ValueError:
        return None
    n_gaps = sum(cell in gaps for cell in cells) if gaps else 0
    return numbers if np.isfinite(numbers).sum() == len(cells) - n_gaps else None


def plain_columns(columns: Sequence[Sequence[str]]) -> NDArray[np.float64] | None:
    """Return the numbers in columns of cells, shape (rows, columns), as `plain_numbers` does."""
    numbers = plain_numbers([*itertools.chain.from_iterable(columns)])
    return None if numbers is None else numbers.reshape(len(columns), -1).T


def numbers_in_lines(lines: Sequence[str], separator: str, width: int) -> NDArray[np.float64] | None:
    """Return the numbers in lines that have so many cells each, of shape (lines, width), as `plain_numbers` does.

    Where all are written as JSON has them nothing has to be split, which takes longer than all else; else None.
    """
    text = ",".join(lines)
    if separator != ",":
        if text.count(",") >= len(lines):
            return None
        text = text.replace(separator, ",")
    if any(line.count(separator) != width - 1 for line in lines):
        return None
    try:
        content = text.join("[]").encode()
    except UnicodeError:
        return None
    commas = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord(","))
    if np.diff(commas, prepend=0, append=len(content) - 1).max() - 1 > MAX_NUMBER_CHARACTERS:
        return None
    numbers = _in_json(content, len(lines) * width)
    return None if numbers is None else numbers.reshape(len(lines), width)


def json_numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the numbers in cells that are all written as JSON has them, as most are; else None.

    The bits are those of float(), in a quarter of its time.
    """
    return _in_json(",".join(cells).join("[]"), len(cells))


def _in_json(content: str | bytes, count: int) -> NDArray[np.float64] | None:
    """Return the numbers in an array of so many; None if it is another one, as where a cell has a comma."""
    try:
        numbers = _json_numbers.decode(content)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return np.array(numbers) if len(numbers) == count else None
