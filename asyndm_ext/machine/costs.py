"""What a device's time goes into: a CPU works things out, a fast GPU waits to be told what to work out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WORKS = {"cpu"}


def works_slowly(device: torch.device) -> bool:
    """Whether a little arithmetic less is worth one more operator."""
    return device.type in _WORKS


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """For measuring on a CPU what a GPU would be told: the same operators in the same order."""
    there = set(_WORKS)
    _WORKS.clear()
    try:
        yield
    finally:
        _WORKS.update(there)
