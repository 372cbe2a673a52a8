"""Which latent pixels a cell of a smaller feature map stands for; any sizes, no square roots."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
    rows = cell_index(size[0], cells.shape[-2]).to(cells.device)
    columns = cell_index(size[1], cells.shape[-1]).to(cells.device)
    return cells[..., rows, :][..., columns]


def halved_grid(height: int, width: int, halvings: int) -> tuple[int, int]:
    """Size of the feature map after so many strided convolutions, each rounding up."""
    return -(-height // 2**halvings), -(-width // 2**halvings)


def distinct(x: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct numbers of a map of any shape, rising, and which of them each is, int64 in the map's shape.

    As :func:`torch.unique`, which sorts all of them; neighbours mostly are the same, so few are sorted here.
    """
    runs, run = torch.unique_consecutive(x.flatten(), return_inverse=True)
    values, value = torch.unique(runs, return_inverse=True)
    return values, value[run].view(x.shape)
