"""How many threads a picture of the embedded model is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SMALL = 256 * 256  # pixels


@contextmanager
def threads_for(pixels: int) -> Iterator[None]:
    """Small pictures on a single thread.

    Their operations last microseconds, so more threads win little; and beside another busy program the threads wait
    for each other, which has been seen to take fifty times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if pixels <= _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
