"""From attention to masks (paper, Eq. 7), with the few ways in which people want them otherwise.

Attention comes as ``(B,n,h,w)``: per image and object, averaged over heads and layers, on the grid of the layers that
were read. An object without any attention (its word is not in the text at this step) is nowhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskOptions:
    """How an object's attention becomes its mask.

    Attributes:
        threshold: a cell belongs to the object from this multiple of its mean attention on, > 0.
        soft: slowness in proportion to attention, instead of all or nothing: half at the threshold, full from
            twice the threshold on.
        smoothing: standard deviation of a Gaussian over the attention before that, in cells of its grid.
        min_area, max_area: fractions of the picture. Where an object covers less or more, its threshold is moved.
    """

    threshold: float = 1.0
    soft: bool = False
    smoothing: float = 0.0
    min_area: float = 0.0
    max_area: float = 1.0


def object_weights(maps: Tensor, options: MaskOptions) -> Tensor:
    """How much each cell belongs to each object: ``(B,n,h,w)``, fractions in [0, 1], 0 or 1 unless soft."""
    if options.smoothing > 0:
        maps = smooth(maps, options.smoothing)
    mean = maps.mean(dim=(-2, -1), keepdim=True)
    level = _within_area(maps, options.threshold * mean, options)
    if not options.soft:
        return ((maps >= level) & (mean > 0)).to(maps)
    return torch.where(mean > 0, (maps / (2 * level)).clamp(max=1), 0.0)


def strength_of_cells(weights: Tensor, strengths: Tensor) -> Tensor:
    """The strength map of several objects, ``(B,1,h,w)``: where they overlap, the stronger wins.

    Args:
        weights: ``(B,n,h,w)``. strengths: fractions ``(n,)`` or per image ``(B,n)``.
    """
    return (weights * strengths.to(weights)[..., None, None]).amax(dim=1, keepdim=True)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian average over the last two dimensions, standard deviation in cells; no dark borders."""
    for dimension in (-2, -1):
        size = maps.shape[dimension]
        away = torch.arange(size).view(-1, 1) - torch.arange(size).view(1, -1)
        kernel = torch.exp(-0.5 * (away / sigma) ** 2).to(maps)
        kernel = kernel / kernel.sum(dim=0, keepdim=True)
        maps = (maps.transpose(dimension, -1) @ kernel).transpose(dimension, -1)
    return maps


def _within_area(maps: Tensor, level: Tensor, options: MaskOptions) -> Tensor:
    """The level, moved where fewer or more cells than allowed would reach it."""
    cells = maps.shape[-2] * maps.shape[-1]
    fewest, most = math.ceil(options.min_area * cells), max(math.floor(options.max_area * cells), 1)
    if fewest == 0 and most >= cells:
        return level
    falling = maps.flatten(-2).sort(dim=-1, descending=True).values
    if fewest > 0:
        level = torch.minimum(level, falling[..., fewest - 1, None, None])
    return torch.maximum(level, falling[..., most - 1, None, None]) if most < cells else level
