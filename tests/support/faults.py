"""Makes one call of a generation fail.

A generation is a chain of calls: the network, what our hooks compute inside it, the region, the clock, the solver's
step, callbacks, the autoencoder. A :class:`Place` is one of them; a :class:`Fault` is a way to fail. :class:`Plan`
stands in for a place while a generation runs, counts the solver's steps, and strikes once, in the step that it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor


class Skipped(BaseException):
    """As the WebUIs leave a sampler when Interrupt or Skip is pressed: past every ``except Exception``."""


@dataclass(frozen=True)
class Fault:
    """A way to fail: an exception, or (``error`` None) an answer that is not a number."""

    name: str
    error: Callable[[], BaseException] | None = None


NAN = Fault("nan")
ERRORS = (
    Fault("exception", lambda: ValueError("fault")),
    Fault("interrupt", KeyboardInterrupt),
    Fault("skip", Skipped),
    Fault(
        "out of memory (accelerator)",
        lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ),
    Fault("out of memory (CPU)", lambda: RuntimeError("DefaultCPUAllocator: not enough memory: out of memory")),
)


@dataclass(frozen=True)
class Place:
    """A function that a generation calls: where it is kept, and its name there."""

    name: str
    owner: Any
    attribute: str
    answers: bool = True
    """Whether it answers with tensors, which can be NaN."""


class Plan:
    """Calls of a place, told by the solver's step in which they come.

    Args:
        place: what to stand in for.
        steps: the function whose return ends a step of the solver, as (owner, name).
        fault, at: how to fail, and in which step, from 0; None: only count.
    """

    def __init__(self, place: Place, steps: tuple[Any, str], fault: Fault | None = None, at: int | None = None) -> None:
        self._place, self._steps, self._fault, self._at = place, steps, fault, at
        self._step = 0
        self.reached: list[int] = []
        """The steps in which the place was called."""
        self.fired = False
        self.skip = 0
        """So many calls of that step go well before."""

    @contextmanager
    def active(self) -> Iterator[Plan]:
        place, (owner, name) = self._place, self._steps
        with (
            mock.patch.object(owner, name, self._counting(getattr(owner, name))),
            mock.patch.object(place.owner, place.attribute, self._failing(getattr(place.owner, place.attribute))),
        ):
            yield self

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **keywords: Any) -> Any:
            answer = function(*args, **keywords)
            self._step += 1
            return answer

        return step

    def _failing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if self._step not in self.reached:
                self.reached.append(self._step)
            if self._fault is None or self.fired or self._step != self._at:
                return function(*args, **keywords)
            if self.skip:
                self.skip -= 1
                return function(*args, **keywords)
            self.fired = True
            if self._fault.error is None:
                return not_numbers(function(*args, **keywords))
            raise self._fault.error()

        return call


def not_numbers(answer: Any) -> Any:
    """The answer with NaN in the place of every number: of a tensor, of tuples, of what has a ``sample``."""
    if isinstance(answer, Tensor):
        return torch.full_like(answer, float("nan")) if answer.is_floating_point() else answer
    if isinstance(answer, tuple):
        return tuple(map(not_numbers, answer))
    answer.sample = not_numbers(answer.sample)
    return answer
