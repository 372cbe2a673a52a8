"""Which latent pixels a cell of a smaller feature map stands for; any sizes, no square roots."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asyndm_ext.clock.distinct import PIXEL, Block, repeated


def downsampling(size: int, small: int) -> int:
    """The power of two by which a network took ``size`` to ``small`` rows, whatever the remainders."""
    factor = 1
    while -(-size // factor) > small:
        factor *= 2
    if -(-size // factor) == small:
        return factor  # strided convolutions round up
    return 2 ** max(round(math.log2(size / small)), 0)


def cell_index(size: int, small: int) -> Tensor:
    """For each of ``size`` rows the index of the small grid's row that covers it, ``(size,)`` int64.

    Strided convolutions put row ``i`` into cell ``i // factor``, also when ``size`` is not divisible;
    nearest interpolation over the quotient of the sizes drifts by a cell there.
    """
    return (torch.arange(size) // downsampling(size, small)).clamp(max=small - 1)


def enlarge(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest enlargement of ``(...,h,w)`` to ``(...,H,W)``; any sizes."""
    return repeated(*enlarged(cells, size))


def enlarged(cells: Tensor, size: tuple[int, int]) -> tuple[Tensor, Block]:
    """The same in two: cells, and the pixels that each of them has. They are pixels where these are not all alike."""
    h, w = cells.shape[-2:]
    down, across = downsampling(size[0], h), downsampling(size[1], w)
    if size == (h * down, w * across):
        return cells, (down, across)
    rows = cell_index(size[0], cells.shape[-2]).to(cells.device)
    columns = cell_index(size[1], cells.shape[-1]).to(cells.device)
    return cells[..., rows, :][..., columns], PIXEL


def halved_grid(height: int, width: int, halvings: int) -> tuple[int, int]:
    """Size of the feature map after so many strided convolutions, each rounding up."""
    return -(-height // 2**halvings), -(-width // 2**halvings)
