"""A step of a training on a GPU, told to the card once.

The networks here are so small that a card is done with a kernel before the next one has been asked for: a step of 256
pictures takes 100 ms of asking and 23 of work on an H200. What a step asks for is always the same, so it is recorded
(a CUDA graph) and played again with other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Work = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


class Recorded:
    """``work``, whose kernels are recorded once it has run a few times, and played from then on.

    Args:
        work: of named tensors on a GPU, always of the same shapes, to some tensors there. Nothing in it may wait for
            the GPU, copy to it, or draw random numbers, and what Python does in it happens at the first calls alone.
    """

    BEFORE = 3
    """Calls that are not recorded: libraries make plans and memory at the first ones."""

    def __init__(self, work: Work) -> None:
        self._work, self._calls = work, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._held: dict[str, Tensor] = {}
        self._made: tuple[Tensor, ...] = ()

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the work makes of these; the numbers are the caller's to keep."""
        self._calls += 1
        if self._calls <= self.BEFORE:
            # On a stream of its own, as it is recorded: gradients remember the stream that they came from.
            here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
            beside.wait_stream(here)
            with torch.cuda.stream(beside):
                made = self._work(inputs)
            here.wait_stream(beside)
            return made
        if self._graph is None:
            self._held = {name: value.clone() for name, value in inputs.items()}
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._made = self._work(self._held)
        else:
            for name, value in inputs.items():
                self._held[name].copy_(value)
        self._graph.replay()
        return tuple(value.clone() for value in self._made)
