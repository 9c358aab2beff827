"""Values of options, read and checked: a wrong one is an `argparse.ArgumentTypeError`; and options of two programs."""

from __future__ import annotations

import argparse
import math
import re

from ml.tables.headers import Limits
from ml.tables.marks import THOUSANDS
from ml.tables.numbers import LARGEST, NotANumber, number_of

LONGEST_SEED = 10


def names(text: str) -> tuple[str, ...]:
    """Return names between commas."""
    return tuple(name.strip() for name in text.split(","))


def count(text: str) -> int:
    """Return a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def seed(text: str) -> int:
    """Return a seed of random numbers."""
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_SEED or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def version(text: str) -> str:
    """Return the start of a version."""
    if not re.fullmatch("[0-9a-f]{1,12}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the start of a version")
    return text


def share(text: str) -> float:
    """Return a share between 0 and 1."""
    try:
        share = number_of(text)
    except NotANumber:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return share


def threshold(text: str) -> tuple[str | None, float]:
    """Return a probability, and the class that it belongs to if one is named."""
    label, equals, share = text.rpartition("=")
    try:
        threshold = number_of(share)
    except NotANumber:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability from 0 to 1, or CLASS= and one")
    return label if equals else None, threshold


def limits(text: str) -> tuple[str, Limits]:
    """Return the key of a feature, and its limits."""
    key, equals, span = text.partition("=")
    minimum, colon, maximum = span.partition(":")
    try:
        low, high = (number_of(end) if end.strip() else None for end in (minimum, maximum))
    except NotANumber:
        equals = ""
    if not (key and equals and colon) or (low is not None and high is not None and low > high):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=MIN:MAX with either end left out or MIN below MAX")
    if any(end is not None and not -LARGEST <= end <= LARGEST for end in (low, high)):
        raise argparse.ArgumentTypeError(f"{text!r} has an end that is too large for a 32-bit float")
    return key, Limits(low, high)


def add_marks(parser: argparse.ArgumentParser) -> None:
    """Add the options for the marks of a table's numbers."""
    parser.add_argument(
        "--decimal", choices=(".", ","), metavar="MARK",
        help="decimal mark of all numbers, a point or a comma; default: that of each column",
    )  # fmt: skip
    parser.add_argument(
        "--thousands", choices=THOUSANDS, metavar="MARK",
        help="mark between thousands in all numbers; default: each column's own",
    )  # fmt: skip
