"""How long a run will take: known in model calls beforehand, and in time by the pace of its first pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from asyndm_ext.evaluate.controls import steps_for
from asyndm_ext.evaluate.methods import Method
from asyndm_ext.evaluate.plan import Key, Plan

_PICTURES, _SECONDS = 4, 20.0
"""The pace is told after so many pictures, at the earliest after the second one; or after so long a time."""


def calls(method: Method) -> int:
    """Model calls of a picture, each as dear as one of plain guidance."""
    # A fixed mask comes from a plain pass before the real one.
    return steps_for(method) * (2 if method.kind == "fixed" else 1)


class Estimate:
    """Of what is still to be drawn.

    Args:
        plan: of the run. done: what is there already.
        clock: seconds.
    """

    def __init__(self, plan: Plan, done: Iterable[Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = {method.id: calls(method) for method in plan.methods}
        done = set(done)
        left = [method.id for pair in plan.pairs for method in plan.methods if pair.key(method) not in done]
        self._pictures, self._left = len(left), sum(self._calls[method] for method in left)
        self._made, self._spent, self._told = 0, 0, False
        self._clock, self._began = clock, clock()

    def before(self) -> str:
        """What can be said before the first picture."""
        pictures = "1 picture is" if self._pictures == 1 else f"{self._pictures:,} pictures are"
        return (
            f"{pictures} still to be drawn, {self._left:,} model calls in all. How long that takes is said after the"
            " first pictures; you can stop at any time and go on later with the same command."
        )

    def after(self, methods: Iterable[str]) -> str:
        """These pictures have come, by their methods' ids; what to say now, mostly nothing."""
        for method in methods:
            self._made += 1
            self._spent += self._calls.get(method, 0)
        seconds = self._clock() - self._began
        if self._told or not self._spent or self._made < 2 or not (self._made >= _PICTURES or seconds >= _SECONDS):
            return ""
        self._told = True
        left = seconds * (self._left - self._spent) / self._spent
        return f"at the pace of the first {self._made} pictures the others take {duration(left)}." if left > 0 else ""


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 90:
        return "about a minute" if seconds > 30 else "less than a minute"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} minutes"
    hours = minutes / 60
    return f"about {hours:.1f} hours" if hours < 48 else f"about {hours / 24:.1f} days"
