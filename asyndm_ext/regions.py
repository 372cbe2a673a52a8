"""Which pixels lag behind: strength maps from attention (paper, Eq. 7) or given from outside.

A strength map ``(B,1,H,W)`` holds how slow each pixel is, a fraction in [0, 1]. Nothing downstream knows
whether it came from attention, from a painted mask or from a single number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


def threshold_maps(maps: Tensor, threshold: float) -> Tensor:
    """Eq. 7, the bracket: where a token's attention is at least ``threshold`` times its mean over the picture.

    Args:
        maps: attention per object ``(B,n,h,w)``, averaged over heads and layers.
        threshold: multiple of the spatial mean, > 0.

    Returns:
        bool ``(B,n,h,w)``; all False for an object without any attention (its word is not in the text now).
    """
    mean = maps.mean(dim=(-2, -1), keepdim=True)
    return (maps >= threshold * mean) & (mean > 0)


def resolve_overlaps(masks: Tensor, strengths: Tensor) -> Tensor:
    """Keep, where objects overlap, the one with the larger strength (first in the list on a tie).

    Args:
        masks: bool ``(B,n,h,w)``. strengths: ``(n,)``.

    Returns:
        bool ``(B,n,h,w)``, at most one True per cell.
    """
    # An absent object weighs less than a present one of strength 0.
    weight = torch.where(masks, strengths.to(masks.device).view(1, -1, 1, 1), -1.0)
    # argmax of a tensor does not promise the first maximum on every device; a stable sort does.
    winner = weight.sort(dim=1, descending=True, stable=True).indices[:, :1]
    return masks & (torch.arange(masks.shape[1], device=masks.device).view(1, -1, 1, 1) == winner)


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


class Region(Protocol):
    """What a run asks about the slow pixels."""

    def observe(self, maps: Tensor | None) -> None:
        """Take the attention of the model call just made, ``(B,n,h,w)``, or None if there was none."""

    def strength(self) -> Tensor:
        """The strength map for the next transition, ``(B,1,H,W)`` float64 on the CPU."""


class FixedRegion:
    """A strength map that stays: everything (the paper's DM_concave) or a given mask."""

    def __init__(self, strength: Tensor) -> None:
        self._strength = strength.double().cpu()

    @classmethod
    def everything(cls, shape: tuple[int, int, int, int], strength: float) -> FixedRegion:
        return cls(torch.full(shape, float(strength), dtype=torch.float64))

    def observe(self, maps: Tensor | None) -> None:
        pass

    def strength(self) -> Tensor:
        return self._strength


class ObjectRegion:
    """The pixels of the prompt's objects, found anew from the attention of every step (Eq. 7).

    Args:
        shape: of the strength map, ``(B,1,H,W)``.
        strengths: one per object, ``(n,)``, fraction.
        threshold: multiple of the mean attention.
        lag: how many steps old the mask is that steers a transition. 0: the attention of the step that is
            being finished. 1: the authors' loop, which decides the next levels before it calls the model.
        initial: strength of every pixel as long as no mask exists.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        strengths: Tensor | Sequence[float],
        threshold: float = 1.0,
        lag: int = 0,
        initial: float | None = None,
    ) -> None:
        self.shape = shape
        self.strengths = torch.as_tensor(strengths, dtype=torch.float64)
        self.threshold = threshold
        first = float(self.strengths.max()) if initial is None else initial
        self._maps = [torch.full(shape, first, dtype=torch.float64)] * (lag + 1)
        self.masks: Tensor | None = None

    def observe(self, maps: Tensor | None) -> None:
        """Raises RuntimeError when the model call gave no attention: a plain image must not pass for AsynDM."""
        if maps is None:
            raise RuntimeError("no cross-attention was captured, so the objects cannot be located")
        if not bool(torch.isfinite(maps).all()):
            raise RuntimeError("the captured cross-attention is not finite (NaN in the model?)")
        masks = threshold_maps(maps.float().cpu(), self.threshold)
        self.masks = resolve_overlaps(masks, self.strengths)
        cells = (self.masks * self.strengths.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
        self._maps = [*self._maps[1:], enlarge(cells, (self.shape[-2], self.shape[-1]))]

    def strength(self) -> Tensor:
        return self._maps[0]
