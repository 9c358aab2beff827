"""What a benchmark says: a number, what it was measured against, and the bars that it must reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Number = TypeVar("Number")


@dataclass(frozen=True)
class Bar:
    """A limit that a measured number must keep: the least one, or with `highest` the greatest one."""

    measured: float
    limit: float
    unit: str = ""
    highest: bool = False

    @property
    def reached(self) -> bool:
        return self.measured <= self.limit if self.highest else self.measured >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.highest else '≥'} {self.limit:,g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of neighboring rounds, with the lowest and the highest of them.

    Neighbors share what disturbs a machine for a second; the medians of two whole series do not.
    """

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, numbers: Sequence[float], references: Sequence[float]) -> Ratio:
        ratios = [number / reference for number, reference in zip(numbers, references, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return " ".join((_short(self.median), f"({_short(self.lowest)} to {_short(self.highest)})"))


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        what: what was measured.
        number: the median of its rounds, in `unit`.
        ratio: to what was measured against, which `reference` names together with its own number.
        context: what else a reader needs in order to trust the numbers.
    """

    what: str
    number: float
    unit: str
    ratio: Ratio
    reference: str
    bars: tuple[Bar, ...] = ()
    context: str = ""

    @property
    def reached(self) -> bool:
        return all(bar.reached for bar in self.bars)


def interleave(measures: Sequence[Callable[[], Number]], *, rounds: int) -> list[list[Number]]:
    """Measure A B C, A B C, ...; return for each of A, B and C its numbers, one a round."""
    numbers: list[list[Number]] = [[] for _ in measures]
    for _ in range(rounds):
        for measure, series in zip(measures, numbers, strict=True):
            series.append(measure())
    return numbers


def table(results: Sequence[Result]) -> str:
    """Return the results as aligned text."""
    rows = [("what", "measured", "ratio (rounds)", "to", "bar", "reached", "context")]
    rows += [
        (
            result.what,
            f"{_short(result.number)} {result.unit}",
            str(result.ratio),
            result.reference,
            ", ".join(map(str, result.bars)) or "none",
            ("yes" if result.reached else "NO") if result.bars else "",
            result.context,
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
