"""Which object is drawn first: an order of the objects, and until when each of them lags.

Of the objects' n turns the k-th lags until part ``k / (n + 1)`` of the steps in which anything may lag at all. From
then on it goes straight to the end, and the next ones see it become clear. This rule was chosen in the exact world
(docs/EVALUATE.md, "Objects in turn"); ``tests/order_rules.py`` has the ones that it was held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TOGETHER, IN_TURN, LAST_FIRST = ORDERS = ("together", "in turn", "in turn, last first")


def circle(after: Sequence[Sequence[int]]) -> list[int]:
    """Objects that come after each other in a circle, the first one again at the end; empty: there is none.

    Args:
        after: per object the numbers of those that it comes after.
    """
    done: set[int] = set()
    for start in range(len(after)):
        path: list[int] = [start] if start not in done else []
        waiting = [iter(after[start])]
        while path:
            following = next(waiting[-1], None)
            if following is None:
                done.add(path.pop())
                waiting.pop()
            elif following in path:
                return [*path[path.index(following) :], following][::-1]
            elif following not in done:
                path.append(following)
                waiting.append(iter(after[following]))
    return []


def turns(places: Sequence[Any], order: str, after: Sequence[Sequence[int]] = ()) -> list[int | None]:
    """Each object's turn, counted from 0; None: it has none, as all where they are drawn together.

    Args:
        places: where each object stands in the prompt: whatever can be sorted.
        order: one of :data:`ORDERS`.
        after: per object the numbers of those that it comes after, without circles. Where any comes after another this
            is the order, and an object that is in no relation to others has no turn; "last first" turns it round.
    """
    edges = [(earlier, later) for later, those in enumerate(after) for earlier in those]
    if edges:
        if order == LAST_FIRST:
            edges = [(later, earlier) for earlier, later in edges]
        return _depths(len(after), edges)
    if order == TOGETHER:
        return [None] * len(places)
    steps = sorted(set(places), reverse=order == LAST_FIRST)
    return [steps.index(place) for place in places]


def until(turns: Sequence[int | None], start: float = 0.0, end: float = 1.0) -> list[float]:
    """Until which progress each object lags, fractions. One without a turn does to the end, and so does a lone one.

    Args:
        turns: as :func:`turns` tells them.
        start, end: between which parts of the steps anything may lag, fractions.
    """
    number = 1 + max((turn for turn in turns if turn is not None), default=0)
    if number == 1:
        return [1.0] * len(turns)
    return [1.0 if turn is None else start + (end - start) * (turn + 1) / (number + 1) for turn in turns]


def _depths(number: int, edges: Sequence[tuple[int, int]]) -> list[int | None]:
    """How many others come before each one at most, on the longest way there; None for those in no pair."""
    depth: list[int | None] = [None] * number
    for pair in edges:
        for one in pair:
            depth[one] = 0
    for _ in range(number):
        for earlier, later in edges:
            depth[later] = max(depth[later] or 0, (depth[earlier] or 0) + 1)
    return depth
