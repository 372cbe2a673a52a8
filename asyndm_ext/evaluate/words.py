"""Numbers of the report as people read them."""

from __future__ import annotations

from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.statistics import Difference


def counted(number: int, noun: str) -> str:
    """``1 pair``, ``2 pairs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def value(number: float, column: Column) -> str:
    return f"{100 * number:.1f} %" if column.share else f"{number:.{column.digits}f}"


def signed(number: float, column: Column) -> str:
    """A difference; one that rounds to nothing has no sign."""
    text = f"{100 * number:+.1f}" if column.share else f"{number:+.{column.digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def is_same(d: Difference) -> bool:
    """Whether no pair has changed its score."""
    return d.pairs > 0 and d.better == d.worse == 0


def interval(d: Difference, column: Column) -> str:
    """Of a difference, in words where numbers would say nothing."""
    if is_same(d):
        return "the same in the only pair" if d.pairs == 1 else f"the same in all {d.pairs} pairs"
    if not d.known:
        return "too few for more than the means"
    low, high = signed(d.low, column), signed(d.high, column)
    if float(low) == float(high) == 0:
        return f"less than {0.05 if column.share else 0.5 * 10**-column.digits:g} either way"
    return f"{low} to {high}"


def difference(d: Difference, column: Column) -> str:
    """A difference with its interval: ``+2.1 (-0.3 to +4.5)``."""
    return interval(d, column) if is_same(d) else f"{signed(d.difference, column)} ({interval(d, column)})"


def better(d: Difference, column: Column) -> int:
    """How many pairs the method made better."""
    return d.better if column.rises else d.worse


def worse(d: Difference, column: Column) -> int:
    return d.worse if column.rises else d.better


def changes(d: Difference, column: Column) -> str:
    """``3 pairs better and 1 worse``."""
    return f"{counted(better(d, column), 'pair')} better and {worse(d, column)} worse"


def verdict(d: Difference, column: Column, than: str = "plain") -> str:
    """What interval and test say together; nothing where there are too few pairs."""
    if is_same(d) or not d.known:
        return ""
    if d.low <= 0 <= d.high:
        return "The interval contains 0: no difference can be told from chance."
    if not d.clear:
        return (
            f"The interval leaves out 0, but as many pairs changed the other way as chance would have it (p {d.p:.2g}):"
            " no difference can be told."
        )
    return f"Better than {than}." if (d.low > 0) == column.rises else f"Worse than {than}."
